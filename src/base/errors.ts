/**
 * Every error of flowledger, in the order of the docs: one class per thing a caller would do differently. It is longer than other files,
 * because it reads better whole: a code, a name and a wording are found in one place, and compared with their neighbours.
 */
import type { z } from "zod";
import type { SerializedError } from "./serialized-error.ts";

export type { SerializedError } from "./serialized-error.ts";

/** Plain data about an error: ids, names, numbers. */
export type ErrorDetails = Readonly<Record<string, unknown>>;

/** The base of them all. `code` never changes; the message is one sentence: value, place, remedy. */
export class FlowledgerError extends Error {
  readonly code: string;
  readonly details: ErrorDetails;

  protected constructor(code: string, message: string, details: ErrorDetails, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.code = code;
    this.details = details;
  }
}

// ── from user mistakes ──────────────────────────────────────────────────────────────────────────────────────

/** A flow that cannot be built as written. */
export class DefinitionError extends FlowledgerError {
  /** @param remedy null where the problem already says it */
  constructor(flow: string, problem: string, remedy: string | null, details: ErrorDetails = {}, cause?: unknown) {
    super(
      "DEFINITION_INVALID",
      `flow ${quote(flow)}: ${problem}${remedy === null ? "" : `: ${remedy}`}`,
      { flow, ...details },
      cause,
    );
  }
}

/** One thing that a contract refused, and where in the value. */
export interface ContractIssue {
  readonly path: readonly (string | number)[];
  readonly message: string;
  readonly code: string;
}

/** A value that the flow's contract refuses. `details.issues` has every issue with its path. */
export class ContractError extends FlowledgerError {
  declare readonly details: { readonly where: string; readonly issues: readonly ContractIssue[] };

  /** @param where what is checked, e.g. `input of flow "refund"` */
  constructor(where: string, zodIssues: readonly Pick<z.core.$ZodIssue, "path" | "message" | "code">[]) {
    const issues = zodIssues.map(({ path, message, code }) => ({
      path: path.map(plainKey),
      message,
      code: code ?? "custom",
    }));
    const shown = issues
      .slice(0, 3)
      .map(({ path, message }) => (path.length ? `at ${dotted(path)}: ${message}` : message));
    const more = issues.length > shown.length ? ` (and ${issues.length - shown.length} more)` : "";
    super(
      "CONTRACT_VIOLATED",
      `${where} does not fit the contract: ${shown.join("; ")}${more}: change the value or the contract`,
      {
        where,
        issues,
      },
    );
  }
}

/** An invalid argument, or arguments that exclude each other. */
export class UsageError extends FlowledgerError {
  /** @param remedy null where the problem already says it */
  constructor(problem: string, remedy: string | null, details: ErrorDetails = {}, cause?: unknown) {
    super("USAGE_INVALID", remedy === null ? problem : `${problem}: ${remedy}`, details, cause);
  }
}

/** A value that JSON or Postgres cannot hold. */
export class PayloadError extends FlowledgerError {
  constructor(where: string, path: readonly (string | number)[], problem: string, remedy: string, cause?: unknown) {
    const place = path.length ? `${where} at ${dotted(path)}` : where;
    super("PAYLOAD_UNSTORABLE", `${place}: ${problem}: ${remedy}`, { where, path: [...path], problem }, cause);
  }
}

/** There is no such execution in this database. `EXECUTION_NOT_FOUND` */
export class ExecutionNotFoundError extends FlowledgerError {
  constructor(executionId: string) {
    super(
      "EXECUTION_NOT_FOUND",
      `execution ${executionId} does not exist in this database: check the id and the connection, or whether it was pruned`,
      { executionId },
    );
  }
}

/** The execution takes nothing new from outside. `EXECUTION_SEALED` */
export class ExecutionSealedError extends FlowledgerError {
  /** @param refused what was asked, e.g. `event "Decided"` */
  constructor(executionId: string, refused: string) {
    super(
      "EXECUTION_SEALED",
      `execution ${executionId} is sealed and no longer accepts ${refused}: start a new execution, or send it before seal()`,
      { executionId, refused },
    );
  }
}

