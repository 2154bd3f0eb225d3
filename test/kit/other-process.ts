/** A worker process on the clock of a test, whose database is the first argument. */
import { defineFlow } from "../../src/index.ts";
import { testOrchestrator } from "../../src/test.ts";

export const errand = defineFlow("errand");
errand
  .to("sleep", (ctx) => ctx.sleep("1d"))
  .to("wait", async (ctx) => {
    // Short ones stay in the memory of the process that has them.
    await ctx.sleep(300);
    await ctx.setState("by", process.pid);
  })
  .to(
    "retry",
    (ctx) => {
      if (ctx.attempt < 3) throw new Error("not yet");
    },
    { retry: { maxAttempts: 3, initialInterval: "1h", maxInterval: "1h", jitter: false } },
  );

const [, , database] = process.argv;
if (database !== undefined) {
  await testOrchestrator({ flows: [errand], database });
  console.log("ready");
}
