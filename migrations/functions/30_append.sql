-- The group commit: appends of many executions in one statement, each accepted or refused alone.

-- The fencing UPDATE comes first and takes the row locks, in id order because the caller sorts by id. One element per item:
--   p_ids, p_epochs, p_tokens, p_commit_nos, p_bases   the owner's lease, the number of its commit, and the seq it knows
--   p_counts, p_conditionals   events of the item, and how many of the last ones count only if nothing came in meanwhile; so do
--                              the close and the release
--   p_progress, p_sealed, p_stream_ended, p_people, p_fingerprints   what its events do to the header, as `headerOf` says it
--   p_outcomes, p_reasons, p_errors, p_close_snapshots, p_relatives  how it closes, and whether relatives must hear of that
--   p_releases, p_wakes_ms     given back, to wake up in so many milliseconds; null for only by something from outside
--   p_state_seqs, p_states     folded state to keep
-- p_event_*: all events of all items, in item order. p_skip_locked: leave rows that somebody else has locked for the next batch,
-- instead of waiting for them. Rows that are missing in the answer were not ours, or locked: ask `append_verdict`.
create or replace function flowledger.append(
  p_ids uuid[], p_epochs int[], p_tokens uuid[], p_commit_nos int[], p_bases int[], p_counts int[], p_conditionals int[],
  p_progress boolean[], p_sealed boolean[], p_stream_ended boolean[], p_people boolean[], p_fingerprints text[],
  p_outcomes text[], p_reasons text[], p_errors jsonb, p_close_snapshots jsonb, p_relatives boolean[],
  p_releases boolean[], p_wakes_ms float8[], p_state_seqs int[], p_states jsonb,
  p_event_items int[], p_event_offsets int[], p_event_types text[], p_event_dispatches int[], p_event_chunks text[],
  p_event_actors text[], p_event_payloads jsonb, p_version int, p_skip_locked boolean)
returns table (ord int, first_seq int, moved boolean, at_ms float8, events json)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
-- A row that is locked for longer sends the batch back, to be sent again with p_skip_locked.
set lock_timeout = '500ms'
-- A plan of its own for each call costs more than it gains: every path is a probe by primary key.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  v_at timestamptz;
  v_role text := flowledger.caller();
  v_locked uuid[];
  v_above uuid[];
  v_ords int[];
  v_firsts int[];
  v_moved boolean;
  v_links uuid[];
  v_wakes uuid[];
