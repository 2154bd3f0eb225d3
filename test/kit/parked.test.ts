/** What parks and is retried survives a crash at each of its commits. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import { untilEvent } from "../support/flows.ts";
import { kit } from "../support/kit.ts";

const by = { actor: "ann", reason: "mended" };

const order = defineFlow("parked.order", {}, { onFailure: "park" });
order
  .to("charge", (ctx) => ctx.step("bank", () => "charged"))
  .to("ship", async (ctx) => {
    await ctx.appendState("notes", await ctx.step("label", () => "labelled"));
    if (ctx.input !== "mended") throw new Error("no carrier");
  })
  .to("mail", (ctx) => ctx.appendState("notes", "mailed"));

test("park and retry survive a crash before, in and after each commit: every effect is there once", async () => {
  await using t = await kit({ flows: [order] });
  const ends = new Set<string>();

  const boundaries = await t.crashEverywhere(order, null, async (run, { effects }) => {
    await untilEvent(run, "chunk.parked");
    await run.retry({ ...by, input: "mended" });
    ends.add(JSON.stringify(await run.until("closed")));
    expect(["charge", "bank", "ship", "label", "mail"].map(effects)).toEqual([1, 1, 1, 1, 1]);
    expect(await run.history({ types: ["chunk.parked", "chunk.retried"] })).toMatchObject([
      { type: "chunk.parked", attempt: 1 },
      { type: "chunk.retried", ...by },
    ]);
  });

  expect([...ends]).toEqual(['{"notes":["labelled","mailed"]}']);
  expect(boundaries.join("\n")).toMatch(/chunk\.parked/);
  expect(await t.orchestrator.verify()).toEqual([]);
}, 120_000);

test("an item that parks in one branch holds its place in the collection while another of its branches is under way", async () => {
  const flow = defineFlow("parked.busy", {}, { onFailure: "park" });
  flow
    .to("items", () => [1, 2])
    .forEach({ concurrency: 1 })
    .batch({
      bad: () => Promise.reject(new Error("no")),
      slow: (ctx) => ctx.sleep("1h"),
    })
    .endForEach();
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { autoClose: false });
  await t.clock.advance("30m");
  expect([t.calls("bad"), t.calls("slow")]).toEqual([1, 1]);
  await t.clock.advance("31m");
  expect(t.calls("bad")).toBe(2);
  await run.cancel("enough");
});

test("a race that is over does not park for its loser while a condition is asked", async () => {
  const slowly = async () => {
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    return true;
  };
  const flow = defineFlow("parked.race");
  flow
    .to("race", (ctx) => Promise.race([ctx.sleep("1h"), ctx.step("fast", () => 1)]))
    .ifCondition(slowly)
    .to("then", () => "won")
    .endCondition()
    .end();
  await using t = await kit({ flows: [flow] });
  const begun = t.clock.now();

  const run = await t.start(flow, null, { autoCloseTimeout: 0 });
  await run.until("closed");

  expect(await run.result.getFinalResult()).toBe("won");
  expect(t.clock.now()).toEqual(begun);
});

test("a parent that does nothing but wait for a sub-flow is given back after a second, and not when somebody looks", async () => {
  const child = defineFlow("parked.child").to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
  const parent = defineFlow("parked.parent").to("call", (ctx) => ctx.call(child, null));
  await using t = await kit({ flows: [parent, child] });
  const owned = () => [...t.orchestrator[internals].workers].reduce((sum, worker) => sum + worker.owned, 0);
  const run = await t.start(parent, null);
  await t.settle();
  expect(owned()).toBe(1);

  await t.clock.advance("1s");

  expect(owned()).toBe(0);
  await run.cancel();
});

test("the attempts of a step are counted over its far waits, in which nobody has the execution", async () => {
  const flow = defineFlow("parked.step").to("pay", (ctx) =>
    ctx.step("bank", () => Promise.reject(new Error("closed")), { retry: { waits: ["10m", "20m"] } }),
  );
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });

  await t.clock.advance("2h");

  const failures = await run.history({ types: ["step.failed", "execution.closed"] });
  expect(failures.map((event) => ("attempt" in event ? event.attempt : event.type))).toEqual([
    1,
    2,
    3,
    "execution.closed",
  ]);
});
