/** The runtime stream to the browser: server-sent events that a reload or a lost connection resumes, and web streams. */
import { ConnectionError, FlowledgerError, StreamStalledError, UsageError } from "../base/errors.ts";
import { isObject } from "../base/json.ts";
import { requireKnown, show } from "../base/option.ts";
import type { Contract } from "../flow/contract.ts";
import { systemTimers, type Timer, type Timers } from "../base/timers.ts";
import { parseDuration } from "../base/duration.ts";
import type { Duration } from "../base/duration.ts";
import { parseCursor } from "./stream.ts";
import type { StreamEntry } from "./stream.ts";

/** Of `toSSE()`. */
export interface SSEOptions {
  /** Ends the stream when the reader goes away. */
  request?: { readonly signal: AbortSignal };
  /** Time between comments that keep proxies from closing a quiet connection. @default "15s" */
  heartbeat?: Duration;
  /** A reader that takes nothing for so long is let go: the body fails with `StreamStalledError`. @default "60s" */
  stallTimeout?: Duration;
}

/**
 * A response that an `EventSource` reads: `id:` is the cursor, `data:` the item as JSON, `event:` the kind of a system
 * item. The last one is `event: end`, or `event: failed` with `{ code, message }`; the page closes its EventSource then.
 * Where the reader stalls, or the connection to the database ends, the body fails: an EventSource comes back by itself.
 *
 * @param stream `execution.streamItems({ timeout: null, from: cursorOf(request) })`
 */
export function toSSE<C extends Contract>(stream: AsyncIterable<StreamEntry<C>>, options: SSEOptions = {}): Response {
  return sendEvents(stream, options, systemTimers);
}

/** `toSSE` by any clock. */
export function sendEvents<C extends Contract>(
  stream: AsyncIterable<StreamEntry<C>>,
  options: SSEOptions,
  timers: Timers,
): Response {
  requireStream(stream, "toSSE()");
  requireKnown(options, ["request", "heartbeat", "stallTimeout"], "toSSE()");
  const { request, heartbeat = "15s", stallTimeout = "60s" } = options;
  if (request !== undefined && !(isObject(request) && request.signal instanceof AbortSignal))
    throw new UsageError(`request of toSSE() must be a Request, got ${show(request)}`, "pass the one of your route");
  const everyMs = parseDuration(heartbeat, "heartbeat of toSSE()");
  const stalledMs = parseDuration(stallTimeout, "stallTimeout of toSSE()");
  if (everyMs === 0 || stalledMs === 0)
    throw new UsageError(
      "heartbeat and stallTimeout of toSSE() must be longer than 0",
      "leave out what is not to count",
    );
  const entries = stream[Symbol.asyncIterator]();
  const body = eventBody(
    {
      opening: ": open\n\n",
      next: () => nextMessage(entries),
      leave: () => entries.return?.(),
      signal: request?.signal,
      everyMs,
      stalledMs,
    },
    timers,
  );
  return new Response(body, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache, no-transform",
      // nginx buffers responses unless told.
      "x-accel-buffering": "no",
    },
  });
}

/** What a body of server-sent events is made of. */
export interface Events {
  readonly opening: string;
  next(this: void): Promise<Message>;
  /** Nobody reads any more. What it throws is told to nobody. */
  leave(this: void): unknown;
  readonly signal: AbortSignal | undefined;
  /** Between two comments. */
  readonly everyMs: number;
  /** A reader that takes nothing for so long is let go; null waits. */
  readonly stalledMs: number | null;
}