/** The execution has ended, and takes nothing more. `EXECUTION_CLOSED` */
export class ExecutionClosedError extends FlowledgerError {
  /** @param refused what was asked, e.g. `event "Decided"` */
  constructor(executionId: string, refused: string) {
    super(
      "EXECUTION_CLOSED",
      `execution ${executionId} is closed and no longer accepts ${refused}: start a new execution, or read its result`,
      { executionId, refused },
    );
  }
}

/** Somebody's transaction has what a command needs, and does not end. Trying again later is safe: nothing was written. */
export class LockedError extends FlowledgerError {
  /** @param what e.g. `execution 0190…`; @param pid of the session that has it, as `pg_stat_activity` lists it; null where nobody can tell */
  constructor(what: string, pid: number | null, cause?: unknown) {
    super(
      "LOCKED",
      `${what} is held by an open transaction${pid === null ? "" : ` (session ${pid})`}: ` +
        `try again when that has ended, or end it: select pg_terminate_backend(${pid ?? "…"})`,
      { pid },
      cause,
    );
  }
}

/** `close()` while somebody has to answer. `INTERRUPTS_PENDING` */
export class PendingInterruptsError extends FlowledgerError {
  constructor(executionId: string, interruptIds: readonly string[]) {
    super(
      "INTERRUPTS_PENDING",
      `execution ${executionId} cannot close before ${count(interruptIds.length, "interrupt")} got an answer (${listed(interruptIds)}): ` +
        `answer with continueWith() while it is open, or close({ pendingInterrupts: "cancel" })`,
      { executionId, interruptIds: [...interruptIds] },
    );
  }
}

/** A chunk whose last attempt failed, and that waits for an operator. */
export interface ParkedChunk {
  readonly chunk: string;
  /** Which item or branch of its collection; null where it belongs to none. */
  readonly index: number | null;
  /** Where it is: the execution itself, or one below it. */
  readonly executionId: string;
}

/** `close()` while chunks are parked, there or below it. `CHUNKS_PARKED` */
export class ChunksParkedError extends FlowledgerError {
  constructor(executionId: string, parked: readonly ParkedChunk[]) {
    const names = parked.map(({ chunk, index }) => (index === null ? chunk : `${chunk} ${index}`));
    super(
      "CHUNKS_PARKED",
      `execution ${executionId} cannot close while ${count(parked.length, "chunk")} waits for an operator (${listed(names)}): ` +
        `retry() or skip() what is parked, or close({ parked: "fail" })`,
      { executionId, chunks: names, parked: parked.map((chunk) => ({ ...chunk })) },
    );
  }
}

/** What was expected of an execution holds no more. */
export class ConflictError extends FlowledgerError {
  /** @param since what came in between, the first twenty */
  constructor(
    executionId: string,
    expectedSeq: number,
    since: readonly {
      readonly seq: number;
      readonly type: string;
      readonly chunk?: string | undefined;
      readonly actor?: string | undefined;
    }[],
  ) {
    const names = since.map(({ seq, type, chunk }) => `${seq} ${type}${chunk === undefined ? "" : ` of ${chunk}`}`);
    super(
      "CONFLICT",
      `execution ${executionId} has gone on since event ${expectedSeq} (${listed(names)}): read its state again, and decide anew`,
      { executionId, expectedSeq, since: since.map((event) => ({ ...event })) },
    );
  }
}

/** The flow is paused, and takes no starts: `pauseFlow(…, { intake: "refuse" })`. */
export class FlowPausedError extends FlowledgerError {
  /** @param pause since when (ISO 8601), by whom and why it is paused */
  constructor(pause: {
    readonly flow: string;
    readonly since: string;
    readonly actor: string;
    readonly reason: string;
  }) {
    const { flow, since, actor, reason } = pause;
    super(
      "FLOW_PAUSED",
      `flow ${quote(flow)} is paused since ${since} by ${quote(actor)} (${reason}), and takes no starts: start it again after unpauseFlow()`,
      { flow, since, actor, reason },
    );
  }
}

/** What became of an interrupt that takes no answer any more. */
export interface InterruptEnd {
  /** Undefined when the execution never had it. */
  readonly status?: string | undefined;
  /** Only of one that was withdrawn: by whom, when (ISO), and why. */
  readonly by?: string | undefined;
  readonly at?: string | undefined;
  readonly reason?: string | undefined;
  /** The ids that do wait. */
  readonly pending?: readonly string[] | undefined;
}

