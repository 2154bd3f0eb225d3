/**
 * The timeline of an execution folded from its ledger by pages, so that no look at a long one reads all of it. It says what
 * `flowledger.timeline` says, which gathers the same from the whole of a ledger.
 */
import { z } from "zod";
import type { Json, JsonObject } from "../base/json.ts";
import { JsonValue } from "../base/json-value.ts";

const moment = z.string().nullish();

/** Of an event, only what a timeline tells; moments are ISO 8601 as the database writes them. */
export const TimedEvent = z.object({
  seq: z.int(),
  at: z.string(),
  type: z.string(),
  dispatch: z.int().nullish(),
  chunk: z.string().nullish(),
  attempt: z.int().nullish(),
  queuedAt: moment,
  startedAt: moment,
  error: JsonValue.nullish(),
  /** It is tried again. */
  retries: z.boolean().nullish(),
  ordinal: z.int().nullish(),
  /** Of a step, or the flow of a child. */
  name: z.string().nullish(),
  until: moment,
  interrupt: z.string().nullish(),
  child: z.string().nullish(),
  outcome: z.string().nullish(),
  size: z.int().nullish(),
  moves: z.array(z.record(z.string(), JsonValue)).nullish(),
  /** What a cancel left to do. */
  runs: z.array(z.object({ id: z.int(), chunk: z.string().nullish() })).nullish(),
});
export type TimedEvent = z.infer<typeof TimedEvent>;

/** One row, as far as the ledger has been read. */
interface Row {
  readonly seq: number;
  /** Of several that one event began. */
  readonly place: number;
  readonly kind: "chunk" | "step" | "sleep" | "wait" | "child" | "items";
  readonly dispatch: number;
  readonly at: string;
  readonly name: string;
  chunk: string;
  queuedAt: string | null;
  startedAt: string | null;
  /** What it did before its attempt told when it began. */
  begunAt: string | null;
  endedAt: string | null;
  last: string | null;
  attempts: JsonObject[];
  until: string | null;
  error: Json;
  outcome: string | null;
  size: number;
  /** Of a wait: before which event the same was asked again. */
  next: number | null;
}

export interface TimelineFold {
  /** The last event that was looked at. */
  seq: number;
  /** When that happened, ISO 8601; null before the first. */
  at: string | null;
  closedAt: string | null;
  /** In the order of the timeline. */
  readonly rows: Row[];
  readonly chunks: Map<number, Row>;
  readonly steps: Map<string, Row>;
  readonly waits: Map<string, Row>;
  readonly children: Map<string, Row>;
  readonly items: Map<number, Row>;
}

export function newTimeline(): TimelineFold {
  return {
    seq: 0,
    at: null,
    closedAt: null,
    rows: [],
    chunks: new Map(),
    steps: new Map(),
    waits: new Map(),
    children: new Map(),
    items: new Map(),
  };
}

const ran = new Set([
  "chunk.completed",
  "chunk.failed",
  "chunk.interrupted",
  "chunk.parked",
  "chunk.retried",
  "chunk.skipped",
  "interrupt.raised",
  "cleanup.completed",
  "cleanup.failed",
]);
const begins = new Set(["sleep.started", "step.completed", "step.failed", "child.started", "items.started"]);

/** The fold after one more event; it is changed. */
export function timeOn(fold: TimelineFold, event: TimedEvent): void {
  const { type, at } = event;
  const dispatch = event.dispatch ?? null;
  const of = dispatch === null ? undefined : fold.chunks.get(dispatch);
  if (of && ran.has(type)) run(of, event);
  if (of && begins.has(type)) of.begunAt ??= at;
  // The attempt that an event begins comes before those that it plans.
  if (dispatch !== null) begin(fold, event, dispatch);
  if (type === "execution.closed") fold.closedAt ??= at;
  if (type === "child.closed") {
    const child = fold.children.get(event.child ?? "");
    if (child && child.endedAt === null)
      Object.assign(child, { endedAt: at, outcome: event.outcome ?? null, error: event.error ?? null });
  }
  for (const { id, chunk } of plannedBy(event)) {
    const row = rowOf(event, "chunk", id, { place: id, chunk, name: chunk });
    fold.rows.push(row);
    fold.chunks.set(id, row);
  }
}

