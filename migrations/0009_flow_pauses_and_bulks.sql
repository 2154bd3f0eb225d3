-- locks: none, everything is new; workers: keep running
CREATE TABLE "flowledger"."bulk_results" (
	"execution_id" uuid NOT NULL,
	"number" integer NOT NULL,
	"result" text NOT NULL,
	"at" timestamp with time zone NOT NULL,
	"made_id" uuid,
	"code" text,
	"message" text,
	"hint" text,
	CONSTRAINT "bulk_results_execution_id_number_pk" PRIMARY KEY("execution_id","number")
);
--> statement-breakpoint
CREATE TABLE "flowledger"."bulk_targets" (
	"execution_id" uuid NOT NULL,
	"number" integer NOT NULL,
	"target_id" uuid NOT NULL,
	CONSTRAINT "bulk_targets_execution_id_number_pk" PRIMARY KEY("execution_id","number")
);
--> statement-breakpoint
CREATE TABLE "flowledger"."bulks" (
	"execution_id" uuid PRIMARY KEY NOT NULL,
	"action" text NOT NULL,
	"options" jsonb NOT NULL,
	"filter" jsonb NOT NULL,
	"rate" integer,
	"rate_ms" double precision,
	"matched" integer NOT NULL,
	"at" timestamp with time zone NOT NULL,
	"by" text NOT NULL,
	"role" text NOT NULL,
	"actor" text NOT NULL,
	"reason" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "flowledger"."flow_pauses" (
	"number" integer PRIMARY KEY NOT NULL,
	"flow" text NOT NULL,
	"intake" text,
	"at" timestamp with time zone NOT NULL,
	"by" text NOT NULL,
	"actor" text NOT NULL,
	"reason" text NOT NULL
);
--> statement-breakpoint
CREATE INDEX "bulk_results_at" ON "flowledger"."bulk_results" USING btree ("execution_id","at");--> statement-breakpoint
CREATE INDEX "bulk_results_failed" ON "flowledger"."bulk_results" USING btree ("execution_id","number") WHERE result = 'failed';--> statement-breakpoint
CREATE INDEX "flow_pauses_flow" ON "flowledger"."flow_pauses" USING btree ("flow","number");--> statement-breakpoint
create trigger bulk_results_append_only before update or delete on flowledger.bulk_results
  for each row execute function flowledger.refuse_change();--> statement-breakpoint
create trigger bulk_results_no_truncate before truncate on flowledger.bulk_results
  for each statement execute function flowledger.refuse_change();--> statement-breakpoint
alter table flowledger.bulk_results enable always trigger bulk_results_append_only;--> statement-breakpoint
alter table flowledger.bulk_results enable always trigger bulk_results_no_truncate;--> statement-breakpoint
create trigger bulk_targets_append_only before update or delete on flowledger.bulk_targets
  for each row execute function flowledger.refuse_change();--> statement-breakpoint
create trigger bulk_targets_no_truncate before truncate on flowledger.bulk_targets
  for each statement execute function flowledger.refuse_change();--> statement-breakpoint
alter table flowledger.bulk_targets enable always trigger bulk_targets_append_only;--> statement-breakpoint
alter table flowledger.bulk_targets enable always trigger bulk_targets_no_truncate;--> statement-breakpoint
create trigger bulks_append_only before update or delete on flowledger.bulks
  for each row execute function flowledger.refuse_change();--> statement-breakpoint
create trigger bulks_no_truncate before truncate on flowledger.bulks
  for each statement execute function flowledger.refuse_change();--> statement-breakpoint
alter table flowledger.bulks enable always trigger bulks_append_only;--> statement-breakpoint
alter table flowledger.bulks enable always trigger bulks_no_truncate;--> statement-breakpoint
create trigger flow_pauses_append_only before update or delete on flowledger.flow_pauses
  for each row execute function flowledger.refuse_change();--> statement-breakpoint
create trigger flow_pauses_no_truncate before truncate on flowledger.flow_pauses
  for each statement execute function flowledger.refuse_change();--> statement-breakpoint
alter table flowledger.flow_pauses enable always trigger flow_pauses_append_only;--> statement-breakpoint
alter table flowledger.flow_pauses enable always trigger flow_pauses_no_truncate;
