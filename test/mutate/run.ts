/**
 * `npm run mutate`: changes the pure rooms in one place at a time, and runs the pure tests on each change. Prints what they let live, and
 * ends with 1 where they see less than 90 in 100 of what they reach. Takes options of Stryker: `npm run mutate -- --mutate src/base/json.ts`.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { tableOf } from "./score.ts";

const root = new URL("../../", import.meta.url);
const folder = new URL("./", import.meta.url);
const report = new URL(".mutate/report.json", root);
/** So often each property is tried on each change. */
const fuzzRuns = "100";

const Report = z.object({
  files: z.record(z.string(), z.object({ mutants: z.array(z.object({ status: z.string() })) })),
});

if (writtenAt("node_modules/.package-lock.json") < writtenAt("package-lock.json")) {
  const npm = process.env["npm_execpath"];
  const words = ["ci", "--no-audit", "--no-fund", "--ignore-scripts"];
  const [command, args] = npm === undefined ? ["npm", words] : [process.execPath, [npm, ...words]];
  if ((await ended(command, args, folder)) !== 0) throw new Error("npm ci in test/mutate failed");
}
rmSync(report, { force: true });
const stryker = fileURLToPath(new URL("node_modules/@stryker-mutator/core/bin/stryker.js", folder));
const options = ["run", "test/mutate/stryker.json", "--incremental", ...process.argv.slice(2)];
const code = await ended(process.execPath, [stryker, ...options], root, { FUZZ_RUNS: fuzzRuns });
if (code !== 0) process.exit(code);
const { files } = Report.parse(JSON.parse(readFileSync(report, "utf8")));
const { text, isEnough } = tableOf(files);
console.log(`\n${text}`);
if (!isEnough) process.exitCode = 1;

async function ended(command: string, args: string[], cwd: URL, env: NodeJS.ProcessEnv = {}): Promise<number> {
  const child = spawn(command, args, { cwd: fileURLToPath(cwd), stdio: "inherit", env: { ...env, ...process.env } });
  const [exit] = (await once(child, "exit")) as [number | null];
  return exit ?? 1;
}

/** 0 when it is not there. */
function writtenAt(path: string): number {
  return statSync(new URL(path, folder), { throwIfNoEntry: false })?.mtimeMs ?? 0;
}
