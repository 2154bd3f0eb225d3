/** Advances one execution through one epoch: claim → turns → release. Whatever it decides is in the ledger before it counts. */
import { systemTimers as liveness, type Timer, type Timers } from "../base/timers.ts";
import type { Append, CloseHeader } from "../store/append.ts";
import type { Claim } from "../store/claims.ts";
import type { RetryMark } from "../store/streams.ts";
import type { Send, Transactions } from "../store/transactions.ts";
import { LeaseLostError, UsageError, WorkerCrashLoopError } from "../base/errors.ts";
import type { ExecutionInfo, Logger } from "../flow/context.ts";
import { parseEvent, parseInput } from "../flow/contract.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { BatchNode, Chunk, ForEachNode, Graph, Node } from "../flow/graph.ts";
import { deadlineOf, decide, dueAt, entryNodes, nextTimer, settle } from "../ledger/decide.ts";
import type { AttemptTimes, Command, Effect, Hits, Settlement } from "../ledger/decide.ts";
import { evolve, plannedBy, stamp } from "../ledger/evolve.ts";
import { freezeState, type Dispatch, type ExecutionState } from "../ledger/state.ts";
import type { ExecutionId, LedgerEvent, Recorded, WorkerId } from "../ledger/event.ts";
import type { Json } from "../base/json.ts";
import { closeSnapshot } from "../ledger/views.ts";
import { readerOf, runAttempt } from "./chunk.ts";
import type { ChunkHost, ClosedExecution, Ended, FlowDataAccess } from "./chunk.ts";
import { subFlowChunk } from "./child.ts";
import type { NewChild } from "./child.ts";
import type { DatabaseClock } from "./clock.ts";
import type { Committer } from "./committer.ts";
import { failpoint } from "./failpoints.ts";
import { FanOut } from "./fanout.ts";
import type { FanOutHost } from "./fanout.ts";
import type { Items } from "./items.ts";
import { ExecutionResources } from "./resources.ts";
import type { Resources, WorkerResources } from "./resources.ts";
import { serializeError } from "./retries.ts";
import { askConditions, meetsMatch } from "./routing.ts";
import type { Put, StreamTarget } from "./streamer.ts";

/** What the owners of one worker share. */
export interface Engine {
  readonly workerId: WorkerId;
  readonly committer: Committer;
  readonly transactions: Transactions;
  readonly clock: DatabaseClock;
  /** For everything that a flow's user sees. */
  readonly timers: Timers;
  readonly log: Logger;
  readonly resources: WorkerResources;
  flowResources(flow: string): Resources;
  executionResources(id: ExecutionId): Resources;
  flowData(flow: string): FlowDataAccess;
  putIntoStream(target: StreamTarget, item: Json, dispatch: number, mark: RetryMark | null): Put;
  /** Creates a child, once, and resolves with how it ended; rejects when the signal aborts. */
  runChild(child: NewChild, options: ChildOptions): Promise<ClosedExecution>;
  /** Executions that are items of a distributed collection. */
  readonly items: Items;
  /** The execution waits for others from now on: it takes no place of the worker. */
  waitsForOthers(id: ExecutionId): void;
  /** Tells a closed execution's parent and children of its end. */
  propagateClose(id: ExecutionId): void;
  /** Ledger events after a seq. */
  readEvents(id: ExecutionId, after: number): Promise<readonly Recorded[]>;
  /** Tells everybody who waits on the execution that there is something new. */
  announce(id: ExecutionId, closed: ClosedExecution | null): void;
  /** An owner's resources are being disposed. Nobody waits for that, but the end of the worker. */
  onDispose(disposed: Promise<void>): void;
  /** Grace that running chunks get after a cancel. */
  readonly cancelGraceMs: number;
  /** Whether short waits stay in memory, and items hear of each other's end here. */
  readonly hasShortcuts: boolean;
}

export interface ChildOptions {
  /** Called when the child is in the database: from then on its end will be in its parent's ledger. */
  readonly onCreated: () => void;
  readonly signal: AbortSignal;
}

/** Timers nearer than this stay in memory; for farther ones the execution is released. */
const nearMs = 1000;
/** A parent of items that nothing wakes looks again after as long as it has run, within these bounds: wake-ups may be lost. */
const lookAgainMs = { least: 60_000, most: 3_600_000 };
/** For so long an execution that only waits for sub-flows stays here; then it is released, and their end wakes it. */
const lingerMs = 1000;
/** A claim that nothing follows soon is written on its own, so that everybody sees who has the execution. */
const lonelyClaimMs = 25;
/** So many workers may be lost without progress before an execution is taken for the cause. */
const maxTakeovers = 5;
/** What Postgres refused once is not tried again at once. */
const refusedWaitMs = 5000;
/** A snapshot is due when what was written since the last one outweighs it, and is worth a row. */
const minSnapshotBytes = 64_000;

interface Work {
  /** The attempt that waits for the answer; null when it has ended. */
  readonly dispatch: number | null;
  readonly commands: Command[];
  readonly accepted: (() => void) | null;
  readonly refused: ((error: unknown) => void) | null;
}

/** A record that an application's transaction carries. */
interface Recording {
  readonly dispatch: number;
  readonly effect: Effect;
  readonly send: Send;
  readonly accepted: () => void;
  readonly refused: (error: unknown) => void;
}

interface Running {
  readonly dispatch: Dispatch;
  readonly times: AttemptTimes;
  readonly abort: AbortController;
  /** Waits for time or for what it emitted, so it takes no place of the concurrency. */
  waits: number;
  /** The sub-flow it waits for, and since when nothing but its end is missing. */
  child: { readonly id: ExecutionId; readonly since: number } | null;
}

