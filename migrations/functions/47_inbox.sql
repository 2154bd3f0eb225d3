-- The inbox: what waits for whom, and what people do with it besides answering. Each is an event with who did it, decided under the row
-- lock, and refused where somebody else has taken the question on.

-- Says who has it, and since when.
create or replace function flowledger.refuse_claim(p_id uuid, i flowledger.interrupts) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'interrupt % of execution % is claimed by % since %', i.id, p_id, i.claimed_by, flowledger.iso(i.claimed_at)
    using errcode = 'FL016', hint = 'ask them to release it', detail = jsonb_build_object('by', i.claimed_by, 'at', flowledger.iso(i.claimed_at))::text;
end $$;

-- Refuses invalid options of these commands: who does it is wanted of each.
create or replace function flowledger.check_handling(p_options jsonb, p_what text, p_known text[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform flowledger.check_options(p_options, p_what, p_known || '{actor}'::text[], '{"actor": "ann"}');
  if jsonb_typeof(p_options -> 'actor') is distinct from 'string' or flowledger.seen_of(p_options ->> 'actor') = '' then
    raise exception 'actor of % is missing: who does it is kept in the ledger', p_what using errcode = 'FL008', hint = 'pass {"actor": "ann"}';
  end if;
  perform flowledger.check_actor(p_options ->> 'actor');
end $$;

-- Locks the execution whose pending interrupt that is: its own, or that of a sub-flow that shows on it, and gives the interrupt's row.
-- p_actor: null does not ask who has claimed it.
create or replace function flowledger.lock_interrupt(p_id uuid, p_interrupt text, p_what text, p_actor text, out e flowledger.executions, out i flowledger.interrupts)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
begin
  perform flowledger.check_text(nullif(p_interrupt, ''), 'the id of an interrupt', 1000);
  perform flowledger.check_granted(p_id, '{client,operator}');
  e := flowledger.lock_open(p_id, format('%s("%s")', p_what, p_interrupt));
  select x.* into i from flowledger.interrupts x where x.execution_id = p_id and x.id = p_interrupt;
  if not found then
    v_owner := flowledger.projected_owner(p_id, p_interrupt);
    if v_owner is not null then
      e := flowledger.lock_open(v_owner, format('%s("%s")', p_what, p_interrupt));
      select x.* into i from flowledger.interrupts x where x.execution_id = v_owner and x.id = substr(p_interrupt, 38);
    end if;
  end if;
  if i.id is null or i.status <> 'pending' then
    perform flowledger.refuse_interrupt(p_id, p_interrupt);
  elsif i.claimed_by <> p_actor then
    perform flowledger.refuse_claim(p_id, i);
  end if;
end $$;

-- Takes a question on: others see who has it; with exclusive nobody else may answer. Again by the same changes nothing but that.
-- options: actor, exclusive. Gives the interrupt's record.
create or replace function flowledger.claim_interrupt(id uuid, interrupt text, options jsonb, notify boolean default true) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  i flowledger.interrupts;
  l record;
  v_exclusive boolean;
begin
  perform flowledger.check_handling(options, 'claim()', '{exclusive}');
  if jsonb_typeof(coalesce(options -> 'exclusive', 'false')) <> 'boolean' then
    raise exception 'exclusive of claim() must be true or false, got %', left(options ->> 'exclusive', 40) using errcode = 'FL008', hint = 'pass {"actor": "ann", "exclusive": true}';
  end if;
  v_exclusive := coalesce((options -> 'exclusive')::boolean, false);
  select x.* into l from flowledger.lock_interrupt(claim_interrupt.id, interrupt, 'claim', options ->> 'actor') x;
  e := l.e;
  i := l.i;
  if i.claimed_by is null or i.is_exclusive <> v_exclusive then
    perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'interrupt.claimed', 'id', i.id, 'exclusive', nullif(v_exclusive, false),
      'actor', options -> 'actor')), notify or e.id <> claim_interrupt.id);
  end if;
  return flowledger.projected_record(claim_interrupt.id, e.id, i.id);
