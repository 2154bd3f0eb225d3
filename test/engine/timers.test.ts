/** Domain time goes by the clock that the orchestrator was given; what keeps a worker alive does not. */
import { expect, test } from "vitest";
import { defineFlow, type FlowDefinition } from "../../src/index.ts";
import { Orchestrator } from "../../src/orchestrator.ts";
import { testDatabase } from "../support/database.ts";
import { collect, newGate, refusal, untilEvent, warningsOf } from "../support/flows.ts";
import { ManualTimers } from "../support/timers.ts";

const database = await testDatabase();
const minute = 60_000;

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
  flow
    .to("step", (ctx) => ctx.step("s", () => (inStep.open(), never), { timeout: "30m" }).catch(String))
    .to("chunk", (ctx) => (inChunk.open(), expect(ctx.input).toContain("1800000 ms"), never), { timeout: "40d" });
  const { timers, orchestrator } = await standing(flow);
  const ended = refusal(orchestrator.flow(flow).start(null, { autoCloseTimeout: 0 }));

  await inStep.passed;
  timers.pass(30 * minute);
  await inChunk.passed;
  timers.pass(40 * 24 * 60 * minute);

  expect(await ended).toMatchObject({ message: expect.stringContaining("timeout of 3456000000 ms") as string });
  await orchestrator.close();
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
