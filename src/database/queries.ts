/** Typed reads: claim and load, events after a seq, headers, lists. */
import { z } from "zod";
import type { FlowLimits } from "../flow/limits.ts";
import { ExecutionId, Outcome, WorkerId } from "../ledger/event.ts";
import { SerializedError } from "../base/errors.ts";
import type { Recorded } from "../ledger/event.ts";
import { evolve } from "../ledger/evolve.ts";
import { initialState, snapshotVersion, thawState } from "../ledger/state.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Json, JsonObject } from "../base/json.ts";
import { parseEvents } from "./append.ts";
import type { Queries, Sql } from "./connection.ts";

/** An execution that is ours to advance, as its ledger says it is. */
export interface Claim {
  readonly id: ExecutionId;
  readonly epoch: number;
  readonly token: string;
  readonly worker: WorkerId;
  readonly flow: string;
  readonly fingerprint: string | null;
  readonly state: ExecutionState;
  /** The database's time, milliseconds since 1970. */
  readonly now: number;
  /** Owners that were lost since the last progress. */
  readonly takeovers: number;
  /** Items in its stream. */
  readonly items: number;
}

interface ClaimRow {
  id: string;
  epoch: number;
  token: string;
  seq: number;
  flow: string;
  fingerprint: string | null;
  takeovers: number;
  now_ms: number;
  items: number;
  snapshot: JsonObject | null;
  events: unknown;
}

export interface BrokenClaim {
  readonly id: ExecutionId;
  readonly epoch: number;
  readonly seq: number;
}

export interface ClaimOptions {
  /** Whether to take one of those that lost several workers. @default true */
  takesSuspects?: boolean;
  /** By it the caller finds what was claimed, should the answer get lost. @default random */
  token?: string;
  /** Called with what was claimed and cannot be folded. @default throws */
  onBroken?: (broken: BrokenClaim, error: unknown) => void;
}

/** Claims what is free of the given executions; the others are somebody else's, not due, or closed. */
export async function claim(
  sql: Sql,
  workerId: WorkerId,
  ids: readonly ExecutionId[],
  options: ClaimOptions = {},
): Promise<Map<ExecutionId, Claim>> {
  const rows = await sql<ClaimRow[]>`
    select * from flowledger.claim(${workerId}::uuid, ${options.token ?? crypto.randomUUID()}::uuid, ${`{${ids.join(",")}}`}::text::uuid[], ${snapshotVersion}::int, ${options.takesSuspects ?? true}::boolean)`;
  return foldClaims(rows, workerId, options);
}

/** Room for one execution of a limited flow: the one that a job asks for, or whoever is first in line. */
export interface Ticket {
  readonly flow: string;
  /** A job came for it. */
  readonly id: ExecutionId | null;
  /** It left its place: closed, or given back. */
  readonly left: ExecutionId | null;
  /** Without room the place is offered to the other workers. */
  readonly hasRoom: boolean;
}

/** Claims for tickets what the limits of their flows allow; also executions that nobody has asked for. */
export async function claimLimited(
  sql: Sql,
  workerId: WorkerId,
  tickets: readonly Ticket[],
  options: ClaimOptions = {},
): Promise<Map<ExecutionId, Claim>> {
  const flows = new Map<string, number>();
  for (const { flow, hasRoom } of tickets) flows.set(flow, (flows.get(flow) ?? 0) + (hasRoom ? 1 : 0));
  const list = (ids: readonly (ExecutionId | null)[]) => `{${ids.filter((id) => id !== null).join(",")}}`;
  const rows = await sql<ClaimRow[]>`
    select * from flowledger.claim_limited(${workerId}::uuid, ${options.token ?? crypto.randomUUID()}::uuid,
      ${list(tickets.map(({ id }) => id))}::text::uuid[], ${list(tickets.map(({ left }) => left))}::text::uuid[],
      ${`{${[...flows.keys()].map((flow) => `"${flow}"`).join(",")}}`}::text::text[], ${`{${[...flows.values()].join(",")}}`}::text::int[],
      ${snapshotVersion}::int, ${options.takesSuspects ?? true}::boolean)`;
  return foldClaims(rows, workerId, options);
}

