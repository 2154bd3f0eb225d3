/** A database comes to this release once, however many ask; what is not ours is left alone, and what is newer is respected. */
import type postgres from "postgres";
import { describe, expect, inject, test } from "vitest";
import { MigrationError, NotMigratedError } from "../../src/base/errors.ts";
import { compareReleases, minRelease, release } from "../../src/base/release.ts";
import { defineFlow } from "../../src/flow/builder.ts";
import { createOrchestrator } from "../../src/orchestrator.ts";
import { migrate } from "../../src/store/migrate.ts";
import { schemaNames, withNames } from "../../src/store/names.ts";
import { sqlFiles } from "../../src/store/sql-files.ts";
import packageJson from "../../package.json" with { type: "json" };
import { administer, emptyDatabase, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { refusal, untilEvent } from "../support/flows.ts";
import { nothing } from "../support/ledger.ts";

const flow = defineFlow("f");
flow.to("a", nothing);
const failing = defineFlow("failing");
failing.to("fail", () => {
  throw new Error("no");
});
const asking = defineFlow("asking");
asking.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", payload: null }));

test("F33: ten orchestrators migrate an empty database at once, and it is migrated once", async () => {
  const database = await emptyDatabase();
  const orchestrators = Array.from({ length: 10 }, () => createOrchestrator({ connection: database.url }));

  await Promise.all(orchestrators.map((orchestrator) => orchestrator.migrate()));

  const applied = await database.sql`select name from flowledger.migrations order by name`;
  expect(applied.map(({ name }) => name as string)).toEqual([
    ...sqlFiles().numbered.map(({ name }) => name),
    "functions",
  ]);
  expect(await database.sql`select 1 from flowledger.database_identity`).toHaveLength(1);
  for (const orchestrator of orchestrators) {
    expect(await orchestrator.listExecutions()).toEqual({ executions: [], nextCursor: null });
    await orchestrator.close();
  }
});

test("migrating again changes nothing", async () => {
  const database = await testDatabase();
  const before = await everythingOf(database);

  await migrate(database.url);

  expect(await everythingOf(database)).toEqual(before);
});

test("a database that is not migrated says so, at every door", async () => {
  const database = await emptyDatabase();
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });

  await expect(orchestrator.flow(flow).startExecution({})).rejects.toThrow(NotMigratedError);
  await expect(orchestrator.listExecutions()).rejects.toThrow(NotMigratedError);
  await expect(orchestrator.startWorker()).rejects.toThrow(NotMigratedError);
});

test("an orchestrator that found no schema works after migrate()", async () => {
  const database = await emptyDatabase();
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
  await expect(orchestrator.listExecutions()).rejects.toThrow(NotMigratedError);

  await orchestrator.migrate();

  expect(await orchestrator.flow(flow).startMany([{}])).toHaveLength(1);
});

// ── releases that meet ──────────────────────────────────────────────────────────────────────────────────────

test("the release is that of the package", () => {
  expect(release).toBe(packageJson.version);
});

test.each([
  ["0.1.0", "0.1.0", 0],
  ["0.1.0", "0.2.0", -1],
  ["0.10.0", "0.9.9", 1],
  ["1.0.0-rc.1", "1.0.0", -1],
  ["1.0.0-rc.10", "1.0.0-rc.9", 1],
])("release %s beside %s", (a, b, order) => {
  expect(Math.sign(compareReleases(a, b))).toBe(order);
});

test.each(["LATIN1", "SQL_ASCII"])(
  "a database that keeps texts in %s is refused by name, and left empty",
  async (encoding) => {
    await using database = await emptyDatabase();
    await administer(inject("serverUrl"), async (admin) => {
      await admin`drop database ${admin(database.name)}`;
      await admin.unsafe(
        `create database ${database.name} owner ${inject("owner").name} template template0 encoding '${encoding}' locale_provider libc locale 'C'`,
      );
    });
    await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });

    expect(await refusal(orchestrator.migrate())).toMatchObject({
      code: "MIGRATION_FAILED",
      message: expect.stringContaining(`in ${encoding}, and flowledger needs UTF8`) as string,
    });
    expect(await database.sql`select from pg_namespace where nspname like 'flowledger%'`).toHaveLength(0);
  },
);

