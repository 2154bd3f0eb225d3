/** Traces, as an SDK exports them. */
import * as api from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
  type ReadableSpan,
  type Sampler,
} from "@opentelemetry/sdk-trace-base";
import postgres from "postgres";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { z } from "zod";
import { createOrchestrator, defineFlow, type Execution, jsonLogger } from "../../src/index.ts";
import type { ChunkOptions, Ctx, TelemetryOptions } from "../../src/index.ts";
import { AttemptTrace } from "../../src/telemetry/attempt-trace.ts";
import { isTraceApi, type Span, type TraceApi, type Tracer } from "../../src/telemetry/otel.ts";
import type { TestOrchestrator } from "../../src/test.ts";
import { testDatabase } from "../support/database.ts";
import { untilPending } from "../support/doors.ts";
import { kit } from "../support/kit.ts";
import { newGate, serving, untilEvent, visiting, warningsOf } from "../support/flows.ts";

const exporter = new InMemorySpanExporter();
let isSampling = true;
const sampler: Sampler = {
  shouldSample: () => ({ decision: isSampling ? 2 : 0 }),
  toString: () => "as the test says",
};
const database = await testDatabase();

beforeAll(() => {
  api.context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  api.trace.setGlobalTracerProvider(
    new BasicTracerProvider({ sampler, spanProcessors: [new SimpleSpanProcessor(exporter)] }),
  );
});
afterAll(() => {
  api.trace.disable();
  api.context.disable();
});
beforeEach(() => {
  exporter.reset();
  isSampling = true;
});

function spans(id: string, name?: string): ReadableSpan[] {
  return exporter
    .getFinishedSpans()
    .filter((span) => span.attributes["flowledger.execution.id"] === id && (name === undefined || span.name === name));
}

async function span(id: string, name: string): Promise<ReadableSpan> {
  return await vi.waitFor(
    () => {
      const found = spans(id, name).at(-1);
      if (!found)
        throw new Error(
          `no ${name} among ${spans(id)
            .map((one) => one.name)
            .join(", ")}`,
        );
      return found;
    },
    { timeout: 8000 },
  );
}

function traceOf(one: ReadableSpan): string {
  return one.spanContext().traceId;
}

function linked(one: ReadableSpan): unknown[] {
  return one.links.map(({ context, attributes }) => [attributes?.["flowledger.link"], context.spanId]);
}

/** An active span of the caller's. */
async function within<T>(work: (caller: api.Span) => Promise<T>): Promise<T> {
  return await api.trace.getTracer("caller").startActiveSpan("caller", async (caller) => {
    try {
      return await work(caller);
    } finally {
      caller.end();
    }
  });
}

const atWork = defineFlow("traced");
atWork
  .to("first", async (ctx) => {
    await ctx.step("book", () => api.trace.getTracer("user").startSpan("inside").end());
    return ctx.traceparent;
  })
  .to("second", (ctx) => ctx.input);

test("an execution is one trace: a short root at the start, chunks below it, linked both ways to the caller's", async () => {
  await using orchestrator = await serving(database, [atWork]);

  const [execution, caller] = await within(async (caller) => {
    const started = await orchestrator.flow(atWork).startExecution(null, { metadata: { secret: "payload" } });
    return [started, caller] as const;
  });
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "second");

  const root = await span(execution.id, "start traced");
  const [queue, first, second] = await Promise.all(
    ["queue traced", "chunk traced/first", "chunk traced/second"].map((name) => span(execution.id, name)),
  );
  const { trace } = await execution.result.getMeta();
  expect(trace).toBe(`00-${traceOf(root)}-${root.spanContext().spanId}-01`);
  expect(root.kind).toBe(api.SpanKind.PRODUCER);
  expect(root.parentSpanContext).toBeUndefined();
  expect(linked(root)).toEqual([["start", caller.spanContext().spanId]]);
  expect(traceOf(root)).not.toBe(caller.spanContext().traceId);
  for (const child of [queue, first, second]) {
    expect(child?.parentSpanContext?.spanId).toBe(root.spanContext().spanId);
    expect(child && traceOf(child)).toBe(traceOf(root));
  }
  expect(first?.kind).toBe(api.SpanKind.CONSUMER);
  expect(first?.attributes).toMatchObject({
    "flowledger.flow": "traced",
    "flowledger.chunk": "first",
    "flowledger.attempt": 1,
    "flowledger.epoch": 1,
    "flowledger.outcome": "completed",
    "flowledger.fingerprint": atWork.fingerprint,
  });
  // What the chunk calls joins by itself; steps have no span unless asked for.
  const finished = exporter.getFinishedSpans();
  expect(finished.find(({ name }) => name === "inside")?.parentSpanContext?.spanId).toBe(first?.spanContext().spanId);
  expect(finished.some(({ name }) => name.startsWith("step"))).toBe(false);
  const callers = finished.find(({ name }) => name === "caller");
  expect(callers && linked(callers)).toEqual([["execution", root.spanContext().spanId]]);
  expect(JSON.stringify(finished.map(({ attributes, events }) => [attributes, events]))).not.toContain("payload");
});

