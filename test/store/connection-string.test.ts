/** Connection strings as they are handed out: what each becomes, and what is refused by name. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, afterEach, describe, expect, test, vi } from "vitest";
import { createOrchestrator, defineFlow, FlowledgerError } from "../../src/index.ts";
import { parseConnectionString } from "../../src/store/connection-string.ts";
import { driverOptions, openDatabase, pgConfig, threadOptions } from "../../src/store/client.ts";
import { testDatabase } from "../support/database.ts";

const base = {
  host: ["db.example.com"],
  port: [5432],
  database: "app",
  username: "ann",
  password: "s3cret",
  connection: {},
};
const url = "postgres://ann:s3cret@db.example.com/app";

const folder = await mkdtemp(join(tmpdir(), "certificates-"));
const certificate = join(folder, "ca.pem");
await writeFile(certificate, "a certificate");
const authority = { rejectUnauthorized: true, isAnyName: true, ca: "a certificate" };
afterAll(() => rm(folder, { recursive: true }));
afterEach(() => void vi.unstubAllEnvs());

/** A variable for everything that a connection may say itself. */
const every = {
  PGHOST: "other",
  PGPORT: "6432",
  PGDATABASE: "other",
  PGUSER: "other",
  PGPASSWORD: "other",
  PGPASSFILE: "other",
  PGSERVICE: "other",
  PGAPPNAME: "other",
  PGOPTIONS: "other",
  PGCONNECT_TIMEOUT: "9",
  PGTARGETSESSIONATTRS: "standby",
  PGSSLMODE: "require",
};
const own = {
  host: "db",
  port: 1,
  database: "app",
  user: "ann",
  password: () => "s3cret",
  ssl: false,
  connect_timeout: 2,
  target_session_attrs: "primary",
  connection: { options: "a", application_name: "b" },
};

describe("what a connection string becomes", () => {
  const cases: readonly (readonly [string, string, object])[] = [
    ["plain", url, base],
    ["postgresql://", url.replace("postgres", "postgresql"), base],
    [
      "of Neon",
      `${url}?sslmode=require&channel_binding=require`,
      { ...base, ssl: "verify-full", verifiesFor: "channel_binding=require" },
    ],
    [
      "of Neon, for a client without SNI",
      `${url}?options=endpoint%3Dep-1&sslmode=require`,
      { ...base, ssl: "require", connection: { options: "endpoint=ep-1" } },
    ],
    ["of Supabase's pooler", `${url}?pgbouncer=true&connection_limit=1`, { ...base, prepare: false, max: 1 }],
    ["of Supabase by Vercel", `${url}?sslmode=require&supa=base-pooler.x`, { ...base, ssl: "require" }],
    [
      "of Prisma",
      `${url}?schema=public&connection_limit=5&pool_timeout=10&socket_timeout=5&sslaccept=strict`,
      { ...base, ssl: "verify-full", max: 5 },
    ],
    ["of Azure", url.replace("ann:", "ann%40server:"), { ...base, username: "ann@server" }],
    ["of Azure, as text", `${url}?sslmode=verify-full&sslrootcert=system`, { ...base, ssl: "verify-full" }],
    ["the system's authorities verify", `${url}?sslmode=require&sslrootcert=system`, { ...base, ssl: "verify-full" }],
    ["of DigitalOcean", url.replace(".com/", ".com:25060/"), { ...base, port: [25060] }],
    ["as JDBC has it", `${url}?ssl=true`, { ...base, ssl: true }],
    ["as pg has it", `${url}?sslmode=no-verify&uselibpqcompat=true`, { ...base, ssl: "require" }],
    ["allow", `${url}?sslmode=allow`, { ...base, ssl: "prefer" }],
    ["prefer", `${url}?sslmode=prefer`, { ...base, ssl: "prefer" }],
    ["disable", `${url}?sslmode=disable`, { ...base, ssl: false }],
    ["verify-ca", `${url}?sslmode=verify-ca`, { ...base, ssl: "verify-ca" }],
    [
      "two hosts",
      "postgres://ann:s3cret@a.example.com:5433,b.example.com/app?target_session_attrs=read-write",
      { ...base, host: ["a.example.com", "b.example.com"], port: [5433, 5432], target_session_attrs: "read-write" },
    ],
    ["IPv6", "postgres://ann:s3cret@[::1]:5433/app", { ...base, host: ["::1"], port: [5433] }],
    ["IPv6 without a port", "postgres://ann:s3cret@[fe80::1]/app", { ...base, host: ["fe80::1"] }],
    [
      "a socket in the host",
      "postgres://ann:s3cret@%2Fvar%2Frun%2Fpostgresql/app",
      { ...base, host: ["/var/run/postgresql"], path: "/var/run/postgresql/.s.PGSQL.5432" },
    ],
    [
      "a socket of Cloud SQL",
      "postgres://ann:s3cret@/app?host=/cloudsql/project:region:instance",
      {
        ...base,
        host: ["/cloudsql/project:region:instance"],
        path: "/cloudsql/project:region:instance/.s.PGSQL.5432",
      },
    ],
    ["parts as parameters", "postgres:///?host=db.example.com&user=ann&password=s3cret&dbname=app", base],
    ["the environment's server", "postgres:///app", { database: "app", connection: {} }],
    ["signs in a password", "postgres://ann:a%2Fb%40c%3Fd%23e@db.example.com/app", { ...base, password: "a/b@c?d#e" }],
    ["an @ in a password", "postgres://ann:a@b@db.example.com/app", { ...base, password: "a@b" }],
    [
      "settings of Postgres",
      `${url}?application_name=shop&statement_timeout=5000&connect_timeout=10&keepalives_idle=5`,
      { ...base, connect_timeout: 10, connection: { application_name: "shop", statement_timeout: "5000" } },
    ],
  ];
  test.each(cases)("%s", (_name, text, expected) => {
    expect(parseConnectionString(text)).toEqual(expected);
  });
});

