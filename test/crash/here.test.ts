/** F1, F15: executions that begin, or go on, in the process that starts or tells them, claimed by the statement that does. */
import { expect, test } from "vitest";
import { v7 as uuidv7 } from "uuid";
import { z } from "zod";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import type { Execution, FlowDefinition } from "../../src/index.ts";
import { openProxy } from "../chaos/proxy.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { newGate, serving, visiting } from "../support/flows.ts";
import { inner, work } from "./flows.ts";
import { countEvents, expectGuarantees, startWorker, until, untilClosed } from "./support.ts";

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

const jobsOf = (id: string) => sql`select 1 from flowledger_jobs._private_jobs where payload::text like ${`%${id}%`}`;

/** Nobody has it, and no job of it is left over. */
async function untilAlone(id: string): Promise<void> {
  const isAlone = await until(async () => {
    const rows = await sql`select 1 from flowledger.executions where id = ${id} and epoch > 0 and owner is null`;
    return rows.length > 0 && (await jobsOf(id)).length === 0;
  });
  expect(isAlone, "it was given back").toBe(true);
}

/** Waits for whatever the test says, behind a gate. */
function gated(name: string) {
  const gate = newGate();
  let isMended = false;
  const flow = defineFlow(name, { events: { Said: z.null() } }, { onFailure: "park" });
  flow
    .to("work", (ctx) => {
      if (ctx.input !== "fails") return ctx.input === "asks" ? ctx.pauseFor({ interruptId: "ask" }) : null;
      if (!isMended) throw new Error("not yet");
      return null;
    })
    .to("after", async (ctx) => {
      if (ctx.input !== null || isMended) await gate.passed;
      await ctx.setState("passed", true);
    });
  flow.when("Said").to("said", () => gate.passed);
  return { flow, gate, mend: () => void (isMended = true) };
}

type Told = { readonly execution: Execution; readonly mend: () => void };
const by = { actor: "ann", reason: "it may go on" };

test.each<[string, string, (told: Told) => Promise<unknown>]>([
  ["an answer", "asks", ({ execution }) => execution.continueWith("ask", "yes")],
  ["an event", "asks", ({ execution }) => execution.emit("Said", null)],
  ["a cancel", "asks", ({ execution }) => execution.cancel("enough")],
  [
    "a retry",
    "fails",
    ({ execution, mend }) => {
      mend();
      return execution.retry(by);
    },
  ],
])("%s takes a free place of its own process without a job", async (name, input, tell) => {
  const { flow, gate, mend } = gated(`told.${name.replace(/^an? /, "")}`);
  await using orchestrator = await serving(database, [flow], {}, { concurrency: 1 });
  const execution = await orchestrator.flow(flow).startExecution(input, { autoCloseTimeout: 0 });
  await untilAlone(execution.id);

  await tell({ execution, mend });
  const [jobs, [header]] = await Promise.all([
    jobsOf(execution.id),
    sql`select epoch from flowledger.executions where id = ${execution.id}`,
  ]);

  expect(jobs).toHaveLength(0);
  expect(header).toMatchObject({ epoch: 2 });
  gate.open();
  await (input === "asks" && name === "an event" ? execution.cancel() : execution.waitForClose().catch(() => {}));
  await untilClosed(sql, execution.id);
  await expectGuarantees(sql);
});

test("an answer beyond the places waits with a job, and is taken when one is free", async () => {
  const { flow, gate } = gated("told.full");
  await using orchestrator = await serving(database, [flow], {}, { concurrency: 1 });
  const bound = orchestrator.flow(flow);
  const options = { autoCloseTimeout: 0 } as const;
  const executions = [await bound.startExecution("asks", options), await bound.startExecution("asks", options)];
  for (const { id } of executions) await untilAlone(id);

  for (const execution of executions) await execution.continueWith("ask", "yes");
  const [first, second] = executions;
  const waiting =
    await sql`select 1 from flowledger.executions where id = ${second?.id ?? ""} and owner is null and wake_at is not null`;
  gate.open();

  expect(waiting).toHaveLength(1);
  expect(await first?.waitForClose()).toEqual({ passed: true });
  expect(await second?.waitForClose()).toEqual({ passed: true });
  await expectGuarantees(sql);
});

