/** What the clock brings to an owner: the grace of a cancel, the timeout of the execution, and when it next has something to do. */
import { systemTimers as liveness, type Timer } from "../base/timers.ts";
import { ExecutionTimeoutError, UsageError } from "../base/errors.ts";
import { isCleaning } from "../ledger/cleanup.ts";
import { decide } from "../ledger/decide.ts";
import { deadlineOf, nextTimer } from "../ledger/settle.ts";
import { isPaused } from "../ledger/waits.ts";
import type { Asks } from "./asks.ts";
import { overdueCommand } from "./cleanup.ts";
import type { Commits } from "./commit.ts";
import type { Entries } from "./entries.ts";
import type { Engine } from "./host.ts";
import type { Loop } from "./loop.ts";
import type { Ready } from "./ready.ts";
import { childWaitMs } from "./release.ts";
import type { Slots } from "./slots.ts";

/** A claim that nothing follows soon is written on its own, so that everybody sees who has the execution. */
const claimFlushDelayMs = 25;

interface Parts {
  readonly engine: Engine;
  readonly asks: Asks;
  readonly commits: Commits;
  readonly entries: Entries;
  readonly ready: Ready;
  readonly slots: Slots;
  readonly loop: Loop;
}

export class Deadlines {
  readonly #of: Parts;
  #timer: Timer | undefined;
  /** Until when the claim alone is held back; null when that is over. */
  #claimTimer: Timer | null | undefined;
  /** When the grace of a cancel is over: for what runs, and after that for what cleans up. */
  #graceEnd: number | null = null;

  constructor(parts: Parts) {
    this.#of = parts;
  }

  /** The claim alone was held back for long enough. */
  get isClaimDue(): boolean {
    return this.#claimTimer === null;
  }

  /** A cancel no longer waits for what runs. */
  get isGraceOver(): boolean {
    return this.#graceEnd !== null && this.#of.asks.now() >= this.#graceEnd;
  }

  /** A cancel interrupts what runs; a timeout that is over ends the execution. */
  fallDue(): void {
    const { engine, asks, entries, slots } = this.#of;
    const { id, state } = asks;
    if (state.cancelling && this.#graceEnd === null) {
      this.#graceEnd = asks.now() + engine.cancelGraceMs;
      const reason = new UsageError(
        `execution ${id} was cancelled: ${state.cancelling.reason}`,
        "stop when ctx.signal aborts",
      );
      for (const { abort, dispatch } of slots.running.values()) if (!dispatch.cleanup) abort.abort(reason);
    }
    if (state.cancelling && !state.failing && !state.closed) this.#cleanUp();
    const deadline = deadlineOf(state);
    if (deadline === null || state.failing || state.closed || state.cancelling?.isCleaned || asks.now() < deadline)
      return;
    const { name, message, code } = new ExecutionTimeoutError(id, state.settings.timeoutMs ?? 0);
    entries.fold([{ type: "abort", reason: "timeout", error: { name, message, code } }]);
  }

  /** Once what runs has ended, or had its grace, `onCancel` handlers get theirs; what is left of them then has failed. */
  #cleanUp(): void {
    const { engine, asks, commits, entries, slots } = this.#of;
    const { state, graph } = asks;
    if (entries.hasWork || entries.hasRecording) return;
    const { cancelGraceMs } = engine;
    if (isCleaning(state)) {
      if (!this.isGraceOver) return;
      const late = [...state.dispatches.values()];
      slots.endAll(late, commits.lost);
      return entries.fold(late.map((dispatch) => overdueCommand(dispatch, cancelGraceMs)));
    }
    if (slots.running.size > 0 && !this.isGraceOver) return;
    if (decide(state, { type: "cleanUp" }, graph).length === 0) return;
    slots.cutOffAll(commits.lost);
    entries.fold([{ type: "cleanUp" }]);
    this.#graceEnd = asks.now() + cancelGraceMs;
  }

  /** When the execution or one of its dispatches next has something to do on its own, later than `after`; null when never. */
  next(after = -Infinity): number | null {
    const { asks, ready } = this.#of;
    const planned = isPaused(asks.state) ? Infinity : ready.nextAt(Math.max(after, 0));
    const next = Math.min(nextTimer(asks.state, after) ?? Infinity, planned);
    return next === Infinity ? null : next;
  }

  /**
   * Goes on when something falls due.
   *
   * @param since when what is ready was last looked through, so that nothing falls due unseen in between
   */
  arm(since: number): void {
    const { asks, slots, loop } = this.#of;
    this.#timer?.cancel();
    let next = this.next(since) ?? Infinity;
    if (this.#graceEnd !== null) next = Math.min(next, this.#graceEnd);
    for (const { waits } of slots.running.values())
      for (const wait of waits)
        if (wait.kind === "child" && wait.since !== null && wait.since + childWaitMs > asks.now())
          next = Math.min(next, wait.since + childWaitMs);
    const what =
      next === this.#graceEnd ? `the grace of a cancelled execution of ${asks.flow.name} is over` : undefined;
    if (next !== Infinity) this.#timer = asks.timers.at(next, asks, () => loop.advance(), what);
  }

  /** Holds the claim alone back for a moment: what follows soon travels with it. */
  linger(since: number): void {
    this.#claimTimer ??= liveness.after(claimFlushDelayMs, () => {
      this.#claimTimer = null;
      this.#of.loop.advance();
    });
    this.arm(since);
  }

  rest(): void {
    this.#timer?.cancel();
    this.#claimTimer?.cancel();
  }
}
