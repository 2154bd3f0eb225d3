/** Lists and counts of executions: which index each goes by says `narrowed.ts`; what takes too long ends. */
import { z } from "zod";
import { SearchTimeoutError, UsageError } from "../base/errors.ts";
import type { JsonObject } from "../base/json.ts";
import { endedWithin } from "./bounded.ts";
import { ExecutionId } from "../ledger/event.ts";
import type { Database, Sql } from "./client.ts";
import { list } from "./columns.ts";
import { Header, headerColumns } from "./headers.ts";
import type { ExecutionFilter, ListOrder } from "./list-filter.ts";
import { narrowed, narrowParts } from "./narrowed.ts";

export interface ListQuery {
  readonly filter: ExecutionFilter;
  readonly order: ListOrder;
  readonly cursor?: Place;
  readonly limit: number;
}

/** The last of the page before: it may be pruned before the next page is asked for. */
export interface Place {
  readonly id: ExecutionId;
  /** Its time in a list by time, in milliseconds. @default the one that it has now */
  readonly at?: number;
}

export interface Lists {
  /** @throws {SearchTimeoutError | UsageError} the list is by time, and nobody knows the cursor's */
  listHeaders(query: ListQuery): Promise<Header[]>;
  /** The newest of a flow whose metadata contain what few others have: by their index alone, however many executions there are. */
  listHolding(flow: string, metadata: JsonObject, limit: number): Promise<Held[]>;
  /** Counts up to so many. @throws {SearchTimeoutError} */
  countExecutions(filter: ExecutionFilter, upTo: number): Promise<number>;
  /** The largest groups first. @throws {SearchTimeoutError} */
  listFailures(filter: FailureFilter): Promise<FailureGroup[]>;
}

/** One of those, without what it ended with. */
const Held = Header.pick({ id: true, lifecycle: true, metadata: true });
export type Held = z.infer<typeof Held>;

type Part = ReturnType<Sql>;
/** The page of one flow and status: its rows for which a condition holds. */
type Cell = (condition: Part) => Part;

export interface FailureFilter {
  readonly flow?: readonly string[];
  readonly lastAfter?: Date;
  /** Of executions whose metadata contain this. */
  readonly within?: JsonObject;
  /** Only of so many executions, those that failed last. @default all */
  readonly newest?: number;
  readonly limit: number;
}

/** Executions of a flow that failed alike. */
export const FailureGroup = z.object({
  flow: z.string(),
  /** null where the error came out of no chunk, as of a timeout. */
  chunk: z.string().nullable(),
  /** "name: message", with # in the place of digits and ids. */
  error: z.string(),
  /** How many. */
  executions: z.int(),
  firstAt: z.date(),
  lastAt: z.date(),
  /** The one that failed last, and what its error says. */
  lastId: ExecutionId,
  lastMessage: z.string().nullable(),
});
export type FailureGroup = z.infer<typeof FailureGroup>;

/** How long a list may take. */
const searchMs = 2000;

