/** `flowledger/defer`: background functions. Each is a flow of one chunk, so whatever holds for a flow holds for it. */
import { z } from "zod";
import { cronProblem } from "./base/cron.ts";
import {
  requireBoolean,
  requireChoice,
  requireDate,
  requireInteger,
  requireKnown,
  requireList,
  requireNumber,
  requireOneOf,
  requireText,
  show,
  type Refuse,
} from "./base/option.ts";
import { FunctionState, plainErrorCode } from "./store/functions.ts";
import type { FunctionRecord } from "./store/functions.ts";
import { resultOf } from "./engine/child.ts";
import { currentChunk, trackChunks } from "./engine/current.ts";
import {
  DefinitionError,
  ExecutionAbortingAlreadyInProgress,
  ExecutionCancelledError,
  ExecutionNotCancellable,
  ExecutionNotCompleted,
  ExecutionNotFound,
  ExecutionNotReschedulable,
  ExecutionResultNotAvailable,
  ExecutionResultNotAvailableYet,
  NotConfiguredError,
  UsageError,
  type SerializedError,
} from "./base/errors.ts";
import type { CreateOptions } from "./execution/bound-flow.ts";
import { executionIdOf } from "./execution/ids.ts";
import { requireWaiting } from "./execution/waiting.ts";
import { defineFlow } from "./flow/builder.ts";
import type { Callable, Ctx, Output } from "./flow/context.ts";
import type { FlowDefinition } from "./flow/definition.ts";
import { parseDuration, parseMoment } from "./base/duration.ts";
import type { Duration } from "./base/duration.ts";
import { ExecutionId, type Recorded } from "./ledger/event.ts";
import { isObject, toJson, type Json } from "./base/json.ts";
import { internals, Orchestrator } from "./orchestrator.ts";

export type { FunctionState } from "./store/functions.ts";
export {
  DeferError,
  ExecutionAbortingAlreadyInProgress,
  ExecutionNotCancellable,
  ExecutionNotCompleted,
  ExecutionNotFound,
  ExecutionNotReschedulable,
  ExecutionResultNotAvailable,
  ExecutionResultNotAvailableYet,
} from "./base/errors.ts";

/** Of `defer()`. */
export interface DeferOptions {
  /** What the database knows it by; needed where the function has no name, or a bundler shortens it. @default fn.name */
  readonly name?: string;
  /** Retries after a run that threw: true is 13, a number that many, an object says how. @default false */
  readonly retry?: boolean | number | Partial<RetryPolicy>;
  /** Executions of the function that workers run at once, over all of them. @default unlimited */
  readonly concurrency?: number;
  /** What becomes of a call while `concurrency` is used up: it waits, or is cancelled. @default "keep" */
  readonly maxConcurrencyAction?: "keep" | "cancel";
  /** Longest time of one attempt, in seconds. @default unlimited */
  readonly maxDuration?: number;
}

/** Times in seconds, as Defer has them. */
export interface RetryPolicy {
  /** Retries, the first run not counted. @default 13 where `retry` is an object */
  readonly maxAttempts: number;
  /** Wait before the first retry. @default 30 */
  readonly initialInterval: number;
  /** 0 waits exactly; anything else between half and all of the interval. @default 0.5 */
  readonly randomizationFactor: number;
  /** Factor of each further wait. @default 1.5 */
  readonly multiplier: number;
  /** Longest wait. @default 600 */
  readonly maxInterval: number;
  /**
   * Every wait by itself, in seconds or as a duration such as "1h": as many retries as it has waits, exact unless
   * `randomizationFactor` is given. In place of maxAttempts, initialInterval, multiplier and maxInterval. @default none
   */
  readonly waits?: readonly (number | string)[];
}

/** Options of the calls of a function; see `assignOptions()`. */
export interface ExecutionOptions {
  /** When it may start: a date, a duration such as "1h30m" or "2 days", or milliseconds. @default at once */
  readonly delay?: Date | string | number;
  /** Not started by then, it never runs: a date, or a duration from the call on. @default never */
  readonly discardAfter?: Date | string | number;
  /** Kept with the execution; `listExecutions` finds it by them. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** One execution per function and key: calling again gives the same one. */
  readonly idempotencyKey?: string;
}

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
 * @throws {DefinitionError} no function, no name, an option that cannot be meant
 */
