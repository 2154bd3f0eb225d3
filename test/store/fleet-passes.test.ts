/**
 * What looks after a fleet, again and again, reads what waits in a few passes, however long that line is: never the slots of all
 * for each that is queued, nor the jobs of all for each that is due.
 */
import { beforeAll, expect, test } from "vitest";
import { gaugesOf } from "../../src/store/gauges.ts";
import { verify } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";
import { storeOn } from "../support/store.ts";

const { sql } = await testDatabase();

/** Of each: queued for a slot, due with a job of another flow before them, and due with none. */
const waiting = 2000;
const tables = ["executions", "slots", "_private_jobs", "workers", "limits", "flow_pauses"];

beforeAll(async () => {
  await sql`
    insert into flowledger.limits (flow, concurrency, action) values ('fleet.queued', 1, 'keep')`;
  await sql`
    insert into flowledger.executions (id, seq, flow, created_at, started_at, wake_at, fingerprint)
    select ('0190a000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 2, f.flow, t.at, t.at, t.at + interval '1 ms' * n, 'f000'
    from (values (0, 'fleet.queued'), (1, 'fleet.due'), (2, 'fleet.other')) f(nth, flow),
      generate_series(f.nth * ${waiting}::int + 1, (f.nth + 1) * ${waiting}::int) n, (select flowledger.now() - interval '1 minute' as at) t`;
  await sql`
    insert into flowledger.slots (execution_id, flow, key, priority, queue_position, acquired, not_started)
    select e.id, e.flow, '', 0, row_number() over (order by e.id), false, true
    from flowledger.executions e where e.flow = 'fleet.queued'`;
  // One for each, as a wave of starts leaves them.
  await sql`
    select flowledger_jobs.add_job('flowledger:fleet.due', json_build_array(e.id)) from flowledger.executions e where e.flow = 'fleet.due'`;
  await sql`
    insert into flowledger.workers (id, host, pid, flows, role, backend_pid, session_key, started_at, heartbeat_at)
    values (gen_random_uuid(), 'here', 1, array['fleet.queued', 'fleet.due', 'fleet.other'], current_user, pg_backend_pid(), 0,
      flowledger.wall_clock(), flowledger.wall_clock())`;
});

/** In how many passes it may read, where that is not ten. */
test.each<[string, (connection: typeof sql) => PromiseLike<unknown>, number?]>([
  ["sweep", (connection) => connection`select flowledger.sweep(5000)`],
  ["gauges", (connection) => gaugesOf({ sql: connection }).read()],
  ["verify", (connection) => verify(connection), 60],
  ["what is due, of flows that have none", (connection) => storeOn(connection).claims.listDue(["fleet.none"], 0, 100)],
  ["the first due of each flow", (connection) => storeOn(connection).claims.firstDue(["fleet.due", "fleet.other"], 0)],
  ["reap", (connection) => connection`select * from flowledger.reap(800, 10000)`],
  ["what closed and was not told", (connection) => connection`select flowledger.propagate_close('{}', 5000)`],
  ["what may not wait any longer", (connection) => connection`select flowledger.discard_overdue()`],
  [
    "what blocked versions wait for",
    (connection) => storeOn(connection).claims.wakeBlocked([{ flow: "fleet.queued", fingerprint: "f000" }]),
  ],
  [
    "the end of a pause of a flow",
    (connection) => connection`
    select flowledger.pause_flow('fleet.queued', '{"actor":"ann","reason":"r"}'), flowledger.unpause_flow('fleet.queued', '{"actor":"ann","reason":"r"}')`,
  ],
  [
    "another limit",
    (connection) => connection`
    select flowledger.declare_limits(array['fleet.queued'], '[{"flow":"fleet.queued","concurrency":2,"action":"keep"}]')`,
  ],
  [
    "explain",
    (connection) => connection`
    select flowledger.explain(e.id) from (select id from flowledger.executions where flow = 'fleet.queued' order by id desc limit 10) e`,
  ],
])("%s", async (_, look, passes = 10) => {
  const read = await rowsRead(look);

  expect(Object.entries(read).filter(([, rows]) => rows > passes * waiting)).toEqual([]);
});

/** How many rows of each table it fetches. Nothing of it stays. */
async function rowsRead(look: (connection: typeof sql) => PromiseLike<unknown>) {
  const connection = await sql.reserve();
  const count = async () =>
    Object.fromEntries(
      (
        await connection<{ table: string; read: number }[]>`
        select relname as table, (seq_tup_read + coalesce(idx_tup_fetch, 0))::int as read from pg_stat_xact_user_tables
        where schemaname like 'flowledger%'`
      ).map(({ table, read }) => [table, read]),
    );
  try {
    await connection`begin`;
    const before = await count();
    await look(connection);
    const after = await count();
    return Object.fromEntries(tables.map((table) => [table, (after[table] ?? 0) - (before[table] ?? 0)]));
  } finally {
    await connection`rollback`;
    connection.release();
  }
}
