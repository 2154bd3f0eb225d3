-- Functions of src/database/commands.sql, and the triggers that keep the ledger append-only.
-- The SQL front door and the owner's statements: current bodies. `migrations/` carries their history, and a test
-- compares the two. Every function pins its search_path and names everything in full.

-- Wake-ups of one execution travel on one of eight channels, chosen by its last byte.
create or replace function flowledger.channel(p_id uuid) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 'flowledger_' || (get_byte(uuid_send(p_id), 15) & 7) $$;

-- RFC 9562 version 7: 48 bits of milliseconds, then random bits.
create or replace function flowledger.new_id() returns uuid
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select encode(
    set_byte(
      overlay(uuid_send(gen_random_uuid()) placing
        substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
      6, (get_byte(uuid_send(gen_random_uuid()), 6) & 15) | 112),
    'hex')::uuid
$$;

create or replace function flowledger.to_ms(p_at timestamptz) returns float8
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select (extract(epoch from p_at) * 1000)::float8 $$;

-- Events after p_after, each as [seq, epoch, at, type, dispatch, chunk, actor, payload]. Volatile, because `append` asks for
-- events that were committed after its own snapshot was taken and before it had the row's lock.
create or replace function flowledger.events(p_id uuid, p_after int, p_until int default 2147483647) returns json
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(json_agg(json_build_array(
    l.seq, l.epoch, (extract(epoch from l.at) * 1000)::float8, l.type, l.dispatch, l.chunk, l.actor, l.payload) order by l.seq), '[]')
  from flowledger.ledger l
  where l.execution_id = p_id and l.seq > p_after and l.seq <= p_until
$$;

-- The hint "advance these": one graphile-worker job for up to 25 executions of one flow, task "flowledger:<flow>".
-- No job key and no queue name: see RELIABILITY V2, V3.
create or replace function flowledger.add_jobs(p_ids uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform graphile_worker.add_jobs(array(
    select row('flowledger:' || j.flow, json_agg(j.id), null, j.run_at, null, null, j.priority, null)::graphile_worker.job_spec
    from (
      select e.id, e.flow, e.priority, greatest(e.wake_at, now()) as run_at,
        (row_number() over (partition by e.flow, e.priority, greatest(e.wake_at, now()) order by e.id) - 1) / 25 as part
      from flowledger.executions e
      where e.id = any(p_ids) and e.wake_at is not null and e.owner is null and e.closed_at is null
    ) j
    group by j.flow, j.priority, j.run_at, j.part
  ));
end $$;

-- Wakes executions that are parked because something they wait for has happened elsewhere. One that is owned is left alone,
-- without its lock: an owner that is just giving it back looks once more afterwards.
create or replace function flowledger.wake(p_ids uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_woken uuid[];
begin
  with parked as materialized (
    select e.id from flowledger.executions e
    where e.id = any(p_ids) and e.owner is null and e.closed_at is null and coalesce(e.wake_at, 'infinity') > clock_timestamp()
    order by e.id for no key update
  ), woken as (
    update flowledger.executions e set wake_at = clock_timestamp() from parked where e.id = parked.id returning e.id
  )
  select array_agg(w.id) into v_woken from woken w;
  if v_woken is not null then
    perform flowledger.add_jobs(v_woken);
  end if;
end $$;

-- Asks for the end of a page of the items of a collection, in id order: those between two ids that are open. Gives their ids.
create or replace function flowledger.cancel_items(p_first uuid, p_last uuid, p_reason text, p_limit int) returns setof uuid
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id uuid;
begin
  for v_id in
    select e.id from flowledger.executions e
    where e.id between p_first and p_last and e.closed_at is null order by e.id limit p_limit
  loop
    perform flowledger.cancel(v_id, p_reason, 'parent', false);
    return next v_id;
  end loop;
end $$;

-- Creates executions, and starts those that are to start, together with their jobs.
-- p_items: [{ i: id, f: flow, t: start, x: input, u: not yet checked by the contract, c: payload of execution.created, m: metadata, k: idempotencyKey, d: delayMs,
--   w: startAt, y: discardAt, z: discardAfterMs, p: priority, o: parent's id, q: limit key }]. A known idempotency key gives the execution that has it;
-- `conflict` says that it was started with another input. Those with h: true ("here") begin as claimed by p_worker, without a job.
create or replace function flowledger.create_many(p_items jsonb, p_worker uuid default null, p_token uuid default null)
returns table (ord int, id uuid, created boolean, conflict boolean, at_ms float8)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := clock_timestamp();
  v_new uuid[];
  v_free uuid[];
begin
  with item as materialized (
    select x.*, coalesce(x.w, v_at + x.d * interval '1 millisecond') as due, coalesce(x.y, v_at + x.z * interval '1 millisecond') as discard
    from jsonb_to_recordset(p_items) as x(i uuid, f text, t boolean, u boolean, h boolean, x jsonb, c jsonb, m jsonb, k text, d float8, w timestamptz,
      y timestamptz, z float8, p int, o uuid, q text)
  ), made as (
    insert into flowledger.executions
      (id, seq, epoch, owner, token, flow, priority, created_at, started_at, wake_at, idempotency_key, parent_id, limit_key, metadata, fingerprint)
    select i, case when t then 2 else 1 end, case when h then 1 else 0 end, case when h then p_worker end, case when h then p_token end, f, coalesce(p, 0), v_at,
      case when t then v_at end,
      case when t then greatest(v_at, least(coalesce(due, v_at), discard)) end,
      k, o, q, m, c ->> 'fingerprint'
    from item
    on conflict do nothing
    returning executions.id, executions.owner
  ), written as (
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, payload)
    select item.i, 1, 0, v_at, 'execution.created',
      case when discard is null then c
        else jsonb_set(c, '{settings}', coalesce(c -> 'settings', '{}') || jsonb_build_object('discardAt', flowledger.to_ms(discard))) end
        || jsonb_strip_nulls(jsonb_build_object('idempotencyKey', k, 'priority', nullif(p, 0)))
    from made join item on item.i = made.id
    union all
    select item.i, 2, 0, v_at, 'execution.started',
      jsonb_build_object('input', coalesce(x, 'null')) || case when u then '{"raw": true}' else '{}' end::jsonb
        || case when due is null then '{}' else jsonb_build_object('dueAt', flowledger.to_ms(due)) end
        || case when q is null then '{}' else jsonb_build_object('limitKey', q) end
    from made join item on item.i = made.id where item.t
  )
  select array_agg(made.id), array_agg(made.id) filter (where made.owner is null) into v_new, v_free from made;
  if v_free is not null then
    perform flowledger.add_jobs(v_free);
  end if;
  if not p_items @? '$[*].k' then
    return query select x.ordinality::int - 1, x.i, n.id is not null, false, flowledger.to_ms(v_at)
    from rows from (jsonb_to_recordset(p_items) as (i uuid)) with ordinality as x(i, ordinality)
    left join unnest(v_new) as n(id) on n.id = x.i
    order by 1;
    return;
  end if;
  -- Statements of their own: they see what another transaction committed while the insert waited for it. One that was made
  -- with the key but never started is started now.
  perform flowledger.start_execution(e.id, coalesce(x.x, 'null'), false, coalesce(x.u, false))
  from jsonb_to_recordset(p_items) as x(i uuid, f text, t boolean, u boolean, x jsonb, k text)
  join flowledger.executions e on e.flow = x.f and e.idempotency_key = x.k
  where x.t and e.id <> x.i and e.started_at is null and e.closed_at is null;
  return query
    select x.ordinality::int - 1,
      coalesce(known.id, x.i),
      coalesce(x.i = any(v_new), false),
      known.id is not null and x.t is not null and coalesce(x.x, 'null') is distinct from (
        select l.payload -> 'input' from flowledger.ledger l
        where l.execution_id = known.id and l.type = 'execution.started' limit 1),
      flowledger.to_ms(v_at)
    from rows from (jsonb_to_recordset(p_items) as (i uuid, f text, t boolean, x jsonb, k text)) with ordinality as x(i, f, t, x, k, ordinality)
    left join lateral (
      select e.id from flowledger.executions e
      where e.flow = x.f and e.idempotency_key = x.k and e.id <> x.i) known on true
    order by 1;
end $$;

-- Takes executions that are due and free: a higher epoch, a fresh token (p_token, random per call). A row that somebody has
-- locked is waited for, not for long: then a job of its own looks again.
create or replace function flowledger.claim(p_worker uuid, p_token uuid, p_ids uuid[], p_version int, p_suspects boolean)
returns table (id uuid, epoch int, token uuid, seq int, flow text, fingerprint text, takeovers int, now_ms float8, items float8, snapshot jsonb, events json)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_at timestamptz := clock_timestamp();
  -- Not "wake_at <= v_at": the index of what is due is no way to find a few ids.
  v_free uuid[] := array(
    select e.id from flowledger.executions e
    where e.id = any(p_ids) and e.owner is null and e.closed_at is null and coalesce(e.wake_at, 'infinity') <= v_at
      -- What lost several workers is claimed one at a time, so that only the one that takes its worker down is counted again.
      and (e.takeovers < 2 or p_suspects and e.id = (
        select s.id from flowledger.executions s
        where s.id = any(p_ids) and s.takeovers >= 2 and s.owner is null and s.closed_at is null and coalesce(s.wake_at, 'infinity') <= v_at
        order by s.id limit 1))
    order by e.id for no key update skip locked);
begin
  if cardinality(v_free) < cardinality(p_ids) then
    -- Whoever has one locked may go without a trace: a refused command, a rollback, a command that found it due already.
    begin
      v_free := v_free || array(
        select e.id from flowledger.executions e
        where e.id = any(p_ids) and not e.id = any(v_free) and e.owner is null and e.closed_at is null and coalesce(e.wake_at, 'infinity') <= v_at and e.takeovers < 2
        order by e.id for no key update);
    exception when lock_not_available then
      perform graphile_worker.add_jobs(array(
        select row('flowledger:' || e.flow, json_agg(e.id), null, v_at + interval '500 milliseconds', null, null, e.priority, null)::graphile_worker.job_spec
        from flowledger.executions e
        where e.id = any(p_ids) and not e.id = any(v_free) and e.owner is null and e.closed_at is null and coalesce(e.wake_at, 'infinity') <= v_at and e.takeovers < 2
        group by e.flow, e.priority));
    end;
  end if;
  return query
  with claimed as (
    update flowledger.executions e
    set owner = p_worker, epoch = e.epoch + 1, token = p_token, commit_no = 0, stream_no = 0
    where e.id = any(v_free)
    returning e.id, e.epoch, e.token, e.seq, e.flow, e.fingerprint, e.takeovers, e.stream_seq
  )
  select c.id, c.epoch, c.token, c.seq, c.flow, c.fingerprint, c.takeovers::int, (extract(epoch from v_at) * 1000)::float8, c.stream_seq::float8, s.state,
    (select json_agg(json_build_array(
        l.seq, l.epoch, (extract(epoch from l.at) * 1000)::float8, l.type, l.dispatch, l.chunk, l.actor, l.payload) order by l.seq)
      from flowledger.ledger l where l.execution_id = c.id and l.seq > coalesce(s.seq, 0))
  from claimed c
  left join flowledger.snapshots s on s.execution_id = c.id and s.version = p_version;
end $$;

-- Claims executions of flows that have limits. Their places change only under the flow's advisory lock; an execution without
-- a place is never owned, so a limit is never exceeded.
--   p_ids: a job came for these; what finds no place stands in line
--   p_left: this worker has given these back, or closed them
--   p_flows, p_tickets: how many of each flow the worker can take now; they go to whoever is first in line
create or replace function flowledger.claim_limited(p_worker uuid, p_token uuid, p_ids uuid[], p_left uuid[], p_flows text[], p_tickets int[],
  p_version int, p_suspects boolean)
returns table (id uuid, epoch int, token uuid, seq int, flow text, fingerprint text, takeovers int, now_ms float8, items float8, snapshot jsonb, events json)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_flow text;
  v_chosen uuid[] := array(
    select e.id from flowledger.executions e
    where e.id = any(p_ids) and not exists (select 1 from flowledger.limits l where l.flow = e.flow));
  v_claimed uuid[] := '{}';
begin
  -- One order for everybody who needs several of these locks.
  for v_flow in select l.flow from flowledger.limits l where l.flow = any(p_flows) order by l.flow loop
    perform pg_advisory_xact_lock(flowledger.limit_lock(v_flow));
    v_chosen := v_chosen || flowledger.admit(v_flow, p_ids, p_left, p_tickets[array_position(p_flows, v_flow)], p_suspects);
  end loop;
  if cardinality(v_chosen) = 0 then
    return;
  end if;
  for id, epoch, token, seq, flow, fingerprint, takeovers, now_ms, items, snapshot, events in
    select * from flowledger.claim(p_worker, p_token, v_chosen, p_version, p_suspects)
  loop
    v_claimed := v_claimed || id;
    return next;
  end loop;
  update flowledger.places p set held = false where p.execution_id = any(v_chosen) and not p.execution_id = any(v_claimed);
end $$;

create or replace function flowledger.limit_lock(p_flow text) returns bigint
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select hashtextextended('flowledger.limits ' || p_flow, 0) $$;

-- Gives the free places of a flow to whoever is first in line: what has begun before what has not, then by priority, then
-- the keys take turns. Beyond the tickets jobs call the next ones, so that a worker with room comes for them. The caller has
-- the flow's lock.
create or replace function flowledger.admit(p_flow text, p_ids uuid[], p_left uuid[], p_tickets int, p_suspects boolean) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
-- The line is read in the order of its index, and no farther than there is room.
set enable_sort = off
set jit = off
as $$
declare
  v_at timestamptz := clock_timestamp();
  l flowledger.limits;
  c record;
  v_surplus flowledger.executions;
  v_free int;
  v_starts int;
  v_full text[] := '{}';
  v_spent text[] := '{}';
  v_chosen uuid[] := '{}';
  v_called uuid[] := '{}';
  v_next timestamptz;
begin
  select * into l from flowledger.limits x where x.flow = p_flow;
  delete from flowledger.places p using flowledger.executions e
  where p.execution_id = any(p_left) and p.flow = p_flow and p.held and e.id = p.execution_id and e.owner is null;
  -- An owner was lost, and a job came again: the place is free, the turn is kept.
  update flowledger.places p set held = false from flowledger.executions e
  where p.execution_id = any(p_ids) and p.flow = p_flow and p.held and e.id = p.execution_id and e.owner is null;
  -- A key that comes new begins with those who are first in line now; each further one of its executions is a turn later.
  with new as materialized (
    select e.id, coalesce(e.limit_key, '') as key, e.priority, e.epoch = 0 as is_fresh,
      row_number() over (partition by e.priority, e.limit_key order by e.id) - 1 as nth
    from flowledger.executions e
    where e.id = any(p_ids) and e.flow = p_flow and e.owner is null and e.wake_at <= v_at and e.closed_at is null
  ), first as materialized (
    select n.priority, coalesce(
      (select p.turn from flowledger.places p
        where p.flow = p_flow and not p.held and p.is_fresh and p.priority = n.priority order by p.turn limit 1),
      (select max(p.turn) from flowledger.places p where p.flow = p_flow and p.held and p.priority = n.priority), 1) as turn
    from (select distinct new.priority from new) n
  )
  insert into flowledger.places (execution_id, flow, key, priority, turn, held, is_fresh)
  select new.id, p_flow, new.key, new.priority, new.nth + greatest(first.turn, (
      select max(p.turn) + 1 from flowledger.places p where p.flow = p_flow and p.priority = new.priority and p.key = new.key)),
    false, new.is_fresh
  from new join first on first.priority = new.priority
  on conflict do nothing;
  -- Null is no limit.
  if l.concurrency is not null then
    v_free := l.concurrency - (select count(*) from flowledger.places p where p.flow = p_flow and p.held);
  end if;
  if l.rate is not null then
    v_starts := l.rate - (select count(*) from flowledger.limited_starts s
      where s.flow = p_flow and s.at > v_at - l.rate_ms * interval '1 millisecond');
  end if;
  if l.key_concurrency is not null then
    v_full := array(select p.key from flowledger.places p where p.flow = p_flow and p.held group by p.key having count(*) >= l.key_concurrency);
  end if;
  if l.key_rate is not null then
    v_spent := array(select s.key from flowledger.limited_starts s
      where s.flow = p_flow and s.at > v_at - l.key_rate_ms * interval '1 millisecond' group by s.key having count(*) >= l.key_rate);
  end if;
  for c in
    select p.execution_id as id, p.key, p.is_fresh, p.called_at
    from flowledger.places p
    join flowledger.executions e on e.id = p.execution_id and e.owner is null and e.wake_at <= v_at and e.closed_at is null and (e.takeovers < 2 or p_suspects)
    where coalesce(v_free, 1) > 0 and p.flow = p_flow and not p.held
      and not p.key = any(v_full) and not (p.is_fresh and p.key = any(v_spent))
    order by p.is_fresh, p.priority, p.turn, p.execution_id
  loop
    exit when v_free <= 0 or c.is_fresh and v_starts <= 0 or cardinality(v_chosen) >= p_tickets and cardinality(v_called) >= 25;
    continue when c.key = any(v_full) or c.is_fresh and c.key = any(v_spent);
    v_free := v_free - 1;
    if c.is_fresh then
      v_starts := v_starts - 1;
    end if;
    if cardinality(v_chosen) >= p_tickets then
      -- Who was called a moment ago has a job on its way.
      if coalesce(c.called_at, '-infinity') < v_at - interval '5 seconds' then
        v_called := v_called || c.id;
      end if;
      continue;
    end if;
    v_chosen := v_chosen || c.id;
    update flowledger.places p set held = true, is_fresh = false where p.execution_id = c.id;
    if l.key_concurrency <= (select count(*) from flowledger.places p where p.flow = p_flow and p.key = c.key and p.held) then
      v_full := v_full || c.key;
    end if;
    if c.is_fresh and (l.rate is not null or l.key_rate is not null) then
      insert into flowledger.limited_starts (execution_id, flow, key, at) values (c.id, p_flow, c.key, v_at) on conflict do nothing;
      if l.key_rate <= (select count(*) from flowledger.limited_starts s
        where s.flow = p_flow and s.key = c.key and s.at > v_at - l.key_rate_ms * interval '1 millisecond') then
        v_spent := v_spent || c.key;
      end if;
    end if;
  end loop;
  if cardinality(v_called) > 0 then
    update flowledger.places p set called_at = v_at where p.execution_id = any(v_called);
    perform flowledger.add_jobs(v_called);
  end if;
  if l.action = 'cancel' and (v_free <= 0 or cardinality(v_full) > 0) then
    for v_surplus in
      select e.* from flowledger.executions e
      where e.owner is null and e.wake_at is not null and e.closed_at is null and e.id in (
        select p.execution_id from flowledger.places p
        where p.execution_id = any(p_ids) and p.flow = p_flow and not p.held and p.is_fresh and (v_free <= 0 or p.key = any(v_full)))
      order by e.id for no key update
    loop
      if flowledger.close_unclaimed(v_surplus, format('concurrency limit of flow %s', p_flow), 'limit') then
        delete from flowledger.places p where p.execution_id = v_surplus.id;
      end if;
    end loop;
  end if;
  -- A rate is used up: one job comes for those who wait when the next start is free.
  if v_starts <= 0 or cardinality(v_spent) > 0 then
    v_next := coalesce(
      case when v_starts <= 0 then (
        select s.at + l.rate_ms * interval '1 millisecond' from flowledger.limited_starts s
        where s.flow = p_flow order by s.at desc offset l.rate - 1 limit 1) end,
      case when cardinality(v_spent) > 0 then (
        select min(s.at) + l.key_rate_ms * interval '1 millisecond' from unnest(v_spent) k(key)
        cross join lateral (
          select x.at from flowledger.limited_starts x where x.flow = p_flow and x.key = k.key order by x.at desc offset l.key_rate - 1 limit 1) s) end);
    if l.next_start_at is null or l.next_start_at <= v_at or l.next_start_at > v_next + interval '10 milliseconds' then
      perform graphile_worker.add_jobs(array(
        select row('flowledger:' || p_flow, json_agg(w.execution_id), null, v_next, null, null, min(w.priority), null)::graphile_worker.job_spec
        from (
          select p.execution_id, p.priority from flowledger.places p
          where p.flow = p_flow and not p.held and p.is_fresh order by p.priority, p.turn, p.execution_id limit 25) w
        having count(*) > 0));
      update flowledger.limits x set next_start_at = v_next where x.flow = p_flow and exists (
        select 1 from flowledger.places p where p.flow = p_flow and not p.held and p.is_fresh);
    end if;
  end if;
  return v_chosen;
end $$;

-- The net under the lines: places that nobody holds any more, executions that wait no longer, room that nobody was called for.
create or replace function flowledger.tend_places() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
as $$
declare
  l flowledger.limits;
begin
  for l in select * from flowledger.limits x order by x.flow loop
    continue when not pg_try_advisory_xact_lock(flowledger.limit_lock(l.flow));
    delete from flowledger.places p using flowledger.executions e
    where p.flow = l.flow and p.held and e.id = p.execution_id and e.owner is null;
    delete from flowledger.places p
    using (select x.execution_id from flowledger.places x where x.flow = l.flow and not x.held order by x.is_fresh, x.priority, x.turn, x.execution_id limit 1000) line,
      flowledger.executions e
    where p.execution_id = line.execution_id and e.id = line.execution_id and (e.owner is not null or e.wake_at is null or e.wake_at > clock_timestamp() or e.closed_at is not null);
    delete from flowledger.limited_starts s
    where s.flow = l.flow and s.at < clock_timestamp() - coalesce(greatest(l.rate_ms, l.key_rate_ms), 0) * interval '1 millisecond';
    perform flowledger.admit(l.flow, '{}', '{}', 0, true);
  end loop;
end $$;

-- What a worker says of the flows it serves. p_limits: [{ flow, concurrency, rate, rate_ms, key_concurrency, key_rate,
-- key_rate_ms, action }]; a flow of p_flows that is not among them has no limits any more.
create or replace function flowledger.keep_limits(p_flows text[], p_limits jsonb) returns void
language plpgsql volatile
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
    delete from flowledger.places p using gone where p.flow = gone.flow returning p.execution_id
  ) select array_agg(freed.execution_id) into v_freed from freed;
  if v_freed is not null then
    perform flowledger.add_jobs(v_freed);
  end if;
end $$;

-- Fires what is due of a schedule, once in the fleet: the row's lock and what it has fired until decide. False when somebody
-- else has been here since p_after was read.
--   p_times: due times, up to p_until; p_item: an item of `create_many` without id, idempotency key and the time in its metadata
--   p_overlap, where an execution of the schedule is still open: allow, skip (what is due now), queue (until that one has closed)
create or replace function flowledger.fire_schedule(p_name text, p_after timestamptz, p_until timestamptz, p_times timestamptz[], p_overlap text,
  p_item jsonb) returns boolean
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
  if not found or s.fired_until <> p_after or p_until > clock_timestamp() then
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
    select c.id into v_last from flowledger.create_many((
      select jsonb_agg(p_item || jsonb_build_object(
        'i', flowledger.new_id(), 'k', 'schedule ' || p_name || ' ' || flowledger.iso(t.at),
        'm', t.metadata, 'c', p_item -> 'c' || jsonb_build_object('metadata', t.metadata)) order by t.at)
      from (
        select u.at, coalesce(p_item -> 'm', '{}') || jsonb_build_object('schedule', p_name, 'scheduledAt', flowledger.iso(u.at)) as metadata
        from unnest(v_started) u(at)) t)) c
    order by c.ord desc limit 1;
  end if;
  update flowledger.schedules x
  set fired_until = p_until, last_id = coalesce(v_last, s.last_id),
    waiting = case when p_overlap = 'queue' then v_times[cardinality(v_started) + 1:] else '{}' end
  where x.name = p_name;
  return true;
end $$;

-- The group commit: appends of many executions in one statement, each accepted or refused alone. The fencing UPDATE comes
-- first and takes the row locks, in id order because the caller sorts by id.
--   p_ids, p_epochs, p_tokens, p_commits, p_bases: the owner's lease, the number of its commit, and the seq it knows
--   p_counts, p_conditional: events of each item, and how many of the last ones count only if nothing came in meanwhile
--   p_extras: per item { i: has interrupts, interventions or retries, f: fingerprint, e: stream ended, l: sealed, k: no progress,
--     c: { o: outcome, r: reason, e: error, s: snapshot, f: has a family that must hear of it } closes, r: { w: wakeInMs | null } releases, z: { q: seq, s: state } }
--   p_event_*: all events of all items, in item order
--   p_careful: leave rows that somebody else has locked for the next batch, instead of waiting for them
-- Rows that are missing in the answer were not ours, or locked: ask `append_verdict`.
create or replace function flowledger.append(
  p_ids uuid[], p_epochs int[], p_tokens uuid[], p_commits int[], p_bases int[], p_counts int[], p_conditional int[], p_extras jsonb,
  p_event_items int[], p_event_offsets int[], p_event_types text[], p_event_dispatches int[], p_event_chunks text[],
  p_event_actors text[], p_event_payloads jsonb, p_version int, p_careful boolean)
returns table (ord int, first_seq int, moved boolean, at_ms float8, events json)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- A row that is locked for longer sends the batch back, to be sent again with p_careful.
set lock_timeout = '500ms'
-- The join is a probe by primary key; a plan made while the table was small must not turn it into a scan.
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_at timestamptz;
  v_locked uuid[];
  v_above uuid[];
  v_ords int[];
  v_firsts int[];
  v_moved boolean;
  v_links uuid[];
begin
  if p_careful then
    v_locked := array(select e.id from flowledger.executions e where e.id = any(p_ids) order by e.id for no key update skip locked);
    -- What happens in a sub-flow is written to those above it too.
    v_above := array(
      select a.id from flowledger.executions a
      where a.id = any(array(
        select unnest(flowledger.visible_in(e.id)) from flowledger.executions e where e.id = any(v_locked) and e.parent_id is not null))
      order by a.id for no key update skip locked);
    v_locked := array(
      select l.id from unnest(v_locked) as l(id)
      where not exists (select 1 from flowledger.executions a where a.id = any(flowledger.visible_in(l.id)) and not a.id = any(v_above)));
  end if;
  v_at := clock_timestamp();
  with updated as (
    update flowledger.executions h
    set seq = h.seq + x.count - case when h.seq = x.base then 0 else x.conditional end,
      commit_no = x.commit,
      commit_seq = h.seq + 1,
      takeovers = case when x.extra ? 'k' then h.takeovers else 0 end,
      fingerprint = coalesce(x.extra ->> 'f', h.fingerprint),
      stream_ended = h.stream_ended or x.extra ? 'e',
      owner = case when (x.extra ? 'c' or x.extra ? 'r') and (h.seq = x.base or x.conditional = 0 and not x.extra ? 'r') then null else h.owner end,
      -- One with a family stays due until that has heard of its end.
      wake_at = case when x.extra ? 'c' and (h.seq = x.base or x.conditional = 0) then case when x.extra -> 'c' ? 'f' then v_at end
        when x.extra ? 'r' and h.seq = x.base then v_at + (x.extra -> 'r' ->> 'w')::float8 * interval '1 millisecond'
        else h.wake_at end,
      sealed_at = case when x.extra ? 'c' and (h.seq = x.base or x.conditional = 0) then coalesce(h.sealed_at, v_at)
        when x.extra ? 'l' and (h.seq = x.base or x.conditional = 0) then coalesce(h.sealed_at, v_at)
        else h.sealed_at end,
      -- What a sub-flow waits for is nothing this execution waits for any more.
      pending_interrupts = case when x.extra ? 'c' and (h.seq = x.base or x.conditional = 0) then 0 else h.pending_interrupts end,
      closed_at = case when x.extra ? 'c' and (h.seq = x.base or x.conditional = 0) then v_at end,
      outcome = case when x.extra ? 'c' and (h.seq = x.base or x.conditional = 0) then x.extra -> 'c' ->> 'o' end,
      close_reason = case when x.extra ? 'c' and (h.seq = x.base or x.conditional = 0) then x.extra -> 'c' ->> 'r' end,
      error = case when x.extra ? 'c' and (h.seq = x.base or x.conditional = 0) then nullif(x.extra -> 'c' -> 'e', 'null') end,
      close_snapshot = case when x.extra ? 'c' and (h.seq = x.base or x.conditional = 0) then x.extra -> 'c' -> 's' end
    from rows from (unnest(p_ids, p_epochs, p_tokens, p_commits, p_bases, p_counts, p_conditional), jsonb_array_elements(p_extras))
      with ordinality as x(id, epoch, token, commit, base, count, conditional, extra, ord)
    where h.id = x.id and h.epoch = x.epoch and h.token = x.token and h.commit_no = x.commit - 1 and h.owner is not null
      and h.seq >= x.base and (v_locked is null or h.id = any(v_locked))
    returning x.ord::int as ord, h.commit_seq as first_seq, h.commit_seq <> x.base + 1 as moved, case when x.extra ?| '{c,i,z}' then h.id end as link
  )
  select array_agg(u.ord order by u.ord), array_agg(u.first_seq order by u.ord), bool_or(u.moved), array_agg(u.link) filter (where u.link is not null)
  into v_ords, v_firsts, v_moved, v_links from updated u;
  if cardinality(v_ords) = cardinality(p_ids) and not v_moved then
    -- Everything is as its owner thought: no event has to ask what became of its item.
    insert into flowledger.ledger (execution_id, seq, epoch, at, dispatch, type, chunk, actor, payload)
    select p_ids[v.item], p_bases[v.item] + v.pos, p_epochs[v.item], v_at, v.dispatch, v.type, v.chunk, v.actor, nullif(v.payload, 'null')
    from rows from (unnest(p_event_items, p_event_offsets, p_event_types, p_event_dispatches, p_event_chunks, p_event_actors),
      jsonb_array_elements(p_event_payloads)) as v(item, pos, type, dispatch, chunk, actor, payload);
    if p_extras @? '$[*].z' then
      perform flowledger.keep_snapshots(p_ids, v_ords, p_extras, p_version);
    end if;
    if p_extras @? '$[*].i' then
      perform flowledger.project(p_ids[x.ord], v_firsts[x.ord]) from jsonb_array_elements(p_extras) with ordinality as x(extra, ord) where x.extra ? 'i';
    end if;
    if v_links is not null then
      perform flowledger.extend_chain(v_links);
    end if;
    return query select g, p_bases[g] + 1, false, (extract(epoch from v_at) * 1000)::float8, null::json from generate_series(1, cardinality(p_ids)) g;
    return;
  end if;
  insert into flowledger.ledger (execution_id, seq, epoch, at, dispatch, type, chunk, actor, payload)
  select p_ids[v.item], v_firsts[array_position(v_ords, v.item)] + v.pos - 1, p_epochs[v.item], v_at,
    v.dispatch, v.type, v.chunk, v.actor, nullif(v.payload, 'null')
  from rows from (unnest(p_event_items, p_event_offsets, p_event_types, p_event_dispatches, p_event_chunks, p_event_actors),
    jsonb_array_elements(p_event_payloads)) as v(item, pos, type, dispatch, chunk, actor, payload)
  where v.item = any(v_ords)
    and (v_firsts[array_position(v_ords, v.item)] = p_bases[v.item] + 1 or v.pos <= p_counts[v.item] - p_conditional[v.item]);
  perform flowledger.keep_snapshots(p_ids, v_ords, p_extras, p_version);
  perform flowledger.project(p_ids[u.ord], u.first_seq)
  from unnest(v_ords, v_firsts) as u(ord, first_seq) where (p_extras -> (u.ord - 1)) ? 'i';
  perform flowledger.extend_chain(v_links);
  return query
    select u.ord, u.first_seq, u.first_seq <> p_bases[u.ord] + 1, (extract(epoch from v_at) * 1000)::float8,
      case when u.first_seq <> p_bases[u.ord] + 1 then flowledger.events(p_ids[u.ord], p_bases[u.ord], u.first_seq - 1) end
    from unnest(v_ords, v_firsts) as u(ord, first_seq);
end $$;

-- What each row of a ledger hashes to: SHA-256 of all it holds.
create or replace view flowledger.ledger_hashes as
select l.execution_id, l.seq, sha256(record_send(row(l.execution_id, l.seq, l.epoch, l.at, l.type, l.dispatch, l.chunk, l.actor, l.payload))) as hash
from flowledger.ledger l;

-- One more link for each execution: a hash over the link before it and every row since, and 4 bytes of each row's own hash,
-- which tell which row it was. The caller holds the rows' locks. Made when an execution closes, when its state is kept, and
-- with whatever people do: in proportion to the ledger, and not for each commit.
create or replace function flowledger.extend_chain(p_ids uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set client_encoding = 'UTF8'
as $$
begin
  insert into flowledger.chain (execution_id, seq, hash, marks)
  select i.id, n.seq, sha256(coalesce(c.hash, '') || n.hashes), n.marks
  from unnest(p_ids) as i(id)
  left join lateral (select x.seq, x.hash from flowledger.chain x where x.execution_id = i.id order by x.seq desc limit 1) c on true
  cross join lateral (
    select max(o.seq) as seq, string_agg(o.hash, '') as hashes, string_agg(substr(o.hash, 1, 4), '') as marks
    -- "offset 0": hashed once, although it is used twice.
    from (select h.seq, h.hash from flowledger.ledger_hashes h where h.execution_id = i.id and h.seq > coalesce(c.seq, 0) order by h.seq offset 0) o
  ) n
  where n.seq is not null;
end $$;

create or replace function flowledger.keep_snapshots(p_ids uuid[], p_ords int[], p_extras jsonb, p_version int) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into flowledger.snapshots as s (execution_id, seq, version, state)
  select p_ids[x.ord], (x.extra -> 'z' -> 'q')::int, p_version, x.extra -> 'z' -> 's'
  from jsonb_array_elements(p_extras) with ordinality as x(extra, ord)
  where x.extra ? 'z' and x.ord = any(p_ords)
  on conflict (execution_id) do update set seq = excluded.seq, version = excluded.version, state = excluded.state
$$;

-- Derives the rows of interrupts and interventions, and the stream items that tell of them, from the ledger after a seq.
-- Whoever calls it holds the execution's row lock, so the rows follow the ledger's order.
create or replace function flowledger.project(p_id uuid, p_first int, p_stream boolean default true) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  l record;
  v_items jsonb[] := '{}';
  v_kinds text[] := '{}';
  v_dispatches int[] := '{}';
  v_shown int := 0;
  v_stopped int;
  v_status text;
  v_before int;
  v_after int;
  v_up uuid[];
begin
  -- What happens after the stop is in no reader's stream, early or late.
  if (select e.stream_ended from flowledger.executions e where e.id = p_id) then
    v_stopped := (select min(r.seq) from flowledger.ledger r where r.execution_id = p_id and r.type = 'stream.stopped');
  end if;
  for l in
    select r.seq, r.at, r.epoch, r.type, r.dispatch, r.chunk, r.payload as p, e.flow
    from flowledger.ledger r join flowledger.executions e on e.id = r.execution_id
    where r.execution_id = p_id and r.seq >= p_first
      and r.type in ('interrupt.raised', 'interrupt.resumed', 'interrupt.expired', 'interrupt.cancelled', 'chunk.failed',
        'intervention.recorded', 'intervention.inserted', 'intervention.consumed', 'intervention.expired')
    order by r.seq
  loop
    case
    when l.type = 'chunk.failed' then
      if l.p ? 'retryInMs' then
        v_kinds := v_kinds || 'retry'::text;
        v_items := v_items || jsonb_build_object('type', 'retry', 'chunk', l.chunk, 'attempt', (l.p -> 'attempt')::int + 1);
      end if;
    when l.type = 'interrupt.raised' then
      insert into flowledger.interrupts as i (execution_id, id, flow, chunk, type, status, payload, resume_to, resume_count, max_resumes,
        created_at, expires_at, response)
      values (p_id, l.p ->> 'id', l.flow, l.chunk, l.p ->> 'kind', 'pending', l.p -> 'payload', l.p -> 'resumeTo',
        (l.p -> 'resumeCount')::int, nullif(l.p -> 'maxResumes', 'null')::int, l.at,
        l.at + (l.p -> 'expiresInMs')::float8 * interval '1 millisecond', l.p -> 'response')
      on conflict (execution_id, id) do update set chunk = excluded.chunk, type = excluded.type, status = 'pending',
        payload = excluded.payload, resume_to = excluded.resume_to, resume_count = excluded.resume_count,
        max_resumes = excluded.max_resumes, created_at = excluded.created_at, expires_at = excluded.expires_at,
        response = excluded.response, resolved_at = null, value = null, request_id = null, actor = null;
      v_kinds := v_kinds || 'interrupt'::text;
      v_items := v_items || jsonb_build_object('type', 'interrupt', 'action', 'pause', 'executionId', p_id,
        'interrupt', flowledger.interrupt_record(p_id, l.p ->> 'id'));
    when l.type like 'interrupt.%' then
      v_status := split_part(l.type, '.', 2);
      update flowledger.interrupts i set status = v_status, resolved_at = l.at, value = l.p -> 'value',
        request_id = l.p ->> 'requestId', actor = (select r.actor from flowledger.ledger r where r.execution_id = p_id and r.seq = l.seq)
      where i.execution_id = p_id and i.id = l.p ->> 'id' and (i.status = 'pending' or v_status = 'resumed' and not l.p ? 'byEvent');
      if found then
        v_kinds := v_kinds || 'interrupt'::text;
        v_items := v_items || (jsonb_build_object('type', 'interrupt', 'action', replace(replace(replace(v_status, 'resumed', 'resume'), 'expired', 'expire'), 'cancelled', 'cancel'),
          'executionId', p_id, 'interrupt', flowledger.interrupt_record(p_id, l.p ->> 'id'))
          || case when v_status = 'resumed' then jsonb_build_object('value', l.p -> 'value') else '{}' end);
      end if;
    when l.type = 'intervention.recorded' then
      insert into flowledger.interventions (execution_id, version, id, status, target, author, record, created_at)
      select p_id, count(*) + 1, l.p ->> 'id', 'pending', l.p ->> 'target', l.p ->> 'author', jsonb_build_object(
        'id', l.p -> 'id', 'version', count(*) + 1, 'status', 'pending', 'payload', l.p -> 'payload', 'target', l.p -> 'target',
        'author', l.p -> 'author', 'note', l.p -> 'note', 'metadata', coalesce(l.p -> 'metadata', '{}'), 'createdAt', flowledger.iso(l.at),
        'insertedAt', null, 'insertion', null, 'rejectedAt', null, 'rejectReason', null, 'expiredAt', null, 'consumers', '{}'::jsonb), l.at
      from flowledger.interventions v where v.execution_id = p_id;
      v_kinds := v_kinds || 'intervention'::text;
      v_items := v_items || flowledger.intervention_item(p_id, l.p ->> 'id', 'append');
    else
      update flowledger.interventions v
      set status = case l.type when 'intervention.inserted' then 'inserted' when 'intervention.expired' then 'expired' else v.status end,
        record = v.record || case l.type
          when 'intervention.inserted' then jsonb_build_object('status', 'inserted', 'insertedAt', flowledger.iso(l.at), 'insertion', l.p -> 'insertion')
          when 'intervention.expired' then jsonb_build_object('status', 'expired', 'expiredAt', flowledger.iso(l.at))
          else jsonb_build_object('consumers', v.record -> 'consumers' || jsonb_build_object(l.p ->> 'consumer', jsonb_build_object(
            'status', l.p -> 'status', 'note', l.p -> 'note', 'metadata', coalesce(l.p -> 'metadata', '{}'), 'consumedAt', flowledger.iso(l.at)))) end
      where v.execution_id = p_id and v.id = l.p ->> 'id';
      v_kinds := v_kinds || 'intervention'::text;
      v_items := v_items || flowledger.intervention_item(p_id, l.p ->> 'id',
        case l.type when 'intervention.inserted' then 'insert' when 'intervention.expired' then 'expire' else 'consume' end);
    end case;
    if cardinality(v_items) > cardinality(v_dispatches) then
      v_dispatches := v_dispatches || l.dispatch;
    end if;
    if p_stream and (v_stopped is null or l.seq < v_stopped) then
      v_shown := cardinality(v_items);
    end if;
  end loop;
  select e.pending_interrupts, case when e.parent_id is not null then flowledger.visible_in(p_id) end into v_before, v_up
  from flowledger.executions e where e.id = p_id;
  update flowledger.executions e
  set pending_interrupts = case when e.closed_at is null then flowledger.waiting_on(p_id) else 0 end,
    stream_seq = e.stream_seq + v_shown
  where e.id = p_id
  returning e.pending_interrupts into v_after;
  insert into flowledger.stream_items (execution_id, seq, epoch, at, kind, dispatch, item)
  select p_id, e.stream_seq - v_shown + v.ord, e.epoch, clock_timestamp(), v.kind, v.dispatch, v.item
  from flowledger.executions e, unnest(v_kinds, v_dispatches, v_items) with ordinality as v(kind, dispatch, item, ord)
  where e.id = p_id and v.ord <= v_shown;
  if cardinality(v_up) > 0 then
    perform flowledger.show_above(p_id, v_up, v_after <> v_before or not p_stream,
      array(select v.item from unnest(v_kinds, v_items) as v(kind, item) where p_stream and v.kind in ('interrupt', 'retry')));
  end if;
end $$;

-- Shows what happened in a sub-flow on the executions above it: how many interrupts wait, and the stream items that tell of
-- them and of retries.
create or replace function flowledger.show_above(p_id uuid, p_up uuid[], p_recount boolean, p_items jsonb[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  u record;
begin
  if not p_recount and cardinality(p_items) = 0 then
    return;
  end if;
  perform 1 from flowledger.executions e where e.id = any(p_up) order by e.id for no key update;
  -- The nearest first: each counts those below it.
  for u in
    select e.id, e.epoch, e.stream_seq, e.stream_ended from flowledger.executions e
    where e.id = any(p_up) and e.closed_at is null order by array_position(p_up, e.id)
  loop
    update flowledger.executions e
    set pending_interrupts = flowledger.waiting_on(u.id),
      stream_seq = e.stream_seq + case when u.stream_ended then 0 else cardinality(p_items) end
    where e.id = u.id;
    insert into flowledger.stream_items (execution_id, seq, epoch, at, kind, item)
    select u.id, u.stream_seq + v.ord, u.epoch, clock_timestamp(), v.item ->> 'type', case v.item ->> 'type'
      when 'retry' then v.item || jsonb_build_object('executionId', p_id)
      else v.item || jsonb_build_object('executionId', u.id, 'action', replace(v.item ->> 'action', 'pause', 'project'),
        'interrupt', flowledger.projected_record(u.id, p_id, v.item -> 'interrupt' ->> 'id')) end
    from unnest(p_items) with ordinality as v(item, ord)
    where not u.stream_ended;
  end loop;
end $$;

-- Times in records: ISO 8601 with milliseconds, as JavaScript writes them.
create or replace function flowledger.iso(p_at timestamptz) returns text
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select to_char(date_trunc('milliseconds', p_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') $$;

create or replace function flowledger.interrupt_record(p_id uuid, p_interrupt text) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('id', i.id, 'type', i.type, 'status', i.status, 'payload', i.payload, 'resumeTo', i.resume_to, 'chunk', i.chunk,
    'resumeCount', i.resume_count, 'maxResumes', i.max_resumes, 'createdAt', flowledger.iso(i.created_at),
    'expiresAt', flowledger.iso(i.expires_at), 'resolvedAt', flowledger.iso(i.resolved_at), 'value', i.value,
    'requestId', i.request_id, 'actor', i.actor, 'response', i.response, 'executionId', i.execution_id, 'flow', i.flow, 'projectedFrom', null)
  from flowledger.interrupts i where i.execution_id = p_id and i.id = p_interrupt
$$;

create or replace function flowledger.intervention_item(p_id uuid, p_intervention text, p_action text) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('type', 'intervention', 'action', p_action, 'executionId', p_id, 'intervention', v.record)
  from flowledger.interventions v where v.execution_id = p_id and v.id = p_intervention
$$;

-- What became of appends that were not accepted: repeat (this commit is in already), fenced (not the owner any more), or
-- busy (the row was locked: send it again).
create or replace function flowledger.append_verdict(p_id uuid, p_epoch int, p_token uuid, p_commit int, p_base int) returns text
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    select case when h.epoch <> p_epoch or h.token <> p_token then 'fenced'
      when h.commit_no >= p_commit then 'repeat'
      -- Not ours, or a database that has forgotten our last commits, or what came in: a failover lost them.
      when h.owner is null or h.commit_no < p_commit - 1 or h.seq < p_base then 'fenced'
      else 'busy' end
    from flowledger.executions h where h.id = p_id), 'fenced')
$$;

-- Tells the families of closed executions: a parent that is still open gets `child.closed`, and children of an execution
-- that did not get to its end are cancelled. Whoever closed it calls this; should they die before, or find a row locked, it
-- stays due, and every worker looks for that (p_overdue).
create or replace function flowledger.settle_families(p_ids uuid[], p_overdue interval default null) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
set enable_seqscan = off
as $$
declare
  c record;
  p flowledger.executions;
  v_ended jsonb;
  v_unfinished uuid[];
begin
  for c in
    select e.parent_id, array_agg(e.id) as ids from flowledger.executions e
    where e.closed_at is not null and e.wake_at is not null and e.id = any(p_ids || array(
      select d.id from flowledger.executions d where d.wake_at < clock_timestamp() - p_overdue and d.closed_at is not null order by d.wake_at limit 200))
    group by e.parent_id
    order by e.parent_id
  loop
    begin
      -- The parent first, as everywhere: a child is younger than its parent.
      select * into p from flowledger.executions h where h.id = c.parent_id for no key update;
      with told as (
        -- Without those that somebody else has told.
        update flowledger.executions e set wake_at = null where e.id = any(c.ids) and e.wake_at is not null
        returning e.id, e.closed_at, e.outcome, e.error
      )
      select jsonb_agg(jsonb_strip_nulls(jsonb_build_object('type', 'child.closed', 'child', t.id,
          'dispatch', l.payload -> 'parent' -> 'dispatch', 'ordinal', l.payload -> 'parent' -> 'ordinal', 'outcome', t.outcome, 'error', t.error))
          order by t.closed_at, t.id) filter (where not l.payload ? 'item'),
        array_agg(t.id) filter (where t.outcome <> 'completed')
      into v_ended, v_unfinished
      from told t join flowledger.ledger l on l.execution_id = t.id and l.seq = 1;
      if p.closed_at is null and p.id is not null and v_ended is not null then
        perform flowledger.accept(p, v_ended, false);
      end if;
      perform flowledger.cancel(h.id, 'parent ' || e.outcome, 'parent')
      from flowledger.executions h join flowledger.executions e on e.id = h.parent_id
      where h.parent_id = any(v_unfinished) and h.closed_at is null and not flowledger.is_item(h.id);
    exception when lock_not_available or deadlock_detected then
      continue;
    end;
  end loop;
end $$;

-- Is it one item of a distributed collection? Its parent looks for its end, and asks for it, by its id.
create or replace function flowledger.is_item(p_id uuid) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select exists (select from flowledger.ledger l where l.execution_id = p_id and l.seq = 1 and l.payload ? 'item') $$;

-- The executions that a sub-flow shows on: its parent, the parent of that, as far as they are sub-flows too.
create or replace function flowledger.visible_in(p_id uuid) returns uuid[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array(select jsonb_array_elements_text(l.payload -> 'parent' -> 'visibleIn')::uuid), '{}')
  from flowledger.ledger l where l.execution_id = p_id and l.seq = 1
$$;

-- How many interrupts wait in an execution, its own and those of its sub-flows.
create or replace function flowledger.waiting_on(p_id uuid) returns int
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select (select count(*) from flowledger.interrupts i where i.execution_id = p_id and i.status = 'pending')::int
    + (select coalesce(sum(c.pending_interrupts), 0) from flowledger.executions c
      where c.parent_id = p_id and c.pending_interrupts > 0 and p_id = any(flowledger.visible_in(c.id)))::int
$$;

-- Interrupts that wait in an execution and in the sub-flows that show on it: each with the id that it has there.
create or replace function flowledger.pending_on(p_id uuid) returns table (id text, owner_id uuid, local_id text, created_at timestamptz)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive family as (
    select p_id as id
    union all
    select c.id from family f join flowledger.executions c on c.parent_id = f.id
    where c.pending_interrupts > 0 and c.closed_at is null and p_id = any(flowledger.visible_in(c.id))
  )
  select case when f.id = p_id then i.id else f.id || ':' || i.id end, f.id, i.id, i.created_at
  from family f join flowledger.interrupts i on i.execution_id = f.id and i.status = 'pending'
$$;

-- An interrupt as the execution shows it: its own, or one of a sub-flow under the id "<execution>:<interrupt>".
create or replace function flowledger.projected_record(p_id uuid, p_owner uuid, p_interrupt text) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_owner = p_id then r.record else r.record || jsonb_build_object('id', p_owner || ':' || p_interrupt, 'executionId', p_id,
    'projectedFrom', jsonb_build_object('executionId', p_owner, 'interruptId', p_interrupt)) end
  from (select flowledger.interrupt_record(p_owner, p_interrupt) as record) r
$$;

-- The sub-flow that an interrupt's id names, where it shows on the execution.
create or replace function flowledger.projected_owner(p_id uuid, p_interrupt text) returns uuid
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select c.id from flowledger.executions c
  where p_interrupt ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:.'
    and c.id = case when p_interrupt ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:.' then left(p_interrupt, 36)::uuid end
    and p_id = any(flowledger.visible_in(c.id))
$$;

-- Stream items of many executions in one statement. p_items: [{ i: id, e: epoch, k: token, n: number of the load,
-- v: [{ k: kind, d: dispatch, v: item }], b: executions that show the items too }].
create or replace function flowledger.put_items(p_items jsonb)
returns table (token uuid, verdict text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_at timestamptz := clock_timestamp();
begin
  if p_items @? '$[*].b' then
    -- The items of a sub-flow go to every stream they show on in one moment, so that each has them once and in order. Where
    -- one of the rows is locked, all of them wait for the next batch.
    return query
    with locked as materialized (
      select x.i, x.k, x.n, x.v, x.b, h.id, h.stream_seq as head, h.stream_no, h.epoch, h.id = x.i as is_source,
        case when h.id = x.i then h.epoch = x.e and h.token = x.k and h.owner is not null else h.closed_at is null and not h.stream_ended end as takes
      from jsonb_to_recordset(p_items) as x(i uuid, e int, k uuid, n int, v jsonb, b uuid[])
      join flowledger.executions h on h.id = any(x.i || coalesce(x.b, '{}'))
      order by h.id for no key update of h skip locked
    ), judged as materialized (
      select l.i, l.k, bool_or(l.is_source and l.takes) as is_owner
      from locked l group by l.i, l.k, l.b
      having count(*) = (select count(*) from flowledger.executions h where h.id = any(l.i || coalesce(l.b, '{}')))
    ), updated as (
      update flowledger.executions h set stream_seq = l.head + jsonb_array_length(l.v),
        stream_no = case when l.is_source then coalesce(l.n, l.stream_no) else l.stream_no end
      from locked l join judged j on j.i = l.i and j.is_owner where h.id = l.id and l.takes
    ), written as (
      -- Above, a dispatch's number means another one.
      insert into flowledger.stream_items (execution_id, seq, epoch, at, kind, dispatch, item)
      select l.id, l.head + v.ord, l.epoch, v_at, coalesce(v.k, case when not l.is_source then 'subFlow' end), case when l.is_source then v.d end,
        case when v.k = 'retry' and not l.is_source then v.v || jsonb_build_object('executionId', l.i) else coalesce(v.v, 'null') end
      from locked l join judged j on j.i = l.i and j.is_owner
      cross join lateral rows from (jsonb_to_recordset(l.v) as (k text, d int, v jsonb)) with ordinality as v(k, d, v, ord)
      where l.takes
    )
    select j.k, case when j.is_owner then 'ok' else 'fenced' end from judged j;
    return;
  end if;
  return query
  with locked as materialized (
    select x.*, h.stream_seq as head, h.epoch = x.e and h.token = x.k and h.owner is not null as is_owner
    from jsonb_to_recordset(p_items) as x(i uuid, e int, k uuid, n int, v jsonb)
    join flowledger.executions h on h.id = x.i
    order by h.id for no key update of h skip locked
  ), updated as (
    update flowledger.executions h set stream_seq = l.head + jsonb_array_length(l.v), stream_no = coalesce(l.n, h.stream_no)
    from locked l where h.id = l.i and l.is_owner
  ), written as (
    insert into flowledger.stream_items (execution_id, seq, epoch, at, kind, dispatch, item)
    -- An item that is JSON's null comes out of a record as no value at all.
    select l.i, l.head + v.ord, l.e, v_at, v.k, v.d, coalesce(v.v, 'null')
    from locked l
    cross join lateral rows from (jsonb_to_recordset(l.v) as (k text, d int, v jsonb)) with ordinality as v(k, d, v, ord)
    where l.is_owner
  )
  select l.k, case when l.is_owner then 'ok' else 'fenced' end from locked l;
end $$;

-- One load of an owner, at most once however often it is sent: ok, fenced (not the owner any more), stopped (the stream takes
-- nothing new), full (it would have more than `l` items), or busy (the row was locked: send it again). Its `m`,
-- [{ d: dispatch, v: retry marker }], names dispatches that an earlier owner may have begun: where the last that is there of
-- one is an item, its marker comes before what is new.
create or replace function flowledger.put_load(p_load jsonb) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id uuid := p_load ->> 'i';
  v_no int := p_load ->> 'n';
  h record;
begin
  select e.epoch = (p_load ->> 'e')::int and e.token = (p_load ->> 'k')::uuid and e.owner is not null as is_owner, e.stream_no, e.stream_ended,
    e.stream_seq
  into h from flowledger.executions e where e.id = v_id for no key update skip locked;
  if not found then
    return case when exists (select from flowledger.executions e where e.id = v_id) then 'busy' else 'fenced' end;
  end if;
  -- A database that has forgotten our last loads lost them in a failover.
  if not coalesce(h.is_owner, false) or h.stream_no < v_no - 1 then return 'fenced'; end if;
  if h.stream_no >= v_no then return 'ok'; end if;
  if h.stream_ended then return 'stopped'; end if;
  if h.stream_seq + jsonb_array_length(p_load -> 'v') > (p_load ->> 'l')::bigint then return 'full'; end if;
  if p_load ? 'm' then
    p_load := jsonb_set(p_load, '{v}', coalesce((
      select jsonb_agg(m.mark || '{"k": "retry"}' order by m.ord)
      from jsonb_array_elements(p_load -> 'm') with ordinality as m(mark, ord)
      where (select s.kind is null from flowledger.stream_items s
        where s.execution_id = v_id and s.dispatch = (m.mark ->> 'd')::int order by s.seq desc limit 1)), '[]') || (p_load -> 'v'));
  end if;
  return (select p.verdict from flowledger.put_items(jsonb_build_array(p_load)) p);
end $$;

-- The advisory lock that a worker holds as long as its process and its connection live.
create or replace function flowledger.worker_key(p_id uuid) returns bigint
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select ('x' || encode(substring(uuid_send(p_id) from 1 for 8), 'hex'))::bit(64)::bigint # ('x' || encode(substring(uuid_send(p_id) from 9), 'hex'))::bit(64)::bigint $$;

-- Signs a worker up and takes its lock, in the session that will hold it.
create or replace function flowledger.sign_up(p_id uuid, p_host text, p_pid int, p_flows text[], p_pool text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_lock(flowledger.worker_key(p_id));
  insert into flowledger.workers (id, host, pid, flows, pool, started_at, heartbeat_at)
  values (p_id, p_host, p_pid, p_flows, p_pool, clock_timestamp(), clock_timestamp());
end $$;

-- A sign of life. False when the others have given this worker up: its executions are theirs now.
create or replace function flowledger.beat(p_id uuid) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update flowledger.workers set heartbeat_at = clock_timestamp() where id = p_id;
  return found;
end $$;

-- Frees what dead workers own (reap), and gives a new job to what is due and has none (sweep). One worker of the fleet at a
-- time; the others find the lock taken and go on. Dead is who lost its lock and missed a beat, or was silent for p_silent.
create or replace function flowledger.tend(p_missed interval, p_silent interval, p_sweep interval) returns table (reaped int, freed int, swept int)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := clock_timestamp();
  v_dead uuid[];
  v_pools text[];
  v_freed uuid[];
  v_swept uuid[];
begin
  reaped := 0; freed := 0; swept := 0;
  if not pg_try_advisory_xact_lock(4071975022) then
    return next;
    return;
  end if;
  select array_agg(w.id), array_remove(array_agg(w.pool), null) into v_dead, v_pools
  from flowledger.workers w
  where w.heartbeat_at < v_at - p_silent
    -- A session may end without its process: whoever lives takes the lock again with its next beat. After a restart of
    -- Postgres everybody does, so nobody is given up for that.
    or w.heartbeat_at < v_at - p_missed and pg_postmaster_start_time() < v_at - p_silent
      and pg_try_advisory_xact_lock(flowledger.worker_key(w.id));
  if v_dead is not null then
    with free as (
      update flowledger.executions e
      set owner = null, takeovers = e.takeovers + 1, wake_at = v_at
      where e.wake_at is not null and e.owner = any(v_dead)
      returning e.id
    ) select array_agg(free.id) into v_freed from free;
    delete from flowledger.workers w where w.id = any(v_dead);
    perform graphile_worker.force_unlock_workers(v_pools);
    if v_freed is not null then
      perform flowledger.add_jobs(v_freed);
    end if;
  end if;
  if p_sweep is not null then
    -- Due for long, nobody's, and no job of its flow waits: its hint was lost. wake_at moves on, so a sweep repeats itself
    -- at most once per p_sweep.
    with lost as (
      select e.id from flowledger.executions e
      where e.wake_at < v_at - p_sweep and e.closed_at is null
        and (e.owner is null or not exists (select 1 from flowledger.workers w where w.id = e.owner))
        -- What stands in line waits for a place, not for a job.
        and not exists (select 1 from flowledger.places p where p.execution_id = e.id and not p.held)
        and not exists (
          select 1 from graphile_worker._private_jobs j join graphile_worker._private_tasks t on t.id = j.task_id
          where t.identifier = 'flowledger:' || e.flow and j.is_available and j.run_at <= v_at)
      order by e.wake_at limit 1000 for no key update of e skip locked
    ), moved as (
      update flowledger.executions e
      set wake_at = v_at, takeovers = e.takeovers + case when e.owner is null then 0 else 1 end, owner = null
      from lost where e.id = lost.id
      returning e.id
    ) select array_agg(moved.id) into v_swept from moved;
    if v_swept is not null then
      perform flowledger.add_jobs(v_swept);
    end if;
    perform flowledger.tend_places();
  end if;
  reaped := coalesce(cardinality(v_dead), 0);
  freed := coalesce(cardinality(v_freed), 0);
  swept := coalesce(cardinality(v_swept), 0);
  return next;
end $$;

-- Says that this database is at home here: by `migrate`, and by the owner of a copy whose open executions shall go on in it.
create or replace function flowledger.adopt() returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into flowledger.homes (at, by, system, database_oid)
  select clock_timestamp(), current_user, s.system_identifier, d.oid
  from pg_control_system() s, pg_database d where d.datname = current_database()
$$;

-- False in a copy: restored elsewhere, cloned, or upgraded into another cluster.
create or replace function flowledger.is_home() returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select h.system = s.system_identifier::text and h.database_oid = d.oid
  from (select * from flowledger.homes order by at desc limit 1) h, pg_control_system() s, pg_database d
  where d.datname = current_database()
$$;

-- The ledger refuses to be changed, whoever asks: ENABLE ALWAYS also fires under session_replication_role = replica. Only
-- `prune` may delete, and who calls that needs the right to delete.
create or replace function flowledger.refuse_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'DELETE' and current_setting('flowledger.pruning', true) = 'on' then
    return old;
  end if;
  raise exception 'flowledger.% is append-only: % refused', tg_table_name, lower(tg_op)
    using errcode = 'FL010', hint = 'retention removes whole closed executions through flowledger.prune()';
end $$;

-- Locks an execution that still takes commands, or says why it does not.
create or replace function flowledger.lock_open(p_id uuid, p_what text) returns flowledger.executions
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
begin
  select * into e from flowledger.executions h where h.id = p_id for no key update;
  if not found then
    raise exception 'execution % does not exist', p_id
      using errcode = 'FL001', hint = 'check the id, and that you are connected to the database it was started in';
  elsif e.closed_at is not null then
    raise exception 'execution % is closed (%) and no longer accepts %', p_id, e.close_reason, p_what
      using errcode = 'FL003', hint = 'start a new execution';
  elsif e.sealed_at is not null and p_what not in ('close', 'cancel', 'seal') then
    raise exception 'execution % is sealed and no longer accepts %', p_id, p_what
      using errcode = 'FL002', hint = 'start a new execution, or send it before seal()';
  end if;
  return e;
end $$;

-- Appends events that came from outside to a locked execution and sees to it that somebody advances it: its owner hears
-- of it by a wake-up, a free execution gets a job. Returns the seq of the last event.
create or replace function flowledger.accept(e flowledger.executions, p_events jsonb, p_notify boolean) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := clock_timestamp();
  v_seq int := e.seq + jsonb_array_length(p_events);
begin
  insert into flowledger.ledger (execution_id, seq, epoch, at, type, actor, payload)
  select e.id, e.seq + v.ord, e.epoch, v_at, v.event ->> 'type', v.event ->> 'actor',
    nullif((select jsonb_object_agg(field.key, field.value) from jsonb_each(v.event) field
      where field.key not in ('type', 'actor') and (field.value <> 'null' or field.key in ('value', 'payload', 'input'))), '{}')
  from jsonb_array_elements(p_events) with ordinality as v(event, ord);
  update flowledger.executions h
  set seq = v_seq,
    started_at = case when p_events @> '[{"type": "execution.started"}]' then coalesce(h.started_at, v_at) else h.started_at end,
    sealed_at = case when p_events @> '[{"type": "execution.sealed"}]' then coalesce(h.sealed_at, v_at) else h.sealed_at end,
    wake_at = case when h.owner is null then least(h.wake_at, v_at) else h.wake_at end
  where h.id = e.id;
  if p_events @? '$[*].type ? (@ starts with "inter")' then
    perform flowledger.project(e.id, e.seq + 1);
    perform flowledger.extend_chain(array[e.id]);
  end if;
  -- One that is due already has its job.
  if e.owner is null and (e.wake_at is null or e.wake_at > v_at) then
    perform flowledger.add_jobs(array[e.id]);
  end if;
  if p_notify then
    perform pg_notify(flowledger.channel(e.id), e.id::text);
  end if;
  return v_seq;
end $$;

-- Starts an execution of a flow; with a known idempotencyKey, gives the one that has it. options: idempotencyKey, metadata,
-- priority, delay (interval), startAt, autoClose, autoCloseTimeout (interval or null), concurrency, interventionMode, timeout,
-- limitKey (what the limits per key count it by; without one it counts with all others that have none).
create or replace function flowledger.start(flow text, input jsonb default 'null', options jsonb default '{}') returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id uuid;
  v_conflict boolean;
begin
  if flow is null or flow !~ '^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$' then
    raise exception 'flow name % is not valid', quote_nullable(flow)
      using errcode = 'FL008', hint = 'use letters, digits and . _ : - , at most 128';
  elsif jsonb_typeof(options) is distinct from 'object' or jsonb_typeof(options -> 'metadata') not in ('object', 'null')
    or jsonb_typeof(options -> 'autoClose') not in ('boolean', 'null') or jsonb_typeof(options -> 'concurrency') not in ('number', 'null')
    or (options ->> 'concurrency')::numeric not between 1 and 9007199254740991 or (options ->> 'concurrency')::numeric % 1 <> 0
    or (options ->> 'interventionMode') not in ('planned', 'auto') or (options ->> 'timeout')::interval < interval '0'
    or (options ->> 'autoCloseTimeout')::interval < interval '0' or (options ->> 'delay')::interval < interval '0'
    or length(options ->> 'limitKey') not between 1 and 200 then
    raise exception 'options % of start are not valid', left(options::text, 200)
      using errcode = 'FL008', hint = 'metadata is an object, autoClose a boolean, concurrency a number from 1, interventionMode planned or auto, times are intervals that are not negative, limitKey has 1 to 200 characters';
  end if;
  select c.id, c.conflict into v_id, v_conflict
  from flowledger.create_many(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
    'i', coalesce((options ->> 'id')::uuid, flowledger.new_id()), 'f', flow, 'k', options ->> 'idempotencyKey',
    'm', options -> 'metadata', 'p', options -> 'priority', 'w', options ->> 'startAt', 'q', options ->> 'limitKey',
    'd', extract(epoch from (options ->> 'delay')::interval) * 1000))
    || jsonb_build_object('c', jsonb_strip_nulls(jsonb_build_object('flow', flow, 'metadata', options -> 'metadata'))
      || jsonb_build_object('settings', jsonb_strip_nulls(jsonb_build_object(
        'autoClose', options -> 'autoClose', 'concurrency', options -> 'concurrency',
        'interventionMode', options -> 'interventionMode',
        'timeoutMs', extract(epoch from (options ->> 'timeout')::interval) * 1000,
        'autoCloseMs', extract(epoch from (options ->> 'autoCloseTimeout')::interval) * 1000))
        || case when options -> 'autoCloseTimeout' = 'null' then '{"autoCloseMs": null}' else '{}' end::jsonb))
    || jsonb_build_object('t', true, 'u', true, 'x', input))) c;
  if v_conflict then
    raise exception 'idempotency key % of flow % was used with another input (execution %)', options ->> 'idempotencyKey', flow, v_id
      using errcode = 'FL008', hint = 'use a new key for a new input';
  end if;
  return v_id;
end $$;

-- Gives a created execution its input. False when it had been started before.
create or replace function flowledger.start_execution(id uuid, input jsonb, notify boolean default true, raw boolean default true,
  limit_key text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions := flowledger.lock_open(start_execution.id, 'start');
begin
  if e.started_at is not null then
    return false;
  end if;
  if limit_key is not null then
    update flowledger.executions h set limit_key = start_execution.limit_key where h.id = e.id;
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'execution.started', 'input', coalesce(input, 'null'),
    'raw', case when raw then true end, 'limitKey', limit_key)), notify);
  return true;
end $$;

-- Sends an event to an execution. Repeating an idempotency key changes nothing. Returns the event's seq.
create or replace function flowledger.emit(id uuid, event text, payload jsonb default 'null', idempotency_key text default null,
  actor text default null, notify boolean default true, raw boolean default true) returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions := flowledger.lock_open(emit.id, format('"%s"', event));
  v_known int;
begin
  if idempotency_key is not null then
    select l.seq into v_known from flowledger.ledger l
    where l.execution_id = e.id and l.type = 'event.emitted' and l.payload ->> 'idempotencyKey' = idempotency_key;
    if found then
      return v_known;
    end if;
  end if;
  if coalesce(event, '') = '' then
    raise exception 'event name % is not valid', quote_nullable(event) using errcode = 'FL008', hint = 'use a text that is not empty';
  end if;
  -- Interrupts that wait for the event are answered by it.
  return flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'event.emitted', 'event', event,
    'payload', coalesce(payload, 'null'), 'idempotencyKey', idempotency_key, 'actor', actor, 'raw', case when raw then true end))
    || coalesce((select jsonb_agg(jsonb_build_object('type', 'interrupt.resumed', 'id', i.id, 'value', coalesce(emit.payload, 'null'),
        'byEvent', event, 'actor', emit.actor) order by i.created_at, i.id)
      from flowledger.interrupts i
      where e.pending_interrupts > 0 and i.execution_id = e.id and i.status = 'pending' and i.resume_to ->> 'event' = event), '[]'), notify);
