/** Executions of functions by their id. */
import {
  ExecutionAbortingAlreadyInProgress,
  ExecutionNotCancellable,
  ExecutionNotFound,
  ExecutionNotReschedulable,
  ExecutionResultNotAvailable,
  ExecutionResultNotAvailableYet,
  type SerializedError,
} from "../base/errors.ts";
import { toJson, type Json } from "../base/json.ts";
import { requireBoolean, show } from "../base/option.ts";
import { resultOf } from "../engine/child.ts";
import { executionIdOf } from "../execution/ids.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { internals } from "../orchestrator.ts";
import type { FunctionRecord, FunctionState } from "../store/functions.ts";
import { momentOf } from "./call-options.ts";
import { requireOrchestrator } from "./configure.ts";

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
  wakeups.notifyOwner(executionId);
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

/** @param called the call that asks, for the error. @throws {ExecutionNotFound | NotConfiguredError} */
export async function record(id: string, called: string): Promise<FunctionRecord> {
  const { store } = requireOrchestrator(called)[internals];
  const executionId = requireId(id);
  const found = await (await store()).functions.read(executionId);
  if (!found) throw new ExecutionNotFound(id);
  return found;
}

/** What is no id at all is no execution's either. */
export function requireId(id: string): ExecutionId {
  const found = executionIdOf(id);
  if (!found) throw new ExecutionNotFound(typeof id === "string" ? id.slice(0, 80) : show(id));
  return found;
}

/** A record of the store as users see it. */
export function publicExecution(found: FunctionRecord): FunctionExecution {
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
