/** What a flow refuses, what it makes of a chain, and what a second evaluation changes. */
import { expect, test } from "vitest";
import { z } from "zod";
import { DefinitionError } from "../../src/base/errors.ts";
import { defineFlow } from "../../src/flow/builder.ts";
import type { ChunkHandler, RetryOptions } from "../../src/flow/context.ts";
import type { Contract } from "../../src/flow/contract.ts";
import type { FlowDefinition } from "../../src/flow/definition.ts";
import type { ParkOptions } from "../../src/flow/failure.ts";
import type { FlowOptions } from "../../src/flow/limits.ts";

const pass: ChunkHandler<Contract, unknown> = (ctx) => ctx.input;
const other: ChunkHandler<Contract, unknown> = () => null;
const yes = () => true;

test("TF-PAT-01: a chain runs from root to root's next, in the order it is written", () => {
  const flow = defineFlow("f");

  flow.to("a", pass).to("b", other);

  expect(drawn(flow)).toEqual(["start > a", "a > b"]);
  expect(flow.graph.chunks.get("b")?.handler).toBe(other);
});

test("several roots and a place used twice fan out", () => {
  const flow = defineFlow("f");

  const a = flow.to("a", pass);
  a.to("b", pass);
  a.to("c", pass);
  flow.to("d", pass);

  expect(drawn(flow)).toEqual(["start > a", "start > d", "a > b", "a > c"]);
});

test("TF-EVT-05: the same named wiring executed twice makes each edge once", () => {
  const flow = defineFlow("f");
  const child = defineFlow("child");
  child.to("x", pass);
  const isBig = () => true;
  const wire = () => {
    flow
      .to("a", pass)
      .batch({ b: pass, c: pass })
      .to("d", pass)
      .toSubFlow(child)
      .interventionPoint({ name: "p" })
      .end();
    flow.to("a", pass).forEach().ifCondition(isBig).to("e", pass).endCondition().endForEach().to("g", pass);
    flow.when(["A", "B"]).to("h", pass);
  };
  wire();
  const { graph, fingerprint } = flow;

  wire();

  expect([...flow.graph.nodes]).toEqual([...graph.nodes]);
  expect(flow.fingerprint).toBe(fingerprint);
});

test("TF-EVT-05: an anonymous condition written again is another block", () => {
  const flow = defineFlow("f");
  const wire = () =>
    flow
      .to("a", pass)
      .ifCondition(() => true)
      .to("b", pass)
      .endCondition();

  wire();
  wire();

  expect([...flow.graph.predicates.keys()]).toEqual(["a.if1", "a.if2"]);
});

test("TF-EVT-05: a graph in use does not change with its flow", () => {
  const flow = defineFlow("f");
  flow.to("a", pass);
  const before = flow.graph;

  flow.to("a", pass).to("b", pass);

  expect(before.nodes.size).toBe(1);
  expect(flow.graph.nodes.size).toBe(2);
  expect(flow.graph).toBe(flow.graph);
});

test("an onCancel that is given after the graph was read is in it as well", () => {
  const flow = defineFlow("f");
  flow.to("a", pass);
  expect(flow.graph.onCancel).toBeUndefined();

  flow.onCancel(pass);

  expect(flow.graph.onCancel).toBe(pass);
});

test("a chunk name stands for one handler with one set of options", () => {
  const flow = defineFlow("f");
  flow.to("a", pass);

  expect(() => flow.to("a", other)).toThrow(
    `flow "f": chunk "a" has two different handlers: give the second one a name of its own`,
  );
  expect(() => flow.to("a", pass, { timeout: "1s" })).toThrow(/different options/);
  expect(() => flow.batch({ a: other })).toThrow(/two different handlers/);
});

test("a named function names its chunk, and an anonymous one is refused", () => {
  const flow = defineFlow("f");
  flow.to(function score() {
    return 1;
  });

  expect([...flow.graph.chunks.keys()]).toEqual(["score"]);
  expect(() => flow.to(() => 1)).toThrow(/anonymous function cannot be a chunk: give it a name/);
});

