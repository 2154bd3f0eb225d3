/** F21, F30, F31, F35: locks, and jobs that come twice, get lost, or never come. */
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
    select graphile_worker.add_job('flowledger:crash.work', to_json(array[${execution.id}::text, ${execution.id}::text]))
    from generate_series(1, 2)`;

  await using worker = await startWorker(database.url);
  const header = await untilClosed(sql, execution.id);

  expect(header).toMatchObject({ outcome: "completed", epoch: 1, close_snapshot: { path: ["first", "slow", "last"] } });
  expect(worker.output().match(/^body slow/gm)).toHaveLength(1);
  await expectGuarantees(sql);
});

test("F31: an execution whose job is lost is swept up", async () => {
  await using orchestrator = visiting(database, [work]);
  const execution = await orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 });
  await sql`delete from graphile_worker._private_jobs`;

  await using _worker = await startWorker(database.url);

  expect(await untilClosed(sql, execution.id, 15_000)).toMatchObject({ outcome: "completed" });
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

  await sql`delete from graphile_worker._private_jobs`;

  expect(await untilClosed(sql, execution.id, 15_000)).toMatchObject({ outcome: "completed" });
  expect(await countEvents(sql, execution.id, "sleep.started")).toBe(1);
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
