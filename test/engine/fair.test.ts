/** Flows share a worker: a long queue of one holds up no other, unless it is more urgent. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, serving, visiting } from "../support/flows.ts";

const database = await testDatabase();

test("a single start comes to its turn while another flow has more jobs in the queue than the worker has places", async () => {
  const order: string[] = [];
  const go = newGate();
  const busy = defineFlow("fair.busy");
  busy.to("work", async (ctx) => {
    order.push("busy");
    // The first ones wait until the small flow is in the queue.
    if (Number(ctx.input) < 4) await go.passed;
  });
  const small = defineFlow("fair.small");
  small.to("work", () => void order.push("small"));
  await using starter = visiting(database, [busy, small]);
  const inputs = Array.from({ length: 300 }, (_, index) => index);
  await starter.flow(busy).startMany(inputs, { autoCloseTimeout: 0 });
  await using _worker = await serving(database, [busy, small], {}, { concurrency: 4 });
  await expect.poll(() => order.length).toBe(4);
  const execution = await starter.flow(small).startExecution(null, { autoCloseTimeout: 0 });
  // It was due for long enough that the worker has seen it.
  await expect
    .poll(
      async () =>
        (
          await database.sql`select 1 from flowledger.executions where id = ${execution.id} and wake_at < now() - interval '1 second'`
        ).length,
    )
    .toBe(1);

  go.open();
  await execution.waitForClose();

  expect(order.indexOf("small")).toBeLessThan(60);
  await expect.poll(() => order.length, { timeout: 20_000 }).toBe(301);
});

test("what a busy worker has fetched beyond its places is done by one that has room", async () => {
  const go = newGate();
  let inside = 0;
  const flow = defineFlow("fair.stolen");
  flow.to("work", async () => {
    inside += 1;
    await go.passed;
  });
  await using starter = visiting(database, [flow]);
  // One job for all of them, as they are due at once.
  await starter.flow(flow).startMany(
    Array.from({ length: 10 }, (_, index) => index),
    { autoCloseTimeout: 0 },
  );
  // A job of the flow that nobody gets: the sweep gives no new ones meanwhile.
  await database.sql`select flowledger_jobs.add_job('flowledger:fair.stolen', '[]', queue_name => 'held')`;
  await database.sql`update flowledger_jobs._private_job_queues set locked_at = now(), locked_by = 'nobody' where queue_name = 'held'`;
  await using _busy = await serving(database, [flow], {}, { concurrency: 1 });
  await expect.poll(() => inside).toBe(1);

  await using _free = await serving(database, [flow], {}, { concurrency: 20 });

  await expect.poll(() => inside).toBe(10);
  go.open();
});
