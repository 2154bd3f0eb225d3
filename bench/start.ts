/** What the built package costs before it does anything: installed, imported, as a command, and as a worker with nothing to do. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Bench, Figure } from "./server.ts";

const entry = new URL("../dist/index.js", import.meta.url);
const cli = new URL("../dist/cli.js", import.meta.url);
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
  const p50 = async (once: () => Promise<number>) => {
    const times: number[] = [];
    for (let round = 0; round < rounds; round++) times.push(await once());
    return times.toSorted((a, b) => a - b)[Math.floor(rounds / 2)] ?? NaN;
  };
  const listing = async () => {
    const began = performance.now();
    const env = { ...process.env, DATABASE_URL: bench.url };
    await promisify(execFile)(process.execPath, [fileURLToPath(cli), "list"], { env });
    return performance.now() - began;
  };
  const { packages, bytes } = await installed();
  return [
    { name: "npm install flowledger zod: size", value: bytes / 1e6, unit: "MB", target: { atMost: 40 } },
    { name: "npm install flowledger zod: packages", value: packages, unit: "", target: { atMost: 60 } },
    { name: "import of the package, p50", value: await p50(() => run(importing)), unit: "ms", target: { atMost: 110 } },
    { name: "flowledger list, p50", value: await p50(listing), unit: "ms", target: { atMost: 250 } },
    { name: "a worker that migrated, idle: RSS", value: await run(idling), unit: "MB", target: { atMost: 105 } },
  ];
}

/** What the packed package brings into an empty folder. */
async function installed(): Promise<{ packages: number; bytes: number }> {
  const folder = await mkdtemp(join(tmpdir(), "flowledger-installed-"));
  try {
    const npm = promisify(execFile);
    const pack = ["pack", "--ignore-scripts", "--json", "--pack-destination", folder];
    const { stdout } = await npm("npm", pack, { cwd: fileURLToPath(new URL("..", import.meta.url)) });
    const [made] = JSON.parse(stdout) as { filename: string }[];
    await writeFile(join(folder, "package.json"), JSON.stringify({ private: true }));
    const tarball = `./${made?.filename ?? ""}`;
    await npm("npm", ["install", "--no-audit", "--no-fund", tarball, "zod"], { cwd: folder });
    const lock = JSON.parse(await readFile(join(folder, "package-lock.json"), "utf8")) as { packages: object };
    const modules = join(folder, "node_modules");
    const files = await readdir(modules, { recursive: true, withFileTypes: true });
    const sizes = await Promise.all(
      files.filter((file) => file.isFile()).map(async (file) => (await stat(join(file.parentPath, file.name))).size),
    );
    // One of them is the folder itself.
    return { packages: Object.keys(lock.packages).length - 1, bytes: sizes.reduce((sum, size) => sum + size, 0) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
