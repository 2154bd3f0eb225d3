/**
 * DBOS. A workflow runs in the process that starts it, and its handle there settles without a look into the database
 * (docs.dbos.dev/typescript/reference/methods: "handle.getResult"); LISTEN/NOTIFY is on by default. The pool may be as large as the
 * server allows (docs.dbos.dev/production/checklist: "Monitor Connection Usage"). Without Conductor, what was interrupted goes on in
 * the next process with the same executor ID (docs.dbos.dev/production/workflow-recovery).
 */
import { DBOS } from "@dbos-inc/dbos-sdk";
import { never } from "./engine.ts";
import type { Engine, Opening } from "./engine.ts";

export async function open({ url, running }: Opening): Promise<Engine> {
  DBOS.setConfig({
    name: "bench",
    systemDatabaseUrl: url,
    systemDatabasePoolSize: 20,
    executorID: "bench",
    applicationVersion: "1",
    logLevel: "error",
  });
  const chain = DBOS.registerWorkflow(
    async (steps: number) => {
      let last: unknown = null;
      for (let n = 1; n <= steps; n++) last = await DBOS.runStep(async () => ({ n }), { name: `s${n}` });
      return last;
    },
    { name: "chain" },
  );
  const asks = new Map<number, () => void>();
  const asking = DBOS.registerWorkflow(
    (n: number) => {
      const answer = DBOS.recv("answer", 3600);
      asks.get(n)?.();
      return answer;
    },
    { name: "asking" },
  );
  const holding = DBOS.registerWorkflow(
    () =>
      DBOS.runStep(
        () => {
          running();
          return never();
        },
        { name: "hold" },
      ),
    { name: "holding" },
  );
  await DBOS.launch();

  const start = async (steps: number) => {
    const handle = await DBOS.startWorkflow(chain)(steps);
    await handle.getResult();
  };
  let asked = 0;
  return {
    queued: 0,
    unfinished: "select count(*)::int as count from dbos.workflow_status where status in ('PENDING', 'ENQUEUED')",
    run: (work) => start(work.steps),
    result: () => start(1),
    pause: async () => {
      const n = ++asked;
      const waits = new Promise<void>((resolve) => asks.set(n, resolve));
      const handle = await DBOS.startWorkflow(asking)(n);
      await waits;
      asks.delete(n);
      return async () => {
        await DBOS.send(handle.workflowID, true, "answer");
        await handle.getResult();
      };
    },
    hold: async () => void (await DBOS.startWorkflow(holding)()),
    [Symbol.asyncDispose]: () => DBOS.shutdown(),
  };
}
