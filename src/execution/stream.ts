/** The runtime stream as its readers see it: pages by cursor, woken by wake-ups, every committed item once and in order. */
import type { Timers } from "../base/timers.ts";
import { Batcher, withAnswerLimit } from "../store/batcher.ts";
import { isConnectionLoss, isEnded } from "../store/refusals.ts";
import type { PageRequest, StreamPage, StreamStore } from "../store/streams.ts";
import type { Store } from "../store/store.ts";
import type { Wakeups } from "../store/wakeups.ts";
import { requireKnown, show } from "../base/option.ts";
import { ExecutionNotFoundError, UsageError } from "../base/errors.ts";
import type { Contract, StreamItem } from "../flow/contract.ts";
import { parseDuration } from "../base/duration.ts";
import type { Duration } from "../base/duration.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { copyJson, type JsonObject } from "../base/json.ts";

/** Of a reader of a stream. */
export interface StreamOptions {
  /** Ends the iteration, with a warning, when no item came for so long; null waits until the stream ends. @default "10s" */
  timeout?: Duration | null;
  /** Reads on after this cursor, that of the last item seen; a number is a place in this stream. @default 0, from the beginning */
  from?: number | string;
  /** Ends the iteration. */
  signal?: AbortSignal;
}

/** What flowledger itself puts into the stream: a pause and its answer, a correction, the mark between two attempts. */
export type SystemItem = JsonObject & { readonly type: "interrupt" | "intervention" | "retry" };

/** One item with its place, e.g. "12-4dbb7e90": `from: cursor` reads on after it, in this stream and in no other. */
export type StreamEntry<C extends Contract = Contract> =
  | { readonly cursor: string; readonly kind: null; readonly item: StreamItem<C> }
  | { readonly cursor: string; readonly kind: SystemItem["type"]; readonly item: SystemItem };

/** The streams that this process reads. Readers that stand at the same place share a query. */
export interface Streams {
  /** Until `close`, the stream's wake-ups are heard. */
  open(id: ExecutionId): StreamReader;
  /** By which readers count how long nothing came. */
  readonly timers: Timers;
}

interface StreamReader {
  /** The items after a cursor; null when there is no such execution. */
  read(after: number): Promise<StreamPage | null>;
  /** Resolves when there may be more than the last `read` gave, at the latest when the time or the signal ends. */
  changed(timeoutMs: number | null, signal: AbortSignal): Promise<void>;
  close(): void;
}

/** One stream in this process. */
interface Channel {
  readers: number;
  /** Rises with every wake-up. */
  version: number;
  /** The last answer "nothing new", and the version it holds for. */
  quiet: { readonly version: number; readonly after: number; readonly page: StreamPage } | null;
  readonly waiting: Set<() => void>;
  readonly stop: () => void;
}

/** Pages in one statement, and so in memory at once. */
const pagesPerStatement = 32;
/** A connection that went dead without a word would hold up every reader of the process. Of one statement: how many follow says nothing. */
const answerMs = 10_000;
/** Readers that one answer may serve. */
const maxReaders = 100_000;

export function openStreams(
  { streams, wakeups }: Pick<Store, "streams"> & { readonly wakeups: Pick<Wakeups, "subscribe"> },
  timers: Timers,
): Streams {
  const channels = new Map<ExecutionId, Channel>();
  const reads = new Batcher<PageRequest, StreamPage | null>({
    send: (asked) => readShared(streams, asked),
    maxItems: maxReaders,
    timeoutMs: null,
  });

  const openChannel = (id: ExecutionId): Channel => {
    const known = channels.get(id);
    if (known) return known;
    const channel: Channel = {
      readers: 0,
      version: 0,
      quiet: null,
      waiting: new Set(),
      stop: wakeups.subscribe(id, () => {
        channel.version += 1;
        for (const wake of channel.waiting) wake();
      }),
    };
    channels.set(id, channel);
    return channel;
  };

  return {
    timers,
    open(id) {
      const channel = openChannel(id);
      channel.readers += 1;
      let seen = channel.version;
      return {
        async read(after) {
          seen = channel.version;
          const { quiet } = channel;
          if (quiet?.version === seen && quiet.after === after) return quiet.page;
          const asked = seen;
          const page = await reads.submit({ id, after });
          if (page && page.items.length === 0) channel.quiet = { version: asked, after, page };
          return page;
        },
        async changed(timeoutMs, signal) {
          if (channel.version !== seen || signal.aborted) return;
          const { promise, resolve } = Promise.withResolvers<void>();
          const wake = () => resolve();
          const timer =
            timeoutMs === null
              ? undefined
              : timers.after(timeoutMs, wake, "the time is over that a reader waits for a stream item");
          channel.waiting.add(wake);
          signal.addEventListener("abort", wake);
          await promise;
          timer?.cancel();
          channel.waiting.delete(wake);
          signal.removeEventListener("abort", wake);
        },
        close() {
          channel.readers -= 1;
          if (channel.readers > 0) return;
          channel.stop();
          if (channels.get(id) === channel) channels.delete(id);
        },
      };
    },
  };
}

/** One page for all readers at the same place; each gets items of its own. */
async function readShared(
  streams: Pick<StreamStore, "pages">,
  asked: readonly PageRequest[],
): Promise<(StreamPage | null)[]> {
  const places = new Map(asked.map((request) => [placeOf(request), request]));
  const distinct = [...places.values()];
  const pages = new Map<string, StreamPage | null>();
  for (let start = 0; start < distinct.length; start += pagesPerStatement) {
    const some = distinct.slice(start, start + pagesPerStatement);
    for (const [index, page] of (await withAnswerLimit(streams.pages(some), answerMs)).entries())
      pages.set(placeOf(some[index] ?? { id: "", after: 0 }), page);
  }
  const given = new Set<string>();
  return asked.map((request) => {
    const place = placeOf(request);
    const page = pages.get(place) ?? null;
    if (!page || !given.has(place)) {
      given.add(place);
      return page;
    }
    return { ...page, items: page.items.map((row) => ({ ...row, item: copyJson(row.item) })) };
  });
}

