/** The runtime stream: every item once and in order, for early and late readers, until it ends. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { z } from "zod";
import { systemTimers } from "../../src/base/timers.ts";
import type { Committer } from "../../src/engine/committer.ts";
import { ConnectionError, defineFlow, StreamLimitError, toSSE } from "../../src/index.ts";
import { internals, Orchestrator } from "../../src/orchestrator.ts";
import { testDatabase } from "../support/database.ts";
import { collect, newGate, refusal, serving, visiting, warningsOf } from "../support/flows.ts";

const database = await testDatabase();

test("TF-STR-01 TF-STR-06: early, late and repeated readers each get all items in the order of the puts", async () => {
  const flow = defineFlow("ordered");
  flow.to("put", async (ctx) => {
    for (let n = 0; n < 1200; n++) await ctx.putIntoStream(n);
  });
  await using orchestrator = await serving(database, [flow]);
  await using elsewhere = visiting(database);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  const early = await collect(execution.getRuntimeStream({ timeout: null }));
  const late = await collect((await elsewhere.getExecution(execution.id)).getRuntimeStream());

  expect(early).toEqual(Array.from({ length: 1200 }, (_, n) => n));
  expect(late).toEqual(early);
});

test("TF-STR-01: items reach a reader while the chunk still runs", async () => {
  const gate = newGate();
  const flow = defineFlow("live");
  flow.to("put", async (ctx) => {
    await ctx.putIntoStream("first");
    await gate.passed;
    await ctx.putIntoStream("second");
  });
  await using orchestrator = await serving(database, [flow]);
  const items: unknown[] = [];

  for await (const item of orchestrator.flow(flow).getRuntimeStream(null)) {
    items.push(item);
    gate.open();
  }

  expect(items).toEqual(["first", "second"]);
});

test("LI-HND-08: the items of an attempt that fails are in the stream before its failure is in the ledger", async () => {
  const order: string[] = [];
  const committer = (inner: Committer): Committer => ({
    ...inner,
    commit(item) {
      if (item.events.some(({ type }) => type === "chunk.failed")) order.push("failed");
      return inner.commit(item);
    },
  });
  const flow = defineFlow("failedBehind");
  flow.to(
    "put",
    async (ctx) => {
      await ctx.putIntoStream(ctx.attempt);
      if (ctx.attempt === 1) throw new Error("again");
    },
    { retry: { maxAttempts: 2, initialInterval: 1 } },
  );
  const connection = database.url;
  await using orchestrator = new Orchestrator({ connection, flows: [flow] }, systemTimers, true, { committer });
  const { streams } = await orchestrator[internals].store();
  const put = streams.put.bind(streams);
  Object.assign(streams, {
    put: async (loads: Parameters<typeof put>[0]) => {
      const verdicts = await put(loads);
      // What somebody holds the row of is sent again.
      if (!verdicts.includes("busy")) order.push("put");
      return verdicts;
    },
  });
  await orchestrator.startWorker({ drainTimeout: "1s" });

  const items = await collect(orchestrator.flow(flow).getRuntimeStream(null));

  expect(items).toEqual([1, { type: "retry", chunk: "put", attempt: 2 }, 2]);
  expect(order).toEqual(["put", "failed", "put"]);
});

test("LI-STP-07: items come in the order of the calls, null is one, and no when() hears them", async () => {
  const flow = defineFlow("notHeard");
  flow.to("put", async (ctx) => {
    for (const item of ["Said", null, { event: "Said" }]) void ctx.putIntoStream(item);
    await ctx.putIntoStream(null);
  });
  flow.when("Said").to("hear", (ctx) => ctx.setState("heard", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  const items = await collect(execution.getRuntimeStream({ timeout: null }));
  expect(items).toEqual(["Said", null, { event: "Said" }, null]);
  expect(await execution.waitForClose()).toEqual({});
});

test("TF-STR-06: a reader goes on after a cursor", async () => {
  const flow = defineFlow("cursor");
  flow.to("put", async (ctx) => {
    for (const n of ["a", "b", "c"]) await ctx.putIntoStream(n);
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await execution.waitForClose();

  const read = [
    await collect(execution.getRuntimeStream({ from: 2 })),
    await collect(execution.getRuntimeStream({ from: 3 })),
  ];

  expect(read).toEqual([["c"], []]);
  for (const from of [-1, 9])
    expect(await refusal(collect(execution.getRuntimeStream({ from })))).toMatchObject({ code: "USAGE_INVALID" });
});

test("TF-STR-03: a reader whose timeout passes ends with a warning, and the execution goes on", async () => {
  const gate = newGate();
  const flow = defineFlow("quiet");
  flow.to("put", async (ctx) => {
    await ctx.putIntoStream("one");
    await gate.passed;
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  // The time counts from the beginning, and a busy machine may take longer to come to the item.
  for await (const _ of execution.getRuntimeStream({ timeout: null })) break;

  const warnings = await warningsOf(async () => {
    expect(await collect(execution.getRuntimeStream({ timeout: "200ms" }))).toEqual(["one"]);
  });

  expect(warnings.map(({ code }) => code)).toEqual(["STREAM_TIMEOUT"]);
  gate.open();
  expect(await execution.waitForClose()).toEqual({});
});

test("TF-STR-04: stopStream ends readers after what was put, and the execution goes on", async () => {
  const gate = newGate();
  const flow = defineFlow("stopped");
  flow.to("put", async (ctx) => {
    await ctx.putIntoStream("one");
    await ctx.stopStream();
    await ctx.stopStream();
    await gate.passed;
    await ctx.setState("went", "on");
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  expect(await collect(execution.getRuntimeStream({ timeout: null }))).toEqual(["one"]);
  expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "open" });
  gate.open();
  expect(await execution.waitForClose()).toEqual({ went: "on" });
});

test("TF-STR-05: an item put after stopStream is refused, and reaches late readers neither", async () => {
  const flow = defineFlow("afterStop");
  flow.to("put", async (ctx) => {
    await ctx.putIntoStream("one");
    await ctx.stopStream();
    await ctx.setState("code", ((await refusal(ctx.putIntoStream("two"))) as { code: string }).code);
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  expect(await execution.waitForClose()).toEqual({ code: "USAGE_INVALID" });
  expect(await collect(execution.getRuntimeStream())).toEqual(["one"]);
});

test("TF-STR-05: the close ends the stream for a reader that waits", async () => {
  const flow = defineFlow("closing");
  flow.when("E").to("e", () => 1);
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  const reading = collect(execution.getRuntimeStream({ timeout: null }));

  await execution.close();

  expect(await reading).toEqual([]);
});

test("TF-STR-03: an aborted reader ends", async () => {
  const flow = defineFlow("aborted");
  flow.when("E").to("e", () => 1);
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  const abort = new AbortController();
  const reading = collect(execution.getRuntimeStream({ timeout: null, signal: abort.signal }));

  abort.abort();

  expect(await reading).toEqual([]);
});

test("TF-STR-07: the hidden stream of a flow that fails gives its items and then the error", async () => {
  const flow = defineFlow("failing");
  flow.to("put", async (ctx) => {
    await ctx.putIntoStream("one");
    throw new Error("no");
  });
  await using orchestrator = await serving(database, [flow]);
  const items: unknown[] = [];

  const reading = (async () => {
    for await (const item of orchestrator.flow(flow).getRuntimeStream(null)) items.push(item);
  })();

  expect(await refusal(reading)).toMatchObject({ code: "EXECUTION_FAILED" });
  expect(items).toEqual(["one"]);
});

test("TF-STR-07: the hidden stream of a flow that cannot be started is the error", async () => {
  const flow = defineFlow("unstarted", { input: z.number() });
  flow.to("put", (ctx) => ctx.putIntoStream(ctx.input));
  await using orchestrator = visiting(database);

  const reading = collect(orchestrator.flow(flow).getRuntimeStream("one" as unknown as number));

  expect(await refusal(reading)).toMatchObject({ code: "CONTRACT_VIOLATED" });
});

test("TF-CON-01: the stream contract coerces an item, and refuses a wrong one inside the chunk", async () => {
  const flow = defineFlow("typed", { stream: z.object({ step: z.string().trim() }) });
  flow.to("put", async (ctx) => {
    await ctx.putIntoStream({ step: " one " });
    await ctx.putIntoStream({ step: 2 } as never);
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution();

  expect(await refusal(execution.waitForClose())).toMatchObject({ cause: { code: "CONTRACT_VIOLATED" } });
  expect(await collect(execution.getRuntimeStream())).toEqual([{ step: "one" }]);
});

test("F49: an item more than maxStreamItems is refused, nothing of it is written, and no retry follows", async () => {
  const flow = defineFlow("too-many", {}, { maxStreamItems: 3 });
  flow.to(
    "put",
    async (ctx) => {
      for (let n = 1; n <= 4; n++) await ctx.putIntoStream(n);
    },
    { retry: { maxAttempts: 5, initialInterval: 1 } },
  );
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  const failed = await refusal(execution.waitForClose());

  expect(failed).toMatchObject({ code: "EXECUTION_FAILED", cause: { name: "StreamLimitError", code: "STREAM_LIMIT" } });
  expect(String(failed)).toContain(`the stream of execution ${execution.id} would have 4 items`);
  expect(await execution.history({ types: ["chunk.failed"] })).toMatchObject([{ error: { attempt: 1 } }]);
  expect(await collect(execution.getRuntimeStream())).toEqual([1, 2, 3]);
});

test.each<[string, object, object]>([
  ["maxStreamItems", { maxStreamItems: 3 }, { limit: "maxStreamItems", max: 3, value: 4 }],
  [
    "maxStreamRate",
    { maxStreamRate: { limit: 3, per: "1h" } },
    { limit: "maxStreamRate", max: 3, value: 4, perMs: 3_600_000 },
  ],
])("F49: %s counts on under the next owner", async (name, limits, details) => {
  const refused: unknown[] = [];
  const flow = defineFlow(`counts-on.${name}`, {}, limits);
  flow.when("Put").to("put", async (ctx) => {
    for (let n = 0; n < 2; n++) await ctx.putIntoStream(n).catch((error: unknown) => refused.push(error));
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

  for (let n = 1; n <= 2; n++) {
    await execution.emit("Put", n);
    // With nothing to do it is given back, and the next event is for another owner.
    await untilReleased(execution.id, n);
  }
  await execution.close();

  expect(refused).toEqual([expect.any(StreamLimitError)]);
  expect(refused).toMatchObject([{ details: { executionId: execution.id, ...details } }]);
  expect(await collect(execution.getRuntimeStream())).toEqual([0, 1, 0]);
});

test("F49: a chunk that waits is within the rate again", async () => {
  const flow = defineFlow("paced", {}, { maxStreamRate: { limit: 2, per: 50 } });
  flow.to("put", async (ctx) => {
    for (let n = 0; n < 6; n++)
      while (await ctx.putIntoStream(n).then(Boolean, (error: unknown) => error instanceof StreamLimitError))
        await sleep(5);
  });
  await using orchestrator = await serving(database, [flow]);
  const began = performance.now();

  const items = await collect(orchestrator.flow(flow).getRuntimeStream(null));

  expect(items).toEqual([0, 1, 2, 3, 4, 5]);
  expect(performance.now() - began).toBeGreaterThan(100);
});

test("F49: where sub-flows have filled the stream, items that are on their way are refused, and that is not passed over", async () => {
  const filled = newGate();
  const child = defineFlow("filling").to("fill", async (ctx) => {
    for (let n = 1; n <= 3; n++) await ctx.putIntoStream(`child ${n}`);
    await ctx.flush();
    filled.open();
  });
  const flow = defineFlow("filled", {}, { maxStreamItems: 4 });
  flow.toSubFlow(child);
  flow.to("put", async (ctx) => {
    await filled.passed;
    await ctx.putIntoStream("one");
    await ctx.putIntoStream("two");
    await sleep(300);
    await ctx.putIntoStream("three");
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  expect(await refusal(execution.waitForClose())).toMatchObject({ cause: { code: "STREAM_LIMIT" } });
  expect(await collect(execution.getRuntimeStream())).toEqual(["child 1", "child 2", "child 3"]);
});

test("F50: a put by a chunk that is over is refused, while the execution runs and when it is closed", async () => {
  const late: ((item: unknown) => Promise<void>)[] = [];
  const flow = defineFlow("put-late");
  flow.to("put", (ctx) => void late.push((item) => ctx.putIntoStream(item)));
  flow.when("E").to("e", () => 1);
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await untilReleased(execution.id, 1);
  const put = () => refusal(late[0]?.("late") ?? Promise.resolve());

  const errors = [await put(), await execution.close().then(put)];

  expect(errors).toMatchObject([{ code: "USAGE_INVALID" }, { code: "USAGE_INVALID" }]);
  expect(await collect(execution.getRuntimeStream())).toEqual([]);
});

test("those who read or wait hear when their orchestrator is closed, and a browser is sent to another one", async () => {
  const flow = defineFlow("left-behind");
  flow.to("put", (ctx) => ctx.putIntoStream("one"));
  flow.when("E").to("e", () => 1);
  await using orchestrator = await serving(database, [flow]);
  const elsewhere = visiting(database);
  const started = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  const execution = await elsewhere.getExecution(started.id);
  const reader = execution.getRuntimeStream({ timeout: null });
  expect((await reader.next()).value).toBe("one");
  const waiting = [reader.next(), execution.waitForClose(), execution.result.getFinalResult()].map(refusal);
  const body = toSSE(execution.streamItems({ timeout: null })).text();
  waiting.push(refusal(body));

  await elsewhere.close();

  for (const error of await Promise.all(waiting)) expect(error).toBeInstanceOf(ConnectionError);
  expect(await refusal(collect(execution.getRuntimeStream()))).toBeInstanceOf(ConnectionError);
});

test("a timeout of a month is no timeout of a millisecond", async () => {
  const flow = defineFlow("patient");
  flow.to(
    "work",
    async (ctx) => {
      await ctx.step("a step", () => sleep(20), { timeout: "30d" });
      await ctx.putIntoStream("done");
    },
    { timeout: "30d" },
  );
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).createExecution({ autoCloseTimeout: 0 });
  const reading = collect(execution.getRuntimeStream({ timeout: "30d" }));
  const result = execution.result.getFinalResult({ timeout: "30d" });

  const warnings = await warningsOf(() => execution.start());

  expect(await reading).toEqual(["done"]);
  expect(await result).toEqual({});
  expect(warnings).toEqual([]);
});

/** Resolves when nobody owns the execution and so many of its chunks have completed. */
async function untilReleased(id: string, completed: number): Promise<void> {
  for (;;) {
    const [row] = await database.sql<[{ free: boolean }]>`
      select e.owner is null and (select count(*) from flowledger.ledger l
        where l.execution_id = e.id and l.type = 'chunk.completed') = ${completed}::int as free
      from flowledger.executions e where e.id = ${id}::uuid`;
    if (row.free) return;
    await sleep(5);
  }
}

test("an item that was refused on its way is told once, and whoever catches that goes on", async () => {
  const flow = defineFlow("refused.once");
  flow.to("put", async (ctx) => {
    await ctx.putIntoStream("lost");
    await ctx.setState("heard", String(await refusal(ctx.flush())));
    await ctx.putIntoStream("kept");
  });
  await using orchestrator = await serving(database, [flow]);
  const { streams } = await orchestrator[internals].store();
  const put = streams.put.bind(streams);
  let puts = 0;
  Object.assign(streams, {
    put: async (loads: never) => (++puts === 1 ? Promise.reject(new Error("no disk")) : put(loads)),
  });

  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  expect(await execution.waitForClose()).toEqual({ heard: "Error: no disk" });
  expect(await collect(execution.getRuntimeStream())).toEqual(["kept"]);
});
