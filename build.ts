/**
 * Builds the package. `dist/` finds nothing by its path at run time, so that any bundler may take it apart, and has types for
 * both kinds of modules: what `require()` gets is the same code (Node loads ES modules with it), under types that say so.
 */
import { execFileSync } from "node:child_process";
import { globSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { threadModule } from "./build-thread.ts";
import { assets } from "./src/console/assets.ts";
import { sqlSource } from "./src/store/sql-source.ts";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const manifest = JSON.parse(readFileSync(here("package.json"), "utf8")) as {
  readonly exports: Readonly<
    Record<string, string | { readonly import: { readonly types: string; readonly default: string } }>
  >;
};

rmSync(here("dist"), { recursive: true, force: true });
execFileSync(process.execPath, [here("node_modules/typescript/bin/tsc"), "-p", here("tsconfig.build.json")], {
  stdio: "inherit",
});

writeFileSync(
  here("dist/store/sql-source.js"),
  `const source = ${JSON.stringify(sqlSource())};\nexport function sqlSource() {\n  return source;\n}\n`,
);

writeFileSync(
  here("dist/console/assets.js"),
  `const made = ${JSON.stringify(await assets())};\nexport function assets() {\n  return Promise.resolve(made);\n}\n`,
);

writeFileSync(here("dist/worker/thread-source.js"), await threadModule());

await bundleGraphileWorker();

// For `require()` where it cannot load ES modules yet.
await build({ entryPoints: [here("dist/base/node.js")], outfile: here("dist/base/node.cjs"), format: "cjs" });

// Files of tasks, which nobody has here, and the package of traces, which may be missing: Node looks for them, and no bundler.
for (const file of ["vendor/graphile-worker.js", "telemetry/otel.js"]) {
  const path = here(`dist/${file}`);
  const ignored = "/* webpackIgnore: true */ /* turbopackIgnore: true */ /* @vite-ignore */";
  writeFileSync(path, readFileSync(path, "utf8").replaceAll("await import(", `await import(${ignored} `));
}

await bundle();

const done = new Set<string>();
for (const target of Object.values(manifest.exports)) {
  if (typeof target === "string") continue;
  const types = here(target.import.types);
  writeTypes(types);
  const entry = types.replace(/\.d\.ts$/, ".cjs");
  const module = `./${basename(types).replace(/\.d\.ts$/, ".js")}`;
  // The require of jest's sandbox loads no ES modules; that of the process around it, which vm leads to, does.
  const outside = `require("node:vm").runInThisContext("process").getBuiltinModule("module").createRequire(__filename)`;
  writeFileSync(
    entry,
    `require("./base/node.cjs");\nmodule.exports = typeof jest === "undefined" ? require("${module}") : ${outside}("${module}");\n`,
  );
}

/**
 * The compiler leaves `.ts` in declarations; here each file names what is in the package, once for either kind of module. Of zod's
 * types those parameters go that zod 4.0 did not have: the ones in their place are what they default to.
 */
function writeTypes(file: string): void {
  if (done.has(file)) return;
  done.add(file);
  const text = readFileSync(file, "utf8")
    .replaceAll(/(\$ZodBranded<[^<>]+, "\w+"), "out">/g, "$1>")
    .replaceAll(/\], "\w+">/g, "]>")
    // What is loaded for its effect has no types.
    .replaceAll(/^import "\.[^"]*";\n/gm, "");
  const paths = /(\bfrom |\bimport\()"(\.{1,2}\/[^"]+)\.ts"/g;
  writeFileSync(file, text.replaceAll(paths, '$1"$2.js"'));
  writeFileSync(file.replace(/ts$/, "cts"), text.replaceAll(paths, '$1"$2.cjs"'));
  for (const [, , path = ""] of text.matchAll(paths)) writeTypes(join(dirname(file), `${path}.d.ts`));
}

/**
 * A few files in the place of two hundred: looking for each costs a process that imports the package more than reading them all. What is
 * loaded on demand stays apart, and the check of Node comes before everything else.
 */
