/** Clients that are limited to flows and to metadata: tried as those roles, at every door that a client has. */
import { randomBytes } from "node:crypto";
import postgres from "postgres";
import { afterAll, expect, test, vi } from "vitest";
import { z } from "zod";
import { createOrchestrator, defineFlow, PermissionError } from "../../src/index.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import { readsOf } from "../../src/store/reads.ts";
import { administer, emptyDatabase, testDatabase } from "../support/database.ts";
import { runCli } from "../support/cli.ts";
import { codeOf, present, untilPending } from "../support/doors.ts";
import { serving, untilEvent } from "../support/flows.ts";
import { text } from "../doors/options/kinds.ts";

const database = await testDatabase();
const { sql } = database;
const prefix = `g${randomBytes(4).toString("hex")}`;
const password = randomBytes(8).toString("hex");
const names = ["acme", "bolt", "any", "both", "wide", "worker", "client", "operator", "auditor"] as const;
type Name = (typeof names)[number];
const [acme, bolt] = [{ tenant: "acme" }, { tenant: "bolt" }];

/** As long as a filter may be, in characters and in bytes. */
const widest = { tenant: text(980).longest ?? "" };

await administer(database.adminUrl, async (admin) => {
  await admin`select flowledger.grant_roles(${prefix})`;
  await admin`select flowledger.grant_client(${`${prefix}_acme`}, ${["shop", "outer"]}, ${admin.json(acme)}, '{"actor": "ann", "reason": "a shop"}')`;
  await admin`select flowledger.grant_client(${`${prefix}_bolt`}, ${["shop"]}, ${admin.json(bolt)})`;
  await admin`select flowledger.grant_client(${`${prefix}_any`})`;
  await admin`select flowledger.grant_client(${`${prefix}_wide`}, null, ${admin.json(widest)})`;
  await admin.unsafe(
    `create role ${prefix}_both login inherit; grant ${prefix}_acme, ${prefix}_bolt to ${prefix}_both`,
  );
  for (const name of names) await admin.unsafe(`alter role ${prefix}_${name} password '${password}'`);
});

afterAll(() =>
  administer(database.adminUrl, async (admin) => {
    for (const name of names) await admin.unsafe(`drop owned by ${prefix}_${name}`);
    for (const name of [...names].toReversed()) await admin.unsafe(`drop role ${prefix}_${name}`);
  }),
);

function urlOf(name: Name): string {
  const url = new URL(database.url);
  url.username = `${prefix}_${name}`;
  url.password = password;
  return url.href;
}

