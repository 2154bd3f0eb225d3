/** Answers that come before their question. */
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { codeOf, doorsOf, untilPending } from "../support/doors.ts";
import { newGate, refusal, serving, untilEvent } from "../support/flows.ts";
import { expectGuarantees, ledgerOf } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;
const Decision = z.object({ approved: z.boolean(), note: z.string().default("-") });

/** Asks as soon as it is let. */
function asking(name: string, response: z.ZodType | null = null) {
  const flow = defineFlow(name);
  flow
    .when("Ask")
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss", response }))
    .to("after", (ctx) => ctx.appendState("after", ctx.input));
  flow.to("begin", () => null);
  return flow;
}

describe.each(doorsOf(sql))("answered by $name", (door) => {
  test("an answer that comes before its question is kept, checked and taken when it is asked, once", async () => {
    const flow = asking(`early-${door.name}`, Decision);
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

    const kept = await door.continueWith(execution, "boss", { approved: true }, { actor: "ann", resumeRequestId: "r" });
    const again = await door.continueWith(
      execution,
      "boss",
      { approved: true },
      { actor: "ann", resumeRequestId: "r" },
    );
    const conflict = await codeOf(door.continueWith(execution, "boss", { approved: false }, { resumeRequestId: "r" }));
    const second = await codeOf(door.continueWith(execution, "boss", { approved: false }));
    const meta = await execution.result.getMeta();
    await execution.emit("Ask", null);
    await untilEvent(execution, "state.appended");
    const late = await door.continueWith(execution, "boss", { approved: true }, { resumeRequestId: "r" });

    expect(kept).toMatchObject({ id: "boss", status: "early", value: { approved: true }, actor: "ann" });
    expect(again).toEqual(kept);
    expect([conflict, second]).toEqual(["RESUME_CONFLICT", "INTERRUPT_NOT_PENDING"]);
    expect(meta).toMatchObject({ earlyAnswers: ["boss"], status: "running" });
    expect(late).toMatchObject({ status: "resumed", value: { approved: true, note: "-" }, actor: "ann" });
    expect(await execution.close()).toEqual({ after: [{ approved: true, note: "-" }] });
    expect(await execution.result.getMeta()).not.toHaveProperty("earlyAnswers");
    const ledger = await ledgerOf(sql, execution.id);
    expect(ledger.filter((type) => type.startsWith("interrupt."))).toEqual([
      "interrupt.answered",
      "interrupt.raised",
      "interrupt.resumed",
    ]);
    await expectGuarantees(sql, execution.id);
  });

  test("one that breaks what the pause asks for is refused in the ledger, and the pause stays", async () => {
    const flow = asking(`early-bad-${door.name}`, Decision);
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    await door.continueWith(execution, "boss", { approved: "yes" });

    await execution.emit("Ask", null);
    await untilEvent(execution, "interrupt.refused");

    expect(await execution.history({ types: ["interrupt.refused"] })).toMatchObject([
      { id: "boss", problem: expect.stringContaining("approved") },
    ]);
    expect(await untilPending(execution)).toMatchObject([{ id: "boss", status: "pending" }]);
    await door.continueWith(execution, "boss", { approved: false, note: "-" });
    expect(await execution.close()).toEqual({ after: [{ approved: false, note: "-" }] });
    await expectGuarantees(sql, execution.id);
  });

  test("onlyIfPending refuses what nobody has asked, and so do seals, closes and ids that no pause has", async () => {
    const flow = asking(`early-refused-${door.name}`);
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

    const codes = [
      await codeOf(door.continueWith(execution, "boss", 1, { onlyIfPending: true })),
      await codeOf(door.continueWith(execution, "boss", 1, { onlyIfPending: true, resumeRequestId: "r" })),
      await codeOf(door.continueWith(execution, "", 1)),
      await codeOf(door.continueWith(execution, `${execution.id}:q`, 1)),
      await codeOf(door.continueWith(execution, "boss", 1, { onlyIfPending: "no" as unknown as boolean })),
    ];
    await execution.seal();
    codes.push(await codeOf(door.continueWith(execution, "boss", 1)));
    await execution.close();
    codes.push(await codeOf(door.continueWith(execution, "boss", 1)));

    expect(codes).toEqual([
      ...Array(4).fill("INTERRUPT_NOT_PENDING"),
      "USAGE_INVALID",
      "EXECUTION_SEALED",
      "EXECUTION_CLOSED",
    ]);
    expect((await ledgerOf(sql, execution.id)).filter((type) => type.startsWith("interrupt."))).toEqual([]);
  });

  test("a hundred are kept, and no more", async () => {
    const flow = asking(`early-many-${door.name}`);
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    for (let index = 0; index < 100; index++) await door.continueWith(execution, `q${index}`, index);

    const error = await refusal(door.continueWith(execution, "boss", 1));
    const repeated = await codeOf(door.continueWith(execution, "q0", 1));

    expect(String(error)).toContain("keeps 100 answers");
    expect(repeated).toBe("INTERRUPT_NOT_PENDING");
    // One that was asked meanwhile leaves room for another.
    await sql`
      insert into flowledger.interrupts select r.* from jsonb_populate_record(null::flowledger.interrupts, jsonb_build_object(
        'execution_id', ${execution.id}::text, 'id', 'q0', 'flow', ${flow.name}::text, 'chunk', 'ask', 'type', 'pause', 'status', 'resumed',
        'payload', 'null'::jsonb, 'resume_to', '"next"'::jsonb, 'resume_count', 0, 'created_at', now(), 'raised_seq', 1)) r`;
    expect(await door.continueWith(execution, "boss", 1)).toMatchObject({ status: "early" });
    await execution.close();
  });
});