test("with trace: child the spans are in the caller's trace, and detail: steps shows steps", async () => {
  const telemetry: TelemetryOptions = { trace: "child", detail: "steps" };
  await using orchestrator = await serving(database, [atWork], { telemetry });

  const [execution, caller] = await within(
    async (caller) => [await orchestrator.flow(atWork).startExecution(null), caller] as const,
  );

  const step = await span(execution.id, "step book");
  const chunk = await span(execution.id, "chunk traced/first");
  expect(traceOf(chunk)).toBe(caller.spanContext().traceId);
  expect(step.parentSpanContext?.spanId).toBe(chunk.spanContext().spanId);
  expect(step.attributes["flowledger.step"]).toBe("book");
});

test("with detail: steps a transaction has a span until its commit, which is active in its work", async () => {
  const paying = defineFlow("traced.paying");
  const active: (string | undefined)[] = [];
  paying.to(
    "pay",
    async (ctx) => {
      await ctx.transaction("book", async (tx) => {
        await tx.query("select 1");
        active.push(api.trace.getActiveSpan()?.spanContext().spanId);
        if (ctx.attempt === 1) throw new RangeError("a secret");
      });
    },
    { retry: { maxAttempts: 2, initialInterval: "10ms" } },
  );
  await using orchestrator = await serving(database, [paying], { telemetry: { detail: "steps" } });
  const execution = await orchestrator.flow(paying).startExecution(null, { autoClose: false });
  await untilEvent(execution, "chunk.completed");

  const attempts = spans(execution.id, "chunk traced.paying/pay");
  const [failed, booked] = spans(execution.id, "transaction book");
  expect(active).toEqual([failed?.spanContext().spanId, booked?.spanContext().spanId]);
  expect([failed, booked].map((one) => one?.parentSpanContext?.spanId)).toEqual(
    attempts.map((one) => one.spanContext().spanId),
  );
  expect(failed?.attributes).toMatchObject({ "flowledger.step": "book", "error.type": "RangeError" });
  expect(JSON.stringify(failed?.attributes)).not.toContain("secret");
  expect(booked?.attributes["error.type"]).toBeUndefined();
});

test("trace: off, and a start that was sampled out, have no span anywhere", async () => {
  await using off = await serving(database, [atWork], { telemetry: { trace: "off" } });
  await off.flow(atWork).start(null);
  await off.close();
  isSampling = false;
  await using orchestrator = await serving(database, [atWork]);
  const execution = await orchestrator.flow(atWork).startExecution(null, { autoClose: false });
  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "second");

  // The caller's word counts, whatever the sampler of this process says.
  isSampling = true;
  const [row] = await database.sql<{ id: string }[]>`
    select flowledger.start('traced', 'null', '{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"}') as id`;
  const given = await orchestrator.getExecution(row?.id ?? "");
  await untilEvent(given, "chunk.completed", ({ chunk }) => chunk === "second");

  const ours = exporter.getFinishedSpans().filter((one) => one.instrumentationScope.name === "flowledger");
  expect(ours.map(({ name }) => name)).toEqual([]);
  expect((await execution.result.getMeta()).trace).toMatch(/-00$/);
});

test("a start by SQL belongs to the trace it names; without one the first owner makes the root, for all owners", async () => {
  await using orchestrator = await serving(database, [atWork]);
  const given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

  const rows = await database.sql<{ named: string; none: string }[]>`
    select flowledger.start('traced', 'null', jsonb_build_object('traceparent', ${given}::text)) as named,
      flowledger.start('traced', 'null') as none`;
  const { named = "", none = "" } = rows[0] ?? {};
  const chunk = await span(named, "chunk traced/second");
  const own = await span(none, "chunk traced/second");

  expect(chunk.parentSpanContext?.spanId).toBe("00f067aa0ba902b7");
  expect(traceOf(chunk)).toBe("4bf92f3577b34da6a3ce929d0e0e4736");
  const root = await span(none, "start traced");
  expect(own.parentSpanContext?.spanId).toBe(root.spanContext().spanId);
  const meta = await (await orchestrator.getExecution(none)).result.getMeta();
  expect(meta.trace).toContain(root.spanContext().spanId);
});

