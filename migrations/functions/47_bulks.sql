-- Bulks, one command to many executions: the targets are fixed when the bulk is asked for, and an execution of `flowledger.bulk` gives
-- each its command, with what became of it in the same transaction.

-- Which options of its command a bulk may give to each target.
create or replace function flowledger.bulk_commands() returns table (action text, known text[])
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  values ('redrive', '{from,input,output,state}'::text[]), ('retry', '{chunk,index,input}'), ('skip', '{chunk,index,output}'), ('cancel', '{}'),
    ('pause', '{until}'), ('unpause', '{}')
$$;

-- Texts of an option that is one, or a list of some; null where it is not there, and the empty list where it is invalid.
create or replace function flowledger.texts_of(p_value jsonb) returns text[]
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select case jsonb_typeof(p_value)
    when 'string' then array[p_value #>> '{}']
    when 'array' then case when p_value @? 'strict $[*] ? (@.type() != "string")' then '{}' else array(select jsonb_array_elements_text(p_value)) end
    else case when p_value is not null then '{}'::text[] end end
$$;

-- Refuses a filter that has nothing, a flow that nobody knows, or what is invalid: what the library refuses too, in `execution/list.ts`.
create or replace function flowledger.check_filter(p_where jsonb, p_what text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  o record;
  v_expected text;
  v_is_right boolean;
begin
  perform flowledger.check_options(p_where, p_what, '{flow,status,version,createdAfter,createdBefore,closedAfter,closedBefore,parent,idPrefix,idempotencyKey,errorLike,metadata,redriven}',
    '{"flow": "import", "status": "failed"}');
  -- Nothing is contained in all of them.
  if p_where in ('{}', '{"metadata": {}}') then
    raise exception '% is empty, and would be every execution there is', p_what using errcode = 'FL008', hint = 'pass {"flow": "import", "status": "failed"}';
  end if;
  for o in select x.key, x.value, x.value #>> '{}' as text, jsonb_typeof(x.value) as kind from jsonb_each(p_where) x loop
    case o.key
    when 'flow' then
      v_expected := 'the name of a flow, or a list of some';
      v_is_right := cardinality(flowledger.texts_of(o.value)) > 0 and not exists (select from unnest(flowledger.texts_of(o.value)) f where f = '' or length(f) > 100);
    when 'status' then
      v_expected := 'a status, or a list of some';
      v_is_right := cardinality(flowledger.texts_of(o.value)) > 0
        and flowledger.texts_of(o.value) <@ '{created,running,waiting,parked,completed,failed,cancelled}'::text[];
    when 'version' then
      v_expected := 'a text of 1 to 200 characters';
      v_is_right := o.kind = 'string' and length(o.text) between 1 and 200;
    when 'createdAfter', 'createdBefore', 'closedAfter', 'closedBefore' then
      v_expected := 'a moment like "2026-01-31T12:00:00Z"';
      v_is_right := flowledger.moment_of(o.value) is not null;
    when 'parent' then
      v_expected := 'the id of an execution';
      v_is_right := o.kind = 'string' and o.text ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
    when 'idPrefix' then
      v_expected := 'how an id begins, like "01a1fc3d-d4"';
      v_is_right := o.kind = 'string' and length(o.text) between 1 and 36 and
        o.text || substr('xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx', length(o.text) + 1) ~* '^[0-9a-fx]{8}(-[0-9a-fx]{4}){3}-[0-9a-fx]{12}$' and o.text !~* 'x';
    when 'idempotencyKey' then
      v_expected := 'a text of 1 to 10000 characters';
      v_is_right := o.kind = 'string' and length(o.text) between 1 and 10000;
    when 'errorLike' then
      v_expected := 'a text of 1 to 1000 characters';
      v_is_right := o.kind = 'string' and length(o.text) between 1 and 1000;
    when 'redriven' then
      v_expected := 'true or false';
      v_is_right := o.kind = 'boolean';
    else
      v_expected := 'an object';
      v_is_right := o.kind = 'object';
      perform flowledger.check_json(o.value, 'metadata in ' || p_what);
    end case;
    if v_is_right is not true then
      raise exception '% in % must be %, got %', o.key, p_what, v_expected, left(o.value::text, 40) using errcode = 'FL008', hint = 'correct it, or leave it out';
    elsif o.key = 'flow' then
      -- Nothing would be done, and it would look as if all was well.
      perform flowledger.check_flow(f, p_what) from unnest(flowledger.texts_of(o.value)) f;
    end if;
  end loop;
end $$;

-- The executions that a bulk is about, the oldest first: those of its filter that its command could do anything about. A redrive is of
-- those that failed, where no status is named; what was called by another goes on with that. Bulks are meant only where named.
create or replace function flowledger.bulk_matches(p_action text, p_where jsonb, p_limit int) returns setof uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- A filter that is left out is not in the plan.
set plan_cache_mode = force_custom_plan
set jit = off
as $$
declare
  v_flows text[] := flowledger.texts_of(p_where -> 'flow');
  v_statuses text[] := coalesce(flowledger.texts_of(p_where -> 'status'), case when p_action = 'redrive' then '{failed}'::text[] end);
  v_version text := p_where ->> 'version';
  v_created_after timestamptz := flowledger.moment_of(p_where -> 'createdAfter');
  v_created_before timestamptz := flowledger.moment_of(p_where -> 'createdBefore');
  v_closed_after timestamptz := flowledger.moment_of(p_where -> 'closedAfter');
  v_closed_before timestamptz := flowledger.moment_of(p_where -> 'closedBefore');
  v_parent uuid := (p_where ->> 'parent')::uuid;
  v_first uuid := (p_where ->> 'idPrefix' || translate(substr('xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx', length(p_where ->> 'idPrefix') + 1), 'x', '0'))::uuid;
  v_last uuid := (p_where ->> 'idPrefix' || translate(substr('xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx', length(p_where ->> 'idPrefix') + 1), 'x', 'f'))::uuid;
  v_key text := p_where ->> 'idempotencyKey';
  v_error text := '%' || regexp_replace(p_where ->> 'errorLike', '([\\_])', '\\\1', 'g') || '%';
  v_metadata jsonb := nullif(p_where -> 'metadata', '{}');
  v_redriven boolean := (p_where -> 'redriven')::boolean;
  v_is_parked boolean := p_action = 'retry';
  v_is_closed boolean := p_action = 'redrive';
begin
  return query
    select e.id from flowledger.executions e
    where case when v_is_closed then e.closed_at is not null and e.parent_id is null else e.closed_at is null end
      and (not v_is_parked or e.parked > 0)
      and (v_flows is null or e.flow = any(v_flows))
      and (v_flows is not null or not starts_with(e.flow, 'flowledger.'))
      and (v_statuses is null or e.status = any(v_statuses))
      and (v_version is null or starts_with(e.fingerprint, v_version))
      and (v_created_after is null or e.created_at > v_created_after)
      and (v_created_before is null or e.created_at < v_created_before)
      and (v_closed_after is null or e.closed_at > v_closed_after)
      and (v_closed_before is null or e.closed_at < v_closed_before)
      and (v_parent is null or e.parent_id = v_parent)
      and (v_first is null or e.id between v_first and v_last)
      and (v_key is null or e.idempotency_key = v_key)
      and (v_metadata is null or e.metadata is not null and e.metadata @> v_metadata)
      and (v_redriven is null or exists (select from flowledger.redriven_by(e.id)) = v_redriven)
      -- Of what is parked, the error that it parked with.
      and (v_error is null or concat(e.error ->> 'name', ': ', e.error ->> 'message') ilike v_error
        or e.parked > 0 and exists (select from flowledger.parked_of(e.id) p where concat(p.error ->> 'name', ': ', p.error ->> 'message') ilike v_error))
    order by e.id limit p_limit;
end $$;

-- Does the same to many executions. options:
--   action     redrive, retry, skip, cancel, pause or unpause
--   where      which: the filters of `listExecutions`, one at least
--   options    of the command that each gets, as that takes them
--   rate       { "limit": 50, "per": "1s" }: so many commands in any time of that length, at most
--   limit      refused where more match than that; 10,000 unless said otherwise, 1,000,000 at most
--   dryRun     says what would be done, and does nothing
--   actor, reason
-- Gives { id, matched }, with the id of the execution that does it; of a dry run { matched, isMore, samples }: counted up to the limit,
-- and the first twenty.
create or replace function flowledger.bulk(options jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  c_most constant int := 1000000;
  v_action text := options ->> 'action';
  v_by jsonb;
  v_command jsonb;
  v_known text[];
  v_limit int;
  v_rate_ms float8;
  v_id uuid := flowledger.new_id();
  v_matched int;
  b flowledger.bulks;
begin
  perform flowledger.check_operator(options, 'bulk()', '{id,action,where,options,rate,limit,dryRun}');
  v_by := jsonb_build_object('actor', options -> 'actor', 'reason', options -> 'reason');
  select c.known into v_known from flowledger.bulk_commands() c where to_jsonb(c.action) = options -> 'action';
  if not found then
    raise exception 'action of bulk() must be one of %, got %', (select string_agg(c.action, ', ') from flowledger.bulk_commands() c),
        coalesce(left((options -> 'action')::text, 40), 'none')
      using errcode = 'FL008', hint = 'pass {"action": "retry"}';
  end if;
  perform flowledger.check_filter(options -> 'where', 'where of bulk()');
  v_command := coalesce(nullif(options -> 'options', 'null'), '{}');
  perform flowledger.check_options(v_command, v_action || ' in bulk()', v_known, case v_action when 'skip' then '{"chunk": "charge", "output": null}' else '{}' end);
  perform flowledger.check_operator(v_command || v_by, v_action || ' in bulk()', v_known);
  perform flowledger.check_json(v_command, 'options of bulk()');
  if v_command ? 'input' and v_command ? 'output' then
    raise exception 'options of bulk() take input or output, and got both' using errcode = 'FL008', hint = 'pass input to run the chunk again, or output to skip it';
  elsif jsonb_typeof(coalesce(v_command -> 'until', 'null')) <> 'null' and coalesce(flowledger.moment_of(v_command -> 'until') <= flowledger.now(), true) then
    raise exception 'until in bulk() must be a moment to come, got %', left((v_command -> 'until')::text, 40)
      using errcode = 'FL008', hint = 'pass one like "2026-01-31T12:00:00Z", or leave it out';
  elsif options ? 'limit' and not flowledger.is_integer(options -> 'limit', 1, c_most) then
    raise exception 'limit of bulk() must be an integer from 1 to %, got %', c_most, left((options -> 'limit')::text, 40) using errcode = 'FL008', hint = 'leave it out for 10000';
  elsif jsonb_typeof(coalesce(options -> 'dryRun', 'false')) <> 'boolean' then
    raise exception 'dryRun of bulk() must be true or false, got %', left((options -> 'dryRun')::text, 40) using errcode = 'FL008', hint = 'pass true to see what it would do';
  elsif options ? 'id' and not (jsonb_typeof(options -> 'id') = 'string' and options ->> 'id' ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$') then
    raise exception 'id of bulk() must be a uuid, got %', left((options -> 'id')::text, 40) using errcode = 'FL008', hint = 'leave it out';
  end if;
  if jsonb_typeof(coalesce(options -> 'rate', 'null')) <> 'null' then
    perform flowledger.check_options(options -> 'rate', 'rate of bulk()', '{limit,per}', '{"limit": 50, "per": "1s"}');
    v_rate_ms := flowledger.duration_ms(options -> 'rate' -> 'per');
    if flowledger.is_integer(options -> 'rate' -> 'limit', 1, c_most) is not true or coalesce(v_rate_ms, 0) = 0 then
      raise exception 'rate of bulk() must be so many commands from 1 in a time, got %', left((options -> 'rate')::text, 60)
        using errcode = 'FL008', hint = 'pass {"limit": 50, "per": "1s"}';
    end if;
  end if;
  v_limit := coalesce((options -> 'limit')::int, 10000);
  if coalesce((options -> 'dryRun')::boolean, false) then
    return (
      select jsonb_build_object('matched', least(count(*), v_limit), 'isMore', count(*) > v_limit,
        'samples', coalesce((select jsonb_agg(s.id order by s.id) from unnest((array_agg(m.id order by m.id))[1:20]) s(id)), '[]'))
      from flowledger.bulk_matches(v_action, options -> 'where', v_limit + 1) m(id));
  end if;
  v_id := coalesce((options ->> 'id')::uuid, v_id);
  -- Sent again, because its answer was lost.
  select x.* into b from flowledger.bulks x where x.execution_id = v_id;
  if found and (b.action, b.filter, b.options, b.actor, b.reason) = (v_action, options -> 'where', v_command, options ->> 'actor', options ->> 'reason') then
    return jsonb_build_object('id', v_id, 'matched', b.matched);
  elsif found or exists (select from flowledger.executions e where e.id = v_id) then
    raise exception 'execution id % is taken', v_id using errcode = 'FL008', hint = 'leave id out';
  end if;
  insert into flowledger.bulk_targets (execution_id, number, target_id)
  select v_id, m.number, m.id from flowledger.bulk_matches(v_action, options -> 'where', v_limit + 1) with ordinality m(id, number);
  get diagnostics v_matched = row_count;
  if v_matched > v_limit then
    raise exception 'more than % executions match, which is the limit of this bulk()', v_limit
      using errcode = 'FL008', hint = format('narrow "where" down, or pass a larger limit, up to %s', c_most);
  end if;
  insert into flowledger.bulks (execution_id, action, options, filter, rate, rate_ms, matched, at, by, role, actor, reason)
  values (v_id, v_action, v_command, options -> 'where', (options -> 'rate' ->> 'limit')::int, v_rate_ms, v_matched, flowledger.now(), flowledger.caller(),
    flowledger.working_role(), options ->> 'actor', options ->> 'reason');
  perform flowledger.create_execution(v_id, 'flowledger.bulk', 'start', jsonb_build_object('bulk', v_id),
    jsonb_build_object('flow', 'flowledger.bulk', 'metadata', jsonb_build_object('action', v_action), 'settings', jsonb_build_object('autoCloseMs', 0)),
    null, 0, null, null, null, null, null, null);
  return jsonb_build_object('id', v_id, 'matched', v_matched);
end $$;

-- How far a bulk is; null where there is no such.
create or replace function flowledger.bulk_report(id uuid) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('matched', b.matched, 'done', r.done, 'skipped', r.skipped, 'failed', r.failed)
  from flowledger.bulks b
  cross join lateral (
    select count(*) filter (where x.result = 'done') as done, count(*) filter (where x.result = 'skipped') as skipped,
      count(*) filter (where x.result = 'failed') as failed
    from flowledger.bulk_results x where x.execution_id = b.execution_id) r
  where b.execution_id = bulk_report.id
$$;

-- The failures of a bulk, in the order of its targets: so many after a number.
create or replace function flowledger.bulk_failures(id uuid, after int default 0, max int default 100)
returns table (number int, target_id uuid, at timestamptz, code text, message text, hint text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if (max between 1 and 1000) is not true or (after >= 0) is not true then
    raise exception 'bulk_failures() takes a number to begin after, from 0, and a page of 1 to 1000, got % and %', coalesce(after::text, 'null'), coalesce(max::text, 'null')
      using errcode = 'FL008', hint = 'leave them out for the first 100';
  end if;
  return query
    select r.number, t.target_id, r.at, r.code, r.message, r.hint
    from flowledger.bulk_results r join flowledger.bulk_targets t on t.execution_id = r.execution_id and t.number = r.number
    where r.execution_id = bulk_failures.id and r.result = 'failed' and r.number > bulk_failures.after
    order by r.number limit bulk_failures.max;
end $$;

-- One round of a bulk: the next targets get their command, up to p_max of them and to its rate. p_by: the execution that does it, which is
-- the bulk or a copy of it. Each result stands in the transaction of its command, so that nothing is done twice. Gives how long to wait for
-- the next round, or null where nothing is left.
create or replace function flowledger.run_bulk(p_bulk uuid, p_by uuid, p_max int) returns float8
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := flowledger.now();
  b flowledger.bulks;
  t record;
  v_command jsonb;
  v_room int := p_max;
  v_used int;
  v_first timestamptz;
  v_cursor int;
  v_targets uuid[];
  v_free uuid[];
  v_is_patient boolean := false;
  v_row flowledger.bulk_results;
  v_rows flowledger.bulk_results[] := '{}';
begin
  select x.* into b from flowledger.bulks x where x.execution_id = p_bulk for no key update skip locked;
  if not found then
    if exists (select from flowledger.bulks x where x.execution_id = p_bulk) then
      -- A worker that was given up is in the middle of a round.
      return 100;
    end if;
    raise exception 'there is no bulk %', p_bulk using errcode = 'FL008', hint = 'ask for one with bulk()';
  elsif not exists (select from flowledger.executions e where e.id = p_by and e.closed_at is null)
    or exists (select from flowledger.ledger l where l.execution_id = p_by and l.type = 'cancel.requested' and l.payload ->> 'id' is null) then
    return null;
  elsif not exists (select from pg_roles r where r.rolname = b.role and has_function_privilege(r.oid, format('%I.bulk(jsonb)', 'flowledger'), 'execute')) then
    raise exception 'role % asked for bulk %, and has no right to it any more', to_json(b.role), p_bulk
      using errcode = 'FL008', hint = 'let a role that has it ask for another one';
  end if;
  if b.rate is not null then
    select count(*), min(r.at) into v_used, v_first from flowledger.bulk_results r
    where r.execution_id = p_bulk and r.at > v_at - flowledger.ms(b.rate_ms) and r.result <> 'skipped';
    v_room := greatest(0, least(p_max, b.rate - v_used));
  end if;
  v_cursor := coalesce((select max(r.number) from flowledger.bulk_results r where r.execution_id = p_bulk), 0);
  -- The targets that are left wait for the rate; without any nobody waits.
  if v_room = 0 and (
    exists (select from flowledger.bulk_targets s where s.execution_id = p_bulk and s.number > v_cursor)
    or exists (
      select from flowledger.bulk_targets s
      where s.execution_id = p_bulk and not exists (select from flowledger.bulk_results r where r.execution_id = p_bulk and r.number = s.number))) then
    return greatest(1, ceil(flowledger.to_ms(v_first) + b.rate_ms - flowledger.to_ms(v_at)));
  end if;
  select array_agg(x.target_id) into v_targets
  from (select s.target_id from flowledger.bulk_targets s where s.execution_id = p_bulk and s.number > v_cursor order by s.number limit v_room) x;
  if v_targets is null then
    -- Targets that were locked before.
    v_cursor := 0;
    v_targets := array(
      select s.target_id from flowledger.bulk_targets s
      where s.execution_id = p_bulk and not exists (select from flowledger.bulk_results r where r.execution_id = p_bulk and r.number = s.number)
      order by s.number limit v_room);
    if v_targets = '{}' then
      return null;
    end if;
  end if;
  -- In the order of their ids, as everybody takes locks; whoever has one is not waited for.
  v_free := array(select e.id from flowledger.executions e where e.id = any(v_targets) order by e.id for no key update skip locked);
  v_free := v_free || array(select x from unnest(v_targets) x where not exists (select from flowledger.executions e where e.id = x));
  if v_free = '{}' then
    -- One of them is.
    v_is_patient := true;
    v_free := v_targets[1:1];
    perform set_config('lock_timeout', '2s', true);
  end if;
  v_command := b.options || jsonb_build_object('actor', b.actor, 'reason', b.reason, 'bulk', p_bulk);
  if not v_is_patient then
    v_rows := flowledger.run_together(b, v_command, v_cursor, v_free, v_at);
  end if;
  -- The others one after the other: what does more than to append events, and all where together something was in the way.
  for t in
    select s.number, s.target_id from flowledger.bulk_targets s
    where s.execution_id = p_bulk and s.number > v_cursor and s.target_id = any(v_free)
      and s.number not in (select r.number from unnest(v_rows) r) order by s.number limit v_room
  loop
    v_row := row(p_bulk, t.number, 'done', v_at, null, null, null, null);
    begin
      if v_is_patient then
        -- The session that has it may do the same to it.
        perform from flowledger.executions e where e.id = t.target_id for no key update;
      end if;
      v_row.message := (
        select flowledger.bulk_skips(b.action, x.id, e.id is not null, e.closed_at, e.parked)
        from (select t.target_id) x(id) left join flowledger.executions e on e.id = x.id);
      if v_row.message is not null then
        v_row.result := 'skipped';
      else
        case b.action
        when 'redrive' then v_row.made_id := flowledger.redrive(t.target_id, v_command);
        when 'retry' then perform flowledger.retry(t.target_id, v_command);
        when 'skip' then perform flowledger.skip(t.target_id, v_command);
        when 'cancel' then perform flowledger.request_cancel(t.target_id, b.reason, b.actor, true, p_bulk);
        when 'pause' then perform flowledger.pause(t.target_id, v_command);
        else perform flowledger.unpause(t.target_id, v_command);
        end case;
      end if;
    exception
      when deadlock_detected or serialization_failure then
        -- The target is tried again.
        continue;
      when lock_not_available or sqlstate 'FL011' then
        continue when not v_is_patient;
        get stacked diagnostics v_row.code = returned_sqlstate, v_row.message = message_text, v_row.hint = pg_exception_hint;
        v_row.result := 'failed';
      when others then
        get stacked diagnostics v_row.code = returned_sqlstate, v_row.message = message_text, v_row.hint = pg_exception_hint;
        v_row.result := 'failed';
    end;
    v_rows := v_rows || v_row;
  end loop;
  -- Not before any of their commands: the rate counts from there.
  insert into flowledger.bulk_results (execution_id, number, result, at, made_id, code, message, hint)
  select r.execution_id, r.number, r.result, flowledger.now(), r.made_id, r.code, r.message, r.hint from unnest(v_rows) r;
  return 0;
end $$;

-- Why a target of a bulk is left as it is: it has gone on since, or is that way already. Null where it is not.
create or replace function flowledger.bulk_skips(p_action text, p_id uuid, p_is_there boolean, p_closed_at timestamptz, p_parked int) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when not p_is_there then 'it is not there any more'
    when p_action = 'redrive' and p_closed_at is null then 'it is open'
    when p_action <> 'redrive' and p_closed_at is not null then 'it has closed'
    when p_action = 'retry' and p_parked = 0 then 'nothing of it is parked'
    when p_action = 'pause' and exists (select from flowledger.pause_of(p_id)) then 'it is paused already'
    when p_action = 'unpause' and not exists (select from flowledger.pause_of(p_id)) then 'it is not paused'
    when p_action = 'redrive' then 'it was redriven as ' || (select r.id from flowledger.redriven_by(p_id) r(id) limit 1) end
$$;
