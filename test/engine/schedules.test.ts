/** Schedules: one execution per time in the fleet, what was missed, what overlaps, and clocks that change. */
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { ContractError, createOrchestrator, defineFlow, UsageError } from "../../src/index.ts";
import type { Logger, OrchestratorOptions, ScheduleOptions } from "../../src/index.ts";
import { systemTimers, type Timers } from "../../src/base/timers.ts";
import { Orchestrator } from "../../src/orchestrator.ts";
import { dueTimes, startSchedules } from "../../src/worker/schedules.ts";
import { testDatabase } from "../support/database.ts";
import { newGate } from "../support/flows.ts";
import { kit } from "../support/kit.ts";
import { newExecution } from "../support/ledger.ts";
import { until } from "../crash/support.ts";
import { storeOn } from "../support/store.ts";
import { ManualTimers } from "../support/timers.ts";

const database = await testDatabase();
const { sql } = database;

/** A schedule of another version looks so often whether it counts again. */
const longestWaitMs = 60_000;

/** A worker, and when its first looks at schedules that are due later are over. */
async function scheduling(schedules: readonly ScheduleOptions[], more: OrchestratorOptions = {}) {
  const { promise: looked, resolve } = Promise.withResolvers<void>();
  let looks = 0;
  const timers: Timers = {
    ...systemTimers,
    after(ms, callback) {
      if (ms > longestWaitMs && ++looks === schedules.length) resolve();
      return systemTimers.after(ms, callback);
    },
  };
  const orchestrator = new Orchestrator({ connection: database.url, schedules, ...more }, timers);
  await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "200ms" });
  return Object.assign(orchestrator, { looked });
}

const quiet: Logger = { debug() {}, info() {}, warn() {}, error() {} };

interface Fired {
  readonly at: string;
  readonly closed: boolean;
  readonly metadata: Record<string, unknown>;
  readonly input: unknown;
}

function fired(flow: string): Promise<Fired[]> {
  return sql<Fired[]>`
    select e.metadata ->> 'scheduledAt' as at, e.closed_at is not null as closed, e.metadata, l.payload -> 'input' as input
    from flowledger.executions e join flowledger.ledger l on l.execution_id = e.id and l.type = 'execution.started'
    where e.flow = ${flow} order by 1`;
}

/** Once an hour, half an hour away from now, so that nothing is due by itself. */
function halfAnHourAway(): string {
  return `${(new Date().getUTCMinutes() + 30) % 60} * * * *`;
}

/** The times between what the schedule has dealt with and now. */
async function missedBy(name: string, cron: string): Promise<string[]> {
  const row = await storeOn(sql).schedules.read(name);
  const [after, now] = [new Date(row?.firedUntil ?? ""), new Date(row?.now ?? "")];
  return dueTimes({ cron, timeZone: "UTC", catchUp: "all" }, after, now).times.map((time) => time.toISOString());
}

/** The schedule has not been looked at for so long. */
async function forget(name: string, hours: number): Promise<void> {
  await sql`
    update flowledger.schedules set fired_until = fired_until - make_interval(hours => ${hours}) where name = ${name}`;
}

test("two workers fire each time once, with its input and metadata", async () => {
  const flow = defineFlow("schedules.once", { input: z.object({ region: z.string() }) });
  flow.to("work", () => null);
  const schedule = { flow, cron: "* * * * * *", input: { region: "eu" }, metadata: { team: "billing" } };
  await using _first = await scheduling([schedule]);
  await using _second = await scheduling([schedule]);

  await until(async () => (await fired(flow.name)).length >= 4, 20_000);

  const all = await fired(flow.name);
  const times = all.map(({ at }) => Date.parse(at));
  expect(new Set(times).size).toBe(times.length);
  for (const [index, time] of times.entries()) expect(time).toBe((times[0] ?? 0) + index * 1000);
  expect(all[0]).toMatchObject({
    input: { region: "eu" },
    metadata: { team: "billing", schedule: "schedules.once * * * * * *" },
  });
});