end $$;

-- Gives a question back that one has claimed. options: actor.
create or replace function flowledger.release_interrupt(id uuid, interrupt text, options jsonb, notify boolean default true) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  i flowledger.interrupts;
  l record;
begin
  perform flowledger.check_handling(options, 'release()', '{}');
  select x.* into l from flowledger.lock_interrupt(release_interrupt.id, interrupt, 'release', options ->> 'actor') x;
  e := l.e;
  i := l.i;
  if i.claimed_by is null then
    raise exception 'interrupt % of execution % is not claimed', interrupt, release_interrupt.id using errcode = 'FL008', hint = 'there is nothing to release';
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'interrupt.released', 'id', i.id, 'actor', options -> 'actor')), notify or e.id <> release_interrupt.id);
  return flowledger.projected_record(release_interrupt.id, e.id, i.id);
end $$;

-- Gives a question to somebody else, in the place of all whom it asked; nobody has claimed it then. options: to, actor, reason.
create or replace function flowledger.delegate_interrupt(id uuid, interrupt text, options jsonb, notify boolean default true) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  e flowledger.executions;
  i flowledger.interrupts;
  l record;
begin
  perform flowledger.check_handling(options, 'delegate()', '{to,reason}');
  if jsonb_typeof(options -> 'to') is distinct from 'string' or flowledger.seen_of(options ->> 'to') = '' then
    raise exception 'to of delegate() must be a text of 1 to 100 characters, got %', coalesce(left(options ->> 'to', 40), 'nothing') using errcode = 'FL008', hint = 'pass {"to": "user:bo", "actor": "ann"}';
  elsif jsonb_typeof(coalesce(options -> 'reason', '""')) <> 'string' then
    raise exception 'reason of delegate() must be a text, got %', left(options ->> 'reason', 40) using errcode = 'FL008', hint = 'pass it as a JSON string, or leave it out';
  end if;
  perform flowledger.check_text(options ->> 'to', 'to of delegate()', 100);
  perform flowledger.check_seen(options ->> 'reason', 'reason', 2000);
  select x.* into l from flowledger.lock_interrupt(delegate_interrupt.id, interrupt, 'delegate', options ->> 'actor') x;
  e := l.e;
  i := l.i;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'interrupt.delegated', 'id', i.id, 'assign', jsonb_build_array(options -> 'to'),
    'reason', options -> 'reason', 'actor', options -> 'actor')), notify or e.id <> delegate_interrupt.id);
  return flowledger.projected_record(delegate_interrupt.id, e.id, i.id);
end $$;

-- Takes a question out of the inbox until a moment; it stays due when it was. options: until, actor.
create or replace function flowledger.snooze_interrupt(id uuid, interrupt text, options jsonb, notify boolean default true) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $$
declare
  e flowledger.executions;
  i flowledger.interrupts;
  l record;
  v_until timestamptz;
begin
  perform flowledger.check_handling(options, 'snooze()', '{until}');
  v_until := flowledger.moment_of(options -> 'until');
  if v_until is null or v_until <= flowledger.now() then
    raise exception 'until of snooze() must be a moment to come, got %', coalesce(left(options ->> 'until', 40), 'nothing')
      using errcode = 'FL008', hint = 'pass one like "2026-01-31T12:00:00Z"';
  end if;
  select x.* into l from flowledger.lock_interrupt(snooze_interrupt.id, interrupt, 'snooze', options ->> 'actor') x;
  e := l.e;
  i := l.i;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'interrupt.snoozed', 'id', i.id, 'until', flowledger.to_ms(v_until), 'actor', options -> 'actor')), notify or e.id <> snooze_interrupt.id);
  return flowledger.projected_record(snooze_interrupt.id, e.id, i.id);
end $$;

-- Where a place in the inbox is, in the text that its rows have as cursor: due and raised in microseconds, then its ids.
create or replace function flowledger.inbox_cursor(p_due timestamptz, p_created timestamptz, p_id uuid, p_interrupt text) returns text
language sql stable parallel safe
return concat_ws(' ', case when isfinite(p_due) then (extract(epoch from p_due) * 1000000)::bigint::text else '-' end,
  (extract(epoch from p_created) * 1000000)::bigint, p_id, p_interrupt);

