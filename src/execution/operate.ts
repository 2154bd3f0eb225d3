/** What operators do to an execution: checked here, decided under the row lock, kept with who and why. */
import { z } from "zod";
import type { ParkedChunk } from "../base/errors.ts";
import { isoMoment } from "../base/duration.ts";
import { copyJson, toJson, type Json, type JsonObject } from "../base/json.ts";
import { JsonValue } from "../base/json-value.ts";
import { deletePath, setPath } from "../base/path.ts";
import {
  requireActor,
  requireDate,
  requireInteger,
  requireKnown,
  requireList,
  requireName,
  requireOneOf,
  requireRecord,
  requireText,
} from "../base/option.ts";
import { parseReturn, parseState, parseValue, requireStatePath } from "../flow/contract.ts";
import type { FlowDefinition } from "../flow/definition.ts";

/** Who does it, and why: both are kept in the ledger. */
export interface OperatorOptions {
  /** 1 to 500 characters. */
  actor: string;
  /** 1 to 2,000 characters. */
  reason: string;
}

/** Which chunk of an execution; neither is whatever there is. */
export interface ChunkAddress {
  /** Name of the chunk, or of the flow of a sub-flow. @default whatever there is */
  chunk?: string;
  /** Which item of a `forEach`, or branch of a `batch`, from 0. @default any */
  index?: number;
}

/** Of `retry()`. */
export interface RetryChunkOptions extends OperatorOptions, ChunkAddress {
  /** What it gets instead of the input it had; only where one chunk is retried. @default the input it had */
  input?: unknown;
}

/** Of `skip()`. */
export interface SkipChunkOptions extends OperatorOptions, ChunkAddress {
  /** What the chunk is taken to have returned; it has the chunk's `output` contract. @default null */
  output?: unknown;
}

/** What a function takes, and whether the flow's contract has not seen it. */
export interface Operated {
  readonly options: JsonObject;
  readonly raw: boolean;
}

const Addresses = z.array(z.object({ chunk: z.string(), index: z.int().nullable(), executionId: z.string() }));

/** What `flowledger.retry` takes. @throws {UsageError | ContractError | PayloadError} */
export function retryOptions(definition: FlowDefinition | null, options: RetryChunkOptions): Operated {
  const given = {
    ...requireOperator(options, ["chunk", "index", "input"], "retry()"),
    ...requireAddress(options, "retry()"),
  };
  if (options.input === undefined) return { options: given, raw: true };
  const { input } = options;
  const schema = options.chunk === undefined ? null : definition?.graph.chunks.get(options.chunk)?.options.input;
  // The input is only checked here: the attempt parses it.
  if (schema) parseValue(schema, input, `input of chunk "${options.chunk}"`);
  return { options: { ...given, input: toJson(input, "input of retry()") }, raw: true };
}

/** What `flowledger.skip` takes. @throws {UsageError | ContractError | PayloadError} */
export function skipOptions(definition: FlowDefinition | null, options: SkipChunkOptions): Operated {
  const given = {
    ...requireOperator(options, ["chunk", "index", "output"], "skip()"),
    ...requireAddress(options, "skip()"),
  };
  const chunk = options.chunk === undefined ? undefined : definition?.graph.chunks.get(options.chunk);
  if (!chunk)
    return { options: { ...given, output: parseReturn(null, options.output, "output of skip()") }, raw: true };
  const output = parseReturn(chunk.options.output, options.output, `output of chunk "${chunk.name}"`);
  return { options: { ...given, output }, raw: false };
}

/** What of the application state becomes what. */
export interface StateEdit {
  /** New values by path; a path has dots, and makes the objects on its way. */
  set?: Readonly<Record<string, unknown>>;
  /** Paths that are deleted; one that is missing is no error. */
  delete?: readonly string[];
}

/** Of `editState()`. */
export interface EditStateOptions extends OperatorOptions {
  /** Refused where the ledger has gone on since: the `stateVersion` that you read. @default whatever came */
  expectedSeq?: number;
}

/** What was edited, and at which event. */
export interface EditedState {
  readonly seq: number;
  readonly changes: readonly {
    readonly path: string;
    readonly op: "set" | "delete";
    readonly value?: Json;
    readonly was?: Json;
  }[];
}

const Edited = z.object({
  seq: z.int(),
  changes: z.array(
    z.object({
      path: z.string(),
      op: z.enum(["set", "delete"]),
      value: JsonValue.optional(),
      was: JsonValue.optional(),
    }),
  ),
});

const Overtaken = z.object({ judged: z.int(), values: z.record(z.string(), JsonValue) });

/** Null: it is done. Else others were faster below the same keys: the state as it is now, and by which event. */
export function parseOvertaken(answer: Json): z.infer<typeof Overtaken> | null {
  return Overtaken.safeParse(answer).data ?? null;
}

export function parseEdited(answer: Json): EditedState {
  return z.custom<EditedState>((value) => Edited.safeParse(value).success).parse(answer);
}

/**
 * What `flowledger.edit_state` takes.
 *
 * @param values the state as it is now: below a dot path the contract looks at the whole of a key
 * @param judged the event that it is of
 * @throws {UsageError | ContractError | PayloadError}
 */
