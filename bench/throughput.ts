/** Executions and chunk commits per second, and what each costs in WAL and statements. Client and worker share a process. */
import type { FlowDefinition } from "../src/flow/definition.ts";
import type { Orchestrator } from "../src/orchestrator.ts";
import { chain } from "./flows.ts";
import { countStatements, openWorker, walPosition } from "./server.ts";
import type { Bench, Figure } from "./server.ts";

const warmUpMs = 1500;
const measuredMs = 3000;

export async function throughput(bench: Bench): Promise<Figure[]> {
  const [one, five] = [chain(1), chain(5)];
  await using orchestrator = await openWorker(bench, [one, five], 1000);
  const figures: Figure[] = [];
  // A checkpoint in the middle of a measurement would put full-page images into one figure and not into another.
  await bench.sql`checkpoint`;
  for (const inFlight of [100, 1000]) {
    const { rate } = await measure(bench, orchestrator, one, inFlight);
    figures.push({
      name: `1-chunk executions, ${inFlight} in flight`,
      value: rate,
      unit: "/s",
      target: { atLeast: 5000 },
      note: "client and worker in one process",
    });
  }
  for (const inFlight of [100, 1000]) {
    const { rate, wal, statements } = await measure(bench, orchestrator, five, inFlight);
    const at = `${inFlight} in flight`;
    figures.push({ name: `5-chunk executions, ${at}`, value: rate, unit: "/s", target: { atLeast: 4000 } });
    figures.push({ name: `chunk commits, ${at}`, value: rate * 5, unit: "/s" });
    if (bench.floor !== null)
      figures.push({
        name: `chunk commits to the floor, ${at}`,
        value: (rate * 5) / bench.floor,
        unit: "×",
        target: { atLeast: 1.2 },
      });
    figures.push({ name: `WAL per 5-chunk execution, ${at}`, value: wal / 1000, unit: "kB", target: { atMost: 6 } });
    figures.push({ name: `statements per 5-chunk execution, ${at}`, value: statements, unit: "" });
    figures.push({
      name: `statements per chunk, ${at}`,
      value: statements / 5,
      unit: "",
      target: { atMost: 0.2 },
      note: bench.countsStatements ? "pg_stat_statements, top level" : "transactions of pg_stat_database",
    });
  }
  return figures;
}

async function measure(
  bench: Bench,
  orchestrator: Orchestrator,
  flow: FlowDefinition,
  inFlight: number,
): Promise<{ rate: number; wal: number; statements: number }> {
  const bound = orchestrator.flow(flow);
  let done = 0;
  let isOver = false;
  const loop = async () => {
    for (; !isOver; done++) await bound.start({ n: 0 });
  };
  const loops = Array.from({ length: inFlight }, loop);
  await new Promise((resolve) => setTimeout(resolve, warmUpMs));
  const before = await read(bench, () => done);
  await new Promise((resolve) => setTimeout(resolve, measuredMs));
  const after = await read(bench, () => done);
  isOver = true;
  await Promise.all(loops);
  const executions = after.done - before.done;
  return {
    rate: (executions / (after.at - before.at)) * 1000,
    wal: (after.wal - before.wal) / executions,
    statements: (after.statements - before.statements) / executions,
  };
}

async function read(bench: Bench, executions: () => number) {
  const [statements, wal] = [await countStatements(bench), await walPosition(bench)];
  return { statements, wal, at: performance.now(), done: executions() };
}
