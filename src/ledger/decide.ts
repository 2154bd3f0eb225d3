/**
 * Every command of an execution's owner, and the ledger events that follow from it. Pure: time and chance come in with the
 * command. Commands from outside are decided under the row lock, in SQL (`migrations/functions/40_commands.sql`); what follows
 * from them is decided by the owner, here.
 */
import type { Graph, Node, NodeId, WhenNode } from "../flow/graph.ts";
import { appendPath, getPath } from "../base/path.ts";
import {
  collected,
  isDrained,
  itemsOf,
  pendingInterrupts,
  type Arrival,
  type Dispatch,
  type ExecutionState,
  type Frame,
  type Interrupt,
} from "./state.ts";
import { earlyEvents } from "./early-events.ts";
import { answeredBy, comingDue, earlyAnswers, goesOnTo, idOfPause, takenError } from "./pauses.ts";
import { nextFollowUp, notices } from "./handling.ts";
import { cleanupEnd, isCleaning, planCleanup } from "./cleanup.ts";
import { failed, nextParkedToFail, parkedToFail } from "./parking.ts";
import { heldUntil, isPaused } from "./waits.ts";
import type {
  EventOf,
  ExecutionId,
  FollowUp,
  LedgerEvent,
  Move,
  OnExpire,
  Outcome,
  Position,
  ResumeTo,
  Source,
  WorkerId,
} from "./event.ts";
import { UsageError, type SerializedError } from "../base/errors.ts";
import { copyJson, type Json, type JsonObject } from "../base/json.ts";

/** Which cases a value entered, by match node: conditions are the user's code, so they are asked before `decide`. */
export type Matches = ReadonlyMap<NodeId, readonly number[]>;

/** What a chunk did, in its journal's order. */
export type Effect = {
  ordinal: number;
  /** What had reached the chunk since its last commit, where several things were under way: their numbers, in that order. */
  turns?: readonly number[];
} & (
  | { effect: "set" | "append"; key: string; value: Json; matches?: Matches; silent?: boolean }
  | { effect: "delete"; key: string; matches?: Matches; silent?: boolean }
  | { effect: "emit"; event: string; payload: Json; wait: boolean; matches?: Matches }
  | { effect: "step"; name: string; value: Json }
  | { effect: "stepFailed"; name: string; attempt: number; error: SerializedError; retryInMs: number | null }
  | { effect: "sleep"; forMs: number; until?: number }
  | { effect: "result"; value: Json }
  | { effect: "stopStream" }
  | { effect: "call"; child: ExecutionId; flow: string; input?: string; leaves?: boolean }
  | {
      effect: "consume";
      intervention: string;
      status: "applied" | "ignored";
      consumer: string;
      note: string | null;
      metadata: JsonObject;
    }
  | { effect: "withdraw"; interrupt: string; reason: string }
);

export type Command =
  | {
      type: "claim";
      worker: WorkerId;
      fingerprint: string | null;
      nodes?: Readonly<Record<string, string>>;
      /** As `execution.claimed` has them. */
      span?: string;
      traceparent?: string;
    }
  /** This worker's version of the flow does not have what the execution stands at. */
  | { type: "block"; worker: WorkerId; fingerprint: string; problem: string }
  /** Sends the oldest arrival on its way; `value` is what the contract made of it, `refused` why it went nowhere. */
  | { type: "route"; matches?: Matches | undefined; value?: Json | undefined; refused?: string | undefined }
  | { type: "effect"; dispatch: number; effect: Effect }
  | { type: "complete"; dispatch: number; output: Json; matches?: Matches | undefined; times?: AttemptTimes }
  /** A dispatch without a chunk goes on from its node. */
  | { type: "forward"; dispatch: number; matches?: Matches | undefined }
  /** A distributed collection begins; its items' ids follow from `base`. */
  | { type: "fanOut"; dispatch: number; base: ExecutionId }
  /** A batch of its items has ended. */
  | { type: "collect"; dispatch: number; results: readonly ItemResult[] }
  /** All of them have: their results go on as one value. */
  | { type: "gather"; dispatch: number }
  | {
      type: "fail";
      dispatch: number;
      error: SerializedError;
      retryInMs: number | null;
      times?: AttemptTimes & Pick<EventOf<"chunk.failed">, "turns">;
    }
  /** A dispatch ends, and nothing follows from it. */
  | { type: "drop"; dispatch: number }
  | { type: "pause"; dispatch: number; interrupt: PauseRequest; times?: AttemptTimes }
  /** The chunk that called a child has ended without its result. */
  | { type: "abandon"; dispatch: number; child: ExecutionId }
  /** Who tells of a pause is given a link that answers it. */
  | { type: "link"; interrupt: string; hash: string }
  /** The attempt was cut off and shall go on at once, whatever else it waits for. */
  | { type: "interrupt"; dispatch: number; times?: AttemptTimes }
  /** It cannot go on, whatever still runs. */
  | { type: "abort"; reason: string; error: SerializedError }
  /** After a cancel nothing runs any more: what is to be done before the close. */
  | { type: "cleanUp" };

