/** Application state inside chunks: writes and reads, dot paths, copies, and what `when({ state })` hears of it. */
import { afterAll, expect, test } from "vitest";
import { z } from "zod";
import { systemTimers } from "../../src/base/timers.ts";
import type { Committer } from "../../src/engine/committer.ts";
import { defineFlow } from "../../src/index.ts";
import type { Ctx } from "../../src/index.ts";
import { Orchestrator } from "../../src/orchestrator.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, refusal, serving } from "../support/flows.ts";

const database = await testDatabase();

const chunks = new Map<string, (ctx: Ctx) => Promise<void>>();
const one = defineFlow("one");
one.to("only", (ctx) => chunks.get(String(ctx.input))?.(ctx));
const shared = await serving(database, [one]);
afterAll(() => shared.close());

/** The close snapshot that one chunk leaves. */
async function after(chunk: (ctx: Ctx) => Promise<void>): Promise<object> {
  const name = crypto.randomUUID();
  chunks.set(name, chunk);
  return shared.flow(one).start(name);
}

test("TF-STA-01: a chunk reads its own write at once, the next chunk reads it too", async () => {
  const flow = defineFlow("own");
  flow
    .to("write", async (ctx) => {
      await ctx.setState("n", 1);
      return ctx.getState("n");
    })
    .to("read", (ctx) => ctx.setState("seen", [ctx.input, ctx.getState("n")]));
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot).toEqual({ n: 1, seen: [1, 1] });
});

test("TF-STA-01: another execution never sees it", async () => {
  const flow = defineFlow("apart", { input: z.number() });
  flow.to("only", async (ctx) => {
    await ctx.setState(`seen${ctx.input}`, ctx.getState());
    await ctx.setState("n", ctx.input);
  });
  await using orchestrator = await serving(database, [flow]);

  const first = await orchestrator.flow(flow).start(1);
  const second = await orchestrator.flow(flow).start(2);

  expect([first, second]).toEqual([
    { n: 1, seen1: {} },
    { n: 2, seen2: {} },
  ]);
});

test("TF-STA-02: setState replaces the whole value, nothing of the old one stays", async () => {
  const snapshot = await after(async (ctx) => {
    await ctx.setState("map", { a: 1, b: { c: 2 } });
    await ctx.setState("map", { d: 3 });
    await ctx.setState("list", [1, 2]);
    await ctx.setState("list", []);
  });

  expect(snapshot).toEqual({ map: { d: 3 }, list: [] });
});

test("TF-STA-03, LI-CTX-01: a dot path makes the objects on its way and keeps what stands beside it", async () => {
  const snapshot = await after(async (ctx) => {
    await ctx.setState("a.b.c", 1);
    await ctx.setState("a.d", 2);
    await ctx.flush();
    await ctx.setState("a.b.e", 3);
  });

  expect(snapshot).toEqual({ a: { b: { c: 1, e: 3 }, d: 2 } });
});

test.each([
  ["a text", "text"],
  ["a list", [{}]],
  ["null", null],
])("TF-STA-03: a dot path through %s is refused and changes nothing", async (_, value) => {
  const snapshot = await after(async (ctx) => {
    await ctx.setState("a", value);
    const error = await refusal(ctx.setState("a.b", 1));
    await ctx.setState("message", String(error));
  });

  expect(snapshot).toEqual({ a: value, message: expect.stringMatching(/state "a\.b".*"a" is not an object/) });
});

test.each(["", ".a", "a.", "a..b", "__proto__", "a.__proto__.b"])("the key %j is refused", async (key) => {
  const snapshot = await after(async (ctx) => {
    const error = await refusal(ctx.setState(key, 1));
    await ctx.setState("code", (error as { code: string }).code);
  });

  expect(snapshot).toEqual({ code: "USAGE_INVALID" });
});

test("a state never has a prototype in a constructor, which no value may have", async () => {
  await after(async (ctx) => {
    const writes = [
      ctx.setState("constructor.prototype.a", 1),
      ctx.appendState("a.constructor.prototype", 1),
      ctx.setState("a.constructor", { prototype: 1 }),
    ];
    for (const write of writes) expect(await refusal(write)).toMatchObject({ code: "USAGE_INVALID" });
    await ctx.setState("constructor.own", { prototypes: 1 });
  });
});