end $$;

-- Answers an interrupt. Repeating a request id with the same answer changes nothing; with another answer it is refused.
create or replace function flowledger.continue_with(id uuid, interrupt text, payload jsonb default 'null', resume_request_id text default null,
  actor text default null, notify boolean default true) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  i flowledger.interrupts;
  v_closed text;
  v_value jsonb;
  v_owner uuid;
begin
  begin
    e := flowledger.lock_open(continue_with.id, format('continueWith("%s")', interrupt));
  exception when sqlstate 'FL002' or sqlstate 'FL003' then
    -- A repeated answer is still an answer, also after the end.
    v_closed := sqlstate;
  end;
  select * into i from flowledger.interrupts x where x.execution_id = continue_with.id and x.id = interrupt;
  if not found then
    v_owner := flowledger.projected_owner(continue_with.id, interrupt);
    -- The sub-flow decides; what was accepted there before the end here is answered again.
    if v_owner is not null and (v_closed is null or exists (
      select 1 from flowledger.ledger l where l.execution_id = v_owner and l.type = 'interrupt.resumed'
        and l.payload ->> 'id' = substr(interrupt, 38) and l.payload ->> 'requestId' = resume_request_id)) then
      perform flowledger.continue_with(v_owner, substr(interrupt, 38), payload, resume_request_id, actor, true);
      return flowledger.projected_record(continue_with.id, v_owner, substr(interrupt, 38));
    end if;
  elsif resume_request_id is not null then
    -- The ledger knows every answer; the row only the last, and none once the same interrupt waits again.
    select l.payload -> 'value' into v_value from flowledger.ledger l
    where l.execution_id = continue_with.id and l.type = 'interrupt.resumed'
      and l.payload ->> 'id' = interrupt and l.payload ->> 'requestId' = resume_request_id;
  end if;
  if v_value is not null then
    if v_value is distinct from coalesce(payload, 'null') then
      raise exception 'resumeRequestId % was used with another answer to interrupt % of execution %', resume_request_id, interrupt, continue_with.id
        using errcode = 'FL006', detail = resume_request_id, hint = 'use a new resumeRequestId for a new answer';
    end if;
    return flowledger.interrupt_record(continue_with.id, interrupt);
  end if;
  if v_closed is not null then
    e := flowledger.lock_open(continue_with.id, format('continueWith("%s")', interrupt));
  end if;
  if i.id is null or i.status <> 'pending' then
    raise exception 'interrupt % of execution % is not pending (%)', interrupt, continue_with.id, coalesce(i.status, 'unknown')
      using errcode = 'FL005', detail = coalesce(i.status, ''), hint = 'list the pending ones with getPendingInterrupts()';
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'interrupt.resumed', 'id', interrupt,
    'value', coalesce(payload, 'null'), 'requestId', resume_request_id, 'actor', actor)), notify);
  return flowledger.interrupt_record(e.id, interrupt);