test("TF-PAT-10: a match has its cases in order, and each way ends where the match ends", () => {
  const flow = defineFlow("f");

  flow.to("a", pass).match().case("x").to("b", pass).case(yes).caseElse().to("c", pass).endMatch().to("d", pass);

  const [, match, end] = [...flow.graph.nodes.values()];
  expect(match).toMatchObject({
    kind: "match",
    mode: "first",
    cases: [
      { test: { equals: "x" }, entry: ["n4"] },
      { test: { predicate: "yes" }, entry: [end?.id] },
    ],
    otherwise: ["n5"],
    end: end?.id,
    next: [],
  });
  expect(drawn(flow)).toContain("endMatch > d");
  expect(flow.graph.predicates.get("yes")).toBe(yes);
});

test("TF-PAT-12: without an else the value goes straight to the end", () => {
  const flow = defineFlow("f");

  flow.ifCondition(yes).to("a", pass).endCondition();

  expect(flow.graph.nodes.get("n1")).toMatchObject({ otherwise: ["n2"], end: "n2" });
});

test("TF-PAT-14: a condition is a match, and its conditions are named by their place", () => {
  const flow = defineFlow("f");

  flow
    .to("score", pass)
    .ifCondition(() => true)
    .to("a", pass)
    .elifCondition(() => false)
    .elifCondition(yes)
    .elseCondition()
    .endCondition()
    .ifCondition(() => true)
    .endCondition();

  expect([...flow.graph.predicates.keys()]).toEqual(["score.if1", "score.elif1", "yes", "score.if2"]);
});

test.each<[string, (flow: ReturnType<typeof defineFlow>) => unknown, RegExp]>([
  ["case outside match", (flow) => flow.case(1), /case\(\) stands outside match\(\): begin with match\(\)/],
  ["caseElse before a case", (flow) => flow.match().caseElse(), /comes before any case/],
  ["a second else", (flow) => flow.ifCondition(yes).elseCondition().elseCondition(), /comes after the else/],
  ["elif after else", (flow) => flow.ifCondition(yes).elseCondition().elifCondition(yes), /comes after the else/],
  ["endForEach without forEach", (flow) => flow.endForEach(), /stands outside forEach\(\)/],
  [
    "endMatch inside an if",
    (flow) => flow.to("a", pass).ifCondition(yes).endMatch(),
    /stands inside ifCondition\(\) after "a"/,
  ],
  ["a match without a case", (flow) => flow.match().endMatch(), /has no case/],
  ["a step before the first case", (flow) => flow.match().to("a", pass), /between match\(\) and its first case/],
  ["a case that is no JSON", (flow) => flow.match().case(new Date() as never), /a Date is not plain data/],
  ["a second end", (flow) => twice(flow.forEach().to("a", pass)), /comes after forEach\(\) was closed/],
])("TF-PAT-14: %s is refused", (_name, wire, message) => {
  expect(() => wire(defineFlow("f"))).toThrow(DefinitionError);
  expect(() => wire(defineFlow("f"))).toThrow(message);
});

test("TF-PAT-14: an open block is refused when the graph is used", () => {
  const flow = defineFlow("f");
  const open = flow.to("a", pass).ifCondition(yes).to("b", pass);

  expect(() => flow.graph).toThrow(`flow "f": ifCondition() after "a" is never closed: add endCondition()`);
  open.endCondition();
  expect(flow.graph.nodes.size).toBe(4);
});

test("TF-PAT-02: a batch has its branches in the order of definition", () => {
  const flow = defineFlow("f");

  flow.batch({ b: pass, a: flow.chunk("other", other) }, { concurrency: 2 }).to("c", pass);

  expect(flow.graph.nodes.get("n1")).toMatchObject({
    kind: "batch",
    branches: [
      { key: "b", entry: "n2" },
      { key: "a", entry: "n3" },
    ],
    concurrency: 2,
    distribute: false,
    end: "n4",
  });
  expect(drawn(flow)).toEqual(["start > batch", "b > endBatch", "other > endBatch", "endBatch > c"]);
});

test("TF-PAT-05: a forEach runs its body between entry and end", () => {
  const flow = defineFlow("f");

  flow.forEach({ concurrency: 3, distribute: true }).to("a", pass).endForEach().to("b", pass);

  expect(flow.graph.nodes.get("n1")).toMatchObject({
    kind: "forEach",
    entry: ["n3"],
    concurrency: 3,
    distribute: true,
    end: "n2",
  });
  expect(flow.graph.nodes.get("n2")).toMatchObject({ kind: "endForEach", of: "n1", next: ["n4"] });
});

