-- Commands from outside: checked and decided under the row lock, then appended. The library calls the same functions.

-- Locks an execution that still takes commands, or says why it does not.
create or replace function flowledger.lock_open(p_id uuid, p_what text) returns flowledger.executions
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
begin
  -- As `lock_execution`, without a call of it: every command comes by here.
  select * into e from flowledger.executions h where h.id = p_id for no key update skip locked;
  if not found then
    e := flowledger.lock_held(p_id);
  end if;
  if e.id is null then
    perform flowledger.refuse_unknown(p_id);
  elsif e.closed_at is not null then
    raise exception 'execution % is closed (%) and no longer accepts %', p_id, e.close_reason, p_what
      using errcode = 'FL003', hint = 'start a new execution';
  elsif e.sealed_at is not null and p_what not in ('close', 'cancel', 'seal', 'withdraw', 'retry()', 'skip()', 'unpause()', 'redrive()') then
    raise exception 'execution % is sealed and no longer accepts %', p_id, p_what
      using errcode = 'FL002', hint = 'start a new execution, or send it before seal()';
  end if;
  return e;
end $$;

-- Locks an execution, whatever its state; null where there is none.
create or replace function flowledger.lock_execution(p_id uuid) returns flowledger.executions
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
begin
  select * into e from flowledger.executions h where h.id = p_id for no key update skip locked;
  if not found then
    e := flowledger.lock_held(p_id);
  end if;
  return e;
end $$;

-- Waits for a row that somebody else has locked. Only here, since what can fail costs a subtransaction.
create or replace function flowledger.lock_held(p_id uuid) returns flowledger.executions
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_timeout text := flowledger.limit_wait();
begin
  select * into e from flowledger.executions h where h.id = p_id for no key update;
  perform set_config('lock_timeout', v_timeout, true);
  return e;
exception when lock_not_available or deadlock_detected then
  perform flowledger.refuse_held('execution ' || p_id, p_id);
end $$;

-- Events that came from outside, as rows of the ledger.
create or replace function flowledger.ledger_rows(p_events jsonb)
returns table (ord bigint, type text, dispatch int, chunk text, actor text, payload jsonb)
language sql immutable
begin atomic
  select v.ord, v.event ->> 'type', case when v.event ? 'chunk' then (v.event ->> 'dispatch')::int end, v.event ->> 'chunk', v.event ->> 'actor',
    nullif((select jsonb_object_agg(field.key, field.value) from jsonb_each(v.event) field
      where field.key not in ('type', 'actor', 'chunk') and not (field.key = 'dispatch' and v.event ? 'chunk')
        and (field.value <> 'null' or field.key in ('value', 'payload', 'input', 'output'))), '{}')
  from jsonb_array_elements(p_events) with ordinality as v(event, ord);
end;

-- From when on events from outside give an owner something to do; null where they do not. What comes in behind a start that is delayed
-- waits with it; only an end that is asked for, or that is told of, does not. Before the start, corrections and a seal give nobody
-- anything to do.
create or replace function flowledger.wake_after(p_events jsonb, p_at timestamptz, p_due_at timestamptz, p_started_at timestamptz, p_epoch int) returns timestamptz
language sql immutable
return case
  when p_due_at > p_at and (p_started_at is not null or p_events @> '[{"type": "execution.started"}]')
    and not p_events @? '$[*].type ? (@ == "cancel.requested" || @ == "interrupt.cancelled" || @ starts with "child.")' then p_due_at
  when p_epoch = 0 and p_started_at is null and not p_events @? '$[*] ? (!(@.type starts with "intervention.") && !(@.type == "state.edited") && !(@.type == "execution.paused") && !(@.type == "execution.unpaused") && !(@.type == "execution.sealed" && !exists(@.close)))' then null
  -- Nothing follows from it, or not before somebody asks.
  when p_events @? '$[*].type ? (@ == "interrupt.answered" || @ == "interrupt.claimed" || @ == "interrupt.released" || @ == "interrupt.snoozed")' then null
  else p_at end;

