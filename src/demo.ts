/** `flowledger demo`: a Postgres, a worker, a real document through a real flow, and what the ledger says about it. */
import { existsSync, readFileSync } from "node:fs";
import * as fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { devFolder, importModule, printFields, printTable, type Terminal } from "./terminal.ts";
import type { Answer } from "./store/questions.ts";
import { openStore } from "./store/store.ts";
import { startEmbeddedPostgres } from "./embedded.ts";
import { UsageError } from "./base/errors.ts";
import { systemTimers } from "./base/timers.ts";
import type { Execution } from "./execution/execution.ts";
import { Flow } from "./flow/builder.ts";
import type { FlowDefinition } from "./flow/definition.ts";
import { createOrchestrator } from "./orchestrator.ts";

export interface DemoOptions {
  /** The document. @default examples/lease-agreement.md */
  readonly file: string | undefined;
  /** A database of the user's own. @default an embedded one */
  readonly database: string | undefined;
  /** Whether the embedded one keeps its data. */
  readonly isKept: boolean;
  readonly signal: AbortSignal;
}

const examples = fileURLToPath(new URL("../examples", import.meta.url));
const Progress = z.object({ step: z.string(), text: z.string() });

export async function runDemo(out: Terminal, options: DemoOptions): Promise<void> {
  const { signal } = options;
  const begin = systemTimers.monotonic();
  const file = options.file ?? join(examples, "lease-agreement.md");
  const text = readDocument(file);
  const say = progress(out, begin);

  const flow = await loadFlow();
  await using database = await openDatabase(options, say);
  if (signal.aborted) return;
  await using orchestrator = createOrchestrator({ connection: database.url, flows: [flow] });
  await orchestrator.migrate();
  await orchestrator.startWorker();
  say("worker", "migrated, and serving the flow");
  if (signal.aborted) return;

  const name = basename(file);
  const execution = await orchestrator
    .flow(flow)
    .startExecution({ name, text }, { autoCloseTimeout: 0, metadata: { demo: true, file: name } });
  for await (const item of execution.getRuntimeStream({ timeout: null, signal })) {
    const { step, text: said } = Progress.parse(item);
    say(step, said);
  }
  if (signal.aborted) return;
  await execution.waitForClose();
  say("closed", execution.id);
  await printResults(out, execution, database.url);
  if (!out.isJson) sayWhatNext(out, options, execution.id);
}

/** @throws {UsageError} one sentence for each way a path can be wrong */
function readDocument(file: string): string {
  try {
    const text = readFileSync(file, "utf8");
    if (!/\w/.test(text)) throw new UsageError(`${file} has no words`, "give a text or markdown file");
    return text;
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
    throw new UsageError(`${file} cannot be read (${code})`, "give the path of a text or markdown file", {}, error);
  }
}

/**
 * The flow is an example that people read, so it stays TypeScript. Node takes the types out of it, but never below
 * `node_modules`: an installed package runs a copy that stands elsewhere.
 */
async function loadFlow(): Promise<FlowDefinition> {
  const source = join(examples, "document-review.ts");
  const module = isInstalled() ? await importCopy(source) : await importModule(source);
  return z.custom<FlowDefinition>((value) => value instanceof Flow).parse(module["documentReview"]);
}

function isInstalled(): boolean {
  return !existsSync(new URL("./index.ts", import.meta.url));
}

async function importCopy(source: string): Promise<Readonly<Record<string, unknown>>> {
  const folder = await fs.mkdtemp(join(tmpdir(), "flowledger-demo-"));
  try {
    const text = (await fs.readFile(source, "utf8"))
      .replace('"../src/index.ts"', JSON.stringify(import.meta.resolve("./index.js")))
      .replace('"zod"', JSON.stringify(import.meta.resolve("zod")));
    const copy = join(folder, "document-review.mts");
    await fs.writeFile(copy, text);
    return await importModule(copy);
  } finally {
    await fs.rm(folder, { recursive: true, force: true });
  }
}

