/** The documents: every `ts` example type-checks and runs to its end, every `sql` example runs on a migrated database. */
import { execFile } from "node:child_process";
import { globSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "../..");
const documents = ["README.md", ...globSync("docs/*.md", { cwd: root })].toSorted();

let folder: string;
let database: TestDatabase;
const examples = new Map<string, string[]>();

beforeAll(async () => {
  database = await testDatabase();
  folder = await mkdtemp(join(tmpdir(), "flowledger-docs-test-"));
  await symlink(join(root, "node_modules"), join(folder, "node_modules"));
  await writeFile(join(folder, "package.json"), '{ "type": "module" }');
  for (const document of documents) examples.set(document, await writeExamples(document));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

test("every ts example is a complete file", async () => {
  const fragments = [];
  for (const document of documents)
    for (const code of await fences(document, "ts"))
      if (!/^import /m.test(code)) fragments.push(`${document}: ${code}`);

  expect(fragments).toEqual([]);
});

test("every ts example type-checks", { timeout: 60_000 }, async () => {
  const config = {
    extends: join(root, "tsconfig.json"),
    // What a user's own settings are is not ours to say: `process.env.DATABASE_URL` is how people write it.
    compilerOptions: {
      noPropertyAccessFromIndexSignature: false,
      rewriteRelativeImportExtensions: false,
      allowImportingTsExtensions: true,
    },
    include: [join(folder, "**/*.ts")],
  };
  await writeFile(join(folder, "tsconfig.json"), JSON.stringify(config));

  // One thread: each more checks the types of the libraries anew, and other tests want the cores.
  const problems = await output(join(root, "node_modules/.bin/tsc"), [
    "-p",
    folder,
    "--pretty",
    "false",
    "--singleThreaded",
  ]);

  // What is wrong in `src` is for `npm run check` to say.
  expect(problems.split("\n").filter((line) => line.includes(basename(folder)))).toEqual([]);
});

test("the error catalogue has every code of the source, and no other", async () => {
  const sources = await Promise.all(
    globSync("src/**/*.ts", { cwd: root }).map((path) => readFile(join(root, path), "utf8")),
  );
  const codes = sources.flatMap((text) => [
    ...text.matchAll(/super\(\s*"([A-Z]+(?:_[A-Z]+)*)"/g),
    ...text.matchAll(/\bcode: "([A-Z]+(?:_[A-Z]+)+)"/g),
    ...text.matchAll(/new Refused\(\s*\d+,\s*"([A-Z]+(?:_[A-Z]+)*)"/g),
  ]);
  const catalogue = await readFile(join(root, "docs/errors.md"), "utf8");
  const listed = [...catalogue.matchAll(/^\| `([A-Z_]+)`/gm)];

  expect(codes.length).toBeGreaterThan(40);
  expect(new Set(listed.map(([, code]) => code))).toEqual(new Set(codes.map(([, code]) => code)));
});

describe.each(documents)("%s", (document) => {
  test("its ts examples run to their end", { timeout: 60_000 }, async () => {
    const files = examples.get(document) ?? [];
    const runner = join(folder, `${basename(document)}.run.mjs`);
    // One process for all: each takes the database from the environment, and closes what it opened.
    const lines = files.map(
      (file) => `console.log("begin", ${JSON.stringify(file)}); await import(${JSON.stringify(file)});`,
    );
    await writeFile(runner, [...lines, `console.log("end");`].join("\n"));

    // Tests make databases of their own.
    const url = document === "docs/testing.md" ? database.adminUrl : database.url;
    const printed = await output(process.execPath, [runner], { DATABASE_URL: url });

    // Nothing on stderr, and the whole of it in the failure.
    expect(printed).toMatch(/(^|\n)end\n$/);
  });

  test("its sql examples run", async () => {
    const statements = await fences(document, "sql");

    const results = statements.map((statement) => database.sql.unsafe(statement).simple());

    await expect(Promise.all(results)).resolves.toHaveLength(statements.length);
  });
});

/** The complete examples of a document as files, with `flowledger` replaced by its source. */
async function writeExamples(document: string): Promise<string[]> {
  const into = join(folder, basename(document, ".md"));
  await mkdir(into);
  const codes = (await fences(document, "ts")).filter((code) => /^import /m.test(code));
  return Promise.all(
    codes.map(async (code, index) => {
      const file = join(into, `example-${index + 1}.ts`);
      await writeFile(
        file,
        code.replace(/"flowledger(?:\/(\w+))?"/g, (_, door = "index") => sourceOf(String(door))),
      );
      return file;
    }),
  );
}

function sourceOf(door: string): string {
  return JSON.stringify(join(root, "src", `${door}.ts`));
}

async function fences(document: string, language: string): Promise<string[]> {
  const text = await readFile(join(root, document), "utf8");
  return [...text.matchAll(/^```(\w+)\n(.*?)^```/gms)]
    .filter(([, found]) => found === language)
    .map(([, , code = ""]) => code);
}

/** What a program printed, on stdout before stderr, whether or not it was content. */
async function output(command: string, args: readonly string[], env: Record<string, string> = {}): Promise<string> {
  try {
    const { stdout, stderr } = await run(command, args, { env: { ...process.env, ...env }, timeout: 50_000 });
    return stdout + stderr;
  } catch (error) {
    const printed = z.object({ stdout: z.string(), stderr: z.string() }).parse(error);
    return `${printed.stdout}${printed.stderr}\n${String(error)}`;
  }
}
