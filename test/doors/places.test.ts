/** Where connections lead to, and as whom: each of a process' connections goes the same way, or the first use says why not. */
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { createOrchestrator, defineFlow, FlowledgerError } from "../../src/index.ts";
import type { Logger } from "../../src/index.ts";
import { administer, testDatabase } from "../support/database.ts";
import { askedOver, untilPending } from "../support/doors.ts";
import { refusing, startFake } from "../support/servers.ts";

const database = await testDatabase();
const server = new URL(database.url);
const to = { host: server.hostname, port: Number(server.port) };
const flow = defineFlow("placed", {}, { maxDuration: "1h" });
flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }));
const logger: Logger = { debug() {}, info() {}, warn() {}, error() {} };
const options = {
  ...to,
  username: decodeURIComponent(server.username),
  password: decodeURIComponent(server.password),
  database: server.pathname.slice(1),
};
afterEach(() => void vi.unstubAllEnvs());

type Connection = NonNullable<Parameters<typeof createOrchestrator>[0]>["connection"];

const worksBy = (connection: Connection) => askedOver(connection, flow, logger);

async function refusedBy(connection: Connection): Promise<FlowledgerError> {
  await using orchestrator = createOrchestrator({ connection, flows: [flow], logger });
  const errors: unknown[] = [];
  for (const work of [
    () => orchestrator.listExecutions(),
    () => orchestrator.migrate(),
    () => orchestrator.startWorker({ drainTimeout: "100ms" }),
    () => orchestrator.flow(flow).startExecution(1),
  ])
    errors.push(
      await work().then(
        () => null,
        (error: unknown) => error,
      ),
    );
  const [first] = errors;
  for (const error of errors)
    expect(error).toMatchObject({ code: "CONNECTION_FAILED", message: (first as Error).message });
  if (!(first instanceof FlowledgerError)) throw first;
  return first;
}

function changed(change: (url: URL) => void): string {
  const url = new URL(database.url);
  change(url);
  return url.href;
}
/** As `URL` cannot write it. */
const withHosts = (hosts: string, query = "") =>
  `${server.protocol}//${server.username}:${server.password}@${hosts}${server.pathname}${query}`;

test("of several hosts one may be dead, or refuse", async () => {
  await using shut = await startFake(refusing("57P03", "the database system is starting up"));
  await using mute = await startFake((client) => client.destroy());

  expect(await worksBy(withHosts(`127.0.0.1:9,${server.host}`))).toEqual(["q"]);
  expect(await worksBy(withHosts(`${server.host},127.0.0.1:9`))).toEqual(["q"]);
  expect(await worksBy(withHosts(`127.0.0.1:${mute.port},${server.host}`))).toEqual(["q"]);
  expect(await worksBy(withHosts(`127.0.0.1:${shut.port},${server.host}`))).toEqual(["q"]);
  const error = await refusedBy(withHosts(`127.0.0.1:${mute.port},127.0.0.1:${shut.port}`));

  expect(error.message).toContain("the database system is starting up");
});

/** The same server, which says that it is a standby. */
const startStandby = () =>
  startFake((client) => {
    const upstream = connect(to);
    client.on("close", () => upstream.destroy()).pipe(upstream);
    upstream.on("error", () => {}).on("close", () => client.destroy());
    upstream.on("data", (data) => {
      const said = data.toString("latin1").replace("\x17in_hot_standby\0off\0", "\x16in_hot_standby\0on\0");
      client.write(Buffer.from(said, "latin1"));
    });
  });

test.each([
  ["read-write", 0],
  ["primary", 0],
  ["any", 1],
  ["standby", 1],
  ["prefer-standby", 1],
] as const)("with target_session_attrs=%s every connection goes to a host that is one", async (wanted, which) => {
  await using standby = await startStandby();
  const primary = await startFake((client) =>
    client
      .pipe(connect(to))
      .on("error", () => {})
      .pipe(client),
  );
  await using _ = primary;
  for (const hosts of [
    [primary, standby],
    [standby, primary],
  ] as const) {
    const before = [primary.count, standby.count];
    const url = withHosts(hosts.map(({ port }) => `127.0.0.1:${port}`).join(","), `?target_session_attrs=${wanted}`);

    expect(await worksBy(url)).toEqual(["q"]);

    const counts = [primary.count - (before[0] ?? 0), standby.count - (before[1] ?? 0)];
    // Any is the first that is reached.
    expect(wanted === "any" ? Math.max(...counts) : counts[which]).toBeGreaterThan(4);
  }
});

