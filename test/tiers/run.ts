/**
 * `npm run test:all` and `npm run nightly`: `node test/tiers/run.ts <tier> [--only name]… [--without name]…`. Runs every job
 * of the tier, says how each went, and exits with 1 when one failed. A whole `nightly` writes `docs/status.md`.
 */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import postgres from "postgres";
import { startEmbeddedPostgres } from "../../src/embedded.ts";
import { tiers } from "./jobs.ts";
import { runTier } from "./runner.ts";
import { statusPage } from "./status.ts";

const root = resolve(import.meta.dirname, "../..");
const names = { type: "string", multiple: true, default: [] as string[] } as const;
const { values, positionals } = parseArgs({ options: { only: names, without: names }, allowPositionals: true });
const tier = (Object.keys(tiers) as (keyof typeof tiers)[]).find((name) => name === positionals[0]);
if (!tier) throw new Error(`expected a tier, one of ${Object.keys(tiers).join(", ")}, got ${positionals[0]}`);
for (const name of [...values.only, ...values.without])
  if (!tiers[tier].some((job) => job.name === name))
    throw new Error(`expected a job, one of ${tiers[tier].map((job) => job.name).join(", ")}, got ${name}`);
const jobs = tiers[tier].filter(
  ({ name }) => !values.without.includes(name) && (values.only.length === 0 || values.only.includes(name)),
);

// What runs is what is there now, whatever changes meanwhile.
const versions = tier === "nightly" && jobs.length === tiers[tier].length ? await currentVersions() : null;
const outcomes = await runTier(tier, jobs);
if (versions) writeFileSync(resolve(root, "docs/status.md"), await statusPage({ at: new Date(), versions, outcomes }));
if (outcomes.some(({ verdict }) => verdict === "failed")) process.exitCode = 1;

async function currentVersions(): Promise<Record<string, string>> {
  const { version } = JSON.parse(readFileSync(resolve(root, "package.json"), "utf8")) as { version: string };
  const git = (...args: string[]) => execFileSync("git", args, { cwd: root, encoding: "utf8" }).trim();
  const changes = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/status.md");
  return {
    flowledger: `${version}, commit ${git("rev-parse", "--short", "HEAD")}${changes === "" ? "" : " with changes"}`,
    Node: process.versions.node,
    Postgres: `${await embeddedVersion()} (the embedded one)`,
    Machine: `${process.platform} ${process.arch}, ${availableParallelism()} CPUs`,
  };
}

async function embeddedVersion(): Promise<string> {
  await using server = await startEmbeddedPostgres({ durable: false });
  const sql = postgres(server.url, { max: 1 });
  try {
    const [row] = await sql<[{ server_version: string }]>`show server_version`;
    return row.server_version;
  } finally {
    await sql.end();
  }
}
