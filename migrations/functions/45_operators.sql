-- Commands of operators: each with actor and reason, decided under the row lock.

-- Chunks that wait for an operator, by the ledger: those that parked, and nothing has come of it since, nor a cancel's handlers.
create or replace function flowledger.parked_of(p_id uuid, p_until int default 2147483647)
returns table (dispatch int, chunk text, seq int, at timestamptz, error jsonb)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select l.dispatch, l.chunk, l.seq, l.at, l.payload -> 'error'
  from (
    select distinct on (x.dispatch) x.* from (
      select r.*, max(r.seq) filter (where r.type = 'cleanup.planned') over () as cleaned from flowledger.ledger r
      where r.execution_id = p_id and r.seq <= p_until and (r.type = 'cleanup.planned'
        or r.dispatch is not null and r.type in ('chunk.parked', 'chunk.retried', 'chunk.skipped', 'chunk.failed'))) x
    where x.type <> 'cleanup.planned'
    order by x.dispatch, x.seq desc) l
  where l.type = 'chunk.parked' and l.seq > coalesce(l.cleaned, 0)
$$;

-- The planned dispatches of an execution, by its ledger: each with its chunk, or the node where it has none, and which item or branch of
-- its collection it is (null: none). One pass, as asking for one dispatch after the other would be a pass for each.
create or replace function flowledger.planned_of(p_id uuid) returns table (dispatch int, chunk text, index int)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select planned.*
  from flowledger.ledger l cross join lateral jsonb_array_elements(l.payload -> 'moves') m(move)
  cross join lateral (
    select (m.move ->> 'id')::int, coalesce(m.move ->> 'chunk', m.move ->> 'node'), (m.move -> 'at' ->> 1)::int
    where m.move ->> 'move' = 'run'
    union all
    select (m.move ->> 'id')::int + 1 + o.step, coalesce(x.entry ->> 'chunk', x.entry ->> 'node'), o.step / jsonb_array_length(m.move -> 'entries')
    from generate_series(0, (m.move ->> 'size')::int * jsonb_array_length(m.move -> 'entries') - 1) o(step)
    cross join lateral (select m.move -> 'entries' -> (o.step % jsonb_array_length(m.move -> 'entries')) as entry) x
    where m.move ->> 'move' = 'open' and m.move ? 'entries'
  ) planned
  where l.execution_id = p_id and l.payload ? 'moves'
$$;

-- Executions below one that have not closed and have something parked, itself first.
create or replace function flowledger.parked_below(p_id uuid) returns setof uuid
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive relatives as (
    select e.id, e.parked, 0 as depth from flowledger.executions e where e.id = p_id
    union all
    select c.id, c.parked, f.depth + 1 from relatives f join flowledger.executions c on c.parent_id = f.id where c.closed_at is null
  )
  select f.id from relatives f where f.parked > 0 order by f.depth, f.id
$$;

