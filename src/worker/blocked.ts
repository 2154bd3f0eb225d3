/**
 * Executions that this version of their flow cannot go on with. The ledger says it once per version. Then nobody looks at them until
 * something comes in, a time of their own is due, or a worker begins that has another version.
 */
import { DefinitionMismatchError } from "../base/errors.ts";
import type { Committer } from "../engine/committer.ts";
import { giveBack } from "../engine/commit.ts";
import type { Logger } from "../flow/context.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { decide } from "../ledger/decide.ts";
import { nextTimer } from "../ledger/settle.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Claim } from "../store/claims.ts";
import type { Store } from "../store/store.ts";
import type { Meter } from "../telemetry/meter.ts";
import { traceIdOf } from "../telemetry/traceparent.ts";

export interface Blocked {
  /** Gives back what was claimed, and says why. Never throws for a database that is away. */
  leave(claimed: Claim, flow: FlowDefinition, problem: string): Promise<void>;
  /** Wakes what other versions could not go on with. Called when this worker is registered. */
  look(): Promise<void>;
}

export interface BlockedHost {
  readonly store: Store;
  readonly committer: Committer;
  readonly log: Logger;
  readonly meter: Meter;
  readonly flows: ReadonlyMap<string, FlowDefinition>;
}

/** While another version is served: its worker takes the job sooner or later. It is given back for as long as it has stood, within these. */
const retryMs = { least: 250, most: 15_000 };
/** What came in beside the claim is looked at. */
const atOnceMs = 0;

export function openBlocked({ store, committer, log, meter, flows }: BlockedHost): Blocked {
  const hasOther = (flow: string, tried: readonly string[]) =>
    store.claims.hasOtherVersion(flow, tried).catch(() => true);
  return {
    async leave(claimed, flow, problem) {
      const { id, state, now, worker } = claimed;
      const { fingerprint, name } = flow;
      const before = claimed.fingerprint ?? "";
      const mismatch = new DefinitionMismatchError(id, name, before, fingerprint, problem);
      log.error("blocked: this version of the flow does not have what the execution stands at", {
        event: "blocked",
        executionId: id,
        flow: name,
        ...traceIdOf(state.trace),
        error: mismatch.message,
      });
      meter.flow(name).blocked.add();
      const tried = triedIn(state);
      const events = tried.includes(fingerprint)
        ? []
        : decide(state, { type: "block", worker, fingerprint, problem: mismatch.message }, flow.graph);
      const all = [...tried, fingerprint];
      // Timeouts end a blocked execution too, at their time.
      const timer = nextTimer(state, now);
      const dueInMs = timer === null ? null : timer - now;
      const isAwaited = await hasOther(name, all);
      const stoodMs = now - (state.blocked?.at ?? now);
      const wakeInMs = isAwaited
        ? Math.min(Math.max(stoodMs, retryMs.least), retryMs.most, dueInMs ?? Infinity)
        : dueInMs;
      await giveBack(committer, { ...claimed, seq: state.seq }, { wakeInMs, events, moreInMs: atOnceMs });
      // A worker that began meanwhile has not seen this execution, because it was owned.
      if (!isAwaited && (await hasOther(name, all))) await store.claims.wake([id]);
    },
    look: () =>
      store.claims.wakeBlocked([...flows.values()].map(({ name, fingerprint }) => ({ flow: name, fingerprint }))),
  };
}

/** The versions that could not go on with it since one last could. */
function triedIn({ blocked, claimedIn }: ExecutionState): readonly string[] {
  return blocked?.epoch === claimedIn ? blocked.fingerprints : [];
}
