/** Everything that is derived, compared with the ledger or derived again from it alone: page by page, beside live workers. */
import { isDeepStrictEqual } from "node:util";
import type { JsonObject } from "../base/json.ts";
import { foldFrom, parseEvents } from "../ledger/codec.ts";
import { ExecutionId } from "../ledger/event.ts";
import type { Recorded } from "../ledger/event.ts";
import { freezeState, snapshotVersion } from "../ledger/state.ts";
import { closeSnapshot } from "../ledger/views.ts";
import type { Sql } from "./client.ts";
import { list } from "./columns.ts";

/** One row that was not what the ledger says. */
export interface Difference {
  readonly executionId: string;
  readonly table: "executions" | "interrupts" | "assignments" | "interventions" | "snapshots" | "ledger";
  /** Of a table with several rows per execution: which one. */
  readonly row: string | null;
  /** Null where there was none; otherwise only the columns that differ. */
  readonly found: JsonObject | null;
  /** Null where none belongs. For the ledger, why it cannot be folded. */
  readonly expected: JsonObject | null;
}

/** How far `verify()` or `rebuild()` is. */
export interface Progress {
  readonly executions: number;
  readonly events: number;
  /** What was found so far. */
  readonly problems: number;
}

/** Of `rebuild()`. */
export interface RebuildOptions {
  /** Only this execution. @default all */
  id?: string;
  /** Called after each page. */
  onProgress?: (progress: Progress) => void;
}

/** Puts right what differs and says what that was. The ledger itself is never written, and a row that is right neither. */
export async function rebuild(sql: Sql, options: RebuildOptions = {}): Promise<Difference[]> {
  const differences: Difference[] = [];
  let [executions, events] = [0, 0];
  for await (const page of readPages(sql, options.id)) {
    if ((await findDifferences(sql, page)).length > 0) differences.push(...(await findDifferences(sql, page, true)));
    differences.push(...unfoldable(page));
    executions += page.histories.length;
    events += countEvents(page);
    options.onProgress?.({ executions, events, problems: differences.length });
  }
  return differences;
}

/** Ledgers that stand side by side, by the execution's id. */
export interface Page {
  /** Ids after this one, up to `until`, belong to the page: with or without a ledger. */
  readonly after: string;
  readonly until: string;
  readonly histories: readonly History[];
}

interface History {
  readonly id: string;
  readonly events: number;
  readonly snapshot: JsonObject | null;
  /** The kept snapshot, where there is one: what it should be; null where it goes beyond the ledger. */
  readonly kept: { readonly seq: number; readonly state: JsonObject | null } | null;
  /** Why the ledger cannot be folded. */
  readonly problem: string | null;
}

const pageSize = 100;
/** A page of long ledgers has fewer of them. */
const pageEvents = 20_000;
const lastId = "ffffffff-ffff-ffff-ffff-ffffffffffff";

/** All ledgers, a page at a time, in the order of their ids. */
export async function* readPages(sql: Sql, only?: string): AsyncGenerator<Page, void, undefined> {
  if (only !== undefined) {
    const id = ExecutionId.parse(only);
    return yield { after: idBefore(id), until: id, histories: await readHistories(sql, [id]) };
  }
  for (let after = "00000000-0000-0000-0000-000000000000"; after !== lastId;) {
    // The header may be gone, or the first event: either one finds the execution.
    const rows: { id: string }[] = await sql<{ id: string }[]>`
      select p.id from (
        select i.id, sum(coalesce(e.seq, 1)) over (order by i.id) - coalesce(e.seq, 1) as events_before
        from (
          (select h.id from flowledger.executions h where h.id > ${after}::uuid order by h.id limit ${pageSize}::int)
          union
          (select l.execution_id from flowledger.ledger l where l.execution_id > ${after}::uuid and l.seq = 1 order by l.execution_id limit ${pageSize}::int)
          order by id limit ${pageSize}::int
        ) i left join flowledger.executions e on e.id = i.id
      ) p where p.events_before < ${pageEvents}::int order by p.id`;
    const histories = await readHistories(
      sql,
      rows.map(({ id }) => id),
    );
    const until: string = rows.at(-1)?.id ?? lastId;
    yield { after, until, histories };
    after = until;
  }
}

