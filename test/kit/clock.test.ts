/** The clock of a test: what is due happens at its time, in its order, and at no other. */
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { parseDuration } from "../../src/base/duration.ts";
import { createOrchestrator, defineFlow, UsageError } from "../../src/index.ts";
import { ClockStuckError } from "../../src/test.ts";
import { testDatabase } from "../support/database.ts";
import { kit } from "../support/kit.ts";

const at = (day: number, time = "09:00:00.000") => `2026-01-${String(day).padStart(2, "0")}T${time}Z`;

test("the clock stands still until it is moved, and begins where the test says", async () => {
  const flow = defineFlow("standing");
  flow.to("sleep", (ctx) => ctx.sleep("1s"));
  await using t = await kit({ flows: [flow], now: "2031-05-06T07:08:09Z" });

  const run = await t.start(flow, null);
  await run.until("idle");

  expect(t.clock.now()).toEqual(new Date("2031-05-06T07:08:09Z"));
  expect((await run.history()).map((event) => event.at.toISOString())).toEqual(
    Array.from({ length: 5 }, () => "2031-05-06T07:08:09.000Z"),
  );
  expect((await t.clock.upcoming())[0]).toMatchObject({ at: new Date("2031-05-06T07:08:10Z") });
});

test.each(["20ms", "1.2s", "10s", "70s", "40d"])("a sleep of %s is over then, and not before", async (length) => {
  const flow = defineFlow("sleeper");
  flow.to("nap", (ctx) => ctx.sleep(length)).to("wake", () => "up");
  await using t = await kit({ flows: [flow] });
  const begun = t.clock.now().getTime();
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });

  await t.clock.advance(msOf(length) - 1);
  const before = t.calls("wake");
  await t.clock.advance(1);

  expect([before, t.calls("wake")]).toEqual([0, 1]);
  await run.until("closed");
  const ended = (await run.history({ types: ["execution.closed"] }))[0]?.at.getTime() ?? 0;
  expect(ended - begun).toBe(msOf(length));
  // Parked or not, the one attempt that went on is the only one that lives.
  expect(t.calls("nap")).toBeLessThanOrEqual(2);
});

test("what is due on the way happens in its order, each at its own time", async () => {
  const seen: string[] = [];
  const note = (what: string) => seen.push(`${what} ${t.clock.now().toISOString()}`);
  const flow = defineFlow("ordered");
  flow
    .to(
      "retry",
      (ctx) => {
        note(`try ${ctx.attempt}`);
        if (ctx.attempt < 3) throw new Error("again");
      },
      { retry: { maxAttempts: 3, initialInterval: "1d", maxInterval: "9d", multiplier: 2, jitter: false } },
    )
    .to("ask", (ctx) => ctx.pauseFor({ expiresIn: "2d" }));
  flow.when("$never").to("nothing", () => {});
  const child = defineFlow("weekly");
  child.to("tick", () => void note("tick"));
  await using t = await kit({ flows: [flow], schedules: [{ flow: child, cron: "0 12 * * *" }] });
  const run = await t.start(flow, null);

  await t.clock.advance("3d");

  expect(seen).toEqual([
    `try 1 ${at(1)}`,
    `tick ${at(1, "12:00:00.000")}`,
    `try 2 ${at(2)}`,
    `tick ${at(2, "12:00:00.000")}`,
    `tick ${at(3, "12:00:00.000")}`,
    `try 3 ${at(4)}`,
  ]);
  await run.until({ waiting: "ask" });
  expect(t.clock.now().toISOString()).toBe(at(4));
});

describe("next()", () => {
  test("goes to what is due next, and says what that was", async () => {
    const flow = defineFlow("said", { input: z.number() });
    flow
      .to(
        "fails",
        (ctx) => {
          if (ctx.attempt === 1) throw new Error("once");
        },
        { retry: { maxAttempts: 2, initialInterval: "1h", jitter: false } },
      )
      .to("nap", (ctx) => ctx.sleep("7d"))
      .to("ask", (ctx) => ctx.pauseFor({ expiresIn: "30d", type: "approval" }));
    await using t = await kit({ flows: [flow] });
    const run = await t.start(flow, 1, { timeout: "60d" });
    const stops = [];

    for (let stop = await t.clock.next(); stop; stop = await t.clock.next()) stops.push(stop);

    expect(stops).toEqual([
      { at: new Date(at(1, "10:00:00.000")), what: 'retry of chunk "fails" of said', executionId: run.id },
      { at: new Date(at(8, "10:00:00.000")), what: 'sleep of chunk "nap" of said', executionId: run.id },
      { at: new Date("2026-02-07T10:00:00Z"), what: 'interrupt "approval" expires in said', executionId: run.id },
      { at: new Date("2026-02-07T10:00:10Z"), what: "auto-close of said", executionId: run.id },
    ]);
  });

  test("names the timeout of a chunk and of a step that hang, and a schedule", async () => {
    const hang = () => new Promise<void>(() => {});
    const flow = defineFlow("hangs");
    flow.to("chunk", hang, { timeout: "1h" });
    const steps = defineFlow("step-hangs");
    steps.to("chunk", (ctx) => ctx.step("call", hang, { timeout: "2h" }));
    const cron = defineFlow("cron");
    cron.to("tick", () => {});
    const schedules = [{ flow: cron, cron: "0 13 * * *", name: "daily" }];
    await using t = await kit({ flows: [flow, steps], schedules, patience: "50ms" });
    await t.start(flow, null);
    await t.start(steps, null);

    const stops = [await t.clock.next(), await t.clock.next(), await t.clock.next()];

    expect(stops.map((stop) => stop?.what)).toEqual([
      'timeout of chunk "chunk"',
      expect.stringMatching(/^timeout of step "call" of chunk "chunk"$/),
      'schedule "daily"',
    ]);
  });

  test("is null where nothing is due", async () => {
    const flow = defineFlow("open");
    flow.to("a", () => 1);
    await using t = await kit({ flows: [flow] });

    expect(await t.clock.next()).toBeNull();
    await t.start(flow, null, { autoClose: false });
    expect(await t.clock.next()).toBeNull();
    expect(t.clock.now().toISOString()).toBe(at(1));
  });

  test("goes to a delayed start, and not before", async () => {
    const flow = defineFlow("delayed");
    flow.to("a", () => 1);
    await using t = await kit({ flows: [flow] });
    const run = await t.start(flow, null, { delay: "3d", autoCloseTimeout: 0 });

    await t.clock.advance("2d");
    expect(t.calls("a")).toBe(0);
    const stop = await t.clock.next();

    expect(stop).toEqual({ at: new Date(at(4)), what: "start of delayed", executionId: run.id });
    expect(t.calls("a")).toBe(1);
  });

  test("goes from one start to the next where a rate holds them back", async () => {
    const flow = defineFlow("rated", {}, { limits: { rate: { limit: 1, per: "1h" } } });
    flow.to("a", () => 1);
    await using t = await kit({ flows: [flow] });
    for (let i = 0; i < 3; i++) await t.start(flow, i, { autoCloseTimeout: 0 });
    await t.settle();

    const counts = [t.calls("a")];
    const first = await t.clock.next();
    counts.push(t.calls("a"));
    await t.clock.next();
    counts.push(t.calls("a"));

    expect(counts).toEqual([1, 2, 3]);
    expect(first?.what).toBe("the rate of rated lets the next one begin");
    expect(t.clock.now().toISOString()).toBe(at(1, "11:00:00.000"));
  });
});

