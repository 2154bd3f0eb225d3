/** Which dispatches may start: due, in the order of their planning, within the limits of collections and sub-flows. */
import type { Graph, Node } from "../flow/graph.ts";
import type { EventOf, LedgerEvent } from "../ledger/event.ts";
import type { Position } from "../ledger/move.ts";
import { forEachPlanned } from "../ledger/apply-moves.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Dispatch } from "../ledger/parts.ts";
import { isHeld, readyAt } from "../ledger/waits.ts";

const none: readonly Dispatch[] = [];
const noIds: ReadonlySet<number> = new Set();

export class Ready {
  readonly #state: ExecutionState;
  readonly #graph: Graph;
  /** Open, and not running here. */
  #ids: number[] = [];
  /** Planned by what is folded and not sent yet: it starts when the plan is in the ledger. */
  #planned: number[] = [];
  /** Those that an earlier owner lost: what they waited for nobody knows. */
  readonly #orphans: ReadonlySet<number>;
  /** Collection items under way, by node, where the node limits them; and the dispatches that wait for one of them to end. */
  readonly #itemsUnderWay = new Map<string, Map<string, Position>>();
  readonly #blocked = new Map<string, number[]>();
  /** The items that pauses stood in when that was last looked at. */
  #pauses: ReadonlyMap<string, Position>;
  /** Where those stand that were taken in such items. */
  readonly #placeOf = new Map<number, Position>();

