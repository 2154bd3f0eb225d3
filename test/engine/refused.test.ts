/** What Postgres can never hold is the failure of the chunk that wrote it: by name, once, and nobody else's. */
import { expect, test } from "vitest";
import { systemTimers } from "../../src/base/timers.ts";
import type { Committer } from "../../src/engine/committer.ts";
import { defineFlow } from "../../src/index.ts";
import type { Ctx, FlowDefinition } from "../../src/index.ts";
import { internals, Orchestrator } from "../../src/orchestrator.ts";
import { verify } from "../../src/store/verify.ts";
import { giveBack, refusedWaitMs } from "../../src/engine/commit.ts";
import { ExecutionId } from "../../src/ledger/event.ts";
import type { Append, Committed } from "../../src/store/append.ts";
import { testDatabase } from "../support/database.ts";
import { serializeError } from "../../src/engine/retries.ts";
import { newGate, serving, untilEvent } from "../support/flows.ts";
import { kit } from "../support/kit.ts";

const database = await testDatabase();
const someId = ExecutionId.parse("0190b5a0-0000-7000-8000-000000000001");

/** What a committer has besides. */
const unused = { record: () => Promise.reject(new Error("not used here")), close() {} };

const half = "report 📄".slice(0, 8);

/** Each writes something that no column takes. */
const ways: Record<string, (ctx: Ctx) => unknown> = {
  "a step named after half an emoji": (ctx) => ctx.step(half, () => 1),
  "a step with a NUL in its name": (ctx) => ctx.step("a\u0000b", () => 1),
  "a state key with a NUL": (ctx) => ctx.setState("files.a\u0000b", 1),
  "an event with a NUL in its name": (ctx) => ctx.emitNoWait("a\u0000b", 1),
  "an event named after half an emoji": (ctx) => ctx.emit(half, 1, { wait: true }),
  "a pause with a NUL in its id": (ctx) =>
    ctx.pauseFor({ type: "approval", interruptId: "a\u0000b", resumeTo: "next" }),
  "a pause of half an emoji": (ctx) => ctx.pauseFor({ type: half, resumeTo: "next" }),
  "a state value with a NUL": (ctx) => ctx.setState("text", "a\u0000b"),
  "a flush of what cannot be held": async (ctx) => {
    ctx.emitNoWait("a\u0000b", 1);
    await ctx.flush();
  },
};

test.each(Object.entries(ways))("%s fails its chunk, which has run once", async (_, work) => {
  let runs = 0;
  const flow = defineFlow("poison");
  flow.to("work", (ctx) => {
    runs += 1;
    return work(ctx as Ctx);
  });
  await using orchestrator = await serving(database, [flow]);

  const execution = await orchestrator.flow(flow).startExecution(1, { autoCloseTimeout: 0 });
  await expect(execution.waitForClose()).rejects.toThrow(/chunk "work"/);

  const { status } = await execution.result.getMeta();
  expect({ status, runs }).toEqual({ status: "failed", runs: 1 });
});

/** An orchestrator with a worker whose database refuses what has a certain text in it, whatever else is in the commit. */
async function refusing(flow: FlowDefinition) {
  let refusals = 0;
  const committer = (inner: Committer): Committer => ({
    ...inner,
    commit(item) {
      if (!JSON.stringify(item.events).includes("cannot be held")) return inner.commit(item);
      refusals += 1;
      return Promise.reject(new Error("refused"));
    },
  });
  const orchestrator = new Orchestrator({ connection: database.url, flows: [flow] }, systemTimers, true, { committer });
  await orchestrator.startWorker({ drainTimeout: "1s", cancelGrace: "200ms" });
  return { orchestrator, refusals: () => refusals };
}

test.each([true, false])(
  "what only the database refuses fails its chunk, which has run once (flushed: %s)",
  async (isFlushed) => {
    let runs = 0;
    const flow = defineFlow(`unheld-${isFlushed ? "flushed" : "returned"}`);
    flow.to("work", async (ctx) => {
      runs += 1;
      await ctx.setState("text", "cannot be held");
      if (isFlushed) await ctx.flush();
    });
    const { orchestrator, refusals } = await refusing(flow);
    await using _closed = orchestrator;

    const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

    await expect(execution.waitForClose()).rejects.toThrow(/what chunk "work" wrote: Postgres refused it/);
    expect({ runs, refusals: refusals() }).toEqual({ runs: 1, refusals: 1 });
    expect(await verify(database.sql, { id: execution.id })).toEqual([]);
  },
);