test("after three hours without a worker, catchUp and overlap say what runs", async () => {
  const cron = halfAnHourAway();
  const runs = new Map<string, number>();
  const cases = (
    [
      [{}, 1],
      [{ catchUp: "skip", overlap: "allow" }, 0],
      [{ catchUp: "skip", overlap: "skip" }, 0],
      [{ catchUp: "skip", overlap: "queue" }, 0],
      [{ catchUp: "last", overlap: "allow" }, 1],
      [{ catchUp: "last", overlap: "skip" }, 1],
      [{ catchUp: "last", overlap: "queue" }, 1],
      [{ catchUp: "all", overlap: "allow" }, 3],
      [{ catchUp: "all", overlap: "skip" }, 1],
      [{ catchUp: "all", overlap: "queue" }, 3],
    ] as const
  ).map(([options, count]) => {
    const name = `schedules.missed.${Object.values(options).join(".")}`;
    const flow = defineFlow(name);
    flow.to("work", () => void runs.set(name, (runs.get(name) ?? 0) + 1));
    return { name, count, schedule: { flow, name, cron, ...options } };
  });
  const schedules = cases.map(({ schedule }) => schedule);
  await (await scheduling(schedules)).close();
  expect(runs.size).toBe(0);
  for (const { name } of cases) await forget(name, 3);
  const missed = await missedBy(cases[0]?.name ?? "", cron);
  expect(missed).toHaveLength(3);

  await using worker = await scheduling(schedules);
  await worker.looked;
  for (const { name, count } of cases)
    await until(async () => (await fired(name)).filter(({ closed }) => closed).length >= count);

  for (const { name, count } of cases) {
    expect([name, runs.get(name) ?? 0]).toEqual([name, count]);
    expect((await fired(name)).map(({ at }) => at)).toEqual(missed.slice(3 - count));
  }
});

test("what catchUp skip leaves out is over, also when it is changed", async () => {
  const flow = defineFlow("schedules.skipped");
  flow.to("work", () => null);
  const schedule = { flow, cron: halfAnHourAway(), name: flow.name };
  await (await scheduling([schedule])).close();
  await forget(flow.name, 3);
  await using skipping = await scheduling([{ ...schedule, catchUp: "skip" }]);
  await skipping.looked;

  await using worker = await scheduling([{ ...schedule, catchUp: "all" }]);
  await worker.looked;

  expect(await fired(flow.name)).toEqual([]);
});

test("of many missed times, catchUp all with overlap skip starts the last one", async () => {
  const flow = defineFlow("schedules.many");
  flow.to("work", () => null);
  // Every minute of three hours that are over.
  const hour = new Date().getUTCHours();
  const hours = [hour + 22, hour + 21, hour + 20].map((each) => each % 24);
  const cron = `* ${hours.join()} * * *`;
  const schedule = { flow, cron, catchUp: "all", overlap: "skip", name: flow.name } as const;
  await (await scheduling([schedule])).close();
  await forget(flow.name, 6);

  await using worker = await scheduling([schedule]);
  await worker.looked;

  const all = await fired(flow.name);
  expect(all.map(({ at }) => at.slice(11, 16))).toEqual([`${String(hours[0]).padStart(2, "0")}:59`]);
});

test("a schedule with another cron has missed nothing", async () => {
  const flow = defineFlow("schedules.changed");
  flow.to("work", () => null);
  const cron = halfAnHourAway();
  await (await scheduling([{ flow, cron: "0 0 1 1 *", name: "changed" }])).close();
  await forget("changed", 3);

  await (await scheduling([{ flow, cron, name: "changed" }])).close();

  expect(await fired(flow.name)).toEqual([]);
  expect(await storeOn(sql).schedules.read("changed")).toMatchObject({ cron });
});

const wakeups = { subscribe: () => () => {} };

test("a schedule of a flow whose pause its worker has not heard of is looked at again, as nobody says when that ends", async () => {
  const name = "schedules.unheard";
  const flow = defineFlow(name);
  flow.to("work", () => null);
  const by = JSON.stringify({ actor: "ann", reason: "INC-12" });
  const { schedules } = storeOn(sql);
  const own = { name, flow: name, cron: "0 0 1 1 *", timeZone: "UTC", catchUp: "last", overlap: "allow" } as const;
  let reads = 0;
  const counting = { ...schedules, read: (of: string) => ((reads += 1), schedules.read(of)) };
  await (await scheduling([{ flow, cron: own.cron, name }])).close();
  await sql`select flowledger.pause_flow(${name}, ${by}::text::jsonb)`;

  const running = await startSchedules(
    { schedules: counting, wakeups },
    quiet,
    [{ ...own, execution: newExecution({ flow: name }) }],
    new ManualTimers(),
    { has: () => false },
  );

  await expect.poll(() => reads).toBeGreaterThan(1);
  running.stop();
});

