/** `defineFlow()`: to, when, if, match, batch, forEach … and the inference they carry. */
import type { z } from "zod";
import { DefinitionError } from "../base/errors.ts";
import { requireKnown, requireRecord } from "../base/option.ts";
import type { Json, StorableReturn } from "../base/json.ts";
import { readBlueprint, toBlueprint, toMermaid, type Blueprint } from "./blueprint.ts";
import type { Callable, ChunkHandler, Output, Predicate } from "./context.ts";
import type {
  CloseSnapshot,
  Contract,
  InputOf,
  Parsed,
  ResourceName,
  ResourceOf,
  StartInput,
  StorableContract,
  StorableSchema,
} from "./contract.ts";
import type {
  ChunkOptions,
  FlowDefinition,
  InterventionPoint,
  ResourceRequirement,
  ResourceResolver,
  SubFlowOptions,
} from "./definition.ts";
import type { Bindings, Capture, WriteBack } from "./bindings.ts";
import { otherwise, type Position } from "./blocks.ts";
import { branchPartsOf, erase, partsOf } from "./chunk-parts.ts";
import { Draft } from "./draft.ts";
import type {
  BranchOutput,
  EntryOf,
  ForEachFrame,
  Heard,
  InCondition,
  InForEach,
  InMatch,
  ItemOf,
  Joined,
  NextCase,
  OpenMatch,
  OuterOf,
  StorableBranches,
  StorableOut,
  SubFlowResult,
  Trigger,
} from "./inference.ts";
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
  contract?: C & StorableContract<C>,
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
  /** For the compiler only. */
  declare readonly "~open"?: Open;
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
  chunk<
    Out extends StorableOut<R, Out>,
    In = unknown,
    I extends z.ZodType | null = null,
    R extends z.ZodType | null = null,
  >(
    name: string,
    handler: ChunkHandler<C, Parsed<I, In>, Out>,
    options?: ChunkOptions<I & StorableSchema<I>, R & StorableSchema<R>, ChunkHandler<C, Parsed<I, In>>>,
  ): ChunkRef<C, Parsed<I, In>, Parsed<R, Output<Out>>> {
    const { handler: erased } = this.#draft.register(partsOf(name, handler, options));
    return { name, handler: erased as ChunkHandler<C, Parsed<I, In>, Parsed<R, Output<Out>>>, options };
  }

  /** The next chunk: what it returns is the input of the chunk after it. */
  to<
    Out extends StorableOut<R, Out>,
    I extends z.ZodType | null = null,
    R extends z.ZodType | null = null,
    const N extends string = string,
  >(
    name: N,
    handler: ChunkHandler<C, Parsed<I, Last>, Out>,
    options?: ChunkOptions<I & StorableSchema<I>, R & StorableSchema<R>, ChunkHandler<C, Parsed<I, Last>>>,
  ): Flow<C, Parsed<R, Output<Out>>, Open, Known & KnownChunk<N, ChunkHandler<C, Parsed<I, Last>, Out>>>;
  /** The next chunk, made by `chunk()`, or a named function. */
  to<Out extends StorableReturn<Out>>(
    chunk: ChunkRef<C, Last, Out> | ChunkHandler<C, Last, Out>,
  ): Flow<C, Output<Out>, Open, Known>;
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
  ifCondition(condition: Predicate<C, Last>): Flow<C, Last, OpenMatch<Last, never, "case", "if", Open>, Known> {
    const opened = this.#draft.openMatch(this.#at, "if");
    return this.#go(this.#draft.case(opened, "if", "ifCondition()", erase(condition)));
  }

  /** Another branch of the open `ifCondition()`, for what no branch before has taken. @throws {DefinitionError} no condition is open */
  elifCondition(
    this: Flow<C, Last, Open, Known> & InCondition,
    condition: Predicate<C, EntryOf<Open>>,
  ): Flow<C, EntryOf<Open>, NextCase<Open, Last, "case">, Known> {
    return this.#go(this.#draft.case(this.#at, "if", "elifCondition()", erase(condition)));
  }

  /** The branch for what no other one has taken. @throws {DefinitionError} no condition is open */
  elseCondition(
    this: Flow<C, Last, Open, Known> & InCondition,
  ): Flow<C, EntryOf<Open>, NextCase<Open, Last, "else">, Known> {
    return this.#go(this.#draft.case(this.#at, "if", "elseCondition()", otherwise));
  }

  /** The ways meet. Without an else, a value that no condition took passes through. */
  endCondition(this: Flow<C, Last, Open, Known> & InCondition): Flow<C, Joined<Open, Last>, OuterOf<Open>, Known> {
    return this.#go(this.#draft.close(this.#at, "if", "endCondition()"));
  }

  /** Begins cases: the value goes into the first that matches, or with mode "all" into every one. */
  match<M extends "first" | "all" = "first">(options?: {
    /** @default "first" */ readonly mode?: M;
  }): Flow<C, Last, OpenMatch<Last, never, "start", M, Open>, Known> {
    return this.#go(this.#draft.openMatch(this.#at, "match", options));
  }

  /** Runs when the input equals a JSON value, or when a condition says `true`. */
  case(
    this: Flow<C, Last, Open, Known> & InMatch,
    test: Json | Predicate<C, EntryOf<Open>>,
  ): Flow<C, EntryOf<Open>, NextCase<Open, Last, "case">, Known> {
    return this.#go(this.#draft.case(this.#at, "match", "case()", typeof test === "function" ? erase(test) : test));
  }

  /** The branch for what no case has taken. @throws {DefinitionError} no match is open */
  caseElse(this: Flow<C, Last, Open, Known> & InMatch): Flow<C, EntryOf<Open>, NextCase<Open, Last, "else">, Known> {
    return this.#go(this.#draft.case(this.#at, "match", "caseElse()", otherwise));
  }

  /** The cases meet. With mode "all" the results of the cases that hit are a list, in the order of the cases. */
  endMatch(this: Flow<C, Last, Open, Known> & InMatch): Flow<C, Joined<Open, Last>, OuterOf<Open>, Known> {
    return this.#go(this.#draft.close(this.#at, "match", "endMatch()"));
  }

  /** The same input into every branch, side by side; then `{ a, b }`. A handler is named by its key. */
  batch<B extends Readonly<Record<string, ChunkHandler<C, Last> | ChunkRef<C, Last, unknown>>>>(
    branches: B & StorableBranches<B>,
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
  endForEach(this: Flow<C, Last, Open, Known> & InForEach): Flow<C, Last[], OuterOf<Open>, Known> {
    return this.#go(this.#draft.close(this.#at, "forEach", "endForEach()"));
  }

  /**
   * Runs another flow as a child, then goes on with its result: its `$final_result` if it has one, else its close
   * snapshot. Where the child uses `end()` or `setResult()`, or with `writeBack`, give the next chunk an `input` schema.
   */
  toSubFlow<K extends Contract, const W extends Bindings = null, const P extends Bindings = null>(
    flow: FlowDefinition<K>,
    options?: SubFlowOptions<W & WriteBack<C, K, W>, P & Capture<C, Last, K, P>>,
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
  declareResourceRequirement<N extends ResourceName<C>>(
    name: N,
    options: {
      /** @default none */ readonly resolver?: ResourceResolver<ResourceOf<C, N>> | null;
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
