/** The bulks of a database, for lists: what each is about, and how far it is. */
import { z } from "zod";
import type { Json, JsonObject } from "../base/json.ts";
import { ExecutionId } from "../ledger/event.ts";
import { lookedUp } from "./bounded.ts";
import { BulkReport } from "./bulks.ts";
import type { Database } from "./client.ts";

export const Operation = z.object({
  id: ExecutionId,
  action: z.string(),
  /** Which executions were asked for. */
  filter: z.record(z.string(), z.custom<Json>()),
  actor: z.string(),
  reason: z.string(),
  at: z.date(),
  /** Of the execution that does it; null where that was pruned. */
  status: z.enum(["created", "running", "waiting", "parked", "completed", "failed", "cancelled"]).nullable(),
  closedAt: z.date().nullable(),
  report: BulkReport,
});
export type Operation = z.infer<typeof Operation>;

export interface OperationsAsked {
  /** Only those whose filter has this metadata, so that they were about nothing else; null is all. */
  readonly within: JsonObject | null;
  /** Only those before this one. */
  readonly before?: ExecutionId;
  readonly id?: ExecutionId;
  readonly limit: number;
}

export interface Operations {
  /** The newest first. */
  list(asked: OperationsAsked): Promise<Operation[]>;
}

export function operationsOf({ sql }: Pick<Database, "sql">): Operations {
  return {
    async list({ within, before, id, limit }) {
      const rows = await lookedUp(
        sql`
          select b.execution_id as id, b.action, b.filter, b.actor, b.reason, b.at, e.status, e.closed_at as "closedAt",
            -- What is through keeps its counts; of others they are counted.
            case when e.close_snapshot ? 'failed' then e.close_snapshot - '$final_result' else flowledger.bulk_report(b.execution_id) end as report
          from (
            select x.* from flowledger.bulks x
            where true ${before === undefined ? sql`` : sql`and x.execution_id < ${before}::uuid`}
              ${id === undefined ? sql`` : sql`and x.execution_id = ${id}::uuid`}
              ${within === null ? sql`` : sql`and x.filter -> 'metadata' @> ${JSON.stringify(within)}::text::jsonb`}
            order by x.execution_id desc limit ${limit}::int) b
          left join flowledger.executions e on e.id = b.execution_id
          order by b.execution_id desc`,
        "operations",
      );
      return rows.map((row) => Operation.parse(row));
    },
  };
}
