/** F8, F9, F10: user code that takes its worker down. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import type { TestProcess } from "../support/processes.ts";
import { hoard, poison, stray, work } from "./flows.ts";
import { expectGuarantees, startWorker, untilClosed } from "./support.ts";

const database = await testDatabase();
const { sql } = database;

test(
  "F8: an execution that kills worker after worker is closed as a crash loop, and its neighbours finish",
  { timeout: 60_000 },
  async () => {
    await using orchestrator = visiting(database, [poison, work]);
    const fatal = await orchestrator.flow(poison).startExecution(null, { autoCloseTimeout: 0 });
    const neighbour = await orchestrator.flow(work).startExecution({ ms: 400 }, { autoCloseTimeout: 0 });
    let isOver = false;
    let current: TestProcess | null = null;
    const supervised = (async () => {
      while (!isOver) {
        // It may be killed before it is ready.
        current = await startWorker(database.url).catch(() => null);
        await current?.exited;
      }
    })();

    const closed = await untilClosed(sql, fatal.id, 50_000);
    const next = await untilClosed(sql, neighbour.id);
    isOver = true;
    (current as TestProcess | null)?.kill("SIGKILL");
    await supervised;

    expect(closed).toMatchObject({
      outcome: "failed",
      close_reason: "worker_crash_loop",
      error: { name: "WorkerCrashLoopError" },
    });
    expect(next).toMatchObject({ outcome: "completed", error: null });
    await expectGuarantees(sql);
  },
);

test("F9: an unhandled rejection in user code ends its process with an error, never half alive", async () => {
  await using orchestrator = visiting(database, [stray]);
  await using victim = await startWorker(database.url, { CRASH_NAME: "victim" });
  const execution = await orchestrator.flow(stray).startExecution({ worker: "victim" }, { autoCloseTimeout: 0 });

  const { code } = await victim.exited;
  await using _heir = await startWorker(database.url);

  expect(code).toBe(1);
  expect(await untilClosed(sql, execution.id)).toMatchObject({ outcome: "completed" });
  await expectGuarantees(sql);
});

test("F10: a worker whose heap is full is one that was killed; a value that would fill it is refused before", async () => {
  const small = { NODE_OPTIONS: "--max-old-space-size=96" };
  await using orchestrator = visiting(database, [hoard, work]);
  await using doomed = await startWorker(database.url, { ...small, CRASH_NAME: "doomed" });
  const greedy = await orchestrator.flow(hoard).startExecution({ worker: "doomed" }, { autoCloseTimeout: 0 });
  await doomed.exited;
  await using heir = await startWorker(database.url, small);
  const closed = await untilClosed(sql, greedy.id);
  const next = await orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 });

  expect(doomed.output()).toContain("heap out of memory");
  expect(closed).toMatchObject({ outcome: "failed", epoch: 2, error: { code: "PAYLOAD_UNSTORABLE" } });
  expect(await untilClosed(sql, next.id)).toMatchObject({ outcome: "completed" });
  expect(heir.output()).toContain(`body last ${next.id}`);
  await expectGuarantees(sql);
});
