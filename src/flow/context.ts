/**
 * What a chunk may do: the type of `ctx`. Types only; `engine/ctx/` makes it real, a file by subject. It reads better whole: users look up
 * one type.
 */
import type { z } from "zod";
import type { Json, JsonObject, Storable, StorableReturn } from "../base/json.ts";
import type {
  Contract,
  EmitPayload,
  EventName,
  InputOf,
  ResourceName,
  ResourceOf,
  StateAt,
  StateItem,
  StateOf,
  StatePath,
  StateWrite,
  StorableSchema,
  StreamInput,
} from "./contract.ts";
import type { Duration } from "../base/duration.ts";

/** The function given to `to()`. What it returns is the input of the next step. */
export type ChunkHandler<C extends Contract = Contract, In = Json, Out = unknown> = (ctx: Ctx<C, In>) => Out;

/** A condition of `ifCondition()` or `case()`. Only `true` counts. */
export type Predicate<C extends Contract = Contract, In = Json> = (
  ctx: ReadOnlyCtx<C, In>,
) => boolean | Promise<boolean>;

/** What a condition may read. `In` is what the step before returned. */
export interface ReadOnlyCtx<C extends Contract = Contract, In = Json> {
  readonly input: In;
  /**
   * What the execution was started with: of a sub-flow its own input, of an item of a distributed collection that of its parent.
   * A copy of its own.
   *
   * @throws {UsageError} the execution has not been started: an event came before
   */
  readonly startInput: InputOf<C>;
  readonly execution: ExecutionInfo;

  /** The whole application state: what is committed and this chunk's own writes. A copy. */
  getState(): StateOf<C>;
  /** The value at a key or dot path; `fallback` (null) when nothing is there. */
  getState<P extends StatePath<C>, D = null>(path: P, fallback?: D): StateAt<C, P> | D;

  /** A live object of this process; `fallback` (null) when it was not given. Its type is that of the contract, or `T` where that says none. */
  getResource<T = unknown, D = null, N extends ResourceName<C> = ResourceName<C>>(
    name: N,
    fallback?: D,
  ): ResourceOf<C, N, T> | D;
  /**
   * A live object of this process. Its type is that of the contract, or `T` where that says none.
   *
   * @throws {ResourceMissingError}
   */
  requireResource<T = unknown, N extends ResourceName<C> = ResourceName<C>>(name: N): ResourceOf<C, N, T>;

  /** A value shared by all executions of the flow. Warns once per call site unless `noWarning`. */
  getFlowData(key: string, options?: FlowDataOptions): Promise<Json>;
}

/** Everything a chunk handler may use. `In` is what the step before returned. */
export interface Ctx<C extends Contract = Contract, In = Json> extends ReadOnlyCtx<C, In> {
  /** The event whose `when()` began this chain; null in a chain that began with the input. */
  readonly event: string | null;
  /** The name of this chunk. */
  readonly chunk: string;
  /** This try of the chunk, from 1. */
  readonly attempt: number;
  /** For systems that take one: the same in every attempt of this run of the chunk, and in no other run. ASCII. */
  readonly idempotencyKey: string;
  /** Aborts on cancel, on timeout, and when another worker took over. */
  readonly signal: AbortSignal;
  /** The span of this attempt, as W3C Trace Context writes it, for what does not take it from the context; null where nothing is traced. */
  readonly traceparent: string | null;

  /** Replaces the value at a key or dot path. */
  setState<P extends StatePath<C>, V extends Storable<V>>(
    path: P,
    value: StateWrite<C, P, V>,
    options?: StateWriteOptions,
  ): Promise<void>;
  /** Appends to a list; a missing key becomes a list, a single value becomes the first of one. */
  appendState<P extends StatePath<C>, V extends Storable<V>>(
    path: P,
    value: StateItem<C, P, V>,
    options?: StateWriteOptions,
  ): Promise<void>;
  /** Deletes a key or dot path; a missing one is no error. */
  delState(path: StatePath<C>, options?: StateWriteOptions): Promise<void>;

