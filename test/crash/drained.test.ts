/** F7: SIGTERM. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import { work } from "./flows.ts";
import { expectGuarantees, startWorker, until, untilClosed } from "./support.ts";

const database = await testDatabase();
const { sql } = database;

test("F7: a worker that gets SIGTERM gives back what it has, exits with 0, and another goes on at once", async () => {
  await using orchestrator = visiting(database, [work]);
  await using draining = await startWorker(database.url, { CRASH_DRAIN: "300ms" });
  const execution = await orchestrator.flow(work).startExecution({ ms: 2500 }, { autoCloseTimeout: 0 });
  await draining.untilLine(/^body slow/);

  draining.kill("SIGTERM");
  expect(await draining.exited).toEqual({ code: 0, signal: null });
  const [header] =
    await sql`select owner, wake_at <= now() as due from flowledger.executions where id = ${execution.id}`;
  const workers = await sql`select id from flowledger.workers`;
  await using _heir = await startWorker(database.url);
  const closed = await untilClosed(sql, execution.id);

  expect(header).toEqual({ owner: null, due: true });
  expect(workers.length).toBe(0);
  expect(closed).toMatchObject({ outcome: "completed", close_snapshot: { path: ["first", "slow", "last"] } });
  await expectGuarantees(sql);
});

test("F7, F11: a draining worker takes nothing new, and a second SIGTERM ends it at once", async () => {
  await using orchestrator = visiting(database, [work]);
  await using draining = await startWorker(database.url, { CRASH_DRAIN: "30s" });
  const execution = await orchestrator.flow(work).startExecution({ ms: 20_000 }, { autoCloseTimeout: 0 });
  await draining.untilLine(/^body slow/);

  draining.kill("SIGTERM");
  await draining.untilLine(/^draining/);
  const late = await orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 });
  draining.kill("SIGTERM");
  expect(await draining.exited).toEqual({ code: 130, signal: null });

  expect(draining.output()).not.toContain(late.id);
  await execution.cancel();
  await using _heir = await startWorker(database.url);
  expect(await untilClosed(sql, late.id)).toMatchObject({ outcome: "completed" });
  expect(await untilClosed(sql, execution.id)).toMatchObject({ outcome: "cancelled" });
  expect(await until(async () => (await sql`select id from flowledger.workers`).length === 1)).toBe(true);
  await expectGuarantees(sql);
});
