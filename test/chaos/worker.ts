/** One worker process of a chaos run. Its reports are lines of JSON on stdout; commands come in on stdin. */
import { pathToFileURL } from "node:url";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import type * as Library from "../../src/index.ts";
import { randomFlows } from "./flows.ts";
import { openService, operatedFlows } from "./operated.ts";

const { CHAOS_URL = "", CHAOS_SEED = "1", CHAOS_FLOWS = "8", CHAOS_SRC = "", CHAOS_FOLDER = "" } = process.env;
const { createOrchestrator, defineFlow } = (await import(
  pathToFileURL(join(CHAOS_SRC, "index.ts")).href
)) as typeof Library;

let bodies = 0;
const flush = () => {
  if (bodies > 0) say({ bodies });
  bodies = 0;
};
const onBody = () => {
  if (bodies++ === 0) setImmediate(flush);
};

const note = (message: string, fields?: unknown) => {
  if (message.startsWith("fenced")) say({ fenced: 1 });
  else if (message.startsWith("repeated a commit")) say({ repeat: 1 });
  else if (process.env["CHAOS_VERBOSE"]) process.stderr.write(`${message} ${JSON.stringify(fields ?? {})}\n`);
};
const logger = { debug() {}, info: note, warn: note, error: note };

const flows = [
  ...randomFlows(Number(CHAOS_SEED), Number(CHAOS_FLOWS), defineFlow, onBody),
  ...operatedFlows(defineFlow, openService(CHAOS_FOLDER), onBody),
];
const tick = defineFlow("chaos.tick");
tick.to("tick", () => null);
const orchestrator = createOrchestrator({
  connection: CHAOS_URL,
  flows,
  schedules: [{ flow: tick, name: "every second", cron: "* * * * * *", catchUp: "all" }],
  logger,
});
const worker = await begin();
say({ ready: worker.id });
setInterval(() => say({ id: worker.id, owned: worker.owned }), 1000);

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const [command, ms] = line.split(" ");
    // The whole thread stands still, as under a long calculation; the heartbeat's thread does not.
    if (command === "block") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(ms));
  })
  // Whoever started us is gone.
  .on("close", () => process.kill(process.pid, "SIGKILL"));

/** As whatever supervises a real one would: a database that is just starting up is asked again. */
async function begin(): Promise<Library.Worker> {
  for (;;) {
    try {
      return await orchestrator.startWorker({ concurrency: 50, cancelGrace: "1s", drainTimeout: "2s" });
    } catch (error) {
      note("the worker cannot start yet", { error: String(error) });
      await delay(200);
    }
  }
}

function say(report: object): void {
  process.stdout.write(`${JSON.stringify(report)}\n`);
}
