/**
 * flowledger: values and words → define a flow → its ledger decides and folds → a store keeps it → telemetry counts it → the engine advances a turn → a worker
 * process drives it → handles, results and streams read it → tests move its clock.
 *
 * Commands from outside are decided under the row lock, in SQL; what follows from them is decided by the owner, in `decide`.
 *
 * - `base/` values and words: JSON, errors, durations, time. Imports nothing of ours
 * - `flow/` define: `defineFlow()`, its contract, its graph. Pure, no database
 * - `ledger/` decide and fold: every event, every decision, every view of a state. Pure, no clock
 * - `store/` keep: the only room that knows SQL, one interface in groups by subject
 * - `telemetry/` see from outside: what a process counts, its metrics as text and as instruments, its health
 * - `engine/` advance: owners, attempts, journals, timers, resources
 * - `worker/` the process: jobs in, executions claimed, drained on stop
 * - `execution/` what callers hold: handle, result, stream, handler
 * - `test/` what tests hold: a clock that they move, mocks, crashes
 *
 * The words, as they are meant everywhere here:
 *
 * - **flow**: a definition: chunks, how they follow each other, and a contract. It has no state
 * - **contract**: the zod schemas of a flow: its input, state, events, stream items and live objects
 * - **chunk**: one named part of a flow: a function of `ctx`, with its retries and its timeout
 * - **execution**: one run of a flow, with a ledger of its own
 * - **ledger**: all that happened to an execution, in order, append-only. Everything else is read from it
 * - **event**: what `emit` sends and `when` hears, named by the flow. An entry of the ledger is a ledger event
 * - **step**: work inside a chunk whose result is recorded, so that a retry gets it back: `ctx.step()`
 * - **commit point**: where a chunk's effects enter the ledger together: a step, a sleep, a call, an `emit`, a flush, its return
 * - **interrupt**: a pause that waits for an answer: `pauseFor()` raises it, `continueWith()` answers it
 * - **intervention**: a correction that nobody asked for; nothing waits for it
 * - **stream item**: one live output of an execution, read from any process and from any cursor
 * - **worker**: a process that claims executions and advances them, one owner for each at a time
 * - **close snapshot**: the frozen state that a closed execution leaves: its result
 */
import "./base/node.ts";
export { defineFlow, Flow } from "./flow/builder.ts";
export { createOrchestrator } from "./orchestrator.ts";
export { jsonLogger } from "./telemetry/log.ts";
export { cursorOf, toReadableStream, toSSE } from "./execution/sse.ts";
export {
  ChunksParkedError,
  ChunkTimeoutError,
  ConflictError,
  ClaimedError,
  ConnectionError,
  ContractError,
  DatabaseError,
  DefinitionError,
  DefinitionMismatchError,
  DrainTimeoutError,
  ExecutionCancelledError,
  ExecutionClosedError,
  ExecutionFailedError,
  ExecutionNotFoundError,
  ExecutionSealedError,
  ExecutionTimeoutError,
  FlowledgerError,
  FlowPausedError,
  InterruptExpiredError,
  InterruptNotPendingError,
  InterventionDisabledError,
  JournalMismatchError,
  LeaseLostError,
  LockedError,
  MigrationError,
  MovableClockError,
  NoResumeHandleError,
  NotConfiguredError,
  NotMigratedError,
  NoWorkerWarning,
  PayloadError,
  PendingInterruptsError,
  PermissionError,
  ResourceMissingError,
  ResumeConflictError,
  RetryAfterError,
  SearchTimeoutError,
  SelfResumeLimitError,
  StreamConsumedError,
  StateLimitError,
  StreamLimitError,
  StepTimeoutError,
  StreamStalledError,
  TokenClosedError,
  TokenUnknownError,
  TokenUsedError,
  UsageError,
  WaitTimeoutError,
  WorkerCrashLoopError,
  WorkerError,
} from "./base/errors.ts";