export function listsOf({ sql }: Pick<Database, "sql">): Lists {
  return {
    async listHeaders(query) {
      const { filter, order, cursor, limit } = query;
      const sorted = sortOf(sql, filter, order, cursor);
      const page: Part = sql`${sorted.after} order by ${sorted.by} limit ${limit}::int`;
      const ids: Part = found(sql, query, page);
      const rows = await search(
        sql`
          select ${headerColumns(sql)} from (select p.id from (${ids}) p order by ${sorted.ofIds} limit ${limit}::int) found
          cross join lateral (select x.* from flowledger.executions x where x.id = found.id offset 0) e
          order by ${sorted.by} limit ${limit}::int`,
        filter,
      );
      if (rows.length === 0) await requirePlace(sql, query);
      return rows.map((row) => Header.parse(row));
    },
    async listHolding(flow, metadata, limit) {
      const rows = await sql`
        with few as materialized (
          select e.id, e.lifecycle, e.metadata from flowledger.executions e
          where e.metadata is not null and e.metadata @> ${JSON.stringify(metadata)}::text::jsonb and e.flow = ${flow})
        select f.id, f.lifecycle, f.metadata from few f order by f.id desc limit ${limit}::int`;
      return rows.map((row) => Held.parse(row));
    },
    async countExecutions(filter, upTo) {
      const ids: Part = found(sql, { filter, order: "newest", limit: upTo }, sql`limit ${upTo}::int`);
      const [row] = await search(
        sql<{ count: number }[]>`
          select count(*)::int as count from (select found.id from (${ids}) found limit ${upTo}::int) counted`,
        filter,
      );
      return row?.count ?? 0;
    },
    async listFailures({ flow, lastAfter, within, newest, limit }) {
      const rows = await search(
        sql`
          select f.flow, f.chunk, f.error, f.executions, f.first_at as "firstAt", f.last_at as "lastAt", f.last_id as "lastId",
            f.last_message as "lastMessage"
          from ${within === undefined && newest === undefined ? sql`flowledger.failures` : failuresOf(sql, lastFailed(sql, flow, within, newest))} f
          where true ${flow === undefined ? sql`` : sql`and f.flow = any(${list(flow)}::text::text[])`}
            ${lastAfter === undefined ? sql`` : sql`and f.last_at > ${lastAfter.toISOString()}::text::timestamptz`}
          order by f.executions desc, f.last_at desc, f.last_id limit ${limit}::int`,
        { ...(flow !== undefined && { flow: [...flow] }) },
      );
      return rows.map((row) => FailureGroup.parse(row));
    },
  };
}

/** The rows that `flowledger.failures` would have, were there no other executions than these. */
function failuresOf(sql: Sql, executions: Part): Part {
  return sql`(
    select e.flow, e.error ->> 'chunk' as chunk, flowledger.alike_error(e.error) as error, count(*)::int as executions,
      min(e.closed_at) as first_at, max(e.closed_at) as last_at,
      (array_agg(e.id order by e.closed_at desc, e.id desc))[1] as last_id,
      (array_agg(e.error ->> 'message' order by e.closed_at desc, e.id desc))[1] as last_message
    from (${executions}) e group by 1, 2, 3)`;
}

function lastFailed(
  sql: Sql,
  flow: readonly string[] | undefined,
  within: JsonObject | undefined,
  newest = 2_000_000_000,
): Part {
  if (within !== undefined)
    return sql`
      select e.* from flowledger.executions e where e.status = 'failed' and e.metadata @> ${JSON.stringify(within)}::text::jsonb
      order by e.closed_at desc, e.id desc limit ${newest}::int`;
  const flows: Part =
    flow === undefined ? knownFlows(sql) : sql`(select distinct unnest(${list(flow)}::text::text[]) as flow)`;
  const cell = closedCellPage(sql, {}, undefined, newest);
  return sql`
    select e.* from (
      select c.id, c.at from ${flows} f(flow) cross join (select 'failed'::text as status) s cross join lateral (${cell(sql``)}) c
      order by c.at desc, c.id desc limit ${newest}::int) p
    cross join lateral (select x.* from flowledger.executions x where x.id = p.id offset 0) e`;
}

/** Which time a list is by; one by id needs none. */
export function timeNameOf({ filter, order }: ListQuery): "createdAt" | "closedAt" | null {
  if (order === "lastClosed") return "closedAt";
  return isByCreation(filter) ? "createdAt" : null;
}

/** What comes behind a place without a time would be nothing, without a word. */
async function requirePlace(sql: Sql, query: ListQuery): Promise<void> {
  const { cursor } = query;
  const name = timeNameOf(query);
  if (cursor === undefined || cursor.at !== undefined || name === null) return;
  const at: Part = name === "closedAt" ? sql`e.closed_at` : sql`e.created_at`;
  const found = await sql`select from flowledger.executions e where e.id = ${cursor.id}::uuid and ${at} is not null`;
  if (found.length === 0)
    throw new UsageError(
      `cursor ${cursor.id} has no place in this list: it is by time, and that execution is gone, or has none`,
      "pass nextCursor of the page before, in the same order",
    );
}

