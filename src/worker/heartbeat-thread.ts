/** The thread that says "alive": it speaks for the worker on a connection of its own, and beats only while the main loop ticks. */
import { parentPort } from "node:worker_threads";
import { withTimeout } from "../base/async.ts";
import { systemTimers as liveness, type Timer } from "../base/timers.ts";
import { openSession } from "../store/session.ts";
import type { FromThread, ThreadData, ToThread } from "./heartbeat.ts";

/** A beat that takes longer is on a dead connection. */
const answerWithinMs = 2000;

async function beat(data: ThreadData): Promise<void> {
  const { connection, asksPassword, names, everyMs, stuckMs, ticks, ...worker } = data;
  let asked = Promise.withResolvers<string>();
  const askPassword = () => {
    asked = Promise.withResolvers();
    parentPort?.postMessage("password" satisfies FromThread);
    return asked.promise;
  };
  const open = () => {
    const options = asksPassword ? { ...connection, password: askPassword } : connection;
    return openSession(options, names, answerWithinMs / 1000);
  };
  let session = open();
  let timer: Timer | undefined;
  let isOver = false;
  const end = async (message: FromThread | null): Promise<void> => {
    if (isOver) return;
    isOver = true;
    timer?.cancel();
    if (message) parentPort?.postMessage(message);
    await session.end(1).catch(() => {});
    parentPort?.off("message", hear).postMessage("ended" satisfies FromThread);
  };
  const hear = (message: ToThread) => {
    if (message === "stop") {
      withTimeout(session.leave(worker.id), answerWithinMs, () => {})
        .catch(() => {})
        .finally(() => void end(null));
    } else if ("password" in message) asked.resolve(message.password);
    else if ("failure" in message) asked.reject(new Error(message.failure));
  };
  parentPort?.on("message", hear);
  await session.register(worker);
  parentPort?.postMessage("registered" satisfies FromThread);
  let seen = Atomics.load(ticks, 0);
  let tickedAt = liveness.monotonic();
  const turn = async (): Promise<void> => {
    const now = Atomics.load(ticks, 0);
    if (now !== seen) tickedAt = liveness.monotonic();
    seen = now;
    if (liveness.monotonic() - tickedAt < stuckMs) {
      try {
        const isKnown = await withTimeout(session.beat(worker.id), answerWithinMs, () => "no answer" as const);
        if (isKnown === false) return await end("lost");
        if (isKnown === true) Atomics.add(ticks, 1, 1);
        if (isKnown === "no answer") {
          // A dead connection may give no error. Its lock is free once the server has noticed.
          void session.end(0).catch(() => {});
          session = open();
        }
      } catch {
        // The database is away for every worker: the next beat shows whether another one took over.
      }
    }
    if (!isOver) timer = liveness.after(everyMs, () => void turn());
  };
  timer = liveness.after(everyMs, () => void turn());
}

// It speaks for one worker at a time, and there may be another one after it.
parentPort?.on("message", (message: ToThread) => {
  if (typeof message === "object" && "speakFor" in message) void beat(message.speakFor);
});
