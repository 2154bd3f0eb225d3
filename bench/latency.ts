/** One execution at a time on an idle system: from `start()` to its close snapshot. */
import { chain } from "./flows.ts";
import { openWorker } from "./server.ts";
import type { Bench, Figure } from "./server.ts";

const starts = 200;

export async function latency(bench: Bench): Promise<Figure[]> {
  const flow = chain(1);
  await using orchestrator = await openWorker(bench, [flow], 1000);
  const bound = orchestrator.flow(flow);
  for (let warm = 0; warm < 50; warm++) await bound.start({});
  const took: number[] = [];
  for (let n = 0; n < starts; n++) {
    const began = performance.now();
    await bound.start({});
    took.push(performance.now() - began);
  }
  took.sort((a, b) => a - b);
  const quantile = (share: number) => took[Math.floor(took.length * share)] ?? Number.NaN;
  return [
    { name: "idle: start → close snapshot, p50", value: quantile(0.5), unit: "ms", target: { atMost: 6 } },
    { name: "idle: start → close snapshot, p95", value: quantile(0.95), unit: "ms", target: { atMost: 15 } },
  ];
}
