-- locks: while indexes of ledger and interventions are built, nothing is written there (about the time of reading the ledger three
-- times); workers: they wait meanwhile, and may stay
DROP INDEX "flowledger"."ledger_people";--> statement-breakpoint
DROP INDEX "flowledger"."ledger_event_keys";--> statement-breakpoint
ALTER TABLE "flowledger"."executions" ADD COLUMN "due_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "flowledger"."executions" ADD COLUMN "discard_at" timestamp with time zone;--> statement-breakpoint
CREATE INDEX "executions_discard" ON "flowledger"."executions" USING btree ("discard_at") WHERE discard_at is not null;--> statement-breakpoint
CREATE INDEX "interventions_id" ON "flowledger"."interventions" USING btree ("execution_id","id");--> statement-breakpoint
CREATE INDEX "ledger_request_ids" ON "flowledger"."ledger" USING btree ("execution_id","left"(payload ->> 'requestId', 200)) WHERE type = 'interrupt.resumed' and payload ? 'requestId';--> statement-breakpoint
CREATE INDEX "ledger_people" ON "flowledger"."ledger" USING btree ("execution_id",(payload ->> 'id'),"seq") WHERE type in ('interrupt.raised', 'interrupt.resumed', 'interrupt.expired', 'interrupt.cancelled', 'intervention.recorded', 'intervention.inserted', 'intervention.consumed', 'intervention.expired', 'execution.copied', 'execution.sealed', 'cancel.requested', 'stream.stopped');--> statement-breakpoint
CREATE INDEX "ledger_event_keys" ON "flowledger"."ledger" USING btree ("execution_id","left"(payload ->> 'idempotencyKey', 200)) WHERE type = 'event.emitted' and payload ? 'idempotencyKey';--> statement-breakpoint
-- What waits for its time when this runs goes on waiting for it.
UPDATE "flowledger"."executions" e SET due_at = flowledger.from_ms(due.ms), discard_at = flowledger.from_ms(discard.ms)
FROM (SELECT h.id FROM "flowledger"."executions" h WHERE h.closed_at IS NULL) h
LEFT JOIN LATERAL (
	SELECT (l.payload ->> 'dueAt')::float8 AS ms FROM "flowledger"."ledger" l
	WHERE l.execution_id = h.id AND l.type IN ('execution.started', 'execution.rescheduled') ORDER BY l.seq DESC LIMIT 1) due ON true
LEFT JOIN LATERAL (
	SELECT (l.payload -> 'settings' ->> 'discardAt')::float8 AS ms FROM "flowledger"."ledger" l
	WHERE l.execution_id = h.id AND l.seq = 1) discard ON true
WHERE e.id = h.id AND (due.ms IS NOT NULL OR discard.ms IS NOT NULL);
