/** Effects beside a wait of an hour: each happens once, goes on at once, and then nobody holds the execution. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import type { Ctx, FlowDefinition } from "../../src/index.ts";
import { verify } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";
import { serving } from "../support/flows.ts";

const database = await testDatabase();
await database.sql`create table beside (what text)`;

const child = defineFlow("beside-child");
child.to("work", () => new Promise<string>((resolve) => setTimeout(resolve, 20, "child"))).end();

const pause = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

/** Each says `count` whenever its code runs. */
const effects: Record<string, (ctx: Ctx, count: () => void) => Promise<unknown>> = {
  "a step that is done at once": (ctx, count) => ctx.step("s", count),
  "a step that takes a while": (ctx, count) => ctx.step("s", async () => (await pause(150), count())),
  "a step that succeeds at its second try": (ctx, count) => {
    let tries = 0;
    const work = () => {
      if (++tries === 1) throw new Error("not yet");
      count();
    };
    return ctx.step("s", work, { retry: { maxAttempts: 3, initialInterval: "50ms", jitter: false } });
  },
  "a step behind a step": async (ctx, count) => {
    await ctx.step("first", () => pause(20));
    await ctx.step("second", count);
  },
  "a step behind a short sleep": async (ctx, count) => {
    await ctx.sleep("50ms");
    await ctx.step("s", count);
  },
  "a step behind two that stand side by side": async (ctx, count) => {
    await Promise.all([ctx.step("a", () => pause(10)), ctx.step("b", () => pause(30))]);
    await ctx.step("s", count);
  },
  "a transaction": (ctx, count) =>
    ctx.transaction("t", async (tx) => {
      count();
      await tx.query("insert into beside values ('t')");
    }),
  "a call of a child": async (ctx, count) => {
    await ctx.call(child, null);
    await ctx.step("s", count);
  },
  "an emit that is waited for": async (ctx, count) => {
    await ctx.emit("Said", null, { wait: true });
    await ctx.step("s", count);
  },
  "a flush": async (ctx, count) => {
    await ctx.setState("flushed", true);
    await ctx.flush();
    await ctx.step("s", count);
  },
};

function flowOf(name: string, body: (ctx: Ctx) => Promise<unknown>): FlowDefinition {
  const flow = defineFlow(name.replaceAll(" ", "-"));
  flow.when("Said").to("heard", () => pause(20));
  flow.to("work", async (ctx) => {
    await body(ctx as unknown as Ctx);
  });
  return flow;
}

async function untilFree(id: string): Promise<void> {
  await expect
    .poll(async () => {
      const [row] = await database.sql<[{ free: boolean }]>`
        select owner is null as free from flowledger.executions where id = ${id}::uuid`;
      return row.free;
    })
    .toBe(true);
}

for (const [what, effect] of Object.entries(effects))
  for (const [order, run] of Object.entries({
    "begun before it": (ctx: Ctx, count: () => void) => [effect(ctx, count), ctx.sleep("1h")],
    "begun after it": (ctx: Ctx, count: () => void) => [ctx.sleep("1h"), effect(ctx, count)],
  })) {
    test(`${what}, ${order}, happens once, and then the execution is let go`, async () => {
      let count = 0;
      const flow = flowOf(`all ${what} ${order}`, (ctx) => Promise.all(run(ctx, () => void (count += 1))));
      await using orchestrator = await serving(database, [flow, child]);
      const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

      await expect.poll(() => count).toBe(1);
      await untilFree(execution.id);
      const before = await execution.history();
      // Two looks: nothing moves any more.
      await pause(300);
      expect(await execution.history()).toEqual(before);
      expect(count).toBe(1);

      // Whoever has it next finds everything done.
      await execution.emit("Said", null);
      await expect
        .poll(async () => (await execution.history({ types: ["chunk.completed"] })).length)
        .toBeGreaterThan(before.filter(({ type }) => type === "chunk.completed").length);
      await untilFree(execution.id);
      expect(count).toBe(1);
      expect(await execution.cancel()).toBe(true);
      expect(await verify(database.sql, { id: execution.id })).toEqual([]);
    });

    test(`${what}, ${order}, wins a race against it at once`, async () => {
      let count = 0;
      const flow = flowOf(`race ${what} ${order}`, (ctx) => Promise.race(run(ctx, () => void (count += 1))));
      await using orchestrator = await serving(database, [flow, child]);
      const began = performance.now();

      await orchestrator.flow(flow).start(null, { autoCloseTimeout: 0 });

      expect(performance.now() - began).toBeLessThan(3000);
      expect(count).toBe(1);
    });
  }
