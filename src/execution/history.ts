/** The past of an execution: its state at a point, and copies of it that go on, here (`fork`) or elsewhere (`save`, `load`). */
import { types } from "node:util";
import { createHash } from "node:crypto";
import { z } from "zod";
import type { CopiedEvent } from "../store/audit.ts";
import type { Store } from "../store/store.ts";
import { DefinitionMismatchError, ExecutionNotFoundError, ResourceMissingError, UsageError } from "../base/errors.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { decode, encode, foldFrom } from "../ledger/codec.ts";
import type { NewId } from "../engine/ids.ts";
import { ExecutionId } from "../ledger/event.ts";
import type { Recorded } from "../ledger/event.ts";
import { evolve } from "../ledger/evolve.ts";
import { initialState, pendingInterrupts, type ExecutionState } from "../ledger/state.ts";
import { canonical, isObject, maxDepth, plain, toJson, type Json, type JsonObject } from "../base/json.ts";
import { JsonValue } from "../base/json-value.ts";
import { schemaProblem } from "../base/json-schema.ts";
import { requireKnown, requireRecord, requireText, show } from "../base/option.ts";
import { latestMs } from "../base/duration.ts";
import { closeSnapshot } from "../ledger/views.ts";
import { requireSigned, sign } from "./signature.ts";
import type { KeyOptions } from "./signature.ts";
import { heldUntil } from "../ledger/waits.ts";

/** Of `fork()`: up to where the copy has the past of its source, and what is otherwise in it. */
export interface ForkOptions {
  /** The last event the copy has: a seq, or the last one up to a time. */
  at: number | Date;
  /** Another input; only where `at` is no later than the start. */
  input?: Json;
  /** @default the source's */
  metadata?: JsonObject;
  /** Who asks for it, for the copy's ledger: 1 to 500 characters. */
  actor?: string;
  /** Why: 1 to 2,000 characters. */
  reason?: string;
}

/** [epoch, milliseconds since 1970, type, dispatch, chunk, actor, payload] */
const SavedEvent = z.tuple([
  z.int().nonnegative(),
  z.number(),
  z.string(),
  z.int().nullable(),
  z.string().nullable(),
  z.string().nullable(),
  z.record(z.string(), JsonValue).nullable(),
]);
type SavedEvent = z.infer<typeof SavedEvent>;

/** Of a save as JSON. */
const maxSavedBytes = 268_435_456;

const kind = "flowledger.execution";
const version = 2;
/** What pre-releases of 0.1.0 saved; `load` brings it to the form of today. */
const oldVersion = 1;

/** What `save()` gives: JSON, complete, and good for any database that serves the same flow. */
export const SavedExecution = z.strictObject({
  version: z.union([z.literal(version), z.literal(oldVersion)]),
  kind: z.literal(kind),
  executionId: ExecutionId,
  flow: z.string(),
  fingerprint: z.string(),
  /** For people; a load reads the events. */
  meta: z.record(z.string(), JsonValue),
  state: z.record(z.string(), JsonValue),
  pendingInterrupts: z.array(z.record(z.string(), JsonValue)),
  resourceKeys: z.array(z.string()),
  events: z.array(SavedEvent).min(1),
  /** SHA-256 over all of the above. */
  digest: z.string(),
  /** HMAC-SHA-256 of the digest, where a key was given. */
  signature: z.string().optional(),
});
export type SavedExecution = z.infer<typeof SavedExecution>;

/** What `load()` would say. */
export interface LoadReport {
  readonly isReady: boolean;
  readonly status: "ready" | "missing_resources" | "definition_mismatch" | "invalid_snapshot";
  readonly executionId: string | null;
  readonly flow: string | null;
  readonly missingResources: readonly string[];
  /** One sentence each: what is wrong, where, and what to do. */
  readonly problems: readonly string[];
}

/** What a load may count on in this process. */
export interface LoadTarget {
  flow(name: string): FlowDefinition | null;
  /** Names of live resources that the flow's executions would have. */
  resourcesOf(flow: string): readonly string[];
}

/** The groups of the store that copies need. */
type Ledgers = Pick<Store, "reads" | "audit">;

/** Application state after the event `at`, or after the last event up to a time. @throws {UsageError} */
export async function stateAt(store: Ledgers, id: ExecutionId, at: number | Date): Promise<JsonObject> {
  return foldFrom(null, upTo(id, await eventsOf(store, id), at)).values;
}

