-- What auditors read, derived from the ledger alone; copies and roles. `migrations/0002_audit.sql` is this file.

-- One row per execution.
create or replace view flowledger.audit_executions as
select l.execution_id,
  max(l.payload ->> 'flow') filter (where l.type = 'execution.created') as flow,
  coalesce(max(l.payload ->> 'outcome') filter (where l.type = 'execution.closed'),
    case when bool_or(l.type = 'execution.started') then 'running' else 'created' end) as status,
  case when bool_or(l.type = 'execution.closed') then 'closed' when bool_or(l.type = 'execution.sealed') then 'sealed' else 'open' end as lifecycle,
  min(l.at) filter (where l.type = 'execution.created') as created_at,
  min(l.at) filter (where l.type = 'execution.started') as started_at,
  min(l.at) filter (where l.type in ('execution.sealed', 'execution.closed')) as sealed_at,
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

-- One row per event.
create or replace view flowledger.audit_ledger as
select l.execution_id, l.seq, l.at, l.type, l.chunk, l.actor, l.payload - 'moves' as payload, l.dispatch, l.epoch,
  (select c.payload ->> 'flow' from flowledger.ledger c where c.execution_id = l.execution_id and c.seq = 1) as flow
from flowledger.ledger l;

-- One row per pause: an interrupt id that is used again has several.
create or replace view flowledger.audit_interrupts as
select r.execution_id, r.payload ->> 'id' as id,
  (select c.payload ->> 'flow' from flowledger.ledger c where c.execution_id = r.execution_id and c.seq = 1) as flow,
  r.chunk, r.payload ->> 'kind' as type,
  case a.type when 'interrupt.resumed' then 'resumed' when 'interrupt.expired' then 'expired' when 'interrupt.cancelled' then 'cancelled' else 'pending' end as status,
  r.payload -> 'payload' as payload, r.payload -> 'response' as response, r.payload -> 'resumeTo' as resume_to,
  (r.payload ->> 'resumeCount')::int as resume_count, (r.payload ->> 'maxResumes')::int as max_resumes,
  r.seq as raised_seq, r.at as raised_at, r.at + (r.payload ->> 'expiresInMs')::float8 * interval '1 millisecond' as expires_at,
  a.seq as resolved_seq, a.at as resolved_at, coalesce(a.at, clock_timestamp()) - r.at as waited,
  a.payload -> 'value' as value, a.actor, a.payload ->> 'requestId' as request_id, a.payload ->> 'byEvent' as by_event
from (
  select l.*, lead(l.seq) over (partition by l.execution_id, l.payload ->> 'id' order by l.seq) as next_seq
  from flowledger.ledger l where l.type = 'interrupt.raised'
) r
left join lateral (
  select l.* from flowledger.ledger l
  where l.execution_id = r.execution_id and l.seq > r.seq and l.seq < coalesce(r.next_seq, 2147483647)
    and l.type in ('interrupt.resumed', 'interrupt.expired', 'interrupt.cancelled') and l.payload ->> 'id' = r.payload ->> 'id'
  -- An answer from outside counts, also where an event had answered in the same moment.
  order by (l.type = 'interrupt.resumed' and not l.payload ? 'byEvent') desc, l.seq
  limit 1
) a on true;

-- One row per correction, with `record` as the library gives it.
create or replace view flowledger.audit_interventions as
select r.execution_id, r.version::int, r.payload ->> 'id' as id,
  (select c.payload ->> 'flow' from flowledger.ledger c where c.execution_id = r.execution_id and c.seq = 1) as flow,
  case s.type when 'intervention.inserted' then 'inserted' when 'intervention.expired' then 'expired' else 'pending' end as status,
  r.payload -> 'payload' as payload, r.payload ->> 'target' as target, r.payload ->> 'author' as author, r.payload ->> 'note' as note,
  coalesce(r.payload -> 'metadata', '{}') as metadata, r.at as recorded_at, i.at as inserted_at, i.payload -> 'insertion' as insertion,
  x.at as expired_at, coalesce(k.consumers, '{}') as consumers,
  jsonb_build_object('id', r.payload -> 'id', 'version', r.version,
    'status', case s.type when 'intervention.inserted' then 'inserted' when 'intervention.expired' then 'expired' else 'pending' end,
    'payload', r.payload -> 'payload', 'target', r.payload -> 'target', 'author', r.payload -> 'author', 'note', r.payload -> 'note',
    'metadata', coalesce(r.payload -> 'metadata', '{}'), 'createdAt', flowledger.iso(r.at), 'insertedAt', flowledger.iso(i.at),
    'insertion', i.payload -> 'insertion', 'rejectedAt', null, 'rejectReason', null, 'expiredAt', flowledger.iso(x.at),
    'consumers', coalesce(k.consumers, '{}')) as record
