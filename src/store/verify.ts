/** The guarantees as queries: what must hold in every ledger and in everything derived from it. No row is no violation. */
import type { Json } from "../base/json.ts";
import { brokenAnchors } from "./anchors.ts";
import type { KeptAnchor } from "./anchors.ts";
import type { Sql } from "./client.ts";
import { list } from "./columns.ts";
import { countEvents, findDifferences, readPages, unfoldable } from "./rebuild.ts";
import type { Difference, Page, Progress } from "./rebuild.ts";

/** A guarantee that does not hold, and where. */
export interface Violation {
  /** The invariant's name in docs/guarantees.md, e.g. "I2". */
  readonly invariant: string;
  /** "-" where it is about the database as a whole. */
  readonly executionId: string;
  readonly detail: string;
}

/** Of `verify()`. */
export interface VerifyOptions {
  /** Only this execution. @default all */
  id?: string;
  /** Anchors as they were kept outside of the database: each must be there still, with that hash. @default none */
  anchors?: readonly KeptAnchor[];
  /** Called after each page. */
  onProgress?: (progress: Progress) => void;
}

/** Checks every invariant, a page of executions at a time; safe beside live workers, because each query sees one moment. */
export async function verify(sql: Sql, options: VerifyOptions = {}): Promise<Violation[]> {
  const violations: Violation[] = [];
  let [executions, events] = [0, 0];
  for await (const page of readPages(sql, options.id)) {
    for (const invariant of invariants) violations.push(...(await invariant(sql, page)));
    violations.push(...(await chainsHold(sql, page)));
    const differences = [...(await findDifferences(sql, page)), ...unfoldable(page)];
    violations.push(...differences.flatMap(describe));
    executions += page.histories.length;
    events += countEvents(page);
    options.onProgress?.({ executions, events, problems: violations.length });
  }
  const anchored = await brokenAnchors(sql, options.id ?? null, options.anchors ?? []);
  return [
    ...violations,
    ...anchored.map(({ id, problem }) => ({ invariant: "I26", executionId: id ?? "-", detail: problem })),
  ];
}

/** All executions. */
export const everything = {
  after: "00000000-0000-0000-0000-000000000000",
  until: "ffffffff-ffff-ffff-ffff-ffffffffffff",
};

type Invariant = (sql: Sql, page: Pick<Page, "after" | "until">) => Promise<Violation[]>;

/** Nothing that is due lies about without an owner that lives, while there are workers for it. */
const dueIsOwned: Invariant = (sql, { after, until }) => sql<Violation[]>`
  select 'I1' as invariant, e.id as "executionId",
    format('due since %s, owner %s', e.wake_at, coalesce(e.owner::text, 'none')) as detail
  from flowledger.executions e
  where e.closed_at is null
    and e.wake_at < (select flowledger.now()) - interval '30 seconds'
    and (e.owner is null or not exists (select 1 from flowledger.workers w where w.id = e.owner))
    and exists (select 1 from flowledger.workers w where e.flow = any(w.flows))
    and (select s.acquired from flowledger.slots s where s.execution_id = e.id) is not false
    and (not exists (select from flowledger.flow_pause_of(e.flow)) or e.epoch > 0 and flowledger.is_ending(e))
    and e.id > ${after}::uuid and e.id <= ${until}::uuid`;