test("a retry links to the attempt before it, and that one has the name of its error and no message", async () => {
  const failing = defineFlow("retrying");
  failing.to(
    "try",
    (ctx) => {
      if (ctx.attempt === 1) throw new RangeError("a secret");
    },
    { retry: { maxAttempts: 2, initialInterval: 1 } },
  );
  await using orchestrator = await serving(database, [failing]);
  const execution = await orchestrator.flow(failing).startExecution(null, { autoClose: false });
  await untilEvent(execution, "chunk.completed");

  const [first, second] = await vi.waitFor(() => {
    const both = spans(execution.id, "chunk retrying/try");
    expect(both).toHaveLength(2);
    return both;
  });
  expect(first?.attributes).toMatchObject({ "error.type": "RangeError", "flowledger.outcome": "retried" });
  expect(first?.status.code).toBe(api.SpanStatusCode.ERROR);
  expect(second && linked(second)).toEqual([["retry", first?.spanContext().spanId]]);
  expect(JSON.stringify(first?.attributes)).not.toContain("secret");
});

test("what a person took is a span of its own afterwards, no span stays open meanwhile, and all is one trace", async () => {
  const asking = defineFlow("asked");
  asking.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" })).to("keep", (ctx) => ctx.input);
  await using orchestrator = await serving(database, [asking]);
  const execution = await orchestrator.flow(asking).startExecution(null, { autoClose: false });
  await untilPending(execution);
  const ask = await span(execution.id, "chunk asked/ask");
  expect(ask.attributes["flowledger.outcome"]).toBe("paused");

  await database.sql`select flowledger.continue_with(${execution.id}, 'q', '1', null, 'ann')`;

  const wait = await span(execution.id, "wait asked/ask");
  const keep = await span(execution.id, "chunk asked/keep");
  const [raised] = await execution.history({ types: ["interrupt.raised"] });
  expect(api.isSpanContextValid(wait.spanContext())).toBe(true);
  expect(Math.abs(wait.startTime[0] * 1000 + wait.startTime[1] / 1e6 - (raised?.at.getTime() ?? 0))).toBeLessThan(5);
  expect(new Set(spans(execution.id).map(traceOf))).toEqual(new Set([traceOf(keep)]));
});

test("a pause links to the span of who answered it, before or after the question, by the library and by SQL", async () => {
  const asking = defineFlow("linked", { events: { Ask: z.string() } });
  asking.when("Ask").to("ask", (ctx) => ctx.pauseFor({ interruptId: ctx.input }));
  await using orchestrator = await serving(database, [asking]);
  const execution = await orchestrator.flow(asking).startExecution(null, { autoClose: false });
  const given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  const seen: string[] = [];
  const answerOf = async (id: string) => {
    await untilEvent(execution, "interrupt.resumed", (event) => event.id === id);
    return await vi.waitFor(() => {
      const [found] = spans(execution.id, "wait linked/ask").filter((one) => !seen.includes(one.spanContext().spanId));
      if (!found) throw new Error(`no span of the pause ${id}`);
      seen.push(found.spanContext().spanId);
      return linked(found);
    });
  };

  await execution.emit("Ask", "library");
  await untilPending(execution);
  const caller = await within(async (active) => {
    await execution.continueWith("library", 1);
    return active.spanContext().spanId;
  });
  expect(await answerOf("library")).toEqual([["answer", caller]]);
  await execution.continueWith("early", 1, { traceparent: given });
  await execution.emit("Ask", "early");
  expect(await answerOf("early")).toEqual([["answer", "00f067aa0ba902b7"]]);
  await database.sql`select flowledger.continue_with(${execution.id}, 'sql', '1', ${database.sql.json({ traceparent: given })})`;
  await execution.emit("Ask", "sql");
  expect(await answerOf("sql")).toEqual([["answer", "00f067aa0ba902b7"]]);
  const warnings = await warningsOf(() => execution.continueWith("bad", 1, { traceparent: "00-xyz" }));
  expect(warnings).toMatchObject([{ code: "TRACEPARENT_MALFORMED" }]);
  await execution.emit("Ask", "bad");
  expect(await answerOf("bad")).toEqual([]);
  await database.sql`select flowledger.continue_with(${execution.id}, 'worse', '1', '{"traceparent": "00-xyz"}')`;
  await expect(
    database.sql`select flowledger.continue_with(${execution.id}, 'none', '1', '{"traceparent": 7}')`,
  ).rejects.toMatchObject({ code: "FL008" });
  await using plain = visiting(database, [asking], { telemetry: { trace: "off" } });
  await within(() => plain.getExecution(execution.id).then((handle) => handle.continueWith("untraced", 1)));
  await execution.emit("Ask", "untraced");
  await untilEvent(execution, "interrupt.resumed", ({ id }) => id === "untraced");
  isSampling = false;
  await within(() => execution.continueWith("unsampled", 1));
  isSampling = true;
  const answered = await execution.history({ types: ["interrupt.answered"] });
  expect(answered.map((event) => [Reflect.get(event, "id"), Reflect.get(event, "traceparent")])).toEqual([
    ["early", given],
    ["sql", given],
    ["bad", undefined],
    ["worse", undefined],
    ["untraced", undefined],
    ["unsampled", undefined],
  ]);
  expect(JSON.stringify(await execution.history({ types: ["interrupt.answered"] }))).not.toContain("xyz");
});

