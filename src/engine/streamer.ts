/** The stream's own lane: items of all executions of a worker leave in batches, in order, with back-pressure by bytes. */
import { setTimeout as delay } from "node:timers/promises";
import { codeOf, isConnectionLoss, isTransient } from "../database/connection.ts";
import type { Sql } from "../database/connection.ts";
import { putItems, repeatItems } from "../database/stream.ts";
import type { StreamVerdict } from "../database/stream.ts";
import type { Wakeups } from "../database/wakeups.ts";
import { LeaseLostError, PayloadError } from "../errors.ts";
import type { Json } from "../ledger/payload.ts";
import type { StreamTarget } from "./owner.ts";

/** Bytes of JSON in one item. */
const maxItemBytes = 262_144;
/** Bytes on their way before `putIntoStream` makes its chunk wait. */
const maxBacklogBytes = 262_144;
/** Items of one execution in one statement, and bytes of all of them. */
const maxLoadItems = 2000;
const maxFlightBytes = 1_048_576;
/** An answer that takes longer is on a dead connection. */
const answerWithinMs = 5000;
/** Owners whose item count is remembered, to tell after a lost answer whether their items are in. */
const maxCounted = 10_000;

/** Items that travel together: all of one owner, in order. */
interface Load extends StreamTarget {
  readonly items: string[];
  bytes: number;
  /** It was sent at least once, so nothing joins it. */
  isSent: boolean;
  /** It was sent, and the answer was lost. */
  isUncertain: boolean;
  readonly durable: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class Streamer {
  readonly #sql: Sql;
  readonly #wakeups: Pick<Wakeups, "send">;
  /** What waits, by owner and in order. */
  readonly #lanes = new Map<string, Load[]>();
  readonly #counts = new Map<string, number>();
  #backlogBytes = 0;
  #room: PromiseWithResolvers<void> | null = null;
  #isFlying = false;

  constructor(sql: Sql, wakeups: Pick<Wakeups, "send">) {
    this.#sql = sql;
    this.#wakeups = wakeups;
  }

  /**
   * Puts an item behind all others of its owner. The promise resolves when the item is durable; until when the chunk has
   * to wait is what `admission` says of it.
   *
   * @throws {PayloadError} for an item of more than 256 KB
   * @throws {LeaseLostError} later, when another worker owns the execution
   */
  put(target: StreamTarget, item: Json): Promise<void> {
    const text = JSON.stringify(item);
    const bytes = Buffer.byteLength(text);
    if (bytes > maxItemBytes)
      throw new PayloadError(
        "stream item",
        [],
        `larger than ${maxItemBytes} bytes`,
        "store the data elsewhere and send a reference to it",
      );
    const load = this.#openLoad(target);
    load.items.push(text);
    load.bytes += bytes;
    this.#backlogBytes += bytes;
    if (this.#backlogBytes < maxBacklogBytes) admissions.delete(load.durable);
    else admissions.set(load.durable, (this.#room ??= Promise.withResolvers<void>()).promise);
    if (!this.#isFlying) {
      this.#isFlying = true;
      // At the end of the loop's turn, so that everything put in it leaves together.
      setImmediate(() => void this.#fly());
    }
    return load.durable;
  }

  #openLoad({ id, epoch, token }: StreamTarget): Load {
    const key = `${id} ${token}`;
    const lane = this.#lanes.get(key) ?? [];
    this.#lanes.set(key, lane);
    const last = lane.at(-1);
    if (last && !last.isSent && last.items.length < maxLoadItems && last.bytes < maxBacklogBytes) return last;
    const { promise: durable, resolve, reject } = Promise.withResolvers<void>();
    // Whoever puts looks at its next commit point.
    durable.catch(() => {});
    const load = { id, epoch, token, items: [], bytes: 0, isSent: false, isUncertain: false, durable, resolve, reject };
    lane.push(load);
    return load;
  }

  async #fly(): Promise<void> {
    for (let trouble = 0; this.#lanes.size > 0;) {
      const loads = this.#nextFlight();
      const left = await this.#deliver(loads);
      trouble = left.length === loads.length ? trouble + 1 : 0;
      if (trouble > 0) await delay(Math.random() * Math.min(1000, 2 * 2 ** trouble), undefined, { ref: false });
    }
    this.#isFlying = false;
  }

  /** The first load of each owner: one under way per execution keeps its order, also where a load has to be sent again. */
  #nextFlight(): Load[] {
    const loads: Load[] = [];
    let bytes = 0;
    for (const [key, lane] of this.#lanes) {
      const [load] = lane;
      if (!load || (bytes > 0 && bytes + load.bytes > maxFlightBytes)) break;
      bytes += load.bytes;
      load.isSent = true;
      loads.push(load);
      // Behind the others, for the next flight.
      this.#lanes.delete(key);
      this.#lanes.set(key, lane);
      if (loads.length === this.#lanes.size) break;
    }
    return loads;
  }

  /** Sends loads and settles those that got an answer; gives back those that have to be sent again. */
  async #deliver(loads: readonly Load[]): Promise<readonly Load[]> {
    const [first] = loads;
    if (!first) return [];
    if (loads.length > 1 && loads.some(({ isUncertain }) => isUncertain)) return this.#deliverEach(loads);
    try {
      const answer = first.isUncertain
        ? repeatItems(this.#sql, first, this.#counts.get(keyOf(first)) ?? 0).then((verdict) => [verdict])
        : putItems(this.#sql, loads);
      const verdicts = await within(answerWithinMs, answer);
      return loads.filter((load, index) => !this.#settle(load, verdicts[index] ?? "busy"));
    } catch (error) {
      // The pool was ended under us: nothing can be sent any more.
      if (isTransient(error) && codeOf(error) !== "CONNECTION_ENDED") {
        if (isConnectionLoss(error)) for (const load of loads) load.isUncertain = true;
        return loads;
      }
      // What Postgres cannot hold must not take the others with it.
      if (loads.length > 1) return this.#deliverEach(loads);
      this.#fail(first, error);
      return [];
    }
  }

  async #deliverEach(loads: readonly Load[]): Promise<readonly Load[]> {
    const left: Load[] = [];
    for (const load of loads) left.push(...(await this.#deliver([load])));
    return left;
  }

  #settle(load: Load, verdict: StreamVerdict): boolean {
    if (verdict === "busy") {
      load.isUncertain = false;
      return false;
    }
    if (verdict === "fenced") {
      this.#fail(load, new LeaseLostError(load.id, load.epoch));
      return true;
    }
    const key = keyOf(load);
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + load.items.length);
    const [oldest] = this.#counts.size > maxCounted ? this.#counts.keys() : [];
    if (oldest !== undefined) this.#counts.delete(oldest);
    this.#leave(load);
    load.resolve();
    this.#wakeups.send(load.id);
    return true;
  }

  /** An item that cannot be put takes those behind it along: the stream has no holes. */
  #fail(load: Load, error: unknown): void {
    for (const lost of this.#lanes.get(keyOf(load)) ?? []) {
      this.#leave(lost);
      lost.reject(error);
    }
  }

  #leave(load: Load): void {
    const lane = (this.#lanes.get(keyOf(load)) ?? []).filter((other) => other !== load);
    if (lane.length > 0) this.#lanes.set(keyOf(load), lane);
    else this.#lanes.delete(keyOf(load));
    this.#backlogBytes -= load.bytes;
    if (!this.#room || this.#backlogBytes >= maxBacklogBytes) return;
    this.#room.resolve();
    this.#room = null;
  }
}

const admissions = new WeakMap<Promise<void>, Promise<void>>();

/** What a chunk has to wait for before it goes on after the last put; nothing while less than 256 KB are on their way. */
export function admission(put: Promise<void>): Promise<void> | undefined {
  return admissions.get(put);
}

function keyOf({ id, token }: StreamTarget): string {
  return `${id} ${token}`;
}

/** On a connection that went dead without a word, no answer ever comes. */
function within<T>(timeoutMs: number, answer: Promise<T>): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const timer = setTimeout(
    () => reject(Object.assign(new Error(`no answer from the database for ${timeoutMs} ms`), { code: "ETIMEDOUT" })),
    timeoutMs,
  );
  answer.then(resolve, reject).finally(() => clearTimeout(timer));
  return promise;
}
