/** A graph as JSON and back, its fingerprint, and its picture. */
import { createHash } from "node:crypto";
import { z } from "zod";
import { DefinitionError } from "../base/errors.ts";
import { canonical, isObject, plain, toJson, type Json, type JsonObject } from "../base/json.ts";
import { schemaProblem } from "../base/json-schema.ts";
import type { FlowDefinition } from "./definition.ts";
import { inputSchema } from "./input-schema.ts";
import type { Graph, MatchCase, Node, NodeId } from "./graph.ts";

export const blueprintVersion = "flowledger/v1";

const ids = z.array(z.string());
const bindings = z.record(z.string(), z.string()).nullable();
const limit = z.int().positive().nullable();
const place = { id: z.string().min(1), next: ids };

const BlueprintNode = z.discriminatedUnion("kind", [
  z.strictObject({ ...place, kind: z.literal("chunk"), chunk: z.string() }),
  z.strictObject({
    ...place,
    kind: z.literal("match"),
    mode: z.enum(["first", "all"]),
    cases: z.array(
      z.strictObject({
        test: z.union([z.strictObject({ predicate: z.string() }), z.strictObject({ equals: z.json() })]),
        entry: ids,
      }),
    ),
    otherwise: ids,
    end: z.string(),
  }),
  z.strictObject({
    ...place,
    kind: z.literal("batch"),
    branches: z.array(z.strictObject({ key: z.string(), entry: z.string() })),
    concurrency: limit,
    distribute: z.boolean(),
    end: z.string(),
  }),
  z.strictObject({
    ...place,
    kind: z.literal("forEach"),
    entry: ids,
    concurrency: limit,
    distribute: z.boolean(),
    end: z.string(),
  }),
  z.strictObject({ ...place, kind: z.enum(["endMatch", "endBatch", "endForEach"]), of: z.string() }),
  z.strictObject({
    ...place,
    kind: z.literal("when"),
    trigger: z.union([
      z.strictObject({ events: z.array(z.string().min(1)).min(1) }),
      z.strictObject({ state: z.string() }),
    ]),
    mode: z.enum(["and", "or"]),
  }),
  z.strictObject({
    ...place,
    kind: z.literal("subFlow"),
    flow: z.string(),
    capture: bindings,
    writeBack: bindings,
    concurrency: limit,
  }),
  z.strictObject({
    ...place,
    kind: z.literal("interventionPoint"),
    name: z.string().min(1),
    target: z.string().nullable(),
  }),
  z.strictObject({ ...place, kind: z.literal("finalResult") }),
]);

/** A flow without its functions: they come back by name. */
export const Blueprint = z.strictObject({
  version: z.literal(blueprintVersion),
  name: z.string(),
  /** JSON Schema of each contract part, to read. Enforced is `input` alone, where a start comes by SQL. */
  contract: z.json(),
  roots: ids,
  nodes: z.array(BlueprintNode),
  chunks: z.array(
    z.strictObject({
      name: z.string(),
      retry: z.strictObject({
        maxAttempts: z.int().positive(),
        initialIntervalMs: z.number().nonnegative(),
        multiplier: z.number(),
        maxIntervalMs: z.number().nonnegative(),
        waitsMs: z.array(z.number().nonnegative()).min(1).optional(),
        jitter: z.boolean(),
      }),
      timeoutMs: z.number().positive().nullable(),
      /** Its `onCancel` is among the handlers under "<chunk>.onCancel". */
      onCancel: z.literal(true).optional(),
      /** Absent where it leaves that to its flow. */
      onFailure: z.strictObject({ parks: z.boolean(), afterMs: z.number().positive().nullable() }).optional(),
    }),
  ),
  /** JSON Schema of what chunks return, by name, to read; absent where none says. */
  outputs: z.record(z.string(), z.json()).optional(),
  predicates: z.array(z.string()),
  /** The flow's own `onCancel` is among the handlers under "onCancel". */
  onCancel: z.literal(true).optional(),
  subFlows: z.array(z.string()),
  requirements: z.array(z.strictObject({ name: z.string(), failPolicy: z.enum(["closed", "open"]) })),
});
export type Blueprint = z.infer<typeof Blueprint>;

