#!/usr/bin/env node
/** `npx flowledger …`: each command is parse → one call → print. */
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { z } from "zod";
import { examine } from "./store/doctor.ts";
import type { Progress } from "./store/rebuild.ts";
import { openStore } from "./store/store.ts";
import { configure } from "./defer.ts";
import { startEmbeddedPostgres } from "./embedded.ts";
import type { EmbeddedPostgres } from "./embedded.ts";
import { ConnectionError, FlowledgerError, UsageError, type SerializedError } from "./base/errors.ts";
import { systemTimers as liveness } from "./base/timers.ts";
import type { HistoryEntry } from "./execution/execution.ts";
import { parseCursor } from "./execution/stream.ts";
import type { FlowDefinition } from "./flow/definition.ts";
import { isObject, type Json, type JsonObject } from "./base/json.ts";
import { createOrchestrator } from "./orchestrator.ts";
import { devFolder, importModule, openTerminal, printFields, printTable, visible, type Terminal } from "./terminal.ts";
import type { ExecutionSummary, FunctionDefinition, ListOptions, Orchestrator } from "./orchestrator.ts";

/** What every command takes. */
interface GlobalOptions {
  schema?: string;
  database?: string;
  json?: boolean;
  verbose?: boolean;
}

const statuses = ["created", "running", "waiting", "completed", "failed", "cancelled"] as const;

void main();

async function main(): Promise<void> {
  const program = newProgram();
  // A reader that has seen enough (`| head`) is no failure.
  process.stdout.on("error", () => process.exit(0));
  process.removeAllListeners("warning");
  process.on("warning", (warning) => process.stderr.write(`warning: ${visible(warning.message)}\n`));
  try {
    await program.parseAsync();
  } catch (error) {
    process.exitCode = report(error, program.opts<GlobalOptions>().verbose ?? false);
  }
}

