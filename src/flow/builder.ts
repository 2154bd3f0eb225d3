/** `defineFlow()`: to, when, if, match, batch, forEach … and the inference they carry. */
import type { z } from "zod";
import { DefinitionError } from "../base/errors.ts";
import { requireKnown, requireRecord } from "../base/option.ts";
import type { Json } from "../base/json.ts";
import { readBlueprint, toBlueprint, toMermaid, type Blueprint } from "./blueprint.ts";
import type { Callable, ChunkHandler, Output, Predicate } from "./context.ts";
import type {
  CloseSnapshot,
  Contract,
  EventName,
  EventPayload,
  InputOf,
  StartInput,
  StateAt,
  StateKey,
  StateOf,
  noticeEvent,
} from "./contract.ts";
import type {
  ChunkOptions,
  FlowDefinition,
  InterventionPoint,
  ResourceRequirement,
  SubFlowOptions,
} from "./definition.ts";
import { otherwise, type Position } from "./blocks.ts";
import { branchPartsOf, erase, partsOf } from "./chunk-parts.ts";
import { Draft } from "./draft.ts";
import { reservedPrefix } from "./names.ts";
import type { Graph } from "./graph.ts";
import { flowOptionNames, refusalOf } from "./limits.ts";
import type { FlowLimits, FlowOptions, StreamLimits } from "./limits.ts";

/**
 * A flow without chunks yet. Nothing touches a database here, and a definition may be evaluated again: the same named
 * wiring on one flow makes each edge once.
 *
 * @throws {DefinitionError}
 */
export function defineFlow<C extends Contract = Contract, const N extends string = string>(
  name: N,
  contract?: C,
  options?: FlowOptions<InputOf<C>>,
): Flow<C, InputOf<C>, null, { readonly name: N }> {
  // Without a contract C is `Contract` itself, all of whose parts are optional.
  if (options !== undefined) requireKnown(options, flowOptionNames, "defineFlow()", refusalOf(name));
  requireOwnName(name);
  const draft = new Draft(name, contract === undefined ? ({} as C) : contract, null, options);
  return new Flow(draft, draft.start);
}

/**
 * A place in a flow, and the flow around it. `Last` is what the next chunk receives; `Open` holds the blocks that are
 * open. Every method gives a new place, so two calls on one place fan out; the flow's own methods begin at its start.
 */
