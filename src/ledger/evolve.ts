/** The fold: what an execution is after one more ledger event. Deterministic, without the flow's code, clock or chance. */
import { getPath } from "../base/path.ts";
import { copyJson, type Json } from "../base/json.ts";
import { noticeEvent } from "../flow/contract.ts";
import { cleanupInput, cleanupNode } from "./cleanup.ts";
import { dispatchOf, finish, journal, plan, wrote } from "./dispatches.ts";
import { hears } from "./early-events.ts";
import { edited } from "./edits.ts";
import type { EventOf, LedgerEvent, Recorded } from "./event.ts";
import type { Move } from "./move.ts";
import { endGroup, hold, release, wake } from "./groups.ts";
import { handled, noticeIn, told } from "./handling.ts";
import { cancelled, endPause, expired, raised, resumed } from "./interrupts.ts";
import { interventionConsumed, interventionEnded, interventionRecorded } from "./interventions.ts";
import { itemsClosed, itemsStarted } from "./items.ts";
import { apply, forEachPlanned } from "./apply-moves.ts";
import { parked, paused, retried, skipped, unpaused } from "./operators.ts";
import { copied, created } from "./origin.ts";
import { isItem, type ExecutionState } from "./state.ts";
import type { JournalEntry } from "./parts.ts";
import { nodeOfJoin } from "./version.ts";

/**
 * Folds one recorded event into the state and returns it. The state is handed over: a fold over a large execution
 * stays linear because nothing is copied.
 */
