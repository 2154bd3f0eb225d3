/** The chunk journal: what a commit point has recorded is not done again, and a chunk that does something else is told. */
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, expect, test } from "vitest";
import * as errors from "../../src/base/errors.ts";
import { verify } from "../../src/store/verify.ts";
import { defineFlow, ExecutionNotFoundError, PayloadError, StepTimeoutError } from "../../src/index.ts";
import type { Ctx } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { newGate, refusal, serving, untilEvent, visiting } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
const soon = { maxAttempts: 3, initialInterval: 10, jitter: false } as const;
const atOnce = { autoCloseTimeout: 0 } as const;

/** One flow for all tests, so that one worker serves them: each start brings the body of its chunk. */
const bodies = new Map<string, (ctx: Ctx) => unknown>();
const flow = defineFlow("journal");
flow.to("chunk", (ctx) => bodies.get(String(ctx.input))?.(ctx as Ctx), { retry: soon });
flow.when("Said").to("heard", (ctx) => ctx.appendState("heard", ctx.input));
const orchestrator = await serving(database, [flow]);
afterAll(() => orchestrator.close());

let count = 0;
function start(body: (ctx: Ctx) => unknown) {
  const name = `body ${++count}`;
  bodies.set(name, body);
  return orchestrator.flow(flow).startExecution(name, atOnce);
}

test("a retried chunk gets back what its steps returned, and repeats no step, state write, emit or sleep", async () => {
  const runs: string[] = [];
  const attempts: number[] = [];
  const execution = await start(async (ctx) => {
    attempts.push(ctx.attempt);
    const charged = await ctx.step("charge", () => runs.push("charge"));
    await ctx.appendState("list", charged);
    await ctx.emit("Said", "once");
    await ctx.sleep(5);
    await ctx.step("book", () => void runs.push("book"));
    await ctx.setResult("kept");
    await ctx.flush();
    if (ctx.attempt < 3) throw new Error(`attempt ${ctx.attempt}`);
  });

  const snapshot = await execution.waitForClose();

  expect(attempts).toEqual([1, 2, 3]);
  expect(runs).toEqual(["charge", "book"]);
  expect(snapshot).toEqual({ list: [1], heard: ["once"], $final_result: "kept" });
  expect(await execution.history({ types: ["sleep.started", "result.set"] })).toHaveLength(2);
});

test("what a chunk wrote is there up to its last commit point: flush is one, and so is emit", async () => {
  const execution = await start(async (ctx) => {
    if (ctx.attempt > 1) throw new TypeError("no more");
    await ctx.setState("flushed", true);
    await ctx.flush();
    await ctx.setState("emitted", true);
    await ctx.emit("Said", 1);
    await ctx.setState("lost", true);
    throw new Error("after the last commit point");
  });

  const error = await refusal(execution.waitForClose());

  // The second attempt wrote nothing and threw: what the first had committed stands.
  expect(error).toMatchObject({ code: "EXECUTION_FAILED" });
  expect(await execution.result.getState()).toEqual({ flushed: true, emitted: true, heard: [1] });
});

test("an emit with wait that is recorded waits again after a retry, and is not sent again", async () => {
  const execution = await start(async (ctx) => {
    await ctx.emit("Said", "and wait", { wait: true });
    const heard = ctx.getState("heard");
    if (ctx.attempt === 1) throw new Error("again");
    return ctx.setState("seen", heard);
  });

  expect(await execution.waitForClose()).toEqual({ heard: ["and wait"], seen: ["and wait"] });
});

test("another effect where the ledger has one is a JournalMismatchError that names both, and is not tried again", async () => {
  const execution = await start(async (ctx) => {
    await ctx.step(ctx.attempt === 1 ? "charge" : "refund", () => null);
    throw new Error("again");
  });

  const error = await refusal(execution.waitForClose());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { name: "JournalMismatchError" } });
  expect(String(error)).toContain('step "charge"');
  expect(String(error)).toContain('step "refund"');
  expect(await execution.history({ types: ["chunk.failed"] })).toHaveLength(2);
});

