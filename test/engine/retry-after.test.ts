/** `RetryAfterError`: whoever throws it says when the next try comes, within what the retry policy allows. */
import { expect, test } from "vitest";
import { defer } from "../../src/defer.ts";
import { defineFlow, RetryAfterError, type Execution, type RetryOptions } from "../../src/index.ts";
import { kit } from "../support/kit.ts";
import { refusal } from "../support/flows.ts";

const second = 1000;
const hour = 3600 * second;
/** When the clock of a kit begins. */
const begin = Date.parse("2026-01-01T09:00Z");
const busy = (retryAfter: ConstructorParameters<typeof RetryAfterError>[1]) => new RetryAfterError("busy", retryAfter);

async function waitsOf(execution: Pick<Execution, "history">): Promise<unknown[]> {
  const failed = await execution.history({ types: ["chunk.failed", "step.failed"] });
  return failed.map((event) => ("retryInMs" in event ? event.retryInMs : null));
}

test("a chunk, an item, a step and a function that throw it are tried again when it says, and the explanation says when that is", async () => {
  const retry = { maxAttempts: 2, initialInterval: "7s" };
  let tries = 0;
  const once = () => {
    if (++tries === 1) throw busy("90s");
    return tries;
  };
  const chunk = defineFlow("after.chunk");
  chunk.to("call", once, { retry });
  const item = defineFlow("after.item");
  item
    .to("list", () => [1])
    .forEach()
    .to("call", once, { retry })
    .endForEach();
  const step = defineFlow("after.step");
  step.to("call", (ctx) => ctx.step("service", once, { retry }));
  const called = defer(once, { name: "after.function", retry: { maxAttempts: 1 } });
  await using t = await kit({ flows: [chunk, item, step, called.flow] });

  for (const flow of [chunk, item, step, called.flow]) {
    tries = 0;
    const from = t.clock.now().getTime();
    const run = await t.start(flow, flow === called.flow ? [] : undefined);
    await run.until("idle");

    expect(await run.explain()).toMatchObject({ waits: [{ until: new Date(from + 90 * second) }] });
    expect(tries).toBe(1);
    await t.clock.advance("89s");
    expect(tries).toBe(1);
    await t.clock.advance("1s");
    expect(tries).toBe(2);
    await run.until("closed");
    expect(await waitsOf(run)).toEqual([90 * second]);
  }
});

const plain: RetryOptions = { maxAttempts: 2, initialInterval: "5s", jitter: false };
test.each<[string, ConstructorParameters<typeof RetryAfterError>[1], RetryOptions, number]>([
  ["no time is no wait", 0, plain, 0],
  ["less than the policy's own wait is taken as said", "2s", plain, 2 * second],
  ["a moment is waited for", new Date(begin + hour), { ...plain, maxInterval: "2h" }, hour],
  ["a moment that has passed leaves the wait to the policy", new Date(begin - 1), plain, 5 * second],
  ["a year is cut to the policy's longest wait, ten minutes by default", "365d", plain, 600 * second],
  ["a moment in a year is cut, too", new Date(begin + 365 * 24 * hour), { ...plain, maxInterval: "1h" }, hour],
  ["with waits it is cut to the longest of them", "3h", { waits: ["1s", "2h"] }, 2 * hour],
  ["jitter makes it neither shorter nor longer", "8s", { ...plain, jitter: true }, 8 * second],
])("%s", async (_, retryAfter, retry, waitMs) => {
  const flow = defineFlow("after.bounds");
  flow.to(
    "call",
    ({ attempt }) => {
      if (attempt === 1) throw busy(retryAfter);
    },
    { retry },
  );
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null);
  await run.until("idle");
  await t.clock.advance(waitMs);
  await run.until("closed");

  expect(await waitsOf(run)).toEqual([waitMs]);
});

