/** `onCancel`: what a cancel leaves to do before the close, whatever the execution was doing. */
import { expect, test } from "vitest";
import { z } from "zod";
import { verify } from "../../src/store/verify.ts";
import { DefinitionError, defineFlow, Flow, type Execution } from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, refusal, serving, untilEvent } from "../support/flows.ts";
import { kit } from "../support/kit.ts";

const database = await testDatabase();
const { sql } = database;

/** Whatever a machine with other load takes: what is cleaned up here ends by itself. */
const patient = { cancelGrace: "60s" } as const;

async function types(execution: Pick<Execution, "history">): Promise<string[]> {
  return (await execution.history()).map(({ type }) => type);
}

test("what sleeps, pauses, waits for a retry or runs is cleaned up once before the close, with its input, steps and state; what has ended is not", async () => {
  const flow = defineFlow("cleaned", { input: z.object({ room: z.string() }) });
  const cleaned: string[] = [];
  const start = flow.to("book", (ctx) => ctx.input.room, { onCancel: () => void cleaned.push("book") });
  const onCancel = async (ctx: { chunk: string; input: string }) => void cleaned.push(`${ctx.chunk} ${ctx.input}`);
  start.to("sleep", (ctx) => ctx.sleep("30d"), { onCancel });
  start.to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask" }), { onCancel });
  start.to("retry", () => Promise.reject(new Error("busy")), { retry: { waits: ["30d"] }, onCancel });
  start.to(
    "run",
    async (ctx) => {
      await ctx.step("charge", () => "charged");
      await new Promise((_, reject) => ctx.signal.addEventListener("abort", () => reject(ctx.signal.reason)));
    },
    {
      onCancel: async (ctx) => {
        cleaned.push(await ctx.step("refund", () => `refunded ${ctx.input}`));
        await ctx.appendState("log", `undone for ${ctx.startInput.room}`);
      },
    },
  );
  flow.onCancel((ctx) => ctx.appendState("log", `over: ${ctx.chunk}`));
  await using orchestrator = await serving(database, [flow], {}, patient);
  const execution = await orchestrator.flow(flow).startExecution({ room: "12" });
  await untilEvent(execution, "step.completed");
  await untilEvent(execution, "chunk.failed");
  await untilEvent(execution, "interrupt.raised");
  await untilEvent(execution, "sleep.started");

  await execution.cancel("changed my mind");
  const error = await refusal(execution.waitForClose());

  expect(error).toMatchObject({ code: "EXECUTION_CANCELLED" });
  expect(cleaned.toSorted()).toEqual(["ask 12", "refunded 12", "retry 12", "sleep 12"]);
  const state = await execution.result.getState();
  expect(state).toEqual({ log: expect.arrayContaining(["undone for 12", "over: onCancel"]) });
  expect(state).toEqual((await sql`select flowledger.close_snapshot(${execution.id}) as s`)[0]?.["s"]);
  const seen = await types(execution);
  expect(seen.filter((type) => type === "cleanup.planned")).toHaveLength(1);
  expect(seen.filter((type) => type === "cleanup.completed")).toHaveLength(5);
  expect(seen.at(-1)).toBe("execution.closed");
  expect(await verify(sql, { id: execution.id })).toEqual([]);
});

test("a parked execution is woken for it, by SQL too", async () => {
  const flow = defineFlow("cleanedParked");
  flow.to("nap", (ctx) => ctx.sleep("30d"), { onCancel: (ctx) => ctx.setState("woken", true) });
  await using orchestrator = await serving(database, [flow], {}, patient);
  const execution = await orchestrator.flow(flow).startExecution();
  await untilEvent(execution, "sleep.started");
  await expect
    .poll(async () => (await sql`select owner from flowledger.executions where id = ${execution.id}`)[0]?.["owner"])
    .toBe(null);

  await sql`select flowledger.cancel(${execution.id}::uuid, 'by sql')`;
  await refusal(execution.waitForClose());

  expect(await execution.result.getState()).toEqual({ woken: true });
  expect(await verify(sql, { id: execution.id })).toEqual([]);
});

