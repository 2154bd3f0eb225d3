/** Schedules: when each last fired, and how a time starts its execution once in the fleet. */
import type { Json, JsonObject } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Database } from "./client.ts";
import { lockWithin } from "./batcher.ts";
import { list } from "./columns.ts";
import { createdPayload } from "./starts.ts";
import type { NewExecution } from "./starts.ts";

/** What makes a schedule another one under the same name. */
export interface ScheduleVersion {
  readonly flow: string;
  readonly cron: string;
  readonly timeZone: string;
}

/** What a worker says of a schedule that it has, so that anybody can start one of it. */
export interface RegisteredSchedule extends ScheduleVersion {
  readonly overlap: "allow" | "skip" | "queue";
  readonly input: Json;
  readonly created: ReturnType<typeof createdPayload>;
  readonly priority: number;
  readonly limitKey: string | null;
}

export function registeredSchedule(
  { flow, cron, timeZone }: ScheduleVersion,
  overlap: RegisteredSchedule["overlap"],
  execution: NewExecution,
): RegisteredSchedule {
  const { input = null, priority, limitKey } = execution;
  return { flow, cron, timeZone, overlap, input, created: createdPayload(execution), priority, limitKey };
}

/** A schedule's own row. The clock is the database's. */
export interface ScheduleRow extends ScheduleVersion {
  /** Its times up to here have been dealt with. */
  readonly firedUntil: string;
  readonly now: string;
  /** Times that wait for the execution that was started last. */
  readonly waiting: number;
  readonly lastId: ExecutionId | null;
  /** Since when workers have served its flow and none had it; null where one has looked at it since. */
  readonly removedAt: string | null;
  /** Its flow is paused, so that nothing fires. */
  readonly isPaused: boolean;
  /** Whether a worker that is registered has this version of it. */
  readonly isServed: boolean;
  /** Whether the worker with this version that started last starts something else than was asked about. */
  readonly isOutdated: boolean;
}

/** The first and the last of some times. */
export interface Span {
  readonly from: Date;
  readonly until: Date;
}

export interface FireCommand {
  readonly name: string;
  /** What had been fired when this was decided. */
  readonly after: string;
  readonly until: Date;
  readonly times: readonly Date[];
  /** Those up to `until` that nothing is started for. */
  readonly leftOut?: Span | null;
  /** It was removed and is back: times that wait since before are left out as well. @default false */
  readonly isReturn?: boolean;
  readonly overlap: "allow" | "skip" | "queue";
  /** What each time starts; id and idempotency key are made there. */
  readonly execution: NewExecution;
}

export interface Fired {
  /** False when somebody else has fired since `after` was read. */
  readonly done: boolean;
  /** Times that nothing was started for, and nothing will be. */
  readonly leftOutFrom: string | null;
  readonly leftOutUntil: string | null;
}

export interface Schedules {
  /** Makes the schedule known. A new one, or one with another flow, cron or time zone, has missed nothing before now. */
  declare(schedule: { readonly name: string } & ScheduleVersion): Promise<void>;
  /** @param own what the worker that asks would start @default nothing that could be outdated */
  read(name: string, own?: RegisteredSchedule): Promise<ScheduleRow | null>;
  fire(command: FireCommand): Promise<Fired>;
  /** Starts one now; with the same id again it is the same one. @throws {UsageError} */
  run(name: string, options: JsonObject): Promise<ExecutionId>;
  /** Goes back to now, where the database's clock was set back since `after` was read. */
  rewind(name: string, after: string): Promise<void>;
}

export function schedulesOf({ sql }: Pick<Database, "sql">): Schedules {
  return {
    async declare({ name, flow, cron, timeZone }) {
      await sql`
        insert into flowledger.schedules as s (name, flow, cron, time_zone, fired_until)
        select ${name}, ${flow}, ${cron}, ${timeZone}, date_trunc('milliseconds', flowledger.now())
        -- A conflict locks the row, which somebody may hold.
        where not exists (select from flowledger.schedules x where x.name = ${name} and (x.flow, x.cron, x.time_zone) = (${flow}, ${cron}, ${timeZone}))
        on conflict (name) do update set flow = excluded.flow, cron = excluded.cron, time_zone = excluded.time_zone, fired_until = excluded.fired_until
        where (s.flow, s.cron, s.time_zone) is distinct from (excluded.flow, excluded.cron, excluded.time_zone)`;
    },
    async read(name, own) {
      const [row] = await sql<ScheduleRow[]>`
        select s.flow, s.cron, s.time_zone as "timeZone", flowledger.iso(s.fired_until) as "firedUntil", flowledger.iso(flowledger.now()) as now,
          cardinality(s.waiting) as waiting, s.last_id as "lastId", flowledger.iso(s.removed_at) as "removedAt",
          exists (select from flowledger.flow_pause_of(s.flow)) as "isPaused",
          exists (
            select from flowledger.workers w
            where w.schedules -> s.name @> jsonb_build_object('flow', s.flow, 'cron', s.cron, 'timeZone', s.time_zone)) as "isServed",
          coalesce((
            select w.schedules -> s.name <> ${own ? JSON.stringify(own) : null}::text::jsonb from flowledger.workers w
            where w.schedules -> s.name @> jsonb_build_object('flow', s.flow, 'cron', s.cron, 'timeZone', s.time_zone)
            order by w.started_at desc, w.id limit 1), false) as "isOutdated"
        from flowledger.schedules s where s.name = ${name}`;
      return row ?? null;
    },
    async fire({ name, after, until, times, leftOut, isReturn = false, overlap, execution }) {
      const span = leftOut ? list([leftOut.from, leftOut.until]) : null;
      const [row] = await sql<[Fired]>`
        select f.done, flowledger.iso(f.left_out_from) as "leftOutFrom", flowledger.iso(f.left_out_until) as "leftOutUntil"
        from flowledger.fire_schedule(${name}, ${after}::text::timestamptz, ${until.toISOString()}::text::timestamptz,
          ${list(times)}::text::timestamptz[], ${span}::text::timestamptz[], ${isReturn}::boolean, ${overlap},
          ${JSON.stringify(execution.input ?? null)}::text::jsonb, ${JSON.stringify(createdPayload(execution))}::text::jsonb,
          ${execution.priority}::int, ${execution.limitKey}) f`;
      return row;
    },
    async run(name, options) {
      const [row] = await sql<[{ id: ExecutionId }]>`
        select flowledger.run_schedule(case when set_config('lock_timeout', ${lockWithin}, true) <> '' then ${name} end, ${JSON.stringify(options)}::text::jsonb) as id`;
      return row.id;
    },
    async rewind(name, after) {
      await sql`
        update flowledger.schedules s set fired_until = date_trunc('milliseconds', flowledger.now())
        where s.name = ${name} and date_trunc('milliseconds', s.fired_until) = ${after}::text::timestamptz and s.fired_until > flowledger.now()`;
    },
  };
}