test("of two versions of a schedule the later counts, and the other one again when its workers are gone", async () => {
  const flow = defineFlow("schedules.versions");
  flow.to("work", () => null);
  const name = flow.name;
  const { schedules } = storeOn(sql);
  const version = (cron: string) =>
    ({ name, flow: name, cron, timeZone: "UTC", catchUp: "last", overlap: "allow" }) as const;
  const first = { ...version("0 0 1 1 *"), execution: newExecution({ flow: name }) };
  const timers = new ManualTimers();
  const cron = async () => (await schedules.read(name))?.cron;
  const running = await startSchedules({ schedules, wakeups }, quiet, [first], timers, { has: () => false });

  const later = await scheduling([{ flow, cron: "0 0 2 1 *", name }]);
  await later.looked;
  // Its own time has come, and is none any more.
  timers.pass(366 * 86_400_000);
  await timers.untilWaiting(longestWaitMs);
  expect(await cron()).toBe("0 0 2 1 *");
  await later.close();
  timers.pass(longestWaitMs);

  expect(await until(async () => (await cron()) === first.cron)).toBe(true);
  running.stop();
});

test("of two versions that differ in what they start the later counts, and the other one again when its worker is gone", async () => {
  const flow = defineFlow("schedules.started", { input: z.number() });
  flow.to("work", () => null);
  const having = (more: Partial<ScheduleOptions>) => [{ flow, cron: "0 * * * *", name: "started", input: 0, ...more }];
  await using t = await kit({ schedules: having({}) });
  const started = async () => {
    const { executions } = await t.orchestrator.listExecutions({ flow: flow.name, order: "oldest" });
    return await Promise.all(
      executions.map(async ({ id, metadata }) => {
        const [event] = await (await t.orchestrator.getExecution(id)).history({ types: ["execution.started"] });
        return [event?.type === "execution.started" && event.input, metadata["by"]];
      }),
    );
  };

  await t.clock.advance("1h");
  for (const version of [{ input: 1 }, { metadata: { by: "third" } }]) {
    await using later = await kit({ schedules: having(version), database: t.database });
    await later.clock.advance("2h");
  }
  await t.clock.advance("1h");

  expect(await started()).toEqual([[0], [1], [1], [0, "third"], [0, "third"], [0]].map(([input, by]) => [input, by]));
});