function newProgram(): Command {
  const program = new Command("flowledger")
    .description("Durable execution for TypeScript on the Postgres you already have.")
    .option("--database <url>", "connection string (default: DATABASE_URL)")
    .option("--schema <name>", "schema that flowledger was migrated into (default: FLOWLEDGER_SCHEMA, or flowledger)")
    .option("--json", "print JSON: one document, or one line per stream item")
    .option("--verbose", "print the stack of an error")
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      outputError: (text, write) =>
        write(`${text.trimEnd()}${/unknown (command|option)/.test(text) ? ": see --help" : ""}\n`),
    })
    .showSuggestionAfterError(false);

  program
    .command("demo")
    .description("review a document with a real flow, on a Postgres made for it")
    .argument("[file]", "text or markdown (default: a lease agreement)")
    .option("--keep", `keep the data in ${devFolder}/`)
    .action(async (file: string | undefined, options: { keep?: boolean }, command: Command) => {
      const { runDemo } = await import("./demo.ts");
      const isStopped = await untilSignal((signal) =>
        runDemo(terminalOf(command), { file, signal, isKept: options.keep ?? false, database: databaseOf(command) }),
      );
      if (isStopped) process.exitCode = 130;
    });

  program
    .command("dev")
    .description(`run a Postgres that keeps its data in ${devFolder}/, until Ctrl-C`)
    .option("--port <number>", "port on 127.0.0.1 (default: 54320, or a free one)", parseWhole)
    .action(async ({ port }: { port?: number }, command: Command) => {
      await using server = await startDev(port);
      await migrateAt(server.url, command);
      const out = terminalOf(command);
      if (out.isJson) out.json({ databaseUrl: server.url, dataDir: server.dataDir, pid: server.pid });
      else printDev(out, server);
      await untilSignal((signal) => aborted(signal));
    });

  program
    .command("migrate")
    .description("bring the database to this version; safe to repeat, and from several processes")
    .action(async (_: object, command: Command) => {
      const url = requireDatabase(command);
      await migrateAt(url, command);
      const out = terminalOf(command);
      if (out.isJson) out.json({ migrated: true });
      else out.line("migrated: the database is at the version of this library");
    });

  program
    .command("worker")
    .description("serve the flows of a module until SIGTERM or Ctrl-C")
    .argument("<module>", "exports an orchestrator as default, or `flows` or `functions` (and `resources`)")
    .option("--concurrency <number>", "executions at once", parseWhole)
    .action(async (module: string, { concurrency }: { concurrency?: number }, command: Command) => {
      await using orchestrator = await loadOrchestrator(module, command);
      await untilSignal(async (signal) => {
        const worker = await orchestrator.startWorker(concurrency === undefined ? {} : { concurrency });
        const out = terminalOf(command);
        if (out.isJson) out.json({ ready: true, worker: worker.id, pid: process.pid });
        else out.line(`${out.paint.green("ready")} worker ${worker.id} (pid ${process.pid})`);
        await aborted(signal);
        if (!out.isJson) out.line(`draining ${worker.owned} executions; a second signal ends it at once`);
        await worker.stop();
      });
    });

  program
    .command("console")
    .description("watch executions, answer interrupts and intervene on a web page, until Ctrl-C; on this machine only")
    .option("--port <number>", "port on 127.0.0.1 (default: a free one)", parseWhole)
    .action(async (options: { port?: number }, command: Command) => {
      await using orchestrator = open(command);
      await orchestrator.listExecutions({ limit: 1 });
      const { openConsole } = await import("./console.ts");
      await using opened = await openConsole(orchestrator, options);
      const out = terminalOf(command);
      if (out.isJson) out.json({ url: opened.url, pid: process.pid });
      else out.line(`${out.paint.green("ready")} ${opened.url}`);
      await untilSignal((signal) => aborted(signal));
    });

  program
    .command("list")
    .description("list executions, newest first")
    .option("--flow <name>", "only of this flow")
    .addOption(new Option("--status <status>", "only in this status").choices(statuses))
    .option("--limit <number>", "how many, up to 1000", parseWhole, 20)
    .option("--cursor <id>", "go on after the last id of the page before")
    .action(async (options: ListOptions, command: Command) => {
      await using orchestrator = open(command);
      const page = await orchestrator.listExecutions(options);
      const out = terminalOf(command);
      if (out.isJson) out.json(page);
      else printList(out, page.executions, page.nextCursor);
    });

  program
    .command("show")
    .description("show meta, state and the last ledger events of an execution")
    .argument("<id>")
    .option("--events <number>", "how many ledger events", parseWhole, 15)
    .action(async (id: string, options: { events: number }, command: Command) => {
      await using orchestrator = open(command);
      const execution = await orchestrator.getExecution(id);
      const [meta, state, events] = await Promise.all([
        execution.result.getMeta(),
        execution.result.getState(),
        execution.history(),
      ]);
      const error = meta.status === "failed" ? errorIn(events) : null;
      const last = options.events === 0 ? [] : events.slice(-options.events);
      const out = terminalOf(command);
      if (out.isJson) return out.json({ meta, state, error, events: last });
      printFields(out, "meta", meta);
      out.line(`\n${out.paint.bold(meta.lifecycleState === "closed" ? "close snapshot" : "state")}`);
      out.line(JSON.stringify(state, null, 2));
      if (error) {
        out.line(`\n${out.paint.bold(out.paint.red("error"))} ${error.name}: ${error.message}`);
        if (error.chunk !== undefined) out.line(`in chunk "${error.chunk}", attempt ${error.attempt ?? 1}`);
      }
      out.line(`\n${out.paint.bold("ledger")} (last ${last.length} of ${events.length} events)`);
      printTable(out, ["seq", "at", "type", "chunk"], last.map(eventRow));
    });

  program
    .command("tail")
    .description("follow the stream of an execution until it ends")
    .argument("<id>")
    .option("--from <cursor>", "begin after this item", parsePlace, "0")
    .action(async (id: string, { from }: { from: string }, command: Command) => {
      await using orchestrator = open(command);
      const execution = await orchestrator.getExecution(id);
      const out = terminalOf(command);
      const isStopped = await untilSignal(async (signal) => {
        for await (const { item, cursor } of execution.streamItems({ timeout: null, from, signal })) {
          from = cursor;
          if (out.isJson || typeof item !== "string") out.json(item);
          else out.line(item);
        }
      });
      if (!isStopped) return;
      console.error(`go on with: flowledger tail ${id} --from ${from}`);
      process.exitCode = 130;
    });

  program
    .command("start")
    .description("start an execution through the SQL front door, and print its id")
    .argument("<flow>")
    .argument("<json>", "the input", parseJson)
    .option("--options <json>", "options of flowledger.start(), e.g. '{\"metadata\": {}}'", parseJson, {})
    .action(async (flow: string, input: Json, { options }: { options: Json }, command: Command) => {
      const store = openStore(requireDatabase(command), schemaOf(command));
      try {
        await store.requireMigrated();
        const id = await store.starts.startRaw(flow, input, options);
        const out = terminalOf(command);
        if (out.isJson) out.json({ id });
        else out.line(id);
      } finally {
        await store.close();
      }
    });

  program
    .command("emit")
    .description("send an event to an execution")
    .argument("<id>")
    .argument("<event>")
    .argument("[json]", "the payload (default: null)", parseJson, null)
    .option("--idempotency-key <key>", "sending a key again changes nothing")
    .action(
      async (id: string, event: string, payload: Json, options: { idempotencyKey?: string }, command: Command) => {
        await using orchestrator = open(command);
        await (await orchestrator.getExecution(id)).emit(event, payload, { ...options, actor: "cli" });
        done(command, `accepted "${event}"`, { accepted: event });
      },
    );

  program
    .command("resume")
    .description("answer an interrupt")
    .argument("<id>")
    .argument("<interrupt>")
    .argument("[json]", "the answer (default: null)", parseJson, null)
    .option("--request-id <id>", "answering again with the same id changes nothing")
    .option("--actor <name>", "who answers", "cli")
    .action(async (id: string, interrupt: string, answer: Json, options: ResumeFlags, command: Command) => {
      await using orchestrator = open(command);
      const { requestId, actor } = options;
      const record = await (
        await orchestrator.getExecution(id)
      ).continueWith(interrupt, answer, { actor, ...(requestId !== undefined && { resumeRequestId: requestId }) });
      done(command, `resumed "${record.id}"`, { ...record });
    });

  program
    .command("intervene")
    .description("record a correction that nobody asked for")
    .argument("<id>")
    .argument("<json>", "the payload", parseJson)
    .option("--target <name>", "where it is meant to be read")
    .option("--author <name>", "whose it is", "cli")
    .option("--note <text>", "for those who read it later")
    .action(async (id: string, payload: Json, options: InterveneFlags, command: Command) => {
      await using orchestrator = open(command);
      const record = await (await orchestrator.getExecution(id)).intervene(payload, options);
      done(command, `recorded as version ${record.version}`, { ...record });
    });

  program
    .command("seal")
    .description("take nothing new from outside; what was accepted runs on")
    .argument("<id>")
    .action(async (id: string, _: object, command: Command) => {
      await using orchestrator = open(command);
      await (await orchestrator.getExecution(id)).seal({ actor: "cli" });
      done(command, "sealed", { sealed: true });
    });

  program
    .command("close")
    .description("seal, drain, freeze, and print the close snapshot")
    .argument("<id>")
    .option("--timeout <duration>", 'how long accepted work may take, e.g. "30s" (default: as long as it takes)')
    .option("--reason <text>", "kept as the close reason")
    .option("--cancel-interrupts", "cancel what still waits for an answer")
    .action(async (id: string, options: CloseFlags, command: Command) => {
      await using orchestrator = open(command);
      const { timeout, reason, cancelInterrupts = false } = options;
      const snapshot = await (
        await orchestrator.getExecution(id)
      ).close({
        actor: "cli",
        pendingInterrupts: cancelInterrupts ? "cancel" : "reject",
        ...(timeout !== undefined && { timeout }),
        ...(reason !== undefined && { reason }),
      });
      const out = terminalOf(command);
      if (out.isJson) out.json(snapshot);
      else out.line(JSON.stringify(snapshot, null, 2));
    });

  program
    .command("cancel")
    .description("ask for the end of whatever runs")
    .argument("<id>")
    .option("--reason <text>", "kept in the ledger", "cancelled")
    .action(async (id: string, { reason }: { reason: string }, command: Command) => {
      await using orchestrator = open(command);
      const isCancelled = await (await orchestrator.getExecution(id)).cancel(reason, { actor: "cli" });
      done(command, isCancelled ? "cancel requested" : "it had closed before", { cancelled: isCancelled });
    });

  program
    .command("verify")
    .description("check every guarantee, and the hash chain; exits with 1 when something is wrong")
    .argument("[id]", "only this execution (default: all)")
    .action(async (id: string | undefined, _: object, command: Command) => {
      await using orchestrator = open(command);
      const out = terminalOf(command);
      const progress = countingOn(out, "verified");
      const found = await orchestrator.verify({ ...(id !== undefined && { id }), onProgress: progress.show });
      progress.end();
      if (out.isJson) out.json({ ...progress.last(), violations: found });
      for (const { executionId, invariant, detail } of out.isJson ? [] : found)
        out.line(`${executionId}  ${out.paint.red(invariant)}  ${detail}`);
      if (found.length > 0) process.exitCode = 1;
    });

  program
    .command("rebuild")
    .description("derive again what is derived, from the ledger alone; needs the schema's owner")
    .argument("[id]", "only this execution (default: all)")
    .action(async (id: string | undefined, _: object, command: Command) => {
      await using orchestrator = open(command);
      const out = terminalOf(command);
      const progress = countingOn(out, "rebuilt");
      const rows = await orchestrator.rebuild({ ...(id !== undefined && { id }), onProgress: progress.show });
      progress.end();
      if (out.isJson) out.json({ ...progress.last(), differences: rows });
      for (const { executionId, table, row, found, expected } of out.isJson ? [] : rows)
        out.line(
          `${executionId}  ${table}${row === null ? "" : ` ${row}`}  ${JSON.stringify(found)} -> ${JSON.stringify(expected)}`,
        );
      // What cannot be folded is still as it was.
      if (rows.some(({ table }) => table === "ledger")) process.exitCode = 1;
    });

  program
    .command("prune")
    .description("remove closed executions for good; needs the schema's owner")
    .requiredOption("--closed-before <date>", "ISO date or time", parseDate)
    .addOption(
      new Option("--keep <status...>", "keep those that ended like this").choices(["completed", "failed", "cancelled"]),
    )
    .option("--keep-flow <name...>", "keep those of this flow")
    .option("--keep-metadata <json>", "keep those whose metadata contains this", parseObject)
    .action(async (options: PruneFlags, command: Command) => {
      await using orchestrator = open(command);
      const { closedBefore, keep = [], keepFlow = [], keepMetadata } = options;
      const pruned = await orchestrator.prune({
        closedBefore,
        keep: { status: keep, flow: keepFlow, ...(keepMetadata && { metadata: keepMetadata }) },
      });
      const { executions, events, streamItems } = pruned;
      done(command, `removed ${executions} executions, ${events} events, ${streamItems} stream items`, { ...pruned });
    });

  program
    .command("doctor")
    .description("look at connection, version, rights, pooler, LISTEN, workers and jobs; exits with 1 when one fails")
    .action(async (_: object, command: Command) => {
      const findings = await examine(requireDatabase(command), schemaOf(command).schema);
      const out = terminalOf(command);
      if (out.isJson) out.json(findings);
      const paint = { ok: out.paint.green, warn: out.paint.yellow, fail: out.paint.red };
      for (const { name, verdict, detail, remedy } of out.isJson ? [] : findings)
        out.line(
          `${paint[verdict](verdict.padEnd(4))}  ${name.padEnd(11)}  ${detail}${remedy === null ? "" : ` (${remedy})`}`,
        );
      if (findings.some(({ verdict }) => verdict === "fail")) process.exitCode = 1;
    });

  return program;
}