/** The time of a place, as SQL. */
function timeAt(sql: Sql, { id, at }: Place, column: Part): Part {
  return at === undefined
    ? sql`(select ${column} from flowledger.executions e where e.id = ${id}::uuid)`
    : sql`flowledger.from_ms(${at}::float8)`;
}

/** By id, which is the time of creation too, as the indexes of flows and statuses have it; unless a range of times is asked for. */
function sortOf(sql: Sql, filter: ExecutionFilter, order: ListOrder, cursor: Place | undefined) {
  const at = (column: Part, isDescending: boolean) => ({
    by: isDescending ? sql`${column} desc, e.id desc` : sql`${column}, e.id`,
    ofIds: isDescending ? sql`p.at desc, p.id desc` : sql`p.at, p.id`,
    after:
      cursor === undefined
        ? sql``
        : sql`and (${column}, e.id) ${isDescending ? sql`<` : sql`>`} (${timeAt(sql, cursor, column)}, ${cursor.id}::uuid)`,
  });
  if (order === "lastClosed") {
    const sorted = at(sql`e.closed_at`, true);
    return { ...sorted, after: sql`and e.closed_at is not null ${sorted.after}` };
  }
  if (isByCreation(filter)) return at(sql`e.created_at`, order === "newest");
  const isNewest = order === "newest";
  return {
    by: isNewest ? sql`e.id desc` : sql`e.id`,
    ofIds: isNewest ? sql`p.id desc` : sql`p.id`,
    after: cursor === undefined ? sql`` : sql`and e.id ${isNewest ? sql`<` : sql`>`} ${cursor.id}::uuid`,
  };
}

/** Statuses of what has closed. */
const ended: readonly Header["status"][] = ["completed", "failed", "cancelled"];

/** Statuses of executions that may have an error to look into. */
const withError = ["failed", "cancelled"];

/** The ids of a page, from what narrows it down, or in the order of the list. */
function found(sql: Sql, query: ListQuery, page: Part): Part {
  const { order, limit } = query;
  const { status = Header.shape.status.options, ...others } = query.filter;
  const filter =
    query.filter.errorPattern === undefined
      ? query.filter
      : { ...others, status: status.filter((one) => withError.includes(one)) };
  const flows: Part =
    filter.flow === undefined
      ? knownFlows(sql)
      : sql`(select distinct unnest(${list(filter.flow)}::text::text[]) as flow)`;
  const look: Part = sql`${place(sql, filter)} ${where(sql, filter)}`;
  const asked = { ...query, filter };
  return narrowed(sql, narrowParts(sql, filter, order, flows), {
    time: timeOf(sql, filter, order),
    look,
    page,
    limit,
    soon: among(sql, asked, page),
    walk: walked(sql, asked, flows, page),
  });
}

/** What a list by time is sorted by; one by id needs none, and then an index may have all that is read. */
function timeOf(sql: Sql, filter: ExecutionFilter, order: ListOrder): Part {
  if (order === "lastClosed") return sql`e.closed_at`;
  return isByCreation(filter) ? sql`e.created_at` : sql`null::timestamptz`;
}

function isByCreation({ createdAfter, createdBefore }: ExecutionFilter): boolean {
  return createdAfter !== undefined || createdBefore !== undefined;
}

/** A loose scan: one look per flow. */
function knownFlows(sql: Sql): Part {
  return sql`
    (with recursive known as (
      select min(x.flow) as flow from flowledger.executions x
      union all
      select (select min(x.flow) from flowledger.executions x where x.flow > k.flow) from known k where k.flow is not null
    ) select k.flow from known k where k.flow is not null)`;
}

