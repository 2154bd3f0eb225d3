/** All metrics of a process, by name: what it counted, what its workers say, and what waits in the database. */
import type { DatabaseGauges, FlowGauges } from "../store/gauges.ts";
import type { ChunkMeter, FlowMeter, Meter } from "./meter.ts";
import type { Family, Sample } from "./openmetrics.ts";
import type { Vitals } from "./vitals.ts";

export interface Observed {
  readonly meter: Meter;
  readonly workers: readonly Vitals[];
  readonly isListening: boolean;
  /** Null where the database did not answer in time, or this role may not look. */
  readonly database: DatabaseGauges | null;
}

export function familiesOf({ meter, workers, isListening, database }: Observed): Family[] {
  const flows = [...meter.flows].toSorted(byName);
  const perFlow = (valueOf: (flow: FlowMeter) => Sample["value"]): Sample[] =>
    flows.map(([flow, counted]) => ({ labels: { flow }, value: valueOf(counted) }));
  const perChunk = (samplesOf: (chunk: ChunkMeter, labels: { flow: string; chunk: string }) => Sample[]): Sample[] =>
    flows.flatMap(([flow, { chunks }]) =>
      [...chunks].toSorted(byName).flatMap(([chunk, counted]) => samplesOf(counted, { flow, chunk })),
    );
  const waitingOf = new Map(database?.flows.map((counted) => [counted.flow, counted]));
  const names = database ? [...new Set([...meter.flows.keys(), ...waitingOf.keys()])].toSorted() : [];
  const waiting = (valueOf: (flow: FlowGauges) => number): Sample[] =>
    names.map((flow) => {
      const counted = waitingOf.get(flow);
      return { labels: { flow }, value: counted ? valueOf(counted) : 0 };
    });
  const sum = (valueOf: (worker: Vitals) => number): Sample[] => [
    { labels: {}, value: workers.reduce((total, worker) => total + valueOf(worker), 0) },
  ];
  const lagMs = meter.loop.worstMs;
  return [
    {
      name: "flowledger_executions_started",
      type: "counter",
      help: "Executions that a worker of this process took for the first time.",
      samples: perFlow(({ started }) => started.value),
    },
    {
      name: "flowledger_executions_closed",
      type: "counter",
      help: "Executions that a worker of this process closed, by outcome.",
      samples: flows.flatMap(([flow, { closed }]) =>
        Object.entries(closed).map(([outcome, { value }]) => ({ labels: { flow, outcome }, value })),
      ),
    },
    {
      name: "flowledger_execution_duration_seconds",
      type: "histogram",
      unit: "seconds",
      help: "From an execution's first claim to its close.",
      samples: perFlow(({ duration }) => duration),
    },
    {
      name: "flowledger_start_latency_seconds",
      type: "histogram",
      unit: "seconds",
      help: "From when an execution was due to when a worker took it for the first time.",
      samples: perFlow(({ startLatency }) => startLatency),
    },
    {
      name: "flowledger_chunk_attempts",
      type: "counter",
      help: "Attempts of chunks that ended, by outcome; retried ones failed and get another.",
      samples: perChunk(({ attempts }, labels) =>
        Object.entries(attempts).map(([outcome, { value }]) => ({ labels: { ...labels, outcome }, value })),
      ),
    },
    {
      name: "flowledger_chunk_duration_seconds",
      type: "histogram",
      unit: "seconds",
      help: "From the call of a chunk's handler until its end is in the ledger.",
      samples: perChunk(({ duration }, labels) => [{ labels, value: duration }]),
    },
    {
      name: "flowledger_commit_duration_seconds",
      type: "histogram",
      unit: "seconds",
      help: "From a commit's call until the database has answered it, waits and repeats included.",
      samples: [{ labels: {}, value: meter.commits }],
    },
    {
      name: "flowledger_takeovers",
      type: "counter",
      help: "Executions taken over from a worker that was lost.",
      samples: perFlow(({ takeovers }) => takeovers.value),
    },
    {
      name: "flowledger_writes_fenced",
      type: "counter",
      help: "Commits refused because another worker owned the execution by then.",
      samples: perFlow(({ fenced }) => fenced.value),
    },
    {
      name: "flowledger_commits_refused",
      type: "counter",
      help: "Commits that Postgres refused for what they held.",
      samples: perFlow(({ refused }) => refused.value),
    },
    {
      name: "flowledger_executions_blocked",
      type: "counter",
      help: "Claims given back because this version of the flow does not fit the execution.",
      samples: perFlow(({ blocked }) => blocked.value),
    },
    {
      name: "flowledger_stream_items",
      type: "counter",
      help: "Items that this process put into streams.",
      samples: [{ labels: {}, value: meter.streamItems.value }],
    },
    {
      name: "flowledger_worker_slots",
      type: "gauge",
      help: "Executions that the workers of this process may advance at once.",
      samples: sum(({ slots }) => slots),
    },
    {
      name: "flowledger_worker_slots_free",
      type: "gauge",
      help: "How many more they have room for.",
      samples: sum(({ freeSlots }) => freeSlots),
    },
    {
      name: "flowledger_worker_executions",
      type: "gauge",
      help: "Executions that the workers of this process own, those that wait for children too.",
      samples: sum(({ owned }) => owned),
    },
    {
      name: "flowledger_worker_silence_seconds",
      type: "gauge",
      unit: "seconds",
      help: "Since the last sign of life of a worker of this process reached the database, the longest of them.",
      samples: workers.length === 0 ? [] : [worst(workers.map(({ silentMs }) => silentMs / 1000))],
    },
    {
      name: "flowledger_listening",
      type: "gauge",
      help: "1 while LISTEN stands, 0 while wake-ups come from polling alone.",
      samples: [{ labels: {}, value: isListening ? 1 : 0 }],
    },
    {
      name: "flowledger_event_loop_lag_seconds",
      type: "gauge",
      unit: "seconds",
      help: "How late the event loop of this process ran, the worst of the last ten to twenty seconds.",
      samples: lagMs === null ? [] : [{ labels: {}, value: lagMs / 1000 }],
    },
    {
      name: "flowledger_database_answering",
      type: "gauge",
      help: "1 when the database answered this scrape in time; 0: what is read from it is missing here.",
      samples: [{ labels: {}, value: database ? 1 : 0 }],
    },
    {
      name: "flowledger_workers_alive",
      type: "gauge",
      help: "Workers of the whole fleet that gave a sign of life in the last 15 seconds.",
      samples: database ? [{ labels: {}, value: database.workersAlive }] : [],
    },
    {
      name: "flowledger_executions_due",
      type: "gauge",
      help: "Executions of the whole fleet that are due and that no worker has.",
      samples: waiting(({ due }) => due),
    },
    {
      name: "flowledger_executions_oldest_due_seconds",
      type: "gauge",
      unit: "seconds",
      help: "For how long the first of them has been due.",
      samples: waiting(({ oldestDueSeconds }) => oldestDueSeconds),
    },
    {
      name: "flowledger_executions_sleeping",
      type: "gauge",
      help: "Executions of the whole fleet that no worker holds until a time that has not come.",
      samples: waiting(({ sleeping }) => sleeping),
    },
    {
      name: "flowledger_executions_parked",
      type: "gauge",
      help: "Executions of the whole fleet with a chunk that failed for the last time and waits for an operator.",
      samples: waiting(({ parked }) => parked),
    },
    {
      name: "flowledger_executions_queued",
      type: "gauge",
      help: "Executions of the whole fleet that are queued for a slot of their flow's limits.",
      samples: waiting(({ queued }) => queued),
    },
    {
      name: "flowledger_interrupts_pending",
      type: "gauge",
      help: "Pauses of the whole fleet that wait for an answer.",
      samples: waiting(({ interrupts }) => interrupts),
    },
    {
      name: "flowledger_interrupts_oldest_seconds",
      type: "gauge",
      unit: "seconds",
      help: "For how long the first of them has waited.",
      samples: waiting(({ oldestInterruptSeconds }) => oldestInterruptSeconds),
    },
  ];
}

function byName([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1;
}

function worst(values: readonly number[]): Sample {
  return { labels: {}, value: Math.max(...values) };
}