test("an answer to an execution of a flow that somebody else has just paused is accepted, and waits until it goes on", async () => {
  const { flow, gate } = gated("told.paused");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution("asks", { autoCloseTimeout: 0 });
  await untilAlone(execution.id);

  // In its own transaction, with the answer: the worker here has not heard of it.
  await sql`select flowledger.pause_flow(${flow.name}, ${sql.json({ ...by, intake: "hold" })})`;
  await execution.continueWith("ask", "yes");
  expect(await sql`select 1 from flowledger.executions where id = ${execution.id} and owner is null`).toHaveLength(1);
  await orchestrator.unpauseFlow(flow.name, by);
  gate.open();

  expect(await execution.waitForClose()).toEqual({ passed: true });
  await expectGuarantees(sql);
});

test.each(["after-claim", "before-commit", "in-commit"])(
  "F1: a process that dies at %s of what it answered itself leaves it to the others",
  async (name) => {
    const id = uuidv7();
    {
      await using asked = await serving(database, [inner]);
      await asked.flow(inner).startExecution(null, { id, autoCloseTimeout: 0 });
      await untilAlone(id);
    }
    await using doomed = await startWorker(database.url, { FLOWLEDGER_FAILPOINT: `${name}:kill`, CRASH_ANSWER: id });
    expect(await doomed.exited).toMatchObject({ signal: "SIGKILL" });

    await using _heir = await startWorker(database.url);
    const header = await untilClosed(sql, id);

    expect(header).toMatchObject({ outcome: "completed" });
    expect(await countEvents(sql, id, "interrupt.resumed")).toBe(1);
    expect(await countEvents(sql, id, "chunk.completed", "more")).toBe(1);
    await expectGuarantees(sql);
  },
);

test("F15: an answer whose own answer is lost is found by its own worker, and goes on", async () => {
  const url = new URL(database.url);
  const port = Number(url.port);
  await using proxy = await openProxy({ host: url.hostname, port: () => port });
  url.port = String(proxy.port);
  await using orchestrator = createOrchestrator({ connection: url.href, flows: [inner], logger: quiet });
  await orchestrator.startWorker();
  const execution = await orchestrator.flow(inner).startExecution(null, { autoCloseTimeout: 0 });
  await untilAlone(execution.id);

  proxy.loseAnswerOf("flowledger.continue_with(");
  await expect(execution.continueWith("ask", "yes")).rejects.toMatchObject({ code: "CONNECTION_FAILED" });
  const header = await untilClosed(sql, execution.id);

  expect(proxy.counts.lostAnswers).toBe(1);
  expect(header).toMatchObject({ outcome: "completed", epoch: 3 });
  expect(await countEvents(sql, execution.id, "interrupt.resumed")).toBe(1);
  await expectGuarantees(sql);
});

test("an answer is checked by what is asked now, whatever was asked before under that name", async () => {
  const asking = (response: z.ZodType) => {
    const flow = defineFlow("told.schema");
    flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", response })).end();
    return flow;
  };
  const [old, next] = [asking(z.object({ approved: z.boolean() })), asking(z.object({ amount: z.number() }))];
  const start = async (flow: FlowDefinition) => {
    await using orchestrator = await serving(database, [flow]);
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
    await untilPending(execution);
    return execution.id;
  };
  const ids = {
    old: await start(old),
    older: await start(old),
    next: await start(next),
    free: await start(asking(z.any())),
  };
  await using orchestrator = visiting(database, [next]);
  const answer = async (id: string, value: unknown) => (await orchestrator.getExecution(id)).continueWith("q", value);

  expect(await answer(ids.old, { approved: true })).toMatchObject({ status: "resumed" });
  expect(await answer(ids.next, { amount: 3 })).toMatchObject({ status: "resumed", value: { amount: 3 } });
  await expect(answer(ids.older, { amount: 3 })).rejects.toMatchObject({ code: "CONTRACT_VIOLATED" });
  expect(await answer(ids.older, { approved: false })).toMatchObject({ value: { approved: false } });
  expect(await answer(ids.free, "anything")).toMatchObject({ value: "anything" });
  for (const id of Object.values(ids)) await (await orchestrator.getExecution(id)).cancel();
});

const quiet = { debug() {}, info() {}, warn() {}, error() {} };
