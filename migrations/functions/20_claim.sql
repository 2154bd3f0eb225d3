-- A worker takes what is due and free; what is parked and has something to do is woken.

-- Events after p_after, each as [seq, epoch, at, type, dispatch, chunk, actor, payload]. Volatile, because `append` asks for
-- events that were committed after its own snapshot was taken and before it had the row's lock.
create or replace function flowledger.events(p_id uuid, p_after int, p_until int default 2147483647) returns json
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(json_agg(json_build_array(
      l.seq, l.epoch, (extract(epoch from l.at) * 1000)::float8, l.type, l.dispatch, l.chunk, l.actor, l.payload) order by l.seq), '[]')
    from flowledger.ledger l
    where l.execution_id = p_id and l.seq > p_after and l.seq <= p_until);
end $$;

-- The last event of a page that begins after p_after: so many events, or so many bytes of JSON, but one event at least. What follows
-- the page is not read.
create or replace function flowledger.page_end(p_id uuid, p_after int, p_events int, p_bytes bigint) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  l record;
  v_left bigint := p_bytes;
  v_end int := p_after;
begin
  for l in
    select r.seq, r.payload, pg_column_size(r.payload) as bytes from flowledger.ledger r
    where r.execution_id = p_id and r.seq > p_after order by r.seq limit p_events
  loop
    -- Short payloads are as long as they are stored.
    v_left := v_left - coalesce(case when l.bytes > 1000 then octet_length(l.payload::text) else l.bytes end, 0);
    exit when v_left < 0 and v_end > p_after;
    v_end := l.seq;
  end loop;
  return v_end;
end $$;

-- Takes executions that are due and free: a higher epoch, a fresh token (p_token, random per call). What nobody has taken in time
-- is discarded instead. A row that somebody has locked is waited for, not for long: then a job of its own looks again.
-- p_suspects: also one of those that lost several workers.
create or replace function flowledger.claim(p_worker uuid, p_token uuid, p_ids uuid[], p_version int, p_suspects boolean)
returns table (id uuid, epoch int, token uuid, seq int, flow text, fingerprint text, takeovers int, now_ms float8, items float8, snapshot jsonb, events json)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_at timestamptz := flowledger.now();
  v_free uuid[];
begin
  -- Where no flow was ever paused, that is all it costs.
  if exists (select from flowledger.flow_pauses) then
    p_ids := flowledger.claimable(p_ids);
  end if;
  -- Not "wake_at <= v_at": the index of what is due is no way to find a few ids.
  v_free := array(
    select e.id from flowledger.executions e
    where e.id = any(p_ids) and e.owner is null and e.closed_at is null and coalesce(e.wake_at, 'infinity') <= v_at
      and (e.epoch > 0 or coalesce(e.discard_at, 'infinity') > v_at)
      -- Executions that lost several workers are claimed one at a time, so that only the one that takes its worker down is counted again.
      and (e.takeovers < 2 or p_suspects and e.id = (
        select s.id from flowledger.executions s
        where s.id = any(p_ids) and s.takeovers >= 2 and s.owner is null and s.closed_at is null and coalesce(s.wake_at, 'infinity') <= v_at
        order by s.id limit 1))
    order by e.id for no key update skip locked);
  if cardinality(v_free) < cardinality(p_ids) then
    perform flowledger.renew_jobs(p_ids);
    perform flowledger.discard(p_ids);
    -- The session that has one locked may leave no trace: its command is refused or rolled back, or found the execution due already.
    begin
      v_free := v_free || array(
        select e.id from flowledger.executions e
        where e.id = any(p_ids) and not e.id = any(v_free) and e.owner is null and e.closed_at is null and coalesce(e.wake_at, 'infinity') <= v_at and e.takeovers < 2
          and (e.epoch > 0 or coalesce(e.discard_at, 'infinity') > v_at)
        order by e.id for no key update);
    exception when lock_not_available then
      perform flowledger_jobs.add_jobs(array(
        select row('flowledger:' || e.flow, json_agg(e.id), null, flowledger.wall_clock() + interval '500 milliseconds', null, null, e.priority, null)::flowledger_jobs.job_spec
        from flowledger.executions e
        where e.id = any(p_ids) and not e.id = any(v_free) and e.owner is null and e.closed_at is null and coalesce(e.wake_at, 'infinity') <= v_at and e.takeovers < 2
          and (e.epoch > 0 or coalesce(e.discard_at, 'infinity') > v_at)
        group by e.flow, e.priority));
    end;
  end if;
  return query
  with claimed as (
    update flowledger.executions e
    -- An execution that a worker has taken is never discarded.
    set owner = p_worker, epoch = e.epoch + 1, lease_token = p_token, commit_no = 0, stream_no = 0, discard_at = null
    where e.id = any(v_free)
    returning e.id, e.epoch, e.lease_token, e.seq, e.flow, e.fingerprint, e.takeovers, e.stream_seq
  )
  select c.id, c.epoch, c.lease_token, c.seq, c.flow, c.fingerprint, c.takeovers::int, flowledger.to_ms(v_at), c.stream_seq::float8, s.state,
    (select json_agg(json_build_array(
        l.seq, l.epoch, (extract(epoch from l.at) * 1000)::float8, l.type, l.dispatch, l.chunk, l.actor, l.payload) order by l.seq)
      from flowledger.ledger l where l.execution_id = c.id and l.seq > coalesce(s.seq, 0)
        and l.seq <= page.until)
  from claimed c
  left join flowledger.snapshots s on s.execution_id = c.id and s.version = p_version
  -- One page: what has fewer events has no more than that. The rest is read once it is claimed. Asked once per execution, not once per event.
  cross join lateral (
    select case when c.seq - coalesce(s.seq, 0) > 16 then flowledger.page_end(c.id, coalesce(s.seq, 0), 2147483647, 16777216) else c.seq end as until
    offset 0) page;
