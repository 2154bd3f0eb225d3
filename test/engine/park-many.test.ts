/** Chunks of one execution that park one after the other: each costs what the first did. */
import { expect, test } from "vitest";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import { verify } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";

const database = await testDatabase();
const { sql } = database;

/** Rows of the ledger that sessions have read which are over. */
async function rowsRead(): Promise<number> {
  await sql`select pg_stat_force_next_flush()`;
  await sql`select pg_stat_clear_snapshot()`;
  const [row] = await sql<[{ rows: number }]>`
    select (seq_tup_read + idx_tup_fetch)::int as rows from pg_stat_user_tables where relname = 'ledger' and schemaname = 'flowledger'`;
  return row.rows;
}

/** Per chunk that parked, each in a commit of its own. */
async function readPerPark(size: number): Promise<number> {
  const flow = defineFlow(`park.many.${size}`, {}, { onFailure: "park" });
  flow
    .to("make", () => Array.from({ length: size }, (_, n) => n))
    .forEach({ concurrency: 1 })
    .to("each", (ctx) => {
      throw new Error(`no ${String(ctx.input)}`);
    })
    .endForEach();
  const before = await rowsRead();
  const orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
  await orchestrator.startWorker({ drainTimeout: "1s" });
  const { id } = await orchestrator.flow(flow).startExecution();
  const parked = () => sql`select parked from flowledger.executions where id = ${id}`;
  await expect.poll(parked, { timeout: 60_000, interval: 100 }).toEqual([{ parked: size }]);
  await orchestrator.close();
  const backends = () =>
    sql`select 1 from pg_stat_activity where datname = current_database() and application_name like 'flowledger%'`;
  await expect.poll(backends).toEqual([]);
  const read = (await rowsRead()) - before;
  expect(await verify(sql, { id })).toEqual([]);
  return read / size;
}

test("400 chunks that park read of the ledger what 100 do, each", { timeout: 120_000 }, async () => {
  const few = await readPerPark(100);
  const many = await readPerPark(400);

  // All that had parked before, for each, would be four times as much.
  expect(many).toBeLessThan(few * 1.5 + 5);
});
