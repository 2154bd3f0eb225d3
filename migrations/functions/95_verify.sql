-- Copies, comparison of what is derived with the ledger, repair, and retention.

-- A new execution whose ledger is the past of another. p_header: { flow, epoch, priority, metadata, fingerprint, sealed, started,
-- begun, due, discard, closed, outcome, reason, error, snapshot, streamEnded }, folded by the caller from the same events;
-- p_events: [[epoch, ms, type, dispatch, chunk, actor, payload]], seq 1 first, each with its own time; the rows say when they
-- were copied. One that is open gets `execution.copied` behind them, and goes on at once: a delayed start at its time.
create or replace function flowledger.copy_execution(p_id uuid, p_header jsonb, p_events jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := flowledger.now();
  v_due timestamptz := flowledger.from_ms((p_header ->> 'due')::float8);
  v_discard timestamptz := flowledger.from_ms((p_header ->> 'discard')::float8);
  v_closed timestamptz := flowledger.from_ms((p_header ->> 'closed')::float8);
begin
  -- A time that is over discards nothing.
  v_discard := case when v_closed is null and (p_header ->> 'epoch')::int = 0 and v_discard > v_at then v_discard end;
  insert into flowledger.executions (id, seq, epoch, flow, priority, created_at, started_at, sealed_at, closed_at, wake_at, due_at, discard_at,
    fingerprint, metadata, outcome, close_reason, error, close_snapshot, stream_ended, parent_id)
  values (p_id, jsonb_array_length(p_events) + case when v_closed is null then 1 else 0 end, (p_header ->> 'epoch')::int, p_header ->> 'flow', 0,
    flowledger.from_ms((p_events -> 0 ->> 1)::float8), flowledger.from_ms((p_header ->> 'started')::float8),
    flowledger.from_ms((p_header ->> 'sealed')::float8), v_closed,
    case when v_closed is null then least(case when (p_header ->> 'begun')::boolean then v_at when p_header ->> 'started' is not null then greatest(v_at, v_due) end, v_discard) end,
    v_due, v_discard, p_header ->> 'fingerprint', nullif(p_header -> 'metadata', 'null'), p_header ->> 'outcome', p_header ->> 'reason',
    nullif(p_header -> 'error', 'null'), nullif(p_header -> 'snapshot', 'null'), (p_header ->> 'streamEnded')::boolean,
    (p_events -> 0 -> 6 -> 'parent' ->> 'id')::uuid);
  insert into flowledger.ledger (execution_id, seq, epoch, at, type, dispatch, chunk, actor, payload, role, copied_at)
  select p_id, v.ord, (v.event ->> 0)::int, flowledger.from_ms((v.event ->> 1)::float8), v.event ->> 2, (v.event ->> 3)::int,
    v.event ->> 4, v.event ->> 5, nullif(v.event -> 6, 'null'), flowledger.caller(), v_at
  from jsonb_array_elements(p_events) with ordinality as v(event, ord);
  if v_closed is null then
    insert into flowledger.ledger (execution_id, seq, epoch, at, type, role)
    values (p_id, jsonb_array_length(p_events) + 1, (p_header ->> 'epoch')::int, v_at, 'execution.copied', flowledger.caller());
  end if;
  perform flowledger.project(p_id, 1, false);
  perform flowledger.extend_chain(array[p_id]);
  perform flowledger.add_jobs(array[p_id]);
end $$;

-- Derived rows that are not what the ledger says: what is there, and what should be; null where there is none, or should be
-- none. What belongs to the lease is left out. p_snapshots: { id: close snapshot }, folded by the caller; p_kept:
-- [{ id, seq, state }], what kept snapshots should be.
create or replace function flowledger.differences(p_ids uuid[], p_snapshots jsonb, p_kept jsonb)
returns table (id uuid, name text, part text, actual jsonb, expected jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  with ledger_says as materialized (
    select a.execution_id as id, 'executions' as name, null as part, jsonb_build_object(
      'id', a.execution_id, 'seq', a.last_seq, 'flow', a.flow, 'fingerprint', a.fingerprint, 'priority', coalesce((c.payload -> 'priority')::int, 0),
      'idempotency_key', c.payload -> 'idempotencyKey', 'limit_key', (select l.payload -> 'limitKey' from flowledger.ledger l
        where l.execution_id = a.execution_id and l.type = 'execution.started' limit 1), 'parent_id', a.parent_id, 'metadata', a.metadata,
      'created_at', a.created_at, 'started_at', a.started_at, 'sealed_at', a.sealed_at, 'closed_at', a.closed_at,
      'outcome', case when a.closed_at is not null then a.status end, 'close_reason', a.close_reason, 'error', nullif(a.error, 'null'),
      'close_snapshot', case when a.closed_at is not null then coalesce(p_snapshots -> a.execution_id::text, flowledger.close_snapshot(a.execution_id)) end,
      'epoch', greatest((select e.epoch from flowledger.executions e where e.id = a.execution_id),
        (select max(l.epoch) from flowledger.ledger l where l.execution_id = a.execution_id)),
      'stream_ended', exists (select from flowledger.ledger l where l.execution_id = a.execution_id and l.type = 'stream.stopped'),
      'stream_seq', (select coalesce(max(i.seq), 0) from flowledger.stream_items i where i.execution_id = a.execution_id),
      'pending_interrupts', case when a.closed_at is null then flowledger.pending_in(a.execution_id) else 0 end,
      'parked', case when a.closed_at is null then (select count(*) from flowledger.parked_of(a.execution_id)) else 0 end,
      'due_at', case when a.closed_at is null then flowledger.due_of(a.execution_id) else e.due_at end,
      'discard_at', case when a.closed_at is null and coalesce(e.epoch, 0) = 0 then flowledger.discard_of(a.execution_id) else e.discard_at end) as value
    from flowledger.audit_executions a
    join flowledger.ledger c on c.execution_id = a.execution_id and c.seq = 1
    left join flowledger.executions e on e.id = a.execution_id
    where a.execution_id = any(p_ids)
    union all
    select i.execution_id, 'interrupts', i.id, to_jsonb(i)
    from (select distinct l.execution_id, l.payload ->> 'id' as id from flowledger.ledger l where l.execution_id = any(p_ids) and l.type = 'interrupt.raised') r
    cross join lateral flowledger.interrupt_of(r.execution_id, r.id) i
    union all
    select i.execution_id, 'assignments', i.id, jsonb_agg(jsonb_build_object('principal', p.principal, 'due_at', coalesce(i.due_at, 'infinity'), 'created_at', i.created_at) order by p.principal)
    from (select distinct l.execution_id, l.payload ->> 'id' as id from flowledger.ledger l where l.execution_id = any(p_ids) and l.type = 'interrupt.raised') r
    cross join lateral flowledger.interrupt_of(r.execution_id, r.id) i cross join lateral unnest(i.assignees) p(principal)
    where i.status = 'pending' group by i.execution_id, i.id
    union all
    select v.execution_id, 'interventions', v.version::text, to_jsonb(v)
    from flowledger.ledger r
    cross join lateral flowledger.intervention_of(r.execution_id, r.payload ->> 'id') v
    where r.execution_id = any(p_ids) and r.type = 'intervention.recorded'
    union all
    select s.execution_id, 'snapshots', null, jsonb_build_object('execution_id', s.execution_id, 'seq', s.seq, 'version', s.version, 'state', k.state)
    from jsonb_to_recordset(p_kept) as k(id uuid, seq int, state jsonb)
    join flowledger.snapshots s on s.execution_id = k.id and s.seq = k.seq
    where k.state is not null
  ), there as materialized (
    select e.id, 'executions' as name, null as part,
      to_jsonb(e) - '{commit_no,commit_seq,stream_no,takeovers,owner,lease_token,wake_at,job_at,lifecycle,status,closed_version}'::text[] as value
    from flowledger.executions e where e.id = any(p_ids)
    union all
    select i.execution_id, 'interrupts', i.id, to_jsonb(i) from flowledger.interrupts i where i.execution_id = any(p_ids)
    union all
    select a.execution_id, 'assignments', a.interrupt_id, jsonb_agg(jsonb_build_object('principal', a.principal, 'due_at', a.due_at, 'created_at', a.created_at) order by a.principal)
    from flowledger.assignments a where a.execution_id = any(p_ids) group by a.execution_id, a.interrupt_id
    union all
    select i.execution_id, 'interventions', i.version::text, to_jsonb(i) from flowledger.interventions i where i.execution_id = any(p_ids)
    union all
    select s.execution_id, 'snapshots', null, to_jsonb(s)
    from jsonb_to_recordset(p_kept) as k(id uuid, seq int) join flowledger.snapshots s on s.execution_id = k.id and s.seq = k.seq
  )
  select coalesce(t.id, l.id), coalesce(t.name, l.name), coalesce(t.part, l.part), t.value, l.value
  from there t full join ledger_says l on l.id = t.id and l.name = t.name and coalesce(l.part, '') = coalesce(t.part, '')
  where l.value is distinct from t.value
$$;

-- Before what time its start is not, by the ledger.
create or replace function flowledger.due_of(p_id uuid) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select flowledger.from_ms((l.payload ->> 'dueAt')::float8) from flowledger.ledger l
  where l.execution_id = p_id and l.type in ('execution.created', 'execution.started', 'execution.rescheduled') and l.payload ? 'dueAt'
  order by l.seq desc limit 1
$$;

-- When it is discarded unless a worker takes it before, by the ledger: what was over when it was copied does not count.
create or replace function flowledger.discard_of(p_id uuid) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select flowledger.from_ms((c.payload -> 'settings' ->> 'discardAt')::float8) from flowledger.ledger c
  where c.execution_id = p_id and c.seq = 1 and not exists (
    select from flowledger.ledger l where l.execution_id = p_id and l.type = 'execution.copied' and l.payload ->> 'id' is null
      and flowledger.to_ms(l.at) >= (c.payload -> 'settings' ->> 'discardAt')::float8)
$$;

-- Nobody has taken it, and nothing has come in but its start, and what gives nobody anything to do.
create or replace function flowledger.is_untouched(p_id uuid) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select not exists (
    select from flowledger.ledger l where l.execution_id = p_id
      and l.type not in ('execution.created', 'execution.started', 'execution.rescheduled', 'execution.copied', 'state.edited', 'execution.paused', 'execution.unpaused', 'execution.redriven', 'intervention.recorded', 'intervention.consumed', 'interrupt.answered')
      and not (l.type = 'execution.sealed' and not coalesce(l.payload ? 'close', false)))
$$;

-- Puts right what `differences` finds, and returns that. The rows are locked, so live owners wait; the ledger is only read.
create or replace function flowledger.rebuild(p_ids uuid[], p_snapshots jsonb, p_kept jsonb)
returns table (id uuid, name text, part text, actual jsonb, expected jsonb)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  d record;
begin
  perform from flowledger.executions e where e.id = any(p_ids) order by e.id for no key update;
  for d in select x.* from flowledger.differences(p_ids, p_snapshots, p_kept) x loop
    case d.name
    when 'executions' then
      -- A header that was gone, or wrong, may be asleep for that: the sweep gives it an owner, who decides.
      insert into flowledger.executions as e (id, seq, flow, created_at)
      select r.id, r.seq, r.flow, r.created_at from jsonb_populate_record(null::flowledger.executions, d.expected) r
      on conflict (id) do nothing;
      update flowledger.executions e
      set (seq, flow, created_at, fingerprint, priority, idempotency_key, limit_key, parent_id, metadata, started_at, sealed_at, closed_at, outcome,
          close_reason, error, close_snapshot, epoch, stream_ended, stream_seq, pending_interrupts, parked, due_at, discard_at, wake_at)
        = (select r.seq, r.flow, r.created_at, r.fingerprint, r.priority, r.idempotency_key, r.limit_key, r.parent_id, r.metadata, r.started_at, r.sealed_at,
            r.closed_at, r.outcome, r.close_reason, r.error, r.close_snapshot, r.epoch, r.stream_ended, r.stream_seq, r.pending_interrupts, r.parked,
            r.due_at, r.discard_at,
            -- A closed execution is due only until its relatives have heard of it; a header that was gone tells them once more.
            case when r.closed_at is not null then case when d.actual is null then flowledger.now() else e.wake_at end
              when e.owner is not null then e.wake_at
              when flowledger.is_untouched(r.id) then least(e.wake_at, r.discard_at, case when r.started_at is not null then greatest(r.started_at, r.due_at) end)
              else coalesce(e.wake_at, flowledger.now()) end
          from jsonb_populate_record(null::flowledger.executions, d.expected) r)
      where e.id = d.id;
    when 'interrupts' then
      delete from flowledger.interrupts i where i.execution_id = d.id and i.id = d.part;
      insert into flowledger.interrupts select r.* from jsonb_populate_record(null::flowledger.interrupts, d.expected) r where d.expected is not null;
    when 'assignments' then
      delete from flowledger.assignments a where a.execution_id = d.id and a.interrupt_id = d.part;
      insert into flowledger.assignments (principal, due_at, created_at, execution_id, interrupt_id)
      select r.principal, r.due_at, r.created_at, d.id, d.part
      from jsonb_to_recordset(coalesce(d.expected, '[]')) as r(principal text, due_at timestamptz, created_at timestamptz);
    when 'interventions' then
      delete from flowledger.interventions i where i.execution_id = d.id and i.version = d.part::int;
      insert into flowledger.interventions select r.* from jsonb_populate_record(null::flowledger.interventions, d.expected) r where d.expected is not null;
    else
      delete from flowledger.snapshots s where s.execution_id = d.id;
      insert into flowledger.snapshots select r.* from jsonb_populate_record(null::flowledger.snapshots, d.expected) r where d.expected is not null;
    end case;
    id := d.id; name := d.name; part := d.part; actual := d.actual; expected := d.expected;
    return next;
  end loop;
end $$;

-- Where ledgers are not what their chain says: each row, or the first one from which on it does not hold.
create or replace function flowledger.broken_chains(p_ids uuid[]) returns table (id uuid, seq int, problem text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
set client_encoding = 'UTF8'
as $$
  with link as (
    select c.execution_id as id, c.seq as until, c.hash, c.marks, lag(c.seq, 1, 0) over w as after, lag(c.hash, 1, '') over w as before
    from flowledger.chain c where c.execution_id = any(p_ids)
    window w as (partition by c.execution_id order by c.seq)
  ), broken as materialized (
    select link.* from link
    cross join lateral (
      select coalesce(string_agg(o.hash, ''), '') as hashes
      from (select h.hash from flowledger.ledger_hashes h where h.execution_id = link.id and h.seq > link.after and h.seq <= link.until order by h.seq offset 0) o
    ) now
    where sha256(link.before || now.hashes) <> link.hash or length(link.marks) <> (link.until - link.after) * 4
  ), row_problem as materialized (
    select b.id, g.seq, b.until, case when h.hash is null then 'was deleted' else 'was rewritten' end as problem
    from broken b cross join lateral generate_series(b.after + 1, b.until) as g(seq)
    left join flowledger.ledger_hashes h on h.execution_id = b.id and h.seq = g.seq
    where substr(h.hash, 1, 4) is distinct from substr(b.marks, (g.seq - b.after - 1) * 4 + 1, 4)
  )
  select r.id, r.seq, r.problem from row_problem r
  union all
  -- No row has another mark, and yet: a link that was changed, or the one before it.
  select b.id, b.after + 1, format('and the rows up to seq %s are not what their link says', b.until)
  from broken b where not exists (select from row_problem r where r.id = b.id and r.until = b.until)
  union all
  select l.execution_id, coalesce(c.until, 0) + 1, 'and what follows is in no link, but the execution is closed'
  from flowledger.ledger l
  left join (select x.execution_id, max(x.seq) as until from flowledger.chain x where x.execution_id = any(p_ids) group by x.execution_id) c
    on c.execution_id = l.execution_id
  where l.execution_id = any(p_ids) and l.type = 'execution.closed'
    and exists (select from flowledger.ledger o where o.execution_id = l.execution_id and o.seq > coalesce(c.until, 0))
  order by 1, 2
$$;

-- Anchors what all chains say now: the rows of one anchor are the last link of each execution whose chain has grown since the one
-- before, and the hash of the anchor covers them and the anchor before. Kept outside of the database, that hash tells of whoever
-- rewrites ledgers together with their chains. It needs the schema's owner.
create or replace function flowledger.anchor() returns table (number int, at timestamptz, executions int, hash text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_nil uuid := '00000000-0000-0000-0000-000000000000';
begin
  perform flowledger.lock_table('anchors', 'the list of anchors');
  number := coalesce((select max(a.number) from flowledger.anchors a), 0) + 1;
  at := flowledger.wall_clock();
  insert into flowledger.anchors (number, execution_id, seq, hash)
  select anchor.number, c.execution_id, c.seq, c.hash
  from (select distinct on (x.execution_id) x.execution_id, x.seq, x.hash from flowledger.chain x order by x.execution_id, x.seq desc) c
  where not exists (select from flowledger.anchors a where a.execution_id = c.execution_id and a.seq >= c.seq);
  get diagnostics executions = row_count;
  insert into flowledger.anchors (number, execution_id, seq, hash, at, by)
  values (anchor.number, v_nil, executions, flowledger.anchor_hash(anchor.number), anchor.at, flowledger.caller());
  hash := encode(flowledger.anchor_hash(number), 'hex');
  return next;
end $$;

-- The hash of an anchor, from its rows and from what the anchor before says its own is.
create or replace function flowledger.anchor_hash(p_number int) returns bytea
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select sha256(
    coalesce((select p.hash from flowledger.anchors p where p.number = p_number - 1 and p.execution_id = '00000000-0000-0000-0000-000000000000'), '')
    || coalesce((select string_agg(uuid_send(a.execution_id) || int4send(a.seq) || a.hash, '' order by a.execution_id)
      from flowledger.anchors a where a.number = p_number and a.execution_id <> '00000000-0000-0000-0000-000000000000'), ''))
$$;

-- Where chains are not what an anchor says they were, or anchors not what they were: whole, and for one execution what is anchored
-- of it. p_kept: anchors as they were kept outside, [{ number, hash }].
create or replace function flowledger.broken_anchors(p_id uuid, p_kept jsonb) returns table (id uuid, problem text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  with head as materialized (
    select a.number, a.seq, a.hash, a.at from flowledger.anchors a where a.execution_id = '00000000-0000-0000-0000-000000000000'
  )
  select null::uuid, format('anchor %s is not what its rows and the anchor before it make', h.number)
  from head h
  where p_id is null and (h.hash <> flowledger.anchor_hash(h.number)
    or h.seq <> (select count(*) from flowledger.anchors a where a.number = h.number) - 1
    or h.number > 1 and not exists (select from head b where b.number = h.number - 1))
  union all
  select null, format('anchor %s has no row of its own', a.number)
  from flowledger.anchors a where p_id is null and not exists (select from head h where h.number = a.number) group by a.number
  union all
  select null, case when h.number is null then format('anchor %s, which was kept, is gone', k.number)
    else format('anchor %s has hash %s, and was kept with %s', k.number, encode(h.hash, 'hex'), left(k.hash, 64)) end
  from jsonb_to_recordset(p_kept) k(number int, hash text) left join head h on h.number = k.number
  where p_id is null and encode(h.hash, 'hex') is distinct from k.hash
  union all
  select a.execution_id, format('its chain up to seq %s %s what anchor %s says', a.seq, case when c.hash is null then 'is gone, against' else 'is not' end, a.number)
  from flowledger.anchors a
  left join head h on h.number = a.number
  left join flowledger.chain c on c.execution_id = a.execution_id and c.seq = a.seq
  where a.execution_id <> '00000000-0000-0000-0000-000000000000' and (p_id is null or a.execution_id = p_id) and c.hash is distinct from a.hash
    -- An execution that was pruned since then went as a whole.
    and not (c.hash is null and not exists (select from flowledger.executions e where e.id = a.execution_id)
      and exists (select from flowledger.prunes p where a.execution_id between p.first and p.last and p.at >= h.at))
  order by 1, 2
$$;

-- Which of these an open copy goes on from: what it called, or its items, by its own ledger. Their results are nowhere else.
create or replace function flowledger.needed_by_copies(p_ids uuid[]) returns setof uuid
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with named as materialized (
    select s.payload from flowledger.ledger c
    join flowledger.executions o on o.id = c.execution_id and o.closed_at is null
    join flowledger.ledger s on s.execution_id = o.id and s.type in ('child.started', 'items.started')
    where c.seq = 1 and c.type = 'execution.created' and c.payload ? 'forkedFrom'
  )
  select i from unnest(p_ids) i
  where exists (
    select from named n where n.payload ->> 'child' = i::text
      or left(i::text, 28) in (select left(b, 28) from jsonb_array_elements_text(coalesce(n.payload -> 'earlier', '[]') || (n.payload -> 'base')) b))
$$;

-- Removes the closed executions that somebody names, as who asked for it and why: a person's right to be forgotten. Their sub-flows go
-- with them. Each leaves a row in `prunes`, which lets its ledger be deleted.
create or replace function flowledger.prune(p_ids uuid[], p_actor text, p_reason text) returns table (executions int, events int, items int)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids uuid[];
  v_id uuid;
begin
  if coalesce(flowledger.seen_of(p_actor), '') = '' or coalesce(flowledger.seen_of(p_reason), '') = '' then
    raise exception 'pruning by ids needs an actor and a reason' using errcode = 'FL008', hint = 'say who asked for it, and why';
  end if;
  perform flowledger.check_actor(p_actor);
  perform flowledger.check_text(p_reason, 'reason', 10000);
  if coalesce(cardinality(p_ids), 0) = 0 then
    raise exception 'pruning by ids needs at least one id' using errcode = 'FL008', hint = 'pass the ids of closed executions';
  end if;
  v_ids := array(
    with recursive relatives as (
      select unnest(p_ids) as id
      union
      select c.id from relatives f join flowledger.executions c on c.parent_id = f.id
    )
    select l.id from (select r.id from relatives r order by r.id) i cross join lateral flowledger.lock_execution(i.id) l where l.id is not null);
  -- Behind the locks: somebody else may have pruned one meanwhile.
  select i into v_id from unnest(p_ids) i where i is null or not i = any(v_ids) limit 1;
  if found then
    raise exception 'execution % does not exist', v_id
      using errcode = 'FL001', detail = coalesce(v_id::text, 'null'),
        hint = 'check the id, and that you are connected to the database it was started in';
  end if;
  select i into v_id from unnest(p_ids) i join flowledger.executions e on e.id = i join flowledger.executions p on p.id = e.parent_id
  where p.closed_at is null limit 1;
  if found then
    raise exception 'execution % cannot be pruned while its parent is open', v_id using errcode = 'FL008', hint = 'prune the parent, once it has closed';
  end if;
  select e.id into v_id from flowledger.executions e where e.id = any(v_ids) and e.closed_at is null order by e.id = any(p_ids) desc, e.id limit 1;
  if found then
    raise exception 'execution % is open and cannot be pruned', v_id using errcode = 'FL008', hint = 'cancel it, and prune it once it has closed';
  end if;
  select n into v_id from flowledger.needed_by_copies(v_ids) n order by n limit 1;
  if found then
    raise exception 'execution % cannot be pruned while a copy of what called it is open: that goes on from its result', v_id
      using errcode = 'FL008', hint = 'cancel the copy, or prune it once that has closed';
  end if;
  executions := cardinality(v_ids);
  events := (select count(*) from flowledger.ledger l where l.execution_id = any(v_ids));
  insert into flowledger.prunes (at, by, transaction, closed_before, keep, first, last, executions, events, actor, reason)
  select flowledger.wall_clock(), flowledger.caller(), pg_current_xact_id(), e.closed_at, '{}', e.id, e.id, 1,
    (select count(*) from flowledger.ledger l where l.execution_id = e.id), p_actor, p_reason
  from flowledger.executions e where e.id = any(v_ids);
  items := flowledger.remove_executions(v_ids);
  return next;
end $$;

-- Deletes executions with all they have, and says how many stream items went. A row in `prunes` of the same transaction lets it.
create or replace function flowledger.remove_executions(p_ids uuid[]) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_items int;
begin
  delete from flowledger.ledger l where l.execution_id = any(p_ids);
  delete from flowledger.stream_items i where i.execution_id = any(p_ids);
  get diagnostics v_items = row_count;
  delete from flowledger.chain c where c.execution_id = any(p_ids);
  delete from flowledger.snapshots s where s.execution_id = any(p_ids);
  delete from flowledger.interrupts i where i.execution_id = any(p_ids);
  delete from flowledger.assignments a where a.execution_id = any(p_ids);
  delete from flowledger.interventions i where i.execution_id = any(p_ids);
  delete from flowledger.bulk_results r where r.execution_id = any(p_ids);
  delete from flowledger.bulk_targets t where t.execution_id = any(p_ids);
  delete from flowledger.bulks b where b.execution_id = any(p_ids);
  delete from flowledger.executions e where e.id = any(p_ids);
  return v_items;
end $$;

-- Removes closed executions with all they have, and says in `prunes` what went: that row is what lets the ledger be deleted. It
-- needs the right to delete, which the roles do not have. An execution stays as long as its parent, which a redrive lets go on from its
-- result, and where p_keep names its status, its flow or its metadata: { status: [], flow: [], metadata: {} }.
create or replace function flowledger.prune(p_closed_before timestamptz, p_keep jsonb, p_after uuid, p_limit int)
returns table (last uuid, executions int, events int, items int)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids uuid[];
  v_before int;
begin
  -- A misspelt option would keep nothing.
  perform flowledger.check_options(p_keep, 'keep of prune()', '{status,flow,metadata}', '{"status": ["failed"]}');
  if p_closed_before is null or not isfinite(p_closed_before) then
    raise exception 'pruning needs a moment before which executions closed, got %', coalesce(p_closed_before::text, 'null') using errcode = 'FL008', hint = 'pass one like ''2026-01-31''';
  elsif p_after is null or (p_limit > 0) is not true then
    raise exception 'pruning needs an id to begin after, and a number of executions, got % and %', coalesce(p_after::text, 'null'), coalesce(p_limit::text, 'null')
      using errcode = 'FL008', hint = 'begin with ''00000000-0000-0000-0000-000000000000'' and 500';
  end if;
  perform flowledger.check_json(p_keep -> 'metadata', 'metadata in keep of prune()');
  if jsonb_typeof(coalesce(p_keep -> 'metadata', '{}')) <> 'object' then
    raise exception 'metadata in keep of prune() is not an object' using errcode = 'FL008', hint = 'pass {"key": "value"}';
  elsif jsonb_typeof(coalesce(p_keep -> 'status', '[]')) <> 'array' or not coalesce(p_keep -> 'status' <@ '["completed", "failed", "cancelled"]', true) then
    raise exception 'status in keep of prune() must be a list of completed, failed and cancelled, got %', left((p_keep -> 'status')::text, 40) using errcode = 'FL008', hint = 'pass {"status": ["failed"]}';
  elsif jsonb_typeof(coalesce(p_keep -> 'flow', '[]')) <> 'array' or jsonb_path_exists(p_keep -> 'flow', 'strict $[*] ? (@.type() != "string" || @ == "")') then
    raise exception 'flow in keep of prune() must be a list of names, got %', left((p_keep -> 'flow')::text, 40) using errcode = 'FL008', hint = 'pass {"flow": ["review"]}';
  end if;
  v_ids := array(
    select e.id from flowledger.executions e
    where e.closed_at < p_closed_before and e.id > p_after
      and not coalesce(p_keep -> 'status' ? e.outcome, false)
      and not coalesce(p_keep -> 'flow' ? e.flow, false)
      and not coalesce(e.metadata @> (p_keep -> 'metadata'), false)
      and not exists (select from flowledger.executions p where p.id = e.parent_id and p.closed_at is null)
    order by e.id limit p_limit for update skip locked);
  last := v_ids[cardinality(v_ids)];
  v_ids := array(select i from unnest(v_ids) i where not i in (select flowledger.needed_by_copies(v_ids)) order by i);
  loop
    v_before := cardinality(v_ids);
    v_ids := array(
      select e.id from flowledger.executions e
      where e.id = any(v_ids) and (e.parent_id = any(v_ids) or not exists (select from flowledger.executions p where p.id = e.parent_id)) order by e.id);
    exit when cardinality(v_ids) = v_before;
  end loop;
  executions := cardinality(v_ids);
  events := 0;
  items := 0;
  if executions > 0 then
    events := (select count(*) from flowledger.ledger l where l.execution_id = any(v_ids));
    insert into flowledger.prunes (at, by, transaction, closed_before, keep, first, last, executions, events)
    values (flowledger.wall_clock(), flowledger.caller(), pg_current_xact_id(), p_closed_before, p_keep, v_ids[1], v_ids[executions], prune.executions, prune.events);
    items := flowledger.remove_executions(v_ids);
  end if;
  return next;
end $$;
