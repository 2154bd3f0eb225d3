/** How long work stands still: workers that are killed or frozen in the middle of it, and a Postgres that crashes under load. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { createOrchestrator } from "../src/orchestrator.ts";
import { busy, chain } from "./flows.ts";
import { untilLocksCount } from "./server.ts";
import type { Bench, Figure } from "./server.ts";
import { forkWorker } from "./workers.ts";

const kills = 12;
const freezes = 2;
const inFlight = 40;

export async function takeover(bench: Bench): Promise<Figure[]> {
  const fleet = [await forkWorker(bench), await forkWorker(bench)];
  await untilLocksCount(bench);
  try {
    const killed: number[] = [];
    for (let n = 0; n < kills; n++) killed.push(...(await strike(bench, fleet, "SIGKILL")));
    const frozen: number[] = [];
    for (let n = 0; n < freezes; n++) frozen.push(...(await strike(bench, fleet, "SIGSTOP")));
    const figures: Figure[] = [
      { name: "kill -9 → claimed elsewhere, p50", value: quantile(killed, 0.5), unit: "s", target: { atMost: 1.5 } },
      { name: "kill -9 → claimed elsewhere, p99", value: quantile(killed, 0.99), unit: "s", target: { atMost: 5 } },
      { name: "frozen → claimed elsewhere, most", value: Math.max(...frozen), unit: "s", target: { atMost: 15 } },
    ];
    const { restart } = bench;
    if (restart) {
      const seconds = await untilCommits(bench, restart);
      figures.push({ name: "Postgres crash → commits again", value: seconds, unit: "s", target: { atMost: 3 } });
    }
    return figures;
  } finally {
    await Promise.all(fleet.map(end));
  }
}

/** Hits the worker that owns most, and gives the seconds until each of its executions was claimed by another; then replaces it. */
async function strike(bench: Bench, fleet: ChildProcess[], signal: "SIGKILL" | "SIGSTOP"): Promise<number[]> {
  const { sql } = bench;
  const flow = busy();
  await using orchestrator = createOrchestrator({ connection: bench.url, flows: [flow] });
  const ids = await orchestrator.flow(flow).startMany(
    Array.from({ length: inFlight }, () => ({})),
    { autoCloseTimeout: 0 },
  );
  const owned = () => sql<{ id: string; epoch: number; pid: number }[]>`
    select e.id, e.epoch, w.pid from flowledger.executions e join flowledger.workers w on w.id = e.owner where e.id = any(${ids})`;
  let rows = await owned();
  while (rows.length < inFlight) rows = await owned();
  const victim = fleet.toSorted(
    (one, other) =>
      rows.filter(({ pid }) => pid === other.pid).length - rows.filter(({ pid }) => pid === one.pid).length,
  )[0];
  if (!victim) throw new Error("there is no worker to strike");
  const [now] = await sql<[{ at: Date }]>`select clock_timestamp() as at`;
  victim.kill(signal);
  const hit = rows.filter(({ pid }) => pid === victim.pid).map(({ id }) => id);
  await Promise.all(ids.map(async (id) => (await orchestrator.getExecution(id)).waitForClose()));
  const claims = await sql<{ seconds: number }[]>`
    select extract(epoch from min(l.at) - ${now.at})::float8 as seconds from flowledger.ledger l
    where l.execution_id = any(${hit}) and l.type = 'execution.claimed' and l.at > ${now.at} group by l.execution_id`;
  await end(victim);
  fleet.splice(fleet.indexOf(victim), 1, await forkWorker(bench));
  return claims.map(({ seconds }) => seconds);
}

/** Crashes Postgres under load, and gives the seconds from its accepting connections until a chunk is committed. */
async function untilCommits(bench: Bench, restart: () => Promise<void>): Promise<number> {
  const flow = chain(5);
  await using orchestrator = createOrchestrator({ connection: bench.url, flows: [flow] });
  await orchestrator.startWorker({ concurrency: 1000 });
  await orchestrator.flow(flow).startMany(Array.from({ length: 20_000 }, () => ({})));
  const count = async () => {
    const [row] = await bench.sql<[{ count: number }]>`
      select count(*)::int as count from flowledger.ledger where type = 'chunk.completed'`;
    return row.count;
  };
  while ((await count()) === 0) await delay(1);
  await restart();
  const began = performance.now();
  const before = await eventually(count);
  while ((await eventually(count)) === before) await delay(1);
  return (performance.now() - began) / 1000;
}

async function eventually<T>(ask: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await ask();
    } catch {
      await delay(1);
    }
  }
}

async function end(worker: ChildProcess): Promise<void> {
  if (worker.exitCode !== null || worker.signalCode !== null) return;
  const exited = once(worker, "exit");
  worker.kill("SIGKILL");
  await exited;
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
