/** Every way to start: hidden, with a handle, many, in the caller's transaction, later, and once per key. */
import { drizzle as drizzleOnPg } from "drizzle-orm/node-postgres";
import { drizzle } from "drizzle-orm/postgres-js";
import pg from "pg";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { z } from "zod";
import { defineFlow, UsageError } from "../../src/index.ts";
import type { CreateOptions } from "../../src/index.ts";
import { administer, testDatabase } from "../support/database.ts";
import { refusal, serving, untilEvent, visiting } from "../support/flows.ts";
import { storeOn } from "../support/store.ts";

const database = await testDatabase();
const add = defineFlow("add", { input: z.object({ n: z.coerce.number(), more: z.number().default(1) }) });
add.to("sum", (ctx) => ctx.setState("sum", ctx.input.n + ctx.input.more));
const orchestrator = await serving(database, [add]);
afterAll(() => orchestrator.close());
const flow = orchestrator.flow(add);

async function count(id: string): Promise<number> {
  const [row] = await database.sql<[{ n: number }]>`
    select count(*)::int as n from flowledger.executions where id = ${id}::uuid`;
  return row.n;
}

test("TF-LIF-02: start resolves with the close snapshot, not with what the last chunk returned", async () => {
  const snapshot = await flow.start({ n: "2" });

  expect(snapshot).toEqual({ sum: 3 });
});

test.each([{ autoClose: false }, { autoCloseTimeout: null }] satisfies CreateOptions[])(
  "TF-LIF-03: start with %j is refused, because nobody could close the execution",
  async (options) => {
    const before = await orchestrator.listExecutions({ limit: 1 });

    const error = await refusal(flow.start({ n: 1 }, options));

    expect(error).toBeInstanceOf(UsageError);
    expect(await orchestrator.listExecutions({ limit: 1 })).toEqual(before);
  },
);

test("TF-LIF-04: execution.start resolves with the close snapshot, or with the execution when nobody closes it", async () => {
  const closing = await flow.createExecution({ autoCloseTimeout: 0 });
  const staying = await flow.createExecution({ autoClose: false });

  const results = [await closing.start({ n: 1 }), await staying.start({ n: 1 })];

  expect(results).toEqual([{ sum: 2 }, staying]);
  expect(await staying.close()).toEqual({ sum: 2 });
});

test("TF-LIF-04: a handle from another process starts it the same way", async () => {
  await using elsewhere = visiting(database, [add]);
  const { id } = await flow.createExecution({ autoClose: false });
  const handle = await elsewhere.getExecution(id);

  expect(await handle.start({ n: 5 })).toBe(handle);
  expect(await handle.close()).toEqual({ sum: 6 });
});

test("TF-LIF-05: startExecution resolves with the handle at once, and a second start changes nothing", async () => {
  const execution = await flow.startExecution({ n: 1 }, { autoCloseTimeout: "300ms" });

  expect(await execution.start({ n: 100 })).toEqual({ sum: 2 });
  expect(await execution.history({ types: ["execution.started"] })).toHaveLength(1);
});

test("TF-LIF-01: an execution that was created is open, not started, and has the defaults", async () => {
  const execution = await flow.createExecution();
  const state = await storeOn(database.sql).reads.loadState(execution.id);

  expect(state?.settings).toEqual({
    autoClose: true,
    autoCloseMs: 10_000,
    concurrency: null,
    timeoutMs: null,
    interventionMode: null,
    hidden: false,
    discardAt: null,
  });

  expect(await execution.result.getMeta()).toMatchObject({
    status: "created",
    lifecycleState: "open",
    startedAt: null,
  });
});

test("startMany starts 2,345 executions and gives their ids in the order of the inputs", async () => {
  const inputs = Array.from({ length: 2345 }, (_, n) => ({ n }));

  const ids = await flow.startMany(inputs, { metadata: { group: "many" }, autoCloseTimeout: 0, delay: "1h" });

  expect(new Set(ids).size).toBe(2345);
  const rows = await database.sql<{ id: string; n: number }[]>`
    select execution_id as id, (payload -> 'input' ->> 'n')::int as n from flowledger.ledger
    where type = 'execution.started' and execution_id = any(${ids}::uuid[])`;
  const byId = new Map(rows.map(({ id, n }) => [id, n]));
  expect(ids.map((id) => byId.get(id))).toEqual(inputs.map(({ n }) => n));
});