test("another kind of effect, or another order, is a mismatch too", async () => {
  const kinds = await start(async (ctx) => {
    if (ctx.attempt === 1) await ctx.sleep(1);
    else await ctx.setState("key", 1);
    throw new Error("again");
  });
  const order = await start(async (ctx) => {
    for (const event of ctx.attempt === 1 ? ["Said", "Else"] : ["Else", "Said"]) await ctx.emit(event, 1);
    throw new Error("again");
  });

  for (const execution of [kinds, order])
    expect(await refusal(execution.waitForClose())).toMatchObject({ cause: { name: "JournalMismatchError" } });
});

test("the idempotency key is the same in every attempt, and another for each step and each run of the chunk", async () => {
  const keys: string[][] = [];
  const body = async (ctx: Ctx) => {
    const run = [ctx.idempotencyKey];
    keys.push(run);
    for (const name of ["one", "two"])
      await ctx.step(
        name,
        (_, key) => {
          run.push(key);
          if (run.length === 2) throw new Error("the step is tried again");
        },
        { retry: { maxAttempts: 2, initialInterval: 1 } },
      );
    if (ctx.attempt === 1) throw new Error("and so is the chunk");
  };
  const [first, second] = [await start(body), await start(body)];
  await Promise.all([first.waitForClose(), second.waitForClose()]);

  const [mine = [], again = []] = keys.filter(([key]) => key?.startsWith(first.id));
  expect(again[0]).toBe(mine[0]);
  expect(mine[0]).toMatch(new RegExp(`^${first.id}/chunk/\\d+$`));
  expect(mine.slice(1)).toEqual([`${mine[0]}/one`, `${mine[0]}/one`, `${mine[0]}/two`]);
  expect(new Set(keys.map(([key]) => key)).size).toBe(2);
});

test("a cancel aborts ctx.signal, and the signal of the step that runs", async () => {
  const begun = newGate();
  const aborted: boolean[] = [];
  const execution = await start(async (ctx) => {
    await ctx.step("wait", async (signal) => {
      begun.open();
      await delay(20_000, null, { signal }).catch(() => aborted.push(signal.aborted, ctx.signal.aborted));
    });
  });
  await begun.passed;

  await execution.cancel("enough");

  expect(await refusal(execution.waitForClose())).toMatchObject({ code: "EXECUTION_CANCELLED" });
  expect(aborted).toEqual([true, true]);
});

test("F35: a sleep of days holds no worker, and what is claimed too early goes on waiting", async () => {
  let runs = 0;
  const execution = await start(async (ctx) => {
    runs += 1;
    await ctx.appendState("nights", 1);
    await ctx.sleep("40d");
  });
  const parked = await untilParked(execution.id, 0);

  await sql`update flowledger.executions set wake_at = now() where id = ${execution.id}`;
  await sql`select flowledger.add_jobs(array[${execution.id}::uuid])`;
  const again = await untilParked(execution.id, 1);

  // As the owner counts, a commit before the database does.
  for (const row of [parked, again]) expect([39, 40]).toContain(row?.["days"]);
  // Asleep it is a row and nothing else; awake too early, it comes to the same sleep and writes nothing twice.
  expect(runs).toBeLessThanOrEqual(2);
  expect(await execution.history({ types: ["state.appended", "sleep.started"] })).toHaveLength(2);
  expect(await execution.history({ types: ["chunk.completed"] })).toEqual([]);
  await execution.cancel();
});

