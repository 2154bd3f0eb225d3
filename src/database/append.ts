/** The group commit: appends of many executions in one statement, each fenced and answered alone. */
import { z } from "zod";
import { decode, encode } from "../ledger/event.ts";
import type { ExecutionId, LedgerEvent, LedgerRow, Outcome, Recorded } from "../ledger/event.ts";
import type { SerializedError } from "../base/errors.ts";
import { snapshotVersion } from "../ledger/state.ts";
import type { JsonObject } from "../base/json.ts";
import type { Sql } from "./connection.ts";

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
  /** Its parent or its children have to hear of the close: see `settleFamilies`. */
  readonly hasFamily?: boolean;
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

/** One statement for all items. `isCareful` leaves rows that somebody else has locked for the next batch. */
export async function append(sql: Sql, unsorted: readonly Append[], isCareful = false): Promise<AppendResult[]> {
  // Rows are locked in id order, so that two batches cannot wait for each other.
  const order = unsorted
    .map((_, index) => index)
    .sort((a, b) => ((unsorted[a]?.id ?? "") < (unsorted[b]?.id ?? "") ? -1 : 1));
  const items = order.map((index) => unsorted[index]).filter((item) => item !== undefined);
  const bytes: number[] = [];
  const columns = newColumns();
  items.forEach((item, index) => bytes.push(addItem(columns, item, index + 1)));
  const c = columns;
  const rows = await sql<AppendRow[]>`
    select * from flowledger.append(
      ${list(c.ids)}::text::uuid[], ${list(c.epochs)}::text::int[], ${list(c.tokens)}::text::uuid[], ${list(c.commits)}::text::int[],
      ${list(c.bases)}::text::int[], ${list(c.counts)}::text::int[], ${list(c.conditional)}::text::int[], ${`[${c.extras.join(",")}]`}::text::jsonb,
      ${list(c.eventItems)}::text::int[], ${list(c.eventOffsets)}::text::int[], ${list(c.eventTypes)}::text::text[],
      ${list(c.eventDispatches)}::text::int[], ${list(c.eventChunks)}::text::text[], ${list(c.eventActors)}::text::text[],
      ${`[${c.eventPayloads.join(",")}]`}::text::jsonb, ${snapshotVersion}::int, ${isCareful}::boolean)`;
  const wakes = items.filter(({ release }) => release !== null && release.wakeInMs !== null).map(({ id }) => id);
  if (wakes.length > 0) await sql`select flowledger.add_jobs(${list(wakes)}::text::uuid[])`;
  const results: (AppendResult | undefined)[] = new Array(items.length);
  for (const { ord, first_seq: firstSeq, moved, at_ms: at, events } of rows) {
    const place = order[ord - 1] ?? 0;
    results[place] = {
      verdict: "ok",
      firstSeq,
      at,
      foreign: moved ? parseEvents(events) : null,
      bytes: bytes[ord - 1] ?? 0,
    };
  }
  if (rows.length < items.length) await judge(sql, unsorted, results);
  return results.map((result) => result ?? { verdict: "busy" });
}

/** Asks what became of the items that were not accepted. */
async function judge(sql: Sql, items: readonly Append[], results: (AppendResult | undefined)[]): Promise<void> {
  const open = items.map((item, index) => ({ item, index })).filter(({ index }) => results[index] === undefined);
  const rows = await sql<{ verdict: "fenced" | "repeat" | "busy" }[]>`
    select flowledger.append_verdict(x.id, x.epoch, x.token, x.commit, x.base) as verdict
    from unnest(${list(open.map(({ item }) => item.id))}::text::uuid[], ${list(open.map(({ item }) => item.epoch))}::text::int[],
      ${list(open.map(({ item }) => item.token))}::text::uuid[], ${list(open.map(({ item }) => item.commitNo))}::text::int[],
      ${list(open.map(({ item }) => item.base))}::text::int[]) with ordinality as x(id, epoch, token, commit, base, ord)
    order by x.ord`;
  open.forEach(({ index }, position) => (results[index] = { verdict: rows[position]?.verdict ?? "busy" }));
}

