/** A worker process of the crash tests. SIGTERM drains, a second one ends it at once: as `flowledger worker` does. */
import "../chaos/skew.ts";
import { createOrchestrator } from "../../src/index.ts";
import { crashFlows, ticked, work } from "./flows.ts";

const say = (message: string, fields?: unknown) => {
  process.stdout.write(`log ${message} ${JSON.stringify(fields ?? {})}\n`);
};
const orchestrator = createOrchestrator({
  connection: process.env["CRASH_URL"] ?? "",
  flows: crashFlows,
  schedules: process.env["CRASH_SCHEDULE"] ? [{ flow: ticked, cron: "* * * * * *", catchUp: "all" }] : [],
  logger: { debug() {}, info: say, warn: say, error: say },
});
const worker = await orchestrator.startWorker({ drainTimeout: process.env["CRASH_DRAIN"] ?? "10s" });
process.stdout.write(`ready ${worker.id}\n`);
const own = process.env["CRASH_START"];
if (own !== undefined) await orchestrator.flow(work).startExecution({}, { id: own, autoCloseTimeout: 0 });
const answered = process.env["CRASH_ANSWER"];
if (answered !== undefined) await (await orchestrator.getExecution(answered)).continueWith("ask", "yes");
let isStopping = false;
process.on("SIGTERM", () => {
  if (isStopping) process.exit(130);
  isStopping = true;
  process.stdout.write("draining\n");
  void orchestrator.close();
});
