/** A chunk's transaction over its own database: the application's rows and the record that they were written commit together. */
import type pg from "pg";
import { retry, withTimeout } from "../base/async.ts";
import { NotMigratedError, PermissionError, UsageError } from "../base/errors.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import type { Transaction, TransactionSource } from "../flow/context.ts";
import { append } from "./append.ts";
import type { Append, Committed } from "./append.ts";
import { retryTransient } from "./batcher.ts";
import { isPg, isPostgresJs, type PgClient } from "./caller-transaction.ts";
import { named, pgConfig } from "./client.ts";
import type { Database, Queries } from "./client.ts";
import { codeOf, isConnectionLoss } from "./refusals.ts";
import type { Target } from "./refusals.ts";

export interface Transactions {
  /**
   * Runs `work` in a new transaction and then `record`, which sends one append inside it; both commit, or neither. What Postgres
   * asks to run again, after a deadlock or a failed serialization, runs again.
   *
   * @param source what opens the transaction; null is a connection of ours
   */
  run<T>(
    source: TransactionSource | null,
    work: (tx: unknown) => Promise<T>,
    record: (value: T, send: Send) => Promise<void>,
  ): Promise<void>;
  close(): Promise<void>;
}

/** Sends an append as the last statement of the transaction, and resolves when the commit has been answered for. */
export type Send = (item: Append) => Promise<Committed>;

/** How often a transaction is begun anew because another one was in its way. */
const attempts = 5;
/** Transactions of chunks at once, over a connection of ours. */
const poolSize = 10;

export function transactionsOf(database: Database): Transactions {
  let pool: Promise<pg.Pool> | undefined;
  const own: Begin = async (body) => inPool(await (pool ??= openPool(database)), body);
  return {
    run(source, work, record) {
      const begin = source === null ? own : beginOf(source);
      let left = attempts;
      return retry(() => once(database, begin, work, record), {
        shouldRetry: (error) => --left > 0 && ["40001", "40P01"].includes(codeOf(error) ?? ""),
        waitMs: (attempt) => 20 * 2 ** attempt,
      });
    },
    async close() {
      await (await pool)?.end();
    },
  };
}

type Begin = (body: (tx: unknown) => Promise<void>) => Promise<unknown>;

async function once<T>(
  database: Database,
  begin: Begin,
  work: (tx: unknown) => Promise<T>,
  record: (value: T, send: Send) => Promise<void>,
): Promise<void> {
  let recording: Promise<void> | undefined;
  const ended: Promise<unknown> = begin(async (tx) => {
    const client = queriesOf(tx);
    if (!client)
      throw new UsageError(
        "client of ctx.transaction() opens transactions of a kind that is not known",
        "pass a client of postgres.js, a pool of pg, or a drizzle database on one of them",
      );
    const queries = named(client, database.names);
    const value = await work(tx);
    const body = Promise.withResolvers<void>();
    recording = record(value, async (item) => {
      const result = await appended(() => append(queries, [item])).catch((error: unknown) => {
        throw refusedRecord(error, database.target);
      });
      if (result.verdict !== "ok") {
        if (result.verdict === "fenced") await requireSameDatabase(database, item);
        return result;
      }
      body.resolve();
      try {
        await ended;
      } catch (error) {
        if (isConnectionLoss(error) && (await isIn(database, item))) return { verdict: "repeat" };
        throw error;
      }
      return result;
    });
    // An end before the commit was asked for rolls the transaction back.
    recording.then(
      () => body.reject(new NotRecorded()),
      (error: unknown) => body.reject(error),
    );
    await body.promise;
  });
  try {
    await ended;
  } catch (error) {
    // The owner knows more: whether a commit without an answer is in, or why nothing was recorded.
    if (recording) return recording;
    throw error;
  }
  return recording;
}

/** Our statements on the client inside a transaction, or on the transaction itself. */
function queriesOf(tx: unknown): Queries | null {
  return overDriver(tx) ?? overDriver(Reflect.get(Object(Reflect.get(Object(tx), "session")), "client"));
}

function overDriver(value: unknown): Queries | null {
  if (isPostgresJs(value)) return value;
  return isPg(value) ? overPg(value) : null;
}

/** The template's values become $1, $2 … */
function overPg(client: PgClient): Queries {
  const query = async (strings: TemplateStringsArray, ...values: unknown[]): Promise<unknown[]> => {
    const text = strings.reduce((sql, part, index) => `${sql}$${index}${part}`);
    return (await client.query(text, values)).rows;
  };
  return query as unknown as Queries;
}

