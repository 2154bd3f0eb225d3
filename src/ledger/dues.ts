/** What an execution has before it by the clock alone, in words. It follows from the ledger. */
import { autoCloseAt, deadlineOf } from "./settle.ts";
import { nextFollowUp } from "./handling.ts";
import type { ExecutionState } from "./state.ts";
import type { Interrupt } from "./parts.ts";

export interface Due {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly what: string;
}

/** What falls due later than `now`, the next first. */
export function duesOf(state: ExecutionState, now: number): Due[] {
  const { flow } = state;
  const dues: Due[] = [];
  const add = (at: number | null, what: string) => {
    if (at !== null && at > now) dues.push({ at, what });
  };
  if (state.closed || state.startedAt === null) return dues;
  add(deadlineOf(state), `timeout of ${flow}`);
  if (state.paused) {
    add(state.paused.until, `end of the pause of ${flow}`);
    return dues.sort((a, b) => a.at - b.at);
  }
  for (const interrupt of state.interrupts.values())
    if (interrupt.status === "pending") {
      add(interrupt.expiresAt, `interrupt "${nameOf(interrupt)}" expires in ${flow}`);
      add(nextFollowUp(interrupt), `interrupt "${nameOf(interrupt)}" ${nextInWords(interrupt)} in ${flow}`);
    }
  for (const { id, chunk, node, notBefore, journal } of state.dispatches.values()) {
    const where = `chunk "${chunk ?? node}" of ${flow}`;
    add(notBefore, `retry of ${where}`);
    add(state.parked.get(id)?.until ?? null, `end of ${where}, which is parked`);
    for (const entry of journal) {
      if (entry.effect === "sleep") add(entry.until, `sleep of ${where}`);
      else if (entry.effect === "stepFailed") add(entry.notBefore, `retry of step "${entry.key}" of ${where}`);
    }
  }
  add(autoCloseAt(state), `auto-close of ${flow}`);
  return dues.sort((a, b) => a.at - b.at);
}

function nextInWords({ handling }: Interrupt): string {
  const next = handling?.plan[handling.followed];
  if (next === undefined || "answer" in next) return "gets its default answer";
  return "assign" in next ? "escalates" : "reminds";
}

/** What a person calls an interrupt: its type, where it has one, as its id is often generated. */
export function nameOf({ id, type }: Pick<Interrupt, "id" | "type">): string {
  return type === "pause" ? id : type;
}
