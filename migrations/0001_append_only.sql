-- locks: none, everything is new; workers: none run yet
create trigger ledger_append_only before update or delete on flowledger.ledger
  for each row execute function flowledger.refuse_change();
create trigger ledger_no_truncate before truncate on flowledger.ledger
  for each statement execute function flowledger.refuse_change();
alter table flowledger.ledger enable always trigger ledger_append_only;
alter table flowledger.ledger enable always trigger ledger_no_truncate;
create trigger chain_append_only before update or delete on flowledger.chain
  for each row execute function flowledger.refuse_change();
create trigger chain_no_truncate before truncate on flowledger.chain
  for each statement execute function flowledger.refuse_change();
alter table flowledger.chain enable always trigger chain_append_only;
alter table flowledger.chain enable always trigger chain_no_truncate;

-- Room for heap-only updates beside the row, and vacuum before the dead versions pile up.
alter table flowledger.executions set (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