from (
  select l.*, row_number() over (partition by l.execution_id order by l.seq) as version
  from flowledger.ledger l where l.type = 'intervention.recorded'
) r
left join lateral (
  select l.type from flowledger.ledger l where l.execution_id = r.execution_id and l.type in ('intervention.inserted', 'intervention.expired')
    and l.payload ->> 'id' = r.payload ->> 'id' order by l.seq desc limit 1) s on true
left join lateral (
  select l.at, l.payload from flowledger.ledger l where l.execution_id = r.execution_id and l.type = 'intervention.inserted'
    and l.payload ->> 'id' = r.payload ->> 'id' order by l.seq desc limit 1) i on true
left join lateral (
  select l.at from flowledger.ledger l where l.execution_id = r.execution_id and l.type = 'intervention.expired'
    and l.payload ->> 'id' = r.payload ->> 'id' order by l.seq desc limit 1) x on true
left join lateral (
  select jsonb_object_agg(m.consumer, m.mark) as consumers from (
    select distinct on (l.payload ->> 'consumer') l.payload ->> 'consumer' as consumer, jsonb_build_object('status', l.payload -> 'status',
      'note', l.payload -> 'note', 'metadata', coalesce(l.payload -> 'metadata', '{}'), 'consumedAt', flowledger.iso(l.at)) as mark
    from flowledger.ledger l where l.execution_id = r.execution_id and l.type = 'intervention.consumed' and l.payload ->> 'id' = r.payload ->> 'id'
    order by l.payload ->> 'consumer', l.seq desc) m) k on true;

-- One row per write to an application's state.
create or replace view flowledger.audit_state_changes as
select l.execution_id, l.seq, l.at, l.chunk, l.dispatch, split_part(l.type, '.', 2) as change, l.payload ->> 'key' as key, l.payload -> 'value' as value
from flowledger.ledger l
where l.type in ('state.set', 'state.appended', 'state.deleted');

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
declare
  v_old jsonb := case when flowledger.state_holds(p_values, p_path) then p_values #> p_path end;
begin
  return flowledger.state_set(p_values, p_path, case
    when v_old is null then to_jsonb(p_items)
    when jsonb_typeof(v_old) = 'array' then v_old || to_jsonb(p_items)
    else jsonb_build_array(v_old) || to_jsonb(p_items) end);
end $$;

-- The application state after the event p_seq.
create or replace function flowledger.state_at(id uuid, seq int default null) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  l record;
  v_values jsonb := '{}';
  v_key text;
  v_items jsonb[] := '{}';
begin
  for l in
    select r.type, r.key, r.value, string_to_array(r.key, '.') as path from (
      select c.seq, c.type, c.payload ->> 'key' as key, c.payload -> 'value' as value,
        -- What was written below a key before it was replaced as a whole no longer counts.
        max(c.seq) filter (where c.type <> 'state.appended' and strpos(c.payload ->> 'key', '.') = 0)
          over (partition by split_part(c.payload ->> 'key', '.', 1)) as since
      from flowledger.ledger c
      where c.execution_id = state_at.id and c.seq <= coalesce(state_at.seq, 2147483647)
        and c.type in ('state.set', 'state.appended', 'state.deleted')
    ) r
    where r.seq >= coalesce(r.since, 0)
    order by split_part(r.key, '.', 1), r.seq
  loop
    -- Appends to one list in a row are written at once.
    if v_key is not null and (l.type <> 'state.appended' or l.key <> v_key) then
      v_values := flowledger.state_append(v_values, string_to_array(v_key, '.'), v_items);
      v_key := null;
      v_items := '{}';
    end if;
    if l.type = 'state.appended' then
      v_key := l.key;
      v_items := v_items || l.value;
    elsif l.type = 'state.set' then
      v_values := flowledger.state_set(v_values, l.path, l.value);
    elsif flowledger.state_holds(v_values, l.path) then
      v_values := v_values #- l.path;
    end if;
  end loop;
  return case when v_key is null then v_values else flowledger.state_append(v_values, string_to_array(v_key, '.'), v_items) end;
