/** The worker process of several benchmarks: it says what it weighs, or what CPU it has used, when asked, and ends with its parent. */
import { createOrchestrator } from "../src/orchestrator.ts";
import { asking, busy, chain, spread, steps, waitingFlow } from "./flows.ts";

const flows = [waitingFlow(), spread(), busy(), chain(5), steps(1), asking()];
const orchestrator = createOrchestrator({ connection: process.argv[2] ?? "", flows });
await orchestrator.startWorker({ concurrency: 1000 });
process.on("message", (asked) => {
  if (asked === "cpu") {
    const { user, system } = process.cpuUsage();
    process.send?.((user + system) / 1000);
    return;
  }
  globalThis.gc?.();
  process.send?.(process.memoryUsage.rss());
});
process.on("disconnect", () => void orchestrator.close());
process.send?.("ready");
