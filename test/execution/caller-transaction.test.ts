/** A start in a transaction of the caller's own: whatever the transaction is made of, and whatever is not one. */
import { drizzle as drizzleOnPg } from "drizzle-orm/node-postgres";
import { drizzle } from "drizzle-orm/postgres-js";
import knex from "knex";
import { Kysely, PostgresDialect, CamelCasePlugin } from "kysely";
import { EntitySchema, MikroORM } from "@mikro-orm/postgresql";
import { DataSource } from "typeorm";
import pg from "pg";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { createOrchestrator, defineFlow, UsageError } from "../../src/index.ts";
import type { CreateOptions } from "../../src/index.ts";
import { callerTransactions } from "../../src/store/caller-transaction.ts";
import { defaultNames } from "../../src/store/names.ts";
import { administer, testDatabase } from "../support/database.ts";
import { refusal, visiting } from "../support/flows.ts";
import { expectGuarantees, ledgerOf } from "../support/ledger.ts";

type Tx = NonNullable<CreateOptions["tx"]>;

const database = await testDatabase();
const flow = defineFlow("atomic");
flow.to("end", (ctx) => ctx.input);
const orchestrator = visiting(database, [flow]);
const bound = orchestrator.flow(flow);
const pool = new pg.Pool({ connectionString: database.url, max: 3 });
const sql = postgres(database.url, { max: 3 });
const drizzled = postgres(database.url, { max: 3 });
const kysely = new Kysely<object>({
  dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: database.url, max: 3 }) }),
});
const knexed = knex({ client: "pg", connection: database.url, pool: { min: 0, max: 3 } });
const source = await new DataSource({ type: "postgres", url: database.url, poolSize: 3 }).initialize();
const mikro = await MikroORM.init({
  clientUrl: database.url,
  entities: [new EntitySchema({ name: "Note", properties: { id: { type: "number", primary: true } } })],
});
afterAll(async () => {
  await Promise.all([orchestrator.close(), pool.end(), sql.end(), drizzled.end()]);
  await Promise.all([kysely.destroy(), knexed.destroy(), source.destroy(), mikro.close()]);
});

/** A transaction, and how it ends. */
interface Open extends AsyncDisposable {
  readonly tx: Tx;
  end(how: "commit" | "rollback"): Promise<unknown>;
}

/** For drivers whose transaction is a callback: open until `end`. */
function opened<T extends Tx>(begin: (work: (tx: T) => Promise<void>) => Promise<unknown>): Promise<Open> {
  const { promise: given, resolve: give } = Promise.withResolvers<Open>();
  const { promise: ending, resolve: end } = Promise.withResolvers<"commit" | "rollback">();
  const over = begin(async (tx) => {
    const stop = (how: "commit" | "rollback") => {
      end(how);
      return over.catch(() => {});
    };
    give({ tx, end: stop, [Symbol.asyncDispose]: async () => void (await stop("rollback")) });
    if ((await ending) === "rollback") throw new Error("rolled back");
  });
  over.catch(() => {});
  return given;
}

async function openedOnPg(
  client: pg.ClientBase,
  { begin = "begin", wrap = (inner: pg.ClientBase): Tx => inner, close = async () => {} } = {},
): Promise<Open> {
  await client.query(begin);
  const end = async (how: string) => {
    await client.query(how);
    await close();
  };
  return { tx: wrap(client), end, [Symbol.asyncDispose]: () => end("rollback").catch(() => {}) };
}

async function connected(Client: typeof pg.Client, config: pg.ClientConfig = {}): Promise<pg.Client> {
  const client = new Client({ connectionString: database.url, ...config });
  await client.connect();
  return client;
}

const closing = (client: pg.Client) => ({ close: () => client.end() });
const passing = <T extends object>(inner: T): T => new Proxy(inner, {});
class Traced extends pg.Client {}

