/**
 * The rows of `rows.ts`, as their users run them: the packed package is installed into a copy of each example, it is built and
 * started, and one order waits there, survives a SIGKILL of its process, is approved and closes; then SIGTERM ends the process.
 * `node test/hosts/run.ts [name …]`, all of them without a name; "light" and "heavy" are those of a tier. It needs the package
 * registry.
 */
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import postgres from "postgres";
import { startEmbeddedPostgres } from "../../src/embedded.ts";
import { chromiumPath } from "../support/browser.ts";
import { useConsole } from "./console.ts";
import { freePort, Host, path } from "./host.ts";
import { buy, edit } from "./next.ts";
import { rows, type Row } from "./rows.ts";

const root = resolve(import.meta.dirname, "../..");
const examples = join(root, "examples/hosts");

const groups: Readonly<Record<string, (row: Row) => boolean>> = {
  light: ({ isHeavy }) => isHeavy !== true,
  heavy: ({ isHeavy }) => isHeavy === true,
};
const names = process.argv.slice(2).flatMap((name) => {
  const isIn = groups[name];
  return isIn ? Object.keys(rows).filter((one) => rows[one] && isIn(rows[one])) : [name];
});
const unknown = names.filter((name) => !(name in rows));
if (unknown.length > 0)
  throw new Error(`there is no row ${unknown.join(", ")}: there are ${Object.keys(rows).join(", ")}`);

const folder = mkdtempSync(join(tmpdir(), "flowledger-hosts-"));
await using server = await startEmbeddedPostgres({ durable: false });
const admin = postgres(server.url, { max: 1, onnotice: () => {} });

function pack(): string {
  const out = command("npm", ["pack", "--json", "--pack-destination", folder], root);
  // `prepack` builds first and writes to stdout as well.
  const [{ filename }] = JSON.parse(out.slice(out.search(/^\[/m))) as [{ filename: string }];
  return join(folder, filename);
}

/** @throws what went wrong */
async function run(name: string, row: Row, tarball: string): Promise<void> {
  const home = join(folder, name.replaceAll(/\W+/g, "-"));
  cpSync(join(examples, row.example), home, { recursive: true });
  const { scripts } = JSON.parse(readFileSync(join(home, "package.json"), "utf8")) as {
    scripts: Record<string, string>;
  };
  command("npm", ["install", "--no-audit", "--no-fund", tarball, ...(row.packages ?? [])], home);
  const database = `host_${name.toLowerCase().replaceAll(/\W+/g, "_")}`;
  await admin.unsafe(`create database ${database}`);
  const url = new URL(server.url);
  url.pathname = `/${database}`;
  // Nothing that builds may need a database.
  const build = row.build ?? "build";
  if (scripts[build]) command("npm", ["run", build], home);
  if (scripts["test"]) command("npm", ["test"], home, { DATABASE_URL: url.href });
  const start = row.start ?? scripts["start"];
  if (start !== undefined) await drive(row, row.isMoved ? moved(home) : home, start, url.href);
  if (row.dev !== undefined) await edit(home, row.dev, url.href);
}

/** What was built, in a folder that has nothing else. */
function moved(home: string): string {
  const alone = `${home}-alone`;
  cpSync(join(home, "dist"), alone, { recursive: true });
  return alone;
}

async function drive(row: Row, home: string, start: string, url: string): Promise<void> {
  const env = { DATABASE_URL: url, ADMIN_SESSION: "s-1" };
  const open = async () => new Host(home, start, env, await freePort());
  const [first, second] = [await open(), await open()];
  try {
    const { id } = await first.ask<{ id: string }>("POST", "/orders", { amount: 900 });
    await first.until(`/orders/${id}`, { status: "waiting", state: { charged: 900 } });
    if (row.example === "next") await buy(first, url);
    if (row.hasConsole && chromiumPath !== null)
      await useConsole(first, () => first.ask("POST", "/orders", { amount: 1 }));
    await first.kill("SIGKILL");
    const killed = await workersOf(url);

    second.start();
    await second.until(`/orders/${id}`, { status: "waiting", state: { charged: 900 } });
    await second.ask("POST", `/orders/${id}/approval`, { approved: true });
    await second.until(`/orders/${id}`, { status: "completed", state: { charged: 900, shipped: true } });
    const code = await second.kill("SIGTERM");
    if (code !== 0 && code !== 143) throw new Error(`after SIGTERM it ended with ${code}\n${second.output}`);
    // It signed off, and nobody waits for its lease.
    const left = (await workersOf(url)).filter((worker) => !killed.includes(worker));
    if (left.length > 0) throw new Error(`after SIGTERM its worker is still registered\n${second.output}`);
  } finally {
    await Promise.all([first.kill("SIGKILL"), second.kill("SIGKILL")]);
  }
}

async function workersOf(url: string): Promise<readonly string[]> {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  const found = await sql<{ id: string }[]>`select id from flowledger.workers`;
  await sql.end();
  return found.map(({ id }) => id);
}

/** @throws with what it printed */
function command(file: string, args: readonly string[], cwd: string, env: Record<string, string> = {}): string {
  const { DATABASE_URL: _, ...own } = process.env;
  const done = spawnSync(file, args, { cwd, env: { ...own, PATH: path, ...env }, encoding: "utf8", timeout: 600_000 });
  if (done.status !== 0)
    throw new Error(`${[file, ...args].join(" ")}: ${done.status}\n${done.stdout}\n${done.stderr}`);
  return done.stdout;
}

let failures = 0;
try {
  const tarball = pack();
  for (const [name, row] of Object.entries(rows)) {
    if (names.length > 0 && !names.includes(name)) continue;
    const began = performance.now();
    const problem = await run(name, row, tarball).then(
      () => null,
      (error: unknown) => String(error),
    );
    if (problem !== null) failures += 1;
    const seconds = Math.round((performance.now() - began) / 1000);
    console.log(
      `${problem === null ? "passed" : "FAILED"}  ${name}, ${seconds} s${problem === null ? "" : `\n${problem}`}`,
    );
  }
} finally {
  await admin.end();
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = failures > 0 ? 1 : 0;
