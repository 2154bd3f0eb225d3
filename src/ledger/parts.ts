/** What the state of an execution consists of: dispatches, collections, interrupts, interventions and what came in. */
import { appendPath, deletePath, setPath, type Found } from "../base/path.ts";
import type { ExecutionId, FollowUp, OnExpire, Outcome, ResumeTo } from "./event.ts";
import type { Position } from "./move.ts";
import type { SerializedError } from "../base/errors.ts";
import { copyJson, type Json, type JsonObject } from "../base/json.ts";

/** One write to application state. */
export interface StateWrite {
  effect: "set" | "append" | "delete";
  key: string;
  value: Json;
}

/** The same writes again, in their order, on values that are handed over. */
export function repeatWrites(values: JsonObject, writes: readonly StateWrite[]): JsonObject {
  for (const { effect, key, value } of writes) {
    if (effect === "set") setPath(values, key, copyJson(value));
    else if (effect === "append") appendPath(values, key, copyJson(value));
    else deletePath(values, key);
  }
  return values;
}

/** Something from outside that waits for its routing. */
export type Arrival =
  | { seq: number; kind: "start"; value: Json; raw: boolean }
  | { seq: number; kind: "event"; event: string; value: Json; raw: boolean }
  | { seq: number; kind: "resume"; interrupt: string; value: Json; raw: false }
  /** `paused` is where it goes on from a pause, else it is the place of the dispatch. */
  | { seq: number; kind: "skip"; dispatch: number; paused: Interrupt["paused"]; value: Json; raw: false };

/** One planned run of one chunk, or of a node without one (`chunk` is null). */
export interface Dispatch {
  id: number;
  node: string;
  chunk: string | null;
  input: Json;
  at: Position | null;
  scope: string | null;
  group: number | null;
  /** The first dispatch of a collection item: it takes a place of the collection's concurrency. */
  begins: boolean;
  /** The time of the event that planned it. */
  plannedAt: number;
  /** Attempts that failed. */
  failures: number;
  lastError: SerializedError | null;
  /** A retry waits until then. */
  notBefore: number | null;
  /** Its output came from an operator: it does not run any more. */
  isSkipped?: true;
  /** When its last attempt failed, and when an attempt last recorded an effect: what was due by then has been heard. */
  failedAt: number;
  /** The event of its last failure; 0 before the first. */
  failedSeq: number;
  journaledAt: number;
  /** The epoch in which what it waited for last came: a child's end, the end of what an emit led to, an interruption. */
  wokenIn: number;
  resume: string | null;
  /** It is an `onCancel` handler. */
  cleanup?: true;
  /** It was planned to tell of this. */
  tells?: Notice;
  journal: JournalEntry[];
  /** In which order what its attempts waited for side by side reached them, by number. */
  turns?: number[];
}

/**
 * An effect that is in the ledger already: a retried attempt recognises it and does not repeat it. Of a sleep the value is how
 * long or until when, of a call a digest of the input, of a step its result; of others what was written or sent.
 */
export type JournalEntry =
  | WriteEntry
  | { ordinal: number; effect: "emit"; key: string; group: number | null; value?: Json }
  | { ordinal: number; effect: "step"; key: string; value: Json }
  | {
      ordinal: number;
      effect: "stepFailed";
      key: string;
      attempt: number;
      error: SerializedError;
      notBefore: number | null;
    }
  | { ordinal: number; effect: "sleep"; key: string; until: number; value?: Json }
  | { ordinal: number; effect: "result"; key: string; value?: Json }
  | { ordinal: number; effect: "stopStream" | "consume" | "withdraw"; key: string }
  | { ordinal: number; effect: "call"; key: string; child: ExecutionId; value?: Json };

/** A state write; what it wrote and found is not known of what older releases folded. */
export interface WriteEntry {
  ordinal: number;
  effect: "set" | "append" | "delete";
  key: string;
  value?: Json;
  found?: Found;
}

