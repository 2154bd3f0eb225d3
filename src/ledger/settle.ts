/** What comes of itself, by the clock or as nothing is left to do: how an execution ends, and when it next has something to do. Pure. */
import type { SerializedError } from "../base/errors.ts";
import { isCleaning } from "./cleanup.ts";
import { earlyEvents } from "./early-events.ts";
import type { EventOf, LedgerEvent, Outcome } from "./event.ts";
import { nextFollowUp, notices } from "./handling.ts";
import { nextParkedToFail, parkedToFail } from "./parking.ts";
import { comingDue, earlyAnswers } from "./pauses.ts";
import { isDrained, pendingInterrupts, type ExecutionState } from "./state.ts";
import type { Interrupt } from "./parts.ts";
import { heldUntil, isPaused } from "./waits.ts";

/** How an execution ends, and whether that holds only as long as nothing else comes in: always for the close itself. */
export interface Settlement {
  readonly events: LedgerEvent[];
  readonly isConditional: boolean;
}

/**
 * What is due once there is nothing left to start: the close, or the commit before it that expires what still waits.
 *
 * @param running attempts that have not ended
 * @param isGraceOver a cancel no longer waits for them
 */
export function settle(state: ExecutionState, now: number, running: number, isGraceOver: boolean): Settlement | null {
  if (state.closed) return null;
  if (state.failing) return ending(state, "failed", state.failing.reason, state.failing.error, false);
  if (isCleaning(state)) return null;
  if (state.cancelling && (running === 0 || isGraceOver))
    return ending(state, "cancelled", state.cancelling.reason, null, false);
  const pending = pendingInterrupts(state);
  const answers = earlyAnswers(state, pending);
  const isAnswered = ({ id }: Interrupt) =>
    answers.some((event) => event.type === "interrupt.resumed" && event.id === id);
  const asking = answers.length === 0 ? pending : pending.filter((interrupt) => !isAnswered(interrupt));
  const taken = [...answers, ...earlyEvents(state, asking)];
  if (taken.length > 0) return { events: taken, isConditional: true };
  if (state.paused) return unpausing(state.paused, now);
  if (state.notices) return { events: notices(state), isConditional: false };
  // Only if nobody retried it in the same moment.
  const given = parkedToFail(state, now);
  if (given.length > 0) return { events: given, isConditional: true };
  const due = comingDue(pending, now);
  // Only if no answer came in: one that was accepted counts.
  if (due.length > 0) return { events: due, isConditional: true };
  if (state.closing?.cancelsInterrupts && pending.length > 0)
    return { events: cancelled(pending, state.closing.reason), isConditional: true };
  if (running > 0 || !isDrained(state) || pending.length > 0) return null;
  if (state.closing) {
    const { at } = state.closing;
    const wasCancelled =
      [...state.interrupts.values()].some(({ status, isSkipped }) => status === "cancelled" && !isSkipped) ||
      // A sub-flow that waited and was cancelled for the close; one that was cancelled before is nobody's loss.
      [...state.children.values()].some(({ cancelledAt }) => cancelledAt !== null && cancelledAt >= at);
    return ending(state, wasCancelled ? "cancelled" : "completed", state.closing.reason, null, true);
  }
  const closeAt = autoCloseAt(state);
  if (closeAt === null || closeAt > now) return null;
  const reason = state.parent?.visibleIn ? "sub_flow_completed" : "auto_close_idle_timeout";
  return ending(state, "completed", reason, null, true);
}

/** Paused until a time that is over: it goes on, unless somebody paused it anew in the same moment. */
function unpausing({ until }: NonNullable<ExecutionState["paused"]>, now: number): Settlement | null {
  if (until === null || until > now) return null;
  return { events: [{ type: "execution.unpaused", actor: "timer", reason: "its time was over" }], isConditional: true };
}

/** Whether it ends now, whatever it stands at: cancelled, failed, timed out, or closing with nothing left to run. */
export function endsByItself(state: ExecutionState, now: number): boolean {
  const deadline = deadlineOf(state);
  if (state.cancelling || state.failing || (deadline !== null && deadline <= now)) return true;
  return (
    settle(state, now, 0, false)?.events.at(-1)?.type === "execution.closed" ||
    (state.closing !== null && isDrained(state))
  );
}

/**
 * What still waits is ended in a commit of its own, because the close snapshot tells when that was and only the
 * database knows the time of a commit. That commit takes nothing new from outside any more, so a flood puts off no end.
 *
 * @param isConditional whether what still waits may yet be answered
 */
function ending(
  state: ExecutionState,
  outcome: Outcome,
  reason: string,
  error: SerializedError | null,
  isConditional: boolean,
): Settlement {
  const waiting = cancelled(pendingInterrupts(state), reason);
  for (const { id, status } of state.interventions)
    if (status === "pending") waiting.push({ type: "intervention.expired", id });
  const isFlooded = !isConditional && state.firstClaim !== null && state.inbox.length > 0;
  if (!state.closing && (waiting.length > 0 || isFlooded))
    waiting.push({ type: "execution.sealed", close: true, reason });
  if (waiting.length > 0) return { events: waiting, isConditional };
  const closed: EventOf<"execution.closed"> = { type: "execution.closed", outcome, reason };
  if (error) closed.error = error;
  // The close snapshot has to hold what came in beside it.
  return { events: [closed], isConditional: true };
}

function cancelled(interrupts: readonly Interrupt[], reason: string): LedgerEvent[] {
  return interrupts.map(({ id }) => ({ type: "interrupt.cancelled", id, reason }));
}

/** When something of the execution as a whole falls due, later than `after`: milliseconds since 1970, null when never. */
export function nextTimer(state: ExecutionState, after = -Infinity): number | null {
  let next = Infinity;
  const consider = (due: number | null) => {
    if (due !== null && due > after && due < next) next = due;
  };
  if (isPaused(state)) {
    consider(state.paused?.until ?? null);
    consider(deadlineOf(state));
    return next === Infinity ? null : next;
  }
  for (const interrupt of state.interrupts.values()) {
    if (interrupt.status !== "pending") continue;
    consider(interrupt.expiresAt);
    consider(nextFollowUp(interrupt));
  }
  consider(nextParkedToFail(state));
  consider(heldUntil(state));
  consider(deadlineOf(state));
  consider(autoCloseAt(state));
  return next === Infinity ? null : next;
}

/** When the timeout of the execution is over: counted from the first time that a worker took it, and not before its start was due. */
export function deadlineOf({ settings, startedAt, dueAt, firstClaim }: ExecutionState): number | null {
  if (settings.timeoutMs === null || startedAt === null || firstClaim === null) return null;
  return Math.max(startedAt, dueAt ?? startedAt, firstClaim.at) + settings.timeoutMs;
}

export function autoCloseAt(state: ExecutionState): number | null {
  const { autoClose, autoCloseMs } = state.settings;
  if (!autoClose || autoCloseMs === null || !state.hasBegun) return null;
  if (!isDrained(state) || pendingInterrupts(state).length > 0) return null;
  // With no idle time to wait for, the commit that drains the execution also closes it; but events alone leave time for the start.
  if (autoCloseMs === 0) return state.startedAt === null ? null : 0;
  // A start that waits, for its time, a slot or a worker, is not idle.
  const begunAt = state.startedAt === null ? 0 : Math.max(state.dueAt ?? 0, state.firstClaim?.at ?? 0);
  return Math.max(state.activeAt, begunAt) + autoCloseMs;
}
