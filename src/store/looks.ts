/** A bounded look at one execution, for pages that ask again and again: what it costs does not grow with the ledger. */
import type { Json, JsonObject } from "../base/json.ts";
import { foldFrom, parseEvents } from "../ledger/codec.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { evolve } from "../ledger/evolve.ts";
import { snapshotVersion } from "../ledger/state.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Database } from "./client.ts";

/** An event as it is stored: also one that this version cannot read. */
export interface SeenEvent {
  readonly seq: number;
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly type: string;
  readonly chunk: string | null;
  readonly actor: string | null;
  /** Null where there is none, and where it is too long to be shown. */
  readonly payload: JsonObject | null;
}

export interface Folded {
  readonly seq: number;
  readonly state: ExecutionState;
}

export interface Looks {
  /** The last events, in order, each from the index of its ledger. */
  lastEvents(id: ExecutionId, until: number, count: number): Promise<SeenEvent[]>;
  /** Folds on from what was folded before, or from the kept snapshot, by one page of events at most. Null when it does not exist. */
  foldOn(id: ExecutionId, before: Folded | null): Promise<Folded | null>;
}

/** Longer payloads are not shown. */
const shownBytes = 4000;
/** One page of the fold: so many events, or so many bytes, but one event at least. */
const page = { events: 2000, bytes: 4_194_304 };

export function looksOf({ sql }: Pick<Database, "sql">): Looks {
  return {
    lastEvents: (id, until, count) => sql<SeenEvent[]>`
      select l.seq, flowledger.to_ms(l.at) as at, l.type, l.chunk, l.actor, case when pg_column_size(l.payload) <= ${shownBytes}::int then l.payload end as payload
      from flowledger.ledger l
      where l.execution_id = ${id}::uuid and l.seq > ${until - count}::int
      order by l.seq limit ${count}::int`,
    async foldOn(id, before) {
      const [row] = await sql<{ after: number; snapshot: JsonObject | null; events: Json }[]>`
        select k.seq as after, k.state as snapshot, flowledger.events(${id}::uuid, k.seq, flowledger.page_end(${id}::uuid, k.seq, ${page.events}::int, ${page.bytes}::int)) as events
        from (
          select ${before?.seq ?? null}::int as seq, null::jsonb as state where ${before?.seq ?? null}::int is not null
          union all
          select coalesce(s.seq, 0), s.state from flowledger.executions e
          left join flowledger.snapshots s on s.execution_id = e.id and s.version = ${snapshotVersion}::int
          where e.id = ${id}::uuid and ${before?.seq ?? null}::int is null
        ) k`;
      if (!row) return null;
      const events = parseEvents(row.events);
      const seq = events.at(-1)?.seq ?? row.after;
      if (!before) return { seq, state: foldFrom(row.snapshot, events) };
      let { state } = before;
      for (const event of events) state = evolve(state, event);
      return { seq, state };
    },
  };
}
