/** What starts by the clock: cron in a time zone, looked at by every worker, fired once in the fleet. */
import { cronProblem, isTimeZone, timesOf } from "../base/cron.ts";
import type { CronTimes } from "../base/cron.ts";
import { requireKnown, requireOneOf, show } from "../base/option.ts";
import { systemTimers as liveness, type Timer, type Timers } from "../base/timers.ts";
import { withAnswerLimit } from "../store/batcher.ts";
import { registeredSchedule } from "../store/schedules.ts";
import type { FireCommand, ScheduleRow, Schedules, Span } from "../store/schedules.ts";
import type { NewExecution } from "../store/starts.ts";
import type { Wakeups } from "../store/wakeups.ts";
import { UsageError } from "../base/errors.ts";
import type { Logger } from "../flow/context.ts";
import type { StartInput } from "../flow/contract.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { FlowPauses } from "./flow-pauses.ts";

/** What starts by the clock, once in the fleet. */
export interface ScheduleOptions {
  /** What each time starts an execution of. */
  readonly flow: FlowDefinition;
  /**
   * Five fields (minute, hour, day of month, month, weekday), or six with seconds first, or a name like "@daily". Fixed times go
   * by the wall clock, once each; what has * or a step in second, minute or hour goes by real time.
   */
  readonly cron: string;
  /** IANA name. @default "UTC" */
  readonly timeZone?: string;
  /** What each execution starts with, as its flow takes it. @default null */
  readonly input?: unknown;
  /** Its identity, also across deploys. @default the flow's name and the cron */
  readonly name?: string;
  /**
   * What becomes of times that nobody looked at for ten seconds or more, because no worker ran:
   *
   * - "skip": nothing
   * - "last": the latest of them starts one execution
   * - "all": each of the last 1,000 starts one; a warning in the log and the schedule's row say between which times some were left
   *   out. A schedule that was removed, so that workers served its flow without it, and comes back after an hour or more begins at
   *   its return. With `overlap: "skip"` it means "last"
   *
   * @default "last"
   */
  readonly catchUp?: "skip" | "last" | "all";
  /**
   * What becomes of a time while the execution of an earlier one is open: it starts as well, it is left out, or it starts
   * when that one has closed; at most 1,000 wait. @default "allow"
   */
  readonly overlap?: "allow" | "skip" | "queue";
  /** Beside `schedule` and `scheduledAt`, which each execution gets. */
  readonly metadata?: Readonly<Record<string, unknown>>;
  /** Lower runs first. @default 0 */
  readonly priority?: number;
}

/** Schedules whose input is what their flows take: the compiler says of which it is not. */
export type Scheduled<Given extends readonly ScheduleOptions[]> = [Given] extends [Fitting<Given>]
  ? Given
  : Fitting<Given>;
/** The input may be left out where the flow takes null. */
type Fitting<Given extends readonly ScheduleOptions[]> = {
  readonly [Index in keyof Given]: Omit<ScheduleOptions, "input"> &
    ScheduleInput<Given[Index]> & { readonly [Unknown in Exclude<keyof Given[Index], keyof ScheduleOptions>]?: never };
};
type ScheduleInput<Given> = Given extends { readonly flow: FlowDefinition<infer C> }
  ? null extends StartInput<C>
    ? { readonly input?: StartInput<C> }
    : { readonly input: StartInput<C> }
  : unknown;

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
/** So many times are started in one statement. */
const maxTimes = 100;
/** So many missed times are caught up. */
const maxMissed = 1000;
/** Workers without the schedule that come and go for less than this, as in a deploy, do not make it a removed one. */
const removedAfterMs = 3_600_000;
/** Looks are no farther apart: the database's clock may be set meanwhile. */
const longestWaitMs = 60_000;
/** A queued time looks so soon after news of the execution that it waits for; what comes meanwhile is one look. */
const heardWaitMs = 100;
const troubleWaitMs = 1000;
export const scheduleOptionNames = [
  "flow",
  "cron",
  "timeZone",
  "input",
  "name",
  "catchUp",
  "overlap",
  "metadata",
  "priority",
];

/** @throws {UsageError | ContractError} naming the schedule and the option that is invalid */
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
    requireKnown(options, scheduleOptionNames, "a schedule");
    const { flow, cron, timeZone = "UTC", catchUp = "last", overlap = "allow" } = options;
    const {
      input,
      name = `${flow.name} ${typeof cron === "string" ? cron : show(cron)}`,
      metadata,
      priority,
    } = options;
    const where = `schedule ${typeof name === "string" ? JSON.stringify(name) : show(name)}`;
    if (typeof name !== "string" || !/^[^\p{Cc}]{1,200}$/u.test(name) || !name.isWellFormed())
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
    // Missed times all start now, so they overlap each other.
    const caughtUp = catchUp === "all" && overlap === "skip" ? "last" : catchUp;
    resolved.set(name, { name, flow: flow.name, cron, timeZone, catchUp: caughtUp, overlap, execution });
  }
  return [...resolved.values()];
}