-- Interrupts that wait for an answer: overdue first, then by due date, then those that are never due, the oldest first. options: for (whom it asks:
-- any of these), overdue, snoozed (also what is put off), flow, type, metadata, cursor (of the last row of the page before), limit (1 to
-- 1000, default 100). Rows are interrupt records with their cursor. A limited client sees what its limits cover.
create or replace function flowledger.inbox(options jsonb default '{}') returns setof jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
-- Each page is read in the order of an index, as far as it goes.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
declare
  v_now timestamptz := flowledger.now();
  v_limit int := 100;
  v_for text[];
  v_name text;
  v_due timestamptz := '-infinity';
  v_created timestamptz := '-infinity';
  v_id uuid := '00000000-0000-0000-0000-000000000000';
  v_interrupt text := '';
  v_until timestamptz := 'infinity';
  v_is_limited boolean;
begin
  perform flowledger.check_options(options, 'inbox()', '{for,overdue,snoozed,flow,type,metadata,cursor,limit}', '{"for": ["group:finance"]}');
  foreach v_name in array '{overdue,snoozed}'::text[] loop
    if jsonb_typeof(coalesce(options -> v_name, 'false')) <> 'boolean' then
      raise exception '% of inbox() must be true or false, got %', v_name, left(options ->> v_name, 40) using errcode = 'FL008', hint = 'correct it, or leave it out';
    end if;
  end loop;
  foreach v_name in array '{flow,type,cursor}'::text[] loop
    if options ? v_name and jsonb_typeof(options -> v_name) <> 'string' then
      raise exception '% of inbox() must be a text, got %', v_name, left(options ->> v_name, 40) using errcode = 'FL008', hint = 'correct it, or leave it out';
    end if;
    perform flowledger.check_text(options ->> v_name, v_name || ' of inbox()', case v_name when 'cursor' then 2000 else 1000 end);
  end loop;
  if options ? 'metadata' and jsonb_typeof(options -> 'metadata') <> 'object' then
    raise exception 'metadata of inbox() must be an object, got %', left(options ->> 'metadata', 40) using errcode = 'FL008', hint = 'pass {"tenant": "acme"}';
  end if;
  perform flowledger.check_json(options -> 'metadata', 'metadata of inbox()');
  if options ? 'limit' then
    if not (jsonb_typeof(options -> 'limit') = 'number' and options ->> 'limit' ~ '^[0-9]{1,4}$' and (options ->> 'limit')::int between 1 and 1000) then
      raise exception 'limit of inbox() must be an integer from 1 to 1000, got %', left(options ->> 'limit', 40) using errcode = 'FL008', hint = 'go on with the cursor of the last row';
    end if;
    v_limit := (options ->> 'limit')::int;
  end if;
  if options ? 'for' then
    if jsonb_typeof(options -> 'for') <> 'array' or jsonb_array_length(options -> 'for') not between 1 and 100
      or jsonb_path_exists(options -> 'for', 'strict $[*] ? (@.type() != "string" || @ == "")') then
      raise exception 'for of inbox() must be a list of 1 to 100 texts, got %', left(options ->> 'for', 40) using errcode = 'FL008', hint = 'pass ["user:ann", "group:finance"]';
    end if;
    v_for := array(select distinct jsonb_array_elements_text(options -> 'for'));
    perform flowledger.check_text(f, 'for of inbox()', 1000) from unnest(v_for) f;
  end if;
  if options ? 'cursor' then
    if options ->> 'cursor' !~ '^(-|-?[0-9]{1,18}) -?[0-9]{1,18} [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12} .' then
      raise exception '% is not a cursor of inbox()', to_json(left(options ->> 'cursor', 40)) using errcode = 'FL008', hint = 'use the one that the page before gave';
    end if;
    v_due := case split_part(options ->> 'cursor', ' ', 1) when '-' then 'infinity'
      else timestamptz 'epoch' + split_part(options ->> 'cursor', ' ', 1)::bigint * interval '1 microsecond' end;
    v_created := timestamptz 'epoch' + split_part(options ->> 'cursor', ' ', 2)::bigint * interval '1 microsecond';
    v_id := split_part(options ->> 'cursor', ' ', 3)::uuid;
    v_interrupt := regexp_replace(options ->> 'cursor', '^([^ ]* ){3}', '');
  end if;
  if (options -> 'overdue')::boolean then
    v_until := v_now;
  end if;
  v_is_limited := exists (select from flowledger.client_grants) and flowledger.is_limited('{client,operator,auditor}');
  if v_for is not null then
    return query
    select flowledger.interrupt_record(p.execution_id, p.interrupt_id) || jsonb_build_object('cursor', flowledger.inbox_cursor(p.due_at, p.created_at, p.execution_id, p.interrupt_id))
    from (
      select distinct x.due_at, x.created_at, x.execution_id, x.interrupt_id
      from unnest(v_for) f(principal)
      cross join lateral (
        select a.due_at, a.created_at, a.execution_id, a.interrupt_id
        from flowledger.assignments a join flowledger.interrupts i on i.execution_id = a.execution_id and i.id = a.interrupt_id
        where a.principal = f.principal and (a.due_at, a.created_at, a.execution_id, a.interrupt_id) > (v_due, v_created, v_id, v_interrupt)
          and a.due_at <= v_until
          and flowledger.is_listed(i, options, v_now, v_is_limited)
        order by a.due_at, a.created_at, a.execution_id, a.interrupt_id limit v_limit) x
      order by 1, 2, 3, 4 limit v_limit) p
    order by p.due_at, p.created_at, p.execution_id, p.interrupt_id;
    return;
  end if;
  return query
  select flowledger.interrupt_record(p.execution_id, p.id) || jsonb_build_object('cursor', flowledger.inbox_cursor(p.due, p.created_at, p.execution_id, p.id))
  from (
    (select i.due_at as due, i.created_at, i.execution_id, i.id from flowledger.interrupts i
      where v_due < 'infinity' and i.status = 'pending' and i.due_at is not null
        and (i.due_at, i.created_at, i.execution_id, i.id) > (v_due, v_created, v_id, v_interrupt)
        and i.due_at <= v_until and flowledger.is_listed(i, options, v_now, v_is_limited)
      order by i.due_at, i.created_at, i.execution_id, i.id limit v_limit)
    union all
    (select 'infinity'::timestamptz, i.created_at, i.execution_id, i.id from flowledger.interrupts i
      where v_until = 'infinity' and i.status = 'pending' and i.due_at is null
        and (v_due < 'infinity' or (i.created_at, i.execution_id, i.id) > (v_created, v_id, v_interrupt))
        and flowledger.is_listed(i, options, v_now, v_is_limited)
      order by i.created_at, i.execution_id, i.id limit v_limit)
    order by 1, 2, 3, 4 limit v_limit) p
  order by p.due, p.created_at, p.execution_id, p.id;
