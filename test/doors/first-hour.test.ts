/** The command line of the first hour: what waits and why, what was mistyped, what a script reads, what `dev` starts. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import type { Orchestrator } from "../../src/index.ts";
import { cliPath, runCli, runCliWith } from "../support/cli.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { startProcess } from "../support/processes.ts";

const library = resolve(import.meta.dirname, "../../src/index.ts");

const asking = defineFlow("asking.boss");
asking
  .to("ask", (ctx) => ctx.pauseFor({ type: "approval", interruptId: "the boss", payload: { amount: 4711 } }))
  .to("keep", (ctx) => ctx.setState("answer", ctx.input));
const declined = defineFlow("declined");
declined.to("capture", async (ctx) => {
  await ctx.putIntoStream("captured?");
  throw new RangeError("card 4711 was declined");
});
const sleeping = defineFlow("sleeping");
sleeping.to("doze", (ctx) => ctx.sleep("30d"));
const unserved = defineFlow("unserved");
unserved.to("pass", () => null);

let database: TestDatabase;
let orchestrator: Orchestrator;
let folder: string;

beforeAll(async () => {
  database = await testDatabase();
  orchestrator = createOrchestrator({ connection: database.url, flows: [asking, declined, sleeping] });
  await orchestrator.startWorker();
  folder = await mkdtemp(join(tmpdir(), "flowledger-first-hour-"));
});

afterAll(async () => {
  await orchestrator.close();
  await rm(folder, { recursive: true });
});

const run = (...args: readonly string[]) => runCli(database.url, ...args);
const lines = (text: string) => text.split("\n").filter((line) => line !== "");

test("show names what an execution waits for, and the command that answers it", async () => {
  const execution = await orchestrator.flow(asking).startExecution(null);
  await untilPending(execution);

  const { stdout } = await run("show", execution.id);
  const shown = JSON.parse((await run("show", execution.id, "--json")).stdout) as Record<string, unknown>;
  const inbox = await run("inbox", "--flow", "asking.boss");
  const page = JSON.parse((await run("inbox", "--type", "approval", "--json")).stdout) as { interrupts: object[] };
  const wrong = await run("resume", execution.id, "wrong", "1");
  const closing = await run("close", execution.id);

  expect(stdout).toContain('an answer to interrupt "the boss" (approval, chunk "ask")');
  expect(stdout).toContain('{"amount":4711}');
  expect(stdout).toContain(`flowledger resume ${execution.id} 'the boss' '<json>'`);
  expect(shown).toMatchObject({
    interrupts: [{ id: "the boss" }],
    explanation: { kind: "waiting", waits: [{ kind: "answer", interruptId: "the boss" }] },
  });
  expect(inbox.stdout).toMatch(/^execution +interrupt +flow +type +waits +asks\n/);
  expect(inbox.stdout).toContain("the boss");
  expect(page.interrupts).toMatchObject([{ id: "the boss", payload: { amount: 4711 } }]);
  expect(wrong.stderr).toContain(`\`flowledger show ${execution.id}\` lists what waits`);
  expect(closing.stderr).toContain("--cancel-interrupts");
  for (const { stderr } of [wrong, closing]) expect(stderr).not.toMatch(/\w\(/);
});

test("show says until when an execution sleeps, and that nobody serves its flow", async () => {
  const asleep = await orchestrator.flow(sleeping).startExecution(null);
  await expect.poll(async () => (await asleep.history()).some(({ type }) => type === "sleep.started")).toBe(true);
  const lonely = await orchestrator.flow(unserved).startExecution(null, { allowUnknown: true });

  const [first, second] = await Promise.all([run("show", asleep.id), run("show", lonely.id)]);

  expect(first.stdout).toMatch(/^It waits for chunk "doze", which sleeps until \d{4}-/);
  expect(second.stdout).toContain('no worker that is alive serves flow "unserved"');
});

test("explain says in one sentence why an execution is where it is, and the same as data", async () => {
  const execution = await orchestrator.flow(asking).startExecution(null);
  await untilPending(execution);

  const plain = await run("explain", execution.id);
  const data = await run("explain", execution.id, "--json");
  const unknown = await run("explain", "0190a000-0000-7000-8000-000000000000");
  const wrong = await run("explain", "boss");

  expect(lines(plain.stdout)).toEqual([
    expect.stringMatching(/^It waits for an answer to interrupt "the boss" \(approval, chunk "ask"\) since \S+\.$/),
  ]);
  expect(JSON.parse(data.stdout)).toMatchObject({ kind: "waiting", executionId: execution.id });
  expect([unknown.code, unknown.stderr]).toEqual([1, expect.stringContaining("does not exist")]);
  expect(wrong).toMatchObject({ code: 1, stderr: expect.stringContaining("boss") as string });
});

test("timeline prints a line for what an execution did, and none for each event", async () => {
  const execution = await orchestrator.flow(asking).startExecution(null);
  await untilPending(execution);

  const { stdout } = await run("timeline", execution.id);

  expect(lines(stdout)).toEqual([
    expect.stringMatching(/^what +which +status +queued +started +ended +attempts$/),
    expect.stringMatching(/^chunk +ask +paused .* 1$/),
    expect.stringMatching(/^wait +ask: the boss +pending .* -$/),
  ]);
});

test("failures are shown in groups", async () => {
  for (let count = 0; count < 2; count++)
    await orchestrator
      .flow(declined)
      .start(null, { autoCloseTimeout: 0 })
      .catch(() => {});

  const { stdout } = await run("failures", "--flow", "declined");
  const groups = JSON.parse((await run("failures", "--json")).stdout) as object[];
  const mistyped = await run("failures", "--flow", "declinde");

  expect(lines(stdout)[0]).toMatch(/^failed +flow +chunk +last +last execution +error$/);
  expect(lines(stdout)[1]).toMatch(/card # was declined$/);
  expect(mistyped).toMatchObject({ code: 2, stderr: expect.stringContaining('did you mean "declined"?') as string });
  expect(groups).toEqual(expect.arrayContaining([expect.objectContaining({ flow: "declined", chunk: "capture" })]));
});

test("history prints the whole ledger, or only some of it", async () => {
  const execution = await orchestrator.flow(declined).startExecution(null, { autoCloseTimeout: 0 });
  await execution.waitForClose().catch(() => {});

  const plain = await run("history", execution.id);
  const failed = lines((await run("history", execution.id, "--type", "chunk.failed", "--json")).stdout);
  const wrong = await run("history", execution.id, "--type", "chunk.fialed");

  expect(lines(plain.stdout)).toHaveLength((await execution.history()).length + 1);
  expect(plain.stdout).toMatch(/^1 +\S+ +execution\.created/m);
  expect(failed.map((line) => JSON.parse(line) as object)).toMatchObject([{ type: "chunk.failed", chunk: "capture" }]);
  expect(wrong.code).toBe(2);
});

test("tail of an execution that failed ends with 1 and the reason, of one that completed with 0", async () => {
  const failed = await orchestrator.flow(declined).startExecution(null, { autoCloseTimeout: 0 });
  const cancelled = await orchestrator.flow(sleeping).startExecution(null);
  await cancelled.cancel("not needed");

  const tail = await run("tail", failed.id);
  const other = await run("tail", cancelled.id);

  expect(tail).toMatchObject({ code: 1, stdout: "captured?\n" });
  expect(tail.stderr).toMatch(/^error: [^\n]*card 4711 was declined\n$/);
  expect(other.code).toBe(1);
  expect(other.stderr).toMatch(/was cancelled: not needed/);
});

test("a close that went well is not called a timeout on screens, and keeps its name for programs", async () => {
  const execution = await orchestrator.flow(asking).startExecution(null, { autoCloseTimeout: 0 });
  await untilPending(execution);
  await execution.continueWith("the boss", true);
  await execution.waitForClose();

  const [shown, listed, json] = await Promise.all([
    run("show", execution.id),
    run("list", "--flow", "asking.boss"),
    run("show", execution.id, "--json"),
  ]);

  expect(shown.stdout.slice(0, shown.stdout.indexOf("ledger"))).not.toContain("timeout");
  expect(listed.stdout).toContain("all work was done");
  expect(JSON.parse(json.stdout)).toMatchObject({ meta: { closeReason: "auto_close_idle_timeout" } });
});

test("what was mistyped is refused with what was meant, and exit code 2", async () => {
  const wrongs: readonly (readonly [readonly string[], RegExp])[] = [
    [["lst"], /unknown command 'lst' \(Did you mean list\?\)/],
    [["help", "lst"], /unknown command 'lst' \(Did you mean list\?\)/],
    [["list", "--flwo", "x"], /unknown option '--flwo' \(Did you mean --flow\?\)/],
    [["list", "--flow", "declinde"], /did you mean "declined"\?/],
    [["inbox", "--flow", "asking.bos"], /did you mean "asking.boss"\?/],
    [["list", "--status", "runing"], /Did you mean running\?/],
    [["show"], /missing required argument 'id': see --help/],
    [["list", "--limit", "0"], /must be an integer from 1 to 1000/],
    [["start", "declinde", "null"], /did you mean "declined"\?.*--force/],
    [["start", "declined", "null", "--options", '{"idempotencykey": "k"}'], /did you mean "idempotencyKey"\?/],
    [["start", "declined", "null", "--options", '{"delay": "soon"}'], /"10s"/],
  ];

  const results = await Promise.all(wrongs.map(async ([args, words]) => ({ args, words, ...(await run(...args)) })));

  for (const { args, words, code, stdout, stderr } of results) {
    expect([args, code, stdout]).toEqual([args, 2, ""]);
    expect(lines(stderr)).toEqual([expect.stringMatching(words)]);
  }
  expect((await run("start", "declinde", "null", "--force")).code).toBe(0);
  // What is no id names no execution.
  expect(await run("show", "nonsense")).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("nonsense") as string,
  });
});

test("with --json an error is one JSON document on stderr, whatever kind it is", async () => {
  const id = "0190a000-0000-7000-8000-000000000000";
  const results = [
    await run("show", id, "--json"),
    await run("list", "--limit", "0", "--json"),
    await run("list", "--odd", "--json"),
    await run("--json"),
    await run("help", "lsit", "--json"),
    await runCli("postgres://nobody@127.0.0.1:1/none", "list", "--json"),
  ];

  const documents = results.map(({ stderr }) => JSON.parse(stderr) as { error: { code: string; message: string } });

  expect(documents.map(({ error }) => error.code)).toEqual([
    "EXECUTION_NOT_FOUND",
    "USAGE_INVALID",
    "USAGE_INVALID",
    "USAGE_INVALID",
    "USAGE_INVALID",
    "CONNECTION_FAILED",
  ]);
  expect(documents[0]).toMatchObject({ error: { details: { executionId: id } } });
  expect(results.map(({ code, stdout }) => [code, stdout])).toEqual([
    [1, ""],
    [2, ""],
    [2, ""],
    [2, ""],
    [2, ""],
    [1, ""],
  ]);
});

test("a file .env gives the database, and what the shell sets outweighs it", async () => {
  await writeFile(join(folder, ".env"), `DATABASE_URL="${database.url}"\n`);
  const { DATABASE_URL: _, ...env } = process.env;
  const list = (more: Readonly<Record<string, string>>) =>
    promisify(execFile)(process.execPath, [cliPath, "list", "--json"], { cwd: folder, env: { ...env, ...more } });

  const { stdout } = await list({});
  const other = list({ DATABASE_URL: "postgres://nobody@127.0.0.1:1/none" });

  expect(JSON.parse(stdout)).toHaveProperty("executions");
  await expect(other).rejects.toThrow(/127\.0\.0\.1:1\/none/);
  await rm(join(folder, ".env"));
});

test("a folder .env, which some tools make, is none of ours", async () => {
  await mkdir(join(folder, ".env"));

  const { code, stderr } = await runCliWith({ cwd: folder, env: { DATABASE_URL: database.url } }, "list");

  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  await rm(join(folder, ".env"), { recursive: true });
});

test("a worker that is told to end while it starts ends in order, also as process 1, which no signal kills", async () => {
  const module = join(folder, "early.ts");
  await writeFile(module, `process.kill(process.pid, "SIGTERM");\n${moduleText("told.early", "never")}`);

  const { code } = await run("worker", module);

  expect(code).toBe(0);
  expect((await run("workers")).stdout).not.toMatch(/alive.*told\.early/);
});

test("a worker says what it serves, where and as which version, and drains on SIGTERM", async () => {
  const module = join(folder, "served.ts");
  await writeFile(module, moduleText("told.twice", "said"));
  await using worker = await startProcess(cliPath, { args: ["worker", module], env: { DATABASE_URL: database.url } });

  const said = worker.output();
  worker.kill("SIGTERM");

  expect(said).toMatch(/^flowledger \d+\.\d+\.\d+$/m);
  expect(said).toMatch(/^flows +told\.twice$/m);
  expect(said).toMatch(new RegExp(`^database +\\S+/${database.name}$`, "m"));
  expect(said).not.toContain(new URL(database.url).password);
  expect(await worker.exited).toEqual({ code: 0, signal: null });
});

test("dev on a database of one's own migrates it, opens a console, and takes new code when a file changes", async () => {
  const module = join(folder, "changing.ts");
  await writeFile(module, moduleText("changing", "old code"));
  await using dev = await startProcess(cliPath, { args: ["dev", module], env: { DATABASE_URL: database.url } });
  await dev.untilLine(/^console http:\/\/127\.0\.0\.1:\d+\/#/);
  const before = await dev.untilLine(/^ready worker/, 30_000);
  await run("start", "changing", "null");
  await dev.untilLine(/^old code$/);

  await writeFile(module, moduleText("changing", "new code"));
  await expect.poll(() => dev.output().match(/^ready worker/gm)?.length, { timeout: 30_000 }).toBe(2);
  await run("start", "changing", "null");
  await dev.untilLine(/^new code$/);
  dev.kill("SIGTERM");

  expect(before).not.toBe("");
  expect(await dev.exited).toEqual({ code: 0, signal: null });
  const workers = await database.sql<{ flows: string[] }[]>`
    select flows from flowledger.workers where 'changing' = any(flows)`;
  expect(workers).toHaveLength(0);
});

test("dev without a database has one of its own, which git does not see", { timeout: 60_000 }, async () => {
  const project = await mkdtemp(join(tmpdir(), "flowledger-dev-"));
  await promisify(execFile)("chmod", ["755", project]);
  await promisify(execFile)("git", ["init", "-q", project]);
  const { DATABASE_URL: _, ...env } = process.env;
  const dev = spawn(process.execPath, [cliPath, "dev", "--json"], {
    cwd: project,
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(dev, "exit");
  const [first] = (await once(dev.stdout.setEncoding("utf8"), "data")) as [string];
  const { databaseUrl } = JSON.parse(first) as { databaseUrl: string };

  // The URL of yesterday, kept in .env, is that of the same server.
  await writeFile(join(project, ".env"), `DATABASE_URL=${databaseUrl}\n`);
  const listed = await runCli(databaseUrl, "list", "--json");
  const { stdout: seen } = await promisify(execFile)("git", ["status", "--porcelain"], { cwd: project });
  dev.kill("SIGINT");

  expect(listed.code).toBe(0);
  expect(seen).toBe("?? .env\n");
  expect(await exited).toEqual([0, null]);
  await rm(project, { recursive: true, force: true });
});

/** A module for `flowledger worker`, whose chunk says something. */
function moduleText(flow: string, words: string): string {
  return `
    import { defineFlow } from ${JSON.stringify(library)};
    const flow = defineFlow(${JSON.stringify(flow)});
    flow.to("say", () => void console.log(${JSON.stringify(words)}));
    export const flows = [flow];
  `;
}
