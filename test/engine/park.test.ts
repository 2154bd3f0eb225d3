/** A chunk whose last attempt failed waits for an operator, where its flow says so; everything else goes on. */
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow, type Execution } from "../../src/index.ts";
import { rebuild } from "../../src/store/rebuild.ts";
import { verify } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, refusal, serving, untilEvent, untilThere } from "../support/flows.ts";
import { kit } from "../support/kit.ts";

const database = await testDatabase();
const { sql } = database;
const parking = { onFailure: "park" } as const;
const by = { actor: "ann", reason: "INC-12" };
const atOnce = { autoCloseTimeout: 0 } as const;

const fails = (): never => {
  throw new Error("no");
};

async function expectSound({ id }: { readonly id: string }): Promise<void> {
  expect(await verify(sql, { id })).toEqual([]);
  expect(await rebuild(sql, { id })).toEqual([]);
}

/** Its row when nobody has it any more. */
async function restingRow({ id }: { readonly id: string }) {
  await expect
    .poll(async () => (await sql`select owner from flowledger.executions where id = ${id}`)[0]?.["owner"], {
      timeout: 8000,
    })
    .toBe(null);
  const [row] = await sql`select status, parked, wake_at as "wakeAt" from flowledger.executions where id = ${id}`;
  return row;
}

test("a chunk parks after its last attempt, holds nothing, and what runs beside it goes on", async () => {
  const gate = newGate();
  const flow = defineFlow("park.beside", {}, parking);
  flow
    .batch({
      bad: fails,
      good: async () => {
        await gate.passed;
        return "good";
      },
    })
    .to("never", () => "reached");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);

  await untilEvent(execution, "chunk.parked");
  gate.open();
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "good");

  expect(await restingRow(execution)).toMatchObject({ status: "parked", parked: 1, wakeAt: null });
  expect((await execution.result.getMeta()).status).toBe("parked");
  expect((await orchestrator.listExecutions({ status: "parked" })).executions.map(({ id }) => id)).toContain(
    execution.id,
  );
  expect(await execution.history({ types: ["chunk.parked", "chunk.failed", "execution.closed"] })).toMatchObject([
    { type: "chunk.parked", chunk: "bad", attempt: 1, error: { message: "no" } },
  ]);
  await expectSound(execution);
});

test("it parks after the retries of its policy, after a timeout, and for what its contract refuses", async () => {
  const flow = defineFlow("park.reasons", {}, parking);
  flow.to("retried", fails, { retry: { maxAttempts: 3, initialInterval: 1 } });
  flow.to("slow", () => new Promise(() => {}), { timeout: 5 });
  flow.to("wrong", () => "text", { output: z.number() as never });
  flow.to("unstorable", (): unknown => 1n);
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);

  for (const chunk of ["retried", "slow", "wrong", "unstorable"])
    await untilEvent(execution, "chunk.parked", (event) => event.chunk === chunk);

  const parked = await execution.history({ types: ["chunk.parked"] });
  expect(
    Object.fromEntries(parked.map((event) => ("error" in event ? [event.error?.chunk, event.error?.name] : []))),
  ).toEqual({
    retried: "Error",
    slow: "ChunkTimeoutError",
    wrong: "ContractError",
    unstorable: "PayloadError",
  });
  expect(await restingRow(execution)).toMatchObject({ parked: 4 });
  await expectSound(execution);
});

test("a chunk's own policy counts before that of its flow, both ways", async () => {
  const failing = defineFlow("park.own-fail", {}, parking);
  failing.to("bad", fails, { onFailure: "fail" });
  const own = defineFlow("park.own-park");
  own.to("bad", fails, { onFailure: "park" });
  await using orchestrator = await serving(database, [failing, own]);

  const failed = await orchestrator.flow(failing).startExecution(null, atOnce);
  const parked = await orchestrator.flow(own).startExecution(null, atOnce);

  expect(await refusal(failed.waitForClose())).toMatchObject({ code: "EXECUTION_FAILED" });
  await untilEvent(parked, "chunk.parked");
});

