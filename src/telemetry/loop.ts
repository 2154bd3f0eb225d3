/** How late the event loop of this process runs: what holds it up holds up every execution here. */
import { systemTimers as liveness } from "../base/timers.ts";

/** So long a lag is remembered, at least; at most twice as long. */
const windowMs = 10_000;

export class LoopLag {
  #tickedAt: number | null = null;
  #windowAt = 0;
  #worstMs = 0;
  #worstBeforeMs = 0;

  /** The loop has turned. @param everyMs when it was to turn, counted from the tick before */
  tick(everyMs: number): void {
    const now = liveness.monotonic();
    const lateMs = this.#tickedAt === null ? 0 : now - this.#tickedAt - everyMs;
    this.#tickedAt = now;
    if (now - this.#windowAt >= windowMs) {
      this.#worstBeforeMs = now - this.#windowAt >= 2 * windowMs ? 0 : this.#worstMs;
      this.#worstMs = 0;
      this.#windowAt = now;
    }
    if (lateMs > this.#worstMs) this.#worstMs = lateMs;
  }

  /** The longest lag of the last ten to twenty seconds; null where nothing ticks. */
  get worstMs(): number | null {
    return this.#tickedAt === null ? null : Math.max(this.#worstMs, this.#worstBeforeMs);
  }

  /** Since the last tick; null where nothing ticks. */
  get sinceTickMs(): number | null {
    return this.#tickedAt === null ? null : liveness.monotonic() - this.#tickedAt;
  }
}
