/** A flow under construction: steps that know each other by reference, until `graph` numbers them. */
import { isDeepStrictEqual } from "node:util";
import { callerIn } from "../base/call-site.ts";
import { parseDuration } from "../base/duration.ts";
import type { Json } from "../base/json.ts";
import {
  isStorable,
  requireFunction,
  requireKnown,
  requireOneOf,
  requireText,
  showWhole,
  type Refuse,
} from "../base/option.ts";
import { resolveCapture, resolveWriteBack } from "./bindings.ts";
import { caseTest, isOtherwise, reachEnd, requireBlock, requireClosed, type Block, type Position } from "./blocks.ts";
import { fingerprintOf, type Blueprint } from "./blueprint.ts";
import { resolveChunk, resolveConcurrency, resolveItems, type ItemOptions } from "./chunk-options.ts";
import type { ChunkHandler, Predicate } from "./context.ts";
import { checkContract, requireFlow, type Contract, type InputOf } from "./contract.ts";
import type { ChunkParts } from "./chunk-parts.ts";
import type { FlowDefinition, InterventionPoint, ResourceRequirement, SubFlowOptions } from "./definition.ts";
import { failing, resolveFailure, type FailurePolicy } from "./failure.ts";
import type { Chunk, Graph } from "./graph.ts";
import {
  refusalOf,
  resolveLimits,
  resolveStreamLimits,
  type FlowLimits,
  type FlowOptions,
  type StreamLimits,
} from "./limits.ts";
import { requireChunkName, requireFlowName } from "./names.ts";
import { restored } from "./restore.ts";
import {
  heardLabel,
  isBatchOf,
  sameBlock,
  sameStep,
  toGraph,
  type MatchStep,
  type Outlet,
  type Step,
} from "./steps.ts";
import { heardBy } from "./triggers.ts";

export class Draft<C extends Contract = Contract> implements FlowDefinition<C> {
  readonly name: string;
  readonly contract: C;
  readonly contractSchemas: Json;
  readonly limits: FlowLimits | null;
  readonly maxDurationMs: number | null;
  readonly streamLimits: StreamLimits;
  readonly #onFailure: FailurePolicy;
  /** Its stack is made into a text only when somebody asks. */
  readonly #made = new Error();
  readonly #roots: Outlet = { next: [], label: "start" };
  readonly #steps: Step[] = [];
  readonly #chunks = new Map<string, Chunk>();
  readonly #requirements = new Map<string, ResourceRequirement>();
  readonly #points = new Map<string, InterventionPoint>();
  readonly #subFlows = new Map<string, FlowDefinition>();
  readonly #open = new Set<Block>();
  readonly #refuse: Refuse;
  #onCancel: ChunkHandler | null = null;
  #graph: Graph | null = null;
  #fingerprint: string | null = null;

  constructor(name: string, contract: C, contractSchemas: Json = null, options: FlowOptions<InputOf<C>> = {}) {
    requireFlowName(name);
    checkContract(name, contract);
    this.name = name;
    this.#refuse = refusalOf(name);
    this.contract = contract;
    this.contractSchemas = contractSchemas;
    this.limits = resolveLimits(name, options.limits);
    this.maxDurationMs =
      options.maxDuration === undefined ? null : parseDuration(options.maxDuration, `maxDuration of flow "${name}"`);
    this.streamLimits = resolveStreamLimits(name, options);
    this.#onFailure = resolveFailure(options, `flow "${name}"`, failing, this.#refuse) ?? failing;
  }

