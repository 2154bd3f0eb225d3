/** The chunk journal: what a commit point has recorded is not done again, and a chunk that does something else is told. */
import { expect, test } from "vitest";
import { verify } from "../../src/database/verify.ts";
import { defineFlow } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { refusal, serving, untilEvent, visiting } from "../support/flows.ts";

const database = await testDatabase();
const { sql } = database;
const soon = { maxAttempts: 3, initialInterval: 10, jitter: false } as const;
const atOnce = { autoCloseTimeout: 0 } as const;

test("a retried chunk gets back what its steps returned, and repeats none of them", async () => {
  const runs: string[] = [];
  const flow = defineFlow("journal.steps");
  flow.to(
    "pay",
    async (ctx) => {
      const charged = await ctx.step("charge", () => runs.push("charge"));
      await ctx.setState("charged", charged);
      await ctx.step("book", () => void runs.push("book"));
      if (ctx.attempt < 3) throw new Error(`attempt ${ctx.attempt}`);
    },
    { retry: soon },
  );
  await using orchestrator = await serving(database, [flow]);

  const snapshot = await orchestrator.flow(flow).start();

  expect(runs).toEqual(["charge", "book"]);
  expect(snapshot).toEqual({ charged: 1 });
  expect(await verify(sql)).toEqual([]);
});

test("a retried chunk repeats no state write, emit and sleep that is recorded", async () => {
  const flow = defineFlow("journal.effects");
  flow.to(
    "act",
    async (ctx) => {
      await ctx.appendState("list", "once");
      await ctx.emit("Said", 1);
      await ctx.sleep(5);
      if (ctx.attempt === 1) throw new Error("again");
    },
    { retry: soon },
  );
  flow.when("Said").to("heard", async (ctx) => void (await ctx.appendState("heard", ctx.input)));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);

  expect(await execution.waitForClose()).toEqual({ list: ["once"], heard: [1] });
  expect(await execution.history({ types: ["sleep.started"] })).toHaveLength(1);
  expect(await verify(sql, { id: execution.id })).toEqual([]);
});

test("what a chunk wrote after its last commit point is gone when the attempt fails", async () => {
  const flow = defineFlow("journal.uncommitted");
  flow.to(
    "write",
    async (ctx) => {
      if (ctx.attempt === 1) {
        await ctx.setState("lost", true);
        throw new Error("before any commit point");
      }
      await ctx.setState("kept", true);
    },
    { retry: soon },
  );
  await using orchestrator = await serving(database, [flow]);

  expect(await orchestrator.flow(flow).start()).toEqual({ kept: true });
});

test("another effect where the ledger has one is a JournalMismatchError that names both, and is not tried again", async () => {
  const flow = defineFlow("journal.mismatch");
  flow.to(
    "change",
    async (ctx) => {
      await ctx.step(ctx.attempt === 1 ? "charge" : "refund", () => null);
      throw new Error("again");
    },
    { retry: { ...soon, maxAttempts: 5 } },
  );
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);

  const error = await refusal(execution.waitForClose());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { name: "JournalMismatchError" } });
  expect(String(error)).toContain('step "charge"');
  expect(String(error)).toContain('step "refund"');
  expect(await execution.history({ types: ["chunk.failed"] })).toHaveLength(2);
});

test("a step name that is used twice is refused and not retried", async () => {
  const flow = defineFlow("journal.twice");
  flow.to(
    "twice",
    async (ctx) => {
      await ctx.step("same", () => 1);
      await ctx.step("same", () => 2);
    },
    { retry: soon },
  );
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);

  const error = await refusal(execution.waitForClose());

  expect(String(error)).toContain(`step "same" of chunk "twice" is used twice`);
  expect(await execution.history({ types: ["chunk.failed"] })).toHaveLength(1);
});

test.each([
  ["a function", () => () => 1],
  ["a bigint", () => 1n],
  ["NaN", () => Number.NaN],
  [
    "a circle",
    () => {
      const circle: { self?: unknown } = {};
      circle.self = circle;
      return circle;
    },
  ],
  ["a NUL byte", () => "a\0b"],
])("F51: a step that returns %s is refused where it happened, and the execution ends", async (_, work) => {
  const flow = defineFlow("journal.unstorable");
  flow.to("bad", async (ctx) => void (await ctx.step("make", work as () => unknown)));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);

  const error = await refusal(execution.waitForClose());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED" });
  expect(String(error)).toContain("make");
  expect(await verify(sql, { id: execution.id })).toEqual([]);
});

