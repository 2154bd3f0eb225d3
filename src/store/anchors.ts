/** Anchors: what all chains said at a moment, as one hash that is worth keeping outside of the database. */
import type { Sql } from "./client.ts";

/** What all hash chains of a database said at a moment. */
export interface Anchor {
  readonly number: number;
  /** Milliseconds since 1970, by the database's own clock. */
  readonly at: number;
  /** Executions whose chain had grown since the anchor before. */
  readonly executions: number;
  /** SHA-256 in hex, over those chains and the anchor before. */
  readonly hash: string;
}

/** What an anchor that was kept says. */
export type KeptAnchor = Pick<Anchor, "number" | "hash">;

export async function anchor(sql: Sql): Promise<Anchor> {
  const [row] = await sql<[Anchor]>`
    select number, flowledger.to_ms(at) as at, executions, hash from flowledger.anchor()`;
  return row;
}

/** @param id only what is anchored of it; null is everything, with the anchors themselves */
export function brokenAnchors(sql: Sql, id: string | null, kept: readonly KeptAnchor[]) {
  return sql<{ id: string | null; problem: string }[]>`
    select id, problem from flowledger.broken_anchors(${id}::uuid, ${JSON.stringify(kept)}::text::jsonb)`;
}
