/** Errors as somebody at a terminal needs them: remedies are commands here, where the library's name methods. */
import { CommanderError } from "commander";
import { ContractError, FlowledgerError, UsageError, type ErrorDetails } from "../base/errors.ts";
import { nearest } from "../base/option.ts";

/** Is it the command line that is wrong, so that nothing was done? */
export function isUsage(error: unknown): boolean {
  return error instanceof CommanderError || error instanceof UsageError || error instanceof ContractError;
}

export function sentenceOf(error: unknown): string {
  if (error instanceof CommanderError) return ofCommander(error);
  if (error instanceof FlowledgerError)
    return (sentences[error.code]?.(textsOf(error.details)) ?? error.message) || error.code;
  return (error instanceof Error ? error.message : String(error)) || "something failed";
}

/** The form that `--json` prints. */
export function jsonOf(error: unknown): object {
  const isOurs = error instanceof FlowledgerError;
  return {
    error: {
      code: isOurs ? error.code : isUsage(error) ? "USAGE_INVALID" : "UNKNOWN",
      message: sentenceOf(error),
      details: isOurs ? error.details : {},
    },
  };
}

function ofCommander({ message }: CommanderError): string {
  const text = message
    .replace(/^error: /, "")
    .replace(/\n\((.*)\)$/s, " ($1)")
    .trim();
  const [, given = "", choices = ""] = /'([^']*)' is invalid.* Allowed choices are (.*)\.$/s.exec(text) ?? [];
  const meant = choices === "" ? undefined : nearest(given, choices.split(", "));
  if (meant !== undefined) return `${text.replace(/ Allowed choices are .*$/s, "")} Did you mean ${meant}?`;
  const isLost = /unknown (command|option)|too many arguments|missing required argument|not specified/.test(text);
  return isLost ? `${text.replace(/\.$/, "")}: see --help` : text;
}

type Texts = Readonly<Record<string, string>>;

/** Details as they stand in a sentence; what is null stays out. */
function textsOf(details: ErrorDetails): Texts {
  const named = Object.entries(details).filter(([, value]) => value !== null);
  return Object.fromEntries(named.map(([name, value]) => [name, String(value)]));
}

const sentences: Readonly<Record<string, (details: Texts) => string>> = {
  EXECUTION_SEALED: ({ executionId, refused }) =>
    `execution ${executionId} is sealed and no longer accepts ${refused}: start a new execution`,
  INTERRUPTS_PENDING: ({ executionId, interruptIds }) =>
    `execution ${executionId} waits for answers (${interruptIds}): give them with \`flowledger resume\`, or close it with --cancel-interrupts`,
  CHUNKS_PARKED: ({ executionId, chunks }) =>
    `execution ${executionId} has parked chunks (${chunks}): \`flowledger retry\` or \`skip\` them, or close it with --fail-parked`,
  INTERRUPT_NOT_PENDING: ({ executionId, interruptId, status, withdrawnBy, withdrawnAt, reason }) =>
    status === "withdrawn"
      ? `interrupt "${interruptId}" of execution ${executionId} was withdrawn by ${withdrawnBy} at ${withdrawnAt} (${reason}): \`flowledger show ${executionId}\` lists what still waits`
      : status === undefined
        ? `interrupt "${interruptId}" is unknown in execution ${executionId}: \`flowledger show ${executionId}\` lists what waits`
        : `interrupt "${interruptId}" of execution ${executionId} is already ${status}: \`flowledger show ${executionId}\` lists what still waits; to repeat an answer, give the same --request-id`,
  RESUME_CONFLICT: ({ executionId, interruptId, resumeRequestId }) =>
    `--request-id "${resumeRequestId}" answered interrupt "${interruptId}" of execution ${executionId} with another value before: give another answer another id`,
  INTERVENTION_DISABLED: ({ executionId, flowName }) =>
    `execution ${executionId} of flow "${flowName}" takes no interventions: give its flow an intervention point, or start it with --options '{"interventionMode": "auto"}'`,
  NOT_MIGRATED: ({ schema }) =>
    `schema "${schema}" does not exist, or is older than this library: run npx flowledger migrate`,
  WAIT_TIMEOUT: ({ executionId, timeoutMs }) =>
    `execution ${executionId} had not closed after ${timeoutMs} ms, and still runs: \`flowledger show ${executionId}\` says how it is`,
  DRAIN_TIMEOUT: ({ executionId, timeoutMs }) =>
    `execution ${executionId} still runs ${timeoutMs} ms after it was asked to close, and stays sealed: close it again to wait on, or cancel it`,
};