end $$;

-- Records a correction. options: author, target, note, metadata, actor.
create or replace function flowledger.intervene(id uuid, payload jsonb, options jsonb default '{}', notify boolean default true) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions := flowledger.lock_open(intervene.id, 'intervene()');
  v_id text := flowledger.new_id()::text;
begin
  if (select l.payload -> 'settings' ->> 'interventionMode' from flowledger.ledger l where l.execution_id = e.id and l.seq = 1) is null then
    raise exception 'interventions of execution % are off', e.id
      using errcode = 'FL007', hint = 'create it with interventionMode "planned" or "auto"';
  end if;
  -- What the ledger cannot hold must not get in: the fold would stop there.
  if options ? 'metadata' and jsonb_typeof(options -> 'metadata') not in ('object', 'null') then
    raise exception 'metadata of an intervention is not an object' using errcode = 'FL008', hint = 'pass {"key": "value"}';
  elsif exists (select 1 from unnest(array['author', 'target', 'note']) o where jsonb_typeof(options -> o) not in ('string', 'null')) then
    raise exception 'author, target and note of an intervention are texts' using errcode = 'FL008', hint = 'pass them as JSON strings, or leave them out';
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'intervention.recorded', 'id', v_id, 'payload', coalesce(payload, 'null'),
    'target', options -> 'target', 'author', options -> 'author', 'note', options -> 'note', 'metadata', options -> 'metadata',
    'actor', coalesce(options -> 'actor', options -> 'author'))), notify);
  return (select v.record from flowledger.interventions v where v.execution_id = e.id and v.id = v_id);
