/** What starts by the clock: cron in a time zone, looked at by every worker, fired once in the fleet. */
import { Cron } from "croner";
import { requireOneOf } from "../base/option.ts";
import { systemTimers as liveness, type Timer, type Timers } from "../base/timers.ts";
import { answered } from "../store/batcher.ts";
import type { FireCommand } from "../store/schedules.ts";
import type { NewExecution } from "../store/starts.ts";
import type { Store } from "../store/store.ts";
import { UsageError } from "../base/errors.ts";
import type { Logger } from "../flow/context.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { ExecutionId } from "../ledger/event.ts";

export interface ScheduleOptions {
  readonly flow: FlowDefinition;
  /** Five fields (minute, hour, day, month, weekday), or six with seconds first, or a name like "@daily". */
  readonly cron: string;
  /** IANA name. @default "UTC" */
  readonly timeZone?: string;
  /** What each execution starts with. @default null */
  readonly input?: unknown;
  /** Its identity, also across deploys. @default the flow's name and the cron */
  readonly name?: string;
  /** What becomes of times at which no worker ran: none of them, the last one, or all. @default "last" */
  readonly catchUp?: "skip" | "last" | "all";
  /**
   * What becomes of a time while the execution of an earlier one is open: it starts as well, it is left out, or it starts
   * when that one has closed. @default "allow"
   */
  readonly overlap?: "allow" | "skip" | "queue";
  /** Beside `schedule` and `scheduledAt`, which each execution gets. */
  readonly metadata?: Readonly<Record<string, unknown>>;
  /** Lower runs first. @default 0 */
  readonly priority?: number;
}

/** A schedule whose options have been checked. */
export interface Schedule {
  readonly name: string;
  readonly flow: string;
  readonly cron: string;
  readonly timeZone: string;
  readonly catchUp: "skip" | "last" | "all";
  readonly overlap: "allow" | "skip" | "queue";
  readonly execution: NewExecution;
}

/** A time that is looked at later than this was missed. */
const missedAfterMs = 10_000;
/** So many times are caught up in one statement. */
const maxTimes = 100;
/** Timers are set no farther than this. */
const longestWaitMs = 60_000;
/** A queued time looks so soon after news of the execution that it waits for; what comes meanwhile is one look. */
const heardWaitMs = 100;
const troubleWaitMs = 1000;

/** @throws {UsageError | ContractError} naming the schedule and the option that cannot be meant */
export function resolveSchedules(
  schedules: readonly ScheduleOptions[],
  newExecution: (
    flow: FlowDefinition,
    input: unknown,
    more: Pick<ScheduleOptions, "metadata" | "priority">,
  ) => NewExecution,
): Schedule[] {
  const resolved = new Map<string, Schedule>();
  for (const options of schedules) {
    const { flow, cron, timeZone = "UTC", catchUp = "last", overlap = "allow" } = options;
    const { input, name = `${flow.name} ${cron}`, metadata, priority } = options;
    const where = `schedule ${JSON.stringify(name)}`;
    if (typeof name !== "string" || !/^[^\p{Cc}]{1,200}$/u.test(name))
      throw new UsageError(`${where} has a name that is not allowed`, "use 1 to 200 printable characters");
    if (resolved.has(name))
      throw new UsageError(`there are two schedules ${JSON.stringify(name)}`, "give each a name of its own");
    requireOneOf(catchUp, ["skip", "last", "all"], `catchUp of ${where}`);
    requireOneOf(overlap, ["allow", "skip", "queue"], `overlap of ${where}`);
    checkTimes(cron, timeZone, where);
    const execution = newExecution(flow, input, {
      ...(metadata !== undefined && { metadata }),
      ...(priority !== undefined && { priority }),
    });
    resolved.set(name, { name, flow: flow.name, cron, timeZone, catchUp, overlap, execution });
  }
  return [...resolved.values()];
}

