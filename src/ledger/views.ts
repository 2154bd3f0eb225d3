/** What readers are told of an execution: views of its folded state, and the records that the database gives. */
import { z } from "zod";
import { ExecutionCancelledError, ExecutionFailedError, type SerializedError } from "../base/errors.ts";
import type { Intervention as PublicIntervention, InterventionFilters } from "../flow/context.ts";
import type { ExecutionState } from "./state.ts";
import { repeatWrites, type Intervention } from "./parts.ts";
import { ExecutionId } from "./event.ts";
import type { Outcome } from "./event.ts";
import { copyJson, type Json, type JsonObject } from "../base/json.ts";
import { JsonValue } from "../base/json-value.ts";

export const finalResultKey = "$final_result";
export const interventionsKey = "$interventions";

/** The state at close: application keys at the top level, `$final_result` and `$interventions` only where used. */
export function closeSnapshot(state: ExecutionState): JsonObject {
  const snapshot: JsonObject = {};
  // The parent's state, which an item reads, is not part of the item's snapshot.
  const values = state.writes ? repeatWrites({}, state.writes) : state.values;
  for (const key in values) snapshot[key] = copyJson(values[key] ?? null);
  const explicit = state.result ?? state.finalResult;
  // An item's result is what it gives to its parent, even if its state has a key of that name.
  if (explicit && (state.item || !Object.hasOwn(snapshot, finalResultKey))) snapshot[finalResultKey] = explicit.value;
  if (state.interventions.length > 0)
    snapshot[interventionsKey] = Object.fromEntries(
      state.interventions.map((record) => [record.id, interventionJson(record)]),
    );
  return snapshot;
}

/** `$final_result` wins, also when it is null; then what `setResult` or `end()` wrote; undefined when there is neither. */
export function explicitResult(state: ExecutionState): Json | undefined {
  if (Object.hasOwn(state.values, finalResultKey)) return state.values[finalResultKey];
  return (state.result ?? state.finalResult)?.value;
}

/** An intervention as the close snapshot keeps it: times as ISO text. */
export function interventionJson(record: Intervention): JsonObject {
  const { createdAt, insertedAt, rejectedAt, expiredAt, consumers, ...rest } = record;
  return {
    ...rest,
    createdAt: iso(createdAt),
    insertedAt: iso(insertedAt),
    rejectedAt: iso(rejectedAt),
    expiredAt: iso(expiredAt),
    consumers: Object.fromEntries(
      Object.entries(consumers).map(([name, consumer]) => [
        name,
        { ...consumer, consumedAt: iso(consumer.consumedAt) },
      ]),
    ),
  };
}

/** Why an execution that did not complete has no result. */
export function endingError(
  id: ExecutionId,
  { flow, outcome, reason, error }: { flow: string; outcome: Outcome; reason: string; error: SerializedError | null },
): Error {
  return outcome === "failed" && error
    ? new ExecutionFailedError(id, flow, error)
    : new ExecutionCancelledError(id, reason);
}

function iso(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}

/** Do all filters hold? */
export function matchesIntervention(
  record: Intervention,
  { status, target, sinceVersion, consumedBy }: InterventionFilters,
): boolean {
  if (status !== undefined && record.status !== status) return false;
  if (target !== undefined && record.target !== target) return false;
  if (sinceVersion !== undefined && record.version <= sinceVersion) return false;
  return consumedBy === undefined || Object.hasOwn(record.consumers, consumedBy);
}

/** An intervention with its times as dates. */
export function publicIntervention(record: Intervention): PublicIntervention {
  return {
    ...record,
    createdAt: new Date(record.createdAt),
    insertedAt: record.insertedAt === null ? null : new Date(record.insertedAt),
    rejectedAt: record.rejectedAt === null ? null : new Date(record.rejectedAt),
    expiredAt: record.expiredAt === null ? null : new Date(record.expiredAt),
    consumers: Object.fromEntries(
      Object.entries(record.consumers).map(([name, consumer]) => [
        name,
        { ...consumer, consumedAt: new Date(consumer.consumedAt) },
      ]),
    ),
  };
}

const moment = z.iso.datetime().transform((text) => new Date(text));
const record = z.record(z.string(), JsonValue);

/** An execution as `flowledger.meta` gives it: the one rule of status and lifecycle, which needs the ledgers of sub-flows too. */
export const Meta = z.object({
  executionId: ExecutionId,
  runId: ExecutionId,
  flowName: z.string(),
  status: z.enum(["created", "running", "waiting", "parked", "completed", "failed", "cancelled"]),
  lifecycleState: z.enum(["open", "sealed", "closed"]),
  createdAt: moment,
  startedAt: moment.nullable(),
  /** What `ctx.startInput` gives; null before the start. */
  startInput: JsonValue,
  sealedAt: moment.nullable(),
  closedAt: moment.nullable(),
  closeReason: z.string().nullable(),
  /** Rises with every ledger event. */
  stateVersion: z.int(),
  fingerprint: z.string().nullable(),
  /** Why no worker that came by could go on with it: its version of the flow lacks what the execution stands at. */
  blocked: z.string().nullable(),
  /** Since when an operator has it paused, and until when at most. */
  paused: z.object({ at: moment, until: moment.nullable(), actor: z.string(), reason: z.string() }).nullable(),
  parentId: ExecutionId.nullable(),
  metadata: record,
  resourceKeys: z.array(z.string()),
  /** The execution whose save this one was loaded from; it may be in another database. */
  loadedFrom: z.string().nullable(),
  /** The execution that this one was forked from. */
  forkedFrom: ExecutionId.nullable(),
  /** The parent of all its spans, as W3C Trace Context writes it; null where it is not traced. */
  trace: z.string().nullable(),
  /** Pauses that nobody answered in time, by their ids, the latest last; not there where all were. */
  expiredInterrupts: z.array(z.string()).optional(),
  /** Answers that are kept for questions that nobody has asked yet, by their ids; not there where there are none. */
  earlyAnswers: z.array(z.string()).optional(),
});
/** `Input` is what the flow's contract makes of a start input. */
export type Meta<Input = Json> = Omit<z.infer<typeof Meta>, "startInput"> & { readonly startInput: Input | null };

/** An intervention as the database's record gives it. */
export const InterventionRecord = z.object({
  id: z.string(),
  version: z.int(),
  status: z.enum(["pending", "inserted", "rejected", "expired"]),
  payload: JsonValue,
  target: z.string().nullable(),
  author: z.string().nullable(),
  note: z.string().nullable(),
  metadata: record,
  createdAt: moment,
  insertedAt: moment.nullable(),
  insertion: record.nullable(),
  rejectedAt: moment.nullable(),
  rejectReason: z.string().nullable(),
  expiredAt: moment.nullable(),
  consumers: z.record(
    z.string(),
    z.object({
      status: z.enum(["applied", "ignored"]),
      note: z.string().nullable(),
      metadata: record,
      consumedAt: moment,
    }),
  ),
});