describe("what is refused, by name", () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ["", /^database: the connection string is empty: .*DATABASE_URL/],
    ["  ", /is empty/],
    ["prisma+postgres://accelerate.prisma-data.net/?api_key=s3cret", /Prisma's proxy.*direct URL/],
    ["mysql://ann:s3cret@db/app", /cannot be read: use postgres:\/\//],
    ["host=db user=ann password=s3cret", /cannot be read/],
    ["jdbc:postgresql://db/app", /cannot be read/],
    [`${url}?sslmode=sometimes`, /^database: sslmode in the connection string is "sometimes": choose one of disable/],
    [`${url}?sslmode=constructor`, /sslmode .* is "constructor": choose one of/],
    [`${url}?channel_binding=maybe`, /channel_binding .* choose one of/],
    [`${url}?channel_binding=require&sslmode=disable`, /channel_binding .* TLS is off/],
    [`${url}?sslrootcert=/nowhere/ca.pem`, /sslrootcert .*\/nowhere\/ca\.pem.*ENOENT/],
    [`${url}?connection_limit=many`, /connection_limit .* whole number/],
    [`${url}?target_session_attrs=sometimes`, /target_session_attrs .* choose one of any, read-write/],
    [`${url}?sslnegotiation=never`, /sslnegotiation .* choose one of postgres, direct/],
    [`${url}?service=orders`, /service .* take it out/],
    [`${url}?passfile=/root/.pgpass`, /passfile/],
    ["postgres://ann:s3cr/t9@db/app", /%2F for \//],
    ["postgres://ann:12/s3cret@db/app", /%2F for \//],
    ["postgres://ann:s3cr?t9=1@db/app", /cannot be read/],
    ["postgres://ann:s3cret#9@db/app", /cannot be read/],
    ["postgres://ann:%s3cret@db/app", /cannot be read/],
    ["postgres://ann:s3cret@db:port/app", /cannot be read/],
    ["postgres://ann:s3cret@[db]x/app", /cannot be read/],
  ];
  test.each(cases)("%s", async (text, words) => {
    const error = await refused(() => openDatabase(text));

    expect(error).toMatchObject({ code: "CONNECTION_FAILED", message: expect.stringMatching(words) as string });
    expect(`${error.message} ${JSON.stringify(error)} ${String(error.cause)}`).not.toMatch(/s3cr/);
  });
});

describe("what variables of libpq say where the connection says nothing", () => {
  const app = "postgres://db.example.com/app";
  const cases: readonly (readonly [string, Record<string, string>, string | object, object])[] = [
    [
      "all places",
      { PGHOST: "db.example.com", PGDATABASE: "app", PGUSER: "ann", PGPASSWORD: "s3cret" },
      "postgres://",
      base,
    ],
    ["an address", { PGHOSTADDR: "10.0.0.1" }, "postgres:///app", { host: ["10.0.0.1"] }],
    [
      "a list of hosts",
      { PGHOST: "a,::1", PGPORT: "5433,5434" },
      "postgres:///app",
      { host: ["a", "::1"], port: [5433, 5434] },
    ],
    [
      "a list of hosts, for options",
      { PGHOST: "a,::1", PGPORT: "5433,5434" },
      {},
      { host: ["a", "::1"], port: [5433, 5434] },
    ],
    ["a port beside a host", { PGPORT: "6432" }, app, { host: ["db.example.com"], port: [6432] }],
    ["a port beside a host of options", { PGPORT: "6432" }, { host: "db" }, { host: ["db"], port: [6432] }],
    ["a socket", { PGHOST: "/run/pg", PGPORT: "5433" }, "postgres:///app", { path: "/run/pg/.s.PGSQL.5433" }],
    [
      "options",
      { PGOPTIONS: "-c work_mem=1MB", PGAPPNAME: "shop" },
      app,
      { connection: { options: "-c work_mem=1MB", application_name: "shop" } },
    ],
    ["a session", { PGTARGETSESSIONATTRS: "read-write" }, app, { target_session_attrs: "read-write" }],
    ["any session", { PGTARGETSESSIONATTRS: "any" }, app, {}],
    ["a time to connect", { PGCONNECT_TIMEOUT: "7" }, app, { connect_timeout: 7 }],
    ["TLS", { PGSSLMODE: "verify-full" }, app, { ssl: "verify-full" }],
    ["TLS, the old way", { PGREQUIRESSL: "1" }, app, { ssl: "require" }],
    ["no TLS", { PGSSLMODE: "disable" }, { host: "db" }, { ssl: false }],
    [
      "TLS from its first byte",
      { PGSSLMODE: "require", PGSSLNEGOTIATION: "direct" },
      app,
      { ssl: "require", sslnegotiation: "direct" },
    ],
    ["an authority", { PGSSLMODE: "require", PGSSLROOTCERT: certificate }, app, { ssl: authority }],
    [
      "an authority for a mode of the URL",
      { PGSSLROOTCERT: certificate },
      `${app}?sslmode=require`,
      { ssl: authority },
    ],
    ["an authority for a mode of options", { PGSSLROOTCERT: certificate }, { ssl: "require" }, { ssl: authority }],
    [
      "an authority where TLS may be",
      { PGSSLMODE: "prefer", PGSSLROOTCERT: certificate },
      app,
      { ssl: { ...authority, isOptional: true } },
    ],
    [
      "an authority where nobody asks for TLS",
      { PGSSLROOTCERT: certificate, PGSSLMINPROTOCOLVERSION: "TLSv1.3" },
      app,
      {},
    ],
    ["the authorities of the system", { PGSSLROOTCERT: "system" }, app, { ssl: "verify-full" }],
    ["a channel", { PGCHANNELBINDING: "require" }, app, { ssl: "verify-full", verifiesFor: "channel_binding=require" }],
    [
      "what another client may need",
      { PGGSSENCMODE: "disable", PGTZ: "CET", PGSYSCONFDIR: "/x", PGPASSFILE: "" },
      app,
      {},
    ],
  ];
  test.each(cases)("%s", (_name, variables, connection, expected) => {
    for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);

    const found = driverOptions(connection);

    expect(found).toMatchObject(expected);
    for (const name of ["ssl", "target_session_attrs"]) expect(name in found).toBe(name in expected);
  });

  test.each<[string, Record<string, string>, string | object, object]>([
    [
      "of a string",
      every,
      `postgres://ann:s3cret@db:1/app?sslmode=disable&options=a&application_name=b&target_session_attrs=any&connect_timeout=2`,
      {
        ...base,
        host: ["db"],
        port: [1],
        ssl: false,
        connect_timeout: 2,
        connection: { options: "a", application_name: "b" },
      },
    ],
    ["of options", every, { ...own }, { ...own, host: ["db"], port: [1] }],
    ["TLS as such", { PGSSLMODE: "disable", PGSSLROOTCERT: certificate }, { ssl: true }, { ssl: true, connection: {} }],
  ])("nothing is said against what stands in the connection: %s", (_name, variables, connection, expected) => {
    for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);

    expect(driverOptions(connection)).toEqual(expected);
  });

  test.each<[Record<string, string>, RegExp]>([
    [{ PGSERVICE: "orders" }, /^database: PGSERVICE is not known to this library: unset it, and say in the connection/],
    [{ PGPASSFILE: "/root/.pgpass" }, /PGPASSFILE is not known.*unset it/],
    [{ PGREQUIREAUTH: "scram-sha-256" }, /PGREQUIREAUTH is not known/],
    [{ PGSSLCRL: "x" }, /PGSSLCRL is not known/],
    [{ PGSSLMODE: "sometimes" }, /PGSSLMODE is "sometimes": choose one of disable/],
    [{ PGSSLMODE: "require", PGSSLROOTCERT: "/nowhere/ca.pem" }, /PGSSLROOTCERT names \/nowhere\/ca\.pem.*ENOENT/],
    [{ PGTARGETSESSIONATTRS: "sometimes" }, /PGTARGETSESSIONATTRS is "sometimes": choose one of any, read-write/],
    [{ PGCONNECT_TIMEOUT: "soon" }, /PGCONNECT_TIMEOUT must be a whole number/],
    [{ PGPORT: "s3cret" }, /cannot be read/],
  ])("%j is refused by name", async (variables, words) => {
    for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);

    for (const connection of ["postgres:///app", { database: "app", host: variables["PGPORT"] && "db" }])
      expect(await refused(() => openDatabase(connection))).toMatchObject({
        code: "CONNECTION_FAILED",
        message: expect.stringMatching(words) as string,
      });
  });
});

