/** Whether this database, as this role, over this connection, can do what flowledger asks of it: one finding a line. */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { withTimeout } from "../base/async.ts";
import { acquainted, openDatabase, pgConfig } from "./client.ts";
import type { ConnectionOption, Database } from "./client.ts";
import { changedDefinitions } from "./definitions.ts";
import { requireMigrated } from "./migrate.ts";
import { schemaNames } from "./names.ts";
import { codeOf, refusalOf } from "./refusals.ts";
import { hidesJobs, workersOf } from "./workers.ts";

export interface Finding {
  readonly name: string;
  readonly verdict: "ok" | "warn" | "fail";
  readonly detail: string;
  /** What to do; null where nothing is to be done. */
  readonly remedy: string | null;
}

type Check = (database: Database) => Promise<Omit<Finding, "name">>;

/** Looks and writes nothing. After a connection that fails nothing else is asked. */
export async function examine(connection: ConnectionOption, schema = "flowledger"): Promise<Finding[]> {
  const database = openDatabase(connection, { names: schemaNames(schema), max: 2, name: "flowledger doctor" });
  const findings: Finding[] = [];
  try {
    for (const [name, check] of Object.entries(checks)) {
      const finding = await acquainted(database, () => check(database)).catch((error: unknown) =>
        explain(error, database),
      );
      findings.push({ name, ...finding });
      if (finding.verdict === "fail" && (name === "connection" || name === "schema")) break;
    }
    return findings;
  } finally {
    await database.end({ timeout: 1 });
  }
}

/** So many transactions have left row versions that nobody may remove. */
const manyTransactions = 100_000;

const ok = (detail: string) => ({ verdict: "ok", detail, remedy: null }) as const;
const warn = (detail: string, remedy: string) => ({ verdict: "warn", detail, remedy }) as const;
const fail = (detail: string, remedy: string) => ({ verdict: "fail", detail, remedy }) as const;

