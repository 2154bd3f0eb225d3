/** Lengths of time as people write them: "10s", "1h30m", or a number of milliseconds. */
import { types } from "node:util";
import { UsageError } from "./errors.ts";
import { show } from "./option.ts";

/** `"500ms"`, `"10s"`, `"1h30m"`, `"2d"` (units ms, s, m, h, d, w), or a number of milliseconds. */
export type Duration = string | number;

export interface DurationOptions {
  /**
   * Also takes words, spaces, commas and capitals: "30 minutes", "1h 30m", "2 Days, 1 hour", "2 months", and "500", which
   * is milliseconds. Defer's users write them so. @default false
   */
  readonly words?: boolean;
}

const unitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

const wordMs: readonly (readonly [RegExp, number])[] = [
  [/^(ns|nanoseconds?)$/, 1e-6],
  [/^(us|microseconds?)$/, 1e-3],
  [/^(|ms|millis|milliseconds?)$/, unitMs.ms],
  [/^(s|secs?|seconds?)$/, unitMs.s],
  [/^(m|mins?|minutes?)$/, unitMs.m],
  [/^(h|hrs?|hours?)$/, unitMs.h],
  [/^(d|days?)$/, unitMs.d],
  [/^(w|weeks?)$/, unitMs.w],
  // A year of 365.25 days, and a month of a twelfth of it.
  [/^(months?)$/, 30.4375 * unitMs.d],
  [/^(y|yrs?|years?)$/, 365.25 * unitMs.d],
];

/** A hundred years: beyond it a date would leave what Postgres and JavaScript agree on. */
export const longestMs = 36_525 * unitMs.d;

/** The last moment that ISO 8601 writes with four digits of a year, as Postgres reads it. */
export const latestMs = Date.UTC(9999, 11, 31);

/**
 * The milliseconds of a duration, rounded to whole ones.
 *
 * @param where names the option for the error, e.g. `timeout of chunk "score"`
 * @throws {UsageError} negative, NaN, infinite, without a unit, longer than a hundred years
 */
export function parseDuration(value: Duration, where: string, { words = false }: DurationOptions = {}): number {
  const ms = typeof value === "number" ? value : words ? inWords(value) : inUnits(value);
  if (!(ms >= 0 && ms <= longestMs))
    throw new UsageError(
      `${show(value)} is not a duration for ${where}`,
      `use "500ms", "10s", ${words ? '"30 minutes"' : '"1h30m"'} or a number of milliseconds from 0 to a hundred years`,
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
export function parseMoment(value: Date | Duration, where: string, options?: DurationOptions): Date | number;
export function parseMoment(value: Date | Duration, where: string, options?: DurationOptions): Date | number {
  if (!types.isDate(value)) return parseDuration(value, where, options);
  const ms = value.getTime();
  if (ms >= 0 && ms <= latestMs) return new Date(ms);
  throw new UsageError(`${String(value)} is not a moment for ${where}`, "pass a Date from 1970 to 9999", { where });
}

/** A date, or a date and a time, as ISO 8601 writes them with four digits of a year; null is none. `new Date("1")` would be in 2001. */
export function isoMoment(text: string): Date | null {
  const [, day] =
    /^(\d{4}-\d{2}-\d{2})(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?$/.exec(text) ?? [];
  if (day === undefined || !isDay(day)) return null;
  const moment = new Date(text);
  return Number.isNaN(moment.getTime()) ? null : moment;
}

/** `new Date("2026-02-30")` would be in March. */
function isDay(text: string): boolean {
  const day = new Date(`${text}T00:00:00Z`);
  return !Number.isNaN(day.getTime()) && day.toISOString().startsWith(text);
}

function inUnits(text: unknown): number {
  if (typeof text !== "string" || !/^(\d+(\.\d+)?(ms|s|m|h|d|w))+$/.test(text)) return Number.NaN;
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/([\d.]+)([a-z]+)/g))
    total += Number(amount) * unitMs[unit as keyof typeof unitMs];
  return total;
}

function inWords(text: unknown): number {
  if (typeof text !== "string" || !/\d/.test(text)) return Number.NaN;
  let total = 0;
  const rest = text.toLowerCase().replaceAll(/(\d+(?:\.\d+)?)\s*([a-z]*)/g, (_, amount: string, word: string) => {
    total += Number(amount) * (wordMs.find(([words]) => words.test(word))?.[1] ?? Number.NaN);
    return "";
  });
  return /^[\s,]*$/.test(rest) ? total : Number.NaN;
}
