/** Events per second of verify and rebuild, on ledgers of ten events; the time of stateAt on a long one. */
import { v7 as uuidv7 } from "uuid";
import { createOrchestrator } from "../src/orchestrator.ts";
import { chain, chatty } from "./flows.ts";
import { openWorker } from "./server.ts";
import type { Bench, Figure } from "./server.ts";

const executions = 3000;

export async function rebuild(bench: Bench): Promise<Figure[]> {
  const [five, long] = [chain(5), chatty(10_000)];
  const figures: Figure[] = [];
  let longId: string;
  {
    await using worker = await openWorker(bench, [five, long], 1000);
    const bound = worker.flow(five);
    let left = executions;
    const loop = async () => {
      while (left-- > 0) await bound.start({ n: 0 });
    };
    await Promise.all(Array.from({ length: 200 }, loop));
    const execution = await worker.flow(long).startExecution({}, { id: uuidv7(), autoCloseTimeout: 0 });
    longId = execution.id;
    await execution.waitForClose();
    const events = (await execution.history()).length;
    const times: number[] = [];
    for (let n = 0; n < 9; n++) {
      const began = performance.now();
      await execution.stateAt(events - n * 1000);
      times.push(performance.now() - began);
    }
    figures.push({
      name: `stateAt, ${events.toLocaleString("en")} events, p50`,
      value: times.toSorted((a, b) => a - b)[4] ?? NaN,
      unit: "ms",
      target: { atMost: 100 },
    });
  }
  await bench.sql`analyze`;
  await using orchestrator = createOrchestrator({ connection: bench.url });
  figures.push(
    await rate("rebuild, all is well", (onProgress) => orchestrator.rebuild({ onProgress }), 20_000),
    await rate("verify", (onProgress) => orchestrator.verify({ onProgress }), null),
  );
  await bench.sql`update flowledger.executions set close_snapshot = '{}', outcome = 'failed' where id <> ${longId}`;
  figures.push(
    await rate("rebuild, every header damaged", (onProgress) => orchestrator.rebuild({ onProgress }), 20_000),
  );
  return figures;
}

async function rate(
  name: string,
  work: (onProgress: (progress: { readonly events: number }) => void) => Promise<unknown>,
  atLeast: number | null,
): Promise<Figure> {
  let events = 0;
  const began = performance.now();
  await work((progress) => (events = progress.events));
  const value = (events / (performance.now() - began)) * 1000;
  return { name, value, unit: "events/s", ...(atLeast !== null && { target: { atLeast } }) };
}
