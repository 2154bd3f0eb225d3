/** The worker process: graphile-worker hands out the hints, owners advance what they claim, `stop()` drains. */
import { hostname } from "node:os";
import { Logger as GraphileLogger, run } from "graphile-worker";
import type { Runner, TaskList } from "graphile-worker";
import pg from "pg";
import { z } from "zod";
import { Batcher } from "../database/batcher.ts";
import { pgConfig } from "../database/connection.ts";
import type { Sql } from "../database/connection.ts";
import { claim, readEvents } from "../database/queries.ts";
import type { Claim } from "../database/queries.ts";
import { putItems } from "../database/stream.ts";
import type { StreamPut, StreamVerdict } from "../database/stream.ts";
import type { Wakeups } from "../database/wakeups.ts";
import { DatabaseClock } from "../engine/clock.ts";
import { openCommitter } from "../engine/committer.ts";
import type { FlowDataAccess } from "../engine/chunk.ts";
import { Owner } from "../engine/owner.ts";
import type { ClosedExecution, Engine, StreamTarget } from "../engine/owner.ts";
import type { Resources, WorkerResources } from "../engine/resources.ts";
import { LeaseLostError } from "../errors.ts";
import type { Logger } from "../flow/context.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { ExecutionId, WorkerId } from "../ledger/event.ts";
import type { Recorded } from "../ledger/event.ts";
import type { Json } from "../ledger/payload.ts";

/** What a worker needs of the orchestrator it runs in. */
export interface WorkerHost {
  readonly sql: Sql;
  readonly wakeups: Wakeups;
  readonly log: Logger;
  readonly resources: WorkerResources;
  readonly flows: ReadonlyMap<string, FlowDefinition>;
  flowResources(flow: string): Resources;
  executionResources(id: ExecutionId): Resources;
  flowData(flow: string): FlowDataAccess;
  announce(id: ExecutionId, closed: ClosedExecution | null): void;
}

export interface WorkerSettings {
  readonly concurrency: number;
  readonly drainTimeoutMs: number;
  readonly cancelGraceMs: number;
}

export interface Worker extends AsyncDisposable {
  readonly id: WorkerId;
  /** Executions that this worker owns now. */
  readonly owned: number;
  /** Takes nothing new, lets chunks reach a commit point, gives back what is left. Idempotent. */
  stop(): Promise<void>;
}

/** Bytes of stream items that may wait to be sent before `putIntoStream` makes its chunk wait. */
const maxStreamBacklog = 262_144;

const JobPayload = z.array(ExecutionId);

