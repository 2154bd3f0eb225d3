/** A bulk under the movable clock: its rate counts by that. */
import { expect, test } from "vitest";
import { defineFlow, ExecutionCancelledError } from "../../src/index.ts";
import type { Bulk, Execution, FlowDefinition } from "../../src/index.ts";
import type { TestOrchestrator } from "../../src/test.ts";
import { internals } from "../../src/orchestrator.ts";
import { kit } from "../support/kit.ts";

const by = { actor: "ann", reason: "INC-12" };
const where = { flow: "kit.bulk.skips" };

/** Executions that wait for an answer. */
async function open(t: TestOrchestrator, flow: FlowDefinition, count: number): Promise<Execution[]> {
  const all: Execution[] = [];
  while (all.length < count) all.push(await t.orchestrator.flow(flow.name).startExecution(null, { autoClose: false }));
  await t.settle();
  return all;
}

test("a bulk with a rate of one an hour is through after its hours", async () => {
  const flow = defineFlow("kit.bulk").to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
  await using t = await kit({ flows: [flow] });
  await open(t, flow, 3);
  const bulk = await t.orchestrator.bulk({
    action: "cancel",
    where: { flow: "kit.bulk" },
    rate: { limit: 1, per: "1h" },
    actor: "ann",
    reason: "INC-12",
  });
  await t.settle();
  expect(await bulk.report()).toEqual({ matched: 3, done: 1, skipped: 0, failed: 0 });
  await t.clock.advance("30m");
  expect((await bulk.report()).done).toBe(1);
  await t.clock.advance("31m");
  expect((await bulk.report()).done).toBe(2);
  await t.clock.advance("2h");
  expect(await bulk.wait()).toEqual({ matched: 3, done: 3, skipped: 0, failed: 0 });
}, 60_000);

test.each(["250ms", "10s", "1h"])(
  "a bulk with a rate per %s has ended with its last command, and not a window later",
  async (per) => {
    const flow = defineFlow("kit.bulk.ends").to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
    await using t = await kit({ flows: [flow] });
    const start = (of: number) =>
      t.orchestrator.flow(flow).startExecution(null, { autoClose: false, metadata: { of: `of ${of}` } });
    const limit = 2;
    const counts = [0, 1, limit, limit + 1];
    for (const of of counts) for (let count = 0; count < of; count++) await start(of);
    await t.settle();
    const asked: Bulk[] = [];
    for (const of of counts) {
      const filter = { flow: "kit.bulk.ends", metadata: { of: `of ${of}` } };
      asked.push(await t.orchestrator.bulk({ action: "cancel", where: filter, rate: { limit, per }, ...by }));
    }
    await t.settle();
    const ends = () => Promise.all(asked.map(async (bulk) => (await bulk.execution.explain()).kind));

    expect(await Promise.all(asked.map(async (bulk) => (await bulk.report()).done))).toEqual([0, 1, limit, limit]);
    expect(await ends()).toEqual(["closed", "closed", "closed", "waiting"]);
    await t.clock.advance(per);
    await t.clock.advance("1ms");
    expect((await asked.at(-1)?.report())?.done).toBe(limit + 1);
    expect(await ends()).toEqual(["closed", "closed", "closed", "closed"]);
  },
  60_000,
);

test("what a bulk leaves as it is takes nothing of its rate", async () => {
  const flow = defineFlow("kit.bulk.skips").to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
  await using t = await kit({ flows: [flow] });
  const all = await open(t, flow, 4);
  const [first, , third] = all;
  for (const one of [first, third]) await one?.pause(by);

  const bulk = await t.orchestrator.bulk({ action: "pause", where, rate: { limit: 1, per: "1h" }, ...by });
  await t.settle();
  expect(await bulk.report()).toMatchObject({ done: 1, skipped: 1 });
  await t.clock.advance("61m");
  expect(await bulk.report()).toMatchObject({ done: 2, skipped: 2 });
  await t.clock.advance("1h");

  expect(await bulk.wait()).toEqual({ matched: 4, done: 2, skipped: 2, failed: 0 });
  for (const one of all) await one.unpause(by);
}, 60_000);

test("what refuses its command takes of the rate as well", async () => {
  const flow = defineFlow("kit.bulk.skips").to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
  await using t = await kit({ flows: [flow] });
  const all = await open(t, flow, 2);

  const options = { chunk: "no such" };
  const bulk = await t.orchestrator.bulk({ action: "skip", options, where, rate: { limit: 1, per: "1h" }, ...by });
  await t.settle();
  expect(await bulk.report()).toMatchObject({ failed: 1 });
  await t.clock.advance("61m");

  expect(await bulk.wait()).toEqual({ matched: 2, done: 0, skipped: 0, failed: 2 });
  for (const one of all) await one.cancel();
}, 60_000);

test("a worker that has not heard of the cancel of a bulk does no more of it", async () => {
  const flow = defineFlow("kit.bulk.skips").to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
  await using t = await kit({ flows: [flow] });
  await open(t, flow, 3);
  const bulk = await t.orchestrator.bulk({ action: "cancel", where, rate: { limit: 1, per: "1h" }, ...by });
  await t.settle();
  for (const worker of t.orchestrator[internals].workers) await worker.stop();
  await bulk.execution.cancel("enough");

  const { bulks } = await t.orchestrator[internals].store();
  expect(await bulks.run(bulk.id, bulk.id, 50)).toBe(null);
  expect(await bulk.report()).toEqual({ matched: 3, done: 1, skipped: 0, failed: 0 });
  await t.orchestrator.startWorker();
  await expect(bulk.wait()).rejects.toThrow(ExecutionCancelledError);
}, 60_000);
