/**
 * What a worker looks after unasked, twice a second: dead workers are reaped, lost jobs swept up, work stolen from busy ones, owners told
 * to poll, and the database watched for a failover.
 */
import { sparingly, type Semaphore } from "../base/async.ts";
import type { Owner } from "../engine/owner.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { withAnswerLimit } from "../store/batcher.ts";
import { checkDatabase } from "./checks.ts";
import type { FlowPauses } from "./flow-pauses.ts";
import type { WorkerHost, WorkerSettings } from "./host.ts";

/** Time between signs of life, and between looks at the others. */
export const beatEveryMs = 500;
/** A worker whose session has ended and that was silent for so long is dead: its process has ended. */
const missedMs = 800;
/** A worker that was silent for so long is given up by the others. */
const silentMs = 10_000;
/** How often owners poll for what came in, should the notification be lost. */
const pollEveryMs = 2000;
/** Work that is due this long while we have capacity is stuck in a busy worker's queue. */
const stealAfterMs = 200;
/** Looking for what is due takes one part in so many of the time: it reads past whatever is queued for a slot. */
const lookShare = 20;
/** What is due for so long and nobody's has lost its job. */
const sweepAfterMs = 5000;

export interface UpkeepHost {
  readonly host: WorkerHost;
  readonly settings: WorkerSettings;
  readonly owners: ReadonlyMap<ExecutionId, Owner>;
  readonly capacity: Semaphore;
  readonly pauses: FlowPauses;
  /** Where the database stood when the worker began. */
  readonly timeline: Awaited<ReturnType<typeof checkDatabase>>;
  readonly isStopping: () => boolean;
  readonly advance: (id: ExecutionId, flow: string, priority: number) => Promise<void>;
  readonly freeUnknown: () => Promise<void>;
  readonly onTrouble: (error: unknown) => void;
}

export function openUpkeep(parts: UpkeepHost): { tick(): void } {
  const { host, settings, owners, capacity, pauses, isStopping, advance, freeUnknown, onTrouble } = parts;
  const { store, log } = host;
  const { hasShortcuts } = settings;
  let { timeline } = parts;
  /** After a failover or a restore the ledger may have lost its tail, and leases were given out twice: begin anew. */
  const watchTimeline = async (): Promise<void> => {
    const now = await checkDatabase(store);
    if (now.system === timeline.system && now.timeline === timeline.timeline) return;
    log.error("the database is another one than before (failover or restore): what was not replicated is lost", {
      before: timeline,
      now,
    });
    timeline = now;
    for (const owner of owners.values()) owner.lose();
  };
  /** A busy worker may have fetched more jobs than it can run: one with free capacity steals some. */
  const unlimited = [...host.flows.values()].filter(({ limits }) => limits === null).map(({ name }) => name);
  const listDue = sparingly(lookShare, () => {
    const limit = Math.min(capacity.free, settings.concurrency >> 1 || 1);
    const flows = unlimited.filter((flow) => !pauses.has(flow));
    return withAnswerLimit(store.claims.listDue(flows, stealAfterMs, limit));
  });
  const stealDue = async (): Promise<void> => {
    if (capacity.free === 0 || unlimited.length === 0 || isStopping()) return;
    for (const { id, flow, priority } of (await listDue()) ?? []) advance(id, flow, priority).catch(onTrouble);
  };
  /** Its jobs may stand behind a long queue of another flow's: of a flow that has nobody here, one is fetched and queues for its turn. */
  const firstDue = sparingly(lookShare, async () => {
    const here = new Set([...owners.values()].map(({ flow }) => flow.name)).union(capacity.waiting);
    const idle = [...host.flows.keys()].filter((flow) => !here.has(flow) && !pauses.has(flow));
    return idle.length === 0 ? [] : withAnswerLimit(store.claims.firstDue(idle, stealAfterMs));
  });
  const visitIdle = async (): Promise<void> => {
    if (capacity.free > 0 || isStopping()) return;
    for (const { id, flow, priority } of (await firstDue()) ?? []) advance(id, flow, priority).catch(onTrouble);
  };
  let beats = 0;
  let isMaintaining = false;
  const maintain = async (): Promise<void> => {
    const isSweep = beats++ % (sweepAfterMs / beatEveryMs) === 0;
    await withAnswerLimit(store.workers.reap(missedMs, silentMs));
    if (!isSweep || !hasShortcuts) return;
    await withAnswerLimit(store.workers.sweep(sweepAfterMs));
    await Promise.all([
      withAnswerLimit(watchTimeline()),
      withAnswerLimit(store.children.propagateOverdue(sweepAfterMs)),
    ]);
    await freeUnknown();
  };
  const lookUnasked = (): void => {
    // A notification may be lost; the event that it tells of is in the ledger.
    if (beats % (pollEveryMs / beatEveryMs) === 0) {
      for (const owner of owners.values()) owner.poke();
      pauses.look().catch(onTrouble);
    }
    stealDue().catch(onTrouble);
    visitIdle().catch(onTrouble);
  };
  return {
    tick() {
      if (hasShortcuts) lookUnasked();
      if (isMaintaining) return;
      isMaintaining = true;
      maintain()
        .catch(onTrouble)
        .finally(() => (isMaintaining = false));
    },
  };
}
