/** The worker process: graphile-worker hands out the hints, owners advance what they claim, `stop()` drains. */
import { hostname } from "node:os";
import { once, Semaphore, withTimeout } from "../base/async.ts";
import { systemTimers as liveness, type Timers } from "../base/timers.ts";
import { z } from "zod";
import { answered, Batcher } from "../database/batcher.ts";
import { createMany } from "../database/commands.ts";
import type { CreateResult, NewExecution } from "../database/commands.ts";
import type { Sql } from "../database/connection.ts";
import {
  keepDefinitions,
  keepLimits,
  keepPool,
  listDue,
  readDefinition,
  readEvents,
  settleFamilies,
  settleOverdue,
  tend,
  unlockJobs,
} from "../database/queries.ts";
import type { Claim } from "../database/queries.ts";
import { readRecentPuts } from "../database/stream.ts";
import type { Wakeups } from "../database/wakeups.ts";
import { DatabaseClock } from "../engine/clock.ts";
import { openCommitter } from "../engine/committer.ts";
import type { Committer } from "../engine/committer.ts";
import type { NewChild } from "../engine/child.ts";
import type { ClosedExecution, FlowDataAccess } from "../engine/chunk.ts";
import { failpoint } from "../engine/failpoints.ts";
import { openItems } from "../engine/items.ts";
import { Owner } from "../engine/owner.ts";
import type { ChildOptions, Engine } from "../engine/owner.ts";
import type { Resources, WorkerResources } from "../engine/resources.ts";
import { Streamer } from "../engine/streamer.ts";
import { DefinitionMismatchError, LeaseLostError } from "../base/errors.ts";
import type { Logger } from "../flow/context.ts";
import { readBlueprint, toBlueprint } from "../flow/blueprint.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { decide } from "../ledger/decide.ts";
import type { Command } from "../ledger/decide.ts";
import { repeatWrites } from "../ledger/state.ts";
import { ExecutionId, WorkerId } from "../ledger/event.ts";
import type { LedgerEvent, Recorded } from "../ledger/event.ts";
import { fitVersion } from "../ledger/version.ts";
import type { Fit } from "../ledger/version.ts";
import { checkDatabase, checkWakeups, requireHome } from "./checks.ts";
import { isSuspect, openClaims } from "./claims.ts";
import { startHeartbeat } from "./heartbeat.ts";
import type { Heartbeat, HeartbeatOptions } from "./heartbeat.ts";
import { newPool, runJobs } from "./jobs.ts";
import type { Jobs } from "./jobs.ts";
import { startSchedules } from "./schedules.ts";
import type { Schedule } from "./schedules.ts";

