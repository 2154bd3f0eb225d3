/** What a request is handled with: who asks, for which execution, and what the console looks with. */
import { ExecutionNotFoundError } from "../base/errors.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Picture } from "../ledger/picture.ts";
import type { TimelineFold } from "../ledger/timeline-fold.ts";
import type { Lookout } from "../execution/look.ts";
import { requireExecutionId } from "../execution/ids.ts";
import { InterruptRecord } from "../execution/interrupt.ts";
import type { Orchestrator } from "../orchestrator.ts";
import type { PastState } from "../store/states.ts";
import type { Store } from "../store/store.ts";
import type { Person } from "./access.ts";
import type { Folds } from "./folds.ts";
import type { Settings } from "./options.ts";
import type { Poll } from "./poll.ts";
import type { Showing } from "./shown.ts";

/** One console. */
export interface Desk {
  readonly settings: Settings;
  readonly orchestrator: Orchestrator;
  readonly showing: Showing;
  readonly poll: Poll;
  readonly known: Known;
  /** Where executions stand in their graphs, and their timelines, as far as their ledgers have been read. */
  readonly pictures: Folds<Picture>;
  readonly timelines: Folds<TimelineFold>;
  /** Their state after events of the past, likewise; null before the first look. */
  readonly pasts: Folds<{ past: PastState | null }>;
  /** The database, once it is known to fit. */
  store(): Promise<Store>;
  lookout(): Promise<Lookout>;
}

/** A request that was let in. */
export interface Asked {
  readonly desk: Desk;
  readonly person: Person;
  readonly request: Request;
  readonly query: URLSearchParams;
  /** Whether a page that stays open refreshes itself. */
  readonly isRefresh: boolean;
}

/** The same, of an execution that exists for this person. */
export interface AskedOfOne extends Asked {
  readonly id: ExecutionId;
}

/** @throws {ExecutionNotFoundError} also of one that is there, and not for them */
export async function requireVisible({ desk, person }: Asked, given: string): Promise<ExecutionId> {
  const id = requireExecutionId(given);
  const key = `${JSON.stringify(person.within)} ${id}`;
  if (desk.known.has(key)) return id;
  const store = await desk.store();
  if (!(await store.console.within([id], person.within)).has(id)) throw new ExecutionNotFoundError(id);
  desk.known.add(key);
  return id;
}

/** Who has seen which execution a moment ago: its metadata never change, so nobody has to ask again with each refresh. */
export class Known {
  readonly #until = new Map<string, number>();

  has(key: string): boolean {
    return (this.#until.get(key) ?? 0) > liveness.monotonic();
  }

  add(key: string): void {
    // Set again, so that the map is ordered by age and the oldest are dropped first.
    this.#until.delete(key);
    this.#until.set(key, liveness.monotonic() + knownMs);
    for (const [oldest] of this.#until) {
      if (this.#until.size <= mostKnown) break;
      this.#until.delete(oldest);
    }
  }
}

const knownMs = 30_000;
const mostKnown = 10_000;

/** Those that exist for this person. */
export async function visibleOf(
  { desk, person }: Asked,
  ids: readonly (ExecutionId | null | undefined)[],
): Promise<ReadonlySet<string>> {
  const known = ids.filter((id) => id !== null && id !== undefined);
  if (person.within === null || known.length === 0) return new Set(known);
  return (await desk.store()).console.within([...new Set(known)], person.within);
}

/** A question that an execution has, or shows of a sub-flow. Null where there is none, or the sub-flow does not exist for this person. */
export async function questionFor(asked: AskedOfOne, interrupt: string): Promise<InterruptRecord | null> {
  const given = await (await asked.desk.store()).console.interrupt(asked.id, interrupt);
  if (given === null) return null;
  const record = InterruptRecord.parse(given);
  const owner = record.projectedFrom?.executionId;
  return owner === undefined || (await visibleOf(asked, [owner])).has(owner) ? record : null;
}

/** One answer for all who may see the same. */
export function shared<T>({ desk, person, isRefresh }: Asked, view: string, work: () => Promise<T>): Promise<T> {
  return desk.poll.read(`${JSON.stringify(person.within)} ${view}`, isRefresh, work);
}
