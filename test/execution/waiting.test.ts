/** How long somebody waits: a limit or a signal ends the waiting, and nothing else. */
import { getEventListeners } from "node:events";
import { afterAll, expect, test, vi } from "vitest";
import { systemTimers } from "../../src/base/timers.ts";
import { awaitResult, configure, defer } from "../../src/defer.ts";
import { defineFlow, ExecutionFailedError, UsageError, WaitTimeoutError } from "../../src/index.ts";
import type { Execution, WaitingOptions } from "../../src/index.ts";
import { openOutcomes } from "../../src/execution/outcomes.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import type { Store } from "../../src/store/store.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, refusal, serving, untilEvent, warningsOf } from "../support/flows.ts";
import { kit } from "../support/kit.ts";

const database = await testDatabase();

const slow = defineFlow("slow");
const gates = new Map<string, ReturnType<typeof newGate>>();
slow.to("wait", async (ctx) => {
  await gates.get(String(ctx.input))?.passed;
  await ctx.setState("done", ctx.input);
});
const patient = defer(
  async function patient(key: string) {
    await gates.get(key)?.passed;
    return key;
  },
  { retry: false },
);
const orchestrator = await serving(database, [slow], { functions: [patient] });
configure(orchestrator);
afterAll(() => orchestrator.close());

function gate() {
  const key = crypto.randomUUID();
  const opened = newGate();
  gates.set(key, opened);
  return { key, open: () => opened.open() };
}

/** Every wait, on an execution that has been started. */
const waits: Readonly<Record<string, (execution: Execution, options: WaitingOptions) => Promise<unknown>>> = {
  waitForClose: (execution, options) => execution.waitForClose(options),
  getFinalResult: (execution, options) => execution.result.getFinalResult(options),
  start: async (execution, options) => execution.start(null, options),
};

test.each(Object.keys(waits))(
  "%s: an aborted signal ends the waiting with its reason, and leaves no listener",
  async (name) => {
    const { key, open } = gate();
    const execution = await orchestrator.flow(slow).startExecution(key, { autoCloseTimeout: 0 });
    const wait = waits[name] ?? (() => Promise.resolve());
    const stop = new AbortController();
    const reason = new Error("enough");

    const waiting = refusal(
      wait(name === "start" ? await created(key) : execution, { signal: stop.signal, timeout: "1h" }),
    );
    await expect.poll(() => getEventListeners(stop.signal, "abort").length).toBeGreaterThan(0);
    stop.abort(reason);

    expect(await waiting).toBe(reason);
    expect(getEventListeners(stop.signal, "abort")).toEqual([]);
    expect(await refusal(wait(execution, { signal: stop.signal }))).toBe(reason);
    expect(getEventListeners(stop.signal, "abort")).toEqual([]);
    open();
    const patience = new AbortController();
    expect(await execution.waitForClose({ signal: patience.signal, timeout: "1h" })).toEqual({ done: key });
    expect(getEventListeners(patience.signal, "abort")).toEqual([]);
  },
);

/** One that is not started yet, so that `start()` waits. */
function created(key: string): Promise<Execution> {
  gates.set("null", newGate());
  return orchestrator.flow(slow).createExecution({ metadata: { key } });
}

test("waitForClose and start reject when their time is over, by name; the execution goes on", async () => {
  const { key, open } = gate();
  const execution = await orchestrator.flow(slow).startExecution(key, { autoCloseTimeout: 0 });

  const errors = [
    await refusal(execution.waitForClose({ timeout: 20 })),
    await refusal((await created(key)).start(null, { timeout: "20ms" })),
    await refusal(orchestrator.flow(slow).start(key, { waitTimeout: "20ms" })),
  ];
  const { result } = execution;
  const warnings = await warningsOf(async () => expect(await result.getFinalResult({ timeout: 20 })).toBe(null));

  for (const error of errors) {
    expect(error).toBeInstanceOf(WaitTimeoutError);
    expect(error).toMatchObject({ code: "WAIT_TIMEOUT", details: { timeoutMs: 20 } });
  }
  expect(errors[0]).toMatchObject({ message: expect.stringContaining(execution.id) });
  expect(warnings.map(({ code }) => code)).toEqual(["RESULT_TIMEOUT"]);
  open();
  expect(await execution.waitForClose()).toEqual({ done: key });
});

test("a start whose signal has aborted starts nothing; what is aborted later goes on", async () => {
  const { key, open } = gate();
  const flow = orchestrator.flow(slow);
  const count = async () => (await database.sql`select from flowledger.executions`).length;
  const made = await created(key);
  const before = await count();

  expect(await refusal(made.start(null, { signal: AbortSignal.abort("no") }))).toBe("no");
  expect((await made.result.getMeta()).startedAt).toBeNull();
  expect(await refusal(flow.start(key, { signal: AbortSignal.abort("no") }))).toBe("no");
  expect(await count()).toBe(before);

  const stop = new AbortController();
  const started = refusal(flow.start(key, { signal: stop.signal, idempotencyKey: key }));
  await expect.poll(async () => (await flow.startExecution(key, { idempotencyKey: key })).history()).toBeDefined();
  stop.abort("enough");
  expect(await started).toBe("enough");
  expect(getEventListeners(stop.signal, "abort")).toEqual([]);
  open();
  expect(await flow.start(key, { idempotencyKey: key })).toEqual({ done: key });
});

