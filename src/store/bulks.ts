/** What operators do to many executions at once: asked for, done in rounds, and told. */
import { z } from "zod";
import { FlowledgerError } from "../base/errors.ts";
import type { JsonObject } from "../base/json.ts";
import { ExecutionId } from "../ledger/event.ts";
import type { Database } from "./client.ts";
import { lockWithin } from "./batcher.ts";
import { refusalOf } from "./refusals.ts";

const Started = z.object({ id: ExecutionId, matched: z.int() });
const Preview = z.object({ matched: z.int(), isMore: z.boolean(), samples: z.array(ExecutionId) });

/** How far a bulk is. */
export const BulkReport = z.object({
  /** Its targets, fixed when it was asked for. */
  matched: z.int(),
  /** Targets that took the command. */
  done: z.int(),
  /** Those that had gone on meanwhile, or were that way already. */
  skipped: z.int(),
  /** Those that refused it: see `failures()`. */
  failed: z.int(),
});
export type BulkReport = z.infer<typeof BulkReport>;

/** A target that refused its command. */
export interface BulkFailure {
  readonly id: ExecutionId;
  readonly at: Date;
  /** As the error has it that the command alone would throw; "USAGE_INVALID" also where it refused a value. */
  readonly code: string;
  readonly message: string;
}

export interface Bulks {
  /** Fixes the targets, and starts the execution that does it. Sent again it changes nothing. @throws {UsageError} */
  start(options: JsonObject): Promise<z.infer<typeof Started>>;
  /** What it would do, counted up to its limit. @throws {UsageError} */
  preview(options: JsonObject): Promise<z.infer<typeof Preview>>;
  /** One round. In how many milliseconds the next may come; null when nothing is left. */
  run(bulk: ExecutionId, by: ExecutionId, max: number): Promise<number | null>;
  /** Null where there is no such bulk. */
  report(bulk: ExecutionId): Promise<BulkReport | null>;
  /** In the order of the targets. @param after the number of the last one before */
  failures(bulk: ExecutionId, after: number, limit: number): Promise<(BulkFailure & { readonly number: number })[]>;
}

interface FailureRow {
  number: number;
  id: ExecutionId;
  at_ms: number;
  code: string;
  message: string;
  hint: string;
}

export function bulksOf({ sql, target }: Pick<Database, "sql" | "target">): Bulks {
  const ask = async (options: JsonObject): Promise<unknown> => {
    const [row] = await sql<[{ answer: unknown }]>`
      select flowledger.bulk(case when set_config('lock_timeout', ${lockWithin}, true) <> '' then ${JSON.stringify(options)}::text::jsonb end) as answer`;
    return row.answer;
  };
  return {
    start: async (options) => Started.parse(await ask(options)),
    preview: async (options) => Preview.parse(await ask({ ...options, dryRun: true })),
    async run(bulk, by, max) {
      const [row] = await sql<[{ wait: number | null }]>`
        select flowledger.run_bulk(${bulk}::uuid, ${by}::uuid, ${max}::int) as wait`;
      return row.wait;
    },
    async report(bulk) {
      const [row] = await sql<[{ report: unknown }]>`select flowledger.bulk_report(${bulk}::uuid) as report`;
      return BulkReport.nullable().parse(row.report);
    },
    async failures(bulk, after, limit) {
      const rows = await sql<FailureRow[]>`
        select f.number, f.target_id as id, flowledger.to_ms(f.at) as at_ms, f.code, f.message, f.hint
        from flowledger.bulk_failures(${bulk}::uuid, ${after}::int, ${limit}::int) f order by f.number`;
      return rows.map(({ number, id, at_ms: at, ...raised }) => {
        const error = refusalOf(raised, target, { id });
        const { code, message } = error instanceof FlowledgerError ? error : raised;
        return { number, id, at: new Date(at), code, message };
      });
    },
  };
}