test.each([-1, Number.NaN, Number.POSITIVE_INFINITY, "120", "soon", new Date(Number.NaN), null, undefined])(
  "%s is no time: the failure says so, with what was thrown, and is the last",
  async (retryAfter) => {
    const flow = defineFlow("after.odd");
    const throws = () => {
      throw busy(retryAfter as never);
    };
    flow.to("chunk", throws, { retry: plain });
    const inStep = defineFlow("after.odd.step");
    inStep.to("chunk", (ctx) => ctx.step("step", throws, { retry: plain }), { retry: plain });
    await using t = await kit({ flows: [flow, inStep] });

    for (const [one, where] of [
      [flow, 'chunk "chunk" (busy)'],
      [inStep, 'step "step" of chunk "chunk" (busy)'],
    ] as const) {
      const run = await t.start(one, null);
      expect(await refusal(run.until("closed"))).toMatchObject({
        cause: { name: "UsageError", message: expect.stringContaining(where) },
      });
      expect(t.calls("chunk")).toBe(one === flow ? 1 : 2);
    }
  },
);

test("it adds no try: maxAttempts and retryIf decide as for every error", async () => {
  const asked: unknown[] = [];
  const flow = defineFlow("after.last");
  const throws = () => {
    throw busy("1s");
  };
  flow.to("once", throws);
  const refused = defineFlow("after.refused");
  refused.to("call", throws, { retry: { ...plain, retryIf: (error) => (asked.push(error), false) } });
  await using t = await kit({ flows: [flow, refused] });

  for (const one of [flow, refused]) {
    const run = await t.start(one, null);
    expect(await refusal(run.until("closed"))).toMatchObject({ cause: { name: "RetryAfterError", message: "busy" } });
    expect(await waitsOf(run)).toEqual([null]);
  }
  expect(asked).toEqual([expect.any(RetryAfterError)]);
});

test("a chunk's timeout does not count the wait, the execution's does", async () => {
  let isBusy = true;
  const flow = defineFlow("after.timeouts");
  const retry = { maxAttempts: 2, maxInterval: "2h" };
  flow.to(
    "call",
    (ctx) =>
      ctx.step(
        "service",
        () => {
          if (isBusy) throw busy("1h");
        },
        { retry },
      ),
    { timeout: "10s" },
  );
  await using t = await kit({ flows: [flow] });

  const run = await t.start(flow, null);
  await run.until("idle");
  isBusy = false;
  await t.clock.advance("1h");
  await run.until("closed");
  expect(await waitsOf(run)).toEqual([hour]);

  isBusy = true;
  const short = await t.start(flow, null, { timeout: "30m" });
  await short.until("idle");
  await t.clock.advance("30m");
  expect(await refusal(short.until("closed"))).toMatchObject({ cause: { name: "ExecutionTimeoutError" } });
});

test("the wait survives its worker: cut off at any commit, another one tries again no sooner than the service has said", async () => {
  let tries = 0;
  const flow = defineFlow("after.cut");
  const retry = { maxAttempts: 2, maxInterval: "5h" };
  flow.to(
    "call",
    async (ctx) => {
      if (ctx.attempt === 1) throw busy("3h");
      const service = () => {
        if (++tries === 1) throw busy("2h");
      };
      await ctx.step("service", service, { retry });
    },
    { retry },
  );
  await using t = await kit({ flows: [flow] });

  const boundaries = await t.crashEverywhere(
    flow,
    null,
    async (run, { boundary }) => {
      await run.until("closed");
      const waits = await waitsOf(run);
      const [first, last] = [(await run.history()).at(0)?.at, (await run.history()).at(-1)?.at];
      expect(Number(last) - Number(first)).toBeGreaterThanOrEqual(waits.length === 2 ? 5 * hour : 3 * hour);
      // The second time the service is there, also where nobody heard of the first.
      const unheard = boundary?.startsWith("before") === true && boundary.includes("step.failed");
      expect(waits).toEqual(unheard ? [3 * hour] : [3 * hour, 2 * hour]);
    },
    { reset: () => (tries = 0) },
  );

  expect(boundaries.length).toBeGreaterThan(9);
});
