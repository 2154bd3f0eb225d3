/** Pauses and their answers, by the library and by SQL. */
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import type { Ctx, Json, PendingInterruptsError } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { codeOf, doorsOf, present, untilPending } from "../support/doors.ts";
import { collect, newGate, refusal, serving, untilEvent } from "../support/flows.ts";
import { expectGuarantees, ledgerOf } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;
const nobody = "01890000-0000-7000-8000-000000000000";

describe.each(doorsOf(sql))("answered by $name", (door) => {
  test("TF-PAU-06: the answer to resumeTo next is the output of the chunk that paused", async () => {
    const flow = defineFlow(`next-${door.name}`);
    flow
      .to("ask", (ctx) => ctx.pauseFor({ payload: { q: ctx.input } }))
      .to("after", async (ctx) => await ctx.setState("answer", ctx.input));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution("really?", { autoCloseTimeout: 0 });
    const [interrupt] = await untilPending(execution);

    const record = await door.continueWith(execution, present(interrupt).id, { yes: true }, { actor: "ann" });

    expect(record).toMatchObject({ status: "resumed", value: { yes: true }, actor: "ann" });
    expect(await execution.waitForClose()).toEqual({ answer: { yes: true } });
    await expectGuarantees(sql, execution.id);
  });

  test("TF-PAU-07, LI-HIT-04, LI-HIT-05: resumeTo self runs the same chunk again with its first input and the answer beside it, and the pause is told once", async () => {
    const flow = defineFlow(`self-${door.name}`);
    flow
      .to("double", (ctx) => [ctx.input, ctx.input])
      .to("ask", async (ctx) => {
        if (!ctx.isResume) return ctx.pauseFor({ resumeTo: "self", interruptId: "mine" });
        await ctx.setState("input", ctx.input);
        await ctx.setState("resume", JSON.parse(JSON.stringify(ctx.resume)));
        return "done";
      })
      .to("after", async (ctx) => await ctx.setState("after", ctx.input));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(7, { autoCloseTimeout: 0 });
    await untilPending(execution);

    await door.continueWith(execution, "mine", "go", { actor: "bob" });

    expect(await execution.waitForClose()).toEqual({
      input: [7, 7],
      resume: { value: "go", interruptId: "mine", count: 1, actor: "bob" },
      after: "done",
    });
    expect(await collect(execution.getRuntimeStream())).toMatchObject([{ action: "pause" }, { action: "resume" }]);
    await expectGuarantees(sql, execution.id);
  });

  test("TF-PAU-10: the answer to resumeTo an event goes to the handlers of that event", async () => {
    const flow = defineFlow(`event-${door.name}`);
    flow
      .to("ask", (ctx) => ctx.pauseFor({ resumeTo: { event: "Decided" } }))
      .to("never", async (ctx) => await ctx.setState("never", true));
    flow.when("Decided").to("heard", async (ctx) => await ctx.setState("heard", [ctx.event, ctx.input]));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    const [interrupt] = await untilPending(execution);

    await door.continueWith(execution, present(interrupt).id, 42);

    expect(await execution.waitForClose()).toEqual({ heard: ["Decided", 42] });
  });

  test("TF-PAU-11: unknown, answered, cancelled and expired interrupts take no answer", async () => {
    const flow = defineFlow(`gone-${door.name}`);
    flow.to("answered", (ctx) => ctx.pauseFor({ interruptId: "answered" }));
    flow.to("short", (ctx) => ctx.pauseFor({ interruptId: "short", expiresIn: 1 }));
    flow.to("waiting", (ctx) => ctx.pauseFor({ interruptId: "waiting" }));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    await untilEvent(execution, "interrupt.expired");
    await untilPending(execution, 2);
    await door.continueWith(execution, "answered", 1);
    const before = await ledgerOf(sql, execution.id);

    const codes = [];
    for (const id of ["answered", "short", "unknown", "", "x'; drop table flowledger.ledger; --", "\u202egnp.exe"])
      codes.push(await codeOf(door.continueWith(execution, id, 2, { onlyIfPending: true })));

    expect(codes).toEqual(Array(6).fill("INTERRUPT_NOT_PENDING"));
    expect((await ledgerOf(sql, execution.id)).filter((type) => type.startsWith("inter"))).toEqual(
      before.filter((type) => type.startsWith("inter")),
    );
    await execution.close({ pendingInterrupts: "cancel" });
    expect(await codeOf(door.continueWith(execution, "waiting", 2))).toBe("EXECUTION_CLOSED");
    await expectGuarantees(sql, execution.id);
  });

  test("TF-PAU-12, TF-PAU-18, F38: a repeated request id gives the same whole record and dispatches once, also when raced and after the close", async () => {
    const flow = defineFlow(`repeat-${door.name}`);
    flow
      .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }))
      .to("after", async (ctx) => await ctx.appendState("runs", ctx.input));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution);
    const answer = () => door.continueWith(execution, "q", { ok: 1 }, { resumeRequestId: "r-1", actor: "ann" });

    const raced = await Promise.all(Array.from({ length: 20 }, answer));
    const snapshot = await execution.waitForClose();
    const late = await answer();

    expect(snapshot).toEqual({ runs: [{ ok: 1 }] });
    expect(new Set([...raced, late].map((record) => JSON.stringify(record))).size).toBe(1);
    expect(late).toMatchObject({
      status: "resumed",
      value: { ok: 1 },
      requestId: "r-1",
      actor: "ann",
      resumeCount: 0,
      resolvedAt: expect.anything(),
    });
    expect((await ledgerOf(sql, execution.id)).filter((type) => type === "interrupt.resumed")).toHaveLength(1);
  });

  test("TF-PAU-12: a request id that answered an earlier pause does not answer the next one of the same interrupt", async () => {
    const flow = defineFlow(`again-${door.name}`);
    flow.to("ask", async (ctx) => {
      if (ctx.resume) await ctx.appendState("answers", ctx.resume.value);
      return ctx.resume?.count === 2 ? null : ctx.pauseFor({ interruptId: "q", resumeTo: "self", maxResumes: 2 });
    });
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution);
    await door.continueWith(execution, "q", "first", { resumeRequestId: "r-1" });
    await untilEvent(execution, "interrupt.raised", ({ resumeCount }) => resumeCount === 1);

    await door.continueWith(execution, "q", "first", { resumeRequestId: "r-1" });
    const conflict = await codeOf(door.continueWith(execution, "q", "other", { resumeRequestId: "r-1" }));
    const stillPending = await execution.getPendingInterrupts();
    await door.continueWith(execution, "q", "second", { resumeRequestId: "r-2" });

    expect(conflict).toBe("RESUME_CONFLICT");
    expect(stillPending).toHaveLength(1);
    expect(await execution.waitForClose()).toEqual({ answers: ["first", "second"] });
  });

  test("TF-PAU-12: a request id is that of one interrupt: with another it answers another", async () => {
    const flow = defineFlow(`both-${door.name}`);
    flow
      .to("left", (ctx) => ctx.pauseFor({ interruptId: "left" }))
      .to("kept left", (ctx) => ctx.setState("left", ctx.input));
    flow
      .to("right", (ctx) => ctx.pauseFor({ interruptId: "right" }))
      .to("kept right", (ctx) => ctx.setState("right", ctx.input));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution, 2);

    await door.continueWith(execution, "left", 1, { resumeRequestId: "r" });
    await door.continueWith(execution, "right", 2, { resumeRequestId: "r" });

    expect(await execution.waitForClose()).toEqual({ left: 1, right: 2 });
  });

  test("TF-PAU-13: a request id with another answer is a conflict, and the first one stands", async () => {
    const flow = defineFlow(`conflict-${door.name}`);
    flow
      .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }))
      .to("after", async (ctx) => await ctx.setState("a", ctx.input));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution);
    await door.continueWith(execution, "q", { a: 1, b: 2 }, { resumeRequestId: "r" });

    const code = await codeOf(door.continueWith(execution, "q", { a: 2 }, { resumeRequestId: "r" }));
    const same = await door.continueWith(execution, "q", { b: 2, a: 1 }, { resumeRequestId: "r" });

    expect(code).toBe("RESUME_CONFLICT");
    expect(same.value).toEqual({ a: 1, b: 2 });
    expect(await execution.waitForClose()).toEqual({ a: { a: 1, b: 2 } });
  });

  test("TF-PAU-14, F39: of 20 answers at once exactly one counts", async () => {
    const flow = defineFlow(`race-${door.name}`);
    flow
      .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }))
      .to("after", async (ctx) => await ctx.appendState("won", ctx.input));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    await untilPending(execution);

    const codes = await Promise.all(
      Array.from({ length: 20 }, (_, index) => codeOf(door.continueWith(execution, "q", index))),
    );
    const snapshot = await execution.close();

    expect(codes.filter((code) => code === "ok")).toHaveLength(1);
    expect(codes.filter((code) => code === "INTERRUPT_NOT_PENDING")).toHaveLength(19);
    expect(snapshot).toEqual({ won: [codes.indexOf("ok")] });
    await expectGuarantees(sql, execution.id);
  });

  test("a question is answered through its own execution, and through none that it does not show on", async () => {
    const flow = defineFlow(`own-${door.name}`);
    flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    const other = await orchestrator.flow(flow).createExecution();
    await untilPending(execution);

    expect(await codeOf(door.continueWith(other, `${execution.id}:q`, 1))).toBe("INTERRUPT_NOT_PENDING");

    expect(await execution.getPendingInterrupts()).toMatchObject([{ id: "q" }]);
    for (const one of [execution, other]) await one.cancel();
  });

  test("TF-PAU-19: a sealed or closed execution refuses answers, and so does one that does not exist", async () => {
    const flow = defineFlow(`late-${door.name}`);
    flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    await untilPending(execution);
    await execution.seal();

    const sealed = await codeOf(door.continueWith(execution, "q", 1));
    await execution.close({ pendingInterrupts: "cancel" });
    const closed = await codeOf(door.continueWith(execution, "q", 1));

    expect([sealed, closed]).toEqual(["EXECUTION_SEALED", "EXECUTION_CLOSED"]);
    expect(await codeOf(sql`select flowledger.continue_with(${nobody}, 'q', '1')`)).toBe("EXECUTION_NOT_FOUND");
  });
});

