/** The stream: items of all executions of a worker leave in batches, in order, with back-pressure by bytes. */
import { backoff } from "../base/async.ts";
import { systemTimers as liveness, type Timers } from "../base/timers.ts";
import { withAnswerLimit } from "../store/batcher.ts";
import { isEnded, isTransient } from "../store/refusals.ts";
import type { LoadItem, RetryMark, StreamStore, StreamVerdict } from "../store/streams.ts";
import type { Wakeups } from "../store/wakeups.ts";
import { LeaseLostError, PayloadError, StreamLimitError, UsageError } from "../base/errors.ts";
import type { Json } from "../base/json.ts";
import type { ResolvedRate } from "../flow/limits.ts";
import type { ExecutionId } from "../ledger/event.ts";

/** Bytes of JSON in one item. */
const maxItemBytes = 262_144;
/** Bytes on their way before `putIntoStream` makes its chunk wait. */
const maxBacklogBytes = 262_144;
/** Items of one execution in one statement, and bytes of all of them. */
const maxLoadItems = 2000;
const maxBatchBytes = 1_048_576;

/** One owner, as its stream sees it. */
export interface StreamTarget {
  readonly id: ExecutionId;
  readonly epoch: number;
  readonly token: string;
  /** Executions whose streams get the items too. */
  readonly visibleIn?: readonly ExecutionId[] | undefined;
  /** Items that were in the stream when it was claimed, and how many there may be. */
  readonly items: number;
  readonly maxItems: number | null;
  readonly rate: ResolvedRate | null;
  /** When the last items before the claim were put, by `Timers.monotonic()`: for the rate. */
  readonly recent: readonly number[];
}

export interface Put {
  /** Resolves when the item is in the stream, or rejects. Those that travel together share it. */
  readonly durable: Promise<void>;
  /** What the chunk has to wait for before it goes on; nothing while less than 256 KB are on their way. */
  readonly admitted: Promise<void> | undefined;
}

/** Items that travel together: all of one owner, in order. */
interface Load extends Pick<StreamTarget, "id" | "epoch" | "token" | "visibleIn" | "maxItems"> {
  /** Its place among the owner's loads. */
  readonly no: number;
  readonly items: LoadItem[];
  readonly marks: RetryMark[];
  bytes: number;
  /** It was sent at least once, so nothing joins it. */
  isSent: boolean;
  readonly durable: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** What waits of one owner, in order. */
interface ItemQueue {
  readonly target: StreamTarget;
  readonly loads: Load[];
  lastNo: number;
  /** Items in the stream and on their way, as far as this owner knows: others may put some as well. */
  items: number;
  /** When the last `rate.limit` items were put, as a ring: the oldest stands at `next`. */
  readonly times: number[];
  next: number;
}

export class Streamer {
  readonly #streams: Pick<StreamStore, "put">;
  readonly #wakeups: Pick<Wakeups, "notifyReaders">;
  /** For the rate. */
  readonly #timers: Pick<Timers, "monotonic">;
  readonly #onStored: (items: number) => void;
  readonly #queues = new WeakMap<StreamTarget, ItemQueue>();
  /** The queues that have something to send, those that waited longest first. */
  readonly #waiting = new Set<ItemQueue>();
  #backlogBytes = 0;
  #room: PromiseWithResolvers<void> | null = null;
  #isSending = false;

  /** @param onStored told how many items are in their streams now */
  constructor(
    streams: Pick<StreamStore, "put">,
    wakeups: Pick<Wakeups, "notifyReaders">,
    timers: Pick<Timers, "monotonic">,
    onStored: (items: number) => void = () => {},
  ) {
    this.#streams = streams;
    this.#timers = timers;
    this.#wakeups = wakeups;
    this.#onStored = onStored;
  }

  /**
   * Puts an item behind all others of its owner.
   *
   * @param target the same object for all items of an owner
   * @param mark for the first item of a dispatch that an earlier owner may have begun
   * @throws {PayloadError} for an item of more than 256 KB
   * @throws {StreamLimitError} for one item too many; later, where others have put items that this owner does not know of
   * @throws {LeaseLostError} later, when another worker owns the execution
   * @throws {UsageError} later, when somebody else stopped the stream meanwhile
   */
  put(target: StreamTarget, item: Json, dispatch: number, mark: RetryMark | null = null): Put {
    const text = JSON.stringify(item);
    const bytes = Buffer.byteLength(text);
    if (bytes > maxItemBytes)
      throw new PayloadError(
        "stream item",
        [],
        `larger than ${maxItemBytes} bytes`,
        "store the data elsewhere and send a reference to it",
      );
    const queue = this.#queueOf(target);
    this.#requireRoom(queue);
    const load = this.#openLoad(queue);
    load.items.push({ dispatch, text });
    if (mark) load.marks.push(mark);
    load.bytes += bytes;
    queue.items += 1;
    this.#backlogBytes += bytes;
    if (!this.#isSending) {
      this.#isSending = true;
      // Sends at the end of the event loop's turn, so that the items of one turn travel together.
      setImmediate(() => void this.#sendAll());
    }
    const isFull = this.#backlogBytes >= maxBacklogBytes;
    const admitted = isFull ? (this.#room ??= Promise.withResolvers<void>()).promise : undefined;
    return { durable: load.durable, admitted };
  }

  #queueOf(target: StreamTarget): ItemQueue {
    const known = this.#queues.get(target);
    if (known) return known;
    const { items, recent, rate } = target;
    const queue = {
      target,
      loads: [],
      lastNo: 0,
      items,
      times: [...recent],
      next: rate ? recent.length % rate.limit : 0,
    };
    this.#queues.set(target, queue);
    return queue;
  }

  /** @throws {StreamLimitError} */
  #requireRoom(queue: ItemQueue): void {
    const { id, maxItems, rate } = queue.target;
    if (maxItems !== null && queue.items >= maxItems)
      throw new StreamLimitError(id, "maxStreamItems", maxItems, queue.items + 1);
    if (!rate) return;
    const now = this.#timers.monotonic();
    const first = queue.times[queue.next];
    if (first !== undefined && now - first < rate.perMs)
      throw new StreamLimitError(id, "maxStreamRate", rate.limit, rate.limit + 1, rate.perMs);
    queue.times[queue.next] = now;
    queue.next = (queue.next + 1) % rate.limit;
  }

