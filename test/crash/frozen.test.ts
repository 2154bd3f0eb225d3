/** F2: a worker is frozen past its silence limit and wakes up in the middle of work that others have taken over. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import { work } from "./flows.ts";
import { expectGuarantees, startWorker, untilClosed } from "./support.ts";

const database = await testDatabase();

test("F2: a worker frozen past the limit is taken over within 15 s, and fenced when it wakes up", async () => {
  await using orchestrator = visiting(database, [work]);
  await using frozen = await startWorker(database.url, { CRASH_NAME: "frozen" });
  const input = { ms: 60_000, worker: "frozen" };
  const execution = await orchestrator.flow(work).startExecution(input, { autoCloseTimeout: 0 });
  await frozen.untilLine(/^body slow/);
  await using heir = await startWorker(database.url);

  frozen.kill("SIGSTOP");
  const frozenAt = performance.now();
  await heir.untilLine(/^body slow/, 20_000);
  const takeoverMs = performance.now() - frozenAt;
  frozen.kill("SIGCONT");
  const header = await untilClosed(database.sql, execution.id);
  await frozen.untilLine(/^log (fenced|this worker was given up)/);

  expect(takeoverMs).toBeLessThan(15_000);
  expect(header).toMatchObject({ outcome: "completed", close_snapshot: { path: ["first", "slow", "last"] } });
  await expectGuarantees(database.sql);
});