describe("a pause", () => {
  test("TF-PAU-01, TF-PAU-02, TF-PAU-04: leaves a record with the defaults, a waiting execution, and downstream at rest", async () => {
    const flow = defineFlow("plain");
    flow.to("ask", (ctx) => ctx.pauseFor()).to("after", async (ctx) => await ctx.setState("ran", true));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution();
    const pending = await untilPending(execution);
    const { status } = await execution.result.getMeta();

    expect(status).toBe("waiting");
    expect(pending).toEqual([
      {
        id: expect.any(String),
        executionId: execution.id,
        flow: "plain",
        chunk: "ask",
        type: "pause",
        status: "pending",
        payload: null,
        resumeTo: "next",
        resumeCount: 0,
        maxResumes: 1,
        createdAt: expect.any(Date),
        expiresAt: null,
        resolvedAt: null,
        value: null,
        requestId: null,
        actor: null,
        response: null,
        title: null,
        assignees: null,
        dueAt: null,
        claimedBy: null,
        claimedAt: null,
        isExclusive: false,
        snoozedUntil: null,
        projectedFrom: null,
      },
    ]);
    expect(await execution.result.getState("ran")).toBeNull();
    await expectGuarantees(sql, execution.id);
  });

  test("TF-PAU-03: in a hidden execution fails it with NoResumeHandleError, from start and from the stream", async () => {
    const flow = defineFlow("hidden");
    flow.to("ask", (ctx) => ctx.pauseFor());
    await using orchestrator = await serving(database, [flow]);

    expect(await codeOf(orchestrator.flow(flow).start())).toBe("NO_RESUME_HANDLE");
    expect(await codeOf(collect(orchestrator.flow(flow).getRuntimeStream()))).toBe("NO_RESUME_HANDLE");
  });

  test("TF-PAU-08: pausing again after the one resume that self allows fails the execution", async () => {
    const flow = defineFlow("limit");
    flow.to("ask", (ctx) => ctx.pauseFor({ resumeTo: "self", interruptId: "q" }));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution();
    await untilPending(execution);

    await execution.continueWith("q", 1);

    const error = await refusal(execution.waitForClose());
    expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { code: "SELF_RESUME_LIMIT" } });
    await expectGuarantees(sql, execution.id);
  });

  test("TF-PAU-09: maxResumes bounds what it says, null nothing, and another interruptId begins a new count", async () => {
    const flow = defineFlow("bounds");
    flow.to("free", (ctx) =>
      (ctx.resume?.count ?? 0) < 4 ? ctx.pauseFor({ interruptId: "free", resumeTo: "self", maxResumes: null }) : 4,
    );
    flow.to("named", (ctx) => {
      const round = Number(ctx.resume?.value ?? 0);
      return round < 3 ? ctx.pauseFor({ interruptId: `round-${round}`, resumeTo: "self" }) : "end";
    });
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

    for (let count = 0; count < 4; count++) {
      await untilEvent(execution, "interrupt.raised", ({ id, resumeCount }) => id === "free" && resumeCount === count);
      await execution.continueWith("free", null);
    }
    for (let round = 0; round < 3; round++) {
      await untilEvent(execution, "interrupt.raised", ({ id }) => id === `round-${round}`);
      await execution.continueWith(`round-${round}`, round + 1);
    }

    expect(await execution.waitForClose()).toEqual({});
    await expectGuarantees(sql, execution.id);
  });

  test("TF-PAU-09, TF-PAU-22: options that cannot be are refused where they are written", async () => {
    const options = [
      { maxResumes: -1 },
      { maxResumes: 1.5 },
      { expiresIn: "soon" },
      { resumeTo: "nowhere" },
      { resumeTo: { event: "" } },
      { resumeTo: {} },
      { interruptId: "" },
      { interruptId: 7 },
      { type: "" },
      { type: 7 },
      { payload: 1n },
    ];
    const flow = defineFlow("bad-pauses");
    flow.to("ask", (ctx) => ctx.pauseFor(options[Number(ctx.input)] as { type?: string }));
    await using orchestrator = await serving(database, [flow]);

    const codes = [];
    for (const index of options.keys()) {
      const execution = await orchestrator.flow(flow).startExecution(index);
      const error = await refusal(execution.waitForClose());
      codes.push((error as { cause: { code?: string } }).cause.code);
    }

    expect(codes).toEqual([...Array(10).fill("USAGE_INVALID"), "PAYLOAD_UNSTORABLE"]);
  });

  test("TF-PAU-10: an emit of the resume event answers it, from outside and from a chunk", async () => {
    const flow = defineFlow("by-event");
    flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "a", resumeTo: { event: "Go" } }));
    flow.to("ask too", (ctx) => ctx.pauseFor({ interruptId: "b", resumeTo: { event: "Come" } }));
    flow.when("Go").to("went", async (ctx) => {
      await ctx.appendState("heard", ctx.input);
      await ctx.emit("Come", "from a chunk");
    });
    flow.when("Come").to("came", async (ctx) => await ctx.appendState("heard", ctx.input));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution, 2);

    await execution.emit("Go", "from outside");

    expect(await execution.waitForClose()).toEqual({ heard: ["from outside", "from a chunk"] });
    expect(await codeOf(execution.continueWith("a", 1))).toBe("EXECUTION_CLOSED");
    await expectGuarantees(sql, execution.id);
  });

  test("TF-PAU-15: what follows an answer is retried like anything else, and the answer is given once", async () => {
    const flow = defineFlow("retried");
    flow
      .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }))
      .to(
        "after",
        async (ctx) => {
          await ctx.step("try", () => null);
          if (ctx.attempt === 1) throw new Error("not yet");
          await ctx.setState("done", ctx.input);
        },
        { retry: { maxAttempts: 2, initialInterval: 1 } },
      );
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution);

    await execution.continueWith("q", "yes", { resumeRequestId: "r" });

    expect(await execution.waitForClose()).toEqual({ done: "yes" });
    expect((await ledgerOf(sql, execution.id)).filter((type) => type === "interrupt.resumed")).toHaveLength(1);
  });

  test("TF-PAU-21, TF-PAU-24: several wait at once while another branch goes on, each answered alone", async () => {
    const gate = newGate();
    const flow = defineFlow("several");
    flow
      .to("a", (ctx) => ctx.pauseFor({ interruptId: "a" }))
      .to("after a", async (ctx) => await ctx.setState("a", ctx.input));
    flow
      .to("b", (ctx) => ctx.pauseFor({ interruptId: "b" }))
      .to("after b", async (ctx) => await ctx.setState("b", ctx.input));
    flow.to("c", () => gate.passed).to("after c", async (ctx) => await ctx.setState("c", "went on"));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution, 2);

    gate.open();
    await untilEvent(execution, "state.set", ({ key }) => key === "c");
    await execution.continueWith("a", 1);
    await untilEvent(execution, "state.set", ({ key }) => key === "a");
    const { status } = await execution.result.getMeta();
    await execution.continueWith("b", 2);

    expect(status).toBe("waiting");
    expect(await execution.waitForClose()).toEqual({ a: 1, b: 2, c: "went on" });
    await expectGuarantees(sql, execution.id);
  });

  test("TF-PAU-22: a later pause with the same id replaces the record; one that is pending is not replaced", async () => {
    const flow = defineFlow("reused");
    flow
      .to("first", (ctx) => ctx.pauseFor({ interruptId: "q", payload: 1 }))
      .to("second", (ctx) => ctx.pauseFor({ interruptId: "q", payload: 2 }))
      .to("both", (ctx) => ctx.emit("Clash", null));
    flow.when("Clash").to("one", (ctx) => ctx.pauseFor({ interruptId: "clash" }));
    flow.when("Clash").to("two", (ctx) => ctx.pauseFor({ interruptId: "clash" }));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution);
    await execution.continueWith("q", "x", { actor: "ann" });
    await untilEvent(execution, "interrupt.raised", ({ payload }) => payload === 2);

    expect(await execution.getPendingInterrupts()).toMatchObject([
      { id: "q", payload: 2, status: "pending", actor: null, value: null, requestId: null },
    ]);
    await execution.continueWith("q", null);
    expect(await refusal(execution.waitForClose())).toMatchObject({ cause: { code: "USAGE_INVALID" } });
    await expectGuarantees(sql, execution.id);
  });

  test.each<[string, (ctx: Ctx) => unknown]>([
    [
      "awaited and not returned",
      async (ctx) => {
        const asked: unknown = ctx.pauseFor();
        await asked;
      },
    ],
    ["returned in something else", (ctx) => ({ asked: ctx.pauseFor() })],
    [
      "one of two",
      (ctx) => {
        ctx.pauseFor({ interruptId: "p" });
        return ctx.pauseFor({ interruptId: "q" });
      },
    ],
  ])("that is %s fails its chunk by name, and nobody is asked", async (name, handler) => {
    const flow = defineFlow(`not-returned.${name.replaceAll(" ", "-")}`);
    flow.to("ask", handler).to("never", async (ctx) => await ctx.setState("never", true));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

    await expect(execution.waitForClose()).rejects.toThrow(
      /pauseFor\(\) of chunk "ask" was not returned, and asks nobody: return what it returns/,
    );

    expect(await sql`select from flowledger.interrupts where execution_id = ${execution.id}`).toHaveLength(0);
    await expectGuarantees(sql, execution.id);
  });

  test("that is returned by way of others, or of which its chunk failed before, is asked", async () => {
    const flow = defineFlow("returned-by-others");
    const ask = async (ctx: Ctx) =>
      await Promise.race([Promise.resolve(ctx.pauseFor({ interruptId: "q" })), new Promise(() => {})]);
    flow
      .to(
        "ask",
        (ctx) => {
          if (ctx.attempt > 1) return ask(ctx);
          ctx.pauseFor();
          throw new Error("once");
        },
        { retry: { maxAttempts: 2, initialInterval: 1 } },
      )
      .to("after", async (ctx) => await ctx.setState("answer", ctx.input));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution);

    await execution.continueWith("q", "yes");

    expect(await execution.waitForClose()).toEqual({ answer: "yes" });
  });

  test("LI-HIT-07: expires unanswered after its time, nothing follows from it, and the execution goes on to its end", async () => {
    const flow = defineFlow("expiring");
    flow
      .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", expiresIn: 30 }))
      .to("never", async (ctx) => await ctx.setState("never", true));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

    expect(await execution.waitForClose()).toEqual({});
    const [row] = await sql<{ status: string; late: number }[]>`
      select status, extract(epoch from resolved_at - expires_at)::float8 as late from flowledger.interrupts where execution_id = ${execution.id}`;
    expect(row).toMatchObject({ status: "expired" });
    expect(present(row).late).toBeGreaterThanOrEqual(0);
    await expectGuarantees(sql, execution.id);
  });

  test("TF-LIF-10, TF-LIF-11: holds a close back: reject names what waits and leaves it open to answers, cancel cancels it", async () => {
    const flow = defineFlow("closing");
    for (const id of ["p", "q"])
      flow
        .to(id, (ctx) => ctx.pauseFor({ interruptId: id }))
        .to(`after ${id}`, async (ctx) => await ctx.setState(id, ctx.input));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    await untilPending(execution, 2);

    const refused = await refusal(execution.close());
    expect(refused).toMatchObject({ code: "INTERRUPTS_PENDING" });
    expect((refused as PendingInterruptsError).details["interruptIds"]).toEqual(expect.arrayContaining(["p", "q"]));
    expect(await codeOf(sql`select flowledger.close(${execution.id})`)).toBe("INTERRUPTS_PENDING");
    expect(await codeOf(sql`select flowledger.close(${execution.id}, 'x', 'perhaps')`)).toBe("USAGE_INVALID");
    expect(await codeOf(execution.close({ pendingInterrupts: "perhaps" as "cancel" }))).toBe("USAGE_INVALID");
    expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "open", status: "waiting" });
    await execution.continueWith("p", "answered");
    await untilEvent(execution, "state.set");
    const snapshot = await execution.close({ pendingInterrupts: "cancel", reason: "enough" });

    expect(snapshot).toEqual({ p: "answered" });
    expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "closed", status: "cancelled" });
    expect(await execution.history({ types: ["interrupt.cancelled"] })).toMatchObject([{ id: "q", reason: "enough" }]);
    const rows = await sql`
      select id, status, resolved_at is not null as resolved from flowledger.interrupts where execution_id = ${execution.id} order by id`;
    expect(rows).toEqual([
      { id: "p", status: "resumed", resolved: true },
      { id: "q", status: "cancelled", resolved: true },
    ]);
    await expectGuarantees(sql, execution.id);
  });

  test("TF-LIF-09, TF-LIF-10: one that is raised while a close drains refuses it by name, and a close that cancels ends it", async () => {
    const gate = newGate();
    const flow = defineFlow("late-pause");
    flow.to("hold", () => gate.passed).to("ask", (ctx) => ctx.pauseFor({ interruptId: "late" }));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

    const closing = refusal(execution.close());
    await untilEvent(execution, "execution.sealed");
    gate.open();

    const refused = await closing;
    expect(refused).toMatchObject({ code: "INTERRUPTS_PENDING", details: { interruptIds: ["late"] } });
    expect(String(refused)).toContain("1 interrupt got an answer (late)");
    expect(await execution.close({ pendingInterrupts: "cancel" })).toEqual({});
  });

  test("TF-PAU-23: is in the database and told in one commit, so whoever hears of it can answer at once", async () => {
    const gate = newGate();
    const flow = defineFlow("published");
    flow.to("hold", () => gate.passed).to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }));
    const other = defineFlow("bystander");
    other.to("work", () => null);
    await using orchestrator = await serving(database, [flow, other]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilEvent(execution, "execution.claimed");
    const told: string[] = [];
    const answered = (async () => {
      for await (const { kind, item } of execution.streamItems({ timeout: null })) {
        told.push((item as unknown as { action: string }).action);
        if (kind === "interrupt" && told.length === 1) await execution.continueWith("q", 1);
      }
    })();

    await sql.begin(async (tx) => {
      // As long as it cannot be stored, nobody hears of it.
      await tx`select 1 from flowledger.executions where id = ${execution.id} for update`;
      gate.open();
      for (let round = 0; round < 3; round++) await orchestrator.flow(other).start(null);
      expect([told, await execution.getPendingInterrupts()]).toEqual([[], []]);
    });

    await answered;
    expect(told).toEqual(["pause", "resume"]);
    await expectGuarantees(sql, execution.id);
  });

  test("holds the auto-close back, however long it waits", async () => {
    const flow = defineFlow("patient");
    flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }));
    flow.when("Tick").to("tick", async (ctx) => await ctx.appendState("ticks", ctx.input));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 1 });
    await untilPending(execution);

    // Each tick drains the execution again, past the idle time of a millisecond.
    for (const tick of [1, 2, 3]) {
      await execution.emit("Tick", tick);
      await untilEvent(execution, "state.appended", ({ value }) => value === tick);
    }
    expect((await execution.result.getMeta()).status).toBe("waiting");
    await execution.continueWith("q", null);

    expect(await execution.waitForClose()).toEqual({ ticks: [1, 2, 3] });
  });

  test("takes only the answers its response schema allows, coerced", async () => {
    const flow = defineFlow("typed");
    flow
      .to("ask", (ctx) =>
        ctx.pauseFor({
          interruptId: "q",
          response: z.object({ approved: z.boolean(), note: z.string().default("-") }),
        }),
      )
      .to("after", async (ctx) => await ctx.setState("approved", ctx.input.approved));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution);

    for (const bad of [{ approved: "yes" }, {}, null, 3])
      expect(await codeOf(execution.continueWith("q", bad))).toBe("CONTRACT_VIOLATED");
    expect(await codeOf(execution.continueWith("q", 1n as never))).toBe("PAYLOAD_UNSTORABLE");
    await execution.continueWith("q", { approved: true });

    expect(await execution.waitForClose()).toEqual({ approved: true });
  });

  test("LI-HIT-01, TF-STR-08: is told in the stream, from the pause to its answer", async () => {
    const flow = defineFlow("told");
    flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", type: "approval", payload: "?" }));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution);
    await execution.continueWith("q", "!");

    const items = await collect(execution.getRuntimeStream());

    expect(items).toMatchObject([
      {
        type: "interrupt",
        action: "pause",
        executionId: execution.id,
        interrupt: { id: "q", status: "pending", payload: "?" },
      },
      { type: "interrupt", action: "resume", value: "!", interrupt: { id: "q", status: "resumed" } },
    ]);
  });

  test("listPendingInterrupts is the inbox: by flow, type, metadata and age, in pages without gap or repeat", async () => {
    const flows = ["inbox-a", "inbox-b"].map((name) => {
      const flow = defineFlow(name, { input: z.string() });
      flow.to("ask", (ctx) => ctx.pauseFor({ type: ctx.input, interruptId: `q ${ctx.input}` }));
      return flow;
    });
    await using orchestrator = await serving(database, flows);
    for (const flow of flows)
      for (const index of [1, 2, 3, 4])
        await orchestrator
          .flow(flow)
          .startExecution(index % 2 ? "approval" : "question", { metadata: { tenant: `t${index}` } });
    await expect
      .poll(async () => (await sql`select 1 from flowledger.interrupts where flow like 'inbox-%'`).length)
      .toBe(8);
    const list = async (options: Parameters<typeof orchestrator.listPendingInterrupts>[0]) =>
      (await orchestrator.listPendingInterrupts(options)).interrupts.filter(({ flow }) => flow.startsWith("inbox-"));

    expect(await list({ flow: "inbox-a" })).toHaveLength(4);
    expect(await list({ type: "approval" })).toHaveLength(4);
    expect(await list({ flow: "inbox-b", type: "question", metadata: { tenant: "t2" } })).toHaveLength(1);
    expect(await list({ flow: "inbox-a", olderThan: new Date(0) })).toEqual([]);
    expect(await list({ flow: "inbox-a", olderThan: new Date(Date.now() + 60_000) })).toHaveLength(4);
    const seen: string[] = [];
    for (let cursor: string | null = null, pages = 0; pages === 0 || cursor !== null; pages++) {
      const page = await orchestrator.listPendingInterrupts({
        flow: "inbox-a",
        limit: 3,
        ...(cursor !== null && { cursor }),
      });
      seen.push(...page.interrupts.map(({ executionId }) => executionId));
      cursor = page.nextCursor;
    }
    expect(seen).toHaveLength(4);
    expect(new Set(seen).size).toBe(4);
    // The last of a page is answered and asks again, or is gone: what stood behind it is behind it still.
    const page = await orchestrator.listPendingInterrupts({ flow: "inbox-a", limit: 2 });
    const [, last] = page.interrupts;
    const rest = async () =>
      (await orchestrator.listPendingInterrupts({ flow: "inbox-a", cursor: page.nextCursor ?? "" })).interrupts.map(
        ({ executionId }) => executionId,
      );
    await sql`update flowledger.interrupts set created_at = now() where execution_id = ${last?.executionId ?? null}`;
    expect(await rest()).toEqual([...seen.slice(2), last?.executionId]);
    await sql`delete from flowledger.interrupts where execution_id = ${last?.executionId ?? null}`;
    expect(await rest()).toEqual(seen.slice(2));
    expect(await codeOf(orchestrator.listPendingInterrupts({ limit: 0 }))).toBe("USAGE_INVALID");
    expect(await codeOf(orchestrator.listPendingInterrupts({ cursor: "nonsense" }))).toBe("USAGE_INVALID");
    const misspelt = { flows: "review" } as object;
    expect(await codeOf(orchestrator.listPendingInterrupts(misspelt))).toBe("USAGE_INVALID");
  });
});

test.each<[string, string, Json[]]>([
  ["a wrong uuid", "22P02", ["not-an-id", "q", "{}"]],
  ["no JSON", "22P02", [nobody, "q", "{"]],
])("SQL says so in its own words: %s", async (_, state, [id, interrupt, payload]) => {
  const call = sql.unsafe("select flowledger.continue_with($1::text::uuid, $2, $3::text::jsonb)", [
    String(id),
    String(interrupt),
    String(payload),
  ]);

  expect(await codeOf(call)).toBe(state);
});
