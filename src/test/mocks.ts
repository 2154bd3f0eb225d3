/** Flows with other handlers: what a test replaces runs in the place of the real one, and all else is the flow itself. */
import { DefinitionError } from "../base/errors.ts";
import type { Json } from "../base/json.ts";
import type { Flow } from "../flow/builder.ts";
import type { ChunkHandler, Ctx, Output } from "../flow/context.ts";
import type { Contract } from "../flow/contract.ts";
import type { FlowDefinition, InterventionPoint, ResourceRequirement } from "../flow/definition.ts";
import type { Graph } from "../flow/graph.ts";
import type { FlowLimits, StreamLimits } from "../flow/limits.ts";

/** Handlers by flow and chunk, as they come in. */
type GivenMocks = Readonly<Record<string, Readonly<Record<string, unknown>> | undefined>>;

/**
 * Handlers by flow and chunk. What the type of a flow knows of a chunk says what its mock takes and returns: of the chain that is
 * given in `flows`, then. Any other chunk of it has a `ctx` of the flow.
 */
export type Mocks<F extends readonly FlowDefinition[]> =
  // A condition waits until the compiler has seen the flows; an object would be looked into before.
  F extends readonly (infer One)[]
    ? NamedMocks<One> & { readonly [flow: string]: OtherMocks<Contract> | undefined }
    : never;

type NamedMocks<All> = { readonly [One in All as NameOf<One>]?: MocksOf<One> };

type MocksOf<One> = One extends FlowDefinition<infer C> ? KnownMocks<ChunksOf<One>> & OtherMocks<C> : never;
type KnownMocks<Chunks> = { readonly [Name in keyof Chunks]?: Mock<Chunks[Name]> };
interface OtherMocks<C extends Contract> {
  readonly [chunk: string]: AnyMock<C> | undefined;
}
type Mock<Handler> = Handler extends (ctx: infer Given) => infer Out ? (ctx: Given) => Returns<Out> : never;
/** A pause may be answered on the spot. */
type Returns<Out> = Out | Value<Out> | Promise<Value<Out>>;
/** The real one may do nothing but throw. */
type Value<Out> = [Awaited<Out>] extends [never] ? unknown : Awaited<Out> | Output<Out>;
/** By a method its parameter may be narrower, as `ctx.input` of a chunk is. */
type AnyMock<C extends Contract> = { run(ctx: Ctx<C>): unknown }["run"];

/** What the type of a flow knows. It makes no two flows different, so that they may stand in one list. */
type KnownOf<One> = One extends Flow<infer _C, infer _Last, infer _Frame, infer Known> ? Known : never;
type NameOf<One> = KnownOf<One> extends { readonly name: infer Name extends string } ? Literal<Name> : never;
type ChunksOf<One> = KnownOf<One> extends { readonly chunks: infer Chunks } ? Chunks : object;
type Literal<Name extends string> = string extends Name ? never : Name;

/**
 * The flows with the mocks in place, sub-flows included.
 *
 * @throws {DefinitionError} a mock of a flow or chunk that there is not, or one that is no function
 */
export function withMocks(flows: readonly FlowDefinition[], mocks: GivenMocks): FlowDefinition[] {
  const known = new Map<string, FlowDefinition>();
  const learn = (flow: FlowDefinition) => {
    if (known.has(flow.name)) return;
    known.set(flow.name, flow);
    for (const child of flow.subFlows.values()) learn(child);
  };
  flows.forEach(learn);
  for (const [name, handlers] of Object.entries(mocks)) {
    const flow = known.get(name);
    if (!flow)
      throw new DefinitionError(name, "a mock is for a flow that is not tested", `use one of ${listOf(known.keys())}`);
    for (const [chunk, handler] of Object.entries(handlers ?? {})) requireMock(flow, chunk, handler);
  }
  const made = new Map<string, MockedFlow>();
  const mocked = (flow: FlowDefinition): FlowDefinition => {
    const before = made.get(flow.name);
    // Two flows of one name are for the orchestrator to refuse.
    if (before) return before.isOf(flow) ? before : flow;
    const own = new MockedFlow(flow, mocks[flow.name] ?? {}, mocked);
    made.set(flow.name, own);
    return own;
  };
  return flows.map(mocked);
}

function requireMock(flow: FlowDefinition, chunk: string, handler: unknown): void {
  if (!flow.graph.chunks.has(chunk))
    throw new DefinitionError(
      flow.name,
      `a mock is for chunk ${JSON.stringify(chunk)}, which it has not`,
      `use one of ${listOf(flow.graph.chunks.keys())}`,
    );
  if (handler !== undefined && typeof handler !== "function")
    throw new DefinitionError(flow.name, `the mock of chunk "${chunk}" must be a function`, "give a function of ctx");
}

class MockedFlow<C extends Contract = Contract> implements FlowDefinition<C> {
  readonly #flow: FlowDefinition<C>;
  readonly #mocks: Readonly<Record<string, unknown>>;
  readonly #mocked: (flow: FlowDefinition) => FlowDefinition;
  #graph: Graph | null = null;
  #subFlows: ReadonlyMap<string, FlowDefinition> | null = null;

  constructor(
    flow: FlowDefinition<C>,
    mocks: Readonly<Record<string, unknown>>,
    mocked: (flow: FlowDefinition) => FlowDefinition,
  ) {
    this.#flow = flow;
    this.#mocks = mocks;
    this.#mocked = mocked;
  }

  isOf(flow: FlowDefinition): boolean {
    return this.#flow.fingerprint === flow.fingerprint;
  }

  get name(): string {
    return this.#flow.name;
  }
  get contract(): C {
    return this.#flow.contract;
  }
  get fingerprint(): string {
    return this.#flow.fingerprint;
  }
  get requirements(): readonly ResourceRequirement[] {
    return this.#flow.requirements;
  }
  get interventionPoints(): readonly InterventionPoint[] {
    return this.#flow.interventionPoints;
  }
  get contractSchemas(): Json {
    return this.#flow.contractSchemas;
  }
  get limits(): FlowLimits | null {
    return this.#flow.limits;
  }
  get maxDurationMs(): number | null {
    return this.#flow.maxDurationMs;
  }
  get streamLimits(): StreamLimits {
    return this.#flow.streamLimits;
  }

  get subFlows(): ReadonlyMap<string, FlowDefinition> {
    return (this.#subFlows ??= new Map([...this.#flow.subFlows].map(([name, flow]) => [name, this.#mocked(flow)])));
  }

  get graph(): Graph {
    return (this.#graph ??= this.#replace(this.#flow.graph));
  }

  #replace(graph: Graph): Graph {
    const chunks = new Map(graph.chunks);
    for (const [name, chunk] of chunks) {
      const handler = Object.hasOwn(this.#mocks, name) ? this.#mocks[name] : undefined;
      if (isHandler(handler)) chunks.set(name, { ...chunk, handler });
    }
    return { ...graph, chunks };
  }
}

/** What it takes was said by the types of `mocks`; what it returns is parsed like the return of any handler. */
function isHandler(handler: unknown): handler is ChunkHandler {
  return typeof handler === "function";
}

function listOf(names: Iterable<string>): string {
  return [...names].toSorted().join(", ") || "none";
}
