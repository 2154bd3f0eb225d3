/** What attempts ask of their owner: commit points, waits, groups, children, their stream. */
import { unlessAborted } from "../base/async.ts";
import type { Json } from "../base/json.ts";
import { systemTimers as liveness, type Timers } from "../base/timers.ts";
import type { ExecutionInfo, Logger } from "../flow/context.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { Graph } from "../flow/graph.ts";
import type { Effect } from "../ledger/command.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Dispatch } from "../ledger/parts.ts";
import type { Claim } from "../store/claims.ts";
import type { Send, Transactions } from "../store/transactions.ts";
import type { OwnerTrace } from "../telemetry/trace.ts";
import type { NewChild } from "./child.ts";
import type { Commits } from "./commit.ts";
import { never } from "./ctx/effect.ts";
import type { Entries } from "./entries.ts";
import type { AttemptHost, Begun, ClosedExecution, Engine, FlowDataAccess } from "./host.ts";
import type { NewId } from "./ids.ts";
import type { Loop } from "./loop.ts";
import { ExecutionResources } from "./resources.ts";
import type { Wait } from "./running.ts";
import type { Slots } from "./slots.ts";
import type { StateContract } from "./state-contract.ts";
import { InterventionsSize, StateSize } from "./state-size.ts";
import type { Put, StreamTarget } from "./streamer.ts";
import { effectCommands } from "./work.ts";

interface Parts {
  readonly engine: Engine;
  readonly flow: FlowDefinition;
  readonly claim: Claim;
  readonly trace: OwnerTrace | null;
  /** Says with each line whose it is. */
  readonly log: Logger;
  /** When its last stream items were put, where the flow limits their rate. */
  readonly recent: readonly number[];
  readonly slots: Slots;
  readonly entries: Entries;
  readonly commits: Commits;
  readonly stateContract: StateContract;
  readonly loop: Loop;
}

export class Asks implements AttemptHost {
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
  readonly stateContract: StateContract;
  readonly interventionsSize: InterventionsSize;
  readonly ended = new Set<ExecutionId>();
  readonly #of: Parts;
  readonly #stream: StreamTarget;
  /** What an earlier owner may have begun, and has put nothing into the stream under this one. */
  readonly #inherited: Set<number> | null;
  readonly #groupWaiters = new Map<number, () => void>();

  constructor(parts: Parts) {
    const { engine, flow, claim, trace, log, recent } = parts;
    const { id, epoch, token, items, state } = claim;
    this.#of = parts;
    this.id = id;
    this.flow = flow;
    this.graph = flow.graph;
    this.info = { id, flow: flow.name, metadata: state.metadata };
    this.resources = new ExecutionResources(
      {
        execution: engine.executionResources(state.item && state.parent ? state.parent.id : id),
        flow: engine.flowResources(flow.name),
        worker: engine.resources,
        requirements: flow.requirements,
      },
      this.info,
      log,
    );
    this.log = log;
    this.userLog = engine.userLog;
    this.trace = trace;
    this.tracesSteps = engine.tracing.hasSteps;
    this.timers = engine.timers;
    this.state = state;
    this.stateContract = parts.stateContract;
    this.stateSize = new StateSize({ executionId: id });
    this.interventionsSize = new InterventionsSize({ executionId: id });
    this.#stream = { id, epoch, token, visibleIn: state.parent?.visibleIn, items, ...flow.streamLimits, recent };
    this.#inherited = state.dispatches.size > 0 ? new Set(state.dispatches.keys()) : null;
  }

  now(): number {
    return this.#of.engine.clock.now();
  }

  get newId(): NewId {
    return this.#of.engine.newId;
  }

  get publicUrl(): string | null {
    return this.#of.engine.publicUrl;
  }

  get began(): ((begun: Omit<Begun, "executionId" | "flow">) => void) | undefined {
    const { onBegin } = this.#of.engine.hooks;
    return onBegin && ((begun) => onBegin({ executionId: this.id, flow: this.flow.name, ...begun }));
  }

