/** What one process counts while it works, and nothing is made for an event. It begins at 0 with the process. */
import type { Logger } from "../flow/context.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { ExecutionId, LedgerEvent, Outcome } from "../ledger/event.ts";
import type { Dispatch } from "../ledger/parts.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Claim } from "../store/claims.ts";
import { Histogram, histogramBounds, type HistogramName, type Tell } from "./histogram.ts";
import { LoopLag } from "./loop.ts";
import type { Labels } from "./openmetrics.ts";
import { traceIdOf } from "./traceparent.ts";

export type AttemptOutcome = "completed" | "paused" | "retried" | "failed" | "parked" | "interrupted";

/** Hears what is counted, by the name that it has in a scrape. */
export type Told = (name: string, labels: Labels, value: number) => void;

/** Everything that the executions of one process did. */
export class Meter {
  /** Besides what is kept here: a MeterProvider of the application. */
  told: Told | null = null;
  readonly flows = new Map<string, FlowMeter>();
  readonly loop = new LoopLag();
  readonly #make: Make = {
    count: (name, labels = {}) => new Count((value) => this.told?.(name, labels, value)),
    histogram: (name, labels = {}) =>
      new Histogram(histogramBounds[name], (seconds) => this.told?.(name, labels, seconds)),
  };
  /** From a commit's call until the database has answered, repeats included. */
  readonly commits = this.#make.histogram("flowledger_commit_duration_seconds");
  readonly streamItems = this.#make.count("flowledger_stream_items");

  flow(name: string): FlowMeter {
    const known = this.flows.get(name);
    if (known) return known;
    const made = new FlowMeter(name, this.#make);
    this.flows.set(name, made);
    return made;
  }
}

interface Make {
  readonly count: (name: string, labels?: Labels) => Count;
  readonly histogram: (name: HistogramName, labels?: Labels) => Histogram;
}

export class Count {
  value = 0;
  readonly #tell: Tell;

  constructor(tell: Tell) {
    this.#tell = tell;
    // Begins at 0: a counter that appears with its first event has no rate.
    tell(0);
  }

  add(count = 1): void {
    this.value += count;
    this.#tell(count);
  }
}

export class FlowMeter {
  readonly started: Count;
  readonly takeovers: Count;
  readonly fenced: Count;
  readonly refused: Count;
  readonly blocked: Count;
  readonly closed: Readonly<Record<Outcome, Count>>;
  readonly startLatency: Histogram;
  readonly duration: Histogram;
  readonly chunks = new Map<string, ChunkMeter>();
  readonly #flow: string;
  readonly #make: Make;

  constructor(flow: string, make: Make) {
    this.#flow = flow;
    this.#make = make;
    this.started = make.count("flowledger_executions_started", { flow });
    this.takeovers = make.count("flowledger_takeovers", { flow });
    this.fenced = make.count("flowledger_writes_fenced", { flow });
    this.refused = make.count("flowledger_commits_refused", { flow });
    this.blocked = make.count("flowledger_executions_blocked", { flow });
    const closed = (outcome: Outcome) => make.count("flowledger_executions_closed", { flow, outcome });
    this.closed = { completed: closed("completed"), failed: closed("failed"), cancelled: closed("cancelled") };
    this.startLatency = make.histogram("flowledger_start_latency_seconds", { flow });
    this.duration = make.histogram("flowledger_execution_duration_seconds", { flow });
  }

