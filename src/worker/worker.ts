/** The worker process: graphile-worker hands out the hints, owners advance what they claim, `stop()` drains. */
import { hostname } from "node:os";
import { once, Semaphore, withTimeout } from "../base/async.ts";
import { systemTimers as liveness, type Timer, type Timers } from "../base/timers.ts";
import { z } from "zod";
import { answered, Batcher } from "../store/batcher.ts";
import type { Claim } from "../store/claims.ts";
import { isClaimRefused } from "../store/refusals.ts";
import type { CreateResult, NewExecution } from "../store/starts.ts";
import type { Store } from "../store/store.ts";
import { DatabaseClock } from "../engine/clock.ts";
import { giveBack } from "../engine/commit.ts";
import { openCommitter } from "../engine/committer.ts";
import type { Committer } from "../engine/committer.ts";
import type { NewChild } from "../engine/child.ts";
import type { ChildOptions, ClosedExecution, Engine, FlowDataAccess, Hooks } from "../engine/host.ts";
import type { NewId } from "../engine/ids.ts";
import { failpoint } from "../engine/failpoints.ts";
import { openItems } from "../engine/items.ts";
import { Owner } from "../engine/owner.ts";
import type { Resources, WorkerResources } from "../engine/resources.ts";
import { Streamer } from "../engine/streamer.ts";
import { DefinitionMismatchError, LeaseLostError } from "../base/errors.ts";
import type { Logger } from "../flow/context.ts";
import { readBlueprint, toBlueprint } from "../flow/blueprint.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { decide, endsByItself, nextTimer } from "../ledger/decide.ts";
import type { Command } from "../ledger/decide.ts";
import { isItem, repeatWrites } from "../ledger/state.ts";
import { ExecutionId, WorkerId } from "../ledger/event.ts";
import type { Recorded } from "../ledger/event.ts";
import { fitVersion } from "../ledger/version.ts";
import type { Fit } from "../ledger/version.ts";
import { checkDatabase, checkWakeups } from "./checks.ts";
import { isSuspect, openClaims } from "./claims.ts";
import type { Meter } from "../telemetry/meter.ts";
import type { Tracing } from "../telemetry/trace.ts";
import type { Vitals } from "../telemetry/vitals.ts";
import { openFlowPauses } from "./flow-pauses.ts";
import { startHeartbeat } from "./heartbeat.ts";
import type { Heartbeat } from "./heartbeat.ts";
import { newPool, runJobs } from "./jobs.ts";
import type { Jobs } from "./jobs.ts";
import { registeredSchedule } from "../store/schedules.ts";
import { startSchedules } from "./schedules.ts";
import type { RunningSchedules, Schedule } from "./schedules.ts";

/** What a worker needs of the orchestrator it runs in. */
export interface WorkerHost {
  readonly store: Store;
  readonly log: Logger;
  readonly userLog: Logger;
  readonly meter: Meter;
  readonly tracing: Tracing;
  readonly timers: Timers;
  readonly newId: NewId;
  readonly hooks: Hooks;
  readonly resources: WorkerResources;
  readonly flows: ReadonlyMap<string, FlowDefinition>;
  readonly schedules: readonly Schedule[];
  flowResources(flow: string): Resources;
  executionResources(id: ExecutionId): Resources;
  flowData(flow: string): FlowDataAccess;
  announce(id: ExecutionId, closed: ClosedExecution | null): void;
  runChild(child: NewChild, options: ChildOptions): Promise<ClosedExecution>;
}

export interface WorkerSettings {
  readonly concurrency: number;
  readonly drainTimeoutMs: number;
  readonly cancelGraceMs: number;
  readonly publicUrl: string | null;
  /** Whether it goes on without a job where it can, and looks for what no job came for. */
  readonly hasShortcuts: boolean;
}

export interface Worker extends AsyncDisposable {
  readonly id: WorkerId;
  /** Executions that this worker owns now. */
  readonly owned: number;
  /** Takes nothing new, lets chunks reach a commit point, gives back what is left. Idempotent. */
  stop(): Promise<void>;
}

