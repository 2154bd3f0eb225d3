/** graphile-worker: one task per flow, and what 0.18.0 does when connections are lost made good. */
import { EventEmitter } from "node:events";
import { Logger as GraphileLogger, run } from "graphile-worker";
import type { JobHelpers, Runner, TaskList, WorkerEvents } from "graphile-worker";
import pg from "pg";
import { z } from "zod";
import { systemTimers as liveness } from "../base/timers.ts";
import { failpoint } from "../engine/failpoints.ts";
import { ExecutionId } from "../ledger/event.ts";
import { dropWhenStalled } from "../store/driver.ts";
import type { Store } from "../store/store.ts";
import type { Logger } from "../flow/context.ts";
import type { FlowDefinition } from "../flow/definition.ts";

/** graphile-worker looks for jobs every two seconds while it has none. */
const pollWithinMs = 8000;
/** One of them listens. Until the first look for jobs one more will do: at its beginning it asks several things at once. */
const mostConnections = 4;
const firstConnections = 2;
/** Of one of its messages in the log. */
const mostLetters = 300;

export interface Jobs {
  readonly runner: Runner;
  /** It looks in vain: its connection is dead, or its very first look failed and it keeps the error (0.18.0). */
  readonly isStuck: () => boolean;
  /** Its connections, whatever they do. */
  readonly endPool: () => void;
  /** The name that graphile-worker locks this worker's jobs with. */
  readonly pool: string | null;
}

