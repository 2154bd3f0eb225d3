/** The other process of `stream.ts`: reads one execution and says how old each item was. */
import { createInterface } from "node:readline";
import { createOrchestrator } from "../src/orchestrator.ts";

const [url = ""] = process.argv.slice(2);
await using orchestrator = createOrchestrator({ connection: url });
console.log("ready");
for await (const id of createInterface(process.stdin)) {
  const execution = await orchestrator.getExecution(id);
  const took: number[] = [];
  for await (const item of execution.getRuntimeStream({ timeout: null })) {
    const { at } = item as { at: number };
    took.push(performance.timeOrigin + performance.now() - at);
  }
  console.log(JSON.stringify(took));
}
