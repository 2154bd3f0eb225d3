/** Copies of an execution at the shell, and what the fleet is: `fork`, `save`, `load`, `workers`, `schedules`. */
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import type { Orchestrator } from "../../src/index.ts";
import { runCli } from "../support/cli.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";

const library = resolve(import.meta.dirname, "../../src/index.ts");

const asking = defineFlow("copies.asking");
asking.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" })).to("keep", (ctx) => ctx.setState("answer", ctx.input));
/** The same as a module of a user's. */
const moduleText = `
  import { createOrchestrator, defineFlow } from ${JSON.stringify(library)};
  const asking = defineFlow("copies.asking");
  asking.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" })).to("keep", (ctx) => ctx.setState("answer", ctx.input));
  export const flows = [asking];`;
const nightly = defineFlow("copies.nightly");
nightly.to("pass", () => null);

let database: TestDatabase;
let orchestrator: Orchestrator;
let folder: string;

beforeAll(async () => {
  database = await testDatabase();
  orchestrator = createOrchestrator({
    connection: database.url,
    flows: [asking],
    schedules: [{ flow: nightly, name: "every night", cron: "0 3 * * *", timeZone: "Europe/Berlin" }],
  });
  await orchestrator.startWorker();
  folder = await mkdtemp(join(tmpdir(), "flowledger-copies-"));
  await writeFile(join(folder, "flows.ts"), moduleText);
});

afterAll(async () => {
  await orchestrator.close();
  await rm(folder, { recursive: true });
});

const run = (...args: readonly string[]) => runCli(database.url, ...args);
const inFolder = (name: string) => join(folder, name);

async function waiting() {
  const execution = await orchestrator.flow(asking).startExecution(null, { autoCloseTimeout: 0 });
  await untilPending(execution);
  return execution;
}

test("fork starts a copy up to a seq or a time, and the ledger says who asked for it and why", async () => {
  const source = await waiting();
  const seq = (await source.history()).length;

  const [bySeq, byTime, ...wrongs] = await Promise.all([
    run("fork", source.id, "--at", String(seq), "--reason", "try again", "--actor", "ann"),
    run("fork", source.id, "--at", "2099-01-01", "--metadata", '{"copy": true}', "--json"),
    run("fork", source.id),
    run("fork", source.id, "--at", String(seq + 50)),
    run("fork", source.id, "--at", String(seq), "--input", "1"),
  ]);

  const copy = await orchestrator.getExecution(bySeq.stdout.trim());
  await copy.continueWith("q", "from the copy");
  expect(await copy.waitForClose()).toEqual({ answer: "from the copy" });
  const [created] = await copy.history({ types: ["execution.created"] });
  expect(created).toMatchObject({ forkedFrom: { id: source.id, seq, actor: "ann", reason: "try again" } });
  const { id, forkedFrom } = JSON.parse(byTime.stdout) as { id: string; forkedFrom: string };
  expect(forkedFrom).toBe(source.id);
  expect(await (await orchestrator.getExecution(id)).result.getMeta()).toMatchObject({ metadata: { copy: true } });
  expect(wrongs.map(({ code, stdout }) => [code, stdout])).toEqual(wrongs.map(() => [2, ""]));
});

test("what save printed or wrote goes on where it is loaded", async () => {
  const source = await waiting();

  const [printed, written] = await Promise.all([
    run("save", source.id),
    run("save", source.id, "--file", inFolder("saved.json")),
  ]);
  await writeFile(inFolder("printed.json"), printed.stdout);
  const [checked, loaded, other] = await Promise.all([
    run("load", inFolder("saved.json"), inFolder("flows.ts"), "--check", "--json"),
    run("load", inFolder("saved.json"), inFolder("flows.ts")),
    run("load", inFolder("printed.json"), inFolder("flows.ts"), "--json"),
  ]);

  expect(written.stdout).toMatch(/^saved \d+ events of execution .* to .*saved\.json\n$/);
  // It has all that the execution knows.
  expect((await stat(inFolder("saved.json"))).mode & 0o077).toBe(0);
  expect(JSON.parse(await readFile(inFolder("saved.json"), "utf8"))).toEqual(JSON.parse(printed.stdout));
  expect(JSON.parse(checked.stdout)).toMatchObject({ isReady: true, executionId: source.id });
  for (const id of [loaded.stdout.trim(), (JSON.parse(other.stdout) as { id: string }).id]) {
    const copy = await orchestrator.getExecution(id);
    await copy.continueWith("q", "loaded");
    expect(await copy.waitForClose()).toEqual({ answer: "loaded" });
    expect(await copy.result.getMeta()).toMatchObject({ loadedFrom: source.id });
  }
});

