-- Interrupts and interventions: their rows of interrupts and interventions, each by one rule from the ledger.

-- An interrupt as the ledger has it after the event p_until: the last pause under that id, what answered it, and what people and the
-- clock did with it meanwhile.
create or replace function flowledger.interrupt_of(p_id uuid, p_interrupt text, p_until int default 2147483647) returns setof flowledger.interrupts
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select a.execution_id, a.id, a.flow, a.chunk, a.type, a.status, a.payload, a.resume_to, a.resume_count, a.max_resumes, a.created_at, a.expires_at,
    a.resolved_at, a.value, a.request_id, a.response, a.actor, a.raised_seq, a.resolved_seq, a.by_event, a.title,
    coalesce(h.assignees, a.assignees), a.due_at, h.claimed_by, h.claimed_at, h.is_exclusive, h.snoozed_until
  from flowledger.asked_of(p_id, p_interrupt, p_until) a
  cross join lateral flowledger.handling_of(p_id, p_interrupt, a.raised_seq, least(p_until, a.resolved_seq)) h
$$;

-- Claims, delegations, snoozes, reminders and escalations of a pause, from the event that raised it to p_until: whom it asks now (null: as it was raised), who
-- has it, and until when it is put off. Whom it is given to begins with it anew.
create or replace function flowledger.handling_of(p_id uuid, p_interrupt text, p_raised int, p_until int)
returns table (assignees text[], claimed_by text, claimed_at timestamptz, is_exclusive boolean, snoozed_until timestamptz)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case when given.assign is not null then array(select jsonb_array_elements_text(given.assign)) end,
    claim.actor, claim.at, claim.is_exclusive, put_off.until
  from (
    select max(l.seq) as seq, (array_agg(l.payload -> 'assign' order by l.seq desc))[1] as assign from flowledger.ledger l
    where l.execution_id = p_id and l.payload ->> 'id' = p_interrupt and l.seq > p_raised and l.seq <= p_until
      and l.type in ('interrupt.delegated', 'interrupt.escalated')) given
  left join lateral (
    select case when x.type = 'interrupt.claimed' then x.actor end as actor, case when x.type = 'interrupt.claimed' then x.at end as at,
      case when x.type = 'interrupt.claimed' then x.payload ? 'exclusive' end as is_exclusive
    from flowledger.ledger x
    where x.execution_id = p_id and x.payload ->> 'id' = p_interrupt and x.seq > coalesce(given.seq, p_raised) and x.seq <= p_until
      and x.type in ('interrupt.claimed', 'interrupt.released')
    order by x.seq desc limit 1) claim on true
  left join lateral (
    select flowledger.from_ms((x.payload ->> 'until')::float8) as until from flowledger.ledger x
    where x.execution_id = p_id and x.payload ->> 'id' = p_interrupt and x.seq > coalesce(given.seq, p_raised) and x.seq <= p_until
      and x.type = 'interrupt.snoozed'
    order by x.seq desc limit 1) put_off on true
$$;

-- After how many milliseconds the next reminder or escalation of a pause follows, of those that it has (p_plan) and that had not by p_until.
create or replace function flowledger.next_follow_up(p_id uuid, p_interrupt text, p_raised int, p_plan jsonb, p_until int) returns float8
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select (p_plan -> count(*)::int ->> 'inMs')::float8 from flowledger.ledger l
  where l.execution_id = p_id and l.payload ->> 'id' = p_interrupt and l.seq > p_raised and l.seq <= p_until
    and l.type in ('interrupt.reminded', 'interrupt.escalated')
$$;

