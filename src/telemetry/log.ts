/** Where the library and `ctx.log` write: any logger of a user's, in either order of arguments; what repeats is counted. */
import { hostname } from "node:os";
import { inspect, types } from "node:util";
import { UsageError } from "../base/errors.ts";
import { requireFunction, requireKnown, requireOneOf } from "../base/option.ts";
import { systemTimers as liveness, type Timer } from "../base/timers.ts";
import { indented, visible } from "../base/visible.ts";
import type { Logger } from "../flow/context.ts";

type Level = keyof Logger;
export type Fields = Readonly<Record<string, unknown>>;

export interface Logs {
  /** For lines of the library: a line that repeats is counted, and said again with that number after ten seconds. */
  readonly library: Logger;
  /** For lines of users: each is written. */
  readonly user: Logger;
  /** Writes lines of JSON from now on, unless a logger was given. */
  useJson(): void;
  /** Says what was counted and not said yet. */
  flush(): void;
}

const levels = ["debug", "info", "warn", "error"] as const satisfies readonly Level[];
/** Pino's numbers. */
const numbers: Readonly<Record<Level, number>> = { debug: 20, info: 30, warn: 40, error: 50 };
/** A line like another within so long is counted. */
const windowMs = 10_000;
/** So many different lines are kept in mind. */
const maxKinds = 1000;
/** What tells two lines of one kind apart. */
const ownFields: ReadonlySet<string> = new Set(["executionId", "epoch", "attempt", "dispatch", "traceId", "lateMs"]);

/** @throws {UsageError} no logger */
export function openLogs(logger: Logger | undefined): Logs {
  let [ours, users] = [stderrLogger, terminalLogger];
  const given = logger && sinkOf(logger);
  const sink = given ?? byLevel((level) => (message, fields) => ours[level](message, fields));
  const user = given ?? byLevel((level) => (message, fields) => users[level](message, fields));
  const repeated = new Map<string, Repeated>();
  const say = (level: Level, message: string, fields: Fields | undefined) => {
    const kind = kindOf(level, message, fields);
    const known = repeated.get(kind);
    if (known) return known.count(fields);
    sink[level](message, fields);
    if (repeated.size >= maxKinds) return;
    const forget = () => void repeated.delete(kind);
    repeated.set(kind, new Repeated((count, last) => sink[level](message, { ...last, repeated: count }), forget));
  };
  return {
    user,
    library: byLevel((level) => (message, fields) => say(level, message, fields)),
    useJson: () => {
      ours = users = jsonLogger();
    },
    flush: () => repeated.forEach((one) => one.end()),
  };
}

/** A line that was said, and how often it would have been again since. */
class Repeated {
  readonly #say: (count: number, last: Fields | undefined) => void;
  readonly #forget: () => void;
  #count = 0;
  #last: Fields | undefined;
  #timer: Timer;

  constructor(say: (count: number, last: Fields | undefined) => void, forget: () => void) {
    this.#say = say;
    this.#forget = forget;
    this.#timer = this.#wait();
  }

  count(fields: Fields | undefined): void {
    this.#count += 1;
    this.#last = fields;
  }

