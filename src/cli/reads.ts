/** Commands that read: lists, one execution, its ledger, its stream. */
import { Option, type Command } from "commander";
import { PermissionError, UsageError, type SerializedError } from "../base/errors.ts";
import { nearest } from "../base/option.ts";
import { indented } from "../base/visible.ts";
import { requireExecutionId } from "../execution/ids.ts";
import type { HistoryEntry } from "../execution/command-options.ts";
import type { InterruptRecord } from "../execution/interrupt.ts";
import { LedgerEvent } from "../ledger/event.ts";
import type { LedgerEventType } from "../ledger/event.ts";
import { Explanation } from "../ledger/explanation.ts";
import type { TimelineRow } from "../ledger/timeline.ts";
import type { InboxOptions } from "../execution/inbox.ts";
import type { ExecutionSummary, FailureOptions, ListOptions } from "../execution/list.ts";
import { ageOf, fit, lengthOf, paintStatus, printFields, printTable, type Terminal } from "../terminal.ts";
import { done, open, terminalOf, untilSignal, withExecution, withStore } from "./command.ts";
import { filterOf, withFilters, type FilterFlags } from "./filters.ts";
import { parseDate, parseLimit, parseObject, parsePlace, parseWhole } from "./parse.ts";

const eventTypes = LedgerEvent.options.map(({ shape }) => shape.type.value);

interface ListFlags extends FilterFlags, Pick<ListOptions, "order" | "cursor"> {
  limit: number;
  count?: number | true;
}

