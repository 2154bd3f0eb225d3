/** One attempt of one dispatch: `ctx` made real, with timeout, journal and commit points. */
import { v7 as uuidv7 } from "uuid";
import { z } from "zod";
import { requireInteger, requireKnown, requireOneOf } from "../base/option.ts";
import { unlessAborted, withTimeout } from "../base/async.ts";
import { callSite } from "../base/call-site.ts";
import type { Timers } from "../base/timers.ts";
import type { CloseHeader } from "../store/append.ts";
import type { Send, Transactions } from "../store/transactions.ts";
import {
  ChunkTimeoutError,
  NoResumeHandleError,
  SelfResumeLimitError,
  UsageError,
  type SerializedError,
} from "../base/errors.ts";
import type {
  CallOptions,
  Callable,
  ConsumeOptions,
  Ctx,
  EmitOptions,
  ExecutionInfo,
  Intervention,
  InterventionFilters,
  Logger,
  PauseOptions,
  Paused,
  Resume,
  StateWriteOptions,
  StepOptions,
  TransactionOptions,
  TransactionSource,
} from "../flow/context.ts";
import {
  parseEvent,
  parseInput,
  parseReturn,
  parseState,
  parseStreamItem,
  requireStatePath,
} from "../flow/contract.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { parseDuration, parseMoment } from "../base/duration.ts";
import type { Chunk, Graph, NodeId } from "../flow/graph.ts";
import { resolveRetry } from "../flow/retry.ts";
import type { Effect, Hits, PauseRequest } from "../ledger/decide.ts";
import { appendPath, deletePath, getPath, setPath } from "../base/path.ts";
import type { Dispatch, ExecutionState, Intervention as FoldedIntervention } from "../ledger/state.ts";
import { endingError, matchesIntervention, publicIntervention } from "../ledger/views.ts";
import { ExecutionId } from "../ledger/event.ts";
import { copyJson, isObject, toJson, type Json, type JsonObject } from "../base/json.ts";
import { dropped, resultOf } from "./child.ts";
import type { Captured, NewChild } from "./child.ts";
import { insideChunk } from "./current.ts";
import { Journal } from "./journal.ts";
import { backoffMs, serializeError } from "./retries.ts";
import { askConditions, meetsMatch } from "./routing.ts";
import type { Put } from "./streamer.ts";
import type { ExecutionResources } from "./resources.ts";

/** What an attempt needs of the owner that runs it. */
export interface ChunkHost {
  readonly flow: FlowDefinition;
  readonly graph: Graph;
  readonly info: ExecutionInfo;
  readonly resources: ExecutionResources;
  readonly log: Logger;
  readonly timers: Timers;
  /** The committed state; read only. */
  readonly state: ExecutionState;
  /** Resolves when the effects are in the ledger. */
  commit(dispatch: number, effects: readonly Effect[]): Promise<void>;
  /** Resolves when the effect is in the ledger, by a commit that `send` makes together with rows of the application's. */
  record(dispatch: number, effect: Effect, send: Send): Promise<void>;
  readonly transactions: Transactions;
  /** Resolves when everything that follows from the emit has run. */
  groupEnd(dispatch: number, group: number): Promise<void>;
  /** Resolves at a time of the database's clock; a far one may let the execution go, and the attempt with it. */
  waitUntil(dispatch: number, ms: number): Promise<void>;
  putIntoStream(dispatch: Dispatch, item: Json): Put;
  flowData: FlowDataAccess;
  /** Creates a child and resolves with how it ended; giving the same id again attaches to the same child. */
  runChild(dispatch: number, child: Omit<NewChild, "parent"> & { readonly ordinal: number }): Promise<ClosedExecution>;
  /** Whether `cancelSubFlow` ended the child. */
  isDropped(child: ExecutionId): Promise<boolean>;
  now(): number;
}

/** How an execution ended, for those in this process who wait for it. */
export type ClosedExecution = CloseHeader & { readonly flow: string };

export interface FlowDataAccess {
  get(key: string): Promise<Json | undefined>;
  set(key: string, value: Json): Promise<void>;
  append(key: string, value: Json): Promise<void>;
  delete(key: string): Promise<void>;
}

