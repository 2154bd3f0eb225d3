-- locks: while three indexes of executions are built nothing is written there (about the time of reading that table three times);
-- workers: they wait meanwhile, and may stay
DROP INDEX "flowledger"."executions_flow";--> statement-breakpoint
CREATE INDEX "executions_flow_status" ON "flowledger"."executions" USING btree ("flow","status","id");--> statement-breakpoint
CREATE INDEX "executions_created" ON "flowledger"."executions" USING btree ("created_at","id");--> statement-breakpoint
CREATE INDEX "executions_closed" ON "flowledger"."executions" USING btree ("closed_at","id") WHERE closed_at is not null;