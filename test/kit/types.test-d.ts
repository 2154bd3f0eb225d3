/** What the compiler knows in a test: mocks are typed by the chunk they replace, runs by their flow. */
import { expectTypeOf, test } from "vitest";
import { z } from "zod";
import { defineFlow, type Ctx, type InputOf } from "../../src/index.ts";
import { testOrchestrator } from "../../src/test.ts";

const refund = defineFlow("refund", {
  input: z.object({ amount: z.number() }),
  state: z.object({ paid: z.number() }).partial(),
  events: { Paid: z.object({ by: z.string() }) },
});
const chain = refund
  .to("charge", async (ctx) => ({ id: `of ${ctx.input.amount}` }))
  .to("approve", (ctx) => ctx.pauseFor({ response: z.object({ ok: z.boolean() }) }))
  .to("pay", async (ctx) => {
    if (!ctx.input.ok) throw new Error("no");
  })
  .to("score", () => ({ of: 5 }), { input: z.coerce.number(), output: z.object({ of: z.number() }) });
type Contract = (typeof refund)["contract"];

test("a mock takes what the chunk takes", () => {
  void testOrchestrator({
    flows: [chain],
    mocks: {
      refund: {
        charge: async (ctx) => {
          expectTypeOf(ctx).toEqualTypeOf<Ctx<Contract, InputOf<Contract>>>();
          expectTypeOf(ctx.input.amount).toBeNumber();
          return { id: "x" };
        },
        approve: (ctx) => {
          expectTypeOf(ctx.input).toEqualTypeOf<{ id: string }>();
          return { ok: true };
        },
        score: (ctx) => {
          expectTypeOf(ctx.input).toBeNumber();
          return { of: 1 };
        },
      },
    },
  });
});

test("a mock returns what the chunk returns", () => {
  expectTypeOf(chain.name).toBeString();
  void testOrchestrator({
    flows: [chain],
    mocks: {
      refund: {
        // @ts-expect-error an id is a text
        charge: async () => ({ id: 5 }),
        // @ts-expect-error an answer has `ok`
        approve: () => ({ yes: true }),
        // @ts-expect-error its input is a number
        score: (ctx: Ctx<Contract, string>) => ({ of: ctx.input.length }),
      },
    },
  });
  void testOrchestrator({
    flows: [chain],
    mocks: {
      refund: {
        charge: () => ({ id: "at once" }),
        approve: (ctx) => ctx.pauseFor({ response: z.object({ ok: z.boolean() }) }),
        pay: () => {},
      },
    },
  });
});

test("a chunk that the type does not know still has the ctx of its flow", () => {
  void testOrchestrator({
    flows: [refund],
    mocks: {
      refund: {
        charge: async (ctx) => {
          expectTypeOf(ctx.getState()).toEqualTypeOf<{ paid?: number | undefined }>();
          // @ts-expect-error there is no such key
          await ctx.setState("other", 1);
          return { id: "x" };
        },
      },
    },
  });
  // Whether there are such flows is said when the test runs.
  void testOrchestrator({ flows: [refund], mocks: { child: { any: () => 1 } } });
});

test("options and runs are typed by the flow", async () => {
  const t = await testOrchestrator({ flows: [refund] });
  // @ts-expect-error the amount is a number
  void t.start(refund, { amount: "900" });
  // @ts-expect-error there is no such option
  void testOrchestrator({ flows: [refund], clock: "x" });
  const run = await t.start(refund, { amount: 900 }, { metadata: { of: "a test" } });

  expectTypeOf(await run.until("closed")).toExtend<{ paid?: number | undefined }>();
  expectTypeOf((await run.until({ waiting: "approve" })).id).toBeString();
  expectTypeOf(await run.until({ chunk: "charge", attempt: 2 })).toBeVoid();
  // @ts-expect-error a payload has who it is by
  void run.emit("Paid", { of: "me" });
  // @ts-expect-error there is no such condition
  void run.until("paused");
  expectTypeOf((await t.clock.next())?.what).toEqualTypeOf<string | undefined>();
  expectTypeOf(t.clock.now()).toEqualTypeOf<Date>();
  expectTypeOf(t.effects("charge")).toBeNumber();
});

test("what is known of a flow makes it no other flow", () => {
  const flows = [defineFlow("a"), defineFlow("b").to("c", () => 1)];
  for (const flow of [defineFlow("a"), defineFlow("b")]) flow.to("same", () => 1).to("next", (ctx) => ctx.input + 1);

  expectTypeOf(flows[0]?.name).toEqualTypeOf<string | undefined>();
});
