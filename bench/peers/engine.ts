/** What is asked of each engine, in a process of its own. */

/** The names of engines, in the order of the table. */
export const engines = ["flowledger", "dbos", "openworkflow", "absurd", "pgboss", "graphile"] as const;
export type EngineName = (typeof engines)[number];

/** An execution: so many recorded steps one after the other, each handing on a small object. */
export interface Work {
  readonly steps: number;
  /** `chunks` is flowledger's alone: each step is a chunk of its own. */
  readonly style: "steps" | "chunks";
}

export interface Opening {
  /** An empty database of this engine's own, or the same again in the next round. */
  readonly url: string;
  /** How many executions its worker runs at once. */
  readonly concurrency: number;
  /** To be called by the step of `hold()`, once it runs. */
  readonly running: () => void;
}

/** A worker and a client in one process. */
export interface Engine extends AsyncDisposable {
  /**
   * How many executions wait beside those that run, per one that runs: 1 for engines that look for work from time to time, so that
   * each look finds some; 0 for those that are told.
   */
  readonly queued: 0 | 1;
  /** Counts executions (or jobs) that have not ended, in its tables. */
  readonly unfinished: string;
  /** Runs one. Settles with its result, or, where a client could only look for that from time to time, when its function ends. */
  run(work: Work): Promise<void>;
  /** Runs one with one step and settles with its result, as a client gets it. Of job queues: when the job's function ends. */
  result(): Promise<void>;
  /** Starts one that waits for an answer, settles once it does. What comes back answers it, and settles with its result. */
  readonly pause: (() => Promise<() => Promise<void>>) | null;
  /** Starts one with a step that never ends. */
  hold(): Promise<void>;
}

export type Open = (opening: Opening) => Promise<Engine>;

/** Who waits for the end of which function of this process. */
export class Ends {
  readonly #waiting = new Map<number, () => void>();
  #last = 0;

  /** A number for the input of the function, and what settles when `ended()` is called with it. */
  next(): { readonly n: number; readonly end: Promise<void> } {
    const n = ++this.#last;
    return { n, end: new Promise((resolve) => this.#waiting.set(n, resolve)) };
  }

  ended(n: number): void {
    this.#waiting.get(n)?.();
    this.#waiting.delete(n);
  }
}

/** For functions that never end. */
export function never(): Promise<never> {
  return new Promise(() => {});
}
