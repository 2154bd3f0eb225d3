/**
 * The ledger events that follow from each command of an execution's owner. Pure: time and chance come in with the command. Commands
 * from outside are decided under the row lock, in SQL (`migrations/functions/40_commands.sql`); what follows from them is decided by
 * the owner, here.
 */
import type { Json } from "../base/json.ts";
import type { Graph } from "../flow/graph.ts";
import { route } from "./arrivals.ts";
import { cleanupEnd, planCleanup } from "./cleanup.ts";
import type { AttemptTimes, Command, PauseRequest } from "./command.ts";
import { record } from "./effects.ts";
import type { EventOf, LedgerEvent } from "./event.ts";
import { failed } from "./parking.ts";
import { idOfPause, takenError } from "./pauses.ts";
import { itemsOf, type ExecutionState } from "./state.ts";
import type { Dispatch } from "./parts.ts";
import { completeFrame, done, enter, enterAll, newWalk, node, onward, requireFrame } from "./walk.ts";

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
      return record(state, graph, requireDispatch(state, command.dispatch), command.effect);
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
      // Two chunks chose one id at the same moment: the second must not replace the first.
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
  // The pauses of a chunk that gives notice of pauses give none: there would be no end.
  if (graph.telling.size > 0 && !graph.telling.has(dispatch.node)) event.tells = true;
  return event;
}

function requireDispatch(state: ExecutionState, id: number): Dispatch {
  const dispatch = state.dispatches.get(id);
  if (!dispatch) throw new Error(`dispatch ${id} is not open`);
  return dispatch;
}
