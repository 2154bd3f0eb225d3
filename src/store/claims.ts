/** A worker comes to own executions: those it asks for, or those whose turn it is. */
import type { JsonObject } from "../base/json.ts";
import { foldFrom, parseEvents } from "../ledger/codec.ts";
import type { ExecutionId, WorkerId } from "../ledger/event.ts";
import { snapshotVersion } from "../ledger/state.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Database, Sql } from "./client.ts";
import { column, list, statement } from "./columns.ts";

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
  /** Bytes of JSON that were folded, and of the snapshot that the fold began with. */
  readonly bytes: number;
  readonly snapshotBytes: number;
}

export interface BrokenClaim {
  readonly id: ExecutionId;
  readonly epoch: number;
  readonly seq: number;
}

export interface ClaimOptions {
  /** Whether to take one of those that lost several workers. @default true */
  takesPoisonSuspects?: boolean;
  /** By it the caller finds what was claimed, should the answer get lost. @default random */
  token?: string;
  /** Called with what was claimed and cannot be folded. @default throws */
  onBroken?: (broken: BrokenClaim, error: unknown) => void;
}

/** Room for one execution of a limited flow: the one that a job asks for, or the first of the queue. */
export interface SlotRequest {
  readonly flow: string;
  /** A job came for it. */
  readonly id: ExecutionId | null;
  /** It left its slot: closed, or given back. */
  readonly left: ExecutionId | null;
  /** Without room the slot is offered to the other workers. */
  readonly hasRoom: boolean;
}

/** A claim whose answer was lost. */
export interface LostClaim {
  readonly token: string;
  readonly ids: readonly ExecutionId[];
  /** Flows with limits, of which it may have taken others. */
  readonly flows: readonly string[];
  /** An owner was there, and was lost in the middle of what it ran. */
  readonly hasBegun: boolean;
}

export interface Claims {
  /** Claims what is free of the given executions; the others are somebody else's, not due, or closed. */
  claim(worker: WorkerId, ids: readonly ExecutionId[], options?: ClaimOptions): Promise<Map<ExecutionId, Claim>>;
  /** Claims for requests what the limits of their flows allow; also executions that nobody has asked for. */
  claimLimited(
    worker: WorkerId,
    requests: readonly SlotRequest[],
    options?: ClaimOptions,
  ): Promise<Map<ExecutionId, Claim>>;
  /** Frees what a claim took whose answer, or whose owner, was lost, and says how many. Waits for the claim's own transaction, should that still run. */
  free(lost: LostClaim): Promise<number>;
  /** What a worker owns by the database. */
  listOwned(worker: WorkerId): Promise<readonly { id: ExecutionId; token: string }[]>;
  /** What is due and free for at least `ageMs`, longest first: its job waits in the queue of a worker that is busy. */
  listDue(flows: readonly string[], ageMs: number, limit: number): Promise<readonly DueExecution[]>;
  /** The longest due of each flow. */
  firstDue(flows: readonly string[], ageMs: number): Promise<readonly DueExecution[]>;
  /** Wakes executions that are parked and have something to look at. */
  wake(ids: readonly ExecutionId[]): Promise<void>;
  /** Wakes what is blocked and was not tried with this version of its flow. */
  wakeBlocked(versions: readonly { readonly flow: string; readonly fingerprint: string }[]): Promise<void>;
  /** Whether a worker serves the flow in another version than these. */
  hasOtherVersion(flow: string, fingerprints: readonly string[]): Promise<boolean>;
}

export interface DueExecution {
  readonly id: ExecutionId;
  readonly flow: string;
  readonly priority: number;
}