test("options of a connection that no client here has are refused by name", async () => {
  const given: object = { connectionString: url };

  const error = await refused(() => openDatabase(given));

  expect(error.message).toMatch(/no connectionString: pass the string itself/);
});

test("a client or a pool is no connection: it would be taken for options that say nothing", async () => {
  for (const given of [new pg.Pool({ connectionString: url }), new pg.Client({ connectionString: url })] as object[])
    expect((await refused(() => openDatabase(given))).message).toMatch(
      /is a client or a pool: pass the connection string or the options/,
    );
});

test("files of certificates are read, and verified by", () => {
  const { ssl } = parseConnectionString(`${url}?sslmode=require&sslrootcert=${certificate}`);

  expect(ssl).toEqual(authority);
});

test("the other driver and the heartbeat's thread are told the same place", () => {
  const socket = openDatabase("postgres://ann@/app?host=/cloudsql/a:b:c");
  const six = openDatabase({ host: "::1", port: 5433, database: "app", username: "ann" });
  const neon = openDatabase(`${url}?options=endpoint%3Dep-1`);

  expect(pgConfig(socket)).toMatchObject({
    host: "/cloudsql/a:b:c",
    port: 5432,
    database: "app",
    user: "ann",
    ssl: false,
  });
  expect(threadOptions(socket, "x")).toMatchObject({ path: "/cloudsql/a:b:c/.s.PGSQL.5432" });
  expect(threadOptions(six, "x")).toMatchObject({ host: ["::1"], port: [5433] });
  expect(pgConfig(neon).options).toMatch(/^endpoint=ep-1 -c /);
  expect(threadOptions(neon, "x").connection).toMatchObject({ options: "endpoint=ep-1" });
});