interface ResumeFlags {
  requestId?: string;
  actor: string;
}

interface InterveneFlags {
  target?: string;
  author: string;
  note?: string;
}

interface PruneFlags {
  closedBefore: Date;
  keep?: ("completed" | "failed" | "cancelled")[];
  keepFlow?: string[];
  keepMetadata?: JsonObject;
}

/** On a terminal one line that counts; at the end a line for everybody. */
function countingOn(out: Terminal, verb: string) {
  let last: Progress = { executions: 0, events: 0, problems: 0 };
  const text = () => `${verb} ${last.executions} executions, ${last.events} events: ${last.problems} problems`;
  return {
    last: () => ({ executions: last.executions, events: last.events }),
    show: (progress: Progress) => {
      last = progress;
      if (out.isInteractive) process.stdout.write(`\r${text()}`);
    },
    end: () => {
      if (!out.isJson) out.line(out.isInteractive ? "" : text());
    },
  };
}

interface CloseFlags {
  timeout?: string;
  reason?: string;
  cancelInterrupts?: boolean;
}

// ── what commands need ──────────────────────────────────────────────────────────────────────────────────────

function databaseOf(command: Command): string | undefined {
  return command.optsWithGlobals<GlobalOptions>().database ?? (process.env["DATABASE_URL"] || undefined);
}