/** The worker as its own process has it. */
export interface LocalWorker extends Worker {
  /** Creates executions; those that can begin here and now are claimed in the same statement, and need no job. */
  create(executions: readonly NewExecution[]): Promise<CreateResult[]>;
  /** Looks which flows are paused: before a wake-up tells it. */
  lookAtPauses(): Promise<void>;
  readonly inside: WorkerInside;
  readonly vitals: Vitals;
}

/** What a test kit sees of a worker, and does to it. */
export interface WorkerInside {
  readonly owners: ReadonlyMap<ExecutionId, Owner>;
  /** Nothing is on its way that shows neither in an owner nor in the database. */
  readonly isQuiet: boolean;
  /** Looks after an execution, as its job would make it do. Resolves when it has done what it can. */
  advance(id: ExecutionId, flow: string): Promise<void>;
  readonly isCrashed: boolean;
  /** Drops whatever it owns without a word, as a process that is gone; takes nothing until `revive()`. */
  crash(): void;
  revive(): void;
}

const JobPayload = z.array(ExecutionId);

/**
 * An execution that this worker's version of its flow does not fit is left to others: for a moment at first, then for as long
 * as it has stood still already, up to this.
 */
const otherVersionWaitMs = 15_000;
const firstVersionWaitMs = 250;
/** Time between signs of life, and between looks at the others. */
const beatEveryMs = 500;
/** A worker whose session has ended and that was silent for so long is dead: its process has ended. */
const missedMs = 800;
/** A worker that was silent for so long is given up by the others; its main loop may be stuck for a part of it. */
const silentMs = 10_000;
const stuckMs = 5000;
/** A ledger that this version cannot fold is looked at again after so long. */
const brokenWaitMs = 60_000;
/** Of so many slots that executions leave, one goes to whichever worker comes first. */
const offerEvery = 32;
/** How often owners poll for what came in, should the notification be lost. */
const pollEveryMs = 2000;
/** Work that is due this long while we have capacity is stuck in a busy worker's queue. */
const stealAfterMs = 200;
/** Looking for flows that nobody here works on takes one part in so many of the time. */
const visitShare = 20;
/** How long graphile-worker may take to stop once nothing runs any more. */
const endWithinMs = 1000;
/** What is due for so long and nobody's has lost its job. */
const sweepAfterMs = 5000;

