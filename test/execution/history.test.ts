/** The past of an execution: state at a point, forks, and saves that go on elsewhere. */
import { expect, test } from "vitest";
import { defineFlow, UsageError } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { serving, untilEvent, visiting } from "../support/flows.ts";

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

test("TF-PER-01, TF-PER-02, TF-PER-04, LI-HIT-08: a saved execution that waits goes on in another database, under a new id", async () => {
  await using here = await serving(database, [flow]);
  await using there = await serving(elsewhere, [flow]);
  const execution = await here.flow("history").startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "interrupt.raised");

  const saved: unknown = JSON.parse(JSON.stringify(await execution.save()));
  const loaded = await there.load(saved);
  await loaded.continueWith("q", "there");

  expect(saved).toMatchObject({
    kind: "flowledger.execution",
    executionId: execution.id,
    pendingInterrupts: [{ id: "q" }],
  });
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

test("TF-PER-03, TF-PER-05, TF-PER-09: bad saves are refused one by one, as object or as text, and leave nothing", async () => {
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow("history").startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "interrupt.raised");
  const saved = await execution.save();
  const text = JSON.stringify(saved);
  const count = async () =>
    (await database.sql<{ count: number }[]>`select count(*)::int as count from flowledger.executions`)[0]?.count;
  const before = await count();

  const bad: unknown[] = [
    text.slice(0, -20),
    { ...saved, version: 0 },
    { ...saved, kind: "other" },
    { ...saved, events: [] },
    { ...saved, events: saved.events.slice(0, -1) },
    { ...saved, fingerprint: "another" },
    { hello: "world" },
    null,
    7,
    "[]",
  ];
  for (const one of bad) {
    await expect(orchestrator.load(one)).rejects.toBeInstanceOf(UsageError);
    expect(orchestrator.inspectLoad(one)).toMatchObject({ isReady: false, status: "invalid_snapshot" });
  }
  await using stranger = visiting(database, []);
  await expect(stranger.load(saved)).rejects.toThrow(/not known here/);

  expect(await count()).toBe(before);
  expect((await orchestrator.load(text)).id).not.toBe(execution.id);
  await execution.continueWith("q", "still here");
  expect(await execution.waitForClose()).toMatchObject({ answer: "still here" });
});

test("TF-INV-13, TF-PER-10: a load keeps interventions, and a closed execution its result", async () => {
  await using orchestrator = await serving(database, [flow]);
  const options = { autoCloseTimeout: 0, interventionMode: "auto" } as const;
  const execution = await orchestrator.flow("history").startExecution(null, options);
  await untilEvent(execution, "interrupt.raised");
  await execution.intervene("a correction", { author: "ann" });

  const loaded = await orchestrator.load(await execution.save());
  await loaded.continueWith("q", 1);
  await loaded.waitForClose();
  const again = await orchestrator.load(await loaded.save());

  expect(await loaded.result.getInterventions()).toMatchObject([
    { version: 1, author: "ann", payload: "a correction" },
  ]);
  expect(await again.result.getState()).toMatchObject({ answer: 1 });
  expect(await again.result.getMeta()).toMatchObject({ status: "completed", lifecycleState: "closed" });
  expect(await orchestrator.verify({ id: again.id })).toEqual([]);
});

test("F40: a cancel that races the close has one end, and whoever loses is told", async () => {
  await using orchestrator = await serving(database, [flow]);
  for (let n = 0; n < 5; n++) {
    const execution = await orchestrator.flow("history").startExecution(null, { autoCloseTimeout: 0 });
    await untilEvent(execution, "interrupt.raised");
    await execution.continueWith("q", n);

    const [isCancelled] = await Promise.all([execution.cancel("race"), execution.waitForClose().catch(() => {})]);

    const { status } = await execution.result.getMeta();
    expect(status).toBe(isCancelled ? "cancelled" : "completed");
    expect(await execution.history({ types: ["execution.closed"] })).toHaveLength(1);
    expect(await execution.cancel("late")).toBe(false);
    expect(await orchestrator.verify({ id: execution.id })).toEqual([]);
  }
});

test("F55: hidden characters are refused in names and ids, and kept as they are in what people read", async () => {
  await using orchestrator = await serving(database, [flow]);
  for (const name of ["refund\u202e", "re\u200dfund", "r\u0435fund", "../x", "x; drop table y"]) {
    expect(() => defineFlow(name)).toThrow(/name/);
    await expect(database.sql`select flowledger.start(${name})`).rejects.toMatchObject({ code: "FL008" });
  }
  const execution = await orchestrator.flow("history").startExecution(null, { metadata: { note: "a\u202eb" } });
  expect((await execution.result.getMeta()).metadata).toEqual({ note: "a\u202eb" });
  await expect(orchestrator.getExecution("0190a000\u200d")).rejects.toBeInstanceOf(UsageError);
});
