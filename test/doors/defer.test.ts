/** `flowledger/defer`: background functions as Defer's users know them. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, describe, expect, test } from "vitest";
import { verify } from "../../src/store/verify.ts";
import {
  addMetadata,
  assignOptions,
  awaitResult,
  cancelExecution,
  configure,
  defer,
  DeferError,
  delay,
  discardAfter,
  ExecutionAbortingAlreadyInProgress,
  ExecutionNotCancellable,
  ExecutionNotCompleted,
  ExecutionNotFound,
  ExecutionNotReschedulable,
  ExecutionResultNotAvailable,
  ExecutionResultNotAvailableYet,
  getContext,
  getExecution,
  getExecutionResult,
  listExecutionAttempts,
  listExecutions,
  reRunExecution,
  rescheduleExecution,
} from "../../src/defer.ts";
import type { FunctionState } from "../../src/defer.ts";
import {
  DefinitionError,
  defineFlow,
  ExecutionFailedError,
  FlowledgerError,
  NotConfiguredError,
  PayloadError,
  UsageError,
} from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { Crowd, newGate, refusal, serving, visiting } from "../support/flows.ts";
import type { Gate } from "../support/flows.ts";

const unknownId = "01890000-0000-7000-8000-000000000000";
const hour = 3_600_000;

/** Runs of each function, by name, and gates that they wait at. */
const runs: string[] = [];
const gates = new Map<string, Gate>();
const crowd = new Crowd();
const gate = (name: string) => {
  const made = newGate();
  gates.set(name, made);
  return made;
};

const double = defer(function double(n: number) {
  runs.push(`double ${n}`);
  return n * 2;
});
const greet = defer(
  async function greet(name: string, options?: { loud: boolean }) {
    await sleep(0);
    return options?.loud ? name.toUpperCase() : name;
  },
  { maxDuration: 60 },
);
const quiet = defer(function quiet() {});
const broken = defer(function broken(what: string) {
  throw new RangeError(what);
});
const flaky = defer(
  (until: number) => {
    runs.push("flaky");
    if (runs.filter((run) => run === "flaky").length < until) throw Object.assign(new Error("busy"), { code: "EBUSY" });
    return "at last";
  },
  { name: "flaky", retry: { maxAttempts: 5, initialInterval: 0.01, randomizationFactor: 0 } },
);
const gated = defer(async function gated(name: string) {
  runs.push(`gated ${name}`);
  await gates.get(name)?.passed;
  return name;
});
const cooperative = defer(async function cooperative() {
  runs.push("cooperative");
  await sleep(60_000, undefined, { signal: getContext()?.signal });
});
const resting = defer(async function resting() {
  await getContext()?.sleep("1200ms");
});
const slow = defer(async () => sleep(60_000), { name: "slow", maxDuration: 0.05 });
const unstorable = defer((): unknown => ({ deep: [1, 10n] }), { name: "unstorable" });
const inCompany = newGate();
const meet = defer(
  (n: number) =>
    crowd.during(async () => {
      if (crowd.most > 1) inCompany.open();
      await inCompany.passed;
      return n;
    }),
  { name: "meet" },
);
const alone = defer(
  async function alone(name: string) {
    await gates.get(name)?.passed;
    return name;
  },
  { concurrency: 1 },
);
const only = defer(
  async function only(name: string) {
    await gates.get(name)?.passed;
  },
  { concurrency: 1, maxConcurrencyAction: "cancel" },
);
const nightly = defer.cron(function nightly() {}, "0 7 * * *", { retry: true });
const processData = defer(async function processData(chunks: number[]) {
  runs.push("processData");
  const compute = awaitResult(double);
  const results = await Promise.allSettled([...chunks.map((chunk) => compute(chunk)), awaitResult(broken)("a child")]);
  return results.map((result) => (result.status === "fulfilled" ? result.value : String(result.reason.cause)));
});
const functions = [
  double,
  greet,
  quiet,
  broken,
  flaky,
  gated,
  cooperative,
  resting,
  slow,
  unstorable,
  meet,
  alone,
  only,
  nightly,
  processData,
];

const database = await testDatabase();
const { sql } = database;
const notYet = await refusal(double(1));
const notYetById = await refusal(getExecution(unknownId));
const notYetAwaited = await refusal(awaitResult(double)(1));
const notYetListed = await refusal(listExecutions());
const parent = defineFlow("parent");
parent.to("await", async () => [await awaitResult(double)(3), await awaitResult(greet)("ada", { loud: true })]).end();
const orchestrator = await serving(database, [parent], { functions });
configure(orchestrator);

afterAll(() => orchestrator.close());

async function untilState(id: string, state: FunctionState): Promise<void> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const execution = await getExecution(id);
    if (execution.state === state) return;
    if (performance.now() > deadline)
      throw new Error(`${execution.functionName} ${id} is ${execution.state}, not ${state}`);
    await sleep(5);
  }
}

const typesOf = async (id: string) =>
  (await sql<{ type: string }[]>`select type from flowledger.ledger where execution_id = ${id} order by seq`).map(
    ({ type }) => type,
  );

