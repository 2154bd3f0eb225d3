/** What a development server does with each edit: it evaluates the application's modules again, in the same process. */
import { afterEach, beforeEach, expect, test } from "vitest";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import type { Execution, Orchestrator, OrchestratorOptions } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { untilEvent } from "../support/flows.ts";

let database: TestDatabase;
let made: Orchestrator[];

beforeEach(async () => {
  database = await testDatabase();
  made = [];
});

afterEach(() => Promise.all(made.map((one) => one.close())));

/** What the module is worth at an edit. */
function evaluated(
  version: string,
  {
    names = ["order"],
    scheduled = [],
    ...options
  }: OrchestratorOptions & { names?: string[]; scheduled?: string[] } = {},
) {
  const flows = names.map((name) => {
    const flow = defineFlow(name);
    flow
      .to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }))
      .to("doze", (ctx) => ctx.sleep("300ms"))
      .to("say", (ctx) => ctx.setState("version", `${String(ctx.getResource("prefix", ""))}${version}`));
    return flow;
  });
  const schedules = flows
    .filter(({ name }) => scheduled.includes(name))
    .map((flow) => ({ flow, name: `${flow.name} ${version}`, cron: "0 7 * * *", input: null }));
  const orchestrator = createOrchestrator({ connection: database.url, flows, schedules, reload: true, ...options });
  made.push(orchestrator);
  const start = (name = names[0] ?? "") => orchestrator.flow(name).startExecution(null, { autoCloseTimeout: 0 });
  return { orchestrator, start };
}

async function said(execution: Execution): Promise<unknown> {
  await untilEvent(execution, "interrupt.raised");
  await execution.continueWith("boss", null);
  return (await execution.waitForClose())["version"];
}

const workers = async () => (await database.sql`select 1 from flowledger.workers`).length;
const connections = async (name = "%") =>
  (
    await database.sql`
      select 1 from pg_stat_activity
      where datname = ${database.name} and application_name like ${name} and pid <> pg_backend_pid()`
  ).length;

test(
  "ten edits leave as many connections as one, one worker, and the code of the last",
  { timeout: 60_000 },
  async () => {
    const { orchestrator } = evaluated("0");
    await orchestrator.startWorker();
    let afterOne = 0;

    for (let edit = 1; edit <= 10; edit++) {
      const { start } = evaluated(`${edit}`);
      expect(await said(await start())).toBe(`${edit}`);
      await expect.poll(workers).toBe(1);
      if (edit === 1) afterOne = await connections();
    }

    expect(afterOne).toBeGreaterThan(4);
    await expect.poll(() => connections(), { timeout: 15_000 }).toBeLessThanOrEqual(afterOne);
  },
);

test("an execution that sleeps over an edit goes on with the new code", async () => {
  const { orchestrator, start } = evaluated("old");
  await orchestrator.startWorker();
  const execution = await start();
  await untilEvent(execution, "interrupt.raised");
  await execution.continueWith("boss", null);
  await untilEvent(execution, "sleep.started");

  evaluated("new");

  expect(await execution.waitForClose()).toMatchObject({ version: "new" });
});

test("what is not defined anew goes on as it was, with the resources that it had", async () => {
  const { orchestrator, start } = evaluated("old", { names: ["order", "refund"], resources: { prefix: "v-" } });
  await orchestrator.startWorker();
  const [order, refund] = [await start("order"), await start("refund")];

  evaluated("new", { names: ["order"] });

  expect([await said(order), await said(refund)]).toEqual(["v-new", "v-old"]);
});

test("of schedules those go on whose flows are not defined anew", async () => {
  const { orchestrator } = evaluated("old", { names: ["order", "refund"], scheduled: ["order", "refund"] });
  await orchestrator.startWorker();
  const registered = async () => {
    const rows = await database.sql<{ name: string }[]>`
      select jsonb_object_keys(schedules) as name from flowledger.workers order by 1`;
    return rows.map(({ name }) => name);
  };
  expect(await registered()).toEqual(["order old", "refund old"]);

  evaluated("new", { names: ["order"], scheduled: ["order"] });

  await expect.poll(registered).toEqual(["order new", "refund old"]);
});

test("another database, another schema, other flows and an orchestrator without `reload` leave a worker alone", async () => {
  const { orchestrator } = evaluated("old");
  const worker = await orchestrator.startWorker();

  evaluated("new", { names: ["other"] });
  evaluated("new", { schema: "other" });
  evaluated("new", { connection: (await testDatabase()).url });
  evaluated("new", { reload: false });

  expect(orchestrator.health().ok).toBe(true);
  await worker.stop();
});

test("closing the one that started the worker ends the worker, whoever has it; closing another gives it back", async () => {
  const first = evaluated("first");
  await first.orchestrator.startWorker();
  const second = evaluated("second");

  // In the middle of its taking over; the third has the worker.
  await second.orchestrator.close();
  const after = await said(await first.start());
  const third = evaluated("third");
  expect(await said(await third.start())).toBe("third");
  await first.orchestrator.close();

  expect(after).toBe("first");
  await expect.poll(workers).toBe(0);
});

test("a worker that was stopped stays stopped", async () => {
  const first = evaluated("first");
  const worker = await first.orchestrator.startWorker();
  await worker.stop();

  const second = evaluated("second");
  await second.orchestrator.migrate();

  expect(await workers()).toBe(0);
});

test("one that let go of its connections opens them again where it is used", async () => {
  const first = evaluated("first", { connection: `${database.url}?application_name=first` });
  await first.orchestrator.startWorker();
  const execution = await first.start();
  evaluated("second");
  await expect.poll(() => connections("first"), { timeout: 10_000 }).toBe(0);

  expect(await said(await first.orchestrator.getExecution(execution.id))).toBe("second");
});
