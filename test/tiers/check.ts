/** Part of `npm run check`: fails with a sentence when the last nightly run is older than the newest release. */
import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { staleness } from "./status.ts";

const root = resolve(import.meta.dirname, "../..");
const status = resolve(root, "docs/status.md");

const problem = staleness(
  existsSync(status) ? readFileSync(status, "utf8") : null,
  readFileSync(resolve(root, "CHANGELOG.md"), "utf8"),
);
if (problem !== null) {
  console.error(problem);
  process.exitCode = 1;
}
