/** Agents as flows: each model call made once, each tool run once, people asked, and what cannot be meant refused. */
import { jsonSchema, Output, tool } from "ai";
import { expect, test } from "vitest";
import { z } from "zod";
import { agentFlow, idempotencyKeyOf, toUIMessageChunks } from "../../src/ai.ts";
import { requireSdk } from "../../src/ai/sdk.ts";
import { DefinitionError, defineFlow, UsageError } from "../../src/index.ts";
import { expiry } from "../../src/ai/approval.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { serving } from "../support/flows.ts";
import { expectGuarantees } from "../support/ledger.ts";
import { modelOf, said, testProvider } from "./provider.ts";

const database = await testDatabase();
const { sql } = database;

const aTool = tool({ inputSchema: z.object({}), execute: () => 1 });
const weather = { name: "weather", input: { city: "Oslo" } };

test("an agent calls its model, runs its tools beside each other, and ends with what the model says", async () => {
  await using provider = await testProvider(
    said({ calls: [weather, { name: "weather", input: { city: "Bergen" } }] }, { text: ["It ", "rains", "."] }),
  );
  const keys: unknown[] = [];
  const agent = agentFlow("forecast", {
    model: modelOf(provider.url),
    instructions: "Be short.",
    tools: {
      weather: tool({
        description: "The weather",
        inputSchema: z.object({ city: z.string() }),
        execute: ({ city }, options) => {
          keys.push(idempotencyKeyOf(options));
          return { city, rain: true };
        },
      }),
    },
  });
  await using orchestrator = await serving(database, [agent]);

  const execution = await orchestrator.flow(agent).startExecution("Will it rain?", { autoCloseTimeout: 0 });
  const state = await execution.waitForClose();

  expect(state).toMatchObject({
    text: "It rains.",
    finishReason: "stop",
    usage: { inputTokens: 20, outputTokens: 5, totalTokens: 25 },
  });
  expect(state.messages?.map(({ role }) => role)).toEqual(["user", "assistant", "tool", "assistant"]);
  expect(provider.asked).toHaveLength(2);
  expect(provider.asked[0]?.messages[0]).toEqual({ role: "system", content: "Be short." });
  expect(provider.asked[1]?.messages.filter(({ role }) => role === "tool")).toMatchObject([
    { content: '{"city":"Oslo","rain":true}' },
    { content: '{"city":"Bergen","rain":true}' },
  ]);
  expect(new Set(keys).size).toBe(2);
  expect(keys.every((key) => typeof key === "string")).toBe(true);
  const { rows } = await execution.timeline();
  expect(rows.filter((row) => row.kind === "chunk" && row.chunk === "model")).toHaveLength(2);
  await expectGuarantees(sql, execution.id);
});

test("as a sub-flow it gets the value and gives its state, and its stream shows on its parent", async () => {
  await using provider = await testProvider(said({ text: ["Hel", "lo"] }));
  const agent = agentFlow("greeter", { model: modelOf(provider.url) });
  const flow = defineFlow("around");
  flow
    .to("ask", () => "Say hello")
    .toSubFlow(agent)
    .to("keep", (ctx) => ctx.setState("said", ctx.input.text));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  const types: unknown[] = [];
  for await (const { item } of execution.streamItems({ timeout: null })) types.push(Object(item).type);

  expect(await execution.waitForClose()).toEqual({ said: "Hello" });
  expect(types).toEqual(["start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"]);
  await expectGuarantees(sql, execution.id);
});

