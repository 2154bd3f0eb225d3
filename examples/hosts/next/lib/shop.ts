/** The application's own database: here the same one, over a client of its own. */
import postgres from "postgres";
import { order, orchestrator } from "./order";

// `next dev` evaluates this file again after each edit. Flowledger sees to its own connections; this client is kept.
const kept = globalThis as { sql?: ReturnType<typeof postgres> };
export const sql = (kept.sql ??= postgres(process.env.DATABASE_URL ?? "", { max: 2, onnotice() {} }));

/** The purchase and its execution: both, or neither. */
export function buy(amount: number): Promise<string> {
  return sql.begin(async (tx) => {
    const { id } = await orchestrator.flow(order).startExecution({ amount }, { autoCloseTimeout: 0, tx });
    await tx`insert into purchases (execution_id, amount) values (${id}, ${amount})`;
    return id;
  });
}