test("F43: a database that needs a newer release is refused, and left as it is", async () => {
  const database = await testDatabase();
  await database.sql`update flowledger.migrations set release = '99.1.0', min_release = '99.0.0' where name = 'functions'`;
  const before = await everythingOf(database);
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });

  await expect(orchestrator.migrate()).rejects.toThrow(MigrationError);
  await expect(orchestrator.flow(flow).startExecution({})).rejects.toThrow(/needs 99\.0\.0 or newer/);
  expect(await everythingOf(database)).toEqual(before);
});

test("functions of a newer release stay, and this one goes on with them as long as it may", async () => {
  const database = await testDatabase();
  await database.sql`update flowledger.migrations set release = '99.0.0', hash = 'of the future' where name = 'functions'`;
  await database.sql`comment on function flowledger.now() is 'of the future'`;
  await database.sql`insert into flowledger.migrations select '9999_future', 'of the future', '99.0.0', min_release, at, by from flowledger.migrations limit 1`;
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });

  await orchestrator.migrate();
  await orchestrator.startWorker({ drainTimeout: "1s" });

  expect(await orchestrator.flow(flow).start({})).toEqual({});
  expect(await database.sql`select release, hash from flowledger.migrations where name = 'functions'`).toMatchObject([
    { release: "99.0.0", hash: "of the future" },
  ]);
});

test("functions of an older release, or other ones of this release, are replaced", async () => {
  const database = await testDatabase();
  await database.sql.unsafe(
    "create or replace function flowledger.iso(p_at timestamptz) returns text language sql stable return 'old'",
  );
  await database.sql`update flowledger.migrations set release = '0.0.1', hash = 'old' where name = 'functions'`;
  await using orchestrator = createOrchestrator({ connection: database.url });
  await expect(orchestrator.listExecutions()).rejects.toThrow(NotMigratedError);

  await orchestrator.migrate();

  expect(await database.sql`select flowledger.iso('epoch') as epoch`).toMatchObject([
    { epoch: "1970-01-01T00:00:00.000Z" },
  ]);
  expect(await orchestrator.listExecutions()).toMatchObject({ executions: [] });
});

test("a newer release with the same functions works at once, and is on record once it has migrated", async () => {
  const database = await testDatabase();
  await database.sql`update flowledger.migrations set release = '0.0.1' where name = 'functions'`;
  await database.sql`comment on function flowledger.now() is 'not made again'`;
  await using orchestrator = createOrchestrator({ connection: database.url });
  expect(await orchestrator.listExecutions()).toMatchObject({ executions: [] });

  await orchestrator.migrate();

  const [recorded] = await database.sql`select release from flowledger.migrations where name = 'functions'`;
  const [about] = await database.sql`select obj_description('flowledger.now()'::regprocedure) as comment`;
  expect({ ...recorded, ...about }).toEqual({ release, comment: "not made again" });
});

test("a release that older ones cannot work with says so before it works, though its functions are theirs", async () => {
  const database = await testDatabase();
  await database.sql`update flowledger.migrations set min_release = '0.0.1'`;
  await using orchestrator = createOrchestrator({ connection: database.url });
  await expect(orchestrator.listExecutions()).rejects.toThrow(NotMigratedError);

  await orchestrator.migrate();

  expect(await orchestrator.listExecutions()).toMatchObject({ executions: [] });
  expect(
    await database.sql`select min_release as least from flowledger.migrations where name = 'functions'`,
  ).toMatchObject([{ least: minRelease }]);
});

test("a numbered migration that was changed after it ran is refused", async () => {
  const database = await testDatabase();
  await database.sql`update flowledger.migrations set hash = 'another' where name = '0000_tables'`;

  await expect(migrate(database.url)).rejects.toThrow(/0000_tables is not the one that ran/);
});

test("a database of a pre-release is refused with a way to carry its executions over", async () => {
  const database = await emptyDatabase();
  await database.sql.unsafe(`create schema flowledger;
    create table flowledger.migrations (id serial primary key, hash text not null, created_at bigint);
    create table flowledger.homes (at timestamptz primary key)`);
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });

  for (const attempt of [() => orchestrator.migrate(), () => orchestrator.listExecutions()])
    expect(await refusal(attempt())).toMatchObject({
      code: "MIGRATION_FAILED",
      message: expect.stringMatching(/save\(\).*load\(\)/),
    });
});