test("a call that a person has to approve waits without a process, and goes on as they say", async () => {
  const refund = (amount: number) => ({ name: "refund", input: { amount } });
  await using provider = await testProvider(
    said({ calls: [refund(50), refund(500), refund(600), refund(700)] }, { text: ["Done"] }),
  );
  const refunded: number[] = [];
  const agent = agentFlow("support", {
    model: modelOf(provider.url),
    tools: {
      refund: tool({
        description: "Pays money back",
        inputSchema: z.object({ amount: z.number().max(1000) }),
        execute: ({ amount }) => {
          refunded.push(amount);
          return `paid ${amount}`;
        },
      }),
    },
    toolApproval: { refund: ({ amount }) => (amount > 100 ? "user-approval" : "approved") },
    approval: { assign: ["group:support"], due: "1d" },
  });
  await using orchestrator = await serving(database, [agent]);
  const execution = await orchestrator.flow(agent).startExecution("Refund it", { autoCloseTimeout: 0 });
  const pending = await untilPending(execution, 3);
  const of = (amount: number) =>
    pending.find(({ payload }) => JSON.stringify(payload).includes(`"amount":${amount}`))?.id ?? "";

  expect(pending[0]).toMatchObject({
    type: "tool-approval",
    payload: { tool: "refund", description: "Pays money back" },
    assignees: ["group:support"],
  });
  await execution.continueWith(of(500), { decision: "reject", message: "too much" });
  await execution.continueWith(of(600), { decision: "edit", input: { amount: 60 } });
  await execution.continueWith(of(700), { decision: "respond", message: "ask again tomorrow" });
  const state = await execution.waitForClose();

  expect(refunded.toSorted((a, b) => a - b)).toEqual([50, 60]);
  expect(state.messages?.at(2)).toMatchObject({
    content: [
      { output: { type: "text", value: "paid 50" } },
      { output: { type: "execution-denied", reason: "too much" } },
      { output: { type: "text", value: "paid 60" } },
      { output: { type: "text", value: "ask again tomorrow" } },
    ],
  });
  await expectGuarantees(sql, execution.id);
});

test("a rule for one tool leaves to another what that says of itself", async () => {
  await using provider = await testProvider(said({ calls: [{ name: "pay", input: {} }, weather] }, { text: ["done"] }));
  const inputSchema = z.object({});
  const agent = agentFlow("ruled", {
    model: modelOf(provider.url),
    tools: {
      pay: tool({ inputSchema, execute: () => 1, needsApproval: true }),
      weather: tool({ inputSchema: z.object({ city: z.string() }), execute: () => "dry" }),
    },
    toolApproval: { weather: "approved" },
  });
  await using orchestrator = await serving(database, [agent]);
  const execution = await orchestrator.flow(agent).startExecution("Pay", { autoCloseTimeout: 0 });

  expect(await untilPending(execution)).toMatchObject([{ payload: { tool: "pay" } }]);

  await execution.cancel();
});

test("an approval is answered by a link, and the one of the budget asks the same people", async () => {
  await using provider = await testProvider(said({ calls: [weather] }, { text: ["Dry"] }));
  const agent = agentFlow("linked", {
    model: modelOf(provider.url),
    tools: { weather: tool({ inputSchema: z.object({ city: z.string() }), execute: () => "dry" }) },
    toolApproval: { weather: "user-approval" },
    approval: {
      assign: ["group:support"],
      due: "1d",
      remind: ["1h"],
      escalate: [{ after: "2d", answer: { decision: "reject" } }],
      link: true,
    },
    budget: { tokens: 1 },
  });
  const links: string[] = [];
  agent.when("$interrupt").to("mail", (ctx) => {
    if (ctx.input.kind === "raised" && ctx.input.link !== null) links.push(ctx.input.link);
  });
  await using orchestrator = await serving(database, [agent], { publicUrl: "https://example.com" });
  const execution = await orchestrator.flow(agent).startExecution("Will it rain?", { autoCloseTimeout: 0 });
  for (const [type, answer] of [
    ["tool-approval", { decision: "approve" }],
    ["budget", { decision: "continue", tokens: 1000 }],
  ] as const) {
    let [pending] = await untilPending(execution, 1);
    while (pending?.type !== type) [pending] = await untilPending(execution, 1);
    expect(pending).toMatchObject({ assignees: ["group:support"], dueAt: expect.any(Date) });
    while (links.length === 0) await new Promise((resolve) => setImmediate(resolve));
    await orchestrator.answerByToken(links.pop()?.split("/a/")[1] ?? "", answer);
  }

  expect(await execution.waitForClose()).toMatchObject({ text: "Dry" });
});

