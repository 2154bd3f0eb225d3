-- Views and functions for auditors, derived from the ledger alone.

-- One row per execution.
create or replace view flowledger.audit_executions as
select l.execution_id,
  max(l.payload ->> 'flow') filter (where l.type = 'execution.created') as flow,
  flowledger.status_of(max(l.payload ->> 'outcome') filter (where l.type = 'execution.closed'), min(l.at) filter (where l.type = 'execution.started'), 0) as status,
  flowledger.lifecycle_of(min(l.at) filter (where l.type = 'execution.sealed'), max(l.at) filter (where l.type = 'execution.closed')) as lifecycle,
  min(l.at) filter (where l.type = 'execution.created') as created_at,
  min(l.at) filter (where l.type = 'execution.started') as started_at,
  -- The first of the ledger: a commit that waited for another one has an earlier time and a later seq.
  (array_agg(l.at order by l.seq) filter (where l.type in ('execution.sealed', 'execution.closed')))[1] as sealed_at,
  max(l.at) filter (where l.type = 'execution.closed') as closed_at,
  max(l.payload ->> 'reason') filter (where l.type = 'execution.closed') as close_reason,
  (array_agg(l.payload -> 'error' order by l.seq) filter (where l.type = 'execution.closed'))[1] as error,
  (array_agg(l.payload ->> 'fingerprint' order by l.seq desc) filter (where l.payload ? 'fingerprint' and l.type in ('execution.created', 'execution.claimed')))[1] as fingerprint,
  (array_agg(l.payload -> 'metadata' order by l.seq) filter (where l.type = 'execution.created'))[1] as metadata,
  (array_agg(l.payload -> 'input' order by l.seq) filter (where l.type = 'execution.started'))[1] as input,
  max(l.payload -> 'parent' ->> 'id') filter (where l.type = 'execution.created') as parent_id,
  max(l.payload ->> 'loadedFrom') filter (where l.type = 'execution.created') as loaded_from,
  max(l.payload -> 'forkedFrom' ->> 'id') filter (where l.type = 'execution.created') as forked_from,
  max((l.payload -> 'forkedFrom' ->> 'seq')::int) filter (where l.type = 'execution.created') as forked_at_seq,
  count(*)::int as events,
  max(l.seq) as last_seq
from flowledger.ledger l
group by l.execution_id;

-- One row per event. `role` is the database role that wrote it; what an owner wrote has the role of its claim.
create or replace view flowledger.audit_ledger as
select l.execution_id, l.seq, l.at, l.type, l.chunk, l.actor, l.payload - 'moves' as payload, l.dispatch, l.epoch,
  (select c.payload ->> 'flow' from flowledger.ledger c where c.execution_id = l.execution_id and c.seq = 1) as flow,
  coalesce(l.role, (select c.role from flowledger.ledger c
    where c.execution_id = l.execution_id and c.seq <= l.seq and c.epoch = l.epoch and c.type = 'execution.claimed' order by c.seq desc limit 1)) as role,
  l.copied_at
from flowledger.ledger l;

-- One row per pause: an interrupt id that is used again has several.
create or replace view flowledger.audit_interrupts as
select i.execution_id, i.id, i.flow, i.chunk, i.type, i.status, i.payload, i.response, i.resume_to, i.resume_count, i.max_resumes,
  i.raised_seq, i.created_at as raised_at, i.expires_at, i.resolved_seq, i.resolved_at,
  coalesce(i.resolved_at, flowledger.now()) - i.created_at as waited, i.value, i.actor, i.request_id, i.by_event,
  i.title, i.assignees, i.due_at, i.claimed_by, i.claimed_at, i.is_exclusive, i.snoozed_until
from (
  select l.execution_id, l.payload ->> 'id' as id, lead(l.seq) over (partition by l.execution_id, l.payload ->> 'id' order by l.seq) as next_seq
  from flowledger.ledger l where l.type = 'interrupt.raised'
) r
cross join lateral flowledger.interrupt_of(r.execution_id, r.id, coalesce(r.next_seq - 1, 2147483647)) i;

