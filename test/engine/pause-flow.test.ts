/** A flow that an operator paused: nothing of it starts in any worker, nothing is lost, and all of it goes on at once. */
import postgres from "postgres";
import { expect, test } from "vitest";
import { defineFlow, FlowPausedError, UsageError } from "../../src/index.ts";
import type { Execution } from "../../src/index.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import { internals } from "../../src/orchestrator.ts";
import { rebuild } from "../../src/store/rebuild.ts";
import { verify } from "../../src/store/verify.ts";
import { nobody } from "../../src/store/wakeups.ts";
import { openFlowPauses } from "../../src/worker/flow-pauses.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, refusal, serving, untilEvent, visiting } from "../support/flows.ts";
import { kit } from "../support/kit.ts";

const database = await testDatabase();
const { sql } = database;
const by = { actor: "ann", reason: "INC-12" };
const done = { actor: "bo", reason: "mended" };

async function expectSound(...executions: { readonly id: string }[]): Promise<void> {
  for (const { id } of executions) {
    expect(await verify(sql, { id })).toEqual([]);
    expect(await rebuild(sql, { id })).toEqual([]);
  }
}

async function untilHeld({ id }: { readonly id: string }): Promise<void> {
  const free = async () => {
    const [row] =
      await sql`select owner is null and wake_at <= now() as free from flowledger.executions where id = ${id}`;
    return row?.["free"];
  };
  await expect.poll(free, { timeout: 8000 }).toBe(true);
}

/** Long enough for a job, a look of the worker and a steal. */
async function expectNothing(ran: readonly string[], expected: readonly string[]): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 800));
  expect(ran).toEqual(expected);
}

test("what runs reaches its end, nothing else starts, events and starts are kept, and all goes on when it is unpaused", async () => {
  const gate = newGate();
  const ran: string[] = [];
  const flow = defineFlow("paused.held");
  flow
    .to("first", async (ctx) => {
      ran.push("first");
      await ctx.step("note", () => 1);
      await gate.passed;
      ran.push("ended");
    })
    .to("second", () => ran.push("second"));
  flow.when("Heard").to("heard", () => ran.push("heard"));
  await using orchestrator = await serving(database, [flow]);
  const bound = orchestrator.flow(flow);
  const running = await bound.startExecution(null, { autoCloseTimeout: 0 });
  await expect.poll(() => ran, { timeout: 8000 }).toEqual(["first"]);

  expect(await orchestrator.pauseFlow("paused.held", by)).toBe(true);
  expect(await orchestrator.pauseFlow("paused.held", { actor: "cy", reason: "me too" })).toBe(false);
  await running.emit("Heard", null);
  const held = await bound.startExecution(null, { autoCloseTimeout: 0 });
  const [many] = await bound.startMany([null], { autoCloseTimeout: 0 });
  gate.open();
  await untilEvent(running, "chunk.completed");
  await untilHeld(running);
  await expectNothing(ran, ["first", "ended"]);
  for (const one of [running, held])
    expect(await one.explain()).toMatchObject({
      kind: "flowPaused",
      flowPaused: { ...by, intake: "hold", since: expect.any(Date) },
      sentence: expect.stringMatching(
        /^It is due since .+, and waits for its flow; flow "paused.held" is paused since .+ by "ann" \(INC-12\)\.$/,
      ),
    });
  await expectSound(running, held);

  expect(await orchestrator.unpauseFlow("paused.held", done)).toBe(true);
  expect(await orchestrator.unpauseFlow("paused.held", done)).toBe(false);
  await Promise.all([running, held, await orchestrator.getExecution(many ?? "")].map((one) => one.waitForClose()));
  expect(ran.toSorted()).toEqual(
    ["ended", "ended", "ended", "first", "first", "first", "heard", "second", "second", "second"].toSorted(),
  );
  expect(
    await sql`select flow, intake, actor, reason from flowledger.flow_pauses where flow = 'paused.held' order by number`,
  ).toEqual([
    { flow: "paused.held", intake: "hold", ...by },
    { flow: "paused.held", intake: null, ...done },
  ]);
  await expectSound(running, held);
}, 60_000);

