/** What a worker opens: each connection costs the server a process, and each thread half of a worker's start. */
import { subscribe, unsubscribe } from "node:diagnostics_channel";
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
