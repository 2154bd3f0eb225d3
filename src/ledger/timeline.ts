/** What an execution did, as `flowledger.timeline` gives it: a row for each run of a chunk, step, pause, sleep and child. */
import { z } from "zod";
import { ExecutionId } from "./event.ts";
import { ErrorInBrief } from "./explanation.ts";

const moment = z.iso.datetime().transform((text) => new Date(text));

const times = {
  /** `cursor` of the row: the next page begins after it. */
  cursor: z.string(),
  /** Of which planned run of a chunk, or of a node. */
  dispatch: z.int(),
  /** When it was due. */
  queuedAt: moment.nullable(),
  /** When it began; null is not yet, or not in the ledger, which does not tell when a step begins. */
  startedAt: moment.nullable(),
  endedAt: moment.nullable(),
};

/** "open" is not over; "dropped" was not over when the execution closed. */
const status = <const T extends readonly string[]>(...own: T) => z.enum(["open", "dropped", ...own]);

const Attempt = z.object({
  /** null of one that completed at once, and of one that was cut off. */
  attempt: z.int().nullable(),
  status: z.enum(["completed", "failed", "parked", "paused", "interrupted"]),
  queuedAt: moment.nullable(),
  startedAt: moment.nullable(),
  endedAt: moment,
  error: ErrorInBrief.nullable(),
});

/** A run of a chunk, a step, a pause, a sleep, a child or items, with its times. */
export const TimelineRow = z.discriminatedUnion("kind", [
  z.object({
    ...times,
    kind: z.literal("chunk"),
    chunk: z.string(),
    /** "parked" waits for an operator; "skipped" got its output from one. */
    status: status("completed", "failed", "paused", "parked", "skipped"),
    attempts: z.array(Attempt),
  }),
  z.object({
    ...times,
    kind: z.literal("step"),
    step: z.string(),
    chunk: z.string(),
    status: status("completed", "failed"),
    attempts: z.array(Attempt),
  }),
  z.object({
    ...times,
    kind: z.literal("sleep"),
    chunk: z.string(),
    status: status("completed"),
    until: moment,
  }),
  /** A pause, until its answer. */
  z.object({
    ...times,
    kind: z.literal("wait"),
    interruptId: z.string(),
    type: z.string(),
    chunk: z.string(),
    status: z.enum(["pending", "resumed", "expired", "cancelled", "withdrawn"]),
    /** When it expires; null is never. */
    until: moment.nullable(),
    /** Who answered. */
    actor: z.string().nullable(),
    title: z.string().nullable().default(null),
    /** Whom it asked last; null is nobody in particular. */
    assignees: z.array(z.string()).nullable().default(null),
    dueAt: moment.nullable().default(null),
    /** Who had taken it on. */
    claimedBy: z.string().nullable().default(null),
  }),
  /** An execution that it called. */
  z.object({
    ...times,
    kind: z.literal("child"),
    executionId: ExecutionId,
    flow: z.string(),
    status: status("completed", "failed", "cancelled"),
    error: ErrorInBrief.nullable(),
  }),
  /** Items on all workers, each an execution of its own. */
  z.object({ ...times, kind: z.literal("items"), size: z.int(), status: status("completed") }),
]);
export type TimelineRow = z.infer<typeof TimelineRow>;
