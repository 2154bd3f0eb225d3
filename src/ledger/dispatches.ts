/** One planned run of a chunk, folded: how it is planned, what its attempts record, and that it has ended. */
import { foundAt } from "../base/path.ts";
import type { Json } from "../base/json.ts";
import type { Position } from "./move.ts";
import { hold, release } from "./groups.ts";
import type { ExecutionState } from "./state.ts";
import { repeatWrites, type Dispatch, type JournalEntry, type WriteEntry } from "./parts.ts";

export function plan(
  state: ExecutionState,
  place: { node: string; chunk?: string | undefined; group?: number | undefined; resume?: string | undefined },
  id: number,
  input: Json,
  at: Position | null,
  scope: string | null,
  begins: boolean,
  plannedAt: number,
): void {
  const group = place.group ?? null;
  state.dispatches.set(id, {
    id,
    node: place.node,
    chunk: place.chunk ?? null,
    input,
    at,
    scope,
    group,
    begins,
    plannedAt,
    failures: 0,
    lastError: null,
    notBefore: null,
    failedAt: 0,
    failedSeq: 0,
    journaledAt: 0,
    wokenIn: 0,
    resume: place.resume ?? null,
    journal: [],
  });
  hold(state, group);
  if (id >= state.nextId) state.nextId = id + 1;
}

export function dispatchOf(state: ExecutionState, id: number): Dispatch {
  const dispatch = state.dispatches.get(id);
  if (!dispatch) throw new Error(`ledger event for dispatch ${id}, which is not open at seq ${state.seq}`);
  return dispatch;
}

export function finish(state: ExecutionState, id: number): void {
  const dispatch = dispatchOf(state, id);
  state.dispatches.delete(id);
  state.parked.delete(id);
  release(state, dispatch.group);
}

export function journal(state: ExecutionState, id: number, entry: JournalEntry, at: number): void {
  const dispatch = dispatchOf(state, id);
  dispatch.journaledAt = at;
  const entries = dispatch.journal;
  // A step's next attempt replaces what its last one left; everything else happens once.
  const earlier =
    entry.effect === "step" || entry.effect === "stepFailed"
      ? entries.findLastIndex(({ ordinal }) => ordinal === entry.ordinal)
      : -1;
  if (earlier < 0) entries.push(entry);
  else entries[earlier] = entry;
}

export function wrote(state: ExecutionState, dispatch: number, write: WriteEntry, at: number): void {
  const { effect, key, value = null } = write;
  write.found = foundAt(state.values, key, effect === "append");
  repeatWrites(state.values, [{ effect, key, value }]);
  state.writes?.push({ effect, key, value });
  journal(state, dispatch, write, at);
}