async function as<T>(name: Name, work: (client: postgres.Sql) => Promise<T>): Promise<T> {
  const client = postgres(urlOf(name), { max: 1, onnotice: () => {} });
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function start(name: Name, flow: string, options: object): Promise<string> {
  return await as(name, async (client) => {
    const [row] = await client<[{ id: string }]>`
      select flowledger.start(${flow}, '1', ${JSON.stringify({ allowUnknown: true, ...options })}::text::jsonb) as id`;
    return row.id;
  });
}

/** What a role is told, word by word, without the id that it asked about. */
async function told(name: Name, call: string, id: string): Promise<unknown> {
  return await as(name, (client) => client.unsafe(`select flowledger.${call.replace("$1", `'${id}'`)} as answer`)).then(
    (rows) => JSON.stringify([...rows]).replaceAll(id, "<id>"),
    (error: unknown) => {
      if (!(error instanceof postgres.PostgresError)) throw error;
      const { code, message, detail, hint, where } = error;
      return { code, message: message.replaceAll(id, "<id>"), detail, hint, where };
    },
  );
}

const nobody = "0190a000-0000-7000-8000-000000000000";

const calls = [
  `emit($1, 'Go')`,
  `emit($1, 'Go', '1', 'key', 'ann', true, false)`,
  `continue_with($1, 'q')`,
  `continue_with($1, 'q', '1', '{"onlyIfPending": true}')`,
  `continue_with($1, 'q', '1', 'r', 'ann', true, false)`,
  `continue_with($1, 'q', '1', 'r', 'ann', true, true, true)`,
  `withdraw($1, 'q')`,
  `intervene($1, '1')`,
  `mark_intervention_consumed($1, 'i', 'c')`,
  `seal($1)`,
  `close($1)`,
  `close($1, 'r', 'cancel', 'ann', true, 'fail')`,
  `cancel($1)`,
  `cancel_function($1, true)`,
  `reschedule_function($1, null, 1000)`,
  `emit_to_sub_flow($1, '${nobody}', 'Go')`,
  `cancel_sub_flow($1, '${nobody}')`,
  `start_execution($1, '1')`,
  `seen(array[$1::uuid])`,
  `claim_interrupt($1, 'q', '{"actor": "ann"}')`,
  `release_interrupt($1, 'q', '{"actor": "ann"}')`,
  `delegate_interrupt($1, 'q', '{"actor": "ann", "to": "bo"}')`,
  `snooze_interrupt($1, 'q', '{"actor": "ann", "until": "2100-01-01T00:00:00Z"}')`,
];

test.each(calls)("%s says the same of another tenant's execution as of none, and changes nothing", async (call) => {
  const foreign = await start("bolt", "shop", { metadata: bolt, delay: "1h" });
  const own = await start("acme", "shop", { metadata: acme, delay: "1h" });

  const answer = await told("acme", call, foreign);

  expect(answer).toEqual(await told("acme", call, nobody));
  expect(answer).not.toEqual(await told("acme", call, own));
  expect(await sql`select from flowledger.ledger where execution_id = ${foreign}`).toHaveLength(2);
});

test("every function that a client may call is tried with another tenant's id", async () => {
  const rows = await sql<{ name: string }[]>`
    select distinct p.proname as name from pg_proc p
    where p.pronamespace = 'flowledger'::regnamespace and has_function_privilege(${`${prefix}_acme`}, p.oid, 'execute')`;

  const tried = new Set([...calls.map((call) => call.split("(")[0] ?? ""), "start", "channel", "to_ms"]);
  // These take no id: the tests below try them.
  for (const name of ["inbox", "asked_by_token", "answer_by_token"]) tried.add(name);
  expect(rows.map(({ name }) => name).filter((name) => !tried.has(name))).toEqual([]);
});

test("a limited client starts what it is granted, with the metadata of its limit, and hears how it ended", async () => {
  const id = await start("acme", "shop", { metadata: { ...acme, more: 1 }, delay: "1h" });

  await expect(start("acme", "shop", {})).rejects.toThrow(
    `role "${prefix}_acme" may start flow "shop" only with metadata {"tenant": "acme"}`,
  );
  await expect(start("acme", "shop", { metadata: bolt })).rejects.toMatchObject({ code: "FL008" });
  await expect(start("acme", "payroll", { metadata: acme })).rejects.toMatchObject({
    code: "FL008",
    message: `role "${prefix}_acme" may not start flow "payroll"`,
    hint: "it may start outer, shop",
  });
  await as("acme", (client) => client`select flowledger.cancel(${id}, 'enough')`);
  expect(await as("acme", (client) => client`select status, metadata from flowledger.seen(${[id]})`)).toMatchObject([
    { status: "cancelled", metadata: { ...acme, more: 1 } },
  ]);
  await expect(as("acme", (client) => client`select from flowledger.executions`)).rejects.toMatchObject({
    code: "42501",
  });
});

test("a limited client finds, claims and answers what waits in its own executions, and nothing else", async () => {
  const links: string[] = [];
  const shop = defineFlow("shop");
  shop.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", assign: ["group:shop"], link: true }));
  shop.when("$interrupt").to("mail", (ctx) => {
    if (ctx.input.link) links.push(`${ctx.execution.id} ${ctx.input.link.split("/a/")[1]}`);
  });
  await using orchestrator = await serving(database, [shop], { publicUrl: "https://example.com" });
  const ids = new Map<string, string>();
  for (const [name, metadata] of Object.entries({ acme, bolt })) {
    const execution = await orchestrator.flow(shop).startExecution(1, { metadata });
    await untilPending(execution, 1);
    await untilEvent(execution, "interrupt.linked");
    ids.set(name, execution.id);
  }
  await vi.waitFor(() => expect([...ids.values()].every((id) => links.some((link) => link.startsWith(id)))).toBe(true));
  const token = (name: string) => links.find((link) => link.startsWith(ids.get(name) ?? "?"))?.split(" ")[1] ?? "";
  const listed = (name: Name, options: object) =>
    as(name, async (client) => {
      const rows = await client<{ id: string }[]>`
        select i ->> 'executionId' as id from flowledger.inbox(${JSON.stringify(options)}::text::jsonb) i`;
      return rows.map(({ id }) => id).filter((id) => [...ids.values()].includes(id));
    });

  for (const options of [{}, { for: ["group:shop"] }]) {
    expect(await listed("acme", options)).toEqual([ids.get("acme")]);
    expect((await listed("both", options)).toSorted()).toEqual([...ids.values()].toSorted());
    for (const name of ["client", "operator", "auditor", "worker"] as const)
      expect((await listed(name, options)).toSorted()).toEqual([...ids.values()].toSorted());
  }
  const foreign = await told("acme", `answer_by_token('${token("bolt")}', '1')`, nobody);
  expect(foreign).toEqual(await told("acme", `answer_by_token('${"A".repeat(43)}', '1')`, nobody));
  expect(await told("acme", `asked_by_token('${token("bolt")}')`, nobody)).toMatchObject({ code: "FL017" });
  await as("acme", (client) => client`select flowledger.answer_by_token(${token("acme")}, '1')`);
  expect(await listed("acme", {})).toEqual([]);
  expect(await listed("bolt", {})).toEqual([ids.get("bolt")]);
});

test("keys of tenants are apart: none finds, blocks or is told of another's", async () => {
  const key = { idempotencyKey: "order-17", delay: "1h" };
  const ids = [
    await start("acme", "shop", { metadata: acme, ...key }),
    await start("bolt", "shop", { metadata: bolt, ...key }),
    await start("client", "shop", key),
  ];

  expect(new Set(ids).size).toBe(3);
  expect(await start("acme", "shop", { metadata: acme, ...key })).toBe(ids[0]);
  await expect(
    as("acme", (client) =>
      client.unsafe(
        `select flowledger.start('shop', '2', '${JSON.stringify({ metadata: acme, allowUnknown: true, ...key })}')`,
      ),
    ),
  ).rejects.toThrow(`idempotency key order-17 of flow shop was used with another input (execution ${ids[0]})`);
  // With a key or without: what is said of an id that is not there.
  for (const more of [{}, { idempotencyKey: "order-18" }])
    await expect(start("acme", "shop", { metadata: acme, id: ids[1], ...more })).rejects.toMatchObject({
      code: "FL001",
      message: `execution ${ids[1]} does not exist`,
    });
  await expect(start("acme", "shop", { metadata: acme, id: ids[0], idempotencyKey: "order-19" })).rejects.toThrow(
    `execution id ${ids[0]} is taken`,
  );
});

test("the longest key of the longest filter is a key like any other", async () => {
  const key = { metadata: widest, idempotencyKey: text(500).longest, delay: "1h" };

  const [first, second, other] = [
    await start("wide", "n".repeat(100), key),
    await start("wide", "n".repeat(100), key),
    await start("wide", "n".repeat(100), { ...key, idempotencyKey: "order-17" }),
  ];

  expect(second).toBe(first);
  expect(other).not.toBe(first);
});

test("a client that waits is refused its look at the tables once, and asks as a client from then on", async () => {
  const id = await start("acme", "shop", { metadata: acme, delay: "1h" });
  const statements: string[] = [];
  const client = postgres(urlOf("acme"), { max: 1, debug: (_, query) => void statements.push(query) });
  const reads = readsOf({ sql: client, target: { user: "acme", place: "here", schema: "flowledger" } });

  for (let look = 0; look < 3; look++) expect((await reads.headers([ExecutionId.parse(id)])).size).toBe(1);

  await client.end();
  expect(statements.filter((query) => query.includes("join flowledger.executions"))).toHaveLength(1);
  expect(statements.filter((query) => query.includes("flowledger.seen("))).toHaveLength(3);
});

test("a flow that nobody serves is refused to a limited client without the names of flows that it may not start", async () => {
  await using own = await testDatabase();
  const [shop, payroll] = [defineFlow("shopping"), defineFlow("shopping-payroll")];
  for (const flow of [shop, payroll]) flow.to("pass", () => null);
  await using orchestrator = await serving(own, [shop, payroll]);
  await orchestrator.flow(shop).start(null);
  await administer(
    own.adminUrl,
    (admin) =>
      admin`select flowledger.grant_client(${`${prefix}_tenant`}, ${["shopping", "shopping-payrol"]}), set_config('role', 'none', false)`,
  );
  const message = await administer(own.adminUrl, async (admin) => {
    await admin.unsafe(`set session authorization ${prefix}_tenant`);
    return await admin`select flowledger.start('shopping-payrol')`.then(
      () => "ok",
      (error: unknown) => (error instanceof postgres.PostgresError ? `${error.message}: ${error.hint}` : ""),
    );
  });
  await administer(own.adminUrl, (admin) => admin.unsafe(`drop owned by ${prefix}_tenant; drop role ${prefix}_tenant`));

  expect(message).toContain('no worker has ever served a flow named "shopping-payrol" here');
  expect(message).toContain("shopping.");
  expect(message).not.toContain("shopping-payroll");
});

test("what an execution calls belongs to it: its questions are answered by who may answer it, and by nobody else", async () => {
  const inner = defineFlow("inner");
  inner.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }));
  const outer = defineFlow("outer");
  outer.toSubFlow(inner);
  await using orchestrator = await serving(database, [outer]);
  const id = await start("acme", "outer", { metadata: acme, autoCloseTimeout: 0 });
  const execution = await orchestrator.getExecution(id);
  const { id: question } = present((await untilPending(execution))[0]);
  const [child] = question.split(/:(?=q$)/);

  expect(await codeOf(as("bolt", (client) => client`select flowledger.continue_with(${id}, ${question}, '1')`))).toBe(
    "EXECUTION_NOT_FOUND",
  );
  expect(await codeOf(as("bolt", (client) => client`select flowledger.continue_with(${child ?? ""}, 'q', '1')`))).toBe(
    "EXECUTION_NOT_FOUND",
  );
  await as("acme", (client) => client`select flowledger.continue_with(${id}, ${question}, '"yes"')`);
  await execution.waitForClose();
  expect(await as("acme", (client) => client`select status from flowledger.seen(${[child ?? ""]})`)).toMatchObject([
    { status: "completed" },
  ]);
});

