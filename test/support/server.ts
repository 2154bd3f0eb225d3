/** One Postgres for all files of a vitest project: `DATABASE_URL`, else testcontainers when `TEST_POSTGRES` says so, else the embedded one. */
import { spawn } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import postgres from "postgres";
import type { TestProject } from "vitest/node";
import { migrate } from "../../src/store/migrate.ts";
import { startEmbeddedPostgres } from "../../src/embedded.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** A URL for creating databases and roles. */
    serverUrl: string;
    /** Who owns the test databases: a role with no rights beyond them. The same as in `serverUrl` where that may not create roles. */
    owner: { readonly name: string; readonly password: string };
    /** What the names of this run's databases begin with. */
    databasePrefix: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await openServer();
  const admin = postgres(server.url, { max: 1, max_lifetime: null, onnotice: () => {} });
  const run = randomInt(1, 2 ** 31);
  const prefix = `${PREFIX}${run}_`;
  await admin`select pg_advisory_lock(${LOCK_CLASS}, ${run})`;
  await dropAbandoned(admin);

  const owner = await createOwner(admin, server.url, run);
  const template = templateName(prefix);
  await admin`create database ${admin(template)} owner ${admin(owner.name)}`;
  await migrate(databaseUrl(server.url, template, owner));

  project.provide("serverUrl", server.url);
  project.provide("owner", owner);
  project.provide("databasePrefix", prefix);
  return async () => {
    for (const name of await listDatabases(admin, prefix))
      await admin`drop database if exists ${admin(name)} with (force)`;
    if (owner.name.startsWith(PREFIX)) await admin`drop role ${admin(owner.name)}`;
    await admin.end();
    await server.stop();
  };
}

const PREFIX = "flowledger_test_";
/** Session locks of ours: a run holds (class, its number) while it lives. */
const LOCK_CLASS = 1_179_402_567;

export function templateName(prefix: string): string {
  return `${prefix}template`;
}

/** @param user who connects @default the one of the server's URL */
export function databaseUrl(serverUrl: string, name: string, user?: { name: string; password: string }): string {
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  if (user) Object.assign(url, { username: user.name, password: user.password });
  return url.href;
}

/** What users have: a role that may create in its own database, and nothing else. */
async function createOwner(admin: postgres.Sql, serverUrl: string, run: number) {
  const [row] = await admin<[{ can: boolean }]>`
    select rolsuper or rolcreaterole as can from pg_roles where rolname = current_user`;
  const { username, password } = new URL(serverUrl);
  if (!row.can) return { name: decodeURIComponent(username), password: decodeURIComponent(password) };
  const owner = { name: `${PREFIX}${run}`, password: randomBytes(12).toString("hex") };
  await admin.unsafe(`create role ${owner.name} login password '${owner.password}'`);
  return owner;
}

interface TestServer {
  readonly url: string;
  stop(): Promise<void>;
}

async function openServer(): Promise<TestServer> {
  const url = process.env["DATABASE_URL"];
  if (url) return { url, stop: async () => {} };
  if (process.env["TEST_POSTGRES"] === "testcontainers") return startContainer();
  return startEmbeddedPostgres({ durable: false, flags: ["-c", "max_connections=200"] });
}

async function startContainer(): Promise<TestServer> {
  const { PostgreSqlContainer } = await import("@testcontainers/postgresql");
  const image = process.env["TEST_POSTGRES_IMAGE"] ?? "postgres:18-alpine";
  const command = ["postgres", "-c", "fsync=off", "-c", "max_connections=200"];
  const container = await new PostgreSqlContainer(image).withCommand(command).start();
  const watchdog = removeWithUs(container.getId());
  return {
    url: container.getConnectionUri(),
    stop: async () => {
      await container.stop();
      watchdog.kill();
    },
  };
}

/** vitest runs no teardown on a signal, and where the reaper of testcontainers is off nobody else removes the container. */
function removeWithUs(containerId: string) {
  const script = `read -r _; docker rm --force --volumes ${containerId}`;
  const watchdog = spawn("sh", ["-c", script], { detached: true, stdio: ["pipe", "ignore", "ignore"] });
  watchdog.unref();
  return watchdog;
}

/** Databases of runs that died before their teardown, on a server that outlives its runs. */
async function dropAbandoned(admin: postgres.Sql): Promise<void> {
  for (const name of await listDatabases(admin, PREFIX)) {
    const run = Number(/^\d+/.exec(name.slice(PREFIX.length))?.[0]);
    const [row] = await admin<{ abandoned: boolean }[]>`
      select not exists (
        select from pg_locks where locktype = 'advisory' and classid = ${LOCK_CLASS}::int::oid and objid = ${run}::int::oid
      ) as abandoned`;
    if (!row?.abandoned) continue;
    await admin`drop database if exists ${admin(name)} with (force)`;
    const role = `${PREFIX}${run}`;
    await admin`drop role if exists ${admin(role)}`.catch(() => {});
  }
}

async function listDatabases(admin: postgres.Sql, prefix: string): Promise<string[]> {
  const rows = await admin<
    { datname: string }[]
  >`select datname from pg_database where starts_with(datname, ${prefix})`;
  return rows.map((row) => row.datname);
}