  /** Accepted and durable when it resolves; handlers of `when(event)` then run beside this chunk. */
  emit<E extends EventName<C>, V extends Storable<V>>(
    event: E,
    payload: EmitPayload<C, E, V>,
    options?: EmitOptions,
  ): Promise<void>;
  /** Accepted with this chunk's next commit point. */
  emitNoWait<E extends EventName<C>, V extends Storable<V>>(event: E, payload: EmitPayload<C, E, V>): void;

  /** Sends a live item to every reader of the execution's stream. */
  putIntoStream<V extends Storable<V>>(item: StreamInput<C, V>): Promise<void>;
  /** Ends the stream; the execution goes on. */
  stopStream(): Promise<void>;

  /** Pauses this chain until someone answers. Return what it returns, `return ctx.pauseFor({ … })`, or the chunk fails. */
  pauseFor<
    S extends z.ZodType | null = null,
    const T extends ResumeTo<C> = "next",
    const X extends OnExpire<C> = "end",
  >(
    options?: PauseOptions<S & StorableSchema<S>, T, X>,
  ): Paused<
    (T extends "next" ? (S extends z.ZodType ? z.output<S> : Json) : never) | (X extends "continue" ? null : never)
  >;
  /**
   * Takes a question of this execution back: the chain behind it ends, and a later answer is refused. Committed with this chunk's
   * next commit point; an answer that has come in by then counts, and nothing happens to what has ended.
   *
   * @throws {InterruptNotPendingError} the execution never asked under that id
   */
  withdraw(interruptId: string, options?: WithdrawOptions): Promise<void>;
  /** This run answers a pause with `resumeTo: "self"`. */
  readonly isResume: boolean;
  /** The answer; null unless `isResume`. */
  readonly resume: Resume | null;

  /** The interventions that were inserted when this chunk was dispatched. */
  readonly interventions: readonly Intervention[];
  /** The corrections so far, in the order of their versions; it consumes none. */
  getInterventions(filters?: InterventionFilters): readonly Intervention[];
  /** Says what became of an intervention. The consumer is this chunk unless another is named. */
  markInterventionConsumed(interventionId: string, options?: ConsumeOptions): Promise<Intervention>;

  /**
   * Runs `work` once: a retry of this chunk gets the recorded value back. `work` that was cut off before its value was
   * recorded runs again, with the same `idempotencyKey`.
   *
   * @param name 1 to 500 characters; the same name again in one run numbers itself: "read", "read #2"
   */
  step<T extends StorableReturn<T>>(
    name: string,
    work: (signal: AbortSignal, idempotencyKey: string) => T,
    options?: StepOptions,
  ): Promise<Output<T>>;
  /**
   * Runs `work` in a transaction of this database and records its value with it: the rows that it wrote and the record commit
   * together, so a retry never writes them twice. Whatever `work` throws rolls back. It runs again after a deadlock or a failed
   * serialization, so it has no effects beyond the transaction, and does not use `ctx`.
   *
   * @throws {PayloadError} the value is no JSON
   * @throws {UsageError} `client` opens no transactions, or is connected to another database
   */
  transaction<T extends StorableReturn<T>>(
    name: string,
    work: (tx: Transaction) => T,
    options?: TransactionOptions,
  ): Promise<Output<T>>;
  /** The same through a client of your own: postgres.js, a pool of pg, or drizzle. Its role needs the rights of a worker. */
  transaction<S extends TransactionSource, T extends StorableReturn<T>>(
    name: string,
    work: (tx: TransactionOf<S>) => T,
    options: TransactionOptions & { readonly client: S },
  ): Promise<Output<T>>;
  /** Sleeps through restarts: the time is recorded, and no worker is held for a long one. Until a date that is over it does not wait. */
  sleep(until: Duration | Date): Promise<void>;
  /** Runs a flow or deferred function as a child anywhere in the fleet; a retry attaches to the same child. */
  call<In2, Out>(target: Callable<In2, Out>, input: In2, options?: CallOptions): Promise<Out>;
  /** Commits what this chunk has written so far. */
  flush(): Promise<void>;

