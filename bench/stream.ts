/** The runtime stream: from a put to a reader in another process, how much goes through one worker, and what readers cost. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { defineFlow } from "../src/flow/builder.ts";
import type { FlowDefinition } from "../src/flow/definition.ts";
import { createOrchestrator } from "../src/orchestrator.ts";
import type { Orchestrator } from "../src/orchestrator.ts";
import { countStatements, openWorker } from "./server.ts";
import type { Bench, Figure } from "./server.ts";

const puts = 200;
const pauseMs = 20;
const streams = 20;
const itemsPerStream = 5000;
const crowd = 1000;
/** Of 1 KB each, behind a reader that stalls. */
const unread = 20_000;

export async function stream(bench: Bench): Promise<Figure[]> {
  const [ticking, flood] = [tickingFlow(), floodFlow()];
  await using orchestrator = await openWorker(bench, [ticking, flood], 100);
  const took = await latencies(bench, async () => {
    const execution = await orchestrator.flow(ticking).startExecution({}, { autoCloseTimeout: 0 });
    return execution.id;
  });
  const quantile = (share: number) => took[Math.floor(took.length * share)] ?? Number.NaN;

  const bound = orchestrator.flow(flood);
  await bound.start({ items: 500 });
  const [before, began] = [await notifications(bench), performance.now()];
  await Promise.all(Array.from({ length: streams }, () => bound.start({ items: itemsPerStream })));
  const putting = performance.now() - began;
  const items = streams * itemsPerStream;
  const wakeups = (await notifications(bench)) - before;

  const reading = performance.now();
  let read = 0;
  const execution = await bound.startExecution({ items: 20_000 }, { autoCloseTimeout: 0 });
  for await (const item of execution.getRuntimeStream({ timeout: null })) if (item !== null) read += 1;
  const endToEnd = performance.now() - reading;

  await using readers = createOrchestrator({ connection: bench.url });
  const tick = () => orchestrator.flow(ticking).startExecution({}, { autoCloseTimeout: 0 });
  const one = await statements(bench, readers, (await tick()).id, 1);
  const many = await statements(bench, readers, (await tick()).id, crowd);
  const large = await orchestrator.flow(flood).startExecution({ items: unread, bytes: 1000 }, { autoCloseTimeout: 0 });
  await large.waitForClose();
  const held = await heldByStalled(readers, large.id);

  return [
    { name: "idle: put → read in another process, p50", value: quantile(0.5), unit: "ms", target: { atMost: 5 } },
    { name: "idle: put → read in another process, p95", value: quantile(0.95), unit: "ms", target: { atMost: 15 } },
    {
      name: `stream items through one process, ${streams} streams`,
      value: (items / putting) * 1000,
      unit: "/s",
      target: { atLeast: 30_000 },
    },
    {
      name: "stream items end to end to a reader",
      value: (read / endToEnd) * 1000,
      unit: "/s",
      target: { atLeast: 8000 },
      note: "one stream, reader and worker in one process",
    },
    {
      name: `statements for ${crowd} readers of one execution`,
      value: many / one,
      unit: "times",
      target: { atMost: 1.5 },
      note: `those for one reader: ${one.toFixed(0)}/s`,
    },
    {
      name: "heap held by a reader that stalls",
      value: held / 1e6,
      unit: "MB",
      target: { atMost: 2 },
      note: `${unread / 1000} MB unread`,
    },
    ...(bench.countsStatements
      ? [
          {
            name: "stream items per notification under load",
            value: items / Math.max(1, wakeups),
            unit: "",
            target: { atLeast: 50 },
          },
        ]
      : []),
  ];
}

/** Puts the time, now and then. */
function tickingFlow(): FlowDefinition {
  const flow = defineFlow("bench-ticking");
  flow.to("tick", async (ctx) => {
    for (let n = 0; n < puts; n++) {
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      await ctx.putIntoStream({ at: performance.timeOrigin + performance.now() });
    }
  });
  return flow;
}

/** Puts as many small items as it can, as a model puts tokens. */
function floodFlow(): FlowDefinition {
  const flow = defineFlow("bench-flood");
  flow.to("put", async (ctx) => {
    const { items, bytes = 0 } = ctx.input as { items: number; bytes?: number };
    for (let n = 0; n < items; n++) await ctx.putIntoStream({ token: `word ${n}`.padEnd(bytes) });
  });
  return flow;
}

/** Milliseconds from each put to its reader, sorted; the reader is a process of its own. */
async function latencies(bench: Bench, start: () => Promise<string>): Promise<number[]> {
  const reader = new URL("./stream-reader.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [reader, bench.url], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface(child.stdout);
  await once(lines, "line");
  child.stdin.write(`${await start()}\n`);
  const [line] = (await once(lines, "line")) as [string];
  child.stdin.end();
  await once(child, "exit");
  return (JSON.parse(line) as number[]).toSorted((a, b) => a - b);
}

/** Statements per second while an execution ticks and so many of a process read it to its end. */
async function statements(bench: Bench, readers: Orchestrator, id: string, count: number): Promise<number> {
  const execution = await readers.getExecution(id);
  const [before, began] = [await countStatements(bench), performance.now()];
  await Promise.all(
    Array.from({ length: count }, async () => {
      let read = 0;
      for await (const item of execution.getRuntimeStream({ timeout: null })) if (item !== null) read += 1;
      if (read !== puts) throw new Error(`a reader got ${read} of ${puts} items`);
    }),
  );
  return ((await countStatements(bench)) - before) / ((performance.now() - began) / 1000);
}

/** Bytes that stay on the heap for each reader that took one item and stands still, at places of their own. */
async function heldByStalled(readers: Orchestrator, id: string): Promise<number> {
  setFlagsFromString("--expose-gc");
  const collectGarbage = runInNewContext("gc") as () => void;
  const heap = () => {
    collectGarbage();
    return process.memoryUsage().heapUsed;
  };
  const execution = await readers.getExecution(id);
  const before = heap();
  const stalled = Array.from({ length: 20 }, (_, n) => execution.getRuntimeStream({ timeout: null, from: n * 500 }));
  await Promise.all(stalled.map((reader) => reader.next()));
  const held = heap() - before;
  await Promise.all(stalled.map((reader) => reader.return()));
  return held / stalled.length;
}

/** Statements that sent notifications. */
async function notifications(bench: Bench): Promise<number> {
  if (!bench.countsStatements) return 0;
  const [row] = await bench.sql<{ count: number }[]>`
    select coalesce(sum(calls), 0)::float8 as count from pg_stat_statements where query like '%pg_notify(m%'`;
  return row?.count ?? 0;
}
