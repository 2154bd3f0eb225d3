/** Distributed collections: items run as executions of their own, and everything else is as with a local collection. */
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { z } from "zod";
import { FanOut, type FanOutHost } from "../../src/engine/fanout.ts";
import type { ForEachNode } from "../../src/flow/graph.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import { itemId } from "../../src/ledger/items.ts";
import type { Dispatch } from "../../src/ledger/parts.ts";
import { initialState } from "../../src/ledger/state.ts";
import type { CloseHeader } from "../../src/store/append.ts";
import { verify } from "../../src/store/verify.ts";
import {
  defineFlow,
  ExecutionCancelledError,
  ExecutionFailedError,
  NoResumeHandleError,
  UsageError,
} from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import { testDatabase } from "../support/database.ts";
import { Crowd, newGate, refusal, serving, untilEvent } from "../support/flows.ts";
import { kit } from "../support/kit.ts";

const database = await testDatabase();
const { sql } = database;

const uuid = ExecutionId.parse("01900000-0000-7000-8000-000000000001");
const byText = (a: unknown, b: unknown) => JSON.stringify(a).localeCompare(JSON.stringify(b), "en");

/** What holds after every test. */
async function expectNothingLeft(parent: string) {
  const open =
    await sql`select id, status from flowledger.executions where parent_id = ${parent} and closed_at is null`;
  expect([...open]).toEqual([]);
  expect(await verify(sql)).toEqual([]);
}

test("TF-PAT-05: a distributed forEach gives the results in the order of the items, whichever ends first", async () => {
  const gates = [newGate(), newGate(), newGate()];
  const flow = defineFlow("distributed");
  const ids = new Set<string>();
  flow
    .to("make", () => [0, 1, 2])
    .forEach({ distribute: true })
    .to("wait", async (ctx) => {
      ids.add(ctx.execution.id);
      if (ctx.input < 2) await gates[ctx.input + 1]?.passed;
      gates[ctx.input]?.open();
      return ctx.input * 10;
    })
    .to("text", (ctx) => String(ctx.input))
    .endForEach()
    .to("keep", (ctx) => ctx.setState("got", ctx.input));
  await using orchestrator = await serving(database, [flow]);

  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  expect(await execution.waitForClose()).toEqual({ got: ["0", "10", "20"] });
  expect(ids.size).toBe(3);
  expect((await execution.history()).map(({ type }) => type)).toEqual([
    "execution.created",
    "execution.started",
    "execution.claimed",
    "inbox.routed",
    "chunk.completed",
    "items.started",
    "items.closed",
    "value.routed",
    "state.set",
    "chunk.completed",
    "execution.closed",
  ]);
  await expectNothingLeft(execution.id);
});

test("TF-PAT-02: a distributed batch runs every branch on the same input, and gives all results by name", async () => {
  const flow = defineFlow("distributedBatch", { input: z.number() });
  flow
    .batch(
      { one: (ctx) => ctx.input + 1, two: async (ctx) => ctx.step("two", () => ctx.input + 2) },
      { distribute: true },
    )
    .end();
  await using orchestrator = await serving(database, [flow]);

  const execution = await orchestrator.flow(flow).startExecution(1, { autoCloseTimeout: 0 });

  expect(await execution.waitForClose()).toEqual({ $final_result: { one: 2, two: 3 } });
  const [derived] = await sql`select flowledger.close_snapshot(${execution.id}) as snapshot`;
  expect(derived?.["snapshot"]).toEqual({ $final_result: { one: 2, two: 3 } });
  await expectNothingLeft(execution.id);
});

test("TF-PAT-06, TF-PAT-07: distributed too, an empty list stays one, and what is no list is one item", async () => {
  const flow = defineFlow("distributedFew");
  flow
    .to("make", (ctx) => ctx.input)
    .forEach({ distribute: true })
    .to("each", (ctx) => `${String(ctx.input)}!`)
    .endForEach()
    .end();
  await using orchestrator = await serving(database, [flow]);
  const run = async (input: unknown) => (await orchestrator.flow(flow).start(input))["$final_result"];

  expect(await Promise.all([run([]), run("text"), run(null)])).toEqual([[], ["text!"], ["null!"]]);
});

