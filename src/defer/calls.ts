/** Calls of functions: with options, and awaited. */
import type { Duration } from "../base/duration.ts";
import { ExecutionCancelledError, ExecutionNotCompleted } from "../base/errors.ts";
import type { Json } from "../base/json.ts";
import { requireKnown } from "../base/option.ts";
import { resultOf } from "../engine/child.ts";
import { currentChunk } from "../engine/current.ts";
import { requireWaiting } from "../execution/waiting.ts";
import type { Ctx } from "../flow/context.ts";
import { ExecutionId } from "../ledger/event.ts";
import { internals } from "../orchestrator.ts";
import { argumentsOf, startOptions, type ExecutionOptions } from "./call-options.ts";
import { configuredOrchestrator, requireOrchestrator } from "./configure.ts";
import { deferred, requireDeferred, type DeferredFunction } from "./define.ts";

/**
 * The same function with options for its calls; those it had stay, key by key.
 *
 * @throws {UsageError} naming the option that is invalid
 */
export function assignOptions<Args extends unknown[], Out>(
  fn: DeferredFunction<Args, Out>,
  options: ExecutionOptions,
): DeferredFunction<Args, Out> {
  requireDeferred(fn, "assignOptions()");
  requireKnown(options, optionNames, "assignOptions()");
  const merged = { ...fn.__execOptions, ...options };
  // Invalid options throw here, where they were written.
  startOptions(merged);
  return deferred(fn.__fn, fn.flow, fn.__metadata, merged);
}

const optionNames = ["delay", "discardAfter", "metadata", "idempotencyKey"];

/** `assignOptions(fn, { delay })`. */
export function delay<Args extends unknown[], Out>(
  fn: DeferredFunction<Args, Out>,
  value: Date | string | number,
): DeferredFunction<Args, Out> {
  return assignOptions(fn, { delay: value });
}

/** `assignOptions(fn, { metadata })`: it takes the place of the metadata before. */
export function addMetadata<Args extends unknown[], Out>(
  fn: DeferredFunction<Args, Out>,
  metadata: Readonly<Record<string, string>>,
): DeferredFunction<Args, Out> {
  return assignOptions(fn, { metadata });
}

/** `assignOptions(fn, { discardAfter })`. */
export function discardAfter<Args extends unknown[], Out>(
  fn: DeferredFunction<Args, Out>,
  value: Date | string | number,
): DeferredFunction<Args, Out> {
  return assignOptions(fn, { discardAfter: value });
}

/**
 * The function as one that can be awaited: each call starts an execution and resolves with what it returned. Inside a
 * chunk or another function the call is recorded, so that a second run of that attaches to the same execution.
 *
 * The calls throw `ExecutionFailedError` when the execution failed for the last time, its own error as `cause`, and
 * `ExecutionNotCompleted` when it was cancelled, aborted or discarded; with options also `WaitTimeoutError`, or the signal's reason.
 */
export function awaitResult<Args extends unknown[], Out>(
  fn: DeferredFunction<Args, Out>,
  waiting: AwaitOptions = {},
): (...args: Args) => Promise<Out> {
  requireDeferred(fn, "awaitResult()");
  requireKnown(waiting, ["timeout", "signal"], "awaitResult()");
  requireWaiting(waiting, "awaitResult()");
  const { timeout = null, signal } = waiting;
  return async (...args) => {
    const options = startOptions(fn.__execOptions);
    const input = argumentsOf(fn.name, args);
    try {
      const ctx = currentChunk();
      if (ctx) return await ctx.call<Json[], Out>({ name: fn.name }, input, { ...options, timeout, signal });
      const orchestrator = requireOrchestrator(`awaitResult(${fn.name})()`);
      const snapshot = await orchestrator.flow(fn.flow).start(input, {
        ...options,
        autoCloseTimeout: 0,
        allowUnknown: true,
        waitTimeout: timeout,
        ...(signal && { signal }),
      });
      // The result of a typed function, as its flow's `end()` kept it.
      return resultOf(snapshot) as Out;
    } catch (error) {
      throw await notCompleted(error);
    }
  };
}

/** A cancelled execution, with the state that Defer's users know. */
async function notCompleted(error: unknown): Promise<unknown> {
  if (!(error instanceof ExecutionCancelledError)) return error;
  const id = ExecutionId.parse(error.details["executionId"]);
  const store = await configuredOrchestrator()?.[internals].store();
  const record = await store?.functions.read(id);
  return new ExecutionNotCompleted(id, record?.state ?? "cancelled", error);
}

/** How long a call of `awaitResult()` waits. */
export interface AwaitOptions {
  /**
   * Outside of functions and chunks it ends the waiting alone: the execution goes on. Inside of one the wait outlives the process, so
   * it is the limit of the called execution itself, which has failed when it passes. @default none
   */
  readonly timeout?: Duration | null;
  /** Ends the waiting with its reason when it aborts; the execution goes on. @default none */
  readonly signal?: AbortSignal;
}

/** `ctx` of the chunk that the calling code runs in: its `signal` aborts on cancel and timeout. undefined outside of workers. */
export function getContext(): Ctx | undefined {
  return currentChunk();
}
