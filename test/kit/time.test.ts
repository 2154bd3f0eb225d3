/** Promises about time, and about what a lost worker leaves, each at its exact moment. */
import postgres from "postgres";
import { expect, inject, test, vi } from "vitest";
import { defineFlow, type Ctx, type Execution } from "../../src/index.ts";
import { internals } from "../../src/orchestrator.ts";
import { configure, defer, delay, discardAfter, rescheduleExecution, reRunExecution } from "../../src/defer.ts";
import type { Committer } from "../../src/engine/committer.ts";
import { TestOrchestrator } from "../../src/test.ts";
import { collect, newGate } from "../support/flows.ts";
import { kit } from "../support/kit.ts";

/** How an execution ended, and after how many minutes. */
async function endOf(execution: Execution, begun: number): Promise<string> {
  const [closed] = await execution.history({ types: ["execution.closed"] });
  if (closed?.type !== "execution.closed") return "open";
  return `${closed.outcome} ${closed.reason} ${(closed.at.getTime() - begun) / 60_000}`;
}

/** The worker is gone without a word, and another one is there. */
async function crash(t: TestOrchestrator): Promise<void> {
  for (const { inside } of t.orchestrator[internals].workers) inside.crash();
  await t.orchestrator.startWorker();
}

test("the timeout of an execution counts from its first claim: neither from its start nor from a later claim", async () => {
  const naps = defineFlow("naps").to("nap", async (ctx) => {
    for (;;) await ctx.sleep("10m");
  });
  const queued = defineFlow("timed.queued", {}, { limits: { rate: { limit: 1, per: "1h" } } }).to("nap", (ctx) =>
    ctx.sleep("1d"),
  );
  await using t = await kit({ flows: [naps, queued] });
  const begun = t.clock.now().getTime();
  const first = await t.start(naps, null, { timeout: "25m" });
  const delayed = await t.start(naps, null, { timeout: "25m", delay: "1h" });
  await t.start(queued, null, { autoCloseTimeout: 0 });
  const behind = await t.start(queued, null, { timeout: "25m" });

  await t.clock.advance("3h");

  expect(await endOf(first, begun)).toBe("failed timeout 25");
  expect(await endOf(delayed, begun)).toBe("failed timeout 85");
  expect(await endOf(behind, begun)).toBe("failed timeout 85");
});

test("the idle time of a start counts from when its wait is over: for a worker, its flow, a slot or its time", async () => {
  const heard = defineFlow("idle.heard");
  const limited = defineFlow("idle.limited", {}, { limits: { rate: { limit: 1, per: "1h" } } });
  for (const flow of [heard, limited]) flow.when("Ping").to("pong", () => null);
  await using t = await kit({ flows: [heard, limited], workers: 0 });
  const begun = t.clock.now().getTime();
  const unserved = await t.start(heard, null);
  const delayed = await t.start(heard, null, { delay: "2h" });
  const first = await t.start(limited, null);
  const queued = await t.start(limited, null);
  await t.clock.advance("10m");
  await t.orchestrator.startWorker();
  await t.clock.advance("50m");
  await t.orchestrator.pauseFlow(heard.name, { actor: "ann", reason: "later" });
  const held = await t.start(heard, null);
  await t.clock.advance("20m");
  await t.orchestrator.unpauseFlow(heard.name, { actor: "ann", reason: "now" });
  await t.clock.advance("3h");

  const seconds = async (execution: Execution) => {
    const [event] = await execution.history({ types: ["execution.closed"] });
    return event && (event.at.getTime() - begun) / 1000;
  };
  expect(await Promise.all([unserved, first, held, queued, delayed].map(seconds))).toEqual([
    610, 610, 4810, 4210, 7210,
  ]);
});

