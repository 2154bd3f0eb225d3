-- The runtime stream: items of owners, fenced like every other append, each load at most once however often it is sent.

-- Puts loads of many owners in one statement; gives a verdict for each: ok, fenced (not the owner any more), stopped (the stream
-- takes nothing new), full (it would have more than its limit), or busy (a row was locked: send it again). One element per load:
--   p_ids, p_epochs, p_tokens, p_numbers   the owner's lease, and the load's number within it
--   p_limits        items that the stream may have; null is no limit
--   p_visible_in    JSON arrays: the executions above a sub-flow whose streams get the items too
-- p_item_*: all items of all loads, in order, those of a load side by side. p_mark_*: retry markers for dispatches that an earlier owner may have begun: where
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
  v_items jsonb[] := array(select jsonb_array_elements(p_items));
  v_first int[];
  v_own int[];
begin
  -- Where the items of each load begin, and how many they are. What belongs to a load is found by its number in arrays, and never by
  -- joining: that would look through all of them for each.
  select array_agg(n.first order by n.load), array_agg(n.own order by n.load) into v_first, v_own
  from (
    select x.load, coalesce(min(x.pos), 1)::int as first, count(x.pos)::int as own
    from (
      select i.load, i.pos from unnest(p_item_loads) with ordinality i(load, pos)
      union all select generate_series(1, cardinality(p_ids)), null
    ) x group by x.load
  ) n;
  return query
  -- The items of a sub-flow go to every stream they are visible in at one moment, so that each has them once and in order. Where
  -- one of the rows is locked, all of them wait for the next batch.
  with load as materialized (
    select x.*, x.no::int as ord, array(select jsonb_array_elements_text(x.visible_in)::uuid) as above, row_number() over (partition by x.id order by x.no) as turn
    from rows from (unnest(p_ids, p_epochs, p_tokens), jsonb_array_elements(p_visible_in)) with ordinality
      as x(id, epoch, token, visible_in, no)
  ), locked as materialized (
    select l.ord, h.id, h.id = l.id as is_source, h.stream_seq as head, h.stream_no, h.epoch, h.stream_ended, h.closed_at,
      h.epoch = l.epoch and h.lease_token = l.token and h.owner is not null as is_owner
    from load l join flowledger.executions h on h.id = any(l.id || l.above)
    order by h.id for no key update of h skip locked
  ), mark as materialized (
    -- Before the items: they tell what is left of an earlier attempt from what is new.
    select m.load, m.ord - cardinality(p_mark_loads) as pos, m.dispatch, m.item
    from rows from (unnest(p_mark_loads, p_mark_dispatches), jsonb_array_elements(p_mark_items)) with ordinality as m(load, dispatch, item, ord)
    where (select s.kind is null from flowledger.stream_items s
      where s.execution_id = p_ids[m.load] and s.dispatch = m.dispatch order by s.seq desc limit 1)
  ), judged as materialized (
    select j.ord, v_own[j.ord] + j.marks as count,
      case
        when not j.is_locked and not exists (select from flowledger.executions e where e.id = p_ids[j.ord]) then 'fenced'
        -- One load of an execution at a time keeps their order.
        when not j.is_locked or j.turn > 1 then 'busy'
        -- A database that has forgotten our last loads lost them in a failover.
        when not coalesce(j.is_owner, false) or j.stream_no < p_numbers[j.ord] - 1 then 'fenced'
        when j.stream_no >= p_numbers[j.ord] then 'ok'
        when j.stream_ended then 'stopped'
        when j.head + v_own[j.ord] > p_limits[j.ord] then 'full'
        when j.depth > 0 and j.locked < (select count(*) from flowledger.executions e
          where e.id = any(p_ids[j.ord] || array(select jsonb_array_elements_text(p_visible_in -> (j.ord - 1))::uuid))) then 'busy'
        else 'put' end as verdict
    from (
      select p.ord, max(p.turn) as turn, max(p.depth) as depth, count(p.id) as locked, sum(p.marks) as marks,
        coalesce(bool_or(p.is_source), false) as is_locked, max(p.head) filter (where p.is_source) as head,
        max(p.stream_no) filter (where p.is_source) as stream_no, bool_or(p.is_owner) filter (where p.is_source) as is_owner,
        bool_or(p.stream_ended) filter (where p.is_source) as stream_ended
      from (
        select l.ord, l.turn, cardinality(l.above) as depth, 0 as marks, null::uuid as id, null::boolean as is_source, null::bigint as head,
          null::bigint as stream_no, null::boolean as is_owner, null::boolean as stream_ended
        from load l
        union all select k.ord, null, null, 0, k.id, k.is_source, k.head, k.stream_no, k.is_owner, k.stream_ended from locked k
        union all select m.load, null, null, 1, null, null, null, null, null, null from mark m
      ) p group by p.ord
    ) j
  ), verdicts as materialized (
    select array_agg(j.verdict = 'put' order by j.ord) as is_put, array_agg(j.count order by j.ord) as counts from judged j
  ), takes as materialized (
    select k.*, v.counts[k.ord] as count from verdicts v cross join locked k
    where v.is_put[k.ord] and (k.is_source or k.closed_at is null and not k.stream_ended)
  ), updated as (
    update flowledger.executions h
    set stream_seq = t.head + t.count, stream_no = coalesce(t.number, h.stream_no)
    -- Several sub-flows may be visible in one execution.
    from (
      select k.id, min(k.head) as head, sum(k.count) as count, min(p_numbers[k.ord]) filter (where k.is_source) as number
      from takes k group by k.id
    ) t
    where h.id = t.id
  ), written as (
    insert into flowledger.stream_items (execution_id, seq, epoch, at, kind, dispatch, item)
    select t.id, t.head + row_number() over (partition by t.id order by t.ord, t.pos), t.epoch, v_at,
      -- Above, a dispatch's number means another one.
      coalesce(t.kind, case when not t.is_source then 'subFlow' end), case when t.is_source then t.dispatch end,
      case when t.kind = 'retry' and not t.is_source then t.item || jsonb_build_object('executionId', p_ids[t.ord]) else t.item end
    from (
      select k.id, k.head, k.epoch, k.ord, k.is_source, i.pos::bigint as pos, null as kind, p_item_dispatches[i.pos] as dispatch, v_items[i.pos] as item
      from takes k cross join lateral generate_series(v_first[k.ord], v_first[k.ord] + v_own[k.ord] - 1) i(pos)
      union all
      select k.id, k.head, k.epoch, k.ord, k.is_source, m.pos, 'retry', m.dispatch, m.item from takes k join mark m on m.load = k.ord
    ) t
  )
  select j.ord, case j.verdict when 'put' then 'ok' else j.verdict end from judged j order by j.ord;
end $$;