/** The schedules of a worker that runs. */
export interface RunningSchedules {
  /** Nothing is looked at, or is about to be. */
  readonly isQuiet: boolean;
  /** These flows were paused, or go on. */
  look(flows: ReadonlySet<string>): void;
  stop(): void;
}

/** Looks at each schedule when its next time comes; the database says whether it has. */
export async function startSchedules(
  store: { readonly schedules: Schedules; readonly wakeups: Pick<Wakeups, "subscribe"> },
  log: Logger,
  schedules: readonly Schedule[],
  timers: Timers,
  pauses: Pick<FlowPauses, "has">,
): Promise<RunningSchedules> {
  for (const schedule of schedules) await store.schedules.declare(schedule);
  const looks = new Map<Schedule, readonly Timer[]>();
  /** The execution that queued times wait for, and how to listen to it no more. */
  const awaited = new Map<Schedule, { readonly id: ExecutionId; readonly stop: () => void }>();
  const heard = new Set<Schedule>();
  /** They are looked at in a moment, or just now. */
  const soon = new Set<Schedule>();
  const looking = new Set<Schedule>();
  /** What is being looked at may have been read before its flow was paused, or went on. */
  const stale = new Set<Schedule>();
  let isStopped = false;
  const cancelLooks = (schedule: Schedule) => {
    soon.delete(schedule);
    for (const timer of looks.get(schedule) ?? []) timer.cancel();
  };
  const lookBy = (schedule: Schedule, ...waits: readonly (readonly [by: Timers, ms: number, what?: string])[]) => {
    cancelLooks(schedule);
    if (isStopped) return;
    const begun = waits.map(([by, ms, what]) => by.after(Math.max(ms, 1), () => void look(schedule), what));
    looks.set(schedule, begun);
  };
  const lookIn = (schedule: Schedule, ms: number) => {
    lookBy(schedule, [liveness, ms]);
    if (ms <= troubleWaitMs) soon.add(schedule);
  };
  /** The next of its times is a flow's own, and what passes until then may be moved by a test. */
  const lookAtNext = (schedule: Schedule, now: Date) => {
    const next = timesOf(schedule.cron, schedule.timeZone).after(now);
    if (!next) return lookIn(schedule, longestWaitMs);
    const what = `schedule ${JSON.stringify(schedule.name)}`;
    lookBy(schedule, [timers, next.getTime() - now.getTime(), what], [liveness, longestWaitMs]);
  };
  /** False where it was listened to before. */
  const listenTo = (schedule: Schedule, id: ExecutionId): boolean => {
    if (isStopped || awaited.get(schedule)?.id === id) return false;
    awaited.get(schedule)?.stop();
    const stop = store.wakeups.subscribe(id, () => {
      if (heard.has(schedule)) return;
      heard.add(schedule);
      lookIn(schedule, heardWaitMs);
    });
    awaited.set(schedule, { id, stop });
    return true;
  };
  const look = async (schedule: Schedule): Promise<void> => {
    heard.delete(schedule);
    cancelLooks(schedule);
    looking.add(schedule);
    try {
      const own = registeredSchedule(schedule, schedule.overlap, schedule.execution);
      const row = await withAnswerLimit(store.schedules.read(schedule.name, own));
      // A later version of the program defines the schedule otherwise. When its workers are gone, this definition counts.
      const isSame = row !== null && hasTimesOf(schedule, row);
      if (isSame ? row.isOutdated : row?.isServed) return lookBy(schedule, [timers, longestWaitMs]);
      if (!isSame) {
        await withAnswerLimit(store.schedules.declare(schedule));
        return lookIn(schedule, 1);
      }
      // As if no worker ran: `catchUp` decides once the flow goes on. `look` tells of that where the pause is known here.
      if (row.isPaused) return lookIn(schedule, pauses.has(schedule.flow) ? longestWaitMs : troubleWaitMs);
      const now = new Date(row.now);
      if (now < new Date(row.firedUntil)) {
        await withAnswerLimit(store.schedules.rewind(schedule.name, row.firedUntil));
        return lookIn(schedule, 1);
      }
      const due = dueTimes(schedule, new Date(row.firedUntil), now, row.removedAt !== null);
      if (due.isDue || row.waiting > 0 || row.removedAt !== null) {
        const fired = await withAnswerLimit(store.schedules.fire(fireCommand(schedule, row.firedUntil, due)));
        if (fired.leftOutFrom !== null) {
          const { leftOutFrom: from, leftOutUntil: until } = fired;
          log.warn("times of a schedule were left out", { schedule: schedule.name, from, until });
        }
        if (!fired.done || due.until < now) return lookIn(schedule, 1);
        const after = await withAnswerLimit(store.schedules.read(schedule.name));
        if (after?.lastId && after.waiting > 0) {
          // The execution may have closed before anybody listened.
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
    } finally {
      looking.delete(schedule);
      if (stale.delete(schedule)) lookIn(schedule, 1);
    }
  };
  for (const schedule of schedules) void look(schedule);
  return {
    get isQuiet() {
      return soon.size === 0 && looking.size === 0;
    },
    look(flows) {
      for (const schedule of schedules)
        if (flows.has(schedule.flow)) {
          if (looking.has(schedule)) stale.add(schedule);
          else lookIn(schedule, 1);
        }
    },
    stop() {
      isStopped = true;
      for (const { stop } of awaited.values()) stop();
      for (const schedule of schedules) cancelLooks(schedule);
    },
  };
}

/** What is to be done about the times of a schedule that have come. */
interface Due {
  /** Whether any has come: what starts nothing is dealt with, too. */
  readonly isDue: boolean;
  readonly times: Date[];
  /** Up to when that deals with them: sooner than asked, where there is more than one statement should hold. */
  readonly until: Date;
  /** What `catchUp: "all"` leaves out. */
  readonly leftOut: Span | null;
  /** It begins anew, also with what waits. */
  readonly isReturn: boolean;
}

/**
 * What is to be fired of the times after `after`, up to `until`. What is older than a moment was missed, and `catchUp` decides.
 *
 * @param wasRemoved whether workers served its flow without it in between
 */
export function dueTimes(
  { cron, timeZone, catchUp }: Pick<Schedule, "cron" | "timeZone" | "catchUp">,
  after: Date,
  until: Date,
  wasRemoved = false,
): Due {
  const times = timesOf(cron, timeZone);
  const first = times.after(after);
  const none = { isDue: first !== null && first <= until, times: [], until, leftOut: null, isReturn: false };
  if (!first || first > until) return none;
  const missedBefore = new Date(until.getTime() - missedAfterMs);
  if (first > missedBefore) return { ...none, ...take(times, after, until) };
  const last = times.upTo(until);
  if (catchUp === "last") return { ...none, times: last ? [last] : [] };
  if (catchUp === "skip") return { ...none, ...take(times, missedBefore, until) };
  const isReturn = wasRemoved && first.getTime() <= until.getTime() - removedAfterMs;
  const from = isReturn ? missedBefore : beginOf(times, after, until);
  const leftOut = from > after ? { from: first, until: times.upTo(from) ?? first } : null;
  return { ...none, ...take(times, from, until), leftOut, isReturn };
}

/** After when no more times come than are caught up: `after`, where there are not more of them. */
function beginOf(times: CronTimes, after: Date, until: Date): Date {
  let next = times.after(after);
  for (let count = 0; next && next <= until; next = times.after(next)) if (++count > maxMissed) break;
  if (!next || next > until) return after;
  let begin = times.upTo(until);
  for (let count = 0; begin && count < maxMissed; count++) begin = times.upTo(new Date(begin.getTime() - 1));
  return begin ?? after;
}

function take(times: CronTimes, after: Date, until: Date): { times: Date[]; until: Date } {
  const taken: Date[] = [];
  for (let time = times.after(after); time && time <= until; time = times.after(time)) {
    if (taken.length === maxTimes) return { times: taken, until: taken.at(-1) ?? until };
    taken.push(time);
  }
  return { times: taken, until };
}

/** Where nothing is due now, only the times that wait are fired, and the row keeps what it has fired until. */
function fireCommand(schedule: Schedule, after: string, due: Due): FireCommand {
  const { name, overlap, execution } = schedule;
  const { times, leftOut, isReturn } = due;
  const until = due.isDue ? due.until : new Date(after);
  return { name, after, until, times, leftOut, isReturn, overlap, execution };
}

function hasTimesOf(schedule: Schedule, row: ScheduleRow): boolean {
  return schedule.flow === row.flow && schedule.cron === row.cron && schedule.timeZone === row.timeZone;
}

function checkTimes(cron: string, timeZone: string, where: string): void {
  if (!isTimeZone(timeZone))
    throw new UsageError(
      `timeZone ${show(timeZone)} of ${where} is not known`,
      'use an IANA name like "Europe/Berlin"',
      { timeZone },
    );
  const problem = cronProblem(cron, { hasSeconds: true });
  if (problem !== null)
    throw new UsageError(
      `cron ${show(cron)} of ${where} cannot be read (${problem})`,
      'use five fields like "0 7 * * *": minute, hour, day of month, month, weekday',
      { cron },
    );
}
