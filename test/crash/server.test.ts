/** F13, F22, F25, F27, F36: what workers and others do to a whole server: its disk, its transaction ids, its queue. */
import { spawnSync } from "node:child_process";
import { mkdtemp, rmdir, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { examine } from "../../src/store/doctor.ts";
import { startEmbeddedPostgres } from "../../src/embedded.ts";
import { createOrchestrator } from "../../src/index.ts";
import { failing, work } from "./flows.ts";
import { countEvents, expectGuarantees, startWorker, until, untilClosed } from "./support.ts";

const server = await startEmbeddedPostgres({
  durable: false,
  flags: ["-c", "autovacuum=off", "-c", "synchronous_commit=on"],
});
const sql = postgres(server.url, { max: 4, onnotice: () => {} });
const orchestrator = createOrchestrator({ connection: server.url, flows: [work, failing] });
await orchestrator.migrate();
const bound = orchestrator.flow(work);
afterAll(async () => {
  await orchestrator.close();
  await sql.end({ timeout: 1 });
  await server.stop();
});

test("F22: a full disk is a pause: nothing fails, no attempt is used up, and all goes on when there is room", async ({
  skip,
}) => {
  const folder = await mkdtemp(join(tmpdir(), "flowledger-small-"));
  const { uid } = await stat(server.dataDir);
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", `size=8m,mode=700,uid=${uid}`, "tmpfs", folder]);
  if (mounted.status !== 0) {
    await rmdir(folder);
    skip("it takes a small file system: Linux, and the right to mount a tmpfs");
  }
  try {
    await sql.unsafe(`create tablespace small location '${folder}'`);
    await sql`alter table flowledger.ledger set tablespace small`;
    await using worker = await startWorker(server.url);
    const begun = await Promise.all(
      Array.from({ length: 30 }, () => bound.startExecution({ ms: 3000 }, { autoCloseTimeout: 0 })),
    );
    const slow = (id: string) => countEvents(sql, id, "step.completed", "slow");
    for (const { id } of begun) await until(async () => (await slow(id)) === 1);

    await sql`create table public.filler (x text) tablespace small`;
    await sql`alter table public.filler alter x set storage plain`;
    const fill = () => sql`insert into public.filler select repeat('x', 7000) from generate_series(1, 20)`;
    const full = await until(async () =>
      fill().then(
        () => null,
        ({ code }: { code: string }) => code,
      ),
    );
    await worker.untilLine(/^log waiting for the database .*No space left/);
    const refused = await until(() =>
      bound.startExecution({}, { autoCloseTimeout: 0 }).then(
        ({ id }) => void begun.push({ id } as never),
        (error: unknown) => error,
      ),
    );
    const failedMeanwhile =
      await sql`select id from flowledger.executions where closed_at is not null and outcome <> 'completed'`;
    await sql`drop table public.filler`;

    expect(full).toBe("53100");
    expect(refused).toMatchObject({ code: "CONNECTION_FAILED", message: expect.stringContaining("53100") });
    expect([...failedMeanwhile]).toEqual([]);
    for (const { id } of begun) {
      expect(await untilClosed(sql, id)).toMatchObject({ outcome: "completed" });
      expect(await countEvents(sql, id, "chunk.failed")).toBe(0);
    }
    await expectGuarantees(sql);
  } finally {
    await sql`alter table flowledger.ledger set tablespace pg_default`;
    await sql`drop table if exists public.filler`;
    await sql`drop tablespace if exists small`;
    spawnSync("umount", [folder]);
    await rmdir(folder);
  }
});

test("F13: an execution whose last commit a failover lost is claimed anew by the worker that had it, and goes on from what is left", async () => {
  await using worker = await startWorker(server.url);
  const execution = await bound.startExecution({ ms: 1000 }, { autoCloseTimeout: 0 });
  await worker.untilLine(/^body slow/);
  await sql.begin(async (tx) => {
    const [{ lost }] = await tx<[{ lost: number }]>`
      update flowledger.executions set seq = commit_seq - 1, commit_no = commit_no - 1
      where id = ${execution.id} returning commit_seq as lost`;
    await tx`alter table flowledger.ledger disable trigger ledger_append_only`;
    await tx`delete from flowledger.ledger where execution_id = ${execution.id} and seq >= ${lost}`;
    await tx`alter table flowledger.ledger enable always trigger ledger_append_only`;
  });

  const header = await untilClosed(sql, execution.id);

  expect(worker.output()).toContain("log fenced");
  expect(header).toMatchObject({ outcome: "completed", epoch: 2, close_snapshot: { path: ["first", "slow", "last"] } });
  await expectGuarantees(sql);
});

test("F25: beside a transaction that stays open for long everything is done, and doctor names it", async () => {
  const reader = await sql.reserve();
  await reader`begin isolation level repeatable read`;
  await reader`select count(*) from flowledger.executions`;
  const [{ pid }] = await reader<[{ pid: number }]>`select pg_backend_pid() as pid`;
  await using _worker = await startWorker(server.url);
  const vacuum = async () => (await examine(server.url)).find(({ name }) => name === "vacuum");

  const before = await vacuum();
  const ids = await bound.startMany(
    Array.from({ length: 300 }, () => ({})),
    { autoCloseTimeout: 0 },
  );
  for (const id of ids) expect(await untilClosed(sql, id)).toMatchObject({ outcome: "completed" });
  // As many transactions as a busy hour has.
  await sql
    .unsafe("do $$ begin for i in 1..100000 loop perform pg_current_xact_id(); commit; end loop; end $$")
    .simple();
  const after = await vacuum();
  await reader`rollback`;
  reader.release();

  expect(before).toMatchObject({ verdict: "ok" });
  expect(after).toMatchObject({ verdict: "warn", detail: expect.stringContaining(`session ${pid} `) });
  expect(await vacuum()).toMatchObject({ verdict: "ok" });
  await expectGuarantees(sql);
});

test("F36: 300 executions that fail and are tried again, over a crash of Postgres, never have more jobs than there are of them", async () => {
  await using worker = await startWorker(server.url);
  const ids = await orchestrator.flow(failing).startMany(
    Array.from({ length: 300 }, () => null),
    { autoCloseTimeout: 0 },
  );
  const counts = async () => {
    const [row] = await sql<[{ jobs: number; open: number; failures: number }]>`
      select (select count(*)::int from flowledger_jobs._private_jobs) as jobs,
        (select count(*)::int from flowledger.executions where id in ${sql(ids)} and closed_at is null) as open,
        (select count(*)::int from flowledger.ledger where execution_id in ${sql(ids)} and type = 'chunk.failed') as failures`;
    return row;
  };
  let most = 0;
  const untilCounts = (isReached: (row: { open: number; failures: number }) => boolean) =>
    until(async () => {
      const row = await counts();
      most = Math.max(most, row.jobs);
      return isReached(row);
    }, 30_000);

  expect(await untilCounts(({ failures }) => failures >= 150)).toBe(true);
  await server.restart("immediate");
  expect(await untilCounts(({ open }) => open === 0)).toBe(true);

  expect(most).toBeLessThanOrEqual(ids.length);
  const attempts = await sql<{ attempts: number; waits: (number | null)[] }[]>`
    select count(*)::int as attempts, json_agg((payload -> 'retryInMs')::int order by seq) as waits
    from flowledger.ledger where execution_id in ${sql(ids)} and type = 'chunk.failed' group by execution_id`;
  expect(attempts.filter((row) => row.attempts !== 3)).toEqual([]);
  // What failed together comes back at times of its own, within half of the interval.
  const waits = attempts.flatMap((row) => row.waits.slice(0, 2).map(Number));
  expect(Math.min(...waits)).toBeGreaterThanOrEqual(500);
  expect(Math.max(...waits)).toBeLessThanOrEqual(1000);
  expect(new Set(waits).size).toBeGreaterThan(100);
  expect(worker.output()).not.toContain("given up");
  await expectGuarantees(sql);
});

test("F27: signs of life cost one transaction id each, however many executions a worker owns", async () => {
  await using worker = await startWorker(server.url);
  const idle = await idsPerBeat();
  await bound.startMany(Array.from({ length: 50 }, () => ({ ms: 60_000 })));
  await until(async () => (worker.output().match(/^body slow/gm) ?? []).length === 50);

  const busy = await idsPerBeat();

  for (const ids of [idle, busy]) {
    expect(ids).toBeGreaterThan(0.5);
    expect(ids).toBeLessThan(2);
  }
});

/** Looking takes no transaction id. */
async function idsPerBeat(): Promise<number> {
  const look = async () => {
    const [row] = await sql<[{ ids: number; beat: number }]>`
      select pg_snapshot_xmax(pg_current_snapshot())::text::int as ids,
        extract(epoch from (select heartbeat_at from flowledger.workers order by started_at desc limit 1))::float8 as beat`;
    return row;
  };
  const after = async (beats: number) => {
    let last = await look();
    for (; beats > 0; beats--) {
      const next = await until(async () => ((row) => row.beat > last.beat && row)(await look()));
      if (!next) throw new Error("the worker gives no sign of life");
      last = next;
    }
    return last;
  };
  // What a start takes is over by then.
  const first = await after(3);
  return ((await after(6)).ids - first.ids) / 6;
}
