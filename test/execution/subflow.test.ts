/** Sub-flows: what they take and give back, what shows of them on their parent, and how either of them ends. */
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { ExecutionCancelledError, ExecutionFailedError, UsageError, defineFlow } from "../../src/index.ts";
import type { Execution, SubFlowFrame, SubFlowOptions } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { codeOf, doorsOf, present, untilPending } from "../support/doors.ts";
import { collect, newGate, refusal, serving, untilEvent, untilThere, visiting } from "../support/flows.ts";
import { expectGuarantees, ledgerOf, leases } from "../support/ledger.ts";
import { storeOn } from "../support/store.ts";

const database = await testDatabase();
const { sql } = database;

/** The frames, once the first of them is as the test wants it. */
async function untilFrame(
  execution: Pick<Execution, "getSubFlowFrames">,
  matches: (frame: SubFlowFrame) => boolean = () => true,
): Promise<SubFlowFrame> {
  const deadline = performance.now() + 8000;
  let frames: SubFlowFrame[] = [];
  while (performance.now() < deadline) {
    frames = await execution.getSubFlowFrames();
    const [frame] = frames;
    if (frame && matches(frame)) return frame;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`no such frame within 8 s: ${JSON.stringify(frames)}`);
}

/** Nobody owns it: it waits in the database alone. */
async function untilReleased(id: string): Promise<void> {
  for (let tries = 0; tries < 800; tries++) {
    const [row] = await sql`select 1 from flowledger.executions where id = ${id} and owner is null and wake_at is null`;
    if (row) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`execution ${id} was not released within 8 s`);
}

async function expectFamily(parent: string): Promise<void> {
  await expectGuarantees(sql, parent);
  for (const { id } of await sql<{ id: string }[]>`select id from flowledger.executions where parent_id = ${parent}`)
    await expectFamily(id);
}

