-- locks: none, everything is new; workers: keep running
CREATE TABLE "flowledger"."client_grants" (
	"number" integer PRIMARY KEY NOT NULL,
	"role" text NOT NULL,
	"flows" text[],
	"filter" jsonb,
	"at" timestamp with time zone NOT NULL,
	"by" text NOT NULL,
	"actor" text,
	"reason" text
);
--> statement-breakpoint
create trigger client_grants_append_only before update or delete on flowledger.client_grants
  for each row execute function flowledger.refuse_change();--> statement-breakpoint
create trigger client_grants_no_truncate before truncate on flowledger.client_grants
  for each statement execute function flowledger.refuse_change();--> statement-breakpoint
alter table flowledger.client_grants enable always trigger client_grants_append_only;--> statement-breakpoint
alter table flowledger.client_grants enable always trigger client_grants_no_truncate;