function begin(fold: TimelineFold, event: TimedEvent, dispatch: number): void {
  const { type, at, interrupt, child, name } = event;
  const add = (kind: Row["kind"], more: Partial<Row> = {}): Row => {
    const row = rowOf(event, kind, dispatch, more);
    fold.rows.push(row);
    return row;
  };
  switch (type) {
    case "step.completed":
    case "step.failed": {
      const key = `${dispatch} ${event.ordinal}`;
      const step = fold.steps.get(key) ?? add("step");
      fold.steps.set(key, step);
      if (type === "step.completed" || !event.retries) step.endedAt = at;
      step.last = type;
      step.attempts.push(attemptOf(event, null, null));
      return;
    }
    case "sleep.started":
      add("sleep", { until: event.until ?? null });
      return;
    case "interrupt.raised": {
      const before = fold.waits.get(interrupt ?? "");
      if (before) before.next = event.seq;
      fold.waits.set(interrupt ?? "", add("wait", { name: interrupt ?? "" }));
      return;
    }
    case "child.started":
      fold.children.set(child ?? "", add("child", { name: child ?? "", chunk: name ?? "" }));
      return;
    case "items.started":
      fold.items.set(dispatch, add("items", { size: event.size ?? 0 }));
      return;
    case "value.routed": {
      const items = fold.items.get(dispatch);
      if (items) items.endedAt ??= at;
      return;
    }
  }
}

function run(row: Row, event: TimedEvent): void {
  const { type, at } = event;
  row.queuedAt = earlier(row.queuedAt, event.queuedAt);
  row.startedAt = earlier(row.startedAt, event.startedAt);
  if (
    ["chunk.completed", "chunk.skipped", "interrupt.raised", "cleanup.completed", "cleanup.failed"].includes(type) ||
    (type === "chunk.failed" && !event.retries)
  )
    row.endedAt = at;
  // A parked dispatch can fail without another attempt.
  const isAttempt =
    type !== "chunk.retried" && type !== "chunk.skipped" && !(type === "chunk.failed" && row.last === "chunk.parked");
  if (isAttempt) row.attempts.push(attemptOf(event, event.queuedAt ?? null, event.startedAt ?? null));
  row.last = type;
}

function attemptOf({ type, at, attempt, error }: TimedEvent, queuedAt: string | null, startedAt: string | null) {
  const status = type === "interrupt.raised" ? "paused" : suffix(type);
  return { attempt: attempt ?? null, status, queuedAt, startedAt, endedAt: at, error: error ?? null };
}

function rowOf(event: TimedEvent, kind: Row["kind"], dispatch: number, more: Partial<Row>): Row {
  return {
    seq: event.seq,
    place: 0,
    kind,
    dispatch,
    at: event.at,
    name: event.name ?? "",
    chunk: event.chunk ?? "",
    queuedAt: null,
    startedAt: null,
    begunAt: null,
    endedAt: null,
    last: null,
    attempts: [],
    until: null,
    error: null,
    outcome: null,
    size: 0,
    next: null,
    ...more,
  };
}

/** Runs of chunks that an event plans, by their number. */
function plannedBy({ moves, runs }: TimedEvent): { id: number; chunk: string }[] {
  const planned = (runs ?? []).map(({ id, chunk }) => ({ id, chunk: chunk ?? "onCancel" }));
  for (const move of moves ?? []) {
    const { id, chunk, size, entries } = move;
    if (typeof id !== "number") continue;
    if (move["move"] === "run" && typeof chunk === "string") planned.push({ id, chunk });
    if (move["move"] !== "open" || typeof size !== "number" || !Array.isArray(entries)) continue;
    const chunks = entries.map((entry) =>
      typeof entry === "object" && entry && "chunk" in entry ? entry["chunk"] : null,
    );
    for (let item = 0; item < size; item++)
      for (const [place, of] of chunks.entries())
        if (typeof of === "string") planned.push({ id: id + 1 + item * chunks.length + place, chunk: of });
  }
  return planned.toSorted((a, b) => a.id - b.id);
}