test("a pause links to the span of who emitted what it waited for, before or after the question, by the library and by SQL", async () => {
  const asking = defineFlow("linked.event", { events: { Ask: z.string(), Go: z.null() } });
  asking.when("Ask").to("ask", (ctx) => ctx.pauseFor({ interruptId: ctx.input, resumeTo: { event: "Go" } }));
  asking.when("Go").to("go", () => null);
  await using orchestrator = await serving(database, [asking]);
  const given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  const answered = async (send: (execution: Execution) => Promise<unknown>, isEarly = false) => {
    const execution = await orchestrator.flow(asking).startExecution(null, { autoClose: false });
    if (isEarly) await send(execution);
    await execution.emit("Ask", "q");
    if (!isEarly) {
      await untilPending(execution);
      await send(execution);
    }
    return linked(await span(execution.id, "wait linked.event/ask"));
  };
  const emit = (traceparent?: string) => (execution: Execution) =>
    execution.emit("Go", null, traceparent === undefined ? {} : { traceparent });
  const bySql = (traceparent: string) => (execution: Execution) =>
    database.sql`select flowledger.emit(${execution.id}, 'Go', 'null', null, null, true, true, ${traceparent})`;

  for (const isEarly of [false, true]) {
    let caller = "";
    const active = (execution: Execution) =>
      within(async (one) => {
        caller = one.spanContext().spanId;
        await execution.emit("Go", null);
      });
    expect(await answered(active, isEarly)).toEqual([["answer", caller]]);
    expect(await answered(emit(given), isEarly)).toEqual([["answer", "00f067aa0ba902b7"]]);
    expect(await answered(bySql(given), isEarly)).toEqual([["answer", "00f067aa0ba902b7"]]);
    expect(await answered(bySql("00-xyz"), isEarly)).toEqual([]);
    expect(await answered(emit(), isEarly)).toEqual([]);
  }
  expect(await warningsOf(() => answered(emit("00-xyz")))).toMatchObject([{ code: "TRACEPARENT_MALFORMED" }]);
});

test("a pause of a sub-flow links to the span of who emitted to it what it waited for, by the library and by SQL", async () => {
  const below = defineFlow("linked.below", { events: { Go: z.null() } });
  below.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", resumeTo: { event: "Go" } }));
  below.when("Go").to("go", () => null);
  const above = defineFlow("linked.above");
  above.toSubFlow(below);
  await using orchestrator = await serving(database, [above]);
  const given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  const answered = async (send: (execution: Execution, frame: string) => Promise<unknown>) => {
    const execution = await orchestrator.flow(above).startExecution(null);
    await untilPending(execution);
    const [frame] = await execution.getSubFlowFrames();
    if (!frame) throw new Error("no sub-flow");
    await send(execution, frame.id);
    return linked(await span(frame.id.split(":").at(-1) ?? "", "wait linked.below/ask"));
  };
  const bySql = (traceparent: string) => (execution: Execution, frame: string) =>
    database.sql`select flowledger.emit_to_sub_flow(${execution.id}, ${frame}, 'Go', 'null', null, null, true, true, ${traceparent})`;
  const byLibrary = (traceparent?: string) => (execution: Execution, frame: string) =>
    execution.emitToSubFlow(frame, "Go", null, traceparent === undefined ? {} : { traceparent });

  let caller = "";
  const active = (execution: Execution, frame: string) =>
    within(async (one) => {
      caller = one.spanContext().spanId;
      await byLibrary()(execution, frame);
    });
  expect(await answered(active)).toEqual([["answer", caller]]);
  for (const by of [byLibrary, bySql]) expect(await answered(by(given))).toEqual([["answer", "00f067aa0ba902b7"]]);
  expect(await answered(bySql("00-xyz"))).toEqual([]);
  expect(await answered(byLibrary())).toEqual([]);
  expect(await warningsOf(() => answered(byLibrary("00-xyz")))).toMatchObject([{ code: "TRACEPARENT_MALFORMED" }]);
});

