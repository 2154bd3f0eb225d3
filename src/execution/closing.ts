/** `close()`: asks for the end, and waits until it has come or something stands in its way. */
import { parseDuration } from "../base/duration.ts";
import { ChunksParkedError, DrainTimeoutError, PendingInterruptsError, PermissionError } from "../base/errors.ts";
import { requireKnown, requireOneOf } from "../base/option.ts";
import type { JsonObject } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { requireWords, type CloseOptions } from "./command-options.ts";
import type { ExecutionHost } from "./host.ts";
import { listPendingInterrupts } from "./interrupt.ts";
import { errorOf } from "./outcomes.ts";

/** @throws {ChunksParkedError | PendingInterruptsError | DrainTimeoutError | ExecutionFailedError | UsageError} */
export async function close(
  host: ExecutionHost,
  id: ExecutionId,
  flow: string,
  options: CloseOptions,
): Promise<JsonObject> {
  const { store, outcomes } = host;
  requireKnown(options, ["timeout", "pendingInterrupts", "parked", "reason", "actor"], "close()");
  const { pendingInterrupts = "reject", parked = "reject", reason = "manual", actor = null } = options;
  const { timeout = null } = options;
  const timeoutMs = timeout === null ? null : parseDuration(timeout, "timeout of close()");
  requireOneOf(pendingInterrupts, ["reject", "cancel"], "pendingInterrupts of close()");
  requireOneOf(parked, ["reject", "fail"], "parked of close()");
  requireWords({ ...options, reason }, "close()");
  await store.commands.close(id, { reason, pendingInterrupts, parked, actor });
  store.wakeups.notifyOwner(id);
  // `cancel` and `fail` end what pauses or parks on the way; only `reject` makes the close stop at it.
  const stops = { pause: pendingInterrupts === "reject", park: parked === "reject" };
  const until = (header: { pendingInterrupts: number; parked: number; owner: unknown }) =>
    header.owner === null && ((stops.pause && header.pendingInterrupts > 0) || (stops.park && header.parked > 0));
  const ending = await outcomes.closed(id, { timeoutMs, until, flow });
  if (!ending) {
    const left = stops.park ? await store.operators.parked(id).catch(unseen) : [];
    if (left.length > 0) throw new ChunksParkedError(id, left);
    const waiting = stops.pause ? await listPendingInterrupts(host, id).catch(unseen) : [];
    const ids = waiting.map((interrupt) => interrupt.id);
    if (ids.length > 0) throw new PendingInterruptsError(id, ids);
    throw new DrainTimeoutError(id, timeoutMs ?? 0);
  }
  if (ending.outcome === "failed") throw errorOf(id, ending);
  return ending.snapshot;
}

/** A client may not look at what is left of an execution. */
function unseen(error: unknown): [] {
  if (error instanceof PermissionError) return [];
  throw error;
}
