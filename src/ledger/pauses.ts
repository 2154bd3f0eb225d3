/** The id of a pause, and what ends it besides an answer: an event that it waits for, and its time. Pure, as `decide` is. */
import { InterruptExpiredError, UsageError } from "../base/errors.ts";
import type { Json } from "../base/json.ts";
import { parseAnswer } from "./answers.ts";
import type { EventOf, LedgerEvent, ResumeTo } from "./event.ts";
import type { Position } from "./move.ts";
import { followUps } from "./handling.ts";
import { pendingInterrupts, type ExecutionState } from "./state.ts";
import type { Dispatch, Interrupt } from "./parts.ts";

/**
 * The id that a pause has: the one it asks for; of an item of a collection, where that one waits already, with the item's place
 * behind it, such as `boss[2]`. Null where that waits too.
 */
export function idOfPause(state: ExecutionState, { at }: Pick<Dispatch, "at">, wanted: string): string | null {
  const isFree = (id: string) => state.interrupts.get(id)?.status !== "pending";
  if (isFree(wanted)) return wanted;
  const ofItem = at && `${wanted}${placeOf(state, at)}`;
  return ofItem && isFree(ofItem) ? ofItem : null;
}

/** Whether that id is what a pause of the dispatch gets that asks for `wanted`. */
export function isIdFor(state: ExecutionState, { at }: Pick<Dispatch, "at">, wanted: string, id: string): boolean {
  return id === wanted || (at !== null && id === `${wanted}${placeOf(state, at)}`);
}

/** From the outermost collection inwards: the index of the item, or the key of the branch. */
function placeOf({ frames }: Pick<ExecutionState, "frames">, at: Position): string {
  const [id, index] = at;
  const frame = frames.get(id);
  return `${frame?.at ? placeOf({ frames }, frame.at) : ""}[${frame?.keys?.[index] ?? index}]`;
}

/** Why there is no id left for a pause. */
export function takenError(state: ExecutionState, wanted: string, where: string): UsageError {
  const pending = pendingInterrupts(state).map(({ id }) => JSON.stringify(id));
  return new UsageError(
    `${where}: interrupt ${JSON.stringify(wanted)} is pending already (these wait: ${pending.join(", ")})`,
    "use another interruptId",
  );
}

/** Interrupts that wait for the event are answered by it. */
export function answeredBy(pending: readonly Interrupt[], event: string, value: Json): LedgerEvent[] {
  return pending
    .filter(({ resumeTo }) => typeof resumeTo === "object" && resumeTo.event === event)
    .map(({ id }) => ({ type: "interrupt.resumed", id, value, byEvent: event }));
}

/** What becomes of answers that were there before the question: each is taken, or refused where it is not what the pause asks for. */
export function earlyAnswers({ early }: ExecutionState, pending: readonly Interrupt[]): LedgerEvent[] {
  if (early.length === 0) return [];
  const events: LedgerEvent[] = [];
  for (const { id, response } of pending) {
    const kept = early.find((answer) => answer.id === id);
    if (!kept) continue;
    const checked = check(id, response, kept.value);
    if ("problem" in checked) events.push({ type: "interrupt.refused", id, early: kept.seq, problem: checked.problem });
    else {
      const resumed: EventOf<"interrupt.resumed"> = {
        type: "interrupt.resumed",
        id,
        value: checked.value,
        early: kept.seq,
      };
      if (kept.requestId !== null) resumed.requestId = kept.requestId;
      if (kept.actor !== null) resumed.actor = kept.actor;
      if (kept.traceparent !== undefined) resumed.traceparent = kept.traceparent;
      events.push(resumed);
    }
  }
  return events;
}

function check(id: string, response: Json, value: Json): { readonly value: Json } | { readonly problem: string } {
  try {
    return { value: parseAnswer(id, response, value) };
  } catch (error) {
    return { problem: error instanceof Error ? error.message : String(error) };
  }
}

/** What the clock brings to those that wait: reminders, escalations and default answers, and the end of those whose time is over. */
export function comingDue(pending: readonly Interrupt[], now: number): LedgerEvent[] {
  const followed = followUps(pending, now);
  if (followed.length === 0) return expiries(pending, now);
  const answered = new Set(followed.map((event) => (event.type === "interrupt.resumed" ? event.id : null)));
  const waiting = pending.filter(({ id }) => !answered.has(id));
  return [...followed, ...expiries(waiting, now)];
}

/** What follows for those whose time is over; the event of one may answer others. */
function expiries(pending: readonly Interrupt[], now: number): LedgerEvent[] {
  const isOver = ({ expiresAt }: Interrupt) => expiresAt !== null && expiresAt <= now;
  const over = pending.filter(isOver);
  if (over.length === 0) return [];
  const events: LedgerEvent[] = [];
  let waiting = pending.filter((interrupt) => !isOver(interrupt));
  for (const interrupt of over) {
    events.push(expired(interrupt));
    if (typeof interrupt.onExpire !== "object" || interrupt.onExpire === null || "value" in interrupt.onExpire)
      continue;
    const { event, payload } = interrupt.onExpire;
    const answers = answeredBy(waiting, event, payload);
    events.push(...answers);
    if (answers.length > 0)
      waiting = waiting.filter(({ resumeTo }) => typeof resumeTo !== "object" || resumeTo.event !== event);
  }
  const failed = over.find(({ onExpire }) => onExpire === "fail");
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
