/** What people get wrong, one by one: each is refused with a typed error that says where. */
import { afterAll, expect, test } from "vitest";
import { z } from "zod";
import { defineFlow, toSSE, UsageError } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { collect, refusal, serving } from "../support/flows.ts";

const database = await testDatabase();
const strict = defineFlow("strict", {
  input: z.object({ items: z.array(z.object({ n: z.number() })) }),
  events: { Decided: z.object({ yes: z.boolean() }) },
});
strict.when("Decided").to("decided", () => 1);
const loose = defineFlow("loose");
loose.when("Any").to("any", () => 1);
const returning = defineFlow("returning");
returning.to("give", (ctx) => ctx.requireResource<() => unknown>("give")());
const putting = defineFlow("putting");
putting.to("put", (ctx) => ctx.putIntoStream(ctx.requireResource<() => unknown>("give")()), {
  retry: { maxAttempts: 3, initialInterval: 1 },
});
const orchestrator = await serving(database, [strict, loose, returning, putting]);
afterAll(() => orchestrator.close());

test("an unknown flow is refused with the names that are known", () => {
  expect(() => orchestrator.flow("lose")).toThrow(/flow "lose".*loose, putting, returning, strict/);
  expect(() => orchestrator.flow("lose")).toThrow(UsageError);
});

test("an unknown execution is not found, nor is one whose id is no uuid", async () => {
  const id = "01a1fc32-0000-7000-8000-00000000dead";

  expect(await refusal(orchestrator.getExecution(id))).toMatchObject({
    code: "EXECUTION_NOT_FOUND",
    details: { executionId: id },
  });
  for (const wrong of ["", "refund-1", `${id}'; --`, null, 7])
    expect(await refusal(orchestrator.getExecution(wrong as string))).toMatchObject({ code: "EXECUTION_NOT_FOUND" });
});

test("a flow gives its own executions, and names the flow of another's", async () => {
  const { id } = await orchestrator.flow(strict).createExecution();

  const [own, other] = [await orchestrator.flow(strict).getExecution(id), orchestrator.flow(loose).getExecution(id)];

  expect(own.id).toBe(id);
  expect(await refusal(other)).toMatchObject({
    code: "USAGE_INVALID",
    message: expect.stringMatching(/"strict".*"loose"/) as string,
  });
  expect(await refusal(orchestrator.flow(loose).getExecution("refund-1"))).toMatchObject({
    code: "EXECUTION_NOT_FOUND",
  });
});

test("an id in capitals is the same id", async () => {
  const { id } = await orchestrator.flow(loose).createExecution({ id: "01890000-0000-7000-8000-00000000CAFE" });

  expect(id).toBe("01890000-0000-7000-8000-00000000cafe");
  expect((await orchestrator.getExecution(id.toUpperCase())).id).toBe(id);
});

test("LI-STP-04: an input against the contract is refused with the path, and nothing is started", async () => {
  const before = await orchestrator.listExecutions({ flow: "strict" });

  const error = await refusal(orchestrator.flow(strict).start({ items: [{ n: 1 }, { n: "x" as never }] }));

  expect(error).toMatchObject({ code: "CONTRACT_VIOLATED", details: { issues: [{ path: ["items", 1, "n"] }] } });
  expect(String(error)).toContain("items[1].n");
  expect(await orchestrator.listExecutions({ flow: "strict" })).toEqual(before);
});

test("an input against the contract is refused by execution.start, too", async () => {
  const execution = await orchestrator.flow(strict).createExecution();

  expect(await refusal(execution.start({} as never))).toMatchObject({ code: "CONTRACT_VIOLATED" });
  expect(await execution.result.getMeta()).toMatchObject({ status: "created" });
});

test("an event against the contract is refused, and so is one that it does not have", async () => {
  const execution = await orchestrator.flow(strict).createExecution();

  const errors = [
    await refusal(execution.emit("Decided", { yes: "y" as never })),
    await refusal(execution.emit("Decide" as never, { yes: true } as never)),
    await refusal(
      orchestrator
        .flow(loose)
        .createExecution()
        .then((handle) => handle.emit("", 1)),
    ),
  ];

  expect(errors).toMatchObject([
    { code: "CONTRACT_VIOLATED" },
    { code: "CONTRACT_VIOLATED" },
    { code: "USAGE_INVALID" },
  ]);
  expect(String(errors[1])).toContain("Decided");
  expect(await execution.history({ types: ["event.emitted"] })).toEqual([]);
});

test("a return against the output schema of the chunk fails the execution", async () => {
  const flow = defineFlow("wrongReturn");
  flow.to("give", (): unknown => ({ n: "x" }), { output: z.object({ n: z.number() }) });
  await using worker = await serving(database, [flow]);

  const error = await refusal(worker.flow(flow).start());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { code: "CONTRACT_VIOLATED" } });
  expect(String(error)).toMatch(/chunk "give".*\bn\b/s);
});

const cycle: Record<string, unknown> = {};
cycle["self"] = cycle;
const deep = (levels: number): unknown => (levels === 0 ? 1 : { d: deep(levels - 1) });

