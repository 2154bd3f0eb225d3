/** Commands of operators: each says who and why. */
import type { Command } from "commander";
import { UsageError, type ParkedChunk } from "../base/errors.ts";
import type { Json, JsonObject } from "../base/json.ts";
import type { RunScheduleOptions } from "../execution/operate.ts";
import { done, open, withExecution } from "./command.ts";
import { parseDate, parseJson, parseObject, parseWhole } from "./parse.ts";

interface OperatorFlags {
  actor: string;
  reason: string;
}

interface ChunkFlags extends OperatorFlags {
  chunk?: string;
  index?: number;
}

interface RedriveFlags extends OperatorFlags {
  fromChunk?: string;
  fromSeq?: number;
  input?: Json;
  output?: Json;
  state?: JsonObject;
}

interface EditFlags extends OperatorFlags {
  set?: JsonObject;
  delete?: string[];
  expectedSeq?: number;
}

export function addOperatorCommands(program: Command): void {
  chunkCommand(program, "retry", "run parked chunks again, their attempts counted from 1")
    .option("--input <json>", "what it gets instead of the input it had", parseJson)
    .action(async (id: string, options: ChunkFlags & { input?: Json }, command: Command) => {
      const retried = await withExecution(command, id, (execution) => execution.retry(options));
      done(command, `retried ${namesOf(retried)}`, { retried });
    });

  chunkCommand(program, "skip", "give the output of a chunk that is parked, backing off or paused, in its place")
    .option("--output <json>", "what it is taken to have returned (default: null)", parseJson)
    .action(async (id: string, options: ChunkFlags & { output?: Json }, command: Command) => {
      const skipped = await withExecution(command, id, (execution) => execution.skip(options));
      done(command, `skipped ${namesOf([skipped])}`, { skipped });
    });

  operatorCommand(program, "redrive", "let a closed execution go on as a new one, from where it failed")
    .option("--from-chunk <name>", "before the last run of that chunk (default: at the failure)")
    .option("--from-seq <number>", "behind that event", parseWhole)
    .option("--input <json>", "what the chunk that failed gets instead of the input it had", parseJson)
    .option("--output <json>", "skip the chunk that failed: what it is taken to have returned", parseJson)
    .option("--state <json>", "application state to set, by path", parseObject)
    .action(async (id: string, { fromChunk, fromSeq, ...options }: RedriveFlags, command: Command) => {
      if (fromChunk !== undefined && fromSeq !== undefined)
        throw new UsageError("--from-chunk and --from-seq are two places to go on from", "pass one of them");
      const from = fromChunk === undefined ? fromSeq : { chunk: fromChunk };
      const next = await withExecution(command, id, (execution) =>
        execution.redrive({ ...options, ...(from !== undefined && { from }) }),
      );
      done(command, `redriven as ${next.id}`, { redriven: next.id });
    });

  operatorCommand(program, "edit-state", "edit the application state; nothing hears of it")
    .option("--set <json>", "new values by path, e.g. '{\"order.total\": 42}'", parseObject)
    .option("--delete <paths...>", "paths to delete")
    .option("--expected-seq <number>", "refuse where the ledger has gone on since", parseWhole)
    .action(async (id: string, { set, delete: paths, ...options }: EditFlags, command: Command) => {
      const edit = { ...(set && { set }), ...(paths && { delete: paths }) };
      const edited = await withExecution(command, id, (execution) => execution.editState(edit, options));
      done(command, `edited ${edited.changes.map(({ path }) => path).join(", ") || "nothing"}`, { ...edited });
    });

  operatorCommand(program, "pause", "start no chunk any more; what runs reaches its end, and what comes in is kept")
    .option("--until <date>", "it goes on by itself then", parseDate)
    .action(async (id: string, options: OperatorFlags & { until?: Date }, command: Command) => {
      await withExecution(command, id, (execution) => execution.pause(options));
      done(command, "paused", { paused: true });
    });

  flowCommand(program, "pause-flow", "start no chunk of any execution of a flow any more; what runs reaches its end")
    .option("--refuse", "refuse starts meanwhile (default: they are accepted and wait)")
    .action(async (flow: string, { refuse, ...options }: OperatorFlags & { refuse?: true }, command: Command) => {
      await using orchestrator = open(command);
      const paused = await orchestrator.pauseFlow(flow, { ...options, intake: refuse ? "refuse" : "hold" });
      done(command, paused ? "paused" : "it is paused that way already", { paused: true, changed: paused });
    });

  flowCommand(program, "unpause-flow", "let a paused flow go on, with all that waited").action(
    async (flow: string, options: OperatorFlags, command: Command) => {
      await using orchestrator = open(command);
      const unpaused = await orchestrator.unpauseFlow(flow, options);
      done(command, unpaused ? "goes on" : "it is not paused", { paused: false, changed: unpaused });
    },
  );

  program
    .command("run-schedule")
    .description("start an execution of a schedule now, beside its times")
    .argument("<name>")
    .option("--reason <text>", "why, for the ledger")
    .option("--actor <name>", "who does it, for the ledger", "cli")
    .action(async (name: string, options: RunScheduleOptions, command: Command) => {
      await using orchestrator = open(command);
      const { id } = await orchestrator.runSchedule(name, options);
      done(command, `started ${id}`, { id });
    });

  operatorCommand(program, "unpause", "go on with what was paused").action(
    async (id: string, options: OperatorFlags, command: Command) => {
      await withExecution(command, id, (execution) => execution.unpause(options));
      done(command, "goes on", { paused: false });
    },
  );
}

function operatorCommand(program: Command, name: string, description: string): Command {
  return withReason(program.command(name).description(description).argument("<id>"));
}

function flowCommand(program: Command, name: string, description: string): Command {
  return withReason(program.command(name).description(description).argument("<flow>"));
}

function withReason(command: Command): Command {
  return command
    .requiredOption("--reason <text>", "why, for the ledger")
    .option("--actor <name>", "who does it, for the ledger", "cli");
}

function chunkCommand(program: Command, name: string, description: string): Command {
  return operatorCommand(program, name, description)
    .option("--chunk <name>", "which chunk (default: whatever there is)")
    .option("--index <number>", "which item or branch of its collection, from 0", parseWhole);
}

function namesOf(chunks: readonly ParkedChunk[]): string {
  return chunks.map(({ chunk, index }) => (index === null ? `"${chunk}"` : `"${chunk}" ${index}`)).join(", ");
}
