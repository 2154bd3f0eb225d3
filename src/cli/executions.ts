/** Commands to executions: start, answer, correct, end. */
import type { Command } from "commander";
import { PermissionError } from "../base/errors.ts";
import type { Json, JsonObject } from "../base/json.ts";
import { requireKnown } from "../base/option.ts";
import { done, open, terminalOf, withStore } from "./command.ts";
import { parseJson, parseObject } from "./parse.ts";

/** Of `flowledger.start()`. */
export const startOptions = [
  "id",
  "idempotencyKey",
  "metadata",
  "priority",
  "startAt",
  "delay",
  "discardAfter",
  "autoClose",
  "autoCloseTimeout",
  "concurrency",
  "interventionMode",
  "timeout",
  "limitKey",
  "traceparent",
  "allowUnknown",
  "hidden",
];

interface StartFlags {
  options: JsonObject;
  force?: boolean;
}

interface ResumeFlags {
  requestId?: string;
  early?: boolean;
  actor: string;
}

interface WithdrawFlags {
  reason?: string;
  actor: string;
}

interface InterveneFlags {
  target?: string;
  author: string;
  note?: string;
}

interface CloseFlags {
  timeout?: string;
  reason?: string;
  cancelInterrupts?: boolean;
  failParked?: boolean;
}

export function addExecutionCommands(program: Command): void {
  program
    .command("start")
    .description("start an execution through the SQL function, and print its id")
    .argument("<flow>")
    .argument("<json>", "the input", parseJson)
    .option("--options <json>", "options of flowledger.start(), e.g. '{\"metadata\": {}}'", parseObject, {})
    .option("--force", "also a flow that no worker has ever served here")
    .action(async (flow: string, input: Json, { options, force = false }: StartFlags, command: Command) => {
      requireKnown(options, startOptions, "a start");
      const id = await withStore(command, async ({ starts }) => {
        if (!force && options["allowUnknown"] !== true) await starts.requireServed(flow).catch(unlessItMayNotAsk);
        return starts.startRaw(flow, input, force ? { ...options, allowUnknown: true } : options);
      });
      done(command, id, { id });
    });

  program
    .command("emit")
    .description("send an event to an execution")
    .argument("<id>")
    .argument("<event>")
    .argument("[json]", "the payload (default: null)", parseJson, null)
    .option("--idempotency-key <key>", "sending a key again changes nothing")
    .action(
      async (id: string, event: string, payload: Json, options: { idempotencyKey?: string }, command: Command) => {
        await using orchestrator = open(command);
        await (await orchestrator.getExecution(id)).emit(event, payload, { ...options, actor: "cli" });
        done(command, `accepted "${event}"`, { accepted: event });
      },
    );

  program
    .command("resume")
    .description("answer an interrupt")
    .argument("<id>")
    .argument("<interrupt>")
    .argument("[json]", "the answer (default: null)", parseJson, null)
    .option("--request-id <id>", "answering again with the same id changes nothing")
    .option("--early", "keep an answer to an interrupt that is not raised yet, instead of refusing it")
    .option("--actor <name>", "who answers", "cli")
    .action(async (id: string, interrupt: string, answer: Json, options: ResumeFlags, command: Command) => {
      await using orchestrator = open(command);
      const { requestId, actor, early = false } = options;
      const record = await (
        await orchestrator.getExecution(id)
      ).continueWith(interrupt, answer, {
        actor,
        onlyIfPending: !early,
        ...(requestId !== undefined && { resumeRequestId: requestId }),
      });
      const what = record.status === "early" ? "kept until it is asked:" : "resumed";
      done(command, `${what} "${record.id}"`, { ...record });
    });

  program
    .command("withdraw")
    .description("take a question back: what is behind it ends")
    .argument("<id>")
    .argument("<interrupt>")
    .option("--reason <text>", "kept in the ledger, and told to who answers later")
    .option("--actor <name>", "who does", "cli")
    .action(async (id: string, interrupt: string, options: WithdrawFlags, command: Command) => {
      await using orchestrator = open(command);
      const record = await (await orchestrator.getExecution(id)).withdraw(interrupt, options);
      done(command, `withdrew "${record.id}"`, { ...record });
    });

  program
    .command("intervene")
    .description("record an unsolicited correction (an intervention)")
    .argument("<id>")
    .argument("<json>", "the payload", parseJson)
    .option("--target <name>", "where it is meant to be read")
    .option("--author <name>", "whose it is", "cli")
    .option("--note <text>", "for those who read it later")
    .action(async (id: string, payload: Json, options: InterveneFlags, command: Command) => {
      await using orchestrator = open(command);
      const record = await (await orchestrator.getExecution(id)).intervene(payload, options);
      done(command, `recorded as version ${record.version}`, { ...record });
    });

  program
    .command("seal")
    .description("take nothing new from outside; what was accepted runs on")
    .argument("<id>")
    .action(async (id: string, _: object, command: Command) => {
      await using orchestrator = open(command);
      await (await orchestrator.getExecution(id)).seal({ actor: "cli" });
      done(command, "sealed", { sealed: true });
    });

  program
    .command("close")
    .description("seal, drain, freeze, and print the close snapshot")
    .argument("<id>")
    .option("--timeout <duration>", 'how long accepted work may take, e.g. "30s" (default: as long as it takes)')
    .option("--reason <text>", "kept as the close reason")
    .option("--cancel-interrupts", "cancel what still waits for an answer")
    .option("--fail-parked", "fail the chunks that are parked")
    .action(async (id: string, options: CloseFlags, command: Command) => {
      await using orchestrator = open(command);
      const { timeout, reason, cancelInterrupts = false, failParked = false } = options;
      const snapshot = await (
        await orchestrator.getExecution(id)
      ).close({
        actor: "cli",
        pendingInterrupts: cancelInterrupts ? "cancel" : "reject",
        parked: failParked ? "fail" : "reject",
        ...(timeout !== undefined && { timeout }),
        ...(reason !== undefined && { reason }),
      });
      const out = terminalOf(command);
      if (out.isJson) out.json(snapshot);
      else out.line(JSON.stringify(snapshot, null, 2));
    });

  program
    .command("cancel")
    .description("ask for the end of whatever runs")
    .argument("<id>")
    .option("--reason <text>", "kept in the ledger", "cancelled")
    .action(async (id: string, { reason }: { reason: string }, command: Command) => {
      await using orchestrator = open(command);
      const isCancelled = await (await orchestrator.getExecution(id)).cancel(reason, { actor: "cli" });
      done(command, isCancelled ? "cancel requested" : "it had closed before", { cancelled: isCancelled });
    });
}

/** Who may only start may not look; the start itself does. */
function unlessItMayNotAsk(error: unknown): void {
  if (!(error instanceof PermissionError)) throw error;
}
