/** The shape of the tree: imports point left and in no circle, one file knows a clock, `index.ts` exports what the docs name, nothing names a package registry. */
import { globSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { describe, expect, test } from "vitest";
import { mutants, plantSource, plantSql } from "./chaos/mutants.ts";
import {
  circles,
  clocks,
  entryFolders,
  packagesOf,
  rooms,
  statements,
  wrongImports,
  type Sources,
} from "./support/tree.ts";

const root = resolve(import.meta.dirname, "..");
const packagesOfPureRooms = ["zod", "croner", "node:crypto", "node:vm", "node:url", "node:util"];

const publicValues = [
  "Flow",
  "createOrchestrator",
  "defineFlow",
  "cursorOf",
  "jsonLogger",
  "toReadableStream",
  "toSSE",

  "FlowledgerError",
  "FlowPausedError",
  "DefinitionError",
  "ContractError",
  "UsageError",
  "PayloadError",
  "PermissionError",
  "DatabaseError",
  "ExecutionNotFoundError",
  "ExecutionSealedError",
  "ExecutionTimeoutError",
  "ExecutionClosedError",
  "PendingInterruptsError",
  "InterruptExpiredError",
  "InterruptNotPendingError",
  "ResumeConflictError",
  "RetryAfterError",
  "SelfResumeLimitError",
  "NoResumeHandleError",
  "InterventionDisabledError",
  "ResourceMissingError",
  "DefinitionMismatchError",
  "StreamConsumedError",
  "StateLimitError",
  "StreamLimitError",
  "StreamStalledError",
  "NotMigratedError",
  "NotConfiguredError",
  "NoWorkerWarning",
  "ExecutionFailedError",
  "ExecutionCancelledError",
  "ChunksParkedError",
  "ChunkTimeoutError",
  "StepTimeoutError",
  "SearchTimeoutError",
  "DrainTimeoutError",
  "WaitTimeoutError",
  "WorkerCrashLoopError",
  "LeaseLostError",
  "LockedError",
  "ClaimedError",
  "TokenClosedError",
  "TokenUnknownError",
  "TokenUsedError",
  "ConflictError",
  "ConnectionError",
  "JournalMismatchError",
  "MigrationError",
  "MovableClockError",
  "WorkerError",
];
const publicTypes = [
  "NotJson",
  "ResourcesOf",
  "Storable",
  "StorableReturn",
  "Stored",
  "BlockOptions",
  "ChunkRef",
  "Callable",
  "ConsumeOptions",
  "EmitOptions",
  "ExecutionInfo",
  "FlowDataOptions",
  "FlowDataWriteOptions",
  "InterventionConsumer",
  "InterventionFilters",
  "StateWriteOptions",
  "WithdrawOptions",
  "InterventionPoint",
  "ResourceRequirement",
  "ResourceResolver",
  "ResolvedRate",
  "SubFlowOptions",
  "Graph",
  "FlowLimits",
  "Rate",
  "StreamLimits",
  "StartInput",
  "CallerTransaction",
  "DrizzleTransaction",
  "KnexTransaction",
  "KyselyTransaction",
  "MikroOrmTransaction",
  "PgClient",
  "PrismaTransaction",
  "ConnectionOption",
  "DriverOptions",
  "InputArgs",
  "FunctionDefinition",
  "LoadOptions",
  "ForkOptions",
  "LoadReport",
  "SavedExecution",
  "KeyOptions",
  "InTransaction",
  "InterveneOptions",
  "ResumeOptions",
  "AnswerByTokenOptions",
  "ListInterruptsOptions",
  "TraceApi",
  "Anchor",
  "BoundFlow",
  "CancelRunOptions",
  "ChunkHandler",
  "ChunkOptions",
  "CloseOptions",
  "CloseSnapshot",
  "Contract",
  "CountOptions",
  "CreateOptions",
  "Ctx",
  "Difference",
  "Duration",
  "EmitCallOptions",
  "Execution",
  "ExecutionFilter",
  "ExecutionId",
  "ExecutionResult",
  "ExecutionSummary",
  "FailureGroup",
  "ParkOptions",
  "Explanation",
  "FlowDefinition",
  "FailureOptions",
  "FlowOptions",
  "Handler",
  "HandlerEvent",
  "Health",
  "HealthCheck",
  "HistoryEntry",
  "HistoryOptions",
  "InputOf",
  "InterruptNotice",
  "InterruptRecord",
  "InboxOptions",
  "ClaimOptions",
  "DelegateOptions",
  "HandlingOptions",
  "SnoozeOptions",
  "Escalation",
  "Intervention",
  "Json",
  "JsonLoggerOptions",
  "JsonObject",
  "KeptAnchor",
  "LedgerEvent",
  "Limit",
  "LimitOptions",
  "ListOptions",
  "Logger",
  "Meta",
  "OperatorOptions",
  "ChunkAddress",
  "ParkedChunk",
  "RedriveOptions",
  "RetryChunkOptions",
  "SkipChunkOptions",
  "EditedState",
  "EditStateOptions",
  "PauseExecutionOptions",
  "PauseFlowOptions",
  "Bulk",
  "BulkFailure",
  "BulkFailurePage",
  "BulkOptions",
  "BulkPreview",
  "BulkReport",
  "StateEdit",
  "Orchestrator",
  "OrchestratorOptions",
  "PauseOptions",
  "Paused",
  "Predicate",
  "Progress",
  "PruneOptions",
  "Pruned",
  "RebuildOptions",
  "Resume",
  "RetryOptions",
  "RunOptions",
  "RunScheduleOptions",
  "SSEOptions",
  "ScheduleOptions",
  "StartManyOptions",
  "StateOf",
  "StepOptions",
  "TimelineRow",
  "TelemetryOptions",
  "Transaction",
  "TransactionOptions",
  "TransactionSource",
  "StopEvent",
  "StreamEntry",
  "StreamEventsOptions",
  "StreamItem",
  "StreamOptions",
  "SubFlowFrame",
  "SystemItem",
  "VerifyOptions",
  "Violation",
  "Wait",
  "Worker",
  "WorkerOptions",
  "CallOptions",
  "Question",
  "StartAndWaitOptions",
  "WaitingOptions",
];

/** All of our own source. */
const sources: Sources = new Map(
  globSync("src/**/*.ts", { cwd: root }).map((file) => {
    const path = file.split(sep).join("/");
    return [path, readFileSync(join(root, file), "utf8")];
  }),
);

test("imports point left", () => {
  expect(sources.size).toBeGreaterThan(70);
  expect(wrongImports(sources)).toEqual([]);
});

test("no files import each other in a circle", () => {
  expect(circles(sources)).toEqual([]);
});

test("the only clock is base/timers.ts", () => {
  // The page runs in a browser.
  const others = [...sources].filter(
    ([file]) => file !== "src/base/timers.ts" && !file.startsWith("src/console/page/"),
  );

  expect(clocks(new Map(others))).toEqual([]);
  expect(clocks(sources).length).toBeGreaterThan(5);
});

test("SQL stands in store/ only", () => {
  // The embedded server has to make its own database.
  const others = [...sources].filter(([file]) => !file.startsWith("src/store/") && file !== "src/embedded.ts");

  expect(statements(new Map(others))).toEqual([]);
  expect(statements(sources).length).toBeGreaterThan(100);
});

test("every folder of src is a room, or belongs to an entry point", () => {
  const folders = readdirSync(join(root, "src"), { withFileTypes: true }).filter((entry) => entry.isDirectory());

  expect(folders.map((folder) => folder.name).toSorted()).toEqual([...rooms, ...entryFolders].toSorted());
});

test("a file has 400 lines, or says at its top why it reads better whole", () => {
  const whole = "reads better whole";
  const wrong = globSync("src/**/*.{ts,tsx}", { cwd: root }).flatMap((file) => {
    const path = file.split(sep).join("/");
    const text = readFileSync(join(root, file), "utf8");
    const lines = text.split("\n").length - 1;
    return lines > 400 && !text.slice(0, 400).includes(whole) ? [`${path} has ${lines} lines`] : [];
  });

  expect(wrong).toEqual([]);
});

test("base, flow and ledger do no I/O", () => {
  const pure = [...sources].filter(([file]) => /^src\/(base|flow|ledger)\//.test(file));
  const wrong = pure.flatMap(([file, text]) =>
    packagesOf(text)
      .filter((path) => !packagesOfPureRooms.includes(path))
      .map((path) => `${file} imports ${path}`),
  );

  expect(wrong).toEqual([]);
});

describe("the rules see", () => {
  const planted = (file: string, line: string) => new Map([[file, `/** A file. */\n${line}\n`]]);

  test.each([
    ["an import", "src/flow/x.ts", 'import { a } from "../engine/a.ts";'],
    ["the import of a type", "src/flow/x.ts", 'import type { A } from "../ledger/event.ts";'],
    ["an inline type", "src/base/x.ts", 'import { type A } from "../flow/graph.ts";'],
    ["an import over several lines", "src/base/x.ts", 'import {\n  a,\n} from\n  "../flow/graph.ts";'],
    ["single quotes", "src/flow/x.ts", "import { a } from '../engine/a.ts';"],
    ["an indented import", "src/flow/x.ts", '  import { a } from "../engine/a.ts";'],
    ["an import for its effects", "src/flow/x.ts", 'import "../engine/a.ts";'],
    ["import()", "src/flow/x.ts", 'const a = await import(\n  "../engine/a.ts"\n);'],
    ["the type of an import()", "src/flow/x.ts", 'type A = import("../engine/a.ts").A;'],
    ["export *", "src/flow/x.ts", 'export * from "../engine/a.ts";'],
    ["a thread's URL", "src/flow/x.ts", 'new Worker(new URL("../engine/a.ts", import.meta.url));'],
    ["an import of a root file", "src/execution/x.ts", 'import { a } from "../orchestrator.ts";'],
    ["an import that leaves src", "src/execution/x.ts", 'import { a } from "../../test/support/flows.ts";'],
    ["one by a root file", "src/cli.ts", 'import { a } from "../bench/run.ts";'],
  ])("%s that points right", (_, file, line) => {
    expect(wrongImports(planted(file, line))).toHaveLength(1);
  });

  test.each([
    ["to the left", "src/execution/x.ts", 'import { a } from "../base/json.ts";'],
    ["of an entry point", "src/cli.ts", 'import { a } from "./worker/worker.ts";\nimport b from "./demo.ts";'],
    ["of a data file", "src/store/x.ts", 'new URL("../../migrations", import.meta.url);'],
    ["in a comment", "src/base/x.ts", '// import { a } from "../engine/a.ts";\n/* from "../flow/a.ts" */'],
  ])("nothing wrong in an import %s", (_, file, line) => {
    expect(wrongImports(planted(file, line))).toEqual([]);
  });

  test("a circle, also of types, also of root files", () => {
    const circle = new Map([
      ["src/a.ts", 'import { b } from "./flow/b.ts";'],
      ["src/flow/b.ts", 'import type { C } from "./c.ts";'],
      ["src/flow/c.ts", "const a = import('../a.ts');"],
      ["src/flow/d.ts", 'import { b } from "./b.ts";'],
    ]);

    expect(circles(circle)).toEqual(["src/a.ts → src/flow/b.ts → src/flow/c.ts → src/a.ts"]);
  });

  test.each([
    "const at = Date.now();",
    "const at = new Date();",
    "const at = new Date;",
    "const at = Date();",
    "setTimeout(work, 10);",
    "const now = globalThis.performance.now();",
    "const { now } = performance;",
    'import { setTimeout as delay } from "node:timers/promises";',
    "let timer: NodeJS.Timeout | undefined;",
    "fetch(url, { signal: AbortSignal.timeout(10) });",
    "process.hrtime.bigint();",
  ])("a clock: %s", (line) => {
    expect(clocks(planted("src/engine/x.ts", line))).toHaveLength(1);
  });

  test.each([
    "await sql`select 1`;",
    "const [row] = await sql<{ n: number }[]>`\n  select n from t`;",
    "await client.unsafe(text);",
    'await client.query("select count(*) from flowledger.ledger");',
    "const text = `\n  with a as (select 1) select * from a`;",
    "const text = 'insert into t values (1)';",
    'client.query("Update flowledger.executions set owner = null");',
    'const text = "delete from t";',
    'const text = "create schema x";',
    'const text = "create or replace function x()";',
    'const text = "listen jobs";',
    'client.query("begin");',
  ])("SQL: %s", (line) => {
    expect(statements(planted("src/engine/x.ts", line))).toHaveLength(1);
  });

  test.each([
    "// sql`select 1`",
    '"run select flowledger.grant_roles() and use the worker role"',
    'refuse("create one database for each");',
    'out.line("LISTEN gets through no pooler");',
    'const sqlstate = "40001";',
    '.description("drop what waits");',
  ])("no SQL: %s", (line) => {
    expect(statements(planted("src/engine/x.ts", line))).toEqual([]);
  });

  test.each(["new Date(row.at)", "setImmediate(next)", "// not Date.now()", "Date.UTC(2026, 0, 1)"])(
    "no clock: %s",
    (line) => {
      expect(clocks(planted("src/engine/x.ts", line))).toEqual([]);
    },
  );
});

test("index.ts exports exactly the documented names", async () => {
  const index = join(root, "src/index.ts");
  const values = Object.keys((await import(index)) as object);
  const types = [...readFileSync(index, "utf8").matchAll(/export type \{([^}]*)\}/g)].flatMap(([, names = ""]) =>
    names.split(",").map((name) => name.trim().replace(/^.* as /, "")),
  );

  expect(values.toSorted()).toEqual(publicValues.toSorted());
  expect(types.filter(Boolean).toSorted()).toEqual(publicTypes.toSorted());
});

test("the examples of hosts differ in their host alone", () => {
  const texts = globSync("examples/hosts/*/{,lib/}order.ts", { cwd: root }).map((path) =>
    readFileSync(join(root, path), "utf8"),
  );

  // One for servers, one for test runners.
  expect(texts.length).toBeGreaterThan(10);
  expect(new Set(texts).size).toBe(2);
});

test("no file names a package registry", () => {
  const own = process.env["npm_config_registry"];
  const hosts = [
    ["registry", "npmjs", "org"],
    ["registry", "yarnpkg", "com"],
    ["npm", "pkg", "github", "com"],
  ].map((parts) => parts.join("."));
  if (own) hosts.push(new URL(own).host);

  const wrong = files(root).filter((file) => hosts.some((host) => readFileSync(file, "utf8").includes(host)));

  expect(wrong.map((file) => relative(root, file))).toEqual([]);
});

test("the text that each mutant replaces is in the source, once", () => {
  for (const mutant of Object.values(mutants)) {
    expect(() => plantSql(mutant)).not.toThrow();
    rmSync(dirname(plantSource(mutant)), { recursive: true });
  }
});

/** All files that people wrote. */
function files(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if ([".git", "node_modules", "dist", ".flowledger"].includes(entry.name)) return [];
    return entry.isDirectory() ? files(path) : [path];
  });
}

test("a release is published with provenance, without a token, and SECURITY.md says so", () => {
  const release = readFileSync(join(root, ".github/workflows/release.yml"), "utf8");

  expect(release).toMatch(/^ +id-token: write$/m);
  expect(release).toMatch(/npm publish .*--provenance/);
  expect(release).not.toContain("NODE_AUTH_TOKEN");
  expect(readFileSync(join(root, "SECURITY.md"), "utf8")).toContain("with provenance and without a token");
});
