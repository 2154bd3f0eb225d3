/** What a provider or a tool may answer beside what is meant: ids that come again, nothing at all, no JSON, too much. */
import * as ai from "ai";
import { MockLanguageModelV4 } from "ai/test";
import { expect, test } from "vitest";
import { z } from "zod";
import { agentFlow, durableCalls, durableTools, toUIMessageChunks } from "../../src/ai.ts";
import { historyAfter } from "../../src/ai/turns.ts";
import { defineFlow, type Ctx, type Execution, type FlowDefinition } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, serving, untilEvent } from "../support/flows.ts";
import { expectGuarantees } from "../support/ledger.ts";
import { modelOf, said, testProvider, type Said, type TestProvider } from "./provider.ts";

const database = await testDatabase();
const { sql } = database;
const atOnce = { autoCloseTimeout: 0 };
const look = (city: string, id?: string) => ({ name: "look", input: { city }, ...(id !== undefined && { id }) });
const lookTool = (execute: (city: string) => unknown = (city) => `rain in ${city}`) =>
  ai.tool({ inputSchema: z.object({ city: z.string() }), execute: ({ city }) => execute(city) });

type Model = Exclude<ai.LanguageModel, string>;
type Tools = { readonly look: ReturnType<typeof lookTool> };
/** Every way to call a model with tools. */
const ways: Readonly<Record<string, (model: Model, tools: Tools) => FlowDefinition>> = {
  agentFlow: (model, tools) => agentFlow("answers.agent", { model, tools, retry: { initialInterval: 1 } }),
  generateText: (model, tools) =>
    inChunk("answers.generate", async (ctx) => {
      const { text } = await ai.generateText({
        ...durable(ctx, model, tools),
        prompt: "?",
        stopWhen: ai.isStepCount(5),
      });
      return text;
    }),
  streamText: (model, tools) =>
    inChunk(
      "answers.stream",
      (ctx) => ai.streamText({ ...durable(ctx, model, tools), prompt: "?", stopWhen: ai.isStepCount(5) }).text,
    ),
};

function inChunk(name: string, ask: (ctx: Ctx) => PromiseLike<string>): FlowDefinition {
  return defineFlow(name).to("ask", async (ctx: Ctx) => ctx.setState("text", await ask(ctx)));
}

function durable(ctx: Ctx, model: Model, tools: Tools) {
  const middleware = durableCalls(ctx, { retry: { initialInterval: 1 } });
  return { model: ai.wrapLanguageModel({ model, middleware }), tools: durableTools(ctx, tools) };
}

/** The parts that a page has in the end. */
async function pageOf(execution: Execution) {
  let page: ai.UIMessage | undefined;
  const stream = ReadableStream.from(toUIMessageChunks(execution));
  for await (const message of ai.readUIMessageStream({ stream })) page = message;
  return (page?.parts ?? []).filter(({ type }) => type !== "step-start");
}

const toolsAsked = (provider: TestProvider) => provider.asked.at(-1)?.messages.filter(({ role }) => role === "tool");

/** A model that gives two calls one id, and passes on what it is asked then. */
function sameIds(provider: TestProvider): Model {
  const calls = ["Oslo", "Bergen"].map((city) => ({ toolName: "look", input: JSON.stringify({ city }) }));
  const usage = {
    inputTokens: { total: 1, noCache: 1, cacheRead: undefined, cacheWrite: undefined },
    outputTokens: { total: 1, text: 1, reasoning: undefined },
  };
  const end = { finishReason: { unified: "tool-calls" as const, raw: "tool_calls" }, usage };
  const isFirst = (prompt: readonly { readonly role: string }[]) => prompt.at(-1)?.role !== "tool";
  const middleware: ai.LanguageModelMiddleware = {
    specificationVersion: "v4",
    wrapGenerate: async ({ doGenerate, params: { prompt } }) =>
      isFirst(prompt)
        ? { content: calls.map((call) => ({ type: "tool-call", toolCallId: "call_0", ...call })), ...end, warnings: [] }
        : doGenerate(),
    wrapStream: async ({ doStream, params: { prompt } }) =>
      isFirst(prompt)
        ? {
            stream: ReadableStream.from([
              { type: "stream-start" as const, warnings: [] },
              ...calls.flatMap((call) => [
                { type: "tool-input-start" as const, id: "call_0", toolName: call.toolName },
                { type: "tool-input-delta" as const, id: "call_0", delta: call.input },
                { type: "tool-input-end" as const, id: "call_0" },
                { type: "tool-call" as const, toolCallId: "call_0", ...call },
              ]),
              { type: "finish" as const, ...end },
            ]),
          }
        : doStream(),
  };
  return ai.wrapLanguageModel({ model: modelOf(provider.url), middleware });
}

