/** Commands of the people who are asked: who has a question, who gets it, and when. */
import type { Command } from "commander";
import type { Json } from "../base/json.ts";
import type { InterruptRecord } from "../execution/interrupt.ts";
import { done, open, withExecution } from "./command.ts";
import { parseDate, parseJson } from "./parse.ts";

interface ActorFlags {
  actor: string;
}

export function addInboxCommands(program: Command): void {
  questionCommand(program, "claim", "take a question on, so that others see who has it")
    .option("--exclusive", "nobody else may answer it")
    .action(async (id: string, interrupt: string, options: ActorFlags & { exclusive?: boolean }, command: Command) => {
      const record = await withExecution(command, id, (execution) => execution.claim(interrupt, options));
      done(command, `claimed "${record.id}" as ${record.claimedBy}`, { ...record });
    });

  questionCommand(program, "release", "give a question back that one has claimed").action(
    async (id: string, interrupt: string, options: ActorFlags, command: Command) => {
      const record = await withExecution(command, id, (execution) => execution.release(interrupt, options));
      done(command, `released "${record.id}"`, { ...record });
    },
  );

  questionCommand(program, "delegate", "reassign a question, in the place of all it asked so far")
    .requiredOption("--to <principal>", "whom it asks from now on, e.g. user:bo")
    .option("--reason <text>", "kept in the ledger")
    .action(
      async (
        id: string,
        interrupt: string,
        options: ActorFlags & { to: string; reason?: string },
        command: Command,
      ) => {
        const record = await withExecution(command, id, (execution) => execution.delegate(interrupt, options));
        done(command, `"${record.id}" asks ${options.to}`, { ...record });
      },
    );

  questionCommand(program, "snooze", "take a question out of the inbox until a moment")
    .requiredOption("--until <date>", "when the inbox shows it again: ISO date or time", parseDate)
    .action(async (id: string, interrupt: string, options: ActorFlags & { until: Date }, command: Command) => {
      const record: InterruptRecord = await withExecution(command, id, (execution) =>
        execution.snooze(interrupt, options),
      );
      done(command, `put off "${record.id}" until ${options.until.toISOString()}`, { ...record });
    });

  program
    .command("answer")
    .description("answer by the token of a link")
    .argument("<token>", 'what follows "/a/" in the link')
    .argument("[json]", "the answer (default: null)", parseJson, null)
    .option("--actor <name>", "who answers, for the ledger (default: link)")
    .action(async (token: string, answer: Json, options: Partial<ActorFlags>, command: Command) => {
      await using orchestrator = open(command);
      const record = await orchestrator.answerByToken(token, answer, options);
      done(command, `resumed "${record.id}"`, { ...record });
    });
}

function questionCommand(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .argument("<id>")
    .argument("<interrupt>")
    .option("--actor <name>", "who does it, for the ledger", "cli");
}
