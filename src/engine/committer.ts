/** The batcher of this process: appends of all its executions leave together, and each owner gets its own answer. */
import { backoff } from "../base/async.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import type { Append, AppendResult, Committed } from "../store/append.ts";
import { Batcher } from "../store/batcher.ts";
import { isLocked } from "../store/refusals.ts";
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

export interface CommitterHost {
  readonly commits: Pick<Commits, "append">;
  /** Appends what leaves slots, and hands them over with that. */
  readonly leaving: {
    readonly leaves: (item: Append) => boolean;
    readonly append: (items: readonly Append[]) => Promise<AppendResult[]>;
  };
  readonly onTrouble: (error: unknown) => void;
  /** Told how long each commit took, in milliseconds. */
  readonly onAnswer: (ms: number) => void;
}

export function openCommitter({ commits, leaving, onTrouble, onAnswer }: CommitterHost): Committer {
  const sending = (append: (items: readonly Append[]) => Promise<AppendResult[]>) => (items: readonly Append[]) => {
    const answer = append(items).catch((error: unknown) => {
      // A caller's long transaction may keep a row locked; the other executions must not wait for it.
      if (isLocked(error)) return commits.append(items, true);
      throw error;
    });
    // At this point the statement is sent and not answered.
    if (isFailpointArmed) liveness.after(0, () => failpoint("in-commit"));
    return answer;
  };
  // Executions that leave a limit wait for their flow's row; a batcher of their own keeps the others from waiting too.
  const leavers = new Batcher<Append, AppendResult>({
    send: sending(leaving.append),
    maxItems: 200,
    isPersistent: true,
    onTrouble,
  });
  const batcher = new Batcher<Append, AppendResult>({
    send: sending((items) => commits.append(items)),
    // Two large batches keep Postgres busy while this process works on the answers. Small ones cost both sides more CPU (`npm run bench`).
    maxItems: 200,
    maxInFlight: 2,
    minBeside: 100,
    slowMs: 20,
    isPersistent: true,
    onTrouble,
  });
  // Beside the others, whose batch would wait for the same lock again.
  const held = new Batcher<Append, AppendResult>({
    send: sending((items) => commits.append(items)),
    maxItems: 200,
    isPersistent: true,
    onTrouble,
  });
  return {
    async commit(item) {
      const begun = liveness.monotonic();
      for (let attempt = 0; ; attempt++) {
        const lane = leaving.leaves(item) ? leavers : attempt === 0 ? batcher : held;
        const result = await lane.submit(item);
        if (result.verdict !== "busy") {
          onAnswer(liveness.monotonic() - begun);
          return result;
        }
        await liveness.sleep(backoff({ attempt, base: 1, max: 50, jitter: 1 }));
      }
    },
    record: (item, send) => send(item),
    close() {
      batcher.close();
      leavers.close();
      held.close();
    },
  };
}