describe("what goes in and what comes out", () => {
  test("TF-SUB-01: the value becomes the input, and the result becomes the value", async () => {
    const explicit = defineFlow("explicit");
    explicit.to("double", (ctx) => Number(ctx.input) * 2).end();
    const implicit = defineFlow("implicit");
    implicit.to("keep", async (ctx) => await ctx.setState("kept", ctx.input));
    const flow = defineFlow("in-out");
    flow
      .to("three", () => 3)
      .toSubFlow(explicit)
      .to("mid", async (ctx) => {
        await ctx.setState("mid", ctx.input);
        return ctx.input;
      })
      .toSubFlow(implicit)
      .to("last", async (ctx) => await ctx.setState("last", ctx.input));
    // The worker of a flow serves its sub-flows as well.
    await using orchestrator = await serving(database, [flow]);

    const snapshot = await orchestrator.flow(flow).start(null);

    expect(snapshot).toEqual({ mid: 6, last: { kept: 6 } });
  });

  test("TF-SUB-02, TF-SUB-03, TF-SUB-06: captures are copies, resources are the same object, and what comes back is merged", async () => {
    const shared = { calls: 0 };
    const child = defineFlow("binding-child");
    child.to("work", async (ctx) => {
      ctx.requireResource<typeof shared>("tool").calls += 1;
      const input = ctx.input as { topic: { name: string } };
      input.topic.name = "changed in the child";
      await ctx.setState("list", ["changed"]);
      await ctx.setState("report", { title: ctx.getState("tone"), rate: (ctx.input as { rate: number }).rate });
    });
    const flow = defineFlow("binding");
    flow
      .to("begin", async (ctx) => {
        await ctx.setState("list", ["mine"]);
        await ctx.setState("style.tone", "dry");
        await ctx.setFlowData("rates", { high: 9 }, { noWarning: true });
        return { topic: { name: "bees" }, keep: true };
      })
      .toSubFlow(child, {
        capture: {
          "input.topic": "value.topic",
          "input.rate": "flowData.rates.high",
          "state.list": "state.list",
          "state.tone": "state.style.tone",
          "resources.tool": "resources.hammer",
        },
        writeBack: {
          "value.report": "result.report",
          "state.style.last": "snapshot.report.title",
          "flowData.last": "result.report",
        },
      })
      .to("end", async (ctx) => await ctx.setState("value", ctx.input));
    flow.when({ state: "style.last" }).to("heard", async (ctx) => await ctx.setState("heard", ctx.input));
    await using orchestrator = await serving(database, [flow]);

    const snapshot = await orchestrator.flow(flow).start(null, { runtimeResources: { hammer: shared } });

    const report = { title: "dry", rate: 9 };
    expect(snapshot).toEqual({
      list: ["mine"],
      style: { tone: "dry", last: "dry" },
      heard: "dry",
      value: { topic: { name: "bees" }, keep: true, report },
    });
    expect(shared.calls).toBe(1);
    expect(await orchestrator.flow(flow).getFlowData("last", { noWarning: true })).toEqual(report);
    expect(await orchestrator.flow(child).getFlowData("last", { noWarning: true })).toBeNull();
  });

  test("TF-SUB-06: what is captured twice is two copies", async () => {
    // A contract may change in place what it is given.
    const input = z.any().transform((given: { list: Record<string, unknown> }) => {
      given.list["parsed"] = true;
      return given;
    });
    const child = defineFlow("twice-child", { input });
    child
      .to("change", (ctx) => ctx.setState("list.changed", true))
      .to("tell", (ctx) => ctx.setResult({ ...ctx.getState(), input: ctx.startInput }));
    const flow = defineFlow("twice");
    flow
      .to("begin", () => ({ list: { mine: 1 } }))
      .toSubFlow(child, {
        capture: { "input.list": "value.list", "state.list": "value.list" },
        writeBack: { "value.child": "result" },
      })
      .to("end", (ctx) => ctx.setState("value", ctx.input));
    await using orchestrator = await serving(database, [flow, child]);

    const seen = { list: { mine: 1, changed: true }, input: { list: { mine: 1, parsed: true } } };
    expect(await orchestrator.flow(flow).start(null)).toEqual({ value: { list: { mine: 1 }, child: seen } });
  });

  test("TF-SUB-04, TF-SUB-07: result paths are looked up in $final_result first, then in the close snapshot", async () => {
    const child = defineFlow("lookup-child");
    child
      .to("work", async (ctx) => {
        await ctx.setState("a", { b: "snapshot", c: "only there" });
        return { a: { b: "final" } };
      })
      .end();
    const flow = defineFlow("lookup");
    flow
      .to("begin", async (ctx) => {
        await ctx.setState("old", { kept: 1 });
        return { old: true };
      })
      .toSubFlow(child, {
        writeBack: {
          "value.b": "result.a.b",
          "value.c": "result.a.c",
          "value.d": "snapshot.a.b",
          "state.old.added": "result.a.b",
        },
      })
      .to("end", async (ctx) => await ctx.setState("value", ctx.input));
    await using orchestrator = await serving(database, [flow]);

    expect(await orchestrator.flow(flow).start(null)).toEqual({
      value: { old: true, b: "final", c: "only there", d: "snapshot" },
      old: { kept: 1, added: "final" },
    });
  });

  test.each<[string, SubFlowOptions, RegExp]>([
    ["capture", { capture: { "input.x": "value.missing" } }, /captures value.missing, which does not exist/],
    ["state", { capture: { "input.x": "state.a.b" } }, /captures state.a.b, which does not exist/],
    ["write-back", { writeBack: { "value.x": "result.nowhere" } }, /path "result.nowhere" was not found/],
    ["resource", { capture: { "resources.x": "resources.none" } }, /none/],
  ])("TF-SUB-04, TF-SUB-05: a missing path fails the sub-flow by name (%s)", async (name, options, message) => {
    const child = defineFlow(`missing-child-${name}`);
    child.to("work", () => null);
    const flow = defineFlow(`missing-${name}`);
    flow.toSubFlow(child, options).to("after", async (ctx) => await ctx.setState("after", true));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution({});

    const error = await refusal(execution.waitForClose());

    expect(error).toBeInstanceOf(ExecutionFailedError);
    expect((error as Error).message).toMatch(message);
    expect(await execution.result.getState("after")).toBeNull();
  });

  test("an input that breaks the child's contract fails the sub-flow, and no child begins", async () => {
    const child = defineFlow("strict-child", { input: z.object({ n: z.number() }) });
    child.to("work", () => null);
    const flow = defineFlow("strict");
    flow.to("begin", () => ({ n: "three" })).toSubFlow(child as never);
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null);

    expect(String(await refusal(execution.waitForClose()))).toMatch(/n/);
    expect(await execution.getSubFlowFrames()).toEqual([]);
  });

  test("a sub-flow runs no more children at once than its concurrency, and closes the forEach it stands in", async () => {
    const child = defineFlow("narrow-child");
    let now = 0;
    let most = 0;
    const two = Promise.withResolvers<void>();
    child
      .to("work", async (ctx) => {
        most = Math.max(most, ++now);
        if (now === 2) two.resolve();
        await two.promise;
        now -= 1;
        return Number(ctx.input) * 10;
      })
      .end();
    const flow = defineFlow("narrow");
    flow
      .forEach()
      .toSubFlow(child, { concurrency: 2 })
      .endForEach()
      .to("end", async (ctx) => await ctx.setState("all", ctx.input));
    await using orchestrator = await serving(database, [flow]);

    expect(await orchestrator.flow(flow).start([1, 2, 3, 4, 5])).toEqual({ all: [10, 20, 30, 40, 50] });
    expect(most).toBe(2);
  });
});

