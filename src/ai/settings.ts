/** The settings of an agent, and what is refused of them where it is defined. */
import type {
  FlexibleSchema,
  LanguageModel,
  LanguageModelCallOptions,
  ModelMessage,
  OutputInterface as Output,
  ToolApprovalStatus,
  ToolLoopAgentSettings,
  ToolSet,
  TypedToolCall,
} from "ai";
import { z } from "zod";
import { parseDuration, type Duration } from "../base/duration.ts";
import { UsageError } from "../base/errors.ts";
import { isObject, toJson } from "../base/json.ts";
import {
  requireInteger,
  requireKnown,
  requireList,
  requireOneOf,
  requireRecord,
  show,
  type Refuse,
} from "../base/option.ts";
import { parseAsking } from "../engine/ctx/asking.ts";
import type { Escalation, RetryOptions } from "../flow/context.ts";
import type { InputOf } from "../flow/contract.ts";
import { refusalOf, type FlowOptions } from "../flow/limits.ts";
import { resolveRetry } from "../flow/retry.ts";
import type { AgentContract } from "./contract.ts";
import { callOptionNames, type PrepareStep } from "./prepare.ts";

type SdkSettings<TOOLS extends ToolSet, OUTPUT extends Output> = ToolLoopAgentSettings<
  never,
  TOOLS,
  Record<string, unknown>,
  OUTPUT
>;

/** What a person may say to a tool call: run it, run it with another input, do not run it, or answer in its place. */
export type Decision = "approve" | "edit" | "reject" | "respond";
export const decisions = ["approve", "edit", "reject", "respond"] as const;

const Answer = z.object({
  decision: z.enum(decisions),
  /** With "edit": the input to run it with. */
  input: z.unknown().optional(),
  /** With "reject": why; with "respond": the answer. */
  message: z.string().max(100_000).optional(),
});

/** The tool of that name. A model may name anything, `constructor` too. */
export function toolOf({ tools = {} }: Pick<AgentSettings, "tools">, name: string): ToolSet[string] | undefined {
  return Object.hasOwn(tools, name) ? tools[name] : undefined;
}

/** What may be answered to a call. */
export function answerOf([first = "approve", ...others]: readonly Decision[]) {
  return Answer.extend({ decision: z.enum([first, ...others]) });
}

/** How one tool runs. */
export interface ToolOptions {
  /** As for a step. @default one try; what it throws is told to the model */
  readonly retry?: RetryOptions;
  /** Longest time of one try. @default none */
  readonly timeout?: Duration | null;
  /** What a person may decide about its calls. @default all four */
  readonly decisions?: readonly Decision[];
}

type Answered = ToolApprovalStatus | PromiseLike<ToolApprovalStatus>;
/** Whether a call runs, is denied, or waits for a person: for one tool, or as a function of its input. */
type ApprovalRule<INPUT> =
  | ToolApprovalStatus
  | ((input: INPUT, options: { readonly toolCallId: string; readonly messages: ModelMessage[] }) => Answered);
/** A rule for each tool, or one function for all calls. */
export type ToolApproval<TOOLS extends ToolSet> =
  | ((asked: { readonly toolCall: TypedToolCall<TOOLS>; readonly messages: ModelMessage[] }) => Answered)
  | { readonly [Name in keyof TOOLS]?: ApprovalRule<InputOfTool<TOOLS[Name]>> };
type InputOfTool<T> = T extends { readonly inputSchema: FlexibleSchema<infer Input> } ? Input : unknown;

/** How a call that waits for a person is asked about. */
export interface ApprovalOptions {
  /** Whom it asks, as `assign` of `pauseFor`: `inbox()` lists it for them. @default nobody in particular */
  readonly assign?: readonly string[];
  /** After so long it is overdue, which ends nothing. Not after `expiresIn`. @default never */
  readonly due?: Duration;
  /** As `remind` of `pauseFor`: so long before it is due. @default none */
  readonly remind?: readonly Duration[];
  /** As `escalate` of `pauseFor`: asks others, or is answered by a decision. Not for the budget. @default none */
  readonly escalate?: readonly Escalation[];
  /** As `link` of `pauseFor`: each handler of the agent's `when("$interrupt")` gets a link that answers it. @default false */
  readonly link?: boolean;
  /** A call that nobody has decided on by then is rejected. @default never */
  readonly expiresIn?: Duration | null;
}

