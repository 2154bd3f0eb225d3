/** `createOrchestrator()`: the only file that wires all rooms. */
import { v7 as uuidv7 } from "uuid";
import { z } from "zod";
import { answered, Batcher } from "./database/batcher.ts";
import { createMany } from "./database/commands.ts";
import type { CreateResult, NewExecution } from "./database/commands.ts";
import { connect, translate } from "./database/connection.ts";
import type { ConnectionOption, Queries, Sql } from "./database/connection.ts";
import { migrate, requireMigrated } from "./database/migrate.ts";
import {
  appendFlowData,
  currentTransaction,
  deleteFlowData,
  findOver,
  hasLedger,
  listHeaders,
  listInterrupts,
  readFlowData,
  writeFlowData,
} from "./database/queries.ts";
import type { Header } from "./database/queries.ts";
import { prune } from "./database/prune.ts";
import type { Pruned } from "./database/prune.ts";
import { rebuild } from "./database/rebuild.ts";
import type { Difference, RebuildOptions } from "./database/rebuild.ts";
import { verify } from "./database/verify.ts";
import type { VerifyOptions, Violation } from "./database/verify.ts";
import { borrow } from "./database/borrow.ts";
import type { CallerTransaction } from "./database/borrow.ts";
import { openWakeups } from "./database/wakeups.ts";
import type { Wakeups } from "./database/wakeups.ts";
import type { NewChild } from "./engine/child.ts";
import { warnFlowData } from "./engine/chunk.ts";
import type { FlowDataAccess } from "./engine/chunk.ts";
import { KeptResources } from "./engine/resources.ts";
import type { Resources, WorkerResources } from "./engine/resources.ts";
import { DefinitionError, ExecutionNotFoundError, UsageError } from "./errors.ts";
import { Execution } from "./execution/execution.ts";
import type { ExecutionHost } from "./execution/execution.ts";
import { Handler } from "./execution/handler.ts";
import { inspectLoad, load } from "./execution/history.ts";
import type { LoadReport, LoadTarget } from "./execution/history.ts";
import { InterruptRecord } from "./execution/interrupt.ts";
import { endingOf, openOutcomes, snapshotOf } from "./execution/outcomes.ts";
import type { Outcomes } from "./execution/outcomes.ts";
import { followStream, openStreams, stoppable } from "./execution/stream.ts";
import type { StreamOptions, Streams } from "./execution/stream.ts";
import type { Logger } from "./flow/context.ts";
import { parseInput } from "./flow/contract.ts";
import type { CloseSnapshot, Contract, StartInput, StreamItem } from "./flow/contract.ts";
import type { FlowDefinition } from "./flow/definition.ts";
import { parseDuration, parseMoment } from "./flow/duration.ts";
import type { Duration } from "./flow/duration.ts";
import { limitKeyOf } from "./flow/limits.ts";
import { ExecutionId, Outcome } from "./ledger/event.ts";
import type { Settings } from "./ledger/event.ts";
import { toJson } from "./ledger/payload.ts";
import type { Json, JsonObject } from "./ledger/payload.ts";
import { resolveSchedules } from "./worker/schedules.ts";
import type { Schedule, ScheduleOptions } from "./worker/schedules.ts";
import type { LocalWorker, Worker } from "./worker/worker.ts";

export interface OrchestratorOptions {
  /** A connection string, or options of postgres.js. @default process.env.DATABASE_URL */
  connection?: ConnectionOption | undefined;
  /** The flows this process starts or serves, and with them their sub-flows. */
  flows?: readonly FlowDefinition[];
  /** Background functions, as `defer()` of `flowledger/defer` makes them: this process serves them too. */
  functions?: readonly FunctionDefinition[];
  /** Live objects for chunks, by name; a function is a factory `(execution) => value`, called once per execution. */
  resources?: WorkerResources;
  /** What starts by the clock, as long as a worker runs. */
  schedules?: readonly ScheduleOptions[];
  /** Where the library writes; anything with pino's methods. @default warnings and errors to stderr */
  logger?: Logger;
}

/** What `defer()` makes. */
export interface FunctionDefinition {
  (...args: never[]): Promise<unknown>;
  readonly flow: FlowDefinition;
  readonly __metadata: { readonly cron?: string };
}

export interface WorkerOptions {
  /** Executions advanced at once. @default 100 */
  concurrency?: number;
  /** How long `stop()` waits for chunks to reach a commit point. @default "30s" */
  drainTimeout?: Duration;
  /** How long a cancelled chunk may take to stop. @default "5s" */
  cancelGrace?: Duration;
}

