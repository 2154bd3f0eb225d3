/** The kit on the server of this run. What a test leaves behind comes to rest and stays so, or the test fails. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, inject } from "vitest";
import type { CloseOptions, Execution, FlowDefinition, WorkerOptions } from "../../src/index.ts";
import { testOrchestrator, TestOrchestrator, type TestOptions } from "../../src/test.ts";
import type { Machine } from "./machine.ts";
import { quietTwice } from "./quiet.ts";

const now = "2026-01-01T09:00Z";

/** What was not quiet in the kits that this test has closed. */
const unrest: string[] = [];

afterEach(() => {
  const found = unrest.splice(0);
  if (found.length > 0) throw new Error(`not quiet\n${found.join("\n")}`);
});

/** Begins at 2026-01-01T09:00Z where nothing else is said. */
export async function kit<const F extends readonly FlowDefinition[] = readonly FlowDefinition[]>(
  options: TestOptions<F>,
): Promise<TestOrchestrator> {
  process.env["DATABASE_URL"] = inject("serverUrl");
  const isOwn = options.database === undefined;
  return restful(await testOrchestrator(isOwn ? { now, ...options } : options), isOwn);
}

/** The same on a machine of its own kind. @param patienceMs as `patience` */
export async function kitOn(
  machine: Machine,
  flows: readonly FlowDefinition[],
  worker: WorkerOptions,
  patienceMs: number,
): Promise<TestOrchestrator> {
  process.env["DATABASE_URL"] = inject("serverUrl");
  const begin = new Date(now);
  return restful(await TestOrchestrator.open({ flows, begin, workers: 1, patienceMs, worker, machine }), true);
}

function restful(t: TestOrchestrator, isOwn: boolean): TestOrchestrator {
  const close = t.close.bind(t);
  let closed: Promise<void> | undefined;
  t.close = () => {
    closed ??= (async () => {
      try {
        // Whoever made the database closes last.
        if (isOwn) unrest.push(...(await quietTwice(t)));
      } catch (error) {
        unrest.push(String(error));
      }
      await close();
    })();
    return closed;
  };
  return t;
}

/** What a close ends in is said later: it drains first. At once only whether it is taken: it is refused, or stands in the ledger. */
export async function beginClose(execution: Execution, options?: CloseOptions): Promise<void> {
  const eventsNow = async () => (await execution.history()).length;
  const before = await eventsNow();
  let isAnswered = false;
  const closing = execution.close(options).finally(() => (isAnswered = true));
  closing.catch(() => {});
  const isTaken = async () => (await eventsNow()) > before;
  while (!isAnswered && !(await isTaken())) await Promise.race([closing.catch(() => {}), sleep(5)]);
  if (isAnswered && !(await isTaken())) await closing;
}
