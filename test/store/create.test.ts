/** Creating executions by the thousand: keys, delays, and the jobs that come with them. */
import { expect, test } from "vitest";
import type { Json } from "../../src/base/json.ts";
import { testDatabase } from "../support/database.ts";
import { expectGuarantees, ledgerOf, newExecution } from "../support/ledger.ts";
import type { CreateResult } from "../../src/store/starts.ts";
import { storeOn } from "../support/store.ts";

const database = await testDatabase();
const { sql } = database;

test("an execution with an input is started in the same statement, one without is only created", async () => {
  const [started, created] = await storeOn(sql).starts.create([
    newExecution({ input: { n: 1 } }),
    newExecution({ input: undefined }),
  ]);

  expect(await ledgerOf(sql, id(started))).toEqual(["execution.created", "execution.started"]);
  expect(await ledgerOf(sql, id(created))).toEqual(["execution.created"]);
  for (const made of [started, created]) await expectGuarantees(sql, id(made));
});

test.each<[string, Json]>([
  ["null", null],
  ["a text", 'it\'s "quoted" \\ {}'],
  ["an empty object", {}],
  ["0", 0],
  ["false", false],
  ["a list", [1, [null]]],
  ["a key that looks like an option", { k: 1, t: false, i: "x" }],
])("an input that is %s comes back as it went", async (_, input) => {
  const [made] = await storeOn(sql).starts.create([newExecution({ input })]);

  expect((await storeOn(sql).reads.history(id(made), 1, null)).map(({ event }) => event)).toEqual([
    { type: "execution.started", input },
  ]);
});

test("settings, metadata and resource keys come back as they went", async () => {
  const metadata = { tenant: "ann", "odd key'\"": [1, null] };
  const [made] = await storeOn(sql).starts.create([
    newExecution({ metadata, settings: { autoCloseMs: null, concurrency: 3 }, resourceKeys: ["db"] }),
  ]);

  expect((await storeOn(sql).reads.history(id(made), 0, ["execution.created"])).map(({ event }) => event)).toEqual([
    {
      type: "execution.created",
      flow: "f",
      settings: { autoCloseMs: null, concurrency: 3 },
      metadata,
      resourceKeys: ["db"],
    },
  ]);
});

test("the same key with the same input gives the same execution, once", async () => {
  const make = () => newExecution({ idempotencyKey: "same", input: { a: 1, b: 2 } });
  const [first] = await storeOn(sql).starts.create([make()]);

  const [again] = await storeOn(sql).starts.create([newExecution({ idempotencyKey: "same", input: { b: 2, a: 1 } })]);

  expect(first).toMatchObject({ isNew: true, isConflict: false });
  expect(again).toMatchObject({ id: first?.id, isNew: false, isConflict: false });
  expect(await ledgerOf(sql, id(first))).toHaveLength(2);
});

test("the same key with another input is a conflict, and names the execution that has it", async () => {
  const [first] = await storeOn(sql).starts.create([newExecution({ idempotencyKey: "other", input: 1 })]);

  const [again] = await storeOn(sql).starts.create([newExecution({ idempotencyKey: "other", input: 2 })]);

  expect(again).toMatchObject({ id: first?.id, isNew: false, isConflict: true });
});

test("the same key in another flow is another execution", async () => {
  const results = await storeOn(sql).starts.create([
    newExecution({ idempotencyKey: "flows" }),
    newExecution({ idempotencyKey: "flows", flow: "g" }),
  ]);

  expect(results.map(({ isNew }) => isNew)).toEqual([true, true]);
});

test("a start with a key leaves the execution of another flow alone that was created with the same", async () => {
  const { starts } = storeOn(sql);
  const [created] = await starts.create([newExecution({ idempotencyKey: "waits", flow: "g", input: undefined })]);

  const [started] = await starts.create([newExecution({ idempotencyKey: "waits" })]);

  expect(started).toMatchObject({ isNew: true });
  expect(await ledgerOf(sql, id(created))).toEqual(["execution.created"]);
});

test("a key whose execution ended before it was started is a conflict, and holds up nobody in its batch", async () => {
  const { starts } = storeOn(sql);
  const [created] = await starts.create([newExecution({ idempotencyKey: "over", input: undefined })]);
  await sql`select flowledger.cancel(${id(created)}::uuid)`;

  const [again, other] = await starts.create([newExecution({ idempotencyKey: "over" }), newExecution()]);

  expect(again).toMatchObject({ id: created?.id, isNew: false, isConflict: true });
  expect(other).toMatchObject({ isNew: true });
  expect(await ledgerOf(sql, id(created))).not.toContain("execution.started");
});

test("what ended before a worker took it is not looked at again when it would have been discarded", async () => {
  const [created] = await storeOn(sql).starts.create([newExecution({ discardAfter: 60_000 })]);

  await sql`select flowledger.cancel(${id(created)}::uuid)`;

  expect(await sql`select discard_at from flowledger.executions where id = ${id(created)}`).toEqual([
    { discard_at: null },
  ]);
});

