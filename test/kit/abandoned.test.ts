/** A chunk ends without the result of a child that it called: the child is cancelled, unless it says otherwise, and whatever dies meanwhile. */
import { expect, test } from "vitest";
import { defineFlow, type CallOptions, type Ctx } from "../../src/index.ts";
import { kit } from "../support/kit.ts";

const atOnce = { autoCloseTimeout: 0 } as const;

/** Asks, so that it waits for as long as nobody cancels it. */
function asking(name: string) {
  const flow = defineFlow(name);
  flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "q" }));
  flow.onCancel((ctx) => ctx.step("cleaned", () => null));
  return flow;
}

const child = asking("abandoned.child");
const call = (ctx: Ctx, options?: CallOptions) => ctx.call(child, null, options).then(() => "child");
const soon = (ctx: Ctx) => ctx.sleep("1h").then(() => "sleep");

interface Childs {
  readonly started: number;
  readonly abandoned: number;
  readonly ends: readonly (string | null)[];
}

/** What the ledger of a caller has, and how its children are. */
async function childrenOf(t: Awaited<ReturnType<typeof kit>>, execution: { readonly id: string }): Promise<Childs> {
  const caller = await t.orchestrator.getExecution(execution.id);
  const [started, abandoned] = await Promise.all(
    (["child.started", "child.abandoned"] as const).map((type) => caller.history({ types: [type] })),
  );
  const { executions } = await t.orchestrator.listExecutions({ parent: execution.id });
  return {
    started: started?.length ?? 0,
    abandoned: abandoned?.length ?? 0,
    ends: executions.map(({ status, closeReason }) => (status === "waiting" ? "waits" : closeReason)),
  };
}

const gone = "abandoned by its caller";

test.each<[string, (ctx: Ctx) => Promise<unknown>, Childs]>([
  [
    "one that lost a race is cancelled",
    (ctx) => Promise.race([call(ctx), soon(ctx)]),
    { started: 1, abandoned: 1, ends: [gone] },
  ],
  [
    "so are all that lost it",
    (ctx) => Promise.race([call(ctx), call(ctx), soon(ctx)]),
    { started: 2, abandoned: 2, ends: [gone, gone] },
  ],
  [
    "one that is left runs on",
    (ctx) => Promise.race([call(ctx, { onAbandon: "leave" }), soon(ctx)]),
    { started: 1, abandoned: 0, ends: ["waits"] },
  ],
  [
    "one that others may wait for runs on",
    (ctx) => Promise.race([call(ctx, { idempotencyKey: `of ${ctx.execution.id}` }), soon(ctx)]),
    { started: 1, abandoned: 0, ends: ["waits"] },
  ],
  [
    "one that others may wait for is cancelled where that is said",
    (ctx) => Promise.race([call(ctx, { idempotencyKey: `for ${ctx.execution.id}`, onAbandon: "cancel" }), soon(ctx)]),
    { started: 1, abandoned: 1, ends: [gone] },
  ],
  [
    "one for which the waiting ended by a signal runs on",
    async (ctx) => {
      const stop = new AbortController();
      const called = call(ctx, { signal: stop.signal }).catch(() => "stopped");
      await soon(ctx);
      stop.abort(new Error("enough"));
      return called;
    },
    { started: 1, abandoned: 0, ends: ["waits"] },
  ],
  [
    "one that only a failed attempt has called is cancelled when the chunk ends",
    async (ctx) => {
      if (ctx.attempt > 1) return "again";
      await Promise.race([call(ctx), soon(ctx)]);
      throw new Error("not yet");
    },
    { started: 1, abandoned: 1, ends: [gone] },
  ],
  [
    "one that is behind a chunk that asks is cancelled",
    async (ctx) => {
      await Promise.race([call(ctx), soon(ctx)]);
      return ctx.pauseFor({ interruptId: "mine", expiresIn: "2h" });
    },
    { started: 1, abandoned: 1, ends: [gone] },
  ],
])("a child whose result nobody took: %s", async (name, work, found) => {
  const flow = defineFlow(`abandoned.${name.replaceAll(/[^a-z]+/g, "-")}`.slice(0, 90));
  flow.to("work", work, { retry: { maxAttempts: 2, initialInterval: 1 } }).to("after", (ctx) => ctx.sleep("1h"));
  await using t = await kit({ flows: [flow, child] });
  const run = await t.start(flow, null, atOnce);

  await t.clock.advance("1h1m");
  // It sleeps, or asks, by then.
  expect(await run.isOpen()).toBe(true);
  expect(await childrenOf(t, run)).toEqual(found);

  await t.clock.advance("5h");
  expect(await run.isOpen()).toBe(false);
  expect(await childrenOf(t, run)).toEqual(found);
});

