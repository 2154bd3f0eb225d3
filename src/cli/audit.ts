/** Commands that check and keep the database: verify, anchor, rebuild, prune, doctor. */
import { Option, type Command } from "commander";
import { UsageError } from "../base/errors.ts";
import type { JsonObject } from "../base/json.ts";
import { examine } from "../store/doctor.ts";
import type { PruneOptions } from "../execution/retention.ts";
import type { Progress } from "../store/rebuild.ts";
import type { Terminal } from "../terminal.ts";
import { keepAnchor, openAnchors, readAnchors } from "./anchors.ts";
import { done, open, requireDatabase, schemaOf, terminalOf } from "./command.ts";
import { parseDate, parseObject } from "./parse.ts";

interface PruneFlags {
  closedBefore?: Date;
  id?: string[];
  actor?: string;
  reason?: string;
  keep?: ("completed" | "failed" | "cancelled")[];
  keepFlow?: string[];
  keepMetadata?: JsonObject;
}

export function addAuditCommands(program: Command): void {
  program
    .command("verify")
    .description("check every guarantee, and the hash chain; exits with 1 when something is wrong")
    .argument("[id]", "only this execution (default: all)")
    .option("--anchors <file>", "anchors kept by `anchor --file`: each must be there still, with its hash")
    .action(async (id: string | undefined, { anchors }: { anchors?: string }, command: Command) => {
      await using orchestrator = open(command);
      const out = terminalOf(command);
      const kept = anchors === undefined ? [] : await readAnchors(anchors);
      const progress = countingOn(out, "verified");
      const found = await orchestrator.verify({
        ...(id !== undefined && { id }),
        anchors: kept,
        onProgress: progress.show,
      });
      progress.end();
      if (out.isJson) out.json({ ...progress.last(), violations: found });
      for (const { executionId, invariant, detail } of out.isJson ? [] : found)
        out.line(`${executionId}  ${out.paint.red(invariant)}  ${detail}`);
      if (found.length > 0) process.exitCode = 1;
    });

  program
    .command("anchor")
    .description(
      "keep what all hash chains say now, and print one hash over it; needs the schema's owner. Once a day is usual",
    )
    .option("--file <path>", "append the anchor to this file, which is best on another machine")
    .action(async ({ file }: { file?: string }, command: Command) => {
      await using orchestrator = open(command);
      await using kept = file === undefined ? null : await openAnchors(file);
      const anchor = await orchestrator.anchor();
      if (kept) await keepAnchor(kept, anchor);
      const { number, executions, hash, at } = anchor;
      done(command, `anchor ${number}, ${executions} executions: ${hash}`, {
        number,
        at: new Date(at).toISOString(),
        executions,
        hash,
      });
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
      // A ledger that cannot be folded is left as it was.
      if (rows.some(({ table }) => table === "ledger")) process.exitCode = 1;
    });

  program
    .command("prune")
    .description("remove closed executions for good; needs the schema's owner")
    .option("--closed-before <date>", "ISO date or time", parseDate)
    .option("--id <id...>", "these executions, with their sub-flows, instead of old ones")
    .option("--actor <name>", "with --id: who asked for it")
    .option("--reason <text>", "with --id: why")
    .addOption(
      new Option("--keep <status...>", "keep those that ended like this").choices(["completed", "failed", "cancelled"]),
    )
    .option("--keep-flow <name...>", "keep those of this flow")
    .option("--keep-metadata <json>", "keep those whose metadata contains this", parseObject)
    .action(async (options: PruneFlags, command: Command) => {
      await using orchestrator = open(command);
      const pruned = await orchestrator.prune(pruneOf(options));
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

/** By age or by id, not both. */
function pruneOf({ closedBefore, id, actor, reason, keep, keepFlow, keepMetadata }: PruneFlags): PruneOptions {
  if (id !== undefined) {
    if (closedBefore ?? keep ?? keepFlow ?? keepMetadata)
      throw new UsageError("prune takes --id, or --closed-before with what is kept, not both", "run it twice");
    return { ids: id, actor: actor ?? "", reason: reason ?? "" };
  }
  if (closedBefore === undefined)
    throw new UsageError("prune wants to know what goes", "pass --closed-before <date>, or --id <id> --actor --reason");
  return {
    closedBefore,
    keep: { status: keep ?? [], flow: keepFlow ?? [], ...(keepMetadata && { metadata: keepMetadata }) },
  };
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
