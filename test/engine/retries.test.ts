/** Retries and timeouts: counted and timed by the ledger, and over when the policy says so. */
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { verify } from "../../src/store/verify.ts";
import { defer } from "../../src/defer.ts";
import { defineFlow, ExecutionTimeoutError, Flow } from "../../src/index.ts";
import type { RetryOptions } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, serving, untilEvent } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
const atOnce = { autoCloseTimeout: 0 } as const;

test("LI-RTY-01, LI-RTY-02: a failing chunk is tried as often as its policy says, the first time included, with the waits of the policy in the ledger", async () => {
  const attempts: number[] = [];
  const flow = defineFlow("retries.backoff");
  flow.to(
    "fail",
    (ctx) => {
      attempts.push(ctx.attempt);
      throw new Error(`no ${ctx.attempt}`);
    },
    { retry: { maxAttempts: 4, initialInterval: 20, multiplier: 3, maxInterval: 100, jitter: false } },
  );
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);

  const error = await refusal(execution.waitForClose());
  const failures = await execution.history({ types: ["chunk.failed"] });

  expect(attempts).toEqual([1, 2, 3, 4]);
  expect(failures.map((event) => ("retryInMs" in event ? event.retryInMs : null))).toEqual([20, 60, 100, null]);
  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { message: "no 4" } });
  expect(await verify(sql, { id: execution.id })).toEqual([]);
});

test("jitter keeps every wait between half and all of what the policy says", async () => {
  const flow = defineFlow("retries.jitter");
  flow.to(
    "fail",
    () => {
      throw new Error("no");
    },
    { retry: { maxAttempts: 6, initialInterval: 20, multiplier: 1 } },
  );
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await refusal(execution.waitForClose());

  const waits = (await execution.history({ types: ["chunk.failed"] }))
    .map((event) => ("retryInMs" in event ? event.retryInMs : undefined))
    .filter((wait) => wait !== undefined);

  expect(waits).toHaveLength(5);
  for (const wait of waits) expect(wait >= 10 && wait <= 20).toBe(true);
});

test("LI-RTY-01: a chunk without a policy, and one whose mistake stays one, is tried once", async () => {
  const runs: string[] = [];
  const flow = defineFlow("retries.none");
  flow.to("plain", () => {
    runs.push("plain");
    throw new Error("no");
  });
  const mistaken = defineFlow("retries.mistaken");
  mistaken.to(
    "mistake",
    () => {
      runs.push("mistake");
      return 1n as unknown;
    },
    { retry: { maxAttempts: 3, initialInterval: 1 } },
  );
  await using orchestrator = await serving(database, [flow, mistaken]);

  await refusal(orchestrator.flow(flow).start());
  await refusal(orchestrator.flow(mistaken).start());

  expect(runs).toEqual(["plain", "mistake"]);
});

test("LI-RTY-04: a retry gets the same input, whatever the attempt before did to it, and the number of its attempt", async () => {
  const seen: unknown[] = [];
  const flow = defineFlow("retries.input");
  flow
    .to("make", () => ({ list: [1] }))
    .to(
      "spoil",
      (ctx) => {
        seen.push([ctx.attempt, [...ctx.input.list]]);
        ctx.input.list.push(2);
        if (ctx.attempt < 3) throw new Error("again");
      },
      { retry: { maxAttempts: 3, initialInterval: 1 } },
    );
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);

  await execution.waitForClose();

  expect(seen).toEqual([
    [1, [1]],
    [2, [1]],
    [3, [1]],
  ]);
  // What went wrong before, and when, is in the ledger.
  expect(await execution.history({ types: ["chunk.failed"] })).toMatchObject([
    { attempt: 1, error: { message: "again" }, at: expect.any(Date) },
    { attempt: 2, error: { message: "again" }, at: expect.any(Date) },
  ]);
});

