/** Where what came in from outside goes: a start, an event, an answer, an operator's output. Pure. */
import type { Graph, NodeId } from "../flow/graph.ts";
import type { Command } from "./command.ts";
import type { EventOf, LedgerEvent } from "./event.ts";
import { goesOnTo } from "./pauses.ts";
import type { ExecutionState } from "./state.ts";
import type { Arrival } from "./parts.ts";
import { done, enterAll, hear, newWalk, node, run, type Walk } from "./walk.ts";

export function route(
  state: ExecutionState,
  graph: Graph,
  command: Extract<Command, { type: "route" }>,
): LedgerEvent[] {
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
        // An event had answered at the same moment. The accepted answer still reaches the event's handlers.
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
