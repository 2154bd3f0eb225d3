-- locks: while two indexes of ledger are built, nothing is written there (about the time of reading the ledger twice); workers: they
-- wait meanwhile, and may stay
CREATE TABLE "flowledger"."assignments" (
	"principal" text NOT NULL,
	"due_at" timestamp with time zone NOT NULL,
	"created_at" timestamp with time zone NOT NULL,
	"execution_id" uuid NOT NULL,
	"interrupt_id" text NOT NULL,
	CONSTRAINT "assignments_execution_id_interrupt_id_principal_pk" PRIMARY KEY("execution_id","interrupt_id","principal")
);
--> statement-breakpoint
ALTER TABLE "flowledger"."interrupts" ADD COLUMN "title" text;--> statement-breakpoint
ALTER TABLE "flowledger"."interrupts" ADD COLUMN "assignees" text[];--> statement-breakpoint
ALTER TABLE "flowledger"."interrupts" ADD COLUMN "due_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "flowledger"."interrupts" ADD COLUMN "claimed_by" text;--> statement-breakpoint
ALTER TABLE "flowledger"."interrupts" ADD COLUMN "claimed_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "flowledger"."interrupts" ADD COLUMN "is_exclusive" boolean;--> statement-breakpoint
ALTER TABLE "flowledger"."interrupts" ADD COLUMN "snoozed_until" timestamp with time zone;--> statement-breakpoint
CREATE INDEX "assignments_inbox" ON "flowledger"."assignments" USING btree ("principal","due_at","created_at","execution_id","interrupt_id");--> statement-breakpoint
CREATE INDEX "interrupts_due" ON "flowledger"."interrupts" USING btree ("due_at","created_at","execution_id","id") WHERE status = 'pending' and due_at is not null;--> statement-breakpoint
CREATE INDEX "ledger_handling" ON "flowledger"."ledger" USING btree ("execution_id",(payload ->> 'id'),"seq") WHERE type in ('interrupt.claimed', 'interrupt.released', 'interrupt.delegated', 'interrupt.snoozed', 'interrupt.reminded', 'interrupt.escalated', 'interrupt.linked');--> statement-breakpoint
CREATE INDEX "ledger_links" ON "flowledger"."ledger" USING btree ((payload ->> 'hash')) WHERE type = 'interrupt.linked' and copied_at is null;