export class Flow<C extends Contract = Contract, Last = InputOf<C>, Open = null, Known = unknown>
  implements FlowDefinition<C>, Callable<StartInput<C>, CloseSnapshot<C>>
{
  declare readonly "~types"?: { readonly input: (input: StartInput<C>) => void; readonly output: CloseSnapshot<C> };
  readonly #draft: Draft<C>;
  readonly #at: Position;

  /** Use `defineFlow()`. */
  constructor(draft: Draft<C>, at: Position) {
    this.#draft = draft;
    this.#at = at;
  }

  /**
   * The flow of a blueprint. `handlers` has a function for every chunk and condition that the blueprint names.
   *
   * @throws {DefinitionError} naming what is missing
   */
  static fromBlueprint<C extends Contract = Contract>(
    json: unknown,
    handlers: BlueprintHandlers,
    options: BlueprintOptions<C> = {},
  ): Flow<C> {
    const blueprint = readBlueprint(json);
    requireKnown(options, [...flowOptionNames, "contract", "subFlows"], "fromBlueprint()", refusalOf(blueprint.name));
    const { contract = {} as C, subFlows = [] } = options;
    requireOwnName(blueprint.name);
    const draft = new Draft(blueprint.name, contract, blueprint.contract, options);
    draft.restore(blueprint, handlers, subFlows);
    return new Flow(draft, draft.start);
  }

  get name(): string {
    return this.#draft.name;
  }

  get contract(): C {
    return this.#draft.contract;
  }

  get contractSchemas(): Json {
    return this.#draft.contractSchemas;
  }

  get graph(): Graph {
    return this.#draft.graph;
  }

  get fingerprint(): string {
    return this.#draft.fingerprint;
  }

  get requirements(): readonly ResourceRequirement[] {
    return this.#draft.requirements;
  }

  get interventionPoints(): readonly InterventionPoint[] {
    return this.#draft.interventionPoints;
  }

  get subFlows(): ReadonlyMap<string, FlowDefinition> {
    return this.#draft.subFlows;
  }

  get limits(): FlowLimits | null {
    return this.#draft.limits;
  }

  get maxDurationMs(): number | null {
    return this.#draft.maxDurationMs;
  }

  get streamLimits(): StreamLimits {
    return this.#draft.streamLimits;
  }

  /** The line of the stack that called `defineFlow()`; null where a bundler has left none. */
  get definedAt(): string | null {
    return this.#draft.definedAt;
  }

  /** The structure as JSON, for `Flow.fromBlueprint()`: functions and schemas are not in it. */
  toBlueprint(): Blueprint {
    return toBlueprint(this);
  }

  /** The graph as text of Mermaid, for documents. */
  toMermaid(): string {
    return toMermaid(this);
  }

  /** A chunk to use with `to()` and `batch()`. Its `ctx.input` is what you annotate, or what `options.input` parses. */
  chunk<Out, In = unknown, I extends z.ZodType | null = null, R extends z.ZodType | null = null>(
    name: string,
    handler: ChunkHandler<C, Parsed<I, In>, Out>,
    options?: ChunkOptions<I, R, ChunkHandler<C, Parsed<I, In>>>,
  ): ChunkRef<C, Parsed<I, In>, Parsed<R, Output<Out>>> {
    const { handler: erased } = this.#draft.register(partsOf(name, handler, options));
    return { name, handler: erased as ChunkHandler<C, Parsed<I, In>, Parsed<R, Output<Out>>>, options };
  }

  /** The next chunk: what it returns is the input of the chunk after it. */
  to<Out, I extends z.ZodType | null = null, R extends z.ZodType | null = null, const N extends string = string>(
    name: N,
    handler: ChunkHandler<C, Parsed<I, Last>, Out>,
    options?: ChunkOptions<I, R, ChunkHandler<C, Parsed<I, Last>>>,
  ): Flow<C, Parsed<R, Output<Out>>, Open, Known & KnownChunk<N, ChunkHandler<C, Parsed<I, Last>, Out>>>;
  /** The next chunk, made by `chunk()`, or a named function. */
  to<Out>(chunk: ChunkRef<C, Last, Out> | ChunkHandler<C, Last, Out>): Flow<C, Output<Out>, Open, Known>;
  to(chunk: unknown, handler?: unknown, options?: ChunkOptions): Flow<C, never, Open, never> {
    const isMade = typeof chunk === "function" || (typeof chunk === "object" && chunk !== null && "handler" in chunk);
    const given = isMade ? branchPartsOf(chunk, null) : partsOf(chunk, handler, options);
    return this.#go(this.#draft.chunk(this.#at, given));
  }

  /**
   * A chain of its own that runs when an event arrives, or when a state key is written. It hears the payload; of
   * several events, all of them as `{ A, B }` (mode "and") or each as `{ event, value }` (mode "or").
   */
  when<const T extends Trigger<C>, M extends "and" | "or" = "and">(
    trigger: T,
    options?: { /** @default "and" */ readonly mode?: M },
  ): Flow<C, Heard<C, T, M>, null, Known> {
    return this.#go(this.#draft.when(trigger, options));
  }

  /** Begins two or more ways. Only a condition that says `true` counts. */
  ifCondition(condition: Predicate<C, Last>): Flow<C, Last, OpenMatch<Last, never, "case", "first", Open>, Known> {
    const opened = this.#draft.openMatch(this.#at, "if");
    return this.#go(this.#draft.case(opened, "if", "ifCondition()", erase(condition)));
  }

  /** Another branch of the open `ifCondition()`, for what no branch before has taken. @throws {DefinitionError} no condition is open */
  elifCondition(condition: Predicate<C, EntryOf<Open>>): Flow<C, EntryOf<Open>, NextCase<Open, Last, "case">, Known> {
    return this.#go(this.#draft.case(this.#at, "if", "elifCondition()", erase(condition)));
  }

  /** The branch for what no other one has taken. @throws {DefinitionError} no condition is open */
  elseCondition(): Flow<C, EntryOf<Open>, NextCase<Open, Last, "else">, Known> {
    return this.#go(this.#draft.case(this.#at, "if", "elseCondition()", otherwise));
  }

  /** The ways meet. Without an else, a value that no condition took passes through. */
  endCondition(): Flow<C, Joined<Open, Last>, OuterOf<Open>, Known> {
    return this.#go(this.#draft.close(this.#at, "if", "endCondition()"));
  }

  /** Begins cases: the value goes into the first that matches, or with mode "all" into every one. */
  match<M extends "first" | "all" = "first">(options?: {
    /** @default "first" */ readonly mode?: M;
  }): Flow<C, Last, OpenMatch<Last, never, "start", M, Open>, Known> {
    return this.#go(this.#draft.openMatch(this.#at, "match", options));
  }

  /** MatchOutput when the input equals a JSON value, or when a condition says `true`. */
  case(test: Json | Predicate<C, EntryOf<Open>>): Flow<C, EntryOf<Open>, NextCase<Open, Last, "case">, Known> {
    return this.#go(this.#draft.case(this.#at, "match", "case()", typeof test === "function" ? erase(test) : test));
  }

  /** The branch for what no case has taken. @throws {DefinitionError} no match is open */
  caseElse(): Flow<C, EntryOf<Open>, NextCase<Open, Last, "else">, Known> {
    return this.#go(this.#draft.case(this.#at, "match", "caseElse()", otherwise));
  }

  /** The cases meet. With mode "all" the results of the cases that hit are a list, in the order of the cases. */
  endMatch(): Flow<C, Joined<Open, Last>, OuterOf<Open>, Known> {
    return this.#go(this.#draft.close(this.#at, "match", "endMatch()"));
  }

  /** The same input into every branch, side by side; then `{ a, b }`. A handler is named by its key. */
  batch<B extends Readonly<Record<string, ChunkHandler<C, Last> | ChunkRef<C, Last, unknown>>>>(
    branches: B,
    options?: BlockOptions,
  ): Flow<C, { -readonly [K in keyof B]: BranchOutput<B[K]> }, Open, Known> {
    requireRecord(branches, "the branches of batch()", refusalOf(this.name));
    const all = Object.entries(branches).map(([key, branch]) => ({ ...branchPartsOf(branch, key), key }));
    return this.#go(this.#draft.batch(this.#at, all, options));
  }

  /** What follows runs once per item of a list, side by side; an input that is no list is one item. */
  forEach(options?: BlockOptions): Flow<C, ItemOf<Last>, ForEachFrame<Open>, Known> {
    return this.#go(this.#draft.openForEach(this.#at, options));
  }

  /** The results as a list, in the order of the items. */
  endForEach(): Flow<C, Last[], OuterOf<Open>, Known> {
    return this.#go(this.#draft.close(this.#at, "forEach", "endForEach()"));
  }

  /**
   * Runs another flow as a child, then goes on with its result: its `$final_result` if it has one, else its close
   * snapshot. Where the child uses `end()` or `setResult()`, or with `writeBack`, give the next chunk an `input` schema.
   */
  toSubFlow<K extends Contract, W extends Readonly<Record<string, string>> | null = null>(
    flow: FlowDefinition<K>,
    options?: SubFlowOptions<W>,
  ): Flow<C, W extends null ? SubFlowResult<K> : Json, Open, Known> {
    return this.#go(this.#draft.subFlow(this.#at, flow, options));
  }

  /** Where planned interventions come in. The value passes through. */
  interventionPoint(point: {
    readonly name: string;
    /** @default any */ readonly target?: string | null;
  }): Flow<C, Last, Open, Known> {
    return this.#go(this.#draft.interventionPoint(this.#at, point));
  }

  /**
   * Runs once before the close when an execution that had begun is cancelled, beside the `onCancel` of its chunks: a run of its own with
   * steps and state, within the worker's `cancelGrace`. Where it fails the ledger says so, and the execution closes all the same.
   *
   * @throws {DefinitionError} no function, or another one before
   */
  onCancel(handler: ChunkHandler<C, null>): Flow<C, Last, Open, Known> {
    this.#draft.onCancel(erase(handler));
    return this;
  }

  /** Says that executions need a resource, and how a worker that was not given it makes it. */
  declareResourceRequirement(
    name: string,
    options: {
      /** @default none */ readonly resolver?: ResourceRequirement["resolver"];
      /** @default "closed" */ readonly failPolicy?: "closed" | "open";
    } = {},
  ): Flow<C, Last, Open, Known> {
    this.#draft.require(name, options);
    return this;
  }

  /** Compatibility: writes what arrives here to `$final_result`. */
  end(): Flow<C, Last, Open, Known> {
    return this.#go(this.#draft.finalResult(this.#at));
  }

  #go<L, F, K = Known>(at: Position): Flow<C, L, F, K> {
    return new Flow<C, L, F, K>(this.#draft, at);
  }
}