  get definedAt(): string | null {
    return callerIn(this.#made.stack ?? "");
  }

  /** Begins again at the start input. */
  get start(): Position {
    return { outlet: this.#roots, block: null };
  }

  get graph(): Graph {
    return (this.#graph ??= this.#build());
  }

  get fingerprint(): string {
    return (this.#fingerprint ??= fingerprintOf(this.name, this.graph));
  }

  get requirements(): readonly ResourceRequirement[] {
    return [...this.#requirements.values()];
  }

  get interventionPoints(): readonly InterventionPoint[] {
    return [...this.#points.values()];
  }

  get subFlows(): ReadonlyMap<string, FlowDefinition> {
    return this.#subFlows;
  }

  /** Registers a chunk, or recognises one that is registered already. */
  register({ name, handler, options }: ChunkParts): Chunk {
    requireChunkName(name, handler, this.#refuse);
    const chunk = { name, handler, options: resolveChunk(this.name, name, options, this.#onFailure) };
    const known = this.#chunks.get(name);
    if (known === undefined) {
      this.#changed();
      this.#chunks.set(name, chunk);
      return chunk;
    }
    if (known.handler !== handler)
      this.#refuse(`chunk ${showWhole(name)} has two different handlers`, "give the second one a name of its own");
    if (!isDeepStrictEqual(known.options, chunk.options))
      this.#refuse(
        `chunk ${showWhole(name)} is used twice with different options`,
        "make one chunk with flow.chunk() and use it twice",
      );
    return known;
  }

  chunk(at: Position, parts: ChunkParts): Position {
    const chunk = this.register(parts).name;
    return this.#attach(at, { kind: "chunk", chunk, next: [], label: chunk });
  }

  when(
    trigger: string | readonly string[] | { readonly state: string },
    options: { readonly mode?: "and" | "or" } = {},
  ): Position {
    requireKnown(options, ["mode"], "when()", this.#refuse);
    const { mode = "and" } = options;
    requireOneOf(mode, ["and", "or"], "mode of when()", this.#refuse);
    const heard = heardBy(this, trigger, this.#refuse);
    const label = heardLabel(heard);
    const known = this.#steps.find(
      (step) => step.kind === "when" && step.mode === mode && isDeepStrictEqual(step.trigger, heard),
    );
    return { outlet: known ?? this.#add({ kind: "when", trigger: heard, mode, next: [], label }), block: null };
  }

  batch(
    at: Position,
    branches: readonly (ChunkParts & { readonly key: string })[],
    options: ItemOptions = {},
  ): Position {
    const outlet = this.#outlet(at, "batch()");
    if (branches.length === 0)
      this.#refuse(
        `batch() after ${showWhole(outlet.label)} has no branches`,
        "give it at least one chunk: batch({ a: handler })",
      );
    const items = resolveItems(options, "batch()", this.#refuse);
    const chunks = branches.map((branch) => ({ key: branch.key, chunk: this.register(branch).name }));
    const known = outlet.next.find((step) => isBatchOf(step, chunks, items));
    if (known?.kind === "batch") return { ...at, outlet: known.end };
    const end = this.#end("endBatch", outlet.label);
    const entries = chunks.map(({ key, chunk }): { key: string; entry: Step } => ({
      key,
      entry: { kind: "chunk", chunk, next: [end], label: chunk },
    }));
    const step = {
      kind: "batch",
      branches: entries,
      ...items,
      end,
      next: [],
      label: outlet.label,
    } as const satisfies Step;
    end.of = step;
    outlet.next.push(this.#add(step));
    for (const { entry } of entries) this.#add(entry);
    this.#add(end);
    return { ...at, outlet: end };
  }

  openForEach(at: Position, options: ItemOptions = {}): Position {
    const outlet = this.#outlet(at, "forEach()");
    const end = this.#end("endForEach", outlet.label);
    const entry: Step[] = [];
    const step = {
      kind: "forEach",
      entry,
      ...resolveItems(options, "forEach()", this.#refuse),
      end,
      next: [],
      label: outlet.label,
    } as const satisfies Step;
    const block = this.#openBlock("forEach", step, end, outlet, at.block);
    return { outlet: { next: entry, label: outlet.label }, block };
  }

  openMatch(at: Position, kind: "if" | "match", options: { readonly mode?: "first" | "all" } = {}): Position {
    const outlet = this.#outlet(at, kind === "if" ? "ifCondition()" : "match()");
    requireKnown(options, ["mode"], "match()", this.#refuse);
    const { mode = "first" } = options;
    requireOneOf(mode, ["first", "all"], "mode of match()", this.#refuse);
    const end = this.#end("endMatch", outlet.label);
    const step = { kind: "match", mode, cases: [], otherwise: null, end, next: [], label: outlet.label } satisfies Step;
    return { outlet: null, block: this.#openBlock(kind, step, end, outlet, at.block) };
  }

  /** Begins the next case, or the else when `test` is null. */
  case(
    at: Position,
    kind: "if" | "match",
    called: string,
    test: Json | Predicate | { readonly otherwise: true },
  ): Position {
    const block = requireBlock(at, kind, called, this.#refuse);
    const step = block.step as Outlet & MatchStep;
    const isElse = isOtherwise(test);
    if (block.part === "else")
      this.#refuse(`${called} after ${showWhole(step.label)} comes after the else`, "put the else last");
    if (isElse && block.part === "start")
      this.#refuse(`${called} after ${showWhole(step.label)} comes before any case`, "begin with a case()");
    this.#changed();
    reachEnd(at, block);
    block.part = isElse ? "else" : "case";
    const entry: Step[] = [];
    if (isElse) step.otherwise = entry;
    else step.cases.push({ test: caseTest(this.name, test, kind, step, this.#refuse), entry });
    return { outlet: { next: entry, label: step.label }, block };
  }

  close(at: Position, kind: Block["kind"], called: string): Position {
    const block = requireBlock(at, kind, called, this.#refuse);
    if (block.part === "start" && kind !== "forEach")
      this.#refuse(`match() after ${showWhole(block.step.label)} has no case`, "add a case() before endMatch()");
    this.#changed();
    reachEnd(at, block);
    block.part = "closed";
    this.#open.delete(block);
    const twin = block.from.next.find((step) => step !== block.step && sameBlock(step, block.step));
    if (twin === undefined || !("end" in twin)) return { outlet: block.step.end, block: block.outer };
    // The same wiring was run again: the first block stays, and this one is unreachable.
    block.from.next.splice(block.from.next.indexOf(block.step), 1);
    return { outlet: twin.end, block: block.outer };
  }

  subFlow(at: Position, child: FlowDefinition, options: SubFlowOptions = {}): Position {
    requireFlow(child, "the sub-flow of toSubFlow()", this.#refuse);
    const flow = child.name;
    this.#requireAcyclic(child);
    const known = this.#subFlows.get(flow);
    if (known !== undefined && known !== child && known.graph !== child.graph)
      this.#refuse(`there are two different sub-flows named ${showWhole(flow)}`, "rename one of them");
    const place = `toSubFlow(${showWhole(flow)})`;
    requireKnown(options, ["capture", "writeBack", "concurrency"], place, this.#refuse);
    const capture = resolveCapture(options.capture, place, this.#refuse);
    const writeBack = resolveWriteBack(options.writeBack, place, this.#refuse);
    const concurrency = resolveConcurrency(options.concurrency, place, this.#refuse);
    const next = this.#attach(at, { kind: "subFlow", flow, capture, writeBack, concurrency, next: [], label: flow });
    if (known === undefined) this.#subFlows.set(flow, child);
    return next;
  }

  interventionPoint(at: Position, point: { readonly name: string; readonly target?: string | null }): Position {
    requireKnown(point, ["name", "target"], "interventionPoint()", this.#refuse);
    const { name, target = null } = point;
    if (!isStorable(name))
      this.#refuse("an intervention point has no name", `use interventionPoint({ name: "before_risk" })`);
    requireText(name, "name of interventionPoint()", { max: 200 }, this.#refuse);
    if (target !== null) requireText(target, "target of interventionPoint()", { max: 500 }, this.#refuse);
    const known = this.#points.get(name);
    if (known !== undefined && known.target !== target)
      this.#refuse(
        `intervention point ${showWhole(name)} has the targets ${showWhole(known.target)} and ${showWhole(target)}`,
        "give the second one a name of its own",
      );
    const next = this.#attach(at, { kind: "interventionPoint", name, target, next: [], label: name });
    this.#points.set(name, { name, target });
    return next;
  }

  finalResult(at: Position): Position {
    return this.#attach(at, { kind: "finalResult", next: [], label: "end" });
  }

  onCancel(handler: ChunkHandler): void {
    if (typeof handler !== "function")
      this.#refuse(`onCancel() got ${showWhole(handler)}`, "give it a function of ctx");
    if (this.#onCancel !== null && this.#onCancel !== handler)
      this.#refuse("onCancel() was given two different handlers", "call it once");
    this.#changed();
    this.#onCancel = handler;
  }

  require(name: string, options: Partial<Omit<ResourceRequirement, "name">> = {}): void {
    if (!isStorable(name)) this.#refuse("a resource requirement has no name", `use declareResourceRequirement("db")`);
    requireText(name, "name of declareResourceRequirement()", { max: 200 }, this.#refuse);
    requireKnown(options, ["resolver", "failPolicy"], `resource ${showWhole(name)}`, this.#refuse);
    const { resolver = null, failPolicy = "closed" } = options;
    if (resolver !== null) requireFunction(resolver, `resolver of resource ${showWhole(name)}`, this.#refuse);
    const requirement = { name, resolver, failPolicy };
    requireOneOf(failPolicy, ["closed", "open"], `failPolicy of resource ${showWhole(name)}`, this.#refuse);
    const known = this.#requirements.get(name);
    if (known !== undefined && !isDeepStrictEqual(known, requirement))
      this.#refuse(`resource ${showWhole(name)} is declared twice with different options`, "declare it once");
    this.#requirements.set(name, requirement);
  }

  /** Fills an empty definition from a blueprint, with the live parts it names. */
  restore(
    blueprint: Blueprint,
    handlers: Readonly<Record<string, unknown>>,
    subFlows: readonly FlowDefinition[],
  ): void {
    const live = restored(blueprint, handlers, subFlows, this.#refuse);
    if (live.onCancel) this.onCancel(live.onCancel);
    for (const chunk of live.chunks) this.register(chunk);
    for (const child of live.subFlows) {
      this.#requireAcyclic(child);
      this.#subFlows.set(child.name, child);
    }
    for (const { name, ...requirement } of blueprint.requirements)
      this.require(name, { ...requirement, resolver: null });
    for (const step of live.steps) this.#add(step);
    for (const point of live.points) this.#points.set(point.name, point);
    this.#roots.next.push(...live.roots);
  }

  #requireAcyclic(child: FlowDefinition): void {
    if (reaches(child, this.name))
      this.#refuse(
        `sub-flow ${showWhole(child.name)} leads back to this flow`,
        "start it with ctx.call() where it must recurse",
      );
  }

  #build(): Graph {
    requireClosed(this.#open, this.#refuse);
    if (this.#roots.next.length === 0 && !this.#steps.some((step) => step.kind === "when" && step.next.length > 0))
      this.#refuse("it has no chunks", `add one with to("name", handler)`);
    if (this.limits && this.#steps.some((step) => "distribute" in step && step.distribute))
      this.#refuse(
        "its limits would make distributed items wait for the slot of the execution that waits for them",
        "use toSubFlow() in the body with the limits on that flow, or forEach({ concurrency }) without limits",
      );
    const graph = toGraph(this.#roots, this.#steps, this.#chunks, this.#onFailure);
    return this.#onCancel === null ? graph : { ...graph, onCancel: this.#onCancel };
  }

  #attach(at: Position, step: Step): Position {
    const outlet = this.#outlet(at, step.label);
    const known = outlet.next.find((other) => sameStep(other, step));
    if (known === undefined) outlet.next.push(this.#add(step));
    return { ...at, outlet: known ?? step };
  }

  #add(step: Step): Step {
    this.#changed();
    this.#steps.push(step);
    return step;
  }

  #changed(): void {
    this.#graph = null;
    this.#fingerprint = null;
  }

  #outlet(at: Position, what: string): Outlet {
    return (
      at.outlet ?? this.#refuse(`${showWhole(what)} comes between match() and its first case`, "begin with case()")
    );
  }

  #end(kind: "endMatch" | "endBatch" | "endForEach", label: string): Extract<Step, { of: unknown }> {
    return { kind, of: null, next: [], label };
  }

  #openBlock(
    kind: Block["kind"],
    step: Block["step"],
    end: Extract<Step, { of: unknown }>,
    from: Outlet,
    outer: Block | null,
  ): Block {
    end.of = step;
    from.next.push(this.#add(step));
    this.#add(end);
    const block: Block = { kind, step, outer, from, part: "start" };
    this.#open.add(block);
    return block;
  }
}

function reaches(from: FlowDefinition, name: string): boolean {
  return from.name === name || [...from.subFlows.values()].some((child) => reaches(child, name));
}
