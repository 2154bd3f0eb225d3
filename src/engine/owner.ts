/**
 * Advances one execution through one epoch: claim → turns → release. A loop around a pure decision, `nextTurn`: whatever it decides
 * is in the ledger before it counts. Its parts do the work: what came in (`arrivals.ts`), what runs (`runs.ts`, `slots.ts`,
 * `collections.ts`), what is to be in the ledger (`entries.ts`, `round-trips.ts`), what the clock brings (`deadlines.ts`).
 */
import type { FlowDefinition } from "../flow/definition.ts";
import type { Command } from "../ledger/command.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { suspectOf } from "../ledger/parking.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Claim } from "../store/claims.ts";
import { OwnerMeter } from "../telemetry/meter.ts";
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
import { nextTurn } from "./turn.ts";

/** So many workers may be lost without progress before an execution is taken for the cause. */
const maxTakeovers = 5;

export class Owner {
  readonly id: ExecutionId;
  readonly flow: FlowDefinition;
  readonly #claim: Command;
  readonly #takeovers: number;
  readonly #asks: Asks;
  readonly #commits: Commits;
  readonly #meter: OwnerMeter;
  readonly #ready: Ready;
  readonly #abandoned: Abandoned;
  readonly #slots: Slots;
  readonly #entries: Entries;
  readonly #collections: Collections;
  readonly #deadlines: Deadlines;
  readonly #runs: Runs;
  readonly #arrivals: Arrivals;
  readonly #roundTrips: RoundTrips;
  readonly #facts: Facts;
  readonly #loop: Loop;
  readonly #end: End;

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
    const { id, state, takeovers } = claim;
    const { graph } = flow;
    this.id = id;
    this.flow = flow;
    const { trace, event } = engine.tracing.claimed(claim, flow.fingerprint);
    this.#claim = { type: "claim", worker: engine.workerId, fingerprint: flow.fingerprint, nodes, ...event };
    this.#takeovers = takeovers;
    const loop = new Loop(
      () => this.#step(),
      (error) => this.#end.fail(error),
    );
    const commits = new Commits(claim, engine.committer, engine.clock);
    const meter = new OwnerMeter(engine, claim, flow);
    engine.clock.observe(claim.now);
    const ready = new Ready(state, graph, takeovers > 0);
    const abandoned = new Abandoned(id, engine, () => loop.advance());
    const slots = new Slots({ state, ready, loop });
    const isEachAlone = engine.committingAlone.delete(id);
    const entries = new Entries({ state, graph, commits, ready, slots, abandoned, loop, isEachAlone });
    const asks = new Asks({ engine, flow, claim, trace, recent, slots, entries, commits, loop });
    const collections = new Collections({ engine, asks, entries, loop });
    const deadlines = new Deadlines({ engine, asks, commits, entries, ready, slots, loop });
    const end = new End({ engine, asks, commits, entries, slots, collections, deadlines, meter, loop });
    const runs = new Runs({ engine, asks, entries, ready, slots, collections });
    this.#arrivals = new Arrivals({ asks, entries, slots, loop });
    const parts = { engine, asks, commits, entries, ready, slots, abandoned, collections, deadlines, end, meter, loop };
    this.#roundTrips = new RoundTrips(parts);
    this.#facts = new Facts({ ...parts, runs });
    this.#loop = loop;
    this.#commits = commits;
    this.#meter = meter;
    this.#ready = ready;
    this.#abandoned = abandoned;
    this.#slots = slots;
    this.#entries = entries;
    this.#asks = asks;
    this.#collections = collections;
    this.#deadlines = deadlines;
    this.#end = end;
    this.#runs = runs;
  }

  /** Begins the epoch. */
  begin(): this {
    try {
      this.#abandoned.takeOver(this.state.children);
      this.#entries.fold([this.#claim]);
      if (this.#takeovers >= maxTakeovers) {
        this.#meter.crashLoop(suspectOf(this.state)?.chunk ?? null, this.#takeovers);
        this.#entries.fold([crashLooped(this.#asks, this.#takeovers)]);
      }
    } catch (error) {
      void this.#end.fail(error);
    }
    this.#loop.advance();
    return this;
  }

  /** Resolves when it is over for this owner. */
  get done(): Promise<void> {
    return this.#end.done;
  }

  /** What is folded so far; read only. */
  get state(): ExecutionState {
    return this.#asks.state;
  }

  /** Something came in from outside: read it. */
  poke(): void {
    this.#loop.poke();
  }

  /** Gives the execution back at the next commit point; nothing new is started. */
  drain(): void {
    this.#slots.drain();
    this.#loop.advance();
  }

  /** Ends what still runs here. Its effects up to the last commit point stay. */
  abort(reason: unknown): void {
    this.#slots.cutOffAll(reason);
    this.#loop.advance();
  }

  /** Another owner has it: drop everything. */
  lose(): void {
    this.#end.lose();
  }

  get running(): number {
    return this.#slots.running.size;
  }

  get lease(): { readonly id: ExecutionId; readonly epoch: number; readonly seq: number } {
    return { id: this.id, epoch: this.#commits.lease.epoch, seq: this.#commits.base };
  }

  /** True if it stopped because its lease was lost. */
  get isLost(): boolean {
    return this.#loop.phase === "lost";
  }

  /** Nothing happens here until something comes in or time passes. */
  get isQuiet(): boolean {
    return this.isStill && this.userCode.length === 0;
  }

  /** Nothing happens here until something comes in, time passes, or user code goes on. */
  get isStill(): boolean {
    if (this.#loop.isOver) return true;
    const { hasWork, isAwaited, hasRecording } = this.#entries;
    if (this.#loop.phase !== "idle" || hasWork || isAwaited || hasRecording || this.#loop.isPoked) return false;
    return this.#commits.unsent.length === 0 && !this.#abandoned.isAsking && this.#collections.isQuiet;
  }

  /** Hears of items that a worker closed and did not live to tell of. */
  lookAtItems(): Promise<void> {
    return this.#collections.look();
  }

  /** The attempts that run user code, each with how far it came. */
  get userCode(): { readonly chunk: string; readonly place: string }[] {
    const { epoch } = this.#commits.lease;
    const code: { chunk: string; place: string }[] = [];
    for (const { isWaiting, dispatch } of this.#slots.running.values())
      if (!isWaiting)
        code.push({
          chunk: dispatch.chunk ?? dispatch.node,
          place: [this.id, epoch, dispatch.id, dispatch.failures, dispatch.journal.length].join(" "),
        });
    return code;
  }

  /** One step. False when there is nothing to do for now. */
  #step(): boolean {
    // Only a fresh claim starts chunks before its first commit: what it planned follows from the ledger alone.
    if (this.#commits.isFirst) this.#ready.release(this.#ready.takePlanned());
    this.#runs.start();
    if (this.#loop.isOver) return false;
    this.#deadlines.fallDue();
    const next = nextTurn(this.#facts);
    switch (next.do) {
      case "catchUp":
        void this.#roundTrips.catchUp();
        return false;
      case "route":
        return this.#arrivals.route();
      case "record":
        void this.#roundTrips.record();
        return false;
      case "fold":
        this.#entries.foldWork();
        return true;
      case "stopItems":
        void this.#collections.stopItems();
        return false;
      case "linger":
        this.#deadlines.linger(this.#runs.lookedAt);
        return false;
      case "append":
        void this.#roundTrips.commit(next);
        return false;
      case "wait":
        this.#deadlines.arm(this.#runs.lookedAt);
        return false;
    }
  }
}