test("startMany of nothing starts nothing, and one bad input starts none", async () => {
  const before = await orchestrator.listExecutions({ limit: 1 });

  expect(await flow.startMany([])).toEqual([]);
  await expect(flow.startMany([{ n: 1 }, { n: "x" as never }])).rejects.toMatchObject({ code: "CONTRACT_VIOLATED" });

  expect(await orchestrator.listExecutions({ limit: 1 })).toEqual(before);
});

test("startMany that fails on its way, at the 2,400th of 2,500, has started none", async () => {
  await administer(database.adminUrl, async (admin) => {
    await admin.unsafe(`create function public.full_disk() returns trigger language plpgsql as $$ begin
      raise exception 'could not extend file' using errcode = '53100'; end $$;
      create trigger full_disk before insert on flowledger.ledger for each row when (new.payload #> '{input,n}' = '2400' and new.payload #> '{input,more}' = '77') execute function public.full_disk()`);
  });
  const all = async () => (await database.sql`select count(*)::int as n from flowledger.executions`)[0];
  const before = await all();

  const error = await refusal(
    flow.startMany(
      Array.from({ length: 2500 }, (_, n) => ({ n, more: 77 })),
      { delay: "1h" },
    ),
  );

  expect(error).toMatchObject({ code: "CONNECTION_FAILED" });
  expect(await all()).toEqual(before);
  await administer(database.adminUrl, async (admin) => {
    await admin`drop trigger full_disk on flowledger.ledger`;
  });
});

test("startMany takes a key for each: a known one is not started again, and with another input the error tells what has begun", async () => {
  const idempotencyKey = ({ n }: { n: unknown }) => `many-${String(n)}`;
  const options = { delay: "1h", idempotencyKey } as const;
  const first = await flow.startMany([{ n: 1 }, { n: 2 }], options);

  const again = await flow.startMany([{ n: 2 }, { n: 3 }], options);
  expect(again[0]).toBe(first[1]);
  expect(first).not.toContain(again[1]);

  const error = await refusal(flow.startMany([{ n: 4 }, { n: 1, more: 9 }], options));
  const four = await flow.startMany([{ n: 4 }], options);
  expect(error).toMatchObject({ code: "USAGE_INVALID", details: { executionId: first[0], started: four } });
  expect(String(error)).toContain("many-1");
  await expect(flow.startMany([{ n: 1 }], { idempotencyKey: "one" as never })).rejects.toThrow(/must be a function/);
});

test("startMany gives every execution its runtime resources", async () => {
  const reading = defineFlow("reading");
  reading.to("read", (ctx) => ctx.setState("value", ctx.requireResource<{ value: number }>("thing").value));
  await using serving1 = await serving(database, [reading]);

  const ids = await serving1
    .flow(reading)
    .startMany([1, 2], { runtimeResources: { thing: { value: 7 } }, autoCloseTimeout: 0 });

  for (const id of ids) expect(await (await serving1.getExecution(id)).waitForClose()).toEqual({ value: 7 });
});

const pool = new pg.Pool({ connectionString: database.url, max: 2 });
const client = postgres(database.url, { max: 2 });
const drizzled = postgres(database.url, { max: 2 });
afterAll(() => Promise.all([pool.end(), client.end(), drizzled.end()]));

async function inPg<T>(work: (tx: pg.PoolClient) => Promise<T>): Promise<T> {
  const tx = await pool.connect();
  try {
    await tx.query("begin");
    const result = await work(tx);
    await tx.query("commit");
    return result;
  } catch (error) {
    await tx.query("rollback");
    throw error;
  } finally {
    tx.release();
  }
}

type Tx = NonNullable<CreateOptions["tx"]>;
const transactions: [string, (work: (tx: Tx) => Promise<void>) => Promise<unknown>][] = [
  ["postgres.js", (work) => client.begin((tx) => work(tx))],
  ["drizzle on postgres.js", (work) => drizzle(drizzled).transaction((tx) => work(tx))],
  ["drizzle on pg", (work) => drizzleOnPg(pool).transaction((tx) => work(tx))],
  ["pg", (work) => inPg((tx) => work(tx))],
];

