-- Schedules: a time fires once in the fleet, and a schedule that no worker has any more counts as removed.

-- Notes, whenever workers come or go, which schedules were removed: a worker serves their flow, and none has them. Where no worker
-- serves it at all, they are only waiting for one.
create or replace function flowledger.note_removed_schedules() returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  -- A schedule that is locked is being fired, so a worker has it.
  with removed as materialized (
    select s.name from flowledger.schedules s
    where s.removed_at is null
      and exists (select from flowledger.workers w where s.flow = any(w.flows))
      and not exists (select from flowledger.workers w where w.schedules ? s.name)
    order by s.name for no key update skip locked
  )
  update flowledger.schedules s set removed_at = flowledger.now() from removed where s.name = removed.name
$$;

-- Is what a schedule started last still under way? What only waits for an operator holds nothing up.
create or replace function flowledger.holds_schedule(p_last uuid) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from flowledger.executions e where e.id = p_last and e.closed_at is null
      and not (e.parked > 0 and e.owner is null and e.pending_interrupts = 0))
$$;

-- Locks a schedule; null where there is none.
create or replace function flowledger.lock_schedule(p_name text) returns flowledger.schedules
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  s flowledger.schedules;
  v_timeout text := flowledger.limit_wait();
begin
  select * into s from flowledger.schedules x where x.name = p_name for update;
  perform set_config('lock_timeout', v_timeout, true);
  return s;
exception when lock_not_available or deadlock_detected then
  perform flowledger.refuse_held('schedule ' || to_json(left(p_name, 200))::text, null, 'schedules');
end $$;

-- Fires what is due of a schedule, once in the fleet: the row's lock and what it has fired until decide. Not done when somebody
-- else has been here since p_after was read. Says between which times some were left out, if any were.
--   p_times: due times, up to p_until; p_left_out: the first and the last of those that nothing is started for, or null
--   p_is_return: it was removed and is back, so what waited since before is left out as well
--   p_overlap, where an execution of the schedule is still open: allow, skip (what is due now), queue (until that one has closed)
--   p_input, p_created, p_priority, p_limit_key: what each starts, without the time in its metadata
create or replace function flowledger.fire_schedule(p_name text, p_after timestamptz, p_until timestamptz, p_times timestamptz[],
  p_left_out timestamptz[], p_is_return boolean, p_overlap text, p_input jsonb, p_created jsonb, p_priority int, p_limit_key text)
returns table (done boolean, left_out_from timestamptz, left_out_until timestamptz)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
-- The worker comes again.
set lock_timeout = '500ms'
as $$
#variable_conflict use_column
declare
  -- So many times wait at most.
  c_waiting constant int := 1000;
  s flowledger.schedules;
  v_times timestamptz[];
  v_started timestamptz[];
  v_waiting timestamptz[] := '{}';
  v_left_out timestamptz[] := coalesce(p_left_out, '{}');
  v_from timestamptz;
  v_until timestamptz;
  v_is_open boolean;
  v_last uuid;
begin
  s := flowledger.lock_schedule(p_name);
  if s.name is null or date_trunc('milliseconds', s.fired_until) <> p_after or p_until > flowledger.now()
    -- As if no worker ran: `catchUp` decides when it goes on.
    or exists (select from flowledger.flow_pause_of(s.flow)) then
    return query select false, null::timestamptz, null::timestamptz;
    return;
  end if;
  if p_is_return then
    v_left_out := v_left_out || s.waiting;
    s.waiting := '{}';
  end if;
  -- A clock that was set back brings times again: those that wait do so once.
  v_times := array(select distinct u.at from unnest(s.waiting || p_times) u(at) order by u.at);
  v_is_open := flowledger.holds_schedule(s.last_id);
  v_started := case
    when p_overlap = 'allow' then v_times
    when v_is_open then '{}'
    when p_overlap = 'skip' then v_times[cardinality(v_times):]
    else v_times[1:1] end;
  if cardinality(v_started) > 0 then
    select c.id into v_last
    from (
      select array_agg(flowledger.new_id() order by u.at) as ids, array_agg(s.flow order by u.at) as flows, array_agg('start'::text) as modes,
        jsonb_agg(p_input) as inputs, array_agg('schedule ' || p_name || ' ' || flowledger.iso(u.at) order by u.at) as keys,
        jsonb_agg(p_created || jsonb_build_object('metadata', coalesce(p_created -> 'metadata', '{}')
          || jsonb_build_object('schedule', p_name, 'scheduledAt', flowledger.iso(u.at))) order by u.at) as created,
        array_agg(p_priority) as priorities, array_agg(p_limit_key) as limit_keys, array_agg(null::uuid) as parents,
        array_agg(null::timestamptz) as never, array_agg(null::float8) as none
      from unnest(v_started) u(at)) x
    cross join lateral flowledger.create_executions(x.ids, x.flows, x.modes, x.inputs, x.created, x.keys, x.priorities, x.limit_keys, x.parents,
      x.never, x.none, x.never, x.none) c
    order by c.ord desc limit 1;
  end if;
  if p_overlap = 'queue' then
    v_waiting := v_times[cardinality(v_started) + 1:];
    v_left_out := v_left_out || v_waiting[c_waiting + 1:];
    v_waiting := v_waiting[:c_waiting];
  end if;
  select min(u.at), max(u.at) into v_from, v_until from unnest(v_left_out) u(at);
  update flowledger.schedules x
  set fired_until = p_until, last_id = coalesce(v_last, s.last_id), waiting = v_waiting, removed_at = null,
    left_out_from = coalesce(v_from, s.left_out_from), left_out_until = coalesce(v_until, s.left_out_until)
  where x.name = p_name;
  return query select true, v_from, v_until;
