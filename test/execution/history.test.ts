/** The past of an execution: state at a point, forks, and saves that go on elsewhere. */
import { expect, test } from "vitest";
import { defineFlow, UsageError } from "../../src/index.ts";
import type { Execution } from "../../src/index.ts";
import { save } from "../../src/execution/saved.ts";
import type { ExecutionId } from "../../src/ledger/event.ts";
import { internals } from "../../src/orchestrator.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { collect, newGate, refusal, serving, untilEvent, visiting } from "../support/flows.ts";
import { expectGuarantees } from "../support/ledger.ts";

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
  expect(await fork.result.getMeta()).toMatchObject({ forkedFrom: source.id, loadedFrom: null });
  expect(await source.result.getState()).toEqual({ n: 2, answer: "yes" });
});

test("a copy of what was cancelled before its start is due ends by that, and not when it would start", async () => {
  const outside = visiting(database, [flow]);
  const source = await outside.flow("history").startExecution(null, { delay: "30d" });
  await source.cancel("enough");
  const [asked] = await source.history({ types: ["cancel.requested"] });
  const copy = await source.fork({ at: asked?.seq ?? 0 });
  await outside.close();

  await using orchestrator = await serving(database, [flow]);
  const ended = async ({ id }: Execution) => {
    const execution = await orchestrator.getExecution(id);
    return execution.waitForClose({ timeout: "10s" }).then(() => null, String);
  };

  const ends = [await ended(source), await ended(copy)];
  expect(ends.map((end) => end?.split(" ")[0])).toEqual(["ExecutionCancelledError:", "ExecutionCancelledError:"]);
});

async function lastSeq({ id }: Execution): Promise<number> {
  const [row] = await database.sql<[{ seq: number }]>`select seq from flowledger.executions where id = ${id}`;
  return row.seq;
}

const hasty = defineFlow("hasty", {}, { maxDuration: "1500ms" });
hasty.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" })).to("keep", (ctx) => ctx.setState("answer", ctx.input));

test("what timed out is forked and goes on, and what is older than its maxDuration is loaded: their time counts anew", async () => {
  await using orchestrator = await serving(database, [hasty]);
  const source = await orchestrator.flow("hasty").startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(source, "interrupt.raised");
  const seq = await lastSeq(source);
  const saved = await source.save();
  expect(await refusal(source.waitForClose())).toMatchObject({ cause: { name: "ExecutionTimeoutError" } });

  const copies = [await source.fork({ at: seq }), await orchestrator.load(saved)];

  for (const copy of copies) {
    // Both have been looked at: they wait, and have a time again.
    await expect.poll(async () => (await copy.history({ types: ["execution.claimed"] })).length).toBe(2);
    await copy.continueWith("q", "in time");
    expect(await copy.waitForClose()).toEqual({ answer: "in time" });
    expect(await copy.history({ types: ["execution.copied"] })).toHaveLength(1);
    await expectGuarantees(database.sql, copy.id);
  }
});

test("a copy that waits for too long times out in its own time", async () => {
  await using orchestrator = await serving(database, [hasty]);
  const source = await orchestrator.flow("hasty").startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(source, "interrupt.raised");
  const seq = await lastSeq(source);
  await refusal(source.waitForClose());
  const fork = await source.fork({ at: seq });

  expect(await refusal(fork.waitForClose())).toMatchObject({ cause: { name: "ExecutionTimeoutError" } });

  const [claimed] = await fork.history({ types: ["execution.claimed"], from: seq });
  const [failed] = await fork.history({ types: ["execution.failed"] });
  expect(Number(failed?.at) - Number(claimed?.at)).toBeGreaterThanOrEqual(1500);
  expect(await database.sql`select flowledger.meta(${fork.id}) ->> 'status' as status`).toEqual([{ status: "failed" }]);
});

test("a pause whose time was over asks again in a copy, with a full term; one that has time left keeps it", async () => {
  const asking = defineFlow("asking");
  asking.to("short", (ctx) => ctx.pauseFor({ interruptId: "short", expiresIn: "800ms" }));
  asking.to("long", (ctx) => ctx.pauseFor({ interruptId: "long", expiresIn: "1h" }));
  await using orchestrator = await serving(database, [asking]);
  const source = await orchestrator.flow("asking").startExecution(null, { autoCloseTimeout: 0 });
  const raised = await untilPending(source, 2);
  const seq = await lastSeq(source);
  const longUntil = raised.find(({ id }) => id === "long")?.expiresAt;
  await untilEvent(source, "interrupt.expired");

  const fork = await source.fork({ at: seq });

  const [copied] = await fork.history({ types: ["execution.copied"] });
  const pending = new Map((await fork.getPendingInterrupts()).map((interrupt) => [interrupt.id, interrupt]));
  const term = Number(new Date(pending.get("short")?.expiresAt ?? 0)) - Number(copied?.at);
  // The history's times are whole milliseconds.
  expect(Math.abs(term - 800)).toBeLessThanOrEqual(1);
  expect(pending.get("long")?.expiresAt).toEqual(longUntil);
  expect(await orchestrator.verify({ id: fork.id })).toEqual([]);
  expect(await orchestrator.rebuild({ id: fork.id })).toEqual([]);
  await untilEvent(fork, "interrupt.expired");
  const [expired] = await fork.history({ types: ["interrupt.expired"] });
  expect(Number(expired?.at) - Number(copied?.at)).toBeGreaterThanOrEqual(799);
  await fork.continueWith("long", "yes");
  await fork.waitForClose();
  await expectGuarantees(database.sql, fork.id);
});