describe("definition", () => {
  test("DF-DEF-02: a deferred function shows the original, Defer's manifest, and no options", () => {
    const original = (n: number) => n;

    const fn = defer(original, { name: "shown", concurrency: 3, maxDuration: 60, maxConcurrencyAction: "keep" });

    expect(fn.__fn).toBe(original);
    expect(fn.name).toBe("shown");
    expect(fn.__metadata).toMatchObject({
      name: "shown",
      version: 6,
      concurrency: 3,
      maxDuration: 60,
      maxConcurrencyAction: "keep",
    });
    expect(fn.__execOptions).toBeUndefined();
    expect(fn.flow).toMatchObject({ name: "shown" });
    expect([...fn.flow.graph.chunks.keys()]).toEqual(["shown"]);
  });

  const defaults = { initialInterval: 30, randomizationFactor: 0.5, multiplier: 1.5, maxInterval: 600 };
  test.each([
    ["DF-DEF-03: none", undefined, { maxAttempts: 0, ...defaults }],
    ["DF-DEF-03: false", false, { maxAttempts: 0, ...defaults }],
    ["DF-DEF-04: true", true, { maxAttempts: 13, ...defaults }],
    ["DF-DEF-04: a number", 5, { maxAttempts: 5, ...defaults }],
    ["DF-DEF-05: an empty object", {}, { maxAttempts: 13, ...defaults }],
    ["DF-DEF-05: an object", { maxAttempts: 2, multiplier: 3 }, { maxAttempts: 2, ...defaults, multiplier: 3 }],
    [
      "DF-DEF-05: zeros, which count as given,",
      { maxAttempts: 0, randomizationFactor: 0 },
      { ...defaults, maxAttempts: 0, randomizationFactor: 0 },
    ],
  ])("%s as retry", (_, retry, policy) => {
    const before = structuredClone(retry);

    const fn = defer(() => 1, { name: "retries", ...(retry !== undefined && { retry }) });

    expect(fn.__metadata.retry).toEqual(policy);
    expect(retry).toEqual(before);
    expect(fn.flow.graph.chunks.get("retries")?.options.retry).toMatchObject({
      maxAttempts: policy.maxAttempts + 1,
      initialIntervalMs: 30_000,
      multiplier: policy.multiplier,
      maxIntervalMs: 600_000,
      jitter: policy.randomizationFactor > 0,
    });
  });

  test.each([
    [
      "DF-DEF-05: a retry of another type",
      () => defer(() => 1, { name: "x", retry: "often" as never }),
      /invalid retry options/,
    ],
    [
      "a retry that is unknown",
      () => defer(() => 1, { name: "x", retry: { max: 3 } as never }),
      /unknown option "max"/,
    ],
    [
      "a negative retry",
      () => defer(() => 1, { name: "x", retry: -1 }),
      /maxAttempts must be an integer of at least 0, got -1/,
    ],
    ["half a place", () => defer(() => 1, { name: "x", concurrency: 0.5 }), /concurrency must be .*, got 0.5/],
    ["no time", () => defer(() => 1, { name: "x", maxDuration: 0 }), /maxDuration in seconds must be .*, got 0/],
    [
      "another action",
      () => defer(() => 1, { name: "x", maxConcurrencyAction: "drop" as never }),
      /must be "keep" or "cancel", got "drop"/,
    ],
    ["an unknown option", () => defer(() => 1, { name: "x", cron: "* * * * *" } as never), /unknown option "cron"/],
    ["no function", () => defer("work" as never), /got no function/],
    ["an anonymous function", () => defer(() => 1), /name it/],
    ["a name that a flow cannot have", () => defer(() => 1, { name: "two words" }), /name is not allowed/],
    ["no cron", () => defer.cron(() => 1, "every day", { name: "x" }), /"every day" is not a schedule/],
    ["a cron with seconds", () => defer.cron(() => 1, "0 0 7 * * *", { name: "x" }), /five fields/],
    ["a date", () => defer.cron(() => 1, "2099-01-01T00:00:00", { name: "x" }), /a date comes only once/],
    ["a cron that never comes", () => defer.cron(() => 1, "0 0 30 2 *", { name: "x" }), /there is no such date/],
    ["no text", () => defer.cron(() => 1, undefined as never, { name: "x" }), /expected a text, got undefined/],
  ])("%s is a DefinitionError", (_, define, message) => {
    expect(define).toThrow(DefinitionError);
    expect(define).toThrow(message);
  });

  test("DF-DEF-10: a cron function carries its schedule, and can be called by hand", async () => {
    const { id } = await nightly();

    await untilState(id, "succeed");
    expect(nightly.__metadata).toMatchObject({ cron: "0 7 * * *", retry: { maxAttempts: 13 } });
  });

  test("two functions with one name, and a function with the name of a flow, are a DefinitionError", () => {
    const other = defer(() => 0, { name: "double" });
    const flow = defineFlow("double");
    flow.to("double", () => 0);

    expect(() => visiting(database, [], { functions: [double, other] })).toThrow(DefinitionError);
    expect(() => visiting(database, [flow], { functions: [double] })).toThrow(/have this name/);
    expect(() => visiting(database, [], { functions: [(() => 1) as never] })).toThrow(/functions\[0\] is not/);
  });
});

