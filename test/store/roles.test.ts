/** What each role may do: tried on every table with every verb, as that role. */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import postgres from "postgres";
import { afterAll, expect, test, vi } from "vitest";
import { z } from "zod";
import { examine } from "../../src/store/doctor.ts";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import { reservedActors } from "../../src/base/option.ts";
import { administer, testDatabase } from "../support/database.ts";
import { runCli } from "../support/cli.ts";
import { codeOf, untilPending } from "../support/doors.ts";
import { untilEvent } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
const prefix = `t${randomBytes(4).toString("hex")}`;
const password = randomBytes(8).toString("hex");
const names = ["worker", "client", "operator", "auditor"] as const;
// The owner may not make roles: whoever may does it once, and the owner's migrations grant what is new.
await administer(database.adminUrl, async (admin) => {
  await admin`select flowledger.grant_roles(${prefix})`;
  // Twice changes nothing.
  await admin`select flowledger.grant_roles(${prefix})`;
  for (const name of names) await admin.unsafe(`alter role ${prefix}_${name} password '${password}'`);
});

afterAll(() =>
  administer(database.adminUrl, async (admin) => {
    for (const name of names) await admin.unsafe(`drop owned by ${prefix}_${name}`);
    for (const name of names) await admin.unsafe(`drop role ${prefix}_${name}`);
  }),
);

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

