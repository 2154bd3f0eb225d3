/**
 * `flowledger/test`: the real engine on a real Postgres, with a clock that stands still until a test moves it. Nothing here knows a
 * test runner: vitest, jest and node:test are all the same to it.
 */
import { ownModule } from "./base/call-site.ts";
import "./base/node.ts";
import { randomUUID } from "node:crypto";
import { parseDuration, type Duration } from "./base/duration.ts";
import { UsageError } from "./base/errors.ts";
import { requireInteger, requireKnown } from "./base/option.ts";
import { systemTimers as liveness, type Timers } from "./base/timers.ts";
import type { BoundFlow } from "./execution/bound-flow.ts";
import type { CreateOptions, InputArgs } from "./execution/start-options.ts";
import { newExecution } from "./execution/start-options.ts";
import { parseInput, type Contract, type StartInput } from "./flow/contract.ts";
import { bulkFlowName } from "./flow/names.ts";
import type { Hooks } from "./engine/host.ts";
import type { FlowDefinition } from "./flow/definition.ts";
import { internals, Orchestrator } from "./orchestrator.ts";
import type { OrchestratorOptions, WorkerOptions } from "./orchestrator/options.ts";
import { clockId, openTestClock, type TestClock } from "./store/test-clock.ts";
import { openTestDatabases } from "./store/test-databases.ts";
import { requireTestServer } from "./test-server.ts";
import { BegunCode } from "./test/begun.ts";
import { crashEverywhere, Cutter, type CrashCheck, type Lab, type CrashOptions } from "./test/crash.ts";
import { Driver } from "./test/driver.ts";
import { withMocks, type Mocks } from "./test/mocks.ts";
import { CrashProcesses, moduleOf } from "./test/process.ts";
import { TestRun } from "./test/run.ts";
import { TestTimers } from "./test/timers.ts";
import type { ExecutionId, WorkerId } from "./ledger/event.ts";
import type { LocalWorker } from "./worker/host.ts";
import { type Clock, clockOf, momentOf } from "./test/clock.ts";

export { ClockStuckError, CrashFoundError, UnreachableError } from "./test/errors.ts";
export type { CrashCheck, CrashContext, CrashOptions } from "./test/crash.ts";
export type { Clock } from "./test/clock.ts";
export type { Condition } from "./test/conditions.ts";
export type { Due } from "./test/driver.ts";
export type { Mocks } from "./test/mocks.ts";
export type { TestRun } from "./test/run.ts";

/** Of `testOrchestrator()`. */
export interface TestOptions<F extends readonly FlowDefinition[] = readonly FlowDefinition[]> extends Pick<
  OrchestratorOptions,
  "functions" | "schedules" | "resources" | "logger" | "publicUrl"
> {
  /** What is tested, and with it its sub-flows. */
  readonly flows?: F;
  /** Handlers by flow and chunk, in the place of the real ones; all else of a flow stays as it is. */
  readonly mocks?: Mocks<F>;
  /** Where the clock begins: a date, or ISO 8601. @default the real time, in whole seconds */
  readonly now?: Date | string;
  /** `database` of another kit, maybe in another process: both follow one clock. @default a database of its own */
  readonly database?: string;
  /** Workers in this process. @default 1 */
  readonly workers?: number;
  /** How each works. @default as `startWorker()` has it */
  readonly worker?: WorkerOptions;
  /** Real time that code of a chunk gets when it waits for something that the clock does not bring. @default "2s" */
  readonly patience?: Duration;
}

const optionNames = [
  "flows",
  "functions",
  "schedules",
  "resources",
  "logger",
  "publicUrl",
  "mocks",
  "now",
  "database",
  "workers",
  "worker",
  "patience",
] as const satisfies readonly (keyof TestOptions)[];

const processEntry = ownModule("test-process");

/**
 * An orchestrator for tests, in a database of its own that is gone when the test is.
 *
 * @throws {DefinitionError} a mock of a flow or chunk that there is not
 * @throws {UsageError} there is no Postgres; the message says what to install
 */
export async function testOrchestrator<const F extends readonly FlowDefinition[] = readonly FlowDefinition[]>(
  options: TestOptions<F>,
): Promise<TestOrchestrator> {
  requireKnown(options, optionNames, "testOrchestrator()");
  const { workers = 1, patience = "2s", database } = options;
  requireInteger(workers, "workers of testOrchestrator()", { min: 0, max: 100 });
  const patienceMs = parseDuration(patience, "patience of testOrchestrator()");
  if (database !== undefined && options.now !== undefined)
    throw new UsageError("testOrchestrator() with database has the clock of that database", "leave out now");
  const begin = momentOf(
    options.now ?? new Date(Math.trunc(liveness.now() / 1000) * 1000),
    "now of testOrchestrator()",
  );
  // Before there is anything to clean up.
  const { schedules = [] } = options;
  const flows = withMocks([...(options.flows ?? []), ...schedules.map(({ flow }) => flow)], options.mocks ?? {});
  const byName = new Map(flows.map((flow) => [flow.name, flow]));
  return TestOrchestrator.open({
    ...options,
    patienceMs,
    workers,
    begin,
    flows,
    hasMocks: Object.keys(options.mocks ?? {}).length > 0,
    schedules: schedules.map((schedule) => ({ ...schedule, flow: byName.get(schedule.flow.name) ?? schedule.flow })),
  });
}

