/**
 * The examples of `examples/hosts/`, as their users run them: the packed package is installed into a copy of each, it is built and
 * started, and one order waits there, survives a SIGKILL of its process, is approved and closes; then SIGTERM ends the process.
 * `node test/hosts/run.ts [name …]`, all of them without a name. It needs the package registry.
 */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { startEmbeddedPostgres } from "../../src/embedded.ts";

const root = resolve(import.meta.dirname, "../..");
const examples = join(root, "examples/hosts");
/** Processes of a host have the Node that runs this. */
const path = [dirname(process.execPath), process.env["PATH"]].join(delimiter);
const endsWithinMs = 10_000;
const answersWithinMs = 60_000;

const known = readdirSync(examples);
const names = process.argv.slice(2);
const unknown = names.filter((name) => !known.includes(name));
if (unknown.length > 0) throw new Error(`there is no example ${unknown.join(", ")}: there are ${known.join(", ")}`);

const folder = mkdtempSync(join(tmpdir(), "flowledger-hosts-"));
await using server = await startEmbeddedPostgres({ durable: false });
const admin = postgres(server.url, { max: 1, onnotice: () => {} });

function pack(): string {
  const out = command("npm", ["pack", "--json", "--pack-destination", folder], root);
  // `prepack` builds first and writes to stdout as well.
  const [{ filename }] = JSON.parse(out.slice(out.search(/^\[/m))) as [{ filename: string }];
  return join(folder, filename);
}

/** @returns what went wrong; null where nothing did */
async function run(name: string, tarball: string): Promise<string | null> {
  const home = join(folder, name);
  cpSync(join(examples, name), home, { recursive: true });
  const { scripts } = JSON.parse(readFileSync(join(home, "package.json"), "utf8")) as {
    scripts: Record<string, string>;
  };
  command("npm", ["install", "--no-audit", "--no-fund", tarball], home);
  const database = `host_${name.replaceAll("-", "_")}`;
  await admin.unsafe(`create database ${database}`);
  const url = new URL(server.url);
  url.pathname = `/${database}`;
  const env = { DATABASE_URL: url.href };
  // Nothing that builds may need a database.
  if (scripts["build"]) command("npm", ["run", "build"], home);
  if (scripts["test"]) command("npm", ["test"], home, env);
  if (scripts["start"]) await drive(home, env);
  return null;
}

async function drive(home: string, env: Record<string, string>): Promise<void> {
  const [first, second] = [new Host(home, env, await freePort()), new Host(home, env, await freePort())];
  try {
    const { id } = await first.ask<{ id: string }>("POST", "/orders", { amount: 900 });
    await first.until(`/orders/${id}`, { status: "waiting", state: { charged: 900 } });
    await first.kill("SIGKILL");

    second.start();
    await second.until(`/orders/${id}`, { status: "waiting", state: { charged: 900 } });
    await second.ask("POST", `/orders/${id}/approval`, { approved: true });
    await second.until(`/orders/${id}`, { status: "completed", state: { charged: 900, shipped: true } });
    const code = await second.kill("SIGTERM");
    if (code !== 0 && code !== 143) throw new Error(`after SIGTERM it ended with ${code}\n${second.output}`);
  } finally {
    await Promise.all([first.kill("SIGKILL"), second.kill("SIGKILL")]);
  }
}

/** The process of an example, with whatever it starts. */
class Host {
  output = "";
  readonly #home: string;
  readonly #env: Record<string, string>;
  readonly #base: string;
  #child: ChildProcess | undefined;
  #ended: Promise<number | null> = Promise.resolve(0);

  constructor(home: string, env: Record<string, string>, port: number) {
    this.#home = home;
    this.#base = `http://127.0.0.1:${port}`;
    this.#env = { ...env, PORT: `${port}`, HOSTNAME: "127.0.0.1" };
  }

  start(): void {
    if (this.#child) return;
    const script = JSON.parse(readFileSync(join(this.#home, "package.json"), "utf8")) as { scripts: { start: string } };
    // As npm would, without npm between us and the process.
    const [file = "", ...args] = script.scripts.start.split(" ");
    const bin = join(this.#home, "node_modules/.bin");
    const child = spawn(existsSync(join(bin, file)) ? join(bin, file) : file, args, {
      cwd: this.#home,
      env: { ...process.env, ...this.#env, PATH: path },
      detached: true,
    });
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (this.output += String(data)));
    this.#ended = new Promise((end) =>
      child.once("exit", (code, signal) => end(code ?? (signal === "SIGTERM" ? 143 : 1))),
    );
    this.#child = child;
  }

  /** Asks until it listens. */
  async ask<T>(method: string, to: string, body?: object): Promise<T> {
    this.start();
    for (const until = performance.now() + answersWithinMs; ; await delay(50)) {
      const init = body ? { body: JSON.stringify(body), headers: { "content-type": "application/json" } } : {};
      const response = await fetch(this.#base + to, { method, ...init }).catch(() => null);
      if (response?.ok) return (await response.json()) as T;
      if (response) throw new Error(`${method} ${to}: ${response.status} ${await response.text()}\n${this.output}`);
      if (performance.now() > until || this.#child?.exitCode != null)
        throw new Error(`${method} ${to}: nobody answers\n${this.output}`);
    }
  }

  async until(to: string, expected: object): Promise<void> {
    for (const until = performance.now() + answersWithinMs; ; await delay(50)) {
      const seen = JSON.stringify(await this.ask("GET", to));
      if (seen === JSON.stringify(expected)) return;
      if (performance.now() > until)
        throw new Error(`${to} is ${seen}, not ${JSON.stringify(expected)}\n${this.output}`);
    }
  }

  /** @returns its exit code */
  async kill(signal: "SIGTERM" | "SIGKILL"): Promise<number | null> {
    const pid = this.#child?.pid;
    if (pid === undefined) return 0;
    try {
      process.kill(signal === "SIGKILL" ? -pid : pid, signal);
    } catch {
      // It has ended.
    }
    const late = Symbol();
    const code = await Promise.race([this.#ended, delay(endsWithinMs, late, { ref: false })]);
    if (code === late) throw new Error(`${signal} did not end it within ${endsWithinMs} ms\n${this.output}`);
    return typeof code === "number" ? code : null;
  }
}

async function freePort(): Promise<number> {
  const one = createServer().listen(0, "127.0.0.1");
  await new Promise((listening) => one.once("listening", listening));
  const { port } = one.address() as AddressInfo;
  await new Promise((closed) => one.close(closed));
  return port;
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
  for (const name of names.length > 0 ? names : known) {
    const began = performance.now();
    const problem = await run(name, tarball).catch((error: unknown) => String(error));
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
