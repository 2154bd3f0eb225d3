/** Ids of executions: uuid v7, by the clock that the orchestrator goes by. */
import { v7 as uuidv7 } from "uuid";
import type { Timers } from "../base/timers.ts";
import { ExecutionId } from "../ledger/event.ts";

/** Of two ids the later one is greater. */
export type NewId = () => ExecutionId;

export function idsBy(timers: Pick<Timers, "now" | "isMoved">): NewId {
  if (timers.isMoved !== true) return () => ExecutionId.parse(uuidv7());
  // `uuid` orders the ids of one millisecond by the real clock only. On a test's clock, which stands still, the order is counted here.
  let seq = 0;
  return () => ExecutionId.parse(uuidv7({ msecs: timers.now(), seq: seq++ }));
}