export function defer<Args extends unknown[], Out>(
  fn: (...args: Args) => Out,
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
defer.cron = <Out>(fn: () => Out, cron: string, options: DeferOptions = {}): DeferredFunction<[], Output<Out>> =>
  define(fn, options, { cron });

function define<Args extends unknown[], Out>(
  fn: (...args: Args) => Out,
  options: DeferOptions,
  schedule: { readonly cron: string } | null,
): DeferredFunction<Args, Output<Out>> {
  if (typeof fn !== "function") throw new DefinitionError(show(fn), "defer() got no function", "pass a function");
  const { name = fn.name } = requireDeferOptions(fn.name, options);
  if (typeof name !== "string") throw new DefinitionError(show(name), "the name is no text", "use defer(fn, { name })");
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
  // What enters is the list of arguments that a typed call gave, or that SQL did.
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

function deferred<Args extends unknown[], Out>(
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
      // Who calls it has it: its worker may come later.
      .startExecution(input, { ...startOptions(execOptions), autoCloseTimeout: 0, allowUnknown: true });
    return { id };
  };
  return Object.defineProperty(
    Object.assign(call, { flow, __fn: fn, __metadata: metadata, __execOptions: execOptions }),
    "name",
    { value: flow.name },
  );
}

// ── options of calls ────────────────────────────────────────────────────────────────────────────────────────

/**
 * The same function with options for its calls; those it had stay, key by key.
 *
 * @throws {UsageError} naming the option that cannot be meant
 */
export function assignOptions<Args extends unknown[], Out>(
  fn: DeferredFunction<Args, Out>,
  options: ExecutionOptions,
): DeferredFunction<Args, Out> {
  requireDeferred(fn, "assignOptions()");
  requireKnown(options, optionNames, "assignOptions()");
  const merged = { ...fn.__execOptions, ...options };
  // What cannot be meant shows here, where it was written.
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

type StartOptions = Pick<CreateOptions, "startAt" | "delay" | "discardAfter" | "idempotencyKey"> & {
  metadata?: Record<string, string>;
};

function startOptions(options: ExecutionOptions = {}): StartOptions {
  const start: StartOptions = {};
  const due = options.delay === undefined ? undefined : momentOf(options.delay, "delay");
  if (due instanceof Date) start.startAt = due;
  else if (due !== undefined) start.delay = due;
  if (options.discardAfter !== undefined) start.discardAfter = momentOf(options.discardAfter, "discardAfter");
  if (options.idempotencyKey !== undefined)
    start.idempotencyKey = requireText(options.idempotencyKey, "idempotencyKey", { max: 500 });
  if (options.metadata !== undefined) {
    // What JSON and Postgres cannot hold is said here, too.
    toJson(options.metadata, "metadata");
    const metadata = z.record(z.string(), z.string()).safeParse(options.metadata);
    if (!metadata.success)
      throw new UsageError("metadata of a function has a value that is no text", "pass { key: text }", {
        issues: metadata.error.issues,
      });
    start.metadata = metadata.data;
  }
  return start;
}

/** A date, or milliseconds from now on, as Defer's users write them. */
function momentOf(value: Date | string | number, where: string): Date | number {
  return parseMoment(value, where, { words: true });
}

/** Optional arguments that were left out at the end stay out; anything else that JSON cannot hold is refused. */
function argumentsOf(name: string, args: readonly unknown[]): Json[] {
  const given = args.slice(0, args.findLastIndex((value) => value !== undefined) + 1);
  const json = toJson(given, `arguments of function "${name}"`);
  return Array.isArray(json) ? json : [];
}

// ── results ─────────────────────────────────────────────────────────────────────────────────────────────────

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
  const store = await configured?.[internals].store();
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

// ── executions by id ────────────────────────────────────────────────────────────────────────────────────────

/** An execution of a function. */
export interface FunctionExecution {
  readonly id: ExecutionId;
  readonly state: FunctionState;
  readonly functionName: string;
  /** The same as the name. */
  readonly functionId: string;
  readonly scheduledAt: Date;
  /** When a worker first took it. */
  readonly startedAt: Date | null;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  readonly metadata: Readonly<Record<string, Json>>;
  /** What the function returned; undefined unless the state is "succeed". */
  readonly result: Json | undefined;
  /** What it threw last; undefined unless the state is "failed". */
  readonly error: SerializedError | undefined;
}

/** @throws {ExecutionNotFound} */
export async function getExecution(id: string): Promise<FunctionExecution> {
  return publicExecution(await record(id, "getExecution()"));
}

/**
 * What the function returned, or, of a failed execution, its error with `message` and `stack`.
 *
 * @throws {ExecutionResultNotAvailableYet | ExecutionResultNotAvailable | ExecutionNotFound}
 */
export async function getExecutionResult(id: string): Promise<Json> {
  const { state, result, error } = publicExecution(await record(id, "getExecutionResult()"));
  if (state === "succeed") return result ?? null;
  if (state === "failed") return toJson(error ?? null, "error");
  if (state === "created" || state === "started") throw new ExecutionResultNotAvailableYet(id, state);
  throw new ExecutionResultNotAvailable(id, state);
}

/**
 * Cancels an execution that has not started. With `force` also one that runs: its `signal` aborts, and it ends as
 * "aborted" whatever it returns.
 *
 * @throws {ExecutionNotCancellable | ExecutionAbortingAlreadyInProgress | ExecutionNotFound}
 */
export async function cancelExecution(id: string, force = false): Promise<FunctionExecution> {
  const executionId = requireId(id);
  requireBoolean(force, "force of cancelExecution()");
  const { functions, wakeups } = await requireOrchestrator("cancelExecution()")[internals].store();
  const state = await functions.cancel(executionId, force);
  if (state === null) throw new ExecutionNotFound(id);
  if (state === "aborting" && force) throw new ExecutionAbortingAlreadyInProgress(id);
  if (state !== "created" && !(state === "started" && force)) throw new ExecutionNotCancellable(id, state);
  wakeups.call(executionId);
  return getExecution(id);
}

/**
 * Moves an execution that has not started to another time.
 *
 * @param to a date, or a duration from now on. @default now
 * @throws {ExecutionNotReschedulable | ExecutionNotFound}
 */
export async function rescheduleExecution(id: string, to: Date | string | number = 0): Promise<FunctionExecution> {
  const { store } = requireOrchestrator("rescheduleExecution()")[internals];
  const executionId = requireId(id);
  const moment = momentOf(to, "rescheduleExecution()");
  const state = await (await store()).functions.reschedule(executionId, moment);
  if (state === null) throw new ExecutionNotFound(id);
  if (state !== "created") throw new ExecutionNotReschedulable(id, state);
  return getExecution(id);
}

/**
 * A new execution of the same function with the same arguments and metadata, started now. The old one stays as it is.
 *
 * @throws {ExecutionNotFound}
 */
export async function reRunExecution(id: string): Promise<FunctionExecution> {
  const { store, create, newId } = requireOrchestrator("reRunExecution()")[internals];
  const executionId = requireId(id);
  const call = await (await store()).functions.call(executionId);
  if (!call) throw new ExecutionNotFound(id);
  const { discardAt: _, ...settings } = call.settings ?? {};
  const again = await create({
    id: newId(),
    flow: call.flow,
    input: call.input,
    settings,
    metadata: call.metadata,
    priority: call.priority,
    limitKey: null,
    idempotencyKey: null,
    delayMs: null,
    startAt: null,
    resourceKeys: [],
    parent: null,
    state: {},
  });
  return getExecution(again);
}

// ── lists ───────────────────────────────────────────────────────────────────────────────────────────────────

/** The first so many after a cursor, or the last so many before one. */
export interface PageOptions {
  /** 1 to 1000. @default 100 */
  readonly first?: number;
  /** `endCursor` of the page before. */
  readonly after?: string;
  /** Instead of `first`. */
  readonly last?: number;
  /** `startCursor` of the page behind. */
  readonly before?: string;
}

/** A page of a list, with what is needed for the next one. */
export interface Page<T> {
  readonly data: readonly T[];
  readonly pageInfo: {
    readonly hasNextPage: boolean;
    readonly hasPrevPage: boolean;
    readonly startCursor: string | null;
    readonly endCursor: string | null;
  };
}

/** One value, or a list of alternatives; an empty one is refused, because nothing could be found. */
type Choice<T> = T | readonly T[];

/** All that are given must hold; of a list of values, one. */
export interface ExecutionFilters {
  /** @default any */
  readonly states?: Choice<FunctionState>;
  /** Names of functions. @default those given to `createOrchestrator()` */
  readonly functionIds?: Choice<string>;
  /** `code` of the last error; "ER0003" is one without a code. */
  readonly errorCodes?: Choice<string>;
  /** Ids of workers. */
  readonly executedBy?: Choice<string>;
  /** When an attempt began. @default any time */
  readonly startedAt?: { readonly from?: Date; readonly to?: Date };
  /** When it was to begin. @default any time */
  readonly scheduleAt?: { readonly from?: Date; readonly to?: Date };
  /** Keys of its metadata, with one of these values each. @default any */
  readonly metadata?: readonly { readonly key: string; readonly values: Choice<string> }[];
}

/** Of the attempts of one execution. All that are given must hold; of a list of values, one. */
export type AttemptFilters = Pick<ExecutionFilters, "states" | "errorCodes" | "executedBy" | "startedAt">;

/** Executions of functions, newest first. @throws {UsageError} */
export async function listExecutions(
  page: PageOptions = {},
  filters: ExecutionFilters = {},
): Promise<Page<FunctionExecution>> {
  const { store, functions } = requireOrchestrator("listExecutions()")[internals];
  const { limit, isLast } = requirePage(page, "listExecutions()");
  const found = requireFilters(filters, filterNames, "listExecutions()");
  const {
    functionIds = [...functions.keys()],
    states,
    errorCodes,
    executedBy,
    startedAt,
    scheduleAt,
    metadata,
  } = found;
  if (functionIds.length === 0)
    throw new UsageError(
      "listExecutions() knows no functions",
      "pass { functions } to createOrchestrator(), or name them in functionIds",
    );
  const records = await (
    await store()
  ).functions.list({
    functions: functionIds,
    ...(states && { states }),
    ...(errorCodes && { errorCodes }),
    ...(executedBy && { executedBy }),
    ...(startedAt && { startedAt }),
    ...(scheduleAt && { scheduledAt: scheduleAt }),
    ...(metadata && { metadata }),
    ...(page.after !== undefined && { after: requireCursor(page.after) }),
    ...(page.before !== undefined && { before: requireCursor(page.before) }),
    isLast,
    limit: limit + 1,
  });
  return pageOf(records.map(publicExecution), ({ id }) => id, page, { limit, isLast });
}

/** One try of an execution. */
export interface ExecutionAttempt {
  /** From 1. */
  readonly attempt: number;
  readonly state: FunctionState;
  readonly startedAt: Date;
  readonly updatedAt: Date;
  /** The worker that ran it, the last one where it changed hands. */
  readonly executedBy: string | null;
  readonly errorCode: string | null;
  readonly error: SerializedError | null;
}

/** The first try and its retries, in order. @throws {ExecutionNotFound | UsageError} */
export async function listExecutionAttempts(
  id: string,
  page: PageOptions = {},
  filters: AttemptFilters = {},
): Promise<Page<ExecutionAttempt>> {
  const { store } = requireOrchestrator("listExecutionAttempts()")[internals];
  const { limit, isLast } = requirePage(page, "listExecutionAttempts()");
  const wanted = requireFilters(filters, attemptFilterNames, "listExecutionAttempts()");
  const { state } = publicExecution(await record(id, "listExecutionAttempts()"));
  const types = ["execution.claimed", "chunk.completed", "chunk.failed", "execution.closed"];
  const attempts = attemptsOf(await (await store()).reads.history(requireId(id), 0, types), state);
  const after = page.after === undefined ? 0 : requireAttempt(page.after);
  const before = page.before === undefined ? Infinity : requireAttempt(page.before);
  const between = attempts.filter((one) => one.attempt > after && one.attempt < before && isWanted(one, wanted));
  const found = isLast ? between.slice(-limit - 1) : between.slice(0, limit + 1);
  return pageOf(found, ({ attempt }) => String(attempt), page, { limit, isLast });
}

function isWanted(
  { state, errorCode, executedBy, startedAt }: ExecutionAttempt,
  wanted: ReturnType<typeof requireFilters>,
): boolean {
  const { from, to } = wanted.startedAt ?? {};
  return (
    (wanted.states?.includes(state) ?? true) &&
    (wanted.errorCodes?.includes(errorCode ?? "") ?? true) &&
    (wanted.executedBy?.includes(executedBy ?? "") ?? true) &&
    (from === undefined || startedAt >= from) &&
    (to === undefined || startedAt <= to)
  );
}

function attemptsOf(events: readonly Recorded[], state: FunctionState): ExecutionAttempt[] {
  const attempts: ExecutionAttempt[] = [];
  let executedBy: string | null = null;
  let startedAt: number | null = null;
  const add = (became: FunctionState, at: number, error: SerializedError | null = null) => {
    if (startedAt === null) return;
    attempts.push({
      attempt: attempts.length + 1,
      state: became,
      startedAt: new Date(startedAt),
      updatedAt: new Date(at),
      executedBy,
      errorCode: error && (error.code ?? plainErrorCode),
      error,
    });
    startedAt = null;
  };
  for (const { event, at } of events) {
    if (event.type === "execution.claimed") {
      executedBy = event.worker;
      // A discarded one was taken, too, but only to be closed.
      if (state !== "discarded") startedAt ??= at;
    } else if (event.type === "chunk.completed") add("succeed", at);
    else if (event.type === "chunk.failed") {
      add("failed", at, event.error);
      if (event.retryInMs !== undefined) startedAt = at + event.retryInMs;
    } else if (event.type === "execution.closed") add(state, at);
  }
  if (startedAt !== null) add(state, startedAt);
  return attempts;
}

function requirePage(page: PageOptions, where: string): { limit: number; isLast: boolean } {
  requireKnown(page, ["first", "after", "last", "before"], where);
  const { first, last } = page;
  if (first !== undefined && last !== undefined)
    throw new UsageError(`${where} got first and last`, "use first with after, or last with before");
  const limit = first !== undefined ? first : last !== undefined ? last : 100;
  requireInteger(limit, `${first === undefined ? "last" : "first"} of ${where}`, { min: 1, max: 1000 });
  return { limit, isLast: last !== undefined };
}

/** @param found one more than the page holds, where there are more */
function pageOf<T>(
  found: readonly T[],
  cursor: (item: T) => string,
  { after, before }: PageOptions,
  { limit, isLast }: { limit: number; isLast: boolean },
): Page<T> {
  const data = isLast ? found.slice(-limit) : found.slice(0, limit);
  const isMore = found.length > limit;
  const [first] = data;
  const last = data.at(-1);
  return {
    data,
    pageInfo: {
      // A cursor stands for an item of the list, so on its other side there is one.
      hasNextPage: isLast ? before !== undefined : isMore,
      hasPrevPage: isLast ? isMore : after !== undefined,
      startCursor: first === undefined ? null : cursor(first),
      endCursor: last === undefined ? null : cursor(last),
    },
  };
}

/** The filters with lists of alternatives. @throws {UsageError} naming the one that cannot be meant */
function requireFilters(filters: ExecutionFilters, names: readonly string[], where: string) {
  requireKnown(filters, names, where);
  const { states, functionIds, errorCodes, executedBy, metadata, startedAt, scheduleAt } = filters;
  const isState = (one: unknown, of: string) => requireOneOf(one, FunctionState.options, of);
  return {
    ...(states !== undefined && { states: requireChoice(states, `states of ${where}`, isState) }),
    ...(functionIds !== undefined && { functionIds: requireChoice(functionIds, `functionIds of ${where}`, searched) }),
    ...(errorCodes !== undefined && { errorCodes: requireChoice(errorCodes, `errorCodes of ${where}`, searched) }),
    ...(executedBy !== undefined && { executedBy: requireChoice(executedBy, `executedBy of ${where}`, searched) }),
    ...(startedAt !== undefined && { startedAt: requireBetween(startedAt, `startedAt of ${where}`) }),
    ...(scheduleAt !== undefined && { scheduleAt: requireBetween(scheduleAt, `scheduleAt of ${where}`) }),
    ...(metadata !== undefined && {
      metadata: requireList(metadata, `metadata of ${where}`, (one, of) => {
        requireKnown(one, ["key", "values"], of);
        const { key, values }: { key?: unknown; values?: unknown } = Object(one);
        return { key: searched(key, `key of ${of}`), values: requireChoice(values, `values of ${of}`, searched) };
      }),
    }),
  };
}

const attemptFilterNames = Object.keys({
  states: true,
  errorCodes: true,
  executedBy: true,
  startedAt: true,
} satisfies Record<keyof AttemptFilters, true>);
const filterNames = Object.keys({
  states: true,
  functionIds: true,
  errorCodes: true,
  executedBy: true,
  startedAt: true,
  scheduleAt: true,
  metadata: true,
} satisfies Record<keyof ExecutionFilters, true>);

/** A text that is searched for: longer ones are nowhere. */
function searched(value: unknown, where: string): string {
  return requireText(value, where, { max: 1000 });
}

function requireBetween(between: { from?: Date; to?: Date }, where: string): { from?: Date; to?: Date } {
  requireKnown(between, ["from", "to"], where);
  for (const date of [between.from, between.to]) if (date !== undefined) parseMoment(requireDate(date, where), where);
  return between;
}

function requireCursor(cursor: string): ExecutionId {
  const parsed = ExecutionId.safeParse(cursor);
  if (parsed.success) return parsed.data;
  throw new UsageError(`${show(cursor)} is not a cursor`, "pass startCursor or endCursor of a page");
}

function requireAttempt(cursor: string): number {
  if (typeof cursor === "string" && /^\d{1,9}$/.test(cursor)) return Number(cursor);
  throw new UsageError(`${show(cursor)} is not a cursor`, "pass startCursor or endCursor of a page");
}

// ── the orchestrator behind it ──────────────────────────────────────────────────────────────────────────────

// The one module state of the library, because calls of functions have no other way to their database.
let configured: Orchestrator | undefined;

/**
 * Says which orchestrator the functions of this process use. Once; after that one was closed, again.
 *
 * @throws {UsageError}
 */
export function configure(orchestrator: Orchestrator): void {
  if (!(orchestrator instanceof Orchestrator))
    throw new UsageError("configure() got no orchestrator", "pass what createOrchestrator() returns");
  if (configured && configured !== orchestrator && !configured[internals].isClosed)
    throw new UsageError("configure() was called with another orchestrator", "call it once, or close() the first one");
  configured = orchestrator;
}

function requireOrchestrator(called: string): Orchestrator {
  if (!configured) throw new NotConfiguredError(called);
  return configured;
}

async function record(id: string, called: string): Promise<FunctionRecord> {
  const { store } = requireOrchestrator(called)[internals];
  const executionId = requireId(id);
  const found = await (await store()).functions.read(executionId);
  if (!found) throw new ExecutionNotFound(id);
  return found;
}

/** What is no id at all is no execution's either. */
function requireId(id: string): ExecutionId {
  const found = executionIdOf(id);
  if (!found) throw new ExecutionNotFound(typeof id === "string" ? id.slice(0, 80) : show(id));
  return found;
}

function publicExecution(found: FunctionRecord): FunctionExecution {
  const { id, state, functionName, closeSnapshot, error, metadata } = found;
  return {
    id,
    state,
    functionName,
    functionId: functionName,
    scheduledAt: new Date(found.scheduledAt),
    startedAt: found.startedAt === null ? null : new Date(found.startedAt),
    createdAt: new Date(found.createdAt),
    updatedAt: new Date(found.updatedAt),
    metadata: metadata ?? {},
    result: state === "succeed" ? resultOf(closeSnapshot ?? {}) : undefined,
    error: state === "failed" && error ? error : undefined,
  };
}

// ── what a definition may say ───────────────────────────────────────────────────────────────────────────────

function requireDeferred(fn: unknown, where: string): void {
  if (typeof fn !== "function" || !("__metadata" in fn))
    throw new UsageError(`${where} got no deferred function`, "pass what defer() returns");
}

const noRetry: RetryPolicy = {
  maxAttempts: 0,
  initialInterval: 30,
  randomizationFactor: 0.5,
  multiplier: 1.5,
  maxInterval: 600,
};
const defaultRetries = 13;

function resolveRetry(name: string, retry: DeferOptions["retry"] = false): RetryPolicy {
  const refuse = (problem: string, remedy: string | null = null): never => {
    throw new DefinitionError(name, "invalid retry options", remedy === null ? problem : `${problem}, ${remedy}`);
  };
  if (typeof retry === "boolean") return { ...noRetry, maxAttempts: retry ? defaultRetries : 0 };
  const given: Partial<RetryPolicy> = typeof retry === "number" ? { maxAttempts: retry } : retry;
  if (!isObject(given)) return refuse("use true, a number of retries, or an object");
  requireKnown(given, [...Object.keys(noRetry), "waits"], "retry", refuse);
  if (given.waits !== undefined) return byWaits(given, refuse);
  const set = Object.entries(given).filter(([, value]) => value !== undefined);
  const policy: RetryPolicy = { ...noRetry, maxAttempts: defaultRetries, ...Object.fromEntries(set) };
  requireInteger(policy.maxAttempts, "maxAttempts", { min: 0 }, refuse);
  requireNumber(policy.randomizationFactor, "randomizationFactor", { min: 0, max: 1 }, refuse);
  for (const key of ["initialInterval", "maxInterval"] as const)
    requireNumber(policy[key], `${key} in seconds`, { min: 0 }, refuse);
  requireNumber(policy.multiplier, "multiplier", { min: 1 }, refuse);
  return policy;
}

/** Numbers are seconds, as everywhere in Defer's policy. */
function waitMs(wait: number | string, index = 0): number {
  return parseDuration(typeof wait === "number" ? wait * 1000 : wait, `waits[${index}] of retry`, { words: true });
}

function byWaits(given: Partial<RetryPolicy>, refuse: Refuse): RetryPolicy {
  const { waits, randomizationFactor = 0 } = given;
  const beside = Object.entries(given).find(
    ([key, value]) => value !== undefined && key !== "waits" && key !== "randomizationFactor",
  )?.[0];
  if (beside !== undefined) refuse(`it has waits and ${beside}`, "leave one of them out");
  if (!Array.isArray(waits) || waits.length === 0 || waits.length > 1_000)
    return refuse(`waits must be a list of 1 to 1000 durations, got ${show(waits)}`, 'use [1, 60, "1h"]');
  requireNumber(randomizationFactor, "randomizationFactor", { min: 0, max: 1 }, refuse);
  try {
    Array.from(waits, waitMs);
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error), null);
  }
  return { ...noRetry, maxAttempts: waits.length, randomizationFactor, waits: [...waits] };
}