/** The items as columns: Postgres reads arrays far faster than it takes objects apart. */
interface Columns {
  readonly ids: string[];
  readonly epochs: number[];
  readonly tokens: string[];
  readonly commits: number[];
  readonly bases: number[];
  readonly counts: number[];
  readonly conditional: number[];
  readonly extras: string[];
  readonly eventItems: number[];
  readonly eventOffsets: number[];
  readonly eventTypes: string[];
  readonly eventDispatches: (number | "null")[];
  readonly eventChunks: string[];
  readonly eventActors: string[];
  readonly eventPayloads: string[];
}

function newColumns(): Columns {
  return {
    ids: [],
    epochs: [],
    tokens: [],
    commits: [],
    bases: [],
    counts: [],
    conditional: [],
    extras: [],
    eventItems: [],
    eventOffsets: [],
    eventTypes: [],
    eventDispatches: [],
    eventChunks: [],
    eventActors: [],
    eventPayloads: [],
  };
}

/** Returns how many bytes of payload the item adds. */
function addItem(columns: Columns, item: Append, position: number): number {
  columns.ids.push(item.id);
  columns.epochs.push(item.epoch);
  columns.tokens.push(item.token);
  columns.commits.push(item.commitNo);
  columns.bases.push(item.base);
  columns.counts.push(item.events.length);
  columns.conditional.push(item.conditional);
  columns.extras.push(extraOf(item));
  let bytes = 0;
  let offset = 0;
  for (const event of item.events) {
    const { t, d, c, a, p } = encode(event);
    const payload = p === undefined ? "null" : JSON.stringify(p);
    columns.eventItems.push(position);
    columns.eventOffsets.push(++offset);
    columns.eventTypes.push(t);
    columns.eventDispatches.push(d ?? "null");
    columns.eventChunks.push(c === undefined ? "null" : element(c));
    columns.eventActors.push(a === undefined ? "null" : element(a));
    columns.eventPayloads.push(payload);
    bytes += payload.length;
  }
  return bytes;
}

function extraOf(item: Append): string {
  const { fingerprint, close, hasFamily, release, snapshot, events } = item;
  let isStreamEnded = false;
  let isSealed = false;
  let isProjected = false;
  let isIdle = true;
  for (const { type } of events) {
    isStreamEnded ||= type === "stream.stopped";
    isSealed ||= type === "execution.sealed";
    isProjected ||= type === "chunk.failed" || type.startsWith("inter");
    isIdle &&= type === "execution.claimed" || type === "execution.blocked" || type === "inbox.routed";
  }
  const isPlain =
    fingerprint === null && !close && !release && !snapshot && !isStreamEnded && !isSealed && !isProjected;
  if (isPlain && !isIdle) return "{}";
  return JSON.stringify({
    i: isProjected || undefined,
    f: fingerprint ?? undefined,
    e: isStreamEnded || undefined,
    l: isSealed || undefined,
    k: isIdle || undefined,
    c: close
      ? { o: close.outcome, r: close.reason, e: close.error, s: close.snapshot, f: hasFamily || undefined }
      : undefined,
    r: release ? { w: release.wakeInMs } : undefined,
    z: snapshot ? { q: snapshot.seq, s: snapshot.state } : undefined,
  });
}

function list(values: readonly (string | number)[]): string {
  return `{${values.join(",")}}`;
}

/** One element of an array literal. */
function element(text: string): string {
  return /^[A-Za-z0-9_][A-Za-z0-9_.:-]*$/.test(text) && text.toLowerCase() !== "null"
    ? text
    : `"${text.replace(/["\\]/g, "\\$&")}"`;
}

type EventTuple = readonly [
  LedgerRow["seq"],
  LedgerRow["epoch"],
  LedgerRow["at"],
  LedgerRow["type"],
  LedgerRow["dispatch"],
  LedgerRow["chunk"],
  LedgerRow["actor"],
  LedgerRow["payload"],
];
// Columns have the types of their table; what an event holds is looked at by `decode`. Ten thousand of them are one load.
const EventTuples = z.array(z.custom<EventTuple>(Array.isArray));

/** What `flowledger.events` gives: [seq, epoch, at, type, dispatch, chunk, actor, payload]. */
export function parseEvents(rows: unknown): Recorded[] {
  return EventTuples.parse(rows).map(([seq, epoch, at, type, dispatch, chunk, actor, payload]) =>
    decode({ seq, epoch, at, type, dispatch, chunk, actor, payload }),
  );
}
