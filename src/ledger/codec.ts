/** Ledger events as rows, and the fold from them: what the database gives, and what it is given. */
import { z } from "zod";
import type { JsonObject } from "../base/json.ts";
import { LedgerEvent } from "./event.ts";
import type { LedgerRow, Recorded } from "./event.ts";
import { evolve } from "./evolve.ts";
import { initialState, thawState } from "./state.ts";
import type { ExecutionState } from "./state.ts";

/** How an event travels to the database: the columns worth a column, and the rest. */
export interface EventColumns {
  readonly type: string;
  readonly dispatch: number | null;
  readonly chunk: string | null;
  readonly actor: string | null;
  readonly payload: Readonly<Record<string, unknown>> | null;
}

export function encode(event: LedgerEvent): EventColumns {
  const {
    type,
    dispatch = null,
    chunk = null,
    actor = null,
    ...rest
  } = event as LedgerEvent & { dispatch?: number; chunk?: string; actor?: string };
  let payload: EventColumns["payload"] = null;
  for (const _ in rest) {
    payload = rest;
    break;
  }
  return { type, dispatch, chunk, actor, payload };
}

/** @throws {z.ZodError} for an event this version does not know: the execution stops visibly instead of guessing */
export function decode(row: LedgerRow): Recorded {
  const fields: Record<string, unknown> = { ...row.payload, type: row.type };
  if (row.dispatch !== null) fields["dispatch"] = row.dispatch;
  if (row.chunk !== null) fields["chunk"] = row.chunk;
  if (row.actor !== null) fields["actor"] = row.actor;
  return { seq: row.seq, epoch: row.epoch, at: row.at, event: LedgerEvent.parse(fields) };
}

type EventTuple = readonly [
  LedgerRow["seq"],
  LedgerRow["epoch"],
  LedgerRow["at"],
  LedgerRow["type"],
  LedgerRow["dispatch"],
  LedgerRow["chunk"],
  LedgerRow["actor"],
  LedgerRow["payload"],
];
// A load has ten thousand tuples. Columns have the types of their table, and `decode` checks the payload.
const EventTuples = z.array(z.custom<EventTuple>(Array.isArray));

/** What `flowledger.events` gives: [seq, epoch, at, type, dispatch, chunk, actor, payload]. */
export function parseEvents(rows: unknown): Recorded[] {
  return EventTuples.parse(rows).map(([seq, epoch, at, type, dispatch, chunk, actor, payload]) =>
    decode({ seq, epoch, at, type, dispatch, chunk, actor, payload }),
  );
}

/** Fold from a snapshot, or from the beginning. */
export function foldFrom(snapshot: JsonObject | null, events: readonly Recorded[]): ExecutionState {
  let state = snapshot ? thawState(snapshot) : initialState();
  for (const event of events) state = evolve(state, event);
  return state;
}
