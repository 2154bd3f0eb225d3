/** Two processes on one clock, and databases that only the kit goes into. */

import { expect, test } from "vitest";
import { createOrchestrator, defineFlow, MovableClockError } from "../../src/index.ts";
import { examine } from "../../src/store/doctor.ts";
import { testDatabase } from "../support/database.ts";
import { kit } from "../support/kit.ts";
import { startProcess } from "../support/processes.ts";
import { errand } from "./other-process.ts";

const otherProcess = new URL("./other-process.ts", import.meta.url).pathname;

test("an ordinary program refuses the database of a test, whatever it wants there", async () => {
  const flow = defineFlow("ordinary");
  flow.to("a", () => 1);
  await using t = await kit({ flows: [flow] });
  await using orchestrator = createOrchestrator({ connection: t.database, flows: [flow] });

  await expect(orchestrator.startWorker()).rejects.toThrow(MovableClockError);
  await expect(orchestrator.migrate()).rejects.toThrow(MovableClockError);
  await expect(orchestrator.flow(flow).startExecution(null)).rejects.toThrow("is the database of a test");
  await expect(orchestrator.verify()).rejects.toMatchObject({ code: "CLOCK_MOVABLE" });
  expect((await examine(t.database)).at(-1)).toMatchObject({ name: "schema", verdict: "fail" });
});

test("the kit refuses a database whose clock nobody may move", async () => {
  const flow = defineFlow("moved");
  flow.to("a", () => 1);
  const { url } = await testDatabase();

  await expect(kit({ flows: [flow], database: url })).rejects.toThrow(MovableClockError);
  await expect(kit({ flows: [flow], database: url })).rejects.toThrow("has no clock that a test may move");
});

test("the database of a test is gone when the test is", async () => {
  const flow = defineFlow("gone");
  flow.to("a", () => 1);
  const t = await kit({ flows: [flow] });

  await t.close();
  await t.close();

  await expect(kit({ flows: [flow], database: t.database })).rejects.toThrow("does not exist");
});

test("tests side by side have a database and a clock each", async () => {
  const flow = defineFlow("parallel");
  flow.to("a", (ctx) => ctx.sleep("1d"));
  await using one = await kit({ flows: [flow], now: "2026-01-01T00:00Z" });
  await using other = await kit({ flows: [flow], now: "2030-01-01T00:00Z" });
  await one.start(flow, null);

  await one.clock.advance("3d");

  expect(one.clock.now().toISOString()).toBe("2026-01-04T00:00:00.000Z");
  expect(other.clock.now().toISOString()).toBe("2030-01-01T00:00:00.000Z");
  expect((await other.orchestrator.listExecutions()).executions).toEqual([]);
});

test("two kits on one database follow one clock, whichever of them moves it and whichever does the work", async () => {
  const flow = defineFlow("shared");
  const seen: string[] = [];
  flow
    .to("a", async (ctx) => {
      await ctx.sleep("1h");
      seen.push(second.clock.now().toISOString());
    })
    .to("b", (ctx) => ctx.sleep("1d"));
  // It only starts and looks on.
  await using first = await kit({ flows: [flow], workers: 0 });
  await using second = await kit({ flows: [flow], database: first.database, workers: 2 });
  const run = await first.start(flow, null, { autoCloseTimeout: 0 });

  await first.clock.advance("2h");
  await second.clock.advance("22h");
  expect(first.clock.now()).toEqual(second.clock.now());
  await first.clock.advance("1h");

  expect(seen).toEqual(["2026-01-01T10:00:00.000Z"]);
  await run.until("closed");
  const [closed] = await run.history({ types: ["execution.closed"] });
  expect(closed?.at.toISOString()).toBe("2026-01-02T10:00:00.000Z");
});

test("two worker processes follow one clock: what one moves is done by the other, each thing at its time", async () => {
  await using t = await kit({ flows: [errand], workers: 0 });
  await using one = await startProcess(otherProcess, { args: [t.database] });
  await using other = await startProcess(otherProcess, { args: [t.database] });
  const runs = await Promise.all(Array.from({ length: 6 }, () => t.start(errand, null, { autoCloseTimeout: 0 })));

  await t.clock.advance("1d");
  await t.clock.advance("1h");
  const stop = await t.clock.next();

  expect(stop?.what).toBe('retry of chunk "retry" of errand');
  // All six, and nothing sooner or later: the first sleep, the short one, and two retries an hour apart.
  await t.clock.next();
  for (const run of runs) {
    const { by } = (await run.until("closed")) as { by?: number };
    expect([one.pid, other.pid]).toContain(by);
    const [closed] = await run.history({ types: ["execution.closed"] });
    expect(closed?.at.toISOString()).toBe("2026-01-02T11:00:00.300Z");
  }
});
