/** Waiting for the end of executions: one query for all who wait in this process, and none where this process closed it. */
import { endingError } from "../ledger/views.ts";
import type { CloseHeader } from "../store/append.ts";
import { Batcher } from "../store/batcher.ts";
import type { Header } from "../store/headers.ts";
import type { Reads } from "../store/reads.ts";
import { isEnded } from "../store/refusals.ts";
import type { Store } from "../store/store.ts";
import { ExecutionNotFoundError, NoResumeHandleError, NoWorkerWarning, PermissionError } from "../base/errors.ts";
import { systemTimers as liveness, type Timers } from "../base/timers.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { JsonObject } from "../base/json.ts";

/** How an execution ended. */
export type Ending = CloseHeader & { readonly flow: string };

export interface Outcomes {
  /** What this process closed itself: those who wait get it without a query. */
  deliver(id: ExecutionId, ending: Ending): void;
  /** Resolves when the execution has closed; null when the time runs out. */
  closed(id: ExecutionId, options?: WaitOptions): Promise<Ending | null>;
  header(id: ExecutionId): Promise<Header>;
  /** @throws {PermissionError} this role may not read how it ended */
  endingOf(header: Header): Ending;
  /** Calls back whenever there may be something new; returns how to stop. */
  watch(id: ExecutionId, listener: () => void): () => void;
}

export interface WaitOptions {
  readonly timeoutMs?: number | null;
  /** Also ends the wait with null, e.g. when an interrupt is pending. */
  readonly until?: (header: Header) => boolean;
  readonly flow?: string;
  /** Ends the wait with null. */
  readonly signal?: AbortSignal;
  /** Just made: nobody can have closed it before we listen. */
  readonly isNew?: boolean;
}

/** Long enough for a worker to come up, short enough to notice that none does. */
const noWorkerAfterMs = 5000;

export function openOutcomes({ reads, wakeups }: Store, timers: Timers): Outcomes {
  const waiting = new Map<ExecutionId, Set<(ending: Ending) => void>>();
  const headers = new Batcher<ExecutionId, Header | null>({
    send: async (ids) => {
      const found = await reads.headers([...new Set(ids)]);
      return ids.map((id) => found.get(id) ?? null);
    },
  });
  const header = async (id: ExecutionId): Promise<Header> => {
    const found = await headers.submit(id);
    if (!found) throw new ExecutionNotFoundError(id);
    return found;
  };

  const endingOf = (of: Header): Ending => {
    const { flow, outcome, closeReason, error, closeSnapshot } = of;
    if (closeSnapshot === null) throw reads.hiddenEnd(of);
    return { flow, outcome: outcome ?? "completed", reason: closeReason ?? "", error, snapshot: closeSnapshot };
  };

  const closed = (id: ExecutionId, options: WaitOptions = {}): Promise<Ending | null> => {
    const { promise, resolve, reject } = Promise.withResolvers<Ending | null>();
    const { timeoutMs = null, flow, signal } = options;
    let isChecking = false;
    let isAgain = false;
    let isSettled = false;
    const settle = (ending: Ending | null): void => {
      isSettled = true;
      timer?.cancel();
      warn?.cancel();
      signal?.removeEventListener("abort", end);
      stop();
      local.delete(settle);
      if (local.size === 0) waiting.delete(id);
      resolve(ending);
    };
    const check = async (): Promise<void> => {
      if (isSettled) return;
      isAgain = isChecking;
      if (isChecking) return;
      isChecking = true;
      try {
        const found = await header(id);
        if (isSettled) return;
        if (found.lifecycle === "closed") settle(endingOf(found));
        else if (options.until?.(found)) settle(null);
      } catch (error) {
        // Other trouble is waited out. A closed store does not come back, nor does a missing right.
        const isFinal = error instanceof ExecutionNotFoundError || error instanceof PermissionError;
        if (!isEnded(error) && !isFinal) return;
        reject(error);
        settle(null);
      } finally {
        isChecking = false;
        if (isAgain) void check();
      }
    };
    const local = waiting.get(id) ?? new Set();
    local.add(settle);
    waiting.set(id, local);
    const stop = wakeups.subscribe(id, (isLocal) => {
      // A close by this process delivers its outcome itself.
      if (!isLocal || options.until) void check();
    });
    const end = () => settle(null);
    signal?.addEventListener("abort", end);
    const timer =
      timeoutMs === null ? undefined : timers.after(timeoutMs, end, "the time is over that somebody waits for a close");
    const warn =
      flow === undefined
        ? undefined
        : liveness.after(noWorkerAfterMs, () => void warnUnserved(reads, id, flow)).unref();
    if (signal?.aborted) settle(null);
    else if (!options.isNew || !wakeups.isListening) void check();
    return promise;
  };

  return {
    deliver(id, ending) {
      for (const settle of waiting.get(id) ?? []) settle(ending);
    },
    closed,
    header,
    endingOf,
    watch: (id, listener) => wakeups.subscribe(id, listener),
  };
}

/** The close snapshot, or the error the execution ended with. */
export function snapshotOf(id: ExecutionId, ending: Ending): JsonObject {
  if (ending.outcome === "completed") return ending.snapshot;
  throw errorOf(id, ending);
}

export function errorOf(id: ExecutionId, ending: Ending): Error {
  const { error, flow, outcome } = ending;
  if (outcome === "failed" && error?.code === "NO_RESUME_HANDLE")
    return new NoResumeHandleError(flow, error.chunk ?? "");
  return endingError(id, ending);
}

async function warnUnserved(reads: Reads, id: ExecutionId, flow: string): Promise<void> {
  const served = await reads.isServed(flow).catch(() => true);
  if (!served) return process.emitWarning(new NoWorkerWarning(flow, noWorkerAfterMs));
  const problem = await reads.blocked(id).catch(() => null);
  if (problem !== null) process.emitWarning(problem, { type: "FlowledgerWarning", code: "DEFINITION_MISMATCH" });
}
