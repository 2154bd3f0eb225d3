/** `createMcpServer()`: a flow is a tool. Who waits for a person is told what is asked, and an execution is a task. */
import type { Server } from "@modelcontextprotocol/sdk/server/index.js";
import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import { parseDuration, type Duration } from "../base/duration.ts";
import { ExecutionCancelledError, ExecutionFailedError, ExecutionNotFoundError, UsageError } from "../base/errors.ts";
import { canonical, isObject, toJson, type Json, type JsonObject } from "../base/json.ts";
import { requireActor, requireKnown, requireRecord, requireText, show } from "../base/option.ts";
import { systemTimers } from "../base/timers.ts";
import type { Execution } from "../execution/execution.ts";
import type { BoundFlow } from "../execution/bound-flow.ts";
import type { InterruptRecord } from "../execution/interrupt.ts";
import type { Orchestrator } from "../orchestrator.ts";
import { objectSchema, serverOf, toolOf, type ToolDefinition } from "./serve.ts";
import { tasksOf } from "./tasks.ts";

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
  requireActor(actor, `actor of ${where}`);
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
      run: async (args, { extra }) => told(await begin(flow, args), by.waitMs, extra.signal),
    })),
    toolOf(
      {
        name: "flow_wait",
        description:
          "Waits for what a flow was called for, up to 30 seconds, and says how it is: its result, or what it asks.",
        isReadOnly: true,
      },
      z.strictObject({ executionId: z.string() }),
      async ({ executionId }, { extra }) => told(await own(executionId), by.waitMs, extra.signal),
    ),
    toolOf(
      {
        name: "flow_answer",
        description: "Answers a question that a flow asks; the value is what the question's schema says.",
        isReadOnly: false,
      },
      z.strictObject({ executionId: z.string(), questionId: z.string().min(1), value: z.unknown() }),
      async ({ executionId, questionId, value }, { extra }) => {
        const execution = await own(executionId);
        await execution.continueWith(questionId, value, { actor, onlyIfPending: true });
        return told(execution, by.waitMs, extra.signal);
      },
    ),
    toolOf(
      { name: "flow_cancel", description: "Ends what a flow was called for.", isReadOnly: false, isDestructive: true },
      z.strictObject({ executionId: z.string(), reason: z.string().min(1).max(2000) }),
      async ({ executionId, reason }, { extra }) => {
        const execution = await own(executionId);
        await execution.cancel(reason, { actor });
        // Until it has closed, what it asked still waits.
        await execution.waitForClose({ timeout: by.waitMs, signal: extra.signal }).catch(() => {});
        return told(execution, by.waitMs, extra.signal);
      },
    ),
  ];
  const instructions =
    "Flows run durably: a call that takes long, or that asks a person, goes on. Use flow_wait with its executionId.";
  const tasks = tasksOf({
    tools,
    actor,
    own,
    list: (cursor) =>
      orchestrator.listExecutions({
        flow: served.map(({ bound }) => bound.definition.name),
        metadata: by.owner,
        limit: 50,
        ...(cursor !== undefined && { cursor }),
      }),
    begin: (tool, args) => {
      const flow = served.find((one) => one.tool === tool);
      return flow ? begin(flow, args) : null;
    },
    told: (execution, signal) => told(execution, 0, signal),
    asks,
  });
  return serverOf("flowledger", instructions, tools, tasks);
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
    const schemaOf = (type: z.ZodType) => z.toJSONSchema(type, { io: "input", unrepresentable: "any" });
    const plain = schemaOf(input ?? z.unknown().optional());
    const isWrapped = plain.type !== "object";
    // Written as a whole, so that what refers to a part of it finds that.
    const schema = isWrapped ? schemaOf(z.strictObject({ input: input ?? z.unknown().optional() })) : plain;
    return { bound, tool, description, inputSchema: objectSchema(schema), isWrapped };
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

/** Every field of the one is in the other. */
function contains(metadata: JsonObject, wanted: JsonObject): boolean {
  return Object.entries(wanted).every(
    ([key, value]) => Object.hasOwn(metadata, key) && canonical(metadata[key]) === canonical(value),
  );
}
