/**
 * With every shortcut off, graphile-worker's jobs alone bring everything to its end, and NOTIFY alone the stream. Off are:
 *
 * - a start, also that of a child, or a command that a worker of its own process claims with; the next of a limited flow, that the worker takes whose
 *   execution has left its slot
 * - what a process hears of itself before the database brings it; the end of an execution or an item, that its owner hands to those
 *   who wait in its process
 * - waits of up to a second, and the first second of a wait for a sub-flow, that stay in memory
 * - looks that nothing asked for: the sweep, what is due and nobody's, every two seconds the owners and all who wait, every five the
 *   times of a schedule that are queued
 *
 * So a lost hint is a test that hangs. What goes on has no job by design: a schedule's times are timers of its workers, a fan-out
 * looks after its items before it is given back, and graphile-worker polls for jobs whose time has come.
 */
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { systemTimers } from "../../src/base/timers.ts";
import { awaitResult, cancelExecution, configure, defer, getContext } from "../../src/defer.ts";
import { defineFlow } from "../../src/index.ts";
import type { Execution, FlowDefinition, OrchestratorOptions } from "../../src/index.ts";
import { Orchestrator } from "../../src/orchestrator.ts";
import { mostAtOnce, verify } from "../../src/store/verify.ts";
import { openProxy } from "../chaos/proxy.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { collect, newGate, refusal, untilEvent } from "../support/flows.ts";
import { newExecution } from "../support/ledger.ts";
import { storeOn } from "../support/store.ts";

const database = await testDatabase();
const { sql } = database;
const atOnce = { autoCloseTimeout: 0 } as const;
const ticking = defineFlow("alone.ticking");
ticking.to("tick", () => null);

/** As a process of its own would be: what another one does it hears from the database alone. */
function visiting(flows: readonly FlowDefinition[], options: OrchestratorOptions = {}): Orchestrator {
  return new Orchestrator({ connection: database.url, flows, ...options }, systemTimers, false);
}

async function serving(flows: readonly FlowDefinition[], options: OrchestratorOptions = {}): Promise<Orchestrator> {
  const orchestrator = visiting(flows, options);
  await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "200ms" });
  return orchestrator;
}

/** Nobody owns it: whatever comes next comes by a job. */
async function untilParked({ id }: Pick<Execution, "id">): Promise<void> {
  for (let tries = 0; tries < 800; tries++) {
    if ((await sql`select 1 from flowledger.executions where id = ${id} and epoch > 0 and owner is null`).length > 0)
      return;
    await delay(10);
  }
  throw new Error(`execution ${id} was not given back within 8 s`);
}

test("a start in a process that has a worker waits for its job", async () => {
  const flow = defineFlow("alone.start");
  flow.to("pass", (ctx) => ctx.setState("got", ctx.input));
  await using orchestrator = await serving([flow]);

  const without = await withoutJobs(() => orchestrator.flow(flow).startExecution(1, atOnce));

  expect(await orchestrator.flow(flow).start(2)).toEqual({ got: 2 });
  expect(await without.history({ types: ["execution.claimed"] })).toEqual([]);
  await sql`select flowledger.add_jobs(array[${without.id}::uuid])`;
  expect(await without.waitForClose()).toEqual({ got: 1 });
});