/** What nobody owns and no time wakes has nothing left to route: whatever comes in later makes it due. */
export const parkedIsIdle: Invariant = (sql, { after, until }) => sql<Violation[]>`
  select 'I1' as invariant, e.id as "executionId", format('%s at seq %s waits for its routing, and nothing wakes the execution', l.type, l.seq) as detail
  from flowledger.executions e
  join flowledger.ledger l on l.execution_id = e.id
  where e.closed_at is null and e.owner is null and e.wake_at is null
    and (l.type in ('execution.started', 'cancel.requested', 'chunk.skipped') or l.type = 'event.emitted' and l.dispatch is null
      -- What an event answered goes on from that event.
      or l.type = 'interrupt.resumed' and not l.payload ? 'byEvent'
      or l.type = 'interrupt.expired' and l.payload ? 'value'
      -- A close waits for sub-flows, whose end wakes the execution.
      or l.type = 'execution.sealed' and l.payload ? 'close' and e.pending_interrupts = 0 and e.parked = 0 and not exists (
        select from flowledger.executions c where c.parent_id = e.id and (c.closed_at is null or c.wake_at is not null)))
    and not exists (
      select 1 from flowledger.ledger r
      where r.execution_id = e.id and r.type = 'inbox.routed' and (r.payload -> 'of')::int = l.seq)
    and (l.type = 'cancel.requested' or not exists (select from flowledger.pause_of(e.id)))
    -- What no version that is served can go on with keeps what comes in for the next one.
    and (l.type = 'cancel.requested' or coalesce(flowledger.has_other_version(e.flow, flowledger.tried_versions(e.id)), true))
    and e.id > ${after}::uuid and e.id <= ${until}::uuid`;

/** The seqs of a ledger are 1, 2, 3 … up to the header's. */
const seqHasNoGap: Invariant = (sql, { after, until }) => sql<Violation[]>`
  select 'I2' as invariant, coalesce(e.id, l.execution_id) as "executionId",
    format('header says seq %s, the ledger has %s events from %s to %s', e.seq, l.events, l.first, l.last) as detail
  from (select * from flowledger.executions where id > ${after}::uuid and id <= ${until}::uuid) e
  full join (
    select execution_id, count(*) as events, min(seq) as first, max(seq) as last
    from flowledger.ledger
    where execution_id > ${after}::uuid and execution_id <= ${until}::uuid
    group by execution_id
  ) l on l.execution_id = e.id
  where (e.seq, 1, e.seq::bigint) is distinct from (l.last, l.first, l.events)`;

/** A dispatch ends at most once, and only after an event has planned it. */
const dispatchesEndOnce: Invariant = (sql, { after, until }) => sql<Violation[]>`
  with planned as (
    select l.execution_id, l.seq, (m ->> 'id')::int + o.step as dispatch
    from flowledger.ledger l
    cross join lateral jsonb_array_elements(l.payload -> 'moves') m
    cross join lateral generate_series(
      case m ->> 'move' when 'run' then 0 else 1 end,
      case m ->> 'move' when 'run' then 0 else (m ->> 'size')::int * jsonb_array_length(m -> 'entries') end) as o(step)
    where l.payload ? 'moves' and (m ->> 'move' = 'run' or m ->> 'move' = 'open' and m ? 'entries')
      and l.execution_id > ${after}::uuid and l.execution_id <= ${until}::uuid
    union all
    select l.execution_id, l.seq, (r ->> 'id')::int
    from flowledger.ledger l cross join lateral jsonb_array_elements(l.payload -> 'runs') r
    where l.type = 'cleanup.planned' and l.execution_id > ${after}::uuid and l.execution_id <= ${until}::uuid
  ), ended as (
    select execution_id, dispatch, min(seq) as seq, count(*) as times
    from flowledger.ledger
    where (type in ('chunk.completed', 'value.routed', 'interrupt.raised', 'cleanup.completed', 'cleanup.failed') or type = 'inbox.routed' and dispatch is not null or type = 'chunk.failed' and not payload ? 'retryInMs')
      and execution_id > ${after}::uuid and execution_id <= ${until}::uuid
    group by execution_id, dispatch
  )
  select 'I4' as invariant, ended.execution_id as "executionId",
    format('dispatch %s ended %s times, first at seq %s, planned %s times before', ended.dispatch, ended.times, ended.seq,
      (select count(*) from planned p where p.execution_id = ended.execution_id and p.dispatch = ended.dispatch and p.seq < ended.seq)) as detail
  from ended
  left join planned on planned.execution_id = ended.execution_id and planned.dispatch = ended.dispatch and planned.seq < ended.seq
  group by ended.execution_id, ended.dispatch, ended.times, ended.seq
  having ended.times > 1 or count(planned.seq) <> 1`;

