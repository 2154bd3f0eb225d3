/** What the console asks: each statement reads a bounded piece, by indexes, and ends after five seconds. */
import { z } from "zod";
import type { Json, JsonObject } from "../base/json.ts";
import { ExecutionId, WorkerId } from "../ledger/event.ts";
import { lookedUp } from "./bounded.ts";
import type { Database } from "./client.ts";
import { list } from "./columns.ts";

/** An event as it is stored: also one that this version cannot read. */
export const StoredEvent = z.object({
  seq: z.int(),
  at: z.date(),
  type: z.string(),
  dispatch: z.int().nullable(),
  chunk: z.string().nullable(),
  actor: z.string().nullable(),
  /** Null where there is none, and where it is longer than was asked for. */
  payload: z.record(z.string(), z.custom<Json>()).nullable(),
  /** As it is stored, compressed. */
  bytes: z.int(),
});
export type StoredEvent = z.infer<typeof StoredEvent>;

export interface LedgerPage {
  /** Only events before this one. */
  readonly before: number | null;
  /** Only these types; null is all. */
  readonly types: readonly string[] | null;
  readonly limit: number;
  /** Longer payloads stay where they are. */
  readonly bytes: number;
  /** Only events from this one on. */
  readonly from: number;
}

/** What is known of a flow, over executions that are not closed; 1001 is more than 1000. */
export const FlowInUse = z.object({
  flow: z.string(),
  open: z.record(z.string(), z.int()),
  failed: z.int(),
  /** Open executions by the definition that they run under. */
  versions: z.array(z.object({ fingerprint: z.string().nullable(), executions: z.int() })),
  limits: z
    .object({
      concurrency: z.int().nullable(),
      rate: z.int().nullable(),
      rateMs: z.number().nullable(),
      keyConcurrency: z.int().nullable(),
      keyRate: z.int().nullable(),
      keyRateMs: z.number().nullable(),
    })
    .nullable(),
  queued: z.int(),
  workers: z.int(),
  paused: z
    .object({ intake: z.enum(["hold", "refuse"]), actor: z.string(), reason: z.string(), at: z.string() })
    .nullable(),
});
export type FlowInUse = z.infer<typeof FlowInUse>;

export const KnownWorker = z.object({
  id: WorkerId,
  host: z.string(),
  pid: z.int(),
  role: z.string(),
  flows: z.array(z.string()),
  /** Of each flow the fingerprint that it runs. */
  versions: z.record(z.string(), z.string()),
  /** How many executions it advances at once; null for a worker of an older release. */
  slots: z.int().nullable(),
  startedAt: z.date(),
  heartbeatAt: z.date(),
  silentMs: z.number(),
});
export type KnownWorker = z.infer<typeof KnownWorker>;

export const KnownSchedule = z.object({
  name: z.string(),
  flow: z.string(),
  cron: z.string(),
  timeZone: z.string(),
  firedUntil: z.date(),
  lastId: ExecutionId.nullable(),
  waiting: z.int(),
  removedAt: z.date().nullable(),
  now: z.date(),
});
export type KnownSchedule = z.infer<typeof KnownSchedule>;

/** Who did something last, and when. */
export interface LastDone {
  readonly type: string;
  readonly actor: string | null;
  readonly at: Date;
}

export interface ConsoleReads {
  /** Those of them whose metadata contain this; null is any that exist. */
  within(ids: readonly ExecutionId[], metadata: JsonObject | null): Promise<Set<ExecutionId>>;
  explain(id: ExecutionId): Promise<unknown>;
  /** The newest first. */
  ledger(id: ExecutionId, page: LedgerPage): Promise<StoredEvent[]>;
  /** One event with all of its payload, as JSON text; null when there is none. */
  payload(id: ExecutionId, seq: number): Promise<string | null>;
  /** How it was created and started. */
  beginnings(id: ExecutionId, bytes: number): Promise<StoredEvent[]>;
  /** As `flowledger.interrupt_record` gives it, or as one of a sub-flow shows; null when the execution never had it. */
  interrupt(id: ExecutionId, interruptId: string): Promise<Json>;
  /** The last of what people did to an execution. */
  lastDone(id: ExecutionId, types: readonly string[]): Promise<LastDone | null>;
  flows(metadata: JsonObject | null, limit: number): Promise<FlowInUse[]>;
  workers(limit: number): Promise<KnownWorker[]>;
  schedules(limit: number): Promise<KnownSchedule[]>;
}