test("an idle copy closes by its idle time from the copy on", async () => {
  const idle = defineFlow("idleCopy");
  idle.to("work", (ctx) => ctx.setState("done", true));
  await using orchestrator = await serving(database, [idle]);
  const source = await orchestrator.flow("idleCopy").startExecution(null, { autoCloseTimeout: "700ms" });
  await untilEvent(source, "chunk.completed");
  const seq = await lastSeq(source);
  await source.waitForClose();

  const fork = await source.fork({ at: seq });
  await fork.waitForClose();

  const [copied] = await fork.history({ types: ["execution.copied"] });
  const [closed] = await fork.history({ types: ["execution.closed"] });
  expect(Number(closed?.at) - Number(copied?.at)).toBeGreaterThanOrEqual(700);
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
  const meta = await loaded.result.getMeta();
  const [bySql] = await elsewhere.sql<{ meta: object }[]>`select flowledger.meta(${loaded.id}) as meta`;
  expect(meta).toMatchObject({ loadedFrom: execution.id, forkedFrom: null, status: "completed" });
  expect(bySql?.meta).toEqual(JSON.parse(JSON.stringify(meta)));
});

test("TF-STR-06: the stream of a loaded execution begins with what happens there", async () => {
  const talking = defineFlow("talking")
    .to("talk", async (ctx) => await ctx.putIntoStream("before"))
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }))
    .to("answer", async (ctx) => await ctx.putIntoStream(`after ${String(ctx.input)}`));
  await using orchestrator = await serving(database, [talking]);
  const execution = await orchestrator.flow(talking).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "interrupt.raised");

  const loaded = await orchestrator.load(await execution.save());
  await loaded.continueWith("q", "all");

  expect(await collect(loaded.streamItems({ timeout: null }))).toMatchObject([
    { cursor: `1-${loaded.id.slice(-8)}`, kind: "interrupt", item: { action: "resume", executionId: loaded.id } },
    { cursor: `2-${loaded.id.slice(-8)}`, kind: null, item: "after all" },
  ]);
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

test("TF-PER-06, LI-CTX-03, LI-CTX-04: a save in the middle of a chunk has what is committed, and the copy runs that chunk again from there", async () => {
  const gate = newGate();
  const steps: string[] = [];
  const busy = defineFlow("history.busy");
  busy
    .to("work", async (ctx) => {
      await ctx.step("once", () => void steps.push(ctx.execution.id));
      await ctx.setState("n", 1);
      await ctx.flush();
      if (steps.length === 1) await gate.passed;
      await ctx.appendState("runs", ctx.attempt);
    })
    .to("last", (ctx) => ctx.setState("last", true));
  await using here = await serving(database, [busy]);
  await using there = await serving(elsewhere, [busy]);
  const execution = await here.flow(busy).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "state.set");
  const saved = await execution.save();
  steps.push("saved");

  const loaded = await there.load(saved);

  const end = { n: 1, runs: [1], last: true };
  expect(saved).toMatchObject({ state: { n: 1 }, meta: { status: "running" } });
  expect(await loaded.waitForClose()).toEqual(end);
  gate.open();
  expect(await execution.waitForClose()).toEqual(end);
  expect(steps).toEqual([execution.id, "saved"]);
});

test("TF-PER-07, TF-EVT-10: half-filled joins, batches, collections and matches go on in a copy", async () => {
  const half = defineFlow("history.half");
  const ask = (id: string) => half.chunk(`ask ${id}`, (ctx) => ctx.pauseFor({ interruptId: id }));
  half.when(["A", "B"]).to("both", (ctx) => ctx.setState("both", ctx.input));
  half.batch({ done: () => 1, waits: ask("batch") }).to("batched", (ctx) => ctx.setState("batch", ctx.input));
  half
    .to("list", () => [1, 2, 3])
    .forEach()
    .ifCondition((ctx) => ctx.input === 2)
    .to(ask("item"))
    .endCondition()
    .endForEach()
    .to("collected", (ctx) => ctx.setState("items", ctx.input));
  half
    .match({ mode: "all" })
    .case(() => true)
    .to(ask("case"))
    .case(() => true)
    .to("at once", () => "second")
    .endMatch()
    .to("matched", (ctx) => ctx.setState("match", ctx.input));
  await using here = await serving(database, [half]);
  await using there = await serving(elsewhere, [half]);
  const execution = await here.flow(half).startExecution(null, { autoClose: false });
  await execution.emit("A", "a");
  await untilPending(execution, 3);
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "at once");

  const loaded = await there.load(await execution.save());
  for (const id of ["batch", "item", "case"]) await loaded.continueWith(id, id);
  await loaded.emit("B", "b");

  expect(await loaded.close()).toEqual({
    both: { A: "a", B: "b" },
    batch: { done: 1, waits: "batch" },
    items: [1, "item", 3],
    match: ["case", "second"],
  });
  expect(await there.verify({ id: loaded.id })).toEqual([]);
});