test("a hidden execution fails instead, since nobody could do anything about it", async () => {
  const flow = defineFlow("park.hidden", {}, parking);
  flow.to("bad", fails);
  await using orchestrator = await serving(database, [flow]);

  expect(await refusal(orchestrator.flow(flow).start(null))).toMatchObject({ code: "EXECUTION_FAILED" });
});

test("what is parked holds no slot of its flow's limits", async () => {
  const flow = defineFlow("park.limited", {}, { ...parking, limits: { concurrency: 1 } });
  flow.to("maybe", (ctx) => (ctx.input === "bad" ? fails() : "done"));
  await using orchestrator = await serving(database, [flow]);
  const bad = await orchestrator.flow(flow).startExecution("bad", atOnce);
  await untilEvent(bad, "chunk.parked");

  expect(await (await orchestrator.flow(flow).startExecution("good", atOnce)).waitForClose()).toEqual({});
});

test("a parked item gives its place in the collection to the next", async () => {
  const done: unknown[] = [];
  const flow = defineFlow("park.items", {}, parking);
  flow
    .forEach({ concurrency: 1 })
    .to("first", (ctx) => ctx.input)
    .to("second", (ctx) => (ctx.input === 2 ? fails() : done.push(ctx.input)))
    .endForEach();
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution([1, 2, 3], atOnce);

  await expect.poll(() => done, { timeout: 8000 }).toEqual([1, 3]);

  expect(await restingRow(execution)).toMatchObject({ parked: 1 });
  await expectSound(execution);
});

test("close() refuses by name while chunks are parked, and fails them where that is said", async () => {
  const flow = defineFlow("park.close", {}, parking);
  flow.to("bad", fails);
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await untilEvent(execution, "chunk.parked");

  expect(await refusal(execution.close())).toMatchObject({
    code: "CHUNKS_PARKED",
    details: { parked: [{ chunk: "bad", index: null, executionId: execution.id }] },
  });
  expect((await execution.result.getMeta()).lifecycleState).toBe("open");
  await expect(sql`select flowledger.close(${execution.id})`).rejects.toMatchObject({ code: "FL012" });
  expect(await refusal(execution.close({ parked: "fail" }))).toMatchObject({
    code: "EXECUTION_FAILED",
    cause: { message: "no" },
  });
  await expectSound(execution);
});

test("what parks while its execution closes is told to whoever waits for the close, or fails with it", async () => {
  const gates = [newGate(), newGate()];
  const flow = defineFlow("park.closing", {}, parking);
  flow.to("bad", async (ctx) => {
    await gates[Number(ctx.input)]?.passed;
    return fails();
  });
  await using orchestrator = await serving(database, [flow]);
  const start = (input: number) => orchestrator.flow(flow).startExecution(input, { autoClose: false });
  const close = async (execution: Execution, input: number, parked: "fail" | "reject") => {
    const closing = refusal(execution.close({ parked }));
    await untilEvent(execution, "execution.sealed");
    gates[input]?.open();
    return closing;
  };

  expect(await close(await start(0), 0, "reject")).toMatchObject({ code: "CHUNKS_PARKED" });
  expect(await close(await start(1), 1, "fail")).toMatchObject({ code: "EXECUTION_FAILED" });
});

test("a cancel ends what is parked", async () => {
  const flow = defineFlow("park.cancel", {}, parking);
  flow.to("bad", fails);
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(execution, "chunk.parked");

  await execution.cancel("enough");

  expect(await refusal(execution.waitForClose())).toMatchObject({ code: "EXECUTION_CANCELLED" });
  await expectSound(execution);
});