export function consoleReadsOf({ sql }: Pick<Database, "sql">): ConsoleReads {
  return {
    async within(ids, metadata) {
      const asked = list(ids);
      const rows = await lookedUp(
        sql<{ id: ExecutionId }[]>`
          select e.id from unnest(${asked}::text::uuid[]) a(id) join flowledger.executions e on e.id = a.id
          ${metadata === null ? sql`` : sql`where e.metadata @> ${JSON.stringify(metadata)}::text::jsonb`}`,
        "id",
      );
      return new Set(rows.map(({ id }) => id));
    },
    async explain(id) {
      const [row] = await lookedUp(
        sql<{ explanation: unknown }[]>`select flowledger.explain(${id}::uuid) as explanation`,
        "id",
      );
      return row?.explanation;
    },
    async ledger(id, { before, types, limit, bytes, from }) {
      const rows = await lookedUp(
        sql`
          select l.seq, l.at, l.type, l.dispatch, l.chunk, l.actor, coalesce(pg_column_size(l.payload), 0) as bytes,
            case when pg_column_size(l.payload) <= ${bytes}::int then l.payload - 'moves' end as payload
          from flowledger.ledger l
          where l.execution_id = ${id}::uuid and l.seq >= ${from}::int ${before === null ? sql`` : sql`and l.seq < ${before}::int`}
            ${types === null ? sql`` : sql`and l.type = any(${list(types)}::text::text[])`}
          order by l.seq desc limit ${limit}::int`,
        "ledger",
      );
      return rows.map((row) => StoredEvent.parse(row));
    },
    async payload(id, seq) {
      const [row] = await lookedUp(
        sql<{ payload: string | null }[]>`
          select (l.payload - 'moves')::text as payload from flowledger.ledger l where l.execution_id = ${id}::uuid and l.seq = ${seq}::int`,
        "payload",
      );
      return row?.payload ?? null;
    },
    async beginnings(id, bytes) {
      const rows = await lookedUp(
        sql`
          select l.seq, l.at, l.type, l.dispatch, l.chunk, l.actor, coalesce(pg_column_size(l.payload), 0) as bytes,
            case when pg_column_size(l.payload) <= ${bytes}::int then l.payload - 'moves' end as payload
          from flowledger.ledger l
          where l.execution_id = ${id}::uuid and l.seq <= 1000 and l.type in ('execution.created', 'execution.started')
          order by l.seq limit 2`,
        "ledger",
      );
      return rows.map((row) => StoredEvent.parse(row));
    },
    async interrupt(id, interruptId) {
      const [row] = await lookedUp(
        sql<{ record: Json }[]>`
          select coalesce(flowledger.interrupt_record(${id}::uuid, ${interruptId}),
            flowledger.projected_record(${id}::uuid, flowledger.projected_owner(${id}::uuid, ${interruptId}), substr(${interruptId}, 38))) as record`,
        "id",
      );
      return row?.record ?? null;
    },
    async lastDone(id, types) {
      const [row] = await lookedUp(
        sql<LastDone[]>`
          select r.type, r.actor, r.at from (
            select l.seq, l.type, l.actor, l.at from flowledger.ledger l where l.execution_id = ${id}::uuid order by l.seq desc limit 1000) r
          where r.type = any(${list(types)}::text::text[]) order by r.seq desc limit 1`,
        "id",
      );
      return row ?? null;
    },
    async flows(metadata, limit) {
      // What a person does not see is not counted either: theirs first, as the index of metadata has them.
      const theirs =
        metadata === null
          ? sql``
          : sql`with theirs as materialized (
              select e.flow, e.status, e.fingerprint from flowledger.executions e
              where e.metadata @> ${JSON.stringify(metadata)}::text::jsonb order by e.id desc limit 20000)`;
      const of = metadata === null ? sql`flowledger.executions e` : sql`theirs e`;
      const rows = await lookedUp(
        sql`
          ${theirs}
          select f.flow,
            (select jsonb_object_agg(s.status, c.count) from unnest(array['created', 'running', 'waiting', 'parked']) s(status)
              cross join lateral (select count(*) from (
                select from ${of} where e.flow = f.flow and e.status = s.status limit 1001) x) c) as open,
            (select count(*)::int from (select from ${of} where e.flow = f.flow and e.status = 'failed' limit 1001) x) as failed,
            (select coalesce(jsonb_agg(jsonb_build_object('fingerprint', v.fingerprint, 'executions', v.count) order by v.count desc), '[]') from (
              select x.fingerprint, count(*) from (
                select e.fingerprint from unnest(array['created', 'running', 'waiting', 'parked']) s(status)
                cross join lateral (select e.fingerprint from ${of} where e.flow = f.flow and e.status = s.status limit 1001) e) x
              group by x.fingerprint order by count(*) desc limit 20) v) as versions,
            (select jsonb_build_object('concurrency', l.concurrency, 'rate', l.rate, 'rateMs', l.rate_ms, 'keyConcurrency', l.key_concurrency,
              'keyRate', l.key_rate, 'keyRateMs', l.key_rate_ms) from flowledger.limits l where l.flow = f.flow) as limits,
            ${
              metadata === null
                ? sql`(select count(*)::int from (select from flowledger.slots s where s.flow = f.flow and not s.acquired limit 1001) q)`
                : sql`0`
            } as queued,
            (select count(*)::int from flowledger.workers w
              where w.flows @> array[f.flow] and w.heartbeat_at > flowledger.wall_clock() - interval '15 seconds') as workers,
            (select jsonb_build_object('intake', p.intake, 'actor', p.actor, 'reason', p.reason, 'at', flowledger.iso(p.at))
              from (select x.* from flowledger.flow_pauses x where x.flow = f.flow order by x.number desc limit 1) p where p.intake is not null) as paused
          from (select d.flow from flowledger.definitions d union select unnest(w.flows) from flowledger.workers w) f(flow)
          ${metadata === null ? sql`` : sql`where exists (select from ${of} where e.flow = f.flow)`}
          order by f.flow limit ${limit}::int`,
        "flow",
      );
      return rows.map((row) => FlowInUse.parse(row));
    },
    async workers(limit) {
      const rows = await lookedUp(
        sql`
          select w.id, w.host, w.pid, w.role, to_jsonb(w.flows) as flows,
            (select coalesce(jsonb_object_agg(v.flow, v.fingerprint), '{}') from unnest(w.flows, w.fingerprints) v(flow, fingerprint)
             where v.fingerprint is not null) as versions,
            w.slots,
            w.started_at as "startedAt", w.heartbeat_at as "heartbeatAt",
            (extract(epoch from flowledger.wall_clock() - w.heartbeat_at) * 1000)::float8 as "silentMs"
          from flowledger.workers w order by w.started_at desc, w.id limit ${limit}::int`,
        "workers",
      );
      return rows.map((row) => KnownWorker.parse(row));
    },
    async schedules(limit) {
      const rows = await lookedUp(
        sql`
          select s.name, s.flow, s.cron, s.time_zone as "timeZone", s.fired_until as "firedUntil", s.last_id as "lastId",
            cardinality(s.waiting) as waiting, s.removed_at as "removedAt", flowledger.now() as now
          from flowledger.schedules s order by s.name limit ${limit}::int`,
        "schedules",
      );
      return rows.map((row) => KnownSchedule.parse(row));
    },
  };
}
