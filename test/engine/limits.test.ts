/** Limits over the fleet: how many of a flow run at once, how many start in a time, and who goes first. */
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { z } from "zod";
import { mostAtOnce, verify } from "../../src/store/verify.ts";
import { defineFlow, DefinitionError, ExecutionCancelledError, UsageError } from "../../src/index.ts";
import { childExecution } from "../../src/engine/child.ts";
import { append } from "../../src/store/append.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, serving, untilEvent, visiting } from "../support/flows.ts";
import type { Gate } from "../support/flows.ts";
import { appendTo, newExecution, someWorker } from "../support/ledger.ts";
import { storeOn } from "../support/store.ts";

const database = await testDatabase();
const { sql } = database;
const Tenant = z.object({ tenant: z.string() });
const atOnce = { autoCloseTimeout: 0 } as const;

async function untilAll(flow: string, count: number): Promise<void> {
  await until(async () => {
    const [row] = await sql<[{ closed: number }]>`
      select count(*)::int as closed from flowledger.executions where flow = ${flow} and closed_at is not null`;
    return row.closed === count;
  });
}

async function untilInLine(flow: string, count: number): Promise<void> {
  await until(async () => {
    const [row] = await sql<[{ line: number }]>`
      select count(*)::int as line from flowledger.slots where flow = ${flow} and not acquired`;
    return row.line === count;
  });
}

async function until(check: () => Promise<boolean>, withinMs = 15_000): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!(await check())) {
    if (performance.now() > deadline) {
      const rows = await sql`
        select p.*, e.owner, e.wake_at, e.closed_at from flowledger.slots p join flowledger.executions e on e.id = p.execution_id`;
      throw new Error(`not within ${withinMs} ms:\n${rows.map((row) => JSON.stringify(row)).join("\n")}`);
    }
    await delay(10);
  }
}

async function order(flow: string): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`
    select e.metadata ->> 'name' as name from flowledger.executions e
    join flowledger.ledger l on l.execution_id = e.id and l.type = 'execution.claimed'
    where e.flow = ${flow} order by l.at, e.id`;
  return rows.map(({ name }) => name);
}

test("LI-STP-03, DF-DEF-07: at most `concurrency` executions of a flow are owned at once, over two workers, and all of them run", async () => {
  const flow = defineFlow("limits.flow", {}, { limits: { concurrency: 3 } });
  flow.to("work", async (ctx) => {
    await ctx.step("begin", () => null);
    await delay(20);
  });
  await using first = await serving(database, [flow]);
  await using _second = await serving(database, [flow]);

  await first.flow(flow).startMany(
    Array.from({ length: 60 }, () => null),
    atOnce,
  );
  await untilAll(flow.name, 60);

  expect((await mostAtOnce(sql, flow.name)).flow).toBe(3);
  await until(async () => (await sql`select 1 from flowledger.slots where flow = ${flow.name}`).length === 0);
  expect(await verify(sql)).toEqual([]);
});

test("a place is used again within milliseconds of being left", async () => {
  const flow = defineFlow("limits.quick", {}, { limits: { concurrency: 1 } });
  flow.to("work", () => null);
  await using orchestrator = await serving(database, [flow]);

  await orchestrator.flow(flow).startMany(
    Array.from({ length: 50 }, () => null),
    atOnce,
  );
  await untilAll(flow.name, 50);

  const [{ median }] = await sql<[{ median: number }]>`
    select percentile_cont(0.5) within group (order by extract(epoch from claimed - closed) * 1000) as median from (
      select at as claimed, lag(closed_at) over (order by at) as closed from flowledger.executions e
      join flowledger.ledger l on l.execution_id = e.id and l.type = 'execution.claimed' where e.flow = ${flow.name}) s`;
  // Whatever only looks for a free place, a sweep or a queue of jobs, does so every two seconds or less often.
  expect(median).toBeLessThan(500);
  expect((await mostAtOnce(sql, flow.name)).flow).toBe(1);
});

