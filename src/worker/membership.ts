/** Who this worker is to the others: an identity with a heartbeat, and another one as soon as they have given it up. */
import { hostname } from "node:os";
import { systemTimers as liveness } from "../base/timers.ts";
import { withAnswerLimit } from "../store/batcher.ts";
import { registeredSchedule } from "../store/schedules.ts";
import type { Engine } from "../engine/host.ts";
import { WorkerId } from "../ledger/event.ts";
import type { Engines } from "./engine.ts";
import { startHeartbeat, type Heartbeat } from "./heartbeat.ts";
import type { WorkerHost } from "./host.ts";
import { beatEveryMs } from "./upkeep.ts";

/** How long the main loop may stand still: a part of the silence after which the others give a worker up. */
const stuckMs = 5000;
/** The thread has to begin, and to connect. */
const registerWithinMs = 20_000;

/** The identity of a worker, whichever it has now. */
export interface Membership extends Pick<Heartbeat, "isHeld" | "silentMs"> {
  /** The engine of the present identity. */
  readonly engine: Engine;
  stop(): Promise<void>;
}

export interface MembershipHost {
  readonly host: WorkerHost;
  readonly slots: number;
  readonly engines: Engines;
  /** The name under which graphile-worker locks jobs for this worker; null before it runs. */
  readonly pool: () => string | null;
  /** The others have taken its executions: `workerId` is nobody's name any more. */
  readonly onGivenUp: (workerId: WorkerId) => void;
  readonly isStopping: () => boolean;
  readonly onRenewed: () => void;
  readonly onTrouble: (error: unknown) => void;
}

/** Resolves when the others know this worker. */
export async function register(parts: MembershipHost): Promise<Membership> {
  let current = await newIdentity(parts, renew);

  async function renew(): Promise<void> {
    while (!parts.isStopping()) {
      try {
        current = await newIdentity(parts, renew);
        return parts.onRenewed();
      } catch (error) {
        // The connection was lost during the renewal.
        parts.onTrouble(error);
        await liveness.sleep(beatEveryMs);
      }
    }
  }

  return {
    get engine() {
      return current.engine;
    },
    get isHeld() {
      return current.heartbeat.isHeld;
    },
    get silentMs() {
      return current.heartbeat.silentMs;
    },
    stop: () => current.heartbeat.stop(),
  };
}

/** An identity that others have given up must not come back: each registration is a fresh one. */
async function newIdentity(
  { host, slots, engines, pool, onGivenUp, isStopping }: MembershipHost,
  renew: () => Promise<void>,
): Promise<{ readonly heartbeat: Heartbeat; readonly engine: Engine }> {
  const id = WorkerId.parse(crypto.randomUUID());
  const heartbeat = startHeartbeat(
    {
      id,
      host: hostname(),
      pid: process.pid,
      flows: [...host.flows.keys()],
      slots,
      fingerprints: [...host.flows.values()].map(({ fingerprint }) => fingerprint),
      schedules: Object.fromEntries(
        host.schedules.map((schedule) => [
          schedule.name,
          registeredSchedule(schedule, schedule.overlap, schedule.execution),
        ]),
      ),
      pool: pool(),
      connection: host.store.links.thread("flowledger heartbeat"),
      names: host.store.names,
      everyMs: beatEveryMs,
      stuckMs,
      onTick: host.meter.loop.ticker(),
    },
    () => {
      onGivenUp(id);
      if (!isStopping()) void renew();
    },
  );
  await withAnswerLimit(heartbeat.registered, registerWithinMs).catch((error: unknown) => {
    void heartbeat.stop();
    throw error;
  });
  return { heartbeat, engine: engines.of(id) };
}
