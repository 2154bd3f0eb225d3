/** Steps that the crash tests share. */
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type postgres from "postgres";
import { expect } from "vitest";
import { verify } from "../../src/store/verify.ts";
import { startProcess } from "../support/processes.ts";
import type { TestProcess } from "../support/processes.ts";

export function startWorker(url: string, env: Readonly<Record<string, string>> = {}): Promise<TestProcess> {
  return startProcess(join(import.meta.dirname, "worker.ts"), { env: { CRASH_URL: url, ...env } });
}

export interface Header {
  readonly outcome: string;
  readonly close_reason: string;
  readonly close_snapshot: Record<string, unknown>;
  readonly error: { name: string; message: string } | null;
  readonly epoch: number;
}

/** The header of an execution that has closed; fails with the ledger when it does not. */
export async function untilClosed(sql: postgres.Sql, id: string, withinMs = 20_000): Promise<Header> {
  const found = await until(
    async () =>
      (await sql<Header[]>`select * from flowledger.executions where id = ${id} and closed_at is not null`)[0],
    withinMs,
  );
  if (found) return found;
  const rows =
    await sql`select seq, epoch, type, chunk, payload from flowledger.ledger where execution_id = ${id} order by seq`;
  const [header] =
    await sql`select owner, wake_at, epoch, seq, takeovers, now() from flowledger.executions where id = ${id}`;
  throw new Error(
    `not closed within ${withinMs} ms: ${JSON.stringify(header)}\n${rows.map((row) => JSON.stringify(row)).join("\n")}`,
  );
}

/** Asks until there is an answer; null when the time is up. */
export async function until<T>(ask: () => Promise<T | undefined | null | false>, withinMs = 10_000): Promise<T | null> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const answer = await ask().catch(() => null);
    if (answer) return answer;
    if (performance.now() > deadline) return null;
    await delay(20);
  }
}

/** What every crash test ends with. */
export async function expectGuarantees(sql: postgres.Sql): Promise<void> {
  expect(await verify(sql)).toEqual([]);
}

export async function countEvents(
  sql: postgres.Sql,
  id: string,
  type: string,
  chunk: string | null = null,
): Promise<number> {
  const [row] = await sql<[{ count: number }]>`
    select count(*)::int as count from flowledger.ledger
    where execution_id = ${id} and type = ${type} and (${chunk}::text is null or chunk = ${chunk})`;
  return row.count;
}
