/** Application state as it was after an event: each look reads one page of the ledger, and goes on from the look before. */
import { systemTimers as liveness } from "../base/timers.ts";
import { SearchTimeoutError } from "../base/errors.ts";
import { copyJson, type JsonObject } from "../base/json.ts";
import { repeatWrites } from "../ledger/parts.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { PastState } from "../store/states.ts";
import type { Desk } from "./desk.ts";

/** Of one point of one ledger; `seq` is less than asked for while the rest is being read. */
export interface Past {
  /** As of which event. */
  readonly seq: number;
  readonly state: JsonObject;
}

/** So long somebody waits for the whole of a state of the past. */
const longestMs = 5000;

/** One page on. @param at the event after which */
export async function lookBack(desk: Desk, id: ExecutionId, at: number): Promise<Past> {
  const { seq, values } = await goOn(desk, id, at);
  // A copy: the next page folds on in place.
  return { seq, state: copyJson(values) };
}

/** All of it. Asked again it goes on where it was given up. @throws {SearchTimeoutError} */
export async function wholeOfPast(desk: Desk, id: ExecutionId, at: number): Promise<JsonObject> {
  const until = liveness.monotonic() + longestMs;
  for (;;) {
    const { seq, values } = await goOn(desk, id, at);
    if (seq >= at) return copyJson(values);
    if (liveness.monotonic() > until) throw new SearchTimeoutError(["seq"], longestMs);
  }
}

async function goOn(desk: Desk, id: ExecutionId, at: number): Promise<PastState> {
  const { states } = await desk.store();
  const { past } = await desk.pasts.goOn(
    `${id} ${at}`,
    () => ({ past: null }),
    async (fold) => {
      const before = fold.past ?? (await states.begin(id, at));
      const page = before.seq < at ? await states.written(id, before.seq, at) : null;
      fold.past = { seq: page?.seq ?? at, values: repeatWrites(before.values, page?.writes ?? []) };
    },
  );
  return past ?? { seq: at, values: {} };
}
