/** Which executions a list or a count is about. */
import { UsageError } from "../base/errors.ts";
import {
  requireBoolean,
  requireDate,
  requireInteger,
  requireKnown,
  requireList,
  requireOneOf,
  requireText,
  show,
} from "../base/option.ts";
import { Header } from "../store/headers.ts";
import type { JsonObject } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { ExecutionFilter as Wanted, ListOrder } from "../store/list-filter.ts";
import { timeNameOf, type FailureFilter, type ListQuery, type Place } from "../store/lists.ts";
import { parseMetadata } from "./start-options.ts";
import { parseId } from "./ids.ts";

type Status = Header["status"];

/**
 * All of it must hold; of a list, one. Beside a flow, a status or a range of times each of these goes by an index. What none answers is
 * looked for among all that is left, and ends after two seconds with a `SearchTimeoutError`: a `version` of fewer than four characters,
 * an `errorLike` without three side by side, one range of times in the order of the other, and two filters that many have each but few both.
 */
export interface ExecutionFilter {
  /** Names of flows. @default any */
  flow?: string | readonly string[];
  /** @default any */
  status?: Status | readonly Status[];
  /** Fingerprint of the flow's definition, or how it begins: four characters or more go by an index. */
  version?: string;
  /** Later than this. */
  createdAfter?: Date;
  /** Earlier than this. */
  createdBefore?: Date;
  /** Closed later than this. */
  closedAfter?: Date;
  /** Closed earlier than this. */
  closedBefore?: Date;
  /** Id of the execution that called it. */
  parent?: string;
  /** How its id begins, dashes included. */
  idPrefix?: string;
  /** The key that it was started with. */
  idempotencyKey?: string;
  /** A part of "name: message" of the error that it failed with, in any case; `%` stands for any text. */
  errorLike?: string;
  /** Executions whose metadata contain this. */
  metadata?: Readonly<Record<string, unknown>>;
  /** Whether it goes on as another one, by `redrive()`: beside `status: ["failed", "parked"]`, false is what still waits for somebody. */
  redriven?: boolean;
}

/** Of `listExecutions()`. */
export interface ListOptions extends ExecutionFilter {
  /** "lastClosed" has closed executions only. @default "newest" */
  order?: ListOrder;
  /** `nextCursor` of the page before. */
  cursor?: string;
  /** 1 to 1000. @default 100 */
  limit?: number;
}

/** Of `countExecutions()`. */
export interface CountOptions extends ExecutionFilter {
  /** Where counting stops: 1 to 100,000. @default 1000 */
  upTo?: number;
}

/** Of `failures()`. */
export interface FailureOptions {
  /** Names of flows. @default any */
  flow?: string | readonly string[];
  /** Only what has failed since. */
  lastAfter?: Date;
  /** 1 to 1000. @default 100 */
  limit?: number;
}

export const filterNames = [
  "flow",
  "status",
  "version",
  "createdAfter",
  "createdBefore",
  "closedAfter",
  "closedBefore",
  "parent",
  "idPrefix",
  "idempotencyKey",
  "errorLike",
  "metadata",
  "redriven",
] as const satisfies readonly (keyof ExecutionFilter)[];

/** An execution in a list. */
export interface ExecutionSummary {
  readonly id: ExecutionId;
  readonly flow: string;
  readonly status: Header["status"];
  readonly lifecycle: Header["lifecycle"];
  readonly metadata: JsonObject;
  readonly createdAt: Date;
  readonly startedAt: Date | null;
  readonly closedAt: Date | null;
  readonly closeReason: string | null;
}

/** @throws {UsageError} naming what is unknown, or is invalid */
export function parseList(options: ListOptions): ListQuery {
  const where = "listExecutions()";
  requireKnown(options, [...filterNames, "order", "cursor", "limit"], where);
  const { order = "newest", cursor, limit = 100 } = options;
  return {
    filter: parseFilter(options, where),
    order: requireOneOf(order, ["newest", "oldest", "lastClosed"], `order of ${where}`),
    limit: requireInteger(limit, `limit of ${where}`, { min: 1, max: 1000 }),
    ...(cursor !== undefined && { cursor: parsePlace(cursor) }),
  };
}

/** The cursor behind a page; null where that was the last. */
export function cursorBehind(query: ListQuery, headers: readonly Header[]): string | null {
  const last = headers.at(-1);
  if (last === undefined || headers.length < query.limit) return null;
  const name = timeNameOf(query);
  return name === null ? last.id : `${last.id} ${last[name]}`;
}

