/** What types a background function carries: its arguments and its result, nothing written twice. */
import { expectTypeOf, test } from "vitest";
import { assignOptions, awaitResult, defer, delay, getExecution } from "../../src/defer.ts";
import type { FunctionState } from "../../src/defer.ts";
import { defineFlow } from "../../src/index.ts";
import type { ExecutionId, Json } from "../../src/index.ts";

const compute = defer(async function compute(n: number, options?: { scale: number }) {
  return { scaled: n * (options?.scale ?? 1) };
});
const silent = defer(function silent() {});

test("a call takes the function's arguments and gives an id", () => {
  expectTypeOf<Parameters<typeof compute>>().toEqualTypeOf<[n: number, options?: { scale: number } | undefined]>();
  expectTypeOf<ReturnType<typeof compute>>().toEqualTypeOf<Promise<{ readonly id: ExecutionId }>>();
  // @ts-expect-error -- a text is no number
  void (() => compute("1"));
});

test("awaitResult keeps the arguments and gives the result; nothing is null", () => {
  expectTypeOf(awaitResult(compute)).toEqualTypeOf<
    (n: number, options?: { scale: number }) => Promise<{ scaled: number }>
  >();
  expectTypeOf(awaitResult(silent)).returns.toEqualTypeOf<Promise<null>>();
});

test("options keep the types", () => {
  expectTypeOf(assignOptions(compute, { delay: "1h" })).toEqualTypeOf(compute);
  expectTypeOf(awaitResult(delay(compute, new Date()))).returns.resolves.toEqualTypeOf<{ scaled: number }>();
  // @ts-expect-error -- metadata are texts
  void (() => assignOptions(compute, { metadata: { n: 1 } }));
  // @ts-expect-error -- a scheduled function has nobody to give it arguments
  void (() => defer.cron((n: number) => n, "* * * * *"));
});

test("ctx.call infers the arguments as a list, and the result", () => {
  defineFlow("typed").to("call", async (ctx) => {
    expectTypeOf(await ctx.call(compute, [1, { scale: 2 }])).toEqualTypeOf<{ scaled: number }>();
    // @ts-expect-error -- not the arguments of the function
    void (() => ctx.call(compute, ["1"]));
  });
});

test("an execution by id has any JSON as its result", () => {
  expectTypeOf(getExecution).returns.resolves.toHaveProperty("result").toEqualTypeOf<Json | undefined>();
  expectTypeOf(getExecution).returns.resolves.toHaveProperty("state").toEqualTypeOf<FunctionState>();
});
