/** F56: what was done to a ledger behind our back shows, row by row. As a superuser would: with the triggers off. */
import { afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { readPages, findDifferences } from "../../src/store/rebuild.ts";
import { defineFlow } from "../../src/index.ts";
import type { Execution, Orchestrator } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { serving, visiting } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
let closed: Execution;
let waiting: Execution;
let orchestrator: Orchestrator;

const flow = defineFlow("tampered");
flow
  .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }))
  .to("keep", async (ctx) => await ctx.setState("answer", ctx.input));

beforeAll(async () => {
  await using worker = await serving(database, [flow]);
  const bound = worker.flow(flow);
  closed = await bound.startExecution(1, { autoCloseTimeout: 0 });
  waiting = await bound.startExecution(2, { autoCloseTimeout: 0 });
  for (const execution of [closed, waiting]) await untilPending(execution);
  await closed.continueWith("q", { approved: true }, { actor: "ann" });
  await closed.waitForClose();
});

beforeEach(async () => {
  orchestrator = visiting(database, [flow]);
  await sql`create table public.kept as select * from flowledger.ledger`;
  await sql`create table public.kept_chain as select * from flowledger.chain`;
});

afterEach(async () => {
  await tamper("delete from flowledger.ledger; insert into flowledger.ledger select * from public.kept");
  await tamper("delete from flowledger.chain; insert into flowledger.chain select * from public.kept_chain");
  await sql`drop table public.kept, public.kept_chain`;
  const left = await orchestrator.verify();
  await orchestrator.close();
  if (left.length > 0) throw new Error(`the ledger was not put back: ${JSON.stringify(left)}`);
});

async function tamper(statements: string): Promise<void> {
  await sql.unsafe(`
    alter table flowledger.ledger disable trigger all; alter table flowledger.chain disable trigger all;
    ${statements};
    alter table flowledger.ledger enable always trigger ledger_append_only; alter table flowledger.ledger enable always trigger ledger_no_truncate;
    alter table flowledger.chain enable always trigger chain_append_only; alter table flowledger.chain enable always trigger chain_no_truncate;`);
}

const at = (type: string) => `execution_id = '${closed.id}' and type = '${type}'`;

test.each([
  ["a payload", "set payload = jsonb_set(payload, '{value}', '{\"approved\": false}')", "was rewritten"],
  ["a time", "set at = at - interval '1 microsecond'", "was rewritten"],
  ["an actor", "set actor = 'bob'", "was rewritten"],
  ["a position", "set seq = 1000", "was deleted"],
])("F56: %s that was changed names its row", async (_, change, problem) => {
  const [row] = await sql<{ seq: number }[]>`
    select seq from flowledger.ledger where execution_id = ${closed.id} and type = 'interrupt.resumed'`;
  await tamper(`update flowledger.ledger ${change} where ${at("interrupt.resumed")}`);

  const found = await orchestrator.verify();

  expect(found).toContainEqual({
    invariant: "I21",
    executionId: closed.id,
    detail: `ledger row seq ${row?.seq} ${problem}`,
  });
  expect(new Set(found.map(({ executionId }) => executionId))).toEqual(new Set([closed.id]));
});

test("F56: whichever column of a row was changed, that row is named", async () => {
  const others: Record<string, (column: string) => string> = {
    integer: (column) => `coalesce(${column}, 0) + 1000`,
    text: (column) => `coalesce(${column}, '') || 'x'`,
    jsonb: (column) => `coalesce(${column}, '{}') || '{"x": 1}'`,
    "timestamp with time zone": (column) => `coalesce(${column}, at) + interval '1 microsecond'`,
  };
  const columns = await sql<{ name: string; type: string }[]>`
    select column_name as name, data_type as type from information_schema.columns
    where table_schema = 'flowledger' and table_name = 'ledger' and column_name not in ('execution_id', 'seq')`;
  const named: Record<string, number> = {};

  for (const { name, type } of columns) {
    await tamper(`update flowledger.ledger set ${name} = ${others[type]?.(name)} where ${at("interrupt.resumed")}`);
    const broken = await sql`select from flowledger.broken_chains(array[${closed.id}::uuid])`;
    named[name] = broken.length;
    await tamper("delete from flowledger.ledger; insert into flowledger.ledger select * from public.kept");
  }

  expect(columns.length).toBeGreaterThan(8);
  expect(named).toEqual(Object.fromEntries(columns.map(({ name }) => [name, 1])));
});

test("F56: a row that was deleted, and one that was put in, name themselves", async () => {
  await tamper(`delete from flowledger.ledger where ${at("interrupt.resumed")}`);
  const [last] = await sql<
    { seq: number }[]
  >`select max(seq) as seq from flowledger.ledger where execution_id = ${closed.id}`;
  await tamper(
    `insert into flowledger.ledger select execution_id, seq + 1, epoch, at, dispatch, 'state.set', chunk, actor, '{"key": "a", "value": 1}' from flowledger.ledger where ${at("execution.closed")}`,
  );

  const details = (await orchestrator.verify({ id: closed.id }))
    .filter(({ invariant }) => invariant === "I21")
    .map(({ detail }) => detail);

  expect(details).toEqual([
    expect.stringMatching(/^ledger row seq \d+ was deleted$/),
    `ledger row seq ${(last?.seq ?? 0) + 1} and what follows is in no link, but the execution is closed`,
  ]);
});

test("a link that is gone, or was made to fit, shows too; what people did is in the chain at once", async () => {
  const links = await sql<{ seq: number }[]>`
    select seq from flowledger.chain where execution_id = ${closed.id} order by seq`;
  const acts = await sql<{ seq: number }[]>`
    select seq from flowledger.ledger where execution_id = ${closed.id}
      and type in ('interrupt.raised', 'interrupt.resumed', 'execution.closed') order by seq`;
  await tamper(`delete from flowledger.chain where execution_id = '${closed.id}' and seq = ${acts[0]?.seq}`);
  const gone = await orchestrator.verify({ id: closed.id });
  await tamper(`update flowledger.chain set hash = sha256(hash) where execution_id = '${waiting.id}'`);
  const forged = await orchestrator.verify({ id: waiting.id });

  expect(links).toEqual(acts);
  expect(gone.map(({ invariant }) => invariant)).toContain("I21");
  expect(forged).toMatchObject([{ invariant: "I21", detail: expect.stringContaining("not what their link says") }]);
});

test("the chain refuses to be changed like the ledger", async () => {
  for (const statement of [
    "update flowledger.chain set seq = 1",
    "delete from flowledger.chain",
    "truncate flowledger.chain",
  ])
    await expect(sql.unsafe(statement)).rejects.toMatchObject({ code: "FL010" });
});

test("verify names a derived row by its column, and reads pages in between whatever else is written", async () => {
  await sql`update flowledger.interrupts set actor = 'bob' where execution_id = ${closed.id}`;

  const found = await orchestrator.verify();
  for await (const page of readPages(sql)) await findDifferences(sql, page, true);

  expect(found).toEqual([
    { invariant: "I3", executionId: closed.id, detail: 'interrupts row "q": actor is "bob", the ledger says "ann"' },
  ]);
});
