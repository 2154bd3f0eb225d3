/** What may begin, and when: limits, their slots, schedules. */
import { sql } from "drizzle-orm";
import {
  bigint,
  boolean,
  doublePrecision,
  index,
  integer,
  smallint,
  text,
  uuid,
  type PgSchema,
} from "drizzle-orm/pg-core";
import { moment } from "./columns.ts";

export function limitTables(schema: PgSchema) {
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

  return { limits, slots, limitedStarts, schedules };
}
