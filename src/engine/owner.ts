/**
 * Advances one execution through one epoch: claim → turns → release. A loop around a pure decision, `nextTurn`: whatever it decides
 * is in the ledger before it counts.
 */
import { systemTimers as liveness, type Timer, type Timers } from "../base/timers.ts";
import { unlessAborted } from "../base/async.ts";
import { LeaseLostError, PayloadError, UsageError } from "../base/errors.ts";
import type { Json } from "../base/json.ts";
import type { ExecutionInfo, Logger } from "../flow/context.ts";
import { parseEvent, parseInput } from "../flow/contract.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { BatchNode, Chunk, ForEachNode, Graph } from "../flow/graph.ts";
import { entryNodes } from "../ledger/arrivals.ts";
import { decide } from "../ledger/decide.ts";
import { deadlineOf, nextTimer, settle } from "../ledger/settle.ts";
import type { Command, Effect, Matches } from "../ledger/command.ts";
import type { Settlement } from "../ledger/settle.ts";
import type { ExecutionId, LedgerEvent } from "../ledger/event.ts";
import type { Dispatch, ExecutionState, Notice } from "../ledger/state.ts";
import { goesOnTo } from "../ledger/pauses.ts";
import { isCleaning } from "../ledger/cleanup.ts";
import { heldUntil, isPaused } from "../ledger/waits.ts";
import type { CloseHeader } from "../store/append.ts";
import type { Claim } from "../store/claims.ts";
import type { Send, Transactions } from "../store/transactions.ts";
import type { OwnerTrace } from "../telemetry/trace.ts";
import { OwnerMeter } from "../telemetry/meter.ts";
import { traceIdOf } from "../telemetry/traceparent.ts";
import { Abandoned } from "./abandoned.ts";
import { Attempt, type Ended } from "./attempt.ts";
import { subFlowChunk } from "./child.ts";
import { cleanupChunk, goneCommand, overdueCommand } from "./cleanup.ts";
import type { NewChild } from "./child.ts";
import { Commits, hasRelatives, refusedWaitMs, type CommitAnswer, type CommitRequest } from "./commit.ts";
import { never } from "./ctx/effect.ts";
import { ReadCtx } from "./ctx/read.ts";
import { FanOut } from "./fanout.ts";
import type { FanOutHost } from "./fanout.ts";
import type { AttemptHost, Begun, ClosedExecution, Engine, FlowDataAccess } from "./host.ts";
import type { NewId } from "./ids.ts";
import { newLink, wantsLink, withLink } from "./links.ts";
import { Ready } from "./ready.ts";
import { childWaitMs, releaseOf } from "./release.ts";
import type { WaitFacts } from "./release.ts";
import { ExecutionResources } from "./resources.ts";
import { suspectOf } from "../ledger/parking.ts";
import { crashLooped, serializeError } from "./retries.ts";
import { askConditions, meetsMatch } from "./routing.ts";
import { Running, type Wait } from "./running.ts";
import type { Put, StreamTarget } from "./streamer.ts";
import { InterventionsSize, StateSize } from "./state-size.ts";
import { nextTurn, type Release, type TurnFacts } from "./turn.ts";
import { effectCommands, Work, type Recording } from "./work.ts";

/** A claim that nothing follows soon is written on its own, so that everybody sees who has the execution. */
const claimFlushDelayMs = 25;
/** So many workers may be lost without progress before an execution is taken for the cause. */
const maxTakeovers = 5;
/** So many events are folded before they are sent, should more and more come in. */
const unsentAtOnce = 1000;
/** So many steps are taken at once before others get their turn. */
const stepsAtOnce = 200;

/** What the owner waits for: whoever brings that goes on. */
type Phase =
  "idle" | "turning" | "routing" | "committing" | "catchingUp" | "stoppingItems" | "yielding" | "over" | "lost";

const nothing = () => {};

export class Owner implements AttemptHost {
  readonly id: ExecutionId;
  readonly flow: FlowDefinition;
  readonly graph: Graph;
  readonly info: ExecutionInfo;
  readonly resources: ExecutionResources;
  readonly log: Logger;
  readonly userLog: Logger;
  readonly trace: OwnerTrace | null;
  readonly tracesSteps: boolean;
  readonly timers: Timers;
  readonly state: ExecutionState;
  readonly stateSize: StateSize;
  readonly interventionsSize: InterventionsSize;
  /** Resolves when it is over for this owner. */
  readonly done: Promise<void>;

  /** What `nextTurn` asks; the last of it costs something, and most turns do not come so far. */
  static readonly #Facts = class implements TurnFacts {
    readonly #owner: Owner;

    constructor(owner: Owner) {
      this.#owner = owner;
    }
    get isPoked() {
      return this.#owner.#pokes > this.#owner.#looks;
    }
    get hasArrival() {
      const { state } = this.#owner;
      if (state.closed || state.failing || state.cancelling || state.paused || this.#owner.#isFlowPaused) return false;
      return this.#owner.#isArrivalDue(this.#owner.now());
    }
    get hasWork() {
      return this.#owner.#hasWork();
    }
    get hasRecording() {
      return this.#owner.#recordings.length > 0;
    }
    get hasUnsent() {
      return this.#owner.#commits.unsent.length > 0;
    }
    get isFull() {
      return this.#owner.#commits.unsent.length >= unsentAtOnce;
    }
    get isAwaited() {
      return this.#owner.#folded.length > 0;
    }
    get isFirst() {
      return this.#owner.#commits.isFirst;
    }
    get isClaimDue() {
      return this.#owner.#claimTimer === null;
    }
    get running() {
      return this.#owner.#running.size;
    }
    get ending() {
      return this.#owner.#settlement();
    }
    get hasItemsToStop() {
      return this.#owner.#hasItemsToStop();
    }
    get hasUntimed() {
      return this.#owner.#commits.unsent.some(({ type }) => type.startsWith("intervention."));
    }
    get release() {
      return this.#owner.#releaseNow();
    }
  };

