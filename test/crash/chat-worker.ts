/** A worker of the chat of `examples/chat`. */
import { support } from "../../examples/chat/agent.ts";
import { createOrchestrator } from "../../src/index.ts";

const orchestrator = createOrchestrator({ connection: process.env["AI_DATABASE"] ?? "", flows: [support] });
const worker = await orchestrator.startWorker();
process.stdout.write(`ready ${worker.id}\n`);