end $$;

-- Says what became of an intervention. Marking again overwrites the consumer's mark.
create or replace function flowledger.mark_intervention_consumed(id uuid, intervention text, consumer text, status text default 'applied',
  note text default null, metadata jsonb default null, notify boolean default true) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions := flowledger.lock_open(mark_intervention_consumed.id, 'markInterventionConsumed()');
begin
  if coalesce(consumer, '') = '' or status is null or status not in ('applied', 'ignored') then
    raise exception 'status % of consumer % is not valid', quote_nullable(status), quote_nullable(consumer)
      using errcode = 'FL008', hint = 'name the consumer, and use applied or ignored';
  elsif jsonb_typeof(metadata) not in ('object', 'null') then
    raise exception 'metadata of a consumer is not an object' using errcode = 'FL008', hint = 'pass {"key": "value"}';
  end if;
  if not exists (select 1 from flowledger.interventions v where v.execution_id = e.id and v.id = intervention) then
    raise exception 'intervention % of execution % does not exist', intervention, e.id using errcode = 'FL008', hint = 'list them with getInterventions()';
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'intervention.consumed', 'id', intervention, 'consumer', consumer,
    'status', status, 'note', note, 'metadata', metadata)), notify);
  return (select v.record from flowledger.interventions v where v.execution_id = e.id and v.id = intervention);
