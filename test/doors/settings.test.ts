/** Whatever the database and the role are set to: every connection of ours sets what it relies on. */
import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import type { Logger, Orchestrator } from "../../src/index.ts";
import { runCli } from "../support/cli.ts";
import { administer, emptyDatabase, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { present, untilPending } from "../support/doors.ts";
import { collect, refusal, untilEvent } from "../support/flows.ts";
import { given } from "../support/settings.ts";
import type { Level, Unmoved } from "../support/settings.ts";

/** Values that somebody may have set, for a reason that has nothing to do with us. Those that a server does not know are left out. */
const hostile: Readonly<Record<string, string>> = {
  array_nulls: "off",
  bytea_output: "escape",
  client_encoding: "LATIN1",
  DateStyle: "German, DMY",
  default_transaction_deferrable: "on",
  default_transaction_isolation: "serializable",
  exit_on_error: "on",
  extra_float_digits: "-10",
  idle_in_transaction_session_timeout: "5ms",
  idle_session_timeout: "20ms",
  IntervalStyle: "iso_8601",
  lock_timeout: "1ms",
  quote_all_identifiers: "on",
  row_security: "off",
  search_path: "trap, pg_catalog",
  standard_conforming_strings: "off",
  statement_timeout: "1ms",
  TimeZone: "Asia/Kolkata",
  transaction_timeout: "150ms",
  transform_null_equals: "on",
};
/** Those that nothing should depend on; together, and with every method of the planner off. */
const harmless: Record<string, string> = {
  backslash_quote: "off",
  check_function_bodies: "off",
  client_min_messages: "debug1",
  constraint_exclusion: "on",
  debug_parallel_query: "on",
  default_text_search_config: "pg_catalog.german",
  default_toast_compression: "pglz",
  force_parallel_mode: "on",
  jit_above_cost: "0",
  plan_cache_mode: "force_custom_plan",
  work_mem: "64kB",
  xmloption: "document",
};
const planner = "planner";

const child = defineFlow("settings.child", {}, { limits: { concurrency: 2, rate: { limit: 100, per: "1s" } } });
child
  .to("double", async (ctx) => {
    await ctx.putIntoStream({ child: ctx.input });
    return Number(ctx.input) * 2;
  })
  .end();
const main = defineFlow("settings.main", { input: z.object({ text: z.string(), n: z.number(), none: z.null() }) });
main
  .to("keep", async (ctx) => {
    await ctx.setState("input", ctx.input);
    await ctx.appendState("list", null);
    await ctx.appendState("list", ctx.input.n);
    await ctx.step("at", () => new Date(0).toISOString());
    await ctx.putIntoStream(ctx.input.text);
    await ctx.sleep("30ms");
    return [1, 2, 3];
  })
  .forEach({ distribute: true })
  .to("item", (ctx) => ctx.input * 1.5)
  .endForEach()
  .to("ask", async (ctx) => {
    await ctx.setState("items", ctx.input);
    return ctx.pauseFor({ interruptId: "q", expiresIn: "1h", payload: { q: "go on?" } });
  })
  .to("answered", async (ctx) => {
    await ctx.setState("answer", ctx.input);
    return 21;
  })
  .toSubFlow(child)
  .to("last", async (ctx) => await ctx.setState("doubled", ctx.input));
main.when("Note").to("note", async (ctx) => await ctx.setState("note", ctx.input));

const input = { text: 'it\'s "ü" \\ {null}', n: 0.1 + 0.2, none: null };
const snapshot = {
  input,
  list: [null, input.n],
  items: [1.5, 3, 4.5],
  answer: { yes: null },
  doubled: 42,
  note: "heard",
};

/** All there is to a flow, through the library; and what an operator does to it afterwards. */
async function exercise(orchestrator: Orchestrator, { sql }: Unmoved): Promise<void> {
  const bound = orchestrator.flow(main);
  await bound.setFlowData("k", input, { noWarning: true });
  const [key, another] = [crypto.randomUUID(), crypto.randomUUID()];
  const metadata = { tag: key, none: null };
  const execution = await bound.startExecution(input, {
    idempotencyKey: key,
    metadata,
    autoCloseTimeout: 0,
    discardAfter: "1h",
  });
  const later = await bound.startExecution(input, { startAt: new Date("2031-02-03T04:05:06.789Z"), metadata });
  await untilPending(execution);
  // A command waits for whoever has the row.
  const held = sql.begin(async (tx) => {
    await tx`select from flowledger.executions where id = ${execution.id} for update`;
    await delay(40);
  });
  await execution.emit("Note", "heard", { idempotencyKey: another });
  await held;
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "note");
  await execution.continueWith("q", { yes: null }, { resumeRequestId: another });

  expect(await execution.waitForClose()).toEqual(snapshot);
  expect(await refusal(execution.emit("Note", "late"))).toMatchObject({ code: "EXECUTION_CLOSED" });
  expect((await bound.startExecution(input, { idempotencyKey: key })).id).toBe(execution.id);
  expect(await bound.getFlowData("k", { noWarning: true })).toEqual(input);
  const items = await collect(execution.getRuntimeStream());
  expect(items.filter((item) => typeof item === "string" || "child" in Object(item))).toEqual([
    input.text,
    { child: 21 },
  ]);
  expect(await execution.result.getMeta()).toMatchObject({ status: "completed", metadata });
  const { executions } = await orchestrator.listExecutions({ metadata: { tag: key }, createdAfter: new Date(0) });
  // Newest first; the items of the collection are younger.
  expect(executions.map(({ id }) => id).slice(-2)).toEqual([later.id, execution.id]);
  const [started] = await later.history({ types: ["execution.started"] });
  expect(started).toMatchObject({ dueAt: Date.parse("2031-02-03T04:05:06.789Z") });
  await later.cancel("not wanted");
  await later.waitForClose().catch(() => {});
  expect(await orchestrator.verify()).toEqual([]);
  expect(await orchestrator.rebuild()).toEqual([]);
  const pruned = await orchestrator.prune({ closedBefore: new Date(Date.now() + 60_000), keep: { metadata } });
  expect(pruned.executions).toBeLessThan(10);
  // The items of the collection and the sub-flow inherit the metadata.
  expect(await orchestrator.verify()).toEqual([]);
}