-- How many parked chunks such events run again: each was parked, or its command would have been refused.
create or replace function flowledger.retried_in(p_events jsonb) returns int
language sql immutable
return jsonb_array_length(jsonb_path_query_array(p_events, '$[*] ? (@.type == "chunk.retried")'));

-- Appends events that came from outside to a locked execution and sees to it that somebody advances it: its owner hears
-- of it by a wake-up, a free execution gets a job. Returns the seq of the last event. Many executions: `accept_all`.
create or replace function flowledger.accept(e flowledger.executions, p_events jsonb, p_notify boolean) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- As in `append`: all below it probes by keys, and is not planned for each call.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  v_at timestamptz := flowledger.now();
  v_seq int := e.seq + jsonb_array_length(p_events);
  v_wake timestamptz := flowledger.wake_after(p_events, v_at, e.due_at, e.started_at, e.epoch);
begin
  insert into flowledger.ledger (execution_id, seq, epoch, at, type, dispatch, chunk, actor, role, payload)
  select e.id, e.seq + v.ord, e.epoch, v_at, v.type, v.dispatch, v.chunk, v.actor, flowledger.caller(), v.payload
  from flowledger.ledger_rows(p_events) v;
  update flowledger.executions h
  set seq = v_seq,
    started_at = case when p_events @> '[{"type": "execution.started"}]' then coalesce(h.started_at, v_at) else h.started_at end,
    sealed_at = case when p_events @> '[{"type": "execution.sealed"}]' then coalesce(h.sealed_at, v_at) else h.sealed_at end,
    parked = case when h.parked > 0 then h.parked - flowledger.retried_in(p_events) else 0 end,
    wake_at = case when h.owner is null then least(h.wake_at, v_wake) else h.wake_at end
  where h.id = e.id;
  if p_events @? '$[*].type ? (@ starts with "inter" || @ == "chunk.skipped")' then
    perform flowledger.project(e.id, e.seq + 1);
    perform flowledger.extend_chain(array[e.id]);
  elsif p_events @? '$[*].type ? (@ starts with "chunk." || @ == "state.edited" || @ == "execution.paused" || @ == "execution.unpaused" || @ == "execution.redriven")' then
    perform flowledger.extend_chain(array[e.id]);
  end if;
  -- One that is due already has its job, and who sends `claim_told` behind the command claims it, or gives it one.
  if e.owner is null and v_wake < coalesce(e.wake_at, 'infinity')
    and (current_setting('fl.told', true) is distinct from e.id::text or not flowledger.is_trusted()) then
    perform flowledger.add_jobs(array[e.id]);
  end if;
  if p_notify then
    perform pg_notify(flowledger.channel(e.id), e.id::text);
  end if;
  return v_seq;
end $$;

-- Where a ledger has an event with that key. It is asked by the index of the keys alone, however few rows the table had when the
-- session made its plan.
create or replace function flowledger.event_of_key(p_id uuid, p_key text) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  return (
    select l.seq from flowledger.ledger l
    where l.execution_id = p_id and l.type = 'event.emitted' and l.payload ? 'idempotencyKey'
      and left(l.payload ->> 'idempotencyKey', 200) = left(p_key, 200) and l.payload ->> 'idempotencyKey' = p_key
    limit 1);
end $$;

-- The answer to an interrupt that came with that request id, by the index of those. A ledger knows every answer; the row of the
-- interrupt only the last, and none once the same interrupt waits again.
create or replace function flowledger.answer_of_request(p_id uuid, p_interrupt text, p_request_id text) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  return (
    select l.payload -> 'value' from flowledger.ledger l
    where l.execution_id = p_id and l.type = 'interrupt.resumed' and l.payload ? 'requestId'
      and left(l.payload ->> 'requestId', 200) = left(p_request_id, 200) and l.payload ->> 'requestId' = p_request_id
      and l.payload ->> 'id' = p_interrupt
    limit 1);