export interface CreateOptions {
  /** uuid v7. @default generated */
  id?: string;
  /** One execution per flow and key: creating again gives the same one. */
  idempotencyKey?: string;
  /** Searchable JSON that never enters the close snapshot. */
  metadata?: Readonly<Record<string, unknown>>;
  /** Lower runs first, -32768 to 32767. @default 0 */
  priority?: number;
  /** Earliest start. */
  startAt?: Date;
  /** Wait before the start. */
  delay?: Duration;
  /** Cancelled with the reason "discarded" when no worker has taken it by then. @default never */
  discardAfter?: Date | Duration;
  /** Close when idle. @default true */
  autoClose?: boolean;
  /** Idle time before auto-close; null is never. @default "10s" */
  autoCloseTimeout?: Duration | null;
  /** Chunks at once in this execution; null is unlimited. @default null */
  concurrency?: number | null;
  /** @default "planned" where the flow has intervention points, else off */
  interventionMode?: "planned" | "auto" | null;
  /** Live objects for this execution, in this process only; their names are recorded. */
  runtimeResources?: Resources;
  /** Longest time from the first time that a worker takes it to the close; null is none. @default `maxDuration` of the flow */
  timeout?: Duration | null;
  /** A transaction of postgres.js, drizzle or pg: the start commits or rolls back with the caller's own writes. */
  tx?: CallerTransaction;
}

/** Options of one run: its id is its own, and it begins at once. */
export type RunOptions = Omit<CreateOptions, "id" | "idempotencyKey" | "tx" | "autoClose">;

export interface PruneOptions {
  /** Executions that closed before this go. */
  closedBefore: Date;
  /** What stays all the same: one of these statuses or flows, or metadata that contains this. */
  keep?: {
    readonly status?: readonly ("completed" | "failed" | "cancelled")[];
    readonly flow?: readonly string[];
    readonly metadata?: Readonly<Record<string, unknown>>;
  };
  /** Called after each page with what went so far. */
  onProgress?: (pruned: Pruned) => void;
}

const endings = new Set<string>(Outcome.options);

export interface ListOptions {
  flow?: string;
  status?: Header["status"] | readonly Header["status"][];
  /** Executions whose metadata contain this. */
  metadata?: Readonly<Record<string, unknown>>;
  createdAfter?: Date;
  /** `nextCursor` of the page before. */
  cursor?: string;
  /** 1 to 1000. @default 100 */
  limit?: number;
}

export interface ListInterruptsOptions {
  flow?: string;
  /** The `type` given to `pauseFor`. */
  type?: string;
  /** Of executions whose metadata contain this. */
  metadata?: Readonly<Record<string, unknown>>;
  /** Waiting since before. */
  olderThan?: Date;
  /** `nextCursor` of the page before. */
  cursor?: string;
  /** 1 to 1000. @default 100 */
  limit?: number;
}

export interface ExecutionSummary {
  readonly id: ExecutionId;
  readonly flow: string;
  readonly status: Header["status"];
  readonly lifecycle: Header["lifecycle"];
  readonly metadata: JsonObject;
  readonly createdAt: Date;
  readonly startedAt: Date | null;
  readonly closedAt: Date | null;
  readonly closeReason: string | null;
}

/** Where `flowledger/defer` finds what it needs of an orchestrator; nobody else's business. */
export const internals = Symbol("flowledger.internals");

export interface OrchestratorInternals {
  readonly functions: ReadonlyMap<string, FunctionDefinition>;
  readonly isClosed: boolean;
  readonly create: (execution: NewExecution) => Promise<ExecutionId>;
  readonly query: <T>(work: (sql: Sql) => Promise<T>) => Promise<T>;
  /** Tells everybody who waits on the execution that something came in. */
  readonly tell: (id: ExecutionId) => void;
}

export function createOrchestrator(options: OrchestratorOptions = {}): Orchestrator {
  return new Orchestrator(options);
}

export class Orchestrator implements AsyncDisposable {
  readonly #option: ConnectionOption;
  readonly #sql: Sql;
  readonly #wakeups: Wakeups;
  readonly #outcomes: Outcomes;
  readonly #streams: Streams;
  readonly #flows = new Map<string, FlowDefinition>();
  readonly #functions = new Map<string, FunctionDefinition>();
  readonly #resources: WorkerResources;
  readonly #flowResources = new Map<string, Record<string, unknown>>();
  readonly #executionResources = new KeptResources((kept) => findOver(this.#sql, kept));
  readonly #log: Logger;
  readonly #starts: Batcher<NewExecution, CreateResult>;
  readonly #workers = new Set<LocalWorker>();
  readonly #schedules: readonly Schedule[];
  #checked: Promise<void> | undefined;
  #isClosed = false;