function foldClaims(rows: readonly ClaimRow[], workerId: WorkerId, options: ClaimOptions): Map<ExecutionId, Claim> {
  const claims = new Map<ExecutionId, Claim>();
  for (const row of rows) {
    const id = row.id as ExecutionId;
    let state: ExecutionState;
    try {
      state = foldFrom(row.snapshot, parseEvents(row.events));
    } catch (error) {
      // One ledger that cannot be folded must not take the others with it.
      if (!options.onBroken) throw error;
      options.onBroken({ id, epoch: row.epoch, seq: row.seq }, error);
      continue;
    }
    const { epoch, token, flow, fingerprint, takeovers, now_ms: now, items } = row;
    claims.set(id, { id, epoch, token, worker: workerId, flow, fingerprint, state, now, takeovers, items });
  }
  return claims;
}

/** A claim whose answer was lost. */
export interface LostClaim {
  readonly token: string;
  readonly ids: readonly ExecutionId[];
  /** Flows with limits, of which it may have taken others. */
  readonly flows: readonly string[];
}

/** Frees what a claim took whose answer was lost. Waits for the claim's own transaction, should that still run. */
export async function freeClaim(sql: Sql, lost: LostClaim): Promise<number> {
  const freed = await sql<{ id: ExecutionId }[]>`
    with locked as materialized (
      select e.id, e.token, e.owner from flowledger.executions e
      where e.id = any(array(
        select unnest(${`{${lost.ids.join(",")}}`}::text::uuid[])
        union
        select p.execution_id from unnest(${`{${lost.flows.map((flow) => `"${flow}"`).join(",")}}`}::text::text[]) f(flow)
        join flowledger.places p on p.flow = f.flow
        where p.held))
      order by e.id for no key update
    )
    update flowledger.executions e set owner = null, wake_at = clock_timestamp()
    from locked where e.id = locked.id and locked.token = ${lost.token}::uuid and locked.owner is not null
    returning e.id`;
  // Their jobs are done: those that the claim did not take need a new one as well.
  await sql`select flowledger.add_jobs(${`{${lost.ids.join(",")}}`}::text::uuid[])`;
  return freed.length;
}

/** What a worker owns by the database. */
export function listOwned(sql: Sql, worker: WorkerId): Promise<readonly { id: ExecutionId; token: string }[]> {
  return sql<{ id: ExecutionId; token: string }[]>`
    select e.id, e.token from flowledger.executions e where e.owner = ${worker}::uuid and e.wake_at is not null`;
}

/** What is due and free for at least `ageMs`, longest first: its job waits in the queue of a worker that is busy. */
export async function listDue(
  sql: Sql,
  flows: readonly string[],
  ageMs: number,
  limit: number,
): Promise<readonly { id: ExecutionId; flow: string }[]> {
  return sql<{ id: ExecutionId; flow: string }[]>`
    select e.id, e.flow from flowledger.executions e
    where e.wake_at < clock_timestamp() - ${ageMs}::float8 * interval '1 millisecond' and e.owner is null and e.closed_at is null
      and e.flow in (select json_array_elements_text(${JSON.stringify(flows)}::text::json))
    order by e.wake_at limit ${limit}::int`;
}

/** Fold from a snapshot, or from the beginning. */
export function foldFrom(snapshot: JsonObject | null, events: readonly Recorded[]): ExecutionState {
  let state = snapshot ? thawState(snapshot) : initialState();
  for (const event of events) state = evolve(state, event);
  return state;
}

/** Ledger events of several executions, each after a seq of its own. */
export async function readEvents(
  sql: Sql,
  asked: readonly { readonly id: ExecutionId; readonly after: number }[],
): Promise<(readonly Recorded[])[]> {
  const rows = await sql<{ events: unknown }[]>`
    select flowledger.events(a.id, a.after) as events
    from unnest(${`{${asked.map(({ id }) => id).join(",")}}`}::text::uuid[], ${`{${asked.map(({ after }) => after).join(",")}}`}::text::int[])
      with ordinality as a(id, after, ord)
    order by a.ord`;
  return rows.map(({ events }) => parseEvents(events));
}

/** Is there anything of it, with or without a header? */
export async function hasLedger(sql: Sql, id: ExecutionId): Promise<boolean> {
  const [row] = await sql<[{ there: boolean }]>`
    select exists (select from flowledger.ledger where execution_id = ${id}::uuid)
      or exists (select from flowledger.executions where id = ${id}::uuid) as there`;
  return row.there;
}