-- A close does not wait for what is parked: it says so, or fails that. The caller has the lock of p_id.
create or replace function flowledger.settle_parked(p_id uuid, p_reason text, p_pending text, p_actor text, p_parked text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_below uuid[] := array(select b.id from flowledger.parked_below(p_id) b(id));
  v_parked jsonb;
begin
  if v_below = '{}' then
    return;
  elsif p_parked = 'reject' then
    select jsonb_agg(jsonb_build_object('chunk', o.chunk, 'index', o.index, 'executionId', b.id)) into v_parked
    from unnest(v_below) b(id) cross join lateral flowledger.open_dispatches(b.id) o where o.stands = 'parked';
    raise exception 'execution % cannot close while chunks are parked: %', p_id,
      (select string_agg(distinct x ->> 'chunk', ', ') from jsonb_array_elements(v_parked) x)
      using errcode = 'FL012', detail = v_parked::text, hint = 'retry or skip them, or close with parked: "fail"';
  end if;
  perform flowledger.close(b.id, p_reason, p_pending, p_actor, true, 'fail') from unnest(v_below) b(id) where b.id <> p_id;
end $$;

-- Refuses invalid options of an operator's command: who and why are wanted of each.
create or replace function flowledger.check_operator(p_options jsonb, p_what text, p_known text[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text;
begin
  -- Which bulk it is of only the library says, and there is one.
  if p_what <> 'bulk()' and jsonb_typeof(p_options) = 'object' and p_options ? 'bulk' and flowledger.is_trusted()
    and p_options ->> 'bulk' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    and exists (select from flowledger.bulks b where b.execution_id = (p_options ->> 'bulk')::uuid) then
    p_options := p_options - 'bulk';
  end if;
  perform flowledger.check_options(p_options, p_what, p_known || '{actor,reason}'::text[], '{"actor": "ann", "reason": "INC-12"}');
  foreach v_name in array '{actor,reason}'::text[] loop
    if jsonb_typeof(p_options -> v_name) is distinct from 'string' or flowledger.seen_of(p_options ->> v_name) = '' then
      raise exception '% of % is missing: who does it and why is kept in the ledger', v_name, p_what
        using errcode = 'FL008', hint = 'pass {"actor": "ann", "reason": "INC-12"}';
    end if;
  end loop;
  perform flowledger.check_actor(p_options ->> 'actor');
  perform flowledger.check_text(p_options ->> 'reason', 'reason', 2000);
  if p_options ? 'chunk' and (jsonb_typeof(p_options -> 'chunk') <> 'string' or p_options ->> 'chunk' = '') then
    raise exception 'chunk of % must be a name, got %', p_what, left(p_options ->> 'chunk', 40) using errcode = 'FL008', hint = 'name the chunk, or leave it out';
  elsif p_options ? 'index' and not (jsonb_typeof(p_options -> 'index') = 'number' and p_options ->> 'index' ~ '^[0-9]{1,9}$') then
    raise exception 'index of % must be an integer from 0, got %', p_what, left(p_options ->> 'index', 40) using errcode = 'FL008', hint = 'it counts items from 0';
  end if;
end $$;

-- The planned dispatches that have not ended, by the ledger, and what each waits for that an operator can change: parked, backing
-- off, or neither (null).
create or replace function flowledger.open_dispatches(p_id uuid)
returns table (dispatch int, chunk text, index int, stands text, until timestamptz, error jsonb)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with reached as (
    select l.dispatch, max(l.seq) as seq, bool_or(l.type in ('chunk.completed', 'value.routed', 'interrupt.raised', 'inbox.routed')
      or l.type = 'chunk.failed' and not l.payload ? 'retryInMs') as is_over
    from flowledger.ledger l where l.execution_id = p_id and l.dispatch is not null group by l.dispatch
  )
  -- A sub-flow has no chunk, and its failure says what it is called.
  select p.dispatch, coalesce(last.payload -> 'error' ->> 'chunk', p.chunk), p.index,
    case when last.type = 'chunk.parked' then 'parked' when last.type = 'chunk.failed' then 'backing off' end,
    case when last.type = 'chunk.failed' then last.at + flowledger.ms((last.payload ->> 'retryInMs')::float8) end, last.payload -> 'error'
  from flowledger.planned_of(p_id) p
  left join reached r on r.dispatch = p.dispatch
  left join flowledger.ledger last on last.execution_id = p_id and last.seq = r.seq
  where r.is_over is not true
    and not exists (select from flowledger.ledger l where l.execution_id = p_id and l.type = 'cleanup.planned')
$$;

-- Where an execution stands, in words, for whoever named something else.
create or replace function flowledger.standing(p_id uuid) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with place as (
    select format('"%s"%s (%s)', coalesce(called.flow, o.chunk), case when o.index is not null then ' ' || o.index end,
      coalesce(case o.stands when 'backing off' then 'tries again at ' || flowledger.iso(o.until) else o.stands end, 'runs or waits')) as words, o.dispatch
    from flowledger.open_dispatches(p_id) o
    left join flowledger.sub_flows_of(p_id) called on called.dispatch = o.dispatch
    union all
    select format('"%s" (pause "%s")', i.chunk, i.id), i.raised_seq from flowledger.interrupts i where i.execution_id = p_id and i.status = 'pending'
    union all
    select format('execution %s of flow "%s" below it (parked)', b.id, c.flow), 2147483647
    from flowledger.parked_below(p_id) b(id) join flowledger.executions c on c.id = b.id where b.id <> p_id
  )
  select coalesce('it stands at ' || (select string_agg(p.words, ', ' order by p.dispatch) from (select * from place order by dispatch limit 20) p)
    || case when (select count(*) from place) > 20 then ' and more' else '' end, 'it stands at no chunk')
$$;

-- Items of a distributed collection of the execution that have something parked: each is an execution of its own.
create or replace function flowledger.parked_items(p_id uuid, p_index int) returns table (id uuid, index int)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select c.id, (b.payload -> 'item' ->> 'index')::int
  from flowledger.executions c
  join flowledger.ledger b on b.execution_id = c.id and b.seq = 1 and b.payload ? 'item'
  where c.parent_id = p_id and c.parked > 0 and c.closed_at is null and (p_index is null or (b.payload -> 'item' ->> 'index')::int = p_index)
  order by c.id
$$;

-- The targets of a retry in an execution that the caller has locked: its chunks that are parked, [{ dispatch, chunk, index, executionId }];
-- null where items of it are.
create or replace function flowledger.retried_of(e flowledger.executions, options jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_chunk text := options ->> 'chunk';
  v_index int := (options ->> 'index')::int;
  v_own jsonb;
  v_items int := 0;
begin
  select jsonb_agg(jsonb_build_object('dispatch', o.dispatch, 'chunk', o.chunk, 'index', o.index, 'executionId', e.id) order by o.dispatch) into v_own
  from flowledger.open_dispatches(e.id) o
  where o.stands = 'parked' and (v_chunk is null or v_chunk in (o.chunk, o.error ->> 'chunk')) and (v_index is null or o.index = v_index);
  if v_own is null then
    v_items := (select count(*) from flowledger.items_to_retry(e.id, v_chunk, v_index));
  end if;
  if v_own is null and v_items = 0 then
    raise exception 'execution % has no parked chunk%, and %', e.id, coalesce(' ' || to_json(v_chunk)::text, '') || coalesce(' ' || v_index, ''), flowledger.standing(e.id)
      using errcode = 'FL008', hint = 'name one that is parked, or leave chunk and index out';
  elsif options ? 'input' and coalesce(jsonb_array_length(v_own), 0) + v_items > 1 then
    raise exception 'execution % has several parked chunks, and an input is for one of them: %', e.id, flowledger.standing(e.id)
      using errcode = 'FL008', hint = 'say which one with chunk and index';
  end if;
  return v_own;
end $$;

-- Items of an execution that have something parked that a retry is of.
create or replace function flowledger.items_to_retry(p_id uuid, p_chunk text, p_index int) returns table (id uuid, index int)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select i.id, i.index from flowledger.parked_items(p_id, p_index) i
  where p_chunk is null or exists (select from flowledger.parked_of(i.id) p where p_chunk in (p.chunk, p.error ->> 'chunk'))
$$;

-- The events of a retry.
create or replace function flowledger.retry_events(p_own jsonb, options jsonb) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_agg(jsonb_build_object('type', 'chunk.retried', 'dispatch', d -> 'dispatch', 'chunk', d -> 'chunk', 'actor', options -> 'actor', 'reason', options -> 'reason', 'bulk', options -> 'bulk')
    || case when options ? 'input' then jsonb_build_object('input', options -> 'input') else '{}' end order by ord)
  from jsonb_array_elements(p_own) with ordinality x(d, ord)
$$;

-- Runs parked chunks again, their attempts counted from 1; steps that were recorded are not run again. options: chunk, index (which
-- item or branch; both left out: all that is parked), input (instead of the one it had), actor, reason. Gives what is retried.
create or replace function flowledger.retry(id uuid, options jsonb, notify boolean default true) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_own jsonb;
begin
  perform flowledger.check_operator(options, 'retry()', '{chunk,index,input}');
  perform flowledger.check_json(options -> 'input', 'input of retry()');
  e := flowledger.lock_open(retry.id, 'retry()');
  v_own := flowledger.retried_of(e, options);
  if v_own is not null then
    perform flowledger.accept(e, flowledger.retry_events(v_own, options), notify);
    return (select jsonb_agg(d - 'dispatch' order by ord) from jsonb_array_elements(v_own) with ordinality x(d, ord));
  end if;
  return (
    select jsonb_agg(r || jsonb_build_object('index', i.index))
    from flowledger.items_to_retry(e.id, options ->> 'chunk', (options ->> 'index')::int) i, jsonb_array_elements(flowledger.retry(i.id, options - 'index', true)) r);
end $$;

-- A part of the contract that the execution's version of the flow has, as JSON Schema; null where that is not known here.
create or replace function flowledger.contract_of(e flowledger.executions, p_path text[]) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select d.blueprint #> p_path from flowledger.definitions d where d.flow = e.flow and d.fingerprint = e.fingerprint $$;

-- The target of a skip in an execution that the caller has locked, with a value that its contract bears: { dispatch, chunk, index,
-- interrupt }, or { item, index } where an item of it is.
create or replace function flowledger.skipped_of(e flowledger.executions, options jsonb, raw boolean) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_chunk text := options ->> 'chunk';
  v_index int := (options ->> 'index')::int;
  v_found jsonb;
  v_schema jsonb;
begin
  select jsonb_agg(x.found order by (x.found -> 'dispatch')::int) into v_found from (
    select jsonb_build_object('dispatch', o.dispatch, 'chunk', o.chunk, 'index', o.index) as found
    from flowledger.open_dispatches(e.id) o
    where (o.stands = 'parked' or o.stands = 'backing off' and (o.until > flowledger.now() or e.owner is null))
      and (v_chunk is null or v_chunk in (o.chunk, o.error ->> 'chunk')) and (v_index is null or o.index = v_index)
    union all
    select jsonb_build_object('dispatch', l.dispatch, 'chunk', i.chunk, 'index', p.index, 'interrupt', i.id)
    from flowledger.interrupts i
    join flowledger.ledger l on l.execution_id = i.execution_id and l.seq = i.raised_seq
    left join flowledger.planned_of(e.id) p on p.dispatch = l.dispatch
    where i.execution_id = e.id and i.status = 'pending' and (v_chunk is null or v_chunk = i.chunk) and (v_index is null or p.index = v_index)
    union all
    select jsonb_build_object('item', i.id, 'index', i.index) from flowledger.parked_items(e.id, v_index) i
    where v_chunk is null or exists (select from flowledger.parked_of(i.id) p where v_chunk in (p.chunk, p.error ->> 'chunk'))) x;
  if v_found is null then
    raise exception 'execution % has nothing to skip%, and %', e.id, coalesce(' at ' || to_json(v_chunk)::text, '') || coalesce(' ' || v_index, ''), flowledger.standing(e.id)
      using errcode = 'FL008', hint = 'name a chunk that is parked, backing off, or paused';
  elsif jsonb_array_length(v_found) > 1 then
    raise exception 'execution % has several chunks that could be skipped, and an output is for one of them: %', e.id, flowledger.standing(e.id)
      using errcode = 'FL008', hint = 'say which one with chunk and index';
  end if;
  v_found := v_found -> 0;
  if v_found ? 'item' then
    return v_found;
  end if;
  if raw is distinct from false or not flowledger.is_trusted() then
    v_schema := flowledger.contract_of(e, array['outputs', v_found ->> 'chunk']);
    if v_schema is not null then
      perform flowledger.check_contract(v_schema, coalesce(options -> 'output', 'null'), format('output of chunk "%s"', v_found ->> 'chunk'));
    end if;
  end if;
  return v_found;
end $$;

-- The events of a skip.
create or replace function flowledger.skip_events(p_found jsonb, options jsonb) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('type', 'chunk.skipped', 'dispatch', p_found -> 'dispatch', 'chunk', p_found -> 'chunk', 'interrupt', p_found -> 'interrupt',
      'actor', options -> 'actor', 'reason', options -> 'reason', 'bulk', options -> 'bulk')) || jsonb_build_object('output', coalesce(options -> 'output', 'null')))
    || case when p_found ? 'interrupt' then jsonb_build_array(jsonb_build_object('type', 'interrupt.cancelled', 'id', p_found -> 'interrupt', 'reason', 'skipped')) else '[]' end
$$;

-- Gives a chunk's output in its place: of one that is parked or backing off, or of a pause that waits. What follows goes on as if the
-- chunk had completed with it. options: chunk, index, output (default: null), actor, reason. Gives what is skipped.
--   raw   the chunk's contract has not seen the output. Only the library says that it has, and not as a client
create or replace function flowledger.skip(id uuid, options jsonb, notify boolean default true, raw boolean default true) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_found jsonb;
begin
  perform flowledger.check_operator(options, 'skip()', '{chunk,index,output}');
  perform flowledger.check_json(options -> 'output', 'output of skip()');
  e := flowledger.lock_open(skip.id, 'skip()');
  v_found := flowledger.skipped_of(e, options, raw);
  if v_found ? 'item' then
    return flowledger.skip((v_found ->> 'item')::uuid, options - 'index', true, raw) || jsonb_build_object('index', v_found -> 'index');
  end if;
  perform flowledger.accept(e, flowledger.skip_events(v_found, options), notify);
  return v_found - 'dispatch' - 'interrupt' || jsonb_build_object('executionId', e.id);
end $$;

-- Refuses a value that breaks a part of the flow's contract, as JSON Schema.
create or replace function flowledger.check_contract(p_schema jsonb, p_value jsonb, p_what text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform flowledger.check_schema(p_schema, p_value, p_what, 'breaks the contract of its flow', 'give it with the library, in a process that has the flow', 'change the value');
end $$;

-- Refuses edits after which what they touch breaks the contract of the state, as JSON Schema; null takes all.
create or replace function flowledger.check_edits(p_flow text, p_schema jsonb, p_values jsonb, p_changes jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key text;
  v_known text;
begin
  for v_key in select distinct split_part(x ->> 'path', '.', 1) from jsonb_array_elements(p_changes) x where p_schema is not null loop
    if not coalesce(p_schema -> 'properties' ? v_key, false) and coalesce(p_schema -> 'additionalProperties', 'false') = 'false' then
      v_known := format('there are %s', (select string_agg(k, ', ') from jsonb_object_keys(p_schema -> 'properties') k));
      perform flowledger.refuse_by_contract(format('state "%s"', v_key), format('state "%s" is not in the contract of flow "%s"', v_key, p_flow), v_known,
        format('flow "%s" has no such key (%s)', p_flow, v_known));
    elsif p_values ? v_key and p_schema -> 'properties' ? v_key then
      perform flowledger.check_contract((p_schema - 'properties' - 'required' - 'additionalProperties' - 'type') || (p_schema -> 'properties' -> v_key),
        p_values -> v_key, format('state "%s"', v_key));
    end if;
  end loop;
end $$;

-- Has the ledger since an event a write to one of these keys, or below one?
create or replace function flowledger.is_written(p_id uuid, p_since int, p_keys text[]) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from flowledger.ledger l
    where l.execution_id = p_id and l.seq > p_since and p_keys <> '{}'
      and (l.type in ('state.set', 'state.appended', 'state.deleted') and split_part(l.payload ->> 'key', '.', 1) = any(p_keys)
        or l.type = 'state.edited' and exists (select from jsonb_array_elements(l.payload -> 'changes') x where split_part(x ->> 'path', '.', 1) = any(p_keys))))
$$;

-- Edits the application state. changes: { "set": { path: value }, "delete": [path] }, applied in that order. options: actor, reason,
-- expectedSeq (refused where the ledger has gone on since). Nothing hears of it (`when` does not). Gives the seq, and each change with
-- what was there.
--   raw   the flow's contract has not seen the changes. Only the library says that it has, and not as a client. It also says which
--         event it had read, as "judged": where others wrote since below what is edited by dot path, nothing is done, and it
--         gets { judged, values }, the state as it is now, to look at again.
create or replace function flowledger.edit_state(id uuid, changes jsonb, options jsonb, notify boolean default true, raw boolean default true) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_values jsonb;
  v_touched text[];
  v_path text[];
  v_is_there boolean;
  v_changes jsonb := '[]';
  c record;
  v_schema jsonb;
  v_problem text;
  v_remedy text;
  v_detail text;
begin
  perform flowledger.check_operator(case when raw is not distinct from false and jsonb_typeof(options) = 'object' then options - 'judged' else options end, 'editState()', '{expectedSeq}');
  select o.key into v_problem from jsonb_each(options) o
  where o.key in ('expectedSeq', 'judged') and not (jsonb_typeof(o.value) = 'number' and o.value::text ~ '^[1-9][0-9]{0,8}$');
  if found then
    raise exception '% of editState() must be an integer from 1, got %', v_problem, left(options ->> v_problem, 40) using errcode = 'FL008', hint = 'pass the stateVersion that you read';
  elsif jsonb_typeof(changes) is distinct from 'object' or (changes - 'set' - 'delete') <> '{}'
    or jsonb_typeof(coalesce(changes -> 'set', '{}')) <> 'object' or jsonb_typeof(coalesce(changes -> 'delete', '[]')) <> 'array'
    or jsonb_path_exists(coalesce(changes -> 'delete', '[]'), 'strict $[*] ? (@.type() != "string")') then
    raise exception 'changes of editState() must be { set, delete }, got %', coalesce(left(changes::text, 40), 'null')
      using errcode = 'FL008', hint = 'pass {"set": {"order.total": 42}, "delete": ["draft"]}';
  elsif coalesce(changes -> 'set', '{}') = '{}' and coalesce(changes -> 'delete', '[]') = '[]' then
    raise exception 'editState() has nothing to change' using errcode = 'FL008', hint = 'pass {"set": {"order.total": 42}} or {"delete": ["draft"]}';
  end if;
  perform flowledger.check_json(changes -> 'set', 'set of editState()');
  -- A copy of what was sealed takes the state that its redrive gives it.
  e := flowledger.lock_open(edit_state.id, case when exists (select from flowledger.executions h join flowledger.ledger l on l.execution_id = h.id and l.seq = h.seq
    where h.id = edit_state.id and l.type = 'execution.redriven') then 'redrive()' else 'editState()' end);
  if (options ->> 'expectedSeq')::int > e.seq then
    raise exception 'execution % has no event % yet: it is at %', e.id, options ->> 'expectedSeq', e.seq using errcode = 'FL008', hint = 'pass the stateVersion that you read';
  elsif (options ->> 'expectedSeq')::int < e.seq then
    raise exception 'execution % has gone on since event %', e.id, options ->> 'expectedSeq'
      using errcode = 'FL013', detail = (
          select jsonb_agg(jsonb_strip_nulls(jsonb_build_object('seq', l.seq, 'type', l.type, 'chunk', l.chunk, 'actor', l.actor)) order by l.seq)
          from (select * from flowledger.ledger x where x.execution_id = e.id and x.seq > (options ->> 'expectedSeq')::int order by x.seq limit 20) l)::text,
        hint = 'read the state again, and decide anew';
  end if;
  v_values := flowledger.state_at(e.id);
  v_touched := array(
    select split_part(x.path, '.', 1) from (
      select jsonb_object_keys(changes -> 'set') union all select jsonb_array_elements_text(changes -> 'delete')) x(path)
    where strpos(x.path, '.') > 0);
  if raw is not distinct from false and flowledger.is_written(e.id, (options ->> 'judged')::int, v_touched) then
    return jsonb_build_object('judged', e.seq, 'values', v_values);
  end if;
  for c in
    select s.key as path, 'set' as op, s.value from jsonb_each(coalesce(changes -> 'set', '{}')) s
    union all select d.path, 'delete', null from jsonb_array_elements_text(coalesce(changes -> 'delete', '[]')) d(path)
  loop
    v_path := flowledger.path_of(c.path);
    if c.op = 'set' and (strpos('.' || c.path || '.', '.constructor.prototype.') > 0 or v_path[cardinality(v_path)] = 'constructor' and c.value ? 'prototype') then
      raise exception 'state "%": the key prototype in constructor is not allowed', c.path using errcode = 'FL008', hint = 'rename it';
    end if;
    v_is_there := flowledger.state_holds(v_values, v_path) and coalesce(v_values #> v_path[:cardinality(v_path) - 1], v_values) ? v_path[cardinality(v_path)];
    continue when c.op = 'delete' and not v_is_there;
    if c.op = 'set' then
      for i in 1 .. cardinality(v_path) - 1 loop
        if jsonb_typeof(v_values #> v_path[:i]) <> 'object' then
          raise exception 'state "%" of execution % leads through "%", which is not an object', c.path, e.id, array_to_string(v_path[:i], '.')
            using errcode = 'FL008', hint = 'set that as a whole';
        end if;
      end loop;
    end if;
    v_changes := v_changes || jsonb_build_array(jsonb_build_object('path', c.path, 'op', c.op)
      || case when c.op = 'set' then jsonb_build_object('value', c.value) else '{}' end
      || case when v_is_there then jsonb_build_object('was', v_values #> v_path) else '{}' end);
    v_values := case when c.op = 'set' then flowledger.state_set(v_values, v_path, c.value) else flowledger.state_delete(v_values, v_path) end;
  end loop;
  if raw is distinct from false or not flowledger.is_trusted() then
    -- One that nobody has claimed may run under any of its versions.
    for v_schema in select s from flowledger.contracts_of(e.flow, e.fingerprint, '{contract,state}') s loop
      begin
        perform flowledger.check_edits(e.flow, v_schema, v_values, v_changes);
        v_problem := null;
        exit;
      exception when sqlstate 'FL008' then
        get stacked diagnostics v_problem = message_text, v_remedy = pg_exception_hint, v_detail = pg_exception_detail;
      end;
    end loop;
    if v_problem is not null then
      raise exception '%', v_problem using errcode = 'FL008', hint = v_remedy, detail = v_detail;
    end if;
  end if;
  if v_changes = '[]' then
    return jsonb_build_object('seq', e.seq, 'changes', v_changes);
  end if;
  -- As for a chunk: what is larger could be neither read nor closed. It may always become smaller.
  if coalesce(changes -> 'set', '{}') <> '{}' and length(v_values::text) > 67108864 then
    raise exception 'with that the state of execution % has % characters, and 67108864 at most', e.id, length(v_values::text)
      using errcode = 'FL008', hint = 'keep large data elsewhere, and set a reference to it';
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'state.edited', 'changes', v_changes, 'actor', options -> 'actor', 'reason', options -> 'reason')), notify);
  return jsonb_build_object('seq', e.seq + 1, 'changes', v_changes);
end $$;

-- How an execution was paused, by the ledger from p_first on; no row where it is not.
create or replace function flowledger.pause_of(p_id uuid, p_first int default 1) returns table (seq int, at timestamptz, until timestamptz, actor text, reason text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select l.seq, l.at, flowledger.from_ms((l.payload ->> 'until')::float8), l.actor, l.payload ->> 'reason'
  from (
    select x.* from flowledger.ledger x
    where x.execution_id = p_id and x.seq >= p_first and x.type in ('execution.paused', 'execution.unpaused', 'execution.closed') order by x.seq desc limit 1) l
  where l.type = 'execution.paused'
$$;

-- The events of a pause, or of its end.
create or replace function flowledger.pause_events(p_type text, options jsonb) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $$
  select jsonb_build_array(jsonb_build_object('type', p_type, 'until', flowledger.to_ms(flowledger.moment_of(nullif(options -> 'until', 'null'))),
    'actor', options -> 'actor', 'reason', options -> 'reason', 'bulk', options -> 'bulk'))
$$;

-- Starts no chunk any more; what runs reaches its end, and what comes in is kept. Timers that come due fire after the unpause; the
-- timeout of the execution goes on counting. options: until (a moment: it goes on by itself then), actor, reason. Pausing what is
-- paused moves its end. Gives the seq.
create or replace function flowledger.pause(id uuid, options jsonb, notify boolean default true) returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_until timestamptz;
begin
  perform flowledger.check_operator(options, 'pause()', '{until}');
  if jsonb_typeof(coalesce(options -> 'until', 'null')) <> 'null' then
    v_until := flowledger.moment_of(options -> 'until');
    if v_until is null or v_until <= flowledger.now() then
      raise exception 'until of pause() must be a moment to come, got %', left(options ->> 'until', 40)
        using errcode = 'FL008', hint = 'pass one like "2026-01-31T12:00:00Z", or leave it out';
    end if;
  end if;
  e := flowledger.lock_open(pause.id, 'pause()');
  return flowledger.accept(e, flowledger.pause_events('execution.paused', options), notify);
end $$;

-- Goes on. Gives the seq.
create or replace function flowledger.unpause(id uuid, options jsonb, notify boolean default true) returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
begin
  perform flowledger.check_operator(options, 'unpause()', '{}');
  e := flowledger.lock_open(unpause.id, 'unpause()');
  if not exists (select from flowledger.pause_of(e.id)) then
    raise exception 'execution % is not paused', e.id using errcode = 'FL008', hint = 'there is nothing to do';
  end if;
  return flowledger.accept(e, flowledger.pause_events('execution.unpaused', options), notify);
end $$;