  constructor(options: OrchestratorOptions) {
    const connection = options.connection ?? process.env["DATABASE_URL"];
    if (connection === undefined)
      throw new UsageError("createOrchestrator() has no connection", "pass { connection } or set DATABASE_URL");
    for (const flow of options.flows ?? []) this.#register(flow);
    for (const [index, definition] of (options.functions ?? []).entries()) this.#registerFunction(definition, index);
    for (const schedule of options.schedules ?? []) this.#register(schedule.flow);
    const schedules = [...(options.schedules ?? []), ...(options.functions ?? []).flatMap(scheduleOf)];
    this.#schedules = resolveSchedules(schedules, (flow, input, more) =>
      newExecution(flow, { ...more, autoCloseTimeout: 0 }, parseInput(flow, input), false),
    );
    this.#option = connection;
    this.#sql = connect(connection);
    this.#wakeups = openWakeups(this.#sql);
    this.#outcomes = openOutcomes(this.#sql, this.#wakeups);
    this.#streams = openStreams(this.#sql, this.#wakeups);
    this.#resources = options.resources ?? {};
    this.#log = options.logger ?? stderrLogger;
    this.#starts = new Batcher({
      send: (items) => {
        const [worker] = this.#workers;
        return worker ? worker.create(items) : createMany(this.#sql, items);
      },
    });
  }

  /** Brings the database to this version. Idempotent, and safe when several processes call it at once. */
  async migrate(): Promise<void> {
    await migrate(this.#option);
    this.#checked = undefined;
  }

  /** Starts a long-running worker in this process, serving every flow given to the orchestrator. */
  async startWorker(options: WorkerOptions = {}): Promise<Worker> {
    const { concurrency = 100 } = options;
    if (!Number.isSafeInteger(concurrency) || concurrency < 1)
      throw new UsageError(`worker concurrency ${String(concurrency)} is not possible`, "use a whole number from 1");
    if (this.#flows.size === 0)
      throw new UsageError(
        "a worker without flows has nothing to do",
        "pass { flows } or { functions } to createOrchestrator()",
      );
    await this.#ready();
    await this.#wakeups.ready();
    // Those who only start and read executions need not load it.
    const { startWorker } = await import("./worker/worker.ts");
    const worker = await startWorker(
      {
        sql: this.#sql,
        wakeups: this.#wakeups,
        log: this.#log,
        resources: this.#resources,
        flows: this.#flows,
        schedules: this.#schedules,
        flowResources: (flow) => this.#flowResources.get(flow) ?? {},
        executionResources: (id) => this.#executionResources.get(id),
        flowData: (flow) => this.#flowData(flow),
        runChild: async (child, { onCreated, signal }) => {
          const created = this.#create(childExecution(child, this.#flows.get(child.flow)), undefined);
          this.#executionResources.keep(child.id, child.resources, created);
          const id = await created;
          onCreated();
          const ending = await this.#outcomes.closed(id, { flow: child.flow, signal });
          signal.throwIfAborted();
          this.#executionResources.drop(child.id);
          return ending ?? endingOf(await this.#outcomes.header(id));
        },
        announce: (id, closed) => {
          if (closed) {
            this.#executionResources.drop(id);
            this.#outcomes.deliver(id, closed);
          }
          this.#wakeups.send(id);
        },
      },
      {
        concurrency,
        drainTimeoutMs: parseDuration(options.drainTimeout ?? "30s", "drainTimeout of startWorker()"),
        cancelGraceMs: parseDuration(options.cancelGrace ?? "5s", "cancelGrace of startWorker()"),
      },
    );
    this.#workers.add(worker);
    return worker;
  }

  /** A flow bound to this database: the definition itself, or the name of one given to the orchestrator. */
  flow<C extends Contract>(flow: FlowDefinition<C>): BoundFlow<C>;
  flow(flow: string): BoundFlow;
  flow(flow: FlowDefinition | string): BoundFlow {
    if (typeof flow !== "string") return this.#bind(flow);
    const known = this.#flows.get(flow);
    if (known) return this.#bind(known);
    const names = [...this.#flows.keys()].toSorted().join(", ") || "none";
    throw new UsageError(
      `flow "${flow}" is not known here (there are: ${names})`,
      "correct the name, or pass the flow to createOrchestrator({ flows })",
    );
  }

  /** @throws {ExecutionNotFoundError} */
  async getExecution(id: string): Promise<Execution> {
    const executionId = parseId(id);
    await this.#ready();
    const { flow } = await this.#outcomes.header(executionId);
    return new Execution(this.#host, executionId, { name: flow, definition: this.#flows.get(flow) ?? null }, null);
  }

  /** Executions, newest first. */
  async listExecutions(
    options: ListOptions = {},
  ): Promise<{ executions: ExecutionSummary[]; nextCursor: string | null }> {
    const { limit = 100, status, flow, metadata, createdAfter, cursor } = options;
    if (!Number.isSafeInteger(limit) || limit < 1 || limit > 1000)
      throw new UsageError(
        `limit ${String(limit)} of listExecutions() is not possible`,
        "use a whole number from 1 to 1000",
      );
    if (createdAfter && Number.isNaN(createdAfter.getTime()))
      throw new UsageError("createdAfter of listExecutions() is not a date", "pass a valid Date");
    await this.#ready();
    const headers = await this.#translated(() =>
      listHeaders(this.#sql, {
        limit,
        ...(flow !== undefined && { flow }),
        ...(status !== undefined && { status: typeof status === "string" ? [status] : status }),
        ...(metadata !== undefined && { metadata: parseMetadata(metadata) ?? {} }),
        ...(createdAfter !== undefined && { createdAfter }),
        ...(cursor !== undefined && { cursor: parseId(cursor) }),
      }),
    );
    const executions = headers.map(summaryOf);
    return { executions, nextCursor: headers.length === limit ? (headers.at(-1)?.id ?? null) : null };
  }

  /**
   * A new execution that goes on where a saved one was; its meta says where it came from.
   *
   * @throws {UsageError} not a save of this version, or changed since
   * @throws {DefinitionMismatchError | ResourceMissingError}
   */
  async load(saved: unknown, options: { runtimeResources?: Resources } = {}): Promise<Execution> {
    await this.#ready();
    const { runtimeResources = {} } = options;
    const { id, flow } = await this.#translated(() => load(this.#sql, saved, this.#loadTarget(runtimeResources)));
    this.#executionResources.keep(id, runtimeResources, Promise.resolve(id));
    return new Execution(this.#host, id, { name: flow, definition: this.#flows.get(flow) ?? null }, true);
  }

  /** What `load()` would say, without touching anything. */
  inspectLoad(saved: unknown, options: { runtimeResources?: Resources } = {}): LoadReport {
    return inspectLoad(saved, this.#loadTarget(options.runtimeResources ?? {}));
  }

  #loadTarget(runtimeResources: Resources): LoadTarget {
    return {
      flow: (name) => this.#flows.get(name) ?? null,
      resourcesOf: (flow) => [
        ...Object.keys(runtimeResources),
        ...Object.keys(this.#flowResources.get(flow) ?? {}),
        ...Object.keys(this.#resources),
      ],
    };
  }

  /** The inbox: interrupts that wait for an answer, across executions, oldest first. */
  async listPendingInterrupts(
    options: ListInterruptsOptions = {},
  ): Promise<{ interrupts: InterruptRecord[]; nextCursor: string | null }> {
    const { limit = 100, flow, type, metadata, olderThan, cursor } = options;
    if (!Number.isSafeInteger(limit) || limit < 1 || limit > 1000)
      throw new UsageError(
        `limit ${String(limit)} of listPendingInterrupts() is not possible`,
        "use a whole number from 1 to 1000",
      );
    await this.#ready();
    const records = await this.#translated(() =>
      listInterrupts(this.#sql, {
        limit,
        ...(flow !== undefined && { flow }),
        ...(type !== undefined && { type }),
        ...(metadata !== undefined && { metadata: parseMetadata(metadata) ?? {} }),
        ...(olderThan !== undefined && { olderThan }),
        ...(cursor !== undefined && { cursor: parseInterruptCursor(cursor) }),
      }),
    );
    const interrupts = records.map((record) => InterruptRecord.parse(record));
    const last = interrupts.at(-1);
    const nextCursor = last && interrupts.length === limit ? `${last.executionId} ${last.id}` : null;
    return { interrupts, nextCursor };
  }

  /** Checks every guarantee, in the ledger and in all that is derived from it; safe beside live workers. [] is all well. */
  async verify(options: VerifyOptions = {}): Promise<Violation[]> {
    if (options.id !== undefined) await this.#requireExecution(options.id);
    await this.#ready();
    return this.#translated(() => verify(this.#sql, options));
  }

  /**
   * Derives headers, close snapshots, interrupts, interventions and kept snapshots again from the ledger alone, beside
   * live workers; resolves with the rows that were different.
   */
  async rebuild(options: RebuildOptions = {}): Promise<Difference[]> {
    if (options.id !== undefined) await this.#requireExecution(options.id);
    await this.#ready();
    return this.#translated(() => rebuild(this.#sql, options));
  }

  /**
   * Removes closed executions, with their ledgers and all that is derived from them, page by page. It needs a connection
   * that may delete: the schema's owner. What went is said here, and kept in `flowledger.prunes`.
   */
  async prune(options: PruneOptions): Promise<Pruned> {
    if (!(options.closedBefore instanceof Date) || Number.isNaN(options.closedBefore.getTime()))
      throw new UsageError("closedBefore of prune() is not a date", "pass a valid Date");
    const { status = [], flow = [], metadata, ...unknown } = options.keep ?? {};
    const [stray] = Object.keys(unknown);
    if (stray !== undefined) throw new UsageError(`keep of prune() has no "${stray}"`, "use status, flow and metadata");
    for (const one of status)
      if (!endings.has(one))
        throw new UsageError(
          `status "${String(one)}" in keep of prune() is none a closed execution has`,
          `use ${[...endings].join(", ")}`,
        );
    const keep = { status: [...status], flow: [...flow], ...(metadata && { metadata: parseMetadata(metadata) }) };
    await this.#ready();
    return this.#translated(() => prune(this.#sql, options.closedBefore, keep, options.onProgress));
  }

  /** Its header may be gone: then the ledger tells. @throws {UsageError | ExecutionNotFoundError} */
  async #requireExecution(id: string): Promise<void> {
    const executionId = parseId(id);
    await this.#ready();
    if (!(await this.#translated(() => hasLedger(this.#sql, executionId)))) throw new ExecutionNotFoundError(id);
  }

  /** Stops the workers, ends the connections. Whoever still waits or reads here gets a `ConnectionError`. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#workers].map((worker) => worker.stop()));
    this.#workers.clear();
    this.#starts.close();
    this.#executionResources.close();
    await this.#wakeups.close();
    // The driver takes a connection that was lost in the middle of a query for a busy one (3.4.9), and would wait for it.
    await this.#sql.end({ timeout: 1 });
    this.#wakeups.callAll();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #host(): ExecutionHost {
    return { sql: this.#sql, wakeups: this.#wakeups, outcomes: this.#outcomes, streams: this.#streams };
  }

  #bind<C extends Contract>(flow: FlowDefinition<C>): BoundFlow<C> {
    return new BoundFlow(flow, {
      ...this.#host,
      create: (execution, tx) => this.#create(execution, tx),
      createAll: (executions) => this.#createAll(executions),
      keepResources: (id, resources, created) => this.#executionResources.keep(id, resources, created),
      flowData: this.#flowData(flow.name),
      updateResources: (resources) => {
        this.#flowResources.set(flow.name, { ...this.#flowResources.get(flow.name), ...resources });
      },
    });
  }

  #register(flow: FlowDefinition): void {
    const known = this.#flows.get(flow.name);
    if (known && known.fingerprint !== flow.fingerprint)
      throw new DefinitionError(flow.name, "two different flows have this name", "rename one of them");
    // Reading the graph finishes the definition: an open block shows here, not in the middle of a night.
    void flow.graph;
    this.#flows.set(flow.name, flow);
    for (const child of flow.subFlows.values()) this.#register(child);
  }

  #registerFunction(definition: FunctionDefinition, index: number): void {
    if (typeof definition !== "function" || typeof definition.flow !== "object")
      throw new UsageError(`functions[${index}] is not a deferred function`, "wrap it: defer(fn)");
    const { flow } = definition;
    // Two functions have the same structure, so the fingerprint does not tell them apart.
    if (this.#flows.has(flow.name) && this.#flows.get(flow.name) !== flow)
      throw new DefinitionError(
        flow.name,
        "a flow and a function, or two functions, have this name",
        "rename one of them, or give it a name: defer(fn, { name })",
      );
    this.#register(flow);
    this.#functions.set(flow.name, definition);
  }

  /** For `flowledger/defer`: the functions given here, and their executions. */
  get [internals](): OrchestratorInternals {
    return {
      functions: this.#functions,
      isClosed: this.#isClosed,
      create: (execution) => this.#create(execution, undefined),
      query: async (work) => {
        await this.#ready();
        return this.#translated(() => work(this.#sql));
      },
      tell: (id) => this.#wakeups.call(id),
    };
  }

  async #create(execution: NewExecution, tx: CallerTransaction | undefined): Promise<ExecutionId> {
    await this.#ready();
    const created = await this.#translated(async () => {
      if (!tx) return this.#starts.submit(execution);
      const [one] = await createMany(borrow(tx), [execution]);
      if (execution.resourceKeys.length > 0)
        this.#executionResources.within(execution.id, await currentTransaction(borrow(tx)));
      return one;
    });
    if (!created)
      throw new UsageError("the database gave no execution back", "check the version of flowledger in this database");
    if (created.isConflict)
      throw new UsageError(
        `idempotency key "${execution.idempotencyKey ?? ""}" of flow "${execution.flow}" was used with another input (execution ${created.id})`,
        "use a new key for a new input",
        { executionId: created.id },
      );
    // A child keeps its id, so that a retry of its parent finds it again.
    if (!created.isNew && execution.idempotencyKey === null && execution.parent === null)
      throw new UsageError(
        `execution id ${created.id} is taken`,
        "leave id out, or use idempotencyKey to find an execution again",
      );
    return created.id;
  }

  async #createAll(executions: readonly NewExecution[]): Promise<ExecutionId[]> {
    await this.#ready();
    const ids: ExecutionId[] = [];
    for (let start = 0; start < executions.length; start += 1000)
      for (const { id } of await this.#translated(() => createMany(this.#sql, executions.slice(start, start + 1000))))
        ids.push(id);
    return ids;
  }

  #flowData(flow: string): FlowDataAccess {
    const sql: Queries = this.#sql;
    return {
      get: (key) => this.#translated(() => readFlowData(sql, flow, key)),
      set: (key, value) => this.#translated(() => writeFlowData(sql, flow, key, value)),
      append: (key, value) => this.#translated(() => appendFlowData(sql, flow, key, value)),
      delete: (key) => this.#translated(() => deleteFlowData(sql, flow, key)),
    };
  }

  /** Once per orchestrator: is there a database, and does its schema fit this library? */
  async #ready(): Promise<void> {
    this.#checked ??= this.#translated(() => answered(requireMigrated(this.#sql)));
    try {
      await this.#checked;
    } catch (error) {
      this.#checked = undefined;
      throw error;
    }
  }

  async #translated<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw translate(error, this.#sql);
    }
  }
}

