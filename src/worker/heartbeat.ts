/** The worker's side of the thread that says "alive" for it: `heartbeat-thread.ts`. */
import { Worker as Thread } from "node:worker_threads";
import { UsageError } from "../base/errors.ts";
import { systemTimers as liveness, type Timer } from "../base/timers.ts";
import type { DriverOptions } from "../store/driver.ts";
import type { SchemaNames } from "../store/names.ts";
import type { Registration } from "../store/session.ts";
import { threadSource } from "./thread-source.ts";

export interface Heartbeat {
  /** Resolves when the worker is registered. */
  readonly registered: Promise<void>;
  /** Registered, and not given up by the others. */
  readonly isHeld: boolean;
  /** Since the last sign of life reached the database, in milliseconds. */
  readonly silentMs: number;
  stop(): Promise<void>;
}

export interface HeartbeatOptions extends Registration {
  /** A password that is a function stays here: the thread asks for it. */
  readonly connection: DriverOptions;
  readonly names: SchemaNames;
  /** Time between beats. */
  readonly everyMs: number;
  /** A main loop that has not ticked for so long counts as stuck: the beats stop. */
  readonly stuckMs: number;
  /** Called with each turn of the main loop. @param everyMs when it is to turn */
  readonly onTick: (everyMs: number) => void;
}

/** Time between turns of the main loop that are counted. */
const tickEveryMs = 100;

/** So long a thread that has ended with its worker stays for the next one: its start is what takes longest when a worker starts. */
const idleMs = 10_000;

/** What the thread is given. */
export type ThreadData = Omit<HeartbeatOptions, "onTick"> & {
  readonly asksPassword: boolean;
  /** The first counts up while the main loop runs, the second with each sign of life that reached the database. */
  readonly ticks: Int32Array;
};

/** What the thread says, and what it is told. */
export type FromThread = "registered" | "lost" | "password" | "ended";
export type ToThread =
  { readonly speakFor: ThreadData } | "stop" | { readonly password: string } | { readonly failure: string };

/**
 * Begins to say "alive". `onLost` is called once when the others have given this worker up, or the thread has failed.
 *
 * @throws {UsageError} connection options that cannot travel to a thread
 */
export function startHeartbeat({ onTick, ...options }: HeartbeatOptions, onLost: () => void): Heartbeat {
  const ticks = new Int32Array(new SharedArrayBuffer(8));
  const { password } = options.connection;
  const thread = threadFor({
    ...options,
    connection: { ...options.connection, password: typeof password === "function" ? undefined : password },
    asksPassword: typeof password === "function",
    ticks,
  });
  let beats = 0;
  let beatAt = liveness.monotonic();
  const look = () => {
    const now = Atomics.load(ticks, 1);
    if (now !== beats) beatAt = liveness.monotonic();
    beats = now;
  };
  const ticking = liveness
    .every(tickEveryMs, () => {
      Atomics.add(ticks, 0, 1);
      look();
      onTick(tickEveryMs);
    })
    .unref();
  // Listened for at once: the thread may exit at any moment.
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  thread.once("exit", end);
  const { promise: registered, resolve, reject } = Promise.withResolvers<void>();
  let isStopped = false;
  let isRegistered = false;
  let isLost = false;
  let isEnded = false;
  const lose = () => {
    isLost = true;
    onLost();
  };
  // Afterwards it may speak for another one.
  const tell = (message: ToThread) => {
    if (!isEnded) thread.postMessage(message);
  };
  thread.on("message", (message: FromThread) => {
    if (message === "registered") {
      isRegistered = true;
      thread.unref();
      beatAt = liveness.monotonic();
      resolve();
    } else if (message === "password") {
      Promise.resolve(typeof password === "function" ? password() : "").then(
        (given) => tell({ password: given }),
        (error: unknown) => tell({ failure: error instanceof Error ? error.message : String(error) }),
      );
    } else if (message === "ended") {
      isEnded = true;
      release(thread);
      end();
    } else if (message === "lost" && !isStopped) lose();
    // Other messages are not from us: under `node --watch` a thread reports the modules that it loads.
  });
  thread.on("error", (error) => {
    ticking.cancel();
    reject(error);
    if (isRegistered && !isStopped) lose();
  });
  return {
    registered,
    get isHeld() {
      return isRegistered && !isLost && !isStopped;
    },
    get silentMs() {
      look();
      return liveness.monotonic() - beatAt;
    },
    async stop() {
      isStopped = true;
      ticking.cancel();
      // Nothing else may be left that keeps the process, and whoever stops waits for this.
      if (!isEnded) thread.ref();
      tell("stop");
      await ended;
    },
  };
}

/** Those without a worker, and what ends each. */
const idle = new Map<Thread, Timer>();

function threadFor(speakFor: ThreadData): Thread {
  const [free] = idle.keys();
  const thread = free ?? openThread();
  try {
    thread.postMessage({ speakFor } satisfies ToThread);
  } catch (error) {
    if (!free) release(thread);
    throw new UsageError(
      `connection of a worker must be data, apart from the password, got something else (${error instanceof Error ? error.message : String(error)})`,
      "leave functions out of ssl, or give it as sslmode",
      {},
      error,
    );
  }
  idle.get(thread)?.cancel();
  idle.delete(thread);
  thread.removeAllListeners();
  // Until it has registered somebody waits for it.
  thread.ref();
  return thread;
}

function openThread(): Thread {
  const source = threadSource();
  const thread = new Thread(source, { execArgv: [], eval: typeof source === "string" });
  return thread;
}

function release(thread: Thread): void {
  thread.removeAllListeners();
  thread.unref();
  const forget = () => {
    idle.get(thread)?.cancel();
    idle.delete(thread);
  };
  // It may fail, and nobody is concerned.
  thread.on("error", forget).on("exit", forget);
  const end = () => {
    // At once: whoever got a thread that is about to end would wait for it.
    forget();
    void thread.terminate();
  };
  idle.set(thread, liveness.after(idleMs, end).unref());
}