async function readHistories(sql: Sql, ids: readonly string[]): Promise<History[]> {
  const rows = await sql<{ id: string; events: unknown; kept: number | null; keptState: JsonObject | null }[]>`
    select i.id, flowledger.events(i.id, 0) as events, s.seq as kept, s.state as "keptState"
    from unnest(${list(ids)}::text::uuid[]) i(id)
    left join flowledger.snapshots s on s.execution_id = i.id and s.version = ${snapshotVersion}::int`;
  return rows
    .map(({ id, events, kept, keptState }) => fold(id, events, kept, keptState))
    .filter(({ events, problem }) => events > 0 || problem !== null);
}

function fold(id: string, raw: unknown, kept: number | null, keptState: JsonObject | null): History {
  let events: readonly Recorded[] = [];
  try {
    events = parseEvents(raw);
    const gap = events.findIndex(({ seq }, index) => seq !== index + 1);
    if (gap >= 0) throw new Error(`there is no event ${gap + 1}`);
    const state = foldFrom(null, events);
    const snapshot = state.closed ? closeSnapshot(state) : null;
    if (kept === null) return { id, events: events.length, snapshot, kept: null, problem: null };
    const then =
      kept > events.length ? null : (JSON.parse(freezeState(foldFrom(null, events.slice(0, kept)))) as JsonObject);
    // Most are equal, and an equal state need not be returned.
    const isRight = then !== null && isDeepStrictEqual(then, keptState);
    return { id, events: events.length, snapshot, kept: isRight ? null : { seq: kept, state: then }, problem: null };
  } catch (error) {
    return { id, events: events.length, snapshot: null, kept: null, problem: String(error) };
  }
}

/** What is derived and is not what the page's ledgers say; put right on the way, if asked. */
export async function findDifferences(sql: Sql, { histories }: Page, isRepair = false): Promise<Difference[]> {
  const foldable = histories.filter(({ problem }) => problem === null);
  const snapshots = foldable.flatMap(({ id, snapshot }) => (snapshot ? [[id, snapshot] as const] : []));
  const kept = foldable.flatMap((history) => (history.kept ? [{ id: history.id, ...history.kept }] : []));
  const rows = await sql<
    {
      id: string;
      name: Difference["table"];
      part: string | null;
      actual: JsonObject | null;
      expected: JsonObject | null;
    }[]
  >`
    select d.* from ${isRepair ? sql`flowledger.rebuild` : sql`flowledger.differences`}(
      ${list(foldable.map(({ id }) => id))}::text::uuid[], ${JSON.stringify(Object.fromEntries(snapshots))}::text::jsonb,
      ${JSON.stringify(kept)}::text::jsonb) d
    order by d.id, d.name, d.part`;
  return rows.map(({ id, name, part, actual, expected }) => {
    const columns = Object.keys({ ...actual, ...expected }).filter(
      (column) => !actual || !expected || !isDeepStrictEqual(actual[column], expected[column]),
    );
    const only = (row: JsonObject | null) =>
      row && Object.fromEntries(columns.map((column) => [column, row[column] ?? null]));
    return { executionId: id, table: name, row: part, found: only(actual), expected: only(expected) };
  });
}

/** Ledgers from which nothing can be derived. */
export function unfoldable({ histories }: Page): Difference[] {
  return histories.flatMap(({ id, problem }): Difference[] =>
    problem === null ? [] : [{ executionId: id, table: "ledger", row: null, found: null, expected: { problem } }],
  );
}

export function countEvents({ histories }: Page): number {
  return histories.reduce((sum, { events }) => sum + events, 0);
}

function idBefore(id: ExecutionId): string {
  return (BigInt(`0x${id.replaceAll("-", "")}`) - 1n).toString(16).padStart(32, "0");
}