/** Every kind that must work. */
const kinds: Record<string, () => Promise<Open>> = {
  "postgres.js": () => opened((work) => sql.begin(work)),
  "a savepoint of postgres.js": () => opened((work) => sql.begin((tx) => tx.savepoint(work))),
  "a reserved connection of postgres.js": async () => {
    const one = await sql.reserve();
    await one`begin`;
    const end = async (how: string) => {
      await one.unsafe(how);
      one.release();
    };
    return { tx: one, end, [Symbol.asyncDispose]: async () => {} };
  },
  "postgres.js behind a proxy": () => opened((work) => sql.begin((tx) => work(passing(tx)))),
  "postgres.js that renames columns and has types of its own": async () => {
    const own = postgres(database.url, {
      max: 1,
      transform: { ...postgres.toPascal, undefined: null },
      types: {
        anything: { to: 3802, from: [16, 20, 23, 114, 701, 1184, 2950, 3802], serialize: () => "null", parse: () => 0 },
      },
    });
    const open = await opened((work) => own.begin(work));
    const end = async (how: "commit" | "rollback") => {
      await open.end(how);
      await own.end();
    };
    return { tx: open.tx, end, [Symbol.asyncDispose]: () => end("rollback") };
  },
  pg: async () => {
    const client = await connected(pg.Client);
    return openedOnPg(client, closing(client));
  },
  "a client of a pg pool": async () => {
    const client = await pool.connect();
    return openedOnPg(client, { close: async () => client.release() });
  },
  "a subclass of a pg client": async () => {
    const client = await connected(Traced);
    return openedOnPg(client, closing(client));
  },
  "a pg client behind a proxy": async () => {
    const client = await connected(pg.Client);
    return openedOnPg(client, { wrap: passing, ...closing(client) });
  },
  "an object that hands queries to a pg client": async () => {
    const client = await connected(pg.Client);
    const wrap = (inner: pg.ClientBase) => ({
      query: (text: string, values?: unknown[]) => inner.query(text, values) as Promise<{ rows: unknown[] }>,
    });
    return openedOnPg(client, { wrap, ...closing(client) });
  },
  "pg with parsers of its own": async () => {
    const client = await connected(pg.Client, { types: { getTypeParser: () => (text: string) => text } });
    return openedOnPg(client, closing(client));
  },
  "drizzle on postgres.js": () => opened((work) => drizzle(drizzled).transaction(work)),
  "drizzle on pg": () => opened((work) => drizzleOnPg(pool).transaction(work)),
  "a transaction in one of drizzle": () =>
    opened((work) => drizzleOnPg(pool).transaction((tx) => tx.transaction(work))),
  Kysely: () => opened((work) => kysely.transaction().execute(work)),
  "Kysely with a plugin": () => opened((work) => kysely.withPlugin(new CamelCasePlugin()).transaction().execute(work)),
  "Kysely, begun by hand": async () => {
    const tx = await kysely.startTransaction().execute();
    const end = (how: "commit" | "rollback") => tx[how]().execute();
    return { tx, end, [Symbol.asyncDispose]: () => end("rollback").catch(() => {}) };
  },
  Knex: () => opened((work) => knexed.transaction(work)),
  "a transaction in one of Knex": () => opened((work) => knexed.transaction((tx) => tx.transaction(work))),
  TypeORM: () => opened((work) => source.transaction(work)),
  "a query runner of TypeORM": async () => {
    const runner = source.createQueryRunner();
    await runner.startTransaction();
    const end = async (how: "commit" | "rollback") => {
      await (how === "commit" ? runner.commitTransaction() : runner.rollbackTransaction());
      await runner.release();
    };
    return { tx: runner, end, [Symbol.asyncDispose]: () => end("rollback").catch(() => {}) };
  },
  MikroORM: () => opened((work) => mikro.em.fork().transactional(work)),
  "an object that is asked as Prisma is": async () => {
    const client = await connected(pg.Client);
    const wrap = (inner: pg.ClientBase) => ({
      $queryRawUnsafe: async (text: string, ...values: unknown[]) => (await inner.query(text, values)).rows,
    });
    return openedOnPg(client, { wrap, ...closing(client) });
  },
  "drizzle behind a proxy": () => opened((work) => drizzle(drizzled).transaction((tx) => work(passing(tx)))),
};

const apis: Record<string, (tx: Tx) => Promise<{ id: string }>> = {
  createExecution: (tx) => bound.createExecution({ tx, metadata: { text: "ü'\"\\" } }),
  startExecution: (tx) => bound.startExecution({ text: "ü'\"\\" }, { tx, idempotencyKey: crypto.randomUUID() }),
};
const matrix = Object.keys(kinds).flatMap((kind) => Object.keys(apis).map((api) => [api, kind] as const));

