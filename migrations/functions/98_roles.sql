-- Least privilege.

-- The roles <prefix>_worker, <prefix>_client, <prefix>_operator and <prefix>_auditor: made where they are missing, and granted what each needs
-- and no more. They can log in once you give them a password. It needs CREATEROLE; a migration grants what is new by itself. Roles are
-- the whole server's: the default prefix names the database, and one whose roles have rights in another database is refused.
create or replace function flowledger.grant_roles(prefix text default null) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_prefix text := coalesce(prefix,
    -- The default of a release before.
    (select 'flowledger' from flowledger.role_grants x where x.role = 'flowledger' || '_worker'),
    left('flowledger' || '_' || regexp_replace(lower(current_database()), '[^a-z0-9_]', '_', 'g'), 50));
  v_kinds text[] := array['worker', 'client', 'operator', 'auditor'];
  v_kind text;
begin
  if v_prefix !~ '^[a-z_][a-z0-9_]{0,49}$' then
    raise exception 'prefix % of roles is not valid', quote_nullable(prefix)
      using errcode = 'FL008', hint = 'use lower-case letters, digits and _ , at most 50';
  end if;
  foreach v_kind in array v_kinds loop
    perform flowledger.make_role(v_prefix || '_' || v_kind);
    insert into flowledger.role_grants (role, kind, at, by)
    values (v_prefix || '_' || v_kind, v_kind, flowledger.wall_clock(), flowledger.caller())
    on conflict (role) do nothing;
  end loop;
  begin
    foreach v_kind in array v_kinds loop
      execute format('alter role %I set idle_in_transaction_session_timeout = ''60s''', v_prefix || '_' || v_kind);
    end loop;
    execute format('alter role %I set default_transaction_read_only = on', v_prefix || '_auditor');
    execute format('alter role %I set statement_timeout = ''60s''', v_prefix || '_auditor');
  exception when insufficient_privilege then
    raise exception 'role % may not alter roles %', to_json(current_user), v_prefix || '_…'
      using errcode = 'FL008', hint = 'run it as the role that made them, or as one that has CREATEROLE';
  end;
  perform flowledger.apply_grants();
end $$;

-- Grants the roles of `role_grants` what they need of tables and functions as they are now.
create or replace function flowledger.apply_grants() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  g record;
  v_name text;