end $$;

-- Takes nothing new from outside from now on. False when it was sealed before.
create or replace function flowledger.seal(id uuid, actor text default null, notify boolean default true) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions := flowledger.lock_open(seal.id, 'seal');
begin
  if e.sealed_at is not null then
    return false;
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'execution.sealed', 'actor', actor)), notify);
  return true;
end $$;

-- Asks for the close: sealed at once, closed when everything accepted has run. pending: 'reject' refuses while interrupts
-- wait, 'cancel' cancels them. Closing a closed execution changes nothing.
create or replace function flowledger.close(id uuid, reason text default 'manual', pending text default 'reject',
  actor text default null, notify boolean default true) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_pending text[];
  v_events jsonb := '[]';
begin
  if pending is null or pending not in ('reject', 'cancel') then
    raise exception 'pendingInterrupts % is not valid', quote_nullable(pending) using errcode = 'FL008', hint = 'use reject or cancel';
  end if;
  begin
    e := flowledger.lock_open(close.id, 'close');
  exception when sqlstate 'FL003' then
    return false;
  end;
  if e.pending_interrupts > 0 then
    v_pending := array(select i.id from flowledger.pending_on(e.id) i order by i.created_at);
    if pending = 'reject' then
      raise exception 'execution % cannot close while interrupts are pending: %', e.id, array_to_string(v_pending, ', ')
        using errcode = 'FL004', detail = to_json(v_pending)::text, hint = 'resume them, or close with pendingInterrupts: "cancel"';
    end if;
    select coalesce(jsonb_agg(jsonb_build_object('type', 'interrupt.cancelled', 'id', i.local_id, 'reason', close.reason)), '[]') into v_events
    from flowledger.pending_on(e.id) i where i.owner_id = e.id;
    select v_events || coalesce(jsonb_agg(jsonb_build_object('type', 'child.cancelled', 'child', c.id, 'reason', close.reason, 'actor', close.actor)), '[]')
    into v_events from flowledger.executions c
    where c.parent_id = e.id and c.pending_interrupts > 0 and c.closed_at is null and e.id = any(flowledger.visible_in(c.id));
    perform flowledger.cancel((v ->> 'child')::uuid, close.reason, close.actor) from jsonb_array_elements(v_events) v where v ->> 'type' = 'child.cancelled';
  end if;
  perform flowledger.accept(e, v_events || jsonb_build_array(jsonb_build_object(
    'type', 'execution.sealed', 'close', true, 'reason', close.reason, 'actor', actor)), notify);
  return true;
