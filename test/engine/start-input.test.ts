/** `ctx.startInput`: what the execution was started with, in every chunk, condition and handler, and in the meta. */
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { serving } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;

const order = { input: z.object({ sku: z.string(), boxes: z.coerce.number() }), events: { Paid: z.number() } };

async function metaInput(id: string): Promise<unknown> {
  const [row] = await sql<{ input: unknown }[]>`select flowledger.meta(${id}::uuid) -> 'startInput' as input`;
  return row?.input;
}

test("every chunk, condition and handler reads what the execution was started with, and writes to it reach nobody", async () => {
  const flow = defineFlow("order", order);
  flow
    .to("first", (ctx) => {
      ctx.startInput.sku = "changed";
      return "next";
    })
    .ifCondition((ctx) => ctx.startInput.boxes > 2)
    .to("many", (ctx) => ctx.appendState("seen", ctx.startInput))
    .endCondition()
    .to("pay", (ctx) => ctx.emit("Paid", 1));
  flow.when("Paid").to("heard", (ctx) => ctx.setState("heard", ctx.startInput));
  await using orchestrator = await serving(database, [flow]);

  const execution = await orchestrator.flow(flow).startExecution({ sku: "a", boxes: "3" }, { autoCloseTimeout: 0 });
  const snapshot = await execution.waitForClose();

  const given = { sku: "a", boxes: 3 };
  expect(snapshot).toEqual({ seen: [given], heard: given });
  expect((await execution.result.getMeta()).startInput).toEqual(given);
  expect(await metaInput(execution.id)).toEqual(given);
});

test("a start by SQL is read as the contract made it, before and after a worker was lost", async () => {
  const flow = defineFlow("orderBySql", order);
  flow
    .to("wait", (ctx) => ctx.pauseFor({ interruptId: "ask" }))
    .to("keep", (ctx) => ctx.setState("kept", ctx.startInput));
  const [row] = await sql<{ id: string }[]>`
    select flowledger.start('orderBySql', '{"sku": "b", "boxes": "7"}', '{"allowUnknown": true}') as id`;
  const id = row?.id ?? "";
  expect(await metaInput(id)).toEqual({ sku: "b", boxes: "7" });
  {
    await using orchestrator = await serving(database, [flow]);
    await expect.poll(async () => (await orchestrator.getExecution(id)).getPendingInterrupts()).toHaveLength(1);
  }
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.getExecution(id);
  await execution.continueWith("ask");

  expect(await execution.close()).toEqual({ kept: { sku: "b", boxes: 7 } });
  expect(await metaInput(id)).toEqual({ sku: "b", boxes: 7 });
});

test("a fork and a load keep it; a fork with another input has that", async () => {
  const flow = defineFlow("orderCopied", order);
  flow
    .to("wait", (ctx) => ctx.pauseFor({ interruptId: "ask" }))
    .to("keep", (ctx) => ctx.setState("kept", ctx.startInput));
  await using orchestrator = await serving(database, [flow]);
  const origin = await orchestrator.flow(flow).startExecution({ sku: "c", boxes: 1 });
  await expect.poll(() => origin.getPendingInterrupts()).toHaveLength(1);

  const fork = await origin.fork({ at: (await origin.result.getMeta()).stateVersion });
  const other = await origin.fork({ at: 2, input: { sku: "d", boxes: 2 } });
  const loaded = await orchestrator.load(await origin.save());

  await expect.poll(() => other.getPendingInterrupts()).toHaveLength(1);
  for (const one of [fork, other, loaded]) await one.continueWith("ask");
  expect([await fork.close(), await other.close(), await loaded.close()]).toEqual([
    { kept: { sku: "c", boxes: 1 } },
    { kept: { sku: "d", boxes: 2 } },
    { kept: { sku: "c", boxes: 1 } },
  ]);
  for (const one of [fork, other, loaded])
    expect((await one.result.getMeta()).startInput).toEqual(await metaInput(one.id));
});

test("a sub-flow reads its own input, an item of a distributed collection that of its parent, however deep", async () => {
  const inner = defineFlow("innerInput", { input: z.string() });
  inner.to("keep", (ctx) => ctx.setState("inner", ctx.startInput));
  const flow = defineFlow("outerInput", { input: z.object({ all: z.array(z.array(z.string())) }) });
  const items: string[] = [];
  flow
    .to("lists", (ctx) => ctx.input.all)
    .forEach({ distribute: true })
    .forEach({ distribute: true })
    .to("item", (ctx) => {
      items.push(ctx.execution.id);
      return [ctx.input, ctx.startInput];
    })
    .endForEach()
    .endForEach()
    .to("keep", async (ctx) => {
      await ctx.setState("items", ctx.input);
      return "for the child";
    })
    .toSubFlow(inner)
    .to("end", (ctx) => ctx.setState("sub", ctx.input));
  await using orchestrator = await serving(database, [flow, inner]);
  const input = { all: [["x", "y"], ["z"]] };

  const snapshot = await orchestrator.flow(flow).start(input);

  expect(snapshot).toEqual({
    items: [
      [
        ["x", input],
        ["y", input],
      ],
      [["z", input]],
    ],
    sub: { inner: "for the child" },
  });
  expect(items).toHaveLength(3);
  for (const id of items) expect(await metaInput(id)).toEqual(input);
});

test("before a start there is none: the handler of an event that came first fails by name", async () => {
  const flow = defineFlow("unstarted", order);
  flow.when("Paid").to("heard", (ctx) => ctx.setState("heard", ctx.startInput));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).createExecution();
  expect((await execution.result.getMeta()).startInput).toBe(null);

  await execution.emit("Paid", 1);

  await expect(execution.waitForClose()).rejects.toThrow("has not been started");
  expect((await execution.history({ types: ["chunk.failed"] }))[0]).toMatchObject({ error: { code: "USAGE_INVALID" } });
});