/** What a worker needs of the orchestrator it runs in. */
export interface WorkerHost {
  readonly sql: Sql;
  readonly wakeups: Wakeups;
  readonly log: Logger;
  readonly timers: Timers;
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
/** A worker without its lock that was silent for so long is dead: its process has ended. */
const missedMs = 800;
/** A worker that was silent for so long is given up by the others; its main loop may be stuck for a part of it. */
const silentMs = 10_000;
const stuckMs = 5000;
/** A ledger that this version cannot fold is looked at again after so long. */
const brokenWaitMs = 60_000;
/** Of so many places that an execution leaves, one goes to whichever worker comes first. */
const offerEvery = 32;
/** How often owners look for what came in, should the notification be lost. */
const lookEveryMs = 2000;
/** What is due for so long while this worker has places free waits in the queue of one that has none. */
const helpAfterMs = 200;
/** How long graphile-worker may take to stop once nothing runs any more. */
const endWithinMs = 1000;
/** What is due for so long and nobody's has lost its job. */
const sweepAfterMs = 5000;

export async function startWorker(host: WorkerHost, settings: WorkerSettings): Promise<LocalWorker> {
  const { sql, wakeups, log } = host;
  const owners = new Map<ExecutionId, Owner>();
  const slots = new Semaphore(settings.concurrency);
  // A parent that waits for children gives up its place and its job: otherwise parents could keep their own children out.
  const parents = new Map<ExecutionId, () => void>();
  // Executions that lost workers run one at a time, so that only the one that takes its worker down is counted again.
  const suspects = new Semaphore(1);
  const committer = openCommitter(sql, (error) => log.warn("waiting for the database", { error: String(error) }));
  const reads = new Batcher<{ id: ExecutionId; after: number }, readonly Recorded[]>({
    send: (asked) => readEvents(sql, asked),
  });
  const families = new Batcher<ExecutionId, undefined>({
    send: async (ids) => {
      await settleFamilies(sql, ids);
      return ids.map(() => undefined);
    },
  });
  const settling = new Set<Promise<unknown>>();
  const putIntoStream = openStreamLane(sql, wakeups, host.timers);
  const items = openItems(sql, wakeups, (id) => owners.has(id));
  const clock = new DatabaseClock(host.timers);
  const disposals = new Set<Promise<void>>();
  let isStopping = false;
  let membership: Membership;

  /** Signs up under a fresh identity: one that others have given up must not come back. */
  const signUp = async (): Promise<Membership> => {
    const id = WorkerId.parse(crypto.randomUUID());
    const heartbeat = startHeartbeat(
      {
        id,
        host: hostname(),
        pid: process.pid,
        flows: [...host.flows.keys()],
        pool: runner?.pool ?? null,
        connection: threadOptions(sql),
        everyMs: beatEveryMs,
        stuckMs,
      },
      () => {
        log.warn("this worker was given up by the others: its executions go on elsewhere", { workerId: id });
        for (const owner of owners.values()) owner.lose();
        if (!isStopping) void renew();
      },
    );
    await heartbeat.signedUp;
    return {
      heartbeat,
      engine: {
        workerId: id,
        committer,
        clock,
        timers: host.timers,
        log,
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
        settleFamily: (execution) => {
          const settled = families
            .submit(execution)
            .catch(onTrouble)
            .finally(() => settling.delete(settled));
          settling.add(settled);
        },
        announce: (execution, closed) => host.announce(execution, closed),
        onDispose: (disposed) => {
          disposals.add(disposed);
          void disposed.finally(() => disposals.delete(disposed));
        },
        cancelGraceMs: settings.cancelGraceMs,
      },
    };
  };
  const renew = async (): Promise<void> => {
    while (!isStopping) {
      try {
        membership = await signUp();
        return;
      } catch (error) {
        // The connection was lost in the middle of it.
        onTrouble(error);
        await liveness.sleep(beatEveryMs);
      }
    }
  };
  const onTrouble = (error: unknown) => log.warn("worker trouble", { error: String(error) });

  const claims = openClaims({
    sql,
    log,
    suspects,
    workerId: () => membership.engine.workerId,
    isOwned: (id) => owners.has(id),
    onBroken: (claimed, error) => {
      log.error("the ledger of an execution cannot be folded: it stands still", {
        executionId: claimed.id,
        error: String(error),
      });
      void giveBack(committer, claimed, brokenWaitMs);
    },
    onTrouble,
  });
  /** Places that are being given back. */
  const leaving = new Set<Promise<void>>();
  const leavePlace = ({ flow, id }: Claim): void => {
    if (!host.flows.get(flow)?.limits) return;
    const left = passPlace(flow, id)
      // The sweep finds the place later.
      .catch(onTrouble)
      .finally(() => leaving.delete(left));
    leaving.add(left);
  };
  /** The place that an execution leaves goes to whoever is first in line: here if there is room, else another worker is called. */
  let passes = 0;
  const passPlace = async (flow: string, left: ExecutionId): Promise<void> => {
    // Now and then the others are asked as well: places shall not stay with the worker that had them first.
    const isOffered = ++passes % offerEvery === 0;
    const hasRoom = !isStopping && !isOffered && slots.tryAcquire();
    const next = await claims.takeTurn({ flow, id: null, left, hasRoom }).catch((error: unknown) => {
      if (hasRoom) slots.release();
      throw error;
    });
    if (next) void run(next).catch(onTrouble);
    else if (hasRoom) slots.release();
  };

  const create = async (executions: readonly NewExecution[]): Promise<CreateResult[]> => {
    const here = executions.filter((execution) => !isStopping && canBeginHere(execution) && slots.tryAcquire());
    if (here.length === 0) return createMany(sql, executions);
    try {
      const { created, claimed } = await claims.create(executions, here);
      for (const execution of here) {
        const own = claimed.get(execution);
        if (own) void run(own).catch(onTrouble);
        else slots.release();
      }
      return created;
    } catch (error) {
      for (const _ of here) slots.release();
      throw error;
    }
  };
  const canBeginHere = ({ flow, input, idempotencyKey, delayMs, startAt, discardAfter }: NewExecution): boolean =>
    // A known key waits for the transaction that has it; such a start may come through long after its connection is lost.
    input !== undefined &&
    idempotencyKey === null &&
    delayMs === null &&
    startAt === null &&
    discardAfter == null &&
    host.flows.get(flow)?.limits === null;

  const advanceOne = async (execution: ExecutionId, flow: string): Promise<void> => {
    const known = owners.get(execution);
    if (known) return known.poke();
    if (isStopping) return;
    await slots.acquire();
    let claimed: Claim | null = null;
    try {
      if (isStopping) return;
      claimed = host.flows.get(flow)?.limits
        ? await claims.takeTurn({ flow, id: execution, left: null, hasRoom: true })
        : await claims.take(execution);
    } finally {
      if (!claimed) slots.release();
    }
    if (claimed) await run(claimed);
  };
  /** Owns what was claimed, until it is over. It has a slot, and gives that back. */
  const run = async (claimed: Claim): Promise<void> => {
    let isOwner = false;
    try {
      const flow = host.flows.get(claimed.flow);
      if (!flow) return;
      const { engine } = membership;
      // Claimed under an identity that is gone meanwhile: the sweep frees it.
      if (claimed.worker !== engine.workerId) {
        if (isSuspect(claimed)) suspects.release();
        return;
      }
      const known = await Promise.all([fitOf(sql, claimed, flow), recentPuts(sql, claimed, flow, host.timers)]).catch(
        (error: unknown) => {
          log.error("what an execution needs to go on cannot be read", {
            executionId: claimed.id,
            error: String(error),
          });
          return null;
        },
      );
      if (!known) {
        if (isSuspect(claimed)) suspects.release();
        return await giveBack(committer, { ...claimed, seq: claimed.state.seq }, otherVersionWaitMs);
      }
      const [fit, recent] = known;
      if ("problem" in fit) {
        if (isSuspect(claimed)) suspects.release();
        const { fingerprint } = flow;
        const before = claimed.fingerprint ?? "";
        const mismatch = new DefinitionMismatchError(claimed.id, flow.name, before, fingerprint, fit.problem);
        log.error(mismatch.message, { executionId: claimed.id, flow: flow.name });
        const block: Command = { type: "block", worker: engine.workerId, fingerprint, problem: mismatch.message };
        // Said once per version in the ledger; what it stands at stays as it is.
        const { blocked } = claimed.state;
        const events = blocked?.fingerprint === fingerprint ? [] : decide(claimed.state, block, flow.graph);
        const stoodMs = claimed.now - (blocked?.at ?? claimed.now);
        const waitMs = Math.min(Math.max(stoodMs, firstVersionWaitMs), otherVersionWaitMs);
        return await giveBack(committer, { ...claimed, seq: claimed.state.seq }, waitMs, events);
      }
      if (claimed.state.item?.readsState && !(await readParentState(claimed))) {
        if (isSuspect(claimed)) suspects.release();
        return await giveBack(committer, { ...claimed, seq: claimed.state.seq }, brokenWaitMs);
      }
      const { promise: waitsForChildren, resolve } = Promise.withResolvers<void>();
      const leave = once(() => {
        slots.release();
        parents.delete(claimed.id);
        resolve();
      });
      // Before the owner begins: it may wait for others at once.
      parents.set(claimed.id, leave);
      const owner = new Owner(engine, flow, claimed, fit.nodes, recent);
      isOwner = true;
      owners.set(claimed.id, owner);
      const over = owner.done.finally(() => {
        if (owners.get(claimed.id) === owner) owners.delete(claimed.id);
        if (owner.isLost) claims.lose(claimed);
        if (isSuspect(claimed)) suspects.release();
        leave();
        leavePlace(claimed);
      });
      if (isStopping) owner.drain();
      await Promise.race([over, waitsForChildren]);
    } finally {
      if (!isOwner) {
        slots.release();
        leavePlace(claimed);
      }
    }
  };
  /** An item reads the state that its parent had when it fanned out, under what it wrote itself. */
  const readParentState = async ({ id, state }: Claim): Promise<boolean> => {
    const { item, parent, writes = [] } = state;
    if (!item || !parent) return true;
    try {
      state.values = repeatWrites(structuredClone(await items.stateAtFanOut(parent.id, parent.dispatch)), writes);
      return true;
    } catch (error) {
      log.error("the state of an item's parent cannot be read", { executionId: id, error: String(error) });
      return false;
    }
  };
  // Never throws into graphile-worker, whose failure path breaks on odd messages (RELIABILITY V4): errors are ledger events.
  const task = async (flow: string, payload: unknown): Promise<void> => {
    const ids = JobPayload.safeParse(payload);
    if (!ids.success) return log.error("a job is not ours", { problem: ids.error.message });
    const outcomes = await Promise.allSettled(ids.data.map((id) => advanceOne(id, flow)));
    const failures = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? String(outcome.reason) : []));
    for (const [error, alike] of Map.groupBy(failures, (failure) => failure))
      log.error("advancing failed", { error, executions: alike.length });
    failpoint("before-job-done");
  };

  let timeline = await checkDatabase(sql);
  await requireHome(sql);
  await checkWakeups(wakeups, log);
  await keepDefinitions(
    sql,
    [...host.flows.values()].map((flow) => ({
      flow: flow.name,
      fingerprint: flow.fingerprint,
      blueprint: toBlueprint(flow),
    })),
  );
  await keepLimits(sql, host.flows.values());
  let runner: Jobs | undefined;
  let beginning: Promise<void> | undefined;
  let unlocking: Promise<unknown> | undefined;
  /** graphile-worker ends when it cannot say that a job is done, as after a lost connection: then it begins anew. */
  const beginJobs = async (): Promise<void> => {
    // A pool of its own, because a runner that ends in trouble may keep connections for good.
    const pool = newPool(sql);
    const begun = await runJobs(
      pool,
      host.flows,
      task,
      { concurrency: settings.concurrency, prepare: sql.options.prepare },
      log,
      () => {
        if (!isStopping) {
          runner = undefined;
          liveness.after(endWithinMs, () => pool.endAll()).unref();
        }
        // What it had fetched would stay locked in its name for hours. Unlocking what it still works on does no harm.
        unlocking = answered(unlockJobs(sql, begun.pool)).catch(onTrouble);
      },
    );
    runner = begun;
    await answered(keepPool(sql, membership.engine.workerId, begun.pool));
  };
  membership = await signUp();
  const stopHearing = wakeups.onAny((execution) => owners.get(execution)?.poke());
  await beginJobs();

  const stopSchedules = await startSchedules(sql, wakeups, log, host.schedules, host.timers);

  /** After a failover or a restore the ledger may have lost its tail, and leases were given out twice: begin anew. */
  const watchTimeline = async (): Promise<void> => {
    const now = await checkDatabase(sql);
    if (now.system === timeline.system && now.timeline === timeline.timeline) return;
    log.error("the database is another one than before (failover or restore): what was not replicated is lost", {
      before: timeline,
      now,
    });
    timeline = now;
    for (const owner of owners.values()) owner.lose();
  };
  /** A busy worker may have fetched more jobs than it has places for: one with free places takes some over. */
  let isHelping = false;
  const unlimited = [...host.flows.values()].filter(({ limits }) => limits === null).map(({ name }) => name);
  const help = async (): Promise<void> => {
    const limit = Math.min(slots.free, settings.concurrency >> 1 || 1);
    if (limit === 0 || isStopping || isHelping) return;
    isHelping = true;
    const asked = answered(listDue(sql, unlimited, helpAfterMs, limit));
    const due = await asked.finally(() => (isHelping = false));
    for (const { id, flow } of due) advanceOne(id, flow).catch(onTrouble);
  };
  let beats = 0;
  let isTending = false;
  const look = async (): Promise<void> => {
    const isSweep = beats++ % (sweepAfterMs / beatEveryMs) === 0;
    await answered(tend(sql, missedMs, silentMs, isSweep ? sweepAfterMs : null));
    if (!isSweep) return;
    await Promise.all([answered(watchTimeline()), answered(settleOverdue(sql, sweepAfterMs))]);
    await claims.freeUnknown();
  };
  const tending = liveness.every(beatEveryMs, () => {
    // What came in from outside is in the ledger; the notification that tells of it may be lost.
    if (beats % (lookEveryMs / beatEveryMs) === 0) for (const owner of owners.values()) owner.poke();
    claims.freeLost();
    if (runner?.isStuck()) runner.runner.stop().catch(onTrouble);
    if (!runner)
      beginning ??= beginJobs()
        .catch(onTrouble)
        .finally(() => (beginning = undefined));
    help().catch(onTrouble);
    if (isTending) return;
    isTending = true;
    look()
      .catch(onTrouble)
      .finally(() => (isTending = false));
  });

  let stopped: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    isStopping = true;
    tending.cancel();
    stopSchedules();
    for (const owner of owners.values()) owner.drain();
    await beginning;
    const ended = Promise.resolve(runner?.runner.stop()).catch(onTrouble);
    const drained = Promise.allSettled([...owners.values()].map(({ done }) => done));
    await withTimeout(Promise.all([ended, drained]), settings.drainTimeoutMs, () => {
      for (const owner of owners.values()) owner.abort(new LeaseLostError(owner.id, owner.lease.epoch));
    });
    await Promise.allSettled([...owners.values()].map(({ done }) => done));
    await Promise.all(disposals);
    await Promise.all(settling);
    while (leaving.size > 0) await Promise.allSettled(leaving);
    // After a job that it could not finish, graphile-worker's stop never resolves (0.18.0). Jobs are only hints.
    await withTimeout(ended, endWithinMs, () => {});
    await unlocking;
    await items.close();
    runner?.endPool();
    stopHearing();
    committer.close();
    await membership.heartbeat.stop();
  };
  const stopOnce = () => (stopped ??= stop());
  return {
    get id() {
      return membership.engine.workerId;
    },
    get owned() {
      return owners.size;
    },
    create,
    stop: stopOnce,
    [Symbol.asyncDispose]: stopOnce,
  };
}

