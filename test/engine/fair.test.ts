/** Flows share a worker: a long queue of one holds up no other, unless it is more urgent. */
import { expect, test } from "vitest";
import { Semaphore } from "../../src/base/async.ts";
import { defineFlow } from "../../src/index.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import type { Append } from "../../src/store/append.ts";
import { openHere, type HereHost } from "../../src/worker/here.ts";
import { openSlots, type SlotsHost } from "../../src/worker/slots.ts";
import { openUpkeep, type UpkeepHost } from "../../src/worker/upkeep.ts";
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

const id = ExecutionId.parse("01900000-0000-7000-8000-000000000001");
const lost = new TypeError("lost");

/** What claims answer where nothing comes of it. */
const nothing: readonly [string, object][] = [
  ["fails", { claimLimited: () => Promise.reject(lost), handOver: () => Promise.reject(lost) }],
  ["finds nothing", { claimLimited: async () => null, handOver: async () => ({ results: [], claimed: new Map() }) }],
];

test.each(nothing)("a hand-over that %s leaves a worker its places", async (_, claims) => {
  const capacity = new Semaphore(1);
  // Of a worker only what slots ask.
  const slots = openSlots({
    host: { flows: new Map([["f", { limits: {} }]]) },
    flowOf: () => "f",
    hasShortcuts: true,
    capacity,
    claims,
    isTaking: () => true,
    onTrouble: () => {},
  } as unknown as SlotsHost);

  await slots.append([{ id } as Append]).catch(() => {});
  expect(capacity.free).toBe(1);
  slots.release({ flow: "f", id });
  await slots.settled();
  expect(capacity.free).toBe(1);
});

test.each(["fails", "claims nothing"])("a start or a command here that %s leaves a worker its places", async (what) => {
  const capacity = new Semaphore(2);
  const answer = async <T>(value: T) => (what === "fails" ? Promise.reject(lost) : value);
  // Of a worker only what is asked here.
  const here = openHere({
    host: { flows: new Map([["f", { limits: null }]]), store: {} },
    capacity,
    claims: { create: () => answer({ created: [], claimed: new Map() }), send: () => answer(null) },
    pauses: { has: () => false },
    isTaking: () => true,
    isOwned: () => false,
  } as unknown as HereHost);
  const one = { flow: "f", input: 1, idempotencyKey: null, delayMs: null, startAt: null };

  await here.create([one, one] as unknown as Parameters<typeof here.create>[0]).catch(() => {});
  expect(capacity.free).toBe(2);
  await here.send(id, "f", async () => null)?.catch(() => {});
  expect(capacity.free).toBe(2);
});

test("a worker looks for what others left due of flows that go on, at most for half of its places; when it is full, of those that have nobody here", async () => {
  const asked: unknown[] = [];
  const capacity = new Semaphore(6);
  const flow = (name: string, limits: object | null = null) => [name, { name, limits }] as const;
  const claims = {
    listDue: async (...given: unknown[]) => (asked.push(["due", ...given]), []),
    firstDue: async (...given: unknown[]) => (asked.push(["first", ...given]), []),
  };
  // Of a worker only what is asked here.
  const upkeep = openUpkeep({
    host: {
      store: { claims, workers: { reap: () => Promise.reject(lost) } },
      flows: new Map([flow("free"), flow("paused"), flow("limited", {}), flow("owned"), flow("queued")]),
    },
    settings: { hasShortcuts: true, concurrency: 6 },
    owners: new Map([[id, { flow: { name: "owned" }, poke: () => {} }]]),
    capacity,
    pauses: { has: (name: string) => name === "paused", look: async () => {} },
    isStopping: () => false,
    onTrouble: () => {},
  } as unknown as UpkeepHost);

  upkeep.tick();
  await new Promise(setImmediate);
  for (let place = 0; place < 6; place++) capacity.tryAcquire();
  void capacity.acquire({ group: "queued" });
  upkeep.tick();

  expect(asked).toEqual([
    ["due", ["free", "owned", "queued"], 200, 3],
    ["first", ["free", "limited"], 200],
  ]);
});