  readonly #facts = new Owner.#Facts(this);
  readonly #engine: Engine;
  readonly #claim: Command;
  readonly #takeovers: number;
  readonly #commits: Commits;
  readonly #meter: OwnerMeter;
  readonly #ready: Ready;
  readonly #stream: StreamTarget;
  /** Each attempt's work is a commit of its own, so that a refusal tells whose it was. */
  readonly #commitsAlone: boolean;
  /** What an earlier owner may have begun, and has put nothing into the stream under this one. */
  readonly #inherited: Set<number> | null;
  #finish: () => void = () => {};
  #phase: Phase = "idle";
  #mode: "serving" | "draining" = "serving";
  /** Something came in from outside: how often that was said, and how often it was looked after. */
  #pokes = 0;
  #looks = 0;
  #work: Work[] = [];
  /** Folded, and to be told when the next commit is in. */
  #folded: Work[] = [];
  #recordings: Recording[] = [];
  readonly #running = new Map<number, Running>();
  /** Attempts whose handlers have returned, and that is on its way into the ledger. */
  #slotsEnding = 0;
  /** Attempts that were cut off in the middle of something. */
  #cut: Map<number, Running> | undefined;
  /** Distributed collections under way, by dispatch; null once they are told to stop. */
  #fanOuts: Map<number, FanOut> | null = new Map();
  readonly ended = new Set<ExecutionId>();
  readonly #groupWaiters = new Map<number, () => void>();
  /** Attempts whose wait is over and that want a slot again; and slots that were given to some of them in this moment. */
  readonly #resuming: (() => void)[] = [];
  #granted = 0;
  readonly #abandoned: Abandoned;
  #timer: Timer | undefined;
  /** Until when the claim alone is held back; 0 when that is over. */
  #claimTimer: Timer | null | undefined;
  #cancelDeadline: number | null = null;
  /** When what is ready was last looked through, by the database's clock. */
  #startedAt = 0;

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
    const { id, epoch, token, items, state, takeovers } = claim;
    this.#engine = engine;
    this.id = id;
    this.flow = flow;
    this.graph = flow.graph;
    this.state = state;
    this.log = engine.log;
    this.stateSize = new StateSize({ executionId: this.id });
    this.interventionsSize = new InterventionsSize({ executionId: this.id });
    this.userLog = engine.userLog;
    const traced = engine.tracing.claimed(claim, flow.fingerprint);
    this.trace = traced.trace;
    this.tracesSteps = engine.tracing.hasSteps;
    this.timers = engine.timers;
    this.info = { id, flow: flow.name, metadata: state.metadata };
    this.#stream = { id, epoch, token, visibleIn: state.parent?.visibleIn, items, ...flow.streamLimits, recent };
    this.#inherited = state.dispatches.size > 0 ? new Set(state.dispatches.keys()) : null;
    this.#commits = new Commits(claim, engine.committer, engine.clock);
    this.#meter = new OwnerMeter(engine, claim, flow);
    this.resources = new ExecutionResources(
      {
        execution: engine.executionResources(state.item && state.parent ? state.parent.id : id),
        flow: engine.flowResources(flow.name),
        worker: engine.resources,
        requirements: flow.requirements,
      },
      this.info,
      engine.log,
    );
    this.done = new Promise((resolve) => (this.#finish = resolve));
    engine.clock.observe(claim.now);
    this.#commitsAlone = engine.committingAlone.delete(id);
    this.#ready = new Ready(state, this.graph, takeovers > 0);
    this.#abandoned = new Abandoned(id, engine, () => this.#advance());
    this.#claim = {
      type: "claim",
      worker: engine.workerId,
      fingerprint: flow.fingerprint,
      nodes,
      ...traced.event,
    };
    this.#takeovers = takeovers;
  }

  /** Begins the epoch. */
  begin(): this {
    try {
      this.#abandoned.takeOver(this.state.children);
      this.#fold([this.#claim]);
      if (this.#takeovers >= maxTakeovers) {
        this.#meter.crashLoop(suspectOf(this.state)?.chunk ?? null, this.#takeovers);
        this.#fold([crashLooped(this, this.#takeovers)]);
      }
    } catch (error) {
      void this.#fail(error);
    }
    this.#advance();
    return this;
  }

  // ── what the worker asks ────────────────────────────────────────────────────────────────────────────────────

  /** Something came in from outside: read it. */
  poke(): void {
    this.#pokes += 1;
    this.#advance();
  }

  /** Gives the execution back at the next commit point; nothing new is started. */
  drain(): void {
    this.#mode = "draining";
    this.#advance();
  }

