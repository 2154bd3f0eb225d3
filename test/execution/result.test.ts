/** `execution.result`: every reader, live and frozen; and what lists and flow data say. */
import { expect, test } from "vitest";
import { defineFlow, NoWorkerWarning } from "../../src/index.ts";
import { ExecutionResult } from "../../src/execution/result.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import { initialState } from "../../src/ledger/state.ts";
import { ManualTimers } from "../support/timers.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, serving, visiting, warningsOf } from "../support/flows.ts";

const database = await testDatabase();

/** Writes what it hears into the state, under the key "k". */
const writing = defineFlow("writing");
writing.when("Write").to("write", (ctx) => ctx.setState("k", ctx.input));
writing.when("Result").to("result", (ctx) => ctx.setResult(ctx.input));
writing.when("Final").to("final", (ctx) => ctx.setState("$final_result", ctx.input));

test("TF-RES-01: state is live before the close, and TF-RES-02: frozen after it", async () => {
  await using orchestrator = await serving(database, [writing]);
  const { result, ...rest } = await open(orchestrator);
  const { execution } = rest;

  await execution.emit("Write", { a: { b: 1 } });
  await expect.poll(() => result.getState("k.a.b", 0)).toBe(1);
  const snapshot = await execution.close();

  expect(await result.getState()).toEqual(snapshot);
  expect(await result.getState("k.a")).toEqual({ b: 1 });
});

test("TF-RES-03: a missing path gives the fallback, null a null, and a list has no paths", async () => {
  await using orchestrator = await serving(database, [writing]);
  const { execution, result } = await open(orchestrator);

  await execution.emit("Write", { none: null, list: [1] });
  await execution.close();

  const read = await Promise.all([
    result.getState("k.none", "fallback"),
    result.getState("k.list.0", "fallback"),
    result.getState("k.none.x", "fallback"),
    result.getState("toString"),
  ]);
  expect(read).toEqual([null, "fallback", "fallback", null]);
});

test("TF-RES-04 TF-RES-05: $final_result wins, also as null, then setResult, then the close snapshot", async () => {
  await using orchestrator = await serving(database, [writing]);
  const finals = [];
  for (const emits of [
    [
      ["Result", 1],
      ["Final", null],
    ],
    [["Result", 1]],
    [["Write", 1]],
  ] as const) {
    const { execution, result } = await open(orchestrator);
    for (const [event, payload] of emits) await execution.emit(event, payload);
    await execution.close();
    finals.push(await result.getFinalResult());
  }

  expect(finals).toEqual([null, 1, { k: 1 }]);
});

test("TF-RES-06: the final result resolves with a result before the close", async () => {
  await using orchestrator = await serving(database, [writing]);
  await using elsewhere = visiting(database);
  const { execution } = await open(orchestrator);
  const waiting = (await elsewhere.getExecution(execution.id)).result.getFinalResult();

  await execution.emit("Result", { ok: true });

  expect(await waiting).toEqual({ ok: true });
  expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "open" });
});

test("TF-RES-07: when the timeout passes, the final result is null, with a warning and no error", async () => {
  await using orchestrator = await serving(database, [writing]);
  const { result } = await open(orchestrator);

  const warnings = await warningsOf(async () => expect(await result.getFinalResult({ timeout: "50ms" })).toBeNull());

  expect(warnings.map(({ code }) => code)).toEqual(["RESULT_TIMEOUT"]);
});

test("TF-RES-08: the final result of a failed execution is its snapshot", async () => {
  const flow = defineFlow("failed");
  flow
    .to("write", (ctx) => ctx.setState("kept", 1))
    .to("fail", () => {
      throw new Error("no");
    });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution();

  expect(await execution.result.getFinalResult({ timeout: "5s" })).toEqual({ kept: 1 });
});

test("TF-RES-09 TF-RES-10: meta has exactly its fields, and none of them is in the close snapshot", async () => {
  await using orchestrator = await serving(database, [writing]);
  const execution = await orchestrator
    .flow(writing)
    .createExecution({ autoClose: false, metadata: { tenant: "a" }, runtimeResources: { z: 1, a: 2 } });
  const created = await execution.result.getMeta();
  await execution.start();

  const snapshot = await execution.close();

  const { id } = execution;
  expect(created).toEqual({
    executionId: id,
    runId: id,
    flowName: "writing",
    status: "created",
    lifecycleState: "open",
    createdAt: expect.any(Date),
    startedAt: null,
    startInput: null,
    sealedAt: null,
    closedAt: null,
    closeReason: null,
    stateVersion: 1,
    fingerprint: null,
    blocked: null,
    paused: null,
    parentId: null,
    metadata: { tenant: "a" },
    resourceKeys: ["a", "z"],
    loadedFrom: null,
    forkedFrom: null,
    trace: null,
  });
  const closed = await execution.result.getMeta();
  expect(closed).toEqual({
    ...created,
    status: "completed",
    lifecycleState: "closed",
    startedAt: expect.any(Date),
    sealedAt: expect.any(Date),
    closedAt: expect.any(Date),
    closeReason: "manual",
    stateVersion: expect.any(Number),
    fingerprint: writing.fingerprint,
  });
  expect(snapshot).toEqual({});
});

