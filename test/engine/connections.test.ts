/** What a worker opens: each connection costs the server a process. */
import { expect, test, vi } from "vitest";
import { defineFlow } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { serving } from "../support/flows.ts";

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
