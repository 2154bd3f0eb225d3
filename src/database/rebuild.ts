/** Everything that is derived, derived again from the ledger alone: page by page, beside live workers. */
import { isDeepStrictEqual } from "node:util";
import { ExecutionId } from "../ledger/event.ts";
import type { Recorded } from "../ledger/event.ts";
import { freezeState, snapshotVersion } from "../ledger/evolve.ts";
import type { Json, JsonObject } from "../ledger/payload.ts";
import { closeSnapshot } from "../ledger/views.ts";
import { parseEvents } from "./append.ts";
import type { Queries, Sql } from "./connection.ts";
import { foldFrom } from "./queries.ts";

/** One row that was not what the ledger says. */
export interface Difference {
  readonly executionId: string;
  readonly table: "executions" | "interrupts" | "interventions" | "snapshots" | "ledger";
  /** Of a table with several rows per execution: which one. */
  readonly row: string | null;
  /** Null where there was none; otherwise only the columns that differ. */
  readonly found: JsonObject | null;
  /** Null where none belongs. For the ledger, why it cannot be folded. */
  readonly expected: JsonObject | null;
}

export interface RebuildOptions {
  /** Only this execution. @default all */
  id?: string;
  /** Called after each page. */
  onProgress?: (progress: {
    readonly executions: number;
    readonly events: number;
    readonly differences: number;
  }) => void;
}

/** Few enough that a worker whose row is held for a page does not notice. */
const pageSize = 50;

/** Puts right what differs and says what that was. The ledger itself is never written. */
export async function rebuild(sql: Sql, options: RebuildOptions = {}): Promise<Difference[]> {
  const only = options.id === undefined ? null : ExecutionId.parse(options.id);
  const differences: Difference[] = [];
  let [executions, events] = [0, 0];
  for (let cursor: string | null = null; ;) {
    const page = await rebuildPage(sql, cursor, only);
    differences.push(...page.differences);
    executions += page.ids.length;
    events += page.events;
    options.onProgress?.({ executions, events, differences: differences.length });
    cursor = page.ids.at(-1) ?? null;
    if (cursor === null || only !== null || page.ids.length < pageSize) return differences;
  }
}

interface Page {
  readonly ids: readonly string[];
  readonly events: number;
  readonly differences: readonly Difference[];
}

async function rebuildPage(sql: Sql, cursor: string | null, only: ExecutionId | null): Promise<Page> {
  const tx = await sql.reserve();
  try {
    await tx`begin`;
    try {
      const ids = await lockPage(tx, cursor, only);
      const histories = await readHistories(tx, ids);
      const foldable = histories.filter((history) => history.problem === null);
      const before = await readRows(tx, ids);
      await tx`
        select flowledger.rebuild_execution(x.id, nullif(x.snapshot, 'null'))
        from unnest(${list(foldable.map(({ id }) => id))}::text::uuid[]) with ordinality as i(id, ord)
        join lateral (select i.id, ${JSON.stringify(foldable.map(({ snapshot }) => snapshot))}::text::jsonb -> (i.ord::int - 1) as snapshot) x on true`;
      await restoreSnapshots(tx, foldable);
      const differences = [
        ...histories.flatMap(({ id, problem }): Difference[] =>
          problem === null ? [] : [{ executionId: id, table: "ledger", row: null, found: null, expected: { problem } }],
        ),
        ...compare(before, await readRows(tx, ids)),
      ];
      const headers = differences.filter(({ table }) => table === "executions").map(({ executionId }) => executionId);
      // A header that was wrong may have been asleep for that: its next owner decides.
      await tx`
        update flowledger.executions e set wake_at = coalesce(e.wake_at, clock_timestamp())
        where e.id = any(${list(headers)}::text::uuid[]) and e.closed_at is null and e.started_at is not null and e.owner is null`;
      const isChanged = differences.some(({ table }) => table !== "ledger");
      if (isChanged) await tx`commit`;
      // Nothing to put right: leave no dead rows behind.
      else await tx`rollback`;
      return { ids, events: histories.reduce((sum, { events }) => sum + events.length, 0), differences };
    } catch (error) {
      await tx`rollback`.catch(() => {});
      throw error;
    }
  } finally {
    tx.release();
  }
}