-- The same without those claims and reminders. One whose time, or that of what follows next, was over when it was copied
-- here asks anew from then on.
create or replace function flowledger.asked_of(p_id uuid, p_interrupt text, p_until int default 2147483647) returns setof flowledger.interrupts
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select r.execution_id, p_interrupt, c.payload ->> 'flow', r.chunk, r.payload ->> 'kind',
      case when a.payload ? 'withdrawn' then 'withdrawn' else coalesce(split_part(a.type, '.', 2), 'pending') end,
      r.payload -> 'payload', r.payload -> 'resumeTo', (r.payload -> 'resumeCount')::int, nullif(r.payload -> 'maxResumes', 'null')::int,
      asked.at, asked.at + flowledger.ms((r.payload -> 'expiresInMs')::float8), a.at, a.payload -> 'value', a.payload ->> 'requestId', r.payload -> 'response', a.actor,
      r.seq, a.seq, a.payload ->> 'byEvent', r.payload ->> 'title',
      case when r.payload ? 'assign' then array(select jsonb_array_elements_text(r.payload -> 'assign')) end,
      asked.at + flowledger.ms((r.payload -> 'dueInMs')::float8), null::text, null::timestamptz, null::boolean, null::timestamptz
    from (
      select l.* from flowledger.ledger l
      where l.execution_id = p_id and l.type = 'interrupt.raised' and l.payload ->> 'id' = p_interrupt and l.seq <= p_until
      order by l.seq desc limit 1
    ) r
    join flowledger.ledger c on c.execution_id = r.execution_id and c.seq = 1
    left join lateral (
      select l.* from flowledger.ledger l
      where l.execution_id = p_id and l.seq > r.seq and l.seq <= p_until
        and l.type in ('interrupt.resumed', 'interrupt.expired', 'interrupt.cancelled') and l.payload ->> 'id' = p_interrupt
      -- An answer from outside counts, also where an event had answered in the same moment.
      order by (l.type = 'interrupt.resumed' and not l.payload ? 'byEvent') desc, l.seq
      limit 1
    ) a on true
    cross join lateral (
      with recursive term as (
        select r.at, r.seq
        union all
        select c.at, c.seq from term t
        cross join lateral (
          select l.at, l.seq from flowledger.ledger l
          where (r.payload ? 'expiresInMs' or r.payload ? 'plan') and l.execution_id = p_id and l.type = 'execution.copied' and l.payload ->> 'id' is null
            and l.seq > t.seq and l.seq <= p_until and l.seq < coalesce(a.seq, 2147483647)
            and l.at >= t.at + flowledger.ms(least((r.payload -> 'expiresInMs')::float8,
              case when r.payload ? 'plan' then flowledger.next_follow_up(p_id, p_interrupt, r.seq, r.payload -> 'plan', l.seq) end))
          order by l.seq limit 1) c
      )
      select t.at from term t order by t.seq desc limit 1
    ) asked;
end $$;

-- A correction as the ledger has it after the event p_until, with the record that the library gives. Its version says which one of
-- the execution's it is.
create or replace function flowledger.intervention_of(p_id uuid, p_intervention text, p_until int default 2147483647) returns setof flowledger.interventions
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select v.* from flowledger.ledger r
  cross join lateral (
    select count(*)::int as version from flowledger.ledger l where l.execution_id = p_id and l.type = 'intervention.recorded' and l.seq <= r.seq) n
  cross join lateral flowledger.numbered_intervention(p_id, p_intervention, n.version, p_until) v
  where r.execution_id = p_id and r.type = 'intervention.recorded' and r.payload ->> 'id' = p_intervention and r.seq <= p_until
$$;

create or replace function flowledger.numbered_intervention(p_id uuid, p_intervention text, p_version int, p_until int) returns setof flowledger.interventions
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select r.execution_id, p_version, p_intervention, coalesce(s.status, 'pending'), r.payload ->> 'target', r.payload ->> 'author',
    jsonb_build_object('id', r.payload -> 'id', 'version', p_version, 'status', coalesce(s.status, 'pending'),
      'payload', r.payload -> 'payload', 'target', r.payload -> 'target', 'author', r.payload -> 'author', 'note', r.payload -> 'note',
      'metadata', coalesce(r.payload -> 'metadata', '{}'), 'createdAt', flowledger.iso(r.at), 'insertedAt', flowledger.iso(s.inserted_at),
      'insertion', s.insertion, 'rejectedAt', null, 'rejectReason', null, 'expiredAt', flowledger.iso(s.expired_at), 'consumers', coalesce(k.consumers, '{}')),
    r.at
  from flowledger.ledger r
  cross join lateral (
    select (array_agg(split_part(l.type, '.', 2) order by l.seq desc))[1] as status,
      max(l.at) filter (where l.type = 'intervention.inserted') as inserted_at, max(l.at) filter (where l.type = 'intervention.expired') as expired_at,
      (array_agg(l.payload -> 'insertion' order by l.seq desc) filter (where l.type = 'intervention.inserted'))[1] as insertion
    from flowledger.ledger l
    where l.execution_id = p_id and l.type in ('intervention.inserted', 'intervention.expired') and l.payload ->> 'id' = p_intervention and l.seq <= p_until) s
  cross join lateral (
    select jsonb_object_agg(m.consumer, m.mark) as consumers from (
      select distinct on (l.payload ->> 'consumer') l.payload ->> 'consumer' as consumer, jsonb_build_object('status', l.payload -> 'status',
        'note', l.payload -> 'note', 'metadata', coalesce(l.payload -> 'metadata', '{}'), 'consumedAt', flowledger.iso(l.at)) as mark
      from flowledger.ledger l
      where l.execution_id = p_id and l.type = 'intervention.consumed' and l.payload ->> 'id' = p_intervention and l.seq <= p_until
      order by l.payload ->> 'consumer', l.seq desc) m) k
  where r.execution_id = p_id and r.type = 'intervention.recorded' and r.payload ->> 'id' = p_intervention and r.seq <= p_until