test("LI-RTY-03: retryIf that says no ends the retries", async () => {
  let runs = 0;
  const flow = defineFlow("retries.refused");
  flow.to(
    "fail",
    () => {
      runs += 1;
      throw new TypeError("final");
    },
    { retry: { maxAttempts: 5, initialInterval: 1, retryIf: (error) => !(error instanceof TypeError) } },
  );
  await using orchestrator = await serving(database, [flow]);

  await refusal(orchestrator.flow(flow).start());

  expect(runs).toBe(1);
});

test("a step is retried by its own policy, while its chunk goes on", async () => {
  let tries = 0;
  const flow = defineFlow("retries.step");
  flow.to("work", async (ctx) => {
    const value = await ctx.step(
      "shaky",
      () => {
        if (++tries < 3) throw new Error("shaky");
        return "held";
      },
      { retry: { maxAttempts: 3, initialInterval: 10, jitter: false } },
    );
    await ctx.setState("value", value);
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);

  expect(await execution.waitForClose()).toEqual({ value: "held" });
  expect(await execution.history({ types: ["step.failed"] })).toMatchObject([
    { attempt: 1, retryInMs: 10 },
    { attempt: 2, retryInMs: 20 },
  ]);
  expect(await execution.history({ types: ["chunk.failed"] })).toEqual([]);
});

test("LI-RTY-05: a chunk can catch what a step ends in, and a step that has failed for the last time fails again with the same error when its chunk is retried", async () => {
  let tries = 0;
  const seen: string[] = [];
  const flow = defineFlow("retries.step.final");
  flow.to(
    "work",
    async (ctx) => {
      await ctx
        .step("broken", () => {
          tries += 1;
          throw new Error("for good");
        })
        .catch((error: unknown) => void seen.push(String(error)));
      if (ctx.attempt === 1) throw new Error("again");
    },
    { retry: { maxAttempts: 2, initialInterval: 1 } },
  );
  await using orchestrator = await serving(database, [flow]);

  await orchestrator.flow(flow).start();

  expect(tries).toBe(1);
  expect(seen).toEqual(["Error: for good", "Error: for good"]);
});

test("a chunk that outlasts its timeout is aborted, and retried like any other failure", async () => {
  const aborted: boolean[] = [];
  const flow = defineFlow("retries.timeout");
  flow.to(
    "slow",
    async (ctx) => {
      if (ctx.attempt === 2) return;
      await delay(5000, null, { signal: ctx.signal }).catch(() => aborted.push(ctx.signal.aborted));
    },
    { timeout: 50, retry: { maxAttempts: 2, initialInterval: 10 } },
  );
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await execution.waitForClose();

  expect(aborted).toEqual([true]);
  expect(await execution.history({ types: ["chunk.failed"] })).toMatchObject([
    { attempt: 1, error: { name: "ChunkTimeoutError" } },
  ]);
});

test("F5: a chunk that waits for what never comes ends by its timeout", async () => {
  const flow = defineFlow("retries.stuck");
  flow.to("stuck", () => new Promise(() => {}), { timeout: 50 });
  await using orchestrator = await serving(database, [flow]);

  const error = await refusal(orchestrator.flow(flow).start());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { name: "ChunkTimeoutError" } });
});

test("an execution that outlasts its timeout fails, also while it sleeps", async () => {
  const flow = defineFlow("retries.execution");
  flow.to("nap", (ctx) => ctx.sleep("10d"));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { timeout: 300, ...atOnce });

  const error = await refusal(execution.waitForClose());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { code: "EXECUTION_TIMEOUT" } });
  expect(error).toHaveProperty("cause", expect.any(ExecutionTimeoutError));
  expect(await execution.history({ types: ["execution.closed"] })).toMatchObject([{ reason: "timeout" }]);
  expect(await verify(sql, { id: execution.id })).toEqual([]);
});

