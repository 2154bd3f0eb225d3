/** Waits that cannot hang: what cannot come true by itself fails at once, and says what the execution waits for. */
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow, ExecutionCancelledError, ExecutionFailedError } from "../../src/index.ts";
import { UnreachableError } from "../../src/test.ts";
import { kit } from "../support/kit.ts";

const refund = defineFlow("refund", {
  input: z.object({ amount: z.number() }),
  state: z.object({ paid: z.number() }).partial(),
  events: { Paid: z.object({ by: z.string() }) },
});
refund
  .to("charge", (ctx) => ({ id: `charge of ${ctx.input.amount}` }))
  .to("approve", (ctx) => ctx.pauseFor({ type: "approval", response: z.object({ ok: z.boolean() }), expiresIn: "30d" }))
  .to("pay", (ctx) => ctx.setState("paid", ctx.input.ok ? 1 : 0));

test("an execution is followed from pause to end, by the chunk, the type or the id of the interrupt", async () => {
  await using t = await kit({ flows: [refund] });
  const run = await t.start(refund, { amount: 900 });

  const byChunk = await run.until({ waiting: "approve" });
  const byType = await run.until({ waiting: "approval" });
  const byId = await run.until({ waiting: byChunk.id });
  await run.answer("approve", { ok: true });

  expect([byType, byId]).toEqual([byChunk, byChunk]);
  expect(byChunk).toMatchObject({ type: "approval", status: "pending", executionId: run.id });
  // Nothing was left but the auto-close.
  expect(await run.until("closed")).toEqual({ paid: 1 });
  expect(t.clock.now().toISOString()).toBe("2026-01-01T09:00:10.000Z");
});

test("an interrupt is meant by its id before its type, and by its type before its chunk", async () => {
  const flow = defineFlow("named");
  flow.to("a", (ctx) => ctx.pauseFor({ interruptId: "1", type: "c" }));
  flow.to("b", (ctx) => ctx.pauseFor({ interruptId: "a", type: "d" }));
  flow.to("c", (ctx) => ctx.pauseFor({ interruptId: "3", type: "b" }));
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null);

  const meant = [];
  for (const waiting of ["a", "b", "c"]) meant.push((await run.until({ waiting })).id);

  expect(meant).toEqual(["a", "3", "1"]);
  await run.cancel();
});

test("an answer is checked like any other", async () => {
  await using t = await kit({ flows: [refund] });
  const run = await t.start(refund, { amount: 900 });

  await expect(run.answer("approve", { ok: "yes" })).rejects.toThrow("approve");
  await expect(run.answer("boss", 1)).rejects.toThrow(UnreachableError);
});

test("a chunk and an attempt are waited for, whether or not they have ended", async () => {
  let isHeld = true;
  const flow = defineFlow("tries");
  flow.to(
    "try",
    async (ctx) => {
      if (ctx.attempt === 1) throw new Error("once");
      while (isHeld) await new Promise((resolve) => setTimeout(resolve, 5));
    },
    { retry: { maxAttempts: 2, initialInterval: "1h", jitter: false } },
  );
  await using t = await kit({ flows: [flow], patience: "100ms" });
  const run = await t.start(flow, null);

  await run.until({ chunk: "try" });
  await run.until({ chunk: "try", attempt: 1 });
  const early = run.until({ chunk: "try", attempt: 2 });
  await expect(early).rejects.toThrow(
    'will not be at chunk "try", attempt 2: it waits for 2026-01-01T10:00:00.000Z (retry of chunk "try" of tries); next by the clock',
  );
  const moved = t.clock.advance("1h");
  await moved;
  await run.until({ chunk: "try", attempt: 2 });

  // It is in the middle of it.
  expect(await run.history({ types: ["chunk.completed"] })).toEqual([]);
  isHeld = false;
  await run.until("closed");
});

test.each([
  ["an answer", { waiting: "other" }, 'it waits for an answer to "approval" (asked by chunk "approve")'],
  ["time", "closed", '2026-01-31T09:00:00.000Z (interrupt "approval" expires in refund)'],
  ["the other chunk", { chunk: "pay" }, "next by the clock, 2026-01-31T09:00:00.000Z"],
] as const)("what cannot come true says what is waited for: %s", async (_, condition, said) => {
  await using t = await kit({ flows: [refund] });
  const run = await t.start(refund, { amount: 900 });

  const waited = run.until(condition);

  await expect(waited).rejects.toThrow(UnreachableError);
  await expect(waited).rejects.toThrow(said);
  await expect(waited).rejects.toMatchObject({ code: "TEST_UNREACHABLE", details: { executionId: run.id } });
});

test("so does what waits for an event, what waits for a sub-flow, and what is closed", async () => {
  const child = defineFlow("child");
  child.to("ask", (ctx) => ctx.pauseFor({ type: "boss" }));
  const parent = defineFlow("parent");
  parent.to("call", (ctx) => ctx.call(child, null));
  const open = defineFlow("open", { events: { Go: z.null() } });
  open.when("Go").to("go", () => {});
  await using t = await kit({ flows: [parent, child, open] });

  const called = await t.start(parent, null);
  await expect(called.until("closed")).rejects.toThrow(
    'its sub-flow child (it waits for an answer to "boss" (asked by chunk "ask"))',
  );
  const opened = await t.start(open, null, { autoClose: false });
  await expect(opened.until({ chunk: "go" })).rejects.toThrow(
    "nothing is left to do, and it stays open for events; nothing is due by the clock",
  );
  await opened.emit("Go", null);
  await opened.until({ chunk: "go" });
  await opened.close();
  await expect(opened.until({ waiting: "x" })).rejects.toThrow("it is completed");
});

test("an execution that failed or was cancelled rejects the wait for its close, as everywhere", async () => {
  const flow = defineFlow("fails");
  flow.to("a", () => {
    throw new Error("no");
  });
  const sleeper = defineFlow("sleeps");
  sleeper.to("a", (ctx) => ctx.sleep("1d"));
  await using t = await kit({ flows: [flow, sleeper] });

  await expect((await t.start(flow, null)).until("closed")).rejects.toThrow(ExecutionFailedError);
  const run = await t.start(sleeper, null);
  await run.until("idle");
  await run.cancel();
  await expect(run.until("closed")).rejects.toThrow(ExecutionCancelledError);
});

test("an execution that something else began is followed too", async () => {
  const flow = defineFlow("ticks");
  flow.to("tick", () => "tock").end();
  await using t = await kit({ flows: [], schedules: [{ flow, cron: "0 0 * * *" }] });

  await t.clock.advance("1d");
  const { executions } = await t.orchestrator.listExecutions();
  const run = await t.attach(executions[0]?.id ?? "");

  expect(executions).toHaveLength(1);
  expect(await run.until("closed")).toEqual({ $final_result: "tock" });
});
