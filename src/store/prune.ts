/** Retention: closed executions go, whole, page by page. */
import type { JsonObject } from "../base/json.ts";
import type { Sql } from "./client.ts";
import { list } from "./columns.ts";

/** Which executions go, who asked for it, and why. */
export interface NamedPrune {
  readonly ids: readonly string[];
  readonly actor: string;
  readonly reason: string;
}

/** What went. */
export interface Pruned {
  readonly executions: number;
  readonly events: number;
  readonly streamItems: number;
}

const pageSize = 500;

/** Those that somebody names, with their sub-flows: all of them or none. */
export async function pruneIds(sql: Sql, { ids, actor, reason }: NamedPrune): Promise<Pruned> {
  const [row] = await sql<[{ executions: number; events: number; items: number }]>`
    select * from flowledger.prune(${list(ids)}::text::uuid[], ${actor}, ${reason})`;
  return { executions: row.executions, events: row.events, streamItems: row.items };
}

/** One statement a page, so that nothing is locked for long and an interrupted run has done what it said. */
export async function prune(
  sql: Sql,
  closedBefore: Date,
  keep: JsonObject,
  onProgress: (pruned: Pruned) => void = () => {},
): Promise<Pruned> {
  let pruned: Pruned = { executions: 0, events: 0, streamItems: 0 };
  for (let after = "00000000-0000-0000-0000-000000000000"; ;) {
    const [page] = await sql<[{ last: string | null; executions: number; events: number; items: number }]>`
      select * from flowledger.prune(${closedBefore.toISOString()}::text::timestamptz, ${JSON.stringify(keep)}::text::jsonb, ${after}::uuid, ${pageSize}::int)`;
    if (page.last === null) return pruned;
    after = page.last;
    pruned = {
      executions: pruned.executions + page.executions,
      events: pruned.events + page.events,
      streamItems: pruned.streamItems + page.items,
    };
    onProgress(pruned);
  }
}
