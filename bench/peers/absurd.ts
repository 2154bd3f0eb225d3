/**
 * Absurd, on the schema that `ABSURD_SQL` names. The worker claims as many tasks at a look as it runs at once, the default
 * (earendil-works.github.io/absurd/sdks/typescript: "Starting a Worker"); worker and result look into the database from time to time.
 * A queue for medium loads is not partitioned (…/absurd/storage: "Quick Recommendation"). A second worker takes over when the claim's
 * 120 seconds end (…/absurd/concepts); shorter ones would run longer steps twice.
 */
import { Absurd } from "absurd-sdk";
import { Ends, never } from "./engine.ts";
import type { Engine, Opening } from "./engine.ts";

const queue = "bench";

export async function open({ url, concurrency, running }: Opening): Promise<Engine> {
  const absurd = new Absurd({ db: url, queueName: queue });
  await absurd.createQueue(queue);
  const ends = new Ends();
  absurd.registerTask<{ n: number; steps: number }>({ name: "chain" }, async (input, ctx) => {
    let last: unknown = null;
    for (let n = 1; n <= input.steps; n++) last = await ctx.step(`s${n}`, async () => ({ n }));
    ends.ended(input.n);
    return last;
  });
  absurd.registerTask<{ event: string }>({ name: "asking" }, (input, ctx) => ctx.awaitEvent(input.event));
  absurd.registerTask<object>({ name: "holding" }, (_, ctx) =>
    ctx.step("hold", () => {
      running();
      return never();
    }),
  );
  // A step that never ends would end the process.
  const fatalOnLeaseTimeout = false;
  const onError = (error: Error) => console.error(error);
  const worker = await absurd.startWorker({ concurrency, fatalOnLeaseTimeout, onError });

  let asked = 0;
  return {
    queued: 1,
    unfinished: `select count(*)::int as count from absurd.t_${queue} where state not in ('completed', 'failed', 'cancelled')`,
    run: async ({ steps }) => {
      const { n, end } = ends.next();
      await absurd.spawn("chain", { n, steps });
      await end;
    },
    result: async () => {
      const { n } = ends.next();
      const { taskID } = await absurd.spawn("chain", { n, steps: 1 });
      await absurd.awaitTaskResult(taskID);
    },
    pause: async () => {
      const event = `answer-${process.pid}-${++asked}`;
      const { taskID } = await absurd.spawn("asking", { event });
      while ((await absurd.fetchTaskResult(taskID))?.state !== "sleeping")
        await new Promise((next) => setTimeout(next, 10));
      return async () => {
        await absurd.emitEvent(event, true);
        await absurd.awaitTaskResult(taskID);
      };
    },
    hold: async () => void (await absurd.spawn("holding", {})),
    async [Symbol.asyncDispose]() {
      await worker.close();
      await absurd.close();
    },
  };
}