/** The flow as JSON. Functions (`retryIf`, resolvers too) and zod schemas stay behind. */
export function toBlueprint(flow: FlowDefinition): Blueprint {
  const { graph } = flow;
  return structuredClone({
    version: blueprintVersion,
    name: flow.name,
    contract: contractSchemas(flow) ?? flow.contractSchemas,
    roots: [...graph.roots],
    nodes: [...graph.nodes.values()] as Blueprint["nodes"],
    chunks: [...graph.chunks.values()].map(({ name, options }) => {
      const { retryIf: _retryIf, waitsMs, ...retry } = options.retry;
      return {
        name,
        retry: { ...retry, ...(waitsMs && { waitsMs: [...waitsMs] }) },
        timeoutMs: options.timeoutMs,
        ...(options.onCancel && { onCancel: true as const }),
        ...(options.onFailure && { onFailure: { ...options.onFailure } }),
      };
    }),
    ...outputsOf(flow),
    predicates: [...graph.predicates.keys()],
    ...(graph.onCancel && { onCancel: true as const }),
    subFlows: [...flow.subFlows.keys()],
    requirements: flow.requirements.map(({ name, failPolicy }) => ({ name, failPolicy })),
  });
}

const maxBlueprintBytes = 4_194_304;

/** @throws {PayloadError | DefinitionError} for JSON that is too large, too deep or no blueprint, or whose parts name parts that are not there */
export function readBlueprint(json: unknown): Blueprint {
  const result = Blueprint.safeParse(toJson(json, "the blueprint", maxBlueprintBytes));
  if (!result.success) {
    const [issue] = result.error.issues;
    throw invalid(
      json,
      `${issue?.path.length ? `${issue.path.join(".")}: ` : ""}${issue?.message ?? "it is not valid"}`,
    );
  }
  const blueprint = result.data;
  for (const [where, schema] of schemasOf(blueprint)) {
    const problem = schemaProblem(schema);
    if (problem !== null) throw invalid(json, `${where} ${problem}`);
  }
  const nodes = new Map(blueprint.nodes.map((node) => [node.id, node]));
  if (nodes.size < blueprint.nodes.length) throw invalid(json, "two nodes have the same id");
  const chunks = new Set(blueprint.chunks.map(({ name }) => name));
  const predicates = new Set(blueprint.predicates);
  for (const id of blueprint.roots) if (!nodes.has(id)) throw invalid(json, `roots name the missing node "${id}"`);
  for (const node of blueprint.nodes) {
    const missing = neighbours(node).find((id) => !nodes.has(id));
    if (missing !== undefined) throw invalid(json, `node "${node.id}" leads to the missing node "${missing}"`);
    if (node.next.includes(node.id)) throw invalid(json, `node "${node.id}" leads to itself`);
    const doubled = node.next.find((id, index) => node.next.indexOf(id) < index);
    if (doubled !== undefined) throw invalid(json, `node "${node.id}" leads to node "${doubled}" twice`);
    if ("end" in node && nodes.get(node.end)?.kind !== ends[node.kind])
      throw invalid(json, `node "${node.id}" has no ${ends[node.kind]}`);
    if (node.kind === "chunk" && !chunks.has(node.chunk))
      throw invalid(json, `node "${node.id}" runs the missing chunk "${node.chunk}"`);
    if (node.kind === "subFlow" && !blueprint.subFlows.includes(node.flow))
      throw invalid(json, `node "${node.id}" runs the missing sub-flow "${node.flow}"`);
    if (node.kind !== "match") continue;
    for (const { test } of node.cases)
      if ("predicate" in test && !predicates.has(test.predicate))
        throw invalid(json, `node "${node.id}" asks the missing condition "${test.predicate}"`);
  }
  return blueprint;
}

/** Those that somebody may check a value by, each with where it stands. */
function schemasOf({ contract, outputs = {} }: Blueprint): [string, Json][] {
  const parts = isObject(contract) ? Object.entries(contract) : [];
  return [
    ...parts.filter(([name]) => name !== "events").map(([name, part]): [string, Json] => [`contract.${name}`, part]),
    ...parts
      .flatMap(([name, part]) => (name === "events" && isObject(part) ? Object.entries(part) : []))
      .map(([name, part]): [string, Json] => [`contract.events.${name}`, part]),
    ...Object.entries(outputs).map(([name, part]): [string, Json] => [`outputs.${name}`, part]),
  ];
}

