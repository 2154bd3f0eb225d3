/** Builds the package: `dist/` finds nothing by its path at run time, so that any bundler may take it apart. */
import { execFileSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { sqlSource } from "./src/store/sql-source.ts";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

rmSync(here("dist"), { recursive: true, force: true });
execFileSync(process.execPath, [here("node_modules/typescript/bin/tsc"), "-p", here("tsconfig.build.json")], {
  stdio: "inherit",
});

writeFileSync(
  here("dist/store/sql-source.js"),
  `const source = ${JSON.stringify(sqlSource())};\nexport function sqlSource() {\n  return source;\n}\n`,
);

// A thread has no bundler's loader: it brings its driver along, as a script.
const { outputFiles } = await build({
  entryPoints: [here("src/worker/heartbeat-thread.ts")],
  bundle: true,
  write: false,
  platform: "node",
  format: "cjs",
  target: "node22",
  legalComments: "inline",
});
writeFileSync(
  here("dist/worker/thread-source.js"),
  `const source = ${JSON.stringify(outputFiles[0]?.text)};\nexport function threadSource() {\n  return source;\n}\n`,
);