interface BoundHost extends ExecutionHost {
  create(execution: NewExecution, tx: CallerTransaction | undefined): Promise<ExecutionId>;
  createAll(executions: readonly NewExecution[]): Promise<ExecutionId[]>;
  keepResources(id: ExecutionId, resources: Resources, created: Promise<ExecutionId>): void;
  readonly flowData: FlowDataAccess;
  updateResources(resources: Resources): void;
}

type InputArgs<C extends Contract, Options> =
  undefined extends StartInput<C>
    ? [input?: StartInput<C>, options?: Options]
    : [input: StartInput<C>, options?: Options];

/** A flow bound to a database. */
export class BoundFlow<C extends Contract = Contract> {
  readonly definition: FlowDefinition<C>;
  readonly #host: BoundHost;

  constructor(definition: FlowDefinition<C>, host: BoundHost) {
    this.definition = definition;
    this.#host = host;
  }

  /**
   * Runs a hidden execution and resolves with its close snapshot.
   *
   * @throws {ExecutionFailedError} when a chunk failed for the last time
   */
  async start(...[input, options = {}]: InputArgs<C, CreateOptions>): Promise<CloseSnapshot<C>> {
    const id = await this.#startHidden(input, options, "start");
    const { outcomes } = this.#host;
    const ending = await outcomes.closed(id, {
      flow: this.definition.name,
      isNew: options.idempotencyKey === undefined,
    });
    return snapshotOf(id, ending ?? endingOf(await outcomes.header(id))) as CloseSnapshot<C>;
  }