/** What the record met in a transaction that others have used before. */
function refusedRecord(error: unknown, { place, schema }: Target): unknown {
  const code = codeOf(error);
  if (code === "25P02")
    return new UsageError(
      "a statement of ctx.transaction() failed, and the work went on as if it had not",
      "let the error through, or put what may fail behind a savepoint",
      {},
      error,
    );
  // The missing right is that of the caller's client.
  if (code === "42501") return new PermissionError("of the client of ctx.transaction()", place, String(error), error);
  if (code === "3F000" || code === "42P01" || code === "42883") return new NotMigratedError(schema, error);
  return error;
}

/** The owner did not take the record: the transaction rolls back. */
class NotRecorded extends Error {}

/** "busy": the row changed hands in that moment. */
async function appended(send: () => ReturnType<typeof append>): Promise<Committed> {
  for (;;) {
    const [result] = await send();
    if (result && result.verdict !== "busy") return result;
    await liveness.sleep(20);
  }
}

/** Whether a commit that got no answer is in: with the row's lock nothing of that transaction is under way any more. */
async function isIn({ sql }: Database, { id, epoch, token, commitNo, base }: Append): Promise<boolean> {
  const [row] = await retryTransient(
    () => sql<[{ verdict: string }]>`
      select flowledger.settled_verdict(${id}::uuid, ${epoch}, ${token}::uuid, ${commitNo}, ${base}) as verdict`,
  );
  return row.verdict === "repeat";
}

/** Fenced there and not here: that is another database. @throws {UsageError} */
async function requireSameDatabase(
  { sql, target }: Database,
  { id, epoch, token, commitNo, base }: Append,
): Promise<void> {
  const [row] = await sql<[{ verdict: string }]>`
    select flowledger.append_verdict(${id}::uuid, ${epoch}, ${token}::uuid, ${commitNo}, ${base}) as verdict`;
  if (row.verdict !== "fenced")
    throw new UsageError(
      `client of ctx.transaction() is connected to another database than ${target.place}`,
      "give it the database that the worker is connected to",
    );
}

async function openPool(database: Database): Promise<pg.Pool> {
  const { default: driver } = await import("pg");
  // The application's statements run under the database's own settings; ours rely on one setting only.
  const options = "array_nulls" in database.settings ? "-c array_nulls=on" : "";
  const pool = new driver.Pool({ ...pgConfig(database, "flowledger transactions"), options, max: poolSize });
  // A lost idle connection harms nothing: the next transaction opens another.
  pool.on("error", () => {});
  return pool;
}

/** What a pool of pg is to us. */
interface Pool {
  connect(): Promise<Connection>;
}

interface Connection {
  query(...args: readonly unknown[]): Promise<{ rows: unknown[] }>;
  release(destroy?: boolean): void;
  on?(event: "error", listener: () => void): unknown;
  off?(event: "error", listener: () => void): unknown;
}

async function inPool(pool: Pool, body: (tx: unknown) => Promise<void>): Promise<void> {
  const connection = await pool.connect();
  // Between two statements no one else listens for an error; the next statement fails.
  const ignore = () => {};
  connection.on?.("error", ignore);
  const tx = new OwnTransaction(connection);
  let isEnded = false;
  try {
    await connection.query("begin");
    await body(tx);
    tx.end();
    await connection.query("commit");
    isEnded = true;
  } catch (error) {
    tx.end();
    // A statement that the work left running may delay the rollback, or block it.
    isEnded = await withTimeout(
      connection.query("rollback").then(() => true),
      1000,
      () => false,
    ).catch(() => false);
    throw error;
  } finally {
    connection.off?.("error", ignore);
    connection.release(!isEnded);
  }
}

/** One transaction; when it has ended, nothing goes through it any more. */
class OwnTransaction implements Transaction {
  #connection: Connection | null;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  query<Row extends object>(...args: readonly unknown[]): Promise<{ rows: Row[]; rowCount: number | null }> {
    if (!this.#connection)
      return Promise.reject(
        new UsageError(
          "a transaction was used after its end",
          "await every query before the work of ctx.transaction() returns",
        ),
      );
    return this.#connection.query(...args) as Promise<{ rows: Row[]; rowCount: number | null }>;
  }

  end(): void {
    this.#connection = null;
  }
}

/** @throws {UsageError} */
function beginOf(source: TransactionSource): Begin {
  const given: unknown = source;
  if ((typeof given === "object" && given !== null) || typeof given === "function") {
    if ("begin" in source && typeof source.begin === "function") return (body) => source.begin(body);
    if ("transaction" in source && typeof source.transaction === "function") return (body) => source.transaction(body);
    if ("idleCount" in source && "connect" in source) return (body) => inPool(source as Pool, body);
  }
  throw new UsageError(
    "client of ctx.transaction() opens no transactions",
    "pass a client of postgres.js, a pool of pg, or a drizzle database on one of them",
  );
}
