/** Domain time goes by the clock that the orchestrator was given; what keeps a worker alive does not. */
import { expect, test } from "vitest";
import { defineFlow, type Ctx, type FlowDefinition } from "../../src/index.ts";
import { TimeLimit } from "../../src/engine/time-limit.ts";
import { Orchestrator } from "../../src/orchestrator.ts";
import { testDatabase } from "../support/database.ts";
import { collect, newGate, refusal, serving, untilEvent, warningsOf } from "../support/flows.ts";
import { ManualTimers } from "../support/timers.ts";

const database = await testDatabase();
const minute = 60_000;
const hour = 60 * minute;

/** An orchestrator with a worker, and a clock that stands still. */
async function standing(flow: FlowDefinition) {
  const timers = new ManualTimers();
  const orchestrator = new Orchestrator({ connection: database.url, flows: [flow] }, timers);
  await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "200ms" });
  return { timers, orchestrator };
}

test("the timeouts of a chunk and of a step are over when the clock says so", async () => {
  const [inStep, inChunk] = [newGate(), newGate()];
  const flow = defineFlow("standing-timeouts");
  const never = new Promise<never>(() => {});
  const signals: AbortSignal[] = [];
  const work = (signal: AbortSignal) => (signals.push(signal), inStep.open(), never);
  flow
    .to("step", (ctx) => (signals.push(ctx.signal), ctx.step("s", work, { timeout: "30m" }).catch(String)))
    .to("chunk", (ctx) => (inChunk.open(), expect(ctx.input).toContain("1800000 ms"), never), { timeout: "40d" });
  const { timers, orchestrator } = await standing(flow);
  const ended = refusal(orchestrator.flow(flow).start(null, { autoCloseTimeout: 0 }));

  await inStep.passed;
  timers.pass(30 * minute);
  await inChunk.passed;
  expect(signals.map(({ aborted }) => aborted)).toEqual([false, true]);
  timers.pass(40 * 24 * 60 * minute);

  expect(await ended).toMatchObject({ message: expect.stringContaining("timeout of 3456000000 ms") as string });
  await orchestrator.close();
});

test("what an attempt waited for is waited for no more when it is aborted", async () => {
  const flow = defineFlow("standing-alarm");
  flow.to("chunk", async (ctx) => {
    void ctx.sleep("3d").catch(() => {});
    await ctx.step("beside", () => null);
    await new Promise((_, reject) => ctx.signal.addEventListener("abort", () => reject(ctx.signal.reason)));
  });
  const { timers, orchestrator } = await standing(flow);
  const before = timers.waiting;
  const execution = await orchestrator.flow(flow).startExecution(null);
  await untilEvent(execution, "step.completed");
  expect(timers.waiting).toBeGreaterThan(before);

  await execution.cancel();
  await refusal(execution.waitForClose());

  expect(timers.waiting).toBe(before);
  await orchestrator.close();
});

test("a run's end is waited for five seconds by cancelRun(), where nothing else is said", async () => {
  const gate = newGate();
  const flow = defineFlow("standing-run");
  flow.to("hold", () => gate.passed);
  const { timers, orchestrator } = await standing(flow);
  const handler = orchestrator.flow(flow).run();
  await untilEvent(handler.execution, "execution.claimed");

  let isOver = false;
  const cancelling = handler.cancelRun().then(() => (isOver = true));
  await timers.untilWaiting(5000);
  expect(isOver).toBe(false);
  timers.pass(5000);
  await cancelling;

  gate.open();
  await orchestrator.close();
});

test("a limit that stands still again and again counts what runs in between, and nothing else", () => {
  const timers = new ManualTimers();
  let ends = 0;
  const limit = new TimeLimit(100, timers, "a limit", () => (ends += 1));

  for (let round = 0; round < 3; round++) {
    timers.pass(30);
    limit.pause();
    timers.pass(hour);
    limit.resume();
  }
  timers.pass(9);
  expect(ends).toBe(0);
  timers.pass(1);

  expect(ends).toBe(1);
});

test("so is the quiet time of a reader", async () => {
  const flow = defineFlow("standing-reader");
  flow.to("pause", (ctx) => ctx.pauseFor({ type: "ask" }));
  const { timers, orchestrator } = await standing(flow);
  const execution = await orchestrator.flow(flow).startExecution(null);
  await untilEvent(execution, "interrupt.raised");

  const warnings = await warningsOf(async () => {
    const read = collect(execution.streamItems({ timeout: "1d" }));
    await timers.untilWaiting(24 * 60 * minute);
    timers.pass(24 * 60 * minute);
    expect(await read).toHaveLength(1);
  });

  expect(warnings.map(({ code }) => code)).toContain("STREAM_TIMEOUT");
  await orchestrator.close();
});

let tries = 0;
const waits: Record<
  string,
  { readonly wait: (ctx: Ctx) => Promise<unknown>; readonly from: "sleep.started" | "step.failed" }
> = {
  "a sleep": { wait: (ctx) => ctx.sleep("3s"), from: "sleep.started" },
  "a retry of a step": {
    wait: (ctx) =>
      ctx.step(
        "tried",
        () => {
          if (++tries === 1) throw new Error("not yet");
        },
        { retry: { maxAttempts: 2, initialInterval: "3s", jitter: false } },
      ),
    from: "step.failed",
  },
};

test.each(Object.entries(waits))(
  "%s keeps its time when the attempt is cut off beside it and begins anew elsewhere",
  async (what, { wait, from }) => {
    const flow = defineFlow(`cut.${what.replaceAll(" ", "-")}`);
    let attempts = 0;
    flow.to("work", async (ctx) => {
      attempts += 1;
      const isFirst = attempts === 1;
      await Promise.all([
        // The first worker has to be torn from it, so the next attempt begins at once.
        ctx.step("beside", () => (isFirst ? new Promise(() => {}) : null)),
        wait(ctx as Ctx).then(() => ctx.step("after", () => null)),
      ]);
    });
    await using first = await serving(database, [flow], {}, { drainTimeout: "100ms", cancelGrace: "50ms" });
    const execution = await first.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilEvent(execution, from);
    await using second = await serving(database, [flow]);
    await first.close();
    const seen = await second.getExecution(execution.id);
    await seen.waitForClose();

    const events = await seen.history();
    const at = (wanted: (event: (typeof events)[number]) => boolean) => Number(events.find(wanted)?.at);
    expect(attempts).toBeGreaterThanOrEqual(2);
    expect(events.filter(({ type }) => type === from)).toHaveLength(1);
    // What was torn apart does not wait for what it stood beside.
    expect(
      at((event) => "name" in event && event.name === "beside") - at(({ type }) => type === "chunk.interrupted"),
    ).toBeLessThan(2000);
    expect(
      at((event) => "name" in event && event.name === "after") - at(({ type }) => type === from),
    ).toBeGreaterThanOrEqual(2998);
  },
);
