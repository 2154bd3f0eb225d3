/** Model calls and tools of the AI SDK inside any chunk: what has been completed is not done again in a retry. */
import type { LanguageModelMiddleware, ToolExecutionOptions, ToolSet, UIMessageChunk } from "ai";
import { z } from "zod";
import type { Duration } from "../base/duration.ts";
import { UsageError } from "../base/errors.ts";
import { isObject, type Json } from "../base/json.ts";
import {
  requireBoolean,
  requireFunction,
  requireKnown,
  requireRecord,
  requireText,
  show as shown,
} from "../base/option.ts";
import type { Output, RetryOptions, StepOptions } from "../flow/context.ts";
import { toStorable, type AgentItem } from "./contract.ts";
import { Deltas } from "./deltas.ts";
import { arrived, retryOf, shorten, show, timed, untimed } from "./model.ts";
import { deltaOf, idsOnce, isPiece, joinPieces, type Part } from "./spoken.ts";
import { messageOf, runTool, type DurableToolOptions } from "./tools.ts";

/** What these need of a chunk's `ctx`, whatever its flow. */
export interface Durable {
  readonly idempotencyKey: string;
  readonly signal: AbortSignal;
  /** `ctx.step()`. */
  step<T>(
    name: string,
    work: (signal: AbortSignal, idempotencyKey: string) => T,
    options?: StepOptions,
  ): Promise<Output<T>>;
}

/** The same, of a flow whose stream takes what a page shows. */
export interface DurableStream extends Durable {
  /** `ctx.putIntoStream()`. */
  putIntoStream(item: AgentItem): Promise<void>;
}

/** Of `durableCalls()`. */
export interface DurableCallsOptions {
  /** Of the recorded steps. @default "model" */
  readonly name?: string;
  /** A call that failed is made again. @default three tries, where the provider says that it may help */
  readonly retry?: RetryOptions;
  /** Longest time of one try. @default none */
  readonly timeout?: Duration | null;
  /** Whether what the model says goes into the execution's stream as it comes. @default true */
  readonly stream?: boolean;
}

/** Of `durableTools()`. */
export interface DurableToolsOptions {
  /** As for a step. @default one try */
  readonly retry?: RetryOptions;
  /** Longest time of one try. @default none */
  readonly timeout?: Duration | null;
  /** Whether results go into the execution's stream. @default true */
  readonly stream?: boolean;
}

type Silent<T> = T & { readonly stream: false };
type Generate = NonNullable<LanguageModelMiddleware["wrapGenerate"]>;
type Generated = Awaited<ReturnType<Generate>>;
type LanguageModelPrompt = Parameters<Generate>[0]["params"]["prompt"];

/**
 * Middleware for `wrapLanguageModel({ model, middleware: durableCalls(ctx) })`: each call is a recorded step of this chunk, for
 * `generateText`, `streamText` and agents. What a model says goes into the execution's stream as it comes, and to the caller when it is
 * whole and recorded.
 *
 * @throws {UsageError} an option that is invalid, or `ctx` is none
 */