/** The interrupt is unknown, or waits no more. `INTERRUPT_NOT_PENDING` */
export class InterruptNotPendingError extends FlowledgerError {
  constructor(executionId: string, interruptId: string, { status, by, at, reason, pending = [] }: InterruptEnd) {
    const place = `interrupt ${quote(interruptId)} of execution ${executionId}`;
    const waiting = pending.length > 0 ? `; ${listed(pending)} ${pending.length === 1 ? "waits" : "wait"}` : "";
    super(
      "INTERRUPT_NOT_PENDING",
      (status === undefined
        ? `interrupt ${quote(interruptId)} is unknown in execution ${executionId}: take the id from getPendingInterrupts()`
        : status === "withdrawn"
          ? `${place} was withdrawn${by === undefined ? "" : ` by ${by}`}${at === undefined ? "" : ` at ${at}`}` +
            `${reason === undefined ? "" : ` (${reason})`}: list what still waits with getPendingInterrupts()`
          : `${place} is already ${status}: ` +
            `list what still waits with getPendingInterrupts(), or repeat an answer with the same resumeRequestId`) +
        waiting,
      {
        executionId,
        interruptId,
        status: status ?? null,
        pending: [...pending],
        ...(status === "withdrawn" && { withdrawnBy: by ?? null, withdrawnAt: at ?? null, reason: reason ?? null }),
      },
    );
  }
}

/** Somebody else has taken the question on. */
export class ClaimedError extends FlowledgerError {
  /** @param claimedAt ISO */
  constructor(executionId: string, interruptId: string, claimedBy: string, claimedAt: string) {
    super(
      "INTERRUPT_CLAIMED",
      `interrupt ${quote(interruptId)} of execution ${executionId} is claimed by ${quote(claimedBy)} since ${claimedAt}: ` +
        `ask them to release it`,
      { executionId, interruptId, claimedBy, claimedAt },
    );
  }
}

/** Nobody gave this token, or not to whom may answer here. It says nothing else. */
export class TokenUnknownError extends FlowledgerError {
  constructor() {
    super("TOKEN_UNKNOWN", "this link is not valid: use it as it was sent", {});
  }
}

/** It has answered already. */
export class TokenUsedError extends FlowledgerError {
  /** @param usedAt ISO */
  constructor(usedAt: string) {
    super("TOKEN_USED", `this link was used at ${usedAt}: it answers once`, { usedAt });
  }
}

/** What it asked was answered in another way, expired, was withdrawn or cancelled, or its execution takes nothing more. */
export class TokenClosedError extends FlowledgerError {
  constructor() {
    super("TOKEN_CLOSED", "the question of this link is no longer open: there is nothing to do", {});
  }
}

/** The same `resumeRequestId` came with another value. */
export class ResumeConflictError extends FlowledgerError {
  constructor(executionId: string, interruptId: string, resumeRequestId: string) {
    super(
      "RESUME_CONFLICT",
      `resumeRequestId ${quote(resumeRequestId)} already answered interrupt ${quote(interruptId)} of execution ${executionId} ` +
        `with another value: give a different answer a new id`,
      { executionId, interruptId, resumeRequestId },
    );
  }
}

/** A pause that resumes its own chunk was answered more often than `maxResumes`. `SELF_RESUME_LIMIT` */
export class SelfResumeLimitError extends FlowledgerError {
  constructor(executionId: string, interruptId: string, resumeCount: number, maxResumes: number) {
    super(
      "SELF_RESUME_LIMIT",
      `interrupt ${quote(interruptId)} of execution ${executionId} was resumed ${count(resumeCount, "time")} and maxResumes is ${maxResumes}: ` +
        `return a value once ctx.isResume, or raise maxResumes in pauseFor()`,
      { executionId, interruptId, resumeCount, maxResumes },
    );
  }
}

