/** Whether an execution can go on by another version of its flow: what it stands at has to be there. */
import { canonical } from "../base/json.ts";
import type { Graph, Node, NodeId } from "../flow/graph.ts";
import type { ExecutionState } from "./state.ts";

export type Fit =
  /** The nodes it stands at have other names in the new version. */
  { readonly nodes: Readonly<Record<NodeId, NodeId>> } | { readonly problem: string };

/**
 * Finds the places where an execution stands in another version of its flow. A chunk, sub-flow or condition is found by what
 * it is, also when it has moved; an open batch, forEach, match or join only where it is as it was.
 *
 * @param before the nodes of the version it ran by
 */
export function fitVersion(state: ExecutionState, before: ReadonlyMap<NodeId, Node>, after: Graph): Fit {
  const nodes: Record<NodeId, NodeId> = {};
  // An item runs what is between a collection and its end.
  const open = [...state.frames.values(), ...(state.item ? [state.item] : [])];
  for (const { node } of open) {
    const changed = changedIn(node, before, after);
    if (changed !== null) return { problem: `the open ${changed} is another one now` };
  }
  for (const join of state.joins.keys()) {
    const id = join.slice(0, join.indexOf("@"));
    if (!isSame(before.get(id), after.nodes.get(id)))
      return { problem: `the half-filled join ${nameOf(before.get(id), id)} is gone` };
  }
  const isFixed = open.length > 0;
  for (const id of standsAt(state)) {
    const old = before.get(id);
    const found = old && (isSame(old, after.nodes.get(id)) ? id : isFixed ? null : onlyTwin(old, before, after));
    if (!found) return { problem: `${nameOf(old, id)} is gone` };
    if (found !== id) nodes[id] = found;
  }
  return { nodes };
}

function standsAt(state: ExecutionState): Set<NodeId> {
  const ids = new Set<NodeId>();
  for (const { node } of state.dispatches.values()) ids.add(node);
  for (const { paused } of state.interrupts.values()) if (paused) ids.add(paused.node);
  for (const arrival of state.inbox) if (arrival.kind === "skip" && arrival.paused) ids.add(arrival.paused.node);
  return ids;
}

/** The node of the new version that does the same, where there is one and there was one. */
function onlyTwin(old: Node, before: ReadonlyMap<NodeId, Node>, after: Graph): NodeId | null {
  const [twin, ...others] = [...after.nodes.values()].filter((node) => isSame(old, node));
  const isAlone = [...before.values()].filter((node) => isSame(old, node)).length === 1;
  return twin && others.length === 0 && isAlone ? twin.id : null;
}

/** The opener's name, when anything between it and its end has changed. */
function changedIn(opener: NodeId, before: ReadonlyMap<NodeId, Node>, after: Graph): string | null {
  const first = before.get(opener);
  if (!first || !("end" in first)) return nameOf(first, opener);
  const open = [...inside(first)];
  const seen = new Set<NodeId>([opener, first.end]);
  const isEqual =
    isSame(first, after.nodes.get(opener)) && canonical(inside(first)) === canonical(inside(after.nodes.get(opener)));
  if (!isEqual || !isSame(before.get(first.end), after.nodes.get(first.end))) return nameOf(first, opener);
  for (let id = open.pop(); id !== undefined; id = open.pop()) {
    if (seen.has(id)) continue;
    seen.add(id);
    const node = before.get(id);
    if (!node || canonical(node) !== canonical(after.nodes.get(id))) return nameOf(first, opener);
    open.push(...inside(node), ...node.next);
  }
  return null;
}

function inside(node: Node | undefined): readonly NodeId[] {
  switch (node?.kind) {
    case "match":
      return [...node.cases.flatMap(({ entry }) => entry), ...node.otherwise, node.end];
    case "batch":
      return [...node.branches.map(({ entry }) => entry), node.end];
    case "forEach":
      return [...node.entry, node.end];
    default:
      return [];
  }
}

/** Do both do the same, wherever they stand and lead? */
function isSame(a: Node | undefined, b: Node | undefined): boolean {
  return a !== undefined && b !== undefined && canonical(ownPart(a)) === canonical(ownPart(b));
}

function ownPart(node: Node): unknown {
  switch (node.kind) {
    case "match":
      return [node.kind, node.mode, node.cases.map(({ test }) => test)];
    case "batch":
      return [node.kind, node.distribute, node.branches.map(({ key }) => key)];
    case "forEach":
      return [node.kind, node.distribute];
    case "endMatch":
    case "endBatch":
    case "endForEach":
      return [node.kind, node.of];
    case "when":
      return [node.kind, node.trigger, node.mode];
    case "chunk":
      return [node.kind, node.chunk];
    // What it captures and writes back may change: the new version's counts.
    case "subFlow":
      return [node.kind, node.flow];
    case "interventionPoint":
      return [node.kind, node.name];
    case "finalResult":
      return [node.kind];
  }
}

function nameOf(node: Node | undefined, id: NodeId): string {
  if (node?.kind === "chunk") return `chunk "${node.chunk}"`;
  if (node?.kind === "subFlow") return `sub-flow "${node.flow}"`;
  return node ? `${node.kind} ${id}` : `node ${id}`;
}