/** How much an agent may use, and what follows when that is used up. */
export interface BudgetOptions {
  /** Tokens of all model calls together. */
  readonly tokens: number;
  /** When they are used up and another call is due: ask a person, stop as if the model had, or fail. @default "ask" */
  readonly onExceeded?: "ask" | "stop" | "fail";
}

/** Those of the AI SDK's `ToolLoopAgent` that say how a model is called, and how each call is made to last. */
export interface AgentSettings<
  TOOLS extends ToolSet = ToolSet,
  OUTPUT extends Output = Output,
> extends LanguageModelCallOptions {
  /** The model, unless the resource `<name>.model` is given: to `createOrchestrator()`, to the flow, or to one execution. */
  readonly model?: LanguageModel;
  /** What the model is told first, as in the AI SDK. @default none */
  readonly instructions?: SdkSettings<TOOLS, OUTPUT>["instructions"];
  /** What the model may call, by name. @default none */
  readonly tools?: TOOLS;
  /** Whether and which tool it must call, as in the AI SDK. @default "auto" */
  readonly toolChoice?: SdkSettings<TOOLS, OUTPUT>["toolChoice"];
  /** The tools that it is told of, as in the AI SDK. @default all */
  readonly activeTools?: SdkSettings<TOOLS, OUTPUT>["activeTools"];
  /** In which order it is told of them, as in the AI SDK. */
  readonly toolOrder?: SdkSettings<TOOLS, OUTPUT>["toolOrder"];
  /**
   * What one model call has otherwise than these settings say, by what was said before it. As in the AI SDK, but for that call only; what
   * it gives is recorded once, and each attempt of the call has it. @default nothing
   */
  readonly prepareStep?: PrepareStep<NoInfer<TOOLS>>;
  /** Mends a call whose input does not fit, as in the AI SDK. @default it is told to the model */
  readonly repairToolCall?: SdkSettings<TOOLS, OUTPUT>["repairToolCall"];
  /** What the provider alone knows, as in the AI SDK. @default none */
  readonly providerOptions?: SdkSettings<TOOLS, OUTPUT>["providerOptions"];
  /** Of the AI SDK; the spans of chunks and steps are `telemetry` of `createOrchestrator()`. @default none */
  readonly telemetry?: SdkSettings<TOOLS, OUTPUT>["telemetry"];
  /** Of each request to the provider. @default none */
  readonly headers?: Readonly<Record<string, string>>;
  /** Structured output; it is in the state as `output`. */
  readonly output?: OUTPUT;
  /** Which calls wait for a person. */
  readonly toolApproval?: ToolApproval<NoInfer<TOOLS>>;
  /** Ends the loop after a step with tool results. @default isStepCount(20) */
  readonly stopWhen?: SdkSettings<TOOLS, OUTPUT>["stopWhen"];
  /** Tool calls of one step at once. @default unlimited */
  readonly toolCallConcurrency?: number;
  /** How each tool runs. */
  readonly toolOptions?: { readonly [Name in keyof NoInfer<TOOLS>]?: ToolOptions };
  /** A model call that failed is made again. @default three attempts, where the provider says that it may help */
  readonly retry?: RetryOptions;
  /** Longest time of one model call. @default none */
  readonly timeout?: Duration | null;
  /** How much all model calls together may use. @default no end */
  readonly budget?: BudgetOptions;
  /** Whom calls that wait for a person ask, and until when. */
  readonly approval?: ApprovalOptions;
  /** Of the flow: limits, `maxDuration`, `onFailure` … @default maxStreamItems 1_000_000 */
  readonly flow?: FlowOptions<InputOf<AgentContract>>;
}

