/** The steps of an agent as the AI SDK's stop conditions read them, from what the state keeps. */
import type { ModelMessage, StepResult, ToolResultPart, ToolSet } from "ai";
import type { Step } from "./contract.ts";

type Content = StepResult<ToolSet>["content"][number];
type ToolCall = StepResult<ToolSet>["toolCalls"][number];
type ToolResult = StepResult<ToolSet>["toolResults"][number];

export function stepsOf(messages: readonly ModelMessage[], steps: readonly Step[]): StepResult<ToolSet>[] {
  return steps.map((step, index) => stepOf(messages.slice(step.from, steps[index + 1]?.from), step, index));
}

function stepOf(
  messages: readonly ModelMessage[],
  { finishReason, model, usage }: Step,
  index: number,
): StepResult<ToolSet> {
  const parts = messages.flatMap(({ role, content }) =>
    role !== "assistant" ? [] : typeof content === "string" ? [{ type: "text" as const, text: content }] : content,
  );
  const results = messages.flatMap(({ role, content }) => (role === "tool" ? content : []));
  const text = parts.map((part) => (part.type === "text" ? part.text : "")).join("");
  const reasoning = parts.flatMap((part) => (part.type === "reasoning" ? [{ type: part.type, text: part.text }] : []));
  const calls = parts.flatMap((part): ToolCall[] =>
    part.type === "tool-call"
      ? [{ type: part.type, toolCallId: part.toolCallId, toolName: part.toolName, input: part.input, dynamic: true }]
      : [],
  );
  const toolResults = results.flatMap((part): ToolResult[] =>
    part.type === "tool-result"
      ? [{ ...resultOf(part), input: calls.find(({ toolCallId }) => toolCallId === part.toolCallId)?.input }]
      : [],
  );
  const content: Content[] = [...(text === "" ? [] : [{ type: "text" as const, text }]), ...calls, ...toolResults];
  const tokens = { ...usage, inputTokenDetails: noInputDetails, outputTokenDetails: noOutputDetails };
  return {
    callId: `step-${index}`,
    stepNumber: index,
    model: { provider: "", modelId: model },
    toolsContext: {},
    runtimeContext: {},
    content,
    text,
    reasoning,
    reasoningText: reasoning.length > 0 ? reasoning.map((part) => part.text).join("") : undefined,
    files: [],
    sources: [],
    toolCalls: calls,
    staticToolCalls: [],
    dynamicToolCalls: calls.filter((call) => call.dynamic === true),
    toolResults,
    staticToolResults: [],
    dynamicToolResults: toolResults.filter((result) => result.dynamic === true),
    finishReason: reasonOf(finishReason),
    rawFinishReason: finishReason,
    usage: tokens,
    performance: noPerformance,
    warnings: undefined,
    request: {},
    response: { id: `step-${index}`, timestamp: epoch, modelId: model, messages: [] },
    providerMetadata: undefined,
  };
}

function resultOf({ toolCallId, toolName, output }: ToolResultPart) {
  const value = "value" in output ? output.value : null;
  return { type: "tool-result" as const, toolCallId, toolName, output: value, dynamic: true as const };
}

const reasons = ["stop", "length", "content-filter", "tool-calls", "error", "other"] as const;

function reasonOf(text: string): StepResult<ToolSet>["finishReason"] {
  return reasons.find((reason) => reason === text) ?? "other";
}

const noInputDetails = { noCacheTokens: undefined, cacheReadTokens: undefined, cacheWriteTokens: undefined };
const noOutputDetails = { textTokens: undefined, reasoningTokens: undefined };
/** What was measured is not kept. */
const noPerformance = {
  effectiveOutputTokensPerSecond: 0,
  outputTokensPerSecond: undefined,
  inputTokensPerSecond: undefined,
  effectiveTotalTokensPerSecond: 0,
  stepTimeMs: 0,
  responseTimeMs: 0,
  toolExecutionMs: {},
  timeToFirstOutputMs: undefined,
};
const epoch = new Date(0);
