/** A flow under construction: steps that know each other by reference, until `graph` numbers them. */
import { isDeepStrictEqual } from "node:util";
import { callerIn } from "../base/call-site.ts";
import {
  isStorable,
  requireBoolean,
  requireFunction,
  requireInteger,
  requireKnown,
  requireList,
  requireOneOf,
  requireRecord,
  requireText,
  show as showValue,
  type Refuse,
} from "../base/option.ts";
import { DefinitionError, FlowledgerError } from "../base/errors.ts";
import { isObject, toJson, type Json } from "../base/json.ts";
import { fingerprintOf, type Blueprint } from "./blueprint.ts";
import type { ChunkHandler, Predicate, RetryOptions } from "./context.ts";
import {
  checkContract,
  checkSchema,
  noticeEvent,
  requireEvent,
  requireFlow,
  requireStatePath,
  type Contract,
  type InputOf,
} from "./contract.ts";
import { parseDuration } from "../base/duration.ts";
import type {
  ChunkOptions,
  FlowDefinition,
  InterventionPoint,
  ResourceRequirement,
  SubFlowOptions,
} from "./definition.ts";
import type { Chunk, Graph, Node, NodeId, ResolvedChunkOptions, WhenNode } from "./graph.ts";
import { resolveLimits, resolveStreamLimits, type FlowLimits, type FlowOptions, type StreamLimits } from "./limits.ts";
import { failing, failureOptions, optionsOf, resolveFailure, type FailurePolicy } from "./failure.ts";
import { resolveRetry } from "./retry.ts";
import { link, resolved, sameBlock, sameStep, toGraph } from "./steps.ts";
import type { CaseTest, ForEachStep, MatchStep, Outlet, Step } from "./steps.ts";

/** An opened match, ifCondition or forEach. */
export interface Block {
  readonly kind: "if" | "match" | "forEach";
  readonly step: Outlet & (MatchStep | ForEachStep);
  readonly outer: Block | null;
  readonly from: Outlet;
  part: "start" | "case" | "else" | "closed";
}

/** Where a chain stands. There is no outlet between `match()` and its first case. */
export interface Position {
  readonly outlet: Outlet | null;
  readonly block: Block | null;
}

/** What `chunk()` makes and `to()` takes. */
export interface ChunkParts {
  readonly name: string;
  readonly handler: ChunkHandler;
  readonly options: ChunkOptions | undefined;
}

/** Begins the names of the library's own flows. */
export const reservedPrefix = "flowledger.";
/** Does what `bulk()` asks for; every worker serves it. */
export const bulkFlowName = `${reservedPrefix}bulk`;