test("a pause links to the span of who answered it by a link, in a process that does nothing else, and by SQL", async () => {
  const asking = defineFlow("linked.mail");
  const tokens: string[] = [];
  asking.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q", link: true }));
  asking.when("$interrupt").to("mail", (ctx) => {
    const [, token] = /\/a\/(.*)$/.exec(ctx.input.link ?? "") ?? [];
    if (token !== undefined) tokens.push(token);
  });
  await using orchestrator = await serving(database, [asking], { publicUrl: "https://example.com" });
  const given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  const answered = async (answer: (token: string) => Promise<string>) => {
    const execution = await orchestrator.flow(asking).startExecution(null, { autoClose: false });
    await vi.waitFor(() => expect(tokens).toHaveLength(1), { timeout: 8000 });
    const expected = await answer(tokens.pop() ?? "");
    expect(linked(await span(execution.id, "wait linked.mail/ask"))).toEqual(
      expected === "" ? [] : [["answer", expected]],
    );
  };

  await answered(async (token) => {
    await using other = visiting(database);
    return await within(async (active) => {
      await other.answerByToken(token, 1);
      return active.spanContext().spanId;
    });
  });
  await answered(async (token) => {
    await orchestrator.answerByToken(token, 1, { traceparent: given });
    return "00f067aa0ba902b7";
  });
  await answered(async (token) => {
    await database.sql`select flowledger.answer_by_token(${token}, '1', ${database.sql.json({ traceparent: given })})`;
    return "00f067aa0ba902b7";
  });
  await answered(async (token) => {
    const warnings = await warningsOf(() => orchestrator.answerByToken(token, 1, { traceparent: "00-xyz" }));
    expect(warnings).toMatchObject([{ code: "TRACEPARENT_MALFORMED" }]);
    return "";
  });
  await answered(async (token) => {
    await database.sql`select flowledger.answer_by_token(${token}, '1', '{"traceparent": "00-xyz"}')`;
    return "";
  });
});

test("telemetry: { waits: false } leaves out the spans of pauses and sleeps, and nothing else", async () => {
  const brief = defineFlow("traced.brief");
  brief.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" })).to("keep", (ctx) => ctx.input);
  await using orchestrator = await serving(database, [brief], { telemetry: { waits: false } });
  const execution = await orchestrator.flow(brief).startExecution(null, { autoClose: false });
  await untilPending(execution);
  await execution.continueWith("q", 1);
  await span(execution.id, "chunk traced.brief/keep");

  expect(new Set(spans(execution.id).map(({ name }) => name))).toEqual(
    new Set(["start traced.brief", "queue traced.brief", "chunk traced.brief/ask", "chunk traced.brief/keep"]),
  );
});

test("an attempt that waits without a worker ends its span, and the sleep is a span afterwards", async () => {
  const sleeping = defineFlow("traced.sleep");
  sleeping.to("nap", async (ctx) => await ctx.sleep("1500ms"));
  await using orchestrator = await serving(database, [sleeping]);
  const execution = await orchestrator.flow(sleeping).startExecution(null, { autoClose: false });

  const parked = await span(execution.id, "chunk traced.sleep/nap");
  expect(parked.attributes["flowledger.outcome"]).toBe("waiting");
  await untilEvent(execution, "chunk.completed");
  const sleep = await span(execution.id, "sleep traced.sleep/nap");
  const ms = sleep.duration[0] * 1000 + sleep.duration[1] / 1e6;
  expect(ms).toBeGreaterThan(1400);
  expect(ms).toBeLessThan(1700);
  expect(sleep.attributes).toMatchObject({ "flowledger.chunk": "nap", "flowledger.attempt": 1 });
});

