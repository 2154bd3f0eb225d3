/** A database of its own for a test file: a clone of the migrated template, or an empty one. */
import { randomBytes } from "node:crypto";
import postgres from "postgres";
import { afterAll, inject } from "vitest";
import { strategyOf } from "../../src/store/test-databases.ts";
import { databaseUrl, templateName } from "./server.ts";

export interface TestDatabase extends AsyncDisposable {
  readonly url: string;
  readonly name: string;
  /** A client of the test as the database's owner, apart from those of the library under test. */
  readonly sql: postgres.Sql;
  /** The same as whoever may create databases, for what an owner may not. */
  readonly adminUrl: string;
  /** Ends every session and removes the database. Otherwise the end of the test file does. */
  drop(): Promise<void>;
}

/** Migrated: a file asks once, at its top, and all its tests share it. */
export async function testDatabase(): Promise<TestDatabase> {
  const database = await copiedDatabase();
  await database.sql`select flowledger.accept_identity()`;
  return database;
}

/** A clone of the migrated template, as `createdb -T` makes it. */
export function copiedDatabase(): Promise<TestDatabase> {
  return create(templateName(inject("databasePrefix")));
}

/** Not migrated. */
export function emptyDatabase(): Promise<TestDatabase> {
  return create("template1");
}

const open = new Set<TestDatabase>();

afterAll(async () => {
  for (const database of open) await database.drop();
});

async function create(template: string): Promise<TestDatabase> {
  const serverUrl = inject("serverUrl");
  const name = `${inject("databasePrefix")}${randomBytes(4).toString("hex")}`;
  const owner = inject("owner");
  await administer(serverUrl, async (admin) => {
    const strategy = await strategyOf(admin);
    await admin`create database ${admin(name)} template ${admin(template)} strategy ${admin(strategy)} owner ${admin(owner.name)}`;
  });

  const url = databaseUrl(serverUrl, name, owner);
  const sql = postgres(url, { max: 4, onnotice: () => {} });
  const drop = async () => {
    if (!open.delete(database)) return;
    await sql.end({ timeout: 1 });
    await administer(serverUrl, (admin) => admin`drop database if exists ${admin(name)} with (force)`);
  };
  const adminUrl = databaseUrl(serverUrl, name);
  const database: TestDatabase = { url, name, sql, adminUrl, drop, [Symbol.asyncDispose]: drop };
  open.add(database);
  return database;
}

/** Does something as whoever may create databases, on a connection of its own. */
export async function administer<T>(serverUrl: string, work: (admin: postgres.Sql) => Promise<T>): Promise<T> {
  const admin = postgres(serverUrl, { max: 1, onnotice: () => {} });
  try {
    return await work(admin);
  } finally {
    await admin.end();
  }
}
