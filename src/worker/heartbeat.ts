/** The thread that says "alive": it holds the worker's lock on a connection of its own and beats only while the main loop ticks. */
import { isMainThread, parentPort, Worker as Thread, workerData } from "node:worker_threads";
import { withTimeout } from "../base/async.ts";
import { systemTimers as liveness, type Timer } from "../base/timers.ts";
import { openClient } from "../database/driver.ts";
import type { DriverOptions } from "../database/driver.ts";
import type { WorkerId } from "../ledger/event.ts";

export interface Heartbeat {
  /** Resolves when the worker is signed up and its lock is held. */
  readonly signedUp: Promise<void>;
  stop(): Promise<void>;
}

export interface HeartbeatOptions {
  readonly id: WorkerId;
  readonly host: string;
  readonly pid: number;
  readonly flows: readonly string[];
  /** graphile-worker's name for whoever locks our jobs. */
  readonly pool: string | null;
  readonly connection: DriverOptions;
  /** Time between beats. */
  readonly everyMs: number;
  /** A main loop that has not ticked for so long counts as stuck: the beats stop. */
  readonly stuckMs: number;
}

/** A beat that takes longer is on a dead connection. */
const answerWithinMs = 2000;

/** Starts the thread. `onLost` is called once when the others have given this worker up, or the lock is gone. */
export function startHeartbeat(options: HeartbeatOptions, onLost: () => void): Heartbeat {
  const ticks = new Int32Array(new SharedArrayBuffer(4));
  const ticking = liveness.every(100, () => void Atomics.add(ticks, 0, 1)).unref();
  const thread = new Thread(new URL(import.meta.url), {
    workerData: { heartbeat: { ...options, ticks } },
    execArgv: [],
  });
  const { promise: signedUp, resolve, reject } = Promise.withResolvers<void>();
  let isStopped = false;
  let isSignedUp = false;
  thread.unref();
  thread.on("message", (message: string) => {
    if (message === "signed up") {
      isSignedUp = true;
      resolve();
    } else if (!isStopped) onLost();
  });
  thread.on("error", (error) => {
    reject(error);
    if (isSignedUp && !isStopped) onLost();
  });
  return {
    signedUp,
    async stop() {
      isStopped = true;
      ticking.cancel();
      const gone = new Promise((done) => thread.once("exit", done));
      thread.postMessage("stop");
      await gone;
    },
  };
}

type ThreadData = HeartbeatOptions & { ticks: Int32Array };

async function beat({ id, host, pid, flows, pool, connection, everyMs, stuckMs, ticks }: ThreadData): Promise<void> {
  const open = () =>
    openClient(null, {
      ...connection,
      max: 1,
      idle_timeout: 0,
      max_lifetime: null,
      connect_timeout: answerWithinMs / 1000,
      prepare: false,
    });
  let sql = open();
  let timer: Timer | undefined;
  let isOver = false;
  const end = async (message: string | null): Promise<void> => {
    isOver = true;
    timer?.cancel();
    if (message) parentPort?.postMessage(message);
    await sql.end({ timeout: 1 }).catch(() => {});
    parentPort?.close();
  };
  parentPort?.on("message", () => {
    sql`delete from flowledger.workers where id = ${id}`.catch(() => {}).finally(() => void end(null));
  });
  const signUp = async (): Promise<void> => {
    await sql`select flowledger.sign_up(${id}::uuid, ${host}, ${pid}::int, ${`{${flows.map((flow) => `"${flow}"`).join(",")}}`}::text::text[], ${pool})`;
  };
  const beatOnce = async (): Promise<boolean> => {
    const [row] = await sql<[{ known: boolean; held: boolean }]>`
      select flowledger.beat(${id}::uuid) as known, pg_try_advisory_lock(flowledger.worker_key(${id}::uuid)) as held`;
    return row.known;
  };
  await signUp();
  parentPort?.postMessage("signed up");
  let seen = Atomics.load(ticks, 0);
  let tickedAt = liveness.monotonic();
  const turn = async (): Promise<void> => {
    const now = Atomics.load(ticks, 0);
    if (now !== seen) tickedAt = liveness.monotonic();
    seen = now;
    if (liveness.monotonic() - tickedAt < stuckMs) {
      try {
        const isKnown = await withTimeout(beatOnce(), answerWithinMs, () => "no answer" as const);
        if (isKnown === false) return await end("lost");
        if (isKnown === "no answer") {
          // A connection may go dead without a word; the lock is free once its server side has noticed.
          void sql.end({ timeout: 0 }).catch(() => {});
          sql = open();
        }
      } catch {
        // The database is away for everybody: whether anyone took over shows at the next beat.
      }
    }
    if (!isOver) timer = liveness.after(everyMs, () => void turn());
  };
  timer = liveness.after(everyMs, () => void turn());
}

if (!isMainThread && typeof workerData === "object" && workerData !== null && "heartbeat" in workerData)
  void beat((workerData as { heartbeat: ThreadData }).heartbeat);