describe.concurrent("by jobs and notifications alone", () => {
  test("a chain runs, whoever started it, with retries and sleeps, near and far", async () => {
    const flow = defineFlow("alone.chain", { input: z.number() });
    flow
      .to("first", (ctx) => ctx.step("add", () => ctx.input + 1))
      .to("near", async (ctx) => (await ctx.sleep("300ms"), ctx.input))
      .to(
        "shaky",
        (ctx) => {
          if (ctx.attempt === 1) throw new Error("shaky");
          return ctx.input;
        },
        { retry: { maxAttempts: 2, initialInterval: "100ms" } },
      )
      .to("far", async (ctx) => (await ctx.sleep("1500ms"), ctx.input))
      .end();
    await using inside = await serving([flow]);
    await using outside = visiting([flow]);

    const results = await Promise.all([
      inside.flow(flow).start(1),
      outside.flow(flow).start(2),
      outside.flow(flow).start(3, { delay: "200ms" }),
      outside.flow(flow).start(4, { idempotencyKey: "four" }),
      inside.flow(flow).start(5, { timeout: "1m" }),
    ]);

    expect(results).toEqual([2, 3, 4, 5, 6].map((n) => ({ $final_result: n })));
  });

  test("many starts at once all end, and who waits for them hears of it", async () => {
    const flow = defineFlow("alone.many", { input: z.number() });
    flow.to("pass", (ctx) => ctx.input).end();
    await using orchestrator = await serving([flow]);
    const inputs = Array.from({ length: 300 }, (_, n) => n);

    const results = await Promise.all(inputs.map((n) => orchestrator.flow(flow).start(n)));

    expect(results).toEqual(inputs.map((n) => ({ $final_result: n })));
  });

  test("a job that comes before the owner has heard that it gave the execution back is not lost", async () => {
    const url = new URL(database.url);
    const port = Number(url.port);
    await using proxy = await openProxy({ host: url.hostname, port: () => port });
    url.port = String(proxy.port);
    const flow = defineFlow("alone.early");
    flow
      .to("nap", async (ctx) => {
        // Of the next two commits the first begins the sleep, and the second gives the execution back.
        for (const ms of [0, 1000]) proxy.delayAnswerOf("flowledger.append(", ms);
        await ctx.sleep("100ms");
        return 1;
      })
      .end();
    await using _inside = await serving([flow], { connection: url.href });
    await using outside = visiting([flow]);
    const execution = await outside.flow(flow).startExecution(null, atOnce);

    await untilParked(execution);
    // The job is fetched as soon as it is due.
    const looking = systemTimers.every(
      20,
      () => void sql`select pg_notify('jobs:insert', '{"count": 1}')`.catch(() => {}),
    );
    const ended = await execution.waitForClose({ timeout: "20s" }).finally(() => looking.cancel());

    expect(ended).toEqual({ $final_result: 1 });
  });

  test("a pause is answered, an answer that nobody gives expires, and an event finds who waits", async () => {
    const asking = defineFlow("alone.asking");
    asking.to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask" })).to("keep", (ctx) => ctx.setState("got", ctx.input));
    const expiring = defineFlow("alone.expiring");
    expiring.to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask", expiresIn: "500ms" }));
    const hearing = defineFlow("alone.hearing");
    hearing.when("Said").to("hear", (ctx) => ctx.appendState("said", ctx.input));
    const all = [asking, expiring, hearing];
    await using inside = await serving(all);
    await using outside = visiting(all);
    const asked = await inside.flow(asking).startExecution(null, atOnce);
    const expired = await inside.flow(expiring).startExecution(null, atOnce);
    const heard = await outside.flow(hearing).startExecution(null, { autoClose: false });
    await Promise.all([untilPending(asked), untilParked(asked), untilParked(heard)]);

    await (await outside.getExecution(asked.id)).continueWith("ask", "yes");
    await heard.emit("Said", 1);
    await untilEvent(heard, "state.appended");
    await untilParked(heard);
    await heard.emit("Said", 2);

    expect(await asked.waitForClose()).toEqual({ got: "yes" });
    expect(await expired.waitForClose()).toEqual({});
    expect(await heard.close()).toEqual({ said: [1, 2] });
  });

  test("what is answered or sent while an owner is at work reaches it", async () => {
    const gate = newGate();
    const flow = defineFlow("alone.busy");
    flow.to("work", () => gate.passed);
    flow.when("Said").to("hear", (ctx) => (gate.open(), ctx.appendState("said", ctx.input)));
    await using _inside = await serving([flow]);
    await using outside = visiting([flow]);
    const execution = await outside.flow(flow).startExecution(null, atOnce);
    await untilEvent(execution, "execution.claimed");

    await execution.emit("Said", "hurry");

    expect(await execution.waitForClose()).toEqual({ said: ["hurry"] });
  });

  test("a sub-flow runs and its parent goes on, also where either of them is parked meanwhile", async () => {
    const child = defineFlow("alone.child", { input: z.number() });
    child
      .to("rest", async (ctx) => (await ctx.sleep("1200ms"), ctx.input))
      .to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask" }))
      .to("add", (ctx) => Number(ctx.input) + 1)
      .end();
    const parent = defineFlow("alone.parent");
    parent
      .to("make", () => 1)
      .toSubFlow(child)
      .to("keep", (ctx) => ctx.setState("got", ctx.input));
    const quick = defineFlow("alone.quick", { input: z.number() });
    quick.to("double", (ctx) => ctx.input * 2).end();
    const caller = defineFlow("alone.caller");
    caller.to("call", async (ctx) => ctx.setState("got", await Promise.all([ctx.call(quick, 1), ctx.call(quick, 2)])));
    await using inside = await serving([parent, caller, quick]);
    await using _other = await serving([parent, caller, quick]);

    const execution = await inside.flow(parent).startExecution(null, atOnce);
    const [pending] = await untilPending(execution);
    await untilParked(execution);
    await execution.continueWith(pending?.id ?? "", 41);

    expect(await execution.waitForClose()).toEqual({ got: 42 });
    expect(await inside.flow(caller).start()).toMatchObject({ got: [2, 4] });
  });

  test("a sub-flow at work hears what is sent to it, and who reads its parent elsewhere what it says and asks", async () => {
    const gate = newGate();
    const child = defineFlow("alone.addressed");
    child.to("work", () => gate.passed).to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask" }));
    child.when("Said").to("hear", (ctx) => ctx.putIntoStream(ctx.input));
    const parent = defineFlow("alone.addressing").toSubFlow(child);
    await using _inside = await serving([parent]);
    await using outside = visiting([parent]);
    const execution = await outside.flow(parent).startExecution(null, atOnce);
    const items = execution.streamItems({ timeout: null });
    const heard = items.next();
    const frame = await vi.waitUntil(async () => (await execution.getSubFlowFrames())[0], { timeout: 8000 });
    await untilEvent(await outside.getExecution(frame.id), "execution.claimed");

    await execution.emitToSubFlow(frame.id, "Said", "hurry");
    expect(await heard).toMatchObject({ value: { kind: null, item: "hurry" } });
    gate.open();

    expect(await items.next()).toMatchObject({ value: { kind: "interrupt", item: { action: "project" } } });
    await items.return();
    await execution.cancel();
    // Of the two the parent closes first.
    for (const { id } of [execution, frame]) await refusal((await outside.getExecution(id)).waitForClose());
  });

  test("an answer by a link, and the cancel of a function, reach an owner at work", async () => {
    const [told, gate, begun] = [newGate(), newGate(), newGate()];
    let token = "";
    const flow = defineFlow("alone.linked");
    flow.to("work", () => gate.passed);
    flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask", link: true })).to("answered", () => gate.open());
    flow.when("$interrupt").to("tell", ({ input }) => {
      if (input.link === null) return;
      token = input.link.split("/a/")[1] ?? "";
      told.open();
    });
    const endless = defer(function aloneEndless() {
      begun.open();
      return new Promise<void>((ended) => getContext()?.signal.addEventListener("abort", () => ended()));
    });
    const options = { publicUrl: "https://example.com", functions: [endless] };
    await using _inside = await serving([flow], options);
    await using outside = visiting([flow], options);
    configure(outside);
    const execution = await outside.flow(flow).startExecution(null, atOnce);
    const { id } = await endless();
    // Whatever the owner still commits would bring it what came in beside that.
    await Promise.all([told.passed, begun.passed, untilEvent(execution, "chunk.completed")]);

    await outside.answerByToken(token, "yes");
    await cancelExecution(id, true);

    await execution.waitForClose();
    expect(await refusal((await outside.getExecution(id)).waitForClose())).toMatchObject({
      code: "EXECUTION_CANCELLED",
    });
  });

  test("a distributed forEach comes together, over two workers and beyond what its parent waits for in memory", async () => {
    const flow = defineFlow("alone.spread");
    flow
      .to("make", () => Array.from({ length: 20 }, (_, n) => n))
      .forEach({ distribute: true, concurrency: 8 })
      .to("item", async (ctx) => {
        if (Number(ctx.input) % 5 === 0) await ctx.sleep("1200ms");
        return Number(ctx.input) * 2;
      })
      .endForEach()
      .to("keep", (ctx) => ctx.setState("got", ctx.input));
    await using inside = await serving([flow]);
    await using _other = await serving([flow]);

    const got = await inside.flow(flow).start();

    expect(got).toEqual({ got: Array.from({ length: 20 }, (_, n) => n * 2) });
  });

  test("a parent that was given back is woken by its last item", async () => {
    const gate = newGate();
    const flow = defineFlow("alone.late");
    flow
      .to("make", () => [1, 2])
      .forEach({ distribute: true })
      .to("item", async (ctx) => (ctx.input === 1 && (await gate.passed), ctx.input))
      .endForEach()
      .to("keep", (ctx) => ctx.setState("got", ctx.input));
    await using inside = await serving([flow]);
    const execution = await inside.flow(flow).startExecution(null, atOnce);
    await untilEvent(execution, "items.closed");
    await untilParked(execution);

    gate.open();

    expect(await execution.waitForClose()).toEqual({ got: [1, 2] });
  });

  test("a schedule fires, and a time that is queued starts when the one before it has closed", async () => {
    const gate = newGate();
    const queued = defineFlow("alone.queued");
    queued.to("hold", () => gate.passed);
    const schedules = [
      { flow: ticking, cron: "* * * * * *" },
      { flow: queued, cron: "0 0 1 1 *", name: queued.name, overlap: "queue" as const },
    ];
    const closed = async ({ name }: FlowDefinition) =>
      (await sql`select 1 from flowledger.executions where flow = ${name} and closed_at is not null`).length;
    await (await serving([], { schedules })).close();
    await sql`update flowledger.schedules set fired_until = fired_until - interval '1 hour' where name = ${queued.name}`;
    for (const minutes of [10, 20]) await fire(queued, minutes);
    await using _worker = await serving([], { schedules });

    await until(async () => (await closed(ticking)) >= 2);
    expect(await closed(queued)).toBe(0);
    gate.open();

    await until(async () => (await closed(queued)) === 2);
  });

  test("a reader elsewhere gets each item when it is put, and the end of the stream", async () => {
    const gates = [newGate(), newGate(), newGate()];
    const flow = defineFlow("alone.stream");
    flow.to("put", async (ctx) => {
      for (const [n, gate] of gates.entries()) {
        await gate.passed;
        await ctx.putIntoStream(n);
        await ctx.flush();
      }
    });
    await using inside = await serving([flow]);
    await using outside = visiting([flow]);
    const execution = await inside.flow(flow).startExecution(null, atOnce);
    const elsewhere = await outside.getExecution(execution.id);
    const beside = collect(execution.getRuntimeStream({ timeout: null }));

    const seen: unknown[] = [];
    gates[0]?.open();
    for await (const item of elsewhere.getRuntimeStream({ timeout: null })) gates[seen.push(item)]?.open();

    expect(seen).toEqual([0, 1, 2]);
    expect(await beside).toEqual([0, 1, 2]);
  });

  test("limits hand on their slots, by number, by key and by rate", async () => {
    const numbered = defineFlow("alone.numbered", {}, { limits: { concurrency: 2 } });
    numbered.to("work", () => delay(5));
    const keyed = defineFlow(
      "alone.keyed",
      { input: z.object({ tenant: z.string() }) },
      { limits: { concurrency: 3, key: (input) => input.tenant, perKey: { concurrency: 1 } } },
    );
    keyed.to("work", () => delay(5));
    const rated = defineFlow("alone.rated", {}, { limits: { rate: { limit: 2, per: "1s" } } });
    rated.to("work", () => null);
    const all = [numbered, keyed, rated];
    await using _first = await serving(all);
    await using _second = await serving(all);
    await using outside = visiting(all);
    const nothing = (length: number) => Array.from({ length }, () => null);

    await outside.flow(numbered).startMany(nothing(40), atOnce);
    await outside.flow(keyed).startMany(
      nothing(30).map((_, n) => ({ tenant: `t${n % 3}` })),
      atOnce,
    );
    await outside.flow(rated).startMany(nothing(7), atOnce);

    for (const { name } of all)
      await until(
        async () =>
          (await sql`select 1 from flowledger.executions where flow = ${name} and closed_at is null`).length === 0,
      );
    expect((await mostAtOnce(sql, numbered.name)).flow).toBe(2);
    await until(async () => (await sql`select 1 from flowledger.slots where flow like 'alone.%'`).length === 0);
  });

  test("a cancel ends what runs, what sleeps, what waits for an answer and what nobody has taken", async () => {
    const running = defineFlow("alone.running");
    running.to("hang", (ctx) => new Promise((_, reject) => ctx.signal.addEventListener("abort", reject)));
    const sleeping = defineFlow("alone.sleeping");
    sleeping.to("sleep", (ctx) => ctx.sleep("1h"));
    const asking = defineFlow("alone.cancelled");
    asking.to("ask", (ctx) => ctx.pauseFor());
    const all = [running, sleeping, asking];
    await using inside = await serving(all);
    await using outside = visiting(all);
    const started = await Promise.all(all.map((flow) => inside.flow(flow).startExecution(null, atOnce)));
    const later = await inside.flow(sleeping).startExecution(null, { ...atOnce, delay: "1h" });
    const [first, ...parked] = started;
    if (first) await untilEvent(first, "execution.claimed");
    for (const execution of parked) await untilParked(execution);

    for (const { id } of [...started, later]) await (await outside.getExecution(id)).cancel("enough");

    for (const execution of [...started, later])
      await expect(execution.waitForClose()).rejects.toMatchObject({ code: "EXECUTION_CANCELLED" });
  });

  test("what times out, what closes by itself, and what a worker gives back when it stops go on", async () => {
    const gate = newGate();
    const slow = defineFlow("alone.slow");
    slow.to("sleep", (ctx) => ctx.sleep("1h"));
    const idle = defineFlow("alone.idle");
    idle.to("pass", (ctx) => ctx.setState("passed", true));
    const handed = defineFlow("alone.handed");
    handed
      .to("begin", (ctx) => (gate.open(), ctx.step("one", () => 1)))
      .to("rest", (ctx) => ctx.sleep("800ms"))
      .to("end", (ctx) => ctx.setState("ended", true));
    const all = [slow, idle, handed];
    const first = await serving(all);
    const late = await first.flow(slow).startExecution(null, { timeout: "1s" });
    const closing = await first.flow(idle).startExecution(null, { autoCloseTimeout: "500ms" });
    const left = await first.flow(handed).startExecution(null, atOnce);
    await gate.passed;
    await using second = await serving(all);
    await first.close();
    const seen = (id: string) => second.getExecution(id).then((execution) => execution.waitForClose());

    await expect(seen(late.id)).rejects.toMatchObject({ code: "EXECUTION_FAILED" });
    expect(await seen(closing.id)).toEqual({ passed: true });
    expect(await seen(left.id)).toEqual({ ended: true });
  });

  test("a function waits for others", async () => {
    const twice = defer(function aloneTwice(n: number) {
      return n * 2;
    });
    const both = defer(async function aloneBoth(n: number) {
      return Promise.all([awaitResult(twice)(n), awaitResult(twice)(n + 1)]);
    });
    const functions = [twice, both];
    await using orchestrator = await serving([], { functions });

    expect(await orchestrator.flow(both.flow).start([3])).toMatchObject({ $final_result: [6, 8] });
  });
});

