/** ctx.transaction: the application's rows and the chunk's record of them commit together, through whatever client. */
import { randomBytes } from "node:crypto";
import { drizzle as drizzleOnPg } from "drizzle-orm/node-postgres";
import { drizzle } from "drizzle-orm/postgres-js";
import { integer, pgTable, text } from "drizzle-orm/pg-core";
import pg from "pg";
import postgres from "postgres";
import { afterAll, expect, expectTypeOf, test } from "vitest";
import { systemTimers } from "../../src/base/timers.ts";
import type { Committer } from "../../src/engine/committer.ts";
import { defineFlow, type Ctx, type TransactionSource } from "../../src/index.ts";
import { internals, Orchestrator } from "../../src/orchestrator.ts";
import { verify } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, refusal, serving, untilEvent } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
await sql`create table paid (place text, attempt int)`;
await sql`create table once_only (id int primary key, check (id > 0))`;
await sql`create table late (id int unique deferrable initially deferred)`;
const paid = pgTable("paid", { place: text("place").notNull(), attempt: integer("attempt").notNull() });

const client = postgres(database.url, { max: 3, onnotice: () => {} });
const pool = new pg.Pool({ connectionString: database.url, max: 3 });
pool.on("error", () => {});
afterAll(() => Promise.all([client.end(), pool.end()]));
const atOnce = { autoCloseTimeout: 0 } as const;

type Pay = (ctx: Ctx) => Promise<unknown>;
const insert = "insert into paid values ($1, $2) returning 1 as n";
/** One row of a place and attempt, by each way to a transaction; `after` is the last that the work does. */
const ways: Record<string, (place: string, after: () => void) => Pay> = {
  "a connection of the worker": (place, after) => (ctx) =>
    ctx.transaction("pay", async (tx) => {
      const { rows } = await tx.query<{ n: number }>(insert, [place, ctx.attempt]);
      after();
      return rows[0]?.n;
    }),
  "postgres.js": (place, after) => (ctx) =>
    ctx.transaction(
      "pay",
      async (tx) => {
        const [row] = await tx<{ n: number }[]>`insert into paid values (${place}, ${ctx.attempt}) returning 1 as n`;
        after();
        return row?.n;
      },
      { client },
    ),
  "a pool of pg": (place, after) => (ctx) =>
    ctx.transaction(
      "pay",
      async (tx) => {
        const { rows } = await tx.query<{ n: number }>(insert, [place, ctx.attempt]);
        after();
        return rows[0]?.n;
      },
      { client: pool },
    ),
  "drizzle on postgres.js": (place, after) => (ctx) =>
    ctx.transaction(
      "pay",
      async (tx) => {
        const rows = await tx.insert(paid).values({ place, attempt: ctx.attempt }).returning();
        after();
        return rows.length;
      },
      { client: drizzle(client) },
    ),
  "drizzle on pg": (place, after) => (ctx) =>
    ctx.transaction(
      "pay",
      async (tx) => {
        const rows = await tx.insert(paid).values({ place, attempt: ctx.attempt }).returning();
        after();
        return rows.length;
      },
      { client: drizzleOnPg(pool) },
    ),
};

test.each(Object.entries(ways))(
  "by %s: a retry of the chunk finds the value, and the rows stand once",
  async (way, payAt) => {
    const flow = defineFlow(`transaction.${way.replaceAll(" ", "-")}`);
    const pay = payAt(way, () => {});
    flow.to(
      "pay",
      async (ctx) => {
        await ctx.setState("before", true);
        const n = await pay(ctx);
        if (ctx.attempt === 1) throw new Error("after the commit");
        await ctx.setState("paid", n);
      },
      { retry: { maxAttempts: 2, initialInterval: 1 } },
    );
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, atOnce);

    expect(await execution.waitForClose()).toEqual({ before: true, paid: 1 });

    expect(await sql`select attempt from paid where place = ${way}`).toEqual([{ attempt: 1 }]);
    expect(await execution.history({ types: ["step.completed"] })).toMatchObject([{ name: "pay", value: 1 }]);
    expect(await verify(sql, { id: execution.id })).toEqual([]);
  },
);

test.each(Object.entries(ways))(
  "by %s: what the work throws rolls back, and the chunk goes on from it",
  async (way, payAt) => {
    const flow = defineFlow(`transaction.thrown.${way.replaceAll(" ", "-")}`);
    const place = `${way} thrown`;
    const pay = payAt(place, () => {
      throw new Error("no money");
    });
    flow.to("pay", async (ctx) => ctx.setState("caught", String(await refusal(pay(ctx)))));
    await using orchestrator = await serving(database, [flow]);

    expect(await orchestrator.flow(flow).start(null, atOnce)).toEqual({ caught: "Error: no money" });
    expect(await sql`select 1 from paid where place = ${place}`).toHaveLength(0);
  },
);

