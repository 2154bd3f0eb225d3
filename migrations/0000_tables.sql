-- locks: none, everything is new; workers: none run yet
CREATE SCHEMA IF NOT EXISTS "flowledger";
--> statement-breakpoint
CREATE TABLE "flowledger"."chain" (
	"execution_id" uuid NOT NULL,
	"seq" integer NOT NULL,
	"hash" "bytea" NOT NULL,
	"marks" "bytea" NOT NULL,
	CONSTRAINT "chain_execution_id_seq_pk" PRIMARY KEY("execution_id","seq")
);
--> statement-breakpoint
CREATE TABLE "flowledger"."database_identity" (
	"at" timestamp with time zone PRIMARY KEY NOT NULL,
	"by" text NOT NULL,
	"system" text NOT NULL,
	"database_oid" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "flowledger"."definitions" (
	"flow" text NOT NULL,
	"fingerprint" text NOT NULL,
	"blueprint" jsonb NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "definitions_flow_fingerprint_pk" PRIMARY KEY("flow","fingerprint")
);
--> statement-breakpoint
CREATE TABLE "flowledger"."executions" (
	"id" uuid PRIMARY KEY NOT NULL,
	"seq" integer NOT NULL,
	"epoch" integer DEFAULT 0 NOT NULL,
	"commit_no" integer DEFAULT 0 NOT NULL,
	"takeovers" smallint DEFAULT 0 NOT NULL,
	"commit_seq" integer DEFAULT 0 NOT NULL,
	"stream_seq" bigint DEFAULT 0 NOT NULL,
	"stream_ended" boolean DEFAULT false NOT NULL,
	"stream_no" integer DEFAULT 0 NOT NULL,
	"pending_interrupts" integer DEFAULT 0 NOT NULL,
	"owner" uuid,
	"lease_token" uuid,
	"wake_at" timestamp with time zone,
	"job_at" timestamp with time zone,
	"created_at" timestamp with time zone NOT NULL,
	"started_at" timestamp with time zone,
	"sealed_at" timestamp with time zone,
	"closed_at" timestamp with time zone,
	"priority" smallint DEFAULT 0 NOT NULL,
	"flow" text NOT NULL,
	"fingerprint" text,
	"outcome" text,
	"close_reason" text,
	"idempotency_key" text,
	"parent_id" uuid,
	"limit_key" text,
	"metadata" jsonb,
	"error" jsonb,
	"close_snapshot" jsonb,
	"lifecycle" text GENERATED ALWAYS AS (flowledger.lifecycle_of(sealed_at, closed_at)) STORED NOT NULL,
	"status" text GENERATED ALWAYS AS (flowledger.status_of(outcome, started_at, pending_interrupts)) STORED NOT NULL
);
--> statement-breakpoint
CREATE TABLE "flowledger"."flow_data" (
	"flow" text NOT NULL,
	"key" text NOT NULL,
	"value" jsonb,
	"version" integer DEFAULT 1 NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "flow_data_flow_key_pk" PRIMARY KEY("flow","key")
);
--> statement-breakpoint
CREATE TABLE "flowledger"."interrupts" (
	"execution_id" uuid NOT NULL,
	"id" text NOT NULL,
	"flow" text NOT NULL,
	"chunk" text NOT NULL,
	"type" text NOT NULL,
	"status" text NOT NULL,
	"payload" jsonb,
	"resume_to" jsonb NOT NULL,
	"resume_count" integer NOT NULL,
	"max_resumes" integer,
	"created_at" timestamp with time zone NOT NULL,
	"expires_at" timestamp with time zone,
	"resolved_at" timestamp with time zone,
	"value" jsonb,
	"request_id" text,
	"response" jsonb,
	"actor" text,
	"raised_seq" integer NOT NULL,
	"resolved_seq" integer,
	"by_event" text,
	CONSTRAINT "interrupts_execution_id_id_pk" PRIMARY KEY("execution_id","id")
);
--> statement-breakpoint
CREATE TABLE "flowledger"."interventions" (
	"execution_id" uuid NOT NULL,
	"version" integer NOT NULL,
	"id" text NOT NULL,
	"status" text NOT NULL,
	"target" text,
	"author" text,
	"record" jsonb NOT NULL,
	"created_at" timestamp with time zone NOT NULL,
	CONSTRAINT "interventions_execution_id_version_pk" PRIMARY KEY("execution_id","version")
);
--> statement-breakpoint
CREATE TABLE "flowledger"."ledger" (
	"execution_id" uuid NOT NULL,
	"seq" integer NOT NULL,
	"epoch" integer NOT NULL,
	"at" timestamp with time zone NOT NULL,
	"dispatch" integer,
	"type" text NOT NULL,
	"chunk" text,
	"actor" text,
	"payload" jsonb,
	"role" text,
	"copied_at" timestamp with time zone,
	CONSTRAINT "ledger_execution_id_seq_pk" PRIMARY KEY("execution_id","seq")
);
--> statement-breakpoint
CREATE TABLE "flowledger"."limited_starts" (
	"execution_id" uuid PRIMARY KEY NOT NULL,
	"flow" text NOT NULL,
	"key" text NOT NULL,
	"at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "flowledger"."limits" (
	"flow" text PRIMARY KEY NOT NULL,
	"concurrency" integer,
	"rate" integer,
	"rate_ms" double precision,
	"key_concurrency" integer,
	"key_rate" integer,
	"key_rate_ms" double precision,
	"action" text NOT NULL,
	"next_start_at" timestamp with time zone
);
--> statement-breakpoint
CREATE TABLE "flowledger"."migrations" (
	"name" text PRIMARY KEY NOT NULL,
	"hash" text NOT NULL,
	"release" text NOT NULL,
	"min_release" text NOT NULL,
	"at" timestamp with time zone NOT NULL,
	"by" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "flowledger"."prunes" (
	"at" timestamp with time zone NOT NULL,
	"by" text NOT NULL,
	"transaction" "xid8" NOT NULL,
	"closed_before" timestamp with time zone NOT NULL,
	"keep" jsonb NOT NULL,
	"first" uuid NOT NULL,
	"last" uuid NOT NULL,
	"executions" integer NOT NULL,
	"events" integer NOT NULL,
	CONSTRAINT "prunes_at_first_pk" PRIMARY KEY("at","first")
);
--> statement-breakpoint
CREATE TABLE "flowledger"."role_grants" (
	"role" text PRIMARY KEY NOT NULL,
	"kind" text NOT NULL,
	"at" timestamp with time zone NOT NULL,
	"by" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "flowledger"."schedules" (
	"name" text PRIMARY KEY NOT NULL,
	"flow" text NOT NULL,
	"cron" text NOT NULL,
	"time_zone" text NOT NULL,
	"fired_until" timestamp with time zone NOT NULL,
	"last_id" uuid,
	"waiting" timestamp with time zone[] DEFAULT '{}' NOT NULL
);
--> statement-breakpoint
CREATE TABLE "flowledger"."slots" (
	"execution_id" uuid PRIMARY KEY NOT NULL,
	"flow" text NOT NULL,
	"key" text NOT NULL,
	"priority" smallint NOT NULL,
	"queue_position" bigint NOT NULL,
	"acquired" boolean NOT NULL,
	"not_started" boolean NOT NULL,
	"notified_at" timestamp with time zone
);
--> statement-breakpoint
CREATE TABLE "flowledger"."snapshots" (
	"execution_id" uuid PRIMARY KEY NOT NULL,
	"seq" integer NOT NULL,
	"version" integer NOT NULL,
	"state" jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "flowledger"."stream_items" (
	"execution_id" uuid NOT NULL,
	"seq" bigint NOT NULL,
	"epoch" integer NOT NULL,
	"at" timestamp with time zone NOT NULL,
	"kind" text,
	"dispatch" integer,
	"item" jsonb,
	CONSTRAINT "stream_items_execution_id_seq_pk" PRIMARY KEY("execution_id","seq")
);
--> statement-breakpoint
CREATE TABLE "flowledger"."workers" (
	"id" uuid PRIMARY KEY NOT NULL,
	"host" text NOT NULL,
	"pid" integer NOT NULL,
	"flows" text[] NOT NULL,
	"pool" text,
	"role" text NOT NULL,
	"backend_pid" integer NOT NULL,
	"session_key" bigint NOT NULL,
	"started_at" timestamp with time zone NOT NULL,
	"heartbeat_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE INDEX "executions_due" ON "flowledger"."executions" USING btree ("wake_at") WHERE wake_at is not null;--> statement-breakpoint
CREATE INDEX "executions_flow" ON "flowledger"."executions" USING btree ("flow","id");--> statement-breakpoint
CREATE UNIQUE INDEX "executions_idempotency" ON "flowledger"."executions" USING btree ("flow","idempotency_key") WHERE idempotency_key is not null;--> statement-breakpoint
CREATE INDEX "executions_parent" ON "flowledger"."executions" USING btree ("parent_id") WHERE parent_id is not null;--> statement-breakpoint
CREATE INDEX "executions_waiting_children" ON "flowledger"."executions" USING btree ("parent_id") WHERE pending_interrupts > 0;--> statement-breakpoint
CREATE INDEX "executions_metadata" ON "flowledger"."executions" USING gin ("metadata" jsonb_path_ops) WHERE metadata is not null;--> statement-breakpoint
CREATE INDEX "interrupts_pending" ON "flowledger"."interrupts" USING btree ("created_at","execution_id","id") WHERE status = 'pending';--> statement-breakpoint
CREATE INDEX "interrupts_pending_flow" ON "flowledger"."interrupts" USING btree ("flow","created_at") WHERE status = 'pending';--> statement-breakpoint
CREATE INDEX "ledger_people" ON "flowledger"."ledger" USING btree ("execution_id","seq") WHERE type in ('interrupt.raised', 'interrupt.resumed', 'interrupt.expired', 'interrupt.cancelled', 'intervention.recorded', 'intervention.inserted', 'intervention.consumed', 'intervention.expired');--> statement-breakpoint
CREATE INDEX "ledger_event_keys" ON "flowledger"."ledger" USING btree ("execution_id",(payload ->> 'idempotencyKey')) WHERE type = 'event.emitted' and payload ? 'idempotencyKey';--> statement-breakpoint
CREATE INDEX "limited_starts_flow" ON "flowledger"."limited_starts" USING btree ("flow","at");--> statement-breakpoint
CREATE INDEX "limited_starts_key" ON "flowledger"."limited_starts" USING btree ("flow","key","at");--> statement-breakpoint
CREATE INDEX "slots_queue" ON "flowledger"."slots" USING btree ("flow","not_started","priority","queue_position","execution_id") WHERE not acquired;--> statement-breakpoint
CREATE INDEX "slots_key" ON "flowledger"."slots" USING btree ("flow","priority","key","queue_position");--> statement-breakpoint
CREATE INDEX "slots_acquired" ON "flowledger"."slots" USING btree ("flow","key") WHERE acquired;