/** A value's way through the graph, as far as it goes before user code runs: which moves it leads to. Pure. */
import { UsageError } from "../base/errors.ts";
import type { Json, JsonObject } from "../base/json.ts";
import type { Graph, Node, NodeId, WhenNode } from "../flow/graph.ts";
import type { Matches } from "./command.ts";
import type { LedgerEvent } from "./event.ts";
import type { Move, Position, Source } from "./move.ts";
import { collected, itemsOf, type ExecutionState } from "./state.ts";
import type { Dispatch, Frame } from "./parts.ts";

/** A value on its way through the graph. */
export interface Token {
  readonly value: Json;
  readonly from?: Source;
  readonly at: Position | null;
  readonly scope: string | null;
  readonly group: number | null;
  readonly begins?: boolean;
}

/** One routing decision in the making. */
export interface Walk {
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

export function newWalk(state: ExecutionState, graph: Graph, matches: Matches | undefined): Walk {
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

export function done(walk: Walk, event: Routing): LedgerEvent[] {
  const routed: LedgerEvent = walk.moves.length === 0 ? event : { ...event, moves: walk.moves };
  return walk.inserted.length === 0 ? [routed] : [...walk.inserted, routed];
}

export function onward(dispatch: Dispatch, value: Json): Token {
  return { value, at: dispatch.at, scope: dispatch.scope, group: dispatch.group };
}

export function enterAll(walk: Walk, ids: readonly NodeId[], token: Token): void {
  for (const id of ids) enter(walk, id, token);
}

export function enter(walk: Walk, id: NodeId, token: Token): void {
  const here = node(walk.graph, id);
  switch (here.kind) {
    case "chunk":
    case "subFlow":
      insertBefore(walk, here);
      walk.moves.push(run(walk, id, token));
      return;
    case "match": {
      const matches = token.from === undefined ? walk.matches?.get(id) : undefined;
      // The owner could evaluate only values that it had; the match of a collected value is a turn of its own.
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
      const entries = here.entry.map((entry) => nodeRef(walk.graph, entry));
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
      // An item's final result goes to its parent.
      if (!walk.state.item) walk.moves.push(finalResult(token));
      enterAll(walk, here.next, token);
      return;
    case "when":
      enterAll(walk, here.next, token);
  }
}

export function hear(walk: Walk, event: string, token: Token): void {
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

export function run(walk: Walk, id: NodeId, token: Token): Extract<Move, { move: "run" }> {
  const move: Extract<Move, { move: "run" }> = { move: "run", id: walk.nextId++, ...nodeRef(walk.graph, id) };
  if (token.begins) move.begins = true;
  return travelling(move, token);
}

function nodeRef(graph: Graph, id: NodeId): { node: string; chunk?: string } {
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

export function completeFrame(walk: Walk, frame: Frame, end: NodeId): void {
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

export function node(graph: Graph, id: NodeId): Node {
  const found = graph.nodes.get(id);
  if (!found) throw new Error(`node ${id} is not in the graph`);
  return found;
}

export function requireFrame(walk: Walk, id: number): Frame {
  const frame = walk.opened.get(id) ?? walk.state.frames.get(id);
  if (!frame) throw new Error(`collection ${id} is not open`);
  return frame;
}
