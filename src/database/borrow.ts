/** A transaction of the caller's own, whichever of the three drivers it came from, as we send queries to it. */
import type postgres from "postgres";
import { UsageError } from "../base/errors.ts";
import type { Queries } from "./connection.ts";

/** A transaction (or client inside one) of postgres.js, drizzle on postgres.js or pg, or pg. */
export type CallerTransaction = postgres.TransactionSql | postgres.ReservedSql | PgClient | DrizzleTransaction;

/** What `pg` clients share. */
export interface PgClient {
  query(text: string, values?: unknown[]): Promise<{ rows: unknown[] }>;
}

/** What drizzle transactions share: the driver's own client is inside. */
export interface DrizzleTransaction {
  execute(query: never): unknown;
}

/** The caller's transaction as tagged-template queries. @throws {UsageError} for anything else */
export function borrow(tx: CallerTransaction): Queries {
  if (isPostgresJs(tx)) return tx;
  if (isPg(tx)) return overPg(tx);
  const inner: unknown = Reflect.get(Object(Reflect.get(Object(tx), "session")), "client");
  if (isPostgresJs(inner)) return inner;
  if (isPg(inner)) return overPg(inner);
  throw new UsageError(
    "tx is not a transaction of postgres.js, drizzle or pg",
    "pass what sql.begin, db.transaction or client.query('begin') gave you",
  );
}

function isPostgresJs(value: unknown): value is postgres.TransactionSql {
  return typeof value === "function" && "unsafe" in value;
}

function isPg(value: unknown): value is PgClient {
  return typeof value === "object" && value !== null && "query" in value && typeof value.query === "function";
}

/** Our statements on a pg client: the template's values become $1, $2 … */
function overPg(client: PgClient): Queries {
  const query = async (strings: TemplateStringsArray, ...values: unknown[]): Promise<unknown[]> => {
    const text = strings.reduce((sql, part, index) => `${sql}$${index}${part}`);
    return (await client.query(text, values)).rows;
  };
  return query as unknown as Queries;
}
