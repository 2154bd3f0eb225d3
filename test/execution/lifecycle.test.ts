/** Open, sealed, closed: what each accepts, how an execution closes, and who may ask for it. */
import { expect, test } from "vitest";
import { defineFlow, DrainTimeoutError, ExecutionClosedError, ExecutionSealedError } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, refusal, serving, untilEvent, visiting } from "../support/flows.ts";

const database = await testDatabase();

function newNotes(name: string) {
  const flow = defineFlow(name);
  flow.when("Note").to("note", (ctx) => ctx.appendState("notes", ctx.input));
  return flow;
}

test("TF-LIF-17: a sealed execution refuses an emit from outside and drains what it has accepted", async () => {
  const gate = newGate();
  const flow = defineFlow("sealed");
  flow.to("root", async (ctx) => {
    await gate.passed;
    await ctx.emit("Inner", 1);
  });
  flow.when("Inner").to("inner", (ctx) => ctx.setState("inner", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

  await execution.seal();
  const error = await refusal(execution.emit("Inner", 2));
  gate.open();

  expect(error).toBeInstanceOf(ExecutionSealedError);
  expect(error).toMatchObject({ details: { executionId: execution.id, refused: '"Inner"' } });
  expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "sealed" });
  expect(await execution.close()).toEqual({ inner: 1 });
});

test("TF-LIF-17: a closed execution refuses emit, seal and start", async () => {
  const flow = newNotes("closed");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).createExecution({ autoClose: false });
  await execution.close();

  const refused = await Promise.all([execution.emit("Note", 1), execution.seal(), execution.start()].map(refusal));

  for (const error of refused) expect(error).toBeInstanceOf(ExecutionClosedError);
});

test("TF-LIF-18: sealing twice changes nothing, and a seal alone neither closes nor ends the stream", async () => {
  const flow = newNotes("twiceSealed");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

  await execution.seal();
  await execution.seal();

  expect(await execution.history({ types: ["execution.sealed"] })).toHaveLength(1);
  expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "sealed", closedAt: null });
});

test("TF-LIF-19: an emit before the start is accepted, runs, and leaves the execution created", async () => {
  const flow = newNotes("early");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).createExecution({ autoCloseTimeout: 0 });

  await execution.emit("Note", "early");
  await untilEvent(execution, "chunk.completed");

  expect(await execution.result.getMeta()).toMatchObject({ status: "created", lifecycleState: "open" });
  expect(await execution.start()).toEqual({ notes: ["early"] });
});

test("an emit with a key that was used changes nothing", async () => {
  const flow = newNotes("keys");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

  await Promise.all([1, 1, 1].map((n) => execution.emit("Note", n, { idempotencyKey: "k", actor: "ann" })));

  expect(await execution.close()).toEqual({ notes: [1] });
  expect(await execution.history({ types: ["event.emitted"] })).toMatchObject([{ actor: "ann", idempotencyKey: "k" }]);
});

test("TF-LIF-12: closing twice, and at once from two orchestrators, gives everybody the same snapshot", async () => {
  const gate = newGate();
  const flow = defineFlow("twice");
  flow.to("root", async (ctx) => (await gate.passed, ctx.setState("done", true)));
  await using orchestrator = await serving(database, [flow]);
  await using elsewhere = visiting(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  const other = await elsewhere.getExecution(execution.id);

  const closing = Promise.all([execution.close({ reason: "mine" }), other.close({ reason: "theirs" })]);
  gate.open();

  expect(await closing).toEqual([{ done: true }, { done: true }]);
  expect(await execution.close()).toEqual({ done: true });
  expect(await execution.history({ types: ["execution.closed"] })).toHaveLength(1);
});

test("TF-LIF-09: the reason of a close is kept, manual by default", async () => {
  const flow = newNotes("reasons");
  await using orchestrator = await serving(database, [flow]);
  const [plain, named] = await Promise.all(
    [1, 2].map(() => orchestrator.flow(flow).startExecution(null, { autoClose: false })),
  );

  await plain?.close();
  await named?.close({ reason: "month end" });

  expect([await plain?.result.getMeta(), await named?.result.getMeta()]).toMatchObject([
    { closeReason: "manual", status: "completed" },
    { closeReason: "month end", status: "completed" },
  ]);
});

test("TF-LIF-14: a close that does not drain in time throws DrainTimeoutError, and the execution stays sealed", async () => {
  const flow = defineFlow("never");
  flow.to("hang", () => new Promise<void>(() => {}));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await untilEvent(execution, "execution.claimed");

  const error = await refusal(execution.close({ timeout: "50ms" }));

  expect(error).toBeInstanceOf(DrainTimeoutError);
  expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "sealed", status: "running" });
  await expect(execution.emit("More", null)).rejects.toBeInstanceOf(ExecutionSealedError);
});

test("TF-LIF-07: an idle execution closes by itself, counted anew from every event", async () => {
  const flow = newNotes("idle");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: "400ms" });
  await execution.emit("Note", 1);

  const snapshot = await execution.waitForClose();

  expect(snapshot).toEqual({ notes: [1] });
  const meta = await execution.result.getMeta();
  expect(meta).toMatchObject({ closeReason: "auto_close_idle_timeout", status: "completed" });
  const last = await untilEvent(execution, "chunk.completed");
  const at = (last as unknown as { at: Date }).at.getTime();
  expect((meta.closedAt?.getTime() ?? 0) - at).toBeGreaterThanOrEqual(400);
});

