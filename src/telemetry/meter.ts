/** What one process counts while it works: plain numbers, and nothing is made for an event. They begin at 0 with the process. */
import type { LedgerEvent, Outcome } from "../ledger/event.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Claim } from "../store/claims.ts";
import { Histogram, longBounds, shortBounds, workBounds } from "./histogram.ts";
import { LoopLag } from "./loop.ts";

export type AttemptOutcome = "completed" | "paused" | "retried" | "failed" | "interrupted";

/** Everything that the executions of one process did. */
export class Meter {
  readonly flows = new Map<string, FlowMeter>();
  /** From a commit's call until the database has answered, repeats included. */
  readonly commits = new Histogram(shortBounds);
  readonly loop = new LoopLag();
  streamItems = 0;

  flow(name: string): FlowMeter {
    const known = this.flows.get(name);
    if (known) return known;
    const made = new FlowMeter();
    this.flows.set(name, made);
    return made;
  }
}

export class FlowMeter {
  started = 0;
  takeovers = 0;
  fenced = 0;
  refused = 0;
  blocked = 0;
  readonly closed: Record<Outcome, number> = { completed: 0, failed: 0, cancelled: 0 };
  readonly startLatency = new Histogram(workBounds);
  readonly duration = new Histogram(longBounds);
  readonly chunks = new Map<string, ChunkMeter>();

  chunk(name: string): ChunkMeter {
    const known = this.chunks.get(name);
    if (known) return known;
    const made = new ChunkMeter();
    this.chunks.set(name, made);
    return made;
  }
}

export class ChunkMeter {
  readonly attempts: Record<AttemptOutcome, number> = {
    completed: 0,
    paused: 0,
    retried: 0,
    failed: 0,
    interrupted: 0,
  };
  readonly duration = new Histogram(workBounds);
}

/** One owner's share: counts what its commits put into the ledger, once they are there. */
export class OwnerMeter {
  readonly #flow: FlowMeter;
  readonly #isTakeover: boolean;
  /** How long it was due before it was claimed for the first time; null where it had been. */
  readonly #latenessMs: number | null;
  #isFirst = true;

  /** @param claim before anything of its epoch is folded */
  constructor(meter: Meter, { flow, state, now, takeovers }: Claim) {
    this.#flow = meter.flow(flow);
    this.#isTakeover = takeovers > 0;
    this.#latenessMs = state.firstClaim === null ? now - dueAt(state) : null;
  }

  /** @param at the commit's time, milliseconds since 1970 @param state with the commit folded in */
  committed(events: readonly LedgerEvent[], at: number, { closed, firstClaim }: ExecutionState): void {
    const flow = this.#flow;
    if (this.#isFirst) {
      this.#isFirst = false;
      if (this.#isTakeover) flow.takeovers += 1;
      if (this.#latenessMs !== null) {
        flow.started += 1;
        flow.startLatency.observe(this.#latenessMs);
      }
    }
    for (const event of events) {
      switch (event.type) {
        case "chunk.completed":
          ended(flow, event, "completed", at);
          break;
        case "chunk.failed":
          ended(flow, event, event.retryInMs === undefined ? "failed" : "retried", at);
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
    flow.closed[closed.outcome] += 1;
    flow.duration.observe(closed.at - (firstClaim?.at ?? closed.at));
  }

  fenced(): void {
    this.#flow.fenced += 1;
  }

  refused(): void {
    this.#flow.refused += 1;
  }
}

function ended(
  flow: FlowMeter,
  { chunk, startedAt }: { readonly chunk: string; readonly startedAt?: number | undefined },
  outcome: AttemptOutcome,
  at: number,
): void {
  const meter = flow.chunk(chunk);
  meter.attempts[outcome] += 1;
  if (startedAt !== undefined) meter.duration.observe(at - startedAt);
}

/** Since when a worker could have taken it; of a copy, since it was made. */
export function dueAt({ createdAt, startedAt, dueAt: due, forkedFrom, loadedFrom, activeAt }: ExecutionState): number {
  if (forkedFrom !== null || loadedFrom !== null) return Math.max(activeAt, due ?? 0);
  return Math.max(startedAt ?? createdAt, due ?? 0);
}