interface Settings extends Pick<
  TestOptions,
  "functions" | "schedules" | "resources" | "logger" | "publicUrl" | "database" | "worker"
> {
  readonly flows: readonly FlowDefinition[];
  readonly begin: Date;
  readonly workers: number;
  readonly patienceMs: number;
  readonly hasMocks?: boolean;
  /** Workers of other processes that are gone. */
  readonly gone?: () => readonly WorkerId[];
  /** Of tests of our own: what workers have in the place of a clock that is the database's. */
  readonly machine?: { timers(own: TestTimers): Timers; clock(own: TestClock): TestClock };
}

/** An orchestrator on a database of its own, with a clock that the test moves. */
export class TestOrchestrator implements AsyncDisposable {
  /** The real one, for whatever the kit has no shorthand for. */
  readonly orchestrator: Orchestrator;
  /** For another process that is to work on the same executions by the same clock: `testOrchestrator({ database })`. */
  readonly database: string;
  readonly clock: Clock;
  readonly #settings: Settings;
  readonly #driver: Driver;
  readonly #begun: BegunCode;
  readonly #close: () => Promise<void>;
  #closed: Promise<void> | undefined;

  private constructor(parts: {
    settings: Settings;
    orchestrator: Orchestrator;
    database: string;
    driver: Driver;
    begun: BegunCode;
    close: () => Promise<void>;
  }) {
    this.#settings = parts.settings;
    this.orchestrator = parts.orchestrator;
    this.database = parts.database;
    this.#driver = parts.driver;
    this.#begun = parts.begun;
    this.#close = parts.close;
    this.clock = clockOf(parts.driver);
  }

  /** Use `testOrchestrator()`. */
  static async open(settings: Settings, hooks: Hooks = {}): Promise<TestOrchestrator> {
    const cleanup: (() => Promise<unknown>)[] = [];
    const close = async () => {
      for (const one of cleanup.splice(0).toReversed()) await one();
    };
    try {
      const databases = settings.database === undefined ? openTestDatabases(await requireTestServer()) : null;
      if (databases) cleanup.push(() => databases.close());
      const database = settings.database ?? (await databases?.create(settings.begin.getTime())) ?? "";
      const peer = randomUUID();
      const { machine } = settings;
      const own = openTestClock(database, peer);
      const clock = machine?.clock(own) ?? own;
      cleanup.push(() => clock.close());
      const { nowMs } = await clock.read();
      const timers = new TestTimers(nowMs);
      const begun = new BegunCode();
      const { flows, functions, schedules, resources, logger, publicUrl } = settings;
      const orchestrator = new Orchestrator(
        {
          connection: database,
          flows,
          ...(functions && { functions }),
          ...(schedules && { schedules }),
          ...(resources && { resources }),
          ...(logger && { logger }),
          ...(publicUrl !== undefined && { publicUrl }),
        },
        machine?.timers(timers) ?? timers,
        true,
        {
          ...hooks,
          onBegin: (code) => {
            hooks.onBegin?.(code);
            begun.note(code);
          },
        },
      );
      cleanup.push(() => orchestrator.close());
      const inside = orchestrator[internals];
      const store = await inside.store();
      const driver = new Driver({
        clock,
        timers,
        store,
        flows: [...inside.flows.keys(), bulkFlowName],
        workers: () => [...inside.workers].filter((worker) => !worker.inside.isCrashed),
        gone: () => [
          ...(settings.gone?.() ?? []),
          ...[...inside.workers].filter((worker) => worker.inside.isCrashed).map(({ id }) => id),
        ],
        patienceMs: settings.patienceMs,
      });
      const stopListening = store.wakeups.subscribe(clockId, () => void driver.hear().catch(() => {}));
      await store.wakeups.ready();
      cleanup.push(async () => stopListening());
      for (let count = 0; count < settings.workers; count++) await orchestrator.startWorker(settings.worker ?? {});
      cleanup.push(() => driver.close());
      return new TestOrchestrator({ settings, orchestrator, database, driver, begun, close });
    } catch (error) {
      await close();
      throw error;
    }
  }

  /** Starts an execution. Nothing is waited for: `until()` does that. */
  async start<C extends Contract>(flow: FlowDefinition<C>, ...args: InputArgs<C, CreateOptions>): Promise<TestRun<C>> {
    const bound: BoundFlow<C> = this.orchestrator.flow(flow);
    const { id } = await bound.startExecution(...args);
    return this.#run(id, flow);
  }