export function evolve(state: ExecutionState, recorded: Recorded): ExecutionState {
  const { event, seq, epoch, at } = recorded;
  state.seq = seq;
  state.epoch = Math.max(state.epoch, epoch);
  if (isActivity(event)) state.activeAt = Math.max(state.activeAt, at);
  if ("turns" in event && event.turns && event.dispatch !== undefined)
    (dispatchOf(state, event.dispatch).turns ??= []).push(...event.turns);
  switch (event.type) {
    case "execution.created":
      return created(state, event, at);
    case "execution.started":
      state.startedAt = at;
      state.hasBegun = true;
      if (!isItem(state)) state.startInput = { value: event.input };
      state.dueAt = event.dueAt ?? state.dueAt;
      state.inbox.push({ seq, kind: "start", value: event.input, raw: event.raw ?? false });
      return state;
    case "execution.rescheduled":
      state.dueAt = event.dueAt;
      return state;
    case "execution.copied":
      return copied(state, at);
    case "execution.claimed":
      state.worker = event.worker;
      state.claimedBefore = state.claimedAt;
      state.claimedAt = at;
      state.firstClaim ??= { epoch, at };
      state.fingerprint = event.fingerprint ?? state.fingerprint;
      if (state.blocked?.epoch !== state.claimedIn) state.blocked = null;
      state.claimedIn = epoch;
      state.trace = event.traceparent ?? state.trace;
      state.lastSpan = event.span ?? state.lastSpan;
      if (event.nodes) renameNodes(state, event.nodes);
      return state;
    case "execution.blocked":
      state.blocked = {
        epoch,
        at: state.blocked?.at ?? at,
        problem: event.problem,
        fingerprints: [...(state.blocked?.fingerprints ?? []), event.fingerprint],
      };
      // Nothing ran in that epoch.
      state.claimedAt = state.claimedBefore;
      return state;
    case "inbox.routed":
      return routed(state, event, at);
    case "chunk.completed":
      apply(state, event.moves, event.output, at);
      finish(state, event.dispatch);
      return state;
    case "chunk.failed": {
      const dispatch = dispatchOf(state, event.dispatch);
      dispatch.failures = event.attempt;
      dispatch.lastError = event.error;
      dispatch.notBefore = event.retryInMs === undefined ? null : at + event.retryInMs;
      dispatch.failedAt = at;
      dispatch.failedSeq = seq;
      dispatch.wokenIn = 0;
      state.parked.delete(event.dispatch);
      if (event.retryInMs === undefined) state.failing ??= { reason: "failed", error: event.error };
      return state;
    }
    case "chunk.parked":
      parked(state, event, at);
      return state;
    case "chunk.retried":
      retried(state, event, at);
      return state;
    case "chunk.skipped":
      skipped(state, event, seq);
      return state;
    case "chunk.interrupted":
      wake(state, event.dispatch);
      return state;
    case "value.routed": {
      const dispatch = dispatchOf(state, event.dispatch);
      apply(state, event.moves, dispatch.input, at);
      finish(state, event.dispatch);
      return state;
    }
    case "state.set":
      wrote(state, event.dispatch, { ordinal: event.ordinal, effect: "set", key: event.key, value: event.value }, at);
      apply(state, event.moves, event.value, at);
      return state;
    case "state.appended":
      wrote(
        state,
        event.dispatch,
        { ordinal: event.ordinal, effect: "append", key: event.key, value: event.value },
        at,
      );
      if (event.moves) apply(state, event.moves, copyJson(getPath(state.values, event.key) ?? null), at);
      return state;
    case "state.deleted":
      wrote(state, event.dispatch, { ordinal: event.ordinal, effect: "delete", key: event.key }, at);
      apply(state, event.moves, null, at);
      return state;
    case "state.edited":
      edited(state, event);
      return state;
    case "event.emitted":
      return emitted(state, event, seq, at);
    case "step.completed":
      journal(
        state,
        event.dispatch,
        { ordinal: event.ordinal, effect: "step", key: event.name, value: event.value },
        at,
      );
      return state;
    case "step.failed":
      journal(
        state,
        event.dispatch,
        {
          ordinal: event.ordinal,
          effect: "stepFailed",
          key: event.name,
          attempt: event.attempt,
          error: event.error,
          notBefore: event.retryInMs === undefined ? null : at + event.retryInMs,
        },
        at,
      );
      return state;
    case "sleep.started":
      journal(
        state,
        event.dispatch,
        {
          ordinal: event.ordinal,
          effect: "sleep",
          key: "",
          until: event.until ?? at + event.forMs,
          value: event.until === undefined ? event.forMs : new Date(event.until).toISOString(),
        },
        at,
      );
      return state;
    case "result.set":
      state.result = { value: event.value };
      journal(state, event.dispatch, { ordinal: event.ordinal, effect: "result", key: "", value: event.value }, at);
      return state;
    case "stream.stopped":
      state.streamStopped = true;
      journal(state, event.dispatch, { ordinal: event.ordinal, effect: "stopStream", key: "" }, at);
      return state;
    case "child.started":
      state.children.set(event.child, {
        dispatch: event.dispatch,
        ordinal: event.ordinal,
        flow: event.flow,
        cancelledAt: null,
        ...(event.leaves && { leaves: true }),
        closed: null,
      });
      journal(
        state,
        event.dispatch,
        {
          ordinal: event.ordinal,
          effect: "call",
          key: event.flow,
          child: event.child,
          ...(event.input !== undefined && { value: event.input }),
        },
        at,
      );
      return state;
    case "child.abandoned": {
      const child = state.children.get(event.child);
      if (child) child.isAbandoned = true;
      return state;
    }
    case "child.closed": {
      const child = state.children.get(event.child);
      if (child) child.closed = { outcome: event.outcome, value: event.value ?? null, error: event.error ?? null };
      wake(state, event.dispatch);
      return state;
    }
    case "items.started":
      itemsStarted(state, event);
      return state;
    case "items.closed":
      itemsClosed(state, event);
      return state;
    case "child.cancelled": {
      const child = state.children.get(event.child);
      if (child) child.cancelledAt ??= at;
      return state;
    }
    case "interrupt.raised":
      return raised(state, event, seq, at);
    case "interrupt.answered": {
      const { id, value, requestId = null, actor = null, traceparent } = event;
      state.early.push({ seq, id, value, requestId, actor, ...(traceparent !== undefined && { traceparent }) });
      return state;
    }
    case "interrupt.refused":
      state.early = state.early.filter(({ seq: of }) => of !== event.early);
      return state;
    case "interrupt.resumed":
      if (event.of !== undefined) state.heard = state.heard.filter(({ seq: of }) => of !== event.of);
      if (event.early !== undefined) state.early = state.early.filter(({ seq: of }) => of !== event.early);
      return resumed(state, event, seq, at);
    case "interrupt.expired":
      return expired(state, event, seq, at);
    case "interrupt.cancelled":
      return cancelled(state, event, at);
    case "interrupt.claimed":
    case "interrupt.released":
    case "interrupt.delegated":
    case "interrupt.snoozed":
    case "interrupt.reminded":
    case "interrupt.escalated":
      handled(state, event, at);
      return state;
    case "interrupt.linked":
      return state;
    case "intervention.recorded":
      interventionRecorded(state, event, at);
      return state;
    case "intervention.inserted":
    case "intervention.expired":
      interventionEnded(state, event, at);
      return state;
    case "intervention.consumed":
      interventionConsumed(state, event, at);
      return state;
    case "execution.sealed":
      state.sealedAt ??= at;
      if (event.close) {
        state.closing ??= { reason: event.reason ?? "manual", at, cancelsInterrupts: false };
        if (event.pendingInterrupts === "cancel") state.closing.cancelsInterrupts = true;
        if (event.parked === "fail") state.closing.failsParked = true;
      }
      return state;
    case "execution.paused":
      paused(state, event);
      return state;
    case "execution.redriven":
      return state;
    case "execution.unpaused":
      unpaused(state, at);
      return state;
    case "cancel.requested":
      state.cancelling ??= { reason: event.reason ?? "cancelled", at };
      return state;
    case "cleanup.planned": {
      const planned = event.runs.map((run) => ({ ...run, input: cleanupInput(state, run) }));
      state.dispatches.clear();
      state.parked.clear();
      state.groups.clear();
      if (state.cancelling) state.cancelling.isCleaned = true;
      for (const { id, chunk, input } of planned) {
        plan(state, { node: cleanupNode, chunk }, id, input, null, null, false, at);
        dispatchOf(state, id).cleanup = true;
      }
      return state;
    }
    case "cleanup.completed":
    case "cleanup.failed":
      finish(state, event.dispatch);
      return state;
    case "execution.failed":
      state.failing ??= { reason: event.reason, error: event.error };
      return state;
    case "execution.closed":
      state.sealedAt ??= at;
      state.closed = { at, outcome: event.outcome, reason: event.reason, error: event.error ?? null };
      state.inbox = [];
      state.dispatches.clear();
      state.parked.clear();
      state.frames.clear();
      state.joins.clear();
      state.groups.clear();
      return state;
    default:
      return unreachable(event);
  }
}