describe("a schedule that was removed", () => {
  /** Declared, then its flow is served without it, and then nobody has looked for so long. */
  async function removed(schedules: readonly (ScheduleOptions & { name: string })[], hours: number): Promise<void> {
    await (await scheduling(schedules)).close();
    await (await scheduling([], { flows: schedules.map(({ flow }) => flow) })).close();
    for (const { name } of schedules) await forget(name, hours);
  }

  test("and comes back after hours starts nothing by catchUp all, and says so", async () => {
    const flow = defineFlow("schedules.removed");
    flow.to("work", () => null);
    const cron = halfAnHourAway();
    const schedules = (["all", "last", "skip"] as const).map((catchUp) => ({
      flow,
      cron,
      catchUp,
      name: `back ${catchUp}`,
    }));
    await removed(schedules, 5);
    const missed = await missedBy("back all", cron);
    const warnings: unknown[] = [];
    const logger: Logger = { ...quiet, warn: (message, fields) => void warnings.push([message, fields]) };

    await using worker = await scheduling(schedules, { logger });
    await worker.looked;

    expect((await fired(flow.name)).map(({ at, metadata }) => [at, metadata["schedule"]])).toEqual([
      [missed[4], "back last"],
    ]);
    expect(warnings).toEqual([
      ["times of a schedule were left out", { schedule: "back all", from: missed[0], until: missed[4] }],
    ]);
    const rows = await sql`
      select name, left_out_from, left_out_until, removed_at from flowledger.schedules where flow = ${flow.name} order by name`;
    expect(rows).toEqual([
      {
        name: "back all",
        left_out_from: new Date(missed[0] ?? ""),
        left_out_until: new Date(missed[4] ?? ""),
        removed_at: null,
      },
      { name: "back last", left_out_from: null, left_out_until: null, removed_at: null },
      { name: "back skip", left_out_from: null, left_out_until: null, removed_at: null },
    ]);
  });

  test("and comes back drops the times that waited when it went", async () => {
    const flow = defineFlow("schedules.removed.queue");
    flow.to("work", () => null);
    const schedule = { flow, cron: halfAnHourAway(), catchUp: "all", overlap: "queue", name: flow.name } as const;
    await removed([schedule], 5);
    await sql`
      update flowledger.schedules set waiting = array[fired_until - interval '1 day'] where name = ${flow.name}`;

    await using worker = await scheduling([schedule], { logger: quiet });
    await worker.looked;

    expect(await storeOn(sql).schedules.read(flow.name)).toMatchObject({ waiting: 0 });
    expect(await fired(flow.name)).toEqual([]);
  });

  test("is one when the last worker that has it leaves others of its flow behind", async () => {
    const flow = defineFlow("schedules.removed.rolling");
    flow.to("work", () => null);
    const schedule = { flow, cron: "0 0 1 1 *", name: flow.name };
    const isRemoved = async () => (await storeOn(sql).schedules.read(flow.name))?.removedAt !== null;
    const old = await scheduling([schedule]);
    await using _new = await scheduling([], { flows: [flow] });
    expect(await isRemoved()).toBe(false);

    await old.close();

    expect(await isRemoved()).toBe(true);
  });

  test("is one when that worker dies", async () => {
    const flow = defineFlow("schedules.removed.dead");
    flow.to("work", () => null);
    const { schedules } = storeOn(sql);
    const version = { flow: flow.name, cron: "0 0 1 1 *", timeZone: "UTC" };
    await schedules.declare({ name: flow.name, ...version });
    await sql`
      select flowledger.register_worker(${crypto.randomUUID()}, 'h', 1, '{}', ${JSON.stringify({ [flow.name]: version })}::text::jsonb, null)`;
    await sql`update flowledger.workers set heartbeat_at = heartbeat_at - interval '1 hour' where host = 'h'`;
    await using _other = await scheduling([], { flows: [flow] });

    const reaped = await until(async () => (await schedules.read(flow.name))?.removedAt);

    expect(reaped).toBeTruthy();
  });

  test("is none while only workers of other flows run: all of its times are caught up", async () => {
    const [flow, other] = [defineFlow("schedules.alone"), defineFlow("schedules.other")];
    flow.to("work", () => null);
    other.to("work", () => null);
    const schedule = { flow, cron: halfAnHourAway(), catchUp: "all", name: flow.name } as const;
    await (await scheduling([schedule])).close();
    await using _other = await scheduling([], { flows: [other] });
    await forget(flow.name, 5);

    await using worker = await scheduling([schedule]);
    await worker.looked;

    expect(await fired(flow.name)).toHaveLength(5);
  });
});

test("a schedule goes on where the clock was set back, and no time starts twice", async () => {
  const flow = defineFlow("schedules.set-back");
  flow.to("work", () => null);
  await using _worker = await scheduling([{ flow, cron: "* * * * * *", name: flow.name }]);
  await until(async () => (await fired(flow.name)).length >= 1);

  // To the schedule it is as if the clock said a day less than before.
  const again = until(async () => (await fired(flow.name)).length >= 3);
  await sql`update flowledger.schedules set fired_until = fired_until + interval '1 day' where name = ${flow.name}`;
  expect(await again).toBe(true);
  await sql`
    update flowledger.schedules set fired_until = fired_until - interval '2 seconds' where name = ${flow.name}`;
  await until(async () => (await fired(flow.name)).length >= 5);

  const times = (await fired(flow.name)).map(({ at }) => at);
  expect(new Set(times).size).toBe(times.length);
});

test.each([
  ["allow", 3],
  ["skip", 1],
  ["queue", 1],
] as const)("while an execution is open, overlap %s has started %i of three times", async (overlap, count) => {
  const gate = newGate();
  const flow = defineFlow(`schedules.overlap.${overlap}`);
  flow.to("work", () => gate.passed);
  const name = flow.name;
  await using _worker = await scheduling([{ flow, cron: "0 0 1 1 *", name, overlap }]);
  const fire = async (minutes: number) => {
    // As a worker does when a time has come.
    const row = await storeOn(sql).schedules.read(name);
    const until = new Date(Date.parse(row?.firedUntil ?? "") + minutes * 60_000);
    const { done } = await storeOn(sql).schedules.fire({
      name,
      after: row?.firedUntil ?? "",
      until,
      times: [until],
      overlap,
      execution: newExecution({ flow: flow.name, settings: { autoCloseMs: 0 } }),
    });
    expect(done).toBe(true);
  };
  await forget(name, 1);

  for (const minutes of [10, 10, 10]) await fire(minutes);

  expect(await fired(name)).toHaveLength(count);
  gate.open();
  if (overlap !== "queue") return;
  // Those that wait go one after the other, as each closes.
  await using _other = await scheduling([{ flow, cron: "0 0 1 1 *", name, overlap }]);
  const over = await until(async () => {
    const all = await fired(name);
    return all.length === 3 && all.every(({ closed }) => closed);
  }, 20_000);
  expect(over).toBe(true);
});

