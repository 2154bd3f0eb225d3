-- What comes from outside: checked and decided under the row lock, then appended. The library calls the same functions.

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
  v_at timestamptz := flowledger.now();
  v_seq int := e.seq + jsonb_array_length(p_events);
begin
  insert into flowledger.ledger (execution_id, seq, epoch, at, type, actor, role, payload)
  select e.id, e.seq + v.ord, e.epoch, v_at, v.event ->> 'type', v.event ->> 'actor', flowledger.caller(),
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
  v_at timestamptz := flowledger.now();
  v_reason text := coalesce(p_reason, 'cancelled');
begin
  if e.epoch > 0 or exists (select 1 from flowledger.ledger l where l.execution_id = e.id
      and l.type not in ('execution.created', 'execution.started', 'execution.rescheduled')) then
    return false;
  end if;
  insert into flowledger.ledger (execution_id, seq, epoch, at, type, actor, role, payload)
  values (e.id, e.seq + 1, 0, v_at, 'cancel.requested', p_actor, flowledger.caller(), jsonb_build_object('reason', v_reason)),
    (e.id, e.seq + 2, 0, v_at, 'execution.closed', null, flowledger.caller(), jsonb_build_object('outcome', 'cancelled', 'reason', v_reason));
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
      perform flowledger.propagate_close(array[e.id]);
    end if;
    return true;
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'cancel.requested', 'reason', reason, 'actor', actor)), notify);
  return true;
end $$;