/** A pause with `onExpire: "fail"` got no answer in time. */
export class InterruptExpiredError extends FlowledgerError {
  constructor(interruptId: string, chunk: string, expiredAt: Date) {
    super(
      "INTERRUPT_EXPIRED",
      `interrupt ${quote(interruptId)} of chunk ${quote(chunk)} had no answer by ${expiredAt.toISOString()}, and its onExpire is "fail": ` +
        `answer in time with continueWith(), or choose another onExpire in pauseFor()`,
      { interruptId, chunk, expiredAt: expiredAt.toISOString() },
    );
  }
}

/** A chunk paused where nobody has a handle to answer it. `NO_RESUME_HANDLE` */
export class NoResumeHandleError extends FlowledgerError {
  constructor(flowName: string, chunk: string) {
    super(
      "NO_RESUME_HANDLE",
      `chunk ${quote(chunk)} of flow ${quote(flowName)} paused in a hidden execution that nobody could resume: ` +
        `use startExecution(), or createExecution() and start()`,
      { flowName, chunk },
    );
  }
}

/** The execution takes no interventions. `INTERVENTION_DISABLED` */
export class InterventionDisabledError extends FlowledgerError {
  constructor(executionId: string, flowName: string) {
    super(
      "INTERVENTION_DISABLED",
      `execution ${executionId} of flow ${quote(flowName)} takes no interventions: ` +
        `add interventionPoint() to the flow, or create it with interventionMode "auto"`,
      { executionId, flowName },
    );
  }
}

/** A chunk requires what this worker does not have. `RESOURCE_MISSING` */
export class ResourceMissingError extends FlowledgerError {
  /** @param available names that are there; `cause` is what its factory or resolver threw */
  constructor(executionId: string, resource: string, available: readonly string[], cause?: unknown) {
    const names = available.toSorted();
    super(
      "RESOURCE_MISSING",
      cause === undefined
        ? `resource ${quote(resource)} is missing in execution ${executionId} (there: ${names.length ? listed(names) : "none"}): ` +
            `pass it in resources of createOrchestrator() or in runtimeResources`
        : `the factory or resolver of resource ${quote(resource)} failed in execution ${executionId} (${cause instanceof Error ? cause.message : String(cause)}): ` +
            `correct it; the next attempt calls it again`,
      { executionId, resource, available: names },
      cause,
    );
  }
}

/** The execution began under a definition that this process does not have. */
export class DefinitionMismatchError extends FlowledgerError {
  /** @param problem what the current definition lacks, where that is known */
  constructor(executionId: string, flowName: string, recorded: string, current: string, problem: string | null = null) {
    super(
      "DEFINITION_MISMATCH",
      `execution ${executionId} began with definition ${recorded.slice(0, 12)} of flow ${quote(flowName)}, and this process has ${current.slice(0, 12)}` +
        `${problem === null ? "" : ` (${problem})`}: run a worker with the old definition until it closes, or put back what is missing`,
      { executionId, flowName, recorded, current, ...(problem !== null && { problem }) },
    );
  }
}

/** The stream of a handler is read twice. `STREAM_CONSUMED` */
export class StreamConsumedError extends FlowledgerError {
  constructor(executionId: string) {
    super(
      "STREAM_CONSUMED",
      `this handler has already read the events of run ${executionId} to their end: read them again with getRuntimeStream()`,
      { executionId },
    );
  }
}

/** Nothing of what was put is in the stream. Trying again changes nothing, so a chunk that lets it through has failed. */
export class StreamLimitError extends FlowledgerError {
  /** @param value how many items there would have been; @param perMs within which time, where it is the rate */
  constructor(
    executionId: string,
    limit: "maxStreamItems" | "maxStreamRate",
    max: number,
    value: number,
    perMs?: number,
  ) {
    super(
      "STREAM_LIMIT",
      perMs === undefined
        ? `the stream of execution ${executionId} would have ${value} items, and maxStreamItems of its flow is ${max}: ` +
            `put several things into one item, or raise maxStreamItems`
        : `the stream of execution ${executionId} would get ${value} items within ${perMs} ms, and maxStreamRate of its flow is ${max}: ` +
            `put several things into one item, wait in between, or raise maxStreamRate`,
      { executionId, limit, max, value, ...(perMs !== undefined && { perMs }) },
    );
  }
}

