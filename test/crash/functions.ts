/** Background functions for the crash tests; run as a program, a worker that serves those named in CRASH_SERVES. */
import { awaitResult, defer, getContext } from "../../src/defer.ts";
import { createOrchestrator } from "../../src/index.ts";

export const child = defer(function child(n: number) {
  process.stdout.write(`body child ${n}\n`);
  return n * 2;
});

export const waiting = defer(async function waiting(n: number) {
  process.stdout.write(`body waiting ${getContext()?.execution.id}\n`);
  const results = await Promise.all([awaitResult(child)(n), awaitResult(child)(n + 1)]);
  return results;
});

if (import.meta.main) {
  const served = process.env["CRASH_SERVES"]?.split(",") ?? [];
  const orchestrator = createOrchestrator({
    connection: process.env["CRASH_URL"] ?? "",
    functions: [child, waiting].filter(({ name }) => served.includes(name)),
  });
  const worker = await orchestrator.startWorker();
  process.stdout.write(`ready ${worker.id}\n`);
}
