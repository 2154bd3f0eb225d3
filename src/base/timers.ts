/**
 * The one place that knows a clock. Two kinds of time are told apart by who holds the `Timers`:
 *
 * - domain time is what a flow's user sees: sleeps, retries, timeouts, auto-close, expiry, schedules, how long a reader
 *   waits. What needs it is given a `Timers`, so that a test can move it.
 * - liveness is always real: heartbeats, leases, polls, back-off after a lost connection, limits of a statement. What
 *   needs it imports `systemTimers as liveness`.
 */

export interface Timers {
  /** Milliseconds since 1970. */
  now(): number;
  /** Milliseconds from some beginning; never set back. */
  monotonic(): number;
  /**
   * Calls back once, after any time.
   *
   * @param what says what it is for, to those who ask a test's clock what comes next
   */
  after(ms: number, callback: () => void, what?: string): Timer;
  /** Calls back once, when the clock says so: no sooner, and little later, also when that clock is corrected meanwhile. */
  at(time: number, clock: Clock, callback: () => void, what?: string): Timer;
  /** Calls back again and again. */
  every(ms: number, callback: () => void): Timer;
  /** Rejects with the signal's reason when that aborts first. */
  sleep(ms: number, options?: SleepOptions): Promise<void>;
  /** Only of a test's clock: it belongs to the database of a test, and to no other. */
  readonly isMoved?: boolean;
  /**
   * Only of a test's clock: it is the database's own, stands still until it is moved, and hears here what the database says.
   * Nothing has to look in between whether it was set.
   */
  readonly follow?: (databaseMs: number) => void;
}

export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
}

export interface Timer {
  cancel(): void;
  /** Begins its wait anew; one that was cancelled stays so. */
  refresh(): void;
  /** The process may end without it. */
  unref(): this;
}

export interface SleepOptions {
  readonly signal?: AbortSignal | undefined;
  /** Whether the process waits for it. @default true */
  readonly ref?: boolean;
}

/** What a timer of Node holds, 24.8 days: a longer one would fire at once, so it is made of several. */
const longestMs = 2 ** 31 - 1;

/** A clock may be set meanwhile, so it is read again after so long. */
const longestWaitMs = 60_000;

export const systemTimers: Timers = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after: (ms, callback) => new SystemTimer(ms, callback, false),
  at: (time, clock, callback) => new Alarm(time, clock, callback),
  every: (ms, callback) => new SystemTimer(ms, callback, true),
  sleep(ms, { signal, ref = true } = {}) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const wake = () => {
        signal?.removeEventListener("abort", stop);
        resolve();
      };
      const stop = () => {
        timer.cancel();
        reject(signal?.reason);
      };
      const timer = systemTimers.after(ms, wake);
      if (!ref) timer.unref();
      signal?.addEventListener("abort", stop, { once: true });
    });
  },
};

class Alarm implements Timer {
  readonly #time: number;
  readonly #clock: Clock;
  readonly #callback: () => void;
  #timer: Timer;
  #isUnref = false;

  constructor(time: number, clock: Clock, callback: () => void) {
    this.#time = time;
    this.#clock = clock;
    this.#callback = callback;
    this.#timer = this.#wait();
  }

  cancel(): void {
    this.#timer.cancel();
  }

  refresh(): void {
    this.#timer.refresh();
  }

  unref(): this {
    this.#isUnref = true;
    this.#timer.unref();
    return this;
  }

  #wait(): Timer {
    // A timer of Node counts whole milliseconds.
    const ms = Math.ceil(Math.min(Math.max(this.#time - this.#clock.now(), 0), longestWaitMs));
    const timer = systemTimers.after(ms, () => {
      if (this.#clock.now() >= this.#time) this.#callback();
      else this.#timer = this.#wait();
    });
    return this.#isUnref ? timer.unref() : timer;
  }
}

class SystemTimer implements Timer {
  readonly #ms: number;
  readonly #callback: () => void;
  readonly #isRepeated: boolean;
  #timeout: NodeJS.Timeout;
  /** Only of a long one: when it comes due. */
  #dueAt = 0;
  #isCancelled = false;
  #isUnref = false;

  constructor(ms: number, callback: () => void, isRepeated: boolean) {
    this.#ms = ms;
    this.#callback = callback;
    this.#isRepeated = isRepeated;
    this.#timeout = this.#begin();
  }

  cancel(): void {
    this.#isCancelled = true;
    clearTimeout(this.#timeout);
  }

  refresh(): void {
    if (this.#isCancelled) return;
    if (this.#ms <= longestMs) this.#timeout.refresh();
    else {
      clearTimeout(this.#timeout);
      this.#timeout = this.#begin();
    }
  }

  unref(): this {
    this.#isUnref = true;
    this.#timeout.unref();
    return this;
  }

  #begin(): NodeJS.Timeout {
    if (this.#ms > longestMs) this.#dueAt = performance.now() + this.#ms;
    return this.#wait(this.#ms);
  }

  #wait(ms: number): NodeJS.Timeout {
    const timeout = setTimeout(SystemTimer.#fire, Math.min(ms, longestMs), this);
    return this.#isUnref ? timeout.unref() : timeout;
  }

  static #fire(this: void, timer: SystemTimer): void {
    const left = timer.#dueAt === 0 ? 0 : timer.#dueAt - performance.now();
    if (left > 0) {
      timer.#timeout = timer.#wait(left);
      return;
    }
    // Before the callback, which may cancel it or throw.
    if (timer.#isRepeated) timer.refresh();
    timer.#callback();
  }
}