  end(): void {
    this.#timer.cancel();
    this.#forget();
    if (this.#count > 0) this.#say(this.#count, this.#last);
  }

  #wait(): Timer {
    return liveness
      .after(windowMs, () => {
        if (this.#count === 0) return this.#forget();
        this.#say(this.#count, this.#last);
        this.#count = 0;
        this.#timer = this.#wait();
      })
      .unref();
  }
}

function kindOf(level: Level, message: string, fields: Fields = {}): string {
  const shared = Object.entries(fields).filter(([name]) => !ownFields.has(name));
  const kinds = shared.map(([name, value]) => `${name}=${name === "error" ? alike(textOf(value)) : textOf(value)}`);
  return `${level} ${alike(message)} ${kinds.join(" ")}`;
}

/** Errors name the execution, and where it stands: of a thousand each would be a kind of its own. */
function alike(text: string): string {
  return text.replace(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b\d+\b/g, "#");
}

function textOf(value: unknown): string {
  return typeof value === "object" ? inspectable(value) : String(value);
}

function inspectable(value: object | null): string {
  try {
    return JSON.stringify(value) ?? "";
  } catch {
    return "?";
  }
}

/** The same logger, with fields that each of its lines has; a line's own go first. */
export function bound(logger: Logger, bindings: () => Fields): Logger {
  return byLevel((level) => (message, fields) => logger[level](message, { ...bindings(), ...fields }));
}

/** Pino and its kin take the fields first. What a logger throws stays with it: no execution fails for a line. */
function sinkOf(logger: Logger): Logger {
  for (const level of levels)
    if (typeof logger[level] !== "function")
      throw new UsageError(
        `logger of createOrchestrator() has no method ${level}()`,
        "pass pino, console, or an object with debug, info, warn and error",
      );
  // Only Pino has `bindings`.
  const takesFieldsFirst = "bindings" in logger && typeof logger.bindings === "function";
  return byLevel((level) => (message, fields) => {
    const args = takesFieldsFirst ? [fields ?? {}, message] : [message, fields];
    // A failing logger has no place to report to.
    try {
      const written: unknown = Reflect.apply(logger[level], logger, args);
      if (types.isPromise(written)) written.catch(() => {});
    } catch {}
  });
}

function byLevel(write: (level: Level) => (message: string, fields?: Fields) => void): Logger {
  return { debug: write("debug"), info: write("info"), warn: write("warn"), error: write("error") };
}

/** For lines of the library. */
const stderrLogger: Logger = {
  debug: () => {},
  info: () => {},
  warn: (message, fields) => console.warn("%s", shown("flowledger:", message, fields)),
  error: (message, fields) => console.error("%s", shown("flowledger:", message, fields)),
};

/** For lines of `ctx.log`: whoever writes one wants to see it. */
const terminalLogger: Logger = {
  debug: () => {},
  info: (message, fields) => console.error("%s", shown("info", message, fields)),
  warn: (message, fields) => console.warn("%s", shown("warn", message, fields)),
  error: (message, fields) => console.error("%s", shown("error", message, fields)),
};

/** What executions bring along may be in all of them. */
function shown(head: string, message: string, fields?: Fields): string {
  return indented(`${head} ${message}${fields === undefined ? "" : ` ${inspect(fields, { breakLength: Infinity })}`}`);
}

/** Of `jsonLogger()`. */
export interface JsonLoggerOptions {
  /** Lines below it are left out. @default "info" */
  readonly level?: Level;
  /** @default to stderr */
  readonly write?: (line: string) => void;
}

/** A logger that writes a line of JSON for each, in the shape of pino's: level, time, pid, hostname, name, the fields, msg. */
export function jsonLogger(options: JsonLoggerOptions = {}): Logger {
  requireKnown(options, ["level", "write"], "jsonLogger()");
  const { level: least = "info", write = toStderr } = options;
  requireOneOf(least, levels, "level of jsonLogger()");
  requireFunction(write, "write of jsonLogger()");
  const base = { pid: process.pid, hostname: hostname(), name: "flowledger" };
  return byLevel((level) => (msg, fields) => {
    if (numbers[level] < numbers[least]) return;
    const head = { level: numbers[level], time: liveness.now(), ...base };
    // In JSON an escape stands for the same character.
    write(`${visible(lineOf({ ...head, ...fields, msg }) ?? lineOf({ ...head, msg }) ?? msg)}\n`);
  });
}

/** Null where a field has what JSON cannot hold. */
function lineOf(line: Fields): string | null {
  try {
    return JSON.stringify(line, (_, value: unknown) =>
      value instanceof Error ? { type: value.name, message: value.message, stack: value.stack } : value,
    );
  } catch {
    return null;
  }
}

function toStderr(line: string): void {
  process.stderr.write(line);
}
