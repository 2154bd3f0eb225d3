-- Schedules: a time fires once in the fleet, and a schedule that no worker has any more counts as removed.

-- Notes, whenever workers come or go, which schedules were removed: a worker serves their flow, and none has them. Where no worker
-- serves it at all, they are only waiting for one.
create or replace function flowledger.note_removed_schedules() returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  -- What is locked is being fired, so a worker has it.
  with removed as materialized (
    select s.name from flowledger.schedules s
    where s.removed_at is null
      and exists (select from flowledger.workers w where s.flow = any(w.flows))
      and not exists (select from flowledger.workers w where w.schedules ? s.name)
    order by s.name for no key update skip locked
  )
  update flowledger.schedules s set removed_at = flowledger.now() from removed where s.name = removed.name
$$;

-- Fires what is due of a schedule, once in the fleet: the row's lock and what it has fired until decide. Not done when somebody
-- else has been here since p_after was read. Says between which times some were left out, if any were.
--   p_times: due times, up to p_until; p_left_out: the first and the last of those that nothing is started for, or null
--   p_is_return: it was removed and is back, so what waited since before is left out as well
--   p_overlap, where an execution of the schedule is still open: allow, skip (what is due now), queue (until that one has closed)
--   p_input, p_created, p_priority, p_limit_key: what each starts, without the time in its metadata
create or replace function flowledger.fire_schedule(p_name text, p_after timestamptz, p_until timestamptz, p_times timestamptz[],
  p_left_out timestamptz[], p_is_return boolean, p_overlap text, p_input jsonb, p_created jsonb, p_priority int, p_limit_key text)
returns table (done boolean, left_out_from timestamptz, left_out_until timestamptz)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
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
  select * into s from flowledger.schedules x where x.name = p_name for update;
  if not found or date_trunc('milliseconds', s.fired_until) <> p_after or p_until > flowledger.now()
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
  v_is_open := exists (select 1 from flowledger.executions e where e.id = s.last_id and e.closed_at is null
    -- What only waits for an operator holds nothing up.
    and not (e.parked > 0 and e.owner is null and e.pending_interrupts = 0));
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
