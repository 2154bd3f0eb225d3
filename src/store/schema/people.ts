/** What people are asked and say: derived from the ledger, for lists across executions. */
import { sql } from "drizzle-orm";
import { boolean, index, integer, jsonb, primaryKey, text, uuid, type PgSchema } from "drizzle-orm/pg-core";
import { moment } from "./columns.ts";

export function peopleTables(schema: PgSchema) {
  /** Current row of each interrupt, for lists across executions. Derived. */
  const interrupts = schema.table(
    "interrupts",
    {
      executionId: uuid("execution_id").notNull(),
      id: text("id").notNull(),
      flow: text("flow").notNull(),
      chunk: text("chunk").notNull(),
      type: text("type").notNull(),
      status: text("status").notNull(),
      payload: jsonb("payload"),
      resumeTo: jsonb("resume_to").notNull(),
      resumeCount: integer("resume_count").notNull(),
      maxResumes: integer("max_resumes"),
      createdAt: moment("created_at").notNull(),
      expiresAt: moment("expires_at"),
      resolvedAt: moment("resolved_at"),
      value: jsonb("value"),
      requestId: text("request_id"),
      /** What an answer must be, as JSON Schema. */
      response: jsonb("response"),
      actor: text("actor"),
      raisedSeq: integer("raised_seq").notNull(),
      resolvedSeq: integer("resolved_seq"),
      /** The event that answered it. */
      byEvent: text("by_event"),
      title: text("title"),
      /** Whom it asks, in the application's own words; null is nobody in particular. */
      assignees: text("assignees").array(),
      dueAt: moment("due_at"),
      claimedBy: text("claimed_by"),
      claimedAt: moment("claimed_at"),
      /** Nobody else may answer. */
      isExclusive: boolean("is_exclusive"),
      /** Out of the inbox until then. */
      snoozedUntil: moment("snoozed_until"),
    },
    (table) => [
      primaryKey({ columns: [table.executionId, table.id] }),
      index("interrupts_due")
        .on(table.dueAt, table.createdAt, table.executionId, table.id)
        .where(sql`status = 'pending' and due_at is not null`),
      index("interrupts_pending")
        .on(table.createdAt, table.executionId, table.id)
        .where(sql`status = 'pending'`),
      index("interrupts_pending_flow")
        .on(table.flow, table.createdAt)
        .where(sql`status = 'pending'`),
    ],
  );

  /** Whom a pending interrupt asks, a row each, in the order of the inbox: without a due date last. Derived. */
  const assignments = schema.table(
    "assignments",
    {
      principal: text("principal").notNull(),
      /** Infinity: never. */
      dueAt: moment("due_at").notNull(),
      createdAt: moment("created_at").notNull(),
      executionId: uuid("execution_id").notNull(),
      interruptId: text("interrupt_id").notNull(),
    },
    (table) => [
      primaryKey({ columns: [table.executionId, table.interruptId, table.principal] }),
      index("assignments_inbox").on(
        table.principal,
        table.dueAt,
        table.createdAt,
        table.executionId,
        table.interruptId,
      ),
    ],
  );

  /** Current row of each intervention, for lists across executions. Derived. */
  const interventions = schema.table(
    "interventions",
    {
      executionId: uuid("execution_id").notNull(),
      version: integer("version").notNull(),
      id: text("id").notNull(),
      status: text("status").notNull(),
      target: text("target"),
      author: text("author"),
      record: jsonb("record").notNull(),
      createdAt: moment("created_at").notNull(),
    },
    (table) => [
      primaryKey({ columns: [table.executionId, table.version] }),
      index("interventions_id").on(table.executionId, table.id),
    ],
  );

  return { interrupts, assignments, interventions };
}