test("a thousand times wait for an open execution; what comes then is left out, and said", async () => {
  const flow = defineFlow("schedules.full");
  flow.to("work", () => null);
  await (await scheduling([{ flow, cron: "0 0 1 1 *", name: flow.name }])).close();
  await forget(flow.name, 24);
  const { schedules } = storeOn(sql);
  const after = (await schedules.read(flow.name))?.firedUntil ?? "";
  const times = Array.from({ length: 1003 }, (_, index) => new Date(Date.parse(after) + (index + 1) * 60_000));
  const until = times.at(-1) ?? new Date(0);
  const execution = newExecution({ flow: flow.name });

  const said = await schedules.fire({ name: flow.name, after, until, times, overlap: "queue", execution });

  expect(said).toEqual({
    done: true,
    leftOutFrom: times[1001]?.toISOString(),
    leftOutUntil: times[1002]?.toISOString(),
  });
  expect(await schedules.read(flow.name)).toMatchObject({ waiting: 1000 });
});

test("times that come again, as after a clock was set back, wait once", async () => {
  const flow = defineFlow("schedules.again");
  flow.to("work", () => null);
  await (await scheduling([{ flow, cron: "0 0 1 1 *", name: flow.name }])).close();
  await forget(flow.name, 1);
  const { schedules } = storeOn(sql);
  const after = (await schedules.read(flow.name))?.firedUntil ?? "";
  const times = [1, 2, 3].map((minutes) => new Date(Date.parse(after) + minutes * 60_000));
  const until = times[2] ?? new Date(0);
  const execution = newExecution({ flow: flow.name });
  const fire = () => schedules.fire({ name: flow.name, after, until, times, overlap: "queue", execution });

  await fire();
  expect(await schedules.read(flow.name)).toMatchObject({ waiting: 2 });
  await sql`update flowledger.schedules set fired_until = ${after} where name = ${flow.name}`;
  await fire();

  expect(await schedules.read(flow.name)).toMatchObject({ waiting: 3 });
  expect(await fired(flow.name)).toHaveLength(1);
});

test("what waited when a schedule was removed is left out when it is back, and said; while its flow is paused nothing fires", async () => {
  const flow = defineFlow("schedules.back");
  flow.to("work", () => null);
  await (await scheduling([{ flow, cron: "0 0 1 1 *", name: flow.name }])).close();
  await forget(flow.name, 1);
  const { schedules } = storeOn(sql);
  const after = (await schedules.read(flow.name))?.firedUntil ?? "";
  const [first, last] = [1, 2].map((minutes) => new Date(Date.parse(after) + minutes * 60_000)) as [Date, Date];
  await sql`update flowledger.schedules set waiting = array[${first}, ${last}]::timestamptz[] where name = ${flow.name}`;
  const execution = newExecution({ flow: flow.name });
  const command = { name: flow.name, after, until: last, times: [], overlap: "queue" as const, execution };
  const by = JSON.stringify({ actor: "ann", reason: "INC-12" });

  await sql`select flowledger.pause_flow(${flow.name}, ${by}::text::jsonb)`;
  const held = await schedules.fire({ ...command, isReturn: true });
  await sql`select flowledger.unpause_flow(${flow.name}, ${by}::text::jsonb)`;
  const said = await schedules.fire({ ...command, isReturn: true });

  expect(held).toMatchObject({ done: false });
  expect(said).toEqual({ done: true, leftOutFrom: first.toISOString(), leftOutUntil: last.toISOString() });
  expect(await fired(flow.name)).toEqual([]);
});

test("whoever fires before a time, as with a clock that is ahead, fires nothing", async () => {
  const flow = defineFlow("schedules.early");
  flow.to("work", () => null);
  await (await scheduling([{ flow, cron: "0 0 1 1 *", name: flow.name }])).close();
  const { schedules } = storeOn(sql);
  const row = await schedules.read(flow.name);
  const until = new Date(Date.parse(row?.now ?? "") + 60_000);
  const execution = newExecution({ flow: flow.name });
  const times = [until];
  const after = row?.firedUntil ?? "";

  const said = await schedules.fire({ name: flow.name, after, until, times, overlap: "allow", execution });

  expect(said).toMatchObject({ done: false });
  expect(await fired(flow.name)).toEqual([]);
});