end $$;

-- Claims an execution in the statement of a command to it (p_answered comes after that), whose `fl.told` names it; what cannot be claimed gets its job.
create or replace function flowledger.claim_told(p_answered boolean, p_worker uuid, p_token uuid, p_id uuid, p_version int)
returns table (id uuid, epoch int, token uuid, seq int, flow text, fingerprint text, takeovers int, now_ms float8, items float8, snapshot jsonb, events json)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from flowledger.executions e where e.id = p_id and e.owner is null and e.closed_at is null and e.wake_at <= flowledger.now()) then
    return query select * from flowledger.claim(p_worker, p_token, array[p_id], p_version, false);
    if found then
      return;
    end if;
  end if;
  perform flowledger.add_jobs(array(select e.id from flowledger.executions e where e.id = p_id and e.owner is null and e.wake_at is not null));
end $$;

-- A job came before its time, because the timer of its execution had moved: it gets another one. A row that somebody has locked
-- is about to change anyway.
create or replace function flowledger.renew_jobs(p_ids uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_at timestamptz := flowledger.now();
  v_early uuid[] := array(
    select e.id from flowledger.executions e
    where e.id = any(p_ids) and e.owner is null and e.closed_at is null and e.wake_at > v_at and e.job_at <= v_at
    order by e.id for no key update skip locked);
begin
  if v_early <> '{}' then
    perform flowledger.add_jobs(v_early);
  end if;
end $$;

-- Frees what a claim took whose answer was lost: of these executions, and of those that hold slots of these flows, what has the
-- claim's token. All of them get a job: theirs are done. Says how many it freed. p_begun: an owner was lost in the middle of what
-- it ran, which the next one takes up at once, whatever else that waits for.
create or replace function flowledger.free_claim(p_token uuid, p_ids uuid[], p_flows text[], p_begun boolean) returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_freed uuid[];
begin
  with locked as materialized (
    select e.id, e.lease_token, e.owner from flowledger.executions e
    where e.id = any(p_ids || array(select s.execution_id from flowledger.slots s where s.flow = any(p_flows) and s.acquired))
    order by e.id for no key update
  ), freed as (
    update flowledger.executions e set owner = null, wake_at = flowledger.now(), takeovers = e.takeovers + case when p_begun then 1 else 0 end
    from locked where e.id = locked.id and locked.lease_token = p_token and locked.owner is not null
    returning e.id
  ) select coalesce(array_agg(freed.id), '{}') into v_freed from freed;
  perform flowledger.add_jobs(p_ids || array(select f.id from unnest(v_freed) f(id) where not f.id = any(p_ids)));
  return cardinality(v_freed);
end $$;

-- As workers of the release before call it.
create or replace function flowledger.free_claim(p_token uuid, p_ids uuid[], p_flows text[]) returns int
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select flowledger.free_claim(p_token, p_ids, p_flows, false) $$;

-- Wakes executions that are parked because something they wait for has happened elsewhere. One that is owned is left alone,
-- without its lock: an owner that is just giving it back looks once more afterwards.
create or replace function flowledger.wake(p_ids uuid[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := flowledger.now();
  v_woken uuid[];
begin
  with parked as materialized (
    select e.id from flowledger.executions e
    where e.id = any(p_ids) and e.owner is null and e.closed_at is null and coalesce(e.wake_at, 'infinity') > v_at
    order by e.id for no key update
  ), woken as (
    update flowledger.executions e set wake_at = v_at from parked where e.id = parked.id returning e.id
  )
  select array_agg(w.id) into v_woken from woken w;
  if v_woken is not null then
    perform flowledger.add_jobs(v_woken);
  end if;
end $$;