const settingNames = [
  ...callOptionNames,
  ...Object.keys({
    model: true,
    instructions: true,
    tools: true,
    toolChoice: true,
    activeTools: true,
    toolOrder: true,
    repairToolCall: true,
    providerOptions: true,
    telemetry: true,
    headers: true,
    output: true,
    toolApproval: true,
    stopWhen: true,
    toolCallConcurrency: true,
    toolOptions: true,
    retry: true,
    timeout: true,
    budget: true,
    approval: true,
    flow: true,
    prepareStep: true,
  } satisfies Record<Exclude<keyof AgentSettings, keyof LanguageModelCallOptions>, true>),
];

/** Settings of the AI SDK's agents that are none here, and what does the same. */
const elsewhere: Readonly<Record<string, string>> = {
  system: "write instructions",
  maxSteps: "write stopWhen: isStepCount(…)",
  maxRetries: "write retry: { maxAttempts }, whose tries the ledger counts",
  prepareCall: "make { messages } in the chunk before the agent, or write prepareStep",
  runtimeContext: "give it with resources, which tools and prepareStep close over",
  toolsContext: "let tools close over what they need",
  onStepFinish: "read the stream, or put a chunk behind the agent",
  onStepEnd: "read the stream, or put a chunk behind the agent",
  onFinish: "put a chunk behind the agent",
  onEnd: "put a chunk behind the agent",
};