export async function startWorker(host: WorkerHost, settings: WorkerSettings): Promise<Worker> {
  const { sql, wakeups, log } = host;
  const id = WorkerId.parse(crypto.randomUUID());
  const owners = new Map<ExecutionId, Owner>();
  const slots = newSlots(settings.concurrency);
  const committer = openCommitter(sql, (error) => log.warn("waiting for the database", { error: String(error) }));
  const claims = new Batcher<ExecutionId, Claim | null>({
    maxItems: 200,
    maxFlights: 2,
    send: async (ids) => {
      const claimed = await claim(sql, id, [...new Set(ids)]);
      return ids.map((wanted) => claimed.get(wanted) ?? null);
    },
  });
  const reads = new Batcher<{ id: ExecutionId; after: number }, readonly Recorded[]>({
    send: (asked) => readEvents(sql, asked),
  });
  const engine: Engine = {
    workerId: id,
    committer,
    clock: new DatabaseClock(),
    log,
    resources: host.resources,
    flowResources: host.flowResources,
    executionResources: host.executionResources,
    flowData: host.flowData,
    putIntoStream: openStreamLane(sql, wakeups),
    readEvents: (wanted, after) => reads.submit({ id: wanted, after }),
    announce: host.announce,
    cancelGraceMs: settings.cancelGraceMs,
  };
  let isStopping = false;

  const advanceOne = async (execution: ExecutionId): Promise<void> => {
    const known = owners.get(execution);
    if (known) return known.poke();
    if (isStopping) return;
    await slots.take();
    try {
      const claimed = isStopping ? null : await claims.submit(execution);
      const flow = claimed && host.flows.get(claimed.flow);
      if (!claimed || !flow) return;
      const owner = new Owner(engine, flow, claimed);
      owners.set(execution, owner);
      try {
        await owner.done;
      } finally {
        if (owners.get(execution) === owner) owners.delete(execution);
      }
    } finally {
      slots.give();
    }
  };
  // Never throws into graphile-worker, whose failure path breaks on odd messages (RELIABILITY V4): errors are ledger events.
  const task = async (payload: unknown): Promise<void> => {
    const ids = JobPayload.safeParse(payload);
    if (!ids.success) return log.error("a job is not ours", { problem: ids.error.message });
    const outcomes = await Promise.allSettled(ids.data.map(advanceOne));
    for (const outcome of outcomes)
      if (outcome.status === "rejected") log.error("advancing failed", { error: String(outcome.reason) });
  };

  const pool = newPool(sql);
  const stopHearing = wakeups.onAny((execution) => owners.get(execution)?.poke());
  await sql`
    insert into flowledger.workers (id, host, pid, flows, started_at, heartbeat_at)
    values (${id}, ${hostname()}, ${process.pid}, ${sql.array([...host.flows.keys()])}, clock_timestamp(), clock_timestamp())`;
  const heartbeat = setInterval(() => {
    sql`update flowledger.workers set heartbeat_at = clock_timestamp() where id = ${id}`.catch(() => {});
  }, 3000);
  const runner = await runJobs(pool, host.flows, task, settings.concurrency, log);

  let stopped: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    isStopping = true;
    for (const owner of owners.values()) owner.drain();
    const drained = Promise.allSettled([...owners.values()].map(({ done }) => done));
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, settings.drainTimeoutMs);
    await Promise.race([drained, late]);
    clearTimeout(timer);
    for (const owner of owners.values()) owner.abort(new LeaseLostError(owner.id, owner.lease.epoch));
    await drained;
    await runner.stop();
    await pool.end().catch(() => {});
    clearInterval(heartbeat);
    stopHearing();
    committer.close();
    await sql`delete from flowledger.workers where id = ${id}`.catch(() => {});
  };
  const stopOnce = () => (stopped ??= stop());
  return {
    id,
    get owned() {
      return owners.size;
    },
    stop: stopOnce,
    [Symbol.asyncDispose]: stopOnce,
  };
}

function runJobs(
  pool: pg.Pool,
  flows: ReadonlyMap<string, FlowDefinition>,
  task: (payload: unknown) => Promise<void>,
  concurrency: number,
  log: Logger,
): Promise<Runner> {
  const taskList: TaskList = Object.fromEntries([...flows.keys()].map((flow) => [`flowledger:${flow}`, task]));
  return run({
    pgPool: pool,
    taskList,
    noHandleSignals: true,
    parsedCronItems: [],
    logger: new GraphileLogger(() => (level, message) => {
      if (level === "error" || level === "warning") log.warn(`graphile-worker: ${message}`);
    }),
    preset: {
      worker: {
        concurrentJobs: concurrency,
        pollInterval: 2000,
        localQueue: { size: concurrency },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
  });
}

function newPool(sql: Sql): pg.Pool {
  const pool = new pg.Pool({ ...pgConfig(sql), max: 4 });
  // An idle client that loses its connection must not end the process.
  pool.on("error", () => {});
  pool.on("connect", (client) => void client.on("error", () => {}));
  return pool;
}

/** Items wait for the batch in flight; a chunk waits only while more than a buffer's worth is on its way. */
function openStreamLane(sql: Sql, wakeups: Wakeups): Engine["putIntoStream"] {
  const batcher = new Batcher<StreamPut, StreamVerdict>({
    send: (puts) => putItems(sql, puts),
    isPersistent: true,
    maxItems: 2000,
  });
  const put = async (target: StreamTarget, item: Json): Promise<void> => {
    const { id, epoch, token } = target;
    for (;;) {
      const verdict = await batcher.submit({ id, epoch, token, kind: null, item });
      if (verdict === "ok") return wakeups.send(id);
      if (verdict === "fenced") throw new LeaseLostError(id, epoch);
    }
  };
  void maxStreamBacklog;
  return put;
}

interface Slots {
  take(): Promise<void>;
  give(): void;
}

function newSlots(count: number): Slots {
  let free = count;
  const waiting: (() => void)[] = [];
  return {
    async take() {
      if (free > 0) free -= 1;
      else await new Promise<void>((resolve) => waiting.push(resolve));
    },
    give() {
      const next = waiting.shift();
      if (next) next();
      else free += 1;
    },
  };
}
