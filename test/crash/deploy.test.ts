/** Two releases in one database: a deploy rolls forth and back while executions run, and a release that is too old is refused. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, expect, test } from "vitest";
import { release } from "../../src/base/release.ts";
import { MigrationError } from "../../src/index.ts";
import type { Orchestrator } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { refusal, visiting } from "../support/flows.ts";
import { startProcess } from "../support/processes.ts";
import type { TestProcess } from "../support/processes.ts";
import { nextRelease, nextVersion } from "../support/release.ts";
import { order, shippedOf } from "./orders.ts";
import { expectGuarantees, until } from "./support.ts";

const workerFile = join(import.meta.dirname, "orders.ts");
const folder = mkdtempSync(join(tmpdir(), "flowledger-effects-"));
const effects = join(folder, "effects");
writeFileSync(effects, "");
afterAll(() => rmSync(folder, { recursive: true }));

/** What the next release changes: a column, and two functions that the old one calls as before, among them the one of every commit. */
const changes = {
  files: {
    "migrations/0002_next.sql":
      "-- locks: executions, for a moment; workers: go on\nalter table flowledger.executions add column committed_by text;",
  },
  patches: {
    "migrations/functions/30_append.sql": [
      ["      commit_no = x.commit_no,", "      commit_no = x.commit_no, committed_by = 'next',"],
    ],
    "migrations/functions/95_verify.sql": [["'{commit_no,commit_seq,", "'{commit_no,commit_seq,committed_by,"]],
  },
} as const;

test("a deploy rolls forth and back under load: nothing is lost or done twice, and the newer functions stay", async () => {
  await using database = await testDatabase();
  const { sql, url } = database;
  using next = nextRelease(changes);
  const start = (file: string) => startProcess(file, { env: { CRASH_URL: url, DEPLOY_EFFECTS: effects } });
  await using client = visiting(database, [order]);
  await using first = await start(workerFile);
  await using second = await start(workerFile);
  const load = new Load(client, database);
  await load.goesOn();

  expect(await next.cli("migrate", "--database", url)).toMatchObject({ code: 0 });
  const functions = await functionsOf(database);
  await load.goesOn();
  const byOld = await sql`select 1 from flowledger.executions where closed_at is not null and committed_by = 'next'`;
  await using newer = await start(next.path("test/crash/orders.ts"));
  await drain(first);
  await load.goesOn();
  await using restarted = await start(workerFile);
  await drain(second);
  await load.goesOn();
  const between = await functionsOf(database);
  await drain(newer);
  await load.goesOn();
  const orders = await load.end();

  expect(functions.get("append")).toContain("committed_by = 'next'");
  for (const found of [between, await functionsOf(database)]) expect(found).toEqual(functions);
  const [recorded] = await sql`select release from flowledger.migrations where name = 'functions'`;
  expect(recorded).toEqual({ release: nextVersion });
  const ended = await sql<{ id: string; outcome: string; snapshot: unknown }[]>`
    select id, outcome, close_snapshot as snapshot from flowledger.executions`;
  expect(new Map(ended.map(({ id, outcome, snapshot }) => [id, { outcome, snapshot }]))).toEqual(
    new Map([...orders].map(([id, n]) => [id, { outcome: "completed", snapshot: { shipped: shippedOf(n) } }])),
  );
  expect(byOld.length).toBeGreaterThanOrEqual(15);
  await expectEffects(database, [...orders.keys()], [release, nextVersion]);
  await expectGuarantees(sql);
  expect(await next.cli("verify", "--database", url)).toMatchObject({ code: 0 });
  await drain(restarted);
});

test.each([
  ["with other functions", changes],
  ["with other code alone", {}],
])(
  "a release that needs its own kind, %s, refuses the older one, which has changed nothing by then",
  async (_, more) => {
    await using database = await testDatabase();
    using next = nextRelease({ ...more, minRelease: nextVersion });
    await using before = visiting(database, [order]);
    const { id } = await before.flow(order).startExecution(1);
    expect(await next.cli("migrate", "--database", database.url)).toMatchObject({ code: 0 });
    const there = await everythingOf(database);
    const refused = `the database was migrated by flowledger ${nextVersion} and needs ${nextVersion} or newer, this is ${release}: upgrade flowledger in this process`;

    await using orchestrator = visiting(database, [order]);
    const attempts: (() => Promise<unknown>)[] = [
      () => orchestrator.migrate(),
      () => orchestrator.startWorker(),
      () => orchestrator.flow(order).startExecution(2),
      () => orchestrator.getExecution(id),
    ];
    for (const attempt of attempts) {
      const error = await refusal(attempt());
      expect(error).toBeInstanceOf(MigrationError);
      expect(error).toMatchObject({
        code: "MIGRATION_FAILED",
        details: { release, by: nextVersion, minRelease: nextVersion },
        message: refused,
      });
    }

    await expect(startProcess(workerFile, { env: { CRASH_URL: database.url } })).rejects.toThrow(
      `MigrationError: ${refused}`,
    );
    expect(await everythingOf(database)).toEqual(there);
  },
);

