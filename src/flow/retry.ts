/** How a chunk or step that threw is tried again: the user's options as a policy in milliseconds. */
import { requireBoolean, requireInteger, requireKnown, requireNumber } from "../base/option.ts";
import { UsageError } from "../base/errors.ts";
import type { RetryOptions } from "./context.ts";
import { parseDuration } from "../base/duration.ts";
import type { RetryPolicy } from "./graph.ts";

const defaults = {
  maxAttempts: 1,
  initialInterval: "1s",
  multiplier: 2,
  maxInterval: "10m",
  jitter: true,
} satisfies Omit<Required<RetryOptions>, "retryIf">;

/**
 * @param where names the chunk or step for the error, e.g. `chunk "score"`
 * @throws {UsageError} naming the option that cannot be meant
 */
export function resolveRetry(options: RetryOptions | undefined, where: string): RetryPolicy {
  const given = { ...defaults, retryIf: null, ...options };
  requireKnown(given, [...Object.keys(defaults), "retryIf"], `retry of ${where}`);
  // The first attempt included.
  requireInteger(given.maxAttempts, `retry.maxAttempts of ${where}`, { min: 1 });
  requireNumber(given.multiplier, `retry.multiplier of ${where}`, { min: 1, max: 1_000 });
  requireBoolean(given.jitter, `retry.jitter of ${where}`);
  if (given.retryIf !== null && typeof given.retryIf !== "function")
    throw new UsageError(`retry.retryIf of ${where} is no function`, "use (error) => boolean");
  const initialIntervalMs = parseDuration(given.initialInterval, `retry.initialInterval of ${where}`);
  const maxIntervalMs = parseDuration(given.maxInterval, `retry.maxInterval of ${where}`);
  if (options?.maxInterval !== undefined && maxIntervalMs < initialIntervalMs)
    throw new UsageError(
      `retry.maxInterval of ${where} is shorter than its initialInterval`,
      "raise maxInterval or lower initialInterval",
    );
  return {
    maxAttempts: given.maxAttempts,
    initialIntervalMs,
    multiplier: given.multiplier,
    // A first wait longer than the default maximum is meant as written.
    maxIntervalMs: Math.max(maxIntervalMs, initialIntervalMs),
    jitter: given.jitter,
    retryIf: given.retryIf,
  };
}