test.each<[string, (ctx: Ctx) => Promise<unknown>, RegExp]>([
  ["a negative sleep", (ctx) => ctx.sleep(-1), /sleep in chunk "chunk"/],
  ["a sleep without a unit", (ctx) => ctx.sleep("5"), /"5" is not a duration/],
  ["an unknown unit", (ctx) => ctx.sleep("3 moons"), /"3 moons" is not a duration/],
  ["an endless sleep", (ctx) => ctx.sleep(Infinity), /Infinity is not a duration/],
  [
    "maxAttempts 0 of a step",
    (ctx) => ctx.step("s", () => 1, { retry: { maxAttempts: 0 } }),
    /step "s".* must be .*, got 0/,
  ],
  ["a negative timeout of a step", (ctx) => ctx.step("s", () => 1, { timeout: -1 }), /timeout of step "s"/],
  ["a step without a name", (ctx) => ctx.step("", () => 1), /name of step "".* must be a text of 1 to 500 characters/],
  [
    "a step whose name was cut in the middle of a character",
    (ctx) => ctx.step("report 📄".slice(0, 8), () => 1),
    /name of step .* must be a text/,
  ],
  ["a step with a NUL in its name", (ctx) => ctx.step("a\0b", () => 1), /name of step .* must be a text/],
  ["an event with a NUL in its name", (ctx) => ctx.emit("a\0b", 1), /is not an event name/],
  ["a pause with half a character in its id", async (ctx) => ctx.pauseFor({ interruptId: "\ud83d" }), /interruptId is/],
  ["a step that returns a function", (ctx) => ctx.step("make", (): unknown => () => 1), /step "make"/],
  ["a step that returns a bigint", (ctx) => ctx.step("make", (): unknown => ({ n: 1n })), /step "make"/],
  ["a step that returns a NUL byte", (ctx) => ctx.step("make", () => "a\0b"), /step "make"/],
])("F51: %s is refused where it is written, and not tried again", async (_, body, message) => {
  const execution = await start(body);

  const error = await refusal(execution.waitForClose());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED" });
  expect(String(error)).toMatch(message);
  expect(await execution.history({ types: ["chunk.failed"] })).toHaveLength(1);
});

test("steps of one name in one run number themselves, and are found again by the next attempt", async () => {
  let runs = 0;
  let attempts = 0;
  const flow = defineFlow("journal.same-name");
  flow.to(
    "chunk",
    async (ctx) => {
      const read = async () => await ctx.step("read", () => ++runs);
      const values = [await read(), await read(), ...(await Promise.all([read(), read()]))];
      if (++attempts === 1) throw new Error("once more");
      await ctx.setState("values", values);
    },
    { retry: { maxAttempts: 2, initialInterval: "1ms" } },
  );
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });

  expect(await execution.waitForClose()).toEqual({ values: [1, 2, 3, 4] });
  expect(runs).toBe(4);
  const steps = await execution.history({ types: ["step.completed"] });
  expect(steps).toMatchObject(["read", "read #2", "read #3", "read #4"].map((name) => ({ name })));
});

test("ctx is refused to what goes on after its chunk has returned or its execution has closed", async () => {
  const closed = newGate();
  const late: Promise<unknown>[] = [];
  const execution = await start((ctx) => {
    const later = async (work: () => Promise<unknown>) => {
      await closed.passed;
      return refusal(work());
    };
    late.push(
      later(() => ctx.sleep(1)),
      later(() => ctx.step("late", () => 1)),
      later(() => ctx.setState("late", 1)),
      later(() => ctx.emit("Said", "late")),
    );
  });
  await execution.waitForClose();
  closed.open();

  for (const error of await Promise.all(late))
    expect(error).toMatchObject({ name: expect.stringMatching(/UsageError|LeaseLostError/) });
  expect(await execution.result.getState()).toEqual({});
});

test("F41: a closed execution takes nothing more, and an unknown one is not found", async () => {
  const execution = await start(() => null);
  await execution.waitForClose();
  const { length } = await execution.history();

  expect(await refusal(execution.emit("Late", 1))).toMatchObject({ code: "EXECUTION_CLOSED" });
  expect(await execution.cancel()).toBe(false);
  const unknown = "0190aaaa-0000-7000-8000-000000000000";
  expect(await refusal(orchestrator.getExecution(unknown))).toMatchObject({ code: "EXECUTION_NOT_FOUND" });
  await expect(sql`select flowledger.cancel(${unknown})`).rejects.toMatchObject({ code: "FL001" });
  expect(await execution.history()).toHaveLength(length);
});