export function addReadCommands(program: Command): void {
  withFilters(program.command("list").description("list executions, newest first"))
    .addOption(
      new Option("--order <order>", "what comes first (default: newest)").choices(["newest", "oldest", "lastClosed"]),
    )
    .option("--count [up-to]", "only say how many there are, counted up to so many (default: 1000)", parseWhole)
    .option("--limit <number>", "how many, up to 1000", parseLimit, 20)
    .option("--cursor <place>", "go on after the page before: nextCursor of --json, or its last id")
    .action(async (flags: ListFlags, command: Command) => {
      await using orchestrator = open(command);
      const { count, limit, cursor, order, ...filter } = flags;
      const options = filterOf(filter);
      if (count !== undefined) {
        const counted = await orchestrator.countExecutions({ ...options, ...(count !== true && { upTo: count }) });
        return done(command, `${counted.isMore ? "more than " : ""}${counted.count}`, counted);
      }
      const page = await orchestrator.listExecutions({
        ...options,
        limit,
        ...(cursor !== undefined && { cursor }),
        ...(order !== undefined && { order }),
      });
      if (page.executions.length === 0) await requireFlows(command, flags.flow);
      const out = terminalOf(command);
      if (out.isJson) out.json(page);
      else printList(out, page.executions, page.nextCursor);
    });

  program
    .command("failures")
    .description(
      "list what failed, grouped by flow, chunk and error without its digits and ids, the largest group first",
    )
    .option("--flow <name...>", "only of these flows")
    .option("--last-after <date>", "only what has failed since: ISO date or time", parseDate)
    .option("--limit <number>", "how many, up to 1000", parseLimit, 20)
    .action(async (options: FailureOptions, command: Command) => {
      await using orchestrator = open(command);
      const groups = await orchestrator.failures(options);
      if (groups.length === 0) await requireFlows(command, options.flow);
      const out = terminalOf(command);
      if (out.isJson) return out.json(groups);
      const rows = groups.map(({ executions, flow, chunk, error, lastAt, lastId }) => [
        String(executions),
        flow,
        chunk ?? "-",
        out.isInteractive ? ageOf(lastAt) : lastAt.toISOString(),
        lastId,
        fit(error, 120),
      ]);
      printTable(out, ["failed", "flow", "chunk", "last", "last execution", "error"], rows);
    });

  program
    .command("inbox")
    .description("list what waits for an answer of a person: overdue first, then what is due next, then the oldest")
    .option("--for <principal...>", "only what asks one of these, e.g. user:ann group:finance")
    .option("--overdue", "only what is overdue")
    .option("--snoozed", "include snoozed questions")
    .option("--flow <name>", "only of this flow")
    .option("--type <type>", "only of this type")
    .option("--metadata <json>", "only of executions whose metadata contain this", parseObject)
    .option("--limit <number>", "how many, up to 1000", parseLimit, 20)
    .option("--cursor <cursor>", "go on after the page before")
    .action(async (options: InboxOptions, command: Command) => {
      await using orchestrator = open(command);
      const page = await orchestrator.inbox(options);
      if (page.interrupts.length === 0) await requireFlows(command, options.flow);
      const out = terminalOf(command);
      if (out.isJson) return out.json(page);
      const isHandled = page.interrupts.some(({ dueAt, assignees, claimedBy }) => dueAt ?? assignees ?? claimedBy);
      const rows = page.interrupts.map((interrupt) => [
        interrupt.executionId,
        interrupt.id,
        interrupt.flow,
        interrupt.type,
        ageOf(interrupt.createdAt),
        ...(isHandled ? handlingOf(interrupt) : []),
        interrupt.title ?? JSON.stringify(interrupt.payload),
      ]);
      const heads = ["execution", "interrupt", "flow", "type", "waits", ...(isHandled ? handlingHeads : []), "asks"];
      printTable(out, heads, rows);
      sayMore(out, page.nextCursor);
      if (rows.length > 0 && out.isInteractive)
        out.line(out.paint.dim("answer: flowledger resume <execution> <interrupt> '<json>'"));
    });

  program
    .command("show")
    .description("show an execution: why it is where it is, its meta, state and last ledger events")
    .argument("<id>")
    .option("--events <number>", "how many ledger events", parseWhole, 15)
    .action(async (id: string, options: { events: number }, command: Command) => {
      await using orchestrator = open(command);
      const execution = await orchestrator.getExecution(id);
      const [explanation, meta, state, events, interrupts] = await Promise.all([
        execution.explain(),
        execution.result.getMeta(),
        execution.result.getState(),
        execution.history(),
        execution.getPendingInterrupts(),
      ]);
      const error = meta.status === "failed" ? errorIn(events) : null;
      const last = options.events === 0 ? [] : events.slice(-options.events);
      const out = terminalOf(command);
      if (out.isJson) return out.json({ explanation, meta, state, error, interrupts, events: last });
      out.line(`${explanation.sentence}\n`);
      printFields(out, "meta", { ...meta, closeReason: inWords(meta.closeReason) });
      if (error) {
        out.line(`\n${out.paint.bold(out.paint.red("error"))} ${indented(`${error.name}: ${error.message}`)}`);
        if (error.chunk !== undefined) out.line(`in chunk "${error.chunk}", attempt ${error.attempt ?? 1}`);
      }
      for (const interrupt of interrupts) printInterrupt(out, id, interrupt);
      out.line(`\n${out.paint.bold(meta.lifecycleState === "closed" ? "close snapshot" : "state")}`);
      out.line(JSON.stringify(state, null, 2));
      out.line(`\n${out.paint.bold("ledger")} (last ${last.length} of ${events.length} events)`);
      printTable(out, ["seq", "at", "type", "chunk"], last.map(eventRow));
    });

  program
    .command("explain")
    .description("say in one sentence why an execution is where it is: what it waits for, who has it, how it ended")
    .argument("<id>")
    .action(async (id: string, _: object, command: Command) => {
      // By the store: an auditor may ask this without the right to read headers.
      const explanation = await withStore(command, ({ reads }) => reads.explain(requireExecutionId(id)));
      const { sentence } = Explanation.parse(explanation);
      const out = terminalOf(command);
      if (out.isJson) out.json(explanation);
      else out.line(sentence);
    });

  program
    .command("timeline")
    .description("print what an execution did: a line for each run of a chunk, step, pause, sleep and child")
    .argument("<id>")
    .option("--limit <number>", "how many, up to 1000", parseLimit, 100)
    .option("--cursor <cursor>", "go on after the page before")
    .action(async (id: string, options: { limit: number; cursor?: string }, command: Command) =>
      withExecution(command, id, async (execution) => {
        const page = await execution.timeline(options);
        const out = terminalOf(command);
        if (out.isJson) return out.json(page);
        const rows = page.rows.map((row) => [
          row.kind,
          subjectOf(row),
          paintStatus(out, row.status),
          ...(out.isInteractive ? lengthsOf(row) : timesOf(row)),
          "attempts" in row ? String(row.attempts.length) : "-",
        ]);
        const times = out.isInteractive ? ["began", "waited", "took"] : ["queued", "started", "ended"];
        printTable(out, ["what", "which", "status", ...times, "attempts"], rows);
        sayMore(out, page.nextCursor);
      }),
    );

  program
    .command("history")
    .description("print the ledger of an execution, in order")
    .argument("<id>")
    .option("--from <seq>", "only events after this one", parseWhole, 0)
    .addOption(new Option("--type <type...>", "only events of these types").choices(eventTypes))
    .action(async (id: string, { from, type }: { from: number; type?: LedgerEventType[] }, command: Command) =>
      withExecution(command, id, async (execution) => {
        const events = await execution.history({ from, ...(type && { types: type }) });
        const out = terminalOf(command);
        if (out.isJson) for (const event of events) out.json(event);
        else
          printTable(
            out,
            ["seq", "at", "type", "chunk", "what"],
            events.map((event) => [...eventRow(event), whatOf(event)]),
          );
      }),
    );

  program
    .command("tail")
    .description(
      "follow the stream of an execution until it ends; exits with 1 when the execution failed or was cancelled",
    )
    .argument("<id>")
    .option("--from <cursor>", "begin after this item", parsePlace, "0")
    .action(async (id: string, { from }: { from: string }, command: Command) =>
      withExecution(command, id, async (execution) => {
        const out = terminalOf(command);
        const isStopped = await untilSignal(async (signal) => {
          for await (const { item, cursor } of execution.streamItems({ timeout: null, from, signal })) {
            from = cursor;
            if (out.isJson || typeof item !== "string") out.json(item);
            else out.line(item);
          }
        });
        if (isStopped) {
          console.error(`go on with: flowledger tail ${id} --from ${from}`);
          process.exitCode = 130;
          return;
        }
        // For an execution that did not complete this throws the reason.
        const { lifecycleState } = await execution.result.getMeta();
        if (lifecycleState === "closed") await execution.waitForClose();
      }),
    );
}

