/** A person's right to be forgotten: closed executions are removed by name, by whom and why is kept. */
import { expect, test } from "vitest";
import { defineFlow, ExecutionNotFoundError, UsageError } from "../../src/index.ts";
import { runCli } from "../support/cli.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, serving, untilEvent } from "../support/flows.ts";
import { kit } from "../support/kit.ts";

const database = await testDatabase();
const { sql } = database;
const child = defineFlow("forgotten-child");
child.to("pass", (ctx) => ctx.input);
const parent = defineFlow("forgotten");
parent.toSubFlow(child);
const asks = defineFlow("asks-first");
asks.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }));
const outer = defineFlow("waits-for-child");
outer.toSubFlow(asks);
const why = { actor: "privacy desk", reason: "request 17" };

async function left(): Promise<unknown> {
  const [row] = await sql`
    select (select count(*)::int from flowledger.executions) as executions, (select count(*)::int from flowledger.ledger) as events,
      (select count(*)::int from flowledger.chain) as links, (select count(*)::int from flowledger.prunes) as prunes`;
  return row;
}

test("named executions go with their sub-flows, and who asked for it stays", async () => {
  await using orchestrator = await serving(database, [parent]);
  const stays = await orchestrator.flow(parent).startExecution("b", { autoCloseTimeout: 0 });
  await stays.waitForClose();
  const before = await left();
  const goes = await orchestrator.flow(parent).startExecution("a", { autoCloseTimeout: 0 });
  await goes.waitForClose();

  const pruned = await orchestrator.prune({ ids: [goes.id, goes.id], ...why });

  expect(pruned.executions).toBe(2);
  expect(await left()).toEqual({ ...(before as object), prunes: 2 });
  const rows = await sql`select actor, reason, first, last, executions from flowledger.prunes order by first`;
  expect(rows[0]).toEqual({ ...why, first: goes.id, last: goes.id, executions: 1 });
  await expect(orchestrator.getExecution(goes.id)).rejects.toThrow(ExecutionNotFoundError);
  expect(await orchestrator.verify()).toEqual([]);
});

test("what is open, is not there, or belongs to an open parent is refused by name, and nothing goes", async () => {
  await using orchestrator = await serving(database, [parent, outer]);
  const closed = await orchestrator.flow(parent).startExecution("a", { autoCloseTimeout: 0 });
  await closed.waitForClose();
  const open = await orchestrator.flow(outer).startExecution(null, { autoClose: false });
  const { child: sub } = await untilEvent(open, "child.started");
  // The parent says so before the child is there.
  await expect.poll(() => open.getSubFlowFrames()).toHaveLength(1);
  const nobody = "01890000-0000-7000-8000-000000000000";
  const before = await left();

  await expect(orchestrator.prune({ ids: [closed.id, open.id], ...why })).rejects.toThrow(
    new RegExp(`${open.id} is open`),
  );
  await expect(orchestrator.prune({ ids: [closed.id, sub], ...why })).rejects.toThrow(/while its parent is open/);
  await expect(orchestrator.prune({ ids: [closed.id, nobody], ...why })).rejects.toMatchObject({
    constructor: ExecutionNotFoundError,
    message: expect.stringContaining(nobody) as string,
  });
  for (const wrong of [
    { ids: [], ...why },
    { ids: [closed.id], actor: "", reason: "r" },
    { ids: [closed.id], actor: "a", reason: "" },
    { ids: [closed.id], actor: "limit", reason: "r" },
    { ids: [closed.id], ...why, closedBefore: new Date() },
  ])
    await expect(orchestrator.prune(wrong)).rejects.toThrow(UsageError);
  await expect(sql`select flowledger.prune(array[${closed.id}::uuid], null, 'r')`).rejects.toMatchObject({
    code: "FL008",
  });
  // The open one goes on meanwhile.
  const { executions, prunes } = before as { executions: number; prunes: number };
  expect(await left()).toMatchObject({ executions, prunes });
  expect(await orchestrator.verify()).toEqual([]);
});

test("what went is in no table but those that say so", async () => {
  await using orchestrator = await serving(database, [asks]);
  const asked = await orchestrator.flow(asks).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(asked, "interrupt.raised");
  const by = { actor: "ann", reason: "INC-12" };
  const bulk = await orchestrator.bulk({ action: "cancel", where: { idPrefix: asked.id }, ...by });
  expect(await bulk.wait()).toMatchObject({ done: 1 });
  await Promise.allSettled([asked.waitForClose(), bulk.execution.waitForClose()]);

  await orchestrator.prune({ ids: [asked.id, bulk.id], ...why });

  const tables = await sql<{ name: string }[]>`
    select c.table_name as name from information_schema.columns c
    join information_schema.tables t on t.table_schema = c.table_schema and t.table_name = c.table_name and t.table_type = 'BASE TABLE'
    where c.table_schema = 'flowledger' and c.column_name = 'execution_id' order by 1`;
  const left = [];
  for (const { name } of tables)
    if (
      (await sql`select from ${sql(`flowledger.${name}`)} where execution_id in ${sql([asked.id, bulk.id])}`).length > 0
    )
      left.push(name);
  expect(tables.length).toBeGreaterThan(9);
  expect(left).toEqual([]);
});