test("a key that names a part of every object is a key like any other", async () => {
  const snapshot = await after(async (ctx) => {
    await ctx.setState("missing", ctx.getState("toString", "nothing"));
    await ctx.setState("constructor", 1);
    await ctx.setState("read", ctx.getState("constructor"));
    await ctx.setState("valueOf.own", 1);
    await ctx.appendState("toString", 1);
    await ctx.setState("list", ctx.getState("toString"));
  });

  expect(Object.entries(snapshot).toSorted(([a], [b]) => a.localeCompare(b))).toEqual([
    ["constructor", 1],
    ["list", [1]],
    ["missing", "nothing"],
    ["read", 1],
    ["toString", [1]],
    ["valueOf", { own: 1 }],
  ]);
});

test("TF-STA-04: appendState makes a list, extends one, and puts a single value before the new one", async () => {
  const snapshot = await after(async (ctx) => {
    await ctx.appendState("missing", 1);
    await ctx.setState("list", [1]);
    await ctx.appendState("list", [2]);
    await ctx.setState("single", "old");
    await ctx.appendState("single", "new");
    await ctx.appendState("deep.list", 1);
  });

  expect(snapshot).toEqual({ missing: [1], list: [1, [2]], single: ["old", "new"], deep: { list: [1] } });
});

test("TF-STA-04, LI-HIT-10: appends from chunks beside each other are all kept", async () => {
  const flow = defineFlow("appends");
  flow
    .to("make", () => Array.from({ length: 20 }, (_, index) => index))
    .forEach()
    .to("append", (ctx) => ctx.appendState("all", ctx.input))
    .endForEach();
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect((snapshot["all"] as number[]).toSorted((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, i) => i));
});

test("TF-STA-05: delState deletes falsy values and nested keys, and a missing key is no error", async () => {
  const snapshot = await after(async (ctx) => {
    for (const [key, value] of Object.entries({ zero: 0, text: "", list: [], none: null, no: false })) {
      await ctx.setState(key, value);
      await ctx.delState(key);
    }
    await ctx.setState("a", { b: 1, c: 2 });
    await ctx.delState("a.b");
    await ctx.delState("a.x.y");
    await ctx.delState("missing");
  });

  expect(snapshot).toEqual({ a: { c: 2 } });
});

test("TF-STA-05: deleting a missing key leaves no ledger event", async () => {
  const flow = defineFlow("noop");
  flow.to("only", (ctx) => ctx.delState("missing"));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  await execution.waitForClose();

  expect(await execution.history({ types: ["state.deleted"] })).toEqual([]);
});

test("TF-RES-03, LI-CTX-01: getState reads dot paths; missing gives the fallback, null does not, lists have no paths", async () => {
  const snapshot = await after(async (ctx) => {
    await ctx.setState("a", { b: 1, none: null, list: [1] });
    const read = [
      ctx.getState("a.b"),
      ctx.getState("a.none", "fallback"),
      ctx.getState("a.list.0", "fallback"),
      ctx.getState("a.b.c", "fallback"),
      ctx.getState("x"),
    ];
    await ctx.setState("read", read);
  });

  expect(snapshot).toMatchObject({ read: [1, null, "fallback", "fallback", null] });
});

test("TF-STA-06: the close snapshot has every key and value", async () => {
  const values = { text: "ü\n🦆", number: -1.5e300, no: false, none: null, list: [[], {}], map: { "a b": { "": 1 } } };

  const snapshot = await after(async (ctx) => {
    for (const [key, value] of Object.entries(values)) await ctx.setState(key, value);
  });

  expect(snapshot).toEqual(values);
});

test("TF-STA-07: when({ state }) runs with the new value of a set, an append and a delete, in order", async () => {
  const flow = defineFlow("watched");
  flow.when({ state: "k" }).to("heard", (ctx) => ctx.appendState("heard", [ctx.input]));
  flow.to("write", async (ctx) => {
    await ctx.setState("k", 1);
    await ctx.appendState("k", 2);
    await ctx.delState("k");
  });
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot).toEqual({ heard: [[1], [[1, 2]], [null]] });
});

test("TF-STA-07: emit: false and writes below the key are not heard", async () => {
  const flow = defineFlow("unheard");
  flow.when({ state: "k" }).to("heard", (ctx) => ctx.appendState("heard", ctx.input));
  flow.to("write", async (ctx) => {
    await ctx.setState("k", { loud: true });
    await ctx.setState("k", { quiet: true }, { emit: false });
    await ctx.setState("k.below", 1);
    await ctx.delState("k", { emit: false });
  });
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot).toEqual({ heard: [{ loud: true }] });
});