test("a database from before operators keeps its rows, indexes, triggers and views", async () => {
  await using database = await testDatabase();
  const { sql } = database;
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow, failing, asking] });
  await orchestrator.startWorker({ drainTimeout: "1s" });
  await orchestrator.flow(flow).start({});
  await refusal(orchestrator.flow(failing).start({}));
  await untilEvent(await orchestrator.flow(asking).startExecution({}), "interrupt.raised");
  await orchestrator.flow(flow).createExecution();
  await orchestrator.close();
  const structure = async () => ({
    indexes: await sql`select indexdef from pg_indexes where schemaname = 'flowledger' order by indexname`,
    views: await sql`select viewname, definition from pg_views where schemaname = 'flowledger' order by viewname`,
    triggers: await sql`select pg_get_triggerdef(oid) as made from pg_trigger where tgname !~ '^RI_' order by tgname`,
    rows: await sql`select to_jsonb(e) as row from flowledger.executions e order by id`,
  });
  const before = await structure();
  await undoOperators(sql);

  await migrate(database.url);

  expect(await structure()).toEqual(before);
  expect(before.rows.map(({ row }) => (row as { status: string }).status).toSorted()).toEqual([
    "completed",
    "created",
    "failed",
    "waiting",
  ]);
  expect(await sql`select executions from flowledger.failures`).toMatchObject([{ executions: 1 }]);
});

/** Undoes 0006_operators and the index of 0011 on what it changes, with the view on it as the release before had it. */
async function undoOperators(sql: postgres.Sql): Promise<void> {
  const [view] = await sql`select pg_get_viewdef('flowledger.failures'::regclass) as text`;
  await sql.unsafe(`drop view flowledger.failures;
    alter table flowledger.executions drop column status, drop column parked;
    alter table flowledger.executions add column status text generated always as (flowledger.status_of(outcome, started_at, pending_interrupts)) stored not null;
    create view flowledger.failures as ${String(view?.["text"])};
    delete from flowledger.migrations where name in ('0006_operators', '0012_list_index');
    update flowledger.migrations set release = '0.0.1', hash = 'old' where name = 'functions'`);
}

// ── what a plain owner may, and what nobody may ─────────────────────────────────────────────────────────────

test("a role that may create in its database and nothing else migrates, and owns everything that is made", async () => {
  const { sql, adminUrl } = await testDatabase();

  const [role] =
    await sql`select rolsuper, rolcreaterole, rolcreatedb, rolreplication from pg_roles where rolname = current_user`;
  const foreign = await sql`
    select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('flowledger', 'flowledger_jobs') and pg_get_userbyid(c.relowner) <> current_user`;

  // Where the tests' own user may not create roles, it is the owner itself.
  const canCreate = await administer(
    adminUrl,
    (admin) => admin`select 1 from pg_roles where rolname = current_user and (rolsuper or rolcreaterole)`,
  );
  expect({ foreign: [...foreign], ...(canCreate.length > 0 && role) }).toEqual({
    foreign: [],
    ...(canCreate.length > 0 && { rolsuper: false, rolcreaterole: false, rolcreatedb: false, rolreplication: false }),
  });
});

/** One object of each kind, made by somebody else under one of our names. */
const squats: Record<string, (schema: string) => string> = {
  table: (s) => `create table ${s}.executions (id uuid)`,
  "partitioned table": (s) => `create table ${s}.ledger (id uuid) partition by list (id)`,
  view: (s) => `create view ${s}.audit_ledger as select 1 as x`,
  "materialized view": (s) => `create materialized view ${s}.audit_executions as select 1 as x`,
  sequence: (s) => `create sequence ${s}.jobs_id_seq`,
  "composite type": (s) => `create type ${s}.job_spec as (identifier text)`,
  enum: (s) => `create type ${s}.kind as enum ('a')`,
  domain: (s) => `create domain ${s}.uuid as text`,
  function: (s) => `create function ${s}.now() returns timestamptz language sql as 'select clock_timestamp()'`,
  procedure: (s) => `create procedure ${s}.accept_identity() language sql as 'select 1'`,
  aggregate: (s) => `create aggregate ${s}.agg (int) (sfunc = int4pl, stype = int)`,
  operator: (s) => `create operator ${s}.= (leftarg = text, rightarg = text, function = texteq)`,
  collation: (s) => `create collation ${s}.c from "C"`,
  "text search configuration": (s) => `create text search configuration ${s}.t (copy = simple)`,
};

