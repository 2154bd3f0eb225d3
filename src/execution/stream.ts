/** The runtime stream as its readers see it: pages by cursor, woken by wake-ups, every committed item once and in order. */
import { readItems } from "../database/stream.ts";
import type { StreamItem, StreamPage } from "../database/stream.ts";
import { translate } from "../database/connection.ts";
import type { Sql } from "../database/connection.ts";
import { ExecutionNotFoundError, UsageError } from "../errors.ts";
import { parseDuration } from "../flow/duration.ts";
import type { Duration } from "../flow/duration.ts";
import type { ExecutionId } from "../ledger/event.ts";

export interface StreamOptions {
  /** Ends the iteration, with a warning, when no item came for so long; null waits until the stream ends. @default "10s" */
  timeout?: Duration | null;
  /** Reads on after this cursor (the `seq` of the last item seen). @default 0, from the beginning */
  from?: number;
  /** Ends the iteration. */
  signal?: AbortSignal;
}

const pageSize = 500;

/** Items of one execution from a cursor on, until its stream has ended. A slow reader holds a page, no more. */
export async function* followStream(
  sql: Sql,
  watch: (id: ExecutionId, listener: () => void) => () => void,
  id: ExecutionId,
  options: StreamOptions = {},
): AsyncGenerator<StreamItem, void, undefined> {
  const { from = 0, signal } = options;
  const timeoutMs =
    options.timeout === null ? null : parseDuration(options.timeout ?? "10s", "timeout of getRuntimeStream");
  if (!Number.isSafeInteger(from) || from < 0)
    throw new UsageError(
      `cursor ${String(from)} of getRuntimeStream is not a position`,
      "use 0, or the seq of the last item you saw",
    );
  let wake: () => void = () => {};
  let isWoken = false;
  const stop = watch(id, () => {
    isWoken = true;
    wake();
  });
  const onAbort = () => wake();
  signal?.addEventListener("abort", onAbort);
  try {
    let cursor = from;
    let quietSince = performance.now();
    while (!signal?.aborted) {
      isWoken = false;
      const page: StreamPage | null = await readItems(sql, id, cursor, pageSize).catch((error: unknown) => {
        throw translate(error, sql, { id });
      });
      if (!page) throw new ExecutionNotFoundError(id);
      for (const item of page.items) {
        cursor = item.seq;
        yield item;
        if (signal?.aborted) return;
      }
      if (page.isEnded) return;
      if (page.items.length > 0) {
        quietSince = performance.now();
        continue;
      }
      const left = timeoutMs === null ? null : timeoutMs - (performance.now() - quietSince);
      if (left !== null && left <= 0) return warnQuiet(id, timeoutMs ?? 0);
      if (isWoken) continue;
      await new Promise<void>((resolve) => {
        const timer = left === null ? undefined : setTimeout(resolve, left);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
        if (isWoken || signal?.aborted) wake();
      });
    }
  } finally {
    stop();
    signal?.removeEventListener("abort", onAbort);
  }
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
