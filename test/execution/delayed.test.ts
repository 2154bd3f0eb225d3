/** What waits for its time: a start that is delayed holds what comes in behind it, and what nobody takes in time is discarded. */
import { setTimeout as sleep } from "node:timers/promises";
import type postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import type { CreateOptions, Execution } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, refusal, serving, untilEvent, visiting } from "../support/flows.ts";
import { expectGuarantees } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;

/** What ran, outside of the database. */
const ran: string[] = [];
const later = defineFlow("later", { input: z.string() });
later.to("begin", (ctx) => {
  ran.push(ctx.input);
  return ctx.appendState("order", "start");
});
later.when("Note").to("note", (ctx) => {
  ran.push(`note of ${ctx.execution.id}`);
  return ctx.appendState("order", "note");
});
const orchestrator = await serving(database, [later]);
afterAll(() => orchestrator.close());
const flow = orchestrator.flow(later);

/** Seconds until it wakes up, when no worker has it; null when only something from outside wakes it. */
async function wakesIn(id: string): Promise<number | null> {
  await expect.poll(async () => (await header(id)).owner).toBeNull();
  return (await header(id)).wakes;
}

async function header(id: string): Promise<{ owner: string | null; wakes: number | null; seq: number; jobs: number }> {
  const [row] = await sql<[{ owner: string | null; wakes: number | null; seq: number; jobs: number }]>`
    select owner, extract(epoch from wake_at - now())::float8 as wakes, seq, (
      select count(*)::int from flowledger_jobs._private_jobs j where j.payload::jsonb ? e.id::text and j.is_available) as jobs
    from flowledger.executions e where id = ${id}`;
  return row;
}

const doors = [
  {
    door: "library",
    emit: (execution: Execution) => execution.emit("Note", 1),
    intervene: (execution: Execution) => execution.intervene("slower"),
    seal: (execution: Execution) => execution.seal(),
    close: (execution: Execution) =>
      refusal(execution.close({ timeout: 1 })).then((error) => expect(error).toMatchObject({ code: "DRAIN_TIMEOUT" })),
  },
  {
    door: "SQL",
    emit: ({ id }: Execution) => sql`select flowledger.emit(${id}, 'Note', '1')`,
    intervene: ({ id }: Execution) => sql`select flowledger.intervene(${id}, '"slower"')`,
    seal: ({ id }: Execution) => sql`select flowledger.seal(${id})`,
    close: ({ id }: Execution) => sql`select flowledger.close(${id})`,
  },
];
const commands = ["emit", "intervene", "seal", "close"] as const;
const atOnce = { interventionMode: "planned", autoCloseTimeout: 0 } as const;

describe.each(doors)("by $door", (door) => {
  test.each(commands)("a start that is delayed is not begun by %s", async (command) => {
    const open = { interventionMode: "planned", autoClose: false } as const;
    const delayed = await flow.startExecution("too early", { ...open, delay: "1h" });
    const dated = await flow.startExecution("too early", { ...open, startAt: new Date(Date.now() + 3_600_000) });
    const created = await flow.createExecution({ ...open, delay: "1h" });
    await created.start("too early");

    for (const execution of [delayed, dated, created]) await door[command](execution);
    await flow.start("a start that is not delayed, behind those", { autoCloseTimeout: 0 });

    for (const { id } of [delayed, dated, created]) {
      expect(await wakesIn(id)).toBeGreaterThan(3500);
      expect(await sql`select seq from flowledger.ledger where execution_id = ${id} and epoch > 0`).toEqual([]);
    }
    expect(ran).not.toContain("too early");
  });

  test("what came in meanwhile runs behind the start, once its time has come", async () => {
    const execution = await flow.startExecution("late", { ...atOnce, delay: "800ms" });
    await door.emit(execution);

    const snapshot = await execution.waitForClose();

    expect(snapshot).toEqual({ order: ["start", "note"] });
    const [started] = await execution.history({ types: ["execution.started"] });
    const [claimed] = await execution.history({ types: ["execution.claimed"] });
    expect(Number(claimed?.at)).toBeGreaterThanOrEqual(Number(started?.at) + 800);
    expect(ran.filter((one) => one === "late")).toHaveLength(door.door === "library" ? 1 : 2);
    await expectGuarantees(sql, execution.id);
  });

  test("a cancel does not wait for the time of a start, whatever came in before", async () => {
    const execution = await flow.startExecution("never", { ...atOnce, delay: "1h" });
    await door.emit(execution);
    await door.intervene(execution);

    await (door.door === "SQL" ? sql`select flowledger.cancel(${execution.id})` : execution.cancel());

    expect(await execution.result.getMeta()).toMatchObject({ status: "cancelled", lifecycleState: "closed" });
    expect((await header(execution.id)).jobs).toBeLessThanOrEqual(1);
    await expectGuarantees(sql, execution.id);
  });
});