/** When an attempt was due and when its handler was called, in milliseconds since 1970. */
export interface AttemptTimes {
  readonly queuedAt: number;
  readonly startedAt: number;
}

export interface ItemResult {
  readonly index: number;
  readonly value: Json;
  /** It wrote application state. */
  readonly wrote: boolean;
}

export interface PauseRequest {
  id: string;
  type: string;
  payload: Json;
  resumeTo: ResumeTo;
  maxResumes: number | null;
  resumeCount: number;
  expiresInMs: number | null;
  /** Null ends the chain. */
  onExpire: OnExpire | null;
  /** JSON Schema; null is any JSON. */
  response: Json;
  title?: string;
  assign?: string[];
  dueInMs?: number;
  /** In the order of their times. */
  plan?: FollowUp[];
  link?: true;
}

/** The events that a command leads to; none when there is nothing to do. Reads the state and never writes it. */
export function decide(state: ExecutionState, command: Command, graph: Graph): LedgerEvent[] {
  if (state.closed) return [];
  const isEnd = command.type === "complete" || command.type === "fail" || command.type === "pause";
  const cleaned = isEnd ? cleanupEnd(state, command) : null;
  if (cleaned) return cleaned;
  switch (command.type) {
    case "claim": {
      const event: EventOf<"execution.claimed"> = { type: "execution.claimed", worker: command.worker };
      if (command.fingerprint !== null && command.fingerprint !== state.fingerprint)
        event.fingerprint = command.fingerprint;
      if (command.nodes && Object.keys(command.nodes).length > 0) event.nodes = { ...command.nodes };
      if (command.span !== undefined) event.span = command.span;
      if (command.traceparent !== undefined) event.traceparent = command.traceparent;
      return [event];
    }
    case "block":
      return [
        { type: "execution.claimed", worker: command.worker },
        { type: "execution.blocked", fingerprint: command.fingerprint, problem: command.problem },
      ];
    case "route":
      return route(state, graph, command);
    case "effect":
      return effect(state, graph, requireDispatch(state, command.dispatch), command.effect);
    case "complete": {
      const dispatch = requireDispatch(state, command.dispatch);
      const walk = newWalk(state, graph, command.matches);
      enterAll(walk, node(graph, dispatch.node).next, onward(dispatch, command.output));
      const event: EventOf<"chunk.completed"> = {
        type: "chunk.completed",
        dispatch: dispatch.id,
        chunk: dispatch.chunk ?? dispatch.node,
        ...command.times,
        output: command.output,
      };
      if (dispatch.failures > 0) event.attempt = dispatch.failures + 1;
      return done(walk, event);
    }
    case "forward": {
      const dispatch = requireDispatch(state, command.dispatch);
      const walk = newWalk(state, graph, command.matches);
      enter(walk, dispatch.node, onward(dispatch, dispatch.input));
      return done(walk, { type: "value.routed", dispatch: dispatch.id });
    }
    case "fanOut": {
      const dispatch = requireDispatch(state, command.dispatch);
      const here = node(graph, dispatch.node);
      const keys = here.kind === "batch" ? here.branches.map(({ key }) => key) : null;
      const size = keys?.length ?? itemsOf(dispatch.input).length;
      const event: EventOf<"items.started"> = {
        type: "items.started",
        dispatch: dispatch.id,
        base: command.base,
        size,
      };
      return [keys ? { ...event, keys } : event];
    }
    case "collect": {
      const { id } = requireDispatch(state, command.dispatch);
      const results = command.results.map(({ index, value }): [number, Json] => [index, value]);
      const wrote = command.results.filter((result) => result.wrote).map(({ index }) => index);
      const event: EventOf<"items.closed"> = { type: "items.closed", dispatch: id, results };
      return [wrote.length > 0 ? { ...event, wrote } : event];
    }
    case "gather": {
      const dispatch = requireDispatch(state, command.dispatch);
      const here = node(graph, dispatch.node);
      const walk = newWalk(state, graph, undefined);
      if ("end" in here) completeFrame(walk, requireFrame(walk, dispatch.id), here.end);
      return done(walk, { type: "value.routed", dispatch: dispatch.id });
    }
    case "drop":
      return [{ type: "value.routed", dispatch: requireDispatch(state, command.dispatch).id }];
    case "fail":
      return failed(
        state,
        graph,
        requireDispatch(state, command.dispatch),
        command.error,
        command.retryInMs,
        command.times,
      );
    case "pause": {
      const dispatch = requireDispatch(state, command.dispatch);
      const id = idOfPause(state, dispatch, command.interrupt.id);
      if (id !== null) return [pause(graph, dispatch, { ...command.interrupt, id }, command.times)];
      // Two chunks chose one id at the same moment: the second must not take the first one's place.
      const chunk = dispatch.chunk ?? dispatch.node;
      const { name, message, code } = takenError(state, command.interrupt.id, `pauseFor in chunk "${chunk}"`);
      return failed(state, graph, dispatch, { name, message, code, chunk }, null, command.times);
    }
    case "abandon":
      return [{ type: "child.abandoned", dispatch: command.dispatch, child: command.child }];
    case "link":
      return [{ type: "interrupt.linked", id: command.interrupt, hash: command.hash }];
    case "interrupt": {
      const { id, chunk, node: at } = requireDispatch(state, command.dispatch);
      return [{ type: "chunk.interrupted", dispatch: id, chunk: chunk ?? at, ...command.times }];
    }
    case "abort":
      return [{ type: "execution.failed", reason: command.reason, error: command.error }];
    case "cleanUp":
      return planCleanup(state, graph);
  }
}

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

