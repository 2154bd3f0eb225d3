/** The worker process of `waiting.ts` and `spread.ts`: it says what it weighs when asked, and ends with its parent. */
import { createOrchestrator } from "../src/orchestrator.ts";
import { spread, waitingFlow } from "./flows.ts";

const orchestrator = createOrchestrator({ connection: process.argv[2] ?? "", flows: [waitingFlow(), spread()] });
await orchestrator.startWorker({ concurrency: 1000 });
process.on("message", () => {
  globalThis.gc?.();
  process.send?.(process.memoryUsage.rss());
});
process.on("disconnect", () => void orchestrator.close());
process.send?.("ready");
