/** Hears of each observation besides: seconds of a histogram, and by how much a count rose. */
export type Tell = (value: number) => void;

/** How long things took, as counts below fixed bounds: what it costs to observe one does not depend on how many there were. */
export class Histogram {
  /** Upper bounds in seconds, in ascending order; one more, without a bound, is the last of `counts`. */
  readonly bounds: readonly number[];
  readonly counts: number[];
  sum = 0;
  readonly #tell: Tell;

  constructor(bounds: readonly number[], tell: Tell = () => {}) {
    this.bounds = bounds;
    this.#tell = tell;
    this.counts = new Array<number>(bounds.length + 1).fill(0);
  }

  /** A clock that is corrected in between could make it negative: that counts as no time. */
  observe(ms: number): void {
    const seconds = Math.max(0, ms) / 1000;
    let bucket = 0;
    while (bucket < this.bounds.length && seconds > (this.bounds[bucket] ?? Infinity)) bucket += 1;
    this.counts[bucket] = (this.counts[bucket] ?? 0) + 1;
    this.sum += seconds;
    this.#tell(seconds);
  }

  get count(): number {
    return this.counts.reduce((sum, count) => sum + count, 0);
  }
}

/** A commit, and what waits for a worker: between a millisecond and ten seconds. */
const shortBounds: readonly number[] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
/** A chunk, and how late one was taken: up to an hour. */
const workBounds: readonly number[] = [0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600];
/** An execution: up to thirty days, as people may be in it. */
const longBounds: readonly number[] = [0.01, 0.1, 1, 10, 60, 600, 3600, 21_600, 86_400, 604_800, 2_592_000];

/** Of each histogram, by its name in a scrape. */
export const histogramBounds = {
  flowledger_execution_duration_seconds: longBounds,
  flowledger_start_latency_seconds: workBounds,
  flowledger_chunk_duration_seconds: workBounds,
  flowledger_commit_duration_seconds: shortBounds,
} satisfies Record<string, readonly number[]>;

export type HistogramName = keyof typeof histogramBounds;
