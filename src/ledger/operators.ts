/** What operators did to an execution, folded. They ask from outside, so the owner may have folded later events before it hears. */
import type { EventOf } from "./event.ts";
import { hold, wake } from "./groups.ts";
import type { ExecutionState } from "./state.ts";
import type { Dispatch, JournalEntry } from "./parts.ts";

/** The last attempt has failed: nothing runs until somebody says how it goes on. */
export function parked(state: ExecutionState, event: EventOf<"chunk.parked">, at: number): void {
  const dispatch = state.dispatches.get(event.dispatch);
  if (!dispatch) throw new Error(`chunk.parked for dispatch ${event.dispatch}, which is not open at seq ${state.seq}`);
  dispatch.failures = event.attempt;
  dispatch.lastError = event.error;
  dispatch.notBefore = null;
  dispatch.failedAt = at;
  dispatch.failedSeq = state.seq;
  dispatch.wokenIn = 0;
  state.parked.set(dispatch.id, { at, until: event.failInMs === undefined ? null : at + event.failInMs });
}

/** The database's time of it: see `applyCommitTime`. */
export function stampParked(state: ExecutionState, event: EventOf<"chunk.parked">, at: number): void {
  const dispatch = state.dispatches.get(event.dispatch);
  const found = state.parked.get(event.dispatch);
  if (!dispatch || !found) return;
  dispatch.failedAt = at;
  found.at = at;
  found.until = event.failInMs === undefined ? null : at + event.failInMs;
}

/** It runs again as if for the first time, but for what its attempts recorded. */
export function retried(state: ExecutionState, event: EventOf<"chunk.retried">, at: number): void {
  const dispatch = state.dispatches.get(event.dispatch);
  if (!dispatch || !state.parked.delete(dispatch.id)) return;
  if (event.input !== undefined) dispatch.input = event.input;
  dispatch.journal = keptOf(state, dispatch);
  dispatch.failures = 0;
  dispatch.lastError = null;
  dispatch.plannedAt = at;
  // The chunk goes on now, whatever its attempts waited for.
  wake(state, dispatch.id);
}

/**
 * What a retry does not do again: everything but steps and calls that failed. One that failed and was got over, since more was
 * recorded behind it and the chunk failed with something else, stays as it was: what came after may depend on it.
 */
function keptOf(state: ExecutionState, { journal, lastError }: Dispatch): JournalEntry[] {
  const last = Math.max(...journal.filter((entry) => !failureOf(state, entry)).map(({ ordinal }) => ordinal));
  const kept = journal.filter((entry) => {
    const failure = failureOf(state, entry);
    if (!failure) return true;
    return entry.ordinal < last && !lastError?.message.includes(failure.message);
  });
  // With another input or an edited state the chunk may write other values: the recorded ones stand and are no mismatch.
  return kept.map((entry) => {
    if (!("value" in entry) || entry.effect === "step") return entry;
    const { value: _, ...rest } = entry;
    return rest;
  });
}

function failureOf(state: ExecutionState, entry: JournalEntry): { readonly message: string } | null {
  if (entry.effect === "stepFailed") return entry.error;
  const closed = entry.effect === "call" ? state.children.get(entry.child)?.closed : null;
  if (!closed || closed.outcome === "completed") return null;
  return closed.error ?? { message: "" };
}

/** Somebody gave its output: what follows is decided by the owner. It does not run meanwhile. */
export function skipped(state: ExecutionState, event: EventOf<"chunk.skipped">, seq: number): void {
  const interrupt = event.interrupt === undefined ? undefined : state.interrupts.get(event.interrupt);
  const paused = interrupt?.paused ?? null;
  if (interrupt) interrupt.isSkipped = true;
  const dispatch = event.interrupt === undefined ? state.dispatches.get(event.dispatch) : undefined;
  if (dispatch) {
    dispatch.isSkipped = true;
    state.parked.delete(dispatch.id);
  }
  // The next event ends the pause. Until it is routed the skip holds the group.
  hold(state, paused?.group ?? null);
  state.inbox.push({ seq, kind: "skip", dispatch: event.dispatch, paused, value: event.output, raw: false });
}

export function paused(state: ExecutionState, event: EventOf<"execution.paused">): void {
  const since = state.paused ?? { heardUntil: state.claimedBefore, epoch: state.epoch };
  state.paused = { ...since, until: event.until ?? null };
}

/** What came due meanwhile, or was woken, fires now; also what came due before and no worker has heard. */
export function unpaused(state: ExecutionState, at: number): void {
  const since = state.paused;
  state.paused = null;
  if (!since) return;
  for (const { id, wokenIn, failedAt, journaledAt, journal } of state.dispatches.values()) {
    const heardUntil = Math.max(since.heardUntil, failedAt, journaledAt);
    const cameDue = journal.some((entry) => {
      const due = entry.effect === "sleep" ? entry.until : entry.effect === "stepFailed" ? entry.notBefore : null;
      return due !== null && due > heardUntil && due <= at;
    });
    if (cameDue || (wokenIn > 0 && wokenIn >= since.epoch - 1)) wake(state, id);
  }
}