describe("what a stranger made under our names", () => {
  for (const schema of ["flowledger", "flowledger_jobs"])
    for (const [kind, statement] of Object.entries(squats))
      test(`${kind} in ${schema} is refused before anything else`, async () => {
        await using database = await emptyDatabase();
        await database.sql.unsafe(`create schema ${schema}`);
        await administer(database.adminUrl, (admin) => admin.unsafe(statement(schema)));

        const error = await refusal(migrate(database.url));

        expect(error).toMatchObject({ code: "MIGRATION_FAILED", message: expect.stringMatching(/belongs to role/) });
        expect(
          await database.sql`select 1 from pg_namespace where nspname in ('flowledger', 'flowledger_jobs')`,
        ).toHaveLength(1);
      });

  test("the schema itself is refused, also when an administrator migrates", async () => {
    await using database = await emptyDatabase();
    await database.sql.unsafe("create schema flowledger");

    const error = await refusal(migrate(database.adminUrl));

    expect(error).toMatchObject({
      code: "MIGRATION_FAILED",
      message: expect.stringMatching(/schema flowledger belongs to role/),
    });
  });

  test("a trigger on a table of ours is refused, and runs for nobody", async () => {
    const database = await testDatabase();
    const before = await everythingOf(database);
    await administer(database.adminUrl, async (admin) => {
      await admin.unsafe(`create schema elsewhere;
        create function elsewhere.boom() returns trigger language plpgsql as $$ begin raise 'boom'; end $$;
        create trigger boom before insert or update on flowledger.migrations for each row execute function elsewhere.boom()`);
    });
    await database.sql`update flowledger.migrations set hash = 'old' where false`;

    expect(await refusal(migrate(database.url))).toMatchObject({
      code: "MIGRATION_FAILED",
      message: expect.stringMatching(/trigger boom on flowledger\.migrations belongs to role/),
    });
    expect(await everythingOf(database)).toEqual(before);
  });

  test("what the owner itself has under our names is refused too, where flowledger did not make it", async () => {
    await using database = await emptyDatabase();
    await database.sql.unsafe("create schema flowledger; create table flowledger.mine (x int)");

    expect(await refusal(migrate(database.url))).toMatchObject({
      code: "MIGRATION_FAILED",
      message: expect.stringMatching(/flowledger\.mine is there already/),
    });
  });
});

// ── the schema option ───────────────────────────────────────────────────────────────────────────────────────

test("two applications live side by side in one database, each in a schema of its own", async () => {
  await using database = await emptyDatabase();
  const both = ["left_app", "user"].map((schema) =>
    createOrchestrator({ connection: database.url, schema, flows: [flow] }),
  );

  for (const orchestrator of both) {
    await orchestrator.migrate();
    await orchestrator.startWorker({ drainTimeout: "1s" });
  }
  const [left, right] = both;
  const execution = await left?.flow(flow).startExecution({ of: "left" }, { autoCloseTimeout: 0 });
  await right?.flow(flow).start({ of: "right" });
  await execution?.waitForClose();

  expect(
    await database.sql`select nspname from pg_namespace where nspname !~ '^(pg_|information_schema|public)' order by 1`,
  ).toMatchObject(["left_app", "left_app_jobs", "user", "user_jobs"].map((nspname) => ({ nspname })));
  const inputs = await database.sql`
    select 'left' as app, payload -> 'input' as input from left_app.ledger where type = 'execution.started'
    union all select 'right', payload -> 'input' from "user".ledger where type = 'execution.started' order by 1`;
  expect([...inputs]).toEqual([
    { app: "left", input: { of: "left" } },
    { app: "right", input: { of: "right" } },
  ]);
  expect(await refusal(right?.getExecution(execution?.id ?? "") ?? Promise.resolve())).toMatchObject({
    code: "EXECUTION_NOT_FOUND",
  });
  for (const orchestrator of both) {
    expect(await orchestrator.verify()).toEqual([]);
    await orchestrator.close();
  }
});

test.each(["", "Upper", "a-b", "1a", 'x"; drop schema public; --', "pg_mine", "information_schema", "x".repeat(42)])(
  "%j is no name for a schema",
  (schema) => {
    expect(() => createOrchestrator({ connection: "postgres://localhost/x", schema })).toThrow(
      /is not a name for a schema/,
    );
  },
);

test("names are put in where SQL means a schema, and nowhere else", () => {
  const names = schemaNames("mine");

  const renamed = withNames(
    `-- flowledger.x
    select flowledger.f('flowledger:' || a, 'flowledger'), "flowledger"."t", x.flowledger_id, 'it''s flowledger' /* flowledger */
    from flowledger_jobs.t; do $$ begin perform flowledger.g('flowledger_jobs'); end $$`,
    names,
  );

  expect(renamed).toBe(`-- flowledger.x
    select "mine".f('flowledger:' || a, 'mine'), "mine"."t", x.flowledger_id, 'it''s flowledger' /* flowledger */
    from "mine_jobs".t; do $$ begin perform "mine".g('mine_jobs'); end $$`);
});

