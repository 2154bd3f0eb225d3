/** An input by SQL is checked where it comes in, by the contract that live workers serve: refused is only what the contract refuses. */
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { z } from "zod";
import { defineFlow, type Json } from "../../src/index.ts";
import { inputSchema } from "../../src/flow/input-schema.ts";
import { verify } from "../../src/store/verify.ts";
import { testDatabase } from "../support/database.ts";
import { runCli } from "../support/cli.ts";
import { refusal, serving, untilEvent, visiting } from "../support/flows.ts";
import { fuzzRuns } from "../support/fuzz.ts";
import { storeOn } from "../support/store.ts";

const database = await testDatabase();
const { sql } = database;
const refund = defineFlow("refund", { input: z.object({ ticket: z.string(), amount: z.number().positive() }) });
refund.to("keep", (ctx) => ctx.input.amount);
const free = defineFlow("free");
free.to("keep", (ctx) => ctx.input);
const orchestrator = await serving(database, [refund, free]);
afterAll(() => orchestrator.close());

const counted = async () => {
  const [row] = await sql<[{ executions: number; events: number }]>`
    select (select count(*)::int from flowledger.executions) as executions, (select count(*)::int from flowledger.ledger) as events`;
  return row;
};

test("SQL and the command line refuse an input that breaks the contract, and write nothing", async () => {
  const before = await counted();
  const wrong = ['{"ticket": 1, "amount": 2}', '{"ticket": "T-1", "amount": 0}', '{"amount": 2}', "null", "[]"];

  for (const input of wrong)
    await expect(
      sql`select flowledger.start('refund', ${input}::text::jsonb, '{"autoCloseTimeout": 0}')`,
    ).rejects.toMatchObject({
      code: "FL008",
      message: expect.stringMatching(/^input of flow "refund" does not fit the contract: it/),
      hint: "change the value or the contract",
    });
  await expect(sql`select flowledger.start('refund')`).rejects.toThrow(
    /does not fit the contract: it must be object, got null/,
  );
  const cli = await runCli(database.url, "start", "refund", '{"ticket": "T-1", "amount": "2"}');

  expect(cli).toMatchObject({ code: 2, stderr: expect.stringMatching(/it\.amount must be number, got "2"/) });
  expect(await counted()).toEqual(before);
  await sql`select flowledger.start('free', '{"amount": "2"}')`;
});

test("so does the start of what was created, which can still be started", async () => {
  const created = await orchestrator.flow(refund).createExecution({ autoCloseTimeout: 0 });

  await expect(sql`select flowledger.start_execution(${created.id}, '{"ticket": 7}')`).rejects.toMatchObject({
    code: "FL008",
  });

  expect(await created.history({ types: ["execution.started"] })).toEqual([]);
  await sql`select flowledger.start_execution(${created.id}, '{"ticket": "T-1", "amount": 2}')`;
  await created.waitForClose();
});

test("of several versions that are served, one that takes it is enough; versions that nobody serves count only where nobody serves any", async () => {
  const first = defineFlow("versions", { input: z.object({ old: z.string() }) });
  first.to("one", () => null);
  const second = defineFlow("versions", { input: z.object({ new: z.string() }) });
  second.to("one", () => null).to("two", () => null);
  const start = (input: string) =>
    sql`select flowledger.start('versions', ${input}::text::jsonb, '{"autoCloseTimeout": 0}')`;

  const old = await serving(database, [first]);
  const newer = await serving(database, [second]);
  await start('{"old": "x"}');
  await start('{"new": "x"}');
  await old.close();
  await expect(start('{"old": "x"}')).rejects.toThrow(/it\.new is missing/);
  await newer.close();
  await start('{"old": "x"}');
  await expect(start("{}")).rejects.toThrow(/does not fit the contract/);
});

