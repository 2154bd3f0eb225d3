/** What an execution is and what happened to it. */
import { sql } from "drizzle-orm";
import {
  bigint,
  boolean,
  index,
  integer,
  jsonb,
  primaryKey,
  smallint,
  text,
  uniqueIndex,
  uuid,
  type PgSchema,
} from "drizzle-orm/pg-core";
import { moment, bytea } from "./columns.ts";

export function historyTables(schema: PgSchema) {
  /**
   * Header of each execution, derived from its ledger; the lease (owner, token, epoch, commit_no) is here too, because
   * the row's lock is the fence. Columns that every commit changes stand side by side and out of every index, so those
   * updates stay heap-only and small in the WAL.
   */
  const executions = schema.table(
    "executions",
    {
      /** uuid v7: sorts by creation. */
      id: uuid("id").primaryKey(),
      /** Position of the last ledger event. */
      seq: integer("seq").notNull(),
      /** Fencing number, one higher at each claim. */
      epoch: integer("epoch").notNull().default(0),
      /** The owner's last commit within the epoch. */
      commitNo: integer("commit_no").notNull().default(0),
      /** Owners lost since the last progress. */
      takeovers: smallint("takeovers").notNull().default(0),
      /** First seq of the owner's last commit. */
      commitSeq: integer("commit_seq").notNull().default(0),
      streamSeq: bigint("stream_seq", { mode: "number" }).notNull().default(0),
      streamEnded: boolean("stream_ended").notNull().default(false),
      /** The owner's last load of stream items within the epoch: one that is sent again is in once. */
      streamNo: integer("stream_no").notNull().default(0),
      pendingInterrupts: integer("pending_interrupts").notNull().default(0),
      /** Chunks that failed for the last time and wait for an operator. */
      parked: integer("parked").notNull().default(0),
      /** The worker that advances the execution now. */
      owner: uuid("owner"),
      /** Random per claim; with the epoch it fences, also after a restore that gave an epoch out twice. */
      leaseToken: uuid("lease_token"),
      /** When a worker has something to do here; null when only something from outside can go on. */
      wakeAt: moment("wake_at"),
      /** When a job comes for it at the earliest: a far timer needs no second one. */
      jobAt: moment("job_at"),
      /** Its start is not before. */
      dueAt: moment("due_at"),
      /** Discarded when no worker has taken it by then; null once that is settled. */
      discardAt: moment("discard_at"),
      createdAt: moment("created_at").notNull(),
      startedAt: moment("started_at"),
      sealedAt: moment("sealed_at"),
      closedAt: moment("closed_at"),
      priority: smallint("priority").notNull().default(0),
      flow: text("flow").notNull(),
      fingerprint: text("fingerprint"),
      /** How it ended: completed, failed, cancelled. */
      outcome: text("outcome"),
      closeReason: text("close_reason"),
      idempotencyKey: text("idempotency_key"),
      parentId: uuid("parent_id"),
      /** What the limits per key count it by. */
      limitKey: text("limit_key"),
      metadata: jsonb("metadata"),
      error: jsonb("error"),
      closeSnapshot: jsonb("close_snapshot"),
      lifecycle: text("lifecycle")
        .notNull()
        .generatedAlwaysAs(sql.raw(`${schema.schemaName}.lifecycle_of(sealed_at, closed_at)`)),
      status: text("status")
        .notNull()
        .generatedAlwaysAs(sql.raw(`${schema.schemaName}.status_of(outcome, started_at, pending_interrupts, parked)`)),
      /** How the fingerprint of what has closed begins. Were that itself in an index, no first commit of an owner could be a HOT update. */
      closedVersion: text("closed_version").generatedAlwaysAs(
        sql.raw("case when closed_at is not null then left(fingerprint, 4) end"),
      ),
    },
    (table) => [
      index("executions_due")
        .on(table.wakeAt)
        .where(sql`wake_at is not null`),
      index("executions_discard")
        .on(table.discardAt)
        .where(sql`discard_at is not null`),
      index("executions_flow_status").on(table.flow, table.status, table.id),
      index("executions_created").on(table.createdAt, table.id),
      index("executions_closed")
        .on(table.closedAt, table.id)
        .where(sql`closed_at is not null`),
      index("executions_ended")
        .on(table.flow, table.status, table.closedAt, table.id)
        .where(sql`closed_at is not null`),
      uniqueIndex("executions_idempotency")
        .on(table.flow, table.idempotencyKey)
        .where(sql`idempotency_key is not null`),
      index("executions_parent")
        .on(table.parentId)
        .where(sql`parent_id is not null`),
      index("executions_waiting_children")
        .on(table.parentId)
        .where(sql`pending_interrupts > 0`),
      index("executions_parked")
        .on(table.id)
        .where(sql`parked > 0`),
      index("executions_metadata")
        .using("gin", table.metadata.op("jsonb_path_ops"))
        .where(sql`metadata is not null`),
      index("executions_version")
        .on(table.closedVersion)
        .where(sql`closed_version is not null`),
      index("executions_errors")
        .using("gin", sql`${sql.raw(schema.schemaName)}.error_pieces(error)`)
        .where(sql`error is not null`),
    ],
  );

  /** Everything that happened to an execution, in order. Append-only: triggers refuse update, delete and truncate. */
  const ledger = schema.table(
    "ledger",
    {
      executionId: uuid("execution_id").notNull(),
      seq: integer("seq").notNull(),
      epoch: integer("epoch").notNull(),
      at: moment("at").notNull(),
      dispatch: integer("dispatch"),
      type: text("type").notNull(),
      chunk: text("chunk"),
      actor: text("actor"),
      payload: jsonb("payload"),
      /** The database role that wrote it, as `caller()` says; null in what an owner wrote after its claim, which has one. */
      role: text("role"),
      /** When it was copied here from another execution; `at` is its own time. */
      copiedAt: moment("copied_at"),
    },
    (table) => [
      primaryKey({ columns: [table.executionId, table.seq] }),
      // An interrupt or an intervention is derived from the events that name it, without reading the rest of a ledger. The other types have no
      // id and are asked for by type.
      index("ledger_people")
        .on(table.executionId, sql`(payload ->> 'id')`, table.seq)
        .where(
          sql`type in ('interrupt.raised', 'interrupt.resumed', 'interrupt.expired', 'interrupt.cancelled', 'intervention.recorded', 'intervention.inserted', 'intervention.consumed', 'intervention.expired', 'execution.copied', 'execution.sealed', 'cancel.requested', 'stream.stopped')`,
        ),
      // Finds a used key without reading all events. A key may be longer than an index entry, so its beginning is indexed.
      index("ledger_event_keys")
        .on(table.executionId, sql`"left"(payload ->> 'idempotencyKey', 200)`)
        .where(sql`type = 'event.emitted' and payload ? 'idempotencyKey'`),
      // Finds what people did with an interrupt, except answering it.
      index("ledger_handling")
        .on(table.executionId, sql`(payload ->> 'id')`, table.seq)
        .where(
          sql`type in ('interrupt.claimed', 'interrupt.released', 'interrupt.delegated', 'interrupt.snoozed', 'interrupt.reminded', 'interrupt.escalated', 'interrupt.linked')`,
        ),
      // Finds a token by its hash; copies have no tokens.
      index("ledger_links")
        .on(sql`(payload ->> 'hash')`)
        .where(sql`type = 'interrupt.linked' and copied_at is null`),
      // Finds an answer that is sent again.
      index("ledger_request_ids")
        .on(table.executionId, sql`"left"(payload ->> 'requestId', 200)`)
        .where(sql`type = 'interrupt.resumed' and payload ? 'requestId'`),
      // Finds the copies of an execution, by a copy's first event.
      index("ledger_copies")
        .on(sql`(payload -> 'forkedFrom' ->> 'id')`)
        .where(sql`seq = 1 and type = 'execution.created' and payload ? 'forkedFrom'`),
    ],
  );

  /**
   * Hash chain of each ledger: a link per close, kept snapshot and act of a person. Append-only like the ledger, so that a row
   * that was rewritten all the same shows in `verify`.
   */
  const chain = schema.table(
    "chain",
    {
      executionId: uuid("execution_id").notNull(),
      /** The last event it covers; the first is the one after the link before. */
      seq: integer("seq").notNull(),
      /** SHA-256 over the hash before it and the hashes of its rows. */
      hash: bytea("hash").notNull(),
      /** The first 4 bytes of the hash of each row, one after the other. */
      marks: bytea("marks").notNull(),
    },
    (table) => [primaryKey({ columns: [table.executionId, table.seq] })],
  );

  /**
   * What the chains said at a moment: per anchor a row for each execution whose chain had grown since the one before, and one of
   * its own under the nil uuid, whose hash covers these and the anchor before.
   */
  const anchors = schema.table(
    "anchors",
    {
      number: integer("number").notNull(),
      executionId: uuid("execution_id").notNull(),
      /** Of the chain's last link; of an anchor itself, how many rows it has beside its own. */
      seq: integer("seq").notNull(),
      hash: bytea("hash").notNull(),
      /** Only of an anchor itself, as `by`. */
      at: moment("at"),
      by: text("by"),
    },
    (table) => [
      primaryKey({ columns: [table.number, table.executionId] }),
      index("anchors_execution").on(table.executionId, table.seq),
    ],
  );

  /** Folded state at a seq, so that loading a long execution does not read all of its ledger. A cache: rebuilt at will. */
  const snapshots = schema.table("snapshots", {
    executionId: uuid("execution_id").primaryKey(),
    seq: integer("seq").notNull(),
    version: integer("version").notNull(),
    state: jsonb("state").notNull(),
  });

  /** The runtime stream. `seq` is given under the execution's row lock, so a cursor never skips an item. */
  const streamItems = schema.table(
    "stream_items",
    {
      executionId: uuid("execution_id").notNull(),
      seq: bigint("seq", { mode: "number" }).notNull(),
      epoch: integer("epoch").notNull(),
      at: moment("at").notNull(),
      /** Null for items of users; "interrupt", "intervention" or "retry" for those of the engine; "subFlow" for what a sub-flow put. */
      kind: text("kind"),
      /** Whose item it is: what an attempt put is told from what the next one puts. */
      dispatch: integer("dispatch"),
      item: jsonb("item"),
    },
    (table) => [primaryKey({ columns: [table.executionId, table.seq] })],
  );

  /** Values that all executions of a flow share, with a version. */
  const flowData = schema.table(
    "flow_data",
    {
      flow: text("flow").notNull(),
      key: text("key").notNull(),
      value: jsonb("value"),
      version: integer("version").notNull().default(1),
      updatedAt: moment("updated_at").notNull().defaultNow(),
    },
    (table) => [primaryKey({ columns: [table.flow, table.key] })],
  );

  /** Blueprint of each definition that ever ran here. */
  const definitions = schema.table(
    "definitions",
    {
      flow: text("flow").notNull(),
      fingerprint: text("fingerprint").notNull(),
      blueprint: jsonb("blueprint").notNull(),
      createdAt: moment("created_at").notNull().defaultNow(),
    },
    (table) => [primaryKey({ columns: [table.flow, table.fingerprint] })],
  );

  return { executions, ledger, chain, anchors, snapshots, streamItems, flowData, definitions };
}
