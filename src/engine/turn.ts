/** What an owner does next. Pure: facts in, one step out; tested like `decide`. */
import type { Settlement } from "../ledger/settle.ts";

/** What is known of an execution that is owned, at one moment. */
export interface TurnFacts {
  /** Something came in from outside that has not been read. */
  readonly isPoked: boolean;
  /** Something that came in waits for its routing. */
  readonly hasArrival: boolean;
  /** Attempts have ended, or reached a commit point. */
  readonly hasWork: boolean;
  /** The work of a transaction is done: it wants its record. */
  readonly hasRecording: boolean;
  /** Events are folded and not sent. */
  readonly hasUnsent: boolean;
  /** There are so many of them that they go first. */
  readonly isFull: boolean;
  /** Somebody waits for what is folded. */
  readonly isAwaited: boolean;
  /** Nothing of this epoch is in the ledger yet. */
  readonly isFirst: boolean;
  /** The claim alone was held back for long enough. */
  readonly isClaimDue: boolean;
  readonly running: number;
  /** How the execution ends now, if it does. */
  readonly ending: Settlement | null;
  /** Items of distributed collections have to be told first. */
  readonly hasItemsToStop: boolean;
  /** Something is folded whose time the close snapshot tells, and which only the database knows. */
  readonly hasUntimed: boolean;
  /** The execution may be given back: to wake up in so many milliseconds, or by something from outside. */
  readonly release: Release | null;
}

export interface Release {
  readonly wakeInMs: number | null;
}

export type Next =
  | { readonly do: "catchUp" | "route" | "fold" | "record" | "stopItems" | "linger" | "wait" }
  | { readonly do: "append"; readonly ending: Settlement | null; readonly release: Release | null };

export function nextTurn(facts: TurnFacts): Next {
  if (facts.isFull) return { do: "append", ending: null, release: null };
  if (facts.isPoked) return { do: "catchUp" };
  if (facts.hasArrival) return { do: "route" };
  const { hasRecording, hasUnsent } = facts;
  if (hasRecording && !hasUnsent) return { do: "record" };
  if (facts.hasWork) return { do: "fold" };
  // A recording travels alone, after the folded events.
  if (hasRecording) return { do: "append", ending: null, release: null };
  const due = facts.ending;
  if (due && facts.hasItemsToStop) return { do: "stopItems" };
  const last = due?.events.at(-1)?.type;
  // Events are reported with the database's time, so those without one are committed first.
  const isHeld = (last === "execution.closed" && facts.hasUntimed) || (last === "event.emitted" && hasUnsent);
  const ending = isHeld ? null : due;
  const release = due === null ? facts.release : null;
  if (!hasUnsent && ending === null && release === null) return { do: "wait" };
  // A claim waits a moment for the first result, and both travel in one commit.
  const isOnlyClaim = facts.isFirst && !facts.isAwaited && facts.running > 0;
  if (isOnlyClaim && ending === null && release === null && !facts.isClaimDue) return { do: "linger" };
  return { do: "append", ending, release };
}