  /** Replaces a value that all executions of the flow share; durable when it resolves. @throws {PayloadError} it cannot be stored */
  setFlowData<V extends Storable<V>>(key: string, value: V, options?: FlowDataWriteOptions): Promise<void>;
  /** Appends to a list that all executions of the flow share; durable when it resolves. @throws {PayloadError} it cannot be stored */
  appendFlowData<V extends Storable<V>>(key: string, value: V, options?: FlowDataWriteOptions): Promise<void>;
  /** Removes a value that all executions of the flow share; one that is not there is no error. */
  delFlowData(key: string, options?: FlowDataWriteOptions): Promise<void>;

  /** Compatibility: the internal result, read after `$final_result` and before the close snapshot. */
  setResult<V extends Storable<V>>(value: V): Promise<void>;
  readonly log: Logger;
}

/** What a handler's return is for the next step: awaited, a pause replaced by its answer, nothing as null. */
export type Output<T> = OutputOf<Awaited<T>>;
type OutputOf<T> = unknown extends T
  ? Json
  : T extends Paused<infer Answer>
    ? Answer
    : T extends undefined | void
      ? null
      : T;

export declare const answer: unique symbol;
/** What `ctx.pauseFor()` returns: a mark for the engine, typed with the answer that the next step receives. */
export interface Paused<Answer = Json> {
  readonly [answer]: Answer;
}

/** A flow or a deferred function, as `ctx.call` takes it. `"~types"` exists for the compiler only. */
export interface Callable<In, Out> {
  readonly name: string;
  readonly "~types"?: { readonly input: (input: In) => void; readonly output: Out };
}

/** Which execution a chunk runs in. */
export interface ExecutionInfo {
  readonly id: string;
  readonly flow: string;
  /** As given when it was created. */
  readonly metadata: JsonObject;
}

/** Where an answer goes: into the next step, into this chunk again, or to the handlers of an event. */
export type ResumeTo<C extends Contract = Contract> = "next" | "self" | { readonly event: EventName<C> };

/**
 * What follows when nobody has answered in time: the chain ends; the chunk fails with an `InterruptExpiredError`, without a retry;
 * the next step runs with null; the handlers of an event run, as if the chain had emitted it; or all goes on as with that answer.
 */
export type OnExpire<C extends Contract = Contract> =
  | "end"
  | "fail"
  | "continue"
  /** `payload` is null by default. */
  | { readonly event: EventName<C>; readonly payload?: unknown }
  | { readonly value: unknown };

/** Of `ctx.pauseFor()`: what is asked of whom, until when, and where the answer goes. */
export interface PauseOptions<S extends z.ZodType | null = null, T = ResumeTo, X = OnExpire> {
  /** What kind of answer is asked for; listed and searched by it. @default "pause" */
  readonly type?: string;
  /** What the person or system that answers needs to know. @default null */
  readonly payload?: unknown;
  /** @default "next" */
  readonly resumeTo?: T;
  /**
   * A name of your own; a later pause with the same one replaces the record. Items of a collection may wait under one at the same
   * time: the first has it as it is, each other with its place behind it, such as `boss[2]`. @default generated
   */
  readonly interruptId?: string;
  /** How often `"self"` may be resumed; null is without limit. @default 1 */
  readonly maxResumes?: number | null;
  /** Expires unanswered after this time. @default never */
  readonly expiresIn?: Duration | null;
  /** What follows then; only with `expiresIn`. @default "end" */
  readonly onExpire?: X;
  /** What an answer must be; it is coerced by it. @default any JSON */
  readonly response?: S;
  /** What people read in the inbox, 1 to 500 characters. @default none */
  readonly title?: string;
  /** Whom it asks: 1 to 100 texts of your own, such as "user:ann" or "group:finance". Who is in a group is your business. @default nobody in particular */
  readonly assign?: readonly string[];
  /** After so long it is overdue, which ends nothing. @default never */
  readonly due?: Duration | null;
  /** So long before it is due `when("$interrupt")` hears "reminded", each once. Only with `due`. @default none */
  readonly remind?: readonly Duration[];
  /**
   * What follows so long after it was asked, each once: others are asked in the place of those before, and `when("$interrupt")`
   * hears "escalated"; or it gets an answer, by the actor "timer", as if somebody had given it. @default none
   */
  readonly escalate?: readonly Escalation[];
  /**
   * Each handler of `when("$interrupt")` gets a link that answers it, once, as long as it waits: `publicUrl` of the orchestrator with
   * a token of 256 bits, for `answerByToken()`. Only its SHA-256 is kept. @default false
   */
  readonly link?: boolean;
}

