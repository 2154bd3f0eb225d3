-- locks: while an index of ledger is built, nothing is written there (about the time of reading the ledger once); workers: they wait
-- meanwhile, and may stay
CREATE INDEX "ledger_copies" ON "flowledger"."ledger" USING btree ((payload -> 'forkedFrom' ->> 'id')) WHERE seq = 1 and type = 'execution.created' and payload ? 'forkedFrom';