/**
 * Asked where nothing was found.
 *
 * @throws {UsageError} a name is like that of a flow that has run here, and not the same
 */
async function requireFlows(command: Command, flows: string | readonly string[] = []): Promise<void> {
  if (flows.length === 0) return;
  const known = await withStore(command, (store) => store.reads.knownFlows()).catch(nothingWithoutRights);
  for (const flow of [flows].flat()) {
    const meant = known.includes(flow) ? undefined : nearest(flow, known);
    if (meant !== undefined) throw new UsageError(`no flow is named "${flow}" here`, `did you mean "${meant}"?`);
  }
}

const handlingHeads = ["due", "for", "claimed"];

function handlingOf({ dueAt, assignees, claimedBy }: InterruptRecord): string[] {
  return [dueAt?.toISOString() ?? "-", assignees?.join(", ") ?? "-", claimedBy ?? "-"];
}

function timesOf({ queuedAt, startedAt, endedAt }: TimelineRow): string[] {
  return [queuedAt, startedAt, endedAt].map((at) => at?.toISOString() ?? "-");
}

/** How long ago it began, how long it had waited before, and how long it took. */
function lengthsOf({ queuedAt, startedAt, endedAt }: TimelineRow): string[] {
  if (!startedAt) return ["-", queuedAt ? lengthOf(queuedAt, endedAt) : "-", "-"];
  return [ageOf(startedAt), queuedAt ? lengthOf(queuedAt, startedAt) : "-", lengthOf(startedAt, endedAt)];
}

