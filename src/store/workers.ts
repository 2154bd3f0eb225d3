/** The fleet: who lives, what the dead had, what was declared, and whether this database can be served at all. */
import type { FlowLimits } from "../flow/limits.ts";
import type { WorkerId } from "../ledger/event.ts";
import type { Database, Sql } from "./client.ts";
import { list } from "./columns.ts";

/** Which history of which cluster we talk to; it changes with a failover or a restore. */
export interface Timeline {
  readonly system: string;
  readonly timeline: number;
}

export interface DatabaseCheck extends Timeline {
  /** It takes no writes. */
  readonly isStandby: boolean;
  /** Row level security hides all jobs from this role, because no policy is for it. */
  readonly hidesJobs: boolean;
  /** False in a copy: restored elsewhere, cloned, or upgraded into another cluster. */
  readonly isOriginal: boolean;
}

export interface Workers {
  check(): Promise<DatabaseCheck>;
  /** Frees what dead workers own: those whose session has ended and who missed a beat, and those silent for `silentMs`. */
  reap(missedMs: number, silentMs: number): Promise<void>;
  /** Gives what has been due for longer, and has neither owner nor job, a new one; looks after slots and their queue. */
  sweep(afterMs: number): Promise<void>;
  /** Gives the jobs that graphile-worker locked under this name back. */
  unlockJobs(pool: string | null): Promise<void>;
  /** Keeps the name that graphile-worker locks the jobs of a worker with. */
  keepPool(worker: WorkerId, pool: string | null): Promise<void>;
  /** Declares the limits of the flows that a worker serves; those of its flows without any have none any more. */
  declareLimits(flows: Iterable<{ name: string; limits: FlowLimits | null }>): Promise<void>;
  /** Keeps the blueprint of each definition that ever ran here, so that an audit can read what the flow looked like. */
  keepDefinitions(definitions: readonly { flow: string; fingerprint: string; blueprint: unknown }[]): Promise<void>;
}

export function workersOf({ sql, names }: Pick<Database, "sql" | "names">): Workers {
  return {
    async check() {
      const [row] = await sql<[DatabaseCheck]>`
        select pg_is_in_recovery() as "isStandby", ${hidesJobs(sql, names.jobs)} as "hidesJobs", flowledger.is_original() as "isOriginal",
          (select system_identifier::text from pg_control_system()) as system,
          (select timeline_id from pg_control_checkpoint()) as timeline`;
      return row;
    },
    async reap(missedMs, silentMs) {
      await sql`select * from flowledger.reap(${missedMs}::float8, ${silentMs}::float8)`;
    },
    async sweep(afterMs) {
      await sql`select flowledger.sweep(${afterMs}::float8)`;
    },
    async unlockJobs(pool) {
      await sql`select flowledger_jobs.force_unlock_workers(${list([pool])}::text::text[])`;
    },
    async keepPool(worker, pool) {
      await sql`update flowledger.workers set pool = ${pool} where id = ${worker}::uuid`;
    },
    async declareLimits(flows) {
      const served = [...flows];
      const limits = served.flatMap(({ name, limits: given }) =>
        given === null
          ? []
          : [
              {
                flow: name,
                concurrency: given.concurrency,
                rate: given.rate?.limit,
                rate_ms: given.rate?.perMs,
                key_concurrency: given.keyConcurrency,
                key_rate: given.keyRate?.limit,
                key_rate_ms: given.keyRate?.perMs,
                action: given.action,
              },
            ],
      );
      await sql`
        select flowledger.declare_limits(${list(served.map(({ name }) => name))}::text::text[], ${JSON.stringify(limits)}::text::jsonb)`;
    },
    async keepDefinitions(definitions) {
      await sql`
        insert into flowledger.definitions (flow, fingerprint, blueprint, created_at)
        select d.flow, d.fingerprint, d.blueprint, flowledger.now()
        from jsonb_to_recordset(${JSON.stringify(definitions)}::text::jsonb) as d(flow text, fingerprint text, blueprint jsonb)
        -- What the contract asks for is in no fingerprint.
        on conflict (flow, fingerprint) do update set blueprint = excluded.blueprint
        where definitions.blueprint is distinct from excluded.blueprint`;
    },
  };
}

/** A condition: row level security is on for the jobs, and no policy is for this role. */
export function hidesJobs(sql: Sql, jobs: string) {
  return sql`row_security_active(${`${jobs}._private_jobs`}) and not exists (
    select from pg_policies p, unnest(p.roles) r(name) where p.schemaname = ${jobs} and p.tablename = '_private_jobs'
      and case when r.name = 'public' then true else pg_has_role(r.name, 'usage') end)`;
}
