/** What a list of executions may be asked for. */
import type { JsonObject } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";

/** What executions have in common; all of it must hold. */
export interface ExecutionFilter {
  flow?: readonly string[];
  status?: readonly string[];
  /** Of the flow's definition, or how that begins. */
  version?: string;
  createdAfter?: Date;
  createdBefore?: Date;
  closedAfter?: Date;
  closedBefore?: Date;
  parent?: ExecutionId;
  /** The first and the last id that begin so. */
  ids?: readonly [string, string];
  idempotencyKey?: string;
  /** For `ilike`, on "name: message". */
  errorPattern?: string;
  metadata?: JsonObject;
  /** Whether it goes on as another one. */
  redriven?: boolean;
  /** The same, of whoever asks: it holds beside `metadata`, whatever that says. */
  within?: JsonObject;
}

export type ListOrder = "newest" | "oldest" | "lastClosed";