test("the rights of several roles add up, and a role without limits outweighs them", async () => {
  const [first, second] = [
    await start("both", "shop", { metadata: acme, delay: "1h" }),
    await start("both", "shop", { metadata: bolt, delay: "1h" }),
  ];
  const third = await start("client", "shop", { metadata: { tenant: "other" }, delay: "1h" });

  const seen = await as("both", (client) => client`select id from flowledger.seen(${[first, second, third]})`);
  expect(seen.map(({ id }) => String(id)).toSorted()).toEqual([first, second].toSorted());
  await expect(start("both", "shop", { metadata: { tenant: "other" } })).rejects.toThrow(
    'only with metadata {"tenant": "acme"} or {"tenant": "bolt"}',
  );
  await administer(database.adminUrl, (admin) => admin.unsafe(`grant ${prefix}_client to ${prefix}_both`));
  expect(await codeOf(as("both", (client) => client`select flowledger.emit(${third}, 'Go')`))).toBe("ok");
  await administer(database.adminUrl, (admin) => admin.unsafe(`revoke ${prefix}_client from ${prefix}_both`));
  // An operator's rights count for what operators do, and for nothing else.
  await administer(database.adminUrl, (admin) => admin.unsafe(`grant ${prefix}_operator to ${prefix}_both`));
  const asBoth = (call: string) => codeOf(as("both", (client) => client.unsafe(`select flowledger.${call}`)));
  expect(await asBoth(`emit('${third}', 'Go')`)).toBe("EXECUTION_NOT_FOUND");
  for (const call of ["seal", "close", "cancel"]) {
    const foreign = await start("client", "shop", { metadata: { tenant: "other" }, delay: "1h" });
    expect([call, await asBoth(`${call}('${foreign}')`)]).toEqual([call, "ok"]);
  }
  await administer(database.adminUrl, (admin) => admin.unsafe(`revoke ${prefix}_operator from ${prefix}_both`));
});