test("two schedules of one flow that are due at one time start one execution each", async () => {
  const flow = defineFlow("schedules.beside");
  flow.to("work", () => null);
  const names = ["beside a", "beside b"];
  await (await scheduling(names.map((name) => ({ flow, cron: "0 0 1 1 *", name })))).close();
  const { schedules } = storeOn(sql);
  for (const name of names) await forget(name, 1);
  const read = await Promise.all(names.map((name) => schedules.read(name)));
  const time = new Date(Math.max(...read.map((row) => Date.parse(row?.firedUntil ?? ""))) + 60_000);

  for (const [index, name] of names.entries()) {
    const execution = newExecution({ flow: flow.name });
    const after = read[index]?.firedUntil ?? "";
    await schedules.fire({ name, after, until: time, times: [time], overlap: "allow", execution });
  }

  expect((await fired(flow.name)).map(({ metadata }) => String(metadata["schedule"])).toSorted()).toEqual(names);
});

test("whoever comes second to a time fires nothing", async () => {
  const flow = defineFlow("schedules.raced");
  flow.to("work", () => null);
  await (await scheduling([{ flow, cron: "0 0 1 1 *", name: "raced" }])).close();
  await forget("raced", 1);
  const after = (await storeOn(sql).schedules.read("raced"))?.firedUntil ?? "";
  const time = new Date(Date.parse(after) + 60_000);
  const execution = newExecution({ flow: flow.name });
  const command = { name: "raced", after, until: time, times: [time], overlap: "allow", execution } as const;

  const done = await Promise.all([
    storeOn(sql).schedules.fire(command),
    storeOn(sql).schedules.fire(command),
    storeOn(sql).schedules.fire(command),
  ]);

  expect(done.filter((fired) => fired.done)).toHaveLength(1);
  expect(await fired(flow.name)).toHaveLength(1);
});

test("a time in the gap of spring comes once, at its end; a time that autumn has twice comes once, at first", () => {
  const at = (cron: string, after: string, until: string) =>
    dueTimes({ cron, timeZone: "Europe/Berlin", catchUp: "all" }, new Date(after), new Date(until)).times.map((time) =>
      time.toISOString(),
    );

  expect(at("30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z")).toEqual([
    "2026-03-29T01:00:00.000Z",
    "2026-03-30T00:30:00.000Z",
  ]);
  expect(at("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z")).toEqual([
    "2026-10-25T00:30:00.000Z",
    "2026-10-26T01:30:00.000Z",
  ]);
  // What comes every hour comes every hour.
  expect(at("0 * * * *", "2026-10-24T23:30:00Z", "2026-10-25T02:30:00Z")).toEqual([
    "2026-10-25T00:00:00.000Z",
    "2026-10-25T01:00:00.000Z",
    "2026-10-25T02:00:00.000Z",
  ]);
});

test("catchUp skip leaves out what was missed, and not what has just come", () => {
  const schedule = { cron: "0 * * * *", timeZone: "UTC", catchUp: "skip" } as const;
  const after = new Date("2026-01-01T00:00:00Z");

  expect(dueTimes(schedule, after, new Date("2026-01-01T05:30:00Z")).times).toEqual([]);
  expect(dueTimes(schedule, after, new Date("2026-01-01T05:00:03Z")).times).toEqual([new Date("2026-01-01T05:00:00Z")]);
  expect(dueTimes({ ...schedule, catchUp: "last" }, after, new Date("2026-01-01T05:30:00Z")).times).toEqual([
    new Date("2026-01-01T05:00:00Z"),
  ]);
});

test("catchUp last starts one of what comes every second, too", () => {
  const schedule = { cron: "* * * * * *", timeZone: "UTC", catchUp: "last" } as const;
  const until = new Date("2026-01-01T03:00:00Z");

  expect(dueTimes(schedule, new Date("2026-01-01T00:00:00Z"), until).times).toEqual([until]);
  // Nothing was missed within a moment.
  expect(dueTimes(schedule, new Date("2026-01-01T02:59:57Z"), until).times).toHaveLength(3);
});

