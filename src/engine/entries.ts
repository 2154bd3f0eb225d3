/** What is to be in the ledger before it counts: it is handed in, decided and folded here, and told when the commit that sends it is in. */
import { decide } from "../ledger/decide.ts";
import type { Command, Effect } from "../ledger/command.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Graph } from "../flow/graph.ts";
import type { Send } from "../store/transactions.ts";
import type { Abandoned } from "./abandoned.ts";
import type { Commits } from "./commit.ts";
import type { Loop } from "./loop.ts";
import type { Ready } from "./ready.ts";
import { serializeError } from "./retries.ts";
import type { Running } from "./running.ts";
import type { Slots } from "./slots.ts";
import type { StateContract } from "./state-contract.ts";
import { Work, type Recording } from "./work.ts";

const nothing = () => {};

interface Parts {
  readonly state: ExecutionState;
  readonly graph: Graph;
  readonly commits: Commits;
  readonly stateContract: StateContract;
  readonly ready: Ready;
  readonly slots: Slots;
  readonly abandoned: Abandoned;
  readonly loop: Loop;
  /** Each attempt's work is a commit of its own, so that a refusal tells whose it was. */
  readonly isEachAlone: boolean;
}

export class Entries {
  readonly #of: Parts;
  #work: Work[] = [];
  /** Folded, and to be told when the next commit is in. */
  #folded: Work[] = [];
  #recordings: Recording[] = [];

  constructor(parts: Parts) {
    this.#of = parts;
  }

  /** Attempts have ended, or reached a commit point, and that is not folded. */
  get hasWork(): boolean {
    return this.#work.length > 0;
  }

  get mayFold(): boolean {
    return this.#work.length > 0 && !(this.#of.isEachAlone && this.#folded.length > 0);
  }

  /** Somebody waits for what is folded. */
  get isAwaited(): boolean {
    return this.#folded.length > 0;
  }

  /** The work of a transaction is done: it wants its record. */
  get hasRecording(): boolean {
    return this.#recordings.length > 0;
  }

  /** What attempts did is folded, and not in the ledger yet. */
  get isFolding(): boolean {
    const { loop, commits } = this.#of;
    return loop.phase === "committing" || commits.unsent.some(({ type }) => type !== "execution.claimed");
  }

  /** Resolves when what the commands lead to is in the ledger. @param dispatch of the attempt that waits for it */
  submit(dispatch: number | null, commands: readonly Command[]): Promise<void> {
    const { loop, commits } = this.#of;
    return new Promise((accepted, refused) => {
      if (loop.isOver) return refused(commits.lost);
      this.#work.push(new Work(dispatch, commands, accepted, refused));
      loop.advance();
    });
  }

  /** The same for an effect that an application's transaction carries. */
  record(dispatch: number, effect: Effect, send: Send): Promise<void> {
    const { loop, commits } = this.#of;
    return new Promise((accepted, refused) => {
      if (loop.isOver) return refused(commits.lost);
      this.#recordings.push({ dispatch, effect, send, accepted, refused });
      loop.advance();
    });
  }

  /** How an attempt ended; until that is in the ledger it holds its slot. */
  end(running: Running, commands: readonly Command[]): void {
    const { loop, slots, state } = this.#of;
    if (loop.isOver || !slots.end(running)) return;
    // An attempt that a cancel interrupted has not failed.
    const counts =
      state.cancelling && !running.dispatch.cleanup ? commands.filter(({ type }) => type !== "fail") : commands;
    if (counts.length === 0) return loop.advance();
    this.#work.push(new Work(null, counts, nothing, nothing, running));
    slots.hold();
    loop.advance();
  }

  /** Folds what the owner decides. */
  fold(commands: readonly Command[]): void {
    const { state, graph, commits, ready, abandoned } = this.#of;
    for (const command of commands)
      for (const event of decide(state, command, graph)) {
        commits.fold(event);
        ready.notice(event);
        if (event.type === "child.abandoned") abandoned.add(event.child);
      }
  }

  /** What attempts have done and how they ended, in the order in which that came. */
  foldWork(): void {
    const { commits, stateContract, isEachAlone } = this.#of;
    for (const work of this.#work.splice(0, isEachAlone ? 1 : Infinity)) {
      work.from = commits.unsent.length;
      try {
        stateContract.checkAgain(work.commands);
        this.fold(work.commands);
        this.#folded.push(work);
      } catch (error) {
        if (work.ended) this.#refuseEnd(work.ended, error);
        // Its commit point is refused; or the dispatch is gone, since the execution has ended.
        work.refused(error);
      }
    }
  }

  /** Those who wait for what is folded, the oldest first: they are told by whoever sends it. */
  takeFolded(): readonly Work[] {
    return this.#folded.splice(0);
  }

  takeRecording(): Recording | undefined {
    return this.#recordings.shift();
  }

  /** Takes all out that waits for an answer. */
  clear(): readonly (Work | Recording)[] {
    return [...this.#work.splice(0), ...this.#folded.splice(0), ...this.#recordings.splice(0)];
  }

  /** It is in the ledger: a commit point is reached. While draining it is also where the attempt ends, to go on elsewhere. */
  accept(work: Work): void {
    const { slots, commits } = this.#of;
    if (work.ended) slots.letGo();
    const running = work.dispatch === null ? undefined : slots.running.get(work.dispatch);
    if (running && slots.isDraining) slots.cutOff(running, commits.lost);
    else work.accepted();
  }

  /** What an attempt ended with cannot be: it has failed. */
  #refuseEnd({ dispatch, times }: Running, error: unknown): void {
    const { slots, state } = this.#of;
    slots.letGo();
    if (!state.dispatches.has(dispatch.id)) return;
    const serialized = serializeError(error, dispatch.chunk ?? dispatch.node, dispatch.failures + 1);
    this.fold([{ type: "fail", dispatch: dispatch.id, error: serialized, retryInMs: null, times }]);
  }
}
