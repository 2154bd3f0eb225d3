/** What is due without a job gets one again, whatever happened to the one it had. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { openUpkeep, type UpkeepHost } from "../../src/worker/upkeep.ts";

const { sql } = await testDatabase();
const flows = ["never", "gone", "locked", "later", "waiting"];

/** Which flow of each has a job that waits, by how many. */
async function waitingJobs() {
  const rows = await sql<{ flow: string; jobs: number }[]>`
    select substr(t.identifier, length('flowledger:') + 1) as flow, count(*)::int as jobs
    from flowledger_jobs._private_jobs j join flowledger_jobs._private_tasks t on t.id = j.task_id
    where j.is_available and j.run_at <= flowledger.wall_clock() group by 1 order by 1`;
  return Object.fromEntries(rows.map(({ flow, jobs }) => [flow, jobs]));
}

test("a sweep gives a job to what never had one, and to what lost it, and none to a flow that has one waiting", async () => {
  await sql`
    insert into flowledger.executions (id, seq, flow, created_at, started_at, wake_at, fingerprint)
    select gen_random_uuid(), 2, f.flow, t.at, t.at, t.at, 'f000'
    from unnest(${flows}::text[]) f(flow), (select flowledger.now() - interval '1 minute' as at) t`;
  for (const flow of flows.filter((one) => one !== "never"))
    await sql`select flowledger_jobs.add_job(${`flowledger:${flow}`}, '[]')`;
  const ofFlow = (flow: string) => sql`
    j.task_id = (select t.id from flowledger_jobs._private_tasks t where t.identifier = ${`flowledger:${flow}`})`;
  await sql`delete from flowledger_jobs._private_jobs j where ${ofFlow("gone")}`;
  await sql`update flowledger_jobs._private_jobs j set locked_at = now(), locked_by = 'lost' where ${ofFlow("locked")}`;
  await sql`update flowledger_jobs._private_jobs j set run_at = now() + interval '1 hour' where ${ofFlow("later")}`;

  const [swept] = await sql`select flowledger.sweep(5000) as count`;

  expect(swept).toEqual({ count: 4 });
  expect(await waitingJobs()).toEqual({ gone: 1, later: 1, locked: 1, never: 1, waiting: 1 });
  // A second look: it has told.
  expect(await sql`select flowledger.sweep(5000) as count`).toEqual([{ count: 0 }]);
  expect(await waitingJobs()).toEqual({ gone: 1, later: 1, locked: 1, never: 1, waiting: 1 });
});

test("a sweep counts a worker as lost for what one had that is not there, and none for what nobody had", async () => {
  const [had, free] = [crypto.randomUUID(), crypto.randomUUID()];
  await sql`
    insert into flowledger.executions (id, seq, epoch, owner, flow, created_at, started_at, wake_at)
    select x.id, 2, 1, x.owner, 'owned', t.at, t.at, t.at
    from (values (${had}::uuid, gen_random_uuid()), (${free}::uuid, null)) x(id, owner), (select flowledger.now() - interval '1 minute' as at) t`;

  await sql`select flowledger.sweep(5000)`;

  expect(
    await sql`select id, owner, takeovers::int from flowledger.executions where flow = 'owned' order by takeovers`,
  ).toEqual([
    { id: free, owner: null, takeovers: 0 },
    { id: had, owner: null, takeovers: 1 },
  ]);
});

test("the jobs that a dead worker was at are free again at once", async () => {
  await sql`
    insert into flowledger.workers (id, host, pid, flows, pool, role, backend_pid, session_key, started_at, heartbeat_at)
    select gen_random_uuid(), 'gone', 1, '{}', 'its pool', current_user, 0, 0, t.at, t.at
    from (select flowledger.wall_clock() - interval '1 minute' as at) t`;
  await sql`select flowledger_jobs.add_job('flowledger:reaped', '[]')`;
  await sql`
    update flowledger_jobs._private_jobs j set locked_at = now(), locked_by = 'its pool'
    where j.task_id = (select t.id from flowledger_jobs._private_tasks t where t.identifier = 'flowledger:reaped')`;

  expect(await sql`select reaped from flowledger.reap(800, 10000)`).toEqual([{ reaped: 1 }]);

  expect(await waitingJobs()).toMatchObject({ reaped: 1 });
});

