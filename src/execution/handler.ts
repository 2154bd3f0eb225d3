/** One run, awaited and streamed: what `run()` gives before the execution exists. */
import { codeOf } from "../store/refusals.ts";
import { FlowledgerError, StreamConsumedError, UsageError, type SerializedError } from "../base/errors.ts";
import type { Contract, EmitPayload, EventName, StreamItem } from "../flow/contract.ts";
import { requireBoolean, requireKnown } from "../base/option.ts";
import { withTimeout } from "../base/async.ts";
import { parseDuration } from "../base/duration.ts";
import type { Duration } from "../base/duration.ts";
import { evolve } from "../ledger/evolve.ts";
import { initialState } from "../ledger/state.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { isObject, type Json } from "../base/json.ts";
import { finalResultKey } from "../ledger/views.ts";
import type { Execution } from "./execution.ts";
import type { ExecutionHost } from "./host.ts";
import { errorOf } from "./outcomes.ts";
import type { Ending } from "./outcomes.ts";
import { stoppable } from "./stream.ts";
import type { StreamEntry, SystemItem } from "./stream.ts";

/** How a run ended: the last of its events. */
export type StopEvent =
  | { readonly type: "stop"; readonly result: Json }
  | {
      readonly type: "failed";
      readonly error: { readonly name: string; readonly message: string; readonly code?: string };
      /** Null where it failed outside any chunk. */
      readonly chunk: string | null;
      readonly attempts: number;
    }
  | { readonly type: "timedOut"; readonly timeoutMs: number; readonly activeChunks: readonly string[] }
  | { readonly type: "cancelled"; readonly reason: string };

/** A pause that waits for an answer: `interrupt.id` is what `continueWith()` takes. */
export type Question = SystemItem & { readonly type: "interrupt"; readonly action: "pause" | "project" };

/** What `streamEvents()` gives. */
export type HandlerEvent<C extends Contract> = StreamItem<C> | Question | StopEvent;

/** Of `streamEvents()`. */
export interface StreamEventsOptions {
  /** Also answers, interventions and retries, in their place. @default false */
  exposeInternal?: boolean;
}

/** Of `cancelRun()`. */
export interface CancelRunOptions {
  /** How long to wait for the end; null waits for ever. @default "5s" */
  timeout?: Duration | null;
}

/** What became of the run: the stop event, and what `await` rejects with where it did not go well. */
interface Stopped {
  readonly event: StopEvent;
  readonly error: unknown;
}

type Events<C extends Contract> = AsyncGenerator<StreamEntry<C> | Stopped, void, undefined>;

/** One run: to be awaited, streamed, or cancelled. Rejects as `start()` does. */
export class Handler<C extends Contract = Contract> implements PromiseLike<Json> {
  readonly id: ExecutionId;
  /** The run as every other process sees it. */
  readonly execution: Execution<C>;
  readonly #host: ExecutionHost;
  /** Rejects with what was wrong with the start. */
  readonly #begun: Promise<void>;
  /** Never rejects, because nobody has to wait for a handler. */
  readonly #stopped: Promise<Stopped>;
  #known: Stopped | null = null;
  /** What all readers of this handler share: each event goes to one of them. */
  #events: Events<C> | null = null;
  #readers = 0;
  #cursor = "0";
  #isConsumed = false;

  constructor(host: ExecutionHost, execution: Execution<C>, begun: Promise<void>) {
    this.#host = host;
    this.id = execution.id;
    this.execution = execution;
    this.#begun = begun;
    this.#stopped = this.#untilStopped();
  }

  /**
   * What `getFinalResult()` gives: `$final_result`, else what `setResult` or `end()` wrote, else the close snapshot.
   *
   * @throws {ExecutionFailedError | ExecutionCancelledError}, and what was wrong with the start
   */
  // oxlint-disable-next-line unicorn/no-thenable -- a handler is awaited
  then<T = Json, E = never>(
    resolved?: ((result: Json) => T | PromiseLike<T>) | null,
    rejected?: ((error: unknown) => E | PromiseLike<E>) | null,
  ): Promise<T | E> {
    return this.stopEventResult()
      .then((event) => event.result)
      .then(resolved, rejected);
  }

  /** Whether it has ended, as far as this handler has heard. */
  isDone(): boolean {
    return this.#known !== null;
  }

  /** Null before the end. */
  getStopEvent(): StopEvent | null {
    return this.#known?.event ?? null;
  }

  /** Waits for the end like `await`, and resolves with the stop event in place of its result. */
  async stopEventResult(): Promise<Extract<StopEvent, { type: "stop" }>> {
    const { event, error } = await this.#stopped;
    if (event.type === "stop") return event;
    throw error;
  }

