/** What may be said of an intervention. */
import { UsageError } from "../base/errors.ts";
import type { InterventionFilters } from "../flow/context.ts";
import {
  isStorable,
  requireInteger,
  requireKnown,
  requireOneOf,
  requireRecord,
  requireText,
  show,
} from "../base/option.ts";

/** @throws {UsageError} */
export function requireConsumption(
  id: string,
  { status, consumer, note, metadata }: { readonly [K in "status" | "consumer" | "note" | "metadata"]: unknown },
): void {
  const where = `of intervention ${show(id)}`;
  requireOneOf(status, ["applied", "ignored"], `status ${where}`);
  if (!isStorable(consumer)) throw new UsageError(`intervention ${show(id)} needs a consumer`, "say who consumed it");
  requireText(consumer, `consumer ${where}`, { max: 500 });
  if (note !== null) requireText(note, `note ${where}`, { max: 10_000 });
  requireRecord(metadata, `metadata ${where}`);
}

/** What interventions are searched by. @throws {UsageError} */
export function requireFilters(filters: InterventionFilters, where: string): void {
  requireKnown(filters, ["status", "target", "sinceVersion", "consumedBy"], where);
  const { status, sinceVersion, ...texts } = filters;
  if (status !== undefined) requireOneOf(status, ["pending", "inserted", "rejected", "expired"], `status of ${where}`);
  if (sinceVersion !== undefined) requireInteger(sinceVersion, `sinceVersion of ${where}`, { min: 0 });
  for (const [name, text] of Object.entries(texts))
    if (text !== undefined && typeof text !== "string")
      throw new UsageError(`${name} of ${where} must be a text, got ${show(text)}`, null);
}
