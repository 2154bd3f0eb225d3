/** What a person feels: from the answer to the next chunk, and the inbox while 100,000 executions wait. */
import { createOrchestrator } from "../src/orchestrator.ts";
import { defineFlow } from "../src/flow/builder.ts";
import { openWorker } from "./server.ts";
import type { Bench, Figure } from "./server.ts";

const waiting = 100_000;
const samples = 200;

export async function people(bench: Bench): Promise<Figure[]> {
  const goesOn = new Map<string, () => void>();
  const flow = defineFlow("bench-approval");
  flow
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", type: "approval" }))
    .to("go on", (ctx) => goesOn.get(ctx.execution.id)?.());
  const figures: Figure[] = [];

  await using orchestrator = await openWorker(bench, [flow], 500);
  const times: number[] = [];
  for (let n = 0; n < samples + 20; n++) {
    const execution = await orchestrator.flow(flow).startExecution({}, { autoCloseTimeout: 0 });
    while ((await execution.getPendingInterrupts()).length === 0) await pause(2);
    const ran = new Promise<void>((resolve) => goesOn.set(execution.id, resolve));
    const began = performance.now();
    await execution.continueWith("q", true);
    await ran;
    times.push(performance.now() - began);
  }
  const sorted = times.slice(20).toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(sorted.length * share)] ?? NaN;
  figures.push(
    { name: "continueWith → next chunk runs, idle, p50", value: at(0.5), unit: "ms", target: { atMost: 6 } },
    { name: "continueWith → next chunk runs, idle, p95", value: at(0.95), unit: "ms", target: { atMost: 20 } },
  );

  figures.push(...(await retries(bench)));
  await fill(bench);
  const first: number[] = [];
  const resumed: number[] = [];
  await using visitor = createOrchestrator({ connection: bench.url, flows: [flow] });
  await visitor.listExecutions({ limit: 1 });
  for (let n = 0; n < 20; n++) {
    let began = performance.now();
    const { interrupts } = await visitor.listPendingInterrupts({ limit: 100 });
    first.push(performance.now() - began);
    const [one] = interrupts;
    if (!one) throw new Error("nothing waits");
    const execution = await visitor.getExecution(one.executionId);
    began = performance.now();
    await execution.continueWith(one.id, true);
    resumed.push(performance.now() - began);
  }
  const median = (list: number[]) => list.toSorted((a, b) => a - b)[10] ?? NaN;
  figures.push(
    { name: "first page of 100,000 pending interrupts, p50", value: median(first), unit: "ms", target: { atMost: 20 } },
    { name: "resuming one of 100,000, p50", value: median(resumed), unit: "ms", target: { atMost: 20 } },
  );
  await pause(3000);
  const before = process.cpuUsage();
  await pause(5000);
  const { user, system } = process.cpuUsage(before);
  figures.push({
    name: "CPU of a worker while 100,000 executions wait",
    value: (user + system) / 50_000,
    unit: "% of a core",
    target: { atMost: 5 },
    note: "its sign of life and its look for lost work",
  });
  return figures;
}

/** From `retry()` of what parked to its chunk, which a worker begins that has nothing else to do. */
async function retries(bench: Bench): Promise<Figure[]> {
  const goesOn = new Map<string, () => void>();
  const flow = defineFlow("bench-parked", {}, { onFailure: "park" });
  flow.to("work", (ctx) => {
    const hears = goesOn.get(ctx.execution.id);
    if (!hears) throw new Error("not mended");
    hears();
  });
  await using orchestrator = await openWorker(bench, [flow], 500);
  const times: number[] = [];
  for (let n = 0; n < samples + 20; n++) {
    const execution = await orchestrator.flow(flow).startExecution({}, { autoCloseTimeout: 0 });
    while ((await execution.result.getMeta()).status !== "parked") await pause(2);
    const ran = new Promise<void>((resolve) => goesOn.set(execution.id, resolve));
    const began = performance.now();
    await execution.retry({ actor: "bench", reason: "mended" });
    await ran;
    times.push(performance.now() - began);
  }
  const sorted = times.slice(20).toSorted((a, b) => a - b);
  const value = sorted[sorted.length >> 1] ?? NaN;
  return [{ name: "retry → parked chunk runs, idle, p50", value, unit: "ms", target: { atMost: 5 } }];
}

/** As a pause leaves them, without running each: the ledgers of one that waits, copied. */
async function fill(bench: Bench): Promise<void> {
  await bench.sql`
    with made as materialized (select flowledger.new_id() as id from generate_series(1, ${waiting}::int)),
    headers as (
      insert into flowledger.executions (id, seq, epoch, flow, created_at, started_at, pending_interrupts)
      select id, 5, 1, 'bench-approval', now(), now(), 1 from made),
    written as (
      insert into flowledger.ledger (execution_id, seq, epoch, at, type, dispatch, chunk, payload)
      select m.id, l.seq, l.epoch, now(), l.type, l.dispatch, l.chunk, l.payload
      from made m, (select * from flowledger.ledger where seq <= 5 and execution_id = (
        select execution_id from flowledger.interrupts where flow = 'bench-approval' limit 1)) l)
    insert into flowledger.interrupts (execution_id, id, flow, chunk, type, status, payload, resume_to, resume_count, created_at, raised_seq)
    select m.id, 'q', 'bench-approval', 'ask', 'approval', 'pending', 'null', '"next"', 0, now(), 5 from made m`;
  await bench.sql`analyze`;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
