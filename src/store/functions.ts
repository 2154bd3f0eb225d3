/** Executions of background functions: their states in Defer's words, lists of them, and the commands that only they know. */
import { z } from "zod";
import { JsonValue } from "../base/json-value.ts";
import { SerializedError } from "../base/serialized-error.ts";
import type { JsonObject } from "../base/json.ts";
import { ExecutionId } from "../ledger/event.ts";
import type { Settings } from "../ledger/event.ts";
import type { Database, Sql } from "./client.ts";
import { list } from "./columns.ts";

export const FunctionState = z.enum([
  "created",
  "started",
  "succeed",
  "failed",
  "cancelled",
  "aborting",
  "aborted",
  "discarded",
]);
/** Created waits for its time or a worker; aborting has been cancelled by force and not ended yet. The others are final, but started. */
export type FunctionState = z.infer<typeof FunctionState>;

export const FunctionRecord = z.object({
  id: ExecutionId,
  functionName: z.string(),
  state: FunctionState,
  metadata: z.record(z.string(), JsonValue).nullable(),
  error: SerializedError.nullable(),
  closeSnapshot: z.record(z.string(), JsonValue).nullable(),
  scheduledAt: z.number(),
  startedAt: z.number().nullable(),
  createdAt: z.number(),
  updatedAt: z.number(),
});
export type FunctionRecord = z.infer<typeof FunctionRecord>;

export interface FunctionFilter {
  readonly functions: readonly string[];
  readonly states?: readonly FunctionState[];
  readonly errorCodes?: readonly string[];
  readonly executedBy?: readonly string[];
  readonly startedAt?: Between;
  readonly scheduledAt?: Between;
  /** All of the keys, each with one of its values. */
  readonly metadata?: readonly { readonly key: string; readonly values: readonly string[] }[];
  /** Only later in the list than this, or only earlier: the last ones before it. */
  readonly after?: ExecutionId;
  readonly before?: ExecutionId;
  /** Counted from the end of the list. */
  readonly isLast: boolean;
  readonly limit: number;
}

/** From and to belong to it. */
export interface Between {
  readonly from?: Date;
  readonly to?: Date;
}

/** What a function that threw without a code of its own is listed under. */
export const plainErrorCode = "ER0003";

/** What a second run of the same call needs. */
export const FunctionCall = z.object({
  flow: z.string(),
  input: JsonValue,
  metadata: z.custom<JsonObject>().nullable(),
  priority: z.int(),
  settings: z.custom<Partial<Settings>>().nullable(),
});
export type FunctionCall = z.infer<typeof FunctionCall>;

export interface Functions {
  /** null: there is no such execution. */
  read(id: ExecutionId): Promise<FunctionRecord | null>;
  /** Newest first. */
  list(filter: FunctionFilter): Promise<FunctionRecord[]>;
  /** null: there is no such execution, or it was never started. */
  call(id: ExecutionId): Promise<FunctionCall | null>;
  /** The state it found, which says whether that was allowed: created, or started with `force`. null: no such execution. */
  cancel(id: ExecutionId, force: boolean): Promise<string | null>;
  /** The state it found; only "created" was moved. null: no such execution. */
  reschedule(id: ExecutionId, to: Date | number): Promise<string | null>;
}

export function functionsOf({ sql }: Pick<Database, "sql">): Functions {
  return {
    async read(id) {
      const [row] =
        await sql`select ${columns(sql)} from flowledger.executions e ${planned(sql)} where e.id = ${id}::uuid`;
      return row ? FunctionRecord.parse(row) : null;
    },
    list: (filter) => listFunctions(sql, filter),
    async call(id) {
      const [row] = await sql`
        select e.flow, started.payload -> 'input' as input, e.metadata, e.priority, created.payload -> 'settings' as settings
        from flowledger.executions e
        join flowledger.ledger created on created.execution_id = e.id and created.seq = 1
        join flowledger.ledger started on started.execution_id = e.id and started.type = 'execution.started'
        where e.id = ${id}::uuid limit 1`;
      return row ? FunctionCall.parse(row) : null;
    },
    async cancel(id, force) {
      const [row] = await sql<{ state: string | null }[]>`
        select flowledger.cancel_function(${id}::uuid, ${force}, false) as state`;
      return row?.state ?? null;
    },
    async reschedule(id, to) {
      const at = to instanceof Date ? to.toISOString() : null;
      const [row] = await sql<{ state: string | null }[]>`
        select flowledger.reschedule_function(${id}::uuid, ${at}::text::timestamptz, ${typeof to === "number" ? to : 0}::float8) as state`;
      return row?.state ?? null;
    },
  };
}

async function listFunctions(sql: Sql, filter: FunctionFilter): Promise<FunctionRecord[]> {
  const { functions, states, errorCodes, executedBy, startedAt, scheduledAt, metadata = [], after, before } = filter;
  const texts = (values: readonly string[]) => sql`any(${list(values)}::text::text[])`;
  const between = (column: ReturnType<Sql>, { from, to }: Between) => sql`
    ${from ? sql`and ${column} >= ${from.getTime()}::float8` : sql``}
    ${to ? sql`and ${column} <= ${to.getTime()}::float8` : sql``}`;
  const rows = await sql`
    select ${columns(sql)} from flowledger.executions e ${planned(sql)}
    where e.flow = ${texts(functions)}
      ${after ? sql`and e.id < ${after}::uuid` : sql``}
      ${before ? sql`and e.id > ${before}::uuid` : sql``}
      ${states ? sql`and flowledger.function_state(e) = ${texts(states)}` : sql``}
      ${errorCodes ? sql`and e.error is not null and coalesce(e.error ->> 'code', ${plainErrorCode}) = ${texts(errorCodes)}` : sql``}
      ${
        executedBy
          ? sql`and exists (select 1 from flowledger.ledger l where l.execution_id = e.id
              and l.type = 'execution.claimed' and l.payload ->> 'worker' = ${texts(executedBy)})`
          : sql``
      }
      ${startedAt ? between(sql`first_claim.at`, startedAt) : sql``}
      ${scheduledAt ? between(sql`coalesce(planned.due, flowledger.to_ms(e.created_at))`, scheduledAt) : sql``}
      ${metadata.reduce((all, { key, values }) => sql`${all} and e.metadata ->> ${key}::text = ${texts(values)}`, sql``)}
    order by e.id ${filter.isLast ? sql`asc` : sql`desc`}
    limit ${filter.limit}::int`;
  const records = rows.map((row) => FunctionRecord.parse(row));
  return filter.isLast ? records.toReversed() : records;
}

function columns(sql: Sql) {
  return sql`e.id, e.flow as "functionName", flowledger.function_state(e) as state, e.metadata, e.error, e.close_snapshot as "closeSnapshot",
    coalesce(planned.due, flowledger.to_ms(e.created_at)) as "scheduledAt", first_claim.at as "startedAt",
    flowledger.to_ms(e.created_at) as "createdAt", flowledger.to_ms(last_event.at) as "updatedAt"`;
}

function planned(sql: Sql) {
  return sql`
    join flowledger.ledger last_event on last_event.execution_id = e.id and last_event.seq = e.seq
    left join lateral (
      select (l.payload ->> 'dueAt')::float8 as due from flowledger.ledger l
      where l.execution_id = e.id and l.epoch = 0 and l.type in ('execution.started', 'execution.rescheduled')
      order by l.seq desc limit 1) planned on true
    left join lateral (
      select flowledger.to_ms(l.at) as at from flowledger.ledger l
      where l.execution_id = e.id and l.type = 'execution.claimed'
      order by l.seq limit 1) first_claim on true`;
}
