/** The runtime stream: every item once and in order, for early and late readers, until it ends. */
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
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
