/** What ends a pause besides an answer: an event that it waits for, and its time. Pure, as `decide` is. */
import { InterruptExpiredError } from "../base/errors.ts";
import type { Json } from "../base/json.ts";
import type { EventOf, LedgerEvent, ResumeTo } from "./event.ts";
import type { Interrupt } from "./state.ts";

/** Interrupts that wait for the event are answered by it. */
export function answeredBy(pending: readonly Interrupt[], event: string, value: Json): LedgerEvent[] {
  return pending
    .filter(({ resumeTo }) => typeof resumeTo === "object" && resumeTo.event === event)
    .map(({ id }) => ({ type: "interrupt.resumed", id, value, byEvent: event }));
}

/** What follows for those whose time is over; the event of one may answer others. */
export function expiries(pending: readonly Interrupt[], now: number): LedgerEvent[] {
  const isOver = ({ expiresAt }: Interrupt) => expiresAt !== null && expiresAt <= now;
  const events: LedgerEvent[] = [];
  let waiting = pending.filter((interrupt) => !isOver(interrupt));
  for (const interrupt of pending) {
    if (!isOver(interrupt)) continue;
    events.push(expired(interrupt));
    if (typeof interrupt.onExpire !== "object" || interrupt.onExpire === null || "value" in interrupt.onExpire)
      continue;
    const { event, payload } = interrupt.onExpire;
    const answers = answeredBy(waiting, event, payload);
    events.push(...answers);
    if (answers.length > 0)
      waiting = waiting.filter(({ resumeTo }) => typeof resumeTo !== "object" || resumeTo.event !== event);
  }
  const failed = pending.find((interrupt) => isOver(interrupt) && interrupt.onExpire === "fail");
  if (failed) events.push(failure(failed));
  return events;
}

function expired({ id, onExpire }: Interrupt): EventOf<"interrupt.expired"> {
  if (onExpire === null || onExpire === "fail") return { type: "interrupt.expired", id };
  const value = onExpire === "continue" ? null : "value" in onExpire ? onExpire.value : onExpire.payload;
  return { type: "interrupt.expired", id, value };
}

function failure({ id, chunk, expiresAt }: Interrupt): EventOf<"execution.failed"> {
  const { name, message, code } = new InterruptExpiredError(id, chunk, new Date(expiresAt ?? 0));
  return { type: "execution.failed", reason: "failed", error: { name, message, code, chunk } };
}

/** Where what ended a pause goes on: its answer, or what its expiry gives. */
export function goesOnTo({ status, resumeTo, onExpire }: Interrupt): ResumeTo {
  if (status !== "expired" || onExpire === null || onExpire === "fail") return resumeTo;
  if (onExpire === "continue") return "next";
  return "event" in onExpire ? { event: onExpire.event } : resumeTo;
}
