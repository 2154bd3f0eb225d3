-- Concurrency slots of flows that have limits, and the queue for them. The row of a flow in `limits` is locked before its slots
-- change, by everybody in the order of the flows' names; an execution without a slot is never owned, so a limit is never
-- exceeded.

-- Claims executions of flows that have limits.
--   p_ids: a job came for these; what finds no slot is queued
--   p_left: this worker has given these back, or closed them
--   p_flows, p_rooms: how many of each flow the worker can take now; they go to those that are first in the queue
create or replace function flowledger.claim_limited(p_worker uuid, p_token uuid, p_ids uuid[], p_left uuid[], p_flows text[], p_rooms int[],
  p_version int, p_suspects boolean)
returns table (id uuid, epoch int, token uuid, seq int, flow text, fingerprint text, takeovers int, now_ms float8, items float8, snapshot jsonb, events json)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
-- The row of the flow is locked meanwhile, and every worker of it waits.
set plan_cache_mode = force_generic_plan
as $$
declare
  l flowledger.limits;
  v_chosen uuid[] := '{}';
  v_claimed uuid[] := '{}';
begin
  if p_ids <> '{}' then
    v_chosen := array(
      select e.id from flowledger.executions e
      where e.id = any(p_ids) and not exists (select 1 from flowledger.limits x where x.flow = e.flow));
  end if;
  for l in select x.* from flowledger.limits x where x.flow = any(p_flows) order by x.flow for no key update loop
    v_chosen := v_chosen || flowledger.acquire_slots(l, p_ids, p_left, p_rooms[array_position(p_flows, l.flow)], p_suspects);
  end loop;
  if cardinality(v_chosen) < cardinality(p_ids) then
    perform flowledger.renew_jobs(p_ids);
  end if;
  if cardinality(v_chosen) = 0 then
    return;
  end if;
  for id, epoch, token, seq, flow, fingerprint, takeovers, now_ms, items, snapshot, events in
    select * from flowledger.claim(p_worker, p_token, v_chosen, p_version, p_suspects)
  loop
    v_claimed := v_claimed || id;
    return next;
  end loop;
  if cardinality(v_claimed) < cardinality(v_chosen) then
    update flowledger.slots s set acquired = false where s.execution_id = any(v_chosen) and not s.execution_id = any(v_claimed);
  end if;
end $$;

-- Gives the free slots of a flow to those first in its queue: what has begun before what has not, then by priority, then the
-- keys take turns. Beyond the rooms of this worker jobs notify the next ones, so that a worker with room comes for them. The
-- caller has the lock of `l`.
create or replace function flowledger.acquire_slots(l flowledger.limits, p_ids uuid[], p_left uuid[], p_rooms int, p_suspects boolean) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
-- The queue is read in the order of its index, and no farther than there is room.
set enable_sort = off
set jit = off
as $$
declare
  v_at timestamptz := flowledger.now();
  c record;
  v_surplus flowledger.executions;
  v_free int;
  v_starts int;
  v_full text[] := '{}';
  v_spent text[] := '{}';
  v_chosen uuid[] := '{}';
  v_notified uuid[] := '{}';
  v_late uuid[] := '{}';
  v_queued uuid[] := '{}';
  v_next timestamptz;
