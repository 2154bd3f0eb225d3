/** One try of one dispatch: its handler with timeout, journal and commit points. */
import { ChunkTimeoutError, UsageError, type SerializedError } from "../base/errors.ts";
import type { Json } from "../base/json.ts";
import { getPath } from "../base/path.ts";
import { parseReturn } from "../flow/contract.ts";
import type { Chunk } from "../flow/graph.ts";
import type { Effect as LedgerEffect, Matches, PauseRequest } from "../ledger/command.ts";
import type { Dispatch } from "../ledger/parts.ts";
import { dropped } from "./child.ts";
import type { CtxAttempt } from "./ctx/attempt.ts";
import { ChunkCtx } from "./ctx/ctx.ts";
import { Effect, never } from "./ctx/effect.ts";
import { PauseMark } from "./ctx/people.ts";
import { ReadCtx } from "./ctx/read.ts";
import type { AttemptTrace } from "../telemetry/attempt-trace.ts";
import { insideChunk } from "./current.ts";
import type { AttemptHost } from "./host.ts";
import { isOver, Journal } from "./journal.ts";
import { backoffMs, serializeError } from "./retries.ts";
import { withWrites } from "./state-contract.ts";
import { askConditions, meetsMatch } from "./routing.ts";
import { TimeLimit } from "./time-limit.ts";
import { Turns, type Turn } from "./turns.ts";

export type Ended =
  | {
      readonly kind: "completed";
      readonly output: Json;
      readonly effects: LedgerEffect[];
      readonly matches: Matches | undefined;
    }
  | { readonly kind: "paused"; readonly effects: LedgerEffect[]; readonly interrupt: PauseRequest }
  | { readonly kind: "dropped" }
  | {
      readonly kind: "failed";
      readonly serialized: SerializedError;
      readonly retryInMs: number | null;
      readonly turns: number[];
    };

/** What an attempt has begun and somebody may have forgotten. */
interface Begun {
  readonly effect: Effect<unknown>;
  /** What has to be awaited; null for a write that was refused. */
  readonly what: string | null;
}

export class Attempt implements CtxAttempt {
  readonly host: AttemptHost;
  readonly dispatch: Dispatch;
  readonly chunk: Chunk;
  readonly input: Json;
  readonly journal: Journal;
  readonly turns: Turns;
  /** Null where nothing is traced. */
  readonly trace: AttemptTrace | null;
  readonly #abort: AbortController;
  #begun: Begun[] | null = null;
  /** What `pauseFor` gave to the handler. */
  #marks: object[] | null = null;
  #limit: TimeLimit | null = null;
  #waits = false;
  /** Writes that wait until it is known whether earlier attempts went this way. */
  #held = 0;
  /** The commit under way: what is buffered meanwhile goes with the next. */
  #committing: Promise<void> | null = null;
  /** The last item that was put: durable when all before it are, or refused. */
  #streaming: Promise<void> | null = null;
  /** Why items that were on their way are not in the stream. */
  #refused: { readonly error: unknown } | null = null;
  #phase: "running" | "ending" | "ended" | "cutOff" = "running";

  /**
   * @param abort the attempt's own: cancel, timeout and a lost lease end it
   * @param input what the dispatch has, with what is this attempt's alone
   */
  constructor(host: AttemptHost, dispatch: Dispatch, chunk: Chunk, abort: AbortController, input: Json) {
    this.host = host;
    this.dispatch = dispatch;
    this.chunk = chunk;
    this.input = input;
    this.#abort = abort;
    this.trace = host.trace?.attempt(dispatch, chunk.name, this.number) ?? null;
    this.journal = new Journal(dispatch.journal, {
      executionId: host.info.id,
      chunk: chunk.name,
      isOver: (entry) => isOver(host, entry),
      hasFailed: dispatch.failures > 0,
      // A test's clock stands still, so it tells no duration.
      tookMs: host.timers.isMoved ? 0 : Math.max(dispatch.failedAt, dispatch.journaledAt) - dispatch.plannedAt,
      signal: abort.signal,
    });
    this.turns = new Turns(dispatch.turns ?? [], dispatch.journal.length > 0);
  }

  /** Runs it to its end; never throws. */
  run(): Promise<Ended> {
    const { trace } = this;
    return trace ? this.#traced(trace) : this.#run();
  }