  /**
   * Starts an execution in the background and gives its handler at once: await it, stream it, cancel it. What is wrong
   * with the start rejects the handler.
   */
  run(...[input, options = {}]: InputArgs<C, RunOptions>): Handler<C> {
    const given: CreateOptions = { autoCloseTimeout: 0, ...options, id: ExecutionId.parse(uuidv7()) };
    const begin = async () => {
      const execution = newExecution(this.definition, given, parseInput(this.definition, input), false);
      await this.#create(execution, given);
    };
    const id = ExecutionId.parse(given.id);
    return new Handler(this.#host, this.#handle(id, given), begin());
  }

  /** Starts an execution and resolves with its handle as soon as that is durable. */
  async startExecution(...[input, options = {}]: InputArgs<C, CreateOptions>): Promise<Execution<C>> {
    const execution = newExecution(this.definition, options, parseInput(this.definition, input), false);
    return this.#handle(await this.#create(execution, options), options);
  }

  /** Creates an execution without starting it. */
  async createExecution(options: CreateOptions = {}): Promise<Execution<C>> {
    const execution = newExecution(this.definition, options, undefined, false);
    return this.#handle(await this.#create(execution, options), options);
  }

  /** Starts many executions, a thousand in a round trip; ids in the order of the inputs. */
  async startMany(
    inputs: readonly StartInput<C>[],
    options: Omit<CreateOptions, "id" | "idempotencyKey" | "tx"> = {},
  ): Promise<ExecutionId[]> {
    const executions = inputs.map((input) =>
      newExecution(this.definition, options, parseInput(this.definition, input), false),
    );
    const { runtimeResources } = options;
    const created = this.#host.createAll(executions);
    if (runtimeResources)
      for (const { id } of executions)
        this.#host.keepResources(
          id,
          runtimeResources,
          created.then(() => id),
        );
    return created;
  }

