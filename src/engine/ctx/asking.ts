/** Whom a pause asks, until when, and what follows while nobody answers: checked where it is written. */
import { FlowledgerError, UsageError } from "../../base/errors.ts";
import type { Json } from "../../base/json.ts";
import { parseDuration } from "../../base/duration.ts";
import {
  requireBoolean,
  requireKnown,
  requireList,
  requireName,
  requireRecord,
  requireText,
  show,
} from "../../base/option.ts";
import type { PauseOptions } from "../../flow/context.ts";
import { parseAnswer } from "../../ledger/answers.ts";
import type { PauseRequest } from "../../ledger/command.ts";
import type { FollowUp } from "../../ledger/event.ts";
import { longestPrincipal } from "../../ledger/handling.ts";

export const askingOptions = ["title", "assign", "due", "remind", "escalate", "link"] as const;

interface Pausing {
  readonly interrupt: string;
  /** As JSON Schema; null is any JSON. */
  readonly response: Json;
  readonly expiresInMs: number | null;
  /** Where links lead; null is nowhere. */
  readonly publicUrl: string | null;
  /** Whether the flow hears of its pauses. */
  readonly isHeard: boolean;
  readonly where: string;
}

/** So many principals, reminders or escalations a pause has at most. */
const most = 100;

/** @throws {UsageError} naming what is invalid, or would never come */
export function parseAsking(
  options: Pick<PauseOptions, (typeof askingOptions)[number]>,
  pausing: Pausing,
): Pick<PauseRequest, "title" | "assign" | "dueInMs" | "plan" | "link"> {
  const { title, assign, due, link } = options;
  const { where } = pausing;
  const asking: Pick<PauseRequest, "title" | "assign" | "dueInMs" | "plan" | "link"> = {};
  if (title !== undefined) asking.title = requireText(title, `title of ${where}`, { max: 500 });
  if (assign !== undefined) asking.assign = parsePrincipals(assign, `assign of ${where}`);
  if (due !== undefined && due !== null) {
    asking.dueInMs = parseTime(due, `due of ${where}`);
    requireBefore(asking.dueInMs, pausing, `due of ${where}`, due);
  }
  const plan = [...parseReminders(options, asking.dueInMs, pausing), ...parseEscalations(options, pausing)];
  if (plan.length > 0) asking.plan = plan.toSorted((a, b) => a.inMs - b.inMs);
  requireLastAnswer(asking.plan ?? [], where);
  if (link !== undefined && requireBoolean(link, `link of ${where}`)) {
    requireLinks(pausing);
    asking.link = true;
  }
  return asking;
}

/** @throws {UsageError} none, too many, or one that is no text */
export function parsePrincipals(given: unknown, where: string): string[] {
  const principals = requireList(given, where, (one, of) => requireName(one, of, { max: longestPrincipal }));
  if (principals.length === 0 || principals.length > most)
    throw new UsageError(`${where} has ${principals.length} names`, `use 1 to ${most}, such as ["group:finance"]`);
  return [...new Set(principals)];
}

/** Each so long before it is due. */
function parseReminders(
  { remind, due }: Pick<PauseOptions, "remind" | "due">,
  dueInMs: number | undefined,
  pausing: Pausing,
): FollowUp[] {
  if (remind === undefined) return [];
  const what = `remind of ${pausing.where}`;
  const times = requireList(remind, what, (one, of) => {
    if (typeof one !== "string" && typeof one !== "number")
      throw new UsageError(`${of} is ${show(one)}`, 'use a duration before it is due, such as "4h"');
    return parseDuration(one, of);
  });
  requireFew(times, what);
  if (dueInMs === undefined)
    throw new UsageError(`${what} reminds before it is due, and it never is`, 'give it a due, such as "2d"');
  return times.map((before, index) => {
    if (before >= dueInMs)
      throw new UsageError(
        `${what} reminds ${show(remind[index])} before it is due, and it is due ${show(due)} after it was asked`,
        "remind later, or let it be due later",
      );
    const inMs = dueInMs - before;
    requireBefore(inMs, pausing, what, remind[index]);
    return { inMs };
  });
}

function parseEscalations({ escalate }: Pick<PauseOptions, "escalate">, pausing: Pausing): FollowUp[] {
  if (escalate === undefined) return [];
  const { interrupt, response, where } = pausing;
  const plan = requireList(escalate, `escalate of ${where}`, (given, of): FollowUp => {
    requireKnown(given, ["after", "assign", "answer"], of);
    const { after, assign, answer } = requireRecord(given, of);
    if ((assign === undefined) === (answer === undefined))
      throw new UsageError(
        `${of} has ${assign === undefined ? "neither assign nor answer" : "assign and answer"}`,
        'use { after: "2d", assign: ["group:managers"] } or { after: "4d", answer }',
      );
    const inMs = parseTime(after, `after of ${of}`);
    requireBefore(inMs, pausing, `after of ${of}`, after);
    if (assign !== undefined) return { inMs, assign: parsePrincipals(assign, `assign of ${of}`) };
    return { inMs, answer: fitting(interrupt, response, answer, of) };
  });
  requireFew(plan, `escalate of ${where}`);
  return plan;
}

/** @throws {UsageError} it is not what the pause asks for */
function fitting(interrupt: string, response: Json, answer: unknown, where: string): Json {
  try {
    return parseAnswer(interrupt, response, answer);
  } catch (error) {
    if (!(error instanceof FlowledgerError)) throw error;
    throw new UsageError(
      `answer of ${where} is not what the pause asks for (${error.message})`,
      "give one that fits its response",
      error.details,
      error,
    );
  }
}

function parseTime(given: unknown, where: string): number {
  if (typeof given !== "string" && typeof given !== "number")
    throw new UsageError(`${where} is ${show(given)}`, 'use a duration after it was asked, such as "2d"');
  const ms = parseDuration(given, where);
  if (ms > 0) return ms;
  throw new UsageError(`${where} must be longer than 0`, 'use a duration after it was asked, such as "2d"');
}

function requireBefore(inMs: number, { expiresInMs }: Pausing, where: string, given: unknown): void {
  if (expiresInMs !== null && inMs >= expiresInMs)
    throw new UsageError(
      `${where} is ${show(given)}, when the pause has expired (expiresIn ${expiresInMs} ms)`,
      "let it come before that, or expire later",
    );
}

function requireFew(given: readonly unknown[], where: string): void {
  if (given.length === 0 || given.length > most)
    throw new UsageError(`${where} has ${given.length} of them`, `use 1 to ${most}, or leave it out`);
}

/** What comes after the default answer never comes. */
function requireLastAnswer(plan: readonly FollowUp[], where: string): void {
  const answered = plan.findIndex((one) => "answer" in one);
  const late = answered < 0 ? undefined : plan[answered + 1];
  if (late === undefined) return;
  const what = "answer" in late ? "another answer" : "assign" in late ? "an escalation" : "a reminder";
  throw new UsageError(`${where} has ${what} after its default answer, which ends it`, "let the answer come last");
}

function requireLinks({ publicUrl, isHeard, where }: Pausing): void {
  if (publicUrl === null)
    throw new UsageError(
      `link of ${where} needs the publicUrl of the orchestrator, which is not set`,
      'pass createOrchestrator({ publicUrl: "https://…" })',
    );
  if (!isHeard)
    throw new UsageError(
      `link of ${where} is never sent: the flow has no handler of "$interrupt"`,
      'add when("$interrupt").to(…), which sends the link to people',
    );
}

/** Whether something of it is given. */
export function asks(options: object): boolean {
  return askingOptions.some((name) => Reflect.get(options, name) !== undefined);
}
