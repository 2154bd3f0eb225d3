/** The guarantees as queries: what must hold in every ledger and in everything derived from it. No row is no violation. */
import { isDeepStrictEqual } from "node:util";
import { ExecutionId } from "../ledger/event.ts";
import { freezeState, snapshotVersion } from "../ledger/evolve.ts";
import type { ExecutionState } from "../ledger/evolve.ts";
import type { JsonObject } from "../ledger/payload.ts";
import { closeSnapshot } from "../ledger/views.ts";
import { parseEvents } from "./append.ts";
import type { Sql } from "./connection.ts";
import { foldFrom } from "./queries.ts";

export interface Violation {
  /** The invariant's name in the documentation of guarantees, e.g. "I2". */
  readonly invariant: string;
  readonly executionId: string;
  readonly detail: string;
}

export interface VerifyOptions {
  /** Only this execution. @default all */
  id?: string;
  /** How many executions are folded again, newest first; null is all of them. @default 1000 */
  folds?: number | null;
}

/** Checks every invariant; safe to run beside live workers, because each query sees one moment. */
export async function verify(sql: Sql, options: VerifyOptions = {}): Promise<Violation[]> {
  const id = options.id === undefined ? null : ExecutionId.parse(options.id);
  const folds = options.folds === undefined ? 1000 : options.folds;
  const violations: Violation[] = [];
  for (const invariant of invariants) violations.push(...(await invariant(sql, id)));
  violations.push(...(await checkFolds(sql, id, folds)));
  return violations;
}

type Invariant = (sql: Sql, id: ExecutionId | null) => Promise<Violation[]>;

/** Nothing that is due lies about without an owner that lives. */
const dueIsOwned: Invariant = (sql, id) => sql<Violation[]>`
  select 'I1' as invariant, e.id as "executionId",
    format('due since %s, owner %s', e.wake_at, coalesce(e.owner::text, 'none')) as detail
  from flowledger.executions e
  where e.closed_at is null
    and e.wake_at < clock_timestamp() - interval '30 seconds'
    and (e.owner is null or not exists (select 1 from flowledger.workers w where w.id = e.owner))
    and (${id}::uuid is null or e.id = ${id}::uuid)`;

/** What nobody owns and no time wakes has nothing left to route: whatever comes in later makes it due. */
export const parkedIsIdle: Invariant = (sql, id) => sql<Violation[]>`
  select 'I1' as invariant, e.id as "executionId", format('%s at seq %s waits for its routing, and nothing wakes the execution', l.type, l.seq) as detail
  from flowledger.executions e
  join flowledger.ledger l on l.execution_id = e.id
  where e.closed_at is null and e.owner is null and e.wake_at is null
    and (l.type in ('execution.started', 'interrupt.resumed', 'cancel.requested') or l.type = 'event.emitted' and l.dispatch is null
      or l.type = 'execution.sealed' and l.payload ? 'close' and e.pending_interrupts = 0)
    and not exists (
      select 1 from flowledger.ledger r
      where r.execution_id = e.id and r.type = 'inbox.routed' and (r.payload -> 'of')::int = l.seq)
    and (${id}::uuid is null or e.id = ${id}::uuid)`;

/** The seqs of a ledger are 1, 2, 3 … up to the header's. */
const seqHasNoGap: Invariant = (sql, id) => sql<Violation[]>`
  select 'I2' as invariant, coalesce(e.id, l.execution_id) as "executionId",
    format('header says seq %s, the ledger has %s events from %s to %s', e.seq, l.events, l.first, l.last) as detail
  from flowledger.executions e
  full join (
    select execution_id, count(*) as events, min(seq) as first, max(seq) as last
    from flowledger.ledger
    where ${id}::uuid is null or execution_id = ${id}::uuid
    group by execution_id
  ) l on l.execution_id = e.id
  where (${id}::uuid is null or coalesce(e.id, l.execution_id) = ${id}::uuid)
    and (e.seq, 1, e.seq::bigint) is distinct from (l.last, l.first, l.events)`;