/** An effect has one place in its dispatch, and is recorded there once. A failed try of a step may precede its result, and a child's end follows its start. */
const effectsHappenOnce: Invariant = (sql, { after, until }) => sql<Violation[]>`
  select 'I4' as invariant, execution_id as "executionId",
    format('effect %s of dispatch %s is recorded %s times', ordinal, dispatch, count(*)) as detail
  from (
    select execution_id, dispatch, type, payload ->> 'ordinal' as ordinal,
      count(*) filter (where type = 'chunk.retried') over (partition by execution_id, dispatch order by seq) as round
    from flowledger.ledger
    where (payload ? 'ordinal' or type = 'chunk.retried') and execution_id > ${after}::uuid and execution_id <= ${until}::uuid
  ) effects
  where ordinal is not null and type not in ('step.failed', 'child.closed')
  -- A retry by an operator calls again what failed.
  group by execution_id, dispatch, ordinal, case when type = 'child.started' then round end
  having count(*) > 1`;

/** Epochs never go back, neither along the ledger nor in the stream, and none is higher than the header's. */
const epochsRise: Invariant = (sql, { after, until }) => sql<Violation[]>`
  select 'I5' as invariant, execution_id as "executionId", format('%s: epoch %s after %s at seq %s', source, epoch, before, seq) as detail
  from (
    select 'ledger' as source, execution_id, seq::bigint, epoch, lag(epoch) over (partition by execution_id order by seq) as before
    from flowledger.ledger where execution_id > ${after}::uuid and execution_id <= ${until}::uuid
    union all
    select 'stream', execution_id, seq, epoch, lag(epoch) over (partition by execution_id order by seq)
    from flowledger.stream_items where execution_id > ${after}::uuid and execution_id <= ${until}::uuid
    union all
    select 'header', l.execution_id, max(l.seq), e.epoch, max(l.epoch)
    from flowledger.ledger l join flowledger.executions e on e.id = l.execution_id
    where l.execution_id > ${after}::uuid and l.execution_id <= ${until}::uuid
    group by l.execution_id, e.epoch
  ) steps
  where epoch < before`;

/** What an owner writes in an epoch begins with its one execution.claimed. Commands from outside may come before it. */
const epochsBeginWithClaim: Invariant = (sql, { after, until }) => sql<Violation[]>`
  select 'I5' as invariant, execution_id as "executionId",
    format('epoch %s has %s execution.claimed, and its owner''s first event is %s', epoch, claims, first_type) as detail
  from (
    select execution_id, epoch, count(*) filter (where type = 'execution.claimed') as claims,
      (array_agg(type order by seq))[1] as first_type
    from flowledger.ledger
    where not (
        type in ('execution.created', 'execution.started', 'execution.rescheduled', 'execution.sealed', 'cancel.requested',
          'interrupt.answered', 'interrupt.resumed', 'interrupt.cancelled', 'intervention.recorded', 'intervention.consumed', 'child.closed',
          'child.cancelled', 'execution.copied', 'chunk.retried', 'chunk.skipped', 'state.edited', 'execution.paused', 'execution.unpaused', 'execution.redriven')
        or type = 'event.emitted' and dispatch is null
        -- What no owner ever took is closed by its cancel.
        or type in ('intervention.expired', 'execution.closed') and epoch = 0)
      and execution_id > ${after}::uuid and execution_id <= ${until}::uuid
    group by execution_id, epoch
  ) owned
  where claims <> 1 or first_type <> 'execution.claimed' or epoch = 0`;

/** Nothing comes after execution.closed, and a closed execution has exactly one. */
const closeIsLast: Invariant = (sql, { after, until }) => sql<Violation[]>`
  select case when count(*) filter (where l.type = 'execution.closed') = 1 then 'I6' else 'I7' end as invariant,
    e.id as "executionId",
    format('closed %s times, first at seq %s of %s', count(*) filter (where l.type = 'execution.closed'),
      min(l.seq) filter (where l.type = 'execution.closed'), max(l.seq)) as detail
  from flowledger.executions e join flowledger.ledger l on l.execution_id = e.id
  where e.id > ${after}::uuid and e.id <= ${until}::uuid
  group by e.id, e.closed_at
  having count(*) filter (where l.type = 'execution.closed') <> case when e.closed_at is null then 0 else 1 end
    or max(l.seq) > min(l.seq) filter (where l.type = 'execution.closed')`;

