/** F1, F15: executions that begin in the process that starts them, claimed by the statement that creates them. */
import { expect, test } from "vitest";
import { v7 as uuidv7 } from "uuid";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import { openProxy } from "../chaos/proxy.ts";
import { testDatabase } from "../support/database.ts";
import { newGate } from "../support/flows.ts";
import { work } from "./flows.ts";
import { countEvents, expectGuarantees, startWorker, untilClosed } from "./support.ts";

const database = await testDatabase();
const { sql } = database;

test("a start takes a free place of its own process without a job; beyond the places it waits with one", async () => {
  const gate = newGate();
  const flow = defineFlow("held");
  flow.to("hold", () => gate.passed);
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
  const worker = await orchestrator.startWorker({ concurrency: 2 });
  const bound = orchestrator.flow(flow);

  const [first, second] = await Promise.all([bound.startExecution(), bound.startExecution()]);
  const owners = await sql`
    select owner, epoch from flowledger.executions where id in ${sql([first.id, second.id])}`;
  const jobs = () => sql`select 1 from flowledger_jobs._private_jobs`;
  expect(owners).toEqual([1, 2].map(() => ({ owner: worker.id, epoch: 1 })));
  expect(await jobs()).toHaveLength(0);
  const third = await bound.startExecution();
  expect(await jobs()).toHaveLength(1);
  expect(worker.owned).toBe(2);

  gate.open();
  await Promise.all([first, second, third].map((execution) => execution.close()));
  await expectGuarantees(sql);
});

test("a start that is refused or waits for its time gives its place back", async () => {
  const flow = defineFlow("placed");
  flow.to("pass", (ctx) => ctx.input);
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
  await orchestrator.startWorker({ concurrency: 1 });
  const bound = orchestrator.flow(flow);
  const { id } = await bound.startExecution(1, { autoCloseTimeout: 0 });

  await expect(bound.startExecution(2, { id })).rejects.toMatchObject({ code: "USAGE_INVALID" });
  await bound.startExecution(3, { delay: "1h" });

  expect(await bound.start(4)).toEqual({});
});

test.each(["after-claim", "before-commit", "in-commit"])(
  "F1: a process that dies at %s of what it started itself leaves it to the others",
  async (name) => {
    const id = uuidv7();
    await using doomed = await startWorker(database.url, { FLOWLEDGER_FAILPOINT: `${name}:kill`, CRASH_START: id });
    expect(await doomed.exited).toMatchObject({ signal: "SIGKILL" });

    await using _heir = await startWorker(database.url);
    const header = await untilClosed(sql, id);

    expect(header).toMatchObject({ outcome: "completed", close_snapshot: { path: ["first", "slow", "last"] } });
    expect(await countEvents(sql, id, "execution.started")).toBe(1);
    await expectGuarantees(sql);
  },
);

test("F15: a start whose answer is lost is found by its own worker, and runs", async () => {
  const url = new URL(database.url);
  const port = Number(url.port);
  await using proxy = await openProxy({ host: url.hostname, port: () => port });
  url.port = String(proxy.port);
  await using orchestrator = createOrchestrator({ connection: url.href, flows: [work], logger: quiet });
  await orchestrator.startWorker();
  const id = uuidv7();

  proxy.loseAnswerOf("flowledger.create_executions(");
  const start = orchestrator.flow(work).startExecution({}, { id, autoCloseTimeout: 0 });
  await expect(start).rejects.toMatchObject({ code: "CONNECTION_FAILED" });
  const header = await untilClosed(sql, id);

  expect(proxy.counts.lostAnswers).toBe(1);
  expect(header).toMatchObject({ outcome: "completed", epoch: 2 });
  await expectGuarantees(sql);
});

const quiet = { debug() {}, info() {}, warn() {}, error() {} };