  #openLoad(queue: ItemQueue): Load {
    this.#waiting.add(queue);
    const last = queue.loads.at(-1);
    if (last && !last.isSent && last.items.length < maxLoadItems && last.bytes < maxBacklogBytes) return last;
    const { promise: durable, resolve, reject } = Promise.withResolvers<void>();
    // The chunk hears of a failure at its next commit point.
    durable.catch(() => {});
    const { id, epoch, token, visibleIn, maxItems } = queue.target;
    const no = ++queue.lastNo;
    const sent = { isSent: false, durable, resolve, reject };
    const load = { id, epoch, token, visibleIn, maxItems, no, items: [], marks: [], bytes: 0, ...sent };
    queue.loads.push(load);
    return load;
  }

  async #sendAll(): Promise<void> {
    for (let trouble = 0; this.#waiting.size > 0;) {
      const queues = this.#nextBatch();
      const left = await this.#deliver(queues);
      trouble = left === queues.length ? trouble + 1 : 0;
      if (trouble > 0)
        await liveness.sleep(backoff({ attempt: trouble, base: 2, max: 1000, jitter: 1 }), { ref: false });
    }
    this.#isSending = false;
  }

  /** The first load of each queue: one under way per execution keeps its order, also where a load has to be sent again. */
  #nextBatch(): Outgoing[] {
    const batch: Outgoing[] = [];
    let bytes = 0;
    for (const queue of this.#waiting) {
      const [load] = queue.loads;
      if (!load || (bytes > 0 && bytes + load.bytes > maxBatchBytes)) break;
      bytes += load.bytes;
      load.isSent = true;
      batch.push({ queue, load });
    }
    // These queues go to the end of the line for the next batch.
    for (const { queue } of batch) {
      this.#waiting.delete(queue);
      this.#waiting.add(queue);
    }
    return batch;
  }

  /** Sends loads and settles those that got an answer; says how many have to be sent again. */
  async #deliver(batch: readonly Outgoing[]): Promise<number> {
    const [first] = batch;
    if (!first) return 0;
    try {
      const loads = batch.map(({ load }) => load);
      const verdicts = await withAnswerLimit(this.#streams.put(loads));
      return batch.filter((outgoing, index) => !this.#settle(outgoing, verdicts[index] ?? "busy")).length;
    } catch (error) {
      // A lost answer is safe to send again: the number of a load tells Postgres that it has it. A pool that was ended
      // sends nothing more.
      if (isTransient(error) && !isEnded(error)) return batch.length;
      if (batch.length === 1) {
        this.#fail(first.queue, error);
        return 0;
      }
      // One load that Postgres cannot hold must not fail the others: each is sent alone.
      let left = 0;
      for (const outgoing of batch) left += await this.#deliver([outgoing]);
      return left;
    }
  }

  #settle({ queue, load }: Outgoing, verdict: StreamVerdict): boolean {
    if (verdict === "busy") return false;
    if (verdict === "ok") {
      this.#leave(queue, load);
      load.resolve();
      this.#onStored(load.items.length);
      for (const id of [load.id, ...(load.visibleIn ?? [])]) this.#wakeups.notifyReaders(id);
    } else this.#fail(queue, refusalOf(verdict, load));
    return true;
  }

  /** An item that cannot be put takes those behind it along: the stream has no holes. */
  #fail(queue: ItemQueue, error: unknown): void {
    // The lost load's number is used again if the lease goes on.
    queue.lastNo = (queue.loads[0]?.no ?? 1) - 1;
    for (let lost = queue.loads[0]; lost; lost = queue.loads[0]) {
      this.#leave(queue, lost);
      queue.items -= lost.items.length;
      lost.reject(error);
    }
  }

  #leave(queue: ItemQueue, load: Load): void {
    queue.loads.splice(queue.loads.indexOf(load), 1);
    if (queue.loads.length === 0) this.#waiting.delete(queue);
    this.#backlogBytes -= load.bytes;
    if (!this.#room || this.#backlogBytes >= maxBacklogBytes) return;
    this.#room.resolve();
    this.#room = null;
  }
}

interface Outgoing {
  readonly queue: ItemQueue;
  readonly load: Load;
}

function refusalOf(verdict: "fenced" | "stopped" | "full", { id, epoch, maxItems }: Load): Error {
  if (verdict === "fenced") return new LeaseLostError(id, epoch);
  if (verdict === "full") return new StreamLimitError(id, "maxStreamItems", maxItems ?? 0, (maxItems ?? 0) + 1);
  return new UsageError(
    `an item was put into the stream of execution ${id}, which was stopped meanwhile`,
    "put all items before stopStream()",
  );
}