end $$;

-- Sends an event to an execution. Repeating an idempotency key changes nothing. Returns the event's seq.
--   raw   the flow's contract has not seen the payload: its owner checks it. Only the library says that it has, and not as a client
create or replace function flowledger.emit(id uuid, event text, payload jsonb default 'null', idempotency_key text default null,
  actor text default null, notify boolean default true, raw boolean default true) returns int
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select flowledger.emit(id, event, payload, idempotency_key, actor, notify, raw, null) $$;

-- The same with the trace of who sends it, as W3C writes it: the span of a pause that it answers links to that. Anything else is left out.
create or replace function flowledger.emit(id uuid, event text, payload jsonb, idempotency_key text, actor text, notify boolean, raw boolean,
  traceparent text) returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_known int;
  v_trace text := case when traceparent is not null then flowledger.traceparent_of(to_jsonb(traceparent)) end;
begin
  if coalesce(event, '') = '' then
    raise exception 'event name % is not valid', quote_nullable(event) using errcode = 'FL008', hint = 'use a text that is not empty';
  end if;
  if event = '$interrupt' then
    raise exception 'event "$interrupt" reports pauses, and cannot be sent' using errcode = 'FL008', hint = 'use another name';
  end if;
  -- Each call costs a few microseconds, and most emits have neither key nor actor.
  if length(event) > 500 or idempotency_key is not null or actor is not null then
    perform flowledger.check_text(event, 'an event name');
    perform flowledger.check_text(idempotency_key, 'idempotencyKey', 10000);
    perform flowledger.check_actor(actor);
  end if;
  if payload is not null and payload <> 'null' then
    perform flowledger.check_json(payload, format('payload of event "%s"', event));
  end if;
  perform flowledger.check_granted(emit.id);
  e := flowledger.lock_open(emit.id, format('"%s"', event));
  if idempotency_key is not null then
    v_known := flowledger.event_of_key(e.id, idempotency_key);
    if v_known is not null then
      return v_known;
    end if;
  end if;
  -- Interrupts that wait for the event are answered by it.
  return flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'event.emitted', 'event', event,
    'payload', coalesce(payload, 'null'), 'idempotencyKey', idempotency_key, 'actor', actor, 'traceparent', v_trace, 'raw', case when raw is distinct from false or not flowledger.is_trusted() then true end))
    || coalesce((select jsonb_agg(jsonb_build_object('type', 'interrupt.resumed', 'id', i.id, 'value', coalesce(emit.payload, 'null'),
        'byEvent', event, 'of', e.seq + 1, 'actor', emit.actor, 'traceparent', v_trace) order by i.created_at, i.id)
      from flowledger.interrupts i
      where e.pending_interrupts > 0 and i.execution_id = e.id and i.status = 'pending' and i.resume_to ->> 'event' = event), '[]'), notify);
end $$;

-- Answers an interrupt; an answer to what nobody has asked yet is kept until somebody does. Repeating a request id with the same answer changes nothing; with another answer it is refused.
create or replace function flowledger.continue_with(id uuid, interrupt text, payload jsonb default 'null', resume_request_id text default null,
  actor text default null, notify boolean default true) returns jsonb
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  select case when flowledger.is_answer_options(resume_request_id) and actor is null
    then flowledger.continue_with(id, interrupt, payload, resume_request_id::jsonb)
    else flowledger.continue_with(id, interrupt, payload, resume_request_id, actor, notify, true) end
$$;

-- A text without a type is taken for a request id, so that options without a cast come as one.
create or replace function flowledger.is_answer_options(p_text text) returns boolean
language sql immutable parallel safe
return coalesce(p_text ~ '^\s*\{\s*"(resumeRequestId|actor|onlyIfPending|traceparent)"\s*:.*\}\s*$', false);

-- The same; raw: the answer has not been compared with the interrupt's schema. Only the library says that it has, and not as a client.
create or replace function flowledger.continue_with(id uuid, interrupt text, payload jsonb, resume_request_id text, actor text, notify boolean,
  raw boolean) returns jsonb
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select flowledger.continue_with(id, interrupt, payload, resume_request_id, actor, notify, raw, false) $$;