function place(sql: Sql, { flow, status }: ExecutionFilter): Part {
  return sql`
    ${flow === undefined ? sql`` : sql`and e.flow = any(${list(flow)}::text::text[])`}
    ${status === undefined ? sql`` : sql`and e.status = any(${list(status)}::text::text[])`}`;
}

/**
 * A page per flow and status: in each an index has the order of the list, so that nothing is sorted that is not shown. Without both
 * there is an index for all; and a range of another time than the list's order, or for each flow and status the whole of it would be read.
 */
function walked(sql: Sql, query: ListQuery, flows: Part, page: Part): Part {
  const { filter, order } = query;
  const { flow, status, closedAfter, closedBefore, ...others } = filter;
  const isClosed = closedAfter !== undefined || closedBefore !== undefined;
  if (isByCreation(filter) || (isClosed && order !== "lastClosed") || (flow === undefined && status === undefined))
    return sql`select e.id, ${timeOf(sql, filter, order)} as at from flowledger.executions e where true ${place(sql, filter)} ${where(sql, filter)} ${page}`;
  const mayBe = order === "lastClosed" ? ended : Header.shape.status.options;
  const statuses = list(mayBe.filter((one) => status?.includes(one) ?? true));
  return sql`
    select c.id, c.at from ${flows} f(flow) cross join unnest(${statuses}::text::text[]) s(status)
    cross join lateral (${cellPage(sql, query)(where(sql, others))}) c`;
}

/** So many rows are looked at in the order of the list before an index that has all that a filter means is asked. */
const soonRows = 2000;

/** What those have of the page. */
function among(sql: Sql, { filter, order, cursor }: ListQuery, page: Part): Part {
  const { createdAfter, createdBefore, closedAfter, closedBefore } = filter;
  const { after, by } = sortOf(sql, filter, order, cursor);
  const [from, until] = order === "lastClosed" ? [closedAfter, closedBefore] : [createdAfter, createdBefore];
  const at: Part = order === "lastClosed" ? sql`e.closed_at` : sql`e.created_at`;
  return sql`
    select e.id, ${timeOf(sql, filter, order)} as at from (
      select e.* from flowledger.executions e where true ${between(sql, at, from, until)} ${after} order by ${by} limit ${soonRows}::int) e
    where true ${place(sql, filter)} ${where(sql, filter)} ${page}`;
}

/**
 * A page of one flow and status, by the index of both. They are compared as a row: told that they are equal the planner would read
 * all executions from the newest on, hoping for one of a flow that never had it.
 */
function cellPage(sql: Sql, { filter, order, cursor, limit }: ListQuery): Cell {
  if (order === "lastClosed") return closedCellPage(sql, filter, cursor, limit);
  const isNewest = order !== "oldest";
  const [first, last] = filter.ids ?? [firstId, lastId];
  const from: Part =
    cursor === undefined || isNewest
      ? sql`>= (f.flow, s.status, ${first}::uuid)`
      : sql`> (f.flow, s.status, ${cursor.id}::uuid)`;
  const until: Part =
    cursor === undefined || !isNewest
      ? sql`<= (f.flow, s.status, ${last}::uuid)`
      : sql`< (f.flow, s.status, ${cursor.id}::uuid)`;
  const by: Part = isNewest ? sql`e.flow desc, e.status desc, e.id desc` : sql`e.flow, e.status, e.id`;
  const [near, far] = isNewest ? [until, from] : [from, until];
  return inOrder(sql, sql`(e.flow, e.status, e.id) ${near}`, sql`(e.flow, e.status, e.id) ${far}`, by, limit);
}

const [firstId, lastId] = ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"];

