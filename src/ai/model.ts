/** One model call: one attempt of a chunk. What it says goes into the stream as it comes, and into the state when it is whole. */
import { createHash } from "node:crypto";
import type { LanguageModel, LanguageModelUsage, TextStreamPart, ToolSet, UIMessageChunk } from "ai";
import { latestMs, longestMs } from "../base/duration.ts";
import { ChunkTimeoutError, FlowledgerError, PayloadError, RetryAfterError, StepTimeoutError } from "../base/errors.ts";
import { isObject, type Json } from "../base/json.ts";
import { own } from "../engine/ctx/attempt.ts";
import { EventsCtx } from "../engine/ctx/events.ts";
import type { Ctx, RetryOptions } from "../flow/context.ts";
import {
  inJson,
  inText,
  toMessages,
  toModelMessages,
  toStorable,
  type AgentContract,
  type AgentItem,
  type Usage,
} from "./contract.ts";
import { prepare } from "./prepare.ts";
import { ai } from "./sdk.ts";
import type { AgentSettings } from "./settings.ts";
import { Spoken } from "./spoken.ts";

/** What the model wants done. */
export interface Call {
  readonly toolCallId: string;
  readonly toolName: string;
  readonly input: Json;
}

export const noUsage: Usage = { inputTokens: 0, outputTokens: 0, totalTokens: 0 };

/** Of a chunk that puts chunks for the page into the stream of its execution. */
interface Putting {
  readonly idempotencyKey: string;
  putIntoStream(item: AgentItem): Promise<void>;
}

/**
 * Puts chunks for the page into the stream, with the call that they are of. What is larger than an item may be comes in pieces or in
 * words: the conversation has it whole.
 */
export function show(ctx: Putting, from: string = ctx.idempotencyKey): (chunk: UIMessageChunk) => Promise<void> {
  return async (said) => {
    const chunk = kept(said);
    try {
      await ctx.putIntoStream({ ...chunk, from });
    } catch (error) {
      const smaller = error instanceof PayloadError ? inItems(chunk) : null;
      if (!smaller) throw error;
      for (const one of smaller) await ctx.putIntoStream({ ...one, from });
    }
  };
}

/** With texts as Postgres can hold them. */
function kept(chunk: UIMessageChunk): UIMessageChunk {
  switch (chunk.type) {
    case "text-delta":
    case "reasoning-delta":
      return { ...chunk, delta: inText(chunk.delta) };
    case "tool-input-delta":
      return { ...chunk, inputTextDelta: inText(chunk.inputTextDelta) };
    case "tool-input-available":
      return { ...chunk, input: inJson(chunk.input) };
    case "tool-input-error":
      return { ...chunk, input: inJson(chunk.input), errorText: inText(chunk.errorText) };
    case "tool-output-available":
      return { ...chunk, output: inJson(chunk.output) };
    case "tool-output-error":
      return { ...chunk, errorText: inText(chunk.errorText) };
    default:
      return chunk;
  }
}

/** Of an error's words: the rest says no more. */
const maxErrorText = 20_000;

/** Null where there is nothing smaller that says as much. */
function inItems(chunk: UIMessageChunk): UIMessageChunk[] | null {
  const words = "It is too large to be shown here.";
  const pieces = (text: string) => text.match(/.{1,20000}/gsu) ?? [];
  switch (chunk.type) {
    case "text-delta":
    case "reasoning-delta":
      return pieces(chunk.delta).map((delta) => ({ ...chunk, delta }));
    case "tool-input-delta":
      return pieces(chunk.inputTextDelta).map((inputTextDelta) => ({ ...chunk, inputTextDelta }));
    case "tool-input-available":
      return [{ ...chunk, input: words }];
    case "tool-input-error":
      return [{ ...chunk, input: words, errorText: shorten(chunk.errorText) }];
    case "tool-output-available": {
      const { toolCallId } = chunk;
      return chunk.preliminary === true ? [] : [{ type: "tool-output-error", toolCallId, errorText: words }];
    }
    case "file":
    case "reasoning-file": {
      const id = `${chunk.type}-${createHash("sha256").update(chunk.url).digest("base64url")}`;
      const delta = `A file of the type ${chunk.mediaType}: ${words}`;
      return [
        { type: "text-start", id },
        { type: "text-delta", id, delta },
        { type: "text-end", id },
      ];
    }
    default:
      return null;
  }
}

/** What went wrong, in as many words as are worth keeping. */
export function shorten(errorText: string): string {
  return inText(errorText.slice(0, maxErrorText));
}

/** Resolves when what the chunk has put so far is in the stream, or never will be; at once for a `ctx` that is not the engine's own. */
export async function arrived(ctx: object): Promise<void> {
  if (ctx instanceof EventsCtx) await ctx[own].streaming;
}

