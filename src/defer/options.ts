/** What a definition may say: `defer(fn, options)`, as Defer has them. */
import { cronProblem } from "../base/cron.ts";
import { parseDuration } from "../base/duration.ts";
import { DefinitionError } from "../base/errors.ts";
import { isObject } from "../base/json.ts";
import { requireInteger, requireKnown, requireNumber, requireOneOf, show, type Refuse } from "../base/option.ts";

/** Of `defer()`. */
export interface DeferOptions {
  /** What the database knows it by; needed where the function has no name, or a bundler shortens it. @default fn.name */
  readonly name?: string;
  /** Retries after a run that threw: true is 13, a number that many, an object says how. @default false */
  readonly retry?: boolean | number | Partial<RetryPolicy>;
  /** Executions of the function that workers run at once, over all of them. @default unlimited */
  readonly concurrency?: number;
  /** What becomes of a call while `concurrency` is used up: it waits, or is cancelled. @default "keep" */
  readonly maxConcurrencyAction?: "keep" | "cancel";
  /** Longest time of one attempt, in seconds. @default unlimited */
  readonly maxDuration?: number;
}

/** Times in seconds, as Defer has them. */
export interface RetryPolicy {
  /** Retries, the first run not counted. @default 13 where `retry` is an object */
  readonly maxAttempts: number;
  /** Wait before the first retry. @default 30 */
  readonly initialInterval: number;
  /** 0 waits exactly; anything else between half and all of the interval. @default 0.5 */
  readonly randomizationFactor: number;
  /** Factor of each further wait. @default 1.5 */
  readonly multiplier: number;
  /** Longest wait. @default 600 */
  readonly maxInterval: number;
  /**
   * Every wait by itself, in seconds or as a duration such as "1h": as many retries as it has waits, exact unless
   * `randomizationFactor` is given. In place of maxAttempts, initialInterval, multiplier and maxInterval. @default none
   */
  readonly waits?: readonly (number | string)[];
}

export function requireDeferOptions(name: string, options: DeferOptions): DeferOptions {
  requireKnown(options, deferOptions, "defer()", (problem, remedy) => {
    throw new DefinitionError(name, problem, remedy);
  });
  return options;
}

const deferOptions = ["name", "retry", "concurrency", "maxConcurrencyAction", "maxDuration"];

export function requireLimits(name: string, options: DeferOptions) {
  const { concurrency, maxDuration, maxConcurrencyAction } = options;
  const refuse: Refuse = (problem, remedy) => {
    throw new DefinitionError(name, problem, remedy);
  };
  if (concurrency !== undefined) requireInteger(concurrency, "concurrency", { min: 1 }, refuse);
  // At most a hundred years, as for any duration.
  if (maxDuration !== undefined)
    requireNumber(maxDuration, "maxDuration in seconds", { min: 0.001, max: 3_155_760_000 }, refuse);
  if (maxConcurrencyAction !== undefined)
    requireOneOf(maxConcurrencyAction, ["keep", "cancel"], "maxConcurrencyAction", refuse);
  return { concurrency, maxDuration, maxConcurrencyAction };
}

export function requireCron(name: string, cron: string): string {
  const problem = cronProblem(cron, { hasSeconds: false });
  if (problem === null) return cron;
  throw new DefinitionError(
    name,
    `cron ${show(cron)} is not a schedule (${problem})`,
    'use five fields, e.g. "0 7 * * *"',
  );
}

const noRetry: RetryPolicy = {
  maxAttempts: 0,
  initialInterval: 30,
  randomizationFactor: 0.5,
  multiplier: 1.5,
  maxInterval: 600,
};
const defaultRetries = 13;

export function resolveRetry(name: string, retry: DeferOptions["retry"] = false): RetryPolicy {
  const refuse = (problem: string, remedy: string | null = null): never => {
    throw new DefinitionError(name, "invalid retry options", remedy === null ? problem : `${problem}, ${remedy}`);
  };
  if (typeof retry === "boolean") return { ...noRetry, maxAttempts: retry ? defaultRetries : 0 };
  const given: Partial<RetryPolicy> = typeof retry === "number" ? { maxAttempts: retry } : retry;
  if (!isObject(given)) return refuse("use true, a number of retries, or an object");
  requireKnown(given, [...Object.keys(noRetry), "waits"], "retry", refuse);
  if (given.waits !== undefined) return byWaits(given, refuse);
  const set = Object.entries(given).filter(([, value]) => value !== undefined);
  const policy: RetryPolicy = { ...noRetry, maxAttempts: defaultRetries, ...Object.fromEntries(set) };
  requireInteger(policy.maxAttempts, "maxAttempts", { min: 0 }, refuse);
  requireNumber(policy.randomizationFactor, "randomizationFactor", { min: 0, max: 1 }, refuse);
  for (const key of ["initialInterval", "maxInterval"] as const)
    requireNumber(policy[key], `${key} in seconds`, { min: 0 }, refuse);
  requireNumber(policy.multiplier, "multiplier", { min: 1 }, refuse);
  return policy;
}

/** Numbers are seconds, as everywhere in Defer's policy. */
export function waitMs(wait: number | string, index = 0): number {
  return parseDuration(typeof wait === "number" ? wait * 1000 : wait, `waits[${index}] of retry`, { words: true });
}

function byWaits(given: Partial<RetryPolicy>, refuse: Refuse): RetryPolicy {
  const { waits, randomizationFactor = 0 } = given;
  const beside = Object.entries(given).find(
    ([key, value]) => value !== undefined && key !== "waits" && key !== "randomizationFactor",
  )?.[0];
  if (beside !== undefined) refuse(`it has waits and ${beside}`, "leave one of them out");
  if (!Array.isArray(waits) || waits.length === 0 || waits.length > 1_000)
    return refuse(`waits must be a list of 1 to 1000 durations, got ${show(waits)}`, 'use [1, 60, "1h"]');
  requireNumber(randomizationFactor, "randomizationFactor", { min: 0, max: 1 }, refuse);
  try {
    Array.from(waits, waitMs);
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error), null);
  }
  return { ...noRetry, maxAttempts: waits.length, randomizationFactor, waits: [...waits] };
}