  /** The runtime stream of a hidden execution, which ends with its reader. */
  getRuntimeStream(
    ...[input, options = {}]: InputArgs<C, CreateOptions & StreamOptions>
  ): AsyncGenerator<StreamItem<C>, void, undefined> {
    const { timeout, from, signal, ...create } = options;
    const read: StreamOptions = { ...(timeout !== undefined && { timeout }), ...(from !== undefined && { from }) };
    return stoppable((stop) => this.#readHidden(input, create, { ...read, signal: stop }, stop), signal);
  }

  async *#readHidden(
    input: unknown,
    create: CreateOptions,
    read: StreamOptions,
    stop: AbortSignal,
  ): AsyncGenerator<StreamItem<C>, void, undefined> {
    const id = await this.#startHidden(input, create, "getRuntimeStream");
    const { sql, outcomes, streams } = this.#host;
    let isRead = false;
    try {
      for await (const { item } of followStream<C>(streams, sql, id, read)) yield item as StreamItem<C>;
      isRead = !stop.aborted;
      const header = await outcomes.header(id);
      if (header.lifecycle === "closed") snapshotOf(id, endingOf(header));
    } finally {
      // Nobody can read what it would still put. Where the database is away, the reader has heard of that.
      if (!isRead)
        await this.#handle(id, create)
          .cancel("hidden_runtime_stream_complete")
          .catch(() => {});
    }
  }

