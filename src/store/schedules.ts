/** Schedules: their rows, and the statement that fires a time once in the fleet. */
import type { ExecutionId } from "../ledger/event.ts";
import type { Database } from "./client.ts";
import { list } from "./columns.ts";
import { createdPayload } from "./starts.ts";
import type { NewExecution } from "./starts.ts";

/** A schedule's own row. The clock is the database's. */
export interface ScheduleRow {
  readonly flow: string;
  readonly cron: string;
  readonly timeZone: string;
  /** Its times up to here have been dealt with. */
  readonly firedUntil: string;
  readonly now: string;
  /** Times that wait for the execution that was started last. */
  readonly waiting: number;
  readonly lastId: ExecutionId | null;
}

export interface FireCommand {
  readonly name: string;
  /** `firedUntil` as it was read. */
  readonly after: string;
  readonly until: Date;
  readonly times: readonly Date[];
  readonly overlap: "allow" | "skip" | "queue";
  /** What each time starts; id and idempotency key are made there. */
  readonly execution: NewExecution;
}

export interface Schedules {
  /** Makes the schedule known. A new one, or one with another cron, has missed nothing before now. */
  declare(schedule: { name: string; flow: string; cron: string; timeZone: string }): Promise<void>;
  read(name: string): Promise<ScheduleRow | null>;
  /** False when somebody else has fired since `after` was read. */
  fire(command: FireCommand): Promise<boolean>;
}

export function schedulesOf({ sql }: Pick<Database, "sql">): Schedules {
  return {
    async declare({ name, flow, cron, timeZone }) {
      await sql`
        insert into flowledger.schedules as s (name, flow, cron, time_zone, fired_until)
        values (${name}, ${flow}, ${cron}, ${timeZone}, date_trunc('milliseconds', flowledger.now()))
        on conflict (name) do update set flow = excluded.flow, cron = excluded.cron, time_zone = excluded.time_zone, fired_until = excluded.fired_until
        where (s.flow, s.cron, s.time_zone) is distinct from (excluded.flow, excluded.cron, excluded.time_zone)`;
    },
    async read(name) {
      const [row] = await sql<ScheduleRow[]>`
        select s.flow, s.cron, s.time_zone as "timeZone", flowledger.iso(s.fired_until) as "firedUntil", flowledger.iso(flowledger.now()) as now,
          cardinality(s.waiting) as waiting, s.last_id as "lastId"
        from flowledger.schedules s where s.name = ${name}`;
      return row ?? null;
    },
    async fire({ name, after, until, times, overlap, execution }) {
      const [row] = await sql<{ done: boolean }[]>`
        select flowledger.fire_schedule(${name}, ${after}::text::timestamptz, ${until.toISOString()}::text::timestamptz,
          ${list(times)}::text::timestamptz[], ${overlap}, ${JSON.stringify(execution.input ?? null)}::text::jsonb,
          ${JSON.stringify(createdPayload(execution))}::text::jsonb, ${execution.priority}::int, ${execution.limitKey}) as done`;
      return row?.done ?? false;
    },
  };
}