end $$;

-- Ends a start that nobody has claimed, and that nothing else has come in for: cancelled without a worker. False where that
-- is not so. The caller has the row's lock.
create or replace function flowledger.close_unclaimed(e flowledger.executions, p_reason text, p_actor text) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := clock_timestamp();
  v_reason text := coalesce(p_reason, 'cancelled');
begin
  if e.epoch > 0 or exists (select 1 from flowledger.ledger l where l.execution_id = e.id
      and l.type not in ('execution.created', 'execution.started', 'execution.rescheduled')) then
    return false;
  end if;
  insert into flowledger.ledger (execution_id, seq, epoch, at, type, actor, payload)
  values (e.id, e.seq + 1, 0, v_at, 'cancel.requested', p_actor, jsonb_build_object('reason', v_reason)),
    (e.id, e.seq + 2, 0, v_at, 'execution.closed', null, jsonb_build_object('outcome', 'cancelled', 'reason', v_reason));
  update flowledger.executions h
  set seq = e.seq + 2, sealed_at = v_at, closed_at = v_at, outcome = 'cancelled', close_reason = v_reason,
    -- Due until its parent has heard of it.
    wake_at = case when e.parent_id is not null and not flowledger.is_item(e.id) then v_at end,
    close_snapshot = coalesce((select l.payload -> 'state' from flowledger.ledger l where l.execution_id = e.id and l.seq = 1), '{}')
  where h.id = e.id;
  perform flowledger.extend_chain(array[e.id]);
  perform pg_notify(flowledger.channel(e.id), e.id::text);
  return true;