test("LI-RTY-06: the timeout of an execution is neither caught nor retried: what the chunk does then counts no more", async () => {
  let caught: unknown;
  const runs: number[] = [];
  const flow = defineFlow("retries.caught");
  flow
    .to(
      "stubborn",
      async (ctx) => {
        runs.push(ctx.attempt);
        await delay(60_000, null, { signal: ctx.signal }).catch(() => {});
        caught = await refusal(ctx.setState("recovered", true));
        return "recovered";
      },
      { retry: { maxAttempts: 5, initialInterval: 1 } },
    )
    .to("after", (ctx) => ctx.setState("after", true));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { timeout: 300, ...atOnce });

  const error = await refusal(execution.waitForClose());
  await expect.poll(() => caught).toBeInstanceOf(Error);

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { name: "ExecutionTimeoutError" } });
  expect(runs).toEqual([1]);
  expect(await execution.result.getState()).toEqual({});
  expect(await verify(sql, { id: execution.id })).toEqual([]);
});

test.each<[string, RetryOptions]>([
  ["maxAttempts 0", { maxAttempts: 0 }],
  ["maxAttempts 1.5", { maxAttempts: 1.5 }],
  ["a negative interval", { initialInterval: -1 }],
  ["an interval without a unit", { initialInterval: "5" }],
  ["a multiplier below 1", { multiplier: 0.5 }],
  ["a maxInterval below the first", { initialInterval: "2s", maxInterval: "1s" }],
])("%s is refused when the flow is defined", (_, retry) => {
  const flow = defineFlow("retries.bad");

  expect(() => flow.to("chunk", () => null, { retry }).graph).toThrow(/chunk "chunk"/);
});

test.each([-5, "-5s", "5", Number.NaN])("a chunk timeout of %s is refused when the flow is defined", (timeout) => {
  const flow = defineFlow("retries.bad.timeout");

  expect(() => flow.to("chunk", () => null, { timeout }).graph).toThrow(/is not a duration/);
});

test("F51: an error that is no error, with bytes that Postgres cannot hold, is kept in words it can", async () => {
  const flow = defineFlow("retries.odd");
  flow.to("throw", () => {
    // oxlint-disable-next-line no-throw-literal -- user code does
    throw "bad \0 byte \ud800";
  });
  await using orchestrator = await serving(database, [flow]);

  const error = await refusal(orchestrator.flow(flow).start());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { name: "NonError" } });
  expect(String(error)).toContain("bad \\u0000 byte \ufffd");
});

test("an attempt's last row says when it was due and when it began; the row's own time is its end", async () => {
  const flow = defineFlow("retries.times");
  const first = flow.to("first", () => delay(60));
  first.to(
    "again",
    (ctx) => {
      if (ctx.attempt === 1) throw new Error("once");
      return ctx.attempt;
    },
    { retry: { maxAttempts: 2, initialInterval: 50, jitter: false } },
  );
  // It is planned with "first", and waits until that has ended.
  flow.to("beside", (ctx) => ctx.pauseFor({ interruptId: "q" }));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { ...atOnce, concurrency: 1 });
  await untilEvent(execution, "interrupt.raised");
  await execution.continueWith("q", null);
  await execution.waitForClose();

  const history = await execution.history();
  const at = (event: { at: Date } | undefined) => event?.at.getTime() ?? NaN;
  const ends = history.flatMap((event) => {
    if (event.type !== "chunk.completed" && event.type !== "chunk.failed" && event.type !== "interrupt.raised")
      return [];
    const { type, chunk, queuedAt = 0, startedAt = 0 } = event;
    return [{ type, chunk, queuedAt, startedAt, endedAt: at(event) }];
  });
  const [routed] = history.filter(({ type }) => type === "inbox.routed");
  const of = (type: string, chunk: string) => ends.find((end) => end.type === type && end.chunk === chunk);
  const [ran, beside, failed, again] = [
    of("chunk.completed", "first"),
    of("interrupt.raised", "beside"),
    of("chunk.failed", "again"),
    of("chunk.completed", "again"),
  ];

  expect(ends).toHaveLength(4);
  for (const { queuedAt, startedAt, endedAt } of ends) {
    expect(startedAt).toBeGreaterThanOrEqual(queuedAt);
    expect(endedAt).toBeGreaterThanOrEqual(startedAt);
  }
  // An owner goes on before the row that plans a chunk is in.
  for (const end of [ran, beside]) expect(end?.queuedAt).toBeLessThanOrEqual(at(routed));
  expect((ran?.endedAt ?? 0) - (ran?.startedAt ?? 0)).toBeGreaterThanOrEqual(58);
  expect(beside?.startedAt).toBeGreaterThanOrEqual((ran?.startedAt ?? Infinity) + 58);
  expect(failed?.queuedAt).toBeLessThanOrEqual(ran?.endedAt ?? 0);
  // A retry is due when its wait is over.
  expect((again?.queuedAt ?? 0) - (failed?.endedAt ?? 0)).toBe(50);
});

