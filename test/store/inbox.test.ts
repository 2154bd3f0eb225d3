/** A page of the inbox costs what it shows, however much waits. */
import { expect, test } from "vitest";
import { createOrchestrator } from "../../src/index.ts";
import { administer, testDatabase } from "../support/database.ts";

const database = await testDatabase();
const { sql } = database;

test("the first page for three groups reads no more than it shows, with 100,000 pending", async () => {
  // A question each; every third one to each of three groups, some of them due.
  await sql`
    insert into flowledger.interrupts (execution_id, id, flow, chunk, type, status, resume_to, resume_count, created_at, raised_seq, assignees, due_at)
    select flowledger.new_id(), 'q', 'many', 'ask', 'approval', 'pending', '"next"', 0, now() - n * interval '1 second', 1,
      array['group:' || n % 3, 'group:' || n % 7], case when n % 2 = 0 then now() + (n - 50000) * interval '1 minute' end
    from generate_series(1, 100000) n`;
  await sql`
    insert into flowledger.assignments (principal, due_at, created_at, execution_id, interrupt_id)
    select distinct p, coalesce(i.due_at, 'infinity'), i.created_at, i.execution_id, i.id
    from flowledger.interrupts i cross join unnest(i.assignees) p`;
  await using orchestrator = createOrchestrator({ connection: database.url });
  const asked = { for: ["group:0", "group:1", "group:2"], limit: 50 };
  const { nextCursor } = await orchestrator.inbox(asked);
  const read = async () => {
    await sql`select pg_stat_force_next_flush()`;
    await sql`select pg_stat_clear_snapshot()`;
    const [row] = await sql<[{ rows: number }]>`
      select sum(idx_tup_read)::int as rows from pg_stat_user_indexes where relname in ('assignments', 'interrupts') and schemaname = 'flowledger'`;
    return row.rows;
  };
  const pages = {
    first: asked,
    second: { ...asked, cursor: nextCursor },
    all: { limit: 50 },
    overdue: { ...asked, overdue: true },
  };

  for (const statistics of ["none", "analysed"]) {
    if (statistics === "analysed") await sql`analyze flowledger.interrupts, flowledger.assignments`;
    for (const [name, options] of Object.entries(pages)) {
      const before = await read();
      // A session of its own plans anew.
      const [row] = await administer(
        database.url,
        (client) => client<[{ listed: number }]>`
          select count(*)::int as listed from flowledger.inbox(${JSON.stringify(options)}::text::jsonb)`,
      );

      expect(row.listed).toBe(50);
      // An index row and its question for each of three groups, and the records.
      expect((await read()) - before, `${name}, statistics ${statistics}`).toBeLessThanOrEqual(3 * 51 * 3);
    }
  }
}, 120_000);
