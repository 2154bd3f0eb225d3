/** Whether a process is alive and whether it takes work, from what its workers say. */
import type { Vitals } from "./vitals.ts";

/** One thing that was looked at. */
export interface HealthCheck {
  readonly name: "loop" | "lease" | "migrated" | "claims";
  readonly ok: boolean;
  /** In words; what to do where it is not. */
  readonly detail: string;
}

/** Whether a process is well, and what was looked at. */
export interface Health {
  /** All checks are. */
  readonly ok: boolean;
  readonly checks: readonly HealthCheck[];
}

/** A loop that has not turned for so long has lost its worker: the signs of life stop. */
const stuckMs = 5000;
/** A worker that was silent for so long is given up by the others. */
const silentMs = 10_000;

/** @param sinceTickMs since the loop turned last; null where no worker counts it */
export function healthOf(workers: readonly Vitals[], sinceTickMs: number | null): Health {
  const held = workers.filter(isHeld).length;
  return of([
    {
      name: "loop",
      ok: sinceTickMs === null || workers.length === 0 || sinceTickMs < stuckMs,
      detail: workers.length === 0 ? "no worker runs here" : `turned ${Math.round(sinceTickMs ?? 0)} ms ago`,
    },
    {
      name: "lease",
      ok: held === workers.length,
      detail:
        held === workers.length
          ? `${held} of ${workers.length} workers are registered and heard`
          : `${workers.length - held} of ${workers.length} workers were given up, or their signs of life do not reach the database`,
    },
  ]);
}

/** @param problem why the database cannot be worked with; null where it can */
export function readinessOf(workers: readonly Vitals[], problem: string | null): Health {
  const taking = workers.filter((worker) => worker.takesClaims && isHeld(worker)).length;
  const draining = workers.filter(({ state }) => state === "draining").length;
  return of([
    { name: "migrated", ok: problem === null, detail: problem ?? "the database fits this release" },
    {
      name: "claims",
      ok: taking > 0,
      detail:
        taking > 0
          ? `${taking} of ${workers.length} workers take executions`
          : draining > 0
            ? "draining: nothing new is taken"
            : workers.length === 0
              ? "no worker runs here yet"
              : "no worker takes executions: its jobs are not fetched, or it was given up",
    },
  ]);
}

function isHeld(worker: Vitals): boolean {
  return worker.isHeld && worker.silentMs < silentMs;
}

function of(checks: readonly HealthCheck[]): Health {
  return { ok: checks.every(({ ok }) => ok), checks };
}
