/** Beside the lists: the inbox of three groups, explanations, the screens of the console, and what indexes cost a write. */
import { createConsole } from "../src/console.ts";
import { defineFlow } from "../src/flow/builder.ts";
import { createOrchestrator } from "../src/orchestrator.ts";
import { groups, pending } from "./lists-fill.ts";
import { openWorker } from "./server.ts";
import type { Bench, Figure } from "./server.ts";
import { format, type Table } from "./table.ts";

/** The first page of three groups, and what an execution waits for, in four situations. */
export async function people(bench: Bench): Promise<Figure[]> {
  const asks = defineFlow("list.explained.asks").to("ask", (ctx) =>
    ctx.pauseFor({ assign: ["group:finance"], due: "2d" }),
  );
  const sleeps = defineFlow("list.explained.sleeps").to("rest", (ctx) => ctx.sleep("7d"));
  const parks = defineFlow("list.explained.parks", {}, { onFailure: "park" }).to("fail", () => {
    throw new Error("declined");
  });
  const ends = defineFlow("list.explained.ends").to("end", () => null);
  const flows = [asks, sleeps, parks, ends];
  await using orchestrator = await openWorker(bench, flows, 10);
  const executions = await Promise.all(
    flows.map((flow) => orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 })),
  );
  const settled = async () => {
    const kinds = await Promise.all(executions.map(async (one) => (await one.explain()).kind));
    return kinds.every((kind) => !["due", "owned", "created"].includes(kind));
  };
  for (let tries = 0; tries < 100 && !(await settled()); tries++)
    await new Promise((resolve) => setTimeout(resolve, 50));
  const explained: number[] = [];
  const listed: number[] = [];
  for (let n = 0; n < 40; n++) {
    for (const execution of executions) explained.push(await timed(() => execution.explain()));
    listed.push(await timed(() => orchestrator.inbox({ for: groups, limit: 100 })));
  }
  return [
    {
      name: `first page of ${pending.toLocaleString("en")} that wait, for three groups, p50`,
      value: share(listed, 0.5),
      unit: "ms",
      target: { atMost: 20 },
      note: `p95 ${share(listed, 0.95).toFixed(1)} ms`,
    },
    {
      name: "explain(), p50",
      value: share(explained, 0.5),
      unit: "ms",
      target: { atMost: 5 },
      note: `p95 ${share(explained, 0.95).toFixed(1)} ms`,
    },
  ];
}

const views = [
  "executions",
  "executions?status=failed",
  "executions?status=running&status=waiting&status=parked",
  "executions?flow=list.0",
  "executions?flow=list.40&status=failed&errorLike=declined",
  "executions?createdAfter=2026-01-15T00:00:00Z&createdBefore=2026-01-16T00:00:00Z",
  "executions?metadata=%7B%22tenant%22%3A%22t77%22%7D",
  "executions?order=lastClosed",
  "count",
  "count?status=failed",
  "count?flow=list.0&status=completed",
  "inbox",
  "inbox?mine=true",
  "inbox?overdue=true",
  "failures",
  "flows",
  "operations",
  "workers",
  "schedules",
];

/** What the lists of the console ask, each looked at anew. */
export async function screens(bench: Bench): Promise<Figure[]> {
  await using orchestrator = createOrchestrator({ connection: bench.url });
  await orchestrator.listExecutions({ limit: 1 });
  const took = views.map((view) => ({ view, ms: [] as number[] }));
  for (let round = 0; round < 7; round++) {
    // Another console, as one shares its answers for two seconds.
    const { fetch } = createConsole({ orchestrator, authorize: () => ({ actor: "ann", role: "viewer", groups }) });
    for (const { view, ms } of took)
      ms.push(
        await timed(async () => {
          const answer = await fetch(new Request(`http://127.0.0.1/-/${view}`));
          if (answer.status !== 200) throw new Error(`${view}: ${await answer.text()}`);
          await answer.json();
        }),
      );
  }
  const slowest = took.toSorted((a, b) => Math.min(...b.ms) - Math.min(...a.ms))[0];
  return [
    {
      name: "a list of the console, p95",
      value: share(
        took.flatMap(({ ms }) => ms),
        0.95,
      ),
      unit: "ms",
      target: { atMost: 100 },
      note: slowest ? `the slowest: ${slowest.view}, ${Math.min(...slowest.ms).toFixed(0)} ms at best` : "",
    },
  ];
}

/** WAL of an execution's first and last write of its header, with each index and without it. */
export async function indexes({ sql }: Bench): Promise<Table> {
  const many = 5000;
  const once = async (without: string | null): Promise<number> => {
    let wal = 0;
    await sql
      .begin(async (tx) => {
        if (without !== null) await tx.unsafe(`drop index flowledger."${without}"`);
        for (const statement of [
          `insert into flowledger.executions (id, seq, epoch, flow, fingerprint, created_at, started_at, idempotency_key, metadata, wake_at)
            select flowledger.new_id(), 1, 0, 'list.written', 'f0', now(), now(), 'written ' || n, '{"tenant": "big"}', now() from generate_series(1, ${many}) n`,
          `update flowledger.executions set seq = 8, wake_at = null, closed_at = now(), outcome = 'completed' where flow = 'list.written'`,
        ]) {
          const [row] = await tx.unsafe<{ "QUERY PLAN": [{ Plan: { "WAL Bytes": number } }] }[]>(
            `explain (analyze, wal, format json) ${statement}`,
          );
          wal += row?.["QUERY PLAN"][0].Plan["WAL Bytes"] ?? 0;
        }
        throw new Error("back");
      })
      .catch((error: unknown) => {
        if (!(error instanceof Error && error.message === "back")) throw error;
      });
    return wal / many;
  };
  // Pages that a checkpoint has passed are written as a whole once.
  const bytes = async (without: string | null) => Math.min(await once(without), await once(without));
  const names = await sql<{ name: string }[]>`
    select c.relname as name from pg_index i join pg_class c on c.oid = i.indexrelid
    where i.indrelid = 'flowledger.executions'::regclass and not exists (select from pg_constraint k where k.conindid = i.indexrelid)
    order by 1`;
  await once(null);
  const all = await bytes(null);
  const rows: Table["rows"][number][] = [{ name: "all of it", cells: [format(all)] }];
  for (const { name } of names) rows.push({ name, cells: [format(all - (await bytes(name)))] });
  return {
    title: "WAL of an execution's header, begun and ended: what each index adds, in bytes",
    columns: ["bytes"],
    rows,
  };
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

function share(ms: readonly number[], of: number): number {
  const sorted = ms.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * of))] ?? NaN;
}
