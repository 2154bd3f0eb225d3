/** `agentFlow()`: an agent is a flow. One model call is one attempt of a chunk, one tool call is one item of a collection. */
import type { OutputInterface as Output, StepResult, ToolSet } from "ai";
import { z } from "zod";
import { ContractError, UsageError } from "../base/errors.ts";
import { defineFlow, type Flow } from "../flow/builder.ts";
import type { Ctx } from "../flow/context.ts";
import { approve, pauses } from "./approval.ts";
import { agentContract, Message, modelChunk, toModelMessages, toStorable, type AgentContract } from "./contract.ts";
import { callModel, noUsage, retryOf, show } from "./model.ts";
import { ai } from "./sdk.ts";
import { checkSettings, type AgentSettings } from "./settings.ts";
import { stepsOf } from "./steps.ts";
import { useTool } from "./tools.ts";

/** An agent: a flow whose chunks are its model calls and whose items are its tool calls. */
export type AgentFlow = Flow<AgentContract>;

const maxStreamItems = 1_000_000;

/**
 * An agent as a flow: alone, as a sub-flow, or in the middle of a graph. Its input is a text, `{ prompt }` or `{ messages }`; its
 * result is its state: `text`, `messages`, `usage`, `steps`, `output`.
 *
 * @param name of the flow; the model is the resource `<name>.model`
 * @throws {DefinitionError} a tool without `inputSchema`, a rule for a tool that it does not have, or another setting that cannot be
 *   meant
 */
export function agentFlow<TOOLS extends ToolSet = ToolSet, OUTPUT extends Output = Output>(
  name: string,
  settings: AgentSettings<TOOLS, OUTPUT>,
): AgentFlow {
  const own = erase(settings);
  checkSettings(name, own);
  const { model, retry, timeout = null, toolCallConcurrency: concurrency = null } = own;
  const flow = defineFlow(name, agentContract, { maxStreamItems, ...own.flow });
  flow.declareResourceRequirement(`${name}.model`, model === undefined ? {} : { resolver: () => model });
  flow.to("prompt", async (ctx) => {
    const messages = messagesOf(ctx.input);
    toModelMessages(messages, `messages of agent "${name}"`);
    await ctx.setState("messages", messages);
    await ctx.setState("steps", []);
    await ctx.setState("usage", noUsage);
    if (own.budget) await ctx.setState("budget", own.budget.tokens);
    ctx.emitNoWait("ModelCall", { step: 1 });
  });
  flow
    .when("ModelCall")
    .to(modelChunk, (ctx) => callModel(ctx, name, own), { retry: retryOf(retry), timeout })
    .forEach({ concurrency })
    .to("approve", (ctx) => approve(ctx, own))
    .to("tool", (ctx) => useTool(ctx, own))
    .endForEach()
    .to("next", (ctx) => next(ctx, name, own));
  return flow;
}

const BudgetAnswer = z.object({ decision: z.enum(["continue", "stop"]), tokens: z.int().positive().optional() });

/** After a step: another model call, or the end. */
async function next(ctx: Ctx<AgentContract, unknown[]>, name: string, settings: AgentSettings) {
  if (!ctx.isResume && ctx.input.length > 0)
    await ctx.appendState("messages", Message.parse({ role: "tool", content: ctx.input }));
  const { messages = [], steps = [], usage = noUsage, budget } = ctx.getState();
  const done = stepsOf(toModelMessages(messages, `messages of agent "${name}"`), steps);
  const last = steps.at(-1);
  // Without results of tools in this step the model has nothing to answer to, also where it said nothing.
  if (!messages.slice(last?.from).some(({ role }) => role === "tool")) {
    const output = await outputOf(name, settings, done.at(-1));
    if (output !== undefined) await ctx.setState("output", output);
    return finish(ctx, last?.finishReason ?? "unknown");
  }
  if (await isToStop(settings, done)) return finish(ctx, "stopped");
  if (budget !== undefined && usage.totalTokens >= budget) {
    if (!ctx.resume) {
      const exceeded = exceed(ctx, name, settings, usage.totalTokens, budget);
      return exceeded ?? finish(ctx, "budget");
    }
    const { decision, tokens } = BudgetAnswer.parse(ctx.resume.value);
    if (decision === "stop") return finish(ctx, "budget");
    await ctx.setState("budget", usage.totalTokens + (tokens ?? settings.budget?.tokens ?? budget));
  }
  ctx.emitNoWait("ModelCall", { step: steps.length + 1 });
  return null;
}

/**
 * What the settings make of the text. It is read here, where the text is in the ledger already: the call was paid for.
 *
 * @throws {ContractError} the text is something else
 */
async function outputOf(name: string, { output }: AgentSettings, step: StepResult<ToolSet> | undefined) {
  if (!output || !step) return undefined;
  const where = `output of agent "${name}"`;
  const { text, response, usage, finishReason } = step;
  let parsed: unknown;
  try {
    parsed = await output.parseCompleteOutput({ text }, { response, usage, finishReason });
  } catch (error) {
    if (!ai.NoObjectGeneratedError.isInstance(error)) throw error;
    const why = error.cause instanceof Error ? `${error.message} ${error.cause.message}` : error.message;
    throw new ContractError(where, [{ path: [], code: "custom", message: why.slice(0, 2000) }]);
  }
  return toStorable(parsed, where);
}

async function finish(ctx: Ctx<AgentContract, unknown>, finishReason: string): Promise<null> {
  await ctx.setState("finishReason", finishReason);
  const known = ["stop", "length", "content-filter", "tool-calls", "error", "other"] as const;
  const reason = known.find((one) => one === finishReason) ?? "other";
  await show(ctx)({ type: "finish", finishReason: reason });
  return null;
}

/** The question to a person; null where nobody is asked. */
function exceed(
  ctx: Ctx<AgentContract, unknown>,
  name: string,
  { budget, approval = {} }: AgentSettings,
  used: number,
  tokens: number,
) {
  const { onExceeded = "ask" } = budget ?? {};
  if (onExceeded === "fail")
    throw new UsageError(
      `agent "${name}" has used ${used} tokens and its budget is ${tokens}`,
      'raise budget.tokens, or let budget.onExceeded be "ask"',
      { used, tokens },
    );
  if (onExceeded === "stop") return null;
  // The approval's answers do not fit this question.
  const { expiresIn: _, escalate: _others, ...asking } = approval;
  return ctx.pauseFor({
    ...asking,
    type: pauses.budget,
    payload: { used, tokens },
    response: BudgetAnswer,
    resumeTo: "self",
    maxResumes: null,
  });
}

async function isToStop(
  { stopWhen = ai.isStepCount(20) }: AgentSettings,
  steps: StepResult<ToolSet>[],
): Promise<boolean> {
  for (const condition of [stopWhen].flat()) if (await condition({ steps })) return true;
  return false;
}

function messagesOf(input: Ctx<AgentContract, unknown>["startInput"]): Message[] {
  if (typeof input === "object" && "messages" in input) return input.messages;
  return [{ role: "user", content: typeof input === "string" ? input : input.prompt }];
}

/**
 * The one cast of these files. Settings are typed by the agent's own tools for those who write them; here a tool is whatever stands
 * under its name, and gets the input that its own schema has checked.
 */
function erase<TOOLS extends ToolSet, OUTPUT extends Output>(settings: AgentSettings<TOOLS, OUTPUT>): AgentSettings {
  return settings as unknown as AgentSettings;
}
