/** What owners get of their process: one engine per identity of the worker, on parts that outlast it. */
import { systemTimers as liveness } from "../base/timers.ts";
import { Batcher, retryTransient } from "../store/batcher.ts";
import type { Store } from "../store/store.ts";
import type { Timers } from "../base/timers.ts";
import { DatabaseClock } from "../engine/clock.ts";
import type { Committer } from "../engine/committer.ts";
import type { Engine } from "../engine/host.ts";
import type { Items } from "../engine/items.ts";
import { Streamer } from "../engine/streamer.ts";
import type { ExecutionId, Recorded, WorkerId } from "../ledger/event.ts";
import type { Meter } from "../telemetry/meter.ts";
import type { WorkerHost, WorkerSettings } from "./host.ts";

/** A child that was called a moment ago may be on its way into the database. */
const [mostTries, againMs] = [20, 100];

export interface Engines {
  of(workerId: WorkerId): Engine;
  /** What executions left to do when they closed is done: resources are disposed, and their relatives have heard of it. */
  settled(): Promise<void>;
}

export interface EnginesHost {
  readonly host: WorkerHost;
  readonly settings: WorkerSettings;
  readonly committer: Committer;
  readonly items: Items;
  /** Gives up the capacity of a parent that waits for others. */
  readonly waitsForOthers: (parent: ExecutionId) => void;
  readonly isFlowPaused: (flow: string) => boolean;
  readonly onTrouble: (error: unknown) => void;
}

export function openEngines(parts: EnginesHost): Engines {
  const { host, settings, committer, items, waitsForOthers, isFlowPaused, onTrouble } = parts;
  const { store, log, userLog, meter } = host;
  const reads = new Batcher<{ id: ExecutionId; after: number }, readonly Recorded[]>({
    send: (asked) => store.reads.events(asked),
  });
  const closes = new Batcher<ExecutionId, undefined>({
    send: async (ids) => {
      await store.children.propagateClose(ids);
      return ids.map(() => undefined);
    },
  });
  const propagating = new Set<Promise<unknown>>();
  const cancelChildren: Engine["cancelChildren"] = async (parent, children) => {
    let missing = [...children];
    for (let tries = 0; missing.length > 0 && tries < mostTries; tries++) {
      if (tries > 0) await liveness.sleep(againMs);
      missing = await retryTransient(() => store.children.cancel(parent, missing, "abandoned by its caller"));
    }
  };
  const putIntoStream = openStreamSender(store, host.timers, meter);
  const clock = new DatabaseClock(host.timers);
  const disposals = new Set<Promise<void>>();
  return {
    of: (workerId) => ({
      workerId,
      committer,
      transactions: store.transactions,
      clock,
      timers: host.timers,
      newId: host.newId,
      hooks: host.hooks,
      log,
      userLog,
      meter,
      tracing: host.tracing,
      resources: host.resources,
      flowResources: (flow) => host.flowResources(flow),
      executionResources: (execution) => host.executionResources(execution),
      flowData: (flow) => host.flowData(flow),
      putIntoStream,
      readEvents: (wanted, after) => reads.submit({ id: wanted, after }),
      runChild: (child, options) => {
        waitsForOthers(child.parent.id);
        return host.runChild(child, options);
      },
      items,
      waitsForOthers,
      cancelChildren,
      // If that fails, the sweep does it.
      propagateClose: (execution) => {
        const told = closes
          .submit(execution)
          .catch(onTrouble)
          .finally(() => propagating.delete(told));
        propagating.add(told);
      },
      announce: (execution, closed) => host.announce(execution, closed),
      onDispose: (disposed) => {
        disposals.add(disposed);
        void disposed.finally(() => disposals.delete(disposed));
      },
      committingAlone: new Set(),
      isFlowPaused,
      cancelGraceMs: settings.cancelGraceMs,
      publicUrl: settings.publicUrl,
      hasShortcuts: settings.hasShortcuts,
    }),
    async settled() {
      await Promise.all(disposals);
      await Promise.all(propagating);
    },
  };
}

/** The stream's sender, shared by all owners of this worker. */
function openStreamSender({ streams, wakeups }: Store, timers: Timers, meter: Meter): Engine["putIntoStream"] {
  const streamer = new Streamer(streams, wakeups, timers, (items) => meter.streamItems.add(items));
  return (target, item, dispatch, mark) => streamer.put(target, item, dispatch, mark);
}
