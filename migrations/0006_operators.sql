-- locks: executions, while it is rewritten (about the time of reading it twice); workers: they wait meanwhile, and may stay
ALTER TABLE "flowledger"."executions" ADD COLUMN "parked" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "flowledger"."executions" drop column "status";--> statement-breakpoint
ALTER TABLE "flowledger"."executions" ADD COLUMN "status" text GENERATED ALWAYS AS (flowledger.status_of(outcome, started_at, pending_interrupts, parked)) STORED NOT NULL;--> statement-breakpoint
CREATE INDEX "executions_parked" ON "flowledger"."executions" USING btree ("id") WHERE parked > 0;--> statement-breakpoint
CREATE INDEX "executions_flow_status" ON "flowledger"."executions" USING btree ("flow","status","id");