test("an emit that waits goes on when the pause of its handler expires", async () => {
  const flow = defineFlow("emits");
  flow.when("Asked").to("ask", (ctx) => ctx.pauseFor({ expiresIn: "1h" }));
  flow.to("emit", async (ctx) => {
    await ctx.emit("Asked", null, { wait: true });
    await ctx.setState("went on", true);
  });
  await using t = await kit({ flows: [flow] });
  const begun = t.clock.now().getTime();
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });

  await t.clock.advance("2h");

  expect(await endOf(run, begun)).toBe("completed auto_close_idle_timeout 60");
  expect(await run.until("closed")).toEqual({ "went on": true });
});

test.each(["another claim", "a lost worker"])(
  "the concurrency of a forEach counts items under way after %s",
  async (what) => {
    const flow = defineFlow("items");
    flow
      .to("items", () => [1, 2, 3])
      .forEach({ concurrency: 1 })
      .to("first", () => 1)
      .to("second", (ctx) => ctx.sleep("1h"))
      .endForEach();
    flow.when("Ping").to("pong", () => {});
    await using t = await kit({ flows: [flow] });
    const begun = t.clock.now().getTime();
    const run = await t.start(flow, null, { autoCloseTimeout: 0 });
    await t.clock.advance("30m");

    await run.emit("Ping", null);
    if (what === "a lost worker") await crash(t);
    await t.clock.advance("1m");
    const counts = [t.calls("first")];
    await t.clock.advance("30m");
    counts.push(t.calls("first"));
    await t.clock.advance("1d");

    expect(counts).toEqual([1, 2]);
    expect(await endOf(run, begun)).toBe("completed auto_close_idle_timeout 180");
  },
);

test("a worker that is told to stop does not wait for a short sleep", async () => {
  const flow = defineFlow("short").to("nap", (ctx) => ctx.sleep("900ms"));
  await using t = await kit({ flows: [flow], worker: { drainTimeout: "1h" } });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });
  await t.settle();

  // By the clock of the test it would be over never.
  for (const worker of t.orchestrator[internals].workers) await worker.stop();
  await t.orchestrator.startWorker();
  await t.clock.advance("1s");

  await run.until("closed");
  expect(await run.history({ types: ["chunk.interrupted", "chunk.failed"] })).toEqual([]);
});

test("an item of a distributed collection that somebody cancels is no result: its parent fails", async () => {
  const flow = defineFlow("spread");
  flow
    .to("items", () => [1, 2])
    .forEach({ distribute: true })
    .to("each", (ctx) => ctx.sleep("1h"))
    .endForEach()
    .to("sum", (ctx) => ctx.setState("sum", ctx.input));
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });
  await t.settle();
  const { executions } = await t.orchestrator.listExecutions();
  const item = executions.find(({ id }) => id !== run.id);

  await (await t.orchestrator.getExecution(item?.id ?? "")).cancel("not this one");
  await t.clock.advance("2h");

  await expect(run.until("closed")).rejects.toThrow("not this one");
  expect(t.calls("sum")).toBe(0);
});

test("the quiet time of a reader counts from the last item", async () => {
  const put = (item: number) => (ctx: { putIntoStream(item: number): unknown }) => void ctx.putIntoStream(item);
  const flow = defineFlow("slow")
    .to("1", put(1))
    .to("nap 1", (ctx) => ctx.sleep("20h"))
    .to("2", put(2))
    .to("nap 2", (ctx) => ctx.sleep("20h"))
    .to("3", put(3))
    .to("nap 3", (ctx) => ctx.sleep("20h"));
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });
  const seen: unknown[] = [];
  const reading = (async () => {
    for await (const item of run.getRuntimeStream({ timeout: "1d" })) seen.push(item);
  })();

  for (let hours = 0; hours < 60; hours += 20) {
    // The reader has what there is before time goes on.
    await expect.poll(() => seen.length).toBe(hours / 20 + 1);
    await t.clock.advance("20h");
  }
  await reading;

  expect(seen).toEqual([1, 2, 3]);
});

