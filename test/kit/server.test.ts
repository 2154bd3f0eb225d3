/** The Postgres of a test run that names none: one for all processes that test. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const run = promisify(execFile);
const source = (name: string) => JSON.stringify(resolve(import.meta.dirname, "../../src", name));
const minutes = 60_000;

test(
  "processes that test at once share an embedded server, each with a database of its own",
  { timeout: 2 * minutes },
  async () => {
    await using script = await written(`
    import { defineFlow } from ${source("index.ts")};
    import { testOrchestrator } from ${source("test.ts")};
    const flow = defineFlow("shared-server");
    flow.to("a", (ctx) => ctx.sleep("1d"));
    await using t = await testOrchestrator({ flows: [flow] });
    const run = await t.start(flow, null);
    await t.clock.advance("2d");
    await run.until("closed");
    console.log(JSON.stringify({ host: new URL(t.database).host, database: new URL(t.database).pathname }));
  `);

    const ended = await Promise.all([1, 2, 3].map(() => run(process.execPath, [script.path], { env: environment() })));

    const printed = ended.map(({ stdout }) => JSON.parse(stdout) as { host: string; database: string });
    expect(new Set(printed.map(({ host }) => host)).size).toBe(1);
    expect(new Set(printed.map(({ database }) => database)).size).toBe(3);
  },
);

test("a server that does not start says why", async () => {
  await using script = await written(`
    import { testOrchestrator } from ${source("test.ts")};
    await testOrchestrator({ flows: [] }).catch((error) => console.log(error.name, error.message));
  `);

  const { stdout } = await run(process.execPath, [script.path], {
    env: { ...environment(), TMPDIR: "/dev/null/none" },
  });

  expect(stdout).toMatch(/^UsageError .*\/dev\/null/);
});

/** That of this process, but for the server that it was given. */
function environment(): NodeJS.ProcessEnv {
  const { DATABASE_URL: _, ...rest } = process.env;
  return rest;
}

async function written(code: string): Promise<{ readonly path: string } & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), "flowledger-kit-"));
  const path = join(folder, "script.ts");
  await writeFile(join(folder, "package.json"), '{ "type": "module" }');
  await writeFile(path, code);
  return { path, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) };
}