function route(state: ExecutionState, graph: Graph, command: Extract<Command, { type: "route" }>): LedgerEvent[] {
  const [arrival] = state.inbox;
  if (!arrival) return [];
  const event: EventOf<"inbox.routed"> = { type: "inbox.routed", of: arrival.seq };
  if (command.refused !== undefined) return [{ ...event, refused: command.refused }];
  const walk = newWalk(state, graph, command.matches);
  if (arrival.kind === "skip" && !arrival.paused) {
    if (!state.dispatches.has(arrival.dispatch)) return [{ ...event, refused: "the chunk had ended by then" }];
    event.dispatch = arrival.dispatch;
  }
  enterArrival(walk, command.value === undefined ? arrival : { ...arrival, value: command.value });
  return done(walk, command.value === undefined ? event : { ...event, value: command.value });
}

/** Where the start input enters: the flow's beginning, or for an item the body of its collection. */
export function entryNodes(state: ExecutionState, graph: Graph): readonly NodeId[] {
  if (!state.item) return graph.roots;
  const here = node(graph, state.item.node);
  if (here.kind === "forEach") return here.entry;
  const branch = here.kind === "batch" ? here.branches[state.item.index] : undefined;
  return branch ? [branch.entry] : [];
}

function enterArrival(walk: Walk, arrival: Arrival): void {
  const outside = { value: arrival.value, at: null, scope: null, group: null };
  switch (arrival.kind) {
    case "start":
      return enterAll(walk, entryNodes(walk.state, walk.graph), outside);
    case "event":
      return hear(walk, arrival.event, outside);
    case "skip": {
      const place = arrival.paused ?? walk.state.dispatches.get(arrival.dispatch);
      if (!place) return;
      const { at, scope, group } = place;
      return enterAll(walk, node(walk.graph, place.node).next, { value: arrival.value, at, scope, group });
    }
    case "resume": {
      const interrupt = walk.state.interrupts.get(arrival.interrupt);
      const paused = interrupt?.paused;
      if (!interrupt) return;
      if (!paused) {
        // An event had answered in the same moment; what was accepted from outside still reaches the event's handlers.
        if (typeof interrupt.resumeTo === "object") hear(walk, interrupt.resumeTo.event, outside);
        return;
      }
      const { at, scope, group } = paused;
      const to = goesOnTo(interrupt);
      if (to === "next")
        return enterAll(walk, node(walk.graph, paused.node).next, { value: arrival.value, at, scope, group });
      if (to === "self") {
        walk.moves.push({
          ...run(walk, paused.node, { value: arrival.value, at, scope, group }),
          resume: interrupt.id,
        });
        return;
      }
      return hear(walk, to.event, { value: arrival.value, at: null, scope, group });
    }
  }
}

