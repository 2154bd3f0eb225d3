/** Tests in two projects: the pure rooms alone, and all others with one Postgres per run (`test/support/server.ts`). */
import { defineConfig } from "vitest/config";

const pure = [
  "test/tree.test.ts",
  "test/base/**/*.test.ts",
  "test/engine/clock.test.ts",
  "test/flow/**/*.test.ts",
  "test/ledger/**/*.test.ts",
];

export default defineConfig({
  test: {
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 30_000,
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
          exclude: pure,
          // Real kills on real clocks: a machine that is busy with something else may be late once, a defect is late each time.
          retry: 2,
          testTimeout: 90_000,
          globalSetup: "test/support/server.ts",
        },
      },
    ],
  },
});
