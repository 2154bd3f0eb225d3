/** What each role may do: tried on every table with every verb, as that role. */
import { randomBytes } from "node:crypto";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { examine } from "../../src/database/doctor.ts";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";

const database = await testDatabase();
const { sql } = database;
const prefix = `t${randomBytes(4).toString("hex")}`;
const password = randomBytes(8).toString("hex");
const names = ["worker", "client", "auditor"] as const;
await sql`select flowledger.grant_roles(${prefix})`;
// Twice changes nothing.
await sql`select flowledger.grant_roles(${prefix})`;
for (const name of names) await sql.unsafe(`alter role ${prefix}_${name} password '${password}'`);

afterAll(async () => {
  for (const name of names) await sql.unsafe(`drop owned by ${prefix}_${name}`);
  for (const name of names) await sql.unsafe(`drop role ${prefix}_${name}`);
});

function urlOf(name: (typeof names)[number]): string {
  const url = new URL(database.url);
  url.username = `${prefix}_${name}`;
  url.password = password;
  return url.href;
}

async function as<T>(name: (typeof names)[number], work: (client: postgres.Sql) => Promise<T>): Promise<T> {
  const client = postgres(urlOf(name), { max: 1, onnotice: () => {} });
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** S(elect), I(nsert), U(pdate), D(elete), T(runcate). */
const allowed: Record<string, Record<(typeof names)[number], string>> = {
  chain: { worker: "SI", client: "", auditor: "S" },
  definitions: { worker: "SI", client: "", auditor: "" },
  executions: { worker: "SIU", client: "", auditor: "" },
  flow_data: { worker: "SIUD", client: "", auditor: "" },
  homes: { worker: "S", client: "", auditor: "S" },
  interrupts: { worker: "SIU", client: "", auditor: "" },
  interventions: { worker: "SIU", client: "", auditor: "" },
  limited_starts: { worker: "SIUD", client: "", auditor: "" },
  limits: { worker: "SIUD", client: "", auditor: "" },
  ledger: { worker: "SI", client: "", auditor: "" },
  ledger_hashes: { worker: "S", client: "", auditor: "" },
  migrations: { worker: "S", client: "", auditor: "" },
  places: { worker: "SIUD", client: "", auditor: "" },
  prunes: { worker: "", client: "", auditor: "S" },
  schedules: { worker: "SIUD", client: "", auditor: "" },
  snapshots: { worker: "SIU", client: "", auditor: "" },
  stream_items: { worker: "SI", client: "", auditor: "" },
  workers: { worker: "SIUD", client: "", auditor: "" },
  audit_executions: { worker: "", client: "", auditor: "S" },
  audit_interrupts: { worker: "", client: "", auditor: "S" },
  audit_interventions: { worker: "", client: "", auditor: "S" },
  audit_ledger: { worker: "", client: "", auditor: "S" },
  audit_state_changes: { worker: "", client: "", auditor: "S" },
};

/** No right to it; and what a view cannot do for anybody. */
// A view with computed columns refuses an insert as such (0A000).
const refusals = new Set(["42501", "55000", "42809", "0A000"]);

const verbs: Record<string, (table: string, column: string) => string> = {
  S: (table) => `select 1 from flowledger.${table} limit 0`,
  I: (table) => `insert into flowledger.${table} select * from flowledger.${table} where false`,
  U: (table, column) => `update flowledger.${table} set ${column} = ${column} where false`,
  D: (table) => `delete from flowledger.${table} where false`,
  T: (table) => `truncate flowledger.${table}`,
};

test.each(names)("%s may do on every table exactly what the table here says", async (name) => {
  const tables = await sql<{ name: string; column: string; insertable: string }[]>`
    select c.relname as name, (select quote_ident(a.attname) from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and a.attgenerated = '' order by a.attnum limit 1) as column,
      (select string_agg(quote_ident(a.attname), ', ' order by a.attnum) from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and a.attgenerated = '' and not a.attisdropped) as insertable
    from pg_class c where c.relnamespace = 'flowledger'::regnamespace and c.relkind in ('r', 'v', 'm', 'p', 'f') order by 1`;
  expect(tables.map((table) => table.name)).toEqual(Object.keys(allowed).toSorted());

  const found = await as(name, async (client) => {
    const rights: Record<string, string> = {};
    for (const { name: table, column, insertable } of tables) {
      rights[table] = "";
      for (const [letter, statement] of Object.entries(verbs)) {
        const text =
          letter === "I"
            ? `insert into flowledger.${table} (${insertable}) select ${insertable.replace(/[^,]+/g, " null")} where false`
            : statement(table, column);
        // The auditor's session refuses writes as such; the rights below it are what is asked for here.
        const isRefused = await client
          .begin(async (tx) => {
            await tx`set transaction read write`;
            await tx.unsafe(text);
            await tx`rollback and chain`;
          })
          .then(
            () => false,
            (error: unknown) => error instanceof postgres.PostgresError && refusals.has(error.code),
          );
        if (!isRefused) rights[table] += letter;
      }
    }
    return rights;
  });

  expect(found).toEqual(Object.fromEntries(Object.entries(allowed).map(([table, rights]) => [table, rights[name]])));
});

test("nobody else may call a function of ours, or make anything in the schema", async () => {
  const open = await sql<{ name: string }[]>`
    select p.oid::regprocedure::text as name from pg_proc p
    where p.pronamespace = 'flowledger'::regnamespace and exists (select 1 from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)`;
  expect(open).toEqual([]);
  for (const name of names)
    await expect(as(name, (client) => client`create table flowledger.mine (x int)`)).rejects.toThrow(
      /permission denied|read-only/,
    );
});

test("V5: an orchestrator that connects as the worker runs a flow to its end", async () => {
  const flow = defineFlow("as-worker");
  flow
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }))
    .to("keep", async (ctx) => await ctx.setState("answer", ctx.input));
  flow.when("Note").to("note", async (ctx) => await ctx.setState("note", ctx.input));
  await using orchestrator = createOrchestrator({ connection: urlOf("worker"), flows: [flow] });
  await orchestrator.startWorker({ drainTimeout: "1s" });
  const id = await as("client", async (client) => {
    const [row] = await client<
      { id: string }[]
    >`select flowledger.start('as-worker', '{"n": 1}', '{"autoCloseTimeout": "0"}') as id`;
    return row?.id ?? "";
  });
  const execution = await orchestrator.getExecution(id);
  await untilPending(execution);

  await as("client", async (client) => {
    await client`select flowledger.emit(${id}, 'Note', '"from a client"')`;
    await client`select flowledger.continue_with(${id}, 'q', '"yes"', 'r', 'ann')`;
  });

  expect(await execution.waitForClose()).toEqual({ answer: "yes", note: "from a client" });
  const seen = await as(
    "auditor",
    (client) => client`
    select status, value, actor, flowledger.close_snapshot(execution_id) as snapshot, flowledger.meta(execution_id) ->> 'status' as ended
    from flowledger.audit_interrupts where execution_id = ${id}`,
  );
  expect([...seen]).toEqual([
    {
      status: "resumed",
      value: "yes",
      actor: "ann",
      snapshot: { answer: "yes", note: "from a client" },
      ended: "completed",
    },
  ]);
});