test("a worker that looks at a delayed start before its time gives it back, and does not begin", async () => {
  const execution = await flow.startExecution("too early", { delay: "1h" });

  await sql`update flowledger.executions set wake_at = now() where id = ${execution.id}`;
  await sql`select flowledger.add_jobs(array[${execution.id}]::uuid[])`;
  await untilEvent(execution, "execution.claimed");

  expect(await wakesIn(execution.id)).toBeGreaterThan(3500);
  expect(await execution.history({ types: ["inbox.routed"] })).toEqual([]);
});

test.each([{ delay: "2h" }, { startAt: new Date(Date.now() + 3_600_000) }] satisfies CreateOptions[])(
  "createExecution(%j) keeps that for the start that follows, through every door",
  async (time) => {
    const options = { ...time, autoClose: false };
    const [here, bySql] = [await flow.createExecution(options), await flow.createExecution(options)];
    const key = `created with ${JSON.stringify(time)}`;
    const keyed = await flow.createExecution({ ...options, idempotencyKey: key });

    await here.start("kept");
    await sql`select flowledger.start_execution(${bySql.id}, '"kept"')`;
    const started = await flow.startExecution("kept", { idempotencyKey: key });

    expect(started.id).toBe(keyed.id);
    for (const { id } of [here, bySql, keyed]) {
      const [row] = await sql<[{ wait: number; due: boolean }]>`
        select extract(epoch from e.wake_at - e.created_at)::float8 as wait, e.wake_at = e.due_at as due from flowledger.executions e where e.id = ${id}`;
      expect(row.due).toBe(true);
      expect(row.wait).toBeGreaterThan("delay" in time ? 7190 : 3500);
      expect(await orchestrator.verify({ id })).toEqual([]);
    }
  },
);

test.each([
  ["1h", "2h"],
  ["2h", "1h"],
])("a start that is delayed itself begins at the later of both times: %s, then %s", async (created, delay) => {
  const idempotencyKey = `both ${created}`;
  const { id } = await flow.createExecution({ delay: created, idempotencyKey });

  await flow.startExecution("x", { idempotencyKey, delay });

  expect(await wakesIn(id)).toBeGreaterThan(7100);
});

test("events run before a start that only they are not delayed by, and what comes behind it waits", async () => {
  const execution = await flow.createExecution({ delay: "1h", autoClose: false });
  await execution.emit("Note", 1);
  await untilEvent(execution, "chunk.completed");

  await execution.start("too early");
  await execution.emit("Note", 2);

  expect(await wakesIn(execution.id)).toBeGreaterThan(3500);
  expect(await execution.result.getState("order")).toEqual(["note"]);
});

test("a fork and a load of a delayed start wait for the same time", async () => {
  const source = await flow.startExecution("too early", { delay: "1h" });
  await source.emit("Note", 1);

  const copies = [
    await source.fork({ at: 2 }),
    await source.fork({ at: 3 }),
    await orchestrator.load(await source.save()),
  ];

  for (const { id } of copies) {
    expect(await wakesIn(id)).toBeGreaterThan(3500);
    expect(await sql`select seq from flowledger.ledger where execution_id = ${id} and type = 'inbox.routed'`).toEqual(
      [],
    );
    expect(await orchestrator.verify({ id })).toEqual([]);
    await sql`select flowledger.emit(${id}, 'Note', '2')`;
    expect(await wakesIn(id)).toBeGreaterThan(3500);
  }
  expect(ran).not.toContain("too early");
});