test("beside a chunk that still runs nothing else begins: neither what follows, nor what an event leads to", async () => {
  const [long, short] = [newGate(), newGate()];
  const ran: string[] = [];
  const flow = defineFlow("paused.beside.running");
  flow.to("long", () => long.passed).to("after long", () => ran.push("after long"));
  flow.to("short", () => short.passed).to("after short", () => ran.push("after short"));
  flow.when("Heard").to("heard", () => ran.push("heard"));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "execution.claimed");

  await orchestrator.pauseFlow("paused.beside.running", by);
  await execution.emit("Heard", null);
  short.open();
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "short");
  await expectNothing(ran, []);
  // The event is kept, and asks no condition of the flow either.
  expect(await execution.history({ types: ["inbox.routed"] })).toHaveLength(1);
  expect((await execution.explain()).sentence).toMatch(/^It runs .+; flow "paused.beside.running" is paused since/);
  // It goes on in the worker that still has it.
  await orchestrator.unpauseFlow("paused.beside.running", done);
  await expect.poll(() => ran.toSorted(), { timeout: 8000 }).toEqual(["after short", "heard"]);
  long.open();
  await execution.waitForClose();
  expect(ran.toSorted()).toEqual(["after long", "after short", "heard"]);
  expect(await execution.history({ types: ["execution.claimed"] })).toHaveLength(1);
  await expectSound(execution);
}, 60_000);

test("with refuse every door answers a start with an error that says who and why; a known key still finds its execution", async () => {
  const flow = defineFlow("paused.refusing").to("work", () => "worked");
  const caller = defineFlow("paused.caller").to("call", (ctx) => ctx.call(flow, null));
  await using orchestrator = await serving(database, [flow, caller]);
  await using elsewhere = visiting(database, [flow]);
  const bound = orchestrator.flow(flow);
  const known = await bound.startExecution(null, { idempotencyKey: "k", autoCloseTimeout: 0 });
  await known.waitForClose();
  const created = await bound.createExecution({ autoCloseTimeout: 0 });
  expect(await orchestrator.pauseFlow("paused.refusing", by)).toBe(true);
  expect(await orchestrator.pauseFlow("paused.refusing", { ...by, intake: "refuse" })).toBe(true);
  expect(await orchestrator.pauseFlow("paused.refusing", { ...by, intake: "refuse" })).toBe(false);

  const doors = [
    () => bound.startExecution(null),
    () => bound.start(null),
    () => bound.createExecution(),
    () => bound.startMany([null, null]),
    () => bound.startExecution(null, { idempotencyKey: "new" }),
    () => elsewhere.flow(flow).startExecution(null),
    () => created.start(null),
    async () => await bound.run(null),
  ];
  for (const door of doors) {
    const error = await refusal(door());
    expect(error).toBeInstanceOf(FlowPausedError);
    expect(error).toMatchObject({
      code: "FLOW_PAUSED",
      details: { flow: "paused.refusing", ...by },
      message: expect.stringMatching(/by "ann" \(INC-12\), and takes no starts/),
    });
  }
  await expect(sql`select flowledger.start('paused.refusing', 'null')`).rejects.toMatchObject({
    code: "FL014",
    hint: expect.stringContaining("unpauseFlow"),
  });
  await expect(sql`select flowledger.start_execution(${created.id}, 'null')`).rejects.toMatchObject({ code: "FL014" });
  expect((await bound.startExecution(null, { idempotencyKey: "k", autoCloseTimeout: 0 })).id).toBe(known.id);
  // What it calls is a running execution's own business.
  const calling = await orchestrator.flow(caller).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(calling, "child.started");
  const all = () => sql`select from flowledger.executions where flow = 'paused.refusing'`;
  await expect.poll(all, { timeout: 8000 }).toHaveLength(3);

  await orchestrator.unpauseFlow("paused.refusing", done);
  await calling.waitForClose();
  await created.start(null);
  await expectSound(known, created, calling);
}, 60_000);