/** The page's executions, by the ledger: their headers may be gone. Those that are there are locked, in id order. */
async function lockPage(tx: Queries, cursor: string | null, only: ExecutionId | null): Promise<string[]> {
  const rows = await tx<{ id: string }[]>`
    select l.execution_id as id from flowledger.ledger l
    where l.seq = 1 and (${cursor}::uuid is null or l.execution_id > ${cursor}::uuid) and (${only}::uuid is null or l.execution_id = ${only}::uuid)
    order by l.execution_id limit ${pageSize}::int`;
  const ids = rows.map(({ id }) => id);
  await tx`select 1 from flowledger.executions e where e.id = any(${list(ids)}::text::uuid[]) order by e.id for no key update`;
  return ids;
}

interface History {
  readonly id: string;
  readonly events: readonly Recorded[];
  readonly snapshot: JsonObject | null;
  /** Why the ledger cannot be folded. */
  readonly problem: string | null;
}

async function readHistories(tx: Queries, ids: readonly string[]): Promise<History[]> {
  const rows = await tx<{ id: string; events: unknown }[]>`
    select i.id, flowledger.events(i.id, 0) as events from unnest(${list(ids)}::text::uuid[]) i(id)`;
  return rows.map(({ id, events: raw }) => {
    try {
      const events = parseEvents(raw);
      const state = foldFrom(null, events);
      return { id, events, snapshot: state.closed ? closeSnapshot(state) : null, problem: null };
    } catch (error) {
      return { id, events: [], snapshot: null, problem: String(error) };
    }
  });
}

/** Kept snapshots are a cache: one that is there is made right, one that goes beyond the ledger goes. */
async function restoreSnapshots(tx: Queries, histories: readonly History[]): Promise<void> {
  const events = new Map(histories.map((history) => [history.id, history.events]));
  const kept = await tx<{ id: string; seq: number; state: JsonObject }[]>`
    select s.execution_id as id, s.seq, s.state from flowledger.snapshots s
    where s.execution_id = any(${list([...events.keys()])}::text::uuid[]) and s.version = ${snapshotVersion}::int`;
  for (const { id, seq, state } of kept) {
    const past = (events.get(id) ?? []).filter((event) => event.seq <= seq);
    if (past.length !== seq) {
      await tx`delete from flowledger.snapshots s where s.execution_id = ${id}::uuid`;
      continue;
    }
    const right = freezeState(foldFrom(null, past));
    if (!isDeepStrictEqual(right, state))
      await tx`update flowledger.snapshots s set state = ${JSON.stringify(right)}::text::jsonb where s.execution_id = ${id}::uuid`;
  }
}

interface DerivedRow {
  readonly id: string;
  readonly table: Difference["table"];
  readonly row: string | null;
  readonly value: JsonObject;
}

/** Without what belongs to the lease, which goes on changing. */
async function readRows(tx: Queries, ids: readonly string[]): Promise<Map<string, DerivedRow>> {
  const rows = await tx<DerivedRow[]>`
    with page as (select unnest(${list(ids)}::text::uuid[]) as id)
    select e.id, 'executions' as table, null as row,
      to_jsonb(e) - '{commit_no,commit_seq,takeovers,owner,token,wake_at}'::text[] as value
    from flowledger.executions e join page on page.id = e.id
    union all
    select i.execution_id, 'interrupts', i.id, to_jsonb(i) from flowledger.interrupts i join page on page.id = i.execution_id
    union all
    select i.execution_id, 'interventions', i.version::text, to_jsonb(i) from flowledger.interventions i join page on page.id = i.execution_id
    union all
    select s.execution_id, 'snapshots', null, to_jsonb(s) from flowledger.snapshots s join page on page.id = s.execution_id
    order by 1, 2, 3`;
  return new Map(rows.map((row) => [`${row.id} ${row.table} ${row.row ?? ""}`, row]));
}

function compare(before: ReadonlyMap<string, DerivedRow>, after: ReadonlyMap<string, DerivedRow>): Difference[] {
  const differences: Difference[] = [];
  for (const key of new Set([...before.keys(), ...after.keys()])) {
    const [was, is] = [before.get(key), after.get(key)];
    const here = was ?? is;
    if (!here || isDeepStrictEqual(was?.value, is?.value)) continue;
    const columns = Object.keys({ ...was?.value, ...is?.value }).filter(
      (column) => !was || !is || !isDeepStrictEqual(was.value[column], is.value[column]),
    );
    const only = (row: DerivedRow | undefined) => (row ? pick(row.value, columns) : null);
    differences.push({ executionId: here.id, table: here.table, row: here.row, found: only(was), expected: only(is) });
  }
  return differences;
}

function pick(value: JsonObject, columns: readonly string[]): JsonObject {
  return Object.fromEntries(columns.map((column): [string, Json] => [column, value[column] ?? null]));
}

function list(ids: readonly string[]): string {
  return `{${ids.join(",")}}`;
}
