/** Starts and commands in the process of a worker: what can begin, or go on, here and now is claimed in the same statement, and needs no job. */
import type { Semaphore } from "../base/async.ts";
import type { Claim } from "../store/claims.ts";
import type { CommandsIn } from "../store/commands.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { isClaimRefused } from "../store/refusals.ts";
import type { CreateResult, NewExecution } from "../store/starts.ts";
import type { Claims } from "./claims.ts";
import type { FlowPauses } from "./flow-pauses.ts";
import type { LocalWorker, WorkerHost } from "./host.ts";

export interface HereHost {
  readonly host: Pick<WorkerHost, "flows" | "store">;
  readonly capacity: Semaphore;
  readonly claims: Claims;
  readonly pauses: FlowPauses;
  readonly isTaking: () => boolean;
  readonly isOwned: (id: ExecutionId) => boolean;
  /** Runs what was claimed with capacity that is taken already. */
  readonly runHere: (claimed: Claim) => void;
}

export function openHere(parts: HereHost): Pick<LocalWorker, "create" | "send"> {
  const { host, capacity, claims, pauses, isTaking, isOwned, runHere } = parts;
  const { store } = host;
  const create = async (executions: readonly NewExecution[]): Promise<CreateResult[]> => {
    const here = executions.filter((execution) => isTaking() && canBeginHere(execution) && capacity.tryAcquire());
    if (here.length === 0) return store.starts.create(executions);
    try {
      const { created, claimed } = await claims.create(executions, here);
      for (const execution of here) {
        const own = claimed.get(execution);
        if (own) runHere(own);
        else capacity.release();
      }
      return created;
    } catch (error) {
      for (const _ of here) capacity.release();
      if (!isClaimRefused(error)) throw error;
      // The flow was paused a moment ago, and this worker has not heard of it.
      await pauses.look();
      return store.starts.create(executions);
    }
  };
  const canBeginHere = ({ flow, input, idempotencyKey, delayMs, startAt, discardAfter }: NewExecution): boolean =>
    // A start with a known key waits for that key's transaction, and may succeed long after its connection is lost.
    input !== undefined &&
    idempotencyKey === null &&
    delayMs === null &&
    startAt === null &&
    discardAfter == null &&
    canClaim(flow);
  const canClaim = (flow: string): boolean => !pauses.has(flow) && host.flows.get(flow)?.limits === null;
  const send: LocalWorker["send"] = (id, flow, sent) =>
    isTaking() && !isOwned(id) && canClaim(flow) && capacity.tryAcquire() ? sendHere(sent) : null;
  const sendHere = async <T>(sent: (commands: CommandsIn) => Promise<T>) => {
    let own: Claim | undefined;
    try {
      const answer = await claims.send(sent, (claimed) => (own = claimed));
      return { answer, isClaimed: own !== undefined };
    } finally {
      if (own) runHere(own);
      else capacity.release();
    }
  };
  return { create, send };
}
