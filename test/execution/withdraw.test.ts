/** A question that is taken back: from outside, by the library and by SQL, and by a chunk. */
import { describe, expect, test } from "vitest";
import { defineFlow, InterruptNotPendingError } from "../../src/index.ts";
import type { Execution } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { codeOf, untilPending } from "../support/doors.ts";
import { collect, newGate, refusal, serving, untilEvent } from "../support/flows.ts";
import { expectGuarantees } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;

type Handle = Pick<Execution, "id" | "withdraw">;
const doors = [
  {
    name: "library",
    withdraw: async (one: Handle, id: string, reason: string, actor: string) =>
      await one.withdraw(id, { reason, actor }),
  },
  {
    name: "sql",
    withdraw: async ({ id }: Handle, interrupt: string, reason: string, actor: string) =>
      (
        await sql<
          { record: { status: string } }[]
        >`select flowledger.withdraw(${id}, ${interrupt}, ${reason}, ${actor}) as record`
      )[0]?.record,
  },
] as const;

/** Two questions side by side, each with a chain behind it. */
function asking(name: string) {
  const flow = defineFlow(name);
  for (const id of ["boss", "other"])
    flow
      .to(id, (ctx) => ctx.pauseFor({ interruptId: id }))
      .to(`after ${id}`, async (ctx) => await ctx.setState(id, ctx.input));
  return flow;
}

describe.each(doors)("withdrawn by $name", (door) => {
  test("its chain ends, the rest goes on, and a later answer hears who withdrew it and when", async () => {
    const flow = asking(`withdraw-${door.name}`);
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution, 2);

    const record = await door.withdraw(execution, "boss", "sold already", "ann");
    const late = await refusal(execution.continueWith("boss", 1));
    const bySql = await refusal(sql`select flowledger.continue_with(${execution.id}, 'boss', '1')`);
    const again = await codeOf(door.withdraw(execution, "boss", "x", "bob"));
    await execution.continueWith("other", 2);

    expect(record).toMatchObject({ id: "boss", status: "withdrawn", actor: "ann" });
    expect(await execution.waitForClose()).toEqual({ other: 2 });
    const [event] = await execution.history({ types: ["interrupt.cancelled"] });
    expect(event).toMatchObject({ id: "boss", withdrawn: true, actor: "ann", reason: "sold already" });
    const sentence = `was withdrawn by ann at ${event?.at.toISOString()} (sold already)`;
    expect(late).toBeInstanceOf(InterruptNotPendingError);
    expect([String(late), String(bySql)]).toEqual([
      expect.stringContaining(sentence),
      expect.stringContaining(sentence),
    ]);
    expect(late).toMatchObject({ details: { status: "withdrawn", withdrawnBy: "ann", pending: ["other"] } });
    expect(again).toBe("INTERRUPT_NOT_PENDING");
    expect(await execution.result.getMeta()).toMatchObject({ status: "completed" });
    expect(await collect(execution.getRuntimeStream())).toMatchObject([
      { action: "pause" },
      { action: "pause" },
      { action: "withdraw", interrupt: { id: "boss", status: "withdrawn", actor: "ann" } },
      { action: "resume" },
    ]);
    await expectGuarantees(sql, execution.id);
  });

  test("what is unknown, answered, closed or nobody's is refused, and names what waits", async () => {
    const flow = asking(`refused-${door.name}`);
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    await untilPending(execution, 2);
    await execution.continueWith("boss", 1);

    const codes = [];
    for (const id of ["boss", "unknown", "", `${execution.id}:q`])
      codes.push(await codeOf(door.withdraw(execution, id, "x", "ann")));
    const error = await refusal(execution.withdraw("unknown"));
    codes.push(await codeOf(door.withdraw(execution, "other", "x", "")));
    codes.push(await codeOf(door.withdraw(execution, "other", "", "ann")));
    await execution.close({ pendingInterrupts: "cancel" });
    codes.push(await codeOf(door.withdraw(execution, "other", "x", "ann")));

    expect(codes).toEqual([
      ...Array(4).fill("INTERRUPT_NOT_PENDING"),
      "USAGE_INVALID",
      "USAGE_INVALID",
      "EXECUTION_CLOSED",
    ]);
    expect(String(error)).toContain("other waits");
  });

  test("in a sealed execution, so that its close goes on", async () => {
    const gate = newGate();
    const flow = defineFlow(`sealed-${door.name}`);
    flow.to("hold", () => gate.passed).to("ask", (ctx) => ctx.pauseFor({ interruptId: "late" }));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    const closing = refusal(execution.close());
    await untilEvent(execution, "execution.sealed");
    gate.open();
    expect(await closing).toMatchObject({ code: "INTERRUPTS_PENDING" });

    await door.withdraw(execution, "late", "x", "ann");

    expect(await execution.waitForClose()).toEqual({});
    await expectGuarantees(sql, execution.id);
  });

  test("of a sub-flow, by the id that its parent shows", async () => {
    const child = asking(`child-${door.name}`);
    const flow = defineFlow(`parent-${door.name}`);
    flow.toSubFlow(child).to("after", async (ctx) => await ctx.setState("after", true));
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    const pending = await untilPending(execution, 2);
    const boss = pending.find(({ chunk }) => chunk === "boss")?.id ?? "";

    const record = await door.withdraw(execution, boss, "x", "ann");
    await execution.continueWith(pending.find(({ id }) => id !== boss)?.id ?? "", 2);

    expect(record).toMatchObject({ id: boss, status: "withdrawn" });
    expect(await execution.waitForClose()).toEqual({ after: true });
    await expectGuarantees(sql, execution.id);
  });
});

