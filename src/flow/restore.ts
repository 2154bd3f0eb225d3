/** A blueprint with its live parts again: the handlers and sub-flows that it only names. */
import { requireList, requireRecord, showWhole, type Refuse } from "../base/option.ts";
import type { Blueprint } from "./blueprint.ts";
import type { ChunkHandler, Predicate, RetryOptions } from "./context.ts";
import { requireFlow } from "./contract.ts";
import type { ChunkParts } from "./chunk-parts.ts";
import type { FlowDefinition, InterventionPoint } from "./definition.ts";
import { optionsOf } from "./failure.ts";
import type { NodeId } from "./graph.ts";
import { link, resolved, shellOf, type Step } from "./steps.ts";

export interface Restored {
  readonly onCancel: ChunkHandler | null;
  readonly chunks: readonly ChunkParts[];
  readonly subFlows: readonly FlowDefinition[];
  readonly points: readonly InterventionPoint[];
  readonly steps: readonly Step[];
  readonly roots: readonly Step[];
}

/** What handlers for a cancel are called beside those of a blueprint's chunks. */
const cleanupName = "onCancel";

/** @throws {DefinitionError} naming the handler or sub-flow that is missing */
export function restored(
  blueprint: Blueprint,
  handlers: Readonly<Record<string, unknown>>,
  subFlows: readonly FlowDefinition[],
  refuse: Refuse,
): Restored {
  requireRecord(handlers, "handlers of fromBlueprint()", refuse);
  requireList(subFlows, "subFlows of fromBlueprint()", requireFlow, refuse);
  const live = (name: string, what: string): unknown => {
    const given = Object.hasOwn(handlers, name) ? handlers[name] : undefined;
    if (typeof given === "function") return given;
    return refuse(
      `the handler of ${what} ${showWhole(name)} is missing`,
      `give it to fromBlueprint() as { ${showWhole(name)}: function }`,
    );
  };
  const onCancel = blueprint.onCancel ? (live(cleanupName, "cancel") as ChunkHandler) : null;
  const chunks = blueprint.chunks.map((chunk) => ({
    name: chunk.name,
    handler: live(chunk.name, "chunk") as ChunkHandler,
    options: {
      retry: retryOptions(chunk.retry),
      timeout: chunk.timeoutMs,
      ...(chunk.onCancel && { onCancel: live(`${chunk.name}.${cleanupName}`, "chunk") }),
      ...optionsOf(chunk.onFailure),
    },
  }));
  const children = blueprint.subFlows.map(
    (name) =>
      subFlows.find((flow) => flow.name === name) ??
      refuse(`sub-flow ${showWhole(name)} of the blueprint is missing`, "give it in subFlows"),
  );
  const steps = new Map<NodeId, Step>(blueprint.nodes.map((node) => [node.id, shellOf(node)]));
  for (const node of blueprint.nodes) link(node, steps, (name) => live(name, "condition") as Predicate);
  return {
    onCancel,
    chunks,
    subFlows: children,
    points: blueprint.nodes.flatMap((node) =>
      node.kind === "interventionPoint" ? { name: node.name, target: node.target } : [],
    ),
    steps: [...steps.values()],
    roots: resolved(blueprint.roots, steps),
  };
}

function retryOptions(retry: Blueprint["chunks"][number]["retry"]): RetryOptions {
  const { maxAttempts, initialIntervalMs, multiplier, maxIntervalMs, waitsMs, jitter } = retry;
  if (waitsMs) return { waits: waitsMs, jitter };
  return { maxAttempts, initialInterval: initialIntervalMs, multiplier, maxInterval: maxIntervalMs, jitter };
}
