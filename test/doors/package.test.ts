/** The package as a user gets it: packed, checked, installed into an empty folder, the README's first screen run from it. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "../..");
const minutes = 60_000;

let folder: string;
let tarball: string;
let packed: string[];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "flowledger-package-"));
  const { stdout } = await run("npm", ["pack", "--json", "--pack-destination", folder], { cwd: root });
  // `prepack` builds first and writes to stdout as well.
  const [result] = JSON.parse(stdout.slice(stdout.search(/^\[/m))) as [{ filename: string; files: { path: string }[] }];
  tarball = join(folder, result.filename);
  packed = result.files.map((file) => file.path);
}, 2 * minutes);

afterAll(() => rm(folder, { recursive: true, force: true }));

test("the package holds the build, the migrations, the demo's example and its documents, nothing else", () => {
  const documents = [
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "examples/document-review.ts",
    "examples/lease-agreement.md",
    "package.json",
  ];

  const others = packed.filter((path) => !path.startsWith("dist/") && !path.startsWith("migrations/"));

  expect(others.toSorted()).toEqual(documents);
  const needed = ["dist/index.js", "dist/index.d.ts", "dist/defer.js", "dist/defer.d.ts", "dist/cli.js"];
  for (const path of [...needed, "migrations/meta/_journal.json"]) expect(packed).toContain(path);
});

test("bundlers and type checkers resolve every export", { timeout: 2 * minutes }, async () => {
  expect(await verdict("publint", "--strict", tarball)).toBe("passes");
  expect(await verdict("attw", tarball, "--profile", "esm-only")).toBe("passes");
});

test("a user who installs the package can run the first example of the README", { timeout: 4 * minutes }, async () => {
  await using database = await testDatabase();
  const readme = await readFile(join(root, "README.md"), "utf8");
  const example = /^```ts\n(.*?)^```/ms.exec(readme)?.[1];
  if (example === undefined) throw new Error("README.md has no ```ts block");
  const user = join(folder, "user");
  await mkdir(user);
  await writeFile(join(user, "package.json"), JSON.stringify({ private: true, type: "module" }));
  await writeFile(join(user, "example.ts"), example);
  await writeFile(
    join(user, "functions.ts"),
    `import { createOrchestrator } from "flowledger";
     import { awaitResult, configure, defer } from "flowledger/defer";
     const double = defer(function double(n: number) { return n * 2; });
     await using orchestrator = createOrchestrator({ functions: [double] });
     configure(orchestrator);
     await orchestrator.migrate();
     await orchestrator.startWorker();
     console.log(await awaitResult(double)(21));`,
  );

  // The example gets the tests' Postgres, so the 60 MB of the embedded one stay out.
  await run("npm", ["install", tarball, "--prefer-offline", "--no-audit", "--omit=optional"], { cwd: user });
  const env = { ...process.env, DATABASE_URL: database.url };
  const { stdout } = await run(process.execPath, ["example.ts"], { cwd: user, env, timeout: minutes });

  const functions = await run(process.execPath, ["functions.ts"], { cwd: user, env, timeout: minutes });

  expect(stdout.trim()).not.toBe("");
  expect(functions.stdout.trim()).toBe("42");
});

/** "passes", or what the tool has to say. */
async function verdict(name: string, ...args: string[]): Promise<string> {
  try {
    await run(join(root, "node_modules/.bin", name), args, { cwd: root });
    return "passes";
  } catch (error) {
    return error instanceof Error && "stdout" in error ? `${String(error.stdout)}${error.message}` : String(error);
  }
}
