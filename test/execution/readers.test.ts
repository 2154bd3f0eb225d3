/** The stream between processes: many readers, lost wake-ups, cut connections, and what an attempt leaves in it. */
import { getEventListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test, vi } from "vitest";
import { z } from "zod";
import { LeaseLostError, PayloadError, StreamLimitError } from "../../src/base/errors.ts";
import { openDatabase } from "../../src/store/client.ts";
import { systemTimers } from "../../src/base/timers.ts";
import { Streamer } from "../../src/engine/streamer.ts";
import { sendCommand } from "../../src/execution/sending.ts";
import { sendEvents } from "../../src/execution/sse.ts";
import { followStream, openStreams } from "../../src/execution/stream.ts";
import {
  createOrchestrator,
  cursorOf,
  defineFlow,
  ContractError,
  StreamStalledError,
  toReadableStream,
  toSSE,
} from "../../src/index.ts";
import type { Flow } from "../../src/index.ts";
import { ExecutionId, WorkerId } from "../../src/ledger/event.ts";
import type { Sender } from "../../src/store/commands.ts";
import type { PageRequest } from "../../src/store/streams.ts";
import { testDatabase } from "../support/database.ts";
import { collect, newGate, refusal, serving, untilEvent, visiting } from "../support/flows.ts";
import { ManualTimers } from "../support/timers.ts";
import { storeOn } from "../support/store.ts";

const database = await testDatabase();
const quiet = { autoCloseTimeout: 0 } as const;

test("a reader in another process gets items while the chunk runs (TF-STR-01, TF-STR-06)", async () => {
  const { flow, gate } = gated("elsewhere");
  await using orchestrator = await serving(database, [flow]);
  await using elsewhere = visiting(database);
  const execution = await orchestrator.flow(flow).startExecution(["a", "b"], quiet);

  const seen: unknown[] = [];
  const there = await elsewhere.getExecution(execution.id);
  for await (const { cursor, item } of there.streamItems({ timeout: null })) {
    seen.push([Number.parseInt(cursor), item]);
    gate.open();
  }

  expect(seen).toEqual([
    [1, "a"],
    [2, "b"],
  ]);
});

test("two hundred readers of one execution share their queries (F47)", async () => {
  const { flow, gate } = gated("crowded");
  await using orchestrator = await serving(database, [flow]);
  await using elsewhere = createOrchestrator({
    connection: { ...urlOptions(), connection: { application_name: "crowd" } },
  });
  const execution = await orchestrator.flow(flow).startExecution(["a", ...numbers(300)], quiet);
  const there = await elsewhere.getExecution(execution.id);
  const begun = Array.from({ length: 200 }, () => there.getRuntimeStream({ timeout: null }));
  await Promise.all(begun.map((reader) => reader.next()));
  const before = await transactions();

  gate.open();
  const all = await Promise.all(begun.map((reader) => collect(reader)));

  for (const items of all) expect(items).toEqual(numbers(300));
  const [{ connections }] = await database.sql<[{ connections: number }]>`
    select count(*)::int as connections from pg_stat_activity where application_name = 'crowd' and query ilike 'listen%'`;
  expect(connections).toBe(1);
  // 200 readers of their own would ask at least twice each.
  expect((await transactions()) - before).toBeLessThan(300);
});

test("each reader gets items of its own to change (TF-STR-06)", async () => {
  const flow = defineFlow("own-items");
  flow.to("put", (ctx) => ctx.putIntoStream({ list: [1] }));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, quiet);
  await execution.waitForClose();

  const [first, second] = await Promise.all([
    collect(execution.getRuntimeStream()),
    collect(execution.getRuntimeStream()),
  ]);

  expect(second).toEqual(first);
  expect(second[0]).not.toBe(first[0]);
});

