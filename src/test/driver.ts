/** Moves the clock of a test: from due time to due time, and only when nothing is left to do at the present one. */
import { UsageError } from "../base/errors.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import type { ExecutionId, WorkerId } from "../ledger/event.ts";
import { duesOf } from "../ledger/dues.ts";
import type { Store } from "../store/store.ts";
import type { Stepped, TestClock } from "../store/test-clock.ts";
import type { LocalWorker } from "../worker/host.ts";
import { ClockStuckError } from "./errors.ts";
import type { TestTimers } from "./timers.ts";

export interface DriverHost {
  readonly clock: TestClock;
  readonly timers: TestTimers;
  readonly store: Store;
  /** Flows that workers here serve. */
  readonly flows: readonly string[];
  /** Those of this process that are alive. */
  readonly workers: () => readonly LocalWorker[];
  /** Workers whose process is gone, as far as anybody knows. */
  readonly gone: () => readonly WorkerId[];
  /** Real time that running user code gets before the clock is moved all the same. */
  readonly patienceMs: number;
}

/** Something that happens by the clock alone. */
export interface Due {
  readonly at: Date;
  /** In words, e.g. `sleep of chunk "remind" of refund`. */
  readonly what: string;
  /** The execution it belongs to; null for a schedule. */
  readonly executionId: string | null;
}

/** What is to be done at one time takes less than so often the patience, and than this at least; what takes longer stands still. */
const stuckAfter = { patience: 10, ms: 3000 };
/** Between two looks at once while something is under way; then it sleeps in between. */
const spinMs = 5;
/** So many executions that are parked are looked through for what comes next. */
const upcomingAtOnce = 200;

export class Driver {
  readonly #host: DriverHost;
  /** Those who move the clock take turns. */
  #turn: Promise<unknown> = Promise.resolve();
  /** User code by how far it came: since when it stands there, by the real clock. */
  #standing = new Map<string, number>();
  /** Being looked after: asked for again they would queue twice. */
  readonly #advancing = new Set<ExecutionId>();
  #nextWorker = 0;
  /** As far as the last look knows. */
  #hasPeers = false;
  #answered = 0;
  #isCalled = false;
  #isAnswering = false;
  #isClosed = false;

  constructor(host: DriverHost) {
    this.#host = host;
  }

  get now(): number {
    return this.#host.timers.now();
  }

