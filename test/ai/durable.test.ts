/** Model calls and tools of the AI SDK inside any chunk. */
import { generateText, isStepCount, streamText, tool, ToolLoopAgent, wrapLanguageModel } from "ai";
import { expect, test } from "vitest";
import { z } from "zod";
import { durableCalls, durableTools, idempotencyKeyOf } from "../../src/ai.ts";
import { defineFlow, UsageError, type Ctx } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { serving } from "../support/flows.ts";
import { expectGuarantees } from "../support/ledger.ts";
import { modelOf, said, testProvider } from "./provider.ts";

const database = await testDatabase();
const { sql } = database;
const calls = [
  { name: "weather", input: { city: "Oslo" } },
  { name: "weather", input: { city: "Bergen" } },
];

/** Three ways to call a model: each gives its text. */
type Setup = { model: ReturnType<typeof wrapLanguageModel>; tools: { weather: ReturnType<typeof weatherOf> } };
const ways: Readonly<Record<string, (setup: Setup) => PromiseLike<string>>> = {
  generateText: async ({ model, tools }) =>
    (await generateText({ model, tools, prompt: "Will it rain?", stopWhen: isStepCount(5) })).text,
  streamText: ({ model, tools }) =>
    streamText({ model, tools, prompt: "Will it rain?", stopWhen: isStepCount(5) }).text,
  ToolLoopAgent: async ({ model, tools }) =>
    (await new ToolLoopAgent({ model, tools }).generate({ prompt: "Will it rain?" })).text,
};

const ran: string[] = [];
function weatherOf() {
  return tool({
    inputSchema: z.object({ city: z.string() }),
    execute: ({ city }, options) => {
      ran.push(`${city} ${idempotencyKeyOf(options)}`);
      return { city, rain: true };
    },
  });
}

test.each(Object.keys(ways))(
  "a retry of a chunk makes no call again that %s had completed, and runs no tool again",
  async (way) => {
    await using provider = await testProvider(said({ calls }, { text: ["It ", "rains."] }));
    ran.length = 0;
    const seen: string[] = [];
    const flow = defineFlow(`durable-${way}`);
    flow.to(
      "ask",
      async (ctx) => {
        const model = wrapLanguageModel({ model: modelOf(provider.url), middleware: durableCalls(ctx) });
        const text = await ways[way]?.({ model, tools: durableTools(ctx, { weather: weatherOf() }) });
        seen.push(text ?? "");
        if (ctx.attempt < 3) throw new Error("later");
        await ctx.setState("text", text);
      },
      { retry: { waits: [1, 1] } },
    );
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

    const state = await execution.waitForClose();
    const items = await Array.fromAsync(execution.getRuntimeStream({ timeout: null }), (item) =>
      String(Object(item).type),
    );

    expect(state).toEqual({ text: "It rains." });
    expect(seen).toEqual(["It rains.", "It rains.", "It rains."]);
    expect(provider.asked).toHaveLength(2);
    expect(ran.map((line) => line.split(" ")[0])).toEqual(["Oslo", "Bergen"]);
    expect(new Set(ran.map((line) => line.split(" ")[1])).size).toBe(2);
    expect(items.filter((type) => type === "start-step")).toHaveLength(2);
    expect(items.filter((type) => type === "text-delta")).toHaveLength(1);
    await expectGuarantees(sql, execution.id);
  },
);

test("a call that failed is made again as the provider allows, and never by the SDK beside that", async () => {
  await using provider = await testProvider(
    said({ status: 500 }, { text: ["then"] }, { status: 500 }, { status: 500 }),
  );
  const flow = defineFlow("trying");
  flow.to("ask", async (ctx) => {
    const middleware = durableCalls(ctx, { retry: { maxAttempts: 2, initialInterval: 1 } });
    const model = wrapLanguageModel({ model: modelOf(provider.url), middleware });
    await ctx.setState("text", (await generateText({ model, prompt: "?" })).text);
  });
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start(null)).toEqual({ text: "then" });
  await expect(orchestrator.flow(flow).start(null)).rejects.toThrow("status 500");
  expect(provider.asked).toHaveLength(4);
});

test("a flow whose stream takes other things streams none of it, and the types say so", async () => {
  await using provider = await testProvider(said({ text: ["quiet"] }));
  const flow = defineFlow("quiet", { stream: z.string() });
  flow.to("ask", async (ctx) => {
    // @ts-expect-error its stream takes texts
    const loud = () => durableCalls(ctx);
    expect(loud).toBeTypeOf("function");
    const model = wrapLanguageModel({ model: modelOf(provider.url), middleware: durableCalls(ctx, { stream: false }) });
    await ctx.setState("text", (await generateText({ model, prompt: "?" })).text);
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  expect(await execution.waitForClose()).toEqual({ text: "quiet" });
  expect(await Array.fromAsync(execution.getRuntimeStream({ timeout: null }))).toEqual([]);
});

test("what a tool gives and no ledger can hold is told with its path", async () => {
  await using provider = await testProvider(said({ calls }, { text: ["?"] }));
  const odd = tool({ inputSchema: z.object({ city: z.string() }), execute: () => ({ at: { place: 10n } }) });
  const flow = defineFlow("unstorable");
  const found: unknown[] = [];
  flow.to("ask", async (ctx) => {
    const model = wrapLanguageModel({ model: modelOf(provider.url), middleware: durableCalls(ctx) });
    const { content } = await generateText({ model, tools: durableTools(ctx, { weather: odd }), prompt: "?" });
    for (const part of content) if (part.type === "tool-error") found.push(String(part.error));
  });
  await using orchestrator = await serving(database, [flow]);
  await orchestrator.flow(flow).start(null);

  expect(found).toHaveLength(2);
  expect(found[0]).toContain('output of tool "weather" at at.place');
});

test("what cannot be meant is refused where it is written", async () => {
  const flow = defineFlow("refusing");
  const found: unknown[] = [];
  flow.to("ask", (ctx: Ctx) => {
    const wrong: (() => unknown)[] = [
      () => durableCalls(ctx, { retries: 3 } as object),
      () => durableCalls(ctx, { name: "" }),
      () => durableTools(ctx, { weather: { execute: () => 1 } } as never),
      () => durableCalls({} as never),
    ];
    for (const one of wrong)
      try {
        found.push(one());
      } catch (error) {
        found.push(error instanceof UsageError ? error.message : error);
      }
  });
  await using orchestrator = await serving(database, [flow]);
  await orchestrator.flow(flow).start(null);

  expect(found).toEqual([
    expect.stringContaining('unknown option "retries"'),
    expect.stringContaining("name of durableCalls()"),
    expect.stringContaining('tool "weather" of durableTools() has no inputSchema'),
    expect.stringContaining("durableCalls() got no ctx"),
  ]);
});