/** Under these names in the schema of a trap that stands before pg_catalog. */
async function setTrap({ adminUrl }: TestDatabase): Promise<void> {
  await administer(adminUrl, async (admin) => {
    await admin.unsafe(`
      create schema trap;
      grant usage on schema trap to public;
      create function trap.now() returns timestamptz language sql return 'infinity'::timestamptz;
      create function trap.unnest(anyarray) returns setof anyelement language sql as $$ select null limit 0 $$;
      create function trap.jsonb_build_object(variadic "any") returns jsonb language internal as 'jsonb_build_array';
      create function trap.to_char(timestamptz, text) returns text language sql return 'trapped';
      create function trap.current_setting(text) returns text language sql return 'trapped';
      create function trap.equal(text, text) returns boolean language sql return false;
      create operator trap.= (leftarg = text, rightarg = text, function = trap.equal);
      create domain trap.text as pg_catalog.text check (value = 'trapped');
      create domain trap.uuid as pg_catalog.uuid check (value is null);
      create domain trap.int4 as pg_catalog.int4 check (value is null)`);
  });
}

/** Limits, isolation and encoding are the caller's own. */
const theirs = /_timeout$|^default_transaction_isolation$|^client_encoding$/;

function complainingTo(complaints: unknown[]): Logger {
  const complain = (message: string, fields?: unknown) => void complaints.push([message, fields]);
  return { debug() {}, info() {}, warn: complain, error: complain };
}