export async function startWorker(host: WorkerHost, settings: WorkerSettings): Promise<LocalWorker> {
  const { store, log, meter } = host;
  const { hasShortcuts } = settings;
  const { wakeups } = store;
  const owners = new Map<ExecutionId, Owner>();
  const capacity = new Semaphore(settings.concurrency);
  // A parent that waits for children gives up its capacity and its job: otherwise parents could keep their own children out.
  const parents = new Map<ExecutionId, () => void>();
  // Executions that lost workers run one at a time, so that only the one that takes its worker down is counted again.
  const suspects = new Semaphore(1);
  const { committer: wrap = (inner: Committer) => inner } = host.hooks;
  const committer = wrap(
    openCommitter(
      store.commits,
      (error) => log.warn("waiting for the database", { event: "database_away", error: String(error) }),
      (ms) => meter.commits.observe(ms),
    ),
  );
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
  const putIntoStream = openStreamLane(store, host.timers, meter);
  const items = openItems(store, (id) => owners.has(id));
  const clock = new DatabaseClock(host.timers);
  const disposals = new Set<Promise<void>>();
  let isStopping = false;
  let isCrashed = false;
  let membership: Membership;

  /** Registers under a fresh identity: one that others have given up must not come back. */
  const register = async (): Promise<Membership> => {
    const id = WorkerId.parse(crypto.randomUUID());
    const heartbeat = startHeartbeat(
      {
        id,
        host: hostname(),
        pid: process.pid,
        flows: [...host.flows.keys()],
        schedules: Object.fromEntries(
          host.schedules.map((schedule) => [
            schedule.name,
            registeredSchedule(schedule, schedule.overlap, schedule.execution),
          ]),
        ),
        pool: runner?.pool ?? null,
        connection: store.links.thread("flowledger heartbeat"),
        names: store.names,
        everyMs: beatEveryMs,
        stuckMs,
        onTick: (everyMs) => meter.loop.tick(everyMs),
      },
      () => {
        log.warn("this worker was given up by the others: its executions go on elsewhere", {
          event: "given_up",
          workerId: id,
          executions: owners.size,
        });
        for (const owner of owners.values()) owner.lose();
        if (!isStopping) void renew();
      },
    );
    await heartbeat.registered;
    return {
      heartbeat,
      engine: {
        workerId: id,
        committer,
        transactions: store.transactions,
        clock,
        timers: host.timers,
        newId: host.newId,
        hooks: host.hooks,
        log,
        userLog: host.userLog,
        meter,
        tracing: host.tracing,
        resources: host.resources,
        flowResources: (flow) => host.flowResources(flow),
        executionResources: (execution) => host.executionResources(execution),
        flowData: (flow) => host.flowData(flow),
        putIntoStream,
        readEvents: (wanted, after) => reads.submit({ id: wanted, after }),
        runChild: (child, options) => {
          parents.get(child.parent.id)?.();
          return host.runChild(child, options);
        },
        items,
        waitsForOthers: (parent) => parents.get(parent)?.(),
        // Should that fail, the sweep does it.
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
        isFlowPaused: (flow) => pauses.has(flow),
        cancelGraceMs: settings.cancelGraceMs,
        publicUrl: settings.publicUrl,
        hasShortcuts,
      },
    };
  };
  const renew = async (): Promise<void> => {
    while (!isStopping) {
      try {
        membership = await register();
        return;
      } catch (error) {
        // The connection was lost in the middle of it.
        onTrouble(error);
        await liveness.sleep(beatEveryMs);
      }
    }
  };
  /** What was under way when the worker stopped may fail when the connections go: nobody needs to know. */
  let isStopped = false;
  const onTrouble = (error: unknown) => {
    if (!isStopped) log.warn("worker trouble", { error: String(error) });
  };

  const pauses = openFlowPauses({
    store,
    flows: [...host.flows.keys()],
    onChange: (changed) => {
      for (const owner of owners.values()) if (changed.has(owner.flow.name)) owner.poke();
    },
    onTrouble: (error) => onTrouble(error),
  });
  const claims = openClaims({
    store,
    log,
    suspects,
    workerId: () => membership.engine.workerId,
    isOwned: (id) => owners.has(id),
    onBroken: (claimed, error) => {
      log.error("the ledger of an execution cannot be folded: it stands still", {
        executionId: claimed.id,
        error: String(error),
      });
      void giveBack(committer, claimed, { wakeInMs: brokenWaitMs });
    },
    onTrouble,
  });
  /** Slots that are being given back. */
  const leaving = new Set<Promise<void>>();
  const releaseSlot = ({ flow, id }: Claim): void => {
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
    const hasRoom = hasShortcuts && !isStopping && !isCrashed && !isOffered && capacity.tryAcquire();
    const next = await claims.claimLimited({ flow, id: null, left, hasRoom }).catch((error: unknown) => {
      if (hasRoom) capacity.release();
      throw error;
    });
    if (next) void run(next).catch(onTrouble);
    else if (hasRoom) capacity.release();
  };

  const create = async (executions: readonly NewExecution[]): Promise<CreateResult[]> => {
    const here = executions.filter(
      (execution) => !isStopping && !isCrashed && canBeginHere(execution) && capacity.tryAcquire(),
    );
    if (here.length === 0) return store.starts.create(executions);
    try {
      const { created, claimed } = await claims.create(executions, here);
      for (const execution of here) {
        const own = claimed.get(execution);
        if (own) void run(own).catch(onTrouble);
        else capacity.release();
      }
      return created;
    } catch (error) {
      for (const _ of here) capacity.release();
      if (!isClaimRefused(error)) throw error;
      // It was paused a moment ago, and nobody here has heard of it.
      await pauses.look();
      return store.starts.create(executions);
    }
  };
  const canBeginHere = ({ flow, input, idempotencyKey, delayMs, startAt, discardAfter }: NewExecution): boolean =>
    // A known key waits for the transaction that has it; such a start may come through long after its connection is lost.
    input !== undefined &&
    idempotencyKey === null &&
    delayMs === null &&
    startAt === null &&
    discardAfter == null &&
    !pauses.has(flow) &&
    host.flows.get(flow)?.limits === null;

  const advanceOne = async (execution: ExecutionId, flow: string, priority: number): Promise<void> => {
    const known = owners.get(execution);
    if (known) return known.poke();
    if (isStopping || isCrashed) return;
    await capacity.acquire({ group: flow, priority });
    let claimed: Claim | null = null;
    try {
      if (isStopping || isCrashed) return;
      claimed = host.flows.get(flow)?.limits
        ? await claims.claimLimited({ flow, id: execution, left: null, hasRoom: true })
        : await claims.take(execution);
    } finally {
      if (!claimed) capacity.release();
    }
    if (claimed) await run(claimed);
  };
  /** Owns what was claimed, until it is over. It has taken capacity, and gives that back. */
  const run = async (claimed: Claim): Promise<void> => {
    let isOwner = false;
    try {
      const flow = host.flows.get(claimed.flow);
      if (!flow || isCrashed) return;
      const { engine } = membership;
      // Claimed under an identity that is gone meanwhile: the sweep frees it.
      if (claimed.worker !== engine.workerId) {
        if (isSuspect(claimed)) suspects.release();
        return;
      }
      const known = await Promise.all([
        fitOf(store, claimed, flow),
        recentPuts(store, claimed, flow, host.timers),
      ]).catch((error: unknown) => {
        log.error("what an execution needs to go on cannot be read", {
          executionId: claimed.id,
          error: String(error),
        });
        return null;
      });
      if (!known) {
        if (isSuspect(claimed)) suspects.release();
        return await giveBack(committer, { ...claimed, seq: claimed.state.seq }, { wakeInMs: otherVersionWaitMs });
      }
      const [fit, recent] = known;
      // What ends without running anything of the flow does not need the flow's past.
      if ("problem" in fit && !endsByItself(claimed.state, claimed.now)) {
        if (isSuspect(claimed)) suspects.release();
        const { fingerprint } = flow;
        const before = claimed.fingerprint ?? "";
        const mismatch = new DefinitionMismatchError(claimed.id, flow.name, before, fingerprint, fit.problem);
        log.error("blocked: this version of the flow does not have what the execution stands at", {
          event: "blocked",
          executionId: claimed.id,
          flow: flow.name,
          error: mismatch.message,
        });
        meter.flow(flow.name).blocked += 1;
        const block: Command = { type: "block", worker: engine.workerId, fingerprint, problem: mismatch.message };
        // Said once per version in the ledger; what it stands at stays as it is.
        const { blocked } = claimed.state;
        const isSaid = blocked?.epoch === claimed.state.claimedIn && blocked.fingerprints.includes(fingerprint);
        const events = isSaid ? [] : decide(claimed.state, block, flow.graph);
        const stoodMs = claimed.now - (blocked?.at ?? claimed.now);
        // What ends it by time does so all the same, and in time.
        const dueInMs = (nextTimer(claimed.state, claimed.now) ?? Infinity) - claimed.now;
        const wakeInMs = Math.min(Math.max(stoodMs, firstVersionWaitMs), otherVersionWaitMs, dueInMs);
        return await giveBack(committer, { ...claimed, seq: claimed.state.seq }, { wakeInMs, events });
      }
      if (isItem(claimed.state) && !(await readParent(claimed))) {
        if (isSuspect(claimed)) suspects.release();
        return await giveBack(committer, { ...claimed, seq: claimed.state.seq }, { wakeInMs: brokenWaitMs });
      }
      const { promise: waitsForChildren, resolve } = Promise.withResolvers<void>();
      const leave = once(() => {
        capacity.release();
        parents.delete(claimed.id);
        resolve();
      });
      // Before the owner begins: it may wait for others at once.
      parents.set(claimed.id, leave);
      const owner = new Owner(engine, flow, claimed, "nodes" in fit ? fit.nodes : {}, recent);
      isOwner = true;
      owners.set(claimed.id, owner);
      owner.begin();
      const over = owner.done.finally(() => {
        if (owners.get(claimed.id) === owner) owners.delete(claimed.id);
        // A process that is gone frees nothing: the others see to that, and count it.
        if (owner.isLost && !isCrashed) claims.lose(claimed);
        if (isSuspect(claimed)) suspects.release();
        leave();
        releaseSlot(claimed);
      });
      if (isStopping) owner.drain();
      await Promise.race([over, waitsForChildren]);
    } finally {
      if (!isOwner) {
        capacity.release();
        releaseSlot(claimed);
      }
    }
  };
  /** An item reads what its parent was started with, and the state that it had when it fanned out, under what it wrote itself. */
  const readParent = async ({ id, state }: Claim): Promise<boolean> => {
    const { item, parent, writes = [] } = state;
    if (!item || !parent) return true;
    try {
      const { values, startInput } = await items.parentAtFanOut(parent.id, parent.dispatch);
      if (item.readsState) state.values = repeatWrites(structuredClone(values), writes);
      state.startInput = startInput;
      return true;
    } catch (error) {
      log.error("the parent of an item cannot be read", { executionId: id, error: String(error) });
      return false;
    }
  };
  // Never throws into graphile-worker: where a message has what Postgres cannot hold, recording the failure fails, and the
  // unhandled rejection ends the process. Errors are ledger events.
  const task = async (flow: string, payload: unknown, priority: number): Promise<void> => {
    const ids = JobPayload.safeParse(payload);
    if (!ids.success) return log.error("a job is not ours", { problem: ids.error.message });
    const outcomes = await Promise.allSettled(ids.data.map((id) => advanceOne(id, flow, priority)));
    const failures = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? String(outcome.reason) : []));
    for (const [error, alike] of Map.groupBy(failures, (failure) => failure))
      log.error("advancing failed", { error, executions: alike.length });
    failpoint("before-job-done");
  };

  let timeline = await checkDatabase(store);
  await checkWakeups(wakeups, log);
  await store.workers.keepDefinitions(
    [...host.flows.values()].map((flow) => ({
      flow: flow.name,
      fingerprint: flow.fingerprint,
      blueprint: toBlueprint(flow),
    })),
  );
  await store.workers.declareLimits(host.flows.values());
  let runner: Jobs | undefined;
  let beginning: Promise<void> | undefined;
  let unlocking: Promise<unknown> | undefined;
  /** graphile-worker ends when it cannot say that a job is done, as after a lost connection: then it begins anew. */
  const beginJobs = async (): Promise<void> => {
    // A pool of its own, because a runner that ends in trouble may keep connections for good.
    const pool = newPool(store);
    const begun = await runJobs(
      pool,
      host.flows,
      task,
      { concurrency: settings.concurrency, isPreparing: store.links.isPreparing, schema: store.names.jobs },
      log,
      () => {
        if (!isStopping) {
          runner = undefined;
          liveness.after(endWithinMs, () => pool.endAll()).unref();
        }
        // What it had fetched would stay locked in its name for hours. Unlocking what it still works on does no harm.
        unlocking = answered(store.workers.unlockJobs(begun.pool)).catch(onTrouble);
      },
    ).catch((error: unknown) => {
      pool.endAll();
      throw error;
    });
    runner = begun;
    await answered(store.workers.keepPool(membership.engine.workerId, begun.pool));
  };
  membership = await register().catch(async (error: unknown) => {
    await items.close();
    throw store.explain(error);
  });
  const stopHearing = wakeups.onAny((execution) => owners.get(execution)?.poke());
  await pauses.look();
  const stopWatching = wakeups.onChange((isListening) => {
    if (isListening) log.info("LISTEN stands again", { event: "listen_back" });
    else
      log.warn("LISTEN was lost: until it stands again, wake-ups come from polling every two seconds", {
        event: "listen_lost",
      });
  });
  let schedules: RunningSchedules | undefined;
  let maintenance: Timer | undefined;

  let stopped: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    isStopping = true;
    maintenance?.cancel();
    schedules?.stop();
    if (owners.size > 0)
      log.info("draining: executions are given back at their next commit point", {
        event: "draining",
        executions: owners.size,
      });
    for (const owner of owners.values()) owner.drain();
    await beginning;
    const ended = Promise.resolve(runner?.runner.stop()).catch(onTrouble);
    const drained = Promise.allSettled([...owners.values()].map(({ done }) => done));
    await withTimeout(Promise.all([ended, drained]), settings.drainTimeoutMs, () => {
      if (owners.size > 0)
        log.warn("drainTimeout is over: attempts are cut off, and their executions given back", {
          event: "given_back",
          executions: owners.size,
        });
      for (const owner of owners.values()) owner.abort(new LeaseLostError(owner.id, owner.lease.epoch));
    });
    await Promise.allSettled([...owners.values()].map(({ done }) => done));
    await Promise.all(disposals);
    await Promise.all(propagating);
    while (leaving.size > 0) await Promise.allSettled(leaving);
    // After a job that it could not finish, graphile-worker's stop never resolves (0.18.0). Jobs are only hints.
    await withTimeout(ended, endWithinMs, () => {});
    await unlocking;
    await items.close();
    runner?.endPool();
    stopHearing();
    pauses.stop();
    stopWatching();
    committer.close();
    await membership.heartbeat.stop();
    isStopped = true;
  };
  const stopOnce = () => (stopped ??= stop());
  try {
    await beginJobs();
    schedules = await startSchedules(store, log, host.schedules, host.timers);
  } catch (error) {
    await stopOnce().catch(onTrouble);
    throw store.explain(error);
  }

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
  let isStealing = false;
  const unlimited = [...host.flows.values()].filter(({ limits }) => limits === null).map(({ name }) => name);
  const stealDue = async (): Promise<void> => {
    const limit = Math.min(capacity.free, settings.concurrency >> 1 || 1);
    if (limit === 0 || isStopping || isStealing) return;
    isStealing = true;
    const flows = unlimited.filter((flow) => !pauses.has(flow));
    const asked = answered(store.claims.listDue(flows, stealAfterMs, limit));
    const due = await asked.finally(() => (isStealing = false));
    for (const { id, flow, priority } of due) advanceOne(id, flow, priority).catch(onTrouble);
  };
  /** Its jobs may stand behind a long queue of another flow's: of a flow that has nobody here, one is fetched and queues for its turn. */
  let nextVisit = 0;
  const visitIdle = async (): Promise<void> => {
    const begun = liveness.monotonic();
    if (capacity.free > 0 || isStopping || begun < nextVisit) return;
    const here = new Set([...owners.values()].map(({ flow }) => flow.name)).union(capacity.waiting);
    const idle = [...host.flows.keys()].filter((flow) => !here.has(flow) && !pauses.has(flow));
    if (idle.length === 0) return;
    nextVisit = Infinity;
    const due = await answered(store.claims.firstDue(idle, stealAfterMs)).finally(() => {
      // What takes long is asked more seldom.
      const now = liveness.monotonic();
      nextVisit = now + visitShare * (now - begun);
    });
    for (const { id, flow, priority } of due) advanceOne(id, flow, priority).catch(onTrouble);
  };
  let beats = 0;
  let isMaintaining = false;
  const maintain = async (): Promise<void> => {
    const isSweep = beats++ % (sweepAfterMs / beatEveryMs) === 0;
    await answered(store.workers.reap(missedMs, silentMs));
    if (!isSweep || !hasShortcuts) return;
    await answered(store.workers.sweep(sweepAfterMs));
    await Promise.all([answered(watchTimeline()), answered(store.children.propagateOverdue(sweepAfterMs))]);
    await claims.freeUnknown();
  };
  const lookUnasked = (): void => {
    // What came in from outside is in the ledger; the notification that tells of it may be lost.
    if (beats % (pollEveryMs / beatEveryMs) === 0) {
      for (const owner of owners.values()) owner.poke();
      pauses.look().catch(onTrouble);
    }
    stealDue().catch(onTrouble);
    visitIdle().catch(onTrouble);
  };
  maintenance = liveness.every(beatEveryMs, () => {
    if (hasShortcuts) lookUnasked();
    claims.freeLost();
    if (runner?.isStuck()) runner.runner.stop().catch(onTrouble);
    if (!runner)
      beginning ??= beginJobs()
        .catch(onTrouble)
        .finally(() => (beginning = undefined));
    if (isMaintaining) return;
    isMaintaining = true;
    maintain()
      .catch(onTrouble)
      .finally(() => (isMaintaining = false));
  });

  return {
    get id() {
      return membership.engine.workerId;
    },
    get owned() {
      return owners.size;
    },
    create,
    lookAtPauses: () => pauses.look().catch(onTrouble),
    inside: {
      owners,
      get isQuiet() {
        return items.isQuiet && (schedules?.isQuiet ?? true);
      },
      advance: (id, flow) => advanceOne(id, flow, 0).catch(onTrouble),
      get isCrashed() {
        return isCrashed;
      },
      crash() {
        isCrashed = true;
        for (const owner of owners.values()) owner.lose();
      },
      revive: () => void (isCrashed = false),
    },
    get vitals(): Vitals {
      const { isHeld, silentMs } = membership.heartbeat;
      return {
        state: isStopped ? "stopped" : isStopping ? "draining" : "serving",
        slots: settings.concurrency,
        freeSlots: capacity.free,
        owned: owners.size,
        isHeld: isHeld && !isCrashed,
        silentMs,
        takesClaims: !isStopping && !isCrashed && isHeld && runner !== undefined,
      };
    },
    stop: stopOnce,
    [Symbol.asyncDispose]: stopOnce,
  };
}

