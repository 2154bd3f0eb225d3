/** `prepareStep`: what one model call has otherwise than the others. It is recorded, so each attempt of the call is the same. */
import type { LanguageModel, LanguageModelCallOptions, ModelMessage, PrepareStepFunction, ToolSet } from "ai";
import { UsageError } from "../base/errors.ts";
import { isObject } from "../base/json.ts";
import { requireKnown, show } from "../base/option.ts";
import type { Ctx } from "../flow/context.ts";
import { toModelMessages, toStorable, type AgentContract } from "./contract.ts";
import { stepsOf } from "./steps.ts";

type Sdk<TOOLS extends ToolSet> = PrepareStepFunction<TOOLS, Record<string, unknown>>;
type Changed<TOOLS extends ToolSet> = NonNullable<Awaited<ReturnType<Sdk<TOOLS>>>>;

/** What a model call is to be made with, and what there was before it: as in the AI SDK. */
export type StepToPrepare<TOOLS extends ToolSet = ToolSet> = Pick<
  Parameters<Sdk<TOOLS>>[0],
  "steps" | "stepNumber" | "model" | "instructions" | "messages" | "initialMessages" | "responseMessages"
>;

/** What this call has otherwise; the next one begins again with the agent's settings. It is recorded, so all of it is JSON. */
export interface PreparedStep<TOOLS extends ToolSet = ToolSet>
  extends
    LanguageModelCallOptions,
    Pick<Changed<TOOLS>, "instructions" | "messages" | "toolChoice" | "activeTools" | "toolOrder" | "providerOptions"> {
  /** The name of a resource that is a model, or what the AI SDK's gateway calls one. */
  readonly model?: string;
}

/** Runs once for each model call. */
export type PrepareStep<TOOLS extends ToolSet = ToolSet> = (
  step: StepToPrepare<TOOLS>,
) => PreparedStep<TOOLS> | undefined | PromiseLike<PreparedStep<TOOLS> | undefined>;

/** What the AI SDK lets a single call have. */
export const callOptionNames = Object.keys({
  maxOutputTokens: true,
  temperature: true,
  topP: true,
  topK: true,
  presencePenalty: true,
  frequencyPenalty: true,
  stopSequences: true,
  seed: true,
  reasoning: true,
} satisfies Record<keyof LanguageModelCallOptions, true>);

const names = ["model", "instructions", "messages", "toolChoice", "activeTools", "toolOrder", "providerOptions"];

/** Settings of the agent that it starts from. */
interface Preparing {
  readonly prepareStep?: PrepareStep;
  readonly instructions?: StepToPrepare["instructions"];
  readonly tools?: ToolSet;
}

/** @throws {UsageError} it returned something invalid */
export async function prepare(
  ctx: Ctx<AgentContract, unknown>,
  agent: string,
  settings: Preparing,
  messages: ModelMessage[],
  model: LanguageModel,
) {
  const { prepareStep, instructions, tools = {} } = settings;
  if (!prepareStep) return { model, messages };
  const where = `prepareStep of agent "${agent}"`;
  const steps = ctx.getState("steps") ?? [];
  const first = steps[0]?.from ?? messages.length;
  const given = await ctx.step("prepareStep", async () => {
    const changed = await prepareStep({
      steps: stepsOf(messages, steps),
      stepNumber: steps.length,
      model,
      instructions,
      messages: [...messages],
      initialMessages: messages.slice(0, first),
      responseMessages: messages.slice(first).filter((one) => one.role === "assistant" || one.role === "tool"),
    });
    if (changed === undefined) return {};
    requireKnown(changed, [...names, ...callOptionNames], where);
    if (changed.model !== undefined && typeof changed.model !== "string")
      throw new UsageError(
        `${where} must return a model as a string, got ${show(changed.model)}`,
        "what it gives is recorded: pass the model to createOrchestrator({ resources }), and give its name",
      );
    for (const tool of changed.activeTools ?? [])
      if (!Object.hasOwn(tools, tool))
        throw new UsageError(`${where} names the tool ${show(tool)}, which the agent does not have`, null);
    return toStorable(changed, `what ${where} gave`);
  });
  const { model: named, messages: changed, ...more } = isObject(given) ? given : {};
  return {
    ...more,
    model: typeof named === "string" ? (ctx.getResource<LanguageModel>(named) ?? named) : model,
    messages: changed === undefined ? messages : toModelMessages(changed, `messages of ${where}`),
  };
}
