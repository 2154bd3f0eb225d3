/** Typed callers of the SQL front door: the same functions that `psql` calls. */
import type { ExecutionId, Recorded, Settings, WorkerId } from "../ledger/event.ts";
import type { Json, JsonObject } from "../base/json.ts";
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
  /** What the limits per key count it by. */
  readonly limitKey: string | null;
  readonly delayMs: number | null;
  readonly startAt: Date | null;
  /** Not started by then, it is discarded: a time, or milliseconds from its creation. */
  readonly discardAfter?: Date | number | null;
  readonly resourceKeys: readonly string[];
  readonly parent: {
    readonly id: ExecutionId;
    readonly dispatch: number;
    readonly ordinal?: number;
    readonly visibleIn?: readonly ExecutionId[];
  } | null;
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
  const items = executions.map((execution) => ({ ...itemOf(execution), h: lease?.ids.has(execution.id) || undefined }));
  const rows = await sql<{ id: ExecutionId; created: boolean; conflict: boolean; at_ms: number }[]>`
    select id, created, conflict, at_ms
    from flowledger.create_many(${JSON.stringify(items)}::text::jsonb, ${lease?.worker ?? null}::uuid, ${lease?.token ?? null}::uuid) order by ord`;
  return rows.map(({ id, created, conflict, at_ms: at }) => ({ id, isNew: created, isConflict: conflict, at }));
}

/** An execution as `flowledger.create_many` takes it; undefined is left out. */
function itemOf(execution: NewExecution) {
  return {
    i: execution.id,
    f: execution.flow,
    t: execution.input === undefined ? undefined : true,
    x: execution.input,
    c: createdPayload(execution),
    o: execution.parent?.id,
    m: execution.metadata ?? undefined,
    k: execution.idempotencyKey ?? undefined,
    p: execution.priority === 0 ? undefined : execution.priority,
    q: execution.limitKey ?? undefined,
    d: execution.delayMs ?? undefined,
    w: execution.startAt?.toISOString(),
    y: execution.discardAfter instanceof Date ? execution.discardAfter.toISOString() : undefined,
    z: typeof execution.discardAfter === "number" ? execution.discardAfter : undefined,
  };
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

/** A schedule's own row. The clock is the database's. */
export interface ScheduleRow {
  readonly flow: string;
  readonly cron: string;
  readonly timeZone: string;
  /** Its times up to here have been dealt with. */
  readonly firedUntil: string;
  readonly now: string;
  /** Times that wait for the execution that was started last. */
  readonly waiting: number;
  readonly lastId: ExecutionId | null;
}

/** Makes the schedule known. A new one, or one with another cron, has missed nothing before now. */
export async function keepSchedule(
  sql: Queries,
  { name, flow, cron, timeZone }: { name: string; flow: string; cron: string; timeZone: string },
): Promise<void> {
  await sql`
    insert into flowledger.schedules as s (name, flow, cron, time_zone, fired_until)
    values (${name}, ${flow}, ${cron}, ${timeZone}, date_trunc('milliseconds', clock_timestamp()))
    on conflict (name) do update set flow = excluded.flow, cron = excluded.cron, time_zone = excluded.time_zone, fired_until = excluded.fired_until
    where (s.flow, s.cron, s.time_zone) is distinct from (excluded.flow, excluded.cron, excluded.time_zone)`;
}

export async function readSchedule(sql: Queries, name: string): Promise<ScheduleRow | null> {
  const [row] = await sql<ScheduleRow[]>`
    select s.flow, s.cron, s.time_zone as "timeZone", flowledger.iso(s.fired_until) as "firedUntil", flowledger.iso(clock_timestamp()) as now,
      cardinality(s.waiting) as waiting, s.last_id as "lastId"
    from flowledger.schedules s where s.name = ${name}`;
  return row ?? null;
}

export interface FireCommand {
  readonly name: string;
  /** `firedUntil` as it was read. */
  readonly after: string;
  readonly until: Date;
  readonly times: readonly Date[];
  readonly overlap: "allow" | "skip" | "queue";
  /** What each time starts; id and idempotency key are made there. */
  readonly execution: NewExecution;
}

/** False when somebody else has fired since `after` was read. */
export async function fireSchedule(sql: Queries, command: FireCommand): Promise<boolean> {
  const { name, after, until, times, overlap, execution } = command;
  const [row] = await sql<{ done: boolean }[]>`
    select flowledger.fire_schedule(${name}, ${after}::text::timestamptz, ${until.toISOString()}::text::timestamptz,
      ${`{${times.map((time) => time.toISOString()).join(",")}}`}::text::timestamptz[], ${overlap}, ${JSON.stringify(itemOf(execution))}::text::jsonb) as done`;
  return row?.done ?? false;
}

/** False when it had been started before. */
export async function startExecution(
  sql: Queries,
  id: ExecutionId,
  input: Json,
  limitKey: string | null,
): Promise<boolean> {
  const [row] = await sql<{ done: boolean }[]>`
    select flowledger.start_execution(${id}::uuid, ${JSON.stringify(input)}::text::jsonb, false, false, ${limitKey}) as done`;
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

/** Like `emit`, to a running sub-flow of the execution. */
export async function emitToSubFlow(
  sql: Queries,
  id: ExecutionId,
  frame: string,
  { event, payload, idempotencyKey, actor }: EmitCommand,
): Promise<void> {
  await sql`
    select flowledger.emit_to_sub_flow(${id}::uuid, ${frame}::uuid, ${event}, ${JSON.stringify(payload)}::text::jsonb, ${idempotencyKey}, ${actor}, false, false)`;
}

/** False when it had ended, or was being cancelled, before. */
export async function cancelSubFlow(
  sql: Queries,
  id: ExecutionId,
  frame: string,
  { reason, actor }: { readonly reason: string; readonly actor: string | null },
): Promise<boolean> {
  const [row] = await sql<{ done: boolean }[]>`
    select flowledger.cancel_sub_flow(${id}::uuid, ${frame}::uuid, ${reason}, ${actor}, false) as done`;
  return row?.done ?? false;
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
