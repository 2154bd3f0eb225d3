/** Migrations: numbered tables once, repeatable functions whenever they change, graphile-worker's tables in a schema of our own. */
import { EventEmitter } from "node:events";
import type pg from "pg";
import { compareReleases, minRelease, release } from "../base/release.ts";
import { MigrationError, MovableClockError, NotMigratedError } from "../base/errors.ts";
import { acquainted, openDatabase, pgConfig } from "./client.ts";
import type { ConnectionOption, Database } from "./client.ts";
import { changedDefinitions } from "./definitions.ts";
import { defaultNames, withNames } from "./names.ts";
import type { SchemaNames } from "./names.ts";
import { codeOf, refusalOf } from "./refusals.ts";
import { sqlFiles } from "./sql-files.ts";

/** The row of `migrations` that stands for all function files. */
const functionsName = "functions";

/** One session: whoever loses it loses the whole transaction. */
type Session = pg.Client;

/**
 * Brings a database to this release, in one transaction. Idempotent; processes that call it at once take turns. An older library
 * never puts its functions in the place of newer ones.
 *
 * @param hasTestClock whether it is asked for a program that goes by the clock of a test database
 * @throws {MigrationError} what stands under our names is not ours, or the database needs a newer library
 * @throws {MovableClockError} it is the database of a test
 * @throws {PermissionError} the role may not create a schema in this database
 * @throws {ConnectionError} there is no database to talk to
 */
export async function migrate(
  option: ConnectionOption,
  names: SchemaNames = defaultNames,
  hasTestClock = false,
): Promise<void> {
  const database = openDatabase(option, { names, max: 2, name: "flowledger migrate" });
  try {
    const [{ movable, encoding }] = await acquainted(
      database,
      () =>
        database.sql<[{ movable: boolean; encoding: string }]>`
          select to_regclass('flowledger' || '.test_clock') is not null as movable, current_setting('server_encoding') as encoding`,
    );
    // Others have no place for some characters, or count bytes for them.
    if (encoding !== "UTF8")
      throw new MigrationError(
        `the database keeps texts in ${encoding}, and flowledger needs UTF8`,
        "create another one with template template0 encoding 'UTF8'",
        { encoding },
      );
    // Its functions of the clock would be replaced.
    if (movable && !hasTestClock) throw new MovableClockError(database.target.place, true);
    // Two processes that make the schema at once: one of them fails for that, and finds it made.
    for (let attempt = 1; ; attempt++) {
      try {
        await inSession(database, (session) => migrateIn(session, names));
        return await requireUnchanged(database);
      } catch (error) {
        const isRace = ["23505", "42P06", "42P07", "42710", "40P01", "XX000"].includes(codeOf(error) ?? "");
        if (!isRace || attempt === 5) throw error;
      }
    }
  } catch (error) {
    throw refusalOf(error, database.target);
  } finally {
    // The driver takes a connection that was lost in the middle of a query for a busy one (3.4.9), and would wait for it.
    await database.end({ timeout: 1 });
  }
}

/** @throws {MigrationError} a trigger or a function is not what this or an earlier migration made */
async function requireUnchanged(database: Database): Promise<void> {
  const [first] = await changedDefinitions(database);
  if (first === undefined) return;
  throw new MigrationError(
    `the database is at this version, but ${first}`,
    "find out who did that with npx flowledger doctor, and put it back as the owner",
  );
}

/**
 * @param hasTestClock whether it is asked for a program that goes by the clock of a test database
 * @throws {NotMigratedError | MigrationError | MovableClockError} unless this release can work with the database
 */
export async function requireMigrated({ sql, names, target }: Database, hasTestClock = false): Promise<void> {
  const [found] = await sql<[{ present: boolean; own: boolean; movable: boolean }]>`
    select to_regclass('flowledger' || '.migrations') is not null as present, to_regclass('flowledger' || '.test_clock') is not null as movable,
      exists (select from pg_attribute where attrelid = to_regclass('flowledger' || '.migrations') and attname = 'min_release') as own`;
  if (!found.present) throw new NotMigratedError(names.schema);
  if (!found.own) throw outdated(names);
  if (found.movable !== hasTestClock) throw new MovableClockError(target.place, found.movable);
  const rows = await sql<
    AppliedRow[]
  >`select name, hash, release, min_release as "minRelease" from flowledger.migrations`;
  checkReleases(rows);
  if (pendingOf(rows).length > 0) throw new NotMigratedError(names.schema);
}

