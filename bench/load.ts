/** Loading an execution whose ledger holds 10,000 events: from its snapshot, and from its first event. */
import { chatty } from "./flows.ts";
import { openWorker } from "./server.ts";
import type { Bench, Figure } from "./server.ts";
import { storeOn } from "../test/support/store.ts";

const events = 10_000;

export async function load(bench: Bench): Promise<Figure[]> {
  const flow = chatty(events);
  await using orchestrator = await openWorker(bench, [flow], 10);
  const began = performance.now();
  const execution = await orchestrator.flow(flow).startExecution({}, { autoCloseTimeout: 0 });
  await execution.waitForClose();
  const writing = performance.now() - began;
  const [kept] = await bench.sql<{ seq: number }[]>`
    select seq from flowledger.snapshots where execution_id = ${execution.id}`;
  const withSnapshot = await fastest(async () => void (await storeOn(bench.sql).reads.loadState(execution.id)));
  await bench.sql`delete from flowledger.snapshots where execution_id = ${execution.id}`;
  const fromFirst = await fastest(async () => void (await storeOn(bench.sql).reads.loadState(execution.id)));
  return [
    { name: "writing 10,000 ledger events from one chunk", value: writing, unit: "ms" },
    {
      name: "load after 10,000 events",
      value: withSnapshot,
      unit: "ms",
      note: kept ? `snapshot at seq ${kept.seq}` : "no snapshot was kept",
    },
    { name: "load of 10,000 events without a snapshot", value: fromFirst, unit: "ms" },
  ];
}

async function fastest(work: () => Promise<void>): Promise<number> {
  let best = Infinity;
  for (let n = 0; n < 5; n++) {
    const began = performance.now();
    await work();
    best = Math.min(best, performance.now() - began);
  }
  return best;
}
