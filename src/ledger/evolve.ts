/** The fold: what an execution is after one more ledger event. Deterministic, without the flow's code, clock or chance. */
import { defaultSettings } from "./event.ts";
import type { EventOf, LedgerEvent, Move, Position, Recorded } from "./event.ts";
import { foundAt, getPath } from "../base/path.ts";
import { copyJson, type Json } from "../base/json.ts";
import { cleanupInput, cleanupNode } from "./cleanup.ts";
import { endGroup, hold, release, wake } from "./groups.ts";
import { edited } from "./edits.ts";
import { handled, handlingOf, nextFollowUp, noticeIn, tell, told } from "./handling.ts";
import { noticeEvent } from "../flow/contract.ts";
import { parked, paused, retried, skipped, stampParked, unpaused } from "./operators.ts";
import { hearingOf, hears } from "./early-events.ts";
import {
  isItem,
  itemsOf,
  pendingInterrupts,
  repeatWrites,
  valueOf,
  type Dispatch,
  type ExecutionState,
  type Interrupt,
  type JournalEntry,
  type WriteEntry,
} from "./state.ts";

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
      fanOut(state, event);
      return state;
    case "items.closed": {
      const frame = state.frames.get(event.dispatch);
      if (!frame) return state;
      for (const [index, value] of event.results) {
        if (frame.done[index]) continue;
        frame.results[index] = value;
        frame.done[index] = true;
        frame.missing -= 1;
      }
      frame.items?.wrote.push(...(event.wrote ?? []));
      return state;
    }
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
      state.interventions.push({
        id: event.id,
        version: state.interventions.length + 1,
        status: "pending",
        payload: event.payload,
        target: event.target ?? null,
        author: event.author ?? null,
        note: event.note ?? null,
        metadata: event.metadata ?? {},
        createdAt: at,
        insertedAt: null,
        insertion: null,
        rejectedAt: null,
        rejectReason: null,
        expiredAt: null,
        consumers: {},
      });
      return state;
    case "intervention.inserted": {
      const intervention = state.interventions.find(({ id }) => id === event.id);
      if (intervention) Object.assign(intervention, { status: "inserted", insertedAt: at, insertion: event.insertion });
      return state;
    }
    case "intervention.consumed": {
      const intervention = state.interventions.find(({ id }) => id === event.id);
      if (intervention)
        intervention.consumers[event.consumer] = {
          status: event.status,
          note: event.note ?? null,
          metadata: event.metadata ?? {},
          consumedAt: at,
        };
      if (event.dispatch !== undefined && event.ordinal !== undefined)
        journal(
          state,
          event.dispatch,
          {
            ordinal: event.ordinal,
            effect: "consume",
            key: `${event.id} ${event.consumer}`,
          },
          at,
        );
      return state;
    }
    case "intervention.expired": {
      const intervention = state.interventions.find(({ id }) => id === event.id);
      if (intervention) Object.assign(intervention, { status: "expired", expiredAt: at });
      return state;
    }
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

/**
 * Sets the database's time on what an owner folded before the database had answered. `evolve` at a guessed time and
 * then `applyCommitTime` at the real one equals `evolve` at the real one.
 */
export function applyCommitTime(state: ExecutionState, event: LedgerEvent, at: number): void {
  if (isActivity(event)) state.activeAt = at;
  if ("moves" in event && event.moves) forEachPlanned(event.moves, (id) => stampPlan(state, id, at));
  if ("ordinal" in event && event.dispatch !== undefined && event.ordinal !== undefined) {
    const dispatch = state.dispatches.get(event.dispatch);
    if (dispatch) dispatch.journaledAt = at;
  }
  switch (event.type) {
    case "execution.claimed":
      if (state.firstClaim?.epoch === state.epoch) state.firstClaim.at = at;
      state.claimedAt = at;
      return;
    case "chunk.failed": {
      const dispatch = state.dispatches.get(event.dispatch);
      if (!dispatch) return;
      dispatch.failedAt = at;
      // It may have parked by then.
      if (event.retryInMs !== undefined && dispatch.notBefore !== null) dispatch.notBefore = at + event.retryInMs;
      return;
    }
    case "chunk.parked":
      return stampParked(state, event, at);
    case "step.failed":
    case "sleep.started": {
      const entry = state.dispatches.get(event.dispatch)?.journal.find(({ ordinal }) => ordinal === event.ordinal);
      if (entry?.effect === "sleep" && event.type === "sleep.started") entry.until = event.until ?? at + event.forMs;
      if (entry?.effect === "stepFailed" && event.type === "step.failed" && event.retryInMs !== undefined)
        entry.notBefore = at + event.retryInMs;
      return;
    }
    case "interrupt.raised": {
      const interrupt = state.interrupts.get(event.id);
      if (!interrupt) return;
      interrupt.createdAt = at;
      interrupt.expiresAt = event.expiresInMs === undefined ? null : at + event.expiresInMs;
      return;
    }
    case "interrupt.resumed":
    case "interrupt.expired":
    case "interrupt.cancelled": {
      const interrupt = state.interrupts.get(event.id);
      // It may wait anew by then, under the same id.
      if (interrupt && interrupt.status !== "pending") interrupt.resolvedAt = at;
      return;
    }
    case "intervention.inserted":
    case "intervention.expired": {
      const intervention = state.interventions.find(({ id }) => id === event.id);
      if (intervention && event.type === "intervention.inserted") intervention.insertedAt = at;
      if (intervention && event.type === "intervention.expired") intervention.expiredAt = at;
      return;
    }
    case "intervention.consumed": {
      const consumer = state.interventions.find(({ id }) => id === event.id)?.consumers[event.consumer];
      if (consumer) consumer.consumedAt = at;
      return;
    }
    case "cleanup.planned":
      for (const { id } of event.runs) stampPlan(state, id, at);
      return;
    case "execution.closed":
      if (state.closed) {
        if (state.sealedAt === state.closed.at) state.sealedAt = at;
        state.closed.at = at;
      }
      return;
    default:
      return;
  }
}

