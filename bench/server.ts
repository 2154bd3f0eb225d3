/** One server and one fresh database for a run: `DATABASE_URL`'s, else an embedded Postgres with durable defaults. */
import { randomBytes } from "node:crypto";
import postgres from "postgres";
import { startEmbeddedPostgres } from "../src/embedded.ts";
import type { FlowDefinition } from "../src/flow/definition.ts";
import { createOrchestrator } from "../src/orchestrator.ts";
import type { Orchestrator } from "../src/orchestrator.ts";
import type { OrchestratorOptions } from "../src/orchestrator/options.ts";
import type { EngineName } from "./peers/engine.ts";
import type { Table } from "./table.ts";

export interface Bench extends AsyncDisposable {
  /** What runs here, for the head of the table. */
  readonly server: string;
  /** A migrated database of this run's own. */
  readonly url: string;
  /** For looking at the database, apart from what is measured. */
  readonly sql: postgres.Sql;
  /** Whether pg_stat_statements counts. */
  readonly countsStatements: boolean;
  /** The server's first process; null for a `DATABASE_URL`'s. */
  serverPid(): number | null;
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

/** What a benchmark found, where a list of figures is not enough. */
export interface Found {
  readonly tables: readonly Table[];
  readonly figures: readonly Figure[];
}

/** How much to measure, of benchmarks that go in rounds. */
export interface Size {
  readonly rounds: number;
  /** Of each measurement. */
  readonly seconds: number;
  /** Null for all. */
  readonly engines: readonly EngineName[] | null;
  /** The other engines as published last, in place of those of the lock file. */
  readonly newest: boolean;
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
      concat('fsync ', current_setting('fsync'), ', synchronous_commit ', current_setting('synchronous_commit'),
        ', full_page_writes ', current_setting('full_page_writes')) as durable`;
  const bench: Bench = {
    server: `Postgres ${about.version} (${embedded ? "embedded" : "DATABASE_URL"}, ${about.durable})`,
    url: url.href,
    sql,
    countsStatements: await canCount(sql),
    serverPid: () => embedded?.pid ?? null,
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

/** Statements that clients have sent, to the bench's own database or another, since the count was last set to zero. */
export async function countStatements(bench: Bench, database = new URL(bench.url).pathname.slice(1)): Promise<number> {
  const [row] = bench.countsStatements
    ? await bench.sql<{ count: number }[]>`
        select coalesce(sum(s.calls), 0)::float8 as count from pg_stat_statements s
        where s.toplevel and s.dbid = (select oid from pg_database where datname = ${database})`
    : await bench.sql<{ count: number }[]>`
        select (xact_commit + xact_rollback)::float8 as count from pg_stat_database where datname = ${database}`;
  return row?.count ?? 0;
}

/** Bytes of WAL the server has written since it was made. */
export async function walPosition(bench: Bench): Promise<number> {
  const [row] = await bench.sql<{ bytes: number }[]>`
    select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as bytes`;
  return row?.bytes ?? 0;
}

/** A lost lock says nothing while everybody has lost it: for ten seconds after the start of Postgres only silence counts. */
export async function untilLocksCount(bench: Bench): Promise<void> {
  await bench.sql`
    select pg_sleep(greatest(0, extract(epoch from pg_postmaster_start_time() + interval '11 seconds' - clock_timestamp())))`;
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
