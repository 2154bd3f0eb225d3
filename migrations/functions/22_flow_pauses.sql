-- Flows that are paused: workers leave their executions alone, but for those that end, and starts wait or are refused.

-- How a flow is paused, by the last row of it; no row where it is not.
create or replace function flowledger.flow_pause_of(p_flow text) returns setof flowledger.flow_pauses
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select p.* from (select x.* from flowledger.flow_pauses x where x.flow = p_flow order by x.number desc limit 1) p where p.intake is not null
$$;

-- Which of these flows are paused.
create or replace function flowledger.paused_flows(p_flows text[]) returns text[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select array(select distinct f from unnest(p_flows) f where exists (select from flowledger.flow_pause_of(f)))
$$;

-- When the timeout of an execution that a worker has had is over, as `deadlineOf` of the library has it; null is never.
create or replace function flowledger.deadline_of(e flowledger.executions) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select greatest(e.started_at, e.due_at, l.at) + flowledger.ms((c.payload -> 'settings' ->> 'timeoutMs')::float8)
  from flowledger.ledger c
  cross join lateral (
    select x.at from flowledger.ledger x
    where x.execution_id = e.id and x.type = 'execution.claimed' and x.seq > coalesce((
      select max(o.seq) from flowledger.ledger o where o.execution_id = e.id and o.type = 'execution.copied' and o.payload ->> 'id' is null), 0)
    order by x.seq limit 1) l
  where c.execution_id = e.id and c.seq = 1 and e.epoch > 0 and e.started_at is not null and c.payload -> 'settings' ? 'timeoutMs'
$$;

-- Does it end whatever is paused: was a cancel asked for, or is its timeout over?
create or replace function flowledger.is_ending(e flowledger.executions) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select from flowledger.ledger l where l.execution_id = e.id and l.type = 'cancel.requested' and l.payload ->> 'id' is null)
    or coalesce(flowledger.deadline_of(e) <= flowledger.now(), false)
$$;

-- The executions of these that a worker may take: all but those of paused flows that do not end. Those have their jobs again when the flow goes on, and
-- one when their timeout is over.
create or replace function flowledger.claimable(p_ids uuid[]) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_paused text[] := flowledger.paused_flows(array(select distinct e.flow from flowledger.executions e where e.id = any(p_ids)));
  v_held uuid[];
begin
  if v_paused = '{}' then
    return p_ids;
  end if;
  v_held := array(
    select e.id from flowledger.executions e
    where e.id = any(p_ids) and e.flow = any(v_paused) and not (e.epoch > 0 and flowledger.is_ending(e)));
  perform flowledger_jobs.add_jobs(array(
    select row('flowledger:' || d.flow, json_agg(d.id), null, d.at - flowledger.clock_offset(), null, null, d.priority, null)::flowledger_jobs.job_spec
    from (
      select e.id, e.flow, e.priority, flowledger.deadline_of(e) as at from flowledger.executions e
      where e.id = any(v_held) and e.owner is null and e.closed_at is null and e.epoch > 0) d
    where d.at is not null group by d.flow, d.priority, d.at));
  return array(select i from unnest(p_ids) i where not i = any(v_held));
end $$;