interface AppliedRow {
  readonly name: string;
  readonly hash: string;
  readonly release: string;
  readonly minRelease: string;
}

/** What a migration by this release would run. */
function pendingOf(applied: readonly AppliedRow[]): string[] {
  const { numbered, functionsHash } = sqlFiles();
  const names = new Set(applied.map(({ name }) => name));
  const pending = numbered.flatMap(({ name }) => (names.has(name) ? [] : name));
  const functions = functionsOf(applied);
  if (!functions) return [...pending, functionsName];
  if (compareReleases(release, functions.release) < 0) return pending;
  // Where the code alone has changed, older releases have to hear that they cannot work with it.
  if (functions.hash !== functionsHash || compareReleases(minRelease, functions.minRelease) > 0)
    pending.push(functionsName);
  return pending;
}

function functionsOf(applied: readonly AppliedRow[]): AppliedRow | undefined {
  return applied.find(({ name }) => name === functionsName);
}

/** @throws {MigrationError} */
function checkReleases(applied: readonly AppliedRow[]): void {
  for (const { name, hash, release: by, minRelease: least } of applied) {
    if (compareReleases(release, least) < 0)
      throw new MigrationError(
        `the database was migrated by flowledger ${by} and needs ${least} or newer, this is ${release}`,
        "upgrade flowledger in this process",
        { release, by, minRelease: least },
      );
    const file = sqlFiles().numbered.find((one) => one.name === name);
    if (file && file.hash !== hash)
      throw new MigrationError(
        `migration ${name} is not the one that ran in this database`,
        "put the file back as it was, and write a new migration",
        { name },
      );
  }
}

async function inSession(database: Database, work: (session: Session) => Promise<void>): Promise<void> {
  // Loads graphile-worker's driver only where somebody migrates.
  const { default: driver } = await import("pg");
  const session = new driver.Client(pgConfig(database, "flowledger migrate"));
  session.on("error", () => {});
  await session.connect();
  try {
    await session.query("begin");
    await work(session);
    await session.query("commit");
  } finally {
    await session.end().catch(() => {});
  }
}

async function migrateIn(session: Session, names: SchemaNames): Promise<void> {
  const run = (text: string) => session.query(withNames(text, names));
  // Whatever the database or the role says, names in the files of others mean Postgres' own.
  await session.query("set local search_path = pg_catalog, pg_temp");
  await session.query("set local client_min_messages = warning");
  // Functions name each other, whatever order their files have.
  await session.query("set local check_function_bodies = off");
  const isNew = await refuseStrangers(session, names);
  if (isNew) {
    await run("create schema flowledger; create schema flowledger_jobs");
    await run("revoke all on schema flowledger, flowledger_jobs from public");
  } else await run("lock table flowledger.migrations in share row exclusive mode");
  const applied = isNew
    ? []
    : (
        await session.query<AppliedRow>(
          withNames('select name, hash, release, min_release as "minRelease" from flowledger.migrations', names),
        )
      ).rows;
  checkReleases(applied);
  const pending = pendingOf(applied);
  const { numbered, functions, functionsHash } = sqlFiles();
  const [first, ...others] = functions;
  const hasFunctions = pending.includes(functionsName);
  if (hasFunctions && first) await run(first.text);
  for (const { name, text, hash } of numbered) {
    if (!pending.includes(name)) continue;
    await session.query("savepoint numbered");
    try {
      await run(text);
    } catch (error) {
      if (codeOf(error) !== "2BP01" || !hasFunctions) throw error;
      // A view of the release before holds a column that changes. All of them are made again below.
      await session.query("rollback to numbered");
      await run(dropViews);
      await run(text);
    }
    await record(session, names, name, hash);
  }
  await migrateJobs(session, names);
  if (hasFunctions) for (const { text } of others) await run(text);
  // Also where they are the same: none of a release in between may take their place.
  if (hasFunctions || compareReleases(release, functionsOf(applied)?.release ?? release) > 0)
    await record(session, names, functionsName, functionsHash);
  await run("select flowledger.apply_grants()");
  if (isNew) await run("select flowledger.accept_identity()");
}

