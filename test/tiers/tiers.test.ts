/** The tiers: what a run of jobs does with a job that fails, hangs or cannot run here, and when the status is too old. */
import { globSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import { expect, test, vi } from "vitest";
import { startProcess } from "../support/processes.ts";
import { fuzzed, tiers, type Job } from "./jobs.ts";
import { isNamed, projects } from "./projects.ts";
import { tableOf } from "../mutate/score.ts";
import { runJobs } from "./runner.ts";
import { staleness, statusPage } from "./status.ts";

const root = resolve(import.meta.dirname, "../..");
const { signal: never } = new AbortController();

test("a job that fails does not hold up the others", async () => {
  const outcomes = await runJobs(
    [
      { name: "bad", run: ["-e", "process.exit(3)"] },
      { name: "killed", run: ["-e", "process.kill(process.pid, 'SIGKILL')"] },
      {
        name: "good",
        run: ["-e", "process.exit(process.env.GREETING === 'hello' ? 0 : 1)"],
        env: { GREETING: "hello" },
      },
    ],
    never,
  );

  expect(outcomes).toMatchObject([
    { name: "bad", verdict: "failed", reason: "exit code 3" },
    { name: "killed", verdict: "failed", reason: "ended by SIGKILL" },
    { name: "good", verdict: "passed", reason: null },
  ]);
});

test("a job that takes too long has failed", async () => {
  const outcomes = await runJobs([{ name: "slow", run: ["-e", "setInterval(() => {}, 1000)"], minutes: 0.001 }], never);

  expect(outcomes).toMatchObject([{ verdict: "failed", reason: "took longer than 0.001 min" }]);
});

test("a machine without containers skips what needs them, and says so", async () => {
  vi.stubEnv("PATH", "");

  const outcomes = await runJobs([{ name: "in a container", run: ["-e", ""], image: "postgres:18" }], never);
  vi.unstubAllEnvs();

  expect(outcomes).toEqual([{ name: "in a container", verdict: "skipped", reason: "no containers here", seconds: 0 }]);
});

test("an interrupt ends the job and all that it started, and no other job begins", async () => {
  const gone: Promise<unknown>[] = [];
  const { promise: bothLive, resolve: live } = Promise.withResolvers<void>();
  const server = createServer((socket) => {
    gone.push(new Promise((end) => socket.on("error", () => {}).on("close", end)));
    if (gone.length === 2) live();
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const env = { ENDLESS_PORT: String((server.address() as AddressInfo).port) };
  await using tier = await startProcess(join(import.meta.dirname, "endless.ts"), { env });
  await bothLive;

  tier.kill("SIGINT");

  expect(await tier.exited).toEqual({ code: 130, signal: null });
  await Promise.all(gone);
  expect(tier.output()).toContain("interrupted by SIGINT");
  expect(tier.output()).not.toContain("second");
  server.close();
});

test("jobs have names of their own, and files that exist", () => {
  for (const jobs of Object.values(tiers)) {
    const paths = jobs.flatMap(({ run }) => run.filter((word) => word.includes("/")));

    expect(new Set(jobs.map(({ name }) => name)).size).toBe(jobs.length);
    expect(paths.filter((path) => globSync(`${path}*`, { cwd: root }).length === 0)).toEqual([]);
  }
});

test("npm test and test:all have every test file between them, once", () => {
  const files = globSync("test/**/*.test.ts", { cwd: root });
  const ofProject = (patterns: readonly string[]) => globSync([...patterns], { cwd: root });
  const { pure, ...others } = projects;
  const elsewhere = Object.values(others).flatMap(ofProject);
  // What is tried on another server, or more often, is no repetition.
  const isMore = ({ env = {} }: Job) => "FUZZ_RUNS" in env;
  const plain = tiers.all.filter((job) => job.image === undefined && !isMore(job));
  const jobs = plain.filter(({ run }) => run[0]?.endsWith("vitest.mjs"));

  expect(files.filter((file) => ofProject(pure).includes(file) && elsewhere.includes(file))).toEqual([]);
  expect(new Set(elsewhere).size).toBe(elsewhere.length);
  expect(jobs.map(({ run }) => run.slice(2))).toEqual(Object.keys(others).map((name) => ["--project", name]));
});

test.each([
  [[], false],
  [["--retry", "0", "test/engine/"], false],
  [["test/crash/killed.test.ts"], true],
  [[join(root, "test/crash")], true],
  [["killed"], true],
  [["--project", "crash"], true],
])("vitest with %j has the crash suites: %s", (args, isThere) => {
  expect(isNamed("crash", args)).toBe(isThere);
});

test("every property is part of the fuzz job", () => {
  const files = globSync("test/**/*.test.ts", { cwd: root });
  const random = files.filter((file) =>
    /^import .*(?:"fast-check"|\/random\.ts");$/m.test(readFileSync(join(root, file), "utf8")),
  );

  expect(random.length).toBeGreaterThan(3);
  expect(random.filter((file) => !fuzzed.some((part) => file.startsWith(part)))).toEqual([]);
});

const changelog = (...headings: string[]) =>
  `# Changelog\n\n${headings.map((text) => `## ${text}\n\n- a`).join("\n\n")}`;
const status = statusPage({
  at: new Date("2026-03-05T23:59:00Z"),
  versions: { Node: "24.0.0" },
  outcomes: [
    { name: "mutant a", verdict: "passed", reason: null, seconds: 61.4 },
    { name: "chaos", verdict: "failed", reason: "exit code 1", seconds: 2 },
  ],
});

test("the status has its date, its versions, and a line per job", async () => {
  const lines = (await status).split("\n");

  expect(lines).toEqual(expect.arrayContaining(["- Date: 2026-03-05", "- Node: 24.0.0"]));
  expect(lines.filter((line) => line.endsWith(" s |")).map((line) => line.replaceAll(/ +/g, " "))).toEqual([
    "| mutant a | passed | 61 s |",
    "| chaos | failed: exit code 1 | 2 s |",
  ]);
});

test.each([
  ["is from the day of the newest release", changelog("0.2.0 (2026-03-05)", "0.1.0 (2026-01-01)")],
  ["is newer than it", changelog("0.3.0 (unreleased)", "0.2.0 (2026-03-04)")],
  ["belongs to no release yet", changelog("0.1.0 (unreleased)")],
])("a status that %s is good", async (_, text) => {
  expect(staleness(await status, text)).toBeNull();
});

test.each([
  ["is older", changelog("0.2.0 (2026-03-06)", "0.1.0 (2026-01-01)"), /^docs\/status\.md is of 2026-03-05: run /],
  ["is older than a release further down", changelog("0.1.1 (2026-01-01)", "0.2.0 (2026-03-06)"), /version 0\.2\.0/],
  ["meets a release without a date", changelog("0.2.0"), /^CHANGELOG\.md has "## 0\.2\.0", expected /],
  ["meets a date of another form", changelog("0.2.0 (March 2026)"), /expected "## 0\.2\.0 \(2026-01-31\)"/],
])("a status that %s is refused in one sentence", async (_, text, problem) => {
  expect(staleness(await status, text)).toMatch(problem);
});

test("a status that is missing, or has no date, is too old for any release", () => {
  const released = changelog("0.1.0 (2026-01-01)");

  expect(staleness(null, released)).toMatch(/^docs\/status\.md is missing: run `npm run nightly`/);
  expect(staleness("# Status\n", released)).toMatch(/^docs\/status\.md has no line "- Date: 2026-01-31"/);
  expect(staleness(null, changelog("0.1.0 (unreleased)"))).toBeNull();
});

test("of changes to the pure rooms 90 in 100 are to be seen, of those that a test runs through", () => {
  const mutants = (statuses: Record<string, number>) => ({
    mutants: Object.entries(statuses).flatMap(([status, count]) => Array.from({ length: count }, () => ({ status }))),
  });
  const good = { "a.ts": mutants({ Killed: 17, Timeout: 1, Survived: 2, NoCoverage: 9, Ignored: 3 }) };

  expect(tableOf(good)).toEqual({
    text: [
      "a.ts   90.0 %  17 killed, 1 endless, 2 survived, 9 run by no pure test",
      "all    90.0 %  17 killed, 1 endless, 2 survived, 9 run by no pure test",
    ].join("\n"),
    isEnough: true,
  });
  expect(tableOf({ ...good, "b.ts": mutants({ Survived: 1 }) }).isEnough).toBe(false);
  expect(tableOf({ "c.ts": mutants({ NoCoverage: 1 }) }).isEnough).toBe(true);
});
