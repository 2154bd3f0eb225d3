/**
 * `createOrchestrator()`: the only file that wires all rooms. It is longer than other files, because it reads better whole: what users
 * can call on an orchestrator, each with what it promises. What is not a call is in `orchestrator/`.
 */
import { systemTimers, type Timers } from "./base/timers.ts";
import { requireActor, requireKnown, requireList, show } from "./base/option.ts";
import { retryTransient, retryUnlessLocked } from "./store/batcher.ts";
import type { ConnectionOption } from "./store/client.ts";
import type { Anchor } from "./store/anchors.ts";
import type { Pruned } from "./store/prune.ts";
import type { FailureGroup } from "./store/lists.ts";
import type { Difference, RebuildOptions } from "./store/rebuild.ts";
import type { NewExecution } from "./store/starts.ts";
import { openStore } from "./store/store.ts";
import type { Store } from "./store/store.ts";
import type { VerifyOptions, Violation } from "./store/verify.ts";
import { childExecution, ownChild } from "./engine/child.ts";
import type { FlowDataAccess, Hooks } from "./engine/host.ts";
import { idsBy } from "./engine/ids.ts";
import type { NewId } from "./engine/ids.ts";
import { KeptResources } from "./engine/resources.ts";
import type { Resources, WorkerResources } from "./engine/resources.ts";
import { ExecutionNotFoundError, UsageError } from "./base/errors.ts";
import { BoundFlow } from "./execution/bound-flow.ts";
import { newExecution } from "./execution/start-options.ts";
import type { BoundHost } from "./execution/bound-flow.ts";
import { Bulk, bulkOptions, type BulkOptions, type BulkPreview } from "./execution/bulk.ts";
import { Execution } from "./execution/execution.ts";
import type { ExecutionHost } from "./execution/host.ts";
import { KnownSchemas } from "./execution/schemas.ts";
import { sendCommand } from "./execution/sending.ts";
import { requireAnchor, requireAudit } from "./execution/audit-options.ts";
import { requireExecutionId } from "./execution/ids.ts";
import { inspectLoad, load } from "./execution/saved.ts";
import { resourcesIn, type LoadOptions } from "./execution/load-options.ts";
import { cursorBehind, parseCount, parseFailures, parseList, summaryOf } from "./execution/list.ts";
import type { CountOptions, ExecutionSummary, FailureOptions, ListOptions } from "./execution/list.ts";
import type { LoadReport, LoadTarget } from "./execution/saved.ts";
import { inboxOptions, listedPage, parseInbox, parsePublicUrl, requireToken } from "./execution/inbox.ts";
import type { AnswerByTokenOptions, InboxOptions, ListInterruptsOptions } from "./execution/inbox.ts";
import { InterruptRecord } from "./execution/interrupt.ts";
import { parseAnswer } from "./ledger/answers.ts";
import { openOutcomes } from "./execution/outcomes.ts";
import type { Outcomes } from "./execution/outcomes.ts";
import { pauseFlowOptions, runScheduleOptions, unpauseFlowOptions } from "./execution/operate.ts";
import type { OperatorOptions, PauseFlowOptions, RunScheduleOptions } from "./execution/operate.ts";
import { parsePrune } from "./execution/retention.ts";
import type { PruneOptions } from "./execution/retention.ts";
import { openStreams } from "./execution/stream.ts";
import type { Streams } from "./execution/stream.ts";
import { parseInput, requireFlow } from "./flow/contract.ts";
import { bulkFlowName } from "./flow/names.ts";
import type { Contract } from "./flow/contract.ts";
import type { FlowDefinition } from "./flow/definition.ts";
import type { ExecutionId } from "./ledger/event.ts";
import { toJson, type Storable } from "./base/json.ts";
import type { Health } from "./telemetry/health.ts";
import { openLogs, type Logs } from "./telemetry/log.ts";
import { Tracing } from "./telemetry/trace.ts";
import { parseTraceparent } from "./telemetry/traceparent.ts";
import { Telemetry } from "./telemetry/telemetry.ts";
import { resolveSchedules } from "./worker/schedules.ts";
import type { Schedule, ScheduleOptions } from "./worker/schedules.ts";
import type { LocalWorker, Worker, WorkerSettings } from "./worker/host.ts";
import { carriedOver, closing, isReloading, opened, started, type Member, type Serving } from "./worker/reload.ts";
import { Known } from "./orchestrator/known.ts";
import { checkOptions, parseWorkerOptions, requireConnection } from "./orchestrator/options.ts";
import type { FunctionDefinition, OrchestratorOptions, WorkerOptions } from "./orchestrator/options.ts";
import { Starts } from "./orchestrator/starts.ts";

