/** A chunk's output is given in its place: where it parked, backs off or paused. */
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import { rebuild } from "../../src/store/rebuild.ts";
import { verify } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, serving, untilEvent } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
const parking = { onFailure: "park" } as const;
const atOnce = { autoCloseTimeout: 0 } as const;
const by = { actor: "ann", reason: "done by hand" };

const fails = (): never => {
  throw new Error("no");
};

async function expectSound({ id }: { readonly id: string }): Promise<void> {
  expect(await verify(sql, { id })).toEqual([]);
  expect(await rebuild(sql, { id })).toEqual([]);
}

test("what follows a parked chunk goes on with the output that was given, conditions too", async () => {
  const flow = defineFlow("skip.parked", {}, parking);
  flow
    .to("charge", fails)
    .ifCondition((ctx) => ctx.input === "manual")
    .to("by hand", () => "by hand")
    .elseCondition()
    .to("as ever", () => "as ever")
    .endCondition()
    .end();
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(execution, "chunk.parked");

  expect(await execution.skip({ ...by, chunk: "charge", output: "manual" })).toEqual({
    chunk: "charge",
    index: null,
    executionId: execution.id,
  });

  expect(await execution.waitForClose()).toEqual({ $final_result: "by hand" });
  expect(await execution.history({ types: ["chunk.skipped"] })).toMatchObject([{ output: "manual", ...by }]);
  await expectSound(execution);
});

test("a chunk that backs off is skipped, and does not try again", async () => {
  let tries = 0;
  const flow = defineFlow("skip.backing-off");
  flow
    .to(
      "flaky",
      () => {
        tries += 1;
        fails();
      },
      { retry: { maxAttempts: 9, initialInterval: "10m" } },
    )
    .end();
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(execution, "chunk.failed");

  await execution.skip(by);

  expect(await execution.waitForClose()).toEqual({ $final_result: null });
  expect(tries).toBe(1);
  await expectSound(execution);
});

test("a chunk whose time to try again has come is skipped while nobody has it", async () => {
  const flow = defineFlow("skip.due");
  flow.to("flaky", fails, { retry: { maxAttempts: 9, initialInterval: "10m", jitter: false } }).end();
  const orchestrator = await serving(database, [flow]);
  const { id } = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(await orchestrator.getExecution(id), "chunk.failed");
  await orchestrator.close();
  await sql.begin(async (tx) => {
    await tx`alter table flowledger.ledger disable trigger ledger_append_only`;
    await tx`update flowledger.ledger set at = at - interval '1 hour' where execution_id = ${id}`;
    await tx`alter table flowledger.ledger enable always trigger ledger_append_only`;
  });

  const [row] = await sql`select flowledger.skip(${id}, ${sql.json(by)}) as skipped`;

  expect(row).toEqual({ skipped: { chunk: "flaky", index: null, executionId: id } });
  await sql`select flowledger.cancel(${id})`;
});

test("a pause is skipped whatever its answer would lead to, takes no answer any more, and counts as no cancel", async () => {
  const targets = ["next", "self", { event: "Answered" }] as const;
  const flows = targets.map((resumeTo, index) => {
    const flow = defineFlow(`skip.pause-${index}`);
    flow
      .to("ask", (ctx) => ctx.pauseFor({ type: "approval", interruptId: "boss", payload: null, resumeTo }))
      .to("after", (ctx) => ctx.setState("got", ctx.input));
    return flow;
  });
  await using orchestrator = await serving(database, flows);
  for (const flow of flows) {
    const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
    await untilEvent(execution, "interrupt.raised");

    await execution.skip({ ...by, output: 7 });

    expect(await refusal(execution.continueWith("boss", 8))).toMatchObject({ code: "INTERRUPT_NOT_PENDING" });
    await untilEvent(execution, "state.set");
    expect(await execution.close()).toEqual({ got: 7 });
    expect((await execution.result.getMeta()).status).toBe("completed");
    await expectSound(execution);
  }
});