test("what somebody else prunes meanwhile is not there, and nothing else goes", async () => {
  await using orchestrator = await serving(database, [parent]);
  const [one, other] = [
    await orchestrator.flow(parent).startExecution("a", { autoCloseTimeout: 0 }),
    await orchestrator.flow(parent).startExecution("b", { autoCloseTimeout: 0 }),
  ];
  for (const execution of [one, other]) await execution.waitForClose();

  const late = await sql.begin(async (first) => {
    await first`select flowledger.prune(array[${one.id}::uuid], 'ann', 'r')`;
    const second = refusal(orchestrator.prune({ ids: [one.id, other.id], ...why }));
    const waiting = () => sql`
      select from pg_stat_activity where wait_event_type = 'Lock' and query like '%flowledger.prune(%' and datname = current_database()`;
    await expect.poll(async () => (await waiting()).length).toBe(1);
    return { second };
  });

  expect(await late.second).toMatchObject({ code: "EXECUTION_NOT_FOUND", message: expect.stringContaining(one.id) });
  expect((await orchestrator.prune({ ids: [other.id], ...why })).executions).toBe(2);
});

test("the command takes ids, or an age, not both", async () => {
  await using orchestrator = await serving(database, [parent]);
  const closed = await orchestrator.flow(parent).startExecution("a", { autoCloseTimeout: 0 });
  await closed.waitForClose();
  const run = (...args: string[]) => runCli(database.url, "prune", ...args);

  const both = await run("--id", closed.id, "--closed-before", "2020-01-01", "--actor", "a", "--reason", "r");
  const none = await run();
  const done = await run("--id", closed.id, "--actor", "a", "--reason", "r");

  expect([both.code, none.code, done.code]).toEqual([2, 2, 0]);
  expect(both.stderr).toContain("not both");
  expect(none.stderr).toContain("--closed-before");
  expect(done.stdout).toContain("removed 2 executions");
});

/** A flow that called, or distributed, and then failed; it goes on when it is mended, and waits for a day first. */
function families() {
  const state = { isMended: false, ran: [] as string[] };
  const called = defineFlow("kept-child").to("work", async (ctx) => {
    state.ran.push("called");
    await ctx.setResult(7);
  });
  const calls = defineFlow("kept-calls").to("call", async (ctx) => {
    const value = await ctx.call(called, null);
    if (!state.isMended) throw new Error("down");
    await ctx.sleep("1d");
    await ctx.setState("value", value);
  });
  const distributes = defineFlow("kept-items");
  distributes
    .to("list", () => [1, 2])
    .forEach({ distribute: true })
    .to("item", async (ctx) => {
      if (ctx.input === 2) {
        if (!state.isMended) throw new Error("down");
        await ctx.sleep("1d");
      } else state.ran.push("item");
      await ctx.setState(`item${String(ctx.input)}`, true);
      return ctx.input;
    })
    .endForEach();
  return { state, called, families: [calls, distributes] };
}

const ends: Record<string, object> = { "kept-calls": { value: 7 }, "kept-items": { item1: true, item2: true } };

test("an open redrive keeps what it goes on from: nothing of it runs again, and nothing is missing", async () => {
  const { state, called, families: flows } = families();
  await using t = await kit({ flows: [called, ...flows] });
  const failed = await Promise.all(flows.map((flow) => t.start(flow, null, { autoCloseTimeout: 0 })));
  await t.settle();
  state.isMended = true;
  const redriven = await Promise.all(failed.map((execution) => execution.redrive({ actor: "ann", reason: "mended" })));
  await t.clock.advance("1h");

  // Only those that were redriven.
  expect((await t.orchestrator.prune({ closedBefore: t.clock.now() })).executions).toBe(2);
  const { executions: kept } = await t.orchestrator.listExecutions({ status: "completed" });
  for (const { id } of kept)
    await expect(t.orchestrator.prune({ ids: [id], ...why })).rejects.toThrow(
      /cannot be pruned while a copy of what called it/,
    );
  await t.clock.advance("2d");

  for (const execution of redriven) expect(await execution.waitForClose()).toEqual(ends[execution.flow]);
  expect(state.ran.toSorted()).toEqual(["called", "item"]);
  await t.orchestrator.prune({ closedBefore: t.clock.now() });
  expect((await t.orchestrator.countExecutions({ flow: [called.name, ...flows.map(({ name }) => name)] })).count).toBe(
    0,
  );
  expect(await t.orchestrator.verify()).toEqual([]);
});

test("by age a child stays as long as its parent, which can so be redriven; without one that was named it cannot", async () => {
  const { state, called, families: flows } = families();
  await using t = await kit({ flows: [called, ...flows] });
  const failed = await Promise.all(flows.map((flow) => t.start(flow, null, { autoCloseTimeout: 0 })));
  await t.clock.advance("1h");
  state.isMended = true;

  expect((await t.orchestrator.prune({ closedBefore: t.clock.now(), keep: { status: ["failed"] } })).executions).toBe(
    0,
  );
  const redriven = await Promise.all(failed.map((execution) => execution.redrive({ actor: "ann", reason: "mended" })));
  await t.clock.advance("2d");
  for (const execution of redriven) expect(await execution.waitForClose()).toEqual(ends[execution.flow]);
  expect(state.ran.toSorted()).toEqual(["called", "item"]);

  for (const { id } of failed) {
    const { executions } = await t.orchestrator.listExecutions({ parent: id, status: "completed" });
    await t.orchestrator.prune({ ids: executions.map((one) => one.id), ...why });
  }
  for (const execution of failed)
    await expect(execution.redrive({ actor: "ann", reason: "again" })).rejects.toThrow(
      /no longer exists|was pruned: it would run again/,
    );
});
