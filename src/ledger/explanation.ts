/** Why an execution is where it is, as `flowledger.explain` gives it: the one rule of it, and of the sentence, is there. */
import { z } from "zod";
import { ExecutionId, Outcome, WorkerId } from "./event.ts";

const moment = z.iso.datetime().transform((text) => new Date(text));

/** An error without its stack. */
export const ErrorInBrief = z.object({
  name: z.string().nullable(),
  message: z.string().nullable(),
  /** The chunk it came out of, and in which attempt; null where it came out of none. */
  chunk: z.string().nullable(),
  attempt: z.int().nullable(),
});

/** One thing that an execution waits for. */
export const Wait = z.discriminatedUnion("kind", [
  /** A person, or whoever answers pauses. */
  z.object({
    kind: z.literal("answer"),
    /** What `continueWith` of this execution takes. */
    interruptId: z.string(),
    type: z.string(),
    chunk: z.string(),
    /** Who asks: this execution, or a sub-flow of it. */
    executionId: ExecutionId,
    flow: z.string(),
    since: moment,
    /** When the pause expires; null is never. */
    until: moment.nullable(),
    title: z.string().nullable().default(null),
    /** Whom it asks; null is nobody in particular. */
    assignees: z.array(z.string()).nullable().default(null),
    dueAt: moment.nullable().default(null),
    /** Who has taken it on, and since when. */
    claimedBy: z.string().nullable().default(null),
    claimedAt: moment.nullable().default(null),
  }),
  /** A chunk failed for the last time, and waits for an operator: see `retry()` and `skip()`. */
  z.object({ kind: z.literal("parked"), chunk: z.string(), since: moment, error: ErrorInBrief.nullable() }),
  z.object({ kind: z.literal("sleep"), chunk: z.string().nullable(), until: moment }),
  /** A chunk failed, and its next attempt is number `attempt`. */
  z.object({
    kind: z.literal("retry"),
    chunk: z.string().nullable(),
    attempt: z.int(),
    until: moment,
    error: ErrorInBrief.nullable(),
  }),
  /** The same of a step in a chunk. */
  z.object({
    kind: z.literal("step"),
    chunk: z.string().nullable(),
    step: z.string(),
    attempt: z.int(),
    until: moment,
    error: ErrorInBrief.nullable(),
  }),
  /** An execution that it called: a sub-flow, or `ctx.call()`. */
  z.object({
    kind: z.literal("child"),
    executionId: ExecutionId,
    flow: z.string(),
    status: z.enum(["created", "running", "waiting", "parked"]),
    since: moment,
  }),
  /** Items that run on all workers. */
  z.object({
    kind: z.literal("items"),
    flow: z.string(),
    /** How many have begun and not ended; 1001 is more than 1000. */
    open: z.int(),
  }),
  /** A chunk waits until the handlers of an event that it emitted have ended. */
  z.object({ kind: z.literal("emit"), chunk: z.string().nullable(), event: z.string() }),
  /** A chunk that is neither done nor running; what it waits for is not in the ledger's last events. */
  z.object({ kind: z.literal("chunk"), chunk: z.string(), until: moment.nullable() }),
  /** It began before the events that are looked at. `until` is when a worker looks at the latest. */
  z.object({ kind: z.literal("unknown"), until: moment.nullable() }),
]);
export type Wait = z.infer<typeof Wait>;

const limit = { of: z.int() };
const rate = { ...limit, perMs: z.number(), until: moment };

/** What holds a start in its queue; null where there is room, and a worker is about to take it. */
const Limit = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("concurrency"), ...limit }),
  z.object({ kind: z.literal("keyConcurrency"), ...limit }),
  /** `until` is when the next one may start. */
  z.object({ kind: z.literal("rate"), ...rate }),
  z.object({ kind: z.literal("keyRate"), ...rate }),
]);

