/** Migrations: this library's and graphile-worker's, and the check that a database has them. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { MigrationError, NotMigratedError } from "../base/errors.ts";
import { connect, pgConfig, translate } from "./connection.ts";
import type { ConnectionOption, Sql } from "./connection.ts";

const migrationsFolder = fileURLToPath(new URL("../../migrations", import.meta.url));
/** The same for every flowledger process, so that only one of them migrates at a time. */
const migrationLock = 4_071_975_021;

/**
 * Brings a database to this version: graphile-worker's schema first, then ours. Idempotent; processes that call it at
 * once take turns.
 *
 * @throws {MigrationError} when the database was migrated by a newer version
 * @throws {ConnectionError} when there is no database to talk to
 */
export async function migrate(option: ConnectionOption): Promise<void> {
  // These take most of a second to load, and few processes ever migrate.
  const [{ drizzle }, { migrate: runDrizzle }, { runMigrations }, { default: pg }] = await Promise.all([
    import("drizzle-orm/postgres-js"),
    import("drizzle-orm/postgres-js/migrator"),
    import("graphile-worker"),
    import("pg"),
  ]);
  // drizzle changes the date and JSON codecs of its client, so it gets one of its own.
  const sql = connect(option, { max: 2, name: "flowledger migrate" });
  try {
    await sql`select 1`;
    const lock = new pg.Client(pgConfig(sql));
    lock.on("error", () => {});
    await lock.connect();
    try {
      await lock.query("select pg_advisory_lock($1)", [migrationLock]);
      if ((await readVersion(sql)) > libraryVersion().length) throw newerDatabase(await readVersion(sql));
      const pool = new pg.Pool({ ...pgConfig(sql), max: 1 });
      pool.on("error", () => {});
      pool.on("connect", (client) => void client.on("error", () => {}));
      try {
        await runMigrations({ pgPool: pool });
      } finally {
        await pool.end();
      }
      // Its transactions need a pipeline.
      const client = connect(option, { max: 2, name: "flowledger migrate", guards: { max_pipeline: 1 } });
      try {
        await runDrizzle(drizzle(client), {
          migrationsFolder,
          migrationsSchema: "flowledger",
          migrationsTable: "migrations",
        });
      } finally {
        await client.end();
      }
    } finally {
      // The lock goes with its session.
      await lock.end().catch(() => {});
    }
  } catch (error) {
    throw translate(error, sql);
  } finally {
    await sql.end();
  }
}

/** @throws {NotMigratedError | MigrationError} unless the database is at the library's version */
export async function requireMigrated(sql: Sql): Promise<void> {
  const version = await readVersion(sql);
  const known = libraryVersion().length;
  if (version < known) throw new NotMigratedError("flowledger");
  if (version > known) throw newerDatabase(version);
}

async function readVersion(sql: Sql): Promise<number> {
  const [found] = await sql<[{ present: boolean }]>`select to_regclass('flowledger.migrations') is not null as present`;
  if (!found.present) return 0;
  const [row] = await sql<[{ count: number }]>`select count(*)::int as count from flowledger.migrations`;
  return row.count;
}

function libraryVersion(): readonly unknown[] {
  const journal = `${migrationsFolder}/meta/_journal.json`;
  if (!existsSync(journal))
    throw new MigrationError("the folder migrations/ is missing beside the library", "install the package again");
  return z.object({ entries: z.array(z.unknown()) }).parse(JSON.parse(readFileSync(journal, "utf8"))).entries;
}

function newerDatabase(version: number): MigrationError {
  const known = libraryVersion().length;
  return new MigrationError(
    `the database is at schema version ${version}, this library knows ${known}`,
    "upgrade flowledger in this process",
    { version, known },
  );
}