function requireLimits(name: string, options: DeferOptions) {
  const { concurrency, maxDuration, maxConcurrencyAction } = options;
  const refuse: Refuse = (problem, remedy) => {
    throw new DefinitionError(name, problem, remedy);
  };
  if (concurrency !== undefined) requireInteger(concurrency, "concurrency", { min: 1 }, refuse);
  // A hundred years, as any duration.
  if (maxDuration !== undefined)
    requireNumber(maxDuration, "maxDuration in seconds", { min: 0.001, max: 3_155_760_000 }, refuse);
  if (maxConcurrencyAction !== undefined)
    requireOneOf(maxConcurrencyAction, ["keep", "cancel"], "maxConcurrencyAction", refuse);
  return { concurrency, maxDuration, maxConcurrencyAction };
}

function requireDeferOptions(name: string, options: DeferOptions): DeferOptions {
  requireKnown(options, deferOptions, "defer()", (problem, remedy) => {
    throw new DefinitionError(name, problem, remedy);
  });
  return options;
}

const deferOptions = ["name", "retry", "concurrency", "maxConcurrencyAction", "maxDuration"];

function requireCron(name: string, cron: string): string {
  const problem = cronProblem(cron, { hasSeconds: false });
  if (problem === null) return cron;
  throw new DefinitionError(
    name,
    `cron ${show(cron)} is not a schedule (${problem})`,
    'use five fields, e.g. "0 7 * * *"',
  );
}