test("where a standby is preferred and there is none, any host will do", async () => {
  expect(await worksBy(withHosts(`127.0.0.1:9,${server.host}`, "?target_session_attrs=prefer-standby"))).toEqual(["q"]);
});

test.each(["standby", "read-only"])("where no host is a %s one, that is said", async (wanted) => {
  const error = await refusedBy(withHosts(server.host, `?target_session_attrs=${wanted}`));

  expect(error.message).toContain(wanted);
});

test("IPv6 and a Unix socket lead to the same server", async () => {
  const folder = await mkdtemp(join(tmpdir(), "places-"));
  const six = createServer((client) => client.pipe(connect(to)).pipe(client));
  const socket = createServer((client) => client.pipe(connect(to)).pipe(client));
  await new Promise<void>((done) => void six.listen(0, "::1", done));
  await new Promise<void>((done) => void socket.listen(join(folder, ".s.PGSQL.5432"), done));
  const { port } = six.address() as { port: number };

  expect(await worksBy(withHosts(`[::1]:${port}`))).toEqual(["q"]);
  expect(await worksBy({ ...options, host: "::1", port })).toEqual(["q"]);
  expect(await worksBy(withHosts(encodeURIComponent(folder)))).toEqual(["q"]);
  expect(await worksBy(withHosts("", `?host=${folder}`))).toEqual(["q"]);
  expect(await worksBy({ ...options, host: folder, port: 5432 })).toEqual(["q"]);

  six.close();
  socket.close();
  await rm(folder, { recursive: true });
});

test.each<[string, object]>([
  ["nothing", { password: () => undefined }],
  ["nothing, later", { password: async () => undefined }],
  ["an object", { password: () => ({ secret: "s3cret" }) }],
  ["a buffer", { password: async () => Buffer.from("s3cret") }],
  ["a number, and no function", { password: 5 }],
])("a password that is %s is refused, and ends no process", async (_name, given) => {
  const connection: Connection = Object.assign({ ...options }, given);

  const error = await refusedBy(connection);

  expect(error).toMatchObject({ code: "CONNECTION_FAILED" });
  expect(String(error)).toMatch(/password .*(text|failed)/);
  expect(String(error)).not.toContain("s3cret");
});

test("a password that changes is the one of now, for each connection", async () => {
  const name = `turning_${options.database}`;
  await administer(database.adminUrl, async (admin) => {
    await admin.unsafe(`create role ${name} login password 'one'`);
    await admin.unsafe(`grant ${options.username} to ${name}; alter role ${name} set role = ${options.username}`);
  });
  let password = "one";
  const connection = { ...options, username: name, password: () => password, max_lifetime: 60 };
  await using orchestrator = createOrchestrator({ connection, flows: [flow], logger });
  await orchestrator.listExecutions();

  await administer(database.adminUrl, async (admin) => {
    await admin.unsafe(`alter role ${name} password 'two'`);
    password = "two";
    await admin`select pg_terminate_backend(pid) from pg_stat_activity where usename = ${name}`;
  });
  await orchestrator.startWorker({ drainTimeout: "100ms" });

  expect(await untilPending(await orchestrator.flow(flow).startExecution(1))).toHaveLength(1);
  await orchestrator.close();
  await administer(database.adminUrl, (admin) => admin.unsafe(`drop owned by ${name}; drop role ${name}`));
});

test("a password may have any characters, and a name too", async () => {
  const [name, secret] = [`a b@c/${options.database}`, "p/a@b?c#d%e f:g+ü&=\\'\""];
  await administer(database.adminUrl, async (admin) => {
    await admin.unsafe(`create role "${name}" login password '${secret.replaceAll("'", "''")}'`);
    await admin.unsafe(`grant ${options.username} to "${name}"`);
    await admin.unsafe(`alter role "${name}" set role = ${options.username}`);
  });
  const [user, password] = [encodeURIComponent(name), encodeURIComponent(secret)];

  expect(await worksBy(changed((one) => Object.assign(one, { username: user, password })))).toEqual(["q"]);
  expect(await worksBy({ ...options, username: name, password: secret })).toEqual(["q"]);
  expect(await worksBy({ ...options, username: name, password: async () => secret })).toEqual(["q"]);
  expect(await worksBy(`postgres://${server.host}${server.pathname}?user=${user}&password=${password}`)).toEqual(["q"]);
  vi.stubEnv("PGUSER", name);
  vi.stubEnv("PGPASSWORD", secret);
  expect(await worksBy(`postgres://${server.host}${server.pathname}`)).toEqual(["q"]);

  await administer(database.adminUrl, (admin) => admin.unsafe(`drop owned by "${name}"; drop role "${name}"`));
});