describe("configure", () => {
  test("a call before configure() throws NotConfiguredError that says how", () => {
    expect(notYet).toBeInstanceOf(NotConfiguredError);
    expect(notYet).toMatchObject({ message: expect.stringContaining("call configure(createOrchestrator({") });
    for (const error of [notYetById, notYetAwaited, notYetListed]) expect(error).toBeInstanceOf(NotConfiguredError);
  });

  test("configuring again changes nothing; with another orchestrator it is refused", async () => {
    await using other = visiting(database);

    configure(orchestrator);

    expect(() => configure(other)).toThrow(UsageError);
    expect(() => configure({} as never)).toThrow(/got no orchestrator/);
  });
});

describe("a call", () => {
  test("DF-DEF-01: stores an execution and resolves with its id, before it has run", async () => {
    const stored = gate("stored");

    const { id } = await gated("stored");

    const execution = await getExecution(id);
    expect(["created", "started"]).toContain(execution.state);
    expect(execution).toMatchObject({ id, functionName: "gated", functionId: "gated", result: undefined });
    stored.open();
    await untilState(id, "succeed");
  });

  test("DF-GET-02: its execution has Defer's fields, the result and no error", async () => {
    const { id } = await greet("grace", { loud: true });

    await untilState(id, "succeed");

    const execution = await getExecution(id);
    expect(execution).toMatchObject({ id, state: "succeed", result: "GRACE", error: undefined });
    for (const at of [execution.scheduledAt, execution.createdAt, execution.updatedAt, execution.startedAt])
      expect(at).toBeInstanceOf(Date);
    expect(execution.updatedAt.getTime()).toBeGreaterThan(execution.createdAt.getTime());
  });

  test("DF-GET-06: another process sees it by its id", async () => {
    const { id } = await double(4);
    await untilState(id, "succeed");

    await using elsewhere = visiting(database);
    const [row] = await sql`select status, close_snapshot from flowledger.executions where id = ${id}`;

    expect(await (await elsewhere.getExecution(id)).result.getFinalResult()).toBe(8);
    expect(row).toEqual({ status: "completed", close_snapshot: { $final_result: 8 } });
  });

  test("DF-OPT-06: what JSON cannot hold is a PayloadError with its path, and nothing is stored", async () => {
    const before = await sql`select count(*) from flowledger.executions`;

    const wrong = await refusal(greet("ada", { loud: (() => true) as never }));

    expect(wrong).toBeInstanceOf(PayloadError);
    expect(wrong).toMatchObject({ details: { path: [1, "loud"] } });
    expect(String(wrong)).toContain('arguments of function "greet"');
    expect(await sql`select count(*) from flowledger.executions`).toEqual(before);
  });

  test("an optional argument that is undefined is left out", async () => {
    expect(await awaitResult(greet)("ada", undefined)).toBe("ada");
  });

  test("a result that JSON cannot hold fails the execution with the path", async () => {
    const failed = await refusal(awaitResult(unstorable)());

    expect(failed).toBeInstanceOf(ExecutionFailedError);
    expect(String(failed)).toMatch(/at deep\[1\]: BigInt 10/);
  });

  test("a function that returns nothing has null as its result", async () => {
    expect(await awaitResult(quiet)()).toBeNull();
  });

  test("DF-DEF-06: the last retry that fails fails the execution, with the waits of the policy", async () => {
    runs.length = 0;
    const { id } = await flaky(100);
    await untilState(id, "failed");

    const { data } = await listExecutionAttempts(id);
    const failures = await sql<{ wait: number | null }[]>`
      select (payload ->> 'retryInMs')::int as wait from flowledger.ledger
      where execution_id = ${id} and type = 'chunk.failed' order by seq`;

    expect(data.map(({ state }) => state)).toEqual(Array(6).fill("failed"));
    expect(failures.map(({ wait }) => wait)).toEqual([10, 15, 23, 34, 51, null]);
    const waited = data.slice(1).map(({ startedAt }, n) => startedAt.getTime() - (data[n]?.updatedAt.getTime() ?? 0));
    expect(waited).toEqual([10, 15, 23, 34, 51]);
  });

  test("DF-DEF-06: retries come after the first run, and their attempts are listed (DF-CTL-08)", async () => {
    runs.length = 0;
    const { id } = await flaky(3);
    await untilState(id, "succeed");

    const { data, pageInfo } = await listExecutionAttempts(id);

    expect(data).toMatchObject([
      { attempt: 1, state: "failed", errorCode: "EBUSY", error: { message: "busy" } },
      { attempt: 2, state: "failed" },
      { attempt: 3, state: "succeed", errorCode: null, error: null },
    ]);
    expect(pageInfo).toEqual({ hasNextPage: false, hasPrevPage: false, startCursor: "1", endCursor: "3" });
    const [first, last] = [
      await listExecutionAttempts(id, { first: 1, after: "1" }),
      await listExecutionAttempts(id, { last: 1 }),
    ];
    expect(first).toMatchObject({ data: [{ attempt: 2 }], pageInfo: { hasNextPage: true, hasPrevPage: true } });
    expect(last).toMatchObject({ data: [{ attempt: 3 }], pageInfo: { hasNextPage: false, hasPrevPage: true } });
  });

  test("DF-DEF-07: a call beyond the concurrency of its function stays created until there is a place", async () => {
    const first = gate("first");
    const { id: holder } = await alone("first");
    await untilState(holder, "started");
    const { id: waiting } = await alone("second");

    // What was called later by another function has run, and this one has not.
    expect(await awaitResult(double)(1)).toBe(2);
    expect(await getExecution(waiting)).toMatchObject({ state: "created", startedAt: null });
    first.open();

    await untilState(waiting, "succeed");
  });

  test("DF-DEF-08: with maxConcurrencyAction cancel it is cancelled", async () => {
    const held = gate("held");
    const { id: holder } = await only("held");
    await untilState(holder, "started");

    const { id } = await only("surplus");

    await untilState(id, "cancelled");
    expect(await refusal(getExecutionResult(id))).toBeInstanceOf(ExecutionResultNotAvailable);
    held.open();
    await untilState(holder, "succeed");
  });

  test("DF-DEF-09: an attempt that outlasts maxDuration fails", async () => {
    const failed = await refusal(awaitResult(slow)());

    expect(failed).toMatchObject({ details: { error: { code: "CHUNK_TIMEOUT" } } });
  });

  test("an idempotency key finds the execution again", async () => {
    const once = assignOptions(double, { idempotencyKey: "order-17" });

    const [first, second] = [await once(5), await once(5)];

    expect(second.id).toBe(first.id);
    expect(await refusal(once(6))).toBeInstanceOf(UsageError);
  });
});

