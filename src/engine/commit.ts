/** The appends of one owner: numbered within its epoch, fenced by its lease, folded when the database has answered. */
import { LeaseLostError } from "../base/errors.ts";
import type { Settlement } from "../ledger/settle.ts";
import { writeAgain } from "../ledger/edits.ts";
import { applyCommitTime } from "../ledger/commit-time.ts";
import { evolve } from "../ledger/evolve.ts";
import type { ExecutionId, LedgerEvent, Recorded } from "../ledger/event.ts";
import { freezeState, type ExecutionState } from "../ledger/state.ts";
import { closeSnapshot } from "../ledger/views.ts";
import type { Claim } from "../store/claims.ts";
import type { Append, CloseHeader, Committed } from "../store/append.ts";
import type { Send } from "../store/transactions.ts";
import type { DatabaseClock } from "./clock.ts";
import type { Committer } from "./committer.ts";
import { failpoint } from "./failpoints.ts";
import type { Release } from "./turn.ts";

/** A snapshot is due when what was written since the last one outweighs it, and is worth a row. */
const minSnapshotBytes = 64_000;
/** What Postgres refused once, or what could not go on here, is not tried again at once. */
export const refusedWaitMs = 5000;

export interface Lease {
  readonly id: ExecutionId;
  readonly epoch: number;
  readonly token: string;
}

export interface CommitRequest {
  readonly ending: Settlement | null;
  readonly release: Release | null;
}

export type CommitAnswer =
  | {
      readonly verdict: "ok";
      /** All of it counts: nothing came in that the ending or the release did not know of. */
      readonly isWhole: boolean;
      /** The database's time of it, milliseconds since 1970. */
      readonly at: number;
      readonly events: readonly LedgerEvent[];
      readonly close: CloseHeader | null;
    }
  | { readonly verdict: "fenced" }
  | { readonly verdict: "repeat" };

class NextAppend implements Append {
  readonly id: ExecutionId;
  readonly epoch: number;
  readonly token: string;
  readonly commitNo: number;
  readonly base: number;
  events: readonly LedgerEvent[];
  conditional = 0;
  fingerprint: string | null = null;
  close: CloseHeader | null = null;
  hasRelatives = false;
  release: Append["release"] = null;
  snapshot: Append["snapshot"] = null;

  constructor({ id, epoch, token }: Lease, commitNo: number, base: number, events: readonly LedgerEvent[]) {
    this.id = id;
    this.epoch = epoch;
    this.token = token;
    this.commitNo = commitNo;
    this.base = base;
    this.events = events;
  }
}

export interface GivingBack {
  /** Null where only something from outside can go on with it. */
  readonly wakeInMs: number | null;
  /** The same should something have come in since it was claimed. @default wakeInMs */
  readonly moreInMs?: number;
  /** What is to be known of it, whatever else came in. @default none */
  readonly events?: readonly LedgerEvent[];
  /** Goes with the events, where they are the first of an epoch. */
  readonly fingerprint?: string | null;
  /** The number of the last commit. @default 0 */
  readonly after?: number;
}

/** Gives an execution back; one that is released or closed already is left as it is. What Postgres refuses of it is left out. */
export async function giveBack(
  committer: Committer,
  { seq, ...lease }: Lease & { readonly seq: number },
  { wakeInMs, moreInMs, events = [], fingerprint = null, after = 0 }: GivingBack,
): Promise<void> {
  // Events that came in from outside make the release fail; the next try includes them.
  for (let [base, left, commitNo, waitMs] = [seq, events, after + 1, wakeInMs]; ; commitNo++, left = []) {
    const item = new NextAppend(lease, commitNo, base, left);
    if (left.length > 0) item.fingerprint = fingerprint;
    item.release = { wakeInMs: waitMs };
    const result = await committer.commit(item).catch(() => null);
    if (result === null && left.length > 0) waitMs = Math.max(waitMs ?? 0, refusedWaitMs);
    else if (result?.verdict !== "ok" || result.foreign === null) return;
    else [base, waitMs] = [result.firstSeq + left.length - 1, moreInMs ?? waitMs];
  }
}

