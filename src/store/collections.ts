/** The items of distributed collections: executions whose ids follow from one base, read and told to stop by range. */
import { z } from "zod";
import { JsonValue } from "../base/json-value.ts";
import { SerializedError } from "../base/serialized-error.ts";
import type { Json, JsonObject } from "../base/json.ts";
import { foldFrom, parseEvents } from "../ledger/codec.ts";
import { ExecutionId, Outcome } from "../ledger/event.ts";
import { indexOf, itemId } from "../ledger/items.ts";
import { repeatWrites } from "../ledger/parts.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { StateWrite } from "../ledger/parts.ts";
import type { CloseHeader } from "./append.ts";
import type { Database, Sql } from "./client.ts";
import { list } from "./columns.ts";

export interface Collections {
  /** Which items of a collection exist, from an index on, and which of them have closed. */
  survey(base: ExecutionId, first: number, size: number): Promise<{ index: number; isClosed: boolean }[]>;
  /** How those of these executions ended that have closed. */
  endings(ids: readonly ExecutionId[]): Promise<Map<ExecutionId, CloseHeader>>;
  /** What those of these items wrote to application state that completed: item by item, each in its ledger's order. */
  writes(ids: readonly ExecutionId[]): Promise<StateWrite[]>;
  /** What the items of a collection read of their parent. */
  parentAtFanOut(id: ExecutionId, dispatch: number): Promise<ParentOfItems>;
  /** Asks for the end of the items of a collection that are open, a page at a time; calls back with their ids. */
  cancel(
    base: ExecutionId,
    size: number,
    reason: string,
    onAsked: (ids: readonly ExecutionId[]) => void,
  ): Promise<void>;
}

/** An execution as it was when it distributed a collection. */
export interface ParentOfItems {
  readonly values: JsonObject;
  readonly startInput: ExecutionState["startInput"];
}

const Ending = z.object({
  id: ExecutionId,
  outcome: Outcome,
  reason: z.string(),
  error: SerializedError.nullable(),
  snapshot: z.record(z.string(), JsonValue),
});

const pageSize = 500;

export function collectionsOf({ sql }: Pick<Database, "sql">): Collections {
  return {
    async survey(base, first, size) {
      const rows = await sql<{ id: string; closed: boolean }[]>`
        select e.id, e.closed_at is not null as closed from flowledger.executions e
        where e.id between ${itemId(base, first)}::uuid and ${itemId(base, size - 1)}::uuid`;
      return rows.map(({ id, closed }) => ({ index: indexOf(id), isClosed: closed }));
    },
    async endings(ids) {
      const rows = await sql`
        select e.id, e.outcome, e.close_reason as reason, e.error, e.close_snapshot as snapshot
        from unnest(${list(ids)}::text::uuid[]) a(id) join flowledger.executions e using (id) where e.closed_at is not null`;
      return new Map(rows.map((row) => Ending.parse(row)).map(({ id, ...ending }) => [id, ending]));
    },
    async writes(ids) {
      const rows = await sql<{ type: string; key: string; value: Json }[]>`
        select l.type, l.payload ->> 'key' as key, l.payload -> 'value' as value
        from unnest(${list(ids)}::text::uuid[]) a(id) join flowledger.executions e on e.id = a.id join flowledger.ledger l on l.execution_id = a.id
        where l.type in ('state.set', 'state.appended', 'state.deleted') and e.outcome = 'completed'
        order by right(l.execution_id::text, 8), l.seq`;
      return rows.map(({ type, key, value }) => ({ effect: effects[type] ?? "delete", key, value }));
    },
    parentAtFanOut: (id, dispatch) => parentAtFanOut(sql, id, dispatch),
    async cancel(base, size, reason, onAsked) {
      const last = itemId(base, size - 1);
      for (let from = base; ;) {
        const rows = await sql<{ id: ExecutionId }[]>`
          select id from flowledger.cancel_items(${from}::uuid, ${last}::uuid, ${reason}, ${pageSize}::int) as id`;
        onAsked(rows.map(({ id }) => id));
        const end = rows.at(-1);
        if (!end || rows.length < pageSize || end.id === last) return;
        from = itemId(base, indexOf(end.id) + 1);
      }
    },
  };
}

const effects: Readonly<Record<string, StateWrite["effect"]>> = { "state.set": "set", "state.appended": "append" };

async function parentAtFanOut(sql: Sql, id: ExecutionId, dispatch: number): Promise<ParentOfItems> {
  const [row] = await sql<{ events: unknown }[]>`
    select flowledger.events(l.execution_id, 0, l.seq) as events from flowledger.ledger l
    where l.execution_id = ${id}::uuid and l.type = 'items.started' and l.dispatch = ${dispatch}::int`;
  const { values, startInput, item, writes = [], parent } = foldFrom(null, parseEvents(row?.events ?? []));
  if (!item || !parent) return { values, startInput };
  const above = await parentAtFanOut(sql, parent.id, parent.dispatch);
  return { ...above, values: item.readsState ? repeatWrites(above.values, writes) : values };
}
