/** An execution that an operator paused: nothing starts, nothing is lost, and it goes on where it was. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import { rebuild } from "../../src/store/rebuild.ts";
import { verify } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, refusal, serving, untilEvent } from "../support/flows.ts";
import { kit } from "../support/kit.ts";

const database = await testDatabase();
const { sql } = database;
const by = { actor: "ann", reason: "maintenance" };

async function expectSound({ id }: { readonly id: string }): Promise<void> {
  expect(await verify(sql, { id })).toEqual([]);
  expect(await rebuild(sql, { id })).toEqual([]);
}

async function untilFree({ id }: { readonly id: string }): Promise<void> {
  await expect
    .poll(
      async () =>
        (await sql`select owner is null and wake_at is null as free from flowledger.executions where id = ${id}`)[0]?.[
          "free"
        ],
      { timeout: 8000 },
    )
    .toBe(true);
}

test("what runs reaches its end, nothing else starts, and events are kept until it goes on", async () => {
  const gate = newGate();
  const ran: string[] = [];
  const flow = defineFlow("pause.events");
  flow
    .to("first", async () => {
      ran.push("first");
      await gate.passed;
    })
    .to("second", () => ran.push("second"));
  flow.when("Heard").to("heard", () => ran.push("heard"));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await expect.poll(() => ran, { timeout: 8000 }).toEqual(["first"]);

  await execution.pause(by);
  await execution.emit("Heard", null);
  gate.open();
  await untilEvent(execution, "chunk.completed");
  await untilFree(execution);

  expect(ran).toEqual(["first"]);
  expect((await execution.result.getMeta()).paused).toMatchObject({ ...by, until: null, at: expect.any(Date) });
  await expectSound(execution);
  await execution.unpause({ actor: "bo", reason: "done" });
  await execution.waitForClose();
  expect(ran.toSorted()).toEqual(["first", "heard", "second"]);
  expect(await execution.history({ types: ["execution.paused", "execution.unpaused"] })).toMatchObject([
    by,
    { actor: "bo" },
  ]);
  await expectSound(execution);
});

test("timers that came due meanwhile fire afterwards; answers are kept; the timeout goes on counting", async () => {
  const flow = defineFlow("pause.timers");
  flow
    .to("sleep", async (ctx) => {
      await Promise.all([ctx.sleep("1h"), ctx.sleep("2h").then(() => ctx.setState("slept", true))]);
    })
    .to("ask", (ctx) => ctx.pauseFor({ type: "approval", interruptId: "boss", payload: null, expiresIn: "1h" }))
    .end();
  await using test = await kit({ flows: [flow] });
  const [execution, timed] = [await test.start(flow, null), await test.start(flow, null, { timeout: "1d" })];
  for (const run of [execution, timed]) {
    await untilEvent(run, "sleep.started");
    await run.pause(by);
  }

  await test.clock.advance("12h");
  expect(await execution.history({ types: ["chunk.completed"] })).toEqual([]);
  await test.clock.advance("12h");
  expect(await timed.result.getMeta()).toMatchObject({ status: "failed", closeReason: "timeout" });
  await execution.unpause(by);
  await untilEvent(execution, "interrupt.raised");
  await execution.pause(by);
  await execution.continueWith("boss", "yes");
  await test.clock.advance("2h");
  expect((await execution.result.getMeta()).lifecycleState).toBe("open");
  await execution.unpause(by);
  await untilEvent(execution, "inbox.routed", ({ moves }) => moves?.[0]?.move === "finalResult");
});

test("it goes on by itself at its time, and a cancel ends it before", async () => {
  const ran: string[] = [];
  const flow = defineFlow("pause.until");
  flow.when("Go").to("go", (ctx) => ran.push(ctx.execution.id));
  await using test = await kit({ flows: [flow] });
  const [later, ended] = [
    await test.start(flow, null, { autoClose: false }),
    await test.start(flow, null, { autoClose: false }),
  ];
  for (const run of [later, ended]) {
    await untilEvent(run, "inbox.routed");
    await run.pause({ ...by, until: "2026-01-02T09:00:00Z" });
    await run.emit("Go", null);
  }

  await ended.cancel();
  expect(await refusal(ended.waitForClose())).toMatchObject({ code: "EXECUTION_CANCELLED" });
  await test.clock.advance("23h");
  expect(ran).toEqual([]);
  await test.clock.advance("2h");

  expect(ran).toEqual([later.id]);
  expect(await later.history({ types: ["execution.unpaused"] })).toMatchObject([{ actor: "timer" }]);
});

test("a copy of it is paused; it can be paused before it starts, closed when it goes on, and by SQL", async () => {
  const flow = defineFlow("pause.copy");
  flow.to("run", () => "ran").end();
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).createExecution({ autoClose: false });
  await sql`select flowledger.pause(${execution.id}, ${sql.json(by)})`;
  await execution.start(null);
  await untilFree(execution);
  const copy = await execution.fork({ at: (await execution.result.getMeta()).stateVersion });
  await untilFree(copy);
  expect((await copy.result.getMeta()).paused).toMatchObject(by);

  await execution.seal();
  await sql`select flowledger.unpause(${execution.id}, ${sql.json(by)})`;

  expect(await execution.close()).toEqual({ $final_result: "ran" });
  expect(await copy.history({ types: ["chunk.completed"] })).toEqual([]);
  await expectSound(execution);
  await expectSound(copy);
});

test("what was paused when it closed is paused no more, for auditors too", async () => {
  const flow = defineFlow("pause.over").to("ask", (ctx) => ctx.pauseFor());
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await untilEvent(execution, "interrupt.raised");
  await execution.pause(by);
  expect(await sql`select from flowledger.pause_of(${execution.id})`).toHaveLength(1);

  await execution.cancel();
  await execution.waitForClose().catch(() => {});

  expect(await sql`select from flowledger.pause_of(${execution.id})`).toHaveLength(0);
});

test("what cannot be meant is refused by name at both doors", async () => {
  const flow = defineFlow("pause.refused");
  flow.to("run", () => "ran");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).createExecution();

  expect(await refusal(execution.unpause(by))).toMatchObject({ code: "USAGE_INVALID", message: /is not paused/ });
  for (const wrong of [
    { actor: "ann" },
    { ...by, until: "soon" },
    { ...by, until: "2020-01-01T00:00:00Z" },
    { ...by, till: 1 },
  ]) {
    expect(await refusal(execution.pause(wrong as never))).toMatchObject({ code: "USAGE_INVALID" });
    expect(await refusal(sql`select flowledger.pause(${execution.id}, ${sql.json(wrong)})`)).toMatchObject({
      code: "FL008",
    });
  }
  await execution.seal();
  expect(await refusal(execution.pause(by))).toMatchObject({ code: "EXECUTION_SEALED" });
  expect(await refusal(sql`select flowledger.pause(${execution.id}, ${sql.json(by)})`)).toMatchObject({
    code: "FL002",
  });
  expect((await execution.result.getMeta()).paused).toBe(null);
});

test("no item of a distributed collection begins while its execution is paused, and the next one as soon as it goes on", async () => {
  const gate = newGate();
  const ran: unknown[] = [];
  const flow = defineFlow("pause.items");
  flow
    .to("list", () => [1, 2])
    .forEach({ distribute: true, concurrency: 1 })
    .to("work", async (ctx) => {
      ran.push(ctx.input);
      await gate.passed;
    })
    .endForEach();
  await using t = await kit({ flows: [flow], patience: "50ms" });
  const execution = await t.start(flow, null, { autoCloseTimeout: 0 });
  await t.settle();

  await execution.pause(by);
  // What the owner begins before it has heard of the pause is not meant.
  await t.settle();
  gate.open();
  await t.settle();
  expect(await execution.history({ types: ["items.closed"] })).toHaveLength(1);
  expect(ran).toEqual([1]);

  await execution.unpause(by);
  await execution.until("closed");
  expect(ran).toEqual([1, 2]);
}, 20_000);
