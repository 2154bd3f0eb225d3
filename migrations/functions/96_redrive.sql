-- Closed executions that go on as new ones, from where they failed.

-- The last event of a closed execution that a redrive of it keeps; null where it has not failed.
create or replace function flowledger.last_before_failure(p_id uuid) returns int
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select min(l.seq) - 1 from flowledger.ledger l
  where l.execution_id = p_id and (l.type in ('cancel.requested', 'execution.failed') or l.type = 'chunk.failed' and not l.payload ? 'retryInMs'
    or l.type = 'execution.closed' and l.payload ->> 'outcome' <> 'completed')
$$;

-- The id of an item of a distributed collection: the base with the index in its last eight digits.
create or replace function flowledger.item_id(p_base uuid, p_index int) returns uuid
language sql immutable
set search_path = pg_catalog, pg_temp
as $$ select (left(p_base::text, 28) || lpad(to_hex(p_index), 8, '0'))::uuid $$;

-- The items of a distributed collection that exist, and how they ended; what redrives before this one have kept is not among them.
create or replace function flowledger.items_at(p_id uuid, p_dispatch int) returns table (id uuid, index int, outcome text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select h.id, ('x' || right(h.id::text, 8))::bit(32)::int, h.outcome
  from flowledger.ledger s
  join flowledger.executions h on h.id between (s.payload ->> 'base')::uuid and flowledger.item_id((s.payload ->> 'base')::uuid, (s.payload ->> 'size')::int - 1)
  where s.execution_id = p_id and s.type = 'items.started' and s.dispatch = p_dispatch
  order by h.id
$$;

-- The results of items that completed when nobody recorded them any more, as a redrive records them: `items.closed`, a megabyte each.
create or replace function flowledger.items_to_record(p_id uuid, p_dispatch int, p_cut int) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recorded as (
    select (r.r -> 0)::int as index from flowledger.ledger l, jsonb_array_elements(l.payload -> 'results') r(r)
    where l.execution_id = p_id and l.type = 'items.closed' and l.dispatch = p_dispatch and l.seq <= p_cut
  ), ended as (
    select i.index, h.closed_at, h.close_snapshot, sum(pg_column_size(h.close_snapshot)) over (order by i.index) / 1000000 as page
    from flowledger.items_at(p_id, p_dispatch) i join flowledger.executions h on h.id = i.id
    where i.outcome = 'completed' and not i.index in (select r.index from recorded r)
  )
  select coalesce(jsonb_agg(p.p order by p.first), '[]') from (
    select min(e.index) as first, jsonb_build_object('dispatch', p_dispatch, 'at', max(e.closed_at), 'payload', jsonb_strip_nulls(jsonb_build_object('wrote', jsonb_agg(e.index order by e.index) filter (where e.close_snapshot - '$final_result' <> '{}')))
        || jsonb_build_object('results', jsonb_agg(jsonb_build_array(e.index, coalesce(e.close_snapshot -> '$final_result', 'null')) order by e.index))) as p
    from ended e group by floor(e.page)) p
$$;

-- One execution of a redrive: its past up to p_cut under the id p_new, what failed parked for the moment, and what had not completed
-- below it redriven in the same way. p_parent: of a child, what its `execution.created` says of its new parent.
create or replace function flowledger.redrive_copy(p_id uuid, p_new uuid, p_cut int, p_parent jsonb, p_redriven jsonb, p_depth int) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  c record;
  v_open int[];
  v_children jsonb := '{}';
  v_dropped int[] := '{}';
  v_bases jsonb := '{}';
  v_kept jsonb := '[]';
  v_ended jsonb := '[]';
  v_epoch int;
  v_events jsonb;
  v_due float8;
  v_gone uuid;
begin
  select * into e from flowledger.executions h where h.id = p_id;
  select max(l.epoch) into v_epoch from flowledger.ledger l where l.execution_id = p_id and l.seq <= p_cut + 1;
  -- The dispatches that had not ended by then, by their events.
  select coalesce(array_agg(x.dispatch), '{}') into v_open from (
    select l.dispatch from flowledger.ledger l
    where l.execution_id = p_id and l.dispatch is not null and l.seq <= p_cut group by l.dispatch
    having not bool_or(l.type in ('chunk.completed', 'value.routed', 'interrupt.raised', 'inbox.routed'))) x;
  -- Items of distributed collections: what completed stays where it is, and its result is recorded; others are redriven under a new base.
  for c in
    select s.dispatch, (s.payload ->> 'base')::uuid as base, (s.payload ->> 'size')::int as size, h.id as open from flowledger.ledger s
    left join lateral (select i.id from flowledger.items_at(p_id, s.dispatch) i where i.outcome is null limit 1) h on true
    where s.execution_id = p_id and s.type = 'items.started' and s.seq <= p_cut and s.dispatch = any(v_open)
  loop
    if c.open is not null then
      raise exception 'execution % has items that have not closed, such as execution %', p_id, c.open
        using errcode = 'FL008', hint = 'they were told to stop: redrive it when they have, or cancel() them';
    end if;
    select q.first into v_gone from flowledger.prunes q
    where q.first = q.last and q.first between c.base and flowledger.item_id(c.base, c.size - 1) and not exists (
      select from flowledger.ledger l, jsonb_array_elements(l.payload -> 'results') r(r)
      where l.execution_id = p_id and l.type = 'items.closed' and l.dispatch = c.dispatch and l.seq <= p_cut
        and flowledger.item_id(c.base, (r.r -> 0)::int) = q.first)
    order by q.first limit 1;
    if found then
      raise exception 'execution % had item %, which was pruned: it would run again', p_id, v_gone
        using errcode = 'FL008', hint = 'pass "from" with a seq before items.started: history() lists them';
    end if;
    v_bases := v_bases || jsonb_build_object(c.base::text, left(flowledger.new_id()::text, 28) || '00000000');
    v_kept := v_kept || flowledger.items_to_record(p_id, c.dispatch, p_cut);
  end loop;
  for c in
    select s.seq, s.dispatch, s.payload ->> 'child' as child, s.payload -> 'ordinal' as ordinal, d.seq as closed_seq, d.payload ->> 'outcome' as outcome,
      h.id, h.closed_at, h.outcome as ended
    from flowledger.ledger s
    left join flowledger.ledger d on d.execution_id = p_id and d.type = 'child.closed' and d.payload ->> 'child' = s.payload ->> 'child'
    left join flowledger.executions h on h.id = (s.payload ->> 'child')::uuid
    where s.execution_id = p_id and s.type = 'child.started' and s.seq <= p_cut and s.dispatch = any(v_open)
  loop
    -- Finished ones are kept, also what finished while its parent was failing.
    continue when c.outcome = 'completed' and c.id is not null;
    -- Also where its caller ended before it heard of that.
    if c.ended = 'completed' then
      v_ended := v_ended || jsonb_build_object('dispatch', c.dispatch, 'at', c.closed_at,
        'payload', jsonb_strip_nulls(jsonb_build_object('child', c.child, 'ordinal', c.ordinal, 'outcome', c.ended)));
      continue;
    end if;
    -- Its failure was got over: more was recorded behind it.
    continue when c.closed_seq <= p_cut and exists (select from flowledger.ledger l where l.execution_id = p_id and l.dispatch = c.dispatch
      and l.seq > c.closed_seq and l.seq <= p_cut and l.type not in ('child.closed', 'chunk.failed', 'chunk.parked', 'chunk.retried', 'chunk.interrupted'));
    if c.id is null or c.closed_at is null then
      raise exception 'execution % called execution %, which %', p_id, c.child, case when c.id is null then 'no longer exists' else 'has not closed' end
        using errcode = 'FL008', hint = 'cancel() what is open, or pass "from" with a seq before child.started: history() lists them';
    end if;
    if c.closed_seq <= p_cut then
      v_dropped := v_dropped || c.closed_seq;
    end if;
    v_children := v_children || jsonb_build_object(c.child, flowledger.new_id());
  end loop;
  select jsonb_agg(jsonb_build_array(x.epoch, flowledger.to_ms(x.at), x.type, x.dispatch, x.chunk, x.actor, x.payload) order by x.place, x.seq) into v_events
  from (
    select 0 as place, l.seq, l.epoch, l.at, l.type, l.dispatch, l.chunk, l.actor,
      case
        when l.type = 'execution.created' then
          l.payload - 'parent' - 'idempotencyKey' - 'priority' || jsonb_build_object('forkedFrom', jsonb_build_object('id', p_id, 'seq', p_cut))
          || case when p_parent is not null then jsonb_build_object('parent', p_parent) else '{}' end
        when l.type = 'child.started' and v_children ? (l.payload ->> 'child') then
          l.payload || jsonb_build_object('child', v_children -> (l.payload ->> 'child'))
        when l.type = 'items.started' and v_bases ? (l.payload ->> 'base') then
          l.payload || jsonb_build_object('base', v_bases -> (l.payload ->> 'base'), 'earlier', coalesce(l.payload -> 'earlier', '[]') || jsonb_build_array(l.payload -> 'base'))
        when l.type = 'inbox.routed' then
          l.payload || jsonb_build_object('of', (l.payload ->> 'of')::int - (select count(*) from unnest(v_dropped) d(seq) where d.seq < (l.payload ->> 'of')::int))
        else l.payload
      end as payload
    from flowledger.ledger l where l.execution_id = p_id and l.seq <= p_cut and not l.seq = any(v_dropped)
    union all
    select 1, l.seq, l.epoch, l.at, l.type, l.dispatch, l.chunk, l.actor, l.payload
    from flowledger.ledger l
    where l.execution_id = p_id and l.seq > p_cut and l.type = 'child.closed' and l.payload ->> 'outcome' = 'completed'
      and exists (select from flowledger.ledger s where s.execution_id = p_id and s.type = 'child.started' and s.seq <= p_cut and s.dispatch = any(v_open) and s.payload ->> 'child' = l.payload ->> 'child')
    union all
    select 1, p_cut, v_epoch, v.at, v.type, v.dispatch, null, null, v.payload from (
      select 'items.closed' as type, k.* from jsonb_to_recordset(v_kept) k(dispatch int, at timestamptz, payload jsonb)
      union all select 'child.closed', k.* from jsonb_to_recordset(v_ended) k(dispatch int, at timestamptz, payload jsonb)) v
    union all
    -- A chunk that had failed before counts its attempts anew: it parks, and is retried at once.
    select 2, f.seq, f.epoch, f.at, 'chunk.parked', f.dispatch, f.chunk, f.actor, f.payload - 'retryInMs'
    from (
      select distinct on (l.dispatch) l.* from flowledger.ledger l
      where l.execution_id = p_id and (l.seq <= p_cut or l.seq = p_cut + 1 and l.type = 'chunk.failed')
        and l.type in ('chunk.failed', 'chunk.parked', 'chunk.retried', 'chunk.skipped')
        and not exists (select from flowledger.ledger t where t.execution_id = p_id and t.dispatch = l.dispatch and t.seq <= p_cut
          and t.type in ('chunk.completed', 'value.routed', 'interrupt.raised', 'inbox.routed'))
      order by l.dispatch, l.seq desc) f
    -- Of a collection it is its items that do.
    where f.type = 'chunk.failed' and not exists (select from flowledger.ledger t
      where t.execution_id = p_id and t.dispatch = f.dispatch and t.seq <= p_cut and t.type = 'items.started')) x;
  select flowledger.to_ms(e.due_at) into v_due;
  perform flowledger.copy_execution(p_new, jsonb_build_object('flow', e.flow,
    'epoch', v_epoch, 'metadata', e.metadata, 'fingerprint', e.fingerprint,
    'started', (select flowledger.to_ms(l.at) from flowledger.ledger l where l.execution_id = p_id and l.type = 'execution.started' and l.seq <= p_cut),
    'sealed', (select flowledger.to_ms(l.at) from flowledger.ledger l where l.execution_id = p_id and l.type = 'execution.sealed' and l.seq <= p_cut),
    'begun', v_due is null or exists (select from flowledger.ledger l where l.execution_id = p_id and l.type = 'execution.claimed' and l.seq <= p_cut), 'due', v_due,
    'discard', (select l.payload -> 'settings' -> 'discardAt' from flowledger.ledger l where l.execution_id = p_id and l.seq = 1),
    'streamEnded', exists (select from flowledger.ledger l where l.execution_id = p_id and l.type = 'stream.stopped' and l.seq <= p_cut)), v_events);
  perform flowledger.accept(flowledger.lock_open(p_new, 'redrive()'),
    jsonb_build_array(p_redriven || jsonb_build_object('type', 'execution.redriven', 'of', p_id)), true);
  for c in
    select s.dispatch, (s.payload ->> 'child')::uuid as child, (v_children ->> (s.payload ->> 'child'))::uuid as new, s.payload -> 'ordinal' as ordinal
    from flowledger.ledger s where s.execution_id = p_id and s.type = 'child.started' and s.seq <= p_cut and v_children ? (s.payload ->> 'child')
  loop
    perform flowledger.redrive_copy(c.child, c.new, flowledger.last_before_failure(c.child),
      jsonb_strip_nulls(jsonb_build_object('id', p_new, 'dispatch', c.dispatch, 'ordinal', c.ordinal, 'visibleIn', (
        select case when jsonb_typeof(b.payload -> 'parent' -> 'visibleIn') = 'array' and jsonb_array_length(b.payload -> 'parent' -> 'visibleIn') > 0
          then jsonb_build_array(p_new) || coalesce(p_parent -> 'visibleIn', '[]') end
        from flowledger.ledger b where b.execution_id = c.child and b.seq = 1))), p_redriven, p_depth + 1);
  end loop;
  for c in
    select s.dispatch, i.id, flowledger.item_id((v_bases ->> (s.payload ->> 'base'))::uuid, i.index) as new, flowledger.last_before_failure(i.id) as cut
    from flowledger.ledger s cross join lateral flowledger.items_at(p_id, s.dispatch) i
    where s.execution_id = p_id and s.type = 'items.started' and s.seq <= p_cut and v_bases ? (s.payload ->> 'base') and i.outcome <> 'completed'
  loop
    -- A dispatch without events begins as if it had not been there.
    continue when c.cut <= 2;
    perform flowledger.redrive_copy(c.id, c.new, c.cut, jsonb_build_object('id', p_new, 'dispatch', c.dispatch), p_redriven, p_depth + 1);
  end loop;
  -- Of the execution that was named, the caller says first how it goes on.
  if p_depth > 0 and exists (select from flowledger.parked_of(p_new)) then
    perform flowledger.retry(p_new, p_redriven);
  end if;
end $$;

-- Lets a closed execution go on as a new one, from where it failed or was cancelled: attempts count from 1, what is recorded is not run
-- again, sub-flows and distributed items that completed are kept, and others are redriven with it. The closed one stays as it is. options: from ("failure", the
-- default; { "chunk": name }, the last run of it; or the last seq to keep), input (of the chunk that failed), output (that chunk is
-- skipped with it), state ({ path: value } to set), actor, reason. Gives the id of the new one.
create or replace function flowledger.redrive(id uuid, options jsonb) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $$
declare
  e flowledger.executions;
  v_by jsonb;
  v_from jsonb := coalesce(nullif(options -> 'from', 'null'), '"failure"');
  v_failure int;
  v_cut int;
  v_new uuid := flowledger.new_id();
  v_failed record;
  v_address jsonb;
begin
  perform flowledger.check_operator(options, 'redrive()', '{from,input,output,state}');
  v_by := jsonb_strip_nulls(jsonb_build_object('actor', options -> 'actor', 'reason', options -> 'reason', 'bulk', options -> 'bulk'));
  perform flowledger.check_json(options -> 'input', 'input of redrive()');
  perform flowledger.check_json(options -> 'output', 'output of redrive()');
  if options ? 'input' and options ? 'output' then
    raise exception 'redrive() takes input or output, and got both' using errcode = 'FL008', hint = 'pass input to run the chunk again, or output to skip it';
  elsif not (v_from = '"failure"' or jsonb_typeof(v_from) = 'number' and v_from::text ~ '^[1-9][0-9]{0,8}$'
    or jsonb_typeof(v_from) = 'object' and jsonb_typeof(v_from -> 'chunk') = 'string' and v_from - 'chunk' = '{}') then
    raise exception 'from of redrive() must be "failure", {"chunk": name} or a seq from 1, got %', left(v_from::text, 40)
      using errcode = 'FL008', hint = 'leave it out to go on from the failure';
  end if;
  e := flowledger.lock_execution(redrive.id);
  if e.id is null then
    raise exception 'execution % does not exist', redrive.id
      using errcode = 'FL001', hint = 'check the id, and that you are connected to the database it was started in';
  elsif e.closed_at is null then
    raise exception 'execution % is open, and redrive() is for what has closed', e.id using errcode = 'FL008', hint = 'use retry() where it parked, or fork()';
  elsif e.parent_id is not null then
    raise exception 'execution % was called by execution %, and is not redriven alone', e.id, e.parent_id using errcode = 'FL008', hint = 'redrive its parent: what failed below goes with it';
  end if;
  v_failure := flowledger.last_before_failure(e.id);
  v_cut := v_failure;
  if jsonb_typeof(v_from) = 'number' then
    v_cut := (v_from #>> '{}')::int;
    if v_cut > coalesce(v_failure, e.seq - 1) then
      raise exception 'execution % has ended by event %', e.id, v_cut
        using errcode = 'FL008', hint = format('pass a seq up to %s', coalesce(v_failure, e.seq - 1));
    end if;
  elsif jsonb_typeof(v_from) = 'object' then
    select l.dispatch, min(l.seq) - 1 as cut, bool_or(l.seq = v_failure + 1) as has_failed into v_failed
    from flowledger.ledger l where l.execution_id = e.id and l.dispatch is not null and (l.chunk = v_from ->> 'chunk'
      -- A sub-flow is called by its flow.
      or l.dispatch in (select s.dispatch from flowledger.sub_flows_of(e.id) s where s.flow = v_from ->> 'chunk'))
    group by l.dispatch order by l.dispatch desc limit 1;
    if v_failed.dispatch is null then
      raise exception 'execution % has run no chunk "%"', e.id, v_from ->> 'chunk'
        using errcode = 'FL008', hint = coalesce('it ran ' || (select string_agg(distinct x.name, ', ') from (
          select case when c.dispatch is not null then c.flow else l.chunk end as name from flowledger.ledger l
          left join flowledger.sub_flows_of(e.id) c on c.dispatch = l.dispatch
          where l.execution_id = e.id and l.chunk is not null) x), 'it ran none');
    elsif not v_failed.has_failed or v_failed.has_failed is null then
      v_cut := least(v_failed.cut, v_failure);
    end if;
  elsif v_failure is null then
    raise exception 'execution % has completed, so there is no failure to continue from', e.id
      using errcode = 'FL008', hint = 'pass "from" with a chunk or a seq, or start a new one';
  end if;
  select l.* into v_failed from flowledger.ledger l where l.execution_id = e.id and l.seq = v_cut + 1 and l.type = 'chunk.failed';
  if v_failed.seq is not null and options ?| '{input,output}'::text[] and exists (select from flowledger.ledger l
    where l.execution_id = e.id and l.dispatch = v_failed.dispatch and l.type = 'items.started') then
    raise exception 'execution % failed in items of a distributed collection, and an input or output is for a chunk of its own', e.id
      using errcode = 'FL008', hint = 'leave them out, or redrive from before the collection';
  elsif v_failed.seq is null and options ?| '{input,output}'::text[] then
    raise exception 'no chunk of execution % had failed at event %, so nothing takes an input or output', e.id, v_cut + 1
      using errcode = 'FL008', hint = 'leave them out, or redrive from the failure of a chunk';
  end if;
  perform flowledger.redrive_copy(e.id, v_new, v_cut, null, v_by, 0);
  if options ? 'state' then
    perform flowledger.edit_state(v_new, jsonb_build_object('set', options -> 'state'), v_by);
  end if;
  if options ?| '{input,output}'::text[] then
    select jsonb_strip_nulls(jsonb_build_object('chunk', v_failed.chunk, 'index', p.index)) into v_address
    from flowledger.planned_of(v_new) p where p.dispatch = v_failed.dispatch;
    if options ? 'input' then
      perform flowledger.retry(v_new, v_by || v_address || jsonb_build_object('input', options -> 'input'));
    else
      perform flowledger.skip(v_new, v_by || v_address || jsonb_build_object('output', options -> 'output'));
    end if;
  end if;
  if exists (select from flowledger.parked_of(v_new)) then
    perform flowledger.retry(v_new, v_by);
  end if;
  return v_new;
end $$;

-- The executions that a closed one was redriven as, the oldest first.
create or replace function flowledger.redriven_by(id uuid) returns setof uuid
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select l.execution_id from flowledger.ledger l
  where l.seq = 1 and l.type = 'execution.created' and l.payload ? 'forkedFrom' and l.payload -> 'forkedFrom' ->> 'id' = redriven_by.id::text
    and exists (select from flowledger.ledger r where r.execution_id = l.execution_id and r.type = 'execution.redriven' and r.payload ->> 'of' = redriven_by.id::text)
  order by l.execution_id
$$;