export class Owner implements ChunkHost {
  readonly id: ExecutionId;
  readonly flow: FlowDefinition;
  readonly graph: Graph;
  readonly info: ExecutionInfo;
  readonly resources: ExecutionResources;
  readonly log: Logger;
  readonly timers: Timers;
  readonly flowData: FlowDataAccess;
  readonly state: ExecutionState;
  /** Resolves when it is over for this owner. */
  readonly done: Promise<void>;

  readonly #engine: Engine;
  readonly #nearMs: number;
  readonly #lingerMs: number;
  readonly #epoch: number;
  readonly #token: string;
  readonly #stream: StreamTarget;
  /** What an earlier owner may have begun, and has put nothing into the stream under this one. */
  readonly #inherited: Set<number>;
  #finish: () => void = () => {};
  #commitNo = 0;
  /** The last seq that is folded and known to be in the ledger. */
  #base: number;
  #work: Work[] = [];
  /** Transactions whose work is done: each is a commit of its own. */
  #recordings: Recording[] = [];
  /** Folded, and to be sent with the next commit. */
  #unsent: LedgerEvent[] = [];
  #running = new Map<number, Running>();
  /** Distributed collections under way, by dispatch. */
  #fanOuts = new Map<number, FanOut>();
  #isStoppingItems = false;
  #areItemsStopped = false;
  #ready: number[] = [];
  /** Collection items under way, by node, where the node limits them. */
  #itemsUnderWay = new Map<string, Set<string>>();
  /** When what is ready was last looked through, by the database's clock. */
  #lookedAt = 0;
  #groupWaiters = new Map<number, () => void>();
  /** Chunks whose wait is over and that want a place again. */
  #resuming: (() => void)[] = [];
  #isFlying = false;
  #isRouting = false;
  #isPoked = false;
  #isOver = false;
  #isLost = false;
  #isDraining = false;
  #isClaimDue = false;
  /** Work that is folded and waits for an arrival to be routed before it is sent. */
  #folded: Work[] = [];
  #timer: Timer | undefined;
  #claimTimer: Timer | undefined;
  #bytesSinceSnapshot = 0;
  #snapshotBytes = minSnapshotBytes;
  #snapshot: Append["snapshot"] = null;
  #cancelDeadline: number | null = null;