function requireDatabase(command: Command): string {
  const url = databaseOf(command);
  if (url === undefined)
    throw new UsageError(
      "no database was given",
      "pass --database <url>, set DATABASE_URL, or run `npx flowledger dev` for one",
    );
  return url;
}

function schemaOf(command: Command): { schema?: string } {
  const schema = command.optsWithGlobals<GlobalOptions>().schema ?? (process.env["FLOWLEDGER_SCHEMA"] || undefined);
  return schema === undefined ? {} : { schema };
}

function open(command: Command): Orchestrator {
  return createOrchestrator({ connection: requireDatabase(command), ...schemaOf(command) });
}

async function migrateAt(url: string, command: Command): Promise<void> {
  await using orchestrator = createOrchestrator({ connection: url, ...schemaOf(command) });
  await orchestrator.migrate();
}

/** The usual port, so that the URL of yesterday still holds; a free one where somebody else has it. */
async function startDev(port: number | undefined): Promise<EmbeddedPostgres> {
  try {
    return await startEmbeddedPostgres({ dataDir: devFolder, port: port ?? 54320 });
  } catch (error) {
    const isTaken = error instanceof ConnectionError && error.details["problem"] === "the port is taken";
    if (port !== undefined || !isTaken) throw error;
    return startEmbeddedPostgres({ dataDir: devFolder });
  }
}

