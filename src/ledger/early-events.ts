/** Events from outside that came before the pause that waits for them. Pure. */
import type { EventOf, LedgerEvent } from "./event.ts";
import type { ExecutionState } from "./state.ts";
import type { HeardEvent, Interrupt } from "./parts.ts";

/** So many are kept, of so many characters of JSON together; of more, the oldest are heard by their handlers alone. */
export const maxHeard = { events: 100, size: 2_097_152 };

/** It has come, and what waits for it by now is answered in the same transaction. */
export function hears(
  state: ExecutionState,
  { event, payload, traceparent }: EventOf<"event.emitted">,
  seq: number,
): void {
  const size = JSON.stringify(payload).length;
  state.heard.push({ seq, event, value: payload, size, ...(traceparent !== undefined && { traceparent }) });
  let all = 0;
  const tooOld = state.heard.findLastIndex((one, index) => {
    all += one.size;
    return all > maxHeard.size || state.heard.length - index > maxHeard.events;
  });
  state.heard.splice(0, tooOld + 1);
}

/** What a pause that waits for an event may take; undefined for any other. */
export function hearingOf(
  { interrupts }: ExecutionState,
  { resumeTo }: Pick<EventOf<"interrupt.raised">, "resumeTo">,
  scope: string | null,
  seq: number,
): Interrupt["hears"] {
  if (typeof resumeTo !== "object") return undefined;
  let since = 0;
  for (const { resumeTo: other, hears: before } of interrupts.values())
    if (before?.scope === scope && typeof other === "object" && other.event === resumeTo.event)
      since = Math.max(since, before.seq);
  return { scope, seq, since };
}

/** Each pause that waits for an event takes the oldest of that name since its chain's last pause for it; the next takes the next. */
export function earlyEvents({ heard }: ExecutionState, pending: readonly Interrupt[]): LedgerEvent[] {
  if (heard.length === 0) return [];
  const taken = new Set<number>();
  const events: LedgerEvent[] = [];
  for (const { id, resumeTo, hears: { since } = { since: 0 } } of pending) {
    if (typeof resumeTo !== "object") continue;
    const { event } = resumeTo;
    const isFree = (one: HeardEvent) => one.event === event && one.seq > since;
    const kept = heard.find((one) => isFree(one) && !taken.has(one.seq));
    if (!kept) continue;
    taken.add(kept.seq);
    const from = kept.traceparent !== undefined && { traceparent: kept.traceparent };
    events.push({ type: "interrupt.resumed", id, value: kept.value, byEvent: event, of: kept.seq, ...from });
  }
  return events;
}
