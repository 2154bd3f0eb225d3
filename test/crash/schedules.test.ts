/** Times of a schedule while workers are killed: each starts one execution, and none is left out. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { ticked } from "./flows.ts";
import { expectGuarantees, startWorker, until } from "./support.ts";

const database = await testDatabase();
const { sql } = database;

test("F1: a schedule fires each time once, while workers are killed and while none runs", async () => {
  const env = { CRASH_SCHEDULE: "1" };
  await using first = await startWorker(database.url, env);
  await using second = await startWorker(database.url, env);
  const untilFired = (count: number) => until(async () => (await fired()).length >= count, 20_000);
  await untilFired(3);

  first.kill("SIGKILL");
  await untilFired(5);
  second.kill("SIGKILL");
  await second.exited;
  const before = (await fired()).length;
  await using _heir = await startWorker(database.url, env);
  await untilFired(before + 3);

  const times = await fired();
  expect(times.length).toBeGreaterThanOrEqual(8);
  expect(times).toEqual(times.map((_, n) => (times[0] ?? 0) + n * 1000));
  await expectGuarantees(sql);
});

async function fired(): Promise<number[]> {
  const rows = await sql<{ at: string }[]>`
    select metadata ->> 'scheduledAt' as at from flowledger.executions where flow = ${ticked.name} order by 1`;
  return rows.map(({ at }) => Date.parse(at));
}
