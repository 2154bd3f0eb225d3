/** F12, F21, F30, F31, F33, F35: locks, and jobs that come twice, get lost, or never come. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import { sleeper, work } from "./flows.ts";
import { countEvents, expectGuarantees, startWorker, until, untilClosed } from "./support.ts";

const database = await testDatabase();
const { sql } = database;

test("F30: an execution whose job comes three times has one owner, and its chunks run once", async () => {
  await using orchestrator = visiting(database, [work]);
  const execution = await orchestrator.flow(work).startExecution({ ms: 200 }, { autoCloseTimeout: 0 });
  await sql`
    select flowledger_jobs.add_job('flowledger:crash.work', to_json(array[${execution.id}::text, ${execution.id}::text]))
    from generate_series(1, 2)`;

  await using worker = await startWorker(database.url);
  const header = await untilClosed(sql, execution.id);

  expect(header).toMatchObject({ outcome: "completed", epoch: 1, close_snapshot: { path: ["first", "slow", "last"] } });
  expect(worker.output().match(/^body slow/gm)).toHaveLength(1);
  await expectGuarantees(sql);
});

test("F31, F33: executions whose jobs are lost, or have used up their attempts, are swept up", async () => {
  await using orchestrator = visiting(database, [work]);
  const lost = await orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 });
  await sql`delete from flowledger_jobs._private_jobs`;
  const usedUp = await orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 });
  await sql`update flowledger_jobs._private_jobs set attempts = max_attempts`;

  await using _worker = await startWorker(database.url);

  for (const { id } of [lost, usedUp]) expect(await untilClosed(sql, id)).toMatchObject({ outcome: "completed" });
  await expectGuarantees(sql);
});

test("F31: what was claimed under an identity that is gone is swept up", async () => {
  await using orchestrator = visiting(database, [work]);
  const { id } = await orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 });
  await sql`delete from flowledger_jobs._private_jobs`;
  await sql`update flowledger.executions set owner = gen_random_uuid(), lease_token = gen_random_uuid() where id = ${id}`;

  await using _worker = await startWorker(database.url);

  expect(await untilClosed(sql, id)).toMatchObject({ outcome: "completed" });
  await expectGuarantees(sql);
});

test("F35: a sleeping execution whose timer is lost wakes up by its wake_at", async () => {
  await using orchestrator = visiting(database, [sleeper]);
  await using _worker = await startWorker(database.url);
  const execution = await orchestrator.flow(sleeper).startExecution({ ms: 2000 }, { autoCloseTimeout: 0 });
  await until(
    async () =>
      (await sql`select 1 from flowledger.executions where id = ${execution.id} and owner is null and wake_at > now()`)
        .length > 0,
  );

  await sql`delete from flowledger_jobs._private_jobs`;

  expect(await untilClosed(sql, execution.id, 15_000)).toMatchObject({ outcome: "completed" });
  expect(await countEvents(sql, execution.id, "sleep.started")).toBe(1);
  await expectGuarantees(sql);
});

test("F12: workers whose clocks are ten minutes off, one each way, sleep as long as the database says", async () => {
  await using orchestrator = visiting(database, [sleeper]);
  await using _fast = await startWorker(database.url, { CHAOS_SKEW_MS: "600000" });
  await using _slow = await startWorker(database.url, { CHAOS_SKEW_MS: "-600000" });
  const executions = await Promise.all(
    Array.from({ length: 10 }, () => orchestrator.flow(sleeper).startExecution({ ms: 1200 }, { autoCloseTimeout: 0 })),
  );

  for (const { id } of executions) await untilClosed(sql, id);

  const slept = await sql<{ ms: number }[]>`
    select extract(epoch from
        max(at) filter (where type = 'chunk.completed') - max(at) filter (where type = 'sleep.started'))::float8 * 1000 as ms
    from flowledger.ledger where execution_id in ${sql(executions.map(({ id }) => id))} group by execution_id`;
  expect(Math.min(...slept.map(({ ms }) => ms))).toBeGreaterThanOrEqual(1198);
  expect(Math.max(...slept.map(({ ms }) => ms))).toBeLessThan(20_000);
  await expectGuarantees(sql);
});

test("F21: a caller that keeps an execution locked delays that one alone", async () => {
  await using orchestrator = visiting(database, [work]);
  await using worker = await startWorker(database.url);
  const locked = await orchestrator.flow(work).startExecution({ ms: 300 }, { autoCloseTimeout: 0 });
  await worker.untilLine(/^body slow/);
  const holder = await sql.reserve();
  await holder`begin`;
  await holder`select 1 from flowledger.executions where id = ${locked.id} for update`;

  const free = await orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 });
  expect(await untilClosed(sql, free.id)).toMatchObject({ outcome: "completed" });
  expect(await sql`select 1 from flowledger.executions where id = ${locked.id} and closed_at is not null`).toHaveLength(
    0,
  );
  await holder`rollback`;
  holder.release();

  expect(await untilClosed(sql, locked.id)).toMatchObject({ outcome: "completed" });
  await expectGuarantees(sql);
});