end $$;

-- Whether the inbox shows it, whomever it asks.
create or replace function flowledger.is_listed(i flowledger.interrupts, p_options jsonb, p_now timestamptz, p_is_limited boolean) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select (i.snoozed_until is null or i.snoozed_until <= p_now or coalesce((p_options -> 'snoozed')::boolean, false))
    and (p_options ->> 'flow' is null or i.flow = p_options ->> 'flow')
    and (p_options ->> 'type' is null or i.type = p_options ->> 'type')
    and (p_options -> 'metadata' is null or exists (
      select from flowledger.executions e where e.id = i.execution_id and e.metadata @> (p_options -> 'metadata')))
    and (not p_is_limited or flowledger.is_granted(i.execution_id))
$$;

-- The pause that a link was given for, as its execution is now. Of a token that was never given nobody learns more than that.
-- p_lock: locks the execution.
create or replace function flowledger.linked(p_token text, p_lock boolean, out e flowledger.executions, out i flowledger.interrupts, out hash text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  k flowledger.ledger;
  v_used timestamptz;
begin
  if p_token ~ '^[A-Za-z0-9_-]{43}$' then
    hash := encode(sha256(convert_to(p_token, 'UTF8')), 'hex');
    select l.* into k from flowledger.ledger l where l.type = 'interrupt.linked' and l.copied_at is null and l.payload ->> 'hash' = linked.hash limit 1;
  end if;
  if k.seq is null or not flowledger.is_reachable(k.execution_id) then
    raise exception 'this link is not valid' using errcode = 'FL017', hint = 'use it as it was sent';
  end if;
  if p_lock then
    begin
      perform flowledger.lock_open(k.execution_id, 'an answer');
    exception when sqlstate 'FL002' or sqlstate 'FL003' then
      null;
    end;
  end if;
  select x.* into e from flowledger.executions x where x.id = k.execution_id;
  select x.* into i from flowledger.interrupts x where x.execution_id = k.execution_id and x.id = k.payload ->> 'id';
  select l.at into v_used from flowledger.ledger l
  where l.execution_id = k.execution_id and l.payload ->> 'id' = i.id and l.seq > k.seq and l.type = 'interrupt.resumed' and l.payload ->> 'byLink' = linked.hash limit 1;
  if found then
    raise exception 'this link was used at %', flowledger.iso(v_used)
      using errcode = 'FL018', detail = jsonb_build_object('at', flowledger.iso(v_used))::text, hint = 'it answers once';
  elsif i.status <> 'pending' or i.raised_seq > k.seq or e.sealed_at is not null then
    raise exception 'what this link asked is not asked any more' using errcode = 'FL019', hint = 'there is nothing to do';
  end if;
end $$;

-- The interrupt of a link, as a record: for a page with a form. Reading it answers nothing.
create or replace function flowledger.asked_by_token(token text) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  l record;
begin
  select x.* into l from flowledger.linked(token, false) x;
  return flowledger.interrupt_record((l.i).execution_id, (l.i).id);
end $$;

-- Answers the pause that a link was given for, once. options: actor (default: link), traceparent (of who answers, as for
-- continue_with()). Gives the interrupt's record.
create or replace function flowledger.answer_by_token(token text, payload jsonb default 'null', options jsonb default '{}') returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  l record;
  e flowledger.executions;
  i flowledger.interrupts;
begin
  perform flowledger.check_options(options, 'answer_by_token()', '{actor,traceparent}', '{"actor": "ann"}');
  if exists (select from unnest(array['actor', 'traceparent']) o where jsonb_typeof(options -> o) not in ('string', 'null')) then
    raise exception 'actor and traceparent of answer_by_token() are texts' using errcode = 'FL008', hint = 'pass them as JSON strings, or leave them out';
  end if;
  perform flowledger.check_actor(nullif(options ->> 'actor', 'link'));
  if options ->> 'traceparent' is not null and flowledger.traceparent_of(options -> 'traceparent') is null then
    perform flowledger.warn_of_traceparent(options ->> 'traceparent');
  end if;
  perform flowledger.check_json(payload, 'answer by a link');
  select x.* into l from flowledger.linked(token, true) x;
  e := l.e;
  i := l.i;
  if i.is_exclusive and i.claimed_by is distinct from options ->> 'actor' then
    perform flowledger.refuse_claim(e.id, i);
  end if;
  if i.response is not null then
    perform flowledger.check_answer(i.response, coalesce(payload, 'null'), i.id);
  end if;
  perform flowledger.accept(e, jsonb_build_array(jsonb_build_object('type', 'interrupt.resumed', 'id', i.id, 'value', coalesce(payload, 'null'),
    'byLink', l.hash, 'actor', coalesce(options ->> 'actor', 'link'), 'traceparent', flowledger.traceparent_of(options -> 'traceparent'))), true);
  return flowledger.interrupt_record(e.id, i.id);
end $$;
