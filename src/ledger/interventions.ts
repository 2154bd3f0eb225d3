/** What may be said of an intervention. */
import { UsageError } from "../base/errors.ts";
import { isStorable, requireOneOf } from "../base/option.ts";

/** @throws {UsageError} */
export function requireConsumption(id: string, status: string, consumer: string): void {
  requireOneOf(status, ["applied", "ignored"], `status of intervention "${id}"`);
  if (!isStorable(consumer)) throw new UsageError(`intervention "${id}" needs a consumer`, "say who consumed it");
}
