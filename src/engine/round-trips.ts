/** What is folded goes into the ledger, and those who wait for it are told what the database answered. */
import { decide } from "../ledger/decide.ts";
import type { LedgerEvent } from "../ledger/event.ts";
import type { OwnerMeter } from "../telemetry/meter.ts";
import type { Abandoned } from "./abandoned.ts";
import type { Asks } from "./asks.ts";
import type { Collections } from "./collections.ts";
import type { CommitAnswer, CommitRequest, Commits } from "./commit.ts";
import type { Deadlines } from "./deadlines.ts";
import type { End } from "./end.ts";
import type { Entries } from "./entries.ts";
import type { Engine } from "./host.ts";
import type { Loop } from "./loop.ts";
import type { Ready } from "./ready.ts";
import type { Slots } from "./slots.ts";
import { Work } from "./work.ts";

/** What somebody may wait for, besides the close. */
const announced: ReadonlySet<LedgerEvent["type"]> = new Set([
  "result.set",
  "chunk.parked",
  "interrupt.raised",
  "interrupt.expired",
  "stream.stopped",
]);

interface Parts {
  readonly engine: Engine;
  readonly asks: Asks;
  readonly commits: Commits;
  readonly entries: Entries;
  readonly ready: Ready;
  readonly slots: Slots;
  readonly abandoned: Abandoned;
  readonly collections: Collections;
  readonly deadlines: Deadlines;
  readonly end: End;
  readonly meter: OwnerMeter;
  readonly loop: Loop;
}

export class RoundTrips {
  readonly #of: Parts;

  constructor(parts: Parts) {
    this.#of = parts;
  }

  /** Reads what came in from outside while nothing of ours was on its way. */
  async catchUp(): Promise<void> {
    const { engine, asks, commits, entries, collections, loop } = this.#of;
    loop.waitFor("catchingUp");
    loop.look();
    const foreign = await engine.readEvents(asks.id, commits.base).catch(() => []);
    await loop.resumeAfter(() => {
      commits.foldForeign(foreign);
      collections.pump();
      if (!entries.isFolding) asks.wakeGroups();
    });
  }

  /** Sends all that is folded, and how the execution ends or that it is given back. */
  async commit(request: CommitRequest): Promise<void> {
    const { asks, commits, entries, ready, deadlines, end, loop } = this.#of;
    loop.waitFor("committing");
    deadlines.rest();
    if (request.release && this.#foldInterrupted() && !asks.state.paused)
      request = { ...request, release: { wakeInMs: 0 } };
    const told = entries.takeFolded();
    const { unsent } = commits;
    const planned = ready.takePlanned();
    let answer: CommitAnswer;
    try {
      answer = await commits.send(request);
    } catch (error) {
      return end.refused(error, told, unsent.slice(0, told[0]?.from));
    }
    if (loop.isOver) return;
    try {
      await this.#answered(answer, request, told, planned);
    } catch (error) {
      return end.fail(error);
    }
    loop.goOn();
  }

  /** The database has answered a commit. Returns what has to be waited for before the next turn. */
  #answered(
    answer: CommitAnswer,
    request: CommitRequest,
    told: readonly Work[],
    planned: readonly number[],
  ): Promise<void> | undefined {
    const { engine, asks, commits, entries, ready, abandoned, collections, end, meter } = this.#of;
    const { id, state } = asks;
    if (answer.verdict === "repeat") return end.repeated(told);
    if (answer.verdict === "fenced") {
      end.fenced();
      return undefined;
    }
    meter.committed(answer.events, answer.at, state);
    // An event from outside ends a pause where it is routed; one from within, or that was there before the pause, here.
    for (const event of asks.trace ? answer.events : []) {
      if (event.type !== "interrupt.resumed" || event.byEvent === undefined) continue;
      const interrupt = state.interrupts.get(event.id);
      // Something from outside may have been first.
      if (interrupt?.answeredBy === event.of) asks.trace?.waited(interrupt);
    }
    for (const work of told) entries.accept(work);
    ready.release(planned);
    if (state.closed) {
      end.closed(answer.close);
      return undefined;
    }
    if (answer.events.some(({ type }) => announced.has(type)))
      for (const to of [id, ...(state.parent?.visibleIn ?? [])]) engine.announce(to, null);
    if (request.release && answer.isWhole) {
      const idle = collections.all;
      end.over(null);
      return collections.lookBack(idle);
    }
    commits.takeSnapshot();
    collections.pump();
    asks.wakeGroups();
    if (answer.events.some(({ type }) => type === "child.abandoned")) abandoned.ask();
    return undefined;
  }

  /** A commit that an application's transaction makes. */
  async record(): Promise<void> {
    const { asks, commits, entries, end, loop } = this.#of;
    const recording = entries.takeRecording();
    if (!recording) return;
    const { dispatch, effect, send, accepted, refused } = recording;
    loop.waitFor("committing");
    let verdict: CommitAnswer["verdict"];
    try {
      const events = decide(asks.state, { type: "effect", dispatch, effect }, asks.graph);
      verdict = await commits.sendWithin(events, send);
    } catch (error) {
      // The transaction rolled back, so the ledger has nothing of it.
      refused(error);
      return loop.resumeAfter(() => {});
    }
    // The transaction is answered even if another worker owns the execution by now: unanswered, it would keep its connection and its locks.
    if (verdict !== "ok") refused(commits.lost);
    else if (loop.isOver) accepted();
    await loop.resumeAfter(() => {
      if (verdict === "ok") {
        entries.accept(new Work(dispatch, [], accepted, refused));
        return asks.wakeGroups();
      }
      return verdict === "fenced" ? end.fenced() : end.repeated([]);
    });
  }

  /** What a park would leave waiting, although it was in the middle of something or could run now, is to go on at once. False: nothing. */
  #foldInterrupted(): boolean {
    const { asks, commits, entries, ready, slots } = this.#of;
    const before = commits.unsent.length;
    for (const [id, { times }] of slots.cut ?? []) {
      const dispatch = asks.state.dispatches.get(id);
      if (dispatch && ready.at(dispatch) > asks.now()) entries.fold([{ type: "interrupt", dispatch: id, times }]);
    }
    for (const dispatch of ready.interrupted(asks.now()))
      if (!slots.cut?.has(dispatch.id)) entries.fold([{ type: "interrupt", dispatch: dispatch.id }]);
    return commits.unsent.length > before;
  }
}