/** Nothing was written. Trying again changes nothing, so a chunk that lets it through has failed. */
export class StateLimitError extends FlowledgerError {
  /** @param size what it would have been, in characters of JSON, as `max` is */
  constructor(executionId: string, key: string, size: number, max: number) {
    super(
      "STATE_LIMIT",
      `with "${key}" the state of execution ${executionId} would have ${size} characters of JSON, and ${max} is the most: ` +
        `keep large data elsewhere and a reference to it in the state, or delete what is not needed any more`,
      { executionId, key, size, max },
    );
  }
}

/** For a server: who reads a stream over the network took nothing, and was let go. It may come back with its cursor. */
export class StreamStalledError extends FlowledgerError {
  constructor(stalledMs: number) {
    super(
      "STREAM_STALLED",
      `a reader read nothing from its stream for ${stalledMs} ms and was disconnected: reconnect with its last cursor, or raise stallTimeout`,
      { stalledMs },
    );
  }
}

/** The schema is missing, or older than this library. `NOT_MIGRATED` */
export class NotMigratedError extends FlowledgerError {
  constructor(schema: string, cause?: unknown) {
    super(
      "NOT_MIGRATED",
      `schema ${quote(schema)} does not exist, or is older than this library: call orchestrator.migrate(), or run npx flowledger migrate`,
      { schema },
      cause,
    );
  }
}

/** A warning for `process.emitWarning`: something waits that no worker serves. */
export class NoWorkerWarning extends FlowledgerError {
  constructor(flowName: string, waitedMs: number) {
    super(
      "NO_WORKER",
      `no worker has taken an execution of flow ${quote(flowName)} for ${Math.round(waitedMs / 1000)} s: ` +
        `call orchestrator.startWorker() here, or start a process that serves the flow`,
      { flowName, waitedMs },
    );
  }
}

/** `flowledger/defer` was used before it knew a database. */
export class NotConfiguredError extends FlowledgerError {
  constructor(called: string) {
    super(
      "NOT_CONFIGURED",
      `${called} was called before flowledger/defer had an orchestrator: call configure(createOrchestrator({ … })) first`,
      { called },
    );
  }
}

/** What `flowledger/defer` throws on its own account; the messages begin as Defer's do. */
export class DeferError extends FlowledgerError {}

/** There is no such execution of a function in this database. */
export class ExecutionNotFound extends DeferError {
  constructor(executionId: string) {
    super(
      "EXECUTION_NOT_FOUND",
      `cannot find execution ${quote(executionId)}: check the id and the connection, or whether it was pruned`,
      { executionId },
    );
  }
}

/** It has ended, or it has begun and the cancel was not to abort it: `cancelExecution(id, true)` does. */
export class ExecutionNotCancellable extends DeferError {
  constructor(executionId: string, state: string) {
    super(
      "EXECUTION_NOT_CANCELLABLE",
      `cannot cancel execution in ${quote(state)} state: ` +
        (state === "started" ? "cancelExecution(id, true) aborts it" : `read what became of it with getExecution(id)`),
      { executionId, state },
    );
  }
}

/** It is being aborted already. */
export class ExecutionAbortingAlreadyInProgress extends DeferError {
  constructor(executionId: string) {
    super(
      "EXECUTION_ABORTING",
      `aborting execution ${executionId} is already in progress: wait until getExecution(id) says "aborted"`,
      { executionId, state: "aborting" },
    );
  }
}

/** It has begun, or has ended. */
export class ExecutionNotReschedulable extends DeferError {
  constructor(executionId: string, state: string) {
    super(
      "EXECUTION_NOT_RESCHEDULABLE",
      `cannot reschedule execution in ${quote(state)} state: only what has not started can move, reRunExecution(id) makes a new one`,
      { executionId, state },
    );
  }
}

/** It has not ended. */
export class ExecutionResultNotAvailableYet extends DeferError {
  constructor(executionId: string, state: string) {
    super(
      "RESULT_NOT_AVAILABLE_YET",
      `result is not available yet: execution ${executionId} is ${quote(state)}, ask again later or use awaitResult()`,
      { executionId, state },
    );
  }
}

/** It ended without a result: cancelled, aborted or discarded. */
export class ExecutionResultNotAvailable extends DeferError {
  constructor(executionId: string, state: string) {
    super(
      "RESULT_NOT_AVAILABLE",
      `result is not available: execution ${executionId} is ${quote(state)} and will have none`,
      { executionId, state },
    );
  }
}

