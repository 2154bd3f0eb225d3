/** The worker processes of a run, each behind a proxy of its own. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { openProxy } from "./proxy.ts";
import type { Proxy } from "./proxy.ts";

export interface Reports {
  bodies: number;
  fenced: number;
  repeats: number;
  /** What workers that ended by themselves had to say. */
  readonly ended: string[];
}

export class FleetWorker {
  readonly index: number;
  readonly proxy: Proxy;
  /** The identity it signed up with, null while it starts. */
  id: string | null = null;
  isFrozen = false;
  #process: ChildProcess | null = null;
  readonly #env: Readonly<Record<string, string>>;
  readonly #reports: Reports;

  constructor(index: number, proxy: Proxy, env: Readonly<Record<string, string>>, reports: Reports) {
    this.index = index;
    this.proxy = proxy;
    this.#env = env;
    this.#reports = reports;
  }

  start(): void {
    const module = join(import.meta.dirname, "worker.ts");
    const skew = join(import.meta.dirname, "skew.ts");
    const child = spawn(process.execPath, ["--import", skew, module], {
      env: { ...process.env, ...this.#env },
      stdio: ["pipe", "pipe", process.env["CHAOS_VERBOSE"] ? "inherit" : "pipe"],
    });
    this.#process = child;
    let errors = "";
    child.stderr?.on("data", (data: Buffer) => (errors += data.toString()));
    child.stdin?.on("error", () => {});
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on("line", (line) => {
      const report = JSON.parse(line) as Record<string, string | number>;
      if (report["ready"] || report["id"]) this.id = String(report["ready"] ?? report["id"]);
      this.#reports.bodies += Number(report["bodies"] ?? 0);
      this.#reports.fenced += Number(report["fenced"] ?? 0);
      this.#reports.repeats += Number(report["repeat"] ?? 0);
    });
    child.on("exit", (code, signal) => {
      if (this.#process !== child) return;
      // It ended by itself: a real supervisor starts it again. Only where there is no server to begin with it may.
      if (!errors.includes("57P03") && !errors.includes("CONNECTION"))
        this.#reports.ended.push(`worker ${this.index} ended by itself (${code ?? signal}): ${errors.slice(-2000)}`);
      this.id = null;
      setTimeout(() => this.#process === child && this.start(), 500);
    });
  }

  kill(): void {
    const child = this.#process;
    this.#process = null;
    this.id = null;
    this.isFrozen = false;
    child?.kill("SIGKILL");
  }
  freeze(): void {
    this.isFrozen = true;
    this.#process?.kill("SIGSTOP");
  }
  thaw(): void {
    this.isFrozen = false;
    this.#process?.kill("SIGCONT");
  }
  block(ms: number): void {
    this.#process?.stdin?.write(`block ${ms}\n`);
  }
}

export async function openFleet(
  size: number,
  server: { port: () => number; urlFor: (port: number) => string },
  options: { seed: number; flows: number; src: string; folder: string; skewsMs: readonly number[] },
  reports: Reports,
): Promise<FleetWorker[]> {
  const fleet: FleetWorker[] = [];
  for (let index = 0; index < size; index++) {
    const proxy = await openProxy({ host: "127.0.0.1", port: server.port });
    const env = {
      CHAOS_URL: server.urlFor(proxy.port),
      CHAOS_SEED: String(options.seed),
      CHAOS_FLOWS: String(options.flows),
      CHAOS_SRC: options.src,
      CHAOS_FOLDER: options.folder,
      CHAOS_SKEW_MS: String(options.skewsMs[index] ?? 0),
    };
    const worker = new FleetWorker(index, proxy, env, reports);
    worker.start();
    fleet.push(worker);
  }
  return fleet;
}
