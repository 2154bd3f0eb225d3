/** `createMcpServer()`: a flow is a tool. Who waits for a person is told what is asked, and an execution is a task. */
import type { Server } from "@modelcontextprotocol/sdk/server/index.js";
import type { RequestHandlerExtra } from "@modelcontextprotocol/sdk/shared/protocol.js";
import {
  CallToolRequestSchema,
  CancelTaskRequestSchema,
  ElicitResultSchema,
  ErrorCode,
  GetTaskPayloadRequestSchema,
  GetTaskRequestSchema,
  ListTasksRequestSchema,
  McpError,
  RELATED_TASK_META_KEY,
  type CallToolResult,
  type ElicitRequestFormParams,
  type ServerNotification,
  type ServerRequest,
  type Task,
} from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import { parseDuration, type Duration } from "../base/duration.ts";
import { ExecutionCancelledError, ExecutionFailedError, ExecutionNotFoundError, UsageError } from "../base/errors.ts";
import { isObject, toJson, type Json, type JsonObject } from "../base/json.ts";
import { requireKnown, requireRecord, requireText, show } from "../base/option.ts";
import { systemTimers } from "../base/timers.ts";
import type { Execution } from "../execution/execution.ts";
import type { BoundFlow } from "../execution/bound-flow.ts";
import type { InterruptRecord } from "../execution/interrupt.ts";
import type { Orchestrator } from "../orchestrator.ts";
import { callTool, objectSchema, serverOf, toolOf, type ToolDefinition } from "./serve.ts";

/** A flow as a tool: what a client is told of it. */
export interface McpFlow {
  /** For the model that chooses among tools. */
  readonly description: string;
  /** The tool's name. @default that of the flow */
  readonly tool?: string;
}

/** Of `createMcpServer()`. */
export interface McpServerOptions {
  /** Which database the executions are in. */
  readonly orchestrator: Orchestrator;
  /** By the names of flows that the orchestrator has. */
  readonly flows: Readonly<Record<string, McpFlow>>;
  /** Who calls, for the ledger. @default "mcp" */
  readonly actor?: string;
  /** Kept with each execution, and asked of each: executions with other ones are not there. @default { mcp: actor } */
  readonly metadata?: Readonly<Record<string, unknown>>;
  /** How long a call waits for its end, up to "30s": clients give up after a while. @default "30s" */
  readonly waitTimeout?: Duration;
}

const most = 30_000;
const pollIntervalMs = 500;

type Extra = RequestHandlerExtra<ServerRequest, ServerNotification>;

/**
 * A server of the Model Context Protocol, to be connected to any transport: `await server.connect(new StdioServerTransport())`. Each
 * flow is a tool with the input of its contract. A call waits for the end; what takes longer, or asks a person, answers with the
 * execution's id, for `flow_wait` and `flow_answer`. A call as a task has the execution as its handle.
 *
 * @throws {UsageError} an option that is invalid, or a flow that the orchestrator does not have
 */