test("a pause outlives its worker: the next one starts nothing of the flow, and serves others", async () => {
  const ran: string[] = [];
  const paused = defineFlow("paused.restart").to("work", () => ran.push("paused"));
  const other = defineFlow("paused.beside").to("work", () => ran.push("other"));
  let held: Execution;
  {
    await using first = await serving(database, [paused, other]);
    await first.pauseFlow("paused.restart", by);
    held = await first.flow(paused).startExecution(null, { autoCloseTimeout: 0 });
  }
  await using second = await serving(database, [paused, other]);
  await (await second.flow(other).startExecution(null, { autoCloseTimeout: 0 })).waitForClose();
  await expectNothing(ran, ["other"]);
  await second.unpauseFlow("paused.restart", done);
  await (await second.getExecution(held.id)).waitForClose();
  expect(ran).toEqual(["other", "paused"]);
}, 60_000);

test("what a flow held when it was begun already has its job when that goes on, as what was not", async () => {
  const flow = "paused.jobs";
  await sql`
    insert into flowledger.executions (id, seq, flow, created_at, started_at, wake_at, epoch)
    select gen_random_uuid(), 2, ${flow}, now(), now(), now() - interval '1 minute', n from generate_series(0, 1) n`;
  await sql`select flowledger.pause_flow(${flow}, ${sql.json(by)})`;

  await sql`select flowledger.unpause_flow(${flow}, ${sql.json(by)})`;

  const [{ ids }] = await sql<[{ ids: number }]>`
    select sum(json_array_length(j.payload))::int as ids from flowledger_jobs._private_jobs j
    join flowledger_jobs._private_tasks t on t.id = j.task_id where t.identifier = ${`flowledger:${flow}`}`;
  expect(ids).toBe(2);
  await sql`delete from flowledger.executions where flow = ${flow}`;
});

test("whether a flow is paused says the last row of it, whatever the clock said then", async () => {
  const flow = "paused.back";
  const note = (intake: string | null, at: string) => sql`
    insert into flowledger.flow_pauses (number, flow, intake, at, by, actor, reason)
    select coalesce(max(p.number), 0) + 1, ${flow}, ${intake}, ${at}::timestamptz, session_user, 'ann', 'INC-12' from flowledger.flow_pauses p`;
  const paused = async () => (await sql`select from flowledger.flow_pause_of(${flow})`).length === 1;

  await note("hold", "2026-01-02T00:00:00Z");
  expect(await paused()).toBe(true);
  await note(null, "2026-01-01T00:00:00Z");

  expect(await paused()).toBe(false);
});

test("the timeout of a fork counts from its own claim, while its flow is paused too", async () => {
  const flow = defineFlow("paused.fork").to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
  await using t = await kit({ flows: [flow] });
  const source = await t.orchestrator.flow(flow).startExecution(null, { autoClose: false, timeout: "2h" });
  await t.settle();
  await t.clock.advance("1h");
  const fork = await source.fork({ at: (await source.result.getMeta()).stateVersion });
  await t.settle();
  const client = postgres(t.database, { max: 1 });
  const deadlineOf = async ({ id }: Execution) => {
    const [row] = await client<[{ at: Date }]>`
      select flowledger.deadline_of(e) as at from flowledger.executions e where e.id = ${id}`;
    return (row.at.getTime() - t.clock.now().getTime()) / 3_600_000;
  };

  expect([await deadlineOf(source), await deadlineOf(fork)]).toEqual([1, 2]);
  await client.end();
  for (const one of [source, fork]) await one.cancel();
});

