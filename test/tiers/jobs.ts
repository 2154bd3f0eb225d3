/** What each tier runs, as data: a job more is one entry more. `npm test` is vitest alone; `all` has what that leaves out. */
import { mutants } from "../chaos/mutants.ts";

export interface Job {
  /** Its line in the summary; unique in its tier. */
  readonly name: string;
  /** Arguments of Node. */
  readonly run: readonly string[];
  /** On top of this process's own. */
  readonly env?: Readonly<Record<string, string>>;
  /** The container image that it needs: without it the job is skipped. */
  readonly image?: string;
  /** Needs Chromium: without it the job is skipped. @default false */
  readonly isBrowsing?: boolean;
  /** It fails when it takes longer. @default 15 */
  readonly minutes?: number;
}

/** The oldest and the newest Postgres that the library supports. */
const [oldest, newest] = [
  process.env["TEST_POSTGRES_15_IMAGE"] ?? "postgres:15-alpine",
  process.env["TEST_POSTGRES_IMAGE"] ?? "postgres:18-alpine",
];
const onPostgres = ["test/store", "test/engine", "test/execution"];
export const fuzzed = [
  "test/ai/spoken",
  "test/base",
  "test/ledger",
  "test/store/audit",
  "test/store/checks",
  "test/store/door",
  "test/store/input",
  "test/store/options",
  "test/store/paths",
  "test/store/rules",
  "test/store/served",
  "test/engine/edit-state",
  "test/engine/past",
  "test/engine/state-size",
  "test/engine/turn",
  "test/kit/bodies",
  "test/kit/limits",
];

export const tiers: Readonly<Record<"all" | "nightly", readonly Job[]>> = {
  all: [
    // Each at its full size: these are the proofs.
    { name: "crash suites", run: vitest("--project", "crash"), env: { PROOF_SIZE: "1000" }, minutes: 25 },
    { name: "fuzz", run: vitest(...fuzzed, "--testTimeout=1200000"), env: { FUZZ_RUNS: "100000" }, minutes: 40 },
    { name: "products", run: vitest("--project", "products") },
    { name: "processes", run: vitest("--project", "processes") },
    { name: "browsers", run: vitest("--project", "browser"), isBrowsing: true },
    { name: "package", run: vitest("--project", "package") },
    { name: "hosts", run: hosts("light") },
    { name: "crash suites in a container", run: vitest("--project", "crash"), ...inContainer(newest) },
    { name: "Postgres 15", run: vitest(...onPostgres), ...inContainer(oldest) },
    { name: "Postgres 18", run: vitest(...onPostgres), ...inContainer(newest) },
  ],
  nightly: [
    ...Object.keys(mutants).map((name) => ({ name: `mutant ${name}`, run: chaos(1, "--mutant", name), minutes: 5 })),
    // What it found before is taken over where nothing changed: a first run takes longer than a night's.
    { name: "changes of the pure rooms", run: ["test/mutate/run.ts"], minutes: 60 },
    { name: "heavy hosts", run: hosts("heavy"), minutes: 40 },
    ...numbers(10).map((seed) => ({ name: `chaos, seed ${seed}`, run: chaos(seed), minutes: 5 })),
  ],
};

function vitest(...args: string[]): string[] {
  return ["node_modules/vitest/vitest.mjs", "run", ...args];
}

function hosts(...names: string[]): string[] {
  return ["test/hosts/run.ts", ...names];
}

function chaos(seed: number, ...args: string[]): string[] {
  return ["test/chaos/run.ts", "--seconds", "60", "--seed", `${seed}`, ...args];
}

/** The suite removes its container itself, however it ends. */
function inContainer(image: string): Pick<Job, "env" | "image"> {
  const chosen = { DATABASE_URL: "", TEST_POSTGRES: "testcontainers", TEST_POSTGRES_IMAGE: image };
  return { image, env: { ...chosen, TESTCONTAINERS_RYUK_DISABLED: "true" } };
}

function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}
