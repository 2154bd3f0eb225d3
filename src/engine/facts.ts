/** What `nextTurn` asks of an owner; the last of it costs something, and most turns do not come so far. */
import { settle, type Settlement } from "../ledger/settle.ts";
import { heldUntil, isPaused } from "../ledger/waits.ts";
import type { Abandoned } from "./abandoned.ts";
import type { Asks } from "./asks.ts";
import type { Collections } from "./collections.ts";
import type { Commits } from "./commit.ts";
import type { Deadlines } from "./deadlines.ts";
import type { Entries } from "./entries.ts";
import type { Engine } from "./host.ts";
import type { Loop } from "./loop.ts";
import type { Ready } from "./ready.ts";
import { releaseOf, type RunningFacts, type WaitFacts } from "./release.ts";
import type { Running, Wait } from "./running.ts";
import type { Runs } from "./runs.ts";
import type { Slots } from "./slots.ts";
import type { Release, TurnFacts } from "./turn.ts";

/** So many events are folded before they are sent, should more and more come in. */
const unsentAtOnce = 1000;

interface Parts {
  readonly engine: Engine;
  readonly asks: Asks;
  readonly commits: Commits;
  readonly entries: Entries;
  readonly ready: Ready;
  readonly slots: Slots;
  readonly runs: Runs;
  readonly abandoned: Abandoned;
  readonly collections: Collections;
  readonly deadlines: Deadlines;
  readonly loop: Loop;
}

export class Facts implements TurnFacts {
  readonly #of: Parts;

  constructor(parts: Parts) {
    this.#of = parts;
  }

  get isPoked(): boolean {
    return this.#of.loop.isPoked;
  }

  get hasArrival(): boolean {
    const { asks, runs } = this.#of;
    const { closed, failing, cancelling, paused } = asks.state;
    if (closed || failing || cancelling || paused || runs.isFlowPaused) return false;
    return this.#isArrivalDue(asks.now());
  }

  get hasWork(): boolean {
    return this.#of.entries.mayFold;
  }

  get hasRecording(): boolean {
    return this.#of.entries.hasRecording;
  }

  get hasUnsent(): boolean {
    return this.#of.commits.unsent.length > 0;
  }

  get isFull(): boolean {
    return this.#of.commits.unsent.length >= unsentAtOnce;
  }

  get isAwaited(): boolean {
    return this.#of.entries.isAwaited;
  }

  get isFirst(): boolean {
    return this.#of.commits.isFirst;
  }

  get isClaimDue(): boolean {
    return this.#of.deadlines.isClaimDue;
  }

  get running(): number {
    return this.#of.slots.running.size;
  }

  get ending(): Settlement | null {
    const { asks, slots, deadlines } = this.#of;
    return settle(asks.state, asks.now(), slots.running.size, deadlines.isGraceOver);
  }

  get hasItemsToStop(): boolean {
    return this.#of.collections.hasItemsToStop;
  }

  get hasUntimed(): boolean {
    return this.#of.commits.unsent.some(({ type }) => type.startsWith("intervention."));
  }

  get release(): Release | null {
    const { engine, asks, entries, ready, slots, runs, abandoned, collections, deadlines } = this.#of;
    const { state } = asks;
    const now = asks.now();
    if (entries.hasWork || abandoned.isAsking) return null;
    // Most of the time an attempt runs, so there is nothing to release.
    for (const { isWaiting, dispatch } of slots.running.values())
      if (!isWaiting && !collections.get(dispatch.id)) return null;
    const { isFlowPaused } = runs;
    return releaseOf({
      hasShortcuts: engine.hasShortcuts,
      now,
      startedAt: state.startedAt,
      // An execution of a paused flow is given back as due, and claimed again when the flow goes on.
      isDraining: slots.isDraining || isFlowPaused,
      isCancelling: state.cancelling !== null,
      hasDue: !isPaused(state) && (ready.hasDue(now, slots.running) || (isFlowPaused && this.#isArrivalDue(now))),
      nextTimer: deadlines.next(),
      running: [...slots.running.values()].map((running) => this.#runningFacts(running)),
    });
  }

  #runningFacts({ isWaiting, dispatch, waits }: Running): RunningFacts {
    const fanOut = this.#of.collections.get(dispatch.id);
    return {
      isWaiting,
      isFanOut: fanOut !== undefined,
      isIdleFanOut: fanOut?.isIdle ?? false,
      waits: waits.map((wait) => this.#waitFacts(wait)),
    };
  }

  #waitFacts(wait: Wait): WaitFacts {
    const { groups, children } = this.#of.asks.state;
    if (wait.kind === "group") return { kind: "group", isOver: !groups.has(wait.group) };
    if (wait.kind !== "child") return wait;
    return { kind: "child", since: wait.since, isOver: children.get(wait.id)?.closed !== null };
  }

  /** Before a delayed start is due, neither that nor what came in behind it goes anywhere. */
  #isArrivalDue(now: number): boolean {
    const { state } = this.#of.asks;
    const until = heldUntil(state);
    return state.inbox.length > 0 && (until === null || until <= now);
  }
}