/** A claim as the database gives it. */
export interface ClaimRow {
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

export function claimsOf({ sql }: Pick<Database, "sql">): Claims {
  return {
    async claim(worker, ids, options = {}) {
      const rows = await sql<ClaimRow[]>`
        select * from flowledger.claim(${worker}::uuid, ${options.token ?? crypto.randomUUID()}::uuid, ${list(ids)}::text::uuid[],
          ${snapshotVersion}::int, ${options.takesPoisonSuspects ?? true}::boolean)`;
      return foldClaims(sql, rows, worker, options);
    },
    async claimLimited(worker, requests, options = {}) {
      const rows = await sql<ClaimRow[]>(claimsLimited, ...claimedLimited(worker, requests, options));
      return foldClaims(sql, rows, worker, options);
    },
    async free({ token, ids, flows, hasBegun }) {
      const [row] = await sql<[{ freed: number }]>`
        select flowledger.free_claim(${token}::uuid, ${list(ids)}::text::uuid[], ${list(flows)}::text::text[], ${hasBegun}::boolean) as freed`;
      return row.freed;
    },
    listOwned: (worker) => sql<{ id: ExecutionId; token: string }[]>`
      select e.id, e.lease_token as token from flowledger.executions e where e.owner = ${worker}::uuid and e.wake_at is not null`,
    listDue: (flows, ageMs, limit) => sql<DueExecution[]>`
      select e.id, e.flow, e.priority from flowledger.executions e
      where e.wake_at < (select flowledger.now()) - flowledger.ms(${ageMs}::float8) and e.owner is null and e.closed_at is null
        and e.flow = any(${list(flows)}::text::text[])
      order by e.wake_at limit ${limit}::int`,
    firstDue: (flows, ageMs) => sql<DueExecution[]>`
      select distinct on (d.flow) d.id, d.flow, d.priority from (
        select e.id, e.flow, e.priority, e.wake_at from flowledger.executions e
        where e.wake_at < (select flowledger.now()) - flowledger.ms(${ageMs}::float8) and e.owner is null and e.closed_at is null
          and e.flow = any(${list(flows)}::text::text[])
        order by e.wake_at limit 1000) d
      order by d.flow, d.wake_at`,
    async wake(ids) {
      await sql`select flowledger.wake(${column(ids, (id) => id)}::text::uuid[])`;
    },
    async wakeBlocked(versions) {
      await sql`
        select flowledger.wake_blocked(${list(versions.map(({ flow }) => flow))}::text::text[],
          ${list(versions.map(({ fingerprint }) => fingerprint))}::text::text[])`;
    },
    async hasOtherVersion(flow, fingerprints) {
      const [row] = await sql<[{ has: boolean }]>`
        select flowledger.has_other_version(${flow}, ${list(fingerprints)}::text::text[]) as has`;
      return row.has;
    },
  };
}

/** What `flowledger.claim_limited` takes behind the worker. */
export const claimLimitedTypes =
  "?::uuid, ?::text::uuid[], ?::text::uuid[], ?::text::text[], ?::text::int[], ?::int, ?::boolean";
const claimsLimited = statement(`select * from flowledger.claim_limited(?::uuid, ${claimLimitedTypes})`);

export function claimedLimited(
  worker: WorkerId,
  requests: readonly SlotRequest[],
  { token = crypto.randomUUID(), takesPoisonSuspects = true }: ClaimOptions,
) {
  const rooms = new Map<string, number>();
  for (const { flow, hasRoom } of requests) rooms.set(flow, (rooms.get(flow) ?? 0) + (hasRoom ? 1 : 0));
  const given = (ids: readonly (ExecutionId | null)[]) => list(ids.filter((id) => id !== null));
  return [
    worker,
    token,
    given(requests.map(({ id }) => id)),
    given(requests.map(({ left }) => left)),
    list([...rooms.keys()]),
    list([...rooms.values()]),
    snapshotVersion,
    takesPoisonSuspects,
  ] as const;
}

/** Bytes of JSON in one answer. */
const pageBytes = 16_777_216;

/** @param options what is done with a ledger that cannot be folded */
export async function foldClaims(
  sql: Sql,
  rows: readonly ClaimRow[],
  worker: WorkerId,
  { onBroken }: ClaimOptions,
): Promise<Map<ExecutionId, Claim>> {
  const claims = new Map<ExecutionId, Claim>();
  for (const row of rows) {
    const id = row.id as ExecutionId;
    // A claim brings the first page of a long ledger. If reading the rest fails, the ledger is not broken: the claim's answer is lost.
    const pages = [row.events];
    for (let last = lastSeq(row.events) ?? row.seq; last < row.seq;) {
      const [page] = await sql<[{ events: unknown }]>`
        select flowledger.events(${id}::uuid, ${last}::int, least(${row.seq}::int,
          flowledger.page_end(${id}::uuid, ${last}::int, 2147483647, ${pageBytes}::bigint))) as events`;
      pages.push(page.events);
      last = lastSeq(page.events) ?? row.seq;
    }
    let state: ExecutionState;
    try {
      state = foldFrom(row.snapshot, pages.flatMap(parseEvents));
    } catch (error) {
      // One ledger that cannot be folded must not fail the other claims.
      if (!onBroken) throw error;
      onBroken({ id, epoch: row.epoch, seq: row.seq }, error);
      continue;
    }
    const { epoch, token, flow, fingerprint, takeovers, now_ms: now, items } = row;
    const bytes = pages.reduce<number>((sum, page) => sum + bytesOf(page), 0);
    const sizes = { bytes, snapshotBytes: row.snapshot && bytes > 0 ? bytesOf(row.snapshot) : 0 };
    claims.set(id, { id, epoch, token, worker, flow, fingerprint, state, now, takeovers, items, ...sizes });
  }
  return claims;
}

/** Of rows as `flowledger.events` gives them. */
function lastSeq(events: unknown): number | null {
  const last: unknown = Array.isArray(events) ? events.at(-1) : null;
  return Array.isArray(last) ? Number(last[0]) : null;
}

/** What is short is not worth counting. */
function bytesOf(json: unknown): number {
  return Array.isArray(json) && json.length <= 8 ? 0 : JSON.stringify(json).length;
}
