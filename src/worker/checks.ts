/** What a worker makes sure of before it serves: a database it can write to, jobs it can see, notifications that arrive. */
import { withTimeout } from "../base/async.ts";
import type { Store } from "../store/store.ts";
import type { Wakeups } from "../store/wakeups.ts";
import type { Timeline } from "../store/workers.ts";
import { WorkerError } from "../base/errors.ts";
import type { Logger } from "../flow/context.ts";
import { ExecutionId } from "../ledger/event.ts";

/**
 * @throws {WorkerError} where serving would only look like it, or do harm: a copy has the open executions of its original, and
 *   would run them a second time
 */
export async function checkDatabase({ workers, names }: Pick<Store, "workers" | "names">): Promise<Timeline> {
  const { isStandby, hidesJobs, isOriginal, system, timeline } = await workers.check();
  if (isStandby) throw new WorkerError("the database is a read-only standby", "connect to the primary");
  if (hidesJobs)
    throw new WorkerError(
      `this role sees no jobs, because row level security is on for ${names.jobs} and has no policy for it`,
      `connect as the owner of the schema, or run select ${names.schema}.grant_roles() and use the worker role`,
    );
  if (!isOriginal)
    throw new WorkerError(
      "this database is a copy (restored, cloned or upgraded), and its open executions may still run in the original",
      `if they shall go on here and nowhere else, run select ${names.schema}.accept_identity() as the owner of the schema`,
    );
  return { system, timeline };
}

/** Warns when notifications do not arrive, as behind a pooler in transaction mode: then wake-ups come from polling alone. */
export async function checkWakeups(wakeups: Wakeups, log: Logger): Promise<boolean> {
  await wakeups.ready();
  const probe = ExecutionId.parse(crypto.randomUUID());
  const { promise: heard, resolve } = Promise.withResolvers<boolean>();
  const stop = wakeups.onDatabaseWakeup(probe, () => resolve(true));
  wakeups.notifyOwner(probe);
  const isHeard = await withTimeout(heard, 2000, () => false);
  stop();
  if (!isHeard)
    log.warn(
      "LISTEN does not work on this connection (a pooler in transaction mode?): wake-ups come from polling every two seconds; connect workers directly",
    );
  return isHeard;
}
