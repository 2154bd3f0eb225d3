/** Saved executions: what `save()` gives, how it is read again, and the execution that `load()` makes of it. */
import { createHash } from "node:crypto";
import { z } from "zod";
import { DefinitionMismatchError, ExecutionNotFoundError, ResourceMissingError, UsageError } from "../base/errors.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { decode, foldFrom } from "../ledger/codec.ts";
import type { NewId } from "../engine/ids.ts";
import { ExecutionId } from "../ledger/event.ts";
import type { Recorded } from "../ledger/event.ts";
import { evolve } from "../ledger/evolve.ts";
import { initialState, pendingInterrupts, type ExecutionState } from "../ledger/state.ts";
import { canonical, isObject, maxDepth, plain, toJson, type JsonObject } from "../base/json.ts";
import { JsonValue } from "../base/json-value.ts";
import { schemaProblem } from "../base/json-schema.ts";
import { requireSigned, sign } from "./signature.ts";
import type { KeyOptions } from "./signature.ts";
import {
  type Ledgers,
  eventsOf,
  upTo,
  copy,
  tupleOf,
  requireNoChildren,
  openChildren,
  childrenError,
} from "./history.ts";

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

/** Everything needed to go on elsewhere. @throws {UsageError} while sub-flows run */
export async function save(
  store: Ledgers,
  id: ExecutionId,
  flow: FlowDefinition | null,
  { key }: KeyOptions = {},
): Promise<SavedExecution> {
  const meta = await store.reads.meta(id);
  if (!meta) throw new ExecutionNotFoundError(id);
  // Later events are left out of both, so that meta and events agree.
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
  // A saved execution may come from anywhere: with odd keys, or so deep that reading it would overflow the stack.
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
  // A resource that a resolver makes, or that the flow can do without, need not be given.
  const isOptional = new Set(
    requirements.flatMap(({ name, failPolicy, resolver }) => (resolver || failPolicy === "open" ? [name] : [])),
  );
  const there = new Set(target.resourcesOf(flow));
  return [...new Set([...resourceKeys, ...requirements.map(({ name }) => name)])]
    .filter((name) => !there.has(name) && !isOptional.has(name))
    .toSorted();
}

type Body = Omit<SavedExecution, "digest" | "signature">;

function digestOf(body: Body): string {
  return createHash("sha256").update(canonical(body)).digest("hex");
}