end $$;

-- Asks for the end of whatever runs. False when it had closed before.
create or replace function flowledger.cancel(id uuid, reason text default 'cancelled', actor text default null,
  notify boolean default true) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
begin
  begin
    e := flowledger.lock_open(cancel.id, 'cancel');
  exception when sqlstate 'FL003' then
    return false;
  end;
  if flowledger.close_unclaimed(e, reason, actor) then
    if e.parent_id is not null then
      perform flowledger.settle_families(array[e.id]);
    end if;
    return true;
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'cancel.requested', 'reason', reason, 'actor', actor)), notify);
  return true;
end $$;

create or replace function flowledger.discard_at(p_id uuid) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select 'epoch'::timestamptz + (l.payload -> 'settings' ->> 'discardAt')::float8 * interval '1 millisecond'
  from flowledger.ledger l where l.execution_id = p_id and l.seq = 1
$$;

-- The state of a background function's execution, in Defer's words. Started is what a worker has taken.
create or replace function flowledger.function_state(e flowledger.executions) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when e.outcome = 'completed' then 'succeed'
    when e.outcome = 'failed' then 'failed'
    when e.outcome is not null then case when e.close_reason = 'discarded' then 'discarded' when e.epoch = 0 then 'cancelled' else 'aborted' end
    when e.epoch = 0 then case when flowledger.discard_at(e.id) <= clock_timestamp() then 'discarded' else 'created' end
    when exists (select 1 from flowledger.ledger l where l.execution_id = e.id and l.type = 'cancel.requested') then 'aborting'
    else 'started' end
