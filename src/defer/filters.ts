/** What lists of functions' executions are filtered by. */
import { parseMoment } from "../base/duration.ts";
import { requireChoice, requireDate, requireKnown, requireList, requireOneOf, requireText } from "../base/option.ts";
import { FunctionState } from "../store/functions.ts";

/** One value, or a list of alternatives; an empty one is refused, because nothing could be found. */
type Choice<T> = T | readonly T[];

/** All that are given must hold; of a list of values, one. */
export interface ExecutionFilters {
  /** @default any */
  readonly states?: Choice<FunctionState>;
  /** Names of functions. @default those given to `createOrchestrator()` */
  readonly functionIds?: Choice<string>;
  /** `code` of the last error; "ER0003" is one without a code. */
  readonly errorCodes?: Choice<string>;
  /** Ids of workers. */
  readonly executedBy?: Choice<string>;
  /** When an attempt began. @default any time */
  readonly startedAt?: { readonly from?: Date; readonly to?: Date };
  /** When it was to begin. @default any time */
  readonly scheduleAt?: { readonly from?: Date; readonly to?: Date };
  /** Keys of its metadata, with one of these values each. @default any */
  readonly metadata?: readonly { readonly key: string; readonly values: Choice<string> }[];
}

/** Of the attempts of one execution. All that are given must hold; of a list of values, one. */
export type AttemptFilters = Pick<ExecutionFilters, "states" | "errorCodes" | "executedBy" | "startedAt">;

/** The filters with lists of alternatives. @throws {UsageError} naming the one that is invalid */
export function requireFilters(filters: ExecutionFilters, names: readonly string[], where: string) {
  requireKnown(filters, names, where);
  const { states, functionIds, errorCodes, executedBy, metadata, startedAt, scheduleAt } = filters;
  const isState = (one: unknown, of: string) => requireOneOf(one, FunctionState.options, of);
  return {
    ...(states !== undefined && { states: requireChoice(states, `states of ${where}`, isState) }),
    ...(functionIds !== undefined && { functionIds: requireChoice(functionIds, `functionIds of ${where}`, searched) }),
    ...(errorCodes !== undefined && { errorCodes: requireChoice(errorCodes, `errorCodes of ${where}`, searched) }),
    ...(executedBy !== undefined && { executedBy: requireChoice(executedBy, `executedBy of ${where}`, searched) }),
    ...(startedAt !== undefined && { startedAt: requireBetween(startedAt, `startedAt of ${where}`) }),
    ...(scheduleAt !== undefined && { scheduleAt: requireBetween(scheduleAt, `scheduleAt of ${where}`) }),
    ...(metadata !== undefined && {
      metadata: requireList(metadata, `metadata of ${where}`, (one, of) => {
        requireKnown(one, ["key", "values"], of);
        const { key, values }: { key?: unknown; values?: unknown } = Object(one);
        return { key: searched(key, `key of ${of}`), values: requireChoice(values, `values of ${of}`, searched) };
      }),
    }),
  };
}

export const attemptFilterNames = Object.keys({
  states: true,
  errorCodes: true,
  executedBy: true,
  startedAt: true,
} satisfies Record<keyof AttemptFilters, true>);

export const filterNames = Object.keys({
  states: true,
  functionIds: true,
  errorCodes: true,
  executedBy: true,
  startedAt: true,
  scheduleAt: true,
  metadata: true,
} satisfies Record<keyof ExecutionFilters, true>);

/** A text that is searched for: longer ones are nowhere. */
function searched(value: unknown, where: string): string {
  return requireText(value, where, { max: 1000 });
}

function requireBetween(between: { from?: Date; to?: Date }, where: string): { from?: Date; to?: Date } {
  requireKnown(between, ["from", "to"], where);
  for (const date of [between.from, between.to]) if (date !== undefined) parseMoment(requireDate(date, where), where);
  return between;
}
