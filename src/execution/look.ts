/** What a page shows of an execution: each look reads a bounded piece of its ledger, and goes on from what the look before has folded. */
import { ExecutionNotFoundError } from "../base/errors.ts";
import type { SerializedError } from "../base/errors.ts";
import type { Json, JsonObject } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Folded, SeenEvent } from "../store/looks.ts";
import type { Header } from "../store/headers.ts";
import type { Store } from "../store/store.ts";
import { endingError } from "../ledger/views.ts";

export interface Look {
  readonly meta: {
    readonly executionId: ExecutionId;
    readonly flowName: string;
    readonly status: Header["status"];
    readonly lifecycleState: Header["lifecycle"];
    readonly createdAt: number;
    readonly startedAt: number | null;
    readonly closedAt: number | null;
    readonly closeReason: string | null;
    /** Events of its ledger. */
    readonly stateVersion: number;
    readonly parentId: ExecutionId | null;
    readonly metadata: JsonObject;
    /** Why no worker goes on with it; null while one does, or may. */
    readonly blocked: string | null;
  };
  /** Application state; once closed, the close snapshot. Null where the ledger cannot be read. */
  readonly state: JsonObject | null;
  /** The event up to which `state` is folded: less than `stateVersion` while later looks catch up. */
  readonly stateSeq: number;
  /** What is wrong with it: why it failed or was cancelled, or why its ledger cannot be read. */
  readonly problem: { readonly message: string; readonly error: SerializedError | null } | null;
  readonly interrupts: readonly Json[];
  /** The last ones, in order. */
  readonly events: readonly SeenEvent[];
}

export interface LookOptions {
  /** How many of the last events. */
  readonly events: number;
}

/** Executions whose fold is kept, least recently looked at first to go. */
const keptFolds = 8;
/** Characters of JSON that are shown of a state; a value that does not fit says how long it is. */
const shownState = 262_144;

/** Looks at the executions of one database. */
export class Lookout {
  readonly #store: Store;
  readonly #folds = new Map<ExecutionId, Folded>();

  constructor(store: Store) {
    this.#store = store;
  }

  /** @throws {ExecutionNotFoundError} */
  async look(id: ExecutionId, { events: count }: LookOptions): Promise<Look> {
    const { reads, looks } = this.#store;
    const header = (await reads.headers([id])).get(id);
    if (!header) throw new ExecutionNotFoundError(id);
    const [events, interrupts, folded] = await Promise.all([
      looks.lastEvents(id, header.seq, count),
      reads.pendingInterrupts(id),
      header.lifecycle === "closed" ? null : this.#fold(id),
    ]);
    const unreadable = folded instanceof Error ? folded : null;
    const state = folded instanceof Error ? null : folded ? folded.state.values : (header.closeSnapshot ?? {});
    return {
      meta: metaOf(header, events),
      state: state && shortened(state),
      stateSeq: folded instanceof Error ? 0 : (folded?.seq ?? header.seq),
      problem: unreadable
        ? { message: `its ledger cannot be read: ${unreadable.message}`, error: null }
        : problemOf(header),
      interrupts,
      events,
    };
  }

  /** A ledger that this version cannot read is shown all the same. */
  async #fold(id: ExecutionId): Promise<Folded | Error> {
    const before = this.#folds.get(id) ?? null;
    // Taken out first, because a fold changes the state that it goes on from: of two looks side by side the second begins anew.
    this.#folds.delete(id);
    const folded = await this.#store.looks.foldOn(id, before).catch((error: unknown) => {
      if (error instanceof Error) return error;
      throw error;
    });
    if (folded === null) throw new ExecutionNotFoundError(id);
    if (folded instanceof Error) return folded;
    this.#folds.set(id, folded);
    for (const [oldest] of this.#folds) {
      if (this.#folds.size <= keptFolds) break;
      this.#folds.delete(oldest);
    }
    return folded;
  }
}

function metaOf(header: Header, events: readonly SeenEvent[]): Look["meta"] {
  const blocked = events.findLast(({ type }) => type === "execution.blocked");
  const claimed = events.findLast(({ type }) => type === "execution.claimed");
  return {
    executionId: header.id,
    flowName: header.flow,
    status: header.status,
    lifecycleState: header.lifecycle,
    createdAt: header.createdAt,
    startedAt: header.startedAt,
    closedAt: header.closedAt,
    closeReason: header.closeReason,
    stateVersion: header.seq,
    parentId: header.parentId,
    metadata: header.metadata ?? {},
    blocked: blocked && blocked.seq > (claimed?.seq ?? 0) ? String(blocked.payload?.["problem"] ?? "") : null,
  };
}

function problemOf({ id, flow, outcome, closeReason, error }: Header): Look["problem"] {
  if (outcome === null || outcome === "completed") return null;
  return { message: endingError(id, { flow, outcome, reason: closeReason ?? "", error }).message, error };
}

/** What is too long to be shown again and again says how long it is. */
function shortened(state: JsonObject): JsonObject {
  const sizes = Object.entries(state).map(([key, value]) => ({ key, value, size: JSON.stringify(value).length }));
  if (sizes.reduce((sum, { size }) => sum + size, 0) <= shownState) return state;
  const shown: JsonObject = {};
  let left = shownState;
  for (const { key, value, size } of sizes) {
    if (left <= 0) break;
    shown[key] = size <= 2000 || size <= left ? value : `(${size} characters of JSON: read it with getState())`;
    left -= key.length + Math.min(size, left);
  }
  const missing = sizes.length - Object.keys(shown).length;
  return missing === 0 ? shown : { ...shown, "…": `${missing} more keys` };
}
