/** The packages beside us, installed into this folder alone, from its own lock file. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { EngineName } from "./engine.ts";

/** What npm writes when it has installed. */
const installed = "node_modules/.package-lock.json";
const folder = new URL("./", import.meta.url);
const packages: Record<EngineName, string | null> = {
  flowledger: null,
  dbos: "@dbos-inc/dbos-sdk",
  openworkflow: "openworkflow",
  absurd: "absurd-sdk",
  pgboss: "pg-boss",
  graphile: "graphile-worker",
};

/** Installs what the lock file says, unless that is there. With `newest` what was published last, and the lock file stays. */
export async function install(newest: boolean): Promise<void> {
  if (newest) {
    const names = Object.values(packages).filter((name) => name !== null);
    await npm("install", "--no-save", "--no-package-lock", ...names.map((name) => `${name}@latest`));
    // Without it the next run that does not want the newest installs again.
    rmSync(new URL(installed, folder), { force: true });
  } else if (writtenAt(installed) < writtenAt("package-lock.json")) await npm("ci");
}

/** Of each engine, as installed. */
export function versionOf(engine: EngineName): string {
  const name = packages[engine];
  const manifest = new URL(name === null ? "../../package.json" : `node_modules/${name}/package.json`, folder);
  return z.object({ version: z.string() }).parse(JSON.parse(readFileSync(manifest, "utf8"))).version;
}

async function npm(...words: string[]): Promise<void> {
  const args = [...words, "--no-audit", "--no-fund", "--ignore-scripts"];
  // Under `npm run`, the npm that runs us.
  const path = process.env["npm_execpath"];
  const [command, all] = path === undefined ? ["npm", args] : [process.execPath, [path, ...args]];
  const child = spawn(command, all, { cwd: fileURLToPath(folder), stdio: ["ignore", "ignore", "inherit"] });
  const [code] = await once(child, "exit");
  if (code !== 0) throw new Error(`npm ${args.join(" ")} in bench/peers ended with ${code}`);
}

/** 0 when it is not there. */
function writtenAt(path: string): number {
  return statSync(new URL(path, folder), { throwIfNoEntry: false })?.mtimeMs ?? 0;
}
