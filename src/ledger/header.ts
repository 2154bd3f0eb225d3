/** What the events of a commit do to the execution's header row: the one rule of it, which `flowledger.append` is told. */
import type { LedgerEvent } from "./event.ts";

export interface HeaderChange {
  /** It got on, so workers that were lost before count no more. */
  readonly isProgress: boolean;
  readonly isSealed: boolean;
  readonly isStreamEnded: boolean;
  /** Rows of interrupts and interventions, or stream items that tell of the events, follow from them. */
  readonly isShown: boolean;
}

const idle: ReadonlySet<LedgerEvent["type"]> = new Set(["execution.claimed", "execution.blocked", "inbox.routed"]);

export function headerOf(events: readonly LedgerEvent[]): HeaderChange {
  let [isProgress, isSealed, isStreamEnded, isShown] = [false, false, false, false];
  for (const { type } of events) {
    isProgress ||= !idle.has(type);
    isSealed ||= type === "execution.sealed";
    isStreamEnded ||= type === "stream.stopped";
    isShown ||=
      type === "chunk.failed" ||
      type === "chunk.parked" ||
      type === "cleanup.planned" ||
      type.startsWith("interrupt.") ||
      type.startsWith("intervention.");
  }
  return { isProgress, isSealed, isStreamEnded, isShown };
}
