/** A stranger who may connect, and no more: what it locks, listens to, sends and keeps open decides nothing. */
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { startEmbeddedPostgres } from "../../src/embedded.ts";
import { createOrchestrator } from "../../src/index.ts";
import type { Execution, Orchestrator } from "../../src/index.ts";
import type { TestProcess } from "../support/processes.ts";
import { crashFlows, limited, outer, spread, talker, work } from "./flows.ts";
import { expectGuarantees, startWorker, until, untilClosed } from "./support.ts";

const server = await startEmbeddedPostgres({ durable: false, flags: ["-c", "max_locks_per_transaction=32"] });
const sql = postgres(server.url, { max: 4, onnotice: () => {} });
const orchestrator = createOrchestrator({ connection: server.url, flows: crashFlows });
await orchestrator.migrate();
await sql`create role stranger login password 'pw'`;
afterAll(async () => {
  await orchestrator.close();
  await sql.end({ timeout: 1 });
  await server.stop();
});

/** Sessions of the stranger, which end together; what is refused is refused. */
class Stranger implements AsyncDisposable {
  readonly #sessions: postgres.Sql[] = [];
  readonly #sending: Promise<unknown>[] = [];
  #holder: postgres.Sql | undefined;
  #isOver = false;

  /** One session under a name that looks like one of ours. */
  session(name = "flowledger"): postgres.Sql {
    const url = new URL(server.url);
    Object.assign(url, { username: "stranger", password: "pw" });
    const session = postgres(url.href, {
      max: 1,
      idle_timeout: 0,
      fetch_types: false,
      onnotice: () => {},
      connection: { application_name: name },
    });
    this.#sessions.push(session);
    return session;
  }

