-- Why an execution is where it is: `explain` gathers what is known of it, and `explanation` makes one sentence of that.
--
-- It reads the header, what waits below it, the queue of its flow, and the last events of its ledger, so that a long one costs no more
-- than a short one. What began before those events is in the kept state, where there is one that is small. What the ledger does not
-- tell, such as what a chunk awaits by itself, nobody can explain.

-- The first of the last events that are looked at: a thousand, and 128 KiB as they are stored. `is_whole` says whether these and the
-- kept state tell all: an event that is large by itself is not opened.
create or replace function flowledger.explained_from(p_id uuid, p_seq int, out first_seq int, out is_whole boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  select coalesce(min(s.seq), p_seq), coalesce(bool_and(s.is_read or s.is_plain), true) into first_seq, is_whole from (
    select r.seq, r.size <= 65536 as is_read, r.type not in ('inbox.routed', 'chunk.completed', 'value.routed') as is_plain,
      sum(least(r.size, 65536)) over (order by r.seq desc) as total
    from (select l.seq, l.type, coalesce(pg_column_size(l.payload), 0) as size from flowledger.ledger l
      where l.execution_id = p_id and l.seq > p_seq - 1000) r) s
  where s.total <= 131072;
  is_whole := is_whole and (first_seq = 1 or exists (
    select from flowledger.snapshots s where s.execution_id = p_id and s.seq >= first_seq - 1 and pg_column_size(s.state) <= 131072));
end $$;

-- Texts of users in a sentence: in one line, and not for ever.
create or replace function flowledger.in_line(p_text text, p_max int default 300) returns text
language sql immutable parallel safe
return case when length(p_text) > p_max then left(regexp_replace(p_text, '\s+', ' ', 'g'), p_max) || '…' else regexp_replace(p_text, '\s+', ' ', 'g') end;

create or replace function flowledger.quoted(p_text text) returns text
language sql immutable parallel safe
return '"' || flowledger.in_line(p_text, 200) || '"';

-- An error as an explanation has it.
create or replace function flowledger.error_of(p_error jsonb) returns jsonb
language sql immutable parallel safe
return case when jsonb_typeof(p_error) = 'object' then jsonb_build_object('name', p_error -> 'name', 'message', p_error -> 'message',
  'chunk', p_error -> 'chunk', 'attempt', p_error -> 'attempt') end;

-- The chunks that are planned and have not ended, as far as the last events and the kept state tell, each with what it waits for: for a
-- time, or for what it sent. A dispatch that waits for neither has one row, without a `kind`.
create or replace function flowledger.open_dispatches(p_id uuid, p_first int, p_at timestamptz)
returns table (dispatch int, chunk text, attempt int, kind text, until timestamptz, name text, error jsonb)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  with tail as materialized (
    select l.seq, l.at, l.type, l.dispatch, l.chunk,
      -- A value of a user may be large: it stays where it is.
      case when pg_column_size(l.payload) <= 65536 and l.type in ('sleep.started', 'step.completed', 'step.failed', 'chunk.failed', 'event.emitted')
        then l.payload - 'value' - 'moves' end as p,
      case when pg_column_size(l.payload) <= 65536
          and l.type in ('inbox.routed', 'chunk.completed', 'value.routed', 'state.set', 'state.appended', 'state.deleted', 'event.emitted')
        then l.payload -> 'moves' end as moves
    from flowledger.ledger l where l.execution_id = p_id and l.seq >= p_first
  ), ended as (
    select t.dispatch, max(t.seq) as seq from tail t
    where t.type in ('chunk.completed', 'value.routed', 'interrupt.raised', 'inbox.routed') or t.type = 'chunk.failed' and t.p is not null and not t.p ? 'retryInMs'
    group by t.dispatch
  ), kept as materialized (
    select s.seq, d.d from flowledger.snapshots s cross join lateral jsonb_array_elements(s.state -> 'dispatches') d(d)
    where s.execution_id = p_id and p_first > 1 and pg_column_size(s.state) <= 131072
      and (d.d ->> 'id')::int not in (select l.dispatch from flowledger.snapshots k join flowledger.ledger l on l.execution_id = k.execution_id and l.seq > k.seq
        where k.execution_id = p_id and l.dispatch is not null
          and (l.type in ('chunk.completed', 'value.routed', 'interrupt.raised', 'inbox.routed') or l.type = 'chunk.failed' and not l.payload ? 'retryInMs'))
  ), planned as (
    select (m.m ->> 'id')::int as id, m.m ->> 'chunk' as chunk from tail t cross join lateral jsonb_array_elements(t.moves) m(m) where m.m ->> 'move' = 'run'
    union all
    select (m.m ->> 'id')::int + i.i * jsonb_array_length(m.m -> 'entries') + e.ord::int, e.e ->> 'chunk'
    from tail t cross join lateral jsonb_array_elements(t.moves) m(m)
    cross join lateral generate_series(0, least((m.m ->> 'size')::int / jsonb_array_length(m.m -> 'entries'), 100) - 1) i(i)
    cross join lateral jsonb_array_elements(m.m -> 'entries') with ordinality e(e, ord)
    where m.m ->> 'move' = 'open' and jsonb_array_length(m.m -> 'entries') > 0
    union all
    select (k.d ->> 'id')::int, k.d ->> 'chunk' from kept k
    union all
    -- Planned by an event whose value is too large to be read: it shows when it does something.
    select t.dispatch, t.chunk from tail t where t.dispatch is not null and t.type in ('chunk.failed', 'step.failed', 'step.completed', 'sleep.started', 'event.emitted')
  ), open as materialized (
    select p.id, max(p.chunk) as chunk, coalesce(max(f.attempt), max((k.d ->> 'failures')::int), 0) + 1 as attempt
    from planned p
    left join (select t.dispatch, max((t.p ->> 'attempt')::int) as attempt from tail t where t.type = 'chunk.failed' group by t.dispatch) f on f.dispatch = p.id
    left join kept k on (k.d ->> 'id')::int = p.id
    where not exists (select from ended e where e.dispatch = p.id) group by p.id
  ), timed as (
    select t.dispatch, 'retry' as kind, t.at + flowledger.ms((t.p ->> 'retryInMs')::float8) as until, null as name, t.p -> 'error' as error
    from tail t where t.type = 'chunk.failed' and t.p ? 'retryInMs'
    union all
    select t.dispatch, 'sleep', coalesce(flowledger.from_ms((t.p ->> 'until')::float8), t.at + flowledger.ms((t.p ->> 'forMs')::float8)), null, null from tail t where t.type = 'sleep.started'
    union all
    select t.dispatch, 'step', t.at + flowledger.ms((t.p ->> 'retryInMs')::float8), t.p ->> 'name',
      (t.p -> 'error') || jsonb_build_object('attempt', (t.p ->> 'attempt')::int + 1)
    from tail t
    where t.type = 'step.failed' and t.p ? 'retryInMs' and not exists (
      select from tail s where s.dispatch = t.dispatch and s.seq > t.seq and s.type in ('step.completed', 'step.failed') and s.p -> 'ordinal' = t.p -> 'ordinal')
    union all
    select (k.d ->> 'id')::int, 'retry', flowledger.from_ms((k.d ->> 'notBefore')::float8), null, k.d -> 'lastError' from kept k where k.d ->> 'notBefore' is not null
    union all
    select (k.d ->> 'id')::int, 'sleep', flowledger.from_ms((j.j ->> 'until')::float8), null, null
    from kept k cross join lateral jsonb_array_elements(k.d -> 'journal') j(j) where j.j ->> 'effect' = 'sleep'
  ), waiting as materialized (
    select o.id, o.chunk, o.attempt, t.kind, t.until, t.name, t.error from open o join timed t on t.dispatch = o.id and t.until > p_at
    union
    -- Its event is being heard, and it waits for that: nothing of its own came after.
    select o.id, o.chunk, o.attempt, 'emit', null, s.p ->> 'event', null
    from open o join (select distinct on (t.dispatch) t.dispatch, t.type, t.p from tail t order by t.dispatch, t.seq desc) s on s.dispatch = o.id
    where s.type = 'event.emitted' and s.p ? 'group'
  )
  select w.id, w.chunk, w.attempt, w.kind, w.until, w.name, w.error from waiting w
  union all
  select o.id, o.chunk, o.attempt, null, null, null, null from open o where not exists (select from waiting w where w.id = o.id);
end $$;

-- The waits of an execution: answers first, then times, then others. At most 20 of a kind.
create or replace function flowledger.waits_of(p_id uuid, p_at timestamptz, p_open jsonb) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select coalesce(jsonb_agg(w.wait order by w.rank, w.at nulls last, w.wait::text), '[]') from (
    (select 1 as rank, i.created_at as at, jsonb_build_object('kind', 'answer', 'interruptId', p.id, 'type', i.type, 'chunk', i.chunk,
        'executionId', p.owner_id, 'flow', i.flow, 'since', flowledger.iso(i.created_at), 'until', flowledger.iso(i.expires_at))
        || case when i.title is null and i.assignees is null and i.due_at is null and i.claimed_by is null then '{}'
          else jsonb_strip_nulls(jsonb_build_object('title', i.title, 'assignees', i.assignees, 'dueAt', flowledger.iso(i.due_at), 'claimedBy', i.claimed_by,
            'claimedAt', flowledger.iso(i.claimed_at))) end as wait
      -- Its header counts them, those of its sub-flows too: without any, no child is asked.
      from flowledger.executions e cross join lateral flowledger.pending_on(e.id) p
      join flowledger.interrupts i on i.execution_id = p.owner_id and i.id = p.local_id
      where e.id = p_id and e.pending_interrupts > 0
      order by i.created_at, p.id limit 20)
    union all
    (select 2, o.until, jsonb_build_object('kind', o.o -> 'kind', 'chunk', o.o -> 'chunk', 'until', flowledger.iso(o.until))
        || case o.o ->> 'kind'
          when 'sleep' then '{}'
          when 'retry' then jsonb_build_object('attempt', o.o -> 'attempt', 'error', flowledger.error_of(o.o -> 'error'))
          else jsonb_build_object('step', o.o -> 'name', 'attempt', o.o -> 'error' -> 'attempt', 'error', flowledger.error_of(o.o -> 'error')) end
      from (select o.o, (o.o ->> 'until')::timestamptz as until from jsonb_array_elements(p_open) o(o) where o.o ->> 'kind' in ('sleep', 'retry', 'step')
        order by 2 limit 20) o)
    union all
    (select 3, c.created_at, jsonb_build_object('kind', 'child', 'executionId', c.id, 'flow', c.flow, 'status', c.status, 'since', flowledger.iso(c.created_at))
      from (select x.* from flowledger.executions x where x.parent_id = p_id and x.closed_at is null order by x.id limit 20) c
      where not flowledger.is_item(c.id))
    union all
    -- Its children stand among them.
    (select 4, null, jsonb_build_object('kind', 'items', 'flow', max(c.flow), 'open', sum(c.open)) from (
        -- Items of one collection have ids that differ in their index alone, so one of them is asked; the ids of other children end at random.
        select max(x.flow) as flow, count(*) as open, min(x.last) as last, left(x.id, 28) as base from (
          select e.id::text as id, right(e.id::text, 8) as last, e.flow from flowledger.executions e where e.parent_id = p_id and e.closed_at is null limit 1001) x
        group by left(x.id, 28)) c
      where (c.open > 1 or c.last < '01000000') and flowledger.is_item((c.base || c.last)::uuid) having count(*) > 0)
    union all
    (select 5, null, jsonb_build_object('kind', 'emit', 'chunk', o.o -> 'chunk', 'event', o.o -> 'name')
      from jsonb_array_elements(p_open) o(o) where o.o ->> 'kind' = 'emit' limit 20)
  ) w);
