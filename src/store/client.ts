/** Connections: what every one of them sets, the tagged template with the schemas' names put in, and errors made ours once. */
import type { ConnectionOptions } from "node:tls";
import type postgres from "postgres";
import { ConnectionError } from "../base/errors.ts";
import { withAnswerLimit } from "./batcher.ts";
import { besideVariables, parseConnectionString, whereOf } from "./connection-string.ts";
import type { ParsedUrl } from "./connection-string.ts";
import { openClient } from "./driver.ts";
import type { Client, DriverOptions, Password } from "./driver.ts";
import { defaultNames, templateWithNames } from "./names.ts";
import type { SchemaNames } from "./names.ts";
import { codeOf, isCutOff, refusalOf } from "./refusals.ts";
import { tlsOptions } from "./socket.ts";
import type { Target } from "./refusals.ts";

export type Sql = postgres.Sql;
/** Where queries can be sent: a pool, or one transaction. */
export type Queries = postgres.Sql | postgres.TransactionSql | postgres.ReservedSql;

/** A connection string, or options of postgres.js. */
export type ConnectionOption = string | DriverOptions;

/** A pool for our own SQL, and the names that its statements use. */
export interface Database {
  readonly sql: Sql;
  readonly names: SchemaNames;
  readonly target: Target;
  readonly link: Client["link"];
  readonly password: Client["password"];
  /** What other connections to the same database set too. */
  readonly settings: Readonly<Record<string, string>>;
  /** Statements that were sent and have not been answered. */
  readonly underWay: number;
  /** Goes on with one more, where the caller says nothing else; with null, without it. */
  setDefault(setting: string, value: string | null): void;
  /** Goes on without start-up parameters that a pooler refuses. False where it does already. */
  dropSettings(): boolean;
  end(options?: { timeout?: number }): Promise<void>;
}

interface OpenOptions {
  readonly names?: SchemaNames;
  readonly max?: number;
  readonly name?: string;
}

/**
 * What our statements rely on, whatever database, role, environment and connection string say. `DateStyle` is among them too: the
 * driver sends it.
 */
const fixed = { standard_conforming_strings: "on", TimeZone: "UTC" };
const refusable = {
  array_nulls: "on",
  bytea_output: "hex",
  default_transaction_deferrable: "off",
  default_transaction_isolation: "read committed",
  exit_on_error: "off",
  extra_float_digits: "1",
  IntervalStyle: "postgres",
  quote_all_identifiers: "off",
  row_security: "on",

  search_path: "pg_catalog, pg_temp",
  transform_null_equals: "off",
};
/** Limits that were set for others. A caller may set its own. */
const defaults = {
  idle_in_transaction_session_timeout: "0",
  idle_session_timeout: "0",
  // No statement of ours runs so long that compiling it, for half a second, would pay.
  jit: "off",
  lock_timeout: "0",
  statement_timeout: "0",
};

const defaultOf17 = "transaction_timeout";

/** Opens at the first query: at least two connections, no notices, an application name that says who we are. */
export function openDatabase(option: ConnectionOption, options: OpenOptions = {}): Database {
  const { verifiesFor, ...given } = driverOptions(option);
  const { name = "flowledger", max = given.max ?? 10, names = defaultNames } = options;
  const connection = { application_name: name, ...given.connection };
  const client = openClient({ ...given, max: Math.max(2, max), connection }, { fixed, refusable, defaults });
  const { sql } = client;
  // Not its name, every connection has its own; nor options, which are no setting.
  const { application_name: _name, options: _options, ...own } = client.connection;
  let settings: Readonly<Record<string, string>> = {
    ...defaults,
    ...own,
    ...refusable,
    ...fixed,
    DateStyle: "ISO, MDY",
  };
  return {
    sql: named(sql, names),
    names,
    target: {
      place: client.place,
      user: sql.options.user,
      schema: names.schema,
      ...(verifiesFor !== undefined && { verifiesFor }),
    },
    password: client.password,
    get link() {
      return client.link;
    },
    get settings() {
      return settings;
    },
    get underWay() {
      return client.underWay;
    },
    setDefault(setting, value) {
      const { [setting]: _, ...others } = settings;
      settings = value === null ? others : { ...others, [setting]: value };
      client.setDefault(setting, value);
    },
    dropSettings() {
      settings = own;
      return client.dropSettings();
    },
    end: (how) => sql.end(how),
  };
}

/** @throws {ConnectionError} without showing a password */
export function driverOptions(option: ConnectionOption): DriverOptions & Pick<ParsedUrl, "verifiesFor"> {
  if (typeof option === "string") return asDriverOptions(parseConnectionString(option));
  for (const key of ["connectionString", "url", "uri"])
    if (key in option)
      throw new ConnectionError(
        null,
        `the options of a connection have no ${key}`,
        "pass the string itself as connection",
      );
  if ("query" in option || "connect" in option)
    throw new ConnectionError(
      null,
      "what was given as connection is a client or a pool",
      "pass the connection string or the options that it was made of",
    );
  return asDriverOptions(besideVariables(option));
}

/** What the driver takes, and its types leave out: lists of hosts and ports, TLS as libpq names it. */
function asDriverOptions(options: object): DriverOptions {
  return options;
}

