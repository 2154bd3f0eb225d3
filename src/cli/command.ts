/** What every command takes, and how it gets at the database and the terminal. */
import type { Command } from "commander";
import { UsageError } from "../base/errors.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import { createOrchestrator } from "../orchestrator.ts";
import type { Orchestrator } from "../orchestrator.ts";
import type { Execution } from "../execution/execution.ts";
import { openStore } from "../store/store.ts";
import type { Store } from "../store/store.ts";
import { openTerminal } from "../terminal.ts";
import type { Terminal } from "../terminal.ts";

export interface GlobalOptions {
  schema?: string;
  database?: string;
  json?: boolean;
  verbose?: boolean;
}

export function databaseOf(command: Command): string | undefined {
  return command.optsWithGlobals<GlobalOptions>().database ?? (process.env["DATABASE_URL"] || undefined);
}

export function requireDatabase(command: Command): string {
  const url = databaseOf(command);
  if (url === undefined)
    throw new UsageError(
      "no database was given",
      "pass --database <url>, set DATABASE_URL (a file .env is read too), or run `npx flowledger dev` for one",
    );
  return url;
}

export function schemaOf(command: Command): { schema?: string } {
  const schema = command.optsWithGlobals<GlobalOptions>().schema ?? (process.env["FLOWLEDGER_SCHEMA"] || undefined);
  return schema === undefined ? {} : { schema };
}

export function open(command: Command): Orchestrator {
  return createOrchestrator({ connection: requireDatabase(command), ...schemaOf(command) });
}

/** Opens an execution for the time of some work. */
export async function withExecution<T>(
  command: Command,
  id: string,
  work: (execution: Execution) => Promise<T>,
): Promise<T> {
  await using orchestrator = open(command);
  return await work(await orchestrator.getExecution(id));
}

/** For what the public API does not have. */
export async function withStore<T>(command: Command, work: (store: Store) => Promise<T>): Promise<T> {
  const store = openStore(requireDatabase(command), schemaOf(command));
  try {
    await store.requireMigrated();
    return await work(store);
  } finally {
    await store.close();
  }
}

export async function migrateAt(url: string, command: Command): Promise<void> {
  await using orchestrator = createOrchestrator({ connection: url, ...schemaOf(command) });
  await orchestrator.migrate();
}

export function terminalOf(command: Command): Terminal {
  const isJson = command.optsWithGlobals<GlobalOptions>().json ?? false;
  const isColored = process.stdout.isTTY && !isJson && !process.env["NO_COLOR"] && process.env["TERM"] !== "dumb";
  return openTerminal({ isJson, isColored });
}

export function done(command: Command, text: string, value: Readonly<Record<string, unknown>>): void {
  const out = terminalOf(command);
  if (out.isJson) out.json(value);
  else out.line(text);
}

/** Below npm and its kin: how often it looks whether they are still there. */
const parentEveryMs = 500;

/**
 * Runs work that ends on the first SIGINT or SIGTERM; a second one ends the process at once. Started by npx or a script of npm it
 * ends with them, too: a signal ends the shell that they put between, and nobody passes it on.
 *
 * @returns whether a signal came
 */
export async function untilSignal(work: (signal: AbortSignal) => Promise<void>): Promise<boolean> {
  const stop = new AbortController();
  const onSignal = (): void => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
  };
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  const parent = process.ppid;
  const isBelowNpm = process.env["npm_lifecycle_event"] !== undefined;
  const watch = isBelowNpm && liveness.every(parentEveryMs, () => process.ppid !== parent && stop.abort()).unref();
  await work(stop.signal);
  if (watch) watch.cancel();
  return stop.signal.aborted;
}

/** Keeps the process alive until then: an embedded server alone would not. */
export async function aborted(signal: AbortSignal): Promise<void> {
  const { promise, resolve: wake } = Promise.withResolvers<void>();
  const alive = liveness.every(60_000, () => {});
  signal.addEventListener("abort", () => wake());
  if (!signal.aborted) await promise;
  alive.cancel();
}
