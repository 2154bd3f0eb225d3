/** What a person sees at a terminal: tables that fit, lines of `ctx.log`, and a worker that ends with what started it. */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcessWithoutNullStreams } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { visible } from "../../src/base/visible.ts";
import { createOrchestrator, defineFlow } from "../../src/index.ts";
import { openTerminal, printTable, type Terminal } from "../../src/terminal.ts";
import { cliPath } from "../support/cli.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startProcess } from "../support/processes.ts";

const library = resolve(import.meta.dirname, "../../src/index.ts");
const id = "01a2222b-0ff6-76c6-bfed-0c39102e8097";

let database: TestDatabase;
let folder: string;

beforeAll(async () => {
  database = await testDatabase();
  folder = await mkdtemp(join(tmpdir(), "flowledger-terminal-"));
  const flow = `
    import { createOrchestrator, defineFlow } from ${JSON.stringify(library)};
    const talking = defineFlow("talking");
    talking.to("talk", (ctx) => { ctx.log.debug("thought"); ctx.log.info("said", { n: 7 }); ctx.log.error("shouted"); });`;
  await writeFile(join(folder, "flows.ts"), `${flow}\nexport const flows = [talking];`);
  await writeFile(join(folder, "own.ts"), `${flow}\nexport default createOrchestrator({ flows: [talking] });`);
});

afterAll(() => rm(folder, { recursive: true }));

/** A screen of so many columns, and what was written on it. */
function screen(width: number): { out: Terminal; lines: string[] } {
  const lines: string[] = [];
  const own = openTerminal({ isJson: false, isColored: true });
  return { lines, out: { ...own, width, line: (text = "") => void lines.push(own.plain(text)) } };
}

test("no line of a table is wider than the screen, and what matters most is read on the narrowest", () => {
  const heads = ["id", "flow", "status", "error"];
  const rows = [
    [id, "refund", "failed", "RangeError: the shelf is too high for this ladder"],
    [id, "refund with a long name", "waiting", ""],
  ];

  const drawn = [10, 36, 37, 38, 39, 40, 60, 80, 100, 120, 200].map((width) => {
    const { out, lines } = screen(width);
    printTable(out, heads, rows);
    return { width, lines };
  });

  for (const { width, lines } of drawn) expect(lines.filter((line) => line.length > width)).toEqual([]);
  for (const { lines } of drawn.filter(({ width }) => width >= 36))
    expect(lines.filter((line) => line.startsWith(id.slice(0, 35)))).toHaveLength(2);
  for (const { lines } of drawn.filter(({ width }) => width >= 36))
    for (const cell of ["flow", "status", "failed", "waiting", "refund with a long name", "RangeError: the shelf"])
      expect(lines.join("\n")).toContain(cell);
  expect(drawn.find(({ width }) => width === 40)?.lines).toEqual([
    "id",
    "  flow                     status",
    id,
    "  refund                   failed",
    "  RangeError: the shelf is too high for…",
    id,
    "  refund with a long name  waiting",
  ]);
});

test("no character that is not seen, or moves others, gets to a screen as such", () => {
  // What is left is a tab, a line feed, and what says that a character is an emoji.
  const left = new Set(["\t", "\n", "\ufe0e", "\ufe0f"]);
  const isUnseen = /[\p{Cc}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\p{Bidi_Control}]|[\ufff9-\ufffb]/u;
  const raw: string[] = [];
  for (let code = 0; code <= 0x10ffff; code++) {
    const character = String.fromCodePoint(code);
    if (isUnseen.test(character) && !left.has(character) && visible(character) === character)
      raw.push(code.toString(16));
  }

  expect(raw).toEqual([]);
  expect(visible("naïve ❤️ 日本語\u3164")).toBe("naïve ❤️ 日本語\\u3164");
});

