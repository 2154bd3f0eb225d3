/**
 * In which order what a chunk waits for side by side reaches it: one after the other, and in a retry as before. What a branch begins
 * then has the same place in every attempt, and the same effect wins a race.
 */

/** What a chunk has begun and waits for. */
export interface Turn {
  /** Even: twice the position in the journal. Odd: what has none, counted as the attempt begins it. */
  number: number;
  /** Of a sleep: when it ends. What comes with it goes first. */
  until?: number;
}

export class Turns {
  /** Those of earlier attempts, as far as a recorded effect may follow from them. */
  readonly #recorded: readonly number[];
  #next = 0;
  readonly #isRetry: boolean;
  /** Those that no commit has taken along. */
  #given: number[] = [];
  #begun = 0;
  readonly #open = new Set<number>();
  readonly #waiting = new Map<number, { readonly turn: Turn; readonly go: () => void }>();
  /** What has come by the ledger, and is still being read. */
  readonly #coming = new Set<number>();
  #known: ReadonlySet<number> | undefined;
  #isGiving = false;

  /** @param isRetry an earlier attempt has recorded something, which is here at once */
  constructor(recorded: readonly number[], isRetry: boolean) {
    this.#recorded = [...recorded];
    this.#isRetry = isRetry;
  }

  begin(): Turn {
    const turn = { number: this.#begun++ * 2 + 1 };
    this.#open.add(turn.number);
    return turn;
  }

  /** It has a position in the journal: in the next attempt it is known by that, whatever else begins then. */
  place(turn: Turn, ordinal: number): void {
    // `place` follows `begin` at once, so this turn is the last that began.
    this.#begun -= 1;
    this.#open.delete(turn.number);
    turn.number = ordinal * 2;
    this.#open.add(turn.number);
  }

  /** How much the chunk waits for. */
  get open(): number {
    return this.#open.size;
  }

  /** It has come by the ledger: what has come since waits for it. */
  expect({ number }: Turn): void {
    this.#coming.add(number);
  }

  /** For what seldom waits. @param ready undefined when it does not. Returns what to wait for, if anything */
  pass(ready: Promise<void> | undefined): Promise<void> | undefined {
    const number = this.#begun++ * 2 + 1;
    // The backlog differs from attempt to attempt, so the recorded order decides where there is one.
    const waits =
      this.#next < this.#recorded.length ? (this.#known ??= new Set(this.#recorded)).has(number) : ready !== undefined;
    if (!waits) return undefined;
    const turn = { number };
    this.#open.add(number);
    return this.#passed(turn, ready);
  }

  async #passed(turn: Turn, ready: Promise<void> | undefined): Promise<void> {
    try {
      await ready;
    } finally {
      await this.come(turn);
    }
  }

  /** What it waited for is here. Returns what says that it is its turn; undefined when it is already. */
  come(turn: Turn): Promise<void> | undefined {
    if (this.#open.size === 1 && !this.#isRetry) {
      this.#open.delete(turn.number);
      return undefined;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#coming.delete(turn.number);
    this.#waiting.set(turn.number, { turn, go: resolve });
    this.#give();
    return promise;
  }

  /** What has not been recorded, for the commit that records what followed from it. */
  take(): number[] {
    const given = this.#given;
    this.#given = [];
    return given;
  }

  /** They are not recorded after all. */
  giveBack(given: readonly number[]): void {
    this.#given.unshift(...given);
  }

  #give(): void {
    if (this.#isGiving || this.#waiting.size === 0) return;
    this.#isGiving = true;
    // After this the code that went on has begun its next calls.
    setImmediate(() => {
      this.#isGiving = false;
      const number = this.#whose();
      if (number === null) return;
      this.#open.delete(number);
      this.#waiting.get(number)?.go();
      this.#waiting.delete(number);
      this.#give();
    });
  }

  /** Null: what is next is not here yet. */
  #whose(): number | null {
    const isAlone = this.#open.size === 1;
    for (; this.#next < this.#recorded.length; this.#next++) {
      const next = this.#recorded[this.#next] ?? 0;
      if (this.#waiting.has(next)) {
        this.#next++;
        return next;
      }
      if (isAlone) break;
      // Other code may skip a recorded turn, or have passed it.
      if (this.#open.has(next)) return null;
    }
    let first: Turn | undefined;
    for (const { turn } of this.#waiting.values()) if (first === undefined || isBefore(turn, first)) first = turn;
    if (!first || (first.until !== undefined && this.#coming.size > 0)) return null;
    if (!isAlone) this.#given.push(first.number);
    return first.number;
  }
}

function isBefore({ until = 0, number }: Turn, { until: other = 0, number: others }: Turn): boolean {
  return until === other ? number < others : until < other;
}