/** Serves the flows, and keeps what it complains of. */
function tellingOf(connection: string, complaints: unknown[]): Orchestrator {
  return createOrchestrator({ connection, flows, logger: complainingTo(complaints) });
}

const migrated = await testDatabase();
const flows = [main];
beforeAll(async () => {
  await setTrap(migrated);
  const rows = await migrated.sql<{ name: string }[]>`
    select name from pg_settings where name like 'enable\\_%' and vartype = 'bool' and context = 'user'`;
  for (const { name } of rows) harmless[name] = "off";
});

// Which of them it is: that none matters is seen below, where all of them are set.
test.each([...Object.keys(hostile), planner])("a database with its own %s runs flows as any other", async (name) => {
  const settings = name === planner ? harmless : { [name]: hostile[name] ?? "" };
  await using unmoved = await given(migrated, "the database", settings);
  const complaints: unknown[] = [];
  await using orchestrator = tellingOf(migrated.url, complaints);

  await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "200ms" });

  await exercise(orchestrator, unmoved);
  expect(complaints).toEqual([]);
});

test.each<Level>(["the database", "the role"])(
  "with everything set otherwise for %s, it is migrated, served, read and looked after as any other",
  async (level) => {
    await using database = await emptyDatabase();
    await setTrap(database);
    await using unmoved = await given(database, level, { ...hostile, ...harmless });
    const complaints: unknown[] = [];
    await using orchestrator = tellingOf(database.url, complaints);

    await orchestrator.migrate();
    await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "200ms" });
    await exercise(orchestrator, unmoved);
    const { executions } = await orchestrator.listExecutions({ flow: main.name });
    const { id } = present(executions[0]);
    const [list, show, doctor, migrate] = [
      await runCli(database.url, "list", "--json"),
      await runCli(database.url, "show", id, "--json"),
      await runCli(database.url, "doctor", "--json"),
      await runCli(database.url, "migrate", "--json"),
    ];

    expect(complaints).toEqual([]);
    expect([list.stderr, show.stderr, doctor.stderr, migrate.stderr]).toEqual(["", "", "", ""]);
    expect(
      z.object({ executions: z.array(z.unknown()) }).parse(JSON.parse(list.stdout)).executions.length,
    ).toBeGreaterThan(1);
    expect(JSON.parse(show.stdout)).toMatchObject({ meta: { executionId: id } });
    const findings = z.array(z.object({ name: z.string(), verdict: z.string() })).parse(JSON.parse(doctor.stdout));
    expect(findings.length).toBeGreaterThan(8);
    expect(findings.filter(({ verdict }) => verdict === "fail")).toEqual([]);
    expect(JSON.parse(migrate.stdout)).toEqual({ migrated: true });
  },
);

test("a limit that ends the connection which asks for it is lifted, and nothing hangs", async () => {
  await using database = await emptyDatabase();
  await using unmoved = await given(database, "the database", { transaction_timeout: "1ms" });
  const complaints: unknown[] = [];
  // Each time it may have ended the connection, or not yet.
  for (let round = 0; round < 8; round++) {
    await using orchestrator = tellingOf(database.url, complaints);
    await orchestrator.migrate();
    await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "200ms" });
    if (round === 0) await exercise(orchestrator, unmoved);
    expect(await orchestrator.verify()).toEqual([]);
  }
  expect(complaints).toEqual([]);
});

test("what the connection string sets, apart from limits, does not matter either", async () => {
  const url = new URL(migrated.url);
  for (const [name, value] of Object.entries(hostile)) if (!theirs.test(name)) url.searchParams.set(name, value);
  url.searchParams.set("default_transaction_isolation", "serializable");
  const complaints: unknown[] = [];
  await using unmoved = await given(migrated, "the role", {});
  await using orchestrator = tellingOf(url.href, complaints);

  await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "200ms" });

  await exercise(orchestrator, unmoved);
  expect(complaints).toEqual([]);
});