export function createMcpServer(options: McpServerOptions): Server {
  const where = "createMcpServer()";
  requireKnown(options, ["orchestrator", "flows", "actor", "metadata", "waitTimeout"], where);
  const { orchestrator, flows, actor = "mcp", waitTimeout = most } = options;
  if (!isObject(orchestrator) || typeof orchestrator["getExecution"] !== "function")
    throw new UsageError(
      `orchestrator of ${where} is ${show(orchestrator)}`,
      "pass what createOrchestrator() returned",
    );
  requireText(actor, `actor of ${where}`, { max: 500 });
  const waitMs = parseDuration(waitTimeout, `waitTimeout of ${where}`);
  if (waitMs > most)
    throw new UsageError(`waitTimeout of ${where} is longer than 30s`, "let the client ask again with flow_wait");
  const owner = toJson(
    requireRecord(options.metadata ?? { mcp: actor }, `metadata of ${where}`),
    `metadata of ${where}`,
  );
  const served = servedBy(orchestrator, requireRecord(flows, `flows of ${where}`), where);
  const by = { actor, owner: isObject(owner) ? owner : {}, waitMs };

  const own = async (id: string): Promise<Execution> => {
    const execution = await orchestrator.getExecution(id);
    const { metadata } = await execution.result.getMeta();
    const isOwn = served.some(({ bound }) => bound.definition.name === execution.flow) && contains(metadata, by.owner);
    if (!isOwn) throw new ExecutionNotFoundError(id);
    return execution;
  };
  const begin = (flow: Served, args: unknown) =>
    flow.bound.startExecution(flow.isWrapped && isObject(args) ? args["input"] : args, {
      metadata: by.owner,
      autoCloseTimeout: 0,
    });
  const tools: ToolDefinition[] = [
    ...served.map((flow): ToolDefinition => ({
      name: flow.tool,
      description: flow.description,
      inputSchema: flow.inputSchema,
      isReadOnly: false,
      execution: { taskSupport: "optional" },
      run: async (args, signal) => told(await begin(flow, args), by.waitMs, signal),
    })),
    toolOf(
      {
        name: "flow_wait",
        description:
          "Waits for what a flow was called for, up to 30 seconds, and says how it is: its result, or what it asks.",
        isReadOnly: true,
      },
      z.strictObject({ executionId: z.string() }),
      async ({ executionId }, signal) => told(await own(executionId), by.waitMs, signal),
    ),
    toolOf(
      {
        name: "flow_answer",
        description: "Answers a question that a flow asks; the value is what the question's schema says.",
        isReadOnly: false,
      },
      z.strictObject({ executionId: z.string(), questionId: z.string().min(1), value: z.unknown() }),
      async ({ executionId, questionId, value }, signal) => {
        const execution = await own(executionId);
        await execution.continueWith(questionId, value, { actor, onlyIfPending: true });
        return told(execution, by.waitMs, signal);
      },
    ),
    toolOf(
      { name: "flow_cancel", description: "Ends what a flow was called for.", isReadOnly: false, isDestructive: true },
      z.strictObject({ executionId: z.string(), reason: z.string().min(1).max(2000) }),
      async ({ executionId, reason }, signal) => {
        const execution = await own(executionId);
        await execution.cancel(reason, { actor });
        return told(execution, by.waitMs, signal);
      },
    ),
  ];
  const instructions =
    "Flows run durably: a call that takes long, or that asks a person, goes on. Use flow_wait with its executionId.";
  const server = serverOf("flowledger", instructions, tools, {
    tasks: { list: {}, cancel: {}, requests: { tools: { call: {} } } },
  });
  server.setRequestHandler(CallToolRequestSchema, async ({ params }, { signal }) => {
    const flow = served.find(({ tool }) => tool === params.name);
    if (!params.task || !flow) return callTool(tools, params.name, params.arguments ?? {}, signal);
    return { task: await taskOf(await begin(flow, params.arguments ?? {})) };
  });
  const task = (id: string) => own(id).catch(refuseTask);
  server.setRequestHandler(GetTaskRequestSchema, async ({ params }) => taskOf(await task(params.taskId)));
  server.setRequestHandler(GetTaskPayloadRequestSchema, async ({ params }, extra) => {
    const execution = await task(params.taskId);
    for (let isAsked = await asks(execution, extra.signal); isAsked; isAsked = await asks(execution, extra.signal))
      if (!(await elicit(server, execution, actor, extra))) break;
    const result = await told(execution, 0, extra.signal);
    return { ...result, _meta: { [RELATED_TASK_META_KEY]: { taskId: params.taskId } } };
  });
  server.setRequestHandler(ListTasksRequestSchema, async ({ params }) => {
    const page = await orchestrator.listExecutions({
      flow: served.map(({ bound }) => bound.definition.name),
      metadata: by.owner,
      limit: 50,
      ...(params?.cursor !== undefined && { cursor: params.cursor }),
    });
    const tasks = await Promise.all(page.executions.map(async ({ id }) => taskOf(await orchestrator.getExecution(id))));
    return { tasks, ...(page.nextCursor !== null && { nextCursor: page.nextCursor }) };
  });
  server.setRequestHandler(CancelTaskRequestSchema, async ({ params }) => {
    const execution = await task(params.taskId);
    if (!(await execution.cancel("cancelled", { actor })))
      throw new McpError(ErrorCode.InvalidParams, `task ${params.taskId} has ended`);
    await execution.waitForClose({ timeout: most }).catch(() => {});
    return taskOf(execution);
  });
  return server;
}

