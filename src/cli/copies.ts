/** Copies of an execution that go on: here (`fork`), or in another database (`save`, `load`). */
import { readFile, writeFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import type { Command } from "commander";
import { UsageError } from "../base/errors.ts";
import type { Json, JsonObject } from "../base/json.ts";
import { done, terminalOf, withExecution } from "./command.ts";
import { loadOrchestrator } from "./module.ts";
import { parseJson, parseObject, parsePoint } from "./parse.ts";

interface ForkFlags {
  at: number | Date;
  input?: Json;
  metadata?: JsonObject;
  actor: string;
  reason?: string;
}

export function addCopyCommands(program: Command): void {
  program
    .command("fork")
    .description("start a new execution with the past of another one up to a point, and print its id")
    .argument("<id>")
    .requiredOption("--at <point>", "the last event it has: a seq of `history`, or an ISO time", parsePoint)
    .option("--input <json>", "another input; only at execution.started", parseJson)
    .option("--metadata <json>", "other metadata", parseObject)
    .option("--reason <text>", "why, for the ledger")
    .option("--actor <name>", "who does it, for the ledger", "cli")
    .action(async (id: string, options: ForkFlags, command: Command) => {
      const copy = await withExecution(command, id, (execution) => execution.fork(options));
      done(command, copy.id, { id: copy.id, forkedFrom: id });
    });

  program
    .command("save")
    .description(
      `print an execution as JSON, with everything that it needs to go on in another database; ${keyVariable}, where it is set, signs it`,
    )
    .argument("<id>")
    .option("--file <path>", "write it there, and print what was written")
    .action(async (id: string, { file }: { file?: string }, command: Command) => {
      const saved = await withExecution(command, id, (execution) => execution.save(key()));
      if (file === undefined) return terminalOf(command).json(saved);
      await writeSave(file, JSON.stringify(saved));
      const events = saved.events.length;
      done(command, `saved ${events} events of execution ${id} to ${file}`, { id, file, events });
    });

  program
    .command("load")
    .description(
      `start a new execution that continues a saved one, and print its id; with ${keyVariable} only what was signed with it`,
    )
    .argument("<file>", "what `save` printed; - is the standard input")
    .argument("<module>", "as for worker: it has the flow, and the names of the resources")
    .option("--check", "only say whether it could be loaded; exits with 1 when it could not")
    .action(async (file: string, module: string, { check }: { check?: true }, command: Command) => {
      const saved = await readSave(file);
      await using orchestrator = await loadOrchestrator(module, command);
      if (!check) {
        const { id } = await orchestrator.load(saved, key());
        return done(command, id, { id });
      }
      const report = orchestrator.inspectLoad(saved, key());
      done(command, report.isReady ? "it can be loaded" : report.problems.join("\n"), { ...report });
      if (!report.isReady) process.exitCode = 1;
    });
}

/** Not an option: other users of a machine see those. */
const keyVariable = "FLOWLEDGER_SAVE_KEY";

function key(): { key?: string } {
  const given = process.env[keyVariable];
  return given ? { key: given } : {};
}

async function writeSave(file: string, saved: string): Promise<void> {
  try {
    // The file has all data of the execution, so only its owner may read it.
    await writeFile(file, `${saved}\n`, { mode: 0o600 });
  } catch (error) {
    throw new UsageError(
      `${file.slice(0, 200)} cannot be written (${String(error).slice(0, 200)})`,
      "name a file that can, or leave --file out",
    );
  }
}

async function readSave(file: string): Promise<string> {
  if (file === "-") return text(process.stdin);
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw new UsageError(
      `${file.slice(0, 200)} cannot be read (${String(error).slice(0, 200)})`,
      "name a file that `flowledger save` wrote, or - for the standard input",
    );
  }
}
