/** One distributed forEach or batch under way: its items are executions of their own, and their results come together here. */
import { systemTimers as liveness, type Timer } from "../base/timers.ts";
import type { CloseHeader } from "../store/append.ts";
import { ExecutionCancelledError, type SerializedError } from "../base/errors.ts";
import type { BatchNode, ForEachNode } from "../flow/graph.ts";
import type { Command, ItemResult } from "../ledger/command.ts";
import { itemsOf, type ExecutionState } from "../ledger/state.ts";
import type { Dispatch, Frame } from "../ledger/parts.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { itemId } from "../ledger/items.ts";
import type { Settings } from "../ledger/event.ts";
import type { Json, JsonObject } from "../base/json.ts";
import { finalResultKey } from "../ledger/views.ts";
import type { NewId } from "./ids.ts";
import type { Items } from "./items.ts";
import { serializeError } from "./retries.ts";

/** What a fan-out needs of the owner that runs it. */
export interface FanOutHost {
  readonly id: ExecutionId;
  readonly state: ExecutionState;
  readonly items: Items;
  readonly newId: NewId;
  /** Resolves when what the commands lead to is in the ledger. */
  submit(dispatch: number, commands: Command[]): Promise<void>;
  /** Items of this node that are under way in all of its passes. */
  itemsUnderWay(node: string): number;
  /** Some of them have ended: another pass may begin others. */
  itemsEnded(node: string): void;
  /** Nothing has ended for a while: the execution may be given back. */
  idle(): void;
}

/** Items created in one round trip. */
const createAtOnce = 1000;
/** Endings read in one round trip; they carry results of any size. */
const readAtOnce = 100;
/** Results that are recorded together: so many, so many bytes, or what has come in for so long. */
const recordAtOnce = 1000;
const recordBytes = 1_000_000;
const recordEveryMs = 250;
/**
 * When nothing has ended for so long, somebody looks whether it went unheard, and after twice the time the execution is
 * given back. One more millisecond per item: both cost more the more items there are.
 */
const idleCheckMs = 1000;

export class FanOut {
  readonly dispatch: Dispatch;
  readonly node: ForEachNode | BatchNode;
  /** Nothing runs here, and nothing has ended for a while. */
  isIdle = false;
  readonly #host: FanOutHost;
  readonly #values: readonly Json[];
  /** Created, and not known to have ended. */
  readonly #open = new Set<number>();
  readonly #ended = new Set<number>();
  readonly #heard = new Set<number>();
  readonly #end = Promise.withResolvers<{ readonly error: SerializedError | null } | null>();
  #next = 0;
  /** What has ended and is not recorded, with its size in bytes. */
  #results: { readonly result: ItemResult; readonly bytes: number }[] = [];
  #bytes = 0;
  #isBegun = false;
  #isStopped = false;
  #isReading = false;
  #isRecording = false;
  #creating: Promise<void> | null = null;
  #recordTimer: Timer | undefined;
  #pollTimer: Timer | undefined;
  #stopListening: () => void = () => {};
  #quietSince = liveness.monotonic();

  constructor(host: FanOutHost, dispatch: Dispatch, node: ForEachNode | BatchNode) {
    this.#host = host;
    this.dispatch = dispatch;
    this.node = node;
    this.#values = node.kind === "batch" ? node.branches.map(() => dispatch.input) : itemsOf(dispatch.input);
  }