/** Whether idle time begins anew. What only brings a worker here, or sends on what has come already, is none. */
export function isActivity({ type }: LedgerEvent): boolean {
  return (
    type !== "execution.claimed" &&
    type !== "execution.blocked" &&
    type !== "inbox.routed" &&
    type !== "chunk.interrupted"
  );
}

function routed(state: ExecutionState, event: EventOf<"inbox.routed">, at: number): ExecutionState {
  const index = state.inbox.findIndex(({ seq }) => seq === event.of);
  const arrival = state.inbox[index];
  if (!arrival) return state;
  state.inbox.splice(index, 1);
  // An event that breaks the contract counts as not sent.
  if (event.refused !== undefined) state.heard = state.heard.filter(({ seq }) => seq !== event.of);
  apply(state, event.moves, event.value ?? arrival.value, at);
  if (arrival.kind === "event" && arrival.event === noticeEvent) markTelling(state, event.moves, arrival.value);
  if (arrival.kind === "start" && event.value !== undefined && !isItem(state))
    state.startInput = { value: event.value };
  if (arrival.kind === "resume") {
    const interrupt = state.interrupts.get(arrival.interrupt);
    if (interrupt) endPause(state, interrupt);
  }
  if (arrival.kind === "skip") {
    if (event.dispatch !== undefined) finish(state, event.dispatch);
    release(state, arrival.paused?.group ?? null);
  }
  return state;
}

/** What is planned to tell of a pause says so: each attempt of it gets a link of its own. */
function markTelling(state: ExecutionState, moves: readonly Move[] = [], value: Json): void {
  const notice = noticeIn(value);
  if (!notice) return;
  forEachPlanned(moves, (id) => {
    const dispatch = state.dispatches.get(id);
    if (dispatch) dispatch.tells = notice;
  });
}

/** The same places under the names that another version of the flow has for them. */
function renameNodes(state: ExecutionState, nodes: Readonly<Record<string, string>>): void {
  const now = (node: string) => nodes[node] ?? node;
  for (const dispatch of state.dispatches.values()) dispatch.node = now(dispatch.node);
  for (const frame of state.frames.values()) frame.node = now(frame.node);
  if (state.item) state.item.node = now(state.item.node);
  for (const { paused } of state.interrupts.values()) if (paused) paused.node = now(paused.node);
  for (const arrival of state.inbox)
    if (arrival.kind === "skip" && arrival.paused)
      arrival.paused = { ...arrival.paused, node: now(arrival.paused.node) };
  const joinNow = (join: string, node: string) => `${now(node)}${join.slice(node.length)}`;
  state.joins = new Map([...state.joins].map(([join, values]) => [joinNow(join, nodeOfJoin(join)), values]));
}

function emitted(state: ExecutionState, event: EventOf<"event.emitted">, seq: number, at: number): ExecutionState {
  if (event.dispatch === undefined) {
    state.hasBegun = true;
    state.inbox.push({ seq, kind: "event", event: event.event, value: event.payload, raw: event.raw ?? false });
    if (event.event === noticeEvent) told(state, event.payload);
    else hears(state, event, seq);
    return state;
  }
  const dispatch = dispatchOf(state, event.dispatch);
  if (event.group !== undefined) {
    state.groups.set(event.group, { by: dispatch.id, parent: dispatch.group, open: 0 });
    state.nextId = Math.max(state.nextId, event.group + 1);
    hold(state, dispatch.group);
  }
  const entry: JournalEntry = {
    ordinal: event.ordinal ?? 0,
    effect: "emit",
    key: event.event,
    group: event.group ?? null,
    value: event.payload,
  };
  journal(state, event.dispatch, entry, at);
  apply(state, event.moves, event.payload, at);
  if (event.group !== undefined && state.groups.get(event.group)?.open === 0) endGroup(state, event.group);
  return state;
}

function unreachable(event: never): never {
  throw new Error(`unknown ledger event: ${JSON.stringify(event)}`);
}
