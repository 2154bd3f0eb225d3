/** What becomes of a chunk whose last attempt has failed: its execution fails with it, or it waits for an operator. */
import { requireKnown, requireOneOf, type Refuse } from "../base/option.ts";
import { parseDuration, type Duration } from "../base/duration.ts";
import { isObject } from "../base/json.ts";

/** What becomes of a chunk that has failed for the last time. */
export interface ParkOptions {
  /**
   * What follows when the last attempt has failed, for whatever reason. "fail" ends the execution. "park" leaves the chunk
   * where it is, while what runs beside it goes on, until it is retried, skipped or cancelled. Hidden executions, which
   * nobody holds, fail all the same. @default "fail"; of a chunk: what its flow says
   */
  readonly onFailure?: "fail" | "park";
  /** How long it may stay parked: after that it fails in the end. @default for ever; of a chunk: what its flow says */
  readonly park?: { readonly after?: Duration | null };
}

export interface FailurePolicy {
  readonly parks: boolean;
  /** null is for ever. */
  readonly afterMs: number | null;
}

export const failureOptions = ["onFailure", "park"] as const;

export const failing: FailurePolicy = { parks: false, afterMs: null };
export const parking: FailurePolicy = { parks: true, afterMs: null };

/**
 * @param where names the flow or chunk for the error
 * @param flow what holds where a chunk leaves it open; null of the flow itself
 * @returns null where a chunk leaves all of it to its flow
 * @throws {DefinitionError} naming the option that is invalid
 */
export function resolveFailure(
  { onFailure, park }: ParkOptions,
  where: string,
  flow: FailurePolicy,
  refuse: Refuse,
): FailurePolicy | null {
  if (onFailure === undefined && park === undefined) return null;
  if (onFailure !== undefined) requireOneOf(onFailure, ["fail", "park"], `onFailure of ${where}`, refuse);
  const parks = onFailure === undefined ? flow.parks : onFailure === "park";
  if (park === undefined) return { parks, afterMs: parks ? flow.afterMs : null };
  if (!isObject(park)) refuse(`park of ${where} must be an object`, 'use { after: "30d" }');
  requireKnown(park, ["after"], `park of ${where}`, refuse);
  if (!parks) refuse(`${where} has park, and does not park`, 'add onFailure: "park"');
  const afterMs = park.after == null ? null : parseDuration(park.after, `park.after of ${where}`);
  if (afterMs === 0)
    refuse(`park.after of ${where} must be longer than 0`, 'use a duration like "30d", or onFailure: "fail"');
  return { parks, afterMs };
}

/** The options that resolve to a policy. */
export function optionsOf(policy: FailurePolicy | null | undefined): ParkOptions {
  if (!policy) return {};
  return policy.parks ? { onFailure: "park", park: { after: policy.afterMs } } : { onFailure: "fail" };
}
