/** `npx flowledger …` as people and scripts run it: a process of its own, with its output and its exit code. */
import { spawn } from "node:child_process";
import { resolve } from "node:path";

export const cliPath: string = resolve(import.meta.dirname, "../../src/cli.ts");

export interface CliResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** @param url the database that the command is given */
export function runCli(url: string, ...args: readonly string[]): Promise<CliResult> {
  const { promise, resolve: finish, reject } = Promise.withResolvers<CliResult>();
  const child = spawn(process.execPath, [cliPath, ...args], { env: { ...process.env, DATABASE_URL: url } });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  child.on("error", reject).on("close", (code) => finish({ code, stdout, stderr }));
  return promise;
}