end $$;

-- The place of an execution in the queue of its flow, and which limit holds it there; null when it is in none.
create or replace function flowledger.queue_of(p_id uuid, p_at timestamptz) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select jsonb_build_object(
    -- Beyond a thousand nobody counts.
    'place', case when ahead.count <= 1000 then ahead.count + 1 end,
    'key', nullif(q.key, ''),
    'limit', case
      when taken.count >= l.concurrency then jsonb_build_object('kind', 'concurrency', 'of', l.concurrency)
      when keyed.count >= l.key_concurrency then jsonb_build_object('kind', 'keyConcurrency', 'of', l.key_concurrency)
      when q.not_started and started.count >= l.rate then jsonb_build_object('kind', 'rate', 'of', l.rate, 'perMs', l.rate_ms, 'until', flowledger.iso(started.free_at))
      when q.not_started and key_started.count >= l.key_rate then jsonb_build_object('kind', 'keyRate', 'of', l.key_rate, 'perMs', l.key_rate_ms, 'until', flowledger.iso(key_started.free_at))
    end)
  from flowledger.slots q
  join flowledger.limits l on l.flow = q.flow
  cross join lateral (select count(*) from (
    select from flowledger.slots s where s.flow = q.flow and not s.acquired
      and (s.not_started, s.priority, s.queue_position, s.execution_id) < (q.not_started, q.priority, q.queue_position, q.execution_id) limit 1001) a) ahead
  cross join lateral (select count(*) from (select from flowledger.slots s where s.flow = q.flow and s.acquired limit l.concurrency) t) taken
  cross join lateral (select count(*) from (select from flowledger.slots s where s.flow = q.flow and s.key = q.key and s.acquired limit l.key_concurrency) t) keyed
  cross join lateral (select count(*), min(t.at) + flowledger.ms(l.rate_ms) as free_at from (
    select s.at from flowledger.limited_starts s where s.flow = q.flow and s.at > p_at - flowledger.ms(l.rate_ms) order by s.at desc limit l.rate) t) started
  cross join lateral (select count(*), min(t.at) + flowledger.ms(l.key_rate_ms) as free_at from (
    select s.at from flowledger.limited_starts s where s.flow = q.flow and s.key = q.key and s.at > p_at - flowledger.ms(l.key_rate_ms)
    order by s.at desc limit l.key_rate) t) key_started
  where q.execution_id = p_id and not q.acquired);