/** What happens when nobody has answered so long: it asks others, or is answered by a value. */
export type Escalation = { readonly after: Duration } & (
  | { readonly assign: readonly string[]; readonly answer?: never }
  /** It has to be what `response` says. */
  | { readonly answer: unknown; readonly assign?: never }
);

/** Of `withdraw()`: a question is taken back. */
export interface WithdrawOptions {
  /** Kept in the ledger, and told to who answers later. @default "withdrawn" */
  readonly reason?: string;
}

/** The answer that this run of a chunk has. */
export interface Resume {
  readonly value: Json;
  readonly interruptId: string;
  /** Which resume of this interrupt it is, from 1. */
  readonly count: number;
  /** Who answered, as they said. */
  readonly actor: string | null;
}

/** Of `ctx.step()`. */
export interface StepOptions {
  /** As for a chunk, counted for the step alone. */
  readonly retry?: RetryOptions;
  /** Longest time of one try. @default none */
  readonly timeout?: Duration | null;
}

/** A transaction on a connection of the worker's, as pg's clients take queries. */
export interface Transaction {
  /** @param values $1, $2 … of the text */
  query<Row extends object = Record<string, unknown>>(
    text: string,
    values?: readonly unknown[],
  ): Promise<{ readonly rows: Row[]; readonly rowCount: number | null }>;
}

/** Of `ctx.transaction()`. */
export interface TransactionOptions {
  /** Longest time of the work. @default none */
  readonly timeout?: Duration | null;
}

/** What opens transactions: a client of postgres.js, a drizzle database, or a pool of pg. */
export type TransactionSource =
  | { begin(work: (tx: unknown) => Promise<void>): Promise<unknown> }
  | { transaction(work: (tx: unknown) => Promise<void>): Promise<unknown> }
  | { readonly idleCount: number; connect(): Promise<unknown> };

/** What a source gives to the work. The two signatures are those of postgres.js. */
export type TransactionOf<S> = S extends {
  begin: { (work: (tx: infer Tx) => unknown): unknown; (options: string, work: (tx: unknown) => unknown): unknown };
}
  ? Tx
  : S extends { transaction(work: (tx: infer Tx) => Promise<never>): unknown }
    ? Tx
    : Transaction;

/** How a chunk or step that threw is tried again. */
export interface RetryOptions {
  /** Tries in total, the first included. @default 1 */
  readonly maxAttempts?: number;
  /** Wait before the second try. @default "1s" */
  readonly initialInterval?: Duration;
  /** Factor of each further wait. @default 2 */
  readonly multiplier?: number;
  /** Longest wait, also of a `RetryAfterError`. @default "10m" */
  readonly maxInterval?: Duration;
  /**
   * Every wait by itself, e.g. `["1s", "1m", "1h"]`: as many retries as it has waits, 1 to 1,000. In place of maxAttempts,
   * initialInterval, multiplier and maxInterval. @default none
   */
  readonly waits?: readonly Duration[];
  /** Spreads each wait, so that many failures do not come back at once. @default true, with `waits` false */
  readonly jitter?: boolean;
  /** Called with what was thrown; false gives up. @default every error is tried again */
  readonly retryIf?: (error: unknown) => boolean;
}

/** Of `ctx.emit()`. */
export interface EmitOptions {
  /** Resolve only when the event's handlers and all that follows from them have run. @default false */
  readonly wait?: boolean;
}

/** Of `setState()`, `appendState()` and `delState()`. */
export interface StateWriteOptions {
  /** Whether `when({ state })` hears this write. @default true */
  readonly emit?: boolean;
}