  /**
   * @param nodes what the nodes it stands at are called in this version of the flow, where that differs
   * @param recent when its last stream items were put, where the flow limits their rate
   */
  constructor(
    engine: Engine,
    flow: FlowDefinition,
    claim: Claim,
    nodes: Readonly<Record<string, string>> = {},
    recent: readonly number[] = [],
  ) {
    this.#engine = engine;
    this.#nearMs = engine.hasShortcuts ? nearMs : 0;
    this.#lingerMs = engine.hasShortcuts ? lingerMs : 0;
    this.id = claim.id;
    this.flow = flow;
    this.graph = flow.graph;
    this.state = claim.state;
    this.log = engine.log;
    this.timers = engine.timers;
    this.flowData = engine.flowData(flow.name);
    this.#epoch = claim.epoch;
    this.#token = claim.token;
    const visibleIn = claim.state.parent?.visibleIn;
    const { id, epoch, token, items } = claim;
    this.#stream = { id, epoch, token, visibleIn, items, ...flow.streamLimits, recent };
    this.#inherited = new Set(claim.state.dispatches.keys());
    this.#base = claim.state.seq;
    this.info = { id: claim.id, flow: flow.name, metadata: claim.state.metadata };
    this.resources = new ExecutionResources(
      {
        execution: engine.executionResources(claim.state.item && claim.state.parent ? claim.state.parent.id : claim.id),
        flow: engine.flowResources(flow.name),
        worker: engine.resources,
        requirements: flow.requirements,
      },
      this.info,
      engine.log,
    );
    this.done = new Promise((resolve) => (this.#finish = resolve));
    engine.clock.observe(claim.now);
    for (const id of this.state.dispatches.keys()) this.#ready.push(id);
    const fingerprint = flow.fingerprint;
    const { discardAt } = this.state.settings;
    const isLate = claim.epoch === 1 && discardAt !== null && claim.now >= discardAt;
    this.#fold(decide(this.state, { type: "claim", worker: engine.workerId, fingerprint, nodes, isLate }, this.graph));
    this.#restoreItems();
    if (claim.takeovers >= maxTakeovers) {
      const error = new WorkerCrashLoopError(this.id, this.#suspect(), claim.takeovers);
      this.#fold(
        decide(this.state, { type: "abort", reason: "worker_crash_loop", error: serializeError(error) }, this.graph),
      );
    }
    this.#turn();
  }

  // ── what a chunk asks of its owner ──────────────────────────────────────────────────────────────────────────

  now(): number {
    return this.#engine.clock.now();
  }

  commit(dispatch: number, effects: readonly Effect[]): Promise<void> {
    const commands = effects.map((effect): Command => ({ type: "effect", dispatch, effect }));
    return new Promise((accepted, refused) => this.#submit({ dispatch, commands, accepted, refused }));
  }

  record(dispatch: number, effect: Effect, send: Send): Promise<void> {
    return new Promise((accepted, refused) => {
      if (this.#isOver) return refused(new LeaseLostError(this.id, this.#epoch));
      this.#recordings.push({ dispatch, effect, send, accepted, refused });
      this.#turn();
    });
  }

  get transactions(): Transactions {
    return this.#engine.transactions;
  }

  async groupEnd(dispatch: number, group: number): Promise<void> {
    if (!this.state.groups.has(group)) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#groupWaiters.set(group, resolve);
    await this.#waiting(dispatch, promise);
  }

  async waitUntil(dispatch: number, ms: number): Promise<void> {
    if (ms <= this.now()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const alarm = this.timers.at(ms, this, resolve);
    this.#running.get(dispatch)?.abort.signal.addEventListener("abort", () => alarm.cancel(), { once: true });
    await this.#waiting(dispatch, promise);
  }

  putIntoStream({ id, chunk, failures }: Dispatch, item: Json): Put {
    const mark = this.#inherited.has(id) && chunk !== null ? { dispatch: id, chunk, attempt: failures + 1 } : null;
    const put = this.#engine.putIntoStream(this.#stream, item, id, mark);
    // Not before: an item that is refused leaves its mark to the next one.
    this.#inherited.delete(id);
    return put;
  }

  async runChild(
    dispatch: number,
    child: Omit<NewChild, "parent"> & { readonly ordinal: number },
  ): Promise<ClosedExecution> {
    const { ordinal, ...rest } = child;
    const running = this.#running.get(dispatch);
    if (!running) throw new LeaseLostError(this.id, this.#epoch);
    const isSubFlow = running.dispatch.chunk === null;
    const visibleIn = isSubFlow ? { visibleIn: [this.id, ...(this.state.parent?.visibleIn ?? [])] } : {};
    const isHidden = isSubFlow && this.state.settings.hidden;
    const ending = this.#engine.runChild(
      { ...rest, parent: { id: this.id, dispatch, ordinal, ...visibleIn }, isHidden },
      {
        signal: running.abort.signal,
        onCreated: () => {
          if (isSubFlow) running.child = { id: child.id, since: this.now() };
          this.#turn();
        },
      },
    );
    await this.#waiting(
      dispatch,
      ending.then(() => {}),
    );
    running.child = null;
    return ending;
  }

  async isDropped(child: ExecutionId): Promise<boolean> {
    const isMarked = () => (this.state.children.get(child)?.cancelledAt ?? null) !== null;
    while (!isMarked() && !this.#isOver) {
      // The child ended of it, so it is in the ledger; this owner may not have read so far.
      const events = await this.#engine.readEvents(this.id, this.#base).catch(() => null);
      if (events)
        return isMarked() || events.some(({ event }) => event.type === "child.cancelled" && event.child === child);
      await liveness.sleep(500, { ref: false });
    }
    return isMarked();
  }

  /** A chunk that waits gives up its place, so that what it waits for can run. */
  async #waiting(dispatch: number, event: Promise<void>): Promise<void> {
    const running = this.#running.get(dispatch);
    if (!running) return event;
    running.waits += 1;
    if (!this.#isFlying) this.#startReady();
    this.#turn();
    await event;
    // Its place may be taken by now: it queues for one, ahead of what has not begun.
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#resuming.push(() => {
      running.waits -= 1;
      resolve();
    });
    this.#resume();
    await promise;
  }

  #resume(): void {
    while (this.#resuming.length > 0 && this.#freePlaces() > 0) this.#resuming.shift()?.();
  }

  #freePlaces(): number {
    const limit = this.state.settings.concurrency;
    if (limit === null) return Infinity;
    let taken = 0;
    for (const { waits } of this.#running.values()) if (waits === 0) taken += 1;
    return limit - taken;
  }

  // ── what the worker asks ────────────────────────────────────────────────────────────────────────────────────

  /** Something came in from outside: read it. */
  poke(): void {
    this.#isPoked = true;
    this.#turn();
  }

  /** Gives the execution back at the next commit point; nothing new is started. */
  drain(): void {
    this.#isDraining = true;
    this.#turn();
  }

  /** Ends what still runs here. Its effects up to the last commit point stay. */
  abort(reason: unknown): void {
    for (const { abort, dispatch } of this.#running.values()) {
      abort.abort(reason);
      this.#abandon(dispatch.id);
    }
    this.#turn();
  }

  get running(): number {
    return this.#running.size;
  }

  get lease(): { readonly id: ExecutionId; readonly epoch: number; readonly seq: number } {
    return { id: this.id, epoch: this.#epoch, seq: this.#base };
  }

  /** It ended because the lease did. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** Another owner has it: drop everything. */
  lose(): void {
    this.#isLost = true;
    this.#over(new LeaseLostError(this.id, this.#epoch));
  }

  // ── turns ───────────────────────────────────────────────────────────────────────────────────────────────────

  #submit(work: Work): void {
    if (this.#isOver) {
      work.refused?.(new LeaseLostError(this.id, this.#epoch));
      return;
    }
    this.#work.push(work);
    this.#turn();
  }

  /** One turn: fold what was done, route what came in, start what is ready, append what happened. */
  #turn(): void {
    if (this.#isOver || this.#isFlying || this.#isRouting || this.#isStoppingItems) return;
    if (this.#isPoked) return void this.#catchUp();
    if (this.#hasArrival()) return this.#route();
    if (this.#unsent.length === 0) {
      const recording = this.#recordings.shift();
      if (recording) return void this.#flyWithin(recording);
    }
    // Only a fresh claim starts chunks before its first commit: what it planned follows from the ledger alone.
    if (this.#commitNo === 0 && this.#unsent.length > 0) this.#startReady();
    const waiting: Work[] = [];
    for (const work of this.#work.splice(0)) {
      try {
        for (const command of work.commands) this.#fold(decide(this.state, command, this.graph));
        waiting.push(work);
      } catch (error) {
        // The dispatch is gone: the execution ended meanwhile.
        work.refused?.(error);
      }
    }
    if (this.#hasArrival()) {
      this.#folded.push(...waiting);
      return this.#route();
    }
    const accepted = [...this.#folded.splice(0), ...waiting];
    const settled = this.#settlement();
    if (settled && this.#hasItemsToStop()) {
      this.#folded.push(...accepted);
      return void this.#stopItems();
    }
    // The close snapshot tells when interventions were inserted and consumed, and only the database knows: they go first.
    const isEarly = settled?.events.at(-1)?.type === "execution.closed" && this.#unsent.some(isIntervention);
    const ending = isEarly ? null : settled;
    const release = settled === null ? this.#releaseNow() : null;
    if (this.#unsent.length === 0 && ending === null && release === null) return this.#arm();
    const isOnlyClaim =
      this.#commitNo === 0 && accepted.length === 0 && this.#recordings.length === 0 && this.#running.size > 0;
    if (isOnlyClaim && ending === null && !this.#isClaimDue) {
      this.#claimTimer ??= liveness.after(lonelyClaimMs, () => {
        this.#isClaimDue = true;
        this.#turn();
      });
      return this.#arm();
    }
    void this.#fly(accepted, ending, release);
  }
  #settlement(): Settlement | null {
    const { state } = this;
    if (state.cancelling && this.#cancelDeadline === null) {
      this.#cancelDeadline = this.now() + this.#engine.cancelGraceMs;
      for (const { abort } of this.#running.values())
        abort.abort(
          new UsageError(
            `execution ${this.id} was cancelled: ${state.cancelling.reason}`,
            "stop when ctx.signal aborts",
          ),
        );
    }
    const deadline = deadlineOf(state);
    if (deadline !== null && !state.failing && !state.closed && this.now() >= deadline) {
      const error = {
        name: "ExecutionTimeoutError",
        message: `execution ${this.id} ran longer than its timeout of ${state.settings.timeoutMs ?? 0} ms`,
      };
      this.#fold(decide(state, { type: "abort", reason: "timeout", error }, this.graph));
    }
    const isGraceOver = this.#cancelDeadline !== null && this.now() >= this.#cancelDeadline;
    return settle(state, this.now(), this.#running.size, isGraceOver);
  }

  /** Whether to give the execution back: nothing runs here, and nothing is due soon. */
  #releaseNow(): { wakeInMs: number | null } | null {
    for (const { waits } of this.#running.values()) if (waits === 0) return null;
    if (this.#running.size > 0 && !this.#areWaitsFar()) return null;
    if (this.#hasReady() && !this.#isDraining) return null;
    const next = this.#nextWake();
    if (next === null) return { wakeInMs: null };
    const wakeInMs = Math.max(0, next - this.now());
    return wakeInMs > this.#nearMs || this.#isDraining ? { wakeInMs } : null;
  }

  #nextWake(): number | null {
    // What a cancel interrupted ends in a moment, and with it the execution.
    if (this.state.cancelling || this.#hasReady() || this.#isGivenUp()) return 0;
    const timer = nextTimer(this.state);
    if (this.#fanOuts.size === 0) return timer;
    const now = this.now();
    const runs = now - (this.state.startedAt ?? now);
    return Math.min(timer ?? Infinity, now + Math.min(Math.max(runs, lookAgainMs.least), lookAgainMs.most));
  }

  #areWaitsFar(): boolean {
    for (const { dispatch, child } of this.#running.values()) {
      if (this.#fanOuts.get(dispatch.id)?.isIdle) continue;
      if (child && this.now() >= child.since + this.#lingerMs && !this.#hasEnded(child.id)) continue;
      const due = dueAt(dispatch);
      if (due === null || due - this.now() <= this.#nearMs) return this.#isDraining;
    }
    return true;
  }

  #hasEnded(child: ExecutionId): boolean {
    return this.state.children.get(child)?.closed !== null;
  }

  /** While draining: an attempt waits for what will not wake the execution, so somebody has to go on waiting elsewhere. */
  #isGivenUp(): boolean {
    for (const { dispatch, child } of this.#running.values())
      if (dueAt(dispatch) === null && (!child || this.#hasEnded(child.id)) && !this.#fanOuts.get(dispatch.id)?.isIdle)
        return true;
    return false;
  }

  /** A commit that an application's transaction makes. Nothing is folded before it is in: the transaction may yet fail. */
  async #flyWithin({ dispatch, effect, send, accepted, refused }: Recording): Promise<void> {
    this.#isFlying = true;
    try {
      const events = decide(this.state, { type: "effect", dispatch, effect }, this.graph);
      failpoint("before-commit");
      const result = await send({
        ...this.#emptyAppend(),
        commitNo: this.#commitNo + 1,
        events,
      });
      failpoint("after-commit");
      if (this.#isOver) return refused(new LeaseLostError(this.id, this.#epoch));
      if (result.verdict === "fenced") {
        refused(new LeaseLostError(this.id, this.#epoch));
        return this.lose();
      }
      this.#commitNo += 1;
      if (result.verdict === "repeat") {
        refused(new LeaseLostError(this.id, this.#epoch));
        return await this.#restart([]);
      }
      this.#engine.clock.observe(result.at);
      this.#bytesSinceSnapshot += result.bytes;
      if (result.foreign) this.#foldForeign(result.foreign);
      events.forEach((event, index) =>
        evolve(this.state, { seq: result.firstSeq + index, epoch: this.#epoch, at: result.at, event }),
      );
      this.#base = Math.max(this.#base, result.firstSeq + events.length - 1);
      this.#isFlying = false;
      this.#accept({ dispatch, commands: [], accepted, refused });
    } catch (error) {
      // Rolled back: the ledger knows nothing of it.
      this.#isFlying = false;
      refused(error);
    }
    this.#turn();
  }

  #emptyAppend(): Append {
    return {
      id: this.id,
      epoch: this.#epoch,
      token: this.#token,
      commitNo: this.#commitNo,
      base: this.#base,
      events: [],
      conditional: 0,
      fingerprint: null,
      close: null,
      release: null,
      snapshot: null,
    };
  }

  async #fly(
    accepted: readonly Work[],
    ending: Settlement | null,
    release: { wakeInMs: number | null } | null,
  ): Promise<void> {
    this.#isFlying = true;
    this.#timer?.cancel();
    this.#claimTimer?.cancel();
    const own = this.#unsent;
    this.#unsent = [];
    const close = ending ? this.#closeHeader(ending.events) : null;
    const item: Append = {
      ...this.#emptyAppend(),
      commitNo: ++this.#commitNo,
      events: ending ? [...own, ...ending.events] : own,
      conditional: ending?.isConditional ? ending.events.length : 0,
      fingerprint: this.#commitNo === 1 ? this.state.fingerprint : null,
      close,
      hasRelatives: close !== null && this.#hasRelatives(close),
      release,
      snapshot: this.#snapshot,
    };
    this.#snapshot = null;
    try {
      failpoint("before-commit");
      const result = await this.#engine.committer.commit(item);
      failpoint("after-commit");
      if (this.#isOver) return;
      if (result.verdict === "fenced") {
        this.log.info("fenced: the execution has another owner", { executionId: this.id, epoch: this.#epoch });
        return this.lose();
      }
      // The commit is in, but its answer was lost with the connection: start over from the ledger, as a new owner would.
      if (result.verdict === "repeat") {
        this.log.info("repeated a commit whose answer was lost", { executionId: this.id, epoch: this.#epoch });
        return await this.#restart(accepted);
      }
      this.#engine.clock.observe(result.at);
      this.#bytesSinceSnapshot += result.bytes;
      const isMoved = result.foreign !== null;
      for (const event of own) stamp(this.state, event, result.at);
      if (result.foreign) this.#foldForeign(result.foreign);
      const firstSeq = result.firstSeq;
      let last = firstSeq + own.length - 1;
      if (ending && !(ending.isConditional && isMoved)) {
        for (const event of ending.events)
          evolve(this.state, { seq: ++last, epoch: this.#epoch, at: result.at, event });
      }
      this.#base = Math.max(this.#base, last);
      this.state.seq = this.#base;
      this.#isFlying = false;
      for (const work of accepted) this.#accept(work);
      if (this.state.closed) return this.#closed(item.close);
      if (item.events.some(({ type }) => announced.has(type)))
        for (const id of [this.id, ...(this.state.parent?.visibleIn ?? [])]) this.#engine.announce(id, null);
      if (release && !isMoved) {
        const idle = [...this.#fanOuts.values()];
        this.#over(null);
        return await this.#lookBack(idle);
      }
      this.#takeSnapshot();
      this.#wakeGroups();
      this.#startReady();
      this.#turn();
    } catch (error) {
      // Only what Postgres can never hold gets here: the attempt that wrote it has failed.
      this.log.error("a commit was refused", { executionId: this.id, error: String(error) });
      for (const work of accepted) work.refused?.(error);
      await this.#giveBack(this.#commitNo, refusedWaitMs);
      this.#over(error);
    }
  }

  /** The attempt ends here; its dispatch stays open for whoever claims next. */
  #abandon(dispatch: number): void {
    this.#running.delete(dispatch);
    this.#ready.push(dispatch);
  }

  /** A commit point is reached; while draining it is also where the attempt ends, to go on elsewhere. */
  #accept(work: Work): void {
    if (work.accepted && this.#isDraining && work.dispatch !== null) this.#abandon(work.dispatch);
    else work.accepted?.();
  }

  #closeHeader(events: readonly LedgerEvent[]): CloseHeader | null {
    const closed = events.at(-1);
    if (closed?.type !== "execution.closed") return null;
    return {
      outcome: closed.outcome,
      reason: closed.reason,
      error: closed.error ?? null,
      snapshot: closeSnapshot(this.state),
    };
  }

  /** A parent waits for the end, or children have to end as well. The parent of an item hears of it in another way. */
  #hasRelatives({ outcome }: CloseHeader): boolean {
    const { parent, item, children } = this.state;
    return (parent !== null && !item) || (outcome !== "completed" && children.size > 0);
  }

  #closed(header: CloseHeader | null): void {
    if (header && this.#hasRelatives(header)) this.#engine.propagateClose(this.id);
    this.#over(null);
    const { item, parent } = this.state;
    if (item && parent && header) {
      if (this.#engine.hasShortcuts) this.#engine.items.closed(this.id, header);
      this.#engine.items.wake(parent.id);
    }
    this.#engine.announce(this.id, header ? { ...header, flow: this.flow.name } : null);
  }

  #over(reason: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#timer?.cancel();
    this.#claimTimer?.cancel();
    for (const fanOut of this.#fanOuts.values()) void fanOut.stop();
    // Made only where somebody hears it: an execution that ends as it should has nobody left.
    if (this.#running.size > 0 || this.#work.length > 0) {
      const why = reason ?? new LeaseLostError(this.id, this.#epoch);
      for (const { abort } of this.#running.values()) abort.abort(why);
      for (const work of this.#work.splice(0)) work.refused?.(why);
      for (const recording of this.#recordings.splice(0)) recording.refused(why);
      this.#running.clear();
    }
    const disposed = this.resources.dispose();
    if (disposed) this.#engine.onDispose(disposed);
    this.#finish();
  }

  /** Nothing of this owner can be trusted any more: whoever claims next folds the ledger afresh. */
  async #restart(accepted: readonly Work[]): Promise<void> {
    for (const { abort } of this.#running.values()) abort.abort(new LeaseLostError(this.id, this.#epoch));
    for (const work of accepted) work.refused?.(new LeaseLostError(this.id, this.#epoch));
    await this.#giveBack(this.#commitNo + 1, 0);
    this.#over(new LeaseLostError(this.id, this.#epoch));
    this.#engine.announce(this.id, null);
  }

  /** Releases an execution whose header we no longer know; one that is released or closed already is left as it is. */
  async #giveBack(commitNo: number, wakeInMs: number): Promise<void> {
    for (let base = this.#base; ; commitNo++) {
      const release = { ...this.#emptyAppend(), commitNo, base, release: { wakeInMs } };
      const result = await this.#engine.committer.commit(release).catch(() => null);
      if (result?.verdict !== "ok" || result.foreign === null) return;
      base = result.foreign.at(-1)?.seq ?? base;
    }
  }

  /** Reads what came in from outside while nothing of ours was on its way. */
  async #catchUp(): Promise<void> {
    this.#isPoked = false;
    this.#isFlying = true;
    const foreign = await this.#engine.readEvents(this.id, this.#base).catch(() => []);
    this.#isFlying = false;
    if (this.#isOver) return;
    this.#foldForeign(foreign);
    this.#turn();
  }

  #fold(events: readonly LedgerEvent[]): void {
    for (const event of events) {
      evolve(this.state, { seq: this.state.seq + 1, epoch: this.#epoch, at: this.now(), event });
      this.#notice(event);
      this.#unsent.push(event);
    }
  }

  #foldForeign(events: readonly Recorded[]): void {
    for (const recorded of events) evolve(this.state, recorded);
    this.#base = Math.max(this.#base, events.at(-1)?.seq ?? 0);
  }

  #hasArrival(): boolean {
    const { inbox, closed, failing, cancelling } = this.state;
    return inbox.length > 0 && !closed && !failing && !cancelling;
  }

  /** Sends the oldest arrival on its way. */
  #route(): void {
    const [arrival] = this.state.inbox;
    if (!arrival) return;
    let value: Json | undefined;
    if (arrival.raw) {
      try {
        value =
          arrival.kind === "start"
            ? parseInput(this.flow, arrival.value)
            : parseEvent(this.flow, arrival.event, arrival.value);
      } catch (error) {
        return this.#refuse(arrival, error);
      }
    }
    const nodes = this.#entryOf(arrival);
    if (!meetsMatch(this.graph, nodes)) {
      this.#fold(decide(this.state, { type: "route", value }, this.graph));
      return this.#turn();
    }
    this.#isRouting = true;
    const asked = askConditions(this.graph, nodes, value ?? arrival.value, (seen) => readerOf(this, seen));
    void this.#afterAsking(asked, (hits) => ({ type: "route", hits, value }));
  }

  /** What came in by SQL and breaks the contract: an input ends the execution, an event goes nowhere. */
  #refuse(arrival: ExecutionState["inbox"][number], error: unknown): void {
    const serialized = serializeError(error);
    this.#fold(decide(this.state, { type: "route", refused: serialized.message }, this.graph));
    if (arrival.kind === "start")
      this.#fold(decide(this.state, { type: "abort", reason: "failed", error: serialized }, this.graph));
    else this.log.warn("an event from SQL was refused", { executionId: this.id, error: serialized.message });
    this.#turn();
  }

  async #afterAsking(asked: Promise<Hits>, command: (hits: Hits) => Command): Promise<void> {
    try {
      const hits = await asked;
      if (!this.#isOver) this.#fold(decide(this.state, command(hits), this.graph));
    } catch (error) {
      if (!this.#isOver)
        this.#fold(decide(this.state, { type: "abort", reason: "failed", error: serializeError(error) }, this.graph));
    } finally {
      this.#isRouting = false;
      this.#turn();
    }
  }

  #entryOf(arrival: ExecutionState["inbox"][number]): readonly string[] {
    if (arrival.kind === "start") return entryNodes(this.state, this.graph);
    if (arrival.kind === "event") return this.graph.whenEvent.get(arrival.event) ?? [];
    const interrupt = this.state.interrupts.get(arrival.interrupt);
    if (!interrupt?.paused) return [];
    if (interrupt.resumeTo === "next") return this.graph.nodes.get(interrupt.paused.node)?.next ?? [];
    return interrupt.resumeTo === "self" ? [] : (this.graph.whenEvent.get(interrupt.resumeTo.event) ?? []);
  }

  // ── what is ready ───────────────────────────────────────────────────────────────────────────────────────────

  #hasReady(): boolean {
    const now = this.now();
    return this.#ready.some((id) => {
      const dispatch = this.state.dispatches.get(id);
      return dispatch !== undefined && (dueAt(dispatch) ?? 0) <= now;
    });
  }

  #startReady(): void {
    this.#lookedAt = this.now();
    if (this.#isDraining || this.state.closed || this.state.failing || this.state.cancelling) return;
    this.#resume();
    let free = this.#freePlaces();
    const now = this.now();
    const kept: number[] = [];
    const ready = this.#ready;
    for (let index = 0; index < ready.length; index++) {
      const id = ready[index] ?? 0;
      const dispatch = this.state.dispatches.get(id);
      if (!dispatch || this.#running.has(id)) continue;
      if (free <= 0) {
        kept.push(...ready.slice(index));
        break;
      }
      if ((dueAt(dispatch) ?? 0) > now || !this.#takesPlace(dispatch)) {
        kept.push(id);
        continue;
      }
      free -= 1;
      this.#start(dispatch);
    }
    this.#ready = kept;
  }

  #start(dispatch: Dispatch): void {
    const queuedAt = Math.trunc(Math.max(dispatch.plannedAt, dueAt(dispatch) ?? 0));
    const times = { queuedAt, startedAt: Math.max(queuedAt, Math.trunc(this.now())) };
    const running: Running = { dispatch, times, abort: new AbortController(), waits: 0, child: null };
    this.#running.set(dispatch.id, running);
    const node = dispatch.chunk === null ? this.graph.nodes.get(dispatch.node) : undefined;
    if ((node?.kind === "forEach" || node?.kind === "batch") && node.distribute)
      return void this.#distribute(running, node);
    const chunk = dispatch.chunk === null ? this.#subFlow(dispatch) : this.graph.chunks.get(dispatch.chunk);
    if (chunk) void this.#attempt(running, chunk);
    else void this.#forward(running);
  }

  #subFlow(dispatch: Dispatch): Chunk | undefined {
    const node = this.graph.nodes.get(dispatch.node);
    const definition = node?.kind === "subFlow" ? this.flow.subFlows.get(node.flow) : undefined;
    return node?.kind === "subFlow" && definition ? subFlowChunk(node, definition) : undefined;
  }

  async #attempt(running: Running, chunk: Chunk): Promise<void> {
    const ended = await runAttempt(this, running.dispatch, chunk, running.abort);
    if (this.#isOver || this.#running.get(running.dispatch.id) !== running) return;
    this.#running.delete(running.dispatch.id);
    this.#submit({
      dispatch: null,
      commands: this.#endCommands(running, ended),
      accepted: null,
      refused: null,
    });
  }

  #endCommands({ dispatch: { id }, times }: Running, ended: Ended): Command[] {
    switch (ended.kind) {
      case "completed":
        return [
          ...effectCommands(id, ended.effects),
          { type: "complete", dispatch: id, output: ended.output, hits: ended.hits, times },
        ];
      case "paused":
        return [
          ...effectCommands(id, ended.effects),
          { type: "pause", dispatch: id, interrupt: ended.interrupt, times },
        ];
      case "dropped":
        return [{ type: "drop", dispatch: id }];
      case "failed":
        // What the cancel interrupted has not failed.
        if (this.state.cancelling) return [];
        return [{ type: "fail", dispatch: id, error: ended.serialized, retryInMs: ended.retryInMs, times }];
    }
  }

  /** A dispatch without a chunk: its node's conditions are asked, and its value goes on. */
  async #forward(running: Running): Promise<void> {
    const { dispatch } = running;
    let command: Command;
    try {
      const hits = await askConditions(this.graph, [dispatch.node], dispatch.input, (value) => readerOf(this, value));
      command = { type: "forward", dispatch: dispatch.id, hits };
    } catch (error) {
      command = {
        type: "fail",
        dispatch: dispatch.id,
        error: serializeError(error, dispatch.node, 1),
        retryInMs: null,
      };
    }
    if (this.#isOver) return;
    this.#running.delete(dispatch.id);
    this.#submit({ dispatch: null, commands: [command], accepted: null, refused: null });
  }

  // ── distributed collections ─────────────────────────────────────────────────────────────────────────────────

  async #distribute(running: Running, node: ForEachNode | BatchNode): Promise<void> {
    const { dispatch, abort } = running;
    const fanOut = new FanOut(this.#fanOutHost(), dispatch, node);
    this.#fanOuts.set(dispatch.id, fanOut);
    // It takes no place: its items have places of their own.
    running.waits += 1;
    this.#engine.waitsForOthers(this.id);
    abort.signal.addEventListener("abort", () => void fanOut.stop(), { once: true });
    const commands = await fanOut
      .run()
      .catch((error: unknown): Command[] => [
        { type: "fail", dispatch: dispatch.id, error: serializeError(error, dispatch.node, 1), retryInMs: null },
      ]);
    this.#fanOuts.delete(dispatch.id);
    if (this.#isOver || this.#running.get(dispatch.id) !== running) return;
    this.#running.delete(dispatch.id);
    // What a cancel interrupted has not failed.
    this.#submit({
      dispatch: null,
      commands: commands && !this.state.cancelling ? commands : [],
      accepted: null,
      refused: null,
    });
  }

  #fanOutHost(): FanOutHost {
    const { id, state } = this;
    const under = (node: string) => [...this.#fanOuts.values()].filter((fanOut) => fanOut.node.id === node);
    return {
      id,
      state,
      items: this.#engine.items,
      submit: (_, commands) =>
        new Promise((accepted, refused) => this.#submit({ dispatch: null, commands, accepted, refused })),
      itemsUnderWay: (node) => under(node).reduce((sum, fanOut) => sum + fanOut.underWay, 0),
      itemsEnded: (node) => under(node).forEach((fanOut) => fanOut.pump()),
      idle: () => this.#turn(),
    };
  }

  #hasItemsToStop(): boolean {
    if (this.#areItemsStopped || !(this.state.failing || this.state.cancelling)) return false;
    for (const { items } of this.state.frames.values()) if (items) return true;
    return false;
  }

  /** Before an execution ends early its items are told, so that none is left behind if this worker dies in between. */
  async #stopItems(): Promise<void> {
    this.#isStoppingItems = true;
    await Promise.all([...this.#fanOuts.values()].map((fanOut) => fanOut.stop()));
    const reason = `parent ${this.state.failing ? "failed" : "cancelled"}`;
    for (const { items, done, missing } of this.state.frames.values())
      if (items && missing > 0)
        await this.#engine.items
          .cancel(items.base, done.length, reason)
          .catch((error: unknown) =>
            this.log.warn("items could not be cancelled", { executionId: this.id, error: String(error) }),
          );
    this.#isStoppingItems = false;
    this.#areItemsStopped = true;
    this.#turn();
  }

  /** An item that closed while this execution was being given back saw an owner and woke nobody. */
  async #lookBack(fanOuts: readonly FanOut[]): Promise<void> {
    for (const fanOut of fanOuts)
      if (await fanOut.hasUnheard().catch(() => true)) return this.#engine.items.wake(this.id);
  }

  // ── collections that limit how many items are under way ──────────────────────────────────────────────────────

  #takesPlace(dispatch: Dispatch): boolean {
    if (dispatch.chunk === null && !this.#hasSubFlowPlace(dispatch.node)) return false;
    const item = this.#limitedItem(dispatch);
    if (!item) return true;
    const underWay = this.#itemsUnderWay.get(item.node) ?? new Set();
    if (underWay.has(item.key)) return true;
    if (underWay.size >= item.limit) return false;
    underWay.add(item.key);
    this.#itemsUnderWay.set(item.node, underWay);
    return true;
  }

  #hasSubFlowPlace(id: string): boolean {
    const node = this.graph.nodes.get(id);
    if (node?.kind !== "subFlow" || node.concurrency === null) return true;
    let taken = 0;
    for (const { dispatch } of this.#running.values()) if (dispatch.node === id) taken += 1;
    return taken < node.concurrency;
  }

  #limitedItem(dispatch: Dispatch): { node: string; key: string; limit: number } | null {
    if (!dispatch.at) return null;
    const frame = this.state.frames.get(dispatch.at[0]);
    const opener: Node | undefined = frame && this.graph.nodes.get(frame.node);
    if (!frame || !opener || !("concurrency" in opener) || opener.concurrency === null) return null;
    return { node: frame.node, key: `${frame.id}.${dispatch.at[1]}`, limit: opener.concurrency };
  }

  /** After a takeover: items that are past their first dispatch hold their place. */
  #restoreItems(): void {
    for (const dispatch of this.state.dispatches.values())
      if (dispatch.at && !dispatch.begins) this.#takesPlace(dispatch);
  }

  #notice(event: LedgerEvent): void {
    // Not before it is folded: until then the dispatch does not know how long it has to wait.
    if (event.type === "chunk.failed" && event.retryInMs !== undefined) this.#ready.push(event.dispatch);
    if (!("moves" in event) || !event.moves) return;
    for (const id of plannedBy(event.moves)) this.#ready.push(id);
    for (const move of event.moves)
      if (move.move === "collect")
        for (const underWay of this.#itemsUnderWay.values()) underWay.delete(`${move.frame}.${move.index}`);
  }

  #wakeGroups(): void {
    if (this.#groupWaiters.size === 0) return;
    for (const [group, resolve] of this.#groupWaiters) {
      if (this.state.groups.has(group)) continue;
      this.#groupWaiters.delete(group);
      resolve();
    }
  }

  // ── time ────────────────────────────────────────────────────────────────────────────────────────────────────

  #arm(): void {
    this.#timer?.cancel();
    // Counted from the last look at what is ready, so that nothing falls due unseen between that look and this one.
    let next = nextTimer(this.state, this.#lookedAt);
    if (this.#cancelDeadline !== null) next = Math.min(next ?? Infinity, this.#cancelDeadline);
    for (const { child } of this.#running.values())
      if (child && child.since + this.#lingerMs > this.now())
        next = Math.min(next ?? Infinity, child.since + this.#lingerMs);
    if (next === null) return;
    this.#timer = this.timers.at(next, this, () => {
      this.#startReady();
      this.#turn();
    });
  }

  /** Total cost stays linear in what was written: each snapshot is paid for by the bytes since the one before. */
  #takeSnapshot(): void {
    if (this.#bytesSinceSnapshot < this.#snapshotBytes) return;
    const state = freezeState(this.state);
    this.#snapshot = { seq: this.#base, state };
    this.#snapshotBytes = Math.max(minSnapshotBytes, JSON.stringify(state).length);
    this.#bytesSinceSnapshot = 0;
  }

  #suspect(): string | null {
    for (const { chunk } of this.state.dispatches.values()) if (chunk !== null) return chunk;
    return null;
  }
}

/** What somebody may wait for, besides the close. */
const announced: ReadonlySet<LedgerEvent["type"]> = new Set([
  "result.set",
  "interrupt.raised",
  "interrupt.expired",
  "stream.stopped",
]);

function effectCommands(dispatch: number, effects: readonly Effect[]): Command[] {
  return effects.map((effect) => ({ type: "effect", dispatch, effect }));
}

function isIntervention({ type }: LedgerEvent): boolean {
  return type.startsWith("intervention.");
}
