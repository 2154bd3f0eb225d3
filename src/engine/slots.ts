/** The attempts that run in one owner, and who of them holds one of its slots: a wait gives that up, and queues for another. */
import { unlessAborted } from "../base/async.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Dispatch } from "../ledger/parts.ts";
import { never } from "./ctx/effect.ts";
import type { Loop } from "./loop.ts";
import type { Ready } from "./ready.ts";
import { Running, type Wait } from "./running.ts";

interface Parts {
  readonly state: ExecutionState;
  readonly ready: Ready;
  readonly loop: Loop;
}

export class Slots {
  readonly #of: Parts;
  readonly #running = new Map<number, Running>();
  /** Attempts whose handlers have returned, and that is on its way into the ledger. */
  #ending = 0;
  /** Attempts that were cut off in the middle of something. */
  #cut: Map<number, Running> | undefined;
  /** Attempts whose wait is over and that want a slot again; and slots that were given to some of them in this moment. */
  readonly #resuming: (() => void)[] = [];
  #granted = 0;
  #mode: "serving" | "draining" = "serving";

  constructor(parts: Parts) {
    this.#of = parts;
  }

  /** By dispatch. */
  get running(): ReadonlyMap<number, Running> {
    return this.#running;
  }

  get cut(): ReadonlyMap<number, Running> | undefined {
    return this.#cut;
  }

  /** How many attempts may run besides those that do; Infinity where nothing limits them. */
  get free(): number {
    const limit = this.#of.state.settings.concurrency;
    if (limit === null) return Infinity;
    let taken = this.#ending + this.#granted;
    for (const running of this.#running.values()) if (!running.isWaiting) taken += 1;
    return limit - taken;
  }

  /** Nothing is started any more, and each attempt ends where it next reaches a commit point. */
  get isDraining(): boolean {
    return this.#mode === "draining";
  }

  drain(): void {
    this.#mode = "draining";
  }

  begin(dispatch: Dispatch, times: Running["times"]): Running {
    const running = new Running(dispatch, times);
    this.#running.set(dispatch.id, running);
    return running;
  }

  /** False where it had been cut off before. */
  end(running: Running): boolean {
    return this.#running.get(running.dispatch.id) === running && this.#running.delete(running.dispatch.id);
  }

  /** Its slot is held until its end is in the ledger, or refused: see `free`. */
  hold(): void {
    this.#ending += 1;
  }

  letGo(): void {
    this.#ending -= 1;
  }

  /** The attempt ends here; its dispatch stays open for whoever claims next. */
  cutOff(running: Running, reason: unknown): void {
    const { id } = running.dispatch;
    this.#running.delete(id);
    this.#of.ready.putBack(id);
    (this.#cut ??= new Map()).set(id, running);
    running.cutOff(reason);
  }

  cutOffAll(reason: unknown): void {
    for (const running of this.#running.values()) this.cutOff(running, reason);
  }

  /** The same for those whose dispatches end as well. */
  endAll(dispatches: readonly Dispatch[], reason: unknown): void {
    for (const { id } of dispatches) this.#running.get(id)?.cutOff(reason);
    for (const { id } of dispatches) this.#running.delete(id);
  }

  /** Takes all that run out. */
  clear(): readonly Running[] {
    const all = [...this.#running.values()];
    this.#running.clear();
    return all;
  }

  /** What is cut off here in the middle of something: a park, or whoever claims next, is to go on with it at once. */
  inTheMiddle(except: Running | null): readonly Running[] {
    const { dispatches } = this.#of.state;
    return [...this.#running.values()].filter(
      (running) =>
        running !== except &&
        !running.isWaiting &&
        running.dispatch.journal.length > 0 &&
        dispatches.has(running.dispatch.id),
    );
  }

  /** Something runs in the attempt that a park would cut off. Returns what says that it has ended. */
  busy(dispatch: number): () => void {
    const running = this.#running.get(dispatch);
    if (!running) return () => {};
    const done = running.work();
    return () => {
      if (running.waits.length === 0) return done();
      // The chunk goes on first: a park would cut off what it does next.
      setImmediate(() => {
        done();
        if (running.isWaiting) this.#of.loop.advance();
      });
    };
  }

  /**
   * A wait gives up the attempt's slot, so that what it waits for can run. It is over at once when the execution is cancelled, and
   * never when the attempt was cut off: whoever claims the execution next runs it anew.
   */
  async waiting<T>(dispatch: number, wait: Wait, event: Promise<T>): Promise<T> {
    const running = this.#running.get(dispatch);
    if (!running) return never();
    // What the chunk begins beside this wait goes first: a park would cut it off.
    const begun = this.busy(dispatch);
    running.wait(wait);
    begun();
    const came = await unlessAborted(event, running.abort.signal).then(
      (value) => ({ value }),
      (error: unknown) => ({ error }),
    );
    if (this.#running.get(dispatch) !== running) return never();
    // The attempt queues for a slot, ahead of attempts that have not begun. An aborted one needs none.
    if (running.isWaiting && !running.abort.signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#resuming.push(resolve);
      this.resume();
      await promise;
      if (this.#running.get(dispatch) !== running) return never();
    }
    running.endWait(wait);
    if ("error" in came) throw came.error;
    return came.value;
  }

  /** Gives free slots to those whose wait is over. */
  resume(): void {
    while (this.#resuming.length > 0 && this.free > 0) {
      this.#granted += 1;
      this.#resuming.shift()?.();
      // In the next microtask the attempt holds the slot itself.
      queueMicrotask(() => (this.#granted -= 1));
    }
  }
}
