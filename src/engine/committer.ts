/** The batcher of this process: appends of all its executions leave together, and each owner gets its own answer. */
import { setTimeout as delay } from "node:timers/promises";
import { append } from "../database/append.ts";
import type { Append, AppendResult, Committed } from "../database/append.ts";
import { Batcher } from "../database/batcher.ts";
import { codeOf } from "../database/connection.ts";
import type { Sql } from "../database/connection.ts";
import { failpoint, isFailpointArmed } from "./failpoints.ts";

export interface Committer {
  /** Resolves when the database has answered: it waits out lost connections, and rows that somebody else holds. */
  commit(item: Append): Promise<Committed>;
  close(): void;
}

export function openCommitter(sql: Sql, onTrouble: (error: unknown) => void): Committer {
  const batcher = new Batcher<Append, AppendResult>({
    send: (items) => {
      const answer = append(sql, items).catch((error: unknown) => {
        // Somebody keeps a row locked, say a caller's long transaction: the others must not wait for it.
        if (codeOf(error) === "55P03") return append(sql, items, true);
        throw error;
      });
      // By then the statement is on its way and nobody has answered.
      if (isFailpointArmed) setTimeout(failpoint, 0, "in-commit");
      return answer;
    },
    // Small batches on two connections keep Postgres busy while this process works on the answers (`npm run bench`).
    maxItems: 200,
    maxFlights: 2,
    isPersistent: true,
    onTrouble,
  });
  return {
    async commit(item) {
      for (let wait = 1; ; wait = Math.min(wait * 2, 50)) {
        const result = await batcher.submit(item);
        if (result.verdict !== "busy") return result;
        await delay(Math.random() * wait);
      }
    },
    close: () => batcher.close(),
  };
}
