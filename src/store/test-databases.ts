/**
 * Databases of tests: clones of one template per server, each gone when the process that asked for it is. Only `flowledger/test`
 * loads this.
 */
import { createHash, randomBytes, randomInt } from "node:crypto";
import type postgres from "postgres";
import { ConnectionError } from "../base/errors.ts";
import { release } from "../base/release.ts";
import { openDatabase } from "./client.ts";
import { driverOptions } from "./client.ts";
import { openClient } from "./driver.ts";
import { migrate } from "./migrate.ts";
import { defaultNames } from "./names.ts";
import { codeOf, refusalOf } from "./refusals.ts";
import { sqlFiles } from "./sql-files.ts";
import { beginTestClock, installTestClock, testClockHash } from "./test-clock.ts";

export interface TestDatabases {
  /** A migrated database whose clock stands at this time. Resolves with its URL. */
  create(nowMs: number): Promise<string>;
  drop(url: string): Promise<void>;
  /** What is left of them goes, too. */
  close(): Promise<void>;
}

const prefix = "flowledger_kit_";
/**
 * Session locks of ours: a process holds (class, its number) while it lives, (class, 0) while it makes a template, and shares
 * (templateClass, the template's number) while it may clone it.
 */
const lockClass = 1_179_405_684;
const templateClass = 1_179_405_685;

/** @param serverUrl of a role that may create databases */
export function openTestDatabases(serverUrl: string): TestDatabases {
  // One session: it holds the lock that says that this process lives.
  const { sql, place } = openClient(
    {
      ...driverOptions(serverUrl),
      max: 1,
      idle_timeout: 0,
      max_lifetime: null,
      connection: { application_name: "flowledger test" },
    },
    { fixed: {} },
  );
  const { user } = sql.options;
  const target = { place, user, schema: defaultNames.schema };
  const run = randomInt(1, 2 ** 31);
  const made = new Set<string>();
  const guard = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      if (codeOf(error) !== "42501") throw refusalOf(error, target);
      const remedy =
        "let it create databases (alter role … createdb), or leave DATABASE_URL out for an embedded Postgres";
      throw new ConnectionError(target.place, `role "${user}" may not create databases for tests`, remedy, error);
    }
  };
  const begin = async () => {
    await sql`select pg_advisory_lock(${lockClass}::int, ${run}::int)`;
    await dropAbandoned(sql);
    return { template: await requireTemplate(sql, serverUrl), strategy: await strategyOf(sql) };
  };
  let begun: ReturnType<typeof begin> | undefined;
  const create = async (nowMs: number): Promise<string> => {
    const name = `${prefix}${run}_${randomBytes(4).toString("hex")}`;
    const { template, strategy } = await (begun ??= begin());
    made.add(name);
    await sql`create database ${sql(name)} template ${sql(template)} strategy ${sql(strategy)}`;
    const url = urlOf(serverUrl, name);
    await within(url, (own) => beginTestClock(own, nowMs));
    return url;
  };
  const drop = async (name: string): Promise<void> => {
    if (made.delete(name)) await sql`drop database if exists ${sql(name)} with (force)`;
  };
  return {
    create: (nowMs) => guard(create(nowMs)),
    drop: (url) => guard(drop(new URL(url).pathname.slice(1))),
    async close() {
      for (const name of made) await drop(name).catch(() => {});
      await sql.end({ timeout: 1 });
    },
  };
}

/** How a clone is made soonest: file by file where nothing has to reach a disk, which takes a third of the work; else by the log. */
export async function strategyOf(sql: postgres.Sql): Promise<"file_copy" | "wal_log"> {
  const [row] = await sql<[{ fsync: string }]>`show fsync`;
  return row.fsync === "off" ? "file_copy" : "wal_log";
}

/** Counts the processes that test on a server. */
export function watchTestProcesses(serverUrl: string): { count(): Promise<number>; close(): Promise<void> } {
  const { sql } = openClient(
    { ...driverOptions(serverUrl), max: 1, idle_timeout: 0, connection: { application_name: "flowledger keeper" } },
    { fixed: {} },
  );
  return {
    async count() {
      const [row] = await sql<[{ count: number }]>`
        select count(distinct l.objid)::int as count from pg_locks l
        where l.locktype = 'advisory' and l.classid = ${lockClass}::int::oid and l.objid <> 0`;
      return row.count;
    },
    close: () => sql.end({ timeout: 1 }),
  };
}

/** The template of this release, made by whoever needs it first. It stays: the next run finds it. */
async function requireTemplate(sql: postgres.Sql, serverUrl: string): Promise<string> {
  const { numbered, functionsHash } = sqlFiles();
  const parts = [release, functionsHash, testClockHash(), ...numbered.map(({ hash }) => hash)];
  const number = Number.parseInt(createHash("sha256").update(parts.join()).digest("hex").slice(0, 7), 16);
  const name = `${prefix}template_${number}`;
  await sql`select pg_advisory_lock_shared(${templateClass}::int, ${number}::int)`;
  await sql`select pg_advisory_lock(${lockClass}::int, 0)`;
  try {
    // It takes no connections once it is whole.
    const known = await sql<{ name: string; whole: boolean; used: boolean }[]>`
      select d.datname as name, not d.datallowconn as whole, exists (
          select from pg_locks l where l.locktype = 'advisory' and l.classid = ${templateClass}::int::oid
            and l.objid = substring(d.datname from '[0-9]+$')::bigint::oid) as used
      from pg_database d where d.datname ~ ${`^${prefix}template_[0-9]+$`}`;
    if (known.some((one) => one.name === name && one.whole)) return name;
    // Of other releases that nobody tests any more, and what was left half made.
    for (const one of known)
      if (one.name === name || !one.used) await sql`drop database if exists ${sql(one.name)} with (force)`;
    await sql`create database ${sql(name)}`;
    const url = urlOf(serverUrl, name);
    await migrate(url);
    await within(url, installTestClock);
    await sql`alter database ${sql(name)} allow_connections false`;
    return name;
  } finally {
    await sql`select pg_advisory_unlock(${lockClass}::int, 0)`;
  }
}

/** Databases of processes that were killed, on a server that outlives them. */
async function dropAbandoned(sql: postgres.Sql): Promise<void> {
  const names = await sql<{ name: string }[]>`
    select d.datname as name from pg_database d
    where d.datname ~ ${`^${prefix}[0-9]+_`} and not exists (
      select from pg_locks l where l.locktype = 'advisory' and l.classid = ${lockClass}::int::oid
        and l.objid = substring(d.datname from ${`^${prefix}([0-9]+)_`})::bigint::oid)`;
  for (const { name } of names) await sql`drop database if exists ${sql(name)} with (force)`.catch(() => {});
}

async function within(url: string, work: (sql: postgres.Sql) => Promise<void>): Promise<void> {
  const database = openDatabase(url, { name: "flowledger test" });
  try {
    await work(database.sql);
  } finally {
    await database.end({ timeout: 1 });
  }
}

function urlOf(serverUrl: string, database: string): string {
  const url = new URL(serverUrl);
  url.pathname = `/${database}`;
  return url.href;
}