/** The same in the order of their ends. */
function closedCellPage(
  sql: Sql,
  { closedAfter, closedBefore }: ExecutionFilter,
  cursor: Place | undefined,
  limit: number,
): Cell {
  const [after, before] = [closedAfter?.toISOString() ?? "-infinity", closedBefore?.toISOString() ?? "infinity"];
  const until: Part =
    cursor === undefined
      ? sql`< (f.flow, s.status, ${before}::text::timestamptz, ${firstId}::uuid)`
      : sql`< (f.flow, s.status, ${timeAt(sql, cursor, sql`e.closed_at`)}, ${cursor.id}::uuid)`;
  const near: Part = sql`e.closed_at is not null and (e.flow, e.status, e.closed_at, e.id) ${until}`;
  const far: Part = sql`(e.flow, e.status, e.closed_at, e.id) > (f.flow, s.status, ${after}::text::timestamptz, ${lastId}::uuid)`;
  return inOrder(sql, near, far, sql`e.flow desc, e.status desc, e.closed_at desc, e.id desc`, limit);
}

/**
 * In the order of the index, whatever the planner expects of the condition: of a limit that it cannot know it takes the first tenth to be
 * read. Postgres before 18 reads a range of rows on until their first column has changed, so that a page without rows would cost those of
 * all statuses before it: first it is looked whether what comes next belongs there.
 */
function inOrder(sql: Sql, near: Part, far: Part, by: Part, limit: number): Cell {
  return (condition): Part => sql`
    select e.id, e.closed_at as at from (
      select e.* from flowledger.executions e
      where (select (n.flow, n.status) = (f.flow, s.status) from (select e.flow, e.status from flowledger.executions e where ${near} order by ${by} limit 1) n)
        and ${near} and ${far}
      order by ${by} limit (select 2000000000)) e
    where true ${condition} order by ${by} limit ${limit}::int`;
}

/** All but flow and status. */
function where(sql: Sql, filter: ExecutionFilter): Part {
  const { version, createdAfter, createdBefore, closedAfter, closedBefore, parent, ids } = filter;
  const { idempotencyKey, errorPattern, metadata, redriven, within } = filter;
  return sql`
    ${version === undefined ? sql`` : sql`and starts_with(e.fingerprint, ${version})`}
    ${between(sql, sql`e.created_at`, createdAfter, createdBefore)} ${between(sql, sql`e.closed_at`, closedAfter, closedBefore)}
    ${parent === undefined ? sql`` : sql`and e.parent_id = ${parent}::uuid`}
    ${ids === undefined ? sql`` : sql`and e.id between ${ids[0]}::uuid and ${ids[1]}::uuid`}
    ${idempotencyKey === undefined ? sql`` : sql`and e.idempotency_key = ${idempotencyKey}`}
    ${errorPattern === undefined ? sql`` : sql`and e.error is not null and concat(e.error ->> 'name', ': ', e.error ->> 'message') ilike ${errorPattern}`}
    ${[metadata, within].map((one) => (one === undefined ? sql`` : sql`and e.metadata is not null and e.metadata @> ${JSON.stringify(one)}::text::jsonb`))}
    ${redriven === undefined ? sql`` : sql`and ${isRedriven(sql)} = ${redriven}::boolean`}`;
}

function between(sql: Sql, time: Part, after: Date | undefined, before: Date | undefined): Part {
  const moment = (at: Date) => sql`${at.toISOString()}::text::timestamptz`;
  return sql`
    ${after === undefined ? sql`` : sql`and ${time} > ${moment(after)}`} ${before === undefined ? sql`` : sql`and ${time} < ${moment(before)}`}`;
}

/** As `flowledger.redriven_by` says, which is too slow to be called for each. */
function isRedriven(sql: Sql): Part {
  return sql`exists (
    select from flowledger.ledger l
    where l.seq = 1 and l.type = 'execution.created' and l.payload ? 'forkedFrom' and l.payload -> 'forkedFrom' ->> 'id' = e.id::text
      and exists (select from flowledger.ledger r where r.execution_id = l.execution_id and r.type = 'execution.redriven' and r.payload ->> 'of' = e.id::text))`;
}

export function search<R>(query: Promise<readonly R[]> & { cancel(): void }, filter: object): Promise<readonly R[]> {
  return endedWithin(query, searchMs, () => new SearchTimeoutError(Object.keys(filter), searchMs));
}
