/** What a worker makes sure of before it serves: a database it can write to, jobs it can see, notifications that arrive. */
import { withTimeout } from "../base/async.ts";
import type { Sql } from "../database/connection.ts";
import { isHome, jobsAreHidden } from "../database/queries.ts";
import type { Wakeups } from "../database/wakeups.ts";
import { WorkerError } from "../base/errors.ts";
import type { Logger } from "../flow/context.ts";
import { ExecutionId } from "../ledger/event.ts";

/** Which history of which cluster we talk to; it changes with a failover or a restore. */
export interface Timeline {
  readonly system: string;
  readonly timeline: number;
}

/**
 * A copy has the open executions of its original, and would run them a second time.
 *
 * @throws {WorkerError} unless the database is where it was migrated or adopted
 */
export async function requireHome(sql: Sql): Promise<void> {
  if (!(await isHome(sql)))
    throw new WorkerError(
      "this database is a copy (restored, cloned or upgraded), and its open executions may still run in the original",
      "if they shall go on here and nowhere else, run select flowledger.adopt() as the owner of the schema",
    );
}

/** @throws {WorkerError} where serving would only look like it */
export async function checkDatabase(sql: Sql): Promise<Timeline> {
  const [row] = await sql<[{ standby: boolean; hidden: boolean; system: string; timeline: number }]>`
    select pg_is_in_recovery() as standby,
      ${jobsAreHidden(sql)} as hidden,
      (select system_identifier::text from pg_control_system()) as system,
      (select timeline_id from pg_control_checkpoint()) as timeline`;
  if (row.standby) throw new WorkerError("the database is a read-only standby", "connect to the primary");
  if (row.hidden)
    throw new WorkerError(
      "this role sees no jobs, because row level security is on for graphile_worker and has no policy for it",
      "connect as the owner of the schema, or run select flowledger.grant_roles() and use the worker role",
    );
  return { system: row.system, timeline: row.timeline };
}

/** Warns when notifications do not arrive, as behind a pooler in transaction mode: then wake-ups come from polling alone. */
export async function checkWakeups(wakeups: Wakeups, log: Logger): Promise<boolean> {
  await wakeups.ready();
  const probe = ExecutionId.parse(crypto.randomUUID());
  const { promise: heard, resolve } = Promise.withResolvers<boolean>();
  const stop = wakeups.onRemote(probe, () => resolve(true));
  wakeups.call(probe);
  const isHeard = await withTimeout(heard, 2000, () => false);
  stop();
  if (!isHeard)
    log.warn(
      "LISTEN does not work on this connection (a pooler in transaction mode?): wake-ups come from polling every two seconds; connect workers directly",
    );
  return isHeard;
}
