/** `defer()`: a flow of one chunk of a function, started by calling it. */
import { z } from "zod";
import { DefinitionError, UsageError } from "../base/errors.ts";
import type { StorableReturn, Stored, Unless, Verdict } from "../base/json.ts";
import { show } from "../base/option.ts";
import { trackChunks } from "../engine/current.ts";
import { defineFlow } from "../flow/builder.ts";
import type { Callable, Output } from "../flow/context.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { argumentsOf, startOptions, type ExecutionOptions } from "./call-options.ts";
import { requireOrchestrator } from "./configure.ts";
import {
  requireCron,
  requireDeferOptions,
  requireLimits,
  resolveRetry,
  waitMs,
  type DeferOptions,
  type RetryPolicy,
} from "./options.ts";

/** A function that is started by calling it, and run by a worker. */
export interface DeferredFunction<Args extends unknown[], Out> extends Callable<Args, Out> {
  /** Stores an execution; resolves when it is durable, not when it has run. */
  (...args: Args): Promise<{ readonly id: ExecutionId }>;
  /** What workers run: a flow of one chunk, both with the name of the function. Its input is the list of arguments. */
  readonly flow: FlowDefinition;
  readonly __fn: (...args: Args) => unknown;
  readonly __metadata: FunctionMetadata;
  readonly __execOptions: ExecutionOptions | undefined;
}

/** What a function has to take: of arguments that JSON cannot hold, the compiler says which. */
export type StorableArguments<Args> = Unless<
  Verdict<Args>,
  { readonly "it takes what JSON cannot hold": Stored<Args> }
>;

/** What `defer()` made of its options. */
export interface FunctionMetadata {
  readonly name: string;
  /** Of Defer's manifest, whose form this is. */
  readonly version: 6;
  readonly retry: RetryPolicy;
  /** Five fields, in UTC. */
  readonly cron?: string;
  readonly concurrency: number | undefined;
  readonly maxDuration: number | undefined;
  readonly maxConcurrencyAction: "keep" | "cancel" | undefined;
}

/**
 * Makes a background function of a function: calling it stores an execution, and workers with it among
 * `createOrchestrator({ functions })` run that.
 *
 * @throws {DefinitionError} no function, no name, an option that is invalid
 */
export function defer<Args extends unknown[], Out extends StorableReturn<Out>>(
  fn: ((...args: Args) => Out) & StorableArguments<Args>,
  options: DeferOptions = {},
): DeferredFunction<Args, Output<Out>> {
  return define(fn, options, null);
}

/**
 * A background function without arguments that runs by a schedule, too. After times at which no worker ran, it runs once.
 *
 * @param cron five fields, in UTC, e.g. `"0 7 * * *"`
 * @throws {DefinitionError} also for a date, for seconds, and for a pattern that never comes
 */
defer.cron = <Out extends StorableReturn<Out>>(
  fn: () => Out,
  cron: string,
  options: DeferOptions = {},
): DeferredFunction<[], Output<Out>> => define(fn, options, { cron });

function define<Args extends unknown[], Out>(
  fn: (...args: Args) => Out,
  options: DeferOptions,
  schedule: { readonly cron: string } | null,
): DeferredFunction<Args, Output<Out>> {
  if (typeof fn !== "function") throw new DefinitionError(show(fn), "defer() got no function", "pass a function");
  const { name = fn.name } = requireDeferOptions(fn.name, options);
  if (typeof name !== "string")
    throw new DefinitionError(show(name), "the name must be a string", "use defer(fn, { name })");
  if (name === "")
    throw new DefinitionError(
      "",
      "an anonymous function cannot be found again by a worker",
      "name it: defer(async function sendMail() { … }), or defer(fn, { name })",
    );
  const metadata: FunctionMetadata = {
    name,
    version: 6,
    retry: resolveRetry(name, options.retry),
    ...(schedule && { cron: requireCron(name, schedule.cron) }),
    ...requireLimits(name, options),
  };
  trackChunks();
  const flow = toFlow(fn, metadata);
  return deferred(fn, flow, metadata, undefined);
}

/** The flow of a function. The one place where what a function may do at once meets what flows can limit. */
function toFlow<Args extends unknown[]>(fn: (...args: Args) => unknown, metadata: FunctionMetadata): FlowDefinition {
  const { name, retry, maxDuration, concurrency, maxConcurrencyAction } = metadata;
  const limits = concurrency !== undefined && {
    limits: { concurrency, ...(maxConcurrencyAction && { maxConcurrencyAction }) },
  };
  const flow = defineFlow(name, { input: z.array(z.unknown()) }, { ...limits });
  // The input is the list of arguments, from a typed call or from SQL.
  flow
    .to(name, (ctx) => fn(...(ctx.input as Args)), {
      retry: {
        ...(retry.waits
          ? { waits: retry.waits.map((wait) => waitMs(wait)) }
          : {
              maxAttempts: retry.maxAttempts + 1,
              initialInterval: retry.initialInterval * 1000,
              multiplier: retry.multiplier,
              maxInterval: retry.maxInterval * 1000,
            }),
        jitter: retry.randomizationFactor > 0,
      },
      timeout: maxDuration === undefined ? null : maxDuration * 1000,
    })
    .end();
  return flow;
}

/** The function that starts an execution per call, with the options that each call gets. */
export function deferred<Args extends unknown[], Out>(
  fn: (...args: Args) => unknown,
  flow: FlowDefinition,
  metadata: FunctionMetadata,
  execOptions: ExecutionOptions | undefined,
): DeferredFunction<Args, Out> {
  const call = async (...args: Args) => {
    const orchestrator = requireOrchestrator(`${flow.name}()`);
    const input = argumentsOf(flow.name, args);
    const { id } = await orchestrator
      .flow(flow)
      // The caller has the function, so its worker may come later.
      .startExecution(input, { ...startOptions(execOptions), autoCloseTimeout: 0, allowUnknown: true });
    return { id };
  };
  return Object.defineProperty(
    Object.assign(call, { flow, __fn: fn, __metadata: metadata, __execOptions: execOptions }),
    "name",
    { value: flow.name },
  );
}

export function requireDeferred(fn: unknown, where: string): void {
  if (typeof fn !== "function" || !("__metadata" in fn))
    throw new UsageError(`${where} got no deferred function`, "pass what defer() returns");
}