test("an execution that gets on between two lost workers is not taken for their cause, however many there are", async () => {
  const steps = 7;
  const flow = defineFlow("unlucky").to("steps", async (ctx) => {
    for (let step = 0; step < steps; step++) {
      await ctx.step(`s${step}`, () => null);
      // So short that its worker keeps it.
      await ctx.sleep("900ms");
    }
  });
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });

  for (let step = 0; step < steps; step++) {
    await t.settle();
    await crash(t);
    await t.clock.advance("900ms");
  }

  await run.until("closed");
  expect(Array.from({ length: steps }, (_, step) => t.calls(`s${step}`))).toEqual(
    Array.from({ length: steps }, () => 1),
  );
});

test("one that takes down worker after worker without getting on is closed as a crash loop", async () => {
  const flow = defineFlow("deadly").to("hang", () => new Promise<void>(() => {}));
  await using t = await kit({ flows: [flow], patience: "10ms" });
  const run = await t.start(flow, null);
  for (let round = 0; round < 8 && (await run.isOpen()); round++) {
    await t.settle();
    await crash(t);
    await t.settle();
  }

  await expect(run.until("closed")).rejects.toThrow(/worker/);
  const [closed] = await run.history({ types: ["execution.closed"] });
  expect(closed).toMatchObject({ reason: "worker_crash_loop" });
  expect(t.calls("hang")).toBe(5);
});

test.each([
  ["a flow", { rate: { limit: 1, per: "24h" } }],
  ["a key", { key: () => "one", perKey: { rate: { limit: 1, per: "24h" } } }],
])("the rate of %s counts starts of its whole window", async (_, limits) => {
  const flow = defineFlow("rated", {}, { limits }).to("a", () => 1);
  await using t = await kit({ flows: [flow] });
  const begun = t.clock.now().getTime();
  await t.start(flow, null, { autoCloseTimeout: 0 });
  await t.clock.advance("13h");
  const late = await t.start(flow, null, { autoCloseTimeout: 0 });

  await t.clock.advance("2d");

  expect(await endOf(late, begun)).toBe("completed auto_close_idle_timeout 1440");
});

test.each(["parked meanwhile", "on a worker that was lost"])(
  "between the items of two attempts the stream says once that there was a retry: %s",
  async (what) => {
    const flow = defineFlow("talks").to(
      "talk",
      async (ctx) => {
        await ctx.putIntoStream(`attempt ${ctx.attempt}`);
        if (ctx.attempt === 1) throw new Error("no");
      },
      { retry: { maxAttempts: 2, initialInterval: "10m", jitter: false } },
    );
    await using t = await kit({ flows: [flow] });
    const run = await t.start(flow, null, { autoCloseTimeout: 0 });
    await t.clock.advance("5m");
    if (what !== "parked meanwhile") await crash(t);

    await t.clock.advance("10m");

    await run.until("closed");
    expect(await collect(run.getRuntimeStream())).toEqual([
      "attempt 1",
      expect.objectContaining({ type: "retry", chunk: "talk", attempt: 2 }),
      "attempt 2",
    ]);
  },
);

test("a step has the same key in the next attempt, whatever began before it in the one that was lost", async () => {
  const keys = new Map<string, string[]>();
  let attempts = 0;
  const flow = defineFlow("flips").to("work", async (ctx) => {
    const isLost = ++attempts === 1;
    const run = (name: string) =>
      ctx.step(name, async (_, key) => {
        keys.set(name, [...(keys.get(name) ?? []), key]);
        if (isLost) await new Promise(() => {});
      });
    await Promise.all((isLost ? ["charge", "mail", "mail"] : ["mail", "mail", "charge"]).map(run));
  });
  await using t = await kit({ flows: [flow], patience: "50ms" });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });
  await vi.waitFor(() => expect(keys.get("mail")).toHaveLength(2));

  await crash(t);
  await t.clock.advance("1m");

  await run.until("closed");
  const [charged = [], mailed = []] = [keys.get("charge"), keys.get("mail")];
  expect(new Set(charged).size).toBe(1);
  expect(charged).toHaveLength(2);
  // Steps of one name are told apart by their number.
  expect(mailed.slice(2)).toEqual(mailed.slice(0, 2));
  expect(new Set(mailed).size).toBe(2);
});