test.each<[string, (ctx: Ctx) => Promise<unknown>, object]>([
  [
    "a statement that Postgres refuses",
    (ctx) => ctx.transaction("t", (tx) => tx.query("insert into once_only values (0)")),
    { code: "23514" },
  ],
  [
    "a constraint that is checked at the commit",
    (ctx) =>
      ctx.transaction("t", async (tx) => {
        await tx.query("insert into late values (1)");
        await tx.query("insert into late values (1)");
      }),
    { code: "23505" },
  ],
  [
    "an error that the work has caught",
    (ctx) => ctx.transaction("t", (tx) => tx.query("select 1 / 0").catch(() => null)),
    { code: "USAGE_INVALID", message: expect.stringContaining("savepoint") },
  ],
  [
    "a value that is no JSON",
    (ctx) =>
      ctx.transaction("t", async (tx): Promise<unknown> => {
        await tx.query("insert into once_only values (1)");
        return new Map();
      }),
    { name: "PayloadError" },
  ],
  ["a name that is none", (ctx) => ctx.transaction("", () => 1), { code: "USAGE_INVALID" }],
  [
    "an option that nobody reads",
    (ctx) => ctx.transaction("t", () => 1, { isolation: "serializable" } as object),
    { message: expect.stringContaining("isolation") },
  ],
  [
    "a client that opens no transactions",
    (ctx) => ctx.transaction("t", () => 1, { client: { end: () => {} } as unknown as TransactionSource }),
    { code: "USAGE_INVALID", message: expect.stringContaining("pool of pg") },
  ],
  [
    "a client where nobody answers",
    (ctx) => ctx.transaction("t", () => 1, { client: postgres("postgres://u@127.0.0.1:1/none", { max: 1 }) }),
    { code: "ECONNREFUSED" },
  ],
])("%s fails the chunk, is rolled back, and leaves nothing in the ledger", async (what, run, error) => {
  const flow = defineFlow(`transaction.refused.${what.replaceAll(" ", "-")}`);
  let thrown: unknown;
  flow.to("t", async (ctx) => {
    thrown = await refusal(run(ctx));
    throw new Error("refused");
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);

  expect(await refusal(execution.waitForClose())).toMatchObject({ cause: { message: "refused" } });
  expect(thrown).toMatchObject(error);
  expect(await execution.history({ types: ["step.completed"] })).toHaveLength(0);
  expect(await sql`select id from once_only union all select id from late`).toHaveLength(0);
  expect(await verify(sql, { id: execution.id })).toEqual([]);
});

test("a client of another database is refused, although it has the same tables", async () => {
  await using other = await testDatabase();
  const stranger = postgres(other.url, { max: 1, onnotice: () => {} });
  const flow = defineFlow("transaction.elsewhere");
  flow.to("t", (ctx) => ctx.transaction("t", () => 1, { client: stranger }));
  await using orchestrator = await serving(database, [flow]);

  const error = await refusal(orchestrator.flow(flow).start(null, atOnce));
  await stranger.end();

  expect(error).toMatchObject({ cause: { message: expect.stringContaining("another database") } });
});

test("a client whose role may not work is told which right is missing", async () => {
  const url = new URL(database.adminUrl);
  const admin = postgres(url.href, { max: 1, onnotice: () => {} });
  const role = `poor_${randomBytes(4).toString("hex")}`;
  await admin.unsafe(`create role ${role} login password 'x'`);
  url.username = role;
  url.password = "x";
  const poor = postgres(url.href, { max: 1, onnotice: () => {} });
  const flow = defineFlow("transaction.poor");
  flow.to("t", (ctx) => ctx.transaction("t", () => 1, { client: poor }));
  await using orchestrator = await serving(database, [flow]);

  const error = await refusal(orchestrator.flow(flow).start(null, atOnce));
  await poor.end();
  await admin.unsafe(`drop role ${role}`);
  await admin.end();

  expect(error).toMatchObject({
    cause: { name: "PermissionError", message: expect.stringContaining("client of ctx.transaction") },
  });
});

test("a deadlock and a failed serialization run the work again", async () => {
  let runs = 0;
  const flow = defineFlow("transaction.again");
  flow.to("t", (ctx) =>
    ctx.transaction("t", async (tx) => {
      runs += 1;
      await tx.query("insert into paid values ('again', $1)", [runs]);
      if (runs < 3) await tx.query("do $$ begin raise exception 'not now' using errcode = '40001'; end $$");
      return runs;
    }),
  );
  await using orchestrator = await serving(database, [flow]);

  await orchestrator.flow(flow).start(null, atOnce);

  expect(await sql`select attempt from paid where place = 'again'`).toEqual([{ attempt: 3 }]);
});

test("while a transaction is open the execution goes on: siblings commit, events come in, and all of it is in order", async () => {
  const [inside, goOn] = [newGate(), newGate()];
  const flow = defineFlow("transaction.beside");
  flow.to("slow", (ctx) =>
    ctx.transaction("t", async (tx) => {
      await tx.query("insert into paid values ('beside', 1)");
      inside.open();
      await goOn.passed;
    }),
  );
  flow.to("fast", async (ctx) => {
    await inside.passed;
    await ctx.step("s", () => 1);
    await ctx.appendState("order", "fast");
  });
  flow.when("Note").to("note", (ctx) => ctx.appendState("order", "note"));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "fast");
  await execution.emit("Note", null);
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "note");
  goOn.open();

  expect(await execution.waitForClose()).toEqual({ order: ["fast", "note"] });
  expect(await verify(sql, { id: execution.id })).toEqual([]);
});

