/** An agent, and what happens around it: a cancel in the middle, a deploy while it waits, tools that come from elsewhere. */
import { dynamicTool, jsonSchema, tool, type ToolSet } from "ai";
import { expect, test } from "vitest";
import { z } from "zod";
import { agentFlow, type AgentSettings } from "../../src/ai.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { refusal, serving } from "../support/flows.ts";
import { expectGuarantees } from "../support/ledger.ts";
import { modelOf, said, testProvider } from "./provider.ts";

const database = await testDatabase();
const { sql } = database;
const atOnce = { autoCloseTimeout: 0 };
const look = (city: string) => ({ name: "look", input: { city } });
const inputSchema = z.object({ city: z.string() });

test("a cancel in the middle of an answer hangs up on the provider, and in the middle of a tool aborts its signal", async () => {
  await using provider = await testProvider(
    said({ text: ["Half ", "of it"], holdBefore: 1 }, { calls: [look("Oslo")] }),
  );
  const [inTool, aborted] = [Promise.withResolvers<void>(), Promise.withResolvers<unknown>()];
  const hangs = tool({
    inputSchema,
    execute: async (_, { abortSignal }) => {
      abortSignal?.addEventListener("abort", () => aborted.resolve(abortSignal.reason));
      inTool.resolve();
      await aborted.promise;
    },
  });
  const agent = agentFlow("around.cancel", { model: modelOf(provider.url), tools: { look: hangs } });
  await using orchestrator = await serving(database, [agent]);

  const answering = await orchestrator.flow(agent).startExecution("?", atOnce);
  await provider.held();
  await answering.cancel("enough");
  expect(await refusal(answering.waitForClose())).toMatchObject({ code: "EXECUTION_CANCELLED" });
  await provider.left();
  const working = await orchestrator.flow(agent).startExecution("?", atOnce);
  await inTool.promise;
  await working.cancel("enough");
  expect(await refusal(working.waitForClose())).toMatchObject({ code: "EXECUTION_CANCELLED" });

  expect(await aborted.promise).toBeInstanceOf(Error);
  expect(provider.asked).toHaveLength(2);
  for (const { id } of [answering, working]) await expectGuarantees(sql, id);
});

test("a tool that a deploy took away while a person was asked does not run, and the model is told; one that is new may", async () => {
  await using provider = await testProvider(
    said({ calls: [look("Oslo")] }, { calls: [{ name: "see", input: { city: "Oslo" } }] }, { text: ["Wet"] }),
  );
  const define = (tools: ToolSet, more: Partial<AgentSettings> = {}) =>
    agentFlow("around.deploy", { model: modelOf(provider.url), tools, ...more });
  const before = define(
    { look: tool({ inputSchema, execute: () => "old" }) },
    { toolApproval: { look: "user-approval" } },
  );
  let id: string;
  {
    await using orchestrator = await serving(database, [before]);
    const execution = await orchestrator.flow(before).startExecution("?", atOnce);
    await untilPending(execution, 1);
    ({ id } = execution);
  }
  const after = define({ see: tool({ inputSchema, execute: () => "rain" }) });
  await using orchestrator = await serving(database, [after]);
  const execution = await orchestrator.getExecution(id);
  const [asked] = await untilPending(execution, 1);
  await execution.continueWith(asked?.id ?? "", { decision: "approve" });

  expect(await execution.waitForClose()).toMatchObject({ text: "Wet" });
  expect(provider.asked.at(-1)?.messages.filter(({ role }) => role === "tool")).toMatchObject([
    { content: 'there is no tool "look" any more' },
    { content: "rain" },
  ]);
  await expectGuarantees(sql, id);
});

test("tools without types, as a client of MCP makes them, run as others, and say themselves what the model is told", async () => {
  const Told = z.object({ content: z.array(z.object({ type: z.literal("text"), text: z.string() })) });
  const remote = dynamicTool({
    description: "Looks",
    inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } } }),
    execute: (input) => ({ content: [{ type: "text", text: `rain in ${inputSchema.parse(input).city}` }] }),
    toModelOutput: ({ output }) => ({ type: "content", value: Told.parse(output).content }),
  });
  await using provider = await testProvider(said({ calls: [look("Oslo"), look("Rome")] }, { text: ["Wet"] }));
  const agent = agentFlow("around.remote", { model: modelOf(provider.url), tools: { look: remote } });
  await using orchestrator = await serving(database, [agent]);
  const execution = await orchestrator.flow(agent).startExecution("?", atOnce);

  expect(await execution.waitForClose()).toMatchObject({ text: "Wet" });
  expect(provider.asked.at(-1)?.messages.filter(({ role }) => role === "tool")).toMatchObject([
    { content: '[{"type":"text","text":"rain in Oslo"}]' },
    { content: '[{"type":"text","text":"rain in Rome"}]' },
  ]);
});