test("TF-EVT-07: when finds its chains by event and by state key", () => {
  const flow = defineFlow("f");

  flow.when(["A", "B"]).to("a", pass);
  flow.when("A").to("b", pass);
  flow.when({ state: "k" }).to("c", pass);
  flow.when(["A", "B"], { mode: "or" }).to("d", pass);

  const { whenEvent, whenState, nodes } = flow.graph;
  expect(whenEvent.get("A")).toEqual(["n1", "n3", "n7"]);
  expect(whenEvent.get("B")).toEqual(["n1", "n7"]);
  expect(whenState.get("k")).toEqual(["n5"]);
  expect([nodes.get("n1"), nodes.get("n7")]).toMatchObject([{ mode: "and" }, { mode: "or" }]);
});

test("an event that is named twice is heard once", () => {
  const twice = (mode: "and" | "or") => {
    const flow = defineFlow("f");
    flow.when(["A", "A"], { mode }).to("a", pass);
    return flow.graph.whenEvent;
  };

  for (const mode of ["and", "or"] as const) expect(twice(mode)).toEqual(new Map([["A", ["n1"]]]));
});

test("an event or state key outside the contract is refused", () => {
  const flow = defineFlow("f", { events: { A: z.null() }, state: z.object({ k: z.string() }).partial() });

  expect(() => flow.when("B" as "A")).toThrow(/event "B" of flow "f".*there are A/);
  expect(() => flow.when({ state: "x" as "k" })).toThrow(/there are k/);
  expect(() => defineFlow("g").when("")).toThrow(/"" is not an event name/);
  expect(() => defineFlow("g").when([])).toThrow(/hears nothing/);
});

test("TF-INV-14: an intervention point declared twice is one, and never has two targets", () => {
  const flow = defineFlow("f");
  const a = flow.to("a", pass);
  a.interventionPoint({ name: "p", target: "t" });
  a.interventionPoint({ name: "p", target: "t" });

  expect(flow.interventionPoints).toEqual([{ name: "p", target: "t" }]);
  expect(flow.graph.nodes.size).toBe(2);
  expect(() => a.interventionPoint({ name: "p" })).toThrow(/has the targets "t" and null/);
  expect(() => a.interventionPoint({ name: "" })).toThrow(/has no name/);
});

test("a resource requirement is declared once", () => {
  const flow = defineFlow("f").declareResourceRequirement("db").declareResourceRequirement("db");

  expect(flow.requirements).toEqual([{ name: "db", resolver: null, failPolicy: "closed" }]);
  expect(() => flow.declareResourceRequirement("db", { failPolicy: "open" })).toThrow(/declared twice/);
});

test("a sub-flow may not lead back", () => {
  const [a, b, c] = [defineFlow("a"), defineFlow("b"), defineFlow("c")];
  a.toSubFlow(b.to("x", pass));
  b.toSubFlow(c);

  expect([...a.subFlows.keys()]).toEqual(["b"]);
  expect(() => c.toSubFlow(a)).toThrow(DefinitionError);
  expect(() => c.toSubFlow(a)).toThrow(/sub-flow "a" leads back to this flow/);
  expect(() => a.toSubFlow(a)).toThrow(/leads back/);
});

test("a sub-flow may not have the name of another one", () => {
  const [flow, child, same] = [defineFlow("f"), defineFlow("child"), defineFlow("child")];
  child.to("x", pass);
  same.to("y", pass);
  flow.toSubFlow(child).toSubFlow(child);

  expect(() => flow.toSubFlow(same)).toThrow(/two different sub-flows named "child"/);
});

