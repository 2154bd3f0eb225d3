/** Which executions a command is about: the flags of `list` and of `bulk`. */
import { Option, type Command } from "commander";
import type { ExecutionFilter } from "../execution/list.ts";
import { parseDate, parseObject } from "./parse.ts";

const statuses = ["created", "running", "waiting", "parked", "completed", "failed", "cancelled"] as const;

export interface FilterFlags extends Omit<ExecutionFilter, "flow" | "version"> {
  flow?: string[];
  versionOfFlow?: string;
}

export function withFilters(command: Command): Command {
  return command
    .option("--flow <name...>", "only of these flows")
    .addOption(new Option("--status <status...>", "only in these statuses").choices(statuses))
    .option("--version-of-flow <fingerprint>", "only of this version of the flow, or how its fingerprint begins")
    .option("--created-after <date>", "ISO date or time", parseDate)
    .option("--created-before <date>", "ISO date or time", parseDate)
    .option("--closed-after <date>", "ISO date or time", parseDate)
    .option("--closed-before <date>", "ISO date or time", parseDate)
    .option("--parent <id>", "only those that this execution called")
    .option("--id-prefix <text>", "only those whose id begins like this")
    .option("--idempotency-key <key>", "only with this key")
    .option("--error-like <text>", "only with this in the error's name or message; % is any text")
    .option("--metadata <json>", "only those whose metadata contains this", parseObject)
    .option("--redriven", "only those that go on as another one, by redrive")
    .option("--no-redriven", "only those that do not");
}

export function filterOf({ versionOfFlow, ...filter }: FilterFlags): ExecutionFilter {
  return { ...filter, ...(versionOfFlow !== undefined && { version: versionOfFlow }) };
}