  /** A value shared by all executions of the flow. Warns once per call site unless `noWarning`. */
  async getFlowData(key: string, options: { default?: Json; noWarning?: boolean } = {}): Promise<Json> {
    if (!options.noWarning) warnFlowData("getFlowData");
    return (await this.#host.flowData.get(key)) ?? options.default ?? null;
  }
  async setFlowData(key: string, value: unknown, options: { noWarning?: boolean } = {}): Promise<void> {
    if (!options.noWarning) warnFlowData("setFlowData");
    await this.#host.flowData.set(key, toJson(value, `flow data "${key}"`));
  }
  async appendFlowData(key: string, value: unknown, options: { noWarning?: boolean } = {}): Promise<void> {
    if (!options.noWarning) warnFlowData("appendFlowData");
    await this.#host.flowData.append(key, toJson(value, `flow data "${key}"`));
  }
  async delFlowData(key: string, options: { noWarning?: boolean } = {}): Promise<void> {
    if (!options.noWarning) warnFlowData("delFlowData");
    await this.#host.flowData.delete(key);
  }

  /** Default live objects of this process for every execution of the flow. */
  updateRuntimeResources(resources: Resources): void {
    this.#host.updateResources(resources);
  }

  #startHidden(input: unknown, options: CreateOptions, method: string): Promise<ExecutionId> {
    if (options.autoClose === false || options.autoCloseTimeout === null)
      throw new UsageError(
        `${method}() with ${options.autoClose === false ? "autoClose: false" : "autoCloseTimeout: null"} has nobody to close the execution`,
        "use startExecution(), which gives you the handle",
      );
    if (options.tx)
      throw new UsageError(
        `${method}() with tx would wait for a close that cannot come before the transaction commits`,
        "use startExecution(), and wait for the close after your commit",
      );
    const hidden = { autoCloseTimeout: 0, ...options };
    return this.#create(newExecution(this.definition, hidden, parseInput(this.definition, input), true), options);
  }

  async #create(execution: NewExecution, options: CreateOptions): Promise<ExecutionId> {
    const created = this.#host.create(execution, options.tx);
    if (options.runtimeResources) this.#host.keepResources(execution.id, options.runtimeResources, created);
    return created;
  }

  #handle(id: ExecutionId, options: CreateOptions): Execution<C> {
    return new Execution(
      this.#host,
      id,
      { name: this.definition.name, definition: this.definition },
      options.autoClose ?? true,
    );
  }
}

/** @throws {UsageError} for an option that cannot be meant */
function newExecution(
  definition: FlowDefinition,
  options: CreateOptions,
  input: Json | undefined,
  hidden: boolean,
): NewExecution {
  const { name } = definition;
  const priority = options.priority ?? 0;
  if (!Number.isInteger(priority) || Math.abs(priority) > 32_767)
    throw new UsageError(`priority ${String(priority)} is not possible`, "use a whole number from -32767 to 32767");
  if (options.startAt && Number.isNaN(options.startAt.getTime()))
    throw new UsageError("startAt is not a date", "pass a valid Date");
  if (options.idempotencyKey === "")
    throw new UsageError("idempotencyKey is empty", "leave it out, or use a text of your own");
  return {
    id: options.id === undefined ? ExecutionId.parse(uuidv7()) : parseId(options.id),
    flow: name,
    input,
    settings: settingsOf(options, definition, hidden),
    metadata: parseMetadata(options.metadata),
    idempotencyKey: options.idempotencyKey ?? null,
    priority,
    limitKey: input === undefined ? null : limitKeyOf(definition, input),
    delayMs: options.delay === undefined ? null : parseDuration(options.delay, "delay"),
    startAt: options.startAt ?? null,
    discardAfter: options.discardAfter === undefined ? null : parseMoment(options.discardAfter, "discardAfter"),
    resourceKeys: Object.keys(options.runtimeResources ?? {}).toSorted(),
    parent: null,
    state: {},
  };
}