test("a limit per key holds for each key, and the keys take turns", async () => {
  const flow = defineFlow(
    "limits.keys",
    { input: Tenant },
    { limits: { concurrency: 2, key: (input) => input.tenant, perKey: { concurrency: 1 } } },
  );
  const begun: { tenant: string; gate: Gate }[] = [];
  let isOver = false;
  flow.to("work", async (ctx) => {
    const gate = newGate();
    begun.push({ tenant: ctx.input.tenant, gate });
    if (!isOver) await gate.passed;
  });
  await using orchestrator = await serving(database, [flow]);
  const start = (tenant: string) => orchestrator.flow(flow).startExecution({ tenant }, atOnce);
  // Two that stand in the way, until the others are in line.
  for (const tenant of ["x", "y"]) await untilEvent(await start(tenant), "execution.claimed");
  for (const tenant of "aaaaaaaaaaaaaaaaaaaabbbccc") await start(tenant);
  await untilInLine(flow.name, 26);

  for (let ended = 1; ended <= 9; ended++) {
    await until(async () => begun.length === ended + 1);
    begun[ended - 1]?.gate.open();
  }
  await until(async () => begun.length === 11);
  isOver = true;
  for (const { gate } of begun) gate.open();
  await untilAll(flow.name, 28);

  // Three keys, three turns: the long line of one does not hold the others up.
  const turns = begun.slice(2, 11).map(({ tenant }) => tenant);
  expect(turns.join("")).toBe("abcabcabc");
  const most = await mostAtOnce(sql, flow.name);
  expect(most.flow).toBe(2);
  expect([...most.perKey.values()]).toEqual([1, 1, 1, 1, 1]);
});

test("a slot does not stay with the worker that had it first: one that came later gets executions of the queue", async () => {
  const ran: Record<string, number> = { first: 0, later: 0 };
  const gate = newGate();
  const flowOf = (worker: string) => {
    const flow = defineFlow("limits.handed-on", {}, { limits: { concurrency: 1 } });
    flow.to("work", async () => {
      ran[worker] = (ran[worker] ?? 0) + 1;
      await gate.passed;
    });
    return flow;
  };
  const flow = flowOf("first");
  await using first = await serving(database, [flow]);
  await first.flow(flow).startMany(
    Array.from({ length: 400 }, () => null),
    atOnce,
  );
  await untilInLine(flow.name, 399);
  await using _later = await serving(database, [flowOf("later")]);

  gate.open();
  await until(async () => (ran["later"] ?? 0) > 0 || ran["first"] === 400, 60_000);

  expect(ran["later"]).toBeGreaterThan(0);
});

test("a lower priority goes first where slots are scarce, and what has begun before what has not", async () => {
  const gate = newGate();
  const flow = defineFlow("limits.priority", {}, { limits: { concurrency: 1 } });
  flow.to("work", async (ctx) => {
    if (ctx.execution.metadata["name"] === "holder") await gate.passed;
  });
  await using orchestrator = await serving(database, [flow]);
  const start = (name: string, priority: number) =>
    orchestrator.flow(flow).startExecution(null, { ...atOnce, priority, metadata: { name } });
  await untilEvent(await start("holder", 0), "execution.claimed");
  await start("late", 5);
  await start("middle", 0);
  await start("early", -5);
  await untilInLine(flow.name, 3);

  gate.open();
  await untilAll(flow.name, 4);

  expect(await order(flow.name)).toEqual(["holder", "early", "middle", "late"]);
});

test("an execution that sleeps or waits holds no place", async () => {
  const flow = defineFlow("limits.sleep", {}, { limits: { concurrency: 1 } });
  flow.to("work", async (ctx) => {
    if (ctx.execution.metadata["name"] === "sleeper") await ctx.sleep("1h");
    return ctx.execution.metadata["name"] === "waiter" ? ctx.pauseFor({ type: "ask" }) : null;
  });
  await using orchestrator = await serving(database, [flow]);
  const start = (name: string) => orchestrator.flow(flow).startExecution(null, { ...atOnce, metadata: { name } });
  const sleeper = await start("sleeper");
  await untilEvent(sleeper, "sleep.started");
  const waiter = await start("waiter");
  const { id } = await untilEvent(waiter, "interrupt.raised");

  await (await start("other")).waitForClose();
  await waiter.continueWith(id, "yes");
  await waiter.waitForClose();

  expect(await sleeper.history({ types: ["execution.closed"] })).toEqual([]);
  expect(await order(flow.name)).toEqual(["sleeper", "waiter", "other", "waiter"]);
  await sleeper.cancel();
});