test("nothing is lost when the connection that listens is cut (F44)", async () => {
  const { flow, gate } = gated("cut-off");
  await using orchestrator = await serving(database, [flow]);
  await using elsewhere = createOrchestrator({
    connection: { ...urlOptions(), connection: { application_name: "cut off" } },
  });
  const execution = await orchestrator.flow(flow).startExecution(["a", "b", "c"], quiet);
  const reader = (await elsewhere.getExecution(execution.id)).getRuntimeStream({ timeout: null });
  expect((await reader.next()).value).toBe("a");

  await database.sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'cut off'`;
  gate.open();

  expect(await collect(reader)).toEqual(["b", "c"]);
});

test("a reader that stalls holds a page of items, not the stream (F46)", async () => {
  const flow = defineFlow("stalled");
  const item = "x".repeat(50_000);
  flow.to("put", async (ctx) => {
    for (let n = 0; n < 40; n++) await ctx.putIntoStream(item);
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, quiet);
  await execution.waitForClose();

  const [page] = await storeOn(database.sql).streams.pages([{ id: execution.id, after: 0 }]);

  expect(page?.items.length).toBe(6);
  expect(await collect(execution.getRuntimeStream())).toHaveLength(40);
});

test("a reader that takes nothing for stallTimeout is let go, and comes back with its cursor (F46)", async () => {
  const flow = defineFlow("let-go");
  flow.to("put", async (ctx) => {
    for (const n of numbers(1200)) await ctx.putIntoStream(n);
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, quiet);
  await execution.waitForClose();
  const { left, watched } = watching(execution.streamItems());

  const body = toSSE(watched, { stallTimeout: 50 }).body?.getReader();
  const open = await body?.read();
  const first = await body?.read();
  await left;
  const error = await refusal(body?.read() ?? Promise.resolve());
  const rest = await toSSE(execution.streamItems({ from: 1 }), { stallTimeout: 50 }).text();

  expect([open, first].map((chunk) => new TextDecoder().decode(chunk?.value))).toEqual([
    ": open\n\n",
    `id: 1-${execution.id.slice(-8)}\ndata: 0\n\n`,
  ]);
  expect(error).toMatchObject({ code: "STREAM_STALLED", details: { stalledMs: 50 } });
  expect(rest.match(/^data: \d+$/gm)).toEqual(
    numbers(1200)
      .slice(1)
      .map((n) => `data: ${n}`),
  );
});

test("a slow reader, a quiet stream and a consumer in this process are not taken for stalled (F46)", async () => {
  const timers = new ManualTimers();
  const more = newGate();
  const items = async function* () {
    for (let n = 1; n <= 3; n++) yield { cursor: String(n), kind: null, item: "a" };
    await more.passed;
    for (let n = 4; n <= 5; n++) yield { cursor: String(n), kind: null, item: "b" };
  };
  // A beat counts like any message: who takes it ten seconds later is not late.
  const late = sendEvents(items(), { heartbeat: "50s" }, timers).body?.getReader();
  for (let n = 0; n < 4; n++) await late?.read();
  timers.pass(70_000);
  expect(new TextDecoder().decode((await late?.read())?.value)).toBe(": beat\n\n");
  const body = sendEvents(items(), {}, timers).body?.getReader();
  const read = async () => new TextDecoder().decode((await body?.read())?.value);
  const here = toReadableStream(items()).getReader();
  await here.read();

  const heard: string[] = [];
  for (let n = 0; n < 4; n++) {
    heard.push(await read());
    await settled();
    timers.pass(59_000);
  }
  for (let n = 0; n < 10; n++) {
    heard.push(await read());
    await settled();
    timers.pass(15_000);
  }
  more.open();

  expect(heard.slice(0, 5)).toEqual([": open\n\n", ...[1, 2, 3].map((id) => `id: ${id}\ndata: "a"\n\n`), ": beat\n\n"]);
  expect(new Set(heard.slice(4))).toEqual(new Set([": beat\n\n"]));
  expect(await here.read()).toMatchObject({ value: { cursor: "2" } });
  // The last beat, the item, and then nothing any more.
  expect([await read(), await read()].at(-1)).toContain("id: 4");
  await settled();
  timers.pass(60_000);
  expect(await refusal(read())).toBeInstanceOf(StreamStalledError);
});

test("a cursor that is no place in the stream is refused (F48, LI-SRV-04)", async () => {
  const flow = defineFlow("cursors");
  flow.to("put", async (ctx) => {
    for (const n of numbers(Number(ctx.input))) await ctx.putIntoStream(n);
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(1, quiet);
  await execution.waitForClose();

  for (const from of [-1, Number.NaN, 0.5, Infinity, 2 ** 63, "", "1-", "x", "1-zzzzzzzz", "99999999999999999"])
    expect(await refusal(collect(execution.streamItems({ from })))).toMatchObject({ code: "USAGE_INVALID" });
  expect(await refusal(collect(execution.streamItems({ from: 2 })))).toMatchObject({
    code: "USAGE_INVALID",
    message: expect.stringContaining("cursor 2 is beyond") as string,
    details: { executionId: execution.id, from: 2, last: 1 },
  });
  const longer = await orchestrator.flow(flow).startExecution(3, quiet);
  const [first] = await collect(longer.streamItems({ timeout: null }));
  expect(await refusal(collect(execution.streamItems({ from: first?.cursor ?? "" })))).toMatchObject({
    code: "USAGE_INVALID",
    message: expect.stringContaining("is of another stream") as string,
    details: { executionId: execution.id, from: first?.cursor },
  });
  const stranger = { url: "/?from=2", headers: new Headers({ "last-event-id": "1; drop" }) };
  expect(() => cursorOf(stranger)).toThrow("place in a stream");
  expect(cursorOf({ url: "/?from=2", headers: new Headers() })).toBe("2");
  expect(cursorOf({ url: "/?from=2", headers: new Headers({ "last-event-id": "5-0123abcd" }) })).toBe("5-0123abcd");
});

test("a reader of a run that could not be started hears why", async () => {
  const flow = defineFlow("unknown", { input: z.string() });
  flow.to("never", () => null);
  await using orchestrator = visiting(database, [flow]);
  const { execution } = orchestrator.flow(flow).run(7 as unknown as string);

  expect(await refusal(collect(execution.streamItems()))).toBeInstanceOf(ContractError);
});

test.each(["breaks off", "aborts its signal"])(
  "a hidden execution ends when its reader %s (TF-STR-12)",
  async (how) => {
    const flow = defineFlow(`hidden-reader-${how.length}`);
    flow.to("put", async (ctx) => {
      await ctx.putIntoStream(ctx.execution.id);
      await sleep(60_000, null, { signal: ctx.signal });
    });
    await using orchestrator = await serving(database, [flow]);
    const stop = new AbortController();

    let id = "";
    for await (const item of orchestrator.flow(flow).getRuntimeStream(null, { signal: stop.signal })) {
      id = String(item);
      if (how === "breaks off") break;
      // It waits for the next by then.
      setImmediate(() => stop.abort());
    }

    const execution = await orchestrator.getExecution(id);
    expect(await untilEvent(execution, "execution.closed")).toMatchObject({ reason: "hidden_runtime_stream_complete" });
  },
);

test("an item of more than 256 KB fails its chunk, and the items before it stay (F49)", async () => {
  const flow = defineFlow("too-large");
  flow.to("put", async (ctx) => {
    await ctx.putIntoStream("small");
    await ctx.putIntoStream("x".repeat(262_144));
  });
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run();

  expect(await collect(handler.streamEvents())).toMatchObject([
    "small",
    { type: "failed", error: { code: "PAYLOAD_UNSTORABLE" }, attempts: 1 },
  ]);
});

test("items keep their order while somebody else holds the execution (F45)", async () => {
  const { target, streamer, sql } = await owned("held");
  const lock = await sql.reserve();
  await lock`begin`;
  await lock`select from flowledger.executions where id = ${target.id}::uuid for update`;

  const puts = numbers(20).map(async (n) => {
    await sleep(n * 2);
    await streamer.put(target, n, 1).durable;
  });
  await sleep(60);
  await lock`commit`;
  lock.release();
  await Promise.all(puts);

  expect(await itemsOf(target.id)).toEqual(numbers(20));
  await sql.end();
});

test("what happens after stopStream is in no reader's stream, and what happened before is in all (F50, TF-STR-04)", async () => {
  const stopped = newGate();
  const flow = defineFlow("after-stop");
  flow.to("asks-before", async (ctx) => {
    await ctx.putIntoStream("one");
    return ctx.pauseFor({ type: "before", resumeTo: { event: "Never" } });
  });
  flow.when("Stop").to("stop", async (ctx) => {
    await ctx.stopStream();
    stopped.open();
  });
  flow.when("Ask").to("asks-after", (ctx) => ctx.pauseFor({ type: "after", resumeTo: { event: "Never" } }));
  flow.when("Never").to("never", () => null);
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoClose: false });
  await untilEvent(execution, "interrupt.raised");
  const early = collect(execution.streamItems({ timeout: null }));

  await execution.emit("Stop", null);
  await stopped.passed;
  await execution.emit("Ask", null);
  await untilEvent(execution, "interrupt.raised", ({ kind }) => kind === "after");
  await execution.close({ pendingInterrupts: "cancel" });

  const seen = await early;
  expect(seen.map(({ kind, item }) => kind ?? item)).toEqual(["one", "interrupt"]);
  expect(await collect(execution.streamItems())).toEqual(seen);
});

test("an item that is on its way when another chunk stops the stream is refused (F50)", async () => {
  const { target, streamer, sql } = await owned("stopped-meanwhile");
  await streamer.put(target, "in time", 1).durable;
  await database.sql`update flowledger.executions set stream_ended = true where id = ${target.id}`;

  expect(await refusal(streamer.put(target, "late", 1).durable)).toMatchObject({ code: "USAGE_INVALID" });
  expect(await itemsOf(target.id)).toEqual(["in time"]);
  await sql.end();
});

test("a chunk that goes on after a long sleep puts its items again, behind a mark (LI-HND-08)", async () => {
  const flow = defineFlow("slept");
  flow.to("put", async (ctx) => {
    // What is refused takes no mark away.
    await refusal(ctx.putIntoStream("x".repeat(300_000)));
    await ctx.putIntoStream("a");
    await ctx.sleep("1500ms");
    await ctx.putIntoStream("b");
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, quiet);

  const items = await collect(execution.getRuntimeStream({ timeout: null }));

  expect(items).toEqual(["a", { type: "retry", chunk: "put", attempt: 1 }, "a", "b"]);
});

test("executions that one claim took keep their items apart", async () => {
  const { target, streamer, sql } = await owned("apart", 3);
  const targets = target.ids.map((id) => ({ ...target, id }));

  await Promise.all(numbers(30).map((n) => streamer.put(targets[n % 3] ?? target, n, 1).durable));

  for (const [index, { id }] of targets.entries())
    expect(await itemsOf(id)).toEqual(numbers(30).filter((n) => n % 3 === index));
  await sql.end();
});

test("what was put under a lost lease is in nobody's stream (F50)", async () => {
  const { target, streamer, sql } = await owned("lost");

  const put = streamer.put({ ...target, epoch: target.epoch + 1 }, "late", 1).durable;

  expect(await refusal(put)).toBeInstanceOf(LeaseLostError);
  expect(await itemsOf(target.id)).toEqual([]);
  await sql.end();
});

test("a load whose answer was lost is sent again and is there once, and one behind a gap is fenced", async () => {
  const { target, sql } = await owned("repeated");
  const load = { ...target, no: 1, items: [item("a"), item("b")], marks: [] };
  const next = { ...load, no: 2, items: [item("c")] };

  const answers = await Promise.all([storeOn(sql).streams.put([load]), storeOn(sql).streams.put([load])]);
  const later = [
    await storeOn(sql).streams.put([next]),
    await storeOn(sql).streams.put([load]),
    await storeOn(sql).streams.put([{ ...next, no: 4 }]),
  ];

  expect(answers.flat()).toContain("ok");
  expect(later.flat()).toEqual(["ok", "ok", "fenced"]);
  expect(await itemsOf(target.id)).toEqual(["a", "b", "c"]);
  await sql.end();
});

test("TF-STR-10: a load that shows above is there once as well, in all streams or in none, and a mark says whose it is", async () => {
  const { target, sql } = await owned("shown", 2);
  const [, above = ""] = target.ids;
  const shown = { ...target, visibleIn: target.ids.slice(1) };
  const load = { ...shown, no: 1, items: [item("a")], marks: [] };
  const marks = [{ dispatch: 1, chunk: "put", attempt: 2 }];
  const next = { ...load, no: 2, items: [item("b")], marks };

  const busy = await database.sql.begin(async (tx) => {
    await tx`select 1 from flowledger.executions where id = ${above} for update`;
    return await storeOn(sql).streams.put([load]);
  });
  const answers = [
    await storeOn(sql).streams.put([load]),
    await storeOn(sql).streams.put([load]),
    await storeOn(sql).streams.put([next]),
    await storeOn(sql).streams.put([next]),
  ];

  expect(busy).toEqual(["busy"]);
  expect(answers.flat()).toEqual(["ok", "ok", "ok", "ok"]);
  const mark = { type: "retry", chunk: "put", attempt: 2 };
  expect(await itemsOf(target.id)).toEqual(["a", mark, "b"]);
  expect(await itemsOf(above)).toEqual(["a", { ...mark, executionId: target.id }, "b"]);
  expect(
    await sql`select kind, dispatch from flowledger.stream_items where execution_id = ${above} order by seq`,
  ).toEqual([
    { kind: "subFlow", dispatch: null },
    { kind: "retry", dispatch: null },
    { kind: "subFlow", dispatch: null },
  ]);
  await sql.end();
});

test("a put waits only while more than 256 KB are on their way (F49)", async () => {
  const { target, streamer, sql } = await owned("backlog");
  const item = "x".repeat(100_000);

  const waits = numbers(3).map(() => streamer.put(target, item, 1).admitted !== undefined);
  expect(() => streamer.put(target, "x".repeat(262_143), 1)).toThrow(PayloadError);
  const last = streamer.put(target, "last", 1);
  await last.admitted;
  await last.durable;

  expect(waits).toEqual([false, false, true]);
  expect(await itemsOf(target.id)).toHaveLength(4);
  await sql.end();
});

test("an item that Postgres cannot hold is refused alone: what travels with it arrives (F37)", async () => {
  const { target, streamer, sql } = await owned("poisoned-load", 2);
  const other = { ...target, id: target.ids[1] ?? target.id };

  const bad = streamer.put(target, "a\u0000b", 1).durable;
  const good = streamer.put(other, "good", 1).durable;

  expect(await refusal(bad)).toBeInstanceOf(Error);
  await good;
  expect(await itemsOf(other.id)).toHaveLength(1);
  await sql.end();
});

test("items that were refused leave their room to others (F49)", async () => {
  const { target, streamer, sql } = await owned("room", 2);
  const above = { ...target, maxItems: 4 };
  const below = { ...target, id: target.ids[1] ?? target.id, visibleIn: [target.id] };
  // As a sub-flow does, of which this owner does not know.
  for (const n of numbers(3)) await streamer.put(below, n, 1).durable;

  for (const _ of numbers(2)) {
    const refused = [streamer.put(above, "a", 1), streamer.put(above, "b", 1)];
    for (const { durable } of refused) await expect(durable).rejects.toThrow("maxStreamItems");
  }
  await streamer.put(above, "c", 1).durable;

  expect(await itemsOf(target.id)).toHaveLength(4);
  await sql.end();
});

test("LI-SRV-04: server-sent events carry the cursor, and end with what became of the stream", async () => {
  const flow = defineFlow("to-browser");
  flow.to("put", async (ctx) => {
    await ctx.putIntoStream({ text: "line\nbreak" });
    await ctx.putIntoStream("b");
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, quiet);
  await execution.waitForClose();

  const tag = execution.id.slice(-8);
  const response = toSSE(execution.streamItems({ from: 0 }));
  const refused = toSSE(execution.streamItems({ from: 9 }));

  expect(Object.fromEntries(response.headers)).toEqual({
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
  });
  expect(await response.text()).toBe(
    `: open\n\nid: 1-${tag}\ndata: {"text":"line\\nbreak"}\n\nid: 2-${tag}\ndata: "b"\n\nevent: end\ndata: null\n\n`,
  );
  expect(await refused.text()).toContain('event: failed\ndata: {"code":"USAGE_INVALID"');
  const items: unknown[] = [];
  for await (const item of toReadableStream(execution.getRuntimeStream())) items.push(item);
  expect(items).toEqual([{ text: "line\nbreak" }, "b"]);
});

test("LI-SRV-04: a quiet response beats, and a reader that goes away ends its stream, once", async () => {
  const { promise: left, resolve } = Promise.withResolvers<string>();
  let returns = 0;
  const entries = {
    next: () => new Promise<never>(() => {}),
    return: () => {
      returns += 1;
      resolve("left");
      return Promise.resolve({ done: true as const, value: undefined });
    },
  };
  const gone = new AbortController();
  const response = toSSE({ [Symbol.asyncIterator]: () => entries }, { request: gone, heartbeat: 10 });
  const reader = response.body?.getReader();
  const heard = [await reader?.read(), await reader?.read()].map((chunk) => new TextDecoder().decode(chunk?.value));

  gone.abort();

  expect(heard).toEqual([": open\n\n", ": beat\n\n"]);
  expect(await left).toBe("left");
  await reader?.cancel();
  expect(returns).toBe(1);
});

/** Puts the first item of its input, and the others once the gate is open. */
function gated(name: string): { flow: Flow; gate: ReturnType<typeof newGate> } {
  const gate = newGate();
  const flow = defineFlow(name);
  flow.to("put", async (ctx) => {
    const [first = null, ...others] = Array.isArray(ctx.input) ? ctx.input : [];
    await ctx.putIntoStream(first);
    await gate.passed;
    for (const item of others) await ctx.putIntoStream(item);
  });
  return { flow, gate };
}

/** Executions that this test owns, all of one claim, and a lane to put their items with. */
async function owned(name: string, count = 1) {
  const flow = defineFlow(name);
  flow.to("never", () => null);
  await using orchestrator = visiting(database, [flow]);
  const ids = await orchestrator.flow(flow).startMany(numbers(count));
  const { sql } = openDatabase(database.url, { max: 4 });
  const claims = await storeOn(sql).claims.claim(WorkerId.parse(crypto.randomUUID()), ids);
  const [id] = ids;
  const claimed = id && claims.get(id);
  if (!claimed) throw new Error("nothing was claimed");
  const streamer = new Streamer(storeOn(sql).streams, { notifyReaders: () => {} }, systemTimers);
  const { epoch, token, items } = claimed;
  return { sql, streamer, target: { id, ids, epoch, token, items, maxItems: null, rate: null, recent: [] } };
}

/** Tells when the reader of a stream has left it. */
function watching<T>(items: AsyncGenerator<T, void, undefined>) {
  const { promise: left, resolve } = Promise.withResolvers<void>();
  const leave = items.return.bind(items);
  items.return = (value) => {
    resolve();
    return leave(value);
  };
  return { left, watched: items };
}

/** Everything that was to follow at once has. */
async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

async function itemsOf(id: string): Promise<unknown[]> {
  const rows = await database.sql<{ item: unknown }[]>`
    select item from flowledger.stream_items where execution_id = ${id} order by seq`;
  return rows.map(({ item }) => item);
}

async function transactions(): Promise<number> {
  const [row] = await database.sql<[{ count: number }]>`
    select (xact_commit + xact_rollback)::float8 as count from pg_stat_database where datname = current_database()`;
  return row.count;
}

function urlOptions() {
  const { hostname: host, port, username, password, pathname } = new URL(database.url);
  return { host, port: Number(port), username, password, database: pathname.slice(1) };
}

function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, n) => n);
}

/** An item of dispatch 1, as a load carries it. */
function item(value: string) {
  return { dispatch: 1, text: JSON.stringify(value) };
}

test("what comes while a reader asks is asked for at once, and not when the next wake-up comes (F44)", async () => {
  const { flow, gate } = gated("asked-meanwhile");
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(["a", "b"], quiet);
  const { streams } = storeOn(database.sql);
  let wake = () => {};
  const wakeups = {
    subscribe: (_: string, listener: (isLocal: boolean) => void) => ((wake = () => listener(false)), () => {}),
  };
  await expect.poll(async () => (await streams.pages([{ id: execution.id, after: 0 }]))[0]?.items.length).toBe(1);
  let asked = 0;
  const pages: typeof streams.pages = async (requests) => {
    const found = await streams.pages(requests);
    // The answer is on its way when the item comes, and the wake-up.
    if (++asked === 2) {
      gate.open();
      await execution.waitForClose();
      wake();
    }
    return found;
  };
  const reader = openStreams({ streams: { ...streams, pages }, wakeups }, systemTimers);

  const read = collect(followStream(reader, execution.id, { timeout: null }));
  expect(await Promise.race([read, sleep(3000, "it waits")])).toHaveLength(2);
});

test("a thousand readers of as many executions are served by a database that is slow, however long that takes all of them", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    let statements = 0;
    const streams = {
      pages: async (asked: readonly PageRequest[]) => {
        statements += 1;
        await vi.advanceTimersByTimeAsync(400);
        return asked.map(() => ({ items: [{ seq: 1, kind: null, item: "a" }], last: 1, isEnded: true }));
      },
    };
    const wakeups = { subscribe: () => () => {} };
    const reader = openStreams({ streams: { ...storeOn(database.sql).streams, ...streams }, wakeups }, systemTimers);

    const read = numbers(1000).map((n) => {
      const id = ExecutionId.parse(`0190a000-0000-7000-8000-${String(n).padStart(12, "0")}`);
      return collect(followStream(reader, id, { timeout: null }));
    });

    for (const items of await Promise.all(read)) expect(items).toMatchObject([{ item: "a" }]);
    expect(statements * 400).toBeGreaterThan(10_000);
  } finally {
    vi.useRealTimers();
  }
});

test("a reader that is woken leaves nothing of its wait behind, and the last one of a stream nothing at all", async () => {
  const timers = new ManualTimers();
  let wake: (isLocal: boolean) => void = () => {};
  let subscribed = 0;
  const subscribe = (_: ExecutionId, listener: typeof wake) => {
    wake = listener;
    subscribed += 1;
    return () => (subscribed -= 1);
  };
  const page = { items: [], last: 0, isEnded: false };
  const streams = openStreams(
    {
      streams: { put: async () => [], recentPuts: async () => [], pages: async (asked) => asked.map(() => page) },
      wakeups: { subscribe },
    },
    timers,
  );
  const id = ExecutionId.parse("01900000-0000-7000-8000-000000000001");
  const [reader, other] = [streams.open(id), streams.open(id)];
  const { signal } = new AbortController();

  for (let times = 0; times < 3; times++) {
    await reader.read(0);
    const changed = reader.changed(10_000, signal);
    expect(timers.waiting).toBe(1);
    wake(false);
    await changed;
  }

  expect(timers.waiting).toBe(0);
  expect(getEventListeners(signal, "abort")).toHaveLength(0);
  reader.close();
  expect(subscribed).toBe(1);
  other.close();
  expect(subscribed).toBe(0);
});

test("who takes an execution over counts what was put of late, and no more, for its rate", () => {
  const timers = new ManualTimers();
  timers.pass(10_000);
  const streams = { put: () => new Promise<never>(() => {}) };
  const streamer = new Streamer(streams, { notifyReaders: () => {} }, timers);
  const id = ExecutionId.parse("01900000-0000-7000-8000-000000000001");
  const target = {
    id,
    epoch: 2,
    token: "t",
    items: 1,
    maxItems: null,
    rate: { limit: 3, perMs: 1000 },
    recent: [9900],
  };
  const put = () => streamer.put(target, "item", 1);

  put();
  put();
  expect(put).toThrow(StreamLimitError);

  timers.pass(900);
  put();
  expect(put).toThrow(StreamLimitError);
});

test("a command that its own process claims with tells the readers, and one that it does not the owner", async () => {
  const told: string[] = [];
  const wakeups = { notifyReaders: () => told.push("readers"), notifyOwner: () => told.push("owner") };
  const id = ExecutionId.parse("01900000-0000-7000-8000-000000000001");
  for (const isClaimed of [true, false]) {
    const sender = { send: async () => ({ answer: null, isClaimed }) };
    // Of the store only what is asked here.
    const store = { commands: {}, wakeups } as unknown as Parameters<typeof sendCommand>[0];
    await sendCommand(store, sender as unknown as Sender, id, "f", async () => null);
  }

  expect(told).toEqual(["readers", "owner"]);
});
