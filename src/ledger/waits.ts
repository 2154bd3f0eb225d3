/** What an execution, and a dispatch that nobody runs, wait for: it follows from the ledger alone. */
import type { ExecutionState } from "./state.ts";
import type { Dispatch } from "./parts.ts";

/** Until when what came in waits: a start that is delayed is next, and everything else came behind it. Null when nothing waits for time. */
export function heldUntil({ inbox, dueAt }: ExecutionState): number | null {
  return inbox[0]?.kind === "start" ? dueAt : null;
}

/** An operator paused it, and nothing ends it: what a cancel leaves to do is done all the same. */
export function isPaused({ paused, cancelling }: Pick<ExecutionState, "paused" | "cancelling">): boolean {
  return paused !== null && cancelling === null;
}

/** It runs no more unless an operator says so: it is parked, or its output was given. */
export function isHeld({ parked }: ExecutionState, { id, isSkipped }: Dispatch): boolean {
  return isSkipped === true || parked.has(id);
}

/**
 * When a dispatch may run: 0 for now, a time in milliseconds since 1970, or Infinity when only something else than time wakes it.
 *
 * A parked attempt waits for sleeps and retries of steps, for children and for what its emits led to. It goes on as soon as one of
 * them has come since it was last run: it may have waited for any of them. An attempt that lost its worker did not park; its next
 * owner runs it at once.
 */
export function readyAt(state: ExecutionState, dispatch: Dispatch): number {
  if (isHeld(state, dispatch)) return Infinity;
  const { notBefore, failedAt, journaledAt, wokenIn, journal } = dispatch;
  if (notBefore === null && journal.length === 0) return 0;
  // Timers due before that have been handled: a worker owned the execution, or an attempt recorded something later.
  const heardUntil = Math.max(state.claimedBefore, failedAt, journaledAt);
  let next = Infinity;
  let isWaiting = false;
  const consider = (time: number | null) => {
    if (time === null || time <= heardUntil) return;
    isWaiting = true;
    next = Math.min(next, time);
  };
  consider(notBefore);
  for (const entry of journal) {
    if (entry.effect === "sleep") consider(entry.until);
    else if (entry.effect === "stepFailed") consider(entry.notBefore);
    else if (entry.effect === "emit") isWaiting ||= entry.group !== null && state.groups.has(entry.group);
    else if (entry.effect === "call") isWaiting ||= state.children.get(entry.child)?.closed === null;
  }
  const isWoken = wokenIn > 0 && wokenIn >= state.epoch - 1;
  return Math.max(notBefore ?? 0, isWoken || !isWaiting ? 0 : next);
}