describe("frames", () => {
  test("TF-SUB-08, TF-SUB-09: a frame shows from the beginning, from any process, and says how it ended", async () => {
    const gate = newGate();
    const child = defineFlow("frame-child");
    child
      .to("hold", async (ctx) => {
        await gate.passed;
        if (ctx.input === "break") throw new Error("broken");
      })
      .to("ask", (ctx) => ctx.pauseFor({ type: "approval", interruptId: "ok" }))
      .end();
    const flow = defineFlow("frames");
    flow.toSubFlow(child, { capture: { input: "value", "resources.tool": "resources.tool" } });
    await using orchestrator = await serving(database, [flow]);
    await using visitor = visiting(database, [flow]);
    const runtimeResources = { tool: {} };
    const execution = await orchestrator.flow(flow).startExecution("go", { autoCloseTimeout: 0, runtimeResources });
    const failing = await orchestrator.flow(flow).startExecution("break", { runtimeResources });
    const elsewhere = await visitor.getExecution(execution.id);

    const running = await untilFrame(elsewhere);
    expect(running).toMatchObject({
      parentId: execution.id,
      node: "n1",
      flow: "frame-child",
      status: "running",
      input: "go",
      resourceKeys: ["tool"],
      interrupts: [],
      result: null,
      error: null,
      endedAt: null,
    });
    gate.open();
    const waiting = await untilFrame(elsewhere, ({ status }) => status === "waiting");
    expect(waiting).toMatchObject({ id: running.id, interrupts: [{ id: `${running.id}:ok`, type: "approval" }] });
    await elsewhere.continueWith(present(waiting.interrupts[0]).id, "yes");
    await elsewhere.waitForClose();
    expect(await untilFrame(elsewhere)).toMatchObject({
      status: "completed",
      result: "yes",
      endedAt: expect.any(Date),
    });

    await refusal(failing.waitForClose());
    expect(await untilFrame(failing)).toMatchObject({ status: "failed", error: { message: "broken" }, result: null });
    const inChild = await orchestrator.getExecution(running.id);
    expect((await inChild.result.getMeta()).closeReason).toBe("sub_flow_completed");
    await expectFamily(execution.id);
  });

  test("TF-SUB-10: cancelSubFlow ends the child, writes nothing back and follows no edge; the parent goes on", async () => {
    const child = defineFlow("cancel-child");
    child.to(
      "hold",
      async (ctx) => await new Promise((_, reject) => (ctx.signal.onabort = () => reject(new Error("aborted")))),
    );
    const flow = defineFlow("cancel-parent");
    flow
      .toSubFlow(child, { writeBack: { "state.report": "result" } })
      .to("after", async (ctx) => await ctx.setState("after", true));
    flow.when("Ping").to("pong", async (ctx) => await ctx.setState("pong", ctx.input));
    await using orchestrator = await serving(database, [flow]);
    await using visitor = visiting(database);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    const elsewhere = await visitor.getExecution(execution.id);
    const frame = await untilFrame(elsewhere);

    const answers = await Promise.all([1, 2, 3].map(() => elsewhere.cancelSubFlow(frame.id, "no longer needed")));

    expect(answers.filter(Boolean)).toEqual([true]);
    expect(await untilFrame(elsewhere, ({ status }) => status === "cancelled")).toMatchObject({
      cancelReason: "no longer needed",
      result: null,
    });
    await untilEvent(execution, "value.routed");
    expect(await elsewhere.cancelSubFlow(frame.id)).toBe(false);
    await execution.emit("Ping", 1);
    expect(await execution.close()).toEqual({ pong: 1 });
    expect((await execution.result.getMeta()).status).toBe("completed");
    expect(await elsewhere.cancelSubFlow(frame.id)).toBe(false);
    await expectFamily(execution.id);
  });

  test("TF-SUB-10, TF-SUB-11: a frame that is unknown, or not active, takes nothing", async () => {
    const child = defineFlow("inactive-child", { events: { Go: z.object({ n: z.number() }) } });
    child.to("work", () => 1);
    const other = defineFlow("inactive-other");
    other.to("call", async (ctx) => await ctx.call(child, null));
    const flow = defineFlow("inactive");
    flow.toSubFlow(child);
    await using orchestrator = await serving(database, [flow, other]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    const { id } = await untilFrame(execution, ({ status }) => status === "completed");
    const caller = await orchestrator.flow(other).startExecution(null, { autoClose: false });
    const called = await untilEvent(caller, "child.closed");

    expect(await caller.getSubFlowFrames()).toEqual([]);
    for (const [handle, frame] of [
      [execution, "nonsense"],
      [execution, crypto.randomUUID()],
      [execution, execution.id],
      [caller, id],
      [caller, called.child],
    ] as const) {
      expect(await refusal(handle.emitToSubFlow(frame, "Ping"))).toBeInstanceOf(UsageError);
      expect(await refusal(handle.cancelSubFlow(frame))).toBeInstanceOf(UsageError);
    }
    expect(String(await refusal(execution.emitToSubFlow(id, "Go", { n: 1 })))).toMatch(/is not active \(completed\)/);
    expect(await codeOf(execution.emitToSubFlow(id, "Go", { n: "one" }))).toBe("CONTRACT_VIOLATED");
    expect(await execution.cancelSubFlow(id)).toBe(false);
    await execution.close();
    expect(await codeOf(execution.emitToSubFlow(id, "Go", { n: 1 }))).toBe("EXECUTION_CLOSED");
  });

  test("TF-SUB-09, TF-SUB-11: one that is being cancelled says so, takes no event, and ends as cancelled", async () => {
    const gate = newGate();
    const child = defineFlow("ending-child");
    child.to("deaf", async () => await gate.passed);
    child.when("Note").to("note", async (ctx) => await ctx.appendState("notes", ctx.input));
    const flow = defineFlow("ending-parent");
    flow.toSubFlow(child);
    // It waits for what runs, as a chunk that does not hear its signal makes it.
    await using orchestrator = visiting(database, [flow]);
    await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "10s" });
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    const { id } = await untilFrame(execution, ({ startedAt }) => startedAt !== null);
    await untilEvent(await orchestrator.getExecution(id), "execution.claimed");

    expect(await execution.cancelSubFlow(id, "enough")).toBe(true);
    const ending = await untilFrame(execution);
    const refused = await refusal(execution.emitToSubFlow(id, "Note", "late"));
    gate.open();

    expect(ending).toMatchObject({ status: "cancel_requested", cancelReason: "enough", endedAt: null });
    expect(refused).toBeInstanceOf(UsageError);
    expect(String(refused)).toMatch(/is not active \(cancel requested\)/);
    await untilFrame(execution, ({ status }) => status === "cancelled");
    expect(await execution.waitForClose()).toEqual({});
    expect(await ledgerOf(sql, id)).not.toContain("event.emitted");
    await expectFamily(execution.id);
  });

  test("TF-SUB-11: emitToSubFlow reaches the running child, once per idempotency key, by the library and by SQL", async () => {
    const gate = newGate();
    const child = defineFlow("emit-child");
    child.to("hold", async () => await gate.passed);
    child.when("Note").to("note", async (ctx) => await ctx.appendState("notes", ctx.input));
    const flow = defineFlow("emit-parent");
    flow.toSubFlow(child, { writeBack: { "state.notes": "result.notes" } });
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    const { id } = await untilFrame(execution);

    await Promise.all([1, 2].map(() => execution.emitToSubFlow(id, "Note", "a", { idempotencyKey: "k" })));
    await sql`select flowledger.emit_to_sub_flow(${execution.id}, ${id}, 'Note', '"b"')`;
    gate.open();

    expect(await execution.waitForClose()).toEqual({ notes: ["a", "b"] });
    expect(await ledgerOf(sql, execution.id)).not.toContain("event.emitted");
  });
});

