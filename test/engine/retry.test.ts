/** What is parked is run again: same id, attempts from 1, and nothing that was recorded happens twice. */
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import { rebuild } from "../../src/store/rebuild.ts";
import { verify } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, serving, untilEvent, visiting } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
const parking = { onFailure: "park" } as const;
const atOnce = { autoCloseTimeout: 0 } as const;
const by = { actor: "ann", reason: "the service is back" };

async function expectSound({ id }: { readonly id: string }): Promise<void> {
  expect(await verify(sql, { id })).toEqual([]);
  expect(await rebuild(sql, { id })).toEqual([]);
}

/** Fails until it is mended. */
class Service {
  isMended = false;
  calls = 0;

  call<T>(value: T): T {
    this.calls += 1;
    if (!this.isMended) throw new Error("the service is down");
    return value;
  }
}

test("a parked chunk runs again under the same id, with attempts from 1 and what its steps recorded", async () => {
  const service = new Service();
  const attempts: number[] = [];
  let steps = 0;
  const flow = defineFlow("retry.again", {}, parking);
  flow
    .to("before", () => "input")
    .to(
      "charge",
      async (ctx) => {
        attempts.push(ctx.attempt);
        const key = await ctx.step("key", () => `key ${++steps}`);
        await ctx.setState("key", key);
        return ctx.step("charge", () => service.call(`${ctx.input} ${key}`));
      },
      { retry: { maxAttempts: 2, initialInterval: 1 } },
    )
    .end();
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(execution, "chunk.parked");

  service.isMended = true;
  const retried = await execution.retry(by);

  expect(retried).toEqual([{ chunk: "charge", index: null, executionId: execution.id }]);
  expect(await execution.waitForClose()).toEqual({ key: "key 1", $final_result: "input key 1" });
  expect(attempts).toEqual([1, 2, 1]);
  expect(await execution.history({ types: ["chunk.parked", "chunk.retried"] })).toMatchObject([
    { type: "chunk.parked", attempt: 2 },
    { type: "chunk.retried", ...by },
  ]);
  await expectSound(execution);
});

test("a retry that fails parks anew, and another input can be given to it", async () => {
  const flow = defineFlow("retry.input", {}, parking);
  flow
    .to("given", () => "wrong")
    .to(
      "check",
      (ctx) => {
        if (ctx.input !== "right") throw new Error(`not ${String(ctx.input)}`);
        return ctx.input;
      },
      { input: z.string() },
    )
    .end();
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(execution, "chunk.parked");

  await execution.retry(by);
  await expect
    .poll(async () => (await execution.history({ types: ["chunk.parked"] })).length, { timeout: 8000 })
    .toBe(2);
  expect(await refusal(execution.retry({ ...by, chunk: "check", input: 7 }))).toMatchObject({
    code: "CONTRACT_VIOLATED",
  });
  await execution.retry({ ...by, chunk: "check", input: "right" });

  expect(await execution.waitForClose()).toEqual({ $final_result: "right" });
  await expectSound(execution);
});