test.each(Object.keys(ways))(
  "%s: calls of one answer with the same id run apart, and the model and the page tell them apart",
  async (way) => {
    await using provider = await testProvider(said({ text: ["Wet"] }));
    const flow = ways[way]?.(sameIds(provider), { look: lookTool() }) ?? defineFlow("none");
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution("?", atOnce);

    expect(await execution.waitForClose()).toMatchObject({ text: "Wet" });
    expect(await pageOf(execution)).toMatchObject([
      { toolCallId: "call_0", input: { city: "Oslo" }, output: "rain in Oslo" },
      { toolCallId: "call_0-2", input: { city: "Bergen" }, output: "rain in Bergen" },
      { text: "Wet" },
    ]);
    expect(provider.asked[0]?.messages[1]).toMatchObject({
      tool_calls: [
        { id: "call_0", function: { arguments: '{"city":"Oslo"}' } },
        { id: "call_0-2", function: { arguments: '{"city":"Bergen"}' } },
      ],
    });
    expect(toolsAsked(provider)).toMatchObject([
      { tool_call_id: "call_0", content: "rain in Oslo" },
      { tool_call_id: "call_0-2", content: "rain in Bergen" },
    ]);
    await expectGuarantees(sql, execution.id);
  },
);

test("an id that comes again in a later step is another call, and a turn that is stopped in it leaves it out of the history", async () => {
  await using provider = await testProvider(
    said({ calls: [look("Oslo", "call_0")] }, { calls: [look("Bergen", "call_0")] }),
  );
  const inTool = Promise.withResolvers<void>();
  const tools = { look: lookTool((city) => (city === "Oslo" ? "rain" : (inTool.resolve(), new Promise(() => {})))) };
  const agent = agentFlow("answers.again", { model: modelOf(provider.url), tools });
  await using orchestrator = await serving(database, [agent]);
  const execution = await orchestrator.flow(agent).startExecution("?", atOnce);
  await inTool.promise;
  await execution.cancel("enough");
  await refusal(execution.waitForClose());

  const history = await historyAfter({ orchestrator, flow: agent, id: "chat", owner: {} }, execution.id);
  expect(history.map(({ role }) => role)).toEqual(["user", "assistant", "tool"]);
});

test("a model that says nothing after its tools has ended its turn", async () => {
  await using provider = await testProvider(said({ calls: [look("Oslo")] }, { text: [] }, { text: ["again"] }));
  const agent = agentFlow("answers.nothing", { model: modelOf(provider.url), tools: { look: lookTool() } });
  await using orchestrator = await serving(database, [agent]);

  expect(await orchestrator.flow(agent).start("?")).toMatchObject({ text: "", finishReason: "stop" });
  expect(provider.asked).toHaveLength(2);
});

test("structured output that does not fit is not asked for again: the text is kept, and a mended agent reads it", async () => {
  await using provider = await testProvider(said({ text: ['{"rain":', '"much"}'] }, { text: ["no JSON"] }));
  const define = (rain: z.ZodType) =>
    agentFlow("answers.output", {
      model: modelOf(provider.url),
      output: ai.Output.object({ schema: z.object({ rain }) }),
      flow: { onFailure: "park" },
    });
  let parked: string;
  {
    await using orchestrator = await serving(database, [define(z.number())]);
    const execution = await orchestrator.flow("answers.output").startExecution("?", atOnce);
    await untilEvent(execution, "chunk.parked");
    parked = execution.id;

    expect((await execution.history({ types: ["chunk.parked"] }))[0]).toMatchObject({
      chunk: "next",
      error: { name: "ContractError", message: expect.stringContaining('output of agent "answers.output"') },
    });
    expect(await execution.result.getState()).toMatchObject({
      text: '{"rain":"much"}',
      messages: [{ role: "user" }, { role: "assistant" }],
      usage: { totalTokens: 12 },
    });
  }
  await using orchestrator = await serving(database, [define(z.string())]);
  const execution = await orchestrator.getExecution(parked);
  await execution.retry({ actor: "ann", reason: "the schema was wrong" });
  expect(await execution.waitForClose()).toMatchObject({ output: { rain: "much" }, finishReason: "stop" });
  expect(provider.asked).toHaveLength(1);

  const other = await orchestrator.flow("answers.output").startExecution("?", atOnce);
  await untilEvent(other, "chunk.parked");
  expect((await other.history({ types: ["chunk.parked"] }))[0]).toMatchObject({
    error: { message: expect.stringContaining("no JSON") },
  });
  expect(provider.asked).toHaveLength(2);
  await other.cancel("done");
});

