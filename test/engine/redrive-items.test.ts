/** A redrive keeps the items of distributed collections that completed, and lets those that did not go on. */
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import { rebuild } from "../../src/store/rebuild.ts";
import { verify } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, refusal, serving, untilEvent } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
const by = { actor: "ann", reason: "INC-12" };
const atOnce = { autoCloseTimeout: 0 } as const;

/** Until all that were told to stop have. */
async function untilAllClosed(): Promise<void> {
  await expect.poll(() => sql`select id from flowledger.executions where closed_at is null`).toEqual([]);
}

async function expectAllSound(): Promise<void> {
  await untilAllClosed();
  expect(await verify(sql)).toEqual([]);
  expect(await rebuild(sql)).toEqual([]);
}

async function snapshotOf(execution: { waitForClose(): Promise<unknown> }): Promise<unknown> {
  return execution.waitForClose().catch((error: unknown) => String(error));
}

test("items that completed are not run again, also what nobody had recorded of them; those that failed go on from their steps", async () => {
  const effects: string[] = [];
  let isBroken = true;
  const others = newGate();
  const flow = defineFlow("redriveItems.plain", { state: z.object({ log: z.array(z.string()).optional() }) });
  flow
    .to("make", async (ctx) => (await ctx.appendState("log", "made"), ["a", "b", "c", "d"]))
    .forEach({ distribute: true })
    .to("first", async (ctx) => {
      await ctx.step("charge", () => void effects.push(`charge ${ctx.input}`));
      if (ctx.input === "b" && isBroken) {
        await others.passed;
        throw new Error("down");
      }
      await ctx.appendState("log", ctx.input);
      return `${ctx.input}!`;
    })
    .endForEach()
    .to("keep", (ctx) => ctx.input)
    .end();
  await using orchestrator = await serving(database, [flow]);
  const failed = await orchestrator.flow(flow).startExecution(null, atOnce);
  const completed = () =>
    sql`select id from flowledger.executions where parent_id = ${failed.id} and outcome = 'completed'`;
  await expect.poll(async () => (await completed()).length).toBe(3);
  others.open();
  await refusal(failed.waitForClose());
  await untilAllClosed();

  expect(await snapshotOf(await failed.redrive(by))).toMatch(/down/);
  await untilAllClosed();
  const [again] = await failed.redrivenBy();
  isBroken = false;
  const next = await (await orchestrator.getExecution(again ?? "")).redrive(by);

  expect(await next.waitForClose()).toEqual({
    log: ["made", "a", "b", "c", "d"],
    $final_result: ["a!", "b!", "c!", "d!"],
  });
  expect(effects.toSorted()).toEqual(["charge a", "charge b", "charge c", "charge d"]);
  await expectAllSound();
});

test("siblings that were told to stop go on too, and what had not begun begins", async () => {
  const runs: string[] = [];
  let isBroken = true;
  const flow = defineFlow("redriveItems.siblings");
  const [bothRun, goesOn] = [newGate(), newGate()];
  flow
    .to("make", () => [0, 1, 2, 3])
    .forEach({ distribute: true, concurrency: 2 })
    .to("each", async (ctx) => {
      runs.push(`each ${ctx.input}`);
      if (ctx.input === 1) bothRun.open();
      if (!isBroken) return ctx.input;
      await bothRun.passed;
      if (ctx.input === 0) throw new Error("down");
      await Promise.race([goesOn.passed, new Promise((resolve) => ctx.signal.addEventListener("abort", resolve))]);
      return ctx.input;
    })
    .endForEach()
    .end();
  await using orchestrator = await serving(database, [flow]);
  const failed = await orchestrator.flow(flow).startExecution(null, atOnce);
  await refusal(failed.waitForClose());
  await untilAllClosed();
  isBroken = false;

  const next = await failed.redrive(by);

  expect(await next.waitForClose()).toEqual({ $final_result: [0, 1, 2, 3] });
  expect(runs.toSorted()).toEqual(["each 0", "each 0", "each 1", "each 1", "each 2", "each 3"]);
  await expectAllSound();
});