test("an early answer is carried by save, load and fork, and one given before the start waits for it", async () => {
  const flow = asking("early-carried");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).createExecution({ autoClose: false });
  await execution.continueWith("boss", 7, { actor: "ann" });
  const created = await execution.result.getMeta();
  await execution.start();
  await untilEvent(execution, "chunk.completed");
  const fork = await execution.fork({ at: (await execution.history()).length });
  const loaded = await orchestrator.load(await execution.save());

  expect(created).toMatchObject({ status: "created", earlyAnswers: ["boss"] });
  expect(await orchestrator.rebuild({ id: execution.id })).toEqual([]);
  for (const one of [execution, fork, loaded]) {
    await one.emit("Ask", null);
    await untilEvent(one, "state.appended");
    expect(await one.close()).toEqual({ after: [7] });
    expect(await one.history({ types: ["interrupt.resumed"] })).toMatchObject([{ value: 7, actor: "ann" }]);
    await expectGuarantees(sql, one.id);
  }
});

test("an answer that comes while its question is on its way is taken, and nobody is asked twice", async () => {
  const gate = newGate();
  const flow = defineFlow("early-raced");
  flow
    .to("hold", () => gate.passed)
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }))
    .to("after", (ctx) => ctx.setState("a", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  for (let round = 0; round < 10; round++) {
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    gate.open();

    const [, snapshot] = await Promise.all([execution.continueWith("boss", round), execution.waitForClose()]);

    expect(snapshot).toEqual({ a: round });
    await expectGuarantees(sql, execution.id);
  }
});

test("an early answer of a sub-flow is kept by it", async () => {
  const gate = newGate();
  const child = defineFlow("early-child");
  child
    .to("hold", () => gate.passed)
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }))
    .to("after", (ctx) => ctx.setState("a", ctx.input));
  const flow = defineFlow("early-parent");
  flow.toSubFlow(child).to("after", (ctx) => ctx.setState("a", true));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "child.started");
  // The parent says so before the child is there.
  await expect.poll(() => execution.getSubFlowFrames()).toHaveLength(1);
  const [frame] = await execution.getSubFlowFrames();

  expect(await codeOf(execution.continueWith(`${frame?.id}:boss`, 7))).toBe("ok");
  gate.open();

  expect(await execution.waitForClose()).toEqual({ a: true });
  await expectGuarantees(sql, execution.id);
});

test("options in SQL count as the guide writes them, without a cast; a request id that only looks like JSON stays one", async () => {
  const flow = asking("early-uncast");
  await using orchestrator = await serving(database, [flow]);
  const { id } = await orchestrator.flow(flow).startExecution(null, { autoClose: false });

  const refused = await codeOf(
    sql.unsafe(`select flowledger.continue_with('${id}', 'boss', '1', '{"onlyIfPending": true}')`),
  );
  const unknown = await codeOf(
    sql.unsafe(`select flowledger.continue_with('${id}', 'boss', '1', '{"actor": "ann", "who": 1}')`),
  );
  const [kept] = await sql.unsafe<{ record: { status: string; requestId: string } }[]>(
    `select flowledger.continue_with('${id}', 'boss', '1', '{"order": 17}') as record`,
  );

  expect({ refused, unknown }).toEqual({ refused: "INTERRUPT_NOT_PENDING", unknown: "USAGE_INVALID" });
  expect(kept?.record).toMatchObject({ status: "early", requestId: '{"order": 17}' });
});

