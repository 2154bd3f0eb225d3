/** Hazards of the drivers under us, proved away: transactions stay alone, codecs stay ours, a pooler's limits are enough. */
import { createConnection, createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { drizzle as drizzlePg } from "drizzle-orm/node-postgres";
import { drizzle } from "drizzle-orm/postgres-js";
import pg from "pg";
import postgres from "postgres";
import { expect, test } from "vitest";
import { openDatabase } from "../../src/store/client.ts";
import { isConnectionLoss } from "../../src/store/refusals.ts";
import { defineFlow } from "../../src/flow/builder.ts";
import { createOrchestrator } from "../../src/orchestrator.ts";
import type { CreateOptions } from "../../src/execution/start-options.ts";
import { testDatabase } from "../support/database.ts";
import { expectGuarantees, nothing } from "../support/ledger.ts";

const database = await testDatabase();
const { sql: look } = database;

const flow = defineFlow("f");
flow.to("double", (ctx) => ctx.input).to("end", (ctx) => ctx.input);

test("F17: while connections die in the middle of writes every query is answered or refused, and none is lost", async () => {
  // Not among the options that postgres.js has types for.
  const narrow = { ...optionsOf(database.url), max: 2, max_pipeline: 2 };
  const { sql } = openDatabase(narrow, { name: "doomed" });
  const unexpected: string[] = [];
  let answers = 0;
  let kills = 0;
  const ask = async () => {
    while (kills < 25) {
      try {
        const text = "x".repeat(answers % 7 === 0 ? 2000 : 10);
        const [row] = await sql<[{ text: string }]>`select ${text}::text as text`;
        expect(row.text).toBe(text);
        answers += 1;
      } catch (error) {
        if (!isConnectionLoss(error)) unexpected.push(String(error));
      }
    }
  };

  const asking = Array.from({ length: 20 }, ask);
  while (kills < 25) {
    const killed = await look`
      select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'doomed' order by random() limit 1`;
    kills += killed.length;
    for (const before = answers; killed.length > 0 && answers < before + 3;) await delay(1);
  }
  await Promise.all(asking);

  expect(unexpected).toEqual([]);
  expect(answers).toBeGreaterThanOrEqual(75);
  expect(await sql`select 1 as one`).toEqual([{ one: 1 }]);
  await sql.end({ timeout: 1 });
});

test("drizzle with a client of its own leaves the codecs of ours alone", async () => {
  const { sql: ours } = openDatabase(database.url);
  const theirs = postgres(database.url, { max: 1 });
  const db = drizzle(theirs);
  await db.execute("select 1");

  const [row] = await ours`select timestamptz '2026-01-01 00:00:00Z' as at, '{"a": [1]}'::jsonb as data`;

  expect(row).toEqual({ at: new Date("2026-01-01T00:00:00Z"), data: { a: [1] } });
  await theirs.end();
  await ours.end();
});

const startAt = new Date("2031-02-03T04:05:06.789Z");
const input = { text: `it's "quoted" \\ {}`, nested: [{ at: "2026-01-01T00:00:00.000Z" }, null, 1.5, "1"] };
const metadata = { tenant: "ann", list: [1, "2"] };

/** Runs in a transaction of one driver and commits, or rolls back when the body throws. */
const drivers: Record<string, (body: (tx: NonNullable<CreateOptions["tx"]>) => Promise<void>) => Promise<void>> = {
  "postgres.js": async (body) => {
    const sql = postgres(database.url, { max: 1 });
    try {
      await sql.begin(body);
    } finally {
      await sql.end();
    }
  },
  "drizzle on postgres.js": async (body) => {
    const sql = postgres(database.url, { max: 1 });
    try {
      await drizzle(sql).transaction(body);
    } finally {
      await sql.end();
    }
  },
  "drizzle on pg": async (body) => {
    const pool = new pg.Pool({ connectionString: database.url, max: 1 });
    try {
      await drizzlePg(pool).transaction(body);
    } finally {
      await pool.end();
    }
  },
  pg: async (body) => {
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    try {
      await client.query("begin");
      await body(client);
      await client.query("commit");
    } finally {
      await client.end();
    }
  },
};

test.each(Object.entries(drivers))(
  "in a transaction of %s JSON and dates come out as they went in",
  async (_, begin) => {
    await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
    let id = "";

    await begin(async (tx) => {
      ({ id } = await orchestrator.flow(flow).startExecution(input, { tx, metadata, startAt }));
    });

    const [row] = await look`
    select e.wake_at, e.metadata, l.payload -> 'input' as input from flowledger.executions e
    join flowledger.ledger l on l.execution_id = e.id and l.seq = 2 where e.id = ${id}`;
    expect(row).toEqual({ wake_at: startAt, metadata, input });
    await expectGuarantees(look, id);
  },
);

test.each(Object.entries(drivers))("a start in a transaction of %s rolls back with it", async (_, begin) => {
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
  let id = "";

  const attempt = begin(async (tx) => {
    ({ id } = await orchestrator.flow(flow).startExecution(input, { tx }));
    throw new Error("no");
  });

  await expect(attempt).rejects.toThrow("no");
  expect(id).not.toBe("");
  expect(await look`select 1 from flowledger.executions where id = ${id}`).toEqual([]);
  expect(await look`select 1 from flowledger_jobs._private_jobs where payload::jsonb ? ${id}`).toEqual([]);
});

test.each(Object.entries(drivers))("an idempotency key works in a transaction of %s", async (name, begin) => {
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
  const ids: string[] = [];

  for (let round = 0; round < 2; round++)
    await begin(async (tx) => {
      const execution = await orchestrator.flow(flow).startExecution(input, { tx, idempotencyKey: name, startAt });
      ids.push(execution.id);
    });

  expect(new Set(ids).size).toBe(1);
});

test("the caller's client has the codecs it had before", async () => {
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
  const sql = postgres(database.url, { max: 1 });

  await sql.begin((tx) => orchestrator.flow(flow).startExecution(input, { tx, startAt }));

  expect((await sql`select timestamptz '2026-01-01 00:00:00Z' as at, '{"a": 1}'::jsonb as data`)[0]).toEqual({
    at: new Date("2026-01-01T00:00:00Z"),
    data: { a: 1 },
  });
  await sql.end();
});

test("the whole library works without prepared statements and with two connections", async () => {
  const events = defineFlow("events");
  events
    .to("first", async (ctx) => {
      await ctx.setState("first", ctx.input);
      await ctx.emit("Go", { at: 1 }, { wait: true });
      return [1, 2, 3];
    })
    .forEach()
    .to("item", (ctx) => ctx.input * 2)
    .endForEach()
    .to("sum", async (ctx) => ctx.setState("sum", ctx.input));
  events.when("Go").to("heard", async (ctx) => {
    await ctx.putIntoStream({ heard: true });
    await ctx.setState("heard", ctx.input);
  });
  await using own = await testDatabase();
  await using orchestrator = createOrchestrator({
    connection: { ...optionsOf(own.url), prepare: false, max: 2 },
    flows: [events],
  });
  await using _worker = await orchestrator.startWorker({ concurrency: 50 });
  const bound = orchestrator.flow(events);

  const snapshots = await Promise.all(Array.from({ length: 200 }, (_, n) => bound.start({ n })));

  expect(snapshots).toEqual(
    Array.from({ length: 200 }, (_, n) => ({ first: { n }, heard: { at: 1 }, sum: [2, 4, 6] })),
  );
  const { executions } = await orchestrator.listExecutions({ status: "completed", limit: 1000 });
  expect(executions).toHaveLength(200);
  for (const { id } of executions.slice(0, 5)) await expectGuarantees(own.sql, id);
});

test("F17: a pool whose connections die again and again answers every query, and keeps all its connections", async () => {
  const { sql } = openDatabase({ ...optionsOf(database.url), max: 8, connection: { application_name: "dying" } });
  let killed: number[] = [];
  // One that was killed may be seen for a while.
  const alive = () => look<{ pid: number }[]>`
    select pid from pg_stat_activity where application_name = 'dying' and datname = current_database() and not pid = any(${killed})`;
  const answered = { ok: 0, failed: 0 };
  let isOver = false;
  const ask = async () => {
    while (!isOver)
      await sql`select 1`.then(
        () => (answered.ok += 1),
        () => (answered.failed += 1),
      );
  };
  const asking = Array.from({ length: 12 }, ask);

  for (let round = 0; round < 15; round++) {
    await untilAlive(alive, 8);
    const rows = await look<{ pid: number }[]>`
      select pid, pg_terminate_backend(pid) from pg_stat_activity where application_name = 'dying' and datname = current_database()`;
    killed = rows.map(({ pid }) => pid);
  }
  await untilAlive(alive, 8);
  isOver = true;
  await Promise.all(asking);

  expect(answered.ok).toBeGreaterThan(0);
  expect(answered.failed).toBeGreaterThan(15);
  await sql.end({ timeout: 1 });
});

test("F17: a connection that dies in the middle of a result leaves nothing of it in the next", async () => {
  const { hostname, port } = new URL(database.url);
  let isArmed = false;
  const proxy = createServer((client) => {
    const server = createConnection(Number(port), hostname);
    client.pipe(server);
    // The first rows get through, and the end of the result does not.
    server.on("data", (data) => (isArmed ? client.write(data, () => client.resetAndDestroy()) : client.write(data)));
    for (const socket of [client, server])
      socket.on("error", () => {}).on("close", () => [client, server].forEach((other) => other.destroy()));
  });
  await new Promise<void>((done) => void proxy.listen(0, "127.0.0.1", done));
  const { port: own } = proxy.address() as AddressInfo;
  const { sql } = openDatabase({ ...optionsOf(database.url), host: "127.0.0.1", port: own, max: 2 });
  await Promise.all([sql`select 1`, sql`select 1`]);

  isArmed = true;
  const cut = sql`select repeat('x', 1000) from generate_series(1, 5000)`;
  await expect(cut).rejects.toSatisfy(isConnectionLoss);
  isArmed = false;
  const answers: unknown[] = [];
  while (answers.length < 20)
    for (const answer of await Promise.allSettled([1, 2, 3, 4].map(() => sql`select 1 as one`)))
      if (answer.status === "fulfilled") answers.push([...answer.value]);

  expect(answers.filter((rows) => !isDeepStrictEqual(rows, [{ one: 1 }]))).toEqual([]);
  await sql.end({ timeout: 1 });
  proxy.close();
});

test("F17: connections that all die at once, with queries sent to them in that moment, all come back", async () => {
  const { sql } = openDatabase({ ...optionsOf(database.url), max: 8, connection: { application_name: "at once" } });
  const all = <T>(query: () => Promise<T>) => Promise.allSettled(Array.from({ length: 8 }, query));
  for (let round = 0; round < 5; round++) {
    while ((await all(() => sql`select pg_sleep(0.01)`)).some(({ status }) => status === "rejected"));
    // One that is at work hears of the end first; the others are closed, too, and do not know it yet.
    const next = sql`select pg_sleep(60)`.catch(() => all(() => sql`select 1`));
    await look`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'at once'`;
    await next;
  }
  const answers = await all(() => sql`select 1 as one`);
  expect(answers.length).toBe(8);
  await sql.end({ timeout: 1 });
});

async function untilAlive(alive: () => Promise<readonly unknown[]>, count: number): Promise<void> {
  const deadline = performance.now() + 15_000;
  for (let found = 0; found < count; found = (await alive()).length)
    if (performance.now() > deadline) throw new Error(`only ${found} of ${count} connections came back within 15 s`);
}

test("a flow that nobody serves here can be started all the same", async () => {
  const unserved = defineFlow("unserved");
  unserved.to("a", nothing);
  await using orchestrator = createOrchestrator({ connection: { ...optionsOf(database.url), prepare: false, max: 2 } });

  const ids = await orchestrator.flow(unserved).startMany(Array.from({ length: 1500 }, (_, n) => n));

  expect(new Set(ids).size).toBe(1500);
  const [row] =
    await look`select l.payload -> 'input' as input from flowledger.ledger l where l.execution_id = ${ids[1234] ?? ""} and l.seq = 2`;
  expect(row).toEqual({ input: 1234 });
});

function optionsOf(url: string): postgres.Options<Record<string, postgres.PostgresType>> {
  const { hostname, port, username, password, pathname } = new URL(url);
  return {
    host: hostname,
    port: Number(port || 5432),
    username: decodeURIComponent(username),
    password: decodeURIComponent(password),
    database: pathname.slice(1),
  };
}
