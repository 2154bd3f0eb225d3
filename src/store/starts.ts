/** Executions are created and started: many in one statement, or one inside a caller's own transaction. */
import { z } from "zod";
import { toJson, type Json, type JsonObject } from "../base/json.ts";
import { ExecutionId } from "../ledger/event.ts";
import type { Recorded, Settings, WorkerId } from "../ledger/event.ts";
import { parseEvents } from "../ledger/codec.ts";
import { callerTransactions } from "./caller-transaction.ts";
import type { CallerTransaction, OpenTransaction } from "./caller-transaction.ts";
import type { Database, Sql } from "./client.ts";
import { column, jsonList } from "./columns.ts";
import { leftToOthers, openCommandQueue } from "./command-queue.ts";
import { codeOf, isLocked, mayNot, refusalOf } from "./refusals.ts";

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
  /** Also of a flow that no worker ever served. */
  readonly allowUnknown?: boolean;
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
  /** The input before the contract has seen it: what a role that may only command sends. */
  readonly given?: unknown;
  /** Application state it begins with. */
  readonly state: JsonObject;
  /** The trace that it belongs to. @default none */
  readonly traceparent?: string | null;
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

export interface Starts {
  /** One statement for all, in their order. @param lease those that begin as owned, without a job @default none */
  create(executions: readonly NewExecution[], lease?: FirstLease | null): Promise<CreateResult[]>;
  /** All of them or none: keys that somebody's open transaction has are waited for, at most as long as a lane does. */
  createAll(executions: readonly NewExecution[]): Promise<CreateResult[]>;
  /** Inside a transaction of the caller's own, which `transaction` names for `Reads.findOver`. */
  createIn(tx: CallerTransaction, execution: NewExecution): Promise<{ created: CreateResult; transaction: string }>;
  /** What `flowledger.start` does for `psql`: the flow's contract has not seen the input, and options are those of `flowledger.start`. */
  startRaw(flow: string, input: Json, options: Json): Promise<ExecutionId>;
  /** @throws {UsageError} no worker ever served the flow here, though some served others */
  requireServed(flow: string): Promise<void>;
  /** Gives a created execution its input. False when it had been started before. */
  start(id: ExecutionId, input: Json, limitKey: string | null): Promise<boolean>;
}

interface CreatedRow {
  id: ExecutionId;
  is_new: boolean;
  is_conflict: boolean;
  at_ms: number;
}

export function startsOf({ sql, names, target }: Pick<Database, "sql" | "names" | "target">): Starts {
  const open = callerTransactions({ sql, names });
  /** A few at once, so that others find connections. */
  const waiting = openCommandQueue(leftToOthers + 2);
  /** False for a role that may only command: one of `grant_roles`' clients, limited or not. */
  let mayCreate = true;
  async function createOrCommand(executions: readonly NewExecution[], lease: FirstLease | null = null) {
    const isAllowed = executions.every(isCommand);
    if (mayCreate || !isAllowed)
      try {
        return await create(sql, executions, lease);
      } catch (error) {
        if (codeOf(error) !== mayNot || !isAllowed) throw error;
        mayCreate = false;
      }
    return await command(sql, executions);
  }
  return {
    create: createOrCommand,
    async createAll(executions) {
      try {
        return await createOrCommand(executions);
      } catch (error) {
        if (!isLocked(error)) throw error;
        return await waiting.run("", () => createOrCommand(executions));
      }
    },
    async createIn(tx, execution) {
      const transaction = await open(tx);
      // A refusal would end the caller's transaction, so it is asked before.
      const isCreated = transaction.mayCreate || !isCommand(execution);
      const created = await (isCreated ? createOne : commandOne)(transaction, execution);
      return { created, transaction: transaction.id };
    },
    async startRaw(flow, input, options) {
      const [row] = await sql<[{ id: ExecutionId }]>`
        select flowledger.start(${flow}, ${JSON.stringify(input)}::text::jsonb, ${JSON.stringify(options)}::text::jsonb) as id`;
      return row.id;
    },
    async requireServed(flow) {
      await sql`select flowledger.check_served(${flow})`;
    },
    async start(id, input, limitKey) {
      const [row] = await sql<{ done: boolean }[]>`
        select flowledger.start_execution(${id}::uuid, ${JSON.stringify(input)}::text::jsonb, false, false, ${limitKey}) as done`.catch(
        (error: unknown) => {
          throw refusalOf(error, target, { id, what: "start" });
        },
      );
      return row?.done ?? false;
    },
  };
}

