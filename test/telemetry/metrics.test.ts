/** What a process counts, as a scraper reads it. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import * as api from "@opentelemetry/api";
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import type { Orchestrator } from "../../src/index.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import { initialState } from "../../src/ledger/state.ts";
import { Histogram } from "../../src/telemetry/histogram.ts";
import { LoopLag } from "../../src/telemetry/loop.ts";
import { dueAt, Meter } from "../../src/telemetry/meter.ts";
import { familiesOf } from "../../src/telemetry/metrics.ts";
import { openMetrics } from "../../src/telemetry/openmetrics.ts";
import { testDatabase, type TestDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { newGate, serving, visiting } from "../support/flows.ts";
import { parseOpenMetrics, type ParsedFamily } from "../support/openmetrics.ts";

const working = defineFlow("working");
working
  .to("work", async (ctx) => {
    await ctx.putIntoStream("one");
    await ctx.putIntoStream("two");
  })
  .to("rest", () => "rested");
const failing = defineFlow("failing");
failing.to(
  "fall over",
  () => {
    throw new Error("no");
  },
  { retry: { maxAttempts: 2, initialInterval: 1 } },
);
const asking = defineFlow("asking");
asking.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" })).to("keep", () => "kept");
const sleeping = defineFlow("sleeping");
sleeping.to("sleep", async (ctx) => await ctx.sleep("7d"));
const parking = defineFlow("parking", {}, { onFailure: "park" });
parking.to(
  "fail",
  () => {
    throw new Error("no");
  },
  { retry: { maxAttempts: 1 } },
);
const flows = [working, failing, asking, sleeping, parking];

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
});

/** The value of a sample; undefined where there is none. */
function valueOf(families: Map<string, ParsedFamily>, name: string, labels: Record<string, string> = {}) {
  const samples = [...families.values()].flatMap((family) => family.samples);
  const wanted = Object.entries(labels);
  return samples.find(
    (sample) =>
      sample.name === name &&
      Object.keys(sample.labels).length === wanted.length &&
      wanted.every(([label, value]) => sample.labels[label] === value),
  )?.value;
}

async function scraped(orchestrator: Orchestrator): Promise<Map<string, ParsedFamily>> {
  return parseOpenMetrics(await orchestrator.metrics());
}