test("an edited input that the tool would refuse is asked about again, with what is wrong with it", async () => {
  await using provider = await testProvider(said({ calls: [weather] }, { text: ["Dry"] }));
  const agent = agentFlow("edited", {
    model: modelOf(provider.url),
    tools: { weather: tool({ inputSchema: z.object({ city: z.string() }), execute: ({ city }) => city }) },
    toolApproval: { weather: "user-approval" },
  });
  await using orchestrator = await serving(database, [agent]);
  const execution = await orchestrator.flow(agent).startExecution("Will it rain?", { autoCloseTimeout: 0 });
  const [first] = await untilPending(execution, 1);
  await execution.continueWith(first?.id ?? "", { decision: "edit", input: { city: 7 } });
  for (;;) {
    const [again] = await untilPending(execution, 1);
    if (again?.resumeCount !== 1) continue;
    expect(again.payload).toMatchObject({ problem: expect.stringContaining("refused") });
    await execution.continueWith(again.id, { decision: "edit", input: { city: "Tromsø" } });
    break;
  }

  expect((await execution.waitForClose()).messages?.at(2)).toMatchObject({
    content: [{ output: { value: "Tromsø" } }],
  });
});

test("what a tool throws is told to the model, after its own retries; what is no JSON fails the agent with the path", async () => {
  await using provider = await testProvider(
    said({ calls: [weather] }, { text: ["Sorry"] }, { calls: [weather] }, { calls: [weather] }),
  );
  let tries = 0;
  const define = (name: string, execute: () => unknown) =>
    agentFlow(name, {
      model: modelOf(provider.url),
      tools: { weather: tool({ inputSchema: z.object({ city: z.string() }), execute }) },
      toolOptions: { weather: { retry: { waits: [1, 1] } } },
    });
  const failing = define("failing", () => {
    tries += 1;
    throw new Error("no signal");
  });
  const odd = define("odd", () => ({ at: { place: 10n } }));
  const round: Record<string, unknown> = { list: [] };
  round["list"] = [{ back: round }];
  const circle = define("circle", () => round);
  await using orchestrator = await serving(database, [failing, odd, circle]);

  const state = await orchestrator.flow(failing).start("?");
  const refused = orchestrator.flow(odd).start("?");
  await refused.catch(() => {});
  const endless = orchestrator.flow(circle).start("?");

  expect(tries).toBe(3);
  expect(state).toMatchObject({ text: "Sorry", finishReason: "stop" });
  expect(state.messages?.at(2)).toMatchObject({ content: [{ output: { type: "error-text", value: "no signal" } }] });
  await expect(refused).rejects.toThrow(/output of tool "weather" at at\.place/);
  await expect(endless).rejects.toThrow(/output of tool "weather".*contains itself/);
});

test("a model that is busy is asked again as another attempt, and one that refuses is not", async () => {
  await using provider = await testProvider(said({ status: 503 }, { text: ["Late"] }, { status: 401 }));
  const agent = agentFlow("busy", { model: modelOf(provider.url), retry: { waits: [1, 1] } });
  await using orchestrator = await serving(database, [agent]);

  const state = await orchestrator.flow(agent).start("?");
  const refused = orchestrator.flow(agent).start("?");

  expect(state).toMatchObject({ text: "Late" });
  await expect(refused).rejects.toThrow("401");
  expect(provider.asked).toHaveLength(3);
});