function placeOf({ id, after }: { readonly id: string; readonly after: number }): string {
  return `${id} ${after}`;
}

/** Items of one execution from a cursor on, until its stream has ended. A slow reader holds a page, no more. */
export function followStream<C extends Contract>(
  streams: Streams,
  id: ExecutionId,
  options: StreamOptions = {},
): AsyncGenerator<StreamEntry<C>, void, undefined> {
  requireStreamOptions(options);
  const { from = 0 } = options;
  return stoppable((signal) => {
    const timeoutMs =
      options.timeout === null ? null : parseDuration(options.timeout ?? "10s", "timeout of getRuntimeStream");
    return follow<C>(streams, id, placeIn(id, from), timeoutMs, signal);
  }, options.signal);
}

/** What can be said before the first item is asked for; the rest is said then. @throws {UsageError} */
export function requireStreamOptions(options: { [K in keyof StreamOptions]: StreamOptions[K] | undefined }): void {
  requireKnown(options, ["timeout", "from", "signal"], "getRuntimeStream()");
  const { signal } = options;
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new UsageError(`signal of getRuntimeStream() must be an AbortSignal, got ${show(signal)}`, null);
}

async function* follow<C extends Contract>(
  streams: Streams,
  id: ExecutionId,
  from: number,
  timeoutMs: number | null,
  signal: AbortSignal,
): AsyncGenerator<StreamEntry<C>, void, undefined> {
  const reader = streams.open(id);
  try {
    const tag = tagOf(id);
    let place = from;
    let isKnown = false;
    let quietSince = streams.timers.monotonic();
    while (!signal.aborted) {
      let page: StreamPage | null | undefined;
      try {
        page = await reader.read(place);
      } catch (error) {
        // Once the stream runs, a lost connection costs latency only. A store that was closed does not come back.
        if (!isKnown || !isConnectionLoss(error) || isEnded(error)) throw error;
      }
      if (page === null) throw new ExecutionNotFoundError(id);
      if (page && !isKnown && from > page.last) throw beyondEnd(id, from, page.last);
      isKnown = true;
      for (const { seq, kind, item } of page?.items ?? []) {
        place = seq;
        yield { cursor: `${seq}-${tag}`, kind, item } as StreamEntry<C>;
        if (signal.aborted) return;
        quietSince = streams.timers.monotonic();
      }
      if (page?.isEnded) return;
      if (page && page.items.length > 0) continue;
      const left = timeoutMs === null ? null : timeoutMs - (streams.timers.monotonic() - quietSince);
      if (left !== null && left <= 0) return warnQuiet(id, timeoutMs ?? 0);
      await reader.changed(left, signal);
    }
  } finally {
    reader.close();
  }
}

/** The generator with a `return()` that also ends a wait. `begin` is called with the first `next()`. */
export function stoppable<T>(
  begin: (signal: AbortSignal) => AsyncGenerator<T, void, undefined>,
  outer?: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  const stop = new AbortController();
  const signal = outer ? AbortSignal.any([outer, stop.signal]) : stop.signal;
  const inner = (async function* () {
    yield* begin(signal);
  })();
  const end = () => {
    stop.abort();
    return inner.return();
  };
  return {
    next: () => inner.next(),
    return: end,
    throw: (error) => {
      stop.abort();
      return inner.throw(error);
    },
    [Symbol.asyncIterator]() {
      return this;
    },
    async [Symbol.asyncDispose]() {
      await end();
    },
  };
}

/** How many items precede a cursor, and of which stream it is; null where that is not said. @throws {UsageError} */
export function parseCursor(cursor: number | string): { readonly place: number; readonly tag: string | null } {
  const text = typeof cursor === "number" ? String(cursor) : cursor;
  const [, digits, tag = null] = (typeof text === "string" && /^(\d{1,16})(?:-([0-9a-f]{8}))?$/.exec(text)) || [];
  const place = Number(digits ?? Number.NaN);
  if (!Number.isSafeInteger(place))
    throw new UsageError(`cursor ${show(cursor)} is not a place in a stream`, "use 0, or the cursor of an item");
  return { place, tag };
}

function placeIn(id: ExecutionId, from: number | string): number {
  const { place, tag } = parseCursor(from);
  if (tag !== null && tag !== tagOf(id))
    throw new UsageError(
      `cursor "${from}" is of another stream than that of execution ${id}`,
      "use the cursor of an item of this execution, or 0",
      { executionId: id, from },
    );
  return place;
}

/** The random end of an id tells its stream from others. */
function tagOf(id: ExecutionId): string {
  return id.slice(-8);
}

function beyondEnd(id: ExecutionId, from: number, last: number): UsageError {
  return new UsageError(
    `cursor ${from} is beyond the end of the stream of execution ${id}, whose last cursor is ${last}`,
    "use the cursor of an item of this execution, or 0",
    { executionId: id, from, last },
  );
}

function warnQuiet(id: ExecutionId, timeoutMs: number): void {
  process.emitWarning(
    `no stream item of execution ${id} for ${timeoutMs} ms: the reader ends, the execution goes on; pass timeout: null to wait`,
    {
      type: "FlowledgerWarning",
      code: "STREAM_TIMEOUT",
    },
  );
}
