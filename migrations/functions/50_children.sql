-- Parents and children: who hears of whose end, and what a sub-flow shows in the executions above it.

-- Tells the relatives of closed executions: a parent that is still open gets `child.closed`, and children of an execution
-- that did not get to its end are cancelled. Whoever closed it calls this; should they die before, or find a row locked, it
-- stays due, and every worker looks for that (p_overdue_ms).
create or replace function flowledger.propagate_close(p_ids uuid[], p_overdue_ms float8 default null) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  v_at timestamptz := flowledger.now();
  c record;
  p flowledger.executions;
  v_ended jsonb;
  v_unfinished uuid[];
  v_told uuid[];
begin
  for c in
    select e.parent_id, array_agg(e.id) as ids from flowledger.executions e
    where e.closed_at is not null and e.wake_at is not null and e.id = any(p_ids || array(
      select d.id from flowledger.executions d where d.wake_at < v_at - flowledger.ms(p_overdue_ms) and d.closed_at is not null order by d.wake_at limit 200))
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
        array_agg(t.id) filter (where t.outcome <> 'completed'), array_agg(t.id)
      into v_ended, v_unfinished, v_told
      from told t join flowledger.ledger l on l.execution_id = t.id and l.seq = 1;
      if p.closed_at is null and p.id is not null and v_ended is not null then
        perform flowledger.accept(p, v_ended, false);
      end if;
      -- Interrupts below a closed execution do not count for those above it.
      perform flowledger.propagate_up(e.id, flowledger.visible_in(e.id), true, '{}') from flowledger.executions e
      where e.id = any(c.ids) and exists (select from flowledger.executions h where h.parent_id = e.id and h.pending_interrupts > 0);
      perform flowledger.request_cancel(h.id, 'parent ' || e.outcome, 'parent', true)
      from flowledger.executions h join flowledger.executions e on e.id = h.parent_id
      where h.parent_id = any(v_unfinished) and h.closed_at is null and not flowledger.is_item(h.id);
      -- The worker that was to cancel abandoned children may have died before.
      if exists (select from flowledger.executions h where h.parent_id = any(v_told) and h.closed_at is null) then
        perform flowledger.request_cancel(h.id, 'abandoned by its caller', 'parent', true) from flowledger.executions h
        where h.parent_id = any(v_told) and h.closed_at is null and h.id = any(array(
          select (l.payload ->> 'child')::uuid from flowledger.ledger l where l.execution_id = any(v_told) and l.type = 'child.abandoned'));
      end if;
    exception when lock_not_available or deadlock_detected or sqlstate 'FL011' then
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
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(array(select jsonb_array_elements_text(l.payload -> 'parent' -> 'visibleIn')::uuid), '{}')
    from flowledger.ledger l where l.execution_id = p_id and l.seq = 1);
end $$;

