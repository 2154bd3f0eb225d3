/** What a timeline is folded from: a ledger by pages, and what became of questions. */
import { z } from "zod";
import type { JsonObject } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";
import { TimedEvent, type AskedRow } from "../ledger/timeline-fold.ts";
import type { Database } from "./client.ts";
import { list } from "./columns.ts";
import { lookedUp } from "./bounded.ts";
import { pieceOf } from "./pieces.ts";

export interface TimedPage {
  readonly events: readonly TimedEvent[];
  /** The last event that was looked at; null where there is no more. */
  readonly seq: number | null;
  /** When that happened, ISO 8601. */
  readonly at: string | null;
  /** ISO 8601, by the database. */
  readonly now: string;
}

export interface Timed {
  /** The events after one, up to another: one page at most. */
  page(id: ExecutionId, after: number, until: number): Promise<TimedPage>;
  /** What became of questions, in the same order. */
  waits(id: ExecutionId, asked: readonly AskedRow[]): Promise<JsonObject[]>;
}

const Row = z.object({
  events: z.array(TimedEvent),
  seq: z.int().nullable(),
  at: z.string().nullable(),
  now: z.string(),
});

export function timedOf({ sql }: Pick<Database, "sql">): Timed {
  return {
    async page(id, after, until) {
      const [row] = await lookedUp(
        sql`
        with page as (${pieceOf(sql, id, after, until)})
        select max(page.seq) as seq, flowledger.iso(max(page.at)) as at, flowledger.iso(flowledger.now()) as now, coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
          'seq', page.seq, 'at', flowledger.iso(page.at), 'type', page.type, 'dispatch', page.dispatch, 'chunk', page.chunk)
          || case when page.type like 'chunk.%' or page.type like 'cleanup.%' or page.type = 'interrupt.raised' then jsonb_build_object(
            'attempt', page.p -> 'attempt', 'queuedAt', flowledger.iso(flowledger.from_ms((page.p ->> 'queuedAt')::float8)),
            'startedAt', flowledger.iso(flowledger.from_ms((page.p ->> 'startedAt')::float8)), 'retries', page.p ? 'retryInMs',
            'runs', page.p -> 'runs',
            'interrupt', case when page.type = 'interrupt.raised' then page.p ->> 'id' end) else '{}' end
          || case when page.type like 'step.%' then jsonb_build_object('attempt', page.p -> 'attempt', 'retries', page.p ? 'retryInMs',
            'ordinal', page.p -> 'ordinal', 'name', page.p -> 'name') else '{}' end
          || case when page.type like 'child.%' then jsonb_build_object('child', page.p -> 'child', 'name', page.p -> 'flow', 'outcome', page.p -> 'outcome') else '{}' end
          || case page.type when 'sleep.started' then jsonb_build_object('until', flowledger.iso(coalesce(flowledger.from_ms((page.p ->> 'until')::float8),
            page.at + flowledger.ms((page.p ->> 'forMs')::float8)))) when 'items.started' then jsonb_build_object('size', page.p -> 'size') else '{}' end)
          || case when page.p ? 'error' then jsonb_build_object('error', flowledger.error_of(page.p -> 'error')) else '{}' end
          || case when page.p ? 'moves' then jsonb_build_object('moves', page.p -> 'moves') else '{}' end order by page.seq)
          filter (where page.p ? 'moves' or page.type in ('chunk.completed', 'chunk.failed', 'chunk.interrupted', 'chunk.parked', 'chunk.retried',
            'chunk.skipped', 'value.routed', 'cleanup.planned', 'cleanup.completed', 'cleanup.failed', 'step.completed', 'step.failed', 'sleep.started',
            'interrupt.raised', 'child.started', 'child.closed', 'items.started', 'execution.closed')), '[]') as events
        from page`,
        "id",
      );
      return Row.parse(row);
    },
    async waits(id, asked) {
      if (asked.length === 0) return [];
      const [row] = await lookedUp(
        sql<[{ waits: JsonObject[] }]>`
        select coalesce((
          select jsonb_agg(jsonb_build_object('type', i.type, 'status', i.status, 'queuedAt', flowledger.iso(i.created_at),
            'startedAt', flowledger.iso(i.created_at), 'until', flowledger.iso(i.expires_at), 'endedAt', flowledger.iso(i.resolved_at), 'actor', i.actor)
            || jsonb_strip_nulls(jsonb_build_object('title', i.title, 'assignees', i.assignees, 'dueAt', flowledger.iso(i.due_at), 'claimedBy', i.claimed_by))
            order by a.ord)
          from unnest(${list(asked.map(({ interrupt }) => interrupt))}::text::text[], ${list(asked.map(({ until }) => until))}::text::int[])
            with ordinality a(interrupt, until, ord)
          cross join lateral flowledger.interrupt_of(${id}::uuid, a.interrupt, a.until) i), '[]') as waits`,
        "id",
      );
      return row.waits;
    },
  };
}