test.each([
  [{ distribute: true, concurrency: 0 }, /concurrency of forEach\(\) must be .*, got 0/],
  [{ distribute: true, concurrency: -3 }, /concurrency of forEach\(\) must be .*, got -3/],
  [{ distribute: "yes" as unknown as boolean }, /distribute of forEach\(\) must be true or false, got "yes"/],
])("forEach(%j) is refused where it is written", (options, message) => {
  expect(() => defineFlow("f").forEach(options)).toThrow(message);
});

test("a flow with limits of its own refuses to distribute: its items would wait for their parent's place", () => {
  const flow = defineFlow("limited", {}, { limits: { concurrency: 1 } });
  flow
    .forEach({ distribute: true })
    .to("each", () => 1)
    .endForEach();

  expect(() => flow.fingerprint).toThrow(/its limits would make distributed items wait .* use toSubFlow\(\)/s);
});

test("TF-PAT-08: at most so many items are under way in the fleet", async () => {
  const crowd = new Crowd();
  const flow = defineFlow("distributedLimit");
  flow
    .to("make", () => Array.from({ length: 12 }, (_, n) => n))
    .forEach({ distribute: true, concurrency: 3 })
    .to("each", (ctx) => crowd.during(async () => (await sleep(5), ctx.input)))
    .endForEach()
    .end();
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot["$final_result"]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  expect(crowd.most).toBe(3);
});

test("a distributed forEach inside another one, with conditions and a local one around and inside", async () => {
  const flow = defineFlow("distributedNested");
  flow
    .to("make", () => [[1, 2], [], [3]])
    .forEach({ distribute: true })
    .forEach({ distribute: true })
    .ifCondition((ctx) => (ctx.input as number) > 1)
    .to("big", (ctx) => [`big${String(ctx.input)}`, "x"])
    .elseCondition()
    .to("small", (ctx) => [`small${String(ctx.input)}`])
    .endCondition()
    .forEach()
    .to("up", (ctx) => String(ctx.input).toUpperCase())
    .endForEach()
    .endForEach()
    .to("count", (ctx) => ({ n: (ctx.input as unknown[]).length, all: ctx.input }))
    .endForEach()
    .end();
  await using orchestrator = await serving(database, [flow]);

  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  expect(await execution.waitForClose()).toEqual({
    $final_result: [
      { n: 2, all: [["SMALL1"], ["BIG2", "X"]] },
      { n: 0, all: [] },
      { n: 1, all: [["BIG3", "X"]] },
    ],
  });
  await expectNothingLeft(execution.id);
});

test("TF-PAT-09: an item that fails fails the forEach with its own error, and its siblings are told to stop", async () => {
  const gate = newGate();
  let told = 0;
  const flow = defineFlow("distributedFailure");
  flow
    .to("make", () => [0, 1, 2, 3])
    .forEach({ distribute: true })
    .to("each", async (ctx) => {
      if (ctx.input === 2) {
        await gate.passed;
        throw new RangeError("two is too much");
      }
      if (ctx.input === 3) gate.open();
      await new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
      told += 1;
    })
    .endForEach()
    .to("never", (ctx) => ctx.setState("reached", true));
  await using orchestrator = await serving(database, [flow]);

  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  const error = await refusal(execution.waitForClose());

  expect(error).toBeInstanceOf(ExecutionFailedError);
  expect(error).toMatchObject({ cause: { name: "RangeError", message: "two is too much" } });
  await expect.poll(() => told).toBe(3);
  await expect
    .poll(
      () =>
        sql`select status, count(*)::int from flowledger.executions where parent_id = ${execution.id} group by 1 order by 1`,
    )
    .toEqual([
      { status: "cancelled", count: 3 },
      { status: "failed", count: 1 },
    ]);
  await expectNothingLeft(execution.id);
});

test("an item is retried like any chunk, and only what it did not record runs again", async () => {
  const runs: string[] = [];
  const flow = defineFlow("distributedRetry");
  flow
    .to("make", () => ["a", "b"])
    .forEach({ distribute: true })
    .to(
      "each",
      async (ctx) => {
        await ctx.step("once", () => void runs.push(`step ${ctx.input}`));
        if (ctx.attempt === 1) throw new Error("not yet");
        return `${ctx.input}${ctx.attempt}`;
      },
      { retry: { maxAttempts: 2, initialInterval: 1 } },
    )
    .endForEach()
    .end();
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start()).toEqual({ $final_result: ["a2", "b2"] });
  expect(runs.toSorted()).toEqual(["step a", "step b"]);
});

