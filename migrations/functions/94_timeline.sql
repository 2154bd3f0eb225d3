-- The timeline of an execution, a row for each run of a chunk, step, pause, sleep and child, in the order in which they came about. Attempts
-- are in their row. It follows from the ledger alone; values and payloads stay where they are.
create or replace function flowledger.timeline(id uuid, after text default null, max int default 100) returns setof jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_seq int := 0;
  v_place int := 0;
begin
  -- As `timeline()` of the library.
  if (max between 1 and 1000) is not true then
    raise exception 'max of a timeline must be an integer from 1 to 1000, got %', coalesce(max::text, 'null') using errcode = 'FL008', hint = 'go on with the cursor of the last row';
  end if;
  if after is not null then
    if after !~ '^[0-9]{1,9}\.[0-9]{1,9}$' then
      raise exception 'cursor % is not a cursor of a timeline', to_json(left(after, 40))::text using errcode = 'FL008', hint = 'use the one that the page before gave';
    end if;
    v_seq := split_part(after, '.', 1)::int;
    v_place := split_part(after, '.', 2)::int;
  end if;
  if not exists (select from flowledger.ledger l where l.execution_id = timeline.id and l.seq = 1) then
    raise exception 'execution % does not exist', timeline.id
      using errcode = 'FL001', hint = 'check the id, and that you are connected to the database it was started in';
  end if;
  return query
  with l as materialized (
    select e.seq, e.at, e.type, e.dispatch, e.chunk, e.payload - 'output' - 'value' - 'payload' - 'response' - 'moves' as p, e.payload -> 'moves' as moves
    from flowledger.ledger e
    where e.execution_id = timeline.id and (e.payload ? 'moves' or e.type in ('chunk.completed', 'chunk.failed', 'chunk.interrupted', 'chunk.parked', 'chunk.retried', 'chunk.skipped', 'value.routed',
      'cleanup.planned', 'cleanup.completed', 'cleanup.failed',
      'step.completed', 'step.failed', 'sleep.started', 'interrupt.raised', 'child.started', 'child.closed', 'items.started', 'execution.closed'))
  ), closing as (
    select min(x.at) as at from l x where x.type = 'execution.closed'
  ), planned as (
    select x.seq, x.at, (m.m ->> 'id')::int as dispatch, m.m ->> 'chunk' as chunk
    from l x cross join lateral jsonb_array_elements(x.moves) m(m) where m.m ->> 'move' = 'run' and m.m ->> 'chunk' is not null
    union all
    select x.seq, x.at, (m.m ->> 'id')::int + i.i * jsonb_array_length(m.m -> 'entries') + n.ord::int, n.entry ->> 'chunk'
    from l x cross join lateral jsonb_array_elements(x.moves) m(m)
    cross join lateral generate_series(0, case when jsonb_array_length(m.m -> 'entries') > 0 then (m.m ->> 'size')::int / jsonb_array_length(m.m -> 'entries') else 0 end - 1) i(i)
    cross join lateral jsonb_array_elements(m.m -> 'entries') with ordinality n(entry, ord)
    where m.m ->> 'move' = 'open' and n.entry ->> 'chunk' is not null
    union all
    -- Cleanup after a cancel; the flow's own handler has no chunk.
    select x.seq, x.at, (r.run ->> 'id')::int, coalesce(r.run ->> 'chunk', 'onCancel')
    from l x cross join lateral jsonb_array_elements(x.p -> 'runs') r(run) where x.type = 'cleanup.planned'
  ), shown as (
    -- Its attempts are gathered for this page alone.
    select p.* from planned p where (p.seq, p.dispatch) > (v_seq, v_place) order by p.seq, p.dispatch limit timeline.max
  ), ran as (
    select x.*, lag(x.type) over (partition by x.dispatch order by x.seq) as before from l x
    where x.type in ('chunk.completed', 'chunk.failed', 'chunk.interrupted', 'chunk.parked', 'chunk.retried', 'chunk.skipped', 'interrupt.raised', 'cleanup.completed', 'cleanup.failed')
      and x.dispatch in (select h.dispatch from shown h)
  ), tried as (
    select x.dispatch, min((x.p ->> 'queuedAt')::float8) as queued, min((x.p ->> 'startedAt')::float8) as started,
      max(x.at) filter (where x.type in ('chunk.completed', 'chunk.skipped', 'interrupt.raised', 'cleanup.completed', 'cleanup.failed')
        or x.type = 'chunk.failed' and not x.p ? 'retryInMs') as ended,
      (array_agg(x.type order by x.seq desc))[1] as last,
      jsonb_agg(jsonb_build_object('attempt', x.p -> 'attempt',
        'status', case when x.type = 'interrupt.raised' then 'paused' else split_part(x.type, '.', 2) end,
        'queuedAt', flowledger.iso(flowledger.from_ms((x.p ->> 'queuedAt')::float8)), 'startedAt', flowledger.iso(flowledger.from_ms((x.p ->> 'startedAt')::float8)),
        'endedAt', flowledger.iso(x.at), 'error', flowledger.error_of(x.p -> 'error')) order by x.seq)
        -- A parked chunk fails in the end without another attempt.
        filter (where x.type not in ('chunk.retried', 'chunk.skipped') and not (x.type = 'chunk.failed' and x.before is not distinct from 'chunk.parked')) as attempts
    from ran x group by x.dispatch
  ), begun as (
    -- An attempt that was cut off while it waited began again when that was over; what it had done by then tells of its beginning.
    select x.dispatch, min(x.at) as at from l x
    where x.type in ('sleep.started', 'step.completed', 'step.failed', 'child.started', 'items.started') and x.dispatch in (select h.dispatch from shown h)
    group by x.dispatch
  ), begun_steps as (
    select min(x.seq) as seq, x.dispatch, x.p -> 'ordinal' as ordinal from l x where x.type in ('step.completed', 'step.failed')
    group by x.dispatch, x.p -> 'ordinal' having (min(x.seq), 0) > (v_seq, v_place) order by 1 limit timeline.max
  ), steps as (
    select min(x.seq) as seq, x.dispatch, max(x.chunk) as chunk, (array_agg(x.p ->> 'name' order by x.seq))[1] as name,
      max(x.at) filter (where x.type = 'step.completed' or not x.p ? 'retryInMs') as ended,
      (array_agg(x.type order by x.seq desc))[1] as last,
      jsonb_agg(jsonb_build_object('attempt', x.p -> 'attempt', 'status', split_part(x.type, '.', 2), 'queuedAt', null, 'startedAt', null,
        'endedAt', flowledger.iso(x.at), 'error', flowledger.error_of(x.p -> 'error')) order by x.seq) as attempts
    from l x join begun_steps b on b.dispatch = x.dispatch and b.ordinal = x.p -> 'ordinal'
    where x.type in ('step.completed', 'step.failed') group by x.dispatch, x.p -> 'ordinal'
  ), entries as (
    select p.seq, p.dispatch as place, jsonb_build_object('kind', 'chunk', 'chunk', p.chunk, 'dispatch', p.dispatch,
      'status', case when t.ended is null then case when c.at is not null then 'dropped' when t.last = 'chunk.parked' then 'parked' else 'open' end
        when t.last = 'interrupt.raised' then 'paused' else split_part(t.last, '.', 2) end,
      'queuedAt', flowledger.iso(least(p.at, flowledger.from_ms(t.queued))), 'startedAt', flowledger.iso(least(flowledger.from_ms(t.started), b.at)),
      'endedAt', flowledger.iso(coalesce(t.ended, c.at)), 'attempts', coalesce(t.attempts, '[]')) as entry
    from shown p cross join closing c left join tried t on t.dispatch = p.dispatch left join begun b on b.dispatch = p.dispatch
    union all
    select s.seq, 0, jsonb_build_object('kind', 'step', 'step', s.name, 'chunk', s.chunk, 'dispatch', s.dispatch,
      'status', case when s.ended is null then case when c.at is null then 'open' else 'dropped' end else split_part(s.last, '.', 2) end,
      'queuedAt', null, 'startedAt', null, 'endedAt', flowledger.iso(coalesce(s.ended, c.at)), 'attempts', s.attempts)
    from steps s cross join closing c
    union all
    select x.seq, 0, jsonb_build_object('kind', 'sleep', 'chunk', x.chunk, 'dispatch', x.dispatch,
      'status', case when x.until <= coalesce(c.at, flowledger.now()) then 'completed' when c.at is null then 'open' else 'dropped' end,
      'queuedAt', flowledger.iso(x.at), 'startedAt', flowledger.iso(x.at), 'until', flowledger.iso(x.until), 'endedAt', case when least(x.until, c.at) <= flowledger.now() then flowledger.iso(least(x.until, c.at)) end)
    from (
      select s.*, coalesce(flowledger.from_ms((s.p ->> 'until')::float8), s.at + flowledger.ms((s.p ->> 'forMs')::float8)) as until
      from l s where s.type = 'sleep.started') x cross join closing c
    union all
    select r.seq, 0, jsonb_build_object('kind', 'wait', 'interruptId', r.interrupt, 'type', i.type, 'chunk', r.chunk, 'dispatch', r.dispatch, 'status', i.status,
      'queuedAt', flowledger.iso(i.created_at), 'startedAt', flowledger.iso(i.created_at), 'until', flowledger.iso(i.expires_at), 'endedAt', flowledger.iso(i.resolved_at),
      'actor', i.actor)
      || case when i.title is null and i.assignees is null and i.due_at is null and i.claimed_by is null then '{}'
        else jsonb_strip_nulls(jsonb_build_object('title', i.title, 'assignees', i.assignees, 'dueAt', flowledger.iso(i.due_at), 'claimedBy', i.claimed_by)) end
    from (
      select w.* from (
        select x.seq, x.chunk, x.dispatch, x.p ->> 'id' as interrupt, lead(x.seq) over (partition by x.p ->> 'id' order by x.seq) as next
        from l x where x.type = 'interrupt.raised') w
      where (w.seq, 0) > (v_seq, v_place) order by w.seq limit timeline.max) r
    cross join lateral flowledger.interrupt_of(timeline.id, r.interrupt, coalesce(r.next - 1, 2147483647)) i
    union all
    select x.seq, 0, jsonb_build_object('kind', 'child', 'executionId', x.p -> 'child', 'flow', x.p -> 'flow', 'dispatch', x.dispatch,
      'status', coalesce(d.p ->> 'outcome', case when c.at is null then 'open' else 'dropped' end),
      'queuedAt', flowledger.iso(x.at), 'startedAt', flowledger.iso(x.at), 'endedAt', flowledger.iso(coalesce(d.at, c.at)), 'error', flowledger.error_of(d.p -> 'error'))
    from l x cross join closing c left join l d on d.type = 'child.closed' and d.p -> 'child' = x.p -> 'child' where x.type = 'child.started'
    union all
    select x.seq, 0, jsonb_build_object('kind', 'items', 'size', x.p -> 'size', 'dispatch', x.dispatch,
      'status', case when d.at is not null then 'completed' when c.at is null then 'open' else 'dropped' end,
      'queuedAt', flowledger.iso(x.at), 'startedAt', flowledger.iso(x.at), 'endedAt', flowledger.iso(coalesce(d.at, c.at)))
    from l x cross join closing c left join l d on d.type = 'value.routed' and d.dispatch = x.dispatch where x.type = 'items.started'
  )
  select n.entry || jsonb_build_object('cursor', n.seq || '.' || n.place) from entries n
  where (n.seq, n.place) > (v_seq, v_place) order by n.seq, n.place limit timeline.max;
end $$;
