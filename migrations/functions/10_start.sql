-- Executions are created and started; the hint that somebody advances them is a job.

-- The hint "advance these": one graphile-worker job for up to 25 executions of one flow, task "flowledger:<flow>". No job key
-- and no queue name: their races and costs are not worth it, a second job finds nothing to claim. The jobs' clock is
-- the real one.
--
-- A far timer has one job, however often its execution comes and goes meanwhile: `job_at` says when it comes. Where it comes too
-- early, because the timer moved, `claim` gives another one.
create or replace function flowledger.add_jobs(p_ids uuid[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_at timestamptz := flowledger.now();
  v_offset interval := flowledger.clock_offset();
  v_far uuid[];
  v_new uuid[];
begin
  v_far := array(select e.id from flowledger.executions e where e.id = any(p_ids) and e.wake_at > v_at + interval '5 seconds' and e.owner is null);
  if v_far <> '{}' then
    with noted as (
      update flowledger.executions e set job_at = e.wake_at
      where e.id = any(v_far) and (e.job_at is null or e.job_at <= v_at or e.job_at > e.wake_at + interval '50 milliseconds')
      returning e.id
    ) select array_agg(noted.id) into v_new from noted;
    p_ids := array(select i from unnest(p_ids) i where not i = any(v_far)) || coalesce(v_new, '{}');
  end if;
  perform flowledger_jobs.add_jobs(array(
    select row('flowledger:' || j.flow, json_agg(j.id), null, j.due - v_offset, null, null, j.priority, null)::flowledger_jobs.job_spec
    from (
      select e.id, e.flow, e.priority, greatest(e.wake_at, v_at) as due,
        (row_number() over (partition by e.flow, e.priority, greatest(e.wake_at, v_at) order by e.id) - 1) / 25 as part
      from flowledger.executions e
      where e.id = any(p_ids) and e.wake_at is not null and e.owner is null and e.closed_at is null
    ) j
    group by j.flow, j.priority, j.due, j.part
  ));
end $$;

-- Creates executions, and starts those that are to start, together with their jobs. One element per execution:
--   p_modes          create, start, raw (started, and the flow's contract has not seen its input), claim (started, and owned by
--                    p_worker from the beginning, so that it needs no job)
--   p_inputs         the input, JSON null where there is none
--   p_created        the payload of execution.created; its metadata go into the header too
--   p_keys           idempotency key: a known one gives the execution that has it, and is_conflict says that it was started
--                    with another input
--   p_start_ats, p_delays_ms        its start is not before a time, or so long from now; also the start of one that is only created
--   p_discard_ats, p_discards_ms    discarded when nobody has taken it by then
create or replace function flowledger.create_executions(
  p_ids uuid[], p_flows text[], p_modes text[], p_inputs jsonb, p_created jsonb, p_keys text[], p_priorities int[], p_limit_keys text[], p_parents uuid[],
  p_start_ats timestamptz[], p_delays_ms float8[], p_discard_ats timestamptz[], p_discards_ms float8[], p_worker uuid default null, p_token uuid default null)
returns table (ord int, id uuid, is_new boolean, is_conflict boolean, at_ms float8)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
-- Times travel into the ledger as text.
set extra_float_digits = 1
set plan_cache_mode = force_generic_plan
as $$
declare
  v_at timestamptz := flowledger.now();
  v_role text := flowledger.caller();
  v_new uuid[];
  v_free uuid[];
  v_taken uuid;
begin
  with item as materialized (
    select x.*, x.mode <> 'create' as starts, coalesce(x.start_at, v_at + flowledger.ms(x.delay_ms)) as due,
      coalesce(x.discard_at, v_at + flowledger.ms(x.discard_ms)) as discard
    from rows from (
      unnest(p_ids, p_flows, p_modes, p_keys, p_priorities, p_limit_keys, p_parents, p_start_ats, p_delays_ms, p_discard_ats, p_discards_ms),
      jsonb_array_elements(p_inputs), jsonb_array_elements(p_created))
      as x(id, flow, mode, key, priority, limit_key, parent_id, start_at, delay_ms, discard_at, discard_ms, input, created)
  ), made as (
    insert into flowledger.executions
      (id, seq, epoch, owner, lease_token, flow, priority, created_at, started_at, wake_at, due_at, discard_at, idempotency_key, parent_id, limit_key,
        metadata, fingerprint)
    select i.id, case when i.starts then 2 else 1 end, case when i.mode = 'claim' then 1 else 0 end, case when i.mode = 'claim' then p_worker end,
      case when i.mode = 'claim' then p_token end, i.flow, i.priority, v_at, case when i.starts then v_at end,
      case when i.starts then greatest(v_at, least(coalesce(i.due, v_at), i.discard)) when i.discard is not null then greatest(v_at, i.discard) end,
      i.due, i.discard, i.key, i.parent_id, i.limit_key, i.created -> 'metadata', i.created ->> 'fingerprint'
    from item i
    on conflict do nothing
    returning executions.id, executions.owner
  ), written as (
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, role, payload)
    select i.id, 1, 0, v_at, 'execution.created', v_role,
      case when i.discard is null then i.created
        else jsonb_set(i.created, '{settings}', coalesce(i.created -> 'settings', '{}') || jsonb_build_object('discardAt', flowledger.to_ms(i.discard))) end
        || jsonb_strip_nulls(jsonb_build_object('idempotencyKey', i.key, 'priority', nullif(i.priority, 0),
          'dueAt', case when not i.starts then flowledger.to_ms(i.due) end))
    from made join item i on i.id = made.id
    union all
    select i.id, 2, 0, v_at, 'execution.started', v_role,
      jsonb_build_object('input', i.input) || case when i.mode = 'raw' then '{"raw": true}' else '{}' end::jsonb
        || case when i.due is null then '{}' else jsonb_build_object('dueAt', flowledger.to_ms(i.due)) end
        || case when i.limit_key is null then '{}' else jsonb_build_object('limitKey', i.limit_key) end
    from made join item i on i.id = made.id where i.starts
  )
  select array_agg(made.id), array_agg(made.id) filter (where made.owner is null) into v_new, v_free from made;
  if exists (select from flowledger.flow_pauses) then
    -- A call of another execution waits: its caller was accepted before.
    perform flowledger.check_intake(array(
      select x.flow from unnest(p_ids, p_flows, p_parents) x(id, flow, parent) where x.id = any(v_new) and x.parent is null));
    perform flowledger.check_claimed(array(select x.flow from unnest(p_ids, p_flows, p_modes) x(id, flow, mode) where x.id = any(v_new) and x.mode = 'claim'));
  end if;
  if v_free is not null then
    perform flowledger.add_jobs(v_free);
  end if;
  v_new := coalesce(v_new, '{}');
  if array_remove(p_keys, null) = '{}' then
    return query select x.ordinality::int, x.id, x.id = any(v_new), false, flowledger.to_ms(v_at)
    from unnest(p_ids) with ordinality as x(id, ordinality) order by 1;
    return;
  end if;
  -- Statements of their own: they see what another transaction committed while the insert waited for it. One that was made
  -- with the key but never started is started now.
  perform flowledger.begin_execution(e.id, x.input, false, x.mode = 'raw', x.limit_key, coalesce(x.start_at, v_at + flowledger.ms(x.delay_ms)))
  from rows from (unnest(p_ids, p_flows, p_modes, p_keys, p_limit_keys, p_start_ats, p_delays_ms), jsonb_array_elements(p_inputs))
    as x(id, flow, mode, key, limit_key, start_at, delay_ms, input)
  join flowledger.executions e on e.flow = x.flow and e.idempotency_key = x.key
  where x.mode <> 'create' and not (e.id = x.id and e.id = any(v_new)) and e.started_at is null and e.closed_at is null;
  -- The key is new, and yet nothing was made: the id is somebody else's. An answer would say that it runs.
  select x.id into v_taken
  from unnest(p_ids, p_flows, p_keys) as x(id, flow, key)
  where x.key is not null and not x.id = any(v_new)
    and not exists (select from flowledger.executions e where e.flow = x.flow and e.idempotency_key = x.key)
  limit 1;
  if found then
    perform flowledger.check_granted(v_taken);
    raise exception 'execution id % is taken', v_taken
      using errcode = 'FL008', hint = 'leave id out, or use idempotencyKey to find an execution again';
  end if;
  return query
    select x.ordinality::int,
      coalesce(known.id, x.id),
      x.id = any(v_new),
      known.id is not null and x.mode <> 'create' and coalesce(x.input, 'null') is distinct from (
        select l.payload -> 'input' from flowledger.ledger l
        where l.execution_id = known.id and l.type = 'execution.started' limit 1),
      flowledger.to_ms(v_at)
    from rows from (unnest(p_ids, p_flows, p_modes, p_keys), jsonb_array_elements(p_inputs)) with ordinality as x(id, flow, mode, key, input, ordinality)
    left join lateral (
      select e.id from flowledger.executions e
      where e.flow = x.flow and e.idempotency_key = x.key and not (e.id = x.id and e.id = any(v_new))) known on true
    order by 1;
end $$;

-- A length of time in milliseconds, as `parseDuration` of the library reads it: a number of them, or "500ms", "10s", "1h30m"
-- (units ms, s, m, h, d, w), up to a hundred years. Null for anything else.
create or replace function flowledger.duration_ms(p_value jsonb) returns float8
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ms float8;
begin
  if jsonb_typeof(p_value) = 'number' then
    v_ms := p_value::float8;
  elsif jsonb_typeof(p_value) = 'string' and p_value #>> '{}' ~ '^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$' then
    select sum(m[1]::float8 * case m[2] when 'ms' then 1 when 's' then 1000 when 'm' then 60000 when 'h' then 3600000 when 'd' then 86400000 else 604800000 end)
    into v_ms from regexp_matches(p_value #>> '{}', '([0-9.]+)([a-z]+)', 'g') m;
  end if;
  -- Half a millisecond is rounded up, as JavaScript does.
  return case when v_ms between 0 and 3155760000000 then floor(v_ms) + case when v_ms - floor(v_ms) >= 0.5 then 1 else 0 end end;
exception when numeric_value_out_of_range then
  return null;
end $$;

-- A moment from 1970 to 9999, as ISO 8601 with its time zone. Null for anything else.
create or replace function flowledger.moment_of(p_value jsonb) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz;
begin
  if jsonb_typeof(p_value) = 'string'
    and p_value #>> '{}' ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)$' then
    v_at := (p_value #>> '{}')::timestamptz;
  end if;
  return case when v_at between '1970-01-01T00:00:00Z' and '9999-12-31T00:00:00Z' then v_at end;
exception when data_exception then
  return null;
end $$;

-- W3C Trace Context, as `parseTraceparent` of the library reads it. Null for anything else.
create or replace function flowledger.traceparent_of(p_value jsonb) returns text
language sql immutable parallel safe
return case when jsonb_typeof(p_value) = 'string'
  and p_value #>> '{}' ~ '^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$' then p_value #>> '{}' end;

create or replace function flowledger.warn_of_traceparent(p_text text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise warning 'traceparent % is malformed and ignored', to_json(left(p_text, 80))
    using hint = 'pass 00-<32 hex>-<16 hex>-<2 hex>, as W3C Trace Context writes it';
end $$;

-- Refuses a start by the name of its flow, or by an option that is unknown or is invalid: what the library refuses too, in
-- `execution/bound-flow.ts`, and for names in `flow/draft.ts`.
create or replace function flowledger.check_start(p_flow text, p_options jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  o record;
  v_expected text;
  v_is_right boolean;
begin
  if p_flow is null or p_flow !~ '^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$' then
    raise exception 'flow name % is not valid', quote_nullable(left(p_flow, 40))
      using errcode = 'FL008', hint = 'use 1 to 100 letters, digits and . _ : - that begin with a letter or digit';
  elsif starts_with(p_flow, 'flowledger.') then
    raise exception 'flow "%" belongs to the library, and cannot be started directly', p_flow using errcode = 'FL008', hint = 'names that begin with "flowledger." are reserved';
  elsif jsonb_typeof(p_options) is distinct from 'object' then
    raise exception 'options of a start must be an object, got %', coalesce(left(p_options::text, 40), 'null')
      using errcode = 'FL008', hint = 'pass {"idempotencyKey": "order-17"}';
  end if;
  for o in select x.key, x.value, x.value #>> '{}' as text, jsonb_typeof(x.value) as kind from jsonb_each(p_options) x loop
    case o.key
    when 'id' then
      v_expected := 'a uuid';
      v_is_right := o.kind = 'string' and (o.text in ('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        or o.text ~ '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$');
    when 'idempotencyKey' then
      v_expected := 'a text of 1 to 500 characters';
      v_is_right := o.kind = 'string' and length(o.text) between 1 and 500;
    when 'limitKey' then
      v_expected := 'a text of 1 to 200 characters';
      v_is_right := o.kind = 'string' and length(o.text) between 1 and 200;
    when 'metadata' then
      v_expected := 'an object';
      v_is_right := o.kind = 'object';
      perform flowledger.check_json(o.value, 'metadata');
    when 'priority' then
      v_expected := 'an integer from -32767 to 32767';
      v_is_right := flowledger.is_integer(o.value, -32767, 32767);
    when 'concurrency' then
      v_expected := 'an integer of at least 1, or null for no limit';
      v_is_right := o.kind = 'null' or flowledger.is_integer(o.value, 1, 9007199254740991);
    when 'startAt' then
      v_expected := 'a moment like "2026-01-31T12:00:00Z"';
      v_is_right := flowledger.moment_of(o.value) is not null;
    when 'delay' then
      v_expected := 'a duration like "10s" or 10000';
      v_is_right := flowledger.duration_ms(o.value) is not null;
    when 'discardAfter' then
      v_expected := 'a duration like "10s" or 10000, or a moment like "2026-01-31T12:00:00Z"';
      v_is_right := flowledger.duration_ms(o.value) is not null or flowledger.moment_of(o.value) is not null;
    when 'timeout', 'autoCloseTimeout' then
      v_expected := 'a duration like "10s" or 10000, or null for none';
      v_is_right := o.kind = 'null' or flowledger.duration_ms(o.value) is not null;
    when 'autoClose', 'allowUnknown', 'hidden' then
      v_expected := 'true or false';
      v_is_right := o.kind = 'boolean';
    when 'interventionMode' then
      v_expected := '"planned", "auto" or null';
      v_is_right := o.kind = 'null' or o.value in ('"planned"', '"auto"');
    when 'traceparent' then
      v_expected := 'a text';
      v_is_right := o.kind = 'string';
      if v_is_right and flowledger.traceparent_of(o.value) is null then
        perform flowledger.warn_of_traceparent(o.text);
      end if;
    else
      raise exception 'a start has an unknown option %', to_json(left(o.key, 40))
        using errcode = 'FL008', hint = 'use id, idempotencyKey, metadata, priority, startAt, delay, discardAfter, autoClose, autoCloseTimeout, concurrency, interventionMode, timeout, limitKey, traceparent, allowUnknown, hidden';
    end case;
    if v_is_right is not true then
      raise exception '% must be %, got %', o.key, v_expected, left(o.value::text, 40) using errcode = 'FL008', hint = 'correct it, or leave it out';
    end if;
  end loop;
end $$;

-- Refuses a flow that no worker ever served here: its executions might wait for ever. Where none has served any, a deploy sends
-- first, and nothing can be compared. A superuser who asks by hand is only warned, unless the name is nearly one that is known.
create or replace function flowledger.check_served(p_flow text, p_by_hand boolean default false) returns void
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select flowledger.check_served(p_flow, p_by_hand, false) $$;

-- p_limited: it names only flows that the limits of the session cover.
create or replace function flowledger.check_served(p_flow text, p_by_hand boolean, p_limited boolean) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_known text[];
  v_meant text;
  v_problem text := format('no worker has ever served a flow named "%s" here', p_flow);
  v_remedy text;
begin
  if exists (select from flowledger.definitions d where d.flow = p_flow) then
    return;
  end if;
  v_known := array(
    select k.flow from (select d.flow from flowledger.definitions d union select unnest(w.flows) from flowledger.workers w) k
    where not starts_with(k.flow, 'flowledger.') order by 1);
  if v_known = '{}' or p_flow = any(v_known) then
    return;
  elsif p_limited then
    v_known := array(select k from unnest(v_known) k where exists (select from flowledger.client_limits() l where l.flows is null or k = any(l.flows)));
  end if;
  v_meant := flowledger.nearest(p_flow, v_known[1:200]);
  v_remedy := coalesce('did you mean "' || v_meant || '"? ', '')
    || case when v_known = array[v_meant] or v_known = '{}' then ''
      else case when v_meant is null then 'known are ' else 'Known are ' end || array_to_string(v_known[1:20], ', ')
        || case when cardinality(v_known) > 20 then format(' and %s more', cardinality(v_known) - 20) else '' end || '. ' end
    || 'To start it all the same, pass allowUnknown: true, or --force on the command line';
  if p_by_hand and v_meant is null and flowledger.is_superuser() then
    raise warning '%', v_problem using hint = v_remedy;
    return;
  end if;
  raise exception '%', v_problem using errcode = 'FL008', hint = v_remedy;
end $$;

-- A part of the contract, as JSON Schema, in each version of a flow that an execution may run under: its own; of one that nobody has
-- claimed (p_fingerprint is null) those that live workers serve, and without any, those that were ever served. Null is a version without.
create or replace function flowledger.contracts_of(p_flow text, p_fingerprint text, p_path text[]) returns setof jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with served as (select w.fingerprints from flowledger.workers w where p_fingerprint is null and p_flow = any(w.flows))
  select d.blueprint #> p_path
  from flowledger.definitions d
  where d.flow = p_flow and case when p_fingerprint is not null then d.fingerprint = p_fingerprint
    else not exists (select from served) or exists (select from served s where s.fingerprints is null or d.fingerprint = any(s.fingerprints)) end
  order by d.created_at desc, d.fingerprint
$$;

-- Refuses an input that breaks the contract of its flow in every version of it that may run.
-- Refinements, and patterns that Postgres does not know, are checked by the worker.
create or replace function flowledger.check_input(p_flow text, p_input jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schemas jsonb[];
  v_schema jsonb;
  v_problem text;
begin
  select array_agg(coalesce(c, 'true')) into v_schemas from flowledger.contracts_of(p_flow, null, '{contract,input}') c;
  if v_schemas is null or 'true' = any(v_schemas) then
    return;
  end if;
  foreach v_schema in array v_schemas loop
    begin
      v_problem := flowledger.schema_problem(v_schema, coalesce(p_input, 'null'), v_schema, '', flowledger.wall_clock() + interval '2 seconds', '{}');
    exception when invalid_regular_expression or statement_too_complex or program_limit_exceeded or data_exception then
      return;
    end;
    if v_problem is null then
      return;
    end if;
  end loop;
  perform flowledger.refuse_by_contract(format('input of flow "%s"', p_flow), format('input of flow "%s" does not fit the contract: it%s', p_flow, v_problem),
    'change the value or the contract', 'it' || v_problem);
end $$;

-- Does a superuser ask? By who logged in, or works as whom.
create or replace function flowledger.is_superuser() returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((select r.rolsuper from pg_roles r
    where r.rolname = flowledger.working_role()), false)
$$;

-- The name that was meant, as far as a typing error or two goes: as `nearest` of the library has it, in `base/option.ts`.
create or replace function flowledger.nearest(p_name text, p_names text[]) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := lower(p_name);
  v_known text;
  v_best text;
  v_least int;
  v_most int;
  v_row int[];
  v_next int[];
begin
  foreach v_known in array p_names loop
    v_most := least(greatest(1, length(v_known) / 3), v_least - 1);
    continue when abs(length(v_known) - length(v_name)) > v_most;
    v_row := array(select generate_series(0, length(v_known)));
    for i in 1 .. length(v_name) loop
      v_next := array[i];
      for j in 1 .. length(v_known) loop
        v_next[j + 1] := least(v_row[j + 1] + 1, v_next[j] + 1,
          v_row[j] + case when substr(v_name, i, 1) = substr(lower(v_known), j, 1) then 0 else 1 end);
      end loop;
      v_row := v_next;
    end loop;
    if v_row[length(v_known) + 1] <= v_most then
      v_best := v_known;
      v_least := v_row[length(v_known) + 1];
    end if;
  end loop;
  return v_best;
end $$;

create or replace function flowledger.is_integer(p_value jsonb, p_min numeric, p_max numeric) returns boolean
language sql immutable parallel safe
return case when jsonb_typeof(p_value) = 'number' then p_value::numeric % 1 = 0 and p_value::numeric between p_min and p_max else false end;

-- Starts an execution of a flow; with a known idempotencyKey, gives the one that has it. The options are those of the library:
-- id, idempotencyKey, metadata, priority, delay, startAt, discardAfter, autoClose, autoCloseTimeout (null: never), concurrency,
-- interventionMode, timeout, allowUnknown, traceparent (W3C; a malformed one is ignored with a warning); durations are milliseconds or "1h30m", moments ISO 8601. And limitKey: what the limits per key count
-- it by, since SQL does not know the flow's own; without one it counts with all others that have none. And hidden: nobody can answer it,
-- so a pause fails it, as of `flow(f).start()`.
create or replace function flowledger.start(flow text, input jsonb default 'null', options jsonb default '{}') returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $$
declare
  v_id uuid;
  v_timeout text;
begin
  -- Somebody's open transaction may have the key, or the id, or be the first that starts the flow.
  if not (options ?| '{id,idempotencyKey}' or not exists (select from flowledger_jobs._private_tasks t where t.identifier = 'flowledger:' || start.flow)) then
    return flowledger.create_start(flow, input, options);
  end if;
  begin
    v_timeout := flowledger.limit_wait();
    v_id := flowledger.create_start(flow, input, options);
    perform set_config('lock_timeout', v_timeout, true);
    return v_id;
  exception when lock_not_available or deadlock_detected then
    perform flowledger.refuse_held(flowledger.held_start(flow, (options ->> 'id')::uuid, options ->> 'idempotencyKey'), null);
  end;
end $$;

-- The key, id or flow that a start waits for.
create or replace function flowledger.held_start(p_flow text, p_id uuid, p_key text) returns text
language sql immutable
return case when p_key is not null then format('idempotency key %s of flow "%s"', to_json(p_key), p_flow)
  when p_id is not null then 'execution id ' || p_id else format('the first start of flow "%s"', p_flow) end;

-- One of `create_executions`, which waits for a lock no longer than other commands.
create or replace function flowledger.create_execution(
  p_id uuid, p_flow text, p_mode text, p_input jsonb, p_created jsonb, p_key text, p_priority int, p_limit_key text, p_parent uuid,
  p_start_at timestamptz, p_delay_ms float8, p_discard_at timestamptz, p_discard_ms float8)
returns table (ord int, id uuid, is_new boolean, is_conflict boolean, at_ms float8)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_timeout text := flowledger.limit_wait();
begin
  return query select c.* from flowledger.create_executions(array[p_id], array[p_flow], array[p_mode], jsonb_build_array(p_input), jsonb_build_array(p_created),
    array[p_key], array[p_priority], array[p_limit_key], array[p_parent], array[p_start_at], array[p_delay_ms], array[p_discard_at], array[p_discard_ms]) c;
  perform set_config('lock_timeout', v_timeout, true);
exception when lock_not_available or deadlock_detected then
  perform flowledger.refuse_held(flowledger.held_start(p_flow, p_id, p_key), null);
end $$;

-- The start itself, which may wait for a lock.
create or replace function flowledger.create_start(flow text, input jsonb, options jsonb) returns uuid
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id uuid;
  v_conflict boolean;
  v_new boolean;
  v_limited boolean := false;
  v_scope jsonb;
begin
  perform flowledger.check_start(flow, options);
  if exists (select from flowledger.client_grants) then
    v_limited := flowledger.is_limited('{client}');
    v_scope := case when v_limited then flowledger.scope_of_start(flow, options -> 'metadata') end;
  end if;
  if coalesce(options -> 'allowUnknown', 'false') = 'false' then
    perform flowledger.check_served(flow, true, v_limited);
  end if;
  perform flowledger.check_json(input, format('input of flow "%s"', flow));
  perform flowledger.check_input(flow, input);
  select c.id, c.is_conflict, c.is_new into v_id, v_conflict, v_new
  from flowledger.create_executions(
    array[coalesce((options ->> 'id')::uuid, flowledger.new_id())], array[flow], array['raw'], jsonb_build_array(coalesce(input, 'null')),
    jsonb_build_array(jsonb_build_object('flow', flow)
      || case when flowledger.traceparent_of(options -> 'traceparent') is not null then jsonb_build_object('traceparent', options -> 'traceparent') else '{}' end
      || case when options ? 'metadata' then jsonb_build_object('metadata', options -> 'metadata') else '{}' end
      || jsonb_build_object('settings', jsonb_strip_nulls(jsonb_build_object(
        'autoClose', options -> 'autoClose', 'concurrency', options -> 'concurrency',
        'interventionMode', options -> 'interventionMode', 'hidden', nullif(options -> 'hidden', 'false'),
        'timeoutMs', flowledger.duration_ms(options -> 'timeout'),
        'autoCloseMs', flowledger.duration_ms(options -> 'autoCloseTimeout')))
        || case when options -> 'autoCloseTimeout' = 'null' then '{"autoCloseMs": null}' else '{}' end::jsonb)),
    array[flowledger.key_within(v_scope, options ->> 'idempotencyKey')], array[coalesce((options -> 'priority')::int, 0)], array[options ->> 'limitKey'], array[null::uuid],
    array[flowledger.moment_of(options -> 'startAt')], array[flowledger.duration_ms(options -> 'delay')],
    array[flowledger.moment_of(options -> 'discardAfter')], array[flowledger.duration_ms(options -> 'discardAfter')]) c;
  if v_conflict then
    raise exception 'idempotency key % of flow % was used with another input (execution %)', options ->> 'idempotencyKey', flow, v_id
      using errcode = 'FL008', hint = 'use a new key for a new input';
  elsif not v_new and not options ? 'idempotencyKey' then
    perform flowledger.check_granted(v_id);
    raise exception 'execution id % is taken', v_id
      using errcode = 'FL008', hint = 'leave id out, or use idempotencyKey to find an execution again';
  end if;
  return v_id;
end $$;

-- Gives a created execution its input; one that was created with a delay begins when that is over. False when it had been started before.
create or replace function flowledger.start_execution(id uuid, input jsonb, notify boolean default true, raw boolean default true,
  limit_key text default null) returns boolean
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  select flowledger.check_granted(start_execution.id);
  select flowledger.begin_execution(start_execution.id, input, notify, raw, limit_key, null)
$$;

-- As `start_execution`, with a delay of the start: the later of the two counts.
create or replace function flowledger.begin_execution(p_id uuid, input jsonb, notify boolean, raw boolean, limit_key text, p_due timestamptz) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $$
declare
  e flowledger.executions;
begin
  perform flowledger.check_text(limit_key, 'limit_key', 200);
  perform flowledger.check_json(input, 'input');
  e := flowledger.lock_open(p_id, 'start');
  if e.started_at is not null then
    return false;
  elsif e.parent_id is null then
    perform flowledger.check_intake(array[e.flow]);
  end if;
  if raw is distinct from false or not flowledger.is_trusted() then
    perform flowledger.check_input(e.flow, input);
  end if;
  if limit_key is not null or p_due is not null then
    e.due_at := greatest(e.due_at, p_due);
    e.limit_key := coalesce(limit_key, e.limit_key);
    update flowledger.executions h set limit_key = e.limit_key, due_at = e.due_at where h.id = e.id;
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'execution.started', 'input', coalesce(input, 'null'),
    'raw', case when raw is distinct from false or not flowledger.is_trusted() then true end, 'dueAt', flowledger.to_ms(e.due_at),
    'limitKey', limit_key)), notify);
  return true;
end $$;
