/** Background functions: how soon a call is acknowledged, and a function that waits for five thousand others. */
import { awaitResult, configure, defer } from "../src/defer.ts";
import { createOrchestrator } from "../src/orchestrator.ts";
import { countStatements } from "./server.ts";
import type { Bench, Figure } from "./server.ts";

const calls = 500;
const children = 5000;

const child = defer((n: number) => n + 1, { name: "bench-child" });
const parent = defer(
  async (count: number) => {
    const results = await Promise.all(Array.from({ length: count }, (_, n) => awaitResult(child)(n)));
    return results.length;
  },
  { name: "bench-parent" },
);

export async function deferred(bench: Bench): Promise<Figure[]> {
  await using orchestrator = createOrchestrator({ connection: bench.url, functions: [child, parent] });
  configure(orchestrator);
  await orchestrator.startWorker({ concurrency: 1000 });
  for (let warm = 0; warm < 50; warm++) await awaitResult(parent)(10);

  const took: number[] = [];
  for (let n = 0; n < calls; n++) {
    const began = performance.now();
    await child(n);
    took.push(performance.now() - began);
  }
  took.sort((a, b) => a - b);
  const quantile = (share: number) => took[Math.floor(took.length * share)] ?? Number.NaN;

  const before = await countStatements(bench);
  const began = performance.now();
  await awaitResult(parent)(children);
  const seconds = (performance.now() - began) / 1000;
  const statements = (await countStatements(bench)) - before;
  return [
    { name: "function: call → acknowledged, p50", value: quantile(0.5), unit: "ms", target: { atMost: 5 } },
    { name: "function: call → acknowledged, p95", value: quantile(0.95), unit: "ms" },
    { name: "function awaits 5,000 functions", value: seconds, unit: "s", target: { atMost: 3 } },
    { name: "statements per awaited function", value: statements / children, unit: "" },
  ];
}
