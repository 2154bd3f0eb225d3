/** Runs `onCancel` handlers like chunks: once, with steps and state, and with nothing behind them. */
import { resolveRetry } from "../flow/retry.ts";
import type { Chunk, Graph } from "../flow/graph.ts";
import type { Dispatch } from "../ledger/parts.ts";
import { serializeError } from "./retries.ts";
import type { Command } from "../ledger/command.ts";

const once = resolveRetry(undefined, "onCancel");

/** Undefined where this version of the flow has no such handler any more. */
export function cleanupChunk({ chunks, onCancel }: Graph, { chunk, node }: Dispatch): Chunk | undefined {
  const known = chunk === null ? undefined : chunks.get(chunk);
  const handler = chunk === null ? onCancel : known?.options.onCancel;
  if (!handler) return undefined;
  const input = known?.options.input ?? null;
  return {
    name: chunk ?? node,
    handler,
    options: { retry: once, timeoutMs: null, onFailure: null, input, output: null },
  };
}

export function goneCommand({ id, chunk, node }: Dispatch): Command {
  return failed(id, new Error(`this version of the flow has no onCancel for "${chunk ?? node}" any more`));
}

export function overdueCommand({ id, chunk, node }: Dispatch, graceMs: number): Command {
  const error = new Error(`onCancel of "${chunk ?? node}" did not end within the cancelGrace of ${graceMs} ms`);
  error.name = "CleanupTimeoutError";
  return failed(id, error);
}

function failed(dispatch: number, error: Error): Command {
  return { type: "fail", dispatch, error: serializeError(error), retryInMs: null };
}
