/** A time limit that can stand still. */
import type { Timer, Timers } from "../base/timers.ts";

export class TimeLimit {
  readonly #timers: Timers;
  readonly #what: string;
  readonly #onEnd: () => void;
  #leftMs: number;
  #since: number;
  #timer: Timer | null;

  constructor(ms: number, timers: Timers, what: string, onEnd: () => void) {
    this.#leftMs = ms;
    this.#timers = timers;
    this.#what = what;
    this.#onEnd = onEnd;
    this.#since = timers.monotonic();
    this.#timer = timers.after(ms, onEnd, what);
  }

  resume(): void {
    if (this.#timer || this.#leftMs === Infinity) return;
    this.#since = this.#timers.monotonic();
    this.#timer = this.#timers.after(this.#leftMs, this.#onEnd, this.#what);
  }

  pause(): void {
    if (!this.#timer) return;
    this.#leftMs = Math.max(0, this.#leftMs - (this.#timers.monotonic() - this.#since));
    this.#timer.cancel();
    this.#timer = null;
  }

  cancel(): void {
    this.pause();
    this.#leftMs = Infinity;
  }
}