test.each(["while it backs off", "while it is parked"])(
  "a child whose caller an operator skips %s is cancelled",
  async (when) => {
    const flow = defineFlow(`abandoned.skipped-${when.replaceAll(" ", "-")}`, {}, { onFailure: "park" });
    const retry = when === "while it is parked" ? { maxAttempts: 1 } : { maxAttempts: 9, initialInterval: "6h" };
    flow
      .to(
        "work",
        async (ctx) => {
          await Promise.race([call(ctx), soon(ctx)]);
          throw new Error("not yet");
        },
        { retry },
      )
      .to("after", (ctx) => ctx.sleep("1d"));
    await using t = await kit({ flows: [flow, child] });
    const run = await t.start(flow, null, atOnce);
    await t.clock.advance("1h1m");
    expect((await childrenOf(t, run)).ends).toEqual(["waits"]);

    const execution = await t.orchestrator.getExecution(run.id);
    await execution.skip({ chunk: "work", output: null, actor: "ann", reason: "it is done" });
    await t.clock.advance("1m");

    expect(await childrenOf(t, run)).toEqual({ started: 1, abandoned: 1, ends: [gone] });
  },
);

test("nobody ends the child of another: a call under a key that is taken fails, and names whose it is", async () => {
  const flow = defineFlow("abandoned.taken");
  flow.to("work", (ctx) => call(ctx, { idempotencyKey: "theirs", onAbandon: "cancel" }), {
    retry: { maxAttempts: 2, initialInterval: 1 },
  });
  await using t = await kit({ flows: [flow, child] });
  const theirs = await t.orchestrator.flow(child).startExecution(null, { idempotencyKey: "theirs" });
  const run = await t.start(flow, null, atOnce);

  await t.clock.advance("1m");

  const [closed] = await run.history({ types: ["execution.closed"] });
  expect(closed).toMatchObject({ outcome: "failed", error: { message: expect.stringContaining(theirs.id) } });
  const { executions } = await t.orchestrator.listExecutions({ status: "waiting" });
  expect(executions.map(({ id }) => id)).toEqual([theirs.id]);
});

test("a child that has ended is not abandoned, whoever hears of it first", async () => {
  const quick = defineFlow("abandoned.quick");
  quick.to("one", () => 1).end();
  const flow = defineFlow("abandoned.none");
  flow.to("work", (ctx) => ctx.call(quick, null)).end();
  await using t = await kit({ flows: [flow, quick] });
  const run = await t.start(flow, null, atOnce);

  await run.until("closed");

  expect((await childrenOf(t, run)).abandoned).toBe(0);
});

test("a child that lost a race is cancelled wherever its caller is cut, also when that closes with the same commit", async () => {
  const closing = defineFlow("abandoned.closing");
  closing.to("work", (ctx) => Promise.race([call(ctx), soon(ctx)])).end();
  const parking = defineFlow("abandoned.parking");
  parking
    .to("work", (ctx) => Promise.race([call(ctx), soon(ctx)]))
    .to("ask", (ctx) => ctx.pauseFor({ expiresIn: "3h" }));
  await using t = await kit({ flows: [closing, parking, child] });
  for (const flow of [closing, parking])
    await t.crashEverywhere(
      flow,
      null,
      async (run, { advance, effects }) => {
        await advance("2h");
        expect(await run.history({ types: ["child.abandoned"] })).toHaveLength(1);
        expect(effects("cleaned")).toBe(1);
      },
      { start: atOnce },
    );
}, 120_000);