end $$;

-- The value that an event of the ledger sends on its way.
create or replace function flowledger.event_value(p_id uuid, p_seq int) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  l flowledger.ledger;
begin
  select * into l from flowledger.ledger r where r.execution_id = p_id and r.seq = p_seq;
  return case l.type
    when 'chunk.completed' then l.payload -> 'output'
    when 'execution.started' then l.payload -> 'input'
    when 'inbox.routed' then flowledger.event_value(p_id, (l.payload ->> 'of')::int)
    when 'event.emitted' then l.payload -> 'payload'
    when 'interrupt.resumed' then l.payload -> 'value'
    when 'state.set' then l.payload -> 'value'
    when 'state.appended' then flowledger.state_at(p_id, p_seq) #> string_to_array(l.payload ->> 'key', '.')
    when 'value.routed' then flowledger.dispatch_input(p_id, l.dispatch)
    else 'null' end;
end $$;

-- The value that a move of that event carries.
create or replace function flowledger.move_value(p_id uuid, p_seq int, p_from jsonb) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_open jsonb;
begin
  if p_from is null then
    return flowledger.event_value(p_id, p_seq);
  elsif p_from ? 'event' then
    return jsonb_build_object('event', p_from -> 'event', 'value', flowledger.event_value(p_id, p_seq));
  elsif p_from ? 'join' then
    return (
      select coalesce(jsonb_object_agg(m.move ->> 'event', flowledger.event_value(p_id, l.seq) order by l.seq), '{}')
      from flowledger.ledger l, jsonb_array_elements(l.payload -> 'moves') m(move)
      where l.execution_id = p_id and l.seq <= p_seq and m.move ->> 'move' = 'arm' and m.move -> 'join' = p_from -> 'join'
        and l.seq > coalesce((
          select max(d.seq) from flowledger.ledger d
          where d.execution_id = p_id and d.seq < p_seq
            and d.payload -> 'moves' @> jsonb_build_array(jsonb_build_object('move', 'disarm', 'join', p_from -> 'join'))), 0));
  end if;
  select m.move into v_open
  from flowledger.ledger l, jsonb_array_elements(l.payload -> 'moves') m(move)
  where l.execution_id = p_id and l.seq <= p_seq and m.move ->> 'move' = 'open' and m.move -> 'id' = p_from -> 'frame'
  order by l.seq limit 1;
  if not found then
    -- A distributed collection: its items' results came in batches.
    select jsonb_strip_nulls(jsonb_build_object('size', l.payload -> 'size', 'keys', l.payload -> 'keys')) into v_open
    from flowledger.ledger l
    where l.execution_id = p_id and l.type = 'items.started' and l.dispatch = (p_from ->> 'frame')::int;
  end if;
  return (
    with results as (
      select distinct on ((m.move ->> 'index')::int) (m.move ->> 'index')::int as index, flowledger.move_value(p_id, l.seq, m.move -> 'from') as value
      from flowledger.ledger l, jsonb_array_elements(l.payload -> 'moves') m(move)
      where l.execution_id = p_id and l.seq <= p_seq and m.move ->> 'move' = 'collect' and m.move -> 'frame' = p_from -> 'frame'
      order by (m.move ->> 'index')::int, l.seq
    ), items as (
      select (r.result ->> 0)::int as index, r.result -> 1 as value
      from flowledger.ledger l, jsonb_array_elements(l.payload -> 'results') r(result)
      where l.execution_id = p_id and l.type = 'items.closed' and l.dispatch = (p_from ->> 'frame')::int)
    select case when v_open ? 'keys' then jsonb_object_agg(v_open -> 'keys' ->> place.index, coalesce(r.value, 'null'))
      else coalesce(jsonb_agg(coalesce(r.value, 'null') order by place.index), '[]') end
    from generate_series(0, (v_open ->> 'size')::int - 1) place(index)
    left join (select * from results union all select * from items) r on r.index = place.index);
end $$;

-- What a dispatch was given.
create or replace function flowledger.dispatch_input(p_id uuid, p_dispatch int) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  l record;
  v_items jsonb;
