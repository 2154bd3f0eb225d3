/** The worker process: graphile-worker hands out the hints, owners advance what they claim, `stop()` drains. */
import { once, Semaphore, withTimeout } from "../base/async.ts";
import { systemTimers as liveness, type Timer } from "../base/timers.ts";
import { withAnswerLimit } from "../store/batcher.ts";
import type { Claim } from "../store/claims.ts";
import { giveBack } from "../engine/commit.ts";
import { openCommitter } from "../engine/committer.ts";
import type { Committer } from "../engine/committer.ts";
import { openItems } from "../engine/items.ts";
import { Owner } from "../engine/owner.ts";
import { LeaseLostError } from "../base/errors.ts";
import { toBlueprint } from "../flow/blueprint.ts";
import { endsByItself } from "../ledger/settle.ts";
import { isItem } from "../ledger/state.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { checkDatabase, checkWakeups } from "./checks.ts";
import { openBlocked } from "./blocked.ts";
import { isPoisonSuspect, openClaims } from "./claims.ts";
import { traceIdOf } from "../telemetry/traceparent.ts";
import type { Vitals } from "../telemetry/vitals.ts";
import { openFlowPauses } from "./flow-pauses.ts";
import { newPool, runJobs, taskOf } from "./jobs.ts";
import type { Jobs } from "./jobs.ts";
import { startSchedules } from "./schedules.ts";
import type { RunningSchedules } from "./schedules.ts";
import { openEngines } from "./engine.ts";
import type { LocalWorker, WorkerHost, WorkerSettings } from "./host.ts";
import { register, type Membership } from "./membership.ts";
import { fitOf, readParent, recentPuts } from "./past.ts";
import { openSlots } from "./slots.ts";
import { openHere } from "./here.ts";
import { beatEveryMs, openUpkeep } from "./upkeep.ts";

/** What an execution needs to go on could not be read: it is left alone for so long. */
const unreadWaitMs = 15_000;
/** A ledger that this version cannot fold is looked at again after so long. */
const brokenWaitMs = 60_000;
/** How long graphile-worker may take to stop once nothing runs any more. */
const endWithinMs = 1000;
/** How long each part of a start waits for its answer. */
const beginWithinMs = 20_000;

