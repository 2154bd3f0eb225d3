/** Ways through a flow: match, if, else. */
import { setImmediate } from "node:timers/promises";
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, serving } from "../support/flows.ts";

const database = await testDatabase();

test("TF-PAT-10: the first case that hits runs with the original input, and its value goes on", async () => {
  const flow = defineFlow("first", { input: z.number() });
  flow
    .match()
    .case(1)
    .to("one", (ctx) => `one ${ctx.input}`)
    .case((ctx) => ctx.input > 1)
    .to("more", (ctx) => `more ${ctx.input}`)
    .case((ctx) => ctx.input > 2)
    .to("never", () => "never")
    .caseElse()
    .to("less", () => "less")
    .endMatch()
    .to("keep", (ctx) => ctx.setState("took", ctx.input));
  await using orchestrator = await serving(database, [flow]);

  const took = await Promise.all([1, 3, 0].map((n) => orchestrator.flow(flow).start(n)));

  expect(took).toEqual([{ took: "one 1" }, { took: "more 3" }, { took: "less" }]);
});

test("TF-PAT-11: a value case matches by deep equality", async () => {
  const flow = defineFlow("equal");
  flow
    .match()
    .case({ a: [1, { b: null }] })
    .to("hit", () => "hit")
    .caseElse()
    .to("miss", () => "miss")
    .endMatch()
    .end();
  await using orchestrator = await serving(database, [flow]);

  const snapshots = await Promise.all(
    [{ a: [1, { b: null }] }, { a: [1, {}] }, "hit"].map((input) => orchestrator.flow(flow).start(input)),
  );

  expect(snapshots.map(({ $final_result }) => $final_result)).toEqual(["hit", "miss", "miss"]);
});

test.each([1, "yes", {}, null, undefined])(
  "TF-PAT-11: a condition that gives %j misses, only true counts",
  async (says) => {
    const flow = defineFlow("strict");
    flow
      .ifCondition(() => says as unknown as boolean)
      .to("then", () => "then")
      .elseCondition()
      .to("else", () => "else")
      .endCondition()
      .end();
    await using orchestrator = await serving(database, [flow]);

    expect(await orchestrator.flow(flow).start()).toEqual({ $final_result: "else" });
  },
);

test("TF-PAT-11: an async condition is awaited, and reads state and resources", async () => {
  const flow = defineFlow("asynchronous");
  flow
    .to("write", (ctx) => ctx.setState("limit", 10))
    .ifCondition(
      async (ctx) => (await ctx.requireResource<() => Promise<number>>("read")()) > Number(ctx.getState("limit")),
    )
    .to("then", () => "then")
    .elseCondition()
    .to("else", () => "else")
    .endCondition()
    .end();
  await using orchestrator = await serving(database, [flow]);
  orchestrator.flow(flow).updateRuntimeResources({ read: async () => 11 });

  expect(await orchestrator.flow(flow).start()).toMatchObject({ $final_result: "then" });
});

test("TF-PAT-12: without a hit and without an else the input passes through unchanged", async () => {
  const flow = defineFlow("through");
  flow
    .match()
    .case("other")
    .to("other", () => "other")
    .endMatch()
    .end();
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start({ as: "it was" })).toEqual({ $final_result: { as: "it was" } });
});

test("TF-PAT-13: mode all runs every case that hits and hands on a list in case order", async () => {
  const flow = defineFlow("all", { input: z.number() });
  flow
    .match({ mode: "all" })
    .case((ctx) => ctx.input > 0)
    .to("slow", async (ctx) => ctx.step("slow", () => "positive"))
    .case((ctx) => ctx.input < 0)
    .to("negative", () => "negative")
    .case((ctx) => ctx.input % 2 === 0)
    .to("fast", () => "even")
    .endMatch()
    .end();
  await using orchestrator = await serving(database, [flow]);

  const results = await Promise.all([2, -1, 1, 0].map((n) => orchestrator.flow(flow).start(n)));

  expect(results.map(({ $final_result }) => $final_result)).toEqual([
    ["positive", "even"],
    ["negative"],
    ["positive"],
    ["even"],
  ]);
});

test("TF-PAT-13: mode all without a hit takes the else, or passes the input through", async () => {
  const withElse = defineFlow("all.else");
  withElse
    .match({ mode: "all" })
    .case(1)
    .to("one", () => 1)
    .caseElse()
    .to("none", () => "none")
    .endMatch()
    .end();
  const without = defineFlow("all.through");
  without
    .match({ mode: "all" })
    .case(1)
    .to("one", () => 1)
    .endMatch()
    .end();
  await using orchestrator = await serving(database, [withElse, without]);

  const results = [await orchestrator.flow(withElse).start(2), await orchestrator.flow(without).start(2)];

  expect(results).toEqual([{ $final_result: "none" }, { $final_result: 2 }]);
});

test("TF-PAT-14: if, elif and else take one way each, nested ones too", async () => {
  const flow = defineFlow("nested", { input: z.number() });
  flow
    .ifCondition((ctx) => ctx.input >= 10)
    .ifCondition((ctx) => ctx.input >= 100)
    .to("hundreds", () => "hundreds")
    .elseCondition()
    .to("tens", () => "tens")
    .endCondition()
    .elifCondition((ctx) => ctx.input >= 1)
    .to("ones", () => "ones")
    .elseCondition()
    .to("none", () => "none")
    .endCondition()
    .end();
  await using orchestrator = await serving(database, [flow]);

  const results = await Promise.all([123, 12, 1, 0].map((n) => orchestrator.flow(flow).start(n)));

  expect(results.map(({ $final_result }) => $final_result)).toEqual(["hundreds", "tens", "ones", "none"]);
});

test("a condition that throws fails the execution with its own error", async () => {
  const flow = defineFlow("throwing");
  flow
    .to("first", () => 1)
    .ifCondition(() => {
      throw new RangeError("no such limit");
    })
    .to("then", () => 1)
    .endCondition();
  await using orchestrator = await serving(database, [flow]);

  const error = await refusal(orchestrator.flow(flow).start());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { name: "RangeError", message: "no such limit" } });
});

test("a condition at the very start that throws fails the execution, and is asked once", async () => {
  let asked = 0;
  const flow = defineFlow("throwing.root");
  flow
    .ifCondition(async () => {
      // Lets go of the thread, and in the end of a loop that asks on and on.
      await setImmediate();
      if (++asked <= 3) throw new RangeError("no such limit");
      return false;
    })
    .to("then", () => 1)
    .endCondition();
  await using orchestrator = await serving(database, [flow]);

  const error = await refusal(orchestrator.flow(flow).start());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { name: "RangeError" } });
  expect(asked).toBe(1);
});