/** Orders that come in all the time, and answers to most of what they ask; the others are answered at the end. */
class Load {
  readonly #database: TestDatabase;
  readonly #client: Orchestrator;
  readonly #orders = new Map<string, number>();
  readonly #over = new AbortController();
  readonly #ended: Promise<unknown>;

  constructor(client: Orchestrator, database: TestDatabase) {
    this.#client = client;
    this.#database = database;
    this.#ended = Promise.all([this.#place(), this.#answer()]);
    // It shows at the end.
    this.#ended.catch(() => {});
  }

  /** Orders that are placed from now on have ended. */
  async goesOn(): Promise<void> {
    const { sql } = this.#database;
    const before = [...this.#orders.keys()].at(-1) ?? "00000000-0000-0000-0000-000000000000";
    const goesOn = await until(async () => {
      const [row] = await sql<[{ closed: number }]>`
        select count(*)::int as closed from flowledger.executions where id > ${before} and closed_at is not null`;
      return row.closed >= 15;
    }, 30_000);
    if (!goesOn) throw new Error(`no fifteen orders after ${before} have ended within 30 s`);
  }

  /** Places no more, answers what is left, and waits for all of them. Gives their inputs. */
  async end(): Promise<ReadonlyMap<string, number>> {
    this.#over.abort();
    await this.#ended;
    const all = [...this.#orders.keys()];
    const { sql } = this.#database;
    const isOver = await until(async () => {
      await this.#answerSome(() => true);
      return (await sql`select 1 from flowledger.executions where closed_at is null`).length === 0;
    }, 30_000);
    if (!isOver) throw new Error(`of ${all.length} orders some have not ended`);
    return this.#orders;
  }

  async #place(): Promise<void> {
    for (let n = 0; !this.#over.signal.aborted; n++) {
      const { id } = await this.#client.flow(order).startExecution(n, { autoCloseTimeout: 0 });
      this.#orders.set(id, n);
      await delay(25);
    }
  }

  async #answer(): Promise<void> {
    for (; !this.#over.signal.aborted; await delay(25)) await this.#answerSome((n) => n % 4 > 0);
  }

  async #answerSome(isMeant: (n: number) => boolean): Promise<void> {
    const { interrupts } = await this.#client.listPendingInterrupts({ limit: 1000 });
    const meant = interrupts.filter(({ executionId }) => isMeant(this.#orders.get(executionId) ?? 0));
    for (const { executionId, id, payload } of meant)
      await (await this.#client.getExecution(executionId)).continueWith(id, payload);
  }
}

/** SIGTERM, as a deploy sends it: it gives back what it has, and ends. */
async function drain(worker: TestProcess): Promise<void> {
  worker.kill("SIGTERM");
  expect(await worker.exited).toEqual({ code: 0, signal: null });
}

/** Each step did its work once, and what the ledgers say of that is what was done; workers of both releases had their share. */
async function expectEffects(
  { sql }: TestDatabase,
  ids: readonly string[],
  releases: readonly string[],
): Promise<void> {
  const lines = readFileSync(effects, "utf8").trim().split("\n");
  const recorded = await sql<{ id: string; step: string }[]>`
    select execution_id as id, payload ->> 'name' as step from flowledger.ledger where type = 'step.completed'`;
  const once = ids.flatMap((id) => [`${id} charge`, `${id} ship`]).toSorted();
  expect(lines.map((line) => line.slice(line.indexOf(" ") + 1)).toSorted()).toEqual(once);
  expect(recorded.map(({ id, step }) => `${id} ${step}`).toSorted()).toEqual(once);
  expect([...new Set(lines.map((line) => line.slice(0, line.indexOf(" "))))].toSorted()).toEqual(releases.toSorted());
}

async function functionsOf({ sql }: TestDatabase): Promise<Map<string, string>> {
  const rows = await sql<{ name: string; body: string }[]>`
    select p.proname as name, string_agg(pg_get_functiondef(p.oid), ' ' order by p.oid) as body
    from pg_proc p where p.pronamespace = 'flowledger'::regnamespace and p.prokind = 'f' group by p.proname`;
  return new Map(rows.map(({ name, body }) => [name, body]));
}

/** What a migration, a worker or a start would change. */
async function everythingOf(database: TestDatabase) {
  const { sql } = database;
  return {
    functions: await functionsOf(database),
    migrations: [...(await sql`select * from flowledger.migrations order by name`)],
    columns: [
      ...(await sql`select table_name, column_name from information_schema.columns where table_schema ~ '^flowledger' order by 1, 2`),
    ],
    ledger: [...(await sql`select execution_id, seq, type from flowledger.ledger order by 1, 2`)],
    workers: [...(await sql`select id from flowledger.workers`)],
    jobs: [...(await sql`select id from flowledger_jobs._private_jobs order by 1`)],
  };
}