test("in another schema no function, view or trigger names the default one", async () => {
  await using database = await emptyDatabase();
  await migrate(database.url, schemaNames("mine"));

  const named = await database.sql<{ name: string; text: string }[]>`
    select p.proname as name, pg_get_functiondef(p.oid) as text from pg_proc p where p.pronamespace = 'mine'::regnamespace and p.prokind = 'f'
    union all select c.relname, pg_get_viewdef(c.oid) from pg_class c where c.relnamespace = 'mine'::regnamespace and c.relkind = 'v'
    union all select c.relname, pg_get_indexdef(c.oid) from pg_class c where c.relnamespace = 'mine'::regnamespace and c.relkind = 'i'`;

  // The task of a flow and texts for people keep the product's name.
  const without = named.map(({ name, text }) => ({ name, text: text.replaceAll(/--[^\n]*|'[^']*'/g, "") }));
  expect(without.filter(({ text }) => /\bflowledger\b|\bflowledger_jobs\b/.test(text)).map(({ name }) => name)).toEqual(
    [],
  );
});

// ── the SQL itself ──────────────────────────────────────────────────────────────────────────────────────────

test("F28: no table is unlogged: a crash of Postgres would empty it, and give epochs out twice", async () => {
  const { sql } = await testDatabase();

  const tables = await sql<{ name: string; persistence: string }[]>`
    select c.oid::regclass::text as name, c.relpersistence as persistence from pg_class c
    where c.relnamespace in ('flowledger'::regnamespace, 'flowledger_jobs'::regnamespace) and c.relkind in ('r', 'p', 'S', 'i')`;

  expect(tables.map(({ name }) => name)).toContain("flowledger.executions");
  expect(tables.filter(({ persistence }) => persistence !== "p")).toEqual([]);
});

test("every function pins its search_path, or has a body that was bound when it was created", async () => {
  const { sql } = await testDatabase();

  const functions = await sql<{ name: string; pinned: boolean }[]>`
    select p.oid::regprocedure::text as name,
      p.prosqlbody is not null or coalesce('search_path=pg_catalog, pg_temp' = any(p.proconfig), false) as pinned
    from pg_proc p where p.pronamespace = 'flowledger'::regnamespace`;

  expect(functions.length).toBeGreaterThan(60);
  expect(functions.filter(({ pinned }) => !pinned)).toEqual([]);
});

test("every function's body is valid, whatever order the files have", async () => {
  const database = await testDatabase();

  const run = database.sql.begin(async (tx) => {
    await tx`set local search_path = pg_catalog, pg_temp`;
    for (const { text } of sqlFiles().functions) await tx.unsafe(text);
  });

  await expect(run).resolves.toBeUndefined();
});

test("one clock of domain time and one of liveness: no other is read in SQL", () => {
  const clock =
    /\b(?:clock_timestamp|statement_timestamp|transaction_timestamp|timeofday)\s*\(|(?<!\.)\bnow\s*\(|\bcurrent_(?:timestamp|date|time)\b|\blocaltime/;

  const found = sqlFiles().functions.flatMap(({ name, text }) =>
    text
      .split("\n")
      .filter((line) => clock.test(line.replace(/--.*/, "")))
      .map((line) => `${name}: ${line.trim()}`),
  );

  expect(found).toEqual([
    "00_map: return pg_catalog.clock_timestamp();",
    "00_map: return pg_catalog.clock_timestamp();",
  ]);
});

test.each([
  ["UPDATE", "update flowledger.ledger set type = 'x'"],
  ["DELETE", "delete from flowledger.ledger"],
  ["TRUNCATE", "truncate flowledger.ledger"],
  ["TRUNCATE … CASCADE", "truncate flowledger.ledger cascade"],
])("the ledger refuses %s, also under session_replication_role = replica", async (_, statement) => {
  const database = await testDatabase();
  await database.sql`select flowledger.start('f', '{}')`;

  for (const role of ["origin", "replica"]) {
    const attempt = administer(database.adminUrl, (admin) =>
      admin.begin(async (tx) => {
        await tx.unsafe(`set local session_replication_role = ${role}`);
        await tx.unsafe(statement);
      }),
    );
    await expect(attempt).rejects.toThrow(expect.objectContaining({ code: "FL010" }));
  }
  expect(await database.sql`select type from flowledger.ledger order by seq`).toHaveLength(2);
});

test("a delete is let through only for what the same transaction says in prunes", async () => {
  const { sql } = await testDatabase();
  const [row] = await sql<[{ id: string }]>`select flowledger.start('f', '{}') as id`;
  const note = (tx: postgres.TransactionSql, id: string) => tx`
    insert into flowledger.prunes (at, by, transaction, closed_before, keep, first, last, executions, events)
    values (now(), 'me', pg_current_xact_id(), now(), '{}', ${id}, ${id}, 1, 2)`;
  const remove = (tx: postgres.TransactionSql) => tx`delete from flowledger.ledger where execution_id = ${row.id}`;

  await sql.begin((tx) => note(tx, row.id));
  await expect(sql.begin((tx) => remove(tx))).rejects.toMatchObject({ code: "FL010" });
  await expect(
    sql.begin(async (tx) => {
      await note(tx, crypto.randomUUID());
      await remove(tx);
    }),
  ).rejects.toMatchObject({ code: "FL010" });
  await sql.begin(async (tx) => {
    await note(tx, row.id);
    await remove(tx);
  });

  expect(await sql`select 1 from flowledger.ledger where execution_id = ${row.id}`).toHaveLength(0);
});

async function everythingOf({ sql }: TestDatabase) {
  const rows = await sql<{ name: string; body: string }[]>`
    select p.oid::regprocedure::text as name, pg_get_functiondef(p.oid) as body
    from pg_proc p where p.pronamespace = 'flowledger'::regnamespace and p.prokind = 'f'
    union all select 'migration ' || m.name, m::text from flowledger.migrations m
    union all select 'identity', i::text from flowledger.database_identity i
    union all select 'relation', c.relname || c.relkind::text from pg_class c where c.relnamespace in ('flowledger'::regnamespace, 'flowledger_jobs'::regnamespace)
    union all select 'jobs', m.id::text from flowledger_jobs.migrations m
    order by 1, 2`;
  return [...rows];
}

test("what waited for its time before the migration of starts goes on waiting for it", async () => {
  await using database = await testDatabase();
  const { sql } = database;
  const times = async () => [
    ...(await sql`select id, due_at, discard_at from flowledger.executions where closed_at is null order by id`),
  ];
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
  const bound = orchestrator.flow(flow);
  await bound.startExecution(null, { delay: "1h" });
  await bound.startExecution(null, { startAt: new Date("2031-01-01"), discardAfter: "2h" });
  await bound.createExecution({ discardAfter: "2h" });
  await bound.startExecution();
  const before = await times();

  const [file] = sqlFiles().numbered.filter(({ name }) => name.endsWith("_starts"));
  await sql`update flowledger.executions set due_at = null, discard_at = null`;
  await sql.unsafe(file?.text.split("--> statement-breakpoint").at(-1) ?? "");

  expect(await times()).toEqual(before);
  expect(await orchestrator.verify()).toEqual([]);
});

test("workers of releases before run on while slots come in, and register by the forms that they know", async () => {
  await using database = await testDatabase();
  const { sql } = database;
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
  const worker = await orchestrator.startWorker();
  await sql.unsafe(`alter table flowledger.workers drop column slots;
    delete from flowledger.migrations where name = '0014_worker_slots'`);

  await migrate(database.url);
  const [running] = await sql`select slots from flowledger.workers where id = ${worker.id}`;
  await orchestrator.flow(flow).start({});
  const beats = async (arguments_: string) => {
    const id = crypto.randomUUID();
    // The session that registers a worker is the one that speaks for it.
    return sql.begin(async (session) => {
      await session.unsafe(`select flowledger.register_worker('${id}', 'old', 1, '{f}', ${arguments_})`);
      const [heard] = await session`select flowledger.heartbeat(${id}) as heard`;
      const [kept] = await session`select slots from flowledger.workers where id = ${id}`;
      return { ...heard, ...kept };
    });
  };

  expect(running).toEqual({ slots: null });
  expect(await beats("'{}', null")).toEqual({ heard: true, slots: null });
  expect(await beats("'{f0}', '{}', null")).toEqual({ heard: true, slots: null });
  expect(await beats("'{f0}', '{}', null, 7")).toEqual({ heard: true, slots: 7 });
});
