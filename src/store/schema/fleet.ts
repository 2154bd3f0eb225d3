/** The processes, and the database that they share. */
import { bigint, integer, jsonb, text, uuid, type PgSchema } from "drizzle-orm/pg-core";
import { moment } from "./columns.ts";

export function fleetTables(schema: PgSchema) {
  /** The worker processes: who serves which flows, and when they last gave a sign of life. */
  const workers = schema.table("workers", {
    id: uuid("id").primaryKey(),
    host: text("host").notNull(),
    pid: integer("pid").notNull(),
    flows: text("flows").array().notNull(),
    /** The version of each of its flows, in the same order; null where an older release registered it. */
    fingerprints: text("fingerprints").array(),
    /** How many executions it advances at once; null where an older release registered it. */
    slots: integer("slots"),
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

  /** Where this database was last confirmed as the original, the last one now: a copy of it elsewhere has the same rows. */
  const databaseIdentity = schema.table("database_identity", {
    at: moment("at").primaryKey(),
    by: text("by").notNull(),
    /** Of the cluster, as `pg_control_system()` says it. */
    system: text("system").notNull(),
    databaseOid: bigint("database_oid", { mode: "number" }).notNull(),
  });

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

  return { workers, databaseIdentity, migrations };
}
