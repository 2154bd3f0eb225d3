/** Lists: executions of functions, and the attempts of one. */
import { UsageError, type SerializedError } from "../base/errors.ts";
import { show } from "../base/option.ts";
import { ExecutionId, type Recorded } from "../ledger/event.ts";
import { internals } from "../orchestrator.ts";
import { plainErrorCode, type FunctionState } from "../store/functions.ts";
import { publicExecution, record, requireId, type FunctionExecution } from "./executions.ts";
import {
  attemptFilterNames,
  filterNames,
  requireFilters,
  type AttemptFilters,
  type ExecutionFilters,
} from "./filters.ts";
import { pageOf, requirePage, type Page, type PageOptions } from "./pages.ts";
import { requireOrchestrator } from "./configure.ts";

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
      // A discarded execution was claimed too, but only to be closed.
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

function requireCursor(cursor: string): ExecutionId {
  const parsed = ExecutionId.safeParse(cursor);
  if (parsed.success) return parsed.data;
  throw new UsageError(`${show(cursor)} is not a cursor`, "pass startCursor or endCursor of a page");
}

function requireAttempt(cursor: string): number {
  if (typeof cursor === "string" && /^\d{1,9}$/.test(cursor)) return Number(cursor);
  throw new UsageError(`${show(cursor)} is not a cursor`, "pass startCursor or endCursor of a page");
}
