/** The worker process of `waiting.ts`, `spread.ts` and `takeover.ts`: it says what it weighs when asked, and ends with its parent. */
import { createOrchestrator } from "../src/orchestrator.ts";
import { busy, spread, waitingFlow } from "./flows.ts";

const orchestrator = createOrchestrator({
  connection: process.argv[2] ?? "",
  flows: [waitingFlow(), spread(), busy()],
});
await orchestrator.startWorker({ concurrency: 1000 });
process.on("message", () => {
  globalThis.gc?.();
  process.send?.(process.memoryUsage.rss());
});
process.on("disconnect", () => void orchestrator.close());
process.send?.("ready");