/** Of a function with a cron: it is called without arguments. */
function scheduleOf({ flow, __metadata: { cron } }: FunctionDefinition): ScheduleOptions[] {
  return cron === undefined ? [] : [{ flow, name: flow.name, cron, input: [] }];
}

/** A child closes as soon as it is idle, and its parent waits for that. */
function childExecution(child: NewChild, definition: FlowDefinition | undefined): NewExecution {
  const { timeoutMs, resources, isHidden, ...rest } = child;
  const longest = timeoutMs ?? definition?.maxDurationMs ?? null;
  return {
    ...rest,
    settings: { autoCloseMs: 0, ...(longest !== null && { timeoutMs: longest }), ...(isHidden && { hidden: true }) },
    limitKey: definition ? limitKeyOf(definition, child.input) : null,
    resourceKeys: Object.keys(resources).toSorted(),
  };
}

function settingsOf(options: CreateOptions, flow: FlowDefinition, hidden: boolean): Partial<Settings> {
  const settings: Partial<Settings> = {};
  if (hidden) settings.hidden = true;
  if (options.autoClose === false) settings.autoClose = false;
  if (options.autoCloseTimeout !== undefined)
    settings.autoCloseMs =
      options.autoCloseTimeout === null ? null : parseDuration(options.autoCloseTimeout, "autoCloseTimeout");
  if (options.concurrency !== undefined) settings.concurrency = parseConcurrency(options.concurrency);
  if (options.timeout != null) settings.timeoutMs = parseDuration(options.timeout, "timeout");
  else if (options.timeout === undefined && flow.maxDurationMs !== null) settings.timeoutMs = flow.maxDurationMs;
  const mode =
    options.interventionMode === undefined && flow.interventionPoints.length > 0 ? "planned" : options.interventionMode;
  if (mode !== undefined && mode !== null) {
    if (mode !== "planned" && mode !== "auto")
      throw new UsageError(`interventionMode "${String(mode)}" does not exist`, 'use "planned", "auto" or null');
    if (mode === "auto" && flow.interventionPoints.length > 0)
      throw new UsageError(
        `interventionMode "auto" does not fit flow "${flow.name}", which has intervention points`,
        'use "planned"',
      );
    settings.interventionMode = mode;
  }
  return settings;
}

function parseConcurrency(value: number | null): number | null {
  if (value === null) return null;
  if (!Number.isSafeInteger(value) || value < 1)
    throw new UsageError(
      `concurrency ${String(value)} is not possible`,
      "use a whole number from 1, or null for no limit",
    );
  return value;
}

function parseMetadata(metadata: Readonly<Record<string, unknown>> | undefined): JsonObject | null {
  if (metadata === undefined) return null;
  const parsed = toJson(metadata, "metadata");
  if (parsed === null || typeof parsed !== "object" || Array.isArray(parsed))
    throw new UsageError("metadata is not an object", "pass { key: value }");
  return parsed;
}

function parseInterruptCursor(cursor: string) {
  const [executionId = "", ...id] = cursor.split(" ");
  return { executionId: parseId(executionId), id: id.join(" ") };
}

function parseId(id: string): ExecutionId {
  const parsed = ExecutionId.safeParse(id);
  if (parsed.success) return parsed.data;
  throw new UsageError(
    `"${String(id).slice(0, 80)}" is not an execution id`,
    "pass the uuid that start or list gave you",
    { issues: z.flattenError(parsed.error).formErrors },
  );
}

function summaryOf(header: Header): ExecutionSummary {
  const { id, flow, status, lifecycle, metadata, createdAt, startedAt, closedAt, closeReason } = header;
  return {
    id,
    flow,
    status,
    lifecycle,
    metadata: metadata ?? {},
    createdAt: new Date(createdAt),
    startedAt: startedAt === null ? null : new Date(startedAt),
    closedAt: closedAt === null ? null : new Date(closedAt),
    closeReason,
  };
}

const stderrLogger: Logger = {
  debug: () => {},
  info: () => {},
  warn: (message, fields) => console.warn(`flowledger: ${message}`, fields ?? ""),
  error: (message, fields) => console.error(`flowledger: ${message}`, fields ?? ""),
};
