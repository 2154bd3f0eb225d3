/** The thread of a heartbeat in one piece: what the package has, and what tests run, where each start of its source would cost more. */
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

/** What stands in the place of `src/worker/thread-source.ts`: a thread has no bundler's loader, so it brings its driver along, as a script. */
export async function threadModule(): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("src/worker/heartbeat-thread.ts", import.meta.url))],
    bundle: true,
    write: false,
    platform: "node",
    format: "cjs",
    target: "node22",
    legalComments: "inline",
  });
  return `const source = ${JSON.stringify(outputFiles[0]?.text)};\nexport function threadSource() {\n  return source;\n}\n`;
}