end $$;

-- Why an execution is where it is: JSON, told apart by `kind`, with one `sentence`.
create or replace function flowledger.explain(id uuid) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
-- A session plans it once; and compiling what reads a thousand rows takes longer than reading them.
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
as $$
declare
  e flowledger.executions;
  v_at timestamptz := flowledger.now();
  v_silent interval := interval '15 seconds';
  v_facts jsonb;
  v_kind jsonb;
  v_settings jsonb;
  v_open jsonb;
  v_waits jsonb;
  v_parked jsonb;
  v_queue jsonb;
  v_blocked record;
  v_ready jsonb;
  v_until timestamptz;
  v_first int;
  v_is_whole boolean;
  v_called int[];
  v_flow_paused jsonb;
begin
  select x.* into e from flowledger.executions x where x.id = explain.id;
  if not found then
    raise exception 'execution % does not exist', explain.id
      using errcode = 'FL001', hint = 'check the id, and that you are connected to the database it was started in';
  end if;
  v_facts := jsonb_build_object('flowPaused', null, 'executionId', e.id, 'flow', e.flow, 'status', e.status, 'lifecycle', e.lifecycle,
    'sealedAt', flowledger.iso(e.sealed_at), 'cancelling', null, 'owner', null,
    'workers', (select count(*) from flowledger.workers w where w.flows @> array[e.flow] and w.heartbeat_at > flowledger.wall_clock() - v_silent));
  if e.closed_at is not null then
    v_facts := v_facts || jsonb_build_object('kind', 'closed', 'since', flowledger.iso(e.closed_at), 'outcome', e.outcome, 'reason', e.close_reason,
      'error', flowledger.error_of(e.error), 'redrivenAs', array(select r.id from flowledger.redriven_by(e.id) r(id)));
    return v_facts || jsonb_build_object('sentence', flowledger.explanation(v_facts));
  end if;
  select f.first_seq, f.is_whole into v_first, v_is_whole from flowledger.explained_from(e.id, e.seq) f;
  v_facts := v_facts || jsonb_build_object(
    'cancelling', (select jsonb_build_object('since', flowledger.iso(l.at), 'reason', coalesce(l.payload ->> 'reason', 'cancelled'), 'actor', l.actor)
      from flowledger.ledger l where l.execution_id = e.id and l.type = 'cancel.requested' and l.payload ->> 'id' is null order by l.seq limit 1),
    'owner', case when e.owner is not null then jsonb_build_object('workerId', e.owner,
      'host', (select w.host from flowledger.workers w where w.id = e.owner), 'pid', (select w.pid from flowledger.workers w where w.id = e.owner),
      'since', flowledger.iso((select l.at from flowledger.ledger l
        where l.execution_id = e.id and l.seq >= v_first and l.epoch = e.epoch and l.type = 'execution.claimed' order by l.seq desc limit 1)),
      'silentSince', (select flowledger.iso(w.heartbeat_at) from flowledger.workers w where w.id = e.owner and w.heartbeat_at <= flowledger.wall_clock() - v_silent)) end);
  select jsonb_build_object('since', flowledger.iso(p.at), 'intake', p.intake, 'actor', p.actor, 'reason', p.reason) into v_flow_paused
  from flowledger.flow_pause_of(e.flow) p;
  v_facts := v_facts || jsonb_build_object('flowPaused', v_flow_paused);
  -- Before what would go on without a person.
  select jsonb_build_object('kind', 'paused', 'since', flowledger.iso(p.at), 'until', flowledger.iso(p.until), 'actor', p.actor, 'reason', p.reason) into v_kind
  from flowledger.pause_of(e.id, v_first) p where v_facts -> 'cancelling' = 'null';
  if v_kind is not null then
    null;
  elsif e.owner is not null and (v_facts -> 'owner' ->> 'host' is null or v_facts -> 'owner' ->> 'silentSince' is not null) then
    v_kind := jsonb_build_object('kind', 'lost');
  elsif e.owner is null then
    select l.type, l.at, l.payload ->> 'problem' as problem, l.payload ->> 'fingerprint' as fingerprint into v_blocked from flowledger.ledger l
    where l.execution_id = e.id and l.seq >= v_first and l.type in ('execution.blocked', 'execution.claimed') order by l.seq desc limit 1;
    v_queue := flowledger.queue_of(e.id, v_at);
    v_kind := case
      when v_blocked.type = 'execution.blocked' then jsonb_build_object('kind', 'blocked', 'since', flowledger.iso(v_blocked.at), 'problem', v_blocked.problem,
        'recorded', e.fingerprint, 'found', v_blocked.fingerprint)
      when e.started_at is not null and e.epoch = 0 and e.due_at > v_at then jsonb_build_object('kind', 'delayed', 'until', flowledger.iso(e.due_at),
        'discardAt', flowledger.iso(e.discard_at))
      when e.wake_at <= v_at and v_flow_paused is not null and v_facts -> 'cancelling' = 'null' then
        jsonb_build_object('kind', 'flowPaused', 'since', flowledger.iso(e.wake_at), 'discardAt', flowledger.iso(e.discard_at))
      when e.wake_at <= v_at and (v_facts -> 'workers')::int = 0 then jsonb_build_object('kind', 'unserved', 'since', flowledger.iso(e.wake_at),
        'discardAt', flowledger.iso(e.discard_at))
      when e.wake_at <= v_at and v_queue is not null then v_queue || jsonb_build_object('kind', 'queued', 'since', flowledger.iso(e.wake_at))
      when e.wake_at <= v_at then jsonb_build_object('kind', 'due', 'since', flowledger.iso(e.wake_at), 'lostWorkers', e.takeovers)
      when e.started_at is null then jsonb_build_object('kind', 'created', 'since', flowledger.iso(e.created_at), 'until', flowledger.iso(e.wake_at)) end;
  end if;
  if v_kind is null then
    -- At most 20 are named, and those that are parked run no more.
    v_parked := case when e.parked > 0 then (select jsonb_agg(jsonb_build_object('kind', 'parked', 'dispatch', p.dispatch, 'chunk', coalesce(p.error ->> 'chunk', p.chunk),
        'since', flowledger.iso(p.at), 'error', flowledger.error_of(p.error)) order by p.seq) from flowledger.parked_of(e.id) p) end;
    select coalesce(jsonb_agg(to_jsonb(o)), '[]') into v_open from flowledger.open_dispatches(e.id, v_first, v_at) o
    where not coalesce(v_parked, '[]') @> jsonb_build_array(jsonb_build_object('dispatch', o.dispatch));
    v_waits := coalesce((select jsonb_agg(p.p - 'dispatch' order by p.ord) from jsonb_array_elements(v_parked) with ordinality p(p, ord) where p.ord <= 20), '[]')
      || flowledger.waits_of(e.id, v_at, v_open);
    v_called := array(select distinct s.dispatch from flowledger.ledger s where s.execution_id = e.id and s.seq >= v_first and s.dispatch is not null
      and (s.type = 'items.started' or s.type = 'child.started' and (s.payload ->> 'child')::uuid in (
        select c.id from flowledger.executions c where c.parent_id = e.id and c.closed_at is null)));
    -- A chunk that neither waits for a time nor for what it called.
    select coalesce(jsonb_agg(jsonb_build_object('chunk', r.o -> 'chunk', 'attempt', r.o -> 'attempt') order by (r.o ->> 'dispatch')::int), '[]') into v_ready from (
      select o.o from jsonb_array_elements(v_open) o(o)
      where o.o ->> 'kind' is null and not (o.o ->> 'dispatch')::int = any(v_called)
      order by (o.o ->> 'dispatch')::int limit 20) r;
    -- Conditions and sub-flows have no chunk: their names are the graph's.
    select coalesce(jsonb_agg(r.r), '[]') into v_ready from jsonb_array_elements(v_ready) r(r) where r.r ->> 'chunk' is not null;
    if e.owner is not null and (v_ready <> '[]' or v_waits = '[]' and (not v_is_whole or exists (
        select from flowledger.ledger l where l.execution_id = e.id and l.seq = e.seq and l.type in ('execution.started', 'execution.claimed', 'event.emitted', 'interrupt.resumed')))) then
      v_kind := jsonb_build_object('kind', 'running', 'chunks', v_ready);
    elsif v_waits <> '[]' then
      v_kind := jsonb_build_object('kind', 'waiting', 'waits', v_waits);
    elsif v_ready <> '[]' then
      v_kind := jsonb_build_object('kind', 'waiting', 'waits', (select jsonb_agg(jsonb_build_object('kind', 'chunk', 'chunk', r.r -> 'chunk', 'until', flowledger.iso(e.wake_at)))
        from jsonb_array_elements(v_ready) r(r)));
    elsif not v_is_whole then
      v_kind := jsonb_build_object('kind', 'waiting', 'waits', jsonb_build_array(jsonb_build_object('kind', 'unknown', 'until', flowledger.iso(e.wake_at))));
    else
      v_settings := (select l.payload -> 'settings' from flowledger.ledger l where l.execution_id = e.id and l.seq = 1);
      if coalesce((v_settings -> 'autoClose')::boolean, true) and coalesce(v_settings -> 'autoCloseMs', '10000') <> 'null' then
        v_until := coalesce(case when e.owner is null then e.wake_at end, (
          select greatest(max(l.at), e.due_at) + flowledger.ms(coalesce((v_settings ->> 'autoCloseMs')::float8, 10000)) from flowledger.ledger l
          where l.execution_id = e.id and l.seq >= v_first and (l.type = 'execution.claimed' and l.epoch = 1
            or l.type not in ('execution.claimed', 'execution.blocked', 'inbox.routed', 'chunk.interrupted'))));
      end if;
      v_kind := jsonb_build_object('kind', case when e.sealed_at is null then 'idle' else 'sealed' end, 'until', flowledger.iso(v_until));
    end if;
  end if;
  v_facts := v_facts || v_kind;
  return v_facts || jsonb_build_object('sentence', flowledger.explanation(v_facts));
