/** F15, F17, F18, F19: what happens between a worker and Postgres. */
import { expect, test } from "vitest";
import { openProxy } from "../chaos/proxy.ts";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import { work } from "./flows.ts";
import { countEvents, expectGuarantees, startWorker, until, untilClosed } from "./support.ts";

const database = await testDatabase();
const { sql } = database;

async function proxied() {
  const url = new URL(database.url);
  const target = {
    host: url.hostname,
    port: (
      (port) => () =>
        port
    )(Number(url.port)),
  };
  const proxy = await openProxy(target);
  url.port = String(proxy.port);
  return { proxy, url: url.href };
}

test("F15: a commit whose answer is lost is found by its number, and nothing happens twice", async () => {
  await using orchestrator = visiting(database, [work]);
  const { proxy, url } = await proxied();
  await using _proxy = proxy;
  await using worker = await startWorker(url);
  const execution = await orchestrator.flow(work).startExecution({ ms: 500 }, { autoCloseTimeout: 0 });
  await worker.untilLine(/^body slow/);

  proxy.loseAnswerOf("flowledger.append(");
  const header = await untilClosed(sql, execution.id);

  expect(proxy.counts.lostAnswers).toBe(1);
  expect(worker.output()).toContain("repeated a commit whose answer was lost");
  expect(header).toMatchObject({ outcome: "completed", close_snapshot: { path: ["first", "slow", "last"] } });
  expect(await countEvents(sql, execution.id, "chunk.completed")).toBe(3);
  await expectGuarantees(sql);
});

test("F15: a claim whose answer is lost is freed again by the worker that made it", async () => {
  await using orchestrator = visiting(database, [work]);
  const { proxy, url } = await proxied();
  await using _proxy = proxy;
  await using _worker = await startWorker(url);

  proxy.loseAnswerOf("flowledger.claim(");
  const execution = await orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 });
  const header = await untilClosed(sql, execution.id);

  expect(proxy.counts.lostAnswers).toBe(1);
  expect(header).toMatchObject({ outcome: "completed", epoch: 2 });
  await expectGuarantees(sql);
});

test("F17: terminated backends are replaced, and the work goes on", async () => {
  await using orchestrator = visiting(database, [work]);
  await using worker = await startWorker(database.url);
  const execution = await orchestrator.flow(work).startExecution({ ms: 800 }, { autoCloseTimeout: 0 });
  await worker.untilLine(/^body slow/);

  await sql`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and application_name like 'flowledger%'`;
  await execution.emit("Poke", "after").catch(() => execution.emit("Poke", "after"));

  expect(await untilClosed(sql, execution.id)).toMatchObject({ outcome: "completed" });
  await expectGuarantees(sql);
});

test("F17: a worker whose job connections die again and again gets every job done when they stay", async () => {
  await using orchestrator = visiting(database, [work]);
  await using _worker = await startWorker(database.url);
  const ids: string[] = [];

  for (let kills = 0; kills < 30;) {
    for (let starts = 0; starts < 3; starts++)
      ids.push((await orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 })).id);
    const killed = await sql`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name = 'flowledger jobs'`;
    kills += killed.length;
  }

  for (const id of ids) expect(await untilClosed(sql, id)).toMatchObject({ outcome: "completed" });
  await expectGuarantees(sql);
});

test("F18: connections that go dead without a word are given up, and the work goes on over new ones", async () => {
  await using orchestrator = visiting(database, [work]);
  const { proxy, url } = await proxied();
  await using _proxy = proxy;
  await using worker = await startWorker(url);
  const execution = await orchestrator.flow(work).startExecution({ ms: 300 }, { autoCloseTimeout: 0 });
  await worker.untilLine(/^body slow/);

  proxy.silence(({ name }) => name === "flowledger" || name === "flowledger heartbeat");

  expect(await untilClosed(sql, execution.id)).toMatchObject({ outcome: "completed" });
  await expectGuarantees(sql);
});

test("F19: a worker behind a slow network keeps what it owns", async () => {
  await using orchestrator = visiting(database, [work]);
  const { proxy, url } = await proxied();
  await using _proxy = proxy;
  await using worker = await startWorker(url);
  await using other = await startWorker(database.url);
  const execution = await orchestrator.flow(work).startExecution({ ms: 1500 }, { autoCloseTimeout: 0 });
  await until(async () => worker.output().includes("body slow") || other.output().includes("body slow"));

  proxy.delayMs = 400;

  expect(await untilClosed(sql, execution.id)).toMatchObject({ outcome: "completed", epoch: 1 });
  expect(worker.output()).not.toContain("given up");
  await expectGuarantees(sql);
});
