/** Pages of a list by cursor, in both directions. */
import { UsageError } from "../base/errors.ts";
import { requireInteger, requireKnown } from "../base/option.ts";

/** The first so many after a cursor, or the last so many before one. */
export interface PageOptions {
  /** 1 to 1000. @default 100 */
  readonly first?: number;
  /** `endCursor` of the page before. */
  readonly after?: string;
  /** Instead of `first`. */
  readonly last?: number;
  /** `startCursor` of the page behind. */
  readonly before?: string;
}

/** A page of a list, with what is needed for the next one. */
export interface Page<T> {
  readonly data: readonly T[];
  readonly pageInfo: {
    readonly hasNextPage: boolean;
    readonly hasPrevPage: boolean;
    readonly startCursor: string | null;
    readonly endCursor: string | null;
  };
}

/** @param where the call, for the error. @throws {UsageError} */
export function requirePage(page: PageOptions, where: string): { limit: number; isLast: boolean } {
  requireKnown(page, ["first", "after", "last", "before"], where);
  const { first, last } = page;
  if (first !== undefined && last !== undefined)
    throw new UsageError(`${where} got first and last`, "use first with after, or last with before");
  const limit = first !== undefined ? first : last !== undefined ? last : 100;
  requireInteger(limit, `${first === undefined ? "last" : "first"} of ${where}`, { min: 1, max: 1000 });
  return { limit, isLast: last !== undefined };
}

/** @param found one more than the page holds, where there are more */
export function pageOf<T>(
  found: readonly T[],
  cursor: (item: T) => string,
  { after, before }: PageOptions,
  { limit, isLast }: { limit: number; isLast: boolean },
): Page<T> {
  const data = isLast ? found.slice(-limit) : found.slice(0, limit);
  const isMore = found.length > limit;
  const [first] = data;
  const last = data.at(-1);
  return {
    data,
    pageInfo: {
      // A cursor stands for an item of the list, so on its other side there is one.
      hasNextPage: isLast ? before !== undefined : isMore,
      hasPrevPage: isLast ? isMore : after !== undefined,
      startCursor: first === undefined ? null : cursor(first),
      endCursor: last === undefined ? null : cursor(last),
    },
  };
}
