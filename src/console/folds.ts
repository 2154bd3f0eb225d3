/** What has been folded of the ledgers that somebody looks at: each look goes on from the look before, by one page. */

export class Folds<F> {
  readonly #folds = new Map<string, Promise<F>>();
  readonly #kept: number;

  /** @param kept so many, least recently looked at first to go */
  constructor(kept: number) {
    this.#kept = kept;
  }

  /**
   * One page on, after whoever asked before.
   *
   * @param key what is folded
   * @param goOn reads a page, and changes the fold only when it has it
   */
  goOn(key: string, begin: () => F, goOn: (fold: F) => Promise<void>): Promise<F> {
    const before = this.#folds.get(key) ?? Promise.resolve(begin());
    const next = before.then(async (fold) => {
      await goOn(fold);
      return fold;
    });
    // Set again, so that the map is ordered by the last look.
    this.#folds.delete(key);
    this.#folds.set(key, next);
    next.catch(() => {
      if (this.#folds.get(key) === next) this.#folds.delete(key);
    });
    for (const [oldest] of this.#folds) {
      if (this.#folds.size <= this.#kept) break;
      this.#folds.delete(oldest);
    }
    return next;
  }
}