test("keys of a role that a limit without a filter covers too are those of all tenants", async () => {
  const membership = (change: string) => administer(database.adminUrl, (admin) => admin.unsafe(change));
  await membership(`grant ${prefix}_any to ${prefix}_both`);

  const options = { metadata: acme, delay: "1h", idempotencyKey: "wide" };
  const ids = [await start("both", "shop", options), await start("any", "shop", options)];
  const own = await start("acme", "shop", options);

  expect(new Set(ids).size).toBe(1);
  expect(ids).not.toContain(own);
  await membership(`revoke ${prefix}_any from ${prefix}_both`);
});

test("a role that grant_client makes may log in, holds no transaction open, and inherits nothing", async () => {
  expect(
    await sql`
      select rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolinherit, rolconfig from pg_roles
      where rolname = ${`${prefix}_acme`}`,
  ).toEqual([
    {
      rolcanlogin: true,
      rolsuper: false,
      rolcreatedb: false,
      rolcreaterole: false,
      rolinherit: false,
      rolconfig: ["idle_in_transaction_session_timeout=60s"],
    },
  ]);
});

test("a client of grant_roles hears that an execution has ended, and nothing of what is in it", async () => {
  const id = await start("client", "shop", { metadata: acme, idempotencyKey: "seen", limitKey: "seen" });
  await sql`select flowledger.cancel(${id})`;
  const hidden = { owner: null, lease_token: null, idempotency_key: null, limit_key: null };
  const row = { status: "cancelled", outcome: "cancelled", ...hidden };

  const ask = (client: postgres.Sql) => client`
    select status, outcome, metadata, close_snapshot, owner, lease_token, idempotency_key, limit_key from flowledger.seen(${[id]})`;

  expect(await as("client", ask)).toMatchObject([{ ...row, metadata: null, close_snapshot: null }]);
  expect(await as("any", ask)).toMatchObject([{ ...row, metadata: acme, close_snapshot: {} }]);
});