test("what its attempts wrote stands, also where another input or an edited state would have it written otherwise", async () => {
  const flow = defineFlow("retry.other", {}, parking);
  flow.to("write", async (ctx) => {
    await ctx.setState("copied", [ctx.input, ctx.getState("cfg")]);
    await ctx.flush();
    if (ctx.input !== "right" || ctx.getState("cfg") !== "new") throw new Error("not yet");
    await ctx.setState("end", ctx.getState("copied"));
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution("wrong", atOnce);
  await untilEvent(execution, "chunk.parked");

  await execution.editState({ set: { cfg: "new" } }, by);
  await execution.retry({ ...by, input: "right" });

  expect(await execution.waitForClose()).toEqual({ cfg: "new", copied: ["wrong", null], end: ["wrong", null] });
  await expectSound(execution);
});

test("items are retried by index, or all at once; those of a distributed collection through their parent", async () => {
  const service = new Service();
  const done: unknown[] = [];
  const flows = [false, true].map((distribute) => {
    const flow = defineFlow(`retry.items-${distribute}`, {}, parking);
    flow
      .forEach({ distribute })
      .to("item", (ctx) => {
        if (ctx.input !== 0) service.call(0);
        done.push(ctx.input);
        return ctx.input;
      })
      .endForEach()
      .end();
    return flow;
  });
  await using orchestrator = await serving(database, flows);
  for (const flow of flows) {
    service.isMended = false;
    const execution = await orchestrator.flow(flow).startExecution([0, 1, 2], atOnce);
    await expect
      .poll(
        async () =>
          sql`select sum(parked)::int as n from flowledger.executions where ${execution.id} in (id, parent_id)`,
        { timeout: 8000 },
      )
      .toEqual([{ n: 2 }]);

    expect(await refusal(execution.retry({ ...by, input: 1 }))).toMatchObject({
      code: "USAGE_INVALID",
      message: /several/,
    });
    service.isMended = true;
    expect(await execution.retry({ ...by, chunk: "item", index: 2 })).toMatchObject([{ chunk: "item", index: 2 }]);
    await expect.poll(() => done, { timeout: 8000 }).toContain(2);
    expect(await execution.retry(by)).toMatchObject([{ chunk: "item", index: 1 }]);

    expect(await execution.waitForClose()).toEqual({ $final_result: [0, 1, 2] });
    expect(done.splice(0).toSorted((a, b) => Number(a) - Number(b))).toEqual([0, 1, 2]);
    await expectSound(execution);
  }
});

test("a sub-flow that failed is begun anew, and a call that was got over is left alone", async () => {
  const [own, below] = [new Service(), new Service()];
  const child = defineFlow("retry.child");
  child.to("work", () => below.call("worked")).end();
  const broken = defineFlow("retry.broken");
  broken.to("never", () => {
    throw new Error("never works");
  });
  const parent = defineFlow("retry.parent", {}, parking);
  parent
    .to("tolerant", async (ctx) => {
      await ctx.call(broken, null).catch(() => null);
      await ctx.step("after", () => 1);
      return own.call("ok");
    })
    .toSubFlow(child)
    .end();
  await using orchestrator = await serving(database, [child, broken, parent]);
  const execution = await orchestrator.flow(parent).startExecution(null, atOnce);
  await untilEvent(execution, "chunk.parked");
  own.isMended = true;
  await execution.retry({ ...by, chunk: "tolerant" });
  await untilEvent(execution, "chunk.parked", ({ chunk }) => chunk !== "tolerant");

  below.isMended = true;
  expect(await execution.retry({ ...by, chunk: "retry.child" })).toHaveLength(1);

  expect(await execution.waitForClose()).toMatchObject({ $final_result: "worked" });
  const begun = await execution.history({ types: ["child.started"] });
  expect(begun.map((event) => ("flow" in event ? event.flow : null))).toEqual([
    "retry.broken",
    "retry.child",
    "retry.child",
  ]);
  await expectSound(execution);
});

test("it is accepted while nobody serves the flow, while it is sealed, and by SQL", async () => {
  const service = new Service();
  const flow = defineFlow("retry.sealed", {}, parking);
  flow.to("work", () => service.call("done")).end();
  const away = visiting(database, [flow]);
  let id = "";
  {
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
    ({ id } = execution);
    await untilEvent(execution, "chunk.parked");
    await execution.seal();
  }
  service.isMended = true;

  const [row] = await sql`select flowledger.retry(${id}, ${sql.json({ chunk: "work", ...by })}) as retried`;

  expect(row).toEqual({ retried: [{ chunk: "work", index: null, executionId: id }] });
  await using _ = await serving(database, [flow]);
  await using visitor = away;
  const execution = await visitor.getExecution(id);
  expect(await execution.waitForClose()).toEqual({ $final_result: "done" });
  await expectSound(execution);
});

test("a copy that is taken between park and retry is retried alone", async () => {
  const service = new Service();
  const flow = defineFlow("retry.copy", {}, parking);
  flow.to("work", () => service.call("done")).end();
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(execution, "chunk.parked");
  const fork = await execution.fork({ at: (await execution.result.getMeta()).stateVersion });
  service.isMended = true;

  await fork.retry(by);

  expect(await fork.waitForClose()).toEqual({ $final_result: "done" });
  expect((await execution.result.getMeta()).status).toBe("parked");
  await expectSound(fork);
});

test("what cannot be meant is refused by name at both doors, and nothing is written", async () => {
  const flow = defineFlow("retry.refused", {}, parking);
  flow
    .to("fine", (ctx) => ctx.input)
    .to("bad", () => {
      throw new Error("no");
    });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  const fresh = await orchestrator.flow(flow).createExecution();
  await untilEvent(execution, "chunk.parked");
  const before = (await execution.result.getMeta()).stateVersion;
  const bySql = (options: object) => sql`select flowledger.retry(${execution.id}, ${sql.json({ ...options })})`;

  expect(await refusal(execution.retry({ ...by, chunk: "fine" }))).toMatchObject({
    code: "USAGE_INVALID",
    message: expect.stringMatching(/no parked chunk "fine", and it stands at "bad" \(parked\)/),
  });
  expect(await refusal(fresh.retry(by))).toMatchObject({ message: expect.stringMatching(/it stands at no chunk/) });
  for (const wrong of [
    { actor: "ann" },
    { ...by, reason: "" },
    { ...by, reason: "x".repeat(2001) },
    { ...by, index: -1 },
    { ...by, chunks: "bad" },
    { ...by, chunk: "" },
    { ...by, actor: "limit" },
  ]) {
    expect(await refusal(execution.retry(wrong as never))).toMatchObject({ code: "USAGE_INVALID" });
    expect(await refusal(bySql(wrong))).toMatchObject({ code: "FL008" });
  }
  expect(await refusal(bySql([] as never))).toMatchObject({ code: "FL008" });
  expect((await execution.result.getMeta()).stateVersion).toBe(before);
  await execution.cancel();
  await refusal(execution.waitForClose());
  expect(await refusal(execution.retry(by))).toMatchObject({ code: "EXECUTION_CLOSED" });
});