test("a rate lets so many begin in any window, by the database's clock", async () => {
  const flow = defineFlow("limits.rate", {}, { limits: { rate: { limit: 5, per: "400ms" } } });
  flow.to("work", () => null);
  // What has left the window is deleted, so it is written down as it comes.
  await sql`create table public.starts (at timestamptz)`;
  await sql.unsafe(`
    create function public.note() returns trigger language plpgsql as $$ begin insert into public.starts values (new.at); return new; end $$;
    create trigger note after insert on flowledger.limited_starts for each row execute function public.note()`);
  await using first = await serving(database, [flow]);
  await using _second = await serving(database, [flow]);

  await first.flow(flow).startMany(
    Array.from({ length: 16 }, () => null),
    atOnce,
  );
  await untilAll(flow.name, 16);
  await sql`drop function public.note cascade`;

  const rows = await sql<{ gap: number }[]>`
    select extract(epoch from at - before)::float8 * 1000 as gap
    from (select at, lag(at, 5) over (order by at) as before from public.starts) s where before is not null`;
  expect(rows.length).toBe(11);
  expect(Math.min(...rows.map(({ gap }) => gap))).toBeGreaterThanOrEqual(400);
});

test("a rate per key holds one key back, and not the others", async () => {
  const flow = defineFlow(
    "limits.keyrate",
    { input: Tenant },
    { limits: { key: (input) => input.tenant, perKey: { rate: { limit: 1, per: "1h" } } } },
  );
  flow.to("work", () => null);
  await using orchestrator = await serving(database, [flow]);

  const ids = await orchestrator.flow(flow).startMany([{ tenant: "a" }, { tenant: "a" }, { tenant: "b" }], atOnce);
  await untilAll(flow.name, 2);
  await untilInLine(flow.name, 1);

  const rows = await sql<{ id: string }[]>`
    select id from flowledger.executions where flow = ${flow.name} and closed_at is null`;
  expect(ids.slice(0, 2)).toContain(rows[0]?.id);
  // The hour is awaited by one job, not by looking.
  const jobs = await sql<{ late: boolean }[]>`
    select run_at > now() + interval '50 minutes' as late from flowledger_jobs.jobs where task_identifier = ${`flowledger:${flow.name}`}`;
  expect(jobs).toEqual([{ late: true }]);
  expect(await verify(sql)).toEqual([]);
});

test("DF-DEF-08: with maxConcurrencyAction cancel a start beyond the limit is closed as cancelled, and says why", async () => {
  const gate = newGate();
  const flow = defineFlow("limits.cancel", {}, { limits: { concurrency: 1, maxConcurrencyAction: "cancel" } });
  flow.to("work", () => gate.passed);
  await using orchestrator = await serving(database, [flow]);
  const holder = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(holder, "execution.claimed");

  const surplus = orchestrator.flow(flow).run(null);

  await expect(surplus).rejects.toThrow(ExecutionCancelledError);
  const { closeReason, status } = await (await orchestrator.getExecution(surplus.id)).result.getMeta();
  expect({ closeReason, status }).toEqual({
    closeReason: `concurrency limit of flow ${flow.name}`,
    status: "cancelled",
  });
  gate.open();
  await holder.waitForClose();
  await orchestrator.flow(flow).start(null);
  expect(await verify(sql)).toEqual([]);
});