const text = fc.oneof(
  fc.constantFrom("", " ", "a", "ABC", " abc ", "a@b.co", "😀", "12", "https://x.y/a b", "2026-01-01T00:00:00Z"),
  fc.string({ maxLength: 5 }),
);
const value = fc.oneof(
  text,
  fc.integer({ min: -3, max: 9 }),
  fc.boolean(),
  fc.constantFrom<Json>(null, 1.5, [], {}, ["a"], { a: "a" }),
);
const types: Record<string, z.ZodType> = {
  coerced: z.coerce.number().min(2),
  coercedText: z.coerce.string().max(3),
  trimmed: z.string().trim().min(1).max(3),
  flagged: z.string().regex(/^abc$/i),
  several: z.string().regex(/a/).regex(/^b?/u),
  preprocessed: z.preprocess((given) => (given === "12" ? 12 : given), z.number()),
  caught: z.number().catch(7),
  length: z.string().min(2).max(3),
  email: z.email(),
  url: z.url(),
  time: z.iso.datetime(),
  unknown: z.unknown(),
  defaulted: z.number().default(3),
  transformed: z.string().transform(Number).pipe(z.number()),
  refined: z.number().refine((n) => n > 3),
  boolean: z.stringbool(),
  union: z.union([z.coerce.boolean(), z.string()]),
  literal: z.literal(["a", 1, null]),
  list: z.array(z.coerce.number()).min(1),
  record: z.record(
    z
      .string()
      .toLowerCase()
      .regex(/^[a-z]/),
    z.number(),
  ),
  lazy: z.lazy(() => z.object({ a: z.coerce.string() })),
  nested: z.strictObject({ a: z.string().trim().length(1), b: z.coerce.string().optional() }),
  multiple: z.number().multipleOf(0.1),
  both: z.intersection(z.object({ a: z.string() }), z.object({ b: z.number().optional() })),
};

test("what the contract takes is never refused by SQL", async () => {
  const given = fc.record({ type: fc.constantFrom(...Object.keys(types)), value });
  const asked = fc.sample(given, { numRuns: Math.min(fuzzRuns().numRuns, 20_000) }).flatMap(({ type, value: one }) => {
    const schema = z.object({ p: types[type] ?? z.any() });
    const input: Json = { p: one };
    const missing: Json = {};
    return [input, missing].map((json) => ({
      type,
      json,
      schema: inputSchema(schema),
      takes: schema.safeParse(json).success,
    }));
  });
  const rows = await sql<{ n: number; problem: string | null }[]>`
    select x.n::int, flowledger.schema_problem(x.a -> 'schema', x.a -> 'json', x.a -> 'schema', '', now() + interval '1 hour', '{}') as problem
    from jsonb_array_elements(${JSON.stringify(asked)}::text::jsonb) with ordinality x(a, n)
    order by x.n`;
  const refused = asked.filter((_, at) => (rows[at]?.problem ?? null) !== null);

  expect(refused.filter(({ takes }) => takes)).toEqual([]);
  expect(refused.length).toBeGreaterThan(asked.length / 20);
});

test("TypeScript refuses it as well, with the place", async () => {
  await using elsewhere = visiting(database, [refund]);
  const before = await counted();

  const error = await refusal(elsewhere.flow(refund).startExecution({ ticket: 1, amount: 2 } as never));

  expect(String(error)).toMatch(/^ContractError: input of flow "refund" does not fit the contract: at ticket/);
  expect(await counted()).toEqual(before);
});

test("times and durations go into the ledger with all their digits, whatever the session writes of a number", async () => {
  const until = "2031-02-03T04:05:06.789Z";
  const id = crypto.randomUUID();
  const ledger = await sql.begin(async (tx) => {
    await tx`set local extra_float_digits = -10`;
    await tx`select flowledger.start('rounded', '1', ${JSON.stringify({ id, delay: "1h", timeout: 93_661_001, autoCloseTimeout: 93_661_003, allowUnknown: true })}::text::jsonb)`;
    await tx`select flowledger.pause(${id}, ${JSON.stringify({ actor: "ann", reason: "INC-12", until })}::text::jsonb)`;
    await tx`set local extra_float_digits = 1`;
    return await tx`select type, payload from flowledger.ledger where execution_id = ${id} and seq <> 2 order by seq`;
  });

  expect([...ledger]).toMatchObject([
    { payload: { settings: { timeoutMs: 93_661_001, autoCloseMs: 93_661_003 } } },
    { type: "execution.paused", payload: { until: Date.parse(until) } },
  ]);
});