  /** Resolves when nothing is left to do at this time, or when `isDone` says that this will do. */
  settle(isDone: () => boolean = () => false): Promise<void> {
    return this.#inTurn(() => {
      // A test waits: code that hangs gets its patience anew.
      this.#standing.clear();
      return this.#settle(isDone);
    });
  }

  /** Goes to a time, and stops wherever something is due on the way. @throws {UsageError} it is over */
  moveTo(until: number): Promise<void> {
    return this.#inTurn(async () => {
      if (until < this.now)
        throw new UsageError(
          `the clock cannot go back to ${new Date(until).toISOString()}, it is ${new Date(this.now).toISOString()}`,
          "begin a test earlier: testOrchestrator({ now })",
        );
      while (!(await this.#step(until)));
    });
  }

  /** Lets so much time pass, and stops wherever something is due. */
  moveBy(ms: number): Promise<void> {
    return this.#inTurn(async () => {
      const until = this.now + ms;
      while (!(await this.#step(until)));
    });
  }

  /** Goes to the next time at which something is due that has a name, and says what that is; null when there is nothing. */
  next(): Promise<Due | null> {
    return this.#inTurn(async () => {
      await this.#settle();
      let [due] = await this.#upcoming();
      while (due) {
        const { at, what, executionId } = due;
        const all = (await this.#upcoming()).filter((one) => one.at <= at);
        if (await this.#step(at.getTime())) {
          const words = all.length > 1 ? [...new Set(all.map((one) => one.what))].join("; ") : what;
          return { at: new Date(this.now), what: words, executionId };
        }
        // Work on the way may have made something else the next.
        const [sooner] = await this.#upcoming();
        if (sooner && sooner.at < at) due = sooner;
      }
      return null;
    });
  }

  /** What happens by the clock, the next first. */
  upcoming(): Promise<Due[]> {
    return this.#inTurn(async () => {
      await this.#settle();
      return this.#upcoming();
    });
  }

  /** Somebody moved the clock, or asks whether this process is quiet. */
  async hear(): Promise<void> {
    this.#isCalled = true;
    if (this.#isAnswering) return;
    this.#isAnswering = true;
    try {
      while (this.#isCalled && !this.#isClosed) {
        this.#isCalled = false;
        const { nowMs, asked } = await this.#host.clock.read();
        this.#host.timers.follow(nowMs);
        if (asked <= this.#answered) continue;
        await this.#untilDone();
        await this.#host.clock.answer(asked, this.#host.timers.next);
        this.#answered = asked;
      }
    } finally {
      this.#isAnswering = false;
    }
  }

  /** What runs in this process, in words. */
  running(id: ExecutionId): string[] {
    return this.#host
      .workers()
      .flatMap(({ inside }) => inside.owners.get(id)?.userCode.map(({ chunk }) => chunk) ?? []);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#turn;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }

  async #settle(isDone: () => boolean = () => false): Promise<void> {
    const begun = liveness.monotonic();
    while (!isDone()) {
      await this.#untilStill(isDone);
      if (isDone()) return;
      const { stepped, isIdle } = await this.#look(null, "");
      if (isIdle && stepped.peers === 0) return;
      if (isIdle) {
        await this.#askOthers();
        await this.#untilStill(isDone);
        const after = await this.#look(null, "");
        if (after.isIdle && after.stepped.stamp === stepped.stamp) return;
      } else if (stepped.isDueElsewhere) {
        // The job that tells the other workers may be lost.
        await this.#askOthers();
      }
      await this.#pause(begun);
    }
  }

  /** One step towards a time, when nothing is left to do. True when the time is reached, and nothing is left to do then. */
  async #step(until: number): Promise<boolean> {
    const begun = liveness.monotonic();
    for (;;) {
      await this.#untilStill();
      let stamp = "";
      // Other processes are asked only where there are any, which the first look tells.
      if (this.#hasPeers) {
        const before = await this.#look(null, "");
        if (!before.isIdle) {
          if (before.stepped.isDueElsewhere) await this.#askOthers();
          await this.#pause(begun);
          continue;
        }
        stamp = before.stepped.stamp;
        await this.#askOthers();
        await this.#untilStill();
      }
      const { stepped, isIdle } = await this.#look(until, stamp);
      if (stepped.isMoved) return false;
      if (isIdle && stepped.stamp === stamp && stepped.nowMs >= until) return true;
      await this.#pause(begun);
    }
  }

  /** Asks the database what is to be done here, sees to it, and moves the clock where nothing is. */
  async #look(until: number | null, stamp: string): Promise<{ stepped: Stepped; isIdle: boolean }> {
    const { clock, timers, store, flows, workers, gone } = this.#host;
    const alive = workers();
    const lost = gone();
    // Each time: what they had asked for may come through late.
    if (lost.length > 0) {
      await clock.abandon(lost);
      for (const { inside } of alive) for (const owner of inside.owners.values()) await owner.lookAtItems();
      store.wakeups.callAll();
      await this.#untilStill();
    }
    const known: Record<string, number> = {};
    for (const { inside } of alive) for (const owner of inside.owners.values()) known[owner.id] = owner.lease.seq;
    const stepped = await clock.step({
      flows: alive.length === 0 ? [] : flows,
      workers: alive.map(({ id }) => id),
      known,
      localMs: timers.next,
      untilMs: until,
      stamp,
    });
    this.#hasPeers = stepped.peers > 0;
    timers.follow(stepped.nowMs);
    for (const id of stepped.unread) for (const { inside } of alive) inside.owners.get(id)?.poke();
    for (const { id, flow } of stepped.due) this.#advance(id, flow, alive);
    const { due, unread, isDueElsewhere, isClosing, isMoved } = stepped;
    // What went on, or was lost, while the database answered is not in its answer.
    const isStill = this.#isStill() && gone().length === lost.length;
    const isIdle = isStill && !isMoved && due.length === 0 && unread.length === 0 && !isDueElsewhere && !isClosing;
    return { stepped, isIdle };
  }

  #advance(id: ExecutionId, flow: string, alive: readonly LocalWorker[]): void {
    const worker = alive[this.#nextWorker++ % alive.length];
    if (!worker || this.#advancing.has(id)) return;
    this.#advancing.add(id);
    void worker.inside.advance(id, flow).finally(() => this.#advancing.delete(id));
  }

  /** Resolves when all others have said that they are quiet. */
  async #askOthers(): Promise<void> {
    const { clock } = this.#host;
    const begun = liveness.monotonic();
    const asked = await clock.ask();
    // Nobody has to ask us.
    this.#answered = Math.max(this.#answered, asked);
    while ((await clock.unanswered(asked)) > 0) await this.#pause(begun);
  }

  /** Resolves when nothing is left to do for this process at this time, as far as it can see. */
  async #untilDone(): Promise<void> {
    const begun = liveness.monotonic();
    for (;;) {
      await this.#untilStill();
      const { stepped } = await this.#look(null, "");
      if (stepped.due.length + stepped.unread.length === 0) return;
      await this.#pause(begun);
    }
  }

  /** Resolves when nothing goes on in this process but user code that does not get on. */
  async #untilStill(isDone: () => boolean = () => false): Promise<void> {
    const begun = liveness.monotonic();
    for (let quiet = 0; quiet < 2;) {
      await new Promise((resolve) => setImmediate(resolve));
      if (isDone()) return;
      quiet = this.#isStill() ? quiet + 1 : 0;
      if (quiet === 0) await this.#pause(begun, true);
    }
  }

  #isStill(): boolean {
    const { timers, store, workers, patienceMs } = this.#host;
    if (!timers.isQuiet || store.underWay > 0) return false;
    const now = liveness.monotonic();
    const standing = new Map<string, number>();
    let isStill = true;
    for (const { inside } of workers()) {
      if (!inside.isQuiet) isStill = false;
      for (const owner of inside.owners.values()) {
        if (!owner.isStill) isStill = false;
        for (const { place } of owner.userCode) {
          const since = this.#standing.get(place) ?? now;
          standing.set(place, since);
          if (now - since < patienceMs) isStill = false;
        }
      }
    }
    this.#standing = standing;
    return isStill;
  }

  async #pause(begun: number, isSpinning = false): Promise<void> {
    const waitedMs = Math.round(liveness.monotonic() - begun);
    if (this.#isClosed) throw new ClockStuckError(waitedMs, "the test has ended");
    if (waitedMs > Math.max(stuckAfter.ms, stuckAfter.patience * this.#host.patienceMs))
      throw new ClockStuckError(waitedMs, this.#whatGoesOn());
    if (isSpinning && waitedMs < spinMs) return;
    await liveness.sleep(1);
  }

  #whatGoesOn(): string {
    const running = this.#host
      .workers()
      .flatMap(({ inside }) => [...inside.owners.values()].filter(({ isQuiet }) => !isQuiet));
    const names = running.map(({ id, flow, userCode }) => {
      const code = userCode.map(({ chunk }) => `chunk "${chunk}"`).join(", ");
      return `${flow.name} ${id}${code ? ` (${code})` : ""}`;
    });
    return names.length > 0
      ? `${names.slice(0, 5).join(", ")} still runs`
      : "another process, or the database, is still busy";
  }

  async #upcoming(): Promise<Due[]> {
    const { clock, timers, store, workers } = this.#host;
    const { now } = this;
    const dues: Due[] = [];
    const add = (at: number, what: string, executionId: string | null) => {
      if (at > now) dues.push({ at: new Date(Math.ceil(at)), what, executionId });
    };
    for (const { inside } of workers())
      for (const owner of inside.owners.values())
        for (const { at, what } of duesOf(owner.state, now)) add(at, what, owner.id);
    const parked = await clock.upcoming(now, upcomingAtOnce);
    const states = await Promise.all(parked.map(({ id }) => store.reads.loadState(id)));
    parked.forEach(({ id, flow, atMs }, index) => {
      const state = states[index];
      const own = state ? duesOf(state, now) : [];
      for (const { at, what } of own) add(at, what, id);
      if (!state || state.claimedIn === 0) add(atMs, `start of ${flow}`, id);
      else if (own.length === 0) add(atMs, `${flow} goes on`, id);
    });
    for (const { at, what } of timers.waiting) if (what !== undefined) add(at, what, null);
    for (const { flow, atMs } of await clock.nextStarts())
      add(atMs, `the rate of ${flow} lets the next one begin`, null);
    return dues.toSorted((a, b) => a.at.getTime() - b.at.getTime());
  }
}