/** Scrapes until a value is there: the database is asked once a second. */
async function untilScraped(orchestrator: Orchestrator, name: string, labels: Record<string, string>, value: number) {
  const deadline = performance.now() + 8000;
  for (;;) {
    const families = await scraped(orchestrator);
    if (valueOf(families, name, labels) === value) return families;
    if (performance.now() > deadline) throw new Error(`${name} is ${valueOf(families, name, labels)}, not ${value}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

test("a scrape counts executions, attempts, commits and stream items of this process, and parses strictly", async () => {
  await using orchestrator = await serving(database, flows, {}, { concurrency: 7 });

  const before = await scraped(orchestrator);
  for (let run = 0; run < 3; run++) await orchestrator.flow(working).start(null);
  await expect(orchestrator.flow(failing).start(null)).rejects.toThrow("no");
  const after = await scraped(orchestrator);

  // Seen as 0 before the first: a rate needs that.
  expect(valueOf(before, "flowledger_executions_started_total", { flow: "working" })).toBe(0);
  const of = (name: string, labels: Record<string, string> = {}) => valueOf(after, name, labels);
  expect(of("flowledger_executions_started_total", { flow: "working" })).toBe(3);
  expect(of("flowledger_executions_closed_total", { flow: "working", outcome: "completed" })).toBe(3);
  expect(of("flowledger_executions_closed_total", { flow: "failing", outcome: "failed" })).toBe(1);
  expect(of("flowledger_chunk_attempts_total", { flow: "working", chunk: "rest", outcome: "completed" })).toBe(3);
  const fall = { flow: "failing", chunk: "fall over" };
  expect(of("flowledger_chunk_attempts_total", { ...fall, outcome: "retried" })).toBe(1);
  expect(of("flowledger_chunk_attempts_total", { ...fall, outcome: "failed" })).toBe(1);
  expect(of("flowledger_chunk_duration_seconds_count", fall)).toBe(2);
  expect(of("flowledger_execution_duration_seconds_count", { flow: "working" })).toBe(3);
  expect(of("flowledger_start_latency_seconds_count", { flow: "working" })).toBe(3);
  expect(of("flowledger_commit_duration_seconds_count")).toBeGreaterThanOrEqual(4);
  expect(of("flowledger_stream_items_total")).toBe(6);
  expect(of("flowledger_takeovers_total", { flow: "working" })).toBe(0);
  expect(of("flowledger_worker_slots")).toBe(7);
  expect(of("flowledger_listening")).toBe(1);
  expect(of("flowledger_workers_alive")).toBe(1);
});

test("a scrape says what waits in the database: due, sleeping, parked, pending, with ages; names nobody serves are one", async () => {
  await using own = await testDatabase();
  await using orchestrator = visiting(own, flows);
  await (await orchestrator.flow(working).createExecution({ autoClose: false })).start(null);
  await own.sql`select flowledger.start('nobody-' || n, 'null') from generate_series(1, 20) n`;

  await untilScraped(orchestrator, "flowledger_executions_due", { flow: "_other" }, 21);
  // What an operator holds waits for that, and for no worker.
  const by = { actor: "ann", reason: "INC-12" };
  await orchestrator.pauseFlow("working", by);
  await untilScraped(orchestrator, "flowledger_executions_due", { flow: "_other" }, 20);
  await orchestrator.unpauseFlow("working", by);
  // What is queued waits for a slot, and for no worker.
  await own.sql`
    insert into flowledger.slots (execution_id, flow, key, priority, queue_position, acquired, not_started)
    select e.id, e.flow, '', 0, 1, false, true from flowledger.executions e where e.flow = 'nobody-1'`;
  const inLine = await untilScraped(orchestrator, "flowledger_executions_queued", { flow: "_other" }, 1);
  expect(valueOf(inLine, "flowledger_executions_due", { flow: "_other" })).toBe(20);
  await own.sql`delete from flowledger.slots`;
  await using worker = await serving(own, flows);
  const asked = await worker.flow(asking).createExecution({ autoClose: false });
  await asked.start(null);
  await untilPending(asked);
  await (await worker.flow(sleeping).createExecution({ autoClose: false })).start(null);

  await (await worker.flow(parking).createExecution({ autoClose: false })).start(null);

  await untilScraped(orchestrator, "flowledger_executions_sleeping", { flow: "sleeping" }, 1);
  const families = await untilScraped(orchestrator, "flowledger_executions_parked", { flow: "parking" }, 1);
  const of = (name: string, labels: Record<string, string> = {}) => valueOf(families, name, labels);
  // A chunk that parks is no sleep, and a sleep is not parked.
  expect(of("flowledger_executions_sleeping", { flow: "parking" })).not.toBe(1);
  expect(of("flowledger_executions_parked", { flow: "sleeping" })).not.toBe(1);
  const counted = await scraped(worker);
  expect(
    valueOf(counted, "flowledger_chunk_attempts_total", { flow: "parking", chunk: "fail", outcome: "parked" }),
  ).toBe(1);
  expect(of("flowledger_interrupts_pending", { flow: "asking" })).toBe(1);
  expect(of("flowledger_interrupts_oldest_seconds", { flow: "asking" })).toBeGreaterThan(0);
  expect(of("flowledger_executions_due", { flow: "_other" })).toBe(20);
  expect(of("flowledger_executions_oldest_due_seconds", { flow: "_other" })).toBeGreaterThan(0);
  // It serves nothing itself.
  expect(of("flowledger_worker_slots")).toBe(0);
  expect(of("flowledger_workers_alive")).toBe(1);
});

test("a write that is fenced, and an execution that is taken over, are counted", async () => {
  const [begun, gate] = [newGate(), newGate()];
  const held = defineFlow("held");
  held
    .to("hold", async () => {
      begun.open();
      await gate.passed;
    })
    .to("go on", (ctx) => ctx.setState("is", "over"));
  await using own = await testDatabase();
  await using orchestrator = await serving(own, [held]);
  const execution = await orchestrator.flow(held).createExecution({ autoClose: false });
  await execution.start(null);
  await begun.passed;

  // A worker that nobody knows of claims it, and is gone.
  await own.sql`
    update flowledger.executions set owner = gen_random_uuid(), lease_token = gen_random_uuid(), epoch = epoch + 1, commit_no = 0,
      wake_at = flowledger.now() - interval '10 seconds'`;
  gate.open();
  await untilScraped(orchestrator, "flowledger_writes_fenced_total", { flow: "held" }, 1);

  const families = await untilScraped(orchestrator, "flowledger_takeovers_total", { flow: "held" }, 1);
  expect(valueOf(families, "flowledger_executions_started_total", { flow: "held" })).toBe(1);
  await execution.close();
  const closed = await untilScraped(
    orchestrator,
    "flowledger_executions_closed_total",
    { flow: "held", outcome: "completed" },
    1,
  );
  expect(valueOf(closed, "flowledger_takeovers_total", { flow: "held" })).toBe(1);
  expect(valueOf(closed, "flowledger_executions_started_total", { flow: "held" })).toBe(1);
});

test("scrapes at once ask the database once", async () => {
  await using own = await testDatabase();
  await using orchestrator = visiting(own, flows);
  await orchestrator.metrics();
  await own.sql`alter table flowledger.slots rename to slots_away`;

  // From the cache of a second; afterwards it does not answer.
  const cached = await Promise.all(Array.from({ length: 20 }, () => scraped(orchestrator)));
  const families = await untilScraped(orchestrator, "flowledger_database_answering", {}, 0);

  expect(cached.map((one) => valueOf(one, "flowledger_database_answering"))).toEqual(Array(20).fill(1));
  expect(families.has("flowledger_executions_due")).toBe(false);
  expect(valueOf(families, "flowledger_executions_started_total", { flow: "working" })).toBe(0);
});

test("without a database a scrape still answers; without a connection it says what is missing", async () => {
  await using away = createOrchestrator({ connection: "postgres://nobody@127.0.0.1:1/none", flows });
  const url = process.env["DATABASE_URL"];
  delete process.env["DATABASE_URL"];
  await using none = createOrchestrator({ flows });

  const families = await scraped(away);
  const refusal = none.metrics();

  await expect(refusal).rejects.toMatchObject({ code: "USAGE_INVALID" });
  if (url !== undefined) process.env["DATABASE_URL"] = url;
  expect(valueOf(families, "flowledger_database_answering")).toBe(0);
});

test("every metric is in the docs with its type, and every name in docs, dashboard and alerts is in the scrape", async () => {
  await using orchestrator = await serving(database, flows);
  await orchestrator.flow(working).start(null);
  await untilScraped(orchestrator, "flowledger_database_answering", {}, 1);
  // The loop has a lag once it has turned.
  const families = await vi.waitUntil(
    async () => {
      const all = await scraped(orchestrator);
      return all.has("flowledger_event_loop_lag_seconds") && all;
    },
    { timeout: 8000 },
  );
  const root = resolve(import.meta.dirname, "../..");
  const page = readFileSync(resolve(root, "docs/observability.md"), "utf8");
  const rows = [...page.matchAll(/^\| `(flowledger_\w+)` +\| (\w+) +\|/gm)].map(([, name, type]) => `${name} ${type}`);

  const names = new Set([...families.values()].flatMap(({ samples }) => samples.map(({ name }) => name)));
  expect(rows.toSorted()).toEqual([...families.values()].map(({ name, type }) => `${name} ${type}`).toSorted());
  for (const file of ["docs/observability.md", "docs/grafana-dashboard.json", "docs/prometheus-alerts.yml"]) {
    const used = new Set(readFileSync(resolve(root, file), "utf8").match(/flowledger_[a-z_]+/g));
    // A query asks for samples: a counter without "_total" finds nothing.
    const isPage = file.endsWith(".md");
    const unknown = [...used].filter((name) => !names.has(name) && !(isPage && families.has(name)));
    expect({ file, unknown }).toEqual({ file, unknown: [] });
    expect(used.size).toBeGreaterThan(5);
  }
});

test("a MeterProvider of the application gets what a scrape has, under the same names, until the orchestrator is closed", async () => {
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
  const provider = new MeterProvider({ readers: [reader] });
  const exported = async () => {
    exporter.reset();
    await reader.forceFlush();
    const scope = exporter.getMetrics()[0]?.scopeMetrics.find((one) => one.scope.name === "flowledger");
    return (scope?.metrics ?? []).map(({ descriptor: { name, unit, description }, dataPoints }) => ({
      name,
      unit,
      description,
      points: dataPoints.map(({ attributes, value }) => ({
        labels: attributes,
        value: typeof value === "object" && "buckets" in value ? value.buckets.counts : value,
        bounds: typeof value === "object" && "buckets" in value ? value.buckets.boundaries : [],
      })),
    }));
  };
  await using own = await testDatabase();
  try {
    api.metrics.setGlobalMeterProvider(provider);
    // Two of them count together, as they are one process to who looks from outside.
    const first = await serving(own, flows);
    await first.flow(working).start(null);
    await first.close();
    await using second = await serving(own, flows);
    await second.flow(working).start(null);
    // What was counted before another worker came is told once.
    await (await second.startWorker()).stop();
    await expect(second.flow(failing).start(null)).rejects.toThrow("no");
    const asked = await second.flow(asking).createExecution({ autoClose: false });
    await asked.start(null);
    await untilPending(asked);
    await untilScraped(second, "flowledger_interrupts_pending", { flow: "asking" }, 1);

    const families = await scraped(second);
    const metrics = await exported();

    expect(metrics.map(({ name }) => name).toSorted()).toEqual([...families.keys()].toSorted());
    for (const { name, unit, description } of metrics)
      expect({ name, unit, help: description }).toEqual({
        name,
        unit: families.get(name)?.unit === "seconds" ? "s" : "",
        help: families.get(name)?.help,
      });
    const of = (name: string, labels: Record<string, string> = {}) =>
      metrics
        .find((one) => one.name === name)
        ?.points.find((point) => JSON.stringify(point.labels) === JSON.stringify(labels))?.value;
    const count = (buckets: unknown) =>
      z
        .array(z.number())
        .parse(buckets)
        .reduce((a, b) => a + b);
    expect(of("flowledger_executions_started", { flow: "working" })).toBe(2);
    expect(of("flowledger_executions_closed", { flow: "working", outcome: "completed" })).toBe(2);
    expect(of("flowledger_executions_closed", { flow: "asking", outcome: "failed" })).toBe(0);
    const fall = { flow: "failing", chunk: "fall over" };
    expect(of("flowledger_chunk_attempts", { ...fall, outcome: "retried" })).toBe(1);
    expect(count(of("flowledger_chunk_duration_seconds", fall))).toBe(2);
    expect(count(of("flowledger_execution_duration_seconds", { flow: "working" }))).toBe(2);
    expect(count(of("flowledger_start_latency_seconds", { flow: "working" }))).toBe(2);
    expect(of("flowledger_stream_items")).toBe(4);
    expect(of("flowledger_interrupts_pending", { flow: "asking" })).toBe(1);
    expect(of("flowledger_workers_alive")).toBe(1);
    for (const { name, points } of metrics)
      for (const { labels, bounds } of points) {
        expect(Object.keys(labels).filter((label) => !["flow", "chunk", "outcome"].includes(label))).toEqual([]);
        const les = families.get(name)?.samples.flatMap(({ labels: { le } }) => (le === undefined ? [] : Number(le)));
        for (const bound of bounds) expect(les).toContain(bound);
      }

    // Nobody is asked any more: the SDK repeats what it knew.
    await second.close();
    const after = await exported();
    const gauges = (all: typeof metrics) => all.filter(({ name }) => families.get(name)?.type === "gauge");
    expect(gauges(after)).toEqual(gauges(metrics));
  } finally {
    api.metrics.disable();
    await provider.shutdown();
  }
});

test("a copy could have been taken since it was made, whatever it is a copy of", () => {
  const state = { ...initialState(), createdAt: 1, startedAt: 2, activeAt: 70, dueAt: null };
  const other = "01890000-0000-7000-8000-000000000000";

  expect(dueAt({ ...state })).toBe(2);
  expect(dueAt({ ...state, loadedFrom: other })).toBe(70);
  expect(dueAt({ ...state, forkedFrom: ExecutionId.parse(other) })).toBe(70);
  expect(dueAt({ ...state, loadedFrom: other, dueAt: 99 })).toBe(99);
});

test("no label has a value that grows with executions", async () => {
  await using orchestrator = await serving(database, flows);
  await orchestrator.flow(working).start(null);
  const families = await scraped(orchestrator);

  const labels = new Set(
    [...families.values()].flatMap(({ samples }) => samples.flatMap((one) => Object.keys(one.labels))),
  );

  expect([...labels].toSorted()).toEqual(["chunk", "flow", "le", "outcome"]);
});

test("the lag of the loop is that of each worker's own turns, and is forgotten", () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  try {
    const lag = new LoopLag();
    const [first, second] = [lag.ticker(), lag.ticker()];
    first(100);
    vi.advanceTimersByTime(50);
    second(100);
    vi.advanceTimersByTime(650);
    // Held up: both were to turn long before.
    first(100);
    second(100);
    expect(lag.worstMs).toBe(600);

    vi.advanceTimersByTime(3_600_000);
    expect(lag.worstMs).toBeNull();
    // One that begins anew was not late.
    const third = lag.ticker();
    third(100);
    vi.advanceTimersByTime(100);
    third(100);
    expect(lag.worstMs).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});

test("the silence of a process is that of its worst worker, and a listener that is gone is said", () => {
  const worker = { state: "serving", slots: 2, freeSlots: 1, owned: 1, isHeld: true, takesClaims: true } as const;
  const workers = [4000, 1000].map((silentMs) => ({ ...worker, silentMs }));
  const valueOf = (name: string, isListening: boolean) =>
    familiesOf({ meter: new Meter(), workers, isListening, database: null })
      .filter((family) => family.name === name)
      .flatMap(({ samples }) => samples.map(({ value }) => value));

  expect(valueOf("flowledger_worker_silence_seconds", true)).toEqual([4]);
  expect([true, false].map((isListening) => valueOf("flowledger_listening", isListening))).toEqual([[1], [0]]);
});

describe("the text", () => {
  test("escapes what labels and helps may hold", () => {
    const text = openMetrics([
      {
        name: "a",
        type: "gauge",
        help: 'back\\slash, "quotes"\nand lines',
        samples: [{ labels: { x: 'a"b\\c\nd' }, value: 1 }],
      },
    ]);

    expect(parseOpenMetrics(text).get("a")?.samples[0]?.labels).toEqual({ x: 'a"b\\c\nd' });
  });

  test("a histogram counts what is on a bound below it, and time that ran backwards as none", () => {
    const histogram = new Histogram([0.001, 1]);
    for (const ms of [-5, 1, 1000, 1001]) histogram.observe(ms);

    expect(histogram.counts).toEqual([2, 1, 1]);
    expect(histogram.sum).toBeCloseTo(2.002);
  });

  test.each([
    ["no end", "# TYPE a gauge\n# HELP a x\na 1\n"],
    ["a counter without _total", "# TYPE a counter\n# HELP a x\na 1\n# EOF\n"],
    ["a unit that the name lacks", "# TYPE a gauge\n# UNIT a seconds\n# HELP a x\na 1\n# EOF\n"],
    ["a sample twice", "# TYPE a gauge\n# HELP a x\na 1\na 2\n# EOF\n"],
    [
      "families in turns",
      "# TYPE a gauge\n# HELP a x\na 1\n# TYPE b gauge\n# HELP b x\nb 1\n# TYPE a gauge\na 2\n# EOF\n",
    ],
    ["a label twice", '# TYPE a gauge\n# HELP a x\na{b="1",b="2"} 1\n# EOF\n'],
    ["a trailing comma", '# TYPE a gauge\n# HELP a x\na{b="1",} 1\n# EOF\n'],
    ["a bad escape", '# TYPE a gauge\n# HELP a x\na{b="\\t"} 1\n# EOF\n'],
    ["no number", "# TYPE a gauge\n# HELP a x\na undefined\n# EOF\n"],
    ["a negative counter", "# TYPE a counter\n# HELP a x\na_total -1\n# EOF\n"],
    ["no +Inf", '# TYPE a histogram\n# HELP a x\na_bucket{le="1.0"} 1\na_count 1\na_sum 1\n# EOF\n'],
    [
      "an integer bound",
      '# TYPE a histogram\n# HELP a x\na_bucket{le="1"} 1\na_bucket{le="+Inf"} 1\na_count 1\na_sum 1\n# EOF\n',
    ],
    ["a count of its own", '# TYPE a histogram\n# HELP a x\na_bucket{le="+Inf"} 1\na_count 2\na_sum 1\n# EOF\n'],
  ])("the reader refuses %s", (_, text) => {
    expect(() => parseOpenMetrics(text)).toThrow(/./);
  });
});
