/**
 * The flow of the deploy tests, and run as a program a worker that serves it, of whichever release the file lies in. What its
 * steps do, they do outside of the database: a line in the file DEPLOY_EFFECTS.
 */
import { appendFileSync } from "node:fs";
import { z } from "zod";
import { release } from "../../src/base/release.ts";
import { createOrchestrator, defineFlow } from "../../src/index.ts";

/** Steps, a wait that stays in memory, one that does not, and an answer of somebody. */
export const order = defineFlow("deploy.order", { input: z.number() });
order
  .to("charge", (ctx) => ctx.step("charge", () => effect(ctx.execution.id, "charge", ctx.input * 2)))
  .to("nap", async (ctx) => (await ctx.sleep("100ms"), ctx.input))
  .to("rest", async (ctx) => (await ctx.sleep("1200ms"), ctx.input))
  .to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask", payload: ctx.input }))
  .to("ship", async (ctx) => {
    const shipped = await ctx.step("ship", () => effect(ctx.execution.id, "ship", Number(ctx.input) + 1));
    await ctx.setState("shipped", shipped);
  });

/** What an order with this input, whose question was answered with what it asked, has at its end. */
export function shippedOf(input: number): number {
  return input * 2 + 1;
}

function effect(id: string, step: string, value: number): number {
  appendFileSync(process.env["DEPLOY_EFFECTS"] ?? "", `${release} ${id} ${step}\n`);
  return value;
}

if (import.meta.main) {
  const say = (message: string, fields?: unknown) => {
    process.stdout.write(`log ${message} ${JSON.stringify(fields ?? {})}\n`);
  };
  const orchestrator = createOrchestrator({
    connection: process.env["CRASH_URL"] ?? "",
    flows: [order],
    logger: { debug() {}, info: say, warn: say, error: say },
  });
  // As many do when they start, whichever release they are of.
  await orchestrator.migrate();
  const worker = await orchestrator.startWorker({ drainTimeout: "10s" });
  process.stdout.write(`ready ${worker.id}\n`);
  process.once("SIGTERM", () => void orchestrator.close());
}