async function bundle(): Promise<void> {
  const check = 'import "./base/node.js";\n';
  const doors = Object.values(manifest.exports).flatMap((target) =>
    typeof target === "string" ? [] : [basename(target.import.default)],
  );
  // What processes of their own begin with, and what finds the examples beside it.
  const entries = [...doors, "test-process.js", "test-server.js", "demo.js"];
  const { metafile } = await build({
    entryPoints: [...entries, "cli/main.js"].map((file) => here(`dist/${file}`)),
    outdir: here("dist/bundled"),
    outbase: here("dist"),
    bundle: true,
    splitting: true,
    platform: "node",
    format: "esm",
    target: "node22",
    packages: "external",
    chunkNames: "chunks/[name]-[hash]",
    legalComments: "inline",
    metafile: true,
    plugins: [
      {
        name: "the check of Node apart",
        setup(bundler) {
          bundler.onResolve({ filter: /\/base\/node\.js$/ }, ({ path }) => ({
            path,
            namespace: "apart",
            sideEffects: false,
          }));
          bundler.onLoad({ filter: /./, namespace: "apart" }, () => ({ contents: "" }));
        },
      },
    ],
  });
  const checked = entries.filter((file) => readFileSync(here(`dist/${file}`), "utf8").includes(check));
  for (const file of globSync("**/*.js", { cwd: here("dist"), exclude: ["bundled/**", "base/node.js", "cli.js"] }))
    rmSync(here(`dist/${file}`));
  for (const path of Object.keys(metafile.outputs)) {
    const file = relative(here("dist/bundled"), resolve(path));
    mkdirSync(dirname(here(`dist/${file}`)), { recursive: true });
    renameSync(here(`dist/bundled/${file}`), here(`dist/${file}`));
  }
  rmSync(here("dist/bundled"), { recursive: true });
  for (const file of checked) writeFileSync(here(`dist/${file}`), check + readFileSync(here(`dist/${file}`), "utf8"));
}

/**
 * graphile-worker comes along as one module: installed beside us it would bring fifty packages that we never call (yargs,
 * cosmiconfig, …), look for configuration files when it is loaded, and need a `typescript` that bundlers do not find.
 */
async function bundleGraphileWorker(): Promise<void> {
  const configuration = "export const cosmiconfigSync = () => ({ search: () => null });";
  const { errors } = await build({
    entryPoints: [here("node_modules/graphile-worker/dist/index.js")],
    outfile: here("dist/vendor/graphile-worker.js"),
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node22",
    external: ["pg"],
    treeShaking: true,
    legalComments: "inline",
    banner: { js: `/*!\n${readFileSync(here("node_modules/graphile-worker/LICENSE.md"), "utf8").trim()}\n*/` },
    plugins: [
      {
        name: "no configuration files",
        setup(bundler) {
          bundler.onResolve({ filter: /^cosmiconfig$/ }, ({ path }) => ({ path, namespace: "none" }));
          bundler.onLoad({ filter: /./, namespace: "none" }, () => ({ contents: configuration }));
        },
      },
      {
        // What is left of CommonJS in it: a `require` of Node's own would be looked for when it runs.
        name: "imports only",
        setup(bundler) {
          bundler.onResolve({ filter: /^util$/ }, ({ path, kind }) =>
            kind === "require-call" ? { path, namespace: "node" } : undefined,
          );
          bundler.onLoad({ filter: /./, namespace: "node" }, ({ path }) => ({
            contents: `export * from "node:${path}";`,
          }));
        },
      },
    ],
  });
  if (errors.length > 0) throw new Error("graphile-worker could not be bundled");
  for (const file of ["worker/jobs.js", "store/migrate.js"]) {
    const path = here(`dist/${file}`);
    writeFileSync(path, readFileSync(path, "utf8").replaceAll('"graphile-worker"', '"../vendor/graphile-worker.js"'));
  }
}
