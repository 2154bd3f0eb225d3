/** Which tool calls a person decides on, how they are asked, and what follows from the answer. */
import type { ModelMessage, ToolApprovalStatus, ToolSet } from "ai";
import { z } from "zod";
import type { Json } from "../base/json.ts";
import type { Ctx } from "../flow/context.ts";
import { toModelMessages, toStorable, type AgentContract } from "./contract.ts";
import { show, type Call } from "./model.ts";
import { ai } from "./sdk.ts";
import { answerOf, decisions, toolOf, type AgentSettings } from "./settings.ts";

/** The pauses of an agent, by their type. */
export const pauses = { approval: "tool-approval", output: "tool-output", budget: "budget" } as const;

/** What is asked about a tool call. */
export const Question = z.looseObject({ toolCallId: z.string(), tool: z.string() });

/** A call with what has been decided on it. */
export interface Decided extends Call {
  readonly outcome: "run" | "denied" | "answered";
  /** Why it was denied, or what a person answered in its place. */
  readonly answer: Json;
}

/** A tool as it stands under its name. */
type Tool = ToolSet[string];

/** Asks where a rule says so; passes on what may run. */
export async function approve(ctx: Ctx<AgentContract, Call>, settings: AgentSettings) {
  const call = ctx.input;
  const tool = toolOf(settings, call.toolName);
  if (!tool) return denied(call, `there is no tool "${call.toolName}" any more`);
  if (ctx.resume) return answered(ctx, call, tool, settings);
  const status = await statusOf(ctx, call, tool, settings);
  if (status.type === "denied") return denied(call, status.reason ?? "not allowed");
  if (status.type === "user-approval") return ask(ctx, call, tool, settings, status.reason);
  return { ...call, outcome: "run", answer: null } satisfies Decided;
}

/** Whoever called the agent has to run it: a page, or another program. */
export function askForOutput(ctx: Ctx<AgentContract, Decided>, { toolCallId, toolName, input }: Call, tool: Tool) {
  return ctx.pauseFor({
    type: pauses.output,
    payload: { toolCallId, tool: toolName, input, ...description(tool) },
    resumeTo: "self",
  });
}

function ask(
  ctx: Ctx<AgentContract, Call>,
  call: Call,
  tool: Tool,
  { approval = {}, toolOptions = {} }: AgentSettings,
  reason: string | undefined,
  problem?: string,
) {
  const { expiresIn = null, ...asking } = approval;
  const allowed = toolOptions[call.toolName]?.decisions ?? decisions;
  return ctx.pauseFor({
    type: pauses.approval,
    payload: {
      toolCallId: call.toolCallId,
      tool: call.toolName,
      input: call.input,
      ...description(tool),
      ...(reason !== undefined && { reason }),
      ...(problem !== undefined && { problem }),
    },
    response: answerOf(allowed),
    title: `May ${call.toolName} run?`,
    ...asking,
    resumeTo: "self",
    maxResumes: null,
    ...(expiresIn !== null && {
      expiresIn,
      onExpire: { value: { decision: expiry(allowed), message: "nobody decided in time" } },
    }),
  });
}

/** Of the decisions that may be made, the one that runs nothing. */
export function expiry(allowed: readonly string[]): "reject" | "respond" {
  return allowed.includes("reject") ? "reject" : "respond";
}

async function answered(ctx: Ctx<AgentContract, Call>, call: Call, tool: Tool, settings: AgentSettings) {
  const { decision, input, message } = answerOf(decisions).parse(ctx.resume?.value);
  if (decision === "reject") return denied(call, message ?? "rejected");
  if (decision === "respond") return { ...call, outcome: "answered", answer: message ?? "" } satisfies Decided;
  if (decision === "approve") return { ...call, outcome: "run", answer: null } satisfies Decided;
  const checked = await checkInput(tool, input);
  if (!checked.success) return ask(ctx, call, tool, settings, undefined, checked.problem);
  const edited = { ...call, input: toStorable(checked.value, `input of tool "${call.toolName}"`) };
  await show(ctx)({
    type: "tool-input-available",
    toolCallId: call.toolCallId,
    toolName: call.toolName,
    input: edited.input,
  });
  return { ...edited, outcome: "run", answer: null } satisfies Decided;
}

async function checkInput(tool: Tool, input: unknown) {
  const schema = ai.asSchema(tool.inputSchema);
  // A JSON Schema without a validator checks nothing, here as in the AI SDK.
  const found = await schema.validate?.(input);
  if (found === undefined) return { success: true as const, value: input };
  return found.success
    ? { success: true as const, value: found.value }
    : { success: false as const, problem: `the edited input was refused: ${found.error.message}`.slice(0, 2000) };
}

type Status = Exclude<ToolApprovalStatus, string | undefined>;

/** What the agent's rule says, else the tool's own. */
async function statusOf(
  ctx: Ctx<AgentContract, Call>,
  call: Call,
  tool: Tool,
  { toolApproval }: AgentSettings,
): Promise<Status> {
  const { toolCallId, toolName, input } = call;
  const messages: ModelMessage[] = toModelMessages(ctx.getState("messages") ?? [], `messages of chunk "${ctx.chunk}"`);
  if (typeof toolApproval === "function") {
    const toolCall = { type: "tool-call" as const, toolCallId, toolName, input, dynamic: true as const };
    return normal(await toolApproval({ toolCall, messages }));
  }
  const rule = toolApproval && Object.hasOwn(toolApproval, toolName) ? toolApproval[toolName] : undefined;
  if (rule !== undefined)
    return normal(typeof rule === "function" ? await rule(input, { toolCallId, messages }) : rule);
  return normal(tool.needsApproval === true ? "user-approval" : undefined);
}

function normal(status: ToolApprovalStatus): Status {
  return typeof status === "object" ? status : { type: status ?? "not-applicable" };
}

function denied(call: Call, answer: string): Decided {
  return { ...call, outcome: "denied", answer };
}

function description({ description: text }: Tool): { description?: string } {
  return typeof text === "string" ? { description: text } : {};
}