/** What others have built on a view of ours keeps that, and the migration fails by its name. */
const dropViews = `do $$
  declare
    v_view text;
  begin
    for v_view in select c.oid::regclass from pg_class c where c.relnamespace = 'flowledger'::regnamespace and c.relkind = 'v' order by c.oid desc loop
      begin
        execute 'drop view ' || v_view;
      exception when dependent_objects_still_exist then null;
      end;
    end loop;
  end $$`;

async function record(session: Session, names: SchemaNames, name: string, hash: string): Promise<void> {
  await session.query(
    withNames(
      `insert into flowledger.migrations (name, hash, release, min_release, at, by)
       values ($1, $2, $3, $4, flowledger.wall_clock(), flowledger.caller())
       on conflict (name) do update set hash = excluded.hash, release = excluded.release, min_release = excluded.min_release, at = excluded.at, by = excluded.by`,
      names,
    ),
    [name, hash, release, minRelease],
  );
}

/** Everything in a schema, by kind, with its owner; and triggers and rules on its tables that run what is somebody else's. */
const contents = `
  with ours as (select n.oid, n.nspname from pg_namespace n where n.nspname = any($1::text[])),
  me as (select r.oid from pg_roles r where r.rolname = current_user)
  select x.kind, x.name, pg_get_userbyid(x.owner) as owner, x.owner = me.oid as own, x.nsp as schema from me, (
    select 'schema' as kind, o.nspname as name, n.nspowner as owner, o.nspname as nsp from ours o join pg_namespace n on n.oid = o.oid
    union all
    select case c.relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view' when 'c' then 'type' when 'i' then 'index' when 'f' then 'foreign table' else 'table' end,
      o.nspname || '.' || c.relname, c.relowner, o.nspname from ours o join pg_class c on c.relnamespace = o.oid
    union all
    select 'function', p.oid::regprocedure::text, p.proowner, o.nspname from ours o join pg_proc p on p.pronamespace = o.oid
    union all
    select 'type', o.nspname || '.' || t.typname, t.typowner, o.nspname from ours o join pg_type t on t.typnamespace = o.oid
    union all
    select 'operator', o.nspname || '.' || p.oprname, p.oprowner, o.nspname from ours o join pg_operator p on p.oprnamespace = o.oid
    union all
    select 'operator class', o.nspname || '.' || p.opcname, p.opcowner, o.nspname from ours o join pg_opclass p on p.opcnamespace = o.oid
    union all
    select 'operator family', o.nspname || '.' || p.opfname, p.opfowner, o.nspname from ours o join pg_opfamily p on p.opfnamespace = o.oid
    union all
    select 'collation', o.nspname || '.' || p.collname, p.collowner, o.nspname from ours o join pg_collation p on p.collnamespace = o.oid
    union all
    select 'conversion', o.nspname || '.' || p.conname, p.conowner, o.nspname from ours o join pg_conversion p on p.connamespace = o.oid
    union all
    select 'text search configuration', o.nspname || '.' || p.cfgname, p.cfgowner, o.nspname from ours o join pg_ts_config p on p.cfgnamespace = o.oid
    union all
    select 'text search dictionary', o.nspname || '.' || p.dictname, p.dictowner, o.nspname from ours o join pg_ts_dict p on p.dictnamespace = o.oid
    union all
    select 'statistics', o.nspname || '.' || p.stxname, p.stxowner, o.nspname from ours o join pg_statistic_ext p on p.stxnamespace = o.oid
    union all
    -- A trigger belongs to whoever its function belongs to: anybody with the right may hang one on a table of ours.
    select 'trigger', t.tgname || ' on ' || o.nspname || '.' || c.relname,
      case when p.pronamespace = 'pg_catalog'::regnamespace then me.oid else p.proowner end, o.nspname
    from me, ours o join pg_class c on c.relnamespace = o.oid join pg_trigger t on t.tgrelid = c.oid join pg_proc p on p.oid = t.tgfoid
  ) x`;

