/** What a routing decision does to the state: dispatches are planned, collections open and fill, values wait for their partners. */
import type { Json } from "../base/json.ts";
import { plan } from "./dispatches.ts";
import type { Move } from "./move.ts";
import { itemsOf, valueOf, type ExecutionState } from "./state.ts";

/** @param value of the event that carries the moves */
export function apply(state: ExecutionState, moves: readonly Move[] | undefined, value: Json, plannedAt: number): void {
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
function itemScope(frame: number, index: number): string {
  return `${frame}.${index}`;
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

/** The dispatches that moves plan. */
export function forEachPlanned(moves: readonly Move[], visit: (id: number) => void): void {
  for (const move of moves) {
    if (move.move === "run") visit(move.id);
    else if (move.move === "open" && move.entries)
      for (let offset = 1; offset <= move.size * move.entries.length; offset++) visit(move.id + offset);
  }
}

function unreachable(move: never): never {
  throw new Error(`unknown move: ${JSON.stringify(move)}`);
}