test("a stream that the provider cuts is asked for again, and the page takes back what it had", async () => {
  await using provider = await testProvider(
    said({ text: ["Half ", "of it"], cutBefore: 2, pauseMs: 30 }, { text: ["All ", "of it"] }),
  );
  const agent = agentFlow("cut-off", { model: modelOf(provider.url), retry: { initialInterval: 1 } });
  await using orchestrator = await serving(database, [agent]);
  const execution = await orchestrator.flow(agent).startExecution("?", { autoCloseTimeout: 0 });

  const told = await Array.fromAsync(toUIMessageChunks(execution));
  const late = await Array.fromAsync(toUIMessageChunks(execution));

  expect(await execution.waitForClose()).toMatchObject({ text: "All of it" });
  for (const chunks of [told, late]) {
    const after = chunks.slice(chunks.findLastIndex(({ type }) => type === "reset-step") + 1);
    expect(after.map((one) => (one.type === "text-delta" ? one.delta : "")).join("")).toBe("All of it");
  }
  // Pieces are superseded by their part.
  expect(late.filter(({ type }) => type === "text-delta").map((one) => Object(one).delta)).toEqual(["All of it"]);
  expect(told.map(({ type }) => type)).toContain("reset-step");
});

test("a budget that is used up asks a person, stops or fails, before another call is made", async () => {
  await using provider = await testProvider(({ messages }) =>
    messages.length > 6 ? { text: ["Enough"] } : { calls: [weather] },
  );
  const tools = { weather: tool({ inputSchema: z.object({ city: z.string() }), execute: () => "dry" }) };
  const define = (onExceeded: "ask" | "stop" | "fail") =>
    agentFlow(`budget-${onExceeded}`, { model: modelOf(provider.url), tools, budget: { tokens: 11, onExceeded } });
  const [ask, stop, fail] = [define("ask"), define("stop"), define("fail")];
  await using orchestrator = await serving(database, [ask, stop, fail]);
  const execution = await orchestrator.flow(ask).startExecution("?", { autoCloseTimeout: 0 });
  const [question] = await untilPending(execution, 1);
  expect(question).toMatchObject({ type: "budget", payload: { used: 11, tokens: 11 } });
  expect(provider.asked).toHaveLength(1);
  await execution.continueWith(question?.id ?? "", { decision: "continue", tokens: 1000 });

  expect(await execution.waitForClose()).toMatchObject({ text: "Enough", budget: 1011 });
  expect(await orchestrator.flow(stop).start("?")).toMatchObject({ finishReason: "budget" });
  await expect(orchestrator.flow(fail).start("?")).rejects.toThrow("has used 11 tokens and its budget is 11");
});

test("without stopWhen an agent stops after twenty calls; without a decision an approval runs nothing", async () => {
  await using provider = await testProvider(() => ({ calls: [weather] }));
  const tools = { weather: tool({ inputSchema: z.object({ city: z.string() }), execute: () => "dry" }) };
  const endless = agentFlow("endless", { model: modelOf(provider.url), tools });
  await using orchestrator = await serving(database, [endless]);

  expect(await orchestrator.flow(endless).start("?")).toMatchObject({ finishReason: "stopped" });

  expect(provider.asked).toHaveLength(20);
  expect([expiry(["approve", "reject"]), expiry(["approve", "respond"])]).toEqual(["reject", "respond"]);
});

test("stopWhen sees the steps with their calls and results", async () => {
  await using provider = await testProvider(() => ({ calls: [weather] }));
  const seen: unknown[] = [];
  const agent = agentFlow("stopping", {
    model: modelOf(provider.url),
    tools: { weather: tool({ inputSchema: z.object({ city: z.string() }), execute: () => "dry" }) },
    stopWhen: ({ steps }) => {
      const last = steps.at(-1);
      seen.push([
        steps.length,
        last?.toolCalls.map(({ input }) => input),
        last?.toolResults.map(({ output }) => output),
      ]);
      return steps.length === 2;
    },
  });
  await using orchestrator = await serving(database, [agent]);

  expect(await orchestrator.flow(agent).start("?")).toMatchObject({ finishReason: "stopped" });
  expect(seen).toEqual([
    [1, [{ city: "Oslo" }], ["dry"]],
    [2, [{ city: "Oslo" }], ["dry"]],
  ]);
});

