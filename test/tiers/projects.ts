/** Which files are tests of which kind: the first is part of `npm test`, the others have a job each in `npm run test:all`. */
import { globSync } from "node:fs";
import { relative, resolve } from "node:path";

const root = resolve(import.meta.dirname, "../..");

/** By name; a file that is in none needs a Postgres, and is part of `npm test`. */
export const projects = {
  /** Rooms that need no Postgres. */
  pure: [
    "test/register.test.ts",
    "test/tree.test.ts",
    "test/base/**/*.test.ts",
    "test/bench/table.test.ts",
    "test/engine/clock.test.ts",
    "test/engine/past.test.ts",
    "test/engine/turn.test.ts",
    "test/flow/**/*.test.ts",
    "test/ledger/**/*.test.ts",
    "test/store/batcher.test.ts",
    "test/tiers/**/*.test.ts",
  ],
  /** Real processes are killed here, and real servers. */
  crash: ["test/crash/**/*.test.ts"],
  /** Every value of an option, every state by whatever happens to it, every commit by a cut: each takes long, and shows mostly one thing. */
  products: [
    "test/ai/everywhere.test.ts",
    "test/doors/options.test.ts",
    "test/doors/options-cli.test.ts",
    "test/doors/options-sql.test.ts",
    "test/doors/refusals.test.ts",
    "test/doors/settings.test.ts",
    "test/kit/abandoned.test.ts",
    "test/kit/crash.test.ts",
    "test/kit/matrix.test.ts",
    "test/kit/together.test.ts",
  ],
  /** What is tested is a process, or some, with whatever they print. */
  processes: [
    "test/doors/cli.test.ts",
    "test/doors/cli-copies.test.ts",
    "test/doors/dev-edits.test.ts",
    "test/doors/docs.test.ts",
    "test/doors/documented.test.ts",
    "test/doors/first-hour.test.ts",
    "test/doors/reload.test.ts",
    "test/doors/terminal.test.ts",
    "test/kit/processes.test.ts",
    "test/kit/server.test.ts",
  ],
  /** What is tested is on a page. */
  browser: [
    "test/doors/answer-page.test.ts",
    "test/doors/browser.test.ts",
    "test/doors/console-long.test.ts",
    "test/doors/console-looks.test.ts",
    "test/doors/console-page.test.ts",
  ],
  /** What is tested is built, packed and bundled first. */
  package: ["test/doors/package.test.ts"],
} as const;

/**
 * Whether a run with these arguments has a project of `npm run test:all`: when it is named, or a part of a path of one of its files
 * is, so that `npm test -- test/crash/killed` needs to know nothing of this.
 */
export function isNamed(project: Exclude<keyof typeof projects, "pure">, args: readonly string[]): boolean {
  const files = globSync([...projects[project]], { cwd: root });
  const parts = args.filter((arg) => !arg.startsWith("-")).map((arg) => relative(root, resolve(root, arg)));
  return parts.some((part) => part === project || (part !== "" && files.some((file) => file.includes(part))));
}
