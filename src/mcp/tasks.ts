/**
 * Executions as tasks, in both forms that the protocol has: that of the revision 2025-11-25, which a call asks for, and the extension of
 * 2026-07-28, where a client that takes tasks gets one. The two share names of methods, and nothing of their results.
 */
import {
  ElicitResultSchema,
  ErrorCode,
  McpError,
  RELATED_TASK_META_KEY,
  type CallToolResult,
  type ElicitRequestFormParams,
  type Task,
} from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import { ContractError, ExecutionNotFoundError, UsageError } from "../base/errors.ts";
import { isObject, type Json } from "../base/json.ts";
import type { Execution } from "../execution/execution.ts";
import { isTooLate, type InterruptRecord } from "../execution/interrupt.ts";
import {
  callTool,
  failed,
  parsed,
  refusalOf,
  tasksExtension,
  type Asked,
  type Extras,
  type ToolDefinition,
} from "./serve.ts";

/** What tasks are made of. */
export interface TaskSource {
  readonly tools: readonly ToolDefinition[];
  /** Who answers and cancels. */
  readonly actor: string;
  /** @throws {ExecutionNotFoundError} it is not this client's */
  own(id: string): Promise<Execution>;
  list(cursor: string | undefined): Promise<{
    readonly executions: readonly { readonly id: string }[];
    readonly nextCursor: string | null;
  }>;
  /** Begins what the tool stands for; null where it is no flow. */
  begin(tool: string, args: unknown): Promise<Execution> | null;
  /** What a call of the tool answers now. */
  told(execution: Execution, signal: AbortSignal): Promise<CallToolResult>;
  /** Waits for the end (false) or for a question (true). */
  asks(execution: Execution, signal: AbortSignal): Promise<boolean>;
}

const pollIntervalMs = 500;
const Call = z.looseObject({
  name: z.string(),
  arguments: z.record(z.string(), z.unknown()).default({}),
  task: z.unknown().optional(),
});
const One = z.looseObject({ taskId: z.string() });
const Page = z.looseObject({ cursor: z.string().optional() }).default({});
const Content = z.record(z.string(), z.unknown());
const Response = z.looseObject({ action: z.enum(["accept", "decline", "cancel"]), content: Content.optional() });
const Update = z.looseObject({ taskId: z.string(), inputResponses: z.record(z.string(), z.unknown()) });

export function tasksOf(source: TaskSource): Extras {
  const { tools, actor } = source;
  const one = async (params: unknown): Promise<Execution> =>
    source.own(parsed(One, params).taskId).catch((error: unknown) => {
      if (error instanceof ExecutionNotFoundError || error instanceof UsageError) throw invalid(error.message);
      throw error;
    });
  return {
    capabilities: { tasks: { list: {}, cancel: {}, requests: { tools: { call: {} } } } },
    modernCapabilities: { extensions: { [tasksExtension]: {} } },
    methods: {
      "tools/call": async (params, asked) => {
        const { name, arguments: args, task } = parsed(Call, params);
        const isWanted = asked.isModern ? asked.takesTasks : task !== undefined;
        if (!isWanted) return callTool(tools, name, args, asked);
        try {
          const begun = source.begin(name, args);
          if (asked.isModern)
            return begun
              ? { resultType: "task", ...(await handleOf(await begun)) }
              : callTool(tools, name, args, asked);
          if (!begun) throw new McpError(ErrorCode.MethodNotFound, `tool ${name} is no task`);
          return { task: await taskOf(await begun) };
        } catch (error) {
          if (error instanceof McpError) throw error;
          const why = refusalOf(error, name);
          if (asked.isModern) return failed(why);
          throw invalid(why);
        }
      },
      "tasks/get": async (params, asked) => {
        requireDeclared(asked);
        const execution = await one(params);
        return asked.isModern ? detailed(source, execution, asked) : taskOf(execution);
      },
      "tasks/update": async (params, asked) => {
        if (!asked.takesTasks) throw undeclared();
        const { inputResponses } = parsed(Update, params);
        const execution = await one(params);
        for (const question of await execution.getPendingInterrupts()) {
          const key = keyOf(question);
          if (!Object.hasOwn(inputResponses, key)) continue;
          const { action, content = {} } = parsed(Response, inputResponses[key]);
          if (action === "accept") await answer(execution, question, content, actor);
        }
        return {};
      },
      "tasks/cancel": async (params, asked) => {
        requireDeclared(asked);
        const execution = await one(params);
        const isCancelled = await execution.cancel("cancelled", { actor });
        if (asked.isModern) return {};
        if (!isCancelled) throw invalid(`task ${execution.id} has ended`);
        await execution.waitForClose({ timeout: "30s" }).catch(() => {});
        return taskOf(execution);
      },
      "tasks/list": async (params, asked) => {
        requireLegacy(asked, "tasks/list");
        const page = await source.list(parsed(Page, params).cursor);
        const tasks = await Promise.all(page.executions.map(async ({ id }) => taskOf(await source.own(id))));
        return { tasks, ...(page.nextCursor !== null && { nextCursor: page.nextCursor }) };
      },
      "tasks/result": async (params, asked) => {
        requireLegacy(asked, "tasks/result");
        const execution = await one(params);
        const { signal } = asked.extra;
        while (await source.asks(execution, signal)) if (!(await elicit(execution, actor, asked))) break;
        const result = await source.told(execution, signal);
        return { ...result, _meta: { [RELATED_TASK_META_KEY]: { taskId: execution.id } } };
      },
    },
  };
}