/** What there is once it is known which database is meant. */
interface Connected {
  readonly store: Store;
  readonly outcomes: Outcomes;
  readonly streams: Streams;
}

/** Where `flowledger/defer` and `flowledger/test` find what they need of an orchestrator; nobody else's business. */
export const internals = Symbol("flowledger.internals");

export interface OrchestratorInternals {
  readonly host: ExecutionHost;
  readonly newId: NewId;
  readonly flows: ReadonlyMap<string, FlowDefinition>;
  /** Those that run in this process. */
  readonly workers: ReadonlySet<LocalWorker>;
  readonly functions: ReadonlyMap<string, FunctionDefinition>;
  readonly timers: Timers;
  readonly isClosed: boolean;
  /** Of an orchestrator without a logger: lines of JSON from now on. */
  readonly logJson: () => void;
  readonly create: (execution: NewExecution) => Promise<ExecutionId>;
  /** The database, once it is known to fit. */
  readonly store: () => Promise<Store>;
}

/**
 * An orchestrator for one database. It connects at its first use, not here.
 *
 * @throws {UsageError} an option that is unknown or invalid
 * @throws {DefinitionError} two flows have one name, or one is not finished
 */
export function createOrchestrator<
  Flows extends readonly FlowDefinition[],
  Schedules extends readonly ScheduleOptions[] | readonly [],
>(options?: OrchestratorOptions<Flows, Schedules>): Orchestrator;
export function createOrchestrator(options: OrchestratorOptions = {}): Orchestrator {
  return new Orchestrator(options);
}

