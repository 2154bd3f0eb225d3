/** What an execution is at some point of its ledger: the state that `evolve` folds. */
import { appendPath, deletePath, setPath, type Found } from "../base/path.ts";
import { defaultSettings } from "./event.ts";
import type { EventOf, ExecutionId, FollowUp, OnExpire, Outcome, ResumeTo, Settings, WorkerId } from "./event.ts";
import type { Position, Source } from "./move.ts";
import type { SerializedError } from "../base/errors.ts";
import { copyJson, plain, type Json, type JsonObject } from "../base/json.ts";

export interface ExecutionState {
  seq: number;
  epoch: number;
  flow: string;
  fingerprint: string | null;
  settings: Settings;
  metadata: JsonObject;
  resourceKeys: string[];
  parent: EventOf<"execution.created">["parent"] | null;
  /** What it is a copy of. */
  loadedFrom: string | null;
  forkedFrom: ExecutionId | null;
  /** Only of an item of a distributed collection: which one, and what it wrote, for its parent to repeat. */
  item?: { node: string; index: number; readsState: boolean };
  writes?: StateWrite[];
  worker: WorkerId | null;
  /** Why workers that came by since `at` could not go on with it, and with which definitions they came; the last of them in `epoch`. */
  blocked: { epoch: number; at: number; problem: string; fingerprints: string[] } | null;
  /** The parent of all its spans, as W3C Trace Context writes it; and the span of its last claim, of a copy what it was copied with. */
  trace: string | null;
  lastSpan: string | null;
  createdAt: number;
  startedAt: number | null;
  /** What it was started with, as the contract made it; of an item what its parent was started with, which is not in its own ledger. */
  startInput: { value: Json } | null;
  /** Its start is not before. */
  dueAt: number | null;
  /** It was started, or sent an event: from then on it closes when it has been idle. */
  hasBegun: boolean;
  /** In which epoch and when it was taken last, and the time before. */
  claimedIn: number;
  claimedAt: number;
  claimedBefore: number;
  /** What it waits before, for its time or for a slot, is no time of its own; a copy begins anew. */
  firstClaim: { epoch: number; at: number } | null;
  sealedAt: number | null;
  /** Set once a close is asked for: it happens when everything accepted has run. */
  closing: { reason: string; at: number; cancelsInterrupts: boolean; failsParked?: boolean } | null;
  /** `isCleaned` once its `onCancel` handlers are planned. */
  cancelling: { reason: string; at: number; isCleaned?: true } | null;
  /** An operator paused it: what had been heard by then, in which epoch it was, and until when at most. */
  paused: { heardUntil: number; epoch: number; until: number | null } | null;
  /** The error it ends with. */
  failing: { reason: string; error: SerializedError } | null;
  closed: { at: number; outcome: Outcome; reason: string; error: SerializedError | null } | null;
  /** Time of the last event that kept the execution busy; auto-close counts from here. */
  activeAt: number;
  /** Application state. */
  values: JsonObject;
  /** What `setResult` wrote. */
  result: { value: Json } | null;
  /** What reached `end()`. */
  finalResult: { value: Json } | null;
  streamStopped: boolean;
  /** The next id for a dispatch, frame or group. */
  nextId: number;
  /** What came in from outside and has not been routed yet, oldest first. */
  inbox: Arrival[];
  dispatches: Map<number, Dispatch>;
  /** Dispatches whose last attempt failed and that wait for an operator: since when, and until when at most. */
  parked: Map<number, { at: number; until: number | null }>;
  frames: Map<number, Frame>;
  /** And-joins that wait: join key → by event the values that have no partners yet, first come first. */
  joins: Map<string, Record<string, Json[]>>;
  /** Emits that somebody waits for: how much of what follows from them is unfinished. */
  groups: Map<number, Group>;
  interrupts: Map<string, Interrupt>;
  /** Answers to questions that nobody has asked yet, the oldest first. */
  early: EarlyAnswer[];
  /** Events from outside that no pause has taken, the oldest first: a pause that waits for one may come later. */
  heard: HeardEvent[];
  /** What the flow is to hear of its pauses, the oldest first; only where it hears of them. */
  notices?: Notice[];
  interventions: Intervention[];
  children: Map<ExecutionId, Child>;
}

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

