/** The attempts that run in one owner, what each waits for, and what makes a park possible. */
import type { AttemptTimes } from "../ledger/command.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Dispatch } from "../ledger/parts.ts";
import type { Attempt } from "./attempt.ts";

/** Something that wakes the execution when it comes, also when nobody owns that. */
export type Wait =
  | { readonly kind: "time"; readonly until: number }
  /** What follows from an emit: attempts of the same execution. */
  | { readonly kind: "group"; readonly group: number }
  /** The items of a distributed collection. */
  | { readonly kind: "items" }
  /** `since` is when it was seen in the database; null before. */
  | { readonly kind: "child"; readonly id: ExecutionId; since: number | null };

const none: readonly Wait[] = [];

export class Running {
  readonly dispatch: Dispatch;
  readonly times: AttemptTimes;
  readonly abort = new AbortController();
  /** Null for a dispatch without a handler: its conditions are asked, or its items run. */
  attempt: Attempt | null = null;
  #waits: Wait[] | undefined;
  /** Effects that have begun, and work in them. Each of those that only wait is among `waits`. */
  #busy = 0;

  constructor(dispatch: Dispatch, times: AttemptTimes) {
    this.dispatch = dispatch;
    this.times = times;
  }

  get waits(): readonly Wait[] {
    return this.#waits ?? none;
  }

  /** It waits, and does nothing else: it takes no slot, and its timeout stands still. */
  get isWaiting(): boolean {
    return this.waits.length > 0 && this.#busy <= this.waits.length;
  }

  work(): () => void {
    this.#busy += 1;
    this.#tell();
    return () => {
      this.#busy -= 1;
      this.#tell();
    };
  }

  wait(wait: Wait): void {
    (this.#waits ??= []).push(wait);
    this.#tell();
  }

  endWait(wait: Wait): void {
    this.#waits = this.waits.filter((other) => other !== wait);
    this.#tell();
  }

  /** What it waits for never comes, and what it asks for is refused; another attempt does its work. */
  cutOff(reason: unknown): void {
    this.attempt?.cutOff();
    this.abort.abort(reason);
  }

  #tell(): void {
    if (this.attempt) this.attempt.isWaiting = this.isWaiting;
  }
}