test.each(matrix)("%s in a transaction of %s exists once that commits", async (api, kind) => {
  await using open = await named(kinds, kind)();

  const { id } = await named(apis, api)(open.tx);
  expect(await ledgerOf(database.sql, id as never)).toEqual([]);
  await open.end("commit");

  expect(await ledgerOf(database.sql, id as never)).toContain("execution.created");
  await expectGuarantees(database.sql, id);
});

test.each(matrix)("%s in a transaction of %s leaves nothing when that rolls back", async (api, kind) => {
  await using open = await named(kinds, kind)();
  const before = await written();

  await named(apis, api)(open.tx);
  await open.end("rollback");

  expect(await written()).toEqual(before);
});

test.each(Object.keys(kinds))(
  "a command in a transaction of %s counts when that commits, and never else",
  async (kind) => {
    const execution = await bound.createExecution({ autoClose: false });
    const sent = async () =>
      (await ledgerOf(database.sql, execution.id)).filter((type) => type === "event.emitted").length;

    for (const [how, comes] of [
      ["rollback", 0],
      ["commit", 1],
    ] as const) {
      await using open = await named(kinds, kind)();
      await execution.emit("Said", { text: "ü'\"\\" }, { tx: open.tx, idempotencyKey: "once", actor: "ann" });
      expect(await sent()).toBe(0);
      await open.end(how);

      expect(await sent()).toBe(comes);
    }
    await expectGuarantees(database.sql, execution.id);
  },
);

async function* held<T>(value: T, release: () => unknown): AsyncGenerator<T, void, undefined> {
  try {
    yield value;
  } finally {
    await release();
  }
}

async function* afterEnd(kind: string, how: "commit" | "rollback") {
  const open = await named(kinds, kind)();
  await open.end(how);
  yield open.tx;
}

async function* begunOnPg(...statements: string[]) {
  const client = await connected(pg.Client);
  for (const statement of statements) await client.query(statement).catch(() => {});
  yield* held(client, () => client.end());
}

async function* begunAndEnded() {
  const client = await connected(pg.Client);
  await client.query("begin");
  await client.end();
  yield client;
}

async function* onPostgresJs(...statements: string[]) {
  const open = await opened<postgres.TransactionSql>((work) => sql.begin(work));
  for (const statement of statements) await (open.tx as postgres.TransactionSql).unsafe(statement).catch(() => {});
  yield* held(open.tx, () => open.end("rollback"));
}

const ended = /tx must be an open transaction, got something that answers outside of one: pass what sql\.begin/;
const failed = /tx must be a transaction that can go on, got one in which a statement failed: roll it back/;
const reading = /tx must be a transaction that may write, got a read-only one: begin it read write/;
const foreign = (what: string) =>
  new RegExp(
    `^tx must be a transaction of postgres\\.js, pg, drizzle, Kysely, Knex, TypeORM, MikroORM or Prisma, got ${what}: (await it, and )?pass`,
  );

