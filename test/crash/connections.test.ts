/** F15, F17, F18, F19, F26: what happens between a worker and Postgres. */
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { createOrchestrator } from "../../src/index.ts";
import { openProxy } from "../chaos/proxy.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, visiting } from "../support/flows.ts";
import { mostAtOnce } from "../../src/store/verify.ts";
import { caller, limited, outer, work } from "./flows.ts";
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

test("F15: where the answer of a commit that hands a slot over is lost, the slot and what has it now are free again", async () => {
  await using orchestrator = visiting(database, [limited]);
  const { proxy, url } = await proxied();
  await using _proxy = proxy;
  await using _first = await startWorker(url);
  await using _second = await startWorker(database.url);
  const inputs = Array.from({ length: 40 }, (_, n) => ({ ms: 100, tenant: `lost-${n % 8}` }));
  const ids = await orchestrator.flow(limited).startMany(inputs, { autoCloseTimeout: 0 });

  // Only what appends asks so.
  for (let lost = 0; lost < 3; lost++) {
    proxy.loseAnswerOf("flowledger.claim_limited(case");
    expect(await until(async () => proxy.counts.lostAnswers > lost)).toBe(true);
  }
  const headers = await Promise.all(ids.map((id) => untilClosed(sql, id)));

  expect(new Set(headers.map(({ outcome }) => outcome))).toEqual(new Set(["completed"]));
  for (const id of ids) expect(await countEvents(sql, id, "step.completed")).toBe(1);
  const most = await mostAtOnce(sql, limited.name);
  expect(most.flow).toBeLessThanOrEqual(4);
  expect(Math.max(...most.perKey.values())).toBe(1);
  await expectGuarantees(sql);
}, 60_000);

test.each([outer, caller])(
  "F15: a child of $name that is created while the answer is lost costs its parent no attempt",
  async (flow) => {
    await using orchestrator = visiting(database, [flow]);
    const { proxy, url } = await proxied();
    await using _proxy = proxy;
    await using _worker = await startWorker(url);

    proxy.loseAnswerOf("flowledger.create_executions(");
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    const asked = await until(async () => {
      const { interrupts } = await orchestrator.listPendingInterrupts({ flow: "crash.inner" });
      return interrupts[0];
    });
    await (await orchestrator.getExecution(asked?.executionId ?? "")).continueWith(asked?.id ?? "", "yes");
    const header = await untilClosed(sql, execution.id);

    expect(proxy.counts.lostAnswers).toBe(1);
    expect(header).toMatchObject({ outcome: "completed" });
    expect(await countEvents(sql, execution.id, "chunk.failed")).toBe(0);
    expect(await sql`select from flowledger.executions where parent_id = ${execution.id}`).toHaveLength(1);
    await expectGuarantees(sql);
  },
);

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
  await using worker = await startWorker(database.url);
  const ids: string[] = [];

  for (let kills = 0; kills < 15;) {
    const killed = await sql`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name = 'flowledger jobs'`;
    kills += killed.length;
    // It waits longer each time before it connects again.
    if (killed.length === 0) await delay(2);
    else ids.push(...(await orchestrator.flow(work).startMany([{}, {}, {}], { autoCloseTimeout: 0 })));
  }

  for (const id of ids) expect(await untilClosed(sql, id)).toMatchObject({ outcome: "completed" });
  await expectGuarantees(sql);
  // Nothing of the runners that ended on the way keeps the process.
  worker.kill("SIGTERM");
  expect(await worker.exited).toEqual({ code: 0, signal: null });
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

test("F18: what is asked on connections that went dead is refused in time, and once all are dead there are new ones", async () => {
  const { proxy, url } = await proxied();
  await using _proxy = proxy;
  const { hostname: host, port, username, password, pathname } = new URL(url);
  const connection = { host, port: Number(port), username, password, database: pathname.slice(1), max: 2 };
  await using orchestrator = createOrchestrator({ connection, flows: [work] });
  const bound = orchestrator.flow(work);
  const { id } = await bound.createExecution();
  // Both places of the pool are taken.
  await Promise.all(["a", "b"].map((key) => bound.getFlowData(key, { noWarning: true })));
  const ask = () => [bound.startExecution({}), orchestrator.getExecution(id)];

  proxy.silence(() => true);
  const silentAt = performance.now();
  const errors = [...(await Promise.all(ask().map(refusal))), await refusal(bound.startExecution({}))];
  await Promise.all(ask());
  const backMs = performance.now() - silentAt;

  for (const error of errors)
    expect(error).toMatchObject({ code: "CONNECTION_FAILED", message: expect.stringContaining("no answer") });
  expect(backMs).toBeLessThan(14_000);
  await expectGuarantees(sql);
});

test("F26: a worker that stands still loses the sessions that listen before they hold up vacuum, and listens again", async () => {
  await using orchestrator = visiting(database, [work]);
  await using worker = await startWorker(database.url);
  const listeners = async () => {
    const rows = await sql<{ pid: number }[]>`
      select pid from pg_stat_activity where datname = current_database() and query ilike 'listen%' order by pid`;
    return rows.map(({ pid }) => pid);
  };
  // Ours, and that of graphile-worker.
  await until(async () => (await listeners()).length === 2);
  const stalled = await listeners();

  worker.kill("SIGSTOP");
  // More than the buffers of both kernels take.
  await sql`
    select pg_notify(channel, n || repeat('x', 7900))
    from unnest(array['flowledger_0', 'jobs:insert']) channel, generate_series(1, 2500) n`;
  const floodedAt = performance.now();
  await until(async () => !(await listeners()).some((pid) => stalled.includes(pid)));
  const droppedMs = performance.now() - floodedAt;
  worker.kill("SIGCONT");
  await until(async () => (await listeners()).length === 2);
  const execution = await orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 });

  expect(stalled).toHaveLength(2);
  expect(droppedMs).toBeLessThan(8000);
  expect(await listeners()).toHaveLength(2);
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
