/** A flow as JSON and back, its fingerprint, and its picture. */
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow, Flow } from "../../src/flow/builder.ts";
import type { ChunkHandler } from "../../src/flow/context.ts";
import type { Contract } from "../../src/flow/contract.ts";

const pass: ChunkHandler<Contract, unknown> = (ctx) => ctx.input;
const isHigh = () => true;
const handlers = { a: pass, b: pass, c: pass, d: pass, e: pass, f: pass, g: pass, isHigh, "a.case1": isHigh };

test("TF-CON-03: a blueprint and its handlers give the same flow, in every form it has", () => {
  const { flow, child } = everything();
  const json: unknown = JSON.parse(JSON.stringify(flow.toBlueprint()));

  const copy = Flow.fromBlueprint(json, handlers, { subFlows: [child] });

  expect([...copy.graph.nodes]).toEqual([...flow.graph.nodes]);
  expect(copy.graph.roots).toEqual(flow.graph.roots);
  expect(copy.graph.whenEvent).toEqual(flow.graph.whenEvent);
  expect([...copy.graph.predicates.keys()]).toEqual([...flow.graph.predicates.keys()]);
  expect(copy.graph.chunks.get("b")?.options).toEqual(flow.graph.chunks.get("b")?.options);
  expect(copy.interventionPoints).toEqual(flow.interventionPoints);
  expect(copy.requirements).toEqual(flow.requirements);
  expect(copy.fingerprint).toBe(flow.fingerprint);
  expect(copy.toBlueprint()).toEqual(json);
});

test.each([{ waits: ["1s", "1m"] }, { waits: [5], jitter: true }, { maxAttempts: 4, multiplier: 3, jitter: false }])(
  "TF-CON-03: a chunk is tried again as before: %j",
  (retry) => {
    const flow = defineFlow("f");
    flow.to("a", pass, { retry });

    const copy = Flow.fromBlueprint(JSON.parse(JSON.stringify(flow.toBlueprint())), handlers);

    expect(copy.graph.chunks.get("a")?.options).toEqual(flow.graph.chunks.get("a")?.options);
  },
);

test("TF-CON-03, TF-CON-04: a flow from a blueprint can be defined further, the same again changes nothing, a conflict is refused", () => {
  const flow = defineFlow("f");
  flow.to("a", pass);

  const copy = Flow.fromBlueprint(flow.toBlueprint(), handlers);
  copy.to("a", pass);
  expect(copy.fingerprint).toBe(flow.fingerprint);
  expect(() => copy.to("a", () => 2)).toThrow(/two different handlers/);
  copy.to("a", pass).to("b", pass);

  expect([...copy.graph.nodes.values()]).toMatchObject([{ chunk: "a", next: ["n2"] }, { chunk: "b" }]);
});

test("TF-CON-03: a missing handler, condition or sub-flow is named", () => {
  const { flow, child } = everything();
  const json = flow.toBlueprint();
  const { b: _b, ...withoutB } = handlers;
  const { isHigh: _isHigh, ...withoutCondition } = handlers;

  expect(() => Flow.fromBlueprint(json, withoutB, { subFlows: [child] })).toThrow(/handler of chunk "b" is missing/);
  expect(() => Flow.fromBlueprint(json, withoutCondition, { subFlows: [child] })).toThrow(
    /handler of condition "isHigh" is missing/,
  );
  expect(() => Flow.fromBlueprint(json, handlers)).toThrow(/sub-flow "child" of the blueprint is missing/);
});

test.each<[string, (json: ReturnType<Flow["toBlueprint"]>) => unknown, RegExp]>([
  ["another version", (json) => ({ ...json, version: "flowledger/v9" }), /version: Invalid/],
  ["no object", () => "text", /flow "\?": the blueprint is not valid/],
  ["an unknown kind", (json) => ({ ...json, nodes: [{ id: "n1", next: [], kind: "loop" }] }), /nodes.0.kind/],
  ["a missing root", (json) => ({ ...json, roots: ["n9"] }), /roots name the missing node "n9"/],
  [
    "a node that leads to itself",
    (json) => ({ ...json, nodes: [{ id: "n1", kind: "chunk", chunk: "a", next: ["n1"] }] }),
    /node "n1" leads to itself/,
  ],
  [
    "a doubled edge",
    (json) => ({
      ...json,
      nodes: [
        { id: "n1", kind: "chunk", chunk: "a", next: ["n2", "n2"] },
        { id: "n2", kind: "chunk", chunk: "a", next: [] },
      ],
    }),
    /node "n1" leads to node "n2" twice/,
  ],
  [
    "a dangling edge",
    (json) => ({ ...json, nodes: [{ id: "n1", kind: "chunk", chunk: "a", next: ["n7"] }] }),
    /leads to the missing node "n7"/,
  ],
  ["a missing chunk", (json) => ({ ...json, chunks: [] }), /runs the missing chunk "a"/],
])("TF-CON-03: a blueprint with %s is refused", (_name, change, message) => {
  const flow = defineFlow("f");
  flow.to("a", pass);

  expect(() => Flow.fromBlueprint(change(flow.toBlueprint()), handlers)).toThrow(message);
});