-- The dispatches of an execution that run sub-flows, and the flow of each: what a chunk calls has a digest of its input besides.
create or replace function flowledger.sub_flows_of(p_id uuid) returns table (dispatch int, flow text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select l.dispatch, max(l.payload ->> 'flow') from flowledger.ledger l
  where l.execution_id = p_id and l.type = 'child.started' and not l.payload ? 'input' group by l.dispatch
$$;

-- Shows what happened in a sub-flow on the executions above it: how many interrupts wait, and the stream items that tell of
-- them and of retries.
create or replace function flowledger.propagate_up(p_id uuid, p_up uuid[], p_recount boolean, p_items jsonb[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  u record;
begin
  if not p_recount and cardinality(p_items) = 0 then
    return;
  end if;
  perform flowledger.lock_execution(i) from (select unnest(p_up) as i order by 1) above;
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
    select u.id, u.stream_seq + v.ord, u.epoch, flowledger.now(), v.item ->> 'type', case v.item ->> 'type'
      when 'retry' then v.item || jsonb_build_object('executionId', p_id)
      else v.item || jsonb_build_object('executionId', u.id, 'action', replace(v.item ->> 'action', 'pause', 'project'),
        'interrupt', flowledger.projected_record(u.id, p_id, v.item -> 'interrupt' ->> 'id')) end
    from unnest(p_items) with ordinality as v(item, ord)
    where not u.stream_ended;
  end loop;
end $$;

-- An interrupt as the execution shows it: its own, or one of a sub-flow under the id "<execution>:<interrupt>".
create or replace function flowledger.projected_record(p_id uuid, p_owner uuid, p_interrupt text) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select case when p_owner = p_id then r.record else r.record || jsonb_build_object('id', p_owner || ':' || p_interrupt, 'executionId', p_id,
      'projectedFrom', jsonb_build_object('executionId', p_owner, 'interruptId', p_interrupt)) end
    from (select coalesce(flowledger.interrupt_record(p_owner, p_interrupt), flowledger.early_record(p_owner, p_interrupt)) as record) r);
end $$;

-- The sub-flow that an interrupt's id names, where it shows on the execution.
create or replace function flowledger.projected_owner(p_id uuid, p_interrupt text) returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if flowledger.is_projected_id(p_interrupt) then
    return (select c.id from flowledger.executions c where c.id = left(p_interrupt, 36)::uuid and p_id = any(flowledger.visible_in(c.id)));
  end if;
  return null;
end $$;

-- Asks for the end of a page of the items of a collection, in id order: those between two ids that are open. Gives their ids.
create or replace function flowledger.cancel_items(p_first uuid, p_last uuid, p_reason text, p_limit int) returns setof uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id uuid;
begin
  for v_id in
    select e.id from flowledger.executions e
    where e.id between p_first and p_last and e.closed_at is null order by e.id limit p_limit
  loop
    perform flowledger.request_cancel(v_id, p_reason, 'parent', false);
    return next v_id;
  end loop;
end $$;

-- The sub-flow of an execution under a frame's id, which is its own; locked after its parent.
create or replace function flowledger.lock_frame(p_id uuid, p_frame uuid) returns flowledger.executions
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  c flowledger.executions;
begin
  if exists (select from flowledger.executions h where h.id = p_frame and h.parent_id = p_id and p_id = any(flowledger.visible_in(h.id))) then
    c := flowledger.lock_execution(p_frame);
  end if;
  if c.id is null then
    raise exception 'execution % has no sub-flow %', p_id, p_frame using errcode = 'FL008', hint = 'list them with getSubFlowFrames()';
  end if;
  return c;
end $$;

-- Has its end been asked for? Found without reading its ledger: the index of what people do has such events apart from those with an id.
create or replace function flowledger.is_cancelling(p_id uuid) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from flowledger.ledger l where l.execution_id = p_id and l.type = 'cancel.requested' and l.payload ->> 'id' is null)
$$;

-- Sends an event to a running sub-flow.
create or replace function flowledger.emit_to_sub_flow(id uuid, frame uuid, event text, payload jsonb default 'null', idempotency_key text default null,
  actor text default null, notify boolean default true, raw boolean default true) returns int
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select flowledger.emit_to_sub_flow(id, frame, event, payload, idempotency_key, actor, notify, raw, null) $$;

-- The same with the trace of who sends it, as `emit` takes it.
create or replace function flowledger.emit_to_sub_flow(id uuid, frame uuid, event text, payload jsonb, idempotency_key text, actor text, notify boolean,
  raw boolean, traceparent text) returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  c flowledger.executions;
begin
  perform flowledger.check_text(event, 'an event name');
  perform flowledger.check_granted(emit_to_sub_flow.id);
  e := flowledger.lock_open(emit_to_sub_flow.id, format('"%s"', event));
  c := flowledger.lock_frame(e.id, frame);
  if c.closed_at is not null or flowledger.is_cancelling(c.id) then
    raise exception 'sub-flow % of execution % is not active (%)', c.id, e.id, coalesce(c.outcome, 'cancel requested')
      using errcode = 'FL008', hint = 'list the active ones with getSubFlowFrames()';
  end if;
  return flowledger.emit(c.id, event, payload, idempotency_key, actor, notify, raw, traceparent);
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
  perform flowledger.check_seen(reason, 'reason', 10000);
  perform flowledger.check_actor(actor);
  perform flowledger.check_granted(cancel_sub_flow.id);
  begin
    e := flowledger.lock_open(cancel_sub_flow.id, 'cancel');
  exception when sqlstate 'FL003' then
    perform flowledger.lock_frame(cancel_sub_flow.id, frame);
    return false;
  end;
  c := flowledger.lock_frame(e.id, frame);
  if c.closed_at is not null or flowledger.is_cancelling(c.id) then
    return false;
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'child.cancelled', 'child', c.id, 'reason', reason, 'actor', actor)), notify);
  return flowledger.request_cancel(c.id, reason, actor, notify);
end $$;
