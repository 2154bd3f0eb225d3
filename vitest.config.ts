/** Tests in projects (`test/tiers/projects.ts`): the pure rooms alone, all others with one Postgres per project (`test/support/server.ts`). */
import { tmpdir } from "node:os";
import { join } from "node:path";
import { configDefaults, defineConfig } from "vitest/config";
import type { VitestPluginContext } from "vitest/node";
import { threadModule } from "./build-thread.ts";
import { retries } from "./test/support/retries.ts";
import { isNamed, projects } from "./test/tiers/projects.ts";

// For all that a test starts: a process or thread that runs our source takes off its types, and compiles it, once per version of it.
process.env["NODE_COMPILE_CACHE"] ??= join(tmpdir(), "node-compile-cache");

const pure = [...projects.pure];
const crash = [...projects.crash];
const browser = [...projects.browser];
const packed = [...projects.package];
const products = [...projects.products];
const processes = [...projects.processes];
const onPostgres = { testTimeout: 90_000, globalSetup: "test/support/server.ts" };

function named<T>(name: Parameters<typeof isNamed>[0], test: T) {
  return isNamed(name, process.argv.slice(3)) ? [{ extends: true as const, test: { name, ...test } }] : [];
}

/** A run starts some thousand threads. As in the package, in one piece: modules one by one are what a start takes longest for. */
const thread = "src/worker/thread-source.ts";
const threads = {
  name: "threads as in the package",
  load: async (id: string) => (id.endsWith(thread) ? threadModule() : null),
  // What is in it is in other files, too.
  configureVitest: ({ defineCacheKeyGenerator }: VitestPluginContext) =>
    defineCacheKeyGenerator(({ id }) => (id.endsWith(thread) ? false : null)),
};

export default defineConfig({
  plugins: [threads],
  test: {
    pool: "forks",
    // More than cores: what a test waits for is often the database, or a process.
    maxWorkers: 3,
    // Six times what the longest takes on an idle machine.
    testTimeout: 120_000,
    hookTimeout: 30_000,
    expect: { poll: { timeout: 8000 } },
    reporters: [...configDefaults.reporters, retries],
    projects: [
      {
        extends: true,
        test: {
          name: "pure",
          include: pure,
          typecheck: { enabled: true, include: ["test/**/*.test-d.ts"], tsconfig: "./tsconfig.types.json" },
        },
      },
      {
        extends: true,
        test: {
          name: "postgres",
          include: ["test/**/*.test.ts"],
          exclude: [...pure, ...crash, ...products, ...processes, ...browser, ...packed],
          ...onPostgres,
        },
      },
      // Real kills on real clocks: a machine that is busy with something else may be late once, a defect is late each time.
      ...named("crash", { include: crash, retry: 2, ...onPostgres }),
      ...named("products", { include: products, ...onPostgres }),
      ...named("processes", { include: processes, ...onPostgres }),
      ...named("browser", { include: browser, ...onPostgres }),
      ...named("package", { include: packed, ...onPostgres }),
    ],
  },
});
