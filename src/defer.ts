/** `flowledger/defer`: background functions. Each is a flow of one chunk, so whatever holds for a flow holds for it. */
import "./base/node.ts";
export { configure } from "./defer/configure.ts";
export { defer } from "./defer/define.ts";
export { addMetadata, assignOptions, awaitResult, delay, discardAfter, getContext } from "./defer/calls.ts";
export {
  cancelExecution,
  getExecution,
  getExecutionResult,
  reRunExecution,
  rescheduleExecution,
} from "./defer/executions.ts";
export { listExecutionAttempts, listExecutions } from "./defer/lists.ts";
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

export type { DeferOptions, RetryPolicy } from "./defer/options.ts";
export type { DeferredFunction, FunctionMetadata } from "./defer/define.ts";
export type { ExecutionOptions } from "./defer/call-options.ts";
export type { AwaitOptions } from "./defer/calls.ts";
export type { FunctionExecution } from "./defer/executions.ts";
export type { AttemptFilters, ExecutionFilters } from "./defer/filters.ts";
export type { ExecutionAttempt } from "./defer/lists.ts";
export type { Page, PageOptions } from "./defer/pages.ts";
export type { FunctionState } from "./store/functions.ts";