/** @throws {DefinitionError} naming the setting that is invalid */
export function checkSettings(name: string, settings: AgentSettings): void {
  const refuse = refusalOf(name);
  const foreign = Object.keys(isObject(settings) ? settings : {}).find((one) => Object.hasOwn(elsewhere, one));
  if (foreign !== undefined) refuse(`${foreign} is no setting of a durable agent`, elsewhere[foreign] ?? null);
  requireKnown(settings, settingNames, "agentFlow()", refuse);
  const {
    model,
    tools = {},
    toolApproval,
    toolOptions = {},
    stopWhen,
    prepareStep,
    budget,
    approval,
    toolCallConcurrency,
  } = settings;
  const isModel = typeof model === "string" ? model !== "" : isObject(model) && "doStream" in model;
  if (model !== undefined && !isModel)
    refuse(
      `model must be a language model, got ${show(model)}`,
      `give what a provider of the AI SDK made, or leave it out and give the resource "${name}.model"`,
    );
  requireRecord(tools, "tools", refuse);
  for (const [tool, definition] of Object.entries<unknown>(tools)) {
    if (!isObject(definition))
      refuse(`tool ${show(tool)} must be a tool, got ${show(definition)}`, "make it with tool() of the AI SDK");
    const { inputSchema, execute, contextSchema, needsApproval, type } = definition as Readonly<
      Record<string, unknown>
    >;
    if (type !== "provider" && (inputSchema === undefined || inputSchema === null))
      refuse(
        `tool ${show(tool)} has no inputSchema`,
        "give it the schema of what the model has to send, as zod or jsonSchema()",
      );
    if (execute !== undefined && typeof execute !== "function")
      refuse(`execute of tool ${show(tool)} must be a function, got ${show(execute)}`, null);
    if (typeof needsApproval === "function")
      refuse(
        `needsApproval of tool ${show(tool)} is a function`,
        "move it to toolApproval of the agent, whose rules say when",
      );
    if (contextSchema !== undefined)
      refuse(
        `tool ${show(tool)} has a contextSchema`,
        "let it close over what it needs: a context would have to outlive its process",
      );
  }
  const known = Object.keys(tools);
  const there = known.length > 0 ? `use one of ${known.join(", ")}` : "give the agent tools";
  if (toolApproval !== undefined && typeof toolApproval !== "function") {
    requireRecord(toolApproval, "toolApproval", refuse);
    for (const tool of Object.keys(toolApproval))
      if (!known.includes(tool)) refuse(`toolApproval has a rule for ${show(tool)}, which is no tool of it`, there);
  }
  requireRecord(toolOptions, "toolOptions", refuse);
  for (const [tool, options] of Object.entries<ToolOptions | undefined>(toolOptions)) {
    if (!known.includes(tool)) refuse(`toolOptions has options for ${show(tool)}, which is no tool of it`, there);
    const where = `toolOptions of tool ${show(tool)}`;
    requireKnown(options, ["retry", "timeout", "decisions"], where, refuse);
    resolveRetry(options?.retry, `tool ${show(tool)} of agent "${name}"`);
    if (options?.timeout !== undefined && options.timeout !== null)
      parseDuration(options.timeout, `timeout of ${where}`);
    if (options?.decisions === undefined) continue;
    requireList(
      options.decisions,
      `decisions of ${where}`,
      (one, at) => requireOneOf(one, decisions, at, refuse),
      refuse,
    );
    if (options.decisions.length === 0) refuse(`decisions of ${where} is empty`, `use some of ${decisions.join(", ")}`);
    const mayRefuse = options.decisions.some((one) => one === "reject" || one === "respond");
    if (approval?.expiresIn !== undefined && approval.expiresIn !== null && !mayRefuse)
      refuse(
        `approval.expiresIn needs a decision that runs nothing, and decisions of ${where} has none`,
        'add "reject" or "respond" to it, or leave expiresIn out',
      );
  }
  for (const condition of [stopWhen].flat())
    if (condition !== undefined && typeof condition !== "function")
      refuse(
        `stopWhen must be a condition, got ${show(condition)}`,
        "use isStepCount(20), hasToolCall(…) or a function of { steps }",
      );
  if (prepareStep !== undefined && typeof prepareStep !== "function")
    refuse(`prepareStep must be a function, got ${show(prepareStep)}`, null);
  if (toolCallConcurrency !== undefined) requireInteger(toolCallConcurrency, "toolCallConcurrency", { min: 1 }, refuse);
  if (budget !== undefined) {
    requireKnown(budget, ["tokens", "onExceeded"], "budget", refuse);
    requireInteger(budget.tokens, "budget.tokens", { min: 1 }, refuse);
    if (budget.onExceeded !== undefined)
      requireOneOf(budget.onExceeded, ["ask", "stop", "fail"], "budget.onExceeded", refuse);
  }
  if (approval !== undefined) {
    requireKnown(approval, ["assign", "due", "remind", "escalate", "link", "expiresIn"], "approval", refuse);
    if (approval.assign !== undefined)
      requireList(
        approval.assign,
        "approval.assign",
        (one, at) => (typeof one === "string" ? one : refuse(`${at} must be a string, got ${show(one)}`, null)),
        refuse,
      );
    const { due, expiresIn = null } = approval;
    const dueMs = due === undefined ? 0 : parseDuration(due, `approval.due of agent "${name}"`);
    if (expiresIn !== null && dueMs > parseDuration(expiresIn, `approval.expiresIn of agent "${name}"`))
      refuse(
        `approval.due ${show(due)} comes after approval.expiresIn ${show(expiresIn)}`,
        "let it be due before it expires",
      );
    for (const allowed of [decisions, ...Object.values(toolOptions).map((one) => one?.decisions ?? decisions)])
      checkAsking(approval, allowed, refuse);
  }
}

/** What `pauseFor` would refuse when the first call asks. */
function checkAsking({ expiresIn = null, ...asking }: ApprovalOptions, allowed: readonly Decision[], refuse: Refuse) {
  try {
    parseAsking(asking, {
      interrupt: "approval",
      response: toJson(z.toJSONSchema(answerOf(allowed), { io: "input" }), "approval"),
      expiresInMs: expiresIn === null ? null : parseDuration(expiresIn, "approval.expiresIn"),
      // The agent's run checks that links lead somewhere and that somebody hears of them.
      publicUrl: "",
      isHeard: true,
      where: "approval",
    });
  } catch (error) {
    if (error instanceof UsageError) refuse(error.message, null);
    throw error;
  }
}
