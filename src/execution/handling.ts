/** What people do with a question besides answering it: checked here, decided under the row lock. */
import type { JsonObject } from "../base/json.ts";
import { isoMoment } from "../base/duration.ts";
import { requireActor, requireBoolean, requireDate, requireKnown, requireName, requireText } from "../base/option.ts";
import { longestPrincipal } from "../ledger/handling.ts";

/** Of what people do with a question without answering it. */
export interface HandlingOptions {
  /** Who does it, 1 to 500 characters: kept in the ledger. */
  actor: string;
}

/** Of `claim()`. */
export interface ClaimOptions extends HandlingOptions {
  /** Nobody else may answer. @default false: others see who has it, and may */
  exclusive?: boolean;
}

/** Of `delegate()`. */
export interface DelegateOptions extends HandlingOptions {
  /** Whom it asks from now on, in the place of all others: 1 to 100 characters, such as "user:bo". */
  to: string;
  /** Kept in the ledger, up to 2,000 characters. @default none */
  reason?: string;
}

/** Of `snooze()`. */
export interface SnoozeOptions extends HandlingOptions {
  /** A moment to come: until then the inbox does not show it. */
  until: Date | string;
}

/** What `flowledger.claim_interrupt` takes. @throws {UsageError} */
export function claimOptions(options: ClaimOptions): JsonObject {
  const given = requireHandler(options, ["exclusive"], "claim()");
  if (options.exclusive !== undefined) given["exclusive"] = requireBoolean(options.exclusive, "exclusive of claim()");
  return given;
}

/** What `flowledger.release_interrupt` takes. @throws {UsageError} */
export function releaseOptions(options: HandlingOptions): JsonObject {
  return requireHandler(options, [], "release()");
}

/** What `flowledger.delegate_interrupt` takes. @throws {UsageError} */
export function delegateOptions(options: DelegateOptions): JsonObject {
  const given = requireHandler(options, ["to", "reason"], "delegate()");
  given["to"] = requireText(options.to, "to of delegate()", { max: longestPrincipal });
  if (options.reason !== undefined)
    given["reason"] = requireName(options.reason, "reason of delegate()", { max: 2000 });
  return given;
}

/** What `flowledger.snooze_interrupt` takes. @throws {UsageError} */
export function snoozeOptions(options: SnoozeOptions): JsonObject {
  const given = requireHandler(options, ["until"], "snooze()");
  const { until } = options;
  const moment = requireDate(typeof until === "string" ? isoMoment(until) : until, "until of snooze()");
  given["until"] = moment.toISOString();
  return given;
}

function requireHandler(options: HandlingOptions, names: readonly string[], where: string): JsonObject {
  requireKnown(options, [...names, "actor"], where);
  return { actor: requireActor(options.actor, `actor of ${where}`) };
}
