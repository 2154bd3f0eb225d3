-- Workers: who lives, what the dead had, what lost its job; and whether this database is the original.

-- Whether the session that a worker registered with is still there. Only its own lock counts, on a key that it drew at random in
-- that session: what anybody else locks decides nothing.
create or replace function flowledger.has_session(p_backend int, p_key bigint) returns boolean
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pg_locks l
    where l.locktype = 'advisory' and l.pid = p_backend and l.granted and l.objsubid = 1
      and l.database = (select d.oid from pg_database d where d.datname = current_database())
      and l.classid = ((p_key >> 32) & 4294967295)::oid and l.objid = (p_key & 4294967295)::oid)
$$;

-- A key of this session's own, locked as long as the session lives. The setting tells a session that still has it from one that
-- a pooler or a reconnect put in its place.
create or replace function flowledger.hold_session() returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key bigint;
begin
  loop
    v_key := ('x' || encode(substring(uuid_send(gen_random_uuid()) from 1 for 8), 'hex'))::bit(64)::bigint;
    exit when pg_try_advisory_lock(v_key);
  end loop;
  perform set_config('flowledger' || '.session_key', v_key::text, false);
  return v_key;
end $$;

-- Registers a worker, in the session that will speak for it. p_fingerprints: the version of each flow, null where it is not known; p_slots:
-- how many executions it advances at once.
create or replace function flowledger.register_worker(p_id uuid, p_host text, p_pid int, p_flows text[], p_fingerprints text[], p_schedules jsonb, p_pool text, p_slots int) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into flowledger.workers (id, host, pid, flows, fingerprints, slots, schedules, pool, role, backend_pid, session_key, started_at, heartbeat_at)
  values (p_id, p_host, p_pid, p_flows, p_fingerprints, p_slots, p_schedules, p_pool, flowledger.caller(), pg_backend_pid(), flowledger.hold_session(),
    flowledger.wall_clock(), flowledger.wall_clock());
  select flowledger.note_removed_schedules()
$$;