test("TF-RES-11 TF-RES-13: without a ledger of interventions there are none, and the latest is the fallback", async () => {
  await using orchestrator = await serving(database, [writing]);
  const { result } = await open(orchestrator);

  expect(await result.getInterventions({ status: "pending", sinceVersion: 0 })).toEqual([]);
  expect(await result.getLatestIntervention("none")).toBe("none");
});

test("TF-RES-14: a result has readers of the outcome only", async () => {
  await using orchestrator = await serving(database, [writing]);
  const { result } = await open(orchestrator);

  const names = Object.getOwnPropertyNames(Object.getPrototypeOf(result)).filter((name) => name !== "constructor");

  expect(names.toSorted()).toEqual([
    "getFinalResult",
    "getInterventions",
    "getLatestIntervention",
    "getMeta",
    "getState",
  ]);
});

test("LI-SRV-07: listExecutions gives pages, newest first, by flow, status, metadata and time", async () => {
  const listed = defineFlow("listed");
  listed.when("E").to("e", () => 1);
  await using orchestrator = await serving(database, [listed]);
  const ids = await orchestrator
    .flow(listed)
    .startMany([1, 2, 3, 4, 5], { metadata: { a: { b: 1 }, c: 2 }, autoClose: false });
  await (await orchestrator.getExecution(ids[0] ?? "")).close();
  const filter = { flow: "listed", metadata: { a: { b: 1 } } };

  const first = await orchestrator.listExecutions({ ...filter, limit: 3 });
  const second = await orchestrator.listExecutions({ ...filter, limit: 3, cursor: first.nextCursor ?? "" });

  expect([...first.executions, ...second.executions].map(({ id }) => id)).toEqual(ids.toReversed());
  expect(second.nextCursor).toBeNull();
  const counts = await Promise.all(
    [
      { flow: "listed", status: "completed" as const },
      { flow: "listed", status: ["running", "completed"] as const },
      { flow: "listed", metadata: { a: { b: 2 } } },
      { flow: "listed", createdAfter: new Date(Date.now() + 3_600_000) },
      { flow: "listed", createdAfter: new Date(Date.now() - 3_600_000) },
    ].map(async (options) => (await orchestrator.listExecutions(options)).executions.length),
  );
  expect(counts).toEqual([1, 5, 0, 0, 5]);
});

test("TF-FLD-01: flow data warns once per call site, and never with noWarning", async () => {
  await using orchestrator = await serving(database, [writing]);
  const flow = orchestrator.flow(writing);

  const codes = await warningsOf(async () => {
    for (let n = 0; n < 3; n++) await flow.getFlowData("warned");
    await flow.getFlowData("warned");
    await Promise.all([1, 2, 3].map(() => flow.getFlowData("warned")));
    await flow.delFlowData("warned", { noWarning: true });
  });

  expect(codes.map(({ code }) => code)).toEqual(["FLOW_DATA_SHARED", "FLOW_DATA_SHARED", "FLOW_DATA_SHARED"]);
});

test("TF-FLD-01: flow data warns once per call site of a chunk, however often it runs", async () => {
  const flow = defineFlow("warned-in-chunks");
  flow.to("read", async (ctx) => {
    for (let n = 0; n < 3; n++) await ctx.getFlowData("warned");
    await ctx.getFlowData("warned");
    return ctx.getFlowData("warned");
  });
  await using orchestrator = await serving(database, [flow]);

  const codes = await warningsOf(async () => {
    for (let n = 0; n < 3; n++) await orchestrator.flow(flow).start(n);
  });

  expect(codes.map(({ code }) => code)).toEqual(["FLOW_DATA_SHARED", "FLOW_DATA_SHARED", "FLOW_DATA_SHARED"]);
});