-- One row per correction, with `record` as the library gives it.
create or replace view flowledger.audit_interventions as
select v.execution_id, v.version, v.id,
  (select c.payload ->> 'flow' from flowledger.ledger c where c.execution_id = r.execution_id and c.seq = 1) as flow,
  v.status, v.record -> 'payload' as payload, v.target, v.author, v.record ->> 'note' as note, v.record -> 'metadata' as metadata,
  v.created_at as recorded_at, (v.record ->> 'insertedAt')::timestamptz as inserted_at, nullif(v.record -> 'insertion', 'null') as insertion,
  (v.record ->> 'expiredAt')::timestamptz as expired_at, v.record -> 'consumers' as consumers, v.record
from flowledger.ledger r
cross join lateral flowledger.intervention_of(r.execution_id, r.payload ->> 'id') v
where r.type = 'intervention.recorded';

-- One row per write to an application's state.
create or replace view flowledger.audit_state_changes as
select l.execution_id, l.seq, l.at, l.chunk, l.dispatch, split_part(l.type, '.', 2) as change, l.payload ->> 'key' as key, l.payload -> 'value' as value
from flowledger.ledger l
where l.type in ('state.set', 'state.appended', 'state.deleted')
union all
-- Edits of state by operators; actor and reason are in the ledger, under the same seq.
select l.execution_id, l.seq, l.at, null, null, case c.change ->> 'op' when 'set' then 'set' else 'deleted' end, c.change ->> 'path', c.change -> 'value'
from flowledger.ledger l cross join lateral jsonb_array_elements(l.payload -> 'changes') c(change)
where l.type = 'state.edited';

-- Dot paths: the same rules as in `base/path.ts`.

