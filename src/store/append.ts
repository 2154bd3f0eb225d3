/** The group commit: appends of many executions in one statement, each fenced and answered alone. */
import type { JsonObject } from "../base/json.ts";
import type { SerializedError } from "../base/errors.ts";
import { encode, parseEvents } from "../ledger/codec.ts";
import { headerOf } from "../ledger/header.ts";
import type { ExecutionId, LedgerEvent, Outcome, Recorded, WorkerId } from "../ledger/event.ts";
import { snapshotVersion } from "../ledger/state.ts";
import {
  claimedLimited,
  foldClaims,
  type Claim,
  type ClaimOptions,
  type ClaimRow,
  type SlotRequest,
} from "./claims.ts";
import type { Queries, Sql } from "./client.ts";
import { column, element, flags, jsonColumn, plainColumn } from "./columns.ts";

export interface Append {
  readonly id: ExecutionId;
  readonly epoch: number;
  readonly token: string;
  /** One higher at each commit of the epoch: a repeat after an unknown COMMIT finds its own number. */
  readonly commitNo: number;
  /** The last seq the owner has folded. */
  readonly base: number;
  readonly events: readonly LedgerEvent[];
  /** How many of the last events, with `close` and `release`, count only if nothing came in since `base`. */
  readonly conditional: number;
  readonly fingerprint: string | null;
  readonly close: CloseHeader | null;
  /** Its parent or its children have to hear of the close: see `Children.propagateClose`. */
  readonly hasRelatives?: boolean;
  /** Gives the execution back, to wake up in `wakeInMs` (null: only by something from outside). */
  readonly release: { readonly wakeInMs: number | null } | null;
  /** Folded state to keep, as of `seq`. */
  readonly snapshot: { readonly seq: number; readonly state: JsonObject } | null;
}

export interface CloseHeader {
  readonly outcome: Outcome;
  readonly reason: string;
  readonly error: SerializedError | null;
  readonly snapshot: JsonObject;
}

export type AppendResult = Committed | { readonly verdict: "busy" };
export type Committed =
  | {
      readonly verdict: "ok";
      readonly firstSeq: number;
      /** The database's time of this commit, milliseconds since 1970. */
      readonly at: number;
      /** What came in from outside between `base` and this commit; with it the conditional part did not happen. */
      readonly foreign: readonly Recorded[] | null;
      readonly bytes: number;
    }
  | { readonly verdict: "fenced" }
  | { readonly verdict: "repeat" };

interface AppendRow {
  ord: number;
  first_seq: number;
  moved: boolean;
  at_ms: number;
  events: unknown;
}

/** One statement for all items. `skipLocked` leaves rows that somebody else has locked for the next batch. */
export function append(sql: Queries, unsorted: readonly Append[], skipLocked = false): Promise<AppendResult[]> {
  const batch = batchOf(unsorted);
  return resultsOf(sql, batch, sql<AppendRow[]>`select * from ${appended(sql, batch, skipLocked)}`);
}

/** The same, and what was left of slots is handed over in the same statement: to the first of the queues of their flows. */
export async function appendAndClaim(
  sql: Sql,
  unsorted: readonly Append[],
  worker: WorkerId,
  left: readonly SlotRequest[],
  options: ClaimOptions,
): Promise<{ readonly results: AppendResult[]; readonly claimed: Map<ExecutionId, Claim> }> {
  const batch = batchOf(unsorted);
  // The queue is looked at when the slots are left: the claim is asked for with what the appends have answered.
  const rows = await sql<({ appended: AppendRow[] } & (ClaimRow | { id: null }))[]>`
    select a.appended, k.* from (select coalesce(json_agg(x), '[]') as appended from ${appended(sql, batch, false)} x) a
    left join lateral ${claimedLimited(sql, sql`case when a.appended is not null then ${worker}::uuid end`, left, options)} k on true`;
  const results = await resultsOf(sql, batch, rows[0]?.appended ?? []);
  const taken = rows.filter((row) => row.id !== null);
  return { results, claimed: await foldClaims(sql, taken, worker, options) };
}

interface Batch {
  readonly unsorted: readonly Append[];
  readonly items: readonly Append[];
  /** Where each of them stands in `unsorted`. */
  readonly order: readonly number[];
  readonly events: EventColumns;
}

function batchOf(unsorted: readonly Append[]): Batch {
  // Rows are locked in id order, so that two batches cannot wait for each other.
  const order = unsorted.map((_, index) => index);
  order.sort((a, b) => ((unsorted[a]?.id ?? "") < (unsorted[b]?.id ?? "") ? -1 : 1));
  const items = order.map((index) => unsorted[index]).filter((item) => item !== undefined);
  return { unsorted, items, order, events: eventColumns(items) };
}