function requireDeclared({ isModern, takesTasks }: Asked): void {
  if (isModern && !takesTasks) throw undeclared();
}

function requireLegacy({ isModern }: Asked, method: string): void {
  if (isModern) throw new McpError(ErrorCode.MethodNotFound, `there is no method ${method} since 2026-07-28`);
}

function undeclared(): McpError {
  return new McpError(-32021, `the client does not say in the request that it takes ${tasksExtension}`, {
    requiredCapabilities: { extensions: { [tasksExtension]: {} } },
  });
}

function invalid(message: string): McpError {
  return new McpError(ErrorCode.InvalidParams, message);
}

/** Of the revision 2025-11-25: there a flow that failed is a task that failed. */
async function taskOf(execution: Execution): Promise<Task> {
  const { ttlMs: ttl, pollIntervalMs: pollInterval, ...task } = await handleOf(execution);
  return { ...task, ttl, pollInterval };
}

async function handleOf(execution: Execution) {
  const { status, createdAt, startedAt, closedAt } = await execution.result.getMeta();
  const asked = status === "waiting" ? await execution.getPendingInterrupts() : [];
  const isOver = status === "completed" || status === "failed" || status === "cancelled";
  const moments = [createdAt, startedAt, closedAt, ...asked.map((question) => question.createdAt)];
  const last = Math.max(...moments.map((moment) => moment?.getTime() ?? 0));
  return {
    taskId: execution.id,
    status: isOver ? status : asked.length > 0 ? ("input_required" as const) : ("working" as const),
    ttlMs: null,
    createdAt: createdAt.toISOString(),
    lastUpdatedAt: new Date(last).toISOString(),
    pollIntervalMs,
    ...(!isOver && { statusMessage: (await execution.explain()).sentence }),
  };
}

/** Of the extension: what it asks, or what the call would have answered. A task that failed there is a broken protocol, not a flow. */
async function detailed(source: TaskSource, execution: Execution, { extra }: Asked) {
  const task = await handleOf(execution);
  if (task.status === "completed" || task.status === "failed")
    return {
      ...task,
      status: "completed",
      result: { resultType: "complete", ...(await source.told(execution, extra.signal)) },
    };
  if (task.status !== "input_required") return task;
  const questions = await execution.getPendingInterrupts();
  // Answered meanwhile, and what follows is not there yet.
  if (questions.length === 0) return { ...task, status: "working" };
  const requests = questions.map((question) => [
    keyOf(question),
    { method: "elicitation/create", params: formOf(question).form },
  ]);
  return { ...task, inputRequests: Object.fromEntries(requests) };
}