test("an error of the SDK is tried again, unless it is a mistake in the code", async () => {
  const tried: [Error, number][] = [
    [new ai.EmptyResponseBodyError(), 2],
    [new ai.JSONParseError({ text: "{", cause: null }), 2],
    [new ai.InvalidResponseDataError({ data: null }), 2],
    [new ai.LoadAPIKeyError({ message: "no key" }), 1],
    [new ai.NoSuchModelError({ modelId: "x", modelType: "languageModel" }), 1],
    [new ai.UnsupportedFunctionalityError({ functionality: "x" }), 1],
    [new ai.UnsupportedModelVersionError({ version: "v9", provider: "x", modelId: "x" }), 1],
  ];
  const calls = tried.map(() => 0);
  const agents = tried.map(([error], index) =>
    agentFlow(`answers.error-${index}`, {
      model: ai.wrapLanguageModel({
        model: modelOf("http://127.0.0.1:1"),
        middleware: {
          specificationVersion: "v4",
          wrapStream: () => {
            calls[index] = (calls[index] ?? 0) + 1;
            throw error;
          },
        },
      }),
      retry: { maxAttempts: 2, initialInterval: 1 },
    }),
  );
  await using orchestrator = await serving(database, agents);

  for (const agent of agents) await refusal(orchestrator.flow(agent).start("?"));
  expect(calls).toEqual(tried.map(([, times]) => times));
});

test.each(Object.keys(ways))("%s: an answer that ends in an error is asked for again, and shown once", async (way) => {
  // Without a stream there is no half of an answer.
  const half: Said = way === "generateText" ? { status: 500 } : { text: ["Half ", "of it"], errorBefore: 1 };
  await using provider = await testProvider(said(half, { text: ["All ", "of it"] }));
  const flow = ways[way]?.(modelOf(provider.url), { look: lookTool() }) ?? defineFlow("none");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution("?", atOnce);

  expect(await execution.waitForClose()).toMatchObject({ text: "All of it" });
  expect(await pageOf(execution)).toMatchObject([{ type: "text", text: "All of it" }]);
  expect(provider.asked).toHaveLength(2);
});

const large = "ä".repeat(140_000);
test.each(Object.keys(ways))(
  "%s: what is too large for the page reaches the model, and the page is told; texts come in pieces",
  async (way) => {
    await using provider = await testProvider(said({ calls: [look(large)] }, { text: [large] }));
    const flow = ways[way]?.(modelOf(provider.url), { look: lookTool((city) => city) }) ?? defineFlow("none");
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution("?", atOnce);

    expect(await execution.waitForClose()).toMatchObject({ text: large });
    expect(toolsAsked(provider)).toMatchObject([{ content: large }]);
    const words = expect.stringContaining("too large");
    expect(await pageOf(execution)).toMatchObject([
      { type: "tool-look", state: "output-error", input: words, errorText: words },
      { type: "text", text: large },
    ]);
  },
);

test("an output of more than 1 MiB is told to the model as an error, and the calls beside it run on", async () => {
  await using provider = await testProvider(said({ calls: [look("Oslo"), look("Bergen")] }, { text: ["Some"] }));
  const tools = { look: lookTool((city) => (city === "Oslo" ? "x".repeat(2 ** 20) : city)) };
  const agent = agentFlow("answers.much", { model: modelOf(provider.url), tools });
  await using orchestrator = await serving(database, [agent]);

  expect(await orchestrator.flow(agent).start("?")).toMatchObject({ text: "Some" });
  expect(toolsAsked(provider)).toMatchObject([
    { content: expect.stringContaining("larger than 1048576 bytes") },
    { content: "Bergen" },
  ]);
});