describe("options", () => {
  test("DF-OPT-01: assignOptions() gives another function and merges; DF-OPT-04: metadata is replaced", () => {
    const first = assignOptions(double, { delay: "1h", metadata: { a: "1", b: "2" } });
    const second = assignOptions(first, { metadata: { c: "3" } });

    expect(double.__execOptions).toBeUndefined();
    expect(first.__execOptions).toEqual({ delay: "1h", metadata: { a: "1", b: "2" } });
    expect(second.__execOptions).toEqual({ delay: "1h", metadata: { c: "3" } });
  });

  test("DF-OPT-05: delay(), addMetadata() and discardAfter() assign one option", () => {
    const at = new Date();

    expect(delay(double, "2h").__execOptions).toEqual({ delay: "2h" });
    expect(addMetadata(double, { a: "1" }).__execOptions).toEqual({ metadata: { a: "1" } });
    expect(discardAfter(double, at).__execOptions).toEqual({ discardAfter: at });
  });

  test.each([
    ["2h", 2 * hour],
    ["30m", hour / 2],
    ["1h30m", 1.5 * hour],
    ["1h 30m", 1.5 * hour],
    ["2 days", 48 * hour],
    ["5 minutes", hour / 12],
    ["1.5 hours, 10 sec", 1.5 * hour + 10_000],
    ["1 year", 365.25 * 24 * hour],
    ["7200000", 2 * hour],
    [3 * hour, 3 * hour],
  ])("DF-OPT-02: a delay of %j waits so long by the database's clock", async (value, ms) => {
    const { id } = await delay(gated, value)("later");

    const { state, scheduledAt, createdAt } = await getExecution(id);

    expect(state).toBe("created");
    expect(Math.abs(scheduledAt.getTime() - createdAt.getTime() - ms)).toBeLessThan(2);
    await cancelExecution(id);
  });

  test("DF-OPT-02: a delay until a date starts then; a past one at once", async () => {
    const at = new Date(Date.now() + hour);
    const { id } = await delay(double, at)(1);

    expect(await getExecution(id)).toMatchObject({ state: "created", scheduledAt: at });
    expect(await awaitResult(delay(double, new Date(0)))(2)).toBe(4);
    await cancelExecution(id);
  });

  test.each([["-5 minutes"], ["soon"], ["5 lightyears"], [""], [-1], [Number.NaN], [new Date("never")], ["5 10 x"]])(
    "a delay of %j is a UsageError",
    (value) => {
      expect(() => delay(double, value)).toThrow(UsageError);
      expect(() => discardAfter(double, value)).toThrow(UsageError);
    },
  );

  test("other wrong options are a UsageError", () => {
    expect(() => addMetadata(double, { a: 1 } as never)).toThrow(/must have strings as values/);
    expect(() => assignOptions(double, { priority: 1 } as never)).toThrow(/unknown option "priority"/);
    expect(() => assignOptions((() => 1) as never, {})).toThrow(/got no deferred function/);
    expect(() => awaitResult((() => 1) as never)).toThrow(/got no deferred function/);
  });

  test("DF-OPT-03: what has not started by discardAfter is discarded, and wakes who waits for it", async () => {
    runs.length = 0;
    const late = assignOptions(gated, { delay: "1h", discardAfter: "300ms" });

    const waiting = refusal(awaitResult(late)("late"));
    const { id } = await late("late");
    const error = await waiting;

    expect(error).toBeInstanceOf(ExecutionNotCompleted);
    expect(String(error)).toMatch(/execution ".*" was "discarded"/);
    await untilState(id, "discarded");
    expect(await refusal(rescheduleExecution(id))).toBeInstanceOf(ExecutionNotReschedulable);
    expect(await refusal(getExecutionResult(id))).toBeInstanceOf(ExecutionResultNotAvailable);
    expect(await listExecutionAttempts(id)).toMatchObject({ data: [] });
    expect(runs).toEqual([]);
  });

  test("what somebody cancels in the words of a discard was cancelled, not discarded", async () => {
    const { id } = await assignOptions(double, { delay: "1h", discardAfter: "2h" })(1);
    await (await orchestrator.getExecution(id)).cancel("discarded", { actor: "mallory" });

    expect(await getExecution(id)).toMatchObject({ state: "cancelled" });
  });

  test("DF-OPT-03: what is started in time is kept; what nobody serves reads as discarded once its time is over", async () => {
    const unserved = defer(() => 1, { name: "unserved" });

    expect(await awaitResult(discardAfter(double, "1h"))(21)).toBe(42);
    const { id } = await discardAfter(unserved, new Date(1_000))();

    expect(await getExecution(id)).toMatchObject({ state: "discarded" });
    expect(await refusal(cancelExecution(id))).toBeInstanceOf(ExecutionNotCancellable);
    await sql`select flowledger.cancel(${id})`;
  });
});

