-- locks: while two indexes of executions are built nothing is written there (about the time of reading that table twice);
-- workers: they wait meanwhile, and may stay
CREATE INDEX "executions_ended" ON "flowledger"."executions" USING btree ("flow","status","closed_at","id") WHERE closed_at is not null;--> statement-breakpoint
CREATE INDEX "executions_version" ON "flowledger"."executions" USING btree ("fingerprint" text_pattern_ops) WHERE fingerprint is not null;