/** Stream items are numbered 1, 2, 3 … and none is later than the header's number. */
const streamHasNoGap: Invariant = (sql, { after, until }) => sql<Violation[]>`
  select 'I10' as invariant, e.id as "executionId",
    format('header says %s items, there are %s from %s to %s', e.stream_seq, s.items, s.first, s.last) as detail
  from flowledger.executions e
  left join (
    select execution_id, count(*) as items, min(seq) as first, max(seq) as last
    from flowledger.stream_items
    where execution_id > ${after}::uuid and execution_id <= ${until}::uuid
    group by execution_id
  ) s on s.execution_id = e.id
  where e.id > ${after}::uuid and e.id <= ${until}::uuid
    and (e.stream_seq, case when e.stream_seq > 0 then 1 end, e.stream_seq)
      is distinct from (coalesce(s.last, 0), s.first, coalesce(s.items, 0))`;

/** A parent that is still open knows of each child that has closed, or that child is still due to tell it. */
const familiesAreTold: Invariant = (sql, { after, until }) => sql<Violation[]>`
  select 'I1' as invariant, p.id as "executionId", format('child %s has closed, and nothing tells of it', c.id) as detail
  from flowledger.executions c join flowledger.executions p on p.id = c.parent_id
  where c.closed_at is not null and c.wake_at is null and p.closed_at is null
    and not exists (
      select 1 from flowledger.ledger l
      where l.execution_id = p.id and l.type = 'child.closed' and l.payload ->> 'child' = c.id::text)
    -- What has become of an item is in its parent's batches.
    and not flowledger.is_item(c.id)
    and p.id > ${after}::uuid and p.id <= ${until}::uuid`;

/** What a sub-flow puts into its stream is in its parent's, and once, as long as that takes items. */
const streamsAreVisible: Invariant = (sql, { after, until }) => sql<Violation[]>`
  select 'I10' as invariant, p.id as "executionId", format('%s items of sub-flows, and %s in the stream', put.items, shown.items) as detail
  from flowledger.executions p
  cross join lateral (
    with recursive relatives as (
      select c.id from flowledger.executions c where c.parent_id = p.id and p.id = any(flowledger.visible_in(c.id))
      union all
      select c.id from relatives f join flowledger.executions c on c.parent_id = f.id and p.id = any(flowledger.visible_in(c.id))
    )
    select count(*) as items from relatives f join flowledger.stream_items s on s.execution_id = f.id and s.kind is null) put
  cross join lateral (
    select count(*) as items from flowledger.stream_items s where s.execution_id = p.id and s.kind = 'subFlow') shown
  where p.id > ${after}::uuid and p.id <= ${until}::uuid and not p.stream_ended and coalesce(p.outcome, 'completed') = 'completed'
    -- A sub-flow's own stream may be gone before its parent's.
    and (put.items > shown.items or put.items < shown.items and not exists (select from flowledger.prunes))`;

/** A cancel that was accepted decides how the execution ends, unless it had failed by then. */
const cancelWins: Invariant = (sql, { after, until }) => sql<Violation[]>`
  select distinct 'I14' as invariant, e.id as "executionId", format('cancelled, and closed as %s', e.outcome) as detail
  from flowledger.executions e join flowledger.ledger l on l.execution_id = e.id and l.type = 'cancel.requested'
  where e.outcome = 'completed' and e.id > ${after}::uuid and e.id <= ${until}::uuid`;

/**
 * What is tried again is tried no sooner than it said, by the database's clock. Of a sleep the ledger does not say when it is over:
 * what follows in it may have run beside.
 */
