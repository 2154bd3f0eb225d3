/**
 * Every ledger event: one union, one row each. What happened, in the past tense, with the routing that was decided. It is longer than
 * other files, because it reads better whole: a table without logic, in the order of an execution's life. Whoever reads ledgers, writes
 * SQL about them or adds an event looks for a type here, and two halves would have to be searched both.
 */
import { z } from "zod";
import { JsonValue } from "../base/json-value.ts";
import { SerializedError } from "../base/serialized-error.ts";
import { LocalId as id, Move } from "./move.ts";

/** A UUID of version 7, so that ids sort by the time of their creation. */
export const ExecutionId = z.uuid().brand<"ExecutionId">();
export type ExecutionId = z.infer<typeof ExecutionId>;

export const WorkerId = z.uuid().brand<"WorkerId">();
export type WorkerId = z.infer<typeof WorkerId>;

const ms = z.number().nonnegative();

const moves = z.array(Move).optional();

export const Settings = z.strictObject({
  autoClose: z.boolean(),
  /** Idle time before auto-close; null is never. */
  autoCloseMs: ms.nullable(),
  /** Chunks at once; null is unlimited. */
  concurrency: z.int().positive().nullable(),
  interventionMode: z.enum(["planned", "auto"]).nullable(),
  timeoutMs: ms.nullable(),
  /** Not taken by a worker by then, it is discarded: milliseconds since 1970. */
  discardAt: ms.nullable(),
  /** Nobody holds a handle, so a pause could never be answered. */
  hidden: z.boolean(),
});
export type Settings = z.infer<typeof Settings>;

export const defaultSettings = {
  autoClose: true,
  autoCloseMs: 10_000,
  concurrency: null,
  interventionMode: null,
  timeoutMs: null,
  discardAt: null,
  hidden: false,
} satisfies Settings;

const Parent = z.strictObject({
  id: ExecutionId,
  dispatch: id,
  ordinal: id.optional(),
  /** For a sub-flow: the executions whose stream and interrupts show its own too, the nearest first. */
  visibleIn: z.array(ExecutionId).optional(),
});

/** Which part of the parent's flow an item runs: the collection's node, and its place among the items. */
const Item = z.strictObject({
  node: z.string(),
  index: id,
  /** The parent had application state when it fanned out: the item reads it. */
  readsState: z.boolean().optional(),
});

/** When an attempt was due, and when its handler was called: milliseconds since 1970. The row's own time is its end. */
const attemptTimes = { queuedAt: ms.optional(), startedAt: ms.optional() };

/** Where several things were under way in a chunk: what had reached it since its last commit, by number and in that order. */
const turns = z.array(id).optional();

/** The bulk that an operator asked for it by. */
const bulk = ExecutionId.optional();

/** The place of a chunk's effect: which dispatch, and its position in the attempt. */
const effect = { dispatch: id, chunk: z.string(), ordinal: id, turns };

export const ResumeTo = z.union([z.literal("next"), z.literal("self"), z.strictObject({ event: z.string() })]);
export type ResumeTo = z.infer<typeof ResumeTo>;

/** What follows when nobody answered in time; without it the chain ends. */
export const OnExpire = z.union([
  z.literal("fail"),
  z.literal("continue"),
  z.strictObject({ event: z.string(), payload: JsonValue }),
  z.strictObject({ value: JsonValue }),
]);
export type OnExpire = z.infer<typeof OnExpire>;

/** Whom a pause asks: texts of the application's own, such as "group:finance". */
const assign = z.array(z.string());

/** What follows so many milliseconds after it was asked, unless it has ended: a reminder, other assignees, or a default answer. */
export const FollowUp = z.union([
  z.strictObject({ inMs: ms, assign }),
  z.strictObject({ inMs: ms, answer: JsonValue }),
  z.strictObject({ inMs: ms }),
]);
export type FollowUp = z.infer<typeof FollowUp>;

export const Outcome = z.enum(["completed", "failed", "cancelled"]);
export type Outcome = z.infer<typeof Outcome>;