  /** Ends what still runs here. Its effects up to the last commit point stay. */
  abort(reason: unknown): void {
    for (const running of this.#running.values()) this.#cutOff(running, reason);
    this.#advance();
  }

  /** Another owner has it: drop everything. */
  lose(): void {
    this.#over(new LeaseLostError(this.id, this.#epoch), "lost");
  }

  get running(): number {
    return this.#running.size;
  }

  get lease(): { readonly id: ExecutionId; readonly epoch: number; readonly seq: number } {
    return { id: this.id, epoch: this.#epoch, seq: this.#commits.base };
  }

  /** True if it stopped because its lease was lost. */
  get isLost(): boolean {
    return this.#phase === "lost";
  }

  /** Nothing happens here until something comes in or time passes. */
  get isQuiet(): boolean {
    return this.isStill && this.userCode.length === 0;
  }

  /** Nothing happens here until something comes in, time passes, or user code goes on. */
  get isStill(): boolean {
    if (this.#isOver) return true;
    const hasToDo = this.#work.length + this.#folded.length + this.#recordings.length > 0 || this.#pokes > this.#looks;
    if (this.#phase !== "idle" || hasToDo || this.#commits.unsent.length > 0 || this.#abandoned.isAsking) return false;
    for (const fanOut of this.#fanOuts?.values() ?? []) if (!fanOut.isQuiet) return false;
    return true;
  }

  /** Hears of items that a worker closed and did not live to tell of. */
  async lookAtItems(): Promise<void> {
    for (const fanOut of this.#fanOuts?.values() ?? []) await fanOut.look();
  }

  /** The attempts that run user code, each with how far it came. */
  get userCode(): { readonly chunk: string; readonly place: string }[] {
    const code: { chunk: string; place: string }[] = [];
    for (const { isWaiting, dispatch } of this.#running.values())
      if (!isWaiting)
        code.push({
          chunk: dispatch.chunk ?? dispatch.node,
          place: [this.id, this.#epoch, dispatch.id, dispatch.failures, dispatch.journal.length].join(" "),
        });
    return code;
  }

  get #epoch(): number {
    return this.#commits.lease.epoch;
  }

  /** Its flow is paused, and nothing ends it. */
  get #isFlowPaused(): boolean {
    return this.state.cancelling === null && this.#engine.isFlowPaused(this.flow.name);
  }

  get #isOver(): boolean {
    return this.#phase === "over" || this.#phase === "lost";
  }

  // ── what an attempt asks ────────────────────────────────────────────────────────────────────────────────────

  now(): number {
    return this.#engine.clock.now();
  }

  get newId(): NewId {
    return this.#engine.newId;
  }

  get publicUrl(): string | null {
    return this.#engine.publicUrl;
  }

  get began(): ((begun: Omit<Begun, "executionId" | "flow">) => void) | undefined {
    const { onBegin } = this.#engine.hooks;
    return onBegin && ((begun) => onBegin({ executionId: this.id, flow: this.flow.name, ...begun }));
  }

  get flowData(): FlowDataAccess {
    return this.#engine.flowData(this.flow.name);
  }

  get transactions(): Transactions {
    return this.#engine.transactions;
  }

  commit(dispatch: number, effects: readonly Effect[]): Promise<void> {
    return this.#submit(
      dispatch,
      effects.map((effect): Command => ({ type: "effect", dispatch, effect })),
    );
  }

  record(dispatch: number, effect: Effect, send: Send): Promise<void> {
    return new Promise((accepted, refused) => {
      if (this.#isOver) return refused(new LeaseLostError(this.id, this.#epoch));
      this.#recordings.push({ dispatch, effect, send, accepted, refused });
      this.#advance();
    });
  }

  busy(dispatch: number): () => void {
    const running = this.#running.get(dispatch);
    if (!running) return () => {};
    const done = running.work();
    return () => {
      if (running.waits.length === 0) return done();
      // What the chunk does next comes first: a park would cut off what goes on from here.
      setImmediate(() => {
        done();
        if (running.isWaiting) this.#advance();
      });
    };
  }

  async waitUntil(dispatch: number, time: number): Promise<void> {
    if (time <= this.now()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const alarm = this.timers.at(time, this, resolve);
    const { signal } = this.#running.get(dispatch)?.abort ?? {};
    signal?.addEventListener("abort", () => alarm.cancel(), { once: true });
    await this.#waiting(dispatch, { kind: "time", until: time }, promise);
  }

  async groupEnd(dispatch: number, group: number): Promise<void> {
    if (!this.state.groups.has(group) && !this.#isFolding) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#groupWaiters.set(group, resolve);
    await this.#waiting(dispatch, { kind: "group", group }, promise);
  }

  /** What attempts did is folded, and not in the ledger yet. */
  get #isFolding(): boolean {
    return this.#phase === "committing" || this.#commits.unsent.some(({ type }) => type !== "execution.claimed");
  }

  async runChild(
    dispatch: number,
    child: Omit<NewChild, "parent"> & { readonly ordinal: number },
    signal?: AbortSignal,
  ): Promise<ClosedExecution> {
    const { ordinal, ...rest } = child;
    const running = this.#running.get(dispatch);
    if (!running) return never();
    const isSubFlow = running.dispatch.chunk === null;
    const visibleIn = isSubFlow ? { visibleIn: [this.id, ...(this.state.parent?.visibleIn ?? [])] } : {};
    const isHidden = isSubFlow && this.state.settings.hidden;
    const wait: Wait = { kind: "child", id: child.id, since: null };
    const ending = this.#engine.runChild(
      { ...rest, parent: { id: this.id, dispatch, ordinal, ...visibleIn }, isHidden },
      {
        signal: running.abort.signal,
        onCreated: () => {
          wait.since = this.now();
          this.#advance();
        },
      },
    );
    // The child is recorded, so it is created whatever becomes of the wait.
    return this.#waiting(dispatch, wait, signal ? unlessAborted(ending, signal) : ending);
  }

  async isCancelledExternally(child: ExecutionId): Promise<boolean> {
    const isMarked = () => (this.state.children.get(child)?.cancelledAt ?? null) !== null;
    while (!isMarked() && !this.#isOver) {
      // The child ended of it, so it is in the ledger; this owner may not have read so far.
      const events = await this.#engine.readEvents(this.id, this.#commits.base).catch(() => null);
      if (events)
        return isMarked() || events.some(({ event }) => event.type === "child.cancelled" && event.child === child);
      await liveness.sleep(500, { ref: false });
    }
    return isMarked();
  }

  putIntoStream({ id, chunk, failures }: Dispatch, item: Json): Put {
    const mark = this.#inherited?.has(id) && chunk !== null ? { dispatch: id, chunk, attempt: failures + 1 } : null;
    const put = this.#engine.putIntoStream(this.#stream, item, id, mark);
    // Not before: an item that is refused leaves its mark to the next one.
    this.#inherited?.delete(id);
    return put;
  }

  /**
   * A wait gives up the attempt's slot, so that what it waits for can run. It is over at once when the execution is cancelled, and
   * never when the attempt was cut off: whoever claims the execution next runs it anew.
   */
  async #waiting<T>(dispatch: number, wait: Wait, event: Promise<T>): Promise<T> {
    const running = this.#running.get(dispatch);
    if (!running) return never();
    // What the chunk begins beside it comes first: a park would cut that off.
    const begun = this.busy(dispatch);
    running.wait(wait);
    begun();
    const came = await unlessAborted(event, running.abort.signal).then(
      (value) => ({ value }),
      (error: unknown) => ({ error }),
    );
    if (this.#running.get(dispatch) !== running) return never();
    // It queues for a slot, ahead of what has not begun; an attempt that is told to stop needs none.
    if (running.isWaiting && !running.abort.signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#resuming.push(resolve);
      this.#resume();
      await promise;
      if (this.#running.get(dispatch) !== running) return never();
    }
    running.endWait(wait);
    if ("error" in came) throw came.error;
    return came.value;
  }

  #resume(): void {
    while (this.#resuming.length > 0 && this.#freeSlots() > 0) {
      this.#granted += 1;
      this.#resuming.shift()?.();
      // By then it holds the slot itself.
      queueMicrotask(() => (this.#granted -= 1));
    }
  }

  #freeSlots(): number {
    const limit = this.state.settings.concurrency;
    if (limit === null) return Infinity;
    let taken = this.#slotsEnding + this.#granted;
    for (const running of this.#running.values()) if (!running.isWaiting) taken += 1;
    return limit - taken;
  }

  // ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────

  #submit(dispatch: number | null, commands: readonly Command[]): Promise<void> {
    return new Promise((accepted, refused) => {
      if (this.#isOver) return refused(new LeaseLostError(this.id, this.#epoch));
      this.#work.push(new Work(dispatch, commands, accepted, refused));
      this.#advance();
    });
  }

  /** Takes steps until something has to be waited for. Whoever brings that calls it again. */
  #advance(): void {
    if (this.#phase !== "idle") return;
    this.#phase = "turning";
    try {
      for (let steps = 0; this.#step();) if (++steps === stepsAtOnce) return this.#yield();
    } catch (error) {
      // It must not stand still for as long as this process lives.
      void this.#fail(error);
    }
    if (this.#phase === "turning") this.#phase = "idle";
  }

  /** One step. False when there is nothing to do for now. */
  #step(): boolean {
    // Only a fresh claim starts chunks before its first commit: what it planned follows from the ledger alone.
    if (this.#commits.isFirst) this.#ready.release(this.#ready.takePlanned());
    this.#start();
    if (this.#isOver) return false;
    this.#fallDue();
    const next = nextTurn(this.#facts);
    switch (next.do) {
      case "catchUp":
        void this.#catchUp();
        return false;
      case "route":
        return this.#route();
      case "record":
        void this.#record();
        return false;
      case "fold":
        this.#foldWork();
        return true;
      case "stopItems":
        void this.#stopItems();
        return false;
      case "linger":
        this.#claimTimer ??= liveness.after(claimFlushDelayMs, () => {
          this.#claimTimer = null;
          this.#advance();
        });
        this.#arm();
        return false;
      case "append":
        void this.#commit(next);
        return false;
      case "wait":
        this.#arm();
        return false;
    }
  }

  /** Others get their turn, and a cancel its hearing. */
  #yield(): void {
    this.#phase = "yielding";
    setImmediate(() => {
      if (this.#phase === "yielding") this.#phase = "idle";
      this.#pokes += 1;
      this.#advance();
    });
  }

  /** A cancel interrupts what runs; a timeout that is over ends the execution. */
  #fallDue(): void {
    const { state } = this;
    if (state.cancelling && this.#cancelDeadline === null) {
      this.#cancelDeadline = this.now() + this.#engine.cancelGraceMs;
      const reason = new UsageError(
        `execution ${this.id} was cancelled: ${state.cancelling.reason}`,
        "stop when ctx.signal aborts",
      );
      for (const { abort, dispatch } of this.#running.values()) if (!dispatch.cleanup) abort.abort(reason);
    }
    if (state.cancelling && !state.failing && !state.closed) this.#cleanUp();
    const deadline = deadlineOf(state);
    if (deadline === null || state.failing || state.closed || state.cancelling?.isCleaned || this.now() < deadline)
      return;
    const message = `execution ${this.id} ran longer than its timeout of ${state.settings.timeoutMs ?? 0} ms`;
    this.#fold([{ type: "abort", reason: "timeout", error: { name: "ExecutionTimeoutError", message } }]);
  }

  /** Once what runs has ended, or had its grace, `onCancel` handlers get theirs; what is left of them then has failed. */
  #cleanUp(): void {
    if (this.#work.length + this.#recordings.length > 0) return;
    const { cancelGraceMs } = this.#engine;
    const isOver = this.#cancelDeadline !== null && this.now() >= this.#cancelDeadline;
    if (isCleaning(this.state)) {
      if (!isOver) return;
      const late = [...this.state.dispatches.values()];
      for (const { id } of late) this.#running.get(id)?.cutOff(new LeaseLostError(this.id, this.#epoch));
      for (const { id } of late) this.#running.delete(id);
      return this.#fold(late.map((dispatch) => overdueCommand(dispatch, cancelGraceMs)));
    }
    if (this.#running.size > 0 && !isOver) return;
    if (decide(this.state, { type: "cleanUp" }, this.graph).length === 0) return;
    for (const running of this.#running.values()) this.#cutOff(running, new LeaseLostError(this.id, this.#epoch));
    this.#fold([{ type: "cleanUp" }]);
    this.#cancelDeadline = this.now() + cancelGraceMs;
  }

  // oxlint-disable-next-line eslint/no-unused-private-class-members -- #Facts asks it
  #settlement(): Settlement | null {
    const isGraceOver = this.#cancelDeadline !== null && this.now() >= this.#cancelDeadline;
    return settle(this.state, this.now(), this.#running.size, isGraceOver);
  }

  // oxlint-disable-next-line eslint/no-unused-private-class-members -- #Facts asks it
  #releaseNow(): Release | null {
    const now = this.now();
    const { startedAt, cancelling } = this.state;
    if (this.#work.length > 0 || this.#abandoned.isAsking) return null;
    // Most of the time something runs, and that is the end of the question.
    for (const running of this.#running.values()) if (!running.isWaiting && !this.#isFanOut(running)) return null;
    return releaseOf({
      hasShortcuts: this.#engine.hasShortcuts,
      now,
      startedAt,
      // Where its flow is paused it is given back as due, and taken again when that goes on.
      isDraining: this.#mode === "draining" || this.#isFlowPaused,
      isCancelling: cancelling !== null,
      hasDue: !isPaused(this.state) && (this.#ready.hasDue(now) || (this.#isFlowPaused && this.#isArrivalDue(now))),
      nextTimer: this.#nextTimer(),
      running: [...this.#running.values()].map((running) => ({
        isWaiting: running.isWaiting,
        isFanOut: this.#isFanOut(running),
        isIdleFanOut: this.#fanOuts?.get(running.dispatch.id)?.isIdle ?? false,
        waits: running.waits.map((wait): WaitFacts => {
          if (wait.kind === "group") return { kind: "group", isOver: !this.state.groups.has(wait.group) };
          if (wait.kind !== "child") return wait;
          return { kind: "child", since: wait.since, isOver: this.state.children.get(wait.id)?.closed !== null };
        }),
      })),
    });
  }

  /** Before a delayed start is due, neither that nor what came in behind it goes anywhere. */
  #isArrivalDue(now: number): boolean {
    const until = heldUntil(this.state);
    return this.state.inbox.length > 0 && (until === null || until <= now);
  }

  #isFanOut({ dispatch }: Running): boolean {
    return this.#fanOuts?.has(dispatch.id) ?? false;
  }

  /** When the execution or one of its dispatches next has something to do on its own. */
  #nextTimer(after = -Infinity): number | null {
    const planned = isPaused(this.state) ? Infinity : this.#ready.nextAt(Math.max(after, 0));
    const next = Math.min(nextTimer(this.state, after) ?? Infinity, planned);
    return next === Infinity ? null : next;
  }

  /** Folds what the owner decides. */
  #fold(commands: readonly Command[]): void {
    for (const command of commands)
      for (const event of decide(this.state, command, this.graph)) {
        this.#commits.fold(event);
        this.#ready.notice(event);
        if (event.type === "child.abandoned") this.#abandoned.add(event.child);
      }
  }

  // oxlint-disable-next-line eslint/no-unused-private-class-members -- #Facts asks it
  #hasWork(): boolean {
    return this.#work.length > 0 && !(this.#commitsAlone && this.#folded.length > 0);
  }

  /** What attempts have done and how they ended, in the order in which that came. */
  #foldWork(): void {
    for (const work of this.#work.splice(0, this.#commitsAlone ? 1 : Infinity)) {
      work.from = this.#commits.unsent.length;
      try {
        this.#fold(work.commands);
        this.#folded.push(work);
      } catch (error) {
        if (work.ended) this.#refuseEnd(work.ended, error);
        // Either that, or the dispatch is gone: the execution ended meanwhile.
        work.refused(error);
      }
    }
  }

  /** What an attempt ended with cannot be: it has failed. */
  #refuseEnd({ dispatch, times }: Running, error: unknown): void {
    this.#slotsEnding -= 1;
    if (!this.state.dispatches.has(dispatch.id)) return;
    const serialized = serializeError(error, dispatch.chunk ?? dispatch.node, dispatch.failures + 1);
    this.#fold([{ type: "fail", dispatch: dispatch.id, error: serialized, retryInMs: null, times }]);
  }

  async #commit(request: CommitRequest): Promise<void> {
    this.#phase = "committing";
    this.#timer?.cancel();
    this.#claimTimer?.cancel();
    if (request.release && this.#foldInterrupted() && !this.state.paused)
      request = { ...request, release: { wakeInMs: 0 } };
    const told = this.#folded.splice(0);
    const { unsent } = this.#commits;
    const planned = this.#ready.takePlanned();
    let answer: CommitAnswer;
    try {
      answer = await this.#commits.send(request);
    } catch (error) {
      return this.#refusedCommit(error, told, unsent.slice(0, told[0]?.from));
    }
    if (this.#isOver) return;
    try {
      await this.#answered(answer, request, told, planned);
    } catch (error) {
      return this.#fail(error);
    }
    this.#goOn();
  }

  /**
   * Only what Postgres can never hold gets here. What is folded is not in the ledger, so whoever claims next begins anew; the
   * attempt that wrote it has failed, behind what was folded `before`. Where several had a part in the commit, the next owner finds out whose it was.
   */
  async #refusedCommit(error: unknown, told: readonly Work[], before: readonly LedgerEvent[]): Promise<void> {
    const [writer] = told;
    const chunk = (writer?.ended ?? this.#running.get(writer?.dispatch ?? -1))?.dispatch.chunk ?? null;
    this.#meter.refused(chunk, error);
    if (this.#isOver) return;
    const authors = new Map<number, Running>();
    for (const { ended, dispatch } of told) {
      const running = ended ?? this.#running.get(dispatch ?? -1);
      if (running) authors.set(running.dispatch.id, running);
    }
    const [author] = authors.values();
    const isKnown = author !== undefined && authors.size === 1;
    const failure = isKnown ? this.#failureOf(author, error) : [];
    const events = author ? [...before, ...failure, ...this.#interruptions(isKnown ? author : null)] : [];
    if (authors.size > 1) this.#engine.committingAlone.add(this.id);
    await this.#commits.giveBack(author ? 0 : refusedWaitMs, events);
    this.#over(error);
  }

  /** What is cut off here in the middle of something: it goes on at once, whatever it waits for besides. */
  #interruptions(except: Running | null): LedgerEvent[] {
    const cut = [...this.#running.values()].filter((running) => running !== except && !running.isWaiting);
    return cut.flatMap(({ dispatch, times }) =>
      dispatch.journal.length > 0 && this.state.dispatches.has(dispatch.id)
        ? decide(this.state, { type: "interrupt", dispatch: dispatch.id, times }, this.graph)
        : [],
    );
  }

  #failureOf({ dispatch, times }: Running, error: unknown): LedgerEvent[] {
    const name = dispatch.chunk ?? dispatch.node;
    const refusal = new PayloadError(
      `what chunk "${name}" wrote`,
      [],
      `Postgres refused it (${String(error)})`,
      "store less, or something else",
      error,
    );
    // As the ledger has it: what is folded here may have ended it.
    this.state.dispatches.set(dispatch.id, dispatch);
    const serialized = serializeError(refusal, name, dispatch.failures + 1);
    return decide(
      this.state,
      { type: "fail", dispatch: dispatch.id, error: serialized, retryInMs: null, times },
      this.graph,
    );
  }

  /** The database has answered a commit. Returns what has to be waited for before the next turn. */
  #answered(
    answer: CommitAnswer,
    request: CommitRequest,
    told: readonly Work[],
    planned: readonly number[],
  ): Promise<void> | undefined {
    if (answer.verdict === "repeat") return this.#restart(told);
    if (answer.verdict === "fenced") {
      this.#fenced();
      return undefined;
    }
    this.#meter.committed(answer.events, answer.at, this.state);
    for (const work of told) this.#accept(work);
    this.#ready.release(planned);
    if (this.state.closed) {
      this.#closed(answer.close);
      return undefined;
    }
    if (answer.events.some(({ type }) => announced.has(type)))
      for (const id of [this.id, ...(this.state.parent?.visibleIn ?? [])]) this.#engine.announce(id, null);
    if (request.release && answer.isWhole) {
      const idle = [...(this.#fanOuts?.values() ?? [])];
      this.#over(null);
      return this.#lookBack(idle);
    }
    this.#commits.takeSnapshot();
    this.#wakeGroups();
    if (answer.events.some(({ type }) => type === "child.abandoned")) this.#abandoned.ask();
    return undefined;
  }

  /** A commit that an application's transaction makes. */
  async #record(): Promise<void> {
    const recording = this.#recordings.shift();
    if (!recording) return;
    const { dispatch, effect, send, accepted, refused } = recording;
    this.#phase = "committing";
    let verdict: CommitAnswer["verdict"];
    try {
      const events = decide(this.state, { type: "effect", dispatch, effect }, this.graph);
      verdict = await this.#commits.sendWithin(events, send);
    } catch (error) {
      // Rolled back: the ledger knows nothing of it.
      refused(error);
      return this.#resumeAfter(() => {});
    }
    // Whoever owns the execution by now: a transaction that hears nothing stays open, with its connection and its locks.
    if (verdict !== "ok") refused(new LeaseLostError(this.id, this.#epoch));
    else if (this.#isOver) accepted();
    await this.#resumeAfter(() => {
      if (verdict === "ok") {
        this.#accept(new Work(dispatch, [], accepted, refused));
        return this.#wakeGroups();
      }
      return verdict === "fenced" ? this.#fenced() : this.#restart([]);
    });
  }

  /** Goes on after a wait, unless it is over meanwhile. */
  async #resumeAfter(work: () => void | Promise<void>): Promise<void> {
    if (this.#isOver) return;
    try {
      await work();
    } catch (error) {
      return this.#fail(error);
    }
    this.#goOn();
  }

  #goOn(): void {
    if (this.#isOver) return;
    this.#phase = "idle";
    this.#advance();
  }

  /** Whatever a step throws gives the execution back. */
  async #fail(error: unknown): Promise<void> {
    if (this.#isOver) return;
    this.#phase = "committing";
    this.log.error("an owner could not go on, and gives its execution back", {
      event: "given_back",
      executionId: this.id,
      flow: this.flow.name,
      ...traceIdOf(this.state.trace),
      error: error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
    // Of what was cut off before anything of this epoch was in the ledger nothing can be said there.
    await this.#commits.giveBack(refusedWaitMs, this.#commits.isFirst ? [] : this.#interruptions(null));
    this.#over(new LeaseLostError(this.id, this.#epoch));
  }

  /** A commit point is reached; while draining it is also where the attempt ends, to go on elsewhere. */
  #accept(work: Work): void {
    if (work.ended) this.#slotsEnding -= 1;
    const running = work.dispatch === null ? undefined : this.#running.get(work.dispatch);
    if (running && this.#mode === "draining") this.#cutOff(running, new LeaseLostError(this.id, this.#epoch));
    else work.accepted();
  }

  /** The attempt ends here; its dispatch stays open for whoever claims next. */
  #cutOff(running: Running, reason: unknown): void {
    const { id } = running.dispatch;
    this.#running.delete(id);
    this.#ready.putBack(id);
    (this.#cut ??= new Map()).set(id, running);
    running.cutOff(reason);
  }

  /** What a park would leave waiting, although it was in the middle of something or could run now, is to go on at once. False: nothing. */
  #foldInterrupted(): boolean {
    const before = this.#commits.unsent.length;
    for (const [id, { times }] of this.#cut ?? []) {
      const dispatch = this.state.dispatches.get(id);
      if (dispatch && this.#ready.at(dispatch) > this.now()) this.#fold([{ type: "interrupt", dispatch: id, times }]);
    }
    for (const dispatch of this.#ready.interrupted(this.now()))
      if (!this.#cut?.has(dispatch.id)) this.#fold([{ type: "interrupt", dispatch: dispatch.id }]);
    return this.#commits.unsent.length > before;
  }

  #fenced(): void {
    this.#meter.fenced(this.#epoch);
    this.lose();
  }

  /** The commit is in, but its answer was lost with the connection: whoever claims next folds the ledger afresh. */
  async #restart(told: readonly Work[]): Promise<void> {
    this.log.info("repeated a commit whose answer was lost", { executionId: this.id, epoch: this.#epoch });
    const lost = new LeaseLostError(this.id, this.#epoch);
    const hasBegun = this.#running.size > 0;
    for (const running of this.#running.values()) this.#cutOff(running, lost);
    for (const work of told) work.refused(lost);
    // What was cut off did not park: freed as lost, it goes on at once, whatever else it waits for.
    if (hasBegun) this.lose();
    else {
      await this.#commits.giveBack(0);
      this.#over(lost);
    }
    this.#engine.announce(this.id, null);
  }

  #closed(header: CloseHeader | null): void {
    if (header && hasRelatives(this.state, header)) this.#engine.propagateClose(this.id);
    this.#over(null);
    const { item, parent } = this.state;
    if (item && parent && header) {
      if (this.#engine.hasShortcuts) this.#engine.items.closed(this.id, header);
      this.#engine.items.wake(parent.id);
    }
    this.#engine.announce(this.id, header ? { ...header, flow: this.flow.name } : null);
  }

  #over(reason: unknown, phase: "over" | "lost" = "over"): void {
    if (this.#isOver) return;
    this.#phase = phase;
    this.#timer?.cancel();
    this.#claimTimer?.cancel();
    for (const fanOut of this.#fanOuts?.values() ?? []) void fanOut.stop();
    const running = [...this.#running.values()];
    this.#running.clear();
    // Made only where somebody hears it: an execution that ends as it should has nobody left.
    const waiting = [...this.#work.splice(0), ...this.#folded.splice(0), ...this.#recordings.splice(0)];
    if (running.length + waiting.length > 0) {
      const why = reason ?? new LeaseLostError(this.id, this.#epoch);
      for (const one of running) one.cutOff(why);
      for (const { refused } of waiting) refused(why);
    }
    const disposed = this.resources.dispose();
    if (disposed) this.#engine.onDispose(disposed);
    this.#finish();
  }

  /** Reads what came in from outside while nothing of ours was on its way. */
  async #catchUp(): Promise<void> {
    this.#phase = "catchingUp";
    this.#looks = this.#pokes;
    const foreign = await this.#engine.readEvents(this.id, this.#commits.base).catch(() => []);
    await this.#resumeAfter(() => {
      this.#commits.foldForeign(foreign);
      if (!this.#isFolding) this.#wakeGroups();
    });
  }

  // ── what came in ────────────────────────────────────────────────────────────────────────────────────────────

  /** Sends the oldest arrival on its way. False when its conditions have to be asked first. */
  #route(): boolean {
    const [arrival] = this.state.inbox;
    if (!arrival) return true;
    let value: Json | undefined;
    if (arrival.raw) {
      try {
        value =
          arrival.kind === "start"
            ? parseInput(this.flow, arrival.value)
            : parseEvent(this.flow, arrival.event, arrival.value);
      } catch (error) {
        this.#refuse(arrival, error);
        return true;
      }
    }
    if (arrival.kind === "resume") this.trace?.waited(this.state.interrupts.get(arrival.interrupt));
    // It may be trying again by now.
    const skipped = arrival.kind === "skip" && !arrival.paused ? this.#running.get(arrival.dispatch) : undefined;
    if (skipped) this.#cutOff(skipped, new UsageError("the chunk was skipped", "stop when ctx.signal aborts"));
    const nodes = this.#entryOf(arrival);
    if (!meetsMatch(this.graph, nodes)) {
      this.#routeOrRefuse(arrival, { type: "route", value });
      return true;
    }
    this.#phase = "routing";
    const asked = askConditions(this.graph, nodes, value ?? arrival.value, (seen) => new ReadCtx(this, seen));
    void this.#afterAsking(asked, (matches) => ({ type: "route", matches, value }), arrival);
    return false;
  }

  #routeOrRefuse(arrival: ExecutionState["inbox"][number], command: Command): void {
    const skipped =
      arrival.kind === "skip" && !arrival.paused ? this.state.dispatches.get(arrival.dispatch) : undefined;
    try {
      this.#fold([command]);
    } catch (error) {
      // Where it leads takes no more.
      if (!(error instanceof UsageError)) throw error;
      return this.#refuse(arrival, error);
    }
    if (skipped) this.#fold(this.#abandoning(skipped));
  }

  /** What came in and breaks the contract, or where it leads takes no more: an input ends the execution, an event goes nowhere. */
  #refuse(arrival: ExecutionState["inbox"][number], error: unknown): void {
    const serialized = serializeError(error);
    this.#fold([{ type: "route", refused: serialized.message }]);
    if (arrival.kind === "start") this.#fold([{ type: "abort", reason: "failed", error: serialized }]);
    else
      this.log.warn("an event was refused", {
        executionId: this.id,
        flow: this.flow.name,
        error: serialized.message,
      });
  }

  async #afterAsking(
    asked: Promise<Matches>,
    command: (matches: Matches) => Command,
    arrival: ExecutionState["inbox"][number],
  ): Promise<void> {
    const folded = await asked.then(command, (error: unknown): Command => {
      return { type: "abort", reason: "failed", error: serializeError(error) };
    });
    await this.#resumeAfter(() => this.#routeOrRefuse(arrival, folded));
  }

  #entryOf(arrival: ExecutionState["inbox"][number]): readonly string[] {
    if (arrival.kind === "start") return entryNodes(this.state, this.graph);
    if (arrival.kind === "event") return this.graph.whenEvent.get(arrival.event) ?? [];
    if (arrival.kind === "skip") {
      const place = arrival.paused ?? this.state.dispatches.get(arrival.dispatch);
      return place ? (this.graph.nodes.get(place.node)?.next ?? []) : [];
    }
    const interrupt = this.state.interrupts.get(arrival.interrupt);
    if (!interrupt?.paused) return [];
    const to = goesOnTo(interrupt);
    if (to === "next") return this.graph.nodes.get(interrupt.paused.node)?.next ?? [];
    return to === "self" ? [] : (this.graph.whenEvent.get(to.event) ?? []);
  }

  // ── what runs ───────────────────────────────────────────────────────────────────────────────────────────────

  #start(): void {
    this.#startedAt = this.now();
    if (this.#mode === "draining" || this.state.closed || this.state.failing) return;
    if (this.state.cancelling ? !isCleaning(this.state) : isPaused(this.state) || this.#isFlowPaused) return;
    // A chunk that starts after another has ended sees what that wrote.
    if (this.#work.length > 0) return;
    if (this.#resuming.length > 0) this.#resume();
    if (this.#ready.isEmpty) return;
    const now = this.#startedAt;
    for (const dispatch of this.#ready.take(now, this.#freeSlots(), this.#running)) this.#startOne(dispatch, now);
  }

  #startOne(dispatch: Dispatch, now: number): void {
    const due = this.#ready.at(dispatch);
    const queuedAt = Math.trunc(Math.max(dispatch.plannedAt, dispatch.notBefore ?? 0, due <= now ? due : 0));
    const running = new Running(dispatch, { queuedAt, startedAt: Math.max(queuedAt, Math.trunc(now)) });
    this.#running.set(dispatch.id, running);
    const node = dispatch.chunk === null ? this.graph.nodes.get(dispatch.node) : undefined;
    if ((node?.kind === "forEach" || node?.kind === "batch") && node.distribute)
      return void this.#distribute(running, node);
    if (dispatch.cleanup) {
      const cleanup = cleanupChunk(this.graph, dispatch);
      return cleanup ? void this.#attempt(running, cleanup) : this.#ended(running, [goneCommand(dispatch)]);
    }
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
    const { dispatch } = running;
    const input = dispatch.tells ? await this.#linked(running, dispatch.tells) : dispatch.input;
    if (input === undefined) return;
    running.attempt = new Attempt(this, dispatch, chunk, running.abort, input);
    const ended = await running.attempt.run();
    this.#ended(running, this.#endCommands(running, ended));
  }

  /** With a link of its own, whose hash is in the ledger by then; undefined where the attempt was cut off meanwhile. */
  async #linked(running: Running, notice: Notice): Promise<Json | undefined> {
    const { publicUrl } = this;
    const { dispatch } = running;
    if (publicUrl === null || !wantsLink(this.state, notice)) return dispatch.input;
    const link = newLink(publicUrl);
    const isKept = await this.#submit(dispatch.id, [
      { type: "link", interrupt: notice.interrupt, hash: link.hash },
    ]).then(
      () => true,
      () => false,
    );
    return isKept && this.#running.get(dispatch.id) === running ? withLink(dispatch.input, link) : undefined;
  }

  #endCommands({ dispatch, times }: Running, ended: Ended): Command[] {
    const { id } = dispatch;
    switch (ended.kind) {
      case "completed":
        return [
          ...effectCommands(id, ended.effects),
          { type: "complete", dispatch: id, output: ended.output, matches: ended.matches, times },
          ...this.#abandoning(dispatch),
        ];
      case "paused":
        return [
          ...effectCommands(id, ended.effects),
          { type: "pause", dispatch: id, interrupt: ended.interrupt, times },
          ...this.#abandoning(dispatch),
        ];
      case "dropped":
        return [{ type: "drop", dispatch: id }];
      case "failed":
        return [
          {
            type: "fail",
            dispatch: id,
            error: ended.serialized,
            retryInMs: ended.retryInMs,
            times: ended.turns.length > 0 ? { ...times, turns: ended.turns } : times,
          },
        ];
    }
  }

  /** Of the children that a chunk called in any of its attempts, those whose end nobody has heard of. */
  #abandoning({ id, journal }: Dispatch): Command[] {
    return journal.flatMap((entry): Command[] => {
      if (entry.effect !== "call" || this.ended.has(entry.child)) return [];
      const child = this.state.children.get(entry.child);
      const runsOn = child === undefined || child.leaves === true || child.closed !== null;
      return runsOn ? [] : [{ type: "abandon", dispatch: id, child: entry.child }];
    });
  }

  /** A dispatch without a chunk: its node's conditions are asked, and its value goes on. */
  async #forward(running: Running): Promise<void> {
    const { dispatch } = running;
    const asked = askConditions(this.graph, [dispatch.node], dispatch.input, (value) => new ReadCtx(this, value));
    const command = await asked.then(
      (matches): Command => ({ type: "forward", dispatch: dispatch.id, matches }),
      (error: unknown): Command => {
        const serialized = serializeError(error, dispatch.node, 1);
        return { type: "fail", dispatch: dispatch.id, error: serialized, retryInMs: null };
      },
    );
    this.#ended(running, [command]);
  }

  /** How an attempt ended goes into the ledger; until then it holds its slot. */
  #ended(running: Running, commands: readonly Command[]): void {
    if (this.#isOver || this.#running.get(running.dispatch.id) !== running) return;
    this.#running.delete(running.dispatch.id);
    // What a cancel interrupted has not failed.
    const counts =
      this.state.cancelling && !running.dispatch.cleanup ? commands.filter(({ type }) => type !== "fail") : commands;
    if (counts.length === 0) return this.#advance();
    this.#work.push(new Work(null, counts, nothing, nothing, running));
    this.#slotsEnding += 1;
    this.#advance();
  }

  // ── distributed collections ─────────────────────────────────────────────────────────────────────────────────

  async #distribute(running: Running, node: ForEachNode | BatchNode): Promise<void> {
    const { dispatch, abort } = running;
    const fanOut = new FanOut(this.#fanOutHost(), dispatch, node);
    this.#fanOuts?.set(dispatch.id, fanOut);
    // It takes no slot: its items have slots of their own.
    running.wait({ kind: "items" });
    this.#engine.waitsForOthers(this.id);
    abort.signal.addEventListener("abort", () => void fanOut.stop(), { once: true });
    const commands = await fanOut
      .run()
      .catch((error: unknown): Command[] => [
        { type: "fail", dispatch: dispatch.id, error: serializeError(error, dispatch.node, 1), retryInMs: null },
      ]);
    this.#fanOuts?.delete(dispatch.id);
    this.#ended(running, this.state.cancelling ? [] : (commands ?? []));
  }

  #fanOutHost(): FanOutHost {
    const { id, state } = this;
    const under = (node: string) => [...(this.#fanOuts?.values() ?? [])].filter((fanOut) => fanOut.node.id === node);
    return {
      id,
      state,
      items: this.#engine.items,
      newId: this.#engine.newId,
      submit: (_, commands) => this.#submit(null, commands),
      itemsUnderWay: (node) => under(node).reduce((sum, fanOut) => sum + fanOut.underWay, 0),
      itemsEnded: (node) => under(node).forEach((fanOut) => fanOut.pump()),
      idle: () => this.#advance(),
    };
  }

  // oxlint-disable-next-line eslint/no-unused-private-class-members -- #Facts asks it
  #hasItemsToStop(): boolean {
    if (this.#fanOuts === null || !(this.state.failing || this.state.cancelling)) return false;
    for (const { items } of this.state.frames.values()) if (items) return true;
    return false;
  }

  /** Before an execution ends early its items are told, so that none is left behind if this worker dies in between. */
  async #stopItems(): Promise<void> {
    this.#phase = "stoppingItems";
    await Promise.all([...(this.#fanOuts?.values() ?? [])].map((fanOut) => fanOut.stop()));
    const reason = `parent ${this.state.failing ? "failed" : "cancelled"}`;
    for (const { items, done, missing } of this.state.frames.values())
      if (items && missing > 0)
        await this.#engine.items
          .cancel(items.base, done.length, reason)
          .catch((error: unknown) =>
            this.log.warn("items could not be cancelled", { executionId: this.id, error: String(error) }),
          );
    await this.#resumeAfter(() => void (this.#fanOuts = null));
  }

  /** Race: an item that closed during the release still saw an owner and sent no wake-up, so look once more. */
  async #lookBack(fanOuts: readonly FanOut[]): Promise<void> {
    for (const fanOut of fanOuts)
      if (await fanOut.hasUnheard().catch(() => true)) return this.#engine.items.wake(this.id);
  }

  // ── time ────────────────────────────────────────────────────────────────────────────────────────────────────

  #wakeGroups(): void {
    for (const [group, resolve] of this.#groupWaiters) {
      if (this.state.groups.has(group)) continue;
      this.#groupWaiters.delete(group);
      resolve();
    }
  }

  #arm(): void {
    this.#timer?.cancel();
    // Counted from when what is ready was last looked through, so that nothing falls due unseen in between.
    let next = this.#nextTimer(this.#startedAt) ?? Infinity;
    if (this.#cancelDeadline !== null) next = Math.min(next, this.#cancelDeadline);
    for (const { waits } of this.#running.values())
      for (const wait of waits)
        if (wait.kind === "child" && wait.since !== null && wait.since + childWaitMs > this.now())
          next = Math.min(next, wait.since + childWaitMs);
    const what =
      next === this.#cancelDeadline ? `the grace of a cancelled execution of ${this.flow.name} is over` : undefined;
    if (next !== Infinity) this.#timer = this.timers.at(next, this, () => this.#advance(), what);
  }
}

/** What somebody may wait for, besides the close. */
const announced: ReadonlySet<LedgerEvent["type"]> = new Set([
  "result.set",
  "chunk.parked",
  "interrupt.raised",
  "interrupt.expired",
  "stream.stopped",
]);
