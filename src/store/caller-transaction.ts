/** A transaction of the caller's own, whichever driver it came from, as we ask it for one text at a time. */
import type postgres from "postgres";
import { z } from "zod";
import { withTimeout } from "../base/async.ts";
import { UsageError } from "../base/errors.ts";
import { show } from "../base/option.ts";
import type { Sql } from "./client.ts";
import { withNames } from "./names.ts";
import type { SchemaNames } from "./names.ts";
import { codeOf, isConnectionLoss, isEnded, refusalOf } from "./refusals.ts";
import type { Target } from "./refusals.ts";

/**
 * A transaction of postgres.js, drizzle on postgres.js or pg, Kysely, Knex, TypeORM, MikroORM or Prisma, or a pg client inside one.
 * A database, a pool or a root client does not compile where its type tells: what it sends commits alone. Whether a client is inside
 * of a transaction the database says.
 */
export type CallerTransaction =
  | postgres.TransactionSql
  | postgres.ReservedSql
  | PgClient
  | DrizzleTransaction
  | KyselyTransaction
  | KnexTransaction
  | PrismaTransaction
  | MikroOrmTransaction;

/** What `pg` clients share, and an `EntityManager` or `QueryRunner` of TypeORM with them. */
export interface PgClient {
  query(text: string, values?: unknown[]): Promise<{ rows: unknown[] }>;
  /** A pool has it, and sends each statement to whichever client is free. */
  readonly totalCount?: never;
}

/** What drizzle transactions share, and its databases have not all of: the driver's own client is inside. */
export interface DrizzleTransaction {
  execute(query: never): unknown;
  rollback(): never;
}

/** What Kysely's `transaction().execute()` and `startTransaction()` give. */
export interface KyselyTransaction {
  readonly isTransaction: true;
  executeQuery(query: never): unknown;
}

/** What Knex' `transaction()` gives. */
export interface KnexTransaction {
  raw(text: string, values: readonly string[]): unknown;
  isCompleted(): boolean;
}

/** What Prisma's interactive `$transaction` gives. */
export interface PrismaTransaction {
  $queryRawUnsafe(text: string, ...values: unknown[]): unknown;
  /** Its root client has it. */
  readonly $transaction?: never;
}

/** The `EntityManager` of MikroORM inside of `transactional()` or after `begin()`. */
export interface MikroOrmTransaction {
  getTransactionContext(): unknown;
}

export interface OpenTransaction {
  /** Postgres' name for it. */
  readonly id: string;
  /** False for a role that may only command, as a client of `grant_roles` or `grant_client`. */
  readonly mayCreate: boolean;
  /**
   * What one expression says, evaluated in this transaction and in no other.
   *
   * @param expression of type text, with every name in full: the caller's `search_path` is anything
   * @param values for $1, $2 …; texts, because the caller's driver may have codecs of its own
   * @param about what was asked, for what Postgres refuses
   */
  ask(expression: string, values: readonly (string | null)[], about?: About): Promise<string>;
}

type About = Parameters<typeof refusalOf>[2];

/** Which database of which cluster. */
export interface DatabaseIdentity {
  readonly system: string;
  readonly oid: string;
}

/**
 * Asks the database what `tx` is, before a row is written. Neither the settings of that connection nor those of its driver matter.
 *
 * @throws {UsageError} for anything but an open transaction of our database that may write
 */
export async function openTransaction(
  tx: unknown,
  names: SchemaNames,
  ours: () => Promise<DatabaseIdentity>,
): Promise<OpenTransaction> {
  const send = senderOf(tx) ?? senderOf(insideOf(tx));
  if (!send) {
    const hint = tx instanceof Promise ? "await it, and pass" : "pass";
    throw new UsageError(
      `tx must be a transaction of postgres.js, pg, drizzle, Kysely, Knex, TypeORM, MikroORM or Prisma, got ${nameOf(tx)}`,
      `${hint} what sql.begin, db.transaction or client.query('begin') gave you`,
    );
  }
  const { id, place, user, system, oid, mayCreate } = await identify(send, names);
  const own = await ours();
  if (system !== own.system || oid !== own.oid)
    throw new UsageError(
      `tx must be a transaction of this orchestrator's database, got one of database "${place}"${system === own.system ? "" : " on another server"}`,
      "begin it where createOrchestrator() connects to",
    );
  const target: Target = { place, user, schema: names.schema };
  return {
    id,
    mayCreate,
    async ask(expression, values, about) {
      // In a transaction block all statements have its id. A pool, or a client outside of one, has another for each statement.
      const guarded = `select case when pg_catalog.pg_current_xact_id()::pg_catalog.text operator(pg_catalog.=) $${values.length + 1}
        then (${withNames(expression, names)}) end`;
      const answer = await send(guarded, [...values, id]).catch((error: unknown) => {
        throw refusalOf(error, target, about);
      });
      if (answer === null) throw notOpen();
      return answer;
    },
  };
}

/** Opens what callers pass as `tx`; which database is ours is asked once. */
export function callerTransactions({ sql, names }: { readonly sql: Sql; readonly names: SchemaNames }) {
  let own: Promise<DatabaseIdentity> | undefined;
  const ours = () =>
    (own ??= identityOf(sql).catch((error: unknown) => {
      own = undefined;
      throw error;
    }));
  return (tx: unknown) => openTransaction(tx, names, ours);
}

/** Of the database that a client of ours is connected to. */
export async function identityOf(sql: Sql): Promise<DatabaseIdentity> {
  const [row] = await sql<[DatabaseIdentity]>`
    select ${sql.unsafe(system)} as system, ${sql.unsafe(oid)} as oid`;
  return row;
}

