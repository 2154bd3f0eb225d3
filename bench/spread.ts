/** A distributed forEach over two worker processes: items per second, and what the parent's ledger costs. */
import { createOrchestrator } from "../src/orchestrator.ts";
import { spread as spreadFlow } from "./flows.ts";
import { countStatements } from "./server.ts";
import type { Bench, Figure } from "./server.ts";
import { endWorker, forkWorker } from "./workers.ts";

const runs: readonly (readonly [items: number, isWarmUp: boolean])[] = [
  [10_000, true],
  [1000, false],
  [10_000, false],
];

export async function spread(bench: Bench): Promise<Figure[]> {
  const workers = await Promise.all([forkWorker(bench), forkWorker(bench)]);
  try {
    const flow = spreadFlow();
    await using orchestrator = createOrchestrator({ connection: bench.url, flows: [flow] });
    const figures: Figure[] = [];
    for (const [items, isWarmUp] of runs) {
      const before = await countStatements(bench);
      const began = performance.now();
      const execution = await orchestrator.flow(flow).startExecution(items, { autoCloseTimeout: 0 });
      await execution.waitForClose();
      const took = performance.now() - began;
      const statements = (await countStatements(bench)) - before;
      const [ledger] = await bench.sql<[{ rows: number; bytes: number }]>`
        select count(*)::int as rows, sum(pg_column_size(payload))::int as bytes
        from flowledger.ledger where execution_id = ${execution.id}`;
      const [share] = await bench.sql<[{ most: number }]>`
        select max(n)::float8 / sum(n)::float8 as most from (
          select count(*) as n from flowledger.ledger l join flowledger.executions e on e.id = l.execution_id
          where e.parent_id = ${execution.id} and l.type = 'execution.claimed' group by l.payload ->> 'worker') w`;
      const size = items.toLocaleString("en");
      const target = items === 10_000 ? { target: { atLeast: 2000 } } : {};
      const all: Figure[] = [
        { name: `distributed items, ${size} on two workers`, value: items / (took / 1000), unit: "/s", ...target },
        { name: `ledger rows of the parent, ${size} items`, value: ledger.rows, unit: "" },
        { name: `ledger payload of the parent, ${size} items`, value: ledger.bytes / 1000, unit: "kB" },
        { name: `statements per item, ${size} items`, value: statements / items, unit: "" },
        { name: `items on the busier worker, ${size} items`, value: share.most * 100, unit: "%" },
      ];
      if (!isWarmUp) figures.push(...all);
    }
    return figures;
  } finally {
    await Promise.all(workers.map(endWorker));
  }
}
