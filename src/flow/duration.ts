/** Lengths of time as people write them: "10s", "1h30m", or a number of milliseconds. */
import { UsageError } from "../base/errors.ts";

/** `"500ms"`, `"10s"`, `"1h30m"`, `"2d"` (units ms, s, m, h, d, w), or a number of milliseconds. */
export type Duration = string | number;

const unitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };
/** A hundred years: beyond it a date would leave what Postgres and JavaScript agree on. */
const longestMs = 36_525 * unitMs.d;

/** What a timer of Node holds, 24.8 days: a longer one would fire at once. */
export const longestTimerMs = 2 ** 31 - 1;

/** The last moment that ISO 8601 writes with four digits of a year, as Postgres reads it. */
const latestMs = Date.UTC(9999, 11, 31);

/**
 * The milliseconds of a duration, rounded to whole ones.
 *
 * @param where names the option for the error, e.g. `timeout of chunk "score"`
 * @throws {UsageError} negative, NaN, infinite, without a unit, longer than a hundred years
 */
export function parseDuration(value: Duration, where: string): number {
  const ms = typeof value === "number" ? value : milliseconds(value);
  if (!(ms >= 0 && ms <= longestMs))
    throw new UsageError(
      `${typeof value === "string" ? JSON.stringify(value) : String(value)} is not a duration for ${where}`,
      `use "500ms", "10s", "1h30m" or a number of milliseconds from 0 to a hundred years`,
      { where },
    );
  return Math.round(ms);
}

/**
 * A moment given as a date, or as a duration from now on: only the database knows when that is.
 *
 * @throws {UsageError} an invalid date, or no duration
 */
export function parseMoment(value: Date, where: string): Date;
export function parseMoment(value: Date | Duration, where: string): Date | number;
export function parseMoment(value: Date | Duration, where: string): Date | number {
  if (!(value instanceof Date)) return parseDuration(value, where);
  const ms = value.getTime();
  if (ms >= 0 && ms <= latestMs) return value;
  throw new UsageError(`${String(value)} is not a moment for ${where}`, "pass a Date from 1970 to 9999", { where });
}

function milliseconds(text: unknown): number {
  if (typeof text !== "string" || !/^(\d+(\.\d+)?(ms|s|m|h|d|w))+$/.test(text)) return Number.NaN;
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/([\d.]+)([a-z]+)/g))
    total += Number(amount) * unitMs[unit as keyof typeof unitMs];
  return total;
}
