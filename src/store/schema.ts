/**
 * The tables, one doc comment each: drizzle-kit turns them into migrations, and `flowledger/schema` gives them to users for
 * typed queries. The ledger is the truth; whatever is derived from it says so.
 */
import { sql } from "drizzle-orm";
import {
  bigint,
  boolean,
  customType,
  doublePrecision,
  index,
  integer,
  interval,
  jsonb,
  pgSchema,
  primaryKey,
  smallint,
  text,
  timestamp,
  uniqueIndex,
  uuid,
} from "drizzle-orm/pg-core";

const moment = (name: string) => timestamp(name, { withTimezone: true });
const bytea = customType<{ data: Buffer }>({ dataType: () => "bytea" });
const xid8 = customType<{ data: string }>({ dataType: () => "xid8" });

/** The tables and audit views of the schema that flowledger was migrated into. @param name the option `schema` @default "flowledger" */
export function tables(name = "flowledger") {
  const schema = pgSchema(name);

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
        .generatedAlwaysAs(sql.raw(`${name}.lifecycle_of(sealed_at, closed_at)`)),
      status: text("status")
        .notNull()
        .generatedAlwaysAs(sql.raw(`${name}.status_of(outcome, started_at, pending_interrupts, parked)`)),
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
      // An interrupt or an intervention is derived from what names it, without reading the rest of a ledger. The other types have no
      // id: whether there was one of them is asked too.
      index("ledger_people")
        .on(table.executionId, sql`(payload ->> 'id')`, table.seq)
        .where(
          sql`type in ('interrupt.raised', 'interrupt.resumed', 'interrupt.expired', 'interrupt.cancelled', 'intervention.recorded', 'intervention.inserted', 'intervention.consumed', 'intervention.expired', 'execution.copied', 'execution.sealed', 'cancel.requested', 'stream.stopped')`,
        ),
      // A key that was used is found without reading all events; however long it is, an index takes its beginning.
      index("ledger_event_keys")
        .on(table.executionId, sql`"left"(payload ->> 'idempotencyKey', 200)`)
        .where(sql`type = 'event.emitted' and payload ? 'idempotencyKey'`),
      // What people did with an interrupt, beside answering it.
      index("ledger_handling")
        .on(table.executionId, sql`(payload ->> 'id')`, table.seq)
        .where(
          sql`type in ('interrupt.claimed', 'interrupt.released', 'interrupt.delegated', 'interrupt.snoozed', 'interrupt.reminded', 'interrupt.escalated', 'interrupt.linked')`,
        ),
      // A token is found by its hash; copies have none.
      index("ledger_links")
        .on(sql`(payload ->> 'hash')`)
        .where(sql`type = 'interrupt.linked' and copied_at is null`),
      // So is an answer that is repeated.
      index("ledger_request_ids")
        .on(table.executionId, sql`"left"(payload ->> 'requestId', 200)`)
        .where(sql`type = 'interrupt.resumed' and payload ? 'requestId'`),
      // So are the copies of an execution: only a copy's first event is in it.
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

  /** Where this database was last confirmed as the original, the last one now: a copy of it elsewhere has the same rows. */
  const databaseIdentity = schema.table("database_identity", {
    at: moment("at").primaryKey(),
    by: text("by").notNull(),
    /** Of the cluster, as `pg_control_system()` says it. */
    system: text("system").notNull(),
    databaseOid: bigint("database_oid", { mode: "number" }).notNull(),
  });

  /** What retention removed, one row per statement. */
  const prunes = schema.table(
    "prunes",
    {
      at: moment("at").notNull(),
      by: text("by").notNull(),
      /** In this transaction the ledger between the two ids may be deleted. */
      transaction: xid8("transaction").notNull(),
      closedBefore: moment("closed_before").notNull(),
      keep: jsonb("keep").notNull(),
      /** Who asked for it, and why, where executions were named. */
      actor: text("actor"),
      reason: text("reason"),
      /** The lowest and the highest id of the executions that went. */
      first: uuid("first").notNull(),
      last: uuid("last").notNull(),
      executions: integer("executions").notNull(),
      events: integer("events").notNull(),
    },
    (table) => [primaryKey({ columns: [table.at, table.first] })],
  );

  /** Folded state at a seq, so that loading a long execution does not read all of its ledger. A cache: rebuilt at will. */
  const snapshots = schema.table("snapshots", {
    executionId: uuid("execution_id").primaryKey(),
    seq: integer("seq").notNull(),
    version: integer("version").notNull(),
    state: jsonb("state").notNull(),
  });

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

  /** Limits of the flows that have any, as the worker that came last declares them; rates are starts per milliseconds. */
  const limits = schema.table("limits", {
    flow: text("flow").primaryKey(),
    concurrency: integer("concurrency"),
    rate: integer("rate"),
    rateMs: doublePrecision("rate_ms"),
    keyConcurrency: integer("key_concurrency"),
    keyRate: integer("key_rate"),
    keyRateMs: doublePrecision("key_rate_ms"),
    /** What becomes of a start that finds no slot: keep, cancel. */
    action: text("action").notNull(),
    /** The moment for which a job waits, because a rate is used up. */
    nextStartAt: moment("next_start_at"),
  });

  /** Concurrency slots of limited flows: acquired, or queued because a job has come and found none free. */
  const slots = schema.table(
    "slots",
    {
      executionId: uuid("execution_id").primaryKey(),
      flow: text("flow").notNull(),
      key: text("key").notNull(),
      priority: smallint("priority").notNull(),
      /** Order within a priority; keys take turns. */
      queuePosition: bigint("queue_position", { mode: "number" }).notNull(),
      /** True while a worker owns the execution. */
      acquired: boolean("acquired").notNull(),
      /** It has never been claimed, so the rates count it. */
      notStarted: boolean("not_started").notNull(),
      /** When it last got a job, because there was capacity. */
      notifiedAt: moment("notified_at"),
    },
    (table) => [
      index("slots_queue")
        .on(table.flow, table.notStarted, table.priority, table.queuePosition, table.executionId)
        .where(sql`not acquired`),
      index("slots_key").on(table.flow, table.priority, table.key, table.queuePosition),
      index("slots_acquired")
        .on(table.flow, table.key)
        .where(sql`acquired`),
    ],
  );

  /** First claims of flows with a rate, as long as their time counts. */
  const limitedStarts = schema.table(
    "limited_starts",
    {
      executionId: uuid("execution_id").primaryKey(),
      flow: text("flow").notNull(),
      key: text("key").notNull(),
      at: moment("at").notNull(),
    },
    (table) => [
      index("limited_starts_flow").on(table.flow, table.at),
      index("limited_starts_key").on(table.flow, table.key, table.at),
    ],
  );

  /** When each schedule last fired, so that what was missed is known. */
  const schedules = schema.table("schedules", {
    name: text("name").primaryKey(),
    flow: text("flow").notNull(),
    cron: text("cron").notNull(),
    timeZone: text("time_zone").notNull(),
    /** Until when its times have been dealt with. */
    firedUntil: moment("fired_until").notNull(),
    /** The execution that was started last. */
    lastId: uuid("last_id"),
    /** Times that wait for that one to close. */
    waiting: moment("waiting").array().notNull().default([]),
    /** The first and the last of the times that were left out last. */
    leftOutFrom: moment("left_out_from"),
    leftOutUntil: moment("left_out_until"),
    /** Since when workers serve its flow and none of them has it. */
    removedAt: moment("removed_at"),
  });

  /** The worker processes: who serves which flows, and when they last gave a sign of life. */
  const workers = schema.table("workers", {
    id: uuid("id").primaryKey(),
    host: text("host").notNull(),
    pid: integer("pid").notNull(),
    flows: text("flows").array().notNull(),
    /** Its schedules by name: `{ flow, cron, timeZone, overlap }`, and what each time starts. */
    schedules: jsonb("schedules").notNull().default({}),
    /** The pool id that graphile-worker locks this worker's jobs with. */
    pool: text("pool"),
    /** The database role that it works as. */
    role: text("role").notNull(),
    /** The session that speaks for it, and the advisory lock that only that session holds: both gone when its process ends. */
    backendPid: integer("backend_pid").notNull(),
    sessionKey: bigint("session_key", { mode: "bigint" }).notNull(),
    startedAt: moment("started_at").notNull(),
    heartbeatAt: moment("heartbeat_at").notNull(),
  });

  /** The roles that `grant_roles` made: every migration grants them what is new. */
  const roleGrants = schema.table("role_grants", {
    role: text("role").primaryKey(),
    kind: text("kind").notNull(),
    at: moment("at").notNull(),
    by: text("by").notNull(),
  });

  /** To what `grant_client` limits roles: the last row of a role counts. */
  const clientGrants = schema.table("client_grants", {
    number: integer("number").primaryKey(),
    role: text("role").notNull(),
    /** Null: all. */
    flows: text("flows").array(),
    /** What the metadata of an execution have to contain. Null: anything. */
    filter: jsonb("filter"),
    at: moment("at").notNull(),
    by: text("by").notNull(),
    actor: text("actor"),
    reason: text("reason"),
  });

  /** Which flows were paused and unpaused, by whom and why: the last row of a flow counts. */
  const flowPauses = schema.table(
    "flow_pauses",
    {
      number: integer("number").primaryKey(),
      flow: text("flow").notNull(),
      /** "hold" or "refuse"; null: it goes on. */
      intake: text("intake"),
      at: moment("at").notNull(),
      by: text("by").notNull(),
      actor: text("actor").notNull(),
      reason: text("reason").notNull(),
    },
    (t) => [index("flow_pauses_flow").on(t.flow, t.number)],
  );

  /** What one bulk does to its targets; `execution_id` is the execution of `flowledger.bulk` that does it. */
  const bulks = schema.table("bulks", {
    executionId: uuid("execution_id").primaryKey(),
    action: text("action").notNull(),
    /** Of the command that each target gets, as that takes them; who and why stand beside it. */
    options: jsonb("options").notNull(),
    /** Which executions were asked for. */
    filter: jsonb("filter").notNull(),
    /** So many commands within `rate_ms` at most; null is no limit. */
    rate: integer("rate"),
    rateMs: doublePrecision("rate_ms"),
    matched: integer("matched").notNull(),
    at: moment("at").notNull(),
    by: text("by").notNull(),
    /** Whose rights count, as long as it runs. */
    role: text("role").notNull(),
    actor: text("actor").notNull(),
    reason: text("reason").notNull(),
  });

  /** The targets of a bulk, fixed when it was asked for. */
  const bulkTargets = schema.table(
    "bulk_targets",
    {
      executionId: uuid("execution_id").notNull(),
      number: integer("number").notNull(),
      targetId: uuid("target_id").notNull(),
    },
    (t) => [primaryKey({ columns: [t.executionId, t.number] })],
  );

  /** What became of the targets of a bulk, written with the command itself. */
  const bulkResults = schema.table(
    "bulk_results",
    {
      executionId: uuid("execution_id").notNull(),
      number: integer("number").notNull(),
      /** "done", "skipped" or "failed". */
      result: text("result").notNull(),
      at: moment("at").notNull(),
      /** What a redrive made. */
      madeId: uuid("made_id"),
      /** SQLSTATE, message and hint of what failed; why one was skipped. */
      code: text("code"),
      message: text("message"),
      hint: text("hint"),
    },
    (t) => [
      primaryKey({ columns: [t.executionId, t.number] }),
      index("bulk_results_at").on(t.executionId, t.at),
      index("bulk_results_failed")
        .on(t.executionId, t.number)
        .where(sql`result = 'failed'`),
    ],
  );

  /** What brought the database to its version: a row per numbered migration, and one for the functions as they are now. */
  const migrations = schema.table("migrations", {
    /** The file's name; "functions" for all function files together. */
    name: text("name").primaryKey(),
    /** SHA-256 of its text, with the names of the schemas left as they are in the file. */
    hash: text("hash").notNull(),
    /** The release of the library that ran it. */
    release: text("release").notNull(),
    /** Releases older than this do not work with it. */
    minRelease: text("min_release").notNull(),
    at: moment("at").notNull(),
    by: text("by").notNull(),
  });

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

  return {
    schema,
    executions,
    ledger,
    chain,
    anchors,
    databaseIdentity,
    prunes,
    snapshots,
    interrupts,
    assignments,
    interventions,
    streamItems,
    flowData,
    definitions,
    limits,
    slots,
    limitedStarts,
    schedules,
    workers,
    roleGrants,
    clientGrants,
    flowPauses,
    bulks,
    bulkTargets,
    bulkResults,
    migrations,
    auditExecutions,
    failures,
    auditLedger,
    auditInterrupts,
    auditInterventions,
    auditStateChanges,
  };
}

// drizzle-kit reads what a module exports.
export const {
  schema: flowledger,
  executions,
  ledger,
  chain,
  anchors,
  databaseIdentity,
  prunes,
  snapshots,
  interrupts,
  assignments,
  interventions,
  streamItems,
  flowData,
  definitions,
  limits,
  slots,
  limitedStarts,
  schedules,
  workers,
  roleGrants,
  clientGrants,
  flowPauses,
  bulks,
  bulkTargets,
  bulkResults,
  migrations,
} = tables();
