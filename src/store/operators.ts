/** What operators ask: what waits for them. What they do goes with the other commands. */
import type { ParkedChunk } from "../base/errors.ts";
import type { JsonObject } from "../base/json.ts";
import type { ExecutionId } from "../ledger/event.ts";
import type { Database } from "./client.ts";
import { list } from "./columns.ts";
import { refusalOf } from "./refusals.ts";

export interface Operators {
  /** What waits for an operator in an execution, and in those below it. */
  parked(id: ExecutionId): Promise<ParkedChunk[]>;
  /** A new execution that goes on where a closed one failed. @throws {UsageError | ExecutionNotFoundError | ContractError} */
  redrive(id: ExecutionId, options: JsonObject): Promise<ExecutionId>;
  /** What it was redriven as, the oldest first. */
  redrivenBy(id: ExecutionId): Promise<ExecutionId[]>;
  /** False where it was paused that way already. @throws {UsageError} */
  pauseFlow(flow: string, options: JsonObject): Promise<boolean>;
  /** False where it was not paused. @throws {UsageError} */
  unpauseFlow(flow: string, options: JsonObject): Promise<boolean>;
  /** Which of these flows are paused. */
  pausedFlows(flows: readonly string[]): Promise<string[]>;
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
    async pauseFlow(flow, options) {
      const [row] = await sql<[{ done: boolean }]>`
        select flowledger.pause_flow(${flow}, ${JSON.stringify(options)}::text::jsonb) as done`;
      return row.done;
    },
    async unpauseFlow(flow, options) {
      const [row] = await sql<[{ done: boolean }]>`
        select flowledger.unpause_flow(${flow}, ${JSON.stringify(options)}::text::jsonb) as done`;
      return row.done;
    },
    async pausedFlows(flows) {
      const [row] = await sql<[{ paused: string[] }]>`
        select to_json(flowledger.paused_flows(${list(flows)}::text::text[])) as paused`;
      return row.paused;
    },
  };
}