/** How long a batch waits for a key that somebody's open transaction has. */
const waitWithin = "300ms";

async function create(
  sql: Sql,
  executions: readonly NewExecution[],
  lease: FirstLease | null,
): Promise<CreateResult[]> {
  const modeOf = ({ id, input }: NewExecution) =>
    input === undefined ? "create" : lease?.ids.has(id) ? "claim" : "start";
  const rows = await sql<CreatedRow[]>`
    select id, is_new, is_conflict, at_ms from flowledger.create_executions(
      ${column(executions, ({ id }) => id)}::text::uuid[], ${column(executions, ({ flow }) => flow)}::text::text[],
      ${column(executions, modeOf)}::text::text[], ${jsonList(executions.map(({ input }) => input))}::text::jsonb,
      ${jsonList(executions.map(createdPayload))}::text::jsonb, ${column(executions, ({ idempotencyKey }) => idempotencyKey)}::text::text[],
      ${column(executions, ({ priority }) => priority)}::text::int[], ${column(executions, ({ limitKey }) => limitKey)}::text::text[],
      ${column(executions, ({ parent }) => parent?.id)}::text::uuid[], ${column(executions, ({ startAt }) => startAt)}::text::timestamptz[],
      ${column(executions, ({ delayMs }) => delayMs)}::text::float8[], ${column(executions, discardAt)}::text::timestamptz[],
      ${column(executions, discardMs)}::text::float8[], case when set_config('lock_timeout', ${waitWithin}, true) <> '' then ${lease?.worker ?? null}::uuid end, ${lease?.token ?? null}::uuid) order by ord`;
  return rows.map(({ id, is_new: isNew, is_conflict: isConflict, at_ms: at }) => ({ id, isNew, isConflict, at }));
}

/** What `flowledger.start` can say as well. */
function isCommand({ input, parent, item, state, resourceKeys }: NewExecution): boolean {
  return input !== undefined && parent === null && !item && isEmpty(state) && resourceKeys.length === 0;
}

/** The same as a client may: through `flowledger.start`, where the flow's contract has not seen the input. */
async function command(sql: Sql, executions: readonly NewExecution[]): Promise<CreateResult[]> {
  const rows = await sql<{ id: ExecutionId; at_ms: number }[]>`
    select flowledger.start(x.item ->> 'flow', x.item -> 'input', x.item -> 'options') as id, flowledger.to_ms(statement_timestamp()) as at_ms
    from jsonb_array_elements(${jsonList(executions.map(startOf))}::text::jsonb) with ordinality as x(item, ord) order by x.ord`;
  return rows.map(({ id, at_ms: at }, index) => ({ id, isNew: id === executions[index]?.id, isConflict: false, at }));
}

function startOf(execution: NewExecution) {
  const { id, flow, input, given, settings, metadata, idempotencyKey, priority, limitKey, delayMs, startAt } =
    execution;
  const { autoClose, autoCloseMs, concurrency, interventionMode, timeoutMs, hidden } = settings;
  const options = {
    id,
    metadata: metadata ?? undefined,
    idempotencyKey: idempotencyKey ?? undefined,
    priority: priority || undefined,
    limitKey: limitKey ?? undefined,
    delay: delayMs ?? undefined,
    startAt: startAt ?? undefined,
    discardAfter: execution.discardAfter ?? undefined,
    autoClose,
    autoCloseTimeout: autoCloseMs,
    concurrency,
    interventionMode,
    timeout: timeoutMs ?? undefined,
    hidden,
    traceparent: execution.traceparent ?? undefined,
    // The library has asked.
    allowUnknown: true,
  };
  return { flow, input: given === undefined ? input : toJson(given, `input of flow "${flow}"`), options };
}