/** Events as bytes: one stream, as each one more costs as much again for every event. */
export function eventBody(
  { opening, next, leave: told, signal, everyMs, stalledMs }: Events,
  timers: Timers,
): ReadableStream<Uint8Array> {
  let isOver = false;
  let beat: Timer | undefined;
  let stall: Timer | undefined;
  const leave = () => {
    if (isOver) return;
    isOver = true;
    beat?.cancel();
    stall?.cancel();
    signal?.removeEventListener("abort", leave);
    // An error of the source has been sent, or no reader is left for it.
    Promise.resolve(told()).catch(() => {});
  };
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        if (opening !== "") controller.enqueue(encode(opening));
        const keepAlive = () => {
          // Only to a reader that has taken all bytes: comments must not pile up for a stalled one.
          if ((controller.desiredSize ?? 0) <= 0) return;
          controller.enqueue(encode(": beat\n\n"));
          stall?.refresh();
        };
        beat = timers.every(everyMs, keepAlive).unref();
        // Counted from the last message. With room left the reader has taken it, and waits for the next.
        const letGo = (afterMs: number) => {
          if ((controller.desiredSize ?? 0) > 0) return;
          leave();
          controller.error(new StreamStalledError(afterMs));
        };
        if (stalledMs !== null) stall = timers.every(stalledMs, () => letGo(stalledMs)).unref();
        if (signal?.aborted) leave();
        else signal?.addEventListener("abort", leave);
      },
      async pull(controller) {
        const message = await next().catch((error: unknown) => {
          leave();
          throw error;
        });
        if (isOver) return close(controller);
        controller.enqueue(encode(message.text));
        stall?.refresh();
        if (!message.isLast) return;
        leave();
        close(controller);
      },
      cancel: leave,
    },
    { highWaterMark: 1 },
  );
}

/**
 * A web stream that reads an iterable as fast as it is read itself, and ends it when it is cancelled. It holds nothing, and
 * waits for a reader as long as an iterator does.
 */
export function toReadableStream<T>(stream: AsyncIterable<T>): ReadableStream<T> {
  requireStream(stream, "toReadableStream()");
  const items = stream[Symbol.asyncIterator]();
  return new ReadableStream<T>(
    {
      async pull(controller) {
        const next = await items.next();
        if (next.done) controller.close();
        else controller.enqueue(next.value);
      },
      async cancel() {
        await items.return?.();
      },
    },
    { highWaterMark: 0 },
  );
}

/**
 * Where a reader that comes back goes on: `Last-Event-ID`, which an EventSource sends when it reconnects, else `?from=`,
 * else 0.
 *
 * @throws {UsageError} for anything but a cursor or a whole number from 0: answer with 400
 */
export function cursorOf(request: { readonly url: string; readonly headers: Pick<Headers, "get"> }): string {
  if (!isObject(request) || typeof request.url !== "string" || typeof request.headers?.get !== "function")
    throw new UsageError(`request of cursorOf() must be a Request, got ${show(request)}`, "pass the one of your route");
  const last = request.headers.get("last-event-id");
  const cursor = last || (URL.parse(request.url, "http://localhost")?.searchParams.get("from") ?? "0");
  parseCursor(cursor);
  return cursor;
}

/** @throws {UsageError} */
function requireStream(stream: unknown, where: string): void {
  if (typeof stream === "object" && stream !== null && Symbol.asyncIterator in stream) return;
  throw new UsageError(`${where} got no stream, but ${show(stream)}`, "pass execution.streamItems()");
}

/** One event, or more of them. */
export interface Message {
  readonly text: string;
  readonly isLast: boolean;
}

async function nextMessage<C extends Contract>(entries: AsyncIterator<StreamEntry<C>>): Promise<Message> {
  try {
    const next = await entries.next();
    if (next.done) return { text: "event: end\ndata: null\n\n", isLast: true };
    const { cursor, kind, item } = next.value;
    const event = kind === null ? "" : `event: ${kind}\n`;
    return { text: `id: ${cursor}\n${event}data: ${JSON.stringify(item)}\n\n`, isLast: false };
  } catch (error) {
    if (error instanceof ConnectionError) throw error;
    // The message of a foreign error may tell a stranger about the inside.
    const shown =
      error instanceof FlowledgerError
        ? { code: error.code, message: error.message }
        : { code: "INTERNAL", message: "the stream ended with an error" };
    return { text: `event: failed\ndata: ${JSON.stringify(shown)}\n\n`, isLast: true };
  }
}

function close(controller: ReadableStreamDefaultController<Uint8Array>): void {
  try {
    controller.close();
  } catch {
    // The reader has cancelled the stream.
  }
}

const encoder = new TextEncoder();

function encode(text: string): Uint8Array {
  return encoder.encode(text);
}
