/** An execution as the AI SDK's UI message stream: a page that comes late, comes back, or looks on beside others reads the same message. */
import type { UIMessageChunk } from "ai";
import { parseDuration, type Duration } from "../base/duration.ts";
import { systemTimers } from "../base/timers.ts";
import { ExecutionCancelledError, ExecutionFailedError, UsageError } from "../base/errors.ts";
import { isObject } from "../base/json.ts";
import { requireFunction, requireKnown, requireList, requireOneOf, requireText, show } from "../base/option.ts";
import { stoppable } from "../execution/stream.ts";
import { eventBody } from "../execution/sse.ts";
import { isDelta, joinOf, type Delta } from "./deltas.ts";
import { Page, type Entry } from "./page.ts";
import { ai } from "./sdk.ts";

/** What this needs of an execution. */
export interface Streaming {
  readonly id: string;
  streamItems(options: { timeout: null; signal: AbortSignal }): AsyncGenerator<Entry, void, undefined>;
  getPendingInterrupts(): Promise<readonly { readonly id: string }[]>;
  waitForClose(options: { signal: AbortSignal }): Promise<unknown>;
  readonly result: { getMeta(): Promise<{ readonly lifecycleState: string }> };
}

/** Of `toUIMessageStreamResponse()` and `toUIMessageChunks()`. */
export interface UIMessageStreamOptions {
  /** Ends the stream when the page goes away; the execution goes on. */
  readonly request?: { readonly signal: AbortSignal };
  /**
   * While only people can go on: "finish" ends the response, as the stock `useChat` needs it to send an approval; "hold" keeps it open, so
   * that what others answer shows at once. @default "finish"
   */
  readonly onPause?: "finish" | "hold";
  /** Interrupts that this page has just answered: it has all that came before them, and gets what follows. @default none */
  readonly after?: readonly string[];
  /** What the page is told of a failure. @default a sentence that says nothing of the inside */
  readonly onError?: (error: unknown) => string;
  /** Time between comments that keep proxies from closing a quiet connection. @default "15s" */
  readonly heartbeat?: Duration;
}

const optionNames = ["request", "onPause", "after", "onError", "heartbeat"];

/**
 * The response to a page that uses `useChat`: the message of this execution from its beginning, then as it comes. What is there already
 * comes in one piece per part.
 *
 * @throws {UsageError} an option that is invalid, or no execution
 */
export function toUIMessageStreamResponse(execution: Streaming, options: UIMessageStreamOptions = {}): Response {
  const keepAliveMs = parseDuration(options.heartbeat ?? "15s", "heartbeat of toUIMessageStreamResponse()");
  if (keepAliveMs === 0) throw new UsageError("heartbeat of toUIMessageStreamResponse() must be longer than 0", null);
  const chunks = toUIMessageChunks(execution, options);
  const next = async () => {
    const { done, value } = await chunks.next();
    return done === true
      ? { text: "data: [DONE]\n\n", isLast: true }
      : { text: `data: ${JSON.stringify(value)}\n\n`, isLast: false };
  };
  const leave = () => chunks.return(undefined);
  const signal = options.request?.signal;
  const body = eventBody({ opening: "", next, leave, signal, everyMs: keepAliveMs, stalledMs: null }, systemTimers);
  return new Response(body, { headers: ai.UI_MESSAGE_STREAM_HEADERS });
}

/** The same as an iterable. */
export function toUIMessageChunks(
  execution: Streaming,
  options: UIMessageStreamOptions = {},
): AsyncGenerator<UIMessageChunk, void, undefined> {
  const where = "toUIMessageStreamResponse()";
  if (!isObject(execution) || typeof execution["streamItems"] !== "function")
    throw new UsageError(`${where} got no execution, but ${show(execution)}`, "pass what getExecution() gave");
  requireKnown(options, optionNames, where);
  const { request, onPause = "finish", after = [], onError = () => "An error occurred." } = options;
  if (request !== undefined && !(isObject(request) && request.signal instanceof AbortSignal))
    throw new UsageError(`request of ${where} must be a Request, got ${show(request)}`, "pass the one of your route");
  requireOneOf(onPause, ["finish", "hold"], `onPause of ${where}`);
  requireFunction(onError, `onError of ${where}`);
  requireList(after, `after of ${where}`, (one, at) => requireText(one, at, { max: 1000 }));
  return stoppable(
    (signal) => joined(chunksOf(execution, { onPause, after, onError, signal }), signal),
    request?.signal,
  );
}

interface Reading {
  readonly onPause: "finish" | "hold";
  readonly after: readonly string[];
  readonly onError: (error: unknown) => string;
  readonly signal: AbortSignal;
}

async function* chunksOf(
  execution: Streaming,
  { onPause, after, onError, signal }: Reading,
): AsyncGenerator<UIMessageChunk> {
  const page = new Page(execution.id);
  const isPending = async () => {
    const waiting = new Set((await execution.getPendingInterrupts()).map(({ id }) => id));
    return [...page.pending].every((id) => waiting.has(id));
  };
  // One message per execution, however often it is read.
  yield { type: "start", messageId: execution.id };
  let isKnown = after.length > 0;
  for await (const entry of execution.streamItems({ timeout: null, signal })) {
    const chunks = page.take(entry);
    if (!isKnown) yield* chunks;
    else if (page.isWaiting || onPause === "hold") isKnown = !after.some((id) => page.asked.has(id));
    // Somebody else may have answered meanwhile: the ledger says so.
    if (onPause === "finish" && page.isWaiting && (await isPending()))
      return yield { type: "finish", finishReason: "tool-calls" };
  }
  if (signal.aborted) return;
  if (!isKnown) yield* page.end();
  const { lifecycleState } = await execution.result.getMeta();
  try {
    if (lifecycleState === "closed") await execution.waitForClose({ signal });
    yield { type: "finish", ...(page.finishReason && { finishReason: page.finishReason }) };
  } catch (error) {
    if (error instanceof ExecutionCancelledError) yield { type: "abort" };
    else if (error instanceof ExecutionFailedError) yield { type: "error", errorText: onError(error) };
    else throw error;
  }
}

/** Pieces of one part that are there already come as one, and what was taken back before it was told is not told. */
async function* joined(
  chunks: AsyncGenerator<UIMessageChunk>,
  signal: AbortSignal,
): AsyncGenerator<UIMessageChunk, void, undefined> {
  let held: Delta | null = null;
  try {
    for (;;) {
      const coming = chunks.next();
      // Items that were read already come before the event loop's next turn.
      if (held && !(await isHere(coming))) {
        yield held;
        held = null;
      }
      const { done, value: chunk } = await coming;
      if (done === true || signal.aborted) break;
      const both: Delta | null = held ? joinOf(held, chunk) : null;
      if (held && !both && chunk.type !== "reset-step") yield held;
      held = both ?? (isDelta(chunk) ? chunk : null);
      if (!held) yield chunk;
    }
    if (held && !signal.aborted) yield held;
  } finally {
    await chunks.return(undefined);
  }
}

function isHere(coming: Promise<unknown>): Promise<boolean> {
  return new Promise((resolve) => {
    const here = () => resolve(true);
    coming.then(here, here);
    setImmediate(() => resolve(false));
  });
}