const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** S(elect), I(nsert), U(pdate), D(elete), T(runcate). */
const allowed: Record<string, Record<(typeof names)[number], string>> = {
  assignments: { worker: "S", client: "", operator: "S", auditor: "S" },
  anchors: { worker: "", client: "", operator: "S", auditor: "S" },
  client_grants: { worker: "", client: "", operator: "S", auditor: "S" },
  flow_pauses: { worker: "S", client: "", operator: "S", auditor: "S" },
  bulks: { worker: "", client: "", operator: "S", auditor: "S" },
  bulk_targets: { worker: "", client: "", operator: "S", auditor: "S" },
  bulk_results: { worker: "", client: "", operator: "S", auditor: "S" },
  chain: { worker: "S", client: "", operator: "S", auditor: "S" },
  database_identity: { worker: "S", client: "", operator: "S", auditor: "S" },
  definitions: { worker: "SIU", client: "", operator: "S", auditor: "" },
  executions: { worker: "S", client: "", operator: "S", auditor: "S" },
  failures: { worker: "S", client: "", operator: "S", auditor: "S" },
  flow_data: { worker: "SIUD", client: "", operator: "", auditor: "" },
  interrupts: { worker: "S", client: "", operator: "S", auditor: "S" },
  interventions: { worker: "S", client: "", operator: "S", auditor: "S" },
  limited_starts: { worker: "S", client: "", operator: "", auditor: "" },
  limits: { worker: "S", client: "", operator: "", auditor: "" },
  ledger: { worker: "S", client: "", operator: "S", auditor: "S" },
  ledger_hashes: { worker: "S", client: "", operator: "S", auditor: "S" },
  migrations: { worker: "S", client: "S", operator: "S", auditor: "S" },
  prunes: { worker: "", client: "", operator: "S", auditor: "S" },
  role_grants: { worker: "", client: "", operator: "S", auditor: "S" },
  schedules: { worker: "SIUD", client: "", operator: "", auditor: "" },
  slots: { worker: "S", client: "", operator: "S", auditor: "S" },
  snapshots: { worker: "S", client: "", operator: "S", auditor: "S" },
  stream_items: { worker: "S", client: "", operator: "S", auditor: "S" },
  workers: { worker: "SIUD", client: "", operator: "S", auditor: "S" },
  audit_executions: { worker: "", client: "", operator: "S", auditor: "S" },
  audit_interrupts: { worker: "", client: "", operator: "S", auditor: "S" },
  audit_interventions: { worker: "", client: "", operator: "S", auditor: "S" },
  audit_ledger: { worker: "", client: "", operator: "S", auditor: "S" },
  audit_state_changes: { worker: "", client: "", operator: "S", auditor: "S" },
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

/** What no worker may call, and all that the others may. */
const callable = {
  refusedToWorker:
    "accept_identity anchor apply_grants grant_client grant_roles make_role prune rebuild remove_executions".split(" "),
  client:
    "answer_by_token asked_by_token cancel cancel_function cancel_sub_flow channel claim_interrupt close continue_with delegate_interrupt emit emit_to_sub_flow inbox intervene mark_intervention_consumed release_interrupt reschedule_function seal seen snooze_interrupt start start_execution to_ms withdraw".split(
      " ",
    ),
  operator:
    "alike_error asked_of broken_anchors broken_chains bulk bulk_failures bulk_report cancel channel claim_interrupt close close_snapshot deadline_of delegate_interrupt differences early_record edit_state error_pieces events explain flow_pause_of from_ms handling_of has_other_version inbox interrupt_of interrupt_record intervention_of is_ending is_item is_projected_id iso lifecycle_of meta ms next_follow_up now open_dispatches parked_below parked_of pattern_pieces pause pause_flow pause_of pending_on pieces_of planned_of projected_owner projected_record redrive redriven_by release_interrupt retry run_schedule seal skip snooze_interrupt standing state_at status_of sub_flows_of timeline to_ms tried_versions unpause unpause_flow visible_in wall_clock".split(
      " ",
    ),
  auditor:
    "alike_error asked_of broken_anchors broken_chains bulk_failures bulk_report channel close_snapshot deadline_of differences early_record error_pieces events explain flow_pause_of from_ms handling_of has_other_version inbox interrupt_of interrupt_record intervention_of is_ending is_item is_projected_id iso lifecycle_of meta ms next_follow_up now parked_of pattern_pieces pause_of pending_on pieces_of projected_owner projected_record redriven_by state_at status_of timeline to_ms tried_versions visible_in wall_clock".split(
      " ",
    ),
};

test("each role may call exactly the functions of its list", async () => {
  const rows = await sql<{ name: string; worker: boolean; client: boolean; operator: boolean; auditor: boolean }[]>`
    select p.proname as name, ${sql.unsafe(
      names
        .map((name) => `bool_or(has_function_privilege('${prefix}_${name}', p.oid, 'execute')) as ${name}`)
        .join(", "),
    )}
    from pg_proc p where p.pronamespace = 'flowledger'::regnamespace and p.prorettype <> 'trigger'::regtype
    group by 1 order by 1`;

  expect({
    refusedToWorker: rows.filter(({ worker }) => !worker).map(({ name }) => name),
    client: rows.filter(({ client }) => client).map(({ name }) => name),
    operator: rows.filter(({ operator }) => operator).map(({ name }) => name),
    auditor: rows.filter(({ auditor }) => auditor).map(({ name }) => name),
  }).toEqual(callable);
});

test("who may call a function may call those that it calls with the caller's own rights", async () => {
  const missing = await sql<{ role: string; caller: string; callee: string }[]>`
    with f as (select p.oid, p.proname as name, p.prosecdef as is_definer, pg_get_functiondef(p.oid) as text from pg_proc p where p.pronamespace = 'flowledger'::regnamespace)
    select distinct r.role, a.name as caller, b.name as callee
    from unnest(${names.map((name) => `${prefix}_${name}`)}::text[]) r(role), f a join f b on b.name <> a.name and a.text ~ ('flowledger\\.' || b.name || '\\(')
    where not a.is_definer and has_function_privilege(r.role, a.oid, 'execute')
      and not exists (select from f c where c.name = b.name and has_function_privilege(r.role, c.oid, 'execute'))`;

  expect([...missing]).toEqual([]);
});

test("the threat model says which functions a client may call, and which a worker may not", async () => {
  const page = await readFile(new URL("../../docs/security.md", import.meta.url), "utf8");
  const namesIn = (start: string) => {
    const line = page.split("\n").find((text) => text.startsWith(start)) ?? "";
    return Array.from(line.split("reads the table")[0]?.matchAll(/`(\w+)`/g) ?? [], ([, name = ""]) => name);
  };

  expect(namesIn("The client may call")).toEqual(callable.client);
  expect(namesIn("No worker may call")).toEqual(callable.refusedToWorker);
});

test("an auditor verifies everything, and changes nothing", async () => {
  await using auditor = createOrchestrator({ connection: urlOf("auditor") });

  expect(await auditor.verify()).toEqual([]);
  await expect(auditor.anchor()).rejects.toThrow(/permission|read-only|takes no writes/);
});

test("the owner's next migration grants what is new, without the right to make roles", async () => {
  await sql`create table flowledger.later (x int)`;
  await sql`revoke all on flowledger.chain from ${sql(`${prefix}_auditor`)}`;
  await sql`revoke all on function flowledger.meta from ${sql(`${prefix}_auditor`)}`;

  await sql`select flowledger.apply_grants()`;

  const [row] = await sql`
    select has_table_privilege(${`${prefix}_auditor`}, 'flowledger.chain', 'select') as chain,
      has_function_privilege(${`${prefix}_auditor`}, 'flowledger.meta(uuid)', 'execute') as meta,
      has_table_privilege(${`${prefix}_worker`}, 'flowledger.later', 'select') as later`;
  await sql`drop table flowledger.later`;
  expect(row).toEqual({ chain: true, meta: true, later: false });
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
    >`select flowledger.start('as-worker', '{"n": 1}', '{"autoCloseTimeout": "0s"}') as id`;
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

test("a client cannot say that the contract has seen what it sends", async () => {
  const got: unknown[] = [];
  const typed = z.object({ n: z.number() });
  // What Postgres can say of an input it says at once.
  const flow = defineFlow("typed", { input: typed.refine(({ n }) => n < 100), events: { Go: typed } });
  flow.to("ask", (ctx) => {
    got.push(ctx.input);
    return ctx.pauseFor({ interruptId: "q", response: typed });
  });
  flow.when("Go").to("go", (ctx) => void got.push(ctx.input));
  await using orchestrator = createOrchestrator({ connection: urlOf("worker"), flows: [flow], logger: quiet });
  await orchestrator.startWorker({ drainTimeout: "1s" });
  const created = await orchestrator.flow(flow).createExecution({ autoClose: false });
  const execution = await orchestrator.flow(flow).startExecution({ n: 1 }, { autoClose: false });
  await untilPending(execution);

  const seq = await as("client", async (client) => {
    expect(await codeOf(client`select flowledger.start_execution(${created.id}, '{"n": "x"}', raw => false)`)).toBe(
      "CONTRACT_VIOLATED",
    );
    await client`select flowledger.start_execution(${created.id}, '{"n": 100}', raw => false)`;
    expect(
      await codeOf(
        client`select flowledger.continue_with(${execution.id}, 'q', '{"n": "x"}', null, null, true, false)`,
      ),
    ).toBe("CONTRACT_VIOLATED");
    await client`select flowledger.emit(${execution.id}, 'Go', '{"n": 2}', raw => false)`;
    const [row] = await client<[{ seq: number }]>`
      select flowledger.emit(${execution.id}, 'Go', '{"n": "x"}', raw => false) as seq`;
    return row.seq;
  });

  const routed = await untilEvent(execution, "inbox.routed", ({ of }) => of === seq);
  expect(routed.refused).toContain('event "Go" of flow "typed" does not fit the contract');
  await expect(created.waitForClose()).rejects.toMatchObject({ code: "EXECUTION_FAILED" });
  expect(got).toEqual([{ n: 1 }, { n: 2 }]);
});

test("nobody speaks in the library's own name", async () => {
  const id = await as("client", async (client) => {
    const [row] = await client<[{ id: string }]>`select flowledger.start('plain', '1', '{"allowUnknown": true}') as id`;
    for (const actor of [
      ...reservedActors,
      " timer",
      "link\u200b",
      "li\u00adnk",
      "",
      "\t\u3000\u2060",
      "a".repeat(501),
    ]) {
      expect(await codeOf(client`select flowledger.emit(${row.id}, 'E', actor => ${actor})`)).toBe("USAGE_INVALID");
      expect(await codeOf(client`select flowledger.cancel(${row.id}, actor => ${actor})`)).toBe("USAGE_INVALID");
    }
    return row.id;
  });

  expect(await sql`select from flowledger.ledger where execution_id = ${id}`).toHaveLength(2);
});

test("V5: a role that row level security hides all jobs from is refused as a worker, and doctor says why", async () => {
  const flow = defineFlow("hidden-jobs");
  flow.to("pass", () => null);
  await using orchestrator = createOrchestrator({ connection: urlOf("worker"), flows: [flow] });
  // Somebody else's policy does not help.
  await sql.unsafe(`alter policy ${prefix}_worker on flowledger_jobs._private_jobs to ${prefix}_client`);

  const error = await orchestrator.startWorker().catch((thrown: unknown) => thrown);
  const jobs = (await examine(urlOf("worker"))).find(({ name }) => name === "jobs");
  await sql.unsafe(`alter policy ${prefix}_worker on flowledger_jobs._private_jobs to ${prefix}_worker`);

  expect(error).toMatchObject({ code: "WORKER_FAILED", message: expect.stringContaining("sees no jobs") });
  expect(jobs).toMatchObject({ verdict: "fail", remedy: expect.stringContaining("grant_roles") });
});

test("a client reaches nothing but the commands, and the auditor nothing that writes", async () => {
  for (const call of [
    "flowledger.append_verdict(null, 1, null, 1, 1)",
    "flowledger.reap(1000, 1000)",
    "flowledger.create_executions(null, null, null, null, null, null, null, null, null, null, null, null, null)",
    "flowledger.create_execution(null, null, null, null, null, null, null, null, null, null, null, null, null)",
    "flowledger.lock_table('anchors', 'x')",
    "flowledger.add_jobs('{}')",
    "flowledger.state_at(null)",
    "flowledger.grant_roles()",
    "flowledger.accept_identity()",
  ])
    await expect(as("client", (client) => client.unsafe(`select ${call}`))).rejects.toMatchObject({ code: "42501" });
  await expect(as("client", (client) => client`select flowledger_jobs.add_job('x')`)).rejects.toMatchObject({
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

/** People with a login of their own: what they may do comes from the roles that they are members of. */
async function withPeople(work: (as: (who: "ann" | "bob", text: string) => Promise<postgres.Row[]>) => Promise<void>) {
  const people = { ann: `${prefix}_ann`, bob: `${prefix}_bob` };
  await administer(database.adminUrl, async (admin) => {
    for (const person of Object.values(people))
      await admin.unsafe(`create role ${person} login noinherit password '${password}'`);
    await admin.unsafe(`grant ${prefix}_client, ${prefix}_worker to ${people.ann}`);
  });
  const clients = Object.entries(people).map(([who, username]) => {
    const url = new URL(database.url);
    Object.assign(url, { username, password });
    return [who, postgres(url.href, { max: 1, onnotice: () => {} })] as const;
  });
  const byName = new Map(clients);
  try {
    await work(async (who, text) => [...((await byName.get(who)?.unsafe(text)) ?? [])]);
  } finally {
    for (const [, client] of clients) await client.end();
    await administer(database.adminUrl, async (admin) => {
      for (const person of Object.values(people)) await admin.unsafe(`drop owned by ${person}; drop role ${person}`);
    });
  }
}

const rolesOf = async (id: unknown) =>
  (await sql`select distinct role from flowledger.ledger where execution_id = ${String(id)}`).map(
    ({ role }) => role as string,
  );

test("D28: the ledger says who logged in and as whom, whoever's function it was that wrote", async () => {
  const wrap = (name: string) => `
    create function ${name}() returns uuid language sql security definer set search_path = pg_catalog
      as $$ select flowledger.start('wrapped', '1', '{"allowUnknown": true}') $$`;
  await sql`create schema wrapping`;
  await sql`grant usage on schema wrapping to public`;
  await sql.unsafe(wrap("wrapping.by_owner"));
  await administer(database.adminUrl, (admin) => admin.unsafe(wrap("wrapping.by_admin")));

  await withPeople(async (as) => {
    const [ann, bob] = [`${prefix}_ann`, `${prefix}_bob`];
    const start = `select flowledger.start('plain', '1', '{"allowUnknown": true}') as id`;
    const [asClient] = await as("ann", `set role ${prefix}_client; ${start}`).then((results) =>
      results.flat().slice(-1),
    );
    await as("ann", "reset role");
    const [byOwner] = await as("bob", "select wrapping.by_owner() as id");
    const [byAdmin] = await as("bob", "select wrapping.by_admin() as id");
    const [both] = await as("ann", `set role ${prefix}_worker; select wrapping.by_owner() as id`).then((all) =>
      all.flat().slice(-1),
    );

    expect(await rolesOf(asClient?.["id"])).toEqual([`${ann} as ${prefix}_client`]);
    for (const row of [byOwner, byAdmin]) expect(await rolesOf(row?.["id"])).toEqual([bob]);
    expect(await rolesOf(both?.["id"])).toEqual([`${ann} as ${prefix}_worker`]);
  });
  await sql`drop schema wrapping cascade`;
});

test("connection: { role } holds for every connection: a login that works as the worker serves, and the ledger names both", async () => {
  const flow = defineFlow("as-another");
  flow.to("keep", (ctx) => ctx.setState("did", true));

  await withPeople(async () => {
    const { hostname: host, port, pathname } = new URL(database.url);
    const username = `${prefix}_ann`;
    const role = `${prefix}_worker`;
    const connection = {
      host,
      port: Number(port),
      database: pathname.slice(1),
      username,
      password,
      connection: { role },
    };
    await using orchestrator = createOrchestrator({ connection, flows: [flow], logger: quiet });
    await orchestrator.startWorker({ drainTimeout: "1s" });
    const execution = await orchestrator.flow(flow).startExecution(1, { autoCloseTimeout: 0 });

    expect(await execution.waitForClose()).toEqual({ did: true });
    expect(await rolesOf(execution.id)).toContain(`${username} as ${role}`);
  });
});

test("D28: a start in somebody's transaction is written down as theirs", async () => {
  const flow = defineFlow("theirs");
  flow.to("pass", () => null);
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
  const client = postgres(urlOf("worker"), { max: 1, onnotice: () => {} });

  const { id } = await client.begin((tx) => orchestrator.flow(flow).startExecution(1, { tx }));
  await client.end();

  expect(await rolesOf(id)).toEqual([`${prefix}_worker`]);
});

test("D28: rights go by the role that a session works as, and nobody can say to be somebody else", async () => {
  const start = `select flowledger.start('f', '1', '{"allowUnknown": true}') as id`;
  const takeOver = [
    `set role ${prefix}_worker`,
    `set session authorization ${prefix}_worker`,
    `select set_config('role', '${prefix}_worker', false)`,
    `select set_config('session_authorization', '${prefix}_worker', false)`,
    `create function pg_temp.as_worker() returns uuid language sql set role = '${prefix}_worker' as $$ ${start} $$; select pg_temp.as_worker()`,
  ];

  await withPeople(async (as) => {
    for (const who of ["ann", "bob"] as const) expect(await codeOf(as(who, start))).toBe("42501");
    for (const text of [...takeOver, start]) expect(await codeOf(as("bob", text))).toBe("42501");

    await as("ann", `set role ${prefix}_client`);
    expect(await codeOf(as("ann", start))).toBe("ok");
    expect(await codeOf(as("ann", "select flowledger.reap(0, 0)"))).toBe("42501");
    await as("ann", "reset role");
    expect(await codeOf(as("ann", start))).toBe("42501");
    expect(await codeOf(as("ann", takeOver[1] ?? ""))).toBe("42501");
    // A member of the role may work as it, in a function too; what it writes says so.
    const [row] = (await as("ann", takeOver[4] ?? "")).flat();
    expect(await rolesOf(row?.["as_worker"])).toEqual([`${prefix}_ann as ${prefix}_worker`]);
  });
});

test.each(["", "Upper", "a b", `x"; drop schema flowledger cascade; --`, "x".repeat(60)])(
  "the prefix %j is refused",
  async (bad) => {
    await expect(sql`select flowledger.grant_roles(${bad})`).rejects.toMatchObject({ code: "FL008" });
  },
);

test(
  "the command line does for each role what that may do: auditors and operators look at everything, operators command",
  { timeout: 90_000 },
  async () => {
    const below = defineFlow("roles.below");
    below.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", response: z.string() }));
    const above = defineFlow("roles.above");
    above.to("own", (ctx) => ctx.pauseFor({ interruptId: "own" }));
    above.toSubFlow(below);
    await using orchestrator = createOrchestrator({ connection: database.url, flows: [above], logger: quiet });
    await orchestrator.startWorker();
    const execution = await orchestrator.flow(above).startExecution(null, { autoClose: false });
    await vi.waitFor(async () => expect(await execution.getPendingInterrupts()).toHaveLength(2), { timeout: 8000 });
    const run = async (name: (typeof names)[number], ...args: string[]) => {
      const { code, stdout, stderr } = await runCli(urlOf(name), ...args);
      return { args, code, said: `${stdout}${stderr}` };
    };

    for (const name of ["auditor", "operator"] as const) {
      const looks = ["show", "explain", "timeline", "history"].map((command) => [command, execution.id]);
      const said = [...looks, ["inbox"], ["list"], ["failures"], ["verify"]].map((args) => run(name, ...args));
      for (const one of await Promise.all(said))
        expect(one).toMatchObject({ code: 0, said: expect.not.stringContaining("may not") });
    }
    expect((await run("auditor", "inbox")).said).toContain("own");
    const why = ["--actor", "ann", "--reason", "because"];
    for (const args of [
      ["pause", execution.id, ...why],
      ["unpause", execution.id, ...why],
      ["edit-state", execution.id, "--set", '{"a": 1}', ...why],
      ["seal", execution.id],
      ["close", execution.id, "--cancel-interrupts"],
    ])
      expect(await run("operator", ...args)).toMatchObject({ args, code: 0 });
    for (const args of [
      ["seal", execution.id],
      ["cancel", execution.id],
      ["start", "roles.above", "1"],
    ]) {
      const { code, said } = await run("auditor", ...args);
      expect({ args, code, said }).toMatchObject({
        code: 1,
        said: expect.stringMatching(/may not do that|takes no writes/),
      });
    }
  },
);

test.each(["auditor", "operator"] as const)("an %s may ask for every filter of a list", async (role) => {
  const asked = {
    flow: "roles.none",
    status: "failed",
    version: "0123456789",
    idPrefix: "01",
    idempotencyKey: "key",
    errorLike: "declined",
    metadata: { tenant: "acme" },
    redriven: false,
  } as const;
  await using orchestrator = createOrchestrator({ connection: urlOf(role) });

  expect((await orchestrator.listExecutions(asked)).executions).toEqual([]);
  expect(await orchestrator.countExecutions(asked)).toMatchObject({ count: 0 });
});

test("an operator finds what is parked and retries it, with who and why; a client may not", async () => {
  const flow = defineFlow("roles.parked", {}, { onFailure: "park" });
  let isMended = false;
  flow.to("work", () => {
    if (!isMended) throw new Error("no");
  });
  await using working = createOrchestrator({ connection: database.url, flows: [flow] });
  await working.startWorker();
  const { id } = await working.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(await working.getExecution(id), "chunk.parked");
  const options = { actor: "ann", reason: "mended" };
  isMended = true;

  await expect(
    as("client", (client) => client`select flowledger.retry(${id}, ${client.json(options)})`),
  ).rejects.toThrow(/permission denied/);
  await using operating = createOrchestrator({ connection: urlOf("operator"), flows: [flow] });
  const { executions } = await operating.listExecutions({ status: "parked" });
  const execution = await operating.getExecution(executions[0]?.id ?? "");
  await execution.retry(options);

  expect(execution.id).toBe(id);
  await execution.waitForClose();
  await expect(
    as("client", (client) => client`select flowledger.redrive(${id}, ${client.json(options)})`),
  ).rejects.toThrow(/permission denied/);
  const next = await execution.redrive({ ...options, from: 2 });
  await next.waitForClose();
  expect(await execution.redrivenBy()).toEqual([next.id]);
  expect(await execution.waitForClose()).toEqual({});
  expect(await execution.history({ types: ["chunk.retried"] })).toMatchObject([options]);
});

test("an operator pauses a flow and does a bulk with its own role, which workers with theirs carry out; a client may neither", async () => {
  let isMended = false;
  const flow = defineFlow("roles.bulk", {}, { onFailure: "park" });
  flow.to("work", () => {
    if (!isMended) throw new Error("no carrier");
  });
  const by = { actor: "ann", reason: "INC-12" };
  await using serving = createOrchestrator({ connection: urlOf("worker"), flows: [flow], logger: quiet });
  await using operating = createOrchestrator({ connection: urlOf("operator"), flows: [flow] });
  await serving.startWorker({ drainTimeout: "1s" });
  const start = () =>
    as(
      "client",
      (own) => own<[{ id: string }]>`select flowledger.start('roles.bulk', 'null', '{"autoCloseTimeout": 0}') as id`,
    );
  const [started] = await start();
  const parked = await serving.getExecution(started.id);
  await untilEvent(parked, "chunk.parked");
  expect(await operating.pauseFlow("roles.bulk", { ...by, intake: "refuse" })).toBe(true);
  await expect(start()).rejects.toMatchObject({ code: "FL014" });
  for (const call of [
    "pause_flow('roles.bulk', '{}')",
    "unpause_flow('roles.bulk', '{}')",
    "bulk('{}')",
    "bulk_report(null)",
    "run_bulk(null, null, 1)",
  ])
    await expect(as("client", (own) => own.unsafe(`select flowledger.${call}`))).rejects.toThrow(/permission denied/);

  isMended = true;
  const bulk = await operating.bulk({ action: "retry", where: { flow: "roles.bulk" }, ...by });
  expect(await bulk.wait()).toEqual({ matched: 1, done: 1, skipped: 0, failed: 0 });
  expect(await parked.history({ types: ["chunk.retried"] })).toMatchObject([{ ...by, bulk: bulk.id }]);
  expect(await sql`select role, by from flowledger.bulks where execution_id = ${bulk.id}`).toEqual([
    { role: `${prefix}_operator`, by: `${prefix}_operator` },
  ]);
  expect((await parked.explain()).kind).toBe("flowPaused");
  await operating.unpauseFlow("roles.bulk", by);
  await parked.waitForClose();

  // What it did by the bulk it may not do itself: no operator says which bulk it was.
  const other = await operating.bulk({ action: "pause", where: { flow: "roles.bulk", status: "running" }, ...by });
  await other.wait();
  await expect(
    as("operator", (own) => own`select flowledger.retry(${parked.id}, ${own.json({ ...by, bulk: bulk.id })})`),
  ).rejects.toMatchObject({ code: "FL008" });
}, 60_000);

test("a client that says that it claims what it wakes claims nothing, and what it wakes has its job", async () => {
  await as("client", async (client) => {
    const [row] = await client<{ id: string }[]>`select flowledger.start('told', null, '{"allowUnknown": true}') as id`;
    const id = row?.id ?? "";
    await sql`update flowledger.executions set wake_at = null where id = ${id}`;
    await sql`delete from flowledger_jobs._private_jobs`;

    await client`select set_config('fl.told', ${id}, false)`;
    await client`select flowledger.emit(${id}, 'Go')`;
    const claim = client`select * from flowledger.claim_told(true, gen_random_uuid(), gen_random_uuid(), ${id}, 1)`;

    await expect(claim).rejects.toMatchObject({ code: "42501" });
    expect(await sql`select 1 from flowledger_jobs._private_jobs where payload::text like ${`%${id}%`}`).toHaveLength(
      1,
    );
  });
});

test("a bulk ends where the role that asked for it may ask for none any more", async () => {
  const flow = defineFlow("roles.revoked").to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss" }));
  await using serving = createOrchestrator({ connection: urlOf("worker"), flows: [flow], logger: quiet });
  await using operating = createOrchestrator({ connection: urlOf("operator"), flows: [flow] });
  const ids = await serving.flow(flow).startMany([null, null], { autoClose: false });
  const where = { flow: "roles.revoked" };
  const bulk = await operating.bulk({ action: "cancel", where, actor: "ann", reason: "INC-12" });
  await sql`revoke execute on function flowledger.bulk(jsonb) from ${sql(`${prefix}_operator`)}`;
  await serving.startWorker({ drainTimeout: "1s" });

  await expect(bulk.wait()).rejects.toThrow(/asked for bulk .+, and has no right to it any more/);
  await sql`select flowledger.apply_grants()`;
  expect(await bulk.report()).toMatchObject({ matched: 2, done: 0 });
  for (const id of ids) await (await serving.getExecution(id)).cancel();
}, 60_000);