export type Ended =
  | { readonly kind: "completed"; readonly output: Json; readonly effects: Effect[]; readonly hits: Hits | undefined }
  | { readonly kind: "paused"; readonly effects: Effect[]; readonly interrupt: PauseRequest }
  | { readonly kind: "dropped" }
  | {
      readonly kind: "failed";
      readonly error: unknown;
      readonly serialized: SerializedError;
      readonly retryInMs: number | null;
    };

/** Runs one attempt to its end; never throws. `abort` is the attempt's own: cancel, timeout and a lost lease end it. */
export async function runAttempt(
  host: ChunkHost,
  dispatch: Dispatch,
  chunk: Chunk,
  abort: AbortController,
): Promise<Ended> {
  const ctx = new ChunkContext(host, dispatch, chunk, abort);
  const { options } = chunk;
  try {
    if (options.input) ctx.parsedInput = parseReturn(options.input, dispatch.input, `input of chunk "${chunk.name}"`);
    const returned = await limited(insideChunk(ctx as unknown as Ctx, chunk.handler), host, chunk, abort);
    if (returned instanceof PauseMark) return { kind: "paused", effects: await ctx.end(), interrupt: returned.request };
    if (returned === dropped) return { kind: "dropped" };
    const output = parseReturn(options.output, returned, `return of chunk "${chunk.name}"`);
    const next = host.graph.nodes.get(dispatch.node)?.next ?? [];
    const hits = meetsMatch(host.graph, next)
      ? await askConditions(host.graph, next, output, (value) => ctx.reader(value))
      : undefined;
    return { kind: "completed", output, effects: await ctx.end(), hits };
  } catch (error) {
    ctx.isEnded = true;
    // Its items come before the retry marker; whether they could be put changes nothing about the failure.
    await ctx.streamed().catch(() => {});
    const serialized = serializeError(error, chunk.name, dispatch.failures + 1);
    return { kind: "failed", error, serialized, retryInMs: backoffMs(options.retry, dispatch.failures + 1, error) };
  }
}

/** What a condition may read of the value it is asked about. */
export function readerOf(host: ChunkHost, value: Json): Ctx {
  return new ReadContext(host, value) as unknown as Ctx;
}

function limited(returned: unknown, host: ChunkHost, chunk: Chunk, abort: AbortController): unknown {
  const { timeoutMs } = chunk.options;
  if (timeoutMs === null) return returned;
  const late = () => {
    const error = new ChunkTimeoutError(host.info.id, chunk.name, timeoutMs);
    abort.abort(error);
    throw error;
  };
  return withTimeout(Promise.resolve(returned), timeoutMs, late, host.timers);
}

class ReadContext {
  readonly #host: ChunkHost;
  readonly #value: Json;
  #input: Json | undefined;

  constructor(host: ChunkHost, value: Json) {
    this.#host = host;
    this.#value = value;
  }

