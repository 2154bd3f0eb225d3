/** What the built package costs before it does anything: its import, and a worker that has migrated and has nothing to do. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Bench, Figure } from "./server.ts";

const entry = new URL("../dist/index.js", import.meta.url);
const rounds = 9;

const importing = `
  const began = performance.now();
  await import(${JSON.stringify(entry.href)});
  console.log(performance.now() - began);`;
const idling = `
  const { createOrchestrator, defineFlow } = await import(${JSON.stringify(entry.href)});
  const flow = defineFlow("bench.idle");
  flow.to("pass", () => null);
  const orchestrator = createOrchestrator({ flows: [flow] });
  await orchestrator.migrate();
  await orchestrator.startWorker();
  await new Promise((done) => setTimeout(done, 5000));
  console.log(process.memoryUsage().rss / 1e6);
  await orchestrator.close();`;

export async function start(bench: Bench): Promise<Figure[]> {
  if (!existsSync(fileURLToPath(entry)))
    await promisify(execFile)(process.execPath, [fileURLToPath(new URL("../build.ts", import.meta.url))]);
  const run = async (script: string) => {
    const env = { ...process.env, DATABASE_URL: bench.url };
    const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script], { env });
    return Number(stdout);
  };
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) times.push(await run(importing));
  const middle = times.toSorted((a, b) => a - b)[Math.floor(rounds / 2)] ?? NaN;
  return [
    { name: "import of the package, p50", value: middle, unit: "ms", target: { atMost: 110 } },
    { name: "a worker that migrated, idle: RSS", value: await run(idling), unit: "MB", target: { atMost: 105 } },
  ];
}
