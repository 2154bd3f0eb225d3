/** `npx flowledger …` as people and scripts run it, with its output and its exit code. */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { afterAll } from "vitest";
import { cliPath, type CliCall, type CliResult } from "./cli-call.ts";

export { cliPath, type CliResult } from "./cli-call.ts";

/** Beside the arguments. */
export interface CliOptions {
  /** On top of this process's own. */
  readonly env?: Readonly<Record<string, string>>;
  /** @default this process's own */
  readonly cwd?: string;
}

/** What runs until a signal, or loads modules of the user's: a process of its own each time. */
const own = ["console", "demo", "dev", "load", "mcp", "worker"];

/**
 * In a process that the commands of a file share: none pays for loading all again. One that would keep a process of its own alive
 * fails.
 *
 * @param url the database that the command is given
 */
export function runCli(url: string, ...args: readonly string[]): Promise<CliResult> {
  return runCliWith({ env: { DATABASE_URL: url } }, ...args);
}

export function runCliWith(options: CliOptions, ...args: readonly string[]): Promise<CliResult> {
  const [command = ""] = args;
  if (own.includes(command)) return spawnCli(options, ...args);
  const call: CliCall = { args, env: { ...process.env, ...options.env }, cwd: options.cwd ?? process.cwd() };
  const done = turn.then(() => ask(call));
  turn = done.catch(() => {});
  return done;
}

/** In a process of its own. */
export function spawnCli({ env, cwd }: CliOptions, ...args: readonly string[]): Promise<CliResult> {
  const { promise, resolve: finish, reject } = Promise.withResolvers<CliResult>();
  const child = spawn(process.execPath, [cliPath, ...args], { env: { ...process.env, ...env }, cwd });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  child.on("error", reject).on("close", (code) => finish({ code, stdout, stderr }));
  return promise;
}

let host: ChildProcess | undefined;
let turn: Promise<unknown> = Promise.resolve();

async function ask(call: CliCall): Promise<CliResult> {
  host ??= fork(resolve(import.meta.dirname, "cli-host.ts"), { stdio: ["ignore", "ignore", "inherit", "ipc"] });
  const ended = once(host, "exit").then(() => Promise.reject(new Error("the process of the commands has ended")));
  ended.catch(() => {});
  const answered = once(host, "message");
  host.send(call);
  const [{ result, error }] = (await Promise.race([answered, ended])) as [{ result?: CliResult; error?: string }];
  if (!result) throw new Error(`flowledger ${call.args.join(" ")}: ${error}`);
  return result;
}

afterAll(async () => {
  if (!host) return;
  const ended = once(host, "exit");
  host.disconnect();
  await ended;
  host = undefined;
});
