/** Tests in three projects: the pure rooms alone, those that kill, and all others; the last two each with one Postgres (`test/support/server.ts`). */
import { tmpdir } from "node:os";
import { join } from "node:path";
import { configDefaults, defineConfig } from "vitest/config";
import { retries } from "./test/support/retries.ts";

// For all that a test starts: a process or thread that runs our source takes off its types, and compiles it, once per version of it.
process.env["NODE_COMPILE_CACHE"] ??= join(tmpdir(), "node-compile-cache");

const pure = [
  "test/register.test.ts",
  "test/tree.test.ts",
  "test/base/**/*.test.ts",
  "test/engine/clock.test.ts",
  "test/engine/past.test.ts",
  "test/engine/turn.test.ts",
  "test/flow/**/*.test.ts",
  "test/ledger/**/*.test.ts",
  "test/tiers/**/*.test.ts",
];
/** Real processes are killed here, and real servers. */
const crash = ["test/crash/**/*.test.ts"];

export default defineConfig({
  test: {
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 30_000,
    expect: { poll: { timeout: 8000 } },
    reporters: [...configDefaults.reporters, retries],
    projects: [
      {
        extends: true,
        test: {
          name: "pure",
          include: pure,
          typecheck: { enabled: true, include: ["test/**/*.test-d.ts"], tsconfig: "./tsconfig.json" },
        },
      },
      {
        extends: true,
        test: {
          name: "postgres",
          include: ["test/**/*.test.ts"],
          exclude: [...pure, ...crash],
          testTimeout: 90_000,
          globalSetup: "test/support/server.ts",
        },
      },
      {
        extends: true,
        test: {
          name: "crash",
          include: crash,
          // Real kills on real clocks: a machine that is busy with something else may be late once, a defect is late each time.
          retry: 2,
          testTimeout: 90_000,
          globalSetup: "test/support/server.ts",
        },
      },
    ],
  },
});
