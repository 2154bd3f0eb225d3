/** The same for many executions at once, and how far that is. */
import { Argument, type Command } from "commander";
import type { Bulk } from "../execution/bulk.ts";
import type { BulkReport } from "../store/bulks.ts";
import type { Duration } from "../base/duration.ts";
import { UsageError } from "../base/errors.ts";
import type { JsonObject } from "../base/json.ts";
import { done, open, terminalOf } from "./command.ts";
import { filterOf, withFilters, type FilterFlags } from "./filters.ts";
import { parseCount, parseLimit, parseObject } from "./parse.ts";

interface BulkFlags extends FilterFlags {
  options?: JsonObject;
  rate?: { limit: number; per: Duration };
  limit?: number;
  dryRun?: true;
  wait?: true;
  actor: string;
  reason: string;
}

const actions = ["redrive", "retry", "skip", "cancel", "pause", "unpause"] as const;

export function addBulkCommands(program: Command): void {
  withFilters(
    program
      .command("bulk")
      .description("do the same to many executions; a worker does it, over crashes, until it is through or cancelled")
      .addArgument(new Argument("<action>").choices(actions)),
  )
    .option("--options <json>", 'what each command takes, e.g. \'{"chunk": "charge"}\'', parseObject)
    .option("--rate <limit/time>", "so many commands in a time at most, e.g. 50/1s", parseRate)
    .option("--limit <number>", "refuse where more executions match (default: 10000)", parseCount)
    .option("--dry-run", "only say what would be done")
    .option("--wait", "wait until it is through")
    .requiredOption("--reason <text>", "why, for the ledger")
    .option("--actor <name>", "who does it, for the ledger", "cli")
    .action(async (action: (typeof actions)[number], flags: BulkFlags, command: Command) => {
      const { options, rate, limit, dryRun, wait, actor, reason, ...filter } = flags;
      await using orchestrator = open(command);
      const asked = {
        action,
        where: filterOf(filter),
        actor,
        reason,
        ...(options && { options }),
        ...(rate && { rate }),
        ...(limit !== undefined && { limit }),
      };
      if (dryRun) {
        const preview = await orchestrator.bulk({ ...asked, dryRun });
        const text = `${preview.isMore ? "more than " : ""}${preview.matched} executions match`;
        const rows = preview.samples.map(({ id, flow, status }) => `${id} ${flow} ${status}`);
        return done(command, [text, ...rows].join("\n"), { ...preview });
      }
      const bulk = await orchestrator.bulk(asked);
      const report = wait ? await bulk.wait() : await bulk.report();
      done(command, `bulk ${bulk.id}: ${inWords(report)}`, { id: bulk.id, ...report });
    });

  program
    .command("bulk-report")
    .description("say how far a bulk is, and what failed of it")
    .argument("<id>")
    .option("--limit <number>", "how many failures, up to 1000", parseLimit, 20)
    .option("--cursor <place>", "go on after the page before")
    .action(async (id: string, options: { limit: number; cursor?: string }, command: Command) => {
      await using orchestrator = open(command);
      const bulk = await orchestrator.getBulk(id);
      await printReport(bulk, options, command);
    });
}

async function printReport(bulk: Bulk, options: { limit: number; cursor?: string }, command: Command): Promise<void> {
  const [report, page] = await Promise.all([bulk.report(), bulk.failures(options)]);
  const out = terminalOf(command);
  if (out.isJson) return out.json({ ...report, ...page });
  out.line(inWords(report));
  for (const { id, code, message } of page.failures) out.line(`${id} ${code} ${message}`);
  if (page.nextCursor !== null) out.line(`more: --cursor ${page.nextCursor}`);
}

function inWords({ matched, done: accepted, skipped, failed }: BulkReport): string {
  return `${matched} matched, ${accepted} done, ${skipped} skipped, ${failed} failed`;
}

function parseRate(text: string): { limit: number; per: string } {
  const [limit = "", per = "", ...more] = text.split("/");
  if (more.length === 0 && /^[1-9]\d{0,6}$/.test(limit) && per !== "") return { limit: Number(limit), per };
  throw new UsageError(`--rate ${JSON.stringify(text)} is no rate`, "write so many in a time, like 50/1s");
}
