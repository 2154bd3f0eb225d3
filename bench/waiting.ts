/** Memory of a worker, in a process of its own, while 10,000 executions wait in the database. */
import { once } from "node:events";
import { createOrchestrator } from "../src/orchestrator.ts";
import { waitingFlow } from "./flows.ts";
import type { Bench, Figure } from "./server.ts";
import { endWorker, forkWorker } from "./workers.ts";

const executions = 10_000;

export async function waiting(bench: Bench): Promise<Figure[]> {
  const worker = await forkWorker(bench);
  const ask = async () => {
    const answer = once(worker, "message");
    worker.send("rss");
    const [bytes]: unknown[] = await answer;
    return Number(bytes) / 1e6;
  };
  try {
    const idle = await ask();
    const flow = waitingFlow();
    await using orchestrator = createOrchestrator({ connection: bench.url, flows: [flow] });
    const began = performance.now();
    await orchestrator.flow(flow).startMany(
      Array.from({ length: executions }, () => ({})),
      { autoClose: false },
    );
    await untilAllWait(bench);
    const took = performance.now() - began;
    const full = await ask();
    return [
      { name: "worker memory, idle", value: idle, unit: "MB RSS" },
      { name: "worker memory, 10,000 waiting executions", value: full, unit: "MB RSS" },
      { name: "startMany of 10,000 until all of them wait", value: took, unit: "ms" },
    ];
  } finally {
    await endWorker(worker);
  }
}

async function untilAllWait(bench: Bench): Promise<void> {
  for (const end = performance.now() + 60_000; performance.now() < end;) {
    const [row] = await bench.sql<{ count: number }[]>`
      select count(*)::int as count from flowledger.executions
      where flow = 'bench-waiting' and seq > 2 and owner is null and wake_at is null`;
    if (row?.count === executions) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("10,000 executions did not come to rest within a minute");
}