test("a database that takes no writes for a while refuses them in so many words, is read as ever, and goes on afterwards", async () => {
  const complaints: unknown[] = [];
  await using worker = tellingOf(migrated.url, complaints);
  await worker.startWorker({ drainTimeout: "1s", cancelGrace: "200ms" });
  const execution = await worker.flow(main).startExecution(input, { autoCloseTimeout: 0 });
  const [asked] = await untilPending(execution);
  const renewConnections = () =>
    administer(migrated.adminUrl, async (admin) => {
      await admin`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = ${migrated.name} and application_name like 'flowledger%'`;
    });

  const frozen = await given(migrated, "the role", { default_transaction_read_only: "on" });
  await renewConnections();
  await using away = createOrchestrator({ connection: migrated.url, flows });
  const handle = await away.getExecution(execution.id);
  const errors = [
    await refusal(away.flow(main).startExecution(input)),
    await refusal(handle.emit("Note", "heard")),
    await refusal(handle.continueWith("q", null)),
    await refusal(away.startWorker()),
    await refusal(away.migrate()),
  ];
  const [verified, pending] = [await away.verify(), await handle.getPendingInterrupts()];
  const listed = await runCli(migrated.url, "show", execution.id, "--json");
  await frozen[Symbol.asyncDispose]();
  await renewConnections();
  await retried(() => execution.emit("Note", "heard"));
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "note");
  await execution.continueWith("q", { yes: null });

  for (const error of errors)
    expect(error).toMatchObject({
      code: "CONNECTION_FAILED",
      message: expect.stringMatching(/takes no writes.*default_transaction_read_only.*switch that setting off/),
    });
  expect(verified).toEqual([]);
  expect(pending).toEqual([asked]);
  expect(JSON.parse(listed.stdout)).toMatchObject({ meta: { status: "waiting" } });
  expect(await execution.waitForClose()).toEqual(snapshot);
  expect(await worker.verify()).toEqual([]);
});

test("row_security = off for a role that owns nothing hides no job from it", async () => {
  const prefix = `t${randomBytes(4).toString("hex")}`;
  const roles = ["worker", "client", "auditor"].map((kind) => `${prefix}_${kind}`);
  await administer(migrated.adminUrl, async (admin) => {
    await admin`select flowledger.grant_roles(${prefix})`;
    await admin.unsafe(`alter role ${prefix}_worker password 'pw'`);
  });
  await using _ = await given(migrated, "the database", { row_security: "off" });
  const url = new URL(migrated.url);
  Object.assign(url, { username: `${prefix}_worker`, password: "pw" });
  const complaints: unknown[] = [];
  {
    await using orchestrator = tellingOf(url.href, complaints);
    await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "200ms" });

    // What is started elsewhere goes by its job.
    const id = crypto.randomUUID();
    await migrated.sql`select flowledger.start('settings.child', '21', ${JSON.stringify({ id, autoCloseTimeout: 0 })}::text::jsonb)`;
    const execution = await orchestrator.getExecution(id);

    expect(await execution.waitForClose()).toEqual({ $final_result: 42 });
  }
  expect(complaints).toEqual([]);
  await administer(migrated.adminUrl, async (admin) => {
    for (const role of roles) await admin.unsafe(`drop owned by ${role}; drop role ${role}`);
  });
});

/** Does again what a connection that was ended just then refuses. */
async function retried(work: () => Promise<void>): Promise<void> {
  const error = await work().catch((thrown: unknown) => thrown);
  if (error === undefined) return;
  expect(error).toMatchObject({ code: "CONNECTION_FAILED" });
  await retried(work);
}

