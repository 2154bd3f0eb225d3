/** What Postgres can never hold is the failure of the chunk that wrote it: by name, once, and nobody else's. */
import { expect, test } from "vitest";
import { defineFlow } from "../../src/index.ts";
import type { Ctx } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { serving } from "../support/flows.ts";

const database = await testDatabase();

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
  await expect(execution.waitForClose()).rejects.toThrow(/work/);

  const { status } = await execution.result.getMeta();
  expect({ status, runs }).toEqual({ status: "failed", runs: 1 });
});

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
    ctx.emitNoWait(half, 1);
  });
  await using orchestrator = await serving(database, [flow]);

  const execution = await orchestrator.flow(flow).startExecution(1, { autoCloseTimeout: 0 });

  await expect(execution.waitForClose()).rejects.toThrow(/chunk "bad"/);
  expect(runs.get("bad")).toBeLessThanOrEqual(2);
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

    await expect(execution.waitForClose()).rejects.toThrow(/work/);
  }
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
