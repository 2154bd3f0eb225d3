/** One server and one fresh database for a run: `DATABASE_URL`'s, else an embedded Postgres with durable defaults. */
import { randomBytes } from "node:crypto";
import postgres from "postgres";
import { startEmbeddedPostgres } from "../src/embedded.ts";
import type { FlowDefinition } from "../src/flow/definition.ts";
import { createOrchestrator } from "../src/orchestrator.ts";
import type { Orchestrator, OrchestratorOptions } from "../src/orchestrator.ts";

export interface Bench extends AsyncDisposable {
  /** What runs here, for the head of the table. */
  readonly server: string;
  /** A migrated database of this run's own. */
  readonly url: string;
  /** For looking at the database, apart from what is measured. */
  readonly sql: postgres.Sql;
  /** Whether pg_stat_statements counts. */
  readonly countsStatements: boolean;
  /** Crashes the server and brings it back; null for a `DATABASE_URL`'s. */
  readonly restart: (() => Promise<void>) | null;
  /** Single-row insert transactions per second, once they are known. */
  floor: number | null;
}

export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly target?: { readonly atLeast?: number; readonly atMost?: number };
  readonly note?: string;
}

export async function openBench(): Promise<Bench> {
  const embedded = process.env["DATABASE_URL"]
    ? null
    : await startEmbeddedPostgres({ flags: ["-c", "shared_preload_libraries=pg_stat_statements"] });
  const serverUrl = process.env["DATABASE_URL"] ?? embedded?.url ?? "";
  const name = `flowledger_bench_${randomBytes(4).toString("hex")}`;
  const admin = postgres(serverUrl, { max: 1, onnotice: () => {} });
  await admin`create database ${admin(name)}`;
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  const sql = postgres(url.href, { max: 2, onnotice: () => {}, connection: { application_name: "bench" } });
  const orchestrator = createOrchestrator({ connection: url.href });
  await orchestrator.migrate();
  await orchestrator.close();
  const [about] = await sql<[{ version: string; durable: string }]>`
    select current_setting('server_version') as version,
      concat('fsync ', current_setting('fsync'), ', synchronous_commit ', current_setting('synchronous_commit')) as durable`;
  const bench: Bench = {
    server: `Postgres ${about.version} (${embedded ? "embedded" : "DATABASE_URL"}, ${about.durable})`,
    url: url.href,
    sql,
    countsStatements: await canCount(sql),
    restart: embedded && (() => embedded.restart("immediate")),
    floor: null,
    async [Symbol.asyncDispose]() {
      await sql.end({ timeout: 1 });
      await admin`drop database if exists ${admin(name)} with (force)`;
      await admin.end({ timeout: 1 });
      await embedded?.stop();
    },
  };
  return bench;
}

/** As a user of the library would: client and worker in one process, one orchestrator. */
export async function openWorker(
  bench: Bench,
  flows: readonly FlowDefinition[],
  concurrency: number,
  options: OrchestratorOptions = {},
): Promise<Orchestrator> {
  const orchestrator = createOrchestrator({ connection: bench.url, flows, ...options });
  await orchestrator.startWorker({ concurrency });
  return orchestrator;
}

/** Statements that clients have sent since the count was last set to zero. */
export async function countStatements(bench: Bench): Promise<number> {
  const [row] = bench.countsStatements
    ? await bench.sql<{ count: number }[]>`
        select coalesce(sum(s.calls), 0)::float8 as count from pg_stat_statements s
        where s.toplevel and s.dbid = (select oid from pg_database where datname = current_database())`
    : await bench.sql<{ count: number }[]>`
        select (xact_commit + xact_rollback)::float8 as count from pg_stat_database where datname = current_database()`;
  return row?.count ?? 0;
}

/** Bytes of WAL the server has written since it was made. */
export async function walPosition(bench: Bench): Promise<number> {
  const [row] = await bench.sql<{ bytes: number }[]>`
    select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as bytes`;
  return row?.bytes ?? 0;
}

async function canCount(sql: postgres.Sql): Promise<boolean> {
  try {
    await sql`create extension if not exists pg_stat_statements`;
    await sql`select count(*) from pg_stat_statements`;
    return true;
  } catch {
    return false;
  }
}