test("what psql asks in a session with everything set otherwise is what any other session gets", async () => {
  await using orchestrator = createOrchestrator({ connection: migrated.url, flows });
  await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "200ms" });
  const bySession: unknown[] = [];

  const { search_path: path = "", ...others } = { ...hostile, ...harmless };
  const meanings = [...Object.entries(others).filter(([name]) => !theirs.test(name)), ["search_path", path]];
  for (const settings of [[], meanings]) {
    const client = new pg.Client({ connectionString: migrated.url, types: { getTypeParser: () => String } });
    await client.connect();
    for (const setting of settings)
      await client.query("select set_config(name, $2, false) from pg_settings where lower(name) = lower($1)", setting);
    bySession.push(await throughSql(orchestrator, client));
    await client.end();
  }

  expect(bySession[1]).toEqual(bySession[0]);
});

/** A flow that is driven by SQL alone, and what there is to see of it. */
async function throughSql(orchestrator: Orchestrator, client: pg.Client): Promise<unknown> {
  const ask = async (call: string, ...values: unknown[]) => {
    const { rows } = await client.query<{ answer: string }>(`select (${call})::pg_catalog.text as answer`, values);
    return present(rows[0]).answer;
  };
  const options = {
    autoCloseTimeout: 0,
    timeout: "26h",
    metadata: { none: null },
    interventionMode: "auto",
  };
  const id = await ask(
    "flowledger.start('settings.main', $1, $2)",
    JSON.stringify(input),
    JSON.stringify({ ...options, idempotencyKey: crypto.randomUUID(), limitKey: "k" }),
  );
  const execution = await orchestrator.getExecution(id);
  await untilPending(execution);
  await ask("flowledger.emit($1, 'Note', '\"heard\"', 'key', 'ann')", id);
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "note");
  const correction = JSON.parse(await ask(`flowledger.intervene($1, '{"x": 0.1}', '{"note": "it''s"}')`, id)) as {
    id: string;
  };
  const answers = [
    correction,
    await ask("flowledger.mark_intervention_consumed($1, $2, 'ann')", id, correction.id),
    await ask(`flowledger.continue_with($1, 'q', '{"yes": null}', 'r', 'ann')`, id),
  ];
  await execution.waitForClose();
  const later = { ...options, startAt: "2031-02-03T04:05:06.789Z" };
  const second = await ask("flowledger.start('settings.main', $1, $2)", JSON.stringify(input), JSON.stringify(later));
  const moved = await ask("flowledger.reschedule_function($1, '2032-02-03T04:05:06.789Z')", second);
  const events = [...(await execution.history()), ...(await (await orchestrator.getExecution(second)).history())];
  await ask("flowledger.cancel($1, 'over')", second);
  const seen = [
    await ask("flowledger.state_at($1)", id),
    await ask("flowledger.close_snapshot($1)", id),
    await ask("flowledger.meta($1)", id),
    await ask(
      "select json_agg(to_jsonb(a) - 'epoch' order by a.seq) from flowledger.audit_ledger a where a.execution_id = $1 and a.type operator(pg_catalog.=) any($2)",
      id,
      outside,
    ),
  ];
  expect(events.filter(({ type }) => type === "execution.started" || type === "execution.rescheduled")).toMatchObject([
    { limitKey: "k" },
    { dueAt: Date.parse("2031-02-03T04:05:06.789Z") },
    { dueAt: Date.parse("2032-02-03T04:05:06.789Z") },
  ]);
  const commands = events.filter(({ type }) => outside.includes(type)).map((event) => ({ ...event, epoch: 0 }));
  return [moved, ...[...answers, ...commands, ...seen].map(stable)];
}

/** What a worker adds comes in whichever order it is ready. */
const outside = [
  "execution.created",
  "execution.started",
  "execution.rescheduled",
  "event.emitted",
  "intervention.recorded",
  "intervention.consumed",
  "interrupt.resumed",
];

/** Without what is another one each time. */
function stable(value: unknown): string {
  return (typeof value === "string" ? value : JSON.stringify(value))
    .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, "<id>")
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)/g, "<time>")
    .replaceAll(/"(seq|dispatch|stateVersion)":\s*\d+/g, '"$1":0');
}