begin
  select r.seq, m.move into l
  from flowledger.ledger r, jsonb_array_elements(r.payload -> 'moves') m(move)
  where r.execution_id = p_id and (
    m.move ->> 'move' = 'run' and (m.move ->> 'id')::int = p_dispatch
    or m.move ->> 'move' = 'open' and m.move ? 'entries' and p_dispatch > (m.move ->> 'id')::int
      and p_dispatch <= (m.move ->> 'id')::int + (m.move ->> 'size')::int * jsonb_array_length(m.move -> 'entries'))
  order by r.seq limit 1;
  if not found then
    return 'null';
  elsif l.move ->> 'move' = 'open' then
    v_items := flowledger.move_value(p_id, l.seq, l.move -> 'from');
    v_items := case jsonb_typeof(v_items) when 'array' then v_items else jsonb_build_array(v_items) end;
    return v_items -> ((p_dispatch - (l.move ->> 'id')::int - 1) / jsonb_array_length(l.move -> 'entries'));
  elsif l.move ? 'resume' then
    return flowledger.dispatch_input(p_id, (
      select r.dispatch from flowledger.ledger r
      where r.execution_id = p_id and r.seq < l.seq and r.type = 'interrupt.raised' and r.payload -> 'id' = l.move -> 'resume'
      order by r.seq desc limit 1));
  end if;
  return flowledger.move_value(p_id, l.seq, l.move -> 'from');
end $$;

-- What an execution ended with: its state, `$final_result` and `$interventions` where used. Null while it is open.
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
  if not v_snapshot ? '$final_result' then
    select l.payload -> 'value' into v_result from flowledger.ledger l
    where l.execution_id = close_snapshot.id and l.type = 'result.set' order by l.seq desc limit 1;
    if not found then
      select coalesce(m.move -> 'value', flowledger.move_value(close_snapshot.id, l.seq, m.move -> 'from')) into v_result
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

create or replace function flowledger.meta(id uuid) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('executionId', e.execution_id, 'runId', e.execution_id, 'flowName', e.flow,
    'status', case when e.status = 'running' and exists (
      select 1 from flowledger.audit_interrupts i where i.execution_id = meta.id and i.status = 'pending') then 'waiting' else e.status end,
    'lifecycleState', e.lifecycle, 'createdAt', flowledger.iso(e.created_at), 'startedAt', flowledger.iso(e.started_at),
    'sealedAt', flowledger.iso(e.sealed_at), 'closedAt', flowledger.iso(e.closed_at), 'closeReason', e.close_reason,
    'stateVersion', e.last_seq, 'fingerprint', e.fingerprint,
    'blocked', (select max(l.payload ->> 'problem') from flowledger.ledger l where l.execution_id = meta.id and l.type = 'execution.blocked'
      and not exists (select 1 from flowledger.ledger c where c.execution_id = meta.id and c.type = 'execution.claimed' and c.seq > l.seq)),
    'parentId', e.parent_id, 'metadata', coalesce(e.metadata, '{}'),
    'resourceKeys', coalesce((select l.payload -> 'resourceKeys' from flowledger.ledger l where l.execution_id = meta.id and l.seq = 1), '[]'),
    'loadedFrom', e.loaded_from, 'forkedFrom', e.forked_from)
  from flowledger.audit_executions e where e.execution_id = meta.id
$$;

