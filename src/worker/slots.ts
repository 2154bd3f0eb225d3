/** Slots of flows with limits: an execution that leaves hands its slot over to the first of the queue. */
import type { Semaphore } from "../base/async.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Append, AppendResult } from "../store/append.ts";
import type { Claim, SlotRequest } from "../store/claims.ts";
import type { Claims } from "./claims.ts";
import type { WorkerHost } from "./host.ts";

/** Of so many slots that executions leave, one goes to whichever worker comes first. */
const offerEvery = 32;

export interface Slots {
  /** Whether a commit leaves a slot. */
  leaves(item: Append): boolean;
  /** Commits what leaves slots; those that there is room for here are handed over in the same statement. */
  append(items: readonly Append[]): Promise<AppendResult[]>;
  /** Gives back the slot of an execution that is over here; nothing where its flow has no limits. */
  release(claimed: Pick<Claim, "flow" | "id">): void;
  /** All that were left are handed over. */
  settled(): Promise<void>;
}

export interface SlotsHost {
  readonly host: Pick<WorkerHost, "flows" | "store">;
  /** The flow of an execution that is owned here. */
  readonly flowOf: (id: ExecutionId) => string | undefined;
  readonly hasShortcuts: boolean;
  readonly capacity: Semaphore;
  readonly claims: Claims;
  readonly isTaking: () => boolean;
  /** Runs what was claimed with capacity that is taken already. */
  readonly runHere: (claimed: Claim) => void;
  readonly onTrouble: (error: unknown) => void;
}

export function openSlots(parts: SlotsHost): Slots {
  const { host, hasShortcuts, capacity, claims, isTaking, flowOf, runHere, onTrouble } = parts;
  const limitedFlowOf = (id: ExecutionId): string | null => {
    const flow = flowOf(id);
    return flow !== undefined && host.flows.get(flow)?.limits ? flow : null;
  };
  /** Handed over with the commit that left them. */
  const handedOver = new Set<ExecutionId>();
  const append: Slots["append"] = async (items) => {
    const left: (SlotRequest & { readonly left: ExecutionId })[] = [];
    let unused = 0;
    for (const { id } of items) {
      const flow = limitedFlowOf(id);
      if (flow === null) continue;
      const isWanted = isWantedHere();
      const hasRoom = isWanted && capacity.tryAcquire();
      if (hasRoom) unused += 1;
      // A full worker has room for the next execution once this one is over.
      if (hasRoom === isWanted) left.push({ flow, id: null, left: id, hasRoom });
    }
    if (left.length === 0) return host.store.commits.append(items);
    try {
      const { results, claimed } = await claims.handOver(left, items);
      const isOver = new Set(items.flatMap(({ id }, index) => (isWhole(results[index]) ? [id] : [])));
      for (const { left: id } of left) if (isOver.has(id)) handedOver.add(id);
      unused -= claimed.size;
      for (const next of claimed.values()) runHere(next);
      return results;
    } finally {
      for (; unused > 0; unused--) capacity.release();
    }
  };
  /** Slots that are being given back. */
  const leaving = new Set<Promise<void>>();
  const release: Slots["release"] = ({ flow, id }) => {
    if (handedOver.delete(id) || !host.flows.get(flow)?.limits) return;
    const left = handOverSlot(flow, id)
      // After a failure the sweep finds the slot.
      .catch(onTrouble)
      .finally(() => leaving.delete(left));
    leaving.add(left);
  };
  /** The slot that an execution leaves goes to the first of the queue: here if there is room, else another worker is notified. */
  const handOverSlot = async (flow: string, left: ExecutionId): Promise<void> => {
    const hasRoom = isWantedHere() && capacity.tryAcquire();
    const next = await claims.claimLimited({ flow, id: null, left, hasRoom }).catch((error: unknown) => {
      if (hasRoom) capacity.release();
      throw error;
    });
    if (next) runHere(next);
    else if (hasRoom) capacity.release();
  };
  let passes = 0;
  /** Now and then the others are asked as well: slots shall not stay with the worker that had them first. */
  const isWantedHere = (): boolean => ++passes % offerEvery !== 0 && hasShortcuts && isTaking();
  return {
    leaves: ({ id, close, release: isGivenBack }) =>
      (close !== null || isGivenBack !== null) && limitedFlowOf(id) !== null,
    append,
    release,
    async settled() {
      while (leaving.size > 0) await Promise.allSettled(leaving);
    },
  };
}

/** The execution has ended, or was given back, with this commit. */
function isWhole(result: AppendResult | undefined): boolean {
  return result?.verdict === "ok" && result.foreign === null;
}