  /** Resolves with what the dispatch ends with, or with null when it was stopped. */
  async run(): Promise<Command[] | null> {
    const { id } = this.dispatch;
    const isNew = !this.#host.state.frames.has(id);
    if (isNew) await this.#host.submit(id, [{ type: "fanOut", dispatch: id, base: itemId(this.#host.newId(), 0) }]);
    if (this.#isStopped) return null;
    const { base, wrote, readsState } = this.#items;
    this.#stopListening = this.#host.items.listen(base, (index, ending) => this.#hear(index, ending));
    try {
      this.#frame.done.forEach((isDone, index) => isDone && this.#ended.add(index));
      if (!isNew) await this.#look();
      this.#isBegun = true;
      this.#pollTimer = liveness.every(this.#idleCheckMs, () => this.#poll());
      this.pump();
      const end = await this.#end.promise;
      this.#pollTimer?.cancel();
      if (!end) return null;
      if (end.error) return [{ type: "fail", dispatch: id, error: end.error, retryInMs: null }];
      const writers = readsState ? this.#values.map((_, index) => index) : wrote.toSorted((a, b) => a - b);
      return [...(await this.#writesOf(writers)), { type: "gather", dispatch: id }];
    } finally {
      await this.stop();
    }
  }

  /** Begins no more items. Resolves when none is being created. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#stopListening();
    this.#pollTimer?.cancel();
    this.#recordTimer?.cancel();
    this.#end.resolve(null);
    await this.#creating;
  }

  /** Nothing is created, read or recorded, or is about to be. */
  get isQuiet(): boolean {
    const isBusy = this.#creating !== null || this.#isReading || this.#isRecording;
    return this.#isBegun && !isBusy && this.#heard.size === 0 && this.#results.length === 0;
  }

  /** Nothing more begins: it was stopped, or the execution has ended, and what was under way is heard of late. */
  get #isOver(): boolean {
    return this.#isStopped || !this.#host.state.frames.has(this.dispatch.id);
  }

  get underWay(): number {
    return this.#open.size;
  }

  /** Has an item ended that nobody heard of? To be asked when the execution has been given back. */
  async hasUnheard(): Promise<boolean> {
    const { done } = this.#frame;
    const first = done.indexOf(false);
    if (first < 0) return true;
    const found = await this.#host.items.survey(this.#items.base, first, done.length);
    return found.some(({ index, isClosed }) => isClosed && !done[index]);
  }

  /** Begins what may begin, reads what has ended elsewhere, records what has ended. */
  pump(): void {
    if (this.#isOver || !this.#isBegun) return;
    this.#creating ??= this.#create();
    if (!this.#isReading && this.#heard.size > 0)
      this.#read().catch((error: unknown) => this.#fail(serializeError(error)));
    const isLast = this.#ended.size === this.#values.length;
    if (isLast || this.#results.length >= recordAtOnce || this.#bytes >= recordBytes) this.#record();
    else if (this.#results.length > 0) this.#recordTimer ??= liveness.after(recordEveryMs, () => this.#record());
    if (isLast && this.#results.length === 0 && !this.#isRecording) this.#end.resolve({ error: null });
  }

  #create(): Promise<void> | null {
    if (this.#host.state.paused) return null;
    const { concurrency } = this.node;
    const room = concurrency === null ? Infinity : concurrency - this.#host.itemsUnderWay(this.node.id);
    const indices: number[] = [];
    for (; this.#next < this.#values.length && indices.length < Math.min(room, createAtOnce); this.#next++)
      if (!this.#ended.has(this.#next) && !this.#open.has(this.#next)) indices.push(this.#next);
    if (indices.length === 0) return null;
    for (const index of indices) this.#open.add(index);
    return this.#host.items
      .create(indices.map((index) => this.#item(index)))
      .then(() => {
        this.#creating = null;
        this.pump();
      })
      .catch((error: unknown) => this.#fail(serializeError(error)));
  }

  #item(index: number) {
    const { id, state } = this.#host;
    const { base, readsState } = this.#items;
    const settings: Partial<Settings> = { autoCloseMs: 0 };
    if (state.settings.hidden) settings.hidden = true;
    return {
      id: itemId(base, index),
      flow: state.flow,
      input: this.#values[index] ?? null,
      settings,
      metadata: Object.keys(state.metadata).length === 0 ? null : state.metadata,
      idempotencyKey: null,
      limitKey: null,
      priority: 0,
      delayMs: null,
      startAt: null,
      resourceKeys: state.resourceKeys,
      parent: { id, dispatch: this.dispatch.id },
      item: {
        node: this.node.id,
        index,
        ...(readsState && { readsState: true as const }),
        fingerprint: state.fingerprint,
      },
      state: {},
    };
  }

  #hear(index: number, ending: CloseHeader | null): void {
    if (this.#ended.has(index) || index >= this.#values.length) return;
    this.isIdle = false;
    this.#quietSince = liveness.monotonic();
    if (ending) this.#take(index, ending);
    else this.#heard.add(index);
    this.pump();
  }

  async #read(): Promise<void> {
    this.#isReading = true;
    const indices = [...this.#heard].slice(0, readAtOnce);
    for (const index of indices) this.#heard.delete(index);
    const unknown = indices.filter((index) => !this.#ended.has(index));
    const { base } = this.#items;
    const endings = await this.#host.items.endings(base, unknown).catch(() => new Map<ExecutionId, CloseHeader>());
    for (const index of unknown) {
      const ending = endings.get(itemId(base, index));
      if (ending) this.#take(index, ending);
    }
    this.#isReading = false;
    this.pump();
  }

  #take(index: number, ending: CloseHeader): void {
    if (this.#isOver || this.#ended.has(index)) return;
    this.#ended.add(index);
    this.#open.delete(index);
    this.#heard.delete(index);
    if (ending.outcome !== "completed") return this.#fail(errorOf(itemId(this.#items.base, index), ending));
    const value = ending.snapshot[finalResultKey] ?? null;
    const wrote = Object.keys(ending.snapshot).some((key) => key !== finalResultKey);
    const bytes = JSON.stringify(value).length;
    this.#results.push({ result: { index, value, wrote }, bytes });
    this.#bytes += bytes;
    if (this.node.concurrency !== null) this.#host.itemsEnded(this.node.id);
  }

  /** Nothing more begins: the place that came free is nobody's. */
  #fail(error: SerializedError): void {
    this.#isStopped = true;
    this.#end.resolve({ error });
  }

  #record(): void {
    this.#recordTimer?.cancel();
    this.#recordTimer = undefined;
    if (this.#isRecording || this.#isOver || this.#results.length === 0) return;
    this.#isRecording = true;
    const results: ItemResult[] = [];
    for (let bytes = 0; results.length < recordAtOnce && bytes < recordBytes;) {
      const next = this.#results[results.length];
      if (!next) break;
      bytes += next.bytes;
      this.#bytes -= next.bytes;
      results.push(next.result);
    }
    this.#results = this.#results.slice(results.length);
    this.#host.submit(this.dispatch.id, [{ type: "collect", dispatch: this.dispatch.id, results }]).then(
      () => {
        this.#isRecording = false;
        this.pump();
      },
      (error: unknown) => this.#fail(serializeError(error)),
    );
  }

  /** Which items there are, and which have ended. */
  async #look(): Promise<void> {
    let first = 0;
    while (this.#ended.has(first)) first++;
    if (first === this.#values.length) return;
    const found = await this.#host.items.survey(this.#items.base, first, this.#values.length);
    for (const { index, isClosed } of found) {
      if (this.#ended.has(index)) continue;
      this.#open.add(index);
      if (isClosed) this.#hear(index, null);
    }
  }

  #poll(): void {
    const quietMs = liveness.monotonic() - this.#quietSince;
    if (quietMs < this.#idleCheckMs || this.#creating || this.#isReading || this.#isRecording) return;
    if (quietMs >= 2 * this.#idleCheckMs && this.#heard.size === 0 && this.#results.length === 0) {
      this.isIdle = true;
      this.#host.idle();
    } else void this.look();
  }

  /** Hears of items that have ended and that nobody told of. */
  async look(): Promise<void> {
    if (!this.#isBegun || this.#isOver) return;
    await this.#look().then(
      () => this.pump(),
      () => {},
    );
  }

  async #writesOf(indices: readonly number[]): Promise<Command[]> {
    const commands: Command[] = [];
    const { base, earlier = [] } = this.#items;
    for (let start = 0; start < indices.length; start += createAtOnce) {
      const page = indices.slice(start, start + createAtOnce);
      for (const { effect, key, value } of await this.#host.items.writes([base, ...earlier], page)) {
        const ordinal = commands.length;
        // The key's listeners have run in the item already.
        const write = effect === "delete" ? { effect } : { effect, value };
        commands.push({
          type: "effect",
          dispatch: this.dispatch.id,
          effect: { ordinal, key, silent: true, ...write },
        });
      }
    }
    return commands;
  }

  get #idleCheckMs(): number {
    return idleCheckMs + this.#values.length;
  }

  get #frame(): Frame {
    const frame = this.#host.state.frames.get(this.dispatch.id);
    if (!frame) throw new Error(`collection ${this.dispatch.id} is not open`);
    return frame;
  }

  get #items(): NonNullable<Frame["items"]> {
    const { items } = this.#frame;
    if (!items) throw new Error(`collection ${this.dispatch.id} is not distributed`);
    return items;
  }
}

/** As with a local collection the error is the chunk's own. */
function errorOf(id: ExecutionId, { error, reason }: CloseHeader & { snapshot: JsonObject }): SerializedError {
  return error ?? serializeError(new ExecutionCancelledError(id, reason));
}