test("of many chunks that end together the one that wrote it is found, and fails by its name", async () => {
  const all = Promise.withResolvers<void>();
  const runs = new Map<string, number>();
  const meet = async (name: string) => {
    runs.set(name, (runs.get(name) ?? 0) + 1);
    if (runs.size === 21) all.resolve();
    await all.promise;
    // The commit of the first one is on its way by then, so the others share the next.
    await new Promise((done) => setImmediate(done));
  };
  const flow = defineFlow("together");
  for (let n = 1; n <= 20; n++)
    flow.to(`good ${n}`, async (ctx) => {
      await meet(`good ${n}`);
      await ctx.setState(`good ${n}`, true);
    });
  flow.to("bad", async (ctx) => {
    await meet("bad");
    await ctx.setState("bad", "cannot be held");
  });
  const { orchestrator, refusals } = await refusing(flow);
  await using _closed = orchestrator;

  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  await expect(execution.waitForClose()).rejects.toThrow(/what chunk "bad" wrote/);
  // Once with others, and once alone.
  expect({ bad: runs.get("bad"), refusals: refusals() }).toEqual({ bad: 2, refusals: 2 });
  expect(await verify(database.sql, { id: execution.id })).toEqual([]);
});

test("what was in the middle of something beside a far wait goes on at once, although a sibling's commit was refused", async () => {
  const begun = newGate();
  const runs = { slow: 0, bad: 0 };
  const flow = defineFlow("beside-refused");
  flow.to("good", async (ctx) => {
    const slow = ctx.step("slow", async (signal) => {
      if (++runs.slow > 1) return;
      begun.open();
      await new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("aborted"))));
    });
    await Promise.all([slow, ctx.sleep("1h")]);
  });
  flow.to(
    "bad",
    async (ctx) => {
      await begun.passed;
      runs.bad += 1;
      await ctx.setState("text", "cannot be held");
    },
    { onFailure: "park" },
  );
  const { orchestrator } = await refusing(flow);
  await using _closed = orchestrator;

  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await untilEvent(execution, "step.completed");

  expect(runs).toEqual({ slow: 2, bad: 1 });
  expect(await verify(database.sql, { id: execution.id })).toEqual([]);
  await execution.cancel();
});

test("an execution is given back also where Postgres refuses what is to be said of it: without that, and to wait", async () => {
  const sent: Append[] = [];
  const committer = {
    ...unused,
    commit: (item: Append): Promise<Committed> => {
      sent.push(item);
      if (item.events.length > 0) return Promise.reject(new Error("refused"));
      return Promise.resolve({ verdict: "ok", firstSeq: 8, at: 0, foreign: null, bytes: 0 });
    },
  };
  const lease = { id: someId, epoch: 2, token: "t", seq: 7 };

  await giveBack(committer, lease, {
    wakeInMs: 0,
    events: [{ type: "chunk.interrupted", dispatch: 1, chunk: "a" }],
    after: 3,
  });

  expect(sent).toMatchObject([
    { commitNo: 4, base: 7, release: { wakeInMs: 0 } },
    { commitNo: 5, base: 7, events: [], release: { wakeInMs: refusedWaitMs } },
  ]);
});

test("of an error's code so much is kept as the database can hold", () => {
  const { code } = serializeError(Object.assign(new Error("odd"), { code: `a\u0000\ud800${"b".repeat(1000)}` }));

  expect(code).toHaveLength(261);
  expect(code?.startsWith("a\\u0000\ufffdb")).toBe(true);
});

test("what was in the middle of something beside a far wait goes on soon, where its owner could not go on", async () => {
  const flow = defineFlow("given.back").to("both", async (ctx) => {
    const beside = async () => {
      await ctx.step("before", () => null);
      await ctx.setResult("told");
      await ctx.flush();
      await ctx.step("after", () => null);
    };
    await Promise.all([ctx.sleep("30d"), beside()]);
  });
  const errors: unknown[] = [];
  const logger = { debug() {}, info() {}, warn() {}, error: (...line: unknown[]) => errors.push(line) };
  await using t = await kit({ flows: [flow], logger });
  const { wakeups } = await t.orchestrator[internals].store();
  const notifyReaders = wakeups.notifyReaders.bind(wakeups);
  Object.assign(wakeups, {
    notifyReaders: (id: ExecutionId) => {
      Object.assign(wakeups, { notifyReaders });
      throw new TypeError(`nobody hears of ${id}`);
    },
  });
  const run = await t.start(flow, null);

  await t.clock.advance("1m");

  expect(errors).toHaveLength(1);
  expect(await run.history({ types: ["chunk.interrupted"] })).toHaveLength(1);
  expect(t.effects("after")).toBe(1);
});

