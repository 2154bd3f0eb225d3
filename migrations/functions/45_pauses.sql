-- Questions as a whole: they are withdrawn, and an answer or a withdrawal that comes too late hears why.

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
  perform flowledger.check_text(reason, 'reason', 10000);
  perform flowledger.check_actor(actor);
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
