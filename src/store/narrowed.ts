/**
 * Which index a list goes by is not left to the planner's guess: where few executions hold one part of a filter, those few are looked
 * through, and where many do, the list is walked in its order and soon has a page.
 */
import type { Sql } from "./client.ts";
import type { ExecutionFilter, ListOrder } from "./list-filter.ts";

type Part = ReturnType<Sql>;

interface Narrow {
  /** Selects ids, by an index of its own. */
  readonly ids: Part;
  /** How many are few. */
  readonly most: number;
  /** Those, as they stand side by side; without it each is looked up. */
  readonly rows?: Part;
}

/** So many are read and sorted in milliseconds, wherever they are in the table. */
const scattered = 2000;
/** What belongs to a range of times stands side by side. */
const together = 40_000;

/** Ids and times of `walk`, or of what is few: `look` says what must hold of those. */
export function narrowed(sql: Sql, narrow: readonly Narrow[], time: Part, look: Part, page: Part, walk: Part): Part {
  if (narrow.length === 0) return walk;
  const few = (index: number) => sql.unsafe(`few_${index}`);
  const isFew = (index: number) => sql`(select count(*) from ${few(index)}) <= ${narrow[index]?.most ?? 0}::int`;
  // The first of them that is few.
  const isMeant = (index: number): Part =>
    narrow.slice(0, index).reduce<Part>((so, _, before) => sql`${so} and not ${isFew(before)}`, sql`true`);
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
  return sql`
    with ${named.reduce((all, one) => sql`${all}, ${one}`)}
    ${branches.reduce((all, one) => sql`${all} ${one}`)}
    (select w.id, w.at from (${walk}) w where ${isMeant(narrow.length)})`;
}

/** The parts of a filter that an index answers, what is likely to be fewest first. */
export function narrowParts(sql: Sql, filter: ExecutionFilter, order: ListOrder, flows: Part): Narrow[] {
  const { idempotencyKey, parent, redriven, metadata, within, ids } = filter;
  const { createdAfter, createdBefore, closedAfter, closedBefore } = filter;
  const parts: Narrow[] = [];
  const held = (condition: Part) =>
    parts.push({ ids: sql`select e.id from flowledger.executions e where ${condition}`, most: scattered });
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
  for (const one of [metadata, within])
    if (one !== undefined && Object.keys(one).length > 0)
      held(sql`e.metadata is not null and e.metadata @> ${JSON.stringify(one)}::text::jsonb`);
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
  // A list that is sorted by a time goes by that.
  if (order !== "lastClosed") range(sql`e.closed_at`, closedAfter, closedBefore);
  if (order === "lastClosed") range(sql`e.created_at`, createdAfter, createdBefore);
  return parts;
}
