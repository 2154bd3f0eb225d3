/** The database's time on what an owner folded before the database had answered. */
import type { LedgerEvent } from "./event.ts";
import { isActivity } from "./evolve.ts";
import { forEachPlanned } from "./apply-moves.ts";
import { stampParked } from "./operators.ts";
import type { ExecutionState } from "./state.ts";

/** `evolve` at a guessed time and then `applyCommitTime` at the real one equals `evolve` at the real one. */
export function applyCommitTime(state: ExecutionState, event: LedgerEvent, at: number): void {
  if (isActivity(event)) state.activeAt = at;
  if ("moves" in event && event.moves) forEachPlanned(event.moves, (id) => stampPlan(state, id, at));
  if ("ordinal" in event && event.dispatch !== undefined && event.ordinal !== undefined) {
    const dispatch = state.dispatches.get(event.dispatch);
    if (dispatch) dispatch.journaledAt = at;
  }
  switch (event.type) {
    case "execution.claimed":
      if (state.firstClaim?.epoch === state.epoch) state.firstClaim.at = at;
      state.claimedAt = at;
      return;
    case "chunk.failed": {
      const dispatch = state.dispatches.get(event.dispatch);
      if (!dispatch) return;
      dispatch.failedAt = at;
      // The dispatch may have parked by then.
      if (event.retryInMs !== undefined && dispatch.notBefore !== null) dispatch.notBefore = at + event.retryInMs;
      return;
    }
    case "chunk.parked":
      return stampParked(state, event, at);
    case "step.failed":
    case "sleep.started": {
      const entry = state.dispatches.get(event.dispatch)?.journal.find(({ ordinal }) => ordinal === event.ordinal);
      if (entry?.effect === "sleep" && event.type === "sleep.started") entry.until = event.until ?? at + event.forMs;
      if (entry?.effect === "stepFailed" && event.type === "step.failed" && event.retryInMs !== undefined)
        entry.notBefore = at + event.retryInMs;
      return;
    }
    case "interrupt.raised": {
      const interrupt = state.interrupts.get(event.id);
      if (!interrupt) return;
      interrupt.createdAt = at;
      interrupt.expiresAt = event.expiresInMs === undefined ? null : at + event.expiresInMs;
      return;
    }
    case "interrupt.resumed":
    case "interrupt.expired":
    case "interrupt.cancelled": {
      const interrupt = state.interrupts.get(event.id);
      // A new pause may wait under the same id by then.
      if (interrupt && interrupt.status !== "pending") interrupt.resolvedAt = at;
      return;
    }
    case "intervention.inserted":
    case "intervention.expired": {
      const intervention = state.interventions.find(({ id }) => id === event.id);
      if (intervention && event.type === "intervention.inserted") intervention.insertedAt = at;
      if (intervention && event.type === "intervention.expired") intervention.expiredAt = at;
      return;
    }
    case "intervention.consumed": {
      const consumer = state.interventions.find(({ id }) => id === event.id)?.consumers[event.consumer];
      if (consumer) consumer.consumedAt = at;
      return;
    }
    case "cleanup.planned":
      for (const { id } of event.runs) stampPlan(state, id, at);
      return;
    case "execution.closed":
      if (state.closed) {
        if (state.sealedAt === state.closed.at) state.sealedAt = at;
        state.closed.at = at;
      }
      return;
    default:
      return;
  }
}

function stampPlan(state: ExecutionState, id: number, at: number): void {
  const dispatch = state.dispatches.get(id);
  if (dispatch) dispatch.plannedAt = at;
}
