/** Runs jobs one after the other: what they print is streamed, one that fails holds up no other, an interrupt ends them and all they started. */
import { spawn, spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { chromiumPath } from "../support/browser.ts";
import type { Job } from "./jobs.ts";

export interface Outcome {
  readonly name: string;
  readonly verdict: "passed" | "failed" | "skipped";
  /** Why, unless it passed. */
  readonly reason: string | null;
  readonly seconds: number;
}

/** Prints how each job went. @returns the outcomes; exits with 130 when this process is told to end */
export async function runTier(name: string, jobs: readonly Job[]): Promise<Outcome[]> {
  const interrupted = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => interrupted.abort(signal));
  const outcomes = await runJobs(jobs, interrupted.signal);
  console.log(`\nSummary of ${name}\n${summaryOf(outcomes)}`);
  if (!interrupted.signal.aborted) return outcomes;
  console.log(`interrupted by ${String(interrupted.signal.reason)}`);
  process.exit(130);
}

/** @returns what ended before `signal` was aborted */
export async function runJobs(jobs: readonly Job[], signal: AbortSignal): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const images = new Map<string, string | null>();
  for (const job of jobs) {
    const missing = missingFor(job, images);
    console.log(`\n── ${job.name}${missing === null ? "" : `: skipped, ${missing}`}\n`);
    const outcome: Outcome =
      missing === null
        ? await runJob(job, signal)
        : { name: job.name, verdict: "skipped", reason: missing, seconds: 0 };
    if (signal.aborted) break;
    outcomes.push(outcome);
  }
  return outcomes;
}

/** One line per job. */
function summaryOf(outcomes: readonly Outcome[]): string {
  const width = Math.max(0, ...outcomes.map(({ name }) => name.length));
  const line = ({ name, verdict, reason, seconds }: Outcome) =>
    `${name.padEnd(width)}  ${verdict}${reason === null ? "" : ` (${reason})`}, ${Math.round(seconds)} s`;
  return outcomes.map(line).join("\n");
}

async function runJob({ name, run, env, minutes = 15 }: Job, signal: AbortSignal): Promise<Outcome> {
  const began = performance.now();
  // A process group of its own, so that its end is the end of all that it started.
  const child = spawn(process.execPath, run, {
    cwd: resolve(import.meta.dirname, "../.."),
    env: { ...process.env, ...env },
    stdio: ["ignore", "inherit", "inherit"],
    detached: true,
  });
  const { promise: ended, resolve: end } = Promise.withResolvers<string | null>();
  child.on("error", ({ message }) => end(message));
  child.on("exit", (code, by) => end(code === 0 ? null : by === null ? `exit code ${code}` : `ended by ${by}`));

  let isLate = false;
  let impatience: NodeJS.Timeout | undefined;
  const stop = () => {
    killGroup(child.pid, "SIGTERM");
    impatience = setTimeout(killGroup, 5000, child.pid, "SIGKILL");
  };
  const patience = setTimeout(() => {
    isLate = true;
    stop();
  }, minutes * 60_000);
  signal.addEventListener("abort", stop);

  const problem = await ended;
  clearTimeout(patience);
  clearTimeout(impatience);
  signal.removeEventListener("abort", stop);
  if (isLate || signal.aborted) killGroup(child.pid, "SIGKILL");
  const reason = isLate ? `took longer than ${minutes} min` : problem;
  const seconds = (performance.now() - began) / 1000;
  return { name, verdict: reason === null ? "passed" : "failed", reason, seconds };
}

function killGroup(leader: number | undefined, signal: NodeJS.Signals): void {
  if (leader === undefined) return;
  try {
    process.kill(-leader, signal);
  } catch {
    // All of it has ended.
  }
}

/** What this machine lacks for a job; null when it has all. @param images what is known of them */
function missingFor({ image, isBrowsing }: Job, images: Map<string, string | null>): string | null {
  if (isBrowsing && chromiumPath === null) return "no Chromium here";
  if (image === undefined) return null;
  const missing = images.has(image) ? (images.get(image) ?? null) : missingImage(image);
  images.set(image, missing);
  return missing;
}

function missingImage(image: string): string | null {
  if (!succeeds("docker", "info")) return "no containers here";
  if (succeeds("docker", "image", "inspect", image) || succeeds("docker", "pull", image)) return null;
  return `no image ${image} here, and none to be had`;
}

function succeeds(command: string, ...args: string[]): boolean {
  return spawnSync(command, args, { stdio: "ignore", timeout: 120_000 }).status === 0;
}
