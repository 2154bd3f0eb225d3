/** What a test waits for, and in words what an execution waits for instead. */
import { duesOf, nameOf } from "../ledger/dues.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { pendingInterrupts, type ExecutionState } from "../ledger/state.ts";
import type { InterruptRecord } from "../execution/interrupt.ts";
import type { Reads } from "../store/reads.ts";
import type { Due } from "./driver.ts";

/** What `until()` waits for. */
export type Condition =
  /** It has ended. */
  | "closed"
  /** Nothing is left to do at the present time. */
  | "idle"
  /** It waits for an answer: the id or type of the interrupt, or the chunk that paused. */
  | { readonly waiting: string }
  /** This attempt of the chunk has begun. @default any attempt */
  | { readonly chunk: string; readonly attempt?: number };

/** After "the execution will not be …". */
export function inWords(condition: Condition): string {
  if (typeof condition === "string") return condition;
  if ("waiting" in condition) return `waiting for ${JSON.stringify(condition.waiting)}`;
  const { chunk, attempt } = condition;
  return `at chunk ${JSON.stringify(chunk)}${attempt === undefined ? "" : `, attempt ${attempt}`}`;
}

/** The interrupt that a condition means. */
export function meant(pending: readonly InterruptRecord[], waiting: string): InterruptRecord | undefined {
  const by = (key: "id" | "type" | "chunk") => pending.find((interrupt) => interrupt[key] === waiting);
  return by("id") ?? by("type") ?? by("chunk");
}

export interface Surroundings {
  readonly reads: Reads;
  readonly now: number;
  /** Chunks of an execution that run in this process. */
  readonly running: (id: ExecutionId) => readonly string[];
  /** What happens by the clock alone. */
  readonly upcoming: readonly Due[];
}

/** What an execution waits for, as a sentence. */
export async function whatItWaitsFor(id: ExecutionId, surroundings: Surroundings): Promise<string> {
  const { upcoming } = surroundings;
  const waits = await waitsOf(id, surroundings);
  const [next] = upcoming;
  const later = next ? `next by the clock, ${next.at.toISOString()}: ${next.what}` : "nothing is due by the clock";
  return `${waits}; ${later}`;
}

async function waitsOf(id: ExecutionId, surroundings: Surroundings): Promise<string> {
  const { reads, now, running } = surroundings;
  const state = await reads.loadState(id);
  if (!state) return "it does not exist";
  if (state.closed) return closing(state);
  if (state.startedAt === null) return "it has not been started";
  const waits: string[] = [];
  for (const chunk of running(id)) waits.push(`chunk "${chunk}", which still runs`);
  for (const interrupt of pendingInterrupts(state))
    waits.push(`an answer to ${JSON.stringify(nameOf(interrupt))} (asked by chunk "${interrupt.chunk}")`);
  for (const { at, what } of duesOf(state, now)) waits.push(`${new Date(at).toISOString()} (${what})`);
  if (state.blocked) waits.push(`a worker that can go on with it (${state.blocked.problem})`);
  for (const [child, { flow, closed }] of state.children)
    if (!closed) waits.push(`its sub-flow ${flow} (${await waitsOf(child, surroundings)})`);
  for (const [join, values] of state.joins)
    if (Object.keys(values).length > 0) waits.push(`more events of ${JSON.stringify(join)}`);
  if (waits.length > 0) return `it waits for ${waits.join(", ")}`;
  if (state.claimedIn === 0) return "it waits for a worker, a slot of its flow, or its time";
  return state.sealedAt === null
    ? "nothing is left to do, and it stays open for events"
    : "nothing is left to do, and it waits for its end";
}

function closing({ closed }: ExecutionState): string {
  const error = closed?.error ? ` (${closed.error.name}: ${closed.error.message})` : "";
  return `it is ${closed?.outcome ?? "closed"}${error}`;
}