test("TF-CON-02: anonymous functions do not stand in the way: chunks and conditions have names", () => {
  const flow = defineFlow("f");
  flow
    .to("a", () => 1)
    .ifCondition(() => true)
    .endCondition();

  expect(flow.toBlueprint()).toMatchObject({ version: "flowledger/v1", predicates: ["a.if1"] });
});

test("TF-CON-05: the contract travels as JSON Schema and is enforced only when given again", () => {
  const contract = { input: z.object({ ticket: z.string() }), events: { Done: z.number() } };
  const flow = defineFlow("f", contract);
  flow.to("a", pass as never);
  const json = flow.toBlueprint();

  const copy = Flow.fromBlueprint(json, handlers);

  expect(json.contract).toMatchObject({
    input: { type: "object", required: ["ticket"] },
    events: { Done: { type: "number" } },
  });
  expect(copy.contract).toEqual({});
  expect(copy.contractSchemas).toEqual(json.contract);
  expect(copy.toBlueprint().contract).toEqual(json.contract);
  expect(Flow.fromBlueprint(json, handlers, { contract }).contract).toBe(contract);
});

test("the fingerprint follows the structure, and neither code nor retry options", () => {
  const make = (wire: (flow: Flow) => unknown) => {
    const flow = defineFlow("f");
    wire(flow);
    return flow.fingerprint;
  };
  const base = make((flow) => flow.to("a", pass).forEach().to("b", pass).endForEach());

  expect(base).toMatch(/^[0-9a-f]{64}$/);
  expect(
    make((flow) =>
      flow
        .to("a", () => 2, { retry: { maxAttempts: 9 }, timeout: "1s" })
        .forEach()
        .to("b", pass)
        .endForEach(),
    ),
  ).toBe(base);
  expect(make((flow) => flow.to("a", pass).forEach({ concurrency: 2 }).to("b", pass).endForEach())).not.toBe(base);
  expect(make((flow) => flow.to("a", pass).forEach().to("c", pass).endForEach())).not.toBe(base);
  expect(make((flow) => flow.to("a", pass).to("b", pass))).not.toBe(base);
});

test("TF-CON-06: the picture has a group per block, a box per sub-flow and every edge", () => {
  const { flow } = everything();

  const picture = flow.toMermaid();

  expect(picture).toMatch(/^flowchart TD\n/);
  expect(picture.match(/subgraph \w+/g)).toEqual([
    "subgraph group_n2",
    "subgraph group_n5",
    "subgraph group_n9",
    "subgraph subflow_n12",
  ]);
  expect(picture).toContain(`n17>"when A and B"]`);
  expect(picture).toContain("subflow_n12 --> n13");
  expect(picture).toContain(`n12_n1["x"]`);
  expect(picture.match(/^ *subgraph /gm)?.length).toBe(picture.match(/^ *end$/gm)?.length);
});

test("TF-CON-06: a label cannot break out of its box", () => {
  const flow = defineFlow("f");
  flow.to(`a"] --> evil["<script>`, pass);

  const picture = flow.toMermaid();

  expect(picture).toContain(`n1["a#34;#93; --#62; evil#91;#34;#60;script#62;"]`);
});

function everything() {
  const child = defineFlow("child");
  child.to("x", pass);
  const flow = defineFlow("f");
  flow
    .declareResourceRequirement("db", { failPolicy: "open" })
    .to("a", pass)
    .match({ mode: "all" })
    .case({ kind: 1 })
    .to("b", pass, { retry: { maxAttempts: 3 }, timeout: "1m" })
    .case(isHigh)
    .case((ctx) => ctx.input === 1)
    .endMatch()
    .batch({ c: pass, d: pass }, { concurrency: 2 })
    .forEach({ distribute: true })
    .to("e", pass)
    .endForEach()
    .toSubFlow(child, { capture: { input: "value" }, writeBack: { "state.r": "result" }, concurrency: 4 })
    .interventionPoint({ name: "p", target: "t" })
    .end();
  flow.to("f", pass);
  flow.when({ state: "k" });
  flow.when(["A", "B"]).to("g", pass);
  return { flow, child };
}