describe("awaitResult", () => {
  test("DF-AWT-01, DF-AWT-07: resolves with what the function returned, also outside of a function", async () => {
    expect(await awaitResult(double)(21)).toBe(42);
  });

  test("DF-AWT-02: rejects with ExecutionFailedError, whose cause is the error with its stack", async () => {
    const error = await refusal(awaitResult(broken)("no luck"));

    expect(error).toBeInstanceOf(ExecutionFailedError);
    expect(error).toMatchObject({
      cause: { name: "RangeError", message: "no luck", stack: expect.stringContaining("defer.test.ts") },
    });
  });

  test("DF-AWT-03: rejects when the execution was aborted", async () => {
    const aborted = addMetadata(cooperative, { test: "aborted" });

    const waiting = refusal(awaitResult(aborted)());
    const id = await untilListed("aborted");
    await untilState(id, "started");
    await cancelExecution(id, true);

    expect(String(await waiting)).toContain(`execution "${id}" was "aborted"`);
  });

  test("DF-AWT-03: rejects when the execution was cancelled", async () => {
    const later = assignOptions(gated, { delay: "1h", metadata: { test: "AWT-03" } });

    const waiting = refusal(awaitResult(later)("never"));
    const id = await untilListed("AWT-03");
    await cancelExecution(id);

    const error = await waiting;
    expect(error).toBeInstanceOf(DeferError);
    expect(String(error)).toContain(`execution "${id}" was "cancelled"`);
  });

  test("DF-AWT-04: calls side by side run side by side, and results keep their order", async () => {
    expect(await Promise.all([1, 2, 3, 4].map((n) => awaitResult(meet)(n)))).toEqual([1, 2, 3, 4]);
    expect(crowd.most).toBeGreaterThan(1);
  });

  test("DF-AWT-04: inside a function, also in Promise.allSettled", async () => {
    const results = await awaitResult(processData)([1, 2, 3]);

    expect(results).toEqual([2, 4, 6, "RangeError: a child"]);
  });

  test("inside a chunk of a flow the call is recorded as its child", async () => {
    const snapshot = await orchestrator.flow(parent).start(null);

    expect(snapshot.$final_result).toEqual([6, "ADA"]);
    const [row] = await sql<{ id: string }[]>`select id from flowledger.executions where flow = 'parent'`;
    const id = row?.id ?? "";
    expect((await typesOf(id)).filter((type) => type === "child.started")).toHaveLength(2);
    expect(await sql`select flow from flowledger.executions where parent_id = ${id} order by id`).toEqual([
      { flow: "double" },
      { flow: "greet" },
    ]);
  });

  test("DF-AWT-06: waits through retries", async () => {
    runs.length = 0;

    expect(await awaitResult(flaky)(2)).toBe("at last");
  });

  test("ctx.call() takes a function, with the list of its arguments", async () => {
    const caller = defineFlow("caller");
    caller.to("call", (ctx) => ctx.call(double, [8])).end();
    const wrong = defineFlow("wrong-caller");
    wrong.to("call", (ctx) => ctx.call(double, 8 as never)).end();
    await using other = await serving(database, [caller, wrong]);

    expect((await other.flow(caller).start(null)).$final_result).toBe(16);
    expect(String(await refusal(other.flow(wrong).start(null)))).toContain("expected array");
  });
});