test("cancelling the parent cancels the items before it closes, and close() waits for them", async () => {
  const gate = newGate();
  const flow = defineFlow("distributedCancel");
  flow
    .to("make", () => [1, 2, 3])
    .forEach({ distribute: true })
    .to("each", async (ctx) => {
      await Promise.race([gate.passed, new Promise((resolve) => ctx.signal.addEventListener("abort", resolve))]);
      return ctx.input;
    })
    .endForEach()
    .end();
  await using orchestrator = await serving(database, [flow]);
  const start = () => orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  const [cancelled, closed] = [await start(), await start()];
  await Promise.all([untilEvent(cancelled, "items.started"), untilEvent(closed, "items.started")]);
  const items = () =>
    sql`select count(*)::int as n from flowledger.executions where parent_id in (${cancelled.id}, ${closed.id}) and epoch > 0`;
  await expect.poll(items).toEqual([{ n: 6 }]);

  await cancelled.cancel("enough");
  expect(await refusal(cancelled.waitForClose())).toBeInstanceOf(ExecutionCancelledError);
  const asked = await sql`
    select 1 from flowledger.ledger l join flowledger.executions e on e.id = l.execution_id
    where e.parent_id = ${cancelled.id} and l.type = 'cancel.requested'`;
  const closing = closed.close();
  await untilEvent(closed, "execution.sealed");
  gate.open();

  expect(asked).toHaveLength(3);
  expect(await closing).toEqual({ $final_result: [1, 2, 3] });
  await expect
    .poll(() => sql`select distinct status from flowledger.executions where parent_id = ${cancelled.id}`)
    .toEqual([{ status: "cancelled" }]);
  await expectNothingLeft(cancelled.id);
});

test("a cancel is over as soon as the items have heard of it, however long cancelGrace is", async () => {
  const flow = defineFlow("distributedGrace");
  flow
    .to("make", () => [1, 2])
    .forEach({ distribute: true })
    .to("each", (ctx) => ctx.sleep("3d"))
    .endForEach();
  await using t = await kit({ flows: [flow], worker: { cancelGrace: "1h" } });
  const run = await t.start(flow, null);
  await t.settle();

  await run.cancel();
  await t.settle();

  expect(await run.isOpen()).toBe(false);
});

test("at most so many items of one place are under way, whichever list they are of", async () => {
  const flow = defineFlow("distributedPasses");
  flow
    .to("make", () => [
      [1, 2],
      [3, 4],
    ])
    .forEach()
    .forEach({ distribute: true, concurrency: 1 })
    .to("each", (ctx) => ctx.sleep("1h").then(() => ctx.input))
    .endForEach()
    .endForEach()
    .end();
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null);
  const begun: number[] = [];
  for (let hours = 0; hours < 4; hours++) {
    await t.settle();
    begun.push((await t.orchestrator.listExecutions({ parent: run.id })).executions.length);
    await t.clock.advance("1h");
  }

  expect(begun).toEqual([1, 2, 3, 4]);
  expect(await run.until("closed")).toMatchObject({
    $final_result: [
      [1, 2],
      [3, 4],
    ],
  });
});

test("what is heard of items when the execution has just ended leads to nothing", async () => {
  const state = initialState();
  const base = itemId(uuid, 0);
  const [dispatch, node] = [
    { id: 1, input: [1, 2] },
    { kind: "forEach", id: "each", concurrency: null },
  ];
  let hear: (index: number, ending: null) => void = () => {};
  const reads: PromiseWithResolvers<Map<ExecutionId, CloseHeader>>[] = [];
  // Of an owner only what a fan-out asks until its items have ended.
  const fanOut = new FanOut(
    {
      id: uuid,
      state,
      newId: () => uuid,
      submit: async () => void state.frames.set(1, { done: [false, false], items: { base, wrote: [] } } as never),
      itemsUnderWay: () => 0,
      items: {
        listen: (_: ExecutionId, listener: typeof hear) => ((hear = listener), () => {}),
        create: async () => {},
        endings: () => (reads.push(Promise.withResolvers()), reads.at(-1)?.promise),
      },
    } as unknown as FanOutHost,
    dispatch as Dispatch,
    node as ForEachNode,
  );
  const over = fanOut.run();
  await setImmediate();
  hear(0, null);
  hear(1, null);

  state.frames.clear();
  for (const read of reads) read.resolve(new Map([[itemId(base, 0), { outcome: "failed" } as CloseHeader]]));
  await setImmediate();
  expect(reads).toHaveLength(1);
  await fanOut.look();
  await fanOut.stop();

  expect(await over).toBe(null);
});

