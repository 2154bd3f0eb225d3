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
  // It closes as soon as nothing is left to do.
  const execution = await orchestrator.getExecution(asked.executionId);
  expect((await execution.history())[0]).toMatchObject({ settings: { autoCloseMs: 0 } });
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
  // Nor one of a flow that the server does not serve, whoever called it.
  const fewer = await connected(orchestrator, { actor: "ann", flows: { fails: flows.fails } });
  expect(await call(fewer, "flow_wait", { executionId })).toMatchObject({ isError: true });
  await fewer.close();
  await expect(bob.experimental.tasks.getTask(executionId)).rejects.toThrow("does not exist");
  expect((await bob.experimental.tasks.listTasks()).tasks).toEqual([]);
  expect((await ann.experimental.tasks.listTasks()).tasks).toMatchObject([{ taskId: executionId }]);
  // What nobody asks is not kept until somebody does.
  expect(await call(ann, "flow_answer", { executionId, questionId: "nobody's", value: 1 })).toMatchObject({
    isError: true,
  });
  const [question] = await (await orchestrator.getExecution(executionId)).getPendingInterrupts();
  expect(await ann.experimental.tasks.getTask(executionId)).toMatchObject({
    status: "input_required",
    lastUpdatedAt: question?.createdAt.toISOString(),
  });
  expect(await ann.experimental.tasks.cancelTask(executionId)).toMatchObject({ status: "cancelled" });
  await expect(ann.experimental.tasks.cancelTask(executionId)).rejects.toThrow("has ended");
  const [event] = await (await orchestrator.getExecution(executionId)).history({ types: ["cancel.requested"] });
  expect(event).toMatchObject({ actor: "ann" });
  expect(await call(ann, "flow_wait", { executionId })).toMatchObject({ isError: true, status: "cancelled" });
  await Promise.all([ann.close(), bob.close()]);
});

/** What a client of the revision 2026-07-28 says in each request. */
const modern = (extensions: object = { "io.modelcontextprotocol/tasks": {} }) => ({
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientInfo": { name: "modern", version: "1" },
  "io.modelcontextprotocol/clientCapabilities": { elicitation: { form: {} }, extensions },
});
const Loose = z.looseObject({});
const ask = (client: Client, method: string, params: object, _meta: Record<string, unknown> = modern()) =>
  client.request({ method, params: { ...params, _meta } }, Loose);
const untilStatus = async (client: Client, taskId: unknown, status: string) => {
  for (;;) {
    const task = await ask(client, "tasks/get", { taskId });
    if (task["status"] === status) return task;
    if (task["status"] === "completed" || task["status"] === "cancelled") throw new Error(JSON.stringify(task));
  }
};

test("a client with the Tasks extension gets a handle for each call, and answers each question once", async () => {
  const answers = defineFlow("answers", { state: z.object({ all: z.array(z.json()) }).partial() });
  const questions = [
    z.object({ approved: z.boolean() }),
    z.boolean(),
    z.enum(["red", "blue"]),
    z.object({ place: z.object({ city: z.string() }) }),
    z.json(),
  ];
  for (const [index, response] of questions.entries())
    answers
      .to(`ask ${index}`, (ctx) => ctx.pauseFor({ type: `question ${index}`, response }))
      .to(`keep ${index}`, (ctx) => ctx.appendState("all", ctx.input));
  await using orchestrator = await serving(database, [answers]);
  const client = await connected(orchestrator, { flows: { answers: { description: "Asks" } }, actor: "ann" });
  const given = [{ approved: true }, { value: false }, { value: "blue" }, { value: '{"place":{"city":"Oslo"}}' }];
  const begun = await ask(client, "tools/call", { name: "answers", arguments: {}, task: {} });
  const keys = new Set<string>();
  for (const content of [...given, { value: "any text" }]) {
    const { inputRequests } = await untilStatus(client, begun["taskId"], "input_required");
    const [found] = Object.entries(Object(inputRequests)).filter(([one]) => !keys.has(one));
    const [key, request] = found ?? ["", null];
    expect(request).toMatchObject({
      method: "elicitation/create",
      params: { mode: "form", requestedSchema: { type: "object", required: Object.keys(content) } },
    });
    keys.add(key);
    const inputResponses = { [key]: { action: "accept", content }, other: { action: "accept", content: {} } };
    const declined = { [key]: { action: "decline" } };
    await ask(client, "tasks/update", { taskId: begun["taskId"], inputResponses: declined });
    const acks = [inputResponses, inputResponses].map((responses) =>
      ask(client, "tasks/update", { taskId: begun["taskId"], inputResponses: responses }),
    );
    for (const ack of await Promise.all(acks)) expect(ack).toMatchObject({ resultType: "complete" });
  }
  const done = await untilStatus(client, begun["taskId"], "completed");

  expect(begun).toMatchObject({ resultType: "task", ttlMs: null, pollIntervalMs: 500 });
  expect(done).toMatchObject({
    resultType: "complete",
    result: {
      resultType: "complete",
      structuredContent: {
        status: "completed",
        result: { all: [{ approved: true }, false, "blue", { place: { city: "Oslo" } }, "any text"] },
      },
    },
  });
  const execution = await orchestrator.getExecution(String(begun["taskId"]));
  const resumed = await execution.history({ types: ["interrupt.resumed"] });
  expect(resumed).toHaveLength(5);
  for (const event of resumed) expect(event).toMatchObject({ actor: "ann" });
  await expectGuarantees(sql, execution.id);
  await client.close();
});

