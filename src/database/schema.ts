/** The tables, one doc comment each. The ledger is the truth; whatever is derived from it says so. */
import { sql } from "drizzle-orm";
import {
  bigint,
  boolean,
  customType,
  doublePrecision,
  index,
  integer,
  jsonb,
  pgSchema,
  primaryKey,
  smallint,
  text,
  timestamp,
  uniqueIndex,
  uuid,
} from "drizzle-orm/pg-core";

export const flowledger = pgSchema("flowledger");

const moment = (name: string) => timestamp(name, { withTimezone: true });
const bytea = customType<{ data: Buffer }>({ dataType: () => "bytea" });

/**
 * Header of each execution, derived from its ledger; the lease (owner, token, epoch, commit_no) is here too, because
 * the row's lock is the fence. Columns that every commit changes stand side by side and out of every index, so those
 * updates stay heap-only and small in the WAL.
 */
export const executions = flowledger.table(
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
    /** The worker that advances the execution now. */
    owner: uuid("owner"),
    /** Random per claim; with the epoch it fences, also after a restore that gave an epoch out twice. */
    token: uuid("token"),
    /** When a worker has something to do here; null when only something from outside can go on. */
    wakeAt: moment("wake_at"),
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
      .generatedAlwaysAs(
        sql`case when closed_at is not null then 'closed' when sealed_at is not null then 'sealed' else 'open' end`,
      ),
    status: text("status")
      .notNull()
      .generatedAlwaysAs(
        sql`coalesce(outcome, case when started_at is null then 'created' when pending_interrupts > 0 then 'waiting' else 'running' end)`,
      ),
  },
  (table) => [
    index("executions_due")
      .on(table.wakeAt)
      .where(sql`wake_at is not null`),
    index("executions_flow").on(table.flow, table.id),
    uniqueIndex("executions_idempotency")
      .on(table.flow, table.idempotencyKey)
      .where(sql`idempotency_key is not null`),
    index("executions_parent")
      .on(table.parentId)
      .where(sql`parent_id is not null`),
    index("executions_waiting_children")
      .on(table.parentId)
      .where(sql`pending_interrupts > 0`),
    index("executions_metadata")
      .using("gin", table.metadata.op("jsonb_path_ops"))
      .where(sql`metadata is not null`),
  ],
);

/** Everything that happened to an execution, in order. Append-only: triggers refuse update, delete and truncate. */
export const ledger = flowledger.table(
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
  },
  (table) => [primaryKey({ columns: [table.executionId, table.seq] })],
);

/**
 * Hash chain of each ledger: a link per close, kept snapshot and act of a person. Append-only like the ledger, so that a row
 * that was rewritten all the same shows in `verify`.
 */
export const chain = flowledger.table(
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

/** Where this database has been at home, the last one now: a copy of it elsewhere has the same rows. */
export const homes = flowledger.table("homes", {
  at: moment("at").primaryKey(),
  by: text("by").notNull(),
  /** Of the cluster, as `pg_control_system()` says it. */
  system: text("system").notNull(),
  databaseOid: bigint("database_oid", { mode: "number" }).notNull(),
});

/** What retention removed, one row per statement. */
export const prunes = flowledger.table(
  "prunes",
  {
    at: moment("at").notNull(),
    by: text("by").notNull(),
    closedBefore: moment("closed_before").notNull(),
    keep: jsonb("keep").notNull(),
    /** The lowest and the highest id of the executions that went. */
    first: uuid("first").notNull(),
    last: uuid("last").notNull(),
    executions: integer("executions").notNull(),
    events: integer("events").notNull(),
  },
  (table) => [primaryKey({ columns: [table.at, table.first] })],
);

/** Folded state at a seq, so that loading a long execution does not read all of its ledger. A cache: rebuilt at will. */
export const snapshots = flowledger.table("snapshots", {
  executionId: uuid("execution_id").primaryKey(),
  seq: integer("seq").notNull(),
  version: integer("version").notNull(),
  state: jsonb("state").notNull(),
});

/** Current row of each interrupt, for lists across executions. Derived. */
export const interrupts = flowledger.table(
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
  },
  (table) => [
    primaryKey({ columns: [table.executionId, table.id] }),
    index("interrupts_pending")
      .on(table.createdAt, table.executionId, table.id)
      .where(sql`status = 'pending'`),
    index("interrupts_pending_flow")
      .on(table.flow, table.createdAt)
      .where(sql`status = 'pending'`),
  ],
);

/** Current row of each intervention, for lists across executions. Derived. */
export const interventions = flowledger.table(
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
  (table) => [primaryKey({ columns: [table.executionId, table.version] })],
);

/** The runtime stream. `seq` is given under the execution's row lock, so a cursor never skips an item. */
export const streamItems = flowledger.table(
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
export const flowData = flowledger.table(
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
export const definitions = flowledger.table(
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
export const limits = flowledger.table("limits", {
  flow: text("flow").primaryKey(),
  concurrency: integer("concurrency"),
  rate: integer("rate"),
  rateMs: doublePrecision("rate_ms"),
  keyConcurrency: integer("key_concurrency"),
  keyRate: integer("key_rate"),
  keyRateMs: doublePrecision("key_rate_ms"),
  /** What becomes of a start that finds no place: keep, cancel. */
  action: text("action").notNull(),
  /** The moment for which a job waits, because a rate is used up. */
  nextStartAt: moment("next_start_at"),
});

/** Executions of limited flows that hold a place, or whose job has come and found none: they stand in line. */
export const places = flowledger.table(
  "places",
  {
    executionId: uuid("execution_id").primaryKey(),
    flow: text("flow").notNull(),
    key: text("key").notNull(),
    priority: smallint("priority").notNull(),
    /** Order within a priority; keys take turns. */
    turn: bigint("turn", { mode: "number" }).notNull(),
    /** True while a worker owns the execution. */
    held: boolean("held").notNull(),
    /** It has never been claimed, so the rates count it. */
    isFresh: boolean("is_fresh").notNull(),
    /** When it last got a job, because there was room. */
    calledAt: moment("called_at"),
  },
  (table) => [
    index("places_line")
      .on(table.flow, table.isFresh, table.priority, table.turn, table.executionId)
      .where(sql`not held`),
    index("places_key").on(table.flow, table.priority, table.key, table.turn),
    index("places_held")
      .on(table.flow, table.key)
      .where(sql`held`),
  ],
);

/** First claims of flows with a rate, as long as their time counts. */
export const limitedStarts = flowledger.table(
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
export const schedules = flowledger.table("schedules", {
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
});

/** The worker processes: who serves which flows, and when they last gave a sign of life. */
export const workers = flowledger.table("workers", {
  id: uuid("id").primaryKey(),
  host: text("host").notNull(),
  pid: integer("pid").notNull(),
  flows: text("flows").array().notNull(),
  /** The pool id that graphile-worker locks this worker's jobs with. */
  pool: text("pool"),
  startedAt: moment("started_at").notNull(),
  heartbeatAt: moment("heartbeat_at").notNull(),
});
