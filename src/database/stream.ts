/** The runtime stream's statements: items of many executions in, fenced like every other append; pages for many readers out. */
import type { ExecutionId } from "../ledger/event.ts";
import type { Json } from "../ledger/payload.ts";
import type { Sql } from "./connection.ts";

/** Items of one owner, each as JSON text, in order. */
export interface StreamLoad {
  readonly id: ExecutionId;
  readonly epoch: number;
  readonly token: string;
  readonly items: readonly string[];
}

export type StreamVerdict = "ok" | "fenced" | "busy";

/** One verdict per load; it holds for all items of the load. */
export async function putItems(sql: Sql, loads: readonly StreamLoad[]): Promise<StreamVerdict[]> {
  // One call per load: executions of one claim share their token, so the token would not tell whose verdict it is.
  const rows = await sql<{ verdict: StreamVerdict | null }[]>`
    select p.verdict
    from jsonb_array_elements(${textOf(loads)}::text::jsonb) with ordinality as load(body, ord)
    left join lateral flowledger.put_items(jsonb_build_array(load.body)) p on true
    order by load.ord`;
  return rows.map(({ verdict }) => verdict ?? "busy");
}

/** Like `putItems`, for a load that may be in already, because its answer was lost. @param known items of this epoch before it */
export async function repeatItems(sql: Sql, load: StreamLoad, known: number): Promise<StreamVerdict> {
  const [row] = await sql<[{ verdict: StreamVerdict | null }]>`
    select flowledger.repeat_items(${textOf([load])}::text::jsonb, ${known}::int) as verdict`;
  return row.verdict ?? "busy";
}

function textOf(loads: readonly StreamLoad[]): string {
  const text = loads.map(
    ({ id, epoch, token, items }) =>
      `{"i":"${id}","e":${epoch},"k":"${token}","v":[${items.map((item) => `{"v":${item}}`).join(",")}]}`,
  );
  return `[${text.join(",")}]`;
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
      select string_agg(format('[%s,%s,%s]', w.seq, coalesce(to_json(w.kind)::text, 'null'), w.text), ',' order by w.seq) as items
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