test("with maxConcurrencyAction cancel a key that is full cancels what comes for it, and nothing of another key", async () => {
  const gate = newGate();
  const flow = defineFlow(
    "limits.cancelkey",
    { input: Tenant },
    { limits: { key: (input) => input.tenant, perKey: { concurrency: 1 }, maxConcurrencyAction: "cancel" } },
  );
  flow.to("work", () => gate.passed);
  await using orchestrator = await serving(database, [flow]);
  const start = (tenant: string) => orchestrator.flow(flow).startExecution({ tenant }, atOnce);
  const held = await start("a");
  await untilEvent(held, "execution.claimed");

  const [surplus, other] = [await start("a"), await start("b")];

  await expect(surplus.waitForClose()).rejects.toThrow(`concurrency limit of flow ${flow.name}`);
  await untilEvent(other, "execution.claimed");
  gate.open();
  await Promise.all([held.waitForClose(), other.waitForClose()]);
});

test("a place whose execution nobody owns any more is given to the next one", async () => {
  const flow = defineFlow("limits.left", {}, { limits: { concurrency: 1 } });
  flow.to("work", () => null);
  await using orchestrator = await serving(database, [flow]);
  const closed = await orchestrator.flow(flow).startExecution(null, atOnce);
  await closed.waitForClose();
  await until(async () => (await sql`select from flowledger.slots where flow = ${flow.name}`).length === 0);
  // As a worker leaves it that dies between its last commit and giving up the place.
  await sql`
    insert into flowledger.slots (execution_id, flow, key, priority, queue_position, acquired, not_started)
    values (${closed.id}, ${flow.name}, '', 0, 1, true, false)`;
  const next = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilInLine(flow.name, 1);

  await sql`select flowledger.sweep(1000)`;

  expect(await next.waitForClose()).toEqual({});
});

test("one that queues is cancelled at once", async () => {
  const gate = newGate();
  const flow = defineFlow("limits.cancelled", {}, { limits: { concurrency: 1 } });
  flow.to("work", () => gate.passed);
  await using orchestrator = await serving(database, [flow]);
  const holder = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(holder, "execution.claimed");
  const waiting = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilInLine(flow.name, 1);

  await waiting.cancel("not needed");

  await expect(waiting.waitForClose()).rejects.toThrow(ExecutionCancelledError);
  expect(await waiting.history({ types: ["execution.claimed"] })).toEqual([]);
  gate.open();
  await holder.waitForClose();
  expect(await verify(sql)).toEqual([]);
});

test("executions from SQL are limited too, with the key their option names", async () => {
  const flow = defineFlow(
    "limits.sql",
    { input: Tenant },
    { limits: { key: (input) => input.tenant, perKey: { concurrency: 1 } } },
  );
  flow.to("work", () => delay(20));
  await using _worker = await serving(database, [flow]);

  await sql`
    select flowledger.start(${flow.name}, '{"tenant": "a"}', '{"limitKey": "a", "autoCloseTimeout": "0s"}') from generate_series(1, 4)`;
  await untilAll(flow.name, 4);

  expect(await mostAtOnce(sql, flow.name)).toEqual({ flow: 1, perKey: new Map([["a", 1]]) });
});

test("limits that a new version leaves out keep nobody in the queue", async () => {
  const limited = defineFlow("limits.gone", {}, { limits: { rate: { limit: 1, per: "1h" } } });
  const free = defineFlow("limits.gone");
  for (const flow of [limited, free]) flow.to("work", () => null);
  const old = await serving(database, [limited]);
  await old.flow(limited).startMany([null, null, null], atOnce);
  await untilInLine(limited.name, 2);
  await old.close();

  await using _worker = await serving(database, [free]);

  await untilAll(free.name, 3);
  expect(await sql`select 1 from flowledger.limits where flow = ${free.name}`).toEqual([]);
});

test("limits of a new version are its own, each of them", async () => {
  const flow = "limits.anew";
  const { workers } = storeOn(sql);
  const per = (limit: number, perMs: number) => ({ limit, perMs });
  const common = { name: flow, key: () => "k" };
  const before = { concurrency: 1, rate: per(2, 3), keyConcurrency: 4, keyRate: per(5, 6), action: "keep" } as const;
  const after = {
    concurrency: 11,
    rate: per(12, 13),
    keyConcurrency: 14,
    keyRate: per(15, 16),
    action: "cancel",
  } as const;
  const declared = async (limits: typeof before | typeof after) => {
    await workers.declareLimits([{ name: flow, limits: { ...common, ...limits } }]);
    const [row] = await sql`
      select concurrency, rate, rate_ms::int, key_concurrency, key_rate, key_rate_ms::int, action from flowledger.limits where flow = ${flow}`;
    return Object.values({ ...row });
  };

  expect(await declared(before)).toEqual([1, 2, 3, 4, 5, 6, "keep"]);
  expect(await declared(after)).toEqual([11, 12, 13, 14, 15, 16, "cancel"]);
});