/** One identity of this worker, from sign-up until the others give it up. */
interface Membership {
  readonly engine: Engine;
  readonly heartbeat: Heartbeat;
}

interface Lease {
  readonly id: ExecutionId;
  readonly epoch: number;
  readonly token: string;
  readonly seq: number;
}

/** A claim that this worker will not use: free again, to be tried later. */
async function giveBack(
  committer: Committer,
  claimed: Lease,
  wakeInMs: number,
  events: readonly LedgerEvent[] = [],
): Promise<void> {
  const { id, epoch, token } = claimed;
  const nothing = { conditional: 0, fingerprint: null, close: null, snapshot: null };
  let left = events;
  // What came in from outside meanwhile makes the release wait for the next try.
  for (let base = claimed.seq, commitNo = 1; ; commitNo++) {
    const release = { wakeInMs };
    const result = await committer.commit({ id, epoch, token, commitNo, base, ...nothing, events: left, release });
    if (result.verdict !== "ok" || result.foreign === null) return;
    base = result.firstSeq + left.length - 1;
    left = [];
  }
}

/** Whether a claimed execution can go on by this worker's version of its flow. */
async function fitOf(sql: Sql, claimed: Claim, flow: FlowDefinition): Promise<Fit> {
  if (claimed.fingerprint === null || claimed.fingerprint === flow.fingerprint) return { nodes: {} };
  const kept = await answered(readDefinition(sql, flow.name, claimed.fingerprint));
  if (kept === null) return { problem: "the definition it ran by was not kept" };
  const before = new Map(readBlueprint(kept).nodes.map((node) => [node.id, node]));
  return fitVersion(claimed.state, before, flow.graph);
}

/** When the last stream items were put, by `Timers.monotonic()`: a new owner goes on counting for the rate. */
async function recentPuts(
  sql: Sql,
  { id, items }: Claim,
  { streamLimits: { rate } }: FlowDefinition,
  timers: Timers,
): Promise<number[]> {
  if (!rate || items === 0) return [];
  const ages = await answered(readRecentPuts(sql, id, rate.limit, rate.perMs));
  const now = timers.monotonic();
  return ages.map((age) => now - age);
}

/** Connection options that can travel to a thread. */
function threadOptions(sql: Sql): HeartbeatOptions["connection"] {
  const { host, port, database, user, pass, ssl } = sql.options;
  return {
    host: host[0] ?? "localhost",
    port: port[0] ?? 5432,
    database,
    username: user,
    ...(pass !== null && { password: pass }),
    ...(ssl && { ssl }),
    connection: { application_name: "flowledger heartbeat" },
  };
}

/** The stream's lane, shared by all owners of this worker. */
function openStreamLane(sql: Sql, wakeups: Wakeups, timers: Timers): Engine["putIntoStream"] {
  const streamer = new Streamer(sql, wakeups, timers);
  return (target, item, dispatch, mark) => streamer.put(target, item, dispatch, mark);
}
