/** `execution.timeline()`: one row for each run of a chunk, step, pause, sleep and child, whatever happened in it. */
import { expect, test } from "vitest";
import { defineFlow, UsageError } from "../../src/index.ts";
import { kit } from "../support/kit.ts";

const at = (time: string) => new Date(`2026-01-01T${time}Z`);

test("chunks, steps, pauses, sleeps and children have a row each, with their attempts in it", async () => {
  const child = defineFlow("child").to("work", () => 1);
  let tries = 0;
  const flow = defineFlow("whole");
  flow
    .to(
      "try",
      async (ctx) => {
        await ctx.setState("a", 1);
        await ctx.setState("b", 2);
        if (ctx.attempt === 1) throw new RangeError("once");
      },
      { retry: { maxAttempts: 2, initialInterval: "1m", jitter: false } },
    )
    .to("pay", (ctx) =>
      ctx.step(
        "bank",
        () => {
          if (++tries === 1) throw new TypeError("no line");
        },
        { retry: { maxAttempts: 2, initialInterval: "1m", jitter: false } },
      ),
    )
    .to("doze", (ctx) => ctx.sleep("1h"))
    .to("call", (ctx) => ctx.call(child, null))
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss", type: "approval", expiresIn: "1d" }))
    .forEach()
    .to("each", () => 1)
    .endForEach();
  await using t = await kit({ flows: [flow, child], now: "2026-01-01T09:00Z" });
  const run = await t.start(flow, null);
  await t.settle();
  await t.clock.advance("1m");
  await t.clock.advance("1m");
  const asleep = await run.timeline();
  await t.clock.advance("1h");
  const waiting = await run.until({ waiting: "boss" });
  const paused = await run.timeline();
  await t.clock.advance("5m");
  await run.continueWith(waiting.id, [1, 2], { actor: "ann" });
  await run.until("closed");

  const { rows, nextCursor } = await run.timeline();
  const first = await run.timeline({ limit: 4 });
  const rest = await run.timeline({ cursor: first.nextCursor ?? "" });

  expect(asleep.rows.at(-1)).toMatchObject({ kind: "sleep", status: "open", until: at("10:02:00"), endedAt: null });
  expect(paused.rows.at(-1)).toMatchObject({ kind: "wait", status: "pending", endedAt: null });
  expect(rows).toMatchObject([
    {
      kind: "chunk",
      chunk: "try",
      status: "completed",
      queuedAt: at("09:00:00"),
      startedAt: at("09:00:00"),
      endedAt: at("09:01:00"),
      attempts: [
        { attempt: 1, status: "failed", startedAt: at("09:00:00"), error: { name: "RangeError", message: "once" } },
        { attempt: 2, status: "completed", startedAt: at("09:01:00"), endedAt: at("09:01:00"), error: null },
      ],
    },
    { kind: "chunk", chunk: "pay", status: "completed", queuedAt: at("09:01:00"), endedAt: at("09:02:00") },
    {
      kind: "step",
      step: "bank",
      chunk: "pay",
      status: "completed",
      endedAt: at("09:02:00"),
      attempts: [{ attempt: 1, status: "failed", error: { name: "TypeError" } }, { status: "completed" }],
    },
    { kind: "chunk", chunk: "doze", status: "completed", startedAt: at("09:02:00"), endedAt: at("10:02:00") },
    { kind: "sleep", chunk: "doze", status: "completed", startedAt: at("09:02:00"), endedAt: at("10:02:00") },
    { kind: "chunk", chunk: "call", status: "completed" },
    { kind: "child", flow: "child", status: "completed" },
    { kind: "chunk", chunk: "ask", status: "paused", attempts: [{ status: "paused" }] },
    {
      kind: "wait",
      interruptId: "boss",
      type: "approval",
      status: "resumed",
      actor: "ann",
      startedAt: at("10:02:00"),
      endedAt: at("10:07:00"),
    },
    { kind: "chunk", chunk: "each", status: "completed" },
    { kind: "chunk", chunk: "each", status: "completed" },
  ]);
  expect(nextCursor).toBeNull();
  expect([...first.rows, ...rest.rows]).toEqual(rows);
});

test("what was not over when the execution closed was dropped", async () => {
  const flow = defineFlow("dropping").to("doze", (ctx) => ctx.sleep("1h"));
  await using t = await kit({ flows: [flow], now: "2026-01-01T09:00Z" });
  const run = await t.start(flow, null);
  await t.settle();
  await run.cancel("enough");
  await t.settle();

  expect((await run.timeline()).rows).toMatchObject([
    { kind: "chunk", status: "dropped", endedAt: at("09:00:00") },
    { kind: "sleep", status: "dropped", endedAt: at("09:00:00"), until: at("10:00:00") },
  ]);
  await expect(run.timeline({ cursor: "boss" })).rejects.toThrow(UsageError);
  await expect(run.timeline({ limit: 0 })).rejects.toThrow("limit of timeline()");
  await expect(run.timeline({ from: 1 } as object)).rejects.toThrow('unknown option "from"');
});