type Say = (step: string, text: string) => void;

/** A line per step with the seconds since the beginning; nothing where a program listens. */
function progress(out: Terminal, begin: number): Say {
  const { paint } = out;
  return (step, text) => {
    if (out.isJson) return;
    const seconds = ((systemTimers.monotonic() - begin) / 1000).toFixed(2).padStart(5);
    out.line(`${paint.dim(`${seconds} s`)}  ${paint.cyan(step.padEnd(9))} ${text}`);
  };
}

async function openDatabase(options: DemoOptions, say: Say): Promise<AsyncDisposable & { url: string }> {
  const { database: url, isKept } = options;
  if (url !== undefined) {
    say("postgres", "the one you gave");
    return { url, [Symbol.asyncDispose]: async () => {} };
  }
  say("postgres", isKept ? `starting one in ${devFolder}/` : "starting one in a temporary folder");
  const server = await startEmbeddedPostgres(isKept ? { dataDir: devFolder } : {});
  say("postgres", `127.0.0.1:${server.port}, data in ${server.dataDir}`);
  return server;
}

async function printResults(out: Terminal, execution: Execution, url: string): Promise<void> {
  const store = openStore(url);
  try {
    const [state, meta] = await Promise.all([execution.result.getState(), execution.result.getMeta()]);
    const answers = await store.audit.answers(execution.id);
    if (out.isJson) return out.json({ id: execution.id, closeSnapshot: state, meta, audit: answers });
    out.line(`\n${out.paint.bold("close snapshot")}`);
    out.line(JSON.stringify(trimmed(state), null, 2));
    out.line();
    printFields(out, "meta", meta);
    for (const { question, query, rows } of answers) {
      out.line(`\n${out.paint.bold(question)}`);
      out.line(out.paint.dim(query));
      out.line();
      printRows(out, rows);
    }
  } finally {
    await store.close();
  }
}

function printRows(out: Terminal, rows: Answer["rows"]): void {
  const [first] = rows;
  if (!first) return out.line("no rows");
  const shown = rows.length > 14 ? [...rows.slice(0, 9), ...rows.slice(-4)] : rows;
  const cells = shown.map((row) => Object.values(row).map((value) => (value === null ? "" : String(value))));
  if (shown.length < rows.length) cells.splice(9, 0, [`… ${rows.length - shown.length} more`]);
  printTable(out, Object.keys(first), cells);
}

/** Long lists are cut: the whole of it is in the database. */
function trimmed(value: unknown): unknown {
  if (Array.isArray(value)) {
    const shown: unknown[] = value.slice(0, 3).map(trimmed);
    return value.every((item) => typeof item === "string")
      ? value
      : value.length > 3
        ? [...shown, `… ${value.length - 3} more`]
        : shown;
  }
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, trimmed(item)]));
}

function sayWhatNext(out: Terminal, { database, isKept }: DemoOptions, id: string): void {
  const { bold, dim } = out.paint;
  const command = isInstalled() ? "npx flowledger" : "npx node src/cli.ts";
  const next = (words: string, what: string) => out.line(`  ${command} ${words.padEnd(24)} ${dim(what)}`.trimEnd());
  if (database === undefined && !isKept) {
    out.line(`\n${bold("The data")} was in a temporary Postgres, which goes now. ${bold("Next:")}`);
    next("demo --keep", "the same, and the data stays");
    next("demo path/to/file.md", "a document of yours");
    next("dev", "a Postgres that stays up");
    return;
  }
  const where = database === undefined ? `${devFolder}/` : "the database you gave";
  out.line(`\n${bold("The data")} is in ${where}, schema flowledger. ${bold("Next:")}`);
  if (database === undefined) next("dev", "starts its Postgres and prints DATABASE_URL");
  next("list", "all executions");
  next(`show ${id}`, "");
  next(`tail ${id}`, "");
}