interface Served {
  readonly bound: BoundFlow;
  readonly tool: string;
  readonly description: string;
  readonly inputSchema: ToolDefinition["inputSchema"];
  /** The flow takes something else than an object: it is the argument `input`. */
  readonly isWrapped: boolean;
}

function servedBy(orchestrator: Orchestrator, flows: Readonly<Record<string, unknown>>, where: string): Served[] {
  const names = Object.keys(flows);
  if (names.length === 0) throw new UsageError(`flows of ${where} is empty`, "name those that clients may call");
  const taken = new Set(["flow_wait", "flow_answer", "flow_cancel"]);
  return names.map((name) => {
    const at = `flow ${show(name)} of ${where}`;
    const given = requireRecord(flows[name], at);
    requireKnown(given, ["description", "tool"], at);
    const description = requireText(given["description"], `description of ${at}`, { max: 10_000 });
    const tool = given["tool"] === undefined ? name.replaceAll(/[^\w-]/g, "_") : given["tool"];
    if (typeof tool !== "string" || !/^[\w-]{1,64}$/.test(tool))
      throw new UsageError(`tool of ${at} is ${show(tool)}`, "use 1 to 64 letters, digits, _ and -");
    if (taken.has(tool))
      throw new UsageError(`tool ${show(tool)} of ${at} is there already`, "give it another name with { tool }");
    taken.add(tool);
    const bound = orchestrator.flow(name);
    const { input } = bound.definition.contract;
    const schema: unknown = input ? z.toJSONSchema(input, { io: "input", unrepresentable: "any" }) : {};
    const isWrapped = !isObject(schema) || schema["type"] !== "object";
    const { $schema: _, ...plain } = isObject(schema) ? schema : {};
    const wrapped = { properties: { input: plain }, required: input ? ["input"] : [], additionalProperties: false };
    return { bound, tool, description, inputSchema: objectSchema(isWrapped ? wrapped : schema), isWrapped };
  });
}

/** Waits for the end or a question, and says how the execution is. */
async function told(execution: Execution, waitMs: number, signal: AbortSignal): Promise<CallToolResult> {
  const { id: executionId } = execution;
  const late = new AbortController();
  const timer = systemTimers.after(waitMs, () => late.abort(), "a client of MCP waits for an execution");
  try {
    await asks(execution, AbortSignal.any([signal, late.signal]));
  } finally {
    timer.cancel();
  }
  const { lifecycleState } = await execution.result.getMeta();
  if (lifecycleState === "closed")
    return execution.waitForClose({ signal }).then(
      (snapshot) => shown({ executionId, status: "completed", result: resultOf(snapshot) }),
      (error: unknown) => {
        if (error instanceof ExecutionCancelledError) return shown({ executionId, status: "cancelled" }, true);
        if (error instanceof ExecutionFailedError)
          return shown({ executionId, status: "failed", error: error.message }, true);
        throw error;
      },
    );
  const questions = (await execution.getPendingInterrupts()).map(questionOf);
  if (questions.length > 0) return shown({ executionId, status: "input_required", questions });
  const { sentence } = await execution.explain();
  return shown({ executionId, status: "working", why: sentence });
}

function shown(value: JsonObject, isError = false): CallToolResult {
  return {
    content: [{ type: "text", text: JSON.stringify(value) }],
    structuredContent: value,
    ...(isError && { isError }),
  };
}