test("ctx.withdraw takes a question back once, also where the chunk is tried again, and ends what waits for its chain", async () => {
  const flow = defineFlow("by-chunk");
  flow.to("begin", async (ctx) => {
    await ctx.emit("Ask", null, { wait: true });
    await ctx.setState("order", "begin goes on");
  });
  flow.when("Ask").to("boss", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
  flow.when("Sold").to(
    "sold",
    async (ctx) => {
      await ctx.withdraw("boss", { reason: "sold" });
      await ctx.flush();
      if (ctx.attempt === 1) throw new Error("not yet");
    },
    { retry: { maxAttempts: 2, initialInterval: 1 } },
  );
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await untilPending(execution);

  await execution.emit("Sold", null);

  await untilEvent(execution, "state.set");
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "sold");
  const late = await refusal(execution.continueWith("boss", 1));
  expect(String(late)).toMatch(/was withdrawn by chunk "sold" at \d{4}-.*Z \(sold\)/);
  expect(await execution.history({ types: ["interrupt.cancelled"] })).toMatchObject([
    { chunk: "sold", withdrawn: true },
  ]);
  expect(await execution.close()).toEqual({ order: "begin goes on" });
  await expectGuarantees(sql, execution.id);
});

test("ctx.withdraw refuses what does not wait and what it cannot mean, and the chunk may catch that", async () => {
  const flow = defineFlow("by-chunk-refused");
  flow.to("asked", (ctx) => ctx.pauseFor({ interruptId: "answered" }));
  flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
  flow.when("Try").to("try", async (ctx) => {
    await ctx.appendState("codes", await codeOf(ctx.withdraw("answered")));
    for (const [id, options] of [
      ["unknown", {}],
      ["boss", { reason: "" }],
      ["boss", { reson: "x" } as object],
    ] as const)
      await ctx.appendState("codes", await codeOf(ctx.withdraw(id, options)));
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await untilPending(execution, 2);
  await execution.continueWith("answered", 1);
  await execution.emit("Try", null);
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "try");

  expect(await execution.getPendingInterrupts()).toHaveLength(1);
  expect(await execution.close({ pendingInterrupts: "cancel" })).toEqual({
    codes: ["ok", "INTERRUPT_NOT_PENDING", "USAGE_INVALID", "USAGE_INVALID"],
  });
});

test("a withdrawn question is carried by a fork, a save and a rebuild, and may be asked again", async () => {
  const flow = defineFlow("carried");
  flow
    .when("Ask")
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }))
    .to("after", (ctx) => ctx.setState("a", ctx.input));
  flow.to("begin", (ctx) => ctx.emit("Ask", null));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await untilPending(execution);
  await execution.withdraw("boss", { actor: "ann", reason: "moot" });
  const fork = await execution.fork({ at: (await execution.history()).length });
  const loaded = await orchestrator.load(await execution.save());

  expect(await orchestrator.rebuild({ id: execution.id })).toEqual([]);
  for (const one of [execution, fork, loaded]) {
    expect(String(await refusal(one.continueWith("boss", 1)))).toContain("was withdrawn by ann at");
    await one.emit("Ask", null);
    await untilPending(one);
    await one.continueWith("boss", 2);
    expect(await one.close()).toEqual({ a: 2 });
    await expectGuarantees(sql, one.id);
  }
});

test("an answer that is accepted while a chunk's withdrawal is on its way counts, and is followed", async () => {
  const gate = newGate();
  const flow = asking("raced-withdrawal");
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
  flow.when("Sold").to("sold", async (ctx) => {
    begin();
    await gate.passed;
    await ctx.withdraw("boss");
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await untilPending(execution, 2);
  await execution.emit("Sold", null);
  await begun;

  await sql.begin(async (tx) => {
    await tx`select 1 from flowledger.executions where id = ${execution.id} for update`;
    gate.open();
    // A commit of the owner's waits for the row by then.
    await expect
      .poll(
        async () =>
          (await sql`select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`)
            .length,
        { timeout: 8000 },
      )
      .toBeGreaterThan(0);
    await tx`select flowledger.continue_with(${execution.id}, 'boss', '"in time"')`;
  });

  await untilEvent(execution, "state.set");
  await execution.continueWith("other", null);
  expect(await execution.close()).toEqual({ boss: "in time", other: null });
  await expectGuarantees(sql, execution.id);
});