/** As a part of a statement. */
function appended(sql: Queries, { items, events }: Batch, skipLocked: boolean) {
  const headers = items.map(({ events: own }) => headerOf(own));
  return sql`
    flowledger.append(
      ${plainColumn(items, ({ id }) => id)}::text::uuid[], ${plainColumn(items, ({ epoch }) => epoch)}::text::int[],
      ${plainColumn(items, ({ token }) => token)}::text::uuid[], ${plainColumn(items, ({ commitNo }) => commitNo)}::text::int[],
      ${plainColumn(items, ({ base }) => base)}::text::int[], ${plainColumn(items, ({ events: own }) => own.length)}::text::int[],
      ${column(items, ({ conditional }) => conditional || null)}::text::int[], ${flags(headers, (header) => header.isProgress)}::text::boolean[],
      ${flags(headers, (header) => header.isSealed)}::text::boolean[], ${flags(headers, (header) => header.isStreamEnded)}::text::boolean[],
      ${flags(headers, (header) => header.isShown)}::text::boolean[], ${column(items, ({ fingerprint }) => fingerprint)}::text::text[],
      ${column(items, ({ close }) => close?.outcome)}::text::text[], ${column(items, ({ close }) => close?.reason)}::text::text[],
      ${jsonColumn(items, ({ close }) => close?.error)}::text::jsonb, ${jsonColumn(items, ({ close }) => close?.snapshot)}::text::jsonb,
      ${flags(items, ({ hasRelatives = false }) => hasRelatives)}::text::boolean[], ${flags(items, ({ release }) => release !== null)}::text::boolean[],
      ${column(items, ({ release }) => release?.wakeInMs)}::text::float8[], ${column(items, ({ snapshot }) => snapshot?.seq)}::text::int[],
      ${jsonColumn(items, ({ snapshot }) => snapshot?.state)}::text::jsonb,
      ${`{${events.items.join(",")}}`}::text::int[], ${`{${events.offsets.join(",")}}`}::text::int[], ${`{${events.types.join(",")}}`}::text::text[],
      ${`{${events.dispatches.join(",")}}`}::text::int[], ${`{${events.chunks.join(",")}}`}::text::text[], ${`{${events.actors.join(",")}}`}::text::text[],
      ${`[${events.payloads.join(",")}]`}::text::jsonb, ${snapshotVersion}::int, ${skipLocked}::boolean)`;
}

async function resultsOf(
  sql: Queries,
  { unsorted, items, order, events }: Batch,
  answer: PromiseLike<readonly AppendRow[]> | readonly AppendRow[],
): Promise<AppendResult[]> {
  const rows = await answer;
  const results: AppendResult[] = unsorted.map(() => ({ verdict: "busy" }));
  for (const { ord, first_seq: firstSeq, moved, at_ms: at, events: foreign } of rows) {
    const index = order[ord - 1];
    if (index === undefined) continue;
    const parsed = moved ? parseEvents(foreign) : null;
    results[index] = { verdict: "ok", firstSeq, at, foreign: parsed, bytes: events.bytes[ord - 1] ?? 0 };
  }
  if (rows.length < items.length) await resolveRejected(sql, unsorted, results);
  return results;
}

/** Verdicts for what was not accepted. */
async function resolveRejected(sql: Queries, items: readonly Append[], results: AppendResult[]): Promise<void> {
  const open = items.map((item, index) => ({ item, index })).filter(({ index }) => results[index]?.verdict === "busy");
  const rows = await sql<{ verdict: "busy" | "fenced" | "repeat" }[]>`
    select flowledger.append_verdict(x.id, x.epoch, x.token, x.commit_no, x.base) as verdict
    from unnest(${plainColumn(open, ({ item }) => item.id)}::text::uuid[], ${plainColumn(open, ({ item }) => item.epoch)}::text::int[],
      ${plainColumn(open, ({ item }) => item.token)}::text::uuid[], ${plainColumn(open, ({ item }) => item.commitNo)}::text::int[],
      ${plainColumn(open, ({ item }) => item.base)}::text::int[]) with ordinality as x(id, epoch, token, commit_no, base, ord)
    order by x.ord`;
  open.forEach(({ index }, position) => (results[index] = { verdict: rows[position]?.verdict ?? "busy" }));
}

interface EventColumns {
  /** Which item each event belongs to, and its place there: both from 1. */
  readonly items: number[];
  readonly offsets: number[];
  readonly types: string[];
  readonly dispatches: (number | "null")[];
  readonly chunks: string[];
  readonly actors: string[];
  readonly payloads: string[];
  /** Bytes of payload, by item. */
  readonly bytes: number[];
}

function eventColumns(items: readonly Append[]): EventColumns {
  const columns: EventColumns = {
    items: [],
    offsets: [],
    types: [],
    dispatches: [],
    chunks: [],
    actors: [],
    payloads: [],
    bytes: [],
  };
  // Most events of a batch are of a few chunks.
  let [lastChunk, lastElement] = ["", '""'];
  let index = 0;
  for (const { events } of items) {
    index += 1;
    let bytes = 0;
    let offset = 0;
    for (const event of events) {
      const { type, dispatch, chunk, actor, payload } = encode(event);
      if (chunk !== null && chunk !== lastChunk) [lastChunk, lastElement] = [chunk, element(chunk)];
      const text = payload === null ? "null" : JSON.stringify(payload);
      columns.items.push(index);
      columns.offsets.push(++offset);
      columns.types.push(type);
      columns.dispatches.push(dispatch ?? "null");
      columns.chunks.push(chunk === null ? "null" : lastElement);
      columns.actors.push(actor === null ? "null" : element(actor));
      columns.payloads.push(text);
      bytes += text.length;
    }
    columns.bytes.push(bytes);
  }
  return columns;
}
