/** The options of a start, and the execution that they make. */
import type { z } from "zod";
import {
  requireBoolean,
  requireDate,
  requireInteger,
  requireKnown,
  requireOneOf,
  requireRecord,
  requireText,
} from "../base/option.ts";
import type { CallerTransaction } from "../store/caller-transaction.ts";
import type { NewExecution } from "../store/starts.ts";
import type { NewId } from "../engine/ids.ts";
import type { Resources } from "../engine/resources.ts";
import { UsageError } from "../base/errors.ts";
import type { Contract, ResourcesOf, StartInput } from "../flow/contract.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { parseDuration, parseMoment } from "../base/duration.ts";
import type { Duration } from "../base/duration.ts";
import { parseTraceparent } from "../telemetry/traceparent.ts";
import { limitKeyOf } from "../flow/limits.ts";
import type { Settings } from "../ledger/event.ts";
import { isObject, toJson, type Json, type JsonObject } from "../base/json.ts";
import { parseId } from "./ids.ts";

/** Of an execution, when it is created or started. */
export interface CreateOptions<C extends Contract = Contract> {
  /** uuid v7. @default generated */
  id?: string;
  /** One execution per flow and key: creating again gives the same one. */
  idempotencyKey?: string;
  /** Searchable JSON that never enters the close snapshot. */
  metadata?: Readonly<Record<string, unknown>>;
  /** Lower runs first, -32767 to 32767. @default 0 */
  priority?: number;
  /** Earliest start. */
  startAt?: Date;
  /** Wait before the start. */
  delay?: Duration;
  /** Cancelled with the reason "discarded" when no worker has taken it by then. @default never */
  discardAfter?: Date | Duration;
  /** Close when idle. @default true */
  autoClose?: boolean;
  /** Idle time before auto-close; null is never. @default "10s" */
  autoCloseTimeout?: Duration | null;
  /** Chunks at once in this execution; null is unlimited. @default null */
  concurrency?: number | null;
  /** @default "planned" where the flow has intervention points, else off */
  interventionMode?: "planned" | "auto" | null;
  /** Live objects for this execution, in this process only; their names are recorded. */
  runtimeResources?: ResourcesOf<C>;
  /** Longest time from the first time that a worker takes it to the close; null is none. @default `maxDuration` of the flow */
  timeout?: Duration | null;
  /** Start it also where no worker ever served the flow and this orchestrator does not have it: for a deploy that sends first. @default false */
  allowUnknown?: boolean;
  /**
   * The trace that the start belongs to, as W3C Trace Context writes it; a malformed one is ignored with a warning.
   * @default that of the active span, where there is one
   */
  traceparent?: string;
  /** A transaction of postgres.js, pg, drizzle, Kysely, Knex, TypeORM, MikroORM or Prisma: the start commits or rolls back with it. */
  tx?: CallerTransaction;
}

/** Each rule stands here and, for starts by SQL, in `flowledger.check_start`. */
export const optionNames = Object.keys({
  id: true,
  idempotencyKey: true,
  metadata: true,
  priority: true,
  startAt: true,
  delay: true,
  discardAfter: true,
  autoClose: true,
  autoCloseTimeout: true,
  concurrency: true,
  interventionMode: true,
  runtimeResources: true,
  timeout: true,
  allowUnknown: true,
  traceparent: true,
  tx: true,
} satisfies Record<keyof CreateOptions, true>);

/** Options of a start that waits for the end. */
export interface StartAndWaitOptions<C extends Contract = Contract> extends CreateOptions<C> {
  /**
   * How long to wait for the close; null waits for ever. The execution goes on when it passes; `timeout` would end it.
   * @default null
   */
  waitTimeout?: Duration | null;
  /** Ends the waiting with its reason when it aborts; one that has aborted starts nothing. The execution goes on. @default none */
  signal?: AbortSignal;
}

/** Options of one run: its id is its own, and it begins at once. */
export type RunOptions<C extends Contract = Contract> = Omit<
  CreateOptions<C>,
  "id" | "idempotencyKey" | "tx" | "autoClose"
>;