/** Looks at each schedule when its next time comes; the database says whether it has. Returns what ends that. */
export async function startSchedules(
  store: Pick<Store, "schedules" | "wakeups">,
  log: Logger,
  schedules: readonly Schedule[],
  timers: Timers,
): Promise<() => void> {
  for (const schedule of schedules) await store.schedules.declare(schedule);
  const looks = new Map<Schedule, Timer>();
  /** The execution that queued times wait for, and how to listen to it no more. */
  const awaited = new Map<Schedule, { readonly id: ExecutionId; readonly stop: () => void }>();
  const heard = new Set<Schedule>();
  let isStopped = false;
  const lookIn = (schedule: Schedule, ms: number, by: Timers = liveness) => {
    if (isStopped) return;
    looks.get(schedule)?.cancel();
    looks.set(
      schedule,
      by.after(Math.min(Math.max(ms, 1), longestWaitMs), () => void look(schedule)),
    );
  };
  /** The next of its times is a flow's own, and what passes until then may be moved by a test. */
  const lookAtNext = (schedule: Schedule, now: Date) => lookIn(schedule, waitFor(schedule, now), timers);
  /** False where it was listened to before. */
  const listenTo = (schedule: Schedule, id: ExecutionId): boolean => {
    if (isStopped || awaited.get(schedule)?.id === id) return false;
    awaited.get(schedule)?.stop();
    const stop = store.wakeups.on(id, () => {
      if (heard.has(schedule)) return;
      heard.add(schedule);
      lookIn(schedule, heardWaitMs);
    });
    awaited.set(schedule, { id, stop });
    return true;
  };
  const look = async (schedule: Schedule): Promise<void> => {
    heard.delete(schedule);
    try {
      const row = await answered(store.schedules.read(schedule.name));
      // Another version of the program has another idea of it, and came later.
      if (row?.cron !== schedule.cron || row.timeZone !== schedule.timeZone) return lookIn(schedule, longestWaitMs);
      const now = new Date(row.now);
      const { times, until } = dueTimes(schedule, new Date(row.firedUntil), now);
      if (times.length > 0 || row.waiting > 0) {
        const fire = fireCommand(schedule, row.firedUntil, times.length > 0 ? until : null, times);
        const done = await answered(store.schedules.fire(fire));
        if (!done || until < now) return lookIn(schedule, 1);
        const after = await answered(store.schedules.read(schedule.name));
        if (after?.lastId && after.waiting > 0) {
          // It may have closed before anybody listened.
          if (listenTo(schedule, after.lastId)) return lookIn(schedule, 1);
        } else {
          awaited.get(schedule)?.stop();
          awaited.delete(schedule);
        }
      }
      if (!heard.has(schedule)) lookAtNext(schedule, now);
    } catch (error) {
      log.warn("a schedule could not be looked at", { schedule: schedule.name, error: String(error) });
      lookIn(schedule, troubleWaitMs);
    }
  };
  for (const schedule of schedules) void look(schedule);
  return () => {
    isStopped = true;
    for (const { stop } of awaited.values()) stop();
    for (const timer of looks.values()) timer.cancel();
  };
}

/**
 * What is to be fired of the times after `after`, up to `until`. What is older than a moment was missed, and `catchUp`
 * decides; the `until` that comes back is earlier where there is more than one statement should hold.
 */
export function dueTimes(
  schedule: Pick<Schedule, "cron" | "timeZone" | "catchUp">,
  after: Date,
  until: Date,
): { times: Date[]; until: Date } {
  const cron = parse(schedule.cron, schedule.timeZone);
  const missedBefore = new Date(until.getTime() - missedAfterMs);
  const from = schedule.catchUp === "all" || after > missedBefore ? after : missedBefore;
  const times: Date[] = [];
  for (let time = cron.nextRun(from); time && time <= until; time = cron.nextRun(time)) {
    if (times.length === maxTimes) return { times, until: times.at(-1) ?? until };
    times.push(time);
  }
  if (times.length > 0 || schedule.catchUp !== "last") return { times, until };
  const [last] = cron.previousRuns(1, new Date(until.getTime() + 1));
  return { times: last && last > after ? [last] : [], until };
}

/** Where nothing is due now, only the times that wait are fired, and the row keeps what it has fired until. */
function fireCommand(schedule: Schedule, after: string, until: Date | null, times: readonly Date[]): FireCommand {
  const { name, overlap, execution } = schedule;
  return { name, after, until: until ?? new Date(after), times, overlap, execution };
}

/** Milliseconds to the next time after `now`. */
function waitFor({ cron, timeZone }: Schedule, now: Date): number {
  const next = parse(cron, timeZone).nextRun(now);
  return next ? next.getTime() - now.getTime() : longestWaitMs;
}

function checkTimes(cron: string, timeZone: string, where: string): void {
  try {
    if (timeZone === "") throw new RangeError();
    new Intl.DateTimeFormat("en", { timeZone });
  } catch (error) {
    throw new UsageError(
      `timeZone ${JSON.stringify(timeZone)} of ${where} is not known`,
      'use an IANA name like "Europe/Berlin"',
      { timeZone },
      error,
    );
  }
  let next: Date | null;
  try {
    next = parse(cron, timeZone).nextRun();
  } catch (error) {
    throw new UsageError(
      `cron ${JSON.stringify(cron)} of ${where} cannot be read (${error instanceof Error ? error.message : String(error)})`,
      'use five fields like "0 7 * * *": minute, hour, day of month, month, weekday',
      { cron },
      error,
    );
  }
  if (!next) throw new UsageError(`cron ${JSON.stringify(cron)} of ${where} has no time to come`, "correct the date");
}

function parse(cron: string, timezone: string): Cron {
  return new Cron(cron, { timezone, paused: true });
}
