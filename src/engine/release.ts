/** May an execution be given back, and until when? Pure. */
import type { Release } from "./turn.ts";

/** Timers nearer than this stay in memory; for farther ones the execution is released. */
export const inMemoryTimerMs = 1000;
/** An execution that only waits for a child stays here for so long; then it is released, and the child's end wakes it. */
export const childWaitMs = 1000;
/** A parent of items that nothing wakes polls after as long as it has run, within these bounds: wake-ups may be lost. */
const pollMs = { least: 60_000, most: 3_600_000 };

export interface ReleaseFacts {
  /** Whether short waits stay in memory. */
  readonly hasShortcuts: boolean;
  readonly now: number;
  readonly startedAt: number | null;
  readonly isDraining: boolean;
  /** A cancel has interrupted the attempts. */
  readonly isCancelling: boolean;
  /** A dispatch could start now. */
  readonly hasDue: boolean;
  /** When the execution next has something to do on its own. */
  readonly nextTimer: number | null;
  readonly running: readonly RunningFacts[];
}

export interface RunningFacts {
  /** It waits, and does nothing else. */
  readonly isWaiting: boolean;
  /** Its items run as executions of their own, and none has ended for a while. */
  readonly isIdleFanOut: boolean;
  readonly isFanOut: boolean;
  readonly waits: readonly WaitFacts[];
}

export type WaitFacts =
  | { readonly kind: "time"; readonly until: number }
  | { readonly kind: "group"; readonly isOver: boolean }
  | { readonly kind: "items" }
  | { readonly kind: "child"; readonly since: number | null; readonly isOver: boolean };

export function releaseOf(facts: ReleaseFacts): Release | null {
  const { now, isDraining } = facts;
  if (!facts.running.every((running) => isParkable(running, facts))) return null;
  if (facts.hasDue && !isDraining) return null;
  const next = wakeAt(facts);
  if (next === null) return { wakeInMs: null };
  const wakeInMs = Math.max(0, next - now);
  return wakeInMs > (facts.hasShortcuts ? inMemoryTimerMs : 0) || isDraining ? { wakeInMs } : null;
}

/** Whether an attempt may be cut off: whatever it waits for wakes the execution, and is not near. */
function isParkable(running: RunningFacts, { now, isDraining, isCancelling, hasShortcuts }: ReleaseFacts): boolean {
  if (running.isFanOut) return running.isIdleFanOut || isDraining;
  if (!running.isWaiting || isCancelling) return false;
  return running.waits.every((wait) => {
    switch (wait.kind) {
      case "time":
        return isDraining || wait.until - now > (hasShortcuts ? inMemoryTimerMs : 0);
      case "child":
        // A child that is not in the database yet wakes nobody. One that is over lets the chunk go on in a moment.
        return (
          wait.since !== null && (isDraining || (!wait.isOver && now >= wait.since + (hasShortcuts ? childWaitMs : 0)))
        );
      case "group":
        // The handlers of an event are attempts of this execution: they hold it, or are parked themselves.
        return isDraining || !wait.isOver;
      case "items":
        return true;
    }
  });
}

function wakeAt({ now, startedAt, hasDue, nextTimer, running, isDraining }: ReleaseFacts): number | null {
  if (hasDue) return now;
  let next = nextTimer ?? Infinity;
  for (const { waits, isFanOut, isIdleFanOut } of running) {
    for (const wait of waits) {
      if (wait.kind === "time") next = Math.min(next, wait.until);
      else if (wait.kind !== "items" && wait.isOver) return now;
    }
    if (!isFanOut) continue;
    if (isDraining && !isIdleFanOut) return now;
    const age = now - (startedAt ?? now);
    next = Math.min(next, now + Math.min(Math.max(age, pollMs.least), pollMs.most));
  }
  return next === Infinity ? null : next;
}
