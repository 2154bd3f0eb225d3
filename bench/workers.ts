/** Worker processes of `worker.ts`, as their parent has them. */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { Bench } from "./server.ts";

/** Once it takes executions. */
export async function forkWorker(bench: Bench): Promise<ChildProcess> {
  const worker = fork(fileURLToPath(new URL("worker.ts", import.meta.url)), [bench.url], {
    execArgv: ["--expose-gc"],
  });
  await once(worker, "message");
  return worker;
}

/** CPU time that it has used, user and system, in ms. */
export async function cpuOf(worker: ChildProcess): Promise<number> {
  const answer = once(worker, "message");
  worker.send("cpu");
  const [ms]: unknown[] = await answer;
  return Number(ms);
}

/** In order. */
export async function endWorker(worker: ChildProcess): Promise<void> {
  const exited = once(worker, "exit");
  worker.disconnect();
  await exited;
}