test("a header that is gone is rebuilt with the times that it waits for", async () => {
  const started = await flow.startExecution("too early", { delay: "1h", discardAfter: "2h" });
  const created = await flow.createExecution({ delay: "1h", discardAfter: "2h" });
  const look = (id: string) => sql`select due_at, discard_at, wake_at from flowledger.executions where id = ${id}`;
  for (const { id } of [started, created]) {
    const before = [...(await look(id))];
    await sql`delete from flowledger.executions where id = ${id}`;

    expect(await orchestrator.rebuild({ id })).toHaveLength(1);

    expect([...(await look(id))]).toEqual(before);
    expect(await orchestrator.verify({ id })).toEqual([]);
  }
  await sql`update flowledger.executions set due_at = null where id = ${started.id}`;
  expect(await orchestrator.verify({ id: started.id })).toMatchObject([{ invariant: "I3" }]);
});

test("an execution that gets events but no start closes when it has been idle", async () => {
  const idle = await flow.createExecution({ autoCloseTimeout: "600ms" });
  const untouched = await flow.createExecution({ autoCloseTimeout: "600ms" });
  await idle.emit("Note", 1);
  await sleep(300);
  await sql`select flowledger.emit(${idle.id}, 'Note', '2')`;

  expect(await idle.waitForClose()).toEqual({ order: ["note", "note"] });

  const { closeReason, closedAt } = await idle.result.getMeta();
  const last = (await idle.history({ types: ["chunk.completed"] })).at(-1);
  expect(closeReason).toBe("auto_close_idle_timeout");
  expect(Number(closedAt)).toBeGreaterThanOrEqual(Number(last?.at) + 600);
  expect(await untouched.result.getMeta()).toMatchObject({ lifecycleState: "open", status: "created" });
});