export type { BlockOptions, ChunkRef } from "./flow/builder.ts";
export type {
  Callable,
  CallOptions,
  ChunkHandler,
  ConsumeOptions,
  Ctx,
  EmitOptions,
  Escalation,
  ExecutionInfo,
  FlowDataOptions,
  FlowDataWriteOptions,
  Intervention,
  InterventionConsumer,
  InterventionFilters,
  Logger,
  Paused,
  PauseOptions,
  Predicate,
  Resume,
  RetryOptions,
  StateWriteOptions,
  StepOptions,
  Transaction,
  TransactionOptions,
  TransactionSource,
  WithdrawOptions,
} from "./flow/context.ts";
export type {
  ChunkOptions,
  FlowDefinition,
  InterventionPoint,
  ResourceRequirement,
  ResourceResolver,
  SubFlowOptions,
} from "./flow/definition.ts";
export type { Graph } from "./flow/graph.ts";
export type { ParkOptions } from "./flow/failure.ts";
export type { FlowLimits, FlowOptions, Limit, LimitOptions, Rate, ResolvedRate, StreamLimits } from "./flow/limits.ts";
export type {
  CloseSnapshot,
  Contract,
  InputOf,
  InterruptNotice,
  ResourcesOf,
  StartInput,
  StateOf,
  StreamItem,
} from "./flow/contract.ts";
export type {
  CallerTransaction,
  DrizzleTransaction,
  KnexTransaction,
  KyselyTransaction,
  MikroOrmTransaction,
  PgClient,
  PrismaTransaction,
} from "./store/caller-transaction.ts";
export type { ConnectionOption } from "./store/client.ts";
export type { DriverOptions } from "./store/driver.ts";
export type { BoundFlow } from "./execution/bound-flow.ts";
export type {
  CreateOptions,
  InputArgs,
  RunOptions,
  StartAndWaitOptions,
  StartManyOptions,
} from "./execution/start-options.ts";
export type { Orchestrator } from "./orchestrator.ts";
export type { FunctionDefinition, OrchestratorOptions, WorkerOptions } from "./orchestrator/options.ts";
export type { ForkOptions } from "./execution/history.ts";
export type { LoadReport, SavedExecution } from "./execution/saved.ts";
export type { LoadOptions } from "./execution/load-options.ts";
export type { KeyOptions } from "./execution/signature.ts";
export type { FailureGroup } from "./store/lists.ts";
export type { CountOptions, ExecutionFilter, ExecutionSummary, FailureOptions, ListOptions } from "./execution/list.ts";
export type { Bulk, BulkFailurePage, BulkOptions, BulkPreview } from "./execution/bulk.ts";
export type { BulkFailure, BulkReport } from "./store/bulks.ts";
export type { PruneOptions } from "./execution/retention.ts";
export type { Execution } from "./execution/execution.ts";
export type {
  CloseOptions,
  EmitCallOptions,
  HistoryEntry,
  HistoryOptions,
  InTransaction,
  InterveneOptions,
  ResumeOptions,
} from "./execution/command-options.ts";
export type {
  ChunkAddress,
  OperatorOptions,
  RedriveOptions,
  RetryChunkOptions,
  SkipChunkOptions,
  EditedState,
  EditStateOptions,
  PauseExecutionOptions,
  PauseFlowOptions,
  RunScheduleOptions,
  StateEdit,
} from "./execution/operate.ts";
export type { ClaimOptions, DelegateOptions, HandlingOptions, SnoozeOptions } from "./execution/handling.ts";
export type { AnswerByTokenOptions, InboxOptions, ListInterruptsOptions } from "./execution/inbox.ts";
export type { InterruptRecord } from "./execution/interrupt.ts";
export type { ParkedChunk } from "./base/errors.ts";
export type { SubFlowFrame } from "./execution/frame.ts";
export type { WaitingOptions } from "./execution/waiting.ts";
export type { ExecutionResult } from "./execution/result.ts";
export type {
  CancelRunOptions,
  Handler,
  HandlerEvent,
  Question,
  StopEvent,
  StreamEventsOptions,
} from "./execution/handler.ts";
export type { SSEOptions } from "./execution/sse.ts";
export type { StreamEntry, StreamOptions, SystemItem } from "./execution/stream.ts";
export type { Anchor, KeptAnchor } from "./store/anchors.ts";
export type { Pruned } from "./store/prune.ts";
export type { Difference, Progress, RebuildOptions } from "./store/rebuild.ts";
export type { VerifyOptions, Violation } from "./store/verify.ts";
export type { ExecutionId, LedgerEvent } from "./ledger/event.ts";
export type { Explanation, Wait } from "./ledger/explanation.ts";
export type { TimelineRow } from "./ledger/timeline.ts";
export type { Meta } from "./ledger/views.ts";
export type { Duration } from "./base/duration.ts";
export type { Json, JsonObject, NotJson, Storable, StorableReturn, Stored } from "./base/json.ts";
export type { TraceApi } from "./telemetry/otel.ts";
export type { TelemetryOptions } from "./telemetry/trace.ts";
export type { JsonLoggerOptions } from "./telemetry/log.ts";
export type { Health, HealthCheck } from "./telemetry/health.ts";
export type { ScheduleOptions } from "./worker/schedules.ts";
export type { Worker } from "./worker/host.ts";