/** An open collection. */
export interface Frame {
  id: number;
  node: string;
  keys: string[] | null;
  results: Json[];
  done: boolean[];
  missing: number;
  at: Position | null;
  scope: string | null;
  group: number | null;
  /** Only of a distributed collection: where its items are, or are that a redrive kept; and which of them wrote application state. */
  items?: { base: ExecutionId; readsState: boolean; wrote: number[]; earlier?: ExecutionId[] };
}

export interface Group {
  /** The dispatch that waits for it. */
  by: number;
  parent: number | null;
  open: number;
}

export interface Interrupt {
  id: string;
  type: string;
  status: "pending" | "resumed" | "expired" | "cancelled" | "withdrawn";
  payload: Json;
  resumeTo: ResumeTo;
  maxResumes: number | null;
  resumeCount: number;
  chunk: string;
  /** Of one that waits for an event: its chain, its own event, and that of the chain's last pause for the same. */
  hears?: { scope: string | null; seq: number; since: number };
  /** When it asked; of a copy that asks again, when that was. */
  createdAt: number;
  expiresAt: number | null;
  expiresInMs: number | null;
  onExpire: OnExpire | null;
  resolvedAt: number | null;
  value: Json;
  requestId: string | null;
  actor: string | null;
  /** The span of who answered, where that was traced. */
  answeredFrom?: string;
  /** The seq of the event from outside that answered. */
  answeredBy?: number;
  /** What an answer must be, as JSON Schema; null is any JSON. */
  response: Json;
  /** An operator gave the chunk's output instead of an answer. */
  isSkipped?: true;
  /** Whom it asks and until when, and what was done with it; only where there is any of it. */
  handling?: Handling;
  /** The flow hears what becomes of it, as event "$interrupt"; and whoever it tells gets a link that answers it. */
  tells?: true;
  link?: true;
  /** The dispatch that paused: where the answer goes on. */
  paused: Pick<Dispatch, "node" | "input" | "at" | "scope" | "group"> | null;
}

export interface Handling {
  title: string | null;
  /** null is nobody in particular. */
  assignees: string[] | null;
  /** After so long it is overdue. */
  dueInMs: number | null;
  /** What follows by the clock, in order, and how much of that has. */
  plan: FollowUp[];
  followed: number;
  claim: { actor: string; at: number; isExclusive: boolean } | null;
  snoozedUntil: number | null;
}

/** What the flow is to hear of a pause. */
export interface Notice {
  kind: NoticeKind;
  /** As it was then. */
  interrupt: string;
}

export const noticeKinds = [
  "raised",
  "reminded",
  "escalated",
  "delegated",
  "answered",
  "expired",
  "withdrawn",
] as const;
export type NoticeKind = (typeof noticeKinds)[number];

export interface EarlyAnswer {
  seq: number;
  id: string;
  value: Json;
  requestId: string | null;
  /** The span of who answered, where that was traced. */
  traceparent?: string;
  actor: string | null;
}

export interface HeardEvent {
  seq: number;
  event: string;
  value: Json;
  /** In characters of JSON. */
  size: number;
  /** The span of who sent it. */
  traceparent?: string;
}

export interface Intervention {
  id: string;
  version: number;
  status: "pending" | "inserted" | "expired" | "rejected";
  payload: Json;
  target: string | null;
  author: string | null;
  note: string | null;
  metadata: JsonObject;
  createdAt: number;
  insertedAt: number | null;
  insertion: JsonObject | null;
  rejectedAt: number | null;
  rejectReason: string | null;
  expiredAt: number | null;
  consumers: Record<
    string,
    { status: "applied" | "ignored"; note: string | null; metadata: JsonObject; consumedAt: number }
  >;
}

export interface Child {
  dispatch: number;
  ordinal: number | null;
  flow: string;
  /** When its end was asked for from outside. */
  cancelledAt: number | null;
  /** It runs on where the chunk that called it ends without its result. */
  leaves?: true;
  /** Its end is asked for, as that chunk has ended. */
  isAbandoned?: true;
  closed: { outcome: Outcome; value: Json; error: SerializedError | null } | null;
}
