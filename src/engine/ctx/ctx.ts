/** `ctx`, put together from its parts: read, state, events, people, calls; and here the rest. */
import { toJson, type Json } from "../../base/json.ts";
import type { Ctx, FlowDataWriteOptions, Logger } from "../../flow/context.ts";
import type { Graph, NodeId } from "../../flow/graph.ts";
import { bound } from "../../telemetry/log.ts";
import { own, type CtxAttempt } from "./attempt.ts";
import type { SubFlowCtx } from "../child.ts";
import { requireFlowData } from "../flow-data.ts";
import { CallsCtx } from "./calls.ts";

export class ChunkCtx extends CallsCtx implements Ctx, SubFlowCtx {
  #log: Logger | undefined;

  /** @param parsed the input, where the chunk has a contract for it */
  constructor(attempt: CtxAttempt, parsed: Json | undefined) {
    super(attempt, parsed === undefined ? attempt.input : parsed);
  }

  get chunk() {
    return this[own].chunk.name;
  }
  get event() {
    return eventOf(this[own].host.graph, this[own].dispatch.node);
  }
  get attempt() {
    return this[own].number;
  }
  get idempotencyKey() {
    return this[own].idempotencyKey;
  }
  get traceparent() {
    return this[own].trace?.traceparent ?? null;
  }
  get signal() {
    return this[own].signal;
  }
  get log() {
    const { host, chunk, number, trace } = this[own];
    const { id, flow } = host.info;
    return (this.#log ??= bound(host.userLog, () => ({
      executionId: id,
      flow,
      chunk: chunk.name,
      attempt: number,
      ...trace?.ids,
    })));
  }

  get setFlowData() {
    return (key: string, value: unknown, options?: FlowDataWriteOptions) =>
      this.#flowData("setFlowData", key, options, (data) => data.set(key, toJson(value, `flow data "${key}"`)));
  }
  get appendFlowData() {
    return (key: string, value: unknown, options?: FlowDataWriteOptions) =>
      this.#flowData("appendFlowData", key, options, (data) => data.append(key, toJson(value, `flow data "${key}"`)));
  }
  get delFlowData() {
    return (key: string, options?: FlowDataWriteOptions) =>
      this.#flowData("delFlowData", key, options, (data) => data.delete(key));
  }

  async #flowData(
    method: string,
    key: string,
    options: FlowDataWriteOptions | undefined,
    work: (data: CtxAttempt["host"]["flowData"]) => Promise<void>,
  ): Promise<void> {
    requireFlowData(method, key, options);
    return this[own].durable(`${method}()`, () => this[own].busy(() => work(this[own].host.flowData)));
  }
}

/** Where a chain began, by the graph alone: the event of the single-event `when` that leads to the node. */
const eventsByNode = new WeakMap<Graph, ReadonlyMap<NodeId, string>>();

function eventOf(graph: Graph, id: NodeId): string | null {
  let byNode = eventsByNode.get(graph);
  if (!byNode) {
    const found = new Map<NodeId, string>();
    for (const node of graph.nodes.values()) {
      if (node.kind !== "when" || !("events" in node.trigger) || node.trigger.events.length !== 1) continue;
      const [event = ""] = node.trigger.events;
      const pending = [...node.next];
      for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
        if (found.has(next)) continue;
        found.set(next, event);
        const here = graph.nodes.get(next);
        if (here) pending.push(...successors(here));
      }
    }
    byNode = found;
    eventsByNode.set(graph, byNode);
  }
  return byNode.get(id) ?? null;
}

function successors(node: NonNullable<ReturnType<Graph["nodes"]["get"]>>): NodeId[] {
  switch (node.kind) {
    case "match":
      return [...node.cases.flatMap(({ entry }) => entry), ...node.otherwise];
    case "batch":
      return node.branches.map(({ entry }) => entry);
    case "forEach":
      return [...node.entry];
    default:
      return [...node.next];
  }
}