/** The header's columns say what the ledger says. */
const headerAgrees: Invariant = (sql, id) => sql<Violation[]>`
  select 'I3' as invariant, e.id as "executionId", format('header column %s is %s, the ledger says %s', c.name, c.header, c.ledger) as detail
  from flowledger.executions e
  join (
    select execution_id,
      bool_or(type = 'execution.started') as started,
      bool_or(type in ('execution.sealed', 'execution.closed')) as sealed,
      bool_or(type = 'execution.closed') as closed,
      bool_or(type = 'stream.stopped') as stream_ended,
      max(payload ->> 'outcome') filter (where type = 'execution.closed') as outcome,
      max(payload ->> 'reason') filter (where type = 'execution.closed') as reason,
      (select count(*) from (
        select distinct on (i.payload ->> 'id') i.type from flowledger.ledger i
        where i.execution_id = ledger.execution_id and i.type like 'interrupt.%'
        order by i.payload ->> 'id', i.seq desc) latest
      where latest.type = 'interrupt.raised') as pending
    from flowledger.ledger
    where ${id}::uuid is null or execution_id = ${id}::uuid
    group by execution_id
  ) l on l.execution_id = e.id
  cross join lateral (values
    ('started_at', (e.started_at is not null)::text, l.started::text),
    ('sealed_at', (e.sealed_at is not null)::text, l.sealed::text),
    ('closed_at', (e.closed_at is not null)::text, l.closed::text),
    ('stream_ended', e.stream_ended::text, l.stream_ended::text),
    ('outcome', e.outcome, l.outcome),
    ('close_reason', e.close_reason, l.reason),
    ('pending_interrupts', e.pending_interrupts::text, l.pending::text)
  ) as c(name, header, ledger)
  where c.header is distinct from c.ledger`;

/** A dispatch ends at most once, and only after an event has planned it. */
const dispatchesEndOnce: Invariant = (sql, id) => sql<Violation[]>`
  with planned as (
    select l.execution_id, l.seq, (m ->> 'id')::int + o.step as dispatch
    from flowledger.ledger l
    cross join lateral jsonb_array_elements(l.payload -> 'moves') m
    cross join lateral generate_series(
      case m ->> 'move' when 'run' then 0 else 1 end,
      case m ->> 'move' when 'run' then 0 else (m ->> 'size')::int * jsonb_array_length(m -> 'entries') end) as o(step)
    where l.payload ? 'moves' and (m ->> 'move' = 'run' or m ->> 'move' = 'open' and m ? 'entries')
      and (${id}::uuid is null or l.execution_id = ${id}::uuid)
  ), ended as (
    select execution_id, dispatch, min(seq) as seq, count(*) as times
    from flowledger.ledger
    where (type in ('chunk.completed', 'value.routed', 'interrupt.raised') or type = 'chunk.failed' and not payload ? 'retryInMs')
      and (${id}::uuid is null or execution_id = ${id}::uuid)
    group by execution_id, dispatch
  )
  select 'I4' as invariant, ended.execution_id as "executionId",
    format('dispatch %s ended %s times, first at seq %s, planned %s times before', ended.dispatch, ended.times, ended.seq,
      (select count(*) from planned p where p.execution_id = ended.execution_id and p.dispatch = ended.dispatch and p.seq < ended.seq)) as detail
  from ended
  left join planned on planned.execution_id = ended.execution_id and planned.dispatch = ended.dispatch and planned.seq < ended.seq
  group by ended.execution_id, ended.dispatch, ended.times, ended.seq
  having ended.times > 1 or count(planned.seq) <> 1`;

/** An effect has one place in its dispatch, and is recorded there once. A failed try of a step may precede its result. */
const effectsHappenOnce: Invariant = (sql, id) => sql<Violation[]>`
  select 'I4' as invariant, execution_id as "executionId",
    format('effect %s of dispatch %s is recorded %s times', payload ->> 'ordinal', dispatch, count(*)) as detail
  from flowledger.ledger
  where payload ? 'ordinal' and type <> 'step.failed' and (${id}::uuid is null or execution_id = ${id}::uuid)
  group by execution_id, dispatch, payload ->> 'ordinal'
  having count(*) > 1`;