-- Refuses starts of flows that are paused and take none.
create or replace function flowledger.check_intake(p_flows text[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  p record;
begin
  for p in select x.* from (select distinct f from unnest(p_flows) f order by f) d cross join lateral flowledger.flow_pause_of(d.f) x where x.intake = 'refuse' loop
    raise exception 'flow "%" is paused since % by "%" (%), and takes no starts', p.flow, flowledger.iso(p.at), p.actor, p.reason
      using errcode = 'FL014', hint = 'start it again when it goes on: unpauseFlow() lets it',
        detail = jsonb_build_object('flow', p.flow, 'since', flowledger.iso(p.at), 'actor', p.actor, 'reason', p.reason)::text;
  end loop;
end $$;

-- Refuses to claim what is new in the statement that makes it where its flow is paused; the caller starts it unclaimed then.
create or replace function flowledger.check_claimed(p_flows text[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_paused text[] := flowledger.paused_flows(p_flows);
begin
  if v_paused <> '{}' then
    raise exception 'flow "%" is paused, and nothing of it is claimed', v_paused[1] using errcode = 'FL015', hint = 'start it without a claim';
  end if;
end $$;

-- Refuses the name of a flow that nobody knows here: a pause of it would hold nothing, and a bulk over it do nothing.
create or replace function flowledger.check_flow(p_flow text, p_what text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_known text[];
begin
  if p_flow is null or p_flow !~ '^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$' then
    raise exception 'flow name % of % is not valid', quote_nullable(left(p_flow, 40)), p_what
      using errcode = 'FL008', hint = 'use 1 to 100 letters, digits and . _ : - that begin with a letter or digit';
  elsif exists (select from flowledger.executions e where e.flow = p_flow) then
    return;
  end if;
  v_known := array(select d.flow from flowledger.definitions d union select unnest(w.flows) from flowledger.workers w order by 1);
  if v_known <> '{}' and not p_flow = any(v_known) then
    raise exception 'no flow named "%" is known here', p_flow
      using errcode = 'FL008', hint = coalesce('did you mean "' || flowledger.nearest(p_flow, v_known[1:200]) || '"?', 'known are ' || array_to_string(v_known[1:20], ', '));
  end if;
end $$;

-- Starts no chunk of any execution of a flow any more; what runs reaches its end, events and answers are kept, and timeouts go on
-- counting. options: intake ("hold", the default: starts are accepted and wait; "refuse": they are refused), actor, reason. False where it
-- is paused that way already.
create or replace function flowledger.pause_flow(flow text, options jsonb) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_intake text := coalesce(options ->> 'intake', 'hold');
begin
  perform flowledger.check_operator(options, 'pauseFlow()', '{intake}');
  if v_intake not in ('hold', 'refuse') or jsonb_typeof(coalesce(options -> 'intake', '"hold"')) <> 'string' then
    raise exception 'intake of pauseFlow() must be "hold" or "refuse", got %', left((options -> 'intake')::text, 40)
      using errcode = 'FL008', hint = 'with "hold" starts wait, with "refuse" they are refused';
  end if;
  perform flowledger.check_flow(pause_flow.flow, 'pauseFlow()');
  return flowledger.note_flow_pause(pause_flow.flow, v_intake, options);
end $$;

-- Lets a paused flow go on, with all that waited. options: actor, reason. False where it is not paused.
create or replace function flowledger.unpause_flow(flow text, options jsonb) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform flowledger.check_operator(options, 'unpauseFlow()', '{}');
  perform flowledger.check_flow(unpause_flow.flow, 'unpauseFlow()');
  if not flowledger.note_flow_pause(unpause_flow.flow, null, options) then
    return false;
  end if;
  -- All at once: up to 25 executions have one job.
  perform flowledger.add_jobs(array(
    select e.id from flowledger.executions e
    where e.flow = unpause_flow.flow and e.wake_at <= flowledger.now() and e.owner is null and e.closed_at is null));
  return true;
end $$;

-- One more row, and every worker hears that there is one: as a wake-up of nobody. False where it says nothing new.
create or replace function flowledger.note_flow_pause(p_flow text, p_intake text, p_options jsonb) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  c_nobody constant uuid := '00000000-0000-0000-0000-000000000000';
begin
  perform flowledger.lock_table('flow_pauses', format('the pause of flow "%s"', p_flow));
  if (select p.intake from flowledger.flow_pause_of(p_flow) p) is not distinct from p_intake then
    return false;
  end if;
  insert into flowledger.flow_pauses (number, flow, intake, at, by, actor, reason)
  values (coalesce((select max(p.number) from flowledger.flow_pauses p), 0) + 1, p_flow, p_intake, flowledger.now(), flowledger.caller(),
    p_options ->> 'actor', p_options ->> 'reason');
  perform pg_notify(flowledger.channel(c_nobody), c_nobody::text);
  return true;
end $$;