test("maxDuration is the timeout of executions that are started without one", async () => {
  const flow = defineFlow("limits.duration", {}, { maxDuration: 200 });
  flow.to("stuck", (ctx) => delay(60_000, null, { signal: ctx.signal }));
  await using orchestrator = await serving(database, [flow]);

  await expect(orchestrator.flow(flow).start(null)).rejects.toThrow(/ran longer than its timeout of 200 ms/);
  const patient = await orchestrator.flow(flow).startExecution(null, { timeout: null });
  await delay(400);
  expect(await patient.history({ types: ["execution.closed"] })).toEqual([]);
  await patient.cancel();
});

test.each([
  [{}, /limits is empty: set concurrency or rate/],
  [{ concurrency: 0 }, /limits\.concurrency must be an integer from 1 to 1000000, got 0/],
  [{ concurrency: 1.5 }, /limits\.concurrency must be an integer .*, got 1\.5/],
  [{ rate: { limit: 5, per: "0s" } }, /limits\.rate\.per must be longer than 0/],
  [{ rate: { limit: 5, per: "soon" } }, /"soon" is not a duration for limits\.rate\.per of flow "limits\.bad"/],
  [{ concurrency: 1, key: () => "a" }, /limits\.key and limits\.perKey need each other/],
  [{ perKey: { concurrency: 1 } }, /limits\.key and limits\.perKey need each other/],
  [
    { concurrency: 1, maxConcurrencyAction: "drop" as "keep" },
    /limits\.maxConcurrencyAction must be "keep" or "cancel", got "drop"/,
  ],
  [{ concurency: 1 } as object, /unknown option "concurency"/],
])("limits %j are refused where the flow is defined", (limits, message) => {
  expect(() => defineFlow("limits.bad", {}, { limits })).toThrow(message);
  expect(() => defineFlow("limits.bad", {}, { limits: { concurrency: -1 } })).toThrow(DefinitionError);
});

test("a key that is no text is refused, and nothing is started", async () => {
  const flow = defineFlow("limits.badkey", {}, { limits: { key: () => "", perKey: { concurrency: 1 } } });
  flow.to("work", () => null);
  await using visitor = visiting(database, [flow]);

  await expect(visitor.flow(flow).startExecution(null)).rejects.toThrow(UsageError);
  await expect(visitor.flow(flow).startExecution(null)).rejects.toThrow(/limits\.key of flow "limits\.badkey" gave ""/);
  expect((await visitor.listExecutions({ flow: flow.name })).executions).toEqual([]);
});

test("one that was notified, and found the slot taken by then, is notified again when the slot is free", async () => {
  const flow = "limits.vain";
  const { starts, claims } = storeOn(sql);
  await sql`
    select flowledger.declare_limits(array[${flow}::text], jsonb_build_array(jsonb_build_object('flow', ${flow}::text, 'concurrency', 1, 'action', 'keep')))`;
  const [first, second, urgent] = [
    newExecution({ flow }),
    newExecution({ flow }),
    newExecution({ flow, priority: -1 }),
  ];
  await starts.create([first, second, urgent]);
  const take = async (id: typeof first.id) =>
    (await claims.claimLimited(someWorker, [{ flow, id, left: null, hasRoom: true }])).get(id);
  const leave = async (claim: Awaited<ReturnType<typeof take>>) => {
    if (!claim) throw new Error("there is no claim to give back");
    await append(sql, [appendTo(claim, { release: { wakeInMs: null } })]);
    await claims.claimLimited(someWorker, [{ flow, id: null, left: claim.id, hasRoom: false }]);
  };
  const jobs = async () =>
    (await sql`select 1 from flowledger_jobs._private_jobs where payload::jsonb = ${sql.json([second.id])}`).length;
  const held = await take(first.id);
  expect(await take(second.id)).toBeUndefined();
  await sql`delete from flowledger_jobs._private_jobs`;

  await leave(held);
  expect(await jobs()).toBe(1);
  const ahead = await take(urgent.id);
  expect(await take(second.id)).toBeUndefined();
  await leave(ahead);

  expect(await jobs()).toBe(2);
  expect((await take(second.id))?.id).toBe(second.id);
});

