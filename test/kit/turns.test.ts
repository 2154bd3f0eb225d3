/** Side by side in a chunk, and again in its retry: which effect is whose, which one won, and what a lost race may not do. */
import postgres from "postgres";
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import type { Ctx } from "../../src/index.ts";
import type { TestOrchestrator, TestRun } from "../../src/test.ts";
import { kit } from "../support/kit.ts";

const retry = { maxAttempts: 3, initialInterval: "1m", jitter: false } as const;
const years = "9000d";

async function untilClosed(t: TestOrchestrator, run: TestRun): Promise<void> {
  for (await t.settle(); await run.isOpen(); await t.settle()) if (!(await t.clock.next())) break;
}

const child = defineFlow("turns-child");
child.to("sleep", (ctx) => ctx.sleep(Number(ctx.input)).then(() => `slept ${Number(ctx.input)}`)).end();

/** Fails once, after everything. */
function flowOf(body: (ctx: Ctx) => Promise<unknown>) {
  const flow = defineFlow("turns");
  const seen: unknown[] = [];
  flow
    .to(
      "work",
      async (ctx) => {
        seen.push(await body(ctx as unknown as Ctx));
        if (ctx.attempt === 1) throw new Error("once");
        return seen.length;
      },
      { retry },
    )
    .end();
  return { flow, seen };
}

const bodies: Record<string, { readonly body: (ctx: Ctx) => Promise<unknown>; readonly comes: unknown }> = {
  "branches that ended in another order than they began": {
    body: (ctx) =>
      Promise.all(
        ["2h", "1h"].map(async (wait, branch) => {
          await ctx.sleep(wait);
          const first = await ctx.step("same name", () => `first of ${branch}`);
          return [first, await ctx.step("same name", () => `second of ${branch}`)];
        }),
      ),
    comes: [
      ["first of 0", "second of 0"],
      ["first of 1", "second of 1"],
    ],
  },
  "two calls of one child that ended the other way round": {
    body: (ctx) =>
      Promise.all(
        [7_200_000, 3_600_000].map(async (ms, branch) => {
          const slept = await ctx.call(child, ms);
          return [slept, await ctx.step("after", () => branch)];
        }),
      ),
    comes: [
      ["slept 7200000", 0],
      ["slept 3600000", 1],
    ],
  },
  "a step that won against a sleep that is over by now": {
    body: async (ctx) => {
      const winner = await Promise.race([ctx.sleep("1h").then(() => "sleep"), ctx.step("fast", () => "step")]);
      await ctx.sleep("2h");
      return [winner, await ctx.step(`after ${winner}`, () => winner)];
    },
    comes: ["step", "step"],
  },
  "a sleep that won against a child that has ended by now": {
    body: async (ctx) => {
      const winner = await Promise.race([ctx.call(child, 7_200_000), ctx.sleep("1h").then(() => "sleep")]);
      await ctx.step(`after ${String(winner)}`, () => null);
      await ctx.sleep("2h");
      return winner;
    },
    comes: "sleep",
  },
  "a flush that came before a sleep's end": {
    body: async (ctx) => {
      const said: string[] = [];
      const say = (what: string) => void said.push(what);
      await Promise.all([
        ctx.sleep("1h").then(() => say("slept")),
        (async () => {
          await ctx.setState("a", 1);
          await ctx.flush();
          say("flushed");
          await ctx.step("s", () => null);
          say("step");
        })(),
      ]);
      return said;
    },
    comes: ["flushed", "step", "slept"],
  },
};

for (const [what, { body, comes }] of Object.entries(bodies))
  test(`every run of a chunk sees the same: ${what}`, async () => {
    const { flow, seen } = flowOf(body);
    await using t = await kit({ flows: [flow, child] });
    const run = await t.start(flow, null);

    await untilClosed(t, run);

    expect(seen.length).toBeGreaterThan(1);
    for (const value of seen) expect(value).toEqual(comes);
  });

test("who has won is kept also where nothing was recorded since, and the attempt failed", async () => {
  const flow = defineFlow("turns-won");
  const winners: unknown[] = [];
  flow
    .to(
      "work",
      async (ctx) => {
        const winner = await Promise.race([
          ctx.call(child, 7_200_000).then(() => "child"),
          ctx.sleep("1h").then(() => "sleep"),
        ]);
        winners.push(winner);
        if (ctx.attempt === 1) throw new Error("once");
      },
      // By then the child has ended as well.
      { retry: { maxAttempts: 2, initialInterval: "5h", jitter: false } },
    )
    .end();
  await using t = await kit({ flows: [flow, child] });
  const run = await t.start(flow, null);

  await untilClosed(t, run);

  expect(winners).toEqual(["sleep", "sleep"]);
});

test("a transaction that fails at its commit takes nothing along: who had won before it is kept with what follows", async () => {
  const flow = defineFlow("turns-transaction");
  const seen: unknown[] = [];
  flow
    .to(
      "work",
      async (ctx) => {
        const winner = await Promise.race([
          ctx.call(child, 7_200_000).then(() => "child"),
          ctx.sleep("1h").then(() => "sleep"),
        ]);
        // Its constraint is looked at when it commits, behind the record of the chunk.
        const sent = await ctx
          .transaction("twice", async (tx) => {
            await tx.query("insert into twice values (1)");
            return "in";
          })
          .catch((error: unknown) => (error instanceof Error ? error.name : "?"));
        await ctx.step(`after ${winner}`, () => null);
        await ctx.sleep("5h");
        seen.push([winner, sent]);
      },
      { retry },
    )
    .end();
  await using t = await kit({ flows: [flow, child] });
  const sql = postgres(t.database, { max: 1, onnotice: () => {} });
  await sql`create table twice (n int, unique (n) deferrable initially deferred)`;
  await sql`insert into twice values (1)`;
  await sql.end();
  const run = await t.start(flow, null);

  await untilClosed(t, run);

  expect(seen).toEqual([["sleep", expect.stringMatching(/error/i)]]);
  await run.waitForClose();
});

test("a race with a far sleep in front goes on in a retry", async () => {
  const { flow, seen } = flowOf((ctx) =>
    Promise.race([
      ctx.sleep(years).then(() => "late"),
      (async () => {
        await ctx.step("first", () => 1);
        await ctx.step("second", () => 2);
        return "in time";
      })(),
    ]),
  );
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null);

  await untilClosed(t, run);

  expect(seen).toEqual(["in time", "in time"]);
  expect(t.clock.now().getUTCFullYear()).toBe(2026);
});

test("the end of an attempt is no time to park, whatever a lost race still waits for", async () => {
  const flow = defineFlow("turns-put");
  let ends = 0;
  flow.to("work", async (ctx) => {
    await Promise.race([ctx.sleep(years), ctx.step("s", () => 1)]);
    for (let n = 0; n < 50; n++) await ctx.putIntoStream(n);
    ends++;
  });
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null);

  await untilClosed(t, run);

  expect(ends).toBe(1);
});
