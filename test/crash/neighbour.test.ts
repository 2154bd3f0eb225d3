/** An application's own graphile-worker in our database: its channels are the same for all of them, whatever their schema. */
import { findPackageJSON } from "node:module";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { emptyDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import { startProcess } from "../support/processes.ts";
import { sleeper } from "./flows.ts";
import { expectGuarantees, startWorker, until } from "./support.ts";

const starts = 10_000;

for (const [version, name] of [
  ["0.18", "graphile-worker"],
  ["0.16", "graphile-worker-0.16"],
] as const) {
  const isInstalled = hasPackage(name);
  const why = isInstalled ? "" : ` (skipped: the package ${name} is not installed)`;
  test.skipIf(!isInstalled)(
    `an application's graphile-worker ${version} lives through our migrate() and ${starts} starts${why}`,
    async () => {
      await using database = await emptyDatabase();
      const { sql, url } = database;
      await sql`create table public.counted (n int)`;
      await using neighbour = await startProcess(join(import.meta.dirname, "neighbour.ts"), {
        env: { NEIGHBOUR: name, CRASH_URL: url },
      });
      const announced: string[] = [];
      await sql.listen("worker:migrate", (payload) => void announced.push(payload));
      const jobs = new Jobs(database);
      await jobs.untilDone();

      await using orchestrator = visiting(database, [sleeper]);
      await orchestrator.migrate();
      await jobs.untilDone();
      await using worker = await startWorker(url);
      const bound = orchestrator.flow(sleeper);
      for (let page = 0; page < 10; page++)
        await Promise.all(Array.from({ length: starts / 10 }, () => bound.startExecution({}, { autoCloseTimeout: 0 })));
      await untilClosed(database, starts);
      await orchestrator.migrate();
      const added = await jobs.end();

      const counted = await sql<{ n: number }[]>`select n from public.counted order by n`;
      expect(counted.map(({ n }) => n)).toEqual(Array.from({ length: added }, (_, n) => n));
      expect(await sql`select 1 from graphile_worker.jobs`).toHaveLength(0);
      expect(announced).toEqual([]);
      expect(neighbour.output()).toBe("ready\n");
      await expectGuarantees(sql);

      // Anybody may announce that: theirs stops for it, ours does not.
      await sql`select pg_notify('worker:migrate', '{"migrationNumber": 1000000, "breaking": true}')`;
      expect(await neighbour.exited).toEqual({ code: 57, signal: null });
      expect(await bound.start({})).toEqual({});
      worker.kill("SIGTERM");
      expect(await worker.exited).toEqual({ code: 0, signal: null });
    },
  );
}

/** Jobs of the application, one after the other all the time. */
class Jobs {
  readonly #database: TestDatabase;
  readonly #adding: Promise<void>;
  #added = 0;
  #isOver = false;

  constructor(database: TestDatabase) {
    this.#database = database;
    this.#adding = this.#add();
    // It shows at the end.
    this.#adding.catch(() => {});
  }

  /** What is added now has run. */
  async untilDone(): Promise<void> {
    const { sql } = this.#database;
    const last = this.#added + 5;
    const isDone = await until(
      async () => (await sql`select 1 from public.counted where n = ${last}`).length > 0,
      30_000,
    );
    if (!isDone) throw new Error(`job ${last} of the application has not run within 30 s`);
  }

  /** Adds no more, and gives their number once all have run. */
  async end(): Promise<number> {
    await this.untilDone();
    this.#isOver = true;
    await this.#adding;
    await until(async () => (await this.#database.sql`select 1 from graphile_worker.jobs`).length === 0);
    return this.#added;
  }

  async #add(): Promise<void> {
    for (; !this.#isOver; await delay(10)) {
      await this.#database.sql`select graphile_worker.add_job('count', json_build_object('n', ${this.#added}::int))`;
      this.#added += 1;
    }
  }
}

async function untilClosed({ sql }: TestDatabase, count: number): Promise<void> {
  const isDone = await until(async () => {
    const [row] = await sql<[{ closed: number }]>`
      select count(*)::int as closed from flowledger.executions where closed_at is not null`;
    return row.closed === count;
  }, 60_000);
  if (!isDone) throw new Error(`${count} executions have not closed within 60 s`);
}

function hasPackage(name: string): boolean {
  try {
    return findPackageJSON(name, import.meta.url) !== undefined;
  } catch {
    return false;
  }
}