test("a cancel ends what its paused flow holds, with its handlers; a timeout counts on", async () => {
  const ran: string[] = [];
  const flow = defineFlow("paused.ending");
  flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" })).to("next", () => ran.push("next"));
  flow.onCancel(() => void ran.push("cleaned"));
  await using t = await kit({ flows: [flow] });
  const start = (timeout?: string) =>
    t.orchestrator.flow(flow).startExecution(null, { autoClose: false, ...(timeout && { timeout }) });
  const [cancelled, timed, waiting] = [await start(), await start("1h"), await start()];
  await t.settle();
  await t.orchestrator.pauseFlow("paused.ending", by);
  for (const one of [cancelled, timed, waiting]) await one.continueWith("boss", true);
  await t.settle();
  expect(await waiting.explain()).toMatchObject({ kind: "flowPaused" });

  await cancelled.cancel("no longer wanted");
  await t.settle();
  expect((await cancelled.result.getMeta()).status).toBe("cancelled");
  await t.clock.advance("2h");
  expect((await timed.result.getMeta()).status).toBe("failed");
  expect((await waiting.result.getMeta()).status).toBe("running");
  expect(ran).toEqual(["cleaned"]);

  await t.orchestrator.unpauseFlow("paused.ending", done);
  await t.settle();
  expect(ran).toEqual(["cleaned", "next"]);
  await waiting.close();
}, 60_000);

test("executions of a flow with limits wait outside of its queue, and take its slots when it goes on", async () => {
  const gate = newGate();
  const ran: string[] = [];
  const flow = defineFlow("paused.limited", {}, { limits: { concurrency: 1 } });
  flow.to("work", async (ctx) => {
    ran.push(String(ctx.input));
    await gate.passed;
  });
  await using orchestrator = await serving(database, [flow]);
  const start = (name: string) => orchestrator.flow(flow).startExecution(name, { autoCloseTimeout: 0 });
  const first = await start("a");
  await expect.poll(() => ran, { timeout: 8000 }).toEqual(["a"]);
  const second = await start("b");
  await orchestrator.pauseFlow("paused.limited", by);
  const third = await start("c");
  gate.open();
  await first.waitForClose();
  await third.cancel("not that one");
  await expectNothing(ran, ["a"]);
  await orchestrator.unpauseFlow("paused.limited", done);
  await second.waitForClose();
  expect(ran).toEqual(["a", "b"]);
  await expect
    .poll(() => sql`select from flowledger.slots where flow = 'paused.limited' and acquired`, { timeout: 8000 })
    .toHaveLength(0);
}, 60_000);

test.each([
  ["last", ["14:00", "15:00"]],
  ["all", ["10:00", "11:00", "12:00", "13:00", "14:00", "15:00"]],
  ["skip", ["15:00"]],
] as const)(
  "a schedule of a paused flow stands still as if no worker ran, and catches up %s",
  async (catchUp, times) => {
    const ran: string[] = [];
    const flow = defineFlow("paused.scheduled").to(
      "work",
      (ctx) => void ran.push(String(ctx.execution.metadata["scheduledAt"])),
    );
    await using t = await kit({
      flows: [flow],
      schedules: [{ flow, cron: "0 * * * *", name: "hourly", catchUp, overlap: "allow" }],
    });
    await t.settle();
    await t.orchestrator.pauseFlow("paused.scheduled", by);
    await t.clock.advance("310m");
    expect(ran).toEqual([]);
    await t.orchestrator.unpauseFlow("paused.scheduled", done);
    // At once: time goes on right behind it.
    await t.clock.advance("1h");
    expect(ran.map((at) => at.slice(11, 16)).sort()).toEqual(times);
  },
  60_000,
);

