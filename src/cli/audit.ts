/** Commands that check and keep the database: verify, rebuild, prune, doctor. */
import { Option, type Command } from "commander";
import type { JsonObject } from "../base/json.ts";
import { examine } from "../store/doctor.ts";
import type { Progress } from "../store/rebuild.ts";
import type { Terminal } from "../terminal.ts";
import { done, open, requireDatabase, schemaOf, terminalOf } from "./command.ts";
import { parseDate, parseObject } from "./parse.ts";

interface PruneFlags {
  closedBefore: Date;
  keep?: ("completed" | "failed" | "cancelled")[];
  keepFlow?: string[];
  keepMetadata?: JsonObject;
}

export function addAuditCommands(program: Command): void {
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