test("a limit that is granted again counts at once, and every grant stays in the table with who and why", async () => {
  await administer(database.adminUrl, async (admin) => {
    await admin`select flowledger.grant_client(${`${prefix}_bolt`}, ${["shop", "outer"]}, ${admin.json(bolt)}, '{"actor": "bob"}')`;
  });

  const id = await start("bolt", "outer", { metadata: bolt, delay: "1h" });
  const grants = await as(
    "auditor",
    (client) =>
      client`select flows, filter, actor from flowledger.client_grants where role = ${`${prefix}_bolt`} order by number`,
  );
  expect([...grants]).toEqual([
    { flows: ["shop"], filter: bolt, actor: null },
    { flows: ["shop", "outer"], filter: bolt, actor: "bob" },
  ]);
  expect(await as("operator", (client) => client`select flowledger.cancel(${id}) as done`)).toMatchObject([
    { done: true },
  ]);
  for (const change of [
    "update flowledger.client_grants set flows = null",
    "delete from flowledger.client_grants",
    "truncate flowledger.client_grants",
  ])
    await expect(sql.unsafe(change)).rejects.toMatchObject({ code: "FL010" });
});

test.each([
  ["no role", "null"],
  ["a name that is none", `'a b'`],
  ["everybody", `'public'`],
  ["a role of Postgres", `'pg_x'`],
  ["no flow", `'${prefix}_acme', '{}'`],
  ["a flow name that is none", `'${prefix}_acme', array['a b']`],
  ["a flow that is null", `'${prefix}_acme', array[null::text]`],
  ["metadata that are a list", `'${prefix}_acme', null, '[1]'`],
  ["metadata that are empty", `'${prefix}_acme', null, '{}'`],
  ["metadata with a forbidden key", `'${prefix}_acme', null, '{"__proto__": {"a": 1}}'`],
  ["an unknown option", `'${prefix}_acme', null, null, '{"who": "ann"}'`],
  ["the library's own actor", `'${prefix}_acme', null, null, '{"actor": "parent"}'`],
  ["a worker", `'${prefix}_worker'`],
  ["an operator", `'${prefix}_operator'`],
  ["a superuser", "current_user"],
  ["a member of a role without limits", `'${prefix}_both'`],
])("grant_client refuses %s", async (_, args) => {
  await administer(database.adminUrl, async (admin) => {
    await admin.unsafe(`grant ${prefix}_client to ${prefix}_both`);
    await expect(admin.unsafe(`select flowledger.grant_client(${args})`)).rejects.toMatchObject({
      code: "FL008",
      hint: expect.stringMatching(/./),
    });
    await admin.unsafe(`revoke ${prefix}_client from ${prefix}_both`);
  });
});