/** The arguments of a start: the input, which may be left out where the contract lets it, and the options. */
export type InputArgs<C extends Contract, Options, Value = unknown> = C extends {
  readonly input: infer S extends z.ZodType;
}
  ? undefined extends z.input<S>
    ? [input?: z.input<S>, options?: Options]
    : [input: z.input<S>, options?: Options]
  : [input?: Value, options?: Options];

/** Options of `startMany()`: those that all executions share, and a key for each. */
export interface StartManyOptions<C extends Contract = Contract> extends Omit<
  CreateOptions<C>,
  "id" | "idempotencyKey" | "tx"
> {
  /** The key of each: starting a key again gives the execution that has it. @default none */
  readonly idempotencyKey?: (input: StartInput<C>, index: number) => string;
}

/** @throws {UsageError} for an option that is invalid */
export function newExecution(
  definition: FlowDefinition,
  options: CreateOptions,
  input: Json | undefined,
  hidden: boolean,
  newId: NewId,
): NewExecution {
  requireKnown(options, optionNames, "a start");
  const { name } = definition;
  const { id, idempotencyKey, priority = 0, startAt, delay, discardAfter, traceparent, allowUnknown = false } = options;
  requireInteger(priority, "priority", { min: -32_767, max: 32_767 });
  if (idempotencyKey !== undefined) requireText(idempotencyKey, "idempotencyKey", { max: 500 });
  return {
    id: id === undefined ? newId() : parseId(id),
    flow: name,
    input,
    settings: settingsOf(options, definition, hidden),
    metadata: parseMetadata(options.metadata),
    idempotencyKey: idempotencyKey ?? null,
    priority,
    limitKey: input === undefined ? null : limitKeyOf(definition, input),
    delayMs: delay === undefined ? null : parseDuration(delay, "delay"),
    startAt: startAt === undefined ? null : parseMoment(requireDate(startAt, "startAt"), "startAt"),
    discardAfter: discardAfter === undefined ? null : parseMoment(discardAfter, "discardAfter"),
    resourceKeys: resourceNames(options.runtimeResources),
    allowUnknown: requireBoolean(allowUnknown, "allowUnknown"),
    parent: null,
    state: {},
    traceparent: traceparent === undefined ? null : parseTraceparent(traceparent),
  };
}

function resourceNames(resources: Resources | undefined): string[] {
  if (resources === undefined) return [];
  return Object.keys(requireRecord(resources, "runtimeResources")).toSorted();
}

export function without(...left: readonly (keyof CreateOptions)[]): string[] {
  return optionNames.filter((name) => !left.some((out) => out === name));
}

function settingsOf(options: CreateOptions, flow: FlowDefinition, hidden: boolean): Partial<Settings> {
  const settings: Partial<Settings> = {};
  if (hidden) settings.hidden = true;
  if (options.autoClose !== undefined && !requireBoolean(options.autoClose, "autoClose")) settings.autoClose = false;
  if (options.autoCloseTimeout !== undefined)
    settings.autoCloseMs =
      options.autoCloseTimeout === null ? null : parseDuration(options.autoCloseTimeout, "autoCloseTimeout");
  if (options.concurrency !== undefined)
    settings.concurrency = requireInteger(options.concurrency, "concurrency", { min: 1, orNull: "no limit" });
  if (options.timeout !== undefined && options.timeout !== null)
    settings.timeoutMs = parseDuration(options.timeout, "timeout");
  else if (options.timeout === undefined && flow.maxDurationMs !== null) settings.timeoutMs = flow.maxDurationMs;
  const mode =
    options.interventionMode === undefined && flow.interventionPoints.length > 0 ? "planned" : options.interventionMode;
  if (mode !== undefined && mode !== null) {
    requireOneOf(mode, ["planned", "auto"], "interventionMode");
    if (mode === "auto" && flow.interventionPoints.length > 0)
      throw new UsageError(
        `interventionMode "auto" does not fit flow "${flow.name}", which has intervention points`,
        'use "planned"',
      );
    settings.interventionMode = mode;
  }
  return settings;
}

export function parseMetadata(metadata: Readonly<Record<string, unknown>> | undefined): JsonObject | null {
  if (metadata === undefined) return null;
  requireRecord(metadata, "metadata");
  const parsed = toJson(metadata, "metadata");
  if (!isObject(parsed)) throw new UsageError("metadata is not an object", "pass { key: value }");
  return parsed;
}