test("TF-FLD-02 TF-FLD-03: flow data is shared by executions and processes, and in no close snapshot", async () => {
  const flow = defineFlow("shared");
  const quiet = { noWarning: true };
  flow.to("use", async (ctx) => {
    await ctx.appendFlowData("list", ctx.input, quiet);
    return ctx.getFlowData("list", quiet);
  });
  await using orchestrator = await serving(database, [flow]);
  await using elsewhere = visiting(database, [flow]);
  await elsewhere.flow(flow).setFlowData("list", ["first"], quiet);

  const snapshots = [await orchestrator.flow(flow).start("a"), await orchestrator.flow(flow).start("b")];

  expect(snapshots).toEqual([{}, {}]);
  expect(await elsewhere.flow(flow).getFlowData("list", quiet)).toEqual(["first", "a", "b"]);
  await elsewhere.flow(flow).delFlowData("list", quiet);
  expect(await orchestrator.flow(flow).getFlowData("list", { ...quiet, default: "gone" })).toBe("gone");
});

test("TF-RSC-01 TF-RSC-02: a missing resource is the fallback for getResource and an error for requireResource", async () => {
  const flow = defineFlow("missing");
  flow.to("use", async (ctx) => {
    await ctx.setState("fallback", [ctx.getResource("nope"), ctx.getResource("nope", 1)]);
    await ctx.flush();
    ctx.requireResource("nope");
  });
  await using orchestrator = await serving(database, [flow], { resources: { b: 1, a: 1 } });
  const execution = await orchestrator.flow(flow).startExecution();

  await expect(execution.waitForClose()).rejects.toMatchObject({
    cause: { name: "ResourceMissingError", message: expect.stringMatching(/"nope".*there: a, b/) },
  });
  expect(await execution.result.getState("fallback")).toEqual([null, 1]);
});

test("TF-RSC-03 TF-RSC-05: the execution's resource wins over the flow's, the flow's over the worker's", async () => {
  const flow = defineFlow("layers");
  const keys = ["worker", "flow", "execution"];
  flow.to("use", (ctx) =>
    ctx.setState(
      "got",
      keys.map((key) => ctx.requireResource<string>(key)),
    ),
  );
  await using orchestrator = await serving(database, [flow], { resources: { worker: "w", flow: "w", execution: "w" } });
  const bound = orchestrator.flow(flow);
  bound.updateRuntimeResources({ flow: "f", execution: "f" });

  const snapshots = [await bound.start(null, { runtimeResources: { execution: "e" } }), await bound.start()];

  expect(snapshots).toEqual([{ got: ["w", "f", "e"] }, { got: ["w", "f", "f"] }]);
});

test("TF-RSC-08: a factory runs once per execution and what it made is disposed; what was handed in is not", async () => {
  const made: string[] = [];
  const disposed: string[] = [];
  const end = newGate();
  const flow = defineFlow("factories");
  const use = flow.chunk("use", (ctx) => ctx.requireResource<{ id: string }>("made").id);
  flow
    .to(use)
    .to(use)
    .to("keep", (ctx) => (ctx.requireResource("given"), ctx.setState("id", ctx.input)));
  await using orchestrator = await serving(database, [flow], {
    resources: {
      made: ({ id }: { id: string }) => (
        made.push(id),
        { id, [Symbol.dispose]: () => (disposed.push(id), end.open()) }
      ),
    },
  });
  const given = { [Symbol.dispose]: () => disposed.push("given") };

  const snapshot = await orchestrator.flow(flow).start(null, { runtimeResources: { given } });
  await end.passed;

  expect(made).toEqual([snapshot["id"]]);
  expect(disposed).toEqual(made);
});

test("whoever waits for a flow that no worker serves is warned after five seconds", async () => {
  const flow = defineFlow("unserved");
  flow.to("never", () => 1);
  await using orchestrator = visiting(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution();
  const { promise: warned, resolve } = Promise.withResolvers<Error>();
  process.once("warning", resolve);

  void execution.waitForClose().catch(() => {});

  expect(await warned).toBeInstanceOf(NoWorkerWarning);
});

async function open(orchestrator: Awaited<ReturnType<typeof serving>>) {
  const execution = await orchestrator.flow(writing).startExecution(null, { autoClose: false });
  return { execution, result: execution.result };
}

test("whoever has a final result listens no more", async () => {
  let listeners = 0;
  const state = { ...initialState(), result: { value: 7 } };
  const host = {
    store: { reads: { loadState: async () => state } },
    outcomes: { watch: () => ((listeners += 1), () => (listeners -= 1)) },
    timers: new ManualTimers(),
  };
  // Of its parts only what is asked here.
  const result = new ExecutionResult(
    host as unknown as ConstructorParameters<typeof ExecutionResult>[0],
    ExecutionId.parse("01900000-0000-7000-8000-000000000001"),
  );

  expect(await result.getFinalResult()).toBe(7);
  expect(listeners).toBe(0);
});
