-- locks: prunes, for a moment; workers: keep running
CREATE TABLE "flowledger"."anchors" (
	"number" integer NOT NULL,
	"execution_id" uuid NOT NULL,
	"seq" integer NOT NULL,
	"hash" "bytea" NOT NULL,
	"at" timestamp with time zone,
	"by" text,
	CONSTRAINT "anchors_number_execution_id_pk" PRIMARY KEY("number","execution_id")
);
--> statement-breakpoint
ALTER TABLE "flowledger"."prunes" ADD COLUMN "actor" text;--> statement-breakpoint
ALTER TABLE "flowledger"."prunes" ADD COLUMN "reason" text;--> statement-breakpoint
CREATE INDEX "anchors_execution" ON "flowledger"."anchors" USING btree ("execution_id","seq");--> statement-breakpoint
create trigger anchors_append_only before update or delete on flowledger.anchors
  for each row execute function flowledger.refuse_change();--> statement-breakpoint
create trigger anchors_no_truncate before truncate on flowledger.anchors
  for each statement execute function flowledger.refuse_change();--> statement-breakpoint
alter table flowledger.anchors enable always trigger anchors_append_only;--> statement-breakpoint
alter table flowledger.anchors enable always trigger anchors_no_truncate;
