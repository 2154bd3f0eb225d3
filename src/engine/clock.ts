/** The database's time, carried forward by this process's monotonic clock: no decision depends on a worker's wall clock. */
import { systemTimers, type Timers } from "../base/timers.ts";

/** A window of observations is complete after so long, and so many of them. */
const windowMs = 5000;
const fullWindow = 5;
/** Observations that are older say nothing: the database's clock may have been set meanwhile. */
const staleMs = 60_000;
/** The two clocks may run apart by so much: an observation that is older than a moment counts for that much less. */
const drift = 0.05;
const momentMs = 1000;

/** What the database's clock was ahead of ours by, and when that was seen. */
interface Observation {
  readonly offset: number;
  readonly at: number;
}

/**
 * An answer is late by its way back, never early, so of several observations the largest offset is the nearest. But the
 * database's clock may be set back, or have been fast for a moment: so only those of this window and of the one before it
 * count. A step forward is followed at once, a step back when two windows have seen nothing else. Where it errs it is late:
 * no timer fires before its time.
 */
export class DatabaseClock {
  readonly #timers: Pick<Timers, "monotonic" | "now" | "follow">;
  #begunAt = -Infinity;
  #count = 0;
  /** The nearest of this window, and of the one before. */
  #nearest: Observation | null = null;
  #before: Observation | null = null;

  constructor(timers: Pick<Timers, "monotonic" | "now" | "follow"> = systemTimers) {
    this.#timers = timers;
  }

  /** A time the database told us, just now. */
  observe(databaseMs: number): void {
    // A test's clock follows the database's, so no offset is estimated.
    if (this.#timers.follow) return this.#timers.follow(databaseMs);
    const at = this.#timers.monotonic();
    const age = at - this.#begunAt;
    if (age >= staleMs) this.#begin(at, null);
    else if (age >= windowMs && this.#count >= fullWindow) this.#begin(at, this.#nearest);
    this.#count += 1;
    const offset = databaseMs - at;
    if (offset >= offsetAt(this.#nearest, at)) this.#nearest = { offset, at };
  }

  /** Milliseconds since 1970. */
  now(): number {
    if (this.#timers.follow) return this.#timers.now();
    const at = this.#timers.monotonic();
    return at + Math.max(offsetAt(this.#nearest, at), offsetAt(this.#before, at));
  }

  #begin(at: number, before: Observation | null): void {
    this.#begunAt = at;
    this.#count = 0;
    this.#before = before;
    this.#nearest = null;
  }
}

function offsetAt(observation: Observation | null, at: number): number {
  if (!observation) return -Infinity;
  return observation.offset - drift * Math.max(0, at - observation.at - momentMs);
}