/** Of a page: which questions it has, so that the database says what became of them. */
export interface AskedRow {
  readonly interrupt: string;
  /** Up to which event it is that question. */
  readonly until: number;
}

/** The rows after a cursor. @param cursor null begins at the first */
export function rowsAfter(fold: TimelineFold, cursor: { seq: number; place: number } | null, limit: number): Row[] {
  let [low, high] = [0, fold.rows.length];
  while (cursor !== null && low < high) {
    const middle = (low + high) >> 1;
    const row = fold.rows[middle];
    const isAfter = row && (row.seq > cursor.seq || (row.seq === cursor.seq && row.place > cursor.place));
    if (isAfter) high = middle;
    else low = middle + 1;
  }
  return fold.rows.slice(low, low + limit);
}

/** @param at the last event that counts */
export function askedIn(rows: readonly Row[], at = 2_147_483_647): AskedRow[] {
  return rows.flatMap(({ kind, name, next }) =>
    kind === "wait" ? [{ interrupt: name, until: next === null ? at : Math.min(at, next - 1) }] : [],
  );
}

/**
 * As `flowledger.timeline` gives them.
 *
 * @param waits what the database says of each question of these rows, in their order
 * @param now ISO 8601, of the database
 */
export function entriesOf(
  { closedAt }: TimelineFold,
  rows: readonly Row[],
  waits: readonly JsonObject[],
  now: string,
): JsonObject[] {
  const left = [...waits];
  return rows.map((row) => {
    const { seq, place, kind, dispatch, at, chunk, name } = row;
    const open = closedAt === null ? "open" : "dropped";
    const base = { cursor: `${seq}.${place}`, kind, dispatch };
    const span = { queuedAt: at, startedAt: at, endedAt: row.endedAt ?? closedAt };
    switch (kind) {
      case "chunk":
        return {
          ...base,
          chunk,
          status: chunkStatus(row, closedAt),
          queuedAt: earlier(at, row.queuedAt),
          startedAt: earlier(row.startedAt, row.begunAt),
          endedAt: row.endedAt ?? closedAt,
          attempts: row.attempts,
        };
      case "step":
        return {
          ...base,
          step: name,
          chunk,
          status: row.endedAt === null ? open : suffix(row.last ?? ""),
          queuedAt: null,
          startedAt: null,
          endedAt: row.endedAt ?? closedAt,
          attempts: row.attempts,
        };
      case "sleep": {
        const until = row.until ?? at;
        const ended = earlier(until, closedAt) ?? until;
        const status = until <= (closedAt ?? now) ? "completed" : open;
        return { ...base, chunk, until, ...span, status, endedAt: ended <= now ? ended : null };
      }
      case "wait":
        return { ...base, interruptId: name, chunk, ...left.shift() };
      case "child":
        return { ...base, executionId: name, flow: chunk, ...span, status: row.outcome ?? open, error: row.error };
      case "items":
        return { ...base, size: row.size, ...span, status: row.endedAt === null ? open : "completed" };
    }
  });
}

function chunkStatus({ endedAt, last }: Row, closedAt: string | null): string {
  if (endedAt !== null) return last === "interrupt.raised" ? "paused" : suffix(last ?? "");
  if (closedAt !== null) return "dropped";
  return last === "chunk.parked" ? "parked" : "open";
}

function suffix(type: string): string {
  return type.split(".")[1] ?? type;
}

/** Of two moments in the same form. */
function earlier(a: string | null, b: string | null | undefined): string | null {
  if (a === null || b === null || b === undefined) return a ?? b ?? null;
  return a < b ? a : b;
}
