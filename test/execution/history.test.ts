/** The past of an execution: state at a point, forks, and saves that go on elsewhere. */
import { expect, test } from "vitest";
import { defineFlow, UsageError } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { serving, untilEvent } from "../support/flows.ts";

const database = await testDatabase();
const elsewhere = await testDatabase();

const flow = defineFlow("history")
  .to("first", async (ctx) => {
    await ctx.setState("n", 1);
    await ctx.flush();
    await ctx.setState("n", 2);
  })
  .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }))
  .to("last", async (ctx) => {
    await ctx.setState("answer", ctx.input);
  });

test("stateAt reads the state as it was after each event, and refuses what was never there", async () => {
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow("history").startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "interrupt.raised");

  const writes = await execution.history({ types: ["state.set"] });

  const states = await Promise.all(writes.map(({ seq }) => execution.stateAt(seq)));
  expect(states).toEqual([{ n: 1 }, { n: 2 }]);
  await expect(execution.stateAt(10_000)).rejects.toBeInstanceOf(UsageError);
});

test("a fork goes on from a point in the past, and the source stays as it is", async () => {
  await using orchestrator = await serving(database, [flow]);
  const source = await orchestrator.flow("history").startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(source, "interrupt.raised");
  const [raised] = await source.history({ types: ["interrupt.raised"] });
  await source.continueWith("q", "yes");
  await source.waitForClose();

  const fork = await source.fork({ at: raised?.seq ?? 0 });
  await fork.continueWith("q", "no");

  expect(await fork.waitForClose()).toEqual({ n: 2, answer: "no" });
  expect(await source.result.getState()).toEqual({ n: 2, answer: "yes" });
});

test("TF-PER-02: a saved execution that waits goes on in another database, under a new id", async () => {
  await using here = await serving(database, [flow]);
  await using there = await serving(elsewhere, [flow]);
  const execution = await here.flow("history").startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "interrupt.raised");

  const saved: unknown = JSON.parse(JSON.stringify(await execution.save()));
  const loaded = await there.load(saved);
  await loaded.continueWith("q", "there");

  expect(loaded.id).not.toBe(execution.id);
  expect(await loaded.waitForClose()).toEqual({ n: 2, answer: "there" });
});

test("TF-PER-03: a save that was changed is refused, and inspectLoad says why without touching anything", async () => {
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow("history").startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "interrupt.raised");
  const saved = await execution.save();

  const tampered = { ...saved, state: { n: 3 } };

  await expect(orchestrator.load(tampered)).rejects.toBeInstanceOf(UsageError);
  expect(orchestrator.inspectLoad(tampered)).toMatchObject({ isReady: false, status: "invalid_snapshot" });
  expect(orchestrator.inspectLoad(saved)).toMatchObject({ isReady: true, status: "ready" });
});