test.each(transactions)("a start in a transaction of %s commits with it", async (_, transaction) => {
  let started: Awaited<ReturnType<typeof flow.startExecution>> | undefined;

  await transaction(async (tx) => {
    started = await flow.startExecution({ n: 1 }, { tx, autoCloseTimeout: 0, metadata: { text: "ü'\"\\" } });
    expect(await count(started.id)).toBe(0);
  });

  expect(await started?.waitForClose()).toEqual({ sum: 2 });
  expect((await started?.result.getMeta())?.metadata).toEqual({ text: "ü'\"\\" });
});

test.each(transactions)("a start in a transaction of %s is rolled back with it", async (_, transaction) => {
  let id = "";

  const rolled = transaction(async (tx) => {
    ({ id } = await flow.createExecution({ tx }));
    throw new Error("changed my mind");
  });

  await expect(rolled).rejects.toThrow("changed my mind");
  await expect(orchestrator.getExecution(id)).rejects.toMatchObject({ code: "EXECUTION_NOT_FOUND" });
});

test("a hidden start in a transaction is refused, because it would wait for its own commit", async () => {
  const error = await client.begin((tx) => refusal(flow.start({ n: 1 }, { tx })));

  expect(error).toBeInstanceOf(UsageError);
});

test("tx that is no transaction is refused", async () => {
  const error = await refusal(flow.createExecution({ tx: { url: database.url } as never }));

  expect(error).toBeInstanceOf(UsageError);
});

test("an idempotency key used again with the same input gives the same execution", async () => {
  const options = { idempotencyKey: "order-1", autoCloseTimeout: 0 };

  const handles = await Promise.all([flow.startExecution({ n: 1 }, options), flow.startExecution({ n: 1 }, options)]);
  const snapshot = await flow.start({ n: 1 }, options);

  expect(handles[0].id).toBe(handles[1].id);
  expect(snapshot).toEqual({ sum: 2 });
});

test("an idempotency key used again with another input is refused and names the execution", async () => {
  const { id } = await flow.startExecution({ n: 1 }, { idempotencyKey: "order-2" });

  const error = await refusal(flow.startExecution({ n: 2 }, { idempotencyKey: "order-2" }));

  expect(error).toMatchObject({ code: "USAGE_INVALID", details: { executionId: id } });
});

test("an idempotency key gives the same execution before it is started, too", async () => {
  const options = { idempotencyKey: "order-3" };

  const [one, other] = [await flow.createExecution(options), await flow.createExecution(options)];

  expect(one.id).toBe(other.id);
});

test("LI-STP-05: an id of one's own is kept, and refused when it is taken", async () => {
  const id = "01a1fc32-0000-7000-8000-000000000001";

  const execution = await flow.createExecution({ id });

  expect(execution.id).toBe(id);
  await expect(flow.startExecution({ n: 1 }, { id })).rejects.toMatchObject({ code: "USAGE_INVALID" });
  // With a key of its own it would be found by nobody.
  await expect(flow.startExecution({ n: 1 }, { id, idempotencyKey: "order-4" })).rejects.toMatchObject({
    code: "USAGE_INVALID",
    message: expect.stringContaining(id) as unknown,
  });
  expect(await execution.result.getMeta()).toMatchObject({ status: "created" });
});

test("an execution that runs longer than its timeout fails with the reason", async () => {
  const hanging = defineFlow("hanging");
  hanging.to("hang", () => new Promise<void>(() => {}));
  await using worker = await serving(database, [hanging]);
  const execution = await worker.flow(hanging).startExecution(null, { timeout: "50ms" });

  const error = await refusal(execution.waitForClose());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { name: "ExecutionTimeoutError" } });
  expect(await execution.result.getMeta()).toMatchObject({ status: "failed", closeReason: "timeout" });
  expect(await untilEvent(execution, "execution.failed")).toMatchObject({ reason: "timeout" });
});
