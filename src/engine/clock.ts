/** The database's time, carried forward by this process's monotonic clock: no decision depends on a worker's wall clock. */
import type { Timers } from "../base/timers.ts";

/** A window of observations is complete after so long, and so many of them. */
const windowMs = 5000;
const fullWindow = 5;
/** Observations that are older say nothing: the database's clock may have been set meanwhile. */
const staleMs = 60_000;

/**
 * An answer is late by its way back, never early, so of several observations the largest offset is the nearest. But the
 * database's clock may be set back, or have been fast for a moment: so only those of this window and of the one before it
 * count. A step forward is followed at once, a step back when two windows have seen nothing else.
 */
export class DatabaseClock {
  readonly #timers: Pick<Timers, "monotonic">;
  #begunAt = -Infinity;
  #count = 0;
  /** The largest offset of this window, and of the one before. */
  #largest = -Infinity;
  #before = -Infinity;

  constructor(timers: Pick<Timers, "monotonic">) {
    this.#timers = timers;
  }

  /** A time the database told us, just now. */
  observe(databaseMs: number): void {
    const at = this.#timers.monotonic();
    const age = at - this.#begunAt;
    if (age >= staleMs) this.#begin(at, -Infinity);
    else if (age >= windowMs && this.#count >= fullWindow) this.#begin(at, this.#largest);
    this.#count += 1;
    this.#largest = Math.max(this.#largest, databaseMs - at);
  }

  /** Milliseconds since 1970. */
  now(): number {
    return this.#timers.monotonic() + Math.max(this.#largest, this.#before);
  }

  #begin(at: number, before: number): void {
    this.#begunAt = at;
    this.#count = 0;
    this.#before = before;
    this.#largest = -Infinity;
  }
}
