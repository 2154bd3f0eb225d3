/** What follows when nobody answers a pause in time, by the clock of the test. */
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { defineFlow } from "../../src/index.ts";
import type { Json, PauseOptions } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { codeOf, untilPending } from "../support/doors.ts";
import { collect, refusal, serving } from "../support/flows.ts";
import { kit } from "../support/kit.ts";
import { expectGuarantees } from "../support/ledger.ts";

const database = await testDatabase();
const { sql } = database;
const Decision = z.object({ approved: z.boolean(), note: z.string().default("-") });

/** Asks for a decision within two days, and tells in its state what followed. */
function asking(name: string, options: PauseOptions<z.ZodType | null>) {
  const flow = defineFlow(name);
  flow
    .to("ask", async (ctx) =>
      ctx.isResume
        ? ["again", ctx.resume?.value ?? null]
        : ctx.pauseFor({ interruptId: "boss", expiresIn: "2d", ...options }),
    )
    .to("after", (ctx) => ctx.appendState("after", ctx.input));
  flow.when("Late").to("late", (ctx) => ctx.appendState("late", ctx.input));
  return flow;
}

const endings: readonly [string, PauseOptions<z.ZodType | null>, Record<string, Json>][] = [
  ["nothing is said", {}, {}],
  ["end", { onExpire: "end" }, {}],
  ["continue", { onExpire: "continue" }, { after: [null] }],
  ["continue, to self", { onExpire: "continue", resumeTo: "self" }, { after: [null] }],
  ["an event", { onExpire: { event: "Late" } }, { late: [null] }],
  ["an event with a payload", { onExpire: { event: "Late", payload: { by: "clock" } } }, { late: [{ by: "clock" }] }],
  [
    "a value",
    { onExpire: { value: { approved: false } }, response: Decision },
    { after: [{ approved: false, note: "-" }] },
  ],
  ["a value, to self", { onExpire: { value: 7 }, resumeTo: "self" }, { after: [["again", 7]] }],
  ["a value, to an event", { onExpire: { value: 7 }, resumeTo: { event: "Late" } }, { late: [7] }],
];

describe.each(endings)("a pause that expires, where onExpire is %s", (name, options, snapshot) => {
  test("goes on at its time, once, in the original and in a copy of it", async () => {
    const flow = asking(`expiry-${name.replaceAll(/[^a-z]/g, "-")}`, options);
    await using t = await kit({ flows: [flow] });
    const run = await t.start(flow, null, { autoCloseTimeout: 0 });
    await run.until({ waiting: "boss" });
    const saved = await run.save();
    const fork = await run.fork({ at: (await run.history()).length });
    const loaded = await t.orchestrator.load(saved);

    await t.clock.advance("47h");
    const before = await run.getPendingInterrupts();
    await t.clock.advance("1h");

    expect(before).toHaveLength(1);
    for (const execution of [run, fork, loaded]) {
      expect(await execution.waitForClose()).toEqual(snapshot);
      expect((await collect(execution.getRuntimeStream())).at(-1)).toMatchObject({ action: "expire" });
      expect(await execution.result.getMeta()).toMatchObject({ status: "completed", expiredInterrupts: ["boss"] });
      expect(await t.orchestrator.verify({ id: execution.id })).toEqual([]);
    }
  });
});

test("fail fails the chunk without a retry, with an error that names the pause", async () => {
  const flow = defineFlow("expiry-fails");
  flow.to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss", expiresIn: "2d", onExpire: "fail" }), {
    retry: { maxAttempts: 3 },
  });
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null);
  await run.until({ waiting: "boss" });

  await t.clock.advance("2d");

  const error = await refusal(run.waitForClose());
  expect(error).toMatchObject({
    code: "EXECUTION_FAILED",
    cause: { code: "INTERRUPT_EXPIRED", name: "InterruptExpiredError" },
  });
  expect(String((error as Error).cause)).toContain(
    'interrupt "boss" of chunk "ask" had no answer by 2026-01-03T09:00:00.000Z',
  );
  expect(await run.result.getMeta()).toMatchObject({ status: "failed", expiredInterrupts: ["boss"] });
  expect(t.calls("ask")).toBe(1);
  expect(await t.orchestrator.verify({ id: run.id })).toEqual([]);
});

