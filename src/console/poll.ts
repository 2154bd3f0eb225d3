/** One poll for all who look: viewers of one view share its answer, and views that refresh themselves take turns. */
import { systemTimers as liveness } from "../base/timers.ts";

interface View {
  value: Promise<unknown>;
  /** When it was read, and when somebody last asked. */
  readAt: number;
  askedAt: number;
}

/** Refreshes of all views together: one in this time. */
const everyMs = 2000;
/** Who has not asked for so long looks no more. */
const goneMs = 7000;

export class Poll {
  readonly #views = new Map<string, View>();
  #lastMs = Number.NEGATIVE_INFINITY;

  /**
   * @param key what is looked at, by whom it may be seen included
   * @param isRefresh nobody asked for it but a page that stays open
   */
  async read<T>(key: string, isRefresh: boolean, work: () => Promise<T>): Promise<T> {
    const now = liveness.monotonic();
    this.#forget(now);
    const known = this.#views.get(key);
    if (known) {
      known.askedAt = now;
      const isYoung = now - known.readAt < everyMs;
      if (isYoung || (isRefresh && !this.#isTurnOf(known, now))) return known.value as Promise<T>;
    }
    if (isRefresh) this.#lastMs = now;
    const value = work();
    this.#views.set(key, { value, readAt: now, askedAt: now });
    // A failure is not kept: the next reader asks again.
    value.catch(() => {
      if (this.#views.get(key)?.value === value) this.#views.delete(key);
    });
    return value;
  }

  /** Somebody did something: who asks now is not shown what was before. */
  clear(): void {
    this.#views.clear();
  }

  /** The view that was read longest ago is next. */
  #isTurnOf(view: View, now: number): boolean {
    if (now - this.#lastMs < everyMs) return false;
    for (const other of this.#views.values()) if (other.readAt < view.readAt) return false;
    return true;
  }

  #forget(now: number): void {
    for (const [key, { askedAt }] of this.#views) if (now - askedAt > goneMs) this.#views.delete(key);
  }
}