  chunk(name: string): ChunkMeter {
    const known = this.chunks.get(name);
    if (known) return known;
    const made = new ChunkMeter({ flow: this.#flow, chunk: name }, this.#make);
    this.chunks.set(name, made);
    return made;
  }
}

export class ChunkMeter {
  readonly attempts: Readonly<Record<AttemptOutcome, Count>>;
  readonly duration: Histogram;

  constructor(labels: Labels, make: Make) {
    const ended = (outcome: AttemptOutcome) => make.count("flowledger_chunk_attempts", { ...labels, outcome });
    this.attempts = {
      completed: ended("completed"),
      paused: ended("paused"),
      retried: ended("retried"),
      failed: ended("failed"),
      parked: ended("parked"),
      interrupted: ended("interrupted"),
    };
    this.duration = make.histogram("flowledger_chunk_duration_seconds", labels);
  }
}

/** What is due for longer before it is claimed is said. */
const lateMs = 10_000;

/** One owner's share: counts what its commits put into the ledger, once they are there, and says what an operator should know. */
export class OwnerMeter {
  readonly #flow: FlowMeter;
  readonly #log: Logger;
  readonly #id: ExecutionId;
  readonly #name: string;
  /** Limits make what they hold back late, as they should. */
  readonly #mayBeLate: boolean;
  /** The `traceparent` of its root; the first owner may make that. */
  #trace: string | null;
  readonly #takeovers: number;
  /** How long it was due before it was claimed for the first time; null where it had been. */
  readonly #latenessMs: number | null;
  #isFirst = true;

  /** @param claim before anything of its epoch is folded */
  constructor(
    { meter, log }: { readonly meter: Meter; readonly log: Logger },
    { id, flow, state, now, takeovers }: Claim,
    { limits }: Pick<FlowDefinition, "limits">,
  ) {
    this.#flow = meter.flow(flow);
    this.#log = log;
    this.#id = id;
    this.#name = flow;
    this.#trace = state.trace;
    this.#mayBeLate = limits !== null;
    this.#takeovers = takeovers;
    this.#latenessMs = state.firstClaim === null ? now - dueAt(state) : null;
  }

  /** @param at the commit's time, milliseconds since 1970 @param state with the commit folded in */
  committed(events: readonly LedgerEvent[], at: number, { closed, firstClaim, trace }: ExecutionState): void {
    const flow = this.#flow;
    this.#trace = trace;
    if (this.#isFirst) {
      this.#isFirst = false;
      if (this.#takeovers > 0) this.#tookOver();
      if (this.#latenessMs !== null) this.#started(this.#latenessMs);
    }
    for (const event of events) {
      switch (event.type) {
        case "chunk.completed":
          ended(flow, event, "completed", at);
          break;
        case "chunk.failed":
          ended(flow, event, event.retryInMs === undefined ? "failed" : "retried", at);
          break;
        case "chunk.parked":
          ended(flow, event, "parked", at);
          break;
        case "interrupt.raised":
          ended(flow, event, "paused", at);
          break;
        case "chunk.interrupted":
          ended(flow, event, "interrupted", at);
          break;
        default:
      }
    }
    if (!closed) return;
    flow.closed[closed.outcome].add();
    flow.duration.observe(closed.at - (firstClaim?.at ?? closed.at));
  }

  #started(latenessMs: number): void {
    this.#flow.started.add();
    this.#flow.startLatency.observe(latenessMs);
    if (latenessMs < lateMs || this.#mayBeLate) return;
    this.#log.warn("claimed late: too few workers, or none for the flow until now", {
      ...this.#fields("claimed_late"),
      lateMs: Math.round(latenessMs),
    });
  }

  #tookOver(): void {
    this.#flow.takeovers.add();
    this.#log.info("taken over: the worker that had the execution was lost", {
      ...this.#fields("taken_over"),
      takeovers: this.#takeovers,
    });
  }

  fenced(epoch: number): void {
    this.#flow.fenced.add();
    this.#log.info("fenced: the execution has another owner", { ...this.#fields("fenced"), epoch });
  }

  /** @param writer whose it was, as far as it is known */
  refused(writer: Pick<Dispatch, "chunk" | "failures"> | undefined, error: unknown): void {
    this.#flow.refused.add();
    this.#log.error("a commit was refused", {
      ...this.#fields("commit_refused"),
      chunk: writer?.chunk ?? null,
      ...(writer && { attempt: writer.failures + 1 }),
      error: String(error),
    });
  }

  /** @param chunk what stood open each time */
  crashLoop(chunk: string | null, takeovers: number): void {
    this.#log.error("crash loop: worker after worker was lost with the execution, so it fails", {
      ...this.#fields("crash_loop"),
      chunk,
      takeovers,
    });
  }

  #fields(event: string): { event: string; executionId: ExecutionId; flow: string; traceId?: string } {
    return { event, executionId: this.#id, flow: this.#name, ...traceIdOf(this.#trace) };
  }
}

function ended(
  flow: FlowMeter,
  { chunk, startedAt }: { readonly chunk: string; readonly startedAt?: number | undefined },
  outcome: AttemptOutcome,
  at: number,
): void {
  const meter = flow.chunk(chunk);
  meter.attempts[outcome].add();
  if (startedAt !== undefined) meter.duration.observe(at - startedAt);
}

/** Since when a worker could have taken it; of a copy, since it was made. */
export function dueAt({ createdAt, startedAt, dueAt: due, forkedFrom, loadedFrom, activeAt }: ExecutionState): number {
  if (forkedFrom !== null || loadedFrom !== null) return Math.max(activeAt, due ?? 0);
  return Math.max(startedAt ?? createdAt, due ?? 0);
}
