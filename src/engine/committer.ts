/** The batcher of this process: appends of all its executions leave together, and each owner gets its own answer. */
import { backoff } from "../base/async.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import type { Append, AppendResult, Committed } from "../store/append.ts";
import { Batcher } from "../store/batcher.ts";
import { codeOf } from "../store/refusals.ts";
import type { Commits } from "../store/store.ts";
import type { Send } from "../store/transactions.ts";
import { failpoint, isFailpointArmed } from "./failpoints.ts";

export interface Committer {
  /** Resolves when the database has answered: it waits out lost connections, and rows that somebody else holds. */
  commit(item: Append): Promise<Committed>;
  /** The same by a transaction of the application's, which `send` commits with it. */
  record(item: Append, send: Send): Promise<Committed>;
  close(): void;
}

/** @param onAnswer told how long each commit took, in milliseconds */
export function openCommitter(
  commits: Commits,
  onTrouble: (error: unknown) => void,
  onAnswer: (ms: number) => void,
): Committer {
  const batcher = new Batcher<Append, AppendResult>({
    send: (items) => {
      const answer = commits.append(items).catch((error: unknown) => {
        // Somebody keeps a row locked, say a caller's long transaction: the others must not wait for it.
        if (codeOf(error) === "55P03") return commits.append(items, true);
        throw error;
      });
      // By then the statement is on its way and nobody has answered.
      if (isFailpointArmed) liveness.after(0, () => failpoint("in-commit"));
      return answer;
    },
    // Two large batches keep Postgres busy while this process works on the answers; small ones only cost both more CPU (`npm run bench`).
    maxItems: 200,
    maxInFlight: 2,
    minBeside: 100,
    slowMs: 20,
    isPersistent: true,
    onTrouble,
  });
  return {
    async commit(item) {
      const begun = liveness.monotonic();
      for (let attempt = 0; ; attempt++) {
        const result = await batcher.submit(item);
        if (result.verdict !== "busy") {
          onAnswer(liveness.monotonic() - begun);
          return result;
        }
        await liveness.sleep(backoff({ attempt, base: 1, max: 50, jitter: 1 }));
      }
    },
    record: (item, send) => send(item),
    close: () => batcher.close(),
  };
}
