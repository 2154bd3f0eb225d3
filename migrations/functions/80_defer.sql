-- Background functions: their states in Defer's words, and the commands that only they know.

-- Was it closed because its time was over? Anybody may give the reason, but nobody else is the timer.
create or replace function flowledger.is_discarded(e flowledger.executions) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select e.close_reason = 'discarded'
    and exists (select from flowledger.ledger l where l.execution_id = e.id and l.type = 'cancel.requested' and l.actor = 'timer')
$$;

-- The state of a background function's execution, in Defer's words. Started is what a worker has taken.
create or replace function flowledger.function_state(e flowledger.executions) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when e.outcome = 'completed' then 'succeed'
    when e.outcome = 'failed' then 'failed'
    when e.outcome is not null then case when flowledger.is_discarded(e) then 'discarded' when e.epoch = 0 then 'cancelled' else 'aborted' end
    when e.epoch = 0 then case when e.discard_at <= flowledger.now() then 'discarded' else 'created' end
    when flowledger.is_cancelling(e.id) then 'aborting'
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
  if not flowledger.is_reachable(cancel_function.id) then
    return null;
  end if;
  e := flowledger.lock_execution(cancel_function.id);
  if e.id is null then
    return null;
  end if;
  v_state := flowledger.function_state(e);
  if v_state = 'created' or v_state = 'started' and force then
    perform flowledger.request_cancel(e.id, case v_state when 'created' then 'cancelled' else 'aborted' end, null, notify);
  end if;
  return v_state;
end $$;

-- Moves a function that has not started to another time: p_at, else p_delay_ms from now. Gives the state that it found; only
-- "created" was moved. Whoever claims at the same moment waits for the row: one of the two wins.
create or replace function flowledger.reschedule_function(p_id uuid, p_at timestamptz, p_delay_ms float8 default 0) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $$
declare
  e flowledger.executions;
  v_at timestamptz;
  v_due timestamptz;
  v_state text;
begin
  -- As `parseMoment` and `parseDuration` of the library: a moment from 1970 to 9999, or up to a hundred years from now.
  if p_at not between '1970-01-01T00:00:00Z' and '9999-12-31T00:00:00Z' or p_at is null and p_delay_ms is null or p_delay_ms not between 0 and 3155760000000 then
    raise exception '% is not a time to move a function to', coalesce(case when p_delay_ms between 0 and 3155760000000 then p_at::text end, p_delay_ms || ' ms', 'null')
      using errcode = 'FL008', hint = 'use a moment from 1970 to 9999, or milliseconds up to a hundred years';
  end if;
  if not flowledger.is_reachable(p_id) then
    return null;
  end if;
  e := flowledger.lock_execution(p_id);
  if e.id is null then
    return null;
  end if;
  v_state := case when e.started_at is null and e.closed_at is null then 'not started' else flowledger.function_state(e) end;
  if v_state = 'created' then
    v_at := flowledger.now();
    v_due := coalesce(p_at, v_at + flowledger.ms(p_delay_ms));
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, role, payload)
    values (e.id, e.seq + 1, 0, v_at, 'execution.rescheduled', flowledger.caller(), jsonb_build_object('dueAt', flowledger.to_ms(v_due)));
    update flowledger.executions h
    set seq = e.seq + 1, due_at = v_due, wake_at = greatest(v_at, least(v_due, e.discard_at))
    where h.id = e.id;
    perform flowledger.add_jobs(array[e.id]);
  end if;
  return v_state;
end $$;
