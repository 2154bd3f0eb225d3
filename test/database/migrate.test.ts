/** A database comes to this version once, however many ask, and says so when it is not there. */
import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { MigrationError, NotMigratedError } from "../../src/base/errors.ts";
import { defineFlow } from "../../src/flow/builder.ts";
import { createOrchestrator } from "../../src/orchestrator.ts";
import { emptyDatabase, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { nothing } from "../support/ledger.ts";

const flow = defineFlow("f");
flow.to("a", nothing);

test("F33: ten orchestrators migrate an empty database at once, and it is migrated once", async () => {
  const database = await emptyDatabase();
  const orchestrators = Array.from({ length: 10 }, () => createOrchestrator({ connection: database.url }));

  await Promise.all(orchestrators.map((orchestrator) => orchestrator.migrate()));

  const applied =
    await database.sql`select hash, count(*)::int from flowledger.migrations group by hash having count(*) > 1`;
  expect(applied).toEqual([]);
  for (const orchestrator of orchestrators) {
    expect(await orchestrator.listExecutions()).toEqual({ executions: [], nextCursor: null });
    await orchestrator.close();
  }
});

test("migrating again changes nothing", async () => {
  const database = await testDatabase();
  const before = await functionsOf(database);
  await using orchestrator = createOrchestrator({ connection: database.url });

  await orchestrator.migrate();

  expect(await functionsOf(database)).toEqual(before);
});

test("a database that is not migrated says so, at every door", async () => {
  const database = await emptyDatabase();
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });

  await expect(orchestrator.flow(flow).startExecution({})).rejects.toThrow(NotMigratedError);
  await expect(orchestrator.listExecutions()).rejects.toThrow(NotMigratedError);
  await expect(orchestrator.startWorker()).rejects.toThrow(NotMigratedError);
});

test("F43: a database that a newer version migrated is refused, and left as it is", async () => {
  const database = await testDatabase();
  await database.sql`insert into flowledger.migrations (hash, created_at) values ('of the future', 9999999999999)`;
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });

  await expect(orchestrator.migrate()).rejects.toThrow(MigrationError);
  await expect(orchestrator.flow(flow).startExecution({})).rejects.toThrow(/upgrade flowledger/);
});

test("an orchestrator that found no schema works after migrate()", async () => {
  const database = await emptyDatabase();
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
  await expect(orchestrator.listExecutions()).rejects.toThrow(NotMigratedError);

  await orchestrator.migrate();

  expect(await orchestrator.flow(flow).startMany([{}])).toHaveLength(1);
});

test("F28: no table is unlogged: a crash of Postgres would empty it, and give epochs out twice", async () => {
  const { sql } = await testDatabase();

  const tables = await sql<{ name: string; persistence: string }[]>`
    select c.oid::regclass::text as name, c.relpersistence as persistence from pg_class c
    where c.relnamespace in ('flowledger'::regnamespace, 'graphile_worker'::regnamespace) and c.relkind in ('r', 'p', 'S', 'i')`;

  expect(tables.map(({ name }) => name)).toContain("flowledger.executions");
  expect(tables.filter(({ persistence }) => persistence !== "p")).toEqual([]);
});

test("every function in the schema pins its search_path", async () => {
  const database = await testDatabase();

  const functions = await functionsOf(database);

  expect(functions.length).toBeGreaterThan(10);
  expect(functions.filter(({ config }) => !config.some((line) => line.startsWith("search_path=pg_catalog")))).toEqual(
    [],
  );
});

test("the functions of a migrated database are those of commands.sql", async () => {
  const database = await testDatabase();
  const migrated = await functionsOf(database);

  await database.sql
    .unsafe(await readFile(new URL("../../src/database/commands.sql", import.meta.url), "utf8"))
    .simple();

  expect(migrated).toEqual(await functionsOf(database));
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
    const attempt = database.sql.begin(async (tx) => {
      await tx.unsafe(`set local session_replication_role = ${role}`);
      await tx.unsafe(statement);
    });
    await expect(attempt).rejects.toThrow(expect.objectContaining({ code: "FL010" }));
  }
  expect(await database.sql`select type from flowledger.ledger order by seq`).toHaveLength(2);
});

async function functionsOf({ sql }: TestDatabase) {
  const rows = await sql<{ name: string; body: string; config: string[] }[]>`
    select p.oid::regprocedure::text as name, pg_get_functiondef(p.oid) as body, coalesce(p.proconfig, '{}') as config
    from pg_proc p where p.pronamespace = 'flowledger'::regnamespace order by 1`;
  return [...rows];
}