test("what is asked again is another question of the task", async () => {
  const again = defineFlow("again");
  again.to("ask", (ctx) =>
    ctx.resume?.value === 2
      ? null
      : ctx.pauseFor({ type: "number", response: z.int(), resumeTo: "self", maxResumes: null }),
  );
  await using orchestrator = await serving(database, [again]);
  const client = await connected(orchestrator, { flows: { again: { description: "Asks again" } } });
  const { taskId } = await ask(client, "tools/call", { name: "again" });
  const asked = new Set<string>();
  for (const value of [1, 2])
    for (let isNew = false; !isNew;) {
      const { inputRequests } = await untilStatus(client, taskId, "input_required");
      const [key = ""] = Object.keys(Object(inputRequests));
      isNew = !asked.has(key);
      asked.add(key);
      if (isNew)
        await ask(client, "tasks/update", {
          taskId,
          inputResponses: { [key]: { action: "accept", content: { value } } },
        });
    }

  expect(await untilStatus(client, taskId, "completed")).toMatchObject({ result: { resultType: "complete" } });
  await client.close();
});

test("a task of the extension fails as its call would, is cancelled, and is not there for who does not take tasks", async () => {
  await using orchestrator = await serving(database, [refund, double, fails]);
  const client = await connected(orchestrator);
  const begin = (name: string, args: object, meta?: Record<string, unknown>) =>
    ask(client, "tools/call", { name, arguments: args }, meta);
  const failed = await begin("fails", {});
  const kept = await begin("refund", { ticket: "T-4", amount: 1 });
  const taskId = kept["taskId"];
  const { inputRequests } = await untilStatus(client, taskId, "input_required");
  const [key = ""] = Object.keys(Object(inputRequests));
  const bad = { [key]: { action: "accept", content: { approved: "perhaps" } } };

  // A flow that failed is a result with an error; only a broken protocol is a task that failed.
  expect(await untilStatus(client, failed["taskId"], "completed")).toMatchObject({
    result: { isError: true, structuredContent: { error: expect.stringContaining("broken") } },
  });
  expect(await begin("double_it", { input: 21 }, modern({}))).toMatchObject({
    resultType: "complete",
    structuredContent: { result: 42 },
    _meta: { "io.modelcontextprotocol/serverInfo": { name: "flowledger" } },
  });
  expect(await begin("refund", { ticket: 7 })).toMatchObject({ isError: true, resultType: "complete" });
  await expect(ask(client, "tasks/update", { taskId, inputResponses: bad })).rejects.toMatchObject({ code: -32602 });
  await expect(ask(client, "tasks/update", { taskId, inputResponses: 7 })).rejects.toMatchObject({ code: -32602 });
  for (const method of ["tasks/get", "tasks/update", "tasks/cancel"]) {
    const params = { taskId, inputResponses: {} };
    await expect(ask(client, method, params, modern({}))).rejects.toMatchObject({
      code: -32021,
      data: { requiredCapabilities: { extensions: { "io.modelcontextprotocol/tasks": {} } } },
    });
    await expect(ask(client, method, { ...params, taskId: crypto.randomUUID() })).rejects.toMatchObject({
      code: -32602,
    });
  }
  for (const method of ["tasks/list", "tasks/result", "tasks/other"])
    await expect(ask(client, method, { taskId })).rejects.toMatchObject({ code: -32601 });
  await expect(ask(client, "tasks/update", { taskId, inputResponses: {} }, { progressToken: 1 })).rejects.toMatchObject(
    { code: -32021 },
  );
  for (const _ of [1, 2])
    expect(await ask(client, "tasks/cancel", { taskId })).toMatchObject({ resultType: "complete" });
  await untilStatus(client, taskId, "cancelled");
  await client.close();
});