test("thousands that wait have their jobs by a few statements when the flow goes on", async () => {
  const flow = defineFlow("paused.many").to("work", () => 1);
  await using orchestrator = await serving(database, [flow]);
  await orchestrator.pauseFlow("paused.many", by);
  const ids = await orchestrator.flow(flow).startMany(
    Array.from({ length: 500 }, () => null),
    { autoCloseTimeout: 0 },
  );
  await new Promise((resolve) => setTimeout(resolve, 300));
  const [before] = await sql`select count(*)::int as jobs from flowledger_jobs._private_jobs`;
  const worker = postgres(database.url, { max: 1, onnotice: () => {} });
  const jobs = await worker.begin(async (tx) => {
    await tx`select flowledger.unpause_flow('paused.many', ${tx.json(done)})`;
    return tx`select count(*)::int as jobs from flowledger_jobs._private_jobs`;
  });
  await worker.end();
  expect(Number(jobs[0]?.["jobs"]) - Number(before?.["jobs"])).toBeLessThanOrEqual(20);
  for (const id of ids) await (await orchestrator.getExecution(id)).waitForClose();
}, 60_000);

test("what is wrong with a pause is said before anything is written", async () => {
  const flow = defineFlow("paused.wrong").to("work", () => 1);
  await using orchestrator = await serving(database, [flow]);
  const wrong: [() => Promise<unknown>, RegExp][] = [
    [
      () => orchestrator.pauseFlow("paused.wrng", by),
      /no flow named "paused.wrng" is known here: did you mean "paused.wrong"\?/,
    ],
    [() => orchestrator.pauseFlow("paused.wrong", { ...by, reason: "" }), /reason of pauseFlow\(\)/],
    [() => orchestrator.pauseFlow("paused.wrong", { ...by, actor: "" }), /actor of pauseFlow\(\)/],
    [() => orchestrator.pauseFlow("paused.wrong", { ...by, intake: "stop" as "hold" }), /intake of pauseFlow\(\)/],
    [() => orchestrator.unpauseFlow("", by), /flow of unpauseFlow\(\)/],
  ];
  for (const [call, message] of wrong) {
    const error = await refusal(call());
    expect(error).toBeInstanceOf(UsageError);
    expect(error).toMatchObject({ message: expect.stringMatching(message) });
  }
  await expect(sql`select flowledger.pause_flow('paused.wrong', '{"actor": "ann"}')`).rejects.toMatchObject({
    code: "FL008",
  });
  await expect(
    sql`select flowledger.pause_flow('paused.wrong', '{"actor": "ann", "reason": "x", "intake": 1}')`,
  ).rejects.toMatchObject({ code: "FL008" });
  expect(await sql`select from flowledger.flow_pauses where flow like 'paused.wr%'`).toHaveLength(0);
  await expect(sql`delete from flowledger.flow_pauses`).rejects.toThrow(/append-only/);
}, 60_000);

test("a sweep gives no job to what its flow holds back, however long it has been due", async () => {
  const flow = defineFlow("paused.swept").to("first", () => {});
  await using orchestrator = await serving(database, [flow]);
  await orchestrator.pauseFlow("paused.swept", by);
  const held = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await untilHeld(held);
  const due = () => sql`select wake_at, xmin::text from flowledger.executions where id = ${held.id}`;
  const before = await due();

  await sql`select flowledger.sweep(0)`;

  expect(await due()).toEqual(before);
  await orchestrator.unpauseFlow("paused.swept", done);
  await held.waitForClose();
});

test("verify finds nothing wrong with what a paused flow holds back, however long", async () => {
  const flow = defineFlow("paused.verified").to("first", (ctx) => ctx.sleep("1m"));
  await using t = await kit({ flows: [flow] });
  await t.start(flow, null);
  await t.settle();
  await t.orchestrator.pauseFlow("paused.verified", by);
  await t.start(flow, null);
  await t.clock.advance("1d");

  expect(await t.orchestrator.verify()).toEqual([]);
});

test("every process is told that a flow was paused, and that it goes on, and nothing where nothing changed", async () => {
  const [named] = await sql<{ channel: string }[]>`select flowledger.channel(${nobody}::uuid) as channel`;
  const heard: string[] = [];
  const { promise: over, resolve } = Promise.withResolvers<void>();
  const listening = await sql.listen(named?.channel ?? "", (text) => (text === "over" ? resolve() : heard.push(text)));

  await sql`select flowledger.start('paused.heard', 'null', '{"allowUnknown": true, "delay": "1h"}')`;
  for (const _ of ["pauses it", "says the same again"])
    await sql`select flowledger.pause_flow('paused.heard', ${JSON.stringify(by)}::text::jsonb)`;
  await sql`select flowledger.unpause_flow('paused.heard', ${JSON.stringify(done)}::text::jsonb)`;
  await sql.notify(named?.channel ?? "", "over");
  await over;
  await listening.unlisten();

  expect(heard.filter((text) => text === nobody)).toHaveLength(2);
});

