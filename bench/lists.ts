/** What an operator looks for among a million executions: every filter beside a flow, a status or a range of times. */
import { createOrchestrator } from "../src/orchestrator.ts";
import type { CountOptions, ListOptions } from "../src/index.ts";
import type { Bench, Figure } from "./server.ts";

const rows = Number(process.env["LIST_ROWS"] ?? 1_000_000);
const from = Date.UTC(2026, 0, 1);
const day = 86_400_000;
const days = 30;
const at = (n: number) => new Date(from + n * day);

/** What each is asked beside. */
const places: Record<string, ListOptions> = {
  "a flow that most are of": { flow: "list.0" },
  "a small flow": { flow: "list.40" },
  completed: { status: "completed" },
  failed: { status: "failed" },
  "a flow, failed": { flow: "list.0", status: "failed" },
  "created within a day": { createdAfter: at(14), createdBefore: at(15) },
  "created, all": { createdAfter: at(-1) },
  "closed within a day": { closedAfter: at(14), closedBefore: at(15) },
  "closed, all": { closedAfter: at(-1) },
};

const filters: Record<string, ListOptions> = {
  nothing: {},
  "most versions": { version: "f0" },
  "a rare version": { version: "fe" },
  "a version that is not there": { version: "00" },
  created: { createdAfter: at(20), createdBefore: at(21) },
  closed: { closedAfter: at(20), closedBefore: at(21) },
  parent: { parent: "01b00000-0000-7000-8000-000000000007" },
  "id prefix": { idPrefix: "019b" },
  key: { idempotencyKey: "key-1200" },
  "key that is not there": { idempotencyKey: "other" },
  "error of many": { errorLike: "declined" },
  "error of none": { errorLike: "no such text" },
  "metadata of many": { metadata: { tenant: "big" } },
  "metadata of few": { metadata: { tenant: "t77" } },
  "metadata of none": { metadata: { tenant: "none" } },
  redriven: { redriven: true },
  "not redriven": { redriven: false },
};

export async function lists(bench: Bench): Promise<Figure[]> {
  await fill(bench);
  await using orchestrator = createOrchestrator({ connection: bench.url });
  await orchestrator.listExecutions({ limit: 1 });
  const took: { name: string; ms: number; blocks: number }[] = [];
  const measure = async (name: string, work: () => Promise<unknown>) => {
    if (bench.countsStatements) await bench.sql`select pg_stat_statements_reset()`;
    const began = performance.now();
    const error = await work().then(
      () => "",
      (reason: unknown) => ` ${String(reason)}`,
    );
    const ms = performance.now() - began;
    const [row] = bench.countsStatements
      ? await bench.sql<{ blocks: number }[]>`
          select coalesce(sum(shared_blks_hit + shared_blks_read), 0)::float8 as blocks from pg_stat_statements where query like '%flowledger.executions%' or query like '%flowledger.failures%'`
      : [];
    took.push({ name: name + error.slice(0, 40), ms, blocks: row?.blocks ?? 0 });
  };
  for (const [place, beside] of Object.entries(places)) {
    for (const [filter, wanted] of Object.entries(filters)) {
      const options: CountOptions = { ...wanted, ...beside };
      for (const order of ["newest", "oldest", "lastClosed"] as const)
        await measure(`${place}: ${filter}, ${order}`, () =>
          orchestrator.listExecutions({ ...options, order, limit: 100 }),
        );
      await measure(`${place}: ${filter}, count`, () => orchestrator.countExecutions(options));
    }
  }
  await measure("failures", () => orchestrator.failures());
  await measure("failures of a flow", () => orchestrator.failures({ flow: "list.0" }));
  await measure("failures of a day", () => orchestrator.failures({ lastAfter: at(29) }));
  const sorted = took.toSorted((a, b) => b.ms - a.ms);
  if (process.env["LIST_SHOW"]) {
    for (const one of took.toSorted((a, b) => b.blocks - a.blocks).slice(0, Number(process.env["LIST_SHOW"])))
      console.log(one.blocks.toFixed(0).padStart(9), one.ms.toFixed(0).padStart(6), one.name);
  }
  return [
    {
      name: `lists and counts over ${rows.toLocaleString("en")}, p95`,
      value: sorted[Math.floor(sorted.length * 0.05)]?.ms ?? NaN,
      unit: "ms",
      target: { atMost: 50 },
      note: `${sorted.length} questions; the slowest ${sorted[0]?.ms.toFixed(0)} ms: ${sorted[0]?.name}`,
    },
  ];
}

/** A month of executions; half of them are of one flow and of one tenant. */
async function fill({ sql }: Bench): Promise<void> {
  await sql`
    insert into flowledger.executions (id, seq, epoch, flow, fingerprint, created_at, started_at, closed_at, outcome, error, parent_id, idempotency_key, metadata,
      pending_interrupts, parked, close_snapshot)
    select (left(lpad(to_hex((extract(epoch from c.at) * 1000)::bigint), 12, '0'), 8) || '-' || right(lpad(to_hex((extract(epoch from c.at) * 1000)::bigint), 12, '0'), 4)
        || '-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
      8, 1, 'list.' || f.flow, case n % 1000 when 0 then 'fe' else 'f0' end || f.flow, c.at, c.at, case when n % 50 <> 0 then c.at + interval '1 minute' * (n % 100) end,
      case when n % 50 = 0 then null when n % 20 = 1 then 'failed' when n % 100 = 2 then 'cancelled' else 'completed' end,
      case when n % 50 <> 0 and n % 20 = 1 then jsonb_build_object('name', 'CardError', 'message', 'card ' || n || case when n % 3 = 0 then ' declined' else ' stolen' end, 'chunk', 'pay') end,
      case when n % 40 = 3 then ('01b00000-0000-7000-8000-' || lpad(to_hex(n / 400), 12, '0'))::uuid end, case when n % 3 = 0 then 'key-' || n end,
      case when n % 2 = 0 then '{"tenant": "big"}'::jsonb else jsonb_build_object('tenant', 't' || n % 1001) end,
      case when n % 100 = 0 then 1 else 0 end, case when n % 500 = 50 then 1 else 0 end, case when n % 50 <> 0 then '{"$final_result": {"paid": true}}'::jsonb end
    from generate_series(1, ${rows}::int) n
    cross join lateral (select ${new Date(from).toISOString()}::text::timestamptz + interval '1 millisecond' * (n::float8 * ${(days * day) / rows}::float8) as at) c
    cross join lateral (select case when n % 7 < 4 then 0 else n % 61 end as flow) f`;
  await sql`vacuum analyze flowledger.executions`;
}
