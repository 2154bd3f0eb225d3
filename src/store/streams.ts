/** The runtime stream's statements: items of many executions in, fenced like every other append; pages for many readers out. */
import type { Json } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Database } from "./client.ts";
import { column, jsonColumn, list } from "./columns.ts";

/** Items of one owner, in order. */
export interface StreamLoad {
  readonly id: ExecutionId;
  readonly epoch: number;
  readonly token: string;
  /** Counts the loads of an epoch from 1, so that one that is sent again is in once. */
  readonly no: number;
  /** Each item as JSON text, with its dispatch. */
  readonly items: readonly LoadItem[];
  /** Dispatches that an earlier owner may have begun. */
  readonly marks: readonly RetryMark[];
  /** Executions whose streams get the items too. */
  readonly visibleIn?: readonly ExecutionId[] | undefined;
  /** Items that the stream may have. @default unlimited */
  readonly maxItems?: number | null;
}

export interface LoadItem {
  readonly dispatch: number;
  readonly text: string;
}

/** What readers get between the items of one attempt and those of the next. */
export interface RetryMark {
  readonly dispatch: number;
  readonly chunk: string;
  readonly attempt: number;
}

/** `stopped`: the stream takes nothing new. `full`: it would have more than `maxItems`. `busy`: send it again. */
export type StreamVerdict = "ok" | "fenced" | "stopped" | "full" | "busy";

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

export interface StreamStore {
  /** One verdict per load; it holds for all items of the load. A load that is in already is "ok". */
  put(loads: readonly StreamLoad[]): Promise<StreamVerdict[]>;
  /** How many milliseconds ago the last items were put that are younger than `withinMs`, at most `limit`; the oldest first. */
  recentPuts(id: ExecutionId, limit: number, withinMs: number): Promise<number[]>;
  /** The next items of each reader, at least one where there is one; null when there is no such execution. */
  pages(asked: readonly PageRequest[]): Promise<(StreamPage | null)[]>;
}

/** A page is what a slow reader holds in memory. */
const maxPageItems = 500;
const maxPageBytes = 262_144;

export function streamsOf({ sql }: Pick<Database, "sql">): StreamStore {
  return {
    async put(loads) {
      const items = loads.flatMap((load, index) => load.items.map((item) => ({ ...item, load: index + 1 })));
      const marks = loads.flatMap((load, index) => load.marks.map((mark) => ({ ...mark, load: index + 1 })));
      const rows = await sql<{ verdict: StreamVerdict }[]>`
        select verdict from flowledger.put_items(
          ${column(loads, ({ id }) => id)}::text::uuid[], ${column(loads, ({ epoch }) => epoch)}::text::int[],
          ${column(loads, ({ token }) => token)}::text::uuid[], ${column(loads, ({ no }) => no)}::text::int[],
          ${column(loads, ({ maxItems }) => maxItems)}::text::bigint[], ${jsonColumn(loads, ({ visibleIn = [] }) => visibleIn)}::text::jsonb,
          ${column(items, ({ load }) => load)}::text::int[], ${column(items, ({ dispatch }) => dispatch)}::text::int[],
          ${`[${items.map(({ text }) => text).join(",")}]`}::text::jsonb,
          ${column(marks, ({ load }) => load)}::text::int[], ${column(marks, ({ dispatch }) => dispatch)}::text::int[],
          ${jsonColumn(marks, ({ chunk, attempt }) => ({ type: "retry", chunk, attempt }))}::text::jsonb)
        order by ord`;
      return rows.map(({ verdict }) => verdict);
    },
    async recentPuts(id, limit, withinMs) {
      const rows = await sql<{ age: number; items: number }[]>`
        select flowledger.to_ms(n.now) - flowledger.to_ms(i.at) as age, count(*)::int as items
        from flowledger.stream_items i, (select flowledger.now() as now) n
        where i.execution_id = ${id}::uuid and i.kind is null
          and i.seq > (select e.stream_seq from flowledger.executions e where e.id = ${id}::uuid) - ${limit}::int
          and i.at > n.now - flowledger.ms(${withinMs}::float8)
        group by i.at, n.now order by i.at`;
      return rows.flatMap(({ age, items }) => Array.from({ length: items }, () => age));
    },
    async pages(asked) {
      const rows = await sql<{ last: number | null; ended: boolean; items: string | null }[]>`
        select e.stream_seq::float8 as last, e.closed_at is not null or e.stream_ended as ended, page.items
        from unnest(${list(asked.map(({ id }) => id))}::text::uuid[], ${list(asked.map(({ after }) => after))}::text::bigint[])
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
    },
  };
}