/** `awaitResult` waited for an execution that was cancelled, aborted or discarded. */
export class ExecutionNotCompleted extends DeferError {
  constructor(executionId: string, state: string, cause: unknown) {
    super(
      "EXECUTION_NOT_COMPLETED",
      `execution ${quote(executionId)} was ${quote(state)}: run it again with reRunExecution(id), if it is still wanted`,
      { executionId, state },
      cause,
    );
  }
}

/** The schema cannot become what this library needs, or is newer than it. */
export class MigrationError extends FlowledgerError {
  constructor(problem: string, remedy: string, details: ErrorDetails = {}, cause?: unknown) {
    super("MIGRATION_FAILED", `${problem}: ${remedy}`, details, cause);
  }
}

/** A database whose clock a test moves, met by what goes by the real one; or the other way round. */
export class MovableClockError extends FlowledgerError {
  /** @param isMovable what the database has */
  constructor(place: string, isMovable: boolean) {
    super(
      "CLOCK_MOVABLE",
      isMovable
        ? `${place} is the database of a test, and its clock is moved by hand: ` +
            `connect to another database, or join that test with testOrchestrator({ database }) of flowledger/test`
        : `${place} has no clock that a test may move: ` +
            `leave out database, or pass the database of another testOrchestrator()`,
      { place, isMovable },
    );
  }
}

/** No database behind the connection: unreachable, wrong password, read only. */
export class ConnectionError extends FlowledgerError {
  /** @param target host, port and database, never the password; null where only one can be meant */
  constructor(target: string | null, problem: string, remedy: string, cause?: unknown) {
    const place = target === null ? "database" : `database ${target}`;
    super("CONNECTION_FAILED", `${place}: ${problem}: ${remedy}`, { target, problem }, cause);
  }
}

/** The database user lacks a right. */
export class PermissionError extends FlowledgerError {
  /** @param refused what Postgres said, e.g. `permission denied for function start` */
  constructor(user: string, target: string, refused: string, cause?: unknown) {
    super(
      "PERMISSION_DENIED",
      `role ${quote(user)} may not do that in database ${target} (${refused}): grant it the right, or connect as a role that grant_roles() made`,
      { user, target, refused },
      cause,
    );
  }
}

/** Postgres refused a statement, for a reason that is none of the others. */
export class DatabaseError extends FlowledgerError {
  constructor(target: string, problem: string, sqlstate: string, remedy: string, cause?: unknown) {
    super(
      "DATABASE_REFUSED",
      `database ${target} refused a statement: ${problem} (SQLSTATE ${sqlstate}): ${remedy}`,
      { target, problem, sqlstate },
      cause,
    );
  }
}

// ── from running ────────────────────────────────────────────────────────────────────────────────────────────

/** A chunk threw for the last time. `cause` is its own error: name, message and stack. */
export class ExecutionFailedError extends FlowledgerError {
  constructor(executionId: string, flowName: string, error: SerializedError) {
    const chunk = error.chunk === undefined ? "" : ` in chunk ${quote(error.chunk)}`;
    super(
      "EXECUTION_FAILED",
      `execution ${executionId} of flow ${quote(flowName)} failed${chunk} with ${error.name}: ${error.message}`,
      { executionId, flowName, error },
      revive(error),
    );
  }
}

/**
 * Throw it where a service has said when to come again: from a chunk, a step, a tool or a deferred function. The next try comes then, in
 * place of the policy's own wait, without jitter, and not later than after the longest wait of the policy (`maxInterval`, or of `waits`).
 * How often, and whether at all, `retry` says as for every error. `RETRY_AFTER`
 */
export class RetryAfterError extends FlowledgerError {
  readonly retryAfter: string | number | Date;

  /**
   * @param message what went wrong
   * @param retryAfter a length of time from now on, "90s" or 90_000 (milliseconds), or a moment; one that has passed leaves the wait to
   *   the policy. What is neither makes the failure a {@link UsageError}, which is not tried again
   * @param options `cause`: what the service answered
   */
  constructor(message: string, retryAfter: string | number | Date, options: { readonly cause?: unknown } = {}) {
    super("RETRY_AFTER", message, { retryAfter }, options.cause);
    this.retryAfter = retryAfter;
  }
}