/** The task of its jobs has it in its identifier, and graphile-worker allows that 128 characters. */
const namePattern = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$/;

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
  readonly #refuse: Refuse = (problem, remedy) => {
    throw new DefinitionError(this.name, problem, remedy);
  };
  #onCancel: ChunkHandler | null = null;
  #graph: Graph | null = null;
  #fingerprint: string | null = null;

  constructor(name: string, contract: C, contractSchemas: Json = null, options: FlowOptions<InputOf<C>> = {}) {
    if (typeof name !== "string" || !namePattern.test(name))
      throw new DefinitionError(
        typeof name === "string" ? name : showValue(name),
        "the name is not allowed",
        "use 1 to 100 letters, digits and . _ : - that begin with a letter or digit",
      );
    checkContract(name, contract);
    this.name = name;
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
    if (typeof handler !== "function")
      this.#refuse(`chunk ${show(name)} has no handler`, "give to() a name and a function of ctx");
    if (typeof name !== "string" || name === "")
      this.#refuse("an anonymous function cannot be a chunk", `give it a name: to("name", handler)`);
    if (name.length > 128 || /\p{Cc}/u.test(name) || !name.isWellFormed())
      this.#refuse(`chunk name ${show(name.slice(0, 40))} is not allowed`, "use up to 128 printable characters");
    const chunk = { name, handler, options: this.#resolve(name, options) };
    const known = this.#chunks.get(name);
    if (known === undefined) {
      this.#changed();
      this.#chunks.set(name, chunk);
      return chunk;
    }
    if (known.handler !== handler)
      this.#refuse(`chunk ${show(name)} has two different handlers`, "give the second one a name of its own");
    if (!isDeepStrictEqual(known.options, chunk.options))
      this.#refuse(
        `chunk ${show(name)} is used twice with different options`,
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
    this.#requireOptions(options, ["mode"], "when()");
    const { mode = "and" } = options;
    requireOneOf(mode, ["and", "or"], "mode of when()", this.#refuse);
    if (isObject(trigger)) this.#requireOptions(trigger, ["state"], "when()");
    if (!(typeof trigger === "string" || Array.isArray(trigger) || (isObject(trigger) && "state" in trigger)))
      this.#refuse(`when() hears ${show(trigger)}`, 'give it an event, a list of events, or { state: "key" }');
    const heard: WhenNode["trigger"] =
      typeof trigger === "object" && "state" in trigger
        ? { state: trigger.state }
        : { events: [...new Set(typeof trigger === "string" ? [trigger] : trigger)] };
    if ("events" in heard && heard.events.length === 0)
      this.#refuse("when([]) hears nothing", "name at least one event");
    this.#translated("when()", () => {
      if ("state" in heard) requireStatePath(this, heard.state);
      else if (!(heard.events.length === 1 && heard.events[0] === noticeEvent))
        for (const event of heard.events) requireEvent(this, event);
    });
    const label = heardLabel(heard);
    const known = this.#steps.find(
      (step) => step.kind === "when" && step.mode === mode && isDeepStrictEqual(step.trigger, heard),
    );
    return { outlet: known ?? this.#add({ kind: "when", trigger: heard, mode, next: [], label }), block: null };
  }

  batch(
    at: Position,
    branches: readonly (ChunkParts & { readonly key: string })[],
    options: { readonly concurrency?: number | null; readonly distribute?: boolean } = {},
  ): Position {
    const outlet = this.#outlet(at, "batch()");
    if (branches.length === 0)
      this.#refuse(
        `batch() after ${show(outlet.label)} has no branches`,
        "give it at least one chunk: batch({ a: handler })",
      );
    this.#requireOptions(options, ["concurrency", "distribute"], "batch()");
    const concurrency = this.#concurrency(options.concurrency, "batch()");
    const distribute = this.#distribute(options.distribute, "batch()");
    const chunks = branches.map((branch) => ({ key: branch.key, chunk: this.register(branch).name }));
    const known = outlet.next.find(
      (step) =>
        step.kind === "batch" &&
        step.concurrency === concurrency &&
        step.distribute === distribute &&
        isDeepStrictEqual(
          step.branches.map(({ key, entry }) => ({ key, chunk: entry.kind === "chunk" && entry.chunk })),
          chunks,
        ),
    );
    if (known?.kind === "batch") return { ...at, outlet: known.end };
    const end = this.#end("endBatch", outlet.label);
    const entries = chunks.map(({ key, chunk }): { key: string; entry: Step } => ({
      key,
      entry: { kind: "chunk", chunk, next: [end], label: chunk },
    }));
    const step = {
      kind: "batch",
      branches: entries,
      concurrency,
      distribute,
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

  openForEach(
    at: Position,
    options: { readonly concurrency?: number | null; readonly distribute?: boolean } = {},
  ): Position {
    const outlet = this.#outlet(at, "forEach()");
    const end = this.#end("endForEach", outlet.label);
    const entry: Step[] = [];
    this.#requireOptions(options, ["concurrency", "distribute"], "forEach()");
    const concurrency = this.#concurrency(options.concurrency, "forEach()");
    const step = {
      kind: "forEach",
      entry,
      concurrency,
      distribute: this.#distribute(options.distribute, "forEach()"),
      end,
      next: [],
      label: outlet.label,
    } as const satisfies Step;
    const block = this.#openBlock("forEach", step, end, outlet, at.block);
    return { outlet: { next: entry, label: outlet.label }, block };
  }

  openMatch(at: Position, kind: "if" | "match", options: { readonly mode?: "first" | "all" } = {}): Position {
    const outlet = this.#outlet(at, kind === "if" ? "ifCondition()" : "match()");
    this.#requireOptions(options, ["mode"], "match()");
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
    const block = this.#block(at, kind, called);
    const step = block.step as Outlet & MatchStep;
    const isElse = isOtherwise(test);
    if (block.part === "else")
      this.#refuse(`${called} after ${show(step.label)} comes after the else`, "put the else last");
    if (isElse && block.part === "start")
      this.#refuse(`${called} after ${show(step.label)} comes before any case`, "begin with a case()");
    this.#changed();
    this.#reachEnd(at, block);
    block.part = isElse ? "else" : "case";
    const entry: Step[] = [];
    if (isElse) step.otherwise = entry;
    else step.cases.push({ test: this.#caseTest(test, kind, step), entry });
    return { outlet: { next: entry, label: step.label }, block };
  }

  close(at: Position, kind: Block["kind"], called: string): Position {
    const block = this.#block(at, kind, called);
    if (block.part === "start" && kind !== "forEach")
      this.#refuse(`match() after ${show(block.step.label)} has no case`, "add a case() before endMatch()");
    this.#changed();
    this.#reachEnd(at, block);
    block.part = "closed";
    this.#open.delete(block);
    const twin = block.from.next.find((step) => step !== block.step && sameBlock(step, block.step));
    if (twin === undefined || !("end" in twin)) return { outlet: block.step.end, block: block.outer };
    // The same wiring, executed again: the first stays, and this one is reachable from nowhere.
    block.from.next.splice(block.from.next.indexOf(block.step), 1);
    return { outlet: twin.end, block: block.outer };
  }

  subFlow(at: Position, child: FlowDefinition, options: SubFlowOptions = {}): Position {
    requireFlow(child, "the sub-flow of toSubFlow()", this.#refuse);
    const flow = child.name;
    if (reaches(child, this.name))
      this.#refuse(`sub-flow ${show(flow)} leads back to this flow`, "start it with ctx.call() where it must recurse");
    const known = this.#subFlows.get(flow);
    if (known !== undefined && known !== child && known.graph !== child.graph)
      this.#refuse(`there are two different sub-flows named ${show(flow)}`, "rename one of them");
    const place = `toSubFlow(${show(flow)})`;
    this.#requireOptions(options, ["capture", "writeBack", "concurrency"], place);
    const capture = this.#bindings(options.capture, `capture of ${place}`, captureTargets, captureSources);
    const writeBack = this.#bindings(options.writeBack, `writeBack of ${place}`, writeBackTargets, writeBackSources);
    const concurrency = this.#concurrency(options.concurrency, place);
    const next = this.#attach(at, { kind: "subFlow", flow, capture, writeBack, concurrency, next: [], label: flow });
    if (known === undefined) this.#subFlows.set(flow, child);
    return next;
  }

  interventionPoint(at: Position, point: { readonly name: string; readonly target?: string | null }): Position {
    this.#requireOptions(point, ["name", "target"], "interventionPoint()");
    const { name, target = null } = point;
    if (!isStorable(name))
      this.#refuse("an intervention point has no name", `use interventionPoint({ name: "before_risk" })`);
    requireText(name, "name of interventionPoint()", { max: 200 }, this.#refuse);
    if (target !== null) requireText(target, "target of interventionPoint()", { max: 500 }, this.#refuse);
    const known = this.#points.get(name);
    if (known !== undefined && known.target !== target)
      this.#refuse(
        `intervention point ${show(name)} has the targets ${show(known.target)} and ${show(target)}`,
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
    if (typeof handler !== "function") this.#refuse(`onCancel() got ${show(handler)}`, "give it a function of ctx");
    if (this.#onCancel !== null && this.#onCancel !== handler)
      this.#refuse("onCancel() was given two different handlers", "call it once");
    this.#changed();
    this.#onCancel = handler;
  }

  require(name: string, options: Partial<Omit<ResourceRequirement, "name">> = {}): void {
    if (!isStorable(name)) this.#refuse("a resource requirement has no name", `use declareResourceRequirement("db")`);
    requireText(name, "name of declareResourceRequirement()", { max: 200 }, this.#refuse);
    this.#requireOptions(options, ["resolver", "failPolicy"], `resource ${show(name)}`);
    const { resolver = null, failPolicy = "closed" } = options;
    if (resolver !== null) requireFunction(resolver, `resolver of resource ${show(name)}`, this.#refuse);
    const requirement = { name, resolver, failPolicy };
    requireOneOf(failPolicy, ["closed", "open"], `failPolicy of resource ${show(name)}`, this.#refuse);
    const known = this.#requirements.get(name);
    if (known !== undefined && !isDeepStrictEqual(known, requirement))
      this.#refuse(`resource ${show(name)} is declared twice with different options`, "declare it once");
    this.#requirements.set(name, requirement);
  }

  /** Fills an empty definition from a blueprint, with the live parts it names. */
  restore(
    blueprint: Blueprint,
    handlers: Readonly<Record<string, unknown>>,
    subFlows: readonly FlowDefinition[],
  ): void {
    requireRecord(handlers, "handlers of fromBlueprint()", this.#refuse);
    requireList(subFlows, "subFlows of fromBlueprint()", requireFlow, this.#refuse);
    if (blueprint.onCancel) this.onCancel(this.#live(handlers, cleanupName, "cancel") as ChunkHandler);
    for (const { name, retry, timeoutMs, onCancel, onFailure } of blueprint.chunks)
      this.register({
        name,
        handler: this.#live(handlers, name, "chunk") as ChunkHandler,
        options: {
          retry: retryOptions(retry),
          timeout: timeoutMs,
          ...(onCancel && { onCancel: this.#live(handlers, `${name}.${cleanupName}`, "chunk") }),
          ...optionsOf(onFailure),
        },
      });
    for (const name of blueprint.subFlows) {
      const child =
        subFlows.find((flow) => flow.name === name) ??
        this.#refuse(`sub-flow ${show(name)} of the blueprint is missing`, "give it in subFlows");
      if (reaches(child, this.name))
        this.#refuse(
          `sub-flow ${show(name)} leads back to this flow`,
          "start it with ctx.call() where it must recurse",
        );
      this.#subFlows.set(name, child);
    }
    for (const { name, ...requirement } of blueprint.requirements)
      this.require(name, { ...requirement, resolver: null });
    const steps = new Map<NodeId, Step>();
    for (const node of blueprint.nodes) steps.set(node.id, this.#add(this.#shell(node)));
    for (const node of blueprint.nodes)
      link(node, steps, (name) => this.#live(handlers, name, "condition") as Predicate);
    this.#roots.next.push(...resolved(blueprint.roots, steps));
  }

  /** The step of a node with nothing attached: `link` does that, once every step is there. */
  #shell(node: Node): Step {
    const empty = { next: [] as Step[], label: node.id };
    const end: Step = { ...empty, kind: "endMatch", of: null };
    switch (node.kind) {
      case "chunk":
        return { ...empty, kind: node.kind, chunk: node.chunk, label: node.chunk };
      case "match":
        return { ...empty, kind: node.kind, mode: node.mode, cases: [], otherwise: [], end };
      case "batch":
        return {
          ...empty,
          kind: node.kind,
          branches: [],
          concurrency: node.concurrency,
          distribute: node.distribute,
          end,
        };
      case "forEach":
        return {
          ...empty,
          kind: node.kind,
          entry: [],
          concurrency: node.concurrency,
          distribute: node.distribute,
          end,
        };
      case "endMatch":
      case "endBatch":
      case "endForEach":
        return { ...empty, kind: node.kind, of: null };
      case "when":
        return { ...empty, kind: node.kind, trigger: node.trigger, mode: node.mode, label: heardLabel(node.trigger) };
      case "subFlow": {
        const { kind, flow, capture, writeBack, concurrency } = node;
        return { ...empty, kind, flow, capture, writeBack, concurrency, label: flow };
      }
      case "interventionPoint":
        this.#points.set(node.name, { name: node.name, target: node.target });
        return { ...empty, kind: node.kind, name: node.name, target: node.target, label: node.name };
      case "finalResult":
        return { ...empty, kind: node.kind };
    }
  }

  #live(handlers: Readonly<Record<string, unknown>>, name: string, what: string): unknown {
    const live = Object.hasOwn(handlers, name) ? handlers[name] : undefined;
    if (typeof live !== "function")
      this.#refuse(
        `the handler of ${what} ${show(name)} is missing`,
        `give it to fromBlueprint() as { ${show(name)}: function }`,
      );
    return live;
  }

  #build(): Graph {
    for (const { kind, step } of this.#open) {
      const [opened, closes] = {
        if: ["ifCondition()", "endCondition()"],
        match: ["match()", "endMatch()"],
        forEach: ["forEach()", "endForEach()"],
      }[kind];
      this.#refuse(`${opened} after ${show(step.label)} is never closed`, `add ${closes}`);
    }
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
    return at.outlet ?? this.#refuse(`${show(what)} comes between match() and its first case`, "begin with case()");
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

  #block({ block }: Position, kind: Block["kind"], called: string): Block {
    const opens = { if: "ifCondition()", match: "match()", forEach: "forEach()" };
    if (block === null) this.#refuse(`${called} stands outside ${opens[kind]}`, `begin with ${opens[kind]}`);
    if (block.kind !== kind)
      this.#refuse(
        `${called} stands inside ${opens[block.kind]} after ${show(block.step.label)}`,
        `close that first, or begin with ${opens[kind]}`,
      );
    if (block.part === "closed")
      this.#refuse(`${called} comes after ${opens[kind]} was closed`, "go on with the chain that the end returned");
    return block;
  }

  #reachEnd(at: Position, block: Block): void {
    if (at.outlet !== null && !at.outlet.next.includes(block.step.end)) at.outlet.next.push(block.step.end);
  }

  #caseTest(test: Json | Predicate, kind: "if" | "match", step: MatchStep & Outlet): CaseTest {
    if (typeof test === "function")
      return { predicate: test, name: null, word: kind === "match" ? "case" : step.cases.length ? "elif" : "if" };
    if (kind === "if")
      this.#refuse(`a condition after ${show(step.label)} is no function`, "use ifCondition((ctx) => boolean)");
    return { equals: this.#translated("case()", () => toJson(test, `case of flow "${this.name}"`)) };
  }

  #resolve(chunk: string, options: ChunkOptions = {}): ResolvedChunkOptions {
    const where = `chunk ${show(chunk)}`;
    this.#requireOptions(options, ["retry", "timeout", "input", "output", "onCancel", ...failureOptions], where);
    const { input = null, output = null, timeout = null } = options;
    if (input !== null) checkSchema(this.name, `input of ${where}`, input);
    if (output !== null) checkSchema(this.name, `output of ${where}`, output);
    return this.#translated(where, () => {
      const timeoutMs = timeout === null ? null : parseDuration(timeout, `timeout of ${where}`);
      if (timeoutMs === 0) this.#refuse(`${where} has a timeout of 0`, "leave it out for none");
      const onFailure = resolveFailure(options, where, this.#onFailure, this.#refuse);
      const resolvedOptions = { retry: resolveRetry(options.retry, where), timeoutMs, onFailure, input, output };
      if (options.onCancel === undefined) return resolvedOptions;
      if (!isHandler(options.onCancel))
        this.#refuse(`onCancel of ${where} is ${show(options.onCancel)}`, "give it a function of ctx");
      return { ...resolvedOptions, onCancel: options.onCancel };
    });
  }

  #requireOptions(given: object, names: readonly string[], where: string): void {
    if (!isObject(given)) this.#refuse(`${where} has ${show(given)} as its options`, `use { ${names.join(", ")} }`);
    requireKnown(given, names, where, this.#refuse);
  }

  #concurrency(value: number | null | undefined, where: string): number | null {
    if (value === undefined) return null;
    return requireInteger(value, `concurrency of ${where}`, { min: 1, orNull: "no limit" }, this.#refuse);
  }

  #distribute(value: boolean | undefined, where: string): boolean {
    return requireBoolean(value === undefined ? false : value, `distribute of ${where}`, this.#refuse);
  }

  #bindings(
    given: Readonly<Record<string, string>> | null | undefined,
    where: string,
    targets: readonly string[],
    sources: readonly string[],
  ): Readonly<Record<string, string>> | null {
    if (given === undefined || given === null) return null;
    if (!isObject(given) || given instanceof Date || given instanceof Map)
      this.#refuse(`${where} is ${show(given)}`, `bind paths to paths: { "state.topic": "value.topic" }`);
    const paths = Object.keys(given);
    for (const [target, source] of Object.entries(given)) {
      this.#path(target, targets, `target of ${where}`);
      this.#path(source, sources, `source of ${where}`);
      if (target.startsWith("resources.") !== source.startsWith("resources."))
        this.#refuse(
          `${where} binds ${show(target)} to ${show(source)}`,
          "bind resources to resources: live objects are not data",
        );
      const inner = paths.find((other) => other.startsWith(`${target}.`));
      if (inner !== undefined)
        this.#refuse(`${where} sets both ${show(target)} and ${show(inner)}`, "keep one of them");
    }
    return { ...given };
  }

  #path(path: string, scopes: readonly string[], where: string): void {
    const [scope, ...segments] = typeof path === "string" ? path.split(".") : [];
    const alone = ["input", "value", "result", "snapshot"];
    if (scope === undefined || !scopes.includes(scope))
      this.#refuse(`${where} is ${show(path)}`, `begin it with ${scopes.join(", ")}`);
    if (segments.length === 0 && !alone.includes(scope))
      this.#refuse(`${where} is ${show(path)}`, `name a key: "${scope}.key"`);
    if (!segments.every((segment) => /^[A-Za-z_]\w*$/.test(segment) && segment !== "__proto__"))
      this.#refuse(`${where} is ${show(path)}`, "use segments of letters, digits and _");
  }

  /** Runs a check that throws for a caller, and says it as a mistake in the definition. */
  #translated<T>(where: string, check: () => T): T {
    try {
      return check();
    } catch (error) {
      if (error instanceof DefinitionError || !(error instanceof FlowledgerError)) throw error;
      throw new DefinitionError(this.name, `${where}: ${error.message}`, null, error.details, error);
    }
  }
}

// Flow data is shared by all executions of the child, so one call does not write it.
const captureTargets = ["input", "state", "resources"];
const captureSources = ["value", "state", "flowData", "resources"];
const writeBackTargets = ["value", "state", "flowData"];
const writeBackSources = ["result", "snapshot"];

function retryOptions({
  maxAttempts,
  initialIntervalMs,
  multiplier,
  maxIntervalMs,
  waitsMs,
  jitter,
}: Blueprint["chunks"][number]["retry"]): RetryOptions {
  if (waitsMs) return { waits: waitsMs, jitter };
  return { maxAttempts, initialInterval: initialIntervalMs, multiplier, maxInterval: maxIntervalMs, jitter };
}

/** What handlers for a cancel are called beside those of a blueprint's chunks. */
const cleanupName = "onCancel";

/** That a function takes the `ctx` of its flow is checked where it is given. */
function isHandler(value: unknown): value is ChunkHandler {
  return typeof value === "function";
}

function heardLabel(trigger: WhenNode["trigger"]): string {
  return "state" in trigger ? trigger.state : trigger.events.join("+");
}

function reaches(from: FlowDefinition, name: string): boolean {
  return from.name === name || [...from.subFlows.values()].some((child) => reaches(child, name));
}

function isOtherwise(test: unknown): test is { readonly otherwise: true } {
  return test === otherwise;
}

/** Stands for the else of a match; compared by identity, because a case may equal any JSON. */
export const otherwise = Object.freeze({ otherwise: true } as const);

function show(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : showValue(value);
}
