/** Executions per second under a limit: every slot is released, handed over and acquired again. Two workers share the slots. */
import { defineFlow } from "../src/flow/builder.ts";
import { openWorker } from "./server.ts";
import type { Bench, Figure } from "./server.ts";

const executions = 1000;

export async function limited(bench: Bench): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const concurrency of [10, 100]) {
    const flow = defineFlow(`bench-limited-${concurrency}`, {}, { limits: { concurrency } });
    flow.to("work", () => null);
    await using orchestrator = await openWorker(bench, [flow], 100);
    await using _second = await openWorker(bench, [flow], 100);
    const began = performance.now();
    await orchestrator.flow(flow).startMany(
      Array.from({ length: executions }, () => null),
      { autoCloseTimeout: 0 },
    );
    for (let isOver = false; !isOver;) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      // Not a count: that costs more than what is measured.
      const [row] = await bench.sql<[{ open: boolean }]>`
        select exists (select from flowledger.executions where flow = ${flow.name} and status in ('created', 'running', 'waiting')) as open`;
      isOver = !row.open;
    }
    figures.push({
      name: `1-chunk executions, limit of ${concurrency}, two workers`,
      value: (executions / (performance.now() - began)) * 1000,
      unit: "/s",
      note: `${executions} at once`,
    });
  }
  return figures;
}
