/** One tool call: it runs as a recorded step of its own, and the page and the model hear what became of it. */
import type { ToolExecutionOptions, ToolResultPart, ToolSet } from "ai";
import { PayloadError } from "../base/errors.ts";
import { isObject, type Json } from "../base/json.ts";
import type { Ctx } from "../flow/context.ts";
import { toModelMessages, toStorable, type AgentContract } from "./contract.ts";
import { askForOutput, type Decided } from "./approval.ts";
import { shorten, show, type Call } from "./model.ts";
import { toolOf, type AgentSettings } from "./settings.ts";

/** What `execute` of a tool gets here beside what the AI SDK gives it. */
export interface DurableToolOptions extends ToolExecutionOptions<unknown> {
  /** For systems that take one: the same in every try of this call, and in no other call. ASCII. */
  readonly idempotencyKey: string;
}

/** The key of the call that a tool runs for; null where it does not run in a flow. */
export function idempotencyKeyOf(options: object): string | null {
  return "idempotencyKey" in options && typeof options.idempotencyKey === "string" ? options.idempotencyKey : null;
}

type Result = Pick<ToolResultPart, "toolCallId" | "toolName" | "output">;

/** Runs what may run. @returns what the model is told */
export async function useTool(ctx: Ctx<AgentContract, Decided>, settings: AgentSettings) {
  const { outcome, answer, ...call } = ctx.input;
  const { toolCallId, toolName } = call;
  const put = show(ctx);
  const told = (output: Result["output"]): Json =>
    toStorable({ type: "tool-result", toolCallId, toolName, output }, `result of tool "${toolName}"`);
  if (outcome === "denied") {
    await put({ type: "tool-output-denied", toolCallId });
    return told({ type: "execution-denied", reason: String(answer) });
  }
  const failed = ctx.resume ? problemOf(ctx.resume.value) : null;
  if (failed !== null) {
    await put({ type: "tool-output-error", toolCallId, errorText: failed });
    return told({ type: "error-text", value: failed });
  }
  if (outcome === "answered" || ctx.resume) {
    const given = ctx.resume ? ctx.resume.value : answer;
    await put({ type: "tool-output-available", toolCallId, output: given });
    return told(outputOf(given));
  }
  const tool = toolOf(settings, toolName);
  const { execute } = tool ?? {};
  if (tool && !execute) return askForOutput(ctx, call, tool);
  if (!tool || !execute) {
    await put({ type: "tool-output-error", toolCallId, errorText: `tool "${toolName}" cannot be run any more` });
    return told({ type: "error-text", value: `tool "${toolName}" cannot be run any more` });
  }
  const { retry, timeout = null } = settings.toolOptions?.[toolName] ?? {};
  const messages = toModelMessages(ctx.getState("messages") ?? [], `messages of chunk "${ctx.chunk}"`);
  let output: Json;
  try {
    output = await ctx.step(
      toolName,
      async (abortSignal, idempotencyKey) => {
        const options: DurableToolOptions = { toolCallId, messages, abortSignal, context: {}, idempotencyKey };
        const preliminary = (value: Json) =>
          put({ type: "tool-output-available", toolCallId, output: value, preliminary: true });
        return runTool(execute, call, options, preliminary);
      },
      { timeout, retry: { ...retry, retryIf: (error) => !isUnstorable(error) && (retry?.retryIf?.(error) ?? true) } },
    );
  } catch (error) {
    // These are not told to the model: the attempt was cut off, or the result cannot be stored.
    if (ctx.signal.aborted || isUnstorable(error)) throw error;
    const errorText = messageOf(error);
    await put({ type: "tool-output-error", toolCallId, errorText });
    return told({ type: "error-text", value: errorText });
  }
  await put({ type: "tool-output-available", toolCallId, output });
  return told(await modelOutput(tool, call, output));
}

/** @throws {PayloadError} what it gave is no JSON. What is only too large is an error like those of the tool: less may be asked for */
export async function runTool(
  execute: NonNullable<ToolSet[string]["execute"]>,
  { toolName, input }: Pick<Call, "toolName" | "input">,
  options: ToolExecutionOptions<unknown>,
  preliminary: (value: Json) => Promise<void>,
): Promise<Json> {
  const where = `output of tool "${toolName}"`;
  const kept = (value: unknown): Json => {
    try {
      return value === undefined ? null : toStorable(value, where);
    } catch (error) {
      throw isTooLarge(error) ? new Error(error.message, { cause: error }) : error;
    }
  };
  const given: unknown = await execute(input, options);
  if (!isObject(given) || !(Symbol.asyncIterator in given)) return kept(given);
  let last: Json = null;
  let isFirst = true;
  for await (const value of given as unknown as AsyncIterable<unknown>) {
    // The last value is the result, and not a preliminary one.
    if (!isFirst) await preliminary(last);
    isFirst = false;
    last = kept(value);
  }
  return last;
}

async function modelOutput(
  tool: ToolSet[string],
  { toolCallId, input }: Call,
  output: Json,
): Promise<Result["output"]> {
  return tool.toModelOutput ? tool.toModelOutput({ toolCallId, input, output }) : outputOf(output);
}

function outputOf(output: Json): Result["output"] {
  return typeof output === "string" ? { type: "text", value: output } : { type: "json", value: output };
}

/** What whoever runs the tool says of a run that failed: `{ error }`, and nothing else. */
function problemOf(value: unknown): string | null {
  const { error, ...more } = isObject(value) ? value : {};
  return typeof error === "string" && Object.keys(more).length === 0 ? shorten(error) : null;
}

function isTooLarge(error: unknown): error is PayloadError {
  return error instanceof PayloadError && String(error.details["problem"]).startsWith("larger than");
}

function isUnstorable(error: unknown): boolean {
  // A recorded error comes back without its class.
  return error instanceof Error && error.name === "PayloadError";
}

/** What a model and a page are told of it. */
export function messageOf(error: unknown): string {
  return shorten(error instanceof Error ? error.message : String(error));
}
