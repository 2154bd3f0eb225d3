/** Flows as tools of the Model Context Protocol, driven by its official client; operators by `npx flowledger mcp`. */
import { resolve } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { InMemoryTransport } from "@modelcontextprotocol/sdk/inMemory.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { expect, test } from "vitest";
import { z } from "zod";
import { defineFlow, type Orchestrator } from "../../src/index.ts";
import { createMcpServer, type McpServerOptions } from "../../src/mcp.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { serving } from "../support/flows.ts";
import { expectGuarantees } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;

const refund = defineFlow("refund", {
  input: z.object({ ticket: z.string(), amount: z.number() }),
  state: z.object({ decision: z.string() }).partial(),
});
refund
  .to("ask", (ctx) =>
    ctx.pauseFor({
      type: "approval",
      payload: { amount: ctx.input.amount },
      response: z.object({ approved: z.boolean(), note: z.string().optional() }),
    }),
  )
  .to("record", (ctx) => ctx.setState("decision", ctx.input.approved ? "approved" : "declined"));
const double = defineFlow("double.it", { input: z.number() });
double.to("double", (ctx) => ctx.input * 2).end();
const fails = defineFlow("fails");
fails.to("fail", () => {
  throw new Error("broken");
});

const flows = {
  refund: { description: "Refunds a ticket" },
  "double.it": { description: "Doubles" },
  fails: { description: "Fails" },
};

async function connected(
  orchestrator: Orchestrator,
  options: Partial<McpServerOptions> = {},
  answer?: { approved: boolean },
): Promise<Client> {
  const client = new Client(
    { name: "tester", version: "1" },
    { capabilities: answer ? { elicitation: { form: {} } } : {} },
  );
  if (answer) client.setRequestHandler(ElicitRequestSchema, () => ({ action: "accept", content: answer }));
  const [near, far] = InMemoryTransport.createLinkedPair();
  await createMcpServer({ orchestrator, flows, ...options }).connect(far);
  await client.connect(near);
  return client;
}

const call = async (client: Client, name: string, args: Record<string, unknown> = {}) => {
  const { structuredContent, isError = false, content } = await client.callTool({ name, arguments: args });
  return { isError, text: JSON.stringify(content), ...Object(structuredContent) };
};

test("a flow is a tool with the input of its contract, and its result is that of the call", async () => {
  await using orchestrator = await serving(database, [refund, double, fails]);
  const client = await connected(orchestrator);

  const { tools } = await client.listTools();
  const found = Object.fromEntries(tools.map((tool) => [tool.name, tool.inputSchema]));

  expect(Object.keys(found)).toEqual(["refund", "double_it", "fails", "flow_wait", "flow_answer", "flow_cancel"]);
  expect(found["refund"]).toMatchObject({ type: "object", required: ["ticket", "amount"] });
  expect(found["double_it"]).toMatchObject({ properties: { input: { type: "number" } }, required: ["input"] });
  expect(await call(client, "double_it", { input: 21 })).toMatchObject({ status: "completed", result: 42 });
  expect(await call(client, "fails")).toMatchObject({
    isError: true,
    status: "failed",
    error: expect.stringContaining("broken"),
  });
  expect(await call(client, "refund", { ticket: 7 })).toMatchObject({
    isError: true,
    text: expect.stringContaining("amount"),
  });
  expect(await call(client, "refnd")).toMatchObject({
    isError: true,
    text: expect.stringContaining("did you mean refund?"),
  });
  await client.close();
});

test("a call that asks a person says what, and the client drives it to its end", async () => {
  await using orchestrator = await serving(database, [refund, double, fails]);
  const client = await connected(orchestrator);

  const asked = await call(client, "refund", { ticket: "T-1", amount: 250 });
  const [question] = asked.questions;
  const bad = await call(client, "flow_answer", {
    executionId: asked.executionId,
    questionId: question.questionId,
    value: 7,
  });
  const done = await call(client, "flow_answer", {
    executionId: asked.executionId,
    questionId: question.questionId,
    value: { approved: true },
  });

  expect(asked).toMatchObject({
    status: "input_required",
    questions: [{ type: "approval", payload: { amount: 250 } }],
  });
  expect(question.schema).toMatchObject({ properties: { approved: { type: "boolean" } } });
  expect(bad).toMatchObject({ isError: true, text: expect.stringContaining("CONTRACT_VIOLATED") });
  expect(done).toMatchObject({ status: "completed", result: { decision: "approved" } });
  expect(await call(client, "flow_wait", { executionId: asked.executionId })).toMatchObject({ status: "completed" });
  await expectGuarantees(sql, asked.executionId);
  await client.close();
});

test("a call as a task has a handle: it asks through the client, and comes to its end", async () => {
  await using orchestrator = await serving(database, [refund, double, fails]);
  const client = await connected(orchestrator, {}, { approved: false });
  const statuses: string[] = [];
  let result: unknown;
  const stream = client.experimental.tasks.callToolStream(
    { name: "refund", arguments: { ticket: "T-2", amount: 9 } },
    undefined,
    { task: {} },
  );
  for await (const message of stream) {
    if (message.type === "taskStatus") statuses.push(message.task.status);
    if (message.type === "result") result = message.result.structuredContent;
    if (message.type === "error") throw message.error;
  }

  expect(statuses.at(-1)).toBe("input_required");
  expect(result).toMatchObject({ status: "completed", result: { decision: "declined" } });
  const { tasks } = await client.experimental.tasks.listTasks();
  expect(tasks[0]).toMatchObject({ status: "completed" });
  await client.close();
});

