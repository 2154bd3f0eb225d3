/** Schedules: one execution per time in the fleet, what was missed, what overlaps, and clocks that change. */
import { expect, test } from "vitest";
import { z } from "zod";
import { ContractError, createOrchestrator, defineFlow, UsageError } from "../../src/index.ts";
import type { ScheduleOptions } from "../../src/index.ts";
import { dueTimes } from "../../src/worker/schedules.ts";
import { testDatabase } from "../support/database.ts";
import { newGate } from "../support/flows.ts";
import { newExecution } from "../support/ledger.ts";
import { until } from "../crash/support.ts";
import { storeOn } from "../support/store.ts";

const database = await testDatabase();
const { sql } = database;

async function scheduling(schedules: readonly ScheduleOptions[]) {
  const orchestrator = createOrchestrator({ connection: database.url, schedules });
  await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "200ms" });
  return orchestrator;
}

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

test.each([
  ["last", 1],
  ["all", 3],
] as const)("after three hours without a worker, catchUp %s starts %i", async (catchUp, count) => {
  const flow = defineFlow(`schedules.${catchUp}`);
  flow.to("work", () => null);
  // Half an hour away from now, so that nothing is due by itself.
  const minute = (new Date().getUTCMinutes() + 30) % 60;
  const schedule = { flow, cron: `${minute} * * * *`, catchUp, name: flow.name };
  await (await scheduling([schedule])).close();
  expect(await fired(flow.name)).toEqual([]);
  await forget(flow.name, 3);
  const before = await storeOn(sql).schedules.read(flow.name);

  await using _worker = await scheduling([schedule]);
  const looked = await until(
    async () => ((await storeOn(sql).schedules.read(flow.name))?.firedUntil ?? "") > (before?.firedUntil ?? ""),
  );

  expect(looked).toBe(true);
  const all = await fired(flow.name);
  expect(all).toHaveLength(count);
  for (const { at } of all) expect(new Date(at).getUTCMinutes()).toBe(minute);
});

test("a schedule with another cron has missed nothing", async () => {
  const flow = defineFlow("schedules.changed");
  flow.to("work", () => null);
  const minute = (new Date().getUTCMinutes() + 30) % 60;
  await (await scheduling([{ flow, cron: "0 0 1 1 *", name: "changed" }])).close();
  await forget("changed", 3);

  await (await scheduling([{ flow, cron: `${minute} * * * *`, name: "changed" }])).close();

  expect(await fired(flow.name)).toEqual([]);
  expect(await storeOn(sql).schedules.read("changed")).toMatchObject({ cron: `${minute} * * * *` });
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
    const done = await storeOn(sql).schedules.fire({
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

  expect(done.filter(Boolean)).toHaveLength(1);
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
  [{ cron: "0 0 30 2 *" }, /has no time to come/],
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