describe("discardAfter", () => {
  const busy = newGate();
  const narrow = defineFlow("narrow", { input: z.string() }, { limits: { concurrency: 1 } });
  narrow.to("hold", async (ctx) => {
    ran.push(ctx.input);
    await busy.passed;
  });

  test.each(["library", "SQL"])(
    "what is queued for a limit is discarded on its time, also without a free slot, by %s",
    async (door) => {
      await using limited = await serving(database, [narrow]);
      const holding = await limited.flow(narrow).startExecution("holds the slot", { autoCloseTimeout: 0 });
      await expect.poll(() => ran).toContain("holds the slot");
      const options = { discardAfter: "1500ms", autoCloseTimeout: 0 };
      const late =
        door === "library"
          ? await limited.flow(narrow).startExecution("too late", options)
          : await limited.getExecution(await startBySql(sql, "narrow", "too late", options));

      await expect.poll(() => sql`select 1 from flowledger.slots where execution_id = ${late.id}`).toHaveLength(1);
      expect(await isAwaitedThen(late.id)).toBe(true);
      const error = await refusal(late.waitForClose());

      expect(error).toMatchObject({ code: "EXECUTION_CANCELLED" });
      const { closeReason, createdAt, closedAt } = await late.result.getMeta();
      expect(closeReason).toBe("discarded");
      expect(Number(closedAt) - Number(createdAt)).toBeGreaterThanOrEqual(1500);
      expect(await sql`select 1 from flowledger.slots where execution_id = ${late.id}`).toEqual([]);
      expect(ran).not.toContain("too late");
      await expectGuarantees(sql, late.id);
      await holding.cancel();
      await refusal(holding.waitForClose());
      ran.length = 0;
    },
  );

  test("what was created and is never started is discarded, and what was started in time is not", async () => {
    const never = await flow.createExecution({ discardAfter: "1s", interventionMode: "planned" });
    await never.intervene("for nobody");
    expect(await isAwaitedThen(never.id)).toBe(true);
    const inTime = await flow.createExecution({ discardAfter: "30s", autoCloseTimeout: 0 });
    await inTime.start("in time");

    expect(await refusal(never.waitForClose())).toMatchObject({ code: "EXECUTION_CANCELLED" });

    expect(await never.result.getMeta()).toMatchObject({ closeReason: "discarded", startedAt: null });
    expect(await refusal(never.start("too late"))).toMatchObject({ code: "EXECUTION_CLOSED" });
    expect(await inTime.result.getMeta()).toMatchObject({ status: "completed" });
    for (const { id } of [never, inTime]) await expectGuarantees(sql, id);
  });

  test("a start that is discarded before it would begin has its job for that", async () => {
    const nobodys = defineFlow("nobodys.late", { input: z.string() });
    nobodys.to("never", () => null);
    await using outside = visiting(database, [nobodys]);
    const options = { delay: "2h", discardAfter: "1h" };
    const started = await outside.flow(nobodys).startExecution("x", options);
    const ids = [started.id, await startBySql(sql, "nobodys.late", "x", { ...options, allowUnknown: true })];

    for (const id of ids) expect(await isAwaitedThen(id)).toBe(true);
    for (const id of ids) await sql`select flowledger.reschedule_function(${id}, null, 10800000)`;
    expect(
      await sql`select wake_at = discard_at as waits from flowledger.executions where id = any(${ids}::uuid[])`,
    ).toEqual([{ waits: true }, { waits: true }]);
    for (const id of ids) await sql`select flowledger.cancel(${id})`;
  });

  test("a delayed start that something came in for is discarded before its time", async () => {
    const execution = await flow.startExecution("never", { delay: "1h", discardAfter: "500ms" });
    await execution.emit("Note", 1);

    expect(await refusal(execution.waitForClose())).toMatchObject({ code: "EXECUTION_CANCELLED" });

    expect(await execution.result.getMeta()).toMatchObject({ closeReason: "discarded" });
    expect(ran).not.toContain("never");
    await expectGuarantees(sql, execution.id);
  });

  test("a sweep discards what lost its job, without a worker for its flow, and leaves what a worker has taken", async () => {
    const nobodys = defineFlow("nobodys", { input: z.string() });
    nobodys.to("never", () => null);
    await using outside = visiting(database, [nobodys]);
    const lost = await outside.flow(nobodys).startExecution("x", { discardAfter: "1ms" });
    await sql`delete from flowledger_jobs._private_jobs where payload::jsonb ? ${lost.id}`;
    const taken = await flow.startExecution("taken", { discardAfter: "1h", autoClose: false });
    await untilEvent(taken, "execution.claimed");
    // From then on nothing asks whether it is to be discarded.
    expect(await sql`select discard_at from flowledger.executions where id = ${taken.id}`).toEqual([
      { discard_at: null },
    ]);

    await sql`select flowledger.sweep(5000)`;

    expect(await lost.result.getMeta()).toMatchObject({ closeReason: "discarded", lifecycleState: "closed" });
    expect(await taken.result.getMeta()).toMatchObject({ lifecycleState: "open" });
    await expectGuarantees(sql, lost.id);
  });

  test("a copy is not discarded by a time that was over, and by one that is to come", async () => {
    const nobody = defineFlow("nobody", { input: z.string() });
    nobody.to("never", () => null);
    await using outside = visiting(database, [nobody]);
    const source = await outside.flow(nobody).startExecution("x", { discardAfter: "1ms", autoCloseTimeout: 0 });
    const other = await outside.flow(nobody).startExecution("x", { discardAfter: "1h", autoCloseTimeout: 0 });
    await sleep(5);

    const over = await source.fork({ at: 2 });
    const toCome = await other.fork({ at: 2 });

    const rows = await sql<{ id: string; kept: boolean }[]>`
      select id, discard_at is not null as kept from flowledger.executions where id = any(${[over.id, toCome.id]}::uuid[])`;
    await using _ = await serving(database, [nobody]);
    await Promise.all([over, toCome].map((copy) => copy.waitForClose()));
    expect(Object.fromEntries(rows.map(({ id, kept }) => [id, kept]))).toEqual({ [over.id]: false, [toCome.id]: true });
  });
});

/** A job comes at the time when it is discarded; a sweep would be late. */
async function isAwaitedThen(id: string): Promise<boolean> {
  const [row] = await sql<[{ comes: boolean }]>`
    select exists (
      select from flowledger_jobs._private_jobs j
      where j.payload::jsonb ? e.id::text and j.run_at between e.discard_at - interval '10 ms' and e.discard_at + interval '10 ms') as comes
    from flowledger.executions e where e.id = ${id}`;
  return row.comes;
}

async function startBySql(on: postgres.Sql, name: string, input: string, options: object): Promise<string> {
  const [row] = await on<[{ id: string }]>`
    select flowledger.start(${name}, ${JSON.stringify(input)}::text::jsonb, ${JSON.stringify(options)}::text::jsonb) as id`;
  return row.id;
}
