/** Where connections lead to, and as whom: each of a process' connections goes the same way, or the first use says why not. */
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { createOrchestrator, defineFlow, FlowledgerError } from "../../src/index.ts";
import type { Logger } from "../../src/index.ts";
import { administer, testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
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

/** Migrates, serves and starts: over every kind of connection that there is. */
async function worksBy(connection: Connection): Promise<void> {
  await using orchestrator = createOrchestrator({ connection, flows: [flow], logger });
  await orchestrator.migrate();
  await orchestrator.startWorker({ drainTimeout: "100ms" });
  const execution = await orchestrator.flow(flow).startExecution(1);
  expect(await untilPending(execution)).toHaveLength(1);
  await execution.cancel();
}

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

  await worksBy(withHosts(`127.0.0.1:9,${server.host}`));
  await worksBy(withHosts(`${server.host},127.0.0.1:9`));
  await worksBy(withHosts(`127.0.0.1:${mute.port},${server.host}`));
  await worksBy(withHosts(`127.0.0.1:${shut.port},${server.host}`));
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

    await worksBy(url);

    const counts = [primary.count - (before[0] ?? 0), standby.count - (before[1] ?? 0)];
    if (wanted === "any") expect(Math.min(...counts)).toBe(0);
    else expect(counts[which]).toBeGreaterThan(4);
  }
});

test("where a standby is preferred and there is none, any host will do", async () => {
  await worksBy(withHosts(`127.0.0.1:9,${server.host}`, "?target_session_attrs=prefer-standby"));
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

  await worksBy(withHosts(`[::1]:${port}`));
  await worksBy({ ...options, host: "::1", port });
  await worksBy(withHosts(encodeURIComponent(folder)));
  await worksBy(withHosts("", `?host=${folder}`));
  await worksBy({ ...options, host: folder, port: 5432 });

  six.close();
  socket.close();
  await rm(folder, { recursive: true });
});

test("a password may have any characters, and a name too", async () => {
  const [name, secret] = [`a b@c/${options.database}`, "p/a@b?c#d%e f:g+ü&=\\'\""];
  await administer(database.adminUrl, async (admin) => {
    await admin.unsafe(`create role "${name}" login password '${secret.replaceAll("'", "''")}'`);
    await admin.unsafe(`grant ${options.username} to "${name}"`);
    await admin.unsafe(`alter role "${name}" set role = ${options.username}`);
  });
  const [user, password] = [encodeURIComponent(name), encodeURIComponent(secret)];

  await worksBy(changed((one) => Object.assign(one, { username: user, password })));
  await worksBy({ ...options, username: name, password: secret });
  await worksBy({ ...options, username: name, password: async () => secret });
  await worksBy(`postgres://${server.host}${server.pathname}?user=${user}&password=${password}`);
  vi.stubEnv("PGUSER", name);
  vi.stubEnv("PGPASSWORD", secret);
  await worksBy(`postgres://${server.host}${server.pathname}`);

  await administer(database.adminUrl, (admin) => admin.unsafe(`drop owned by "${name}"; drop role "${name}"`));
});