/** Somebody cancelled the execution that was waited for. `EXECUTION_CANCELLED` */
export class ExecutionCancelledError extends FlowledgerError {
  constructor(executionId: string, reason: string | null) {
    super("EXECUTION_CANCELLED", `execution ${executionId} was cancelled${reason ? `: ${reason}` : ""}`, {
      executionId,
      reason,
    });
  }
}

/** The execution ran longer than its `timeout`, or `maxDuration` of its flow. `EXECUTION_TIMEOUT` */
export class ExecutionTimeoutError extends FlowledgerError {
  constructor(executionId: string, timeoutMs: number) {
    super(
      "EXECUTION_TIMEOUT",
      `execution ${executionId} ran longer than its timeout of ${timeoutMs} ms: raise timeout, or maxDuration of its flow`,
      { executionId, timeoutMs },
    );
  }
}

/** The code of a chunk ran longer than its `timeout`. `CHUNK_TIMEOUT` */
export class ChunkTimeoutError extends FlowledgerError {
  constructor(executionId: string, chunk: string, timeoutMs: number) {
    super(
      "CHUNK_TIMEOUT",
      `chunk ${quote(chunk)} of execution ${executionId} ran longer than its timeout of ${timeoutMs} ms: raise timeout, or pass ctx.signal to whatever it awaits`,
      { executionId, chunk, timeoutMs },
    );
  }
}

/** A step ran longer than its `timeout`. `STEP_TIMEOUT` */
export class StepTimeoutError extends FlowledgerError {
  constructor(executionId: string, chunk: string, step: string, timeoutMs: number) {
    super(
      "STEP_TIMEOUT",
      `step ${quote(step)} of chunk ${quote(chunk)} of execution ${executionId} ran longer than its timeout of ${timeoutMs} ms: raise timeout, or pass the signal to whatever it awaits`,
      { executionId, chunk, step, timeoutMs },
    );
  }
}

/** A list or a count of executions took too long, and was ended. */
export class SearchTimeoutError extends FlowledgerError {
  /** @param filters names of those that were given */
  constructor(filters: readonly string[], timeoutMs: number) {
    super(
      "SEARCH_TIMEOUT",
      `a search for executions ${filters.length ? `by ${filters.join(", ")}` : "without a filter"} took more than ${timeoutMs} ms: add a flow, a status, or a shorter range of times`,
      { filters: [...filters], timeoutMs },
    );
  }
}

/** What was accepted had not run when the `timeout` of `close()` was over; the execution stays sealed. `DRAIN_TIMEOUT` */
export class DrainTimeoutError extends FlowledgerError {
  constructor(executionId: string, timeoutMs: number) {
    super(
      "DRAIN_TIMEOUT",
      `execution ${executionId} still runs ${timeoutMs} ms after close() and stays sealed: call close() again to wait on, or cancel()`,
      { executionId, timeoutMs },
    );
  }
}

/** Somebody stopped waiting; the execution itself goes on. */
export class WaitTimeoutError extends FlowledgerError {
  constructor(executionId: string, timeoutMs: number) {
    super(
      "WAIT_TIMEOUT",
      `execution ${executionId} had not closed after ${timeoutMs} ms, and still runs: wait again with waitForClose(), or cancel() it`,
      { executionId, timeoutMs },
    );
  }
}

/** The execution took worker after worker down with it. */
export class WorkerCrashLoopError extends FlowledgerError {
  constructor(executionId: string, chunk: string | null, takeovers: number) {
    super(
      "WORKER_CRASH_LOOP",
      `execution ${executionId} took ${count(takeovers, "worker")} down without progress${chunk === null ? "" : ` in chunk ${quote(chunk)}`}: ` +
        `look for memory or native crashes there, then fork() it`,
      { executionId, chunk, takeovers },
    );
  }
}

/** Internal: another worker owns the execution now, so this turn was fenced and its effects dropped. */
export class LeaseLostError extends FlowledgerError {
  constructor(executionId: string, epoch: number) {
    super(
      "LEASE_LOST",
      `execution ${executionId} is no longer owned at epoch ${epoch}, and another worker continues it: stop when ctx.signal aborts`,
      { executionId, epoch },
    );
  }
}