begin
  delete from flowledger.slots s using flowledger.executions e
  where s.execution_id = any(p_left) and s.flow = l.flow and s.acquired and e.id = s.execution_id and e.owner is null;
  -- An execution that ends needs no slot for that.
  if exists (select from flowledger.flow_pauses) and exists (select from flowledger.flow_pause_of(l.flow)) then
    return flowledger.claimable(array(select e.id from flowledger.executions e where e.id = any(p_ids) and e.flow = l.flow));
  end if;
  if p_ids <> '{}' then
    -- An owner was lost, and a job came again: the slot is free, the position is kept. The job is used up with that: when there is
    -- no slot now, the next one that is free notifies anew. A slot that an owner is just leaving is left to it.
    update flowledger.slots s set acquired = false, notified_at = null from flowledger.executions e
    where s.execution_id = any(p_ids) and s.flow = l.flow and (s.acquired or s.notified_at is not null)
      and e.id = s.execution_id and e.owner is null and e.wake_at <= v_at and e.closed_at is null;
    -- A key that comes new begins with those who are first in the queue now; each further one of its executions is a turn later.
    with new as materialized (
      select e.id, coalesce(e.limit_key, '') as key, e.priority, e.epoch = 0 as not_started,
        row_number() over (partition by e.priority, e.limit_key order by e.id) - 1 as nth
      from flowledger.executions e
      where e.id = any(p_ids) and e.flow = l.flow and e.owner is null and e.wake_at <= v_at and e.closed_at is null
        and (e.epoch > 0 or coalesce(e.discard_at, 'infinity') > v_at)
    ), first as materialized (
      select n.priority, coalesce(
        (select s.queue_position from flowledger.slots s
          where s.flow = l.flow and not s.acquired and s.not_started and s.priority = n.priority order by s.queue_position limit 1),
        (select max(s.queue_position) from flowledger.slots s where s.flow = l.flow and s.acquired and s.priority = n.priority), 1) as queue_position
      from (select distinct new.priority from new) n
    ), queued as (
      insert into flowledger.slots (execution_id, flow, key, priority, queue_position, acquired, not_started)
      select new.id, l.flow, new.key, new.priority, new.nth + greatest(first.queue_position, (
          select max(s.queue_position) + 1 from flowledger.slots s where s.flow = l.flow and s.priority = new.priority and s.key = new.key)),
        false, new.not_started
      from new join first on first.priority = new.priority
      on conflict do nothing
      returning execution_id
    ) select coalesce(array_agg(q.execution_id), '{}') into v_queued from queued q;
  end if;
  -- Null is no limit.
  if l.concurrency is not null then
    v_free := l.concurrency - (select count(*) from flowledger.slots s where s.flow = l.flow and s.acquired);
  end if;
  if l.rate is not null then
    v_starts := l.rate - (select count(*) from flowledger.limited_starts s where s.flow = l.flow and s.at > v_at - flowledger.ms(l.rate_ms));
  end if;
  if l.key_concurrency is not null then
    v_full := array(select s.key from flowledger.slots s where s.flow = l.flow and s.acquired group by s.key having count(*) >= l.key_concurrency);
  end if;
  if l.key_rate is not null then
    v_spent := array(select s.key from flowledger.limited_starts s
      where s.flow = l.flow and s.at > v_at - flowledger.ms(l.key_rate_ms) group by s.key having count(*) >= l.key_rate);
  end if;
  for c in
    select s.execution_id as id, s.key, s.not_started, s.notified_at, e.epoch = 0 and e.discard_at <= v_at as is_late
    from flowledger.slots s
    join flowledger.executions e on e.id = s.execution_id and e.owner is null and e.wake_at <= v_at and e.closed_at is null and (e.takeovers < 2 or p_suspects)
    where coalesce(v_free, 1) > 0 and s.flow = l.flow and not s.acquired
      and not s.key = any(v_full) and not (s.not_started and s.key = any(v_spent))
    order by s.not_started, s.priority, s.queue_position, s.execution_id
  loop
    exit when v_free <= 0 or c.not_started and v_starts <= 0 or cardinality(v_chosen) >= p_rooms and cardinality(v_notified) >= 25;
    if c.is_late then
      v_late := v_late || c.id;
      continue;
    end if;
    continue when c.key = any(v_full) or c.not_started and c.key = any(v_spent);
    v_free := v_free - 1;
    if c.not_started then
      v_starts := v_starts - 1;
    end if;
    if cardinality(v_chosen) >= p_rooms then
      -- One that was notified a moment ago has a job on its way.
      if coalesce(c.notified_at, '-infinity') < flowledger.wall_clock() - interval '5 seconds' then
        v_notified := v_notified || c.id;
      end if;
      continue;
    end if;
    v_chosen := v_chosen || c.id;
    update flowledger.slots s set acquired = true, not_started = false where s.execution_id = c.id;
    if l.key_concurrency is not null then
      if l.key_concurrency <= (select count(*) from flowledger.slots s where s.flow = l.flow and s.key = c.key and s.acquired) then
        v_full := v_full || c.key;
      end if;
    end if;
    if c.not_started and (l.rate is not null or l.key_rate is not null) then
      insert into flowledger.limited_starts (execution_id, flow, key, at) values (c.id, l.flow, c.key, v_at) on conflict do nothing;
      if l.key_rate <= (select count(*) from flowledger.limited_starts s
        where s.flow = l.flow and s.key = c.key and s.at > v_at - flowledger.ms(l.key_rate_ms)) then
        v_spent := v_spent || c.key;
      end if;
    end if;
  end loop;
  -- Discarded: what waited for too long, here or on its way here.
  if p_ids <> '{}' then
    v_late := v_late || array(select e.id from flowledger.executions e where e.id = any(p_ids) and e.flow = l.flow and e.discard_at <= v_at);
  end if;
  if v_late <> '{}' then
    v_late := flowledger.discard(v_late);
    delete from flowledger.slots s where s.execution_id = any(v_late);
  end if;
  -- And what may wait no longer then: a job comes for it, also when no slot is free.
  if not v_queued <@ v_chosen then
    perform flowledger_jobs.add_jobs(array(
      select row('flowledger:' || l.flow, json_agg(e.id), null, e.discard_at - flowledger.clock_offset(), null, null, min(e.priority), null)::flowledger_jobs.job_spec
      from flowledger.executions e
      where e.id = any(v_queued) and not e.id = any(v_chosen) and e.epoch = 0 and e.discard_at > v_at group by e.discard_at));
  end if;
  if cardinality(v_notified) > 0 then
    update flowledger.slots s set notified_at = flowledger.wall_clock() where s.execution_id = any(v_notified);
    perform flowledger.add_jobs(v_notified);
  end if;
  if l.action = 'cancel' and (v_free <= 0 or cardinality(v_full) > 0) then
    for v_surplus in
      select e.* from flowledger.executions e
      where e.owner is null and e.wake_at is not null and e.closed_at is null and e.id in (
        select s.execution_id from flowledger.slots s
        where s.execution_id = any(p_ids) and s.flow = l.flow and not s.acquired and s.not_started and (v_free <= 0 or s.key = any(v_full)))
      order by e.id for no key update
    loop
      if flowledger.close_unclaimed(v_surplus, format('concurrency limit of flow %s', l.flow), 'limit') then
        delete from flowledger.slots s where s.execution_id = v_surplus.id;
      end if;
    end loop;
  end if;
  -- A rate is used up: one job comes for those who wait when the next start is free.
  if v_starts <= 0 or cardinality(v_spent) > 0 then
    v_next := coalesce(
      case when v_starts <= 0 then (
        select s.at + flowledger.ms(l.rate_ms) from flowledger.limited_starts s
        where s.flow = l.flow order by s.at desc offset l.rate - 1 limit 1) end,
      case when cardinality(v_spent) > 0 then (
        select min(s.at) + flowledger.ms(l.key_rate_ms) from unnest(v_spent) k(key)
        cross join lateral (
          select x.at from flowledger.limited_starts x where x.flow = l.flow and x.key = k.key order by x.at desc offset l.key_rate - 1 limit 1) s) end);
    if l.next_start_at is null or l.next_start_at <= v_at or l.next_start_at > v_next + interval '10 milliseconds' then
      perform flowledger_jobs.add_jobs(array(
        select row('flowledger:' || l.flow, json_agg(w.execution_id), null, v_next - flowledger.clock_offset(), null, null, min(w.priority), null)::flowledger_jobs.job_spec
        from (
          select s.execution_id, s.priority from flowledger.slots s
          where s.flow = l.flow and not s.acquired and s.not_started order by s.priority, s.queue_position, s.execution_id limit 25) w
        having count(*) > 0));
      update flowledger.limits x set next_start_at = v_next where x.flow = l.flow and exists (
        select 1 from flowledger.slots s where s.flow = l.flow and not s.acquired and s.not_started);
    end if;
  end if;
  return v_chosen;