test("set() goes to a moment, and never back", async () => {
  const flow = defineFlow("set");
  flow.to("a", (ctx) => ctx.sleep("3d"));
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });

  await t.clock.set("2026-01-10T00:00Z");

  expect(t.clock.now().toISOString()).toBe("2026-01-10T00:00:00.000Z");
  const [closed] = await run.history({ types: ["execution.closed"] });
  expect(closed?.at.toISOString()).toBe(at(4));
  await expect(t.clock.set("2026-01-09T00:00Z")).rejects.toThrow(UsageError);
  await expect(t.clock.set("next week")).rejects.toThrow("clock.set()");
  await expect(t.clock.advance("-1d")).rejects.toThrow("clock.advance()");
});

test("code that waits for something real is waited for before the clock moves on", async () => {
  const flow = defineFlow("real");
  flow.to(
    "fetch",
    async () => {
      await new Promise((resolve) => setTimeout(resolve, 100));
      return "page";
    },
    { timeout: "1h" },
  );
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });

  await t.clock.advance("2h");

  expect((await run.history({ types: ["chunk.failed"] })).length).toBe(0);
  await run.until("closed");
});

test("sub-flows, distributed items and groups all come to their end before the clock moves on", async () => {
  const child = defineFlow("child", { input: z.number() });
  child
    .to("double", async (ctx) => {
      await ctx.sleep("1h");
      return ctx.input * 2;
    })
    .end();
  const flow = defineFlow("family", { state: z.object({ sum: z.number() }).partial() });
  flow
    .to("items", () => [1, 2, 3])
    .forEach({ distribute: true })
    .to("each", (ctx) => ctx.call(child, Number(ctx.input)))
    .endForEach()
    .to("sum", (ctx) => ctx.setState("sum", ctx.input.length));
  await using t = await kit({ flows: [flow, child] });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });

  await t.clock.advance("59m");
  expect(t.calls("sum")).toBe(0);
  await t.clock.advance("1m");

  expect(await run.until("closed")).toMatchObject({ sum: 3 });
  expect(t.clock.now().toISOString()).toBe(at(1, "10:00:00.000"));
});

test("the same flow has the same ledger with and without the clock of a test, but for times and ids", async () => {
  const flow = defineFlow("same");
  flow
    .to("a", async (ctx) => {
      await ctx.sleep(20);
      return ctx.step("s", () => 1);
    })
    .to(
      "b",
      (ctx) => {
        if (ctx.attempt === 1) throw new Error("once");
        return ctx.setState("done", true);
      },
      { retry: { maxAttempts: 2, initialInterval: 10, jitter: false } },
    );
  await using t = await kit({ flows: [flow] });
  await using orchestrator = createOrchestrator({ connection: (await testDatabase()).url, flows: [flow] });
  await orchestrator.startWorker();

  const real = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await real.waitForClose();
  const moved = await t.start(flow, null, { autoCloseTimeout: 0 });
  await t.clock.advance("1d");

  const plain = (event: object) =>
    Object.fromEntries(
      Object.entries(event).filter(([key]) => !["at", "queuedAt", "startedAt", "worker", "error"].includes(key)),
    );
  expect((await moved.history()).map(plain)).toEqual((await real.history()).map(plain));
});

test("a clock that cannot go on says what is in the way", async () => {
  const flow = defineFlow("holder");
  flow.to("hang", () => new Promise<void>(() => {}));
  await using t = await kit({ flows: [flow], patience: "10ms", worker: { concurrency: 1, drainTimeout: "10ms" } });
  await t.start(flow, null);
  const late = t.start(flow, null).then(() => t.clock.advance("1h"));

  await expect(late).rejects.toThrow(ClockStuckError);
  await expect(late).rejects.toThrow(/holder [0-9a-f-]+ \(chunk "hang"\) still runs/);
});

function msOf(length: string): number {
  return parseDuration(length, "a test");
}
