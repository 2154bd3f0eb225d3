/** What commands and reads of an execution may say. */
import type { Duration } from "../base/duration.ts";
import { UsageError } from "../base/errors.ts";
import { isObject } from "../base/json.ts";
import { requireActor, requireName, requireText } from "../base/option.ts";
import type { LedgerEvent, LedgerEventType } from "../ledger/event.ts";
import type { CallerTransaction } from "../store/caller-transaction.ts";

/** Of every command. */
export interface InTransaction {
  /**
   * A transaction of yours: the command counts, and is told to owners and readers, when that commits, and never where it rolls back. The
   * execution's row is locked until then, so commit soon.
   */
  tx?: CallerTransaction;
}

/** Of `emit()` from outside. */
export interface EmitCallOptions extends InTransaction {
  /** Repeating a key changes nothing. */
  idempotencyKey?: string;
  /** Who sent it, for the ledger. */
  actor?: string;
  /**
   * W3C Trace Context of who sends it, which the span of a pause that it answers links to; a malformed one is ignored.
   * @default the active span
   */
  traceparent?: string;
}

/** Of `continueWith()`. */
export interface ResumeOptions extends InTransaction {
  /** Repeating it with the same answer changes nothing. */
  resumeRequestId?: string;
  /** Who answered, for the ledger. */
  actor?: string;
  /** Refuses what nobody has asked yet, instead of keeping the answer for it. @default false */
  onlyIfPending?: boolean;
  /** W3C Trace Context of who answers, which the span of the pause links to; a malformed one is ignored. @default the active span */
  traceparent?: string;
}

/** Of `intervene()`. */
export interface InterveneOptions extends InTransaction {
  /** Whose correction it is, for the ledger. */
  author?: string;
  /** The intervention point or chunk it is meant for. @default the next one */
  target?: string;
  /** For people who read it later. @default none */
  note?: string;
  /** For programs that read it later. @default {} */
  metadata?: Readonly<Record<string, unknown>>;
}

/** Of `close()`. */
export interface CloseOptions {
  /** How long accepted work may take to drain; null waits for ever. @default null */
  timeout?: Duration | null;
  /** What to do while interrupts wait: "cancel" also cancels those that come until it has closed. @default "reject" */
  pendingInterrupts?: "reject" | "cancel";
  /** What to do while chunks are parked: "fail" fails them, also those that would park until it has closed. @default "reject" */
  parked?: "reject" | "fail";
  /** Kept as the close reason. @default "manual" */
  reason?: string;
  /** Who closes it, for the ledger. */
  actor?: string;
}

/** One event of the ledger, as `history()` gives it. */
export type HistoryEntry = LedgerEvent & { readonly seq: number; readonly epoch: number; readonly at: Date };

/** Of `history()`. */
export interface HistoryOptions {
  /** Only events after this seq. @default 0 */
  from?: number;
  /** Only these types. @default all */
  types?: readonly LedgerEventType[];
}

/** The transaction of a command, and its other options. What is no object of options stays what it is: it is refused by name. */
export function apart<O extends InTransaction>(options: O): [InTransaction, O] {
  if (!isObject(options) || !("tx" in options)) return [{}, options];
  const { tx, ...rest } = options as InTransaction;
  return [tx === undefined ? {} : { tx }, rest as O];
}

/** Texts that are kept in the ledger, as `check_text` of SQL takes them: names 500 characters, all else 10,000. */
export function requireWords(given: object, where: string): void {
  for (const name of ["actor", "author", "target", "reason", "note", "idempotencyKey", "resumeRequestId"]) {
    const value: unknown = Reflect.get(given, name);
    if (value === undefined) continue;
    if (["actor", "author"].includes(name)) requireActor(value, `${name} of ${where}`);
    else if (name === "reason") requireName(value, `reason of ${where}`, { max: 10_000 });
    else requireText(value, `${name} of ${where}`, { max: name === "target" ? 500 : 10_000 });
  }
}

/** @throws {UsageError} */
export function refuseTx(options: unknown, method: string): void {
  if (hasTx(options))
    throw new UsageError(
      `${method}() with tx would wait for a close that cannot come before the transaction commits`,
      "use startExecution(), and wait for the close after your commit",
    );
}

/** Also where the types know of none. */
export function hasTx(options: unknown): boolean {
  return isObject(options) && "tx" in options && options["tx"] !== undefined;
}