/** One statement; the first column of its first row, null where there is none. */
type Send = (text: string, values: readonly (string | null)[]) => Promise<string | null>;

function senderOf(value: unknown): Send | null {
  if (isPostgresJs(value)) return async (text, values) => firstOf(await value.unsafe(text, [...values]).raw());
  if (isPg(value)) return async (text, values) => firstOf(rowsOf(await value.query(text, [...values])));
  if (has(value, "executeQuery"))
    return async (text, values) => firstOf(rowsOf(await value.executeQuery(compiled(text, values))));
  if (has(value, "$queryRawUnsafe"))
    return async (text, values) => firstOf(rowsOf(await value.$queryRawUnsafe(text, ...values)));
  if (has(value, "raw")) return async (text, values) => firstOf(rowsOf(await value.raw(...positional(text, values))));
  return null;
}

/** Where drizzle and MikroORM keep what they send with. */
function insideOf(tx: unknown): unknown {
  if (has(tx, "getTransactionContext")) return tx.getTransactionContext();
  return Reflect.get(Object(Reflect.get(Object(tx), "session")), "client");
}

/** A query as Kysely has it once it is compiled; its plugins look at the node and at the id. */
function compiled(text: string, values: readonly unknown[]) {
  return {
    query: { kind: "RawNode", sqlFragments: [text], parameters: [] },
    queryId: { queryId: crypto.randomUUID() },
    sql: text,
    parameters: values,
  };
}

/** With the marks of Knex: each is one value, in the order in which they stand. */
function positional(text: string, values: readonly unknown[]): [string, unknown[]] {
  const inOrder: unknown[] = [];
  const marked = text.replaceAll(/\$(\d+)/g, (_, number) => {
    inOrder.push(values[Number(number) - 1]);
    return "?";
  });
  return [marked, inOrder];
}

function has<K extends string>(value: unknown, name: K): value is Record<K, (...given: unknown[]) => unknown> {
  return Object(value) === value && typeof Reflect.get(Object(value), name) === "function";
}

export function isPostgresJs(value: unknown): value is postgres.TransactionSql {
  return typeof value === "function" && "unsafe" in value;
}

export function isPg(value: unknown): value is PgClient {
  return typeof value === "object" && value !== null && "query" in value && typeof value.query === "function";
}

const Rows = z.union([z.array(z.unknown()), z.object({ rows: z.array(z.unknown()) }).transform(({ rows }) => rows)]);

/** TypeORM and Prisma give the rows alone. */
function rowsOf(answer: unknown): unknown[] {
  return Rows.parse(answer);
}

/** Whatever name the caller's driver gave the column. */
function firstOf(rows: readonly unknown[]): string | null {
  const value: unknown = Object.values(Object(rows[0]))[0] ?? null;
  return value === null ? null : String(value);
}

/** By these a database is told from all others. */
const system = "(select s.system_identifier from pg_catalog.pg_control_system() s)::pg_catalog.text";
const oid =
  "(select d.oid from pg_catalog.pg_database d where d.datname operator(pg_catalog.=) pg_catalog.current_database())::pg_catalog.text";

const identity = `select pg_catalog.json_build_array($1::pg_catalog.text, pg_catalog.pg_current_xact_id()::pg_catalog.text,
  pg_catalog.current_setting('transaction_read_only'), pg_catalog.current_database(), current_user,
  pg_catalog.json_build_object('system', ${system}, 'oid', ${oid}, 'mayCreate', exists (
    select from pg_catalog.pg_proc p where p.proname operator(pg_catalog.=) 'create_execution'
      and p.pronamespace operator(pg_catalog.=) pg_catalog.to_regnamespace('flowledger')::pg_catalog.oid
      and pg_catalog.has_function_privilege(p.oid, 'execute'))))::pg_catalog.text`;

const echo = "flowledger";
const Identity = z.tuple([
  z.literal(echo),
  z.string(),
  z.enum(["on", "off"]),
  z.string(),
  z.string(),
  z.object({ system: z.string(), oid: z.string(), mayCreate: z.boolean() }),
]);

const answerWithinMs = 5000;

async function identify(send: Send, names: SchemaNames) {
  let answer: unknown;
  try {
    // A pg client that was never connected keeps what it is asked for ever.
    const sent = withTimeout(send(withNames(identity, names), [echo]), answerWithinMs, () => {
      throw new Error(`no answer for ${answerWithinMs} ms`);
    });
    answer = JSON.parse((await sent) ?? "");
  } catch (error) {
    if (codeOf(error) === "25P02")
      throw new UsageError(
        "tx must be a transaction that can go on, got one in which a statement failed",
        "roll it back, and begin another",
        {},
        error,
      );
    if (codeOf(error) === "25006") throw readOnly(error);
    if (codeOf(error) === "42501" || (isConnectionLoss(error) && !isEnded(error))) throw error;
    throw notOpen(error);
  }
  const parsed = Identity.safeParse(answer);
  if (!parsed.success) throw notOpen(parsed.error);
  const [, id, isReadOnly, place, user, database] = parsed.data;
  if (isReadOnly === "on") throw readOnly();
  return { id, place, user, ...database };
}

function notOpen(cause?: unknown): UsageError {
  return new UsageError(
    "tx must be an open transaction, got something that answers outside of one",
    "pass what sql.begin, db.transaction or client.query('begin') gave you, before it ends, and not the client, pool or database it came from",
    {},
    cause,
  );
}

function readOnly(cause?: unknown): UsageError {
  return new UsageError(
    "tx must be a transaction that may write, got a read-only one",
    "begin it read write, on the primary",
    {},
    cause,
  );
}

function nameOf(value: unknown): string {
  if (value instanceof Promise) return "a promise";
  if (typeof value === "function") return "a function";
  return show(value);
}
