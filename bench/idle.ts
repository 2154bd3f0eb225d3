/** What a worker costs that has nothing to do: its CPU, that of Postgres, and its statements. */
import { setTimeout as delay } from "node:timers/promises";
import { cpuOfServer } from "./cpu.ts";
import { countStatements } from "./server.ts";
import type { Bench, Figure } from "./server.ts";
import { cpuOf, endWorker, forkWorker } from "./workers.ts";

const settling = 3000;
/** Without a worker, and with one. */
const looks = { before: 10_000, beside: 20_000 };

export async function idle(bench: Bench): Promise<Figure[]> {
  const before = await costOfServer(bench, looks.before);
  const worker = await forkWorker(bench);
  try {
    await delay(settling);
    const [cpu, began] = [await cpuOf(worker), performance.now()];
    const server = await costOfServer(bench, looks.beside);
    const share = ((await cpuOf(worker)) - cpu) / (performance.now() - began);
    const figures: Figure[] = [
      { name: "idle worker: CPU", value: share * 100, unit: "% of a core", target: { atMost: 1 } },
      { name: "idle worker: statements", value: server.statements, unit: "/s" },
    ];
    if (server.cpu !== null && before.cpu !== null)
      figures.push({
        name: "idle worker: CPU of Postgres",
        value: Math.max(0, server.cpu - before.cpu) * 100,
        unit: "% of a core",
        note: "what it has without a worker is taken off",
      });
    return figures;
  } finally {
    await endWorker(worker);
  }
}

/** Statements per second, and the share of a core that Postgres has. */
async function costOfServer(bench: Bench, ms: number): Promise<{ statements: number; cpu: number | null }> {
  const began = performance.now();
  const [cpu, statements] = [await cpuOfServer(bench.serverPid()), await countStatements(bench)];
  await delay(ms);
  // The first count is itself a statement.
  const sent = (await countStatements(bench)) - statements - 1;
  const used = await cpuOfServer(bench.serverPid());
  const took = performance.now() - began;
  return { statements: (sent / took) * 1000, cpu: used === null || cpu === null ? null : (used - cpu) / took };
}