test("a worker looks after the others again after a look that failed", async () => {
  let reaped = 0;
  const reap = async () => {
    if (++reaped === 1) throw new Error("the database is away");
  };
  const host = {
    host: { store: { workers: { reap } }, flows: new Map() },
    settings: { hasShortcuts: false },
    onTrouble: () => {},
  };
  // What it has no shortcuts for is not asked.
  const upkeep = openUpkeep(host as unknown as UpkeepHost);

  for (let beat = 0; beat < 3; beat++) {
    upkeep.tick();
    await new Promise(setImmediate);
  }

  expect(reaped).toBe(3);
});

test("what has closed and told its relatives is woken by nobody", async () => {
  const [row] = await sql<{ id: string }[]>`
    insert into flowledger.executions (id, seq, flow, created_at, closed_at, outcome)
    values (gen_random_uuid(), 1, 'over', flowledger.now(), flowledger.now(), 'completed') returning id`;

  await sql`select flowledger.wake(array[${row?.id ?? ""}::uuid])`;

  expect(await sql`select wake_at from flowledger.executions where id = ${row?.id ?? ""}`).toEqual([{ wake_at: null }]);
});

test("starts are kept as long as the longer of the two rates counts them", async () => {
  await sql`
    insert into flowledger.limits (flow, rate, rate_ms, key_rate, key_rate_ms, action) values ('rates', 1, 3600000, 1, 60000, 'keep')`;
  await sql`
    insert into flowledger.limited_starts (execution_id, flow, key, at)
    select gen_random_uuid(), 'rates', n::text, flowledger.now() - n * interval '1 minute' from unnest(array[59, 61]) n`;

  await sql`select flowledger.sweep_slots()`;

  expect(await sql`select key from flowledger.limited_starts where flow = 'rates'`).toEqual([{ key: "59" }]);
});

test("a new version wakes what is blocked, whatever else that waits for", async () => {
  const rows = await sql<{ id: string; status: string }[]>`
    insert into flowledger.executions (id, seq, flow, created_at, started_at, parked, pending_interrupts, epoch)
    select gen_random_uuid(), 3, 'blocked', flowledger.now(), case when n > 0 then flowledger.now() end, (n = 3)::int, (n = 2)::int, 1
    from generate_series(0, 3) n returning id, status`;
  await sql`
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, payload)
    select e, s, 1, flowledger.now(), case s when 1 then 'execution.claimed' else 'execution.blocked' end, '{"fingerprint": "old"}'
    from unnest(${rows.map(({ id }) => id)}::uuid[]) e, generate_series(1, 2) s`;
  const woken = async (fingerprint: string) => {
    await sql`select flowledger.wake_blocked(array['blocked'], array[${fingerprint}])`;
    const found = await sql<{ status: string }[]>`
      select status from flowledger.executions where flow = 'blocked' and wake_at is not null order by 1`;
    return found.map(({ status }) => status);
  };

  expect(rows.map(({ status }) => status)).toEqual(["created", "running", "waiting", "parked"]);
  expect(await woken("old")).toEqual([]);
  expect(await woken("new")).toEqual(["created", "parked", "running", "waiting"]);
});

test("a sign of life from a session that lost its key, as behind a pooler, holds another one", async () => {
  await sql.begin(async (tx) => {
    const id = crypto.randomUUID();
    const key = async () => {
      const [row] = await tx<{ key: string; held: string }[]>`
        select w.session_key::text as key, current_setting('flowledger.session_key') as held from flowledger.workers w where w.id = ${id}`;
      return row;
    };
    await tx`select flowledger.register_worker(${id}, 'h', 1, '{}', '{}', null)`;
    const first = await key();
    await tx`select flowledger.heartbeat(${id})`;
    expect(await key()).toEqual(first);

    await tx`select set_config('flowledger.session_key', '1', false)`;
    expect(await tx`select flowledger.heartbeat(${id}) as alive`).toEqual([{ alive: true }]);

    const second = await key();
    expect(second?.key).toBe(second?.held);
    expect(second?.key).not.toBe(first?.key);
    await tx`select flowledger.leave_worker(${id})`;
  });
});