test("a parent takes no place of its worker while its items run", async () => {
  const [reached, gate] = [newGate(), newGate()];
  const flow = defineFlow("distributedPlace");
  flow
    .to("make", () => [1])
    .forEach({ distribute: true })
    .to("each", () => (reached.open(), gate.passed))
    .endForEach();
  await using orchestrator = await serving(database, [flow], {}, { concurrency: 2 });
  const [worker] = orchestrator[internals].workers;
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  await reached.passed;
  expect(worker?.vitals.freeSlots).toBe(1);
  gate.open();
  await execution.waitForClose();
});

test("an item reads the state as it was at the fan-out, and what it writes comes back in the order of the items", async () => {
  const gates = [newGate(), newGate(), newGate()];
  const seen: unknown[] = [];
  const heard: unknown[] = [];
  const flow = defineFlow("distributedState");
  flow
    .to("make", async (ctx) => {
      await ctx.setState("tenant", "north");
      await ctx.setState("log", ["begin"]);
      await ctx.setState("gone", 1);
      return [0, 1, 2];
    })
    .forEach({ distribute: true })
    .to("each", async (ctx) => {
      if (ctx.input < 2) await gates[ctx.input + 1]?.passed;
      await ctx.appendState("log", ctx.input);
      await ctx.setState("last.item", ctx.input);
      if (ctx.input === 1) await ctx.delState("gone");
      await ctx.flush();
      gates[ctx.input]?.open();
      seen.push([ctx.getState("tenant"), ctx.getState("log"), ctx.getState("last"), ctx.getState("gone", "none")]);
    })
    .endForEach()
    .to("after", (ctx) => ctx.getState("log"))
    .end();
  flow.when({ state: "log" }).to("hear", (ctx) => void heard.push(ctx.input));
  await using orchestrator = await serving(database, [flow]);

  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  const snapshot = await execution.waitForClose();

  expect(snapshot).toEqual({
    tenant: "north",
    log: ["begin", 0, 1, 2],
    last: { item: 2 },
    $final_result: ["begin", 0, 1, 2],
  });
  expect(seen.toSorted(byText)).toEqual([
    ["north", ["begin", 0], { item: 0 }, 1],
    ["north", ["begin", 1], { item: 1 }, "none"],
    ["north", ["begin", 2], { item: 2 }, 1],
  ]);
  // Once for the parent's own write, once in each item; not again when the writes come back.
  expect(heard.toSorted(byText)).toEqual([["begin", 0], ["begin", 1], ["begin", 2], ["begin"]]);
  const [derived] = await sql`select flowledger.state_at(${execution.id}) as state`;
  const { $final_result: _, ...state } = snapshot;
  expect(derived?.["state"]).toEqual(state);
  await expectNothingLeft(execution.id);
});

test("an item of an item reads what both wrote before", async () => {
  const flow = defineFlow("distributedDeepState");
  flow
    .to("make", async (ctx) => (await ctx.setState("path", ["root"]), [1, 2]))
    .forEach({ distribute: true })
    .to("outer", async (ctx) => (await ctx.appendState("path", `o${String(ctx.input)}`), [ctx.input]))
    .forEach({ distribute: true })
    .to("inner", async (ctx) => {
      await ctx.appendState("path", `i${String(ctx.input)}`);
      return ctx.getState("path");
    })
    .endForEach()
    .endForEach()
    .end();
  await using orchestrator = await serving(database, [flow]);

  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  expect(await execution.waitForClose()).toEqual({
    path: ["root", "o1", "i1", "o2", "i2"],
    $final_result: [[["root", "o1", "i1"]], [["root", "o2", "i2"]]],
  });
  await expectNothingLeft(execution.id);
});