$$;

-- Cancels a function that has not started, with force also one that runs. Gives the state that it found, which says
-- whether that was allowed; null for an unknown id.
create or replace function flowledger.cancel_function(id uuid, force boolean default false, notify boolean default true) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_state text;
begin
  select * into e from flowledger.executions h where h.id = cancel_function.id for no key update;
  if not found then
    return null;
  end if;
  v_state := flowledger.function_state(e);
  if v_state = 'created' or v_state = 'started' and force then
    perform flowledger.cancel(e.id, case v_state when 'created' then 'cancelled' else 'aborted' end, null, notify);
  end if;
  return v_state;
end $$;

-- Moves a function that has not started to another time: p_at, else p_delay_ms from now. Gives the state that it found; only
-- "created" was moved. Whoever claims at the same moment waits for the row: one of the two wins.
create or replace function flowledger.reschedule_function(p_id uuid, p_at timestamptz, p_delay_ms float8 default 0) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_at timestamptz;
  v_due timestamptz;
  v_state text;
begin
  select * into e from flowledger.executions h where h.id = p_id for no key update;
  if not found then
    return null;
  end if;
  v_state := case when e.started_at is null and e.closed_at is null then 'not started' else flowledger.function_state(e) end;
  if v_state = 'created' then
    v_at := clock_timestamp();
    v_due := coalesce(p_at, v_at + p_delay_ms * interval '1 millisecond');
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, payload)
    values (e.id, e.seq + 1, 0, v_at, 'execution.rescheduled', jsonb_build_object('dueAt', flowledger.to_ms(v_due)));
    update flowledger.executions h
    set seq = e.seq + 1, wake_at = greatest(v_at, least(v_due, flowledger.discard_at(e.id)))
    where h.id = e.id;
    perform flowledger.add_jobs(array[e.id]);
  end if;
  return v_state;
end $$;

-- The sub-flow of an execution under a frame's id, which is its own; locked after its parent.
create or replace function flowledger.lock_frame(p_id uuid, p_frame uuid) returns flowledger.executions
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  c flowledger.executions;
begin
  select * into c from flowledger.executions h
  where h.id = p_frame and h.parent_id = p_id and p_id = any(flowledger.visible_in(h.id)) for no key update;
  if not found then
    raise exception 'execution % has no sub-flow %', p_id, p_frame using errcode = 'FL008', hint = 'list them with getSubFlowFrames()';
  end if;
  return c;
end $$;

-- Sends an event to a running sub-flow.
create or replace function flowledger.emit_to_sub_flow(id uuid, frame uuid, event text, payload jsonb default 'null', idempotency_key text default null,
  actor text default null, notify boolean default true, raw boolean default true) returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions := flowledger.lock_open(emit_to_sub_flow.id, format('"%s"', event));
  c flowledger.executions := flowledger.lock_frame(e.id, frame);
begin
  if c.closed_at is not null or exists (
    select 1 from flowledger.ledger l where l.execution_id = c.id and l.type = 'cancel.requested') then
    raise exception 'sub-flow % of execution % is not active (%)', c.id, e.id, coalesce(c.outcome, 'cancel requested')
      using errcode = 'FL008', hint = 'list the active ones with getSubFlowFrames()';
  end if;
  return flowledger.emit(c.id, event, payload, idempotency_key, actor, notify, raw);
end $$;

-- Cancels a running sub-flow: nothing is written back and nothing follows from it, and its parent goes on. False when it had
-- ended, or was being cancelled, before.
create or replace function flowledger.cancel_sub_flow(id uuid, frame uuid, reason text default 'sub_flow_cancelled', actor text default null,
  notify boolean default true) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  c flowledger.executions;
begin
  begin
    e := flowledger.lock_open(cancel_sub_flow.id, 'cancel');
  exception when sqlstate 'FL003' then
    perform flowledger.lock_frame(cancel_sub_flow.id, frame);
    return false;
  end;
  c := flowledger.lock_frame(e.id, frame);
  if c.closed_at is not null or exists (
    select 1 from flowledger.ledger l where l.execution_id = c.id and l.type = 'cancel.requested') then
    return false;
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'child.cancelled', 'child', c.id, 'reason', reason, 'actor', actor)), notify);
  return flowledger.cancel(c.id, reason, actor, notify);
end $$;

create trigger ledger_append_only before update or delete on flowledger.ledger
  for each row execute function flowledger.refuse_change();
create trigger ledger_no_truncate before truncate on flowledger.ledger
  for each statement execute function flowledger.refuse_change();
alter table flowledger.ledger enable always trigger ledger_append_only;
alter table flowledger.ledger enable always trigger ledger_no_truncate;
create trigger chain_append_only before update or delete on flowledger.chain
  for each row execute function flowledger.refuse_change();
create trigger chain_no_truncate before truncate on flowledger.chain
  for each statement execute function flowledger.refuse_change();
alter table flowledger.chain enable always trigger chain_append_only;
alter table flowledger.chain enable always trigger chain_no_truncate;

-- Room for heap-only updates beside the row, and vacuum before the dead versions pile up.
alter table flowledger.executions set (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);

select flowledger.adopt();
