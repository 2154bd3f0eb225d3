-- locks: while two indexes of executions are built nothing is written there (about the time of reading that table twice, and 0.1 ms for each
-- that failed); workers: they wait meanwhile, and may stay
CREATE INDEX "executions_version" ON "flowledger"."executions" USING btree (left(fingerprint, 4)) WHERE closed_at is not null;--> statement-breakpoint
CREATE INDEX "executions_errors" ON "flowledger"."executions" USING gin (flowledger.error_pieces(error)) WHERE error is not null;