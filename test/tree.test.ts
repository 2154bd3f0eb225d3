/** The shape of the tree: imports point left, `index.ts` exports what the docs name, nothing names a package registry. */
import { globSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { expect, test } from "vitest";
import { mutants, plantSource, plantSql } from "./chaos/mutants.ts";

const root = resolve(import.meta.dirname, "..");
const rooms = ["base", "flow", "ledger", "database", "engine", "worker", "execution"];
const packagesOfPureRooms = ["zod", "node:crypto", "node:util"];

const publicValues = [
  "Flow",
  "createOrchestrator",
  "defineFlow",
  "cursorOf",
  "toReadableStream",
  "toSSE",

  "FlowledgerError",
  "DefinitionError",
  "ContractError",
  "UsageError",
  "PayloadError",
  "ExecutionNotFoundError",
  "ExecutionSealedError",
  "ExecutionClosedError",
  "PendingInterruptsError",
  "InterruptNotPendingError",
  "ResumeConflictError",
  "SelfResumeLimitError",
  "NoResumeHandleError",
  "InterventionDisabledError",
  "ResourceMissingError",
  "DefinitionMismatchError",
  "StreamConsumedError",
  "StreamLimitError",
  "StreamStalledError",
  "NotMigratedError",
  "NotConfiguredError",
  "NoWorkerWarning",
  "ExecutionFailedError",
  "ExecutionCancelledError",
  "ChunkTimeoutError",
  "DrainTimeoutError",
  "WorkerCrashLoopError",
  "LeaseLostError",
  "ConnectionError",
  "JournalMismatchError",
  "MigrationError",
  "WorkerError",
];
const publicTypes = [
  "BoundFlow",
  "CancelRunOptions",
  "ChunkHandler",
  "ChunkOptions",
  "CloseOptions",
  "CloseSnapshot",
  "Contract",
  "CreateOptions",
  "Ctx",
  "Difference",
  "Duration",
  "EmitCallOptions",
  "Execution",
  "ExecutionId",
  "ExecutionResult",
  "ExecutionSummary",
  "FlowDefinition",
  "FlowOptions",
  "Handler",
  "HandlerEvent",
  "HistoryEntry",
  "HistoryOptions",
  "InputOf",
  "Intervention",
  "Json",
  "JsonObject",
  "LedgerEvent",
  "Limit",
  "LimitOptions",
  "ListOptions",
  "Logger",
  "Meta",
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
  "SSEOptions",
  "ScheduleOptions",
  "StateOf",
  "StepOptions",
  "StopEvent",
  "StreamEntry",
  "StreamEventsOptions",
  "StreamItem",
  "StreamOptions",
  "SubFlowFrame",
  "SystemItem",
  "VerifyOptions",
  "Violation",
  "Worker",
  "WorkerOptions",
];

test("imports point left", () => {
  const wrong = roomImports()
    .filter(({ from, to }) => {
      if (to === undefined) return true;
      return rooms.indexOf(to) > rooms.indexOf(from);
    })
    .map(({ file, target }) => `${file} imports ${target}`);

  expect(wrong).toEqual([]);
});

test("every folder of src is a room", () => {
  const folders = readdirSync(join(root, "src"), { withFileTypes: true }).filter((entry) => entry.isDirectory());

  expect(folders.map((folder) => folder.name).filter((name) => !rooms.includes(name))).toEqual([]);
});

test("flow and ledger do no I/O", () => {
  const wrong = ["flow", "ledger"].flatMap((room) =>
    sources(room).flatMap(({ file, imports }) =>
      imports
        .filter(({ path, isType }) => !path.startsWith(".") && !isType && !packagesOfPureRooms.includes(path))
        .map(({ path }) => `${file} imports ${path}`),
    ),
  );

  expect(wrong).toEqual([]);
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

interface Import {
  readonly path: string;
  readonly isType: boolean;
}

/** The files of one room, and what each imports. */
function sources(room: string): { file: string; imports: Import[] }[] {
  return globSync(`src/${room}/**/*.ts`, { cwd: root }).map((file) => ({
    file,
    imports: readImports(readFileSync(join(root, file), "utf8")),
  }));
}

test("the text that each mutant replaces is in the source, once", () => {
  for (const mutant of Object.values(mutants)) {
    expect(() => plantSql(mutant)).not.toThrow();
    rmSync(dirname(plantSource(mutant)), { recursive: true });
  }
});

/** Static imports and re-exports with their `type` keyword, bare imports, and `import(…)`. */
function readImports(text: string): Import[] {
  const found = text.matchAll(
    /^(?:import|export)\s+(type\s)?[^"';]*?from\s*"([^"]+)"|^import\s*"([^"]+)"|\bimport\(\s*"([^"]+)"/gm,
  );
  return [...found].map(([, type, from, bare, dynamic]) => ({
    path: from ?? bare ?? dynamic ?? "",
    isType: type !== undefined,
  }));
}

/** Every relative import of a room: `target` inside `src`, `to` its room, nothing for a file at the root. */
function roomImports() {
  return rooms.flatMap((from) =>
    sources(from).flatMap(({ file, imports }) =>
      imports
        .filter(({ path }) => path.startsWith("."))
        .map(({ path, isType }) => {
          const target = relative("src", join(dirname(file), path))
            .split(sep)
            .join("/");
          return { file, from, isType, target, to: target.includes("/") ? target.split("/")[0] : undefined };
        }),
    ),
  );
}

/** All files that people wrote. */
function files(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if ([".git", "node_modules", "dist", ".flowledger"].includes(entry.name)) return [];
    return entry.isDirectory() ? files(path) : [path];
  });
}