$$;

-- Brings the rows of interrupts and interventions up to date with the ledger after a seq, and puts the stream items that tell of
-- that. Whoever calls it holds the execution's row lock, so the rows follow the ledger's order. p_stream: false in a copy.
create or replace function flowledger.project(p_id uuid, p_first int, p_stream boolean default true) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  l record;
  v_item jsonb;
  v_items jsonb[] := '{}';
  v_dispatches int[] := '{}';
  v_shown int := 0;
  v_stopped int;
  v_assignees text[];
  v_version int;
  v_parked int := 0;
  v_unparks boolean := not p_stream;
  v_before int;
  v_after int;
  v_up uuid[];
begin
  -- Events after the stop are in no reader's stream, early or late.
  if (select e.stream_ended from flowledger.executions e where e.id = p_id) then
    v_stopped := (select min(s.seq) from (
      select r.seq from flowledger.ledger r where r.execution_id = p_id and r.type = 'stream.stopped' and r.payload ->> 'id' is null offset 0) s);
  end if;
  for l in
    select r.seq, r.type, split_part(r.type, '.', 2) as what, r.dispatch, r.chunk, r.payload as p, r.payload ->> 'id' as id
    from flowledger.ledger r
    where r.execution_id = p_id and r.seq >= p_first
      and r.type in ('interrupt.raised', 'interrupt.resumed', 'interrupt.expired', 'interrupt.cancelled', 'interrupt.claimed', 'interrupt.released',
        'interrupt.delegated', 'interrupt.snoozed', 'interrupt.escalated', 'chunk.failed', 'chunk.parked', 'chunk.retried', 'chunk.skipped', 'cleanup.planned',
        'intervention.recorded', 'intervention.inserted', 'intervention.consumed', 'intervention.expired', 'execution.copied')
    order by r.seq
  loop
    v_item := null;
    if l.type = 'chunk.failed' then
      if l.p ? 'retryInMs' then
        v_item := jsonb_build_object('type', 'retry', 'chunk', l.chunk, 'attempt', (l.p -> 'attempt')::int + 1);
      else
        v_unparks := true;
      end if;
    elsif l.type = 'chunk.parked' then
      v_parked := v_parked + 1;
    elsif l.type in ('chunk.retried', 'chunk.skipped', 'cleanup.planned') then
      v_unparks := true;
    elsif l.type = 'execution.copied' then
      update flowledger.interrupts i
      set (created_at, expires_at, due_at) = (select o.created_at, o.expires_at, o.due_at from flowledger.asked_of(p_id, i.id, l.seq) o)
      where i.execution_id = p_id and i.status = 'pending';
      perform flowledger.list_assignments(p_id, i.id) from flowledger.interrupts i
      where i.execution_id = p_id and i.status = 'pending' and i.assignees is not null;
    elsif l.type in ('interrupt.claimed', 'interrupt.released', 'interrupt.delegated', 'interrupt.snoozed', 'interrupt.escalated') then
      update flowledger.interrupts i
      set (assignees, claimed_by, claimed_at, is_exclusive, snoozed_until)
        = (select o.assignees, o.claimed_by, o.claimed_at, o.is_exclusive, o.snoozed_until from flowledger.interrupt_of(p_id, l.id, l.seq) o)
      where i.execution_id = p_id and i.id = l.id;
      if l.p ? 'assign' then
        perform flowledger.list_assignments(p_id, l.id);
      end if;
    elsif l.type like 'interrupt.%' then
      -- Nothing has been done with one that is raised, and what was done with one that ends stays.
      insert into flowledger.interrupts as i select * from flowledger.asked_of(p_id, l.id, l.seq)
      on conflict (execution_id, id) do update set chunk = excluded.chunk, type = excluded.type, status = excluded.status,
        payload = excluded.payload, resume_to = excluded.resume_to, resume_count = excluded.resume_count, max_resumes = excluded.max_resumes,
        created_at = excluded.created_at, expires_at = excluded.expires_at, resolved_at = excluded.resolved_at, value = excluded.value,
        request_id = excluded.request_id, response = excluded.response, actor = excluded.actor, raised_seq = excluded.raised_seq,
        resolved_seq = excluded.resolved_seq, by_event = excluded.by_event, title = excluded.title, due_at = excluded.due_at,
        (assignees, claimed_by, claimed_at, is_exclusive, snoozed_until) = (
          select case when k.is_same then i.assignees else excluded.assignees end, case when k.is_same then i.claimed_by end,
            case when k.is_same then i.claimed_at end, case when k.is_same then i.is_exclusive end, case when k.is_same then i.snoozed_until end
          from (select i.raised_seq = excluded.raised_seq as is_same) k)
      where (i.raised_seq, i.resolved_seq) is distinct from (excluded.raised_seq, excluded.resolved_seq)
      returning i.assignees into v_assignees;
      if found then
        if v_assignees is not null then
          perform flowledger.list_assignments(p_id, l.id);
        end if;
        v_item := jsonb_build_object('type', 'interrupt', 'executionId', p_id,
            'action', case l.what when 'raised' then 'pause' when 'resumed' then 'resume' when 'expired' then 'expire' else case when l.p ? 'withdrawn' then 'withdraw' else 'cancel' end end,
            'interrupt', flowledger.interrupt_record(p_id, l.id))
          || case when l.what = 'resumed' then jsonb_build_object('value', l.p -> 'value') else '{}' end;
      end if;
    else
      v_version := coalesce((select v.version from flowledger.interventions v where v.execution_id = p_id and v.id = l.id),
        (select max(v.version) from flowledger.interventions v where v.execution_id = p_id) + 1, 1);
      insert into flowledger.interventions as v select * from flowledger.numbered_intervention(p_id, l.id, v_version, l.seq)
      on conflict (execution_id, version) do update set status = excluded.status, record = excluded.record;
      v_item := jsonb_build_object('type', 'intervention', 'executionId', p_id,
        'action', case l.what when 'recorded' then 'append' when 'inserted' then 'insert' when 'expired' then 'expire' else 'consume' end,
        'intervention', (select v.record from flowledger.interventions v where v.execution_id = p_id and v.id = l.id));
    end if;
    if v_item is not null then
      v_items := v_items || v_item;
      v_dispatches := v_dispatches || l.dispatch;
    end if;
    if p_stream and (v_stopped is null or l.seq < v_stopped) then
      v_shown := cardinality(v_items);
    end if;
  end loop;
  select e.pending_interrupts, case when e.parent_id is not null then flowledger.visible_in(p_id) end into v_before, v_up
  from flowledger.executions e where e.id = p_id;
  update flowledger.executions e
  set pending_interrupts = case when e.closed_at is null then flowledger.waiting_on(p_id) else 0 end,
    -- A chunk that parks had run, and is one more parked. Whether one that was retried, skipped or failed was parked, the ledger says.
    parked = case when e.closed_at is not null then 0 when v_unparks and e.parked + v_parked > 0 then (select count(*) from flowledger.parked_of(p_id)) else e.parked + v_parked end,
    stream_seq = e.stream_seq + v_shown
  where e.id = p_id
  returning e.pending_interrupts into v_after;
  insert into flowledger.stream_items (execution_id, seq, epoch, at, kind, dispatch, item)
  select p_id, e.stream_seq - v_shown + v.ord, e.epoch, flowledger.now(), v.item ->> 'type', v.dispatch, v.item
  from flowledger.executions e, unnest(v_dispatches, v_items) with ordinality as v(dispatch, item, ord)
  where e.id = p_id and v.ord <= v_shown;
  if cardinality(v_up) > 0 then
    perform flowledger.propagate_up(p_id, v_up, v_after <> v_before or not p_stream,
      array(select v.item from unnest(v_items) as v(item) where p_stream and v.item ->> 'type' in ('interrupt', 'retry')));
    if v_after > v_before and p_stream then
      perform flowledger.cancel_for_close(p_id, v_up);
    end if;
  end if;