test("one that fails, pauses or outlasts cancelGrace is in the ledger, and the execution closes all the same", async () => {
  const flow = defineFlow("cleanedBadly");
  const gate = newGate();
  let late: Promise<unknown> | undefined;
  flow.to("fail", (ctx) => ctx.sleep("30d"), { onCancel: () => Promise.reject(new RangeError("no")) });
  flow.to("pause", (ctx) => ctx.sleep("30d"), { onCancel: (ctx) => ctx.pauseFor() });
  flow.to("late", (ctx) => ctx.sleep("30d"), {
    onCancel: async (ctx) => {
      await gate.passed;
      late = refusal(ctx.flush());
    },
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution();
  await expect.poll(async () => (await execution.history({ types: ["sleep.started"] })).length).toBe(3);

  await execution.cancel();
  expect(await refusal(execution.waitForClose())).toMatchObject({ code: "EXECUTION_CANCELLED" });

  const failed = await execution.history({ types: ["cleanup.failed"] });
  const errors = failed.flatMap((event) => ("error" in event && event.error ? [event.error.name] : []));
  expect(errors.toSorted()).toEqual(["CleanupTimeoutError", "RangeError", "UsageError"]);
  gate.open();
  await expect.poll(() => late).toBeDefined();
  expect(await verify(sql, { id: execution.id })).toEqual([]);
});

test("an execution closes as soon as it is cleaned up, also beside code that did not end within its grace", async () => {
  const flow = defineFlow("cleaned.beside").to("hang", () => new Promise<void>(() => {}), { onCancel: () => {} });
  await using t = await kit({ flows: [flow], patience: "10ms", worker: { cancelGrace: "10s" } });
  const run = await t.start(flow, null);
  await t.settle();
  const cancelled = t.clock.now().getTime();
  await run.cancel();
  await t.clock.advance("1m");

  const [closed] = await run.history({ types: ["execution.closed"] });
  expect(Number(closed?.at) - cancelled).toBe(10_000);
});

test("what is being cleaned up has no timeout any more but cancelGrace", async () => {
  const flow = defineFlow("cleaned.longer").to("sleep", (ctx) => ctx.sleep("30d"), {
    onCancel: (ctx) => ctx.sleep("45m"),
  });
  await using t = await kit({ flows: [flow], worker: { cancelGrace: "2h" } });
  const run = await t.start(flow, null, { timeout: "1h" });
  await t.clock.advance("30m");
  await run.cancel();
  await t.clock.advance("1h");

  await expect(run.until("closed")).rejects.toThrow(/cancelled/);
  expect(await run.history({ types: ["cleanup.completed"] })).toHaveLength(1);
});

test("what waits hears of the cancel also while another chunk has the only slot", async () => {
  const [heard, busy] = [newGate(), newGate()];
  const flow = defineFlow("cancelHeard");
  flow.to("nap", (ctx) =>
    ctx.sleep("30d").catch((error: unknown) => {
      heard.open();
      throw error;
    }),
  );
  flow.to("work", async () => {
    busy.open();
    await heard.passed;
  });
  await using orchestrator = await serving(database, [flow], {}, patient);
  const execution = await orchestrator.flow(flow).startExecution(null, { concurrency: 1 });
  await busy.passed;

  await execution.cancel();

  await heard.passed;
  expect(await refusal(execution.waitForClose())).toMatchObject({ code: "EXECUTION_CANCELLED" });
});

test("nothing is cleaned up where nothing had begun, failed by itself, or was closed", async () => {
  const flow = defineFlow("notCleaned");
  const cleaned: string[] = [];
  flow.to("go", (ctx) => (ctx.input === "fail" ? Promise.reject(new Error("no")) : 1), {
    onCancel: () => void cleaned.push("go"),
  });
  flow.onCancel(() => void cleaned.push("flow"));
  await using orchestrator = await serving(database, [flow], {}, patient);
  const delayed = await orchestrator.flow(flow).startExecution(null, { delay: "1d" });
  await delayed.cancel();
  const failed = await orchestrator.flow(flow).startExecution("fail");
  const closed = await orchestrator.flow(flow).startExecution();

  await Promise.all([refusal(delayed.waitForClose()), refusal(failed.waitForClose()), closed.close()]);

  expect(cleaned).toEqual([]);
});

test("sub-flows and items clean up after themselves", async () => {
  const inner = defineFlow("cleanedInner");
  const cleaned: string[] = [];
  inner.to("nap", (ctx) => ctx.sleep("30d"), { onCancel: () => void cleaned.push("inner chunk") });
  inner.onCancel(() => void cleaned.push("inner flow"));
  const flow = defineFlow("cleanedOuter");
  flow.toSubFlow(inner);
  flow
    .to("two", () => [1, 2])
    .forEach({ distribute: true })
    .to("nap", (ctx) => ctx.sleep("30d"), { onCancel: (ctx) => void cleaned.push(`item ${ctx.input}`) })
    .endForEach();
  flow.onCancel(() => void cleaned.push("outer flow"));
  await using orchestrator = await serving(database, [flow, inner], {}, patient);
  const execution = await orchestrator.flow(flow).startExecution();
  const open = () => sql`
    select from flowledger.executions e join flowledger.ledger l on l.execution_id = e.id and l.type = 'sleep.started'
    where e.parent_id = ${execution.id}::uuid and e.closed_at is null`;
  await expect.poll(async () => (await open()).length, { timeout: 5000 }).toBe(3);

  await execution.cancel();
  await refusal(execution.waitForClose());
  await expect.poll(async () => (await open()).length, { timeout: 5000 }).toBe(0);

  expect(cleaned.toSorted()).toEqual(["inner chunk", "inner flow", "item 1", "item 2", "outer flow"]);
});

test("it survives a crash at every commit, its steps once", async () => {
  const flow = defineFlow("cleanedCrashing");
  flow.to("nap", (ctx) => ctx.sleep("30d"), {
    onCancel: async (ctx) => {
      await ctx.step("undo", () => 1);
      await ctx.appendState("undone", 1);
    },
  });
  flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask" }));
  flow.onCancel(async (ctx) => {
    await ctx.step("tell", () => 1);
    await ctx.setState("told", true);
  });
  await using t = await kit({ flows: [flow] });

  const boundaries = await t.crashEverywhere(flow, null, async (run, { effects }) => {
    await run.until({ waiting: "ask" });
    await run.cancel("enough");
    await run.until("idle");
    expect(await run.result.getMeta()).toMatchObject({ status: "cancelled", closeReason: "enough" });
    const cleanups = await run.history({ types: ["cleanup.planned", "cleanup.completed", "cleanup.failed"] });
    expect(cleanups).toMatchObject([
      { runs: [{ chunk: "nap" }, {}] },
      { type: "cleanup.completed" },
      { type: "cleanup.completed" },
    ]);
    expect(await run.result.getState()).toEqual({ undone: [1], told: true });
    expect([effects("undo"), effects("tell")]).toEqual([1, 1]);
  });

  expect(boundaries.join("\n")).toContain("cleanup.planned");
});

test("a blueprint names them, and a definition refuses what cannot be meant", () => {
  const flow = defineFlow("cleanedBlueprint");
  const undo = () => null;
  flow.to("a", () => 1, { onCancel: undo });
  flow.onCancel(undo).onCancel(undo);
  const json = flow.toBlueprint();

  expect(() => Flow.fromBlueprint(json, { a: () => 1, onCancel: undo })).toThrow('"a.onCancel" is missing');
  const again = Flow.fromBlueprint(json, { a: () => 1, "a.onCancel": undo, onCancel: undo });
  expect(again.toBlueprint()).toEqual(json);
  expect(again.fingerprint).toBe(flow.fingerprint);
  expect(() => flow.onCancel(() => null)).toThrow(DefinitionError);
  expect(() => defineFlow("x").to("a", () => 1, JSON.parse('{ "onCancel": "undo" }'))).toThrow(
    /onCancel of chunk "a" is "undo"/,
  );
});

test("what a chunk wrote that had returned when the cancel came is in the close snapshot", async () => {
  const [asked, gate] = [newGate(), newGate()];
  const flow = defineFlow("cleaned.saved").to("work", async (ctx) => {
    await ctx.putIntoStream("item");
    await ctx.setState("saved", true);
  });
  await using orchestrator = await serving(database, [flow], {}, patient);
  const { streams } = await orchestrator[internals].store();
  const put = streams.put.bind(streams);
  const late: typeof put = async (loads) => {
    asked.open();
    await gate.passed;
    return put(loads);
  };
  Object.assign(streams, { put: late });
  const execution = await orchestrator.flow(flow).startExecution(null);
  await asked.passed;

  await execution.cancel();
  await untilEvent(execution, "cancel.requested");
  gate.open();
  await untilEvent(execution, "execution.closed");

  expect(await execution.result.getState()).toEqual({ saved: true });
});
