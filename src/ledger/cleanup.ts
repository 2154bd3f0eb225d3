/** What a cancel leaves to do before the close: `onCancel` handlers, each a dispatch of its own. Pure. */
import type { Graph } from "../flow/graph.ts";
import type { SerializedError } from "../base/errors.ts";
import type { Json } from "../base/json.ts";
import type { EventOf, LedgerEvent } from "./event.ts";
import { goesOnTo } from "./pauses.ts";
import { isItem, type ExecutionState } from "./state.ts";
import type { Dispatch } from "./parts.ts";

/** Where such a dispatch stands: at no node, and nothing follows from it. */
export const cleanupNode = "onCancel";

type Run = EventOf<"cleanup.planned">["runs"][number];

/** Handlers are planned that have not ended: the close waits for them. */
export function isCleaning({ cancelling, dispatches }: ExecutionState): boolean {
  if (!cancelling?.isCleaned) return false;
  for (const { cleanup } of dispatches.values()) if (cleanup) return true;
  return false;
}

/**
 * One for each dispatch that is open or paused and whose chunk has a handler, and the flow's own; none where there is nothing to do.
 * Open is also what an answer calls again that was accepted and not routed yet; what an operator gave the output of has ended.
 */
export function planCleanup(state: ExecutionState, graph: Graph): LedgerEvent[] {
  const { cancelling, dispatches, interrupts, inbox } = state;
  if (!cancelling || cancelling.isCleaned) return [];
  const has = (chunk: string | null): chunk is string => chunk !== null && !!graph.chunks.get(chunk)?.options.onCancel;
  let id = state.nextId;
  const runs: Run[] = [];
  // The ledger does not say whether an attempt has begun, so every open dispatch is cleaned up.
  for (const { id: of, chunk, isSkipped } of dispatches.values())
    if (!isSkipped && has(chunk)) runs.push({ id: id++, chunk, of });
  const isCalled = (id: string) => inbox.some((arrival) => arrival.kind === "resume" && arrival.interrupt === id);
  for (const pause of interrupts.values()) {
    const { id: interrupt, chunk, status, paused } = pause;
    const isOpen = status === "pending" || (goesOnTo(pause) === "self" && isCalled(interrupt));
    if (isOpen && paused && has(chunk)) runs.push({ id: id++, chunk, interrupt });
  }
  // An item is part of its parent, which runs the flow's handler.
  if (graph.onCancel && !isItem(state)) runs.push({ id: id++ });
  return runs.length === 0 ? [] : [{ type: "cleanup.planned", runs }];
}

/** What the handler's chunk was given; the flow's own gets nothing. */
export function cleanupInput({ dispatches, interrupts }: ExecutionState, { of, interrupt }: Run): Json {
  if (of !== undefined) return dispatches.get(of)?.input ?? null;
  return interrupt === undefined ? null : (interrupts.get(interrupt)?.paused?.input ?? null);
}

interface Ended {
  readonly dispatch: number;
  readonly times?: Times | undefined;
}
interface Times {
  readonly queuedAt: number;
  readonly startedAt: number;
}

/** How an attempt ended, as the command says. */
export type AttemptEnd =
  | (Ended & { readonly type: "complete" | "pause" })
  | (Ended & { readonly type: "fail"; readonly error: SerializedError });

/** How a handler ends, where the command is about one: nothing is routed, and a failure fails nothing else. */
export function cleanupEnd({ dispatches }: ExecutionState, command: AttemptEnd): LedgerEvent[] | null {
  const dispatch = dispatches.get(command.dispatch);
  if (!dispatch?.cleanup) return null;
  const place = placeOf(dispatch, command.times);
  switch (command.type) {
    case "complete":
      return [{ type: "cleanup.completed", ...place }];
    case "fail":
      return [{ type: "cleanup.failed", ...place, error: command.error }];
    case "pause": {
      const message = `onCancel of "${place.chunk}" called pauseFor(): the execution is being cancelled, so nobody can answer`;
      return [{ type: "cleanup.failed", ...place, error: { name: "UsageError", message, code: "USAGE_INVALID" } }];
    }
  }
}

function placeOf({ id, chunk, node }: Dispatch, times: Times | undefined) {
  return { dispatch: id, chunk: chunk ?? node, ...times };
}
