-- A round of a bulk, for all of its targets at once: each is checked on its own, and what they take is written together.

-- The events of an operator's command to an open execution that the caller has locked: those that it appends, and nothing else;
-- null where it does more, or would be refused for the state that the execution is in. Refuses what its command would.
create or replace function flowledger.operator_events(e flowledger.executions, p_action text, p_command jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_found jsonb;
begin
  case p_action
  when 'retry' then
    return flowledger.retry_events(flowledger.retried_of(e, p_command), p_command);
  when 'skip' then
    v_found := flowledger.skipped_of(e, p_command, true);
    return case when not v_found ? 'item' then flowledger.skip_events(v_found, p_command) end;
  when 'pause' then
    return case when e.sealed_at is null and coalesce(flowledger.moment_of(nullif(p_command -> 'until', 'null')) > flowledger.now(), true)
      then flowledger.pause_events('execution.paused', p_command) end;
  when 'unpause' then
    -- The caller has seen that it is paused.
    return flowledger.pause_events('execution.unpaused', p_command);
  when 'cancel' then
    -- An execution that nobody has claimed ends here and now, and one that its flow's pause holds needs a job.
    return case when e.epoch > 0 and not exists (select from flowledger.flow_pause_of(e.flow))
      then jsonb_build_array(flowledger.cancel_event(p_command)) end;
  else
    return null;
  end case;
end $$;

-- Appends what operators' commands came to, to executions that the caller has locked, as `accept` does to one of them. They neither start
-- nor seal it.
--   p_events   the events of each, in the order of the ids
create or replace function flowledger.accept_all(p_ids uuid[], p_events jsonb[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_at timestamptz := flowledger.now();
  v_role text := flowledger.caller();
  v_due uuid[];
  v_chained uuid[];
  v_ids uuid[];
  v_seqs int[];
begin
  with target as materialized (
    select e.id, e.seq, e.epoch, e.owner, e.wake_at, w.events,
      flowledger.wake_after(w.events, v_at, e.due_at, e.started_at, e.epoch) as due,
      w.events @? '$[*].type ? (@ starts with "inter" || @ == "chunk.skipped")' as is_shown,
      w.events @? '$[*].type ? (@ starts with "inter" || @ starts with "chunk." || @ starts with "execution.")' as is_chained
    from unnest(p_ids, p_events) w(id, events) join flowledger.executions e on e.id = w.id
  ), written as (
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, dispatch, chunk, actor, role, payload)
    select t.id, t.seq + v.ord, t.epoch, v_at, v.type, v.dispatch, v.chunk, v.actor, v_role, v.payload
    from target t cross join lateral flowledger.ledger_rows(t.events) v
  ), moved as (
    update flowledger.executions h
    set seq = t.seq + jsonb_array_length(t.events), parked = h.parked - flowledger.retried_in(t.events),
      wake_at = case when h.owner is null then least(h.wake_at, t.due) else h.wake_at end
    from target t where h.id = t.id
  )
  select array_agg(t.id) filter (where t.owner is null and t.due < coalesce(t.wake_at, 'infinity')), array_agg(t.id) filter (where t.is_chained),
    array_agg(t.id) filter (where t.is_shown), array_agg(t.seq) filter (where t.is_shown)
  into v_due, v_chained, v_ids, v_seqs from target t;
  perform flowledger.project(s.id, s.seq + 1) from unnest(v_ids, v_seqs) s(id, seq);
  if v_chained is not null then
    perform flowledger.extend_chain(v_chained);
  end if;
  if v_due is not null then
    perform flowledger.add_jobs(v_due);
  end if;
  -- A message has less than 8000 bytes.
  perform pg_notify(c.channel, c.ids)
  from (
    select n.channel, string_agg(n.id::text, ' ') as ids
    from (select x.id, flowledger.channel(x.id) as channel, (row_number() over (partition by flowledger.channel(x.id)) - 1) / 200 as part from unnest(p_ids) x(id)) n
    group by n.channel, n.part) c;
end $$;

-- Gives those of a round's targets, which the caller has locked, their command whose command only appends events. Each is checked on its
-- own; what all of them take is written at once, or nothing is. Gives what became of those.
create or replace function flowledger.run_together(b flowledger.bulks, p_command jsonb, p_cursor int, p_free uuid[], p_at timestamptz)
returns flowledger.bulk_results[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  t record;
  v_events jsonb;
  v_ids uuid[] := '{}';
  v_all jsonb[] := '{}';
  v_row flowledger.bulk_results;
  v_rows flowledger.bulk_results[] := '{}';
begin
  for t in
    select s.number, e as execution, e.id
    from flowledger.bulk_targets s join flowledger.executions e on e.id = s.target_id
    where s.execution_id = b.execution_id and s.number > p_cursor and s.target_id = any(p_free) order by s.number
  loop
    v_row := row(b.execution_id, t.number, 'done', p_at, null, null, null, null);
    begin
      v_row.message := flowledger.bulk_skips(b.action, t.id, true, (t.execution).closed_at, (t.execution).parked);
      if v_row.message is not null then
        v_row.result := 'skipped';
      else
        v_events := flowledger.operator_events(t.execution, b.action, p_command);
        continue when v_events is null;
        v_ids := v_ids || t.id;
        v_all := v_all || v_events;
      end if;
    exception
      when deadlock_detected or serialization_failure or lock_not_available or sqlstate 'FL011' then
        continue;
      when others then
        get stacked diagnostics v_row.code = returned_sqlstate, v_row.message = message_text, v_row.hint = pg_exception_hint;
        v_row.result := 'failed';
    end;
    v_rows := v_rows || v_row;
  end loop;
  if v_ids <> '{}' then
    perform flowledger.accept_all(v_ids, v_all);
  end if;
  return v_rows;
exception when others then
  -- One of them, or a lock that was not to be had: told apart one by one.
  return '{}';
end $$;
