-- locks: workers, for a moment; workers: keep running
ALTER TABLE "flowledger"."workers" ADD COLUMN "slots" integer;