test("an execution that its flow holds has a job for when its timeout is over", async () => {
  const flow = defineFlow("paused.timed").to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
  await using orchestrator = await serving(database, [flow]);
  const held = await orchestrator.flow(flow).startExecution(null, { autoClose: false, timeout: "1h" });
  await untilEvent(held, "interrupt.raised");
  await expect
    .poll(() => sql`select from flowledger.executions where id = ${held.id} and owner is null`)
    .toHaveLength(1);
  await orchestrator.pauseFlow("paused.timed", by);
  await sql`update flowledger.executions set wake_at = flowledger.now() where id = ${held.id}`;
  await sql`delete from flowledger_jobs._private_jobs where payload::jsonb ? ${held.id}`;

  expect(await sql`select flowledger.claimable(array[${held.id}::uuid]) as ids`).toEqual([{ ids: [] }]);

  expect(
    await sql`
    select from flowledger_jobs._private_jobs j join flowledger.executions e on j.payload::jsonb ? e.id::text
    where e.id = ${held.id} and j.run_at between e.started_at + interval '59 minutes' and e.started_at + interval '61 minutes'`,
  ).toHaveLength(1);
  await held.cancel();
});

test("what is told while a worker asks which flows are paused is asked once more", async () => {
  const answers = [Promise.withResolvers<string[]>(), Promise.withResolvers<string[]>()];
  let asked = 0;
  let wake: (id: ExecutionId) => void = () => {};
  const pauses = openFlowPauses({
    store: {
      operators: { pausedFlows: () => answers[asked++]?.promise ?? Promise.resolve(["f"]) },
      wakeups: { onOwnerWakeup: (listener) => ((wake = listener), () => {}) },
    },
    flows: ["f"],
    onChange: () => {},
    onTrouble: () => {},
  });

  const looked = pauses.look();
  wake(ExecutionId.parse(nobody));
  // It was read before the flow was paused.
  answers[0]?.resolve([]);
  answers[1]?.resolve(["f"]);
  await looked;

  expect(pauses.has("f")).toBe(true);
  pauses.stop();
});

test("who could not ask which flows are paused asks again", async () => {
  const lost = new TypeError("lost");
  let asked = 0;
  const pauses = openFlowPauses({
    store: {
      operators: { pausedFlows: () => (++asked === 1 ? Promise.reject(lost) : Promise.resolve(["f"])) },
      wakeups: { onOwnerWakeup: () => () => {} },
    },
    flows: ["f"],
    onChange: () => {},
    onTrouble: () => {},
  });
  await expect(pauses.look()).rejects.toBe(lost);

  await pauses.look();

  expect(pauses.has("f")).toBe(true);
});

test("a pause, and its end, is known to the workers of the process when it resolves", async () => {
  const flow = defineFlow("paused.told").to("work", () => null);
  await using orchestrator = await serving(database, [flow]);
  const [worker] = orchestrator[internals].workers;
  const asked: (() => void)[] = [];
  const resolved: string[] = [];
  Object.assign(worker ?? {}, { lookAtPauses: () => new Promise<void>((resolve) => asked.push(resolve)) });

  for (const ask of ["pauseFlow", "unpauseFlow"] as const) {
    const told = orchestrator[ask]("paused.told", by).then(() => resolved.push(ask));
    await expect.poll(() => asked.length, { timeout: 8000 }).toBe(1);
    expect(resolved).not.toContain(ask);
    asked.pop()?.();
    await told;
  }
});