create or replace function flowledger.refuse_path(p_path text) returns text[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception '% is not a path', coalesce(to_json(left(p_path, 40))::text, 'null')
    using errcode = 'FL008', hint = 'use "key" or "key.part": up to 200 parts, 2000 bytes, none of them empty or __proto__';
end $$;

-- The parts of a path that may be written to.
create or replace function flowledger.path_of(p_path text) returns text[]
language sql immutable parallel safe
return case when cardinality(string_to_array(p_path, '.')) between 1 and 200 and octet_length(p_path) <= 2000
    and '' <> all(string_to_array(p_path, '.')) and '__proto__' <> all(string_to_array(p_path, '.'))
  then string_to_array(p_path, '.') else flowledger.refuse_path(p_path) end;

-- Is the path's holder an object all the way?
create or replace function flowledger.state_holds(p_values jsonb, p_path text[]) returns boolean
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  for i in 1 .. cardinality(p_path) - 1 loop
    p_values := p_values -> p_path[i];
    if jsonb_typeof(p_values) is distinct from 'object' then
      return false;
    end if;
  end loop;
  return true;
end $$;

-- Sets by path, making objects on the way.
create or replace function flowledger.state_set(p_values jsonb, p_path text[], p_value jsonb) returns jsonb
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  for i in 1 .. cardinality(p_path) - 1 loop
    if jsonb_typeof(p_values #> p_path[1:i]) is distinct from 'object' then
      p_values := jsonb_set(p_values, p_path[1:i], '{}');
    end if;
  end loop;
  return jsonb_set(p_values, p_path, p_value);
end $$;

create or replace function flowledger.state_append(p_values jsonb, p_path text[], p_items jsonb[]) returns jsonb
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return flowledger.state_set(p_values, p_path,
    flowledger.list_append(case when flowledger.state_holds(p_values, p_path) then p_values #> p_path end, p_items));
end $$;

create or replace function flowledger.state_delete(p_values jsonb, p_path text[]) returns jsonb
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case when flowledger.state_holds(p_values, p_path) then p_values #- p_path else p_values end;
end $$;

-- The application state after the event p_seq: what the execution began with, and every write to it.
create or replace function flowledger.state_at(id uuid, seq int default null) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  l record;
  v_values jsonb := coalesce((select c.payload -> 'state' from flowledger.ledger c where c.execution_id = state_at.id and c.seq = 1), '{}');
  v_path text[];
  v_items jsonb[] := '{}';
  v_last int := (select max(c.seq) from flowledger.ledger c where c.execution_id = state_at.id);
begin
  -- As `stateAt` of the library does.
  if v_last is null then
    raise exception 'execution % does not exist', state_at.id
      using errcode = 'FL001', hint = 'check the id, and that you are connected to the database it was started in';
  elsif state_at.seq not between 1 and v_last then
    raise exception 'execution % has no event %', state_at.id, state_at.seq using errcode = 'FL008', hint = format('use a seq from 1 to %s', v_last);
  end if;
  for l in
    select r.type, flowledger.path_of(r.key) as path, r.value from (
      select w.*,
        -- Writes below a key before it was replaced as a whole no longer count.
        max(w.seq) filter (where w.type <> 'state.appended' and strpos(w.key, '.') = 0) over (partition by split_part(w.key, '.', 1)) as since
      from (
        select c.seq, 0::bigint as ord, c.type, c.payload ->> 'key' as key, c.payload -> 'value' as value
        from flowledger.ledger c
        where c.execution_id = state_at.id and c.seq <= coalesce(state_at.seq, 2147483647)
          and c.type in ('state.set', 'state.appended', 'state.deleted')
        union all
        select c.seq, x.ord, case x.change ->> 'op' when 'set' then 'state.set' else 'state.deleted' end, x.change ->> 'path', x.change -> 'value'
        from flowledger.ledger c cross join lateral jsonb_array_elements(c.payload -> 'changes') with ordinality x(change, ord)
        where c.execution_id = state_at.id and c.seq <= coalesce(state_at.seq, 2147483647) and c.type = 'state.edited') w
    ) r
    where r.seq >= coalesce(r.since, 0)
    order by split_part(r.key, '.', 1), r.seq, r.ord
  loop
    -- Appends to one list in a row are written at once.
    if v_path is not null and (l.type <> 'state.appended' or l.path <> v_path) then
      v_values := flowledger.state_append(v_values, v_path, v_items);
      v_path := null;
      v_items := '{}';
    end if;
    if l.type = 'state.appended' then
      v_path := l.path;
      v_items := v_items || l.value;
    elsif l.type = 'state.set' then
      v_values := flowledger.state_set(v_values, l.path, l.value);
    else
      v_values := flowledger.state_delete(v_values, l.path);
    end if;
  end loop;
  return case when v_path is null then v_values else flowledger.state_append(v_values, v_path, v_items) end;
end $$;

-- The close snapshot of an execution: its state, `$final_result` and `$interventions` where used. Null while it is open.
create or replace function flowledger.close_snapshot(id uuid) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_snapshot jsonb;
  v_result jsonb;
begin
  if not exists (select 1 from flowledger.ledger l where l.execution_id = close_snapshot.id and l.type = 'execution.closed') then
    return null;
  end if;
  v_snapshot := flowledger.state_at(close_snapshot.id);
  -- The result of an item is what it hands to its parent, whatever it wrote under that name.
  if not v_snapshot ? '$final_result' or flowledger.is_item(close_snapshot.id) then
    select l.payload -> 'value' into v_result from flowledger.ledger l
    where l.execution_id = close_snapshot.id and l.type = 'result.set' order by l.seq desc limit 1;
    if not found then
      select m.move -> 'value' into v_result
      from flowledger.ledger l, jsonb_array_elements(l.payload -> 'moves') with ordinality m(move, ord)
      where l.execution_id = close_snapshot.id and l.payload ? 'moves' and m.move ->> 'move' = 'finalResult'
      order by l.seq desc, m.ord desc limit 1;
    end if;
    if found then
      v_snapshot := v_snapshot || jsonb_build_object('$final_result', coalesce(v_result, 'null'));
    end if;
  end if;
  return v_snapshot || coalesce((
    select jsonb_build_object('$interventions', jsonb_object_agg(i.id, i.record))
    from flowledger.audit_interventions i where i.execution_id = close_snapshot.id having count(*) > 0), '{}');
end $$;

-- How many interrupts wait in an execution and in the open sub-flows that are visible in it, by their ledgers.
create or replace function flowledger.pending_in(p_id uuid) returns int
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive relatives as (
    select p_id as id
    union all
    select c.execution_id
    from relatives f
    join flowledger.ledger s on s.execution_id = f.id and s.type = 'child.started'
    join flowledger.ledger c on c.execution_id = (s.payload ->> 'child')::uuid and c.seq = 1 and c.payload -> 'parent' -> 'visibleIn' ? p_id::text
    where not exists (select from flowledger.ledger x where x.execution_id = c.execution_id and x.type = 'execution.closed')
  ), raised as (
    select distinct f.id, r.payload ->> 'id' as interrupt from relatives f join flowledger.ledger r on r.execution_id = f.id and r.type = 'interrupt.raised'
  )
  select count(*)::int from raised r cross join lateral flowledger.asked_of(r.id, r.interrupt) i where i.status = 'pending'
$$;

-- `ctx.startInput`: the input of an execution, as the contract made it; of an item the input of its parent.
create or replace function flowledger.start_input(p_id uuid) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive above as (
    select p_id as id, 0 as depth
    union all
    select (l.payload -> 'parent' ->> 'id')::uuid, a.depth + 1
    from above a join flowledger.ledger l on l.execution_id = a.id and l.seq = 1 where l.payload ? 'item' and l.payload ? 'parent'
  )
  select coalesce(r.payload -> 'value', s.payload -> 'input')
  from (select a.id from above a order by a.depth desc limit 1) a
  join flowledger.ledger s on s.execution_id = a.id and s.type = 'execution.started'
  left join flowledger.ledger r on r.execution_id = a.id and r.type = 'inbox.routed' and (r.payload ->> 'of')::int = s.seq
$$;

create or replace function flowledger.meta(id uuid) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  -- Types that there are few of, in one pass.
  with rare as materialized (
    select l.seq, l.type, l.payload, l.copied_at from flowledger.ledger l
    where l.execution_id = meta.id and l.type in ('execution.created', 'execution.claimed', 'execution.blocked',
      'interrupt.expired', 'interrupt.answered', 'interrupt.resumed', 'interrupt.refused')
  )
  select jsonb_build_object('executionId', e.execution_id, 'runId', e.execution_id, 'flowName', e.flow,
    'status', case when e.status = 'running' and exists (select from flowledger.parked_of(meta.id)) then 'parked'
      when e.status = 'running' and flowledger.pending_in(meta.id) > 0 then 'waiting' else e.status end,
    'lifecycleState', e.lifecycle, 'createdAt', flowledger.iso(e.created_at), 'startedAt', flowledger.iso(e.started_at),
    'startInput', coalesce(flowledger.start_input(meta.id), 'null'),
    'sealedAt', flowledger.iso(e.sealed_at), 'closedAt', flowledger.iso(e.closed_at), 'closeReason', e.close_reason,
    'stateVersion', e.last_seq, 'fingerprint', e.fingerprint,
    'blocked', (select max(l.payload ->> 'problem') from rare l where l.type = 'execution.blocked'
      and not exists (select 1 from rare c where c.type = 'execution.claimed' and c.seq > l.seq)),
    'paused', (select jsonb_build_object('at', flowledger.iso(p.at), 'until', flowledger.iso(p.until), 'actor', p.actor, 'reason', p.reason) from flowledger.pause_of(meta.id) p),
    'parentId', e.parent_id, 'metadata', coalesce(e.metadata, '{}'),
    'resourceKeys', coalesce((select l.payload -> 'resourceKeys' from flowledger.ledger l where l.execution_id = meta.id and l.seq = 1), '[]'),
    'loadedFrom', e.loaded_from, 'forkedFrom', e.forked_from,
    -- Copied events belong to the trace of another execution.
    'trace', (select l.payload ->> 'traceparent' from rare l
      where l.type in ('execution.created', 'execution.claimed') and l.copied_at is null and l.payload ? 'traceparent'
      order by l.seq desc limit 1))
    || coalesce((
      select jsonb_build_object('expiredInterrupts', jsonb_agg(x.id order by x.seq))
      from (
        select l.payload ->> 'id' as id, max(l.seq) as seq from rare l where l.type = 'interrupt.expired' group by 1
      ) x having count(*) > 0), '{}')
    || coalesce((
      select jsonb_build_object('earlyAnswers', jsonb_agg(l.payload ->> 'id' order by l.seq))
      from rare l
      where l.type = 'interrupt.answered' and not exists (
        select from rare t where t.type in ('interrupt.resumed', 'interrupt.refused')
          and (t.payload ->> 'early')::int = l.seq)
      having count(*) > 0), '{}')
  from flowledger.audit_executions e where e.execution_id = meta.id
$$;