test("what hosts put behind their URLs migrates, works and starts", async () => {
  const database = await testDatabase();
  const flow = defineFlow("by.url");
  flow.to("answer", () => 42).end();
  const parameters = [
    "channel_binding=prefer&sslmode=prefer",
    "sslmode=allow&gssencmode=disable",
    "schema=public&connection_limit=5&pool_timeout=10",
    "supa=base-pooler.x&sslmode=disable",
    "pgbouncer=true&statement_cache_size=0",
    "keepalives=1&client_encoding=UTF8&target_session_attrs=any",
    "application_name=shop&connect_timeout=5",
  ];

  for (const some of parameters) {
    await using orchestrator = createOrchestrator({ connection: `${database.url}?${some}`, flows: [flow] });
    await orchestrator.migrate();
    await orchestrator.startWorker();
    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

    expect(await execution.waitForClose()).toEqual({ $final_result: 42 });
  }
});

test("channel_binding=require is kept as a verified certificate, never dropped", async () => {
  const database = await testDatabase();
  await using orchestrator = createOrchestrator({ connection: `${database.url}?channel_binding=require` });

  const error = await refused(() => orchestrator.listExecutions());

  expect(error).toMatchObject({
    code: "CONNECTION_FAILED",
    message: expect.stringMatching(/channel_binding/) as string,
  });
});

test("an orchestrator is made where there is no database yet, and says what is missing at its first use", async () => {
  const before = process.env["DATABASE_URL"];
  delete process.env["DATABASE_URL"];
  try {
    const flow = defineFlow("made.early");
    flow.to("pass", () => null);
    const orchestrator = createOrchestrator({ flows: [flow] });
    const bound = orchestrator.flow(flow);

    const errors = [
      await refused(() => orchestrator.listExecutions()),
      await refused(() => bound.startExecution(null)),
      await refused(() => orchestrator.migrate()),
      await refused(() => orchestrator.startWorker()),
    ];
    const { url } = await testDatabase();
    process.env["DATABASE_URL"] = url;
    const later = await orchestrator.listExecutions();
    await orchestrator.close();

    for (const error of errors) expect(error.message).toMatch(/no connection: .*DATABASE_URL/);
    expect(later.executions).toEqual([]);
    const unused = createOrchestrator({ flows: [flow] });
    await unused.close();
    expect((await refused(() => unused.listExecutions())).message).toMatch(/closed/);
  } finally {
    if (before === undefined) delete process.env["DATABASE_URL"];
    else process.env["DATABASE_URL"] = before;
  }
});

async function refused(work: () => unknown): Promise<FlowledgerError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof FlowledgerError) return error;
    throw error;
  }
  throw new Error("expected a refusal");
}