export async function callModel(
  ctx: Ctx<AgentContract, unknown>,
  name: string,
  settings: AgentSettings,
): Promise<Call[]> {
  const { tools } = settings;
  const before = ctx.getState("messages") ?? [];
  const said = toModelMessages(before, `messages of agent "${name}"`);
  const prepared = await prepare(ctx, name, settings, said, ctx.requireResource<LanguageModel>(`${name}.model`));
  const put = show(ctx);
  const spoken = new Spoken(put, () => arrived(ctx));
  await put({ type: "start-step" });
  const result = ai.streamText({
    ...callSettings(settings),
    ...prepared,
    model: spoken.of(prepared.model),
    ...(tools && { tools: withoutWork(tools) }),
    // Each try is an attempt of this chunk, so that the ledger and the page know of it.
    maxRetries: 0,
    streamRetries: 0,
    abortSignal: ctx.signal,
    onError: () => {},
  });
  try {
    for await (const part of result.stream) {
      if (part.type === "error") throw part.error;
      if (part.type === "abort") throw ctx.signal.reason;
      if (isOurs(part)) continue;
      const chunk = ai.toUIMessageChunk(part, { ...(tools && { tools }), sendSources: true });
      if (chunk) await spoken.tell(chunk);
    }
    await spoken.end();
  } catch (error) {
    throw timed(error);
  } finally {
    spoken.stop();
  }
  await put({ type: "finish-step" });

  const [{ text, finishReason, usage, toolCalls, response }, messages] = await Promise.all([
    result.finalStep,
    result.responseMessages,
  ]);
  const counted = countOf(usage);
  for (const message of toMessages(messages, `answer of the model of agent "${name}"`))
    await ctx.appendState("messages", message);
  await ctx.appendState("steps", { from: before.length, finishReason, model: response.modelId, usage: counted });
  await ctx.setState("usage", sum(ctx.getState("usage") ?? noUsage, counted));
  await ctx.setState("text", inText(text));
  return toolCalls
    .filter((call) => !call.providerExecuted && call.invalid !== true)
    .map(({ toolCallId, toolName, input }) => ({
      toolCallId,
      toolName,
      input: toStorable(input, `input of tool "${toolName}"`),
    }));
}

/** How often a call is made: three times, unless its user says otherwise. `waits` says so by itself. */
export function retryOf(retry: RetryOptions | undefined): RetryOptions {
  const { retryIf = mayHelp } = retry ?? {};
  return {
    ...(retry?.waits === undefined && { maxAttempts: 3 }),
    ...retry,
    // A function of the user's is asked about what the provider said; what is none is refused where the options are read.
    retryIf: typeof retryIf === "function" ? (error) => retryIf(untimed(error)) : retryIf,
  };
}

/** Whether making the call again may help. */
function mayHelp(error: unknown): boolean {
  // Of a provider and of the gateway.
  if (isObject(error) && typeof error["isRetryable"] === "boolean") return error["isRetryable"];
  if (error instanceof FlowledgerError)
    return [ChunkTimeoutError, StepTimeoutError, RetryAfterError].some((kind) => error instanceof kind);
  return !(error instanceof Error && mistakes.has(error.name));
}

/** By their names: `isInstance` of the last one is inherited, and says yes to every error of the SDK. */
const mistakes = new Set([
  "AI_InvalidPromptError",
  "AI_InvalidArgumentError",
  "AI_LoadAPIKeyError",
  "AI_LoadSettingError",
  "AI_NoSuchModelError",
  "AI_UnsupportedFunctionalityError",
  "AI_UnsupportedModelVersionError",
]);

/** What a call failed with; where the provider has said when to come again, as an error that says it to the engine. */
export function timed(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  // The gateway's errors have the provider's answer as their cause.
  const answer = [error, error.cause].find((one) => ai.APICallError.isInstance(one));
  const { "retry-after-ms": ms = "", "retry-after": after = "" } = answer?.responseHeaders ?? {};
  const when = waitOf(ms, 1) ?? waitOf(after, 1000) ?? momentOf(after);
  return when === null ? error : new RetryAfterError(error.message, when, { cause: error });
}

/** What the provider itself said. */
export function untimed(error: unknown): unknown {
  return error instanceof RetryAfterError ? (error.cause ?? error) : error;
}

/** Null where it is no length of time. No wait at all is none either: the policy's own one is meant then. */
function waitOf(text: string, unitMs: number): number | null {
  const ms = /^\s*\d+(\.\d+)?\s*$/.test(text) ? Number(text) * unitMs : 0;
  return ms > 0 ? Math.min(ms, longestMs) : null;
}

/** Of HTTP: "Wed, 21 Oct 2026 07:28:00 GMT". */
function momentOf(text: string): Date | null {
  const ms = Date.parse(text);
  return ms >= 0 && ms <= latestMs ? new Date(ms) : null;
}

/** What goes to the model as it was given. */
function callSettings(settings: AgentSettings) {
  const {
    model: _,
    tools: _tools,
    toolApproval: _approval,
    stopWhen: _stop,
    prepareStep: _prepare,
    toolOptions: _options,
    ...rest
  } = settings;
  const { retry: _retry, timeout: _timeout, budget: _budget, approval: _asked, flow: _flow, ...more } = rest;
  const { toolCallConcurrency: _concurrency, headers, ...plain } = more;
  return { ...plain, ...(headers && { headers: { ...headers } }) };
}

/** The model is told of them; each call runs in a chunk of its own. */
function withoutWork(tools: ToolSet): ToolSet {
  return Object.fromEntries(
    Object.entries(tools).map(([name, { execute: _execute, needsApproval: _needs, ...tool }]) => [name, tool]),
  ) as ToolSet;
}

/** What this flow says in its own words. */
function isOurs(part: TextStreamPart<ToolSet>): boolean {
  return ["start", "finish", "start-step", "finish-step"].includes(part.type);
}

function countOf({ inputTokens = 0, outputTokens = 0, totalTokens }: LanguageModelUsage): Usage {
  return { inputTokens, outputTokens, totalTokens: totalTokens ?? inputTokens + outputTokens };
}

function sum(a: Usage, b: Usage): Usage {
  return {
    inputTokens: a.inputTokens + b.inputTokens,
    outputTokens: a.outputTokens + b.outputTokens,
    totalTokens: a.totalTokens + b.totalTokens,
  };
}