test.each(Object.keys(ways))(
  "%s: a zero or half of a pair, in what a model or a tool says, ends nothing: the text has U+FFFD there",
  async (way) => {
    const odd = "a\u0000b\ud83dc";
    const kept = "a\uFFFDb\uFFFDc";
    await using provider = await testProvider(
      said({ calls: [look(odd), look("bad"), look("worse")] }, { text: [odd] }),
    );
    const tools = {
      look: lookTool((city) => {
        if (city === "bad") throw new Error(odd);
        return city === "worse" ? JSON.parse(odd) : { [odd]: odd };
      }),
    };
    const flow = ways[way]?.(modelOf(provider.url), tools) ?? defineFlow("none");
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution("?", atOnce);

    expect(await execution.waitForClose()).toMatchObject({ text: kept });
    expect(toolsAsked(provider)).toHaveLength(3);
    expect(await pageOf(execution)).toMatchObject([
      { state: "output-available", input: { city: kept }, output: { [kept]: kept } },
      { state: "output-error", errorText: expect.stringContaining(kept) },
      { state: "output-error", errorText: expect.stringContaining("Unexpected token") },
      { type: "text", text: kept },
    ]);
    await expectGuarantees(sql, execution.id);
  },
);

test.each(Object.keys(ways))(
  "%s: whatever becomes of a call, the page is told: a tool that fails, one that is none, an input that does not fit",
  async (way) => {
    const much = "x".repeat(2 ** 20);
    const calls = [look("Oslo"), { name: "nowhere", input: {} }, { name: "look", input: { city: 7 } }];
    await using provider = await testProvider(said({ calls }, { calls: [look("much")] }, { text: ["."] }));
    const tools = {
      look: lookTool((city) => {
        throw new Error(city === "much" ? much : "no signal");
      }),
    };
    const flow = ways[way]?.(modelOf(provider.url), tools) ?? defineFlow("none");
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution("?", atOnce);

    expect(await execution.waitForClose()).toMatchObject({ text: "." });
    expect(await pageOf(execution)).toMatchObject([
      { state: "output-error", errorText: expect.stringContaining("no signal") },
      { state: "output-error", errorText: expect.stringContaining("nowhere") },
      { state: "output-error", errorText: expect.stringContaining("Invalid input") },
      { state: "output-error", errorText: expect.stringMatching(/x{1000}$/) },
      { type: "text", text: "." },
    ]);
  },
);

type Content = Awaited<ReturnType<MockLanguageModelV4["doGenerate"]>>["content"][number];
type Beside = Extract<Content, { type: "file" | "reasoning-file" | "source" }>;

/** A model that answers with what our provider does not say. */
function saying(...content: Beside[]): Model {
  const usage = {
    inputTokens: { total: 1, noCache: 1, cacheRead: undefined, cacheWrite: undefined },
    outputTokens: { total: 1, text: 1, reasoning: undefined },
  };
  const end = { finishReason: { unified: "stop" as const, raw: "stop" }, usage };
  return new MockLanguageModelV4({
    doGenerate: async () => ({ content, ...end, warnings: [] }),
    doStream: async () => ({
      stream: ReadableStream.from([
        { type: "stream-start" as const, warnings: [] },
        ...content,
        { type: "finish" as const, ...end },
      ]),
    }),
  });
}

test.each(Object.keys(ways))(
  "%s: files and sources are on the page as the AI SDK shows them; of a file that is too large the page is told",
  async (way) => {
    const file = (type: "file" | "reasoning-file", bytes: number): Beside => ({
      type,
      mediaType: "image/png",
      data: { type: "data", data: new Uint8Array(bytes) },
    });
    const sources: Beside[] = [
      { type: "source", sourceType: "url", id: "1", url: "https://example.com", title: "A page" },
      {
        type: "source",
        sourceType: "document",
        id: "2",
        mediaType: "application/pdf",
        title: "A book",
        filename: "b.pdf",
      },
    ];
    const model = saying(file("file", 3), file("reasoning-file", 3), ...sources, file("file", 300_000));
    const flow = ways[way]?.(model, { look: lookTool() }) ?? defineFlow("none");
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution("?", atOnce);

    expect(await execution.waitForClose()).toMatchObject({ text: "" });
    const url = "data:image/png;base64,AAAA";
    expect(await pageOf(execution)).toMatchObject([
      { type: "file", mediaType: "image/png", url },
      { type: "reasoning-file", mediaType: "image/png", url },
      { type: "source-url", sourceId: "1", url: "https://example.com", title: "A page" },
      { type: "source-document", sourceId: "2", mediaType: "application/pdf", title: "A book", filename: "b.pdf" },
      { type: "text", text: expect.stringContaining("image/png: It is too large") },
    ]);
  },
);