end $$;

-- An error in a sentence.
create or replace function flowledger.error_in_words(p_error jsonb) returns text
language sql immutable parallel safe
return concat(flowledger.in_line(p_error ->> 'name', 100), ': ' || flowledger.in_line(p_error ->> 'message'));

-- A list in words, not more than three of it: of names, or of parts that have commas.
create or replace function flowledger.listed(p_texts text[], p_between text, p_last text) returns text
language sql immutable parallel safe
return case when cardinality(p_texts) > 3 then array_to_string(p_texts[1:3], p_between) || format('%s%s more', p_last, cardinality(p_texts) - 3)
  when cardinality(p_texts) < 2 then p_texts[1]
  else array_to_string(p_texts[1:cardinality(p_texts) - 1], p_between) || p_last || p_texts[cardinality(p_texts)] end;

-- The one place that words are made at, out of what `explain` found.
create or replace function flowledger.wait_in_words(w jsonb, p_id text) returns text
language sql immutable parallel safe
return case w ->> 'kind'
  when 'parked' then format('an operator: chunk %s is parked since %s%s', flowledger.quoted(w ->> 'chunk'), w ->> 'since',
    ', after ' || flowledger.error_in_words(w -> 'error'))
  when 'answer' then format('an answer to interrupt %s (%s, chunk %s%s)%s since %s%s%s%s', flowledger.quoted(w ->> 'interruptId'), flowledger.in_line(w ->> 'type', 200),
    flowledger.quoted(w ->> 'chunk'), case when w ->> 'executionId' <> p_id then format(' of flow %s', flowledger.quoted(w ->> 'flow')) else '' end,
    coalesce(' from ' || flowledger.listed(array(select flowledger.in_line(a.name, 100) from jsonb_array_elements_text(w -> 'assignees') with ordinality a(name, ord) order by a.ord), ', ', ' or '), ''),
    w ->> 'since', coalesce(', due ' || (w ->> 'dueAt'), ''), coalesce(', until ' || (w ->> 'until'), ''),
    coalesce(', claimed by ' || flowledger.quoted(w ->> 'claimedBy') || ' since ' || (w ->> 'claimedAt'), ''))
  when 'sleep' then format('chunk %s, which sleeps until %s', flowledger.quoted(w ->> 'chunk'), w ->> 'until')
  when 'retry' then format('chunk %s, which tries again at %s (attempt %s, after %s)', flowledger.quoted(w ->> 'chunk'), w ->> 'until', w ->> 'attempt',
    flowledger.error_in_words(w -> 'error'))
  when 'step' then format('step %s of chunk %s, which tries again at %s (attempt %s, after %s)', flowledger.quoted(w ->> 'step'), flowledger.quoted(w ->> 'chunk'),
    w ->> 'until', w ->> 'attempt', flowledger.error_in_words(w -> 'error'))
  when 'child' then format('execution %s of flow %s (%s), which it called', w ->> 'executionId', flowledger.quoted(w ->> 'flow'), w ->> 'status')
  when 'items' then case when w ->> 'open' = '1' then '1 item that runs as an execution of its own'
    else format('%s items that run as executions of their own', case when (w ->> 'open')::int > 1000 then 'more than 1000' else w ->> 'open' end) end
  when 'emit' then format('what hears event %s of chunk %s', flowledger.quoted(w ->> 'event'), flowledger.quoted(w ->> 'chunk'))
  when 'unknown' then 'something that began before its last events' || coalesce(', and looks again at ' || (w ->> 'until'), '')
  else format('chunk %s%s', flowledger.quoted(w ->> 'chunk'), coalesce(', which goes on at ' || (w ->> 'until'), ', which waits for others'))