test("a list of waits is the waits of a chunk and of a step, exact, and as many retries", async () => {
  const steps: number[] = [];
  const flow = defineFlow("retries.list");
  flow.to(
    "fail",
    async (ctx) => {
      const step = ctx.step("also", () => Promise.reject(new Error(`no ${steps.push(ctx.attempt)}`)), {
        retry: { waits: ["7ms"] },
      });
      await step.catch(() => {});
      throw new Error("no");
    },
    { retry: { waits: [30, "10ms", 0] } },
  );
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await refusal(execution.waitForClose());

  const waits = async (type: "chunk.failed" | "step.failed") =>
    (await execution.history({ types: [type] })).map((event) => ("retryInMs" in event ? event.retryInMs : null));
  expect(await waits("chunk.failed")).toEqual([30, 10, 0, null]);
  expect(await waits("step.failed")).toEqual([7, null]);
  expect(Flow.fromBlueprint(flow.toBlueprint(), { fail: () => null }).graph.chunks.get("fail")?.options.retry).toEqual({
    ...flow.graph.chunks.get("fail")?.options.retry,
  });
});

test.each([
  ["empty", { waits: [] }, /waits of chunk "x" must be a list of 1 to 1000 durations, got 0 of them/],
  ["no list", { waits: "1s" }, /waits of chunk "x" must be a list/],
  ["a wrong one", { waits: ["1s", "soon"] }, /"soon" is not a duration for retry\.waits\[1\] of chunk "x"/],
  ["a hole", { waits: [1, null] }, /retry\.waits\[1\] of chunk "x"/],
  ["beside maxAttempts", { waits: ["1s"], maxAttempts: 3 }, /has waits and maxAttempts/],
  ["beside an interval", { waits: ["1s"], initialInterval: "1s" }, /has waits and initialInterval/],
  ["too many", { waits: Array.from({ length: 1_001 }, () => 1) }, /got 1001 of them/],
])("a list of waits that is %s is refused when the flow is defined", (_, retry, problem) => {
  const given: RetryOptions = JSON.parse(JSON.stringify(retry));

  expect(() => defineFlow("retries.refused").to("x", () => null, { retry: given })).toThrow(problem);
});

test("a background function takes a list of waits in seconds or as text", () => {
  const fn = defer(() => 1, { name: "listed", retry: { waits: [1, "1m", 3600] } });

  expect(fn.flow.graph.chunks.get("listed")?.options.retry).toMatchObject({
    maxAttempts: 4,
    waitsMs: [1_000, 60_000, 3_600_000],
    jitter: false,
  });
  expect(fn.__metadata.retry).toMatchObject({ maxAttempts: 3, waits: [1, "1m", 3600] });
  for (const retry of [{ waits: [] }, { waits: [-1] }, { waits: ["soon"] }, { waits: [1], maxAttempts: 2 }])
    expect(() => defer(() => 1, { name: "listed", retry })).toThrow(/invalid retry options/);
});