-- The same with its options by name: resumeRequestId, actor, traceparent (of who answers, W3C; a malformed one is ignored with a
-- warning), and onlyIfPending, which refuses what nobody has asked yet.
create or replace function flowledger.continue_with(id uuid, interrupt text, payload jsonb, options jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform flowledger.check_options(options, 'continue_with()', '{resumeRequestId,actor,onlyIfPending,traceparent}', '{"onlyIfPending": true}');
  if exists (select from unnest(array['resumeRequestId', 'actor', 'traceparent']) o where jsonb_typeof(options -> o) not in ('string', 'null')) then
    raise exception 'resumeRequestId, actor and traceparent of continue_with() are texts' using errcode = 'FL008', hint = 'pass them as JSON strings, or leave them out';
  elsif jsonb_typeof(options -> 'onlyIfPending') <> 'boolean' then
    raise exception 'onlyIfPending of continue_with() must be true or false, got %', left(options ->> 'onlyIfPending', 40)
      using errcode = 'FL008', hint = 'pass {"onlyIfPending": true}';
  end if;
  if options ->> 'traceparent' is not null and flowledger.traceparent_of(options -> 'traceparent') is null then
    perform flowledger.warn_of_traceparent(options ->> 'traceparent');
  end if;
  return flowledger.continue_with(id, interrupt, payload, options ->> 'resumeRequestId', options ->> 'actor', true, true,
    coalesce((options -> 'onlyIfPending')::boolean, false), flowledger.traceparent_of(options -> 'traceparent'));
end $$;

create or replace function flowledger.continue_with(id uuid, interrupt text, payload jsonb, resume_request_id text, actor text, notify boolean,
  raw boolean, only_if_pending boolean) returns jsonb
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select flowledger.continue_with(id, interrupt, payload, resume_request_id, actor, notify, raw, only_if_pending, null) $$;

create or replace function flowledger.continue_with(id uuid, interrupt text, payload jsonb, resume_request_id text, actor text, notify boolean,
  raw boolean, only_if_pending boolean, traceparent text) returns jsonb
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select flowledger.continue_with(id, interrupt, payload, resume_request_id, actor, notify, raw, only_if_pending, traceparent, null) $$;

-- The same as the library calls it. checked: the hash of the schema by which it has checked the answer. Where the interrupt asks for
-- something else, nothing is accepted, and {"check": what it asks for, "hash": of that} comes back.
create or replace function flowledger.continue_with(id uuid, interrupt text, payload jsonb, resume_request_id text, actor text, notify boolean,
  raw boolean, only_if_pending boolean, traceparent text, checked text) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  i flowledger.interrupts;
  v_closed text;
  v_value jsonb;
  v_owner uuid;
  v_hash text;
begin
  perform flowledger.check_text(nullif(interrupt, ''), 'the id of an interrupt', 1000);
  perform flowledger.check_text(resume_request_id, 'resumeRequestId', 10000);
  perform flowledger.check_actor(actor);
  perform flowledger.check_json(payload, format('answer to interrupt "%s"', interrupt));
  perform flowledger.check_granted(continue_with.id);
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
    if v_owner is not null and (v_closed is null or flowledger.answer_of_request(v_owner, substr(interrupt, 38), resume_request_id) is not null) then
      v_value := flowledger.continue_with(v_owner, substr(interrupt, 38), payload, resume_request_id, actor, true, raw, only_if_pending, traceparent, checked);
      return case when v_value ? 'check' then v_value else flowledger.projected_record(continue_with.id, v_owner, substr(interrupt, 38)) end;
    end if;
    -- No pause has an empty id, and one of a sub-flow is its own.
    if interrupt <> '' and v_owner is null and not flowledger.is_projected_id(interrupt) and not (only_if_pending and resume_request_id is null) then
      return flowledger.answer_early(continue_with.id, interrupt, payload, resume_request_id, actor, notify, not only_if_pending,
        flowledger.traceparent_of(to_jsonb(traceparent)));
    end if;
  elsif resume_request_id is not null then
    v_value := flowledger.answer_of_request(continue_with.id, interrupt, resume_request_id);
  end if;
  if v_value is not null then
    if v_value is distinct from coalesce(payload, 'null')
      -- An answer before the question was given as it was, and taken as the schema made it.
      and flowledger.kept_answer(continue_with.id, interrupt, resume_request_id) is distinct from coalesce(payload, 'null') then
      raise exception 'resumeRequestId % was used with another answer to interrupt % of execution %', resume_request_id, interrupt, continue_with.id
        using errcode = 'FL006', detail = resume_request_id, hint = 'use a new resumeRequestId for a new answer';
    end if;
    return flowledger.interrupt_record(continue_with.id, interrupt);
  end if;
  if v_closed is not null then
    e := flowledger.lock_open(continue_with.id, format('continueWith("%s")', interrupt));
  end if;
  if i.id is null or i.status <> 'pending' then
    perform flowledger.refuse_interrupt(continue_with.id, interrupt);
  end if;
  if i.is_exclusive and i.claimed_by is distinct from actor then
    perform flowledger.refuse_claim(continue_with.id, i);
  end if;
  if i.response is not null and checked is not null and flowledger.is_trusted() then
    v_hash := encode(sha256(convert_to(i.response::text, 'UTF8')), 'hex');
    if checked <> v_hash then
      return jsonb_build_object('check', i.response, 'hash', v_hash);
    end if;
  elsif i.response is not null and (raw is distinct from false or not flowledger.is_trusted()) then
    perform flowledger.check_answer(i.response, coalesce(payload, 'null'), interrupt);
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'interrupt.resumed', 'id', interrupt,
    'value', coalesce(payload, 'null'), 'requestId', resume_request_id, 'actor', actor, 'traceparent', flowledger.traceparent_of(to_jsonb(traceparent)))), notify);
  return flowledger.interrupt_record(e.id, interrupt);