/** The folded state of one execution now; null when there is none. */
export async function loadState(sql: Sql, id: ExecutionId): Promise<ExecutionState | null> {
  const [row] = await sql<{ snapshot: JsonObject | null; events: unknown }[]>`
    select s.state as snapshot, flowledger.events(e.id, coalesce(s.seq, 0)) as events
    from flowledger.executions e
    left join flowledger.snapshots s on s.execution_id = e.id and s.version = ${snapshotVersion}::int
    where e.id = ${id}::uuid`;
  return row ? foldFrom(row.snapshot, parseEvents(row.events)) : null;
}

/** The ledger after a seq, in order; only some types where they are named. */
export async function readHistory(
  sql: Sql,
  id: ExecutionId,
  after: number,
  types: readonly string[] | null,
): Promise<Recorded[]> {
  const [row] = await sql<{ events: unknown }[]>`select flowledger.events(${id}::uuid, ${after}::int) as events`;
  const events = parseEvents(row?.events ?? []);
  return types === null ? events : events.filter(({ event }) => types.includes(event.type));
}

export const Header = z.object({
  id: ExecutionId,
  seq: z.int(),
  flow: z.string(),
  fingerprint: z.string().nullable(),
  status: z.enum(["created", "running", "waiting", "completed", "failed", "cancelled"]),
  lifecycle: z.enum(["open", "sealed", "closed"]),
  owner: WorkerId.nullable(),
  outcome: Outcome.nullable(),
  closeReason: z.string().nullable(),
  pendingInterrupts: z.int(),
  parentId: ExecutionId.nullable(),
  metadata: z.record(z.string(), z.custom<Json>()).nullable(),
  error: SerializedError.nullable(),
  closeSnapshot: z.record(z.string(), z.custom<Json>()).nullable(),
  createdAt: z.number(),
  startedAt: z.number().nullable(),
  sealedAt: z.number().nullable(),
  closedAt: z.number().nullable(),
});
export type Header = z.infer<typeof Header>;

export async function readHeaders(sql: Sql, ids: readonly ExecutionId[]): Promise<Map<ExecutionId, Header>> {
  const rows = await sql`
    select ${headerColumns(sql)}
    from unnest(${`{${ids.join(",")}}`}::text::uuid[]) a(id) join flowledger.executions e on e.id = a.id`;
  return new Map(rows.map((row) => Header.parse(row)).map((header) => [header.id, header]));
}

/** Those that are closed, or that do not exist and never will: the transaction that was to create them has ended. */
export async function findOver(
  sql: Sql,
  asked: readonly { readonly id: ExecutionId; readonly transaction: string | null }[],
): Promise<ExecutionId[]> {
  const transactions = asked.flatMap(({ transaction }) => transaction ?? []);
  // Asked before the rows are looked for: one that ends in between must not pass for rolled back.
  const open = await sql<{ transaction: string }[]>`
    select x as transaction from unnest(${`{${transactions.join(",")}}`}::text::text[]) x
    where pg_xact_status(x::xid8) = 'in progress'`;
  const isOpen = new Set(open.map(({ transaction }) => transaction));
  const settled = asked.filter(({ transaction }) => transaction === null || !isOpen.has(transaction));
  return sql<{ id: ExecutionId }[]>`
    select a.id from unnest(${`{${settled.map(({ id }) => id).join(",")}}`}::text::uuid[]) as a(id)
    left join flowledger.executions e on e.id = a.id
    where e.id is null or e.closed_at is not null`.then((rows) => rows.map(({ id }) => id));
}

/** Names the transaction that `findOver` asks for. */
export async function currentTransaction(tx: Queries): Promise<string> {
  const [row] = await tx<[{ transaction: string }]>`select pg_current_xact_id()::text as transaction`;
  return row.transaction;
}

export interface ListFilter {
  flow?: string;
  status?: readonly string[];
  metadata?: JsonObject;
  createdAfter?: Date;
  cursor?: ExecutionId;
  limit: number;
}

