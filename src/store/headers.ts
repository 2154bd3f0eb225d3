/** The header of an execution, as readers get it. */
import { z } from "zod";
import { JsonValue } from "../base/json-value.ts";
import { SerializedError } from "../base/serialized-error.ts";
import { ExecutionId, Outcome, WorkerId } from "../ledger/event.ts";
import type { Sql } from "./client.ts";

export const Header = z.object({
  id: ExecutionId,
  seq: z.int(),
  flow: z.string(),
  fingerprint: z.string().nullable(),
  status: z.enum(["created", "running", "waiting", "parked", "completed", "failed", "cancelled"]),
  lifecycle: z.enum(["open", "sealed", "closed"]),
  owner: WorkerId.nullable(),
  outcome: Outcome.nullable(),
  closeReason: z.string().nullable(),
  pendingInterrupts: z.int(),
  parked: z.int(),
  parentId: ExecutionId.nullable(),
  metadata: z.record(z.string(), JsonValue).nullable(),
  error: SerializedError.nullable(),
  closeSnapshot: z.record(z.string(), JsonValue).nullable(),
  createdAt: z.number(),
  startedAt: z.number().nullable(),
  sealedAt: z.number().nullable(),
  closedAt: z.number().nullable(),
});
export type Header = z.infer<typeof Header>;

/** Of `flowledger.executions e`. */
export function headerColumns(sql: Sql) {
  return sql`e.id, e.seq, e.flow, e.fingerprint, e.status, e.lifecycle, e.owner, e.outcome, e.close_reason as "closeReason",
    e.pending_interrupts as "pendingInterrupts", e.parked, e.parent_id as "parentId", e.metadata, e.error, e.close_snapshot as "closeSnapshot",
    flowledger.to_ms(e.created_at) as "createdAt", flowledger.to_ms(e.started_at) as "startedAt",
    flowledger.to_ms(e.sealed_at) as "sealedAt", flowledger.to_ms(e.closed_at) as "closedAt"`;
}
