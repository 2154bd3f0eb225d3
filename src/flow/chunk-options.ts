/** What `to()`, `chunk()`, `batch()` and `toSubFlow()` may say of how a chunk or its items run. */
import { parseDuration } from "../base/duration.ts";
import { DefinitionError, FlowledgerError } from "../base/errors.ts";
import { requireBoolean, requireInteger, requireKnown, showWhole, type Refuse } from "../base/option.ts";
import type { ChunkHandler } from "./context.ts";
import { checkSchema } from "./contract.ts";
import type { ChunkOptions } from "./definition.ts";
import { failureOptions, resolveFailure, type FailurePolicy } from "./failure.ts";
import type { ResolvedChunkOptions } from "./graph.ts";
import { refusalOf } from "./limits.ts";
import { resolveRetry } from "./retry.ts";

/** @param onFailure what the flow says, where the chunk does not. @throws {DefinitionError} naming the option */
export function resolveChunk(
  flow: string,
  chunk: string,
  options: ChunkOptions | undefined = {},
  onFailure: FailurePolicy,
): ResolvedChunkOptions {
  const refuse = refusalOf(flow);
  const where = `chunk ${showWhole(chunk)}`;
  requireKnown(options, ["retry", "timeout", "input", "output", "onCancel", ...failureOptions], where, refuse);
  const { input = null, output = null, timeout = null } = options;
  if (input !== null) checkSchema(flow, `input of ${where}`, input);
  if (output !== null) checkSchema(flow, `output of ${where}`, output);
  return asDefinition(flow, where, () => {
    const timeoutMs = timeout === null ? null : parseDuration(timeout, `timeout of ${where}`);
    if (timeoutMs === 0) refuse(`${where} has a timeout of 0`, "leave it out for none");
    const policy = resolveFailure(options, where, onFailure, refuse);
    const given = { retry: resolveRetry(options.retry, where), timeoutMs, onFailure: policy, input, output };
    if (options.onCancel === undefined) return given;
    if (!isHandler(options.onCancel))
      return refuse(`onCancel of ${where} is ${showWhole(options.onCancel)}`, "give it a function of ctx");
    return { ...given, onCancel: options.onCancel };
  });
}

/** How many run at once; null is no limit. */
export function resolveConcurrency(value: number | null | undefined, where: string, refuse: Refuse): number | null {
  if (value === undefined) return null;
  return requireInteger(value, `concurrency of ${where}`, { min: 1, orNull: "no limit" }, refuse);
}

/** How the items of a collection run: so many at once, and as executions of their own. */
export interface ItemOptions {
  readonly concurrency?: number | null;
  readonly distribute?: boolean;
}

/** @throws {DefinitionError} naming the option */
export function resolveItems(
  options: ItemOptions,
  where: string,
  refuse: Refuse,
): { readonly concurrency: number | null; readonly distribute: boolean } {
  requireKnown(options, ["concurrency", "distribute"], where, refuse);
  const { concurrency, distribute = false } = options;
  return {
    concurrency: resolveConcurrency(concurrency, where, refuse),
    distribute: requireBoolean(distribute, `distribute of ${where}`, refuse),
  };
}

/** Runs a check that throws for a caller, and says it as a mistake in the definition. */
export function asDefinition<T>(flow: string, where: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (error instanceof DefinitionError || !(error instanceof FlowledgerError)) throw error;
    throw new DefinitionError(flow, `${where}: ${error.message}`, null, error.details, error);
  }
}

/** That a function takes the `ctx` of its flow is checked where it is given. */
function isHandler(value: unknown): value is ChunkHandler {
  return typeof value === "function";
}