test("what was sealed and then cancelled before anybody took it says of its corrections what an owner would", async () => {
  const [created] = await storeOn(sql).starts.create([newExecution({ settings: { interventionMode: "auto" } })]);
  await sql`select flowledger.intervene(${id(created)}::uuid, '1')`;
  await sql`select flowledger.seal(${id(created)}::uuid)`;

  await sql`select flowledger.cancel(${id(created)}::uuid)`;

  expect((await ledgerOf(sql, id(created))).slice(2)).toEqual([
    "intervention.recorded",
    "execution.sealed",
    "cancel.requested",
    "intervention.expired",
    // The close that they expire with.
    "execution.sealed",
    "execution.closed",
  ]);
  await expectGuarantees(sql, id(created));
});

test("a key twice in one batch makes one execution, and answers in order", async () => {
  const results = await storeOn(sql).starts.create([
    newExecution(),
    newExecution({ idempotencyKey: "twice", input: 1 }),
    newExecution({ idempotencyKey: "twice", input: 1 }),
    newExecution({ idempotencyKey: "twice", input: 2 }),
  ]);

  expect(results.map(({ isNew, isConflict }) => [isNew, isConflict])).toEqual([
    [true, false],
    [true, false],
    [false, false],
    [false, true],
  ]);
  expect(new Set(results.slice(1).map((result) => result.id)).size).toBe(1);
});

test("a key in two transactions at once makes one execution", async () => {
  for (let round = 0; round < 10; round++) {
    const results = await Promise.all(
      Array.from({ length: 4 }, () =>
        storeOn(sql).starts.create([newExecution({ idempotencyKey: `race ${round}`, input: round })]),
      ),
    );

    const made = results.flat();
    expect(new Set(made.map((result) => result.id)).size).toBe(1);
    expect(made.filter(({ isNew }) => isNew)).toHaveLength(1);
    expect(made.some(({ isConflict }) => isConflict)).toBe(false);
  }
});

test("a key whose first transaction rolled back is free again", async () => {
  const attempt = sql.begin(async (tx) => {
    await storeOn(tx).starts.create([newExecution({ idempotencyKey: "rolled back" })]);
    throw new Error("no");
  });
  await expect(attempt).rejects.toThrow("no");

  const [made] = await storeOn(sql).starts.create([newExecution({ idempotencyKey: "rolled back" })]);

  expect(made?.isNew).toBe(true);
});

test("an id that is taken makes nothing new, and nobody's execution is changed", async () => {
  const mine = newExecution({ input: "mine" });
  await storeOn(sql).starts.create([mine]);

  const [again] = await storeOn(sql).starts.create([newExecution({ id: mine.id, input: "yours" })]);

  expect(again).toMatchObject({ id: mine.id, isNew: false });
  expect((await storeOn(sql).reads.history(mine.id, 1, null)).map(({ event }) => event)).toEqual([
    { type: "execution.started", input: "mine" },
  ]);
});

test("delay and startAt set when it wakes, by the database's clock, and its job runs then", async () => {
  const at = new Date(Date.now() + 3_600_000);
  const [delayed, dated, past] = await storeOn(sql).starts.create([
    newExecution({ delayMs: 90_000 }),
    newExecution({ startAt: at }),
    newExecution({ startAt: new Date(0) }),
  ]);

  const rows = await sql<{ delay: number; wake: Date; due: boolean; job: boolean }[]>`
    select round(extract(epoch from e.wake_at - e.created_at))::int as delay, e.wake_at as wake, e.wake_at <= clock_timestamp() as due,
      exists (select 1 from flowledger_jobs._private_jobs j where j.payload::jsonb ? e.id::text and j.run_at >= e.wake_at) as job
    from unnest(${[id(delayed), id(dated), id(past)]}::uuid[]) with ordinality as x(id, ord)
    join flowledger.executions e on e.id = x.id order by x.ord`;

  expect(rows[0]).toMatchObject({ delay: 90, due: false, job: true });
  expect(rows[1]).toMatchObject({ wake: at, due: false, job: true });
  expect(rows[2]).toMatchObject({ due: true, job: true });
});

test("a thousand executions get their jobs in groups of 25, by flow and priority", async () => {
  await using many = await testDatabase();
  const executions = Array.from({ length: 1000 }, (_, n) =>
    newExecution({ flow: n % 2 ? "odd" : "even", priority: n < 100 ? 5 : 0 }),
  );

  await storeOn(many.sql).starts.create(executions);

  const jobs = await many.sql<{ task: string; priority: number; ids: string[] }[]>`
    select t.identifier as task, j.priority, j.payload as ids
    from flowledger_jobs._private_jobs j join flowledger_jobs._private_tasks t on t.id = j.task_id`;
  expect(jobs.map(({ ids }) => ids.length).toSorted((a, b) => a - b)).toEqual(Array.from({ length: 40 }, () => 25));
  expect(new Set(jobs.map(({ task, priority }) => `${task} ${priority}`))).toEqual(
    new Set(["flowledger:odd 0", "flowledger:odd 5", "flowledger:even 0", "flowledger:even 5"]),
  );
  expect(jobs.flatMap(({ ids }) => ids).toSorted()).toEqual(executions.map((execution) => execution.id).toSorted());
});

test("an empty batch makes nothing", async () => {
  expect(await storeOn(sql).starts.create([])).toEqual([]);
});

function id(made: CreateResult | undefined) {
  if (!made) throw new Error("nothing was made");
  return made.id;
}