/** The library against one database: starts executions and reads them, serves flows, looks after what is stored. */
export class Orchestrator implements AsyncDisposable {
  readonly #timers: Timers;
  readonly #newId: NewId;
  readonly #hooks: Hooks;
  readonly #connect: (connection: ConnectionOption) => Connected;
  readonly #connection: ConnectionOption | undefined;
  #opened: Connected | undefined;
  readonly #known: Known;
  readonly #flows: ReadonlyMap<string, FlowDefinition>;
  readonly #resources: WorkerResources;
  readonly #flowResources = new Map<string, Record<string, unknown>>();
  readonly #executionResources = new KeptResources((kept) => this.#store.reads.findOver(kept));
  readonly #logs: Logs;
  readonly #tracing: Tracing;
  readonly #starts: Starts;
  readonly #workers = new Set<LocalWorker>();
  readonly #schedules: readonly Schedule[];
  readonly #hasShortcuts: boolean;
  readonly #publicUrl: string | null;
  readonly #telemetry = new Telemetry({
    store: () => this.#readyStore(),
    isListening: () => this.#opened?.store.wakeups.isListening ?? false,
    workers: () => this.#workers,
  });
  readonly #schemas = new KnownSchemas();
  #checked: Promise<void> | undefined;
  #isClosed = false;
  readonly #isReloaded: boolean;
  /** Among those that a development server makes; once it has connected. */
  #member: Member | undefined;

  /**
   * Only a test gives more than options.
   *
   * @param timers by which what users see is counted
   * @param hasShortcuts whether this process spares itself jobs and notifications where it has both ends, and looks for what it
   *   was not told; without, jobs and notifications alone bring everything to its end
   */
  constructor(options: OrchestratorOptions, timers: Timers = systemTimers, hasShortcuts = true, hooks: Hooks = {}) {
    checkOptions(options);
    this.#known = new Known(options, this.#telemetry.meter);
    this.#flows = this.#known.flows;
    this.#timers = timers;
    this.#newId = idsBy(timers);
    this.#hooks = hooks;
    this.#schedules = resolveSchedules(this.#known.schedules, (flow, input, more) =>
      newExecution(flow, { ...more, autoCloseTimeout: 0 }, parseInput(flow, input), false, this.#newId),
    );
    this.#hasShortcuts = hasShortcuts;
    this.#publicUrl = options.publicUrl === undefined ? null : parsePublicUrl(options.publicUrl);
    this.#logs = openLogs(options.logger);
    this.#isReloaded = options.reload ?? isReloading();
    this.#connect = (connection) => {
      const store = openStore(connection, {
        ...(options.schema !== undefined && { schema: options.schema }),
        hasShortcuts,
        hasTestClock: timers.isMoved === true,
      });
      if (this.#isReloaded) this.#join(store);
      return { store, outcomes: openOutcomes(store, timers), streams: openStreams(store, timers) };
    };
    // Builds, test collectors and tools load the module too, where there is no database.
    this.#connection = options.connection;
    const connection = options.connection ?? process.env["DATABASE_URL"];
    if (connection !== undefined) this.#opened = this.#connect(connection);
    this.#resources = options.resources ?? {};
    this.#tracing = new Tracing(options.telemetry, this.#logs.library);
    this.#starts = new Starts({
      store: () => this.#store,
      ready: () => this.#ready(),
      worker: () => this.#worker,
      flows: this.#flows,
      resources: this.#executionResources,
      tracing: this.#tracing,
    });
  }

  /** Brings the database to this version. Idempotent, and safe when several processes call it at once. */
  async migrate(): Promise<void> {
    await this.#store.migrate();
    this.#checked = undefined;
  }

  /** Starts a long-running worker in this process, serving every flow given to the orchestrator. */
  async startWorker(options: WorkerOptions = {}): Promise<Worker> {
    const parsed = parseWorkerOptions(options);
    if (this.#flows.size === 0)
      throw new UsageError(
        "a worker without flows has nothing to do",
        "pass { flows } or { functions } to createOrchestrator()",
      );
    const { worker } = await this.#serve({
      ...parsed,
      publicUrl: this.#publicUrl,
      hasShortcuts: this.#hasShortcuts,
    });
    return worker;
  }

  /** @param earlier whose flows, resources and schedules it has too, where there are no others here of the same name */
  async #serve(settings: WorkerSettings, earlier: Serving | null = null): Promise<{ readonly worker: LocalWorker }> {
    await this.#ready();
    await this.#store.wakeups.ready();
    this.#telemetry.exportTo(await this.#tracing.api());
    // Processes that only start and read executions do not load the worker.
    const { startWorker } = await import("./worker/worker.ts");
    const { bulkFlow } = await import("./worker/bulk.ts");
    const bulk = bulkFlow(this.#store.bulks);
    const carried = earlier && carriedOver(earlier, this.#flows);
    const flows = new Map([...(carried?.flows ?? []), ...this.#flows]);
    const resources = { ...carried?.resources, ...this.#resources };
    const schedules = [...(carried?.schedules ?? []), ...this.#schedules];
    const worker = await startWorker(
      {
        store: this.#store,
        log: this.#logs.library,
        userLog: this.#logs.user,
        meter: this.#telemetry.meter,
        tracing: this.#tracing,
        timers: this.#timers,
        newId: this.#newId,
        hooks: this.#hooks,
        resources,
        flows: new Map([...flows, [bulk.name, bulk]]),
        schedules,
        flowResources: (flow) => this.#flowResources.get(flow) ?? {},
        executionResources: (id) => this.#executionResources.get(id),
        flowData: (flow) => this.#flowData(flow, retryTransient),
        runChild: async (child, { onCreated, signal }) => {
          const { id, flow } = child;
          const execution = this.#tracing.started(childExecution(child, this.#flows.get(flow)));
          // The child has its id already, so a lost connection costs its parent time and no attempt.
          const created = retryTransient(() => this.#starts.submit(execution), signal).then((found) =>
            ownChild(child, found.id),
          );
          this.#executionResources.keep(id, child.resources, created);
          await created;
          onCreated();
          const ending = await this.#outcomes.closed(id, { flow, signal });
          signal.throwIfAborted();
          this.#executionResources.drop(id);
          return ending ?? this.#outcomes.endingOf(await this.#outcomes.header(id));
        },
        announce: (id, closed) => {
          if (closed) {
            this.#executionResources.drop(id);
            if (this.#hasShortcuts) this.#outcomes.deliver(id, closed);
          }
          this.#store.wakeups.notifyReaders(id);
        },
      },
      settings,
    );
    this.#workers.add(worker);
    const by = this.#member;
    if (by) started({ origin: earlier?.origin ?? by, by, worker, flows, host: { resources, schedules }, settings });
    return { worker };
  }

  #join(store: Store): void {
    this.#member = opened(this.#member, `${store.place}/${store.names.schema}`, {
      flows: this.#flows,
      workers: this.#workers,
      log: this.#logs.library,
      isClosed: () => this.#isClosed,
      store: () => this.#opened?.store,
      letGo: () => (this.#opened = undefined),
      serve: (serving) => this.#serve({ ...serving.settings, publicUrl: this.#publicUrl }, serving),
    });
  }

  /** A flow bound to this database: the definition itself, or the name of one given to the orchestrator. */
  flow<C extends Contract>(flow: FlowDefinition<C>): BoundFlow<C>;
  flow(flow: string): BoundFlow;
  flow(flow: FlowDefinition | string): BoundFlow {
    if (typeof flow !== "string") {
      requireFlow(flow, "the flow of flow()");
      return this.#bind(flow);
    }
    const known = this.#flows.get(flow);
    if (known) return this.#bind(known);
    const names = [...this.#flows.keys()].toSorted().join(", ") || "none";
    throw new UsageError(
      `flow ${show(flow)} is not known here (there are: ${names})`,
      "correct the name, or pass the flow to createOrchestrator({ flows })",
    );
  }

  /** @throws {ExecutionNotFoundError} */
  async getExecution(id: string): Promise<Execution> {
    const executionId = requireExecutionId(id);
    await this.#ready();
    const { flow } = await this.#outcomes.header(executionId);
    return new Execution(this.#host, executionId, { name: flow, definition: this.#flows.get(flow) ?? null }, null);
  }

  /**
   * A page of executions, newest first unless `order` says otherwise.
   *
   * @throws {UsageError} a filter that is unknown, or is invalid
   * @throws {SearchTimeoutError} it took more than two seconds: filters without a flow, a status or a range of times may read all
   */
  async listExecutions(
    options: ListOptions = {},
  ): Promise<{ executions: ExecutionSummary[]; nextCursor: string | null }> {
    const query = parseList(options);
    await this.#ready();
    const headers = await this.#store.reads.listHeaders(query);
    return { executions: headers.map(summaryOf), nextCursor: cursorBehind(query, headers) };
  }

  /**
   * How many executions there are, counted up to `upTo`; `isMore` when there are more.
   *
   * @throws {UsageError | SearchTimeoutError} as `listExecutions()`
   */
  async countExecutions(options: CountOptions = {}): Promise<{ count: number; isMore: boolean }> {
    const { filter, upTo } = parseCount(options);
    await this.#ready();
    const count = await this.#store.reads.countExecutions(filter, upTo + 1);
    return { count: Math.min(count, upTo), isMore: count > upTo };
  }

  /**
   * What failed, grouped by flow, chunk and error, the largest group first: digits and ids in an error make no other one. The same
   * as the view `flowledger.failures`.
   *
   * @throws {UsageError | SearchTimeoutError} as `listExecutions()`
   */
  async failures(options: FailureOptions = {}): Promise<FailureGroup[]> {
    const filter = parseFailures(options);
    await this.#ready();
    return this.#store.reads.listFailures(filter);
  }

  /**
   * A new execution that goes on where a saved one was; its meta says where it came from.
   *
   * @throws {UsageError} not a save of this version, changed since, or not signed with the key
   * @throws {DefinitionMismatchError | ResourceMissingError}
   */
  async load(saved: unknown, options: LoadOptions = {}): Promise<Execution> {
    const runtimeResources = resourcesIn(options, "load()");
    await this.#ready();
    const { id, flow } = await load(this.#store, saved, this.#loadTarget(runtimeResources), this.#newId, options);
    this.#executionResources.keep(id, runtimeResources, Promise.resolve(id));
    return new Execution(this.#host, id, { name: flow, definition: this.#flows.get(flow) ?? null }, true);
  }

  /** What `load()` would say, without touching anything. */
  inspectLoad(saved: unknown, options: LoadOptions = {}): LoadReport {
    return inspectLoad(saved, this.#loadTarget(resourcesIn(options, "inspectLoad()")), options);
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
    const filter = parseInbox(options);
    await this.#ready();
    return listedPage(await this.#store.reads.listInterrupts(filter), filter.limit);
  }

  /**
   * Starts no chunk of any execution of a flow any more: what runs reaches its end, events and answers are kept, schedules stand still,
   * and timers that come due fire when it goes on. A cancel and the timeouts of executions count all the same. It is kept with who and
   * why, and holds for every worker, also after a restart: workers of this process know it when this resolves, those of others hear of
   * it in a moment, and what they are about to start then may still start. False where it is paused that way already.
   *
   * @param flow its name
   * @throws {UsageError} the flow is not known here, or who or why is missing
   */
  async pauseFlow(flow: string, options: PauseFlowOptions): Promise<boolean> {
    const given = pauseFlowOptions(flow, options);
    await this.#ready();
    const isNews = await this.#store.operators.pauseFlow(flow, given);
    await this.#tellOfPause();
    return isNews;
  }

  /** Lets a paused flow go on, with all that waited. False where it is not paused. @throws {UsageError} as `pauseFlow()` */
  async unpauseFlow(flow: string, options: OperatorOptions): Promise<boolean> {
    const given = unpauseFlowOptions(flow, options);
    await this.#ready();
    const isNews = await this.#store.operators.unpauseFlow(flow, given);
    await this.#tellOfPause();
    return isNews;
  }

  /**
   * Starts an execution of a schedule now, beside its times, as a worker that has the schedule would; by whichever process asks. Its
   * ledger has who and why, its metadata `schedule` and `scheduledAt`. `overlap` of the schedule counts.
   *
   * @throws {UsageError} there is no such schedule, no worker has it, or its executions do not overlap and one is under way
   * @throws {FlowPausedError} its flow takes no starts
   */
  async runSchedule(name: string, options: RunScheduleOptions): Promise<Execution> {
    const given = runScheduleOptions(name, options);
    await this.#ready();
    const { schedules } = this.#store;
    // With an id the start may be sent again.
    const id = this.#newId();
    return this.getExecution(await retryUnlessLocked(() => schedules.run(name, { ...given, id })));
  }

  /** Workers of other processes hear of it by a wake-up. */
  async #tellOfPause(): Promise<void> {
    await Promise.all([...this.#workers].map((worker) => worker.lookAtPauses()));
  }

  /**
   * Does the same to many executions: an execution of the library's own flow `flowledger.bulk` gives each its command, by whichever
   * worker takes it, over crashes, at its rate, and until somebody cancels it. What it is about is fixed now; each command carries
   * who asked, why, and the id of the bulk. A dry run says what it would do.
   *
   * @throws {UsageError} an option that is unknown or is invalid, no filter, or more match than `limit`
   */
  bulk(options: BulkOptions & { dryRun: true }): Promise<BulkPreview>;
  bulk(options: BulkOptions & { dryRun?: false }): Promise<Bulk>;
  bulk(options: BulkOptions): Promise<Bulk | BulkPreview>;
  async bulk(options: BulkOptions): Promise<Bulk | BulkPreview> {
    const given = bulkOptions(options);
    await this.#ready();
    const { bulks, reads } = this.#store;
    if (options.dryRun) {
      const { samples, ...counted } = await bulks.preview(given);
      const headers = await reads.headers(samples);
      return { ...counted, samples: samples.flatMap((id) => headers.get(id) ?? []).map(summaryOf) };
    }
    // With an id the start may be sent again.
    const id = this.#newId();
    const { id: started } = await retryUnlessLocked(() => bulks.start({ ...given, id }));
    return this.#bulk(started);
  }

  /** A bulk by its id, from any process. @throws {ExecutionNotFoundError} there is none with that id */
  async getBulk(id: string): Promise<Bulk> {
    const bulk = requireExecutionId(id);
    await this.#ready();
    if ((await this.#store.bulks.report(bulk)) === null) throw new ExecutionNotFoundError(bulk);
    return this.#bulk(bulk);
  }

  #bulk(id: ExecutionId): Bulk {
    const flow = { name: bulkFlowName, definition: null };
    return new Bulk(this.#store.bulks, new Execution(this.#host, id, flow, true));
  }

  /**
   * What waits for an answer: overdue first, then by its due date, then what is never due, the oldest first. What somebody has put
   * off is not there. The same as `flowledger.inbox`.
   *
   * @throws {UsageError} a filter that is unknown, or is invalid
   * @throws {SearchTimeoutError} it took more than two seconds: flow, type and metadata alone may read all
   */
  async inbox(options: InboxOptions = {}): Promise<{ interrupts: InterruptRecord[]; nextCursor: string | null }> {
    const filter = inboxOptions(options);
    await this.#ready();
    return listedPage(await this.#store.reads.inbox(filter), filter.limit);
  }

  /**
   * Answers the pause that a link of `pauseFor({ link: true })` was given for, once; durable when it resolves. Call it for a POST
   * alone: programs that scan mail follow links.
   *
   * @param token what follows "/a/" in the link
   * @throws {TokenUnknownError} nobody gave it
   * @throws {TokenUsedError} it has answered already; says when
   * @throws {TokenClosedError} the pause was answered in another way, has expired, or was taken back
   * @throws {ClaimedError} somebody has claimed it for themselves alone
   * @throws {ContractError} the answer is not what `pauseFor({ response })` asked for
   */
  async answerByToken<V extends Storable<V>>(
    token: string,
    value?: V,
    options: AnswerByTokenOptions = {},
  ): Promise<InterruptRecord> {
    requireKnown(options, ["actor", "traceparent"], "answerByToken()");
    const { actor, traceparent } = options;
    if (actor !== undefined && actor !== "link") requireActor(actor, "actor of answerByToken()");
    const given = traceparent === undefined ? undefined : parseTraceparent(traceparent);
    if (value !== undefined) toJson(value, "answer by a link");
    const asked = await this.askedByToken(token);
    const answer = parseAnswer(asked.id, asked.response, value);
    const more = { actor: actor ?? null, traceparent: given === undefined ? this.#tracing.active() : given };
    const record = InterruptRecord.parse(await this.#store.commands.answerByToken(token, answer, more));
    this.#store.wakeups.notifyOwner(record.executionId);
    return record;
  }

  /**
   * What a link asks, for the page that it leads to; it answers nothing.
   *
   * @throws {TokenUnknownError | TokenUsedError | TokenClosedError}
   */
  async askedByToken(token: string): Promise<InterruptRecord> {
    const checked = requireToken(token, "a link");
    await this.#ready();
    return InterruptRecord.parse(await this.#store.commands.askedByToken(checked));
  }

  /** Checks every guarantee, in the ledger and in all that is derived from it; safe beside live workers. [] is all well. */
  async verify(options: VerifyOptions = {}): Promise<Violation[]> {
    requireAudit(options, "verify()", ["anchors"]);
    if (options.anchors !== undefined) requireList(options.anchors, "anchors of verify()", requireAnchor);
    if (options.id !== undefined) await this.#requireExecution(options.id);
    await this.#ready();
    return this.#store.audit.verify(options);
  }

  /**
   * Derives headers, close snapshots, interrupts, interventions and kept snapshots again from the ledger alone, beside
   * live workers; resolves with the rows that were different.
   */
  async rebuild(options: RebuildOptions = {}): Promise<Difference[]> {
    requireAudit(options, "rebuild()");
    if (options.id !== undefined) await this.#requireExecution(options.id);
    await this.#ready();
    return this.#store.audit.rebuild(options);
  }

  /**
   * Removes closed executions, with their ledgers and all that is derived from them: those that closed before a time, page by page,
   * or those with these ids and their sub-flows, all or none. It needs a connection
   * that may delete: the schema's owner. What went is said here, and kept in `flowledger.prunes`.
   */
  async prune(options: PruneOptions): Promise<Pruned> {
    const run = parsePrune(options);
    await this.#ready();
    return run(this.#store.audit);
  }

  /**
   * Keeps what all hash chains say now, and gives one hash over it: whoever keeps that elsewhere sees whether ledgers were rewritten
   * together with their chains, by `verify({ anchors })`. It needs the schema's owner.
   */
  async anchor(): Promise<Anchor> {
    await this.#ready();
    return this.#store.audit.anchor();
  }

  /** Its header may be gone: then the ledger tells. @throws {ExecutionNotFoundError} */
  async #requireExecution(id: string): Promise<void> {
    const executionId = requireExecutionId(id);
    await this.#ready();
    if (!(await this.#store.reads.hasLedger(executionId))) throw new ExecutionNotFoundError(id);
  }

  /**
   * What this process did, and what waits in the database, as OpenMetrics 1.0 text: `docs/observability.md` says each name. The
   * database is asked once a second at most, and for at most two seconds; where it does not answer, its metrics are missing and
   * `flowledger_database_answering` is 0.
   */
  metrics(): Promise<string> {
    return this.#telemetry.metrics();
  }

  /**
   * Whether this process is alive: its event loop turns, and each of its workers is registered and heard by the others. For a
   * liveness probe; `/healthz` of `flowledger worker --metrics-port`.
   */
  health(): Health {
    return this.#telemetry.health();
  }

  /**
   * Whether this process takes work: the database fits this release, and a worker here claims executions. For a readiness probe;
   * `/readyz` of `flowledger worker --metrics-port`. It never rejects, and takes at most two seconds.
   */
  ready(): Promise<Health> {
    return this.#telemetry.ready();
  }

  /** Stops the workers, ends the connections. Whoever still waits or reads here gets a `ConnectionError`. */
  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.#member) await closing(this.#member);
    await Promise.all([...this.#workers].map((worker) => worker.stop()));
    this.#workers.clear();
    this.#starts.close();
    this.#executionResources.close();
    this.#telemetry.close();
    await this.#opened?.store.close();
    this.#logs.flush();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #connected(): Connected {
    if (!this.#opened && this.#isClosed) throw new UsageError("this orchestrator was closed", "go on with another one");
    return (this.#opened ??= this.#connect(this.#connection ?? requireConnection()));
  }

  get #store(): Store {
    return this.#connected.store;
  }

  get #outcomes(): Outcomes {
    return this.#connected.outcomes;
  }

  /** The one of this process that takes what it can without a job. */
  get #worker(): LocalWorker | undefined {
    if (!this.#hasShortcuts) return undefined;
    const [worker] = this.#workers;
    return worker;
  }

  get #host(): ExecutionHost {
    const connected = () => this.#connected;
    return {
      get store() {
        return connected().store;
      },
      get outcomes() {
        return connected().outcomes;
      },
      get streams() {
        return connected().streams;
      },
      timers: this.#timers,
      newId: this.#newId,
      schemas: this.#schemas,
      send: (id, flow, send) => sendCommand(connected().store, this.#worker, id, flow, send),
      activeTrace: () => this.#tracing.active(),
    };
  }

  #bind<C extends Contract>(flow: FlowDefinition<C>): BoundFlow<C> {
    const bound: Omit<BoundHost, keyof ExecutionHost> = {
      create: (execution, tx) => this.#starts.create(execution, tx),
      createAll: (executions) => this.#starts.createAll(executions),
      find: (id) => this.getExecution(id),
      keepResources: (id, resources, created) => this.#executionResources.keep(id, resources, created),
      flowData: this.#flowData(flow.name),
      updateResources: (resources) => {
        this.#flowResources.set(flow.name, { ...this.#flowResources.get(flow.name), ...resources });
      },
    };
    return new BoundFlow(flow, Object.assign(this.#host, bound));
  }

  /** For `flowledger/defer`: the functions given here, and their executions. For `flowledger/test`: what is under way. */
  get [internals](): OrchestratorInternals {
    return {
      host: this.#host,
      newId: this.#newId,
      flows: this.#flows,
      workers: this.#workers,
      functions: this.#known.functions,
      timers: this.#timers,
      isClosed: this.#isClosed,
      logJson: () => this.#logs.useJson(),
      create: (execution) => this.#starts.create(execution),
      store: () => this.#readyStore(),
    };
  }

  /** @param send how what may be repeated is sent; an append may not */
  #flowData(flow: string, send: <T>(work: () => Promise<T>) => Promise<T> = (work) => work()): FlowDataAccess {
    return {
      get: (key) => send(() => this.#store.flowData.read(flow, key)),
      set: (key, value) => send(() => this.#store.flowData.write(flow, key, value)),
      append: (key, value) => this.#store.flowData.append(flow, key, value),
      delete: (key) => send(() => this.#store.flowData.delete(flow, key)),
    };
  }

  async #readyStore(): Promise<Store> {
    await this.#ready();
    return this.#store;
  }

  /** Once per orchestrator: is there a database, and does its schema fit this library? */
  async #ready(): Promise<void> {
    this.#checked ??= this.#store.requireMigrated().then(() => this.#tracing.ready());
    try {
      await this.#checked;
    } catch (error) {
      this.#checked = undefined;
      throw error;
    }
  }
}