  /** @param isTakeover the worker before this one was lost with whatever it ran */
  constructor(state: ExecutionState, graph: Graph, isTakeover: boolean) {
    this.#state = state;
    this.#graph = graph;
    this.#ids = [...state.dispatches.keys()];
    this.#orphans = isTakeover ? new Set(this.#ids) : noIds;
    // An item that has begun holds its place, whoever began it, and however many places there are now.
    const { dispatches, frames, parked } = state;
    for (const dispatch of dispatches.values()) {
      const { id, at, begins } = dispatch;
      if (at && !parked.has(id)) this.#holdFrom(at, !begins || frames.has(id) || hasBegun(dispatch));
    }
    this.#pauses = this.#placesOfPauses();
    for (const at of this.#pauses.values()) this.#holdFrom(at, true);
  }

  /** Takes note of what an event plans and ends. It has been folded. */
  notice(event: LedgerEvent): void {
    if (event.type === "chunk.failed" && event.retryInMs !== undefined) this.#planned.push(event.dispatch);
    if (event.type === "cleanup.planned") for (const { id } of event.runs) this.#planned.push(id);
    if (event.type === "chunk.parked") this.#park(event.dispatch);
    if (event.type === "chunk.completed" || event.type === "value.routed") this.#ended(event);
    if (!("moves" in event) || !event.moves) return;
    forEachPlanned(event.moves, (id) => this.#planned.push(id));
    if (this.#itemsUnderWay.size === 0) return;
    for (const move of event.moves)
      if (move.move === "collect")
        for (const [node, underWay] of this.#itemsUnderWay)
          if (underWay.delete(keyOf([move.frame, move.index]))) this.#unblock(node);
    if (this.#state.parked.size === 0) return;
    // The collected dispatch was the last of its item.
    for (const move of event.moves)
      if (move.move === "collect") this.#leaveItems(this.#state.frames.get(move.frame)?.at ?? null);
  }

  /** It waits here. */
  #park(id: number): void {
    this.#planned.push(id);
    this.#leaveItems(this.#state.dispatches.get(id)?.at ?? null);
  }

  /** Gives up the place of each item around here where nothing that is not parked is under way. */
  #leaveItems(from: Position | null): void {
    for (let at = from; at !== null; at = this.#around(at)) {
      const key = keyOf(at);
      const node = this.#collectionOf(at);
      const underWay = this.#itemsUnderWay.get(node);
      if (underWay?.has(key) && !this.#isBusy(at) && underWay.delete(key)) this.#unblock(node);
    }
  }

  /** What ends in the middle of an item, and leads to nothing, is never collected. */
  #ended({ dispatch, moves }: EventOf<"chunk.completed" | "value.routed">): void {
    const place = this.#placeOf.get(dispatch);
    if (!place) return;
    this.#placeOf.delete(dispatch);
    if (!moves) this.#leaveItems(place);
  }

  /** The same of pauses, which the clock and others end: their items give up their places. */
  leaveEnded(): void {
    if (this.#blocked.size === 0) return;
    const before = this.#pauses;
    this.#pauses = this.#placesOfPauses();
    for (const [key, at] of before) if (!this.#pauses.has(key)) this.#leaveItems(at);
  }

  #placesOfPauses(): Map<string, Position> {
    return new Map(pausesOf(this.#state).flatMap(({ at }) => (at ? [[keyOf(at), at] as const] : [])));
  }

  /** Whether something of an item is under way, and not parked. */
  #isBusy(item: Position): boolean {
    const { dispatches, parked } = this.#state;
    for (const other of dispatches.values()) if (!parked.has(other.id) && this.#isWithin(other, item)) return true;
    return pausesOf(this.#state).some((paused) => this.#isWithin(paused, item));
  }

  /** Whether a dispatch or pause belongs to an item, or to a collection within it. */
  #isWithin(place: Pick<Dispatch, "at">, [frame, index]: Position): boolean {
    for (let { at } = place; at !== null; at = this.#around(at)) if (at[0] === frame && at[1] === index) return true;
    return false;
  }

  /** The next item may begin: with as many dispatches as its body has entries. */
  #unblock(node: string): void {
    const blocked = this.#blocked.get(node) ?? [];
    const first = blocked.shift();
    if (first === undefined) return;
    this.#ids.push(first);
    const key = this.#keyOf(first);
    while (blocked[0] !== undefined && this.#keyOf(blocked[0]) === key) this.#ids.push(blocked.shift() ?? 0);
    if (blocked.length === 0) this.#blocked.delete(node);
  }

  #keyOf(id: number): string {
    const at = this.#state.dispatches.get(id)?.at;
    return at ? keyOf(at) : "";
  }

  /** What has been planned so far may start when `release` is called: its plan is on its way into the ledger. */
  takePlanned(): readonly number[] {
    const planned = this.#planned;
    this.#planned = [];
    return planned;
  }

  release(planned: readonly number[]): void {
    for (const id of planned) this.#ids.push(id);
  }

  /** An attempt was cut off; its dispatch stays open. */
  putBack(id: number): void {
    this.#ids.push(id);
  }

  /** When a dispatch that is not running may run: see `readyAt`. */
  at(dispatch: Dispatch): number {
    const isLost = this.#orphans.has(dispatch.id) && !isHeld(this.#state, dispatch);
    return isLost ? (dispatch.notBefore ?? 0) : readyAt(this.#state, dispatch);
  }

  /** @param running by dispatch */
  hasDue(now: number, running: ReadonlyMap<number, unknown>): boolean {
    const runs = new Map<string, number>();
    return this.#some((at, dispatch) => at <= now && this.#hasSubFlowSlot(dispatch, running, runs));
  }

  /** When the next of those that wait for time may run, later than `after`; Infinity when none does. */
  nextAt(after: number): number {
    let next = Infinity;
    this.#some((at) => {
      if (at > after) next = Math.min(next, at);
      return false;
    });
    return next;
  }

  /** Whether something is true of one that does not run: of the time when it may, and of itself. What waits for a place has no time. */
  #some(isTrue: (at: number, dispatch: Dispatch) => boolean, withBlocked = false): boolean {
    const isTrueOf = (id: number) => {
      const dispatch = this.#state.dispatches.get(id);
      return dispatch !== undefined && isTrue(this.at(dispatch), dispatch);
    };
    if (this.#ids.some(isTrueOf) || this.#planned.some(isTrueOf)) return true;
    if (withBlocked) for (const ids of this.#blocked.values()) if (ids.some(isTrueOf)) return true;
    return false;
  }

  /**
   * Those that wait for something, although they could run now: a park would leave them waiting. What is due is none of them while
   * the execution is paused, as the unpause wakes that.
   */
  interrupted(now: number): readonly Dispatch[] {
    const found: Dispatch[] = [];
    this.#some((at, dispatch) => {
      const isLeft = this.#state.paused === null || readyAt(this.#state, dispatch) > now;
      if (at <= now && dispatch.journal.length > 0 && isLeft) found.push(dispatch);
      return false;
    }, true);
    return found;
  }

  get isEmpty(): boolean {
    return this.#ids.length === 0;
  }

  /**
   * Takes those that may start now.
   *
   * @param free how many may run besides those that do
   * @param running by dispatch
   */
  take(now: number, free: number, running: ReadonlyMap<number, { readonly dispatch: Dispatch }>): readonly Dispatch[] {
    if (free <= 0) return none;
    const taken: Dispatch[] = [];
    const kept: number[] = [];
    const ids = this.#ids;
    const runs = new Map<string, number>();
    for (let index = 0; index < ids.length; index++) {
      const id = ids[index] ?? 0;
      if (taken.length >= free) {
        // Not by `push(...ids)`: a call takes fewer arguments than there may be ids.
        for (; index < ids.length; index++) kept.push(ids[index] ?? 0);
        break;
      }
      const dispatch = this.#state.dispatches.get(id);
      if (!dispatch || running.has(id)) continue;
      if (this.at(dispatch) > now || !this.#hasSubFlowSlot(dispatch, running, runs)) kept.push(id);
      else if (this.#acquire(dispatch)) {
        taken.push(dispatch);
        const count = runs.get(dispatch.node);
        if (count !== undefined && !hasBegun(dispatch)) runs.set(dispatch.node, count + 1);
      } else this.#block(dispatch);
    }
    this.#ids = kept;
    return taken;
  }

  /** @param runs of each limited sub-flow, how many are under way: here, or parked as their child runs */
  #hasSubFlowSlot(dispatch: Dispatch, running: ReadonlyMap<number, unknown>, runs: Map<string, number>): boolean {
    const { chunk, node } = dispatch;
    const here = chunk === null ? this.#graph.nodes.get(node) : undefined;
    if (here?.kind !== "subFlow" || here.concurrency === null || hasBegun(dispatch)) return true;
    let count = runs.get(node) ?? 0;
    if (!runs.has(node))
      for (const other of this.#state.dispatches.values())
        if (other.node === node && (running.has(other.id) || hasBegun(other))) count += 1;
    runs.set(node, count);
    return count < here.concurrency;
  }

  #block({ id, at }: Dispatch): void {
    const node = at ? (this.#state.frames.get(at[0])?.node ?? "") : "";
    const blocked = this.#blocked.get(node) ?? [];
    blocked.push(id);
    this.#blocked.set(node, blocked);
  }

  /** A place in the collection that the dispatch belongs to. */
  #acquire({ id, at }: Dispatch): boolean {
    const limit = this.#limitOf(at);
    if (limit === null || at === null) return true;
    const underWay = this.#itemsUnderWay.get(this.#collectionOf(at));
    if (!underWay?.has(keyOf(at)) && (underWay?.size ?? 0) >= limit) return false;
    this.#hold(at);
    this.#placeOf.set(id, at);
    return true;
  }

  /** Of an item and of those around it, which have begun as what is in them is planned. */
  #holdFrom(at: Position, hasItemBegun: boolean): void {
    if (hasItemBegun) this.#hold(at);
    for (let around = this.#around(at); around; around = this.#around(around)) this.#hold(around);
  }

  #around([frame]: Position): Position | null {
    return this.#state.frames.get(frame)?.at ?? null;
  }

  /** Takes the place of an item where its collection limits them, whether or not there is one left. */
  #hold(at: Position | null): void {
    if (at === null || this.#limitOf(at) === null) return;
    const node = this.#collectionOf(at);
    const underWay = this.#itemsUnderWay.get(node) ?? new Map<string, Position>();
    underWay.set(keyOf(at), at);
    this.#itemsUnderWay.set(node, underWay);
  }

  #collectionOf([frame]: Position): string {
    return this.#state.frames.get(frame)?.node ?? "";
  }

  #limitOf(at: Position | null): number | null {
    const opener: Node | undefined = at ? this.#graph.nodes.get(this.#collectionOf(at)) : undefined;
    return opener && "concurrency" in opener ? opener.concurrency : null;
  }
}

function keyOf([frame, index]: Position): string {
  return `${frame}.${index}`;
}

/** An attempt of it has left something in the ledger. */
function hasBegun({ journal, failures }: Dispatch): boolean {
  return journal.length > 0 || failures > 0;
}

/** Places where a chain goes on from a pause. */
function pausesOf({ interrupts, inbox }: ExecutionState): readonly Pick<Dispatch, "at">[] {
  const waiting = [...interrupts.values()].map(({ paused }) => paused);
  const skipped = inbox.map((arrival) => (arrival.kind === "skip" ? arrival.paused : null));
  return [...waiting, ...skipped].filter((paused) => paused !== null);
}
