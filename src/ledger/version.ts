/** Whether an execution can go on by another version of its flow: what it stands at has to be there. */
import { canonical } from "../base/json.ts";
import type { Graph, Node, NodeId } from "../flow/graph.ts";
import type { ExecutionState } from "./state.ts";

export type Fit =
  /** The nodes it stands at have other names in the new version. */
  { readonly nodes: Readonly<Record<NodeId, NodeId>> } | { readonly problem: string };

interface Version {
  readonly nodes: ReadonlyMap<NodeId, Node>;
  /** What each node does, wherever it stands and leads. */
  readonly own: ReadonlyMap<NodeId, string>;
  /** The same without the names of conditions, which tell what they come after: in a block, what is in it tells them apart. */
  readonly unnamed: ReadonlyMap<NodeId, string>;
  /** Nodes of the bodies of collections. */
  readonly inside: ReadonlySet<NodeId>;
}

/**
 * Finds the places where an execution stands in another version of its flow. A chunk, sub-flow, condition or join is found by what
 * it is, also when it has moved, but not into a collection or out of one, as something else would follow from its end. An open
 * batch, forEach or match is found where all that is in it is as it was.
 *
 * @param nodesBefore the nodes of the version it ran by
 */
export function fitVersion(state: ExecutionState, nodesBefore: ReadonlyMap<NodeId, Node>, graph: Graph): Fit {
  const [before, after] = [versionOf(nodesBefore), versionOf(graph.nodes)];
  /** What the nodes of open collections are called now. */
  const open = new Map<NodeId, NodeId>();
  const problems: string[] = [];
  for (const opener of openersOf(state)) {
    if (open.has(opener)) continue;
    const found = blockNow(opener, before, after);
    found?.forEach((now, id) => open.set(id, now));
    if (!found) problems.push(`the open ${nameOf(before, opener)} is another one now`);
  }
  const nodes: Record<NodeId, NodeId> = {};
  const note = (id: NodeId, found: NodeId | null, problem: () => string) => {
    if (found === null) problems.push(problem());
    else if (found !== id) nodes[id] = found;
  };
  for (const [id, now] of open) note(id, now, String);
  for (const join of state.joins.keys()) {
    const id = nodeOfJoin(join);
    note(id, twinNow(id, before, after), () => `the half-filled join ${nameOf(before, id)} is gone`);
  }
  for (const id of standsAt(state))
    if (!open.has(id)) note(id, twinNow(id, before, after), () => whyNotFound(id, before, after));
  const [problem] = problems;
  return problem === undefined ? { nodes } : { problem };
}

/** @param join the key of a join: its node, and the scope that it pairs in */
export function nodeOfJoin(join: string): NodeId {
  return join.slice(0, join.indexOf("@"));
}

/** Outer collections first. An item runs what is between a collection and its end. */
function openersOf({ item, frames }: ExecutionState): Set<NodeId> {
  const opened = [...frames.values()].toSorted((a, b) => a.id - b.id);
  return new Set([...(item ? [item] : []), ...opened].map(({ node }) => node));
}

function standsAt(state: ExecutionState): Set<NodeId> {
  const ids = new Set<NodeId>();
  for (const { node } of state.dispatches.values()) ids.add(node);
  for (const { paused } of state.interrupts.values()) if (paused) ids.add(paused.node);
  for (const arrival of state.inbox) if (arrival.kind === "skip" && arrival.paused) ids.add(arrival.paused.node);
  return ids;
}

function versionOf(nodes: ReadonlyMap<NodeId, Node>): Version {
  const own = new Map([...nodes].map(([id, node]) => [id, canonical(ownPart(node))]));
  const unnamed = new Map([...nodes].map(([id, node]) => [id, canonical(ownPart(node, true))]));
  const inside = new Set<NodeId>();
  for (const { id, kind } of nodes.values())
    if (kind === "batch" || kind === "forEach") for (const one of blockIn(id, nodes)) if (one !== id) inside.add(one);
  return { nodes, own, unnamed, inside };
}

/** The node of the new version that is this one. */
function twinNow(id: NodeId, before: Version, after: Version): NodeId | null {
  const isTwin = (version: Version) => (other: NodeId) =>
    version.own.get(other) === before.own.get(id) && version.inside.has(other) === before.inside.has(id);
  return sameOf(id, [...before.nodes.keys()].filter(isTwin(before)), [...after.nodes.keys()].filter(isTwin(after)));
}

