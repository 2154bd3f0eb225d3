/** Reads: headers and ledgers of one execution or of many, lists, definitions. */
import { PermissionError } from "../base/errors.ts";
import type { Json, JsonObject } from "../base/json.ts";
import { foldFrom, parseEvents } from "../ledger/codec.ts";
import type { ExecutionId, Recorded } from "../ledger/event.ts";
import { snapshotVersion } from "../ledger/state.ts";
import type { ExecutionState } from "../ledger/state.ts";
import { Meta } from "../ledger/views.ts";
import type { Database } from "./client.ts";
import { column, list } from "./columns.ts";
import { Header, headerColumns } from "./headers.ts";
import { listsOf, search } from "./lists.ts";
import type { Lists } from "./lists.ts";
import { codeOf, mayNot, refusalOf } from "./refusals.ts";

export interface InterruptFilter {
  flow?: string;
  type?: string;
  metadata?: JsonObject;
  olderThan?: Date;
  /** Ids of the last record of the page before, and since when it waited, in microseconds: it may be asked anew meanwhile, or gone. */
  cursor?: { readonly at: string; readonly executionId: ExecutionId; readonly id: string };
  limit: number;
}

export interface Reads extends Lists {
  headers(ids: readonly ExecutionId[]): Promise<Map<ExecutionId, Header>>;
  /** What to say of one whose end is not for this role to read: a client is told that it has ended, and no more. */
  hiddenEnd(header: Header): PermissionError;
  /** Ledger events of several executions, each after a seq of its own. */
  events(asked: readonly { readonly id: ExecutionId; readonly after: number }[]): Promise<(readonly Recorded[])[]>;
  /** The ledger after a seq, in order; only some types where they are named. */
  history(id: ExecutionId, after: number, types: readonly string[] | null): Promise<Recorded[]>;
  /** Is there anything of it, with or without a header? */
  hasLedger(id: ExecutionId): Promise<boolean>;
  /** The session whose open transaction has written executions for the longest time. */
  oldestWriter(): Promise<number | null>;
  /** What an execution is, by its ledger and those of its sub-flows; null when there is none. */
  meta(id: ExecutionId): Promise<Meta | null>;
  /** The folded state of one execution now; null when there is none. */
  loadState(id: ExecutionId): Promise<ExecutionState | null>;
  /** Those that are closed, or that do not exist and never will: the transaction that was to create them has ended. */
  findOver(asked: readonly { readonly id: ExecutionId; readonly transaction: string | null }[]): Promise<ExecutionId[]>;
  /** Pending interrupts, oldest first, each as `flowledger.interrupt_record` gives it, with its cursor. */
  listInterrupts(filter: InterruptFilter): Promise<Json[]>;
  /** What `flowledger.inbox` gives. @throws {SearchTimeoutError | UsageError} */
  inbox(options: JsonObject): Promise<Json[]>;
  /** Interrupts that wait in an execution and in its sub-flows, oldest first, each as the execution shows it. */
  pendingInterrupts(id: ExecutionId): Promise<Json[]>;
  /** The nodes of a definition that ran here once; null when nobody kept it. */
  definition(flow: string, fingerprint: string): Promise<unknown>;
  /** Why no worker could go on with an execution, when that is the last thing that happened to it. */
  blocked(id: ExecutionId): Promise<string | null>;
  /** Why an execution is where it is, as `Explanation` reads it. @throws {ExecutionNotFoundError} */
  explain(id: ExecutionId): Promise<unknown>;
  /** What it did, as `TimelineRow` reads each. @throws {ExecutionNotFoundError | UsageError} */
  timeline(id: ExecutionId, cursor: string | null, limit: number): Promise<unknown[]>;
  /** Flows that some worker has served here, by name. */
  knownFlows(): Promise<string[]>;
  /** Whether a live worker serves the flow. */
  isServed(flow: string): Promise<boolean>;
}

