/** The cost of a chunk does not grow with its execution: 10 chunks against 1,000, as a chain and as a forEach. */
import type { FlowDefinition } from "../src/flow/definition.ts";
import type { Orchestrator } from "../src/orchestrator.ts";
import { chain, fan } from "./flows.ts";
import { openWorker } from "./server.ts";
import type { Bench, Figure } from "./server.ts";

export async function flat(bench: Bench): Promise<Figure[]> {
  const shapes = { chain: [chain(10), chain(1000)], forEach: [fan(10), fan(1000)] } as const;
  await using orchestrator = await openWorker(bench, Object.values(shapes).flat(), 100);
  const figures: Figure[] = [];
  for (const [shape, [short, long]] of Object.entries(shapes)) {
    await perChunk(orchestrator, short, 10, 10);
    const few = await perChunk(orchestrator, short, 10, 50);
    const many = await perChunk(orchestrator, long, 1000, 2);
    figures.push({ name: `ms per chunk, ${shape} of 10`, value: few, unit: "ms" });
    figures.push({ name: `ms per chunk, ${shape} of 1,000`, value: many, unit: "ms" });
    figures.push({ name: `ratio, ${shape} of 1,000 to 10`, value: many / few, unit: "×", target: { atMost: 1.2 } });
  }
  return figures;
}

async function perChunk(
  orchestrator: Orchestrator,
  flow: FlowDefinition,
  chunks: number,
  times: number,
): Promise<number> {
  const bound = orchestrator.flow(flow);
  const began = performance.now();
  for (let n = 0; n < times; n++) await bound.start({});
  return (performance.now() - began) / times / chunks;
}
