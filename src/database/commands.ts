/** Typed callers of the SQL front door: the same functions that `psql` calls. */
import type { ExecutionId, Recorded, Settings, WorkerId } from "../ledger/event.ts";
import type { Json, JsonObject } from "../ledger/payload.ts";
import { parseEvents } from "./append.ts";
import type { Queries } from "./connection.ts";

/** One execution to create; with an `input` it starts at once. */
export interface NewExecution {
  readonly id: ExecutionId;
  readonly flow: string;
  readonly input: Json | undefined;
  readonly settings: Partial<Settings>;
  readonly metadata: JsonObject | null;
  readonly idempotencyKey: string | null;
  readonly priority: number;
  readonly delayMs: number | null;
  readonly startAt: Date | null;
  /** Not started by then, it is discarded: a time, or milliseconds from its creation. */
  readonly discardAfter?: Date | number | null;
  readonly resourceKeys: readonly string[];
  readonly parent: { readonly id: ExecutionId; readonly dispatch: number; readonly ordinal?: number } | null;
  /** One item of a distributed collection of its parent, to be run by the same definition. */
  readonly item?: {
    readonly node: string;
    readonly index: number;
    readonly readsState?: true;
    readonly fingerprint: string | null;
  };
  /** Application state it begins with. */
  readonly state: JsonObject;
}

export interface CreateResult {
  /** The execution's id: another one where the idempotency key was known. */
  readonly id: ExecutionId;
  readonly isNew: boolean;
  /** The key was used with another input. */
  readonly isConflict: boolean;
  /** When, by the database's clock, milliseconds since 1970. */
  readonly at: number;
}

/** Who owns new executions from the beginning, and which of them. */
export interface FirstLease {
  readonly worker: WorkerId;
  readonly token: string;
  readonly ids: ReadonlySet<ExecutionId>;
}

export async function createMany(
  sql: Queries,
  executions: readonly NewExecution[],
  lease: FirstLease | null = null,
): Promise<CreateResult[]> {
  const items = executions.map((execution) => ({
    i: execution.id,
    f: execution.flow,
    t: execution.input === undefined ? undefined : true,
    h: lease?.ids.has(execution.id) || undefined,
    x: execution.input,
    c: createdPayload(execution),
    o: execution.parent?.id,
    m: execution.metadata ?? undefined,
    k: execution.idempotencyKey ?? undefined,
    p: execution.priority === 0 ? undefined : execution.priority,
    d: execution.delayMs ?? undefined,
    w: execution.startAt?.toISOString(),
    y: execution.discardAfter instanceof Date ? execution.discardAfter.toISOString() : undefined,
    z: typeof execution.discardAfter === "number" ? execution.discardAfter : undefined,
  }));
  const rows = await sql<{ id: ExecutionId; created: boolean; conflict: boolean; at_ms: number }[]>`
    select id, created, conflict, at_ms
    from flowledger.create_many(${JSON.stringify(items)}::text::jsonb, ${lease?.worker ?? null}::uuid, ${lease?.token ?? null}::uuid) order by ord`;
  return rows.map(({ id, created, conflict, at_ms: at }) => ({ id, isNew: created, isConflict: conflict, at }));
}

/** What `execution.created` says; undefined is left out. */
function createdPayload(execution: NewExecution) {
  return {
    flow: execution.flow,
    fingerprint: execution.item?.fingerprint ?? undefined,
    settings: isEmpty(execution.settings) ? undefined : execution.settings,
    metadata: execution.metadata ?? undefined,
    resourceKeys: execution.resourceKeys.length === 0 ? undefined : execution.resourceKeys,
    parent: execution.parent ?? undefined,
    item: execution.item && { ...execution.item, fingerprint: undefined },
    state: isEmpty(execution.state) ? undefined : execution.state,
  };
}