test.each([
  [{ capture: { output: "value" } }, /target of capture .* is "output": begin it with input, state/],
  [{ capture: { "flowData.a": "value" } }, /begin it with input, state, resources/],
  [{ capture: { state: "value" } }, /name a key: "state.key"/],
  [{ capture: { "state.a": "result.x" } }, /source of capture/],
  [{ capture: { "state.a-b": "value" } }, /segments of letters/],
  [{ capture: { "state.a": "value", "state.a.b": "value" } }, /sets both "state.a" and "state.a.b"/],
  [{ capture: { "state.a": "resources.db" } }, /live objects are not data/],
  [{ writeBack: { "value.x": "value.y" } }, /source of writeBack/],
  [{ concurrency: 0 }, /concurrency of toSubFlow\("child"\) must be .*, got 0/],
  [{ capture: "value" }, /capture of toSubFlow\("child"\) is "value": bind paths to paths/],
  [{ writeBack: [] }, /writeBack of toSubFlow\("child"\) is a list/],
  [{ capture: { input: 7 } }, /source of capture .* is 7/],
  [{ capture: { "state.": "value" } }, /segments of letters/],
  [{ capture: { "": "value" } }, /begin it with input, state, resources/],
  [{ capture: { input: "value", "input.x": "value" } }, /sets both "input" and "input.x"/],
  [{ writeBack: { "resources.x": "result" } }, /begin it with value, state, flowData/],
  [{ writeBack: { "state.x": "result.__proto__" } }, /segments of letters/],
  [
    { captures: {} },
    /toSubFlow\("child"\) has an unknown option "captures": use capture, writeBack, concurrency \(did you mean "capture"\?\)/,
  ],
])("TF-SUB-05: the binding %j is refused", (options, message) => {
  const bind = () => defineFlow("f").toSubFlow(defineFlow("child"), options as never);

  expect(bind).toThrow(message);
  expect(bind).toThrow(DefinitionError);
});

test.each([
  ["a word", "fast", /must be an object, got "fast"/],
  [
    "a mistyped name",
    { concurency: 2 },
    /has an unknown option "concurency": use concurrency, distribute \(did you mean "concurrency"\?\)/,
  ],
])("options of forEach and batch that are %s are refused", (_, options, message) => {
  expect(() => defineFlow("f").forEach(options as never)).toThrow(message);
  expect(() => defineFlow("f").batch({ a: pass }, options as never)).toThrow(message);
});

test("TF-SUB-02: bindings stand in the graph as they were given", () => {
  const flow = defineFlow("f");
  const capture = { "input.topic": "value.topic", "resources.db": "resources.db" };

  flow.toSubFlow(defineFlow("child"), { capture, writeBack: { "state.report": "snapshot.report" } });

  expect(flow.graph.nodes.get("n1")).toMatchObject({
    flow: "child",
    capture,
    writeBack: { "state.report": "snapshot.report" },
    concurrency: null,
  });
});

test("chunk options have defaults and are checked when they are made", () => {
  const flow = defineFlow("f");
  flow.to("a", pass, { retry: { maxAttempts: 3, maxInterval: "1m" }, timeout: "1m30s" });

  expect(flow.graph.chunks.get("a")?.options).toEqual({
    retry: {
      maxAttempts: 3,
      initialIntervalMs: 1_000,
      multiplier: 2,
      maxIntervalMs: 60_000,
      jitter: true,
      retryIf: null,
    },
    timeoutMs: 90_000,
    onFailure: null,
    input: null,
    output: null,
  });
  expect(() => flow.to("b", pass, { retry: { maxAttempts: 0 } })).toThrow(
    /retry.maxAttempts of chunk "b" must be an integer of at least 1, got 0/,
  );
  expect(() => flow.to("b", pass, { timeout: "soon" })).toThrow(/"soon" is not a duration for timeout of chunk "b"/);
  expect(() => flow.to("b", pass, { timeout: 0 })).toThrow(/timeout of 0/);
  expect(() => flow.to("b", pass, { retries: 1 } as never)).toThrow(/unknown option "retries"/);
  expect(() => flow.to("b", pass, { retry: { maxInterval: 10 } })).toThrow(DefinitionError);
});

test("waits that are given one by one are exact, and those of a policy are not, unless it says otherwise", () => {
  const flow = defineFlow("f");
  const jitterOf = (name: string, retry: RetryOptions) => {
    flow.to(name, pass, { retry });
    return flow.graph.chunks.get(name)?.options.retry.jitter;
  };

  expect(jitterOf("a", { waits: ["1s"] })).toBe(false);
  expect(jitterOf("b", { waits: ["1s"], jitter: true })).toBe(true);
  expect(jitterOf("c", { maxAttempts: 2 })).toBe(true);
  expect(jitterOf("d", { maxAttempts: 2, jitter: false })).toBe(false);
});