test("TF-STA-07: forEach after when({ state }) runs over the whole list that an append made", async () => {
  const flow = defineFlow("watchedList");
  flow
    .when({ state: "items" })
    .forEach()
    .to("each", (ctx) => ctx.input)
    .endForEach()
    .to("all", (ctx) => ctx.appendState("seen", ctx.input));
  flow.to("write", async (ctx) => {
    await ctx.setState("items", ["a", "b"], { emit: false });
    await ctx.appendState("items", "c");
  });
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start(null, { timeout: "2s" });

  expect(snapshot).toEqual({ items: ["a", "b", "c"], seen: [["a", "b", "c"]] });
});

test("TF-STA-07: a condition after when({ state }) is asked about each write's own value", async () => {
  const flow = defineFlow("watchedConditions");
  flow
    .when({ state: "n" })
    .ifCondition((ctx) => ctx.input === 1)
    .to("one", (ctx) => ctx.appendState("one", ctx.input))
    .elseCondition()
    .to("other", (ctx) => ctx.appendState("other", ctx.input))
    .endCondition();
  flow.to("write", async (ctx) => {
    await ctx.setState("n", 1);
    await ctx.setState("n", 2);
  });
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot).toEqual({ n: 2, one: [1], other: [2] });
});

test("TF-STA-08: the state version rises with every write", async () => {
  const flow = defineFlow("versions");
  flow.when("Write").to("write", (ctx) => ctx.setState("n", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).createExecution({ autoClose: false });

  const versions = [(await execution.result.getMeta()).stateVersion];
  for (let n = 0; n < 3; n++) {
    await execution.emit("Write", n);
    versions.push((await execution.result.getMeta()).stateVersion);
  }

  expect(versions).toEqual([...new Set(versions)].toSorted((a, b) => a - b));
  expect(versions).toHaveLength(4);
});

test("TF-STA-02: what a chunk changes in values it read or wrote never reaches the state", async () => {
  const snapshot = await after(async (ctx) => {
    const written = { list: [1] };
    await ctx.setState("a", written);
    written.list.push(2);
    const read = ctx.getState("a") as { list: number[] };
    read.list.push(3);
    const whole = ctx.getState() as unknown as { a: { list: number[] } };
    whole.a.list.push(4);
    await ctx.flush();
    (ctx.getState("a.list") as number[]).push(5);
  });

  expect(snapshot).toEqual({ a: { list: [1] } });
});

test("chunks beside each other each get an input of their own", async () => {
  const flow = defineFlow("inputs");
  const made = flow.to("make", () => ({ list: ["made"] }));
  for (const name of ["a", "b"])
    made.to(name, async (ctx) => {
      ctx.input.list.push(name);
      await ctx.setState(name, ctx.input.list);
    });
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot).toEqual({ a: ["made", "a"], b: ["made", "b"] });
});

test("what a condition changes in its input reaches nobody", async () => {
  const flow = defineFlow("conditions");
  flow
    .to("make", () => ({ list: ["made"] }))
    .ifCondition((ctx) => ctx.input.list.push("condition") > 0)
    .to("then", (ctx) => ctx.input)
    .endCondition()
    .to("keep", (ctx) => ctx.setState("list", ctx.input.list));
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot).toEqual({ list: ["made"] });
});

test("what a chunk changes in the value of a step is not there when a retry gets it back", async () => {
  const flow = defineFlow("steps");
  flow.to(
    "only",
    async (ctx) => {
      const value = await ctx.step("read", () => ({ list: [1] }));
      value.list.push(2);
      if (ctx.attempt === 1) throw new Error("again");
      await ctx.setState("list", value.list);
    },
    { retry: { maxAttempts: 2, initialInterval: 1 } },
  );
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(snapshot).toEqual({ list: [1, 2] });
});

test("TF-CON-01: the state contract coerces a key, and checks what a dot path or an append makes of it", async () => {
  const flow = defineFlow("typed", {
    state: z.object({ n: z.coerce.number(), list: z.array(z.number()), at: z.object({ x: z.number() }) }).partial(),
  });
  flow
    .to("only", async (ctx) => {
      await ctx.setState("n", "7");
      await ctx.appendState("list", 1);
      const refused = [
        await refusal(ctx.appendState("list", "two" as never)),
        await refusal(ctx.setState("at.y" as never, 1 as never)),
        await refusal(ctx.setState("unknown" as never, 1 as never)),
      ];
      return refused.map((error) => (error as { code: string }).code);
    })
    .end();
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  const code = "CONTRACT_VIOLATED";
  expect(snapshot).toEqual({ n: 7, list: [1], $final_result: [code, code, code] });
});