test("load refuses what is no save, was changed, or is of a flow that the module has not", async () => {
  const source = await waiting();
  const { stdout } = await run("save", source.id);
  await writeFile(inFolder("good.json"), stdout);
  await writeFile(inFolder("changed.json"), stdout.replace('"q"', '"p"'));
  await writeFile(
    inFolder("others.ts"),
    `import { defineFlow } from ${JSON.stringify(library)};
    const other = defineFlow("copies.other"); other.to("pass", () => null); export const flows = [other];`,
  );
  const rows = () => database.sql`select count(*) from flowledger.executions`;
  const before = await rows();

  const [missing, changed, foreign, checked, unwritable] = await Promise.all([
    run("load", inFolder("nowhere.json"), inFolder("flows.ts")),
    run("load", inFolder("changed.json"), inFolder("flows.ts")),
    run("load", inFolder("good.json"), inFolder("others.ts")),
    run("load", inFolder("good.json"), inFolder("others.ts"), "--check"),
    run("save", source.id, "--file", join(folder, "no", "such", "folder")),
  ]);

  expect(missing).toMatchObject({ code: 2, stderr: expect.stringContaining("nowhere.json") as string });
  expect(changed).toMatchObject({ code: 2, stderr: expect.stringContaining("digest") as string });
  expect(foreign).toMatchObject({ code: 2, stderr: expect.stringContaining("copies.asking") as string });
  expect(checked).toMatchObject({ code: 1, stdout: expect.stringContaining("copies.asking") as string });
  expect(unwritable.code).toBe(2);
  expect(await rows()).toEqual(before);
});

test("with FLOWLEDGER_SAVE_KEY a save is signed, and nothing else is loaded", async () => {
  const source = await waiting();
  const unsigned = await run("save", source.id);
  await writeFile(inFolder("unsigned.json"), unsigned.stdout);
  vi.stubEnv("FLOWLEDGER_SAVE_KEY", "a key of sixteen bytes and more");
  try {
    await run("save", source.id, "--file", inFolder("signed.json"));

    const loaded = await run("load", inFolder("signed.json"), inFolder("flows.ts"));
    const refused = await run("load", inFolder("unsigned.json"), inFolder("flows.ts"));
    vi.stubEnv("FLOWLEDGER_SAVE_KEY", "another key of sixteen bytes");
    const others = await run("load", inFolder("signed.json"), inFolder("flows.ts"));

    expect(loaded.code).toBe(0);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining("not signed") as string });
    expect(others).toMatchObject({ code: 2, stderr: expect.stringContaining("another key") as string });
  } finally {
    vi.unstubAllEnvs();
  }
});

test("workers says which processes serve which flows, and whether they are alive", async () => {
  const plain = await run("workers");
  const [worker] = JSON.parse((await run("workers", "--json")).stdout) as Record<string, unknown>[];

  expect(plain.stdout).toMatch(/^id +status +started +heartbeat +host +pid +slots +flows and versions\n/);
  expect(plain.stdout).toMatch(
    new RegExp(`alive .* ${process.pid} +100 +copies\\.asking [0-9a-f]{12}, copies\\.nightly [0-9a-f]{12}\n`),
  );
  expect(worker).toMatchObject({
    pid: process.pid,
    isAlive: true,
    slots: 100,
    versions: { "copies.asking": expect.stringMatching(/^[0-9a-f]{12}/) as string },
  });
  expect((await run("workers", "--limit", "1001")).code).toBe(2);
});

test("schedules says when each is due next, and what it started last", async () => {
  const plain = await run("schedules");
  const [schedule] = JSON.parse((await run("schedules", "--json")).stdout) as { nextAt: string }[];

  const [head, row] = plain.stdout.split("\n");
  expect(head).toMatch(/^name +flow +cron +zone +next +queued +last execution$/);
  expect(row).toMatch(/^every night +copies\.nightly +0 3 \* \* \* +Europe\/Berlin +\d{4}-\S+Z +0 +-$/);
  expect(schedule).toMatchObject({ name: "every night", waiting: 0, lastId: null, removedAt: null });
  const berlin = new Date(schedule?.nextAt ?? "").toLocaleTimeString("en-GB", { timeZone: "Europe/Berlin" });
  expect(berlin).toBe("03:00:00");
});
