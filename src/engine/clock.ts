/** The database's time, carried forward by this process's monotonic clock: no decision depends on a worker's wall clock. */
export class DatabaseClock {
  #offset = -Infinity;

  /** A time the database told us, just now. */
  observe(databaseMs: number): void {
    // An answer is late by its way back, never early, so the largest offset seen is the nearest.
    this.#offset = Math.max(this.#offset, databaseMs - performance.now());
  }

  /** Milliseconds since 1970. */
  now(): number {
    return performance.now() + this.#offset;
  }
}
