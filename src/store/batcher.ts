/** Gathers what arrives while a statement is in flight and sends it with the next: one statement for many callers. */
import { backoff, retry, withTimeout } from "../base/async.ts";
import { systemTimers as liveness, type Timer } from "../base/timers.ts";
import { ConnectionError } from "../base/errors.ts";
import { leftToOthers, openCommandQueue } from "./command-queue.ts";
import type { CommandQueue } from "./command-queue.ts";
import { isConnectionLoss, isEnded, isLocked, isTransient, noAnswer } from "./refusals.ts";

export interface BatcherOptions<Item, Result> {
  /** One statement for all items; results in the same order. */
  send: (items: readonly Item[]) => Promise<readonly Result[]>;
  /** Items in one statement. @default 1000 */
  maxItems?: number;
  /** Statements under way at once. @default 1 */
  maxInFlight?: number;
  /** Fewer items than this are not worth a statement beside another one, until that has been under way for `slowMs`. @default 16 */
  minBeside?: number;
  /** @default 0 */
  slowMs?: number;
  /** Wait out lost connections, full disks and lock timeouts instead of failing the callers. @default false */
  isPersistent?: boolean;
  /** An answer that takes longer counts as a lost connection; null where `send` sees to that. @default 5000 */
  timeoutMs?: number | null;
  onTrouble?: (error: unknown) => void;
  /** What waits first for a lock of somebody else's: the others of its batch go on without it. @default the batch fails */
  mayWait?: (item: Item) => boolean;
}

/** Connections that items may have which wait alone: with what a lane leaves to others. */
const aloneAtOnce = 2 + leftToOthers;

/** A statement that takes longer is on a dead connection: it is sent again on another one, or its callers hear of it. */
const answerWithinMs = 5000;
/** So long a command waits for a lock, as lock_timeout: less than for its answer, so that it hears who has it. */
export const lockWithin = "4s";
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
  #inFlight = 0;
  /** When the last statement went out; and what looks whether it takes long. */
  #sentAt = 0;
  #slow: Timer | null = null;
  #isScheduled = false;
  #isClosed = false;
  #alone: CommandQueue | undefined;
  readonly #options: Required<Omit<BatcherOptions<Item, Result>, "onTrouble" | "mayWait">>;
  readonly #mayWait: ((item: Item) => boolean) | undefined;
  readonly #onTrouble: (error: unknown) => void;

  constructor(options: BatcherOptions<Item, Result>) {
    this.#options = {
      maxItems: 1000,
      maxInFlight: 1,
      minBeside: 16,
      slowMs: 0,
      isPersistent: false,
      timeoutMs: answerWithinMs,
      ...options,
    };
    this.#mayWait = options.mayWait;
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

  // Sends at the end of the event loop's turn, so that everything the last answer set off travels together.
  #schedule(): void {
    if (this.#isScheduled || this.#inFlight >= this.#options.maxInFlight || this.#queue.length === 0) return;
    if (!this.#isWorthIt()) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      void this.#sendBatch();
    });
  }

  /** Two small statements beside each other cost more than one after the other; but none waits behind one that takes long. */
  #isWorthIt(): boolean {
    const { minBeside, slowMs } = this.#options;
    if (slowMs === 0 || this.#inFlight === 0 || this.#queue.length >= minBeside) return true;
    const left = this.#sentAt + slowMs - liveness.monotonic();
    if (left <= 0) return true;
    if (this.#slow === null)
      this.#slow = liveness.after(left, () => {
        this.#slow = null;
        this.#schedule();
      });
    return false;
  }

  async #sendBatch(): Promise<void> {
    const { maxItems, maxInFlight, minBeside } = this.#options;
    // One batch is split among the free connections, so that none stays idle while items wait.
    const share = Math.max(minBeside, Math.ceil(this.#queue.length / (maxInFlight - this.#inFlight)));
    const count = Math.min(maxItems, share);
    const batch = this.#queue.length <= count ? this.#queue : this.#queue.slice(0, count);
    this.#queue = this.#queue.length <= count ? [] : this.#queue.slice(count);
    if (batch.length === 0) return;
    this.#inFlight += 1;
    this.#sentAt = liveness.monotonic();
    this.#schedule();
    try {
      await this.#deliver(batch);
    } finally {
      this.#inFlight -= 1;
      this.#schedule();
    }
  }

  async #deliver(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        const results = await withAnswerLimit(
          this.#options.send(batch.map(({ item }) => item)),
          this.#options.timeoutMs,
        );
        batch.forEach(({ resolve }, index) => resolve(results[index] as Result));
        return;
      } catch (error) {
        if (this.#options.isPersistent && !this.#isClosed && isTransient(error)) {
          if (isConnectionLoss(error)) this.#onTrouble(error);
          await liveness.sleep(backoffMs(attempt));
        } else if (isLocked(error) && this.#mayWait) {
          const mayWait = this.#mayWait;
          const others = batch.filter(({ item }) => !mayWait(item));
          // Nothing tells which item waits.
          const isAnyOf = others.length === batch.length;
          for (const one of batch) if (isAnyOf || mayWait(one.item)) void this.#deliverAlone(one);
          return isAnyOf || others.length === 0 ? undefined : this.#deliver(others);
        } else if (batch.length > 1 && !isTransient(error)) {
          // One item that Postgres cannot hold must not fail the others: halves are sent until it is alone.
          const [first, second] = halves(batch);
          await this.#deliver(first);
          return this.#deliver(second);
        } else return this.#fail(batch, error);
      }
    }
  }

  /** Beside what is in flight, so that nothing waits behind it. */
  async #deliverAlone({ item, resolve, reject }: Waiting<Item, Result>): Promise<void> {
    this.#alone ??= openCommandQueue(aloneAtOnce);
    try {
      const [result] = await this.#alone.run("", () =>
        withAnswerLimit(this.#options.send([item]), this.#options.timeoutMs),
      );
      resolve(result as Result);
    } catch (error) {
      reject(error);
    }
  }

  #fail(batch: readonly Waiting<Item, Result>[], error: unknown): void {
    for (const { reject } of batch) reject(error);
  }
}

function halves<T>(list: readonly T[]): [readonly T[], readonly T[]] {
  const middle = list.length >> 1;
  return [list.slice(0, middle), list.slice(middle)];
}

/** Does again what changes nothing when it is repeated, while only connections and locks are in the way. */
export function retryTransient<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  return retryWhile((error) => isTransient(error), work, signal);
}

/** The same for somebody who waits: a command that has waited for a lock is not sent again. @throws {LockedError} */
export function retryUnlessLocked<T>(work: () => Promise<T>): Promise<T> {
  return retryWhile((error) => isTransient(error) && !isLocked(error), work);
}

function retryWhile<T>(mayHelp: (error: unknown) => boolean, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  return retry(() => withAnswerLimit(work()), {
    shouldRetry: (error) => mayHelp(error) && !isEnded(error),
    waitMs: backoffMs,
    signal,
  });
}

function backoffMs(attempt: number): number {
  return backoff({ attempt, base: 20, max: 500, jitter: 1 });
}

/** On a connection that went dead without a word no answer ever comes: nothing shall wait for it, and hold up others. */
export function withAnswerLimit<T>(answer: Promise<T>, timeoutMs: number | null = answerWithinMs): Promise<T> {
  return withTimeout(answer, timeoutMs, () => {
    const cause = Object.assign(new Error(`no answer for ${timeoutMs} ms`), { code: noAnswer });
    throw new ConnectionError(null, cause.message, "try again; with an idempotencyKey nothing happens twice", cause);
  });
}