/** Newest first; the cursor is the last id of the page before. */
export async function listHeaders(sql: Sql, filter: ListFilter): Promise<Header[]> {
  const rows = await sql`
    select ${headerColumns(sql)} from flowledger.executions e
    where true
      ${filter.flow === undefined ? sql`` : sql`and e.flow = ${filter.flow}`}
      ${filter.status === undefined ? sql`` : sql`and e.status = any(${`{${filter.status.join(",")}}`}::text::text[])`}
      ${filter.metadata === undefined ? sql`` : sql`and e.metadata is not null and e.metadata @> ${JSON.stringify(filter.metadata)}::text::jsonb`}
      ${filter.createdAfter === undefined ? sql`` : sql`and e.created_at > ${filter.createdAfter.toISOString()}::text::timestamptz`}
      ${filter.cursor === undefined ? sql`` : sql`and e.id < ${filter.cursor}::uuid`}
    order by e.id desc
    limit ${filter.limit}::int`;
  return rows.map((row) => Header.parse(row));
}

function headerColumns(sql: Sql) {
  return sql`e.id, e.seq, e.flow, e.fingerprint, e.status, e.lifecycle, e.owner, e.outcome, e.close_reason as "closeReason",
    e.pending_interrupts as "pendingInterrupts", e.parent_id as "parentId", e.metadata, e.error, e.close_snapshot as "closeSnapshot",
    flowledger.to_ms(e.created_at) as "createdAt", flowledger.to_ms(e.started_at) as "startedAt",
    flowledger.to_ms(e.sealed_at) as "sealedAt", flowledger.to_ms(e.closed_at) as "closedAt"`;
}

export interface InterruptFilter {
  flow?: string;
  type?: string;
  metadata?: JsonObject;
  olderThan?: Date;
  /** Ids of the last record of the page before. */
  cursor?: { readonly executionId: ExecutionId; readonly id: string };
  limit: number;
}

/** Pending interrupts, oldest first, each as `flowledger.interrupt_record` gives it. */
export async function listInterrupts(sql: Sql, filter: InterruptFilter): Promise<Json[]> {
  const { flow, type, metadata, olderThan, cursor, limit } = filter;
  const rows = await sql<{ record: Json }[]>`
    select flowledger.interrupt_record(i.execution_id, i.id) as record
    from flowledger.interrupts i
    where i.status = 'pending'
      ${flow === undefined ? sql`` : sql`and i.flow = ${flow}`}
      ${type === undefined ? sql`` : sql`and i.type = ${type}`}
      ${olderThan === undefined ? sql`` : sql`and i.created_at < ${olderThan.toISOString()}::text::timestamptz`}
      ${
        metadata === undefined
          ? sql``
          : sql`and exists (select 1 from flowledger.executions e where e.id = i.execution_id and e.metadata @> ${JSON.stringify(metadata)}::text::jsonb)`
      }
      ${
        cursor === undefined
          ? sql``
          : sql`and (i.created_at, i.execution_id, i.id) > (
              select c.created_at, c.execution_id, c.id from flowledger.interrupts c
              where c.execution_id = ${cursor.executionId}::uuid and c.id = ${cursor.id})`
      }
    order by i.created_at, i.execution_id, i.id
    limit ${limit}::int`;
  return rows.map(({ record }) => record);
}

/** Interrupts that wait in an execution and in its sub-flows, oldest first, each as the execution shows it. */
export async function readPendingInterrupts(sql: Sql, id: ExecutionId): Promise<Json[]> {
  const rows = await sql<{ record: Json }[]>`
    select flowledger.projected_record(${id}::uuid, p.owner_id, p.local_id) as record
    from flowledger.pending_on(${id}::uuid) p
    order by p.created_at, p.owner_id, p.local_id`;
  return rows.map(({ record }) => record);
}

/** What an answer to the interrupt must be, as JSON Schema; null is any JSON, or no such interrupt. */
export async function readResponseSchema(sql: Sql, id: ExecutionId, interrupt: string): Promise<Json> {
  const [row] = await sql<{ response: Json }[]>`
    select coalesce(i.response, s.response) as response
    from (select flowledger.projected_owner(${id}::uuid, ${interrupt}) as id) owner
    left join flowledger.interrupts i on i.execution_id = ${id}::uuid and i.id = ${interrupt}
    left join flowledger.interrupts s on i.id is null and s.execution_id = owner.id and s.id = substr(${interrupt}, 38)`;
  return row?.response ?? null;
}

