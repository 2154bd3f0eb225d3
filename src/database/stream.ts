/** The runtime stream's statements: items of many executions in, fenced like every other append; pages for many readers out. */
import type { ExecutionId } from "../ledger/event.ts";
import type { Json } from "../ledger/payload.ts";
import { transaction } from "./connection.ts";
import type { Sql } from "./connection.ts";

/** Items of one owner, each as JSON text, in order. */
export interface StreamLoad {
  readonly id: ExecutionId;
  readonly epoch: number;
  readonly token: string;
  readonly items: readonly string[];
}

export type StreamVerdict = "ok" | "fenced" | "busy";

/** One verdict per load, which holds for all its items. An execution may be in it once. */
export async function putItems(sql: Pick<Sql, never>, loads: readonly StreamLoad[]): Promise<StreamVerdict[]> {
  const rows = await (sql as Sql)<{ token: string; verdict: StreamVerdict }[]>`
    select token, verdict from flowledger.put_items(${textOf(loads)}::text::jsonb)`;
  // A worker's claims of one batch share their token, and an execution is only in one of them.
  const verdicts = new Map(rows.map(({ token, verdict }) => [token, verdict]));
  return loads.map(({ token }) => verdicts.get(token) ?? "busy");
}
