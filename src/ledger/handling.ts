/** What people and the clock do with a pause besides ending it, and what the flow hears of it. Pure, as `decide` is. */
import { isObject, type Json, type JsonObject } from "../base/json.ts";
import { noticeEvent } from "../flow/contract.ts";
import type { EventOf, FollowUp, LedgerEvent } from "./event.ts";
import type { ExecutionState } from "./state.ts";
import { noticeKinds, type Handling, type Interrupt, type Notice, type NoticeKind } from "./parts.ts";

/** Of whom a pause asks, in characters: it is in an index. */
export const longestPrincipal = 100;

type Handled = EventOf<
  | "interrupt.claimed"
  | "interrupt.released"
  | "interrupt.delegated"
  | "interrupt.snoozed"
  | "interrupt.reminded"
  | "interrupt.escalated"
>;

/** What a pause brings of it; undefined where it is none. */
export function handlingOf(event: EventOf<"interrupt.raised">): Handling | undefined {
  const { title = null, assign = null, dueInMs = null, plan = [] } = event;
  if (title === null && assign === null && dueInMs === null && plan.length === 0) return undefined;
  return { ...untouched, title, assignees: assign, dueInMs, plan };
}

const untouched: Handling = {
  title: null,
  assignees: null,
  dueInMs: null,
  plan: [],
  followed: 0,
  claim: null,
  snoozedUntil: null,
};

export function handled(state: ExecutionState, event: Handled, at: number): void {
  const interrupt = state.interrupts.get(event.id);
  if (!interrupt) return;
  const before = (interrupt.handling ??= { ...untouched });
  switch (event.type) {
    case "interrupt.claimed":
      before.claim = { actor: event.actor, at, isExclusive: event.exclusive ?? false };
      return;
    case "interrupt.released":
      before.claim = null;
      return;
    case "interrupt.snoozed":
      before.snoozedUntil = event.until;
      return;
    case "interrupt.reminded":
      before.followed += 1;
      return tell(state, interrupt, "reminded");
    case "interrupt.escalated":
    case "interrupt.delegated": {
      const isEscalated = event.type === "interrupt.escalated";
      const followed = before.followed + (isEscalated ? 1 : 0);
      interrupt.handling = { ...before, assignees: event.assign, claim: null, snoozedUntil: null, followed };
      return tell(state, interrupt, isEscalated ? "escalated" : "delegated");
    }
  }
}

/** When it becomes overdue: milliseconds since 1970. */
export function dueAt({ createdAt, handling }: Pick<Interrupt, "createdAt" | "handling">): number | null {
  return handling === undefined || handling.dueInMs === null ? null : createdAt + handling.dueInMs;
}

/** When the clock next does something with it, besides its expiry. */
export function nextFollowUp({ createdAt, handling }: Pick<Interrupt, "createdAt" | "handling">): number | null {
  const next = handling?.plan[handling.followed];
  return next === undefined ? null : createdAt + next.inMs;
}

/** What has come due of the plans of those that wait, each in its order. One that gets its default answer waits no more. */
export function followUps(pending: readonly Interrupt[], now: number): LedgerEvent[] {
  const events: LedgerEvent[] = [];
  for (const { id, createdAt, handling } of pending) {
    if (handling === undefined) continue;
    for (const next of handling.plan.slice(handling.followed)) {
      if (createdAt + next.inMs > now) break;
      events.push(followUp(id, next));
    }
  }
  return events;
}

function followUp(id: string, next: FollowUp): LedgerEvent {
  if ("answer" in next) return { type: "interrupt.resumed", id, value: next.answer, byDefault: true, actor: "timer" };
  if ("assign" in next) return { type: "interrupt.escalated", id, assign: next.assign };
  return { type: "interrupt.reminded", id };
}

const ends: ReadonlySet<NoticeKind> = new Set(["answered", "expired", "withdrawn"]);

/**
 * The flow is to hear of it, in an order that does not depend on whether what came in from outside was folded before or after what the
 * owner did: by pause, and of each pause in turn. Its end comes last, and once, by what counted.
 */
export function tell(state: ExecutionState, { id, tells }: Pick<Interrupt, "id" | "tells">, kind: NoticeKind): void {
  if (!tells) return;
  const queue = state.notices ?? [];
  const last = queue.findLast(({ interrupt }) => interrupt === id);
  const end = last && ends.has(last.kind) && kind !== "raised" ? last : null;
  const left = end ? queue.filter((notice) => notice !== end) : queue;
  const added: Notice[] = [{ kind, interrupt: id }];
  if (end && !ends.has(kind)) added.push(end);
  const order = [...state.interrupts.keys()];
  state.notices = [...left, ...added].toSorted((a, b) => order.indexOf(a.interrupt) - order.indexOf(b.interrupt));
}

/** The events that tell it. */
export function notices(state: ExecutionState): LedgerEvent[] {
  return (state.notices ?? []).map((notice) => ({
    type: "event.emitted",
    event: noticeEvent,
    payload: noticeOf(state, notice),
  }));
}

/** It has been told. Others may have come in beside that. */
export function told(state: ExecutionState, value: Json): void {
  const notice = noticeIn(value);
  const first = state.notices?.findIndex(
    ({ kind, interrupt }) => kind === notice?.kind && interrupt === notice.interrupt,
  );
  if (first !== undefined && first >= 0) state.notices?.splice(first, 1);
  if (state.notices?.length === 0) delete state.notices;
}

/** What the handlers of "$interrupt" get; the link is given to each attempt of theirs, and is never in the ledger. */
function noticeOf(state: ExecutionState, { kind, interrupt: id }: Notice): JsonObject {
  const interrupt = state.interrupts.get(id);
  const { title = null, assignees = null, claim = null } = interrupt?.handling ?? {};
  return {
    kind,
    interrupt: {
      id,
      type: interrupt?.type ?? "",
      chunk: interrupt?.chunk ?? "",
      title,
      payload: interrupt?.payload ?? null,
      assignees,
      claimedBy: claim?.actor ?? null,
      createdAt: iso(interrupt?.createdAt),
      dueAt: iso(interrupt && dueAt(interrupt)),
      expiresAt: iso(interrupt?.expiresAt),
      value: interrupt?.value ?? null,
      actor: interrupt?.actor ?? null,
    },
    link: null,
  };
}

function iso(ms: number | null | undefined): string | null {
  return ms === null || ms === undefined ? null : new Date(ms).toISOString();
}

/** Which notice a value is, as it was told; null where it is none. */
export function noticeIn(value: Json): Notice | null {
  if (!isObject(value)) return null;
  const { kind: named, interrupt } = value;
  const kind = noticeKinds.find((known) => known === named);
  const id = isObject(interrupt) ? interrupt["id"] : undefined;
  return kind !== undefined && typeof id === "string" ? { kind, interrupt: id } : null;
}