test("a retry waits ten minutes at most where nothing else is said", async () => {
  const at: number[] = [];
  const flow = defineFlow("patient").to(
    "try",
    () => {
      at.push((t.clock.now().getTime() - begun) / 60_000);
      throw new Error("no");
    },
    { retry: { maxAttempts: 5, initialInterval: "4m", jitter: false } },
  );
  await using t = await kit({ flows: [flow] });
  const begun = t.clock.now().getTime();
  await t.start(flow, null);

  await t.clock.advance("2h");

  expect(at).toEqual([0, 4, 12, 22, 32]);
});

test("a function that is moved beyond its discardAfter is discarded then, and a re-run keeps the priority", async () => {
  const work = defer(async () => 1, { name: "moved" });
  await using t = await kit({ functions: [work] });
  configure(t.orchestrator);
  const begun = t.clock.now().getTime();
  // Not before anybody can take it.
  const { id } = await discardAfter(delay(work, "30m"), new Date(begun + 3_600_000))();
  await rescheduleExecution(id, new Date(begun + 2 * 3_600_000));
  const urgent = await t.orchestrator.flow(work.flow).startExecution([], { priority: -7 });

  await t.clock.set(new Date(begun + 3_600_000));
  const again = await reRunExecution(urgent.id);

  const discarded = await t.orchestrator.getExecution(id);
  expect(await endOf(discarded, begun)).toBe("cancelled discarded 60");
  const run = await t.orchestrator.getExecution(again.id);
  expect(await run.history({ types: ["execution.created"] })).toMatchObject([{ priority: -7 }]);
});

test("what an owner was in the middle of when it was lost, beside a far sleep, goes on at once", async () => {
  let runs = 0;
  const flow = defineFlow("lost").to("both", async (ctx) => {
    const step = ctx.step("s", () => (++runs === 1 ? new Promise<void>(() => {}) : undefined));
    await Promise.all([step, ctx.sleep("30d")]);
  });
  await using t = await kit({ flows: [flow], patience: "10ms" });
  const run = await t.start(flow, null);
  await t.settle();

  // As after a failover: this process lives on, and owns nothing any more.
  for (const { inside } of t.orchestrator[internals].workers) for (const owner of inside.owners.values()) owner.lose();
  await t.settle();

  expect(runs).toBe(2);
  expect(await run.history({ types: ["step.completed"] })).toHaveLength(1);
});

test("an execution that has written much keeps its folded state, while it runs on and when it is parked between its events", async () => {
  const flow = defineFlow("written").to("write", (ctx) => ctx.setState("text", "x".repeat(70_000)));
  flow.to("nap", (ctx) => ctx.sleep("1h")).to("after", () => {});
  await using t = await kit({ flows: [flow] });
  const { audit } = await t.orchestrator[internals].store();
  const run = await t.start(flow, null);
  await t.clock.advance("2h");

  const kept = await keptStates(t, run);

  expect(kept.length).toBe(1);
  expect(await audit.verify({ id: run.id })).toEqual([]);
});

test("an owner that stays at work keeps its folded state each thousand events, however small they are: what it waits for is found", async () => {
  const flow = defineFlow("written.small");
  flow.to("doze", (ctx) => ctx.sleep("30d"));
  flow.to("count", async (ctx) => {
    for (let n = 1; n <= 1500; n++) {
      await ctx.setState("n", n);
      if (n % 50 === 0) await ctx.flush();
    }
  });
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null);
  await t.settle();

  const { stateVersion: seq } = await run.result.getMeta();
  expect(seq).toBeGreaterThan(1500);
  expect(await keptStates(t, run)).toEqual([{ seq: expect.toSatisfy((kept: number) => seq - kept < 1000) }]);
  expect((await run.explain()).sentence).toMatch(/^It waits for chunk "doze", which sleeps until 2026-01-31/);
});

