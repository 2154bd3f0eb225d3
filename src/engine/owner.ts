/**
 * Advances one execution through one epoch: claim → turns → release. A loop around a pure decision, `nextTurn`: whatever it decides
 * is in the ledger before it counts. Its parts do the work: what came in (`arrivals.ts`), what runs (`runs.ts`, `slots.ts`,
 * `collections.ts`), what is to be in the ledger (`entries.ts`, `round-trips.ts`), what the clock brings (`deadlines.ts`).
 */
import type { Logger } from "../flow/context.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { Graph } from "../flow/graph.ts";
import type { Command } from "../ledger/command.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { suspectOf } from "../ledger/parking.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Claim } from "../store/claims.ts";
import { bound } from "../telemetry/log.ts";
import { OwnerMeter } from "../telemetry/meter.ts";
import { traceIdOf } from "../telemetry/traceparent.ts";
import type { OwnerTrace } from "../telemetry/trace.ts";
import { Abandoned } from "./abandoned.ts";
import { Arrivals } from "./arrivals.ts";
import { Asks } from "./asks.ts";
import { Collections } from "./collections.ts";
import { Commits } from "./commit.ts";
import { Deadlines } from "./deadlines.ts";
import { End } from "./end.ts";
import { Entries } from "./entries.ts";
import { Facts } from "./facts.ts";
import type { Engine } from "./host.ts";
import { Loop } from "./loop.ts";
import { Ready } from "./ready.ts";
import { crashLooped } from "./retries.ts";
import { RoundTrips } from "./round-trips.ts";
import { Runs } from "./runs.ts";
import { Slots } from "./slots.ts";
import { StateContract } from "./state-contract.ts";
import { nextTurn } from "./turn.ts";

/** So many workers may be lost without progress before an execution is taken for the cause. */
const maxTakeovers = 5;

/** What an owner is made of. One object for all: each part sees of it what its own interface names. */
class Parts {
  readonly engine: Engine;
  readonly flow: FlowDefinition;
  readonly graph: Graph;
  readonly claim: Claim;
  readonly trace: OwnerTrace | null;
  readonly log: Logger;
  readonly recent: readonly number[];
  readonly state: ExecutionState;
  readonly isEachAlone: boolean;
  readonly loop: Loop;
  readonly commits: Commits;
  readonly stateContract: StateContract;
  readonly meter: OwnerMeter;
  readonly ready: Ready;
  readonly abandoned: Abandoned;
  readonly slots: Slots;
  readonly entries: Entries;
  readonly asks: Asks;
  readonly collections: Collections;
  readonly deadlines: Deadlines;
  readonly end: End;
  readonly runs: Runs;
  readonly arrivals: Arrivals;
  readonly roundTrips: RoundTrips;

  constructor(
    engine: Engine,
    flow: FlowDefinition,
    claim: Claim,
    trace: OwnerTrace | null,
    recent: readonly number[],
    step: () => boolean,
  ) {
    const { id, state, takeovers } = claim;
    this.engine = engine;
    this.flow = flow;
    this.graph = flow.graph;
    this.claim = claim;
    this.trace = trace;
    this.recent = recent;
    this.state = state;
    this.isEachAlone = engine.committingAlone.delete(id);
    this.loop = new Loop(step, (error) => this.end.fail(error));
    this.commits = new Commits(claim, engine.committer, engine.clock);
    this.stateContract = new StateContract(flow, state, this.commits);
    this.meter = new OwnerMeter(engine, claim, flow);
    this.ready = new Ready(state, flow.graph, takeovers > 0);
    this.log = bound(engine.log, () => ({ executionId: id, flow: flow.name, ...traceIdOf(state.trace) }));
    this.abandoned = new Abandoned(id, engine, this.log, () => this.loop.advance());
    this.slots = new Slots(this);
    this.entries = new Entries(this);
    this.asks = new Asks(this);
    this.collections = new Collections(this);
    this.deadlines = new Deadlines(this);
    this.end = new End(this);
    this.runs = new Runs(this);
    this.arrivals = new Arrivals(this);
    this.roundTrips = new RoundTrips(this);
  }
}