test("a sub-flow that fails parks in the flow around it; one that parks itself is named at the close", async () => {
  const child = defineFlow("park.child");
  child.to("bad", fails);
  const parkingChild = defineFlow("park.child-parks", {}, parking);
  parkingChild.to("bad", fails);
  const parent = defineFlow("park.parent", {}, parking);
  parent.toSubFlow(child);
  const above = defineFlow("park.above");
  above.toSubFlow(parkingChild);
  await using orchestrator = await serving(database, [child, parkingChild, parent, above]);
  const failed = await orchestrator.flow(parent).startExecution(null, { autoClose: false });
  const waiting = await orchestrator.flow(above).startExecution(null, { autoClose: false });

  await untilEvent(failed, "chunk.parked");
  const { child: childId } = await untilEvent(waiting, "child.started");
  await untilEvent(await untilThere(orchestrator, childId), "chunk.parked");

  expect(await refusal(waiting.close())).toMatchObject({
    details: { parked: [{ chunk: "bad", executionId: childId }] },
  });
  expect(await refusal(waiting.close({ parked: "fail", actor: "ann" }))).toMatchObject({ code: "EXECUTION_FAILED" });
  const below = await orchestrator.getExecution(childId);
  expect(await below.history({ types: ["execution.sealed"] })).toMatchObject([{ actor: "ann" }]);
  expect(await refusal(failed.close({ parked: "fail" }))).toMatchObject({ code: "EXECUTION_FAILED" });
  await expectSound(failed);
  await expectSound(waiting);
});

test("a close names and fails what is parked however deep it is", async () => {
  const child = defineFlow("park.deep", {}, parking);
  child.to("bad", fails);
  const parent = defineFlow("park.middle");
  parent.toSubFlow(child);
  const above = defineFlow("park.top");
  above.toSubFlow(parent);
  await using orchestrator = await serving(database, [child, parent, above]);
  const execution = await orchestrator.flow(above).startExecution(null, { autoClose: false });
  const middle = await untilEvent(execution, "child.started");
  const deep = await untilEvent(await untilThere(orchestrator, middle.child), "child.started");
  await untilEvent(await untilThere(orchestrator, deep.child), "chunk.parked");

  expect(await refusal(execution.close())).toMatchObject({
    details: { parked: [{ chunk: "bad", executionId: deep.child }] },
  });
  expect(await refusal(execution.close({ parked: "fail" }))).toMatchObject({ code: "EXECUTION_FAILED" });
  await expectSound(execution);
});

test("a sub-flow is called by its flow, wherever it stands and whatever is done to it", async () => {
  let isMended = false;
  const child = defineFlow("park.named");
  child
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }))
    .to("bad", () => (isMended ? "good" : fails()))
    .end();
  const flow = defineFlow("park.naming", {}, parking);
  flow.toSubFlow(child).to("keep", (ctx) => ctx.setState("kept", ctx.input));
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { ...atOnce, autoClose: false });
  await run.until("idle");

  await expect(run.skip({ chunk: "other", output: 1, ...by })).rejects.toThrow(
    /it stands at "park.named" \(runs or waits\)/,
  );
  await run.continueWith((await run.getPendingInterrupts())[0]?.id ?? "", "yes");
  await run.until("idle");

  expect((await run.explain()).sentence).toMatch(/^It waits for an operator: chunk "park.named" is parked since/);
  expect(await refusal(run.close())).toMatchObject({ details: { chunks: ["park.named"] } });
  await expect(run.retry({ chunk: "other", ...by })).rejects.toThrow(/it stands at "park.named" \(parked\)/);
  const closed = await refusal(run.close({ parked: "fail" }));
  expect(closed).toMatchObject({ code: "EXECUTION_FAILED" });
  await expect(run.redrive({ from: { chunk: "other" }, ...by })).rejects.toThrow(/it ran park.named/);
  isMended = true;
  const again = await t.attach((await run.redrive({ from: { chunk: "park.named" }, ...by })).id);
  await again.until("idle");

  // The child that failed is redriven with it: its question has its answer.
  expect(await again.result.getState()).toEqual({ kept: "good" });
});

test("park.after fails it in the end, and the execution's timeout goes on counting", async () => {
  const flow = defineFlow("park.after", {}, { onFailure: "park", park: { after: "30d" } });
  flow.to("bad", fails);
  await using test = await kit({ flows: [flow] });
  const execution = await test.start(flow, null);
  const timed = await test.start(flow, null, { timeout: "1d" });
  for (const run of [execution, timed]) await untilEvent(run, "chunk.parked");

  await test.clock.advance("29d");
  expect((await execution.result.getMeta()).status).toBe("parked");
  expect(await timed.result.getMeta()).toMatchObject({ status: "failed", closeReason: "timeout" });
  await test.clock.advance("2d");

  expect(await execution.result.getMeta()).toMatchObject({ status: "failed", closeReason: "failed" });
});

