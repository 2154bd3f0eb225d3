/** The nodes of a flow while it is written: they hold each other; the graph made from them holds ids. */
import { isDeepStrictEqual } from "node:util";
import type { Json } from "../base/json.ts";
import type { Predicate } from "./context.ts";
import { noticeEvent } from "./contract.ts";
import type { FailurePolicy } from "./failure.ts";
import type { Chunk, Graph, Node, NodeId, WhenNode } from "./graph.ts";

/** Where a next step can be attached. */
export interface Outlet {
  readonly next: Step[];
  /** What precedes, for names and messages. */
  readonly label: string;
}

/** A node of the graph before it has an id. */
export type Step = Outlet &
  (
    | { readonly kind: "chunk"; readonly chunk: string }
    | MatchStep
    | ForEachStep
    | BatchStep
    | { readonly kind: "endMatch" | "endBatch" | "endForEach"; of: Step | null }
    | { readonly kind: "when"; readonly trigger: WhenNode["trigger"]; readonly mode: "and" | "or" }
    | {
        readonly kind: "subFlow";
        readonly flow: string;
        readonly capture: Readonly<Record<string, string>> | null;
        readonly writeBack: Readonly<Record<string, string>> | null;
        readonly concurrency: number | null;
      }
    | { readonly kind: "interventionPoint"; readonly name: string; readonly target: string | null }
    | { readonly kind: "finalResult" }
  );

export interface MatchStep {
  readonly kind: "match";
  readonly mode: "first" | "all";
  readonly cases: { readonly test: CaseTest; readonly entry: Step[] }[];
  /** null: the value passes through. */
  otherwise: Step[] | null;
  readonly end: Step;
}

/** `name` is fixed in a flow from a blueprint; else `graph` finds one, starting from `word`. */
export type CaseTest =
  { readonly equals: Json } | { readonly predicate: Predicate; readonly name: string | null; readonly word: string };

interface BatchStep {
  readonly kind: "batch";
  readonly branches: readonly { readonly key: string; readonly entry: Step }[];
  readonly concurrency: number | null;
  readonly distribute: boolean;
  readonly end: Step;
}

export interface ForEachStep {
  readonly kind: "forEach";
  readonly entry: Step[];
  readonly concurrency: number | null;
  readonly distribute: boolean;
  readonly end: Step;
}

/** Turns steps into nodes: ids in the order of definition, conditions with names. What cannot be reached stays out. */
export function toGraph(
  roots: Outlet,
  steps: readonly Step[],
  chunks: ReadonlyMap<string, Chunk>,
  onFailure: FailurePolicy,
): Graph {
  return { ...new Numbering(roots, steps, chunks).graph(), onFailure };
}

class Numbering {
  readonly #roots: Outlet;
  readonly #steps: readonly Step[];
  readonly #ids = new Map<Step, NodeId>();
  readonly #chunks: ReadonlyMap<string, Chunk>;
  readonly #predicates = new Map<string, Predicate>();

  constructor(roots: Outlet, steps: readonly Step[], chunks: ReadonlyMap<string, Chunk>) {
    const reached = reachable([roots, ...steps.filter((step) => step.kind === "when")]);
    this.#roots = roots;
    this.#steps = steps.filter((step) => reached.has(step));
    this.#steps.forEach((step, index) => this.#ids.set(step, `n${index + 1}`));
    const used = new Set(this.#steps.flatMap((step) => (step.kind === "chunk" ? [step.chunk] : [])));
    this.#chunks = new Map([...chunks].filter(([name]) => used.has(name)));
  }

  graph(): Omit<Graph, "onFailure"> {
    const nodes = new Map<NodeId, Node>();
    const whenEvent = new Map<string, NodeId[]>();
    const whenState = new Map<string, NodeId[]>();
    for (const step of this.#steps) {
      const node = this.#node(step);
      nodes.set(node.id, node);
      if (node.kind !== "when") continue;
      if ("state" in node.trigger) append(whenState, node.trigger.state, node.id);
      else for (const event of node.trigger.events) append(whenEvent, event, node.id);
    }
    return {
      roots: this.#all(this.#roots.next),
      nodes,
      whenEvent,
      whenState,
      telling: this.#telling(),
      chunks: this.#chunks,
      predicates: this.#predicates,
    };
  }

  #telling(): Set<NodeId> {
    const hears = this.#steps.filter(
      (step) => step.kind === "when" && "events" in step.trigger && step.trigger.events.includes(noticeEvent),
    );
    const followed = hears.length === 0 ? new Set<Outlet>() : reachable(hears);
    return new Set(this.#steps.filter((step) => followed.has(step)).map((step) => this.#id(step)));
  }

