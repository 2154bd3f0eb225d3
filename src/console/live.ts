/** What a page of one execution is told while it is open: its stream, and that something happened. */
import { z } from "zod";
import { ConnectionError } from "../base/errors.ts";
import { systemTimers as liveness, type Timer } from "../base/timers.ts";
import { cursorOf, toSSE } from "../execution/sse.ts";
import type { StreamEntry } from "../execution/stream.ts";
import type { Json } from "../base/json.ts";
import { InterruptRecord } from "../execution/interrupt.ts";
import { ExecutionId } from "../ledger/event.ts";
import { visibleOf, type AskedOfOne } from "./desk.ts";
import type { Shown } from "./api.ts";

/** A connection ends after this, and comes back with its cursor: who may no longer see is not shown more. */
const longestMs = 300_000;
/** News are told a moment later, together, and once more when what was read just before them is old enough to be read again. */
const tellAfterMs = [200, 2300];

/** Items as server-sent events, each as `{ at, item }` that is redacted and bounded like all else. */
export async function stream(asked: AskedOfOne): Promise<Response> {
  const { desk, id, request } = asked;
  const from = cursorOf(request);
  const execution = await desk.orchestrator.getExecution(id);
  const stop = new AbortController();
  const timer = liveness.after(longestMs, () => stop.abort()).unref();
  request.signal.addEventListener("abort", () => {
    timer.cancel();
    stop.abort();
  });
  const items = execution.streamItems({ timeout: null, from, signal: stop.signal });
  return toSSE(shownItems(asked, execution.flow, items, stop.signal), { request });
}

async function* shownItems(
  asked: AskedOfOne,
  flow: string,
  items: AsyncGenerator<StreamEntry, void, undefined>,
  stop: AbortSignal,
): AsyncGenerator<StreamEntry, void, undefined> {
  const { desk } = asked;
  const isSeen = new Map<string, boolean>();
  for await (const entry of items) {
    const owner = ownerOf(entry);
    if (owner !== null) {
      if (!isSeen.has(owner)) isSeen.set(owner, (await visibleOf(asked, [owner])).has(owner));
      if (isSeen.get(owner) === false) continue;
    }
    const item: Shown = desk.showing.show(entry.item as Json, { flow, part: "stream" });
    yield { ...entry, kind: null, item: { kind: entry.kind, item } };
  }
  // An error, and no end of the stream: it ends the connection, and the page comes back with its cursor.
  if (stop.aborted)
    throw new ConnectionError("the console", "a stream was open for long enough", "come back with its cursor");
}

/** The sub-flow that a system item tells of; null where it tells of the execution itself. */
function ownerOf({ kind, item }: StreamEntry): ExecutionId | null {
  if (kind === "retry") return SubFlowRetry.safeParse(item).data?.executionId ?? null;
  if (kind === "interrupt") return Asking.safeParse(item).data?.interrupt.projectedFrom?.executionId ?? null;
  return null;
}

const SubFlowRetry = z.object({ executionId: ExecutionId });
const Asking = z.object({ interrupt: InterruptRecord.pick({ projectedFrom: true }) });

/** `event: news` whenever something of the execution was committed. */
export async function watch({ desk, id, request }: AskedOfOne): Promise<Response> {
  const { wakeups } = await desk.store();
  await wakeups.ready();
  const encoder = new TextEncoder();
  let leave = () => {};
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const send = (message: string) => controller.enqueue(encoder.encode(message));
      const timers = new Set<Timer>();
      let isGathering = false;
      const hear = (news: ExecutionId) => {
        if (news !== id || isGathering) return;
        isGathering = true;
        for (const ms of tellAfterMs) {
          const timer = liveness.after(ms, () => {
            timers.delete(timer);
            isGathering = false;
            send("event: news\ndata: null\n\n");
          });
          timers.add(timer.unref());
        }
      };
      const stops = [wakeups.onReaderWakeup(hear), wakeups.onOwnerWakeup(hear)];
      timers.add(liveness.every(15_000, () => send(": beat\n\n")).unref());
      timers.add(liveness.after(longestMs, () => leave()).unref());
      leave = () => {
        leave = () => {};
        for (const stop of stops) stop();
        for (const timer of timers) timer.cancel();
        try {
          controller.close();
        } catch {
          // The reader is gone.
        }
      };
      request.signal.addEventListener("abort", () => leave());
      send(": open\n\n");
    },
    cancel: () => leave(),
  });
  return new Response(body, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-store, no-transform",
      "x-accel-buffering": "no",
    },
  });
}
