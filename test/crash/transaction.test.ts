/** A worker is killed around the COMMIT of a chunk's transaction: the application's row and its record are both there, or neither. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import { paying } from "./flows.ts";
import { countEvents, expectGuarantees, startWorker, untilClosed } from "./support.ts";

const database = await testDatabase();
const { sql } = database;
await sql`create table payments (execution_id uuid)`;

test.each(["before", "in", "after"])("a worker that dies %s the COMMIT pays once", async (when) => {
  await using orchestrator = visiting(database, [paying]);
  await using doomed = await startWorker(database.url, { CRASH_COMMIT: when });
  const { id } = await orchestrator.flow(paying).startExecution(null, { autoCloseTimeout: 0 });
  expect(await doomed.exited).toMatchObject({ signal: "SIGKILL" });

  await using heir = await startWorker(database.url);
  const header = await untilClosed(sql, id);

  expect(header).toMatchObject({ outcome: "completed", close_snapshot: { count: 1 } });
  expect(await sql`select 1 from payments where execution_id = ${id}`).toHaveLength(1);
  expect(await countEvents(sql, id, "step.completed")).toBe(1);
  expect(heir.output().match(/^body pay/gm)).toHaveLength(1);
  await expectGuarantees(sql);
});