test("what a chunk wrote before another one begins is there for that, whatever was on its way meanwhile", async () => {
  const answering = newGate();
  const committer = (inner: Committer): Committer => ({
    ...inner,
    async commit(item) {
      if (item.events.some((event) => event.type === "chunk.completed" && event.chunk === "first")) {
        answering.open();
        // The other one ends while this is on its way.
        for (let turns = 0; turns < 5; turns++) await new Promise(setImmediate);
      }
      return inner.commit(item);
    },
  });
  const flow = defineFlow("ended.meanwhile");
  // What follows from the first commit of an owner begins before that is in.
  flow.to("first", (ctx) => ctx.step("note", () => 1)).to("next", (ctx) => ctx.setState("seen", ctx.getState("wrote")));
  flow.to("beside", async (ctx) => {
    await answering.passed;
    await ctx.setState("wrote", true);
  });
  const connection = database.url;
  await using orchestrator = new Orchestrator({ connection, flows: [flow] }, systemTimers, true, { committer });
  await orchestrator.startWorker({ drainTimeout: "1s" });

  expect(await orchestrator.flow(flow).start(null)).toEqual({ wrote: true, seen: true });
});

/** What either of them leaves. */
const oneSum = [
  { a: 8, b: 0 },
  { a: 0, b: 8 },
];

/** Two items append to a list of two at once, which may have three, and add to a sum. */
async function twoBeside(last: (ctx: Ctx) => Promise<void>) {
  const flow = defineFlow(`beside.${crypto.randomUUID().slice(0, 8)}`, {
    state: z
      .object({
        list: z.array(z.number()).max(3),
        sum: z.object({ a: z.number(), b: z.number() }).refine(({ a, b }) => a + b <= 10, "too much"),
        seen: z.array(z.array(z.number())),
      })
      .partial(),
  });
  const both = Promise.withResolvers<void>();
  let written = 0;
  flow
    .to("begin", async (ctx) => {
      await ctx.setState("list", [0, 0]);
      await ctx.setState("sum", { a: 0, b: 0 });
      return ["a", "b"] as const;
    })
    .forEach({ concurrency: 2 })
    .to("beside", async (ctx) => {
      await ctx.appendState("list", 1);
      await ctx.setState(`sum.${ctx.input}`, 8);
      if (++written === 2) both.resolve();
      await both.promise;
      await last(ctx as never);
    })
    .endForEach();
  const orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(undefined, { autoCloseTimeout: 0 });
  return { orchestrator, execution };
}

test("TF-CON-01: chunks side by side never break together what the contract says of a key: one of them fails", async () => {
  const { orchestrator, execution } = await twoBeside(async () => {});
  await using _closed = orchestrator;

  expect(await refusal(execution.waitForClose())).toMatchObject({
    code: "EXECUTION_FAILED",
    message: expect.stringContaining('state "list"') as string,
  });

  const { list, sum } = await execution.result.getState();
  expect(list).toEqual([0, 0, 1]);
  expect(oneSum).toContainEqual(sum);
  expect(await orchestrator.verify()).toEqual([]);
});

test("TF-CON-01: a flush that is refused for what others wrote meanwhile wrote nothing, and the chunk may go on", async () => {
  const { orchestrator, execution } = await twoBeside(async (ctx) => {
    const refused = await ctx.flush().then(
      () => false,
      () => true,
    );
    if (refused) await ctx.appendState("seen", ctx.getState("list"));
  });
  await using _closed = orchestrator;

  const { list, sum, seen } = await execution.waitForClose();

  expect({ list, seen }).toEqual({ list: [0, 0, 1], seen: [[0, 0, 1]] });
  expect(oneSum).toContainEqual(sum);
  expect(await orchestrator.verify()).toEqual([]);
});

test("TF-CON-01: a delete below a key is judged by what the contract says of what is left", async () => {
  const flow = defineFlow("left", {
    state: z.object({ order: z.object({ total: z.number(), note: z.string().optional() }) }).partial(),
  });
  flow.to("write", async (ctx) => {
    await ctx.setState("order", { total: 1, note: "n" });
    await ctx.delState("order.note");
    await ctx.delState("order.total");
  });
  await using orchestrator = await serving(database, [flow]);

  const execution = await orchestrator.flow(flow).startExecution(undefined, { autoCloseTimeout: 0 });

  expect(await refusal(execution.waitForClose())).toMatchObject({ message: expect.stringContaining('state "order"') });
});