/** One fact of a ledger: what happened, with all that the fold needs of it. */
export const LedgerEvent = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("execution.created"),
    flow: z.string(),
    fingerprint: z.string().optional(),
    /** Only what differs from `defaultSettings`. */
    settings: Settings.partial().optional(),
    metadata: z.record(z.string(), JsonValue).optional(),
    resourceKeys: z.array(z.string()).optional(),
    parent: Parent.optional(),
    /** It is one item of a distributed collection of its parent. */
    item: Item.optional(),
    /** Application state it begins with. */
    state: z.record(z.string(), JsonValue).optional(),
    loadedFrom: z.string().optional(),
    /** `actor` and `reason` are of who asked for the fork, where they said so. */
    forkedFrom: z
      .strictObject({ id: ExecutionId, seq: id, actor: z.string().optional(), reason: z.string().optional() })
      .optional(),
    idempotencyKey: z.string().optional(),
    priority: z.int().optional(),
    /** Of one that is not started yet: its start is not before, in milliseconds since 1970. */
    dueAt: ms.optional(),
    /** The trace that its start belongs to, as W3C Trace Context writes it. */
    traceparent: z.string().optional(),
  }),
  z.strictObject({
    type: z.literal("execution.started"),
    input: JsonValue,
    /** It came in by SQL, where nobody knows the contract: the owner checks it before it is routed. */
    raw: z.boolean().optional(),
    /** Not before: milliseconds since 1970. */
    dueAt: ms.optional(),
    /** What the limits per key count it by. */
    limitKey: z.string().optional(),
    actor: z.string().optional(),
    /** Why somebody ran its schedule. */
    reason: z.string().optional(),
  }),
  /** Not before another time, asked for before anybody had taken it. */
  z.strictObject({ type: z.literal("execution.rescheduled"), dueAt: ms }),
  /** What came before was copied here from another execution; what counts from a moment counts from this one. */
  z.strictObject({ type: z.literal("execution.copied") }),
  /** A worker took the execution; its epoch is the row's. */
  z.strictObject({
    type: z.literal("execution.claimed"),
    worker: WorkerId,
    fingerprint: z.string().optional(),
    /** What the nodes it stands at are called in this version of the flow, where that differs. */
    nodes: z.record(z.string(), z.string()).optional(),
    /** The span of the claim, where the execution is traced; and the parent of all its spans, where this claim made that. */
    span: z.string().optional(),
    traceparent: z.string().optional(),
  }),
  /** The worker's version of the flow does not have what the execution stands at: it was given back as it is. */
  z.strictObject({ type: z.literal("execution.blocked"), fingerprint: z.string(), problem: z.string() }),
  /** Where something that came in from outside (start, emit, resume, skip) went. `of` is its seq; `dispatch` the one that a skip ended. */
  z.strictObject({
    type: z.literal("inbox.routed"),
    of: id,
    dispatch: id.optional(),
    /** What the contract made of it, where that differs. */
    value: JsonValue.optional(),
    /** Why the contract refused it; it went nowhere. */
    refused: z.string().optional(),
    moves,
  }),
  z.strictObject({
    type: z.literal("chunk.completed"),
    dispatch: id,
    chunk: z.string(),
    attempt: z.int().optional(),
    ...attemptTimes,
    output: JsonValue,
    moves,
  }),
  z.strictObject({
    type: z.literal("chunk.failed"),
    dispatch: id,
    chunk: z.string(),
    attempt: z.int(),
    ...attemptTimes,
    turns,
    error: SerializedError,
    /** Absent: that was the last attempt. */
    retryInMs: ms.optional(),
  }),
  /** The last attempt failed, for whatever reason, and the chunk waits for an operator. */
  z.strictObject({
    type: z.literal("chunk.parked"),
    dispatch: id,
    chunk: z.string(),
    attempt: z.int(),
    ...attemptTimes,
    turns,
    error: SerializedError,
    /** After so long it fails in the end; absent is never. */
    failInMs: ms.optional(),
  }),
  /** An operator has it run again: its attempts count from 1, and with `input` it gets another one. */
  z.strictObject({
    type: z.literal("chunk.retried"),
    dispatch: id,
    chunk: z.string(),
    input: JsonValue.optional(),
    actor: z.string(),
    reason: z.string(),
    bulk,
  }),
  /** An operator gave a chunk's output in its place; its routing follows. With `interrupt` it paused, and that dispatch has ended. */
  z.strictObject({
    type: z.literal("chunk.skipped"),
    dispatch: id,
    chunk: z.string(),
    interrupt: z.string().optional(),
    output: JsonValue,
    actor: z.string(),
    reason: z.string(),
    bulk,
  }),
  /** An attempt was cut off by its worker, which gave the execution back: it goes on at once, whatever else it waits for. */
  z.strictObject({ type: z.literal("chunk.interrupted"), dispatch: id, chunk: z.string(), ...attemptTimes }),
  /** A value went on from a node without a chunk: its conditions were asked, or its collection opened. */
  z.strictObject({ type: z.literal("value.routed"), dispatch: id, moves }),
  z.strictObject({ type: z.literal("state.set"), ...effect, key: z.string(), value: JsonValue, moves }),
  z.strictObject({ type: z.literal("state.appended"), ...effect, key: z.string(), value: JsonValue, moves }),
  z.strictObject({ type: z.literal("state.deleted"), ...effect, key: z.string(), moves }),
  /** An operator edited the state: nothing hears of it. `was` is absent where there was nothing. */
  z.strictObject({
    type: z.literal("state.edited"),
    changes: z.array(
      z.discriminatedUnion("op", [
        z.strictObject({ op: z.literal("set"), path: z.string(), value: JsonValue, was: JsonValue.optional() }),
        z.strictObject({ op: z.literal("delete"), path: z.string(), was: JsonValue.optional() }),
      ]),
    ),
    actor: z.string(),
    reason: z.string(),
  }),
  z.strictObject({
    type: z.literal("event.emitted"),
    dispatch: id.optional(),
    chunk: z.string().optional(),
    ordinal: id.optional(),
    turns,
    event: z.string(),
    payload: JsonValue,
    /** The group that an `emit(…, { wait: true })` waits for. */
    group: id.optional(),
    actor: z.string().optional(),
    idempotencyKey: z.string().optional(),
    /** The span of who sent it from outside. */
    traceparent: z.string().optional(),
    raw: z.boolean().optional(),
    moves,
  }),
  z.strictObject({ type: z.literal("step.completed"), ...effect, name: z.string(), value: JsonValue }),
  z.strictObject({
    type: z.literal("step.failed"),
    ...effect,
    name: z.string(),
    attempt: z.int(),
    error: SerializedError,
    retryInMs: ms.optional(),
  }),
  /** `until` where a date was given: that counts then, in milliseconds since 1970. */
  z.strictObject({ type: z.literal("sleep.started"), ...effect, forMs: ms, until: ms.optional() }),
  z.strictObject({ type: z.literal("result.set"), ...effect, value: JsonValue }),
  z.strictObject({ type: z.literal("stream.stopped"), ...effect }),
  /** `input` is a digest: a retry calls the same child with the same. Of a sub-flow there is none. `leaves`: it is never abandoned. */
  z.strictObject({
    type: z.literal("child.started"),
    ...effect,
    child: ExecutionId,
    flow: z.string(),
    input: z.string().optional(),
    leaves: z.literal(true).optional(),
  }),
  /** The chunk that called it has ended without its result: its end is asked for. */
  z.strictObject({ type: z.literal("child.abandoned"), dispatch: id, child: ExecutionId }),
  z.strictObject({
    type: z.literal("child.closed"),
    child: ExecutionId,
    dispatch: id,
    ordinal: id.optional(),
    outcome: Outcome,
    value: JsonValue.optional(),
    error: SerializedError.optional(),
  }),
  /**
   * A distributed collection: each item is an execution of its own, whose id is `base` with the item's index in its last
   * eight digits. That they exist and how they go is in their own ledgers.
   */
  z.strictObject({
    type: z.literal("items.started"),
    dispatch: id,
    base: ExecutionId,
    size: id,
    keys: z.array(z.string()).optional(),
    /** Of what was redriven: where the items are that had completed before. */
    earlier: z.array(ExecutionId).optional(),
  }),
  /** How a batch of them ended: index and result; `wrote` names those that wrote application state. */
  z.strictObject({
    type: z.literal("items.closed"),
    dispatch: id,
    results: z.array(z.tuple([id, JsonValue])),
    wrote: z.array(id).optional(),
  }),
  /** Somebody outside asked for the end of a sub-flow: nothing is written back and nothing follows from it. */
  z.strictObject({
    type: z.literal("child.cancelled"),
    child: ExecutionId,
    reason: z.string().optional(),
    actor: z.string().optional(),
  }),
  z.strictObject({
    type: z.literal("interrupt.raised"),
    dispatch: id,
    chunk: z.string(),
    ...attemptTimes,
    id: z.string(),
    kind: z.string(),
    payload: JsonValue,
    resumeTo: ResumeTo,
    /** null is without limit. */
    maxResumes: z.int().nullable(),
    resumeCount: z.int(),
    expiresInMs: ms.optional(),
    onExpire: OnExpire.optional(),
    /** What an answer must be, as JSON Schema. */
    response: JsonValue.optional(),
    title: z.string().optional(),
    assign: assign.optional(),
    dueInMs: ms.optional(),
    /** In the order of their times. */
    plan: z.array(FollowUp).optional(),
    /** The flow hears what becomes of it, as event "$interrupt". */
    tells: z.literal(true).optional(),
    /** Whoever the flow tells gets a link that answers it. */
    link: z.literal(true).optional(),
  }),
  /** Somebody has taken it on; with `exclusive` nobody else may answer. */
  z.strictObject({
    type: z.literal("interrupt.claimed"),
    id: z.string(),
    exclusive: z.literal(true).optional(),
    actor: z.string(),
  }),
  z.strictObject({ type: z.literal("interrupt.released"), id: z.string(), actor: z.string() }),
  /** It asks these from now on, and nobody has taken it on. */
  z.strictObject({
    type: z.literal("interrupt.delegated"),
    id: z.string(),
    assign,
    reason: z.string().optional(),
    actor: z.string(),
  }),
  /** Out of the inbox until then: milliseconds since 1970. */
  z.strictObject({ type: z.literal("interrupt.snoozed"), id: z.string(), until: ms, actor: z.string() }),
  /** The next of its plan came due: it is told to the flow. */
  z.strictObject({ type: z.literal("interrupt.reminded"), id: z.string() }),
  /** The same: it asks these from now on. */
  z.strictObject({ type: z.literal("interrupt.escalated"), id: z.string(), assign }),
  /** A link was given to the flow's handler: SHA-256 of its token, hex. */
  z.strictObject({ type: z.literal("interrupt.linked"), id: z.string(), hash: z.string() }),
  /** An answer to a question that nobody has asked yet: it is kept until somebody does. */
  z.strictObject({
    type: z.literal("interrupt.answered"),
    id: z.string(),
    value: JsonValue,
    requestId: z.string().optional(),
    /** The span of who answered. */
    traceparent: z.string().optional(),
    actor: z.string().optional(),
  }),
  /** Such an answer is not what the pause asks for, which goes on waiting. `early` is the answer's seq. */
  z.strictObject({ type: z.literal("interrupt.refused"), id: z.string(), early: id, problem: z.string() }),
  z.strictObject({
    type: z.literal("interrupt.resumed"),
    id: z.string(),
    value: JsonValue,
    /** The emitted event that answered; its handlers get the value, so nothing else is routed. */
    byEvent: z.string().optional(),
    /** The seq of that event, where it came from outside. */
    of: id.optional(),
    /** The answer was there before the pause: its seq. */
    early: id.optional(),
    /** It came by a link: SHA-256 of its token. */
    byLink: z.string().optional(),
    /** Nobody had answered in time: it is the default of its plan. */
    byDefault: z.literal(true).optional(),
    requestId: z.string().optional(),
    /** The span of who answered. */
    traceparent: z.string().optional(),
    actor: z.string().optional(),
  }),
  z.strictObject({
    type: z.literal("interrupt.expired"),
    id: z.string(),
    /** What the chain goes on with; without it the chain ends. */
    value: JsonValue.optional(),
  }),
  z.strictObject({
    type: z.literal("interrupt.cancelled"),
    id: z.string(),
    reason: z.string(),
    /** Somebody took the question back; without it the execution ends. */
    withdrawn: z.literal(true).optional(),
    /** The chunk that did; what came from outside has none. */
    dispatch: id.optional(),
    chunk: z.string().optional(),
    ordinal: id.optional(),
    turns,
    actor: z.string().optional(),
  }),
  z.strictObject({
    type: z.literal("intervention.recorded"),
    id: z.string(),
    payload: JsonValue,
    target: z.string().nullable().optional(),
    author: z.string().nullable().optional(),
    note: z.string().nullable().optional(),
    metadata: z.record(z.string(), JsonValue).optional(),
    actor: z.string().optional(),
  }),
  z.strictObject({
    type: z.literal("intervention.inserted"),
    id: z.string(),
    insertion: z.record(z.string(), JsonValue),
  }),
  z.strictObject({
    type: z.literal("intervention.consumed"),
    /** Absent when it was marked from outside. */
    dispatch: id.optional(),
    chunk: z.string().optional(),
    ordinal: id.optional(),
    turns,
    actor: z.string().optional(),
    id: z.string(),
    consumer: z.string(),
    status: z.enum(["applied", "ignored"]),
    note: z.string().nullable().optional(),
    metadata: z.record(z.string(), JsonValue).optional(),
  }),
  z.strictObject({ type: z.literal("intervention.expired"), id: z.string() }),
  /** `close` asks for the close as soon as everything accepted has run. */
  z.strictObject({
    type: z.literal("execution.sealed"),
    close: z.boolean().optional(),
    /** The close cancels what waits for an answer, also what asks only on the way to it. */
    pendingInterrupts: z.literal("cancel").optional(),
    /** The close fails what is parked, also what would park on the way to it. */
    parked: z.literal("fail").optional(),
    reason: z.string().optional(),
    actor: z.string().optional(),
  }),
  /** An operator paused it: no chunk starts, and nothing that comes in goes anywhere. `until` is in milliseconds since 1970. */
  z.strictObject({
    type: z.literal("execution.paused"),
    until: ms.optional(),
    actor: z.string(),
    reason: z.string(),
    bulk,
  }),
  /** It goes on: an operator said so, or (actor "timer") its time was over. */
  z.strictObject({ type: z.literal("execution.unpaused"), actor: z.string(), reason: z.string(), bulk }),
  /** It is a closed execution that goes on: `of`, whose past came before. */
  z.strictObject({
    type: z.literal("execution.redriven"),
    of: ExecutionId,
    actor: z.string(),
    reason: z.string(),
    bulk,
  }),
  z.strictObject({
    type: z.literal("cancel.requested"),
    reason: z.string().optional(),
    actor: z.string().optional(),
    bulk,
  }),
  /**
   * A cancel has told everything to stop, and these `onCancel` handlers are to run before the close, each as a dispatch of its own:
   * for a dispatch that was open (`of`), for one that had paused (`interrupt`), or the flow's own. Nothing else goes on.
   */
  z.strictObject({
    type: z.literal("cleanup.planned"),
    runs: z.array(
      z.strictObject({ id, chunk: z.string().optional(), of: id.optional(), interrupt: z.string().optional() }),
    ),
  }),
  z.strictObject({ type: z.literal("cleanup.completed"), dispatch: id, chunk: z.string(), ...attemptTimes }),
  z.strictObject({
    type: z.literal("cleanup.failed"),
    dispatch: id,
    chunk: z.string(),
    ...attemptTimes,
    error: SerializedError,
  }),
  /** It cannot go on: its time is up, or it took worker after worker down. A chunk's last failure says the same. */
  z.strictObject({ type: z.literal("execution.failed"), error: SerializedError, reason: z.string() }),
  z.strictObject({
    type: z.literal("execution.closed"),
    outcome: Outcome,
    reason: z.string(),
    error: SerializedError.optional(),
  }),
]);
export type LedgerEvent = z.infer<typeof LedgerEvent>;
export type LedgerEventType = LedgerEvent["type"];

const types = new Set<unknown>(LedgerEvent.options.map(({ shape }) => shape.type.value));
export function isLedgerEventType(value: unknown): value is LedgerEventType {
  return types.has(value);
}

export type EventOf<T extends LedgerEventType> = Extract<LedgerEvent, { type: T }>;

/** A ledger event with its place: position, epoch and the database's time, in milliseconds since 1970. */
export interface Recorded<E extends LedgerEvent = LedgerEvent> {
  readonly seq: number;
  readonly epoch: number;
  readonly at: number;
  readonly event: E;
}

/** A row of the ledger as the database gives it. */
export const LedgerRow = z.object({
  seq: z.int(),
  epoch: z.int(),
  at: z.number(),
  type: z.string(),
  dispatch: z.int().nullable(),
  chunk: z.string().nullable(),
  actor: z.string().nullable(),
  payload: z.record(z.string(), JsonValue).nullable(),
});
export type LedgerRow = z.infer<typeof LedgerRow>;
