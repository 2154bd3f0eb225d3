-- Schedules: a time fires once in the fleet.

-- Fires what is due of a schedule, once in the fleet: the row's lock and what it has fired until decide. False when somebody
-- else has been here since p_after was read.
--   p_times: due times, up to p_until; p_input, p_created, p_priority, p_limit_key: what each starts, without the time in its metadata
--   p_overlap, where an execution of the schedule is still open: allow, skip (what is due now), queue (until that one has closed)
create or replace function flowledger.fire_schedule(p_name text, p_after timestamptz, p_until timestamptz, p_times timestamptz[], p_overlap text,
  p_input jsonb, p_created jsonb, p_priority int, p_limit_key text) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  s flowledger.schedules;
  v_times timestamptz[];
  v_started timestamptz[];
  v_is_open boolean;
  v_last uuid;
begin
  select * into s from flowledger.schedules x where x.name = p_name for update;
  if not found or s.fired_until <> p_after or p_until > flowledger.now() then
    return false;
  end if;
  v_times := s.waiting || p_times;
  v_is_open := exists (select 1 from flowledger.executions e where e.id = s.last_id and e.closed_at is null);
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
  update flowledger.schedules x
  set fired_until = p_until, last_id = coalesce(v_last, s.last_id),
    waiting = case when p_overlap = 'queue' then v_times[cardinality(v_started) + 1:] else '{}' end
  where x.name = p_name;
  return true;
end $$;