  get input() {
    // A copy, because the value travels on after it was asked about.
    return (this.#input ??= copyJson(this.#value));
  }
  get execution() {
    return this.#host.info;
  }
  // Getters that return functions, so that `({ getState }) => …` works and an attempt costs no closure it does not use.
  get getState() {
    return (path?: string, fallback: unknown = null) => readState(this.#host.state.values, path, fallback);
  }
  get getResource() {
    return (name: string, fallback: unknown = null) => this.#host.resources.get(name) ?? fallback;
  }
  get requireResource() {
    return (name: string) => this.#host.resources.require(name);
  }
  get getFlowData() {
    return (key: string, options?: { noWarning?: boolean; default?: Json }) => {
      if (!options?.noWarning) warnFlowData("getFlowData");
      return this.#host.flowData.get(key).then((value) => value ?? options?.default ?? null);
    };
  }
}

class PauseMark {
  readonly request: PauseRequest;
  constructor(request: PauseRequest) {
    this.request = request;
  }
}

class ChunkContext {
  readonly #host: ChunkHost;
  readonly #dispatch: Dispatch;
  readonly #chunk: Chunk;
  readonly #abort: AbortController;
  readonly #journal: Journal;
  readonly #steps = new Set<string>();
  readonly #seen: readonly FoldedIntervention[];
  #input: Json | undefined;
  /** The last item that was put: durable when all before it are, or refused. */
  #streaming: Promise<void> | null = null;
  /** Why items that were on their way are not in the stream. */
  #refused: { readonly error: unknown } | null = null;
  #hasStopped = false;
  parsedInput: Json | undefined;
  isEnded = false;

  constructor(host: ChunkHost, dispatch: Dispatch, chunk: Chunk, abort: AbortController) {
    this.#host = host;
    this.#dispatch = dispatch;
    this.#chunk = chunk;
    this.#abort = abort;
    // As they stood when this dispatch began: a correction never changes under a chunk's feet.
    this.#seen =
      host.state.interventions.length === 0
        ? []
        : host.state.interventions.filter(({ status }) => status === "inserted");
    this.#journal = new Journal(dispatch.journal, { executionId: host.info.id, chunk: chunk.name });
  }

  get input(): Json {
    // A copy of its own: siblings get the same value, and the ledger has it too.
    return (this.#input ??= this.parsedInput === undefined ? copyJson(this.#dispatch.input) : this.parsedInput);
  }
  get execution() {
    return this.#host.info;
  }
  get chunk() {
    return this.#chunk.name;
  }
  get event() {
    return eventOf(this.#host.graph, this.#dispatch.node);
  }
  get attempt() {
    return this.#dispatch.failures + 1;
  }
  get idempotencyKey() {
    return `${this.#host.info.id}/${encodeURIComponent(this.#chunk.name)}/${this.#dispatch.id}`;
  }
  get signal() {
    return this.#abort.signal;
  }
  get log() {
    return this.#host.log;
  }

  get getState() {
    return (path?: string, fallback: unknown = null) => {
      const { values } = this.#host.state;
      const writes = this.#journal.pendingWrites();
      return readState(writes.length === 0 ? values : withWrites(values, writes), path, fallback);
    };
  }
  get setState() {
    return (path: string, value: unknown, options?: StateWriteOptions) => this.#write("set", path, value, options);
  }
  get appendState() {
    return (path: string, value: unknown, options?: StateWriteOptions) => this.#write("append", path, value, options);
  }
  get delState() {
    return async (path: string, options?: StateWriteOptions) => {
      this.#requireLive();
      requireStatePath(this.#host.flow, path);
      const { ordinal, entry } = this.#journal.next("delete", path);
      if (entry || getPath(withWrites(this.#host.state.values, this.#journal.pendingWrites()), path) === undefined)
        return;
      this.#journal.buffer({ ordinal, effect: "delete", key: path, silent: options?.emit === false });
    };
  }

  async #write(effect: "set" | "append", path: string, value: unknown, options?: StateWriteOptions): Promise<void> {
    this.#requireLive();
    const parsed =
      effect === "set"
        ? parseState(this.#host.flow, path, value)
        : toJson(value, `state "${path}" of flow "${this.#host.flow.name}"`);
    requireStatePath(this.#host.flow, path);
    const { ordinal, entry } = this.#journal.next(effect, path);
    if (entry) return;
    const done: Effect = { ordinal, effect, key: path, value: parsed, silent: options?.emit === false };
    this.#checkWrite(path, done);
    this.#journal.buffer(done);
  }

  /** A dot path and an append are checked by what the whole top-level value becomes. */
  #checkWrite(path: string, effect: Effect): void {
    const [top = path] = path.split(".");
    const isNested = path !== top;
    const hasContract = this.#host.flow.contract.state !== undefined;
    if (!isNested && (effect.effect === "set" || !hasContract)) return;
    const after = withWrites(this.#host.state.values, [...this.#journal.pendingWrites(), effect], path);
    if (hasContract) parseState(this.#host.flow, top, after[top]);
  }

  get emit() {
    return async (event: string, payload: unknown, options?: EmitOptions) => {
      const isWaiting = options?.wait === true;
      const ordinal = this.#emit(event, payload, isWaiting);
      await this.#flush();
      if (!isWaiting) return;
      const entry = this.#dispatch.journal.find((known) => known.ordinal === ordinal);
      if (entry?.effect === "emit" && entry.group !== null) await this.#host.groupEnd(this.#dispatch.id, entry.group);
    };
  }
  get emitNoWait() {
    return (event: string, payload: unknown) => void this.#emit(event, payload, false);
  }
  #emit(event: string, payload: unknown, wait: boolean): number {
    this.#requireLive();
    const parsed = parseEvent(this.#host.flow, event, payload);
    const { ordinal, entry } = this.#journal.next("emit", event);
    if (!entry) this.#journal.buffer({ ordinal, effect: "emit", event, payload: parsed, wait });
    return ordinal;
  }

  get putIntoStream() {
    return async (item: unknown) => {
      this.#requireLive();
      const parsed = parseStreamItem(this.#host.flow, item);
      if (this.#isStreamStopped()) return;
      this.#requireNoneRefused();
      const { durable, admitted } = this.#host.putIntoStream(this.#dispatch, parsed);
      // What follows may be taken again, so it would not tell.
      if (durable !== this.#streaming) durable.catch((error: unknown) => (this.#refused ??= { error }));
      this.#streaming = durable;
      // Durable at the next commit point; here it only waits while too much is on its way.
      await admitted;
    };
  }
  get stopStream() {
    return async () => {
      this.#requireLive();
      this.#hasStopped = true;
      const { ordinal, entry } = this.#journal.next("stopStream", "");
      if (entry) return;
      this.#journal.buffer({ ordinal, effect: "stopStream" });
      await this.#flush();
    };
  }
  /** True where an earlier attempt stopped the stream that this one has not come to yet. */
  #isStreamStopped(): boolean {
    if (!this.#host.state.streamStopped && !this.#hasStopped) return false;
    if (!this.#hasStopped && this.#dispatch.journal.some(({ effect }) => effect === "stopStream")) return true;
    throw new UsageError(
      `chunk "${this.#chunk.name}" put an item into a stream that was stopped`,
      "put all items before stopStream()",
    );
  }
  /** Resolves when every item that was put is in the stream, or rejects. */
  async streamed(): Promise<void> {
    await this.#streaming?.catch(() => {});
    this.#requireNoneRefused();
  }
  /** Says it once: whoever catches that goes on without them. */
  #requireNoneRefused(): void {
    if (!this.#refused) return;
    const { error } = this.#refused;
    this.#refused = null;
    throw error;
  }

  get pauseFor() {
    return (options: PauseOptions = {}): Paused => {
      this.#requireLive();
      if (this.#host.state.settings.hidden) throw new NoResumeHandleError(this.#host.flow.name, this.#chunk.name);
      return new PauseMark(this.#pauseRequest(options)) as unknown as Paused;
    };
  }
  #pauseRequest(options: PauseOptions): PauseRequest {
    const { type = "pause", payload = null, resumeTo = "next", maxResumes = 1, expiresIn = null } = options;
    const where = `pauseFor in chunk "${this.#chunk.name}"`;
    requireInteger(maxResumes, `maxResumes of ${where}`, { min: 0, orNull: "no limit" });
    if (
      resumeTo !== "next" &&
      resumeTo !== "self" &&
      !(typeof resumeTo === "object" && typeof resumeTo?.event === "string" && resumeTo.event !== "")
    )
      throw new UsageError(
        `${where}: resumeTo is ${JSON.stringify(resumeTo)}`,
        'use "next", "self" or { event: name }',
      );
    for (const [name, text] of Object.entries({ type, interruptId: options.interruptId ?? "-" }))
      if (typeof text !== "string" || text === "")
        throw new UsageError(`${where}: ${name} is ${JSON.stringify(text)}`, "use a text that is not empty");
    const resumed = this.resume;
    const id = options.interruptId ?? resumed?.interruptId ?? `${this.#chunk.name}:${this.#dispatch.id}`;
    const earlier = this.#host.state.interrupts.get(id);
    if (earlier?.status === "pending")
      throw new UsageError(`${where}: interrupt "${id}" is pending already`, "use another interruptId");
    const resumeCount = resumed?.interruptId === id ? resumed.count : 0;
    if (resumeTo === "self" && maxResumes !== null && resumeCount >= maxResumes && resumed)
      throw new SelfResumeLimitError(this.#host.info.id, id, resumeCount, maxResumes);
    return {
      id,
      type,
      payload: toJson(payload, `payload of ${where}`),
      resumeTo: typeof resumeTo === "string" ? resumeTo : { event: resumeTo.event },
      maxResumes,
      resumeCount,
      expiresInMs: expiresIn === null ? null : parseDuration(expiresIn, `expiresIn of ${where}`),
      response: options.response
        ? toJson(z.toJSONSchema(options.response, { io: "input" }), `response of ${where}`)
        : null,
    };
  }

  get isResume() {
    return this.#dispatch.resume !== null;
  }
  get resume(): Resume | null {
    const interrupt =
      this.#dispatch.resume === null ? undefined : this.#host.state.interrupts.get(this.#dispatch.resume);
    if (!interrupt) return null;
    return {
      value: copyJson(interrupt.value),
      interruptId: interrupt.id,
      count: interrupt.resumeCount + 1,
      actor: interrupt.actor,
    };
  }

  get interventions(): readonly Intervention[] {
    return this.getInterventions();
  }
  get getInterventions() {
    return (filters: InterventionFilters = {}): readonly Intervention[] =>
      this.#seen.filter((record) => matchesIntervention(record, filters)).map(publicIntervention);
  }
  get markInterventionConsumed() {
    return async (id: string, options: ConsumeOptions = {}): Promise<Intervention> => {
      this.#requireLive();
      const { status = "applied", consumer = this.#chunk.name, note = null, metadata = {} } = options;
      const parsed = toJson(metadata, "metadata of markInterventionConsumed()");
      requireConsumption(id, status, consumer);
      const record = this.#seen.find((seen) => seen.id === id);
      if (!record)
        throw new UsageError(
          `intervention "${id}" was not inserted when chunk "${this.#chunk.name}" began`,
          "mark one of ctx.interventions",
        );
      const { ordinal, entry } = this.#journal.next("consume", `${id} ${consumer}`);
      if (!entry)
        this.#journal.buffer({
          ordinal,
          effect: "consume",
          intervention: id,
          status,
          consumer,
          note,
          metadata: isObject(parsed) ? parsed : {},
        });
      return publicIntervention(record);
    };
  }

  get step() {
    return <T>(name: string, work: (signal: AbortSignal, idempotencyKey: string) => T, options?: StepOptions) =>
      this.#step(name, work, options);
  }
  async #step(
    name: string,
    work: (signal: AbortSignal, idempotencyKey: string) => unknown,
    options: StepOptions = {},
  ): Promise<Json> {
    this.#requireLive();
    const where = `step "${name}" of chunk "${this.#chunk.name}"`;
    this.#requireName(name, where);
    const policy = resolveRetry(options.retry, where);
    const timeoutMs = options.timeout == null ? null : parseDuration(options.timeout, `timeout of ${where}`);
    const { ordinal, entry } = this.#journal.next("step", name);
    if (entry?.effect === "step") return copyJson(entry.value);
    const keyed = (signal: AbortSignal) => work(signal, `${this.idempotencyKey}/${ordinal}`);
    let attempt = 1;
    if (entry?.effect === "stepFailed") {
      if (entry.notBefore === null) throw reviveError(entry.error);
      attempt = entry.attempt + 1;
      await this.#host.waitUntil(this.#dispatch.id, entry.notBefore);
    }
    for (; ; attempt++) {
      try {
        const returned = await timed(keyed, timeoutMs, this.#abort.signal, where, this.#host.timers);
        const value = parseReturn(null, returned, `result of ${where}`);
        this.#journal.buffer({ ordinal, effect: "step", name, value });
        await this.#flush();
        return copyJson(value);
      } catch (error) {
        this.#requireLive();
        const retryInMs = backoffMs(policy, attempt, error);
        const serialized = serializeError(error, this.#chunk.name, attempt);
        this.#journal.buffer({ ordinal, effect: "stepFailed", name, attempt, error: serialized, retryInMs });
        await this.#flush();
        if (retryInMs === null) throw error;
        const failed = this.#dispatch.journal.find((known) => known.ordinal === ordinal);
        if (failed?.effect === "stepFailed" && failed.notBefore !== null)
          await this.#host.waitUntil(this.#dispatch.id, failed.notBefore);
      }
    }
  }

  #requireName(name: string, where: string): void {
    if (typeof name !== "string" || name === "") throw new UsageError(`${where} has no name`, "give every step a name");
    if (this.#steps.has(name))
      throw new UsageError(`${where} is used twice in one run`, `number them, e.g. "${name} 1"`);
    this.#steps.add(name);
  }

  get transaction() {
    return (
      name: string,
      work: (tx: never) => unknown,
      options?: TransactionOptions & { readonly client?: TransactionSource },
    ) => this.#transaction(name, work, options);
  }
  async #transaction(
    name: string,
    work: (tx: never) => unknown,
    options: TransactionOptions & { readonly client?: TransactionSource } = {},
  ): Promise<Json> {
    const where = `transaction "${name}" of chunk "${this.#chunk.name}"`;
    this.#requireLive();
    this.#requireName(name, where);
    requireKnown(options, ["client", "timeout"], where);
    const timeoutMs = options.timeout == null ? null : parseDuration(options.timeout, `timeout of ${where}`);
    const { ordinal, entry } = this.#journal.next("step", name);
    if (entry?.effect === "step") return copyJson(entry.value);
    await this.#flush();
    let recorded: Json = null;
    await this.#host.transactions.run(
      options.client ?? null,
      async (tx) => {
        const { signal } = this.#abort;
        const returning = async () => timed(() => work(tx as never), timeoutMs, signal, where, this.#host.timers);
        // What is cut off rolls back at once: it would hold its rows and its connection.
        const returned = await unlessAborted(returning(), signal);
        return parseReturn(null, returned, `result of ${where}`);
      },
      async (value, send) => {
        recorded = value;
        await this.#host.record(this.#dispatch.id, { ordinal, effect: "step", name, value }, send);
      },
    );
    this.#requireLive();
    return copyJson(recorded);
  }

  get sleep() {
    return async (duration: string | number) => {
      this.#requireLive();
      const forMs = parseDuration(duration, `sleep in chunk "${this.#chunk.name}"`);
      const { ordinal, entry } = this.#journal.next("sleep", "");
      if (!entry) {
        this.#journal.buffer({ ordinal, effect: "sleep", forMs });
        await this.#flush();
      }
      const sleep = this.#dispatch.journal.find((known) => known.ordinal === ordinal);
      if (sleep?.effect === "sleep") await this.#host.waitUntil(this.#dispatch.id, sleep.until);
    };
  }

  get call() {
    return async (target: Callable<unknown, unknown>, input: unknown, options: CallOptions = {}): Promise<Json> => {
      const where = `call of "${target.name}" in chunk "${this.#chunk.name}"`;
      const definition = "flow" in target ? target.flow : target;
      const isFlow = typeof definition === "object" && definition !== null && "contract" in definition;
      const door = isFlow ? (definition as unknown as FlowDefinition) : { name: target.name, contract: {} };
      const { metadata, priority = 0, delay, startAt, discardAfter, timeout, idempotencyKey = null } = options;
      const given = metadata === undefined ? null : toJson(metadata, `metadata of ${where}`);
      const snapshot = await this.#callChild(target.name, {
        input: parseInput(door, input),
        state: {},
        resources: {},
        metadata: isObject(given) ? given : null,
        priority,
        delayMs: delay === undefined ? null : parseDuration(delay, `delay of ${where}`),
        startAt: startAt === undefined ? null : parseMoment(startAt, `startAt of ${where}`),
        discardAfter: discardAfter === undefined ? null : parseMoment(discardAfter, `discardAfter of ${where}`),
        timeoutMs: timeout == null ? null : parseDuration(timeout, `timeout of ${where}`),
        idempotencyKey,
      });
      return resultOf(snapshot);
    };
  }
  /** For the chunk of a sub-flow. */
  get callChild() {
    const plain = {
      metadata: null,
      priority: 0,
      delayMs: null,
      startAt: null,
      discardAfter: null,
      timeoutMs: null,
      idempotencyKey: null,
    };
    return async (flow: string, captured: Captured) => {
      const { id, ending } = await this.#runChild(flow, { ...captured, ...plain });
      if (ending.outcome !== "completed" && (await this.#host.isDropped(id))) return null;
      return snapshotOf(id, flow, ending);
    };
  }
  async #callChild(flow: string, child: Omit<NewChild, "id" | "flow" | "parent">): Promise<JsonObject> {
    const { id, ending } = await this.#runChild(flow, child);
    return snapshotOf(id, flow, ending);
  }
  async #runChild(
    flow: string,
    child: Omit<NewChild, "id" | "flow" | "parent">,
  ): Promise<{ id: ExecutionId; ending: ClosedExecution }> {
    this.#requireLive();
    const { ordinal, entry } = this.#journal.next("call", flow);
    const id = entry?.effect === "call" ? entry.child : ExecutionId.parse(uuidv7());
    if (!entry) {
      this.#journal.buffer({ ordinal, effect: "call", child: id, flow });
      await this.#flush();
    }
    const ending = await this.#host.runChild(this.#dispatch.id, { ...child, id, flow, ordinal });
    this.#requireLive();
    return { id, ending };
  }

  get flush() {
    return () => this.#flush();
  }
  async #flush(): Promise<void> {
    this.#requireLive();
    if (this.#streaming) await this.streamed();
    if (!this.#journal.hasBuffered) return;
    const effects = await this.#asked(this.#journal.take());
    await this.#host.commit(this.#dispatch.id, effects);
    this.#requireLive();
  }

  /** What is still buffered, to go with the chunk's end. */
  async end(): Promise<Effect[]> {
    this.#requireLive();
    this.isEnded = true;
    if (this.#streaming) await this.streamed();
    return this.#journal.hasBuffered ? this.#asked(this.#journal.take()) : [];
  }

  /** Asks the conditions that emits and state writes lead to. */
  async #asked(effects: Effect[]): Promise<Effect[]> {
    const { graph } = this.#host;
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
          : (getPath(withWrites(this.#host.state.values, effects.slice(0, index + 1)), effect.key) ?? null);
      effect.hits = await askConditions(graph, ids, value, (asked) => this.reader(asked));
    }
    return effects;
  }

  reader(value: Json): Ctx {
    return readerOf(this.#host, value);
  }

  get getResource() {
    return (name: string, fallback: unknown = null) => this.#host.resources.get(name) ?? fallback;
  }
  get requireResource() {
    return (name: string) => this.#host.resources.require(name);
  }
  get setResult() {
    return async (value: unknown) => {
      this.#requireLive();
      if (this.#host.state.item)
        throw new UsageError(
          `chunk "${this.#chunk.name}" called setResult() in an item of a distributed collection`,
          "return the value, and call setResult() after endForEach()",
        );
      const { ordinal, entry } = this.#journal.next("result", "");
      if (entry) return;
      if (this.#host.state.result)
        this.#host.log.warn("setResult overwrote an earlier result", { executionId: this.#host.info.id });
      this.#journal.buffer({
        ordinal,
        effect: "result",
        value: toJson(value, `result of chunk "${this.#chunk.name}"`),
      });
    };
  }
  get getFlowData() {
    return (key: string, options?: { noWarning?: boolean; default?: Json }) => {
      if (!options?.noWarning) warnFlowData("getFlowData");
      return this.#host.flowData.get(key).then((value) => value ?? options?.default ?? null);
    };
  }
  get setFlowData() {
    return (key: string, value: unknown, options?: { noWarning?: boolean }) => {
      if (!options?.noWarning) warnFlowData("setFlowData");
      return this.#host.flowData.set(key, toJson(value, `flow data "${key}"`));
    };
  }
  get appendFlowData() {
    return (key: string, value: unknown, options?: { noWarning?: boolean }) => {
      if (!options?.noWarning) warnFlowData("appendFlowData");
      return this.#host.flowData.append(key, toJson(value, `flow data "${key}"`));
    };
  }
  get delFlowData() {
    return (key: string, options?: { noWarning?: boolean }) => {
      if (!options?.noWarning) warnFlowData("delFlowData");
      return this.#host.flowData.delete(key);
    };
  }

  #requireLive(): void {
    if (this.#abort.signal.aborted) throw this.#abort.signal.reason;
    if (this.isEnded)
      throw new UsageError(
        `ctx of chunk "${this.#chunk.name}" was used after the chunk had returned`,
        "await every call of ctx before you return",
      );
  }
}

/** Where a chain began, by the graph alone: the event of the single-event `when` that leads to the node. */
const eventsByNode = new WeakMap<Graph, ReadonlyMap<NodeId, string>>();

function eventOf(graph: Graph, id: NodeId): string | null {
  let byNode = eventsByNode.get(graph);
  if (!byNode) {
    const found = new Map<NodeId, string>();
    for (const node of graph.nodes.values()) {
      if (node.kind !== "when" || !("events" in node.trigger) || node.trigger.events.length !== 1) continue;
      const [event = ""] = node.trigger.events;
      const pending = [...node.next];
      for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
        if (found.has(next)) continue;
        found.set(next, event);
        const here = graph.nodes.get(next);
        if (here) pending.push(...successors(here));
      }
    }
    byNode = found;
    eventsByNode.set(graph, byNode);
  }
  return byNode.get(id) ?? null;
}

function successors(node: NonNullable<ReturnType<Graph["nodes"]["get"]>>): NodeId[] {
  switch (node.kind) {
    case "match":
      return [...node.cases.flatMap(({ entry }) => entry), ...node.otherwise];
    case "batch":
      return node.branches.map(({ entry }) => entry);
    case "forEach":
      return [...node.entry];
    default:
      return [...node.next];
  }
}

/** The close snapshot of a child. @throws {ExecutionFailedError | ExecutionCancelledError} */
function snapshotOf(id: ExecutionId, flow: string, ending: ClosedExecution): JsonObject {
  if (ending.outcome === "completed") return copyJson(ending.snapshot);
  throw endingError(id, { ...ending, flow });
}

/** @throws {UsageError} */
export function requireConsumption(id: string, status: string, consumer: string): void {
  requireOneOf(status, ["applied", "ignored"], `status of intervention "${id}"`);
  if (typeof consumer !== "string" || consumer === "")
    throw new UsageError(`intervention "${id}" needs a consumer`, "say who consumed it");
}

function readState(values: JsonObject, path: string | undefined, fallback: unknown): unknown {
  if (path === undefined) return copyJson(values);
  const found = getPath(values, path);
  return found === undefined ? fallback : copyJson(found);
}

/** The state with writes that are not committed yet; only the top-level keys they touch are copied. */
function withWrites(values: JsonObject, writes: readonly Effect[], strictPath?: string): JsonObject {
  const result: JsonObject = { ...values };
  const copied = new Set<string>();
  for (const write of writes) {
    if (!("key" in write)) continue;
    const [top = write.key] = write.key.split(".");
    const current = result[top];
    if (!copied.has(top) && current !== undefined) result[top] = copyJson(current);
    copied.add(top);
    if (write.key === strictPath) requireObjects(result, write.key);
    if (write.effect === "set") setPath(result, write.key, copyJson(write.value));
    else if (write.effect === "append") appendPath(result, write.key, copyJson(write.value));
    else deletePath(result, write.key);
  }
  return result;
}

function requireObjects(values: JsonObject, path: string): void {
  const segments = path.split(".").slice(0, -1);
  let here: Json = values;
  for (const [index, segment] of segments.entries()) {
    if (!isObject(here)) break;
    const next: Json | undefined = here[segment];
    if (next === undefined) return;
    if (!isObject(next))
      throw new UsageError(
        `state "${path}" cannot be written: "${segments.slice(0, index + 1).join(".")}" is not an object`,
        "write that key first, or choose another path",
      );
    here = next;
  }
}

function timed(
  work: (signal: AbortSignal) => unknown,
  timeoutMs: number | null,
  outer: AbortSignal,
  where: string,
  timers: Timers,
): unknown {
  if (timeoutMs === null) return work(outer);
  const limit = new AbortController();
  const late = () => {
    const error = new UsageError(
      `${where} ran longer than its timeout of ${timeoutMs} ms`,
      "raise timeout, or pass the signal to what it waits for",
    );
    limit.abort(error);
    throw error;
  };
  return withTimeout(Promise.resolve(work(AbortSignal.any([outer, limit.signal]))), timeoutMs, late, timers);
}

function reviveError(error: SerializedError): Error {
  const revived = new Error(error.message);
  revived.name = error.name;
  if (error.stack !== undefined) revived.stack = error.stack;
  return revived;
}

const warnedSites = new Set<string>();

/** flow_data is shared by all executions of a flow: said once per call site, because it is rarely what one wants. */
export function warnFlowData(method: string): void {
  const site = callSite();
  if (warnedSites.has(site)) return;
  warnedSites.add(site);
  process.emitWarning(
    `${method}() reads or writes data that all executions of the flow share; use setState() for data of one execution, or pass { noWarning: true }`,
    {
      type: "FlowledgerWarning",
      code: "FLOW_DATA_SHARED",
    },
  );
}