function effect(state: ExecutionState, graph: Graph, dispatch: Dispatch, done_: Effect): LedgerEvent[] {
  const place: { dispatch: number; chunk: string; ordinal: number; turns?: number[] } = {
    dispatch: dispatch.id,
    chunk: dispatch.chunk ?? dispatch.node,
    ordinal: done_.ordinal,
  };
  if (done_.turns) place.turns = [...done_.turns];
  switch (done_.effect) {
    case "set":
    case "append":
    case "delete": {
      const walk = newWalk(state, graph, done_.matches);
      const value = done_.effect === "delete" ? null : done_.value;
      const listeners = done_.silent ? [] : (graph.whenState.get(done_.key) ?? []);
      if (listeners.length > 0) {
        const heard = done_.effect === "append" ? appended(state, done_.key, done_.value) : value;
        for (const id of listeners) enterAll(walk, node(graph, id).next, { ...onward(dispatch, heard), at: null });
      }
      if (done_.effect === "delete") return done(walk, { type: "state.deleted", ...place, key: done_.key });
      const type = done_.effect === "set" ? "state.set" : "state.appended";
      return done(walk, { type, ...place, key: done_.key, value });
    }
    case "emit": {
      const walk = newWalk(state, graph, done_.matches);
      const { event, payload } = done_;
      const emitted: EventOf<"event.emitted"> = { type: "event.emitted", ...place, event, payload };
      if (done_.wait) emitted.group = walk.nextId++;
      hear(walk, event, { ...onward(dispatch, payload), at: null, group: emitted.group ?? dispatch.group });
      return [...done(walk, emitted), ...answeredBy(pendingInterrupts(state), event, payload)];
    }
    case "step":
      return [{ type: "step.completed", ...place, name: done_.name, value: done_.value }];
    case "stepFailed": {
      const { name, attempt, error, retryInMs } = done_;
      const failed: EventOf<"step.failed"> = { type: "step.failed", ...place, name, attempt, error };
      if (retryInMs !== null) failed.retryInMs = retryInMs;
      return [failed];
    }
    case "sleep":
      return [
        {
          type: "sleep.started",
          ...place,
          forMs: done_.forMs,
          ...(done_.until !== undefined && { until: done_.until }),
        },
      ];
    case "result":
      return [{ type: "result.set", ...place, value: done_.value }];
    case "stopStream":
      return [{ type: "stream.stopped", ...place }];
    case "call":
      return [
        {
          type: "child.started",
          ...place,
          child: done_.child,
          flow: done_.flow,
          ...(done_.input !== undefined && { input: done_.input }),
          ...(done_.leaves && { leaves: true }),
        },
      ];
    case "consume": {
      const { intervention, consumer, status, note, metadata } = done_;
      return [{ type: "intervention.consumed", ...place, id: intervention, consumer, status, note, metadata }];
    }
    case "withdraw": {
      const { interrupt: id, reason } = done_;
      // An answer that came in meanwhile counts.
      if (state.interrupts.get(id)?.status !== "pending") return [];
      return [{ type: "interrupt.cancelled", ...place, id, reason, withdrawn: true }];
    }
  }
}

/** The whole list that an append makes, which is what `when({ state })` hears. */
function appended(state: ExecutionState, key: string, item: Json): Json {
  const values: JsonObject = { [key]: copyJson(getPath(state.values, key) ?? []) };
  appendPath(values, key, item);
  return values[key] ?? null;
}

