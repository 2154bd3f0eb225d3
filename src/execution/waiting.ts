/** Waiting for an execution with a limit, or until a signal aborts: only the waiting ends, the execution goes on. */
import { parseDuration } from "../base/duration.ts";
import type { Duration } from "../base/duration.ts";
import { WaitTimeoutError } from "../base/errors.ts";
import { requireSignal } from "../base/option.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Ending, Outcomes } from "./outcomes.ts";

/** Of what waits for an execution, and can stop waiting: the execution goes on. */
export interface WaitingOptions {
  /** How long to wait; null waits for ever. The execution goes on when it passes. @default null */
  readonly timeout?: Duration | null | undefined;
  /** Ends the waiting with its reason when it aborts. The execution goes on. @default none */
  readonly signal?: AbortSignal | undefined;
}

/** Options of a wait, checked. */
export interface Waiting {
  readonly timeoutMs: number | null;
  readonly signal: AbortSignal | undefined;
}

/**
 * @param where names the call for the error, e.g. `waitForClose()`
 * @throws {UsageError} no duration, no signal
 */
export function requireWaiting({ timeout, signal }: WaitingOptions, where: string, name = "timeout"): Waiting {
  return {
    timeoutMs: timeout == null ? null : parseDuration(timeout, `${name} of ${where}`),
    signal: signal === undefined ? undefined : requireSignal(signal, `signal of ${where}`),
  };
}

/**
 * Resolves when the execution has closed.
 *
 * @throws {WaitTimeoutError} the time is over; or the signal's reason
 */
export async function untilClosed(
  outcomes: Outcomes,
  id: ExecutionId,
  { timeoutMs, signal }: Waiting,
  { flow, isNew = false }: { readonly flow: string; readonly isNew?: boolean },
): Promise<Ending> {
  signal?.throwIfAborted();
  const ending = await outcomes.closed(id, { timeoutMs, flow, isNew, ...(signal && { signal }) });
  if (ending) return ending;
  signal?.throwIfAborted();
  throw new WaitTimeoutError(id, timeoutMs ?? 0);
}