  /** An execution that was begun in another way: by a schedule, by the orchestrator, by another process. */
  async attach(id: string): Promise<TestRun> {
    const { id: executionId, flow } = await this.orchestrator.getExecution(id);
    const definition = this.orchestrator[internals].flows.get(flow) ?? null;
    return new TestRun(this.#runHost, executionId, { name: flow, definition });
  }

  /**
   * How many effects of a chunk, step or transaction an outside system has seen that takes each `ctx.idempotencyKey` once. In this
   * process, since the beginning; "flow/chunk" means the chunk of one flow.
   */
  effects(name: string): number {
    return this.#begun.effects(name);
  }

  /** How often the code of a chunk, step or transaction was called in this process, retries and repetitions included. */
  calls(name: string): number {
    return this.#begun.runs(name);
  }

  /**
   * Runs an execution again and again, in a database of its own, and cuts off whoever advances it: before, in and after each of its
   * commits in turn. Another worker takes over; time passes until the execution has closed, or until somebody has to answer or to
   * send something; then `check` says whether all is as it should be. The guarantees of the ledger are checked as well.
   *
   * @returns the boundaries that were tried, in words
   * @throws {CrashFoundError} naming the first boundary at which the check failed; what fails without a crash is thrown as it is
   */
  async crashEverywhere<C extends Contract>(
    flow: FlowDefinition<C>,
    input: StartInput<C>,
    check: CrashCheck<C>,
    options: CrashOptions = {},
  ): Promise<string[]> {
    requireKnown(options, ["start", "reset", "process"], "crashEverywhere()");
    return options.process === undefined || options.process === false
      ? await this.#crashWorkers(flow, input, check, options)
      : await this.#crashProcesses(flow, input, check, options, moduleOf(options.process, flow));
  }

  async #crashWorkers<C extends Contract>(
    flow: FlowDefinition<C>,
    input: StartInput<C>,
    check: CrashCheck<C>,
    options: CrashOptions,
  ): Promise<string[]> {
    const workers: LocalWorker[] = [];
    const cutter = new Cutter((worker) => workers[worker]?.inside.crash());
    await using kit = await this.#openLab({ workers: 2 }, { committer: cutter.wrap });
    workers.push(...kit.orchestrator[internals].workers);
    // Awaited here: the kit is closed behind it.
    return await crashEverywhere<C>(
      {
        ...kit.#labOf(flow, input, options),
        async arm(from, at) {
          cutter.arm(from, at);
        },
        async disarm() {
          for (const worker of workers) worker.inside.revive();
          cutter.disarm();
          return cutter.commits;
        },
      },
      check,
    );
  }

  async #crashProcesses<C extends Contract>(
    flow: FlowDefinition<C>,
    input: StartInput<C>,
    check: CrashCheck<C>,
    options: CrashOptions,
    module: string,
  ): Promise<string[]> {
    const gone: WorkerId[] = [];
    await using kit = await this.#openLab({ workers: 0, gone: () => gone });
    const { patienceMs, hasMocks = false } = this.#settings;
    const task = { database: kit.database, module, flow: flow.name, hasMocks, patienceMs };
    await using processes = new CrashProcesses(processEntry, task, kit.#begun, gone);
    return await crashEverywhere<C>(
      {
        ...kit.#labOf(flow, input, options),
        arm: (from, at) => processes.arm(from, at),
        disarm: () => processes.disarm(),
      },
      check,
    );
  }

  /** A kit like this one, in a database of its own. */
  #openLab(settings: Pick<Settings, "workers" | "gone">, hooks: Hooks = {}): Promise<TestOrchestrator> {
    const { database: _, ...own } = this.#settings;
    return TestOrchestrator.open({ ...own, begin: this.clock.now(), schedules: [], ...settings }, hooks);
  }

  #labOf<C extends Contract>(
    flow: FlowDefinition<C>,
    input: StartInput<C>,
    { start, reset = () => {} }: CrashOptions,
  ): Omit<Lab<C>, "arm" | "disarm"> {
    const { newId, create } = this.orchestrator[internals];
    return {
      flow: flow.name,
      driver: this.#driver,
      begun: this.#begun,
      newId,
      start: async (id) => {
        await create(newExecution(flow, { ...start, id }, parseInput(flow, input), false, newId));
        return this.#run(id, flow);
      },
      reset,
      verify: (id) => this.orchestrator.verify({ id }),
    };
  }

  /** Resolves when nothing is left to do at the present time, in all processes that follow this clock. */
  settle(): Promise<void> {
    return this.#driver.settle();
  }

  /** Stops the workers, and drops the database if it is this kit's own. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #run<C extends Contract>(id: ExecutionId, flow: FlowDefinition<C>): TestRun<C> {
    return new TestRun(this.#runHost, id, { name: flow.name, definition: flow });
  }

  get #runHost() {
    return { host: this.orchestrator[internals].host, driver: this.#driver, begun: this.#begun };
  }
}