/** By its shape, not its class: the module may have come with another copy of this package. */
const AnOrchestrator = z.custom<Orchestrator>(
  (value) => typeof value === "object" && value !== null && "startWorker" in value && "close" in value,
);
const AFlow = z.custom<FlowDefinition>(
  (value) => typeof value === "object" && value !== null && "graph" in value && "name" in value,
);
const AFunction = z.custom<FunctionDefinition>((value) => typeof value === "function" && "flow" in value);
const FlowModule = z
  .object({
    flows: z.array(AFlow).default([]),
    functions: z.array(AFunction).default([]),
    resources: z.record(z.string(), z.unknown()).optional(),
  })
  .refine(({ flows, functions }) => flows.length + functions.length > 0);

async function loadOrchestrator(path: string, command: Command): Promise<Orchestrator> {
  const module = await importModule(path);
  const whole = AnOrchestrator.safeParse(module["default"]);
  if (whole.success) return whole.data;
  const parts = FlowModule.safeParse(module);
  if (!parts.success)
    throw new UsageError(
      `module ${path} exports nothing that a worker can serve`,
      "export an orchestrator as default, or `flows` or `functions` as lists (and `resources`)",
    );
  const { flows, functions, resources } = parts.data;
  const connection = requireDatabase(command);
  const orchestrator = createOrchestrator({
    connection,
    ...schemaOf(command),
    flows,
    functions,
    ...(resources && { resources }),
  });
  // A function may call another one.
  if (functions.length > 0) configure(orchestrator);
  return orchestrator;
}

