/** What fails outside of a step, beside effects, is tried again like any function: what is recorded is found by whoever comes to it. */
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, expect, test } from "vitest";
import { verify } from "../../src/store/verify.ts";
import { defineFlow } from "../../src/index.ts";
import type { Ctx } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, serving } from "../support/flows.ts";

const database = await testDatabase();
const soon = { maxAttempts: 4, initialInterval: 10, jitter: false } as const;
const bodies = new Map<string, (ctx: Ctx) => unknown>();
const child = defineFlow("other-way.child");
child.to("answer", (ctx) => ctx.input).end();
const flow = defineFlow("other-way");
flow.to("chunk", (ctx) => bodies.get(String(ctx.input))?.(ctx as Ctx), { retry: soon });
flow.when("Said").to("heard", (ctx) => ctx.appendState("heard", ctx.input));
const orchestrator = await serving(database, [flow, child]);
afterAll(() => orchestrator.close());

let count = 0;
function start(body: (ctx: Ctx) => unknown) {
  const name = `body ${++count}`;
  bodies.set(name, body);
  return orchestrator.flow(flow).startExecution(name, { autoCloseTimeout: 0 });
}

/** One branch fails in plain code, once the other has done what it does first; then it goes on, and so does the other. */
function besides(
  ctx: Ctx,
  other: (ctx: Ctx, have: (value: unknown) => void) => Promise<void>,
  mine: (ctx: Ctx) => Promise<unknown>,
) {
  const { promise: recorded, resolve: have } = Promise.withResolvers<unknown>();
  const failing = async () => {
    if (ctx.attempt === 1) {
      await recorded;
      throw new Error("plain code");
    }
    return mine(ctx);
  };
  return Promise.all([failing(), other(ctx, have)]).then(() => null);
}

test("a step that comes before recorded ones in the second attempt is new, and they are not run again", async () => {
  const runs: string[] = [];
  const step = (ctx: Ctx, name: string) => ctx.step(name, () => void runs.push(name));
  const execution = await start((ctx) =>
    besides(
      ctx,
      async (_, have) => {
        for (const name of ["one", "two", "three"]) await step(ctx, name);
        have(true);
        await step(ctx, "four");
      },
      async () => {
        await step(ctx, "mine");
        await step(ctx, "mine too");
        // The third attempt comes to what the second recorded before the first one's.
        if (ctx.attempt === 2) throw new Error("plain code again");
      },
    ),
  );

  await execution.waitForClose();
  expect(runs.toSorted()).toEqual(["four", "mine", "mine too", "one", "three", "two"]);
});

test("so are writes, emits, calls and sleeps, and each branch has its own", async () => {
  const execution = await start((ctx) =>
    besides(
      ctx,
      async (_, have) => {
        await ctx.appendState("theirs", await ctx.call(child, "theirs"));
        await ctx.emit("Said", "theirs");
        await ctx.sleep(2);
        await ctx.appendState("theirs", ctx.getState("theirs"));
        await ctx.flush();
        have(true);
        await ctx.appendState("theirs", "last");
      },
      async () => {
        await ctx.appendState("mine", await ctx.call(child, "mine"));
        await ctx.emit("Said", "mine");
        await ctx.sleep(3);
        await ctx.appendState("mine", ctx.getState("mine"));
      },
    ),
  );

  const { heard, ...snapshot } = await execution.waitForClose();
  expect(snapshot).toEqual({ mine: ["mine", ["mine"]], theirs: ["theirs", ["theirs"], "last"] });
  expect((heard as string[]).toSorted()).toEqual(["mine", "theirs"]);
  expect(await execution.history({ types: ["sleep.started"] })).toMatchObject([{ forMs: 2 }, { forMs: 3 }]);
  expect(await execution.history({ types: ["child.started"] })).toHaveLength(2);
});

test("what comes to nobody in the meantime is waited for while the branch beside it does something else", async () => {
  const runs: string[] = [];
  const execution = await start((ctx) =>
    besides(
      ctx,
      async (_, have) => {
        await ctx.step("one", () => void runs.push("one"));
        await delay(30);
        await ctx.step("two", () => void runs.push("two"));
        have(true);
        await delay(5);
      },
      () => ctx.step("mine", () => void runs.push("mine")),
    ),
  );

  await execution.waitForClose();
  expect(runs).toEqual(["one", "two", "mine"]);
});

