/** The clock of a test: it stands still until it is moved. */
import { parseDuration, parseMoment, type Duration } from "../base/duration.ts";
import { UsageError } from "../base/errors.ts";
import type { Driver, Due } from "./driver.ts";

/** The clock of a test: it stands still until it is moved. */
export interface Clock {
  /** What time it is. */
  now(): Date;
  /**
   * Lets time pass. Whatever is due on the way happens at its time and in its order: sleeps, retries, timeouts, expiry, auto-close,
   * schedules. Resolves when nothing is left to do at the time that is reached.
   */
  advance(duration: Duration): Promise<void>;
  /** The same up to a moment. @throws {UsageError} it is over */
  set(moment: Date | string): Promise<void>;
  /** Goes to the next time at which something is due, and says what that is; null where there is nothing. */
  next(): Promise<Due | null>;
  /** What is due and when, the next first. */
  upcoming(): Promise<Due[]>;
}

export function clockOf(driver: Driver): Clock {
  return {
    now: () => new Date(driver.now),
    advance: async (duration) => driver.moveBy(parseDuration(duration, "clock.advance()")),
    set: async (moment) => driver.moveTo(momentOf(moment, "clock.set()").getTime()),
    next: () => driver.next(),
    upcoming: () => driver.upcoming(),
  };
}

export function momentOf(given: Date | string, where: string): Date {
  const moment = typeof given === "string" ? new Date(given) : given;
  if (typeof given === "string" && Number.isNaN(moment.getTime()))
    throw new UsageError(
      `${JSON.stringify(given)} is not a moment for ${where}`,
      'use ISO 8601, like "2026-01-01T09:00Z"',
    );
  return parseMoment(moment, where);
}