test("what is queued waits for a slot: no look for lost jobs makes it another one", async () => {
  const flow = "limits.swept";
  const { starts, claims } = storeOn(sql);
  await sql`
    select flowledger.declare_limits(array[${flow}::text], jsonb_build_array(jsonb_build_object('flow', ${flow}::text, 'concurrency', 1, 'action', 'keep')))`;
  const [held, queued] = [newExecution({ flow }), newExecution({ flow })];
  await starts.create([held, queued]);
  for (const { id } of [held, queued]) await claims.claimLimited(someWorker, [{ flow, id, left: null, hasRoom: true }]);
  await sql`delete from flowledger_jobs._private_jobs`;
  await sql`update flowledger.executions set wake_at = wake_at - interval '1 hour' where id = ${queued.id}`;

  await sql`select flowledger.sweep(1000)`;

  expect(
    await sql`select 1 from flowledger_jobs._private_jobs where payload::jsonb @> ${sql.json([queued.id])}`,
  ).toEqual([]);
});

test("who looks again at a full worker's queue notifies nobody twice", async () => {
  const flow = "limits.notified";
  const { starts, claims } = storeOn(sql);
  await sql`
    select flowledger.declare_limits(array[${flow}::text], jsonb_build_array(jsonb_build_object('flow', ${flow}::text, 'concurrency', 2, 'action', 'keep')))`;
  const waiting = [newExecution({ flow }), newExecution({ flow }), newExecution({ flow })];
  await starts.create(waiting);
  await sql`delete from flowledger_jobs._private_jobs`;
  // A worker without room comes with their jobs, so each that could begin is notified for another.
  await claims.claimLimited(
    someWorker,
    waiting.map(({ id }) => ({ flow, id, left: null, hasRoom: false })),
  );
  // Others of this file may leave some of their own behind.
  const [first] = waiting;
  const jobs = async () =>
    (await sql`select 1 from flowledger_jobs._private_jobs where payload::text like ${`%${first?.id}%`}`).length;
  const told = await jobs();

  await sql`select flowledger.sweep_slots()`;
  await sql`select flowledger.sweep_slots()`;

  expect(told).toBe(1);
  expect(await jobs()).toBe(told);
});

/** A flow with limits and some executions of it; a look takes what the limits let it. */
async function lined(flow: string, limits: object, changes: readonly object[]) {
  const { starts, claims } = storeOn(sql);
  await sql`
    select flowledger.declare_limits(array[${flow}::text], ${JSON.stringify([{ flow, action: "keep", ...limits }])}::text::jsonb)`;
  const made = changes.map((change) => newExecution({ flow, ...change }));
  await starts.create(made);
  const ids = made.map(({ id }) => id);
  const look = async (requests: Parameters<typeof claims.claimLimited>[1], takesPoisonSuspects = true) => {
    const claimed = await claims.claimLimited(someWorker, requests, { takesPoisonSuspects });
    return ids.flatMap((id, index) => (claimed.has(id) ? [index] : []));
  };
  const ask = (index: number) => ({ flow, id: ids[index] ?? null, left: null, hasRoom: true });
  const left = (index: number) => ({ flow, id: null, left: ids[index] ?? null, hasRoom: true });
  return { ids, look, ask, left };
}

test("who says too late that it gave an execution back leaves the slot to who owns it by then", async () => {
  const { look, ask, left } = await lined("limits.toolate", { concurrency: 1 }, [{}, {}]);
  expect(await look([ask(0)])).toEqual([0]);

  expect(await look([left(0), ask(1)])).toEqual([]);
});