/** Every kind of thing that must be refused, and what is said of it. */
const others: [string, () => AsyncIterable<unknown>, RegExp][] = [
  ["a pg client without begin", () => begunOnPg(), ended],
  ["a pg client after commit", () => begunOnPg("begin", "commit"), ended],
  ["a pg client after rollback", () => begunOnPg("begin", "rollback"), ended],
  ["a pg client that has ended", () => begunAndEnded(), ended],
  ["a client that went back to its pool", () => afterEnd("a client of a pg pool", "commit"), ended],
  ["a pg pool", () => held(pool, () => {}), ended],
  ["a client of postgres.js", () => held(sql, () => {}), ended],
  ["a database of drizzle on postgres.js", () => held(drizzle(drizzled), () => {}), ended],
  ["a database of drizzle on pg", () => held(drizzleOnPg(pool), () => {}), ended],
  ["a database of Kysely", () => held(kysely, () => {}), ended],
  ["a client of Knex", () => held(knexed, () => {}), ended],
  ["a source of TypeORM", () => held(source, () => {}), ended],
  ["an entity manager of TypeORM outside of a transaction", () => held(source.manager, () => {}), ended],
  ["an entity manager of MikroORM outside of a transaction", () => held(mikro.em.fork(), () => {}), foreign("an? .*")],
  ["a committed transaction of Kysely", () => afterEnd("Kysely", "commit"), ended],
  ["a rolled back transaction of Knex", () => afterEnd("Knex", "rollback"), ended],
  ["a committed transaction of TypeORM", () => afterEnd("TypeORM", "commit"), ended],
  ["a query runner of TypeORM that was released", () => afterEnd("a query runner of TypeORM", "commit"), ended],
  ["a committed transaction of MikroORM", () => afterEnd("MikroORM", "commit"), ended],
  ["a committed transaction of postgres.js", () => afterEnd("postgres.js", "commit"), ended],
  ["a rolled back transaction of postgres.js", () => afterEnd("postgres.js", "rollback"), ended],
  ["a committed transaction of drizzle on postgres.js", () => afterEnd("drizzle on postgres.js", "commit"), ended],
  ["a rolled back transaction of drizzle on pg", () => afterEnd("drizzle on pg", "rollback"), ended],
  ["a pg client whose transaction failed", () => begunOnPg("begin", "select 1 / 0"), failed],
  ["a transaction of postgres.js that failed", () => onPostgresJs("select 1 / 0"), failed],
  ["a pg client that may only read", () => begunOnPg("begin read only"), reading],
  ["a transaction of postgres.js that may only read", () => onPostgresJs("set transaction read only"), reading],
  ["a promise", () => held({ value: sql.begin(async () => {}) }, () => {}), foreign("a promise")],
  ["an object", () => held({ url: database.url }, () => {}), foreign("an object")],
  [
    "a function",
    () =>
      held(
        () => {},
        () => {},
      ),
    foreign("a function"),
  ],
  ["null", () => held(null, () => {}), foreign("null")],
  ["false", () => held(false, () => {}), foreign("false")],
  ["an empty text", () => held("", () => {}), foreign('""')],
  ["a number", () => held(7, () => {}), foreign("7")],
  ["a date", () => held(new Date(0), () => {}), foreign(".*1970.*")],
  ["a list", () => held([sql], () => {}), foreign("a list")],
  ["what answers a query with nothing", () => held({ query: () => undefined }, () => {}), ended],
  ["what answers a query with no rows", () => held({ query: async () => ({ rows: [] }) }, () => {}), ended],
  ["what answers a query as another library does", () => held({ query: async () => [{ a: 1 }] }, () => {}), ended],
  ["what answers every query alike", () => held({ query: async () => ({ rows: [{ a: "[]" }] }) }, () => {}), ended],
  [
    "what throws",
    () =>
      held(
        {
          query: () => {
            throw "thrown";
          },
        },
        () => {},
      ),
    ended,
  ],
];

test.each(others)("%s as tx is refused, and nothing is written", async (_, make, words) => {
  for await (const value of make()) {
    const tx = (typeof value === "object" && value !== null && "value" in value ? value.value : value) as Tx;
    const before = await written();

    const errors = [await refusal(bound.startExecution(1, { tx })), await refusal(bound.createExecution({ tx }))];

    for (const error of errors) {
      expect(error).toBeInstanceOf(UsageError);
      expect((error as Error).message).toMatch(words);
    }
    expect(await written()).toEqual(before);
  }
});

test("a pool with one client that somebody gave back inside of a transaction is not taken for it", async () => {
  await using worn = new DisposablePool(3);
  const clients = await Promise.all([worn.pool.connect(), worn.pool.connect()]);
  await clients[0].query("begin");
  for (const client of clients) client.release();
  // Two statements in a row go to two clients.
  const turn: pg.PoolClient[] = [];
  const alternating = {
    query: async (text: string, values?: unknown[]) => {
      const client = await worn.pool.connect();
      const answer: { rows: unknown[] } = await client.query(text, values);
      turn.push(client);
      if (turn.length === 2) turn.splice(0).forEach((each) => each.release());
      return answer;
    },
  };
  const before = await written();

  const first = await refusal(bound.startExecution(1, { tx: clients[1] }));
  const second = await refusal(bound.startExecution(1, { tx: alternating }));

  expect([first, second]).toMatchObject([{ code: "USAGE_INVALID" }, { code: "USAGE_INVALID" }]);
  expect(await written()).toEqual(before);
});

