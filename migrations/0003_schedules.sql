ALTER TABLE "flowledger"."schedules" ADD COLUMN "left_out_from" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "flowledger"."schedules" ADD COLUMN "left_out_until" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "flowledger"."schedules" ADD COLUMN "removed_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "flowledger"."workers" ADD COLUMN "schedules" jsonb DEFAULT '{}'::jsonb NOT NULL;