export function durableCalls(ctx: DurableStream, options?: DurableCallsOptions): LanguageModelMiddleware;
export function durableCalls(ctx: Durable, options: Silent<DurableCallsOptions>): LanguageModelMiddleware;
export function durableCalls(ctx: Durable | DurableStream, options: DurableCallsOptions = {}): LanguageModelMiddleware {
  const where = "durableCalls()";
  requireCtx(ctx, where);
  requireKnown(options, ["name", "retry", "timeout", "stream"], where);
  const { name = "model", retry, timeout = null } = options;
  requireText(name, `name of ${where}`, { max: 400 });
  const stepOptions = { retry: retryOf(retry), timeout };
  const putter = putterOf(ctx, options.stream, where);
  const recorded = async (work: (key: string) => Promise<unknown>): Promise<unknown> => {
    try {
      const made = (key: string) => work(key).catch((error: unknown) => Promise.reject(timed(error)));
      return await ctx.step(name, async (_, key) => toStorable(await made(key), `result of ${where}`), stepOptions);
    } catch (error) {
      if (ctx.signal.aborted || !(error instanceof Error)) throw error;
      // The SDK tries errors of some classes again. The class is dropped, because the step makes the tries here.
      throw new Error(error.message, { cause: untimed(error) });
    }
  };
  return {
    specificationVersion: "v4",
    transformParams: async ({ params }) => ({
      ...params,
      abortSignal: params.abortSignal ? AbortSignal.any([ctx.signal, params.abortSignal]) : ctx.signal,
    }),
    wrapGenerate: async ({ doGenerate, params: { prompt } }) => {
      const recording = await recorded(async (key) => {
        const { request: _, response, ...given } = await doGenerate();
        const result = { ...given, content: given.content.map(idsOnce()) };
        const { body: _body, ...kept } = response ?? {};
        const put = putter(key);
        await showRefused(prompt, put);
        await put({ type: "start-step" });
        for (const [index, part] of result.content.entries())
          if (part.type === "text" || part.type === "reasoning") {
            const id = String(index);
            await put({ type: `${part.type}-start`, id });
            await put({ type: `${part.type}-delta`, id, delta: part.text });
            await put({ type: `${part.type}-end`, id });
          } else await showPart(part, put);
        await put({ type: "finish-step" });
        return { ...result, response: kept };
      });
      return GeneratedResult.parse(withDate(recording));
    },
    wrapStream: async ({ doStream, params: { prompt } }) => {
      const given = await recorded(async (key) => {
        const put = putter(key);
        const deltas = new Deltas(put, () => arrived(ctx));
        const parts: Part[] = [];
        await showRefused(prompt, put);
        await put({ type: "start-step" });
        try {
          const { stream } = await doStream();
          const once = idsOnce();
          for await (const said of stream) {
            if (said.type === "error") throw said.error;
            if (said.type === "raw" || said.type === "ping") continue;
            const part = once(said);
            keep(parts, part);
            await showPart(part, (chunk) => deltas.put(chunk));
          }
          await deltas.flush();
        } finally {
          deltas.stop();
        }
        await put({ type: "finish-step" });
        return parts;
      });
      return { stream: ReadableStream.from(Parts.parse(Array.isArray(given) ? given.map(withDate) : given)) };
    },
  };
}

/**
 * The same tools, each call a recorded step: a retry of the chunk gets its result back. `execute` also gets an `idempotencyKey`. Give
 * them to a model with `durableCalls(ctx)`, so that the calls are the same again.
 *
 * @throws {UsageError} a tool that is none, an option that is invalid, or `ctx` is none
 */
export function durableTools<TOOLS extends ToolSet>(
  ctx: DurableStream,
  tools: TOOLS,
  options?: DurableToolsOptions,
): TOOLS;
export function durableTools<TOOLS extends ToolSet>(
  ctx: Durable,
  tools: TOOLS,
  options: Silent<DurableToolsOptions>,
): TOOLS;
export function durableTools(ctx: Durable | DurableStream, tools: ToolSet, options: DurableToolsOptions = {}): ToolSet {
  const where = "durableTools()";
  requireCtx(ctx, where);
  requireRecord(tools, `tools of ${where}`);
  requireKnown(options, ["retry", "timeout", "stream"], where);
  const { retry, timeout = null } = options;
  const putter = putterOf(ctx, options.stream, where);
  const durable = Object.entries(tools).map(([toolName, tool]) => {
    const { execute } = requireTool(tool, toolName, where);
    if (!execute) return [toolName, tool] as const;
    const once = async (input: unknown, given: ToolExecutionOptions<unknown>): Promise<Json> => {
      const { toolCallId } = given;
      const put = putter(`${ctx.idempotencyKey}/${toolCallId}`);
      const result = ctx.step(
        toolName,
        (signal, idempotencyKey) => {
          const abortSignal = given.abortSignal ? AbortSignal.any([signal, given.abortSignal]) : signal;
          const call = { toolName, input: toStorable(input, `input of tool "${toolName}"`) };
          const all: DurableToolOptions = { ...given, abortSignal, idempotencyKey };
          return runTool(execute, call, all, (value) =>
            put({ type: "tool-output-available", toolCallId, output: value, preliminary: true }),
          );
        },
        { timeout, ...(retry && { retry }) },
      );
      const output = await result.catch(async (error: unknown) => {
        if (!ctx.signal.aborted) await put({ type: "tool-output-error", toolCallId, errorText: messageOf(error) });
        throw error;
      });
      await put({ type: "tool-output-available", toolCallId, output });
      return output;
    };
    return [toolName, { ...tool, execute: once }] as const;
  });
  return Object.fromEntries(durable);
}

/** What is recorded of a stream: pieces of one part are one piece. */
function keep(parts: Part[], part: Part): void {
  const last = parts.at(-1);
  const both = last && isPiece(last) && isPiece(part) ? joinPieces(last, part) : null;
  if (both) parts[parts.length - 1] = both;
  else parts.push(part);
}

