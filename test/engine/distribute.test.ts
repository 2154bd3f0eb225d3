/** Distributed collections: items run as executions of their own, and everything else is as with a local collection. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { z } from "zod";
import { verify } from "../../src/database/verify.ts";
import { defineFlow, ExecutionCancelledError, ExecutionFailedError, UsageError } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { Crowd, collect, newGate, refusal, serving, untilEvent } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;

/** What holds after every test. */
async function expectNothingLeft(parent: string) {
  const open = await sql`select id, status from flowledger.executions where parent_id = ${parent} and closed_at is null`;
  expect([...open]).toEqual([]);
  expect(await verify(sql, { folds: null })).toEqual([]);
}

test("TF-PAT-05: a distributed forEach gives the results in the order of the items, whichever ends first", async () => {
  const gates = [newGate(), newGate(), newGate()];
  const flow = defineFlow("distributed");
  const ids = new Set<string>();
  flow
    .to("make", () => [0, 1, 2])
    .forEach({ distribute: true })
    .to("wait", async (ctx) => {
      ids.add(ctx.execution.id);
      if (ctx.input < 2) await gates[ctx.input + 1]?.passed;
      gates[ctx.input]?.open();
      return ctx.input * 10;
    })
    .to("text", (ctx) => String(ctx.input))
    .endForEach()
    .to("keep", (ctx) => ctx.setState("got", ctx.input));
  await using orchestrator = await serving(database, [flow]);

  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  expect(await execution.waitForClose()).toEqual({ got: ["0", "10", "20"] });
  expect(ids.size).toBe(3);
  expect((await execution.history()).map(({ type }) => type)).toEqual([
    "execution.created",
    "execution.started",
    "execution.claimed",
    "inbox.routed",
    "chunk.completed",
    "items.started",
    "items.closed",
    "value.routed",
    "state.set",
    "chunk.completed",
    "execution.closed",
  ]);
  await expectNothingLeft(execution.id);
});
