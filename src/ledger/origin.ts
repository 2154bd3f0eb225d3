/** Where an execution comes from, folded: it was created, or copied from another one. */
import { copyJson } from "../base/json.ts";
import { defaultSettings, type EventOf } from "./event.ts";
import { nextFollowUp } from "./handling.ts";
import { pendingInterrupts, type ExecutionState } from "./state.ts";

export function created(state: ExecutionState, event: EventOf<"execution.created">, at: number): ExecutionState {
  state.flow = event.flow;
  state.fingerprint = event.fingerprint ?? null;
  state.settings = event.settings ? { ...defaultSettings, ...defined(event.settings) } : defaultSettings;
  state.metadata = event.metadata ?? {};
  state.resourceKeys = event.resourceKeys ?? [];
  state.parent = event.parent ?? null;
  state.loadedFrom = event.loadedFrom ?? null;
  state.forkedFrom = event.forkedFrom?.id ?? null;
  if (event.item) {
    state.item = { ...event.item, readsState: event.item.readsState ?? false };
    state.writes = [];
  }
  for (const key in event.state) state.values[key] = copyJson(event.state[key] ?? null);
  state.trace = event.traceparent ?? null;
  state.createdAt = at;
  state.dueAt = event.dueAt ?? null;
  return state;
}

/**
 * From here on the timeout of the execution counts anew, what is to be discarded by a time that is over is not, a pause whose time is
 * over asks again, and what is parked waits as long again. Sleeps and retries keep their time.
 */
export function copied(state: ExecutionState, at: number): ExecutionState {
  state.firstClaim = null;
  // The copy has a trace of its own, with a link to the original's.
  state.lastSpan ??= state.trace;
  state.trace = null;
  const { discardAt } = state.settings;
  if (discardAt !== null && discardAt <= at) state.settings = { ...state.settings, discardAt: null };
  for (const interrupt of pendingInterrupts(state)) {
    const { expiresAt, expiresInMs } = interrupt;
    if (Math.min(expiresAt ?? Infinity, nextFollowUp(interrupt) ?? Infinity) > at) continue;
    interrupt.createdAt = at;
    if (expiresInMs !== null) interrupt.expiresAt = at + expiresInMs;
  }
  for (const found of state.parked.values())
    if (found.until !== null && found.until <= at) found.until = at + (found.until - found.at);
  return state;
}

function defined<T extends object>(partial: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  const result = { ...partial };
  for (const key in result) if (result[key] === undefined) delete result[key];
  return result as { [K in keyof T]: Exclude<T[K], undefined> };
}