test.each(["inherit", "noinherit"])(
  "grant_client refuses who may become a role without limits: %s",
  async (inherits) => {
    const role = `${prefix}_${inherits}`;
    await administer(database.adminUrl, async (admin) => {
      await admin.unsafe(`create role ${role} ${inherits}; grant ${prefix}_client to ${role}`);
      await expect(admin`select flowledger.grant_client(${role})`).rejects.toMatchObject({
        code: "FL008",
        message: expect.stringContaining(`is a member of "${prefix}_client"`) as string,
      });
      await admin.unsafe(`drop role ${role}`);
    });
  },
);

test("a role that has rights in another database is refused, and the default prefix names the database", async () => {
  await using other = await testDatabase();
  await administer(other.adminUrl, async (admin) => {
    for (const call of [`grant_roles('${prefix}')`, `grant_client('${prefix}_acme')`])
      await expect(admin.unsafe(`select flowledger.${call}`)).rejects.toThrow(
        `has rights in database "${database.name}" as well`,
      );
    await admin`select flowledger.grant_roles()`;
    const made = await admin`select role from flowledger.role_grants order by 1`;
    const own = `flowledger_${other.name}`.slice(0, 50);
    expect(made.map(({ role }) => role as string)).toEqual(
      ["auditor", "client", "operator", "worker"].map((kind) => `${own}_${kind}`),
    );
    for (const { role } of made) await admin.unsafe(`drop owned by ${role}; drop role ${role}`);
  });
});

