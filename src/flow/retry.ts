/** How a chunk or step that threw is tried again: the user's options as a policy in milliseconds. */
import { UsageError } from "../base/errors.ts";
import type { RetryOptions } from "./context.ts";
import { parseDuration } from "./duration.ts";
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
  const unknown = Object.keys(given).find((key) => key !== "retryIf" && !(key in defaults));
  if (unknown !== undefined)
    refuse(
      `retry of ${where} has an unknown option "${unknown}"`,
      `use ${Object.keys(defaults).join(", ")} or retryIf`,
    );
  if (!Number.isSafeInteger(given.maxAttempts) || given.maxAttempts < 1)
    refuse(
      `retry.maxAttempts of ${where} is ${given.maxAttempts}`,
      "use a whole number from 1, the first attempt included",
    );
  if (!(given.multiplier >= 1 && given.multiplier <= 1_000))
    refuse(`retry.multiplier of ${where} is ${given.multiplier}`, "use a number from 1 to 1000");
  if (typeof given.jitter !== "boolean")
    refuse(`retry.jitter of ${where} is ${String(given.jitter)}`, "use true or false");
  if (given.retryIf !== null && typeof given.retryIf !== "function")
    refuse(`retry.retryIf of ${where} is no function`, "use (error) => boolean");
  const initialIntervalMs = parseDuration(given.initialInterval, `retry.initialInterval of ${where}`);
  const maxIntervalMs = parseDuration(given.maxInterval, `retry.maxInterval of ${where}`);
  if (options?.maxInterval !== undefined && maxIntervalMs < initialIntervalMs)
    refuse(
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

function refuse(problem: string, remedy: string): never {
  throw new UsageError(problem, remedy);
}