/** A new execution with the past of another up to a point. The source is not touched: the copy's first event names it. */
export async function fork(store: Ledgers, id: ExecutionId, options: ForkOptions, newId: NewId): Promise<ExecutionId> {
  requireKnown(options, ["at", "input", "metadata", "actor", "reason"], "fork()");
  const { actor, reason } = options;
  const asked = {
    ...(actor !== undefined && { actor: requireText(actor, "actor of fork()", { max: 500 }) }),
    ...(reason !== undefined && { reason: requireText(reason, "reason of fork()", { max: 2000 }) }),
  };
  const { at } = options;
  const input = options.input === undefined ? undefined : toJson(options.input, "input of fork()");
  const metadata = options.metadata === undefined ? undefined : metadataOf(options.metadata);
  const past = upTo(id, await eventsOf(store, id), at);
  const seq = past.length;
  const isBeforeStart = !past.some(({ event }) => event.type === "inbox.routed");
  if (input !== undefined && !(isBeforeStart && past.some(({ event }) => event.type === "execution.started")))
    throw new UsageError(
      `fork of execution ${id} at seq ${seq} cannot take another input`,
      "fork at its execution.started, before anything ran, or leave input out",
    );
  const events = past.map((recorded): Recorded => {
    const { event } = recorded;
    if (event.type === "execution.started" && input !== undefined) return { ...recorded, event: { ...event, input } };
    if (event.type !== "execution.created") return recorded;
    const { parent: _parent, idempotencyKey: _key, priority: _priority, ...created } = event;
    const changes = metadata === undefined ? {} : { metadata };
    return { ...recorded, event: { ...created, ...changes, forkedFrom: { id, seq, ...asked } } };
  });
  const state = foldFrom(null, events);
  if (state.closed)
    throw new UsageError(`execution ${id} is closed at seq ${seq}`, "fork at an earlier seq: history() lists them");
  requireNoChildren(id, state);
  return copy(store, newId(), events, state);
}

/** Everything needed to go on elsewhere. @throws {UsageError} while sub-flows run */
export async function save(
  store: Ledgers,
  id: ExecutionId,
  flow: FlowDefinition | null,
  { key }: KeyOptions = {},
): Promise<SavedExecution> {
  const meta = await store.reads.meta(id);
  if (!meta) throw new ExecutionNotFoundError(id);
  // What has come in since then is in neither.
  const events = upTo(id, await eventsOf(store, id), meta.stateVersion);
  const state = foldFrom(null, events);
  requireNoChildren(id, state);
  const body: Body = {
    version,
    kind,
    executionId: id,
    flow: state.flow,
    fingerprint: state.fingerprint ?? flow?.fingerprint ?? "",
    meta: plain(meta),
    state: plain(state.values),
    pendingInterrupts: pendingInterrupts(state).map(({ paused: _paused, ...interrupt }) => plain(interrupt)),
    resourceKeys: state.resourceKeys,
    events: events.map((recorded) => [...tupleOf(recorded)]),
  };
  const digest = digestOf(body);
  return { ...body, digest, ...(key !== undefined && { signature: sign(digest, key) }) };
}

/**
 * A new execution that goes on where the saved one was.
 *
 * @throws {UsageError} what is not a save of this version, says where
 * @throws {DefinitionMismatchError | ResourceMissingError}
 */
export async function load(
  store: Ledgers,
  saved: unknown,
  target: LoadTarget,
  newId: NewId,
  keyed: KeyOptions = {},
): Promise<{ id: ExecutionId; flow: string }> {
  const { snapshot, events, state } = parse(saved, keyed);
  const problem = problemOf(snapshot, state, target);
  if (problem) throw problem;
  const past = events.map((recorded): Recorded => {
    if (recorded.event.type !== "execution.created") return recorded;
    const { parent: _parent, idempotencyKey: _key, priority: _priority, ...created } = recorded.event;
    return { ...recorded, event: { ...created, loadedFrom: snapshot.executionId } };
  });
  return { id: await copy(store, newId(), past, foldFrom(null, past)), flow: snapshot.flow };
}

