/** Builds the site: the documents as they are, and the API from the doc comments, into `site/dist`. `npm run site` in the root. */
import { spawnSync } from "node:child_process";
import { cpSync, globSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

const site = import.meta.dirname;
const root = resolve(site, "..");
const pages = join(site, "pages");

rmSync(pages, { recursive: true, force: true });
// Where they are in the repository, so that their links lead to each other here as well.
for (const file of [
  "README.md",
  "CHANGELOG.md",
  "CONTRIBUTING.md",
  "SECURITY.md",
  ...globSync("docs/*", { cwd: root }),
]) {
  mkdirSync(dirname(join(pages, file)), { recursive: true });
  cpSync(join(root, file), join(pages, file), { recursive: true });
}
run("typedoc", "--options", "typedoc.json");
run("vitepress", "build");

function run(command: string, ...args: readonly string[]): void {
  const { status, error } = spawnSync(join(site, "node_modules/.bin", command), args, { cwd: site, stdio: "inherit" });
  if (error) throw error;
  if (status !== 0) process.exit(status ?? 1);
}