test("V5: a role that row level security hides all jobs from is refused as a worker, and doctor says why", async () => {
  const flow = defineFlow("hidden-jobs");
  flow.to("pass", () => null);
  await using orchestrator = createOrchestrator({ connection: urlOf("worker"), flows: [flow] });
  // Somebody else's policy does not help.
  await sql.unsafe(`alter policy ${prefix}_worker on graphile_worker._private_jobs to ${prefix}_client`);

  const error = await orchestrator.startWorker().catch((thrown: unknown) => thrown);
  const jobs = (await examine(urlOf("worker"))).find(({ name }) => name === "jobs");
  await sql.unsafe(`alter policy ${prefix}_worker on graphile_worker._private_jobs to ${prefix}_worker`);

  expect(error).toMatchObject({ code: "WORKER_FAILED", message: expect.stringContaining("sees no jobs") });
  expect(jobs).toMatchObject({ verdict: "fail", remedy: expect.stringContaining("grant_roles") });
});

test("a client reaches nothing but the commands, and the auditor nothing that writes", async () => {
  for (const call of [
    "flowledger.append_verdict(null, 1, null, 1, 1)",
    "flowledger.tend('1s', '1s', null)",
    "flowledger.create_many('[]')",
    "flowledger.add_jobs('{}')",
    "flowledger.state_at(null)",
    "flowledger.grant_roles()",
    "flowledger.adopt()",
  ])
    await expect(as("client", (client) => client.unsafe(`select ${call}`))).rejects.toMatchObject({ code: "42501" });
  await expect(as("client", (client) => client`select graphile_worker.add_job('x')`)).rejects.toMatchObject({
    code: "42501",
  });
  await expect(as("auditor", (client) => client`select flowledger.start('f')`)).rejects.toMatchObject({
    code: "42501",
  });
  await expect(as("auditor", (client) => client`create temp table x (y int)`)).rejects.toMatchObject({ code: "25006" });
  await expect(as("worker", (client) => client`update flowledger.ledger set type = 'x'`)).rejects.toMatchObject({
    code: "42501",
  });
});

test.each(["", "Upper", "a b", `x"; drop schema flowledger cascade; --`, "x".repeat(60)])(
  "the prefix %j is refused",
  async (bad) => {
    await expect(sql`select flowledger.grant_roles(${bad})`).rejects.toMatchObject({ code: "FL008" });
  },
);
