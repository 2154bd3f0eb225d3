/** What `verify`, `rebuild` and `anchor` are asked with. */
import { requireFunction, requireInteger, requireKnown, requireRecord, requireText } from "../base/option.ts";
import type { RebuildOptions } from "../store/rebuild.ts";
import type { VerifyOptions } from "../store/verify.ts";
import { requireExecutionId } from "./ids.ts";

/** Of a text that is searched for: longer ones are nowhere. */
const longest = 1000;

/** @throws {UsageError | ExecutionNotFoundError} */
export function requireAudit(
  options: VerifyOptions & RebuildOptions,
  where: string,
  more: readonly string[] = [],
): void {
  requireKnown(options, ["id", "onProgress", ...more], where);
  if (options.id !== undefined) requireExecutionId(options.id);
  if (options.onProgress !== undefined) requireFunction(options.onProgress, `onProgress of ${where}`);
}

/** Whole, as `anchor()` gave it, or what of it was kept. @throws {UsageError} */
export function requireAnchor(given: unknown, where: string): void {
  requireKnown(given, ["number", "hash", "at", "executions"], where);
  const { number, hash } = requireRecord(given, where);
  requireInteger(number, `number of ${where}`, { min: 1, max: 2_147_483_647 });
  requireText(hash, `hash of ${where}`, { max: longest });
}
