/** The items of distributed collections: executions whose ids follow from one base, read and told to stop by range. */
import { z } from "zod";
import { ExecutionId, Outcome } from "../ledger/event.ts";
import { SerializedError } from "../base/errors.ts";
import { repeatWrites, type StateWrite } from "../ledger/state.ts";
import type { Json, JsonObject } from "../base/json.ts";
import { parseEvents } from "./append.ts";
import type { CloseHeader } from "./append.ts";
import type { Sql } from "./connection.ts";
import { foldFrom } from "./queries.ts";

/** Hex digits at the end of an id that hold the item's index. */
const indexDigits = 8;

/** The id of an item: the base with the index in its last eight digits. The base is the id of item 0. */
export function itemId(base: ExecutionId, index: number): ExecutionId {
  return `${familyOf(base)}${index.toString(16).padStart(indexDigits, "0")}` as ExecutionId;
}

export function indexOf(id: string): number {
  return Number.parseInt(id.slice(-indexDigits), 16);
}

/** What the ids of all items of one collection begin with. */
export function familyOf(id: string): string {
  return id.slice(0, -indexDigits);
}

/** Which items of a collection exist, from an index on, and which of them have closed. */
export async function surveyItems(
  sql: Sql,
  base: ExecutionId,
  first: number,
  size: number,
): Promise<{ index: number; isClosed: boolean }[]> {
  const rows = await sql<{ id: string; closed: boolean }[]>`
    select e.id, e.closed_at is not null as closed from flowledger.executions e
    where e.id between ${itemId(base, first)}::uuid and ${itemId(base, size - 1)}::uuid`;
  return rows.map(({ id, closed }) => ({ index: indexOf(id), isClosed: closed }));
}

const Ending = z.object({
  id: ExecutionId,
  outcome: Outcome,
  reason: z.string(),
  error: SerializedError.nullable(),
  snapshot: z.record(z.string(), z.custom<Json>()),
});

/** How those of these executions ended that have closed. */
export async function readEndings(sql: Sql, ids: readonly ExecutionId[]): Promise<Map<ExecutionId, CloseHeader>> {
  const rows = await sql`
    select e.id, e.outcome, e.close_reason as reason, e.error, e.close_snapshot as snapshot
    from unnest(${list(ids)}::text::uuid[]) a(id) join flowledger.executions e using (id) where e.closed_at is not null`;
  return new Map(rows.map((row) => Ending.parse(row)).map(({ id, ...ending }) => [id, ending]));
}

/** What items wrote to application state: item by item, each in its ledger's order. */
export async function readWrites(sql: Sql, ids: readonly ExecutionId[]): Promise<StateWrite[]> {
  const rows = await sql<{ type: string; key: string; value: Json }[]>`
    select l.type, l.payload ->> 'key' as key, l.payload -> 'value' as value
    from unnest(${list(ids)}::text::uuid[]) a(id) join flowledger.ledger l on l.execution_id = a.id
    where l.type in ('state.set', 'state.appended', 'state.deleted')
    order by l.execution_id, l.seq`;
  return rows.map(({ type, key, value }) => ({ effect: effects[type] ?? "delete", key, value }));
}

const effects: Readonly<Record<string, StateWrite["effect"]>> = { "state.set": "set", "state.appended": "append" };

/** Application state as it was when a collection was distributed: what its items read. */
export async function readStateAtFanOut(sql: Sql, id: ExecutionId, dispatch: number): Promise<JsonObject> {
  const [row] = await sql<{ events: unknown }[]>`
    select flowledger.events(l.execution_id, 0, l.seq) as events from flowledger.ledger l
    where l.execution_id = ${id}::uuid and l.type = 'items.started' and l.dispatch = ${dispatch}::int`;
  const { values, item, writes = [], parent } = foldFrom(null, parseEvents(row?.events ?? []));
  if (!item?.readsState || !parent) return values;
  return repeatWrites(await readStateAtFanOut(sql, parent.id, parent.dispatch), writes);
}

/** Asks for the end of the items of a collection that are open, a page at a time; calls back with their ids. */
export async function cancelItems(
  sql: Sql,
  base: ExecutionId,
  size: number,
  reason: string,
  onAsked: (ids: readonly ExecutionId[]) => void,
): Promise<void> {
  const last = itemId(base, size - 1);
  for (let from = base; ;) {
    const rows = await sql<{ id: ExecutionId }[]>`
      select id from flowledger.cancel_items(${from}::uuid, ${last}::uuid, ${reason}, ${pageSize}::int) as id`;
    onAsked(rows.map(({ id }) => id));
    const end = rows.at(-1);
    if (!end || rows.length < pageSize || end.id === last) return;
    from = itemId(base, indexOf(end.id) + 1);
  }
}

const pageSize = 500;

/** Executions that are parked and have something to look at. */
export async function wakeParked(sql: Sql, ids: readonly ExecutionId[]): Promise<void> {
  await sql`select flowledger.wake(${list(ids)}::text::uuid[])`;
}

function list(ids: readonly string[]): string {
  return `{${ids.join(",")}}`;
}