/** Of `ctx.call()`: the child execution, and the waiting for it. */
export interface CallOptions {
  /** Of the child, beside what it has of its parent; own keys win. @default none */
  readonly metadata?: JsonObject;
  /** Lower runs first. @default 0 */
  readonly priority?: number;
  /** The child starts so long after it was called. @default at once */
  readonly delay?: Duration;
  /** Earliest start. */
  readonly startAt?: Date;
  /** Cancelled with the reason "discarded" when no worker has taken it by then. @default never */
  readonly discardAfter?: Date | Duration;
  /** The child's own limit, from the first time that a worker takes it: when it passes the child has failed. @default none */
  readonly timeout?: Duration | null;
  /** By which others find the child. A key that an execution of the flow has already is a `UsageError`. @default none */
  readonly idempotencyKey?: string;
  /**
   * Ends the waiting with its reason when it aborts; the child goes on. It is nothing that is recorded: a retry of the chunk
   * attaches to the same child. @default none
   */
  readonly signal?: AbortSignal | undefined;
  /**
   * What becomes of a child that still runs when the chunk has ended without its result, as when it lost a race: it is cancelled, or left
   * to run on. @default "cancel"; "leave" with an `idempotencyKey`, as others may wait for that child, or a `signal`, which ends only the waiting
   */
  readonly onAbandon?: "cancel" | "leave";
}

/** Of what changes flow data. */
export interface FlowDataWriteOptions {
  /** @default false */
  readonly noWarning?: boolean;
}

/** Of `getFlowData()`. */
export interface FlowDataOptions extends FlowDataWriteOptions {
  /** When the key is missing. @default null */
  readonly default?: Json;
}

/** A correction by a person, as the ledger records it. */
export interface Intervention {
  readonly id: string;
  /** 1, 2, 3 … within one execution. */
  readonly version: number;
  readonly status: "pending" | "inserted" | "rejected" | "expired";
  readonly payload: Json;
  /** The point or chunk it is meant for; null is the next one. */
  readonly target: string | null;
  readonly author: string | null;
  readonly note: string | null;
  readonly metadata: JsonObject;
  readonly createdAt: Date;
  readonly insertedAt: Date | null;
  /** Where it was inserted. */
  readonly insertion: JsonObject | null;
  readonly rejectedAt: Date | null;
  readonly rejectReason: string | null;
  readonly expiredAt: Date | null;
  /** By consumer: what became of it there. */
  readonly consumers: Readonly<Record<string, InterventionConsumer>>;
}

/** What a chunk made of a correction. */
export interface InterventionConsumer {
  readonly status: "applied" | "ignored";
  readonly note: string | null;
  readonly metadata: JsonObject;
  readonly consumedAt: Date;
}

/** Which corrections: all that is given must hold. */
export interface InterventionFilters {
  /** Only those that are so. @default any */
  readonly status?: Intervention["status"];
  /** Only those for this point or chunk. @default any */
  readonly target?: string;
  /** Only later ones: `version > sinceVersion`. */
  readonly sinceVersion?: number;
  /** Only those that this consumer marked. */
  readonly consumedBy?: string;
}

/** Of `markInterventionConsumed()`. */
export interface ConsumeOptions {
  /** @default "applied" */
  readonly status?: "applied" | "ignored";
  /** @default the chunk's name */
  readonly consumer?: string;
  /** For people who read it later. @default none */
  readonly note?: string;
  /** For programs that read it later. @default {} */
  readonly metadata?: JsonObject;
}

/** Where `ctx.log` writes. */
export interface Logger {
  /** Of no interest but to whoever looks for a fault. */
  debug(message: string, fields?: Readonly<Record<string, unknown>>): void;
  /** Something happened, as it should. */
  info(message: string, fields?: Readonly<Record<string, unknown>>): void;
  /** Something went wrong, and is tried again or goes on without. */
  warn(message: string, fields?: Readonly<Record<string, unknown>>): void;
  /** Something went wrong, and somebody has to look. */
  error(message: string, fields?: Readonly<Record<string, unknown>>): void;
}
