/** The runtime stream's statements: items of many executions in, fenced like every other append; pages for many readers out. */
import type { ExecutionId } from "../ledger/event.ts";
import type { Json } from "../base/json.ts";
import type { Queries, Sql } from "./connection.ts";

/** Items of one owner, each as JSON text of `{ d: dispatch, v: item }`, in order. */
export interface StreamLoad {
  readonly id: ExecutionId;
  readonly epoch: number;
  readonly token: string;
  /** Counts the loads of an epoch from 1, so that one that is sent again is in once. */
  readonly no: number;
  readonly items: readonly string[];
  /** Dispatches that an earlier owner may have begun. */
  readonly marks: readonly RetryMark[];
  /** Executions whose streams get the items too. */
  readonly visibleIn?: readonly ExecutionId[] | undefined;
  /** Items that the stream may have. @default unlimited */
  readonly maxItems?: number | null;
}

/** What readers get between the items of one attempt and those of the next. */
export interface RetryMark {
  readonly dispatch: number;
  readonly chunk: string;
  readonly attempt: number;
}

/** `stopped`: the stream takes nothing new. `full`: it would have more than `maxItems`. `busy`: send it again. */
export type StreamVerdict = "ok" | "fenced" | "stopped" | "full" | "busy";

/** One verdict per load; it holds for all items of the load. A load that is in already is "ok". */
export async function putItems(sql: Queries, loads: readonly StreamLoad[]): Promise<StreamVerdict[]> {
  const text = loads.map(({ id, epoch, token, no, items, marks, visibleIn, maxItems }) => {
    const markers = marks.map(({ dispatch, ...mark }) => ({ d: dispatch, v: { type: "retry", ...mark } }));
    const field = markers.length === 0 ? "" : `,"m":${JSON.stringify(markers)}`;
    const above = visibleIn ? `,"b":${JSON.stringify(visibleIn)}` : "";
    const limit = maxItems == null ? "" : `,"l":${maxItems}`;
    return `{"i":"${id}","e":${epoch},"k":"${token}","n":${no},"v":[${items.join(",")}]${field}${above}${limit}}`;
  });
  const rows = await sql<{ verdict: StreamVerdict | null }[]>`
    select flowledger.put_load(load.body) as verdict
    from jsonb_array_elements(${`[${text.join(",")}]`}::text::jsonb) with ordinality as load(body, ord)
    order by load.ord`;
  return rows.map(({ verdict }) => verdict ?? "busy");
}

/** How many milliseconds ago the last items were put that are younger than `withinMs`, at most `limit`; the oldest first. */
export async function readRecentPuts(
  sql: Queries,
  id: ExecutionId,
  limit: number,
  withinMs: number,
): Promise<number[]> {
  const rows = await sql<{ age: number; items: number }[]>`
    select (extract(epoch from clock_timestamp() - i.at) * 1000)::float8 as age, count(*)::int as items
    from flowledger.stream_items i
    where i.execution_id = ${id}::uuid and i.kind is null
      and i.seq > (select e.stream_seq from flowledger.executions e where e.id = ${id}::uuid) - ${limit}::int
      and i.at > clock_timestamp() - ${withinMs}::float8 * interval '1 millisecond'
    group by i.at order by i.at`;
  return rows.flatMap(({ age, items }) => Array.from({ length: items }, () => age));
}

/** One item with its place in the stream. System items have a kind. */
export interface StreamRow {
  readonly seq: number;
  readonly kind: string | null;
  readonly item: Json;
}

export interface StreamPage {
  readonly items: readonly StreamRow[];
  /** The last item there is. */
  readonly last: number;
  /** Nothing more will come after these items. */
  readonly isEnded: boolean;
}

export interface PageRequest {
  readonly id: ExecutionId;
  /** The last item the reader has. */
  readonly after: number;
}

/** A page is what a slow reader holds in memory. */
const maxPageItems = 500;
const maxPageBytes = 262_144;

/** The next items of each reader, at least one where there is one; null when there is no such execution. */
export async function readPages(sql: Sql, asked: readonly PageRequest[]): Promise<(StreamPage | null)[]> {
  const rows = await sql<{ last: number | null; ended: boolean; items: string | null }[]>`
    select e.stream_seq::float8 as last, e.closed_at is not null or e.stream_ended as ended, page.items
    from unnest(${`{${asked.map(({ id }) => id).join(",")}}`}::text::uuid[], ${`{${asked.map(({ after }) => after).join(",")}}`}::text::bigint[])
      with ordinality as a(id, after, ord)
    left join flowledger.executions e on e.id = a.id
    left join lateral (
      select string_agg(format('[%s,%s,%s]', w.seq, coalesce(to_json(nullif(w.kind, 'subFlow'))::text, 'null'), w.text), ',' order by w.seq) as items
      from (
        select s.seq, s.kind, s.text, sum(octet_length(s.text)) over (order by s.seq) - octet_length(s.text) as before
        from (
          select i.seq, i.kind, i.item::text as text from flowledger.stream_items i
          where i.execution_id = a.id and i.seq > a.after order by i.seq limit ${maxPageItems}::int
        ) s
      ) w
      where w.before < ${maxPageBytes}::int
    ) page on e.stream_seq > a.after
    order by a.ord`;
  return rows.map(({ last, ended, items }, index) => {
    if (last === null) return null;
    const parsed = JSON.parse(`[${items ?? ""}]`) as [number, string | null, Json][];
    const page = parsed.map(([seq, kind, item]) => ({ seq, kind, item }));
    return { items: page, last, isEnded: ended && (page.at(-1)?.seq ?? asked[index]?.after ?? 0) >= last };
  });
}
