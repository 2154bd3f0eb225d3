/** What is read of the past of a claimed execution before it goes on. */
import type { Timers } from "../base/timers.ts";
import type { Items } from "../engine/items.ts";
import { readBlueprint } from "../flow/blueprint.ts";
import type { Logger } from "../flow/context.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { repeatWrites } from "../ledger/parts.ts";
import { fitVersion, type Fit } from "../ledger/version.ts";
import { withAnswerLimit } from "../store/batcher.ts";
import type { Claim } from "../store/claims.ts";
import type { Store } from "../store/store.ts";
import { traceIdOf } from "../telemetry/traceparent.ts";

/** Whether a claimed execution can go on by this worker's version of its flow. */
export async function fitOf({ reads }: Store, claimed: Claim, flow: FlowDefinition): Promise<Fit> {
  if (claimed.fingerprint === null || claimed.fingerprint === flow.fingerprint) return { nodes: {} };
  const kept = await withAnswerLimit(reads.definition(flow.name, claimed.fingerprint));
  if (kept === null) return { problem: "the definition it ran by was not kept" };
  const before = new Map(readBlueprint(kept).nodes.map((node) => [node.id, node]));
  return fitVersion(claimed.state, before, flow.graph);
}

/** When the last stream items were put, by `Timers.monotonic()`: a new owner goes on counting for the rate. */
export async function recentPuts(
  { streams }: Store,
  { id, items }: Claim,
  { streamLimits: { rate } }: FlowDefinition,
  timers: Timers,
): Promise<number[]> {
  if (!rate || items === 0) return [];
  const ages = await withAnswerLimit(streams.recentPuts(id, rate.limit, rate.perMs));
  const now = timers.monotonic();
  return ages.map((age) => now - age);
}

/** An item reads what its parent was started with, and the state that it had when it fanned out, under what it wrote itself. */
export async function readParent(items: Items, log: Logger, { id, flow, state }: Claim): Promise<boolean> {
  const { item, parent, writes = [] } = state;
  if (!item || !parent) return true;
  try {
    const { values, startInput } = await items.parentAtFanOut(parent.id, parent.dispatch);
    if (item.readsState) state.values = repeatWrites(structuredClone(values), writes);
    state.startInput = startInput;
    return true;
  } catch (error) {
    log.error("the parent of an item cannot be read", {
      executionId: id,
      flow,
      ...traceIdOf(state.trace),
      error: String(error),
    });
    return false;
  }
}