test.each([
  [1000, null],
  [1001, { from: new Date("2026-01-01T00:01:00Z"), until: new Date("2026-01-01T00:01:00Z") }],
  [5000, { from: new Date("2026-01-01T00:01:00Z"), until: new Date("2026-01-03T18:40:00Z") }],
])(
  "of %i missed times catchUp all starts the last thousand, and says between which it left some out",
  (count, leftOut) => {
    const schedule = { cron: "* * * * *", timeZone: "UTC", catchUp: "all" } as const;
    const begin = Date.parse("2026-01-01T00:00:00Z");
    const end = new Date(begin + count * 60_000);

    const first = dueTimes(schedule, new Date(begin), end);
    const all = [...first.times];
    for (let after = first.until; after < end;) {
      const part = dueTimes(schedule, after, end);
      expect(part.leftOut).toBeNull();
      all.push(...part.times);
      after = part.until;
    }

    expect(first.leftOut).toEqual(leftOut);
    expect(all).toEqual(Array.from({ length: 1000 }, (_, index) => new Date(end.getTime() - (999 - index) * 60_000)));
  },
);

test.each([
  ["a deploy of half an hour", "02:30", ["02:00"]],
  ["an hour or more", "03:00", ["03:00"]],
  ["a long time", "23:15", []],
])("catchUp all of a schedule that was removed: after %s", (_, until, expected) => {
  const schedule = { cron: "0 * * * *", timeZone: "UTC", catchUp: "all" } as const;
  const after = new Date("2026-01-01T01:00:00Z");

  const due = dueTimes(schedule, after, new Date(`2026-01-01T${until}:00Z`), true);

  expect(due.times.map((time) => time.toISOString().slice(11, 16))).toEqual(expected);
  expect(due.isReturn).toBe(until !== "02:30");
});

test("a long absence is caught up in parts", () => {
  const schedule = { cron: "* * * * *", timeZone: "UTC", catchUp: "all" } as const;
  const end = new Date("2026-01-01T12:00:00Z");

  let after = new Date("2026-01-01T00:00:00Z");
  const all: number[] = [];
  for (let part = 0; after < end && part < 20; part++) {
    const { times, until: reached } = dueTimes(schedule, after, end);
    all.push(...times.map((time) => time.getTime()));
    after = reached;
  }

  expect(new Set(all).size).toBe(720);
  expect(all).toHaveLength(720);
});

const flow = defineFlow("schedules.bad", { input: z.object({ n: z.number() }) });
flow.to("work", () => null);
const good = { flow, cron: "0 7 * * *", input: { n: 1 } };

test.each<[object, RegExp]>([
  [{ cron: "61 * * * *" }, /cron "61 \* \* \* \*" of schedule "schedules\.bad 61 \* \* \* \*" cannot be read .*minute/],
  [{ cron: "every day" }, /use five fields like "0 7 \* \* \*"/],
  [{ cron: "" }, /cron "" .* cannot be read/],
  [{ cron: "0 0 30 2 *" }, /it never comes/],
  [{ cron: "2099-01-01T00:00:00Z" }, /a date comes only once: start an execution with startAt/],
  [{ cron: "0 0 0 1 1 * 2099" }, /7 parts/],
  [{ cron: null }, /cron null .*expected a text/],
  [{ timeZone: null }, /timeZone null .* is not known/],
  [{ timezone: "Europe/Berlin" }, /unknown option "timezone".*did you mean "timeZone"/],
  [{ timeZone: "Mars/Base" }, /timeZone "Mars\/Base" of schedule .* is not known: use an IANA name/],
  [{ timeZone: "" }, /timeZone "" .* is not known/],
  [{ catchUp: "some" }, /catchUp of .* must be "skip", "last" or "all", got "some"/],
  [{ overlap: "wait" }, /overlap of .* must be .*, got "wait"/],
  [{ name: "" }, /schedule "" has a name that is not allowed/],
  [{ priority: 0.5 }, /priority must be an integer from -32767 to 32767, got 0\.5/],
])("a schedule with %j is refused before anything is stored", (wrong, message) => {
  const open = () => createOrchestrator({ connection: database.url, schedules: [{ ...good, ...wrong }] });

  expect(open).toThrow(message);
  expect(open).toThrow(UsageError);
});

test("an input that breaks the contract, and two schedules of one name, are refused as well", () => {
  const open = (schedules: ScheduleOptions[]) => () => createOrchestrator({ connection: database.url, schedules });

  expect(open([{ ...good, input: { n: "one" } }])).toThrow(ContractError);
  expect(open([good, good])).toThrow(/two schedules "schedules\.bad 0 7 \* \* \*": give each a name of its own/);
});