test("and nothing is left or wrong", async () => {
  // A time may have come when the worker was about to stop: its job waits for another one.
  await using _worker = await serving([ticking]);

  await until(async () => (await sql`select 1 from flowledger.executions where closed_at is null`).length === 0);

  expect(await verify(sql)).toEqual([]);
});

/** Leaves out the jobs of what is created meanwhile. */
async function withoutJobs<T>(work: () => Promise<T>): Promise<T> {
  const [add] = await sql<[{ body: string }]>`
    select pg_get_functiondef('flowledger.add_jobs(uuid[])'::regprocedure) as body`;
  await sql.unsafe("create or replace function flowledger.add_jobs(p_ids uuid[]) returns void language sql as ''");
  try {
    return await work();
  } finally {
    await sql.unsafe(add.body);
  }
}

/** As a worker does when a time has come: so many minutes into the hour that was not looked at. */
async function fire({ name }: FlowDefinition, minutes: number): Promise<void> {
  const { schedules } = storeOn(sql);
  const row = await schedules.read(name);
  const after = row?.firedUntil ?? "";
  const time = new Date(Date.parse(after) + minutes * 60_000);
  const execution = newExecution({ flow: name, settings: { autoCloseMs: 0 } });
  const { done } = await schedules.fire({ name, after, until: time, times: [time], overlap: "queue", execution });
  expect(done).toBe(true);
}

async function until(check: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!(await check())) {
    if (performance.now() > deadline) {
      const rows = await sql`
        select e.id, e.flow, e.owner, e.epoch, e.wake_at, e.closed_at, s.acquired, s.notified_at, clock_timestamp() as now
        from flowledger.executions e left join flowledger.slots s on s.execution_id = e.id
        where e.closed_at is null or s.execution_id is not null`;
      throw new Error(`not within 30 s:\n${rows.map((row) => JSON.stringify(row)).join("\n")}`);
    }
    await delay(10);
  }
}

test("a start with the key of what has ended has its result at once, and not when something comes", async () => {
  const flow = defineFlow("alone.key");
  flow.to("pass", (ctx) => ctx.setState("got", ctx.input));
  await using orchestrator = await serving([flow]);
  const options = { idempotencyKey: "once" };
  await orchestrator.flow(flow).start("a", options);

  expect(await orchestrator.flow(flow).start("a", options)).toEqual({ got: "a" });
});