/** The ledger of an execution that was just created and started, as reading it back would give it. */
export function firstEvents(execution: NewExecution, at: number): Recorded[] {
  const payload: unknown = JSON.parse(
    JSON.stringify({ ...createdPayload(execution), priority: execution.priority || undefined }),
  );
  return parseEvents([
    [1, 0, at, "execution.created", null, null, null, payload],
    [2, 0, at, "execution.started", null, null, null, { input: execution.input ?? null }],
  ]);
}

/** False when it had been started before. */
export async function startExecution(sql: Queries, id: ExecutionId, input: Json): Promise<boolean> {
  const [row] = await sql<{ done: boolean }[]>`
    select flowledger.start_execution(${id}::uuid, ${JSON.stringify(input)}::text::jsonb, false, false) as done`;
  return row?.done ?? false;
}

export interface EmitCommand {
  readonly event: string;
  readonly payload: Json;
  readonly idempotencyKey: string | null;
  readonly actor: string | null;
}

export async function emit(
  sql: Queries,
  id: ExecutionId,
  { event, payload, idempotencyKey, actor }: EmitCommand,
): Promise<void> {
  await sql`select flowledger.emit(${id}::uuid, ${event}, ${JSON.stringify(payload)}::text::jsonb, ${idempotencyKey}, ${actor}, false, false)`;
}

export async function seal(sql: Queries, id: ExecutionId, actor: string | null): Promise<boolean> {
  const [row] = await sql<{ done: boolean }[]>`select flowledger.seal(${id}::uuid, ${actor}, false) as done`;
  return row?.done ?? false;
}

export interface CloseCommand {
  readonly reason: string;
  readonly pendingInterrupts: "reject" | "cancel";
  readonly actor: string | null;
}

export async function close(
  sql: Queries,
  id: ExecutionId,
  { reason, pendingInterrupts, actor }: CloseCommand,
): Promise<boolean> {
  const [row] = await sql<{ done: boolean }[]>`
    select flowledger.close(${id}::uuid, ${reason}, ${pendingInterrupts}, ${actor}, false) as done`;
  return row?.done ?? false;
}

/** False when it had closed before. */
export async function cancel(sql: Queries, id: ExecutionId, reason: string, actor: string | null): Promise<boolean> {
  const [row] = await sql<
    { done: boolean }[]
  >`select flowledger.cancel(${id}::uuid, ${reason}, ${actor}, false) as done`;
  return row?.done ?? false;
}

function isEmpty(value: object): boolean {
  return Object.keys(value).length === 0;
}

export interface ResumeCommand {
  readonly value: Json;
  readonly requestId: string | null;
  readonly actor: string | null;
}

/** The interrupt as it is after the answer. */
export async function continueWith(
  sql: Queries,
  id: ExecutionId,
  interrupt: string,
  { value, requestId, actor }: ResumeCommand,
): Promise<Json> {
  const [row] = await sql<{ record: Json }[]>`
    select flowledger.continue_with(${id}::uuid, ${interrupt}, ${JSON.stringify(value)}::text::jsonb, ${requestId}, ${actor}, false) as record`;
  return row?.record ?? null;
}

export async function intervene(sql: Queries, id: ExecutionId, payload: Json, options: JsonObject): Promise<Json> {
  const [row] = await sql<{ record: Json }[]>`
    select flowledger.intervene(${id}::uuid, ${JSON.stringify(payload)}::text::jsonb, ${JSON.stringify(options)}::text::jsonb, false) as record`;
  return row?.record ?? null;
}

export interface ConsumeCommand {
  readonly consumer: string;
  readonly status: "applied" | "ignored";
  readonly note: string | null;
  readonly metadata: JsonObject;
}

export async function markInterventionConsumed(
  sql: Queries,
  id: ExecutionId,
  intervention: string,
  { consumer, status, note, metadata }: ConsumeCommand,
): Promise<Json> {
  const [row] = await sql<{ record: Json }[]>`
    select flowledger.mark_intervention_consumed(${id}::uuid, ${intervention}, ${consumer}, ${status}, ${note},
      ${JSON.stringify(metadata)}::text::jsonb, false) as record`;
  return row?.record ?? null;
}
