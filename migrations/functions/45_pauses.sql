-- Questions as a whole: they are answered before they are asked, or withdrawn; what comes too late hears why.

-- Says why an interrupt takes nothing any more, and what does wait. detail: status (null: unknown), by, at, reason, pending.
create or replace function flowledger.refuse_interrupt(p_id uuid, p_interrupt text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  i flowledger.interrupts;
  l flowledger.ledger;
  v_pending text[] := array(select w.id from flowledger.pending_on(p_id) w order by w.created_at, w.id limit 100);
  v_detail jsonb;
begin
  select * into i from flowledger.interrupts x where x.execution_id = p_id and x.id = p_interrupt;
  if not found and exists (
    select from flowledger.ledger a where a.execution_id = p_id and a.type = 'interrupt.answered' and a.payload ->> 'id' = p_interrupt) then
    i.status := 'answered';
  end if;
  if i.status = 'withdrawn' then
    select * into l from flowledger.ledger x where x.execution_id = p_id and x.seq = i.resolved_seq;
  end if;
  v_detail := jsonb_strip_nulls(jsonb_build_object('status', i.status, 'pending', v_pending,
    'by', coalesce(l.actor, 'chunk ' || to_json(l.chunk)::text, l.role),
    'at', flowledger.iso(l.at), 'reason', l.payload ->> 'reason'));
  raise exception 'interrupt % of execution % %', p_interrupt, p_id, case when i.status = 'withdrawn'
    then format('was withdrawn by %s at %s (%s)', v_detail ->> 'by', v_detail ->> 'at', v_detail ->> 'reason')
    else format('is not pending (%s)', coalesce(i.status, 'unknown')) end
    using errcode = 'FL005', detail = v_detail::text, hint = case when v_pending = '{}' then 'nothing waits for an answer in this execution'
      else format('these wait: %s', array_to_string(v_pending, ', ')) end;
end $$;

-- Whether an id is that of a sub-flow's interrupt, as its parent shows it.
create or replace function flowledger.is_projected_id(p_interrupt text) returns boolean
language sql immutable
return p_interrupt ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:.';

-- An answer as it was given before the question, by its request id.
create or replace function flowledger.kept_answer(p_id uuid, p_interrupt text, p_request_id text) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select a.payload -> 'value' from flowledger.ledger a
  where a.execution_id = p_id and a.type = 'interrupt.answered' and a.payload ->> 'id' = p_interrupt and a.payload ->> 'requestId' = p_request_id
  limit 1
$$;

-- Keeps an answer to a question that the execution has never asked: the first to each counts, and there are 100 at most. The pause
-- checks it when it comes. The caller has the row's lock, unless the execution takes nothing any more. p_keep: false only repeats.
create or replace function flowledger.answer_early(p_id uuid, p_interrupt text, p_value jsonb, p_request_id text, p_actor text, p_notify boolean,
  p_keep boolean, p_traceparent text) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  k flowledger.ledger;
  v_kept int;
begin
  select * into k from flowledger.ledger a
  where a.execution_id = p_id and a.type = 'interrupt.answered' and a.payload ->> 'id' = p_interrupt order by a.seq limit 1;
  if k.seq is not null and k.payload ->> 'requestId' = p_request_id then
    if k.payload -> 'value' is distinct from coalesce(p_value, 'null') then
      raise exception 'resumeRequestId % was used with another answer to interrupt % of execution %', p_request_id, p_interrupt, p_id
        using errcode = 'FL006', detail = p_request_id, hint = 'use a new resumeRequestId for a new answer';
    end if;
    return flowledger.early_record(p_id, p_interrupt);
  end if;
  e := flowledger.lock_open(p_id, format('continueWith("%s")', p_interrupt));
  if k.seq is not null or not p_keep then
    perform flowledger.refuse_interrupt(p_id, p_interrupt);
  end if;
  select count(*) into v_kept from flowledger.ledger a
  where a.execution_id = p_id and a.type = 'interrupt.answered'
    and not exists (select from flowledger.interrupts i where i.execution_id = p_id and i.id = a.payload ->> 'id');
  if v_kept >= 100 then
    raise exception 'execution % already keeps 100 answers to interrupts that are not raised yet: % was refused', p_id, to_json(left(p_interrupt, 200))
      using errcode = 'FL008', hint = 'answer it when it is asked: getPendingInterrupts() lists what waits';
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'interrupt.answered', 'id', p_interrupt,
    'value', coalesce(p_value, 'null'), 'requestId', p_request_id, 'actor', p_actor, 'traceparent', p_traceparent)), p_notify);
  return flowledger.early_record(p_id, p_interrupt);
end $$;

-- The record of a question that has an answer and was not asked yet.
create or replace function flowledger.early_record(p_id uuid, p_interrupt text) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_build_object('id', p_interrupt, 'type', '', 'status', 'early', 'payload', null, 'resumeTo', 'next', 'chunk', '',
      'resumeCount', 0, 'maxResumes', null, 'createdAt', flowledger.iso(a.at), 'expiresAt', null, 'resolvedAt', null, 'value', a.payload -> 'value',
      'requestId', a.payload -> 'requestId', 'actor', a.actor, 'response', null, 'executionId', p_id, 'flow', c.payload -> 'flow', 'projectedFrom', null)
    from flowledger.ledger a join flowledger.ledger c on c.execution_id = a.execution_id and c.seq = 1
    where a.execution_id = p_id and a.type = 'interrupt.answered' and a.payload ->> 'id' = p_interrupt
    order by a.seq limit 1);
end $$;

-- Takes a question back: the chain behind it ends. Also in a sealed execution. Returns the interrupt's record.
create or replace function flowledger.withdraw(id uuid, interrupt text, reason text default null, actor text default null,
  notify boolean default true) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_owner uuid;
begin
  perform flowledger.check_text(nullif(interrupt, ''), 'the id of an interrupt', 1000);
  perform flowledger.check_seen(reason, 'reason', 10000);
  perform flowledger.check_actor(actor);
  perform flowledger.check_granted(withdraw.id);
  e := flowledger.lock_open(withdraw.id, 'withdraw');
  if not exists (select from flowledger.interrupts x where x.execution_id = e.id and x.id = interrupt) then
    v_owner := flowledger.projected_owner(e.id, interrupt);
    if v_owner is not null then
      perform flowledger.withdraw(v_owner, substr(interrupt, 38), reason, actor, true);
      return flowledger.projected_record(e.id, v_owner, substr(interrupt, 38));
    end if;
  end if;
  if not exists (select from flowledger.interrupts x where x.execution_id = e.id and x.id = interrupt and x.status = 'pending') then
    perform flowledger.refuse_interrupt(e.id, interrupt);
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'interrupt.cancelled', 'id', interrupt,
    'reason', coalesce(reason, 'withdrawn'), 'withdrawn', true, 'actor', actor)), notify);
  return flowledger.interrupt_record(e.id, interrupt);
end $$;
