/** A clock that stands still until a test moves it. */
import type { Clock, SleepOptions, Timer, Timers } from "../../src/base/timers.ts";

interface Entry {
  dueAt: number;
  readonly ms: number;
  readonly callback: () => void;
  readonly isRepeated: boolean;
}

export class ManualTimers implements Timers {
  #passed = 0;
  readonly #begin: number;
  readonly #entries = new Set<Entry>();
  readonly #watchers = new Set<() => void>();

  constructor(begin = Date.UTC(2026, 0, 1)) {
    this.#begin = begin;
  }

  now(): number {
    return this.#begin + this.#passed;
  }

  monotonic(): number {
    return this.#passed;
  }

  after(ms: number, callback: () => void): Timer {
    return this.#add(ms, callback, false);
  }

  at(time: number, clock: Clock, callback: () => void): Timer {
    return this.#add(Math.max(0, time - clock.now()), callback, false);
  }

  every(ms: number, callback: () => void): Timer {
    return this.#add(ms, callback, true);
  }

  async sleep(ms: number, { signal }: SleepOptions = {}): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.after(ms, resolve);
    signal?.addEventListener("abort", () => reject(signal.reason));
    await promise;
  }

  /** Lets time pass; what comes due on the way runs in its order. */
  pass(ms: number): void {
    const until = this.#passed + ms;
    for (let next = this.#next(until); next; next = this.#next(until)) {
      this.#passed = Math.max(this.#passed, next.dueAt);
      if (next.isRepeated) next.dueAt += Math.max(next.ms, 1);
      else this.#entries.delete(next);
      next.callback();
    }
    this.#passed = until;
  }

  get waiting(): number {
    return this.#entries.size;
  }

  /** Resolves as soon as something waits for so long. */
  async untilWaiting(ms: number): Promise<void> {
    while (![...this.#entries].some((entry) => entry.ms === ms)) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#watchers.add(resolve);
      await promise;
    }
  }

  #next(until: number): Entry | undefined {
    return [...this.#entries].filter(({ dueAt }) => dueAt <= until).toSorted((a, b) => a.dueAt - b.dueAt)[0];
  }

  #add(ms: number, callback: () => void, isRepeated: boolean): Timer {
    const entry: Entry = { dueAt: this.#passed + ms, ms, callback, isRepeated };
    this.#entries.add(entry);
    for (const watcher of this.#watchers) watcher();
    this.#watchers.clear();
    const timer: Timer = {
      cancel: () => void this.#entries.delete(entry),
      refresh: () => {
        entry.dueAt = this.#passed + ms;
      },
      unref: () => timer,
    };
    return timer;
  }
}
