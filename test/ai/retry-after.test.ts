/** A provider that says when it may be called again is called then, and no sooner. */
import { APICallError, generateText, streamText, wrapLanguageModel, type LanguageModelMiddleware } from "ai";
import { expect, test } from "vitest";
import { agentFlow, durableCalls } from "../../src/ai.ts";
import { defineFlow, type Execution, type FlowDefinition, type RetryOptions } from "../../src/index.ts";
import { refusal } from "../support/flows.ts";
import { kit } from "../support/kit.ts";
import { modelOf, testProvider, type TestProvider } from "./provider.ts";

const second = 1000;
const now = "2026-01-01T09:00Z";
const retry: RetryOptions = { maxAttempts: 2, initialInterval: "5s", jitter: false };

async function waitsOf(execution: Pick<Execution, "history">): Promise<unknown[]> {
  const failed = await execution.history({ types: ["chunk.failed", "step.failed"] });
  return failed.map((event) => ("retryInMs" in event ? event.retryInMs : null));
}

/** Is there at the second request. */
const busyOnce = (headers: Readonly<Record<string, string>>, status = 429) =>
  testProvider((_, number) => (number === 1 ? { status, headers } : { text: ["Here"] }));

const agentOf = ({ url }: TestProvider, own = retry) => agentFlow("asked", { model: modelOf(url), retry: own });

/** Every way to call a model, with the retries that are its own. */
const ways: Readonly<Record<string, (provider: TestProvider) => FlowDefinition>> = {
  agentFlow: agentOf,
  generateText: (provider) => asking(provider, async (model) => (await generateText({ model, prompt: "?" })).text),
  streamText: (provider) => asking(provider, (model) => streamText({ model, prompt: "?", onError: () => {} }).text),
};

function asking({ url }: TestProvider, ask: (model: ReturnType<typeof wrapLanguageModel>) => PromiseLike<string>) {
  const flow = defineFlow("asked");
  flow.to("ask", async (ctx) => {
    const middleware = durableCalls(ctx, { retry });
    await ctx.setState("text", await ask(wrapLanguageModel({ model: modelOf(url), middleware })));
  });
  return flow;
}

test.each(Object.entries(ways))("%s waits as long as the provider says", async (_, define) => {
  await using provider = await busyOnce({ "retry-after": "42" });
  const flow = define(provider);
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, "Are you there?");
  await run.until("idle");

  expect((await run.explain()).sentence).toContain("tries again at 2026-01-01T09:00:42.000Z");
  await t.clock.advance("41s");
  expect(provider.asked).toHaveLength(1);
  await t.clock.advance("1s");
  expect(await run.until("closed")).toMatchObject({ text: "Here" });
  expect(await waitsOf(run)).toEqual([42 * second]);
});

test.each<[string, number, Readonly<Record<string, string>>]>([
  ["seconds", 30, { "retry-after": "30" }],
  ["seconds with a fraction", 0.25, { "retry-after": "0.25" }],
  ["milliseconds, which count more", 1.5, { "retry-after-ms": "1500", "retry-after": "7" }],
  ["a date", 120, { "retry-after": "Thu, 01 Jan 2026 09:02:00 GMT" }],
  ["a date that has passed", 5, { "retry-after": "Thu, 01 Jan 2026 08:59:59 GMT" }],
  ["no wait at all", 5, { "retry-after": "0" }],
  ["less than none", 5, { "retry-after": "-30", "retry-after-ms": "-1" }],
  ["no number", 5, { "retry-after": "NaN", "retry-after-ms": "soon" }],
  ["months", 600, { "retry-after": "7776000" }],
  ["a date in months", 600, { "retry-after": "Wed, 01 Apr 2026 09:00:00 GMT" }],
  ["more than a duration holds", 600, { "retry-after": "9".repeat(400) }],
])("of what it says %s is a wait of %d s", async (_, seconds, headers) => {
  for (const status of [429, 503]) {
    await using provider = await busyOnce(headers, status);
    const flow = agentOf(provider);
    await using t = await kit({ flows: [flow], now });
    const run = await t.start(flow, "Are you there?");
    await run.until("idle");
    await t.clock.advance(seconds * second);
    await run.until("closed");

    expect(await waitsOf(run)).toEqual([seconds * second]);
  }
});

test("a wait that the user allows may be longer than ten minutes", async () => {
  await using provider = await busyOnce({ "retry-after": "7200" });
  const flow = agentOf(provider, { ...retry, maxInterval: "1d" });
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, "Are you there?");
  await run.until("idle");
  await t.clock.advance("2h");
  await run.until("closed");

  expect(await waitsOf(run)).toEqual([7200 * second]);
});

test("retryIf of the user is asked about the provider's own error, and a final one is its cause", async () => {
  const asked: unknown[] = [];
  const found: unknown[] = [];
  const own = { ...retry, retryIf: (error: unknown) => (asked.push(error), false) };
  await using provider = await testProvider(() => ({ status: 429, headers: { "retry-after": "42" } }));
  const agent = agentOf(provider, own);
  const flow = defineFlow("caught");
  flow.to("ask", async (ctx) => {
    const model = wrapLanguageModel({ model: modelOf(provider.url), middleware: durableCalls(ctx, { retry: own }) });
    found.push(await refusal(generateText({ model, prompt: "?" })));
  });
  await using t = await kit({ flows: [agent, flow] });
  const failed = await t.start(agent, "Are you there?");

  expect(await refusal(failed.until("closed"))).toMatchObject({ cause: { message: "status 429" } });
  await (await t.start(flow)).until("closed");
  expect(asked.map((error) => APICallError.isInstance(error))).toEqual([true, true]);
  expect(found).toMatchObject([{ message: "status 429", cause: { statusCode: 429 } }]);
});

test("what may not help is not tried again, whatever it says, and the gateway's word counts as a provider's", async () => {
  await using provider = await testProvider(() => ({ status: 401, headers: { "retry-after": "1" } }));
  const isRetryableAt = (isRetryable: boolean): LanguageModelMiddleware => ({
    specificationVersion: "v4",
    wrapStream: async ({ doStream }) => {
      const cause = await refusal(Promise.resolve(doStream()));
      throw Object.assign(new Error("the gateway refuses", { cause }), { isRetryable });
    },
  });
  const through = (isRetryable: boolean) =>
    agentFlow(`gateway.${isRetryable}`, {
      model: wrapLanguageModel({ model: modelOf(provider.url), middleware: isRetryableAt(isRetryable) }),
      retry,
    });
  const expected = [
    [agentOf(provider), [null]],
    [through(false), [null]],
    [through(true), [second, null]],
  ] as const;
  await using t = await kit({ flows: expected.map(([flow]) => flow) });

  for (const [flow, waits] of expected) {
    const run = await t.start(flow, "Are you there?");
    await run.until("idle");
    await t.clock.advance("1s");
    await refusal(run.until("closed"));
    expect(await waitsOf(run)).toEqual(waits);
  }
});
