/** A worker that stops: what it begins no more, and what is done when it has stopped. */
import { setImmediate as turn } from "node:timers/promises";
import { expect, test } from "vitest";
import { systemTimers } from "../../src/base/timers.ts";
import { openCommitter } from "../../src/engine/committer.ts";
import { openItems } from "../../src/engine/items.ts";
import { RoundTrips } from "../../src/engine/round-trips.ts";
import { defineFlow } from "../../src/index.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import { internals } from "../../src/orchestrator.ts";
import type { Append } from "../../src/store/append.ts";
import type { Store } from "../../src/store/store.ts";
import { openEngines, type EnginesHost } from "../../src/worker/engine.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, serving, untilEvent, visiting } from "../support/flows.ts";
import { someWorker } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;
const id = ExecutionId.parse("01900000-0000-7000-8000-000000000001");

test("what was claimed before the stop, and is still being read, begins nothing and is given back", async () => {
  let ran = 0;
  const flow = defineFlow("stop.late", {}, { maxStreamRate: { limit: 5, per: "1h" } });
  flow.to("put", (ctx) => ctx.putIntoStream("item"));
  flow.when("Go").to("go", () => void (ran += 1));
  await using orchestrator = visiting(database, [flow]);
  const worker = await orchestrator.startWorker({ drainTimeout: "5s" });
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  const owner = async () =>
    (await sql`select owner from flowledger.executions where id = ${execution.id}`)[0]?.["owner"];
  await untilEvent(execution, "chunk.completed");
  await expect.poll(owner).toBeNull();

  const locked = await sql.reserve();
  await locked`begin`;
  // Who goes on looks first how many items were put of late.
  await locked`lock table flowledger.stream_items in access exclusive mode`;
  await execution.emit("Go", null);
  expect(await owner()).toBe(worker.id);
  const stopped = worker.stop();
  await locked`commit`;
  locked.release();
  await stopped;

  expect({ ran, owner: await owner() }).toEqual({ ran: 0, owner: null });
});

test("it has stopped once the relatives of what it closed have heard of that", async () => {
  const heard = newGate();
  const host = { store: { children: { propagateClose: () => heard.passed } }, timers: systemTimers };
  // Of its parts only what is asked here.
  const engines = openEngines({ host, settings: {}, onTrouble: () => {} } as unknown as EnginesHost);
  let isSettled = false;

  engines.of(someWorker).propagateClose(id);
  const settled = engines.settled().then(() => (isSettled = true));
  for (let turns = 0; turns < 5; turns++) await turn();

  expect(isSettled).toBe(false);
  heard.open();
  await settled;
});

test("a commit that waits for a database that is away fails once the worker has stopped, whatever it waited for before", async () => {
  const lost = Object.assign(new Error("lost"), { code: "ECONNRESET" });
  let sent = 0;
  const away = newGate();
  const append = async () => {
    if (++sent === 1) return [{ verdict: "busy" as const }];
    away.open();
    throw lost;
  };
  const committer = openCommitter({
    commits: { append },
    leaving: { leaves: () => false, append },
    onTrouble: () => {},
    onAnswer: () => {},
  });

  const committed = committer.commit({ id } as Append);
  await away.passed;
  committer.close();

  await expect(committed).rejects.toBe(lost);
});

test("what an item could not read of its parent once is asked again", async () => {
  let asked = 0;
  const parentAtFanOut = async () => {
    if (++asked === 1) throw new TypeError("odd");
    return { values: { a: 1 }, startInput: null };
  };
  const store = { collections: { parentAtFanOut }, wakeups: { onReaderWakeup: () => () => {} } };
  // Of the store only what is asked here.
  const items = openItems(store as unknown as Store, () => false);

  await expect(items.parentAtFanOut(id, 1)).rejects.toThrow("odd");

  expect((await items.parentAtFanOut(id, 1)).values).toEqual({ a: 1 });
  await items.close();
});

test.each(["bulk()", "runSchedule()"])(
  "%s that is sent again after its answer was lost is the same one",
  async (door) => {
    const flow = defineFlow("sent.again").to("pass", () => null);
    await using orchestrator = visiting(database, [flow]);
    const store = await orchestrator[internals].store();
    const ids: unknown[] = [];
    const execution = await orchestrator.flow(flow).createExecution();
    const answer = (given: object) => {
      ids.push(Reflect.get(given, "id"));
      return ids.length === 1 ? Promise.reject(Object.assign(new Error("lost"), { code: "ECONNRESET" })) : execution.id;
    };
    Object.assign(store.bulks, { start: async (given: object) => ({ id: await answer(given) }) });
    Object.assign(store.schedules, { run: async (_: string, given: object) => answer(given) });
    const by = { actor: "ann", reason: "again" };

    if (door === "bulk()") await orchestrator.bulk({ action: "cancel", where: { flow: flow.name }, ...by });
    else await orchestrator.runSchedule("daily", by);

    expect(ids).toEqual([expect.any(String), ids[0]]);
  },
);

test("what a chunk appends to flow data is sent once, also where its answer is lost", async () => {
  const flow = defineFlow("sent.once").to("append", (ctx) => ctx.appendFlowData("list", 1, { noWarning: true }));
  await using orchestrator = await serving(database, [flow]);
  const store = await orchestrator[internals].store();
  let sent = 0;
  Object.assign(store.flowData, {
    append: async () => {
      sent += 1;
      throw Object.assign(new Error("lost"), { code: "ECONNRESET" });
    },
  });

  await expect(orchestrator.flow(flow).start(null)).rejects.toThrow("lost");

  expect(sent).toBe(1);
});

test("a worker that was given up comes back with its name for jobs, and looks after what is blocked", async () => {
  const flow = defineFlow("stop.renewed").to("pass", () => null);
  await using orchestrator = visiting(database, [flow], { logger: { ...console, warn: () => {} } });
  const worker = await orchestrator.startWorker({ drainTimeout: "1s" });
  const before = worker.id;
  const poolOf = async (of: string) => (await sql`select pool from flowledger.workers where id = ${of}`)[0]?.["pool"];
  const pool = await poolOf(before);
  const looked = newGate();
  const store = await orchestrator[internals].store();
  Object.assign(store.claims, { wakeBlocked: async () => looked.open() });

  await sql`delete from flowledger.workers where id = ${before}`;
  await looked.passed;

  expect(worker.id).not.toBe(before);
  expect(await poolOf(worker.id)).toBe(pool);
  expect(pool).toEqual(expect.any(String));
});

test("a transaction of a chunk is answered also where its execution is another's by then", async () => {
  const answers: string[] = [];
  const recording = {
    dispatch: 1,
    effect: { ordinal: 0, effect: "step", name: "pay", value: null },
    accepted: () => answers.push("accepted"),
    refused: () => answers.push("refused"),
  };
  const parts = (verdict: string) => ({
    asks: { state: { closed: true } },
    entries: { takeRecording: () => recording },
    commits: { sendWithin: async () => verdict },
    loop: { isOver: true, waitFor: () => {}, resumeAfter: async () => {} },
  });
  for (const verdict of ["ok", "fenced", "repeat"])
    // Of an owner only what is asked here.
    await new RoundTrips(parts(verdict) as unknown as ConstructorParameters<typeof RoundTrips>[0]).record();

  expect(answers).toEqual(["accepted", "refused", "refused"]);
});
