/** Emits that somebody waits for: what holds a group open, and what follows when nothing does any more. */
import type { ExecutionState } from "./state.ts";

export function hold(state: ExecutionState, group: number | null): void {
  const found = group === null ? undefined : state.groups.get(group);
  if (found) found.open += 1;
}

export function release(state: ExecutionState, group: number | null): void {
  const found = group === null ? undefined : state.groups.get(group);
  if (!found || group === null) return;
  found.open -= 1;
  if (found.open === 0) endGroup(state, group);
}

export function endGroup(state: ExecutionState, group: number): void {
  const ended = state.groups.get(group);
  state.groups.delete(group);
  if (ended) wake(state, ended.by);
  release(state, ended?.parent ?? null);
}

/** What a dispatch waited for has come. What came before it failed, and is folded behind that, woke the attempt that failed. */
export function wake(state: ExecutionState, id: number): void {
  const dispatch = state.dispatches.get(id);
  if (dispatch && state.seq > dispatch.failedSeq) dispatch.wokenIn = state.epoch;
}