function parsePlace(cursor: unknown): Place {
  const [id, at, ...more] = requireText(cursor, "cursor of listExecutions()", { max: 100 }).split(" ");
  if (at === undefined) return { id: parseId(id ?? "") };
  if (more.length > 0 || !/^-?\d{1,15}(\.\d{1,9})?$/.test(at))
    throw new UsageError(`${show(cursor)} is not a cursor`, "pass nextCursor of the page before");
  return { id: parseId(id ?? ""), at: Number(at) };
}

/** @throws {UsageError} naming what is unknown, or is invalid */
export function parseCount(options: CountOptions): { readonly filter: Wanted; readonly upTo: number } {
  const where = "countExecutions()";
  requireKnown(options, [...filterNames, "upTo"], where);
  const { upTo = 1000 } = options;
  return {
    filter: parseFilter(options, where),
    upTo: requireInteger(upTo, `upTo of ${where}`, { min: 1, max: 100_000 }),
  };
}

/** @throws {UsageError} naming what is unknown, or is invalid */
export function parseFailures(options: FailureOptions): FailureFilter {
  const where = "failures()";
  requireKnown(options, ["flow", "lastAfter", "limit"], where);
  const { flow, lastAfter, limit = 100 } = options;
  return {
    limit: requireInteger(limit, `limit of ${where}`, { min: 1, max: 1000 }),
    ...(flow !== undefined && parseFilter({ flow }, where)),
    ...(lastAfter !== undefined && { lastAfter: requireDate(lastAfter, `lastAfter of ${where}`) }),
  };
}

/** @throws {UsageError} naming what is invalid; `where` names the call */
export function parseFilter(options: ExecutionFilter, where: string): Wanted {
  const wanted: Wanted = {};
  const { flow, status, version, parent, idPrefix, idempotencyKey, errorLike, metadata } = options;
  if (flow !== undefined)
    wanted.flow = requireList(listOf(flow), `flow of ${where}`, (one, of) => requireText(one, of, { max: 100 }));
  if (status !== undefined)
    wanted.status = requireList(listOf(status), `status of ${where}`, (one, of) =>
      requireOneOf(one, Header.shape.status.options, of),
    );
  for (const name of ["createdAfter", "createdBefore", "closedAfter", "closedBefore"] as const)
    if (options[name] !== undefined) wanted[name] = requireDate(options[name], `${name} of ${where}`);
  if (version !== undefined) wanted.version = requireText(version, `version of ${where}`, { max: 200 });
  if (parent !== undefined) wanted.parent = parseId(parent);
  if (idPrefix !== undefined) wanted.ids = idsFrom(idPrefix, where);
  if (idempotencyKey !== undefined)
    wanted.idempotencyKey = requireText(idempotencyKey, `idempotencyKey of ${where}`, { max: 10_000 });
  if (errorLike !== undefined) {
    const text = requireText(errorLike, `errorLike of ${where}`, { max: 1000 });
    wanted.errorPattern = `%${text.replace(/[\\_]/g, String.raw`\$&`)}%`;
  }
  if (options.redriven !== undefined) wanted.redriven = requireBoolean(options.redriven, `redriven of ${where}`);
  // An empty object is contained in any metadata, so it is no filter.
  const contained = parseMetadata(metadata) ?? {};
  if (Object.keys(contained).length > 0) wanted.metadata = contained;
  return wanted;
}

function listOf(value: unknown): unknown {
  return Array.isArray(value) ? value : [value];
}

/** The first and the last id that begin so. */
function idsFrom(prefix: string, where: string): [string, string] {
  const text = requireText(prefix, `idPrefix of ${where}`, { max: 36 }).toLowerCase();
  const filled = (digit: string) =>
    text + "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx".slice(text.length).replaceAll("x", digit);
  if (!/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/.test(filled("0")))
    throw new UsageError(
      `idPrefix of ${where} is not how an id begins, got "${text}"`,
      "use its hexadecimal digits and dashes, like 01a1fc3d-d4",
    );
  return [filled("0"), filled("f")];
}

export function summaryOf(header: Header): ExecutionSummary {
  const { id, flow, status, lifecycle, metadata, createdAt, startedAt, closedAt, closeReason } = header;
  return {
    id,
    flow,
    status,
    lifecycle,
    metadata: metadata ?? {},
    createdAt: new Date(createdAt),
    startedAt: startedAt === null ? null : new Date(startedAt),
    closedAt: closedAt === null ? null : new Date(closedAt),
    closeReason,
  };
}