async function untilListed(value: string, key = "test"): Promise<string> {
  for (;;) {
    const { data } = await listExecutions({ first: 1 }, { metadata: [{ key, values: [value] }] });
    if (data[0]) return data[0].id;
    await sleep(5);
  }
}

describe("results", () => {
  test("DF-GET-04, DF-GET-05: by state: not yet, the value, the error, never", async () => {
    const result = gate("result");
    const { id } = await gated("result");
    const early = await refusal(getExecutionResult(id));
    result.open();
    await untilState(id, "succeed");
    const { id: failed } = await broken("gone");
    await untilState(failed, "failed");
    const { id: cancelled } = await delay(double, "1h")(1);
    await cancelExecution(cancelled);

    expect(early).toBeInstanceOf(ExecutionResultNotAvailableYet);
    expect(String(early)).toContain("result is not available yet");
    expect(await getExecutionResult(id)).toBe("result");
    expect(await getExecutionResult(failed)).toMatchObject({ message: "gone", stack: expect.any(String) });
    expect(await getExecution(failed)).toMatchObject({ result: undefined, error: { name: "RangeError" } });
    expect(await listExecutionAttempts(failed)).toMatchObject({ data: [{ state: "failed", errorCode: "ER0003" }] });
    const never = await refusal(getExecutionResult(cancelled));
    expect(never).toBeInstanceOf(ExecutionResultNotAvailable);
    expect(String(never)).toContain("result is not available");
  });

  test.each([
    ["getExecution", getExecution],
    ["getExecutionResult", getExecutionResult],
    ["cancelExecution", cancelExecution],
    ["rescheduleExecution", rescheduleExecution],
    ["reRunExecution", reRunExecution],
    ["listExecutionAttempts", listExecutionAttempts],
  ] as const)("DF-GET-03: %s of an unknown id, or of no id, is ExecutionNotFound", async (_, call) => {
    for (const id of [unknownId, "nonsense", 7 as never]) {
      const error = await refusal(call(id));

      expect(error).toBeInstanceOf(ExecutionNotFound);
      expect(error).toBeInstanceOf(DeferError);
      expect(error).toBeInstanceOf(FlowledgerError);
      expect(String(error)).toContain(`cannot find execution "${String(id)}"`);
    }
  });
});

describe("control", () => {
  test("DF-CTL-01: what has not started is cancelled at once, without a worker, and never runs", async () => {
    const unserved = defer(() => 1, { name: "unserved" });
    const { id } = await unserved();

    const cancelled = await cancelExecution(id);

    expect(cancelled.state).toBe("cancelled");
    expect(await typesOf(id)).toEqual([
      "execution.created",
      "execution.started",
      "cancel.requested",
      "execution.closed",
    ]);
    expect(String(await refusal(cancelExecution(id)))).toContain('cannot cancel execution in "cancelled" state');
  });

  test("DF-CTL-02, DF-CTL-03: what runs is only aborted by force; DF-CTL-04: and ends as aborted, whatever it returns", async () => {
    const abort = gate("abort");
    const { id } = await gated("abort");
    await untilState(id, "started");

    const refused = await refusal(cancelExecution(id));
    const aborting = await cancelExecution(id, true);
    const again = await refusal(cancelExecution(id, true));
    const soft = await refusal(cancelExecution(id));
    const early = await refusal(getExecutionResult(id));
    abort.open();

    expect(refused).toBeInstanceOf(ExecutionNotCancellable);
    expect(String(refused)).toContain('cannot cancel execution in "started" state');
    expect(aborting.state).toBe("aborting");
    expect(again).toBeInstanceOf(ExecutionAbortingAlreadyInProgress);
    expect(String(soft)).toContain('cannot cancel execution in "aborting" state');
    expect(early).toBeInstanceOf(ExecutionResultNotAvailable);
    await untilState(id, "aborted");
    for (const force of [true, false])
      expect(String(await refusal(cancelExecution(id, force)))).toContain('cannot cancel execution in "aborted" state');
    expect(await refusal(getExecutionResult(id))).toBeInstanceOf(ExecutionResultNotAvailable);
    expect(await getExecution(id)).toMatchObject({ result: undefined, error: undefined });
  });

  test("a function that heeds its signal is aborted at once, one that does not after the grace", async () => {
    runs.length = 0;
    const [{ id: heeds }, { id: deaf }] = await Promise.all([cooperative(), (gate("deaf"), gated("deaf"))]);
    await Promise.all([untilState(heeds, "started"), untilState(deaf, "started")]);

    await Promise.all([cancelExecution(heeds, true), cancelExecution(deaf, true)]);

    await Promise.all([untilState(heeds, "aborted"), untilState(deaf, "aborted")]);
    expect(await listExecutionAttempts(heeds)).toMatchObject({ data: [{ attempt: 1, state: "aborted" }] });
    gates.get("deaf")?.open();
  });

  test("DF-CTL-05: what has not started moves to another time, and keeps its id", async () => {
    const at = new Date(Date.now() + 2 * hour);
    const { id } = await delay(double, "1h")(100);

    expect(await rescheduleExecution(id, at)).toMatchObject({ id, state: "created", scheduledAt: at });
    const soon = await rescheduleExecution(id, "2 minutes");
    expect(Math.abs(soon.scheduledAt.getTime() - Date.now() - 120_000)).toBeLessThan(10_000);
    await rescheduleExecution(id);

    await untilState(id, "succeed");
    const error = await refusal(rescheduleExecution(id));
    expect(error).toBeInstanceOf(ExecutionNotReschedulable);
    expect(String(error)).toContain('execution in "succeed" state');
    expect(await refusal(rescheduleExecution(id, "whenever"))).toBeInstanceOf(UsageError);
  });

  test("DF-CTL-05: of a claim and a reschedule at the same moment, one wins", async () => {
    runs.length = 0;
    const calls = await Promise.all(Array.from({ length: 40 }, (_, n) => double(1000 + n)));

    const moved = await Promise.allSettled(calls.map(({ id }) => rescheduleExecution(id, "1h")));

    for (const [index, { id }] of calls.entries()) {
      const isMoved = moved[index]?.status === "fulfilled";
      await untilState(id, isMoved ? "created" : "succeed");
      expect(runs.includes(`double ${1000 + index}`)).toBe(!isMoved);
      if (isMoved) await cancelExecution(id);
    }
  });

  test("DF-CTL-01: of a claim and a cancel at the same moment, one wins", async () => {
    runs.length = 0;
    const calls = await Promise.all(Array.from({ length: 40 }, (_, n) => double(2000 + n)));

    const cancelled = await Promise.allSettled(calls.map(({ id }) => cancelExecution(id)));

    for (const [index, { id }] of calls.entries()) {
      const isCancelled = cancelled[index]?.status === "fulfilled";
      await untilState(id, isCancelled ? "cancelled" : "succeed");
      expect(runs.includes(`double ${2000 + index}`)).toBe(!isCancelled);
    }
  });

  test("DF-CTL-06: a rerun is a new execution of the same call; the old one stays, its discardAfter is not copied", async () => {
    const call = assignOptions(double, { metadata: { test: "CTL-06" }, delay: "1h", discardAfter: "2h" });
    const { id } = await call(50);
    await cancelExecution(id);

    const again = await reRunExecution(id);

    expect(again.id).not.toBe(id);
    await untilState(again.id, "succeed");
    expect(await getExecution(again.id)).toMatchObject({ result: 100, metadata: { test: "CTL-06" } });
    expect(await getExecution(id)).toMatchObject({ state: "cancelled" });
    const [created] = await sql<{ payload: { settings?: unknown } }[]>`
      select payload from flowledger.ledger where execution_id = ${again.id} and seq = 1`;
    expect(created?.payload.settings).toEqual({ autoCloseMs: 0 });
  });
});