/** @throws {DefinitionError} */
function requireOwnName(name: unknown): void {
  if (typeof name === "string" && name.startsWith(reservedPrefix))
    throw new DefinitionError(
      name,
      `names that begin with "${reservedPrefix}" are the library's own`,
      "give it another name",
    );
}

/** A chunk by itself, from `flow.chunk()`. */
export interface ChunkRef<C extends Contract, In, Out> {
  readonly name: string;
  /** What it runs. */
  readonly handler: ChunkHandler<C, In, Out>;
  readonly options: ChunkOptions | undefined;
}

/** Of `batch()` and `forEach()`. */
export interface BlockOptions {
  /** Branches or items at once. @default unlimited */
  readonly concurrency?: number | null;
  /** Runs each branch or item as an execution of its own, anywhere in the fleet. @default false */
  readonly distribute?: boolean;
}

/** Functions by the name of their chunk or condition. Each takes the `ctx` of its own flow, which a record cannot say. */
export type BlueprintHandlers = Readonly<Record<string, (ctx: never) => unknown>>;

export interface BlueprintOptions<C extends Contract = Contract> extends FlowOptions<InputOf<C>> {
  /** Enforced from here on; a blueprint carries its contract only as JSON Schema. */
  readonly contract?: C;
  /** The flows that `toSubFlow` named. */
  readonly subFlows?: readonly FlowDefinition[];
}

