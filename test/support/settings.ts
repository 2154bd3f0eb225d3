/** What sessions of a database begin with, set for the database or for the role as an operator does. */
import postgres from "postgres";
import { inject } from "vitest";
import { administer } from "./database.ts";
import type { TestDatabase } from "./database.ts";

export type Level = "the database" | "the role";

/** A client of the test's own, which the settings do not reach. */
export interface Unmoved extends AsyncDisposable {
  readonly sql: postgres.Sql;
}

const aDayMs = 86_400_000;

/** Sets what new sessions begin with; undoes it at the end. */
export async function given(
  database: TestDatabase,
  level: Level,
  settings: Readonly<Record<string, string>>,
): Promise<Unmoved> {
  const serverUrl = inject("serverUrl");
  const role = inject("owner").name;
  const whose = level === "the database" ? `database ${database.name}` : `role ${role} in database ${database.name}`;
  const names = new Set<string>();
  await administer(serverUrl, async (admin) => {
    const known = await admin<{ name: string }[]>`select lower(name) as name from pg_settings`;
    for (const { name } of known) names.add(name);
    for (const [name, value] of Object.entries(settings))
      if (names.has(name.toLowerCase()))
        await admin.unsafe(
          `alter ${whose} set ${name} = ${name === "search_path" || name === "DateStyle" ? value : `'${value}'`}`,
        );
  });
  const sql = postgres(database.url, {
    max: 2,
    fetch_types: false,
    onnotice: () => {},
    connection: {
      default_transaction_isolation: "read committed",
      idle_session_timeout: aDayMs,
      idle_in_transaction_session_timeout: aDayMs,
      lock_timeout: aDayMs,
      search_path: "pg_catalog",
      statement_timeout: aDayMs,
      ...(names.has("transaction_timeout") && { transaction_timeout: aDayMs }),
    },
  });
  return {
    sql,
    async [Symbol.asyncDispose]() {
      await sql.end();
      await administer(serverUrl, (admin) => admin.unsafe(`alter ${whose} reset all`));
    },
  };
}
