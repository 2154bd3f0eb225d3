/** How many executions of a flow run at once and start in a time, over the whole fleet; how much each may put into its stream. */
import { requireInteger, requireKnown, requireOneOf, show, type Refuse } from "../base/option.ts";
import { DefinitionError, UsageError } from "../base/errors.ts";
import type { Json } from "../base/json.ts";
import { parseDuration, type Duration } from "../base/duration.ts";
import type { ParkOptions } from "./failure.ts";

/** Of `defineFlow()`: limits of the flow and of each execution. */
export interface FlowOptions<I = Json> extends ParkOptions {
  /** @default none */
  readonly limits?: LimitOptions<I>;
  /** The `timeout` of executions that are started without one. @default none */
  readonly maxDuration?: Duration;
  /**
   * Items in the stream of one execution, those of failed attempts and of sub-flows included; null is unlimited. A put
   * beyond throws `StreamLimitError`.
   *
   * @default 100_000
   */
  readonly maxStreamItems?: number | null;
  /** Items that one execution may put in any time of `per`. A put beyond throws `StreamLimitError`. @default unlimited */
  readonly maxStreamRate?: Rate;
}

/** The limits of a flow over the whole fleet. */
export interface LimitOptions<I = Json> extends Limit {
  /** What the limits of `perKey` count by, say a tenant: a text of 1 to 200 characters. */
  readonly key?: (input: I) => string;
  /** The limits of each key, beside those of the flow. @default none */
  readonly perKey?: Limit;
  /** What becomes of a start while `concurrency` is used up: "keep" waits in the queue, "cancel" closes it as cancelled. @default "keep" */
  readonly maxConcurrencyAction?: "keep" | "cancel";
}

/** How much at once, and how fast. None is unlimited. */
export interface Limit {
  /** Executions that a worker owns at once; one that waits for time or an answer is owned by nobody. @default unlimited */
  readonly concurrency?: number;
  /** Executions that begin in any time of `per`. @default unlimited */
  readonly rate?: Rate;
}

/** So many, 1 or more, in any time of `per`. */
export interface Rate {
  readonly limit: number;
  readonly per: Duration;
}

/** The options as they are kept in the database. */
export interface FlowLimits {
  readonly concurrency: number | null;
  readonly rate: ResolvedRate | null;
  readonly keyConcurrency: number | null;
  readonly keyRate: ResolvedRate | null;
  readonly action: "keep" | "cancel";
  readonly key: ((input: Json) => string) | null;
}

/** A rate as it is kept. */
export interface ResolvedRate {
  readonly limit: number;
  readonly perMs: number;
}

/** What one execution may put into its stream. */
export interface StreamLimits {
  readonly maxItems: number | null;
  readonly rate: ResolvedRate | null;
}

export const flowOptionNames = Object.keys({
  limits: true,
  maxDuration: true,
  maxStreamItems: true,
  maxStreamRate: true,
  onFailure: true,
  park: true,
} satisfies Record<keyof FlowOptions, true>);

const most = 1_000_000;
const defaultStreamItems = 100_000;

/** @throws {DefinitionError} naming the option that is invalid */
export function resolveLimits<I>(flow: string, options: LimitOptions<I> | undefined): FlowLimits | null {
  if (options === undefined) return null;
  const refuse = refusalOf(flow);
  requireKnown(options, ["concurrency", "rate", "key", "perKey", "maxConcurrencyAction"], "limits", refuse);
  const { key, perKey, maxConcurrencyAction: action = "keep" } = options;
  if (perKey !== undefined) requireKnown(perKey, ["concurrency", "rate"], "limits.perKey", refuse);
  if (key !== undefined && typeof key !== "function") refuse("limits.key must be a function", "use (input) => string");
  if ((key === undefined) !== (perKey === undefined))
    refuse("limits.key and limits.perKey need each other", "give both: key says by what, perKey how many");
  requireOneOf(action, ["keep", "cancel"], "limits.maxConcurrencyAction", refuse);
  const limits = {
    concurrency: count(flow, options.concurrency, "limits.concurrency"),
    rate: resolveRate(flow, options.rate, "limits.rate"),
    keyConcurrency: count(flow, perKey?.concurrency, "limits.perKey.concurrency"),
    keyRate: resolveRate(flow, perKey?.rate, "limits.perKey.rate"),
    action,
    // The key function gets an input that was parsed by the contract, which is what I is.
    key: (key as FlowLimits["key"] | undefined) ?? null,
  };
  const { concurrency, rate: perFlow, keyConcurrency, keyRate } = limits;
  if (concurrency === null && perFlow === null && keyConcurrency === null && keyRate === null)
    refuse("limits is empty", "set concurrency or rate, for the flow or perKey");
  return limits;
}

/** @throws {DefinitionError} naming the option that is invalid */
export function resolveStreamLimits(flow: string, options: FlowOptions<never>): StreamLimits {
  const { maxStreamItems = defaultStreamItems, maxStreamRate } = options;
  const range = { min: 1, orNull: "no limit" };
  const maxItems = requireInteger(maxStreamItems, "maxStreamItems", range, refusalOf(flow));
  return { maxItems, rate: resolveRate(flow, maxStreamRate, "maxStreamRate") };
}

function resolveRate(flow: string, given: Rate | undefined, where: string): ResolvedRate | null {
  if (given === undefined) return null;
  requireKnown(given, ["limit", "per"], where, refusalOf(flow));
  const perMs = parseDuration(given.per, `${where}.per of flow "${flow}"`);
  if (perMs === 0) throw new DefinitionError(flow, `${where}.per must be longer than 0`, 'use a duration like "1s"');
  const limit = count(flow, given.limit, `${where}.limit`);
  if (limit === null) throw new DefinitionError(flow, `${where}.limit is missing`, "use a number");
  return { limit, perMs };
}

function count(flow: string, value: number | undefined, where: string): number | null {
  return value === undefined ? null : requireInteger(value, where, { min: 1, max: most }, refusalOf(flow));
}

export function refusalOf(flow: unknown): Refuse {
  const name = typeof flow === "string" ? flow : show(flow);
  return (problem, remedy) => {
    throw new DefinitionError(name, problem, remedy);
  };
}

/**
 * The key of one execution; null where the flow has none.
 *
 * @throws {UsageError}
 */
export function limitKeyOf(flow: { name: string; limits: FlowLimits | null }, input: Json): string | null {
  if (!flow.limits?.key) return null;
  let key: unknown;
  try {
    key = flow.limits.key(input);
  } catch (error) {
    throw new UsageError(
      `limits.key of flow "${flow.name}" failed: ${String(error)}`,
      "let it return a text for every input",
      { flow: flow.name },
      error,
    );
  }
  if (typeof key === "string" && /^[^\0]{1,200}$/su.test(key)) return key;
  throw new UsageError(
    `limits.key of flow "${flow.name}" gave ${JSON.stringify(key)?.slice(0, 80) ?? String(key)}`,
    "let it return a text of 1 to 200 characters for every input",
    { flow: flow.name },
  );
}