-- The forms of releases before.
create or replace function flowledger.register_worker(p_id uuid, p_host text, p_pid int, p_flows text[], p_fingerprints text[], p_schedules jsonb, p_pool text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$ select flowledger.register_worker(p_id, p_host, p_pid, p_flows, p_fingerprints, p_schedules, p_pool, null) $$;
create or replace function flowledger.register_worker(p_id uuid, p_host text, p_pid int, p_flows text[], p_schedules jsonb, p_pool text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$ select flowledger.register_worker(p_id, p_host, p_pid, p_flows, null, p_schedules, p_pool, null) $$;

-- Whether a worker serves the flow in another version than these.
create or replace function flowledger.has_other_version(p_flow text, p_fingerprints text[]) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from flowledger.workers w where p_flow = any(w.flows)
      and not coalesce(w.fingerprints[array_position(w.flows, p_flow)] = any(p_fingerprints), false))
$$;

-- The versions that were tried in vain since a worker could last go on; null where it is not blocked.
create or replace function flowledger.tried_versions(p_id uuid) returns text[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case when (
      select l.type = 'execution.blocked' from flowledger.ledger l
      where l.execution_id = p_id and l.type in ('execution.claimed', 'execution.blocked') order by l.seq desc limit 1)
    then array(
      select l.payload ->> 'fingerprint' from flowledger.ledger l
      where l.execution_id = p_id and l.type = 'execution.blocked' and l.seq > coalesce((
        -- A claim that is blocked has that as its next event.
        select max(c.seq) from flowledger.ledger c where c.execution_id = p_id and c.type = 'execution.claimed' and not exists (
          select from flowledger.ledger n where n.execution_id = p_id and n.seq = c.seq + 1 and n.type = 'execution.blocked')), 0)) end
$$;

-- Wakes what is blocked and was not tried with this version of its flow.
create or replace function flowledger.wake_blocked(p_flows text[], p_fingerprints text[]) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  select flowledger.wake(array(
    select e.id from unnest(p_flows, p_fingerprints) v(flow, fingerprint)
    join flowledger.executions e on e.flow = v.flow and e.status in ('created', 'running', 'waiting', 'parked')
    where e.closed_at is null and e.owner is null and coalesce(e.wake_at, 'infinity') > flowledger.now()
      and not v.fingerprint = any(flowledger.tried_versions(e.id))))
$$;

-- Takes a worker that stops out of the fleet.
create or replace function flowledger.leave_worker(p_id uuid) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  delete from flowledger.workers w where w.id = p_id;
  select flowledger.note_removed_schedules()
$$;

-- A sign of life. False when the others have given this worker up: its executions are theirs now.
create or replace function flowledger.heartbeat(p_id uuid) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update flowledger.workers w set heartbeat_at = flowledger.wall_clock()
  where w.id = p_id and w.backend_pid = pg_backend_pid() and w.session_key::text = current_setting('flowledger' || '.session_key', true);
  if found then
    return true;
  end if;
  update flowledger.workers w
  set heartbeat_at = flowledger.wall_clock(), backend_pid = pg_backend_pid(), session_key = flowledger.hold_session()
  where w.id = p_id;
  return found;
end $$;

-- Frees what dead workers own: those whose session has ended and who missed a beat, and those silent for p_silent_ms. A session
-- may end without its process: a worker that lives registers another with its next beat. After a restart of Postgres all do, so
-- nobody is given up for that.
create or replace function flowledger.reap(p_missed_ms float8, p_silent_ms float8) returns table (reaped int, freed int)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_real timestamptz := flowledger.wall_clock();
  v_at timestamptz := flowledger.now();
  v_dead uuid[] := array(
    select w.id from flowledger.workers w
    where w.heartbeat_at < v_real - flowledger.ms(p_missed_ms)
      and (w.heartbeat_at < v_real - flowledger.ms(p_silent_ms)
        or pg_postmaster_start_time() < v_real - flowledger.ms(p_silent_ms) and not flowledger.has_session(w.backend_pid, w.session_key)));
  v_pools text[];
  v_freed uuid[];
begin
  reaped := 0; freed := 0;
  if cardinality(v_dead) > 0 then
    -- One of the fleet takes each; one that beats again meanwhile is alive.
    with gone as (
      delete from flowledger.workers w using (
        select x.id from flowledger.workers x where x.id = any(v_dead) and x.heartbeat_at < v_real - flowledger.ms(p_missed_ms) for update skip locked) d
      where w.id = d.id returning w.id, w.pool
    ) select array_agg(gone.id), array_remove(array_agg(gone.pool), null) into v_dead, v_pools from gone;
    with free as (
      update flowledger.executions e
      set owner = null, takeovers = e.takeovers + 1, wake_at = v_at
      where e.wake_at is not null and e.owner = any(v_dead)
      returning e.id
    ) select array_agg(free.id) into v_freed from free;
    perform flowledger.note_removed_schedules();
    perform flowledger_jobs.force_unlock_workers(v_pools);
    if v_freed is not null then
      perform flowledger.add_jobs(v_freed);
    end if;
  end if;
  reaped := coalesce(cardinality(v_dead), 0);
  freed := coalesce(cardinality(v_freed), 0);
  return next;
end $$;

-- Gives a new job to what has been due for p_after_ms, has no live owner, and no job of its flow waits: its hint was lost.
-- wake_at moves on, so a sweep repeats itself at most once per p_after_ms.
create or replace function flowledger.sweep(p_after_ms float8) returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
-- Its plans are kept from when there was nothing to read.
set enable_seqscan = off
as $$
declare
  v_at timestamptz := flowledger.now();
  v_swept uuid[];
  v_paused text[];
  v_told text[];
begin
  -- First: it waits for the locks of flows, and has none yet.
  perform flowledger.discard_overdue();
  v_paused := flowledger.paused_flows(array(select p.flow from flowledger.flow_pauses p));
  v_told := array(
    select t.identifier from flowledger_jobs._private_tasks t
    where exists (
      select from flowledger_jobs._private_jobs j where j.task_id = t.id and j.is_available and j.run_at <= flowledger.wall_clock()));
  with lost as (
    select e.id from flowledger.executions e
    where e.wake_at < v_at - flowledger.ms(p_after_ms) and e.closed_at is null
      and (e.owner is null or not exists (select 1 from flowledger.workers w where w.id = e.owner))
      -- A queued execution waits for a slot, not for a job. The slot is read by its key: a join may read all slots for each execution.
      and (select s.acquired from flowledger.slots s where s.execution_id = e.id) is not false
      and (not e.flow = any(v_paused) or e.epoch > 0 and flowledger.is_ending(e))
      and not 'flowledger:' || e.flow = any(v_told)
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
  perform flowledger.sweep_slots();
  return coalesce(cardinality(v_swept), 0);
end $$;

-- Says that this database is the original: by `migrate`, and by the owner of a copy whose open executions shall go on in it.
create or replace function flowledger.accept_identity() returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into flowledger.database_identity (at, by, system, database_oid)
  select flowledger.wall_clock(), flowledger.caller(), s.system_identifier, d.oid
  from pg_control_system() s, pg_database d where d.datname = current_database()
$$;

-- False in a copy: restored elsewhere, cloned, or upgraded into another cluster.
create or replace function flowledger.is_original() returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select i.system = s.system_identifier::text and i.database_oid = d.oid
  from (select * from flowledger.database_identity order by at desc limit 1) i, pg_control_system() s, pg_database d
  where d.datname = current_database()
$$;