export function readsOf({ sql, target }: Pick<Database, "sql" | "target">): Reads {
  /** A client reads no table, and is told what it may know. One refusal says which it is. */
  let isClient = false;
  return {
    ...listsOf({ sql }),
    async headers(ids) {
      const asked = list(ids);
      const seen = () => sql`select ${headerColumns(sql)} from flowledger.seen(${asked}::text::uuid[]) e`;
      const rows = await (isClient
        ? seen()
        : sql`
        select ${headerColumns(sql)}
        from unnest(${asked}::text::uuid[]) a(id) join flowledger.executions e on e.id = a.id`.catch(
            (error: unknown) => {
              if (codeOf(error) !== mayNot) throw error;
              isClient = true;
              return seen();
            },
          ));
      return new Map(rows.map((row) => Header.parse(row)).map((header) => [header.id, header]));
    },
    hiddenEnd: ({ id, outcome }) =>
      new PermissionError(
        target.user,
        target.place,
        `execution ${id} is ${outcome ?? "closed"}, and its result and error are not for a client without grant_client()`,
      ),
    async events(asked) {
      const rows = await sql<{ events: unknown }[]>`
        select flowledger.events(a.id, a.after) as events
        from unnest(${column(asked, ({ id }) => id)}::text::uuid[], ${column(asked, ({ after }) => after)}::text::int[])
          with ordinality as a(id, after, ord)
        order by a.ord`;
      return rows.map(({ events }) => parseEvents(events));
    },
    async history(id, after, types) {
      const [row] = await sql<{ events: unknown }[]>`select flowledger.events(${id}::uuid, ${after}::int) as events`;
      const events = parseEvents(row?.events ?? []);
      return types === null ? events : events.filter(({ event }) => types.includes(event.type));
    },
    async oldestWriter() {
      const [row] = await sql<[{ pid: number | null }]>`select flowledger.holder_of(null) as pid`;
      return row.pid;
    },

    async hasLedger(id) {
      const [row] = await sql<[{ there: boolean }]>`
        select exists (select from flowledger.ledger where execution_id = ${id}::uuid)
          or exists (select from flowledger.executions where id = ${id}::uuid) as there`;
      return row.there;
    },
    async meta(id) {
      const [row] = await sql<{ meta: unknown }[]>`select flowledger.meta(${id}::uuid) as meta`;
      return row?.meta ? Meta.parse(row.meta) : null;
    },
    async loadState(id) {
      const [row] = await sql<{ snapshot: JsonObject | null; events: unknown }[]>`
        select s.state as snapshot, flowledger.events(e.id, coalesce(s.seq, 0)) as events
        from flowledger.executions e
        left join flowledger.snapshots s on s.execution_id = e.id and s.version = ${snapshotVersion}::int
        where e.id = ${id}::uuid`;
      return row ? foldFrom(row.snapshot, parseEvents(row.events)) : null;
    },
    async findOver(asked) {
      const transactions = asked.flatMap(({ transaction }) => transaction ?? []);
      // Asked before the rows are read: a transaction that ends in between must not pass for rolled back.
      const open = await sql<{ transaction: string }[]>`
        select x as transaction from unnest(${list(transactions)}::text::text[]) x
        where pg_xact_status(x::xid8) = 'in progress'`;
      const isOpen = new Set(open.map(({ transaction }) => transaction));
      const settled = asked.filter(({ transaction }) => transaction === null || !isOpen.has(transaction));
      const rows = await sql<{ id: ExecutionId }[]>`
        select a.id from unnest(${column(settled, ({ id }) => id)}::text::uuid[]) as a(id)
        left join flowledger.executions e on e.id = a.id
        where e.id is null or e.closed_at is not null`;
      return rows.map(({ id }) => id);
    },
    async listInterrupts({ flow, type, metadata, olderThan, cursor, limit }) {
      const rows = await sql<{ record: Json }[]>`
        select flowledger.interrupt_record(i.execution_id, i.id) || jsonb_build_object('cursor',
          concat_ws(' ', (extract(epoch from i.created_at) * 1000000)::bigint, i.execution_id, i.id)) as record
        from flowledger.interrupts i
        where i.status = 'pending'
          ${flow === undefined ? sql`` : sql`and i.flow = ${flow}`}
          ${type === undefined ? sql`` : sql`and i.type = ${type}`}
          ${olderThan === undefined ? sql`` : sql`and i.created_at < ${olderThan.toISOString()}::text::timestamptz`}
          ${
            metadata === undefined
              ? sql``
              : sql`and exists (select 1 from flowledger.executions e where e.id = i.execution_id and e.metadata @> ${JSON.stringify(metadata)}::text::jsonb)`
          }
          ${
            cursor === undefined
              ? sql``
              : sql`and (i.created_at, i.execution_id, i.id) > (
                  timestamptz 'epoch' + ${cursor.at}::bigint * interval '1 microsecond', ${cursor.executionId}::uuid, ${cursor.id}::text)`
          }
        order by i.created_at, i.execution_id, i.id
        limit ${limit}::int`;
      return rows.map(({ record }) => record);
    },
    async inbox(options) {
      const query = sql<{ record: Json }[]>`
        select i.record from flowledger.inbox(${JSON.stringify(options)}::text::jsonb) with ordinality i(record, ord) order by i.ord`;
      try {
        return (await search(query, options)).map(({ record }) => record);
      } catch (error) {
        throw refusalOf(error, target);
      }
    },
    async pendingInterrupts(id) {
      const rows = await sql<{ record: Json }[]>`
        select flowledger.projected_record(${id}::uuid, p.owner_id, p.local_id) as record
        from flowledger.pending_on(${id}::uuid) p
        order by p.created_at, p.owner_id, p.local_id`;
      return rows.map(({ record }) => record);
    },
    async definition(flow, fingerprint) {
      const [row] = await sql<{ blueprint: unknown }[]>`
        select blueprint from flowledger.definitions where flow = ${flow} and fingerprint = ${fingerprint}`;
      return row?.blueprint ?? null;
    },
    async blocked(id) {
      const [row] = await sql<{ type: string; problem: string | null }[]>`
        select type, payload ->> 'problem' as problem from flowledger.ledger
        where execution_id = ${id}::uuid order by seq desc limit 1`;
      return row?.type === "execution.blocked" ? row.problem : null;
    },
    async explain(id) {
      try {
        const [row] = await sql<[{ explanation: unknown }]>`select flowledger.explain(${id}::uuid) as explanation`;
        return row.explanation;
      } catch (error) {
        throw refusalOf(error, target, { id });
      }
    },
    async timeline(id, cursor, limit) {
      try {
        const rows = await sql<{ entry: unknown }[]>`
          select t.entry from flowledger.timeline(${id}::uuid, ${cursor}, ${limit}::int) with ordinality t(entry, ord) order by t.ord`;
        return rows.map(({ entry }) => entry);
      } catch (error) {
        throw refusalOf(error, target, { id });
      }
    },
    async knownFlows() {
      const rows = await sql<{ flow: string }[]>`
        select flow from flowledger.definitions union select unnest(w.flows) from flowledger.workers w order by 1`;
      return rows.map(({ flow }) => flow);
    },
    async isServed(flow) {
      const [row] = await sql<[{ served: boolean }]>`
        select exists (select 1 from flowledger.workers w
          where w.flows @> array[${flow}::text] and w.heartbeat_at > flowledger.wall_clock() - interval '15 seconds') as served`;
      return row.served;
    },
  };
}