/** Epochs never go back, neither along the ledger nor in the stream, and none is higher than the header's. */
const epochsRise: Invariant = (sql, id) => sql<Violation[]>`
  select 'I5' as invariant, execution_id as "executionId", format('%s: epoch %s after %s at seq %s', source, epoch, before, seq) as detail
  from (
    select 'ledger' as source, execution_id, seq::bigint, epoch, lag(epoch) over (partition by execution_id order by seq) as before
    from flowledger.ledger where ${id}::uuid is null or execution_id = ${id}::uuid
    union all
    select 'stream', execution_id, seq, epoch, lag(epoch) over (partition by execution_id order by seq)
    from flowledger.stream_items where ${id}::uuid is null or execution_id = ${id}::uuid
    union all
    select 'header', l.execution_id, max(l.seq), e.epoch, max(l.epoch)
    from flowledger.ledger l join flowledger.executions e on e.id = l.execution_id
    where ${id}::uuid is null or l.execution_id = ${id}::uuid
    group by l.execution_id, e.epoch
  ) steps
  where epoch < before`;

/** What an owner writes in an epoch begins with its one execution.claimed. Commands from outside may come before it. */
const epochsBeginWithClaim: Invariant = (sql, id) => sql<Violation[]>`
  select 'I5' as invariant, execution_id as "executionId",
    format('epoch %s has %s execution.claimed, and its owner''s first event is %s', epoch, claims, first_type) as detail
  from (
    select execution_id, epoch, count(*) filter (where type = 'execution.claimed') as claims,
      (array_agg(type order by seq))[1] as first_type
    from flowledger.ledger
    where not (
        type in ('execution.created', 'execution.started', 'execution.sealed', 'cancel.requested',
          'interrupt.resumed', 'interrupt.cancelled', 'intervention.recorded', 'intervention.consumed', 'child.closed')
        or type = 'event.emitted' and dispatch is null)
      and (${id}::uuid is null or execution_id = ${id}::uuid)
    group by execution_id, epoch
  ) owned
  where claims <> 1 or first_type <> 'execution.claimed' or epoch = 0`;

/** Nothing comes after execution.closed, and a closed execution has exactly one. */
const closeIsLast: Invariant = (sql, id) => sql<Violation[]>`
  select case when count(*) filter (where l.type = 'execution.closed') = 1 then 'I6' else 'I7' end as invariant,
    e.id as "executionId",
    format('closed %s times, first at seq %s of %s', count(*) filter (where l.type = 'execution.closed'),
      min(l.seq) filter (where l.type = 'execution.closed'), max(l.seq)) as detail
  from flowledger.executions e join flowledger.ledger l on l.execution_id = e.id
  where ${id}::uuid is null or e.id = ${id}::uuid
  group by e.id, e.closed_at
  having count(*) filter (where l.type = 'execution.closed') <> case when e.closed_at is null then 0 else 1 end
    or max(l.seq) > min(l.seq) filter (where l.type = 'execution.closed')`;

/** Stream items are numbered 1, 2, 3 … and none is later than the header's number. */
const streamHasNoGap: Invariant = (sql, id) => sql<Violation[]>`
  select 'I10' as invariant, e.id as "executionId",
    format('header says %s items, there are %s from %s to %s', e.stream_seq, s.items, s.first, s.last) as detail
  from flowledger.executions e
  left join (
    select execution_id, count(*) as items, min(seq) as first, max(seq) as last
    from flowledger.stream_items
    where ${id}::uuid is null or execution_id = ${id}::uuid
    group by execution_id
  ) s on s.execution_id = e.id
  where (${id}::uuid is null or e.id = ${id}::uuid)
    and (e.stream_seq, case when e.stream_seq > 0 then 1 end, e.stream_seq)
      is distinct from (coalesce(s.last, 0), s.first, coalesce(s.items, 0))`;

/** A cancel that was accepted decides how the execution ends, unless it had failed by then. */
const cancelWins: Invariant = (sql, id) => sql<Violation[]>`
  select distinct 'I14' as invariant, e.id as "executionId", format('cancelled, and closed as %s', e.outcome) as detail
  from flowledger.executions e join flowledger.ledger l on l.execution_id = e.id and l.type = 'cancel.requested'
  where e.outcome = 'completed' and (${id}::uuid is null or e.id = ${id}::uuid)`;