/** What a load would say, without touching anything. */
export function inspectLoad(saved: unknown, target: LoadTarget, keyed: KeyOptions = {}): LoadReport {
  let known: { executionId: string | null; flow: string | null } = { executionId: null, flow: null };
  try {
    const { snapshot, state } = parse(saved, keyed);
    known = { executionId: snapshot.executionId, flow: snapshot.flow };
    const problem = problemOf(snapshot, state, target);
    if (!problem) return { isReady: true, status: "ready", ...known, missingResources: [], problems: [] };
    const missingResources = problem instanceof ResourceMissingError ? missing(snapshot, target) : [];
    const status =
      problem instanceof ResourceMissingError
        ? "missing_resources"
        : problem instanceof DefinitionMismatchError
          ? "definition_mismatch"
          : "invalid_snapshot";
    return { isReady: false, status, ...known, missingResources, problems: [problem.message] };
  } catch (error) {
    const problems = [error instanceof Error ? error.message : String(error)];
    return { isReady: false, status: "invalid_snapshot", ...known, missingResources: [], problems };
  }
}

function metadataOf(given: unknown): JsonObject {
  const metadata = toJson(requireRecord(given, "metadata of fork()"), "metadata of fork()");
  return isObject(metadata) ? metadata : {};
}

async function eventsOf(store: Ledgers, id: ExecutionId): Promise<Recorded[]> {
  const events = await store.reads.history(id, 0, null);
  if (events.length === 0) throw new ExecutionNotFoundError(id);
  return events;
}

function upTo(id: ExecutionId, events: readonly Recorded[], at: number | Date): readonly Recorded[] {
  const isTime = types.isDate(at);
  if (isTime ? !isMoment(at) : !Number.isSafeInteger(at) || at < 1)
    throw new UsageError(`${show(at)} is no point of execution ${id}`, "use a seq from 1, or a date from 1970 to 9999");
  const past = events.filter((event) => (isTime ? event.at <= at.getTime() : event.seq <= at));
  if (past.length === 0 || (!isTime && past.length < at))
    throw new UsageError(
      `execution ${id} has no event ${isTime ? `by ${at.toISOString()}` : at}`,
      `use a seq up to ${events.length}, or a later date`,
    );
  return past;
}

function isMoment(at: Date): boolean {
  return at.getTime() >= 0 && at.getTime() <= latestMs;
}

async function copy(
  store: Ledgers,
  id: ExecutionId,
  events: readonly Recorded[],
  state: ExecutionState,
): Promise<ExecutionId> {
  const header = {
    flow: state.flow,
    epoch: state.epoch,
    metadata: Object.keys(state.metadata).length === 0 ? null : state.metadata,
    fingerprint: state.fingerprint,
    started: state.startedAt,
    begun: isDue(state),
    due: state.dueAt,
    discard: state.settings.discardAt,
    sealed: state.sealedAt,
    closed: state.closed?.at ?? null,
    outcome: state.closed?.outcome ?? null,
    reason: state.closed?.reason ?? null,
    error: state.closed?.error ?? null,
    snapshot: state.closed ? closeSnapshot(state) : null,
    streamEnded: state.streamStopped,
  };
  await store.audit.copy(id, header, events.map(tupleOf));
  return id;
}

/** Whether a copy has something to do before its start is due. What nobody has taken has nothing but what came in. */
function isDue(state: ExecutionState): boolean {
  if (state.cancelling) return true;
  return heldUntil(state) === null ? state.hasBegun || state.closing !== null : state.epoch > 0;
}

function tupleOf({ epoch, at, event }: Recorded): CopiedEvent {
  const { type, dispatch, chunk, actor, payload } = encode(event);
  return [epoch, at, type, dispatch, chunk, actor, payload as JsonObject | null];
}

interface Parsed {
  readonly snapshot: SavedExecution;
  readonly events: readonly Recorded[];
  readonly state: ExecutionState;
}

function parse(saved: unknown, { key }: KeyOptions): Parsed {
  const remedy = "pass what execution.save() gave you, unchanged";
  let given = saved;
  if (typeof saved === "string") {
    if (saved.length > maxSavedBytes)
      throw new UsageError(`the saved execution is larger than ${maxSavedBytes} bytes`, remedy);
    try {
      given = JSON.parse(saved) as unknown;
    } catch (error) {
      throw new UsageError("the saved execution is not JSON, or not all of it", remedy, {}, error);
    }
  }
  // What comes from elsewhere may be anything: keys that are none, or so deep that reading it would overflow the stack.
  const parsed = SavedExecution.safeParse(toJson(given, "the saved execution", maxSavedBytes, maxDepth + 10));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new UsageError(
      `the saved execution is wrong at ${issue?.path.join(".") || "its top"}: ${issue?.message}`,
      remedy,
    );
  }
  const { digest, signature, ...body } = parsed.data;
  if (digest !== digestOf(body))
    throw new UsageError("the saved execution is not as it was saved, its digest differs at digest", remedy);
  if (key !== undefined) requireSigned(digest, signature, key);
  const events = body.events.map(([epoch, at, type, dispatch, chunk, actor, payload], index): Recorded => {
    try {
      const current = body.version === oldVersion ? withoutOldNames(payload) : payload;
      return decode({ seq: index + 1, epoch, at, type, dispatch, chunk, actor, payload: current });
    } catch (error) {
      throw new UsageError(
        `the saved execution is wrong at events.${index}`,
        "load it with the version that saved it",
        {},
        error,
      );
    }
  });
  let state: ExecutionState;
  try {
    state = foldKeepingResults(events);
  } catch (error) {
    throw new UsageError(
      "the saved execution is wrong at events: they do not follow from each other",
      remedy,
      {},
      error,
    );
  }
  for (const { id, response } of state.interrupts.values()) {
    const problem = schemaProblem(response);
    if (problem !== null)
      throw new UsageError(
        `the saved execution is wrong at events: the schema of the answer to interrupt "${id}" ${problem}`,
        remedy,
      );
  }
  return { snapshot: parsed.data, events, state };
}

