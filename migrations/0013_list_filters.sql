-- locks: the table of executions is written anew, with a column that tells the version of what has closed, and two indexes are built: nothing
-- reads or writes it meanwhile (about the time of reading it three times, and 0.1 ms for each that failed); workers: they wait meanwhile, and may stay
ALTER TABLE "flowledger"."executions" ADD COLUMN "closed_version" text GENERATED ALWAYS AS (case when closed_at is not null then left(fingerprint, 4) end) STORED;--> statement-breakpoint
CREATE INDEX "executions_version" ON "flowledger"."executions" USING btree ("closed_version") WHERE closed_version is not null;--> statement-breakpoint
CREATE INDEX "executions_errors" ON "flowledger"."executions" USING gin (flowledger.error_pieces(error)) WHERE error is not null;