test("TF-PAU-17, TF-PAU-12: an answer that was accepted and not yet followed goes on in a copy, once, also when it is repeated", async () => {
  await using here = await serving(database, [flow]);
  const execution = await here.flow("history").startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "interrupt.raised");
  await here.close();
  await using visitor = visiting(database, [flow]);
  const answer = { resumeRequestId: "r-1", actor: "ann" };
  const waiting = await visitor.getExecution(execution.id);
  await waiting.continueWith("q", "accepted", answer);

  await using there = await serving(elsewhere, [flow]);
  const loaded = await there.load(await waiting.save());
  await loaded.continueWith("q", "accepted", answer);

  expect(await loaded.waitForClose()).toEqual({ n: 2, answer: "accepted" });
  expect(await loaded.continueWith("q", "accepted", answer)).toMatchObject({ status: "resumed", requestId: "r-1" });
  await expect(loaded.continueWith("q", "other", answer)).rejects.toMatchObject({ code: "RESUME_CONFLICT" });
  expect(await loaded.history({ types: ["interrupt.resumed"] })).toHaveLength(1);
});

test("TF-PAU-09: how often a pause was resumed is kept in a copy", async () => {
  const asking = defineFlow("history.asking");
  asking.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", resumeTo: "self", maxResumes: 2 }));
  await using orchestrator = await serving(database, [asking]);
  const execution = await orchestrator.flow(asking).startExecution();
  await untilEvent(execution, "interrupt.raised");
  await execution.continueWith("q", 1);
  await untilEvent(execution, "interrupt.raised", ({ resumeCount }) => resumeCount === 1);

  const loaded = await orchestrator.load(await execution.save());
  await loaded.continueWith("q", 2);

  await expect(loaded.waitForClose()).rejects.toMatchObject({ cause: { code: "SELF_RESUME_LIMIT" } });
  await execution.cancel();
});

test("TF-FLD-04: flow data is in no save, and a load leaves it as it is", async () => {
  await using orchestrator = await serving(database, [flow]);
  const bound = orchestrator.flow("history");
  const quiet = { noWarning: true };
  await bound.setFlowData("shared", "when it was saved", quiet);
  const execution = await bound.startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "interrupt.raised");
  const saved = await execution.save();
  await bound.setFlowData("shared", "since then", quiet);

  const loaded = await orchestrator.load(saved);

  expect(JSON.stringify(saved)).not.toContain("when it was saved");
  expect(await bound.getFlowData("shared", quiet)).toBe("since then");
  for (const copy of [execution, loaded]) await copy.continueWith("q", null);
});

test("TF-INV-13, TF-PER-10: a load keeps interventions, and a closed execution its result", async () => {
  await using orchestrator = await serving(database, [flow]);
  const options = { autoCloseTimeout: 0, interventionMode: "auto" } as const;
  const execution = await orchestrator.flow("history").startExecution(null, options);
  await untilEvent(execution, "interrupt.raised");
  const { id } = await execution.intervene("a correction", { author: "ann" });
  await execution.markInterventionConsumed(id, { consumer: "audit", status: "ignored" });

  const loaded = await orchestrator.load(await execution.save());
  await loaded.intervene("another");
  await loaded.continueWith("q", 1);
  await loaded.waitForClose();
  const again = await orchestrator.load(await loaded.save());

  expect(await loaded.result.getInterventions()).toMatchObject([
    {
      version: 1,
      author: "ann",
      payload: "a correction",
      status: "inserted",
      insertion: { mode: "auto", operatorName: "last" },
      consumers: { audit: { status: "ignored" } },
    },
    { version: 2, payload: "another" },
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
  await expect(orchestrator.getExecution("0190a000\u200d")).rejects.toMatchObject({ code: "EXECUTION_NOT_FOUND" });
});

test("a save holds what its meta says, whatever comes in while it is made", async () => {
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow("history").startExecution(null, { autoCloseTimeout: 0 });
  await untilPending(execution);
  const { reads, audit } = await orchestrator[internals].store();
  const { seq } = (await execution.history()).at(-1) ?? { seq: 0 };
  const meta = async (id: ExecutionId) => {
    const read = await reads.meta(id);
    await execution.seal();
    return read;
  };

  const saved = await save({ audit, reads: { ...reads, meta } }, execution.id, flow);

  expect(saved.meta).toMatchObject({ stateVersion: seq, lifecycleState: "open" });
  expect(saved.events).toHaveLength(seq);
  await execution.cancel();
});
