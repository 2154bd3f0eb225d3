/** What an execution is at some point of its ledger: the state that `evolve` folds. */
import { defaultSettings } from "./event.ts";
import type { EventOf, ExecutionId, Outcome, Settings, WorkerId } from "./event.ts";
import type { Source } from "./move.ts";
import type { SerializedError } from "../base/errors.ts";
import { copyJson, type Json, type JsonObject } from "../base/json.ts";
import {
  type StateWrite,
  type Arrival,
  type Dispatch,
  type Frame,
  type Group,
  type Interrupt,
  type Notice,
  type EarlyAnswer,
  type HeardEvent,
  type Intervention,
  type Child,
  repeatWrites,
} from "./parts.ts";

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

/** A state as JSON text, for the `snapshots` table and for comparing folds. */
export function freezeState(state: ExecutionState): string {
  const { dispatches, parked, frames, joins, groups, interrupts, children, ...rest } = state;
  const frozen = {
    ...rest,
    // The parent's state, which an item reads, is not saved with the item.
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
  return JSON.stringify(frozen);
}

/** The state a snapshot froze. It was written by `freezeState` of this version (`snapshotVersion`), so its shape is known. */
export function thawState(frozen: JsonObject): ExecutionState {
  const raw = copyJson(frozen) as unknown as Omit<
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
export const snapshotVersion = 10;