class DisposablePool implements AsyncDisposable {
  readonly pool: pg.Pool;

  constructor(max: number) {
    this.pool = new pg.Pool({ connectionString: database.url, max });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.pool.end();
  }
}

test("a transaction of another database is refused by name", async () => {
  await using other = await testDatabase();
  const before = await written();

  const error = await other.sql.begin((tx) => refusal(bound.startExecution(1, { tx })));

  expect(error).toBeInstanceOf(UsageError);
  expect(String(error)).toContain(`got one of database "${other.name}"`);
  expect(await written()).toEqual(before);
  expect(await other.sql`select from flowledger.executions`).toHaveLength(0);
});

test("a pg client that was never connected, which answers nothing, is refused in time", async () => {
  const error = await refusal(bound.startExecution(1, { tx: new pg.Client(database.url) }));

  expect(error).toMatchObject({ code: "USAGE_INVALID", message: expect.stringMatching(ended) });
});

test("a refused tx can still be used for something else", async () => {
  await sql.begin("read only", async (tx) => {
    expect(await refusal(bound.startExecution(1, { tx }))).toBeInstanceOf(UsageError);
    expect(await tx`select 1 as one`).toEqual([{ one: 1 }]);
  });
  const client = await connected(pg.Client);
  expect(await refusal(bound.startExecution(1, { tx: client }))).toBeInstanceOf(UsageError);
  expect((await client.query("select 1 as one")).rows).toEqual([{ one: 1 }]);
  await client.end();
});

test("calls that would wait for the commit, or start outside of it, refuse tx", async () => {
  const before = await written();

  const errors = await sql.begin(async (tx) => {
    const options = { tx } as object;
    return [
      await refusal(bound.start(1, options)),
      await refusal(bound.getRuntimeStream(1, options).next()),
      await refusal(Promise.resolve(bound.run(1, options))),
      await refusal(bound.startMany([1], options)),
    ];
  });

  for (const error of errors) {
    expect(error).toBeInstanceOf(UsageError);
    expect(String(error)).toMatch(/startExecution\(\)/);
  }
  expect(await written()).toEqual(before);
});

/** What a caller's session may be set to. */
const hostile: Record<string, string> = {
  array_nulls: "off",
  bytea_output: "escape",
  check_function_bodies: "off",
  DateStyle: "SQL, DMY",
  default_transaction_isolation: "serializable",
  extra_float_digits: "-10",
  IntervalStyle: "iso_8601",
  quote_all_identifiers: "on",
  row_security: "off",
  search_path: "trap, pg_catalog",
  standard_conforming_strings: "off",
  TimeZone: "Asia/Kolkata",
  transform_null_equals: "on",
};
// What stands before pg_catalog in `search_path` would be called in its place.
await database.sql`create schema trap`;
await database.sql`create function trap.pg_current_xact_id() returns xid8 language sql return (1 / 0)::text::xid8`;
await database.sql`create function trap.current_setting(text) returns text language sql return (1 / 0)::text`;
await database.sql`create domain trap.text as pg_catalog.text check (value = '')`;
await database.sql`create domain trap.uuid as pg_catalog.uuid check (value is null)`;

test.each([...Object.entries(hostile), ["everything", ""] as const])(
  "a session with %s set to %j starts what any other does",
  async (name, value) => {
    const startAt = new Date("2031-02-03T04:05:06.789Z");
    const client = await connected(pg.Client);
    for (const [each, to] of name === "everything" ? Object.entries(hostile) : [[name, value] as const])
      await client.query("select set_config($1, $2, false)", [each, to]);

    await client.query("begin");
    const { id } = await bound.startExecution(
      { n: 0.1, at: startAt.toISOString() },
      {
        tx: client as unknown as Tx,
        startAt,
        discardAfter: new Date("2032-02-03T04:05:06.789Z"),
        metadata: { null: null, list: [null, "a"] },
      },
    );
    await client.query("commit");
    await client.end();

    const { sql: look } = database;
    const [row] = await look`
      select e.wake_at, e.metadata, e.limit_key, s.payload -> 'input' as input, s.payload -> 'dueAt' as due,
        c.payload #> '{settings,discardAt}' as discard
      from flowledger.executions e
      join flowledger.ledger c on c.execution_id = e.id and c.seq = 1
      join flowledger.ledger s on s.execution_id = e.id and s.seq = 2
      where e.id = ${id}`;
    expect(row).toEqual({
      wake_at: startAt,
      metadata: { null: null, list: [null, "a"] },
      limit_key: null,
      input: { n: 0.1, at: startAt.toISOString() },
      due: startAt.getTime(),
      discard: Date.parse("2032-02-03T04:05:06.789Z"),
    });
    await expectGuarantees(look, id);
  },
);