const ends = { match: "endMatch", batch: "endBatch", forEach: "endForEach" };

function invalid(json: unknown, problem: string): DefinitionError {
  const named = typeof json === "object" && json !== null && "name" in json ? String(json.name) : "?";
  return new DefinitionError(
    named,
    `the blueprint is not valid (${problem})`,
    "use what toBlueprint() gave, unchanged",
  );
}

function neighbours(node: Node): NodeId[] {
  const all = [...node.next, ...entriesOf(node).map(({ to }) => to)];
  if ("end" in node) all.push(node.end);
  if ("of" in node) all.push(node.of);
  return all;
}

/** @throws {DefinitionError} for a part that leads to itself: no value could be checked by it */
function schema(flow: string, where: string, part: z.ZodType, of: (part: z.ZodType) => object = read): JsonObject {
  const made = plain(of(part));
  const problem = schemaProblem(made);
  if (problem === null) return made;
  throw new DefinitionError(flow, `${where} ${problem}`, "let it lead through a property or an item");
}

function read(part: z.ZodType): object {
  return z.toJSONSchema(part, { io: "input", unrepresentable: "any" });
}

function outputsOf({ name: flow, graph }: FlowDefinition): Pick<Blueprint, "outputs"> {
  const outputs: Record<string, Json> = {};
  for (const { name, options } of graph.chunks.values())
    if (options.output) outputs[name] = schema(flow, `the output of chunk "${name}"`, options.output);
  return Object.keys(outputs).length === 0 ? {} : { outputs };
}

function contractSchemas({ name: flow, contract }: FlowDefinition): Json {
  const { input, state, events, stream } = contract;
  const part = (what: string, type: z.ZodType) => schema(flow, `contract ${what}`, type);
  const ofEvents = Object.entries(events ?? {}).map(([name, type]) => [name, part(`event "${name}"`, type)]);
  if (!input && !state && !events && !stream) return null;
  return plain({
    ...(input && { input: schema(flow, 'contract part "input"', input, inputSchema) }),
    ...(state && { state: part('part "state"', state) }),
    ...(events && { events: Object.fromEntries(ofEvents) }),
    ...(stream && { stream: part('part "stream"', stream) }),
  });
}

/** SHA-256 of what makes two graphs behave alike: nodes, names, edges, modes and limits, but no code and no retry options. */
export function fingerprintOf(flow: string, graph: Graph): string {
  const structure = canonical({ flow, roots: graph.roots, nodes: [...graph.nodes.values()] });
  return createHash("sha256").update(structure).digest("hex");
}

/** The graph as a Mermaid flowchart: a box per chunk, a group per block, a nested group per sub-flow. */
export function toMermaid(flow: FlowDefinition): string {
  return ["flowchart TD", ...draw(flow, "").map((line) => `  ${line}`), ""].join("\n");
}

function draw(flow: FlowDefinition, prefix: string): string[] {
  const { graph } = flow;
  const starts = [...graph.nodes.values()].filter((node) => node.kind === "when").map(({ id }) => id);
  const picture: Picture = { flow, prefix };
  const lines = graph.roots.length ? [`${prefix}start(["${escape(`start ${flow.name}`)}"])`] : [];
  lines.push(...body(graph, [...graph.roots, ...starts], null).flatMap((node) => shape(node, picture)));
  for (const root of graph.roots) lines.push(`${prefix}start --> ${nameOf(root, picture)}`);
  for (const node of graph.nodes.values()) lines.push(...arrows(node, picture));
  return lines;
}

interface Picture {
  readonly flow: FlowDefinition;
  readonly prefix: string;
}

/** The nodes from here to `end`, without what inner blocks hold. */
function body(graph: Graph, from: readonly NodeId[], end: NodeId | null): Node[] {
  const found = new Map<NodeId, Node>();
  const visit = (id: NodeId): void => {
    const node = graph.nodes.get(id);
    if (node === undefined || id === end || found.has(id)) return;
    found.set(id, node);
    const exit = "end" in node ? graph.nodes.get(node.end) : node;
    exit?.next.forEach(visit);
  };
  from.forEach(visit);
  return [...found.values()];
}