/** What waits for a time goes on no sooner, by the database's clock. */
const timersAreNotEarly: Invariant = (sql, id) => sql<Violation[]>`
  select 'I15' as invariant, execution_id as "executionId",
    format('dispatch %s waited from seq %s for %s ms and went on after %s ms', dispatch, seq, waits, round(extract(epoch from next_at - at) * 1000, 1)) as detail
  from (
    select execution_id, dispatch, seq, at,
      case type when 'sleep.started' then (payload ->> 'forMs')::float8 else (payload ->> 'retryInMs')::float8 end as waits,
      lead(at) over (partition by execution_id, dispatch order by seq) as next_at,
      lead(type) over (partition by execution_id, dispatch order by seq) as next_type
    from flowledger.ledger
    where dispatch is not null and (${id}::uuid is null or execution_id = ${id}::uuid)
  ) steps
  -- Two milliseconds for the rounding of times on their way through JavaScript.
  where waits is not null and next_at < at + (waits - 2) * interval '1 millisecond'`;

const invariants: readonly Invariant[] = [
  dueIsOwned,
  parkedIsIdle,
  seqHasNoGap,
  headerAgrees,
  dispatchesEndOnce,
  effectsHappenOnce,
  epochsRise,
  epochsBeginWithClaim,
  closeIsLast,
  streamHasNoGap,
  cancelWins,
  timersAreNotEarly,
];

interface FoldRow {
  id: string;
  seq: number;
  flow: string;
  outcome: string | null;
  snapshot: JsonObject | null;
  kept_seq: number | null;
  kept_state: JsonObject | null;
  events: unknown;
}

const pageSize = 200;

/** Folds ledgers from their first event and compares with the header, the close snapshot and the kept snapshot. */
async function checkFolds(sql: Sql, id: ExecutionId | null, limit: number | null): Promise<Violation[]> {
  const violations: Violation[] = [];
  let cursor: string | null = null;
  for (let left = limit ?? Infinity; left > 0; left -= pageSize) {
    const rows: FoldRow[] = await sql<FoldRow[]>`
      select e.id, e.seq, e.flow, e.outcome, e.close_snapshot as snapshot, s.seq as kept_seq, s.state as kept_state,
        (select json_agg(json_build_array(l.seq, l.epoch, flowledger.to_ms(l.at), l.type, l.dispatch, l.chunk, l.actor, l.payload) order by l.seq)
          from flowledger.ledger l where l.execution_id = e.id) as events
      from flowledger.executions e
      left join flowledger.snapshots s on s.execution_id = e.id and s.version = ${snapshotVersion}::int
      where (${cursor}::uuid is null or e.id < ${cursor}::uuid) and (${id}::uuid is null or e.id = ${id}::uuid)
      order by e.id desc
      limit ${Math.min(left, pageSize)}::int`;
    for (const row of rows)
      for (const detail of foldProblems(row)) violations.push({ invariant: "I3", executionId: row.id, detail });
    if (rows.length < pageSize) break;
    cursor = rows.at(-1)?.id ?? null;
  }
  return violations;
}

function foldProblems(row: FoldRow): string[] {
  let state: ExecutionState;
  const problems: string[] = [];
  try {
    const events = parseEvents(row.events ?? []);
    state = foldFrom(null, events);
    if (row.kept_state !== null) {
      const kept = foldFrom(
        null,
        events.filter(({ seq }) => seq <= (row.kept_seq ?? 0)),
      );
      if (!isDeepStrictEqual(freezeState(kept), row.kept_state))
        problems.push(`the snapshot at seq ${row.kept_seq} is not what the ledger folds to`);
    }
  } catch (error) {
    return [`the ledger cannot be folded: ${String(error)}`];
  }
  if (state.seq !== row.seq || state.flow !== row.flow || (state.closed?.outcome ?? null) !== row.outcome)
    problems.push(
      `the ledger folds to seq ${state.seq} of ${state.flow}, ${state.closed?.outcome ?? "open"}; the header says ${row.seq}, ${row.flow}, ${row.outcome ?? "open"}`,
    );
  if (state.closed && !isDeepStrictEqual(plain(closeSnapshot(state)), row.snapshot))
    problems.push("the close snapshot is not what the ledger folds to");
  return problems;
}

function plain(value: JsonObject): unknown {
  return JSON.parse(JSON.stringify(value));
}