/** Statements are written with the default names; a template's text is rewritten once. */
export function named<S extends Queries>(sql: S, names: SchemaNames): S {
  if (names === defaultNames) return sql;
  return new Proxy(sql, {
    apply(target, self, args: unknown[]) {
      const [strings, ...values] = args;
      const isTemplate = Array.isArray(strings) && "raw" in strings;
      const text = isTemplate ? templateWithNames(strings as unknown as TemplateStringsArray, names) : strings;
      return Reflect.apply(target as (...all: unknown[]) => unknown, self, [text, ...values]);
    },
  });
}

/**
 * The first work on a database: finds out which settings can be made, and makes them.
 *
 * @throws {ConnectionError} a pooler refuses some, and the defaults of database or role are not what our statements rely on
 */
export async function acquainted<T>(database: Database, work: () => Promise<T>): Promise<T> {
  try {
    if (!("array_nulls" in database.settings)) await requireDefaults(database);
    else if (!(defaultOf17 in database.settings)) await liftTransactionTimeout(database);
    return await work();
  } catch (error) {
    if (!refusesSettings(error) || !database.dropSettings()) throw error;
    return acquainted(database, work);
  }
}

/** `transaction_timeout` is no start-up parameter for every server, since Postgres 15 and 16 do not know it: so it is asked for. */
async function liftTransactionTimeout(database: Database): Promise<void> {
  const ask = async () => {
    const [row] = await database.sql<[{ value: string | null }]>`select current_setting(${defaultOf17}, true) as value`;
    return row.value ?? "0";
  };
  const value = await ask().catch((error: unknown) => {
    if (!isCutOff(error)) throw error;
    // The limit may have ended the connection that asked for it, so the next one begins without it.
    database.setDefault(defaultOf17, "0");
    return ask().catch((second: unknown) => {
      database.setDefault(defaultOf17, null);
      if (codeOf(second) === "42704" || refusesSettings(second)) return ask();
      throw second;
    });
  });
  if (value !== "0") database.setDefault(defaultOf17, "0");
}

function refusesSettings(error: unknown): boolean {
  return codeOf(error) === "08P01" && error instanceof Error && /unsupported startup parameter/i.test(error.message);
}

async function requireDefaults({ sql, target }: Database): Promise<void> {
  // Our path, and one without pg_catalog, mean the same: it comes first.
  const others = await sql<{ name: string; value: string; wanted: string; whose: string }[]>`
    select s.name, s.setting as value, w.wanted, format('role %I in database %I', current_user, current_database()) as whose
    from pg_settings s
    join json_each_text(${JSON.stringify(refusable)}::text::json) w(name, wanted) on lower(w.name) = lower(s.name)
    where case lower(s.name)
      when 'search_path' then (current_schemas(true))[1] is distinct from 'pg_catalog'
      else s.setting <> w.wanted end`;
  const [first] = others;
  if (first)
    throw new ConnectionError(
      target.place,
      `${first.name} is ${first.value} here, and a pooler does not let this library set it`,
      `alter ${first.whose} set ${first.name} = ${first.wanted}, or connect directly`,
    );
}

/** What `pg` is told. Written out, so that the package's types need none of its own. */
export interface PgConfig {
  host: string;
  port: number;
  database: string;
  user: string;
  password: Password;
  application_name: string;
  keepAlive: boolean;
  options: string;
  ssl: ConnectionOptions | false;
}

/** The options that graphile-worker's own driver needs for the same database. */
export function pgConfig({ sql, link, password, settings }: Database, name = "flowledger jobs"): PgConfig {
  const { database, user } = sql.options;
  const config: PgConfig = {
    host: link.host,
    port: link.port,
    database,
    user,
    password,
    application_name: name,
    keepAlive: true,
    options: [
      optionsOf(sql).options,
      ...Object.entries(settings).map(([key, value]) => `-c ${key}=${value.replaceAll(/[\\ ]/g, "\\$&")}`),
    ]
      .filter((one) => one !== undefined)
      .join(" "),
    // Without one it would read PGSSLMODE.
    ssl: link.isEncrypted && tlsOptions(link.ssl),
  };
  return config;
}

/** Connection options for a thread: all but a password that is a function can travel there. */
export function threadOptions({ sql, link, password, settings }: Database, name: string): DriverOptions {
  const { database, user } = sql.options;
  return asDriverOptions({
    ...whereOf(link.host, String(link.port)),
    database,
    username: user,
    password,
    ssl: link.isEncrypted && link.ssl,
    connection: { ...optionsOf(sql), ...settings, application_name: name },
  });
}

/** Start-up options of the caller's own: some hosts find the database by them. */
function optionsOf(sql: Sql): { options?: string } {
  const { options } = sql.options.connection;
  return typeof options === "string" ? { options } : {};
}

type Methods = Readonly<Record<string, unknown>>;

/** The same group of statements; what they raise is the library's own error. @param answerMs how long each waits for its answer; null is for ever */
export function refusing<G extends object>(group: G, target: Target, answerMs: number | null): G {
  const guarded: Record<string, unknown> = {};
  for (const [name, method] of Object.entries(group as Methods))
    guarded[name] =
      typeof method !== "function"
        ? method
        : (...args: unknown[]) => {
            const answer: unknown = Reflect.apply(method, group, args);
            if (!(answer instanceof Promise)) return answer;
            return withAnswerLimit(answer, answerMs).catch((error: unknown) => {
              throw refusalOf(error, target);
            });
          };
  return guarded as G;
}