end $$;

-- Brings the rows of whom an interrupt asks up to date with its own row: only what is pending is listed.
create or replace function flowledger.list_assignments(p_id uuid, p_interrupt text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  delete from flowledger.assignments a where a.execution_id = p_id and a.interrupt_id = p_interrupt;
  insert into flowledger.assignments (principal, due_at, created_at, execution_id, interrupt_id)
  select p.principal, coalesce(i.due_at, 'infinity'), i.created_at, i.execution_id, i.id
  from flowledger.interrupts i cross join lateral unnest(i.assignees) p(principal)
  where i.execution_id = p_id and i.id = p_interrupt and i.status = 'pending';
$$;

-- A sub-flow asks while one of those above it closes and cancels what asks: then what is below that one is cancelled. The caller has
-- the locks of all of them.
create or replace function flowledger.cancel_for_close(p_id uuid, p_up uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  u record;
  v_parent flowledger.executions;
begin
  for u in
    select a.id, coalesce(p_up[a.ord - 1], p_id) as child, s.reason, s.actor
    from unnest(p_up) with ordinality as a(id, ord)
    join flowledger.executions e on e.id = a.id and e.sealed_at is not null and e.closed_at is null
    cross join lateral (
      select l.payload ->> 'reason' as reason, l.actor from flowledger.ledger l
      where l.execution_id = a.id and l.type = 'execution.sealed' and l.payload ->> 'id' is null and l.payload ->> 'pendingInterrupts' = 'cancel'
      limit 1) s
    order by a.ord
  loop
    if not flowledger.is_cancelling(u.child) then
      select * into v_parent from flowledger.executions h where h.id = u.id;
      perform flowledger.accept(v_parent, jsonb_build_array(
        jsonb_build_object('type', 'child.cancelled', 'child', u.child, 'reason', u.reason, 'actor', u.actor)), true);
      perform flowledger.request_cancel(u.child, u.reason, u.actor, true);
    end if;
  end loop;
end $$;

create or replace function flowledger.interrupt_record(p_id uuid, p_interrupt text) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_build_object('id', i.id, 'type', i.type, 'status', i.status, 'payload', i.payload, 'resumeTo', i.resume_to, 'chunk', i.chunk,
      'resumeCount', i.resume_count, 'maxResumes', i.max_resumes, 'createdAt', flowledger.iso(i.created_at),
      'expiresAt', flowledger.iso(i.expires_at), 'resolvedAt', flowledger.iso(i.resolved_at), 'value', i.value,
      'requestId', i.request_id, 'actor', i.actor, 'response', i.response, 'executionId', i.execution_id, 'flow', i.flow, 'projectedFrom', null)
      -- Fields that most records leave empty are left out.
      || case when i.title is null and i.assignees is null and i.due_at is null and i.claimed_by is null and i.snoozed_until is null then '{}'
        else jsonb_strip_nulls(jsonb_build_object('title', i.title, 'assignees', i.assignees, 'dueAt', flowledger.iso(i.due_at), 'claimedBy', i.claimed_by,
          'claimedAt', flowledger.iso(i.claimed_at), 'isExclusive', i.is_exclusive, 'snoozedUntil', flowledger.iso(i.snoozed_until))) end
    from flowledger.interrupts i where i.execution_id = p_id and i.id = p_interrupt);
end $$;

-- How many interrupts wait in an execution, its own and those of its sub-flows.
create or replace function flowledger.waiting_on(p_id uuid) returns int
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select (select count(*) from flowledger.interrupts i where i.execution_id = p_id and i.status = 'pending')::int
      + (select coalesce(sum(c.pending_interrupts), 0) from flowledger.executions c
        where c.parent_id = p_id and c.pending_interrupts > 0 and p_id = any(flowledger.visible_in(c.id)))::int);
end $$;

-- Interrupts that wait in an execution and in the sub-flows that are visible in it: each with the id that it has there.
create or replace function flowledger.pending_on(p_id uuid) returns table (id text, owner_id uuid, local_id text, created_at timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with recursive relatives as (
      select p_id as id
      union all
      select c.id from relatives f join flowledger.executions c on c.parent_id = f.id
      where c.pending_interrupts > 0 and c.closed_at is null and p_id = any(flowledger.visible_in(c.id))
    )
    select case when f.id = p_id then i.id else f.id || ':' || i.id end, f.id, i.id, i.created_at
    from relatives f join flowledger.interrupts i on i.execution_id = f.id and i.status = 'pending';
end $$;
