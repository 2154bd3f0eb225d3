/** The stream's own lane: items of all executions of a process leave in batches, fenced like every other append. */
import type { ExecutionId } from "../ledger/event.ts";
import type { Json } from "../ledger/payload.ts";
import type { Sql } from "./connection.ts";

export interface StreamPut {
  readonly id: ExecutionId;
  readonly epoch: number;
  readonly token: string;
  readonly kind: string | null;
  readonly item: Json;
}

export type StreamVerdict = "ok" | "fenced" | "busy";

/** Items of one execution keep their order; a verdict holds for all items of an execution in the batch. */
export async function putItems(sql: Sql, puts: readonly StreamPut[]): Promise<StreamVerdict[]> {
  const byLease = new Map<string, { i: string; e: number; k: string; v: { k?: string; v: Json }[] }>();
  for (const { id, epoch, token, kind, item } of puts) {
    const group = byLease.get(token) ?? { i: id, e: epoch, k: token, v: [] };
    group.v.push(kind === null ? { v: item } : { k: kind, v: item });
    byLease.set(token, group);
  }
  const rows = await sql<{ token: string; verdict: StreamVerdict }[]>`
    select token, verdict from flowledger.put_items(${JSON.stringify([...byLease.values()])}::text::jsonb)`;
  const verdicts = new Map(rows.map(({ token, verdict }) => [token, verdict]));
  return puts.map(({ token }) => verdicts.get(token) ?? "busy");
}

export interface StreamItem {
  readonly seq: number;
  readonly kind: string | null;
  readonly item: Json;
}

export interface StreamPage {
  readonly items: readonly StreamItem[];
  /** Nothing more will come. */
  readonly isEnded: boolean;
}

/** Items after a cursor, in order; null when there is no such execution. */
export async function readItems(sql: Sql, id: ExecutionId, after: number, limit: number): Promise<StreamPage | null> {
  const [row] = await sql<{ items: [number, string | null, Json][]; stream_seq: number; ended: boolean }[]>`
    select e.stream_seq::float8 as stream_seq,
      e.closed_at is not null or e.stream_ended as ended,
      (select coalesce(json_agg(json_build_array(p.seq, p.kind, p.item) order by p.seq), '[]')
        from (select * from flowledger.stream_items s where s.execution_id = e.id and s.seq > ${after}::bigint order by s.seq limit ${limit}::int) p) as items
    from flowledger.executions e where e.id = ${id}::uuid`;
  if (!row) return null;
  const items = row.items.map(([seq, kind, item]) => ({ seq, kind, item }));
  return { items, isEnded: row.ended && (items.at(-1)?.seq ?? after) >= row.stream_seq };
}
