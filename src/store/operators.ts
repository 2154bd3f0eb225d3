/** What operators ask: what waits for them. What they do goes with the other commands. */
import type { ParkedChunk } from "../base/errors.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Database } from "./client.ts";

export interface Operators {
  /** What waits for an operator in an execution, and in those below it. */
  parked(id: ExecutionId): Promise<ParkedChunk[]>;
}

export function operatorsOf({ sql }: Pick<Database, "sql">): Operators {
  return {
    parked: (id) => sql<ParkedChunk[]>`
      select o.chunk, o.index, b.id as "executionId"
      from flowledger.parked_below(${id}::uuid) b(id) cross join lateral flowledger.open_dispatches(b.id) o
      where o.stands = 'parked' order by b.id, o.dispatch`,
  };
}
