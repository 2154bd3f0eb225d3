/** What reads a ledger reads it in a few passes, however many chunks are parked and pauses wait: not in one for each of them. */
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { defineFlow } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { serving } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
const items = 600;

const half = defineFlow("passes.half", {}, { onFailure: "park" });
half
  .forEach()
  .to("pass", (ctx) => ctx.input)
  .to("work", async (ctx) => {
    const item = Number(ctx.input);
    if (item % 2 === 0) throw new Error(`item ${item}`);
    return ctx.pauseFor({ interruptId: `q${item}`, payload: null });
  })
  .endForEach();

const orchestrator = await serving(database, [half]);
afterAll(() => orchestrator.close());
let id: string;
let events: number;

beforeAll(async () => {
  const input = Array.from({ length: items }, (_, item) => item);
  ({ id } = await orchestrator.flow(half).startExecution(input, { autoClose: false }));
  const row = await vi.waitFor(
    async () => {
      const [found] = await sql`
        select seq, parked, pending_interrupts as pending, owner from flowledger.executions where id = ${id}`;
      const isAtRest = found?.["parked"] === items / 2 && found["pending"] === items / 2 && found["owner"] === null;
      if (!isAtRest) throw new Error(`not at rest: ${JSON.stringify(found)}`);
      return found;
    },
    { timeout: 15_000, interval: 100 },
  );
  events = Number(row?.["seq"]);
});

const why = JSON.stringify({ actor: "ann", reason: "INC-1" });

/** A name, the query, and in how many passes it may read the ledger. */
test.each<[string, string, number?]>([
  ["parked_of", "select * from flowledger.parked_of($1)"],
  ["planned_of", "select * from flowledger.planned_of($1)"],
  ["open_dispatches", "select * from flowledger.open_dispatches($1)"],
  ["standing", "select flowledger.standing($1)"],
  ["explain", "select flowledger.explain($1)"],
  ["timeline", "select flowledger.timeline($1, null, 1000)"],
  ["a page of the timeline", "select flowledger.timeline($1, null, 10)", 1.2],
  ["meta", "select flowledger.meta($1)", 5],
  ["state_at", "select flowledger.state_at($1)"],
  ["pending_in", "select flowledger.pending_in($1)"],
  ["start_input", "select flowledger.start_input($1)"],
  ["audit_interrupts", "select * from flowledger.audit_interrupts where execution_id = $1"],
  ["retry", `select flowledger.retry($1, '${why}', false)`],
  ["a skip that is refused, since there are many", `select flowledger.skip($1, '${why}', false)`, 12],
  ["a close that is refused, since chunks are parked", "select flowledger.close($1, notify => false)"],
])("%s", async (_, query, passes = 10) => {
  const read = await rowsRead(query);

  expect(read / events).toBeLessThan(passes);
});

/** How many rows of the ledger a query fetches. Nothing of it stays. */
async function rowsRead(query: string): Promise<number> {
  const connection = await sql.reserve();
  // It counts on from transaction to transaction, until the session has reported.
  const count = async () => {
    const [row] = await connection`
      select seq_tup_read + coalesce(idx_tup_fetch, 0) as read from pg_stat_xact_user_tables
      where schemaname = 'flowledger' and relname = 'ledger'`;
    return Number(row?.["read"]);
  };
  try {
    await connection`begin`;
    await connection`savepoint before`;
    const before = await count();
    await connection.unsafe(query, [id]).catch(() => connection`rollback to before`);
    return (await count()) - before;
  } finally {
    await connection`rollback`;
    connection.release();
  }
}
