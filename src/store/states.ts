/** Application state as it was, by pages: what is kept of a ledger to begin with, and the writes of a piece of it. */
import { z } from "zod";
import { foldFrom } from "../ledger/codec.ts";
import type { JsonObject } from "../base/json.ts";
import { JsonValue } from "../base/json-value.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { snapshotVersion } from "../ledger/state.ts";
import type { StateWrite } from "../ledger/parts.ts";
import type { Database } from "./client.ts";
import { lookedUp } from "./bounded.ts";
import { pieceOf } from "./pieces.ts";

/** Application state after an event. */
export interface PastState {
  seq: number;
  values: JsonObject;
}

export interface WrittenPage {
  readonly writes: readonly StateWrite[];
  /** The last event that was looked at; null where there is no more. */
  readonly seq: number | null;
}

export interface States {
  /** The kept snapshot where it is not behind the event, else what the execution began with. */
  begin(id: ExecutionId, until: number): Promise<PastState>;
  /** The writes after an event, up to another: one page at most. */
  written(id: ExecutionId, after: number, until: number): Promise<WrittenPage>;
}

const Row = z.object({
  writes: z.array(z.object({ effect: z.enum(["set", "append", "delete"]), key: z.string(), value: JsonValue })),
  seq: z.int().nullable(),
});

export function statesOf({ sql }: Pick<Database, "sql">): States {
  return {
    async begin(id, until) {
      const [row] = await lookedUp(
        sql<{ seq: number | null; kept: JsonObject | null; state: JsonObject | null }[]>`
          select s.seq, s.state as kept, case when s.seq is null then c.payload -> 'state' end as state
          from flowledger.ledger c
          left join flowledger.snapshots s on s.execution_id = c.execution_id and s.version = ${snapshotVersion}::int and s.seq <= ${until}::int
          where c.execution_id = ${id}::uuid and c.seq = 1`,
        "seq",
      );
      if (row?.seq && row.kept) return { seq: row.seq, values: foldFrom(row.kept, []).values };
      return { seq: 0, values: row?.state ?? {} };
    },
    async written(id, after, until) {
      const [row] = await lookedUp(
        sql`
          with page as (${pieceOf(sql, id, after, until)})
          select max(page.seq) as seq, coalesce(jsonb_agg(jsonb_build_object('effect', w.effect, 'key', w.key, 'value', coalesce(w.value, 'null'))
            order by page.seq, w.ord) filter (where w.effect is not null), '[]') as writes
          from page left join lateral (
            select 0::bigint as ord, case page.type when 'state.set' then 'set' when 'state.appended' then 'append' else 'delete' end as effect,
              page.p ->> 'key' as key, page.p -> 'value' as value
            where page.type in ('state.set', 'state.appended', 'state.deleted')
            union all
            select x.ord, x.change ->> 'op', x.change ->> 'path', x.change -> 'value'
            from jsonb_array_elements(page.p -> 'changes') with ordinality x(change, ord) where page.type = 'state.edited') w on true`,
        "seq",
      );
      return Row.parse(row);
    },
  };
}
