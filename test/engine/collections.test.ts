/** Side by side: batch, forEach, how many at once, and what a failing branch does to the others. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { Crowd, newGate, refusal, serving, untilEvent } from "../support/flows.ts";

const database = await testDatabase();

test("TF-PAT-02: every branch of a batch gets the same input, and the next chunk all results by name", async () => {
  const flow = defineFlow("batch", { input: z.number() });
  const gate = newGate();
  flow
    .batch({
      slow: async (ctx) => (await gate.passed, ctx.input + 1),
      fast: (ctx) => (gate.open(), ctx.input + 2),
      nothing: () => {},
    })
    .to("keep", (ctx) => ctx.setState("got", [Object.keys(ctx.input), ctx.input]));
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start(1);

  expect(snapshot).toEqual({ got: [["slow", "fast", "nothing"], { slow: 2, fast: 3, nothing: null }] });
});

test("TF-PAT-03: a batch runs at most as many branches at once as it may", async () => {
  const crowd = new Crowd();
  const branch = () => crowd.during(() => sleep(10));
  const flow = defineFlow("batchLimit");
  flow.batch({ a: branch, b: () => branch(), c: () => branch(), d: () => branch() }, { concurrency: 2 });
  await using orchestrator = await serving(database, [flow]);

  await orchestrator.flow(flow).start();

  expect(crowd.most).toBe(2);
});

test("an item whose body begins with two chunks has one place for both, and the next item comes whole", async () => {
  const aside: unknown[] = [];
  const flow = defineFlow("twoEntries");
  const items = flow.to("make", () => [1, 2, 3]).forEach({ concurrency: 1 });
  items.to("aside", (ctx) => void aside.push(ctx.input));
  items
    .to("main", (ctx) => Number(ctx.input) * 2)
    .endForEach()
    .end();
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start()).toEqual({ $final_result: [2, 4, 6] });
  expect(new Set(aside)).toEqual(new Set([1, 2, 3]));
});

test("TF-PAT-04: two passes through one batch collect only their own results", async () => {
  const flow = defineFlow("passes");
  flow
    .when("Go")
    .batch({ a: (ctx) => `a${String(ctx.input)}`, b: (ctx) => ctx.step("wait", () => `b${String(ctx.input)}`) })
    .to("keep", (ctx) => ctx.appendState("got", ctx.input));
  flow.to("root", async (ctx) => {
    ctx.emitNoWait("Go", 1);
    ctx.emitNoWait("Go", 2);
  });
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot["got"]).toHaveLength(2);
  expect(snapshot["got"]).toEqual(
    expect.arrayContaining([
      { a: "a1", b: "b1" },
      { a: "a2", b: "b2" },
    ]),
  );
});

test("TF-PAT-05: forEach gives the results in the order of the items, whichever ends first", async () => {
  const gates = [newGate(), newGate(), newGate()];
  const flow = defineFlow("order");
  flow
    .to("make", () => [0, 1, 2])
    .forEach()
    .to("wait", async (ctx) => {
      // The last opens the one before it, down to the first.
      if (ctx.input < 2) await gates[ctx.input + 1]?.passed;
      gates[ctx.input]?.open();
      await ctx.appendState("ended", ctx.input);
      return ctx.input * 10;
    })
    .to("text", (ctx) => String(ctx.input))
    .endForEach()
    .to("keep", (ctx) => ctx.setState("got", ctx.input));
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start(null, { timeout: "5s" });

  expect(snapshot["got"]).toEqual(["0", "10", "20"]);
  expect((snapshot["ended"] as number[]).toSorted((a, b) => a - b)).toEqual([0, 1, 2]);
});

test("TF-PAT-06: an empty list goes on as an empty list, and the body never runs", async () => {
  let runs = 0;
  const flow = defineFlow("emptyList");
  flow
    .to("make", (): number[] => [])
    .forEach()
    .to("each", () => (runs += 1))
    .endForEach()
    .to("keep", (ctx) => ctx.setState("got", ctx.input));
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start()).toEqual({ got: [] });
  expect(runs).toBe(0);
});

test("TF-PAT-06: an empty list inside a list keeps its place", async () => {
  const flow = defineFlow("emptyInside");
  flow
    .to("make", () => [[1], [], [2, 3]])
    .forEach()
    .forEach()
    .to("each", (ctx) => ctx.input * 10)
    .endForEach()
    .endForEach()
    .to("keep", (ctx) => ctx.setState("got", ctx.input));
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start()).toEqual({ got: [[10], [], [20, 30]] });
});

test.each(["text", { a: 1 }, 7, null])("TF-PAT-07: %j is one item", async (input) => {
  const flow = defineFlow("oneItem");
  flow
    .forEach()
    .to("each", (ctx) => ctx.input)
    .endForEach()
    .end();
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start(input)).toEqual({ $final_result: [input] });
});

test("TF-PAT-08: forEach has at most as many items under way as it may, to the end of their bodies", async () => {
  const crowd = new Crowd();
  const gates = new Map<number, ReturnType<typeof newGate>>();
  const flow = defineFlow("itemLimit");
  flow
    .to("make", () => Array.from({ length: 9 }, (_, index) => index))
    .forEach({ concurrency: 3 })
    .to("begin", (ctx) => {
      const gate = newGate();
      gates.set(ctx.input, gate);
      void crowd.during(() => gate.passed);
      return ctx.input;
    })
    .to("end", async (ctx) => {
      await sleep(5);
      gates.get(ctx.input)?.open();
      return ctx.input;
    })
    .endForEach()
    .end();
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start()).toEqual({ $final_result: [0, 1, 2, 3, 4, 5, 6, 7, 8] });
  expect(crowd.most).toBe(3);
});

test("TF-PAT-05: a body with ways of its own gives one result per item", async () => {
  const flow = defineFlow("ways");
  flow
    .to("make", () => [1, 2, 3, 4])
    .forEach()
    .ifCondition((ctx) => ctx.input % 2 === 0)
    .to("even", (ctx) => `even ${ctx.input}`)
    .endCondition()
    .batch({ same: (ctx) => ctx.input, type: (ctx) => typeof ctx.input })
    .endForEach()
    .end();
  await using orchestrator = await serving(database, [flow]);

  const { $final_result } = await orchestrator.flow(flow).start();

  expect($final_result).toEqual([
    { same: 1, type: "number" },
    { same: "even 2", type: "string" },
    { same: 3, type: "number" },
    { same: "even 4", type: "string" },
  ]);
});

test("a list of a thousand items is collected whole", async () => {
  const flow = defineFlow("thousand");
  flow
    .to("make", () => Array.from({ length: 1000 }, (_, index) => index))
    .forEach()
    .to("each", (ctx) => ctx.input + 1)
    .endForEach()
    .to("sum", (ctx) =>
      ctx.setState(
        "sum",
        ctx.input.reduce((sum, n) => sum + n, 0),
      ),
    );
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start()).toEqual({ sum: 500_500 });
});

test("TF-EVT-12: concurrency limits the chunks of an execution across branches, and 1 does not deadlock", async () => {
  for (const limit of [1, 3]) {
    const crowd = new Crowd();
    const flow = defineFlow(`limit${limit}`);
    flow
      .to("make", () => [1, 2, 3, 4, 5])
      .forEach()
      .batch({ a: () => crowd.during(() => sleep(3)), b: () => crowd.during(() => sleep(3)) })
      .endForEach();
    await using orchestrator = await serving(database, [flow]);

    await orchestrator.flow(flow).start(null, { concurrency: limit, timeout: "8s" });

    expect(crowd.most).toBe(limit);
  }
});

test("TF-EVT-12: a chunk that waited for its emit takes its place again before it goes on", async () => {
  const crowd = new Crowd();
  const flow = defineFlow("places");
  flow.when("Work").to("work", () => crowd.during(() => sleep(5)));
  for (const name of ["a", "b", "c"])
    flow.to(name, async (ctx) => {
      await crowd.during(() => sleep(5));
      await ctx.emit("Work", null, { wait: true });
      await crowd.during(() => sleep(20));
    });
  await using orchestrator = await serving(database, [flow]);

  await orchestrator.flow(flow).start(null, { concurrency: 1, timeout: "8s" });

  expect(crowd.most).toBe(1);
});

test("TF-PAT-09: a branch that throws fails the execution, its siblings are told to stop, nothing partial goes on", async () => {
  const begun = newGate();
  const stopped = newGate();
  let after = 0;
  const flow = defineFlow("branchFails");
  flow
    .batch({
      slow: (ctx) => {
        ctx.signal.addEventListener("abort", () => stopped.open());
        begun.open();
        return new Promise<void>(() => {});
      },
      bad: async () => {
        await begun.passed;
        throw new TypeError("bad branch");
      },
    })
    .to("after", () => (after += 1));
  await using orchestrator = await serving(database, [flow]);

  const error = await refusal(orchestrator.flow(flow).start());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { name: "TypeError", message: "bad branch" } });
  await stopped.passed;
  expect(after).toBe(0);
});

test("TF-PAT-09: an item that throws fails the execution, and what was committed stays readable", async () => {
  const flow = defineFlow("itemFails");
  flow
    .to("make", () => [1, 2, 3])
    .forEach({ concurrency: 1 })
    .to("each", async (ctx) => {
      await ctx.appendState("seen", ctx.input);
      if (ctx.input === 2) throw new Error("item 2");
    })
    .endForEach()
    .to("after", (ctx) => ctx.setState("after", true));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution();

  const error = await refusal(execution.waitForClose());

  expect(String(error)).toContain("item 2");
  expect(await execution.result.getState()).toEqual({ seen: [1] });
  expect(await untilEvent(execution, "chunk.failed")).toMatchObject({ chunk: "each", attempt: 1 });
});