test("a cancel, and a timeout of the work, roll back", async () => {
  const inside = newGate();
  const flow = defineFlow("transaction.cut");
  flow.to("t", async (ctx) => {
    const late = await refusal(
      ctx.transaction(
        "late",
        (tx) => tx.query("insert into paid values ('cut', 1)").then(() => new Promise(() => {})),
        {
          timeout: 30,
        },
      ),
    );
    await ctx.setState("late", String(late));
    await ctx.transaction("cut", async (tx) => {
      await tx.query("insert into paid values ('cut', 2)");
      inside.open();
      await new Promise(() => {});
    });
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await inside.passed;

  await execution.cancel("enough");

  expect(await refusal(execution.waitForClose())).toMatchObject({ code: "EXECUTION_CANCELLED" });
  expect(await execution.history({ types: ["state.set"] })).toMatchObject([
    { value: expect.stringContaining("30 ms") },
  ]);
  expect(await sql`select 1 from paid where place = 'cut'`).toHaveLength(0);
});

test("a connection that is lost with the answer to COMMIT: the ledger decides, and the rows stand once", async () => {
  const runs: string[] = [];
  for (const when of ["before", "after"] as const) {
    // A pool that loses its connection around the first COMMIT.
    let left = 1;
    const losing = {
      idleCount: 0,
      async connect() {
        const connection = await pool.connect();
        return {
          release: (destroy?: boolean) => connection.release(destroy),
          on: (event: "error", listener: () => void) => connection.on(event, listener),
          async query(...args: [string, unknown[]?]) {
            if (args[0] !== "commit" || left-- <= 0) return connection.query(...args);
            if (when === "after") await connection.query("commit");
            await connection.query("select pg_terminate_backend(pg_backend_pid())").catch(() => {});
            throw Object.assign(new Error("lost"), { code: "ECONNRESET" });
          },
        };
      },
    };
    const flow = defineFlow(`transaction.lost.${when}`);
    flow.to(
      "t",
      (ctx) =>
        ctx.transaction(
          "t",
          async (tx) => {
            runs.push(when);
            await tx.query("insert into paid values ($1, $2)", [`lost ${when}`, ctx.attempt]);
          },
          { client: losing },
        ),
      { retry: { maxAttempts: 2, initialInterval: 1 } },
    );
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, atOnce);

    await execution.waitForClose();

    expect(await sql`select 1 from paid where place = ${`lost ${when}`}`).toHaveLength(1);
    expect(await execution.history({ types: ["step.completed"] })).toHaveLength(1);
    expect(await verify(sql, { id: execution.id })).toEqual([]);
  }
  // What did not commit ran again; what did was not.
  expect(runs).toEqual(["before", "before", "after"]);
});

test.each(["before its record is sent", "while its record is on its way"])(
  "a transaction whose worker lost the execution %s rolls back, and gives its connection back",
  async (when) => {
    const place = `lost ${when}`;
    const flow = defineFlow("transaction.lost");
    flow.to("pay", (ctx) => ctx.transaction("pay", (tx) => tx.query(insert, [place, ctx.attempt]).then(() => 1)));
    const committer = (inner: Committer): Committer => ({
      ...inner,
      async record(item, send) {
        await sql`update flowledger.executions set epoch = epoch + 1, lease_token = gen_random_uuid() where id = ${item.id}`;
        const lose = () => [...orchestrator[internals].workers].forEach((worker) => worker.inside.crash());
        if (when.startsWith("before")) lose();
        const answer = send(item);
        lose();
        return answer;
      },
    });
    const orchestrator = new Orchestrator({ connection: database.url, flows: [flow] }, systemTimers, true, {
      committer,
    });
    await orchestrator.startWorker({ drainTimeout: 0 });

    await orchestrator.flow(flow).startExecution(null, atOnce);
    const open = () => sql`
      select from pg_stat_activity
      where datname = current_database() and application_name = 'flowledger transactions' and state like 'idle in transaction%'`;
    await expect.poll(() => [...orchestrator[internals].workers].every(({ inside }) => inside.isCrashed)).toBe(true);
    await expect.poll(open).toHaveLength(0);

    expect(await sql`select from paid where place = ${place}`).toHaveLength(0);
    await orchestrator.close();
  },
);

test("what a transaction gives, and what its work gets, is typed", () => {
  const flow = defineFlow("transaction.types");
  flow.to("t", async (ctx) => {
    expectTypeOf(
      ctx.transaction("a", (tx) => tx.query<{ n: number }>("select 1 as n").then(({ rows }) => rows)),
    ).resolves.toEqualTypeOf<{ n: number }[]>();
    expectTypeOf(
      ctx.transaction("b", (tx) => (expectTypeOf(tx).toExtend<postgres.TransactionSql>(), 1), { client }),
    ).resolves.toEqualTypeOf<number>();
    // @ts-expect-error a transaction is no client
    void ctx.transaction("c", () => 1, { client: 5 });
  });
});
