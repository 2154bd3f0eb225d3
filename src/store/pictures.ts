/** What a graph is drawn from: definitions, and where the events of a ledger went, by pages. */
import { z } from "zod";
import type { Json } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { RoutedEvent } from "../ledger/picture.ts";
import type { Database } from "./client.ts";
import { lookedUp } from "./bounded.ts";
import { pieceOf } from "./pieces.ts";

/** A piece of a ledger. */
export interface RoutedPage {
  readonly events: readonly RoutedEvent[];
  /** The last event that was looked at; null where there is no more. */
  readonly seq: number | null;
  /** Milliseconds since 1970, by the database. */
  readonly now: number;
}

export interface Pictures {
  /** The events after one, up to another: one page at most. */
  routed(id: ExecutionId, after: number, until: number): Promise<RoutedPage>;
  /** A definition that ran here; without a fingerprint the one that came last. Null where there is none. */
  definition(flow: string, fingerprint: string | null): Promise<{ fingerprint: string; blueprint: Json } | null>;
}

const Row = z.object({ events: z.array(RoutedEvent), seq: z.int().nullable(), now: z.number() });

export function picturesOf({ sql }: Pick<Database, "sql">): Pictures {
  return {
    async routed(id, after, until) {
      const [row] = await lookedUp(
        sql`
          with page as (${pieceOf(sql, id, after, until)})
          select max(page.seq) as seq, flowledger.to_ms(flowledger.now()) as now, coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
            'type', page.type, 'at', flowledger.to_ms(page.at), 'dispatch', coalesce(page.dispatch, (page.p ->> 'dispatch')::int),
            'interrupt', case when page.type like 'interrupt.%' then page.p ->> 'id' when page.type = 'chunk.skipped' then page.p ->> 'interrupt' end,
            'retries', case when page.type = 'chunk.failed' then page.p ? 'retryInMs' end,
            'repeats', case when page.type = 'interrupt.raised' then page.p -> 'resumeTo' = '"self"' end,
            'until', case when page.type = 'sleep.started' then coalesce((page.p ->> 'until')::float8, flowledger.to_ms(page.at) + (page.p ->> 'forMs')::float8) end,
            'items', case page.type when 'items.started' then (page.p ->> 'size')::int when 'items.closed' then jsonb_array_length(page.p -> 'results') end,
            'nodes', case when page.type = 'execution.claimed' then page.p -> 'nodes' end,
            'moves', page.p -> 'moves')) order by page.seq) filter (where page.p ? 'moves' or page.type in ('chunk.completed', 'chunk.failed',
              'chunk.parked', 'chunk.retried', 'chunk.skipped', 'chunk.interrupted', 'value.routed', 'inbox.routed', 'step.completed', 'step.failed',
              'sleep.started', 'child.started', 'child.closed', 'items.started', 'items.closed', 'interrupt.raised', 'interrupt.resumed',
              'interrupt.expired', 'interrupt.cancelled', 'execution.claimed', 'cleanup.planned', 'execution.closed')), '[]') as events
          from page`,
        "id",
      );
      return Row.parse(row);
    },
    async definition(flow, fingerprint) {
      const [row] = await lookedUp(
        sql<{ fingerprint: string; blueprint: Json }[]>`
          select d.fingerprint, d.blueprint from flowledger.definitions d
          where d.flow = ${flow} ${fingerprint === null ? sql`` : sql`and d.fingerprint = ${fingerprint}`}
          order by d.created_at desc, d.fingerprint limit 1`,
        "flow",
      );
      return row ?? null;
    },
  };
}
