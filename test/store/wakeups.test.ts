/** Wake-ups over a connection that comes and goes. */
import { expect, test } from "vitest";
import { openWakeups } from "../../src/store/wakeups.ts";
import { defaultNames } from "../../src/store/names.ts";
import type { ExecutionId } from "../../src/ledger/event.ts";
import { testDatabase } from "../support/database.ts";

const database = await testDatabase();
const id = "01890000-0000-7000-8000-000000000001" as ExecutionId;

test("who listens looks when LISTEN is back: what was said meanwhile was heard by nobody", async () => {
  // Without looks of their own, every two seconds, that would hide it.
  await using wakeups = openWakeups({ sql: database.sql, names: defaultNames }, false);
  let looks = 0;
  wakeups.subscribe(id, () => (looks += 1));
  await wakeups.ready();
  const before = looks;

  await database.sql`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and query ilike 'listen%' and pid <> pg_backend_pid()`;

  await expect.poll(() => looks).toBe(before + 1);
});

test("who stops listening twice takes nothing from who listens by then", async () => {
  await using wakeups = openWakeups({ sql: database.sql, names: defaultNames });
  let heard = 0;
  const stop = wakeups.subscribe(id, () => {});
  stop();
  wakeups.subscribe(id, () => (heard += 1));

  stop();
  wakeups.notifyReaders(id);

  expect(heard).toBe(1);
});
