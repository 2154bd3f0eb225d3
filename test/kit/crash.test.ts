/** `crashEverywhere`: what survives a crash at every commit passes, and a bug that only a crash shows is found where it is. */
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { defineFlow, type Flow, type Json } from "../../src/index.ts";
import type { Contract } from "../../src/flow/contract.ts";
import { CrashFoundError } from "../../src/test.ts";
import { crashEverywhere, type Lab } from "../../src/test/crash.ts";
import { kit } from "../support/kit.ts";

const refund = defineFlow("refund", {
  input: z.number(),
  state: z.object({ paid: z.number(), notes: z.array(z.string()) }).partial(),
});
refund
  .to("charge", (ctx) => ({ id: `of ${ctx.input}` }))
  .to("pay", async (ctx) => {
    const id = await ctx.step("bank", (_signal, key) => key);
    await ctx.transaction("row", () => 1);
    await ctx.appendState("notes", "paid");
    await ctx.sleep("1d");
    await ctx.setState("paid", 1);
    return id;
  })
  .to("approve", (ctx) => ctx.pauseFor({ expiresIn: "30d" }))
  .to("mail", (ctx) => ctx.appendState("notes", "mailed"));

test("a flow that is right survives a crash before, in and after each of its commits: another worker takes over, and what was never committed runs again", async () => {
  await using t = await kit({ flows: [refund] });
  const ends = new Set<string>();
  const cuts: (string | null)[] = [];
  const charged: Record<string, number[]> = { before: [], in: [], after: [] };
  const claims: Record<string, number> = {};
  const workers = new Set<string>();

  const boundaries = await t.crashEverywhere(refund, 900, async (run, { effects, calls, boundary }) => {
    cuts.push(boundary);
    const [phase = "none"] = boundary?.split(" ") ?? [];
    if (boundary?.includes('chunk.completed "charge"')) charged[phase]?.push(calls("charge"));
    const claimed = await run.history({ types: ["execution.claimed"] });
    if (boundary === null || boundary.includes('step.completed "bank"')) claims[phase] = claimed.length;
    for (const event of claimed) if ("worker" in event) workers.add(event.worker);

    await run.answer("approve", true);
    const snapshot = await run.until("closed");
    ends.add(JSON.stringify(snapshot));
    expect(["charge", "bank", "row", "mail"].map(effects)).toEqual([1, 1, 1, 1]);
    expect(calls("charge")).toBeLessThanOrEqual(2);
  });

  expect([...ends]).toEqual(['{"paid":1,"notes":["paid","mailed"]}']);
  // Once without a crash.
  expect(cuts).toEqual([null, ...boundaries]);
  expect(boundaries.length % 3).toBe(0);
  expect(boundaries.slice(0, 3).map((boundary) => boundary.split(" ")[0])).toEqual(["before", "in", "after"]);
  expect(boundaries.join("\n")).toMatch(/^after commit \d+ of \d+ \(.*step\.completed "bank"/m);
  expect(boundaries.join("\n")).toMatch(/^in commit \d+ of \d+ \(step\.completed "row"\)$/m);
  expect(charged).toMatchObject({ before: [2], after: [1] });
  const { none = 0 } = claims;
  expect(claims).toEqual({ none, before: none + 1, in: none + 1, after: none + 1 });
  expect(workers.size).toBe(2);
  // The kit itself is where it was.
  expect(t.clock.now().toISOString()).toBe("2026-01-01T09:00:00.000Z");
  expect((await t.orchestrator.listExecutions()).executions).toEqual([]);
});

test("families survive a crash at every commit of the parent and of what it waits for: calls, sub-flows, distributed items", async () => {
  const child = defineFlow("kit.child");
  child.to("double", (ctx) => Number(ctx.input) * 2).end();
  const family = defineFlow("kit.family");
  family
    .to("call", (ctx) => ctx.call<number, Json>({ name: "kit.child" }, 1))
    .toSubFlow(child)
    .to("list", (ctx) => [ctx.input, ctx.input])
    .forEach({ distribute: true })
    .to("item", (ctx) => ctx.input)
    .endForEach()
    .end();
  await using t = await kit({ flows: [family, child] });

  const boundaries = await t.crashEverywhere(family, null, async (run, { effects }) => {
    expect(await run.until("closed")).toEqual({ $final_result: [4, 4] });
    expect(["call", "double", "list", "item"].map(effects)).toEqual([1, 2, 1, 2]);
  });

  expect(boundaries.join("\n")).toMatch(/^in commit \d+ of \d+ \(chunk\.completed "double"/m);
}, 60_000);

test("a chunk that goes on from its own state comes to the same end wherever it is cut", async () => {
  const own = defineFlow("kit.own");
  own.to("count", async (ctx) => {
    await ctx.setState("first", ctx.getState("at", "none"));
    for (let at = Number(ctx.getState("at", 0)); at < 4; at = Number(ctx.getState("at"))) {
      await ctx.setState("at", at + 1);
      await ctx.appendState("seen", ctx.getState("seen", []));
      if (at === 1) await ctx.sleep("30d");
      else if (at === 2) await ctx.step("look", () => at);
      else await ctx.flush();
    }
  });
  await using t = await kit({ flows: [own] });
  const ends = new Set<string>();

  await t.crashEverywhere(own, null, async (run) => {
    ends.add(JSON.stringify(await run.until("closed")));
  });

  const last = [[], [[]], [[], [[]]], [[], [[]], [[], [[]]]]];
  expect([...ends].map((end) => JSON.parse(end))).toEqual([{ first: "none", at: 4, seen: last }]);
}, 60_000);

test("steps beside a far sleep, and a race against one, survive a crash at every commit", async () => {
  const beside = defineFlow("kit.beside");
  beside
    .to("together", async (ctx) => {
      const inARow = async () => {
        await ctx.step("second", () => 2);
        await ctx.step("third", () => 3);
      };
      await Promise.all([ctx.step("first", () => 1), ctx.sleep("1h"), inARow()]);
      return await Promise.race([ctx.step("winner", () => "step"), ctx.sleep("2d").then(() => "sleep")]);
    })
    .to("after", (ctx) => ctx.setState("won", ctx.input));
  await using t = await kit({ flows: [beside] });

  await t.crashEverywhere(beside, null, async (run, { effects }) => {
    expect(await run.until("closed")).toEqual({ won: "step" });
    const all = ["first", "second", "third", "winner", "together", "after"];
    expect(all.map(effects)).toEqual(all.map(() => 1));
  });
});

test("a check that fails without a crash is no finding", async () => {
  await using t = await kit({ flows: [refund] });

  const failed = t.crashEverywhere(refund, 900, () => {
    throw new RangeError("always");
  });

  await expect(failed).rejects.toThrow(RangeError);
});

test("no schedule starts anything beside what is cut", async () => {
  const ticking = defineFlow("kit.ticking").to("tick", () => null);
  const resting = defineFlow("kit.resting").to("rest", (ctx) => ctx.sleep("3d"));
  await using t = await kit({ flows: [resting], schedules: [{ flow: ticking, cron: "0 7 * * *" }] });
  const ticks: number[] = [];

  await t.crashEverywhere(resting, null, async (run, { calls }) => {
    await run.until("closed");
    ticks.push(calls("tick"));
  });

  expect(new Set(ticks)).toEqual(new Set([0]));
});

test("a guarantee that is broken is told by its name, although the check finds nothing wrong", async () => {
  const closed = { isOpen: async () => false, getPendingInterrupts: async () => [] };
  const lab = {
    flow: "kit.broken",
    driver: { settle: async () => {}, next: async () => null },
    begun: { mark: 0 },
    newId: () => "01900000-0000-7000-8000-000000000001",
    start: async () => closed,
    reset: () => {},
    arm: async () => {},
    disarm: async () => [],
    verify: async () => [{ invariant: "I2", executionId: "-", detail: "a gap" }],
  };

  // Of the kit only what a run asks.
  const tried = crashEverywhere(lab as unknown as Lab<Contract>, () => {});

  await expect(tried).rejects.toMatchObject({ code: "TEST_GUARANTEES_BROKEN", message: "I2: a gap" });
});

test("an option that there is not is refused", async () => {
  await using t = await kit({ flows: [refund] });

  await expect(t.crashEverywhere(refund, 900, () => {}, { times: 3 } as never)).rejects.toThrow(
    'unknown option "times"',
  );
});

/** What a system outside has seen. */
class Outside {
  seen: string[] = [];
  readonly keys = new Set<string>();

  charge(what: string, key?: string): void {
    if (key !== undefined && this.keys.has(key)) return;
    if (key !== undefined) this.keys.add(key);
    this.seen.push(what);
  }

  reset(): void {
    this.seen = [];
    this.keys.clear();
  }
}

describe("ten bugs that only a crash shows", () => {
  const outside = new Outside();
  let memory: Record<string, unknown> = {};
  const reset = () => {
    outside.reset();
    memory = {};
  };
  const once = () => expect(outside.seen).toEqual(["charge"]);

  const bugs: [name: string, at: RegExp, build: (flow: Flow) => unknown, check?: () => unknown][] = [
    [
      "an effect in a chunk, without a key",
      /^before commit .*chunk\.completed "pay"/,
      (flow) => flow.to("pay", () => outside.charge("charge")),
    ],
    [
      "an effect in a chunk, before a step",
      /^before commit .*step\.completed "note"/,
      (flow) =>
        flow.to("pay", async (ctx) => {
          outside.charge("charge");
          await ctx.step("note", () => 1);
        }),
    ],
    [
      "an effect between two steps",
      /^after commit .*step\.completed "first"|^before commit .*step\.completed "second"/,
      (flow) =>
        flow.to("pay", async (ctx) => {
          await ctx.step("first", () => 1);
          outside.charge("charge");
          await ctx.step("second", () => 1);
        }),
    ],
    [
      "a step whose effect ignores its key",
      /^before commit .*step\.completed "bank"/,
      (flow) => flow.to("pay", (ctx) => ctx.step("bank", () => outside.charge("charge"))),
    ],
    [
      "a key that is new in each attempt",
      /^before commit .*step\.completed "bank"/,
      (flow) => flow.to("pay", (ctx) => ctx.step("bank", () => outside.charge("charge", crypto.randomUUID()))),
    ],
    [
      "an effect after a sleep that is no step",
      /commit .*(sleep\.started|chunk\.completed "pay")/,
      (flow) =>
        flow.to("pay", async (ctx) => {
          await ctx.sleep("1d");
          outside.charge("charge");
        }),
    ],
    [
      "an effect outside of the database in a transaction",
      /^before commit/,
      (flow) => flow.to("pay", (ctx) => ctx.transaction("row", () => outside.charge("charge"))),
    ],
    [
      "memory of the process in the place of state",
      /commit .*chunk\.completed "remember"/,
      (flow) =>
        flow
          .to("remember", (ctx) => {
            const before = Number(memory[ctx.execution.id] ?? 0);
            memory[ctx.execution.id] = before + 1;
          })
          .to("pay", (ctx) => {
            for (let i = 0; i < Number(memory[ctx.execution.id]); i++)
              outside.charge("charge", `${ctx.execution.id} ${i}`);
          }),
    ],
    [
      "an order that depends on who is first",
      /commit/,
      (flow) =>
        flow.to("pay", async (ctx) => {
          await ctx.step("first", () => outside.charge("first", "first"));
          outside.charge("looked", `${ctx.idempotencyKey} ${outside.seen.length}`);
          await ctx.step("second", () => outside.charge("second", "second"));
        }),
      () => expect(outside.seen).toEqual(["first", "looked", "second"]),
    ],
    [
      "an effect of one item of a collection, without a key",
      /^before commit .*chunk\.completed/,
      (flow) =>
        flow
          .to("items", () => [1, 2, 3])
          .forEach({ concurrency: 1 })
          .to("each", (ctx) => outside.charge(`item ${String(ctx.input)}`))
          .endForEach(),
      () => expect(outside.seen).toEqual(["item 1", "item 2", "item 3"]),
    ],
  ];

  test.each(bugs)("%s", { timeout: 60_000 }, async (name, at, build, check = once) => {
    const flow = defineFlow(`bug-${bugs.findIndex(([bug]) => bug === name)}`);
    build(flow);
    await using t = await kit({ flows: [flow] });

    const found: unknown = await t.crashEverywhere(flow, null, check, { reset }).then(
      (boundaries) => boundaries,
      (error: unknown) => error,
    );

    expect(found).toBeInstanceOf(CrashFoundError);
    expect((found as CrashFoundError).details.boundary).toMatch(at);
    expect((found as CrashFoundError).message).toContain((found as CrashFoundError).details.boundary);
  });
});
