/** What a worker opens: each connection costs the server a process, and each thread half of a worker's start. */
import { execFile } from "node:child_process";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { resolve } from "node:path";
import { setImmediate } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { expect, test, vi } from "vitest";
import { systemTimers } from "../../src/base/timers.ts";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import { openStore } from "../../src/store/store.ts";
import { startHeartbeat } from "../../src/worker/heartbeat.ts";
import { openProxy } from "../chaos/proxy.ts";
import { testDatabase } from "../support/database.ts";
import { serving } from "../support/flows.ts";

const execFileAsync = promisify(execFile);
const database = await testDatabase();
const { sql } = database;

test("a worker begins with one connection that listens for jobs, and one that looks for them", async () => {
  const flow = defineFlow("opened").to("pass", () => null);
  await using orchestrator = await serving(database, [flow]);
  await orchestrator.listExecutions();

  const last = await vi.waitUntil(
    async () => {
      const sessions = await sql<{ query: string }[]>`
        select query from pg_stat_activity where datname = current_database() and application_name = 'flowledger jobs'`;
      const queries = sessions.map(({ query }) => query);
      return ["LISTEN", "job_queue_id"].every((word) => queries.some((query) => query.includes(word))) && queries;
    },
    { timeout: 8000, interval: 5 },
  );

  expect(last).toHaveLength(2);
});

/** What graphile-worker asks from its start to its end. */
const asked = ['LISTEN "jobs:insert"', "_private_tasks", "_private_job_queues", "UNLISTEN"];

test.each(asked)("a worker ends while the answer to %j is on its way, and its process goes on", async (statement) => {
  const url = new URL(database.url);
  const port = Number(url.port);
  await using proxy = await openProxy({ host: url.hostname, port: () => port });
  url.port = String(proxy.port);
  for (let times = 0; times < 4; times++) proxy.delayAnswerOf(statement, 60_000);
  const flow = defineFlow("unheard").to("pass", () => null);
  const orchestrator = createOrchestrator({ connection: url.href, flows: [flow] });
  const unhandled: unknown[] = [];
  const note = (error: unknown) => void unhandled.push(error);
  process.on("unhandledRejection", note);
  try {
    await orchestrator.startWorker({ drainTimeout: 0 });
    await orchestrator.close();
    // A connection that is ended refuses what it was asked by then, and the pool counts it out.
    await expect
      .poll(
        () =>
          sql`select from pg_stat_activity where datname = current_database() and application_name = 'flowledger jobs'`,
      )
      .toHaveLength(0);
    await setImmediate();
  } finally {
    process.off("unhandledRejection", note);
  }

  expect(unhandled).toEqual([]);
});

test("a worker speaks by the thread of one that has ended, and by one of its own beside another", async () => {
  const flow = defineFlow("spoken").to("pass", () => null);
  const beats = () => sql<{ id: string; at: number }[]>`
    select id, extract(epoch from heartbeat_at)::float8 as at from flowledger.workers where array['spoken'] <@ flows`;
  const untilBeats = async () => {
    const before = await beats();
    await expect
      .poll(async () => (await beats()).every(({ at }, index) => at > (before[index]?.at ?? Infinity)))
      .toBe(true);
    return before;
  };
  let threads = 0;
  const count = () => void (threads += 1);
  subscribe("worker_threads", count);
  try {
    for (let turn = 1; turn <= 3; turn++) {
      const orchestrator = await serving(database, [flow]);
      expect(await untilBeats()).toHaveLength(1);
      await orchestrator.close();
      expect(await beats()).toEqual([]);
    }
    // The test before this one may have left its own.
    expect(threads).toBeLessThanOrEqual(1);

    threads = 0;
    const first = await serving(database, [flow]);
    const second = await serving(database, [flow]);
    expect(await untilBeats()).toHaveLength(2);
    await first.close();
    expect(await untilBeats()).toHaveLength(1);
    await second.close();
    expect(await beats()).toEqual([]);
    expect(threads).toBe(1);
  } finally {
    unsubscribe("worker_threads", count);
  }
});

test("a process that waits for nothing but its worker's signs of life waits until they have begun, and ended", async () => {
  const url = new URL(database.url);
  const port = Number(url.port);
  await using proxy = await openProxy({ host: url.hostname, port: () => port });
  url.port = String(proxy.port);
  for (const statement of ["register_worker", "leave_worker"]) proxy.delayAnswerOf(statement, 300);
  const of = (file: string) => pathToFileURL(resolve(import.meta.dirname, "../../src", file)).href;
  const program = `
    const { openStore } = await import("${of("store/store.ts")}");
    const { startHeartbeat } = await import("${of("worker/heartbeat.ts")}");
    const { links, names } = openStore(process.env.URL);
    const known = { host: "here", pid: 1, flows: [], fingerprints: [], slots: 1, schedules: {}, pool: null };
    const times = { everyMs: 1000, stuckMs: 60_000, onTick() {} };
    const connection = links.thread("alone");
    const heartbeat = startHeartbeat({ ...known, ...times, id: crypto.randomUUID(), connection, names }, () => {});
    await heartbeat.registered;
    console.log("begun");
    await heartbeat.stop();
    console.log("ended");`;

  const { stdout } = await execFileAsync(process.execPath, ["--input-type=module", "-e", program], {
    env: { ...process.env, URL: url.href },
  });

  expect(stdout).toBe("begun\nended\n");
});

test("a thread that ends speaks for nobody new, and one that was given up leaves the next one alone", async () => {
  const store = openStore(database.url);
  const speak = (onLost = () => {}) => {
    const id = crypto.randomUUID();
    const connection = store.links.thread("spoken");
    const { names } = store;
    const known = { host: "here", pid: process.pid, flows: [], fingerprints: [], slots: 1, schedules: {}, pool: null };
    const options = { ...known, id, connection, names, everyMs: 20, stuckMs: 60_000, onTick: () => {} };
    return { id, heartbeat: startHeartbeat(options, onLost) };
  };
  const isKnown = async (id: string) => (await sql`select from flowledger.workers where id = ${id}`).length === 1;
  const after = vi.spyOn(systemTimers, "after");
  /** Ends the thread that was left last, as its time does. */
  const untilLeft = () =>
    vi.waitUntil(() => after.mock.calls.findLast(([ms]) => ms === 10_000)?.[1], { timeout: 8000 });
  // They have what the tests before this one left.
  const others = [speak(), speak(), speak()];
  try {
    const first = speak();
    await first.heartbeat.registered;
    await first.heartbeat.stop();
    const endThread = await untilLeft();
    endThread();
    const second = speak();
    await second.heartbeat.registered;

    after.mockClear();
    await sql`delete from flowledger.workers where id = ${second.id}`;
    await untilLeft();
    const third = speak();
    await third.heartbeat.registered;
    await second.heartbeat.stop();

    const [{ at }] = await sql<[{ at: Date }]>`select clock_timestamp() + interval '200 ms' as at`;
    const speaks = () => sql`select from flowledger.workers where id = ${third.id} and heartbeat_at > ${at}`;
    await expect.poll(async () => (await speaks()).length).toBe(1);
    expect(third.heartbeat.isHeld).toBe(true);
    await third.heartbeat.stop();
    expect(await isKnown(third.id)).toBe(false);
  } finally {
    after.mockRestore();
    for (const { heartbeat } of others) await heartbeat.stop();
    await store.close();
  }
});