test("prepareStep says what one call has otherwise, once for all of its attempts", async () => {
  await using provider = await testProvider(said({ calls: [weather] }, { status: 503 }, { text: ["Dry"] }));
  await using other = await testProvider(said({ text: ["Never"] }));
  const seen: unknown[] = [];
  const agent = agentFlow("prepared", {
    model: modelOf(other.url),
    instructions: "Be short.",
    tools: {
      weather: tool({ inputSchema: z.object({ city: z.string() }), execute: () => "dry" }),
      other: tool({ inputSchema: z.object({}), execute: () => 1 }),
    },
    retry: { initialInterval: 1 },
    prepareStep: ({ steps, stepNumber, messages, initialMessages, responseMessages, instructions }) => {
      const last = steps.at(-1)?.toolResults.map(({ output }) => output);
      seen.push([stepNumber, messages.length, initialMessages.length, responseMessages.length, instructions, last]);
      return stepNumber === 0
        ? { model: "cheap", activeTools: ["weather"], toolChoice: { type: "tool", toolName: "weather" } }
        : { model: "cheap", messages: messages.slice(-2), instructions: `Be long ${Math.random()}`, temperature: 0.5 };
    },
  });
  // @ts-expect-error it has no such tool
  const misspelt = () => agentFlow("x", { tools: { a: aTool }, prepareStep: () => ({ activeTools: ["b"] }) });
  expect(misspelt).toBeTypeOf("function");
  await using orchestrator = await serving(database, [agent], { resources: { cheap: modelOf(provider.url) } });
  const execution = await orchestrator.flow(agent).startExecution("Will it rain?", { autoCloseTimeout: 0 });

  expect(await execution.waitForClose()).toMatchObject({ text: "Dry" });
  expect(seen).toEqual([
    [0, 1, 1, 0, "Be short.", undefined],
    [1, 3, 1, 2, "Be short.", ["dry"]],
  ]);
  expect(provider.asked[0]).toMatchObject({
    tools: [{ function: { name: "weather" } }],
    tool_choice: { function: { name: "weather" } },
  });
  expect(provider.asked[2]?.messages.map(({ role }) => role)).toEqual(["system", "assistant", "tool"]);
  expect(provider.asked[2]).toMatchObject({ temperature: 0.5 });
  // Both attempts of the second call.
  expect(provider.asked[2]).toEqual(provider.asked[1]);
  expect((await execution.result.getState("messages"))?.length).toBe(4);
  await expectGuarantees(sql, execution.id);
});

test("what prepareStep gives and cannot be meant fails the agent, without a call", async () => {
  await using provider = await testProvider(said({ text: ["?"] }));
  const model = modelOf(provider.url);
  const wrong: readonly [string, unknown, RegExp][] = [
    ["model", { model }, /must return a model as a string.*pass the model to createOrchestrator\(\{ resources \}\)/],
    ["option", { instruction: "x" }, /did you mean "instructions"/],
    ["context", { runtimeContext: {} }, /unknown option "runtimeContext"/],
    ["tool", { activeTools: ["wether"] }, /names the tool "wether"/],
    ["json", { providerOptions: { test: { at: 1n } } }, /providerOptions\.test\.at/],
    ["messages", { messages: [{ role: "nobody" }] }, /messages of prepareStep/],
    ["number", 7, /must be an object, got 7/],
  ];
  let ran = 0;
  const agents = wrong.map(([name, given, message]) => ({
    agent: agentFlow(`wrong-${name}`, { model, prepareStep: () => (ran++, given as never) }),
    message,
  }));
  await using orchestrator = await serving(
    database,
    agents.map(({ agent }) => agent),
  );

  for (const { agent, message } of agents) await expect(orchestrator.flow(agent).start("?")).rejects.toThrow(message);
  expect(ran).toBe(wrong.length);
  expect(provider.asked).toEqual([]);
});