describe("an event that comes before the pause that waits for it", () => {
  /** Heard by its handlers when it comes, as always. */
  function waiting(name: string) {
    const gate = newGate();
    const flow = defineFlow(name, { state: z.object({ heard: z.array(z.unknown()) }).partial() });
    flow
      .to("hold", () => gate.passed)
      .to("ask", (ctx) => ctx.pauseFor({ interruptId: "a", resumeTo: { event: "Paid" } }));
    flow.when("Paid").to("heard", (ctx) => ctx.appendState("heard", ctx.input));
    flow.when("Again").to("ask again", (ctx) => ctx.pauseFor({ interruptId: "a", resumeTo: { event: "Paid" } }));
    return { flow, gate };
  }

  for (const door of ["the library", "SQL"])
    test(`ends that pause, and its handlers run once, from ${door}`, async () => {
      const { flow, gate } = waiting(`early-event-${door.replaceAll(" ", "-")}`);
      await using orchestrator = await serving(database, [flow]);
      const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
      await untilEvent(execution, "inbox.routed");

      if (door === "SQL") await sql`select flowledger.emit(${execution.id}, 'Paid', '7'::jsonb)`;
      else await execution.emit("Paid", 7);
      await untilEvent(execution, "state.appended");
      gate.open();

      expect(await execution.waitForClose()).toEqual({ heard: [7] });
      const resumed = await execution.history({ types: ["interrupt.resumed"] });
      const [emitted] = await execution.history({ types: ["event.emitted"] });
      expect(resumed).toMatchObject([{ id: "a", value: 7, byEvent: "Paid", of: emitted?.seq }]);
      await expectGuarantees(sql, execution.id);
    });

  test("is taken by one pause; a chain that asks again waits for one that came after its last question", async () => {
    const { flow, gate } = waiting("early-event-loop");
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    await untilEvent(execution, "inbox.routed");
    await execution.emit("Paid", 1);
    // Sent twice: no answer to what is asked later.
    await execution.emit("Paid", 2);
    await expect.poll(async () => (await execution.history({ types: ["state.appended"] })).length).toBe(2);
    gate.open();
    await untilEvent(execution, "interrupt.resumed");

    await execution.emit("Again", null);
    await expect.poll(async () => (await execution.getPendingInterrupts()).length).toBe(1);
    // What answers a question that waits is no answer to the next.
    await execution.emit("Paid", "live");
    await expect.poll(async () => (await execution.history({ types: ["interrupt.resumed"] })).length).toBe(2);
    await execution.emit("Again", null);
    await expect.poll(async () => (await execution.getPendingInterrupts()).length).toBe(1);
    await expect.poll(async () => (await execution.history({ types: ["state.appended"] })).length).toBe(3);
    const fork = await execution.fork({ at: (await execution.history()).length });
    const loaded = await orchestrator.load(await execution.save());
    expect(await orchestrator.rebuild({ id: execution.id })).toEqual([]);

    for (const one of [execution, fork, loaded]) {
      await one.emit("Paid", 3);
      expect(await one.close()).toEqual({ heard: [1, 2, "live", 3] });
      const resumed = await one.history({ types: ["interrupt.resumed"] });
      expect(resumed).toMatchObject([{ value: 1 }, { value: "live" }, { value: 3 }]);
      expect(resumed).toHaveLength(3);
      await expectGuarantees(sql, one.id);
    }
  });

  test("is kept by a fork and a load from before the pause", async () => {
    const { flow, gate } = waiting("early-event-copied");
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).createExecution({ autoCloseTimeout: 0 });
    await execution.emit("Paid", 7);
    await untilEvent(execution, "state.appended");
    gate.open();
    const fork = await execution.fork({ at: (await execution.history()).length });
    const loaded = await orchestrator.load(await execution.save());

    for (const one of [execution, fork, loaded]) {
      await one.start();
      expect(await one.waitForClose()).toEqual({ heard: [7] });
      await expectGuarantees(sql, one.id);
    }
  });

  test("counts only when it keeps the contract, and of many the last hundred", async () => {
    const gate = newGate();
    const flow = defineFlow("early-event-contract", { events: { Paid: z.number() } });
    flow.to("hold", () => gate.passed).to("ask", (ctx) => ctx.pauseFor({ resumeTo: { event: "Paid" } }));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilEvent(execution, "inbox.routed");
    await sql`select flowledger.emit(${execution.id}, 'Paid', '"seven"'::jsonb)`;
    for (let n = 0; n < 101; n++) await execution.emit("Paid", n);
    await expect.poll(async () => (await execution.history({ types: ["inbox.routed"] })).length).toBe(103);
    gate.open();

    await execution.waitForClose();

    expect(await execution.history({ types: ["interrupt.resumed"] })).toMatchObject([{ value: 1 }]);
  });

  test("is kept as far as there is room: large ones push the oldest out, and the last one counts whatever its size", async () => {
    const gate = newGate();
    const flow = defineFlow("early-event-large");
    flow.to("hold", () => gate.passed).to("ask", (ctx) => ctx.pauseFor({ resumeTo: { event: "Paid" } }));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilEvent(execution, "inbox.routed");
    const large = "x".repeat(1_000_000);
    for (const name of ["first", "second", "third"]) await execution.emit("Paid", [name, large]);
    await expect.poll(async () => (await execution.history({ types: ["inbox.routed"] })).length).toBe(4);
    gate.open();

    await execution.waitForClose();

    const [resumed] = await execution.history({ types: ["interrupt.resumed"] });
    expect(resumed).toMatchObject({ value: ["second", large] });
    expect(await orchestrator.rebuild({ id: execution.id })).toEqual([]);
  });
});
