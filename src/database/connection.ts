/** Clients, the transaction helper, and the words for what can go wrong between us and Postgres. */
import type pg from "pg";
import type postgres from "postgres";
import { z } from "zod";
import {
  ConnectionError,
  ExecutionClosedError,
  ExecutionNotFoundError,
  ExecutionSealedError,
  FlowledgerError,
  InterruptNotPendingError,
  InterventionDisabledError,
  NotMigratedError,
  PendingInterruptsError,
  ResumeConflictError,
  UsageError,
} from "../base/errors.ts";
import { openClient } from "./driver.ts";
import type { DriverOptions, Guards } from "./driver.ts";

export type Sql = postgres.Sql;
/** Where queries can be sent: a pool, or one transaction. */
export type Queries = postgres.Sql | postgres.TransactionSql | postgres.ReservedSql;

/** A connection string, or options of postgres.js. */
export type ConnectionOption = string | DriverOptions;

interface ConnectOverrides {
  max?: number;
  name?: string;
  guards?: Guards;
}

/** A pool for our own SQL: at least two connections, no notices, an application name that says who we are. */
export function connect(option: ConnectionOption, overrides: ConnectOverrides = {}): Sql {
  const given = typeof option === "string" ? {} : option;
  const { name = "flowledger", max = given.max ?? 10, guards } = overrides;
  const connection = { application_name: name, ...given.connection };
  try {
    return openClient(
      typeof option === "string" ? option : null,
      { ...given, max: Math.max(2, max), connection },
      guards,
    );
  } catch (error) {
    throw new ConnectionError(
      describeTarget(option),
      "the connection string cannot be read",
      "use postgres://user:password@host:port/database",
      error,
    );
  }
}

/** The options graphile-worker's own driver needs for the same database. */
export function pgConfig(sql: Sql): pg.PoolConfig {
  const { host, port, database, user, pass, ssl } = sql.options;
  const password = pass ?? undefined;
  const config: pg.PoolConfig = {
    host: host[0],
    port: port[0],
    database,
    user,
    application_name: "flowledger jobs",
    keepAlive: true,
  };
  if (password !== undefined) config.password = password;
  if (ssl) config.ssl = ssl === true || typeof ssl === "string" ? { rejectUnauthorized: ssl === "verify-full" } : ssl;
  return config;
}

/** Is it the connection that failed, and not the statement? Such work may be sent again once the database is back. */
export function isConnectionLoss(error: unknown): boolean {
  const code = codeOf(error);
  if (code === undefined) return false;
  // 08 connection, 57P admin shutdown and starting up, 53 out of resources, 25006 a standby.
  return /^(08|57P|53)/.test(code) || code === "25006" || code === noAnswer || connectionCodes.has(code);
}

/** Our own: a statement went out, and nothing came back in time. */
export const noAnswer = "NO_ANSWER";

const connectionCodes = new Set([
  "CONNECTION_CLOSED",
  "CONNECTION_DESTROYED",
  "CONNECTION_ENDED",
  "CONNECT_TIMEOUT",
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EAI_AGAIN",
]);

/** May the same statement succeed if it is sent again: lock and statement timeouts, deadlocks, serialization failures. */
export function isTransient(error: unknown): boolean {
  return isConnectionLoss(error) || ["40001", "40P01", "55P03", "57014"].includes(codeOf(error) ?? "");
}

export function codeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null) return undefined;
  if ("code" in error && typeof error.code === "string") return error.code;
  // Happy-eyeballs failures come as a bundle.
  if (error instanceof AggregateError) return codeOf(error.errors[0]);
  return undefined;
}

/** Turns what the driver or one of our SQL functions raised into the library's own error. Other errors pass unchanged. */
export function translate(
  error: unknown,
  sql: Sql,
  subject: { id?: string; what?: string; refused?: string } = {},
): unknown {
  if (error instanceof FlowledgerError) return error;
  const code = codeOf(error);
  const id = subject.id ?? "";
  const what = subject.what ?? "commands";
  const refusedWhat = subject.refused ?? what;
  const target = describeTarget(sql);
  const refused = PostgresFailure.safeParse(error).data ?? {
    message: String(error),
    detail: undefined,
    hint: undefined,
  };
  switch (code) {
    case "FL001":
      return new ExecutionNotFoundError(id);
    case "FL002":
      return new ExecutionSealedError(id, refusedWhat);
    case "FL003":
      return new ExecutionClosedError(id, refusedWhat);
    case "FL004":
      return new PendingInterruptsError(id, z.array(z.string()).parse(JSON.parse(refused.detail ?? "[]")));
    case "FL005":
      return new InterruptNotPendingError(id, what, refused.detail || null);
    case "FL006":
      return new ResumeConflictError(id, what, refused.detail ?? "");
    case "FL007":
      return new InterventionDisabledError(id, what);
    case "FL008":
      return new UsageError(refused.message, refused.hint ?? "see the documentation", {}, error);
    case "28P01":
    case "28000":
      return new ConnectionError(
        target,
        `user ${sql.options.user} was refused`,
        "check user and password in the connection string",
        error,
      );
    case "3D000":
      return new ConnectionError(
        target,
        "the database does not exist",
        "create it, or correct the name in the connection string",
        error,
      );
    case "42P01":
    case "3F000":
    case "42883":
      return refused.message.includes("flowledger") || refused.message.includes("graphile_worker")
        ? new NotMigratedError("flowledger", error)
        : error;
    case "CONNECTION_ENDED":
      return new ConnectionError(target, "this orchestrator was closed", "go on with another one", error);
    case "25006":
      return new ConnectionError(target, "it can only be read, as a standby", "connect to the primary", error);
    default:
      if (!isConnectionLoss(error)) return error;
      return connectionCodes.has(code ?? "")
        ? new ConnectionError(
            target,
            `nobody answers (${code})`,
            "start Postgres, or correct host and port in the connection string",
            error,
          )
        : new ConnectionError(
            target,
            `${refused.message} (${code})`,
            "try again; with an idempotencyKey nothing happens twice",
            error,
          );
  }
}

const PostgresFailure = z.object({ message: z.string(), detail: z.string().optional(), hint: z.string().optional() });

function describeTarget(option: ConnectionOption | Sql): string {
  if (typeof option === "string") return option.replace(/\/\/[^@/]*@/, "//");
  const { host, port, database } = typeof option === "function" ? option.options : option;
  return `${String(host ?? "localhost")}:${String(port ?? 5432)}/${database ?? ""}`;
}
