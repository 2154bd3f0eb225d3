/** F1: a worker is killed in the middle of its work, anywhere. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import { work } from "./flows.ts";
import { countEvents, expectGuarantees, startWorker, untilClosed } from "./support.ts";

const database = await testDatabase();
const { sql } = database;

test("F1: what a killed worker had begun goes on elsewhere within five seconds, and its recorded step is not repeated", async () => {
  await using orchestrator = visiting(database, [work]);
  await using first = await startWorker(database.url, { CRASH_NAME: "first" });
  const input = { ms: 60_000, worker: "first" };
  const execution = await orchestrator.flow(work).startExecution(input, { autoCloseTimeout: 0 });
  await first.untilLine(/^body slow/);
  await using second = await startWorker(database.url);
  // A lost lock says nothing for ten seconds after the start of Postgres: everybody has lost theirs.
  await database.sql`
    select pg_sleep(greatest(0, extract(epoch from pg_postmaster_start_time() + interval '11 seconds' - clock_timestamp())))`;

  first.kill("SIGKILL");
  const killedAt = performance.now();
  await second.untilLine(/^body slow/);
  const takeoverMs = performance.now() - killedAt;
  const header = await untilClosed(sql, execution.id);

  expect(takeoverMs).toBeLessThan(5000);
  expect(header).toMatchObject({ outcome: "completed", close_snapshot: { path: ["first", "slow", "last"] } });
  expect(second.output()).not.toContain("charged");
  expect(await countEvents(sql, execution.id, "step.completed", "first")).toBe(1);
  await expectGuarantees(sql);
});

test.each(["before-claim", "after-claim", "before-commit", "in-commit", "after-commit", "before-job-done"])(
  "F1, F32: a worker that dies at %s loses nothing and doubles nothing",
  async (name) => {
    await using orchestrator = visiting(database, [work]);
    await using doomed = await startWorker(database.url, { FLOWLEDGER_FAILPOINT: `${name}:kill` });
    const execution = await orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 });
    expect(await doomed.exited).toMatchObject({ signal: "SIGKILL" });

    await using _heir = await startWorker(database.url);
    const header = await untilClosed(sql, execution.id);

    expect(header).toMatchObject({ outcome: "completed", close_snapshot: { path: ["first", "slow", "last"] } });
    await expectGuarantees(sql);
  },
);