const unstorable: [string, unknown, string][] = [
  ["undefined in a list", { a: { b: [undefined] } }, "a.b[0]"],
  ["BigInt", { a: 1n }, "a"],
  ["NaN", { a: { b: Number.NaN } }, "a.b"],
  ["infinity", [Infinity], "[0]"],
  ["\\u0000 in a text", { a: "x\u0000y" }, "a"],
  ["\\u0000 in a key", { "x\u0000y": 1 }, "x"],
  ["half a surrogate pair", { a: "\ud83e" }, "a"],
  ["a cycle", { a: cycle }, "a.self"],
  ["too deep", deep(500), "d.d.d"],
  ["too large", { a: "x".repeat(2_000_000) }, "a"],
  ["a function", { a: () => 1 }, "a"],
  ["a Date", { a: new Date() }, "a"],
  ["a Map", { a: new Map() }, "a"],
  ["__proto__", JSON.parse('{"a":{"__proto__":1}}'), "a.__proto__"],
];

test.each(unstorable)(
  "%s is refused as input, event, metadata and flow data, with its path",
  async (_, value, path) => {
    const bound = orchestrator.flow(loose);
    const execution = await bound.createExecution();

    const errors = [
      await refusal(bound.startExecution(value)),
      await refusal(execution.emit("Any", value)),
      await refusal(bound.createExecution({ metadata: { m: value } })),
      await refusal(bound.setFlowData("k", value, { noWarning: true })),
    ];

    for (const error of errors) {
      expect(error).toMatchObject({ code: "PAYLOAD_UNSTORABLE" });
      expect(String(error)).toContain(path);
    }
  },
);

test.each(unstorable)("%s as a chunk's return fails the execution, with its path", async (_, value, path) => {
  const error = await refusal(orchestrator.flow(returning).start(null, { runtimeResources: { give: () => value } }));

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { code: "PAYLOAD_UNSTORABLE" } });
  expect(String(error)).toContain(path);
});

test.each(unstorable)("%s as a stream item fails its chunk at once, with its path", async (_, value, path) => {
  const runtimeResources = { give: () => value };
  const execution = await orchestrator.flow(putting).startExecution(null, { runtimeResources, autoCloseTimeout: 0 });

  const error = await refusal(execution.waitForClose());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { code: "PAYLOAD_UNSTORABLE" } });
  expect(String(error)).toContain(path);
  expect(await execution.history({ types: ["chunk.failed"] })).toHaveLength(1);
  expect(await collect(execution.getRuntimeStream())).toEqual([]);
});

test.each<[string, unknown, string]>([
  ["a text", "just text", "just text"],
  ["undefined", undefined, "undefined"],
  ["null", null, "null"],
  ["an object", { reason: "x" }, "reason"],
  ["a cycle", cycle, ""],
  ["an object without a prototype", Object.create(null), ""],
  ["an error with a NUL byte", new Error("a\u0000b"), "a\\u0000b"],
  ["an error with half a surrogate pair", new Error("a\ud83eb"), "a"],
  ["an error with a message of a megabyte", new Error("x".repeat(1_000_000)), "xxx"],
  ["an error without a stack", Object.assign(new Error("bare"), { stack: undefined }), "bare"],
])("a handler that throws %s fails the execution with what it said", async (_, thrown, words) => {
  const give = () => {
    throw thrown;
  };

  const error = await refusal(orchestrator.flow(returning).start(null, { runtimeResources: { give } }));

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: expect.any(Error) });
  expect((error as { cause: Error }).cause.message).toContain(words);
  expect((error as Error).message.length).toBeLessThan(10_000);
});

test.each<[string, object]>([
  ["autoClose: false on start", { autoClose: false }],
  ["concurrency 0", { concurrency: 0 }],
  ["concurrency 1.5", { concurrency: 1.5 }],
  ["a delay without a unit", { delay: "10" }],
  ["a negative delay", { delay: -1 }],
  ["a timeout of NaN", { timeout: Number.NaN }],
  ["priority 40000", { priority: 40_000 }],
  ["an invalid date", { startAt: new Date("x") }],
  ["an empty idempotency key", { idempotencyKey: "" }],
  ["metadata that is a list", { metadata: [] }],
  ["an id that is no uuid", { id: "refund-1" }],
  ["an unknown intervention mode", { interventionMode: "sometimes" }],
])("%s is refused", async (_, options) => {
  expect(await refusal(orchestrator.flow(loose).start(1, options))).toBeInstanceOf(UsageError);
});

test("bad options of lists, histories, streams and workers are refused", async () => {
  const execution = await orchestrator.flow(loose).createExecution();

  const errors = await Promise.all(
    [
      orchestrator.listExecutions({ limit: 0 }),
      orchestrator.listExecutions({ cursor: "next" }),
      orchestrator.listExecutions({ createdAfter: new Date("x") }),
      execution.history({ from: -1 }),
      collect(execution.getRuntimeStream({ timeout: "soon" })),
      (async () => toSSE(execution.streamItems(), { heartbeat: "soon" }))(),
      (async () => toSSE(execution.streamItems(), { stallTimeout: -1 }))(),
      execution.close({ timeout: "soon" }),
      execution.result.getFinalResult({ timeout: "soon" }),
      execution.close({ pendingInterrupts: "ignore" as never }),
      orchestrator.startWorker({ concurrency: 0 }),
    ].map(refusal),
  );

  for (const error of errors) expect(error).toBeInstanceOf(UsageError);
  expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "open" });
});