function pause(graph: Graph, dispatch: Dispatch, request: PauseRequest, times?: AttemptTimes): LedgerEvent {
  const { id, payload, resumeTo, maxResumes, resumeCount, title, assign, dueInMs, plan, link } = request;
  const event: EventOf<"interrupt.raised"> = {
    type: "interrupt.raised",
    dispatch: dispatch.id,
    chunk: dispatch.chunk ?? dispatch.node,
    ...times,
    id,
    kind: request.type,
    payload,
    resumeTo,
    maxResumes,
    resumeCount,
  };
  if (request.expiresInMs !== null) event.expiresInMs = request.expiresInMs;
  if (request.onExpire !== null) event.onExpire = request.onExpire;
  if (request.response !== null) event.response = request.response;
  if (title !== undefined) event.title = title;
  if (assign !== undefined) event.assign = assign;
  if (dueInMs !== undefined) event.dueInMs = dueInMs;
  if (plan !== undefined) event.plan = plan;
  if (link !== undefined) event.link = link;
  // What tells of pauses does not tell of its own: it would have no end.
  if (graph.telling.size > 0 && !graph.telling.has(dispatch.node)) event.tells = true;
  return event;
}

export function autoCloseAt(state: ExecutionState): number | null {
  const { autoClose, autoCloseMs } = state.settings;
  if (!autoClose || autoCloseMs === null || !state.hasBegun) return null;
  if (!isDrained(state) || pendingInterrupts(state).length > 0) return null;
  // With no idle time to wait for, the commit that drains the execution also closes it; but events alone leave time for the start.
  if (autoCloseMs === 0) return state.startedAt === null ? null : 0;
  const begunAt = state.startedAt === null ? 0 : (state.dueAt ?? 0);
  return Math.max(state.activeAt, begunAt) + autoCloseMs;
}

/** A value on its way through the graph. */
interface Token {
  readonly value: Json;
  readonly from?: Source;
  readonly at: Position | null;
  readonly scope: string | null;
  readonly group: number | null;
  readonly begins?: boolean;
}

/** One routing decision in the making. */
interface Walk {
  readonly state: ExecutionState;
  readonly graph: Graph;
  readonly matches: Matches | undefined;
  readonly moves: Move[];
  readonly inserted: LedgerEvent[];
  /** Results that this walk has collected, by frame. */
  readonly collecting: Map<number, number[]>;
  readonly opened: Map<number, Frame>;
  nextId: number;
}

function newWalk(state: ExecutionState, graph: Graph, matches: Matches | undefined): Walk {
  return {
    state,
    graph,
    matches,
    moves: [],
    inserted: [],
    collecting: new Map(),
    opened: new Map(),
    nextId: state.nextId,
  };
}

type Routing = Extract<LedgerEvent, { moves?: unknown }>;

function done(walk: Walk, event: Routing): LedgerEvent[] {
  const routed: LedgerEvent = walk.moves.length === 0 ? event : { ...event, moves: walk.moves };
  return walk.inserted.length === 0 ? [routed] : [...walk.inserted, routed];
}

function onward(dispatch: Dispatch, value: Json): Token {
  return { value, at: dispatch.at, scope: dispatch.scope, group: dispatch.group };
}

function enterAll(walk: Walk, ids: readonly NodeId[], token: Token): void {
  for (const id of ids) enter(walk, id, token);
}