/** A part of a provider's as a page shows it. */
async function showPart(
  part: Part | Generated["content"][number],
  put: (chunk: UIMessageChunk) => Promise<void>,
): Promise<void> {
  switch (part.type) {
    case "text-delta":
    case "reasoning-delta":
    case "tool-input-delta":
      return put(deltaOf(part));
    case "text-start":
    case "text-end":
    case "reasoning-start":
    case "reasoning-end":
      return put(part);
    case "tool-input-start":
      return put({ type: part.type, toolCallId: part.id, toolName: part.toolName });
    case "tool-call":
      return put({
        type: "tool-input-available",
        toolCallId: part.toolCallId,
        toolName: part.toolName,
        input: parsed(part.input),
        ...(part.providerExecuted !== undefined && { providerExecuted: part.providerExecuted }),
      });
    case "tool-result":
      return put({
        type: "tool-output-available",
        toolCallId: part.toolCallId,
        output: part.result,
        providerExecuted: true,
      });
    case "source": {
      const { id: sourceId, title, providerMetadata } = part;
      const more = providerMetadata && { providerMetadata };
      if (part.sourceType === "url")
        return put({ type: "source-url", sourceId, url: part.url, ...(title !== undefined && { title }), ...more });
      const { mediaType, filename } = part;
      const named = filename !== undefined && { filename };
      return put({ type: "source-document", sourceId, mediaType, title: part.title, ...named, ...more });
    }
    case "file":
    case "reasoning-file": {
      const { type, mediaType, data } = part;
      return put({ type, mediaType, url: data.type === "url" ? data.url.href : dataUrl(mediaType, data.data) });
    }
    default:
      return;
  }
}

/** As pages have it: base64 in the address. */
function dataUrl(mediaType: string, data: string | Uint8Array): string {
  return `data:${mediaType};base64,${typeof data === "string" ? data : Buffer.from(data).toString("base64")}`;
}

/** Calls that no tool has run, because they did not fit: how the SDK tells the model of them, which is all that is said of them. */
async function showRefused(prompt: LanguageModelPrompt, put: (chunk: UIMessageChunk) => Promise<void>): Promise<void> {
  const last = prompt.at(-1);
  if (last?.role !== "tool") return;
  for (const part of last.content)
    if (part.type === "tool-result" && part.output.type === "error-text")
      await put({ type: "tool-output-error", toolCallId: part.toolCallId, errorText: shorten(part.output.value) });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The SDK tells the model that its call was invalid.
    return text;
  }
}

/** What these files have recorded; the moment in it is a text there. */
const Parts = z.array(z.custom<Part>((part) => isObject(part) && typeof part["type"] === "string"));
const GeneratedResult = z.custom<Generated>((result) => isObject(result) && Array.isArray(result["content"]));

function withDate(value: unknown): unknown {
  if (!isObject(value)) return value;
  if (value["type"] === "response-metadata") return dated(value);
  return isObject(value["response"]) ? { ...value, response: dated(value["response"]) } : value;
}

function dated(value: Readonly<Record<string, unknown>>): object {
  const { timestamp } = value;
  return typeof timestamp === "string" ? { ...value, timestamp: new Date(timestamp) } : value;
}

type Putter = (from: string) => (chunk: UIMessageChunk) => Promise<void>;

function putterOf(ctx: Durable | DurableStream, stream: boolean | undefined, where: string): Putter {
  const isShown = stream === undefined || requireBoolean(stream, `stream of ${where}`);
  return (from) => (isShown && "putIntoStream" in ctx ? show(ctx, from) : async () => {});
}

function requireCtx(ctx: unknown, where: string): void {
  if (isObject(ctx) && "step" in ctx && "idempotencyKey" in ctx) return;
  throw new UsageError(`${where} got no ctx, but ${shown(ctx)}`, "pass the ctx that the chunk was called with");
}

function requireTool(tool: unknown, name: string, where: string): ToolSet[string] {
  if (!isTool(tool))
    throw new UsageError(`tool ${shown(name)} of ${where} has no inputSchema`, "make it with tool() of the AI SDK");
  if (tool.execute !== undefined) requireFunction(tool.execute, `execute of tool ${shown(name)} of ${where}`);
  return tool;
}

function isTool(tool: unknown): tool is ToolSet[string] {
  return (
    isObject(tool) &&
    (tool["type"] === "provider" || (tool["inputSchema"] !== undefined && tool["inputSchema"] !== null))
  );
}