test.each([
  ["-5s", /"-5s" is not a duration for delay/],
  ["soon", /"soon" is not a duration for delay/],
  [-1, /-1 is not a duration for delay/],
])("a delay of %s is refused, and nothing is started", async (delay, message) => {
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });

  await expect(orchestrator.flow(flow).startExecution({ n: 1 }, { delay })).rejects.toThrow(message);
  await expect(
    sql`select flowledger.start('schedules.bad', '{"n": 1}', ${JSON.stringify({ delay })}::text::jsonb)`,
  ).rejects.toThrow(/delay must be a duration/);
  expect(await fired(flow.name)).toEqual([]);
});

test("queued times wait for one execution at a time, and news of it that came during a look are looked at", async () => {
  const name = "schedules.heard";
  const ids = ["01900000-0000-7000-8000-000000000001", "01900000-0000-7000-8000-000000000002"];
  const listening = new Map<string, (isLocal: boolean) => void>();
  const timers = new ManualTimers();
  const now = new Date(timers.now()).toISOString();
  const row = {
    flow: name,
    cron: "@yearly",
    timeZone: "UTC",
    isOutdated: false,
    isServed: true,
    isPaused: false,
    removedAt: null,
  };
  let looks = 0;
  let heardIn = Infinity;
  let left = 1;
  const schedules = {
    declare: async () => {},
    rewind: async () => {},
    run: async () => "",
    fire: async () => ({ done: true, leftOutFrom: null, leftOutUntil: null }),
    read: async (_: string, own?: unknown) => {
      const lastId = ids[looks < 3 ? 0 : 1] ?? null;
      if (own !== undefined) looks += 1;
      // It closes while this look is under way.
      if (looks === heardIn && own === undefined) listening.get(lastId ?? "")?.(false);
      return { ...row, now, firedUntil: now, waiting: own === undefined ? left : 1, lastId };
    },
  };
  const subscribe = (id: string, listener: (isLocal: boolean) => void) => {
    listening.set(id, listener);
    return () => listening.delete(id);
  };
  const own = { name, flow: name, cron: "@yearly", timeZone: "UTC", catchUp: "last", overlap: "queue" } as const;
  const running = await startSchedules(
    { schedules: schedules as never, wakeups: { subscribe } },
    quiet,
    [{ ...own, execution: newExecution({ flow: name }) }],
    timers,
    { has: () => false },
  );
  await expect.poll(() => [looks, running.isQuiet]).toEqual([2, true]);
  heardIn = 4;
  listening.get(ids[0] ?? "")?.(false);

  await expect.poll(() => looks).toBe(5);

  expect([...listening.keys()]).toEqual([ids[1]]);
  await expect.poll(() => running.isQuiet).toBe(true);
  left = 0;
  heardIn = Infinity;
  listening.get(ids[1] ?? "")?.(false);
  await expect.poll(() => [looks, running.isQuiet]).toEqual([6, true]);
  expect([...listening.keys()]).toEqual([]);
  running.stop();
});

test("a pause of its flow that is told during a look at a schedule has it looked at again", async () => {
  const name = "schedules.stale";
  const timers = new ManualTimers();
  const now = new Date(timers.now()).toISOString();
  const looks: PromiseWithResolvers<void>[] = [];
  const schedules = {
    declare: async () => {},
    read: async () => {
      const look = Promise.withResolvers<void>();
      looks.push(look);
      await look.promise;
      const times = { flow: name, cron: "@yearly", timeZone: "UTC", now, firedUntil: now };
      return {
        ...times,
        isOutdated: false,
        isServed: true,
        isPaused: false,
        removedAt: null,
        waiting: 0,
        lastId: null,
      };
    },
  };
  const own = { name, flow: name, cron: "@yearly", timeZone: "UTC", catchUp: "last", overlap: "allow" } as const;
  const running = await startSchedules(
    { schedules: schedules as never, wakeups: { subscribe: () => () => {} } },
    quiet,
    [{ ...own, execution: newExecution({ flow: name }) }],
    timers,
    { has: () => false },
  );
  expect(looks).toHaveLength(1);

  running.look(new Set([name]));
  looks[0]?.resolve();

  await expect.poll(() => looks).toHaveLength(2);
  looks[1]?.resolve();
  await expect.poll(() => running.isQuiet).toBe(true);
  running.stop();
});
