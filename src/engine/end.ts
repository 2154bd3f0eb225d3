/** How it ends for an owner: the execution is closed, given back, or another owner has it. */
import { PayloadError } from "../base/errors.ts";
import { decide } from "../ledger/decide.ts";
import type { LedgerEvent } from "../ledger/event.ts";
import type { CloseHeader } from "../store/append.ts";
import type { OwnerMeter } from "../telemetry/meter.ts";
import type { Asks } from "./asks.ts";
import type { Collections } from "./collections.ts";
import { hasRelatives, refusedWaitMs, type Commits } from "./commit.ts";
import type { Deadlines } from "./deadlines.ts";
import type { Entries } from "./entries.ts";
import type { Engine } from "./host.ts";
import type { Loop } from "./loop.ts";
import { serializeError } from "./retries.ts";
import type { Running } from "./running.ts";
import type { Slots } from "./slots.ts";
import type { Work } from "./work.ts";

interface Parts {
  readonly engine: Engine;
  readonly asks: Asks;
  readonly commits: Commits;
  readonly entries: Entries;
  readonly slots: Slots;
  readonly collections: Collections;
  readonly deadlines: Deadlines;
  readonly meter: OwnerMeter;
  readonly loop: Loop;
}

export class End {
  /** Resolves when it is over for this owner. */
  readonly done: Promise<void>;
  readonly #of: Parts;
  readonly #finish: () => void;

  constructor(parts: Parts) {
    this.#of = parts;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.done = promise;
    this.#finish = resolve;
  }

  /** @param reason what attempts that still run hear; null is that the lease is lost */
  over(reason: unknown, phase: "over" | "lost" = "over"): void {
    const { engine, asks, commits, entries, slots, collections, deadlines, loop } = this.#of;
    if (loop.isOver) return;
    loop.end(phase);
    deadlines.rest();
    collections.stop();
    const running = slots.clear();
    const waiting = entries.clear();
    // The error is made only for attempts and commands that are left; a regular end leaves none.
    if (running.length + waiting.length > 0) {
      const why = reason ?? commits.lost;
      for (const one of running) one.cutOff(why);
      for (const { refused } of waiting) refused(why);
    }
    const disposed = asks.resources.dispose();
    if (disposed) engine.onDispose(disposed);
    this.#finish();
  }

  /** Another owner has it: drop everything. */
  lose(): void {
    this.over(this.#of.commits.lost, "lost");
  }

  /** The same, heard by a commit. */
  fenced(): void {
    const { commits, meter } = this.#of;
    meter.fenced(commits.lease.epoch);
    this.lose();
  }

  closed(header: CloseHeader | null): void {
    const { engine, asks } = this.#of;
    const { id, state, flow } = asks;
    if (header && hasRelatives(state, header)) engine.propagateClose(id);
    this.over(null);
    const { item, parent } = state;
    if (item && parent && header) {
      if (engine.hasShortcuts) engine.items.closed(id, header);
      engine.items.wake(parent.id);
    }
    engine.announce(id, header ? { ...header, flow: flow.name } : null);
  }

  /** The commit is in, but its answer was lost with the connection: whoever claims next folds the ledger afresh. */
  async repeated(told: readonly Work[]): Promise<void> {
    const { engine, asks, commits, slots } = this.#of;
    asks.log.info("repeated a commit whose answer was lost", { epoch: commits.lease.epoch });
    const { lost } = commits;
    const hasBegun = slots.running.size > 0;
    slots.cutOffAll(lost);
    for (const work of told) work.refused(lost);
    // The attempts that were cut off have not parked. Freed as lost, the execution is claimed again at once, whatever its timers say.
    if (hasBegun) this.lose();
    else {
      await commits.giveBack(0);
      this.over(lost);
    }
    engine.announce(asks.id, null);
  }

  /** Whatever a step throws gives the execution back. */
  async fail(error: unknown): Promise<void> {
    const { asks, commits, loop } = this.#of;
    if (loop.isOver) return;
    loop.waitFor("committing");
    asks.log.error("an owner could not go on, and gives its execution back", {
      event: "given_back",
      error: error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
    // Before its first commit this epoch is not in the ledger, so no interruption can be recorded under it.
    await commits.giveBack(refusedWaitMs, commits.isFirst ? [] : this.#interruptions(null));
    this.over(commits.lost);
  }

  /**
   * Only what Postgres can never hold gets here. What is folded is not in the ledger, so whoever claims next begins anew; the
   * attempt that wrote it has failed, behind what was folded `before`. Where several had a part in the commit, the next owner finds out whose it was.
   */
  async refused(error: unknown, told: readonly Work[], before: readonly LedgerEvent[]): Promise<void> {
    const { engine, asks, commits, slots, meter, loop } = this.#of;
    const [writer] = told;
    meter.refused((writer?.ended ?? slots.running.get(writer?.dispatch ?? -1))?.dispatch, error);
    if (loop.isOver) return;
    const authors = new Map<number, Running>();
    for (const { ended, dispatch } of told) {
      const running = ended ?? slots.running.get(dispatch ?? -1);
      if (running) authors.set(running.dispatch.id, running);
    }
    const [author] = authors.values();
    const isKnown = author !== undefined && authors.size === 1;
    const failure = isKnown ? this.#failureOf(author, error) : [];
    const events = author ? [...before, ...failure, ...this.#interruptions(isKnown ? author : null)] : [];
    if (authors.size > 1) engine.committingAlone.add(asks.id);
    await commits.giveBack(author ? 0 : refusedWaitMs, events);
    this.over(error);
  }

  /** What is cut off here in the middle of something: it goes on at once, whatever it waits for besides. */
  #interruptions(except: Running | null): LedgerEvent[] {
    const { asks, slots } = this.#of;
    return slots
      .inTheMiddle(except)
      .flatMap(({ dispatch, times }) =>
        decide(asks.state, { type: "interrupt", dispatch: dispatch.id, times }, asks.graph),
      );
  }

  #failureOf({ dispatch, times }: Running, error: unknown): LedgerEvent[] {
    const { state, graph } = this.#of.asks;
    const name = dispatch.chunk ?? dispatch.node;
    const refusal = new PayloadError(
      `what chunk "${name}" wrote`,
      [],
      `Postgres refused it (${String(error)})`,
      "store less, or something else",
      error,
    );
    // The refusal is decided on the dispatch as the ledger has it: the events folded here may have ended it.
    state.dispatches.set(dispatch.id, dispatch);
    const serialized = serializeError(refusal, name, dispatch.failures + 1);
    return decide(state, { type: "fail", dispatch: dispatch.id, error: serialized, retryInMs: null, times }, graph);
  }
}