/** Another one when the same is asked again: a client answers each key once. */
function keyOf({ id, resumeCount }: InterruptRecord): string {
  return `${id}#${resumeCount}`;
}

/** Asks the person behind a client of 2025-11-25; false where it cannot be asked, or they would not answer. */
async function elicit(execution: Execution, actor: string, { extra, canBeAsked }: Asked): Promise<boolean> {
  if (!canBeAsked) return false;
  const [question] = await execution.getPendingInterrupts();
  if (!question) return true;
  const related = { [RELATED_TASK_META_KEY]: { taskId: execution.id } };
  const { action, content } = await extra.sendRequest(
    { method: "elicitation/create", params: { ...formOf(question).form, _meta: related } },
    ElicitResultSchema,
  );
  if (action !== "accept") return false;
  await answer(execution, question, content ?? {}, actor);
  return true;
}

/** Where somebody else was first theirs counts. */
async function answer(
  execution: Execution,
  question: InterruptRecord,
  content: Readonly<Record<string, unknown>>,
  actor: string,
): Promise<void> {
  try {
    await execution.continueWith(question.id, formOf(question).valueOf(content), { actor, onlyIfPending: true });
  } catch (error) {
    if (error instanceof ContractError) throw invalid(error.message);
    if (!isTooLate(error)) throw error;
  }
}

const labels = { title: z.string().optional(), description: z.string().optional() };
const Field = z.discriminatedUnion("type", [
  z.object({ type: z.literal("string"), enum: z.array(z.string()).optional(), ...labels }),
  z.object({ type: z.enum(["number", "integer"]), ...labels }),
  z.object({ type: z.literal("boolean"), ...labels }),
]);

interface Form {
  readonly form: ElicitRequestFormParams;
  valueOf(this: void, content: Readonly<Record<string, unknown>>): unknown;
}

/** A form has flat fields only. What does not fit is the field `value`: as it is where it is flat itself, else as JSON. */
function formOf({ type, title, payload, response }: InterruptRecord): Form {
  const message = `${title ?? type}: ${JSON.stringify(payload)}`.slice(0, 4000);
  type Properties = ElicitRequestFormParams["requestedSchema"]["properties"];
  const form = (properties: Properties, required: string[]): ElicitRequestFormParams => ({
    mode: "form",
    message,
    requestedSchema: { type: "object", properties, required },
  });
  const fields = fieldsOf(response);
  if (fields) return { form: form(fields.properties, fields.required), valueOf: (content) => content };
  const { success, data } = Field.safeParse(response);
  if (success) return { form: form({ value: withoutUndefined(data) }, ["value"]), valueOf: ({ value }) => value };
  const description = response === null ? "any JSON" : `JSON of ${JSON.stringify(response)}`.slice(0, 4000);
  return {
    form: form({ value: { type: "string", title: "Answer as JSON", description } }, ["value"]),
    valueOf: ({ value }) => jsonOf(value),
  };
}

function fieldsOf(response: Json) {
  if (!isObject(response) || !isObject(response["properties"])) return null;
  const required = Array.isArray(response["required"]) ? response["required"].map(String) : [];
  const properties: ElicitRequestFormParams["requestedSchema"]["properties"] = {};
  for (const [name, schema] of Object.entries(response["properties"])) {
    const { success, data } = Field.safeParse(schema);
    if (success) properties[name] = withoutUndefined(data);
    else if (required.includes(name)) return null;
  }
  return Object.keys(properties).length > 0 ? { properties, required } : null;
}

/** What a person wrote; a text that is no JSON is meant as a text. */
function jsonOf(value: unknown): unknown {
  try {
    return JSON.parse(String(value));
  } catch {
    return value;
  }
}

function withoutUndefined<T extends object>(value: T): T {
  return JSON.parse(JSON.stringify(value));
}