  get flowData(): FlowDataAccess {
    return this.#of.engine.flowData(this.flow.name);
  }

  get transactions(): Transactions {
    return this.#of.engine.transactions;
  }

  commit(dispatch: number, effects: readonly Effect[]): Promise<void> {
    return this.#of.entries.submit(dispatch, effectCommands(dispatch, effects));
  }

  record(dispatch: number, effect: Effect, send: Send): Promise<void> {
    return this.#of.entries.record(dispatch, effect, send);
  }

  busy(dispatch: number): () => void {
    return this.#of.slots.busy(dispatch);
  }

  async waitUntil(dispatch: number, time: number): Promise<void> {
    const { slots } = this.#of;
    if (time <= this.now()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const alarm = this.timers.at(time, this, resolve);
    const { signal } = slots.running.get(dispatch)?.abort ?? {};
    signal?.addEventListener("abort", () => alarm.cancel(), { once: true });
    await slots.waiting(dispatch, { kind: "time", until: time }, promise);
  }

  async groupEnd(dispatch: number, group: number): Promise<void> {
    const { entries, slots } = this.#of;
    if (!this.state.groups.has(group) && !entries.isFolding) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#groupWaiters.set(group, resolve);
    await slots.waiting(dispatch, { kind: "group", group }, promise);
  }

  /** What has ended in the ledger is told to those who wait for it. */
  wakeGroups(): void {
    for (const [group, resolve] of this.#groupWaiters) {
      if (this.state.groups.has(group)) continue;
      this.#groupWaiters.delete(group);
      resolve();
    }
  }

  async runChild(
    dispatch: number,
    child: Omit<NewChild, "parent"> & { readonly ordinal: number },
    signal?: AbortSignal,
  ): Promise<ClosedExecution> {
    const { engine, slots, loop } = this.#of;
    const { ordinal, ...rest } = child;
    const running = slots.running.get(dispatch);
    if (!running) return never();
    const isSubFlow = running.dispatch.chunk === null;
    const visibleIn = isSubFlow ? { visibleIn: [this.id, ...(this.state.parent?.visibleIn ?? [])] } : {};
    const isHidden = isSubFlow && this.state.settings.hidden;
    const wait: Wait = { kind: "child", id: child.id, since: null };
    const ending = engine.runChild(
      { ...rest, parent: { id: this.id, dispatch, ordinal, ...visibleIn }, isHidden },
      {
        signal: running.abort.signal,
        onCreated: () => {
          wait.since = this.now();
          loop.advance();
        },
      },
    );
    // The child is in the ledger, so it is created even where the wait is aborted.
    return slots.waiting(dispatch, wait, signal ? unlessAborted(ending, signal) : ending);
  }

  async isCancelledExternally(child: ExecutionId): Promise<boolean> {
    const { engine, commits, loop } = this.#of;
    const isMarked = () => (this.state.children.get(child)?.cancelledAt ?? null) !== null;
    while (!isMarked() && !loop.isOver) {
      // The child ended by its cancel, so the cancel is in the ledger; this owner may not have read it yet.
      const events = await engine.readEvents(this.id, commits.base).catch(() => null);
      if (events)
        return isMarked() || events.some(({ event }) => event.type === "child.cancelled" && event.child === child);
      await liveness.sleep(500, { ref: false });
    }
    return isMarked();
  }

  putIntoStream({ id, chunk, failures }: Dispatch, item: Json): Put {
    const mark = this.#inherited?.has(id) && chunk !== null ? { dispatch: id, chunk, attempt: failures + 1 } : null;
    const put = this.#of.engine.putIntoStream(this.#stream, item, id, mark);
    // Only now: after a refused item the next one carries the mark.
    this.#inherited?.delete(id);
    return put;
  }
}
