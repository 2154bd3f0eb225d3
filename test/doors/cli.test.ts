/** `npx flowledger`, as people and scripts run it, with its output and its exit codes. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createOrchestrator, defineFlow, jsonLogger } from "../../src/index.ts";
import type { Orchestrator } from "../../src/index.ts";
import { administer, emptyDatabase, testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import type { TestDatabase } from "../support/database.ts";
import { refusal, serving } from "../support/flows.ts";
import { cliPath as cli, type CliResult, runCliWith, spawnCli } from "../support/cli.ts";
import { startProcess } from "../support/processes.ts";

const library = resolve(import.meta.dirname, "../../src/index.ts");
const unknownId = "0190a000-0000-7000-8000-000000000000";

const greeting = defineFlow("greeting");
greeting.to("greet", async (ctx) => {
  await ctx.setState("greeting", `hello ${String(ctx.input)}`);
  await ctx.putIntoStream({ step: "greeted" });
});
greeting.when("Named").to("name", async (ctx) => {
  await ctx.setState("name", ctx.input);
  await ctx.putIntoStream("named");
});
const broken = defineFlow("broken");
broken.to("fall over", () => {
  throw new RangeError("the shelf is too high");
});

const asking = defineFlow("asking");
asking
  .to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", payload: { q: "Refund?" } }))
  .to("keep", async (ctx) => await ctx.setState("answer", ctx.input));

const publishing = defineFlow("publishing");
publishing.toSubFlow(asking);

let database: TestDatabase;
let orchestrator: Orchestrator;
let folder: string;

beforeAll(async () => {
  database = await testDatabase();
  orchestrator = createOrchestrator({ connection: database.url, flows: [greeting, broken, asking, publishing] });
  await orchestrator.startWorker();
  folder = await mkdtemp(join(tmpdir(), "flowledger-cli-test-"));
});

afterAll(async () => {
  await orchestrator.close();
  await rm(folder, { recursive: true, force: true });
});

test("a script starts, emits to, tails, closes and reads an execution with --json", async () => {
  const { id } = await json<{ id: string }>("start", "greeting", '"Ada"', "--options", '{"autoClose": false}');

  const accepted = await json("emit", id, "Named", '{"first": "Ada"}', "--idempotency-key", "k");
  const snapshot = await json("close", id, "--reason", "enough");
  const items = await run("tail", id, "--json");
  const shown = await json<Shown>("show", id, "--events", "1");

  expect(accepted).toEqual({ accepted: "Named" });
  const execution = await orchestrator.getExecution(id);
  expect(await execution.history({ types: ["event.emitted", "execution.sealed"] })).toMatchObject(
    ["event.emitted", "execution.sealed"].map((type) => ({ type, actor: "cli" })),
  );
  expect(snapshot).toEqual({ greeting: "hello Ada", name: { first: "Ada" } });
  expect(items).toEqual({ code: 0, stdout: '{"step":"greeted"}\n"named"\n', stderr: "" });
  expect(shown.state).toEqual(snapshot);
  expect(shown.meta).toMatchObject({ executionId: id, status: "completed", closeReason: "enough" });
  expect(shown.events.map(({ type }) => type)).toEqual(["execution.closed"]);
  expect(shown.error).toBeNull();
});

test("a delayed start waits from the shell too, whatever is sent to it; discardAfter ends what nobody takes in time", async () => {
  const start = (options: object) =>
    json<{ id: string }>("start", "greeting", '"Ada"', "--options", JSON.stringify({ delay: "1h", ...options }));
  const { id } = await start({ interventionMode: "planned" });
  const late = await start({ discardAfter: "10ms" });

  await json("emit", id, "Named", '"too early"');
  await json("intervene", id, '"slower"');
  await json("seal", id);

  const delayed = await orchestrator.getExecution(id);
  expect(await delayed.history({ types: ["execution.claimed"] })).toEqual([]);
  await refusal((await orchestrator.getExecution(late.id)).waitForClose());
  const { meta } = await json<Shown>("show", late.id);
  expect(meta).toMatchObject({ closeReason: "discarded", status: "cancelled" });
  await json("cancel", id);
  expect(await delayed.result.getMeta()).toMatchObject({ lifecycleState: "closed", closeReason: "cancelled" });
  expect(await delayed.history({ types: ["cancel.requested"] })).toMatchObject([{ actor: "cli" }]);
});

test("a process of its own, as a shell starts it, says the same as one that runs commands in turn, and ends with the same code", async () => {
  const options = { env: { DATABASE_URL: database.url }, cwd: folder };
  const { id } = await json<{ id: string }>("start", "greeting", '"Ada"');

  for (const args of [["history", id], ["show", unknownId, "--json"], ["list", "--odd"], []])
    expect({ args, ...(await spawnCli(options, ...args)) }).toEqual({ args, ...(await runCliWith(options, ...args)) });
});

test("an id that is no uuid is not found, as one that nobody has", async () => {
  const unknown = await run("show", "01890000-0000-7000-8000-00000000dead", "--json");

  for (const command of ["show", "cancel", "history"]) {
    const wrong = await run(command, "refund-1", "--json");
    expect(wrong.code).toBe(unknown.code);
    expect(wrong.stderr).toContain("refund-1");
    expect(wrong.stderr).toContain("EXECUTION_NOT_FOUND");
  }
});

test("close --cancel-interrupts ends what waits in a sub-flow that has long been parked", async () => {
  const { id } = await json<{ id: string }>("start", "publishing", "null", "--options", '{"autoClose": false}');
  const execution = await orchestrator.getExecution(id);
  await untilPending(execution);
  const owner = () => database.sql`select owner from flowledger.executions where id = ${id}`;
  await expect.poll(owner).toEqual([{ owner: null }]);

  const closed = await run("close", id, "--cancel-interrupts");

  expect(closed.code).toBe(0);
  expect(await execution.result.getMeta()).toMatchObject({ lifecycleState: "closed", closeReason: "manual" });
});

test("tail follows a live stream to its end, from a cursor on, and says what is wrong with one", async () => {
  const id = await started("greeting", { autoClose: false });
  await using following = await startProcess(cli, {
    args: ["tail", id],
    env: { DATABASE_URL: database.url },
    ready: /greeted/,
  });

  await run("emit", id, "Named");
  await following.untilLine(/^named$/);
  await run("close", id);

  expect(await following.exited).toMatchObject({ code: 0 });
  expect(await run("tail", id, "--from", "1")).toEqual({ code: 0, stdout: "named\n", stderr: "" });
  const beyond = await run("tail", id, "--from", "9");
  expect([beyond.code, beyond.stderr]).toEqual([2, expect.stringContaining("whose last cursor is 2")]);
  const other = await run("tail", id, "--from", "1-00000000");
  expect([other.code, other.stderr]).toEqual([2, expect.stringContaining("is of another stream")]);
  expect((await run("tail", id, "--from", "-1")).code).toBe(2);
  expect((await run("tail", unknownId)).code).toBe(1);
});

test("list filters by flow and status, as lines or as one document", async () => {
  const id = await started("greeting", { autoClose: false });

  const plain = await run("list", "--flow", "greeting", "--status", "running", "--limit", "5");
  const page = await json<{ executions: { id: string }[] }>("list", "--status", "running");
  await run("cancel", id, "--reason", "test is over");

  expect(plain.stdout).toMatch(/^id +flow +status +created +closed +reason\n/);
  expect(plain.stdout).toContain(id);
  expect(page.executions.map((execution) => execution.id)).toContain(id);
});

test("list takes every filter, and says how many there are", async () => {
  await started("greeting", { metadata: { tenant: "acme" } });
  const times = ["--created-after", "2020-01-01", "--order", "oldest"];
  const others = ["--metadata", '{"tenant": "acme"}', "--id-prefix", "0", "--limit", "3"];

  const page = await json<{ executions: object[] }>("list", "--flow", "greeting", "broken", ...times, ...others);
  const counted = await run("list", "--flow", "greeting", "--count", "1");

  expect(page.executions).toMatchObject([{ flow: "greeting", metadata: { tenant: "acme" } }]);
  expect(counted.stdout).toMatch(/^(more than )?1\n$/);
});

test("a pipe gets plain lines, without colour", async () => {
  const id = await started("greeting", {});

  const { stdout } = await run("show", id);

  expect(stdout).toMatch(/^.+\.\n\nmeta\nexecutionId {5}/);
  expect(stdout).not.toContain(String.fromCodePoint(27));
});

test("what is stored cannot write control characters to the terminal of whoever looks", async () => {
  const evil = "\u001b]0;title\u0007\u001b[2J\u009b31m\u202e\ncompleted";
  const [{ id }] = await database.sql<[{ id: string }]>`
    select flowledger.start('nobodys', '1', ${database.sql.json({ metadata: { evil }, allowUnknown: true })}) as id`;
  await database.sql`select flowledger.cancel(${id}, ${evil}, ${evil})`;
  const talking = await orchestrator.flow(greeting).startExecution(evil, { autoClose: false });
  await talking.emit("Named", evil);
  await talking.close();

  const plain = await Promise.all(
    [["list"], ["show", id], ["show", talking.id], ["tail", talking.id]].map((args) => run(...args)),
  );
  const documents = await Promise.all([["show", talking.id], ["list"]].map((args) => run(...args, "--json")));

  for (const { stdout, stderr } of [...plain, ...documents])
    // oxlint-disable-next-line no-control-regex
    expect(stdout + stderr).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e]/);
  expect(plain[0]?.stdout).toContain(String.raw`\u001b]0;title\u0007\u001b[2J\u009b31m\u202e`);
  // No line of its own either.
  expect(plain[0]?.stdout).not.toMatch(/^completed/m);
  expect(documents[0]?.stdout).toContain(String.raw`\u202e`);
  expect(JSON.parse(documents[0]?.stdout ?? "")).toMatchObject({ state: { greeting: `hello ${evil}` } });
});

test("an error that is stored with several lines writes none that looks like another, wherever it is shown", async () => {
  const flow = defineFlow("several-lines");
  flow.to("fall", () => {
    throw Object.assign(new Error("bad\ncompleted"), { name: "Odd\ncompleted" });
  });
  await using own = await serving(database, [flow], { logger: jsonLogger({ write: () => {} }) });
  const execution = await own.flow(flow).startExecution(null);
  await execution.waitForClose().catch(() => {});

  for (const args of [
    ["show"],
    ["explain"],
    ["timeline"],
    ["history"],
    ["tail"],
    ["close"],
    ["resume", "q\ncompleted"],
  ]) {
    const [command = "", ...rest] = args;
    const { stdout, stderr } = await run(command, execution.id, ...rest);
    expect({ command, written: stdout + stderr }).toMatchObject({ written: expect.not.stringMatching(/^completed/m) });
  }
  expect((await run("failures")).stdout).not.toMatch(/^completed/m);
});

test("show says what failed, and where", async () => {
  const id = await started("broken", {});
  await run("close", id);

  const plain = await run("show", id);
  const shown = await json<Shown>("show", id);

  expect(plain.stdout).toContain('error RangeError: the shelf is too high\nin chunk "fall over", attempt 1\n');
  expect(shown.error).toMatchObject({ name: "RangeError", chunk: "fall over" });
});

test("close of a failed execution exits with 1 and the chunk's own words", async () => {
  const id = await started("broken", {});

  const { code, stderr } = await run("close", id);

  expect(code).toBe(1);
  expect(sentences(stderr)).toEqual([expect.stringMatching(/failed in chunk "fall over" with RangeError/)]);
});

test("a sealed execution refuses an emit with one sentence", async () => {
  const id = await started("greeting", { autoClose: false });
  await run("seal", id);

  const { code, stderr } = await run("emit", id, "Named");

  expect(code).toBe(1);
  const sealed = await orchestrator.getExecution(id);
  expect(await sealed.history({ types: ["execution.sealed"] })).toMatchObject([{ actor: "cli" }]);
  expect(sentences(stderr)).toEqual([expect.stringMatching(/(sealed|closed) and no longer accepts "Named"/)]);
});

test("an unknown execution is one sentence and exit code 1, with the stack only on --verbose", async () => {
  const short = await run("show", unknownId);
  const long = await run("show", unknownId, "--verbose");

  expect(short.code).toBe(1);
  expect(sentences(short.stderr)).toEqual([expect.stringContaining(`execution ${unknownId} does not exist`)]);
  expect(long.stderr).toContain("    at ");
});

test("a command line that cannot be read exits with 2", async () => {
  const lines = [["frobnicate"], ["show"], ["start", "greeting", "{not json"], ["list", "--status", "odd"], ["--odd"]];

  const results = await Promise.all(lines.map((line) => run(...line)));

  expect(results.map(({ code }) => code)).toEqual([2, 2, 2, 2, 2]);
  for (const { stderr } of results) expect(sentences(stderr)).toHaveLength(1);
});

test("without a database the error says three ways to one", async () => {
  const { code, stderr } = await runWith({ DATABASE_URL: "" }, "list");

  expect(code).toBe(2);
  expect(sentences(stderr)).toEqual([expect.stringMatching(/--database <url>.*DATABASE_URL.*npx flowledger dev/)]);
});

test("a wrong password, a server that is not there and a database without our schema are one sentence each", async () => {
  await using empty = await emptyDatabase();
  const wrong = new URL(database.url);
  wrong.password = "wrong-password";
  const nobody = new URL(database.url);
  nobody.port = "1";

  const results = await Promise.all([wrong.href, nobody.href, empty.url].map((url) => run("list", "--database", url)));

  expect(results.map(({ code }) => code)).toEqual([1, 1, 1]);
  expect(results.flatMap(({ stderr }) => sentences(stderr))).toEqual([
    expect.stringMatching(/was refused: check user and password/),
    expect.stringMatching(/no server listens there \(ECONNREFUSED\)/),
    expect.stringMatching(/npx flowledger migrate/),
  ]);
  expect(results.map(({ stderr }) => stderr).join("")).not.toContain("wrong-password");
});

test("migrate brings an empty database to this version, twice", async () => {
  await using empty = await emptyDatabase();

  const results = [
    await run("migrate", "--database", empty.url),
    await run("migrate", "--json", "--database", empty.url),
  ];

  expect(results.map(({ code }) => code)).toEqual([0, 0]);
  expect(results[1]?.stdout).toBe('{"migrated":true}\n');
});

test("a worker serves the flows of a module and drains on SIGTERM", async () => {
  await using own = await testDatabase();
  const module = join(folder, "flows.ts");
  await writeFile(module, moduleText("served"));
  await using worker = await startProcess(cli, { args: ["worker", module], env: { DATABASE_URL: own.url } });
  const { id } = await json<{ id: string }>(
    "start",
    "served",
    '"Ada"',
    "--options",
    '{"autoClose": false}',
    "--database",
    own.url,
  );
  await worker.untilLine(/^working/);

  worker.kill("SIGTERM");
  const { code } = await worker.exited;
  const shown = await json<Shown>("show", id, "--database", own.url);

  expect(code).toBe(0);
  expect(shown.state).toEqual({ done: true });
});

test("a worker serves the background functions of a module, which call each other", async () => {
  await using own = await testDatabase();
  const module = join(folder, "functions.ts");
  await writeFile(
    module,
    `import { defer } from ${JSON.stringify(join(dirname(library), "defer.ts"))};
     const second = defer((n: number) => void console.log("second got", n), { name: "second" });
     const first = defer((n: number) => second(n + 1), { name: "first" });
     export const functions = [first, second];`,
  );
  await using worker = await startProcess(cli, { args: ["worker", module], env: { DATABASE_URL: own.url } });

  await json("start", "first", "[41]", "--database", own.url);

  expect(await worker.untilLine(/^second/)).toBe("second got 42");
});

test("a second signal ends a worker at once", async () => {
  await using own = await testDatabase();
  const module = join(folder, "slow.ts");
  await writeFile(module, moduleText("slow", 60_000));
  await using worker = await startProcess(cli, { args: ["worker", module], env: { DATABASE_URL: own.url } });
  await json("start", "slow", "null", "--database", own.url);
  await worker.untilLine(/^working/);

  worker.kill("SIGINT");
  await worker.untilLine(/^draining/);
  worker.kill("SIGINT");

  expect(await worker.exited).toEqual({ code: 130, signal: null });
});

test("a module without flows is one sentence", async () => {
  const module = join(folder, "empty.ts");
  await writeFile(module, "export const nothing = 1;\n");

  const results = await Promise.all([run("worker", module), run("worker", join(folder, "missing.ts"))]);

  expect(results.map(({ code }) => code)).toEqual([2, 2]);
  expect(results.map(({ stderr }) => sentences(stderr).length)).toEqual([1, 1]);
});

test("the demo reviews a file, and leaves no process and no folder", { timeout: 60_000 }, async () => {
  const file = join(folder, "note.md");
  await writeFile(file, "# Terms\n\nThe tenant is liable. We may evict without notice.\n\n# Rest\n\nAll is well.\n");

  const { code, stdout, stderr } = await runWith({ DATABASE_URL: "" }, "demo", file);

  expect(stderr).toBe("");
  expect(code).toBe(0);
  expect(stdout).toContain('"level": "high"');
  expect(stdout.match(/^from flowledger\.ledger|\bfrom flowledger\.ledger/gm)?.length).toBe(3);
  const data = /data in (\S+)/.exec(stdout)?.[1] ?? "";
  expect(data).not.toBe("");
  expect(await commandLines()).not.toContain(data);
  await expect(readdir(data)).rejects.toThrow("ENOENT");
});

test("Ctrl-C in the demo leaves no process and no folder", { timeout: 60_000 }, async () => {
  await using demo = await startProcess(cli, { args: ["demo"], env: { DATABASE_URL: "" }, ready: /data in/ });
  const data = /data in (\S+)/.exec(demo.readyLine)?.[1] ?? "";

  demo.kill("SIGINT");
  const { code } = await demo.exited;

  expect(code).toBe(130);
  expect(await commandLines()).not.toContain(data);
  await expect(readdir(data)).rejects.toThrow("ENOENT");
});

test("the demo on a database of the user's own says which execution to look at", { timeout: 60_000 }, async () => {
  const result = await json<{ id: string; closeSnapshot: object; audit: { rows: object[] }[] }>("demo");

  const shown = await json<Shown>("show", result.id);

  expect(shown.state).toEqual(result.closeSnapshot);
  expect(result.audit).toHaveLength(3);
  for (const { rows } of result.audit) expect(rows.length).toBeGreaterThan(0);
});

test("a person resumes and corrects from the shell, and the ledger says who", async () => {
  const id = await started("asking", { interventionMode: "auto", autoCloseTimeout: 0 });
  await untilPending(await orchestrator.getExecution(id));

  const correction = await json<{ version: number; author: string }>(
    "intervene",
    id,
    '{"price": 2}',
    "--author",
    "ann",
  );
  const resumed = await json("resume", id, "q", '{"ok": true}', "--request-id", "r", "--actor", "ann");
  const again = await run("resume", id, "q", '{"ok": true}', "--request-id", "r");
  const [other, unknown] = [await run("resume", id, "q", "2", "--request-id", "r"), await run("resume", id, "no", "1")];
  const snapshot = await (await orchestrator.getExecution(id)).waitForClose();

  expect(correction).toMatchObject({ version: 1, author: "ann" });
  expect(resumed).toMatchObject({ id: "q", status: "resumed", value: { ok: true }, actor: "ann" });
  expect(again).toEqual({ code: 0, stdout: 'resumed "q"\n', stderr: "" });
  expect([other.code, unknown.code]).toEqual([1, 1]);
  expect(sentences(other.stderr + unknown.stderr)).toHaveLength(2);
  expect(snapshot).toMatchObject({ answer: { ok: true } });
});

test("an answer before its question is refused at the shell, and kept with --early", async () => {
  const id = await started("asking", { interventionMode: "auto", autoCloseTimeout: 0 });
  await untilPending(await orchestrator.getExecution(id));

  const refused = await run("resume", id, "later", "1");
  const kept = await run("resume", id, "later", "1", "--early");

  expect([refused.code, refused.stdout]).toEqual([1, ""]);
  expect(kept).toEqual({ code: 0, stdout: 'kept until it is asked: "later"\n', stderr: "" });
  expect(await json("show", id)).toMatchObject({ meta: { earlyAnswers: ["later"] } });
});

test("a person takes a question back from the shell, and who answers later is told", async () => {
  const id = await started("asking", { interventionMode: "auto", autoCloseTimeout: 0 });
  await untilPending(await orchestrator.getExecution(id));

  const withdrawn = await json("withdraw", id, "q", "--actor", "ann", "--reason", "sold");
  const [late, unknown] = [await run("withdraw", id, "q"), await run("withdraw", id, "no")];

  expect(withdrawn).toMatchObject({ id: "q", status: "withdrawn", actor: "ann" });
  expect([late.code, unknown.code]).toEqual([1, 1]);
  expect(late.stderr).toContain(`execution ${id}`);
  expect(sentences(late.stderr + unknown.stderr)).toHaveLength(2);
});

test("verify names what is wrong and exits with 1, rebuild puts it right", async () => {
  const id = await started("greeting", { autoCloseTimeout: 0 });
  await (await orchestrator.getExecution(id)).waitForClose();
  const well = await run("verify", id);
  await database.sql`update flowledger.executions set close_snapshot = '{"forged": true}' where id = ${id}`;

  const wrong = await run("verify", id);
  const rebuilt = await json<{ executions: number; differences: object[] }>("rebuild", id);
  const after = await run("verify");

  expect(well).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^verified 1 executions, \d+ events: 0 problems\n$/) as string,
  });
  expect(wrong.code).toBe(1);
  expect(wrong.stdout).toContain(
    `${id}  I3  header: close_snapshot is {"forged":true}, the ledger says {"greeting":"hello Ada"}`,
  );
  expect(rebuilt).toMatchObject({
    executions: 1,
    differences: [{ table: "executions", found: { close_snapshot: { forged: true } } }],
  });
  expect(after.stdout).toMatch(/^verified [^\n]* 0 problems\n$/);
  expect(await Promise.all([run("verify", unknownId), run("verify", "x")])).toMatchObject([{ code: 1 }, { code: 1 }]);
  // A ledger with a gap cannot be folded: it stays as it is, and that is a failure.
  const move = (from: number, to: number) =>
    database.sql.begin(async (tx) => {
      await tx`alter table flowledger.ledger disable trigger ledger_append_only`;
      await tx`update flowledger.ledger set seq = ${to} where execution_id = ${id} and seq = ${from}`;
      await tx`alter table flowledger.ledger enable always trigger ledger_append_only`;
    });
  await move(2, 9999);
  expect(await run("rebuild", id)).toMatchObject({ code: 1, stdout: expect.stringContaining("there is no event 2") });
  await move(9999, 2);
  expect((await run("rebuild", id)).code).toBe(0);
});

test("prune says what it removed and keeps what it was told to", async () => {
  const [gone, kept, open, held] = [
    await started("greeting", { autoCloseTimeout: 0 }),
    await started("broken", { autoCloseTimeout: 0 }),
    await started("asking", {}),
    await started("greeting", { autoCloseTimeout: 0, metadata: { legal: "hold" } }),
  ];
  for (const id of [gone, kept, held]) await (await orchestrator.getExecution(id)).waitForClose().catch(() => {});
  const [before] = await database.sql<
    { events: number }[]
  >`select count(*)::int as events from flowledger.ledger where execution_id = ${gone}`;

  const { code, stdout } = await run(
    "prune",
    "--closed-before",
    "2999-01-01",
    "--keep",
    "failed",
    "cancelled",
    "--keep-flow",
    "asking",
    "--keep-metadata",
    '{"legal": "hold"}',
  );
  const nothing = await json(
    "prune",
    "--closed-before",
    "2999-01-01",
    "--keep",
    "failed",
    "cancelled",
    "--keep-flow",
    "asking",
    "--keep-metadata",
    '{"legal": "hold"}',
  );

  expect(code).toBe(0);
  expect(Number(/^removed \d+ executions, (\d+) events/.exec(stdout)?.[1])).toBeGreaterThanOrEqual(
    before?.events ?? Infinity,
  );
  expect(nothing).toEqual({ executions: 0, events: 0, streamItems: 0 });
  const left = await database.sql<{ id: string }[]>`select distinct execution_id as id from flowledger.ledger`;
  expect(left.map(({ id }) => id)).toEqual(expect.arrayContaining([kept, open, held]));
  expect(left.map(({ id }) => id)).not.toContain(gone);
  expect((await run("verify")).stdout).toMatch(/^verified [^\n]* 0 problems\n$/);
  const bad = [
    ["prune"],
    ["prune", "--closed-before", "soon"],
    ["prune", "--closed-before", "2020-01-01", "--keep", "running"],
    ...[
      ["--closed-before", "2020-01-01"],
      ["--keep", "failed"],
      ["--keep-flow", "asking"],
      ["--keep-metadata", "{}"],
    ].map((kept) => ["prune", "--id", unknownId, "--actor", "ann", "--reason", "asked for", ...kept]),
  ];
  expect((await Promise.all(bad.map((line) => run(...line)))).map((result) => result.code)).toEqual(bad.map(() => 2));
});

test("doctor looks at everything, a line each, and fails with a remedy", async () => {
  await using empty = await emptyDatabase();
  await using own = await testDatabase();
  const flow = defineFlow("examined");
  flow.to("pass", () => null);
  await using _orchestrator = await serving(own, [flow]);

  const [json, plain, asAdmin] = await Promise.all([
    runWith({ DATABASE_URL: own.url }, "doctor", "--json"),
    runWith({ DATABASE_URL: own.url }, "doctor"),
    runWith({ DATABASE_URL: own.adminUrl }, "doctor"),
  ]);
  const [admin] = await administer(
    own.adminUrl,
    (sql) => sql<{ rolsuper: boolean }[]>`select rolsuper from pg_roles where rolname = current_user`,
  );
  const findings = JSON.parse(json.stdout) as { name: string; verdict: string }[];
  const [none, unmigrated] = await Promise.all([
    runWith({ DATABASE_URL: "postgres://nobody@127.0.0.1:1/none" }, "doctor"),
    runWith({ DATABASE_URL: empty.url }, "doctor"),
  ]);

  expect(findings.map(({ name }) => name)).toEqual([
    "connection",
    "postgres",
    "schema",
    "definitions",
    "original",
    "rights",
    "pooler",
    "listen",
    "workers",
    "jobs",
    "vacuum",
  ]);
  expect(findings.filter(({ verdict }) => verdict === "fail")).toEqual([]);
  expect(plain.stdout).toMatch(/^ok {4}rights {7}owner of the schema/m);
  const [{ fsync } = { fsync: "" }] = await own.sql<{ fsync: string }[]>`select current_setting('fsync') as fsync`;
  expect(plain.stdout).toMatch(
    fsync === "off" ? /^warn {2}postgres .*fsync off.*loses data/m : /^(ok|warn) +postgres/m,
  );
  expect(asAdmin.stdout).toMatch(
    admin?.rolsuper ? /^warn {2}rights {7}superuser.*grant_roles/m : /^ok {4}rights {7}owner of the schema/m,
  );
  expect(plain.stdout).toMatch(/^ok {4}workers {6}1 alive, serving examined$/m);
  expect([none.code, unmigrated.code]).toEqual([1, 1]);
  expect(none.stdout).toMatch(/^fail {2}connection .*\(start Postgres/);
  expect(unmigrated.stdout).toMatch(/^fail {2}schema .*migrate/m);
});

interface Shown {
  meta: Record<string, unknown>;
  state: Record<string, unknown>;
  events: { type: string }[];
  error: Record<string, unknown> | null;
}

function run(...args: string[]): Promise<CliResult> {
  return runWith({ DATABASE_URL: database.url }, ...args);
}

function runWith(env: Record<string, string>, ...args: string[]): Promise<CliResult> {
  return runCliWith({ env, cwd: folder }, ...args);
}

/** The one JSON document that a command printed. */
async function json<T = unknown>(...args: string[]): Promise<T> {
  const { code, stdout, stderr } = await run(...args, "--json");
  if (code !== 0) throw new Error(`flowledger ${args.join(" ")} exited with ${code}: ${stderr}`);
  return JSON.parse(stdout) as T;
}

async function started(flow: string, options: object): Promise<string> {
  const { stdout } = await run("start", flow, '"Ada"', "--options", JSON.stringify(options));
  return stdout.trim();
}

function sentences(stderr: string): string[] {
  return stderr.split("\n").filter((line) => line !== "");
}

/** A module for `flowledger worker` with one flow, whose chunk takes a moment. */
function moduleText(flow: string, ms = 300): string {
  return `
    import { setTimeout as sleep } from "node:timers/promises";
    import { defineFlow } from ${JSON.stringify(library)};
    const flow = defineFlow(${JSON.stringify(flow)});
    flow.to("work", async (ctx) => {
      console.log("working");
      await sleep(${ms});
      await ctx.setState("done", true);
    });
    export const flows = [flow];
  `;
}

/** Of every process on this machine; nothing where there is no /proc. */
async function commandLines(): Promise<string> {
  const pids = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")));
  return lines.join("\n");
}
