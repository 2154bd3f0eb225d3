/** What a chunk did, as ledger events, with what follows from it. Pure. */
import { copyJson, type Json, type JsonObject } from "../base/json.ts";
import { appendPath, getPath } from "../base/path.ts";
import type { Graph } from "../flow/graph.ts";
import type { Effect } from "./command.ts";
import type { EventOf, LedgerEvent } from "./event.ts";
import { answeredBy } from "./pauses.ts";
import { pendingInterrupts, type ExecutionState } from "./state.ts";
import type { Dispatch } from "./parts.ts";
import { done, enterAll, hear, newWalk, node, onward } from "./walk.ts";

export function record(state: ExecutionState, graph: Graph, dispatch: Dispatch, effect: Effect): LedgerEvent[] {
  const position: { dispatch: number; chunk: string; ordinal: number; turns?: number[] } = {
    dispatch: dispatch.id,
    chunk: dispatch.chunk ?? dispatch.node,
    ordinal: effect.ordinal,
  };
  if (effect.turns) position.turns = [...effect.turns];
  switch (effect.effect) {
    case "set":
    case "append":
    case "delete": {
      const walk = newWalk(state, graph, effect.matches);
      const value = effect.effect === "delete" ? null : effect.value;
      const listeners = effect.silent ? [] : (graph.whenState.get(effect.key) ?? []);
      if (listeners.length > 0) {
        const heard = effect.effect === "append" ? appended(state, effect.key, effect.value) : value;
        for (const id of listeners) enterAll(walk, node(graph, id).next, { ...onward(dispatch, heard), at: null });
      }
      if (effect.effect === "delete") return done(walk, { type: "state.deleted", ...position, key: effect.key });
      const type = effect.effect === "set" ? "state.set" : "state.appended";
      return done(walk, { type, ...position, key: effect.key, value });
    }
    case "emit": {
      const walk = newWalk(state, graph, effect.matches);
      const { event, payload } = effect;
      const emitted: EventOf<"event.emitted"> = { type: "event.emitted", ...position, event, payload };
      if (effect.wait) emitted.group = walk.nextId++;
      hear(walk, event, { ...onward(dispatch, payload), at: null, group: emitted.group ?? dispatch.group });
      return [...done(walk, emitted), ...answeredBy(pendingInterrupts(state), event, payload)];
    }
    case "step":
      return [{ type: "step.completed", ...position, name: effect.name, value: effect.value }];
    case "stepFailed": {
      const { name, attempt, error, retryInMs } = effect;
      const failed: EventOf<"step.failed"> = { type: "step.failed", ...position, name, attempt, error };
      if (retryInMs !== null) failed.retryInMs = retryInMs;
      return [failed];
    }
    case "sleep":
      return [
        {
          type: "sleep.started",
          ...position,
          forMs: effect.forMs,
          ...(effect.until !== undefined && { until: effect.until }),
        },
      ];
    case "result":
      return [{ type: "result.set", ...position, value: effect.value }];
    case "stopStream":
      return [{ type: "stream.stopped", ...position }];
    case "call":
      return [
        {
          type: "child.started",
          ...position,
          child: effect.child,
          flow: effect.flow,
          ...(effect.input !== undefined && { input: effect.input }),
          ...(effect.leaves && { leaves: true }),
        },
      ];
    case "consume": {
      const { intervention, consumer, status, note, metadata } = effect;
      return [{ type: "intervention.consumed", ...position, id: intervention, consumer, status, note, metadata }];
    }
    case "withdraw": {
      const { interrupt: id, reason } = effect;
      // An answer that came first counts.
      if (state.interrupts.get(id)?.status !== "pending") return [];
      return [{ type: "interrupt.cancelled", ...position, id, reason, withdrawn: true }];
    }
  }
}

/** The whole list that an append makes, which is what `when({ state })` hears. */
function appended(state: ExecutionState, key: string, item: Json): Json {
  const values: JsonObject = { [key]: copyJson(getPath(state.values, key) ?? []) };
  appendPath(values, key, item);
  return values[key] ?? null;
}
