/** The handler of one run: awaited, streamed to its end, cancelled. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { z } from "zod";
import {
  ContractError,
  ConnectionError,
  createOrchestrator,
  defineFlow,
  ExecutionCancelledError,
  ExecutionFailedError,
  StreamConsumedError,
} from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { collect, newGate, refusal, serving, untilEvent, visiting } from "../support/flows.ts";

const database = await testDatabase();

test("run gives a handler at once, with the id that the execution will have (LI-HND-01)", async () => {
  const flow = defineFlow("at-once");
  flow.to("answer", (ctx) => ({ hello: String(ctx.input) }));
  await using orchestrator = await serving(database, [flow]);

  const handler = orchestrator.flow(flow).run("world");

  expect([handler.id, handler.isDone(), handler.getStopEvent()]).toEqual([handler.execution.id, false, null]);
  await handler;
  expect(await handler.execution.result.getMeta()).toMatchObject({ executionId: handler.id, status: "completed" });
});

test("awaiting gives what setResult or end() wrote, else the close snapshot (LI-HND-02)", async () => {
  const plain = defineFlow("result-plain");
  plain.to("write", (ctx) => ctx.setState("greeting", "hello"));
  const explicit = defineFlow("result-explicit");
  explicit.to("write", async (ctx) => {
    await ctx.setState("greeting", "hello");
    await ctx.setResult(42);
  });
  const ended = defineFlow("result-end");
  ended.to("last", () => ({ n: 7 })).end();
  await using orchestrator = await serving(database, [plain, explicit, ended]);

  expect(await orchestrator.flow(plain).run()).toEqual({ greeting: "hello" });
  expect(await orchestrator.flow(explicit).run()).toBe(42);
  expect(await orchestrator.flow(ended).run()).toEqual({ n: 7 });
});

test("every awaiter gets the same result, whenever it comes (LI-HND-03)", async () => {
  const flow = defineFlow("same-result");
  flow.to("last", () => ({ list: [1, 2] })).end();
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run();

  const [first, second] = await Promise.all([handler, handler]);
  const third = await handler;

  expect(second).toBe(first);
  expect(third).toBe(first);
});

test("the stop event is null before the end and tells of it after (LI-HND-04, LI-HND-05, LI-HND-06)", async () => {
  const gate = newGate();
  const flow = defineFlow("stop-event");
  flow
    .to("wait", async () => {
      await gate.passed;
      return "done";
    })
    .end();
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run();
  expect([handler.getStopEvent(), handler.isDone()]).toEqual([null, false]);

  gate.open();

  expect(await handler.stopEventResult()).toEqual({ type: "stop", result: "done" });
  expect([handler.getStopEvent(), handler.isDone()]).toEqual([{ type: "stop", result: "done" }, true]);
});

test("events come live and in order, and the stop event is the last (LI-HND-07)", async () => {
  const gate = newGate();
  const flow = defineFlow("live-events", { stream: z.object({ n: z.number() }) });
  flow.to("talk", async (ctx) => {
    await ctx.putIntoStream({ n: 1 });
    await gate.passed;
    await ctx.putIntoStream({ n: 2 });
  });
  await using orchestrator = await serving(database, [flow]);

  const seen: unknown[] = [];
  for await (const event of orchestrator.flow(flow).run().streamEvents()) {
    seen.push(event);
    gate.open();
  }

  expect(seen).toEqual([{ n: 1 }, { n: 2 }, { type: "stop", result: {} }]);
});

test("internal events are there only when asked for, in their place (LI-HND-08)", async () => {
  const failed = new Set<string>();
  const flow = defineFlow("internal-events");
  flow.to(
    "flaky",
    async (ctx) => {
      await ctx.putIntoStream("said");
      if (!failed.has(ctx.execution.id)) {
        failed.add(ctx.execution.id);
        throw new Error("once");
      }
    },
    { retry: { maxAttempts: 2, initialInterval: 50 } },
  );
  await using orchestrator = await serving(database, [flow]);
  const [all, own] = [orchestrator.flow(flow).run(), orchestrator.flow(flow).run()];

  expect(await collect(all.streamEvents({ exposeInternal: true }))).toEqual([
    "said",
    { type: "retry", chunk: "flaky", attempt: 2 },
    "said",
    { type: "stop", result: {} },
  ]);
  expect(await collect(own.streamEvents())).toEqual(["said", "said", { type: "stop", result: {} }]);
});

test("events that were read to their end are refused at the first iteration (LI-HND-09)", async () => {
  const flow = defineFlow("consumed");
  flow.to("talk", (ctx) => ctx.putIntoStream("a"));
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run();
  await collect(handler.streamEvents());

  const again = handler.streamEvents();

  expect(await refusal(again.next())).toBeInstanceOf(StreamConsumedError);
  expect(await collect(handler.execution.getRuntimeStream())).toEqual(["a"]);
});

test("a reader that breaks off while others wait leaves them what comes", async () => {
  const gate = newGate();
  const flow = defineFlow("left-waiting");
  flow.to("talk", async (ctx) => {
    await gate.passed;
    await ctx.putIntoStream(1);
  });
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run();
  const [stays, leaves] = [handler.streamEvents(), handler.streamEvents()];
  const next = stays.next();
  void leaves.next();

  const left = leaves.return();
  gate.open();

  expect(await next).toEqual({ done: false, value: 1 });
  await left;
});

test("a reader that breaks off is followed at the next unread event (LI-HND-10)", async () => {
  const flow = defineFlow("broken-off");
  flow.to("talk", async (ctx) => {
    for (let n = 1; n <= 5; n++) await ctx.putIntoStream(n);
  });
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run();

  const first: unknown[] = [];
  for await (const event of handler.streamEvents()) if (first.push(event) === 2) break;

  expect(first).toEqual([1, 2]);
  expect(await collect(handler.streamEvents())).toEqual([3, 4, 5, { type: "stop", result: {} }]);
});

test("a run that ended before anybody read still has all its events (LI-HND-11)", async () => {
  const flow = defineFlow("read-late");
  flow.to("talk", async (ctx) => {
    await ctx.putIntoStream("a");
    await ctx.stopStream();
  });
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run();
  await handler;

  expect(await collect(handler.streamEvents())).toEqual(["a", { type: "stop", result: {} }]);
});

test("cancelRun ends the run and never throws, also after the end (LI-HND-12, LI-TRM-03)", async () => {
  const flow = defineFlow("cancelled");
  flow.to("wait", (ctx) => sleep(60_000, null, { signal: ctx.signal }));
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run();
  const events = collect(handler.streamEvents());
  await untilEvent(handler.execution, "execution.claimed");

  await handler.cancelRun();
  await handler.cancelRun({ timeout: null });

  expect(handler.isDone()).toBe(true);
  expect(await refusal(Promise.resolve(handler))).toBeInstanceOf(ExecutionCancelledError);
  expect(handler.getStopEvent()).toEqual({ type: "cancelled", reason: "cancelled" });
  expect(await events).toEqual([{ type: "cancelled", reason: "cancelled" }]);
});

test("cancelRun waits no longer than its timeout (AMB-22)", async () => {
  const gate = newGate();
  const flow = defineFlow("does-not-hear");
  flow.to("hold", () => gate.passed);
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run();
  await untilEvent(handler.execution, "execution.claimed");

  await handler.cancelRun({ timeout: 50 });

  expect(handler.isDone()).toBe(false);
  gate.open();
});

test("sendEvent reaches the chunks that hear it (LI-HND-13)", async () => {
  const flow = defineFlow("sent", { events: { Said: z.object({ word: z.string() }) } });
  flow.to("ask", (ctx) => ctx.pauseFor({ resumeTo: { event: "Said" } }));
  flow
    .when("Said")
    .to("hear", (ctx) => ctx.input.word)
    .end();
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run();
  await untilEvent(handler.execution, "interrupt.raised");

  await handler.sendEvent("Said", { word: "yes" });

  expect(await handler).toBe("yes");
});

test("an event that is sent before the run has begun is delivered as well (LI-HIT-02)", async () => {
  const gate = newGate();
  const flow = defineFlow("sent-early", { events: { Said: z.string() } });
  flow.to("hold", () => gate.passed);
  flow.when("Said").to("hear", async (ctx) => {
    await ctx.setState("heard", ctx.input);
    gate.open();
  });
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run();

  await handler.sendEvent("Said", "at once");

  expect(await handler).toEqual({ heard: "at once" });
});

test("an event that nobody hears is in the ledger and nowhere else, one outside the contract is refused (LI-HIT-03)", async () => {
  const gate = newGate();
  const flow = defineFlow("unheard-of", { events: { Said: z.string(), Never: z.null() } });
  flow.to("hold", () => gate.passed);
  flow.when("Said").to("hear", (ctx) => ctx.setState("heard", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run();

  await handler.sendEvent("Never", null);
  const refused = await refusal(handler.sendEvent("Nobody" as "Never", null));
  gate.open();

  expect(refused).toBeInstanceOf(ContractError);
  expect(await collect(handler.streamEvents({ exposeInternal: true }))).toEqual([{ type: "stop", result: {} }]);
  expect(await handler.execution.history({ types: ["event.emitted"] })).toMatchObject([{ event: "Never" }]);
});

test("a chunk that fails for the last time ends the stream with what it was (LI-TRM-01, AMB-20)", async () => {
  const flow = defineFlow("failing");
  flow.to(
    "break",
    () => {
      throw new RangeError("too far");
    },
    { retry: { maxAttempts: 2, initialInterval: 1 } },
  );
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run();

  const [stop] = await collect(handler.streamEvents());

  const error = { name: "RangeError", message: "too far" };
  expect(stop).toEqual({ type: "failed", error, chunk: "break", attempts: 2 });
  expect(handler.getStopEvent()).toBe(stop);
  const thrown = await refusal(handler.stopEventResult());
  expect(thrown).toBeInstanceOf(ExecutionFailedError);
  expect(thrown).toMatchObject({ cause: error });
});

test("a run that takes too long names what was running (LI-TRM-02)", async () => {
  const flow = defineFlow("too-long");
  flow.to("slow", (ctx) => sleep(60_000, null, { signal: ctx.signal }));
  await using orchestrator = await serving(database, [flow]);

  const handler = orchestrator.flow(flow).run(null, { timeout: 150 });

  expect(await refusal(Promise.resolve(handler))).toBeInstanceOf(ExecutionFailedError);
  expect(handler.getStopEvent()).toEqual({ type: "timedOut", timeoutMs: 150, activeChunks: ["slow"] });
});

test("what is wrong with the start rejects the handler, its reader and nothing else (TF-STR-07, LI-STP-04)", async () => {
  const unhandled: unknown[] = [];
  const listen = (reason: unknown) => void unhandled.push(reason);
  process.on("unhandledRejection", listen);
  const flow = defineFlow("bad-start", { input: z.object({ n: z.number() }) });
  flow.to("never", () => null);
  await using orchestrator = visiting(database);
  await using nowhere = createOrchestrator({ connection: "postgres://127.0.0.1:1/none" });

  const handler = orchestrator.flow(flow).run({ n: "one" } as unknown as { n: number });
  const unreachable = nowhere.flow(flow).run({ n: 1 });
  orchestrator.flow(flow).run({ n: "ignored" } as unknown as { n: number });

  expect(await refusal(Promise.resolve(handler))).toBeInstanceOf(ContractError);
  expect(await refusal(collect(handler.streamEvents()))).toBeInstanceOf(ContractError);
  expect(await refusal(Promise.resolve(unreachable))).toBeInstanceOf(ConnectionError);
  expect(handler.getStopEvent()).toMatchObject({ type: "failed", chunk: null, attempts: 0 });
  await handler.cancelRun();
  process.off("unhandledRejection", listen);
  expect(unhandled).toEqual([]);
});

test("a handler's execution takes commands and gives answers right after run(), and says what was wrong with the start", async () => {
  const flow = defineFlow("handled-early", { input: z.string(), events: { Said: z.string() } });
  flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask" })).end();
  flow.when("Said").to("hear", (ctx) => ctx.setState("heard", ctx.input));
  await using orchestrator = await serving(database, [flow]);
  const handler = orchestrator.flow(flow).run("in");
  const { execution } = handler;

  const [meta, history] = await Promise.all([
    execution.result.getMeta(),
    execution.history(),
    execution.emit("Said", "early"),
  ]);
  expect([meta.startInput, history[0]?.type]).toEqual(["in", "execution.created"]);

  const questions: unknown[] = [];
  for await (const event of handler.streamEvents()) {
    questions.push(event);
    if (typeof event === "object" && event !== null && "action" in event) await execution.continueWith("ask", "yes");
  }
  expect(questions).toMatchObject([
    { type: "interrupt", action: "pause", interrupt: { id: "ask", status: "pending" } },
    { type: "stop", result: "yes" },
  ]);
  const wrong = orchestrator.flow(flow).run(JSON.parse("1"));
  expect(await refusal(wrong.execution.history())).toMatchObject({ code: "CONTRACT_VIOLATED" });
  expect(await refusal(wrong.execution.cancel())).toMatchObject({ code: "CONTRACT_VIOLATED" });
  expect(await refusal(Promise.resolve(wrong))).toMatchObject({ code: "CONTRACT_VIOLATED" });
});
