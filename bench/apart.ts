/**
 * Client and worker in one process, and a client beside two worker processes: executions per second, where the CPU goes, and how long
 * one takes when nothing else happens. Both in each round, in an order that turns around.
 */
import { setTimeout as delay } from "node:timers/promises";
import { createOrchestrator } from "../src/orchestrator.ts";
import type { Orchestrator } from "../src/orchestrator.ts";
import { cpuOfServer } from "./cpu.ts";
import { asking, chain, steps } from "./flows.ts";
import { countStatements, openWorker } from "./server.ts";
import type { Bench, Figure, Found, Size } from "./server.ts";
import { Sheet } from "./table.ts";
import type { Row } from "./table.ts";
import { Load, sample, untilEnded } from "./timing.ts";
import { cpuOf, endWorker, forkWorker } from "./workers.ts";

const together = "one process";
const separate = "client, two workers";
const ways = [together, separate] as const;
type Way = (typeof ways)[number];

const flows = { five: chain(5), one: steps(1), asks: asking() };
const result: Row = { name: "start → result, idle", unit: "ms", shows: "p50/p95" };
const answer: Row = { name: "answer → result, idle", unit: "ms", shows: "p50/p95" };

function rowsOf(inFlight: number) {
  const load = `5 chunks, ${inFlight.toLocaleString("en")} in flight`;
  const row = (name: string, unit: string): Row => ({ name: `${name}${load}`, unit, shows: "median" });
  return {
    rate: row("", "executions/s"),
    client: row("client's process, ", "% of a core"),
    workers: row("worker processes, ", "% of a core"),
    server: row("Postgres, ", "% of a core"),
    statements: row("statements per execution, ", ""),
  };
}

export async function apart(bench: Bench, { rounds, seconds }: Size): Promise<Found> {
  const sheet = new Sheet();
  for (let round = 0; round < rounds; round++)
    for (const way of round % 2 === 0 ? ways : ways.toReversed()) await measure(bench, sheet, round, way, seconds);
  const loads = [100, 1000].map(rowsOf);
  const rows = [...loads.flatMap((load) => Object.values(load)), result, answer];
  const figures: Figure[] = [
    ...loads.map(({ rate }) => figure(sheet, rate, { atLeast: 0.9 })),
    figure(sheet, result, { atMost: 1.5 }),
    figure(sheet, answer, { atMost: 1.5 }),
  ];
  return { tables: [sheet.table("client and workers apart", rows, ways)], figures };
}

function figure(sheet: Sheet, row: Row, target: Figure["target"] & object): Figure {
  const value = sheet.ratio(row, separate, { column: together }) ?? NaN;
  return { name: `apart to one process: ${row.name}`, value, unit: "×", target };
}

async function measure(bench: Bench, sheet: Sheet, round: number, way: Way, seconds: number): Promise<void> {
  const workers = way === together ? [] : await Promise.all([forkWorker(bench), forkWorker(bench)]);
  const all = Object.values(flows);
  await bench.sql`checkpoint`;
  try {
    await using orchestrator =
      workers.length > 0
        ? createOrchestrator({ connection: bench.url, flows: all })
        : await openWorker(bench, all, 1000);
    sheet.add(result, way, round, await sample(seconds * 1000, () => startOne(orchestrator)));
    sheet.add(answer, way, round, await sample(seconds * 1000, () => ask(orchestrator)));
    for (const inFlight of [100, 1000]) {
      const rows = rowsOf(inFlight);
      const load = new Load(() => orchestrator.flow(flows.five).start({ n: 0 }), inFlight);
      const ended = async () => load.done;
      await untilEnded(ended, 0, inFlight, Math.min(1, seconds) * 1000);
      const read = async () => ({
        statements: await countStatements(bench),
        server: await cpuOfServer(bench.serverPid()),
        workers: (await Promise.all(workers.map(cpuOf))).reduce((sum, ms) => sum + ms, 0),
        client: process.cpuUsage(),
        at: performance.now(),
        done: load.done,
      });
      const before = await read();
      await untilEnded(ended, before.done, inFlight, seconds * 1000);
      const after = await read();
      await load.stop();
      const [took, executions] = [after.at - before.at, after.done - before.done];
      const used = process.cpuUsage(before.client);
      sheet.add(rows.rate, way, round, [(executions / took) * 1000]);
      sheet.add(rows.statements, way, round, [(after.statements - before.statements) / executions]);
      sheet.add(rows.client, way, round, [((used.user + used.system) / 1000 / took) * 100]);
      sheet.add(rows.workers, way, round, [((after.workers - before.workers) / took) * 100]);
      if (before.server !== null && after.server !== null)
        sheet.add(rows.server, way, round, [((after.server - before.server) / took) * 100]);
    }
  } finally {
    await Promise.all(workers.map(endWorker));
  }
}

async function startOne(orchestrator: Orchestrator): Promise<() => Promise<void>> {
  return async () => void (await orchestrator.flow(flows.one).start({}));
}

/** Once it waits. */
async function ask(orchestrator: Orchestrator): Promise<() => Promise<void>> {
  const execution = await orchestrator.flow(flows.asks).startExecution({}, { autoCloseTimeout: 0 });
  while ((await execution.getPendingInterrupts()).length === 0) await delay(2);
  return async () => {
    await execution.continueWith("q", true);
    await execution.waitForClose();
  };
}