  /** Asks for the end and waits for it. Never throws; a run that has ended stays as it is. */
  async cancelRun(options: CancelRunOptions = {}): Promise<void> {
    try {
      requireKnown(options, ["timeout"], "cancelRun()");
      const { timeout = "5s" } = options;
      const timeoutMs = timeout === null ? null : parseDuration(timeout, "timeout of cancelRun()");
      await this.#begun;
      await this.execution.cancel();
      await withTimeout(this.#stopped, timeoutMs, () => {}, this.#host.timers);
    } catch (error) {
      if (this.#known === null)
        process.emitWarning(
          `cancelRun() of run ${this.id}: ${error instanceof Error ? error.message : String(error)}`,
          {
            type: "FlowledgerWarning",
            code: "CANCEL_RUN",
          },
        );
    }
  }

  /** Sends an event to the run; durable when it resolves. */
  async sendEvent<E extends EventName<C>>(event: E, payload: EmitPayload<C, E>): Promise<void> {
    await this.#begun;
    await this.execution.emit(event, payload);
  }

  /**
   * The run's stream items and the questions that wait as they come, then its stop event. A reader that breaks off is followed by the next one at the
   * next unread event.
   *
   * @throws {StreamConsumedError} at the first iteration, when the stop event has been read through this handler
   */
  streamEvents(options: { exposeInternal: true }): AsyncGenerator<HandlerEvent<C> | SystemItem, void, undefined>;
  streamEvents(options?: StreamEventsOptions): AsyncGenerator<HandlerEvent<C>, void, undefined>;
  streamEvents(options: StreamEventsOptions = {}): AsyncGenerator<HandlerEvent<C> | SystemItem, void, undefined> {
    requireKnown(options, ["exposeInternal"], "streamEvents()");
    const { exposeInternal = false } = options;
    requireBoolean(exposeInternal, "exposeInternal of streamEvents()");
    return stoppable((signal) => this.#readEvents(exposeInternal, signal));
  }

  async *#readEvents(
    exposeInternal: boolean,
    signal: AbortSignal,
  ): AsyncGenerator<HandlerEvent<C> | SystemItem, void, undefined> {
    if (this.#isConsumed) throw new StreamConsumedError(this.id);
    this.#readers += 1;
    const events = (this.#events ??= stoppable((stop) => this.#follow(stop)));
    const leave = () => void (this.#readers === 1 && events.return());
    signal.addEventListener("abort", leave);
    try {
      for (;;) {
        const next = await events.next();
        if (next.done) return;
        if ("event" in next.value) {
          this.#isConsumed = true;
          yield next.value.event;
          return;
        }
        this.#cursor = next.value.cursor;
        if (next.value.kind === null || exposeInternal || isQuestion(next.value.item)) yield next.value.item;
      }
    } finally {
      signal.removeEventListener("abort", leave);
      this.#readers -= 1;
      if (this.#readers === 0 && this.#events === events) {
        this.#events = null;
        await events.return();
      }
    }
  }

  async *#follow(signal: AbortSignal): Events<C> {
    await this.#begun;
    yield* this.execution.streamItems({ from: this.#cursor, timeout: null, signal });
    const { promise: aborted, resolve } = Promise.withResolvers<null>();
    signal.addEventListener("abort", () => resolve(null));
    const stopped = signal.aborted ? null : await Promise.race([this.#stopped, aborted]);
    if (stopped) yield stopped;
  }

  async #untilStopped(): Promise<Stopped> {
    let stopped: Stopped;
    try {
      await this.#begun;
      const ending = await this.#host.outcomes.closed(this.id, { flow: this.execution.flow });
      if (!ending)
        throw new UsageError(`waiting for run ${this.id} ended early`, "read its result with execution.result");
      stopped = await this.#stoppedBy(ending);
    } catch (error) {
      stopped = { event: failedBy(error), error };
    }
    this.#known = stopped;
    return stopped;
  }

  async #stoppedBy(ending: Ending): Promise<Stopped> {
    const { outcome, snapshot, reason } = ending;
    if (outcome === "completed") {
      const result: Json = Object.hasOwn(snapshot, finalResultKey) ? (snapshot[finalResultKey] ?? null) : snapshot;
      return { event: { type: "stop", result }, error: null };
    }
    const error = errorOf(this.id, ending);
    if (outcome === "cancelled") return { event: { type: "cancelled", reason }, error };
    if (reason === "timeout") return { event: await this.#timedOut(), error };
    const thrown: SerializedError = ending.error ?? { name: error.name, message: error.message };
    const { name, message, code, chunk = null, attempt = 1 } = thrown;
    const shown = { name, message, ...(code !== undefined && { code }) };
    return { event: { type: "failed", error: shown, chunk, attempts: attempt }, error };
  }

  /** The ledger knows what ran when the time was up. */
  async #timedOut(): Promise<StopEvent> {
    let state = initialState();
    for (const recorded of await this.#host.store.reads.history(this.id, 0, null)) {
      if (recorded.event.type === "execution.failed") break;
      state = evolve(state, recorded);
    }
    const chunks = [...state.dispatches.values()].flatMap(({ chunk }) => (chunk === null ? [] : [chunk]));
    return {
      type: "timedOut",
      timeoutMs: state.settings.timeoutMs ?? 0,
      activeChunks: [...new Set(chunks)].toSorted(),
    };
  }
}

/** Also that of a sub-flow, which is answered here. */
function isQuestion(item: unknown): item is Question {
  return isObject(item) && item["type"] === "interrupt" && (item["action"] === "pause" || item["action"] === "project");
}

function failedBy(error: unknown): StopEvent {
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  const code = error instanceof FlowledgerError ? error.code : codeOf(error);
  return { type: "failed", error: { name, message, ...(code !== undefined && { code }) }, chunk: null, attempts: 0 };
}
