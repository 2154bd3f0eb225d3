/** The group commit: appends of many executions in one statement, each fenced and answered alone. */
import type { JsonObject } from "../base/json.ts";
import type { SerializedError } from "../base/errors.ts";
import { encode, parseEvents } from "../ledger/codec.ts";
import { headerOf } from "../ledger/header.ts";
import type { ExecutionId, LedgerEvent, Outcome, Recorded, WorkerId } from "../ledger/event.ts";
import { snapshotVersion } from "../ledger/state.ts";
import {
  claimedLimited,
  claimLimitedTypes,
  foldClaims,
  type Claim,
  type ClaimOptions,
  type ClaimRow,
  type SlotRequest,
} from "./claims.ts";
import type { Queries, Sql } from "./client.ts";
import { column, element, flags, jsonColumn, jsonTexts, plainColumn, statement } from "./columns.ts";

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
  /** Folded state to keep, as of `seq` and as JSON text. */
  readonly snapshot: { readonly seq: number; readonly state: string } | null;
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
      /** About as much as a claim would read of it. */
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
  return resultsOf(sql, batch, sql<AppendRow[]>(appends, ...argumentsOf(batch, skipLocked)));
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
  const rows = await sql<({ appended: AppendRow[] } & (ClaimRow | { id: null }))[]>(
    appendsAndClaims,
    ...argumentsOf(batch, false),
    ...claimedLimited(worker, left, options),
  );
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

/** What `flowledger.append` takes, in its order; all but the last two as texts. */
const columnTypes = (
  "uuid[] int[] uuid[] int[] int[] int[] int[] boolean[] boolean[] boolean[] boolean[] text[] text[] text[] jsonb jsonb boolean[] boolean[] " +
  "float8[] int[] jsonb int[] int[] text[] int[] text[] text[] jsonb"
).split(" ");
const appendCall = `flowledger.append(${columnTypes.map((type) => `?::text::${type}`).join(", ")}, ?::int, ?::boolean)`;
const appends = statement(`select * from ${appendCall}`);
// The queue is looked at when the slots are left: the claim is asked for with what the appends have answered.
const appendsAndClaims = statement(`
  select a.appended, k.* from (select coalesce(json_agg(x), '[]') as appended from ${appendCall} x) a
  left join lateral flowledger.claim_limited(case when a.appended is not null then ?::uuid end, ${claimLimitedTypes}) k on true`);

function argumentsOf({ items, events }: Batch, skipLocked: boolean) {
  const headers = items.map(({ events: own }) => headerOf(own));
  return [
    plainColumn(items, ({ id }) => id),
    plainColumn(items, ({ epoch }) => epoch),
    plainColumn(items, ({ token }) => token),
    plainColumn(items, ({ commitNo }) => commitNo),
    plainColumn(items, ({ base }) => base),
    plainColumn(items, ({ events: own }) => own.length),
    column(items, ({ conditional }) => conditional || null),
    flags(headers, (header) => header.isProgress),
    flags(headers, (header) => header.isSealed),
    flags(headers, (header) => header.isStreamEnded),
    flags(headers, (header) => header.isShown),
    column(items, ({ fingerprint }) => fingerprint),
    column(items, ({ close }) => close?.outcome),
    column(items, ({ close }) => close?.reason),
    jsonColumn(items, ({ close }) => close?.error),
    jsonColumn(items, ({ close }) => close?.snapshot),
    flags(items, ({ hasRelatives = false }) => hasRelatives),
    flags(items, ({ release }) => release !== null),
    column(items, ({ release }) => release?.wakeInMs),
    column(items, ({ snapshot }) => snapshot?.seq),
    jsonTexts(items, ({ snapshot }) => snapshot?.state),
    `{${events.items.join(",")}}`,
    `{${events.offsets.join(",")}}`,
    `{${events.types.join(",")}}`,
    `{${events.dispatches.join(",")}}`,
    `{${events.chunks.join(",")}}`,
    `{${events.actors.join(",")}}`,
    `[${events.payloads.join(",")}]`,
    snapshotVersion,
    skipLocked,
  ] as const;
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
    const bytes = (events.bytes[ord - 1] ?? 0) + (parsed?.length ?? 0) * rowBytes;
    results[index] = { verdict: "ok", firstSeq, at, foreign: parsed, bytes };
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
  /** Of all of its events, by item. */
  readonly bytes: number[];
}

/** What a row has beside its payload. */
const rowBytes = 96;

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
      bytes += text.length + rowBytes;
    }
    columns.bytes.push(bytes);
  }
  return columns;
}