test("an item may pause: its interrupt is answered on the item, and the parent goes on with the answer", async () => {
  const flow = defineFlow("distributedPause");
  flow
    .to("make", () => ["a", "b"])
    .forEach({ distribute: true })
    .to("ask", (ctx) => (ctx.input === "b" ? ctx.pauseFor({ type: "approval", payload: ctx.input }) : ctx.input))
    .endForEach()
    .end();
  await using orchestrator = await serving(database, [flow]);

  const execution = await orchestrator
    .flow(flow)
    .startExecution(null, { autoCloseTimeout: 0, metadata: { tenant: "north" } });
  const pending = async () =>
    (await orchestrator.listPendingInterrupts({ flow: flow.name, metadata: { tenant: "north" } })).interrupts;
  await expect.poll(async () => (await pending()).length).toBe(1);
  const [interrupt] = await pending();
  const item = await orchestrator.getExecution(interrupt?.executionId ?? "");
  await item.continueWith(interrupt?.id ?? "", "yes");

  expect(interrupt).toMatchObject({ type: "approval", payload: "b" });
  expect((await item.result.getMeta()).parentId).toBe(execution.id);
  expect(await execution.waitForClose()).toEqual({ $final_result: ["a", "yes"] });
  await expectNothingLeft(execution.id);
});

test("an item of an execution that nobody holds cannot pause, and setResult() in an item is refused", async () => {
  const pausing = defineFlow("distributedHidden");
  pausing
    .to("make", () => [1])
    .forEach({ distribute: true })
    .to("ask", (ctx) => ctx.pauseFor({ type: "approval" }))
    .endForEach();
  const setting = defineFlow("distributedResult");
  setting
    .to("make", () => [1])
    .forEach({ distribute: true })
    .to("each", (ctx) => ctx.setResult(1))
    .endForEach();
  await using orchestrator = await serving(database, [pausing, setting]);

  const refused = (await refusal(orchestrator.flow(setting).start())) as Error;

  expect(await refusal(orchestrator.flow(pausing).start())).toBeInstanceOf(NoResumeHandleError);
  expect(String(refused.cause)).toContain("return the value, and call setResult() after endForEach()");
});

test(
  "a parent whose items take long is given back, and woken by the first that ends",
  { timeout: 30_000 },
  async () => {
    const gate = newGate();
    const flow = defineFlow("distributedLong");
    flow
      .to("make", () => [1, 2])
      .forEach({ distribute: true })
      .to("each", async (ctx) => (await gate.passed, ctx.input))
      .endForEach()
      .end();
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

    const isParked = async () => {
      const [row] =
        await sql`select owner, wake_at > now() + interval '50 seconds' as later from flowledger.executions where id = ${execution.id}`;
      return row;
    };
    await expect.poll(isParked, { timeout: 15_000, interval: 100 }).toEqual({ owner: null, later: true });
    gate.open();

    expect(await execution.waitForClose()).toEqual({ $final_result: [1, 2] });
    expect(await execution.history({ types: ["items.started"] })).toHaveLength(1);
    expect(await execution.history({ types: ["execution.claimed"] })).toHaveLength(2);
    await expectNothingLeft(execution.id);
  },
);

test("what the past says while items run: state as it was, and no copy that could not hear of them", async () => {
  const gate = newGate();
  const flow = defineFlow("distributedPast");
  flow
    .to("make", async (ctx) => (await ctx.setState("made", true), [1, 2]))
    .forEach({ distribute: true })
    .to("each", async (ctx) => (await gate.passed, ctx.input))
    .endForEach()
    .end();
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  const started = (await untilEvent(execution, "items.started")) as unknown as { seq: number };
  const children = () => sql<{ id: string }[]>`select id from flowledger.executions where parent_id = ${execution.id}`;
  await expect.poll(async () => (await children()).length).toBe(2);
  const [child] = await children();
  const item = await orchestrator.getExecution(child?.id ?? "");

  expect(await execution.stateAt(started.seq)).toEqual({ made: true });
  expect(await refusal(execution.save())).toBeInstanceOf(UsageError);
  expect(String(await refusal(execution.fork({ at: started.seq })))).toContain("more items");
  expect(String(await refusal(item.save()))).toContain("is an item of execution");
  gate.open();
  await execution.waitForClose();
  const early = await execution.fork({ at: started.seq - 1 });

  expect(await early.waitForClose()).toEqual({ made: true, $final_result: [1, 2] });
  await expectNothingLeft(early.id);
});