test("a client of the newest revision discovers the server, and one that nobody knows is told what there is", async () => {
  await using orchestrator = await serving(database, [refund, double, fails]);
  const client = await connected(orchestrator);
  const future = { ...modern(), "io.modelcontextprotocol/protocolVersion": "2031-01-01" };
  const found = await ask(client, "server/discover", {});

  expect(found).toMatchObject({
    resultType: "complete",
    supportedVersions: ["2026-07-28"],
    capabilities: { tools: {}, extensions: { "io.modelcontextprotocol/tasks": {} } },
  });
  expect(found["capabilities"]).not.toHaveProperty("tasks");
  expect(client.getServerCapabilities()).toHaveProperty("tasks");
  expect(await ask(client, "tools/list", {})).toMatchObject({
    resultType: "complete",
    ttlMs: 0,
    cacheScope: "private",
  });
  await expect(ask(client, "server/discover", {}, future)).rejects.toMatchObject({
    code: -32022,
    data: { supported: ["2026-07-28"], requested: "2031-01-01" },
  });
  await expect(client.callTool({ name: "flow_wait", arguments: {}, task: {} } as never)).rejects.toThrow("no task");
  await client.close();
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

test("an owner of several fields, in any order, finds its executions, and no other one does", async () => {
  await using orchestrator = await serving(database, [refund, double, fails]);
  const owner = (tenant: string) => ({
    metadata: { user: { name: "ann", id: 1 }, tenant: { region: "eu", name: tenant } },
  });
  const client = await connected(orchestrator, { ...owner("a"), waitTimeout: "5s" });
  const stranger = await connected(orchestrator, owner("b"));

  const { executionId } = await call(client, "refund", { ticket: "T", amount: 1 });
  expect(await call(client, "flow_wait", { executionId })).toMatchObject({ status: "input_required" });
  expect(await call(stranger, "flow_wait", { executionId })).toMatchObject({ isError: true });
  expect(await call(client, "flow_cancel", { executionId, reason: "enough" })).toMatchObject({ status: "cancelled" });
});

test("the schema of an input that is no object still means itself where it refers to parts of its own", async () => {
  interface Tree {
    readonly name: string;
    readonly children: readonly Tree[];
  }
  const Tree: z.ZodType<Tree> = z
    .object({ name: z.string(), children: z.lazy(() => z.array(Tree)) })
    .meta({ id: "Tree" });
  const trees = defineFlow("trees", { input: z.array(Tree) });
  trees.to("count", (ctx) => ctx.input.length).end();
  const Rose: z.ZodType = z.lazy(() => z.array(z.union([Tree, Rose])));
  const rose = defineFlow("rose", { input: Rose });
  rose.to("count", () => 1).end();
  await using orchestrator = await serving(database, [trees, rose]);
  const described = { description: "Counts" };
  const client = await connected(orchestrator, { flows: { trees: described, rose: described } });

  const { tools } = await client.listTools();
  for (const { inputSchema } of tools.filter(({ name }) => name === "trees" || name === "rose")) {
    const schema = z.fromJSONSchema(inputSchema as never);
    expect(schema.safeParse({ input: [{ name: "a", children: [{ name: "b", children: [] }] }] }).success).toBe(true);
    expect(schema.safeParse({ input: [{ name: "a", children: [{ name: 7, children: [] }] }] }).success).toBe(false);
  }
  expect(await call(client, "trees", { input: [{ name: "a", children: [] }] })).toMatchObject({ result: 1 });
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