test.each([-1, "-1s", "soon", Number.NaN, Infinity, ""])("a sleep of %s is refused", async (duration) => {
  const flow = defineFlow("journal.sleeps");
  flow.to("sleep", (ctx) => ctx.sleep(duration));
  await using orchestrator = await serving(database, [flow]);

  const error = await refusal(orchestrator.flow(flow).start());

  expect(error).toMatchObject({ code: "EXECUTION_FAILED", cause: { code: "USAGE_INVALID" } });
});

test("a sleep of days holds no worker", async () => {
  let runs = 0;
  const flow = defineFlow("journal.days");
  flow.to("nap", async (ctx) => {
    runs += 1;
    await ctx.appendState("nights", runs);
    await ctx.sleep("40d");
  });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilEvent(execution, "sleep.started");

  const released = await untilRow(
    () =>
      sql`select wake_at - now() > interval '39 days' as far from flowledger.executions where id = ${execution.id} and owner is null`,
  );

  expect(released).toEqual({ far: true });
  expect(runs).toBe(1);
  expect(await verify(sql, { id: execution.id })).toEqual([]);
});

test("F35: an execution whose wake_at is due is claimed, and what is not due in its ledger goes on waiting", async () => {
  const flow = defineFlow("journal.early");
  flow.to("nap", async (ctx) => void (await ctx.sleep("40d")));
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await untilRow(
    () =>
      sql`select 1 as far from flowledger.executions where id = ${execution.id} and owner is null and wake_at > now()`,
  );

  await sql`update flowledger.executions set wake_at = now() where id = ${execution.id}`;
  await sql`select flowledger.add_jobs(array[${execution.id}::uuid])`;
  const again = await untilRow(
    () =>
      sql`select epoch, wake_at - now() > interval '39 days' as far from flowledger.executions where id = ${execution.id} and owner is null and epoch > 1`,
  );

  expect(again).toEqual({ epoch: 2, far: true });
  expect(await execution.history({ types: ["chunk.completed"] })).toEqual([]);
});

test("an emit after the end of its chunk is refused", async () => {
  const { promise, resolve } = Promise.withResolvers<unknown>();
  const flow = defineFlow("journal.late");
  flow.to("leave", (ctx) => {
    setTimeout(() => void ctx.sleep(1).then(resolve, resolve), 50);
  });
  await using orchestrator = await serving(database, [flow]);

  await orchestrator.flow(flow).start();

  expect(await promise).toMatchObject({ name: expect.stringMatching(/UsageError|LeaseLostError/) });
});

test("F41: commands to an unknown execution, and to a closed one, are refused or change nothing", async () => {
  const flow = defineFlow("journal.closed");
  flow.to("only", () => null);
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, atOnce);
  await execution.waitForClose();
  const { length } = await execution.history();

  const emitted = await refusal(execution.emit("Late", 1));
  const cancelled = await execution.cancel();
  const unknown = await refusal(orchestrator.getExecution("0190aaaa-0000-7000-8000-000000000000"));

  expect(emitted).toMatchObject({ code: "EXECUTION_CLOSED" });
  expect(cancelled).toBe(false);
  expect(unknown).toMatchObject({ code: "EXECUTION_NOT_FOUND" });
  expect(await execution.history()).toHaveLength(length);
});

test("F40: of a cancel and a completion at once one wins, and the cancel is told which", async () => {
  const flow = defineFlow("journal.race");
  flow.to("work", (ctx) => ctx.sleep(3));
  await using orchestrator = await serving(database, [flow]);
  await using elsewhere = visiting(database, [flow]);
  const executions = await Promise.all(
    Array.from({ length: 30 }, () => orchestrator.flow(flow).startExecution(null, atOnce)),
  );

  const wins = await Promise.all(
    executions.map(async ({ id }, index) => {
      const execution = await elsewhere.getExecution(id);
      await new Promise((resolve) => setTimeout(resolve, index));
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
  expect(await verify(sql)).toEqual([]);
});

async function untilRow(ask: () => PromiseLike<readonly Record<string, unknown>[]>): Promise<unknown> {
  const deadline = performance.now() + 8000;
  while (performance.now() < deadline) {
    const [row] = await ask();
    if (row) return { ...row };
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return null;
}
