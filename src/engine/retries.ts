/** Whether and when a failed attempt is tried again, and how its error is kept. */
import { types } from "node:util";
import { backoff } from "../base/async.ts";
import { parseMoment } from "../base/duration.ts";
import {
  FlowledgerError,
  RetryAfterError,
  UsageError,
  WorkerCrashLoopError,
  type SerializedError,
} from "../base/errors.ts";
import type { Graph, RetryPolicy } from "../flow/graph.ts";
import type { Command } from "../ledger/command.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { parksOnFailure, suspectOf } from "../ledger/parking.ts";
import type { ExecutionState } from "../ledger/state.ts";

/** Mistakes in the code: trying again changes nothing. */
const terminal = new Set([
  "CONTRACT_VIOLATED",
  "USAGE_INVALID",
  "PAYLOAD_UNSTORABLE",
  "JOURNAL_MISMATCH",
  "NO_RESUME_HANDLE",
  "SELF_RESUME_LIMIT",
  "STREAM_LIMIT",
  "STATE_LIMIT",
]);

/** Something that threw. */
interface Failure {
  readonly error: unknown;
  /** The one that failed, from 1. */
  readonly attempt: number;
  /** Names the chunk or step. */
  readonly where: string;
  /** The database's time, in milliseconds since 1970. */
  readonly now: number;
}

/**
 * Wait before the next attempt; null when that was the last.
 *
 * @throws {UsageError} `retryIf` says neither yes nor no, or a RetryAfterError no time
 */
export function backoffMs(policy: RetryPolicy, failure: Failure): number | null {
  const { error, attempt, where } = failure;
  if (attempt >= policy.maxAttempts) return null;
  if (attempted(() => error instanceof FlowledgerError && terminal.has(error.code))) return null;
  if (policy.retryIf && !says(policy.retryIf, error, where)) return null;
  const asked = askedMs(policy, failure);
  if (asked !== null) return asked;
  const { initialIntervalMs: base, maxIntervalMs: max, multiplier: factor } = policy;
  const given = policy.waitsMs?.[attempt - 1];
  if (given !== undefined)
    return Math.round(backoff({ attempt: 0, base: given, max: given, jitter: policy.jitter ? 0.5 : 0 }));
  return Math.round(backoff({ attempt: attempt - 1, base, max, factor, jitter: policy.jitter ? 0.5 : 0 }));
}

/** What a RetryAfterError asks for, within the policy; null where it is none, or its moment has passed. */
function askedMs({ waitsMs, maxIntervalMs }: RetryPolicy, { error, where, now }: Failure): number | null {
  if (!attempted(() => error instanceof RetryAfterError) || !(error instanceof RetryAfterError)) return null;
  const { retryAfter, message } = error;
  const asked = parseMoment(retryAfter, `retryAfter of the RetryAfterError of ${where} (${message})`);
  const ms = typeof asked === "number" ? asked : Math.ceil(asked.getTime() - now);
  if (typeof asked !== "number" && ms <= 0) return null;
  return Math.min(ms, waitsMs ? Math.max(...waitsMs) : maxIntervalMs);
}

function says(retryIf: (error: unknown) => boolean, error: unknown, where: string): boolean {
  const refuse = (did: string) => {
    const asked = serializeError(error).message;
    return new UsageError(`retryIf of ${where} ${did}, asked about: ${asked}`, "return true or false");
  };
  let isYes: unknown;
  try {
    isYes = retryIf(error);
  } catch (thrown) {
    throw refuse(`threw ${serializeError(thrown).message}`);
  }
  // A promise is truthy, whatever it resolves to.
  if (types.isPromise(isYes)) throw refuse("gave a promise");
  return Boolean(isYes);
}

/** It took worker after worker down: the chunk that is to blame parks where it may, else the execution ends. */
export function crashLooped(
  { id, state, graph }: { readonly id: ExecutionId; readonly state: ExecutionState; readonly graph: Graph },
  takeovers: number,
): Command {
  const suspect = suspectOf(state);
  const error = serializeError(new WorkerCrashLoopError(id, suspect?.chunk ?? null, takeovers));
  if (suspect && parksOnFailure(state, graph, suspect))
    return { type: "fail", dispatch: suspect.id, error, retryInMs: null };
  return { type: "abort", reason: "worker_crash_loop", error };
}

const maxMessage = 4096;
const maxStack = 16_384;

/** What was thrown, as text the database can hold; things that are not errors keep their words. */
export function serializeError(error: unknown, chunk?: string, attempt?: number): SerializedError {
  const thrown = attempted(() => (error instanceof Error || types.isNativeError(error) ? error : null)) ?? null;
  const serialized: SerializedError = {
    name: clean(thrown ? textOf(thrown, "name", "Error") : "NonError", 256),
    message: clean(thrown ? textOf(thrown, "message", unreadable) : describe(error), maxMessage),
  };
  const stack = thrown && textOf(thrown, "stack", "");
  if (stack) serialized.stack = clean([stack, ...causesOf(thrown)].join("\nCaused by: "), maxStack);
  const code = thrown && attempted(() => ("code" in thrown ? thrown.code : null));
  if (typeof code === "string") serialized.code = clean(code, 256);
  if (chunk !== undefined) serialized.chunk = chunk;
  if (attempt !== undefined) serialized.attempt = attempt;
  return serialized;
}

/** What is told of an error's cause, of its cause in turn, and so on: so many. */
const maxCauses = 5;

function causesOf(error: Error): string[] {
  const causes: string[] = [];
  for (let cause = attempted(() => error.cause); cause !== undefined && cause !== null && causes.length < maxCauses;) {
    const of: unknown = cause;
    const thrown = attempted(() => (of instanceof Error || types.isNativeError(of) ? of : null)) ?? null;
    causes.push(thrown ? textOf(thrown, "stack", textOf(thrown, "message", unreadable)) : describe(of));
    cause = thrown && attempted(() => thrown.cause);
  }
  return causes;
}

const unreadable = "(what was thrown cannot be read)";

function describe(value: unknown): string {
  if (typeof value === "string" || typeof value === "bigint") return String(value);
  return (
    attempted(() => JSON.stringify(value) ?? String(value)) ??
    attempted(() => Object.prototype.toString.call(value)) ??
    unreadable
  );
}

function textOf(error: Error, key: "name" | "message" | "stack", otherwise: string): string {
  return attempted(() => String(error[key] ?? otherwise)) ?? otherwise;
}

/** Undefined where what was thrown does not let itself be read: a getter that throws, a revoked proxy. */
function attempted<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function clean(text: string, max: number): string {
  return String(text).slice(0, max).toWellFormed().replaceAll("\u0000", "\\u0000");
}
