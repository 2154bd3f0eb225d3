-- Waits for locks of open transactions: a command waits as long as lock_timeout says, or five seconds, and then names the session.

-- Sets the limit of a wait for a transaction that has none. Gives what lock_timeout was, which is set again after the wait; a failure
-- sets it by itself.
create or replace function flowledger.limit_wait() returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_timeout text := current_setting('lock_timeout');
begin
  if v_timeout = '0' then
    perform set_config('lock_timeout', '5s', true);
  end if;
  return v_timeout;
end $$;

-- The session whose open transaction has the row of an execution; where a savepoint of it has, or no row tells, the one whose transaction
-- has written the table for the longest time.
create or replace function flowledger.holder_of(p_id uuid, p_table text) returns int
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select l.pid from pg_locks l
  join pg_locks w on w.pid = l.pid and w.locktype = 'relation' and w.relation = to_regclass(format('%I.%I', 'flowledger', p_table)) and w.granted
    and w.database = (select d.oid from pg_database d where d.datname = current_database())
    and w.mode in ('RowExclusiveLock', 'RowShareLock', 'ShareRowExclusiveLock')
  where l.locktype = 'transactionid' and l.granted and l.pid <> pg_backend_pid()
  order by l.transactionid = (select h.xmax from flowledger.executions h where h.id = p_id) desc nulls last, age(l.transactionid) desc limit 1
$$;

create or replace function flowledger.holder_of(p_id uuid) returns int
language sql volatile
set search_path = pg_catalog, pg_temp
as $$ select flowledger.holder_of(p_id, 'executions') $$;

-- Says that a wait for a lock was in vain, or would never have ended.
create or replace function flowledger.refuse_held(p_what text, p_id uuid, p_table text default 'executions') returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_pid int := flowledger.holder_of(p_id, p_table);
begin
  raise exception '% is held by the open transaction of session %', p_what, coalesce(v_pid::text, 'unknown')
    using errcode = 'FL011', detail = coalesce(v_pid::text, ''), hint = 'try again when that has ended';
end $$;

-- Locks a table whose writers come one after another: for what is rare.
create or replace function flowledger.lock_table(p_table text, p_what text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_timeout text := flowledger.limit_wait();
begin
  execute format('lock table %I.%I in share row exclusive mode', 'flowledger', p_table);
  perform set_config('lock_timeout', v_timeout, true);
exception when lock_not_available or deadlock_detected then
  perform flowledger.refuse_held(p_what, null, p_table);
end $$;