test("an attempt that lost its worker ends its span, and the next owner's links to the claim before", async () => {
  const [begun, gate] = [newGate(), newGate()];
  const held = defineFlow("traced.held");
  held.to("hold", async () => {
    begun.open();
    await gate.passed;
  });
  await using own = await testDatabase();
  const lines: string[] = [];
  const logger = jsonLogger({ write: (line) => lines.push(line) });
  await using orchestrator = await serving(own, [held], { logger });
  const execution = await orchestrator.flow(held).startExecution(null, { autoClose: false });
  await begun.passed;
  // The first claim is in the ledger before somebody else takes it.
  await untilEvent(execution, "execution.claimed");
  const queue = await span(execution.id, "queue traced.held");
  await own.sql`
    update flowledger.executions set owner = gen_random_uuid(), lease_token = gen_random_uuid(), epoch = epoch + 1, commit_no = 0,
      wake_at = flowledger.now() - interval '10 seconds'`;
  gate.open();

  const attempts = await vi.waitFor(
    () => {
      const all = spans(execution.id, "chunk traced.held/hold");
      expect(all).toHaveLength(2);
      return all;
    },
    { timeout: 9000 },
  );

  const last = attempts.at(-1);
  expect(last && linked(last)).toEqual([["takeover", queue.spanContext().spanId]]);
  const of = z.object({ event: z.string().optional(), traceId: z.string().optional() });
  const said = () => lines.map((line) => of.parse(JSON.parse(line))).filter(({ event }) => event !== undefined);
  await expect.poll(said).toEqual([
    { event: "fenced", traceId: traceOf(queue) },
    { event: "taken_over", traceId: traceOf(queue) },
  ]);
  expect(new Set(attempts.map(traceOf)).size).toBe(1);
});

test("what another process claims after a release is linked to the claim before it, and so is a takeover after that", async () => {
  const [begun, gate] = [newGate(), newGate()];
  const moving = defineFlow("traced.moving");
  moving.to("nap", async (ctx) => {
    await ctx.sleep("1500ms");
    begun.open();
    await gate.passed;
  });
  await using own = await testDatabase();
  const first = await serving(own, [moving]);
  const execution = await first.flow(moving).startExecution(null, { autoClose: false });
  await span(execution.id, "chunk traced.moving/nap");
  await first.close();

  await using second = await serving(own, [moving]);
  await begun.passed;
  const handle = await second.getExecution(execution.id);
  await vi.waitFor(async () => expect(await handle.history({ types: ["execution.claimed"] })).toHaveLength(2));
  await own.sql`
    update flowledger.executions set owner = gen_random_uuid(), lease_token = gen_random_uuid(), epoch = epoch + 1, commit_no = 0,
      wake_at = flowledger.now() - interval '10 seconds'`;
  gate.open();
  await untilEvent(handle, "chunk.completed");

  const of = async (name: string) =>
    await vi.waitFor(() => {
      const all = spans(execution.id, name);
      expect(all).toHaveLength(3);
      return all;
    });
  const claims = await of("queue traced.moving");
  const attempts = await of("chunk traced.moving/nap");
  const [one, two] = claims.map((claim) => claim.spanContext().spanId);
  const expected = [[], [["claim", one]], [["takeover", two]]];
  expect(claims.map(linked)).toEqual(expected);
  expect(attempts.map(linked)).toEqual(expected);
  const workers = claims.map((claim) => claim.attributes["flowledger.worker.id"]);
  expect(new Set(workers).size).toBe(2);
  expect(new Set([...claims, ...attempts].map(traceOf)).size).toBe(1);
});

type Works = Pick<Ctx, "execution" | "sleep">;

/** What a chunk does that goes on under a later claim, what makes it go on, and what the last span of it is linked as. */
interface GoesOn {
  readonly settings: Pick<ChunkOptions, "retry" | "onFailure">;
  readonly run: (ctx: Works) => unknown;
  readonly act: (t: TestOrchestrator, id: string) => Promise<unknown>;
  readonly as: string;
}

const failsFirst = (ctx: Works) => {
  if (failing.delete(ctx.execution.id)) throw new Error("not yet");
};
const failing = new Set<string>();
const byAnn = { actor: "ann", reason: "mended" };
const parks: GoesOn["settings"] = { onFailure: "park", retry: { maxAttempts: 1 } };
const later: GoesOn["settings"] = { retry: { maxAttempts: 3, initialInterval: "1h", jitter: false } };