function enter(walk: Walk, id: NodeId, token: Token): void {
  const here = node(walk.graph, id);
  switch (here.kind) {
    case "chunk":
    case "subFlow":
      insertBefore(walk, here);
      walk.moves.push(run(walk, id, token));
      return;
    case "match": {
      const matches = token.from === undefined ? walk.matches?.get(id) : undefined;
      // Only what the owner held in its hands could be asked beforehand; a collected value is asked in its own turn.
      if (matches === undefined) {
        walk.moves.push(run(walk, id, token));
        return;
      }
      if (here.mode === "all" && matches.length > 0) {
        const frame = openFrame(walk, id, token, matches.length, null);
        matches.forEach((hit, index) =>
          enterAll(walk, here.cases[hit]?.entry ?? [], { ...token, at: [frame, index], begins: true }),
        );
        return;
      }
      const [hit] = matches;
      const chosen = hit === undefined ? here.otherwise : (here.cases[hit]?.entry ?? []);
      enterAll(walk, chosen, token);
      return;
    }
    case "batch": {
      if (here.distribute) {
        walk.moves.push(run(walk, id, token));
        return;
      }
      const keys = here.branches.map(({ key }) => key);
      const frame = openFrame(walk, id, token, keys.length, keys);
      here.branches.forEach(({ entry }, index) =>
        enter(walk, entry, { ...token, at: [frame, index], scope: String(frame), begins: true }),
      );
      return;
    }
    case "forEach": {
      const size = itemsOf(token.value).length;
      if (here.distribute && size > 0) {
        walk.moves.push(run(walk, id, token));
        return;
      }
      const entries = here.entry.map((entry) => place(walk.graph, entry));
      const frame = openFrame(walk, id, token, size, null, entries);
      walk.nextId += size * entries.length;
      if (size === 0) completeFrame(walk, requireFrame(walk, frame), here.end);
      return;
    }
    case "endMatch": {
      const opener = node(walk.graph, here.of);
      const isCollecting = opener.kind === "match" && opener.mode === "all" && isOpen(walk, token.at, here.of);
      if (isCollecting) collect(walk, here.id, token);
      else enterAll(walk, here.next, token);
      return;
    }
    case "endBatch":
    case "endForEach":
      if (isOpen(walk, token.at, here.of)) collect(walk, here.id, token);
      else if (token.at === null && walk.state.item?.node === here.of) deliver(walk, token);
      return;
    case "interventionPoint":
      insertAt(walk, here.id, here.name, here.target);
      enterAll(walk, here.next, token);
      return;
    case "finalResult":
      // An item's final result is what it gives to its parent.
      if (!walk.state.item) walk.moves.push(finalResult(token));
      enterAll(walk, here.next, token);
      return;
    case "when":
      enterAll(walk, here.next, token);
  }
}

function hear(walk: Walk, event: string, token: Token): void {
  for (const id of walk.graph.whenEvent.get(event) ?? []) {
    const here = node(walk.graph, id);
    if (here.kind !== "when" || !("events" in here.trigger)) continue;
    const { events } = here.trigger;
    if (events.length === 1) enterAll(walk, here.next, token);
    else if (here.mode === "or")
      enterAll(walk, here.next, { ...token, value: { event, value: token.value }, from: { event } });
    else joinAt(walk, here, events, event, token);
  }
}

/** So many values of one event wait for their partners. */
const maxUnpaired = 1000;

/**
 * Joins pair first in, first out, within the scope that their events were emitted in.
 *
 * @throws {UsageError} too many wait for their partners
 */
function joinAt(walk: Walk, here: WhenNode, events: readonly string[], event: string, token: Token): void {
  const join = `${here.id}@${token.scope ?? ""}`;
  const queues = walk.state.joins.get(join) ?? {};
  if ((queues[event]?.length ?? 0) >= maxUnpaired)
    throw new UsageError(
      `event "${event}" was refused: ${maxUnpaired} of them wait for their partners in when([${events.map((name) => JSON.stringify(name)).join(", ")}])`,
      "send the others as well, or hear each event on its own",
    );
  walk.moves.push({ move: "queue", join, event });
  const values: JsonObject = {};
  for (const name of events) {
    const first = queues[name]?.[0] ?? (name === event ? token.value : undefined);
    if (first === undefined) return;
    values[name] = first;
  }
  enterAll(walk, here.next, { ...token, value: values, from: { join } });
  walk.moves.push({ move: "dequeue", join });
}

function run(walk: Walk, id: NodeId, token: Token): Extract<Move, { move: "run" }> {
  const move: Extract<Move, { move: "run" }> = { move: "run", id: walk.nextId++, ...place(walk.graph, id) };
  if (token.begins) move.begins = true;
  return travelling(move, token);
}

function place(graph: Graph, id: NodeId): { node: string; chunk?: string } {
  const here = node(graph, id);
  return here.kind === "chunk" ? { node: id, chunk: here.chunk } : { node: id };
}

function travelling<M extends Extract<Move, { move: "run" | "open" }>>(move: M, token: Token): M {
  if (token.at) move.at = token.at;
  if (token.scope !== null) move.scope = token.scope;
  if (token.group !== null) move.group = token.group;
  if (token.from) move.from = token.from;
  return move;
}

function openFrame(
  walk: Walk,
  id: NodeId,
  token: Token,
  size: number,
  keys: string[] | null,
  entries?: { node: string; chunk?: string }[],
): number {
  const move: Extract<Move, { move: "open" }> = { move: "open", id: walk.nextId++, node: id, size };
  if (keys) move.keys = keys;
  if (entries && size > 0) move.entries = entries;
  walk.moves.push(travelling(move, token));
  const { at, scope, group } = token;
  const done = new Array<boolean>(size).fill(false);
  walk.opened.set(move.id, { id: move.id, node: id, keys, results: [], done, missing: size, at, scope, group });
  return move.id;
}

