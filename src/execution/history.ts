/** The past of an execution: its state at a point, and a copy of it that goes on (`fork`). */
import { types } from "node:util";
import type { CopiedEvent } from "../store/audit.ts";
import type { Store } from "../store/store.ts";
import { ExecutionNotFoundError, UsageError } from "../base/errors.ts";
import { encode, foldFrom } from "../ledger/codec.ts";
import type { NewId } from "../engine/ids.ts";
import type { ExecutionId, Recorded } from "../ledger/event.ts";
import type { ExecutionState } from "../ledger/state.ts";
import { isObject, toJson, type Json, type JsonObject } from "../base/json.ts";
import { requireActor, requireKnown, requireName, requireRecord, show } from "../base/option.ts";
import { latestMs } from "../base/duration.ts";
import { closeSnapshot } from "../ledger/views.ts";
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

/** The groups of the store that copies need. */
export type Ledgers = Pick<Store, "reads" | "audit">;

/** Application state after the event `at`, or after the last event up to a time. @throws {UsageError} */
export async function stateAt(store: Ledgers, id: ExecutionId, at: number | Date): Promise<JsonObject> {
  return foldFrom(null, upTo(id, await eventsOf(store, id), at)).values;
}

/** A new execution with the past of another up to a point. The source is not touched: the copy's first event names it. */
export async function fork(store: Ledgers, id: ExecutionId, options: ForkOptions, newId: NewId): Promise<ExecutionId> {
  requireKnown(options, ["at", "input", "metadata", "actor", "reason"], "fork()");
  const { actor, reason } = options;
  const asked = {
    ...(actor !== undefined && { actor: requireActor(actor, "actor of fork()") }),
    ...(reason !== undefined && { reason: requireName(reason, "reason of fork()", { max: 2000 }) }),
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

function metadataOf(given: unknown): JsonObject {
  const metadata = toJson(requireRecord(given, "metadata of fork()"), "metadata of fork()");
  return isObject(metadata) ? metadata : {};
}

export async function eventsOf(store: Ledgers, id: ExecutionId): Promise<Recorded[]> {
  const events = await store.reads.history(id, 0, null);
  if (events.length === 0) throw new ExecutionNotFoundError(id);
  return events;
}

export function upTo(id: ExecutionId, events: readonly Recorded[], at: number | Date): readonly Recorded[] {
  const isTime = types.isDate(at);
  if (isTime ? !isMoment(at) : !Number.isSafeInteger(at) || at < 1)
    throw new UsageError(`${show(at)} is no point of execution ${id}`, "use a seq from 1, or a date from 1970 to 9999");
  // A commit that waited for another one has an earlier time and a later seq: it is not there without what came before it.
  const next = events.findIndex((event) => (isTime ? event.at > at.getTime() : event.seq > at));
  const past = next < 0 ? events : events.slice(0, next);
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

export async function copy(
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

export function tupleOf({ epoch, at, event }: Recorded): CopiedEvent {
  const { type, dispatch, chunk, actor, payload } = encode(event);
  return [epoch, at, type, dispatch, chunk, actor, payload as JsonObject | null];
}

export function requireNoChildren(id: ExecutionId, state: ExecutionState): void {
  if (state.item)
    throw new UsageError(
      `execution ${id} is an item of execution ${state.parent?.id ?? "(none)"} and cannot be copied alone`,
      "copy the parent, before it fans out or after its items have ended",
    );
  const open = openChildren(state);
  if (open.length > 0 && !state.closed) throw childrenError(id, open);
}

export function openChildren(state: ExecutionState): string[] {
  const children = [...state.children]
    .filter(([, { dispatch }]) => state.dispatches.has(dispatch))
    .map(([child]) => String(child));
  for (const { items, missing } of state.frames.values())
    if (items) children.push(`${items.base} (and ${missing - 1} more items)`);
  return children;
}

export function childrenError(id: string, children: readonly string[]): UsageError {
  return new UsageError(
    `execution ${id} waits for sub-flow ${children.slice(0, 3).join(", ")}, which a copy could not hear of`,
    "copy it before they begin or after they end",
    { children },
  );
}