/** What a pre-release called otherwise. */
function withoutOldNames(payload: JsonObject | null): JsonObject | null {
  const parent = payload?.["parent"];
  if (!payload || !isObject(parent) || !("shownOn" in parent)) return payload;
  const { shownOn, ...rest } = parent;
  return { ...payload, parent: { ...rest, visibleIn: shownOn ?? [] } };
}

/** Folds, and puts each result that a pre-release only named the source of where results are now. */
function foldKeepingResults(events: readonly Recorded[]): ExecutionState {
  let state = initialState();
  for (const recorded of events) {
    state = evolve(state, recorded);
    if (!("moves" in recorded.event)) continue;
    for (const move of recorded.event.moves ?? []) {
      if (move.move !== "finalResult" || move.value !== undefined) continue;
      move.value = state.finalResult?.value ?? null;
      delete move.from;
    }
  }
  return state;
}

function problemOf(snapshot: SavedExecution, state: ExecutionState, target: LoadTarget): Error | null {
  const { executionId: id, flow, fingerprint } = snapshot;
  const definition = target.flow(flow);
  if (!definition)
    return new UsageError(
      `flow "${flow}" of the saved execution is not known here`,
      "pass it to createOrchestrator({ flows })",
    );
  if (definition.fingerprint !== fingerprint)
    return new DefinitionMismatchError(id, flow, fingerprint || "(none)", definition.fingerprint);
  const open = openChildren(state);
  if (open.length > 0) return childrenError(id, open);
  const [first] = missing(snapshot, target);
  return first === undefined ? null : new ResourceMissingError(id, first, target.resourcesOf(flow));
}

/** What ran with it, or is declared to be needed, and is not there. */
function missing({ flow, resourceKeys }: SavedExecution, target: LoadTarget): string[] {
  const requirements = target.flow(flow)?.requirements ?? [];
  // What a resolver can make, or the flow can do without, is not missed.
  const isOptional = new Set(
    requirements.flatMap(({ name, failPolicy, resolver }) => (resolver || failPolicy === "open" ? [name] : [])),
  );
  const there = new Set(target.resourcesOf(flow));
  return [...new Set([...resourceKeys, ...requirements.map(({ name }) => name)])]
    .filter((name) => !there.has(name) && !isOptional.has(name))
    .toSorted();
}

function requireNoChildren(id: ExecutionId, state: ExecutionState): void {
  if (state.item)
    throw new UsageError(
      `execution ${id} is an item of execution ${state.parent?.id ?? "(none)"} and cannot be copied alone`,
      "copy the parent, before it fans out or after its items have ended",
    );
  const open = openChildren(state);
  if (open.length > 0 && !state.closed) throw childrenError(id, open);
}

function openChildren(state: ExecutionState): string[] {
  const children = [...state.children]
    .filter(([, { dispatch }]) => state.dispatches.has(dispatch))
    .map(([child]) => String(child));
  for (const { items, missing } of state.frames.values())
    if (items) children.push(`${items.base} (and ${missing - 1} more items)`);
  return children;
}

function childrenError(id: string, children: readonly string[]): UsageError {
  return new UsageError(
    `execution ${id} waits for sub-flow ${children.slice(0, 3).join(", ")}, which a copy could not hear of`,
    "copy it before they begin or after they end",
    { children },
  );
}

type Body = Omit<SavedExecution, "digest" | "signature">;

function digestOf(body: Body): string {
  return createHash("sha256").update(canonical(body)).digest("hex");
}
