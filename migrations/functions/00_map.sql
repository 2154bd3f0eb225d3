-- The SQL side of flowledger, by subject. Each function has this one source: `migrate()` runs these files whenever their hash
-- differs from what the database records. The name `flowledger` stands for the schema, `flowledger_jobs` for that of its jobs:
-- `migrate()` puts the configured names in their place.
--
--   00_map       clocks, ids, names of channels, rules that need no table; runs before the tables are made
--   05_checks    what may come in: payloads, texts, options
--   06_schemas   values that fit a JSON Schema: answers, outputs, states
--   07_locks     waits for what an open transaction holds, and who holds it
--   10_start     executions are created and started, jobs are added
--   20_claim     a worker takes what is due; what is parked is woken
--   25_limits    concurrency slots and their queue
--   30_append    the group commit; snapshots; the hash chain
--   35_people    ledger to interrupts, interventions and the stream items that tell of them
--   40_commands  what comes from outside: emit, continue_with, intervene, seal, close, cancel
--   45_operators what operators do: parked chunks are retried, skipped or failed
--   45_pauses    questions are answered early, or withdrawn; why one takes no answer any more
--   47_inbox     what waits for whom; who has it, gives it on, or puts it off; answers by links
--   50_children  parents and children hear of each other's end; what a sub-flow shows above
--   60_stream    items of owners, fenced and once
--   65_schedules a time fires once in the fleet; one that somebody runs now; which schedules were removed
--   70_workers   registration, heartbeat, reap, sweep; whether this database is the original
--   80_defer     background functions
--   90_audit     views and reads derived from the ledger alone
--   92_explain   why an execution is where it is, as JSON and as a sentence
--   93_failures  what failed, and how often alike
--   94_timeline  what an execution did, a row per run
--   95_verify    differences, rebuild, broken chains, prune
--   96_redrive   closed executions go on as new ones
--   97_clients   clients that are limited to flows and a metadata filter
--   98_roles     least privilege
--
-- Commands from outside are decided here, under the row lock; what follows from them is decided by the owner, in `decide`.
-- Every function pins its search_path or has a body that is bound when it is created, and names everything in full.

-- Domain time: what the ledger, ids and timers go by. A test kit replaces this function and the next; nothing else of domain time
-- reads a clock.
create or replace function flowledger.now() returns timestamptz
language sql volatile parallel safe
return pg_catalog.clock_timestamp();

-- How far domain time is ahead of the real one, for what goes by a clock of its own: graphile-worker's jobs.
create or replace function flowledger.clock_offset() returns interval
language sql volatile parallel safe
return interval '0';

-- Liveness time: heartbeats and leases. Always real.
create or replace function flowledger.wall_clock() returns timestamptz
language sql volatile parallel safe
return pg_catalog.clock_timestamp();

create or replace function flowledger.to_ms(p_at timestamptz) returns float8
language sql stable parallel safe
return (extract(epoch from p_at) * 1000)::float8;

create or replace function flowledger.from_ms(p_ms float8) returns timestamptz
language sql immutable parallel safe
return to_timestamp(p_ms / 1000);

create or replace function flowledger.ms(p_ms float8) returns interval
language sql immutable parallel safe
return p_ms * interval '1 millisecond';