function keptStates(t: TestOrchestrator, { id }: Execution): Promise<readonly unknown[]> {
  return onSql(t, (sql) => sql`select seq from flowledger.snapshots where execution_id = ${id}::uuid`);
}

async function onSql<T>(t: TestOrchestrator, ask: (sql: postgres.Sql) => Promise<T>): Promise<T> {
  const sql = postgres(t.database, { max: 1, onnotice: () => {} });
  try {
    return await ask(sql);
  } finally {
    await sql.end();
  }
}

test("a commit whose answer was lost leaves nothing behind that waits for a far sleep", async () => {
  process.env["DATABASE_URL"] = inject("serverUrl");
  const flow = defineFlow("repeated").to("both", async (ctx) => {
    const inARow = async () => {
      await ctx.step("first", () => 1);
      await ctx.step("second", () => 2);
    };
    await Promise.all([inARow(), ctx.sleep("30d")]);
  });
  let isLost = false;
  const committer = (inner: Committer): Committer => ({
    ...inner,
    record: (item, send) => inner.record(item, send),
    close: () => inner.close(),
    async commit(item) {
      const answer = await inner.commit(item);
      if (isLost || !item.events.some((event) => event.type === "step.completed" && event.name === "first"))
        return answer;
      isLost = true;
      return { verdict: "repeat" };
    },
  });
  await using t = await TestOrchestrator.open(
    { flows: [flow], begin: new Date("2026-01-01T09:00Z"), workers: 1, patienceMs: 2000 },
    { committer },
  );
  await t.start(flow, null);
  await t.settle();

  expect(isLost).toBe(true);
  expect([t.calls("first"), t.calls("second")]).toEqual([1, 1]);
});

test("the timeout of a chunk goes on after a wait where it stood before it", async () => {
  let [first, second] = [newGate(), newGate()];
  const flow = defineFlow("limited.chunk").to(
    "work",
    async (ctx) => {
      await first.passed;
      // So short that its worker keeps it.
      await ctx.sleep("900ms");
      await second.passed;
    },
    { timeout: "1h" },
  );
  await using t = await kit({ flows: [flow], patience: "10ms" });
  const begun = t.clock.now().getTime();
  const run = await t.start(flow, null);
  await t.clock.advance("40m");
  first.open();
  await t.clock.advance("1s");
  await t.clock.advance("30m");

  await expect(run.until("closed")).rejects.toThrow(/timeout/);
  expect(await endOf(run, begun)).toBe(`failed failed ${60 + 0.9 / 60}`);
  second.open();
});

test("what a cancel leaves to do has a time of its own, also where what ran had used up its", async () => {
  const flow = defineFlow("graceful").to("hang", () => new Promise<void>(() => {}), {
    onCancel: (ctx) => ctx.sleep("5s"),
  });
  await using t = await kit({ flows: [flow], patience: "10ms", worker: { cancelGrace: "10s" } });
  const run = await t.start(flow, null);
  await t.settle();
  await run.cancel("enough");
  await t.clock.advance("1m");

  await expect(run.until("closed")).rejects.toThrow(/cancelled/);
  expect(await run.history({ types: ["cleanup.completed", "cleanup.failed"] })).toMatchObject([
    { type: "cleanup.completed", chunk: "hang" },
  ]);
});

test("a copy that nobody has taken is discarded when what it is a copy of would be", async () => {
  const flow = defineFlow("kept").to("work", () => {});
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { delay: "3d", discardAfter: "1d" });
  const copy = await run.fork({ at: 2 });

  await t.clock.advance("2d");

  for (const { result } of [run, copy]) expect(await result.getMeta()).toMatchObject({ closeReason: "discarded" });
});