test("a copy by redrive, and a snooze, keep their times in such a session", async () => {
  const fails = defineFlow("rounded.fails");
  fails.to("throw", () => {
    throw new Error("no");
  });
  const asks = defineFlow("rounded.asks");
  asks.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" })).end();
  await using worker = await serving(database, [fails, asks]);
  const failed = await worker.flow(fails).startExecution(null, { autoCloseTimeout: 0 });
  await refusal(failed.waitForClose());
  const asking = await worker.flow(asks).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(asking, "interrupt.raised");
  const until = "2031-02-03T04:05:06.789Z";
  const by = { actor: "ann", reason: "INC-12" };

  const [copy] = await sql.begin(async (tx) => {
    await tx`set local extra_float_digits = -10`;
    await tx`select flowledger.snooze_interrupt(${asking.id}, 'q', ${JSON.stringify({ actor: "ann", until })}::text::jsonb)`;
    return tx<{ id: string }[]>`select flowledger.redrive(${failed.id}, ${JSON.stringify(by)}::text::jsonb) as id`;
  });

  const times = (id: string) =>
    sql`select at from flowledger.ledger where execution_id = ${id} and seq <= 2 order by seq`;
  expect([...(await times(copy?.id ?? ""))]).toEqual([...(await times(failed.id))]);
  const [snoozed] = await sql`
    select payload from flowledger.ledger where execution_id = ${asking.id} and type = 'interrupt.snoozed'`;
  expect(JSON.stringify(snoozed)).toContain(String(Date.parse(until)));
  expect(await verify(sql)).toEqual([]);
});

test("what is created with a delay and started by such a session is due when it was", async () => {
  const [{ id }] = await sql<[{ id: string }]>`
    select id from flowledger.create_executions(array[gen_random_uuid()], array['rounded'], array['create'], '[null]', '[{"flow": "rounded"}]', array[null],
      array[0], array[null], array[null::uuid], array[null::timestamptz], array[3600000.0], array[null::timestamptz], array[null::float8])`;
  await sql.begin(async (tx) => {
    await tx`set local extra_float_digits = -10`;
    await tx`select flowledger.start_execution(${id}, '1')`;
  });

  expect(await verify(sql)).toEqual([]);
});

test("after all of this every invariant holds", async () => {
  expect(await verify(sql)).toEqual([]);
});

test("a contract that changed is the one that counts, though its version is the same", async () => {
  const { workers } = storeOn(sql);
  const [flow, fingerprint] = ["same.version", "f"];
  const keep = (type: string) =>
    workers.keepDefinitions([{ flow, fingerprint, blueprint: { contract: { input: { type } } } }]);
  const start = (input: string) => sql`select flowledger.start(${flow}, ${input}::text::jsonb)`;

  await keep("number");
  await expect(start('"x"')).rejects.toMatchObject({ code: "FL008" });
  await keep("string");

  await start('"x"');
  await expect(start("1")).rejects.toMatchObject({ code: "FL008" });
});

test("a worker of a release that did not say which version it serves may serve any", async () => {
  const { workers } = storeOn(sql);
  const flow = "untold";
  const contracts = { old: "number", new: "string" };
  await workers.keepDefinitions(
    Object.entries(contracts).map(([fingerprint, type]) => ({
      flow,
      fingerprint,
      blueprint: { contract: { input: { type } } },
    })),
  );
  const start = (input: string) => sql`select flowledger.start(${flow}, ${input}::text::jsonb)`;
  const register = (fingerprints: string) =>
    sql`select flowledger.register_worker(gen_random_uuid(), 'h', 1, array[${flow}], ${fingerprints}::text::text[], '{}', null)`;

  await register('{"new"}');
  await expect(start("1")).rejects.toMatchObject({ code: "FL008" });
  await sql`select flowledger.register_worker(gen_random_uuid(), 'h', 1, array[${flow}], '{}', null)`;
  await start("1");
  await expect(start("true")).rejects.toMatchObject({ code: "FL008" });
});