/**
 * Runs work that ends on the first SIGINT or SIGTERM; a second one ends the process at once.
 *
 * @returns whether a signal came
 */
async function untilSignal(work: (signal: AbortSignal) => Promise<void>): Promise<boolean> {
  const stop = new AbortController();
  const onSignal = (): void => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
  };
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  await work(stop.signal);
  return stop.signal.aborted;
}

/** Keeps the process alive until then: an embedded server alone would not. */
async function aborted(signal: AbortSignal): Promise<void> {
  const { promise, resolve: wake } = Promise.withResolvers<void>();
  const alive = liveness.every(60_000, () => {});
  signal.addEventListener("abort", () => wake());
  if (!signal.aborted) await promise;
  alive.cancel();
}

// ── parsing ─────────────────────────────────────────────────────────────────────────────────────────────────

function parseJson(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch {
    throw new InvalidArgumentError("It is not JSON: quote it for the shell, and a text twice, like '\"text\"'.");
  }
}

function parseObject(text: string): JsonObject {
  const value = parseJson(text);
  if (isObject(value)) return value;
  throw new InvalidArgumentError("It is not a JSON object.");
}

function parseDate(text: string): Date {
  const date = new Date(text);
  if (!Number.isNaN(date.getTime())) return date;
  throw new InvalidArgumentError("It is not a date: write 2026-01-31, or 2026-01-31T12:00:00Z.");
}

function parsePlace(text: string): string {
  try {
    parseCursor(text);
  } catch {
    throw new InvalidArgumentError("It is not a cursor: use 0, or what Ctrl-C printed.");
  }
  return text;
}

function parseWhole(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new InvalidArgumentError("It is not a whole number.");
}

// ── printing ────────────────────────────────────────────────────────────────────────────────────────────────

function terminalOf(command: Command): Terminal {
  const isJson = command.optsWithGlobals<GlobalOptions>().json ?? false;
  const isColored = process.stdout.isTTY && !isJson && !process.env["NO_COLOR"] && process.env["TERM"] !== "dumb";
  return openTerminal({ isJson, isColored });
}

function done(command: Command, text: string, value: Readonly<Record<string, unknown>>): void {
  const out = terminalOf(command);
  if (out.isJson) out.json(value);
  else out.line(text);
}

function printDev(out: Terminal, server: EmbeddedPostgres): void {
  out.line(`${out.paint.green("ready")} Postgres ${server.dataDir} (pid ${server.pid})`);
  out.line(`DATABASE_URL=${server.url}`);
  if (out.isInteractive) out.line(out.paint.dim("Ctrl-C stops it; started again it has the same data."));
}

function printList(out: Terminal, executions: readonly ExecutionSummary[], nextCursor: string | null): void {
  const rows = executions.map(({ id, flow, status, createdAt, closedAt, closeReason }) => [
    id,
    flow,
    status,
    createdAt.toISOString(),
    closedAt?.toISOString() ?? "-",
    closeReason ?? "-",
  ]);
  printTable(out, ["id", "flow", "status", "created", "closed", "reason"], rows);
  if (nextCursor !== null && out.isInteractive) out.line(out.paint.dim(`more: --cursor ${nextCursor}`));
}

function eventRow(event: HistoryEntry): string[] {
  const chunk = "chunk" in event && typeof event.chunk === "string" ? event.chunk : "";
  return [String(event.seq), event.at.toISOString(), event.type, chunk];
}

function errorIn(events: readonly HistoryEntry[]): SerializedError | null {
  for (const event of events.toReversed())
    if (event.type === "chunk.failed" || event.type === "execution.failed") return event.error;
  return null;
}

/** Prints what went wrong; gives the exit code: 2 for a command line that cannot be read, else 1. */
function report(error: unknown, isVerbose: boolean): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const text = error instanceof Error ? error.message : String(error);
  process.stderr.write(`error: ${visible(error instanceof FlowledgerError ? text : text || "something failed")}\n`);
  if (isVerbose && error instanceof Error) process.stderr.write(`${visible(error.stack ?? "")}\n`);
  return 1;
}