const Started = z.tuple([ExecutionId, z.number()]);

/** As `command`, for one in the caller's transaction. */
async function commandOne(transaction: OpenTransaction, execution: NewExecution): Promise<CreateResult> {
  const { flow, input, options } = startOf(execution);
  const answer = await transaction.ask(
    `select pg_catalog.json_build_array(
      flowledger.start($1::pg_catalog.text, $2::pg_catalog.text::pg_catalog.jsonb, $3::pg_catalog.text::pg_catalog.jsonb),
      flowledger.to_ms(pg_catalog.statement_timestamp())::pg_catalog.numeric)::pg_catalog.text`,
    [flow, JSON.stringify(input ?? null), JSON.stringify(options)],
    { what: "start" },
  );
  const [id, at] = Started.parse(JSON.parse(answer));
  return { id, isNew: id === execution.id, isConflict: false, at };
}

const Created = z.tuple([ExecutionId, z.boolean(), z.boolean(), z.number()]);

/** The same for one, on a connection whose settings are not ours: one text as the answer. */
async function createOne(transaction: OpenTransaction, execution: NewExecution): Promise<CreateResult> {
  const { id, flow, input, idempotencyKey, priority, limitKey, parent, startAt, delayMs } = execution;
  const given = [
    ["uuid", id],
    ["text", flow],
    ["text", input === undefined ? "create" : "start"],
    ["jsonb", JSON.stringify(input ?? null)],
    ["jsonb", JSON.stringify(createdPayload(execution))],
    ["text", idempotencyKey],
    ["int4", String(priority)],
    ["text", limitKey],
    ["uuid", parent?.id ?? null],
    ["timestamptz", textOf(startAt)],
    ["float8", textOf(delayMs)],
    ["timestamptz", textOf(discardAt(execution))],
    ["float8", textOf(discardMs(execution))],
  ] as const;
  const answer = await transaction.ask(
    `select pg_catalog.json_build_array(c.id, c.is_new, c.is_conflict, c.at_ms::pg_catalog.numeric)::pg_catalog.text
      from flowledger.create_execution(${given.map(([type], index) => `$${index + 1}::pg_catalog.text::pg_catalog.${type}`).join(", ")}) c`,
    given.map(([, value]) => value),
  );
  const [created, isNew, isConflict, at] = Created.parse(JSON.parse(answer));
  return { id: created, isNew, isConflict, at };
}

function textOf(value: Date | number | null): string | null {
  return value instanceof Date ? value.toISOString() : value === null ? null : String(value);
}

function discardAt({ discardAfter }: NewExecution): Date | null {
  return discardAfter instanceof Date ? discardAfter : null;
}

function discardMs({ discardAfter }: NewExecution): number | null {
  return typeof discardAfter === "number" ? discardAfter : null;
}

/** What `execution.created` says; undefined is left out. */
export function createdPayload(execution: NewExecution) {
  return {
    flow: execution.flow,
    fingerprint: execution.item?.fingerprint ?? undefined,
    settings: isEmpty(execution.settings) ? undefined : execution.settings,
    metadata: execution.metadata ?? undefined,
    resourceKeys: execution.resourceKeys.length === 0 ? undefined : execution.resourceKeys,
    parent: execution.parent ?? undefined,
    item: execution.item && { ...execution.item, fingerprint: undefined },
    state: isEmpty(execution.state) ? undefined : execution.state,
    traceparent: execution.traceparent ?? undefined,
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

function isEmpty(value: object): boolean {
  return Object.keys(value).length === 0;
}