end $$;

-- Starts an execution of a schedule now, beside its times: what a worker that has the schedule would start, with who asked. options:
-- actor; reason; id (a new one, unless it is sent again). Refused where its executions do not overlap and one is under way.
create or replace function flowledger.run_schedule(name text, options jsonb) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := coalesce(to_json(left(name, 200))::text, 'null');
  v_known text[];
  v_id uuid := flowledger.new_id();
  v_made jsonb;
  s flowledger.schedules;
  e flowledger.executions;
begin
  -- Nothing is held up or changed by it, so a reason may be left out.
  perform flowledger.check_operator(case when jsonb_typeof(options) = 'object' and not options ? 'reason' then options || '{"reason": "none"}' else options end,
    'runSchedule()', '{id}');
  if options ? 'id' and not (jsonb_typeof(options -> 'id') = 'string' and options ->> 'id' ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$') then
    raise exception 'id of runSchedule() must be a uuid, got %', left((options -> 'id')::text, 40) using errcode = 'FL008', hint = 'leave it out';
  end if;
  s := flowledger.lock_schedule(run_schedule.name);
  if s.name is null then
    v_known := array(select x.name from flowledger.schedules x order by 1 limit 200);
    raise exception 'there is no schedule % here', v_name
      using errcode = 'FL008', hint = coalesce('did you mean ' || to_json(flowledger.nearest(run_schedule.name, v_known))::text || '?',
        case when v_known = '{}' then 'start a worker that has it' else 'known are ' || array_to_string(v_known[1:20], ', ') end);
  end if;
  v_id := coalesce((options ->> 'id')::uuid, v_id);
  if exists (select from flowledger.executions x where x.id = v_id) then
    if exists (
      select from flowledger.executions x join flowledger.ledger l on l.execution_id = x.id and l.seq = 2 and l.type = 'execution.started'
      where x.id = v_id and x.metadata ->> 'schedule' = s.name and l.actor = options ->> 'actor') then
      -- Its answer was lost.
      return v_id;
    end if;
    raise exception 'execution id % is taken', v_id using errcode = 'FL008', hint = 'leave id out';
  end if;
  -- Of the version that counts, where versions run side by side.
  select w.schedules -> s.name into v_made from flowledger.workers w where w.schedules -> s.name ? 'created'
  order by w.schedules -> s.name @> jsonb_build_object('flow', s.flow, 'cron', s.cron, 'timeZone', s.time_zone) desc, w.started_at desc, w.id limit 1;
  if not found then
    raise exception 'no worker has schedule %', v_name using errcode = 'FL008', hint = 'start a worker that has it, and run it then';
  elsif v_made ->> 'overlap' <> 'allow' and flowledger.holds_schedule(s.last_id) then
    raise exception 'execution % of schedule % is still under way, and its executions do not overlap', s.last_id, v_name
      using errcode = 'FL008', hint = 'run it when that one has closed, or cancel that one';
  end if;
  perform flowledger.create_executions(array[v_id], array[v_made ->> 'flow'], array['create'], '[null]',
    jsonb_build_array(v_made -> 'created' || jsonb_build_object('metadata', coalesce(v_made -> 'created' -> 'metadata', '{}')
      || jsonb_build_object('schedule', s.name, 'scheduledAt', flowledger.iso(flowledger.now())))),
    array[null::text], array[(v_made ->> 'priority')::int], array[v_made ->> 'limitKey'], array[null::uuid],
    array[null::timestamptz], array[null::float8], array[null::timestamptz], array[null::float8]);
  e := flowledger.lock_open(v_id, 'start');
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'execution.started', 'input', v_made -> 'input',
    'limitKey', v_made -> 'limitKey', 'actor', options -> 'actor', 'reason', options -> 'reason')), true);
  update flowledger.schedules x set last_id = v_id where x.name = s.name;
  return v_id;
end $$;
