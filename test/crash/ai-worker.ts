/** A worker process of the tests that kill one. */
import { createOrchestrator } from "../../src/index.ts";
import { agent } from "./ai-flows.ts";

const orchestrator = createOrchestrator({ connection: process.env["AI_DATABASE"] ?? "", flows: [agent] });
const worker = await orchestrator.startWorker();
process.stdout.write(`ready ${worker.id}\n`);
