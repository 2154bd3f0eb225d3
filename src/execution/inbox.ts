/** The inbox: which interrupts are asked for, and a page of them. */
import { isStorable, requireDate, requireInteger, requireKnown, requireText, show } from "../base/option.ts";
import { UsageError } from "../base/errors.ts";
import type { Json } from "../base/json.ts";
import type { InterruptFilter } from "../store/reads.ts";
import { parseMetadata } from "./bound-flow.ts";
import { parseId } from "./ids.ts";
import { InterruptRecord } from "./interrupt.ts";

/** Of a text that is searched for: longer ones are nowhere. */
const longest = 1000;

export interface ListInterruptsOptions {
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

/** @throws {UsageError} naming what is unknown, or cannot be meant */
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

/** @param limit how many were asked for */
export function inboxPage(records: readonly Json[], limit: number) {
  const interrupts = records.map((record) => InterruptRecord.parse(record));
  const last = interrupts.at(-1);
  const nextCursor = last && interrupts.length === limit ? `${last.executionId} ${last.id}` : null;
  return { interrupts, nextCursor };
}

function parseCursor(cursor: string) {
  if (!isStorable(cursor))
    throw new UsageError(`${show(cursor)} is not a cursor`, "pass nextCursor of the page before");
  const [executionId = "", ...id] = cursor.split(" ");
  return { executionId: parseId(executionId), id: id.join(" ") };
}
