/** A limit holds while workers that hold its slots are killed, and their slots are not lost. */
import { expect, test } from "vitest";
import { mostAtOnce } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import type { TestProcess } from "../support/processes.ts";
import { limited } from "./flows.ts";
import { expectGuarantees, startWorker, until } from "./support.ts";

const database = await testDatabase();
const { sql } = database;

test("F1: a limit of 4 never shows 5 while workers that hold the slots are killed, and every start runs", async () => {
  await using orchestrator = visiting(database, [limited]);
  await using first = await startWorker(database.url);
  await using second = await startWorker(database.url);
  const inputs = Array.from({ length: 60 }, (_, n) => ({ ms: 400, tenant: `t${n % 6}` }));
  await orchestrator.flow(limited).startMany(inputs, { autoCloseTimeout: 0 });

  const workers = [first, second];
  await killHolder(workers);
  await using heir = await startWorker(database.url);
  workers.push(heir);
  await killHolder(workers);
  await using _last = await startWorker(database.url);
  const done = await until(async () => {
    const [row] = await sql<[{ open: number }]>`
      select count(*)::int as open from flowledger.executions where closed_at is null`;
    return row.open === 0;
  }, 40_000);

  expect(done).toBe(true);
  const most = await mostAtOnce(sql, limited.name);
  expect(most.flow).toBe(4);
  expect(Math.max(...most.perKey.values())).toBe(1);
  await expectGuarantees(sql);
});

/** Kills a worker that holds a slot, while all slots are taken. */
async function killHolder(workers: TestProcess[]): Promise<void> {
  const holder = await until(async () => {
    const held = await sql<{ owner: string }[]>`
      select e.owner from flowledger.slots p join flowledger.executions e on e.id = p.execution_id
      where p.acquired and e.owner is not null`;
    const owner = held.length === 4 ? held[0]?.owner : undefined;
    return workers.find((worker) => owner !== undefined && worker.output().includes(`ready ${owner}`));
  }, 20_000);
  if (!holder) throw new Error("the limit was never used up");
  workers.splice(workers.indexOf(holder), 1);
  holder.kill("SIGKILL");
  await holder.exited;
}
