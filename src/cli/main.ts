/** The commands: each is parse → one call → print. */
import { statSync } from "node:fs";
import { loadEnvFile } from "node:process";
import { Command, CommanderError } from "commander";
import { UsageError } from "../base/errors.ts";
import { nearest } from "../base/option.ts";
import { release } from "../base/release.ts";
import { indented, visible } from "../base/visible.ts";
import type { GlobalOptions } from "./command.ts";
import { addAuditCommands } from "./audit.ts";
import { addBulkCommands } from "./bulk.ts";
import { addCopyCommands } from "./copies.ts";
import { addExecutionCommands } from "./executions.ts";
import { addFleetCommands } from "./fleet.ts";
import { addMcpCommand } from "./mcp.ts";
import { addInboxCommands } from "./inbox.ts";
import { addOperatorCommands } from "./operators.ts";
import { addReadCommands } from "./reads.ts";
import { addRunCommands } from "./run.ts";
import { isUsage, jsonOf, sentenceOf } from "./sentences.ts";

export async function main(): Promise<void> {
  const program = newProgram();
  // A reader that stops early (`| head`) is no failure.
  process.stdout.on("error", () => process.exit(0));
  process.removeAllListeners("warning");
  process.on("warning", (warning) => process.stderr.write(`warning: ${indented(warning.message)}\n`));
  try {
    // Variables of the shell outweigh the file. A folder of that name belongs to other tools.
    if (statSync(".env", { throwIfNoEntry: false })?.isDirectory() === false) loadEnvFile(".env");
    await program.parseAsync();
  } catch (error) {
    process.exitCode = report(error, program);
  }
}

/** Every command, with what it takes. */
export function newProgram(): Command {
  const program = new Command("flowledger")
    .description("Durable execution for TypeScript on the Postgres you already have.")
    .version(release, "-v, --version", "print the version")
    .option("--database <url>", "connection string (default: DATABASE_URL, also from .env)")
    .option("--schema <name>", "schema that flowledger was migrated into (default: FLOWLEDGER_SCHEMA, or flowledger)")
    .option("--json", "print JSON: one document, or one line per stream item; errors too, on stderr")
    .option("--verbose", "print the stack of an error")
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    // `report` writes errors, in the form that was asked for.
    .configureOutput({ outputError: () => {}, writeErr: () => {} })
    .showSuggestionAfterError(true);
  addRunCommands(program);
  addReadCommands(program);
  addFleetCommands(program);
  addExecutionCommands(program);
  addInboxCommands(program);
  addCopyCommands(program);
  addOperatorCommands(program);
  addMcpCommand(program);
  addBulkCommands(program);
  addAuditCommands(program);
  return program;
}

/** Prints what went wrong; gives the exit code: 2 for a command line that is invalid, else 1. */
function report(error: unknown, program: Command): number {
  if (error instanceof CommanderError && error.exitCode === 0) return 0;
  const { json = process.argv.includes("--json"), verbose = false } = program.opts<GlobalOptions>();
  if (error instanceof CommanderError && error.code === "commander.help") {
    const [, command] = program.args;
    if (json || command !== undefined) return report(noCommand(command, program), program);
    process.stderr.write(program.helpInformation());
    return 2;
  }
  process.stderr.write(
    json ? `${visible(JSON.stringify(jsonOf(error)))}\n` : `error: ${indented(sentenceOf(error))}\n`,
  );
  if (verbose && error instanceof Error) process.stderr.write(`${visible(error.stack ?? "")}\n`);
  return isUsage(error) ? 2 : 1;
}

/** None was given, or `help` was asked for one that there is not. */
function noCommand(name: string | undefined, program: Command): UsageError {
  if (name === undefined) return new UsageError("no command was given", "see --help");
  const meant = nearest(
    name,
    program.commands.map((command) => command.name()),
  );
  return new UsageError(
    `unknown command '${name}'${meant === undefined ? "" : ` (Did you mean ${meant}?)`}`,
    "see --help",
  );
}