export function editOptions(
  definition: FlowDefinition | null,
  values: JsonObject,
  judged: number,
  edit: StateEdit,
  options: EditStateOptions,
): Operated {
  const given = requireOperator(options, ["expectedSeq"], "editState()");
  if (options.expectedSeq !== undefined)
    given["expectedSeq"] = requireInteger(options.expectedSeq, "expectedSeq of editState()", { min: 1 });
  requireKnown(edit, ["set", "delete"], "changes of editState()");
  const { set: written = {}, delete: removed = [] } = edit;
  requireRecord(written, "set of editState()");
  requireList(removed, "delete of editState()", (path, where) => requireText(path, where, { max: 2000 }));
  const owner = definition ?? { name: "?", contract: {} };
  const set: JsonObject = {};
  const after = copyJson(values);
  for (const [path, value] of Object.entries(written)) {
    set[path] = parseState(owner, path, value);
    setPath(after, path, set[path]);
  }
  for (const path of removed) {
    requireStatePath(owner, path);
    deletePath(after, path);
  }
  if (definition?.contract.state)
    for (const key of new Set(
      [...Object.keys(set), ...removed].filter((path) => path.includes(".")).map((path) => path.split(".")[0] ?? ""),
    ))
      if (Object.hasOwn(after, key)) parseState(owner, key, after[key]);
  const changes = { set, delete: [...removed] };
  return definition === null
    ? { options: { ...given, changes }, raw: true }
    : { options: { ...given, changes, judged }, raw: false };
}

/** Of `pause()`. */
export interface PauseExecutionOptions extends OperatorOptions {
  /** It goes on by itself then. @default when somebody unpauses it */
  until?: Date | string;
}

/** What `flowledger.pause` takes. @throws {UsageError} */
export function pauseOptions(options: PauseExecutionOptions): Operated {
  const given = requireOperator(options, ["until"], "pause()");
  if (options.until !== undefined) given["until"] = momentOf(options.until).toISOString();
  return { options: given, raw: false };
}

/** What `flowledger.unpause` takes. @throws {UsageError} */
export function unpauseOptions(options: OperatorOptions): Operated {
  return { options: requireOperator(options, [], "unpause()"), raw: false };
}

/** Of `pauseFlow()`. */
export interface PauseFlowOptions extends OperatorOptions {
  /**
   * What becomes of starts meanwhile: "hold" accepts them, and they wait; "refuse" answers each with a `FlowPausedError`. What other
   * executions call waits either way. @default "hold"
   */
  intake?: "hold" | "refuse";
}

/** What `flowledger.pause_flow` takes. @throws {UsageError} */
export function pauseFlowOptions(flow: string, options: PauseFlowOptions): JsonObject {
  requireText(flow, "flow of pauseFlow()", { max: 100 });
  const given = requireOperator(options, ["intake"], "pauseFlow()");
  if (options.intake !== undefined)
    given["intake"] = requireOneOf(options.intake, ["hold", "refuse"], "intake of pauseFlow()");
  return given;
}

/** What `flowledger.unpause_flow` takes. @throws {UsageError} */
export function unpauseFlowOptions(flow: string, options: OperatorOptions): JsonObject {
  requireText(flow, "flow of unpauseFlow()", { max: 100 });
  return requireOperator(options, [], "unpauseFlow()");
}

/** Of `runSchedule()`. */
export interface RunScheduleOptions {
  /** Who does it: 1 to 500 characters. */
  actor: string;
  /** Why: 1 to 2,000 characters. @default nothing */
  reason?: string;
}

/** What `flowledger.run_schedule` takes. @throws {UsageError} */
export function runScheduleOptions(name: string, options: RunScheduleOptions): JsonObject {
  const where = "runSchedule()";
  requireText(name, `name of ${where}`, { max: 200 });
  requireKnown(options, ["actor", "reason"], where);
  const { actor, reason } = options;
  return {
    actor: requireActor(actor, `actor of ${where}`),
    ...(reason !== undefined && { reason: requireName(reason, `reason of ${where}`, { max: 2000 }) }),
  };
}

function momentOf(until: Date | string): Date {
  return requireDate(typeof until === "string" ? isoMoment(until) : until, "until of pause()");
}

/** Of `redrive()`: from where the new execution goes on, and with what. */
export interface RedriveOptions extends OperatorOptions {
  /** Where it goes on: at the failure, before the last run of a chunk, or behind an event. @default "failure" */
  from?: "failure" | { chunk: string } | number;
  /** What the chunk that failed gets instead of the input it had. @default the input it had */
  input?: unknown;
  /** What the chunk that failed is taken to have returned: it is skipped. Not beside `input`. @default it runs again */
  output?: unknown;
  /** Application state to set before it goes on, by path. */
  state?: Readonly<Record<string, unknown>>;
}

/** What `flowledger.redrive` takes. @throws {UsageError | PayloadError} */
export function redriveOptions(options: RedriveOptions): JsonObject {
  const given = requireOperator(options, ["from", "input", "output", "state"], "redrive()");
  for (const name of ["from", "input", "output", "state"] as const)
    if (options[name] !== undefined) given[name] = toJson(options[name], `${name} of redrive()`);
  return given;
}

/** What was retried or skipped, as the database says it. */
export function parseAddresses(answer: Json): ParkedChunk[] {
  return Addresses.parse(Array.isArray(answer) ? answer : [answer]);
}

/** @throws {UsageError} an option that is unknown, or who or why is missing */
export function requireOperator(options: OperatorOptions, names: readonly string[], where: string): JsonObject {
  requireKnown(options, [...names, "actor", "reason"], where);
  requireActor(options.actor, `actor of ${where}`);
  requireName(options.reason, `reason of ${where}`, { max: 2000 });
  return { actor: options.actor, reason: options.reason };
}

function requireAddress({ chunk, index }: ChunkAddress, where: string): JsonObject {
  const address: JsonObject = {};
  if (chunk !== undefined) address["chunk"] = requireText(chunk, `chunk of ${where}`, { max: 500 });
  if (index !== undefined) address["index"] = requireInteger(index, `index of ${where}`, { min: 0 });
  return address;
}