export class Owner {
  readonly id: ExecutionId;
  readonly flow: FlowDefinition;
  readonly #claim: Command;
  readonly #of: Parts;
  readonly #facts: Facts;

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
    this.id = claim.id;
    this.flow = flow;
    const { trace, event } = engine.tracing.claimed(claim, flow.fingerprint);
    this.#claim = { type: "claim", worker: engine.workerId, fingerprint: flow.fingerprint, nodes, ...event };
    engine.clock.observe(claim.now);
    this.#of = new Parts(engine, flow, claim, trace, recent, () => this.#step());
    this.#facts = new Facts(this.#of);
  }

  /** Begins the epoch. */
  begin(): this {
    try {
      this.#of.abandoned.takeOver(this.state.children);
      this.#of.entries.fold([this.#claim]);
      if (this.#of.claim.takeovers >= maxTakeovers) {
        this.#of.meter.crashLoop(suspectOf(this.state)?.chunk ?? null, this.#of.claim.takeovers);
        this.#of.entries.fold([crashLooped(this.#of.asks, this.#of.claim.takeovers)]);
      }
    } catch (error) {
      void this.#of.end.fail(error);
    }
    this.#of.loop.advance();
    return this;
  }

  /** Resolves when it is over for this owner. */
  get done(): Promise<void> {
    return this.#of.end.done;
  }

  /** What is folded so far; read only. */
  get state(): ExecutionState {
    return this.#of.asks.state;
  }

  /** Something came in from outside: read it. */
  poke(): void {
    this.#of.loop.poke();
  }

  /** Gives the execution back at the next commit point; nothing new is started. */
  drain(): void {
    this.#of.slots.drain();
    this.#of.loop.advance();
  }

  /** Ends what still runs here. Its effects up to the last commit point stay. */
  abort(reason: unknown): void {
    this.#of.slots.cutOffAll(reason);
    this.#of.loop.advance();
  }

  /** Another owner has it: drop everything. */
  lose(): void {
    this.#of.end.lose();
  }

  get running(): number {
    return this.#of.slots.running.size;
  }

  get lease(): { readonly id: ExecutionId; readonly epoch: number; readonly seq: number } {
    return { id: this.id, epoch: this.#of.commits.lease.epoch, seq: this.#of.commits.base };
  }

  /** True if it stopped because its lease was lost. */
  get isLost(): boolean {
    return this.#of.loop.phase === "lost";
  }

  /** Nothing happens here until something comes in or time passes. */
  get isQuiet(): boolean {
    return this.isStill && this.userCode.length === 0;
  }

  /** Nothing happens here until something comes in, time passes, or user code goes on. */
  get isStill(): boolean {
    if (this.#of.loop.isOver) return true;
    const { hasWork, isAwaited, hasRecording } = this.#of.entries;
    if (this.#of.loop.phase !== "idle" || hasWork || isAwaited || hasRecording || this.#of.loop.isPoked) return false;
    return this.#of.commits.unsent.length === 0 && !this.#of.abandoned.isAsking && this.#of.collections.isQuiet;
  }

  /** Hears of items that a worker closed and did not live to tell of. */
  lookAtItems(): Promise<void> {
    return this.#of.collections.look();
  }

  /** The attempts that run user code, each with how far it came. */
  get userCode(): { readonly chunk: string; readonly place: string }[] {
    const { epoch } = this.#of.commits.lease;
    const code: { chunk: string; place: string }[] = [];
    for (const { isWaiting, dispatch } of this.#of.slots.running.values())
      if (!isWaiting)
        code.push({
          chunk: dispatch.chunk ?? dispatch.node,
          place: [this.id, epoch, dispatch.id, dispatch.failures, dispatch.journal.length].join(" "),
        });
    return code;
  }

  /** One step. False when there is nothing to do for now. */
  #step(): boolean {
    // Before its first commit only a fresh claim starts chunks: they follow from the ledger alone.
    if (this.#of.commits.isFirst) this.#of.ready.release(this.#of.ready.takePlanned());
    this.#of.runs.start();
    if (this.#of.loop.isOver) return false;
    this.#of.deadlines.fallDue();
    const next = nextTurn(this.#facts);
    switch (next.do) {
      case "catchUp":
        void this.#of.roundTrips.catchUp();
        return false;
      case "route":
        return this.#of.arrivals.route();
      case "record":
        void this.#of.roundTrips.record();
        return false;
      case "fold":
        this.#of.entries.foldWork();
        return true;
      case "stopItems":
        void this.#of.collections.stopItems();
        return false;
      case "linger":
        this.#of.deadlines.linger(this.#of.runs.checkedAt);
        return false;
      case "append":
        void this.#of.roundTrips.commit(next);
        return false;
      case "wait":
        this.#of.deadlines.arm(this.#of.runs.checkedAt);
        return false;
    }
  }
}
