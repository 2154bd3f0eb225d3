-- locks: while an index of executions is built nothing is written there (about the time of reading that table once);
-- workers: they wait meanwhile, and may stay
CREATE INDEX "executions_ended" ON "flowledger"."executions" USING btree ("flow","status","closed_at","id") WHERE closed_at is not null;