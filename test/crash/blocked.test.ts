/** F4: a chunk blocks the event loop, so its worker is alive and does nothing. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import { block } from "./flows.ts";
import { expectGuarantees, startWorker, untilClosed } from "./support.ts";

const database = await testDatabase();

test("F4: an execution whose chunk blocks the event loop of its worker goes on elsewhere", async () => {
  await using orchestrator = visiting(database, [block]);
  await using blocked = await startWorker(database.url, { CRASH_NAME: "blocked" });
  const execution = await orchestrator
    .flow(block)
    .startExecution({ ms: 20_000, worker: "blocked" }, { autoCloseTimeout: 0 });
  await blocked.untilLine(/^body spin/);
  await using _heir = await startWorker(database.url);

  const header = await untilClosed(database.sql, execution.id, 19_000);

  expect(header).toMatchObject({ outcome: "completed", close_snapshot: { path: ["spin"] }, epoch: 2 });
  await expectGuarantees(database.sql);
});