begin
  if p_skip_locked then
    v_locked := array(select e.id from flowledger.executions e where e.id = any(p_ids) order by e.id for no key update skip locked);
    -- Events of a sub-flow show on the executions above it, which are locked too.
    v_above := array(
      select a.id from flowledger.executions a
      where a.id = any(array(
        select unnest(flowledger.visible_in(e.id)) from flowledger.executions e where e.id = any(v_locked) and e.parent_id is not null))
      order by a.id for no key update skip locked);
    v_locked := array(
      select l.id from unnest(v_locked) as l(id)
      where not exists (select 1 from flowledger.executions a where a.id = any(flowledger.visible_in(l.id)) and not a.id = any(v_above)));
  end if;
  v_at := flowledger.now();
  with updated as (
    update flowledger.executions h
    set seq = h.seq + x.count - case when h.seq = x.base then 0 else coalesce(x.conditional, 0) end,
      commit_no = x.commit_no,
      commit_seq = h.seq + 1,
      takeovers = case when x.progress then 0 else h.takeovers end,
      fingerprint = coalesce(x.fingerprint, h.fingerprint),
      stream_ended = h.stream_ended or coalesce(x.stream_ended, false),
      (owner, wake_at, sealed_at, closed_at, pending_interrupts, parked, outcome, close_reason, error, close_snapshot) = (
        select case when w.closes or w.releases then null else h.owner end,
          -- One with relatives stays due until they have heard of its end.
          case when w.closes then case when x.relatives then v_at end when w.releases then v_at + flowledger.ms(x.wake_ms) else h.wake_at end,
          case when w.closes or x.sealed and w.is_whole then coalesce(h.sealed_at, v_at) else h.sealed_at end,
          case when w.closes then v_at end,
          -- Interrupts of sub-flows count no more.
          case when w.closes then 0 else h.pending_interrupts end,
          case when w.closes then 0 else h.parked end,
          case when w.closes then x.outcome end,
          case when w.closes then x.reason end,
          case when w.closes then nullif(x.error, 'null') end,
          case when w.closes then x.close_snapshot end
        from (select (h.seq = x.base or x.conditional is null) as is_whole, x.outcome is not null and (h.seq = x.base or x.conditional is null) as closes,
          x.release and h.seq = x.base as releases) w)
    from rows from (
      unnest(p_ids, p_epochs, p_tokens, p_commit_nos, p_bases, p_counts, p_conditionals, p_progress, p_sealed, p_stream_ended, p_people, p_fingerprints,
        p_outcomes, p_reasons, p_relatives, p_releases, p_wakes_ms, p_state_seqs),
      jsonb_array_elements(p_errors), jsonb_array_elements(p_close_snapshots))
      with ordinality as x(id, epoch, token, commit_no, base, count, conditional, progress, sealed, stream_ended, people, fingerprint,
        outcome, reason, relatives, release, wake_ms, state_seq, error, close_snapshot, ord)
    where h.id = any(p_ids) and h.id = x.id and h.epoch = x.epoch and h.lease_token = x.token and h.commit_no = x.commit_no - 1 and h.owner is not null
      and h.seq >= x.base and (v_locked is null or h.id = any(v_locked))
    returning x.ord::int as ord, h.commit_seq as first_seq, h.commit_seq <> x.base + 1 as moved,
      case when x.outcome is not null or x.people or x.state_seq is not null then h.id end as link,
      case when x.release and x.wake_ms is not null and h.commit_seq = x.base + 1 then h.id end as wake
  )
  select array_agg(u.ord order by u.ord), array_agg(u.first_seq order by u.ord), bool_or(u.moved), array_agg(u.link) filter (where u.link is not null),
    array_agg(u.wake) filter (where u.wake is not null)
  into v_ords, v_firsts, v_moved, v_links, v_wakes from updated u;
  if cardinality(v_ords) = cardinality(p_ids) and not v_moved then
    -- Everything is as its owner thought: no event has to ask what became of its item.
    insert into flowledger.ledger (execution_id, seq, epoch, at, dispatch, type, chunk, actor, role, payload)
    select p_ids[v.item], p_bases[v.item] + v.pos, p_epochs[v.item], v_at, v.dispatch, v.type, v.chunk, v.actor,
      case when v.type = 'execution.claimed' then v_role end, nullif(v.payload, 'null')
    from rows from (unnest(p_event_items, p_event_offsets, p_event_types, p_event_dispatches, p_event_chunks, p_event_actors),
      jsonb_array_elements(p_event_payloads)) as v(item, pos, type, dispatch, chunk, actor, payload);
  else
    insert into flowledger.ledger (execution_id, seq, epoch, at, dispatch, type, chunk, actor, role, payload)
    select p_ids[v.item], v_firsts[array_position(v_ords, v.item)] + v.pos - 1, p_epochs[v.item], v_at, v.dispatch, v.type, v.chunk, v.actor,
      case when v.type = 'execution.claimed' then v_role end, nullif(v.payload, 'null')
    from rows from (unnest(p_event_items, p_event_offsets, p_event_types, p_event_dispatches, p_event_chunks, p_event_actors),
      jsonb_array_elements(p_event_payloads)) as v(item, pos, type, dispatch, chunk, actor, payload)
    where v.item = any(v_ords)
      and (v_firsts[array_position(v_ords, v.item)] = p_bases[v.item] + 1 or v.pos <= p_counts[v.item] - coalesce(p_conditionals[v.item], 0));
  end if;
  if v_links is not null then
    if array_remove(p_state_seqs, null) <> '{}' then
      perform flowledger.keep_states(p_ids, v_ords, p_state_seqs, p_states, p_version);
    end if;
    perform flowledger.project(p_ids[u.ord], u.first_seq) from unnest(v_ords, v_firsts) as u(ord, first_seq) where p_people[u.ord];
    perform flowledger.extend_chain(v_links);
  end if;
  if v_wakes is not null then
    perform flowledger.add_jobs(v_wakes);
  end if;
  return query
    select u.ord, u.first_seq, u.first_seq <> p_bases[u.ord] + 1, flowledger.to_ms(v_at),
      case when u.first_seq <> p_bases[u.ord] + 1 then flowledger.events(p_ids[u.ord], p_bases[u.ord], u.first_seq - 1) end
    from unnest(v_ords, v_firsts) as u(ord, first_seq);