export interface FrameRow {
  readonly id: ExecutionId;
  readonly flow: string;
  readonly node: string;
  readonly outcome: Outcome | null;
  readonly isWaiting: boolean;
  readonly input: Json;
  readonly resourceKeys: readonly string[] | null;
  readonly snapshot: JsonObject | null;
  readonly error: SerializedError | null;
  readonly cancelReason: string | null;
  readonly isCancelled: boolean;
  readonly createdAt: number;
  readonly startedAt: number | null;
  readonly endedAt: number | null;
  readonly interrupts: readonly Json[];
}

/** The sub-flows of an execution, in the order in which they began. */
export async function readFrames(sql: Sql, id: ExecutionId): Promise<FrameRow[]> {
  return sql<FrameRow[]>`
    with told as materialized (
      select l.payload ->> 'child' as child,
        max(l.chunk) filter (where l.type = 'child.started') as node,
        max(l.payload ->> 'reason') filter (where l.type = 'child.cancelled') as reason,
        bool_or(l.type = 'child.cancelled') as cancelled
      from flowledger.ledger l
      where l.execution_id = ${id}::uuid and l.type in ('child.started', 'child.cancelled')
      group by l.payload ->> 'child'
    )
    select c.id, c.flow, t.node, c.outcome, c.pending_interrupts > 0 as "isWaiting", s.payload -> 'input' as input,
      b.payload -> 'resourceKeys' as "resourceKeys", c.close_snapshot as snapshot, c.error,
      coalesce(t.reason, case when c.outcome = 'cancelled' then c.close_reason end) as "cancelReason", t.cancelled as "isCancelled",
      flowledger.to_ms(c.created_at) as "createdAt", flowledger.to_ms(c.started_at) as "startedAt", flowledger.to_ms(c.closed_at) as "endedAt",
      coalesce((select json_agg(flowledger.projected_record(${id}::uuid, p.owner_id, p.local_id) order by p.created_at)
        from flowledger.pending_on(c.id) p), '[]') as interrupts
    from told t
    join flowledger.executions c on c.id = t.child::uuid and c.parent_id = ${id}::uuid
    join flowledger.ledger b on b.execution_id = c.id and b.seq = 1 and b.payload -> 'parent' ? 'visibleIn'
    left join flowledger.ledger s on s.execution_id = c.id and s.seq = 2 and s.type = 'execution.started'
    order by c.created_at, c.id`;
}

/** Tells the parents and children of closed executions; who is told already is not told again. */
export async function settleFamilies(sql: Sql, ids: readonly ExecutionId[]): Promise<void> {
  await sql`select flowledger.settle_families(${`{${ids.join(",")}}`}::text::uuid[])`;
}

/** The same for all that should have been told so long ago. */
export async function settleOverdue(sql: Sql, sinceMs: number): Promise<void> {
  await sql`select flowledger.settle_families('{}', ${`${sinceMs} ms`}::text::interval)`;
}

/** The nodes of a definition that ran here once; null when nobody kept it. */
export async function readDefinition(sql: Sql, flow: string, fingerprint: string): Promise<unknown> {
  const [row] = await sql<{ blueprint: unknown }[]>`
    select blueprint from flowledger.definitions where flow = ${flow} and fingerprint = ${fingerprint}`;
  return row?.blueprint ?? null;
}

/** Why no worker could go on with an execution, when that is the last thing that happened to it. */
export async function readBlocked(sql: Sql, id: ExecutionId): Promise<string | null> {
  const [row] = await sql<{ type: string; problem: string | null }[]>`
    select type, payload ->> 'problem' as problem from flowledger.ledger
    where execution_id = ${id}::uuid order by seq desc limit 1`;
  return row?.type === "execution.blocked" ? row.problem : null;
}

/** Flows that a live worker serves. */
/**
 * Frees what lost workers own, and with `sweepMs` gives what has been due for longer and has no job a new one. Lost is who
 * missed a beat and has no lock any more, or was silent for `silentMs`.
 */