const timersAreNotEarly: Invariant = (sql, { after, until }) => sql<Violation[]>`
  select 'I15' as invariant, execution_id as "executionId",
    format('dispatch %s waited from seq %s for %s ms and went on after %s ms', dispatch, seq, waits, round(extract(epoch from next_at - at) * 1000, 1)) as detail
  from (
    select execution_id, dispatch, seq, at, (payload ->> 'retryInMs')::float8 as waits,
      lead(at) over (partition by execution_id, dispatch, round, case when type like 'step.%' then payload ->> 'ordinal' end order by seq) as next_at
    from (
      -- What an operator did ends a wait.
      select execution_id, dispatch, seq, at, type, payload,
        count(*) filter (where type in ('chunk.retried', 'chunk.skipped')) over (partition by execution_id, dispatch order by seq) as round
      from flowledger.ledger
      where dispatch is not null and type <> 'chunk.interrupted' and execution_id > ${after}::uuid and execution_id <= ${until}::uuid
    ) rounds
  ) steps
  -- Two milliseconds for the rounding of times on their way through JavaScript.
  where waits is not null and next_at < at + (waits - 2) * interval '1 millisecond'`;

/** How many executions of a flow were owned at once, at most, and by key: from each claim to the last event of its epoch. */
export async function mostAtOnce(sql: Sql, flow: string): Promise<{ flow: number; perKey: Map<string, number> }> {
  const rows = await sql<{ key: string | null; most: number }[]>`
    with held as (
      select l.execution_id, coalesce(e.limit_key, '') as key, l.epoch, min(l.at) filter (where l.type = 'execution.claimed') as since, max(l.at) as until
      from flowledger.ledger l join flowledger.executions e on e.id = l.execution_id
      -- What comes in from outside has the epoch of the last owner, who may be gone by then.
      where e.flow = ${flow} and l.epoch > 0 and not (l.type = 'event.emitted' and l.dispatch is null or l.type in (
        'execution.started', 'execution.sealed', 'cancel.requested', 'interrupt.answered', 'interrupt.resumed', 'interrupt.cancelled', 'intervention.recorded', 'intervention.consumed',
        'child.closed', 'child.cancelled', 'chunk.retried', 'chunk.skipped', 'state.edited', 'execution.paused', 'execution.unpaused', 'execution.redriven'))
      group by l.execution_id, e.limit_key, l.epoch
    ), steps as (
      select key, since as at, 1 as step from held where since is not null union all select key, until, -1 from held where since is not null
    )
    select null as key, max(n)::int as most from (select sum(step) over (order by at, step desc) as n from steps) whole
    union all
    select key, max(n)::int from (select key, sum(step) over (partition by key order by at, step desc) as n from steps) each group by key`;
  return {
    flow: rows.find(({ key }) => key === null)?.most ?? 0,
    perKey: new Map(rows.flatMap(({ key, most }) => (key === null ? [] : [[key, most]]))),
  };
}

const invariants: readonly Invariant[] = [
  dueIsOwned,
  parkedIsIdle,
  seqHasNoGap,
  dispatchesEndOnce,
  effectsHappenOnce,
  epochsRise,
  epochsBeginWithClaim,
  closeIsLast,
  streamHasNoGap,
  familiesAreTold,
  streamsAreVisible,
  cancelWins,
  timersAreNotEarly,
];

/** No row of a ledger was rewritten, taken out or put in since it was hashed. */
async function chainsHold(sql: Sql, { histories }: Page): Promise<Violation[]> {
  return sql<Violation[]>`
    select 'I21' as invariant, b.id as "executionId", format('ledger row seq %s %s', b.seq, b.problem) as detail
    from flowledger.broken_chains(${list(histories.map(({ id }) => id))}::text::uuid[]) b`;
}

/** A derived row as words: one violation per column that differs. */
function describe({ executionId, table, row, found, expected }: Difference): Violation[] {
  const violation = (detail: string): Violation => ({ invariant: "I3", executionId, detail });
  const name = table === "executions" ? "header" : `${table} row${row === null ? "" : ` "${row}"`}`;
  if (table === "ledger") return [violation(`the ledger cannot be folded: ${String(expected?.["problem"])}`)];
  if (!found) return [violation(`${name} is missing`)];
  if (!expected) return [violation(`${name} is in no ledger`)];
  return Object.keys(found).map((column) =>
    violation(`${name}: ${column} is ${short(found[column])}, the ledger says ${short(expected[column])}`),
  );
}

function short(value: Json | undefined): string {
  const text = JSON.stringify(value ?? null);
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}