test("an owner that may make roles, and nothing more, grants them, limits one, and migrates again", async () => {
  await using other = await emptyDatabase();
  const maker = `${prefix}_maker`;
  const connection = Object.assign(new URL(other.url), { username: maker, password }).href;
  await administer(other.adminUrl, (admin) =>
    admin.unsafe(
      `create role ${maker} login createrole password '${password}'; grant create on database ${other.name} to ${maker}`,
    ),
  );
  try {
    await using orchestrator = createOrchestrator({ connection });
    await orchestrator.migrate();
    await using made = { sql: postgres(connection, { max: 1 }), [Symbol.asyncDispose]: () => made.sql.end() };
    await made.sql`select flowledger.grant_roles()`;
    await made.sql`select flowledger.grant_client(${`${maker}_acme`}, null, ${made.sql.json(acme)})`;
    await orchestrator.migrate();

    expect(await made.sql`select from flowledger.role_grants`).toHaveLength(5);
  } finally {
    await administer(other.adminUrl, async (admin) => {
      for (const { role } of await admin`select role from flowledger.role_grants`)
        await admin.unsafe(`drop owned by ${role}; drop role ${role}`);
      await admin.unsafe(`drop owned by ${maker} cascade; drop role ${maker}`);
    });
  }
});

test("the owner may limit a role that is there, and hears in a sentence that it may not make one", async () => {
  await expect(sql`select flowledger.grant_client(${`${prefix}_new`})`).rejects.toMatchObject({
    code: "FL008",
    message: expect.stringContaining(`may not make role "${prefix}_new"`),
  });
  await sql`select flowledger.grant_client(${`${prefix}_any`})`;
});

test("the command line does for a limited client what it may do, and knows nothing of the rest", async () => {
  const flow = defineFlow("shop");
  flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" })).to("keep", (ctx) => ctx.setState("answer", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  const options = ["--options", JSON.stringify({ metadata: acme, autoCloseTimeout: 0 })];
  const id = (await runCli(urlOf("acme"), "start", "shop", "1", ...options)).stdout.trim();
  const execution = await orchestrator.getExecution(id);
  await untilPending(execution);
  const run = async (...args: string[]) => (await runCli(urlOf("acme"), ...args)).code;

  expect(await run("emit", id, "Go")).toBe(0);
  expect(await run("resume", id, "q", '"yes"')).toBe(0);
  await execution.waitForClose();
  await using own = createOrchestrator({ connection: urlOf("acme") });
  expect(await (await own.getExecution(id)).waitForClose()).toEqual({ answer: "yes" });
  const foreign = await start("bolt", "shop", { metadata: bolt, delay: "1h" });
  const [known, unknown] = await Promise.all(
    [foreign, nobody].map(async (asked) => (await runCli(urlOf("acme"), "cancel", asked)).stderr.replace(asked, "")),
  );
  expect(known).toContain("does not exist");
  expect(known).toBe(unknown);
});