test("what expires with an event answers others that wait for it, and stays in the waiting emit that it belongs to", async () => {
  const flow = defineFlow("expiry-event");
  flow.to("begin", async (ctx) => {
    await ctx.emit("Ask", null, { wait: true });
    await ctx.appendState("order", "begin goes on");
  });
  flow.to("other", (ctx) => ctx.pauseFor({ interruptId: "other", resumeTo: { event: "Late" } }));
  flow
    .when("Ask")
    .to("ask", (ctx) => ctx.pauseFor({ interruptId: "boss", expiresIn: "2d", onExpire: { event: "Late" } }));
  flow.when("Late").to("late", (ctx) => ctx.appendState("order", "late"));
  await using t = await kit({ flows: [flow] });
  const run = await t.start(flow, null, { autoCloseTimeout: 0 });
  await run.until({ waiting: "boss" });
  await run.until({ waiting: "other" });

  await t.clock.advance("2d");

  expect(await run.waitForClose()).toEqual({ order: ["late", "begin goes on"] });
  expect(await run.history({ types: ["interrupt.resumed"] })).toMatchObject([{ id: "other", byEvent: "Late" }]);
  expect(await t.orchestrator.verify({ id: run.id })).toEqual([]);
});

test("an answer in time counts, whatever onExpire says", async () => {
  const flow = asking("in-time", { onExpire: { value: "late" } });
  await using orchestrator = await serving(database, [flow]);
  const execution = await orchestrator.flow(flow).startExecution(null, { autoCloseTimeout: 0 });
  await untilPending(execution);

  await execution.continueWith("boss", "in time");

  expect(await execution.waitForClose()).toEqual({ after: ["in time"] });
  expect(await execution.result.getMeta()).not.toHaveProperty("expiredInterrupts");
  await expectGuarantees(sql, execution.id);
});

test("an onExpire that cannot be is refused where it is written, before anything waits", async () => {
  const Payload = z.object({ by: z.string() });
  const options: readonly Record<string, unknown>[] = [
    { onExpire: "fail" },
    { onExpire: "end" },
    { onExpire: "never", expiresIn: "1d" },
    { onExpire: null, expiresIn: "1d" },
    { onExpire: [], expiresIn: "1d" },
    { onExpire: {}, expiresIn: "1d" },
    { onExpire: { event: "Late", value: 1 }, expiresIn: "1d" },
    { onExpire: { evnt: "Late" }, expiresIn: "1d" },
    { onExpire: { event: "Unheard", payload: null }, expiresIn: "1d" },
    { onExpire: { event: "Unknown" }, expiresIn: "1d" },
    { onExpire: { event: "Late", payload: { by: 7 } }, expiresIn: "1d" },
    { onExpire: { value: { approved: "no" } }, expiresIn: "1d", response: Decision },
    { onExpire: { value: 1n }, expiresIn: "1d" },
  ];
  const flow = defineFlow("bad-expiry", { events: { Late: Payload, Unheard: z.null() } });
  flow.to("ask", (ctx) => ctx.pauseFor(options[Number(ctx.input)] as { type?: string }), { retry: { maxAttempts: 5 } });
  flow.when("Late").to("late", () => null);
  await using orchestrator = await serving(database, [flow]);

  const codes = [];
  for (const index of options.keys()) {
    const execution = await orchestrator.flow(flow).startExecution(index);
    const error = await refusal(execution.waitForClose());
    codes.push((error as { cause: { code?: string } }).cause.code);
    expect(await execution.history({ types: ["interrupt.raised"] })).toEqual([]);
  }

  expect(codes).toEqual([
    ...Array(9).fill("USAGE_INVALID"),
    ...Array(3).fill("CONTRACT_VIOLATED"),
    "PAYLOAD_UNSTORABLE",
  ]);
});

test("a hidden execution still fails at the pause itself", async () => {
  const flow = asking("hidden-expiry", { onExpire: "continue" });
  await using orchestrator = await serving(database, [flow]);

  expect(await codeOf(orchestrator.flow(flow).start())).toBe("NO_RESUME_HANDLE");
});