test("a status has its colour also where the line does not fit", () => {
  const out = openTerminal({ isJson: false, isColored: true });
  const lines: string[] = [];
  const narrow: Terminal = { ...out, width: 60, line: (text = "") => void lines.push(text) };
  printTable(narrow, ["status", "id", "note"], [[out.paint.red("failed"), id, "x".repeat(80)]]);

  expect(lines[1]).not.toBe(out.plain(lines[1] ?? ""));
  expect(out.plain(lines[1] ?? "")).toBe(`failed  ${id}`);
});

test.each(["flows.ts", "own.ts"])("lines of ctx.log reach the terminal of a worker that serves %s", async (module) => {
  await using worker = await startWorker(module);

  await talk();

  await expect
    .poll(() => worker.output())
    .toMatch(/^info said \{ executionId: '[\da-f-]+', flow: 'talking', .*n: 7 \}$/m);
  await expect.poll(() => worker.output()).toMatch(/^error shouted \{/m);
  expect(worker.output()).not.toContain("thought");
});

test.each(["flows.ts", "own.ts"])("with --json they are lines of JSON, also where %s is served", async (module) => {
  await using worker = await startWorker(module, "--json");

  await talk();

  await expect.poll(() => worker.output()).toMatch(/"msg":"shouted"/);
  const lines = worker.output().trim().split("\n");
  expect(lines.map((line) => JSON.parse(line) as object)).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ ready: true }),
      expect.objectContaining({ level: 30, msg: "said", n: 7, flow: "talking" }),
    ]),
  );
});

test("a worker that npx has started drains when npx gets a SIGTERM", async () => {
  const home = join(folder, "application");
  await mkdir(join(home, "node_modules/.bin"), { recursive: true });
  await writeFile(join(home, "package.json"), '{ "private": true, "type": "module" }');
  const bin = join(home, "node_modules/.bin/flowledger");
  await writeFile(`${bin}.mjs`, `#!/usr/bin/env node\nimport ${JSON.stringify(cliPath)};`, { mode: 0o755 });
  await symlink("flowledger.mjs", bin);
  const npx = spawn("npx", ["--offline", "flowledger", "worker", join(folder, "flows.ts")], {
    cwd: home,
    env: { ...process.env, DATABASE_URL: database.url },
  });

  const output = await outputOf(npx, () => npx.kill("SIGTERM"));

  expect(output).toMatch(/^draining 0 executions/m);
});

/** Where a process may have a namespace of its own, as in a container. */
const unshare = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child=SIGTERM"];
const hasUnshare = spawnSync("unshare", [...unshare, "true"]).status === 0;

test.skipIf(!hasUnshare)("a worker that is process 1, as in a container, drains on SIGTERM", async () => {
  const args = [...unshare, process.execPath, cliPath, "worker", join(folder, "flows.ts")];
  const container = spawn("unshare", args, { env: { ...process.env, DATABASE_URL: database.url } });

  // It gets its SIGTERM when its parent is gone.
  const output = await outputOf(container, () => container.kill("SIGKILL"));

  expect(output).toMatch(/\(pid 1\)$/m);
  expect(output).toMatch(/^draining 0 executions/m);
});

/** All that a worker writes which is told to end once it is ready. */
async function outputOf(child: ChildProcessWithoutNullStreams, end: () => void): Promise<string> {
  let output = "";
  const { promise: closed, resolve: close } = Promise.withResolvers<void>();
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => (output += text));
  // Its pipes are closed when nobody has them any more: the worker is gone, too.
  child.on("close", () => close());
  await expect.poll(() => output, { timeout: 20_000 }).toMatch(/^ready worker/m);
  end();
  await closed;
  return output;
}

function startWorker(module: string, ...args: readonly string[]) {
  const ready = args.includes("--json") ? /"ready":true/ : /^ready/;
  const env = { DATABASE_URL: database.url, NO_COLOR: "1" };
  return startProcess(cliPath, { args: ["worker", join(folder, module), ...args], env, ready });
}

/** One execution of the flow that the workers serve. */
async function talk(): Promise<void> {
  const talking = defineFlow("talking");
  talking.to("talk", () => null);
  await using client = createOrchestrator({ connection: database.url });
  await client.flow(talking).start(null);
}