test("items of items, sub-flows that distribute, and items that call sub-flows: what failed is redriven, deepest first", async () => {
  const runs: string[] = [];
  let isBroken = true;
  const leaf = defineFlow("redriveItems.leaf");
  leaf
    .to("before", (ctx) => (runs.push(`before ${String(ctx.input)}`), ctx.input))
    .to("work", (ctx) => {
      if (ctx.input === 2 && isBroken) throw new Error("down");
      runs.push(`work ${String(ctx.input)}`);
      return ctx.input;
    })
    .end();
  const middle = defineFlow("redriveItems.middle");
  middle
    .to("make", () => [[1], [2, 3]])
    .forEach({ distribute: true })
    .forEach({ distribute: true, concurrency: 1 })
    .to("call", (ctx) => ctx.call(leaf, ctx.input as number))
    .endForEach()
    .endForEach()
    .end();
  const top = defineFlow("redriveItems.top");
  top.to("call", (ctx) => ctx.call(middle, null)).end();
  await using orchestrator = await serving(database, [leaf, middle, top]);
  const failed = await orchestrator.flow(top).startExecution(null, atOnce);
  await refusal(failed.waitForClose());
  await untilAllClosed();
  isBroken = false;

  const next = await failed.redrive(by);

  expect(await next.waitForClose()).toEqual({ $final_result: [[1], [2, 3]] });
  expect(runs.filter((run) => run.endsWith("2"))).toEqual(["before 2", "work 2"]);
  expect(runs.filter((run) => run.endsWith("3"))).toEqual(["before 3", "work 3"]);
  await expectAllSound();
});

test("a batch whose branches are items; an input or output is refused, and so is a redrive while an item has not closed", async () => {
  let isBroken = true;
  const gate = newGate();
  const flow = defineFlow("redriveItems.batch");
  flow
    .batch(
      {
        one: () => {
          if (isBroken) throw new Error("down");
          return 1;
        },
        two: async () => (await gate.passed, 2),
      },
      { distribute: true },
    )
    .end();
  await using orchestrator = await serving(database, [flow], {}, { cancelGrace: "60s" });
  const failed = await orchestrator.flow(flow).startExecution(null, atOnce);
  await refusal(failed.waitForClose());

  expect(await refusal(failed.redrive(by))).toMatchObject({
    code: "USAGE_INVALID",
    message: expect.stringMatching(/has items that have not closed, such as execution .*cancel/),
  });
  gate.open();
  await untilAllClosed();
  for (const given of [{ input: 1 }, { output: 1 }]) {
    expect(await refusal(failed.redrive({ ...by, ...given }))).toMatchObject({
      code: "USAGE_INVALID",
      message: expect.stringContaining("items"),
    });
  }
  isBroken = false;
  const next = await failed.redrive(by);

  expect(await next.waitForClose()).toEqual({ $final_result: { one: 1, two: 2 } });
  await expectAllSound();
});

test("what is itself a fork, or was loaded, is redriven like any other, with what it called before it was copied", async () => {
  const runs: string[] = [];
  let isBroken = true;
  const gate = newGate();
  const child = defineFlow("redriveItems.child");
  child
    .to("step", () => void runs.push("child"))
    .to("work", () => {
      if (isBroken) throw new Error("down");
      return "child";
    })
    .end();
  const flow = defineFlow("redriveItems.forked");
  flow
    .to("make", () => (runs.push("make"), ["a"]))
    .forEach({ distribute: true })
    .to("each", (ctx) => (runs.push("each"), ctx.input))
    .endForEach()
    .to("call", async (ctx) => {
      await ctx.step("charge", () => void runs.push("charge"));
      await ctx.flush();
      await gate.passed;
      return ctx.call(child, null);
    })
    .end();
  await using orchestrator = await serving(database, [flow, child]);
  const source = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(source, "step.completed");
  const saved = await source.save();
  const copies = [await source.fork({ at: (await source.history()).length }), await orchestrator.load(saved)];
  gate.open();
  for (const execution of [source, ...copies]) await refusal(execution.waitForClose());
  isBroken = false;

  for (const copy of copies) {
    const next = await copy.redrive(by);
    expect(await next.waitForClose()).toEqual({ $final_result: "child" });
    expect(await copy.redrivenBy()).toEqual([next.id]);
    expect(await next.result.getMeta()).toMatchObject({ forkedFrom: copy.id });
    // And once more: a copy of a copy.
    const end = await next.redrive({ ...by, from: { chunk: "call" } });
    expect(await end.waitForClose()).toEqual({ $final_result: "child" });
  }

  // The first run, and one for each redrive that asked for the whole chunk.
  const times = (name: string) => runs.filter((run) => run === name).length;
  expect(["make", "each", "charge", "child"].map(times)).toEqual([1, 1, 3, 5]);
  await expectAllSound();
});
