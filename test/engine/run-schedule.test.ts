/** A schedule that somebody runs now: one execution beside its times, with who and why, by every door. */
import { expect, test } from "vitest";
import { defineFlow, FlowPausedError, UsageError } from "../../src/index.ts";
import type { ScheduleOptions } from "../../src/index.ts";
import { rebuild } from "../../src/store/rebuild.ts";
import { verify } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, refusal, serving, untilEvent, visiting } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
let gate = newGate();
const report = defineFlow("run.report");
report.to("write", (ctx) => ctx.setResult({ of: ctx.startInput as never }));
const slow = defineFlow("run.slow", {}, { onFailure: "park" });
let isBroken = false;
slow.to("work", async () => {
  await gate.passed;
  if (isBroken) throw new Error("down");
});

// Half a year away, so that nothing is due by itself.
const cron = `0 0 1 ${((new Date().getUTCMonth() + 6) % 12) + 1} *`;
const schedules: ScheduleOptions[] = [
  { flow: report, cron, name: "weekly report", input: { region: "eu" }, metadata: { team: "billing" }, priority: 7 },
  ...(["skip", "queue"] as const).map((overlap) => ({ flow: slow, cron, name: overlap, overlap })),
];

async function rowOf(name: string) {
  const [row] = await sql`select fired_until, last_id, waiting from flowledger.schedules where name = ${name}`;
  return row;
}

test("it starts what its times start, by any process, and the ledger has who and why; its times stay", async () => {
  await using _worker = await serving(database, [], { schedules });
  await using visitor = visiting(database);
  const before = await rowOf("weekly report");

  const execution = await visitor.runSchedule("weekly report", { actor: "ann", reason: "the boss asked" });
  const closed = await execution.waitForClose();

  const [created, started] = await execution.history();
  expect(created).toMatchObject({
    type: "execution.created",
    priority: 7,
    metadata: { team: "billing", schedule: "weekly report", scheduledAt: expect.stringMatching(/Z$/) },
  });
  expect(started).toMatchObject({
    type: "execution.started",
    input: { region: "eu" },
    actor: "ann",
    reason: "the boss asked",
  });
  expect(closed).toMatchObject({ $final_result: { of: { region: "eu" } } });
  expect(await rowOf("weekly report")).toEqual({ ...before, last_id: execution.id });
  expect(await verify(sql, { id: execution.id })).toEqual([]);
  expect(await rebuild(sql, { id: execution.id })).toEqual([]);
  const fork = await execution.fork({ at: 2 });
  expect((await fork.history()).find(({ type }) => type === "execution.started")).toMatchObject({ actor: "ann" });
  await fork.waitForClose();
});

test("without a reason, by SQL, and twice with the same id it is one", async () => {
  await using worker = await serving(database, [], { schedules });
  const id = "01890000-0000-7000-8000-00000000ab01";
  const run = () =>
    sql<{ id: string }[]>`
      select flowledger.run_schedule('weekly report', ${JSON.stringify({ actor: "bo", id })}::text::jsonb) as id`;

  expect([await run(), await run()]).toEqual([[{ id }], [{ id }]]);
  const execution = await worker.getExecution(id);
  await execution.waitForClose();
  const started = (await execution.history()).filter(({ type }) => type === "execution.started");
  expect(started).toMatchObject([{ actor: "bo" }]);
  expect(started[0]).not.toHaveProperty("reason");
  const other = JSON.stringify({ actor: "cy", id });
  await expect(sql`select flowledger.run_schedule('weekly report', ${other}::text::jsonb)`).rejects.toThrow(
    `execution id ${id} is taken`,
  );
});

test("where executions do not overlap, one that is under way is named; what only waits for an operator is none", async () => {
  await using worker = await serving(database, [], { schedules });
  for (const name of ["skip", "queue"]) {
    gate = newGate();
    const first = await worker.runSchedule(name, { actor: "ann" });
    expect(await refusal(worker.runSchedule(name, { actor: "ann" }))).toMatchObject({
      code: "USAGE_INVALID",
      message: expect.stringContaining(`execution ${first.id} of schedule "${name}" is still under way`),
    });
    isBroken = name === "queue";
    gate.open();
    if (!isBroken) await first.waitForClose();
    else await untilEvent(first, "chunk.parked");
    isBroken = false;
    const second = await worker.runSchedule(name, { actor: "ann" });
    await second.waitForClose();
    expect((await rowOf(name))?.["waiting"]).toEqual([]);
  }
});