/** @param onEnding called with the name that it locks jobs with, when it takes no more of them, asked to or not */
export async function runJobs(
  pool: JobPool,
  flows: ReadonlyMap<string, FlowDefinition>,
  task: (flow: string, payload: unknown, priority: number) => Promise<void>,
  settings: { readonly concurrency: number; readonly isPreparing: boolean; readonly schema: string },
  log: Logger,
  onEnding: (pool: string | null) => void,
): Promise<Jobs> {
  const { concurrency, isPreparing, schema } = settings;
  const taskList: TaskList = Object.fromEntries(
    [...flows.keys()].map((flow) => [
      `flowledger:${flow}`,
      (payload: unknown, { job }: JobHelpers) => task(flow, payload, job.priority),
    ]),
  );
  let name: string | null = null;
  const events: WorkerEvents = new EventEmitter();
  let stopCron = () => {};
  events.on("cron:starting", ({ cron }) => (stopCron = () => void cron.release()));
  events.on("pool:create", ({ workerPool }) => (name = workerPool.id));
  let fetched: unknown[] = [];
  let polledAt = liveness.monotonic();
  let isPolling = true;
  let hasEnded = false;
  events.on("localQueue:getJobs:complete", () => {
    polledAt = liveness.monotonic();
    pool.pool.options.max = mostConnections;
  });
  events.on("localQueue:setMode", ({ newMode }) => {
    polledAt = liveness.monotonic();
    isPolling = newMode === "POLLING";
  });
  events.on("localQueue:init", ({ localQueue }) => (fetched = localQueue.jobQueue));
  const runner = await run({
    pgPool: pool.pool,
    taskList,
    events,
    noHandleSignals: true,
    parsedCronItems: [],
    logger: new GraphileLogger(() => (level, message) => {
      // After its end other workers do what it reports as undone. A message may name a thousand jobs.
      if (level === "error" && !hasEnded) log.warn(`graphile-worker: ${message.slice(0, mostLetters)}`);
    }),
    preset: {
      plugins: [
        {
          name: "flowledger",
          version: "1",
          worker: {
            middleware: {
              // Our `migrate()` has migrated its tables. The worker's role may not, and must not say so.
              migrate: () => undefined,
              poolGracefulShutdown(next) {
                // The jobs that it returns at its end, and this promise, would reject unhandled (0.18.0),
                // which ends the process.
                fetched.length = 0;
                hasEnded = true;
                onEnding(name);
                // After an end that was not asked for its cron timer would keep the process alive.
                stopCron();
                return Promise.resolve(next()).catch((error: unknown) =>
                  log.warn("graphile-worker ended with an error", { error: String(error) }),
                );
              },
            },
          },
        },
      ],
      worker: {
        concurrentJobs: concurrency,
        schema,
        preparedStatements: isPreparing,
        pollInterval: 2000,
        localQueue: { size: concurrency },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
  });
  runner.promise.catch((error: unknown) => log.error("graphile-worker ended", { error: String(error) }));
  return {
    runner,
    pool: name,
    isStuck: () => isPolling && liveness.monotonic() - polledAt > pollWithinMs,
    endPool: () => pool.endAll(),
  };
}

interface JobPool {
  readonly pool: pg.Pool;
  endAll(): void;
}

/**
 * graphile-worker (0.18.0) gives the client that listens back twice when its LISTEN fails after its end has begun, and nobody hears
 * of what the second time throws: it ended the process.
 */
class LenientPool extends pg.Pool {
  override connect(): Promise<pg.PoolClient>;
  override connect(callback: Checkout): void;
  override connect(callback?: Checkout): Promise<pg.PoolClient> | void {
    if (!callback) return super.connect();
    super.connect((error, client, release) => {
      let isReleased = false;
      callback(error, client, (reason) => {
        if (client && !isReleased) release(reason);
        isReleased = true;
      });
    });
  }
}

type Checkout = (
  error: Error | undefined,
  client: pg.PoolClient | undefined,
  release: (reason?: Error | boolean) => void,
) => void;

export function newPool({ links }: Pick<Store, "links">): JobPool {
  // The pool awaits `onConnect`, which its types do not say.
  const onConnect = (client: pg.ClientBase) => client.query(dropWhenStalled);
  const pool = new LenientPool(Object.assign(links.pg(), { max: firstConnections, onConnect }));
  const clients = new Set<pg.PoolClient>();
  // An idle client that loses its connection must not end the process.
  pool.on("error", () => {});
  pool.on("connect", (client) => {
    ignoreMigrations(client);
    client.on("error", () => {});
    clients.add(client);
  });
  pool.on("remove", (client) => void clients.delete(client));
  return {
    pool,
    endAll() {
      void pool.end().catch(() => {});
      for (const client of clients) void client.end().catch(() => {});
    },
  };
}

/**
 * graphile-worker listens to a channel on which any worker of the database, an application's own too, announces its migrations,
 * and stops for it; anybody who can connect may send there. Ours are part of `migrate()`.
 */
function ignoreMigrations(client: pg.ClientBase): void {
  const emit = client.emit.bind(client);
  client.emit = (event: string | symbol, ...args: { readonly channel?: string }[]): boolean =>
    event === "notification" && args[0]?.channel === "worker:migrate" ? false : emit(event, ...args);
}

const JobPayload = z.array(ExecutionId);

/** What graphile-worker runs: it advances each execution that a job names. */
export function taskOf(
  log: Logger,
  advance: (id: ExecutionId, flow: string, priority: number) => Promise<void>,
): (flow: string, payload: unknown, priority: number) => Promise<void> {
  // Nothing is thrown into graphile-worker: it could not record a message that Postgres cannot hold, and the
  // unhandled rejection ends the process. Errors are ledger events.
  return async (flow: string, payload: unknown, priority: number): Promise<void> => {
    const ids = JobPayload.safeParse(payload);
    if (!ids.success) return log.error("a job is not ours", { problem: ids.error.message });
    const outcomes = await Promise.allSettled(ids.data.map((id) => advance(id, flow, priority)));
    const failures = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? String(outcome.reason) : []));
    for (const [error, alike] of Map.groupBy(failures, (failure) => failure))
      log.error("advancing failed", { error, executions: alike.length });
    failpoint("before-job-done");
  };
}