  #node(step: Step): Node {
    const place = { id: this.#id(step), next: this.#all(step.next) };
    switch (step.kind) {
      case "chunk":
        return { ...place, kind: step.kind, chunk: step.chunk };
      case "match": {
        const end = this.#id(step.end);
        const cases = step.cases.map(({ test, entry }) => ({
          test: this.#test(test, step.label),
          entry: this.#all(entry),
        }));
        return {
          ...place,
          kind: step.kind,
          mode: step.mode,
          cases,
          otherwise: step.otherwise ? this.#all(step.otherwise) : [end],
          end,
        };
      }
      case "batch": {
        const branches = step.branches.map(({ key, entry }) => ({ key, entry: this.#id(entry) }));
        return {
          ...place,
          kind: step.kind,
          branches,
          concurrency: step.concurrency,
          distribute: step.distribute,
          end: this.#id(step.end),
        };
      }
      case "forEach": {
        const { concurrency, distribute } = step;
        return {
          ...place,
          kind: step.kind,
          entry: this.#all(step.entry),
          concurrency,
          distribute,
          end: this.#id(step.end),
        };
      }
      case "endMatch":
      case "endBatch":
      case "endForEach":
        return { ...place, kind: step.kind, of: step.of ? this.#id(step.of) : "" };
      case "when":
        return { ...place, kind: step.kind, trigger: step.trigger, mode: step.mode };
      case "subFlow": {
        const { flow, capture, writeBack, concurrency } = step;
        return { ...place, kind: step.kind, flow, capture, writeBack, concurrency };
      }
      case "interventionPoint":
        return { ...place, kind: step.kind, name: step.name, target: step.target };
      case "finalResult":
        return { ...place, kind: step.kind };
    }
  }

  #test(test: CaseTest, label: string): { predicate: string } | { equals: Json } {
    if ("equals" in test) return { equals: test.equals };
    const name = test.name ?? this.#named(test.predicate, `${label}.${test.word}`);
    this.#predicates.set(name, test.predicate);
    return { predicate: name };
  }

  /** The function's own name if nothing else has it, else one from its position. */
  #named(predicate: Predicate, position: string): string {
    const isFree = (name: string) => !this.#chunks.has(name) && (this.#predicates.get(name) ?? predicate) === predicate;
    if (/^[\w$.-]+$/.test(predicate.name) && isFree(predicate.name)) return predicate.name;
    let count = 1;
    while (!isFree(`${position}${count}`)) count++;
    return `${position}${count}`;
  }

  #id(step: Step): NodeId {
    return this.#ids.get(step) ?? "";
  }

  #all(steps: readonly Step[]): NodeId[] {
    return steps.map((step) => this.#id(step));
  }
}

function reachable(from: readonly Outlet[]): Set<Outlet> {
  const reached = new Set<Outlet>();
  const open = [...from];
  for (let outlet = open.pop(); outlet !== undefined; outlet = open.pop()) {
    if (reached.has(outlet)) continue;
    reached.add(outlet);
    open.push(...outlet.next);
    if ("kind" in outlet) open.push(...inside(outlet as Step));
  }
  return reached;
}

function inside(step: Step): Step[] {
  switch (step.kind) {
    case "match":
      return [...step.cases.flatMap(({ entry }) => entry), ...(step.otherwise ?? []), step.end];
    case "batch":
      return [...step.branches.map(({ entry }) => entry), step.end];
    case "forEach":
      return [...step.entry, step.end];
    default:
      return [];
  }
}

/** Two steps that do the same, wherever they lead. Blocks are compared by `sameBlock`, when they are closed. */
export function sameStep(a: Step, b: Step): boolean {
  if (a.kind !== b.kind || "end" in a) return false;
  const { next: _a, label: _la, ...left } = a;
  const { next: _b, label: _lb, ...right } = b;
  return isDeepStrictEqual(left, right);
}

/** A batch of the same chunks under the same keys, and run in the same way. */
export function isBatchOf(
  step: Step,
  chunks: readonly { readonly key: string; readonly chunk: string }[],
  { concurrency, distribute }: Pick<BatchStep, "concurrency" | "distribute">,
): step is Outlet & BatchStep {
  if (step.kind !== "batch" || step.concurrency !== concurrency || step.distribute !== distribute) return false;
  const own = step.branches.map(({ key, entry }) => ({ key, chunk: entry.kind === "chunk" && entry.chunk }));
  return isDeepStrictEqual(own, chunks);
}

/** Two closed blocks with the same bodies, whatever follows them. */
export function sameBlock(a: Step, b: Step): boolean {
  if (a.kind === "forEach" && b.kind === "forEach")
    return a.concurrency === b.concurrency && a.distribute === b.distribute && sameChains(a.entry, b.entry);
  if (a.kind === "batch" && b.kind === "batch")
    return (
      a.concurrency === b.concurrency &&
      a.distribute === b.distribute &&
      isDeepStrictEqual(
        a.branches.map(({ key }) => key),
        b.branches.map(({ key }) => key),
      ) &&
      sameChains(
        a.branches.map(({ entry }) => entry),
        b.branches.map(({ entry }) => entry),
      )
    );
  if (a.kind !== "match" || b.kind !== "match") return false;
  return (
    a.mode === b.mode &&
    a.cases.length === b.cases.length &&
    a.cases.every(({ test, entry }, index) => {
      const other = b.cases[index];
      return other !== undefined && isDeepStrictEqual(test, other.test) && sameChains(entry, other.entry);
    }) &&
    (a.otherwise === null) === (b.otherwise === null) &&
    sameChains(a.otherwise ?? [], b.otherwise ?? [])
  );
}

function sameChains(a: readonly Step[], b: readonly Step[]): boolean {
  return (
    a.length === b.length &&
    a.every((step, index) => {
      const other = b[index];
      if (other === undefined) return false;
      // An end met inside a body is the end of that body's block.
      if ("of" in step) return step.kind === other.kind;
      if ("end" in step && "end" in other) return sameBlock(step, other) && sameChains(step.end.next, other.end.next);
      return sameStep(step, other) && sameChains(step.next, other.next);
    })
  );
}

/** Wires one restored step to the others by the ids of its node. */
export function link(node: Node, steps: ReadonlyMap<NodeId, Step>, predicate: (name: string) => Predicate): void {
  const step = steps.get(node.id);
  if (step === undefined) return;
  step.next.push(...resolved(node.next, steps));
  if ("end" in node) Object.assign(step, { end: steps.get(node.end) });
  if (node.kind === "match" && step.kind === "match") {
    step.otherwise = resolved(node.otherwise, steps);
    for (const { test, entry } of node.cases)
      step.cases.push({
        test: "equals" in test ? test : { predicate: predicate(test.predicate), name: test.predicate, word: "case" },
        entry: resolved(entry, steps),
      });
  } else if (node.kind === "batch")
    Object.assign(step, { branches: node.branches.map(({ key, entry }) => ({ key, entry: steps.get(entry) })) });
  else if (node.kind === "forEach" && step.kind === "forEach") step.entry.push(...resolved(node.entry, steps));
  else if ("of" in node && "of" in step) step.of = steps.get(node.of) ?? null;
}

export function resolved(ids: readonly NodeId[], steps: ReadonlyMap<NodeId, Step>): Step[] {
  return ids.flatMap((id) => steps.get(id) ?? []);
}

function append(map: Map<string, NodeId[]>, key: string, id: NodeId): void {
  const list = map.get(key);
  if (list) list.push(id);
  else map.set(key, [id]);
}

/** The step of a node with nothing attached: `link` does that, once every step is there. */
export function shellOf(node: Node): Step {
  const empty = { next: [] as Step[], label: node.id };
  const end: Step = { ...empty, kind: "endMatch", of: null };
  switch (node.kind) {
    case "chunk":
      return { ...empty, kind: node.kind, chunk: node.chunk, label: node.chunk };
    case "match":
      return { ...empty, kind: node.kind, mode: node.mode, cases: [], otherwise: [], end };
    case "batch": {
      const { kind, concurrency, distribute } = node;
      return { ...empty, kind, branches: [], concurrency, distribute, end };
    }
    case "forEach": {
      const { kind, concurrency, distribute } = node;
      return { ...empty, kind, entry: [], concurrency, distribute, end };
    }
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
      return { ...empty, kind: node.kind, name: node.name, target: node.target, label: node.name };
    case "finalResult":
      return { ...empty, kind: node.kind };
  }
}

export function heardLabel(trigger: WhenNode["trigger"]): string {
  return "state" in trigger ? trigger.state : trigger.events.join("+");
}