test("of two versions side by side the one that started last is run", async () => {
  {
    await using _worker = await serving(database, [], { schedules });
  }
  const made = (team: string) => ({
    "weekly report": {
      flow: "run.report",
      cron,
      timeZone: "UTC",
      input: null,
      overlap: "allow",
      priority: 0,
      created: { flow: "run.report", metadata: { team } },
    },
  });
  await sql`
    insert into flowledger.workers (id, host, pid, flows, schedules, role, backend_pid, session_key, started_at, heartbeat_at)
    select gen_random_uuid(), 'side by side', 1, array['run.report'], x.made, current_user, 0, 0, t.at + x.later, t.at
    from (values (${sql.json(made("old"))}::jsonb, interval '0'), (${sql.json(made("new"))}, interval '1 s')) x(made, later),
      (select flowledger.wall_clock() as at) t`;

  const [run] = await sql<{ id: string }[]>`select flowledger.run_schedule('weekly report', '{"actor": "ann"}') as id`;

  expect(await sql`select metadata ->> 'team' as team from flowledger.executions where id = ${run?.id ?? ""}`).toEqual([
    { team: "new" },
  ]);
  await sql`select flowledger.cancel(${run?.id ?? ""})`;
  await sql`delete from flowledger.workers where host = 'side by side'`;
});

test("what is parked holds its schedule up where it is also owned, or asks somebody", async () => {
  const holds = async (has: { owned?: boolean; pending?: number; closed?: boolean }) => {
    const id = crypto.randomUUID();
    const isClosed = has.closed ?? false;
    await sql`
      insert into flowledger.executions (id, seq, flow, created_at, started_at, parked, pending_interrupts, owner, closed_at, outcome)
      values (${id}, 1, 'run.held', now(), now(), 1, ${has.pending ?? 0}, ${has.owned ? id : null}::uuid,
        case when ${isClosed}::boolean then now() end, case when ${isClosed}::boolean then 'failed' end)`;
    const [row] = await sql<{ holds: boolean }[]>`select flowledger.holds_schedule(${id}) as holds`;
    return row?.holds;
  };

  expect(await holds({})).toBe(false);
  expect(await holds({ pending: 1 })).toBe(true);
  expect(await holds({ owned: true })).toBe(true);
  expect(await holds({ pending: 1, closed: true })).toBe(false);
});

test("what is no schedule, what no worker has, and a flow that takes no starts are refused, and nothing is written", async () => {
  const count = async () => (await sql`select count(*)::int as n from flowledger.executions`)[0];
  const by = { actor: "ann" };
  const before = await count();
  await using visitor = visiting(database);
  {
    await using worker = await serving(database, [], { schedules });
    await worker.pauseFlow("run.report", { intake: "refuse", actor: "ann", reason: "INC-1" });
    expect(await refusal(visitor.runSchedule("weekly report", by))).toBeInstanceOf(FlowPausedError);
    await worker.unpauseFlow("run.report", { actor: "ann", reason: "it is over" });
    expect(await refusal(visitor.runSchedule("weekly reprot", by))).toMatchObject({
      message: expect.stringMatching(/no schedule "weekly reprot" here: did you mean "weekly report"\?/),
    });
    expect(await refusal(visitor.runSchedule("nothing like it", by))).toMatchObject({
      message: expect.stringMatching(/known are .*weekly report/),
    });
    for (const options of [{}, { actor: "" }, { actor: "ann", reason: "" }, { actor: "ann", raeson: "x" }])
      expect(await refusal(visitor.runSchedule("weekly report", options as never))).toBeInstanceOf(UsageError);
  }
  expect(await refusal(visitor.runSchedule("weekly report", by))).toMatchObject({
    code: "USAGE_INVALID",
    message: expect.stringMatching(/no worker has schedule "weekly report": start a worker that has it/),
  });
  expect(await count()).toEqual(before);
});
