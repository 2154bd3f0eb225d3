/** Items of collections that pause side by side, under one interrupt id. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import type { Execution } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { refusal, serving } from "../support/flows.ts";
import { expectGuarantees } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;

const idsOf = async (one: Execution, count: number) => (await untilPending(one, count)).map(({ id }) => id).toSorted();

test("each item of a forEach waits for its own answer, under its own place, also in a copy", async () => {
  const flow = defineFlow("items");
  flow
    .to("list", () => ["a", "b", "c"])
    .forEach()
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "ok", payload: ctx.input }))
    .to("add", (ctx) => `answer ${String(ctx.input)}`)
    .endForEach()
    .to("after", (ctx) => ctx.setState("answers", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  const ids = await idsOf(execution, 3);
  const fork = await execution.fork({ at: (await execution.history()).length });
  const loaded = await orchestrator.load(await execution.save());

  for (const one of [execution, fork, loaded]) {
    for (const { id, payload } of await one.getPendingInterrupts())
      await one.continueWith(id, String(payload), { resumeRequestId: "r" });
    expect(await one.waitForClose()).toEqual({ answers: ["answer a", "answer b", "answer c"] });
    await expectGuarantees(sql, one.id);
  }
  expect(ids).toEqual(["ok", "ok[1]", "ok[2]"]);
});

test("branches of a batch, and items of nested collections, have their places too", async () => {
  const flow = defineFlow("places");
  const ask = (ctx: { pauseFor(options: { interruptId: string }): unknown }) => ctx.pauseFor({ interruptId: "ok" });
  flow.batch({ left: ask, right: ask }).to("batched", (ctx) => ctx.setState("batch", ctx.input));
  flow
    .to("lists", () => [["a"], ["b", "c"]])
    .forEach()
    .forEach()
    .to("deep", (ctx) => ctx.pauseFor({ interruptId: "deep" }))
    .endForEach()
    .endForEach()
    .to("nested", (ctx) => ctx.setState("nested", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  const ids = await idsOf(execution, 5);

  for (const id of ids) await execution.continueWith(id, id);

  expect(ids).toEqual(["deep", "deep[1][0]", "deep[1][1]", "ok", "ok[right]"]);
  expect(await execution.waitForClose()).toEqual({
    batch: { left: "ok", right: "ok[right]" },
    nested: [["deep"], ["deep[1][0]", "deep[1][1]"]],
  });
  await expectGuarantees(sql, execution.id);
});

test("an item that asks again does so under its own id, and counts its resumes alone", async () => {
  const flow = defineFlow("again");
  flow
    .to("list", () => [0, 1])
    .forEach()
    .to("ask", (ctx) => {
      const round = ctx.resume?.count ?? 0;
      return round < 2
        ? ctx.pauseFor({ interruptId: "ok", resumeTo: "self", maxResumes: 2 })
        : [ctx.resume?.interruptId ?? "", round];
    })
    .endForEach()
    .to("after", (ctx) => ctx.setState("answers", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  for (let round = 0; round < 2; round++) {
    await expect
      .poll(async () => (await execution.getPendingInterrupts()).map(({ resumeCount }) => resumeCount), {
        timeout: 8000,
      })
      .toEqual([round, round]);
    expect(await idsOf(execution, 2)).toEqual(["ok", "ok[1]"]);
    for (const id of ["ok", "ok[1]"]) await execution.continueWith(id, null);
  }

  expect(await execution.waitForClose()).toEqual({
    answers: [
      ["ok", 2],
      ["ok[1]", 2],
    ],
  });
  await expectGuarantees(sql, execution.id);
});

test("two pauses of one item under one id are refused, and the refusals name what waits", async () => {
  const flow = defineFlow("clash");
  flow
    .to("list", () => [0, 1])
    .forEach()
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "ok" }))
    .endForEach();
  flow.when("Again").to("outside", (ctx) => ctx.pauseFor({ interruptId: "ok" }));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await idsOf(execution, 2);

  const unknown = await refusal(execution.withdraw("ok[7]"));
  await execution.emit("Again", null);
  const failed = await refusal(execution.waitForClose());

  expect(unknown).toMatchObject({ details: { status: null, pending: ["ok", "ok[1]"] } });
  expect(String((failed as Error).cause)).toContain('interrupt "ok" is pending already (these wait: "ok", "ok[1]")');
});
