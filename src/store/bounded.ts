/** Statements that may not take for ever: they end here and in the database. */
import { SearchTimeoutError } from "../base/errors.ts";
import { systemTimers as liveness } from "../base/timers.ts";

/**
 * Ends what takes too long. Sessions are the pool's, so no setting of theirs may stay behind.
 *
 * @param late what it rejects with then
 */
export async function endedWithin<R>(
  query: Promise<R> & { cancel(): void },
  ms: number,
  late: () => Error,
): Promise<R> {
  const over = Promise.withResolvers<never>();
  const timer = liveness.after(ms, () => {
    query.cancel();
    over.reject(late());
  });
  try {
    return await Promise.race([query, over.promise]);
  } finally {
    timer.cancel();
  }
}

/** So long somebody waits for a look at a page. */
const longestLookMs = 5000;

/** @param what is named where it takes too long. @throws {SearchTimeoutError} */
export function lookedUp<R>(query: Promise<R> & { cancel(): void }, what: string): Promise<R> {
  return endedWithin(query, longestLookMs, () => new SearchTimeoutError([what], longestLookMs));
}
