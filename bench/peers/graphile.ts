/**
 * graphile-worker, a job queue: a step is a job, and nobody waits for a result. Batches, as its docs advise everybody to have them
 * (worker.graphile.org/docs/performance: "Batching"; the local queue one larger than the concurrency, completion without a delay as
 * in its "Quick stats"). A dead worker's jobs stay locked for four hours (same page: "localQueue"), without Worker Pro.
 */
import { Logger, run } from "graphile-worker";
import { Ends, never } from "./engine.ts";
import type { Engine, Opening } from "./engine.ts";

export async function open({ url, concurrency, running }: Opening): Promise<Engine> {
  const ends = new Ends();
  const runner = await run({
    preset: {
      worker: {
        connectionString: url,
        concurrentJobs: concurrency,
        maxPoolSize: 10,
        localQueue: { size: concurrency + 1 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
    taskList: {
      one: async (payload) => ends.ended(Number(payload)),
      holding: () => {
        running();
        return never();
      },
    },
    logger: new Logger(() => () => {}),
    noHandleSignals: true,
  });

  const add = async () => {
    const { n, end } = ends.next();
    await runner.addJob("one", n);
    await end;
  };
  return {
    queued: 1,
    unfinished: "select count(*)::int as count from graphile_worker.jobs",
    run: add,
    result: add,
    pause: null,
    hold: async () => void (await runner.addJob("holding", null)),
    [Symbol.asyncDispose]: () => runner.stop(),
  };
}
