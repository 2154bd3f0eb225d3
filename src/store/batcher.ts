/** Gathers what arrives while a statement is in flight and sends it with the next: one statement for many callers. */
import { backoff, retry, withTimeout } from "../base/async.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import { ConnectionError } from "../base/errors.ts";
import { isConnectionLoss, isEnded, isTransient, noAnswer } from "./refusals.ts";

export interface BatcherOptions<Item, Result> {
  /** One statement for all items; results in the same order. */
  send: (items: readonly Item[]) => Promise<readonly Result[]>;
  /** Items in one statement. @default 1000 */
  maxItems?: number;
  /** Statements under way at once. @default 1 */
  maxFlights?: number;
  /** Wait out lost connections, full disks and lock timeouts instead of failing the callers. @default false */
  isPersistent?: boolean;
  /** An answer that takes longer counts as a lost connection. @default 5000 */
  timeoutMs?: number;
  onTrouble?: (error: unknown) => void;
}

/** A statement that takes longer is on a dead connection: it is sent again on another one, or its callers hear of it. */
const answerWithinMs = 5000;
/** Fewer items than this are not worth a statement of their own. */
const minShare = 16;

/**
 * A class, as everything is that is made for each commit and knows who waits for it: V8 allocates object literals of places whose
 * objects live long in a burst as old ones from then on, and what they know is kept with them until the next full collection.
 */
class Waiting<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;

  constructor(item: Item, resolve: (result: Result) => void, reject: (error: unknown) => void) {
    this.item = item;
    this.resolve = resolve;
    this.reject = reject;
  }
}

export class Batcher<Item, Result> {
  #queue: Waiting<Item, Result>[] = [];
  #flights = 0;
  #isScheduled = false;
  #isClosed = false;
  readonly #options: Required<Omit<BatcherOptions<Item, Result>, "onTrouble">>;
  readonly #onTrouble: (error: unknown) => void;

  constructor(options: BatcherOptions<Item, Result>) {
    this.#options = { maxItems: 1000, maxFlights: 1, isPersistent: false, timeoutMs: answerWithinMs, ...options };
    this.#onTrouble = options.onTrouble ?? (() => {});
  }

  submit(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#queue.push(new Waiting(item, resolve, reject));
      this.#schedule();
    });
  }

  /** Stops waiting out trouble: what is under way may fail. */
  close(): void {
    this.#isClosed = true;
  }

  // At the end of the loop's turn, so that everything the last answer set off leaves together.
  #schedule(): void {
    if (this.#isScheduled || this.#flights >= this.#options.maxFlights || this.#queue.length === 0) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      void this.#fly();
    });
  }

  async #fly(): Promise<void> {
    const { maxItems, maxFlights } = this.#options;
    // What could travel as one convoy is shared out, so that no free flight stays empty while the others wait for it.
    const share = Math.max(minShare, Math.ceil(this.#queue.length / (maxFlights - this.#flights)));
    const count = Math.min(maxItems, share);
    const batch = this.#queue.length <= count ? this.#queue : this.#queue.slice(0, count);
    this.#queue = this.#queue.length <= count ? [] : this.#queue.slice(count);
    if (batch.length === 0) return;
    this.#flights += 1;
    this.#schedule();
    try {
      await this.#deliver(batch);
    } finally {
      this.#flights -= 1;
      this.#schedule();
    }
  }

  async #deliver(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        const results = await answered(this.#options.send(batch.map(({ item }) => item)), this.#options.timeoutMs);
        batch.forEach(({ resolve }, index) => resolve(results[index] as Result));
        return;
      } catch (error) {
        if (this.#options.isPersistent && !this.#isClosed && isTransient(error)) {
          if (isConnectionLoss(error)) this.#onTrouble(error);
          await liveness.sleep(backoffMs(attempt));
        } else if (batch.length > 1 && !isTransient(error)) {
          // One item that Postgres cannot hold must not take the others with it.
          const middle = batch.length >> 1;
          await this.#deliver(batch.slice(0, middle));
          return this.#deliver(batch.slice(middle));
        } else {
          for (const { reject } of batch) reject(error);
          return;
        }
      }
    }
  }
}

/** Does again what changes nothing when it is repeated, while only connections and locks are in the way. */
export function insist<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  return retry(() => answered(work()), {
    shouldRetry: (error) => isTransient(error) && !isEnded(error),
    waitMs: backoffMs,
    signal,
  });
}

function backoffMs(attempt: number): number {
  return backoff({ attempt, base: 20, max: 500, jitter: 1 });
}

/** On a connection that went dead without a word no answer ever comes: nothing shall wait for it, and hold up others. */
export function answered<T>(answer: Promise<T>, timeoutMs = answerWithinMs): Promise<T> {
  return withTimeout(answer, timeoutMs, () => {
    const cause = Object.assign(new Error(`no answer for ${timeoutMs} ms`), { code: noAnswer });
    throw new ConnectionError(null, cause.message, "try again; with an idempotencyKey nothing happens twice", cause);
  });
}
