/** Pieces of a ledger, for what is folded while somebody looks at it: no look at a long one reads all of it. */
import type { ExecutionId } from "../ledger/event.ts";
import type { Sql } from "./client.ts";

/** One piece: so many events, or so many bytes, but one event at least; the first is short, so that there is something to see. */
const piece = { firstEvents: 500, events: 2000, bytes: 8_388_608 };

/** The events after one, up to another, one piece at most: `seq`, `at`, `type`, `dispatch`, `chunk`, and the payload as `p`. */
export function pieceOf(sql: Sql, id: ExecutionId, after: number, until: number) {
  return sql`
    select r.* from (
      select l.seq, l.at, l.type, l.dispatch, l.chunk, l.payload as p,
        sum(coalesce(pg_column_size(l.payload), 0)) over (order by l.seq) - coalesce(pg_column_size(l.payload), 0) as bytes
      from (
        select x.seq, x.at, x.type, x.dispatch, x.chunk, x.payload from flowledger.ledger x
        where x.execution_id = ${id}::uuid and x.seq > ${after}::int and x.seq <= ${until}::int
        order by x.seq limit ${after === 0 ? piece.firstEvents : piece.events}::int) l) r
    where r.bytes < ${piece.bytes}::bigint`;
}