-- A new execution whose ledger is the past of another. p_header: { flow, epoch, priority, metadata, fingerprint, sealed, started,
-- closed, outcome, reason, error, snapshot, streamEnded }, folded by the caller from the same events;
-- p_events: [[epoch, ms, type, dispatch, chunk, actor, payload]], seq 1 first. It goes on at once.
create or replace function flowledger.copy_execution(p_id uuid, p_header jsonb, p_events jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into flowledger.executions (id, seq, epoch, flow, priority, created_at, started_at, sealed_at, closed_at, wake_at, fingerprint,
    metadata, outcome, close_reason, error, close_snapshot, stream_ended)
  values (p_id, jsonb_array_length(p_events), (p_header ->> 'epoch')::int, p_header ->> 'flow', 0,
    to_timestamp((p_events -> 0 ->> 1)::float8 / 1000), to_timestamp((p_header ->> 'started')::float8 / 1000),
    to_timestamp((p_header ->> 'sealed')::float8 / 1000), to_timestamp((p_header ->> 'closed')::float8 / 1000),
    case when p_header ->> 'closed' is null and p_header ->> 'started' is not null then clock_timestamp() end,
    p_header ->> 'fingerprint', nullif(p_header -> 'metadata', 'null'), p_header ->> 'outcome', p_header ->> 'reason',
    nullif(p_header -> 'error', 'null'), nullif(p_header -> 'snapshot', 'null'), (p_header ->> 'streamEnded')::boolean);
  insert into flowledger.ledger (execution_id, seq, epoch, at, type, dispatch, chunk, actor, payload)
  select p_id, v.ord, (v.event ->> 0)::int, to_timestamp((v.event ->> 1)::float8 / 1000), v.event ->> 2, (v.event ->> 3)::int,
    v.event ->> 4, v.event ->> 5, nullif(v.event -> 6, 'null')
  from jsonb_array_elements(p_events) with ordinality as v(event, ord);
  perform flowledger.project(p_id, 1, false);
  perform flowledger.extend_chain(array[p_id]);
  perform flowledger.add_jobs(array[p_id]);
end $$;

-- Derived rows that are not what the ledger says: what is there, and what should be; null where there is none, or should be
-- none. What belongs to the lease is left out. p_snapshots: { id: close snapshot }, folded by the caller; p_kept:
-- [{ id, seq, state }], what kept snapshots should be.
create or replace function flowledger.differences(p_ids uuid[], p_snapshots jsonb, p_kept jsonb)
returns table (id uuid, name text, part text, actual jsonb, expected jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  with ledger_says as materialized (
    select a.execution_id as id, 'executions' as name, null as part, jsonb_build_object(
      'id', a.execution_id, 'seq', a.last_seq, 'flow', a.flow, 'fingerprint', a.fingerprint, 'priority', coalesce((c.payload -> 'priority')::int, 0),
      'idempotency_key', c.payload -> 'idempotencyKey', 'limit_key', (select l.payload -> 'limitKey' from flowledger.ledger l
        where l.execution_id = a.execution_id and l.type = 'execution.started' limit 1), 'parent_id', a.parent_id, 'metadata', a.metadata,
      'created_at', a.created_at, 'started_at', a.started_at, 'sealed_at', a.sealed_at, 'closed_at', a.closed_at,
      'outcome', case when a.closed_at is not null then a.status end, 'close_reason', a.close_reason, 'error', nullif(a.error, 'null'),
      'close_snapshot', case when a.closed_at is not null then coalesce(p_snapshots -> a.execution_id::text, flowledger.close_snapshot(a.execution_id)) end,
      'epoch', greatest((select e.epoch from flowledger.executions e where e.id = a.execution_id),
        (select max(l.epoch) from flowledger.ledger l where l.execution_id = a.execution_id)),
      'stream_ended', exists (select from flowledger.ledger l where l.execution_id = a.execution_id and l.type = 'stream.stopped'),
      'stream_seq', (select coalesce(max(i.seq), 0) from flowledger.stream_items i where i.execution_id = a.execution_id),
      -- Its own, and as long as it is open those of its sub-flows.
      'pending_interrupts', (select count(*) from flowledger.audit_interrupts i
        where i.execution_id = a.execution_id and i.status = 'pending')
        + (select coalesce(sum(s.pending_interrupts), 0) from flowledger.executions s
        where a.closed_at is null and s.parent_id = a.execution_id and s.pending_interrupts > 0 and a.execution_id = any(flowledger.visible_in(s.id)))) as value
    from flowledger.audit_executions a
    join flowledger.ledger c on c.execution_id = a.execution_id and c.seq = 1
    where a.execution_id = any(p_ids)
    union all
    select i.execution_id, 'interrupts', i.id, jsonb_build_object('execution_id', i.execution_id, 'id', i.id, 'flow', i.flow, 'chunk', i.chunk,
      'type', i.type, 'status', i.status, 'payload', i.payload, 'resume_to', i.resume_to, 'resume_count', i.resume_count,
      'max_resumes', i.max_resumes, 'created_at', i.raised_at, 'expires_at', i.expires_at, 'resolved_at', i.resolved_at,
      'value', i.value, 'request_id', i.request_id, 'response', i.response, 'actor', i.actor)
    from (select distinct on (x.execution_id, x.id) x.* from flowledger.audit_interrupts x where x.execution_id = any(p_ids)
      order by x.execution_id, x.id, x.raised_seq desc) i
    union all
    select i.execution_id, 'interventions', i.version::text, jsonb_build_object('execution_id', i.execution_id, 'version', i.version, 'id', i.id,
      'status', i.status, 'target', i.target, 'author', i.author, 'record', i.record, 'created_at', i.recorded_at)
    from flowledger.audit_interventions i where i.execution_id = any(p_ids)
    union all
    select s.execution_id, 'snapshots', null, jsonb_build_object('execution_id', s.execution_id, 'seq', s.seq, 'version', s.version, 'state', k.state)
    from jsonb_to_recordset(p_kept) as k(id uuid, seq int, state jsonb)
    join flowledger.snapshots s on s.execution_id = k.id and s.seq = k.seq
    where k.state is not null
  ), there as materialized (
    select e.id, 'executions' as name, null as part,
      to_jsonb(e) - '{commit_no,commit_seq,stream_no,takeovers,owner,token,wake_at,lifecycle,status}'::text[] as value
    from flowledger.executions e where e.id = any(p_ids)
    union all
    select i.execution_id, 'interrupts', i.id, to_jsonb(i) from flowledger.interrupts i where i.execution_id = any(p_ids)
    union all
    select i.execution_id, 'interventions', i.version::text, to_jsonb(i) from flowledger.interventions i where i.execution_id = any(p_ids)
    union all
    select s.execution_id, 'snapshots', null, to_jsonb(s)
    from jsonb_to_recordset(p_kept) as k(id uuid, seq int) join flowledger.snapshots s on s.execution_id = k.id and s.seq = k.seq
  )
  select coalesce(t.id, l.id), coalesce(t.name, l.name), coalesce(t.part, l.part), t.value, l.value
  from there t full join ledger_says l on l.id = t.id and l.name = t.name and coalesce(l.part, '') = coalesce(t.part, '')
  where l.value is distinct from t.value
$$;

-- Puts right what `differences` finds, and returns that. The rows are locked, so live owners wait; the ledger is only read.
create or replace function flowledger.rebuild(p_ids uuid[], p_snapshots jsonb, p_kept jsonb)
returns table (id uuid, name text, part text, actual jsonb, expected jsonb)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  d record;
begin
  perform from flowledger.executions e where e.id = any(p_ids) order by e.id for no key update;
  for d in select x.* from flowledger.differences(p_ids, p_snapshots, p_kept) x loop
    case d.name
    when 'executions' then
      -- A header that was gone, or wrong, may be asleep for that: the sweep gives it an owner, who decides.
      insert into flowledger.executions as e (id, seq, flow, created_at)
      select r.id, r.seq, r.flow, r.created_at from jsonb_populate_record(null::flowledger.executions, d.expected) r
      on conflict (id) do nothing;
      update flowledger.executions e
      set (seq, flow, created_at, fingerprint, priority, idempotency_key, limit_key, parent_id, metadata, started_at, sealed_at, closed_at, outcome,
          close_reason, error, close_snapshot, epoch, stream_ended, stream_seq, pending_interrupts, wake_at)
        = (select r.seq, r.flow, r.created_at, r.fingerprint, r.priority, r.idempotency_key, r.limit_key, r.parent_id, r.metadata, r.started_at, r.sealed_at,
            r.closed_at, r.outcome, r.close_reason, r.error, r.close_snapshot, r.epoch, r.stream_ended, r.stream_seq, r.pending_interrupts,
            -- What has closed is due only until its family has heard of it; a header that was gone tells once more.
            case when r.closed_at is not null then case when d.actual is null then clock_timestamp() else e.wake_at end
              when r.started_at is null then null when e.owner is null then coalesce(e.wake_at, clock_timestamp()) else e.wake_at end
          from jsonb_populate_record(null::flowledger.executions, d.expected) r)
      where e.id = d.id;
    when 'interrupts' then
      delete from flowledger.interrupts i where i.execution_id = d.id and i.id = d.part;
      insert into flowledger.interrupts select r.* from jsonb_populate_record(null::flowledger.interrupts, d.expected) r where d.expected is not null;
    when 'interventions' then
      delete from flowledger.interventions i where i.execution_id = d.id and i.version = d.part::int;
      insert into flowledger.interventions select r.* from jsonb_populate_record(null::flowledger.interventions, d.expected) r where d.expected is not null;
    else
      delete from flowledger.snapshots s where s.execution_id = d.id;
      insert into flowledger.snapshots select r.* from jsonb_populate_record(null::flowledger.snapshots, d.expected) r where d.expected is not null;
    end case;
    id := d.id; name := d.name; part := d.part; actual := d.actual; expected := d.expected;
    return next;
  end loop;
end $$;

-- Where ledgers are not what their chain says: each row, or the first one from which on it does not hold.
create or replace function flowledger.broken_chains(p_ids uuid[]) returns table (id uuid, seq int, problem text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
set client_encoding = 'UTF8'
as $$
  with link as (
    select c.execution_id as id, c.seq as until, c.hash, c.marks, lag(c.seq, 1, 0) over w as after, lag(c.hash, 1, '') over w as before
    from flowledger.chain c where c.execution_id = any(p_ids)
    window w as (partition by c.execution_id order by c.seq)
  ), broken as materialized (
    select link.* from link
    cross join lateral (
      select coalesce(string_agg(o.hash, ''), '') as hashes
      from (select h.hash from flowledger.ledger_hashes h where h.execution_id = link.id and h.seq > link.after and h.seq <= link.until order by h.seq offset 0) o
    ) now
    where sha256(link.before || now.hashes) <> link.hash or length(link.marks) <> (link.until - link.after) * 4
  ), row_problem as materialized (
    select b.id, g.seq, b.until, case when h.hash is null then 'was deleted' else 'was rewritten' end as problem
    from broken b cross join lateral generate_series(b.after + 1, b.until) as g(seq)
    left join flowledger.ledger_hashes h on h.execution_id = b.id and h.seq = g.seq
    where substr(h.hash, 1, 4) is distinct from substr(b.marks, (g.seq - b.after - 1) * 4 + 1, 4)
  )
  select r.id, r.seq, r.problem from row_problem r
  union all
  -- No row has another mark, and yet: a link that was changed, or the one before it.
  select b.id, b.after + 1, format('and the rows up to seq %s are not what their link says', b.until)
  from broken b where not exists (select from row_problem r where r.id = b.id and r.until = b.until)
  union all
  select l.execution_id, coalesce(c.until, 0) + 1, 'and what follows is in no link, but the execution is closed'
  from flowledger.ledger l
  left join (select x.execution_id, max(x.seq) as until from flowledger.chain x where x.execution_id = any(p_ids) group by x.execution_id) c
    on c.execution_id = l.execution_id
  where l.execution_id = any(p_ids) and l.type = 'execution.closed'
    and exists (select from flowledger.ledger o where o.execution_id = l.execution_id and o.seq > coalesce(c.until, 0))
  order by 1, 2
$$;

-- Removes closed executions with all they have, and says in `prunes` what went. It needs the right to delete, which the roles
-- below do not have. An execution stays while its parent runs, and where p_keep names its status, its flow or its metadata:
-- { status: [], flow: [], metadata: {} }.
create or replace function flowledger.prune(p_closed_before timestamptz, p_keep jsonb, p_after uuid, p_limit int)
returns table (last uuid, executions int, events int, items int)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set flowledger.pruning = 'on'
as $$
declare
  v_ids uuid[] := array(
    select e.id from flowledger.executions e
    where e.closed_at < p_closed_before and e.id > p_after
      and not coalesce(p_keep -> 'status' ? e.outcome, false)
      and not coalesce(p_keep -> 'flow' ? e.flow, false)
      and not coalesce(e.metadata @> (p_keep -> 'metadata'), false)
      and not exists (select from flowledger.executions p where p.id = e.parent_id and p.closed_at is null)
    order by e.id limit p_limit for update skip locked);
begin
  executions := cardinality(v_ids);
  last := v_ids[executions];
  delete from flowledger.ledger l where l.execution_id = any(v_ids);
  get diagnostics events = row_count;
  delete from flowledger.stream_items i where i.execution_id = any(v_ids);
  get diagnostics items = row_count;
  delete from flowledger.chain c where c.execution_id = any(v_ids);
  delete from flowledger.snapshots s where s.execution_id = any(v_ids);
  delete from flowledger.interrupts i where i.execution_id = any(v_ids);
  delete from flowledger.interventions i where i.execution_id = any(v_ids);
  delete from flowledger.executions e where e.id = any(v_ids);
  if executions > 0 then
    insert into flowledger.prunes (at, by, closed_before, keep, first, last, executions, events)
    values (clock_timestamp(), session_user, p_closed_before, p_keep, v_ids[1], prune.last, prune.executions, prune.events);
  end if;
  return next;
end $$;

-- The roles <prefix>_worker, <prefix>_client and <prefix>_auditor: made where they are missing, and granted what each needs
-- and no more. They can log in once you give them a password. Run it again after every migration.
create or replace function flowledger.grant_roles(prefix text default 'flowledger') returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_worker text := prefix || '_worker';
  v_client text := prefix || '_client';
  v_auditor text := prefix || '_auditor';
  v_name text;
begin
  if prefix is null or prefix !~ '^[a-z_][a-z0-9_]{0,49}$' then
    raise exception 'prefix % of roles is not valid', quote_nullable(prefix)
      using errcode = 'FL008', hint = 'use lower-case letters, digits and _ , at most 50';
  end if;
  foreach v_name in array array[v_worker, v_client, v_auditor] loop
    if not exists (select 1 from pg_roles r where r.rolname = v_name) then
      execute format('create role %I login nosuperuser nocreatedb nocreaterole noinherit', v_name);
    end if;
    execute format('grant usage on schema flowledger to %I', v_name);
    execute format('revoke all on all tables in schema flowledger from %I', v_name);
    execute format('revoke all on all functions in schema flowledger from %I', v_name);
    execute format('alter role %I set idle_in_transaction_session_timeout = ''60s''', v_name);
  end loop;
  revoke create on schema flowledger from public;
  revoke execute on all functions in schema flowledger from public;

  -- The worker writes; the ledger and the stream it can only add to.
  execute format('grant select, insert on flowledger.ledger, flowledger.chain, flowledger.stream_items, flowledger.definitions to %I', v_worker);
  execute format('grant select, insert, update on flowledger.executions, flowledger.interrupts, flowledger.interventions, flowledger.snapshots to %I', v_worker);
  execute format('grant select, insert, update, delete on flowledger.flow_data, flowledger.workers, flowledger.limits, flowledger.places, flowledger.limited_starts, flowledger.schedules to %I', v_worker);
  execute format('grant select on flowledger.migrations, flowledger.homes, flowledger.ledger_hashes to %I', v_worker);
  execute format('grant execute on all functions in schema flowledger to %I', v_worker);
  execute format('revoke execute on function flowledger.grant_roles(text), flowledger.adopt(), flowledger.rebuild(uuid[], jsonb, jsonb),
    flowledger.prune(timestamptz, jsonb, uuid, int) from %I', v_worker);
  execute format('grant usage on schema graphile_worker to %I', v_worker);
  execute format('grant select, insert, update, delete on all tables in schema graphile_worker to %I', v_worker);
  execute format('grant usage, select on all sequences in schema graphile_worker to %I', v_worker);
  execute format('grant execute on all functions in schema graphile_worker to %I', v_worker);
  -- graphile-worker turns row-level security on and has no policy: without one a worker that is not the owner sees no job.
  for v_name in select c.relname from pg_class c where c.relnamespace = 'graphile_worker'::regnamespace and c.relrowsecurity loop
    if not exists (select 1 from pg_policies p where p.schemaname = 'graphile_worker' and p.tablename = v_name and p.policyname = v_worker) then
      execute format('create policy %I on graphile_worker.%I for all to %I using (true) with check (true)', v_worker, v_name, v_worker);
    end if;
  end loop;

  -- The client only commands: these functions run with their owner's rights.
  for v_name in
    select p.oid::regprocedure::text from pg_proc p
    where p.pronamespace = 'flowledger'::regnamespace and p.prosecdef
      and p.proname in ('start', 'start_execution', 'emit', 'continue_with', 'intervene', 'mark_intervention_consumed', 'seal', 'close', 'cancel',
        'cancel_function', 'reschedule_function', 'emit_to_sub_flow', 'cancel_sub_flow')
  loop
    execute format('grant execute on function %s to %I', v_name, v_client);
  end loop;

  execute format('grant select on flowledger.audit_executions, flowledger.audit_ledger, flowledger.audit_interrupts,
    flowledger.audit_interventions, flowledger.audit_state_changes, flowledger.chain, flowledger.prunes, flowledger.homes to %I', v_auditor);
  execute format('grant execute on function flowledger.state_at(uuid, int), flowledger.close_snapshot(uuid), flowledger.meta(uuid),
    flowledger.iso(timestamptz), flowledger.differences(uuid[], jsonb, jsonb), flowledger.broken_chains(uuid[]) to %I', v_auditor);
  execute format('alter role %I set default_transaction_read_only = on', v_auditor);
  execute format('alter role %I set statement_timeout = ''60s''', v_auditor);
end $$;

revoke create on schema flowledger from public;
revoke execute on all functions in schema flowledger from public;