end;

create or replace function flowledger.explanation(p jsonb) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_flow text := flowledger.quoted(p ->> 'flow');
  v_kind text := p ->> 'kind';
  v_limit jsonb := p -> 'limit';
  v_waits text[] := array(
    select flowledger.wait_in_words(w.w, p ->> 'executionId') from jsonb_array_elements(coalesce(p -> 'waits', '[]')) with ordinality w(w, ord) order by w.ord);
  v_chunks text[] := array(
    select flowledger.quoted(c.c ->> 'chunk') || case when c.c ->> 'attempt' = '1' then '' else format(' (attempt %s)', c.c ->> 'attempt') end
    from jsonb_array_elements(coalesce(p -> 'chunks', '[]')) with ordinality c(c, ord) order by c.ord);
  v_worker text := format('worker %s', coalesce((p -> 'owner' ->> 'host') || ':' || (p -> 'owner' ->> 'pid'), p -> 'owner' ->> 'workerId'));
  v_text text;
begin
  v_text := case v_kind
    when 'closed' then case p ->> 'outcome'
      when 'failed' then format('It failed at %s%s', p ->> 'since', concat(
        ' in chunk ' || flowledger.quoted(p -> 'error' ->> 'chunk'), ', attempt ' || (p -> 'error' ->> 'attempt') || ',',
        case when p -> 'error' ->> 'name' is not null then ' with ' || flowledger.error_in_words(p -> 'error') else ': ' || flowledger.in_line(p ->> 'reason') end))
      when 'cancelled' then format('It was cancelled at %s: %s', p ->> 'since', flowledger.in_line(p ->> 'reason'))
      else format('It completed at %s: %s', p ->> 'since', case p ->> 'reason' when 'auto_close_idle_timeout' then 'all work was done'
        when 'sub_flow_completed' then 'all work was done' when 'manual' then 'it was closed by hand' else flowledger.in_line(p ->> 'reason') end) end
    when 'lost' then case when p -> 'owner' ->> 'host' is null then format('It is owned by %s, which is gone: another one takes it over', v_worker)
      else format('It is owned by %s, which has been silent since %s: another one takes it over', v_worker, p -> 'owner' ->> 'silentSince') end
    when 'paused' then format('It is paused since %s by %s (%s)%s', p ->> 'since', flowledger.quoted(p ->> 'actor'), flowledger.in_line(p ->> 'reason'),
      coalesce(', until ' || (p ->> 'until'), ''))
    when 'flowPaused' then format('It is due since %s, and waits for its flow%s', p ->> 'since', coalesce(', unless it is discarded at ' || (p ->> 'discardAt'), ''))
    when 'blocked' then format('It is blocked since %s, as no worker''s version of flow %s fits: %s', p ->> 'since', v_flow, flowledger.in_line(p ->> 'problem', 1000))
    when 'delayed' then format('It does not start before %s%s', p ->> 'until', coalesce(', and is discarded unless a worker has it by ' || (p ->> 'discardAt'), ''))
    when 'unserved' then format('It is due since %s, and no worker that is alive serves flow %s: start one%s', p ->> 'since', v_flow,
      coalesce('; it is discarded at ' || (p ->> 'discardAt'), ''))
    when 'queued' then format('It is %s in the queue of flow %s since %s%s', coalesce('number ' || (p ->> 'place'), 'behind more than 1000'), v_flow, p ->> 'since',
      case v_limit ->> 'kind'
        when 'concurrency' then format(': %s taken', case v_limit ->> 'of' when '1' then 'the one slot is' else format('all %s slots are', v_limit ->> 'of') end)
        when 'keyConcurrency' then format(': %s taken', case v_limit ->> 'of' when '1' then format('the one slot of key %s is', flowledger.quoted(p ->> 'key'))
          else format('all %s slots of key %s are', v_limit ->> 'of', flowledger.quoted(p ->> 'key')) end)
        when 'rate' then format(': %s started within %s ms, and the next may at %s', v_limit ->> 'of', v_limit ->> 'perMs', v_limit ->> 'until')
        when 'keyRate' then format(': %s of key %s started within %s ms, and the next may at %s', v_limit ->> 'of', flowledger.quoted(p ->> 'key'),
          v_limit ->> 'perMs', v_limit ->> 'until')
        else ': a worker with room takes the first' end)
    when 'due' then format('It is due since %s: %s%s', p ->> 'since',
      case when p ->> 'workers' = '1' then 'the worker' else format('one of the %s workers', p ->> 'workers') end || format(' of flow %s takes it next', v_flow),
      case when (p ->> 'lostWorkers')::int > 0 then format(', after %s that it lost', p ->> 'lostWorkers') else '' end)
    when 'created' then format('It was created at %s and not started: it waits for its input%s', p ->> 'since',
      coalesce(', and closes without one at ' || (p ->> 'until'), ''))
    when 'running' then format('It runs%s: %s has it%s',
      case cardinality(v_chunks) when 0 then '' when 1 then ' chunk ' || v_chunks[1] else ' chunks ' || flowledger.listed(v_chunks, ', ', ' and ') end,
      v_worker, coalesce(' since ' || (p -> 'owner' ->> 'since'), ''))
    when 'waiting' then format('It waits for %s', flowledger.listed(v_waits, '; ', case when cardinality(v_waits) > 2 then '; and ' else ', and ' end))
    else format('Nothing is left to do: it %s', coalesce('closes by itself at ' || (p ->> 'until'),
      case v_kind when 'sealed' then 'stays sealed until somebody closes it' else 'takes events until somebody closes it' end)) end;
  if jsonb_array_length(p -> 'redrivenAs') > 0 then
    v_text := v_text || format('; it was redriven as %s', flowledger.listed(array(select jsonb_array_elements_text(p -> 'redrivenAs')), ', ', ' and '));
  end if;
  if v_kind <> 'closed' and p ->> 'sealedAt' is not null then
    v_text := v_text || format('; it is sealed since %s', p ->> 'sealedAt');
  end if;
  if p -> 'flowPaused' <> 'null' then
    v_text := v_text || format('; flow %s is paused since %s by %s (%s)', v_flow, p -> 'flowPaused' ->> 'since', flowledger.quoted(p -> 'flowPaused' ->> 'actor'),
      flowledger.in_line(p -> 'flowPaused' ->> 'reason'));
  end if;
  if p -> 'cancelling' <> 'null' then
    v_text := v_text || format('; its end was asked for at %s%s: %s', p -> 'cancelling' ->> 'since', coalesce(' by ' || flowledger.in_line(p -> 'cancelling' ->> 'actor', 200), ''),
      flowledger.in_line(p -> 'cancelling' ->> 'reason'));
  end if;
  if v_kind in ('waiting', 'idle', 'delayed', 'sealed', 'lost', 'paused', 'flowPaused') and p ->> 'workers' = '0' then
    v_text := v_text || format('; no worker that is alive serves flow %s', v_flow);
  end if;
  return v_text || case when v_text ~ '[.!?…]$' then '' else '.' end;
end $$;
