/**
 * Which index a list goes by is not left to the planner's guess: where few executions hold one part of a filter, those few are looked
 * through, and where many do, the list is walked in its order and soon has a page.
 */
import type { Sql } from "./client.ts";
import { list } from "./columns.ts";
import type { ExecutionFilter, ListOrder } from "./list-filter.ts";

type Part = ReturnType<Sql>;

interface Narrow {
  /** Selects ids, by an index of its own. */
  readonly ids: Part;
  /** How many are few. */
  readonly most: number;
  /** Those, as they stand side by side; without it each is looked up. */
  readonly rows?: Part;
  /** Whether it takes long to find out that they are many. */
  readonly isDear?: boolean;
}

interface Walks {
  /** What the list is sorted by, of `e`. */
  readonly time: Part;
  /** What must hold of those that are few. */
  readonly look: Part;
  readonly page: Part;
  /** Of the page. */
  readonly limit: number;
  /** The walk in the order of the list, for its first rows only. */
  readonly soon: Part;
  readonly walk: Part;
}

/** So many are read and sorted in milliseconds, wherever they are in the table. */
const scattered = 2000;
/** So much of a fingerprint the index of versions has. */
const versionPart = 4;
/** What has not closed is looked through for a version: that index has none of it, so that it costs a write only once. */
const openStatuses: readonly string[] = ["created", "running", "waiting", "parked"];
/** What belongs to a range of times stands side by side. */
const together = 40_000;

/** Ids and times of a page: of what is few, or of a walk. */
export function narrowed(sql: Sql, narrow: readonly Narrow[], { time, look, page, limit, soon, walk }: Walks): Part {
  if (narrow.length === 0) return walk;
  const few = (index: number) => sql.unsafe(`few_${index}`);
  const isFew = (index: number) => sql`(select count(*) from ${few(index)}) <= ${narrow[index]?.most ?? 0}::int`;
  const isDear = narrow.some((one) => one.isDear);
  const isSoon = isDear ? sql`(select count(*) from soon) >= ${limit}::int` : sql`false`;
  // The first filter that matches few executions is used.
  const isMeant = (index: number): Part =>
    narrow.slice(0, index).reduce<Part>((so, _, before) => sql`${so} and not ${isFew(before)}`, sql`not ${isSoon}`);
  const named = narrow.map(
    ({ ids, most }, index) => sql`${few(index)} as materialized (${ids} limit ${most + 1}::int)`,
  );
  const branches = narrow.map(({ rows }, index): Part => {
    const from: Part =
      rows === undefined
        ? sql`(select distinct n.id from ${few(index)} n) n cross join lateral (select x.* from flowledger.executions x where x.id = n.id offset 0) e`
        : sql`(${rows} ${look} offset 0) e`;
    return sql`(select e.id, ${time} as at from ${from} where ${isMeant(index)} and ${isFew(index)} ${rows === undefined ? look : sql``} ${page}) union all`;
  });
  if (isDear) {
    named.push(sql`soon as materialized (${soon})`);
    branches.unshift(sql`(select s.id, s.at from soon s where ${isSoon}) union all`);
  }
  return sql`
    with ${named.reduce((all, one) => sql`${all}, ${one}`)}
    ${branches.reduce((all, one) => sql`${all} ${one}`)}
    (select w.id, w.at from (${walk}) w where ${isMeant(narrow.length)})`;
}

/** The parts of a filter that an index answers, what is likely to be fewest first. */
export function narrowParts(sql: Sql, filter: ExecutionFilter, order: ListOrder, flows: Part): Narrow[] {
  const { idempotencyKey, parent, redriven, metadata, within, ids, version, errorPattern } = filter;
  const { createdAfter, createdBefore, closedAfter, closedBefore } = filter;
  const parts: Narrow[] = [];
  const held = (condition: Part, isDear = false) =>
    parts.push({ ids: sql`select e.id from flowledger.executions e where ${condition}`, most: scattered, isDear });
  if (idempotencyKey !== undefined)
    parts.push({
      ids: sql`
        select k.id from ${flows} f(flow) cross join lateral (
          select e.id from flowledger.executions e where (e.flow, e.idempotency_key) = (f.flow, ${idempotencyKey}) offset 0) k`,
      most: scattered,
    });
  if (parent !== undefined) held(sql`e.parent_id = ${parent}::uuid`);
  if (redriven === true)
    parts.push({
      ids: sql`
        select (l.payload -> 'forkedFrom' ->> 'id')::uuid as id from flowledger.ledger l
        where l.seq = 1 and l.type = 'execution.created' and l.payload ? 'forkedFrom'`,
      most: scattered,
    });
  if (version !== undefined && version.length >= versionPart) {
    const isClosed = order === "lastClosed" || closedAfter !== undefined || closedBefore !== undefined;
    const openOnes = list(isClosed ? [] : openStatuses.filter((one) => filter.status?.includes(one) ?? true));
    // A range, sorted: a plan that serves all versions would else look for the first of them in the table.
    parts.push({
      ids: sql`
        (select e.id from flowledger.executions e
        where e.closed_version between left(${version}, 4) and left(${version}, 4) and starts_with(e.fingerprint, ${version})
        order by e.closed_version limit ${scattered + 1}::int)
        union all
        select o.id from ${flows} f(flow) cross join unnest(${openOnes}::text::text[]) s(status) cross join lateral (
          select e.id from flowledger.executions e
          where e.flow = f.flow and e.status = s.status and starts_with(e.fingerprint, ${version}) offset 0) o`,
      most: scattered,
    });
  }
  if (errorPattern !== undefined && hasPieces(errorPattern))
    held(
      sql`e.error is not null and (flowledger.error_pieces(e.error) @> flowledger.pattern_pieces(${errorPattern})
        or flowledger.error_pieces(e.error) @> array[''])`,
      true,
    );
  for (const one of [metadata, within])
    if (one !== undefined && Object.keys(one).length > 0)
      held(sql`e.metadata is not null and e.metadata @> ${JSON.stringify(one)}::text::jsonb`, true);
  if (ids !== undefined) held(sql`e.id between ${ids[0]}::uuid and ${ids[1]}::uuid`);
  const range = (column: Part, after: Date | undefined, before: Date | undefined) => {
    if (after === undefined && before === undefined) return;
    const [from, until] = [after?.toISOString() ?? "-infinity", before?.toISOString() ?? "infinity"];
    const condition = sql`${column} > ${from}::text::timestamptz and ${column} < ${until}::text::timestamptz`;
    parts.push({
      ids: sql`select e.id from flowledger.executions e where ${condition}`,
      rows: sql`select e.* from flowledger.executions e where ${condition}`,
      most: together,
    });
  };
  // A list sorted by a time uses the index of that time.
  if (order !== "lastClosed") range(sql`e.closed_at`, closedAfter, closedBefore);
  if (order === "lastClosed") range(sql`e.created_at`, createdAfter, createdBefore);
  return parts;
}

/** Whether a pattern of `ilike` has three characters side by side. */
function hasPieces(pattern: string): boolean {
  return pattern.split("%").some((text) => text.replace(/\\(.)/gu, "$1").length >= 3);
}
