/** What `tx` takes is a transaction: anything that would outlive the caller's rollback does not compile. */
import { drizzle as drizzleOnPg } from "drizzle-orm/node-postgres";
import { drizzle } from "drizzle-orm/postgres-js";
import type { EntityManager as MikroEntityManager } from "@mikro-orm/postgresql";
import type { Knex } from "knex";
import type { Kysely, Transaction } from "kysely";
import pg from "pg";
import postgres from "postgres";
import type { EntityManager, QueryRunner } from "typeorm";
import { expectTypeOf, test } from "vitest";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import type { CreateOptions } from "../../src/index.ts";

type Tx = NonNullable<CreateOptions["tx"]>;
const bound = createOrchestrator({ connection: "postgres://localhost/none" }).flow(defineFlow("typed.tx"));
const sql = postgres();
const pool = new pg.Pool();

test("tx takes the transactions of postgres.js, pg and drizzle", async () => {
  await sql.begin((tx) => bound.startExecution(1, { tx }));
  await sql.begin((tx) => tx.savepoint((inner) => bound.startExecution(1, { tx: inner })));
  await using reserved = Object.assign(await sql.reserve(), { [Symbol.asyncDispose]: async () => {} });
  await bound.startExecution(1, { tx: reserved });
  const client = await pool.connect();
  expectTypeOf(client).toExtend<Tx>();
  await bound.startExecution(1, { tx: client });
  await bound.startExecution(1, { tx: new pg.Client() });
  await drizzle(sql).transaction((tx) => bound.startExecution(1, { tx }));
  await drizzle(sql).transaction((tx) => tx.transaction((inner) => bound.startExecution(1, { tx: inner })));
  await drizzleOnPg(pool).transaction((tx) => bound.startExecution(1, { tx }));
});

test("tx takes the transactions of query builders and mappers", () => {
  expectTypeOf<Transaction<{ note: { id: number } }>>().toExtend<Tx>();
  expectTypeOf<Knex.Transaction>().toExtend<Tx>();
  expectTypeOf<EntityManager>().toExtend<Tx>();
  expectTypeOf<QueryRunner>().toExtend<Tx>();
  expectTypeOf<MikroEntityManager>().toExtend<Tx>();
  expectTypeOf<{ $queryRawUnsafe<T>(query: string, ...values: unknown[]): Promise<T> }>().toExtend<Tx>();
});

test("tx takes no database, pool or root client", async () => {
  const db = drizzle(sql);
  const dbOnPg = drizzleOnPg(pool);

  expectTypeOf(sql).not.toExtend<Tx>();
  expectTypeOf(pool).not.toExtend<Tx>();
  expectTypeOf(db).not.toExtend<Tx>();
  expectTypeOf(dbOnPg).not.toExtend<Tx>();
  expectTypeOf<Kysely<{ note: { id: number } }>>().not.toExtend<Tx>();
  expectTypeOf<Knex>().not.toExtend<Tx>();
  expectTypeOf<{ $queryRawUnsafe(query: string): unknown; $transaction(): unknown }>().not.toExtend<Tx>();
  // @ts-expect-error a client of postgres.js is none
  await bound.startExecution(1, { tx: sql });
  // @ts-expect-error a pool of pg is none
  await bound.startExecution(1, { tx: pool });
  // @ts-expect-error a database of drizzle is none
  await bound.startExecution(1, { tx: db });
  // @ts-expect-error nor is one on pg
  await bound.startExecution(1, { tx: dbOnPg });
  // @ts-expect-error nor is a promise of one
  await bound.startExecution(1, { tx: pool.connect() });
});
