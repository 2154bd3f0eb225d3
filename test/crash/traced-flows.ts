/** What the traced processes run: a chunk that its worker dies in, one that fails once, a child, a question. */
import * as api from "@opentelemetry/api";
import { defineFlow } from "../../src/index.ts";

const child = defineFlow("traced-child");
child.to("lend", (ctx) => ctx.setState("lent", 1));

export const tracedFlow = defineFlow("traced-refund");
tracedFlow
  .to("hold", async (ctx) => {
    await ctx.step("look up", () => api.trace.getTracer("application").startSpan("SELECT orders").end());
    if (process.env["TRACED_NAME"] !== "doomed") return 1;
    process.stdout.write("holding\n");
    return await new Promise<number>(() => {});
  })
  .to(
    "flaky",
    (ctx) => {
      if (ctx.attempt === 1) throw new Error("not yet");
    },
    { retry: { maxAttempts: 2, initialInterval: 0 } },
  )
  .to("borrow", (ctx) => ctx.call(child, null))
  .to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }))
  .to("pay", (ctx) => ctx.setState("paid", ctx.input));

export const tracedFlows = [tracedFlow, child];