function collect(walk: Walk, end: NodeId, token: Token): void {
  if (!token.at) return;
  const [id, index] = token.at;
  const frame = requireFrame(walk, id);
  const collecting = walk.collecting.get(id) ?? [];
  if (frame.done[index] || collecting.includes(index)) return;
  collecting.push(index);
  walk.collecting.set(id, collecting);
  walk.moves.push({ move: "collect", frame: id, index, ...(token.from && { from: token.from }) });
  walk.opened.set(id, withResult(frame, index, token.value));
  if (frame.missing - 1 === 0) completeFrame(walk, requireFrame(walk, id), end);
}

/** An item of a distributed collection has come to the end of the body; as with a collection, its first value counts. */
function deliver(walk: Walk, token: Token): void {
  if (walk.state.finalResult || walk.moves.some(({ move }) => move === "finalResult")) return;
  walk.moves.push(finalResult(token));
}

function finalResult({ value }: Token): Move {
  return { move: "finalResult", value };
}

/** The frame as it will be: copied only when its last result is in, so collecting stays linear. */
function withResult(frame: Frame, index: number, value: Json): Frame {
  const missing = frame.missing - 1;
  if (missing > 0) return { ...frame, missing };
  const results = [...frame.results];
  results[index] = value;
  return { ...frame, missing, results };
}

function completeFrame(walk: Walk, frame: Frame, end: NodeId): void {
  const { at, scope, group } = frame;
  const token: Token = { value: collected(frame), from: { frame: frame.id }, at, scope, group };
  enterAll(walk, node(walk.graph, end).next, token);
  walk.moves.push({ move: "closeFrame", frame: frame.id });
}

function isOpen(walk: Walk, at: Position | null, opener: NodeId): boolean {
  if (!at) return false;
  const frame = walk.opened.get(at[0]) ?? walk.state.frames.get(at[0]);
  return frame?.node === opener;
}

/** Planned mode: a point takes the pending interventions for its target, each once. */
function insertAt(walk: Walk, operatorId: NodeId, operatorName: string, target: string | null): void {
  if (walk.state.settings.interventionMode !== "planned") return;
  const operator = { operatorId, operatorName, operatorKind: "interventionPoint" };
  for (const { id, target: wanted } of pendingInterventions(walk))
    if (wanted === target)
      walk.inserted.push({ type: "intervention.inserted", id, insertion: { mode: "planned", ...operator } });
}

/** Auto mode: a pending intervention goes in before the first operator that its target names, or before the next chunk. */
function insertBefore(walk: Walk, here: Node): void {
  if (walk.state.settings.interventionMode !== "auto") return;
  const operatorName = here.kind === "chunk" ? here.chunk : here.kind === "subFlow" ? here.flow : here.id;
  for (const { id, target } of pendingInterventions(walk)) {
    const isHere = target === null ? here.kind === "chunk" : [here.id, operatorName, here.kind].includes(target);
    const insertion = { mode: "auto", operatorId: here.id, operatorName, operatorKind: here.kind };
    if (isHere) walk.inserted.push({ type: "intervention.inserted", id, insertion });
  }
}

function pendingInterventions({ state, inserted }: Walk) {
  const taken = new Set(inserted.map((event) => (event.type === "intervention.inserted" ? event.id : "")));
  return state.interventions.filter(({ id, status }) => status === "pending" && !taken.has(id));
}

function node(graph: Graph, id: NodeId): Node {
  const found = graph.nodes.get(id);
  if (!found) throw new Error(`node ${id} is not in the graph`);
  return found;
}

function requireFrame(walk: Walk, id: number): Frame {
  const frame = walk.opened.get(id) ?? walk.state.frames.get(id);
  if (!frame) throw new Error(`collection ${id} is not open`);
  return frame;
}

function requireDispatch(state: ExecutionState, id: number): Dispatch {
  const dispatch = state.dispatches.get(id);
  if (!dispatch) throw new Error(`dispatch ${id} is not open`);
  return dispatch;
}