test.each(["acme", "client"] as const)(
  "role %s starts in TypeScript what it may, once per key, and hears the end",
  async (name) => {
    const flow = defineFlow("shop", {
      input: z.object({ n: z.string().transform(Number), asks: z.boolean().default(false) }),
    });
    flow.to("ask", (ctx) => (ctx.input.asks ? ctx.pauseFor({ interruptId: "boss" }) : ctx.input.n)).end();
    await using worker = await serving(database, [flow]);
    await using client = createOrchestrator({ connection: urlOf(name), flows: [flow] });
    const shop = client.flow(flow);
    const options = { metadata: acme, autoCloseTimeout: 0 };

    const waiting = await shop.startExecution({ n: "1", asks: true }, { ...options, idempotencyKey: `ts-${name}` });
    const again = await shop.startExecution({ n: "1", asks: true }, { ...options, idempotencyKey: `ts-${name}` });
    const conflict = await codeOf(shop.startExecution({ n: "2" }, { ...options, idempotencyKey: `ts-${name}` }));
    const taken = await codeOf(shop.startExecution({ n: "1" }, { ...options, id: waiting.id }));
    await untilPending(await worker.getExecution(waiting.id));
    await waiting.continueWith("boss", "yes");

    expect(again.id).toBe(waiting.id);
    expect([conflict, taken]).toEqual(["USAGE_INVALID", "USAGE_INVALID"]);
    // A client without limits commands, and is told that it ended: what came out is in other hands.
    const heard = (ending: Promise<unknown>) =>
      ending.catch((error: unknown) =>
        error instanceof PermissionError ? /is \w+, and its result/.exec(error.message)?.[0] : error,
      );
    const out = (value: unknown) => (name === "acme" ? value : "is completed, and its result");
    expect(await heard(waiting.waitForClose())).toEqual(out({ $final_result: "yes" }));
    expect(await heard(shop.start({ n: "2" }, options))).toEqual(out({ $final_result: 2 }));
    expect(await heard(Promise.resolve(shop.run({ n: "3" }, options)))).toEqual(out(3));
    const many = await shop.startMany([{ n: "4" }, { n: "5" }], {
      ...options,
      delay: "1h",
      priority: 2,
      timeout: "1d",
    });
    const [one] = (await worker.listExecutions({ idPrefix: many[1] ?? "" })).executions;
    expect(one).toMatchObject({ id: many[1], flow: "shop", metadata: acme });
    // A pause that nobody can answer fails it, as for everybody.
    expect(await codeOf(shop.start({ n: "6", asks: true }, options))).toBe(
      name === "acme" ? "NO_RESUME_HANDLE" : "PERMISSION_DENIED",
    );
    const unscoped = await codeOf(shop.startExecution({ n: "7" }, { delay: "1h" }));
    expect(unscoped).toBe(name === "acme" ? "USAGE_INVALID" : "ok");
    expect(await codeOf(shop.createExecution(options))).toBe("PERMISSION_DENIED");
  },
);

test.each(["acme", "client"] as const)(
  "role %s starts in a transaction of its own, with rows of its own: a commit shows both, a rollback neither",
  async (name) => {
    const flow = defineFlow("shop", { input: z.object({ n: z.string().transform(Number) }) });
    flow.to("double", (ctx) => ctx.input.n * 2).end();
    await using worker = await serving(database, [flow]);
    await using client = createOrchestrator({ connection: urlOf(name), flows: [flow] });
    await sql.unsafe(
      `create table if not exists public.baskets (id text); grant insert, select on public.baskets to public`,
    );
    const options = { metadata: acme, autoCloseTimeout: 0 };
    const begin = (work: (tx: postgres.TransactionSql) => Promise<string>) =>
      as(name, async (own) => (await own.begin(work)) as string);
    const buy = async (tx: postgres.TransactionSql, more: object = {}) => {
      const { id } = await client.flow(flow).startExecution({ n: "21" }, { ...options, ...more, tx });
      await tx`insert into public.baskets values (${id})`;
      return id;
    };
    const baskets = (id: string) => sql`select from public.baskets where id = ${id}`;

    const kept = await begin((tx) => buy(tx, { idempotencyKey: `tx-${name}` }));
    let lost = "";
    const rolledBack = begin(async (tx) => {
      lost = await buy(tx);
      throw new Error("never mind");
    });

    await expect(rolledBack).rejects.toThrow("never mind");
    expect(await (await worker.getExecution(kept)).waitForClose()).toEqual({ $final_result: 42 });
    expect(await begin((tx) => buy(tx, { idempotencyKey: `tx-${name}` }))).toBe(kept);
    expect(await codeOf(worker.getExecution(lost))).toBe("EXECUTION_NOT_FOUND");
    expect([(await baskets(kept)).length, (await baskets(lost)).length]).toEqual([2, 0]);
    const unscoped = await codeOf(begin((tx) => buy(tx, { metadata: bolt, delay: "1h" })));
    expect(unscoped).toBe(name === "acme" ? "USAGE_INVALID" : "ok");
    const created = begin(async (tx) => (await client.flow(flow).createExecution({ ...options, tx })).id);
    expect(await codeOf(created)).toBe("PERMISSION_DENIED");
  },
);