test("an item is skipped by its index, also one of a distributed collection, and an emit that waits goes on", async () => {
  const flows = [false, true].map((distribute) => {
    const flow = defineFlow(`skip.items-${distribute}`, {}, parking);
    flow
      .forEach({ distribute })
      .to("item", (ctx) => (ctx.input === 1 ? fails() : ctx.input))
      .endForEach()
      .end();
    return flow;
  });
  const waiting = defineFlow("skip.group", { events: { Go: z.null() } }, parking);
  waiting
    .to("send", async (ctx) => {
      await ctx.emit("Go", null, { wait: true });
      return "went on";
    })
    .end();
  waiting.when("Go").to("heard", fails);
  await using orchestrator = await serving(database, [...flows, waiting]);

  for (const flow of flows) {
    const execution = await orchestrator.flow(flow).startExecution([0, 1, 2], atOnce);
    await expect
      .poll(
        async () =>
          sql`select sum(parked)::int as n from flowledger.executions where ${execution.id} in (id, parent_id)`,
        { timeout: 8000 },
      )
      .toEqual([{ n: 1 }]);
    expect(await execution.skip({ ...by, index: 1, output: "given" })).toMatchObject({ chunk: "item", index: 1 });
    expect(await execution.waitForClose()).toEqual({ $final_result: [0, "given", 2] });
    await expectSound(execution);
  }
  const execution = await orchestrator.flow(waiting).startExecution(null, atOnce);
  await untilEvent(execution, "chunk.parked");
  await execution.skip(by);
  expect(await execution.waitForClose()).toEqual({ $final_result: "went on" });
});

test("the output has the chunk's contract at every door, and nothing that cannot be meant is written", async () => {
  const flow = defineFlow("skip.contract", {}, parking);
  flow.to("typed", fails as () => { id: string }, { output: z.object({ id: z.string() }) }).end();
  const two = defineFlow("skip.two", {}, parking);
  two.batch({ a: fails, b: fails });
  await using orchestrator = await serving(database, [flow, two]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  const several = await orchestrator.flow(two).startExecution(null, atOnce);
  await untilEvent(execution, "chunk.parked");
  await expect.poll(async () => (await several.history({ types: ["chunk.parked"] })).length, { timeout: 8000 }).toBe(2);
  const before = (await execution.result.getMeta()).stateVersion;
  const bySql = (options: object) => sql`select flowledger.skip(${execution.id}, ${sql.json({ ...by, ...options })})`;

  expect(await refusal(execution.skip({ ...by, chunk: "typed", output: { id: 7 } }))).toMatchObject({
    code: "CONTRACT_VIOLATED",
  });
  expect(await refusal(execution.skip({ ...by, output: { id: 7 } }))).toMatchObject({
    code: "CONTRACT_VIOLATED",
    message: /output of chunk "typed" does not fit the contract: it.id must be string, got 7/,
  });
  expect(await refusal(bySql({ output: null }))).toMatchObject({ code: "FL008" });
  expect(await refusal(execution.skip({ ...by, chunk: "type" }))).toMatchObject({
    message: /nothing to skip at "type", and it stands at "typed" \(parked\)/,
  });
  expect(await refusal(several.skip(by))).toMatchObject({
    message: /several chunks .* "a" 0 \(parked\), "b" 1 \(parked\)/,
  });
  expect(await refusal(execution.skip({ actor: "ann" } as never))).toMatchObject({ code: "USAGE_INVALID" });
  expect((await execution.result.getMeta()).stateVersion).toBe(before);

  const paused = defineFlow("skip.contract-paused");
  paused.to("typed", (ctx) => ctx.pauseFor() as never, { output: z.object({ id: z.string() }) }).end();
  await using asking = await serving(database, [paused]);
  const question = await asking.flow(paused).startExecution(null, { autoClose: false });
  await untilEvent(question, "interrupt.raised");
  await expect(
    sql`select flowledger.skip(${question.id}, ${sql.json({ ...by, output: { id: 7 } })})`,
  ).rejects.toMatchObject({ code: "FL008" });
  await question.cancel();

  await bySql({ output: { id: "manual-7" } });
  expect(await execution.waitForClose()).toEqual({ $final_result: { id: "manual-7" } });
  expect(await refusal(execution.skip(by))).toMatchObject({ code: "EXECUTION_CLOSED" });
  await expectSound(execution);
});

test("it works while sealed, in a copy, and twice is once", async () => {
  const flow = defineFlow("skip.sealed", {}, parking);
  flow.to("charge", fails).end();
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await untilEvent(execution, "chunk.parked");
  await execution.seal();
  const copy = await execution.fork({ at: (await execution.result.getMeta()).stateVersion });

  const answers = await Promise.allSettled([1, 2].map((output) => execution.skip({ ...by, output })));

  expect(answers.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
  const { $final_result: result } = await execution.close();
  expect([1, 2]).toContain(result);
  await copy.skip({ ...by, output: 3 });
  expect(await copy.close()).toEqual({ $final_result: 3 });
  await expectSound(execution);
  await expectSound(copy);
});