test("F40: of a cancel and a completion at once one wins, and the cancel is told which", async () => {
  await using elsewhere = visiting(database, [flow]);
  const executions = await Promise.all(Array.from({ length: 30 }, () => start((ctx) => ctx.sleep(3))));

  const wins = await Promise.all(
    executions.map(async ({ id }, index) => {
      const execution = await elsewhere.getExecution(id);
      await delay(index);
      return execution.cancel();
    }),
  );
  const outcomes = await Promise.all(
    executions.map((execution) =>
      execution.waitForClose().then(
        () => "completed",
        ({ code }: { code: string }) => code,
      ),
    ),
  );

  expect(outcomes).toEqual(wins.map((won) => (won ? "EXECUTION_CANCELLED" : "completed")));
});

test("after all of this every invariant holds", async () => {
  expect(await verify(sql)).toEqual([]);
});

/** Whole days until it wakes, once nobody has it. */
async function untilParked(id: string, after: number): Promise<Record<string, unknown> | undefined> {
  await untilEvent(
    { history: async () => orchestrator.getExecution(id).then((found) => found.history()) },
    "sleep.started",
  );
  const deadline = performance.now() + 8000;
  while (performance.now() < deadline) {
    const [row] = await sql`
      select extract(day from wake_at - now())::int as days from flowledger.executions
      where id = ${id} and owner is null and epoch > ${after} and wake_at > now() + interval '1 day'`;
    if (row) return { ...row };
    await delay(10);
  }
  return undefined;
}

test.each<[string, (ctx: Ctx) => Promise<void>, unknown]>([
  [
    "a loop that goes on from its own state",
    async (ctx) => {
      for (let at = Number(ctx.getState("at", 0)); at < 5; at = Number(ctx.getState("at"))) {
        await ctx.setState("at", at + 1);
        await ctx.flush();
        if (at === 2 && ctx.attempt === 1) throw new Error("once");
      }
    },
    { at: 5 },
  ],
  [
    "what it reads before it writes",
    async (ctx) => {
      await ctx.setState("old", [ctx.getState("a"), ctx.getState("list"), ctx.getState("deep"), ctx.getState("gone")]);
      await ctx.flush();
      if (ctx.attempt === 2) throw new Error("twice");
      await ctx.setState("a", 1);
      await ctx.appendState("list", 1);
      await ctx.appendState("list", 2);
      await ctx.setState("deep.down.here", 1);
      await ctx.delState("gone");
      await ctx.setState("gone", 2);
      await ctx.flush();
      if (ctx.attempt === 1) throw new Error("once");
    },
    { old: [null, null, null, null], a: 1, list: [1, 2], deep: { down: { here: 1 } }, gone: 2 },
  ],
  [
    "a list of others, a value that becomes a list, and one that is replaced",
    async (ctx) => {
      if (ctx.getState("mine") === null) await ctx.setState("mine", { list: ["mine"], one: "one", all: 1 });
      await ctx.appendState("mine.list", ctx.getState("mine.list"));
      await ctx.appendState("mine.one", ctx.getState("mine.one"));
      await ctx.setState("mine.all", [ctx.getState("mine.all")]);
      await ctx.step("flushes", () => null);
      await ctx.setState("mine", [ctx.getState("mine")]);
      await ctx.sleep(1);
      await ctx.delState("mine");
      await ctx.flush();
      if (ctx.attempt < 3) throw new Error("again");
      await ctx.setState("last", ctx.getState("mine"));
    },
    { last: null },
  ],
])("a retry reads what the first attempt read at the same place: %s", async (_, body, expected) => {
  const execution = await start(body);

  expect(await execution.waitForClose()).toEqual(expected);
});

