/** The clock of a test as its process sees it: it stands still, and follows what the test's database says. */
import type { Clock, SleepOptions, Timer, Timers } from "../base/timers.ts";

/** Something that a timer waits for. */
export interface Waiting {
  /** Milliseconds since 1970. */
  readonly at: number;
  /** What it is for; undefined where that is of no interest to a test. */
  readonly what: string | undefined;
}

interface Entry {
  dueAt: number;
  readonly ms: number;
  readonly callback: () => void;
  readonly what: string | undefined;
  readonly isRepeated: boolean;
}

export class TestTimers implements Timers {
  readonly isMoved = true;
  readonly #begunAt: number;
  #now: number;
  readonly #entries = new Set<Entry>();
  #firing: NodeJS.Immediate | null = null;

  constructor(now: number) {
    this.#begunAt = now;
    this.#now = now;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now - this.#begunAt;
  }

  after(ms: number, callback: () => void, what?: string): Timer {
    return this.#add(this.#now + ms, ms, callback, what, false);
  }

  at(time: number, _clock: Clock, callback: () => void, what?: string): Timer {
    return this.#add(time, Math.max(0, time - this.#now), callback, what, false);
  }

  every(ms: number, callback: () => void): Timer {
    return this.#add(this.#now + ms, ms, callback, undefined, true);
  }

  sleep(ms: number, { signal }: SleepOptions = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const stop = () => {
        timer.cancel();
        reject(signal?.reason);
      };
      const timer = this.after(ms, () => {
        signal?.removeEventListener("abort", stop);
        resolve();
      });
      signal?.addEventListener("abort", stop, { once: true });
    });
  }

  /** It is never set back: another process may have told us of a later time than an answer that comes in late. */
  readonly follow = (databaseMs: number): void => {
    if (databaseMs <= this.#now) return;
    this.#now = databaseMs;
    this.#fireSoon();
  };

  /** No timer is due that has not fired. */
  get isQuiet(): boolean {
    return this.#firing === null;
  }

  /** What timers wait for, the next first. */
  get waiting(): Waiting[] {
    return [...this.#entries].map(({ dueAt, what }) => ({ at: dueAt, what })).toSorted((a, b) => a.at - b.at);
  }

  /** The next time that a timer waits for. */
  get next(): number | null {
    let next = Infinity;
    for (const { dueAt } of this.#entries) next = Math.min(next, dueAt);
    return next === Infinity ? null : next;
  }

  #add(dueAt: number, ms: number, callback: () => void, what: string | undefined, isRepeated: boolean): Timer {
    const entry: Entry = { dueAt, ms, callback, what, isRepeated };
    this.#entries.add(entry);
    if (dueAt <= this.#now) this.#fireSoon();
    const timer: Timer = {
      cancel: () => void this.#entries.delete(entry),
      refresh: () => void (entry.dueAt = this.#now + ms),
      unref: () => timer,
    };
    return timer;
  }

  /** Never within a call: who tells the time, or sets a timer, is in the middle of something. */
  #fireSoon(): void {
    this.#firing ??= setImmediate(() => {
      this.#firing = null;
      this.#fire();
    });
  }

  #fire(): void {
    const due = [...this.#entries].filter(({ dueAt }) => dueAt <= this.#now).toSorted((a, b) => a.dueAt - b.dueAt);
    for (const entry of due) {
      // An earlier one may have cancelled it.
      if (!this.#entries.has(entry)) continue;
      if (entry.isRepeated) entry.dueAt = this.#now + Math.max(entry.ms, 1);
      else this.#entries.delete(entry);
      entry.callback();
    }
  }
}