export async function tend(sql: Sql, missedMs: number, silentMs: number, sweepMs: number | null): Promise<void> {
  const [missed, silent] = [`${missedMs} ms`, `${silentMs} ms`];
  const sweep = sweepMs === null ? null : `${sweepMs} ms`;
  await sql`select * from flowledger.tend(${missed}::text::interval, ${silent}::text::interval, ${sweep}::text::interval)`;
}

/** Gives the jobs that graphile-worker locked under this name back. */
export async function unlockJobs(sql: Sql, pool: string | null): Promise<void> {
  await sql`select graphile_worker.force_unlock_workers(${`{${pool}}`}::text::text[])`;
}

/** Keeps the name that graphile-worker locks the jobs of a worker with. */
export async function keepPool(sql: Sql, worker: WorkerId, pool: string | null): Promise<void> {
  await sql`update flowledger.workers set pool = ${pool} where id = ${worker}::uuid`;
}

/** Whether this database is where it was migrated or adopted, and not a copy. */
export async function isHome(sql: Sql): Promise<boolean> {
  const [row] = await sql<[{ home: boolean }]>`select flowledger.is_home() as home`;
  return row.home;
}

/** A condition: row level security hides all jobs from this role, because no policy is for it (RELIABILITY V5). */
export function jobsAreHidden(sql: Sql) {
  return sql`row_security_active('graphile_worker._private_jobs') and not exists (
    select from pg_policies p, unnest(p.roles) r(name) where p.schemaname = 'graphile_worker' and p.tablename = '_private_jobs'
      and case when r.name = 'public' then true else pg_has_role(r.name, 'usage') end)`;
}

export async function isServed(sql: Sql, flow: string): Promise<boolean> {
  const [row] = await sql<[{ served: boolean }]>`
    select exists (select 1 from flowledger.workers w
      where w.flows @> array[${flow}::text] and w.heartbeat_at > clock_timestamp() - interval '15 seconds') as served`;
  return row.served;
}

export async function readFlowData(sql: Queries, flow: string, key: string): Promise<Json | undefined> {
  const [row] = await sql<
    { value: Json }[]
  >`select value from flowledger.flow_data where flow = ${flow} and key = ${key}`;
  return row?.value;
}

export async function writeFlowData(sql: Queries, flow: string, key: string, value: Json): Promise<void> {
  await sql`
    insert into flowledger.flow_data as d (flow, key, value) values (${flow}, ${key}, ${JSON.stringify(value)}::text::jsonb)
    on conflict (flow, key) do update set value = excluded.value, version = d.version + 1, updated_at = now()`;
}

/** A missing list becomes `[value]`, a list grows, anything else becomes `[old, value]`. */
export async function appendFlowData(sql: Queries, flow: string, key: string, value: Json): Promise<void> {
  await sql`
    insert into flowledger.flow_data as d (flow, key, value) values (${flow}, ${key}, jsonb_build_array(${JSON.stringify(value)}::text::jsonb))
    on conflict (flow, key) do update set
      value = case jsonb_typeof(d.value) when 'array' then d.value else jsonb_build_array(d.value) end || excluded.value,
      version = d.version + 1, updated_at = now()`;
}

export async function deleteFlowData(sql: Queries, flow: string, key: string): Promise<void> {
  await sql`delete from flowledger.flow_data where flow = ${flow} and key = ${key}`;
}

/** Declares the limits of the flows that a worker serves; those of its flows without any have none any more. */
export async function keepLimits(
  sql: Sql,
  flows: Iterable<{ name: string; limits: FlowLimits | null }>,
): Promise<void> {
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
    select flowledger.keep_limits(${`{${served.map(({ name }) => `"${name}"`).join(",")}}`}::text::text[], ${JSON.stringify(limits)}::text::jsonb)`;
}

/** Keeps the blueprint of each definition that ever ran here, so that an audit can read what the flow looked like. */
export async function keepDefinitions(
  sql: Sql,
  definitions: readonly { flow: string; fingerprint: string; blueprint: unknown }[],
): Promise<void> {
  await sql`
    insert into flowledger.definitions (flow, fingerprint, blueprint)
    select d.flow, d.fingerprint, d.blueprint
    from jsonb_to_recordset(${JSON.stringify(definitions)}::text::jsonb) as d(flow text, fingerprint text, blueprint jsonb)
    on conflict do nothing`;
}
