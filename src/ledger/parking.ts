/** What follows when an attempt has failed: another one, the end, or a chunk that waits for an operator. */
import { failing, parking, type FailurePolicy } from "../flow/failure.ts";
import type { Graph } from "../flow/graph.ts";
import type { SerializedError } from "../base/errors.ts";
import type { EventOf, LedgerEvent } from "./event.ts";
import type { ExecutionState } from "./state.ts";
import type { Dispatch } from "./parts.ts";

/**
 * Of the chunk, or of what has none: a sub-flow or a condition. A distributed collection has none, as its items park themselves:
 * one of them has failed because its chunk says so.
 */
export function failurePolicyOf(graph: Graph, { chunk, node }: Pick<Dispatch, "chunk" | "node">): FailurePolicy {
  const here = chunk === null ? graph.nodes.get(node)?.kind : undefined;
  if (here === "forEach" || here === "batch") return failing;
  const own = chunk === null ? undefined : graph.chunks.get(chunk)?.options.onFailure;
  // A failed notice must not fail the question that it tells of.
  return own ?? (graph.telling.has(node) ? parking : graph.onFailure);
}

/** Does it park now? Nobody could retry it in a hidden execution, and what ends already does not wait for it. */
export function parksOnFailure(
  state: ExecutionState,
  graph: Graph,
  dispatch: Pick<Dispatch, "chunk" | "node">,
): boolean {
  if (state.settings.hidden || state.failing || state.cancelling || state.closing?.failsParked) return false;
  return failurePolicyOf(graph, dispatch).parks;
}

/** @param retryInMs null: that was the last attempt */
export function failed(
  state: ExecutionState,
  graph: Graph,
  dispatch: Dispatch,
  error: SerializedError,
  retryInMs: number | null,
  times?: Pick<EventOf<"chunk.failed">, "queuedAt" | "startedAt" | "turns">,
): LedgerEvent[] {
  const failure = {
    dispatch: dispatch.id,
    chunk: dispatch.chunk ?? dispatch.node,
    attempt: dispatch.failures + 1,
    ...times,
    error,
  };
  if (retryInMs !== null) return [{ type: "chunk.failed", ...failure, retryInMs }];
  if (!parksOnFailure(state, graph, dispatch)) return [{ type: "chunk.failed", ...failure }];
  const parked: EventOf<"chunk.parked"> = { type: "chunk.parked", ...failure };
  const { afterMs } = failurePolicyOf(graph, dispatch);
  return [afterMs === null ? parked : { ...parked, failInMs: afterMs }];
}

/** What has been parked for as long as it may, or that a close does not wait for: it fails in the end. */
export function parkedToFail(state: ExecutionState, now: number): LedgerEvent[] {
  const events: LedgerEvent[] = [];
  for (const [id, { until }] of state.parked) {
    const dispatch = state.dispatches.get(id);
    if (!dispatch || (!state.closing?.failsParked && (until === null || until > now))) continue;
    const { chunk, node, failures, lastError } = dispatch;
    const error = lastError ?? { name: "Error", message: "no error was kept" };
    events.push({ type: "chunk.failed", dispatch: id, chunk: chunk ?? node, attempt: failures, error });
  }
  return events;
}

/** When the next of the parked ones fails in the end: milliseconds since 1970. */
export function nextParkedToFail({ parked }: ExecutionState): number | null {
  let next: number | null = null;
  for (const { until } of parked.values()) if (until !== null && (next === null || until < next)) next = until;
  return next;
}

/** The chunk that took worker after worker down, as far as anybody can say: the first that could run. */
export function suspectOf(state: ExecutionState): Dispatch | null {
  for (const dispatch of state.dispatches.values())
    if (dispatch.chunk !== null && !state.parked.has(dispatch.id)) return dispatch;
  return null;
}