test("a suspect at the head of the queue takes no slot from who is behind it where it may not be claimed", async () => {
  const { ids, look, ask, left } = await lined("limits.suspect", { concurrency: 1 }, [{}, {}, {}]);
  expect(await look([ask(0)])).toEqual([0]);
  expect(await look([ask(1), ask(2)])).toEqual([]);
  await sql`update flowledger.executions set takeovers = 2 where id = ${ids[1] ?? null}`;
  await sql`update flowledger.executions set owner = null, wake_at = null where id = ${ids[0] ?? null}`;

  expect(await look([left(0)], false)).toEqual([2]);
});

test("a key whose executions all run takes its turn behind one that had none", async () => {
  const { look, ask } = await lined("limits.turns", { concurrency: 3 }, [
    ...["a", "a", "a"].map((limitKey) => ({ limitKey })),
    ...["a", "b"].map((limitKey) => ({ limitKey })),
  ]);
  expect(await look([ask(0), ask(1), ask(2)])).toEqual([0, 1, 2]);
  await look([ask(3), ask(4)]);

  const line = await sql<{ key: string }[]>`
    select key from flowledger.slots where flow = 'limits.turns' and not acquired order by queue_position, execution_id`;
  expect(line.map(({ key }) => key)).toEqual(["b", "a"]);
});

test("what got a slot and could not be claimed waits for the next one again", async () => {
  const { ids, look, ask } = await lined("limits.unclaimed", { concurrency: 1 }, [{}, {}]);
  await sql.begin(async (other) => {
    await other`select from flowledger.executions where id = ${ids[0] ?? null} for update`;
    expect(await look([ask(0)])).toEqual([]);
  });

  expect(await look([ask(1)])).toEqual([0]);
});

test("a sweep forgets starts that count for no rate any more, and no others", async () => {
  const { ids, look, ask } = await lined("limits.forgotten", { rate: 5, rate_ms: 60_000 }, [{}, {}]);
  expect(await look([ask(0), ask(1)])).toEqual([0, 1]);
  await sql`update flowledger.limited_starts set at = at - interval '61 seconds' where execution_id = ${ids[0] ?? null}`;

  await sql`select flowledger.sweep_slots()`;

  expect(await sql`select execution_id as id from flowledger.limited_starts where flow = 'limits.forgotten'`).toEqual([
    { id: ids[1] },
  ]);
});

test("a place behind more than a thousand is not counted, and who has no key is told of none", async () => {
  const flow = "limits.long";
  const { ids } = await lined(
    flow,
    { concurrency: 1 },
    Array.from({ length: 1002 }, () => ({ delay: 3_600_000 })),
  );
  await sql`
    insert into flowledger.slots (execution_id, flow, key, priority, queue_position, acquired, not_started)
    select x.id, ${flow}, '', 0, x.ord, false, true from unnest(${ids}::uuid[]) with ordinality x(id, ord)`;
  const queue = async (index: number) =>
    (await sql`select flowledger.queue_of(${ids[index] ?? null}, flowledger.now()) as queue`)[0]?.["queue"] as unknown;

  expect(await queue(1000)).toMatchObject({ place: 1001, key: null });
  expect(await queue(1001)).toMatchObject({ place: null, key: null });
});

test("a child is queued by its own key", () => {
  const key = (input: { tenant: string }) => input.tenant;
  const flow = defineFlow(
    "limits.child",
    { input: z.object({ tenant: z.string() }) },
    { limits: { key, perKey: { concurrency: 1 } } },
  );
  flow.to("work", () => null);
  const { id, settings: _, ...rest } = newExecution({ flow: flow.name, input: { tenant: "acme" } });
  const child = {
    ...rest,
    id,
    input: { tenant: "acme" },
    parent: { id, dispatch: 1, ordinal: 0 },
    resources: {},
    timeoutMs: null,
    discardAfter: null,
  };

  expect(childExecution(child, flow).limitKey).toBe("acme");
});