  /** Takes, or stands in line for, every advisory lock that anybody holds, and those that names of ours could stand for. */
  async lockAll(names: readonly string[]): Promise<number> {
    const look = (this.#holder ??= this.session());
    const held = await look<{ key: string; high: number; low: number }[]>`
      select ((classid::bigint << 32) | objid::bigint)::text as key, classid::bigint::bit(32)::int as high, objid::bigint::bit(32)::int as low
      from pg_locks where locktype = 'advisory' and granted and pid <> pg_backend_pid()`;
    for (const { key, high, low } of held) {
      this.session("flowledger heartbeat")`select pg_advisory_lock(${key}::bigint)`.catch(() => {});
      this.session("flowledger heartbeat")`select pg_advisory_lock_shared(${key}::bigint)`.catch(() => {});
      await look`select pg_advisory_lock(${high}::int, ${low}::int), set_config('flowledger.session_key', ${key}, false)`;
    }
    for (const name of names)
      await look`select pg_advisory_lock(hashtext(${name})), pg_advisory_lock(hashtextextended(${name}, 0)), pg_advisory_lock(0, hashtext(${name}))`;
    // Whoever asks for one that is held stands in line by now.
    await until(async () => {
      const waiting = await look`select from pg_locks where locktype = 'advisory' and not granted`;
      return waiting.length >= held.length * 2;
    });
    return held.length;
  }

  /** A transaction that stays open, with a snapshot, and listens. */
  async linger(): Promise<void> {
    const session = this.session("flowledger jobs");
    for (const channel of channels) await session.unsafe(`listen "${channel}"`);
    await session.unsafe("begin isolation level repeatable read");
    await session.unsafe(
      "lock table pg_catalog.pg_class, pg_catalog.pg_proc, pg_catalog.pg_locks in access share mode",
    );
    await session.unsafe("create temp table executions (id uuid); create temp table workers (id uuid)");
    await session.unsafe("select count(*) from pg_class");
  }

  /** Sends all of these on every channel, again and again, until it is stopped. Resolves after the first time. */
  async flood(payloads: readonly string[]): Promise<void> {
    const session = this.session();
    const send = () => session`
      select pg_notify(c, p)
      from json_array_elements_text(${JSON.stringify(channels)}::text::json) c, json_array_elements_text(${JSON.stringify(payloads)}::text::json) p`;
    await send();
    const repeat = async () => {
      while (!this.#isOver) {
        await send();
        await delay(25);
      }
    };
    this.#sending.push(repeat().catch(() => {}));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#sessions.map((session) => session.end({ timeout: 0 })));
    await Promise.all(this.#sending);
  }
}

const channels = [...Array.from({ length: 8 }, (_, index) => `flowledger_${index}`), "jobs:insert", "worker:migrate"];

function forged(ids: readonly string[]): string[] {
  const unknown = crypto.randomUUID();
  return [
    "",
    "garbage",
    "~",
    ",,,,",
    "x".repeat(7999),
    "~".repeat(7999),
    ",".repeat(7999),
    "'; drop schema flowledger cascade; --",
    '{"count": 1e308}',
    '{"count": "many"}',
    '{"breaking": true, "migrationNumber": 99}',
    "null",
    unknown,
    `~${unknown}`,
    ...ids,
    ...ids.map((id) => `~${id}`),
    // Items of a collection that there are none of.
    ...ids.map((id) => `~${id.slice(0, -8)}ffffffff`),
    ...ids.map((id) => `~${id.slice(0, -8)}zzzzzzzz`),
  ];
}

function idOf(worker: TestProcess): string {
  return worker.readyLine.replace("ready ", "");
}

/** Those of these workers that nobody has given up. */
async function known(ids: readonly string[]): Promise<string[]> {
  const rows = await sql<{ id: string }[]>`select id from flowledger.workers order by id`;
  return rows.map(({ id }) => id).filter((id) => ids.includes(id));
}

async function startAll(from: Orchestrator): Promise<Execution[]> {
  const options = { autoCloseTimeout: 0 };
  return Promise.all([
    ...[1, 2, 3, 4, 5].map(() => from.flow(work).startExecution({ ms: 300 }, options)),
    ...["a", "a", "b"].map((tenant) => from.flow(limited).startExecution({ ms: 50, tenant }, options)),
    from.flow(spread).startExecution({ ms: 5 }, options),
    from.flow(talker).startExecution({}, options),
    from.flow(outer).startExecution(null, options),
  ]);
}

test("whatever a stranger locks, listens to, sends and keeps open: executions close, and no worker is given up", async () => {
  await using one = await startWorker(server.url);
  await using two = await startWorker(server.url);
  const fleet = [one, two].map(idOf);
  await using stranger = new Stranger();
  await stranger.linger();
  const held = await stranger.lockAll([...channels, ...crashFlows.map(({ name }) => name), ...fleet]);

  const executions = await startAll(orchestrator);
  const ids = executions.map(({ id }) => id);
  await stranger.flood(forged([...ids, ...fleet]));
  await stranger.lockAll(ids);
  const asked = await until(async () => {
    const { interrupts } = await orchestrator.listPendingInterrupts({ flow: "crash.inner" });
    return interrupts[0];
  });
  await (await orchestrator.getExecution(asked?.executionId ?? "")).continueWith(asked?.id ?? "", "yes");

  expect(held).toBe(2);
  for (const { id } of executions) expect(await untilClosed(sql, id)).toMatchObject({ outcome: "completed" });
  expect(await known(fleet)).toEqual(fleet.toSorted());
  const [row] = await sql`select max(takeovers)::int as takeovers from flowledger.executions`;
  expect(row).toEqual({ takeovers: 0 });
  for (const worker of [one, two]) {
    expect(worker.output()).not.toMatch(/given up|worker trouble|graphile-worker/);
    worker.kill("SIGTERM");
    expect(await worker.exited).toEqual({ code: 0, signal: null });
  }
  await expectGuarantees(sql);
});

test("a worker that died is given up in time, though a stranger waits for its lock, gets it, and says that it lives", async () => {
  // Sooner after a start of Postgres nobody is given up for a session that ended.
  const isOld = async () =>
    (await sql`select where pg_postmaster_start_time() < now() - interval '11 seconds'`).length > 0;
  await until(isOld, 12_000);
  await using dying = await startWorker(server.url, { CRASH_NAME: "dying" });
  const [dead] = await sql<[{ id: string; pid: number; key: string }]>`
    select id, backend_pid as pid, session_key::text as key from flowledger.workers where id = ${idOf(dying)}`;
  const { id } = await orchestrator.flow(work).startExecution({ ms: 60_000, worker: "dying" }, { autoCloseTimeout: 0 });
  await dying.untilLine(new RegExp(`^body slow ${id}`));
  await using stranger = new Stranger();
  await stranger.lockAll([dead.id]);
  await using other = await startWorker(server.url);

  dying.kill("SIGKILL");
  const killedAt = performance.now();
  const isGone = await until(
    async () => (await sql`select from flowledger.workers where id = ${dead.id}`).length === 0,
  );
  const goneMs = performance.now() - killedAt;

  // Silence alone would take ten seconds.
  expect(isGone).toBe(true);
  expect(goneMs).toBeLessThan(6000);
  const owners = await sql`
    select l.pid <> ${dead.pid} as other, a.usename from pg_locks l join pg_stat_activity a using (pid)
    where l.locktype = 'advisory' and l.granted and ((l.classid::bigint << 32) | l.objid::bigint)::text = ${dead.key} and l.objsubid = 1`;
  expect(owners).toMatchObject([{ other: true, usename: "stranger" }]);
  expect(await untilClosed(sql, id)).toMatchObject({ outcome: "completed", epoch: 2 });
  expect(other.output()).not.toMatch(/given up/);
  await expectGuarantees(sql);
});

test("while a stranger has taken all room for locks nothing can be written, and afterwards all goes on", async () => {
  await using one = await startWorker(server.url);
  await using two = await startWorker(server.url);
  const fleet = [one, two].map(idOf);
  const begun = await orchestrator.flow(work).startExecution({ ms: 1000 }, { autoCloseTimeout: 0 });
  await until(async () => /body slow/.test(one.output() + two.output()));
  await using stranger = new Stranger();

  const greedy = stranger.session();
  for (let from = 1; ; from += 1000) {
    const full = await greedy`select pg_advisory_lock(n) from generate_series(${from}::int, ${from + 999}::int) n`.then(
      () => false,
      () => true,
    );
    if (full) break;
  }
  const refused = await orchestrator
    .flow(work)
    .startExecution({})
    .catch((error: unknown) => error);
  await delay(2000);
  await greedy.end({ timeout: 0 });
  const after = await until(() => orchestrator.flow(work).startExecution({}, { autoCloseTimeout: 0 }));

  expect(refused).toMatchObject({
    code: "CONNECTION_FAILED",
    message: expect.stringContaining("out of shared memory"),
  });
  for (const id of [begun.id, after?.id ?? ""])
    expect(await untilClosed(sql, id)).toMatchObject({ outcome: "completed", epoch: 1 });
  expect(await known(fleet)).toEqual(fleet.toSorted());
  await expectGuarantees(sql);
});