end $$;

-- The verdict on an append that was not accepted: repeat (this commit is in already), fenced (not the owner any more), or
-- busy (the row was locked: send it again).
create or replace function flowledger.append_verdict(p_id uuid, p_epoch int, p_token uuid, p_commit_no int, p_base int) returns text
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    select case when h.epoch <> p_epoch or h.lease_token <> p_token then 'fenced'
      when h.commit_no >= p_commit_no then 'repeat'
      -- Not ours, or a database that has forgotten our last commits, or what came in: a failover lost them.
      when h.owner is null or h.commit_no < p_commit_no - 1 or h.seq < p_base then 'fenced'
      else 'busy' end
    from flowledger.executions h where h.id = p_id), 'fenced')
$$;

-- The verdict once nothing of another transaction is under way any more.
create or replace function flowledger.settled_verdict(p_id uuid, p_epoch int, p_token uuid, p_commit_no int, p_base int) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from flowledger.executions h where h.id = p_id for no key update;
  return flowledger.append_verdict(p_id, p_epoch, p_token, p_commit_no, p_base);
end $$;

-- Keeps folded states, one per execution.
create or replace function flowledger.keep_states(p_ids uuid[], p_ords int[], p_seqs int[], p_states jsonb, p_version int) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into flowledger.snapshots as s (execution_id, seq, version, state)
  select x.id, x.seq, p_version, x.state
  from rows from (unnest(p_ids, p_seqs), jsonb_array_elements(p_states)) with ordinality as x(id, seq, state, ord)
  where x.seq is not null and x.ord = any(p_ords)
  on conflict (execution_id) do update set seq = excluded.seq, version = excluded.version, state = excluded.state
$$;

-- The hash of each row of a ledger: SHA-256 of all its columns.
create or replace view flowledger.ledger_hashes as
select l.execution_id, l.seq,
  sha256(record_send(row(l.execution_id, l.seq, l.epoch, l.at, l.type, l.dispatch, l.chunk, l.actor, l.payload, l.role, l.copied_at))) as hash
from flowledger.ledger l;

-- One more link for each execution: a hash over the link before it and every row since, and 4 bytes of each row's own hash,
-- which tell which row it was. The caller holds the rows' locks. Made when an execution closes, when its state is kept, and
-- with whatever people do: in proportion to the ledger, and not for each commit.
create or replace function flowledger.extend_chain(p_ids uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set client_encoding = 'UTF8'
set plan_cache_mode = force_generic_plan
as $$
begin
  insert into flowledger.chain (execution_id, seq, hash, marks)
  select i.id, n.seq, sha256(coalesce(c.hash, '') || n.hashes), n.marks
  from unnest(p_ids) as i(id)
  left join lateral (select x.seq, x.hash from flowledger.chain x where x.execution_id = i.id order by x.seq desc limit 1) c on true
  cross join lateral (
    select max(o.seq) as seq, string_agg(o.hash, '') as hashes, string_agg(substr(o.hash, 1, 4), '') as marks
    -- "offset 0": hashed once, although it is used twice.
    from (select h.seq, h.hash from flowledger.ledger_hashes h where h.execution_id = i.id and h.seq > coalesce(c.seq, 0) order by h.seq offset 0) o
  ) n
  where n.seq is not null;
end $$;
