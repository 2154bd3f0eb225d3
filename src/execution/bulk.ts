/** What operators do to many executions at once: checked here, done by an execution of the library's own. */
import { types } from "node:util";
import { isoMoment, parseDuration, type Duration } from "../base/duration.ts";
import { UsageError } from "../base/errors.ts";
import { toJson, type JsonObject } from "../base/json.ts";
import {
  requireBoolean,
  requireDate,
  requireInteger,
  requireKnown,
  requireOneOf,
  requireRecord,
} from "../base/option.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { BulkFailure, BulkReport, Bulks } from "../store/bulks.ts";
import type { Execution } from "./execution.ts";
import { filterNames, parseFilter, type ExecutionFilter, type ExecutionSummary } from "./list.ts";
import { requireOperator, type OperatorOptions } from "./operate.ts";
import type { WaitingOptions } from "./waiting.ts";

const actions = ["redrive", "retry", "skip", "cancel", "pause", "unpause"] as const;

/** Of `bulk()`: which executions get which command, how fast, who asks and why. */
export interface BulkOptions extends OperatorOptions {
  /** The command that each execution gets. */
  action: (typeof actions)[number];
  /**
   * Which executions, one filter at least. Of those only what the action could do anything about: `retry` takes what is parked, `redrive`
   * what failed unless statuses are named, and the others what is open. `errorLike` also looks at the error that something parked with.
   */
  where: ExecutionFilter;
  /** What each target's command takes beside who and why, e.g. `{ chunk: "charge", output: null }` of a skip. @default {} */
  options?: Readonly<Record<string, unknown>>;
  /** So many commands in any time of `per`, at most: also over crashes. @default unlimited */
  rate?: { readonly limit: number; readonly per: Duration };
  /** Refused where more executions match: 1 to 1,000,000. @default 10_000 */
  limit?: number;
  /** Says what would be done, and does nothing. @default false */
  dryRun?: boolean;
}

/** What a bulk would do. */
export interface BulkPreview {
  /** Executions that match, counted up to `limit`. */
  readonly matched: number;
  /** There are more than that. */
  readonly isMore: boolean;
  /** The first twenty, the oldest first. */
  readonly samples: readonly ExecutionSummary[];
}

/** What `flowledger.bulk` takes. @throws {UsageError | PayloadError} naming what is unknown, or is invalid */
export function bulkOptions(options: BulkOptions): JsonObject {
  const names = ["action", "where", "options", "rate", "limit", "dryRun"];
  const given = requireOperator(options, names, "bulk()");
  given["action"] = requireOneOf(options.action, actions, "action of bulk()");
  given["where"] = whereOf(options.where);
  if (options.options !== undefined) given["options"] = commandOf(options.options);
  if (options.rate !== undefined) {
    requireKnown(options.rate, ["limit", "per"], "rate of bulk()");
    const limit = requireInteger(options.rate.limit, "limit in rate of bulk()", { min: 1, max: 1_000_000 });
    const per = parseDuration(options.rate.per, "per in rate of bulk()");
    if (per === 0) throw new UsageError("per in rate of bulk() must be longer than 0", 'pass a duration like "1s"');
    given["rate"] = { limit, per };
  }
  if (options.limit !== undefined)
    given["limit"] = requireInteger(options.limit, "limit of bulk()", { min: 1, max: 1_000_000 });
  if (options.dryRun !== undefined) requireBoolean(options.dryRun, "dryRun of bulk()");
  return given;
}

function whereOf(where: ExecutionFilter): JsonObject {
  const name = "where of bulk()";
  requireRecord(where, name);
  requireKnown(where, filterNames, name);
  const wanted = parseFilter(where, name);
  const given = objectOf(where, name);
  // An empty filter matches every execution.
  if (Object.keys(wanted).length > 0) return given;
  throw new UsageError(
    `${name} is empty, and would be every execution there is`,
    'pass { flow: "import", status: "failed" }',
  );
}

function commandOf(options: Readonly<Record<string, unknown>>): JsonObject {
  requireRecord(options, "options of bulk()");
  const { until } = options;
  const moment = typeof until === "string" ? isoMoment(until) : null;
  return objectOf(moment ? { ...options, until: moment } : options, "options of bulk()");
}

/** Moments as ISO 8601: before 1970 nothing was. What is undefined was not given. */
function objectOf(values: object, where: string): JsonObject {
  const given: JsonObject = {};
  for (const [name, value] of Object.entries(values))
    if (value !== undefined)
      given[name] = types.isDate(value)
        ? new Date(Math.max(0, requireDate(value, `${name} in ${where}`).getTime())).toISOString()
        : toJson(value, `${name} in ${where}`);
  return given;
}

/** A page of what a bulk could not do; `nextCursor` is null at its end. */
export interface BulkFailurePage {
  readonly failures: readonly BulkFailure[];
  readonly nextCursor: string | null;
}

/** A bulk, from any process. */
export class Bulk {
  readonly id: ExecutionId;
  /** The execution that does it: it is cancelled, paused, explained and listed like any other. */
  readonly execution: Execution;
  readonly #bulks: Bulks;

  constructor(bulks: Bulks, execution: Execution) {
    this.#bulks = bulks;
    this.execution = execution;
    this.id = execution.id;
  }

  /** How far it is. What is neither done nor skipped nor failed is still to come, or was left where it was cancelled. */
  async report(): Promise<BulkReport> {
    return (await this.#bulks.report(this.id)) ?? { matched: 0, done: 0, skipped: 0, failed: 0 };
  }

  /**
   * Resolves with the report when it has ended.
   *
   * @throws {ExecutionCancelledError | ExecutionFailedError} it ended before it was through
   * @throws {WaitTimeoutError} the time is over; or the signal's reason
   */
  async wait(options: WaitingOptions = {}): Promise<BulkReport> {
    await this.execution.waitForClose(options);
    return this.report();
  }

  /** A page of what refused its command, in the order of the targets. @throws {UsageError} */
  async failures(options: { cursor?: string; limit?: number } = {}): Promise<BulkFailurePage> {
    const where = "failures() of a bulk";
    requireKnown(options, ["cursor", "limit"], where);
    const { cursor = "0", limit = 100 } = options;
    if (typeof cursor !== "string" || !/^(0|[1-9]\d{0,8})$/.test(cursor))
      throw new UsageError(`cursor of ${where} is no place in it`, "pass the nextCursor of the page before");
    requireInteger(limit, `limit of ${where}`, { min: 1, max: 1000 });
    const rows = await this.#bulks.failures(this.id, Number(cursor), limit);
    const last = rows.at(-1);
    return {
      failures: rows.map(({ id, at, code, message }) => ({ id, at, code, message })),
      nextCursor: rows.length === limit && last ? String(last.number) : null,
    };
  }
}