export function initialState(): ExecutionState {
  return {
    seq: 0,
    epoch: 0,
    flow: "",
    fingerprint: null,
    settings: defaultSettings,
    metadata: {},
    resourceKeys: [],
    parent: null,
    loadedFrom: null,
    forkedFrom: null,
    worker: null,
    blocked: null,
    trace: null,
    lastSpan: null,
    createdAt: 0,
    startedAt: null,
    startInput: null,
    dueAt: null,
    hasBegun: false,
    claimedIn: 0,
    claimedAt: 0,
    claimedBefore: 0,
    firstClaim: null,
    sealedAt: null,
    closing: null,
    cancelling: null,
    paused: null,
    failing: null,
    closed: null,
    activeAt: 0,
    values: {},
    result: null,
    finalResult: null,
    streamStopped: false,
    nextId: 1,
    inbox: [],
    dispatches: new Map(),
    parked: new Map(),
    frames: new Map(),
    joins: new Map(),
    groups: new Map(),
    interrupts: new Map(),
    early: [],
    heard: [],
    interventions: [],
    children: new Map(),
  };
}

/** It runs one item of a collection of its parent; a copy of such an item has no parent. */
export function isItem({ item, parent }: ExecutionState): boolean {
  return item !== undefined && parent !== null;
}

/** Nothing runs, waits or is due to run: the execution may close. */
export function isDrained(state: ExecutionState): boolean {
  return state.inbox.length === 0 && state.dispatches.size === 0;
}

export function pendingInterrupts(state: ExecutionState): Interrupt[] {
  const pending: Interrupt[] = [];
  for (const interrupt of state.interrupts.values()) if (interrupt.status === "pending") pending.push(interrupt);
  return pending;
}

/** The value a move carries. */
export function valueOf(state: ExecutionState, from: Source | undefined, value: Json): Json {
  if (from === undefined) return value;
  if ("event" in from) return { event: from.event, value };
  if ("join" in from) return firstOfEach(state.joins.get(from.join) ?? {});
  const frame = state.frames.get(from.frame);
  return frame ? collected(frame) : null;
}

function firstOfEach(queues: Readonly<Record<string, readonly Json[]>>): JsonObject {
  const values: JsonObject = {};
  for (const event in queues) values[event] = queues[event]?.[0] ?? null;
  return values;
}

/** What a complete collection hands on: an object by key for a batch, else a list in order. */
export function collected(frame: Frame): Json {
  if (frame.keys === null) return [...frame.results];
  const byKey: JsonObject = {};
  frame.keys.forEach((key, index) => (byKey[key] = frame.results[index] ?? null));
  return byKey;
}

/** The items that forEach runs over: a list as it is, anything else as one item. */
export function itemsOf(value: Json): Json[] {
  return Array.isArray(value) ? value : [value];
}

/** JSON form of a state, for the `snapshots` table and for comparing folds. */
export function freezeState(state: ExecutionState): JsonObject {
  const { dispatches, parked, frames, joins, groups, interrupts, children, ...rest } = state;
  const frozen = {
    ...rest,
    // What an item reads of its parent is not its own.
    ...(state.writes && { values: repeatWrites({}, state.writes) }),
    ...(isItem(state) && { startInput: null }),
    dispatches: [...dispatches.values()],
    parked: [...parked],
    frames: [...frames.values()],
    joins: [...joins],
    groups: [...groups],
    interrupts: [...interrupts.values()],
    children: [...children],
  };
  return plain(frozen);
}

/** The state a snapshot froze. It was written by `freezeState` of this version (`snapshotVersion`), so its shape is known. */
export function thawState(frozen: JsonObject): ExecutionState {
  const raw = structuredClone(frozen) as unknown as Omit<
    ExecutionState,
    "dispatches" | "parked" | "frames" | "joins" | "groups" | "interrupts" | "children"
  > & {
    dispatches: Dispatch[];
    parked: [number, { at: number; until: number | null }][];
    frames: Frame[];
    joins: [string, Record<string, Json[]>][];
    groups: [number, Group][];
    interrupts: Interrupt[];
    children: [ExecutionId, Child][];
  };
  return {
    ...raw,
    dispatches: new Map(raw.dispatches.map((dispatch) => [dispatch.id, dispatch])),
    parked: new Map(raw.parked),
    frames: new Map(raw.frames.map((frame) => [frame.id, frame])),
    joins: new Map(raw.joins),
    groups: new Map(raw.groups),
    interrupts: new Map(raw.interrupts.map((interrupt) => [interrupt.id, interrupt])),
    children: new Map(raw.children),
  };
}

/** Raised whenever the shape of `ExecutionState` changes: an older snapshot is then ignored and the fold starts at 1. */
export const snapshotVersion = 9;
