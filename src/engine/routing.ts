/** Conditions are the user's code: they are asked here, before `decide`, for a value that is about to travel. */
import { isDeepStrictEqual } from "node:util";
import type { Predicate } from "../flow/context.ts";
import type { Graph, MatchNode, Node, NodeId } from "../flow/graph.ts";
import type { Matches } from "../ledger/command.ts";
import type { Json } from "../base/json.ts";

type ReadCtx = Parameters<Predicate>[0];

/** May a value that enters these nodes meet a condition before it is collected or reaches a chunk? */
export function meetsMatch(graph: Graph, ids: readonly NodeId[]): boolean {
  for (const id of ids) {
    const node = graph.nodes.get(id);
    if (!node || node.kind === "chunk") continue;
    if (node.kind === "match") return true;
    if (
      node.kind === "batch" &&
      meetsMatch(
        graph,
        node.branches.map(({ entry }) => entry),
      )
    )
      return true;
    if (passesOn(graph, node) && meetsMatch(graph, node.next)) return true;
  }
  return false;
}

/** Which cases the value fits at every match it meets on its way, each asked once. */
export async function askConditions(
  graph: Graph,
  ids: readonly NodeId[],
  value: Json,
  makeCtx: (value: Json) => ReadCtx,
): Promise<Matches> {
  const matches = new Map<NodeId, readonly number[]>();
  const visit = async (id: NodeId): Promise<void> => {
    const node = graph.nodes.get(id);
    if (!node || node.kind === "chunk" || matches.has(id)) return;
    if (node.kind === "match") {
      const hit = await askMatch(graph, node, value, makeCtx);
      matches.set(id, hit);
      const entered = hit.length === 0 ? node.otherwise : hit.flatMap((index) => node.cases[index]?.entry ?? []);
      for (const next of entered) await visit(next);
    } else if (node.kind === "batch") {
      for (const { entry } of node.branches) await visit(entry);
    } else if (passesOn(graph, node)) {
      for (const next of node.next) await visit(next);
    }
  };
  for (const id of ids) await visit(id);
  return matches;
}

async function askMatch(
  graph: Graph,
  node: MatchNode,
  value: Json,
  makeCtx: (value: Json) => ReadCtx,
): Promise<number[]> {
  const matches: number[] = [];
  for (const [index, { test }] of node.cases.entries()) {
    // Only `true` counts: a condition that returns some object must not let a payment through.
    const isHit =
      "predicate" in test
        ? (await graph.predicates.get(test.predicate)?.(makeCtx(value))) === true
        : isDeepStrictEqual(test.equals, value);
    if (!isHit) continue;
    matches.push(index);
    if (node.mode === "first") break;
  }
  return matches;
}

/** Does the value leave this node unchanged? */
function passesOn(graph: Graph, node: Node): boolean {
  if (node.kind === "endMatch") {
    const opener = graph.nodes.get(node.of);
    return opener?.kind === "match" && opener.mode === "first";
  }
  return node.kind === "finalResult" || node.kind === "interventionPoint" || node.kind === "when";
}
