/** How a chunk or step that threw is tried again: the user's options as a policy in milliseconds. */
import { requireBoolean, requireInteger, requireKnown, requireNumber, show } from "../base/option.ts";
import { UsageError } from "../base/errors.ts";
import type { RetryOptions } from "./context.ts";
import { parseDuration } from "../base/duration.ts";
import type { Duration } from "../base/duration.ts";
import type { RetryPolicy } from "./graph.ts";

const defaults = {
  maxAttempts: 1,
  initialInterval: "1s",
  multiplier: 2,
  maxInterval: "10m",
  jitter: true,
} satisfies Omit<Required<RetryOptions>, "retryIf" | "waits">;

/** What a list of waits says by itself. */
const byWaits = ["maxAttempts", "initialInterval", "multiplier", "maxInterval"] as const;
const maxWaits = 1_000;

/**
 * @param where names the chunk or step for the error, e.g. `chunk "score"`
 * @throws {UsageError} naming the option that is invalid
 */
export function resolveRetry(options: RetryOptions | undefined, where: string): RetryPolicy {
  requireKnown(
    options === undefined ? {} : options,
    [...Object.keys(defaults), "waits", "retryIf"],
    `retry of ${where}`,
  );
  const waitsMs = options?.waits === undefined ? null : waitsOf(options, where);
  const {
    maxAttempts = waitsMs ? waitsMs.length + 1 : defaults.maxAttempts,
    initialInterval = defaults.initialInterval,
    multiplier = defaults.multiplier,
    maxInterval = defaults.maxInterval,
    jitter = waitsMs ? false : defaults.jitter,
    retryIf,
  } = options ?? {};
  // `maxAttempts` includes the first attempt.
  requireInteger(maxAttempts, `retry.maxAttempts of ${where}`, { min: 1 });
  requireNumber(multiplier, `retry.multiplier of ${where}`, { min: 1, max: 1_000 });
  requireBoolean(jitter, `retry.jitter of ${where}`);
  if (retryIf !== undefined && typeof retryIf !== "function")
    throw new UsageError(`retry.retryIf of ${where} must be a function`, "use (error) => boolean");
  const initialIntervalMs = parseDuration(initialInterval, `retry.initialInterval of ${where}`);
  const maxIntervalMs = parseDuration(maxInterval, `retry.maxInterval of ${where}`);
  if (options?.maxInterval !== undefined && maxIntervalMs < initialIntervalMs)
    throw new UsageError(
      `retry.maxInterval of ${where} is shorter than its initialInterval`,
      "raise maxInterval or lower initialInterval",
    );
  return {
    maxAttempts,
    initialIntervalMs,
    multiplier,
    // A first wait longer than the default maximum is meant as written.
    maxIntervalMs: Math.max(maxIntervalMs, initialIntervalMs),
    ...(waitsMs && { waitsMs }),
    jitter,
    retryIf: retryIf ?? null,
  };
}

function waitsOf(options: RetryOptions, where: string): number[] {
  const beside = byWaits.find((name) => options[name] !== undefined);
  if (beside !== undefined)
    throw new UsageError(
      `retry of ${where} has waits and ${beside}`,
      "leave one of them out: waits says how often and after what time",
    );
  const { waits } = options;
  if (!Array.isArray(waits) || waits.length === 0 || waits.length > maxWaits)
    throw new UsageError(
      `retry.waits of ${where} must be a list of 1 to ${maxWaits} durations, got ${Array.isArray(waits) ? `${waits.length} of them` : show(waits)}`,
      'use ["1s", "1m", "1h"], or leave it out',
    );
  return Array.from(waits, (wait: Duration, index) => parseDuration(wait, `retry.waits[${index}] of ${where}`));
}
