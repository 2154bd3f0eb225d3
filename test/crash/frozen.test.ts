/** F2, F3: a worker is frozen, past its silence limit or in the middle of a commit, and wakes up when others have taken over. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import { work } from "./flows.ts";
import { countEvents, expectGuarantees, startWorker, until, untilClosed } from "./support.ts";

const database = await testDatabase();

test("F2: a worker frozen past the limit is taken over within 15 s, and fenced when it wakes up", async () => {
  await using orchestrator = visiting(database, [work]);
  await using frozen = await startWorker(database.url, { CRASH_NAME: "frozen" });
  const input = { ms: 60_000, worker: "frozen" };
  const execution = await orchestrator.flow(work).startExecution(input, { autoCloseTimeout: 0 });
  await frozen.untilLine(/^body slow/);
  await using heir = await startWorker(database.url);

  frozen.kill("SIGSTOP");
  const frozenAt = performance.now();
  await heir.untilLine(/^body slow/, 20_000);
  const takeoverMs = performance.now() - frozenAt;
  frozen.kill("SIGCONT");
  const header = await untilClosed(database.sql, execution.id);
  await frozen.untilLine(/^log (fenced|this worker was given up)/);

  expect(takeoverMs).toBeLessThan(15_000);
  expect(header).toMatchObject({ outcome: "completed", close_snapshot: { path: ["first", "slow", "last"] } });
  await expectGuarantees(database.sql);
});

test("F3: a worker frozen between the fence of a commit and its COMMIT holds the lock no longer than its statement runs", async () => {
  const { sql } = database;
  // The commit of one chunk stands still after its fence, until the gate has a row.
  await sql.unsafe(`
    create table public.gate ();
    create function public.wait() returns trigger language plpgsql as $$
    begin
      while not exists (select from public.gate) loop perform pg_sleep(0.02); end loop;
      return new;
    end $$;
    create trigger wait before insert on flowledger.ledger for each row
      when (new.type = 'chunk.completed' and new.chunk = 'slow' and new.epoch = 1) execute function public.wait();`);
  await using orchestrator = visiting(database, [work]);
  await using frozen = await startWorker(database.url);
  const execution = await orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 });
  await until(async () => (await sql`select 1 from pg_stat_activity where wait_event = 'PgSleep'`).length === 1);
  const lock = () => sql`select 1 from flowledger.executions where id = ${execution.id} for update nowait`;
  await expect(lock()).rejects.toMatchObject({ code: "55P03" });

  frozen.kill("SIGSTOP");
  await using heir = await startWorker(database.url);
  // Given up at once, and not in ten seconds.
  await sql`update flowledger.workers set heartbeat_at = '-infinity' where id = ${frozen.readyLine.replace("ready ", "")}`;
  const other = await orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 });
  await heir.untilLine(new RegExp(`body first ${other.id}`));
  await sql`insert into public.gate default values`;
  const header = await untilClosed(sql, execution.id);
  await untilClosed(sql, other.id);
  const open = await sql`
    select query from pg_stat_activity where application_name like 'flowledger%' and state like 'idle in transaction%'`;
  frozen.kill("SIGCONT");
  await frozen.untilLine(/^log (fenced|this worker was given up)/);

  expect(header).toMatchObject({ outcome: "completed", epoch: 2, close_snapshot: { path: ["first", "slow", "last"] } });
  expect(await countEvents(sql, execution.id, "chunk.completed", "slow")).toBe(1);
  expect(heir.output()).not.toContain(`body slow ${execution.id}`);
  expect([...open]).toEqual([]);
  await expectGuarantees(sql);
});