export class Commits {
  readonly lease: Lease;
  readonly #state: ExecutionState;
  readonly #committer: Committer;
  readonly #clock: DatabaseClock;
  #commitNo = 0;
  /** The last seq that is folded and known to be in the ledger. */
  #base: number;
  /** Folded, and to be sent with the next commit. */
  #unsent: LedgerEvent[] = [];
  /** How often each top-level key of the state was written. */
  readonly #writes = new Map<string, number>();
  #bytesSinceSnapshot = 0;
  #snapshotBytes = minSnapshotBytes;
  #snapshot: Append["snapshot"] = null;

  constructor({ id, epoch, token, state, bytes, snapshotBytes }: Claim, committer: Committer, clock: DatabaseClock) {
    this.lease = { id, epoch, token };
    this.#state = state;
    this.#committer = committer;
    this.#clock = clock;
    this.#base = state.seq;
    this.#bytesSinceSnapshot = bytes;
    this.#snapshotBytes = Math.max(minSnapshotBytes, snapshotBytes);
    // Without this an execution that parks after each event would be folded from its beginning each time.
    this.takeSnapshot();
  }

  get base(): number {
    return this.#base;
  }

  /** What those hear who ask for more when it is over. */
  get lost(): LeaseLostError {
    return new LeaseLostError(this.lease.id, this.lease.epoch);
  }

  /** Nothing of this epoch is in the ledger. */
  get isFirst(): boolean {
    return this.#commitNo === 0;
  }

  get unsent(): readonly LedgerEvent[] {
    return this.#unsent;
  }

  /** Folds an event of our own at a guessed time: the commit that sends it tells the real one. */
  fold(event: LedgerEvent): void {
    evolve(this.#state, { seq: this.#state.seq + 1, epoch: this.lease.epoch, at: this.#clock.now(), event });
    this.#count(event);
    this.#unsent.push(event);
  }

  /** How often a top-level key of the state was written under this owner. */
  writesOf(key: string): number {
    return this.#writes.get(key) ?? 0;
  }

  #count(event: LedgerEvent): void {
    if (event.type === "state.edited") for (const { path } of event.changes) this.#countWrite(path);
    else if (event.type === "state.set" || event.type === "state.appended" || event.type === "state.deleted")
      this.#countWrite(event.key);
  }

