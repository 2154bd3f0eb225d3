/** F24: pgbouncer in transaction mode between us and Postgres. Skipped where it is not installed. */
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { expect, test } from "vitest";
import { createOrchestrator } from "../../src/index.ts";
import type { Logger } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, serving } from "../support/flows.ts";
import { given } from "../support/settings.ts";
import { work } from "./flows.ts";
import { expectGuarantees, until, untilClosed } from "./support.ts";

const isMissing = spawnSync("pgbouncer", ["--version"]).status !== 0;

test.skipIf(isMissing)("F24: starts, emits and results go through a pooler in transaction mode", async () => {
  const database = await testDatabase();
  await using pooler = await startPooler(database.url);
  await using _direct = await serving(database, [work]);
  await using away = createOrchestrator({ connection: { ...pooler.connection, max: 2 }, flows: [work] });

  const executions = await Promise.all(
    Array.from({ length: 20 }, () => away.flow(work).startExecution({}, { autoCloseTimeout: 200 })),
  );
  await Promise.all(executions.map((execution) => execution.emit("Poke", "through")));

  for (const execution of executions)
    expect(await execution.waitForClose()).toEqual({ path: ["first", "slow", "last"], pokes: ["through"] });
  await expectGuarantees(database.sql);
});

test.skipIf(isMissing)("F24: a worker whose LISTEN a pooler swallows says so, and works by looking", async () => {
  const database = await testDatabase();
  await using pooler = await startPooler(database.url);
  const warnings: string[] = [];
  const logger: Logger = { debug() {}, info() {}, error() {}, warn: (message) => void warnings.push(message) };
  await using away = createOrchestrator({ connection: pooler.connection, flows: [work], logger });
  await away.startWorker({ drainTimeout: "1s" });

  const execution = await away.flow(work).startExecution({}, { autoCloseTimeout: 0 });

  expect(warnings.some((warning) => warning.startsWith("LISTEN does not work on this connection"))).toBe(true);
  expect(await untilClosed(database.sql, execution.id)).toMatchObject({ outcome: "completed" });
  await expectGuarantees(database.sql);
});

const refused: Record<string, string> = {
  array_nulls: "off",
  bytea_output: "escape",
  default_transaction_deferrable: "on",
  default_transaction_isolation: "serializable",
  extra_float_digits: "-10",
  IntervalStyle: "iso_8601",
  quote_all_identifiers: "on",
  row_security: "off",
  search_path: "public, pg_catalog",
  transform_null_equals: "on",
};

test.skipIf(isMissing).each(Object.entries(refused))(
  "F24: where %s is %j and a pooler does not let it be set, every call is refused in so many words",
  async (name, value) => {
    const database = await testDatabase();
    await using _set = await given(database, "the role", { [name]: value });
    await using pooler = await startPooler(database.url);
    await using away = createOrchestrator({ connection: pooler.connection, flows: [work] });

    const errors = [
      await refusal(away.flow(work).startExecution({})),
      await refusal(away.listExecutions()),
      await refusal(away.startWorker()),
    ];

    for (const error of errors) expect(error).toMatchObject({ code: "CONNECTION_FAILED" });
    expect(String(errors[2])).toContain(`${name} is ${value} here, and a pooler does not let this library set it`);
    expect(String(errors[2])).toMatch(/alter role \S+ in database \S+ set \S+ = .+, or connect directly$/);
    expect(await database.sql`select from flowledger.executions`).toHaveLength(0);
  },
);

test.skipIf(isMissing)("F24: other settings, and limits, do not matter behind a pooler", async () => {
  const database = await testDatabase();
  const others = {
    DateStyle: "German, DMY",
    search_path: "public",
    statement_timeout: "30s",
    TimeZone: "Asia/Kolkata",
  };
  await using _set = await given(database, "the role", { ...others, standard_conforming_strings: "off" });
  await using pooler = await startPooler(database.url);
  await using _direct = await serving(database, [work]);
  await using away = createOrchestrator({ connection: pooler.connection, flows: [work] });

  const execution = await away.flow(work).startExecution({}, { autoCloseTimeout: 0 });

  expect(await execution.waitForClose()).toEqual({ path: ["first", "slow", "last"] });
  await expectGuarantees(database.sql);
});

/** Few connections to the server, so that sessions are shared as they are in real life. */
async function startPooler(target: string) {
  const { hostname, port: serverPort, username, password, pathname } = new URL(target);
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), "flowledger-pgbouncer-"));
  chmodSync(folder, 0o755);
  const file = join(folder, "pgbouncer.ini");
  writeFileSync(
    file,
    `[databases]
* = host=${hostname} port=${serverPort} user=${decodeURIComponent(username)} password=${decodeURIComponent(password)}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
`,
  );
  // It refuses to run as root.
  const child = spawn("pgbouncer", [...(process.getuid?.() === 0 ? ["-u", "nobody"] : []), file], { stdio: "ignore" });
  const options = { host: "127.0.0.1", port, username: "anybody", database: pathname.slice(1), prepare: false };
  const probe = postgres({ ...options, max: 1, fetch_types: false });
  expect(await until(async () => (await probe`select 1`).length === 1)).toBe(true);
  await probe.end();
  return {
    connection: options,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await new Promise((resolve) => child.once("exit", resolve));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