end $$;

-- Refuses more of what interventions say and are answered with than their execution can end with: all of it is in the close snapshot,
-- which Postgres has to hold.
create or replace function flowledger.check_interventions(p_id uuid, p_more jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_size bigint := (select coalesce(sum(octet_length(v.record::text)), 0) from flowledger.interventions v where v.execution_id = p_id);
begin
  if v_size + coalesce(octet_length(p_more::text), 0) > 16777216 then
    raise exception 'execution % has interventions of % bytes, and accepts no more', p_id, v_size
      using errcode = 'FL008', hint = 'it takes 16 MiB of them: keep large data elsewhere, and send a reference to it';
  end if;
end $$;

-- Records a correction. options: author, target, note, metadata, actor.
create or replace function flowledger.intervene(id uuid, payload jsonb, options jsonb default '{}', notify boolean default true) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_id text := flowledger.new_id()::text;
  v_unknown text;
begin
  -- An event that the ledger cannot hold must not get in: the fold would stop there.
  if jsonb_typeof(options) is distinct from 'object' then
    raise exception 'options of an intervention must be an object, got %', coalesce(left(options::text, 40), 'null') using errcode = 'FL008', hint = 'pass {"note": "typo"}';
  end if;
  select o into v_unknown from jsonb_object_keys(options) o where o not in ('author', 'target', 'note', 'metadata', 'actor') limit 1;
  if found then
    raise exception 'intervene() has an unknown option %', to_json(left(v_unknown, 40)) using errcode = 'FL008', hint = 'use author, target, note, metadata, actor';
  elsif options ? 'metadata' and jsonb_typeof(options -> 'metadata') not in ('object', 'null') then
    raise exception 'metadata of an intervention is not an object' using errcode = 'FL008', hint = 'pass {"key": "value"}';
  elsif exists (select 1 from unnest(array['author', 'target', 'note', 'actor']) o where jsonb_typeof(options -> o) not in ('string', 'null')) then
    raise exception 'author, target, note and actor of an intervention are texts' using errcode = 'FL008', hint = 'pass them as JSON strings, or leave them out';
  end if;
  perform flowledger.check_text(nullif(options ->> 'author', ''), 'author');
  perform flowledger.check_text(nullif(options ->> 'target', ''), 'target');
  perform flowledger.check_text(nullif(options ->> 'note', ''), 'note', 10000);
  perform flowledger.check_actor(nullif(coalesce(options ->> 'actor', options ->> 'author'), ''));
  perform flowledger.check_json(options -> 'metadata', 'metadata of an intervention');
  perform flowledger.check_json(payload, 'payload of intervene()');
  perform flowledger.check_granted(intervene.id);
  e := flowledger.lock_open(intervene.id, 'intervene()');
  if (select l.payload -> 'settings' ->> 'interventionMode' from flowledger.ledger l where l.execution_id = e.id and l.seq = 1) is null then
    raise exception 'interventions of execution % are off', e.id
      using errcode = 'FL007', hint = 'create it with interventionMode "planned" or "auto"';
  end if;
  perform flowledger.check_interventions(e.id, payload);
  if (select count(*) from flowledger.interventions v where v.execution_id = e.id and v.status = 'pending') >= 1000 then
    raise exception 'execution % has 1000 interventions waiting to be taken up, which is the limit', e.id
      using errcode = 'FL008', hint = 'wait until some are taken up';
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
  e flowledger.executions;
begin
  if coalesce(consumer, '') = '' or status is null or status not in ('applied', 'ignored') then
    raise exception 'status % of consumer % is not valid', quote_nullable(left(status, 40)), quote_nullable(left(consumer, 200))
      using errcode = 'FL008', hint = 'name the consumer, and use applied or ignored';
  elsif jsonb_typeof(metadata) not in ('object', 'null') then
    raise exception 'metadata of a consumer is not an object' using errcode = 'FL008', hint = 'pass {"key": "value"}';
  end if;
  perform flowledger.check_text(consumer, 'consumer');
  perform flowledger.check_text(nullif(note, ''), 'note', 10000);
  perform flowledger.check_json(metadata, 'metadata of a consumer');
  perform flowledger.check_granted(mark_intervention_consumed.id);
  e := flowledger.lock_open(mark_intervention_consumed.id, 'markInterventionConsumed()');
  if not exists (select 1 from flowledger.interventions v where v.execution_id = e.id and v.id = intervention) then
    raise exception 'intervention % of execution % does not exist', left(intervention, 200), e.id using errcode = 'FL008', hint = 'list them with getInterventions()';
  end if;
  perform flowledger.check_interventions(e.id, metadata);
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
  e flowledger.executions;
begin
  perform flowledger.check_actor(actor);
  perform flowledger.check_granted(seal.id, '{client,operator}');
  e := flowledger.lock_open(seal.id, 'seal');
  if e.sealed_at is not null then
    return false;
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'execution.sealed', 'actor', actor)), notify);
  return true;