function shape(node: Node, picture: Picture): string[] {
  const name = nameOf(node.id, picture);
  switch (node.kind) {
    case "chunk":
      return [`${name}["${escape(node.chunk)}"]`];
    case "match": {
      const [only] = node.cases;
      const asks =
        node.cases.length === 1 && only ? `${caseLabel(only)}?` : node.mode === "all" ? "match all" : "match";
      return group(node, "match", `${name}{"${escape(asks)}"}`, picture);
    }
    case "batch":
      return group(node, "batch", `${name}[["batch${limitLabel(node.concurrency)}"]]`, picture);
    case "forEach":
      return group(node, "forEach", `${name}[["forEach${limitLabel(node.concurrency)}"]]`, picture);
    case "endMatch":
    case "endBatch":
    case "endForEach":
      return [`${name}((" "))`];
    case "when": {
      const heard =
        "state" in node.trigger ? `state ${node.trigger.state}` : node.trigger.events.join(` ${node.mode} `);
      return [`${name}>"${escape(`when ${heard}`)}"]`];
    }
    case "subFlow": {
      const child = picture.flow.subFlows.get(node.flow);
      const inner = child ? draw(child, `${picture.prefix}${node.id}_`) : [];
      return [`subgraph ${name}["${escape(`sub-flow ${node.flow}`)}"]`, ...inner.map((line) => `  ${line}`), "end"];
    }
    case "interventionPoint": {
      const target = node.target === null ? "" : ` for ${node.target}`;
      return [`${name}[/"${escape(`intervention point ${node.name}${target}`)}"/]`];
    }
    case "finalResult":
      return [`${name}(["$final_result"])`];
  }
}

function group(node: Extract<Node, { end: NodeId }>, title: string, opener: string, picture: Picture): string[] {
  const { graph } = picture.flow;
  const entries = entriesOf(node).map(({ to }) => to);
  const end = graph.nodes.get(node.end);
  const held = [
    opener,
    ...body(graph, entries, node.end).flatMap((inner) => shape(inner, picture)),
    ...(end ? shape(end, picture) : []),
  ];
  return [`subgraph group_${picture.prefix}${node.id}["${title}"]`, ...held.map((line) => `  ${line}`), "end"];
}

function arrows(node: Node, picture: Picture): string[] {
  const from = nameOf(node.id, picture);
  const inner = entriesOf(node).map(({ label, to }) => `${from} -->|"${escape(label)}"| ${nameOf(to, picture)}`);
  return [...inner, ...node.next.map((to) => `${from} --> ${nameOf(to, picture)}`)];
}

/** How a value gets from a block's first node into its bodies. */
export function entriesOf(node: Node): { readonly label: string; readonly to: NodeId }[] {
  switch (node.kind) {
    case "match":
      return [
        ...node.cases.flatMap((item) =>
          item.entry.map((to) => ({ label: node.cases.length === 1 ? "yes" : caseLabel(item), to })),
        ),
        ...node.otherwise.map((to) => ({ label: "else", to })),
      ];
    case "batch":
      return node.branches.map(({ key, entry }) => ({ label: key, to: entry }));
    case "forEach":
      return node.entry.map((to) => ({ label: "each", to }));
    default:
      return [];
  }
}

export function caseLabel({ test }: MatchCase): string {
  return "predicate" in test ? test.predicate : JSON.stringify(test.equals);
}

function limitLabel(concurrency: number | null): string {
  return concurrency === null ? "" : `, ${concurrency} at once`;
}

function nameOf(id: NodeId, { flow, prefix }: Picture): string {
  return `${flow.graph.nodes.get(id)?.kind === "subFlow" ? "subflow_" : ""}${prefix}${id}`;
}

/** Mermaid reads `#34;` as the character with that code, and everything else that could end a label is written so. */
function escape(label: string): string {
  return label.replace(/[^\p{L}\p{N} .,:_+?$()=/-]/gu, (character) => `#${character.codePointAt(0)};`);
}
