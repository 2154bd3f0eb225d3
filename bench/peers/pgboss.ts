/**
 * pg-boss, a job queue: a step is a job, and nobody waits for a result. Workers are told of jobs
 * (timgit.github.io/pg-boss, API, Workers: "Low-latency dispatch with LISTEN/NOTIFY") and fetch whole batches without a pause while
 * there are any ("batchSize", "burstWhenBatchFull"). What a dead worker had is found by its heartbeat (Queues: "Heartbeat vs
 * expiration"), here at the least that may be set, and looked for every second (Constructor: "monitorIntervalSeconds").
 */
import { PgBoss } from "pg-boss";
import { Ends, never } from "./engine.ts";
import type { Engine, Opening } from "./engine.ts";

export async function open({ url, concurrency, running }: Opening): Promise<Engine> {
  const boss = new PgBoss({
    connectionString: url,
    max: 10,
    useListenNotify: true,
    superviseIntervalSeconds: 1,
    monitorIntervalSeconds: 1,
  });
  boss.on("error", (error) => console.error(error));
  await boss.start();
  for (const queue of ["one", "holding"])
    await boss.createQueue(queue, { notify: true, heartbeatSeconds: 10, retryLimit: 10 });
  const ends = new Ends();
  const fetching = { batchSize: concurrency, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 };
  await boss.work<{ n: number }>("one", fetching, async (jobs) => {
    for (const { data } of jobs) ends.ended(data.n);
  });
  await boss.work("holding", { ...fetching, batchSize: 1 }, () => {
    running();
    return never();
  });

  const send = async () => {
    const { n, end } = ends.next();
    await boss.send("one", { n });
    await end;
  };
  return {
    queued: 1,
    unfinished: "select count(*)::int as count from pgboss.job where state in ('created', 'active', 'retry')",
    run: send,
    result: send,
    pause: null,
    hold: async () => void (await boss.send("holding", {})),
    [Symbol.asyncDispose]: () => boss.stop({ graceful: false }),
  };
}