end $$;

-- Asks for the close: sealed at once, closed when everything accepted has run. pending: 'reject' refuses while interrupts
-- wait, 'cancel' cancels them, also those that come until it has closed. Closing a closed execution changes nothing.
create or replace function flowledger.close(id uuid, reason text default 'manual', pending text default 'reject',
  actor text default null, notify boolean default true) returns boolean
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select flowledger.close(id, reason, pending, actor, notify, 'reject') $$;

-- The same; parked: 'reject' refuses while chunks are parked, 'fail' fails them, also those that would park until it has closed.
create or replace function flowledger.close(id uuid, reason text, pending text, actor text, notify boolean, parked text) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_pending text[];
  v_events jsonb := '[]';
begin
  if pending is null or pending not in ('reject', 'cancel') then
    raise exception 'pendingInterrupts % is not valid', quote_nullable(left(pending, 40)) using errcode = 'FL008', hint = 'use reject or cancel';
  elsif parked is null or parked not in ('reject', 'fail') then
    raise exception 'parked % is not valid', quote_nullable(left(parked, 40)) using errcode = 'FL008', hint = 'use reject or fail';
  end if;
  perform flowledger.check_seen(reason, 'reason', 10000);
  reason := coalesce(reason, 'manual');
  perform flowledger.check_actor(actor);
  perform flowledger.check_granted(close.id, '{client,operator}');
  begin
    e := flowledger.lock_open(close.id, 'close');
  exception when sqlstate 'FL003' then
    return false;
  end;
  perform flowledger.settle_parked(e.id, close.reason, pending, close.actor, close.parked);
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
    perform flowledger.request_cancel((v ->> 'child')::uuid, close.reason, close.actor, true) from jsonb_array_elements(v_events) v where v ->> 'type' = 'child.cancelled';
  end if;
  perform flowledger.accept(e, v_events || jsonb_build_array(jsonb_build_object(
    'type', 'execution.sealed', 'close', true, 'pendingInterrupts', case when pending = 'cancel' then pending end,
    'parked', case when parked = 'fail' then parked end, 'reason', close.reason, 'actor', actor)), notify);
  return true;