test("a call that the model got wrong is told to it, and one that takes too long is made again", async () => {
  await using provider = await testProvider(
    said(
      {
        calls: [
          { name: "weather", input: { town: 7 } },
          { name: "constructor", input: {} },
          { name: "toString", input: {} },
        ],
      },
      { text: ["slow"], holdBefore: 0 },
      { text: ["sorry"] },
    ),
  );
  const agent = agentFlow("wrong-call", {
    model: modelOf(provider.url),
    tools: { weather: tool({ inputSchema: z.object({ city: z.string() }), execute: () => "dry" }) },
    timeout: "300ms",
    retry: { initialInterval: 1 },
  });
  await using orchestrator = await serving(database, [agent]);

  const state = await orchestrator.flow(agent).start("?");

  expect(state).toMatchObject({ text: "sorry" });
  const told = { output: { type: "error-text" } };
  expect(state.messages?.[2]).toMatchObject({ role: "tool", content: [told, told, told] });
  expect(provider.asked).toHaveLength(3);
});

test("an approved tool of the page is then asked for its output; a rejected one is denied, and its decision is no output", async () => {
  const locate = (place: string) => ({ name: "locate", input: { place } });
  await using provider = await testProvider(said({ calls: [locate("a"), locate("b"), locate("c")] }, { text: ["ok"] }));
  const agent = agentFlow("page-tool", {
    model: modelOf(provider.url),
    tools: { locate: tool({ inputSchema: z.object({ place: z.string() }), outputSchema: z.string() }) },
    toolApproval: { locate: "user-approval" },
  });
  await using orchestrator = await serving(database, [agent]);
  const execution = await orchestrator.flow(agent).startExecution("?", { autoCloseTimeout: 0 });
  const asked = await untilPending(execution, 3);
  const of = (place: string) => asked.find(({ payload }) => JSON.stringify(payload).includes(`"${place}"`))?.id ?? "";
  await execution.continueWith(of("a"), { decision: "approve" });
  await execution.continueWith(of("b"), { decision: "edit", input: { place: "B" } });
  await execution.continueWith(of("c"), { decision: "reject", message: "private" });
  const ran = new Set<unknown>();
  while (ran.size < 2)
    for (const { id, type, payload } of await execution.getPendingInterrupts()) {
      if (type !== "tool-output") continue;
      const { place } = Object(payload).input;
      ran.add(place);
      await execution.continueWith(id, `at ${place}`);
    }

  expect((await execution.waitForClose()).messages?.at(2)).toMatchObject({
    content: [
      { output: { value: "at a" } },
      { output: { value: "at B" } },
      { output: { type: "execution-denied", reason: "private" } },
    ],
  });
  expect(provider.asked).toHaveLength(2);
  await expectGuarantees(sql, execution.id);
});

test("a redrive makes the call again that failed, and nothing before it; a fork goes on from where it is told", async () => {
  await using provider = await testProvider(
    said({ calls: [weather] }, { status: 401 }, { text: ["now"] }, { text: ["fork"] }),
  );
  let ran = 0;
  const agent = agentFlow("redriven", {
    model: modelOf(provider.url),
    tools: { weather: tool({ inputSchema: z.object({ city: z.string() }), execute: () => ++ran }) },
  });
  await using orchestrator = await serving(database, [agent]);
  const failed = await orchestrator.flow(agent).startExecution("?", { autoCloseTimeout: 0 });
  await expect(failed.waitForClose()).rejects.toThrow("401");

  const next = await failed.redrive({ actor: "ann", reason: "the key is back" });
  const state = await next.waitForClose();
  const called = (await next.history()).find(
    (event) => event.type === "event.emitted" && JSON.stringify(event).includes('"step":2'),
  );
  const fork = await next.fork({ at: called?.seq ?? 0 });

  expect(state).toMatchObject({ text: "now", usage: { totalTokens: 22 } });
  expect(await fork.waitForClose()).toMatchObject({ text: "fork" });
  expect(ran).toBe(1);
  expect(provider.asked).toHaveLength(4);
  for (const { id } of [failed, next, fork]) await expectGuarantees(sql, id);
});

