/** How late the event loop of this process runs: what holds it up holds up every execution here. */
import { systemTimers as liveness } from "../base/timers.ts";

/** So long a lag is remembered, at least; at most twice as long. */
const windowMs = 10_000;

export class LoopLag {
  #tickedAt: number | null = null;
  #windowAt = 0;
  #worstMs = 0;
  #worstBeforeMs = 0;

  /**
   * For one that ticks: two in a process turn in between each other. What it gives is called with each turn.
   *
   * @returns `everyMs` is when it was to turn, counted from its tick before
   */
  ticker(): (everyMs: number) => void {
    let before: number | null = null;
    return (everyMs) => {
      const now = liveness.monotonic();
      const lateMs = before === null ? 0 : now - before - everyMs;
      before = this.#tickedAt = now;
      if (now - this.#windowAt >= windowMs) {
        this.#worstBeforeMs = now - this.#windowAt >= 2 * windowMs ? 0 : this.#worstMs;
        this.#worstMs = 0;
        this.#windowAt = now;
      }
      if (lateMs > this.#worstMs) this.#worstMs = lateMs;
    };
  }

  /** The longest lag of the last ten to twenty seconds; null where nothing ticks. */
  get worstMs(): number | null {
    const hasTicked = this.#tickedAt !== null && liveness.monotonic() - this.#tickedAt < 2 * windowMs;
    return hasTicked ? Math.max(this.#worstMs, this.#worstBeforeMs) : null;
  }

  /** Since the last tick; null where nothing ticks. */
  get sinceTickMs(): number | null {
    return this.#tickedAt === null ? null : liveness.monotonic() - this.#tickedAt;
  }
}
