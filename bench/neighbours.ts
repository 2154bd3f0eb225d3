/**
 * What our jobs cost an application's own graphile-worker in the same database. Its channels are per database, whatever the schema:
 * each job of ours makes its workers look for jobs of their own, in vain.
 */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { createOrchestrator } from "../src/orchestrator.ts";
import type { BoundFlow } from "../src/execution/bound-flow.ts";
import { chain } from "./flows.ts";
import { openWorker } from "./server.ts";
import type { Bench, Figure } from "./server.ts";

const starts = 10_000;
/** One by one they take long, and what they cost is in proportion. */
const singleStarts = 2000;
const idleMs = 10_000;
const atOnce = { autoCloseTimeout: 0 } as const;

export async function neighbours(bench: Bench): Promise<Figure[]> {
  if (!bench.countsStatements) return [];
  const flow = chain(1);
  const neighbour = fork(fileURLToPath(new URL("neighbour.ts", import.meta.url)), [bench.url]);
  await once(neighbour, "message");
  try {
    await using inside = await openWorker(bench, [flow], 1000);
    await using outside = createOrchestrator({ connection: bench.url, flows: [flow] });
    const idle = await during(bench, neighbour, () => delay(idleMs));
    const figures: Figure[] = [
      {
        name: "neighbour's looks for jobs, idle",
        value: idle.looks / (idle.ms / 1000),
        unit: "/s",
        note: "10 workers",
      },
    ];
    const ways = [
      { way: "one by one", from: outside, concurrency: 1, count: singleStarts },
      { way: "100 at a time", from: outside, concurrency: 100, count: starts },
      { way: "in a worker's process", from: inside, concurrency: 100, count: starts },
    ];
    for (const { way, from, concurrency, count } of ways) {
      const spent = await during(bench, neighbour, async () => {
        await startAll(from.flow(flow), count, concurrency);
        await untilClosed(bench);
      });
      const extra = (key: "looks" | "lookMs" | "cpuMs") =>
        (Math.max(0, spent[key] - (idle[key] / idle.ms) * spent.ms) * starts) / count;
      const per = `per ${starts.toLocaleString("en")} starts, ${way}`;
      figures.push({ name: `neighbour's looks in vain ${per}`, value: extra("looks"), unit: "" });
      figures.push({ name: `… time of Postgres in them`, value: extra("lookMs"), unit: "ms" });
      figures.push({ name: `… CPU of the neighbour's process`, value: extra("cpuMs"), unit: "ms" });
    }
    return figures;
  } finally {
    neighbour.kill("SIGKILL");
    await once(neighbour, "exit");
  }
}

/** @param concurrency so many at once */
async function startAll(flow: BoundFlow, count: number, concurrency: number): Promise<void> {
  let left = count;
  const loop = async () => {
    while (left-- > 0) await flow.startExecution({}, atOnce);
  };
  await Promise.all(Array.from({ length: concurrency }, loop));
}

async function untilClosed({ sql }: Bench): Promise<void> {
  while ((await sql`select 1 from flowledger.executions where closed_at is null limit 1`).length > 0) await delay(20);
}

interface Spent {
  /** Statements by which the neighbour looked for jobs, and what they took in Postgres. */
  readonly looks: number;
  readonly lookMs: number;
  readonly cpuMs: number;
  readonly ms: number;
}

async function during(bench: Bench, neighbour: ChildProcess, work: () => Promise<unknown>): Promise<Spent> {
  const before = await read(bench, neighbour);
  await work();
  const after = await read(bench, neighbour);
  return {
    looks: after.looks - before.looks,
    lookMs: after.lookMs - before.lookMs,
    cpuMs: after.cpuMs - before.cpuMs,
    ms: after.ms - before.ms,
  };
}

async function read({ sql }: Bench, neighbour: ChildProcess): Promise<Spent> {
  const answer = once(neighbour, "message");
  neighbour.send("cpu");
  const [cpuMs] = (await answer) as [number];
  const [row] = await sql<[{ looks: number; lookMs: number }]>`
    select coalesce(sum(s.calls), 0)::float8 as looks, coalesce(sum(s.total_exec_time), 0)::float8 as "lookMs" from pg_stat_statements s
    where s.dbid = (select oid from pg_database where datname = current_database())
      and s.query like '%update "graphile\_worker"._private_jobs%' and s.query like '%skip locked%'`;
  return { ...row, cpuMs, ms: performance.now() };
}
