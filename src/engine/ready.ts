/** Which dispatches may start: due, in the order of their planning, within the limits of collections and sub-flows. */
import type { Graph, Node } from "../flow/graph.ts";
import type { LedgerEvent } from "../ledger/event.ts";
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
  readonly #itemsUnderWay = new Map<string, Set<string>>();
  readonly #blocked = new Map<string, number[]>();

  /** @param isTakeover the worker before this one was lost with whatever it ran */
  constructor(state: ExecutionState, graph: Graph, isTakeover: boolean) {
    this.#state = state;
    this.#graph = graph;
    this.#ids = [...state.dispatches.keys()];
    this.#orphans = isTakeover ? new Set(this.#ids) : noIds;
    // An item holds its slot from its first dispatch on.
    for (const dispatch of state.dispatches.values())
      if (dispatch.at && !dispatch.begins && !state.parked.has(dispatch.id)) this.#acquire(dispatch);
  }

  /** Takes note of what an event plans and ends. It has been folded. */
  notice(event: LedgerEvent): void {
    if (event.type === "chunk.failed" && event.retryInMs !== undefined) this.#planned.push(event.dispatch);
    if (event.type === "cleanup.planned") for (const { id } of event.runs) this.#planned.push(id);
    if (event.type === "chunk.parked") this.#park(event.dispatch);
    if (!("moves" in event) || !event.moves) return;
    forEachPlanned(event.moves, (id) => this.#planned.push(id));
    if (this.#itemsUnderWay.size === 0) return;
    for (const move of event.moves)
      if (move.move === "collect")
        for (const [node, underWay] of this.#itemsUnderWay)
          if (underWay.delete(`${move.frame}.${move.index}`)) this.#unblock(node);
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
    const { dispatches, frames, parked } = this.#state;
    for (let at = from; at !== null; at = frames.get(at[0])?.at ?? null) {
      const item = at;
      const key = item.join(".");
      const node = frames.get(item[0])?.node ?? "";
      const underWay = this.#itemsUnderWay.get(node);
      const isBusy = () => {
        for (const other of dispatches.values()) if (!parked.has(other.id) && this.#isWithin(other, item)) return true;
        return false;
      };
      if (underWay?.has(key) && !isBusy() && underWay.delete(key)) this.#unblock(node);
    }
  }

  /** Whether a dispatch belongs to an item, or to a collection within it. */
  #isWithin(dispatch: Dispatch, [frame, index]: Position): boolean {
    for (let { at } = dispatch; at !== null; at = this.#state.frames.get(at[0])?.at ?? null)
      if (at[0] === frame && at[1] === index) return true;
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
  }

  #keyOf(id: number): string {
    return this.#state.dispatches.get(id)?.at?.join(".") ?? "";
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

  hasDue(now: number): boolean {
    return this.#some((at) => at <= now);
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

  /** Whether something is true of one that does not run: of the time when it may, and of itself. */
  #some(isTrue: (at: number, dispatch: Dispatch) => boolean): boolean {
    const isTrueOf = (id: number) => {
      const dispatch = this.#state.dispatches.get(id);
      return dispatch !== undefined && isTrue(this.at(dispatch), dispatch);
    };
    if (this.#ids.some(isTrueOf) || this.#planned.some(isTrueOf)) return true;
    for (const ids of this.#blocked.values()) if (ids.some(isTrueOf)) return true;
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
    });
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
    for (let index = 0; index < ids.length; index++) {
      const id = ids[index] ?? 0;
      if (taken.length >= free) {
        // Not by `push(...ids)`: a call takes fewer arguments than there may be ids.
        for (; index < ids.length; index++) kept.push(ids[index] ?? 0);
        break;
      }
      const dispatch = this.#state.dispatches.get(id);
      if (!dispatch || running.has(id)) continue;
      if (this.at(dispatch) > now || !this.#hasSubFlowSlot(dispatch, running, taken)) kept.push(id);
      else if (this.#acquire(dispatch)) taken.push(dispatch);
      else this.#block(dispatch);
    }
    this.#ids = kept;
    return taken;
  }

  #hasSubFlowSlot(
    { chunk, node }: Dispatch,
    running: ReadonlyMap<number, { readonly dispatch: Dispatch }>,
    taken: readonly Dispatch[],
  ): boolean {
    const here = chunk === null ? this.#graph.nodes.get(node) : undefined;
    if (here?.kind !== "subFlow" || here.concurrency === null) return true;
    let count = 0;
    for (const { dispatch } of running.values()) if (dispatch.node === node) count += 1;
    for (const dispatch of taken) if (dispatch.node === node) count += 1;
    return count < here.concurrency;
  }

  #block({ id, at }: Dispatch): void {
    const node = at ? (this.#state.frames.get(at[0])?.node ?? "") : "";
    const blocked = this.#blocked.get(node) ?? [];
    blocked.push(id);
    this.#blocked.set(node, blocked);
  }

  /** A slot of the collection that the dispatch belongs to. */
  #acquire(dispatch: Dispatch): boolean {
    const item = this.#limitedItem(dispatch);
    if (!item) return true;
    const underWay = this.#itemsUnderWay.get(item.node) ?? new Set();
    if (underWay.has(item.key)) return true;
    if (underWay.size >= item.limit) return false;
    underWay.add(item.key);
    this.#itemsUnderWay.set(item.node, underWay);
    return true;
  }

  #limitedItem(dispatch: Dispatch): { node: string; key: string; limit: number } | null {
    if (!dispatch.at) return null;
    const frame = this.#state.frames.get(dispatch.at[0]);
    const opener: Node | undefined = frame && this.#graph.nodes.get(frame.node);
    if (!frame || !opener || !("concurrency" in opener) || opener.concurrency === null) return null;
    return { node: frame.node, key: `${frame.id}.${dispatch.at[1]}`, limit: opener.concurrency };
  }
}