test.each<[string, GoesOn]>([
  ["a retry", { settings: later, run: failsFirst, act: (t) => t.clock.advance("1h"), as: "retry" }],
  [
    "an operator's retry",
    {
      settings: parks,
      run: failsFirst,
      act: async (t, id) => (await t.orchestrator.getExecution(id)).retry(byAnn),
      as: "retry",
    },
  ],
  [
    "an operator's retry by SQL",
    {
      settings: parks,
      run: failsFirst,
      act: async ({ database: url }, id) => {
        const sql = postgres(url, { max: 1 });
        await sql`select flowledger.retry(${id}, ${JSON.stringify(byAnn)}::text::jsonb)`;
        await sql.end();
      },
      as: "retry",
    },
  ],
  [
    "a sleep that is over",
    { settings: {}, run: (ctx) => ctx.sleep("2h"), act: (t) => t.clock.advance("2h"), as: "claim" },
  ],
  [
    "a sleep of the attempt after one that failed",
    {
      settings: later,
      run: async (ctx) => {
        failsFirst(ctx);
        await ctx.sleep("2h");
      },
      act: async (t) => {
        await t.clock.advance("1h");
        await t.clock.advance("3h");
      },
      as: "claim",
    },
  ],
])(
  "%s under a later claim is linked to the claim before as what it is",
  async (_, { settings, run, act, as }) => {
    const flow = defineFlow("traced.later");
    flow.to("work", (ctx) => run(ctx), settings);
    await using t = await kit({ flows: [flow] });
    const execution = await t.orchestrator.flow(flow).createExecution({ autoClose: false });
    failing.add(execution.id);
    await execution.start(null);
    await t.settle();
    const last = () => spans(execution.id, "chunk traced.later/work").at(-1);
    const first = last()?.spanContext().spanId;
    const before = async () => (await execution.history({ types: ["execution.claimed"] })).length;
    expect(await before()).toBe(1);

    await act(t, execution.id);
    await t.settle();

    const found = last();
    const claims = spans(execution.id, "queue traced.later").map((one) => one.spanContext().spanId);
    expect(found?.spanContext().spanId).not.toBe(first);
    expect(found && linked(found)).toEqual([[as, claims.at(-2)]]);
  },
  60_000,
);

test("a fork is a trace of its own that links to its source; a child links to the chunk that called it", async () => {
  const inner = defineFlow("traced.inner");
  inner.to("in", () => 1);
  const outer = defineFlow("traced.outer");
  outer.to("call", async (ctx) => await ctx.call(inner, null));
  await using orchestrator = await serving(database, [inner, outer]);
  const execution = await orchestrator.flow(outer).startExecution(null, { autoClose: false });
  const started = await untilEvent(execution, "child.started");
  await untilEvent(execution, "chunk.completed");

  const fork = await execution.fork({ at: 2 });

  const call = await span(execution.id, "chunk traced.outer/call");
  const child = await span(started.child, "start traced.inner");
  expect(linked(child)).toEqual([["start", call.spanContext().spanId]]);
  const copied = await span(fork.id, "start traced.outer");
  const source = await span(execution.id, "start traced.outer");
  expect(linked(copied)).toEqual([["copy", source.spanContext().spanId]]);
  expect(traceOf(copied)).not.toBe(traceOf(source));
  // It was due when it was made, and not when its source was.
  const queued = await span(fork.id, "queue traced.outer");
  const secondsOf = (one: ReadableSpan | undefined) => (one ? one.startTime[0] + one.startTime[1] / 1e9 : NaN);
  expect(secondsOf(queued)).toBeGreaterThan(secondsOf(spans(execution.id, "queue traced.outer")[0]));
  // The span is there before its claim is in the ledger.
  await expect.poll(async () => (await fork.result.getMeta()).trace ?? "").toContain(traceOf(copied));
});

test("a redrive links to what it was redriven from", async () => {
  let isBroken = true;
  const failing = defineFlow("traced.failing");
  failing.to("fail", () => {
    if (isBroken) throw new Error("broken");
  });
  await using orchestrator = await serving(database, [failing]);
  const execution = await orchestrator.flow(failing).startExecution(null);
  await untilEvent(execution, "execution.closed");
  isBroken = false;

  const again = await execution.redrive({ actor: "ada", reason: "mended" });

  const [source, queue] = [
    await span(execution.id, "start traced.failing"),
    await span(again.id, "queue traced.failing"),
  ];
  const root = await span(again.id, "start traced.failing");
  const claim = await span(execution.id, "queue traced.failing");
  expect(linked(root)).toEqual([["copy", claim.spanContext().spanId]]);
  expect(traceOf(root)).not.toBe(traceOf(source));
  expect(traceOf(queue)).toBe(traceOf(root));
});

