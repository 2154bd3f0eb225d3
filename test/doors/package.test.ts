/** The package as a user gets it: packed, checked, installed into an empty folder, the README's first screen run from it. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, test } from "vitest";
import { emptyDatabase, testDatabase } from "../support/database.ts";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "../..");
const minutes = 60_000;
const manifest = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as {
  readonly dependencies: Readonly<Record<string, string>>;
};

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

test("the package holds the build, the demo's example and its documents, nothing else", () => {
  const documents = [
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "examples/document-review.ts",
    "examples/lease-agreement.md",
    "package.json",
  ];

  const others = packed.filter((path) => !path.startsWith("dist/"));

  expect(others.toSorted()).toEqual(documents);
  const doors = ["index", "defer", "schema", "test", "cli"].map((name) => `dist/${name}.js`);
  for (const path of [...doors, ...doors.map((door) => door.replace(/js$/, "d.ts"))]) expect(packed).toContain(path);
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

test("an application that a bundler has put into one file migrates, serves and is told of its worker's life", async () => {
  await using database = await emptyDatabase();
  const app = join(folder, "app");
  await mkdir(app, { recursive: true });
  await writeFile(
    join(app, "app.ts"),
    `import { createOrchestrator, defineFlow } from "flowledger";
     const flow = defineFlow("bundled");
     flow.to("double", (ctx) => Number(ctx.input) * 2).end();
     await using orchestrator = createOrchestrator({ flows: [flow] });
     await orchestrator.migrate();
     await orchestrator.startWorker();
     const run = await orchestrator.flow(flow).startExecution(21, { autoCloseTimeout: 0 });
     console.log((await run.waitForClose()).$final_result);`,
  );
  await build({
    entryPoints: [join(app, "app.ts")],
    outfile: join(app, "out/app.mjs"),
    bundle: true,
    platform: "node",
    format: "esm",
    alias: { flowledger: join(root, "dist/index.js") },
    // What a server's bundler leaves out: what is installed beside it.
    external: Object.keys(manifest.dependencies).filter((name) => name !== "postgres"),
    logLevel: "error",
  });
  await symlink(join(root, "node_modules"), join(app, "node_modules"));

  const env = { ...process.env, DATABASE_URL: database.url };
  const { stdout } = await run(process.execPath, ["out/app.mjs"], { cwd: app, env, timeout: minutes });

  expect(stdout.trim()).toBe("42");
});

test("nothing but flowledger/schema loads drizzle", async () => {
  const modules = ["index", "defer", "cli", "worker/worker", "store/migrate", "console"];
  const loads = async (name: string) => {
    const script = `const { registerHooks } = await import("node:module");
      const seen = new Set();
      registerHooks({ resolve(specifier, context, next) { if (specifier.startsWith("drizzle")) seen.add(specifier); return next(specifier, context); } });
      process.argv[1] = "nothing";
      await import(${JSON.stringify(pathToFileURL(join(root, "dist", `${name}.js`)).href)});
      console.log([...seen].join());
      process.exit(0);`;
    return (await run(process.execPath, ["--input-type=module", "-e", script])).stdout.trim().split("\n").at(-1);
  };

  expect(await Promise.all(modules.map(loads))).toEqual(modules.map(() => ""));
  expect(await loads("schema")).toContain("drizzle-orm");
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