/** Whether idle time begins anew. What only brings a worker here, or sends on what has come already, is none. */
function isActivity({ type }: LedgerEvent): boolean {
  return (
    type !== "execution.claimed" &&
    type !== "execution.blocked" &&
    type !== "inbox.routed" &&
    type !== "chunk.interrupted"
  );
}

/** The dispatches that moves plan. */
export function forEachPlanned(moves: readonly Move[], visit: (id: number) => void): void {
  for (const move of moves) {
    if (move.move === "run") visit(move.id);
    else if (move.move === "open" && move.entries)
      for (let offset = 1; offset <= move.size * move.entries.length; offset++) visit(move.id + offset);
  }
}

function stampPlan(state: ExecutionState, id: number, at: number): void {
  const dispatch = state.dispatches.get(id);
  if (dispatch) dispatch.plannedAt = at;
}

function routed(state: ExecutionState, event: EventOf<"inbox.routed">, at: number): ExecutionState {
  const index = state.inbox.findIndex(({ seq }) => seq === event.of);
  const arrival = state.inbox[index];
  if (!arrival) return state;
  state.inbox.splice(index, 1);
  // What breaks the contract has not come.
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

/**
 * From here on the timeout of the execution counts anew, what is to be discarded by a time that is over is not, a pause whose time is
 * over asks again, and what is parked waits as long again. Sleeps and retries keep their time.
 */
function copied(state: ExecutionState, at: number): ExecutionState {
  state.firstClaim = null;
  // A trace of its own, which links to that of what it was copied from.
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

/** The collection of a distributed dispatch has the dispatch's own id. */
function fanOut(state: ExecutionState, event: EventOf<"items.started">): void {
  const { id, node, at, scope, group } = dispatchOf(state, event.dispatch);
  state.frames.set(id, {
    id,
    node,
    keys: event.keys ?? null,
    results: new Array<Json>(event.size).fill(null),
    done: new Array<boolean>(event.size).fill(false),
    missing: event.size,
    at,
    scope,
    group,
    items: {
      base: event.base,
      readsState: state.item?.readsState || Object.keys(state.values).length > 0,
      wrote: [],
      ...(event.earlier && { earlier: event.earlier }),
    },
  });
}

/** The same places under the names that another version of the flow has for them. */
function renameNodes(state: ExecutionState, nodes: Readonly<Record<string, string>>): void {
  for (const dispatch of state.dispatches.values()) dispatch.node = nodes[dispatch.node] ?? dispatch.node;
  for (const { paused } of state.interrupts.values()) if (paused) paused.node = nodes[paused.node] ?? paused.node;
  for (const arrival of state.inbox)
    if (arrival.kind === "skip" && arrival.paused)
      arrival.paused = { ...arrival.paused, node: nodes[arrival.paused.node] ?? arrival.paused.node };
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

function raised(state: ExecutionState, event: EventOf<"interrupt.raised">, seq: number, at: number): ExecutionState {
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
function resumed(state: ExecutionState, event: EventOf<"interrupt.resumed">, seq: number, at: number): ExecutionState {
  const interrupt = state.interrupts.get(event.id);
  if (!interrupt) return state;
  if (event.byEvent === undefined || interrupt.status === "pending") {
    tell(state, interrupt, "answered");
    resolve(interrupt, "resumed", at);
    interrupt.value = event.value;
    interrupt.requestId = event.requestId ?? null;
    interrupt.actor = event.actor ?? null;
    if (event.traceparent !== undefined) interrupt.answeredFrom = event.traceparent;
  }
  if (event.byEvent === undefined)
    state.inbox.push({ seq, kind: "resume", interrupt: event.id, value: event.value, raw: false });
  else endPause(state, interrupt);
  return state;
}

/** What goes on with a value is routed like an answer, and keeps its hold until then. */
function expired(state: ExecutionState, event: EventOf<"interrupt.expired">, seq: number, at: number): ExecutionState {
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
function cancelled(state: ExecutionState, event: EventOf<"interrupt.cancelled">, at: number): ExecutionState {
  const { id, dispatch, ordinal = 0 } = event;
  if (dispatch !== undefined) journal(state, dispatch, { ordinal, effect: "withdraw", key: id }, at);
  const interrupt = state.interrupts.get(id);
  if (!interrupt) return state;
  if (dispatch === undefined || interrupt.status === "pending") {
    // What the execution ends with needs no word.
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
function endPause(state: ExecutionState, interrupt: Interrupt): void {
  if (!interrupt.paused) return;
  release(state, interrupt.paused.group);
  interrupt.paused = null;
}

function resolve(interrupt: Interrupt, status: Interrupt["status"], at: number): void {
  interrupt.status = status;
  interrupt.resolvedAt = at;
}

function apply(state: ExecutionState, moves: readonly Move[] | undefined, value: Json, plannedAt: number): void {
  if (moves === undefined) return;
  for (const move of moves) {
    switch (move.move) {
      case "run":
        plan(
          state,
          move,
          move.id,
          inputOf(state, move, value),
          move.at ?? null,
          move.scope ?? null,
          move.begins ?? false,
          plannedAt,
        );
        break;
      case "open":
        open(state, move, valueOf(state, move.from, value), plannedAt);
        break;
      case "collect": {
        const frame = state.frames.get(move.frame);
        if (!frame || frame.done[move.index]) break;
        const result = valueOf(state, move.from, value);
        frame.results[move.index] = result;
        frame.done[move.index] = true;
        frame.missing -= 1;
        break;
      }
      case "closeFrame":
        state.frames.delete(move.frame);
        break;
      case "queue":
        (queuesOf(state, move.join)[move.event] ??= []).push(value);
        break;
      case "dequeue":
        dequeue(state, move.join);
        break;
      case "arm":
        queuesOf(state, move.join)[move.event] = [value];
        break;
      case "disarm":
        state.joins.delete(move.join);
        break;
      case "finalResult":
        state.finalResult = { value: move.value === undefined ? valueOf(state, move.from, value) : move.value };
        break;
      default:
        unreachable(move);
    }
  }
}

function plan(
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

function queuesOf(state: ExecutionState, join: string): Record<string, Json[]> {
  const queues = state.joins.get(join) ?? {};
  state.joins.set(join, queues);
  return queues;
}

function dequeue(state: ExecutionState, join: string): void {
  const queues = queuesOf(state, join);
  let isEmpty = true;
  for (const event in queues) {
    queues[event]?.shift();
    isEmpty &&= queues[event]?.length === 0;
  }
  if (isEmpty) state.joins.delete(join);
}

/** A resumed chunk runs again with what it was given first. */
function inputOf(state: ExecutionState, move: Extract<Move, { move: "run" }>, value: Json): Json {
  if (move.resume === undefined) return valueOf(state, move.from, value);
  return state.interrupts.get(move.resume)?.paused?.input ?? null;
}

function open(state: ExecutionState, move: Extract<Move, { move: "open" }>, value: Json, plannedAt: number): void {
  const { id, node, size, entries } = move;
  const items = entries ? itemsOf(valueOf(state, move.from, value)) : [];
  state.frames.set(id, {
    id,
    node,
    keys: move.keys ?? null,
    results: new Array<Json>(size).fill(null),
    done: new Array<boolean>(size).fill(false),
    missing: size,
    at: move.at ?? null,
    scope: move.scope ?? null,
    group: move.group ?? null,
  });
  state.nextId = Math.max(state.nextId, id + 1);
  let next = id + 1;
  items.forEach((item, index) => {
    for (const entry of entries ?? [])
      plan(state, { ...entry, group: move.group }, next++, item, [id, index], itemScope(id, index), true, plannedAt);
  });
}

/** Joins inside one forEach item pair among themselves. */
export function itemScope(frame: number, index: number): string {
  return `${frame}.${index}`;
}

function dispatchOf(state: ExecutionState, id: number): Dispatch {
  const dispatch = state.dispatches.get(id);
  if (!dispatch) throw new Error(`ledger event for dispatch ${id}, which is not open at seq ${state.seq}`);
  return dispatch;
}

function finish(state: ExecutionState, id: number): void {
  const dispatch = dispatchOf(state, id);
  state.dispatches.delete(id);
  state.parked.delete(id);
  release(state, dispatch.group);
}

function wrote(state: ExecutionState, dispatch: number, write: WriteEntry, at: number): void {
  const { effect, key, value = null } = write;
  write.found = foundAt(state.values, key, effect === "append");
  repeatWrites(state.values, [{ effect, key, value }]);
  state.writes?.push({ effect, key, value });
  journal(state, dispatch, write, at);
}

function journal(state: ExecutionState, id: number, entry: JournalEntry, at: number): void {
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

function defined<T extends object>(partial: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  const result = { ...partial };
  for (const key in result) if (result[key] === undefined) delete result[key];
  return result as { [K in keyof T]: Exclude<T[K], undefined> };
}

export function unreachable(value: never): never {
  throw new Error(`unknown ledger event or move: ${JSON.stringify(value)}`);
}
