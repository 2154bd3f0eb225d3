/** The inbox: which interrupts are asked for, and a page of them. */
import { z } from "zod";
import {
  isStorable,
  requireBoolean,
  requireDate,
  requireInteger,
  requireKnown,
  requireList,
  requireText,
  show,
} from "../base/option.ts";
import { TokenUnknownError, UsageError } from "../base/errors.ts";
import type { Json, JsonObject } from "../base/json.ts";
import type { InterruptFilter } from "../store/reads.ts";
import { parseMetadata } from "./start-options.ts";
import { parseId } from "./ids.ts";
import { InterruptRecord } from "./interrupt.ts";

/** Of a text that is searched for: longer ones are nowhere. */
const longest = 1000;

/** Of `listPendingInterrupts()`: all that is given must hold. */
export interface ListInterruptsOptions {
  /** Name of a flow. @default any */
  flow?: string;
  /** The `type` given to `pauseFor`. */
  type?: string;
  /** Of executions whose metadata contain this. */
  metadata?: Readonly<Record<string, unknown>>;
  /** Waiting since before. */
  olderThan?: Date;
  /** `nextCursor` of the page before. */
  cursor?: string;
  /** 1 to 1000. @default 100 */
  limit?: number;
}

/** Of `inbox()`: all that is given must hold. */
export interface InboxOptions {
  /** Whom it asks: any of these, 1 to 100 of what `pauseFor({ assign })` took. @default whomever */
  for?: readonly string[];
  /** Only what is overdue. @default false */
  overdue?: boolean;
  /** Also what somebody has put off. @default false */
  snoozed?: boolean;
  /** Name of a flow. @default any */
  flow?: string;
  /** The `type` given to `pauseFor`. */
  type?: string;
  /** Of executions whose metadata contain this. */
  metadata?: Readonly<Record<string, unknown>>;
  /** `nextCursor` of the page before. */
  cursor?: string;
  /** 1 to 1000. @default 100 */
  limit?: number;
}

/** What `flowledger.inbox` takes. @throws {UsageError} naming what is unknown, or is invalid */
export function inboxOptions(options: InboxOptions): JsonObject & { limit: number } {
  const where = "inbox()";
  requireKnown(options, ["for", "overdue", "snoozed", "flow", "type", "metadata", "cursor", "limit"], where);
  const { limit = 100, flow, type, metadata, overdue, snoozed, cursor } = options;
  const principals =
    options.for === undefined
      ? undefined
      : requireList(options.for, `for of ${where}`, (one, of) => requireText(one, of, { max: longest }));
  if (principals?.length === 0 || (principals?.length ?? 0) > 100)
    throw new UsageError(
      `for of ${where} has ${principals?.length} names`,
      'use 1 to 100, such as ["user:ann", "group:finance"], or leave it out',
    );
  return {
    limit: requireInteger(limit, `limit of ${where}`, { min: 1, max: 1000 }),
    ...(principals !== undefined && { for: principals }),
    ...(overdue !== undefined && { overdue: requireBoolean(overdue, `overdue of ${where}`) }),
    ...(snoozed !== undefined && { snoozed: requireBoolean(snoozed, `snoozed of ${where}`) }),
    ...(flow !== undefined && { flow: requireText(flow, `flow of ${where}`, { max: longest }) }),
    ...(type !== undefined && { type: requireText(type, `type of ${where}`, { max: longest }) }),
    ...(metadata !== undefined && { metadata: parseMetadata(metadata) ?? {} }),
    ...(cursor !== undefined && { cursor: requireText(cursor, `cursor of ${where}`, { max: 2000 }) }),
  };
}

const Place = z.object({ cursor: z.string() });

/** Of `answerByToken()`. */
export interface AnswerByTokenOptions {
  /** Who answers, 1 to 500 characters: kept in the ledger. @default "link" */
  actor?: string;
  /** W3C Trace Context of who answers, which the span of the pause links to; a malformed one is ignored. @default the active span */
  traceparent?: string;
}

/**
 * @throws {UsageError} it is no text
 * @throws {TokenUnknownError} it cannot be one
 */
export function requireToken(token: unknown, where: string): string {
  if (typeof token !== "string")
    throw new UsageError(`token of ${where} is ${show(token)}`, "pass the text that was sent");
  if (!/^[\w-]{43}$/.test(token)) throw new TokenUnknownError();
  return token;
}

/** A page of it, as `flowledger.inbox` gives it. */
export function listedPage(rows: readonly Json[], limit: number) {
  const interrupts = rows.map((row) => InterruptRecord.parse(row));
  const nextCursor = rows.length === limit ? Place.parse(rows.at(-1)).cursor : null;
  return { interrupts, nextCursor };
}

/** @throws {UsageError} naming what is unknown, or is invalid */
export function parseInbox(options: ListInterruptsOptions): InterruptFilter {
  const where = "listPendingInterrupts()";
  requireKnown(options, ["flow", "type", "metadata", "olderThan", "cursor", "limit"], where);
  const { limit = 100, flow, type, metadata, olderThan, cursor } = options;
  return {
    limit: requireInteger(limit, `limit of ${where}`, { min: 1, max: 1000 }),
    ...(flow !== undefined && { flow: requireText(flow, `flow of ${where}`, { max: longest }) }),
    ...(type !== undefined && { type: requireText(type, `type of ${where}`, { max: longest }) }),
    ...(metadata !== undefined && { metadata: parseMetadata(metadata) ?? {} }),
    ...(olderThan !== undefined && { olderThan: requireDate(olderThan, `olderThan of ${where}`) }),
    ...(cursor !== undefined && { cursor: parseCursor(cursor) }),
  };
}

/** @throws {UsageError} it is no address of a web page, or has more than a path */
export function parsePublicUrl(given: unknown): string {
  const where = "publicUrl of createOrchestrator()";
  const text = requireText(given, where, { max: 2000 });
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== "" || url.search !== "" || url.hash !== "")
    throw new UsageError(`${where} is ${show(text)}`, 'use an address such as "https://example.com/approvals"');
  return text.replace(/\/+$/, "");
}

function parseCursor(cursor: string): NonNullable<InterruptFilter["cursor"]> {
  const [, at, executionId, id] = (isStorable(cursor) && /^(-?\d{1,18}) (\S+) ([^]+)$/.exec(cursor)) || [];
  if (at === undefined || executionId === undefined || id === undefined)
    throw new UsageError(`${show(cursor)} is not a cursor`, "pass nextCursor of the page before");
  return { at, executionId: parseId(executionId), id };
}
