/** Commands about the fleet: which workers there are, and what starts by the clock. */
import type { Command } from "commander";
import { readableTimesOf } from "../base/cron.ts";
import { reservedPrefix } from "../flow/names.ts";
import { ageOf, lengthOf, printTable } from "../terminal.ts";
import { terminalOf, withStore } from "./command.ts";
import { parseLimit } from "./parse.ts";

/** A worker that was silent for longer is given up by the others. */
const silentMs = 15_000;

export function addFleetCommands(program: Command): void {
  program
    .command("workers")
    .description("list the processes that serve flows, the newest first")
    .option("--limit <number>", "how many, up to 1000", parseLimit, 100)
    .action(async ({ limit }: { limit: number }, command: Command) => {
      const found = await withStore(command, (store) => store.console.workers(limit));
      const workers = found.map((worker) => ({ ...worker, isAlive: worker.silentMs < silentMs }));
      const out = terminalOf(command);
      if (out.isJson) return out.json(workers);
      const rows = workers.map(({ id, host, pid, isAlive, startedAt, heartbeatAt, slots, flows, versions }) => [
        id,
        isAlive ? out.paint.green("alive") : out.paint.red("silent"),
        out.isInteractive ? lengthOf(startedAt, null) : startedAt.toISOString(),
        out.isInteractive ? ageOf(heartbeatAt) : heartbeatAt.toISOString(),
        host,
        String(pid),
        slots === null ? "-" : String(slots),
        flows
          .filter((flow) => !flow.startsWith(reservedPrefix))
          .toSorted()
          .map((flow) => [flow, ...(versions[flow] ? [versions[flow].slice(0, 12)] : [])].join(" "))
          .join(", "),
      ]);
      const heads = [
        "id",
        "status",
        out.isInteractive ? "up" : "started",
        "heartbeat",
        "host",
        "pid",
        "slots",
        "flows and versions",
      ];
      printTable(out, heads, rows);
    });

  program
    .command("schedules")
    .description("list what starts by the clock: when it is due next, and what it started last")
    .option("--limit <number>", "how many, up to 1000", parseLimit, 100)
    .action(async ({ limit }: { limit: number }, command: Command) => {
      const found = await withStore(command, (store) => store.console.schedules(limit));
      const schedules = found.map((schedule) => ({ ...schedule, nextAt: nextOf(schedule) }));
      const out = terminalOf(command);
      if (out.isJson) return out.json(schedules);
      const rows = schedules.map(({ name, flow, cron, timeZone, nextAt, now, waiting, lastId, removedAt }) => [
        name,
        flow,
        cron,
        timeZone,
        nextText(nextAt, now, removedAt, out.isInteractive),
        String(waiting),
        lastId ?? "-",
      ]);
      printTable(out, ["name", "flow", "cron", "zone", "next", "queued", "last execution"], rows);
    });
}

/** Null where no time is left, and where another version of this library wrote what this one cannot read. */
function nextOf({ cron, timeZone, now }: { cron: string; timeZone: string; now: Date }): Date | null {
  return readableTimesOf(cron, timeZone)?.after(now) ?? null;
}

function nextText(nextAt: Date | null, now: Date, removedAt: Date | null, isShort: boolean): string {
  if (removedAt) return "no worker has it";
  if (!nextAt) return "-";
  return isShort ? `in ${lengthOf(now, nextAt)}` : nextAt.toISOString();
}
