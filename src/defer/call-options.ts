/** What one call of a function says: its options and its arguments. */
import { z } from "zod";
import { parseMoment } from "../base/duration.ts";
import { UsageError } from "../base/errors.ts";
import { toJson, type Json } from "../base/json.ts";
import { requireText } from "../base/option.ts";
import type { CreateOptions } from "../execution/start-options.ts";

/** Options of the calls of a function; see `assignOptions()`. */
export interface ExecutionOptions {
  /** When it may start: a date, a duration such as "1h30m" or "2 days", or milliseconds. @default at once */
  readonly delay?: Date | string | number;
  /** Not started by then, it never runs: a date, or a duration from the call on. @default never */
  readonly discardAfter?: Date | string | number;
  /** Kept with the execution; `listExecutions` finds it by them. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** One execution per function and key: calling again gives the same one. */
  readonly idempotencyKey?: string;
}

type StartOptions = Pick<CreateOptions, "startAt" | "delay" | "discardAfter" | "idempotencyKey"> & {
  metadata?: Record<string, string>;
};

export function startOptions(options: ExecutionOptions = {}): StartOptions {
  const start: StartOptions = {};
  const due = options.delay === undefined ? undefined : momentOf(options.delay, "delay");
  if (due instanceof Date) start.startAt = due;
  else if (due !== undefined) start.delay = due;
  if (options.discardAfter !== undefined) start.discardAfter = momentOf(options.discardAfter, "discardAfter");
  if (options.idempotencyKey !== undefined)
    start.idempotencyKey = requireText(options.idempotencyKey, "idempotencyKey", { max: 500 });
  if (options.metadata !== undefined) {
    // Refuses what JSON or Postgres cannot hold, with the place.
    toJson(options.metadata, "metadata");
    const metadata = z.record(z.string(), z.string()).safeParse(options.metadata);
    if (!metadata.success)
      throw new UsageError("metadata of a function must have strings as values", "pass { key: text }", {
        issues: metadata.error.issues,
      });
    start.metadata = metadata.data;
  }
  return start;
}

/** A date, or milliseconds from now on, as Defer's users write them. */
export function momentOf(value: Date | string | number, where: string): Date | number {
  return parseMoment(value, where, { words: true });
}

/** Optional arguments that were left out at the end stay out; anything else that JSON cannot hold is refused. */
export function argumentsOf(name: string, args: readonly unknown[]): Json[] {
  const given = args.slice(0, args.findLastIndex((value) => value !== undefined) + 1);
  const json = toJson(given, `arguments of function "${name}"`);
  return Array.isArray(json) ? json : [];
}
