/** flowledger, as it comes. */
import { defineFlow } from "../../src/flow/builder.ts";
import { createOrchestrator } from "../../src/orchestrator.ts";
import { asking, chain, steps } from "../flows.ts";
import { never } from "./engine.ts";
import type { Engine, Opening } from "./engine.ts";

export async function open({ url, concurrency, running }: Opening): Promise<Engine> {
  const flows = {
    chunks: new Map([1, 5].map((length) => [length, chain(length)])),
    steps: new Map([1, 5].map((length) => [length, steps(length)])),
  };
  const asks = asking();
  const holding = defineFlow("bench-holding");
  holding.to("hold", async (ctx) => {
    await ctx.step("hold", () => {
      running();
      return never();
    });
  });
  const all = [...flows.chunks.values(), ...flows.steps.values(), asks, holding];
  const orchestrator = createOrchestrator({ connection: url, flows: all });
  await orchestrator.migrate();
  await orchestrator.startWorker({ concurrency });

  const start = async (steps: number, style: "steps" | "chunks") => {
    const flow = flows[style].get(steps);
    if (!flow) throw new Error(`there is no flow of ${steps} ${style}`);
    await orchestrator.flow(flow).start({ n: 0 });
  };
  return {
    queued: 0,
    unfinished: "select count(*)::int as count from flowledger.executions where closed_at is null",
    run: (work) => start(work.steps, work.style),
    result: () => start(1, "steps"),
    pause: async () => {
      const execution = await orchestrator.flow(asks).startExecution({}, { autoCloseTimeout: 0 });
      while ((await execution.getPendingInterrupts()).length === 0) await new Promise((next) => setTimeout(next, 2));
      return async () => {
        await execution.continueWith("q", true);
        await execution.waitForClose();
      };
    },
    hold: async () => void (await orchestrator.flow(holding).startExecution({})),
    [Symbol.asyncDispose]: () => orchestrator.close(),
  };
}
