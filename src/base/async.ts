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
  what?: string,
): Promise<T | Late> {
  if (ms === null) return work;
  return new Promise((resolve, reject) => {
    const timer = timers.after(
      ms,
      () => {
        try {
          resolve(late());
        } catch (error) {
          reject(error);
        }
      },
      what,
    );
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

/** Who waits for a place: groups take turns, those of a lower priority number first. */
export interface Place {
  /** @default "" */
  readonly group?: string;
  /** @default 0 */
  readonly priority?: number;
}

/** So many at once. A place that is free goes to a group that waits, each in its turn, so that a long queue holds up no other. */
export class Semaphore {
  #free: number;
  /** Those that wait, in the order of their groups' turns. */
  readonly #queues: { readonly group: string; readonly priority: number; readonly waiting: (() => void)[] }[] = [];

  constructor(permits: number) {
    this.#free = permits;
  }

  get free(): number {
    return this.#free;
  }

  /** The groups that wait. */
  get waiting(): ReadonlySet<string> {
    return new Set(this.#queues.map(({ group }) => group));
  }

  async acquire({ group = "", priority = 0 }: Place = {}): Promise<void> {
    if (this.tryAcquire()) return;
    let queue = this.#queues.find((known) => known.group === group && known.priority === priority);
    if (!queue) this.#queues.push((queue = { group, priority, waiting: [] }));
    const { promise, resolve } = Promise.withResolvers<void>();
    queue.waiting.push(resolve);
    await promise;
  }

  /** False when none is free. */
  tryAcquire(): boolean {
    if (this.#free === 0) return false;
    this.#free -= 1;
    return true;
  }

  release(): void {
    let next = 0;
    for (let index = 1; index < this.#queues.length; index++)
      if ((this.#queues[index]?.priority ?? 0) < (this.#queues[next]?.priority ?? 0)) next = index;
    const [queue] = this.#queues.splice(next, 1);
    if (!queue) {
      this.#free += 1;
      return;
    }
    const first = queue.waiting.shift();
    if (queue.waiting.length > 0) this.#queues.push(queue);
    first?.();
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

/**
 * `look`, asked again and again, takes about one part in `share` of the time: after one that took long it is left out for so long
 * (undefined), and while one is under way.
 */
export function sparingly<T>(
  share: number,
  look: () => Promise<T>,
  timers: Pick<Timers, "monotonic"> = systemTimers,
): () => Promise<T | undefined> {
  let next = -Infinity;
  return async () => {
    const begun = timers.monotonic();
    if (begun < next) return undefined;
    next = Infinity;
    try {
      return await look();
    } finally {
      const now = timers.monotonic();
      next = now + share * (now - begun);
    }
  };
}