end $$;

-- Ends what no worker has claimed, as an owner would: cancelled, with what waits for nobody any more. False where one has. The caller
-- has the row's lock.
create or replace function flowledger.close_unclaimed(e flowledger.executions, p_reason text, p_actor text) returns boolean
language sql volatile
set search_path = pg_catalog, pg_temp
as $$ select flowledger.close_unclaimed(e, p_reason, p_actor, null) $$;

-- The same; p_bulk: the bulk that asks for it.
create or replace function flowledger.close_unclaimed(e flowledger.executions, p_reason text, p_actor text, p_bulk uuid) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := flowledger.now();
  v_reason text := coalesce(p_reason, 'cancelled');
  v_expired text[];
  v_events jsonb := jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('type', 'cancel.requested', 'actor', p_actor, 'reason', v_reason, 'bulk', p_bulk)));
begin
  if e.epoch > 0 then
    return false;
  end if;
  v_expired := array(select v.id from flowledger.interventions v where v.execution_id = e.id and v.status = 'pending' order by v.version);
  if v_expired <> '{}' then
    v_events := v_events || (select jsonb_agg(jsonb_build_object('type', 'intervention.expired', 'id', x.id) order by x.ord) from unnest(v_expired) with ordinality x(id, ord));
    if not exists (select from flowledger.ledger l where l.execution_id = e.id and l.type = 'execution.sealed' and l.payload ->> 'id' is null and l.payload ? 'close') then
      v_events := v_events || jsonb_build_object('type', 'execution.sealed', 'close', true, 'reason', v_reason);
    end if;
  end if;
  v_events := v_events || jsonb_build_object('type', 'execution.closed', 'outcome', 'cancelled', 'reason', v_reason);
  insert into flowledger.ledger (execution_id, seq, epoch, at, type, actor, role, payload)
  select e.id, e.seq + v.ord, 0, v_at, v.event ->> 'type', v.event ->> 'actor', flowledger.caller(), v.event - 'type' - 'actor'
  from jsonb_array_elements(v_events) with ordinality as v(event, ord);
  update flowledger.executions h
  set seq = e.seq + jsonb_array_length(v_events), sealed_at = coalesce(h.sealed_at, v_at), closed_at = v_at, outcome = 'cancelled', close_reason = v_reason,
    discard_at = null,
    -- Due until its parent has heard of it.
    wake_at = case when e.parent_id is not null and not flowledger.is_item(e.id) then v_at end
  where h.id = e.id;
  if v_expired <> '{}' then
    perform flowledger.project(e.id, e.seq + 1);
  end if;
  update flowledger.executions h
  set close_snapshot = case when v_expired = '{}' and not exists (select from flowledger.interventions v where v.execution_id = e.id)
    then coalesce((select l.payload -> 'state' from flowledger.ledger l where l.execution_id = e.id and l.seq = 1), '{}')
    else flowledger.close_snapshot(e.id) end
  where h.id = e.id;
  perform flowledger.extend_chain(array[e.id]);
  perform pg_notify(flowledger.channel(e.id), e.id::text);
  return true;