test("a copy of what parked for too long waits as long again", async () => {
  const flow = defineFlow("park.copy", {}, { onFailure: "park", park: { after: "1d" } });
  flow.to("bad", fails);
  await using test = await kit({ flows: [flow] });
  const execution = await test.start(flow, null);
  await untilEvent(execution, "chunk.parked");
  const [{ seq } = { seq: 0 }] = await execution.history({ types: ["chunk.parked"] });
  await test.clock.advance("2d");
  expect((await execution.result.getMeta()).status).toBe("failed");

  const copy = await execution.fork({ at: seq });
  await test.clock.advance("23h");
  expect((await copy.result.getMeta()).status).toBe("parked");
  await test.clock.advance("2h");

  expect((await copy.result.getMeta()).status).toBe("failed");
  expect(await test.orchestrator.verify()).toEqual([]);
});

test("what took worker after worker down parks, and what runs beside it goes on", async () => {
  const flow = defineFlow("park.crash-loop", {}, parking);
  flow.to("suspect", (ctx) => ctx.sleep("1h"));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(execution, "sleep.started");
  await restingRow(execution);

  await sql`update flowledger.executions set takeovers = 5 where id = ${execution.id}`;
  await execution.emit("anything", null);

  expect(await untilEvent(execution, "chunk.parked")).toMatchObject({
    chunk: "suspect",
    error: { name: "WorkerCrashLoopError" },
  });
  expect(await restingRow(execution)).toMatchObject({ status: "parked" });
  expect(await sql`select takeovers from flowledger.executions where id = ${execution.id}`).toEqual([{ takeovers: 0 }]);
  await expectSound(execution);
});

test("an execution that only waits for an operator does not hold up its schedule", async () => {
  const flow = defineFlow("park.schedule", {}, parking);
  flow.to("bad", fails);
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(execution, "chunk.parked");
  await restingRow(execution);
  await sql`insert into flowledger.schedules (name, flow, cron, time_zone, fired_until, last_id)
    values ('park.schedule', ${flow.name}, '* * * * *', 'UTC', date_trunc('hour', flowledger.now()) - interval '2 hours', ${execution.id})`;

  const [fired] = await sql`
    select f.* from flowledger.schedules s, flowledger.fire_schedule(s.name, s.fired_until, s.fired_until + interval '1 minute',
      array[s.fired_until + interval '1 minute'], null, false, 'skip', 'null', ${sql.json({ flow: flow.name })}, 0, null) f
    where s.name = 'park.schedule'`;

  expect(fired).toMatchObject({ done: true });
  expect(
    await sql`select last_id <> ${execution.id} as moved from flowledger.schedules where name = 'park.schedule'`,
  ).toEqual([{ moved: true }]);
});

test("a copy of it is parked as well, here and elsewhere", async () => {
  const flow = defineFlow("park.copies", {}, parking);
  flow.to("bad", fails);
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(execution, "chunk.parked");
  await restingRow(execution);

  const { stateVersion } = await execution.result.getMeta();
  const fork = await execution.fork({ at: stateVersion });
  const loaded = await orchestrator.load(await execution.save());

  for (const copy of [fork, loaded]) {
    expect((await copy.result.getMeta()).status).toBe("parked");
    await expectSound(copy);
  }
});

test("options that cannot be meant are refused where they are written", () => {
  const flow = defineFlow("park.options");
  const define = (options: object) => () => flow.to("bad", fails, options);

  expect(define({ onFailure: "pause" })).toThrow(/onFailure of chunk "bad"/);
  expect(define({ park: { after: "1d" } })).toThrow(/has park, and does not park/);
  expect(define({ onFailure: "park", park: { after: "soon" } })).toThrow(/park.after of chunk "bad"/);
  expect(define({ onFailure: "park", park: { until: "1d" } })).toThrow(
    /park of chunk "bad" has an unknown option "until"/,
  );
  expect(() => defineFlow("park.options", {}, { park: { after: "1d" } })).toThrow(/has park, and does not park/);
});
