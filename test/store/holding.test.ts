/** What few executions hold in their metadata is found by its index, however many others there are. */
import { expect, test } from "vitest";
import { administer, testDatabase } from "../support/database.ts";
import { storeOn } from "../support/store.ts";

test.each(["force_custom_plan", "force_generic_plan"])(
  "the newest that hold what few others hold are read, and no others: %s",
  async (mode) => {
    await using database = await testDatabase();
    await database.sql`
      insert into flowledger.executions (id, seq, flow, created_at, started_at, metadata)
      select ('0190a000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 1, 'chat', now(), now(),
        jsonb_build_object('user', 'ann', 'chat', 'chat-' || n / 4)
      from generate_series(0, 19999) n`;
    await database.sql`vacuum analyze flowledger.executions`;

    const { found, rows } = await administer(database.url, async (client) => {
      const { reads } = storeOn(client);
      await client`select set_config('plan_cache_mode', ${mode}, false)`;
      const read = async () => {
        await client`select pg_stat_force_next_flush()`;
        await client`select pg_stat_clear_snapshot()`;
        const [row] = await client<[{ rows: number }]>`
          select (seq_tup_read + idx_tup_fetch)::int as rows from pg_stat_user_tables where relname = 'executions' and schemaname = 'flowledger'`;
        return row.rows;
      };
      const before = await read();
      const held = await reads.listHolding("chat", { user: "ann", chat: "chat-10" }, 3);
      return { found: held.map(({ id }) => id.slice(-2)), rows: (await read()) - before };
    });

    expect(found).toEqual(["2b", "2a", "29"]);
    expect(rows).toBeLessThan(10);
  },
);