test("what a chunk does not say of its parking its flow says", () => {
  const flow = defineFlow("f", {}, { onFailure: "park", park: { after: "1d" } });
  const policyOf = (name: string, options: ParkOptions) => {
    flow.to(name, pass, options);
    return flow.graph.chunks.get(name)?.options.onFailure;
  };

  expect(policyOf("a", {})).toBeNull();
  expect(policyOf("b", { onFailure: "park" })).toEqual({ parks: true, afterMs: 86_400_000 });
  expect(policyOf("c", { park: { after: "1h" } })).toEqual({ parks: true, afterMs: 3_600_000 });
  expect(policyOf("d", { park: { after: null } })).toEqual({ parks: true, afterMs: null });
  expect(policyOf("e", { onFailure: "fail" })).toEqual({ parks: false, afterMs: null });
});

test.each(["", " ", "a b", "-a", "a/b", "x".repeat(101)])("LI-STP-06: the flow name %j is refused", (name) => {
  expect(() => defineFlow(name)).toThrow(DefinitionError);
});

test("LI-STP-06: an empty flow, an empty batch and a broken contract are refused", () => {
  expect(() => defineFlow("f").graph).toThrow(`flow "f": it has no chunks: add one with to("name", handler)`);
  expect(() => defineFlow("f").batch({})).toThrow(/has no branches/);
  expect(() => defineFlow("f", { input: "text" as never })).toThrow(/"input" must be a zod schema/);
  expect(() => defineFlow("f", { state: z.string() as never })).toThrow(/use z.object/);
  expect(() => defineFlow("f", { states: z.object({}) } as never)).toThrow(/unknown part "states"/);
});

test.each<[string, FlowOptions, string]>([
  [
    "maxStreamItems of 0",
    { maxStreamItems: 0 },
    "maxStreamItems must be an integer of at least 1, or null for no limit, got 0",
  ],
  ["maxStreamItems of NaN", { maxStreamItems: Number.NaN }, "no limit, got NaN"],
  ["maxStreamItems as a text", { maxStreamItems: "100" as never }, 'no limit, got "100"'],
  [
    "a rate of nothing",
    { maxStreamRate: { limit: 0, per: "1s" } },
    "maxStreamRate.limit must be an integer from 1 to 1000000, got 0",
  ],
  ["a rate in no time", { maxStreamRate: { limit: 1, per: 0 } }, "maxStreamRate.per must be longer than 0"],
  ["a rate without a limit", { maxStreamRate: { per: "1s" } as never }, "maxStreamRate.limit is missing"],
  ["a rate in words", { maxStreamRate: { limit: 1, per: "often" } }, 'maxStreamRate.per of flow "f"'],
])("F49: %s is refused where the flow is defined", (_, options, words) => {
  expect(() => defineFlow("f", {}, options)).toThrow(words);
});

test("F49: a stream has room for 100,000 items unless the flow says otherwise", () => {
  const limits = [{}, { maxStreamItems: null }, { maxStreamItems: 7 }, { maxStreamRate: { limit: 2, per: "1s" } }].map(
    (options) => defineFlow("f", {}, options).streamLimits,
  );

  expect(limits).toEqual([
    { maxItems: 100_000, rate: null },
    { maxItems: null, rate: null },
    { maxItems: 7, rate: null },
    { maxItems: 100_000, rate: { limit: 2, perMs: 1000 } },
  ]);
});

function twice(place: { endForEach(): unknown }): unknown {
  place.endForEach();
  return place.endForEach();
}

/** The edges of a graph by name. */
function drawn({ graph }: FlowDefinition): string[] {
  const name = (id: string) => {
    const node = graph.nodes.get(id);
    return node?.kind === "chunk" ? node.chunk : node?.kind;
  };
  return [
    ...graph.roots.map((id) => `start > ${name(id)}`),
    ...[...graph.nodes.values()].flatMap((node) => node.next.map((id) => `${name(node.id)} > ${name(id)}`)),
  ];
}

test("a first wait that is longer than the default maximum is waited as it is written", () => {
  const flow = defineFlow("patient");
  flow.to("a", () => null, { retry: { maxAttempts: 3, initialInterval: "20m" } });

  expect(flow.graph.chunks.get("a")?.options.retry).toMatchObject({
    initialIntervalMs: 1_200_000,
    maxIntervalMs: 1_200_000,
  });
});