test("no timer is left behind, whoever ends the waiting", async () => {
  const asking = defineFlow("asking");
  asking.to("ask", (ctx) => ctx.pauseFor({ interruptId: "ask" }));
  await using t = await kit({ flows: [asking] });
  const run = await t.start(asking);
  await run.until({ waiting: "ask" });
  const ours = async () =>
    (await t.clock.upcoming()).filter(({ what }) => what?.startsWith("the time is over that somebody waits")).length;
  const stop = new AbortController();

  const waiting = [
    refusal(run.waitForClose({ timeout: "1h", signal: stop.signal })),
    refusal(run.result.getFinalResult({ timeout: "1h", signal: stop.signal })),
  ];
  expect(await ours()).toBe(2);
  stop.abort("enough");

  expect(await Promise.all(waiting)).toEqual(["enough", "enough"]);
  expect(await ours()).toBe(0);
  const late = refusal(run.waitForClose({ timeout: "1h", signal: new AbortController().signal }));
  await t.clock.advance("1h");
  expect(await late).toBeInstanceOf(WaitTimeoutError);
  expect(await ours()).toBe(0);
});

test("what cannot be meant is refused before anything is written", async () => {
  const execution = await orchestrator.flow(slow).createExecution();
  const wrong = JSON.parse('{ "timeout": "soon" }');
  const errors = [
    await refusal(execution.waitForClose(wrong)),
    await refusal(execution.start(null, wrong)),
    await refusal(execution.result.getFinalResult(JSON.parse('{ "timeuot": 1 }'))),
    await refusal(execution.waitForClose(JSON.parse('{ "signal": "stop" }'))),
    await refusal(orchestrator.flow(slow).start(null, JSON.parse('{ "waitTimeout": -1 }'))),
  ];

  for (const error of errors) expect(error).toBeInstanceOf(UsageError);
  expect((await execution.history()).map(({ type }) => type)).toEqual(["execution.created"]);
});

test("a call whose signal aborts goes on in its chunk at once, and the child goes on too; a retry attaches to it", async () => {
  const { key, open } = gate();
  const caller = defineFlow("caller");
  const caught: unknown[] = [];
  const stop = new AbortController();
  caller
    .to(
      "call",
      async (ctx) => {
        if (ctx.attempt > 1) return ctx.call(slow, key);
        await ctx.call(slow, key, { signal: stop.signal }).catch((error: unknown) => caught.push(error));
        throw new Error("again");
      },
      { retry: { maxAttempts: 2, initialInterval: 0 } },
    )
    .end();
  await using serves = await serving(database, [caller]);
  const execution = await serves.flow(caller).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "child.started");
  await expect.poll(() => getEventListeners(stop.signal, "abort").length).toBeGreaterThan(0);
  stop.abort("enough");

  await untilEvent(execution, "chunk.failed");
  open();
  expect(await execution.waitForClose()).toEqual({ $final_result: { done: key } });
  expect(caught).toEqual(["enough"]);
  expect(getEventListeners(stop.signal, "abort")).toEqual([]);
  expect(await execution.history({ types: ["child.started"] })).toHaveLength(1);
  const timed = defineFlow("timedCaller");
  timed.to("call", (ctx) => ctx.call(slow, gate().key, { timeout: 50 }));
  await using others = await serving(database, [timed]);
  expect(await refusal(others.flow(timed).start())).toBeInstanceOf(ExecutionFailedError);
});

test("awaitResult takes both: outside of functions they end the waiting alone", async () => {
  const { key, open } = gate();
  const stop = new AbortController();

  const aborted = refusal(awaitResult(patient, { signal: stop.signal })(key));
  expect(await refusal(awaitResult(patient, { timeout: 20 })(key))).toBeInstanceOf(WaitTimeoutError);
  stop.abort("enough");
  expect(await aborted).toBe("enough");
  expect(getEventListeners(stop.signal, "abort")).toEqual([]);
  expect(() => awaitResult(patient, { timeout: "soon" })).toThrow(UsageError);
  open();
  expect(await awaitResult(patient, { timeout: "1h", signal: new AbortController().signal })(key)).toBe(key);
});

test("who has its end looks for no worker any more", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    let asked = 0;
    const id = ExecutionId.parse("01900000-0000-7000-8000-000000000001");
    const store = {
      reads: { isServed: async () => ((asked += 1), true) },
      wakeups: { isListening: true, subscribe: () => () => {} },
    };
    // Of the store only what is asked here.
    const outcomes = openOutcomes(store as unknown as Store, systemTimers);
    const ending = { flow: "f", outcome: "completed" as const, reason: "done", error: null, snapshot: {} };
    const closed = outcomes.closed(id, { flow: "f", isNew: true });

    outcomes.deliver(id, ending);
    expect(await closed).toEqual(ending);
    vi.advanceTimersByTime(60_000);

    expect(asked).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});

test("a wake-up that comes while it is looked how an execution is makes it look again", async () => {
  const id = ExecutionId.parse("01900000-0000-7000-8000-000000000001");
  let wake: (isLocal: boolean) => void = () => {};
  let looks = 0;
  const header = { id, flow: "f", outcome: "completed", closeReason: "done", error: null, closeSnapshot: {} };
  const headers = async () => {
    const lifecycle = ++looks === 1 ? "open" : "closed";
    if (looks === 1) wake(false);
    return new Map([[id, { ...header, lifecycle }]]);
  };
  const wakeups = {
    isListening: true,
    subscribe: (_: unknown, listener: typeof wake) => ((wake = listener), () => {}),
  };
  // Of the store only what is asked here.
  const outcomes = openOutcomes({ reads: { headers }, wakeups } as unknown as Store, systemTimers);

  expect(await outcomes.closed(id)).toMatchObject({ outcome: "completed" });
});
