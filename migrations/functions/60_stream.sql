-- The runtime stream: items of owners, fenced like every other append, each load at most once however often it is sent.

-- Puts loads of many owners in one statement; gives a verdict for each: ok, fenced (not the owner any more), stopped (the stream
-- takes nothing new), full (it would have more than its limit), or busy (a row was locked: send it again). One element per load:
--   p_ids, p_epochs, p_tokens, p_numbers   the owner's lease, and the load's number within it
--   p_limits        items that the stream may have; null is no limit
--   p_visible_in    JSON arrays: the executions above a sub-flow whose streams get the items too
-- p_item_*: all items of all loads, in order. p_mark_*: retry markers for dispatches that an earlier owner may have begun: where
-- the last that is there of one is an item, its marker comes before what is new.
create or replace function flowledger.put_items(
  p_ids uuid[], p_epochs int[], p_tokens uuid[], p_numbers int[], p_limits bigint[], p_visible_in jsonb,
  p_item_loads int[], p_item_dispatches int[], p_items jsonb, p_mark_loads int[], p_mark_dispatches int[], p_mark_items jsonb)
returns table (ord int, verdict text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_at timestamptz := flowledger.now();
begin
  return query
  -- The items of a sub-flow go to every stream they are visible in at one moment, so that each has them once and in order. Where
  -- one of the rows is locked, all of them wait for the next batch.
  with load as materialized (
    select x.*, array(select jsonb_array_elements_text(x.visible_in)::uuid) as above, row_number() over (partition by x.id order by x.ord) as turn
    from rows from (unnest(p_ids, p_epochs, p_tokens, p_numbers, p_limits), jsonb_array_elements(p_visible_in)) with ordinality
      as x(id, epoch, token, number, max_items, visible_in, ord)
  ), locked as materialized (
    select l.ord, h.id, h.id = l.id as is_source, h.stream_seq as head, h.stream_no, h.epoch, h.stream_ended, h.closed_at,
      h.epoch = l.epoch and h.lease_token = l.token and h.owner is not null as is_owner
    from load l join flowledger.executions h on h.id = any(l.id || l.above)
    order by h.id for no key update of h skip locked
  ), item as materialized (
    -- Markers first: they tell what is left of an earlier attempt from what is new.
    select i.load, i.pos, i.dispatch, i.kind, i.item
    from (
      select m.load, m.ord - cardinality(p_mark_loads) as pos, m.dispatch, 'retry' as kind, m.item
      from rows from (unnest(p_mark_loads, p_mark_dispatches), jsonb_array_elements(p_mark_items)) with ordinality as m(load, dispatch, item, ord)
      where (select s.kind is null from flowledger.stream_items s
        where s.execution_id = p_ids[m.load] and s.dispatch = m.dispatch order by s.seq desc limit 1)
      union all
      select v.load, v.ord, v.dispatch, null, v.item
      from rows from (unnest(p_item_loads, p_item_dispatches), jsonb_array_elements(p_items)) with ordinality as v(load, dispatch, item, ord)
    ) i
  ), judged as materialized (
    select l.ord, l.number, n.count,
      case
        when s.id is null and not exists (select from flowledger.executions e where e.id = l.id) then 'fenced'
        -- One load of an execution at a time keeps their order.
        when s.id is null or l.turn > 1 then 'busy'
        -- A database that has forgotten our last loads lost them in a failover.
        when not coalesce(s.is_owner, false) or s.stream_no < l.number - 1 then 'fenced'
        when s.stream_no >= l.number then 'ok'
        when s.stream_ended then 'stopped'
        when s.head + n.own > l.max_items then 'full'
        when cardinality(l.above) > 0 and (select count(*) from locked k where k.ord = l.ord)
          < (select count(*) from flowledger.executions e where e.id = any(l.id || l.above)) then 'busy'
        else 'put' end as verdict
    from load l
    left join locked s on s.ord = l.ord and s.is_source
    cross join lateral (select count(*) filter (where i.kind is null) as own, count(*) as count from item i where i.load = l.ord) n
  ), takes as (
    select k.*, j.number, j.count from locked k join judged j on j.ord = k.ord and j.verdict = 'put'
    where k.is_source or k.closed_at is null and not k.stream_ended
  ), updated as (
    update flowledger.executions h
    set stream_seq = t.head + t.count, stream_no = coalesce(t.number, h.stream_no)
    -- Several sub-flows may be visible in one execution.
    from (select k.id, min(k.head) as head, sum(k.count) as count, min(k.number) filter (where k.is_source) as number from takes k group by k.id) t
    where h.id = t.id
  ), written as (
    insert into flowledger.stream_items (execution_id, seq, epoch, at, kind, dispatch, item)
    select t.id, t.head + row_number() over (partition by t.id order by t.ord, i.pos), t.epoch, v_at,
      -- Above, a dispatch's number means another one.
      coalesce(i.kind, case when not t.is_source then 'subFlow' end), case when t.is_source then i.dispatch end,
      case when i.kind = 'retry' and not t.is_source then i.item || jsonb_build_object('executionId', p_ids[t.ord]) else i.item end
    from takes t join item i on i.load = t.ord
  )
  select j.ord::int, case j.verdict when 'put' then 'ok' else j.verdict end from judged j order by j.ord;
end $$;