  async #traced(trace: AttemptTrace): Promise<Ended> {
    const ended = await this.#run();
    if (ended.kind !== "failed") trace.end(ended.kind);
    else trace.end(ended.retryInMs === null ? "failed" : "retried", ended.serialized.name);
    return ended;
  }

  async #run(): Promise<Ended> {
    const { host, dispatch, chunk } = this;
    const { options } = chunk;
    try {
      const parsed = options.input
        ? parseReturn(options.input, this.input, `input of chunk "${chunk.name}"`)
        : undefined;
      const ctx = new ChunkCtx(this, parsed);
      if (dispatch.chunk !== null)
        host.began?.({ chunk: chunk.name, attempt: this.number, step: null, idempotencyKey: this.idempotencyKey });
      const returned = await this.#limited(
        this.trace ? this.trace.run(() => insideChunk(ctx, chunk.handler)) : insideChunk(ctx, chunk.handler),
      );
      // The loser of a race may still wait; the attempt ends here and must not park for it.
      this.host.busy(dispatch.id);
      this.#requireAsked(returned);
      if (returned instanceof PauseMark)
        return { kind: "paused", effects: await this.#end(), interrupt: returned.request };
      if (returned === dropped) return { kind: "dropped" };
      const output = parseReturn(options.output, returned, `return of chunk "${chunk.name}"`);
      const next = host.graph.nodes.get(dispatch.node)?.next ?? [];
      const matches = meetsMatch(host.graph, next)
        ? await askConditions(host.graph, next, output, (value) => new ReadCtx(host, value))
        : undefined;
      return { kind: "completed", output, effects: await this.#end(), matches };
    } catch (error) {
      this.#phase = "ended";
      this.host.busy(dispatch.id);
      // The attempt's items come before the retry marker. Whether they could be put does not change the failure.
      await this.streamed().catch(() => {});
      return this.#failed(error);
    } finally {
      this.#limit?.cancel();
    }
  }

  #failed(error: unknown): Ended {
    let failure = error;
    let retryInMs: number | null = null;
    try {
      const where = `chunk "${this.chunk.name}"`;
      retryInMs = backoffMs(this.chunk.options.retry, { error, attempt: this.number, where, now: this.host.now() });
    } catch (unasked) {
      failure = unasked;
    }
    const serialized = serializeError(failure, this.chunk.name, this.number);
    return { kind: "failed", serialized, retryInMs, turns: this.turns.take() };
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get number(): number {
    return this.dispatch.failures + 1;
  }

  get idempotencyKey(): string {
    return `${this.host.info.id}/${encodeURIComponent(this.chunk.name)}/${this.dispatch.id}`;
  }

  requireLive(): void {
    if (this.signal.aborted) throw this.signal.reason;
    if (this.#phase === "running") return;
    throw new UsageError(
      `ctx of chunk "${this.chunk.name}" was used after the chunk had returned`,
      "await every call of ctx before you return",
    );
  }

  /** Its owner has given up the execution, or lost it. */
  cutOff(): void {
    this.#phase = "cutOff";
    this.#limit?.cancel();
    this.trace?.end(this.#waits ? "waiting" : "interrupted");
  }

  write<T>(work: () => T): Promise<T> {
    try {
      this.requireLive();
      const done = work();
      const settled = this.agreed();
      if (!settled) return Promise.resolve(done);
      this.#held += 1;
      return this.#begin(null, () => settled.finally(() => (this.#held -= 1)).then(() => done));
    } catch (error) {
      // Whether the promise was observed is checked when the chunk returns.
      return this.#begin(null, () => Promise.reject(error));
    }
  }

  agreed(): Promise<void> | undefined {
    return this.journal.takeDoubt() ? this.#settled() : undefined;
  }

  async #settled(): Promise<void> {
    await this.journal.settled(() => this.turns.open + this.#held <= 1);
    this.requireLive();
  }

  durable<T>(what: string, work: (turn: Turn) => Promise<T>): Effect<T> {
    return this.#begin(what, async () => {
      this.requireLive();
      // Busy from the call's beginning until its result is in the ledger, except during its own durable waits.
      const done = this.host.busy(this.dispatch.id);
      const turn = this.turns.begin();
      try {
        return await work(turn);
      } finally {
        // A result that no code receives is no turn: the next attempt would wait for it.
        if (!this.#isOver) await this.turns.come(turn);
        if (this.#isOver) await never();
        done();
      }
    });
  }

  get #isOver(): boolean {
    return this.#phase === "ended" || this.#phase === "cutOff";
  }

  async busy<T>(work: () => Promise<T>): Promise<T> {
    const done = this.host.busy(this.dispatch.id);
    try {
      return await work();
    } finally {
      done();
    }
  }

  #begin<T>(what: string | null, work: () => Promise<T>): Effect<T> {
    const effect = Effect.run(work);
    (this.#begun ??= []).push({ effect, what });
    return effect;
  }

  async flush(): Promise<void> {
    this.requireLive();
    if (this.#streaming) await this.streamed();
    while (this.#committing) await this.#committing;
    if (this.journal.hasBuffered && this.journal.isDoubted) {
      await this.#settled();
      return this.flush();
    }
    this.requireLive();
    if (!this.journal.hasBuffered) return;
    const committing = this.#commit().finally(() => (this.#committing = null));
    this.#committing = committing;
    await committing;
    this.requireLive();
  }

  async #commit(): Promise<void> {
    const effects = await this.#asked(this.journal.take());
    const [first] = effects;
    const turns = this.turns.take();
    if (first && turns.length > 0) first.turns = turns;
    try {
      await this.busy(() => this.host.commit(this.dispatch.id, effects));
    } catch (error) {
      this.journal.drop();
      throw error;
    }
  }

  /** What is still buffered, to go with the chunk's end. */
  async #end(): Promise<LedgerEffect[]> {
    this.requireLive();
    if (this.#begun) await this.#requireNothingForgotten();
    this.journal.refuse();
    this.#phase = "ending";
    if (this.#streaming) await this.streamed();
    while (this.#committing) await this.#committing;
    const effects = this.journal.hasBuffered ? await this.#asked(this.journal.take()) : [];
    this.#phase = "ended";
    return effects;
  }

  asks(mark: object): void {
    (this.#marks ??= []).push(mark);
  }

  /** @throws {UsageError} the handler has not returned what `pauseFor` gave it */
  #requireAsked(returned: unknown): void {
    if (this.#marks?.every((mark) => mark === returned) ?? true) return;
    throw new UsageError(
      `pauseFor() of chunk "${this.chunk.name}" was not returned, and asks nobody`,
      "return what it returns, one of them: return ctx.pauseFor({ … })",
    );
  }

  /** @throws {UsageError} something durable was begun and never looked at; or what a write was refused with */
  async #requireNothingForgotten(): Promise<void> {
    const unseen = (this.#begun ?? []).filter(({ effect }) => !effect.isObserved);
    const forgotten = unseen.find(({ what }) => what !== null);
    if (forgotten)
      throw new UsageError(
        `${forgotten.what} of chunk "${this.chunk.name}" was not awaited: the chunk returned before it had happened`,
        "await it, or await Promise.all of what runs side by side",
      );
    for (const { effect } of unseen) await effect;
  }

  streams(durable: Promise<void>): void {
    // Later items may be accepted again, so the first refusal is kept.
    if (durable !== this.#streaming) durable.catch((error: unknown) => (this.#refused ??= { error }));
    this.#streaming = durable;
  }

  get streaming(): Promise<void> | null {
    return this.#streaming?.catch(() => {}) ?? null;
  }

  /** Resolves when every item that was put is in the stream, or rejects. */
  async streamed(): Promise<void> {
    await this.streaming;
    this.requireNoneRefused();
  }

  /** Says it once: whoever catches that goes on without them. */
  requireNoneRefused(): void {
    if (!this.#refused) return;
    const { error } = this.#refused;
    this.#refused = null;
    throw error;
  }

  /** Asks the conditions that emits and state writes lead to. */
  async #asked(effects: LedgerEffect[]): Promise<LedgerEffect[]> {
    const { graph, state } = this.host;
    for (const [index, effect] of effects.entries()) {
      if (
        effect.effect !== "emit" &&
        effect.effect !== "set" &&
        effect.effect !== "append" &&
        effect.effect !== "delete"
      )
        continue;
      const ids =
        (effect.effect === "emit" ? graph.whenEvent.get(effect.event) : graph.whenState.get(effect.key)) ?? [];
      if (ids.length === 0 || !meetsMatch(graph, ids)) continue;
      const value =
        effect.effect === "emit"
          ? effect.payload
          : (getPath(withWrites(state.values, effects.slice(0, index + 1)), effect.key) ?? null);
      effect.matches = await askConditions(graph, ids, value, (asked) => new ReadCtx(this.host, asked));
    }
    return effects;
  }

  /** The attempt waits for nothing but durable waits, or no longer: its timeout counts running code only. */
  set isWaiting(isWaiting: boolean) {
    this.#waits = isWaiting;
    if (isWaiting) this.#limit?.pause();
    else this.#limit?.resume();
  }

  #limited(returned: unknown): unknown {
    const { timeoutMs } = this.chunk.options;
    if (timeoutMs === null) return returned;
    const { promise, reject } = Promise.withResolvers<never>();
    const what = `timeout of chunk "${this.chunk.name}"`;
    this.#limit = new TimeLimit(timeoutMs, this.host.timers, what, () => {
      const error = new ChunkTimeoutError(this.host.info.id, this.chunk.name, timeoutMs);
      this.#abort.abort(error);
      reject(error);
    });
    return Promise.race([returned, promise]);
  }
}