describe("lists", () => {
  test("DF-CTL-07: pages by cursor, in both directions", async () => {
    const listed = addMetadata(double, { test: "pages" });
    const ids: string[] = [];
    for (let n = 0; n < 5; n++) ids.unshift((await listed(n)).id);
    const filter = { metadata: [{ key: "test", values: ["pages"] }] };
    const idsOf = (page: Awaited<ReturnType<typeof listExecutions>>) => page.data.map(({ id }) => id);

    const first = await listExecutions({ first: 2 }, filter);
    const second = await listExecutions({ first: 2, after: first.pageInfo.endCursor ?? "" }, filter);
    const third = await listExecutions({ first: 2, after: second.pageInfo.endCursor ?? "" }, filter);
    const back = await listExecutions({ last: 2, before: third.pageInfo.startCursor ?? "" }, filter);

    expect([...idsOf(first), ...idsOf(second), ...idsOf(third)]).toEqual(ids);
    expect([first, second, third, back].map(({ pageInfo }) => [pageInfo.hasNextPage, pageInfo.hasPrevPage])).toEqual([
      [true, false],
      [true, true],
      [false, true],
      [true, true],
    ]);
    expect(idsOf(back)).toEqual(idsOf(second));
    expect(idsOf(await listExecutions({ last: 2 }, filter))).toEqual(ids.slice(-2));
    expect(await listExecutions({}, { metadata: [{ key: "test", values: ["nothing"] }] })).toEqual({
      data: [],
      pageInfo: { hasNextPage: false, hasPrevPage: false, startCursor: null, endCursor: null },
    });
  });

  test("DF-CTL-07: filters hold together, their values are alternatives", async () => {
    const test = (value: string) => ({ key: "test", values: [value, "other"] });
    const run = addMetadata(double, { test: "filters", kind: "run" });
    const later = assignOptions(double, { delay: "1h", metadata: { test: "filters", kind: "later" } });
    const fail = addMetadata(broken, { test: "filters" });
    const [{ id: a }, { id: b }, { id: c }] = [await run(1), await later(2), await fail("x")];
    await Promise.all([untilState(a, "succeed"), untilState(c, "failed")]);
    const { data } = await listExecutionAttempts(a);
    const worker = data[0]?.executedBy ?? "";
    const now = new Date();
    const find = async (filters: Parameters<typeof listExecutions>[1]) =>
      (await listExecutions({}, { metadata: [test("filters")], ...filters })).data.map(({ id }) => id).toSorted();

    expect(await find({})).toEqual([a, b, c].toSorted());
    expect(await find({ states: ["succeed", "created"] })).toEqual([a, b].toSorted());
    expect(await find({ functionIds: ["broken"] })).toEqual([c]);
    expect(await find({ errorCodes: ["ER0003"] })).toEqual([c]);
    expect(await find({ executedBy: [worker] })).toEqual([a, c].toSorted());
    expect(await find({ executedBy: worker })).toEqual([a, c].toSorted());
    expect(await find({ executedBy: ["nobody"] })).toEqual([]);
    expect(await find({ startedAt: { to: new Date(now.getTime() + hour) } })).toEqual([a, c].toSorted());
    expect(await find({ startedAt: { from: new Date(now.getTime() + hour) } })).toEqual([]);
    expect(await find({ scheduleAt: { to: new Date(now.getTime() - hour) } })).toEqual([]);
    expect(await find({ scheduleAt: { from: new Date(now.getTime() + hour / 2) } })).toEqual([b]);
    expect(await find({ metadata: [test("filters"), { key: "kind", values: ["later"] }] })).toEqual([b]);
    await cancelExecution(b);
  });

  test.each([
    [{ first: -1 }, {}],
    [{ last: -1 }, {}],
    [{ last: 0 }, {}],
    [{ first: 1, last: 1 }, {}],
    [{ after: "here" }, {}],
    [{}, { startedAt: { from: new Date("never") } }],
    [{}, { functionIds: [] }],
    [{}, { states: [] }],
    [{}, { executedBy: [] }],
    [{}, { errorCodes: [] }],
    [{}, { metadata: [{ key: "test", values: [] }] }],
  ])("DF-CTL-07: listExecutions(%j, %j) is a UsageError", async (page, filters) => {
    expect(await refusal(listExecutions(page, filters))).toBeInstanceOf(UsageError);
  });

  test("DF-GET-01: the states are Defer's, and another one says so", async () => {
    const error = await refusal(listExecutions({}, { states: ["succeeded" as never] }));

    expect(String(error)).toContain(
      'an item of states of listExecutions() must be "created", "started", "succeed", "failed", "cancelled", "aborting", "aborted" or "discarded", got "succeeded"',
    );
  });

  test("attempts are filtered as executions are, and no filter is passed over", async () => {
    const { id } = await flaky(2);
    await untilState(id, "succeed");
    const find = async (filters: Parameters<typeof listExecutionAttempts>[2]) =>
      (await listExecutionAttempts(id, {}, filters)).data.map(({ attempt }) => attempt);
    const attempts = (await listExecutionAttempts(id)).data;
    const numbers = (state: FunctionState) =>
      attempts.filter((one) => one.state === state).map(({ attempt }) => attempt);

    expect(await find({ states: "succeed" })).toEqual(numbers("succeed"));
    expect(await find({ states: ["failed"], errorCodes: "EBUSY" })).toEqual(numbers("failed"));
    expect(await find({ executedBy: attempts[0]?.executedBy ?? "" })).toEqual(attempts.map(({ attempt }) => attempt));
    expect(await find({ executedBy: ["nobody"] })).toEqual([]);
    expect(await find({ startedAt: { to: new Date(0) } })).toEqual([]);
    expect(await refusal(listExecutionAttempts(id, {}, { functionIds: "flaky" } as never))).toBeInstanceOf(UsageError);
  });

  test("an attempt began when a worker first took it, however often it was given back since", async () => {
    const { id } = await resting();
    await untilState(id, "succeed");
    const claims = await (await orchestrator.getExecution(id)).history({ types: ["execution.claimed"] });

    const { data } = await listExecutionAttempts(id);

    expect(claims.length).toBeGreaterThan(1);
    expect(data).toMatchObject([{ attempt: 1, state: "succeed", startedAt: claims[0]?.at }]);
  });

  test("cursors of attempts that are none are a UsageError", async () => {
    const { id } = await double(0);

    expect(await refusal(listExecutionAttempts(id, { after: "x" }))).toBeInstanceOf(UsageError);
    expect(await refusal(listExecutionAttempts(id, { first: 0 }))).toBeInstanceOf(UsageError);
  });
});

test("what all of this left in the database holds together", async () => {
  expect(await verify(sql)).toEqual([]);
});

test("an orchestrator that closed makes room for another, and DF-DEF-10: a cron function runs by its schedule", async () => {
  await orchestrator.close();
  const scheduled = await sql`
    update flowledger.schedules set fired_until = fired_until - interval '25 hours' returning name, cron, time_zone`;
  await using other = await serving(database, [], { functions });

  configure(other);

  expect(await awaitResult(double)(3)).toBe(6);
  expect(scheduled).toEqual([{ name: "nightly", cron: "0 7 * * *", time_zone: "UTC" }]);
  const id = await untilListed("nightly", "schedule");
  await untilState(id, "succeed");
  expect((await getExecution(id)).metadata["scheduledAt"]).toMatch(/T07:00:00/);
});
