/** Slots of flows with limits: an execution that leaves hands its slot over to the first of the queue. */
import type { Semaphore } from "../base/async.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Claim } from "../store/claims.ts";
import type { Claims } from "./claims.ts";
import type { WorkerHost } from "./host.ts";

/** Of so many slots that executions leave, one goes to whichever worker comes first. */
const offerEvery = 32;

export interface Slots {
  /** Gives back the slot of an execution that is over here; nothing where its flow has no limits. */
  release(claimed: Pick<Claim, "flow" | "id">): void;
  /** All that were left are handed over. */
  settled(): Promise<void>;
}

export interface SlotsHost {
  readonly host: Pick<WorkerHost, "flows">;
  readonly hasShortcuts: boolean;
  readonly capacity: Semaphore;
  readonly claims: Claims;
  readonly isTaking: () => boolean;
  /** Runs what was claimed with capacity that is taken already. */
  readonly runHere: (claimed: Claim) => void;
  readonly onTrouble: (error: unknown) => void;
}

export function openSlots(parts: SlotsHost): Slots {
  const { host, hasShortcuts, capacity, claims, isTaking, runHere, onTrouble } = parts;
  /** Slots that are being given back. */
  const leaving = new Set<Promise<void>>();
  const release: Slots["release"] = ({ flow, id }) => {
    if (!host.flows.get(flow)?.limits) return;
    const left = handOverSlot(flow, id)
      // The sweep finds the slot later.
      .catch(onTrouble)
      .finally(() => leaving.delete(left));
    leaving.add(left);
  };
  /** The slot that an execution leaves goes to the first of the queue: here if there is room, else another worker is notified. */
  let passes = 0;
  const handOverSlot = async (flow: string, left: ExecutionId): Promise<void> => {
    // Now and then the others are asked as well: slots shall not stay with the worker that had them first.
    const isOffered = ++passes % offerEvery === 0;
    const hasRoom = hasShortcuts && isTaking() && !isOffered && capacity.tryAcquire();
    const next = await claims.claimLimited({ flow, id: null, left, hasRoom }).catch((error: unknown) => {
      if (hasRoom) capacity.release();
      throw error;
    });
    if (next) runHere(next);
    else if (hasRoom) capacity.release();
  };
  return {
    release,
    async settled() {
      while (leaving.size > 0) await Promise.allSettled(leaving);
    },
  };
}