test.concurrent.each<[string, (ctx: Ctx) => Promise<unknown>]>([
  [
    "in a retry",
    async (ctx) => {
      const slow = async () => {
        await delay(ctx.attempt === 1 ? 20 : 1300);
        await ctx.step("slow", () => null);
      };
      const failing = async () => {
        await delay(ctx.attempt === 1 ? 100 : 1);
        if (ctx.attempt === 1) throw new Error("plain code");
        await ctx.step("new", () => null);
      };
      await Promise.all([slow(), failing()]);
    },
  ],
  [
    "as slow as it was before",
    async (ctx) => {
      const slow = async () => {
        await delay(ctx.attempt === 1 ? 1500 : 3500);
        await ctx.step("slow", () => null);
      };
      const failing = async () => {
        await delay(ctx.attempt === 1 ? 1600 : 1);
        if (ctx.attempt === 1) throw new Error("plain code");
        await ctx.step("new", () => null);
      };
      await Promise.all([slow(), failing()]);
    },
  ],
])("plain code before a recorded step may take its time beside a new one: %s", { timeout: 20_000 }, async (_, body) => {
  const execution = await start((ctx) => body(ctx).then(() => null));

  await execution.waitForClose();
  expect(await execution.history({ types: ["step.completed"] })).toMatchObject([{ name: "slow" }, { name: "new" }]);
});

test("what has only begun binds no other attempt", async () => {
  const execution = await start(async (ctx) => {
    if (ctx.attempt === 1) {
      const sleeping = ctx.sleep(60_000);
      await ctx.setState("tried", true);
      await ctx.flush();
      void sleeping.then(() => {});
      throw new Error("plain code");
    }
    await ctx.setState("tried", true);
    await ctx.step("instead", () => null);
  });

  expect(await execution.waitForClose()).toEqual({ tried: true });
});

test.concurrent.each<[string, (ctx: Ctx) => Promise<unknown>, RegExp]>([
  ["a call with another input", (ctx) => ctx.call(child, ctx.attempt), /did call "other-way.child" with another value/],
  [
    "a step without the one before it",
    async (ctx) => {
      if (ctx.attempt === 1) await ctx.step("first", () => 1);
      await ctx.step("second", () => 2);
    },
    /did step "second" as effect 0, where an earlier attempt did step "first"/,
  ],
  [
    "a write that nobody awaits",
    async (ctx) => {
      void ctx.setState("n", ctx.attempt);
      if (ctx.attempt === 1) await ctx.flush();
    },
    /did set "n" with another value/,
  ],
  [
    "an emit that cannot be awaited",
    async (ctx) => {
      ctx.emitNoWait("Said", ctx.attempt);
      if (ctx.attempt === 1) await ctx.flush();
    },
    /did emit "Said" with another value/,
  ],
])("a chunk that runs alone and goes another way is a mismatch: %s", async (_, work, message) => {
  const execution = await start(async (ctx) => {
    await work(ctx);
    if (ctx.attempt === 1) throw new Error("again");
  });

  const error = await refusal(execution.waitForClose());
  expect(error).toMatchObject({ cause: { name: "JournalMismatchError" } });
  expect(String(error)).toMatch(message);
});

test("a sleep whose time is counted from now is the recorded one when it is over", async () => {
  const execution = await start(async (ctx) => {
    await ctx.sleep(ctx.attempt);
    await ctx.setState("a", 1);
    await ctx.sleep(10 - ctx.attempt);
    await ctx.step("b", () => null);
    await ctx.sleep(new Date(ctx.attempt));
    if (ctx.attempt < 3) throw new Error("again");
  });

  expect(await execution.waitForClose()).toEqual({ a: 1 });
  expect((await execution.history({ types: ["sleep.started"] })).length).toBeLessThanOrEqual(5);
});

test("and so is one that catches it", async () => {
  const execution = await start(async (ctx) => {
    await ctx.step(ctx.attempt === 1 ? "charge" : "refund", () => null).catch(() => {});
    if (ctx.attempt === 1) throw new Error("again");
  });

  expect(await refusal(execution.waitForClose())).toMatchObject({ cause: { name: "JournalMismatchError" } });
});

test("after all of this every invariant holds", async () => {
  expect(await verify(database.sql)).toEqual([]);
});