test("a span ends once, as it ended first", () => {
  const ended: unknown[] = [];
  let failed = 0;
  const own = {
    setAttribute: (_: string, outcome: unknown) => ended.push(outcome),
    setStatus: () => {},
    end: () => ended.push("end"),
  };
  // Of the API only what an end asks for.
  const context = { trace: { setSpan: () => ({}) } } as unknown as TraceApi;
  const trace = new AttemptTrace(context, {} as Tracer, own as unknown as Span, {}, () => (failed += 1));

  trace.end("interrupted");
  trace.end("failed", "Error");

  expect({ ended, failed }).toEqual({ ended: ["interrupted", "end"], failed: 0 });
});

test("attributes of the user's are on each span; a function that throws is one warning, and spans go without them", async () => {
  const lines: string[] = [];
  const logger = jsonLogger({ write: (line) => lines.push(line) });
  const attributes: TelemetryOptions["attributes"] = ({ metadata }) => {
    if (metadata["tenant"] === undefined) throw new Error("no tenant");
    return { tenant: String(metadata["tenant"]) };
  };
  await using orchestrator = await serving(database, [atWork], { logger, telemetry: { attributes } });

  const well = await orchestrator.flow(atWork).startExecution(null, { metadata: { tenant: "acme" } });
  const bad = [
    await orchestrator.flow(atWork).startExecution(null),
    await orchestrator.flow(atWork).startExecution(null),
  ];
  for (const { id } of [well, ...bad]) await span(id, "chunk traced/second");

  expect(new Set(spans(well.id).map((one) => one.attributes["tenant"]))).toEqual(new Set(["acme"]));
  expect(spans(bad[0]?.id ?? "").some((one) => "tenant" in one.attributes)).toBe(false);
  expect(lines.filter((line) => line.includes("telemetry.attributes failed"))).toHaveLength(1);
});

test.each<[string, () => unknown]>([
  ["null", () => null],
  ["a promise that rejects", () => Promise.reject(new Error("no tenant"))],
  ["a map", () => new Map([["tenant", "acme"]])],
  ["a text", () => "acme"],
  ["no number", () => ({ tenant: "acme", n: Number.NaN })],
  ["a nested value", () => ({ tenant: "acme", of: { a: 1 } })],
  [
    "an error without a text",
    () => {
      throw Object.create(null);
    },
  ],
])("attributes that are %s are one warning, and spans go without them", async (_, odd) => {
  const lines: string[] = [];
  const logger = jsonLogger({ write: (line) => lines.push(line) });
  const attributes = odd as NonNullable<TelemetryOptions["attributes"]>;
  await using orchestrator = visiting(database, [atWork], { logger, telemetry: { attributes } });

  const { id } = await orchestrator.flow(atWork).startExecution(null, { delay: "1h" });
  await orchestrator.flow(atWork).startExecution(null, { delay: "1h" });

  const started = await span(id, "start traced");
  expect(Object.keys(started.attributes).filter((name) => !name.startsWith("flowledger."))).toEqual([]);
  expect(lines.filter((line) => line.includes("telemetry.attributes failed"))).toHaveLength(1);
});

test("ctx.log names the span, options that cannot be meant are refused, and the API has the shape that is asked for", async () => {
  const lines: string[] = [];
  const logger = jsonLogger({ write: (line) => lines.push(line) });
  const logging = defineFlow("traced.log");
  logging.to("say", (ctx) => ctx.log.info("said"));
  await using orchestrator = await serving(database, [logging], { logger });
  const execution = await orchestrator.flow(logging).startExecution(null);
  const chunk = await span(execution.id, "chunk traced.log/say");

  const { traceId, spanId } = chunk.spanContext();
  expect(JSON.parse(lines.find((line) => line.includes('"said"')) ?? "{}")).toMatchObject({ traceId, spanId });
  expect(isTraceApi(api)).toBe(true);
  const typed: TelemetryOptions = { api };
  expect(() => visiting(database, [], { telemetry: typed })).not.toThrow();
  const wrong = JSON.parse(
    '[{"trace": "on"}, {"detail": "all"}, {"attributes": 1}, {"api": {}}, {"waits": 1}, {"tracer": 1}]',
  ) as TelemetryOptions[];
  for (const telemetry of wrong) expect(() => createOrchestrator({ telemetry })).toThrow(/telemetry/);
});