/** A retried chunk did something else at a place where the ledger already has an effect. */
export class JournalMismatchError extends FlowledgerError {
  /** @param recorded and `found` are effects in words, e.g. `step "charge"` */
  constructor(executionId: string, chunk: string, ordinal: number, recorded: string, found: string) {
    super(
      "JOURNAL_MISMATCH",
      `chunk ${quote(chunk)} of execution ${executionId} did ${found} as effect ${ordinal}, where an earlier attempt did ${recorded}: ` +
        `make its effects depend only on its input and on recorded values, and wrap time and randomness in ctx.step()`,
      { executionId, chunk, ordinal, recorded, found },
    );
  }
}

/** A worker that cannot start or cannot go on. */
export class WorkerError extends FlowledgerError {
  constructor(problem: string, remedy: string, details: ErrorDetails = {}, cause?: unknown) {
    super("WORKER_FAILED", `worker: ${problem}: ${remedy}`, details, cause);
  }
}

/** What an error from the ledger is an instance of again. A RetryAfterError is not: it has asked, and what it asked for is not kept. */
const revivable = new Map(
  [
    TypeError,
    RangeError,
    ReferenceError,
    SyntaxError,
    EvalError,
    URIError,
    DefinitionError,
    ContractError,
    UsageError,
    PayloadError,
    ExecutionNotFoundError,
    ExecutionSealedError,
    ExecutionClosedError,
    LockedError,
    PendingInterruptsError,
    ChunksParkedError,
    ConflictError,
    FlowPausedError,
    InterruptNotPendingError,
    ClaimedError,
    TokenUnknownError,
    TokenUsedError,
    TokenClosedError,
    ResumeConflictError,
    SelfResumeLimitError,
    InterruptExpiredError,
    NoResumeHandleError,
    InterventionDisabledError,
    ResourceMissingError,
    DefinitionMismatchError,
    StreamConsumedError,
    StreamLimitError,
    StateLimitError,
    StreamStalledError,
    NotMigratedError,
    NoWorkerWarning,
    NotConfiguredError,
    DeferError,
    ExecutionNotFound,
    ExecutionNotCancellable,
    ExecutionAbortingAlreadyInProgress,
    ExecutionNotReschedulable,
    ExecutionResultNotAvailableYet,
    ExecutionResultNotAvailable,
    ExecutionNotCompleted,
    MigrationError,
    MovableClockError,
    ConnectionError,
    PermissionError,
    DatabaseError,
    ExecutionFailedError,
    ExecutionCancelledError,
    ExecutionTimeoutError,
    ChunkTimeoutError,
    StepTimeoutError,
    SearchTimeoutError,
    DrainTimeoutError,
    WaitTimeoutError,
    WorkerCrashLoopError,
    LeaseLostError,
    JournalMismatchError,
    WorkerError,
  ].map((type) => [type.name, type]),
);

/** What was thrown, from the ledger: its name, message, stack and code. */
export function revive(error: SerializedError): Error {
  const revived = new Error(error.message);
  revived.name = error.name;
  // Without a stack of its own, the place of this rebuild would pass for the place of the failure.
  revived.stack = error.stack ?? `${error.name}: ${error.message}`;
  if (error.code !== undefined) Object.assign(revived, { code: error.code });
  const type = revivable.get(error.name);
  if (type === undefined) return revived;
  Object.setPrototypeOf(revived, type.prototype);
  if (revived instanceof FlowledgerError) Object.assign(revived, { details: {} });
  return revived;
}

function quote(text: string): string {
  return JSON.stringify(text);
}

function plainKey(key: PropertyKey): string | number {
  return typeof key === "symbol" ? String(key) : key;
}

function dotted(path: readonly (string | number)[]): string {
  return path.map((key, index) => (typeof key === "number" ? `[${key}]` : index === 0 ? key : `.${key}`)).join("");
}

function count(amount: number, noun: string): string {
  return `${amount} ${noun}${amount === 1 ? "" : "s"}`;
}

function listed(names: readonly string[]): string {
  const shown = names.slice(0, 5).join(", ");
  return names.length > 5 ? `${shown} and ${names.length - 5} more` : shown;
}