/** One identity of this worker, from its registration until the others give it up. */
interface Membership {
  readonly engine: Engine;
  readonly heartbeat: Heartbeat;
}

/** Whether a claimed execution can go on by this worker's version of its flow. */
async function fitOf({ reads }: Store, claimed: Claim, flow: FlowDefinition): Promise<Fit> {
  if (claimed.fingerprint === null || claimed.fingerprint === flow.fingerprint) return { nodes: {} };
  const kept = await answered(reads.definition(flow.name, claimed.fingerprint));
  if (kept === null) return { problem: "the definition it ran by was not kept" };
  const before = new Map(readBlueprint(kept).nodes.map((node) => [node.id, node]));
  return fitVersion(claimed.state, before, flow.graph);
}

/** When the last stream items were put, by `Timers.monotonic()`: a new owner goes on counting for the rate. */
async function recentPuts(
  { streams }: Store,
  { id, items }: Claim,
  { streamLimits: { rate } }: FlowDefinition,
  timers: Timers,
): Promise<number[]> {
  if (!rate || items === 0) return [];
  const ages = await answered(streams.recentPuts(id, rate.limit, rate.perMs));
  const now = timers.monotonic();
  return ages.map((age) => now - age);
}

/** The stream's lane, shared by all owners of this worker. */
function openStreamLane({ streams, wakeups }: Store, timers: Timers, meter: Meter): Engine["putIntoStream"] {
  const streamer = new Streamer(streams, wakeups, timers, (items) => void (meter.streamItems += items));
  return (target, item, dispatch, mark) => streamer.put(target, item, dispatch, mark);
}