end $$;

-- Discards those of the executions whose time for that is over and that no worker has taken; gives what it closed. A row that
-- somebody has locked is left for the next time.
create or replace function flowledger.discard(p_ids uuid[]) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  v_closed uuid[] := '{}';
begin
  for e in
    select x.* from flowledger.executions x
    where x.id = any(p_ids) and x.discard_at <= flowledger.now() and x.epoch = 0 and x.closed_at is null
    order by x.id for no key update skip locked
  loop
    if flowledger.close_unclaimed(e, 'discarded', 'timer') then
      v_closed := v_closed || e.id;
    end if;
  end loop;
  perform flowledger.propagate_close(v_closed) where v_closed <> '{}';
  return v_closed;
end $$;

-- Cleanup: discards whatever is overdue, wherever it waits: for its time, for a slot, for a worker, or for its start.
create or replace function flowledger.discard_overdue() returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_overdue uuid[] := array(
    select e.id from flowledger.executions e where e.discard_at <= flowledger.now() order by e.discard_at limit 1000);
  v_closed uuid[];
begin
  if v_overdue = '{}' then
    return 0;
  end if;
  -- Slots change under the lock of their flow.
  perform from flowledger.limits l
  where l.flow in (select e.flow from flowledger.executions e where e.id = any(v_overdue)) order by l.flow for no key update;
  v_closed := flowledger.discard(v_overdue);
  delete from flowledger.slots s where s.execution_id = any(v_closed);
  return cardinality(v_closed);
end $$;

-- The event of a cancel. options: reason, actor, bulk.
create or replace function flowledger.cancel_event(p_options jsonb) returns jsonb
language sql immutable parallel safe
return jsonb_build_object('type', 'cancel.requested', 'reason', p_options -> 'reason', 'actor', p_options -> 'actor', 'bulk', p_options -> 'bulk');

-- Asks for the end of whatever runs. False when it had closed before.
create or replace function flowledger.cancel(id uuid, reason text default 'cancelled', actor text default null,
  notify boolean default true) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform flowledger.check_seen(reason, 'reason', 10000);
  perform flowledger.check_actor(actor);
  perform flowledger.check_granted(id, '{client,operator}');
  return flowledger.request_cancel(id, reason, actor, notify);
end $$;

-- The same without a check: also for cancels of the library's own.
create or replace function flowledger.request_cancel(p_id uuid, p_reason text, p_actor text, p_notify boolean) returns boolean
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select flowledger.request_cancel(p_id, p_reason, p_actor, p_notify, null) $$;

-- The same; p_bulk: the bulk that asks for it.
create or replace function flowledger.request_cancel(p_id uuid, p_reason text, p_actor text, p_notify boolean, p_bulk uuid) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
begin
  begin
    e := flowledger.lock_open(p_id, 'cancel');
  exception when sqlstate 'FL003' then
    return false;
  end;
  if flowledger.close_unclaimed(e, p_reason, p_actor, p_bulk) then
    if e.parent_id is not null then
      perform flowledger.propagate_close(array[e.id]);
    end if;
    return true;
  end if;
  perform flowledger.accept(e, jsonb_build_array(flowledger.cancel_event(jsonb_build_object('reason', p_reason, 'actor', p_actor, 'bulk', p_bulk))), p_notify);
  -- One that is due has its job, unless its flow is paused.
  if e.owner is null and e.wake_at <= flowledger.now() and exists (select from flowledger.flow_pause_of(e.flow)) then
    perform flowledger.add_jobs(array[e.id]);
  end if;
  return true;
end $$;
