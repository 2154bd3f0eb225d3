/** Parents and children: who hears of whose end, and the sub-flows that an execution began. */
import type { SerializedError } from "../base/errors.ts";
import type { Json, JsonObject } from "../base/json.ts";
import type { ExecutionId, Outcome } from "../ledger/event.ts";
import type { Database } from "./client.ts";
import { list } from "./columns.ts";

/** A sub-flow, as the ledger of its parent and its own header have it. */
export interface SubFlowRow {
  readonly id: ExecutionId;
  readonly flow: string;
  readonly node: string;
  readonly outcome: Outcome | null;
  readonly isWaiting: boolean;
  readonly input: Json;
  readonly resourceKeys: readonly string[] | null;
  readonly snapshot: JsonObject | null;
  readonly error: SerializedError | null;
  readonly cancelReason: string | null;
  readonly isCancelled: boolean;
  readonly createdAt: number;
  readonly startedAt: number | null;
  readonly endedAt: number | null;
  readonly interrupts: readonly Json[];
}

export interface Children {
  /** Tells the parents and children of closed executions; who is told already is not told again. */
  propagateClose(ids: readonly ExecutionId[]): Promise<void>;
  /** The same for all that should have been told so long ago. */
  propagateOverdue(sinceMs: number): Promise<void>;
  /** Asks for the end of children of its own that are there and open. Gives those that are not there. */
  cancel(parent: ExecutionId, ids: readonly ExecutionId[], reason: string): Promise<ExecutionId[]>;
  /** The sub-flows of an execution, in the order in which they began. */
  listSubFlows(id: ExecutionId): Promise<SubFlowRow[]>;
}

export function childrenOf({ sql }: Pick<Database, "sql">): Children {
  return {
    async propagateClose(ids) {
      await sql`select flowledger.propagate_close(${list(ids)}::text::uuid[])`;
    },
    async propagateOverdue(sinceMs) {
      await sql`select flowledger.propagate_close('{}', ${sinceMs}::float8)`;
    },
    async cancel(parent, ids, reason) {
      const rows = await sql<{ id: ExecutionId; isAsked: boolean | null }[]>`
        select x.id, case
            when h.parent_id = ${parent}::uuid then flowledger.request_cancel(h.id, ${reason}, 'parent', true)
            when h.id is not null then false
          end as "isAsked"
        from unnest(${list(ids)}::text::uuid[]) x(id) left join flowledger.executions h on h.id = x.id order by x.id`;
      return rows.flatMap(({ id, isAsked }) => (isAsked === null ? [id] : []));
    },
    listSubFlows: (id) => sql<SubFlowRow[]>`
      with told as materialized (
        select l.payload ->> 'child' as child,
          max(l.chunk) filter (where l.type = 'child.started') as node,
          max(l.payload ->> 'reason') filter (where l.type = 'child.cancelled') as reason,
          bool_or(l.type = 'child.cancelled') as cancelled
        from flowledger.ledger l
        where l.execution_id = ${id}::uuid and l.type in ('child.started', 'child.cancelled')
        group by l.payload ->> 'child'
      )
      select c.id, c.flow, t.node, c.outcome, c.pending_interrupts > 0 as "isWaiting", s.payload -> 'input' as input,
        b.payload -> 'resourceKeys' as "resourceKeys", c.close_snapshot as snapshot, c.error,
        coalesce(t.reason, case when c.outcome = 'cancelled' then c.close_reason end) as "cancelReason", t.cancelled as "isCancelled",
        flowledger.to_ms(c.created_at) as "createdAt", flowledger.to_ms(c.started_at) as "startedAt", flowledger.to_ms(c.closed_at) as "endedAt",
        coalesce((select json_agg(flowledger.projected_record(${id}::uuid, p.owner_id, p.local_id) order by p.created_at)
          from flowledger.pending_on(c.id) p), '[]') as interrupts
      from told t
      join flowledger.executions c on c.id = t.child::uuid and c.parent_id = ${id}::uuid
      join flowledger.ledger b on b.execution_id = c.id and b.seq = 1 and b.payload -> 'parent' ? 'visibleIn'
      left join flowledger.ledger s on s.execution_id = c.id and s.seq = 2 and s.type = 'execution.started'
      order by c.created_at, c.id`,
  };
}