/** What is in a block, from its opener to its end, with what it is called in the new version; null where any of it has changed. */
function blockNow(opener: NodeId, before: Version, after: Version): ReadonlyMap<NodeId, NodeId> | null {
  const alikeIn = (version: Version) =>
    [...version.nodes.keys()].flatMap((id) => {
      const block = version.inside.has(id) === before.inside.has(opener) && sameBlock(opener, before, id, version);
      return block ? [[id, block] as const] : [];
    });
  const now = new Map(alikeIn(after));
  const found = sameOf(
    opener,
    alikeIn(before).map(([id]) => id),
    [...now.keys()],
  );
  return (found !== null && now.get(found)) || null;
}

/** Of several that are alike the one at the same place among them; where their number has changed, the one that kept its id. */
function sameOf(id: NodeId, before: readonly NodeId[], after: readonly NodeId[]): NodeId | null {
  if (before.length === after.length) return after[before.indexOf(id)] ?? null;
  return after.includes(id) ? id : null;
}

/** Each node of the one block with its node in the other; null where they are not alike. */
function sameBlock(a: NodeId, before: Version, b: NodeId, after: Version): Map<NodeId, NodeId> | null {
  const pairs = new Map([[a, b]]);
  for (const [one, other] of pairs) {
    if (before.unnamed.get(one) !== after.unnamed.get(other)) return null;
    const follow = [following(one, a, before.nodes), following(other, b, after.nodes)] as const;
    if (follow[0].length !== follow[1].length) return null;
    for (const [index, next] of follow[0].entries()) {
      const found = follow[1][index] ?? "";
      if ((pairs.get(next) ?? found) !== found) return null;
      pairs.set(next, found);
    }
  }
  return pairs.size > 1 && new Set(pairs.values()).size === pairs.size ? pairs : null;
}

function blockIn(opener: NodeId, nodes: ReadonlyMap<NodeId, Node>): Set<NodeId> {
  const block = new Set([opener]);
  for (const id of block) for (const next of following(id, opener, nodes)) block.add(next);
  return block;
}

/** What comes next within a block. */
function following(id: NodeId, opener: NodeId, nodes: ReadonlyMap<NodeId, Node>): readonly NodeId[] {
  const node = nodes.get(id);
  const first = nodes.get(opener);
  if (!node || !first || !("end" in first) || id === first.end) return [];
  return id === opener ? entriesOf(node) : [...entriesOf(node), ...node.next];
}

/** Where values enter a block, and its end. */
function entriesOf(node: Node): readonly NodeId[] {
  switch (node.kind) {
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

function ownPart(node: Node, isUnnamed = false): unknown {
  switch (node.kind) {
    case "match":
      return [node.kind, node.mode, node.cases.map(({ test }) => (isUnnamed && "predicate" in test ? null : test))];
    case "batch":
      return [node.kind, node.distribute, node.branches.map(({ key }) => key)];
    case "forEach":
      return [node.kind, node.distribute];
    case "when":
      return [node.kind, node.trigger, node.mode];
    case "chunk":
      return [node.kind, node.chunk];
    // What it captures and writes back may change: the new version's counts.
    case "subFlow":
      return [node.kind, node.flow];
    case "interventionPoint":
      return [node.kind, node.name];
    case "endMatch":
    case "endBatch":
    case "endForEach":
    case "finalResult":
      return [node.kind];
  }
}

function whyNotFound(id: NodeId, before: Version, after: Version): string {
  const name = nameOf(before, id);
  const alike = [...after.nodes.keys()].filter((other) => after.own.get(other) === before.own.get(id));
  if (alike.length === 0) return `${name} is gone`;
  const isInside = before.inside.has(id);
  if (alike.every((other) => after.inside.has(other) !== isInside))
    return `${name} is ${isInside ? "in no" : "part of a"} collection now`;
  return `${name} stands at another number of places now, and nothing tells which of them it is`;
}

function nameOf({ nodes }: Version, id: NodeId): string {
  const node = nodes.get(id);
  if (node?.kind === "chunk") return `chunk "${node.chunk}"`;
  if (node?.kind === "subFlow") return `sub-flow "${node.flow}"`;
  return node ? `${node.kind} ${id}` : `node ${id}`;
}