-- Times in records: ISO 8601 with milliseconds, as JavaScript writes them.
create or replace function flowledger.iso(p_at timestamptz) returns text
language sql stable parallel safe
return to_char(date_trunc('milliseconds', p_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');

-- Wake-ups of one execution travel on one of eight channels, chosen by its last byte.
create or replace function flowledger.channel(p_id uuid) returns text
language sql immutable parallel safe
return 'flowledger' || '_' || (get_byte(uuid_send(p_id), 15) & 7);

-- RFC 9562 version 7: 48 bits of milliseconds, then random bits.
create or replace function flowledger.new_id() returns uuid
language sql volatile parallel safe
return encode(
  set_byte(
    overlay(uuid_send(gen_random_uuid()) placing substring(int8send(flowledger.to_ms(flowledger.now())::bigint) from 3) from 1 for 6),
    6, (get_byte(uuid_send(gen_random_uuid()), 6) & 15) | 112),
  'hex')::uuid;

-- The database role behind a statement: who logged in, and as whom that session works.
create or replace function flowledger.caller() returns text
language sql stable parallel safe
return case when current_setting('role') in ('none', session_user::text) then session_user::text else session_user || ' as ' || current_setting('role') end;

-- How an execution goes, by what its header or its ledger says.
create or replace function flowledger.status_of(p_outcome text, p_started_at timestamptz, p_pending int) returns text
language sql immutable parallel safe
return coalesce(p_outcome, case when p_started_at is null then 'created' when p_pending > 0 then 'waiting' else 'running' end);

-- A chunk that is parked waits for somebody to do something about it, so it comes first.
create or replace function flowledger.status_of(p_outcome text, p_started_at timestamptz, p_pending int, p_parked int) returns text
language sql immutable parallel safe
return coalesce(p_outcome, case when p_started_at is not null and p_parked > 0 then 'parked' else flowledger.status_of(null, p_started_at, p_pending) end);

create or replace function flowledger.lifecycle_of(p_sealed_at timestamptz, p_closed_at timestamptz) returns text
language sql immutable parallel safe
return case when p_closed_at is not null then 'closed' when p_sealed_at is not null then 'sealed' else 'open' end;

-- A missing list becomes the items, a list grows, anything else becomes its first item.
create or replace function flowledger.list_append(p_old jsonb, p_items jsonb[]) returns jsonb
language sql immutable parallel safe
return case when p_old is null then '[]' when jsonb_typeof(p_old) = 'array' then p_old else jsonb_build_array(p_old) end || to_jsonb(p_items);

-- The ledger refuses to be changed, whoever asks: ENABLE ALWAYS also fires under session_replication_role = replica. Only what
-- the same transaction says in `prunes` may be deleted.
create or replace function flowledger.refuse_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Of these no row may ever go.
  if tg_op = 'DELETE' and tg_table_name not in ('client_grants', 'flow_pauses') then
    if exists (select from flowledger.prunes p where p.transaction = pg_current_xact_id_if_assigned() and old.execution_id between p.first and p.last) then
      return old;
    end if;
  end if;
  raise exception '%.% is append-only: % refused', tg_table_schema, tg_table_name, lower(tg_op)
    using errcode = 'FL010', hint = 'retention removes whole closed executions through prune()';
end $$;

-- All that stands side by side in a text, three characters each: what is contained in it has all of its own among those.
create or replace function flowledger.pieces_of(p_text text) returns text[]
language sql immutable parallel safe
return array(select distinct substr(p_text, n, 3) from generate_series(1, length(p_text) - 2) n);

-- Of an error as `errorLike` has it, for the index `executions_errors`: who changes what comes out builds that anew. The first 200
-- characters, and an empty text where there are more: such an error is looked into whatever is asked.
create or replace function flowledger.error_pieces(p_error jsonb) returns text[]
language sql immutable parallel safe cost 1000
return (
  select flowledger.pieces_of(left(t.text, 200)) || case when length(t.text) > 200 then array[''] end
  from (select lower(concat(p_error ->> 'name', ': ', p_error ->> 'message')) as text) t);

-- The pieces of an error that are `ilike` a text: each character of the text stands in one, and fewer are looked for than all.
create or replace function flowledger.pattern_pieces(p_pattern text) returns text[]
language sql immutable parallel safe
return array(
  select distinct substr(t.text, least(n, length(t.text) - 2), 3)
  from (select regexp_replace(s.text, '\\(.)', '\1', 'g') as text from regexp_split_to_table(lower(p_pattern), '%') s(text)) t
  cross join generate_series(1, length(t.text), 3) n where length(t.text) >= 3);