/**
 * Refuses what stands under our names and is not ours, before anything else: a stranger's function, trigger or operator would run
 * with the rights of whoever migrates. Says whether nothing stands there at all.
 */
async function refuseStrangers(session: Session, names: SchemaNames): Promise<boolean> {
  const { rows } = await session.query<{ kind: string; name: string; owner: string; own: boolean; schema: string }>(
    contents,
    [[names.schema, names.jobs]],
  );
  const [stranger] = rows.filter(({ own }) => !own);
  if (stranger)
    throw new MigrationError(
      `${stranger.kind} ${stranger.name} belongs to role "${stranger.owner}", and what migrates must own all that stands under its names`,
      `migrate as "${stranger.owner}" if that is who migrated before; otherwise find out who made it, and drop it`,
      { kind: stranger.kind, name: stranger.name, owner: stranger.owner },
    );
  if (rows.length === 0) return true;
  const { rows: found } = await session.query<{ own: boolean; old: boolean }>(
    `select exists (select from pg_attribute a where a.attrelid = to_regclass($1) and a.attname = 'min_release') as own,
       to_regclass($2) is not null as old`,
    [`${names.schema}.migrations`, `${names.schema}.homes`],
  );
  if (found[0]?.own) return false;
  if (found[0]?.old) throw outdated(names);
  const [first] = rows.filter(({ kind }) => kind !== "schema").concat(rows);
  throw new MigrationError(
    `${first?.kind} ${first?.name} is there already, and not by flowledger`,
    "drop it, or choose another name with the option schema",
    { kind: first?.kind, name: first?.name },
  );
}

function outdated({ schema }: SchemaNames): MigrationError {
  return new MigrationError(
    `schema "${schema}" was made by a pre-release of 0.1.0, whose tables are not carried over`,
    "save() its open executions with that version, migrate an empty database, and load() them there",
    { schema },
  );
}

/**
 * graphile-worker's own migrations, inside our transaction. It announces each on a channel that every worker of the database hears,
 * an application's own too, and those stop for it: so that is left out.
 */
async function migrateJobs(session: Session, { jobs }: SchemaNames): Promise<void> {
  const { runMigrations } = await import("graphile-worker");
  await runMigrations({ pgPool: poolOf(session) as unknown as pg.Pool, schema: jobs });
}

/** A pool of one client, whose transactions are savepoints of ours. */
function poolOf(session: Session): EventEmitter & { connect(): Promise<unknown> } {
  const query = async (
    statement: string | { readonly text: string; readonly values?: unknown[] },
    values?: unknown[],
  ) => {
    const text = typeof statement === "string" ? statement : statement.text;
    const given = typeof statement === "string" ? values : statement.values;
    const command = text.trim().toLowerCase();
    if (command === "begin") return session.query("savepoint jobs_migration");
    if (command === "commit") return session.query("release savepoint jobs_migration");
    if (command === "rollback") return session.query("rollback to savepoint jobs_migration");
    if (given?.[0] === "worker:migrate") return { rows: [] };
    // It asks for tables that may not be there, and goes on.
    await session.query("savepoint jobs_statement");
    try {
      const answer = given ? await session.query(text, given) : await session.query(text);
      await session.query("release savepoint jobs_statement");
      return answer;
    } catch (error) {
      await session.query("rollback to savepoint jobs_statement");
      throw error;
    }
  };
  const client = { query, release: () => {} };
  const pool = Object.assign(new EventEmitter(), { connect: async () => client, options: { max: 10 } });
  pool.on("error", () => {});
  pool.on("connect", () => {});
  return pool;
}
