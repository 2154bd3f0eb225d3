/** Cron: what a pattern may say, and the times that it means in a time zone. Patterns and calendar are croner's. */
import { Cron } from "croner";
import { show } from "./option.ts";

export interface CronTimes {
  /** The first after a moment. */
  after(moment: Date): Date | null;
  /** The last up to a moment, which may be that moment. */
  upTo(moment: Date): Date | null;
}

/** A pattern has a time after this one, or none at all. */
const someMoment = new Date(Date.UTC(2000, 0, 1));
const dayMs = 86_400_000;

/** What is wrong with a pattern, or null. @param hasSeconds whether it may have six fields, the first of them seconds */
export function cronProblem(cron: unknown, { hasSeconds }: { readonly hasSeconds: boolean }): string | null {
  if (typeof cron !== "string") return `expected a text, got ${show(cron)}`;
  // croner takes a date for a pattern that comes once.
  if (/^\s*\d+-\d+-\d/.test(cron)) return "a date comes only once: start an execution with startAt instead";
  try {
    const pattern = new Cron(cron, { mode: hasSeconds ? "5-or-6-parts" : "5-part", timezone: "UTC", paused: true });
    return pattern.nextRun(someMoment) ? null : "it never comes: there is no such date";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Whether this Node knows the time zone. */
export function isTimeZone(timeZone: unknown): timeZone is string {
  if (typeof timeZone !== "string" || timeZone === "") return false;
  try {
    new Intl.DateTimeFormat("en", { timeZone });
    return true;
  } catch {
    return false;
  }
}

/**
 * The times of a pattern that has no problem. Where clocks change, as in Vixie's cron:
 *
 * - a pattern with fixed times, one or a list or a range of them, goes by the wall clock. A time that is skipped comes at the
 *   end of the gap, a time that is there twice comes the first time, and times that fall together come once
 * - a pattern with * or a step in its second, minute or hour goes by real time: whenever the wall clock shows what it says
 */
export function timesOf(cron: string, timeZone: string): CronTimes {
  const pattern = cron.trim();
  const time = pattern.split(/\s+/).slice(0, -3).join(" ");
  const isFixed = pattern.startsWith("@") ? !/^@hourly$/i.test(pattern) : !/[*?/]/.test(time);
  return isFixed ? fixedTimes(pattern, timeZone) : realTimes(pattern, timeZone);
}

/** The same, or null where a release of another grammar wrote what this one cannot read. */
export function readableTimesOf(cron: string, timeZone: string): CronTimes | null {
  return cronProblem(cron, { hasSeconds: true }) === null && isTimeZone(timeZone) ? timesOf(cron, timeZone) : null;
}

function realTimes(pattern: string, timeZone: string): CronTimes {
  const times = calendar(pattern, timeZone);
  return {
    after: (moment) => times.nextRun(moment),
    upTo: (moment) => times.previousRuns(1, new Date(moment.getTime() + 1))[0] ?? null,
  };
}

/**
 * The calendar counts wall clock times as if they were UTC, and they are put into the zone here: croner takes a list or a range
 * for a step, and drops what is skipped where the gap ends on the next day (Nuuk 2026-03-28 23:30, Apia 2011-12-30).
 */
function fixedTimes(pattern: string, timeZone: string): CronTimes {
  const walls = calendar(pattern, "UTC");
  const zone = new Zone(timeZone);
  return {
    after(moment) {
      const at = moment.getTime();
      for (let wall = walls.nextRun(new Date(at + zone.offset(at))); wall; wall = walls.nextRun(wall)) {
        const time = zone.momentOf(wall.getTime());
        // In a repeated hour the wall clock is behind what it has shown already.
        if (time > at) return new Date(time);
      }
      return null;
    },
    upTo(moment) {
      const at = moment.getTime();
      const wall = at + Math.max(zone.offset(at), zone.offset(at - dayMs));
      for (let [last] = walls.previousRuns(1, new Date(wall + 1)); last; [last] = walls.previousRuns(1, last)) {
        const time = zone.momentOf(last.getTime());
        if (time <= at) return new Date(time);
      }
      return null;
    },
  };
}

/** Wall clocks of a place. Moments are milliseconds since 1970; so is what its clocks show, as if that were UTC. */
class Zone {
  readonly #format: Intl.DateTimeFormat;

  constructor(timeZone: string) {
    const number = "numeric";
    const parts = { year: number, month: number, day: number, hour: number, minute: number, second: number } as const;
    this.#format = new Intl.DateTimeFormat("en", { ...parts, timeZone, hourCycle: "h23" });
  }

  /** How far its clocks are ahead of UTC. */
  offset(at: number): number {
    const shown: Partial<Record<Intl.DateTimeFormatPartTypes, number>> = {};
    for (const { type, value } of this.#format.formatToParts(at)) shown[type] = Number(value);
    const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = shown;
    return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(at / 1000) * 1000;
  }

  /** When its clocks show this for the first time, or, where they skip it, when they skip it. */
  momentOf(wall: number): number {
    let [before, after] = [wall - dayMs, wall + dayMs];
    const [ahead, behind] = [this.offset(before), this.offset(after)];
    for (const offset of [ahead, behind]) if (this.offset(wall - offset) === offset) return wall - offset;
    while (after - before > 1) {
      const middle = Math.floor((before + after) / 2);
      if (this.offset(middle) === ahead) before = middle;
      else after = middle;
    }
    return after;
  }
}

function calendar(pattern: string, timezone: string): Cron {
  return new Cron(pattern, { timezone, mode: "5-or-6-parts", paused: true });
}
