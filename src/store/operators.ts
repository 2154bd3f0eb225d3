/** What operators ask: what waits for them. What they do goes with the other commands. */
import type { ParkedChunk } from "../base/errors.ts";
import type { JsonObject } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Database } from "./client.ts";
import { refusalOf } from "./refusals.ts";

export interface Operators {
  /** What waits for an operator in an execution, and in those below it. */
  parked(id: ExecutionId): Promise<ParkedChunk[]>;
  /** A new execution that goes on where a closed one failed. @throws {UsageError | ExecutionNotFoundError | ContractError} */
  redrive(id: ExecutionId, options: JsonObject): Promise<ExecutionId>;
  /** What it was redriven as, the oldest first. */
  redrivenBy(id: ExecutionId): Promise<ExecutionId[]>;
}

export function operatorsOf({ sql, target }: Pick<Database, "sql" | "target">): Operators {
  return {
    parked: (id) => sql<ParkedChunk[]>`
      select o.chunk, o.index, b.id as "executionId"
      from flowledger.parked_below(${id}::uuid) b(id) cross join lateral flowledger.open_dispatches(b.id) o
      where o.stands = 'parked' order by b.id, o.dispatch`,
    async redrive(id, options) {
      const [row] = await sql<[{ id: ExecutionId }]>`
        select flowledger.redrive(${id}::uuid, ${JSON.stringify(options)}::text::jsonb) as id`.catch(
        (error: unknown) => {
          throw refusalOf(error, target, { id, what: "redrive()" });
        },
      );
      return row.id;
    },
    async redrivenBy(id) {
      const rows = await sql<{ id: ExecutionId }[]>`select r.id from flowledger.redriven_by(${id}::uuid) r(id)`;
      return rows.map((row) => row.id);
    },
  };
}