test("what came in meanwhile is behind what is said when an execution is given back", async () => {
  const sent: Append[] = [];
  const answers: Committed[] = [
    { verdict: "ok", firstSeq: 9, at: 0, foreign: [], bytes: 0 },
    { verdict: "ok", firstSeq: 11, at: 0, foreign: null, bytes: 0 },
  ];
  const committer = {
    ...unused,
    commit: (item: Append) => Promise.resolve(answers[sent.push(item) - 1] ?? { verdict: "fenced" as const }),
  };
  const interrupted = { type: "chunk.interrupted", dispatch: 1, chunk: "a" } as const;

  await giveBack(
    committer,
    { id: someId, epoch: 1, token: "t", seq: 7 },
    { wakeInMs: 5, events: [interrupted], fingerprint: "f" },
  );

  expect(sent).toMatchObject([
    { commitNo: 1, base: 7, events: [interrupted], fingerprint: "f" },
    { commitNo: 2, base: 9, events: [], fingerprint: null },
  ]);
});

test("an error whose words cannot be read fails its chunk", async () => {
  const unreadable = {
    get message(): string {
      throw new Error("no message here");
    },
  };
  const revoked = Proxy.revocable({}, {});
  revoked.revoke();
  const thrown = {
    getter: Object.defineProperty(new Error("x"), "message", { get: () => unreadable.message }),
    object: unreadable,
    proxy: revoked.proxy,
    nothing: undefined,
    text: "just words",
  };
  for (const [name, value] of Object.entries(thrown)) {
    const flow = defineFlow(`odd-${name}`);
    flow.to("work", () => {
      // oxlint-disable-next-line typescript/only-throw-error -- that is the point
      throw value;
    });
    await using orchestrator = await serving(database, [flow]);

    const execution = await orchestrator.flow(flow).startExecution(1, { autoCloseTimeout: 0 });

    await expect(execution.waitForClose()).rejects.toThrow(/chunk "work"/);
  }
});

test("the causes of an error are kept with its stack, as far as they can be read, and one that is its own cause ends", () => {
  const circle = new Error("the circle");
  circle.cause = circle;
  const unreadable = Object.defineProperty(new Error("the outer one"), "cause", {
    get: () => {
      throw new Error("no cause here");
    },
  });
  const causesOf = (error: unknown) =>
    (serializeError(error).stack ?? "").split("\nCaused by: ").map((stack) => stack.split("\n", 1)[0]);

  expect(causesOf(new RangeError("a", { cause: new TypeError("b", { cause: { code: 502 } }) }))).toEqual([
    "RangeError: a",
    "TypeError: b",
    '{"code":502}',
  ]);
  expect(causesOf(circle)).toEqual(Array.from({ length: 6 }, () => "Error: the circle"));
  expect(causesOf(unreadable)).toEqual(["Error: the outer one"]);
  expect(causesOf(new Error("alone", { cause: null }))).toEqual(["Error: alone"]);
});

test("a retryIf that throws fails its chunk, and both errors are told", async () => {
  const flow = defineFlow("asks-badly");
  flow.to(
    "work",
    () => {
      throw new Error("the first");
    },
    {
      retry: {
        maxAttempts: 3,
        retryIf: () => {
          throw new Error("the second");
        },
      },
    },
  );
  await using orchestrator = await serving(database, [flow]);

  const execution = await orchestrator.flow(flow).startExecution(1, { autoCloseTimeout: 0 });

  await expect(execution.waitForClose()).rejects.toThrow(/the second.*the first/);
});

test("an async retryIf, whose promise would say yes to every error, fails its chunk or step", async () => {
  const flow = defineFlow("asks-later");
  // What no compiler has seen.
  const retry = { maxAttempts: 3, initialInterval: 1, retryIf: (async () => false) as unknown as () => boolean };
  let tries = 0;
  const work = () => {
    tries += 1;
    throw new Error("no");
  };
  flow.to("work", (ctx) => (ctx.input === "step" ? ctx.step("step", work, { retry }) : work()), { retry });
  await using orchestrator = await serving(database, [flow]);

  for (const of of ["chunk", "step"]) {
    tries = 0;
    const execution = await orchestrator.flow(flow).startExecution(of, { autoCloseTimeout: 0 });

    await expect(execution.waitForClose()).rejects.toThrow(/retryIf .*a promise.*: no: return true or false/);
    expect(tries).toBe(1);
  }
});

test("a chunk whose end is refused leaves its slot to the others", async () => {
  const flow = defineFlow("refused-end", {}, { onFailure: "park" });
  flow.to("flood", (ctx) => {
    // One more than wait for their partners.
    for (let n = 0; n <= 1000; n++) ctx.emitNoWait("One", n);
  });
  flow.to("other", (ctx) => ctx.setState("other", true));
  flow.when(["One", "Other"]).to("both", () => null);
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { concurrency: 1, autoClose: false });

  await untilEvent(execution, "chunk.completed", ({ chunk }) => chunk === "other");

  expect(await execution.history({ types: ["chunk.parked"] })).toMatchObject([{ chunk: "flood" }]);
  await execution.cancel();
});