test.concurrent.each<[string, (ctx: Ctx) => Promise<void>]>([
  ["setState", (ctx) => ctx.setState("now", ctx.attempt)],
  ["appendState", (ctx) => ctx.appendState("now", { at: [ctx.attempt] })],
  ["setResult", (ctx) => ctx.setResult(ctx.attempt)],
  ["emit", (ctx) => ctx.emit("Said", ctx.attempt)],
  ["emitNoWait", async (ctx) => ctx.emitNoWait("Said", ctx.attempt)],
])("another value where the ledger has one is a mismatch that does not name the values: %s", async (_, write) => {
  const execution = await start(async (ctx) => {
    await write(ctx);
    await ctx.flush();
    throw new Error("again");
  });

  const error = await refusal(execution.waitForClose());

  expect(error).toMatchObject({ cause: { name: "JournalMismatchError" } });
  expect(String(error)).toContain("with another value");
});

test("what a chunk has written it reads at any moment, also while that is on its way into the ledger", async () => {
  const seen = new Set<string>();
  const execution = await start(async (ctx) => {
    for (let n = 1; n <= 20; n++) {
      await ctx.setState("n", n);
      await ctx.appendState("list", n);
      let [isOver, looks] = [false, 1];
      const flushing = ctx.flush().then(() => (isOver = true));
      while (!isOver) {
        const list = ctx.getState("list") as number[];
        if (ctx.getState("n") !== n || list.length !== n || list.at(-1) !== n)
          seen.add(JSON.stringify([n, ctx.getState()]));
        await (looks++ % 20 ? null : new Promise(setImmediate));
      }
      await flushing;
    }
  });

  expect(await execution.waitForClose()).toMatchObject({ n: 20 });
  expect([...seen]).toEqual([]);
});

test("a step that failed for the last time throws the same in a later attempt: name, message, stack and code, of JavaScript's class or ours", async () => {
  class Declined extends Error {
    override name = "Declined";
  }
  const failures: (() => unknown)[] = [
    () => {
      throw Object.assign(new TypeError("no such card"), { code: "E_CARD" });
    },
    () => new Promise(() => {}),
    () => NaN,
    () => orchestrator.getExecution("no id"),
    () => {
      throw new Declined("not enough");
    },
  ];
  const seen: unknown[][] = [];
  const execution = await start(async (ctx) => {
    const caught: unknown[] = [];
    for (const [n, work] of failures.entries())
      await ctx.step(`step ${n}`, work, n === 1 ? { timeout: 1 } : {}).catch((error: unknown) => caught.push(error));
    seen.push(caught);
    if (ctx.attempt === 1) throw new Error("again");
  });

  await execution.waitForClose();

  const [thrown, recorded] = seen;
  const read = (errors: unknown[] = []) =>
    errors.map((error) => {
      if (!(error instanceof Error)) throw new Error("not an error");
      const { name, message, stack } = error;
      return { name, message, stack, code: "code" in error ? error.code : null };
    });
  expect(read(recorded)).toEqual(read(thrown));
  const classes = [TypeError, StepTimeoutError, PayloadError, ExecutionNotFoundError, Error];
  expect(classes.map((type, n) => recorded?.[n] instanceof type)).toEqual(classes.map(() => true));
  expect(recorded?.[1]).toMatchObject({ details: {} });
});

test("every class of ours, and JavaScript's own, comes back from the ledger as itself; a RetryAfterError, which has asked already, as an Error", () => {
  const ours = Object.values(errors).filter((type) => type.prototype instanceof Error);
  const javascript = [TypeError, RangeError, ReferenceError, SyntaxError, EvalError, URIError];
  const back = [...ours, ...javascript].filter(
    (type) => !(errors.revive({ name: type.name, message: "no", code: "NO" }) instanceof type),
  );

  expect(back.map((type) => type.name)).toEqual(["FlowledgerError", "RetryAfterError"]);
  expect(errors.revive({ name: "constructor", message: "no" })).toMatchObject({ name: "constructor", message: "no" });
});