/** What the types of a flow know of one of its chunks, for those who replace its handler. */
export interface KnownChunk<N extends string, Handler> {
  readonly chunks: { readonly [Name in N]: Handler };
}

// ── inference ───────────────────────────────────────────────────────────────────────────────────────────────

export type Trigger<C extends Contract> =
  EventName<C> | typeof noticeEvent | readonly EventName<C>[] | { readonly state: StateKey<C> };

/** What the first chunk after `when()` receives. */
export type Heard<C extends Contract, T, M> = T extends string
  ? EventPayload<C, T>
  : T extends readonly [infer Only extends string]
    ? EventPayload<C, Only>
    : T extends readonly (infer E extends string)[]
      ? M extends "or"
        ? { [K in E]: { event: K; value: EventPayload<C, K> } }[E]
        : { [K in E]: EventPayload<C, K> }
      : T extends { readonly state: infer K extends string }
        ? StateAt<C, K> | null
        : never;

/** An open match or condition: what entered, what its cases gave so far, and the blocks around it. */
export interface OpenMatch<Entry, Outs, Part extends "start" | "case" | "else", Mode extends "first" | "all", Outer> {
  readonly match: { readonly entry: Entry; readonly outs: Outs; readonly part: Part; readonly mode: Mode };
  readonly outer: Outer;
}

export interface ForEachFrame<Outer> {
  readonly forEach: true;
  readonly outer: Outer;
}

export type EntryOf<F> =
  F extends OpenMatch<infer Entry, unknown, "start" | "case" | "else", "first" | "all", unknown> ? Entry : never;
export type OuterOf<F> = F extends { readonly outer: infer Outer } ? Outer : never;
export type NextCase<F, Last, Part extends "case" | "else"> =
  F extends OpenMatch<infer Entry, infer Outs, infer Before, infer Mode, infer Outer>
    ? OpenMatch<Entry, Before extends "start" ? Outs : Outs | Last, Part, Mode, Outer>
    : never;
/** What comes out of a closed match: the results of the cases, then the else or, without one, the input. */
export type Joined<F, Last> =
  F extends OpenMatch<infer Entry, infer Outs, infer Part, infer Mode, unknown>
    ? Part extends "else"
      ? MatchOutput<Mode, Outs> | Last
      : MatchOutput<Mode, Outs | Last> | Entry
    : never;
type MatchOutput<Mode, Outs> = Mode extends "all" ? Outs[] : Outs;

/** What a schema makes of a value; without a schema the value itself. */
export type Parsed<S, Value> = S extends z.ZodType ? z.output<S> : Value;
export type ItemOf<List> = List extends readonly (infer Item)[] ? Item : List;
export type BranchOutput<B> = B extends { readonly handler: (ctx: never) => infer Out }
  ? Output<Out>
  : B extends (ctx: never) => infer Out
    ? Output<Out>
    : never;
export type SubFlowResult<K extends Contract> = K extends { readonly state: z.ZodObject } ? StateOf<K> : Json;