test("what a chunk calls has the longest time of its flow, unless the call gives it another", async () => {
  const slow = defineFlow("slow", {}, { maxDuration: "1h" });
  slow.to("nap", (ctx) => ctx.sleep("9h"));
  const flow = defineFlow("calling").to("call", async (ctx) => {
    await Promise.allSettled([ctx.call(slow, null), ctx.call(slow, null, { timeout: "2h" })]);
  });
  await using t = await kit({ flows: [flow, slow] });
  const run = await t.start(flow, null);
  await t.clock.advance("3h");
  await run.until("closed");

  const { executions } = await t.orchestrator.listExecutions({ parent: run.id });
  const hours = executions.map(({ createdAt, closedAt }) => (Number(closedAt) - Number(createdAt)) / 3_600_000);
  expect(new Set(hours)).toEqual(new Set([1, 2]));
});

test("executions that lost two workers each are tried one after the other, until all of them are through", async () => {
  const lives = new Map<string, number>();
  const flow = defineFlow("shy").to("hang", async ({ execution: { id } }) => {
    lives.set(id, (lives.get(id) ?? 0) + 1);
    if ((lives.get(id) ?? 0) <= 2) await new Promise<void>(() => {});
  });
  await using t = await kit({ flows: [flow], patience: "10ms" });
  const runs = [await t.start(flow, null), await t.start(flow, null), await t.start(flow, null)];
  for (let round = 0; round < 2; round++) {
    await t.settle();
    await crash(t);
  }

  for (const run of runs) await run.until("closed");
  expect([...lives.values()]).toEqual([3, 3, 3]);
});

test("what a worker takes besides leaves it the place of one that lost workers", async () => {
  const flow = defineFlow("calm").to("work", () => {});
  await using t = await kit({ flows: [flow] });
  const ordinary = await t.start(flow, null, { delay: "30m", autoCloseTimeout: 0 });
  const suspect = await t.start(flow, null, { delay: "1h", autoCloseTimeout: 0 });
  await onSql(t, (sql) => sql`update flowledger.executions set takeovers = 2 where id = ${suspect.id}::uuid`);
  await t.clock.advance("2h");

  for (const run of [ordinary, suspect]) expect(await run.until("closed")).toEqual({});
});

test.each<[string, (ctx: Ctx) => unknown]>([
  ["a step", (ctx) => ctx.step("think", () => null)],
  ["nothing that waits", () => null],
  ["a write", (ctx) => ctx.setState("thought", true)],
  ["another emit that waits", (ctx) => ctx.emit("Nobody", null, { wait: true })],
])("an emit that waits for %s goes on when what its handlers did is in the ledger, and not before", async (_, work) => {
  process.env["DATABASE_URL"] = inject("serverUrl");
  let wentOn = 0;
  const flow = defineFlow("grouped");
  flow.when("Asked").to("answer", work);
  flow.to(
    "emit",
    async (ctx) => {
      await ctx.emit("Asked", null, { wait: true });
      wentOn += 1;
      // The attempt that replays it, beside handlers that are through.
      if (ctx.attempt === 1) throw new Error("again");
    },
    { retry: { maxAttempts: 2, initialInterval: 1 } },
  );
  const wasOn: number[] = [];
  const committer = (inner: Committer): Committer => ({
    ...inner,
    async commit(item) {
      const isEnd = item.events.some((event) => event.type === "chunk.completed" && event.chunk === "answer");
      // Whoever was woken would be on by then.
      if (isEnd) await new Promise(setImmediate);
      if (isEnd) wasOn.push(wentOn);
      return inner.commit(item);
    },
  });
  await using t = await TestOrchestrator.open(
    { flows: [flow], begin: new Date("2026-01-01T09:00Z"), workers: 1, patienceMs: 2000 },
    { committer },
  );
  const run = await t.start(flow, null);
  await t.clock.advance("1m");

  expect(await run.isOpen()).toBe(false);
  expect(wasOn).toEqual([0]);
  expect(wentOn).toBe(2);
});