describe("interrupts of a sub-flow", () => {
  describe.each(doorsOf(sql))("answered by $name", (door) => {
    test("TF-SUB-13, TF-STR-11: a pause shows on every execution above, which lets go, and is answered there once", async () => {
      const inner = defineFlow(`inner-${door.name}`);
      inner
        .to("ask", (ctx) =>
          ctx.pauseFor({
            type: "approval",
            payload: { q: "ok?" },
            interruptId: "ask",
            response: z.object({ ok: z.boolean() }),
          }),
        )
        .end();
      const middle = defineFlow(`middle-${door.name}`);
      middle.toSubFlow(inner).end();
      const flow = defineFlow(`outer-${door.name}`);
      flow
        .toSubFlow(middle, { writeBack: { "state.answer": "result" } })
        .to("after", async (ctx) => await ctx.setState("after", true));
      await using orchestrator = await serving(database, [flow]);
      const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
      const [projected] = await untilPending(execution);
      const { id } = present(projected);
      const innerId = present(projected?.projectedFrom).executionId;
      await untilReleased(execution.id);

      expect(projected).toMatchObject({
        executionId: execution.id,
        type: "approval",
        status: "pending",
        payload: { q: "ok?" },
      });
      expect(id).toBe(`${innerId}:ask`);
      expect((await execution.result.getMeta()).status).toBe("waiting");
      // Across executions it is listed once, where it waits.
      const { interrupts } = await orchestrator.listPendingInterrupts({ type: "approval" });
      expect(interrupts.map(({ executionId }) => executionId)).toEqual([innerId]);
      expect(await codeOf(door.continueWith(execution, `${execution.id}:ask`, { ok: true }))).toBe(
        "INTERRUPT_NOT_PENDING",
      );

      const answers = await Promise.all(
        ["a", "a", "b"].map((resumeRequestId) =>
          codeOf(door.continueWith(execution, id, { ok: true }, { resumeRequestId, actor: "ann" })),
        ),
      );

      expect(answers).toContain("ok");
      expect(["ok", "INTERRUPT_NOT_PENDING", "EXECUTION_CLOSED"]).toEqual(expect.arrayContaining(answers));
      expect(await execution.waitForClose()).toEqual({ answer: { ok: true }, after: true });
      const [winner] = answers[0] === "ok" ? ["a"] : ["b"];
      expect(await door.continueWith(execution, id, { ok: true }, { resumeRequestId: winner })).toMatchObject({
        status: "resumed",
      });
      expect(await codeOf(door.continueWith(execution, id, { ok: false }, { resumeRequestId: winner }))).toBe(
        "RESUME_CONFLICT",
      );
      const items = await collect(execution.streamItems({ timeout: null }));
      expect(items.map(({ kind, item }) => [kind, item])).toMatchObject([
        [
          "interrupt",
          { type: "interrupt", action: "project", executionId: execution.id, interrupt: { id, status: "pending" } },
        ],
        [
          "interrupt",
          { action: "resume", executionId: execution.id, interrupt: { id, status: "resumed" }, value: { ok: true } },
        ],
      ]);
      await expectFamily(execution.id);
    });
  });

  test("while somebody keeps the parent's row locked, its sub-flow waits, and nothing else does", async () => {
    const gate = newGate();
    const child = defineFlow("locked-child");
    child
      .to("hold", async (ctx) => {
        await gate.passed;
        await ctx.putIntoStream("item");
      })
      .to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask" }));
    const flow = defineFlow("locked");
    flow.toSubFlow(child);
    const other = defineFlow("unlocked");
    other.to("work", async (ctx) => await ctx.setState("done", true));
    await using orchestrator = await serving(database, [flow, other]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilFrame(execution);

    await sql.begin(async (tx) => {
      await tx`select 1 from flowledger.executions where id = ${execution.id} for update`;
      gate.open();
      for (let round = 0; round < 3; round++)
        expect(await orchestrator.flow(other).start(null)).toEqual({ done: true });
      expect(await execution.getPendingInterrupts()).toEqual([]);
    });

    await untilPending(execution);
    expect((await collect(execution.getRuntimeStream({ timeout: 100 })))[0]).toBe("item");
    await execution.cancel();
    await refusal(execution.waitForClose());
    await expectFamily(execution.id);
  });

  test("TF-SUB-13: an answer through the parent is checked like one to the child", async () => {
    const child = defineFlow("checked-child");
    child.to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask", response: z.object({ n: z.number() }) })).end();
    const flow = defineFlow("checked");
    flow.toSubFlow(child).end();
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    const [{ id } = { id: "" }] = await untilPending(execution);

    expect(await codeOf(execution.continueWith(id, { n: "one" }))).toBe("CONTRACT_VIOLATED");
    await execution.seal();
    expect(await codeOf(execution.continueWith(id, { n: 1 }))).toBe("EXECUTION_SEALED");
    expect(await codeOf(execution.close())).toBe("INTERRUPTS_PENDING");
    await execution.close({ pendingInterrupts: "cancel", reason: "enough" });

    expect((await execution.result.getMeta()).status).toBe("cancelled");
    expect(await untilFrame(execution, ({ status }) => status === "cancelled")).toMatchObject({
      cancelReason: "enough",
      interrupts: [],
    });
    await expectFamily(execution.id);
  });

  test("TF-SUB-13, TF-PAU-21: cancelling the frame cancels what shows of it, and another's stays", async () => {
    const child = defineFlow("two-child");
    child.to("ask", (ctx) => ctx.pauseFor({ interruptId: String(ctx.input) })).end();
    const flow = defineFlow("two");
    flow.toSubFlow(child).to("left", async (ctx) => await ctx.setState("left", ctx.input));
    flow
      .to("own", (ctx) => ctx.pauseFor({ interruptId: "own" }))
      .to("right", async (ctx) => await ctx.setState("right", ctx.input));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution("q", { autoCloseTimeout: 0 });
    await untilPending(execution, 2);
    const { id } = await untilFrame(execution);

    expect(await execution.cancelSubFlow(id)).toBe(true);

    expect((await untilPending(execution, 1)).map((interrupt) => interrupt.id)).toEqual(["own"]);
    await execution.continueWith("own", 1);
    expect(await execution.waitForClose()).toEqual({ right: 1 });
    expect(await codeOf(execution.continueWith(`${id}:q`, 1))).toBe("EXECUTION_CLOSED");
    await expectFamily(execution.id);
  });

  test("TF-PAU-03: a sub-flow of a hidden execution cannot pause, for nobody could answer", async () => {
    const child = defineFlow("hidden-child");
    child.to("ask", (ctx) => ctx.pauseFor());
    const flow = defineFlow("hidden-parent");
    flow.toSubFlow(child);
    await using orchestrator = await serving(database, [flow]);

    expect(String(await refusal(orchestrator.flow(flow).start(null)))).toMatch(/pause/);
  });
});

describe("the stream", () => {
  test("TF-STR-10: items of sub-flows are in every stream above them, in order, once, while they run", async () => {
    const gate = newGate();
    const inner = defineFlow("stream-inner", { stream: z.object({ inner: z.number() }) });
    inner.to("put", async (ctx) => {
      await ctx.putIntoStream({ inner: 1 });
      await ctx.flush();
      await gate.passed;
      await ctx.putIntoStream({ inner: 2 });
    });
    const middle = defineFlow("stream-middle");
    middle
      .to("before", async (ctx) => await ctx.putIntoStream({ middle: 1 }))
      .toSubFlow(inner)
      .to("behind", async (ctx) => await ctx.putIntoStream(null));
    const flow = defineFlow("stream-outer");
    flow
      .to("first", async (ctx) => await ctx.putIntoStream({ outer: 1 }))
      .toSubFlow(middle, { capture: { input: "value" } })
      .to("last", async (ctx) => await ctx.putIntoStream({ outer: 2 }));
    await using orchestrator = await serving(database, [flow]);
    await using visitor = visiting(database);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    const seen: unknown[] = [];

    for await (const { kind, item, cursor } of (await visitor.getExecution(execution.id)).streamItems({
      timeout: null,
    })) {
      seen.push([Number.parseInt(cursor), kind, item]);
      if (seen.length === 3) gate.open();
    }

    expect(seen).toEqual([
      [1, null, { outer: 1 }],
      [2, null, { middle: 1 }],
      [3, null, { inner: 1 }],
      [4, null, { inner: 2 }],
      [5, null, null],
      [6, null, { outer: 2 }],
    ]);
    const [frame] = await execution.getSubFlowFrames();
    const child = await orchestrator.getExecution(present(frame).id);
    expect(await collect(child.getRuntimeStream({ timeout: null }))).toEqual([
      { middle: 1 },
      { inner: 1 },
      { inner: 2 },
      null,
    ]);
    await expectFamily(execution.id);
  });

  test("many children at once keep their own order in the parent's stream, and none is lost", async () => {
    const child = defineFlow("crowd-child");
    child.to("put", async (ctx) => {
      for (let n = 0; n < 20; n++) await ctx.putIntoStream([ctx.input, n]);
    });
    const flow = defineFlow("crowd");
    flow.forEach().toSubFlow(child).endForEach();
    await using orchestrator = await serving(database, [flow]);
    const names = ["a", "b", "c", "d", "e"];
    const execution = await orchestrator.flow(flow).startExecution(names, { autoCloseTimeout: 0 });

    const items = (await collect(execution.getRuntimeStream({ timeout: null }))) as [string, number][];

    for (const name of names)
      expect(items.filter(([from]) => from === name).map(([, n]) => n)).toEqual(
        Array.from({ length: 20 }, (_, n) => n),
      );
    expect(items).toHaveLength(100);
    await expectFamily(execution.id);
  });

  test("a retried chunk of a child marks the parent's stream, and a stopped parent's stream takes nothing more", async () => {
    const gate = newGate();
    const child = defineFlow("marks-child");
    child
      .to(
        "flaky",
        async (ctx) => {
          await ctx.putIntoStream(ctx.attempt);
          if (ctx.attempt === 1) throw new Error("again");
        },
        { retry: { maxAttempts: 2, initialInterval: 1 } },
      )
      .to("late", async (ctx) => {
        await gate.passed;
        await ctx.putIntoStream("late");
      });
    const flow = defineFlow("marks");
    flow.toSubFlow(child);
    flow.when("Stop").to("stop", async (ctx) => {
      await ctx.stopStream();
      gate.open();
    });
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    const items: unknown[] = [];

    for await (const { kind, item } of execution.streamItems({ timeout: null })) {
      items.push([kind, item]);
      if (item === (2 as never)) await execution.emit("Stop", null);
    }

    const { id } = await untilFrame(execution);
    expect(items).toEqual([
      [null, 1],
      ["retry", { type: "retry", chunk: "flaky", attempt: 2, executionId: id }],
      [null, 2],
    ]);
    expect(await execution.waitForClose()).toEqual({});
    await expectFamily(execution.id);
  });
});

describe("how either of them ends", () => {
  test("TF-SUB-12: a failing child fails its parent with the cause, and nothing follows", async () => {
    const child = defineFlow("failing-child");
    child.to("break", () => {
      throw new TypeError("no such thing");
    });
    const flow = defineFlow("failing-parent");
    flow.toSubFlow(child).to("after", async (ctx) => await ctx.setState("after", true));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null);

    const error = await refusal(execution.waitForClose());

    expect(error).toBeInstanceOf(ExecutionFailedError);
    expect(String(error)).toMatch(/no such thing/);
    expect(await execution.result.getState("after")).toBeNull();
    expect(await untilFrame(execution)).toMatchObject({ status: "failed", error: { name: "TypeError" } });
    await expectFamily(execution.id);
  });

  test("a child that is cancelled behind its parent's back fails it", async () => {
    const child = defineFlow("gone-child");
    child.to("ask", (ctx) => ctx.pauseFor());
    const flow = defineFlow("gone");
    flow.toSubFlow(child);
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null);
    const { id } = await untilFrame(execution, ({ status }) => status === "waiting");
    await untilReleased(execution.id);

    await (await orchestrator.getExecution(id)).cancel("by hand");

    expect(String(await refusal(execution.waitForClose()))).toMatch(/by hand/);
    await expectFamily(execution.id);
  });

  test.each(["cancelled", "failed"])("the end of a parent that is %s cancels its children and theirs", async (how) => {
    const inner = defineFlow(`orphan-inner-${how}`);
    inner.to("ask", (ctx) => ctx.pauseFor());
    const middle = defineFlow(`orphan-middle-${how}`);
    middle.toSubFlow(inner);
    const flow = defineFlow(`orphan-${how}`);
    flow.toSubFlow(middle);
    flow.when("Break").to("break", () => {
      throw new Error("broken");
    });
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null);
    const [projected] = await untilPending(execution);
    const inmost = await orchestrator.getExecution(present(projected?.projectedFrom).executionId);

    if (how === "cancelled") await execution.cancel("stop all");
    else await execution.emit("Break", null);

    expect(await refusal(execution.waitForClose())).toBeInstanceOf(
      how === "cancelled" ? ExecutionCancelledError : ExecutionFailedError,
    );
    expect(await refusal(inmost.waitForClose())).toBeInstanceOf(ExecutionCancelledError);
    expect(await untilFrame(execution, ({ endedAt }) => endedAt !== null)).toMatchObject({ status: "cancelled" });
    await expectFamily(execution.id);
  });

  test("TF-PER-08: an execution with an open sub-flow is neither saved nor forked, and after its end it is", async () => {
    const child = defineFlow("saved-child");
    child.to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask" })).end();
    const flow = defineFlow("saved");
    flow
      .toSubFlow(child)
      .to("wait", (ctx) => ctx.pauseFor({ interruptId: "own" }))
      .to("end", async (ctx) => await ctx.setState("end", ctx.input));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    const { id } = await untilFrame(execution, ({ status }) => status === "waiting");

    expect(String(await refusal(execution.save()))).toMatch(/waits for sub-flow/);
    await execution.continueWith(`${id}:ask`, 1);
    const deadline = performance.now() + 8000;
    while ((await untilPending(execution))[0]?.id !== "own" && performance.now() < deadline);
    const copy = await orchestrator.load(await execution.save());

    await copy.continueWith("own", 5);
    expect(await copy.waitForClose()).toEqual({ end: 5 });
  });

  test("a child that was cancelled before any worker had it is heard of by its parent", async () => {
    const child = defineFlow("unclaimed-child");
    child.to("never", () => null);
    const flow = defineFlow("unclaimed");
    const gate = newGate();
    flow
      .to("call", (ctx) => ctx.call(child, null, { delay: "1h" }).catch(() => "gone"), { retry: { maxAttempts: 1 } })
      .to("stay", () => gate.passed);
    await using orchestrator = await serving(database, [flow, child]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    const started = await untilEvent(execution, "child.started");

    await (await untilThere(orchestrator, started.child)).cancel("not needed");

    expect(await untilEvent(execution, "child.closed")).toMatchObject({ child: started.child, outcome: "cancelled" });
    gate.open();
    await execution.waitForClose();
    await expectFamily(execution.id);
  });
});

test("every invariant holds for all of these families", async () => {
  await using orchestrator = visiting(database);

  expect(await orchestrator.verify()).toEqual([]);
});

test("what a sub-flow puts goes into its own stream, and into none above that has stopped", async () => {
  const [below, open, stopped] = await leases(sql, 3);
  if (!below || !open || !stopped) throw new Error("no leases");
  await sql`update flowledger.executions set stream_ended = true where id = ${stopped.id}`;
  const { id, epoch, token } = below;
  const items = [{ dispatch: 1, text: '"said"' }];

  const verdicts = await storeOn(sql).streams.put([
    { id, epoch, token, no: 1, items, marks: [], visibleIn: [open.id, stopped.id] },
  ]);

  expect(verdicts).toEqual(["ok"]);
  const rows = await sql<{ id: string }[]>`
    select execution_id as id from flowledger.stream_items where execution_id in ${sql([id, open.id, stopped.id])}`;
  expect(rows.map((row) => row.id).toSorted()).toEqual([id, open.id].toSorted());
});
