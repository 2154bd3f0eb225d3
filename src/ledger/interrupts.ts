/** A pause and its end, folded. An answer may have come in beside what the owner had folded already: see `resumed`. */
import { dispatchOf, journal } from "./dispatches.ts";
import { hearingOf } from "./early-events.ts";
import type { EventOf } from "./event.ts";
import { release } from "./groups.ts";
import { handlingOf, tell } from "./handling.ts";
import type { ExecutionState } from "./state.ts";
import type { Interrupt } from "./parts.ts";

export function raised(
  state: ExecutionState,
  event: EventOf<"interrupt.raised">,
  seq: number,
  at: number,
): ExecutionState {
  const { node, input, at: position, scope, group } = dispatchOf(state, event.dispatch);
  const hearing = hearingOf(state, event, scope, seq);
  const handling = handlingOf(event);
  state.interrupts.set(event.id, {
    ...(hearing && { hears: hearing }),
    id: event.id,
    type: event.kind,
    status: "pending",
    payload: event.payload,
    resumeTo: event.resumeTo,
    maxResumes: event.maxResumes,
    resumeCount: event.resumeCount,
    chunk: event.chunk,
    createdAt: at,
    expiresAt: event.expiresInMs === undefined ? null : at + event.expiresInMs,
    expiresInMs: event.expiresInMs ?? null,
    onExpire: event.onExpire ?? null,
    resolvedAt: null,
    value: null,
    requestId: null,
    actor: null,
    response: event.response ?? null,
    ...(handling && { handling }),
    ...(event.tells && { tells: event.tells }),
    ...(event.link && { link: event.link }),
    paused: { node, input, at: position, scope, group },
  });
  if (event.tells) tell(state, { id: event.id, tells: true }, "raised");
  // The interrupt takes over the dispatch's hold on its group.
  state.dispatches.delete(event.dispatch);
  return state;
}

/**
 * An answer from outside was accepted while the interrupt was pending, so it always counts. An event that answers by the
 * way counts only if nothing else had: the two may be folded in either order.
 */
export function resumed(
  state: ExecutionState,
  event: EventOf<"interrupt.resumed">,
  seq: number,
  at: number,
): ExecutionState {
  const interrupt = state.interrupts.get(event.id);
  if (!interrupt) return state;
  if (event.byEvent === undefined || interrupt.status === "pending") {
    tell(state, interrupt, "answered");
    resolve(interrupt, "resumed", at);
    interrupt.value = event.value;
    interrupt.requestId = event.requestId ?? null;
    interrupt.actor = event.actor ?? null;
    if (event.traceparent !== undefined) interrupt.answeredFrom = event.traceparent;
    if (event.of !== undefined) interrupt.answeredBy = event.of;
  }
  if (event.byEvent === undefined)
    state.inbox.push({ seq, kind: "resume", interrupt: event.id, value: event.value, raw: false });
  else endPause(state, interrupt);
  return state;
}

/** What goes on with a value is routed like an answer, and keeps its hold until then. */
export function expired(
  state: ExecutionState,
  event: EventOf<"interrupt.expired">,
  seq: number,
  at: number,
): ExecutionState {
  const interrupt = state.interrupts.get(event.id);
  if (!interrupt) return state;
  tell(state, interrupt, "expired");
  resolve(interrupt, "expired", at);
  if (event.value === undefined) {
    endPause(state, interrupt);
    return state;
  }
  interrupt.value = event.value;
  state.inbox.push({ seq, kind: "resume", interrupt: event.id, value: event.value, raw: false });
  return state;
}

/**
 * What came from outside was accepted while the interrupt was pending, so it always counts. What a chunk withdraws counts only if
 * nothing else had: the two may be folded in either order, so an answer still finds the place where it goes on, and in both nobody
 * waits for what follows.
 */
export function cancelled(state: ExecutionState, event: EventOf<"interrupt.cancelled">, at: number): ExecutionState {
  const { id, dispatch, ordinal = 0 } = event;
  if (dispatch !== undefined) journal(state, dispatch, { ordinal, effect: "withdraw", key: id }, at);
  const interrupt = state.interrupts.get(id);
  if (!interrupt) return state;
  if (dispatch === undefined || interrupt.status === "pending") {
    // A pause that ends with the execution needs no notice.
    if (event.withdrawn || interrupt.isSkipped) tell(state, interrupt, "withdrawn");
    resolve(interrupt, event.withdrawn ? "withdrawn" : "cancelled", at);
    interrupt.actor = event.actor ?? null;
    interrupt.value = null;
    interrupt.requestId = null;
  }
  if (dispatch === undefined) endPause(state, interrupt);
  else if (interrupt.paused) {
    release(state, interrupt.paused.group);
    interrupt.paused = { ...interrupt.paused, group: null };
  }
  return state;
}

/** The pause gives back the hold that its dispatch had on a group. */
export function endPause(state: ExecutionState, interrupt: Interrupt): void {
  if (!interrupt.paused) return;
  release(state, interrupt.paused.group);
  interrupt.paused = null;
}

function resolve(interrupt: Interrupt, status: Interrupt["status"], at: number): void {
  interrupt.status = status;
  interrupt.resolvedAt = at;
}