/** What a row of the timeline is about. */
function subjectOf(row: TimelineRow): string {
  switch (row.kind) {
    case "chunk":
    case "sleep":
      return row.chunk;
    case "step":
      return `${row.chunk}: ${row.step}`;
    case "wait":
      return [
        `${row.chunk}: ${row.interruptId}`,
        ...(row.assignees === null ? [] : [`for ${row.assignees.join(", ")}`]),
        ...(row.dueAt === null ? [] : [`due ${row.dueAt.toISOString()}`]),
      ].join(", ");
    case "child":
      return `${row.flow} ${row.executionId}`;
    case "items":
      return `${row.size} items`;
  }
}

/** A role that reads less is told less. */
function nothingWithoutRights(error: unknown): string[] {
  if (error instanceof PermissionError) return [];
  throw error;
}

function printList(out: Terminal, executions: readonly ExecutionSummary[], nextCursor: string | null): void {
  if (out.isInteractive) {
    const rows = executions.map(({ id, flow, status, createdAt, startedAt, closedAt, closeReason }) => [
      id,
      flow,
      paintStatus(out, status),
      ageOf(createdAt),
      startedAt ? lengthOf(startedAt, closedAt) : "-",
      // The status says the reason already.
      (status === "completed" || status === closeReason ? null : closeReason) ?? "",
    ]);
    printTable(out, ["id", "flow", "status", "age", "took", "reason"], rows);
  } else {
    const rows = executions.map(({ id, flow, status, createdAt, closedAt, closeReason }) => [
      id,
      flow,
      status,
      createdAt.toISOString(),
      closedAt?.toISOString() ?? "-",
      inWords(closeReason) ?? "-",
    ]);
    printTable(out, ["id", "flow", "status", "created", "closed", "reason"], rows);
  }
  sayMore(out, nextCursor);
}

function sayMore(out: Terminal, nextCursor: string | null): void {
  if (nextCursor !== null && out.isInteractive) out.line(out.paint.dim(`more: --cursor "${nextCursor}"`));
}

function printInterrupt(out: Terminal, execution: string, interrupt: InterruptRecord): void {
  out.line(`\n${out.paint.bold("interrupt")} ${interrupt.id}`);
  out.line(`asks     ${JSON.stringify(interrupt.payload)}`);
  if (interrupt.response !== null) out.line(`answer   must be ${JSON.stringify(interrupt.response)}`);
  if (interrupt.title !== null) out.line(`title    ${indented(interrupt.title)}`);
  if (interrupt.assignees !== null) out.line(`for      ${indented(interrupt.assignees.join(", "))}`);
  if (interrupt.dueAt !== null) out.line(`due      ${interrupt.dueAt.toISOString()}`);
  if (interrupt.claimedBy !== null) out.line(`claimed  by ${indented(interrupt.claimedBy)}`);
  out.line(`since    ${interrupt.createdAt.toISOString()}, ${ageOf(interrupt.createdAt)}`);
  out.line(`command  flowledger resume ${execution} ${shellQuoted(interrupt.id)} '<json>'`);
}

function shellQuoted(text: string): string {
  return /^[\w.:/@-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Close reasons of the library's own, for people. */
const reasons: Readonly<Record<string, string>> = {
  auto_close_idle_timeout: "all work was done",
  sub_flow_completed: "all work was done",
  manual: "closed by hand",
};

function inWords(reason: string | null): string | null {
  return reason === null ? null : (reasons[reason] ?? reason);
}

function eventRow(event: HistoryEntry): string[] {
  const chunk = "chunk" in event && typeof event.chunk === "string" ? event.chunk : "";
  return [String(event.seq), event.at.toISOString(), event.type, chunk];
}

/** All of an event that its row does not have. */
function whatOf({ seq: _seq, at: _at, epoch: _epoch, type: _type, ...rest }: HistoryEntry): string {
  const what: Record<string, unknown> = { ...rest };
  delete what["chunk"];
  return Object.keys(what).length === 0 ? "" : fit(JSON.stringify(what), 200);
}

function errorIn(events: readonly HistoryEntry[]): SerializedError | null {
  for (const event of events.toReversed())
    if (event.type === "chunk.failed" || event.type === "chunk.parked" || event.type === "execution.failed")
      return event.error;
  return null;
}