test.each(["read committed", "repeatable read", "serializable"])(
  "in a transaction that is %s a start is atomic, and a known key gives the same execution",
  async (level) => {
    const options = { idempotencyKey: `level ${level}` };
    const ids: string[] = [];

    for (let round = 0; round < 2; round++)
      await sql.begin(`isolation level ${level}`, async (tx) => {
        ids.push((await bound.startExecution(1, { tx, ...options })).id);
      });

    expect(new Set(ids).size).toBe(1);
    await expectGuarantees(database.sql, ids[0] ?? "");
  },
);

test("a start that cannot be serialized says so, and to run the transaction again", async () => {
  const options = { idempotencyKey: "twice at once" };

  const error = await refusal(
    sql.begin("isolation level repeatable read", async (tx) => {
      // From here on it sees nothing that others commit.
      await tx`select from flowledger.executions limit 0`;
      await bound.startExecution(1, options);
      await bound.startExecution(1, { tx, ...options });
    }),
  );

  expect(error).toMatchObject({ code: "DATABASE_REFUSED", details: { sqlstate: "40001" } });
  expect(String(error)).toMatch(/run the transaction again/);
});

test("a role that may not start is named, and it is the role of the transaction", async () => {
  const role = `stranger_${database.name}`;
  await administer(database.adminUrl, (admin) => admin.unsafe(`create role ${role} login password 'pw'`));
  const url = new URL(database.url);
  url.username = role;
  url.password = "pw";
  const stranger = postgres(url.href, { max: 1 });

  const error = await refusal(stranger.begin((tx) => bound.startExecution(1, { tx })));
  await stranger.end();
  await administer(database.adminUrl, (admin) => admin.unsafe(`drop role ${role}`));

  expect(error).toMatchObject({ code: "PERMISSION_DENIED", details: { user: role } });
});

test("an orchestrator whose database is away hears of that, and not of its tx", async () => {
  await using away = createOrchestrator({ connection: "postgres://ann:secret@127.0.0.1:9/nothing", flows: [flow] });

  const error = await sql.begin((tx) => refusal(away.flow(flow).startExecution(1, { tx })));

  expect(error).toMatchObject({ code: "CONNECTION_FAILED" });
});

/** Everything that a start writes. */
async function written() {
  const [row] = await database.sql`
    select (select count(*)::int from flowledger.executions) as executions, (select count(*)::int from flowledger.ledger) as events,
      (select count(*)::int from flowledger_jobs._private_jobs) as jobs`;
  return row;
}

function named<T>(all: Record<string, T>, name: string): T {
  const found = all[name];
  if (found === undefined) throw new Error(`there is no ${name}`);
  return found;
}

test("which database is ours is asked again where the answer was lost once", async () => {
  let asked = 0;
  const ours = { system: "1", oid: "2" };
  const answer = () => (++asked === 1 ? Promise.reject(new Error("lost")) : Promise.resolve([ours]));
  const open = callerTransactions({
    sql: Object.assign(answer, { unsafe: (text: string) => text }) as never,
    names: defaultNames,
  });
  const identity = JSON.stringify(["flowledger", "7", "off", "db", "ann", { ...ours, mayCreate: true }]);
  const tx = { query: async () => ({ rows: [{ identity }] }) };

  await expect(open(tx)).rejects.toThrow("lost");

  expect(await open(tx)).toMatchObject({ id: "7", mayCreate: true });
});
