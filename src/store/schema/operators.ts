/** What operators did beside single executions: paused flows, bulks, retention, rights. */
import { sql } from "drizzle-orm";
import { doublePrecision, index, integer, jsonb, primaryKey, text, uuid, type PgSchema } from "drizzle-orm/pg-core";
import { moment, xid8 } from "./columns.ts";

export function operatorTables(schema: PgSchema) {
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

  return { flowPauses, bulks, bulkTargets, bulkResults, prunes, roleGrants, clientGrants };
}