begin
  execute format('revoke create on schema %I from public', 'flowledger');
  execute format('revoke execute on all functions in schema %I from public', 'flowledger');
  for g in select x.role, x.kind from flowledger.role_grants x join pg_roles r on r.rolname = x.role loop
    execute format('grant usage on schema %I to %I', 'flowledger', g.role);
    execute format('revoke all on all tables in schema %I from %I', 'flowledger', g.role);
    execute format('revoke all on all functions in schema %I from %I', 'flowledger', g.role);
    -- Each process that connects asks whether the library fits, and wakes those who wait.
    execute format('grant select on %I.migrations to %I', 'flowledger', g.role);
    execute format('grant execute on function %I.channel(uuid) to %I', 'flowledger', g.role);
    case g.kind
    when 'worker' then
      -- Headers and ledgers are written by functions alone, which run with their owner's rights and see to time, role, epoch and
      -- close; a worker says by itself what it serves, its schedules, and the data that flows share.
      foreach v_name in array array['ledger', 'chain', 'stream_items', 'executions', 'interrupts', 'interventions', 'snapshots', 'assignments',
        'limits', 'slots', 'limited_starts', 'database_identity', 'ledger_hashes', 'failures', 'flow_pauses'] loop
        execute format('grant select on %I.%I to %I', 'flowledger', v_name, g.role);
      end loop;
      execute format('grant select, insert, update on %I.definitions to %I', 'flowledger', g.role);
      foreach v_name in array array['flow_data', 'workers', 'schedules'] loop
        execute format('grant select, insert, update, delete on %I.%I to %I', 'flowledger', v_name, g.role);
      end loop;
      for v_name in
        select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'flowledger'::regnamespace
          and p.proname not in ('grant_roles', 'grant_client', 'make_role', 'apply_grants', 'accept_identity', 'rebuild', 'prune', 'remove_executions', 'anchor')
      loop
        execute format('grant execute on function %s to %I', v_name, g.role);
      end loop;
      execute format('grant usage on schema %I to %I', 'flowledger_jobs', g.role);
      execute format('grant select, insert, update, delete on all tables in schema %I to %I', 'flowledger_jobs', g.role);
      execute format('grant usage, select on all sequences in schema %I to %I', 'flowledger_jobs', g.role);
      execute format('grant execute on all functions in schema %I to %I', 'flowledger_jobs', g.role);
      -- graphile-worker turns row-level security on and has no policy: without one a worker that is not the owner sees no job.
      for v_name in select c.relname from pg_class c where c.relnamespace = 'flowledger_jobs'::regnamespace and c.relrowsecurity loop
        if not exists (select 1 from pg_policies p where p.schemaname = 'flowledger_jobs' and p.tablename = v_name and p.policyname = g.role) then
          execute format('create policy %I on %I.%I for all to %I using (true) with check (true)', g.role, 'flowledger_jobs', v_name, g.role);
        end if;
      end loop;
    when 'client' then
      -- The client only commands: these functions run with their owner's rights.
      for v_name in
        select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'flowledger'::regnamespace and p.prosecdef
          and p.proname in ('start', 'start_execution', 'emit', 'continue_with', 'withdraw', 'intervene', 'mark_intervention_consumed', 'seal', 'close', 'cancel',
            'cancel_function', 'reschedule_function', 'emit_to_sub_flow', 'cancel_sub_flow', 'seen', 'inbox', 'claim_interrupt', 'release_interrupt', 'delegate_interrupt', 'snooze_interrupt', 'asked_by_token', 'answer_by_token')
      loop
        execute format('grant execute on function %s to %I', v_name, g.role);
      end loop;
      -- For what `seen` gives.
      execute format('grant execute on function %I.to_ms(timestamptz) to %I', 'flowledger', g.role);
    else
      if g.kind = 'operator' then
        -- The operator reads everything, and writes by commands alone.
        foreach v_name in array array['executions', 'ledger', 'interrupts', 'interventions', 'definitions', 'snapshots', 'workers', 'stream_items'] loop
          execute format('grant select on %I.%I to %I', 'flowledger', v_name, g.role);
        end loop;
        for v_name in
          select p.oid::regprocedure::text from pg_proc p
          where p.pronamespace = 'flowledger'::regnamespace
            and p.proname in ('cancel', 'close', 'seal', 'retry', 'skip', 'edit_state', 'pause', 'unpause', 'pause_flow', 'unpause_flow', 'run_schedule', 'bulk', 'redrive', 'claim_interrupt', 'release_interrupt', 'delegate_interrupt', 'snooze_interrupt', 'events', 'to_ms', 'parked_below', 'planned_of', 'sub_flows_of', 'open_dispatches', 'standing', 'projected_owner',
              'visible_in')
        loop
          execute format('grant execute on function %s to %I', v_name, g.role);
        end loop;
      end if;
      foreach v_name in array array['audit_executions', 'audit_ledger', 'audit_interrupts', 'audit_interventions', 'audit_state_changes', 'chain', 'anchors', 'prunes', 'role_grants', 'client_grants',
        'flow_pauses', 'bulks', 'bulk_targets', 'bulk_results', 'database_identity', 'failures',
        -- Tables that `verify` reads: an auditor sees all of it in the views as well.
        'executions', 'ledger', 'ledger_hashes', 'stream_items', 'interrupts', 'assignments', 'interventions', 'snapshots', 'workers', 'slots']
      loop
        execute format('grant select on %I.%I to %I', 'flowledger', v_name, g.role);
      end loop;
      for v_name in
        select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'flowledger'::regnamespace
          and p.proname in ('state_at', 'close_snapshot', 'meta', 'explain', 'alike_error', 'pieces_of', 'error_pieces', 'pattern_pieces', 'timeline', 'differences', 'broken_chains', 'broken_anchors', 'now', 'iso', 'ms', 'status_of', 'lifecycle_of',
            'interrupt_of', 'asked_of', 'handling_of', 'next_follow_up', 'intervention_of', 'wall_clock', 'to_ms', 'visible_in', 'is_item', 'events', 'parked_of', 'pause_of', 'flow_pause_of', 'is_ending', 'deadline_of', 'has_other_version', 'tried_versions', 'redriven_by', 'bulk_report', 'bulk_failures',
            -- Functions that `show` and `inbox` of the command line read.
            'inbox', 'pending_on', 'interrupt_record', 'early_record', 'projected_record', 'projected_owner', 'is_projected_id', 'from_ms')
      loop
        execute format('grant execute on function %s to %I', v_name, g.role);
      end loop;
    end case;
  end loop;
end $$;
