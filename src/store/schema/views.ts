/** The audit views: what an auditor may read without our code. None of them is made from here. */
import { boolean, integer, interval, jsonb, text, uuid, type PgSchema } from "drizzle-orm/pg-core";
import { moment } from "./columns.ts";

export function auditViews(schema: PgSchema) {
  /** One row per execution, from the ledger alone. What an auditor may read: views and functions, no table. */
  const auditExecutions = schema
    .view("audit_executions", {
      executionId: uuid("execution_id").notNull(),
      flow: text("flow").notNull(),
      status: text("status").notNull(),
      lifecycle: text("lifecycle").notNull(),
      createdAt: moment("created_at").notNull(),
      startedAt: moment("started_at"),
      sealedAt: moment("sealed_at"),
      closedAt: moment("closed_at"),
      closeReason: text("close_reason"),
      error: jsonb("error"),
      fingerprint: text("fingerprint"),
      metadata: jsonb("metadata"),
      input: jsonb("input"),
      parentId: text("parent_id"),
      loadedFrom: text("loaded_from"),
      forkedFrom: text("forked_from"),
      forkedAtSeq: integer("forked_at_seq"),
      events: integer("events").notNull(),
      lastSeq: integer("last_seq").notNull(),
    })
    .existing();

  /** One row per flow, chunk and error that executions failed with; digits and ids of the error are collapsed to #. */
  const failures = schema
    .view("failures", {
      flow: text("flow").notNull(),
      chunk: text("chunk"),
      error: text("error").notNull(),
      executions: integer("executions").notNull(),
      firstAt: moment("first_at").notNull(),
      lastAt: moment("last_at").notNull(),
      lastId: uuid("last_id").notNull(),
      lastMessage: text("last_message"),
    })
    .existing();

  /** One row per event, without the routing. */
  const auditLedger = schema
    .view("audit_ledger", {
      executionId: uuid("execution_id").notNull(),
      seq: integer("seq").notNull(),
      at: moment("at").notNull(),
      type: text("type").notNull(),
      chunk: text("chunk"),
      actor: text("actor"),
      payload: jsonb("payload"),
      dispatch: integer("dispatch"),
      epoch: integer("epoch").notNull(),
      flow: text("flow"),
      /** The database role that wrote it. */
      role: text("role"),
      /** Of an event that a fork or a load brought along: when. */
      copiedAt: moment("copied_at"),
    })
    .existing();

  /** One row per pause. */
  const auditInterrupts = schema
    .view("audit_interrupts", {
      executionId: uuid("execution_id").notNull(),
      id: text("id").notNull(),
      flow: text("flow").notNull(),
      chunk: text("chunk").notNull(),
      type: text("type").notNull(),
      status: text("status").notNull(),
      payload: jsonb("payload"),
      response: jsonb("response"),
      resumeTo: jsonb("resume_to").notNull(),
      resumeCount: integer("resume_count").notNull(),
      maxResumes: integer("max_resumes"),
      raisedSeq: integer("raised_seq").notNull(),
      raisedAt: moment("raised_at").notNull(),
      expiresAt: moment("expires_at"),
      resolvedSeq: integer("resolved_seq"),
      resolvedAt: moment("resolved_at"),
      waited: interval("waited").notNull(),
      value: jsonb("value"),
      actor: text("actor"),
      requestId: text("request_id"),
      byEvent: text("by_event"),
      title: text("title"),
      assignees: text("assignees").array(),
      dueAt: moment("due_at"),
      claimedBy: text("claimed_by"),
      claimedAt: moment("claimed_at"),
      isExclusive: boolean("is_exclusive"),
      snoozedUntil: moment("snoozed_until"),
    })
    .existing();

  /** One row per correction. */
  const auditInterventions = schema
    .view("audit_interventions", {
      executionId: uuid("execution_id").notNull(),
      version: integer("version").notNull(),
      id: text("id").notNull(),
      flow: text("flow"),
      status: text("status").notNull(),
      payload: jsonb("payload"),
      target: text("target"),
      author: text("author"),
      note: text("note"),
      metadata: jsonb("metadata"),
      recordedAt: moment("recorded_at").notNull(),
      insertedAt: moment("inserted_at"),
      insertion: jsonb("insertion"),
      expiredAt: moment("expired_at"),
      consumers: jsonb("consumers"),
      record: jsonb("record").notNull(),
    })
    .existing();

  /** One row per write to an application's state. */
  const auditStateChanges = schema
    .view("audit_state_changes", {
      executionId: uuid("execution_id").notNull(),
      seq: integer("seq").notNull(),
      at: moment("at").notNull(),
      chunk: text("chunk"),
      dispatch: integer("dispatch"),
      change: text("change").notNull(),
      key: text("key").notNull(),
      value: jsonb("value"),
    })
    .existing();

  return { auditExecutions, failures, auditLedger, auditInterrupts, auditInterventions, auditStateChanges };
}
