/** F1, F7: a worker goes while a step runs beside a sleep of an hour: another takes the step up at once, and once. */
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { visiting } from "../support/flows.ts";
import { beside } from "./flows.ts";
import { countEvents, expectGuarantees, startWorker, until } from "./support.ts";

const database = await testDatabase();
const { sql } = database;

test.each(["SIGKILL", "SIGTERM"] as const)(
  "F1, F7: after %s the step does not wait for the sleep, and is not run again behind it",
  async (signal) => {
    await using orchestrator = visiting(database, [beside]);
    await using first = await startWorker(database.url, { CRASH_NAME: "first" });
    const input = { worker: "first" };
    const execution = await orchestrator.flow(beside).startExecution(input, { autoCloseTimeout: 0 });
    await first.untilLine(/^beside beside/);
    await using second = await startWorker(database.url, { CRASH_NAME: "second" });

    first.kill(signal);

    await second.untilLine(/^beside beside/);
    const isFree = async () =>
      (
        await sql`select 1 from flowledger.executions where id = ${execution.id} and owner is null and wake_at > now() + interval '50 minutes'`
      ).length > 0;
    expect(await until(isFree)).toBe(true);
    expect(await countEvents(sql, execution.id, "step.completed")).toBe(1);
    await execution.emit("Nobody", null);
    expect(await until(isFree)).toBe(true);
    expect(second.output().match(/^beside beside/gm)).toHaveLength(1);
    await execution.cancel();
    await expectGuarantees(sql);
  },
);