  #countWrite(path: string): void {
    const [top = path] = path.split(".", 1);
    this.#writes.set(top, this.writesOf(top) + 1);
  }

  /** @param own what comes behind it, and is folded already */
  foldForeign(events: readonly Recorded[], own: readonly LedgerEvent[] = this.#unsent): void {
    for (const recorded of events) {
      evolve(this.#state, recorded);
      this.#count(recorded.event);
    }
    writeAgain(this.#state, events, own);
    this.#base = Math.max(this.#base, events.at(-1)?.seq ?? 0);
  }

  /** False where the order cannot be put right: see `writeAgain`. */
  #foldsBehind(events: readonly Recorded[], own: readonly LedgerEvent[]): boolean {
    try {
      this.foldForeign(events, own);
      return true;
    } catch {
      return false;
    }
  }

  /** Sends what is folded, and how the execution ends or that it is given back. @throws what Postgres can never hold */
  async send({ ending, release }: CommitRequest): Promise<CommitAnswer> {
    const own = this.#unsent;
    this.#unsent = [];
    const item = new NextAppend(this.lease, this.#commitNo + 1, this.#base, own);
    if (this.#commitNo === 0) item.fingerprint = this.#state.fingerprint;
    item.release = release;
    item.snapshot = this.#snapshot;
    if (ending) {
      item.events = [...own, ...ending.events];
      if (ending.isConditional) item.conditional = ending.events.length;
      item.close = this.#closeHeader(ending.events);
      item.hasRelatives = item.close !== null && hasRelatives(this.#state, item.close);
    }
    this.#snapshot = null;
    failpoint("before-commit");
    const result = await this.#committer.commit(item);
    failpoint("after-commit");
    if (result.verdict === "fenced") return result;
    this.#commitNo += 1;
    if (result.verdict === "repeat") return result;
    this.#observe(result);
    const isMoved = result.foreign !== null;
    for (const event of own) applyCommitTime(this.#state, event, result.at);
    // The append is in the ledger all the same; the next owner folds it in the ledger's order.
    if (result.foreign && !this.#foldsBehind(result.foreign, [...own, ...this.#unsent])) return { verdict: "repeat" };
    let last = result.firstSeq + own.length - 1;
    if (ending && !(ending.isConditional && isMoved))
      for (const event of ending.events)
        evolve(this.#state, { seq: ++last, epoch: this.lease.epoch, at: result.at, event });
    this.#base = Math.max(this.#base, last);
    // Events folded while the append was on its way come after it.
    this.#state.seq = this.#base + this.#unsent.length;
    const { at } = result;
    return { verdict: "ok", isWhole: !isMoved, at, events: item.events, close: this.#state.closed ? item.close : null };
  }

  /** Sends events that an application's transaction carries. Nothing is folded before it is in: the transaction may yet fail. */
  async sendWithin(events: readonly LedgerEvent[], send: Send): Promise<CommitAnswer["verdict"]> {
    failpoint("before-commit");
    const result = await this.#committer.record(
      new NextAppend(this.lease, this.#commitNo + 1, this.#base, events),
      send,
    );
    failpoint("after-commit");
    if (result.verdict === "fenced") return "fenced";
    this.#commitNo += 1;
    if (result.verdict === "repeat") return "repeat";
    this.#observe(result);
    if (result.foreign && !this.#foldsBehind(result.foreign, this.#unsent)) return "repeat";
    events.forEach((event, index) =>
      evolve(this.#state, { seq: result.firstSeq + index, epoch: this.lease.epoch, at: result.at, event }),
    );
    this.#base = Math.max(this.#base, result.firstSeq + events.length - 1);
    return "ok";
  }

  /** What is not in the ledger of what is folded is dropped. @param events what is to be known of it, whatever else came in */
  giveBack(wakeInMs: number, events: readonly LedgerEvent[] = []): Promise<void> {
    const { fingerprint } = this.#state;
    const at = { ...this.lease, seq: this.#base };
    return giveBack(this.#committer, at, {
      wakeInMs,
      events,
      after: this.#commitNo,
      ...(this.isFirst && { fingerprint }),
    });
  }

  /** Total cost stays linear in what was written: each snapshot is paid for by the bytes since the one before. */
  takeSnapshot(): void {
    if (this.#bytesSinceSnapshot < this.#snapshotBytes) return;
    const state = freezeState(this.#state);
    this.#snapshot = { seq: this.#base, state };
    this.#snapshotBytes = Math.max(minSnapshotBytes, state.length);
    this.#bytesSinceSnapshot = 0;
  }

  #observe({ at, bytes }: Extract<Committed, { verdict: "ok" }>): void {
    this.#clock.observe(at);
    this.#bytesSinceSnapshot += bytes;
  }

  #closeHeader(events: readonly LedgerEvent[]): CloseHeader | null {
    const closed = events.at(-1);
    if (closed?.type !== "execution.closed") return null;
    return {
      outcome: closed.outcome,
      reason: closed.reason,
      error: closed.error ?? null,
      snapshot: closeSnapshot(this.#state),
    };
  }
}

/** A parent waits for the end, or children have to end as well. The parent of an item hears of it in another way. */
export function hasRelatives({ parent, item, children }: ExecutionState, { outcome }: CloseHeader): boolean {
  return (parent !== null && !item) || (children.size > 0 && (outcome !== "completed" || hasAbandoned(children)));
}

function hasAbandoned(children: ExecutionState["children"]): boolean {
  for (const { isAbandoned, closed } of children.values()) if (isAbandoned && closed === null) return true;
  return false;
}