test("TF-LIF-07: an idle time of an hour lets the worker go and wakes up when it is over", async () => {
  const flow = newNotes("hour");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: "1h" });
  await untilEvent(execution, "inbox.routed");
  const wait = () => database.sql<[{ owner: string | null; wait: number | null }]>`
    select owner, extract(epoch from wake_at - now())::float8 as wait from flowledger.executions where id = ${execution.id}`;
  await expect.poll(async () => (await wait())[0].owner).toBeNull();

  expect((await wait())[0].wait).toBeGreaterThan(3500);
  await execution.close();
});

test("TF-LIF-07: an idle time for which nobody holds the execution counts on while workers come to look, and closes it", async () => {
  const flow = newNotes("outlasting");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: "1500ms" });

  expect(await execution.waitForClose()).toEqual({});

  expect(await execution.result.getMeta()).toMatchObject({ closeReason: "auto_close_idle_timeout" });
  expect(await execution.history({ types: ["execution.claimed"] })).toHaveLength(2);
});

test("TF-LIF-08: work under way keeps an execution open, however long its idle time is over", async () => {
  const gate = newGate();
  const flow = defineFlow("busy");
  flow.to("slow", async (ctx) => {
    await ctx.setState("slow", true);
    await ctx.flush();
    await gate.passed;
    await ctx.setState("done", true);
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  await untilEvent(execution, "state.set");

  expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "open", status: "running" });
  gate.open();
  expect(await execution.waitForClose()).toEqual({ slow: true, done: true });
});

test("TF-LIF-13: events accepted before the close run before the snapshot is frozen", async () => {
  const flow = defineFlow("drains");
  flow.when("A").to("a", (ctx) => ctx.emitNoWait("B", ctx.input));
  flow.when("B").to("b", (ctx) => ctx.appendState("b", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

  for (let n = 0; n < 20; n++) await execution.emit("A", n);
  const snapshot = await execution.close();

  expect(snapshot["b"]).toHaveLength(20);
});

test("TF-LIF-16: a chunk that throws for the last time closes the execution as failed, and close rejects", async () => {
  const flow = defineFlow("failing");
  flow.to("bad", async (ctx) => {
    await ctx.setState("kept", true);
    await ctx.flush();
    await ctx.setState("lost", true);
    throw Object.assign(new TypeError("no"), { code: "E_NO" });
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

  const errors = [await refusal(execution.waitForClose()), await refusal(execution.close())];

  for (const error of errors)
    expect(error).toMatchObject({
      code: "EXECUTION_FAILED",
      cause: { name: "TypeError", message: "no", code: "E_NO" },
    });
  expect((errors[0] as { cause: Error }).cause.stack).toContain("lifecycle.test.ts");
  expect(await execution.result.getState()).toEqual({ kept: true });
  expect(await execution.result.getMeta()).toMatchObject({
    status: "failed",
    lifecycleState: "closed",
    closeReason: "failed",
  });
});

test("TF-LIF-15: what an emitNoWait leads to fails the execution like anything else, and every close says so", async () => {
  const flow = defineFlow("background");
  flow.to("root", (ctx) => ctx.emitNoWait("Work", 1));
  flow.when("Work").to("work", () => {
    throw new RangeError("in the background");
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

  await untilEvent(execution, "execution.closed");
  const errors = [await refusal(execution.close()), await refusal(execution.close())];

  for (const error of errors)
    expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { message: "in the background" } });
  expect(await execution.result.getMeta()).toMatchObject({ status: "failed", lifecycleState: "closed" });
});

test("a cancel aborts the signal of what runs and closes the execution as cancelled", async () => {
  const stopped = newGate();
  const flow = defineFlow("cancelled");
  flow.to("slow", async (ctx) => {
    await ctx.setState("begun", true);
    await ctx.flush();
    await new Promise<void>((resolve) => ctx.signal.addEventListener("abort", () => resolve()));
    stopped.open();
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await untilEvent(execution, "state.set");

  expect(await execution.cancel("no longer wanted")).toBe(true);

  await stopped.passed;
  expect(await refusal(execution.waitForClose())).toMatchObject({
    code: "EXECUTION_CANCELLED",
    details: { reason: "no longer wanted" },
  });
  expect(await execution.result.getMeta()).toMatchObject({ status: "cancelled", closeReason: "no longer wanted" });
  expect(await execution.close()).toEqual({ begun: true });
  expect(await execution.cancel()).toBe(false);
});

test("a cancel does not wait for a chunk that does not listen", async () => {
  const flow = defineFlow("deaf");
  flow.to("hang", () => new Promise<void>(() => {}));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution();
  await untilEvent(execution, "execution.claimed");

  await execution.cancel();

  expect(await refusal(execution.waitForClose())).toMatchObject({ code: "EXECUTION_CANCELLED" });
});

test("a cancel before the start closes the execution, and before its delay is over", async () => {
  const flow = newNotes("before");
  await using orchestrator = await serving(database, [flow]);
  const created = await orchestrator.flow(flow).createExecution();
  const delayed = await orchestrator.flow(flow).startExecution(null, { delay: "1h" });

  await Promise.all([created.cancel(), delayed.cancel()]);

  for (const execution of [created, delayed])
    expect(await refusal(execution.waitForClose())).toMatchObject({ code: "EXECUTION_CANCELLED" });
});

test("a handle from another orchestrator sends, reads and waits like the first one", async () => {
  const flow = newNotes("elsewhere");
  await using orchestrator = await serving(database, [flow]);
  await using elsewhere = visiting(database);
  const { id } = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

  const handle = await elsewhere.getExecution(id);
  await handle.emit("Note", "hello");
  const snapshot = await handle.close();

  expect(handle.flow).toBe("elsewhere");
  expect(snapshot).toEqual({ notes: ["hello"] });
  expect(await handle.result.getMeta()).toMatchObject({ flowName: "elsewhere", status: "completed" });
});
