/** The runtime stream under faults: a killed worker, answers that are lost, notifications that never come or come too often. */
import { expect, test } from "vitest";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import { openProxy } from "../chaos/proxy.ts";
import { testDatabase } from "../support/database.ts";
import { collect, newGate, serving, visiting } from "../support/flows.ts";
import { talker } from "./flows.ts";
import { expectGuarantees, startWorker, until, untilClosed } from "./support.ts";

const database = await testDatabase();
const { sql } = database;
const quiet = { autoCloseTimeout: 0 } as const;

test("F50: an attempt that another worker takes over is marked, and one that had put nothing is not", async () => {
  await using orchestrator = visiting(database, [talker]);
  await using first = await startWorker(database.url, { CRASH_NAME: "first" });
  const input = { ms: 60_000, worker: "first" };
  const execution = await orchestrator.flow(talker).startExecution(input, quiet);
  const live = collect(execution.streamItems({ timeout: null }));
  await first.untilLine(/^body talk/);
  await using _second = await startWorker(database.url, { CRASH_NAME: "second" });

  first.kill("SIGKILL");
  await untilClosed(sql, execution.id);

  const seen = (await live).map(({ item }) => item);
  expect(seen.filter((item) => item !== "sibling")).toEqual([
    "from first",
    { type: "retry", chunk: "talk", attempt: 1 },
    "from second",
    "talked",
  ]);
  expect(seen.filter((item) => item === "sibling")).toHaveLength(1);
  expect(await collect(execution.streamItems())).toEqual(await live);
  await expectGuarantees(sql);
});

test("F15: items whose commit was answered to nobody are in the stream once, in order", async () => {
  const flow = defineFlow("lost-answers");
  flow.to("put", async (ctx) => {
    for (let n = 0; n < 30; n++) {
      await ctx.putIntoStream(n);
      if (n % 10 === 5) proxy.loseAnswerOf("flowledger.put_items(");
      await ctx.flush();
    }
  });
  const { proxy, url } = await proxied();
  await using _proxy = proxy;
  await using orchestrator = createOrchestrator({ connection: url, flows: [flow] });
  await orchestrator.startWorker();
  const execution = await orchestrator.flow(flow).startExecution(null, quiet);

  await untilClosed(sql, execution.id);

  expect(proxy.counts.lostAnswers).toBe(3);
  await using elsewhere = visiting(database);
  const items = await collect((await elsewhere.getExecution(execution.id)).getRuntimeStream());
  expect(items).toEqual(Array.from({ length: 30 }, (_, n) => n));
  await expectGuarantees(sql);
});

test("F44: a reader that hears no notification reads all items, only later", async () => {
  const { flow, gate } = twoParts("deaf");
  const { proxy, url } = await proxied();
  await using _proxy = proxy;
  await using orchestrator = await serving(database, [flow]);
  await using deaf = createOrchestrator({ connection: url });
  const execution = await orchestrator.flow(flow).startExecution(null, quiet);
  proxy.isDeaf = true;
  const reader = (await deaf.getExecution(execution.id)).getRuntimeStream({ timeout: null });
  expect((await reader.next()).value).toBe(1);
  // It listens, and hears nothing.
  await until(async () => {
    await sql`select pg_notify('flowledger_' || n, 'nobody') from generate_series(0, 7) n`;
    return proxy.counts.lostNotifications > 0;
  });

  gate.open();

  expect(await collect(reader)).toEqual([2, 3]);
  expect(proxy.counts.lostNotifications).toBeGreaterThan(0);
});

test("F44: notifications in any number, for any execution, in any order change nothing a reader sees", async () => {
  const { flow, gate } = twoParts("noisy");
  await using orchestrator = await serving(database, [flow]);
  await using elsewhere = visiting(database);
  const execution = await orchestrator.flow(flow).startExecution(null, quiet);
  const reader = (await elsewhere.getExecution(execution.id)).getRuntimeStream({ timeout: null });
  expect((await reader.next()).value).toBe(1);

  const storm = sql`
    select pg_notify('flowledger_' || (n % 8), repeat(${`~${execution.id},${execution.id},nobody,`}, 20))
    from generate_series(1, 200) n`;
  gate.open();
  await storm;

  expect(await collect(reader)).toEqual([2, 3]);
});

test("F47: readers whose connections all go down at once read on, and listen again over one connection", async () => {
  const { flow, gate } = twoParts("storm");
  const { proxy, url } = await proxied();
  await using _proxy = proxy;
  await using orchestrator = await serving(database, [flow]);
  await using elsewhere = createOrchestrator({ connection: url });
  const execution = await orchestrator.flow(flow).startExecution(null, quiet);
  const there = await elsewhere.getExecution(execution.id);
  const readers = Array.from({ length: 100 }, () => there.getRuntimeStream({ timeout: null }));
  await Promise.all(readers.map((reader) => reader.next()));
  const before = proxy.counts.connections;

  proxy.cutAll();
  await until(() => Promise.resolve(proxy.counts.connections > before));
  gate.open();

  for (const items of await Promise.all(readers.map((reader) => collect(reader)))) expect(items).toEqual([2, 3]);
  // The pool and the listener, not one per reader.
  expect(proxy.counts.connections - before).toBeLessThanOrEqual(11);
});

/** Puts 1, and 2 and 3 once the gate is open. */
function twoParts(name: string) {
  const gate = newGate();
  const flow = defineFlow(name);
  flow.to("put", async (ctx) => {
    await ctx.putIntoStream(1);
    await gate.passed;
    await ctx.putIntoStream(2);
    await ctx.putIntoStream(3);
  });
  return { flow, gate };
}

async function proxied() {
  const url = new URL(database.url);
  const port = Number(url.port);
  const proxy = await openProxy({ host: url.hostname, port: () => port });
  url.port = String(proxy.port);
  return { proxy, url: url.href };
}
