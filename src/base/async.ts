/** Waiting: with a limit, again after trouble, for a free place. */
import { systemTimers, type Timers } from "./timers.ts";

/**
 * What `work` gives, unless it takes longer than `ms`: then what `late` gives or throws, and `work` is no longer heard. Null
 * is no limit.
 */
export function withTimeout<T, Late = never>(
  work: Promise<T>,
  ms: number | null,
  late: () => Late,
  timers: Pick<Timers, "after"> = systemTimers,
): Promise<T | Late> {
  if (ms === null) return work;
  return new Promise((resolve, reject) => {
    const timer = timers.after(ms, () => {
      try {
        resolve(late());
      } catch (error) {
        reject(error);
      }
    });
    work.then(
      (value) => {
        timer.cancel();
        resolve(value);
      },
      (error: unknown) => {
        timer.cancel();
        reject(error);
      },
    );
  });
}

export interface Backoff {
  /** From 0. */
  readonly attempt: number;
  /** The wait before the first repeat. */
  readonly base: number;
  readonly max: number;
  /** Each wait is so many times the one before. @default 2 */
  readonly factor?: number;
  /** The part of each wait that chance decides, so that what failed together does not come back together: 0 is none, 1 all. */
  readonly jitter: number;
}

/** How long to wait before the next try, in the unit of `base` and `max`. */
export function backoff({ attempt, base, max, factor = 2, jitter }: Backoff): number {
  // Without a bound a base of 0 would give NaN after a thousand attempts.
  const wait = Math.min(base * Math.min(factor ** attempt, Number.MAX_VALUE), max);
  return wait * (1 - jitter + Math.random() * jitter);
}

export interface RetryRules {
  readonly shouldRetry: (error: unknown) => boolean;
  /** Milliseconds before the next try. @param attempt the one that failed, from 0 */
  readonly waitMs: (attempt: number) => number;
  /** No further try once it is aborted. */
  readonly signal?: AbortSignal | undefined;
  readonly timers?: Pick<Timers, "sleep">;
}

/** Does again what failed, as long as that may help. */
export async function retry<T>(work: () => Promise<T>, rules: RetryRules): Promise<T> {
  const { shouldRetry, waitMs, signal, timers = systemTimers } = rules;
  for (let attempt = 0; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (signal?.aborted || !shouldRetry(error)) throw error;
      await timers.sleep(waitMs(attempt));
    }
  }
}

/** The same, but rejects with the signal's reason as soon as it aborts. */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** So many at once; whoever waits for a place gets the next one that is free, in order. */
export class Semaphore {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(places: number) {
    this.#free = places;
  }

  get free(): number {
    return this.#free;
  }

  async acquire(): Promise<void> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** False when none is free. */
  tryAcquire(): boolean {
    if (this.#free === 0) return false;
    this.#free -= 1;
    return true;
  }

  release(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#free += 1;
  }
}

/** The same function, which does nothing from the second call on. */
export function once(action: () => void): () => void {
  let isDone = false;
  return () => {
    if (isDone) return;
    isDone = true;
    action();
  };
}