function resultOf(snapshot: unknown): Json {
  const result = toJson(snapshot, "result of a flow");
  return isObject(result) && "$final_result" in result ? (result["$final_result"] ?? null) : result;
}

function questionOf({ id, type, payload, response }: InterruptRecord): JsonObject {
  return { questionId: id, type, payload, schema: response };
}

/** Resolves at the end with false, with true when it asks something; false too when the time is up. */
async function asks(execution: Execution, signal: AbortSignal): Promise<boolean> {
  if ((await execution.getPendingInterrupts()).length > 0) return true;
  if (signal.aborted) return false;
  for await (const { kind } of execution.streamItems({ timeout: null, signal }))
    if (kind === "interrupt" && (await execution.getPendingInterrupts()).length > 0) return true;
  if (!signal.aborted) await execution.waitForClose({ signal }).catch(() => {});
  return false;
}

/** Asks the person behind the client; false where the client cannot, or they would not. */
async function elicit(server: Server, execution: Execution, actor: string, extra: Extra): Promise<boolean> {
  if (!server.getClientCapabilities()?.elicitation) return false;
  const [question] = await execution.getPendingInterrupts();
  const form = question && formOf(question);
  if (!question || !form) return false;
  const { action, content } = await extra.sendRequest(
    { method: "elicitation/create", params: { ...form, _meta: { [RELATED_TASK_META_KEY]: { taskId: execution.id } } } },
    ElicitResultSchema,
  );
  if (action !== "accept") return false;
  await execution.continueWith(question.id, content ?? {}, { actor, onlyIfPending: true });
  return true;
}

const Field = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("string"),
    enum: z.array(z.string()).optional(),
    title: z.string().optional(),
    description: z.string().optional(),
  }),
  z.object({ type: z.enum(["number", "integer"]), title: z.string().optional(), description: z.string().optional() }),
  z.object({ type: z.literal("boolean"), title: z.string().optional(), description: z.string().optional() }),
]);

/** A form has flat fields only; null where what is asked for does not fit into one. */
function formOf({ type, payload, response }: InterruptRecord): ElicitRequestFormParams | null {
  if (!isObject(response) || !isObject(response["properties"])) return null;
  const required = Array.isArray(response["required"]) ? response["required"].map(String) : [];
  const properties: ElicitRequestFormParams["requestedSchema"]["properties"] = {};
  for (const [name, schema] of Object.entries(response["properties"])) {
    const field = Field.safeParse(schema);
    if (field.success) properties[name] = withoutUndefined(field.data);
    else if (required.includes(name)) return null;
  }
  if (Object.keys(properties).length === 0) return null;
  const message = `${type}: ${JSON.stringify(payload)}`.slice(0, 4000);
  return { mode: "form", message, requestedSchema: { type: "object", properties, required } };
}

function withoutUndefined<T extends object>(value: T): T {
  return JSON.parse(JSON.stringify(value));
}

async function taskOf(execution: Execution): Promise<Task> {
  const { status, createdAt, startedAt, closedAt } = await execution.result.getMeta();
  const asked = status === "waiting" ? await execution.getPendingInterrupts() : [];
  const isOver = status === "completed" || status === "failed" || status === "cancelled";
  return {
    taskId: execution.id,
    status: isOver ? status : asked.length > 0 ? "input_required" : "working",
    ttl: null,
    createdAt: createdAt.toISOString(),
    lastUpdatedAt: (closedAt ?? startedAt ?? createdAt).toISOString(),
    pollInterval: pollIntervalMs,
    ...(!isOver && { statusMessage: (await execution.explain()).sentence }),
  };
}

function refuseTask(error: unknown): never {
  if (error instanceof ExecutionNotFoundError || error instanceof UsageError)
    throw new McpError(ErrorCode.InvalidParams, error.message);
  throw error;
}

/** Every field of the one is in the other. */
function contains(metadata: JsonObject, wanted: JsonObject): boolean {
  return Object.entries(wanted).every(([key, value]) => JSON.stringify(metadata[key]) === JSON.stringify(value));
}