function explain(error: unknown, { target }: Database): Omit<Finding, "name"> {
  if (codeOf(error) === "42501") return warn("this role may not look", "ask again as the owner of the schema");
  const [detail = "", remedy = "see the documentation"] = messageOf(refusalOf(error, target)).split(/: (?=[^:]*$)/);
  return fail(detail, remedy);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const checks: Record<string, Check> = {
  connection: async ({ sql }) => {
    const [row] = await sql<[{ role: string; database: string; standby: boolean }]>`
      select current_user as role, current_database() as database, pg_is_in_recovery() as standby`;
    const detail = `database "${row.database}" as role "${row.role}"`;
    return row.standby ? fail(`${detail}, on a standby that takes no writes`, "connect to the primary") : ok(detail);
  },

  postgres: async ({ sql }) => {
    const [row] = await sql<[{ version: string; number: number; fsync: boolean; commit: string }]>`
      select current_setting('server_version') as version, current_setting('server_version_num')::int as number,
        current_setting('fsync')::boolean as fsync, current_setting('synchronous_commit') as commit`;
    if (row.number < 150000) return fail(`version ${row.version}`, "flowledger needs Postgres 15 or newer: upgrade");
    if (!row.fsync)
      return warn(`version ${row.version}, fsync off`, "switch fsync on: a crash of the machine loses data");
    if (row.commit === "off")
      return warn(
        `version ${row.version}, synchronous_commit off`,
        "switch it on: a crash loses what was acknowledged",
      );
    return ok(`version ${row.version}`);
  },

  schema: async (database) => {
    await requireMigrated(database);
    return ok("at the version of this library");
  },

  definitions: async (database) => {
    const changed = await changedDefinitions(database);
    const [first] = changed;
    return first === undefined
      ? ok("functions and triggers are those of the migration")
      : fail(
          `${changed.slice(0, 3).join("; ")}${changed.length > 3 ? ` (and ${changed.length - 3} more)` : ""}`,
          "find out who did that, and what was written meanwhile; then put it back as the owner",
        );
  },

  original: async (database) => {
    const { isOriginal } = await workersOf(database).check();
    return isOriginal
      ? ok("where it was migrated")
      : fail(
          "a copy (restored, cloned or upgraded): workers refuse it",
          `if its open executions shall go on here, and nowhere else, run select ${database.names.schema}.accept_identity() as the owner`,
        );
  },

  rights: async ({ sql, names: { schema, jobs } }) => {
    const [row] = await sql<
      [{ superuser: boolean; owner: boolean; worker: boolean; client: boolean; auditor: boolean }]
    >`
      select (select rolsuper from pg_roles where rolname = current_user) as superuser,
        pg_has_role((select relowner from pg_class where oid = to_regclass(${`${schema}.ledger`})), 'usage') as owner,
        has_table_privilege(${`${schema}.workers`}, 'insert') and has_schema_privilege(${jobs}, 'usage') as worker,
        has_function_privilege(${`${schema}.start(text, jsonb, jsonb)`}, 'execute') as client,
        has_table_privilege(${`${schema}.audit_ledger`}, 'select') as auditor`;
    if (row.superuser)
      return warn(
        "superuser: may do everything, also rewrite a ledger",
        "serve as the worker of select flowledger.grant_roles()",
      );
    if (row.owner) return ok("owner of the schema: migrates, serves, prunes, rebuilds");
    if (row.worker) return ok("worker: serves flows, adds to ledgers, changes none");
    if (row.client) return ok("client: starts and commands executions, reads none");
    if (row.auditor) return ok("auditor: reads the audit views, writes nothing");
    return fail(
      "this role may do nothing here",
      "use one of the roles that select flowledger.grant_roles() makes, or run that again",
    );
  },

  pooler: async (database) => {
    const session = new pg.Client(pgConfig(database));
    const others = [1, 2, 3].map(() => new pg.Client(pgConfig(database)));
    for (const client of [session, ...others]) client.on("error", () => {});
    try {
      await Promise.all([session, ...others].map((client) => client.connect()));
      const ask = () =>
        session.query<{ mark: string | null; pid: number; port: number | null }>(
          "select current_setting('flowledger.doctor', true) as mark, pg_backend_pid() as pid, inet_client_port() as port",
        );
      const mark = randomBytes(8).toString("hex");
      await session.query("select set_config('flowledger.doctor', $1, false)", [mark]);
      const before = (await ask()).rows[0];
      // A pooler in transaction mode has to give our session to the others now.
      const busy = others.map((client) => client.query("select pg_sleep(0.1)"));
      const after = (await ask()).rows[0];
      await Promise.all(busy);
      if (before?.pid !== after?.pid || after?.mark !== mark)
        return fail(
          "sessions are shared: a pooler in transaction or statement mode",
          "connect workers and migrate directly, or through session pooling; those who only start may stay, with prepare: false",
        );
      return ok("sessions are our own");
    } finally {
      await Promise.allSettled([session, ...others].map((client) => client.end()));
    }
  },

  listen: async ({ sql }) => {
    const channel = `flowledger_doctor_${randomBytes(4).toString("hex")}`;
    const { promise: heard, resolve } = Promise.withResolvers<boolean>();
    const subscription = await sql.listen(channel, () => resolve(true));
    await sql.notify(channel, "");
    const isHeard = await withTimeout(heard, 2000, () => false);
    await subscription.unlisten();
    return isHeard
      ? ok("notifications arrive")
      : warn(
          "no notification within two seconds: waiting calls poll every two seconds instead",
          "connect directly, or through session pooling",
        );
  },

  workers: async ({ sql }) => {
    const [row] = await sql<[{ live: number; silent: number; flows: string[] | null; unserved: string[] | null }]>`
      with fleet as (select w.flows, w.heartbeat_at > flowledger.wall_clock() - interval '10 seconds' as live from flowledger.workers w)
      select (select count(*)::int from fleet where live) as live, (select count(*)::int from fleet where not live) as silent,
        (select json_agg(distinct f.flow) from fleet, unnest(fleet.flows) f(flow) where fleet.live and not starts_with(f.flow, 'flowledger.')) as flows,
        (select json_agg(distinct e.flow) from flowledger.executions e
          where e.closed_at is null and e.owner is null and e.wake_at < (select flowledger.now()) - interval '5 seconds'
            and not exists (select from fleet where fleet.live and e.flow = any(fleet.flows))) as unserved`;
    if (row.unserved)
      return fail(
        `no worker serves ${row.unserved.join(", ")}, and executions wait for it`,
        "start a worker that has these flows",
      );
    if (row.live === 0) return warn("no worker is alive", "start one: npx flowledger worker <module>");
    const detail = `${row.live} alive, serving ${row.flows?.join(", ") ?? "nothing"}`;
    return row.silent === 0
      ? ok(detail)
      : warn(`${detail}; ${row.silent} silent`, "wait ten seconds: the others give it up");
  },

  jobs: async ({ sql, names }) => {
    const [row] = await sql<[{ hidden: boolean; waiting: number; late: number | null; failed: number }]>`
      select ${hidesJobs(sql, names.jobs)} as hidden,
        count(*) filter (where j.is_available)::int as waiting, count(*) filter (where not j.is_available and j.locked_at is null)::int as failed,
        extract(epoch from max(flowledger.wall_clock() - j.run_at) filter (where j.is_available))::float8 as late
      from flowledger_jobs._private_jobs j join flowledger_jobs._private_tasks t on t.id = j.task_id
      where starts_with(t.identifier, 'flowledger:')`;
    if (row.hidden)
      return fail(
        "row level security hides all jobs from this role",
        "run select flowledger.grant_roles() as the owner",
      );
    const detail = `${row.waiting} jobs wait, ${row.failed} failed for good`;
    return (row.late ?? 0) > 30
      ? warn(`${detail}; one is ${Math.round(row.late ?? 0)} s late`, "start more workers, or one that serves its flow")
      : ok(detail);
  },

  vacuum: async ({ sql }) => {
    // Only superusers and members of pg_read_all_stats see this of other sessions.
    const [row] = await sql<{ who: string; age: number }[]>`
      select h.who, h.age from (
        select format('session %s ("%s", %s)', a.pid, a.application_name, a.state) as who,
          greatest(age(a.backend_xmin), age(a.backend_xid)) as age
        from pg_stat_activity a where a.datname = current_database() and a.pid <> pg_backend_pid()
        union all
        select format('prepared transaction "%s"', p.gid), age(p.transaction) from pg_prepared_xacts p where p.database = current_database()
        union all
        select format('replication slot "%s"', s.slot_name), age(s.xmin) from pg_replication_slots s
      ) h where h.age > ${manyTransactions}::int order by h.age desc limit 1`;
    return row
      ? warn(
          `${row.who} keeps what the last ${row.age} transactions left from being removed`,
          "end it: until then the tables grow, and every claim and commit gets slower",
        )
      : ok("nothing old keeps it from its work");
  },
};