test("structured output is in the state", async () => {
  await using provider = await testProvider(said({ text: ['{"city":', '"Oslo"}'] }));
  const agent = agentFlow("structured", {
    model: modelOf(provider.url),
    output: Output.object({ schema: z.object({ city: z.string() }) }),
  });
  await using orchestrator = await serving(database, [agent]);

  expect(await orchestrator.flow(agent).start("Where?")).toMatchObject({ output: { city: "Oslo" } });
});

test("the model is a resource: an orchestrator gives another one", async () => {
  await using provider = await testProvider(said({ text: ["from the resource"] }));
  const agent = agentFlow("given", {});
  await using orchestrator = await serving(database, [agent], { resources: { "given.model": modelOf(provider.url) } });

  expect(await orchestrator.flow(agent).start({ prompt: "?" })).toMatchObject({ text: "from the resource" });
});

test("what cannot be meant is refused where the agent is defined", () => {
  const weatherTool = tool({ inputSchema: z.object({ city: z.string() }), execute: () => "dry" });
  const wrong: readonly [object, RegExp][] = [
    [{ tools: { weather: { execute: () => "dry" } } }, /tool "weather" has no inputSchema/],
    [{ tools: { weather: weatherTool }, toolApproval: { wether: "user-approval" } }, /rule for "wether"/],
    [{ tools: { weather: weatherTool }, toolOptions: { other: {} } }, /options for "other"/],
    [{ tools: { weather: weatherTool }, toolOptions: { weather: { decisions: ["maybe"] } } }, /"maybe"/],
    [{ tools: { weather: { ...weatherTool, contextSchema: z.object({}) } } }, /contextSchema/],
    [{ model: 7 }, /model must be a language model, got 7/],
    [{ instruction: "x" }, /unknown option "instruction".*did you mean "instructions"/],
    [{ prepareStep: {} }, /prepareStep must be a function/],
    [{ prepareCall: () => ({}) }, /prepareCall is no setting of a durable agent.*prepareStep/],
    [{ onStepFinish: () => {} }, /onStepFinish is no setting.*read the stream/],
    [{ maxRetries: 2 }, /maxRetries is no setting.*retry: \{ maxAttempts \}/],
    [{ stopWhen: 20 }, /stopWhen must be a condition, got 20/],
    [{ budget: { tokens: 0 } }, /budget\.tokens/],
    [{ approval: { due: "soon" } }, /soon/],
    [{ approval: { remind: ["1h"] } }, /remind of approval reminds before it is due, and it never is/],
    [
      { approval: { escalate: [{ after: "1d", answer: { decision: "maybe" } }] } },
      /answer of .* is not what the pause asks/,
    ],
    [
      {
        tools: { weather: weatherTool },
        toolOptions: { weather: { decisions: ["approve"] } },
        approval: { escalate: [{ after: "1d", answer: { decision: "reject" } }] },
      },
      /is not what the pause asks/,
    ],
    [{ approval: { assign: [] } }, /assign of approval has 0 names/],
    [{ approval: { link: "yes" } }, /link of approval/],
    [{ approval: { due: "2d", expiresIn: "1d" } }, /due "2d" comes after approval\.expiresIn "1d"/],
  ];

  for (const [settings, message] of wrong) {
    expect(() => agentFlow("wrong", settings)).toThrow(message);
  }
  expect(() => agentFlow("wrong", { tools: { weather: { execute: () => "dry" } } } as object)).toThrow(DefinitionError);
  expect(() => requireSdk({ streamText: 1, stepCountIs: 1 })).toThrow(UsageError);
  expect(() => requireSdk({})).toThrow(/version 7/);
  expect(
    agentFlow("fine", { tools: { a: tool({ inputSchema: jsonSchema({ type: "object" }), execute: () => 1 }) } }).name,
  ).toBe("fine");
});