end $$;

-- Cleanup: removes slots without an owner and entries of what waits no longer, and offers free capacity. Flows that another
-- worker looks after at this moment are left to it.
create or replace function flowledger.sweep_slots() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
as $$
declare
  l flowledger.limits;
  v_at timestamptz := flowledger.now();
begin
  -- Where there is nothing to look after, the row is not locked either: that would be a write.
  for l in
    select x.* from flowledger.limits x
    where exists (select from flowledger.slots s where s.flow = x.flow) or exists (
      select from flowledger.limited_starts s where s.flow = x.flow and s.at < v_at - flowledger.ms(coalesce(greatest(x.rate_ms, x.key_rate_ms), 0)))
    order by x.flow for no key update skip locked
  loop
    delete from flowledger.slots s using flowledger.executions e
    where s.flow = l.flow and s.acquired and e.id = s.execution_id and e.owner is null;
    delete from flowledger.slots s
    using (select x.execution_id from flowledger.slots x where x.flow = l.flow and not x.acquired order by x.not_started, x.priority, x.queue_position, x.execution_id limit 1000) queued,
      flowledger.executions e
    where s.execution_id = queued.execution_id and e.id = queued.execution_id and (e.owner is not null or e.wake_at is null or e.wake_at > v_at or e.closed_at is not null);
    delete from flowledger.limited_starts s
    where s.flow = l.flow and s.at < v_at - flowledger.ms(coalesce(greatest(l.rate_ms, l.key_rate_ms), 0));
    perform flowledger.acquire_slots(l, '{}', '{}', 0, true);
  end loop;
end $$;

-- The limits of the flows that a worker serves. p_limits: [{ flow, concurrency, rate, rate_ms, key_concurrency, key_rate,
-- key_rate_ms, action }]; a flow of p_flows that is not among them has no limits any more.
create or replace function flowledger.declare_limits(p_flows text[], p_limits jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_freed uuid[];
begin
  insert into flowledger.limits (flow, concurrency, rate, rate_ms, key_concurrency, key_rate, key_rate_ms, action)
  select x.flow, x.concurrency, x.rate, x.rate_ms, x.key_concurrency, x.key_rate, x.key_rate_ms, x.action
  from jsonb_populate_recordset(null::flowledger.limits, p_limits) x order by x.flow
  on conflict (flow) do update set concurrency = excluded.concurrency, rate = excluded.rate, rate_ms = excluded.rate_ms,
    key_concurrency = excluded.key_concurrency, key_rate = excluded.key_rate, key_rate_ms = excluded.key_rate_ms, action = excluded.action;
  with gone as (
    delete from flowledger.limits l
    where l.flow = any(p_flows) and not exists (select 1 from jsonb_populate_recordset(null::flowledger.limits, p_limits) x where x.flow = l.flow)
    returning l.flow
  ), freed as (
    delete from flowledger.slots s using gone where s.flow = gone.flow returning s.execution_id
  ) select array_agg(freed.execution_id) into v_freed from freed;
  if v_freed is not null then
    perform flowledger.add_jobs(v_freed);
  end if;
end $$;
