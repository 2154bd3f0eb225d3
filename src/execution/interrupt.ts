/** Interrupts as people and systems that answer them see them. */
import { z } from "zod";
import { ExecutionClosedError, InterruptNotPendingError, ResumeConflictError } from "../base/errors.ts";
import { ExecutionId, ResumeTo } from "../ledger/event.ts";
import { JsonValue } from "../base/json-value.ts";
import type { ExecutionHost } from "./host.ts";

const moment = z.iso.datetime().transform((text) => new Date(text));

/** One pause that waits, or waited, for an answer. */
export const InterruptRecord = z.object({
  id: z.string(),
  executionId: ExecutionId,
  flow: z.string(),
  chunk: z.string(),
  /** What kind of answer is asked for. */
  type: z.string(),
  /** "early": answered, and not asked yet; until then `chunk` and `type` are empty, and `createdAt` is the answer's time. */
  status: z.enum(["early", "pending", "resumed", "expired", "cancelled", "withdrawn"]),
  payload: JsonValue,
  resumeTo: ResumeTo,
  resumeCount: z.int(),
  maxResumes: z.int().nullable(),
  createdAt: moment,
  expiresAt: moment.nullable(),
  resolvedAt: moment.nullable(),
  /** The answer; null until there is one. */
  value: JsonValue,
  requestId: z.string().nullable(),
  /** Who answered, as they said. */
  actor: z.string().nullable(),
  /** What an answer must be, as JSON Schema; null is any JSON. */
  response: JsonValue,
  /** What people read in the inbox. */
  title: z.string().nullable().default(null),
  /** Whom it asks; null is nobody in particular. */
  assignees: z.array(z.string()).nullable().default(null),
  /** When it becomes overdue. */
  dueAt: moment.nullable().default(null),
  /** Who has taken it on, and since when. */
  claimedBy: z.string().nullable().default(null),
  claimedAt: moment.nullable().default(null),
  /** Nobody else may answer. */
  isExclusive: z.boolean().default(false),
  /** Out of the inbox until then. */
  snoozedUntil: moment.nullable().default(null),
  /** Where it waits in truth, when it is a sub-flow's and shows on this execution. */
  projectedFrom: z.object({ executionId: ExecutionId, interruptId: z.string() }).nullable(),
});
export type InterruptRecord = z.infer<typeof InterruptRecord>;

/** Those that wait for an answer, here and in sub-flows, oldest first. @throws {ExecutionNotFoundError} */
export async function listPendingInterrupts(
  { store, outcomes }: ExecutionHost,
  id: ExecutionId,
): Promise<InterruptRecord[]> {
  await outcomes.header(id);
  return (await store.reads.pendingInterrupts(id)).map((record) => InterruptRecord.parse(record));
}

/** An answer was refused because somebody else was first, or nobody asks any more. */
export function isTooLate(error: unknown): boolean {
  return (
    error instanceof InterruptNotPendingError ||
    error instanceof ResumeConflictError ||
    error instanceof ExecutionClosedError
  );
}
