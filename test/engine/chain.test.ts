/** Chunks one after another: what travels between them, their schemas, and what `end()` and `setResult` leave. */
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, serving } from "../support/flows.ts";

const database = await testDatabase();

test("TF-PAT-01: a chunk receives what the one before it returned, and null for nothing", async () => {
  const flow = defineFlow("chain", { input: z.number() });
  flow
    .to("double", (ctx) => ctx.input * 2)
    .to("later", async (ctx) => ({ value: ctx.input }))
    .to("nothing", (ctx) => ctx.setState("value", ctx.input.value))
    .to("after", (ctx) => ctx.setState("after", ctx.input));
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start(21);

  expect(snapshot).toEqual({ value: 42, after: null });
});

test("TF-LIF-06: the start value is the input of every root, and no event", async () => {
  const flow = defineFlow("roots");
  flow.to("a", (ctx) => ctx.setState("a", [ctx.input, ctx.event]));
  flow.to("b", (ctx) => ctx.setState("b", ctx.input));
  flow.when("START").to("heard", (ctx) => ctx.setState("heard", true));
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start("hello");

  expect(snapshot).toEqual({ a: ["hello", null], b: "hello" });
});

test("a place used twice fans out, and both chains run to their ends", async () => {
  const flow = defineFlow("fan");
  const first = flow.to("first", () => 1);
  first.to("left", (ctx) => ctx.input + 1).to("leftEnd", (ctx) => ctx.setState("left", ctx.input));
  first.to("right", (ctx) => ctx.setState("right", ctx.input + 10));
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot).toEqual({ left: 2, right: 11 });
});

test("one chunk used at two places runs at both", async () => {
  const flow = defineFlow("twice");
  const more = flow.chunk("more", (ctx: { input: number }) => ctx.input + 1);
  flow
    .to("first", () => 1)
    .to(more)
    .to(more)
    .to("last", (ctx) => ctx.setState("n", ctx.input));
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot).toEqual({ n: 3 });
});

test("a chunk may have any printable name", async () => {
  const name = `it's "a, {b}" \\ ü 🦆 NULL`;
  const flow = defineFlow("named");
  flow.to(name, (ctx) => ctx.setState("chunk", ctx.chunk));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  const snapshot = await execution.waitForClose();

  expect(snapshot).toEqual({ chunk: name });
  expect(await execution.history({ types: ["chunk.completed"] })).toMatchObject([{ chunk: name }]);
});

test("TF-CON-01: the input and output schemas of a chunk coerce what they let through", async () => {
  const flow = defineFlow("coerced");
  flow
    .to("text", () => "7", { output: z.coerce.number() })
    .to("number", (ctx) => ctx.setState("got", ctx.input), {
      input: z.number().transform((n) => ({ n })),
    });
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot).toEqual({ got: { n: 7 } });
});

test("TF-CON-01: an input that the schema of a chunk refuses fails the execution before the handler runs", async () => {
  let runs = 0;
  const flow = defineFlow("refusing");
  flow.to("first", (): unknown => "seven").to("second", () => (runs += 1), { input: z.number() });
  await using orchestrator = await serving(database, [flow]);

  const error = await refusal(orchestrator.flow(flow).start());

  expect(error).toMatchObject({
    code: "EXECUTION_FAILED",
    cause: { name: "ContractError", code: "CONTRACT_VIOLATED" },
  });
  expect(String(error)).toContain("second");
  expect(runs).toBe(0);
});

test("TF-LIF-20: end() writes what reaches it to $final_result, and passes it on", async () => {
  const flow = defineFlow("ending");
  flow
    .to("make", () => ({ ok: true }))
    .end()
    .to("after", (ctx) => ctx.setState("after", ctx.input.ok));
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot).toEqual({ after: true, $final_result: { ok: true } });
});

test("TF-LIF-20: a final result of null is in the close snapshot, none at all is not", async () => {
  const ending = defineFlow("ending.null");
  ending.to("make", () => null).end();
  const plain = defineFlow("ending.none");
  plain.to("make", () => 1);
  await using orchestrator = await serving(database, [ending, plain]);

  const snapshots = [await orchestrator.flow(ending).start(), await orchestrator.flow(plain).start()];

  expect(snapshots).toEqual([{ $final_result: null }, {}]);
});

test("TF-RES-15: the last setResult wins, and end() never overrides it", async () => {
  const warnings: string[] = [];
  const logger = { debug() {}, info() {}, error() {}, warn: (message: string) => void warnings.push(message) };
  const flow = defineFlow("results");
  flow
    .to("one", (ctx) => ctx.setResult("one"))
    .to("two", (ctx) => ctx.setResult("two"))
    .to("three", () => "three")
    .end();
  await using orchestrator = await serving(database, [flow], { logger });

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot).toEqual({ $final_result: "two" });
  expect(warnings.join()).toContain("overwrote");
});