const base = {
  executionId: ExecutionId,
  flow: z.string(),
  /** All that follows, in one sentence. */
  sentence: z.string(),
  status: z.enum(["created", "running", "waiting", "parked", "completed", "failed", "cancelled"]),
  lifecycle: z.enum(["open", "sealed", "closed"]),
  sealedAt: moment.nullable(),
  /** Its end was asked for, and has not come yet. */
  cancelling: z.object({ since: moment, reason: z.string(), actor: z.string().nullable() }).nullable(),
  /** An operator paused its flow, and nothing of that is claimed; "refuse" takes no starts either. Of what has closed null. */
  flowPaused: z
    .object({ since: moment, intake: z.enum(["hold", "refuse"]), actor: z.string(), reason: z.string() })
    .nullable(),
  /** Workers that are alive and serve its flow. */
  workers: z.int(),
  /** The worker that advances it now. */
  owner: z
    .object({
      workerId: WorkerId,
      /** null when the worker is gone. */
      host: z.string().nullable(),
      pid: z.int().nullable(),
      /** When it took it; null where that is not in the ledger's last events. */
      since: moment.nullable(),
      /** Its last sign of life, where that is more than 15 seconds ago. */
      silentSince: moment.nullable(),
    })
    .nullable(),
};

/** Why an execution is where it is, as one sentence and as data. */
export const Explanation = z.discriminatedUnion("kind", [
  /** It has ended. */
  z.object({
    ...base,
    kind: z.literal("closed"),
    since: moment,
    outcome: Outcome,
    reason: z.string(),
    error: ErrorInBrief.nullable(),
    /** What it goes on as, by `redrive()`; the oldest first. */
    redrivenAs: z.array(ExecutionId),
  }),
  /** Made, and not started. `until` is when it closes by itself. */
  z.object({ ...base, kind: z.literal("created"), since: moment, until: moment.nullable() }),
  /** Its start is not before `until`. */
  z.object({ ...base, kind: z.literal("delayed"), until: moment, discardAt: moment.nullable() }),
  /** No worker's version of the flow has what it stands at. */
  z.object({
    ...base,
    kind: z.literal("blocked"),
    since: moment,
    /** What is missing. */
    problem: z.string(),
    /** Fingerprints of the version it ran under, and of the one that came. */
    recorded: z.string().nullable(),
    found: z.string(),
  }),
  /** It is due, and no worker that is alive serves its flow. */
  z.object({ ...base, kind: z.literal("unserved"), since: moment, discardAt: moment.nullable() }),
  /** It is due, and waits for a slot of its flow. */
  z.object({
    ...base,
    kind: z.literal("queued"),
    since: moment,
    /** 1 is the first; null is behind more than 1000. */
    place: z.int().nullable(),
    key: z.string().nullable(),
    limit: Limit.nullable(),
  }),
  /** It is due: a worker takes it next. */
  z.object({
    ...base,
    kind: z.literal("due"),
    since: moment,
    /** Workers that it lost since it last got on. */
    lostWorkers: z.int(),
  }),
  /** An operator paused it; `until` is when it goes on by itself. */
  z.object({
    ...base,
    kind: z.literal("paused"),
    since: moment,
    until: moment.nullable(),
    actor: z.string(),
    reason: z.string(),
  }),
  /** It is due, and its flow is paused: see `flowPaused`. */
  z.object({ ...base, kind: z.literal("flowPaused"), since: moment, discardAt: moment.nullable() }),
  /** Its worker gives no sign of life. */
  z.object({ ...base, kind: z.literal("lost") }),
  /** A worker has it, and something of it runs. */
  z.object({
    ...base,
    kind: z.literal("running"),
    chunks: z.array(z.object({ chunk: z.string(), attempt: z.int() })),
  }),
  /** All that is not done waits for something: operators first, then answers, times and others. */
  z.object({ ...base, kind: z.literal("waiting"), waits: z.array(Wait) }),
  /** Nothing is left to do. `until` is when it closes by itself; null is when somebody closes it. */
  z.object({ ...base, kind: z.literal("idle"), until: moment.nullable() }),
  /** The same, and it takes nothing new. */
  z.object({ ...base, kind: z.literal("sealed"), until: moment.nullable() }),
]);
export type Explanation = z.infer<typeof Explanation>;