export async function startWorker(host: WorkerHost, settings: WorkerSettings): Promise<LocalWorker> {
  const { store, log, meter } = host;
  const { hasShortcuts } = settings;
  const { wakeups } = store;
  const owners = new Map<ExecutionId, Owner>();
  /** Claimed, and without an owner yet: what that needs is being read. Each resolves when that is over. */
  const opening = new Map<ExecutionId, Promise<void>>();
  const capacity = new Semaphore(settings.concurrency);
  // A parent that waits for children gives up its capacity and its job; else parents could keep their own children out.
  const parents = new Map<ExecutionId, () => void>();
  // Executions that lost workers run one at a time, so that only the one that takes its worker down is counted again.
  const poisonSuspects = new Semaphore(1);
  const { committer: wrap = (inner: Committer) => inner } = host.hooks;
  const committer = wrap(
    openCommitter({
      commits: store.commits,
      leaving: { leaves: (item) => slots.leaves(item), append: (items_) => slots.append(items_) },
      onTrouble: (error) => log.warn("waiting for the database", { event: "database_away", error: String(error) }),
      onAnswer: (ms) => meter.commits.observe(ms),
    }),
  );
  const items = openItems(store, (id) => owners.has(id));
  let isStopping = false;
  let isCrashed = false;
  let membership: Membership;

  /** What was under way when the worker stopped may fail when the connections go: nobody needs to know. */
  let isStopped = false;
  const onTrouble = (error: unknown) => {
    if (!isStopped) log.warn("worker trouble", { error: String(error) });
  };

  const blocked = openBlocked({ store, committer, log, meter, flows: host.flows });
  /** Once registered: who gives back what is blocked from then on sees this version. */
  const lookAtBlocked = (): void => void blocked.look().catch(onTrouble);
  let schedules: RunningSchedules | undefined;
  const pauses = openFlowPauses({
    store,
    flows: [...host.flows.keys()],
    onChange: (changed) => {
      for (const owner of owners.values()) if (changed.has(owner.flow.name)) owner.poke();
      schedules?.look(changed);
    },
    onTrouble: (error) => onTrouble(error),
  });
  const engines = openEngines({
    host,
    settings,
    committer,
    items,
    waitsForOthers: (parent) => parents.get(parent)?.(),
    isFlowPaused: (flow) => pauses.has(flow),
    onTrouble,
  });
  const claims = openClaims({
    store,
    log,
    poisonSuspects,
    workerId: () => membership.engine.workerId,
    isOwned: (id) => owners.has(id) || opening.has(id),
    onBroken: (claimed, error) => {
      log.error("the ledger of an execution cannot be folded: it stands still", {
        executionId: claimed.id,
        error: String(error),
      });
      void giveBack(committer, claimed, { wakeInMs: brokenWaitMs });
    },
    onTrouble,
  });
  const isTaking = () => !isStopping && !isCrashed;
  const runHere = (claimed: Claim) => void run(claimed).catch(onTrouble);
  const slots = openSlots({
    host,
    hasShortcuts,
    capacity,
    claims,
    isTaking,
    flowOf: (id) => owners.get(id)?.flow.name,
    runHere,
    onTrouble,
  });
  const here = openHere({ host, capacity, claims, pauses, isTaking, isOwned: (id) => owners.has(id), runHere });
  /** A job came for these while they were owned here: an owner may have given one back already, and not have heard it. */
  const hinted = new Map<ExecutionId, number>();
  const advanceOne = async (execution: ExecutionId, flow: string, priority: number): Promise<void> => {
    const known = owners.get(execution);
    if (known) {
      hinted.set(execution, priority);
      return known.poke();
    }
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
    const { promise, resolve: opened } = Promise.withResolvers<void>();
    opening.set(claimed.id, promise);
    try {
      const flow = host.flows.get(claimed.flow);
      if (!flow || isCrashed) return;
      const { engine } = membership;
      // The worker lost the identity that this claim was made under: the sweep frees the execution.
      if (claimed.worker !== engine.workerId) {
        if (isPoisonSuspect(claimed)) poisonSuspects.release();
        return;
      }
      const known = await Promise.all([
        fitOf(store, claimed, flow),
        recentPuts(store, claimed, flow, host.timers),
      ]).catch((error: unknown) => {
        log.error("what an execution needs to go on cannot be read", {
          executionId: claimed.id,
          flow: claimed.flow,
          ...traceIdOf(claimed.state.trace),
          error: String(error),
        });
        return null;
      });
      const leaveFor = async (wakeInMs: number): Promise<void> => {
        if (isPoisonSuspect(claimed)) poisonSuspects.release();
        await giveBack(committer, { ...claimed, seq: claimed.state.seq }, { wakeInMs });
      };
      if (!known) return await leaveFor(unreadWaitMs);
      const [fit, recent] = known;
      // An execution that ends without running a chunk does not need a fitting flow.
      if ("problem" in fit && !endsByItself(claimed.state, claimed.now)) {
        if (isPoisonSuspect(claimed)) poisonSuspects.release();
        return await blocked.leave(claimed, flow, fit.problem);
      }
      if (isItem(claimed.state) && !(await readParent(items, log, claimed))) return await leaveFor(brokenWaitMs);
      if (isStopping) return await leaveFor(0);
      const { promise: waitsForChildren, resolve } = Promise.withResolvers<void>();
      const leave = once(() => {
        capacity.release();
        parents.delete(claimed.id);
        resolve();
      });
      // Before the owner is made: it may wait for children at once.
      parents.set(claimed.id, leave);
      const owner = new Owner(engine, flow, claimed, "nodes" in fit ? fit.nodes : {}, recent);
      isOwner = true;
      owners.set(claimed.id, owner);
      opening.delete(claimed.id);
      opened();
      owner.begin();
      const over = owner.done.finally(() => {
        if (owners.get(claimed.id) === owner) owners.delete(claimed.id);
        // A crashed process frees nothing: other workers take over and count the crash.
        if (owner.isLost && !isCrashed) claims.lose(claimed);
        if (isPoisonSuspect(claimed)) poisonSuspects.release();
        leave();
        slots.release(claimed);
        const priority = hinted.get(claimed.id);
        hinted.delete(claimed.id);
        if (priority !== undefined && isTaking() && !owner.isLost)
          void advanceOne(claimed.id, claimed.flow, priority).catch(onTrouble);
      });
      await Promise.race([over, waitsForChildren]);
    } finally {
      if (!isOwner) {
        opening.delete(claimed.id);
        capacity.release();
        slots.release(claimed);
        opened();
      }
    }
  };
  const timeline = await checkDatabase(store);
  await checkWakeups(wakeups, log);
  const definitions = [...host.flows.values()].map((flow) => ({
    flow: flow.name,
    fingerprint: flow.fingerprint,
    blueprint: toBlueprint(flow),
  }));
  await store.workers.keepDefinitions(definitions);
  await store.workers.declareLimits(host.flows.values());
  let runner: Jobs | undefined;
  let beginning: Promise<void> | undefined;
  let unlocking: Promise<unknown> | undefined;
  /** graphile-worker ends when it cannot say that a job is done, as after a lost connection: then it begins anew. */
  const beginJobs = async (): Promise<void> => {
    // A pool of its own, because a runner that ends in trouble may keep connections for good.
    const pool = newPool(store);
    const starting = runJobs(
      pool,
      host.flows,
      taskOf(log, advanceOne),
      { concurrency: settings.concurrency, isPreparing: store.links.isPreparing, schema: store.names.jobs },
      log,
      (name) => {
        if (!isStopping) {
          runner = undefined;
          liveness.after(endWithinMs, () => pool.endAll()).unref();
        }
        // Jobs that it had fetched would stay locked for hours. To unlock one that it still works on does no harm.
        unlocking = withAnswerLimit(store.workers.unlockJobs(name)).catch(onTrouble);
      },
    );
    const begun = await withAnswerLimit(starting, beginWithinMs).catch((error: unknown) => {
      pool.endAll();
      throw error;
    });
    runner = begun;
    await withAnswerLimit(store.workers.keepPool(membership.engine.workerId, begun.pool));
  };
  membership = await register({
    host,
    slots: settings.concurrency,
    engines,
    pool: () => runner?.pool ?? null,
    onGivenUp: (workerId) => {
      log.warn("this worker was given up by the others: its executions go on elsewhere", {
        event: "given_up",
        workerId,
        executions: owners.size,
      });
      for (const owner of owners.values()) owner.lose();
    },
    isStopping: () => isStopping,
    onRenewed: lookAtBlocked,
    onTrouble,
  }).catch(async (error: unknown) => {
    await items.close();
    throw store.explain(error);
  });
  const stopListening = wakeups.onOwnerWakeup((execution) => owners.get(execution)?.poke());
  await pauses.look();
  const stopWatching = wakeups.onChange((isListening) => {
    if (isListening) log.info("LISTEN stands again", { event: "listen_back" });
    else
      log.warn("LISTEN was lost: until it stands again, wake-ups come from polling every two seconds", {
        event: "listen_lost",
      });
  });
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
    const drained = Promise.allSettled([...opening.values(), ...[...owners.values()].map(({ done }) => done)]);
    await withTimeout(Promise.all([ended, drained]), settings.drainTimeoutMs, () => {
      if (owners.size > 0)
        log.warn("drainTimeout is over: attempts are cut off, and their executions given back", {
          event: "given_back",
          executions: owners.size,
        });
      for (const owner of owners.values()) owner.abort(new LeaseLostError(owner.id, owner.lease.epoch));
    });
    await Promise.allSettled([...owners.values()].map(({ done }) => done));
    await engines.settled();
    await slots.settled();
    // After a job that it could not finish, graphile-worker's stop never resolves (0.18.0). Jobs are only hints.
    await withTimeout(ended, endWithinMs, () => {});
    await withTimeout(Promise.resolve(unlocking), endWithinMs, () => {});
    await items.close();
    runner?.endPool();
    stopListening();
    pauses.stop();
    stopWatching();
    committer.close();
    await membership.stop();
    isStopped = true;
  };
  const stopOnce = () => (stopped ??= stop());
  try {
    await beginJobs();
    schedules = await startSchedules(store, log, host.schedules, host.timers, pauses);
    lookAtBlocked();
  } catch (error) {
    await stopOnce().catch(onTrouble);
    throw store.explain(error);
  }

  const upkeep = openUpkeep({
    host,
    settings,
    owners,
    capacity,
    pauses,
    timeline,
    isStopping: () => isStopping,
    advance: advanceOne,
    freeUnknown: () => claims.freeUnknown(),
    onTrouble,
  });
  maintenance = liveness.every(beatEveryMs, () => {
    upkeep.tick();
    claims.freeLost();
    if (runner?.isStuck()) runner.runner.stop().catch(onTrouble);
    if (!runner)
      beginning ??= beginJobs()
        .catch(onTrouble)
        .finally(() => (beginning = undefined));
  });

  return {
    get id() {
      return membership.engine.workerId;
    },
    get owned() {
      return owners.size;
    },
    create: here.create,
    send: here.send,
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
      const { isHeld, silentMs } = membership;
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