test("a task is cancelled by its client, and an execution of others is not there", async () => {
  await using orchestrator = await serving(database, [refund, double, fails]);
  const [ann, bob] = [await connected(orchestrator, { actor: "ann" }), await connected(orchestrator, { actor: "bob" })];
  const { executionId } = await call(ann, "refund", { ticket: "T-3", amount: 1 });

  expect(await call(bob, "flow_wait", { executionId })).toMatchObject({ isError: true });
  await expect(bob.experimental.tasks.getTask(executionId)).rejects.toThrow("does not exist");
  expect(await ann.experimental.tasks.cancelTask(executionId)).toMatchObject({ status: "cancelled" });
  const [event] = await (await orchestrator.getExecution(executionId)).history({ types: ["cancel.requested"] });
  expect(event).toMatchObject({ actor: "ann" });
  await Promise.all([ann.close(), bob.close()]);
});

test("what takes longer than the client waits goes on, and says why it is where it is", async () => {
  const slow = defineFlow("slow");
  slow.to("sleep", (ctx) => ctx.sleep("1h"));
  await using orchestrator = await serving(database, [slow]);
  const client = await connected(orchestrator, { flows: { slow: { description: "Sleeps" } }, waitTimeout: "50ms" });

  const working = await call(client, "slow");
  const ended = await call(client, "flow_cancel", { executionId: working.executionId, reason: "enough" });

  expect(working).toMatchObject({ status: "working", why: expect.stringContaining("sleep") });
  expect(["cancelled", "working"]).toContain(ended.status);
  await client.close();
});

test("what cannot be meant is refused where the server is made", async () => {
  await using orchestrator = await serving(database, [refund]);
  const wrong: readonly [object, RegExp][] = [
    [{ flows: {} }, /flows of createMcpServer\(\) is empty/],
    [{ flows: { refnd: { description: "x" } } }, /flow "refnd" is not known here/],
    [{ flows: { refund: {} } }, /description/],
    [{ flows: { refund: { description: "x", tool: "a b" } } }, /tool of flow "refund"/],
    [{ flows: { refund: { description: "x", tool: "flow_wait" } } }, /is there already/],
    [{ flows: { refund: { description: "x" } }, waitTimeout: "5m" }, /longer than 30s/],
    [{ flows: { refund: { description: "x" } }, actr: "x" }, /did you mean "actor"/],
  ];

  for (const [options, message] of wrong)
    expect(() => createMcpServer({ orchestrator, ...options } as McpServerOptions)).toThrow(message);
});

test(
  "operators read by their client, and command only what was allowed, with who and why",
  { timeout: 30_000 },
  async () => {
    await using orchestrator = await serving(database, [refund]);
    const execution = await orchestrator
      .flow(refund)
      .startExecution({ ticket: "T-9", amount: 5 }, { autoCloseTimeout: 0 });
    const [pending] = await untilPending(execution, 1);
    const cli = resolve(import.meta.dirname, "../../src/cli.ts");
    const open = async (...flags: string[]) => {
      const client = new Client({ name: "desk", version: "1" });
      const env = { PATH: process.env["PATH"] ?? "", DATABASE_URL: database.url };
      await client.connect(
        new StdioClientTransport({ command: process.execPath, args: [cli, "mcp", ...flags], env, stderr: "pipe" }),
      );
      return client;
    };
    const [reader, commander] = await Promise.all([open(), open("--allow", "answer")]);
    const names = async (client: Client) => (await client.listTools()).tools.map(({ name }) => name);
    const args = { id: execution.id };

    expect(await names(reader)).toEqual([
      "list_executions",
      "get_execution",
      "explain_execution",
      "get_timeline",
      "get_state",
      "list_interrupts",
      "list_failures",
    ]);
    expect((await names(commander)).slice(7)).toEqual(["answer_execution"]);
    for (const name of ["get_execution", "explain_execution", "get_timeline", "get_state"])
      expect(await call(reader, name, args)).toMatchObject({
        isError: false,
        text: expect.stringContaining("no instructions"),
      });
    expect((await call(reader, "list_executions", { flow: "refund", status: ["waiting"] })).text).toContain(
      execution.id,
    );
    expect((await call(reader, "list_interrupts", { flow: "refund" })).text).toContain(execution.id);
    expect(await call(reader, "cancel_execution", { ...args, reason: "x" })).toMatchObject({ isError: true });
    const answer = { ...args, interruptId: pending?.id, value: { approved: true } };
    expect(await call(commander, "answer_execution", answer)).toMatchObject({
      isError: true,
      text: expect.stringContaining("reason"),
    });
    expect(await call(commander, "answer_execution", { ...answer, reason: "boss said so" })).toMatchObject({
      isError: false,
    });
    expect(await execution.waitForClose()).toEqual({ decision: "approved" });
    expect((await execution.history({ types: ["interrupt.resumed"] }))[0]).toMatchObject({
      actor: "mcp:desk (boss said so)",
    });
    await Promise.all([reader.close(), commander.close()]);
  },
);
