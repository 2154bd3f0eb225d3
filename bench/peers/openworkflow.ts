/**
 * OpenWorkflow. The worker's `concurrency` is what its docs have one tune (openworkflow.dev/docs/production: "Concurrency Tuning"; 10
 * to start with, 100 in its own benchmark); the pool's size is not a setting (openworkflow.dev/docs/postgres: "Connection Pooling").
 * Worker and result look into the database from time to time. A second worker takes over when the lease ends
 * (openworkflow.dev/docs/workers: "Heartbeats and Crash Recovery", "High Availability").
 */
import { OpenWorkflow } from "openworkflow";
import { BackendPostgres } from "openworkflow/postgres";
import { Ends, never } from "./engine.ts";
import type { Engine, Opening } from "./engine.ts";

export async function open({ url, concurrency, running }: Opening): Promise<Engine> {
  const backend = await BackendPostgres.connect(url);
  const client = new OpenWorkflow({ backend });
  const ends = new Ends();
  const chain = client.defineWorkflow<{ n: number; steps: number }>({ name: "chain" }, async ({ input, step }) => {
    let last: unknown = null;
    for (let n = 1; n <= input.steps; n++) last = await step.run({ name: `s${n}` }, () => ({ n }));
    ends.ended(input.n);
    return last;
  });
  const asking = client.defineWorkflow<{ signal: string }>({ name: "asking" }, ({ input, step }) =>
    step.waitForSignal({ name: "answer", signal: input.signal, timeout: "1h" }),
  );
  const holding = client.defineWorkflow<null>({ name: "holding" }, ({ step }) =>
    step.run({ name: "hold" }, () => {
      running();
      return never();
    }),
  );
  const worker = client.newWorker({ concurrency });
  await worker.start();

  let asked = 0;
  return {
    queued: 1,
    unfinished: "select count(*)::int as count from openworkflow.workflow_runs where status in ('pending', 'running')",
    run: async ({ steps }) => {
      const { n, end } = ends.next();
      await chain.run({ n, steps });
      await end;
    },
    result: async () => {
      const { n } = ends.next();
      const handle = await chain.run({ n, steps: 1 });
      await handle.result();
    },
    pause: async () => {
      const signal = `answer-${process.pid}-${++asked}`;
      const handle = await asking.run({ signal });
      const waits = async () => {
        const run = await backend.getWorkflowRun({ workflowRunId: handle.workflowRun.id });
        return run?.status === "running" && run.workerId === null;
      };
      while (!(await waits())) await new Promise((next) => setTimeout(next, 10));
      return async () => {
        const { workflowRunIds } = await client.sendSignal({ signal, data: true });
        if (workflowRunIds.length === 0) throw new Error("nobody waits for the signal");
        await handle.result();
      };
    },
    hold: async () => void (await holding.run(null)),
    async [Symbol.asyncDispose]() {
      await worker.stop();
      await backend.stop();
    },
  };
}
